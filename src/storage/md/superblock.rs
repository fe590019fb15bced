//! md's superblocks: versions 1.0, 1.1 and 1.2 (all numbers little-endian), and where each version lies.
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
//! Offsets and sizes count sectors of 512 bytes. Version 1.0 lies 8 to 12 KiB before the end, 1.1 at the start, 1.2 at
//! 4 KiB, and 0.90, which `v0` reads, 64 to 128 KiB before the end. Sources: Linux's `include/uapi/linux/raid/md_p.h` and
//! `drivers/md/md.c`, mdadm's `super0.c` and `super1.c`.

use std::fmt;

use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::ReadAt;
use crate::limits::{MD_BAD_BLOCKS_SIZE_MAX, MD_MEMBERS_MAX, MD_SUPERBLOCK_SIZE};

use super::v0;

pub(super) const SECTOR: u64 = 512;
pub(super) const MAGIC: u32 = 0xa92b_4efc;
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

/// A superblock's version, which also says where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 0.90, 64 to 128 KiB before the end; in the byte order of the machine that made it.
    V0_90,
    /// 1.0, 8 to 12 KiB before the end.
    V1_0,
    /// 1.1, at the start.
    V1_1,
    /// 1.2, at 4 KiB.
    V1_2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_90 => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        })
    }
}

/// How an array's members make one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One member after the other.
    Linear,
    /// Chunks in turn.
    Raid0,
    /// Each member has everything.
    Raid1,
    /// Chunks in turn, and their parity on the last member.
    Raid4,
    /// Chunks in turn, and their parity on one member after the other.
    Raid5,
    /// The same with two parities.
    Raid6,
    /// Chunks in turn, each of them several times.
    Raid10,
    /// A number that is none of these, and that is not read: multipath, faulty, container.
    Other(i32),
}

impl Level {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            -1 => Self::Linear,
            0 => Self::Raid0,
            1 => Self::Raid1,
            4 => Self::Raid4,
            5 => Self::Raid5,
            6 => Self::Raid6,
            10 => Self::Raid10,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear => f.write_str("linear"),
            Self::Raid0 => f.write_str("RAID0"),
            Self::Raid1 => f.write_str("RAID1"),
            Self::Raid4 => f.write_str("RAID4"),
            Self::Raid5 => f.write_str("RAID5"),
            Self::Raid6 => f.write_str("RAID6"),
            Self::Raid10 => f.write_str("RAID10"),
            Self::Other(-4) => f.write_str("multipath"),
            Self::Other(-5) => f.write_str("faulty"),
            Self::Other(-100) => f.write_str("container"),
            Self::Other(number) => write!(f, "level {number}"),
        }
    }
}

/// What an array's superblock calls a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The member with this number.
    Member(u32),
    /// A spare, which holds nothing.
    Spare,
    /// A member that failed.
    Faulty,
    /// The journal of writes.
    Journal,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(number) => write!(f, "member {number}"),
            Self::Spare => f.write_str("spare"),
            Self::Faulty => f.write_str("faulty"),
            Self::Journal => f.write_str("journal"),
        }
    }
}

/// An array's UUID, which all its members have. It is written as mdadm writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetUuid(pub [u8; 16]);

impl fmt::Display for SetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, byte) in self.0.iter().enumerate() {
            let colon = if n > 0 && n % 4 == 0 { ":" } else { "" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A range of bytes of a member that its list of bad blocks names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlocks {
    /// The first byte, from the member's own start.
    pub start: u64,
    /// How many bytes.
    pub len: u64,
}

/// What one member says of itself and of its array. Offsets and sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Superblock {
    /// Its version.
    pub version: Version,
    /// Where it lies on the member.
    pub offset: u64,
    /// The array's UUID.
    pub set_uuid: SetUuid,
    /// The array's name as it stands there, often `host:name`; empty in version 0.90, which has none.
    pub name: String,
    /// When the array was made, in seconds since 1970.
    pub ctime: u64,
    /// How the members make one disk.
    pub level: Level,
    /// The layout's number, which means something else in each level; of RAID0 only where the feature says so.
    pub layout: Option<u32>,
    /// The size of a chunk; 0 where the level has none.
    pub chunk: u64,
    /// How many members a whole array has.
    pub raid_disks: u32,
    /// How much of each member the array uses, for all levels but linear and RAID0.
    pub size: u64,
    /// Where the member's data begins.
    pub data_offset: u64,
    /// How much room for data there is.
    pub data_size: u64,
    /// How often the superblock was written: the newest member of an array has the most.
    pub events: u64,
    /// The bytes of each member (RAID10: of the array) that are known to be in sync; `None` where all are.
    pub resync_offset: Option<u64>,
    /// The member's own number among all devices that the array ever had: the index in `roles`.
    pub dev_number: u32,
    /// The member's own UUID; version 0.90 has none.
    pub device_uuid: Option<[u8; 16]>,
    /// What each device is to the array, by its number.
    pub roles: Vec<Role>,
    /// How many bytes of the member were rebuilt, where it is being rebuilt.
    pub recovery_offset: Option<u64>,
    /// The array is being brought into another shape.
    pub reshape: bool,
    /// The array has a journal of writes.
    pub journal: bool,
    /// The array keeps a bitmap of writes.
    pub bitmap: bool,
    /// The array has a log of partial parity.
    pub ppl: bool,
    /// The member replaces another one of the same number.
    pub replacement: bool,
    /// What the member cannot give.
    pub bad_blocks: Vec<BadBlocks>,
    /// What the user should know, one line each: other superblocks that were passed over.
    pub notes: Vec<String>,
}

impl Superblock {
    /// What the member says that it is.
    pub fn role(&self) -> Role {
        self.role_of(self.dev_number)
    }

    /// What the device with this number is to the array, in this member's eyes.
    pub(super) fn role_of(&self, dev_number: u32) -> Role {
        let role = usize::try_from(dev_number).ok().and_then(|n| self.roles.get(n)).copied().unwrap_or(Role::Spare);
        match role {
            Role::Member(number) if number >= self.raid_disks => Role::Spare,
            role => role,
        }
    }

    /// The array, for a message: `RAID5 array "host:0" (UUID …)`.
    pub(super) fn array(&self) -> String {
        match self.name.is_empty() {
            true => format!("{} array {}", self.level, self.set_uuid),
            false => format!("{} array \"{}\" ({})", self.level, escape(&self.name), self.set_uuid),
        }
    }

    /// The superblock of `disk`, or `None` where it has none.
    ///
    /// Where it has several, what is left of an earlier array among them, the one of the array that was made last is
    /// taken, as mdadm does it, and the others are noted. Mind that versions 0.90 and 1.0 lie at the end: a disk whose
    /// last partition ends with it may show that partition's 0.90.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`] where all that are there are damaged or have features that
    /// are not known; [`ErrorKind::Io`] where a place that may have one cannot be read, and no other has one.
    pub fn probe(disk: &dyn ReadAt) -> Result<Option<Self>> {
        let (mut found, first_error) = Self::probe_all(disk);
        let best = (0..found.len()).max_by_key(|n| (found[*n].ctime, found[*n].events, usize::MAX - n));
        let Some(best) = best else { return first_error.map_or(Ok(None), Err) };
        let mut taken = found.swap_remove(best);
        let others = found.iter().map(|sb| {
            format!("md: a superblock {} of {} at byte {} was passed over", sb.version, sb.array(), sb.offset)
        });
        taken.notes.extend(others);
        taken.notes.extend(first_error.map(|e| format!("md: another superblock was passed over: {e}")));
        Ok(Some(taken))
    }

    /// All superblocks of `disk`, and the error of the first place that has one which is not good, or cannot be read.
    pub(super) fn probe_all(disk: &dyn ReadAt) -> (Vec<Self>, Option<Error>) {
        let mut found = Vec::new();
        let mut wrong: Option<Error> = None;
        for version in [Version::V1_1, Version::V1_2, Version::V1_0, Version::V0_90] {
            match Self::at(disk, version) {
                Ok(sb) => found.extend(sb),
                // What is damaged says more than what cannot be read.
                Err(e) if wrong.as_ref().is_none_or(|w| w.kind() == ErrorKind::Io && e.kind() != ErrorKind::Io) => {
                    wrong = Some(e);
                }
                Err(_) => (),
            }
        }
        (found, wrong)
    }

    /// The superblock of one version, where it is there.
    fn at(disk: &dyn ReadAt, version: Version) -> Result<Option<Self>> {
        let Some(offset) = place(disk.len(), version) else { return Ok(None) };
        let mut bytes = vec![0; MD_SUPERBLOCK_SIZE];
        let there = usize::try_from(disk.len().saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
        // A disk may end within the 4 KiB that are read, but not within the superblock.
        disk.read_exact_at(&mut bytes[..there], offset)
            .map_err(|e| e.within("reading the place of an md superblock"))?;
        match version {
            Version::V0_90 => v0::parse(&bytes, offset),
            _ => parse(disk, &bytes, version, offset),
        }
    }
}

/// Where a superblock of this version lies on a disk of `len` bytes.
fn place(len: u64, version: Version) -> Option<u64> {
    // mdadm takes nothing below 24 sectors for a member.
    let sectors = Some(len / SECTOR).filter(|sectors| *sectors >= 24)?;
    match version {
        Version::V1_1 => Some(0),
        Version::V1_2 => Some(4096),
        Version::V1_0 => Some((sectors - 16) / 8 * 8 * SECTOR),
        Version::V0_90 => (len / 65_536).checked_sub(1).filter(|n| *n > 0).map(|n| n * 65_536),
    }
}

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

/// A field that has what is not allowed.
pub(super) fn wrong(field: &'static str, at: u64, message: String) -> Error {
    Error::corrupt(field, message).at(at)
}

/// `sectors` in bytes.
fn bytes_of(sectors: u64, field: &'static str, at: u64) -> Result<u64> {
    let bytes = sectors.checked_mul(SECTOR).filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| wrong(field, at, format!("found {sectors} sectors; no disk has as many")))
}

fn parse(disk: &dyn ReadAt, bytes: &[u8], version: Version, offset: u64) -> Result<Option<Superblock>> {
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
    let covered_len = u64::try_from(covered.len()).unwrap_or(u64::MAX);
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

pub(super) fn check_members(raid_disks: u32, at: u64) -> Result<()> {
    match usize::try_from(raid_disks).ok() {
        Some(1..=MD_MEMBERS_MAX) => Ok(()),
        Some(0) => Err(wrong("md.raid_disks", at, "found 0; an array has at least one member".into())),
        _ => {
            let message = format!("found {raid_disks} members; {MD_MEMBERS_MAX} are allowed");
            Err(Error::limit("md.raid_disks", message).at(at))
        }
    }
}

/// The sum of all words and of half a word that may be left, its own word taken for 0, with the carries added.
fn checksum(bytes: &[u8]) -> u32 {
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let sum: u64 = bytes.chunks(4).enumerate().filter(|(n, _)| *n != 54).map(|(_, b)| word(b)).sum();
    // As the kernel has it, a carry of that addition is lost.
    u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).unwrap_or(0)
}

/// The list of bad blocks: 54 bits of a sector of the member, and 10 of a length; all ones end it.
fn bad_blocks(disk: &dyn ReadAt, raw: &Raw, offset: u64) -> Result<Vec<BadBlocks>> {
    let sectors = raw.bblog_size.get();
    let size = usize::from(sectors) * 512;
    if size > MD_BAD_BLOCKS_SIZE_MAX {
        let message = format!("found {sectors} sectors; {} are allowed", MD_BAD_BLOCKS_SIZE_MAX / 512);
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
