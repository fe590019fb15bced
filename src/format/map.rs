//! What all containers have in common: a table that says where each part of the disk lies in the file.
//!
//! A format gives a [`Layout`]; [`Mapped`] makes positioned reads of it. So bounds, zeroes, truncated files and unpacking
//! are seen to in one place.

use std::sync::Arc;

use super::below::Below;
use super::cache::Cache;
use crate::error::{Condition, Error, Result};
use crate::io::{Extent, ReadAt, check_range};
use crate::num::{to_u64, to_usize};

/// Where a run of the disk's bytes lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it reads as zeroes.
    Zero,
    /// At the same place of the disk below, or nowhere if there is none.
    Below,
    /// In the file as it is, from this byte on.
    Stored(u64),
    /// In the compressed unit that the layout knows by this number, after `skip` bytes of what it unpacks to.
    Packed { unit: u64, skip: u64 },
}

/// A run of the disk's bytes that lie in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// How many bytes; never 0.
    pub len: u64,
    pub place: Place,
}

/// A format's tables.
pub(super) trait Layout: Send + Sync {
    /// The size of the disk in bytes.
    fn size(&self) -> u64;

    /// The file that [`Place::Stored`] counts in.
    fn file(&self) -> &dyn ReadAt;

    /// The run that starts at `offset`, which is below [`Layout::size`]. A layout may stop looking for more once it has
    /// `wanted` bytes, so that a small read does not walk a large table.
    fn run_at(&self, offset: u64, wanted: u64) -> Result<Run>;

    /// The disk of the parent; `None` where the image has none.
    fn below(&self) -> Option<&Below> {
        None
    }

    /// The bytes of a compressed unit. A format that has none never places a run in one.
    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        Err(Error::corrupt("container.unit", format!("compressed unit {unit} of a format that has none")))
    }

    /// The size in bytes that most compressed units unpack to.
    fn unit_size(&self) -> u64 {
        64 << 10
    }
}

/// The run at `offset`, kept to the disk's size, and to what the file really holds.
pub(super) fn run_within(layout: &(impl Layout + ?Sized), offset: u64, wanted: u64) -> Result<Run> {
    let rest = layout.size().saturating_sub(offset);
    let mut run = layout.run_at(offset, wanted.min(rest))?;
    run.len = run.len.min(rest);
    if run.place == Place::Below && layout.below().is_none() {
        run.place = Place::Zero;
    }
    if let Place::Stored(at) = run.place {
        let held = layout.file().len().saturating_sub(at);
        if held == 0 {
            return Err(truncated(offset, at, layout.file().len()));
        }
        run.len = run.len.min(held);
    }
    if run.len == 0 {
        // No layout gives an empty run; this keeps every loop over runs finite all the same.
        return Err(Error::corrupt("container.map", "the image's tables map no byte").at(offset));
    }
    Ok(run)
}

/// The error for byte `offset` of the disk, which lies at byte `at` of a file that has only `len`.
pub(super) fn truncated(offset: u64, at: u64, len: u64) -> Error {
    let message = format!("byte {offset} of the disk is said to lie at byte {at}, but the file ends at byte {len}");
    Error::corrupt("container.truncated", message)
        .at(at)
        .with_condition(Condition::TableBeyondEnd)
        .with_hint("the image file is cut off or damaged: fetch it again")
}

/// A layout as a source of the disk's bytes.
pub(super) struct Mapped<L> {
    layout: L,
    units: Cache<Arc<Vec<u8>>>,
}

impl<L: Layout> Mapped<L> {
    pub(super) fn new(layout: L) -> Self {
        let units = Cache::for_size(layout.unit_size());
        Self { layout, units }
    }
}

/// The most table look-ups that one question for an extent makes.
const EXTENT_RUNS_MAX: usize = 1024;

impl<L: Layout> ReadAt for Mapped<L> {
    fn len(&self) -> u64 {
        self.layout.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        let mut rest = buf;
        let mut offset = offset;
        while !rest.is_empty() {
            let wanted = to_u64(rest.len());
            let run = run_within(&self.layout, offset, wanted)?;
            let len = run.len.min(wanted);
            let (part, more) = rest.split_at_mut(to_usize(len)?);
            match run.place {
                Place::Zero => part.fill(0),
                Place::Below => match self.layout.below() {
                    Some(below) => below.read(part, offset)?,
                    None => part.fill(0),
                },
                Place::Stored(at) => self.layout.file().read_exact_at(part, at)?,
                Place::Packed { unit, skip } => {
                    let unpacked = self.units.get_or_make(unit, || {
                        self.layout
                            .unpack(unit)
                            .map(Arc::new)
                            .map_err(|e| e.within(format!("byte {offset} of the disk")))
                    })?;
                    unpacked.read_exact_at(part, skip).map_err(|_| {
                        Error::corrupt(
                            "container.unit",
                            format!(
                                "byte {offset} of the disk: a compressed unit unpacks to {} bytes, too few",
                                unpacked.len()
                            ),
                        )
                    })?;
                }
            }
            rest = more;
            offset = offset.saturating_add(len);
        }
        Ok(())
    }

    #[expect(clippy::arithmetic_side_effects, reason = "`run_within` gives no run that reaches beyond the disk")]
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let zero_at = |at| {
            let run = run_within(&self.layout, at, u64::MAX)?;
            match (run.place, self.layout.below()) {
                (Place::Below, Some(below)) => below.extent(at, run.len).map(|extent| (extent.len, extent.zero)),
                (place, _) => Ok::<_, Error>((run.len, place == Place::Zero)),
            }
        };
        let (mut len, zero) = zero_at(offset)?;
        for _ in 1..EXTENT_RUNS_MAX {
            if offset + len >= self.len() {
                break;
            }
            // What cannot be looked up ends the extent: the error comes to whoever reads there.
            match zero_at(offset + len) {
                Ok((more, same)) if same == zero => len += more,
                _ => break,
            }
        }
        Ok(Extent { len, zero })
    }

    fn will_need(&self, offset: u64, len: u64) {
        let len = len.min(self.len().saturating_sub(offset));
        match run_within(&self.layout, offset, len) {
            _ if len == 0 => {}
            Ok(Run { len: held, place: Place::Stored(at) }) => self.layout.file().will_need(at, len.min(held)),
            Ok(Run { len: held, place: Place::Below }) => {
                if let Some(below) = self.layout.below() {
                    below.will_need(offset, len.min(held));
                }
            }
            _ => {}
        }
    }
}
