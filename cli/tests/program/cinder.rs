//! A directory of Cinder's backups in place of an image.

use std::fs;
use std::path::Path;

use digest::Digest;
use serde_json::json;

use crate::backup::PLAINTEXT_SHA256;
use crate::common::{Run, read_stored, text, unluks};

const ID: &str = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeee";
const PREFIX: &str = "az_nova_backup_";
const BLOCK: usize = 32768;

/// A backup of QEMU's image in objects of `size` bytes, as Swift has them; the first byte of each part in `only` tells an
/// increment's.
fn write(root: &Path, n: u8, parent: Option<u8>, image: &[u8], parts: &[std::ops::Range<usize>]) {
    let name = format!("{PREFIX}{ID}{n}");
    let folder = root.join("volume_v").join(format!("2026010{n}000000"));
    fs::create_dir_all(&folder).unwrap();
    let mut objects = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        let end = format!("-{:05}", i + 1);
        let data = &image[part.clone()];
        fs::write(folder.join(format!("{name}{end}")), data).unwrap();
        let md5 = hex::encode(md5::Md5::digest(data));
        let fields = json!({"offset": part.start, "length": data.len(), "compression": "none", "md5": md5});
        objects.push(json!({ format!("volume_v/2026010{n}000000/{name}{end}"): fields }));
    }
    let hashes: Vec<_> = image.chunks(BLOCK).map(|block| hex::encode(sha2::Sha256::digest(block))).collect();
    let id = format!("{ID}{n}");
    let list = json!({"version": "1.0.0", "backup_id": id, "volume_id": "v", "chunk_size": BLOCK, "sha256s": hashes});
    fs::write(folder.join(format!("{name}_sha256file")), list.to_string()).unwrap();
    let metadata = json!({"version": "1.0.0", "backup_id": id, "volume_id": "v", "volume_meta": null,
        "created_at": format!("2026-01-0{n} 00:00:00"), "parent_id": parent.map(|n| format!("{ID}{n}")), "objects": objects});
    fs::write(folder.join(format!("{name}_metadata")), metadata.to_string()).unwrap();
}

fn stdout(run: &Run) -> String {
    String::from_utf8_lossy(&run.stdout).into_owned()
}

/// A full backup in which a block is another, and an increment that puts it right.
fn tree() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let image = read_stored("openstack-volume.img");
    let last = image.len() - BLOCK..image.len();
    let mut before = image.clone();
    before[last.clone()].fill(0);
    let step = image.len() / 3;
    write(dir.path(), 1, None, &before, &[0..step, step..2 * step, 2 * step..image.len()]);
    write(dir.path(), 2, Some(1), &image, &[last]);
    let key = dir.path().join("key");
    fs::write(&key, read_stored("openstack-volume.key")).unwrap();
    (dir, text(&key))
}

fn object(root: &Path, n: u8, end: &str) -> std::path::PathBuf {
    root.join(format!("volume_v/2026010{n}000000/{PREFIX}{ID}{n}{end}"))
}

#[test]
fn the_newest_backup_of_a_tree_is_decrypted_and_named() {
    let (dir, key) = tree();
    let (root, out) = (text(dir.path()), text(&dir.path().join("plain")));
    let run = unluks(&["decrypt", &root, "--barbican-key", &key, "-o", &out, "--hash", "sha256"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        stdout(&run).contains(PLAINTEXT_SHA256) || run.stderr.contains(PLAINTEXT_SHA256),
        "{}{}",
        stdout(&run),
        run.stderr
    );
    for words in ["the last of 2 in its chain", &format!("backup {ID}2 of volume v"), "4 objects by MD5"] {
        assert!(run.stderr.contains(words), "{words}: {}", run.stderr);
    }
    let run = unluks(&["inspect", &root]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for words in ["complete", "LUKS", &format!("{ID}1  volume v"), &format!("increment of {ID}1")] {
        assert!(stdout(&run).contains(words), "{words}: {}", stdout(&run));
    }
    let other =
        unluks(&["decrypt", &root, "--backup", &format!("{ID}1"), "--barbican-key", &key, "-o", &format!("{out}-1")]);
    assert_eq!(other.code, Some(0), "{}", other.stderr);
    assert!(fs::read(&out).unwrap() != fs::read(format!("{out}-1")).unwrap(), "the full one is another state");
    let none = unluks(&["decrypt", &root, "--backup", "x", "--barbican-key", &key, "-o", &format!("{out}-2")]);
    assert!(none.code == Some(2) && none.stderr.contains("no backup here has the id"), "{}", none.stderr);
}

#[test]
fn verify_compares_every_block_and_finds_a_flipped_byte() {
    let (dir, key) = tree();
    let root = text(dir.path());
    let verify = || unluks(&["verify", &root, "--barbican-key", &key]);
    let run = verify();
    assert!(
        run.code == Some(0) && run.stderr.contains("blocks of the volume by SHA-256"),
        "{}{}",
        stdout(&run),
        run.stderr
    );
    let path = object(dir.path(), 1, "-00003");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let run = verify();
    assert!(run.code == Some(4) && stdout(&run).contains("MD5"), "{}{}", stdout(&run), run.stderr);
    let run = unluks(&["decrypt", &root, "--barbican-key", &key, "-o", &format!("{root}/plain")]);
    assert!(
        run.code == Some(4) && run.stderr.contains("cinder.md5") && run.stderr.contains("-00003"),
        "{}",
        run.stderr
    );
    assert!(!dir.path().join("plain").exists());
}

#[test]
fn one_object_and_a_tree_that_is_not_whole_are_refused_by_name() {
    let (dir, key) = tree();
    let root = text(dir.path());
    let decrypt = |image: &str| unluks(&["decrypt", image, "--barbican-key", &key, "-o", &format!("{root}/plain")]);
    let run = decrypt(&text(&object(dir.path(), 1, "-00001")));
    assert!(
        run.code == Some(2) && run.stderr.contains("cinder.object") && run.stderr.contains("name the directory"),
        "{}",
        run.stderr
    );
    // An input is no output.
    let object = object(dir.path(), 1, "-00002");
    let run = unluks(&["decrypt", &root, "--barbican-key", &key, "-o", &text(&object), "--force"]);
    assert!(run.code == Some(2) && run.stderr.contains("the input itself"), "{}", run.stderr);
    fs::remove_file(&object).unwrap();
    let run = decrypt(&root);
    assert!(run.code == Some(4) && run.stderr.contains("-00002 is not there"), "{}", run.stderr);
    let run = unluks(&["inspect", &root]);
    assert!(stdout(&run).contains("NOT COMPLETE"), "{}", stdout(&run));
}

/// The plan for a tree makes a volume of the right type and restores onto it, and waits with a way out; whatever the names say.
#[test]
fn a_plan_for_a_tree_restores_onto_a_volume_that_it_makes() {
    let (dir, _) = tree();
    let root = text(dir.path());
    // The volume's name is hostile text.
    let metadata = object(dir.path(), 2, "_metadata");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let hostile = "y\" 'z; touch pwned; $(touch pwned)";
    json["volume_meta"] =
        json!({"version": 2, "volume-base-metadata": {"display_name": hostile, "size": 1}}).to_string().into();
    fs::write(&metadata, json.to_string()).unwrap();
    let (bin, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let client = bin.path().join("openstack");
    let fake = "#!/bin/sh\necho \"$@\" >>\"$CALLS\"\ncase \"$*\" in *'volume create'*) echo new;; *'volume show'*) echo \"$STATUS\";; esac\n";
    fs::write(&client, fake).unwrap();
    std::process::Command::new("chmod").args(["+x", &text(&client)]).status().unwrap();
    let plan = |more: &[&str]| unluks(&[&["restore-plan", &root, "--cloud", "c"], more].concat());
    let run = |script: &[u8], status: &str| {
        let (calls, file) = (bin.path().join("calls"), bin.path().join("plan"));
        let _ = fs::remove_file(&calls);
        fs::write(&file, script).unwrap();
        let output = std::process::Command::new("dash")
            .arg(&file)
            .current_dir(work.path())
            .env("PATH", format!("{}:/usr/bin:/bin", text(bin.path())))
            .env("CALLS", &calls)
            .env("STATUS", status)
            .output()
            .unwrap();
        let calls = fs::read_to_string(&calls).unwrap_or_default();
        (output.status.code(), calls, String::from_utf8(output.stderr).unwrap())
    };
    let with_type = plan(&["--volume-type", "luks type"]);
    assert_eq!(with_type.code, Some(0), "{}", with_type.stderr);
    let (code, calls, stderr) = run(&with_type.stdout, "available");
    assert_eq!(code, Some(0), "{stderr}");
    let calls: Vec<&str> = calls.lines().collect();
    assert!(calls[0].contains("volume create") && calls[0].contains("--type luks type --size 1"), "{calls:?}");
    assert!(calls[0].ends_with(&format!("restored-{hostile}")), "{calls:?}");
    assert!(
        calls[2].contains("volume backup restore --force") && calls[2].ends_with(&format!("{ID}2 new")),
        "{calls:?}"
    );
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0);
    // A restore that fails does not wait for ever, and without a type nothing is made.
    let (code, _, stderr) = run(&with_type.stdout, "error_restoring");
    assert!(code == Some(1) && stderr.contains("the volume is error_restoring"), "{stderr}");
    let (code, calls, stderr) = run(&plan(&[]).stdout, "available");
    assert!(code != Some(0) && calls.is_empty() && stderr.contains("VOLUME_TYPE"), "{stderr}");
    // A backup that is not whole, or not there, has no plan; nor has anything else a choice.
    assert_eq!(plan(&["--backup", "x"]).code, Some(2));
    fs::remove_file(object(dir.path(), 2, "-00001")).unwrap();
    assert_eq!(plan(&["--backup", &format!("{ID}2")]).code, Some(4));
    let full = plan(&["--backup", &format!("{ID}1")]);
    assert_eq!(full.code, Some(0), "{}", full.stderr);
    let other = crate::common::Golden::unpack("l2-ext4");
    assert_eq!(unluks(&["restore-plan", &text(other.image.parent().unwrap()), "--backup", "x"]).code, Some(2));
}

#[test]
fn the_json_of_a_tree_lists_its_backups() {
    let (dir, _) = tree();
    let run = unluks(&["inspect", "--json", &text(dir.path())]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let schema = fs::read_to_string(crate::common::root().join("docs/inspect.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let faults: Vec<String> = schema.iter_errors(&report).map(|e| e.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let [full, increment] = report["backups"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert!(full["parent"].is_null() && increment["parent"] == full["id"] && increment["problem"].is_null());
}
