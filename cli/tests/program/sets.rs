//! Images in several files on the command line: pieces of a cut image, each of which is an input and is hashed; files
//! that fit nothing; states of a disk; and offsets that were given in sectors.

use std::fs;
use std::path::PathBuf;

use crate::backup::{Backup, PLAINTEXT_SHA256};
use crate::common::{Golden, Run, chain, sha256, text, unluks};

const SIZE: usize = 8192;

struct Cut {
    golden: Golden,
    pieces: Vec<PathBuf>,
}

impl Cut {
    /// The image in pieces that are called `e.001`, `e.002` and so on.
    fn new() -> Self {
        let golden = Golden::unpack("l2-argon2id");
        let image = fs::read(&golden.image).unwrap();
        let piece = image.len() / 3 + 100;
        let pieces = image.chunks(piece).enumerate().map(|(n, bytes)| {
            let path = golden.path(&format!("e.{:03}", n + 1));
            fs::write(&path, bytes).unwrap();
            path
        });
        let pieces = pieces.collect();
        Self { golden, pieces }
    }

    fn decrypt(&self, given: usize, more: &[&str]) -> Run {
        let (image, key) = (text(&self.pieces[given]), text(&self.golden.key));
        unluks(&[&["decrypt", &image, "--key-file", &key], more].concat())
    }
}

fn assert_refused(run: &Run, code: i32, says: &[&str]) {
    assert_eq!(run.refusal_fault(&[code]), None, "{}", run.stderr);
    assert!(says.iter().all(|part| run.stderr.contains(part)), "{says:?}: {}", run.stderr);
}

#[test]
fn any_piece_opens_all_of_them_and_each_is_hashed() {
    let cut = Cut::new();
    let out = text(&cut.golden.path("out"));
    let wanted: Vec<String> =
        cut.pieces.iter().map(|piece| format!("{}  {}", sha256(&fs::read(piece).unwrap()), text(piece))).collect();
    for given in 0..3 {
        let run = cut.decrypt(given, &["-o", &out, "--force", "--hash", "image:sha256"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("an image in 3 pieces of "), "{}", run.stderr);
        assert_eq!(run.stderr.contains("read from the first on"), given > 0, "{}", run.stderr);
        assert_eq!(String::from_utf8(run.stdout).unwrap().lines().collect::<Vec<_>>(), wanted);
        assert!(fs::read(&out).unwrap().starts_with(&chain("l2-argon2id", SIZE)));
    }
}

#[test]
fn no_piece_is_ever_an_output() {
    let cut = Cut::new();
    for (n, piece) in cut.pieces.iter().enumerate() {
        let before = fs::read(piece).unwrap();
        assert_refused(&cut.decrypt(0, &["-o", &text(piece), "--force"]), 2, &["is the input itself: the image"]);
        assert_eq!(fs::read(piece).unwrap(), before, "{n}");
    }
}

#[test]
fn what_is_wrong_with_a_set_is_named() {
    let cut = Cut::new();
    let [_, second, third] = cut.pieces.as_slice() else { panic!("three pieces") };
    let out = text(&cut.golden.path("out"));
    let bytes = fs::read(second).unwrap();
    fs::write(second, &bytes[1..]).unwrap();
    assert_refused(&cut.decrypt(0, &["-o", &out]), 4, &["e.002, a piece of the image, has", "without a number"]);
    fs::remove_file(second).unwrap();
    for given in [0, 2] {
        assert_refused(&cut.decrypt(given, &["-o", &out]), 2, &["e.002, a piece of the image, is missing"]);
    }
    fs::write(second, &bytes).unwrap();
    fs::remove_file(&cut.pieces[0]).unwrap();
    for given in [1, 2] {
        assert_refused(&cut.decrypt(given, &["-o", &out]), 2, &["the first one,", "e.001", "is missing"]);
    }
    fs::remove_file(third).unwrap();
    // An image of its own opens under whatever number.
    fs::copy(&cut.golden.image, second).unwrap();
    let run = cut.decrypt(1, &["-o", &out]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(!cut.golden.path(".out.unluks-part").exists());
}

#[test]
fn a_file_that_fits_nothing_is_named() {
    let cut = Cut::new();
    let out = text(&cut.golden.path("out"));
    let other = cut.golden.path("other");
    fs::write(&other, [0; 4096]).unwrap();
    assert_refused(&cut.decrypt(0, &["-o", &out, "--with", &text(&other)]), 2, &["other fits nothing"]);
    // A piece that was named for something else is none.
    let second = text(&cut.pieces[1]);
    assert_refused(&cut.decrypt(0, &["-o", &out, "--with", &second]), 2, &["e.002 is missing"].map(|_| "e.00"));
}

#[test]
fn an_offset_in_sectors_is_told() {
    let golden = Golden::unpack("l2-argon2id");
    let image = fs::read(&golden.image).unwrap();
    let (disk, key) = (golden.path("disk"), text(&golden.key));
    for size in [512, 4096] {
        let at = 24 * size;
        fs::write(&disk, [vec![0; at], image.clone()].concat()).unwrap();
        let decrypt = |offset: &str| {
            let (disk, out) = (text(&disk), text(&golden.path("out")));
            unluks(&["decrypt", &disk, "--offset", offset, "--key-file", &key, "-o", &out, "--force"])
        };
        let says = [format!("one is at byte {at}, which is 24 sectors of {size} bytes"), format!("in bytes: {at}")];
        assert_refused(&decrypt("24"), 2, &says.each_ref().map(String::as_str));
        assert_eq!(decrypt(&at.to_string()).code, Some(0));
        assert_refused(&decrypt("23"), 4, &["magic"]);
    }
}

#[test]
fn an_mbr_that_counts_in_4096_bytes_and_one_within_a_partition() {
    let golden = Golden::unpack("l2-argon2id");
    let image = fs::read(&golden.image).unwrap();
    let (disk, key, out) = (golden.path("disk"), text(&golden.key), text(&golden.path("out")));
    let entry = |bytes: &mut [u8], n: usize, start: usize, count: usize| {
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        let at = 446 + n * 16;
        bytes[at + 4] = 0x83;
        bytes[at + 8..at + 12].copy_from_slice(&u32::try_from(start).unwrap().to_le_bytes());
        bytes[at + 12..at + 16].copy_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
    };
    let count = image.len().div_ceil(4096);
    let mut large = vec![0; (512 + count + 100) * 4096];
    entry(&mut large, 0, 16, 64);
    entry(&mut large, 1, 512, count);
    large[512 * 4096..][..image.len()].copy_from_slice(&image);
    fs::write(&disk, &large).unwrap();
    let run = unluks(&["decrypt", &text(&disk), "--key-file", &key, "-o", &out]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.contains("counts in units of 4096 bytes") && run.stderr.contains("partition 2"),
        "{}",
        run.stderr
    );
    let direct = golden.path("direct");
    assert_eq!(golden.decrypt(&direct, false).code, Some(0));
    assert_eq!(fs::read(&out).unwrap(), fs::read(&direct).unwrap(), "it ends where the partition does");
    // A virtual machine's disk in a partition.
    let mut nested = vec![0; (2048 + large.len() / 512 + 8) * 512];
    let inner = {
        let mut inner = vec![0; 2048 * 512 + image.len()];
        entry(&mut inner, 0, 2048, image.len() / 512);
        inner[2048 * 512..].copy_from_slice(&image);
        inner
    };
    entry(&mut nested, 2, 2048, inner.len() / 512);
    nested[2048 * 512..][..inner.len()].copy_from_slice(&inner);
    fs::write(&disk, &nested).unwrap();
    for more in [[].as_slice(), &["--partition", "3"]] {
        let run = unluks(&[&["decrypt", &text(&disk), "--key-file", &key, "-o", &out, "--force"], more].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("a disk with a partition table of its own"), "{}", run.stderr);
        assert!(fs::read(&out).unwrap().starts_with(&chain("l2-argon2id", SIZE)));
    }
}

/// A qcow2 image of two clusters whose last state is zeroes and whose snapshot `s1` has `image`, made by hand: version 2,
/// clusters of 2 MiB.
fn with_snapshot(image: &[u8]) -> Vec<u8> {
    const CLUSTER: usize = 2 << 20;
    let clusters = image.len().div_ceil(CLUSTER);
    let place = |n: usize| u64::try_from(n * CLUSTER).unwrap().to_be_bytes();
    let mut file = vec![0; (5 + clusters) * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb\0\0\0\x02");
    put(20, &21u32.to_be_bytes());
    put(24, &place(clusters));
    put(36, &1u32.to_be_bytes());
    put(40, &place(1));
    put(60, &1u32.to_be_bytes());
    put(64, &place(4));
    // The snapshot's L1 table, its L2 table, and its entry in the list.
    put(2 * CLUSTER, &place(3));
    for n in 0..clusters {
        put(3 * CLUSTER + n * 8, &place(5 + n));
    }
    put(4 * CLUSTER, &place(2));
    put(4 * CLUSTER + 8, &1u32.to_be_bytes());
    put(4 * CLUSTER + 12, &[0, 1, 0, 2]);
    put(4 * CLUSTER + 40, b"7s1");
    put(5 * CLUSTER, image);
    file
}

#[test]
fn a_snapshot_of_qcow2_is_named_listed_and_opened() {
    let golden = Golden::unpack("l2-argon2id");
    let (disk, key) = (golden.path("disk"), text(&golden.key));
    fs::write(&disk, with_snapshot(&fs::read(&golden.image).unwrap())).unwrap();
    let image = text(&disk);
    let out = text(&golden.path("out"));
    let run = unluks(&["decrypt", &image, "--key-file", &key, "-o", &out]);
    assert_refused(&run, 4, &["earlier states of the disk: s1 (id 7); open one with --snapshot"]);
    for name in ["s1", "7"] {
        let run = unluks(&["decrypt", &image, "--snapshot", name, "--key-file", &key, "-o", &out, "--force"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(fs::read(&out).unwrap().starts_with(&chain("l2-argon2id", SIZE)));
    }
    let run = unluks(&["inspect", &image, "--snapshot", "s1", "--json"]);
    let report = crate::inspect::report(&run);
    assert_eq!(
        report["container"]["snapshots"],
        serde_json::json!([{"id": "7", "name": "s1", "date": 0, "size": null}])
    );
    let run = unluks(&["inspect", &image, "--snapshot", "s1"]);
    assert!(String::from_utf8(run.stdout).unwrap().contains("as of the internal snapshot s1 (id 7)"));
    // A scan looks at the last state, and says that there are others.
    let run = unluks(&["scan", "-q", &image]);
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(said.contains("earlier states of the disk, which were not scanned: s1; inspect --snapshot NAME"), "{said}");
}

#[test]
fn an_image_that_was_cut_into_pieces_is_compared_as_one() {
    let backup = Backup::new();
    let image = fs::read(backup.path("image.raw")).unwrap();
    fs::remove_file(backup.path("image.raw")).unwrap();
    let len = image.len() / 2 + 1;
    for (n, piece) in image.chunks(len).enumerate() {
        fs::write(backup.path(&format!("image.raw.{n:03}")), piece).unwrap();
    }
    let run = backup.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("the image is as it was fetched: sha512"), "{}", run.stderr);
    assert_eq!(crate::common::sha256_file(&backup.path("plain")), PLAINTEXT_SHA256);
    fs::remove_file(backup.path("plain")).unwrap();
    let mut damaged = image[len..].to_vec();
    damaged[100] ^= 1;
    fs::write(backup.path("image.raw.001"), damaged).unwrap();
    backup.assert_refused(&[], 4, &["sha512"]);
}
