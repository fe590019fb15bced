//! btrfs: what points to nodes and data, against what the extent tree says points to them.
//!
//! | item | type | bytes |
//! |---|---|---|
//! | extent | 168, 169 | 0: references, 16: flags; behind 24, of a node of type 168 behind 42: references |
//! | a tree's, a parent's reference to a node | 176, 182 | key's offset, or 8 inline: the tree, or the parent's logical byte |
//! | a file's reference | 178 | 0: tree, 8: inode, 16: where the extent would begin in the file, 24: how many |
//! | a leaf's reference | 184 | key's offset, or 8 inline: the leaf's logical byte; how many |
//!
//! A node points to its children, and a leaf to data, in the name of the tree that it was made for, or, if its own extent has
//! the flag 0x100, in its own name. The source is Linux's `fs/btrfs/extent-tree.c` and btrfs-progs' `check/main.c`.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::items::{EXTENT_ITEM, METADATA_ITEM};
use super::keys::Item;
use super::references::{References, Use};
use super::tree::Fs;
use super::{Contents, Severity};
use crate::error::counted;
use crate::inside::look::{field, le32, le64};
use crate::limits::INSIDE_EXTENTS_MAX;
use crate::num::to_u64;

const TREE_BLOCK_REF: u8 = 176;
const EXTENT_DATA_REF: u8 = 178;
const SHARED_BLOCK_REF: u8 = 182;
const SHARED_DATA_REF: u8 = 184;
/// The owner of an extent for simple quotas: no reference.
const OWNER_REF: u8 = 172;
const HEAD: usize = 24;
const FLAG_NODE: u64 = 2;
const FLAG_IN_OWN_NAME: u64 = 1 << 8;

/// Who has an extent, as one number.
type Who = u64;

fn who(kind: u8, of: [u64; 3]) -> Who {
    let mut hasher = DefaultHasher::new();
    (kind, of).hash(&mut hasher);
    hasher.finish()
}

/// An extent, who has it, the node that says so, and the use of a file.
type Seen = (u64, Who, u64, Option<Use>);

/// An extent of the extent tree.
struct Extent {
    start: u64,
    len: u64,
    references: u64,
    is_node: bool,
    /// Of a node, where it is said.
    level: Option<u8>,
    /// Its pointers are in its own name.
    is_own: bool,
    /// The leaf that says so.
    leaf: u64,
}

impl Extent {
    fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// What the extent tree says.
#[derive(Default)]
pub(super) struct Extents {
    /// In their order.
    all: Vec<Extent>,
    /// The extent, who, and how often.
    told: Vec<(u64, Who, u64)>,
    is_full: bool,
}

impl Extents {
    /// Takes an item of the extent tree.
    pub(super) fn item(&mut self, fs: &Fs<'_>, item: &Item<'_>) {
        let (start, kind, offset) = item.key;
        self.is_full |= self.all.len().saturating_add(self.told.len()) >= INSIDE_EXTENTS_MAX;
        if self.is_full {
            return;
        }
        match kind {
            EXTENT_ITEM | METADATA_ITEM => self.extent(fs, item),
            TREE_BLOCK_REF | SHARED_BLOCK_REF => self.told.push((start, who(kind, [offset, 0, 0]), 1)),
            EXTENT_DATA_REF => self.told.push(of_file(start, item.bytes)),
            SHARED_DATA_REF => {
                self.told.push((start, who(kind, [offset, 0, 0]), u64::from(le32(item.bytes, 0))));
            }
            _ => {}
        }
    }

    fn extent(&mut self, fs: &Fs<'_>, item: &Item<'_>) {
        let (start, kind, offset) = item.key;
        let flags = le64(item.bytes, 16);
        let is_node = kind == METADATA_ITEM || flags & FLAG_NODE != 0;
        let len = if kind == METADATA_ITEM { to_u64(fs.node_size) } else { offset };
        let is_own = is_node && flags & FLAG_IN_OWN_NAME != 0;
        let [inline] = field(item.bytes, HEAD.saturating_add(17));
        let level = if kind == METADATA_ITEM { u8::try_from(offset).ok() } else { is_node.then_some(inline) };
        self.all.push(Extent { start, len, references: le64(item.bytes, 0), is_node, level, is_own, leaf: item.leaf });
        let head = if is_node && kind == EXTENT_ITEM { HEAD.saturating_add(18) } else { HEAD };
        let mut rest = item.bytes.get(head..).unwrap_or_default();
        // Each takes nine bytes at least.
        while let Some((kind, bytes)) = rest.split_first() {
            let (told, len) = match *kind {
                TREE_BLOCK_REF | SHARED_BLOCK_REF => ((start, who(*kind, [le64(bytes, 0), 0, 0]), 1), 8),
                SHARED_DATA_REF => ((start, who(*kind, [le64(bytes, 0), 0, 0]), u64::from(le32(bytes, 8))), 12),
                EXTENT_DATA_REF => (of_file(start, bytes), 28),
                OWNER_REF => ((start, 0, 0), 8),
                // One that is not known: their number will not be the one that is said.
                _ => break,
            };
            self.told.push(told);
            rest = bytes.get(len..).unwrap_or_default();
        }
    }

    /// The extent at a logical byte.
    fn at(&self, start: u64) -> Option<&Extent> {
        let n = self.all.binary_search_by_key(&start, |extent| extent.start).ok()?;
        self.all.get(n)
    }

    /// The starts and lengths of all, in their order, and the groups that they are in; nothing where some were left out.
    pub(super) fn used(&self) -> Option<impl Iterator<Item = (u64, u64)>> {
        (!self.is_full).then(|| self.all.iter().map(|extent| (extent.start, extent.len)))
    }

    /// Compares both. Gives the findings, and the files that they hit. `is_whole` says whether all that points to something
    /// has been seen.
    pub(super) fn check(
        &mut self,
        fs: &Fs<'_>,
        references: &References,
        is_whole: bool,
        contents: &mut Contents,
    ) -> Vec<(usize, (u64, u64))> {
        if self.is_full || references.is_full {
            contents.note("btrfs: extents were not held against files: more than are kept in memory");
            return Vec::new();
        }
        let mut faults = Faults { fs, contents, hits: Vec::new(), last: None };
        for [a, b] in self.all.array_windows() {
            if a.end() > b.start {
                let found = format!("{} bytes", a.len);
                faults.take(
                    Severity::Error,
                    (a.start, a.leaf),
                    None,
                    (found, format!("the next begins at {}", b.start)),
                );
            }
        }
        for pointer in &references.pointers {
            let said = self.at(pointer.node).and_then(|extent| Some((extent.level?, extent.leaf)));
            if let Some((level, leaf)) = said.filter(|(level, _)| *level != pointer.level) {
                let text = (format!("a node of level {level}"), format!("level {} is there", pointer.level));
                faults.take(Severity::Warning, (pointer.node, leaf), None, text);
            }
        }
        self.told.sort_unstable();
        let mut seen = self.seen(references);
        seen.sort_unstable_by_key(|seen| (seen.0, seen.1));
        let mut all = self.told.iter().peekable();
        for extent in &self.all {
            let mut told = 0u64;
            while let Some((_, _, n)) = all.next_if(|(start, ..)| *start <= extent.start) {
                told = told.saturating_add(*n);
            }
            if told != extent.references {
                let found = counted(extent.references, "reference");
                faults.take(
                    Severity::Warning,
                    (extent.start, extent.leaf),
                    None,
                    (found, format!("{told} are listed")),
                );
            }
        }
        self.compare(&seen, is_whole, &mut faults);
        faults.hits
    }

    /// Who has which extent, and the use of a file.
    fn seen(&self, references: &References) -> Vec<Seen> {
        let is_own = |node: u64| self.at(node).is_some_and(|extent| extent.is_own);
        let nodes = references.pointers.iter().map(|pointer| {
            let who = if pointer.parent > 0 && is_own(pointer.parent) {
                who(SHARED_BLOCK_REF, [pointer.parent, 0, 0])
            } else {
                who(TREE_BLOCK_REF, [pointer.owner, 0, 0])
            };
            (pointer.node, who, pointer.parent, None)
        });
        let uses = references.uses.iter().map(|used| {
            let who = if is_own(used.leaf) {
                who(SHARED_DATA_REF, [used.leaf, 0, 0])
            } else {
                who(EXTENT_DATA_REF, [used.owner, used.inode, used.offset])
            };
            (used.start, who, used.leaf, Some(*used))
        });
        nodes.chain(uses).collect()
    }

    /// Both are in the order of their extents and of who has them.
    fn compare(&self, seen: &[Seen], is_whole: bool, faults: &mut Faults<'_>) {
        let mut told = self.told.iter().peekable();
        let missing = |told: &(u64, Who, u64), faults: &mut Faults<'_>| {
            if is_whole && told.2 > 0 {
                let found = counted(told.2, "reference");
                let leaf = self.at(told.0).map_or(told.0, |extent| extent.leaf);
                faults.take(Severity::Warning, (told.0, leaf), None, (found, "nothing is there that has it".into()));
            }
        };
        for same in seen.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            let Some((start, who, leaf, used)) = same.first() else { continue };
            while let Some(other) = told.next_if(|other| (other.0, other.1) < (*start, *who)) {
                missing(other, faults);
            }
            let mut count = 0u64;
            while let Some(other) = told.next_if(|other| (other.0, other.1) == (*start, *who)) {
                count = count.saturating_add(other.2);
            }
            let owner = used.map(|used| (used.owner, used.inode));
            let wanted = same.iter().filter_map(|(.., used)| Some(used.as_ref()?.len)).max();
            let says = match self.at(*start) {
                None => Some((Severity::Error, "it is in use".into(), "the extent tree has it".into())),
                Some(extent) if extent.is_node == used.is_some() || wanted.is_some_and(|len| len != extent.len) => {
                    let found = format!("{} bytes of {}", extent.len, if extent.is_node { "nodes" } else { "data" });
                    let what = if used.is_some() { "data" } else { "a node" };
                    let expected = match wanted {
                        Some(len) => format!("{len} bytes of {what} are in use there"),
                        None => format!("{what} is there"),
                    };
                    Some((Severity::Error, found, expected))
                }
                Some(_) if count < to_u64(same.len()) || is_whole && count > to_u64(same.len()) => {
                    let found = format!("{} of one owner", counted(count, "reference"));
                    Some((Severity::Warning, found, format!("it has {}", same.len())))
                }
                Some(_) => None,
            };
            if let Some((severity, found, expected)) = says {
                let leaf = self.at(*start).map_or(*leaf, |extent| extent.leaf);
                faults.take(severity, (*start, leaf), owner, (found, expected));
            }
        }
        told.for_each(|other| missing(other, faults));
    }
}

fn of_file(start: u64, bytes: &[u8]) -> (u64, Who, u64) {
    let who = who(EXTENT_DATA_REF, [le64(bytes, 0), le64(bytes, 8), le64(bytes, 16)]);
    (start, who, u64::from(le32(bytes, 24)))
}

/// What was found; of one extent one thing.
struct Faults<'a> {
    fs: &'a Fs<'a>,
    contents: &'a mut Contents,
    hits: Vec<(usize, (u64, u64))>,
    last: Option<u64>,
}

impl Faults<'_> {
    fn take(
        &mut self,
        severity: Severity,
        (start, leaf): (u64, u64),
        owner: Option<(u64, u64)>,
        text: (String, String),
    ) {
        if self.last.replace(start) == Some(start) {
            return;
        }
        let place = self.fs.place(leaf).unwrap_or(self.fs.superblock.place);
        let structure = (format!("the extent at logical byte {start}"), place);
        let nth = self.contents.find_nth(severity, "contents.btrfs.extent", structure, text.0, text.1);
        self.hits.extend(nth.zip(owner));
    }
}
