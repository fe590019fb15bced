//! Which legs of a RAID or a mirror hold what was last written: dm-raid's superblocks (Linux's `drivers/md/dm-raid.c`) and
//! the log of a mirror (`drivers/md/dm-log.c`). All numbers are little-endian.
//!
//! | superblock: the start of each leg's `rmeta` volume | | log: the start of the `mlog` volume | |
//! |---|---|---|---|
//! | 0..4 | `DmRd` | 0..4 | `rRiM` |
//! | 8..12, 12..16 | number of legs, this leg's number | 4..8 | version |
//! | 16..24 | events: how often the superblocks were written | 8..16 | number of regions |
//! | 24..32, 120..144 | a bit for each leg that has failed | 1024.. | a bit for each region that is in sync |
//! | 32..40 | up to where this leg was filled, in sectors | | |
//! | 48..52 | RAID level | | |
//! | 60..64 | flags: 1 a reshape is under way | | |
//! | 144..148 | features that must be known | | |

use crate::error::{Error, Result, counted};
use crate::io::ReadAt;
use crate::num::low_u32;

const MAGIC: u32 = 0x6452_6d44;
const LOG_MAGIC: u32 = 0x4d69_5272;
const LOG_VERSION: u32 = 2;
const LOG_BITS_AT: u64 = 1024;
/// The kernel reads no longer superblock, and this much of the log at a time.
const PIECE: usize = 4096;
/// The leg is filled to its end.
const FILLED: u64 = u64::MAX;

/// What a leg's superblock says.
#[derive(Clone, Debug)]
pub(super) struct Superblock {
    events: u64,
    failed: [u64; 4],
    filled: u64,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

impl Superblock {
    /// The superblock of a leg of `legs` at RAID `level`; `None` where the kernel has not written one yet.
    pub(super) fn read(meta: &dyn ReadAt, level: u32, legs: usize) -> Result<Option<Self>> {
        let mut bytes = [0; 512];
        meta.read_exact_at(&mut bytes, 0)?;
        if u32_at(&bytes, 0) != MAGIC {
            return Ok(None);
        }
        let (found, count) = (u32_at(&bytes, 48), u32_at(&bytes, 8));
        if found != level || usize::try_from(count) != Ok(legs) {
            let message = format!(
                "the superblock is of level {found} with {count} legs, the volume group's metadata says level {level} with {legs}"
            );
            return Err(Error::corrupt("lvm.raid.superblock", message));
        }
        let (flags, features) = (u32_at(&bytes, 60), u32_at(&bytes, 144));
        if flags & 1 != 0 || features != 0 {
            let message =
                format!("the superblock has flags {flags:#x} and features {features:#x}: a reshape is under way");
            return Err(Error::unsupported("lvm.raid.reshape", message));
        }
        let failed = [24, 120, 128, 136].map(|at| u64_at(&bytes, at));
        Ok(Some(Self { events: u64_at(&bytes, 16), failed, filled: u64_at(&bytes, 32) }))
    }
}

/// Why a leg's data are not taken.
pub(super) type Reason = &'static str;

/// For each leg why its data are not what was last written, or `None` where they are. `legs` has the superblocks of the
/// legs that are there.
pub(super) fn stale_legs(legs: &[Option<Option<Superblock>>]) -> Vec<Option<Reason>> {
    let newest = legs.iter().flatten().flatten().max_by_key(|superblock| superblock.events);
    let Some(newest) = newest else {
        // The kernel has never used it: all of its legs are alike.
        return legs.iter().map(|leg| leg.is_none().then_some("is not there")).collect();
    };
    let has_failed = |n: usize| newest.failed.get(n / 64).is_some_and(|bits| bits >> (n % 64) & 1 != 0);
    let reason = |(n, leg): (usize, &Option<Option<Superblock>>)| match leg {
        None => Some("is not there"),
        Some(None) => Some("has no superblock: it is new, and not filled"),
        Some(Some(_)) if has_failed(n) => Some("has failed, as another leg says"),
        Some(Some(leg)) if leg.filled != FILLED => Some("is not filled yet"),
        // The superblocks are written one after the other: a difference of one comes from a crash in between.
        Some(Some(leg)) if leg.events.saturating_add(1) < newest.events => Some("is older than another"),
        Some(Some(_)) => None,
    };
    legs.iter().enumerate().map(reason).collect()
}

/// Whether the log of a mirror says that all its regions are in sync.
pub(super) fn is_in_sync(log: &dyn ReadAt) -> Result<bool> {
    let mut header = [0; 512];
    log.read_exact_at(&mut header, 0)?;
    let (magic, version, regions) = (u32_at(&header, 0), u32_at(&header, 4), u64_at(&header, 8));
    if magic != LOG_MAGIC || version != LOG_VERSION {
        return Ok(false);
    }
    let room = log.len().saturating_sub(LOG_BITS_AT).saturating_mul(8);
    if regions > room {
        let message = format!("the mirror's log is for {}, and has room for {room}", counted(regions, "region"));
        return Err(Error::corrupt("lvm.mirror.log", message));
    }
    let mut at = LOG_BITS_AT;
    let mut left = regions;
    let mut piece = [0; PIECE];
    while left > 0 {
        let len = usize::try_from(left.div_ceil(8)).map_or(PIECE, |len| len.min(PIECE));
        log.read_exact_at(&mut piece[..len], at)?;
        for byte in &piece[..len] {
            let bits = left.min(8);
            let wanted = u8::MAX.checked_shr(low_u32(8 - bits)).unwrap_or(0);
            if byte & wanted != wanted {
                return Ok(false);
            }
            left -= bits;
            at += 1;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn meta(events: u64, failed: u64, filled: u64) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        bytes[..4].copy_from_slice(b"DmRd");
        bytes[8] = 3;
        bytes[48] = 1;
        for (at, number) in [(16, events), (24, failed), (32, filled)] {
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Superblock> {
        Superblock::read(&bytes.to_vec(), 1, 3).unwrap()
    }

    fn stale(legs: &[Option<Vec<u8>>]) -> Vec<&'static str> {
        let legs: Vec<_> = legs.iter().map(|leg| leg.as_deref().map(read)).collect();
        stale_legs(&legs).into_iter().map(|reason| reason.unwrap_or("")).collect()
    }

    #[test]
    fn legs_that_are_not_in_sync_are_left_out() {
        let good = || Some(meta(9, 0, FILLED));
        assert_eq!(stale(&[good(), good(), good()]), ["", "", ""]);
        assert_eq!(stale(&[None, good(), good()]), ["is not there", "", ""]);
        assert_eq!(stale(&[good(), Some(meta(9, 0, 500)), good()]), ["", "is not filled yet", ""]);
        assert_eq!(stale(&[good(), Some(meta(9, 0, 0)), good()]), ["", "is not filled yet", ""]);
        let failed = "has failed, as another leg says";
        assert_eq!(stale(&[good(), Some(meta(10, 1, FILLED)), good()]), [failed, "", ""]);
        assert_eq!(
            stale(&[Some(meta(8, 0, FILLED)), good(), Some(meta(7, 0, FILLED))]),
            ["", "", "is older than another"]
        );
        let new = "has no superblock: it is new, and not filled";
        assert_eq!(stale(&[Some(vec![0; 512]), good(), good()]), [new, "", ""]);
        assert_eq!(stale(&[Some(vec![0; 512]), Some(vec![0; 512]), None]), ["", "", "is not there"]);
    }

    #[test]
    fn a_superblock_of_another_set_is_refused() {
        let changed = |at: usize, to: u8| {
            let mut bytes = meta(9, 0, FILLED);
            bytes[at] = to;
            let e = Superblock::read(&bytes, 1, 3).unwrap_err();
            (e.kind(), e.message().to_owned())
        };
        let message = "the superblock is of level 10 with 3 legs, the volume group's metadata says level 1 with 3";
        assert_eq!(changed(48, 10), (ErrorKind::Corrupt, message.to_owned()));
        assert_eq!(changed(8, 2).0, ErrorKind::Corrupt);
        let message = "the superblock has flags 0x1 and features 0x0: a reshape is under way";
        assert_eq!(changed(60, 1), (ErrorKind::Unsupported, message.to_owned()));
        assert_eq!(changed(144, 1).0, ErrorKind::Unsupported);
    }

    #[test]
    fn a_log_is_in_sync_where_all_its_bits_are() {
        let log = |regions: u64, bits: &[u8]| {
            let mut bytes = vec![0; 2048];
            bytes[..8].copy_from_slice(b"rRiM\x02\0\0\0");
            bytes[8..16].copy_from_slice(&regions.to_le_bytes());
            bytes[1024..1024 + bits.len()].copy_from_slice(bits);
            bytes
        };
        assert!(is_in_sync(&log(11, &[255, 7])).unwrap());
        assert!(is_in_sync(&log(16, &[255, 255])).unwrap());
        assert!(!is_in_sync(&log(12, &[255, 7])).unwrap());
        assert!(!is_in_sync(&log(11, &[254, 255])).unwrap());
        assert!(!is_in_sync(&vec![0; 2048]).unwrap());
        assert!(is_in_sync(&log(8192, &[255; 1024])).unwrap());
        let e = is_in_sync(&log(8193, &[255; 1024])).unwrap_err();
        assert_eq!(e.message(), "the mirror's log is for 8193 regions, and has room for 8192");
    }
}
