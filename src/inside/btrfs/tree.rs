//! btrfs: nodes of its trees, read at every place that they have, and found by their keys.
//!
//! | node bytes | field | item bytes | field |
//! |---|---|---|---|
//! | 0x50, 0x58 | generation, owner | 0, 8, 9 | key: objectid, type, offset |
//! | 0x60, 0x64 | nritems, level | 17, 21, of a leaf | offset behind the header, size |
//! | 0x65 | items | 17, 25, of others | logical byte of the child, its generation |
//!
//! The source is Linux's `include/uapi/linux/btrfs_tree.h` and `fs/btrfs/tree-checker.c`.

use super::keys::{Item, Key, Root};
use super::references::References;
use super::{Chunk, Contents, ITEM, NODE_HEADER, Severity, Superblock, is_proved, items};
use crate::inside::full::Claims;
use crate::inside::look::{Look, field, le32, le64};
use crate::num::{at_most, from_u32, to_u64};

const POINTER: usize = 33;
const LEVEL_MAX: u8 = 7;

fn key(bytes: &[u8]) -> Key {
    let [kind] = field(bytes, 8);
    (le64(bytes, 0), kind, le64(bytes, 9))
}

/// What a tree is called.
pub(super) fn name(id: u64) -> String {
    match id {
        1 => "the root tree".into(),
        2 => "the extent tree".into(),
        3 => "the chunk tree".into(),
        4 => "the device tree".into(),
        5 => "the top subvolume".into(),
        7 => "the checksum tree".into(),
        8 => "the quota tree".into(),
        9 => "the UUID tree".into(),
        10 => "the free space tree".into(),
        11 => "the block group tree".into(),
        256..0xffff_ffff_0000_0000 => format!("subvolume {id}"),
        _ => format!("tree {}", u64::MAX.wrapping_sub(id).wrapping_add(1)),
    }
}

/// A file system, and where its logical bytes lie.
pub(super) struct Fs<'a> {
    pub look: &'a Look<'a>,
    pub superblock: &'a Superblock,
    /// In the order of their starts.
    pub chunks: Vec<Chunk>,
    pub node_size: usize,
}

impl Fs<'_> {
    pub(super) fn chunk(&self, logical: u64) -> Option<&Chunk> {
        let n = self.chunks.partition_point(|chunk| chunk.start <= logical).checked_sub(1)?;
        self.chunks.get(n).filter(|chunk| logical.saturating_sub(chunk.start) < chunk.len)
    }

    /// The bytes of a sector.
    pub(super) fn sector(&self) -> u64 {
        u64::from(self.superblock.sector_size()).max(512)
    }

    /// The places of a logical byte on this device, and how many bytes from it on lie in the same chunk.
    pub(super) fn places(&self, logical: u64) -> Option<(Vec<u64>, u64)> {
        let chunk = self.chunk(logical)?;
        let left = chunk.len.saturating_sub(logical.saturating_sub(chunk.start));
        Some((chunk.places(self.superblock.device(), logical), left))
    }

    /// The first place of a logical byte on this device.
    pub(super) fn place(&self, logical: u64) -> Option<u64> {
        self.places(logical)?.0.first().copied()
    }

    /// All items of a tree once more, of nodes that have been found to be whole. It stops after so many nodes; whether it saw
    /// all of them.
    pub(super) fn each(&self, root: Root, nodes: &mut u64, take: &mut dyn FnMut(&Item<'_>)) -> bool {
        self.each_in((root.logical, root.level), nodes, take)
    }

    fn each_in(&self, (logical, level): (u64, u8), nodes: &mut u64, take: &mut dyn FnMut(&Item<'_>)) -> bool {
        let Some(left) = nodes.checked_sub(1).filter(|_| !self.look.is_cancelled()) else { return false };
        *nodes = left;
        let Some(node) = self.node(logical).filter(|node| level <= LEVEL_MAX && node.get(0x64) == Some(&level)) else {
            return false;
        };
        if level == 0 {
            whole_items(&node, logical).for_each(|item| take(&item));
            return true;
        }
        pointers(&node).all(|(_, child, _)| self.each_in((child, level.saturating_sub(1)), nodes, take))
    }

    /// A node of which one copy is whole, for looking something up in it.
    fn node(&self, logical: u64) -> Option<Vec<u8>> {
        let (places, _) = self.places(logical)?;
        places.into_iter().find_map(|place| {
            let bytes = self.look.bytes(place, self.node_size)?;
            let is_it = is_proved(&bytes, self.superblock.csum_type()) == Some(true) && le64(&bytes, 0x30) == logical;
            is_it.then_some(bytes)
        })
    }

    /// The first item of a tree from `low` to `high` that `take` takes.
    pub(super) fn find<T>(
        &self,
        root: Root,
        (low, high): (Key, Key),
        take: &mut dyn FnMut(Key, &[u8]) -> Option<T>,
    ) -> Option<T> {
        self.find_in((root.logical, root.level), (low, high), take)
    }

    fn find_in<T>(
        &self,
        (logical, level): (u64, u8),
        (low, high): (Key, Key),
        take: &mut dyn FnMut(Key, &[u8]) -> Option<T>,
    ) -> Option<T> {
        let node = self.node(logical)?;
        if level > LEVEL_MAX || node.get(0x64) != Some(&level) {
            return None;
        }
        if level == 0 {
            return items(&node).filter(|(key, _)| (low..=high).contains(key)).find_map(|(key, item)| take(key, item?));
        }
        let all: Vec<_> = pointers(&node).collect();
        let ends = all.iter().skip(1).map(|(key, ..)| Some(*key)).chain([None]);
        let mut within =
            all.iter().zip(ends).filter(|((key, ..), end)| *key <= high && end.is_none_or(|end| end > low));
        within.find_map(|((_, child, _), _)| self.find_in((*child, level.saturating_sub(1)), (low, high), take))
    }
}

/// The items of a leaf, with their bytes where they are in it.
fn items(node: &[u8]) -> impl Iterator<Item = (Key, Option<&[u8]>)> {
    let count = from_u32(le32(node, 0x60));
    let data = node.get(NODE_HEADER..).unwrap_or_default();
    data.chunks_exact(ITEM).take(count).map(move |item| {
        let at = from_u32(le32(item, 17));
        (key(item), at.checked_add(from_u32(le32(item, 21))).and_then(|end| data.get(at..end)))
    })
}

/// The items of the leaf at a logical byte whose bytes are in it.
fn whole_items(node: &[u8], leaf: u64) -> impl Iterator<Item = Item<'_>> {
    let owner = le64(node, 0x58);
    items(node).filter_map(move |(key, bytes)| Some(Item { key, bytes: bytes?, leaf, owner }))
}

/// The children of a node: first key, logical byte, generation.
fn pointers(node: &[u8]) -> impl Iterator<Item = (Key, u64, u64)> {
    let count = from_u32(le32(node, 0x60));
    let data = node.get(NODE_HEADER..).unwrap_or_default();
    data.chunks_exact(POINTER).take(count).map(|child| (key(child), le64(child, 17), le64(child, 25)))
}

/// What a node has to be.
struct Wanted {
    logical: u64,
    level: u8,
    generation: u64,
    first: Option<Key>,
}

/// Goes through trees, each node once however many snapshots share it.
pub(super) struct Walker<'a> {
    pub contents: &'a mut Contents,
    visited: Claims,
    /// Bytes of nodes under a checksum that is right, all copies together.
    pub verified: u64,
    /// Some nodes were not gone into.
    pub is_partial: bool,
    /// Some nodes lie on other devices, or in stripes.
    pub has_elsewhere: bool,
    /// What points to nodes and data.
    pub references: References,
    /// How many nodes were read.
    pub nodes: u64,
}

impl<'a> Walker<'a> {
    pub(super) fn new(look: &Look<'_>, contents: &'a mut Contents) -> Self {
        let visited = Claims::new(look.len() / 512);
        Self {
            contents,
            visited,
            verified: 0,
            is_partial: false,
            has_elsewhere: false,
            references: References::default(),
            nodes: 0,
        }
    }

    /// Gives all items of a tree in their order.
    pub(super) fn walk(&mut self, fs: &Fs<'_>, root: Root, each: &mut dyn FnMut(&Item<'_>)) {
        self.references.root(root);
        let wanted = Wanted { logical: root.logical, level: root.level, generation: root.generation, first: None };
        self.visit(fs, root.id, &wanted, each);
    }

    /// The level falls with each step, and there are eight at most.
    fn visit(&mut self, fs: &Fs<'_>, id: u64, wanted: &Wanted, each: &mut dyn FnMut(&Item<'_>)) {
        let unit = to_u64(fs.node_size).max(1);
        let n = wanted.logical.checked_div(unit).unwrap_or(0);
        if fs.look.is_cancelled() || self.visited.claim(n, 1).is_some() {
            return;
        }
        if self.visited.is_full() {
            self.is_partial = true;
            return self.contents.note("btrfs: not all nodes were gone into: more than are kept in memory");
        }
        let Some(node) = self.read(fs, id, wanted) else {
            self.is_partial = true;
            return;
        };
        self.nodes = self.nodes.saturating_add(1);
        if wanted.level == 0 {
            return whole_items(&node, wanted.logical).for_each(|item| {
                self.references.item(id, &item);
                each(&item);
            });
        }
        for (first, logical, generation) in pointers(&node) {
            let level = wanted.level.saturating_sub(1);
            self.references.pointer(id, (wanted.logical, le64(&node, 0x58)), (logical, level));
            self.visit(fs, id, &Wanted { logical, level, generation, first: Some(first) }, each);
        }
    }

    /// Reads a node at all of its places, and gives the first copy that is whole.
    fn read(&mut self, fs: &Fs<'_>, id: u64, wanted: &Wanted) -> Option<Vec<u8>> {
        let structure = format!("a node of {}, logical byte {}", name(id), wanted.logical);
        let Some((places, _)) = fs.places(wanted.logical) else {
            // Where chunks are listed there, too, nothing is known of it.
            if self.has_elsewhere {
                return None;
            }
            let found = format!("logical byte {}", wanted.logical);
            let place = (structure, fs.superblock.place);
            self.contents.find(Severity::Error, "contents.btrfs.node", place, found, "a chunk maps it");
            return None;
        };
        if places.is_empty() {
            self.has_elsewhere = true;
            return None;
        }
        let (mut good, mut bad) = (None, Vec::new());
        for place in places {
            match fs.look.read(place, fs.node_size) {
                Ok(node) => match wrong(fs, wanted, &node) {
                    None => {
                        self.verified = self.verified.saturating_add(to_u64(fs.node_size));
                        good = good.or(Some(node));
                    }
                    Some(what) => bad.push((place, what)),
                },
                Err(e) => self.contents.unread(fs.look, (structure.as_str(), place), to_u64(fs.node_size), &e),
            }
        }
        let severity = if good.is_some() { Severity::Warning } else { Severity::Error };
        for (place, (code, found, expected)) in bad {
            self.contents.find(severity, code, (structure.as_str(), place), found, expected);
        }
        good
    }
}

/// What is wrong with a node, if anything: the code, what was found and what is wanted.
fn wrong(fs: &Fs<'_>, wanted: &Wanted, node: &[u8]) -> Option<(&'static str, String, String)> {
    let is = |found: String, expected: String| Some(("contents.btrfs.node", found, expected));
    let [level] = field(node, 0x64);
    let (place, generation) = (le64(node, 0x30), le64(node, 0x50));
    if is_proved(node, fs.superblock.csum_type()) == Some(false) {
        let expected = "that over its bytes is wanted".into();
        return Some(("contents.btrfs.node-checksum", "another checksum".into(), expected));
    } else if place != wanted.logical {
        return is(format!("logical byte {place}"), format!("it is that at {}", wanted.logical));
    } else if field::<16>(node, 0x20) != fs.superblock.node_uuid() {
        return is("another UUID".into(), "the superblock's is wanted".into());
    } else if level != wanted.level || level > LEVEL_MAX {
        return is(format!("level {level}"), format!("level {} is wanted", wanted.level));
    } else if generation != wanted.generation {
        return is(format!("generation {generation}"), format!("{} is wanted", wanted.generation));
    }
    let count = from_u32(le32(node, 0x60));
    let size = if level == 0 { ITEM } else { POINTER };
    let most = node.len().saturating_sub(NODE_HEADER).checked_div(size).unwrap_or(0);
    if count > most || count == 0 && level > 0 {
        return is(format!("{count} items"), format!("1 to {most} are allowed"));
    }
    let keys: Vec<Key> = if level == 0 {
        items(node).map(|(key, _)| key).collect()
    } else {
        pointers(node).map(|(key, ..)| key).collect()
    };
    if let Some(first) = wanted.first.filter(|first| keys.first() != Some(first)) {
        return is(format!("the first key {:?}", keys.first()), format!("{first:?} is wanted"));
    }
    if let Some(n) = keys.array_windows().position(|[a, b]| a >= b) {
        return is(format!("item {n} is not in front of the next"), "keys rise".into());
    }
    if level > 0 {
        return None;
    }
    if let Some((found, expected)) = gap(node) {
        return is(found, expected);
    }
    let generation = fs.superblock.generation();
    items(node).zip(0u64..).find_map(|((key, item), n)| {
        let Some(item) = item else {
            return is(format!("item {n} beyond the leaf"), format!("the leaf has {} bytes", node.len()));
        };
        let (found, expected) = items::wrong(fs.sector(), generation, key, item)?;
        is(format!("item {n} with {found}"), expected)
    })
}

/// Items of a leaf lie behind each other, the first at its end; what is wrong with that otherwise.
fn gap(node: &[u8]) -> Option<(String, String)> {
    let count = from_u32(le32(node, 0x60));
    let data = node.get(NODE_HEADER..).unwrap_or_default();
    let mut wanted = to_u64(data.len());
    for (n, item) in data.chunks_exact(ITEM).take(count).enumerate() {
        let (at, len) = (u64::from(le32(item, 17)), u64::from(le32(item, 21)));
        let end = at.saturating_add(len);
        if end != wanted {
            return Some((format!("item {n} up to byte {end} of the leaf"), format!("it ends at {wanted}")));
        }
        wanted = at;
    }
    None
}

/// Bytes of an item's name, as text.
pub(super) fn text(item: &[u8], at: usize, len: u16) -> String {
    let end = at.saturating_add(at_most(len.into(), 65535));
    String::from_utf8_lossy(item.get(at..end).unwrap_or_default()).into_owned()
}
