//! qcow2's books: how often each cluster of the file is used, against the reference count that it has.
//!
//! The table of reference counts points to blocks, a cluster long each, of one count of `1 << refcount_order` bits a cluster
//! of the file. A cluster is used by the header, by the tables of counts, by that of the snapshots, by a bitmap, by an L1
//! table, and, for each L1 table that leads to it, as an L2 table or as data. What is compressed shares clusters with its
//! neighbours. An L1 or L2 entry has bit 63 (`COPIED`) where the count of its cluster is 1; that is of the last state alone.
//!
//! Whether one state's table is another state's data is not looked at. A disk is read without these books. A count that is too low lets the next writer take a cluster that is in use; one that
//! is too high loses room; and a cluster in two uses holds the bytes of one of them at most.

use std::ops::Range;
use std::sync::Arc;

use super::extensions::Bitmaps;
use super::{L2_COMPRESSED, OFFSET};
use crate::error::{Error, ErrorKind, Result, counted};
use crate::format::cache::Pages;
use crate::format::checks::{Bookkeeping, Doubt, Weight};
use crate::format::fields;
use crate::io::ReadAt;
use crate::limits::{QCOW2_CHECK_CLUSTERS_MAX, QCOW2_CHECK_TABLES_MAX, QCOW2_L1_SIZE_MAX, QCOW2_REFCOUNT_TABLE_MAX};
use crate::num::{at_most, to_u64, to_usize};
use crate::progress::Progress;

const COPIED: u64 = 1 << 63;
/// Bits 9 to 63 of an entry of the table of reference counts: the offset of a block.
const BLOCK: u64 = !0x1ff;
/// Clusters whose uses are counted at a time, in 8 bytes each.
const WINDOW: u64 = 1 << 22;

/// An L1 table, and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub l1_table_offset: u64,
    pub l1_size: u64,
    /// It is the one that is read.
    pub is_read: bool,
}

/// What the books are kept of.
pub(super) struct References {
    pub file: Arc<dyn ReadAt>,
    pub cluster_bits: u32,
    /// log2 of how many bits a count has, 6 at most.
    pub refcount_order: u32,
    pub refcount_table_offset: u64,
    pub refcount_table_clusters: u64,
    /// The last state of the disk, and behind it those of the snapshots.
    pub states: Vec<State>,
    /// What else the header leads to.
    pub others: Vec<Range<u64>>,
    pub bitmaps: Option<Bitmaps>,
    pub extended_l2: bool,
    /// Marked as not closed cleanly: its counts may lag behind.
    pub is_dirty: bool,
}

/// The uses of one cluster.
#[derive(Clone, Copy, Default)]
struct Cell {
    count: u16,
    /// It is used by something that is of no state.
    is_fixed: bool,
    /// The last state, counted from 1 on, that has it as a table or as data.
    whole: u16,
    /// The last state that has something compressed in it.
    packed: u16,
}
const _: () = assert!(size_of::<Cell>() == 8);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Of no state; the disk that is read hangs on it.
    Fixed,
    /// Of a bitmap, or of a snapshot's table.
    Aside,
    Whole(u16),
    Packed(u16),
}

/// Clusters of one kind: the first of them, and how many.
#[derive(Default)]
struct Tally {
    first: Option<u64>,
    count: u64,
}

impl Tally {
    fn add(&mut self, at: u64) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.count = self.count.saturating_add(1);
    }

    /// The doubt, where there is one; `says` has the number in words.
    fn doubt(&self, weight: Weight, rule: &'static str, what: &str, says: &str) -> Option<Doubt> {
        let first = self.first?;
        let message = format!("{}, the first at byte {first}: {says}", counted(self.count, what));
        Some(Doubt { weight, rule, at: Some(first), message })
    }
}

#[derive(Default)]
struct Found {
    twice: Tally,
    twice_elsewhere: Tally,
    beyond: Tally,
    wrong: Tally,
    copied: Tally,
    low: Tally,
    leaked: Tally,
}

/// The walk, for the clusters of one window.
struct Walk<'a> {
    of: &'a References,
    progress: &'a Progress,
    pages: Pages,
    first: u64,
    cells: Vec<Cell>,
    found: Found,
    /// Bytes of tables that may still be read.
    left: u64,
}

impl Bookkeeping for References {
    #[expect(clippy::arithmetic_side_effects, reason = "there are 2^30 clusters at most")]
    fn check(&self, progress: &Progress) -> Result<Vec<Doubt>> {
        let clusters = self.file.len().div_ceil(self.cluster());
        let unchecked = |why: String| Doubt {
            weight: Weight::Note,
            rule: "qcow2.not-checked",
            at: None,
            message: format!("the reference counts of the clusters were not checked: {why}"),
        };
        if clusters > QCOW2_CHECK_CLUSTERS_MAX {
            return Ok(vec![unchecked(format!("there are {clusters}; {QCOW2_CHECK_CLUSTERS_MAX} are gone through"))]);
        }
        if self.states.len() >= usize::from(u16::MAX) {
            return Ok(vec![unchecked(format!("the disk has {} states", self.states.len()))]);
        }
        if let Some(large) = self.states.iter().find(|state| state.l1_size.saturating_mul(8) > QCOW2_L1_SIZE_MAX) {
            let allowed = QCOW2_L1_SIZE_MAX / 8;
            return Ok(vec![unchecked(format!("an L1 table has {} entries; {allowed} are allowed", large.l1_size))]);
        }
        let table_bytes = self.refcount_table_clusters.saturating_mul(self.cluster());
        let wrong_table = self.refcount_order > 6
            || table_bytes > QCOW2_REFCOUNT_TABLE_MAX
            || !self.refcount_table_offset.is_multiple_of(self.cluster())
            || self.refcount_table_offset.checked_add(table_bytes).is_none_or(|end| end > clusters * self.cluster());
        if wrong_table {
            let message = format!(
                "the table of reference counts is said to be {table_bytes} bytes at byte {}, of counts of 2^{} bits",
                self.refcount_table_offset, self.refcount_order
            );
            return Ok(vec![Doubt { weight: Weight::Warning, rule: "qcow2.refcount-table", at: Some(48), message }]);
        }
        let mut walk = Walk {
            of: self,
            progress,
            pages: Pages::new(Arc::clone(&self.file)),
            first: 0,
            cells: Vec::new(),
            found: Found::default(),
            left: QCOW2_CHECK_TABLES_MAX,
        };
        while walk.first < clusters {
            let len = to_usize(WINDOW.min(clusters - walk.first))?;
            walk.cells.clear();
            walk.cells.resize(len, Cell::default());
            match walk.window() {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::LimitExceeded => {
                    let mut doubts = walk.found.doubts(self);
                    doubts.push(unchecked(e.message().to_owned()));
                    return Ok(doubts);
                }
                Err(e) => return Err(e),
            }
            walk.first += to_u64(len);
        }
        Ok(walk.found.doubts(self))
    }
}

impl References {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }
}

impl Found {
    fn doubts(&self, of: &References) -> Vec<Doubt> {
        let low = if of.is_dirty { Weight::Note } else { Weight::Warning };
        let twice = "what one of the two held was overwritten with the other";
        let all = [
            self.twice.doubt(Weight::Error, "qcow2.claimed-twice", "cluster in two uses", twice),
            self.twice_elsewhere.doubt(
                Weight::Warning,
                "qcow2.claimed-twice",
                "cluster of another state of the disk in two uses",
                twice,
            ),
            self.beyond.doubt(
                Weight::Warning,
                "qcow2.beyond-end",
                "cluster behind the end of the file",
                "the file is cut off, or its tables are damaged",
            ),
            self.wrong.doubt(
                Weight::Warning,
                "qcow2.entry",
                "entry that no table can have",
                "its place is in the middle of a cluster, or bits are set that cannot be",
            ),
            self.low.doubt(
                low,
                "qcow2.refcount",
                "cluster with a reference count that is too low",
                "it reads as it should, and the next that writes to the image may overwrite it",
            ),
            self.copied.doubt(
                low,
                "qcow2.copied",
                "entry that contradicts its cluster's reference count",
                "it reads as it should, and the next that writes to the image may write into a snapshot",
            ),
            self.leaked.doubt(
                Weight::Note,
                "qcow2.leak",
                "cluster that nothing uses, or fewer than its reference count says",
                "its room is lost until qemu-img check -r leaks mends it",
            ),
        ];
        all.into_iter().flatten().collect()
    }
}

impl Walk<'_> {
    fn is_first(&self) -> bool {
        self.first == 0
    }

    /// Takes `bytes` of what may be read of tables.
    fn take(&mut self, bytes: u64) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or_else(|| {
            let message = format!("its tables have more than {QCOW2_CHECK_TABLES_MAX} bytes");
            Error::limit("qcow2.not-checked", message)
        })?;
        Ok(())
    }

    /// Counts a use of the clusters from byte `start` to byte `end`; whether none of them is in another use that cannot be.
    fn claim(&mut self, start: u64, end: u64, by: Use) -> bool {
        let bits = self.of.cluster_bits;
        let cluster = self.of.cluster();
        let last = end.saturating_sub(1) >> bits;
        if self.is_first() && last >= self.of.file.len().div_ceil(cluster) {
            self.found.beyond.add(start);
        }
        let behind = self.first.saturating_add(to_u64(self.cells.len()));
        let mut is_free = true;
        for n in (start >> bits).max(self.first)..last.saturating_add(1).min(behind) {
            let index = at_most(n.saturating_sub(self.first), self.cells.len());
            let Some(cell) = self.cells.get_mut(index) else { break };
            cell.count = cell.count.saturating_add(1);
            let (is_taken, state) = match by {
                Use::Fixed => (std::mem::replace(&mut cell.is_fixed, true), None),
                // No state has the number 0.
                Use::Aside => (std::mem::replace(&mut cell.is_fixed, true), Some(0)),
                Use::Whole(state) => {
                    let taken = cell.is_fixed || cell.whole == state || cell.packed == state;
                    cell.whole = state;
                    (taken, Some(state))
                }
                Use::Packed(state) => {
                    let taken = cell.is_fixed || cell.whole == state;
                    cell.packed = state;
                    (taken, Some(state))
                }
            };
            if is_taken {
                is_free = false;
                let is_read = state.is_none_or(|state: u16| {
                    let n = state.checked_sub(1).map(usize::from);
                    n.and_then(|n| self.of.states.get(n)).is_some_and(|state| state.is_read)
                });
                let tally = if is_read { &mut self.found.twice } else { &mut self.found.twice_elsewhere };
                tally.add(n << bits);
            }
        }
        is_free
    }

    fn window(&mut self) -> Result<()> {
        let of = self.of;
        let cluster = of.cluster();
        self.claim(0, cluster, Use::Fixed);
        for range in &of.others {
            if !range.is_empty() {
                self.claim(range.start, range.end, Use::Fixed);
            }
        }
        self.fixed_tables()?;
        for state in &of.states {
            if state.l1_size > 0 {
                let bytes = state.l1_size.saturating_mul(8);
                self.take(bytes)?;
                let by = if state.is_read { Use::Fixed } else { Use::Aside };
                self.claim(state.l1_table_offset, state.l1_table_offset.saturating_add(bytes), by);
            }
        }
        for (n, state) in of.states.iter().enumerate() {
            let number = u16::try_from(n.saturating_add(1)).unwrap_or(u16::MAX);
            self.state(state, number)?;
        }
        self.compare()
    }

    /// The tables of counts, and the bitmaps.
    fn fixed_tables(&mut self) -> Result<()> {
        let of = self.of;
        let table_bytes = of.refcount_table_clusters.saturating_mul(of.cluster());
        let table_end = of.refcount_table_offset.saturating_add(table_bytes);
        if table_bytes > 0 {
            self.claim(of.refcount_table_offset, table_end, Use::Fixed);
        }
        self.take(table_bytes)?;
        for entry in self.table(of.refcount_table_offset..table_end)? {
            self.leads_to(entry & BLOCK, entry, Use::Fixed);
        }
        let Some(bitmaps) = &of.bitmaps else { return Ok(()) };
        self.take(bitmaps.directory.end.saturating_sub(bitmaps.directory.start))?;
        self.claim(bitmaps.directory.start, bitmaps.directory.end, Use::Aside);
        let tables = match bitmaps.tables(&self.pages) {
            Ok(tables) => tables,
            Err(e) if e.kind() == ErrorKind::Io => return Err(e),
            // The disk does not hang on them.
            Err(_) => {
                self.found.wrong.add(bitmaps.directory.start);
                return Ok(());
            }
        };
        for table in tables {
            self.take(table.end.saturating_sub(table.start))?;
            self.claim(table.start, table.end, Use::Aside);
            for entry in self.table(table)? {
                // Bit 0 is of one that has no cluster, and all of whose bits are set.
                self.leads_to(entry & OFFSET, entry & !1, Use::Aside);
            }
        }
        Ok(())
    }

    /// A use by an entry of a table of no state, which has nothing but a place.
    fn leads_to(&mut self, at: u64, entry: u64, by: Use) {
        if entry != at || !at.is_multiple_of(self.of.cluster()) {
            if self.is_first() {
                self.found.wrong.add(at);
            }
        } else if at != 0 {
            self.claim(at, at.saturating_add(self.of.cluster()), by);
        }
    }

    /// The entries of a table of 8 bytes each, as far as the file has it.
    fn table(&mut self, range: Range<u64>) -> Result<Vec<u64>> {
        let end = range.end.min(self.of.file.len());
        let mut bytes = vec![0; to_usize(end.saturating_sub(range.start))?];
        if !bytes.is_empty() {
            fields::fill(&*self.of.file, &mut bytes, range.start, "container.truncated", "a table")?;
        }
        let (entries, _) = bytes.as_chunks::<8>();
        Ok(entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
    }

    /// All that an L1 table leads to.
    fn state(&mut self, state: &State, number: u16) -> Result<()> {
        let of = self.of;
        let l1_bytes = state.l1_size.saturating_mul(8);
        self.take(l1_bytes)?;
        let l1 = self.table(state.l1_table_offset..state.l1_table_offset.saturating_add(l1_bytes))?;
        for entry in l1 {
            let at = entry & OFFSET;
            self.see(entry, at, number, entry & !(OFFSET | COPIED) != 0);
            if at == 0 || !at.is_multiple_of(of.cluster()) {
                continue;
            }
            let end = at.saturating_add(of.cluster());
            if self.claim(at, end, Use::Whole(number)) && end <= of.file.len() {
                self.take(of.cluster())?;
                let l2 = self.table(at..end)?;
                self.l2(&l2, number);
            }
        }
        Ok(())
    }

    fn l2(&mut self, entries: &[u64], number: u16) {
        let of = self.of;
        let (step, zero) = if of.extended_l2 { (2, 0) } else { (1, super::L2_ZERO) };
        for entry in entries.chunks_exact(step) {
            let (entry, bitmap) = (entry.first().copied().unwrap_or(0), entry.get(1).copied().unwrap_or(0));
            // Subclusters that are data, in the lower half, are not zeroes as well, and have a place.
            let (data, zeroes) = (bitmap & u64::from(u32::MAX), bitmap >> 32);
            let has_place = entry & (L2_COMPRESSED | OFFSET) == entry & OFFSET && entry & OFFSET != 0;
            if self.is_first() && (data & zeroes != 0 || data != 0 && !has_place) {
                self.found.wrong.add(entry & OFFSET);
            }
            if entry & L2_COMPRESSED != 0 {
                let (start, end) = super::packed_range(entry, of.cluster_bits);
                self.claim(start, end, Use::Packed(number));
                continue;
            }
            let at = entry & OFFSET;
            self.see(entry, at, number, entry & !(OFFSET | COPIED | zero) != 0);
            if at != 0 && at.is_multiple_of(of.cluster()) {
                self.claim(at, at.saturating_add(of.cluster()), Use::Whole(number));
            }
        }
    }

    /// What is wrong with an entry itself.
    fn see(&mut self, entry: u64, at: u64, number: u16, has_reserved: bool) {
        if !self.is_first() {
            return;
        }
        if has_reserved || !at.is_multiple_of(self.of.cluster()) {
            self.found.wrong.add(at);
        }
        // Only the last state's entries say it.
        if number == 1 && at != 0 && at < self.of.file.len() {
            let is_one = self.count_of(at >> self.of.cluster_bits).is_ok_and(|count| count == 1);
            if is_one != (entry & COPIED != 0) {
                self.found.copied.add(at);
            }
        }
    }

    /// The reference count of a cluster, of any of the file.
    #[expect(clippy::arithmetic_side_effects, reason = "a block has 2^9 * 8 / 64 to 2^21 * 8 counts")]
    fn count_of(&self, cluster: u64) -> Result<u64> {
        let order = self.of.refcount_order;
        let in_block = (self.of.cluster() << 3) >> order;
        let entry = cluster / in_block;
        if entry >= self.of.refcount_table_clusters.saturating_mul(self.of.cluster() / 8) {
            return Ok(0);
        }
        let entry_at = self.of.refcount_table_offset.saturating_add(entry * 8);
        let block = u64::from_be_bytes(self.pages.entry(entry_at)?) & BLOCK;
        if block == 0 {
            return Ok(0);
        }
        let bit = (cluster % in_block) << order;
        let at = block.saturating_add(bit / 8);
        Ok(match order {
            6 => u64::from_be_bytes(self.pages.entry(at)?),
            5 => u32::from_be_bytes(self.pages.entry(at)?).into(),
            4 => u16::from_be_bytes(self.pages.entry(at)?).into(),
            _ => {
                let [byte] = self.pages.entry::<1>(at)?;
                u64::from(byte) >> (bit % 8) & ((1 << (1 << order)) - 1)
            }
        })
    }

    /// The uses of the window's clusters against their counts.
    fn compare(&mut self) -> Result<()> {
        for (n, cell) in self.cells.iter().enumerate() {
            let cluster = self.first.saturating_add(to_u64(n));
            if n % 65_536 == 0 && self.progress.is_cancelled() {
                return Err(Error::cancelled());
            }
            let count = match self.count_of(cluster) {
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Io => return Err(e),
                // A block that is not in the file counts nothing.
                Err(_) => 0,
            };
            let uses = u64::from(cell.count);
            let at = cluster << self.of.cluster_bits;
            if uses > count {
                self.found.low.add(at);
            } else if uses < count && cell.count != u16::MAX {
                self.found.leaked.add(at);
            }
        }
        Ok(())
    }
}
