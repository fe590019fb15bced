//! A backup's directory in place of an image: `inspect`, `decrypt` and `serve` need no key flag.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Run, read_stored, text, unluks};
use digest::Digest;
use serde_json::{Value, json};

const PLAINTEXT_SHA256: &str = "2418469f191b058a6b7978b814fedef5afec2a38585bae15c9bc24fb0b5e5b36";

/// A backup of the image that QEMU wrote, with its key.
struct Backup {
    dir: tempfile::TempDir,
    description: Value,
}

impl Backup {
    fn new() -> Self {
        let (image, key) = (read_stored("openstack-volume.img"), read_stored("openstack-volume.key"));
        let hex = |digest: &[u8]| digest.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let description = json!({
            "unluks_backup": 1, "tool": "unluks 0.1.0", "fetched_at": "2026-01-01T00:00:00Z",
            "cloud": {"name": "prod", "region": "RegionOne", "project_id": "p1"},
            "image": {
                "id": "i-1", "name": "nightly", "disk_format": "raw", "container_format": "bare", "size": image.len(),
                "virtual_size": image.len(), "min_disk": 0, "min_ram": 0, "checksum": null, "os_hash_algo": "sha512",
                "os_hash_value": hex(&sha2::Sha512::digest(&image)), "visibility": "private", "protected": false,
                "owner": "p1", "created_at": null, "updated_at": null, "tags": [],
                "properties": {"cinder_encryption_key_id": "k-1"},
            },
            "data": {"file": "image.raw", "size": image.len()},
            "plaintext": null,
            "key": {
                "file": "key", "size": key.len(), "becomes": "hexlify", "property": "cinder_encryption_key_id",
                "secret": {"id": "k-1", "name": null, "secret_type": "symmetric", "algorithm": "aes", "bit_length": 256,
                    "mode": null, "content_type": "application/octet-stream", "created": null, "expiration": null},
            },
            "volume": null,
        });
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("image.raw"), image).unwrap();
        fs::write(dir.path().join("key"), key).unwrap();
        let backup = Self { dir, description };
        backup.write();
        backup
    }

    fn write(&self) {
        fs::write(self.path("backup.json"), self.description.to_string()).unwrap();
    }

    fn changed(change: impl FnOnce(&mut Value)) -> Self {
        let mut backup = Self::new();
        change(&mut backup.description);
        backup.write();
        backup
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `unluks decrypt DIR --output OUT` and more.
    fn decrypt(&self, more: &[&str]) -> Run {
        let (dir, out) = (text(self.dir.path()), text(&self.path("plain")));
        unluks(&[&["decrypt", &dir, "--output", &out], more].concat())
    }

    #[track_caller]
    fn assert_refused(&self, more: &[&str], code: i32, words: &[&str]) {
        let run = self.decrypt(more);
        assert_eq!(run.refusal_fault(&[code]), None);
        for word in words {
            assert!(run.stderr.contains(word), "{word:?} is not in {:?}", run.stderr);
        }
        assert!(!self.path("plain").exists() && !self.path(".plain.unluks-part").exists(), "nothing is left");
    }
}

#[test]
fn a_backup_decrypts_without_a_key_flag() {
    let backup = Backup::new();
    let run = backup.decrypt(&["--hash", "sha512"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(common::sha256_file(&backup.path("plain")), PLAINTEXT_SHA256);
    assert!(run.stderr.contains("hexlified"), "{}", run.stderr);
}

#[test]
fn a_key_that_is_named_goes_before_the_backups_own() {
    let backup = Backup::new();
    let wrong = backup.path("wrong");
    fs::write(&wrong, "wrong").unwrap();
    backup.assert_refused(&["--key-file", &text(&wrong)], 3, &["does not open keyslot 0"]);
    fs::rename(backup.path("key"), backup.path("right")).unwrap();
    fs::write(backup.path("key"), [0; 32]).unwrap();
    backup.assert_refused(&[], 3, &["does not open keyslot 0"]);
    assert_eq!(backup.decrypt(&["--barbican-key", &text(&backup.path("right"))]).code, Some(0));
}

#[test]
fn inspect_and_serve_take_the_directory() {
    let backup = Backup::new();
    let dir = text(backup.dir.path());
    let run = unluks(&["inspect", &dir, "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report, {
        let run = unluks(&["inspect", &text(&backup.path("image.raw")), "--json"]);
        serde_json::from_slice::<Value>(&run.stdout).unwrap()
    });
    #[cfg(feature = "nbd")]
    {
        let run = unluks(&["serve", &dir, "--quiet", "--", "true"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
}

#[test]
fn an_image_of_another_length_is_refused_unless_its_rest_is_wanted() {
    let backup = Backup::new();
    let image = fs::read(backup.path("image.raw")).unwrap();
    fs::write(backup.path("image.raw"), &image[..image.len() - 512]).unwrap();
    backup.assert_refused(&[], 4, &["data.size", "--allow-truncated"]);
    assert_eq!(backup.decrypt(&["--allow-truncated"]).code, Some(0));
    fs::remove_file(backup.path("plain")).unwrap();
    fs::write(backup.path("image.raw"), [&image[..], &[0; 512]].concat()).unwrap();
    backup.assert_refused(&["--allow-truncated"], 4, &["data.size"]);
}

#[test]
fn an_image_of_another_hash_gives_no_output() {
    let backup = Backup::changed(|d| d["image"]["os_hash_value"] = "00".into());
    backup.assert_refused(&["--hash", "image:sha512"], 4, &["image.os_hash_value", "it was 00"]);
    assert_eq!(backup.decrypt(&["--hash", "md5"]).code, Some(0), "another hash says nothing");
    let backup = Backup::changed(|d| d["image"]["checksum"] = "00".into());
    backup.assert_refused(&["--hash", "md5"], 4, &["image.checksum", "it was 00"]);
}

#[test]
fn a_backup_without_what_is_wanted_says_why() {
    let empty = tempfile::tempdir().unwrap();
    let run = unluks(&["inspect", &text(empty.path())]);
    assert_eq!(run.refusal_fault(&[2]), None);
    assert!(run.stderr.contains("has no backup.json"), "{}", run.stderr);
    let backup = Backup::changed(|d| d["data"] = Value::Null);
    backup.assert_refused(&[], 2, &["holds no image", "only a key was fetched"]);
    let backup = Backup::changed(|d| {
        d["data"] = Value::Null;
        d["plaintext"] = json!({"size": 4096, "sha256": PLAINTEXT_SHA256});
    });
    backup.assert_refused(&[], 2, &["the ciphertext was not kept"]);
    let backup = Backup::changed(|d| d["key"] = Value::Null);
    let len = fs::metadata(backup.path("image.raw")).unwrap().len();
    fs::write(backup.path("image.raw"), vec![7; usize::try_from(len).unwrap()]).unwrap();
    backup.assert_refused(&[], 4, &["the cloud names no key"]);
}

#[test]
fn no_file_of_a_backup_is_overwritten() {
    let backup = Backup::new();
    for name in ["key", "backup.json", "image.raw"] {
        let before = fs::read(backup.path(name)).unwrap();
        let run = unluks(&["decrypt", &text(backup.dir.path()), "--force", "--output", &text(&backup.path(name))]);
        assert_eq!(run.refusal_fault(&[2]), None);
        assert!(run.stderr.contains("is the input itself"), "{}", run.stderr);
        assert_eq!(fs::read(backup.path(name)).unwrap(), before);
    }
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_never_opened() {
    let backup = Backup::changed(|d| d["key"]["file"] = "../key".into());
    backup.assert_refused(&[], 4, &["key.file", "plain name"]);
}
