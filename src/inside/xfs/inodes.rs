//! XFS: inodes, their extents, and the blocks of links and attributes.
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

use super::tree::{ATTRIBUTES, Fs, LINK, LONG, REMOTE, Shape, Walker};
use super::{Severity, checksums};
use crate::error::counted;
use crate::inside::look::{be16, be32, be64, checksum_is, field, hex};
use crate::limits::INSIDE_DIRECTORIES_MAX;
use crate::num::{to_u64, to_usize};

const DATA: usize = 176;
const REALTIME: u16 = 1;
const SHARED: u64 = 2;
const WIDE: u64 = 16;
const TREE_DEPTH_MAX: u16 = 9;
/// A target has 1024 bytes at most, and a block as many at least.
const LINK_BLOCKS_MAX: u64 = 2;

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
    pub(super) fn fork(&self, attributes: Fork) -> Option<(u8, &'a [u8], u64)> {
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

/// Checks an inode, its maps, and claims its blocks. Says which findings are of it, and whether it is one at all.
pub(super) fn check(fs: &Fs<'_>, walker: &mut Walker<'_>, inode: Inode<'_>, hits: &mut Vec<(usize, u64)>) -> bool {
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
        return true;
    };
    walker.is_partial = true;
    let nth = walker.contents.find_nth(Severity::Error, code, (structure, inode.place), found, expected);
    hits.extend(nth.map(|n| (n, inode.number)));
    false
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

    /// The blocks that describe themselves: of links and attributes.
    fn blocks(&mut self, fork: Fork, all: &[Extent]) {
        let written = all.iter().filter(|extent| extent.written);
        match (fork, self.inode.kind()) {
            (Fork::Data, 10) => written.for_each(|extent| self.link(extent)),
            (Fork::Data, _) => {}
            (Fork::Attributes, _) => written.for_each(|extent| self.attributes(extent)),
        }
    }

    /// A target that is too long for its inode: each extent of it has one header. It is 1 KiB at most.
    fn link(&mut self, extent: &Extent) {
        let len = extent.len.min(LINK_BLOCKS_MAX).saturating_mul(self.fs.block);
        let structure = format!("block {} of link {}", extent.logical, self.inode.number);
        let (group, block) = self.fs.split(extent.start);
        self.block((structure, self.fs.place(group, block)), len, |_| &LINK);
    }

    fn attributes(&mut self, extent: &Extent) {
        let (group, block) = self.fs.split(extent.start);
        for n in (0..extent.len).take_while(|_| !self.fs.look.is_cancelled()) {
            let logical = extent.logical.saturating_add(n);
            let structure = format!("block {logical} of the attributes of inode {}", self.inode.number);
            let place = self.fs.place(group, block.saturating_add(n));
            // The value of an attribute goes on over some blocks, of which each has a header.
            let shape = |bytes: &[u8]| if bytes.starts_with(b"XARM") { &REMOTE } else { &ATTRIBUTES };
            self.block((structure, place), self.fs.block, shape);
        }
    }

    fn block(&mut self, (structure, place): (String, u64), len: u64, shape: impl Fn(&[u8]) -> &'static Shape) {
        match to_usize(len).and_then(|len| self.fs.look.read(place, len)) {
            Ok(bytes) => {
                let shape = shape(&bytes);
                match self.fs.wrong(shape, place, self.inode.number, &bytes) {
                    Some(says) => self.find(shape.code, (structure, place), says),
                    None => self.walker.verified = self.walker.verified.saturating_add(len),
                }
            }
            Err(e) => {
                self.walker.is_partial = true;
                self.walker.contents.unread(self.fs.look, (structure, place), len, &e);
            }
        }
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
