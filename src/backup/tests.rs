use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// A backup of all that a cloud can tell.
fn full() -> Backup {
    let backup = json!({
        "unluks_backup": FORMAT,
        "tool": "unluks",
        "fetched_at": "2026-01-02T00:00:00Z",
        "cloud": {"name": "prod", "region": "R1", "project_id": "p1"},
        "image": {
            "id": "6f0b8d5c-2f0e-4c5e-9a8e-0d5a7d1f0001", "name": "db \u{1b}[2J", "size": 4,
            "virtual_size": 4, "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 512,
            "checksum": "098f6bcd4621d373cade4e832627b4f6", "os_hash_algo": "sha512", "os_hash_value": "00ff",
            "visibility": "private", "protected": true, "owner": "p1", "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z", "tags": ["nightly"],
            "properties": {"cinder_encryption_key_id": "k-1", "hw_disk_bus": "scsi"},
        },
        "data": {"file": "image.raw", "size": 4},
        "plaintext": {"size": 2, "sha256": "ab".repeat(32)},
        "key": {
            "file": KEY_FILE, "size": 2, "becomes": "hexlify", "property": "cinder_encryption_key_id",
            "secret": {
                "id": "k-1", "name": null, "secret_type": "symmetric", "algorithm": "AES", "bit_length": 256, "mode": "XTS",
                "content_type": "application/octet-stream", "created": "2026-01-01T00:00:00.000001", "expiration": null,
            },
        },
        "volume": {
            "id": "v-1", "name": null, "snapshot": null, "volume_type": "luks", "size": 1, "availability_zone": "nova",
            "encryption": {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256, "control_location": "front-end"},
        },
    });
    serde_json::from_value(backup).unwrap()
}

fn written(backup: &Backup) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image.raw"), "data").unwrap();
    fs::write(dir.path().join("key"), [0xab, 0x0f]).unwrap();
    backup.write(dir.path()).unwrap();
    dir
}

/// The description with one value changed, and the rule that refuses it.
fn refusal(pointer: &str, value: Value) -> (ErrorKind, String) {
    let mut json = serde_json::to_value(full()).unwrap();
    *json.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
    let e = Backup::parse(json.to_string().as_bytes()).unwrap_err();
    assert_eq!(e.to_string().lines().count(), 1, "{e}");
    (e.kind(), e.rule().to_owned())
}

#[test]
fn what_is_written_is_read_and_no_other_user_reads_it() {
    let backup = full();
    let dir = written(&backup);
    let read = BackupDir::open(dir.path()).unwrap();
    assert_eq!(read.backup, backup);
    assert_eq!(read.data_path().unwrap(), dir.path().join("image.raw"));
    assert_eq!(read.read_key().unwrap().unwrap().candidates()[0].passphrase.expose(), b"ab0f");
    assert_eq!(read.format(), Some(Format::Raw));
    let path = dir.path().join(DESCRIPTION);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{text}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn a_key_that_was_left_out_is_no_image_without_a_key_and_its_id_is_not_restored() {
    use plan::{Plan, PlanOptions};
    let mut backup = full();
    assert_eq!(backup.key_left_out(), None, "it is there");
    backup.key = None;
    assert_eq!(backup.key_left_out(), Some(("cinder_encryption_key_id", "k-1")));
    let image = backup.image.as_mut().unwrap();
    image.properties.insert("cinder_encryption_key_deletion_policy".into(), "on_image_deletion".into());
    let dir = BackupDir::open(written(&backup).keep().as_path()).unwrap();
    let plan = Plan::new(&dir, &PlanOptions::default()).unwrap();
    assert_eq!(plan.image.properties.keys().collect::<Vec<_>>(), ["hw_disk_bus"]);
    assert!(plan.image.key_properties.is_empty() && plan.secret.is_none());
    let note = plan.notes.iter().find(|note| note.rule == "key-left-out").unwrap();
    assert!(note.message.contains("--property cinder_encryption_key_id=k-1"), "{}", note.message);
    fs::remove_dir_all(dir.path()).unwrap();
    // With its key, a second property that names another secret is one of the old cloud, too.
    let mut backup = full();
    let image = backup.image.as_mut().unwrap();
    image.properties.insert("os_encrypt_key_id".into(), "k-2".into());
    let dir = written(&backup);
    let plan = Plan::new(&BackupDir::open(dir.path()).unwrap(), &PlanOptions::default()).unwrap();
    assert_eq!(plan.image.properties.keys().collect::<Vec<_>>(), ["hw_disk_bus"]);
    assert_eq!(plan.image.key_properties, ["cinder_encryption_key_id"]);
    // One that would have no other property than the key's gets one.
    let image = backup.image.as_mut().unwrap();
    image.properties.remove("hw_disk_bus");
    image.properties.remove("os_encrypt_key_id");
    let dir = written(&backup);
    let plan = Plan::new(&BackupDir::open(dir.path()).unwrap(), &PlanOptions::default()).unwrap();
    assert_eq!(plan.image.properties[plan::FROM_PROPERTY], backup.image.as_ref().unwrap().id);
    assert!(plan.notes.iter().any(|note| note.rule == "only-key"));
    // The cloud names none.
    backup.key = None;
    backup.image.as_mut().unwrap().properties.clear();
    assert_eq!(backup.key_left_out(), None);
}

#[test]
fn the_provider_plain_by_any_of_its_names_has_no_header() {
    use plan::{Plan, PlanOptions};
    let mut backup = full();
    assert!(backup.plain().is_none());
    let provider = |backup: &mut Backup, name: &str| {
        backup.volume.as_mut().unwrap().encryption.as_mut().unwrap().provider = Some(name.into());
    };
    for (name, is_plain) in [
        ("plain", true),
        ("CryptsetupEncryptor", true),
        ("nova.volume.encryptors.cryptsetup.CryptsetupEncryptor", true),
        ("os_brick.encryptors.luks.LuksEncryptor", false),
        ("luks2", false),
        ("", false),
    ] {
        provider(&mut backup, name);
        assert_eq!(backup.plain().is_some(), is_plain, "{name}");
    }
    provider(&mut backup, "plain");
    let dir = written(&backup);
    let plan = Plan::new(&BackupDir::open(dir.path()).unwrap(), &PlanOptions::default()).unwrap();
    let note = plan.notes.iter().find(|note| note.rule == "volume-type").unwrap();
    assert!(note.message.contains("the provider plain, the cipher aes-xts-plain64 with 256 bits"), "{}", note.message);
    assert!(plan.notes.iter().all(|note| note.rule != "header"), "there is no header that could be bad");
}

#[test]
fn a_passphrase_is_taken_as_it_is() {
    let mut backup = full();
    backup.key.as_mut().unwrap().becomes = Becomes::of_secret("passphrase");
    let dir = written(&backup);
    let key = BackupDir::open(dir.path()).unwrap().read_key().unwrap().unwrap();
    assert_eq!(key.candidates()[0].passphrase.expose(), [0xab, 0x0f]);
    assert_eq!(Becomes::of_secret("symmetric"), Becomes::Hexlify);
}

#[test]
fn no_name_leads_out_of_the_directory() {
    let long = "x".repeat(256);
    for name in [
        "",
        ".",
        "..",
        "../key",
        "/etc/passwd",
        "a/b",
        ".hidden",
        "-o",
        "a b",
        "k\u{0}",
        "\u{202e}",
        &long,
        DESCRIPTION,
    ] {
        assert_eq!(refusal("/data/file", json!(name)), (ErrorKind::Corrupt, "data.file".into()), "{name:?}");
        assert_eq!(refusal("/key/file", json!(name)), (ErrorKind::Corrupt, "key.file".into()), "{name:?}");
    }
    assert_eq!(refusal("/key/file", json!("image.raw")).1, "key.file");
    for (pointer, rule) in [("/image/id", "image.id"), ("/key/secret/id", "key.secret.id"), ("/volume/id", "volume.id")]
    {
        assert_eq!(refusal(pointer, json!("../../x")).1, rule);
        assert_eq!(refusal(pointer, json!("")).1, rule);
    }
}

#[test]
fn links_and_folders_are_no_files_of_a_backup() {
    let dir = written(&full());
    let key = dir.path().join("key");
    fs::remove_file(&key).unwrap();
    assert_eq!(BackupDir::open(dir.path()).unwrap_err().rule(), "backup.file");
    std::os::unix::fs::symlink("/etc/passwd", &key).unwrap();
    let e = BackupDir::open(dir.path()).unwrap_err();
    assert!(e.rule() == "backup.file" && e.message().contains("is a link"), "{e}");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert_eq!(BackupDir::open(dir.path()).unwrap_err().rule(), "backup.file");
}

#[test]
fn a_description_is_read_strictly() {
    assert_eq!(refusal("/unluks_backup", json!(2)), (ErrorKind::Unsupported, "unluks_backup".into()));
    assert_eq!(refusal("/image/checksum", json!("0G")).1, "image.checksum");
    assert_eq!(refusal("/plaintext/sha256", json!("")).1, "plaintext.sha256");
    assert_eq!(refusal("/image/os_hash_algo", Value::Null).1, "image.os_hash_algo");
    assert_eq!(refusal("/image", Value::Null).1, "image");
    assert_eq!(refusal("/data/size", json!(5)).1, "data.size");
    assert_eq!(refusal("/image/size", json!(-1)).1, "backup.json");
    assert_eq!(refusal("/key/becomes", json!("upper")).1, "backup.json");
    assert_eq!(
        refusal("/cloud", json!({"name": "x", "region": null, "project_id": null, "token": "t"})).1,
        "backup.json"
    );
    for text in ["", "{", "[]", "{\"unluks_backup\":1}", "{\"unluks_backup\":\"1\"}"] {
        assert_eq!(Backup::parse(text.as_bytes()).unwrap_err().rule(), "backup.json", "{text}");
    }
    // serde_json itself has a limit on nesting.
    assert_eq!(Backup::parse("[".repeat(1 << 20).as_bytes()).unwrap_err().rule(), "backup.json");
}

#[test]
fn what_is_no_backup_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let e = BackupDir::open(dir.path()).unwrap_err();
    assert!(e.kind() == ErrorKind::InvalidInput && e.hint().unwrap().to_string().contains("unluks fetch"), "{e}");
    let file = File::create(dir.path().join(DESCRIPTION)).unwrap();
    file.set_len(BACKUP_JSON_MAX + 1).unwrap();
    assert_eq!(BackupDir::open(dir.path()).unwrap_err().kind(), ErrorKind::LimitExceeded);
}

#[test]
fn a_key_of_another_size_is_not_the_key() {
    let dir = written(&full());
    fs::write(dir.path().join("key"), b"ab0f\n").unwrap();
    let e = BackupDir::open(dir.path()).unwrap().read_key().err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "key.size"), "{e}");
}

#[test]
fn a_data_file_is_named_by_its_format() {
    assert_eq!(data_file_name(Some("raw")), "image.raw");
    for odd in [None, Some(""), Some("../x"), Some("averyveryverylongname")] {
        assert_eq!(data_file_name(odd), "image.bin");
    }
}

#[test]
fn times_are_those_of_a_calendar() {
    let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
    assert_eq!(at(0), "1970-01-01T00:00:00Z");
    assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(at(951_868_799), "2000-02-29T23:59:59Z");
    assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
    assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
}

#[test]
fn the_schema_describes_what_is_written_and_refuses_what_is_refused() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/backup.schema.json");
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let assert_valid = |backup: &Backup| {
        let written: Value = serde_json::from_str(&backup.to_json().unwrap()).unwrap();
        let faults: Vec<_> = validator.iter_errors(&written).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(faults, [""; 0]);
    };
    assert_valid(&full());
    assert_valid(&Backup::new(Cloud::default()));
    assert_eq!(schema["properties"]["unluks_backup"]["const"], FORMAT);
    let changes = [
        ("/unluks_backup", json!(2)),
        ("/data/file", json!("../key")),
        ("/image/id", json!("a/b")),
        ("/key/becomes", json!("upper")),
        ("/cloud", json!({"name": null, "region": null, "project_id": null, "token": "t"})),
    ];
    for (pointer, value) in changes {
        let mut json = serde_json::to_value(full()).unwrap();
        *json.pointer_mut(pointer).unwrap() = value.clone();
        assert!(
            !validator.is_valid(&json) && Backup::parse(json.to_string().as_bytes()).is_err(),
            "{pointer}: {value}"
        );
    }
}
