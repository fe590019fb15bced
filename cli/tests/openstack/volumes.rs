//! `unluks fetch volume`: the key of a volume or a snapshot, and the image that is made of its data and taken back.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::api::{DEMO, Volume};
use crate::restore::{client, interrupt_when};
use crate::support::{CINDER, Desk, Run, bed};

fn volume() -> &'static str {
    bed().seed["cinder"]["volume"]["volume_id"].as_str().unwrap()
}

fn snapshot() -> &'static str {
    bed().seed["cinder"]["snapshot"]["snapshot_id"].as_str().unwrap()
}

fn fetch(desk: &Desk, what: &str, more: &[&str]) -> Run {
    desk.run(&[&["fetch", "volume", what, "--output", "backup"], more].concat())
}

/// All that there is of Cinder in the project, and the images and keys that Cinder makes.
fn inventory() -> Vec<String> {
    let mut all = Vec::new();
    for what in ["volumes", "snapshots"] {
        let found = DEMO.cinder(what, None);
        all.extend(found[what].as_array().unwrap().iter().map(|thing| format!("{what} {}", thing["id"])));
    }
    let images = client("bed-demo", &["image", "list", "-f", "value", "-c", "Name"]);
    all.extend(images.ok().stdout.lines().filter(|name| name.starts_with("unluks")).map(str::to_owned));
    let secrets = client("bed-demo", &["secret", "list", "--limit", "100", "-f", "json"]);
    let secrets: Vec<Value> = serde_json::from_str(&secrets.ok().stdout).unwrap();
    let unnamed = secrets.iter().filter(|s| s["Name"].is_null());
    all.extend(unnamed.map(|s| s["Secret href"].as_str().unwrap().to_owned()));
    all.sort();
    all
}

#[test]
fn a_volume_and_its_snapshot_lead_to_the_key() {
    let passphrase = bed().seed["cinder"]["volume"]["passphrase"].as_str().unwrap();
    for (what, led_by) in [(volume(), Value::Null), ("osbed-luks", Value::Null), (snapshot(), snapshot().into())] {
        let desk = Desk::new("bed-demo");
        let run = fetch(&desk, what, &[]);
        run.ok();
        assert_eq!(desk.files(), ["backup.json", "key"]);
        let key = hex::encode(fs::read(desk.path("backup/key")).unwrap());
        assert_eq!(key, passphrase);
        let backup = desk.backup();
        assert_eq!(backup["key"]["secret"]["id"], bed().seed["cinder"]["volume"]["encryption_key_id"]);
        let expected = serde_json::json!([volume(), "luks", 1, led_by]);
        let found = &backup["volume"];
        assert_eq!(serde_json::json!([found["id"], found["volume_type"], found["size"], found["snapshot"]]), expected);
        assert!(
            backup["image"].is_null() && run.stdout.contains("openstack image create -f value -c image_id --volume"),
            "{}",
            run.stdout
        );
        // The steps are a script.
        let mut check = Command::new("sh");
        check.args(["-n", "-c", &run.stdout]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Run::of(check.spawn().unwrap()).ok();
        desk.run(&["decrypt", "backup", "-o", "x"]).refused(2, "backup", &["holds no image", "only a key"]);
    }
}

#[test]
fn what_has_no_key_says_why() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let desk = Desk::new("bed-demo");
    fetch(&desk, "nothing-of-this-name", &[]).refused(2, "volume.unknown", &["openstack volume list"]);
    let other = Desk::new("bed-other");
    fetch(&other, volume(), &[]).refused(2, "volume.unknown", &["another project"]);
    let create = ["volume", "create", "--type", "plain", "--size", "1", "-f", "value", "-c", "id", "not-encrypted"];
    let plain = client("bed-demo", &create);
    let id = plain.ok().stdout.trim();
    fetch(&desk, id, &[]).refused(5, "volume.plain", &["not encrypted"]);
    client("bed-demo", &["volume", "delete", id]).ok();
    assert!(desk.files().is_empty());
}

fn attach(attached: bool) {
    Volume::of(DEMO, volume()).attach(attached);
}

/// The volume is one, so what happens to it happens in turn.
#[test]
fn an_image_is_made_of_a_volume_in_any_state_and_nothing_is_left_of_it() {
    let _quiet = CINDER.lock().unwrap_or_else(|e| e.into_inner());
    let before = inventory();
    let whole = |desk: &Desk| {
        // It is the same data as the image that Cinder had made of the volume before.
        assert_eq!(desk.backup()["image"]["os_hash_value"], bed().image("cinder")["os_hash_value"]);
        assert_eq!(desk.backup()["volume"]["id"], volume());
        assert_eq!(inventory(), before);
    };
    let desk = Desk::new("bed-demo");
    fetch(&desk, snapshot(), &["--make-image", "--decrypt", "plain", "--no-ciphertext"]).ok();
    assert_eq!(desk.files(), ["backup.json", "key"]);
    assert_eq!(desk.backup()["plaintext"]["sha256"], bed().image("cinder")["plain_sha256"]);
    whole(&desk);

    let desk = Desk::new("bed-demo");
    fetch(&desk, volume(), &["--make-image"]).ok();
    assert_eq!(desk.files(), ["backup.json", "image.raw", "key"]);
    whole(&desk);

    attach(true);
    let attached = std::panic::catch_unwind(|| {
        let desk = Desk::new("bed-demo");
        let steps = fetch(&desk, volume(), &[]);
        assert!(steps.ok().stdout.contains("volume snapshot create") && steps.stdout.contains("--force"));
        for word in ["snapshot ", "of the snapshot", "waiting until Cinder"] {
            let desk = Desk::new("bed-demo");
            let log = desk.path("log");
            let mut command = desk.command(&["fetch", "volume", volume(), "--output", "backup", "--make-image"]);
            let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
            interrupt_when(&mut child, &log, word);
            let code = child.wait().unwrap().code();
            let said = fs::read_to_string(&log).unwrap();
            assert!(code == Some(130) && said.contains("was deleted again"), "{word}: {said}");
            desk.assert_nothing_looks_whole();
            assert_eq!(inventory(), before, "{word}: {said}");
        }
        let desk = Desk::new("bed-demo");
        let run = fetch(&desk, volume(), &["--make-image"]);
        assert!(run.ok().stderr.contains("which is in use"), "{}", run.stderr);
        whole(&desk);
    });
    attach(false);
    attached.unwrap_or_else(|e| std::panic::resume_unwind(e));
}
