//! `unluks verify`: its last line, its exit codes, and what it writes.

use std::fs;

use serde_json::Value;

use crate::backup::Backup;
use crate::common::{Golden, Run, text, unluks};

fn verify(golden: &Golden, more: &[&str]) -> Run {
    let (image, key) = (text(&golden.image), text(&golden.key));
    unluks(&[&["verify", &image, "--key-file", &key], more].concat())
}

#[track_caller]
fn assert_ends(run: &Run, code: i32, last: &str) {
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(run.code, Some(code), "{said}{}", run.stderr);
    assert!(said.lines().last().is_some_and(|line| line.starts_with(last)), "{said}{}", run.stderr);
}

#[test]
fn the_last_line_and_the_exit_code_are_the_verdict() {
    let sound = Golden::unpack("l2-ext4");
    assert_ends(&verify(&sound, &[]), 0, "restorable");
    assert_eq!(verify(&sound, &["--quiet"]).stdout, b"restorable\n");
    assert_ends(&verify(&sound, &["--strict", "--must-be", "ext"]), 0, "restorable");
    assert_ends(&verify(&sound, &["--must-be", "xfs"]), 4, "not restorable: the plaintext is ext4, not xfs");
    let one_copy = Golden::unpack("l2-primary-zeroed");
    assert_ends(&verify(&one_copy, &[]), 0, "restorable with findings");
    assert_ends(&verify(&one_copy, &["--strict"]), 7, "restorable with findings");
    assert_ends(
        &verify(&Golden::unpack("l2-integrity-tag-flipped"), &[]),
        4,
        "not restorable: 512 bytes of plaintext from byte 4608 on are not authentic",
    );
    let other = text(&one_copy.key);
    assert_ends(&unluks(&["verify", &text(&sound.image), "--key-file", &other]), 3, "wrong key: ");
    // What is trouble has no verdict.
    let missing = unluks(&["verify", "/nowhere", "--key-file", &other]);
    assert_eq!((missing.code, missing.stdout.len()), (Some(1), 0));
    assert_eq!(unluks(&["verify", "-", "--key-file", &other]).code, Some(2));
}

#[test]
fn a_bit_that_flipped_in_a_backup_is_one_that_was_recorded_otherwise() {
    let backup = Backup::new();
    let dir = text(backup.dir.path());
    assert_ends(&unluks(&["verify", &dir]), 0, "restorable with findings");
    let image = backup.path("image.raw");
    let mut bytes = fs::read(&image).unwrap();
    // In the last sector, of which nothing else tells.
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&image, &bytes).unwrap();
    let run = unluks(&["verify", &dir, "--json"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["findings"][0]["code"], "file.hash", "{report:#}");
    fs::write(&image, &bytes[..bytes.len() - 512]).unwrap();
    assert_ends(&unluks(&["verify", &dir]), 4, "not restorable: ");

    // A hash that is not known here proves nothing, which is said.
    let newer = Backup::changed(|d| {
        d["image"]["os_hash_algo"] = "blake9".into();
        d["image"]["checksum"] = Value::Null;
    });
    let run = unluks(&["verify", &text(newer.dir.path()), "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let said = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "file.not-compared");
    assert!(said.is_some_and(|f| f["message"].as_str().unwrap().contains("blake9")), "{report:#}");

    // A blank disk is none of an operating system.
    let system = Backup::changed(|description| description["image"]["properties"]["os_distro"] = "debian".into());
    assert_ends(&unluks(&["verify", &text(system.dir.path())]), 4, "not restorable: nothing is recognised");
}

#[test]
fn several_images_are_lines_of_json_and_the_worst_exit_code() {
    let (sound, other) = (Golden::unpack("l2-ext4"), Golden::unpack("l2-argon2id"));
    let (image, key) = (text(&sound.image), text(&sound.key));
    let run = unluks(&["verify", &image, "/nowhere", &text(&other.image), &image, "--key-file", &key, "--json"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let reports: Vec<Value> =
        run.stdout.split(|b| *b == b'\n').filter_map(|l| serde_json::from_slice(l).ok()).collect();
    let verdicts: Vec<_> = reports.iter().map(|r| r["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["restorable", "wrong-key", "restorable"]);
    assert!(run.stderr.contains("/nowhere"), "{}", run.stderr);
    let strip = |mut report: Value| report.as_object_mut().unwrap().remove("run").map(|_| report.to_string());
    assert_eq!(strip(reports[0].clone()), strip(reports[2].clone()));
}

#[test]
fn a_tree_is_compared_with_and_takes_the_place_of_no_input() {
    let golden = Golden::unpack("l2-ext4");
    let (tree, image) = (text(&golden.path("tree")), text(&golden.image));
    assert_ends(&verify(&golden, &["--tree", &tree]), 0, "restorable");
    assert_eq!(verify(&golden, &["--tree", &tree]).code, Some(2), "it is there");
    assert_eq!(verify(&golden, &["--tree", &tree, "--compare", &tree, "--force"]).code, Some(2));
    assert_eq!(verify(&golden, &["--tree", &image, "--force"]).code, Some(2));
    assert_ends(&verify(&golden, &["--compare", &tree]), 0, "restorable");
    let mut bytes = fs::read(&golden.image).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&golden.image, bytes).unwrap();
    assert_ends(&verify(&golden, &["--compare", &tree]), 4, "not restorable: the plaintext is another one");
}

/// What was named as a part and is damaged is what is wrong with the image; to a command that writes it is a wrong file.
#[test]
fn a_damaged_part_that_was_named_is_a_verdict_that_names_it() {
    let golden = Golden::unpack("l2-ext4");
    let (image, key) = (text(&golden.image), text(&golden.key));
    let (part, out) = (golden.path("part.rbd"), text(&golden.path("out")));
    let mut diff = b"rbd diff v1\nf\x01\0\0\0at\x01\0\0\0bs".to_vec();
    diff.extend(fs::metadata(&golden.image).unwrap().len().to_le_bytes());
    // Nothing of the disk is other than before.
    diff.push(b'w');
    diff.extend([0; 16]);
    diff.push(b'e');
    fs::write(&part, &diff).unwrap();
    let ask = |more: &[&str]| unluks(&[&["verify", &image, "--key-file", &key, "--with", &text(&part)], more].concat());
    let sound = ask(&[]);
    assert_eq!(sound.code, Some(0), "{}", sound.stderr);
    for (change, code) in [(0, "storage.with"), (diff.len() - 1, "format.rbd.record")] {
        let mut damaged = diff.clone();
        damaged[change] ^= 0x80;
        fs::write(&part, damaged).unwrap();
        let run = ask(&["--json"]);
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        assert_eq!(report["verdict"], "not-restorable");
        assert!(report["reason"].as_str().unwrap().contains("part.rbd"), "{report:#}");
        let has = |f: &Value| f["code"] == code && f["message"].as_str().unwrap().contains("part.rbd");
        assert!(report["findings"].as_array().unwrap().iter().any(has), "{code}: {report:#}");
        let decrypt = ["decrypt", &image, "--key-file", &key, "--with", &text(&part), "-o", &out];
        assert_ne!(unluks(&decrypt).code, Some(0));
        assert!(!golden.path("out").exists());
    }
}
