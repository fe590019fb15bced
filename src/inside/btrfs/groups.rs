//! btrfs: groups of blocks and stripes against the chunks, and what they say is in use against the extents.
//!
//! | item | type | key's objectid, offset | bytes |
//! |---|---|---|---|
//! | group of blocks | 192 | its start, its length | 0: bytes in use, 16: type |
//! | free space of a group | 198 | the same | 0: how many runs, 4: flags, of which 1 is bits |
//! | free run, free bits | 199, 200 | its start, its length | a bit for each sector |
//! | stripe | 204 | the device, its place there | 16: the chunk, 24: its length |
//!
//! The source is Linux's `fs/btrfs/block-group.c`, `free-space-tree.c`, and `btrfs_verify_dev_extents` of `volumes.c`.

use std::collections::{BTreeMap, HashMap};

use super::extents::Extents;
use super::items::GROUP;
use super::keys::Item;
use super::tree::Fs;
use super::{Contents, STRIPED, Severity};
use crate::error::counted;
use crate::inside::full::set_bits;
use crate::inside::look::{le32, le64};
use crate::limits::INSIDE_CHUNKS_MAX;

const FREE_INFO: u8 = 198;
const FREE_RUN: u8 = 199;
const FREE_BITS: u8 = 200;
const STRIPE: u8 = 204;
/// The free space tree is there, and is kept.
const FREE_SPACE_TREE: u64 = 3;

struct Group {
    len: u64,
    used: u64,
    kind: u64,
    /// The leaf that says so.
    leaf: u64,
    /// Bytes of the extents, and of the free space tree, that are in it.
    seen: u64,
    free: u64,
    /// How many runs of free space there are, and their number as it is said, with its leaf.
    runs: u64,
    said: Option<(u64, u64)>,
    /// Where the last one ended.
    end: u64,
}

/// What the trees say of chunks.
#[derive(Default)]
pub(super) struct Groups {
    all: BTreeMap<u64, Group>,
    /// The chunk, its length and the leaf, by the device and the place there.
    stripes: HashMap<(u64, u64), (u64, u64, u64)>,
    /// Free space, in its order, with the leaf that says so.
    free: Vec<(u64, u64, u64)>,
    /// How many runs there are in a group, with the leaf that says so.
    infos: Vec<(u64, u64, u64)>,
    is_full: bool,
}

impl Groups {
    /// Takes an item of the extent tree, or of those of groups, devices and free space.
    pub(super) fn item(&mut self, fs: &Fs<'_>, item: &Item<'_>) {
        let (start, kind, len) = item.key;
        let kept = self.all.len().saturating_add(self.stripes.len()).saturating_add(self.free.len());
        let kept = kept.saturating_add(self.infos.len());
        if !matches!(kind, GROUP | STRIPE | FREE_INFO | FREE_RUN | FREE_BITS) {
            return;
        } else if kept >= INSIDE_CHUNKS_MAX {
            self.is_full = true;
            return;
        }
        match kind {
            GROUP => {
                let (used, kind) = (le64(item.bytes, 0), le64(item.bytes, 16));
                let (leaf, end) = (item.leaf, start);
                self.all.insert(start, Group { len, used, kind, leaf, seen: 0, free: 0, runs: 0, said: None, end });
            }
            STRIPE => {
                self.stripes.insert((start, len), (le64(item.bytes, 16), le64(item.bytes, 24), item.leaf));
            }
            FREE_INFO => self.infos.push((start, u64::from(le32(item.bytes, 0)), item.leaf)),
            FREE_RUN => self.free.push((start, len, item.leaf)),
            _ => {
                let sector = fs.sector();
                let bits = set_bits(item.bytes, len.checked_div(sector).unwrap_or(0));
                let runs = runs(bits.map(|bit| (start.saturating_add(bit.saturating_mul(sector)), sector)));
                self.free.extend(runs.into_iter().map(|(start, len)| (start, len, item.leaf)));
            }
        }
    }

    /// The group that a logical byte is in.
    fn of(&mut self, logical: u64) -> Option<(u64, &mut Group)> {
        let (start, group) = self.all.range_mut(..=logical).next_back()?;
        (logical.saturating_sub(*start) < group.len).then_some((*start, group))
    }

    /// Compares all, where all of these trees were read.
    pub(super) fn check(&mut self, fs: &Fs<'_>, extents: &Extents, contents: &mut Contents) {
        if self.is_full {
            return contents.note("btrfs: groups of blocks were not looked at: more than are kept in memory");
        }
        self.chunks(fs, contents);
        self.stripes(fs, contents);
        let Some(used) = extents.used() else { return };
        let used: Vec<(u64, u64)> = used.collect();
        for (start, len) in &used {
            match self.of(*start) {
                Some((first, group)) if start.saturating_add(*len) <= first.saturating_add(group.len) => {
                    group.seen = group.seen.saturating_add(*len);
                }
                _ => {
                    let place = (format!("the extent at logical byte {start}"), place(fs, *start));
                    let (found, expected) = (format!("{len} bytes"), "they lie in a group of blocks");
                    contents.find(Severity::Error, "contents.btrfs.extent", place, found, expected);
                }
            }
        }
        self.in_use(fs, contents);
        if le64(&fs.superblock.bytes, 0xb4) & FREE_SPACE_TREE == FREE_SPACE_TREE {
            self.free_space(fs, &used, contents);
        }
    }

    /// Each chunk has a group, and each group a chunk: the kernel does not mount without.
    fn chunks(&self, fs: &Fs<'_>, contents: &mut Contents) {
        let code = "contents.btrfs.block-group";
        for chunk in &fs.chunks {
            let group = self.all.get(&chunk.start);
            if group.is_none_or(|group| (group.len, group.kind) != (chunk.len, chunk.kind)) {
                let place = group.map_or(fs.superblock.place, |group| place(fs, group.leaf));
                let structure = (format!("the group of blocks at logical byte {}", chunk.start), place);
                let found = group.map_or("none".into(), |group| format!("{} bytes, type {:#x}", group.len, group.kind));
                let expected = format!("its chunk has {} bytes, type {:#x}", chunk.len, chunk.kind);
                contents.find(Severity::Error, code, structure, found, expected);
            }
        }
        for (start, group) in &self.all {
            if fs.chunk(*start).is_none_or(|chunk| chunk.start != *start) {
                let structure = (format!("the group of blocks at logical byte {start}"), place(fs, group.leaf));
                contents.find(Severity::Error, code, structure, format!("{} bytes", group.len), "a chunk maps them");
            }
        }
    }

    /// Each stripe of a chunk is one of its device, and the other way.
    fn stripes(&mut self, fs: &Fs<'_>, contents: &mut Contents) {
        let code = "contents.btrfs.stripe";
        for chunk in &fs.chunks {
            for (device, at) in &chunk.stripes {
                let stripe = self.stripes.remove(&(*device, *at));
                let has_length = |len: u64| chunk.kind & STRIPED != 0 || len == chunk.len;
                if !stripe.is_some_and(|(of, len, _)| of == chunk.start && has_length(len)) {
                    let place = stripe.map_or(fs.superblock.place, |(.., leaf)| place(fs, leaf));
                    let structure = (format!("the stripe at byte {at} of device {device}"), place);
                    let found = match stripe {
                        Some((of, len, _)) => format!("{len} bytes of the chunk at {of}"),
                        None => "none in the device tree".into(),
                    };
                    let expected = format!("{} bytes of the chunk at {}", chunk.len, chunk.start);
                    contents.find(Severity::Error, code, structure, found, expected);
                }
            }
        }
        let mut left: Vec<_> = self.stripes.iter().collect();
        left.sort_unstable();
        for ((device, at), (of, _, leaf)) in left {
            let structure = (format!("the stripe at byte {at} of device {device}"), place(fs, *leaf));
            let found = format!("one of the chunk at {of}");
            contents.find(Severity::Error, code, structure, found, "that chunk does not have it");
        }
        let (device, size) = (fs.superblock.device(), fs.superblock.device_size());
        for chunk in fs.chunks.iter().filter(|chunk| chunk.kind & STRIPED == 0) {
            let ends = chunk.stripes.iter().filter(|(id, _)| *id == device).map(|(_, at)| at.saturating_add(chunk.len));
            if let Some(end) = ends.max().filter(|end| *end > size) {
                let structure = (format!("the chunk at logical byte {}", chunk.start), fs.superblock.place);
                contents.find(Severity::Error, code, structure, format!("up to byte {end}"), format!("it has {size}"));
            }
        }
    }

    fn in_use(&self, fs: &Fs<'_>, contents: &mut Contents) {
        for (start, group) in self.all.iter().filter(|(_, group)| group.used != group.seen) {
            let structure = (format!("the group of blocks at logical byte {start}"), place(fs, group.leaf));
            let (found, expected) = (format!("{} bytes in use", group.used), format!("{} are", group.seen));
            contents.find(Severity::Warning, "contents.btrfs.block-group", structure, found, expected);
        }
        let all = self.all.values().fold(0u64, |all, group| all.saturating_add(group.seen));
        let said = le64(&fs.superblock.bytes, 0x78);
        if said != all {
            let structure = ("the superblock", fs.superblock.place);
            let (found, expected) = (format!("{said} bytes in use"), format!("{all} are"));
            contents.find(Severity::Warning, "contents.btrfs.counts", structure, found, expected);
        }
    }

    /// What is free is not in use, and what is neither is lost.
    fn free_space(&mut self, fs: &Fs<'_>, used: &[(u64, u64)], contents: &mut Contents) {
        let code = "contents.btrfs.free-space";
        let free = std::mem::take(&mut self.free);
        for (start, len, leaf) in &free {
            let end = start.saturating_add(*len);
            let n = used.partition_point(|(at, len)| at.saturating_add(*len) <= *start);
            if let Some((at, _)) = used.get(n).filter(|(at, _)| *at < end) {
                let structure = (format!("free space at logical byte {start}"), place(fs, *leaf));
                let expected = format!("the extent at {at} is in use");
                contents.find(Severity::Error, code, structure, format!("{len} bytes"), expected);
            }
            // mkfs leaves some of groups that it has taken away, which the kernel does not mind.
            let Some((first, group)) = self.of(*start) else { continue };
            if end <= first.saturating_add(group.len) {
                group.free = group.free.saturating_add(*len);
                // What bits of two items say may be one run.
                group.runs = group.runs.saturating_add(u64::from(group.runs == 0 || group.end != *start));
                group.end = end;
            } else {
                let structure = (format!("free space at logical byte {start}"), place(fs, *leaf));
                let expected = format!("its group of blocks has {}", group.len);
                contents.find(Severity::Error, code, structure, format!("{len} bytes"), expected);
            }
        }
        for (start, said, leaf) in std::mem::take(&mut self.infos) {
            if let Some((_, group)) = self.of(start).filter(|(first, _)| *first == start) {
                group.said = Some((said, leaf));
            }
        }
        for (start, group) in &self.all {
            if let Some((said, leaf)) = group.said.filter(|(said, _)| *said != group.runs) {
                let structure = (format!("free space of the group of blocks at logical byte {start}"), place(fs, leaf));
                let (found, expected) = (counted(said, "run"), format!("{} are there", group.runs));
                contents.find(Severity::Warning, code, structure, found, expected);
            }
        }
        for (start, group) in self.all.iter().filter(|(_, group)| group.seen.saturating_add(group.free) < group.len) {
            let structure =
                (format!("free space of the group of blocks at logical byte {start}"), place(fs, group.leaf));
            let free = group.len.saturating_sub(group.seen);
            let (found, expected) = (format!("{} bytes", group.free), format!("{free} are free"));
            contents.find(Severity::Warning, code, structure, found, expected);
        }
    }
}

/// Runs of pieces that lie behind each other.
fn runs(pieces: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (start, len) in pieces {
        match runs.last_mut() {
            Some(last) if last.0.saturating_add(last.1) == start => last.1 = last.1.saturating_add(len),
            _ => runs.push((start, len)),
        }
    }
    runs
}

/// The first place of a logical byte, or that of the superblock where this device has none.
pub(super) fn place(fs: &Fs<'_>, logical: u64) -> u64 {
    fs.place(logical).unwrap_or(fs.superblock.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_behind_each_other_are_a_run() {
        let pieces = [(4096, 4096), (8192, 4096), (16384, 8192)];
        assert_eq!(runs(pieces.into_iter()), [(4096, 8192), (16384, 8192)]);
    }
}
