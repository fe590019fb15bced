//! Where bytes of the data come out in the plaintext, and where they come from.

use std::ops::Range;

use super::report::Finding;
use crate::io::ReadAt;
use crate::volume::Volume;

/// How many segments are gone through.
const SEGMENTS_MAX: usize = 1024;

/// Says where in the file lies what is at a place of the plaintext.
pub fn of_plaintext(volume: &Volume, findings: &mut [Finding]) {
    for finding in findings.iter_mut().filter(|finding| finding.image_offset.is_none()) {
        let at = finding.plaintext_offset.and_then(|offset| volume.locate(offset).ok()?);
        finding.image_offset = at.map(|(at, _)| at);
    }
}

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
