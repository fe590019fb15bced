//! `Image::open_path`: a path is enough.

use std::io::{Read, Seek, SeekFrom};

use unluks::io::ReadAtCursor;
use unluks::luks::unlock::UnlockOptions;
use unluks::{ErrorKind, Image, OpenOptions};

use crate::support::{Golden, PARTITION, in_mbr, in_qcow2, key};

struct Dir(tempfile::TempDir);

impl Dir {
    fn open(&self, name: &str, bytes: &[u8], options: &OpenOptions) -> unluks::Result<Image> {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Image::open_path(path, options)
    }
}

#[test]
fn a_path_is_enough_for_files_formats_and_partitions() {
    let dir = Dir(tempfile::tempdir().unwrap());
    let golden = Golden::read("l2-argon2id");
    let plain = OpenOptions::default();
    for (name, bytes) in [
        ("raw", golden.image.clone()),
        ("mbr", in_mbr(&golden.image)),
        ("qcow2", in_qcow2(&golden.image)),
        ("mbr-in-qcow2", in_qcow2(&in_mbr(&golden.image))),
    ] {
        let image = dir.open(name, &bytes, &plain).unwrap_or_else(|e| panic!("{name}: {e}"));
        golden.open(&image).unwrap();
    }
    let qcow2 = Golden::read("qcow2-luks");
    qcow2.open(&dir.open("qcow2-luks", &qcow2.image, &plain).unwrap()).unwrap();
    let detached = Golden::read("l2-detached");
    let header = dir.0.path().join("header");
    std::fs::write(&header, detached.header.as_ref().unwrap()).unwrap();
    let options = OpenOptions { header: Some(header), ..OpenOptions::default() };
    detached.open(&dir.open("data", &detached.image, &options).unwrap()).unwrap();
}

#[test]
fn each_option_is_heeded() {
    let dir = Dir(tempfile::tempdir().unwrap());
    let golden = Golden::read("l2-argon2id");
    let disk = in_mbr(&golden.image);
    let at = |offset| OpenOptions { offset: Some(offset), ..OpenOptions::default() };
    golden.open(&dir.open("offset", &disk, &at(PARTITION)).unwrap()).unwrap();
    assert_eq!(dir.open("offset", &disk, &at(512)).err().unwrap().kind(), ErrorKind::Corrupt);
    let named = |name: &str| OpenOptions { partition: Some(name.into()), ..OpenOptions::default() };
    golden.open(&dir.open("named", &disk, &named("1")).unwrap()).unwrap();
    let e = dir.open("named", &disk, &named("2")).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::InvalidInput, "partition.name"), "{e}");
    let e = dir.open("no-table", &golden.image, &named("1")).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::InvalidInput);
    assert!(!e.message().contains("--") && e.to_string().contains("no-table"), "{e}");
    let raw = OpenOptions { format: Some(unluks::format::Format::Raw), ..OpenOptions::default() };
    assert_eq!(dir.open("raw", &in_qcow2(&golden.image), &raw).err().unwrap().kind(), ErrorKind::Corrupt);
    let small = OpenOptions { max_size: Some(4096), ..OpenOptions::default() };
    let e = dir.open("size", &in_qcow2(&golden.image), &small).err().unwrap();
    assert_eq!(e.kind(), ErrorKind::LimitExceeded);
    let mut cut = disk.clone();
    cut.truncate(disk.len() - 512);
    let e = dir.open("cut", &cut, &OpenOptions::default()).err().unwrap();
    assert_eq!(e.rule(), "partition.truncated");
    let there = OpenOptions { allow_truncated: true, ..OpenOptions::default() };
    assert!(dir.open("cut", &cut, &there).is_ok());
    assert_eq!(Image::open_path(dir.0.path(), &OpenOptions::default()).err().unwrap().kind(), ErrorKind::InvalidInput);
    let missing = dir.0.path().join("missing");
    assert_eq!(Image::open_path(missing, &OpenOptions::default()).err().unwrap().kind(), ErrorKind::Io);
}

#[test]
fn a_volume_is_read_through_a_cursor() {
    let golden = Golden::read("l2-argon2id");
    let dir = Dir(tempfile::tempdir().unwrap());
    let image = dir.open("image", &golden.image, &OpenOptions::default()).unwrap();
    let unlocked = image.unlock(&key(&golden.passphrase), &UnlockOptions::default()).unwrap();
    let volume = unlocked.volume(Default::default()).unwrap();
    let mut whole = Vec::new();
    let mut cursor = ReadAtCursor::new(&volume);
    cursor.read_to_end(&mut whole).unwrap();
    assert_eq!(whole.len(), 8192);
    let mut part = [0; 1000];
    cursor.seek(SeekFrom::Start(3333)).unwrap();
    cursor.read_exact(&mut part).unwrap();
    assert_eq!(part, whole[3333..4333], "at no sector's border");
}
