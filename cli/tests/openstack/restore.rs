//! A backup that comes back: by `restore-plan --run`, and by the script that it prints, which the real client runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::proxy::{Fault, Proxy};
use crate::support::{Desk, Run, bed, sha256, tools};

/// Runs the openstack client.
pub fn client(cloud: &str, args: &[&str]) -> Run {
    let desk = Desk::new(cloud);
    let mut command = Command::new(tools().join("openstack"));
    command.args(args).env("OS_CLIENT_CONFIG_FILE", desk.path("clouds.yaml")).env("OS_CLOUD", cloud);
    Run::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// Fetches an image into `backup` of a desk of `bed-demo`.
fn fetched(name: &str) -> Desk {
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id(name), &["--quiet"]).ok();
    desk
}

/// The ids in the lines `image ID` and so on.
pub fn id<'a>(lines: &'a str, what: &str) -> &'a str {
    let line = lines.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
    let id = line.unwrap_or_else(|| panic!("no {what} in {lines:?}"));
    id.split([':', ',', ' ', ';']).next().unwrap()
}

/// Fails unless neither image nor secret of these lines is in the cloud.
fn assert_gone(cloud: &str, lines: &str) {
    let image = client(cloud, &["image", "show", id(lines, "image")]);
    assert!(image.code != Some(0) && image.stderr.contains("No Image found"), "{}", image.stderr);
    let href = format!("http://127.0.0.1:{}/v1/secrets/{}", bed().port("key"), id(lines, "secret"));
    let secret = client(cloud, &["secret", "get", &href]);
    assert!(secret.code != Some(0) && secret.stderr.contains("not found"), "{}", secret.stderr);
}

/// Fetches the image that came back as `other`, and compares all that a backup keeps; then deletes it.
fn assert_back(name: &str, before: &Value, image: &str) {
    let desk = Desk::new("bed-other");
    desk.fetch(image, &["--decrypt", "plain", "--quiet"]).ok();
    assert_eq!(sha256(&desk.path("plain")), bed().image(name)["plain_sha256"].as_str().unwrap());
    desk.assert_whole(bed().image(name));
    let after = desk.backup();
    let [old, new] = [before, &after].map(|b| b["key"]["secret"]["id"].as_str().unwrap());
    assert_ne!(old, new, "a secret gets a new id");
    // All but the ids, the times and the owner is as it was.
    let text = |backup: &Value, id: &str| {
        let mut kept = serde_json::json!({"image": backup["image"], "key": backup["key"]});
        for field in ["id", "created_at", "updated_at", "owner"] {
            kept["image"][field] = Value::Null;
        }
        kept["key"]["secret"]["created"] = Value::Null;
        kept.to_string().replace(id, "SECRET")
    };
    assert_eq!(text(&after, new), text(before, old));
    client("bed-other", &["image", "delete", image]).ok();
}

#[track_caller]
fn comes_back(name: &str) {
    let desk = fetched(name);
    let run = desk.run(&["restore-plan", "backup", "--cloud", "bed-other", "--run"]);
    run.ok();
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    assert_back(name, &desk.backup(), id(&run.stdout, "image"));
}

#[test]
fn a_luks1_image_comes_back_in_another_project() {
    comes_back("luks1");
}

#[test]
fn a_luks2_image_comes_back_where_glance_takes_it() {
    comes_back("luks2");
}

#[test]
fn a_passphrase_of_bytes_comes_back() {
    comes_back("passphrase-bytes");
}

#[test]
fn a_passphrase_of_text_comes_back() {
    comes_back("passphrase-text");
}

/// Runs the script that is printed, with the real client.
fn run_script(desk: &Desk, more: &[&str]) -> Run {
    let plan = desk.run(&[&["restore-plan", "backup", "--cloud", "bed-other"], more].concat());
    fs::write(desk.path("plan"), &plan.ok().stdout).unwrap();
    let path = format!("{}:{}", tools().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.arg("plan").current_dir(desk.path("")).env("PATH", path);
    command.env("OS_CLIENT_CONFIG_FILE", desk.path("clouds.yaml"));
    Run::of(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

#[test]
fn the_real_client_runs_the_plan() {
    let desk = fetched("passphrase-text");
    let run = run_script(&desk, &[]);
    let (image, _) = run.ok().stdout.trim().strip_prefix("image ").unwrap().split_once(' ').unwrap();
    let back = Desk::new("bed-other");
    back.fetch(image, &["--decrypt", "plain", "--quiet"]).ok();
    assert_eq!(sha256(&back.path("plain")), bed().image("passphrase-text")["plain_sha256"].as_str().unwrap());
    assert_eq!(back.backup()["key"]["secret"]["content_type"], "text/plain");
    client("bed-other", &["image", "delete", image]).ok();

    let desk = fetched("luks1");
    // The script finds out that what arrived is not what was recorded.
    let mut backup = desk.backup();
    backup["image"]["os_hash_value"] = "00ff".into();
    fs::write(desk.path("backup/backup.json"), backup.to_string()).unwrap();
    let run = run_script(&desk, &[]);
    assert!(run.code == Some(1) && run.stderr.contains("its hash is not the one"), "{}", run.stderr);
    let message = run.stderr.lines().find(|l| l.contains("its hash is not")).unwrap();
    client("bed-other", &["image", "delete", id(message, "image")]).ok();
}

#[test]
fn a_missing_volume_type_is_said_before_anything_is_made() {
    let desk = fetched("luks1");
    let run = desk.run(&["restore-plan", "backup", "--cloud", "bed-other", "--run", "--volume-type", "nvme"]);
    run.refused(5, "restore.volume-type", &["nvme is not there", "luks"]);
    assert!(!run.stderr.lines().any(|l| l.starts_with("secret ") || l.starts_with("image ")), "{}", run.stderr);
}

#[test]
fn whoever_may_not_store_secrets_is_told_and_nothing_is_left() {
    let desk = fetched("luks1");
    let run = desk.run(&["restore-plan", "backup", "--cloud", "bed-viewer", "--run"]);
    run.refused(2, "cloud.refused", &["storing the secret", "403"]);
    assert_eq!(run.stdout, "");
}

#[test]
fn an_upload_that_fails_leaves_nothing_in_the_cloud() {
    let refuse =
        |head: &str, _| if head.starts_with("PUT ") { Fault::answer("413 Too Large") } else { Fault::default() };
    let glance = Proxy::start(bed().port("image"), refuse);
    let desk = fetched("luks1");
    let proxied = Desk::with_glance(glance.port);
    fs::rename(desk.path("backup"), proxied.path("backup")).unwrap();
    let run = proxied.run(&["restore-plan", "backup", "--run"]);
    assert!(matches!(run.code, Some(1 | 2)) && run.stderr.contains("was deleted again"), "{}", run.stderr);
    assert_gone("bed-demo", &run.stderr);
}

#[test]
fn an_upload_that_is_changed_on_the_way_is_found_by_its_hash() {
    let desk = fetched("luks1");
    let path = desk.path("backup/image.raw");
    let mut image = fs::read(&path).unwrap();
    *image.last_mut().unwrap() ^= 1;
    fs::write(&path, image).unwrap();
    let run = desk.run(&["restore-plan", "backup", "--cloud", "bed-other", "--run"]);
    run.refused(4, "image.checksum", &["it was", "was deleted again"]);
    assert_gone("bed-other", &run.stderr);
}

#[test]
fn ctrl_c_in_the_upload_leaves_nothing_in_the_cloud() {
    // The service takes its time, so that there is a middle of the upload.
    let slow = |head: &str, _| {
        if head.starts_with("PUT ") {
            std::thread::sleep(Duration::from_secs(3));
        }
        Fault::default()
    };
    let glance = Proxy::start(bed().port("image"), slow);
    let desk = fetched("luks1");
    let proxied = Desk::with_glance(glance.port);
    fs::rename(desk.path("backup"), proxied.path("backup")).unwrap();
    let log = proxied.path("log");
    let mut command = proxied.command(&["restore-plan", "backup", "--run"]);
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    interrupt_when(&mut child, &log, "uploading");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.lines().last().unwrap().contains("cancelled: ") && said.contains("was deleted again"), "{said}");
    assert_gone("bed-demo", &said);
}

/// Sends the program Ctrl-C when it has said a word.
pub fn interrupt_when(child: &mut std::process::Child, log: &Path, word: &str) {
    let start = std::time::Instant::now();
    while !fs::read_to_string(log).unwrap().contains(word) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before: {}", fs::read_to_string(log).unwrap());
        assert!(start.elapsed() < Duration::from_secs(120), "it never said {word:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // What it says it has begun, it is in the middle of a moment later.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn a_volume_that_cinder_cannot_make_leaves_the_image_that_is_whole() {
    let desk = fetched("plain");
    // No backend has what this type wants.
    let run = desk.run(&["restore-plan", "backup", "--cloud", "bed-other", "--run", "--volume-type", "nowhere"]);
    run.refused(1, "restore.volume", &["kept, as they are whole: image "]);
    let volumes = client("bed-other", &["volume", "list", "-f", "value", "-c", "ID"]);
    assert!(!volumes.ok().stdout.contains(id(&run.stderr, "volume")), "{}", run.stderr);
    client("bed-other", &["image", "delete", id(&run.stderr, "image")]).ok();
}
