//! Where md's superblocks lie, and which of several counts.
//!
//! Version 1.0 lies 8 to 12 KiB before the end of a member, 1.1 at its start, 1.2 at 4 KiB, and 0.90 64 to 128 KiB before
//! the end.

use crate::error::{Error, ErrorKind, Result};
use crate::io::ReadAt;
use crate::limits::MD_SUPERBLOCK_SIZE;
use crate::num::at_most;

use super::superblock::{SECTOR, Superblock, Version};
use super::{v0, v1};

impl Superblock {
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
        let there = at_most(disk.len().saturating_sub(offset), bytes.len());
        // A disk may end within the 4 KiB that are read, but not within the superblock.
        disk.read_exact_at(&mut bytes[..there], offset)
            .map_err(|e| e.within("reading the place of an md superblock"))?;
        match version {
            Version::V0_90 => v0::parse(&bytes, offset),
            _ => v1::parse(disk, &bytes, version, offset),
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
