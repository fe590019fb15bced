//! XFS: the hashes of a directory's names, the tree over them, and what it keeps of the room in its blocks.
//!
//! | block of hashes | field | node above | field | block of room | field |
//! |---|---|---|---|---|---|
//! | 0, 4 | next, the one before (u32) | 0, 4, 8 | the same | 0 | `XDF3` |
//! | 8 | 0x3df1, or 0x3dff below a node | 8 | 0x3ebe | 48 | first block of names that it is of |
//! | 56, 58 | entries, stale ones (u16) | 56, 58 | entries, level | 52, 56 | how many, how many of them are there |
//! | 64 | hash, place / 8 (u32) | 64 | last hash below, block | 64 | longest free run of each (u16) |
//!
//! A directory with one block of hashes (0x3df1) has the runs at that one's end, before their number (u32). A stale entry has
//! the place 0, a block that is not there the run 0xffff. The source is Linux's `fs/xfs/libxfs/xfs_da_format.h`,
//! `xfs_dir2_leaf.c` and `xfs_dir2_node.c`.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Fs;
use crate::error::counted;
use crate::inside::look::{be16, be32};
use crate::limits::INSIDE_DIRECTORIES_MAX;
use crate::num::{from_u32, to_u64};

/// What was found and what is wanted.
type Says = (String, String);
/// A code, what it is of and where, and what is said.
pub(super) type Odd = (&'static str, (String, u64), Says);

const CODE: &str = "contents.xfs.directory-tree";
const ENTRIES: usize = 64;
const ONLY_LEAF: u16 = 0x3df1;
const NODE: u16 = 0x3ebe;
const LEVELS_MAX: u16 = 5;
const NOT_THERE: u16 = 0xffff;
/// The names of a file system that does not tell A from a have other hashes.
const FOLDS: u16 = 0x4000;

/// The hash of a name, as `xfs_da_hashname` makes it.
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0u32, |hash, byte| hash.rotate_left(7) ^ u32::from(*byte))
}

/// Where the hashes of the only block of a directory begin, and their number, by what it says.
pub(super) fn small(bytes: &[u8]) -> (usize, usize) {
    let tail = bytes.len().saturating_sub(8);
    let count = from_u32(be32(bytes, tail));
    (tail.saturating_sub(count.saturating_mul(8)), count)
}

/// A block of a directory.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub place: u64,
    /// Which of its kind it is.
    pub number: u64,
    /// Its number in the directory, in blocks of the file system.
    pub logical: u64,
}

struct Leaf {
    place: u64,
    next: u64,
    before: u64,
    first: u32,
    last: u32,
}

struct Node {
    leaf: Leaf,
    level: u16,
    below: Vec<(u32, u64)>,
}

/// What the blocks of a directory say.
pub(super) struct Tree {
    block: u64,
    directory: u64,
    leaf_at: u64,
    has_hashes: bool,
    names: Vec<(u32, u32)>,
    /// Entries of blocks of hashes, and the place of each block's first.
    hashes: Vec<(u32, u32)>,
    from: Vec<(usize, u64)>,
    leaves: BTreeMap<u64, Leaf>,
    nodes: BTreeMap<u64, Node>,
    /// The longest free run of blocks of names, and what is kept of them with its place.
    rooms: BTreeMap<u64, u16>,
    kept: BTreeMap<u64, (u16, u64)>,
    has_only_leaf: bool,
    is_only: bool,
    is_full: bool,
}

impl Tree {
    pub(super) fn new(fs: &Fs<'_>, leaf_at: u64) -> Self {
        Self {
            block: fs.block,
            directory: fs.directory_block(),
            leaf_at,
            has_hashes: fs.sb.sb_versionnum.get() & FOLDS == 0,
            names: Vec::new(),
            hashes: Vec::new(),
            from: Vec::new(),
            leaves: BTreeMap::new(),
            nodes: BTreeMap::new(),
            rooms: BTreeMap::new(),
            kept: BTreeMap::new(),
            has_only_leaf: false,
            is_only: false,
            is_full: false,
        }
    }

    /// A name, and its place in the blocks of names.
    pub(super) fn name(&mut self, name: &[u8], address: u64) {
        if self.names.len() < INSIDE_DIRECTORIES_MAX {
            self.names.push((hash(name), u32::try_from(address / 8).unwrap_or(u32::MAX)));
        } else {
            self.is_full = true;
        }
    }

    /// The longest free run of a block of names.
    pub(super) fn room(&mut self, number: u64, longest: u16) {
        self.rooms.insert(number, longest);
    }

    /// The hashes at the end of the only block.
    pub(super) fn only(&mut self, place: u64, bytes: &[u8]) -> Result<(), Says> {
        self.is_only = true;
        let (start, count) = small(bytes);
        let stale = be32(bytes, bytes.len().saturating_sub(4));
        let entries = bytes.get(start..bytes.len().saturating_sub(8)).unwrap_or_default();
        self.entries(place.saturating_add(to_u64(start)), entries, (count, from_u32(stale))).map(|_| ())
    }

    /// Takes entries; gives the first and the last hash.
    fn entries(&mut self, place: u64, bytes: &[u8], (count, stale): (usize, usize)) -> Result<(u32, u32), Says> {
        let (all, _) = bytes.as_chunks::<8>();
        let Some(all) = all.get(..count) else {
            return Err((counted(to_u64(count), "hash"), format!("there is room for {}", all.len())));
        };
        self.from.push((self.hashes.len(), place));
        let (mut last, mut idle) = (0, 0usize);
        for (n, entry) in all.iter().enumerate() {
            let (hash, address) = (be32(entry, 0), be32(entry, 4));
            if hash < last {
                return Err((format!("hash {hash:#010x} as entry {n}"), format!("{last:#010x} or more is wanted")));
            }
            last = hash;
            idle = idle.saturating_add(usize::from(address == 0));
            if self.hashes.len() < INSIDE_DIRECTORIES_MAX {
                self.hashes.push((hash, address));
            } else {
                self.is_full = true;
            }
        }
        if idle != stale {
            return Err((format!("{stale} stale hashes"), format!("there are {idle}")));
        }
        Ok((all.first().map_or(0, |entry| be32(entry, 0)), last))
    }

    /// A block of hashes or a node above.
    pub(super) fn leaf(&mut self, block: Block, bytes: &[u8]) -> Result<(), Says> {
        let (next, before) = (u64::from(be32(bytes, 0)), u64::from(be32(bytes, 4)));
        let count = usize::from(be16(bytes, 56));
        let mut leaf = Leaf { place: block.place, next, before, first: 0, last: 0 };
        let place = block.place.saturating_add(to_u64(ENTRIES));
        let rest = bytes.get(ENTRIES..).unwrap_or_default();
        let magic = be16(bytes, 8);
        if magic == NODE {
            let (all, _) = rest.as_chunks::<8>();
            let Some(all) = all.get(..count).filter(|all| !all.is_empty()) else {
                return Err((counted(to_u64(count), "block below"), format!("there is room for {}", all.len())));
            };
            let below: Vec<_> = all.iter().map(|entry| (be32(entry, 0), u64::from(be32(entry, 4)))).collect();
            if let Some(pair) = below.windows(2).find(|pair| pair[0].0 > pair[1].0) {
                return Err((format!("hash {:#010x} behind {:#010x}", pair[1].0, pair[0].0), "their order".into()));
            }
            leaf.last = below.last().map_or(0, |(hash, _)| *hash);
            let level = be16(bytes, 58);
            self.nodes.insert(block.logical, Node { leaf, level, below });
            return Ok(());
        }
        let stale = usize::from(be16(bytes, 58));
        let mut room = rest.len();
        if magic == ONLY_LEAF {
            self.has_only_leaf = true;
            let kept = from_u32(be32(bytes, bytes.len().saturating_sub(4)));
            let start = kept.checked_mul(2).and_then(|len| bytes.len().checked_sub(4)?.checked_sub(len));
            let Some(start) = start.filter(|start| *start >= ENTRIES) else {
                return Err((
                    format!("the room of {}", counted(to_u64(kept), "block")),
                    "it fits into the block".into(),
                ));
            };
            room = start.saturating_sub(ENTRIES);
            self.keep(0, bytes.get(start..).unwrap_or_default(), kept, block.place.saturating_add(to_u64(start)));
        }
        (leaf.first, leaf.last) = self.entries(place, rest.get(..room).unwrap_or_default(), (count, stale))?;
        self.leaves.insert(block.logical, leaf);
        Ok(())
    }

    fn keep(&mut self, first: u64, bytes: &[u8], count: usize, place: u64) {
        for (n, run) in (0u64..).zip(bytes.chunks_exact(2).take(count)) {
            self.kept.insert(first.saturating_add(n), (be16(run, 0), place.saturating_add(n.saturating_mul(2))));
        }
    }

    /// A block of room.
    pub(super) fn free(&mut self, block: Block, bytes: &[u8]) -> Result<(), Says> {
        let rest = bytes.get(ENTRIES..).unwrap_or_default();
        let most = rest.len() / 2;
        let first = block.number.saturating_mul(to_u64(most));
        let (says, count, used) = (be32(bytes, 48), from_u32(be32(bytes, 52)), from_u32(be32(bytes, 56)));
        if u64::from(says) != first || count > most {
            let found = format!("the room of {} from block {says} on", counted(to_u64(count), "block"));
            return Err((found, format!("{most} at most, from {first} on")));
        }
        let there = rest.chunks_exact(2).take(count).filter(|run| be16(run, 0) != NOT_THERE).count();
        if there != used {
            return Err((format!("{used} blocks that are there"), format!("there are {there}")));
        }
        self.keep(first, rest, count, block.place.saturating_add(to_u64(ENTRIES)));
        Ok(())
    }

    /// What does not fit together. `name_at` gives the name at a place in the blocks of names, and the byte of the disk.
    pub(super) fn judge(mut self, name_at: impl Fn(u64) -> Option<(u64, Vec<u8>)>) -> Vec<Odd> {
        let mut odd = Vec::new();
        if !self.is_only {
            odd.extend(self.shape());
            odd.extend(self.room_kept());
        }
        // More than are kept in memory are not compared.
        if self.is_full || !self.has_hashes {
            return odd;
        }
        self.names.sort_unstable();
        let mut is_seen = vec![false; self.names.len()];
        let mut extra = (0u64, None);
        for (n, entry) in self.hashes.iter().enumerate().filter(|(_, entry)| entry.1 != 0) {
            match self.names.binary_search(entry).ok().and_then(|n| is_seen.get_mut(n)) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    extra.0 = u64::saturating_add(extra.0, 1);
                    extra.1 = extra.1.or(Some(n));
                }
            }
        }
        if let (count, Some(n)) = extra {
            let (first, place) = self.from.iter().rev().find(|(first, _)| *first <= n).copied().unwrap_or((n, 0));
            let place = place.saturating_add(to_u64(n.saturating_sub(first)).saturating_mul(8));
            let found = format!("{} of no name", counted(count, "hash"));
            odd.push((CODE, ("the hashes".into(), place), (found, "each is of a name".into())));
        }
        let lost: Vec<_> =
            self.names.iter().zip(&is_seen).filter(|(_, seen)| !**seen).map(|(name, _)| name.1).collect();
        if let (Some(first), true) = (lost.first(), extra.0 == 0) {
            let place = name_at(u64::from(*first).saturating_mul(8)).map_or(0, |(place, _)| place);
            let found = format!("{} without a hash", counted(to_u64(lost.len()), "name"));
            odd.push((CODE, ("the hashes".into(), place), (found, "each has one".into())));
        }
        for same in self.names.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
            let mut seen = BTreeSet::new();
            for (place, name) in same.iter().filter_map(|(_, address)| name_at(u64::from(*address).saturating_mul(8))) {
                let found = format!("\"{}\" twice", name.escape_ascii());
                if !seen.insert(name) {
                    let says = (found, "each name once".into());
                    odd.push(("contents.xfs.directory", ("the names".into(), place), says));
                    return odd;
                }
            }
        }
        odd
    }

    /// Whether the room that is kept is that of the blocks.
    fn room_kept(&self) -> Option<Odd> {
        let of = |n: &u64| self.kept.get(n).map_or((NOT_THERE, 0), |kept| *kept);
        let wrong = self.rooms.iter().find(|(n, longest)| of(n).0 != **longest);
        let stray = || self.kept.iter().find(|(n, (run, _))| *run != NOT_THERE && !self.rooms.contains_key(n));
        let (n, (found, place)) = wrong.map(|(n, _)| (n, of(n))).or_else(|| stray().map(|(n, kept)| (n, *kept)))?;
        let run = |run: u16| if run == NOT_THERE { "no block".to_owned() } else { format!("{run} bytes") };
        let wanted = run(self.rooms.get(n).copied().unwrap_or(NOT_THERE));
        let logical = n.saturating_mul(self.directory.checked_div(self.block).unwrap_or(1));
        let says = (format!("{} for block {logical}", run(found)), format!("its longest free run is {wanted}"));
        Some((CODE, ("the list of room".into(), place), says))
    }

    /// Whether the tree leads to each block of hashes, in order.
    fn shape(&self) -> Option<Odd> {
        let root = self.leaf_at.checked_div(self.block).unwrap_or(0);
        let there = self.leaves.len().saturating_add(self.nodes.len());
        let at = |what: &str, place| (format!("{what} of hashes"), place);
        if self.has_only_leaf && there > 1 {
            let place = self.leaves.values().next().map_or(0, |leaf| leaf.place);
            let says = (format!("{there} blocks"), "the first says that it is the only one".into());
            return Some((CODE, at("the tree", place), says));
        }
        let level = self.nodes.get(&root).map_or(0, |node| node.level);
        let mut seen = Seen { tree: self, levels: BTreeMap::new(), count: 0 };
        if level > LEVELS_MAX {
            let place = self.nodes.get(&root).map_or(0, |node| node.leaf.place);
            return Some((CODE, at("the root", place), (format!("level {level}"), "5 or less is wanted".into())));
        }
        if let Err((place, says)) = seen.go(root, level, None) {
            return Some((CODE, at("the tree", place), says));
        }
        let last = seen
            .levels
            .values()
            .find(|(_, next, _)| *next != 0)
            .map(|(_, next, place)| (*place, (format!("block {next} as the next"), "it is the last".to_owned())));
        let lost = (seen.count != there).then(|| {
            let says = (format!("{} of {there}", counted(to_u64(seen.count), "block")), "each is in it".to_owned());
            (self.leaves.values().next().map_or(0, |leaf| leaf.place), says)
        });
        last.or(lost).map(|(place, says)| (CODE, at("the tree", place), says))
    }
}

/// The blocks of hashes that were reached.
struct Seen<'a> {
    tree: &'a Tree,
    /// The last of each level, the one that it says is next, and its place.
    levels: BTreeMap<u16, (u64, u64, u64)>,
    count: usize,
}

impl Seen<'_> {
    /// The level falls with each step, and each block is gone into once: its neighbours would not fit the second time.
    fn go(&mut self, logical: u64, level: u16, above: Option<(u32, u64)>) -> Result<(), (u64, Says)> {
        let node = self.tree.nodes.get(&logical);
        let leaf = node.map(|node| &node.leaf).or_else(|| self.tree.leaves.get(&logical));
        let wanted = |place, found: String, wanted: String| Err((place, (found, wanted)));
        let Some(leaf) = leaf else {
            return wanted(0, format!("no block {logical}"), format!("one of level {level} is wanted"));
        };
        let is = node.map_or(0, |node| node.level);
        let before = self.levels.insert(level, (logical, leaf.next, leaf.place));
        let (previous, next, place) = before.unwrap_or((0, logical, leaf.place));
        let above_place = above.map_or(leaf.place, |(_, place)| place);
        self.count = self.count.saturating_add(1);
        if is != level || node.is_some() != (level > 0) {
            return wanted(leaf.place, format!("level {is} in block {logical}"), format!("{level} is wanted"));
        }
        let most = self.tree.leaves.len().saturating_add(self.tree.nodes.len());
        if leaf.before != previous || next != logical || self.count > most {
            let place = match (leaf.before == previous, next == logical) {
                (true, false) => place,
                (false, true) => leaf.place,
                _ => above_place,
            };
            let found = format!("block {} before block {logical}, and {next} behind {previous}", leaf.before);
            return wanted(place, found, format!("{logical} is behind {previous}"));
        }
        if let Some((hash, _)) = above.filter(|(hash, _)| *hash != leaf.last) {
            let expected = format!("the last in block {logical} is {:#010x}", leaf.last);
            return wanted(above_place, format!("the hash {hash:#010x}"), expected);
        }
        let place = leaf.place;
        for (hash, below) in node.map_or(&[][..], |node| &node.below) {
            self.go(*below, level.saturating_sub(1), Some((*hash, place)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn hashes_are_those_of_the_kernel() {
        // As `xfs_db -c "hash NAME"` says them.
        assert_eq!([b"a".as_slice(), b"..", b"lost+found"].map(hash), [0x61, 0x172e, 0x021a_a60c]);
    }
}
