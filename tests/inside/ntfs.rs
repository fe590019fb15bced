//! Damages of NTFS.

use crate::filled::Filled;
use crate::table::Damage;

/// Record `n` of the MFT.
fn record(i: &Filled, n: u64) -> u64 {
    i.le(48, 8) * i.le(13, 1) * 512 + n * 1024
}

/// The first cluster of an attribute of a record.
fn cluster(i: &Filled, n: u64, kind: u8) -> u64 {
    let bytes = i.bytes(record(i, n), 1024);
    let mut at = usize::from(bytes[20]);
    while bytes[at] != kind {
        let len = u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]);
        assert!(len > 0 && bytes[at] != 0xff, "record {n} has no attribute {kind:#x}");
        at += usize::from(len);
    }
    let runs = &bytes[at + usize::from(bytes[at + 32])..];
    let (lens, starts) = (usize::from(runs[0] & 15), usize::from(runs[0] >> 4));
    let start = runs[1 + lens..1 + lens + starts].iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
    start * i.le(13, 1) * 512
}

fn bitmap(i: &Filled) -> u64 {
    cluster(i, 6, 0x80)
}

/// The second entry of the first block of names of the root, behind what its header says.
fn entry(i: &Filled) -> u64 {
    let first = block(i) + 24 + i.le(block(i) + 24, 4);
    first + i.le(first + 8, 2)
}

fn block(i: &Filled) -> u64 {
    cluster(i, 5, 0xa0)
}

pub const OF_NTFS: &[Damage] = &[
    ("a torn write of a record", |i| i.flip(record(i, 64) + 510), "contents.ntfs.mft-record", None),
    ("the mark of a record", |i| i.flip(record(i, 64)), "contents.ntfs.mft-record", None),
    (
        "the length of an attribute",
        |i| i.flip(record(i, 64) + u64::from(i.bytes(record(i, 64) + 20, 1)[0]) + 4),
        "contents.ntfs.attribute",
        None,
    ),
    ("a cluster in use, marked free", |i| vec![(bitmap(i), vec![0])], "contents.ntfs.bitmap", None),
    ("a free cluster, marked in use", |i| vec![(bitmap(i) + 1200, vec![1])], "contents.ntfs.bitmap", None),
    ("the mirror of the MFT", |i| i.flip(i.le(56, 8) * i.le(13, 1) * 512 + 510), "contents.ntfs.mft-mirror", None),
    ("a torn write of names", |i| i.flip(block(i) + 510), "contents.ntfs.index", Some("/")),
    ("the place of a block of names", |i| i.flip(block(i) + 16), "contents.ntfs.index", Some("/")),
    ("the length of an entry", |i| vec![(entry(i) + 8, vec![4, 0])], "contents.ntfs.index", Some("/")),
    ("the length of a name", |i| vec![(entry(i) + 80, vec![255])], "contents.ntfs.index", Some("/")),
    ("the sequence of an entry", |i| vec![(entry(i) + 6, vec![0x77, 0])], "contents.ntfs.index-entry", Some("/")),
    (
        "an entry of a record that is not in use",
        |i| vec![(entry(i), vec![0xff, 0x7f])],
        "contents.ntfs.index-entry",
        Some("/"),
    ),
    ("the number of a record's names", |i| vec![(record(i, 64) + 18, vec![9])], "contents.ntfs.links", None),
];
