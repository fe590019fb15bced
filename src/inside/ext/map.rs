//! ext: groups, inodes, and where the blocks of an inode lie.
//!
//! | inode bytes | field | extent node bytes | field |
//! |---|---|---|---|
//! | 0x00, 0x1a | i_mode, i_links_count | 0, 2, 4, 6 | eh_magic 0xf30a, eh_entries, eh_max, eh_depth |
//! | 0x04, 0x6c | i_size, low and high | 12 + 12 n, of a leaf | ee_block, ee_len (u16), ee_start: high (u16), low |
//! | 0x14, 0x1c | i_dtime, i_blocks | 12 + 12 n, of others | ei_block, ei_leaf: low, high (u16) |
//! | 0x20, 0x28 | i_flags, i_block (60 bytes) | 12 + 12 eh_max | et_checksum, but in an inode |
//! | 0x64, 0x68 | i_generation, i_file_acl | | |
//! | 0x7c, 0x82 | i_checksum, low and high | | |
//!
//! The source is Linux's `fs/ext4/ext4.h`, `ext4_extents.h` and `inode.c`.

use super::{INCOMPAT_META_BG, RO_COMPAT_GDT_CSUM, RO_COMPAT_METADATA_CSUM, Superblock, descriptor_checksum};
use crate::error::{Error, Result, counted};
use crate::inside::look::{Look, crc32c_raw, field, le16, le32};
use crate::num::to_usize;
use zerocopy::IntoBytes;

/// The inode of the root directory.
pub(super) const ROOT: u32 = 2;
pub(super) const EXTENTS: u32 = 0x8_0000;
pub(super) const INLINE_DATA: u32 = 0x1000_0000;
pub(super) const EA_INODE: u32 = 0x20_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
const EXTENT_DEPTH_MAX: u16 = 5;
/// A length above this is of blocks that are allocated and not written.
const WRITTEN_MAX: u16 = 32768;
const LOGICAL_END: u64 = 1 << 32;

/// A file system whose superblock is believed.
pub(super) struct Fs<'a> {
    pub look: &'a Look<'a>,
    pub sb: &'a Superblock,
    /// The size of a block.
    pub block: u64,
    pub block_len: usize,
    pub blocks: u64,
    pub first: u64,
    pub groups: u64,
    pub inodes_per_group: u64,
    pub has_csum: bool,
    pub seed: u32,
}

/// What a descriptor says of a group.
pub(super) struct Group {
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_blocks: u64,
    pub free_inodes: u64,
    pub directories: u64,
    pub flags: u16,
    pub block_bitmap_checksum: u32,
    pub inode_bitmap_checksum: u32,
    pub place: u64,
    /// How many bits of the checksums are kept.
    pub checksum_mask: u32,
}

impl<'a> Fs<'a> {
    pub(super) fn new(look: &'a Look<'a>, sb: &'a Superblock) -> Option<Self> {
        let size = sb.desc_size();
        let block = sb.block_size();
        if !size.is_power_of_two() || size > 1024.min(block) {
            return None;
        }
        // Of those behind the end of the disk, which is said elsewhere, there is nothing to be read.
        let per_group = block.saturating_mul(u64::from(sb.s_blocks_per_group.get()));
        let there = look.len().checked_div(per_group).unwrap_or(0).saturating_add(1);
        Some(Self {
            look,
            sb,
            block,
            block_len: to_usize(block).ok()?,
            blocks: sb.blocks(),
            first: u64::from(sb.s_first_data_block.get()),
            groups: sb.groups().min(there),
            inodes_per_group: u64::from(sb.s_inodes_per_group.get()),
            has_csum: sb.has_ro_compat(RO_COMPAT_METADATA_CSUM),
            seed: sb.seed(),
        })
    }

    /// A field of the superblock that nothing else of this module wants.
    pub(super) fn word(&self, at: usize) -> u32 {
        le32(self.sb.as_bytes(), at)
    }

    pub(super) fn place(&self, block: u64) -> u64 {
        block.saturating_mul(self.block)
    }

    pub(super) fn read(&self, block: u64) -> Result<Vec<u8>> {
        self.look.read(self.place(block), self.block_len)
    }

    /// Whether the blocks are there.
    pub(super) fn holds(&self, start: u64, len: u64) -> bool {
        start >= self.first.max(1) && start.checked_add(len).is_some_and(|end| end <= self.blocks)
    }

    /// The blocks of a group: the last may have fewer.
    pub(super) fn blocks_in(&self, group: u64) -> u64 {
        let per_group = u64::from(self.sb.s_blocks_per_group.get());
        self.blocks.saturating_sub(self.sb.group_start(group)).min(per_group)
    }

    /// How many blocks the allocation takes at a time.
    pub(super) fn cluster(&self) -> u64 {
        let ratio = self.sb.s_log_cluster_size.get().saturating_sub(self.sb.s_log_block_size.get());
        if self.sb.has_ro_compat(super::RO_COMPAT_BIGALLOC) { 1 << ratio.min(20) } else { 1 }
    }

    /// How many blocks an inode table has.
    pub(super) fn table_len(&self) -> u64 {
        self.inodes_per_group.saturating_mul(self.sb.inode_size()).div_ceil(self.block)
    }

    /// The blocks of a group that hold the superblock and descriptors, as a start and a length each.
    pub(super) fn headers(&self, group: u64) -> [(u64, u64); 2] {
        let start = self.sb.group_start(group);
        let has_super = self.sb.has_super(group);
        let per_block = self.block.checked_div(self.sb.desc_size()).unwrap_or(1).max(1);
        let all = self.groups.div_ceil(per_block);
        let is_meta = self.sb.has_incompat(INCOMPAT_META_BG);
        let first_meta = u64::from(self.sb.s_first_meta_bg.get());
        let reserved = u64::from(le16(self.sb.as_bytes(), 0xce));
        let old = if is_meta { first_meta.min(all) } else { all.saturating_add(reserved) };
        // In blocks of 1 KiB with clusters, the boot block is the first of the group, and the superblock behind it.
        let lead = u64::from(group == 0 && self.block == 1024 && self.first == 0);
        let with_super = if has_super { 1u64.saturating_add(lead) } else { 0 };
        let n = group.checked_div(per_block).unwrap_or(0);
        let within = group.checked_rem(per_block).unwrap_or(0);
        if is_meta && n >= first_meta {
            let has_copy = within <= 1 || within == per_block.saturating_sub(1);
            return [(start, with_super), (start.saturating_add(with_super), u64::from(has_copy))];
        }
        [(start, with_super), (start.saturating_add(with_super), if has_super { old } else { 0 })]
    }

    /// A group; `None` where its descriptor is damaged, which is found elsewhere.
    pub(super) fn group(&self, group: u64) -> Result<Option<Group>> {
        let size = self.sb.desc_size();
        let per_block = self.block.checked_div(size).unwrap_or(1).max(1);
        let block = self.sb.descriptor_block(group.checked_div(per_block).unwrap_or(0));
        let within = group.checked_rem(per_block).unwrap_or(0).saturating_mul(size);
        let place = self.place(block).saturating_add(within);
        let bytes = self.look.read(place, to_usize(size)?)?;
        if descriptor_checksum(self.sb, group, &bytes).is_some_and(|(stored, right)| stored != right) {
            return Ok(None);
        }
        let wide = bytes.len() >= 64;
        let high32 = |at| u64::from(if wide { le32(&bytes, at) } else { 0 }) << 32;
        let high16 = |at| u32::from(if wide { le16(&bytes, at) } else { 0 }) << 16;
        let number = |low, high| high32(high) | u64::from(le32(&bytes, low));
        let count = |low, high| u64::from(high16(high) | u32::from(le16(&bytes, low)));
        let sum = |low, high| high16(high) | u32::from(le16(&bytes, low));
        let has_flags = self.has_csum || self.sb.has_ro_compat(RO_COMPAT_GDT_CSUM);
        let found = Group {
            block_bitmap: number(0x00, 0x20),
            inode_bitmap: number(0x04, 0x24),
            inode_table: number(0x08, 0x28),
            free_blocks: count(0x0c, 0x2c),
            free_inodes: count(0x0e, 0x2e),
            directories: count(0x10, 0x30),
            flags: if has_flags { le16(&bytes, 0x12) } else { 0 },
            block_bitmap_checksum: sum(0x18, 0x38),
            inode_bitmap_checksum: sum(0x1a, 0x3a),
            place,
            checksum_mask: if wide { u32::MAX } else { 0xffff },
        };
        let is_sane = self.holds(found.block_bitmap, 1)
            && self.holds(found.inode_bitmap, 1)
            && self.holds(found.inode_table, self.table_len());
        Ok(is_sane.then_some(found))
    }

    /// What the checksums of an inode's own blocks begin with.
    pub(super) fn inode_seed(&self, number: u32, generation: u32) -> u32 {
        crc32c_raw(crc32c_raw(self.seed, &number.to_le_bytes()), &generation.to_le_bytes())
    }

    /// The bytes of one inode, and where they are; `None` where its group is damaged.
    pub(super) fn inode(&self, number: u32) -> Result<Option<(Vec<u8>, u64)>> {
        let n = u64::from(number).saturating_sub(1);
        let group = n.checked_div(self.inodes_per_group).unwrap_or(0);
        let within = n.checked_rem(self.inodes_per_group).unwrap_or(0).saturating_mul(self.sb.inode_size());
        if number == 0 || group >= self.groups {
            return Ok(None);
        }
        let Some(found) = self.group(group)? else { return Ok(None) };
        let place = self.place(found.inode_table).saturating_add(within);
        Ok(Some((self.look.read(place, to_usize(self.sb.inode_size())?)?, place)))
    }
}

/// An inode's bytes.
#[derive(Clone, Copy)]
pub(super) struct Inode<'a> {
    pub number: u32,
    pub bytes: &'a [u8],
    pub place: u64,
}

impl<'a> Inode<'a> {
    /// The type of its mode: 4 of a directory, 8 of a file, 10 of a link.
    pub(super) fn kind(&self) -> u8 {
        u8::try_from(le16(self.bytes, 0) >> 12).unwrap_or(0)
    }

    pub(super) fn links(&self) -> u16 {
        le16(self.bytes, 0x1a)
    }

    pub(super) fn dtime(&self) -> u32 {
        le32(self.bytes, 0x14)
    }

    pub(super) fn flags(&self) -> u32 {
        le32(self.bytes, 0x20)
    }

    pub(super) fn generation(&self) -> u32 {
        le32(self.bytes, 0x64)
    }

    pub(super) fn size(&self) -> u64 {
        let high = if matches!(self.kind(), 4 | 8) { u64::from(le32(self.bytes, 0x6c)) } else { 0 };
        high << 32 | u64::from(le32(self.bytes, 4))
    }

    /// i_blocks, in units of 512 bytes or, of very large files, of blocks.
    pub(super) fn sectors(&self) -> u64 {
        u64::from(le16(self.bytes, 0x74)) << 32 | u64::from(le32(self.bytes, 0x1c))
    }

    /// The block of its extended attributes.
    pub(super) fn attributes(&self) -> u64 {
        u64::from(le16(self.bytes, 0x76)) << 32 | u64::from(le32(self.bytes, 0x68))
    }

    fn map(&self) -> &'a [u8] {
        self.bytes.get(0x28..0x64).unwrap_or_default()
    }

    /// Whether i_block says where blocks are, rather than holding a short link, a device's number or data.
    fn has_map(&self) -> bool {
        let is_short_link = self.kind() == 10 && self.size() < 60 && self.flags() & EXTENTS == 0;
        matches!(self.kind(), 0 | 4 | 8 | 10) && !is_short_link && self.flags() & INLINE_DATA == 0
    }

    /// The stored checksum and the right one, as many of their bits as it has room for.
    pub(super) fn checksums(&self, fs: &Fs<'_>) -> (u32, u32) {
        let wide = self.bytes.len() > 128 && le16(self.bytes, 0x80) >= 4;
        let part = |range: std::ops::Range<usize>| self.bytes.get(range).unwrap_or_default();
        let end = self.bytes.len();
        let rest: [&[u8]; 3] =
            if wide { [part(0x7e..0x82), &[0, 0], part(0x84..end)] } else { [part(0x7e..end.max(0x7e)), &[], &[]] };
        let seed = fs.inode_seed(self.number, self.generation());
        let sum = [part(0..0x7c), &[0, 0]].into_iter().chain(rest).fold(seed, crc32c_raw);
        let low = u32::from(le16(self.bytes, 0x7c));
        if wide { (u32::from(le16(self.bytes, 0x82)) << 16 | low, sum) } else { (low, sum & 0xffff) }
    }
}

/// Blocks of an inode that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub logical: u64,
    pub start: u64,
    pub len: u64,
    pub written: bool,
}

/// What is wrong with an inode's map: where, by which code, what was found, and what is allowed.
pub(super) struct Fault {
    pub place: u64,
    pub code: &'static str,
    pub found: String,
    pub expected: String,
}

/// What goes through an inode's map.
pub(super) trait Visitor {
    /// A run of its data.
    fn run(&mut self, run: Run);
    /// A block of the map itself; says whether it should be gone into.
    fn node(&mut self, block: u64) -> bool;
    /// A block of the map has a checksum that is right.
    fn proved(&mut self);
    fn fault(&mut self, fault: Fault);
    fn unread(&mut self, block: u64, e: &Error);
}

/// Goes through the map of an inode, in the order of its bytes.
pub(super) fn walk(fs: &Fs<'_>, inode: Inode<'_>, visitor: &mut dyn Visitor) {
    if !inode.has_map() {
        return;
    }
    let place = inode.place.saturating_add(0x28);
    if inode.flags() & EXTENTS != 0 {
        let seed = fs.inode_seed(inode.number, inode.generation());
        let root = Node { bytes: inode.map(), place, depth: None, logical: 0..LOGICAL_END };
        return extents(fs, seed, root, visitor);
    }
    let mut pointers = Pointers { fs, logical: 0, pending: None, visitor };
    pointers.go(inode.map().get(..48).unwrap_or_default(), place, 0);
    for level in 1..=3u8 {
        let at = 44usize.saturating_add(usize::from(level).saturating_mul(4));
        pointers.go(inode.map().get(at..at.saturating_add(4)).unwrap_or_default(), place, level);
    }
    pointers.flush();
}

struct Node<'a> {
    bytes: &'a [u8],
    place: u64,
    /// The depth that it must have; the root says its own.
    depth: Option<u16>,
    logical: std::ops::Range<u64>,
}

/// The depth falls with each level, and there are five at most.
fn extents(fs: &Fs<'_>, seed: u32, node: Node<'_>, visitor: &mut dyn Visitor) {
    let Node { bytes, place, .. } = node;
    let (entries, most, depth) = (le16(bytes, 2), le16(bytes, 4), le16(bytes, 6));
    let tail = usize::from(most).saturating_mul(12).saturating_add(12);
    let mut fault = |code, found: String, expected: String| visitor.fault(Fault { place, code, found, expected });
    let code = "contents.ext.extent-node";
    if le16(bytes, 0) != EXTENT_MAGIC {
        return fault(code, format!("the magic {:#06x}", le16(bytes, 0)), format!("{EXTENT_MAGIC:#06x} is wanted"));
    }
    let has_tail = fs.has_csum && node.depth.is_some();
    if tail.saturating_add(if has_tail { 4 } else { 0 }) > bytes.len() || entries > most || most == 0 {
        let found = format!("{} of {most}", counted(entries, "entry"));
        return fault(code, found, format!("the node has {} bytes", bytes.len()));
    }
    if node.depth.is_some_and(|wanted| wanted != depth) || depth > EXTENT_DEPTH_MAX {
        let expected = node.depth.map_or("5 at most is allowed".into(), |wanted| format!("{wanted} is wanted"));
        return fault(code, format!("depth {depth}"), expected);
    }
    if has_tail {
        let (stored, right) = (le32(bytes, tail), crc32c_raw(seed, bytes.get(..tail).unwrap_or_default()));
        if stored != right {
            let code = "contents.ext.extent-checksum";
            return fault(code, format!("{stored:#010x}"), format!("the checksum is {right:#010x}"));
        }
        visitor.proved();
    }
    let all = || bytes.get(12..).unwrap_or_default().chunks_exact(12).take(usize::from(entries));
    let ends = all().skip(1).map(|entry| u64::from(le32(entry, 0))).chain([node.logical.end]);
    let mut next = node.logical.start;
    for (entry, end) in all().zip(ends) {
        let logical = u64::from(le32(entry, 0));
        if depth == 0 {
            let len = le16(entry, 4);
            let written = len <= WRITTEN_MAX;
            let len = u64::from(if written { len } else { len.saturating_sub(WRITTEN_MAX) });
            let start = u64::from(le16(entry, 6)) << 32 | u64::from(le32(entry, 8));
            let behind = logical.saturating_add(len);
            if len == 0 || logical < next || behind > node.logical.end || !fs.holds(start, len) {
                let found = format!("{} at block {start}, for block {logical} of the file", counted(len, "block"));
                let expected = format!("behind block {next} of the file, within {}", counted(fs.blocks, "block"));
                visitor.fault(Fault { place, code: "contents.ext.extent", found, expected });
                continue;
            }
            visitor.run(Run { logical, start, len, written });
            next = behind;
            continue;
        }
        let child = u64::from(le16(entry, 8)) << 32 | u64::from(le32(entry, 4));
        if logical < next || logical >= end || !fs.holds(child, 1) {
            let found = format!("a node at block {child}, for block {logical} of the file");
            let expected = format!("behind block {next} of the file, within {}", counted(fs.blocks, "block"));
            visitor.fault(Fault { place, code: "contents.ext.extent", found, expected });
            continue;
        }
        next = logical.saturating_add(1);
        if visitor.node(child) {
            match fs.read(child) {
                Ok(bytes) => {
                    let depth = Some(depth.saturating_sub(1));
                    extents(
                        fs,
                        seed,
                        Node { bytes: &bytes, place: fs.place(child), depth, logical: logical..end },
                        visitor,
                    );
                }
                Err(e) => visitor.unread(child, &e),
            }
        }
    }
}

/// The map of ext2 and ext3: pointers, and blocks of pointers, three deep.
struct Pointers<'a> {
    fs: &'a Fs<'a>,
    logical: u64,
    pending: Option<Run>,
    visitor: &'a mut dyn Visitor,
}

impl Pointers<'_> {
    fn go(&mut self, pointers: &[u8], place: u64, level: u8) {
        let per_block = self.fs.block / 4;
        let covers = (0..level).fold(1, |n: u64, _| n.saturating_mul(per_block));
        for pointer in pointers.as_chunks::<4>().0 {
            let block = u64::from(u32::from_le_bytes(*pointer));
            let logical = self.logical;
            self.logical = logical.saturating_add(covers);
            if block == 0 {
                continue;
            }
            if !self.fs.holds(block, 1) {
                let found = format!("block {block}, for block {logical} of the file");
                let expected = format!("within {}", counted(self.fs.blocks, "block"));
                self.visitor.fault(Fault { place, code: "contents.ext.block-pointer", found, expected });
            } else if level == 0 {
                self.take(logical, block);
            } else if self.visitor.node(block) {
                let behind = self.logical;
                self.logical = logical;
                match self.fs.read(block) {
                    Ok(bytes) => self.go(&bytes, self.fs.place(block), level.saturating_sub(1)),
                    Err(e) => self.visitor.unread(block, &e),
                }
                self.logical = behind;
            }
        }
    }

    fn take(&mut self, logical: u64, start: u64) {
        if let Some(run) = &mut self.pending
            && run.logical.saturating_add(run.len) == logical
            && run.start.saturating_add(run.len) == start
        {
            run.len = run.len.saturating_add(1);
            return;
        }
        self.flush();
        self.pending = Some(Run { logical, start, len: 1, written: true });
    }

    fn flush(&mut self) {
        if let Some(run) = self.pending.take() {
            self.visitor.run(run);
        }
    }
}

/// The UUID that a journal of its own device has.
pub(super) fn external_journal(sb: &Superblock) -> bool {
    field::<16>(sb.as_bytes(), 0xd0) != [0; 16] && le32(sb.as_bytes(), 0xe0) == 0
}
