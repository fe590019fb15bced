//! The list of sectors that could not be read when the image was made, in whose places it has zeroes.
//!
//! | | `error2` of version 1 | of version 2 |
//! |---|---|---|
//! | number of entries | 0..4 | 0..4 |
//! | Adler-32 of all before it | 516..520 | 16..20 |
//! | entries | from 520 on, 8 bytes each | from 32 on, 16 bytes each |
//! | an entry's first sector, and how many | 0..4, 4..8 | 0..8, 8..12 |
//!
//! Source: libewf, its documents of both formats.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U32, U64};

use crate::error::{Error, Result};
use crate::format::adler::check_adler32;
use crate::format::fields;
use crate::io::ReadAt;
use crate::limits::FORMAT_RUNS_MAX;
use crate::num::{to_u64, to_usize};

/// How the list lies.
#[derive(Clone, Copy)]
pub(in crate::format) struct Shape {
    checksum_at: u64,
    entries_at: u64,
    entry: u64,
    /// Bytes of an entry's first sector; those of the number of sectors come behind it.
    sector: usize,
}

pub(in crate::format) const VERSION_1: Shape = Shape { checksum_at: 516, entries_at: 520, entry: 8, sector: 4 };
pub(in crate::format) const VERSION_2: Shape = Shape { checksum_at: 16, entries_at: 32, entry: 16, sector: 8 };

/// The ranges of sectors of the list in the bytes from `at` to `end`.
pub(in crate::format) fn read(file: &Arc<dyn ReadAt>, at: u64, end: u64, shape: Shape) -> Result<Vec<Range<u64>>> {
    const RULE: &str = "ewf.error2";
    const WHAT: &str = "the list of read errors";
    check_adler32(file, at, at.saturating_add(shape.checksum_at), RULE, WHAT)?;
    let count: U32 = fields::read(file, at, RULE, WHAT)?;
    let (count, start) = (u64::from(count.get()), at.saturating_add(shape.entries_at));
    if count > to_u64(FORMAT_RUNS_MAX) {
        return Err(Error::limit(RULE, format!("found {count} ranges; {FORMAT_RUNS_MAX} are allowed")).at(at));
    }
    let len = count.saturating_mul(shape.entry);
    if start.saturating_add(len) > end {
        return Err(Error::corrupt(RULE, format!("{WHAT} has {count} entries, and no room for them")).at(at));
    }
    let mut bytes = vec![0; to_usize(len)?];
    fields::fill(file, &mut bytes, start, RULE, WHAT)?;
    let range = |entry: &[u8]| {
        let (first, rest) = entry.split_at_checked(shape.sector)?;
        let first = match U64::read_from_bytes(first) {
            Ok(first) => first.get(),
            Err(_) => U32::read_from_bytes(first).ok()?.get().into(),
        };
        let (sectors, _) = U32::read_from_prefix(rest).ok()?;
        Some(first..first.saturating_add(sectors.get().into()))
    };
    Ok(bytes.chunks_exact(to_usize(shape.entry)?).filter_map(range).collect())
}

/// The same in bytes.
pub(in crate::format) fn in_bytes(sectors: Vec<Range<u64>>, sector_size: u64) -> Vec<Range<u64>> {
    let place = |sector: u64| sector.saturating_mul(sector_size);
    sectors.into_iter().map(|range| place(range.start)..place(range.end)).collect()
}
