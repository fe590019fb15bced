//! md's superblock of version 0.90: 1024 words of 32 bits, in the byte order of the machine that made it.
//!
//! | words | field | words | field |
//! |---|---|---|---|
//! | 0 | md_magic, 0xa92b4efc, which tells the byte order | 33 | state: bit 0 clean, bit 8 a bitmap |
//! | 1, 2 | major_version 0, minor_version 90; 91 while reshaping | 38 | sb_csum |
//! | 5, 13, 14, 15 | set_uuid | 39, 40 | events: the low word first on little-endian machines |
//! | 6 | ctime | 41, 42 | cp_events, likewise |
//! | 7 | level | 43 | recovery_cp, in sectors |
//! | 8 | size in KiB | 64, 65 | layout, chunk_size in bytes |
//! | 10 | raid_disks | 128.. | 27 descriptors of 32 words: number, major, minor, raid_disk, state |
//! | | | 992.. | this_disk, such a descriptor |
//!
//! The data begins at byte 0 and ends where the superblock begins.

use crate::error::{Error, Result, counted};

use super::superblock::{Level, MAGIC, Role, SECTOR, SetUuid, Superblock, Version, check_members, wrong};

/// `MD_SB_DISKS`.
const DISKS: u32 = 27;

const STATE_CLEAN: u32 = 1;
const STATE_BITMAP: u32 = 1 << 8;

const DISK_FAULTY: u32 = 1;
const DISK_SYNC: u32 = 1 << 2;
const DISK_JOURNAL: u32 = 1 << 18;

/// The most that a member's size in this version can say for the levels that use it (`super_90_load`).
const DATA_MAX: u64 = ((2 << 32) - 2) * SECTOR;

/// The words of a superblock, and the order of the two halves of a long number.
struct Words {
    words: Vec<u32>,
    big_endian: bool,
}

impl Words {
    fn new(bytes: &[u8]) -> Option<Self> {
        let read =
            |of: fn([u8; 4]) -> u32| bytes.chunks_exact(4).map(|b| of([b[0], b[1], b[2], b[3]])).collect::<Vec<_>>();
        let little = read(u32::from_le_bytes);
        match little.first().copied()? {
            MAGIC => Some(Self { words: little, big_endian: false }),
            other if other == MAGIC.swap_bytes() => Some(Self { words: read(u32::from_be_bytes), big_endian: true }),
            _ => None,
        }
    }

    fn get(&self, n: usize) -> u32 {
        self.words.get(n).copied().unwrap_or(0)
    }

    fn long(&self, n: usize) -> u64 {
        let (first, second) = (u64::from(self.get(n)), u64::from(self.get(n + 1)));
        if self.big_endian { first << 32 | second } else { second << 32 | first }
    }

    /// The sum of all words but its own, with the carries added, and folded to 16 bits: some machines only kept these.
    fn checksum_is_right(&self) -> bool {
        let sum: u64 = self.words.iter().enumerate().filter(|(n, _)| *n != 38).map(|(_, word)| u64::from(*word)).sum();
        let fold = |sum: u64| {
            let once = ((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff;
            let half = (once & 0xffff) + (once >> 16);
            (half & 0xffff) + (half >> 16)
        };
        fold(sum) == fold(self.get(38).into())
    }

    fn role(&self, number: u32) -> Role {
        let at = usize::try_from(number).map_or(usize::MAX, |n| n.saturating_mul(32).saturating_add(128));
        let (raid_disk, state) = (self.get(at.saturating_add(3)), self.get(at.saturating_add(4)));
        match state {
            s if s & DISK_FAULTY != 0 => Role::Faulty,
            s if s & DISK_JOURNAL != 0 => Role::Journal,
            s if s & DISK_SYNC != 0 => Role::Member(raid_disk),
            // A spare; or, with bit 1 alone, one that is in its place, but not in sync.
            _ => Role::Spare,
        }
    }
}

/// The superblock in `bytes`, which lie at `offset`.
pub(super) fn parse(bytes: &[u8], offset: u64) -> Result<Option<Superblock>> {
    let Some(words) = Words::new(bytes) else { return Ok(None) };
    let minor = words.get(2);
    if words.get(1) != 0 {
        return Ok(None);
    }
    let field = |n: u64| offset + n * 4;
    if !words.checksum_is_right() {
        let message = format!("found {:#010x}, which is not the superblock's checksum", words.get(38));
        return Err(wrong("md.sb_csum", field(38), message));
    }
    if !matches!(minor, 90 | 91) {
        return Err(Error::unsupported("md.minor_version", format!("found 0.{minor}; 0.90 is read")).at(field(2)));
    }
    let raid_disks = words.get(10);
    check_members(raid_disks, field(10))?;
    if raid_disks > DISKS {
        let message = format!("found {}; version 0.90 has {DISKS} at most", counted(raid_disks, "member"));
        return Err(wrong("md.raid_disks", field(10), message));
    }
    let level = Level::from_number(i32::from_ne_bytes(words.get(7).to_ne_bytes()));
    let by_level = !matches!(level, Level::Linear | Level::Raid0);
    let data_size = if by_level { offset.min(DATA_MAX) } else { offset };
    let size = u64::from(words.get(8)) * 1024;
    if by_level && size > data_size {
        let message = format!("found {size} bytes; the member has {data_size} before its superblock");
        return Err(wrong("md.size", field(8), message));
    }
    let mut uuid = [0; 16];
    for (part, n) in uuid.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        part.copy_from_slice(&words.get(n).to_be_bytes());
    }
    let (events, cp_events) = (words.long(39), words.long(41));
    let resync_offset = if words.get(33) & STATE_CLEAN != 0 {
        None
    } else if events == cp_events {
        Some(u64::from(words.get(43)) * SECTOR)
    } else {
        Some(0)
    };
    Ok(Some(Superblock {
        version: Version::V0_90,
        offset,
        set_uuid: SetUuid(uuid),
        name: String::new(),
        ctime: words.get(6).into(),
        level,
        layout: (level != Level::Raid0).then(|| words.get(64)),
        chunk: u64::from(words.get(65)) / SECTOR * SECTOR,
        raid_disks,
        size,
        data_offset: 0,
        data_size,
        events,
        resync_offset,
        dev_number: words.get(992),
        device_uuid: None,
        roles: (0..DISKS).map(|n| words.role(n)).collect(),
        recovery_offset: None,
        reshape: minor == 91,
        journal: false,
        bitmap: words.get(33) & STATE_BITMAP != 0,
        ppl: false,
        replacement: false,
        bad_blocks: Vec::new(),
        notes: Vec::new(),
    }))
}
