use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::fake::Fake;
use crate::shapes;
use unluks::backup::plan::PlanOptions;
use unluks::backup::{Backup, Becomes, Cloud, Data, StoredKey};

const DATA: &[u8] = b"no LUKS, but that does not matter here";

/// A backup of a few bytes.
fn backup(change: impl FnOnce(&mut Backup)) -> (tempfile::TempDir, BackupDir) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("image.raw"), DATA).unwrap();
    std::fs::write(dir.path().join("key"), [0xfe; 32]).unwrap();
    let image = json!({
        "id": "old-image", "name": "nightly", "disk_format": "raw", "container_format": "bare", "size": DATA.len(),
        "checksum": hex::encode(md5::Md5::digest(DATA)), "os_hash_algo": "sha512", "os_hash_value": hex::encode(sha2::Sha512::digest(DATA)),
        "visibility": "private", "tags": ["t"], "cinder_encryption_key_id": "old-key", "hw_disk_bus": "scsi",
        "cinder_encryption_key_deletion_policy": "on_image_deletion", "os_glance_x": "reserved",
    });
    let secret = json!({"secret_ref": "http://x/v1/secrets/old-key", "secret_type": "symmetric", "algorithm": "aes",
        "bit_length": 256, "name": "k", "mode": null, "content_types": {"default": "application/octet-stream"}});
    let mut backup = Backup {
        image: Some(shapes::image(&image).unwrap()),
        data: Some(Data { file: "image.raw".into(), size: u64::try_from(DATA.len()).unwrap() }),
        key: Some(StoredKey {
            file: "key".into(),
            size: 32,
            becomes: Becomes::Hexlify,
            property: Some("cinder_encryption_key_id".into()),
            secret: shapes::secret(&secret).unwrap(),
        }),
        ..Backup::new(Cloud::default())
    };
    change(&mut backup);
    backup.write(dir.path()).unwrap();
    let opened = BackupDir::open(dir.path()).unwrap();
    (dir, opened)
}

/// What a cloud answers where all goes well.
fn well(asked: &str) -> Option<(u16, Value)> {
    Some(match asked {
        "POST secrets" => (201, json!({"secret_ref": "http://x/v1/secrets/new-key"})),
        "POST images" => (201, json!({"id": "new-image"})),
        "PUT images/new-image/file" => (204, Value::Null),
        "GET images/new-image" => (
            200,
            json!({"status": "active", "checksum": hex::encode(md5::Md5::digest(DATA)), "os_hash_algo": "sha512",
                "os_hash_value": hex::encode(sha2::Sha512::digest(DATA))}),
        ),
        "PATCH images/new-image" => (200, json!({})),
        "GET types" => {
            (200, json!({"volume_types": [{"id": "type-1", "name": "luks"}, {"id": "type-2", "name": "plain"}]}))
        }
        "GET types/type-1/encryption" => (403, json!({})),
        "GET types/type-2/encryption" => (200, json!({})),
        "POST volumes" => (202, json!({"volume": {"id": "new-volume"}})),
        "GET volumes/new-volume" => (200, json!({"volume": {"status": "available"}})),
        "DELETE images/new-image" | "DELETE secrets/new-key" => (204, Value::Null),
        "DELETE volumes/new-volume" => (202, Value::Null),
        _ => return None,
    })
}

fn run(api: &Fake, dir: &BackupDir, options: &PlanOptions, progress: &Progress) -> Result<Vec<Resource>> {
    let plan = Plan::new(dir, options).unwrap();
    Restore { api, dir, plan: &plan, progress, abort: &Stop::default(), tell: &|_| {} }.run()
}

fn restore(api: &Fake, dir: &BackupDir) -> Result<Vec<Resource>> {
    run(api, dir, &PlanOptions::default(), &Progress::default())
}

#[test]
fn a_secret_and_an_image_with_its_id_are_made_and_nothing_else() {
    let (_dir, dir) = backup(|_| {});
    let api = Fake::new(well);
    let made = restore(&api, &dir).unwrap();
    let ids: Vec<_> = made.iter().map(|m| (m.kind, m.id.as_str())).collect();
    assert_eq!(ids, [(ResourceKind::Secret, "new-key"), (ResourceKind::Image, "new-image")]);
    assert_eq!(api.changes(), ["POST secrets", "POST images", "PUT images/new-image/file"]);
    let sent = api.sent.lock().unwrap();
    let secret: Value = serde_json::from_slice(&sent[0]).unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode([0xfe; 32]);
    let wanted = json!({"secret_type": "symmetric", "algorithm": "aes", "bit_length": 256, "name": "k", "payload": encoded,
        "payload_content_type": "application/octet-stream", "payload_content_encoding": "base64"});
    assert_eq!(secret, wanted);
    let image: Value = serde_json::from_slice(&sent[1]).unwrap();
    assert_eq!(image["cinder_encryption_key_id"], "new-key");
    assert_eq!(image["cinder_encryption_key_deletion_policy"], "on_image_deletion");
    assert_eq!(image["hw_disk_bus"], "scsi");
    assert!(image.get("os_glance_x").is_none());
    assert_eq!(sent[2], DATA);
}

#[test]
fn a_passphrase_goes_as_the_text_that_it_was() {
    let (dir, _) = backup(|b| {
        let key = b.key.as_mut().unwrap();
        key.secret.content_type = Some("text/plain".into());
        key.size = 6;
    });
    std::fs::write(dir.path().join("key"), "a\"b\\\nc").unwrap();
    let api = Fake::new(well);
    restore(&api, &BackupDir::open(dir.path()).unwrap()).unwrap();
    let secret: Value = serde_json::from_slice(&api.sent.lock().unwrap()[0]).unwrap();
    assert_eq!((&secret["payload"], &secret["payload_content_type"]), (&json!("a\"b\\\nc"), &json!("text/plain")));
    assert!(secret.get("payload_content_encoding").is_none());
}

#[test]
fn whatever_fails_takes_back_all_that_was_made() {
    let cases: [(&str, u16, Value, &str); 5] = [
        ("POST secrets", 403, json!({"title": "Forbidden", "description": "not you"}), "cloud.refused"),
        ("POST images", 413, json!({"message": "too many<br />"}), "cloud.refused"),
        ("PUT images/new-image/file", 415, json!({"message": "Image failed safety checks"}), "cloud.refused"),
        ("GET images/new-image", 200, json!({"status": "active", "checksum": "00"}), "image.checksum"),
        ("GET images/new-image", 200, json!({"status": "queued"}), "restore.status"),
    ];
    for (fails, status, answer, rule) in cases {
        let (_dir, dir) = backup(|_| {});
        let api = Fake::new(move |asked| if asked == fails { Some((status, answer.clone())) } else { well(asked) });
        let e = restore(&api, &dir).unwrap_err();
        assert_eq!(e.rule(), rule, "{e}");
        let changes = api.changes();
        let made: Vec<_> = changes.iter().filter(|c| c.starts_with("POST") && *c != fails).collect();
        let deleted: Vec<_> = changes.iter().filter(|c| c.starts_with("DELETE")).collect();
        assert_eq!(made.len(), deleted.len(), "{fails}: {changes:?}");
        assert_eq!(!made.is_empty(), e.to_string().contains("was deleted again"), "{e}");
    }
}

#[test]
fn what_cannot_be_taken_back_is_named_with_the_command_that_deletes_it() {
    let (_dir, dir) = backup(|_| {});
    let api = Fake::new(|asked| match asked {
        "PUT images/new-image/file" => Some((413, json!({"message": "too large"}))),
        "DELETE images/new-image" => Some((403, json!({"message": "protected"}))),
        _ => well(asked),
    });
    let e = restore(&api, &dir).unwrap_err();
    assert!(e.to_string().contains("openstack image delete new-image"), "{e}");
    assert!(!e.to_string().contains("openstack secret delete"), "{e}");
}

#[test]
fn a_file_that_is_not_what_was_fetched_is_found_out() {
    let (dir, opened) = backup(|_| {});
    let mut changed = DATA.to_vec();
    changed[0] ^= 1;
    std::fs::write(dir.path().join("image.raw"), changed).unwrap();
    let api = Fake::new(well);
    let e = restore(&api, &opened).unwrap_err();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "image.checksum"), "{e}");
    assert!(api.changes().contains(&"DELETE images/new-image".to_owned()));
}

#[test]
fn a_signal_takes_back_what_was_made() {
    let (_dir, dir) = backup(|_| {});
    let progress = Arc::new(Progress::default());
    let cancel = Arc::clone(&progress);
    let api = Fake::new(move |asked| {
        if asked == "POST images" {
            cancel.cancel();
        }
        well(asked)
    });
    let e = run(&api, &dir, &PlanOptions::default(), &progress).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled, "{e}");
    assert!(
        api.changes().ends_with(&["DELETE images/new-image".into(), "DELETE secrets/new-key".into()]),
        "{:?}",
        api.changes()
    );
}

#[test]
fn a_missing_or_plain_volume_type_is_said_before_anything_is_made() {
    let (_dir, dir) = backup(|_| {});
    for (name, words) in [("nvme", "there are luks, plain"), ("plain", "does not encrypt")] {
        let api = Fake::new(well);
        let options = PlanOptions { volume: true, volume_type: Some(name.into()) };
        let e = run(&api, &dir, &options, &Progress::default()).unwrap_err();
        assert!(e.rule() == "restore.volume-type" && e.to_string().contains(words), "{e}");
        assert_eq!(api.changes(), [""; 0]);
    }
    let e = run(&Fake::new(well), &dir, &PlanOptions { volume: true, volume_type: None }, &Progress::default())
        .unwrap_err();
    assert!(e.to_string().contains("name a volume type"), "{e}");
}

#[test]
fn a_volume_that_fails_leaves_the_image_that_is_whole() {
    let (_dir, dir) = backup(|_| {});
    let options = PlanOptions { volume: true, volume_type: Some("luks".into()) };
    let made = run(&Fake::new(well), &dir, &options, &Progress::default()).unwrap();
    assert_eq!(made[2], Resource { kind: ResourceKind::Volume, id: "new-volume".into() });
    let gone = AtomicU32::new(0);
    let api = Fake::new(move |asked| match asked {
        "GET volumes/new-volume" if gone.fetch_add(1, Ordering::Relaxed) == 0 => {
            Some((200, json!({"volume": {"status": "error"}})))
        }
        "GET volumes/new-volume" => None,
        _ => well(asked),
    });
    let e = run(&api, &dir, &options, &Progress::default()).unwrap_err();
    assert!(e.rule() == "restore.volume" && e.to_string().contains("secret new-key, image new-image"), "{e}");
    assert_eq!(api.changes().last().unwrap(), "DELETE volumes/new-volume");
}

#[test]
fn a_glance_that_refuses_luks2_is_found_out_by_the_header_alone() {
    let (dir, _) = backup(|b| {
        let data = b.data.as_mut().unwrap();
        data.size = 3 << 20;
        b.image.as_mut().unwrap().size = Some(data.size);
        b.image.as_mut().unwrap().checksum = None;
        b.image.as_mut().unwrap().os_hash_value = None;
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/images/luks2-pbkdf2.img");
    let mut image = std::fs::read(path).unwrap();
    image.resize(3 << 20, 0);
    std::fs::write(dir.path().join("image.raw"), &image).unwrap();
    let dir = BackupDir::open(dir.path()).unwrap();
    let api = Fake::new(|asked| match asked {
        "PUT images/new-image/file" => Some((415, json!({"message": "Image failed safety checks"}))),
        _ => well(asked),
    });
    let e = restore(&api, &dir).unwrap_err();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "restore.luks2"), "{e}");
    assert_eq!(
        api.changes(),
        ["POST images", "PUT images/new-image/file", "DELETE images/new-image"],
        "no secret is stored"
    );
    assert_eq!(api.sent.lock().unwrap()[1], image[..1 << 20]);
    // One that takes it gets all of it.
    let sha512 = hex::encode(sha2::Sha512::digest(&image));
    let api = Fake::new(move |asked| match asked {
        "GET images/new-image" => {
            Some((200, json!({"status": "active", "os_hash_algo": "sha512", "os_hash_value": sha512})))
        }
        _ => well(asked),
    });
    restore(&api, &dir).unwrap();
    assert_eq!(api.sent.lock().unwrap().iter().filter(|s| **s == image).count(), 1);
}

#[test]
fn an_upload_that_the_service_failed_at_is_made_once_more() {
    let (_dir, dir) = backup(|_| {});
    let uploads = AtomicU32::new(0);
    let api = Fake::new(move |asked| match (asked, uploads.load(Ordering::Relaxed)) {
        ("PUT images/new-image/file", 0) => {
            uploads.fetch_add(1, Ordering::Relaxed);
            Some((500, Value::Null))
        }
        ("GET images/new-image", 1) => {
            uploads.fetch_add(1, Ordering::Relaxed);
            Some((200, json!({"status": "queued"})))
        }
        _ => well(asked),
    });
    restore(&api, &dir).unwrap();
    assert_eq!(api.changes().iter().filter(|c| c.starts_with("PUT")).count(), 2);
    // What has begun to take it may have all of it: nobody sends it twice.
    let api = Fake::new(|asked| match asked {
        "PUT images/new-image/file" => Some((502, Value::Null)),
        "GET images/new-image" => Some((200, json!({"status": "saving"}))),
        _ => well(asked),
    });
    let e = restore(&api, &dir).unwrap_err();
    assert!(e.rule() == "cloud.refused" && e.to_string().contains("502"), "{e}");
    assert_eq!(api.changes().iter().filter(|c| c.starts_with("PUT")).count(), 1);
}

#[test]
fn a_protected_image_is_protected_when_it_is_whole() {
    let (_dir, dir) = backup(|b| b.image.as_mut().unwrap().protected = true);
    let api = Fake::new(well);
    restore(&api, &dir).unwrap();
    assert_eq!(api.changes().last().unwrap(), "PATCH images/new-image");
    let body: Value = serde_json::from_slice(&api.sent.lock().unwrap()[1]).unwrap();
    assert!(body.get("protected").is_none(), "it could not be taken back");
}

/// A cloud that keeps the upload's other end, as a connection does that nobody drives any more.
struct Keeps(Fake, std::sync::Mutex<Vec<File>>);

impl Api for Keeps {
    fn send(&self, request: &Request<'_>) -> Result<Answer> {
        match request.body {
            Body::File(_, file, _) => {
                self.1.lock().unwrap().push(file.try_clone().unwrap());
                self.0.send(&Request { body: Body::Empty, ..request.clone() })
            }
            _ => self.0.send(request),
        }
    }
}

#[test]
fn an_answer_that_comes_before_the_upload_is_through_ends_it() {
    // More than any buffer between the two ends takes.
    let (dir, _) = backup(|b| {
        b.data.as_mut().unwrap().size = 64 << 20;
        b.image.as_mut().unwrap().size = Some(64 << 20);
    });
    File::options().write(true).open(dir.path().join("image.raw")).unwrap().set_len(64 << 20).unwrap();
    let dir = BackupDir::open(dir.path()).unwrap();
    let plan = Plan::new(&dir, &PlanOptions::default()).unwrap();
    let fake = Fake::new(|asked| match asked {
        "PUT images/new-image/file" => Some((413, json!({"message": "too large"}))),
        _ => well(asked),
    });
    let (api, progress) = (Keeps(fake, Default::default()), Progress::default());
    let restore =
        Restore { api: &api, dir: &dir, plan: &plan, progress: &progress, abort: &Stop::default(), tell: &|_| {} };
    let e = restore.run().unwrap_err();
    assert!(e.to_string().contains("413: too large"), "{e}");
    assert!(progress.bytes() < 64 << 20);
}
