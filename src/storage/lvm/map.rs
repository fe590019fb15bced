//! A logical volume as bytes: its segments, and where each of them keeps what it holds.

use std::fmt;

use super::snapshot::Snapshot;
use super::stripe::{Area, Striped, split_at_most};
use super::thin::Thin;
use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt, check_range};

/// The bytes of a logical volume, at any position.
///
/// A read goes once to each run of bytes that lies together; there is no lock, and nothing is cached.
pub struct LogicalVolume {
    pub(super) name: String,
    pub(super) len: u64,
    /// Without a gap, from 0 to `len`.
    pub(super) segments: Vec<Segment>,
    pub(super) notes: Vec<String>,
}

/// A run of the volume.
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) target: Target,
}

/// Where the bytes of a segment are.
pub(super) enum Target {
    Linear(Area),
    Striped(Striped),
    Snapshot(Snapshot),
    Thin(Thin),
    Zero,
}

impl Target {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self {
            Self::Linear(area) => area.source.read_exact_at(buf, area.start + offset),
            Self::Striped(striped) => striped.read(buf, offset),
            Self::Snapshot(snapshot) => snapshot.read(buf, offset),
            Self::Thin(thin) => thin.read(buf, offset),
            Self::Zero => {
                buf.fill(0);
                Ok(())
            }
        }
    }

    /// What lies at `offset` of a segment of `len` bytes.
    fn extent(&self, offset: u64, len: u64) -> Result<Extent> {
        match self {
            Self::Linear(area) => area.source.extent_at(area.start + offset),
            Self::Striped(striped) => striped.extent(offset, len),
            Self::Snapshot(snapshot) => snapshot.extent(offset),
            Self::Thin(thin) => thin.extent(offset),
            Self::Zero => Ok(Extent { len: len - offset, zero: true }),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        match self {
            Self::Linear(area) => area.source.will_need(area.start + offset, len),
            Self::Striped(striped) => striped.advise(offset, len, |source, at, len| source.will_need(at, len)),
            // Where these keep what is asked for takes reads to find out.
            Self::Snapshot(_) | Self::Thin(_) | Self::Zero => (),
        }
    }

    fn wont_need(&self, offset: u64, len: u64) {
        match self {
            Self::Linear(area) => area.source.wont_need(area.start + offset, len),
            Self::Striped(striped) => striped.advise(offset, len, |source, at, len| source.wont_need(at, len)),
            Self::Snapshot(_) | Self::Thin(_) | Self::Zero => (),
        }
    }
}

impl LogicalVolume {
    /// Its name, without that of its group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the user should know, one line each: legs that are not read, and what is assumed.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The segment that `offset` lies in, and where in it.
    fn segment(&self, offset: u64) -> Result<(&Segment, u64)> {
        let n = self.segments.partition_point(|segment| segment.start <= offset);
        let segment = n.checked_sub(1).and_then(|n| self.segments.get(n));
        let found = segment.map(|segment| (segment, offset - segment.start)).filter(|(s, inside)| *inside < s.len);
        found.ok_or_else(|| Error::invalid(format!("the volume ends at byte {}", self.len)).at(offset))
    }

    fn advise(&self, offset: u64, len: u64, advise: impl Fn(&Target, u64, u64)) {
        let end = offset.saturating_add(len).min(self.len);
        let mut at = offset;
        while at < end {
            let Ok((segment, inside)) = self.segment(at) else { return };
            let piece = (segment.len - inside).min(end - at);
            advise(&segment.target, inside, piece);
            at += piece;
        }
    }
}

impl fmt::Debug for LogicalVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalVolume").field("name", &self.name).field("len", &self.len).finish_non_exhaustive()
    }
}

impl ReadAt for LogicalVolume {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        while !buf.is_empty() {
            let (segment, inside) = self.segment(offset)?;
            let left = segment.len - inside;
            let (piece, rest) = split_at_most(buf, left);
            segment.target.read(piece, inside)?;
            buf = rest;
            offset += left;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (segment, inside) = self.segment(offset)?;
        let extent = segment.target.extent(inside, segment.len)?;
        Ok(Extent { len: extent.len.min(segment.len - inside), ..extent })
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, Target::will_need);
    }

    fn wont_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, Target::wont_need);
    }
}
