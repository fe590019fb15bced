//! ext: the trees over the hashes of names, in directories that have them.
//!
//! | bytes of the root | field |
//! |---|---|
//! | 0x18, 0x1c | zero, the kind of the hash |
//! | 0x1d, 0x1e, 0x1f | 8, how many levels lie below, flags |
//!
//! The first entry of a block has no hash; that of each other is the least of the names below it, and those of one hash may go
//! on from one block into the next. The source is e2fsprogs' `e2fsck/pass2.c`.

use std::collections::HashMap;

use super::dirs::{DirBlock, Entry, NODE_AT, ROOT_AT, is_tree};
use super::hash::hash;
use super::map::Fs;
use crate::inside::look::{le16, le32};
use crate::limits::INSIDE_DIRECTORIES_MAX;

const INCOMPAT_LARGEDIR: u32 = 0x4000;
/// Blocks of the tree from its root to names, in large directories.
const LEVELS_MAX: u8 = 3;
const SEED: usize = 0xec;
const FLAGS: usize = 0x160;
const UNSIGNED: u32 = 2;
/// One more than that of any name.
const END: u32 = u32::MAX;

/// A block of names: the least hash and the greatest.
#[derive(Clone, Copy)]
struct Leaf {
    logical: u32,
    low: u32,
    high: u32,
    place: u64,
}

/// An entry of a block of the tree.
#[derive(Clone, Copy)]
struct Child {
    parent: u32,
    block: u32,
    /// From this hash on, up to the next entry's.
    low: u32,
    high: u32,
}

/// A tree as far as it was read.
#[derive(Default)]
struct Tree {
    root: u64,
    kind: Option<u8>,
    levels: u8,
    children: Vec<Child>,
    leaves: Vec<Leaf>,
    nodes: Vec<(u32, u64)>,
    /// Some block of it is damaged, which has been said.
    is_damaged: bool,
}

/// What is wrong with a tree: where, what was found, and what is wanted.
pub(super) type Odd = (u64, String, String);

/// The trees of all directories.
#[derive(Default)]
pub(super) struct Trees {
    all: HashMap<u32, Tree>,
    kept: usize,
    is_full: bool,
}

impl Trees {
    /// Takes note of a directory's first block.
    pub(super) fn directory(&mut self, number: u32, root: u64) {
        if self.all.len() < INSIDE_DIRECTORIES_MAX {
            self.all.insert(number, Tree { root, ..Tree::default() });
        }
    }

    /// Whether some were not kept.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// A block of a directory could not be gone into.
    pub(super) fn damaged(&mut self, number: u32) {
        self.all.entry(number).and_modify(|tree| tree.is_damaged = true);
    }

    /// Takes a block of a directory, and its names.
    pub(super) fn block(&mut self, fs: &Fs<'_>, dir: DirBlock, bytes: &[u8], entries: &[Entry<'_>]) {
        let Some(tree) = self.all.get_mut(&dir.inode).filter(|_| dir.is_indexed) else { return };
        let before = tree.children.len().saturating_add(tree.leaves.len());
        if self.kept > INSIDE_DIRECTORIES_MAX {
            self.is_full = true;
            tree.is_damaged = true;
            return;
        }
        let place = fs.place(dir.block);
        if is_tree(fs, dir, bytes) {
            tree.node(dir.logical, bytes);
            tree.nodes.push((dir.logical, place));
        } else if let Some(kind) = tree.kind(fs) {
            let seed = [0, 4, 8, 12].map(|at| fs.word(SEED.saturating_add(at)));
            let hashes = entries.iter().filter_map(|entry| hash(kind, seed, entry.name));
            let (low, high) = hashes.fold((END, 0), |(low, high), hash| (low.min(hash), high.max(hash)));
            tree.leaves.push(Leaf { logical: dir.logical, low, high, place });
        }
        let after = tree.children.len().saturating_add(tree.leaves.len());
        self.kept = self.kept.saturating_add(after.saturating_sub(before));
    }

    /// What is wrong, by directory; of each directory one thing.
    pub(super) fn odd(self, fs: &Fs<'_>) -> Vec<(u32, Odd)> {
        let mut all: Vec<(u32, Tree)> = self.all.into_iter().filter(|(_, tree)| !tree.is_damaged).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().filter_map(|(number, mut tree)| Some((number, tree.odd(fs)?))).collect()
    }
}

impl Tree {
    /// The kind of its hashes, which its first block has.
    fn kind(&mut self, fs: &Fs<'_>) -> Option<u8> {
        if self.kind.is_none() {
            let root = fs.read(self.root).ok()?;
            let kind = root.get(0x1c).copied()?;
            let is_unsigned = kind < 3 && fs.word(FLAGS) & UNSIGNED != 0;
            self.kind = Some(if is_unsigned { kind.saturating_add(3) } else { kind });
        }
        self.kind
    }

    /// Takes a block of the tree. The rules of the block itself have been looked at.
    fn node(&mut self, logical: u32, bytes: &[u8]) {
        let at = if logical == 0 { ROOT_AT } else { NODE_AT };
        let count = usize::from(le16(bytes, at.saturating_add(2)));
        let all: Vec<(u32, u32)> = bytes
            .get(at..)
            .unwrap_or_default()
            .chunks_exact(8)
            .take(count)
            .enumerate()
            .map(|(n, entry)| (if n == 0 { 0 } else { le32(entry, 0) & !1 }, le32(entry, 4) & 0x0fff_ffff))
            .collect();
        if logical == 0 {
            self.levels = bytes.get(0x1e).copied().unwrap_or(0);
        }
        let ends = all.iter().skip(1).map(|(hash, _)| *hash).chain([END]);
        let children = all.iter().zip(ends);
        self.children.extend(children.map(|((low, block), high)| Child {
            parent: logical,
            block: *block,
            low: *low,
            high,
        }));
    }

    fn odd(&mut self, fs: &Fs<'_>) -> Option<Odd> {
        let root = fs.place(self.root);
        let says = |place: u64, found: String, expected: &str| Some((place, found, expected.to_owned()));
        let known = fs.sb.has_incompat(INCOMPAT_LARGEDIR);
        let most = if known { LEVELS_MAX } else { LEVELS_MAX.saturating_sub(1) };
        if self.levels > most.saturating_sub(1) {
            return says(root, format!("{} levels below the root", self.levels), "there are fewer");
        }
        let nodes: HashMap<u32, u64> = self.nodes.iter().copied().collect();
        let leaves: HashMap<u32, Leaf> = self.leaves.iter().map(|leaf| (leaf.logical, *leaf)).collect();
        let mut children: HashMap<u32, Vec<Child>> = HashMap::new();
        self.children.iter().for_each(|child| children.entry(child.parent).or_default().push(*child));
        let mut named: HashMap<u32, ()> = HashMap::new();
        // Each block is gone into once, and the level rises with each step.
        let mut left = vec![(0u32, 0u8, 0u32, END)];
        while let Some((node, level, low, high)) = left.pop() {
            let place = nodes.get(&node).copied().unwrap_or(root);
            for child in children.get(&node).into_iter().flatten() {
                let (from, to) = (child.low.max(low), child.high.min(high));
                if child.high < child.low || child.low != 0 && child.low < low || child.low > high {
                    return says(place, format!("the hash {:#010x}", child.low), "hashes rise, within those above");
                } else if named.insert(child.block, ()).is_some() {
                    return says(place, format!("block {} twice", child.block), "each is there once");
                }
                if level < self.levels {
                    if !nodes.contains_key(&child.block) || child.block == 0 {
                        return says(place, format!("block {}", child.block), "a block of the tree is wanted");
                    }
                    left.push((child.block, level.saturating_add(1), from, to));
                } else if let Some(leaf) = leaves.get(&child.block) {
                    if leaf.low < from || leaf.high > to {
                        let odd = if leaf.low < from { leaf.low } else { leaf.high };
                        let expected = format!("{from:#010x} to {to:#010x} by its tree");
                        return Some((leaf.place, format!("a name with the hash {odd:#010x}"), expected));
                    }
                } else {
                    return says(place, format!("block {}", child.block), "a block of names is wanted");
                }
            }
        }
        let missing = self.leaves.iter().find(|leaf| leaf.low < END && !named.contains_key(&leaf.logical))?;
        says(missing.place, format!("block {} in no block of the tree", missing.logical), "each is there once")
    }
}
