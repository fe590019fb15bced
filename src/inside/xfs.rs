//! XFS: the superblock, the three headers of each allocation group, and whether the log was left empty; all else in `full`.
//!
//! | superblock bytes | field | | |
//! |---|---|---|---|
//! | 0, 4, 8 | `XFSB`, sb_blocksize, sb_dblocks | 100, 102, 104 | sb_versionnum, sb_sectsize, sb_inodesize |
//! | 32 | sb_uuid | 108 | sb_fname |
//! | 48 | sb_logstart | 120..127 | logarithms: blocks, sectors, inodes, inodes a block, blocks a group |
//! | 84, 88, 96 | sb_agblocks, sb_agcount, sb_logblocks | 216, 224, 248 | incompat features, crc, sb_meta_uuid |
//!
//! All big-endian, but the checksums of version 5: CRC-32C, little-endian, over a whole sector. A group begins with four
//! sectors: superblock, AGF (free space), AGI (inodes), AGFL (spare blocks). The source is Linux's
//! `fs/xfs/libxfs/xfs_format.h` and `xfs_log_format.h`, and `xfs_sb.c` for what is no superblock.

mod dirs;
mod full;
mod hashes;
mod inodes;
mod links;
mod tree;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::look::{Look, be32, checksum_is, crc32c_raw, field, hex, le32, text, uuid};
use super::{Contents, Kind, Level, Severity, State};
use crate::error::counted;
use crate::limits::INSIDE_COPIES_MAX;
use crate::num::{at_most, to_u64};

/// How many allocation groups are looked at: as many as 4 PiB have in groups of the usual 1 TiB, and more than a file
/// system has that grew from a small image.
const GROUPS_MAX: u32 = 4096;
const INCOMPAT_META_UUID: u32 = 0x4;
const INCOMPAT_NEEDSREPAIR: u32 = 0x10;
const LOG_RECORD: u32 = 0xfeed_babe;
const UNMOUNT: u8 = 0x20;
/// The log's own blocks.
const BASIC: u64 = 512;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Superblock {
    sb_magicnum: [u8; 4],
    sb_blocksize: U32,
    sb_dblocks: U64,
    sb_rblocks: U64,
    sb_rextents: U64,
    sb_uuid: [u8; 16],
    sb_logstart: U64,
    sb_rootino: U64,
    unused_64: [u8; 16],
    sb_rextsize: U32,
    sb_agblocks: U32,
    sb_agcount: U32,
    sb_rbmblocks: U32,
    sb_logblocks: U32,
    sb_versionnum: U16,
    sb_sectsize: U16,
    sb_inodesize: U16,
    sb_inopblock: U16,
    sb_fname: [u8; 12],
    sb_blocklog: u8,
    sb_sectlog: u8,
    sb_inodelog: u8,
    sb_inopblog: u8,
    sb_agblklog: u8,
    sb_rextslog: u8,
    sb_inprogress: u8,
    sb_imax_pct: u8,
    unused_128: [u8; 64],
    sb_dirblklog: u8,
    unused_193: [u8; 19],
    sb_features_ro_compat: U32,
    sb_features_incompat: U32,
    sb_features_log_incompat: U32,
    sb_crc: U32,
    unused_228: [u8; 20],
    sb_meta_uuid: [u8; 16],
}
const _: () = assert!(size_of::<Superblock>() == 264);
const _: () = assert!(std::mem::offset_of!(Superblock, sb_fname) == 108);
const _: () = assert!(std::mem::offset_of!(Superblock, sb_features_incompat) == 216);

impl Superblock {
    fn read(look: &Look<'_>) -> Option<Self> {
        look.structure::<Self>(0).filter(Self::is_sane)
    }

    fn is_sane(&self) -> bool {
        let is_log = |size: u64, log: u8| log < 32 && size == 1 << log;
        let (block, sector) = (self.block_size(), u64::from(self.sb_sectsize.get()));
        let (inode, groups) = (u64::from(self.sb_inodesize.get()), u64::from(self.sb_agcount.get()));
        let in_group = u64::from(self.sb_agblocks.get());
        self.sb_magicnum == *b"XFSB"
            && matches!(self.version(), 4 | 5)
            && (512..=65536).contains(&block)
            && is_log(block, self.sb_blocklog)
            && (512..=32768).contains(&sector)
            && is_log(sector, self.sb_sectlog)
            && (256..=2048).contains(&inode)
            && is_log(inode, self.sb_inodelog)
            && self.sb_imax_pct <= 100
            && self.sb_inprogress == 0
            && groups > 0
            && in_group.saturating_mul(block) >= 16 << 20
            && self.sb_dblocks.get() > groups.saturating_sub(1).saturating_mul(in_group)
            && self.sb_dblocks.get() <= groups.saturating_mul(in_group)
    }

    /// The features without which nothing may be read, and those without which nothing may be written.
    fn features(&self) -> [u32; 2] {
        [self.sb_features_incompat.get(), self.sb_features_ro_compat.get()]
    }

    /// How many blocks, as a power of 2, a block of a directory has.
    fn directory_log(&self) -> u8 {
        self.sb_dirblklog
    }

    fn version(&self) -> u16 {
        self.sb_versionnum.get() & 0xf
    }

    fn has_checksums(&self) -> bool {
        self.version() == 5
    }

    fn block_size(&self) -> u64 {
        u64::from(self.sb_blocksize.get())
    }

    fn has_incompat(&self, feature: u32) -> bool {
        self.has_checksums() && self.sb_features_incompat.get() & feature != 0
    }

    /// The UUID that the other structures have.
    fn meta_uuid(&self) -> [u8; 16] {
        if self.has_incompat(INCOMPAT_META_UUID) { self.sb_meta_uuid } else { self.sb_uuid }
    }

    /// The blocks of a group: the last may have fewer.
    fn blocks_in(&self, group: u32) -> u64 {
        let in_group = u64::from(self.sb_agblocks.get());
        self.sb_dblocks.get().saturating_sub(u64::from(group).saturating_mul(in_group)).min(in_group)
    }
}

/// The stored checksum of a sector, and the right one. `at` is the field's place.
fn checksums(sector: &[u8], at: usize) -> (u32, u32) {
    let before = sector.get(..at).unwrap_or_default();
    let after = sector.get(at.saturating_add(4)..).unwrap_or_default();
    let parts: [&[u8]; 3] = [before, &[0; 4], after];
    (le32(sector, at), !parts.into_iter().fold(!0, crc32c_raw))
}

/// The superblock's sector, where it has a checksum that is wrong.
fn wrong_checksum(look: &Look<'_>, superblock: &Superblock) -> Option<(u32, u32)> {
    let sector = look.bytes(0, usize::from(superblock.sb_sectsize.get()))?;
    Some(checksums(&sector, 224)).filter(|(stored, right)| superblock.has_checksums() && stored != right)
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let superblock = Superblock::read(look)?;
    let mut contents = Contents::new(Kind::Xfs, look);
    contents.label = text(&superblock.sb_fname);
    contents.uuid = uuid(&superblock.sb_uuid);
    contents.block_size = Some(superblock.block_size());
    let size = superblock.sb_dblocks.get().saturating_mul(superblock.block_size());
    contents.size = wrong_checksum(look, &superblock).is_none().then_some(size);
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(superblock) = Superblock::read(look) else { return };
    if let Some((stored, right)) = wrong_checksum(look, &superblock) {
        let code = "contents.xfs.superblock-checksum";
        contents.find(Severity::Error, code, ("the superblock", 0), hex(stored), checksum_is(right));
        return;
    }
    if superblock.has_incompat(INCOMPAT_NEEDSREPAIR) {
        let expected = "xfs_repair has to be run before Linux mounts it";
        contents.find(Severity::Error, "contents.xfs.state", ("the superblock", 0), "the mark of repair", expected);
    }
    contents.state = match is_log_empty(look, &superblock) {
        Some(true) => State::Clean,
        Some(false) => State::JournalToReplay,
        None => State::Unknown,
    };
    for group in 0..superblock.sb_agcount.get().min(GROUPS_MAX) {
        check_group(look, &superblock, group, contents);
    }
    if let more @ 1.. = superblock.sb_agcount.get().saturating_sub(GROUPS_MAX) {
        contents.notes.push(format!("xfs: {more} allocation groups were not looked at"));
    }
    if look.level() == Level::Full {
        full::check(look, &superblock, contents);
    }
}

/// A header of a group: its magic, where its fields lie, and its code.
struct Header {
    name: &'static str,
    code: &'static str,
    magic: &'static [u8; 4],
    /// Which of the group's sectors it is.
    sector: usize,
    number_at: usize,
    /// Where the number of the group's blocks is.
    length_at: Option<usize>,
    uuid_at: usize,
    checksum_at: usize,
}

const HEADERS: [Header; 3] = [
    Header {
        name: "the AGF",
        code: "contents.xfs.agf",
        magic: b"XAGF",
        sector: 1,
        number_at: 8,
        length_at: Some(12),
        uuid_at: 64,
        checksum_at: 216,
    },
    Header {
        name: "the AGI",
        code: "contents.xfs.agi",
        magic: b"XAGI",
        sector: 2,
        number_at: 8,
        length_at: Some(12),
        uuid_at: 296,
        checksum_at: 312,
    },
    Header {
        name: "the AGFL",
        code: "contents.xfs.agfl",
        magic: b"XAFL",
        sector: 3,
        number_at: 4,
        length_at: None,
        uuid_at: 8,
        checksum_at: 32,
    },
];

fn check_group(look: &Look<'_>, superblock: &Superblock, group: u32, contents: &mut Contents) {
    let in_group = u64::from(superblock.sb_agblocks.get());
    let at = u64::from(group).saturating_mul(in_group).saturating_mul(superblock.block_size());
    let sector = usize::from(superblock.sb_sectsize.get());
    let bytes = match look.read(at, sector.saturating_mul(4)) {
        Ok(bytes) => bytes,
        Err(e) => return contents.unread(look, (format!("the headers of group {group}"), at), 2048, &e),
    };
    let sectors: Vec<&[u8]> = bytes.chunks_exact(sector).collect();
    if let Some(copy) = sectors.first().filter(|_| group > 0) {
        check_copy(superblock, group, (at, copy), contents);
    }
    for header in &HEADERS {
        let Some(bytes) = sectors.get(header.sector) else { continue };
        // Without checksums the list of spare blocks has no header.
        if !superblock.has_checksums() && header.length_at.is_none() {
            continue;
        }
        let at = at.saturating_add(to_u64(header.sector.saturating_mul(sector)));
        let structure = || (format!("{} of group {group}", header.name), at);
        // One that was growing has its size in the log.
        let is_late = contents.state == State::JournalToReplay;
        let mut wrong = |found: String, expected: String| {
            contents.find(Severity::Error, header.code, structure(), found, expected);
        };
        let (stored, right) = checksums(bytes, header.checksum_at);
        let number = be32(bytes, header.number_at);
        let length = header.length_at.map(|at| u64::from(be32(bytes, at)));
        let blocks = superblock.blocks_in(group);
        if !bytes.starts_with(header.magic) {
            wrong(format!("{:?}", field::<4>(bytes, 0).escape_ascii().to_string()), "its magic is wanted".into());
        } else if superblock.has_checksums() && stored != right {
            wrong(hex(stored), checksum_is(right));
        } else if number != group {
            wrong(format!("number {number}"), format!("it is group {group}"));
        } else if length.is_some_and(|length| length != blocks) && !is_late {
            wrong(counted(length.unwrap_or(0), "block"), format!("the group has {blocks}"));
        } else if superblock.has_checksums() && field::<16>(bytes, header.uuid_at) != superblock.meta_uuid() {
            wrong("another UUID".into(), "the superblock's is wanted".into());
        }
    }
}

fn check_copy(superblock: &Superblock, group: u32, (at, bytes): (u64, &[u8]), contents: &mut Contents) {
    let structure = || (format!("the superblock of group {group}"), at);
    let code = "contents.xfs.secondary-superblock";
    let (stored, right) = checksums(bytes, 224);
    let copy = Superblock::read_from_prefix(bytes).ok().map(|(copy, _)| copy);
    let Some(copy) = copy.filter(|copy| copy.sb_magicnum == *b"XFSB") else {
        let found = format!("{:?}", field::<4>(bytes, 0).escape_ascii().to_string());
        return contents.find(Severity::Warning, code, structure(), found, "\"XFSB\" is wanted");
    };
    if superblock.has_checksums() && stored != right {
        contents.find(Severity::Warning, code, structure(), hex(stored), checksum_is(right));
    } else if let Some((name, found, wanted)) = differs(superblock, &copy)
        && contents.state != State::JournalToReplay
    {
        contents.find(
            Severity::Warning,
            code,
            structure(),
            format!("{name} {found}"),
            format!("the first has {wanted}"),
        );
    }
}

/// The first field that a copy has otherwise, of the sizes that xfs_repair compares.
fn differs(first: &Superblock, copy: &Superblock) -> Option<(&'static str, String, String)> {
    let fields = |sb: &Superblock| {
        [
            ("sb_blocksize", sb.block_size()),
            ("sb_dblocks", sb.sb_dblocks.get()),
            ("sb_rblocks", sb.sb_rblocks.get()),
            ("sb_rextents", sb.sb_rextents.get()),
            ("sb_logstart", sb.sb_logstart.get()),
            ("sb_rextsize", sb.sb_rextsize.get().into()),
            ("sb_agblocks", sb.sb_agblocks.get().into()),
            ("sb_agcount", sb.sb_agcount.get().into()),
            ("sb_rbmblocks", sb.sb_rbmblocks.get().into()),
            ("sb_logblocks", sb.sb_logblocks.get().into()),
            ("sb_sectsize", sb.sb_sectsize.get().into()),
            ("sb_inodesize", sb.sb_inodesize.get().into()),
        ]
    };
    let differs = |((name, wanted), (_, found)): ((&'static str, u64), (&str, u64))| {
        (found != wanted).then(|| (name, found.to_string(), wanted.to_string()))
    };
    fields(first).into_iter().zip(fields(copy)).find_map(differs)
}

/// Whether the last record of the log says that the file system was unmounted; `None` where that is not told.
///
/// Each block of the log begins with the number of the round in which it was written, so that the end of the last round is
/// found by halving, as `xlog_find_head` does.
fn is_log_empty(look: &Look<'_>, superblock: &Superblock) -> Option<bool> {
    let blocks = u64::from(superblock.sb_logblocks.get()).checked_mul(superblock.block_size())?.checked_div(BASIC)?;
    let (place, log) = (superblock.sb_logstart.get(), superblock.sb_agblklog);
    // An external log has no place here.
    if place == 0 || log > 31 || blocks == 0 {
        return None;
    }
    let group = place.checked_shr(u32::from(log))?;
    let in_group = place & (1u64 << log).saturating_sub(1);
    let start = group.checked_mul(u64::from(superblock.sb_agblocks.get()))?.checked_add(in_group)?;
    let start = start.checked_mul(superblock.block_size())?;
    let block = |n: u64| look.bytes(n.checked_mul(BASIC)?.checked_add(start)?, 512);
    let round = |n: u64| {
        let bytes = block(n)?;
        Some(if be32(&bytes, 0) == LOG_RECORD { be32(&bytes, 4) } else { be32(&bytes, 0) })
    };
    let first = round(0)?;
    let head = if round(blocks.checked_sub(1)?)? == first {
        blocks
    } else {
        let (mut low, mut high) = (0, blocks.checked_sub(1)?);
        while high.checked_sub(low)? > 1 {
            let middle = low.midpoint(high);
            if round(middle)? == first { low = middle } else { high = middle }
        }
        high
    };
    // The record of an unmount has one header and one operation, both padded to the log's stripe: 256 KiB at most.
    let steps = at_most(head.min(512), INSIDE_COPIES_MAX.max(512));
    let record = (1..=to_u64(steps)).map(|back| head.saturating_sub(back));
    let (at, header) = record
        .map(|n| (n, block(n)))
        .find_map(|(n, bytes)| bytes.filter(|bytes| be32(bytes, 0) == LOG_RECORD).map(|bytes| (n, bytes)))?;
    if be32(&header, 40) != 1 {
        return Some(false);
    }
    // Version 2 has a header more for each 32 KiB of a record.
    let size = u64::from(be32(&header, 320));
    let headers = if be32(&header, 8) & 2 != 0 { size.div_ceil(32 << 10).max(1) } else { 1 };
    let data = block(at.checked_add(headers)?)?;
    Some(data.get(9)? & UNMOUNT != 0)
}
