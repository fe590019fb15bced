//! A disk whose runs are listed one after the other in its file: what Android sparse images and `rbd export` have in place
//! of tables. They are read once, and kept as a list with a cap.

use std::sync::Arc;

use super::below::Below;
use super::map::{Layout, Place, Run};
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::limits::FORMAT_RUNS_MAX;
use crate::num::{at_most, low_u32, to_usize};

/// Where a listed run's bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The file, from this byte on.
    Stored(u64),
    /// These four bytes, again and again.
    Filled([u8; 4]),
    /// Zeroes.
    Zero,
}

#[derive(Clone, Copy, Debug)]
struct Listed {
    start: u64,
    end: u64,
    source: Source,
}

/// The runs of a disk, in its order, without overlaps. What none covers is what is below, or zeroes.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Listed>,
}

impl Runs {
    /// Adds a run, which covers what came before at the same place.
    ///
    /// `rule` names the format where there are too many.
    pub(super) fn put(&mut self, start: u64, len: u64, source: Source, rule: &'static str) -> Result<()> {
        let end = start.checked_add(len).ok_or_else(|| {
            Error::corrupt(rule, format!("a run of {len} bytes at byte {start} of the disk goes beyond 2^64"))
        })?;
        if len == 0 {
            return Ok(());
        }
        // Most files list their runs in order, and then both ends of this range are the list's end.
        let first = self.runs.partition_point(|run| run.end <= start);
        let last = self.runs.partition_point(|run| run.start < end);
        let mut new = Vec::with_capacity(3);
        if let Some(before) = self.runs.get(first).filter(|run| first < last && run.start < start) {
            new.push(Listed { end: start, ..*before });
        }
        new.push(Listed { start, end, source });
        if let Some(after) =
            last.checked_sub(1).and_then(|n| self.runs.get(n)).filter(|run| first < last && run.end > end)
        {
            new.push(after.from(end));
        }
        self.runs.splice(first..last.max(first), new);
        if self.runs.len() > FORMAT_RUNS_MAX {
            return Err(Error::limit(rule, format!("found more than {FORMAT_RUNS_MAX} runs, the most that are kept")));
        }
        Ok(())
    }
}

impl Listed {
    /// What is left of the run from byte `start` of the disk on, which lies in it.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn from(&self, start: u64) -> Self {
        let skip = start - self.start;
        let source = match self.source {
            // The run's end was checked, and its data lies in the file.
            Source::Stored(at) => Source::Stored(at.saturating_add(skip)),
            Source::Filled(mut pattern) => {
                pattern.rotate_left(at_most(skip % 4, 3));
                Source::Filled(pattern)
            }
            Source::Zero => Source::Zero,
        };
        Self { start, end: self.end, source }
    }
}

/// How much of a filled run is made at a time.
const FILLED: u64 = 4096;

/// A disk made of listed runs.
pub(super) struct RunsDisk {
    /// The file that the runs count in.
    pub file: Arc<dyn ReadAt>,
    /// The disk's size in bytes.
    pub size: u64,
    /// Its runs.
    pub runs: Runs,
    /// What is there where no run is; zeroes where there is none.
    pub below: Option<Below>,
}

impl Layout for RunsDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let next = self.runs.runs.partition_point(|run| run.end <= offset);
        let Some(run) = self.runs.runs.get(next) else { return Ok(Run { len: u64::MAX, place: Place::Below }) };
        if run.start > offset {
            return Ok(Run { len: run.start - offset, place: Place::Below });
        }
        let rest = run.from(offset);
        let len = run.end - offset;
        Ok(match rest.source {
            Source::Stored(at) => Run { len, place: Place::Stored(at) },
            Source::Zero | Source::Filled([0, 0, 0, 0]) => Run { len, place: Place::Zero },
            Source::Filled(pattern) => {
                Run { len: len.min(FILLED), place: Place::Packed { unit: u32::from_be_bytes(pattern).into(), skip: 0 } }
            }
        })
    }

    fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    /// The unit's number is its pattern.
    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        let pattern = low_u32(unit).to_be_bytes();
        Ok(pattern.repeat(to_usize(FILLED / 4)?))
    }

    fn unit_size(&self) -> u64 {
        FILLED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::map::Mapped;

    fn read(size: u64, puts: &[(u64, u64, Source)]) -> Vec<u8> {
        let mut runs = Runs::default();
        for (start, len, source) in puts {
            runs.put(*start, *len, *source, "test").unwrap();
        }
        let file: Arc<dyn ReadAt> = Arc::new((0..200u8).collect::<Vec<u8>>());
        let disk = Mapped::new(RunsDisk { file, size, runs, below: None });
        let mut all = vec![9; usize::try_from(size).unwrap()];
        disk.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn a_later_run_covers_an_earlier_one() {
        let found = read(
            20,
            &[
                (2, 10, Source::Stored(100)),
                (4, 2, Source::Filled([1, 2, 3, 4])),
                (9, 20, Source::Filled([5, 6, 7, 8])),
                (12, 1, Source::Zero),
                (0, 0, Source::Stored(0)),
            ],
        );
        let wanted = [0, 0, 100, 101, 1, 2, 104, 105, 106, 5, 6, 7, 0, 5, 6, 7, 8, 5, 6, 7];
        assert_eq!(found, wanted);
        assert_eq!(read(6, &[(1, 4, Source::Stored(7)), (0, 6, Source::Stored(50))]), [50, 51, 52, 53, 54, 55]);
    }

    #[test]
    fn overlaps_of_all_kinds_are_as_if_written_one_after_the_other() {
        // xorshift: the same at each run.
        let mut state = 7u64;
        let mut next = |n: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % n
        };
        for _ in 0..300 {
            let mut wanted = vec![0u8; 64];
            let mut puts = Vec::new();
            for _ in 0..next(12) {
                let (start, at) = (next(60), next(100));
                let len = next(64 - start + 1);
                let source = match next(3) {
                    0 => Source::Zero,
                    1 => Source::Filled([1, 2, 3, 4]),
                    _ => Source::Stored(at),
                };
                for n in 0..len {
                    wanted[usize::try_from(start + n).unwrap()] = match source {
                        Source::Zero => 0,
                        Source::Filled(pattern) => pattern[usize::try_from(n % 4).unwrap()],
                        Source::Stored(at) => u8::try_from(at + n).unwrap(),
                    };
                }
                puts.push((start, len, source));
            }
            assert_eq!(read(64, &puts), wanted, "{puts:?}");
        }
    }

    #[test]
    fn there_are_so_many_runs_and_no_more() {
        let mut runs = Runs::default();
        assert_eq!(runs.put(u64::MAX, 2, Source::Zero, "x").unwrap_err().rule(), "x");
        let e = (0..).map(|n| runs.put(n * 2, 1, Source::Zero, "x")).find_map(Result::err).unwrap();
        assert_eq!(e.kind(), crate::ErrorKind::LimitExceeded);
    }
}
