//! NTFS: directories, each entry of them against the record that it leads to, and the number of a record's names.
//!
//! | bytes of the root's value | field | bytes of a block | field | bytes of an entry | field |
//! |---|---|---|---|---|---|
//! | 8 | bytes of a block | 0, 4, 6 | `INDX`, update sequence | 0 | record (48 bits), its sequence |
//! | 16 | entries | 16 | own place, in clusters | 8, 10 | length, length of the name |
//! | | | 24 | entries | 12 | flags: 1 a block below, 2 the last |
//! | | | | | 16 | the name's value |
//!
//! What is called entries above begins with the place of the first and the end of them (u32), from there on. The block below
//! an entry is in its last eight bytes: in clusters or, where blocks are smaller than those, in units of 512 bytes. A record
//! has its sequence at byte 16 and the number of its names, short ones among them, at 18; names may be in records of their
//! own, which say the first at byte 32. The source is the Linux-NTFS project's documentation and Linux's `fs/ntfs3/index.c`.

use std::collections::{HashMap, HashSet};

use super::attributes::{Run, attributes, is_of_names, runs, value};
use super::{Boot, Severity, restore, restore_as};
use crate::error::{ErrorKind, counted};
use crate::inside::look::{Look, field, le16, le32, le64};
use crate::limits::{INSIDE_DIRECTORIES_MAX, INSIDE_INODES_MAX};
use crate::num::{at_most, from_u32, to_usize};

const NAME: u32 = 0x30;
const ROOT: u32 = 0x90;
const ALLOCATION: u32 = 0xa0;
const IS_DIRECTORY: u16 = 2;
const HAS_BLOCK: u16 = 1;
const LAST: u16 = 2;
const NUMBER: u64 = 0xffff_ffff_ffff;
/// Records that the file system keeps for itself, some of which have no name or one more.
const RESERVED: u64 = 24;
const BLOCK_MAX: u64 = 65536;
const DEPTH_MAX: usize = 32;
/// How many odd entries of a directory are kept.
const ODD_MAX: usize = 8;
const CODE: &str = "contents.ntfs.index";

/// The record, how bad it is, the code, what it is of and where, and what is said.
pub(super) type Odd = (u64, Severity, &'static str, (String, u64), (String, String));

/// What is known of a record.
struct Seen {
    place: u64,
    sequence: u16,
    links: u16,
    names: u16,
    entries: u16,
}

/// What a pass over the records gathers of directories.
#[derive(Default)]
pub(super) struct Index {
    seen: HashMap<u64, Seen>,
    directories: Vec<u64>,
    /// The runs of their blocks, by the first cluster of each piece.
    blocks: HashMap<u64, Vec<(u64, Vec<Run>)>>,
    kept_runs: usize,
    is_full: bool,
}

impl Index {
    /// Takes a record in use.
    pub(super) fn take(&mut self, n: u64, place: u64, record: &[u8], all: &[(u32, &[u8])]) {
        // A further record of $MFT itself leads to number 0, with a sequence.
        let is_own = le64(record, 32) == 0;
        let owner = if is_own { n } else { le64(record, 32) & NUMBER };
        let names = all.iter().filter(|(kind, _)| *kind == NAME).count();
        // Each takes 32 bytes, and links of ext 8.
        if self.seen.len() >= INSIDE_INODES_MAX / 8 {
            self.is_full = true;
            return;
        }
        let empty = Seen { place, sequence: 0, links: 0, names: 0, entries: 0 };
        let seen = self.seen.entry(owner).or_insert(empty);
        seen.names = seen.names.saturating_add(u16::try_from(names).unwrap_or(u16::MAX));
        if is_own {
            (seen.place, seen.sequence, seen.links) = (place, le16(record, 16), le16(record, 18));
            if le16(record, 22) & IS_DIRECTORY != 0 {
                self.directories.push(n);
            }
        }
        let is_it = |(kind, attribute): &&(u32, &[u8])| *kind == ALLOCATION && is_of_names(attribute);
        for (_, attribute) in all.iter().filter(is_it) {
            let runs = runs(attribute).unwrap_or_default();
            self.kept_runs = self.kept_runs.saturating_add(runs.len()).saturating_add(1);
            if self.kept_runs > INSIDE_DIRECTORIES_MAX {
                self.is_full = true;
                return;
            }
            self.blocks.entry(owner).or_default().push((le64(attribute, 16), runs));
        }
    }

    /// Goes into all directories. `place` is where a record is; only where all `is_settled` are they held against records.
    pub(super) fn check(
        mut self,
        look: &Look<'_>,
        boot: &Boot,
        place: &dyn Fn(u64) -> Option<u64>,
        is_settled: bool,
    ) -> Vec<Odd> {
        let mut odd = Vec::new();
        let mut is_whole = is_settled && !self.is_full;
        for n in std::mem::take(&mut self.directories) {
            if look.is_cancelled() {
                return odd;
            }
            let bytes = place(n).and_then(|at| Some((at, look.bytes(at, to_usize(boot.record).ok()?)?)));
            let Some((at, record)) = bytes.and_then(|(at, bytes)| Some((at, restore(bytes).ok()?))) else {
                // What cannot be read is said where records are gone through.
                is_whole = false;
                continue;
            };
            let mut pieces = self.blocks.remove(&n).unwrap_or_default();
            pieces.sort_by_key(|(first, _)| *first);
            let mut walk =
                Walk { look, boot, runs: pieces, size: 0, n, odd: Vec::new(), seen: HashSet::new(), is_over: false };
            let own = self.seen.get(&n).map_or(0, |seen| seen.sequence);
            let mut held = Vec::new();
            let is_read = walk.root(at, &record, &mut |place, entry| {
                let says = if is_settled && !self.is_full { self.hold((n, own), &entry) } else { None };
                if held.len() < ODD_MAX {
                    let structure = (format!("the index of record {n}"), place);
                    held.extend(says.map(|says| (n, Severity::Warning, "contents.ntfs.index-entry", structure, says)));
                }
            });
            odd.append(&mut walk.odd);
            odd.append(&mut held);
            is_whole &= is_read.is_some();
        }
        if is_whole {
            odd.extend(self.counts());
        }
        odd
    }

    /// Holds an entry of a directory against the record that it leads to.
    fn hold(&mut self, (n, own): (u64, u16), entry: &Entry) -> Option<(String, String)> {
        let (number, sequence) = (entry.record & NUMBER, entry.record >> 48);
        let (above, above_sequence) = (entry.above & NUMBER, entry.above >> 48);
        let name = || format!("record {number} with sequence {sequence} by the name \"{}\"", entry.name);
        let Some(seen) = self.seen.get_mut(&number) else {
            return Some((name(), "it is not in use".to_owned()));
        };
        seen.entries = seen.entries.saturating_add(1);
        // 0 is not looked at.
        if sequence != 0 && sequence != u64::from(seen.sequence) {
            return Some((name(), format!("its sequence is {}", seen.sequence)));
        }
        let is_above = above == n && (above_sequence == 0 || above_sequence == u64::from(own));
        let other = || (format!("\"{}\" as a name of record {above}", entry.name), format!("it is in record {n}"));
        (!is_above).then(other)
    }

    /// Compares the numbers of names.
    fn counts(&self) -> Vec<Odd> {
        let mut all: Vec<_> = self.seen.iter().filter(|(n, _)| **n >= RESERVED).collect();
        all.sort_unstable_by_key(|(n, _)| **n);
        let wrong = all.into_iter().filter(|(_, seen)| seen.names != seen.links || seen.names != seen.entries);
        let each = wrong.map(|(n, seen)| {
            let found = format!("{} by its record, which has {}", counted(seen.links, "name"), seen.names);
            let place = (format!("record {n} of $MFT"), seen.place);
            let says = (found, format!("{} in directories", counted(seen.entries, "entry")));
            (*n, Severity::Warning, "contents.ntfs.links", place, says)
        });
        each.take(INSIDE_DIRECTORIES_MAX / 64).collect()
    }
}

/// An entry of a directory.
struct Entry {
    record: u64,
    /// The directory that its name says.
    above: u64,
    name: String,
}

/// What goes through a directory.
struct Walk<'a> {
    look: &'a Look<'a>,
    boot: &'a Boot,
    runs: Vec<(u64, Vec<Run>)>,
    /// Bytes of a block.
    size: u64,
    n: u64,
    odd: Vec<Odd>,
    seen: HashSet<u64>,
    is_over: bool,
}

impl Walk<'_> {
    fn find(&mut self, what: &str, place: u64, says: (String, String)) -> Option<()> {
        let structure = format!("{what} of record {}", self.n);
        self.odd.push((self.n, Severity::Error, CODE, (structure, place), says));
        None
    }

    /// Goes through the entries in the record, and all blocks below. Nothing where something could not be gone into.
    fn root(&mut self, at: u64, record: &[u8], each: &mut dyn FnMut(u64, Entry)) -> Option<()> {
        let (all, _) = attributes(record);
        let is_it = |(kind, attribute): &&(u32, &[u8])| *kind == ROOT && is_of_names(attribute);
        // It may be in another record, where a list of attributes says so.
        let (_, attribute) = all.iter().find(is_it)?;
        let value = value(attribute).filter(|value| value.len() >= 32);
        let Some(value) = value else {
            return self.find("the root of the index", at, ("no room for it".into(), "32 bytes or more".into()));
        };
        self.size = u64::from(le32(value, 8));
        if !self.size.is_power_of_two() || !(512..=BLOCK_MAX).contains(&self.size) {
            let says = (format!("blocks of {} bytes", self.size), "a power of 2, 512 to 65536".to_owned());
            return self.find("the root of the index", at, says);
        }
        let rest = value.get(16..).unwrap_or_default();
        self.entries("the root of the index", at, rest, (0, each))
    }

    fn entries(
        &mut self,
        what: &str,
        place: u64,
        bytes: &[u8],
        (depth, each): (usize, &mut dyn FnMut(u64, Entry)),
    ) -> Option<()> {
        let (mut at, end) = (from_u32(le32(bytes, 0)), from_u32(le32(bytes, 4)));
        let Some(bytes) = bytes.get(..end) else {
            let says = (format!("entries up to byte {end}"), format!("there are {}", bytes.len()));
            return self.find(what, place, says);
        };
        let mut below = Vec::new();
        loop {
            let entry = bytes.get(at..).unwrap_or_default();
            let (len, name_len, flags) = (usize::from(le16(entry, 8)), usize::from(le16(entry, 10)), le16(entry, 12));
            let is_last = flags & LAST != 0;
            let vcn_len = if flags & HAS_BLOCK != 0 { 8 } else { 0 };
            let least = if is_last { 16usize } else { 16usize.saturating_add(name_len) }.saturating_add(vcn_len);
            let [units] = field::<1>(entry, 80);
            let wanted = usize::from(units).saturating_mul(2).saturating_add(66);
            let is_sane = len >= least && len.is_multiple_of(8) && (is_last || wanted <= name_len);
            let Some(entry) = entry.get(..len).filter(|_| is_sane) else {
                let says = (format!("an entry of {len} bytes at byte {at}"), format!("{least} up to byte {end}"));
                return self.find(what, place, says);
            };
            if vcn_len > 0 {
                below.push(le64(entry, len.saturating_sub(8)));
            }
            if is_last {
                break;
            }
            let name = entry.get(82..).unwrap_or_default().chunks_exact(2).take(units.into()).map(|unit| le16(unit, 0));
            let name = String::from_utf16_lossy(&name.collect::<Vec<_>>());
            each(place, Entry { record: le64(entry, 0), above: le64(entry, 16), name });
            at = at.saturating_add(len);
        }
        for vcn in below {
            self.block(vcn, (depth, each))?;
        }
        Some(())
    }

    /// Each block is gone into once.
    fn block(&mut self, vcn: u64, (depth, each): (usize, &mut dyn FnMut(u64, Entry))) -> Option<()> {
        let what = format!("block {vcn} of the index");
        let unit = if self.size < self.boot.cluster { 512 } else { self.boot.cluster };
        let bytes = vcn.checked_mul(unit).and_then(|at| self.read(at));
        // No more is read, or somebody stopped it: that says nothing of the directory.
        if self.is_over {
            return None;
        }
        let Some((place, bytes)) = bytes.filter(|_| depth < DEPTH_MAX && self.seen.insert(vcn)) else {
            let place = self.runs.first().and_then(|(_, runs)| runs.first()?.start);
            let place = place.unwrap_or(0).saturating_mul(self.boot.cluster);
            return self.find(
                &what,
                place,
                ("a block that cannot be read, or twice".into(), "each is there once".into()),
            );
        };
        let bytes = match restore_as(*b"INDX", bytes) {
            Ok(bytes) => bytes,
            Err(says) => return self.find(&what, place, says),
        };
        let own = le64(&bytes, 16);
        if own != vcn {
            return self.find(&what, place, (format!("the place {own}"), format!("{vcn} is wanted")));
        }
        self.entries(&what, place, bytes.get(24..).unwrap_or_default(), (depth.saturating_add(1), each))
    }

    /// The bytes of a block from a byte of the index on, and where its first is.
    fn read(&mut self, at: u64) -> Option<(u64, Vec<u8>)> {
        let (mut bytes, mut place) = (Vec::new(), None);
        let mut left = self.size;
        let mut at = at;
        while left > 0 {
            let start = self.locate(at)?;
            let within = self.boot.cluster.checked_sub(at.checked_rem(self.boot.cluster)?)?.min(left);
            match self.look.read(start, at_most(within, usize::MAX)) {
                Ok(more) => bytes.extend(more),
                Err(e) => {
                    self.is_over = matches!(e.kind(), ErrorKind::LimitExceeded | ErrorKind::Cancelled);
                    return None;
                }
            }
            place = place.or(Some(start));
            (at, left) = (at.checked_add(within)?, left.checked_sub(within)?);
        }
        Some((place?, bytes))
    }

    fn locate(&self, at: u64) -> Option<u64> {
        let (cluster, within) = (at.checked_div(self.boot.cluster)?, at.checked_rem(self.boot.cluster)?);
        let n = self.runs.partition_point(|(first, _)| *first <= cluster).checked_sub(1)?;
        let (first, runs) = self.runs.get(n)?;
        let mut left = cluster.checked_sub(*first)?;
        for run in runs {
            if left < run.len {
                return run.start?.checked_add(left)?.checked_mul(self.boot.cluster)?.checked_add(within);
            }
            left = left.checked_sub(run.len)?;
        }
        None
    }
}
