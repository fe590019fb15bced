//! btrfs: inodes of a subvolume against their names, their extents and the checksums of these.
//!
//! | item | type | bytes |
//! |---|---|---|
//! | inode | 1 | 16, 24: size, bytes of its extents, 40, 52: links, mode, 64: flags, of which 1 is without checksums |
//! | its name | 12 | key's offset: the directory; 0: index, 8: length, 10: name, and the next |
//! | its name, of many | 13 | 0: directory, 8: index, 16: length, 18: name, and the next |
//! | a directory's name | 84, 96 | 0: key of what it names, 25, 27: lengths of data and name, 29: type, 30: name; 96 by index |
//! | an orphan | 48 | key's offset: an inode that waits to be deleted |
//!
//! Each name is there thrice: by its hash and by its index in the directory, and with the inode. The source is btrfs-progs'
//! `check/main.c`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::items::{self, DIR_INDEX, DIR_ITEM, EXTENT_DATA, FIRST_FILE, INLINE, INODE, INODE_EXTREF, INODE_REF, ROOT};
use super::keys::{Item, Root};
use super::links::Links;
use super::tree::{Fs, name};
use super::{Contents, Severity};
use crate::error::counted;
use crate::inside::look::{field, le16, le32, le64};
use crate::limits::{INSIDE_EXTENTS_MAX, INSIDE_FINDINGS_MAX};
use crate::num::to_u64;

/// What orphans are items of.
const ORPHANS: u64 = u64::MAX.wrapping_sub(4);
const LAST_FILE: u64 = u64::MAX.wrapping_sub(256);
const NO_CHECKSUMS: u64 = 1;
const NO_HOLES: u64 = 1 << 9;
const PREALLOCATED: u8 = 2;
const MODE_MAX: u32 = 0o177_777;
const DIRECTORY: u32 = 0o40_000;
const FILE: u32 = 0o100_000;

/// The sectors that have checksums, as runs in their order.
#[derive(Default)]
pub(super) struct Summed {
    runs: Vec<(u64, u64)>,
    is_full: bool,
}

impl Summed {
    pub(super) fn take(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        let has_room = self.runs.len() < INSIDE_EXTENTS_MAX;
        match self.runs.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if has_room => self.runs.push((start, end)),
            _ => self.is_full = true,
        }
    }

    /// The first byte of a run that has none.
    fn missing(&self, start: u64, len: u64) -> Option<u64> {
        if self.is_full || len == 0 {
            return None;
        }
        let n = self.runs.partition_point(|run| run.1 <= start);
        match self.runs.get(n) {
            Some(run) if run.0 <= start && start.saturating_add(len) <= run.1 => None,
            Some(run) if run.0 <= start => Some(run.1),
            _ => Some(start),
        }
    }
}

/// The type of an entry, by the mode of its inode.
fn kind(mode: u32) -> u8 {
    match mode & 0o170_000 {
        0o100_000 => 1,
        0o40_000 => 2,
        0o20_000 => 3,
        0o60_000 => 4,
        0o10_000 => 5,
        0o140_000 => 6,
        0o120_000 => 7,
        _ => 0,
    }
}

/// A name that was not yet seen in all three places.
#[derive(Clone, Copy, Default)]
struct Named {
    directory: u64,
    inode: u64,
    index: Option<u64>,
    kind: Option<u8>,
    /// By hash, by index, with the inode.
    places: [bool; 3],
    leaf: u64,
}

/// The inode whose items come.
#[derive(Default)]
struct Inode {
    number: u64,
    leaf: u64,
    is_there: bool,
    mode: u32,
    links: u64,
    size: u64,
    bytes: u64,
    flags: u64,
    names: u64,
    /// Bytes of the names in it, by hash and by index.
    entries: [u64; 2],
    extents: u64,
    /// Where the last extent ends.
    end: u64,
    gap: Option<u64>,
    crossing: Option<u64>,
    without_sum: Option<u64>,
    /// A generation of an extent that is not yet there.
    future: Option<u64>,
}

/// A finding before it is known that all was seen.
struct Fault {
    severity: Severity,
    code: &'static str,
    structure: String,
    leaf: u64,
    text: (String, String),
    inode: u64,
}

/// Goes through a subvolume.
pub(super) struct Files<'a> {
    fs: &'a Fs<'a>,
    summed: &'a Summed,
    names: HashMap<u64, Named>,
    now: Inode,
    orphans: Vec<u64>,
    unlinked: Vec<(u64, u64)>,
    faults: Vec<Fault>,
    /// How many more there are.
    more: u64,
    is_full: bool,
}

impl<'a> Files<'a> {
    /// Looks at a subvolume, reading so many nodes of it at most. Gives the findings, and the inodes that they hit; `None`
    /// where it was not looked at in full.
    pub(super) fn check(
        fs: &'a Fs<'a>,
        root: Root,
        (summed, links): (&'a Summed, &Links),
        nodes: &mut u64,
        contents: &mut Contents,
    ) -> Option<Vec<(usize, (u64, u64))>> {
        let (names, orphans) = (HashMap::new(), Vec::new());
        let (now, unlinked, faults) = (Inode::default(), Vec::new(), Vec::new());
        let mut files = Self { fs, summed, names, now, orphans, unlinked, faults, more: 0, is_full: false };
        for (child, link) in links.of(root.id) {
            let (directory, index) = (link.directory, Some(link.index));
            let named = Named { directory, inode: child, index, kind: Some(2), leaf: root.logical, ..Named::default() };
            files.take(named, &link.name, 2);
        }
        let is_whole = fs.each(root, nodes, &mut |item| files.item(item));
        files.inode_ends();
        if !is_whole || files.is_full {
            return None;
        }
        files.rest();
        contents.more_findings = contents.more_findings.saturating_add(files.more);
        let hits = files.faults.into_iter().filter_map(|fault| {
            let place = super::groups::place(fs, fault.leaf);
            let structure = (format!("{} in {}", fault.structure, name(root.id)), place);
            let nth = contents.find_nth(fault.severity, fault.code, structure, fault.text.0, fault.text.1)?;
            Some((nth, (root.id, fault.inode)))
        });
        Some(hits.collect())
    }

    fn fault(&mut self, severity: Severity, code: &'static str, structure: String, leaf: u64, text: (String, String)) {
        if self.faults.len() < INSIDE_FINDINGS_MAX {
            self.faults.push(Fault { severity, code, structure, leaf, text, inode: self.now.number });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn item(&mut self, item: &Item<'_>) {
        let (number, kind, offset) = item.key;
        if (number, kind) == (ORPHANS, items::ORPHAN) && self.orphans.len() < INSIDE_EXTENTS_MAX {
            self.orphans.push(offset);
        }
        if !(FIRST_FILE..=LAST_FILE).contains(&number) {
            return;
        }
        if number != self.now.number {
            self.inode_ends();
            self.now = Inode { number, leaf: item.leaf, ..Inode::default() };
        }
        match kind {
            INODE => {
                let bytes = item.bytes;
                self.now.is_there = true;
                (self.now.size, self.now.bytes) = (le64(bytes, 16), le64(bytes, 24));
                (self.now.links, self.now.mode) = (u64::from(le32(bytes, 40)), le32(bytes, 52));
                self.now.flags = le64(bytes, 64);
            }
            INODE_REF => self.own_names(item, 0),
            INODE_EXTREF => self.own_names(item, 8),
            DIR_ITEM | DIR_INDEX => self.entries(item),
            EXTENT_DATA => self.extent(item),
            _ => {}
        }
    }

    /// Names with their inode; the directory in front of each, where there may be many.
    fn own_names(&mut self, item: &Item<'_>, head: usize) {
        let mut rest = item.bytes;
        // Each takes ten bytes at least.
        while rest.len() > head.saturating_add(10) {
            let at = head.saturating_add(10);
            let len = usize::from(le16(rest, head.saturating_add(8)));
            let directory = if head == 0 { item.key.2 } else { le64(rest, 0) };
            let end = at.saturating_add(len);
            let name = rest.get(at..end).unwrap_or_default();
            self.now.names = self.now.names.saturating_add(1);
            if self.now.number == FIRST_FILE {
                if (directory, name) != (FIRST_FILE, b"..") {
                    let text = (
                        format!("\"{}\" in directory {directory}", name.escape_ascii()),
                        "it is `..` in itself".into(),
                    );
                    let structure = "the name of its root directory".into();
                    self.fault(Severity::Error, "contents.btrfs.directory", structure, item.leaf, text);
                }
            } else {
                let (index, kind) = (Some(le64(rest, head)), Some(kind(self.now.mode)));
                let named =
                    Named { directory, inode: self.now.number, index, kind, leaf: item.leaf, ..Named::default() };
                self.take(named, name, 2);
            }
            rest = rest.get(end..).unwrap_or_default();
        }
    }

    /// Names of a directory.
    fn entries(&mut self, item: &Item<'_>) {
        let mut rest = item.bytes;
        let n = usize::from(item.key.1 == DIR_INDEX);
        // Each takes 30 bytes at least.
        while rest.len() > 30 {
            let (data, len) = (usize::from(le16(rest, 25)), usize::from(le16(rest, 27)));
            let ([named], [kind], inode) = (field(rest, 8), field(rest, 29), le64(rest, 0));
            let end = len.saturating_add(30);
            let name = rest.get(30..end).unwrap_or_default();
            if let Some(entries) = self.now.entries.get_mut(n) {
                *entries = entries.saturating_add(to_u64(len));
            }
            if ![INODE, ROOT].contains(&named) {
                let text = (format!("an item of type {named}"), "names are of inodes and subvolumes".into());
                let structure = format!("the name \"{}\" in directory {}", name.escape_ascii(), self.now.number);
                self.fault(Severity::Error, "contents.btrfs.directory", structure, item.leaf, text);
            }
            let index = (n == 1).then_some(item.key.2);
            let places = [false, false, named == ROOT];
            let (directory, leaf) = (self.now.number, item.leaf);
            self.take(Named { directory, inode, index, kind: Some(kind), places, leaf }, name, n);
            rest = rest.get(end.saturating_add(data)..).unwrap_or_default();
        }
    }

    /// Takes a name at one of its three places.
    fn take(&mut self, named: Named, name: &[u8], place: usize) {
        let mut hasher = DefaultHasher::new();
        (named.directory, named.inode, name).hash(&mut hasher);
        let key = hasher.finish();
        if self.names.len() >= INSIDE_EXTENTS_MAX / 2 && !self.names.contains_key(&key) {
            self.is_full = true;
            return;
        }
        let kept = self.names.entry(key).or_insert(named);
        kept.places.iter_mut().zip(named.places).for_each(|(kept, also)| *kept |= also);
        if let Some(place) = kept.places.get_mut(place) {
            *place = true;
        }
        let differs = |a: Option<u64>, b: Option<u64>| a.zip(b).is_some_and(|(a, b)| a != b);
        let odd = if differs(kept.index, named.index) {
            let index = |index: Option<u64>| format!("index {}", index.unwrap_or_default());
            Some((index(kept.index), format!("{} is elsewhere", index(named.index))))
        } else if differs(kept.kind.map(u64::from), named.kind.map(u64::from)) && named.places != [false, false, true] {
            let kind = |kind: Option<u8>| format!("type {}", kind.unwrap_or_default());
            Some((kind(kept.kind), format!("{} is elsewhere", kind(named.kind))))
        } else {
            None
        };
        kept.index = kept.index.or(named.index);
        let is_done = kept.places == [true; 3];
        if is_done {
            self.names.remove(&key);
        }
        if let Some(text) = odd {
            let structure = format!("the name of inode {} in directory {}", named.inode, named.directory);
            self.fault(Severity::Error, "contents.btrfs.directory", structure, named.leaf, text);
        }
    }

    fn extent(&mut self, item: &Item<'_>) {
        let (bytes, start) = (item.bytes, item.key.2);
        let ([kind], [compression], sector) = (field(bytes, 20), field(bytes, 16), self.fs.sector());
        let now = &mut self.now;
        if start < now.end {
            now.crossing = now.crossing.or(Some(start));
        } else if start > now.end {
            now.gap = now.gap.or(Some(now.end));
        }
        let (generation, last) = (le64(bytes, 0), self.fs.superblock.generation().saturating_add(1));
        now.future = now.future.or((generation > last).then_some(generation));
        let (len, has_bytes) =
            if kind == INLINE { (le64(bytes, 8), true) } else { (le64(bytes, 45), le64(bytes, 21) > 0) };
        if has_bytes {
            now.extents = now.extents.saturating_add(len);
        }
        let rounded = len.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
        now.end = now.end.max(start.saturating_add(rounded));
        let has_sums = now.flags & NO_CHECKSUMS == 0;
        if kind != INLINE && kind != PREALLOCATED && has_bytes && has_sums {
            let place = le64(bytes, 21);
            let (from, len) = if compression > 0 { (0, le64(bytes, 29)) } else { (le64(bytes, 37), len) };
            now.without_sum = now.without_sum.or(self.summed.missing(place.saturating_add(from), len));
        }
    }

    fn inode_ends(&mut self) {
        let now = std::mem::take(&mut self.now);
        if now.number == 0 {
            return;
        }
        let (is_dir, is_file) = (now.mode & 0o170_000 == DIRECTORY, now.mode & 0o170_000 == FILE);
        let rounded = now.size.checked_next_multiple_of(self.fs.sector()).unwrap_or(u64::MAX);
        let has_holes = self.fs.superblock.incompat() & NO_HOLES == 0;
        let tail = (is_file && rounded > now.end).then_some(now.end);
        let gap = now.gap.or(tail).filter(|_| has_holes && is_file && now.names > 0);
        let all = now.entries.into_iter().fold(0u64, u64::saturating_add);
        let says = |found: String, expected: String| (found, expected);
        let mut odd = Vec::new();
        let (warning, error) = (Severity::Warning, Severity::Error);
        if !now.is_there {
            odd.push((error, "contents.btrfs.inode", says("none".into(), "other items say that it is there".into())));
        } else {
            if now.mode > MODE_MAX {
                let text = says(format!("the mode {:o}", now.mode), format!("{MODE_MAX:o} at most"));
                odd.push((warning, "contents.btrfs.inode", text));
            }
            if let Some(at) = now.crossing {
                let expected = "the one in front ends behind it".into();
                odd.push((error, "contents.btrfs.inode-extents", says(format!("an extent at byte {at}"), expected)));
            }
            if let Some(generation) = now.future {
                let text =
                    says(format!("an extent of generation {generation}"), "the superblock has an earlier one".into());
                odd.push((warning, "contents.btrfs.inode-extents", text));
            }
            if let Some(at) = gap {
                let expected = "a hole is an extent, too".into();
                odd.push((warning, "contents.btrfs.inode-extents", says(format!("no extent at byte {at}"), expected)));
            }
            if let Some(at) = now.without_sum {
                let found = format!("no checksum of logical byte {at}");
                odd.push((error, "contents.btrfs.checksum-missing", says(found, "its data has checksums".into())));
            }
            if !is_dir && now.extents != now.bytes {
                let text = says(format!("{} bytes", now.bytes), format!("its extents have {}", now.extents));
                odd.push((warning, "contents.btrfs.inode-bytes", text));
            }
            if is_dir && now.size != all {
                let text = says(format!("{} bytes of names", now.size), format!("{all} are there"));
                odd.push((warning, "contents.btrfs.directory", text));
            }
            if now.number != FIRST_FILE && now.names == 0 && now.links > 0 {
                let text = says("no name in any directory".into(), format!("it has {}", counted(now.links, "link")));
                odd.push((error, "contents.btrfs.inode-unattached", text));
            } else if now.number != FIRST_FILE && now.names != now.links {
                let text = says(counted(now.links, "link"), format!("{} are there", now.names));
                odd.push((warning, "contents.btrfs.inode-links", text));
            } else if now.links == 0 && self.unlinked.len() < INSIDE_EXTENTS_MAX {
                self.unlinked.push((now.number, now.leaf));
            }
        }
        let (number, leaf) = (now.number, now.leaf);
        self.now.number = number;
        for (severity, code, text) in odd {
            self.fault(severity, code, format!("inode {number}"), leaf, text);
        }
        self.now.number = 0;
    }

    /// What is left when all items have come.
    fn rest(&mut self) {
        self.orphans.sort_unstable();
        for (number, leaf) in std::mem::take(&mut self.unlinked) {
            if self.orphans.binary_search(&number).is_err() {
                let text = ("no link".into(), "what waits to be deleted is listed as an orphan".into());
                self.now.number = number;
                self.fault(Severity::Warning, "contents.btrfs.inode-links", format!("inode {number}"), leaf, text);
            }
        }
        let mut left: Vec<Named> = std::mem::take(&mut self.names).into_values().collect();
        left.sort_unstable_by_key(|named| (named.directory, named.inode, named.index));
        for named in left {
            let missing = ["by its hash in the directory", "by its index in the directory", "with its inode"];
            let text: Vec<&str> =
                missing.into_iter().zip(named.places).filter(|(_, is)| !is).map(|(at, _)| at).collect();
            let text = (format!("not there {}", text.join(" or ")), "a name is there thrice".into());
            let structure = format!("the name of inode {} in directory {}", named.inode, named.directory);
            self.now.number = named.inode;
            self.fault(Severity::Error, "contents.btrfs.directory", structure, named.leaf, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_checksum_is_named_by_its_first_byte() {
        let mut summed = Summed::default();
        [(4096, 4096), (8192, 4096), (20480, 4096)].iter().for_each(|(start, len)| summed.take(*start, *len));
        assert_eq!(summed.runs, [(4096, 12288), (20480, 24576)]);
        assert_eq!(summed.missing(4096, 8192), None);
        assert_eq!(summed.missing(4096, 12288), Some(12288));
        assert_eq!(summed.missing(0, 4096), Some(0));
        assert_eq!(summed.missing(12288, 4096), Some(12288));
        assert_eq!(summed.missing(20480, 4096), None);
        assert_eq!(summed.missing(24576, 4096), Some(24576));
    }
}
