//! A picture of an image or a plaintext: which parts of it are zero, text, or noise.
//!
//! Entropy is measured over a sample, for a histogram of all bytes takes as long as their hash: the first block of each 64
//! KiB, or all blocks where a cell is smaller than that. Sums are of whole numbers, so that the order in which threads add
//! changes nothing.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::limits::MAP_CELLS_MAX;
use crate::num::{at_most, to_u64, to_usize};
use crate::progress::Progress;

/// A cell is a whole number of these, which is what the pass looks at.
const BLOCK: u64 = 4096;
/// How far apart samples are.
const SAMPLE_EVERY: u64 = 64 << 10;

/// How many blocks of a cell [`survey`] looks at.
const SAMPLES: u64 = 16;
/// The most threads that look.
const THREADS_MAX: usize = 4;

/// What the bytes of each cell look like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Map {
    /// Bytes of a cell; the last one may be shorter.
    pub cell_bytes: u64,
    /// A character for each cell: `.` for one that was not all read, `0` for zeroes, and `1` to `8` for the bits of entropy a
    /// byte has, rounded up: 5 and 6 are text and programs, 8 is compressed, encrypted or noise. It is measured over samples.
    pub cells: String,
}

/// A picture of all bytes of a disk, at a glance: of a large cell it looks at 16 blocks of 4096 bytes, at equal distances,
/// and takes them for the whole. What is known to be zero is not read, and a cell with a block that cannot be read is `.`.
///
/// # Errors
/// [`Cancelled`](crate::ErrorKind::Cancelled) where somebody stopped it;
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a pipe.
pub fn survey(disk: &dyn ReadAt, progress: &Progress) -> Result<Map> {
    if disk.pipe().is_some() {
        return Err(Error::invalid("a map wants an image that can be read at any place, not a pipe"));
    }
    let cells = Cells::new(disk.len());
    let next = AtomicU64::new(0);
    let work = || {
        let mut block = Zeroizing::new(vec![0; to_usize(BLOCK).unwrap_or_default()]);
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if progress.is_cancelled() || !cells.survey(disk, number, &mut block) {
                break;
            }
            progress.add(cells.cell);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        for n in 1..crate::threads::room(cores.min(THREADS_MAX)) {
            // Where no thread can be had, the ones there are do its work.
            let _ = std::thread::Builder::new().name(format!("map-{n}")).spawn_scoped(scope, work);
        }
        work();
    });
    if progress.is_cancelled() { Err(Error::cancelled()) } else { Ok(cells.finish()) }
}

/// What a block looks like.
pub enum Look<'a> {
    /// All of its bytes are zero.
    Zero,
    /// They are not: these are they.
    Data(&'a [u8]),
}

/// The cells as they fill, for whoever reads all of it anyway.
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
        let cell = size.div_ceil(MAP_CELLS_MAX).div_ceil(BLOCK).max(1).saturating_mul(BLOCK);
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

    /// Looks at blocks of the cell of that number; whether there is one.
    fn survey(&self, disk: &dyn ReadAt, number: u64, block: &mut [u8]) -> bool {
        let Some(start) = number.checked_mul(self.cell).filter(|start| *start < self.size) else { return false };
        let place = usize::try_from(number).ok().and_then(|n| self.all.get(n));
        let Some(cell) = place else { return false };
        let len = self.cell.min(self.size.saturating_sub(start));
        let end = start.saturating_add(len);
        let apart = (self.cell / SAMPLES).next_multiple_of(BLOCK).max(BLOCK);
        let mut at = start;
        let mut is_whole = true;
        while at < end {
            let extent = disk.extent_at(at).ok().filter(|extent| extent.zero);
            let zero_until = extent.map_or(at, |extent| at.saturating_add(extent.len));
            let part = at_most(end.saturating_sub(at), block.len());
            let Some(block) = block.get_mut(..part) else { return false };
            if zero_until < at.saturating_add(to_u64(part)) {
                if disk.read_exact_at(block, at).is_err() {
                    is_whole = false;
                } else if block.iter().any(|b| *b != 0) {
                    cell.data.fetch_add(to_u64(part), Ordering::Relaxed);
                    cell.entropy.fetch_add(entropy(block), Ordering::Relaxed);
                    cell.samples.fetch_add(1, Ordering::Relaxed);
                }
            }
            at = at.saturating_add(apart);
        }
        if is_whole {
            cell.seen.fetch_add(len, Ordering::Relaxed);
        }
        true
    }

    /// The map of what was added.
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

    /// A disk of zeroes with noise in one place, and a place that cannot be read.
    struct Patchy;

    impl ReadAt for Patchy {
        fn len(&self) -> u64 {
            1 << 30
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            if offset >> 20 == 1000 {
                return Err(Error::invalid("bad"));
            }
            let noise = (16..32).contains(&(offset >> 20));
            buf.iter_mut().zip((0..=255).cycle()).for_each(|(to, from)| *to = if noise { from } else { 0 });
            Ok(())
        }
    }

    #[test]
    fn a_survey_sees_where_the_noise_is() {
        let map = survey(&Patchy, &Progress::default()).unwrap();
        let mut cells = vec!['0'; 1024];
        cells[16..32].fill('8');
        cells[1000] = '.';
        assert_eq!(map, Map { cell_bytes: 1 << 20, cells: cells.into_iter().collect() });
        let stopped = Progress::default();
        stopped.cancel();
        assert!(survey(&Patchy, &stopped).is_err());
    }

    #[test]
    fn cells_are_at_most_so_many_and_say_what_was_not_read() {
        assert_eq!(Cells::new(0).finish().cells, "");
        let cells = Cells::new((5 << 40) + 1);
        assert!(to_u64(cells.all.len()) <= MAP_CELLS_MAX && cells.cell.is_multiple_of(BLOCK));
        let cells = Cells::new(3 * BLOCK + 1);
        let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
        cells.add(0, Look::Zero, 4096);
        cells.add(BLOCK, Look::Data(&noise), 4096);
        cells.add(3 * BLOCK, Look::Data(&[5]), 1);
        assert_eq!(cells.finish(), Map { cell_bytes: BLOCK, cells: "08.1".into() });
    }
}
