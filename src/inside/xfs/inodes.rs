//! XFS: inodes, their extents, and the blocks of directories, links and attributes.
//!
//! | inode bytes | field | inode bytes | field |
//! |---|---|---|---|
//! | 0, 4 | `IN`, version 3 | 82, 83 | forkoff in units of 8 bytes, format of the attributes |
//! | 2, 5 | mode, format: 1 within, 2 extents, 3 tree | 90, 120 | flags: bit 0 realtime; flags2: 2 shared, 16 wide counts |
//! | 56 | size | 100, 152, 160 | checksum, own number, UUID |
//! | 76, 80 | extents of data, of attributes | 176 | the data's map, and behind forkoff the attributes' |
//! | 24, 76 | the same with wide counts | | |
//!
//! An extent is 128 bits: unwritten, 54 of the file's block, 52 of the disk's, 21 of the length. The source is Linux's
//! `fs/xfs/libxfs/xfs_format.h`.

use super::tree::{ATTRIBUTES, DIRECTORY, Fs, LINK, LONG, NAMES, REMOTE, Shape, Walker};
use super::{Severity, checksums};
use crate::error::counted;
use crate::inside::look::{be16, be32, be64, checksum_is, field, hex};
use crate::limits::INSIDE_DIRECTORIES_MAX;
use crate::num::{from_u32, to_u64, to_usize};

const DATA: usize = 176;
/// Where the blocks of hashes of a directory begin, and those of free room, in bytes.
const LEAF_AT: u64 = 32 << 30;
const FREE_AT: u64 = 64 << 30;
const REALTIME: u16 = 1;
const SHARED: u64 = 2;
const WIDE: u64 = 16;
const TREE_DEPTH_MAX: u16 = 9;

/// A run of an inode's data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub logical: u64,
    pub start: u64,
    pub len: u64,
    pub written: bool,
}

impl Extent {
    fn parse(bytes: &[u8]) -> Self {
        let (high, low) = (be64(bytes, 0), be64(bytes, 8));
        Self {
            logical: (high & (u64::MAX >> 1)) >> 9,
            start: (high & 0x1ff) << 43 | low >> 21,
            len: low & 0x1f_ffff,
            written: high >> 63 == 0,
        }
    }
}

/// An inode that is in use.
#[derive(Clone, Copy)]
pub(super) struct Inode<'a> {
    pub number: u64,
    pub place: u64,
    pub bytes: &'a [u8],
}

impl<'a> Inode<'a> {
    pub(super) fn kind(&self) -> u16 {
        be16(self.bytes, 2) >> 12
    }

    fn is_wide(&self) -> bool {
        be64(self.bytes, 120) & WIDE != 0
    }

    /// The format, the bytes and the number of extents of the data or the attributes.
    fn fork(&self, attributes: Fork) -> Option<(u8, &'a [u8], u64)> {
        let [data_format, ..] = field::<1>(self.bytes, 5);
        let [offset, format] = field::<2>(self.bytes, 82);
        let split = usize::from(offset).checked_mul(8)?.checked_add(DATA)?;
        let wide = self.is_wide();
        match attributes {
            Fork::Data => {
                let end = if offset == 0 { self.bytes.len() } else { split };
                let count = if wide { be64(self.bytes, 24) } else { u64::from(be32(self.bytes, 76)) };
                Some((data_format, self.bytes.get(DATA..end)?, count))
            }
            Fork::Attributes if offset == 0 => None,
            Fork::Attributes => {
                let count = if wide { be32(self.bytes, 76) } else { u32::from(be16(self.bytes, 80)) };
                Some((format, self.bytes.get(split..)?, count.into()))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fork {
    Data,
    Attributes,
}

/// What is wrong with what each inode has, also one that is free: the code, what was found, what is wanted.
pub(super) fn core(fs: &Fs<'_>, inode: Inode<'_>) -> Option<(&'static str, String, String)> {
    let (stored, right) = checksums(inode.bytes, 100);
    let own = be64(inode.bytes, 152);
    let version = inode.bytes.get(4).copied().unwrap_or(0);
    if !inode.bytes.starts_with(b"IN") || version != 3 {
        let found = format!("\"{}\", version {version}", field::<2>(inode.bytes, 0).escape_ascii());
        Some(("contents.xfs.inode", found, "\"IN\" and version 3 are wanted".to_owned()))
    } else if stored != right {
        Some(("contents.xfs.inode-checksum", hex(stored), checksum_is(right)))
    } else if own != inode.number {
        Some(("contents.xfs.inode", format!("number {own}"), format!("it is inode {}", inode.number)))
    } else if field::<16>(inode.bytes, 160) != fs.sb.meta_uuid() {
        Some(("contents.xfs.inode", "another UUID".into(), "the superblock's is wanted".into()))
    } else {
        None
    }
}

/// What an inode in use says of itself that cannot be.
fn odd(inode: Inode<'_>) -> Option<(String, String)> {
    let (links, next) = (be32(inode.bytes, 16), be32(inode.bytes, 96));
    let [offset, format] = field::<2>(inode.bytes, 82);
    if links > 0 && next != u32::MAX {
        return Some((format!("inode {next} as the next without a name"), "it has names, and none is wanted".into()));
    }
    // One that was just made may have none.
    let is_right = if offset == 0 { matches!(format, 0 | 2) } else { (1..=3).contains(&format) };
    (!is_right).then(|| (format!("format {format} of its attributes"), "another is wanted".into()))
}

/// Checks an inode, all that it leads to, and claims its blocks. Says which findings are of it.
pub(super) fn check(fs: &Fs<'_>, walker: &mut Walker<'_>, inode: Inode<'_>, hits: &mut Vec<(usize, u64)>) {
    let structure = format!("inode {}", inode.number);
    let (code, found, expected) = if let Some(wrong) = core(fs, inode) {
        wrong
    } else if !matches!(inode.kind(), 0 | 1 | 2 | 4 | 6 | 8 | 10 | 12) {
        ("contents.xfs.inode", format!("a mode of type {}", inode.kind()), "a file or another type is wanted".into())
    } else {
        walker.verified = walker.verified.saturating_add(to_u64(inode.bytes.len()));
        let before = walker.contents.findings.len();
        let mut maps = Maps { fs, walker, inode, nth: None, blocks: 0 };
        if let Some(says) = odd(inode) {
            maps.find("contents.xfs.inode", (structure.clone(), inode.place), says);
        }
        maps.fork(Fork::Data);
        maps.fork(Fork::Attributes);
        maps.count(structure);
        let last = maps.nth;
        hits.extend((before..walker.contents.findings.len()).chain(last).map(|n| (n, inode.number)));
        return;
    };
    walker.is_partial = true;
    let nth = walker.contents.find_nth(Severity::Error, code, (structure, inode.place), found, expected);
    hits.extend(nth.map(|n| (n, inode.number)));
}

/// The extents of an inode's data, where they can be read; nothing is claimed or said.
pub(super) fn extents(fs: &Fs<'_>, inode: Inode<'_>) -> Vec<Extent> {
    let Some((format, bytes, count)) = inode.fork(Fork::Data) else { return Vec::new() };
    let mut found = Vec::new();
    match format {
        2 => found.extend(bytes.chunks_exact(16).take(usize::try_from(count).unwrap_or(0)).map(Extent::parse)),
        3 => {
            let each = &mut |bytes: &[u8]| {
                if found.len() < INSIDE_DIRECTORIES_MAX {
                    found.push(Extent::parse(bytes));
                }
            };
            let node = |start: u64, level: u16| {
                let (group, block) = fs.split(start);
                let bytes = fs.look.bytes(fs.place(group, block), fs.block_len)?;
                let right = fs.wrong(&LONG, fs.place(group, block), inode.number, &bytes).is_none();
                (right && be16(&bytes, 4) == level).then_some(bytes)
            };
            tree(bytes, &mut |start, level| node(start, level), each);
        }
        _ => {}
    }
    found
}

/// Goes through the tree of a fork; `node` reads a block of a level, and says where not to go on.
fn tree(root: &[u8], node: &mut dyn FnMut(u64, u16) -> Option<Vec<u8>>, each: &mut dyn FnMut(&[u8])) {
    let (level, count) = (be16(root, 0), usize::from(be16(root, 2)));
    let most = root.len().saturating_sub(4) / 16;
    if level == 0 || level > TREE_DEPTH_MAX || count > most {
        return;
    }
    let pointers = root.get(most.saturating_mul(8).saturating_add(4)..).unwrap_or_default();
    for pointer in pointers.chunks_exact(8).take(count) {
        below(be64(pointer, 0), level.saturating_sub(1), node, each);
    }
}

/// The level falls with each step.
fn below(start: u64, level: u16, node: &mut dyn FnMut(u64, u16) -> Option<Vec<u8>>, each: &mut dyn FnMut(&[u8])) {
    let Some(bytes) = node(start, level) else { return };
    let records = bytes.get(72..).unwrap_or_default();
    let most = records.len() / 16;
    let count = usize::from(be16(&bytes, 6)).min(most);
    if level == 0 {
        return records.chunks_exact(16).take(count).for_each(each);
    }
    let pointers = records.get(most.saturating_mul(8)..).unwrap_or_default();
    for pointer in pointers.chunks_exact(8).take(count) {
        below(be64(pointer, 0), level.saturating_sub(1), node, each);
    }
}

/// The maps of an inode.
struct Maps<'a, 'b, 'c> {
    fs: &'a Fs<'a>,
    walker: &'b mut Walker<'c>,
    inode: Inode<'a>,
    /// A finding that took the place of another.
    nth: Option<usize>,
    /// How many blocks its forks have.
    blocks: u64,
}

impl Maps<'_, '_, '_> {
    fn find(&mut self, code: &'static str, (structure, place): (String, u64), says: (String, String)) {
        self.walker.is_partial = true;
        let nth = self.walker.contents.find_nth(Severity::Error, code, (structure, place), says.0, says.1);
        self.nth = nth.or(self.nth);
    }

    /// Compares the number of blocks that the inode says, at byte 64.
    fn count(&mut self, structure: String) {
        let says = be64(self.inode.bytes, 64);
        let is_realtime = be16(self.inode.bytes, 90) & REALTIME != 0;
        if says != self.blocks && !is_realtime && !self.walker.is_partial {
            let (found, expected) = (counted(says, "block"), format!("its maps have {}", self.blocks));
            let place = (structure, self.inode.place);
            let code = "contents.xfs.inode-blocks";
            let nth = self.walker.contents.find_nth(Severity::Warning, code, place, found, expected);
            self.nth = nth.or(self.nth);
        }
    }

    fn fork(&mut self, fork: Fork) {
        let fs = self.fs;
        let Some((format, bytes, count)) = self.inode.fork(fork) else { return };
        // Devices and data within the inode have no map.
        let is_file = matches!(self.inode.kind(), 4 | 8 | 10) || fork == Fork::Attributes;
        let is_realtime = be16(self.inode.bytes, 90) & REALTIME != 0 && fork == Fork::Data;
        if !is_file || is_realtime || !matches!(format, 2 | 3) {
            return;
        }
        let structure = format!("the map of inode {}", self.inode.number);
        let place = (structure, self.inode.place.saturating_add(to_u64(DATA)));
        let mut all = Vec::new();
        if format == 2 {
            let most = to_u64(bytes.len() / 16);
            if count > most {
                return self.find(
                    "contents.xfs.extent",
                    place,
                    (counted(count, "extent"), format!("there is room for {most}")),
                );
            }
            let count = usize::try_from(count).unwrap_or(0);
            all.extend(bytes.chunks_exact(16).take(count).map(Extent::parse));
        } else {
            let number = self.inode.number;
            let mut node = |start: u64, level: u16| self.node(start, level, number);
            let each = &mut |bytes: &[u8]| {
                if all.len() < INSIDE_DIRECTORIES_MAX {
                    all.push(Extent::parse(bytes));
                }
            };
            tree(bytes, &mut node, each);
            if to_u64(all.len()) >= to_u64(INSIDE_DIRECTORIES_MAX) {
                self.walker.is_partial = true;
                self.walker.contents.note("xfs: not all extents of very fragmented files were gone into");
            } else if to_u64(all.len()) != count && !self.walker.is_partial {
                let says = (counted(count, "extent"), format!("its tree has {}", all.len()));
                self.find("contents.xfs.extent", place.clone(), says);
            }
        }
        let mut next = 0;
        for extent in &all {
            let (group, block) = fs.split(extent.start);
            if extent.logical < next || !fs.holds(group, block, extent.len) {
                let found = format!(
                    "{} at block {block} of group {group}, for block {}",
                    counted(extent.len, "block"),
                    extent.logical
                );
                let expected = format!("behind block {next} of the file, within the group");
                self.find("contents.xfs.extent", place.clone(), (found, expected));
                continue;
            }
            next = extent.logical.saturating_add(extent.len);
            self.blocks = self.blocks.saturating_add(extent.len);
            let is_shared = be64(self.inode.bytes, 120) & SHARED != 0;
            let start = group.saturating_mul(fs.in_group).saturating_add(block);
            if is_shared {
                self.walker.claims.claim(start, extent.len);
            } else {
                let structure = format!("inode {}", self.inode.number);
                let nth = self.walker.claim(fs, &structure, group, (block, extent.len));
                self.nth = nth.or(self.nth);
            }
        }
        self.blocks(fork, &all);
    }

    /// Reads a block of the tree of extents.
    fn node(&mut self, start: u64, level: u16, number: u64) -> Option<Vec<u8>> {
        let fs = self.fs;
        let (group, block) = fs.split(start);
        let structure = format!("block {block} of group {group}, of the map of inode {number}");
        let place = fs.place(group, block);
        if !fs.holds(group, block, 1) {
            let says = (format!("block {block} of group {group}"), "it is not there".to_owned());
            self.find(LONG.code, (structure, self.inode.place), says);
            return None;
        }
        if let Some(nth) = self.walker.claim(fs, &structure, group, (block, 1)) {
            self.nth = Some(nth);
            return None;
        }
        let bytes = match fs.look.read(place, fs.block_len) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.walker.is_partial = true;
                self.walker.contents.unread(fs.look, (structure, place), fs.block, &e);
                return None;
            }
        };
        let found = be16(&bytes, 4);
        let level_is = (found != level).then(|| (format!("level {found}"), format!("level {level} is wanted")));
        if let Some(says) = fs.wrong(&LONG, place, number, &bytes).or(level_is) {
            self.find(LONG.code, (structure, place), says);
            return None;
        }
        self.walker.verified = self.walker.verified.saturating_add(fs.block);
        self.blocks = self.blocks.saturating_add(1);
        Some(bytes)
    }

    /// The blocks that describe themselves: of directories, links and attributes.
    fn blocks(&mut self, fork: Fork, all: &[Extent]) {
        let fs = self.fs;
        let step = match (fork, self.inode.kind()) {
            (Fork::Data, 4) => 1u64 << fs.sb.directory_log().min(7),
            (Fork::Data, 8) => return,
            _ => 1,
        };
        let size = step.saturating_mul(fs.block);
        let Ok(len) = to_usize(size) else { return };
        let mut skip = 0u64;
        for extent in all.iter().filter(|extent| extent.written) {
            let (group, block) = fs.split(extent.start);
            for n in 0..extent.len {
                if fs.look.is_cancelled() {
                    return;
                }
                // The value of an attribute goes on over some blocks, of which each has a header.
                if skip > 0 {
                    skip = skip.saturating_sub(1);
                    continue;
                }
                let logical = extent.logical.saturating_add(n);
                if n.saturating_add(step) > extent.len {
                    if logical.checked_rem(step) == Some(0) {
                        self.walker
                            .contents
                            .note("xfs: blocks of directories that lie in several pieces were not gone into");
                    }
                    break;
                }
                let place = fs.place(group, block.saturating_add(n));
                let what = match fork {
                    Fork::Data if self.inode.kind() == 4 => "directory",
                    Fork::Data => "link",
                    Fork::Attributes => "the attributes of inode",
                };
                let structure = format!("block {logical} of {what} {}", self.inode.number);
                let bytes = match fs.look.read(place, len) {
                    Ok(bytes) => bytes,
                    Err(e) => {
                        self.walker.is_partial = true;
                        self.walker.contents.unread(fs.look, (structure, place), size, &e);
                        continue;
                    }
                };
                let at = logical.saturating_mul(fs.block);
                let shape: &Shape = match fork {
                    Fork::Data if self.inode.kind() == 10 => &LINK,
                    Fork::Data if (LEAF_AT..FREE_AT).contains(&at) => &NAMES,
                    Fork::Data => &DIRECTORY,
                    Fork::Attributes if bytes.starts_with(b"XARM") => &REMOTE,
                    Fork::Attributes => &ATTRIBUTES,
                };
                skip = step.saturating_sub(1);
                match fs.wrong(shape, place, self.inode.number, &bytes) {
                    Some(says) => self.find(shape.code, (structure, place), says),
                    None => self.walker.verified = self.walker.verified.saturating_add(size),
                }
            }
        }
    }
}

/// Names in a directory, with their inodes.
pub(super) fn names(fs: &Fs<'_>, inode: Inode<'_>, each: &mut dyn FnMut(u64, &[u8])) {
    let Some((format, bytes, _)) = inode.fork(Fork::Data) else { return };
    if format == 1 {
        let wide = bytes.get(1).is_some_and(|count| *count > 0);
        let number_len = if wide { 8 } else { 4 };
        let count = usize::from(bytes.first().copied().unwrap_or(0));
        let mut at = 2usize.saturating_add(number_len);
        for _ in 0..count {
            let Some(len) = bytes.get(at).map(|len| usize::from(*len)) else { return };
            let name_at = at.saturating_add(3);
            let end = name_at.saturating_add(len);
            // The type is behind the name.
            let number_at = end.saturating_add(1);
            let (Some(name), Some(rest)) = (bytes.get(name_at..end), bytes.get(number_at..)) else { return };
            let number = if wide { be64(rest, 0) } else { u64::from(be32(rest, 0)) };
            each(number, name);
            at = number_at.saturating_add(number_len);
        }
        return;
    }
    let size = fs.block << fs.sb.directory_log().min(7);
    let Ok(len) = to_usize(size) else { return };
    let step = size.checked_div(fs.block).unwrap_or(1).max(1);
    for extent in extents(fs, inode) {
        let (group, block) = fs.split(extent.start);
        let count = extent.len.checked_div(step).unwrap_or(0);
        for n in (0..count).map(|n| n.saturating_mul(step)) {
            if extent.logical.saturating_add(n).saturating_mul(fs.block) >= LEAF_AT || fs.look.is_cancelled() {
                return;
            }
            let Some(bytes) = fs.look.bytes(fs.place(group, block.saturating_add(n)), len) else { continue };
            entries(&bytes, each);
        }
    }
}

/// The entries of a block of names.
fn entries(bytes: &[u8], each: &mut dyn FnMut(u64, &[u8])) {
    let end = if bytes.starts_with(b"XDB3") {
        // Behind the names are hashes, and their number.
        let count = from_u32(be32(bytes, bytes.len().saturating_sub(8)));
        bytes.len().saturating_sub(8).saturating_sub(count.saturating_mul(8))
    } else {
        bytes.len()
    };
    let mut at = 64usize;
    while at.saturating_add(16) <= end {
        let Some(entry) = bytes.get(at..end) else { return };
        if entry.starts_with(&[0xff, 0xff]) {
            at = at.saturating_add(usize::from(be16(entry, 2)).max(8));
            continue;
        }
        let len = usize::from(entry.get(8).copied().unwrap_or(0));
        if let Some(name) = entry.get(9..9usize.saturating_add(len)) {
            each(be64(entry, 0), name);
        }
        at = at.saturating_add(len.saturating_add(12).next_multiple_of(8));
    }
}

/// Reads an inode.
pub(super) fn with_inode(fs: &Fs<'_>, number: u64, each: &mut dyn FnMut(Inode<'_>)) {
    let log = u32::from(fs.sb.sb_agblklog.saturating_add(fs.sb.sb_inopblog));
    let (group, within) = (number >> log, number & (1u64 << log).saturating_sub(1));
    let place = fs.place(group, 0).saturating_add(within.saturating_mul(fs.sb.sb_inodesize.get().into()));
    if let Some(bytes) = fs.look.bytes(place, fs.sb.sb_inodesize.get().into()) {
        each(Inode { number, place, bytes: &bytes });
    }
}
