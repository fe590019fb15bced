//! A token that expires during a download, a Keystone that goes away, a Glance that takes no LUKS2: the services themselves are restarted for these
//! tests, so they are alone in this binary, one after the other.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "openstack", feature = "peer-tests"))]

#[path = "openstack/support.rs"]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::proxy::{Fault, Proxy};
use support::{Desk, Run, bed, sha256, up};

/// Ends one service as `down` does.
fn stop(service: &str) {
    let lib = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openstack/bed/lib/proc.sh");
    let mut command = Command::new("bash");
    command.args(["-c", ". \"$1\"; S=$2; stop_one $3", "stop", lib]).arg(&bed().state).arg(service);
    assert!(command.status().unwrap().success());
}

#[test]
fn tokens_and_keystone() {
    let bed = bed();
    up(&bed.state, &[("OSBED_TOKEN_SECONDS", "5")]);
    let tried = std::panic::catch_unwind(|| {
        a_token_that_expires_is_renewed();
        keystone_goes_down_and_comes_back();
        keystone_stays_away();
        stop("glance");
        up(&bed.state, &[("OSBED_STRICT_LUKS", "1")]);
        a_glance_that_refuses_luks2_is_asked_with_the_header_alone();
    });
    stop("glance");
    up(&bed.state, &[]);
    tried.unwrap_or_else(|e| std::panic::resume_unwind(e));
}

/// Tokens last five seconds; the connection is cut after more than that.
fn a_token_that_expires_is_renewed() {
    let glance = Proxy::downloads(bed().port("image"), |n| match n {
        0 => Fault { cut_after: Some(7 << 20), rate: Some(1 << 20), ..Fault::default() },
        _ => Fault::default(),
    });
    let desk = Desk::with_glance(glance.port);
    let start = Instant::now();
    desk.fetch(bed().id("luks1"), &["--decrypt", "plain"]).ok();
    assert!(start.elapsed() > Duration::from_secs(6), "it was over before the token was");
    assert_eq!(sha256(&desk.path("plain")), bed().image("luks1")["plain_sha256"].as_str().unwrap());
    desk.assert_whole(bed().image("luks1"));
    // The old token was refused, and the next connection had another.
    let heads = glance.download_heads();
    let tokens: Vec<_> = heads.iter().map(|h| h.lines().find(|l| l.starts_with("x-auth-token: ")).unwrap()).collect();
    assert_eq!(tokens.len(), 3);
    assert!(tokens[0] == tokens[1] && tokens[1] != tokens[2], "the token was not renewed");
}

/// As Glance is since it looks into what is uploaded: it refuses LUKS2, at the end of the upload.
fn a_glance_that_refuses_luks2_is_asked_with_the_header_alone() {
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("luks2"), &["--quiet"]).ok();
    let run = desk.run(&["restore-plan", "backup", "--run"]);
    run.refused(5, "restore.luks2", &["415", "new encrypted volume"]);
    assert!(!run.stderr.lines().any(|l| l.starts_with("secret ") || l.starts_with("image ")), "{}", run.stderr);
    // LUKS1 is taken as ever.
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("luks1"), &["--quiet"]).ok();
    let run = desk.run(&["restore-plan", "backup", "--run", "--quiet"]);
    let (_, image) = run.ok().stdout.split_once("image ").unwrap();
    let mut delete = Command::new(support::tools().join("openstack"));
    delete.args(["image", "delete", image.trim()]).env("OS_CLIENT_CONFIG_FILE", desk.path("clouds.yaml"));
    assert!(delete.env("OS_CLOUD", "bed-demo").status().unwrap().success());
}

/// Glance answers 401 to every token while it cannot ask Keystone.
fn keystone_goes_down_and_comes_back() {
    let glance = Proxy::downloads(bed().port("image"), |n| match n {
        0 => Fault { cut_after: Some(4 << 20), rate: Some(1 << 20), ..Fault::default() },
        _ => Fault::default(),
    });
    let desk = Desk::with_glance(glance.port);
    let child = desk.command(&["fetch", "image", bed().id("luks1"), "-o", "backup"]).spawn().unwrap();
    let start = Instant::now();
    while std::fs::metadata(desk.path("backup/.image.raw.unluks-part")).map_or(0, |m| m.len()) < 1 << 20 {
        assert!(start.elapsed() < Duration::from_secs(60), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    stop("keystone");
    // Time for the cut, and for a refusal or two.
    std::thread::sleep(Duration::from_secs(10));
    assert!(glance.download_heads().len() > 1, "nobody tried");
    desk.assert_nothing_looks_whole();
    up(&bed().state, &[("OSBED_TOKEN_SECONDS", "5")]);
    Run::of(child).ok();
    desk.assert_whole(bed().image("luks1"));
}

fn keystone_stays_away() {
    let glance = Proxy::downloads(bed().port("image"), |n| match n {
        0 => Fault { cut_after: Some(4 << 20), rate: Some(1 << 20), ..Fault::default() },
        _ => Fault::default(),
    });
    let desk = Desk::with_glance(glance.port);
    let command = ["fetch", "image", bed().id("luks1"), "-o", "backup", "--retries", "1"];
    let child = desk.command(&command).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    stop("keystone");
    Run::of(child).refused(1, "cloud.connection", &["Keystone cannot be reached", "try again later"]);
    desk.assert_nothing_looks_whole();
    up(&bed().state, &[("OSBED_TOKEN_SECONDS", "5")]);
    let run = desk.fetch(bed().id("luks1"), &[]);
    assert!(run.ok().stderr.contains("bytes were there from an earlier run"), "{}", run.stderr);
    desk.assert_whole(bed().image("luks1"));
}
