//! What an image says that it lacks: reading it is an error, for what stands in its place, zeroes or a text, would decrypt to
//! noise that looks like data.

use std::ops::Range;
use std::sync::Arc;

use super::Format;
use crate::io::{ReadAt, RescueMap, Rescued};

/// Why sectors are lost.
pub(super) const UNREAD: &str = "could not be read when the image was made";

/// The disk without the ranges of `lost`, each with why it is so; they may be in any order.
pub(super) fn without(
    disk: Arc<dyn ReadAt>,
    format: Format,
    lost: impl IntoIterator<Item = (Vec<Range<u64>>, &'static str)>,
    notes: &mut Vec<String>,
) -> Arc<dyn ReadAt> {
    let mut all: Vec<Range<u64>> = Vec::new();
    for (mut ranges, why) in lost {
        ranges.retain(|range| !range.is_empty());
        let bytes = ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add);
        if bytes > 0 {
            notes.push(format!("{format}: {bytes} bytes {why}"));
        }
        all.append(&mut ranges);
    }
    if all.is_empty() {
        return disk;
    }
    all.sort_by_key(|range| range.start);
    let map = RescueMap::of_lost(0, disk.len(), all);
    Arc::new(Rescued::new(disk, map))
}
