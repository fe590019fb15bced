//! Whether a keyslot's area still looks like what was written there.
//!
//! The key material of a keyslot is split and encrypted: every byte of it is as good as random. A sector that is zero,
//! that holds text, or whose bytes are spread unevenly was written by something else, and since the anti-forensic
//! splitter needs every bit of the material, no passphrase opens the slot any more.
//!
//! Two tests are made, both on how often each byte value occurs:
//!
//! | of | it fails where | chance that noise fails |
//! |---|---|---|
//! | a sector of 512 bytes | the counts' squares add up to 2300 or more (noise: 1534 ± 45) | 4 · 10⁻²², by exact enumeration |
//! | the material as a whole | Pearson's χ² with 255 degrees of freedom is 500 or more (noise: 255 ± 23) | 10⁻¹⁷ |
//!
//! So of 10¹⁸ intact keyslots of a 512-bit key, some ten are called overwritten. The first test finds what takes a
//! sector or more, and nearly always 40 equal bytes; the second finds compressed files and pictures, which pass for
//! noise in one sector but not in hundreds. What neither finds: a few changed bytes, and noise written over the noise
//! (a wipe with random bytes, another encrypted volume). An area without a finding may be damaged all the same.

use std::collections::BTreeMap;
use std::fmt;

use super::findings::{Finding, Severity};
use super::metadata::{Keyslot, KeyslotKind, Metadata};
use crate::error::Result;
use crate::error::counted;
use crate::io::ReadAt;
use crate::limits::{KEYSLOTS_MAX, STRIPES};
use crate::num::{at_most, to_u64};

/// Bytes that are judged together: the least that a disk writes, and the least that tells noise from other things.
const SECTOR: usize = 512;
/// Bytes that are read at a time.
const PIECE: usize = 128 * SECTOR;
/// The squares of a sector's 256 counts add up to less than this in noise.
const SECTOR_SQUARES: u64 = 2300;
/// Pearson's χ² of the whole material is less than this in noise.
const WHOLE_CHI_SQUARED: u64 = 500;

/// What stands in the place of a keyslot's key material.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overwritten {
    /// Sectors of 512 bytes that the key material takes.
    pub sectors: u64,
    /// How many of them are zero.
    pub zero: u64,
    /// How many repeat one byte that is not zero.
    pub constant: u64,
    /// How many hold text.
    pub text: u64,
    /// How many hold something else that is not noise.
    pub other: u64,
    /// Where in the header's file the first of them is, in bytes. `None` where no sector stands out, but the material
    /// as a whole is not noise.
    pub first: Option<u64>,
    /// What the first signature that was found belongs to, such as `an ext4 file system`.
    pub signature: Option<&'static str>,
}

impl fmt::Display for Overwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.first else {
            return f.write_str("its bytes are not spread evenly, as in a compressed file");
        };
        let sorts = [
            (self.zero, "zeroes"),
            (self.constant, "one repeated byte"),
            (self.text, "text"),
            (self.other, "other data that is no noise"),
        ];
        let said: Vec<_> = sorts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| (*n, *what)).collect();
        for (at, (n, what)) in said.iter().enumerate() {
            match at {
                0 => write!(f, "{n} of {} are {what}", counted(self.sectors, "sector"))?,
                _ => write!(f, ", {n} {what}")?,
            }
        }
        write!(f, ", from byte {first} on")?;
        match self.signature {
            Some(of) => write!(f, ", with the signature of {of}"),
            None => Ok(()),
        }
    }
}

/// Looks at the key material of a keyslot in `header`; `None` where it may well be what was written there, and for a
/// keyslot that holds none.
///
/// # Errors
/// As [`ReadAt::read_exact_at`].
pub fn check(header: &(impl ReadAt + ?Sized), keyslot: &Keyslot) -> Result<Option<Overwritten>> {
    if !matches!(keyslot.kind, KeyslotKind::Luks2(_)) {
        return Ok(None);
    }
    // What follows the material in its area was never written, and may be anything.
    let material = u64::from(keyslot.key_size).saturating_mul(u64::from(STRIPES)).min(keyslot.area.size);
    let sectors = material.checked_div(to_u64(SECTOR)).unwrap_or(0);
    let mut judged = Judged::default();
    let mut buf = vec![0u8; PIECE];
    let (mut at, mut left) = (keyslot.area.offset, sectors.saturating_mul(to_u64(SECTOR)));
    while left > 0 {
        let piece = &mut buf[..at_most(left, PIECE)];
        header.read_exact_at(piece, at)?;
        for sector in piece.chunks_exact(SECTOR) {
            judged.sector(sector, at);
            at = at.saturating_add(to_u64(SECTOR));
        }
        left = left.saturating_sub(to_u64(piece.len()));
    }
    Ok(judged.finish(sectors))
}

/// What there is to say about the areas of all keyslots that can be tried, the gravest first.
pub fn findings(header: &(impl ReadAt + ?Sized), metadata: &Metadata) -> Vec<Finding> {
    let mut all = Vec::new();
    for (id, keyslot) in metadata.keyslots.range(..KEYSLOTS_MAX) {
        let about = format!("keyslots.{id}");
        match check(header, keyslot) {
            Ok(None) => {}
            Ok(Some(overwritten)) => all.push(Finding {
                severity: Severity::Critical,
                code: "keyslot-overwritten",
                about,
                message: format!("its area looks overwritten: {overwritten}; no passphrase opens it any more"),
            }),
            Err(e) => all.push(Finding {
                severity: Severity::Warning,
                code: "keyslot-unreadable",
                about,
                message: format!("its area cannot be read: {e}"),
            }),
        }
    }
    all.sort_by_key(|f| std::cmp::Reverse(f.severity));
    all
}

/// Those of `keyslots` whose area looks overwritten, by number. What cannot be read is left out.
pub fn overwritten(
    header: &(impl ReadAt + ?Sized),
    metadata: &Metadata,
    keyslots: impl IntoIterator<Item = u32>,
) -> BTreeMap<u32, Overwritten> {
    let check = |id| Some((id, check(header, metadata.keyslots.get(&id)?).ok()??));
    keyslots.into_iter().filter_map(check).collect()
}

/// What was seen so far.
struct Judged {
    found: Overwritten,
    counts: [u64; 256],
}

impl Default for Judged {
    fn default() -> Self {
        Self { found: Overwritten::default(), counts: [0; 256] }
    }
}

impl Judged {
    #[expect(clippy::arithmetic_side_effects, reason = "counts of the bytes of an area of at most 128 MiB")]
    fn sector(&mut self, sector: &[u8], at: u64) {
        let mut counts = [0u64; 256];
        for byte in sector {
            counts[usize::from(*byte)] += 1;
        }
        for (sum, n) in self.counts.iter_mut().zip(&counts) {
            *sum += n;
        }
        if counts.iter().map(|n| n * n).sum::<u64>() < SECTOR_SQUARES {
            return;
        }
        let found = &mut self.found;
        found.first.get_or_insert(at);
        found.signature = found.signature.or_else(|| signature(sector));
        match sector.first() {
            Some(first) if sector.iter().all(|b| b == first) => match first {
                0 => found.zero += 1,
                _ => found.constant += 1,
            },
            _ if is_text(sector) => found.text += 1,
            _ => found.other += 1,
        }
    }

    #[expect(clippy::arithmetic_side_effects, reason = "an area of at most 128 MiB has squares below 2^64")]
    fn finish(self, sectors: u64) -> Option<Overwritten> {
        let bytes: u64 = self.counts.iter().sum();
        // χ² = 256 Σ n² / N − N.
        let squares = self.counts.iter().map(|n| u128::from(*n) * u128::from(*n)).sum::<u128>();
        let uneven = squares * 256 >= u128::from(bytes) * u128::from(bytes + WHOLE_CHI_SQUARED);
        let damaged = bytes > 0 && (self.found.first.is_some() || uneven);
        damaged.then_some(Overwritten { sectors, ..self.found })
    }
}

/// Nothing but printable characters and white space, seven of eight of them ASCII.
fn is_text(sector: &[u8]) -> bool {
    let control = |b: &u8| b.is_ascii_control() && !b.is_ascii_whitespace();
    let ascii = sector.iter().filter(|b| b.is_ascii()).count();
    !sector.iter().any(control) && ascii >= sector.len().saturating_sub(sector.len() / 8)
}

/// What a sector's signature belongs to.
fn signature(sector: &[u8]) -> Option<&'static str> {
    /// Where in a sector a signature lies.
    const KNOWN: &[(usize, &[u8], &str)] = &[
        (0, b"LUKS\xba\xbe", "a LUKS header"),
        (0, b"SKUL\xba\xbe", "a LUKS header"),
        (0, b"EFI PART", "a GPT"),
        (0, b"LABELONE", "an LVM physical volume"),
        (0, b"XFSB", "an XFS file system"),
        (0, b"hsqs", "a squashfs file system"),
        (0, b"\xfc\x4e\x2b\xa9", "a Linux RAID member"),
        (1, b"CD001", "an ISO 9660 file system"),
        (3, b"NTFS    ", "an NTFS file system"),
        (3, b"EXFAT   ", "an exFAT file system"),
        (3, b"-FVE-FS-", "a BitLocker volume"),
        (54, b"FAT1", "a FAT file system"),
        (82, b"FAT32", "a FAT file system"),
        (64, b"_BHRfS_M", "a btrfs file system"),
        (502, b"SWAPSPACE2", "swap space"),
        (510, b"\x55\xaa", "a boot sector"),
    ];
    let known = KNOWN.iter().find(|(at, magic, _)| sector.get(*at..).is_some_and(|s| s.starts_with(magic)));
    // ext4's magic has two bytes: revision and block size have to be as they can be, too.
    let ext = || {
        let number = |at: usize| {
            sector
                .get(at..)
                .and_then(|b| b.get(..4))
                .and_then(|b| b.try_into().ok())
                .map_or(u32::MAX, u32::from_le_bytes)
        };
        let ext = sector.get(56..58) == Some(&[0x53, 0xef]) && number(24) <= 6 && number(76) <= 1;
        ext.then_some("an ext4 file system")
    };
    known.map(|(_, _, of)| *of).or_else(ext)
}

#[cfg(test)]
mod tests;
