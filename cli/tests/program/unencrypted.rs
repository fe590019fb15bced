//! `unluks verify` of images that are not encrypted.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::backup::Backup;
use crate::common::{Golden, Run, text, unluks};

/// Where the partitions of [`disk`] start.
const FIRST: usize = 1 << 20;

/// The ext4 that is in a container, as a file of its own.
fn file_system(dir: &Path) -> PathBuf {
    let golden = Golden::unpack("l2-ext4");
    let out = dir.join("ext4");
    let (image, key, to) = (text(&golden.image), text(&golden.key), text(&out));
    let run = unluks(&["decrypt", &image, "--key-file", &key, "-o", &to]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    out
}

/// A disk with an MBR and two partitions: a file system, and other bytes.
fn disk(file_system: &[u8], other: &[u8]) -> Vec<u8> {
    let mut disk = vec![0; FIRST];
    let mut start = FIRST;
    for (n, part) in [file_system, other].into_iter().enumerate() {
        let sectors = |bytes: usize| u32::try_from(bytes / 512).unwrap().to_le_bytes();
        let entry = [&[0, 0, 0, 0, 0x83, 0, 0, 0][..], &sectors(start), &sectors(part.len())].concat();
        disk[446 + 16 * n..462 + 16 * n].copy_from_slice(&entry);
        disk.extend_from_slice(part);
        start += part.len();
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(len).collect()
}

fn verify(image: &Path, more: &[&str]) -> (Run, Value) {
    let image = text(image);
    let run = unluks(&[&["verify", &image, "--json"], more].concat());
    let report = serde_json::from_slice(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stderr));
    (run, report)
}

fn has(report: &Value, code: &str) -> bool {
    report["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == code)
}

#[test]
fn what_is_known_is_verified_as_it_is_and_with_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let ext4 = file_system(dir.path());
    let (run, report) = verify(&ext4, &["--must-be", "ext"]);
    assert_eq!((run.code, report["verdict"].as_str()), (Some(0), Some("restorable")), "{report:#}");
    assert!(report["container"].is_null() && report["key"].is_null() && has(&report, "header.none"));
    let bytes = fs::read(&ext4).unwrap();
    assert_eq!(report["coverage"]["read_bytes"], bytes.len());
    let hash = {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(&bytes))
    };
    assert_eq!(report["hashes"]["plaintext"]["sha256"], hash);

    // Half of it, and a byte of its metadata.
    fs::write(&ext4, &bytes[..bytes.len() / 2]).unwrap();
    let (run, report) = verify(&ext4, &[]);
    assert_eq!((run.code, has(&report, "length.contents")), (Some(4), true), "{report:#}");
    let mut damaged = bytes;
    // Where its first group says that the inodes are.
    damaged[2048 + 8] ^= 1;
    fs::write(&ext4, &damaged).unwrap();
    let (run, report) = verify(&ext4, &[]);
    assert_eq!(run.code, Some(4), "{report:#}");
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "error").unwrap();
    assert_eq!(finding["image_offset"], finding["plaintext_offset"], "{finding}");
    assert!(finding["image_offset"].is_u64(), "{finding}");
}

#[test]
fn a_part_of_a_disk_that_may_be_encrypted_is_a_finding() {
    let dir = tempfile::tempdir().unwrap();
    let ext4 = fs::read(file_system(dir.path())).unwrap();
    let image = dir.path().join("disk");
    fs::write(&image, disk(&ext4, &vec![0; 1 << 20])).unwrap();
    let (run, report) = verify(&image, &[]);
    assert_eq!((run.code, report["verdict"].as_str()), (Some(0), Some("restorable")), "{report:#}");
    assert_eq!(verify(&image, &["--partition", "1"]).1["coverage"]["read_bytes"], ext4.len());

    fs::write(&image, disk(&ext4, &noise(1 << 20))).unwrap();
    let (run, report) = verify(&image, &["--strict"]);
    assert_eq!((run.code, has(&report, "contents.unrecognised")), (Some(7), true), "{report:#}");
    let finding = report["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "warning").unwrap();
    assert_eq!(finding["image_offset"], FIRST + ext4.len(), "{finding}");
}

#[test]
fn what_should_be_encrypted_is_never_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing that is known: a container that lost its header, or other data.
    let image = dir.path().join("image");
    fs::write(&image, noise(1 << 20)).unwrap();
    assert_eq!(verify(&image, &[]).0.code, Some(4));
    // Somebody has a key.
    let ext4 = file_system(dir.path());
    let key = dir.path().join("key");
    fs::write(&key, "key").unwrap();
    let (run, _) = verify(&ext4, &["--key-file", &text(&key)]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("without a key and a header it is verified as it is"), "{}", run.stderr);
    // A policy: by its own rule, and by any that only a header can keep.
    let policy = dir.path().join("policy.toml");
    for (rules, code) in [
        ("encrypted = { is = true, severity = \"error\" }", 4),
        ("max-keyslots = 8", 7),
        ("encrypted = false\nmax-keyslots = 8", 0),
        ("contents = \"ext\"", 0),
    ] {
        fs::write(&policy, rules).unwrap();
        let (run, report) = verify(&ext4, &["--strict", "--policy", &text(&policy)]);
        assert_eq!((run.code, has(&report, "header.policy.encrypted")), (Some(code), code != 0), "{rules}: {report:#}");
    }
    // A backup with a key, whose image is another one.
    let backup = Backup::new();
    let mut bytes = fs::read(&ext4).unwrap();
    bytes.resize(usize::try_from(fs::metadata(backup.path("image.raw")).unwrap().len()).unwrap(), 0);
    fs::write(backup.path("image.raw"), bytes).unwrap();
    let (run, report) = verify(backup.dir.path(), &[]);
    assert_eq!((run.code, has(&report, "header.none")), (Some(4), false), "{report:#}");
}
