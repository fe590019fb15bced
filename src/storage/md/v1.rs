//! md's superblocks of versions 1.0, 1.1 and 1.2. All numbers are little-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..4 | magic, 0xa92b4efc | 128..136 | data_offset |
//! | 4..8 | major_version, 1 | 136..144 | data_size |
//! | 8..12 | feature_map | 144..152 | super_offset: where the superblock itself lies |
//! | 16..32 | set_uuid | 152..160 | recovery_offset |
//! | 32..64 | set_name | 160..164 | dev_number: the index in dev_roles |
//! | 64..72 | ctime, 40 bits of seconds | 168..184 | device_uuid |
//! | 72..76 | level | 185, 186..188, 188..192 | bblog_shift, bblog_size, bblog_offset |
//! | 76..80 | layout | 200..208 | events |
//! | 80..88 | size: what the array uses of each member | 208..216 | resync_offset |
//! | 88..92, 92..96 | chunksize, raid_disks | 216..220 | sb_csum |
//! | 96..100 | bitmap_offset | 220..224, 256.. | max_dev, dev_roles: 16 bits each |
//!
//! Offsets and sizes count sectors of 512 bytes. Sources: Linux's `include/uapi/linux/raid/md_p.h` and
//! `drivers/md/md.c`, mdadm's `super0.c` and `super1.c`.

use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result, counted};
use crate::io::ReadAt;
use crate::limits::{MD_BAD_BLOCKS_SIZE_MAX, MD_MEMBERS_MAX};
use crate::num::{low_u32, to_u64};

use super::superblock::{BadBlocks, Level, MAGIC, Role, SECTOR, SetUuid, Superblock, Version, check_members, wrong};

/// `MD_DISK_ROLE_MAX`: roles from here on are no places in the array.
const ROLE_MAX: u16 = 0xff00;

const FEATURE_BITMAP_OFFSET: u32 = 1;
const FEATURE_RECOVERY_OFFSET: u32 = 2;
const FEATURE_RESHAPE_ACTIVE: u32 = 4;
const FEATURE_BAD_BLOCKS: u32 = 8;
const FEATURE_REPLACEMENT: u32 = 16;
const FEATURE_JOURNAL: u32 = 512;
const FEATURE_PPL: u32 = 1024 | 2048;
const FEATURE_RAID0_LAYOUT: u32 = 4096;
/// `MD_FEATURE_ALL`.
const FEATURES_KNOWN: u32 = 8191;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: U32,
    major_version: U32,
    feature_map: U32,
    pad0: U32,
    set_uuid: [u8; 16],
    set_name: [u8; 32],
    ctime: U64,
    level: I32,
    layout: U32,
    size: U64,
    chunksize: U32,
    raid_disks: U32,
    bitmap_offset: U32,
    new_level: U32,
    reshape_position: U64,
    delta_disks: U32,
    new_layout: U32,
    new_chunk: U32,
    new_offset: U32,
    data_offset: U64,
    data_size: U64,
    super_offset: U64,
    recovery_offset: U64,
    dev_number: U32,
    cnt_corrected_read: U32,
    device_uuid: [u8; 16],
    devflags: u8,
    bblog_shift: u8,
    bblog_size: U16,
    bblog_offset: I32,
    utime: U64,
    events: U64,
    resync_offset: U64,
    sb_csum: U32,
    max_dev: U32,
    // Linux 6.19's; before it, padding like the rest.
    logical_block_size: U32,
    pad3: [u8; 28],
}
const _: () = assert!(size_of::<Raw>() == 256);

/// `sectors` in bytes.
fn bytes_of(sectors: u64, field: &'static str, at: u64) -> Result<u64> {
    let bytes = sectors.checked_mul(SECTOR).filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| wrong(field, at, format!("found {}; no disk has as many", counted(sectors, "sector"))))
}

/// The superblock in `bytes`, which lie at `offset` of `disk`.
pub(super) fn parse(disk: &dyn ReadAt, bytes: &[u8], version: Version, offset: u64) -> Result<Option<Superblock>> {
    let Ok((raw, _)) = Raw::read_from_prefix(bytes) else { return Ok(None) };
    if raw.magic.get() != MAGIC || raw.major_version.get() != 1 || raw.super_offset.get() != offset / SECTOR {
        return Ok(None);
    }
    let max_dev = raw.max_dev.get();
    let size = usize::try_from(max_dev).ok().and_then(|n| n.checked_mul(2)).and_then(|n| n.checked_add(256));
    let covered = size.and_then(|size| bytes.get(..size)).ok_or_else(|| {
        wrong("md.max_dev", offset + 220, format!("found {max_dev}; {MD_MEMBERS_MAX} at most are allowed"))
    })?;
    let (found, sum) = (raw.sb_csum.get(), checksum(covered));
    if found != sum {
        let message = format!("found {found:#010x}; the superblock's checksum is {sum:#010x}");
        return Err(wrong("md.sb_csum", offset + 216, message));
    }
    let features = raw.feature_map.get();
    if features & !FEATURES_KNOWN != 0 || raw.pad0.get() != 0 || raw.pad3 != [0; 28] {
        let message = format!("found features {features:#x} or padding that is used: a newer md made it");
        return Err(Error::unsupported("md.feature_map", message).at(offset + 8));
    }
    let has = |feature| features & feature != 0;
    let level = Level::from_number(raw.level.get());
    let raid_disks = raw.raid_disks.get();
    check_members(raid_disks, offset + 92)?;
    let data_offset = bytes_of(raw.data_offset.get(), "md.data_offset", offset + 128)?;
    let data_size = bytes_of(raw.data_size.get(), "md.data_size", offset + 136)?;
    let end = data_offset.checked_add(data_size);
    let covered_len = to_u64(covered.len());
    let overlaps = match version {
        Version::V1_0 => end.is_none_or(|end| end > offset),
        _ => end.is_none() || data_offset < offset + covered_len,
    };
    if overlaps {
        let message = format!("{data_size} bytes of data from byte {data_offset} on overlap the superblock");
        return Err(wrong("md.data_offset", offset + 128, message));
    }
    if has(FEATURE_RAID0_LAYOUT) && level != Level::Raid0 {
        let message = format!("a layout of RAID0 in {level}");
        return Err(wrong("md.feature_map", offset + 8, message));
    }
    let name = raw.set_name.split(|b| *b == 0).next().unwrap_or_default();
    let recovery = has(FEATURE_RECOVERY_OFFSET).then(|| raw.recovery_offset.get().saturating_mul(SECTOR));
    let roles = covered[256..].chunks_exact(2).map(|b| match u16::from_le_bytes([b[0], b[1]]) {
        0xfffe => Role::Faulty,
        0xfffd => Role::Journal,
        spare if spare >= ROLE_MAX => Role::Spare,
        number => Role::Member(number.into()),
    });
    Ok(Some(Superblock {
        version,
        offset,
        set_uuid: SetUuid(raw.set_uuid),
        name: String::from_utf8_lossy(name).into_owned(),
        ctime: raw.ctime.get() & ((1 << 40) - 1),
        level,
        layout: (level != Level::Raid0 || has(FEATURE_RAID0_LAYOUT)).then(|| raw.layout.get()),
        chunk: u64::from(raw.chunksize.get()) * SECTOR,
        raid_disks,
        size: bytes_of(raw.size.get(), "md.size", offset + 80)?,
        data_offset,
        data_size,
        events: raw.events.get(),
        resync_offset: Some(raw.resync_offset.get()).filter(|n| *n != u64::MAX).map(|n| n.saturating_mul(SECTOR)),
        dev_number: raw.dev_number.get(),
        device_uuid: Some(raw.device_uuid),
        roles: roles.collect(),
        recovery_offset: recovery,
        reshape: has(FEATURE_RESHAPE_ACTIVE),
        journal: has(FEATURE_JOURNAL),
        bitmap: has(FEATURE_BITMAP_OFFSET) && raw.bitmap_offset.get() != 0,
        ppl: has(FEATURE_PPL),
        replacement: has(FEATURE_REPLACEMENT),
        bad_blocks: if has(FEATURE_BAD_BLOCKS) { bad_blocks(disk, &raw, offset)? } else { Vec::new() },
        notes: Vec::new(),
    }))
}

/// The sum of all words and of half a word that may be left, its own word taken for 0, with the carries added.
fn checksum(bytes: &[u8]) -> u32 {
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let sum: u64 = bytes.chunks(4).enumerate().filter(|(n, _)| *n != 54).map(|(_, b)| word(b)).sum();
    // As the kernel has it, a carry of that addition is lost.
    low_u32((sum & 0xffff_ffff) + (sum >> 32))
}

/// The list of bad blocks: 54 bits of a sector of the member, and 10 of a length; all ones end it.
fn bad_blocks(disk: &dyn ReadAt, raw: &Raw, offset: u64) -> Result<Vec<BadBlocks>> {
    let sectors = raw.bblog_size.get();
    let size = usize::from(sectors) * 512;
    if size > MD_BAD_BLOCKS_SIZE_MAX {
        let message = format!("found {}; {} are allowed", counted(sectors, "sector"), MD_BAD_BLOCKS_SIZE_MAX / 512);
        return Err(Error::limit("md.bblog_size", message).at(offset + 186));
    }
    let start = i64::try_from(offset / SECTOR).ok().map(|sector| sector + i64::from(raw.bblog_offset.get()));
    let start = start.and_then(|sector| u64::try_from(sector).ok()).and_then(|sector| sector.checked_mul(SECTOR));
    let end = start.and_then(|start| start.checked_add(u64::try_from(size).ok()?)).filter(|end| *end <= disk.len());
    let (Some(start), Some(_), true) = (start, end, raw.bblog_offset.get() != 0 && raw.bblog_shift < 32) else {
        let found = format!(
            "{size} bytes from sector {} after the superblock on, shift {}",
            raw.bblog_offset.get(),
            raw.bblog_shift
        );
        return Err(wrong("md.bblog_offset", offset + 188, format!("found {found}; that is no place for a list")));
    };
    let mut bytes = vec![0; size];
    disk.read_exact_at(&mut bytes, start).map_err(|e| e.within("reading the list of bad blocks"))?;
    let mut found = Vec::new();
    for entry in bytes.chunks_exact(8) {
        let entry = entry.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        if entry == u64::MAX {
            break;
        }
        let scale = |n: u64| n.checked_mul(1 << raw.bblog_shift).and_then(|n| n.checked_mul(SECTOR));
        match (scale(entry >> 10), scale(entry & 0x3ff)) {
            (Some(start), Some(len)) => found.push(BadBlocks { start, len }),
            _ => return Err(wrong("md.bblog", start, format!("found {entry:#x}, which is no place on a disk"))),
        }
    }
    Ok(found)
}
