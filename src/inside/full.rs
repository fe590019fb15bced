//! The full level: every structure that a file system has, and how much of the disk lies under a checksum.
//!
//! What is read is bounded by the disk: each block is gone into once, whatever points to it, and a budget of
//! [`INSIDE_FULL_READS`] times the disk's length stops what would read on all the same. What is kept is bounded by
//! [`INSIDE_CLAIMS_MAX`] and the limits beside it; what they leave out is said in a note.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;

use super::Contents;
use super::look::Metered;
use crate::error::{Error, Result};
use crate::io::ReadAt;
#[cfg(doc)]
use crate::limits::INSIDE_FULL_READS;
use crate::limits::{INSIDE_CLAIMS_MAX, INSIDE_PATH_DEPTH_MAX};
use crate::num::{at_most, to_u64};
use crate::progress::Progress;

/// A directory to be gone into, where it lies, and the one that it is in.
pub(super) struct Dir<At> {
    pub at: At,
    name: String,
    parent: Option<Rc<Self>>,
    depth: usize,
}

impl<At> Dir<At> {
    pub(super) fn root(at: At) -> Rc<Self> {
        Rc::new(Self { at, name: String::new(), parent: None, depth: 0 })
    }

    /// One in it; `None` where it would lie too deep.
    pub(super) fn child(self: &Rc<Self>, at: At, name: String) -> Option<Rc<Self>> {
        let depth = self.depth.checked_add(1).filter(|depth| *depth <= INSIDE_PATH_DEPTH_MAX)?;
        Some(Rc::new(Self { at, name, parent: Some(Rc::clone(self)), depth }))
    }

    pub(super) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Its path; nothing for the root.
    pub(super) fn path(&self) -> String {
        self.parent.as_ref().map_or(String::new(), |parent| format!("{}/{}", parent.path(), self.name))
    }
}

/// What a disk's bytes are, in bytes: their sum is its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Coverage {
    /// Under a checksum that was verified, and is right.
    pub verified: u64,
    /// In use, or not known to be free, and under no checksum that was verified.
    pub used_without_checksum: u64,
    /// Free, by what the file system says of itself.
    pub free: u64,
}

impl Coverage {
    /// Of a disk of `len` bytes, of which so many are verified and free, and all others are in use.
    pub(super) fn of(len: u64, verified: u64, free: u64) -> Self {
        let verified = verified.min(len);
        let free = free.min(len.saturating_sub(verified));
        Self { verified, free, used_without_checksum: len.saturating_sub(verified).saturating_sub(free) }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            verified: self.verified.saturating_add(other.verified),
            used_without_checksum: self.used_without_checksum.saturating_add(other.used_without_checksum),
            free: self.free.saturating_add(other.free),
        }
    }
}

impl Contents {
    /// Looks at all structures of a disk.
    ///
    /// # Errors
    /// As [`Contents::probe`]; [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) where somebody stopped it.
    pub fn check(disk: Arc<dyn ReadAt>, progress: &Progress) -> Result<Self> {
        let contents = super::probe(Metered::full(disk, progress.cancel_flag()), 0);
        if progress.is_cancelled() { Err(Error::cancelled()) } else { contents }
    }

    /// The coverage of the disk, or of its parts together; `None` where no part of it was looked at in full.
    pub fn coverage(&self) -> Option<Coverage> {
        if self.coverage.is_some() || self.parts.is_empty() {
            return self.coverage;
        }
        let of = |part: &super::Part| part.contents.as_ref().and_then(Self::coverage);
        let unknown = |len| Coverage { used_without_checksum: len, ..Coverage::default() };
        let known = self.parts.iter().any(|part| of(part).is_some());
        let all = self.parts.iter().map(|part| of(part).unwrap_or(unknown(part.len)));
        known.then(|| all.fold(Coverage::default(), Coverage::plus))
    }
}

const CHUNK_BITS: u64 = 1 << 18;
const WORD_BITS: u64 = 64;

/// Which blocks something has claimed. It grows with the blocks that are in use, not with the number that a superblock
/// says, up to [`INSIDE_CLAIMS_MAX`].
pub(super) struct Claims {
    chunks: HashMap<u64, Box<[u64]>>,
    /// How many bits may be set again and again before nothing more is taken.
    work: u64,
    is_full: bool,
}

impl Claims {
    /// For a disk of `blocks`.
    pub(super) fn new(blocks: u64) -> Self {
        let work = blocks.saturating_mul(4).saturating_add(CHUNK_BITS);
        Self { chunks: HashMap::new(), work, is_full: false }
    }

    /// Whether some claims were not kept.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Claims blocks. Gives the first of them that was claimed before.
    pub(super) fn claim(&mut self, start: u64, len: u64) -> Option<u64> {
        let Some(work) = self.work.checked_sub(len) else {
            self.is_full = true;
            return None;
        };
        self.work = work;
        let end = start.saturating_add(len);
        let (mut at, mut twice) = (start, None);
        while at < end {
            let (chunk, within) = (at / CHUNK_BITS, at % CHUNK_BITS);
            let room = to_u64(self.chunks.len()) < to_u64(INSIDE_CLAIMS_MAX) / (CHUNK_BITS / 8);
            if !room && !self.chunks.contains_key(&chunk) {
                self.is_full = true;
                return twice;
            }
            let words = at_most(CHUNK_BITS / WORD_BITS, usize::MAX);
            let bits = self.chunks.entry(chunk).or_insert_with(|| vec![0; words].into_boxed_slice());
            let low = within % WORD_BITS;
            let count = WORD_BITS.saturating_sub(low).min(end.saturating_sub(at));
            let mask = (u64::MAX >> WORD_BITS.saturating_sub(count)) << low;
            if let Some(word) = bits.get_mut(at_most(within / WORD_BITS, usize::MAX)) {
                if twice.is_none() && *word & mask != 0 {
                    let first = u64::from((*word & mask).trailing_zeros());
                    twice = Some(at.saturating_sub(low).saturating_add(first));
                }
                *word |= mask;
            }
            at = at.saturating_add(count);
        }
        twice
    }

    /// 64 bits from block `start` on, the first the lowest.
    pub(super) fn word(&self, start: u64) -> u64 {
        let aligned = |n: u64| {
            let chunk = self.chunks.get(&(n / (CHUNK_BITS / WORD_BITS)));
            let at = at_most(n % (CHUNK_BITS / WORD_BITS), usize::MAX);
            chunk.and_then(|chunk| chunk.get(at)).copied().unwrap_or(0)
        };
        let (n, low) = (start / WORD_BITS, start % WORD_BITS);
        match low {
            0 => aligned(n),
            _ => aligned(n) >> low | aligned(n.saturating_add(1)) << WORD_BITS.saturating_sub(low),
        }
    }
}

/// The bits of a bitmap in words of 64, the first `count` of them; the number of the first bit with each.
pub(super) fn words(bitmap: &[u8], count: u64) -> impl Iterator<Item = (u64, u64)> {
    bitmap.chunks(8).zip(0u64..).map_while(move |(bytes, n)| {
        let first = n.saturating_mul(WORD_BITS);
        let left = count.checked_sub(first).filter(|left| *left > 0)?;
        let mut all = [0; 8];
        all.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let mask = u64::MAX >> WORD_BITS.saturating_sub(left.min(WORD_BITS));
        Some((first, u64::from_le_bytes(all) & mask))
    })
}

/// The numbers of the bits that are set.
pub(super) fn set_bits(bitmap: &[u8], count: u64) -> impl Iterator<Item = u64> {
    words(bitmap, count).flat_map(|(first, mut word)| {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| u64::from(word.trailing_zeros()))?;
            word &= word.wrapping_sub(1);
            Some(first.saturating_add(bit))
        })
    })
}

/// A disk with some of its blocks as a journal will make them.
pub(super) struct Overlay {
    inner: Arc<Metered>,
    block: u64,
    /// Which block is read from where.
    blocks: std::collections::BTreeMap<u64, Replaced>,
}

/// What comes in the place of a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replaced {
    /// Where the bytes are.
    pub at: u64,
    /// The first bytes of it are these, since a journal may not hold them.
    pub head: Option<[u8; 4]>,
}

impl Overlay {
    pub(super) fn new(inner: Arc<Metered>, block: u64, blocks: std::collections::BTreeMap<u64, Replaced>) -> Self {
        Self { inner, block: block.max(1), blocks }
    }
}

impl ReadAt for Overlay {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)?;
        let end = offset.saturating_add(to_u64(buf.len()));
        let first = offset.checked_div(self.block).unwrap_or(0);
        let last = end.div_ceil(self.block).max(first);
        for (block, replaced) in self.blocks.range(first..last) {
            let start = block.saturating_mul(self.block);
            let from = start.max(offset);
            let to = start.saturating_add(self.block).min(end);
            let range = at_most(from.saturating_sub(offset), buf.len())..at_most(to.saturating_sub(offset), buf.len());
            let Some(part) = buf.get_mut(range) else { continue };
            let within = from.saturating_sub(start);
            self.inner.read_exact_at(part, replaced.at.saturating_add(within))?;
            for (byte, n) in replaced.head.iter().flatten().zip(0u64..) {
                let place = n.checked_sub(within).and_then(|n| part.get_mut(at_most(n, usize::MAX)));
                place.into_iter().for_each(|to| *to = *byte);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_kept_bit_for_bit() {
        let mut claims = Claims::new(1 << 20);
        assert_eq!(claims.claim(10, 100), None);
        assert_eq!([9, 10, 109, 110].map(|n| claims.word(n) & 1), [0, 1, 1, 0]);
        assert_eq!(claims.claim(100, 50), Some(100));
        assert_eq!(claims.claim(CHUNK_BITS - 3, 6), None);
        assert_eq!(claims.claim(CHUNK_BITS + 2, 1), Some(CHUNK_BITS + 2));
        assert_eq!(claims.word(10), u64::MAX);
        assert_eq!(claims.word(149), 1);
        assert_eq!(claims.word(CHUNK_BITS - 5), 0b1111_1100);
        assert!(!claims.is_full());
        assert_eq!(claims.claim(0, 1 << 40), None);
        assert!(claims.is_full());
    }

    #[test]
    fn bits_are_counted_to_the_end_of_a_group() {
        let bitmap = [0b1000_0001, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
        assert_eq!(set_bits(&bitmap, 66).collect::<Vec<_>>(), [0, 7, 64, 65]);
        assert_eq!(set_bits(&bitmap, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(set_bits(&bitmap, 0).count(), 0);
    }
}
