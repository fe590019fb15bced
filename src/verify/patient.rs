//! A reader that goes on where bytes cannot be read: they are zeroes, and their places are kept.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::ranges::Ranges;
use crate::error::{ErrorKind, Result};
use crate::io::{Extent, Pipe, ReadAt, check_range};
use crate::num::{at_most, to_u64};

/// What fails is read again in blocks of this many bytes: the least that a disk loses.
const BLOCK: u64 = 4096;

/// A reader over `inner` that passes over what cannot be read.
pub struct Patient {
    inner: Arc<dyn ReadAt>,
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    ranges: Ranges,
    /// The first error, with its kind.
    first: Option<(u64, ErrorKind, String)>,
}

/// What could not be read.
pub struct Unread {
    /// The lowest ranges.
    pub ranges: Vec<Range<u64>>,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The error of the lowest.
    pub error: String,
    /// Whether the bytes are there and wrong by their format's own checks, rather than not to be read.
    pub is_damage: bool,
}

impl Patient {
    pub fn new(inner: Arc<dyn ReadAt>) -> Self {
        Self { inner, lost: Mutex::default() }
    }

    /// What could not be read so far; `None` where all could.
    pub fn unread(&self) -> Option<Unread> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, kind, error) = lost.first.clone()?;
        let (ranges, bytes) = lost.ranges.listed();
        Some(Unread { ranges, bytes, error, is_damage: kind == ErrorKind::Corrupt })
    }

    /// The parts of a range that could not be read so far.
    pub fn unread_in(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).ranges.within(range)
    }

    /// Reads what can be read of a range that as a whole cannot.
    fn read_blocks(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let (mut buf, mut at) = (buf, offset);
        while !buf.is_empty() {
            let to_border = BLOCK.saturating_sub(at.checked_rem(BLOCK).unwrap_or(0));
            let len = at_most(to_border, buf.len());
            let (now, rest) = std::mem::take(&mut buf).split_at_mut(len);
            let end = at.saturating_add(to_u64(now.len()));
            match self.inner.read_exact_at(now, at) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Corrupt) => {
                    now.fill(0);
                    let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
                    lost.ranges.add(at..end);
                    if lost.first.as_ref().is_none_or(|(first, ..)| at < *first) {
                        lost.first = Some((at, e.kind(), e.to_string()));
                    }
                }
                Err(e) => return Err(e),
            }
            (buf, at) = (rest, end);
        }
        Ok(())
    }
}

impl ReadAt for Patient {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn pipe(&self) -> Option<&Pipe> {
        self.inner.pipe()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        match self.inner.read_exact_at(buf, offset) {
            Err(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Corrupt) => self.read_blocks(buf, offset),
            other => other,
        }
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        // Holes only save time.
        self.inner.extent_at(offset).or_else(|_| Ok(Extent { len: self.len().saturating_sub(offset), zero: false }))
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.inner.will_need(offset, len);
    }

    fn wont_need(&self, offset: u64, len: u64) {
        self.inner.wont_need(offset, len);
    }
}
