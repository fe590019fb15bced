//! XFS: blocks of its trees, of directories and attributes, each under a checksum of its own.
//!
//! | short block | long block | field |
//! |---|---|---|
//! | 0 | 0 | magic |
//! | 4, 6 | 4, 6 | level, numrecs |
//! | 16 | 24 | own place, in units of 512 bytes |
//! | 32 | 40 | UUID |
//! | 48 (4 bytes) | 56 (8 bytes) | owner: the group's number, or an inode |
//! | 52 | 64 | checksum |
//! | 56 | 72 | records, or keys and then pointers |
//!
//! The source is Linux's `fs/xfs/libxfs/xfs_format.h`, `xfs_da_format.h` and `xfs_btree.c`.

use super::{Contents, Severity, Superblock, checksums};
use crate::error::counted;
use crate::inside::full::Claims;
use crate::inside::look::{Look, be16, be32, be64, checksum_is, field, hex};
use crate::num::{to_u64, to_usize};

/// What a block that describes itself has where.
pub(super) struct Shape {
    pub code: &'static str,
    pub magic: &'static [&'static [u8]],
    pub magic_at: usize,
    pub checksum_at: usize,
    pub place_at: usize,
    pub uuid_at: usize,
    pub owner_at: usize,
    pub owner_len: usize,
}

pub(super) const fn short(code: &'static str, magic: &'static [&'static [u8]]) -> Shape {
    Shape { code, magic, magic_at: 0, checksum_at: 52, place_at: 16, uuid_at: 32, owner_at: 48, owner_len: 4 }
}

pub(super) const LONG: Shape = Shape {
    code: "contents.xfs.extent-tree",
    magic: &[b"BMA3"],
    magic_at: 0,
    checksum_at: 64,
    place_at: 24,
    uuid_at: 40,
    owner_at: 56,
    owner_len: 8,
};
pub(super) const DIRECTORY: Shape = Shape {
    code: "contents.xfs.directory",
    magic: &[b"XDD3"],
    magic_at: 0,
    checksum_at: 4,
    place_at: 8,
    uuid_at: 24,
    owner_at: 40,
    owner_len: 8,
};
pub(super) const SMALL: Shape = Shape { magic: &[b"XDB3"], ..DIRECTORY };
pub(super) const ROOM: Shape = Shape { magic: &[b"XDF3"], ..DIRECTORY };
pub(super) const NAMES: Shape = Shape {
    code: "contents.xfs.directory-tree",
    magic: &[b"\x3d\xf1", b"\x3d\xff", b"\x3e\xbe"],
    magic_at: 8,
    checksum_at: 12,
    place_at: 16,
    uuid_at: 32,
    owner_at: 48,
    owner_len: 8,
};
pub(super) const ATTRIBUTES: Shape =
    Shape { code: "contents.xfs.attributes", magic: &[b"\x3b\xee", b"\x3e\xbe"], ..NAMES };
pub(super) const REMOTE: Shape = Shape {
    code: "contents.xfs.attributes",
    magic: &[b"XARM"],
    magic_at: 0,
    checksum_at: 12,
    place_at: 40,
    uuid_at: 16,
    owner_at: 32,
    owner_len: 8,
};
pub(super) const LINK: Shape = Shape { code: "contents.xfs.link", magic: &[b"XSLM"], ..REMOTE };

/// A file system that is gone through.
pub(super) struct Fs<'a> {
    pub look: &'a Look<'a>,
    pub sb: &'a Superblock,
    pub block: u64,
    pub block_len: usize,
    pub in_group: u64,
    pub groups: u64,
}

impl<'a> Fs<'a> {
    pub(super) fn new(look: &'a Look<'a>, sb: &'a Superblock) -> Option<Self> {
        let block = sb.block_size();
        let groups = u64::from(sb.sb_agcount.get());
        let in_group = u64::from(sb.sb_agblocks.get());
        // Of those behind the end of the disk, which is said elsewhere, there is nothing to be read.
        let there = look.len().checked_div(in_group.saturating_mul(block))?.saturating_add(1);
        let log_fits = sb.sb_agblklog < 32 && sb.sb_inopblog < 16 && 1u64 << sb.sb_agblklog >= in_group;
        log_fits.then_some(Self {
            look,
            sb,
            block,
            block_len: to_usize(block).ok()?,
            in_group,
            groups: groups.min(there),
        })
    }

    /// The byte of a block of a group.
    pub(super) fn place(&self, group: u64, block: u64) -> u64 {
        group.saturating_mul(self.in_group).saturating_add(block).saturating_mul(self.block)
    }

    pub(super) fn blocks_in(&self, group: u64) -> u64 {
        self.sb.blocks_in(u32::try_from(group).unwrap_or(u32::MAX))
    }

    /// Group and block of a number that has both.
    pub(super) fn split(&self, number: u64) -> (u64, u64) {
        let log = u32::from(self.sb.sb_agblklog);
        (number >> log, number & (1u64 << log).saturating_sub(1))
    }

    /// Whether blocks of a group are there.
    pub(super) fn holds(&self, group: u64, block: u64, len: u64) -> bool {
        group < u64::from(self.sb.sb_agcount.get())
            && len > 0
            && block.checked_add(len).is_some_and(|end| end <= self.blocks_in(group))
    }

    /// How many blocks a block of a directory has.
    pub(super) fn directory_step(&self) -> u64 {
        1 << self.sb.directory_log().min(7)
    }

    /// The bytes of a block of a directory.
    pub(super) fn directory_block(&self) -> u64 {
        self.directory_step().saturating_mul(self.block)
    }

    /// Which block of a directory begins at a byte of it.
    pub(super) fn in_directory(&self, at: u64) -> u64 {
        at.checked_div(self.directory_block()).unwrap_or(0)
    }

    /// What is wrong with a block, if anything.
    pub(super) fn wrong(&self, shape: &Shape, place: u64, owner: u64, bytes: &[u8]) -> Option<(String, String)> {
        let rest = bytes.get(shape.magic_at..).unwrap_or_default();
        let owned = match shape.owner_len {
            4 => u64::from(be32(bytes, shape.owner_at)),
            _ => be64(bytes, shape.owner_at),
        };
        let own = be64(bytes, shape.place_at);
        if !shape.magic.iter().any(|magic| rest.starts_with(magic)) {
            let found = format!("the magic \"{}\"", field::<4>(bytes, shape.magic_at).escape_ascii());
            return Some((found, "another is wanted".into()));
        }
        let (stored, right) = checksums(bytes, shape.checksum_at);
        if stored != right {
            Some((hex(stored), checksum_is(right)))
        } else if own != place / 512 {
            Some((format!("the block of sector {own}"), format!("it is that of {}", place / 512)))
        } else if field::<16>(bytes, shape.uuid_at) != self.sb.meta_uuid() {
            Some(("another UUID".into(), "the superblock's is wanted".into()))
        } else if owned != owner {
            Some((format!("owner {owned}"), format!("{owner} is wanted")))
        } else {
            None
        }
    }
}

/// A tree of a group.
pub(super) struct Kind {
    pub name: &'static str,
    pub shape: Shape,
    pub record: usize,
    pub key: usize,
}

/// What goes through trees.
pub(super) struct Walker<'a> {
    pub contents: &'a mut Contents,
    pub claims: Claims,
    pub verified: u64,
    pub is_partial: bool,
}

impl Walker<'_> {
    /// Claims blocks; one that was claimed before is a finding, whose number is given.
    pub(super) fn claim(
        &mut self,
        fs: &Fs<'_>,
        structure: &str,
        group: u64,
        (block, len): (u64, u64),
    ) -> Option<usize> {
        let start = group.saturating_mul(fs.in_group).saturating_add(block);
        let twice = self.claims.claim(start, len)?;
        let place = twice.saturating_mul(fs.block);
        let code = "contents.xfs.block-claimed-twice";
        let within = twice.saturating_sub(group.saturating_mul(fs.in_group));
        let found = format!("block {within} of group {group}");
        let nth = self.contents.find_nth(Severity::Error, code, (structure, place), found, "another structure has it");
        // One that is left out of the list is one all the same.
        nth.or(Some(usize::MAX))
    }

    /// Gives the records of a tree of a group in their order. `level` is one more than the root's.
    pub(super) fn walk(
        &mut self,
        fs: &Fs<'_>,
        kind: &Kind,
        group: u64,
        (block, level): (u64, u32),
        each: &mut dyn FnMut(&[u8]),
    ) {
        let Some(level) = level.checked_sub(1).and_then(|level| u16::try_from(level).ok()).filter(|level| *level < 16)
        else {
            return;
        };
        self.visit(fs, kind, group, (block, level), each);
    }

    /// The level falls with each step.
    fn visit(&mut self, fs: &Fs<'_>, kind: &Kind, group: u64, (block, level): (u64, u16), each: &mut dyn FnMut(&[u8])) {
        let structure = format!("block {block} of {} of group {group}", kind.name);
        let place = fs.place(group, block);
        if !fs.holds(group, block, 1) {
            self.is_partial = true;
            let found = format!("block {block} of group {group}");
            let expected = format!("the group has {}", counted(fs.blocks_in(group), "block"));
            return self.contents.find(Severity::Error, kind.shape.code, (structure, place), found, expected);
        }
        if self.claim(fs, &structure, group, (block, 1)).is_some() || fs.look.is_cancelled() {
            return;
        }
        let bytes = match fs.look.read(place, fs.block_len) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.is_partial = true;
                return self.contents.unread(fs.look, (structure, place), fs.block, &e);
            }
        };
        let count = usize::from(be16(&bytes, 6));
        let room = bytes.len().saturating_sub(56);
        let most = room.checked_div(if level == 0 { kind.record } else { kind.key.saturating_add(4) }).unwrap_or(0);
        let found_level = be16(&bytes, 4);
        let wrong = fs.wrong(&kind.shape, place, group, &bytes).or_else(|| {
            let is_sane = found_level == level && count <= most && (count > 0 || level == 0);
            let found = format!("level {found_level} with {count} records");
            (!is_sane).then(|| (found, format!("level {level} and {most} at most are wanted")))
        });
        if let Some((found, expected)) = wrong {
            self.is_partial = true;
            return self.contents.find(Severity::Error, kind.shape.code, (structure, place), found, expected);
        }
        self.verified = self.verified.saturating_add(to_u64(bytes.len()));
        let records = bytes.get(56..).unwrap_or_default();
        if level == 0 {
            return records.chunks_exact(kind.record).take(count).for_each(each);
        }
        let pointers = records.get(most.saturating_mul(kind.key)..).unwrap_or_default();
        for pointer in pointers.chunks_exact(4).take(count) {
            self.visit(fs, kind, group, (be32(pointer, 0).into(), level.saturating_sub(1)), each);
        }
    }
}
