//! ext: blocks of directories.
//!
//! | bytes of an entry | field | bytes of a tree's block | field |
//! |---|---|---|---|
//! | 0, 4 | inode, rec_len | 0x18 of the root, 0 of others | an entry over the whole block |
//! | 6, 7 | name_len, file_type | 0x20 of the root, 8 of others | limit (u16), count (u16), block |
//! | 8 | name | + 8 n | hash, block |
//! | | | behind `limit` of them | reserved, checksum |
//!
//! With checksums the last entry of a block is twelve bytes of type 0xde without a name. The source is Linux's
//! `fs/ext4/namei.c`.

use super::map::Fs;
use crate::error::counted;
use crate::inside::look::{crc32c_raw, le16, le32};
use crate::num::{to_u64, to_usize};

/// A block of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct DirBlock {
    pub block: u64,
    pub inode: u32,
    pub generation: u32,
    /// Its number in the directory.
    pub logical: u32,
    pub is_indexed: bool,
    /// Its names may be any bytes.
    pub is_encrypted: bool,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub inode: u32,
    pub kind: u8,
    pub name: &'a [u8],
}

/// What is wrong with a block: its code, where in the block, what was found, what is allowed.
pub(super) type Wrong = (&'static str, u64, String, String);

const TAIL: usize = 12;
const TAIL_KIND: u8 = 0xde;
const ENTRY: usize = 8;
/// Where the limit of the tree's root is, and that of its other blocks.
pub(super) const ROOT_AT: usize = 0x20;
pub(super) const NODE_AT: usize = 8;

/// The length of an entry, which in blocks of 64 KiB may be all of them.
fn length(raw: u16, block: usize) -> usize {
    match usize::from(raw) {
        0 | 65535 if block == 65536 => block,
        len => len,
    }
}

/// Whether a block of an indexed directory is one of its tree. A block whose names were all removed looks the same but for
/// the limit, as e2fsck tells them apart.
pub(super) fn is_tree(fs: &Fs<'_>, dir: DirBlock, bytes: &[u8]) -> bool {
    let is_whole = le32(bytes, 0) == 0 && length(le16(bytes, 4), fs.block_len) == fs.block_len;
    let tail = if fs.has_csum { 8 } else { 0 };
    let limit = fs.block_len.saturating_sub(NODE_AT).saturating_sub(tail) / 8;
    dir.is_indexed && (dir.logical == 0 || is_whole && usize::from(le16(bytes, NODE_AT)) == limit)
}

/// Checks a block, and gives its entries. `proved` is told whether a checksum was right.
pub(super) fn check<'a>(
    fs: &Fs<'_>,
    dir: DirBlock,
    bytes: &'a [u8],
    blocks: u64,
) -> (Vec<Entry<'a>>, Option<Wrong>, bool) {
    let is_tree = is_tree(fs, dir, bytes);
    let mut proved = false;
    let seed = fs.inode_seed(dir.inode, dir.generation);
    if is_tree {
        match tree(fs, dir, bytes, (seed, blocks)) {
            Ok(is_proved) => proved = is_proved,
            Err(wrong) => return (Vec::new(), Some(wrong), false),
        }
    } else if fs.has_csum {
        let at = bytes.len().saturating_sub(TAIL);
        let tail = bytes.get(at..).unwrap_or_default();
        let (stored, right) = (le32(tail, 8), crc32c_raw(seed, bytes.get(..at).unwrap_or_default()));
        let is_tail = (le32(tail, 0), usize::from(le16(tail, 4)), tail.get(7)) == (0, TAIL, Some(&TAIL_KIND));
        let code = "contents.ext.directory-checksum";
        if !is_tail {
            let (found, expected) = ("no checksum at its end".to_owned(), "one is wanted".to_owned());
            return (Vec::new(), Some((code, to_u64(at), found, expected)), false);
        }
        if stored != right {
            let (found, expected) = (format!("{stored:#010x}"), format!("the checksum is {right:#010x}"));
            return (Vec::new(), Some((code, to_u64(at), found, expected)), false);
        }
        proved = true;
    }
    let end = bytes.len().saturating_sub(if fs.has_csum && !is_tree { TAIL } else { 0 });
    let (entries, wrong) = entries(fs, bytes, end);
    (entries, wrong, proved)
}

/// The entries of a block, up to the first that cannot be one.
pub(super) fn entries<'a>(fs: &Fs<'_>, bytes: &'a [u8], end: usize) -> (Vec<Entry<'a>>, Option<Wrong>) {
    let (mut at, mut found) = (0usize, Vec::new());
    while at < end {
        let head = bytes.get(at..).unwrap_or_default();
        let len = length(le16(head, 4), bytes.len());
        let name_len = usize::from(head.get(6).copied().unwrap_or(0));
        let next = at.saturating_add(len);
        let least = ENTRY.saturating_add(name_len).next_multiple_of(4).max(12);
        // What is left behind the last entry must be part of it.
        if len < least || !len.is_multiple_of(4) || next > end && next != bytes.len() {
            let expected = format!("{least} to {}, and a multiple of 4, is allowed", end.saturating_sub(at));
            let code = "contents.ext.directory-entry";
            return (found, Some((code, to_u64(at), format!("an entry of {len} bytes"), expected)));
        }
        let inode = le32(head, 0);
        if inode != 0 {
            let name = head.get(ENTRY..ENTRY.saturating_add(name_len)).unwrap_or_default();
            let kind = head.get(7).copied().unwrap_or(0);
            let count = fs.sb.s_inodes_count.get();
            if inode > count || name.is_empty() {
                let wanted = format!("1 to {count}, and a name");
                let code = "contents.ext.directory-entry";
                let what = format!("inode {inode}, a name of {name_len} bytes");
                return (found, Some((code, to_u64(at), what, wanted)));
            }
            found.push(Entry { inode, kind, name });
        }
        at = next;
    }
    (found, None)
}

/// Checks a block of a directory's tree; says whether it has a checksum.
fn tree(fs: &Fs<'_>, dir: DirBlock, bytes: &[u8], (seed, blocks): (u32, u64)) -> Result<bool, Wrong> {
    let at = if dir.logical == 0 { ROOT_AT } else { NODE_AT };
    let (limit, count) = (usize::from(le16(bytes, at)), usize::from(le16(bytes, at.saturating_add(2))));
    let tail = limit.saturating_mul(8).saturating_add(at);
    let end = tail.saturating_add(if fs.has_csum { 8 } else { 0 });
    let code = "contents.ext.directory-tree";
    let place = to_u64(at);
    if let Some((at, found, expected)) = wrong_root(bytes).filter(|_| dir.logical == 0) {
        return Err((code, at, found, expected));
    }
    if count == 0 || count > limit || end > bytes.len() {
        return Err((
            code,
            place,
            format!("{} of {limit}", counted(count, "entry")),
            format!("the block has {}", bytes.len()),
        ));
    }
    if fs.has_csum {
        let used = count.saturating_mul(8).saturating_add(at);
        let parts = [bytes.get(..used), bytes.get(tail..tail.saturating_add(4)), Some(&[0; 4])];
        let right = parts.into_iter().flatten().fold(seed, crc32c_raw);
        let stored = le32(bytes, tail.saturating_add(4));
        if stored != right {
            let code = "contents.ext.directory-checksum";
            return Err((code, to_u64(tail), format!("{stored:#010x}"), format!("the checksum is {right:#010x}")));
        }
    }
    let children = bytes.get(at..).unwrap_or_default().chunks_exact(8).take(count);
    // The high bits may be of use one day.
    if let Some(child) = children.map(|child| u64::from(le32(child, 4) & 0x0fff_ffff)).find(|child| *child >= blocks) {
        return Err((code, place, format!("block {child}"), format!("the directory has {}", counted(blocks, "block"))));
    }
    Ok(fs.has_csum)
}

/// What is wrong with the head of a root, if anything.
fn wrong_root(bytes: &[u8]) -> Option<(u64, String, String)> {
    let zero = le32(bytes, 0x18);
    let [kind, len, _, flags] = [0x1c, 0x1d, 0x1e, 0x1f].map(|at| bytes.get(at).copied().unwrap_or(0));
    let says = |at: usize, found: String, expected: &str| Some((to_u64(at), found, expected.to_owned()));
    if zero != 0 {
        return says(0x18, format!("{zero:#x} at its head"), "zero is wanted");
    } else if kind > 6 {
        return says(0x1c, format!("hashes of kind {kind}"), "0 to 6 are known");
    } else if len != 8 {
        return says(0x1d, format!("{len} bytes of its head"), "8 are wanted");
    } else if flags & 1 != 0 {
        return says(0x1f, format!("flags {flags:#x}"), "none is known");
    }
    None
}

/// What is wrong with the names of a block: found, and wanted.
pub(super) fn wrong_names(dir: DirBlock, entries: &[Entry<'_>]) -> Option<(String, String)> {
    if dir.logical == 0 {
        let first: Vec<&[u8]> = entries.iter().take(2).map(|entry| entry.name).collect();
        let own = entries.first().map(|entry| entry.inode);
        if first != [b".".as_slice(), b".."] {
            return Some(("other names at its start".into(), "\".\" and \"..\" are wanted".into()));
        } else if own != Some(dir.inode) {
            let found = format!("inode {} by the name \".\"", own.unwrap_or(0));
            return Some((found, "its own is wanted".into()));
        }
    }
    let mut names: Vec<&[u8]> = entries.iter().map(|entry| entry.name).collect();
    let is_odd = |name: &&&[u8]| !dir.is_encrypted && name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if let Some(name) = names.iter().find(is_odd) {
        let found = format!("the name \"{}\"", name.escape_ascii());
        return Some((found, "one without zeroes and slashes is wanted".into()));
    }
    names.sort_unstable();
    let [twice, _] = names.array_windows().find(|[a, b]| a == b)?;
    Some((format!("the name \"{}\" twice", twice.escape_ascii()), "each is there once".into()))
}

/// The type that an entry has for a type of a mode.
pub(super) fn entry_kind(kind: u8) -> u8 {
    match kind {
        8 => 1,
        4 => 2,
        2 => 3,
        6 => 4,
        1 => 5,
        12 => 6,
        10 => 7,
        _ => 0,
    }
}

/// The bytes of a block where they can be read.
pub(super) fn read(fs: &Fs<'_>, dir: DirBlock) -> crate::Result<Vec<u8>> {
    fs.look.read(fs.place(dir.block), to_usize(fs.block)?)
}
