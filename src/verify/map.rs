//! A picture of the plaintext: which parts of it are zero, text, or noise.
//!
//! Entropy is measured over a sample, for a histogram of all bytes takes as long as their hash: the first block of each 64
//! KiB, or all blocks where a cell is smaller than that. Sums are of whole numbers, so that the order in which threads add
//! changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use super::report::Map;
use crate::limits::VERIFY_MAP_CELLS_MAX;
use crate::num::{to_u64, to_usize};

/// A cell is a whole number of these, which is what the pass looks at.
const BLOCK: u64 = 4096;
/// How far apart samples are.
const SAMPLE_EVERY: u64 = 64 << 10;

/// What a block looks like.
pub enum Look<'a> {
    Zero,
    Data(&'a [u8]),
}

/// The cells as they fill.
pub struct Cells {
    cell: u64,
    every: u64,
    size: u64,
    all: Vec<Cell>,
}

#[derive(Default)]
struct Cell {
    seen: AtomicU64,
    data: AtomicU64,
    /// Thousandths of bits a byte, of all samples together.
    entropy: AtomicU64,
    samples: AtomicU64,
}

impl Cells {
    /// Cells for `size` bytes of plaintext.
    pub fn new(size: u64) -> Self {
        let cell = size.div_ceil(VERIFY_MAP_CELLS_MAX).div_ceil(BLOCK).max(1).saturating_mul(BLOCK);
        let count = to_usize(size.div_ceil(cell)).unwrap_or_default();
        let every = if cell < SAMPLE_EVERY { BLOCK } else { SAMPLE_EVERY };
        Self { cell, every, size, all: (0..count).map(|_| Cell::default()).collect() }
    }

    /// Adds the block of `len` bytes at `offset`.
    pub fn add(&self, offset: u64, look: Look<'_>, len: usize) {
        let place = offset.checked_div(self.cell).and_then(|n| usize::try_from(n).ok());
        let Some(cell) = place.and_then(|n| self.all.get(n)) else { return };
        cell.seen.fetch_add(to_u64(len), Ordering::Relaxed);
        if let Look::Data(block) = look {
            cell.data.fetch_add(to_u64(len), Ordering::Relaxed);
            if offset.is_multiple_of(self.every) {
                cell.entropy.fetch_add(entropy(block), Ordering::Relaxed);
                cell.samples.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn finish(self) -> Map {
        let mut left = self.size;
        let mut cells = String::with_capacity(self.all.len());
        for cell in self.all {
            let wanted = left.min(self.cell);
            left = left.saturating_sub(wanted);
            let (seen, data) = (cell.seen.into_inner(), cell.data.into_inner());
            let (entropy, samples) = (cell.entropy.into_inner(), cell.samples.into_inner());
            cells.push(if seen < wanted {
                '.'
            } else if data == 0 {
                '0'
            } else {
                // Where no sample fell on data, there is little of it.
                let mean = entropy.checked_div(samples).unwrap_or_default();
                let bits = u32::try_from(mean.div_ceil(1000)).unwrap_or(8);
                char::from_digit(bits.clamp(1, 8), 10).unwrap_or('8')
            });
        }
        Map { cell_bytes: self.cell, cells }
    }
}

/// The entropy of a block in thousandths of bits a byte, as Shannon has it.
fn entropy(block: &[u8]) -> u64 {
    let mut counts = [0u32; 256];
    for byte in block {
        let count = &mut counts[usize::from(*byte)];
        *count = count.saturating_add(1);
    }
    let all = f64::from(u32::try_from(block.len()).unwrap_or(u32::MAX).max(1));
    let share = |count: u32| f64::from(count) / all;
    let bits: f64 = counts.into_iter().filter(|n| *n > 0).map(|n| -share(n) * share(n).log2()).sum();
    // The noise of 4096 bytes comes to 7.95: rounded up, that is 8 all the same.
    let mut thousandths = 0u64;
    for step in (0..14).rev() {
        let next = thousandths.saturating_add(1 << step);
        if f64::from(u32::try_from(next).unwrap_or(u32::MAX)) <= bits * 1000.0 {
            thousandths = next;
        }
    }
    thousandths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_that_of_the_book() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!((entropy(&all), entropy(&[7; 4096]), entropy(&[1, 2, 1, 2])), (8000, 0, 1000));
        let text = b"There was no root, no device-mapper and no cryptsetup involved in reading it.".repeat(20);
        assert!((3900..4500).contains(&entropy(&text)), "{}", entropy(&text));
    }

    #[test]
    fn cells_are_at_most_so_many_and_say_what_was_not_read() {
        assert_eq!(Cells::new(0).finish().cells, "");
        let cells = Cells::new((5 << 40) + 1);
        assert!(to_u64(cells.all.len()) <= VERIFY_MAP_CELLS_MAX && cells.cell.is_multiple_of(BLOCK));
        let cells = Cells::new(3 * BLOCK + 1);
        let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
        cells.add(0, Look::Zero, 4096);
        cells.add(BLOCK, Look::Data(&noise), 4096);
        cells.add(3 * BLOCK, Look::Data(&[5]), 1);
        assert_eq!(cells.finish(), Map { cell_bytes: BLOCK, cells: "08.1".into() });
    }
}
