//! Sectors that cannot be trusted, and what is done with them: their integrity tag is wrong, they were overwritten, or they
//! cannot be read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::limits::BAD_SECTOR_RUNS_MAX;

/// What becomes of a sector that cannot be read, or whose integrity tag is wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadSectorPolicy {
    /// Reading it is an error.
    #[default]
    Refuse,
    /// It is listed, and decrypted all the same: nobody knows whether it is what was written.
    Report,
    /// It is listed, and reads as zeroes.
    Zero,
    /// It is listed, and reads as zeroes; a stream leaves it out where its output has room for holes.
    Skip,
}

/// Why a sector is bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Its integrity tag does not match.
    Tag,
    /// It was overwritten together with the header.
    Overwritten,
    /// Its data cannot be read.
    Unreadable,
}

/// A run of bad sectors, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRun {
    /// Why they are bad.
    pub cause: Cause,
    /// Where it starts in the plaintext, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Where the first sector's data lies in the data file, in bytes.
    pub stored_at: u64,
}

impl BadRun {
    /// Where it ends in the plaintext, in bytes.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// The bad sectors that were met and passed over so far, each once, however often it was read.
#[derive(Debug, Default)]
pub struct BadSectors {
    policy: BadSectorPolicy,
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// By their start.
    runs: BTreeMap<u64, BadRun>,
    /// Times that a sector was met when there were too many runs to list another one.
    unlisted: u64,
    /// Why a journal was not replayed.
    journal: Option<String>,
}

impl BadSectors {
    pub(super) fn new(policy: BadSectorPolicy) -> Self {
        Self { policy, noted: Mutex::default() }
    }

    /// What is done with them.
    pub fn policy(&self) -> BadSectorPolicy {
        self.policy
    }

    /// Whether all was as it should be.
    pub fn is_empty(&self) -> bool {
        let noted = self.lock();
        noted.runs.is_empty() && noted.unlisted == 0 && noted.journal.is_none()
    }

    /// The runs, in the order of the plaintext: 65,536 at most.
    pub fn runs(&self) -> Vec<BadRun> {
        self.lock().runs.values().copied().collect()
    }

    /// How often a sector was met that is not in [`BadSectors::runs`], because there are too many runs.
    pub fn unlisted(&self) -> u64 {
        self.lock().unlisted
    }

    /// Why dm-integrity's journal was passed over, where it was: the newest data of some sectors may be missing.
    pub fn journal_damage(&self) -> Option<String> {
        self.lock().journal.clone()
    }

    /// The parts of a range of the plaintext that are to be left out.
    pub(crate) fn left_out(&self, range: Range<u64>) -> Vec<Range<u64>> {
        if self.policy != BadSectorPolicy::Skip {
            return Vec::new();
        }
        let noted = self.lock();
        let before = noted.runs.range(..range.start).next_back();
        let runs = before.into_iter().chain(noted.runs.range(range.clone()));
        let within = runs.map(|(_, run)| run.start.max(range.start)..run.end().min(range.end));
        within.filter(|r| r.start < r.end).collect()
    }

    /// The parts of a range of the plaintext that could not be read.
    pub(super) fn unreadable(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.within(range, |cause| cause == Cause::Unreadable)
    }

    /// The parts of a range of the plaintext that are not what is stored: they could not be read, or are zeroes for what is
    /// bad.
    #[cfg(feature = "serde")]
    pub(crate) fn stand_ins(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let blanks = matches!(self.policy, BadSectorPolicy::Zero | BadSectorPolicy::Skip);
        self.within(range, |cause| blanks || cause == Cause::Unreadable)
    }

    /// The parts of a range of the plaintext that are bad by such a cause.
    pub(crate) fn within(&self, range: Range<u64>, is_wanted: impl Fn(Cause) -> bool) -> Vec<Range<u64>> {
        let noted = self.lock();
        let before = noted.runs.range(..range.start).next_back();
        let runs = before.into_iter().chain(noted.runs.range(range.clone()));
        let runs = runs.filter(|(_, run)| is_wanted(run.cause));
        let within = runs.map(|(_, run)| run.start.max(range.start)..run.end().min(range.end));
        within.filter(|r| r.start < r.end).collect()
    }

    /// Takes note of a bad sector.
    pub(super) fn note(&self, sector: BadRun) {
        let mut noted = self.lock();
        let end = sector.end();
        let full = noted.runs.len() >= BAD_SECTOR_RUNS_MAX;
        let before = noted.runs.range_mut(..=sector.start).next_back().map(|(_, run)| run);
        let start = match before {
            Some(run) if run.end() >= end => return,
            Some(run) if run.end() == sector.start && run.cause == sector.cause => {
                run.len = run.len.saturating_add(sector.len);
                run.start
            }
            _ if full => {
                noted.unlisted = noted.unlisted.saturating_add(1);
                return;
            }
            _ => {
                noted.runs.insert(sector.start, sector);
                sector.start
            }
        };
        if let Some(next) = noted.runs.get(&end).copied()
            && let Some(run) = noted.runs.get_mut(&start)
            && run.cause == next.cause
        {
            run.len = run.len.saturating_add(next.len);
            noted.runs.remove(&end);
        }
    }

    /// Takes note that a journal cannot be replayed.
    pub(super) fn note_journal(&self, e: &Error) {
        self.lock().journal = Some(e.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(bad: &BadSectors, sector: u64) {
        bad.note(BadRun { cause: Cause::Tag, start: sector * 512, len: 512, stored_at: 10_000 + sector * 512 });
    }

    fn sectors(bad: &BadSectors) -> Vec<(u64, u64, u64)> {
        bad.runs().iter().map(|r| (r.start / 512, r.len / 512, (r.stored_at - 10_000) / 512)).collect()
    }

    #[test]
    fn neighbours_are_one_run_and_a_sector_counts_once() {
        let bad = BadSectors::new(BadSectorPolicy::Skip);
        assert!(bad.is_empty());
        for sector in [5, 9, 6, 4, 6, 4, 8, 7, 20, 9] {
            note(&bad, sector);
        }
        assert_eq!(sectors(&bad), [(4, 6, 4), (20, 1, 20)]);
        assert_eq!(bad.unlisted(), 0);
        assert_eq!(bad.left_out(0..2048), []);
        assert_eq!(bad.left_out(2560..30_000), [2560..5120, 10_240..10_752]);
        assert_eq!(bad.left_out(5119..10_241), [5119..5120, 10_240..10_241]);
        assert!(!bad.is_empty());
    }

    #[test]
    fn runs_are_capped_and_what_is_beyond_is_counted() {
        let bad = BadSectors::new(BadSectorPolicy::Zero);
        let max = u64::try_from(BAD_SECTOR_RUNS_MAX).unwrap();
        (0..max + 3).for_each(|n| note(&bad, 2 * n));
        assert_eq!((bad.runs().len(), bad.unlisted()), (BAD_SECTOR_RUNS_MAX, 3));
        // What joins two runs needs no room of its own.
        note(&bad, 1);
        assert_eq!((bad.runs().len(), bad.unlisted()), (BAD_SECTOR_RUNS_MAX - 1, 3));
        assert_eq!(bad.left_out(0..512), []);
    }
}
