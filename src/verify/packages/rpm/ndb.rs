//! `Packages.db`: SUSE's own database of headers (rpm 4.18's `lib/backend/ndb/rpmpkg.c`). All numbers are little-endian.
//!
//! | file header, 32 bytes | | slot, 16 bytes, from byte 32 on | | header's frame | |
//! |---|---|---|---|---|---|
//! | 0..4 | `RpmP` | 0..4 | `Slot` | 0..4 | `BlbS` |
//! | 4..8 | version, 0 | 4..8 | the package's number | 4..8 | the package's number |
//! | 12..16 | pages of 4096 bytes with slots | 8..12 | place, in blocks of 16 bytes; 0 is free | 12..16 | bytes of the header behind it |
//! | | | 12..16 | blocks | end: 12 bytes | Adler-32, bytes of the header, `BlbE` |

use super::Source;
use crate::error::{Error, Result};
use crate::num::to_u64;

const BLOCK: u64 = 16;
const PAGE: u64 = 4096;

/// Gives `take` each header.
pub fn headers(
    source: &mut Source<'_, '_, '_, '_>,
    take: &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let wrong = |message: String| Error::corrupt("packages.rpm", message);
    let number = |bytes: &[u8], n: usize| bytes.as_chunks::<4>().0.get(n).map_or(0, |b| u32::from_le_bytes(*b));
    let header = source.read(0, 32)?;
    let version = number(&header, 1);
    if !header.starts_with(b"RpmP") || version != 0 {
        return Err(wrong(format!("it is no database RpmP of version 0, but of {version}")));
    }
    let end = u64::from(number(&header, 3)).saturating_mul(PAGE);
    if end > source.len() {
        return Err(wrong(format!("its slots end at byte {end}, and the file at {}", source.len())));
    }
    let mut at = 32;
    // No two slots have one header: what they have together is in the file.
    let mut left = source.len();
    while at < end {
        let slot = source.read(at, BLOCK)?;
        at = at.saturating_add(BLOCK);
        if !slot.starts_with(b"Slot") {
            return Err(wrong(format!("byte {} has no slot", at.saturating_sub(BLOCK))));
        }
        let package = number(&slot, 1);
        let place = u64::from(number(&slot, 2)).saturating_mul(BLOCK);
        if place == 0 {
            continue;
        }
        let blob = source.read(place, BLOCK)?;
        let len = u64::from(number(&blob, 3));
        let blocks = u64::from(number(&slot, 3));
        let fits = len.saturating_add(BLOCK).saturating_add(12) <= blocks.saturating_mul(BLOCK) && blocks != 0;
        left = left.checked_sub(len).ok_or_else(|| wrong("its headers are longer than the file".into()))?;
        if !blob.starts_with(b"BlbS") || number(&blob, 1) != package || !fits {
            return Err(wrong(format!("no header of package {package} is at byte {place}")));
        }
        let bytes = source.read(place, len.saturating_add(BLOCK))?;
        let tail_at = place.saturating_add(blocks.saturating_mul(BLOCK)).saturating_sub(12);
        let tail = source.read(tail_at, 12)?;
        let mut sum = adler2::Adler32::new();
        sum.write_slice(&bytes);
        // What pads the last block is under the checksum, too.
        let behind = place.saturating_add(to_u64(bytes.len()));
        sum.write_slice(&source.read(behind, tail_at.saturating_sub(behind))?);
        if number(&tail, 0) != sum.checksum() || tail.get(8..) != Some(b"BlbE") {
            return Err(wrong(format!("the header of package {package} has another Adler-32")));
        }
        take(source, bytes.get(16..).unwrap_or_default().to_vec())?;
    }
    Ok(())
}
