//! Every image that is stored, with its plaintext's hash or the message that it must give.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::{Desk, bed, sha256};

/// Fetches it with `--decrypt`, and opens the backup once more without a key flag.
#[track_caller]
fn fetched_and_decrypted(name: &str, property: &str, becomes: &str) {
    let image = bed().image(name);
    let desk = Desk::new("bed-demo");
    let run = desk.fetch(bed().id(name), &["--decrypt", "plain"]);
    assert!(run.ok().stderr.contains("sha512 as Glance has it"), "{}", run.stderr);
    assert_eq!(sha256(&desk.path("plain")), image["plain_sha256"].as_str().unwrap());
    assert_eq!(fs::metadata(desk.path("plain")).unwrap().permissions().mode() & 0o777, 0o600);
    desk.assert_whole(image);

    let backup = desk.backup();
    assert_eq!(backup["image"]["checksum"], image["checksum"]);
    assert_eq!(backup["image"]["os_hash_value"], image["os_hash_value"]);
    assert_eq!(backup["data"]["size"], image["size"]);
    assert_eq!(backup["plaintext"]["sha256"], image["plain_sha256"]);
    assert_eq!(backup["plaintext"]["size"], image["plain_size"]);
    assert_eq!(backup["key"]["secret"]["id"], image["secret_id"]);
    assert_eq!(backup["key"]["secret"]["secret_type"], image["secret_type"]);
    assert_eq!((&backup["key"]["property"], &backup["key"]["becomes"]), (&property.into(), &becomes.into()));
    assert_eq!((&backup["cloud"]["name"], &backup["cloud"]["region"]), (&"bed-demo".into(), &"RegionOne".into()));
    // Neither the key nor what it becomes is in the description.
    let text = fs::read_to_string(desk.path("backup/backup.json")).unwrap();
    assert!(!text.contains(image["passphrase"].as_str().unwrap()));
}

#[test]
fn luks1() {
    fetched_and_decrypted("luks1", "cinder_encryption_key_id", "hexlify");
}

#[test]
fn luks2() {
    fetched_and_decrypted("luks2", "cinder_encryption_key_id", "hexlify");
}

#[test]
fn a_passphrase_that_a_service_stored() {
    fetched_and_decrypted("passphrase-bytes", "os_encrypt_key_id", "direct");
}

#[test]
fn a_passphrase_that_was_stored_as_text() {
    fetched_and_decrypted("passphrase-text", "os_encrypt_key_id", "direct");
}

#[test]
fn what_cinder_made_of_a_volume() {
    fetched_and_decrypted("cinder", "cinder_encryption_key_id", "hexlify");
}

#[test]
fn an_image_that_is_not_encrypted_comes_as_it_is() {
    let image = bed().image("plain");
    let desk = Desk::new("bed-demo");
    let run = desk.fetch(bed().id("plain"), &[]);
    assert!(run.ok().stderr.contains("the image names no key"), "{}", run.stderr);
    assert_eq!(desk.files(), ["backup.json", "image.raw"]);
    assert_eq!(sha256(&desk.path("backup/image.raw")), image["plain_sha256"].as_str().unwrap());
    assert!(desk.backup()["key"].is_null());

    let desk = Desk::new("bed-demo");
    let run = desk.fetch(bed().id("plain"), &["--decrypt", "plain"]);
    run.refused(2, "image.encryption", &["not encrypted", "leave --decrypt out"]);
    assert!(desk.files().is_empty());
}

#[test]
fn the_image_of_a_volume_booted_server_names_its_snapshots_and_the_way_to_their_data() {
    let snapshot = bed().image("volume-booted")["snapshot_id"].as_str().unwrap();
    let desk = Desk::new("bed-demo");
    let run = desk.fetch(bed().id("volume-booted"), &[]);
    run.refused(2, "image.block_device_mapping", &["no data", "booted from a volume", snapshot]);
    assert!(run.stderr.contains(&format!("    openstack volume create --snapshot {snapshot} ")), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("    unluks fetch volume {snapshot} --make-image")), "{}", run.stderr);
    assert!(desk.files().is_empty());
}

#[test]
fn an_image_that_nobody_uploaded() {
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("queued"), &[]).refused(2, "image.status", &["no data", "queued", "upload it"]);
    assert!(desk.files().is_empty());
}

#[test]
fn a_key_that_is_gone() {
    let id = bed().image("secret-deleted")["secret_id"].as_str().unwrap();
    let desk = Desk::new("bed-demo");
    let run = desk.fetch(bed().id("secret-deleted"), &[]);
    run.refused(2, "secret.id", &["gone", id, "cannot be decrypted"]);
    assert!(run.stderr.contains("--no-key"), "{}", run.stderr);
    assert!(desk.files().is_empty());
    // The ciphertext can be had all the same.
    desk.fetch(bed().id("secret-deleted"), &["--no-key"]).ok();
    assert_eq!(desk.files(), ["backup.json", "image.raw"]);
}

#[test]
fn a_shared_image_whose_key_is_not_shared() {
    let id = bed().image("shared")["secret_id"].as_str().unwrap();
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("shared"), &[]).refused(2, "secret.access", &["not ours", id, "openstack acl user add"]);
    assert!(desk.files().is_empty());
}

#[test]
fn an_image_of_another_project() {
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("foreign"), &[]).refused(2, "image.id", &["no image", "another project"]);
    // For its owner it is there.
    let desk = Desk::new("bed-other");
    desk.fetch(bed().id("foreign"), &["--decrypt", "plain"]).ok();
    desk.assert_whole(bed().image("foreign"));
}

#[test]
fn the_plaintext_alone() {
    let image = bed().image("luks2");
    let desk = Desk::new("bed-demo");
    desk.fetch("osbed-luks2", &["--decrypt", "plain", "--no-ciphertext"]).ok();
    assert_eq!(desk.files(), ["backup.json", "key"]);
    assert_eq!(sha256(&desk.path("plain")), image["plain_sha256"].as_str().unwrap());
    assert!(desk.backup()["data"].is_null());
    // A second run replaces nothing unasked.
    desk.fetch("osbed-luks2", &[]).refused(2, "", &["holds a backup already"]);
    let again = desk.run(&["fetch", "image", "osbed-luks2", "--output", "other", "--decrypt", "plain"]);
    assert!(again.code == Some(2) && again.stderr.contains("--force"), "{}", again.stderr);
}

#[test]
fn a_key_alone() {
    let image = bed().image("luks1");
    let desk = Desk::new("bed-demo");
    let id = image["secret_id"].as_str().unwrap();
    let run = desk.run(&["fetch", "key", id, "--output", "k"]);
    assert!(run.ok().stderr.contains("--barbican-key k"), "{}", run.stderr);
    let said: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&said["secret"]["id"], &said["becomes"]), (&id.into(), &"hexlify".into()));
    let hex = hex::encode(fs::read(desk.path("k")).unwrap());
    assert_eq!(hex, image["passphrase"].as_str().unwrap());
    assert_eq!(fs::metadata(desk.path("k")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!run.stdout.contains(&hex) && !run.stderr.contains(&hex));
    // It is not overwritten, and its address is as good as its id.
    assert_eq!(desk.run(&["fetch", "key", id, "--output", "k"]).code, Some(2));
    let address = format!("http://127.0.0.1:{}/v1/secrets/{id}", bed().port("key"));
    desk.run(&["fetch", "key", &address, "--output", "k2"]).ok();
    assert_eq!(fs::read(desk.path("k")).unwrap(), fs::read(desk.path("k2")).unwrap());
}

#[test]
fn names_that_lead_nowhere() {
    let desk = Desk::new("bed-demo");
    desk.fetch("no such \u{1b}[31mimage", &[]).refused(2, "image.id", &["no such \\u{1b}[31mimage"]);
    let zeroes = "00000000-0000-0000-0000-000000000000";
    desk.run(&["fetch", "key", zeroes, "--output", "k"]).refused(5, "secret.id", &["fixed_key", "cinder.conf"]);
    desk.run(&["fetch", "key", "../x", "--output", "k"]).refused(4, "secret.id", &["an id of a secret is wanted"]);
    let nobody = "11111111-2222-3333-4444-555555555555";
    desk.run(&["fetch", "key", nobody, "--output", "k"]).refused(2, "secret.id", &["gone"]);
    assert!(!desk.path("k").exists());
}

#[test]
fn nothing_of_the_users_is_overwritten() {
    let desk = Desk::new("bed-demo");
    fs::create_dir(desk.path("backup")).unwrap();
    fs::write(desk.path("backup/key"), "the last copy").unwrap();
    desk.fetch(bed().id("luks1"), &[]).refused(2, "", &["backup/key", "is another key"]);
    assert_eq!(fs::read(desk.path("backup/key")).unwrap(), b"the last copy");
    fs::rename(desk.path("backup/key"), desk.path("backup/image.raw")).unwrap();
    desk.fetch(bed().id("luks1"), &[]).refused(2, "", &["backup/image.raw is there already"]);
    assert_eq!(fs::read(desk.path("backup/image.raw")).unwrap(), b"the last copy");

    for own in ["image.raw", "key", "backup.json"] {
        let desk = Desk::new("bed-demo");
        let to = format!("./backup/{own}");
        desk.fetch(bed().id("luks1"), &["--decrypt", &to]).refused(2, "", &[&to, "of the backup itself"]);
        assert!(desk.files().is_empty());
    }
}

/// The commands of docs/openstack.md, with a trial in place of the mapping, for which one has to be root.
#[test]
fn a_key_that_is_converted_by_hand_as_the_document_says_opens_the_image() {
    let desk = Desk::new("bed-demo");
    desk.fetch(bed().id("luks1"), &[]).ok();
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openstack.md");
    let document = fs::read_to_string(document).unwrap();
    let commands = document.lines().filter_map(|line| line.strip_prefix("$ "));
    let commands: Vec<_> = commands.filter(|line| line.contains("od -An") || line.contains("binascii")).collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let opens = |convert: &str| {
        let convert = convert.split(" | cryptsetup ").next().unwrap();
        let command = format!("set -o pipefail; {convert} | cryptsetup open --test-passphrase --key-file - image.raw");
        let run = Command::new("bash").args(["-c", &command]).current_dir(desk.path("backup")).output().unwrap();
        (run.status.success(), String::from_utf8(run.stderr).unwrap())
    };
    for command in commands {
        let (opened, said) = opens(command);
        assert!(opened, "{command}: {said}");
    }
    let (opened, said) = opens("python3 -c \"import binascii; print(binascii.hexlify('utf-8'))\"");
    assert!(!opened && said.contains("bytes-like object is required"), "{said}");
    let (opened, said) = opens("python3 -c \"import binascii; print(binascii.hexlify(open('key', 'rb').read()))\"");
    assert!(!opened && said.contains("No key available"), "{said}");
}
