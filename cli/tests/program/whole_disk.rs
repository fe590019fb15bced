//! Whole disks on the command line: which partition is taken, what is refused because nobody could know, and what is
//! said of a disk that holds something else.

use std::fs;
use std::path::PathBuf;

use crate::common::{Golden, Run, chain, sha256, text, unluks};

/// Where partition 2 of the GPT disk lies: LUKS2 with 8192 bytes of known plaintext at its start.
const START: usize = 4096 * 512;
const END: usize = 4320 * 512;
const SIZE: usize = 8192;

struct Disk {
    golden: Golden,
    bytes: Vec<u8>,
}

impl Disk {
    fn new() -> Self {
        let golden = Golden::unpack("gpt");
        let bytes = fs::read(&golden.image).unwrap();
        Self { golden, bytes }
    }

    fn write(&self) -> &PathBuf {
        fs::write(&self.golden.image, &self.bytes).unwrap();
        &self.golden.image
    }

    fn decrypt(&self, more: &[&str]) -> Run {
        let (image, key) = (text(self.write()), text(&self.golden.key));
        unluks(&[&["decrypt", &image, "--key-file", &key, "--output", "-"], more].concat())
    }

    fn wanted(&self) -> Vec<u8> {
        chain("l2-sector-2048", SIZE)
    }
}

fn assert_refused(run: &Run, code: i32, says: &[&str]) {
    assert_eq!(run.refusal_fault(&[code]), None, "{}", run.stderr);
    assert!(run.stdout.is_empty());
    assert!(says.iter().all(|part| run.stderr.contains(part)), "{says:?}: {}", run.stderr);
}

#[test]
fn a_detached_header_does_not_say_which_partition_it_is_of() {
    let disk = Disk::new();
    let header = disk.golden.path("header");
    fs::write(&header, &disk.bytes[START..END]).unwrap();
    let header = text(&header);
    assert_refused(&disk.decrypt(&["--header", &header]), 2, &["partition", "--offset 0", "1: ", "2: "]);
    let run = disk.decrypt(&["--header", &header, "--partition", "2"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.starts_with(&disk.wanted()));
    // A disk is taken as a whole by whoever says so.
    assert_eq!(disk.decrypt(&["--header", &header, "--offset", "0"]).code, Some(0));
}

#[test]
fn a_partition_opens_from_its_secondary_header_alone_and_that_is_said() {
    let mut disk = Disk::new();
    disk.bytes[START..START + 4096].fill(0);
    let run = disk.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.starts_with(&disk.wanted()));
    for part in ["no primary one", "2: ", "warning: the primary header is damaged, so the secondary one is used"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

#[test]
fn a_partition_that_is_cut_off_is_read_as_far_as_it_is_there() {
    let mut disk = Disk::new();
    disk.bytes.truncate(END - 512);
    assert_refused(&disk.decrypt(&["--partition", "2"]), 4, &["partition.truncated", "--allow-truncated"]);
    // What is there of the header is shown, with how much is missing.
    let run = unluks(&["inspect", &text(disk.write()), "--partition", "2"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(said.contains("partition 2 is cut off"), "{said}{}", run.stderr);
    let run = disk.decrypt(&["--partition", "2", "--allow-truncated"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(disk.wanted().starts_with(&run.stdout) || run.stdout.starts_with(&disk.wanted()));
    assert!(run.stderr.contains("missing"), "{}", run.stderr);
}

/// An offset that counts from a partition would be taken for one of the disk.
#[test]
fn dfxml_has_no_place_that_is_not_the_disks() {
    let disk = Disk::new();
    let (image, key) = (text(disk.write()), text(&disk.golden.key));
    let dfxml = |image: &str, more: &[&str]| {
        let path = text(&disk.golden.path("record.xml"));
        let run = unluks(&[&["verify", image, "--key-file", &key, "--force", "--dfxml", &path], more].concat());
        assert!(matches!(run.code, Some(0 | 4)), "{}", run.stderr);
        fs::read_to_string(path).unwrap()
    };
    let xml = dfxml(&image, &["--partition", "2"]);
    assert!(
        xml.contains("<volume>") && xml.contains(&format!("img_offset=\"0\" len=\"{}\"", disk.bytes.len())),
        "{xml}"
    );
    // A container at the start of the disk has one.
    let part = disk.golden.path("part");
    fs::write(&part, &disk.bytes[START..END]).unwrap();
    assert!(dfxml(&text(&part), &[]).contains("<volume offset="));
}

#[test]
fn a_damaged_table_is_the_reason_where_nothing_else_is_there() {
    let mut disk = Disk::new();
    let end = disk.bytes.len();
    disk.bytes[1024..1024 + 256].fill(0xaa);
    disk.bytes[end - 33 * 512..][..256].fill(0xaa);
    assert_refused(&disk.decrypt(&[]), 4, &["gpt.", "unluks scan"]);
    // A container that lies over all of the disk does not mind.
    let whole = Disk::new();
    let container = whole.bytes[START..START + (1 << 20)].to_vec();
    disk.bytes[..1 << 20].copy_from_slice(&container);
    assert_eq!(disk.decrypt(&["--length", "8192"]).code, Some(0));
}

#[test]
fn lvm_is_named_wherever_it_is_looked_at() {
    let mut disk = Disk::new();
    let mut label = b"LABELONE".to_vec();
    label.resize(24, 0);
    label.extend_from_slice(b"LVM2 001");
    disk.bytes[2048 * 512 + 512..][..32].copy_from_slice(&label);
    assert_refused(&disk.decrypt(&["--partition", "1"]), 4, &["this is an LVM physical volume"]);
    assert_refused(&disk.decrypt(&["--offset", "1048576"]), 4, &["this is an LVM physical volume"]);
    disk.bytes = vec![0; 1 << 20];
    disk.bytes[512..544].copy_from_slice(&label);
    assert_refused(&disk.decrypt(&[]), 4, &["this is an LVM physical volume", "one of its volumes"]);
}

#[test]
fn a_part_that_is_there_does_not_mind_what_is_missing_behind_it() {
    let golden = Golden::unpack("l2-sector-4096");
    let mut bytes = fs::read(&golden.image).unwrap();
    bytes.extend_from_slice(&[0; 512]);
    fs::write(&golden.image, &bytes).unwrap();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let decrypt = |more: &[&str]| unluks(&[&["decrypt", &image, "--key-file", &key, "--output", "-"], more].concat());
    assert_refused(&decrypt(&[]), 4, &["truncated"]);
    let size = golden.sidecar["size"].as_u64().unwrap();
    let run = decrypt(&["--length", &size.to_string()]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap());
    assert_refused(&decrypt(&["--length", &(size + 512).to_string()]), 4, &["truncated"]);
}

#[test]
fn a_scan_finds_what_an_offline_reencryption_left() {
    let golden = Golden::unpack("l1-aes-xts-512-sha256");
    let mut bytes = vec![0; 1536];
    bytes.extend_from_slice(&fs::read(&golden.image).unwrap());
    bytes[1536..1542].copy_from_slice(b"LUKS\xde\xad");
    fs::write(&golden.image, &bytes).unwrap();
    let run = unluks(&["scan", &text(&golden.image)]);
    assert_eq!(run.code, Some(4));
    assert!(String::from_utf8(run.stdout).unwrap().contains("cryptsetup-reencrypt"));
}
