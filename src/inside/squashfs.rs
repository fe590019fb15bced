//! SquashFS 4: the superblock, and whether its tables lie within the bytes that it has.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0 | `hsqs` | 32, 40 | root inode, bytes_used |
//! | 4, 8 | inodes, time | 48, 56 | tables: id, xattr |
//! | 12, 22 | block_size, block_log | 64, 72 | tables: inodes, directories |
//! | 20, 26 | compression, no_ids | 80, 88 | tables: fragments, lookup |
//! | 28, 30 | version: major 4, minor 0 | | |
//!
//! All little-endian; a table that is not there is 2^64-1. The source is Linux's `fs/squashfs/squashfs_fs.h`.

use super::look::{Look, le16, le32, le64};
use super::{Contents, Kind, Severity, State};

const SIZE: usize = 96;

fn superblock(look: &Look<'_>) -> Option<Vec<u8>> {
    let bytes = look.bytes(0, SIZE)?;
    let log = u32::from(le16(&bytes, 22));
    let sane = bytes.starts_with(b"hsqs")
        && (le16(&bytes, 28), le16(&bytes, 30)) == (4, 0)
        && (12..=20).contains(&log)
        && le32(&bytes, 12) == 1 << log
        && le64(&bytes, 40) > 96;
    sane.then_some(bytes)
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let bytes = superblock(look)?;
    let mut contents = Contents::new(Kind::Squashfs, look);
    contents.block_size = Some(u64::from(le32(&bytes, 12)));
    contents.size = Some(le64(&bytes, 40));
    contents.state = State::Clean;
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(bytes) = superblock(look) else { return };
    let used = le64(&bytes, 40);
    let tables = [
        ("the id table", 48, false),
        ("the xattr table", 56, true),
        ("the inode table", 64, false),
        ("the directory table", 72, false),
        ("the fragment table", 80, true),
        ("the lookup table", 88, true),
    ];
    for (name, at, may_be_absent) in tables {
        let place = le64(&bytes, at);
        if (96..used).contains(&place) || place == u64::MAX && may_be_absent {
            continue;
        }
        let structure = (name, u64::try_from(at).unwrap_or(0));
        let expected = format!("a place from byte 96 to byte {used} is allowed");
        contents.find(Severity::Error, "contents.squashfs.table", structure, format!("byte {place}"), expected);
    }
}
