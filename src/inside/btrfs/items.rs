//! btrfs: items of a leaf that the kernel refuses, and with them the whole leaf.
//!
//! | item | type | bytes |
//! |---|---|---|
//! | inode | 1 | 0, 8: generations, 16, 24: size, bytes of its extents, 40, 52: links, mode, 64: flags |
//! | name, attribute | 84 and 96, 24 | 0: key of what it names, 25, 27: lengths of data and name, 29: type, 30: name, data |
//! | extent of data | 108 | 8: its bytes unpacked, 16: compression, 20: type, 21, 29: place and length, 37, 45: offset, bytes |
//! | extent | 168, 169 | 8: generation; key's offset: its length, or a node's level |
//! | group of blocks | 192 | 0, 8, 16: bytes in use, owner, type |
//! | chunk | 228 | 0, 16, 24, 40: length, bytes of a stripe, type, bytes of a sector |
//!
//! The source is Linux's `fs/btrfs/tree-checker.c`.

use super::CHUNK_ITEM;
use super::keys::Key;
use crate::inside::look::{crc32c_raw, field, le16, le32, le64};
use crate::num::to_u64;

pub(super) const INODE: u8 = 1;
pub(super) const INODE_REF: u8 = 12;
pub(super) const INODE_EXTREF: u8 = 13;
const XATTR: u8 = 24;
pub(super) const ORPHAN: u8 = 48;
pub(super) const DIR_ITEM: u8 = 84;
pub(super) const DIR_INDEX: u8 = 96;
pub(super) const EXTENT_DATA: u8 = 108;
pub(super) const ROOT: u8 = 132;
pub(super) const EXTENT_ITEM: u8 = 168;
pub(super) const METADATA_ITEM: u8 = 169;
pub(super) const GROUP: u8 = 192;
/// How many levels a tree has at most.
const LEVELS: u64 = 8;
/// How much of a chunk goes to one device before the next.
const STRIPE_LEN: u64 = 1 << 16;
/// Data, the system's own, nodes.
const KINDS: u64 = 7;
/// The type of an extent of data whose bytes are in the item.
pub(super) const INLINE: u8 = 0;
/// The file system's own files, such as caches of free space, are below.
pub(super) const FIRST_FILE: u64 = 256;

/// What is wrong with an item, if anything: what was found, and what is wanted.
pub(super) fn wrong(sector: u64, generation: u64, key: Key, item: &[u8]) -> Option<(String, String)> {
    match key.1 {
        INODE => inode(generation, key, item),
        DIR_ITEM | DIR_INDEX | XATTR => names(key, item),
        EXTENT_DATA => extent(sector, key, item),
        EXTENT_ITEM | METADATA_ITEM => told(generation, key, item),
        GROUP => group(key, item),
        CHUNK_ITEM => chunk(sector, key, item),
        _ => None,
    }
}

fn says(found: impl Into<String>, expected: impl Into<String>) -> Option<(String, String)> {
    Some((found.into(), expected.into()))
}

fn inode(superblock: u64, key: Key, item: &[u8]) -> Option<(String, String)> {
    if item.len() < 160 {
        return says(format!("{} bytes of an inode", item.len()), "it has 160");
    }
    // A log, which is not in the superblock yet, is one further.
    let most = superblock.saturating_add(1);
    let (generation, mode) = (le64(item, 0).max(le64(item, 8)), le32(item, 52));
    let kind = mode & 0o170_000;
    if generation > most {
        return says(format!("an inode of generation {generation}"), format!("{most} at most"));
    } else if ![0o10_000, 0o20_000, 0o40_000, 0o60_000, 0o100_000, 0o120_000, 0o140_000].contains(&kind)
        && key.0 >= FIRST_FILE
    {
        return says(format!("the mode {mode:o} of an inode"), "a known type is wanted");
    } else if kind == 0o40_000 && le32(item, 40) > 1 {
        return says(format!("{} links of a directory", le32(item, 40)), "it has one");
    }
    None
}

/// Names of one hash share an item.
fn names(key: Key, item: &[u8]) -> Option<(String, String)> {
    let mut rest = item;
    // Each takes 30 bytes at least.
    while !rest.is_empty() {
        let [kind] = field(rest, 29);
        let (data, name) = (usize::from(le16(rest, 25)), usize::from(le16(rest, 27)));
        let len = name.saturating_add(data).saturating_add(30);
        if len > rest.len() {
            return says(format!("{len} bytes of a name"), format!("{} are left", rest.len()));
        }
        let [named] = field(rest, 8);
        let is_attribute = kind == 8;
        if name > 255 || kind > 8 || is_attribute != (key.1 == XATTR) || data > 0 && !is_attribute {
            return says(format!("a name of {name} bytes, type {kind}, {data} bytes of data"), "none is allowed so");
        } else if !is_attribute && ![INODE, ROOT, 0].contains(&named) {
            return says(format!("a name of an item of type {named}"), "names are of inodes and subvolumes");
        }
        let right = u64::from(crc32c_raw(!1, rest.get(30..name.saturating_add(30)).unwrap_or_default()));
        if key.1 != DIR_INDEX && right != key.2 {
            return says(format!("the hash {:#x}", key.2), format!("{right:#x} is its name's"));
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    None
}

fn extent(sector: u64, key: Key, item: &[u8]) -> Option<(String, String)> {
    let ([kind], [compression]) = (field(item, 20), field(item, 16));
    if kind > 2 || compression > 3 || item.len() < 21 || kind != INLINE && item.len() != 53 {
        let found = format!("an extent of type {kind}, compression {compression}, in {} bytes", item.len());
        return says(found, "none is known so");
    } else if key.2.checked_rem(sector) != Some(0) || kind == INLINE && key.2 > 0 {
        let expected = format!("sectors have {sector} bytes, and bytes in an item are the first");
        return says(format!("an extent at byte {} of a file", key.2), expected);
    } else if kind == INLINE {
        return None;
    }
    let all = [8, 21, 29, 37, 45].map(|at| le64(item, at));
    let [_, place, on_disk, offset, len] = all;
    if let Some(odd) = all.iter().find(|n| n.checked_rem(sector) != Some(0)) {
        return says(format!("{odd} in an extent"), format!("sectors have {sector} bytes"));
    }
    let end = offset.checked_add(len);
    let is_within = compression > 0 || place == 0 || end.is_some_and(|end| end <= on_disk);
    if end.is_none() || !is_within {
        return says(format!("{len} bytes from {offset} on of an extent"), format!("it has {on_disk}"));
    }
    None
}

fn told(superblock: u64, key: Key, item: &[u8]) -> Option<(String, String)> {
    let (generation, most) = (le64(item, 8), superblock.saturating_add(1));
    if item.len() < 24 {
        return says(format!("{} bytes of an extent", item.len()), "it has 24 and more");
    } else if generation > most {
        return says(format!("an extent of generation {generation}"), format!("{most} at most"));
    } else if key.1 == METADATA_ITEM && key.2 >= LEVELS {
        return says(format!("a node of level {}", key.2), format!("a tree has {LEVELS} at most"));
    }
    None
}

fn chunk(sector: u64, key: Key, item: &[u8]) -> Option<(String, String)> {
    let (len, stripe_len, kind) = (le64(item, 0), le64(item, 16), le64(item, 24));
    let own = u64::from(le32(item, 40));
    if own != sector {
        return says(format!("sectors of {own} bytes in a chunk"), format!("sectors have {sector}"));
    } else if stripe_len != STRIPE_LEN {
        return says(format!("{stripe_len} bytes of a stripe"), format!("{STRIPE_LEN} are wanted"));
    } else if len == 0 || [len, key.2].iter().any(|n| n.checked_rem(sector) != Some(0)) {
        return says(format!("{len} bytes of a chunk from {} on", key.2), format!("sectors have {sector} bytes"));
    } else if kind & KINDS == 0 || le16(item, 44) == 0 {
        return says(format!("a chunk of type {kind:#x}, {} stripes", le16(item, 44)), "none is known so");
    }
    None
}

fn group(key: Key, item: &[u8]) -> Option<(String, String)> {
    let used = le64(item, 0);
    if to_u64(item.len()) != 24 || key.2 == 0 || used > key.2 {
        return says(format!("{used} bytes in use in a group of blocks"), format!("it has {}", key.2));
    }
    None
}
