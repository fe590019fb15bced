//! ext: the journal, and what it would put in the place of which blocks.
//!
//! | bytes of its superblock | field | bytes of a tag | field |
//! |---|---|---|---|
//! | 0x00, 0x04, 0x08 | magic 0xc03b3998, type 3 or 4, sequence | 0 | block |
//! | 0x0c, 0x10, 0x14 | s_blocksize, s_maxlen, s_first | 4, of version 3 | flags, high 32 bits, checksum |
//! | 0x18, 0x1c | s_sequence, s_start | 4, of others | checksum (u16), flags (u16), high 32 bits |
//! | 0x28, 0x30, 0x54 | features: incompat; s_uuid; s_num_fc_blks | | |
//! | 0xfc | s_checksum | | |
//!
//! All big-endian. A transaction is descriptor blocks (type 1), each followed by the blocks that its tags list, blocks that
//! revoke (5), and a commit (2). What was not committed does not count. The source is Linux's `include/linux/jbd2.h` and
//! `fs/jbd2/recovery.c`. Nothing is written: the blocks are read from the journal in the place of their own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::map::{Fault, Fs, Inode, Run, Visitor, external_journal, walk};
use super::{COMPAT_HAS_JOURNAL, Contents, INCOMPAT_RECOVER, Severity};
use crate::error::Error;
use crate::error::counted;
use crate::inside::full::{Overlay, Replaced};
use crate::inside::look::{Metered, be16, be32, crc32c_raw, field};
use crate::limits::INSIDE_JOURNAL_MAX;
use crate::num::from_u32;

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
const INCOMPAT_KNOWN: u32 = 0x3f;
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST: u32 = 8;

struct Journal<'a> {
    fs: &'a Fs<'a>,
    runs: Vec<Run>,
    features: u32,
    seed: u32,
    first: u64,
    end: u64,
}

/// Collects the runs of the journal's inode.
#[derive(Default)]
struct Runs {
    runs: Vec<Run>,
    fault: Option<String>,
    nodes: u64,
}

impl Visitor for Runs {
    fn run(&mut self, run: Run) {
        if self.runs.len() < INSIDE_JOURNAL_MAX {
            self.runs.push(run);
        }
    }

    fn node(&mut self, _: u64) -> bool {
        self.nodes = self.nodes.saturating_add(1);
        // The largest has some thousand.
        self.nodes < 65536
    }

    fn proved(&mut self) {}

    fn fault(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault.found);
    }

    fn unread(&mut self, _: u64, e: &Error) {
        self.fault.get_or_insert(e.message().to_owned());
    }
}

impl<'a> Journal<'a> {
    /// The journal of a file system; an error says in words why it cannot be read, and where.
    fn open(fs: &'a Fs<'a>) -> Result<(Self, Vec<u8>), (String, u64)> {
        let number = fs.word(0xe0);
        let not = |what: &str, place: u64| (what.to_owned(), place);
        let inode = fs.inode(number).map_err(|e| (e.message().to_owned(), 1024))?;
        let (bytes, place) = inode.ok_or_else(|| not("no inode of it", 1024))?;
        let inode = Inode { number, bytes: &bytes, place };
        if fs.has_csum && inode.checksums(fs).0 != inode.checksums(fs).1 {
            return Err(not("the checksum of its inode is wrong", place));
        }
        let mut found = Runs::default();
        walk(fs, inode, &mut found);
        if let Some(fault) = found.fault {
            return Err((format!("its inode has {fault}"), place));
        }
        let mut journal = Self { fs, runs: found.runs, features: 0, seed: 0, first: 1, end: 1 };
        let start = journal.place(0).ok_or_else(|| not("its inode has no blocks", place))?;
        let bytes = fs.look.read(start, 1024).map_err(|e| (e.message().to_owned(), start))?;
        let kind = be32(&bytes, 4);
        if be32(&bytes, 0) != MAGIC || !matches!(kind, 3 | 4) {
            return Err((format!("the magic {:#010x} and type {kind}", be32(&bytes, 0)), start));
        }
        journal.features = if kind == 4 { be32(&bytes, 0x28) } else { 0 };
        journal.seed = crc32c_raw(!0, &field::<16>(&bytes, 0x30));
        (journal.first, journal.end) = (u64::from(be32(&bytes, 0x14)), u64::from(be32(&bytes, 0x10)));
        let blocks = journal.runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.len));
        if be32(&bytes, 0x0c) != u32::try_from(fs.block).unwrap_or(0) || journal.first == 0 || journal.end > blocks {
            return Err((format!("{} of {} bytes", counted(journal.end, "block"), be32(&bytes, 0x0c)), start));
        }
        if journal.has_checksums() {
            let (stored, right) = (be32(&bytes, 0xfc), sum_without(&bytes, 0xfc, !0));
            if stored != right {
                return Err((format!("the checksum {stored:#010x}, not {right:#010x}"), start));
            }
        }
        if journal.features & INCOMPAT_FAST_COMMIT != 0 {
            journal.end = journal.end.saturating_sub(u64::from(be32(&bytes, 0x54)));
        }
        Ok((journal, bytes))
    }

    fn has_checksums(&self) -> bool {
        self.features & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3) != 0
    }

    /// Where block `n` of the journal is on the disk.
    fn place(&self, n: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.logical <= n).checked_sub(1)?;
        let run = self.runs.get(at)?;
        let within = n.checked_sub(run.logical).filter(|within| *within < run.len)?;
        Some(self.fs.place(run.start.checked_add(within)?))
    }

    fn after(&self, n: u64) -> u64 {
        let next = n.saturating_add(1);
        if next >= self.end { self.first } else { next }
    }

    fn tag_len(&self) -> usize {
        let has = |feature| self.features & feature != 0;
        if has(INCOMPAT_CSUM_V3) {
            return 16;
        }
        let wide = if has(INCOMPAT_CSUM_V2) { 14 } else { 12 };
        if has(INCOMPAT_64BIT) { wide } else { wide.saturating_sub(4) }
    }
}

/// The checksum of a block whose four bytes at `at` count as zeroes.
fn sum_without(bytes: &[u8], at: usize, seed: u32) -> u32 {
    let (before, after) = (bytes.get(..at), bytes.get(at.saturating_add(4)..));
    [before.unwrap_or_default(), &[0; 4], after.unwrap_or_default()].into_iter().fold(seed, crc32c_raw)
}

/// A block that a transaction replaces.
struct Replacement {
    sequence: u32,
    block: u64,
    from: Replaced,
    checksum: Option<u32>,
}

/// What the log holds up to its last commit.
#[derive(Default)]
struct Log {
    replacements: Vec<Replacement>,
    revoked: HashMap<u64, u32>,
}

/// Whether sequence `a` is behind `b`, where both go round.
fn is_behind(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

impl Journal<'_> {
    /// Reads the log; `start` and `sequence` are the first block and number of it.
    fn read(&self, start: u64, mut sequence: u32) -> Result<Log, (String, u64)> {
        let mut log = Log::default();
        let (mut at, mut pending, mut revoked) = (start, Vec::new(), Vec::new());
        let mut steps = 0u64;
        while steps < self.end {
            steps = steps.saturating_add(1);
            let Some(place) = self.place(at) else { break };
            let bytes = self.fs.look.read(place, self.fs.block_len).map_err(|e| (e.message().to_owned(), place))?;
            if be32(&bytes, 0) != MAGIC || be32(&bytes, 8) != sequence {
                break;
            }
            let tail = bytes.len().saturating_sub(4);
            let is_whole = |at: usize| !self.has_checksums() || sum_without(&bytes, at, self.seed) == be32(&bytes, at);
            at = self.after(at);
            match be32(&bytes, 4) {
                DESCRIPTOR if is_whole(tail) => {
                    for (block, flags, checksum) in self.tags(&bytes) {
                        let Some(from) = self.place(at) else { break };
                        let head = (flags & ESCAPED != 0).then(|| MAGIC.to_be_bytes());
                        pending.push(Replacement { sequence, block, from: Replaced { at: from, head }, checksum });
                        at = self.after(at);
                        steps = steps.saturating_add(1);
                    }
                }
                REVOKE if is_whole(tail) => {
                    let size = if self.features & INCOMPAT_64BIT != 0 { 8 } else { 4 };
                    let used = bytes.get(16..from_u32(be32(&bytes, 12)).min(tail)).unwrap_or_default();
                    revoked.extend(used.chunks_exact(size).map(|entry| match size {
                        8 => u64::from_be_bytes(field(entry, 0)),
                        _ => u64::from(be32(entry, 0)),
                    }));
                }
                COMMIT if is_whole(16) => {
                    log.replacements.append(&mut pending);
                    for block in revoked.drain(..) {
                        log.revoked.insert(block, sequence);
                    }
                    sequence = sequence.wrapping_add(1);
                }
                // The end of what was written.
                _ => break,
            }
            if log.replacements.len().max(pending.len()).max(log.revoked.len()) > INSIDE_JOURNAL_MAX {
                return Err(("more blocks than are kept in memory".into(), place));
            }
        }
        Ok(log)
    }

    /// The tags of a descriptor block: block, flags, checksum.
    fn tags(&self, bytes: &[u8]) -> Vec<(u64, u32, Option<u32>)> {
        let (len, mut at, mut tags) = (self.tag_len(), 12usize, Vec::new());
        let end = bytes.len().saturating_sub(if self.has_checksums() { 4 } else { 0 });
        // Each takes eight bytes at least.
        while let Some(tag) = bytes.get(at..at.saturating_add(len)).filter(|_| at.saturating_add(len) <= end) {
            let is_v3 = self.features & INCOMPAT_CSUM_V3 != 0;
            let flags = if is_v3 { be32(tag, 4) } else { u32::from(be16(tag, 6)) };
            let has_high = self.features & INCOMPAT_64BIT != 0;
            let high = if has_high { be32(tag, 8) } else { 0 };
            tags.push((u64::from(high) << 32 | u64::from(be32(tag, 0)), flags, is_v3.then(|| be32(tag, 12))));
            at = at.saturating_add(len).saturating_add(if flags & SAME_UUID != 0 { 0 } else { 16 });
            if flags & LAST != 0 {
                break;
            }
        }
        tags
    }
}

/// Checks the journal. Where it is to be replayed, gives the disk as it will be then, and how many blocks differ.
pub(super) fn replayed(fs: &Fs<'_>, disk: &Arc<Metered>, contents: &mut Contents) -> Option<Arc<Metered>> {
    if fs.sb.s_feature_compat.get() & COMPAT_HAS_JOURNAL == 0 {
        return None;
    }
    let is_dirty = fs.sb.has_incompat(INCOMPAT_RECOVER);
    if external_journal(fs.sb) {
        contents.note("ext: the journal is on another device, and was not looked at");
        return None;
    }
    let code = "contents.ext.journal";
    let severity = if is_dirty { Severity::Error } else { Severity::Warning };
    let wanted = "a journal that can be replayed is wanted";
    let (journal, bytes) = match Journal::open(fs) {
        Ok(journal) => journal,
        Err((found, place)) => {
            contents.find(severity, code, ("the journal", place), found, wanted);
            return None;
        }
    };
    let (start, sequence) = (u64::from(be32(&bytes, 0x1c)), be32(&bytes, 0x18));
    if !is_dirty || start == 0 {
        return None;
    }
    if journal.features & !INCOMPAT_KNOWN != 0 {
        contents
            .note(format!("ext: features {:#x} of the journal are not known: it was not replayed", journal.features));
        return None;
    }
    if journal.features & INCOMPAT_FAST_COMMIT != 0 {
        contents.note("ext: fast commits of the journal were not replayed");
    }
    let log = match journal.read(start, sequence) {
        Ok(log) => log,
        Err((found, place)) => {
            contents.find(severity, code, ("the journal", place), found, wanted);
            return None;
        }
    };
    let mut blocks = BTreeMap::new();
    for Replacement { sequence, block, from, checksum } in &log.replacements {
        let is_revoked = log.revoked.get(block).is_some_and(|revoked| !is_behind(*sequence, *revoked));
        if is_revoked || *block >= fs.blocks {
            continue;
        }
        if let Some(wanted) = checksum {
            let seed = crc32c_raw(journal.seed, &sequence.to_be_bytes());
            let right = match fs.look.read(from.at, fs.block_len) {
                Ok(bytes) => crc32c_raw(seed, &bytes),
                Err(e) => {
                    contents.unread(fs.look, ("the journal", from.at), fs.block, &e);
                    return None;
                }
            };
            if right != *wanted {
                let structure = format!("block {block} in the journal");
                let expected = format!("the checksum is {right:#010x}");
                let code = "contents.ext.journal-checksum";
                contents.find(Severity::Error, code, (structure, from.at), format!("{wanted:#010x}"), expected);
                continue;
            }
        }
        blocks.insert(*block, *from);
    }
    contents
        .note(format!("ext: judged as it will be when its journal is replayed: {}", counted(blocks.len(), "block")));
    Some(disk.nested(Arc::new(Overlay::new(Arc::clone(disk), fs.block, blocks))))
}
