//! NTFS: each record of the MFT, the runs that it has, and the bitmap.
//!
//! | bytes of a name's value | field | | |
//! |---|---|---|---|
//! | 0 | record of the directory: 48 bits | 64, 65 | length in units, namespace: 2 is a short one |
//! | | | 66 | the name, UTF-16 |
//!
//! NTFS has no checksums: torn writes show by their fixups, and what does not agree. `attributes` has the runs, and `index`
//! directories. The source is the Linux-NTFS project's documentation.

use std::collections::BTreeMap;

use super::attributes::{Run, attributes, is_in_runs, runs};
use super::index::Index;
use super::{Boot, Contents, Severity, State, restore};
use crate::error::counted;
use crate::inside::full::{Claims, Coverage, words};
use crate::inside::look::{Look, field, le16, le64};
use crate::limits::{INSIDE_CLAIMS_MAX, INSIDE_JOURNAL_MAX, INSIDE_PATH_DEPTH_MAX};
use crate::num::{at_most, to_u64, to_usize};

const DATA: u32 = 0x80;
const NAME: u32 = 0x30;
const LOG: u64 = 2;
const BITMAP: u64 = 6;
/// Of the log: nobody has it open, and the flag that says that the volume was closed.
const NOBODY: u16 = 0xffff;
const CLOSED: u16 = 2;
const BAD_CLUSTERS: u64 = 8;
const ROOT: u64 = 5;
/// The records that the file system keeps for itself.
const RESERVED: u64 = 24;
/// How many records are read at once.
const WINDOW: u64 = 1 << 20;

struct Full<'a, 'b> {
    look: &'a Look<'a>,
    boot: &'a Boot,
    contents: &'b mut Contents,
    claims: Claims,
    clusters: u64,
    /// The runs of the MFT and of the bitmap, and the bitmap's bytes.
    mft: Vec<Run>,
    bitmap: Option<(Vec<Run>, u64)>,
    hits: BTreeMap<usize, u64>,
    is_partial: bool,
    index: Index,
    /// The first page of the log says that it was closed.
    is_log_closed: bool,
}

pub(super) fn check(look: &Look<'_>, boot: &Boot, contents: &mut Contents) {
    let clusters = boot.sectors.saturating_mul(boot.sector).checked_div(boot.cluster).unwrap_or(0);
    let there = look.len().checked_div(boot.cluster).unwrap_or(0);
    let Ok(len) = to_usize(boot.record) else { return };
    let first = look.bytes(boot.place(boot.mft_cluster(), 0), len).and_then(|bytes| restore(bytes).ok());
    // What is wrong with it has been said.
    let Some(first) = first else { return };
    let data = attributes(&first).0.into_iter().find(|(kind, attribute)| *kind == DATA && is_in_runs(attribute));
    let Some((runs, size)) = data.and_then(|(_, a)| Some((runs(a)?, le64(a, 48)))) else {
        let place = ("record 0 of $MFT", boot.place(boot.mft_cluster(), 0));
        return contents.find(Severity::Error, "contents.ntfs.runs", place, "no runs of $MFT", "its runs are wanted");
    };
    let mut full = Full {
        look,
        boot,
        contents,
        claims: Claims::new(clusters.min(there)),
        clusters,
        mft: runs,
        bitmap: None,
        hits: BTreeMap::new(),
        is_partial: false,
        index: Index::default(),
        is_log_closed: true,
    };
    full.records(size.checked_div(boot.record).unwrap_or(0));
    if !look.is_cancelled() {
        full.compare();
        full.indexes();
        full.name();
    }
}

impl Full<'_, '_> {
    /// Where the bytes of the MFT from `at` on are, and how many lie in one piece.
    fn place(&self, at: u64) -> Option<(u64, u64)> {
        let (cluster, within) = (at.checked_div(self.boot.cluster)?, at.checked_rem(self.boot.cluster)?);
        let mut before = 0u64;
        for run in &self.mft {
            let left = cluster.checked_sub(before)?;
            if left < run.len {
                let start = run.start?.checked_add(left)?.checked_mul(self.boot.cluster)?.checked_add(within)?;
                let len = run.len.checked_sub(left)?.checked_mul(self.boot.cluster)?.checked_sub(within)?;
                return Some((start, len));
            }
            before = before.checked_add(run.len)?;
        }
        None
    }

    fn records(&mut self, count: u64) {
        let size = self.boot.record;
        let mut n = 0;
        while n < count && !self.look.is_cancelled() {
            let Some((at, len)) = self.place(n.saturating_mul(size)) else {
                let place = ("$MFT", self.boot.place(self.boot.mft_cluster(), 0));
                let found = format!("no place of record {n}");
                self.is_partial = true;
                return self.contents.find(Severity::Error, "contents.ntfs.runs", place, found, "its runs have it");
            };
            let there = len.min(WINDOW).checked_div(size).unwrap_or(0).clamp(1, count.saturating_sub(n));
            let bytes = to_usize(there.saturating_mul(size)).and_then(|len| self.look.read(at, len));
            match bytes {
                Ok(bytes) => {
                    let step = at_most(size, bytes.len().max(1)).max(1);
                    for (k, record) in (0u64..).zip(bytes.chunks_exact(step)) {
                        let place = at.saturating_add(k.saturating_mul(size));
                        self.record(n.saturating_add(k), place, record);
                    }
                }
                Err(e) => {
                    self.is_partial = true;
                    self.contents.unread(self.look, ("$MFT", at), there.saturating_mul(size), &e);
                }
            }
            n = n.saturating_add(there);
        }
    }

    fn find(&mut self, code: &'static str, (n, place): (u64, u64), says: (String, String)) {
        self.is_partial = true;
        let structure = format!("record {n} of $MFT");
        if let Some(nth) = self.contents.find_nth(Severity::Error, code, (structure, place), says.0, says.1) {
            self.hits.insert(nth, n);
        }
    }

    fn record(&mut self, n: u64, place: u64, bytes: &[u8]) {
        // One that was never used may be anything; its flag tells, and one without its mark has none.
        let is_marked = bytes.starts_with(b"FILE");
        if !is_marked && bytes.iter().all(|byte| *byte == 0) && n >= RESERVED {
            return;
        }
        let is_used = le16(bytes, 22) & 1 != 0;
        if is_marked && !is_used {
            return;
        }
        let record = match restore(bytes.to_vec()) {
            Ok(record) => record,
            // The first are compared with their mirror.
            Err(_) if n < super::RECORDS_MIRRORED => {
                self.is_partial = true;
                return;
            }
            Err(says) => return self.find("contents.ntfs.mft-record", (n, place), says),
        };
        let (all, is_whole) = attributes(&record);
        if !is_whole {
            let says = (format!("{} attributes and no end of them", all.len()), "an end within the record".to_owned());
            return self.find("contents.ntfs.attribute", (n, place), says);
        }
        if n == LOG {
            self.is_log_closed = self.is_closed(&all);
        }
        self.index.take(n, place, &record, &all);
        for (kind, attribute) in all.iter().filter(|(_, attribute)| is_in_runs(attribute)) {
            let Some(runs) = runs(attribute) else {
                let says = (format!("runs of attribute {kind:#x} that cannot be"), "lengths and places".to_owned());
                self.find("contents.ntfs.runs", (n, place), says);
                continue;
            };
            let sum = runs.iter().fold(0u64, |sum, run| sum.saturating_add(run.len));
            let wanted = le64(attribute, 24).wrapping_add(1).wrapping_sub(le64(attribute, 16));
            if sum != wanted {
                let says = (
                    format!("{} in the runs of attribute {kind:#x}", counted(sum, "cluster")),
                    format!("{wanted} are wanted"),
                );
                self.find("contents.ntfs.runs", (n, place), says);
            }
            if n == BITMAP && *kind == DATA {
                self.bitmap = Some((runs.clone(), le64(attribute, 48)));
            }
            for run in &runs {
                self.claim((n, place), *kind, *run);
            }
        }
    }

    fn claim(&mut self, at: (u64, u64), kind: u32, run: Run) {
        let Some(start) = run.start else { return };
        let end = start.checked_add(run.len).filter(|end| *end <= self.clusters);
        // The last cluster may be cut off, and holds the copy of the boot sector.
        if end.is_none() {
            let found = format!("{} at cluster {start}, of attribute {kind:#x}", counted(run.len, "cluster"));
            return self.find("contents.ntfs.runs", at, (found, format!("there are {}", self.clusters)));
        }
        if let Some(cluster) = self.claims.claim(start, run.len).filter(|_| at.0 != BAD_CLUSTERS) {
            let says = (format!("cluster {cluster}, of attribute {kind:#x}"), "another has it".to_owned());
            self.find("contents.ntfs.cluster-claimed-twice", at, says);
        }
    }

    /// Compares the bitmap with what is claimed.
    fn compare(&mut self) {
        let Some((runs, size)) = self.bitmap.take() else { return };
        if self.claims.is_full() || size > to_u64(INSIDE_CLAIMS_MAX) {
            return self
                .contents
                .note("ntfs: not all clusters in use were kept in memory: the bitmap was not compared");
        }
        let (mut base, mut used) = (0u64, 0u64);
        let (mut lost, mut idle) = ((0u64, None), (0u64, None));
        for run in runs {
            let len = run.len.saturating_mul(self.boot.cluster).min(size.saturating_sub(base));
            let (mut done, Some(start)) = (0u64, run.start) else { continue };
            while done < len {
                let now = WINDOW.min(len.saturating_sub(done));
                let at = start.saturating_mul(self.boot.cluster).saturating_add(done);
                let bytes = match to_usize(now).and_then(|now| self.look.read(at, now)) {
                    Ok(bytes) => bytes,
                    Err(e) => {
                        self.is_partial = true;
                        return self.contents.unread(self.look, ("$Bitmap", at), now, &e);
                    }
                };
                let first = base.saturating_add(done).saturating_mul(8);
                let bits = self.clusters.saturating_sub(first).min(now.saturating_mul(8));
                for (bit, word) in words(&bytes, bits) {
                    used = used.saturating_add(word.count_ones().into());
                    let valid = u64::MAX >> 64u64.saturating_sub(bits.saturating_sub(bit).min(64));
                    let number = first.saturating_add(bit);
                    let claimed = self.claims.word(number) & valid;
                    for (sum, differ) in [(&mut lost, claimed & !word), (&mut idle, word & !claimed)] {
                        sum.0 = sum.0.saturating_add(differ.count_ones().into());
                        if differ != 0 && sum.1.is_none() {
                            let cluster = number.saturating_add(differ.trailing_zeros().into());
                            sum.1 = Some((cluster, at.saturating_add(bit / 8)));
                        }
                    }
                }
                done = done.saturating_add(now);
            }
            base = base.saturating_add(len);
        }
        let code = "contents.ntfs.bitmap";
        // Without the journal it may be late.
        let is_clean = self.contents.state == State::Clean && self.is_log_closed;
        if let (count, Some((cluster, at))) = lost {
            let severity = if is_clean { Severity::Error } else { Severity::Warning };
            let found = format!("{} free, the first {cluster}", counted(count, "cluster"));
            self.contents.find(severity, code, ("$Bitmap", at), found, "they are in use");
        }
        if let ((count, Some((cluster, at))), false) = (idle, self.is_partial || !is_clean) {
            let found = format!("{} in use, the first {cluster}", counted(count, "cluster"));
            self.contents.find(Severity::Warning, code, ("$Bitmap", at), found, "nothing has them");
        }
        let len = self.look.len();
        let behind = len.saturating_sub(self.boot.copy_at().saturating_add(self.boot.sector));
        let free = self.clusters.saturating_sub(used).saturating_mul(self.boot.cluster).saturating_add(behind);
        self.contents.coverage = Some(Coverage::of(len, 0, free));
    }

    /// Whether the log, which is not replayed, has nothing to be replayed. It begins with two pages; the later one counts.
    fn is_closed(&self, all: &[(u32, &[u8])]) -> bool {
        let data = all.iter().find(|(kind, attribute)| *kind == DATA && is_in_runs(attribute));
        let first = data.and_then(|(_, a)| runs(a)).and_then(|runs| runs.first().copied());
        let Some(start) = first.and_then(|run| run.start).and_then(|start| start.checked_mul(self.boot.cluster)) else {
            return true;
        };
        let mut latest = (0, true);
        for page in [0, 4096u64] {
            let Some(bytes) = self.look.bytes(start.saturating_add(page), 512).filter(|b| b.starts_with(b"RSTR"))
            else {
                continue;
            };
            let area = usize::from(le16(&bytes, 24));
            let number = le64(&bytes, area);
            let is_closed =
                le16(&bytes, area.saturating_add(12)) == NOBODY || le16(&bytes, area.saturating_add(14)) & CLOSED != 0;
            if number >= latest.0 {
                latest = (number, is_closed);
            }
        }
        latest.1
    }

    /// Directories, and what they and the records say of each other.
    fn indexes(&mut self) {
        let is_settled = self.contents.state == State::Clean && self.is_log_closed;
        if !is_settled {
            self.contents.note("ntfs: its log has to be replayed: directories were not held against their records");
        }
        let index = std::mem::take(&mut self.index);
        let place = |n: u64| self.place(n.checked_mul(self.boot.record)?).map(|(at, _)| at);
        let odd = index.check(self.look, self.boot, &place, is_settled && !self.is_partial);
        for (n, severity, code, (structure, at), (found, expected)) in odd {
            // What the log is to put right is not judged yet.
            let severity = if is_settled { severity } else { Severity::Note };
            let nth = self.contents.find_nth(severity, code, (structure, at), found, expected);
            self.hits.extend(nth.map(|nth| (nth, n)));
        }
    }

    /// Names the files that findings hit.
    fn name(&mut self) {
        for (nth, n) in std::mem::take(&mut self.hits).into_iter().take(INSIDE_JOURNAL_MAX) {
            let path = self.path(n);
            self.contents.findings.get_mut(nth).into_iter().for_each(|finding| finding.path.clone_from(&path));
        }
    }

    fn path(&self, mut n: u64) -> Option<String> {
        let mut path = String::new();
        for _ in 0..INSIDE_PATH_DEPTH_MAX {
            if n == ROOT {
                return Some(if path.is_empty() { "/".into() } else { path });
            }
            let (at, _) = self.place(n.checked_mul(self.boot.record)?)?;
            let record = restore(self.look.bytes(at, to_usize(self.boot.record).ok()?)?).ok()?;
            let (all, _) = attributes(&record);
            let values = all.iter().filter(|(kind, a)| *kind == NAME && !is_in_runs(a));
            let mut names: Vec<&[u8]> =
                values.filter_map(|(_, a)| a.get(usize::from(le16(a, 20))..)).filter(|v| v.len() >= 68).collect();
            // A short name is of people who have no other.
            names.sort_by_key(|value| field(value, 65) == [2u8]);
            let value = names.first()?;
            let [len] = field(value, 64);
            let units = value.get(66..)?.chunks_exact(2).take(len.into()).map(|unit| le16(unit, 0));
            let name = String::from_utf16_lossy(&units.collect::<Vec<_>>());
            path = format!("/{name}{path}");
            n = le64(value, 0) & 0xffff_ffff_ffff;
        }
        None
    }
}
