//! Images whose key or whose name is found in ways that are seldom, credentials that leave a service out, and an image of a
//! volume whose download is stopped.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::restore::client;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{CINDER, Desk, Run, bed};

/// An image of project demo that is deleted in the end.
struct Image(String);

impl Image {
    /// The bytes of a seeded image under another name, with other properties.
    fn of(seeded: &str, more: &[&str]) -> Self {
        let desk = Desk::new("bed-demo");
        let file = desk.path("bytes").to_str().unwrap().to_owned();
        client("bed-demo", &["image", "save", "--file", &file, bed().id(seeded)]).ok();
        let create = ["image", "create", "--disk-format", "raw", "--file", &file, "-f", "json"];
        let made = client("bed-demo", &[&create, more].concat());
        let made: Value = serde_json::from_str(&made.ok().stdout).unwrap();
        Self(made["id"].as_str().unwrap().to_owned())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        client("bed-demo", &["image", "delete", &self.0]);
    }
}

#[test]
fn novas_own_property_of_an_ephemeral_disk_names_its_key() {
    let seeded = bed().image("passphrase-bytes");
    let secret = format!("hw_ephemeral_encryption_secret_uuid={}", seeded["secret_id"].as_str().unwrap());
    let properties = ["hw_ephemeral_encryption=true", "hw_ephemeral_encryption_format=luks", &secret];
    let properties: Vec<&str> = properties.into_iter().flat_map(|property| ["--property", property]).collect();
    let image = Image::of("passphrase-bytes", &[&properties[..], &["ephemeral disk"]].concat());
    let desk = Desk::new("bed-demo");
    desk.fetch(&image.0, &["--decrypt", "plain"]).ok();
    let backup = desk.backup();
    assert_eq!(backup["key"]["property"], "hw_ephemeral_encryption_secret_uuid");
    assert_eq!(backup["key"]["secret"]["id"], seeded["secret_id"]);
    assert_eq!(backup["plaintext"]["sha256"], seeded["plain_sha256"]);
}

#[test]
fn a_hidden_image_is_found_by_its_name() {
    let image = Image::of("luks1", &["--private", "the hidden one"]);
    client("bed-demo", &["image", "set", "--hidden", &image.0]).ok();
    let listed = client("bed-demo", &["image", "list", "-f", "value", "-c", "Name"]);
    assert!(!listed.ok().stdout.contains("the hidden one"));
    let desk = Desk::new("bed-demo");
    desk.fetch("the hidden one", &["--no-key"]).ok();
    assert_eq!(desk.backup()["image"]["id"], image.0);
}

#[test]
fn a_credential_whose_rules_leave_a_service_out_says_so_at_once() {
    let rules = r#"[{"path": "/v2/images/**", "method": "GET", "service": "image"}]"#;
    let create = ["application", "credential", "create", "--access-rules", rules, "with rules", "-f", "json"];
    let made: Value = serde_json::from_str(&client("bed-demo", &create).ok().stdout).unwrap();
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    let mut desk = Desk::new("");
    desk.variables = vec![
        ("OS_AUTH_TYPE".into(), "v3applicationcredential".into()),
        ("OS_AUTH_URL".into(), format!("http://127.0.0.1:{}/v3", bed().port("identity"))),
        ("OS_APPLICATION_CREDENTIAL_ID".into(), text("ID")),
        ("OS_APPLICATION_CREDENTIAL_SECRET".into(), text("Secret")),
    ];
    let asked = Instant::now();
    let run = desk.fetch(bed().id("luks1"), &[]);
    client("bed-demo", &["application", "credential", "delete", &text("ID")]).ok();
    run.refused(2, "cloud.access-rules", &["access rules", "application credential show"]);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

/// The image that was made is kept while its download can go on, and the next run takes it.
#[test]
fn an_image_of_a_volume_whose_download_was_stopped_is_gone_on_with() {
    let _alone = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let volume = bed().seed["cinder"]["volume"]["volume_id"].as_str().unwrap();
    // What unluks has made of volumes.
    let images = || {
        let listed = client("bed-demo", &["image", "list", "-f", "value", "-c", "Name"]);
        listed.ok().stdout.lines().filter(|name| name.starts_with("unluks")).count()
    };
    let before = images();
    let glance = Proxy::downloads(bed().port("image"), |_| Fault { rate: Some(2 << 20), ..Fault::default() });
    let desk = Desk::with_glance(glance.port);
    let child = desk.command(&["fetch", "volume", volume, "-o", "backup", "--make-image"]).spawn().unwrap();
    let part = desk.path("backup/.image.raw.unluks-part");
    let start = Instant::now();
    while fs::metadata(&part).map_or(0, |m| m.len()) < 1 << 20 {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let stopped = Run::of(child);
    stopped.refused(130, "cancelled", &[]);
    for said in ["is kept, for the same command to go on with", "openstack image delete"] {
        assert!(stopped.stderr.contains(said), "{}", stopped.stderr);
    }
    assert_eq!(images(), before + 1, "the image is kept");
    desk.assert_nothing_looks_whole();

    let quick = Desk::new("bed-demo");
    fs::rename(desk.path("backup"), quick.path("backup")).unwrap();
    let run = quick.run(&["fetch", "volume", volume, "--output", "backup", "--make-image"]);
    assert!(run.ok().stderr.contains("an earlier run made it, and its download is gone on with"), "{}", run.stderr);
    assert!(run.stderr.contains("bytes were there from an earlier run"), "{}", run.stderr);
    assert_eq!(quick.backup()["image"]["os_hash_value"], bed().image("cinder")["os_hash_value"]);
    assert_eq!(images(), before, "and is gone behind that");
}
