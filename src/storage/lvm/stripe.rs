//! Runs of other sources, one by one or in turn: linear segments, stripes, and RAID 0 and 10.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt};

/// How many chunks are looked at for one extent: chunks of 4 KiB would otherwise make a small extent each.
const EXTENT_CHUNKS: usize = 256;

/// A run of a physical volume, or of another logical one. Whoever makes one checks that it lies within its source.
pub(super) struct Area {
    pub(super) source: Arc<dyn ReadAt>,
    pub(super) start: u64,
}

/// Chunks in turn on each of the areas, each chunk on as many as there are copies: md's raid10 in its near layout, of
/// which stripes are the one with a single copy. An area that is not there has its chunks on others.
pub(super) struct Striped {
    areas: Vec<Option<Area>>,
    /// The number of areas.
    width: u64,
    chunk: u64,
    copies: u64,
}

impl Striped {
    /// `None` where a chunk has no area left that holds it.
    pub(super) fn new(areas: Vec<Option<Area>>, chunk: u64, copies: u64) -> Option<Self> {
        let width = u64::try_from(areas.len()).ok().filter(|width| *width > 0 && chunk > 0)?;
        let striped = Self { areas, width, chunk, copies };
        (0..width).all(|n| striped.find(n).is_some()).then_some(striped)
    }

    /// The area that holds chunk `n`, and where the chunk begins in its source.
    fn find(&self, n: u64) -> Option<(&Area, u64)> {
        let first = n.checked_mul(self.copies)?;
        (0..self.copies).find_map(|copy| {
            let place = first.checked_add(copy)?;
            let area = self.areas.get(usize::try_from(place % self.width).ok()?)?.as_ref()?;
            Some((area, area.start.checked_add((place / self.width).checked_mul(self.chunk)?)?))
        })
    }

    /// Where `offset` lies, and how much of its chunk is left.
    fn place(&self, offset: u64) -> Result<(&Area, u64, u64)> {
        let inside = offset % self.chunk;
        let found = self.find(offset / self.chunk);
        let (area, start) = found.ok_or_else(|| Error::corrupt("lvm.stripe", "a chunk has no place").at(offset))?;
        Ok((area, start + inside, self.chunk - inside))
    }

    pub(super) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let (area, at, left) = self.place(offset)?;
            let (piece, rest) = split_at_most(buf, left);
            area.source.read_exact_at(piece, at)?;
            buf = rest;
            offset += left;
        }
        Ok(())
    }

    /// What lies at `offset` of a segment of `len` bytes: chunks that read alike are one extent.
    pub(super) fn extent(&self, offset: u64, len: u64) -> Result<Extent> {
        let mut found: Option<Extent> = None;
        let mut at = offset;
        for _ in 0..EXTENT_CHUNKS {
            if at >= len {
                break;
            }
            let (area, place, left) = self.place(at)?;
            let piece = area.source.extent_at(place)?;
            let run = piece.len.min(left);
            match &mut found {
                None => found = Some(Extent { len: run, zero: piece.zero }),
                Some(extent) if extent.zero == piece.zero => extent.len += run,
                Some(_) => break,
            }
            if run < left {
                break;
            }
            at += run;
        }
        found.ok_or_else(|| Error::invalid("there are no bytes").at(offset))
    }

    /// Tells each area of its part of `len` bytes from `offset` on. It is told of whole chunks.
    pub(super) fn advise(&self, offset: u64, len: u64, tell: impl Fn(&dyn ReadAt, u64, u64)) {
        let Some(row) = self.chunk.checked_mul(self.width / self.copies.clamp(1, self.width)) else { return };
        let (first, last) = (offset / row, offset.saturating_add(len).div_ceil(row));
        for area in self.areas.iter().flatten() {
            tell(&*area.source, area.start + first * self.chunk, (last - first).saturating_mul(self.chunk));
        }
    }
}

/// The first `len` bytes of `buf`, or all where it has no more, and the rest.
pub(super) fn split_at_most(buf: &mut [u8], len: u64) -> (&mut [u8], &mut [u8]) {
    let len = usize::try_from(len).map_or(buf.len(), |len| len.min(buf.len()));
    buf.split_at_mut(len)
}
