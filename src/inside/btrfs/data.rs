//! btrfs: the data of files, against the checksum tree.
//!
//! An item of type 128 has the checksums of the sectors from its key's offset on, packed. They rise with the logical bytes,
//! so that the data is read in its order.

use blake2::Blake2b;
use digest::Digest;
use digest::consts::U32;
use sha2::Sha256;

use super::tree::Fs;
use crate::error::ErrorKind;
use crate::io::ReadAt;
use crate::limits::INSIDE_FINDINGS_MAX;
use crate::num::{at_most, to_u64, to_usize};

/// How much of the data is read at once.
const RUN: u64 = 1 << 20;

/// The bytes that a checksum of a type has; `None` where it is not known.
fn checksum_len(csum_type: u16) -> Option<usize> {
    match csum_type {
        0 => Some(4),
        1 => Some(8),
        2 | 3 => Some(32),
        _ => None,
    }
}

fn is_right(csum_type: u16, sector: &[u8], stored: &[u8]) -> bool {
    match csum_type {
        0 => crc32c::crc32c(sector).to_le_bytes() == stored,
        1 => twox_hash::XxHash64::oneshot(0, sector).to_le_bytes() == stored,
        2 => Sha256::digest(sector)[..] == *stored,
        _ => Blake2b::<U32>::digest(sector)[..] == *stored,
    }
}

/// Sectors that are not as their checksums say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub logical: u64,
    pub len: u64,
    /// Where this copy lies.
    pub place: u64,
    /// No copy of them on this device is right.
    pub is_lost: bool,
    /// Which subvolume and inode have them.
    pub owner: Option<(u64, u64)>,
    /// That file shows them, and has not only the extent that they are in.
    pub is_shown: bool,
}

/// What the checksums of the data come to.
#[derive(Default)]
pub(super) struct Data {
    pub verified: u64,
    pub bad: Vec<Bad>,
    /// How many more there are.
    pub more: u64,
    /// Data that lies where this device has none of it.
    pub elsewhere: u64,
    /// Data behind the end of the disk, or beyond what a look reads.
    pub left_out: u64,
    buffers: Vec<Vec<u8>>,
}

impl Data {
    /// Checks the sectors of an item. Gives how many bytes of data it covers.
    pub(super) fn item(&mut self, fs: &Fs<'_>, start: u64, sums: &[u8]) -> u64 {
        let csum_type = fs.superblock.csum_type();
        let sector = fs.sector();
        let Some(size) = checksum_len(csum_type) else { return 0 };
        let per_run = at_most(RUN.checked_div(sector).unwrap_or(1).max(1), usize::MAX);
        let mut logical = start;
        let mut rest = sums;
        // Each step takes one sector at least.
        while rest.len() >= size && !fs.look.is_cancelled() {
            let all = rest.len().checked_div(size).unwrap_or(0).min(per_run);
            let (places, left) = fs.places(logical).unwrap_or((Vec::new(), sector));
            let count = all.min(at_most(left.checked_div(sector).unwrap_or(1).max(1), all));
            let (now, behind) = rest.split_at(count.saturating_mul(size).min(rest.len()));
            let len = to_u64(count).saturating_mul(sector);
            if places.is_empty() {
                self.elsewhere = self.elsewhere.saturating_add(len);
            } else {
                self.run(fs, (logical, sector), &places, (now, size));
            }
            rest = behind;
            logical = logical.saturating_add(len);
        }
        logical.saturating_sub(start)
    }

    /// Checks all copies of some sectors.
    fn run(&mut self, fs: &Fs<'_>, (logical, sector): (u64, u64), places: &[u64], (sums, size): (&[u8], usize)) {
        let csum_type = fs.superblock.csum_type();
        let count = sums.len().checked_div(size).unwrap_or(0);
        let Ok(sector_len) = to_usize(sector) else { return };
        self.buffers.resize_with(places.len().max(self.buffers.len()), Vec::new);
        let mut right = vec![vec![false; count]; places.len()];
        for ((place, buffer), right) in places.iter().zip(&mut self.buffers).zip(&mut right) {
            buffer.resize(count.saturating_mul(sector_len), 0);
            // That the disk ends there has been said.
            let end = place.saturating_add(to_u64(buffer.len()));
            match fs.look.disk().read_exact_at(buffer, *place) {
                Ok(()) => {
                    let sectors = buffer.chunks_exact(sector_len).zip(sums.chunks_exact(size));
                    right.iter_mut().zip(sectors).for_each(|(right, (s, sum))| *right = is_right(csum_type, s, sum));
                }
                Err(e)
                    if end > fs.look.len() || matches!(e.kind(), ErrorKind::LimitExceeded | ErrorKind::Cancelled) =>
                {
                    self.left_out = self.left_out.saturating_add(to_u64(buffer.len()));
                    return;
                }
                // What cannot be read is as bad.
                Err(_) => {}
            }
        }
        let good: u64 = right.iter().map(|copy| to_u64(copy.iter().filter(|right| **right).count())).sum();
        self.verified = self.verified.saturating_add(good.saturating_mul(sector));
        for (place, copy) in places.iter().zip(&right) {
            for n in copy.iter().enumerate().filter(|(_, right)| !**right).map(|(n, _)| n) {
                let is_lost = right.iter().all(|copy| copy.get(n) != Some(&true));
                let within = to_u64(n).saturating_mul(sector);
                let bad = Bad {
                    logical: logical.saturating_add(within),
                    len: sector,
                    place: place.saturating_add(within),
                    is_lost,
                    owner: None,
                    is_shown: false,
                };
                self.take(bad);
            }
        }
    }

    fn take(&mut self, bad: Bad) {
        if let Some(last) = self.bad.last_mut()
            && (last.logical.saturating_add(last.len), last.place.saturating_add(last.len)) == (bad.logical, bad.place)
            && last.is_lost == bad.is_lost
        {
            last.len = last.len.saturating_add(bad.len);
        } else if self.bad.len() < INSIDE_FINDINGS_MAX {
            self.bad.push(bad);
        } else {
            self.more = self.more.saturating_add(1);
            // What is lost must not be left out for what is not.
            if bad.is_lost
                && let Some(other) = self.bad.iter_mut().rev().find(|other| !other.is_lost)
            {
                *other = bad;
            }
        }
    }
}
