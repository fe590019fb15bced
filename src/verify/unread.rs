//! Bytes of plaintext that nobody read: what stands for them is neither data nor zeroes, and proves nothing.

use std::ops::Range;
use std::sync::Arc;

use super::patient::Patient;
use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt};
use crate::num::to_u64;
use crate::volume::Volume;

/// A plaintext, and the reader below it that passes over what cannot be read.
#[derive(Clone)]
pub struct Plaintext {
    pub volume: Arc<Volume>,
    pub data: Arc<Patient>,
}

impl Plaintext {
    /// The parts of a range that was read, in their order, for which something stands in.
    pub fn unread(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let bad = self.volume.bad_sectors();
        let mut all = bad.stand_ins(range.clone());
        if self.data.unread().is_some() {
            let mut at = range.start;
            while at < range.end {
                match self.volume.locate(at) {
                    Ok(Some((stored, run))) if run > 0 => {
                        let len = run.min(range.end.saturating_sub(at));
                        let lost = self.data.unread_in(&(stored..stored.saturating_add(len)));
                        all.extend(lost.iter().map(|lost| self.sectors(lost, stored, at, &range)));
                        at = at.saturating_add(len);
                    }
                    // Under dm-integrity, what was not read has no right tag.
                    _ => {
                        all.extend(bad.within(at..range.end, |_| true));
                        break;
                    }
                }
            }
        }
        joined(all)
    }

    /// The sectors of plaintext that lost bytes of the data are part of, where byte `stored` of it is byte `at`.
    fn sectors(&self, lost: &Range<u64>, stored: u64, at: u64, range: &Range<u64>) -> Range<u64> {
        let sector = u64::from(self.volume.sector_size()).max(1);
        let place = |byte: u64| at.saturating_add(byte.saturating_sub(stored));
        let (start, end) = (place(lost.start), place(lost.end));
        let start = start.saturating_sub(start.checked_rem(sector).unwrap_or(0));
        let end = end.checked_next_multiple_of(sector).unwrap_or(end);
        start.max(range.start)..end.min(range.end)
    }
}

/// Reads what was read, and refuses what stands for other bytes: a file with some of them has no hash.
impl ReadAt for Plaintext {
    fn len(&self) -> u64 {
        self.volume.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.volume.read_exact_at(buf, offset)?;
        let unread = self.unread(offset..offset.saturating_add(to_u64(buf.len())));
        let Some(first) = unread.first() else { return Ok(()) };
        let len = first.end.saturating_sub(first.start);
        let message = format!("{len} bytes of plaintext from byte {} on cannot be read", first.start);
        Err(Error::corrupt("unreadable", message))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.volume.extent_at(offset)
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.volume.will_need(offset, len);
    }

    fn wont_need(&self, offset: u64, len: u64) {
        self.volume.wont_need(offset, len);
    }
}

/// In their order, each byte once.
fn joined(mut all: Vec<Range<u64>>) -> Vec<Range<u64>> {
    all.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in all {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// How many bytes of a range are in ranges that do not overlap.
pub fn overlap(ranges: &[Range<u64>], range: &Range<u64>) -> u64 {
    let part = |other: &Range<u64>| other.end.min(range.end).saturating_sub(other.start.max(range.start));
    ranges.iter().map(part).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_counts_once() {
        let all = joined(vec![8..12, 0..4, 2..6, 6..7]);
        assert_eq!(all, [0..7, 8..12]);
        assert_eq!((overlap(&all, &(3..10)), overlap(&all, &(12..20))), (6, 0));
    }
}
