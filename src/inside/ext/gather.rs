//! ext: what a pass over the inodes gathers, of each and of all.

use std::collections::HashMap;

use super::map::{Fault, Fs, Run, Visitor};
use crate::error::Error;
use crate::inside::full::Claims;
use crate::limits::{INSIDE_DIRECTORIES_MAX, INSIDE_INODES_MAX};
use crate::num::at_most;

/// How many inodes are kept together.
pub(super) const SEEN: usize = 4096;

/// What is known of an inode.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen {
    pub wanted: u16,
    pub counted: u16,
    pub kind: u8,
    pub is_used: bool,
}

/// The inodes that are in use or have a name.
#[derive(Default)]
pub(super) struct Inodes {
    pub chunks: HashMap<u32, Box<[Seen]>>,
    pub is_full: bool,
}

impl Inodes {
    pub(super) fn get(&mut self, number: u32) -> Option<&mut Seen> {
        let n = number.checked_sub(1)?;
        let size = u32::try_from(SEEN).unwrap_or(1);
        let (chunk, within) = (n.checked_div(size)?, n.checked_rem(size)?);
        if self.chunks.len() >= INSIDE_INODES_MAX / SEEN && !self.chunks.contains_key(&chunk) {
            self.is_full = true;
            return None;
        }
        let all = self.chunks.entry(chunk).or_insert_with(|| vec![Seen::default(); SEEN].into_boxed_slice());
        all.get_mut(at_most(within.into(), SEEN))
    }
}

/// What a walk over an inode's map gathers.
pub(super) struct Gathered<'a> {
    pub fs: &'a Fs<'a>,
    pub claims: &'a mut Claims,
    pub claim: bool,
    pub blocks: u64,
    /// One behind the last block of the file that was written.
    pub end: u64,
    pub proved: u64,
    pub twice: Option<u64>,
    pub faults: Vec<Fault>,
    pub unread: Vec<(u64, Error)>,
    pub dirs: Option<Vec<Run>>,
}

/// How many faults of one inode are kept.
const FAULTS_MAX: usize = 8;

impl Gathered<'_> {
    pub(super) fn take(&mut self, start: u64, len: u64) -> bool {
        self.blocks = self.blocks.saturating_add(len);
        if !self.claim {
            return true;
        }
        let twice = self.claims.claim(start, len);
        self.twice = self.twice.or(twice);
        twice.is_none()
    }
}

impl Visitor for Gathered<'_> {
    fn run(&mut self, run: Run) {
        self.take(run.start, run.len);
        if run.written {
            self.end = self.end.max(run.logical.saturating_add(run.len));
        }
        if let Some(dirs) = self.dirs.as_mut().filter(|dirs| dirs.len() < INSIDE_DIRECTORIES_MAX) {
            dirs.push(run);
        }
    }

    fn node(&mut self, block: u64) -> bool {
        // One that was claimed before has been gone into, or belongs to something else.
        self.take(block, 1)
    }

    fn proved(&mut self) {
        self.proved = self.proved.saturating_add(self.fs.block);
    }

    fn fault(&mut self, fault: Fault) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }

    fn unread(&mut self, block: u64, e: &Error) {
        if self.unread.len() < FAULTS_MAX {
            let (kind, message) = (e.kind(), e.message().to_owned());
            self.unread.push((block, Error::new(kind, message)));
        }
    }
}
