//! Reads the disk with several threads, and looks at the start of each sector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::candidate::{Candidate, Suspect};
use super::{CHUNK, Copy, Options, Unreadable, bytes, lock};
use crate::io::ReadAt;
use crate::limits::{SCAN_CHECK_MAX, SCAN_COPIES_MAX, SCAN_HEADER_SHARED, SCAN_RETRIES_MAX};
use crate::num::at_most;
use crate::progress::Progress;

/// Headers lie at multiples of this many bytes.
const SECTOR: usize = 512;
/// Reads are tried again down to this many bytes.
const PIECE: usize = 4096;
/// How far ahead of the reading the system is told what comes.
const READ_AHEAD: u64 = 16 << 20;

/// What the threads share.
pub(super) struct Search<'a> {
    disk: &'a dyn ReadAt,
    options: Options,
    progress: &'a Progress,
    /// The first byte that nobody has claimed.
    next: Mutex<u64>,
    pub found: Mutex<Found>,
    pub unreadable: Mutex<Option<Unreadable>>,
    failed_reads: AtomicU64,
    /// Held while a large header is verified: parsed, it takes many times its size.
    large: Mutex<()>,
}

#[derive(Default)]
pub(super) struct Found {
    pub good: Kept,
    pub bad: Kept,
}

/// The first copies on the disk, and how many more there are. Which those are does not depend on the threads' order.
#[derive(Default)]
pub(super) struct Kept {
    pub kept: BTreeMap<u64, (Option<u64>, Copy)>,
    pub left_out: u64,
}

impl Kept {
    fn add(&mut self, start: Option<u64>, copy: Copy) {
        self.kept.insert(copy.offset, (start, copy));
        if self.kept.len() > SCAN_COPIES_MAX {
            self.kept.pop_last();
            self.left_out += 1;
        }
    }
}

impl<'a> Search<'a> {
    pub(super) fn new(disk: &'a dyn ReadAt, options: Options, progress: &'a Progress) -> Self {
        Self {
            disk,
            options,
            progress,
            next: Mutex::new(0),
            found: Mutex::default(),
            unreadable: Mutex::new(None),
            failed_reads: AtomicU64::new(0),
            large: Mutex::new(()),
        }
    }

    pub(super) fn work(&self) {
        let mut chunk = vec![0u8; CHUNK];
        while let Some((offset, len)) = self.claim() {
            let part = &mut chunk[..len];
            self.disk.will_need(offset.saturating_add(READ_AHEAD), bytes(len));
            self.read(part, offset);
            self.look(part, offset);
            if self.options.drop_behind {
                self.disk.wont_need(offset, bytes(len));
            }
            self.progress.add(bytes(len));
        }
    }

    /// The next chunk. What is known to be zero without reading is passed over.
    fn claim(&self) -> Option<(u64, usize)> {
        let mut next = lock(&self.next);
        loop {
            let rest = self.disk.len().saturating_sub(*next);
            if rest == 0 || self.progress.is_cancelled() {
                return None;
            }
            let extent = self.disk.extent_at(*next).ok().filter(|e| e.zero);
            // A hole ends where a sector does, or with the disk.
            let hole = extent.map_or(0, |e| if e.len >= rest { rest } else { e.len - e.len % bytes(SECTOR) });
            if hole > 0 {
                *next += hole;
                self.progress.add(hole);
                continue;
            }
            let (offset, len) = (*next, rest.min(bytes(CHUNK)));
            *next += len;
            return Some((offset, at_most(len, CHUNK)));
        }
    }

    /// Fills `part`; what cannot be read becomes zero, and is noted.
    fn read(&self, part: &mut [u8], offset: u64) {
        let Err(e) = self.disk.read_exact_at(part, offset) else { return };
        let failed = self.failed_reads.fetch_add(1, Ordering::Relaxed);
        if part.len() > PIECE && failed < SCAN_RETRIES_MAX {
            let half = (part.len() / 2).next_multiple_of(PIECE);
            let (first, second) = part.split_at_mut(half);
            self.read(first, offset);
            return self.read(second, offset.saturating_add(bytes(half)));
        }
        part.fill(0);
        let len = bytes(part.len());
        let mut unreadable = lock(&self.unreadable);
        match unreadable.as_mut() {
            Some(u) if u.first < offset => u.bytes += len,
            before => {
                let bytes = before.map_or(0, |u| u.bytes) + len;
                *unreadable = Some(Unreadable { bytes, first: offset, error: e });
            }
        }
    }

    /// Finds the magics in a chunk, and checks what they begin.
    fn look(&self, chunk: &[u8], offset: u64) {
        let sectors = chunk.chunks(SECTOR).enumerate();
        let magics = sectors.filter(|(_, sector)| Candidate::begins_in(sector));
        let at = |n: usize| offset.saturating_add(bytes(n).saturating_mul(bytes(SECTOR)));
        let mut candidates: Vec<_> = magics.map(|(n, sector)| Candidate::glance(sector, at(n))).collect();
        let rests = (0..chunk.len()).step_by(SECTOR).filter_map(|at| Some((at, chunk.get(at..)?)));
        let suspects: Vec<_> =
            rests.filter_map(|(at, rest)| Suspect::of(rest, offset.saturating_add(bytes(at)))).collect();
        if candidates.is_empty() && suspects.is_empty() {
            return;
        }
        candidates.sort_by_key(|c| c.size);
        let mut left = SCAN_CHECK_MAX;
        let mut check = |candidate: Candidate| {
            let _alone = (candidate.size > SCAN_HEADER_SHARED).then(|| lock(&self.large));
            candidate.check(self.disk, &mut left)
        };
        let mut checked: Vec<_> = candidates.into_iter().map(&mut check).collect();
        // What opens as it is needs no second look, nor does what is no header cost more than headers do.
        let good: BTreeSet<u64> = checked.iter().filter(|(_, c)| c.error.is_none()).filter_map(|(at, _)| *at).collect();
        for suspect in suspects.iter().filter(|suspect| !suspect.starts.iter().any(|start| good.contains(start))) {
            let Some(rest) = left.checked_sub(suspect.size) else { break };
            left = rest;
            let _alone = lock(&self.large);
            checked.extend(suspect.check(self.disk));
        }
        let mut found = lock(&self.found);
        for (start, copy) in checked {
            match copy.error {
                None => found.good.add(start, copy),
                Some(_) => found.bad.add(start, copy),
            }
        }
    }
}
