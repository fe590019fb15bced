//! Where bytes of the data come out in the plaintext.

use std::ops::Range;

use crate::io::ReadAt;
use crate::volume::Volume;

/// How many segments are gone through.
const SEGMENTS_MAX: usize = 1024;

/// The plaintext's first byte that comes of a range of the data.
pub fn in_plaintext(volume: &Volume, range: &Range<u64>) -> Option<u64> {
    let mut offset = 0;
    for _ in 0..SEGMENTS_MAX {
        if offset >= volume.len() {
            return None;
        }
        let (at, run) = volume.locate(offset).ok()??;
        let first = range.start.max(at);
        if first < range.end && first < at.saturating_add(run) {
            return first.checked_sub(at)?.checked_add(offset);
        }
        offset = offset.checked_add(run.max(1))?;
    }
    None
}
