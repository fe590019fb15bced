//! The one pass over the plaintext: what is done with each chunk, on the thread that decrypted it.
//!
//! A leaf of the tree is two chunks, which may come in any order: the second waits for the first in a copy. So at most one
//! chunk a thread is kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::behind::Behind;
use super::ranges::Ranges;
use super::report::TreeInfo;
use super::tree::{self, Earlier, LEAF, Tree, TreeFile};
use super::unread::overlap;
use crate::decrypt::Sink;
use crate::error::{Condition, Error, Result};
use crate::map::{Cells, Look, Map};
use crate::num::{at_most, to_u64};

/// Bytes that are told to be zero or not together: a block of most file systems.
const BLOCK: usize = 4096;

/// What the plaintext is compared with.
pub enum Compare {
    /// The file of leaves of an earlier run.
    Tree(Earlier),
    /// The plaintext itself.
    Plaintext(File, u64),
}

impl Compare {
    /// Opens a file of either kind; its first bytes tell which.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where it cannot be opened or read;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a tree that is not whole.
    pub fn open(path: &std::path::Path) -> Result<Self> {
        let shown = || format!("opening {}", crate::error::shown(path));
        let file = File::open(path).map_err(|e| Error::io(shown(), e))?;
        if Earlier::begins(&file)? {
            return Earlier::open(file, path).map(Self::Tree);
        }
        let len = crate::io::FileSource::new(file.try_clone().map_err(|e| Error::io(shown(), e))?)?;
        Ok(Self::Plaintext(file, crate::ReadAt::len(&len)))
    }

    /// Bytes of the plaintext that it is of.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Tree(earlier) => earlier.size,
            Self::Plaintext(_, len) => *len,
        }
    }
}

/// What all chunks go through.
pub struct Pass<'a> {
    /// Leaves that are not whole yet.
    open: Mutex<BTreeMap<u64, Arc<Mutex<Leaf>>>>,
    whole: Mutex<Whole>,
    zero: AtomicU64,
    data: AtomicU64,
    cells: Cells,
    compare: Option<&'a Compare>,
    differences: Mutex<Ranges>,
    around: Around<'a>,
    unread: AtomicU64,
}

/// What is known of the plaintext, beside its bytes.
pub struct Around<'a> {
    /// The parts of a range that was read for which something stands in.
    pub unread: &'a (dyn Fn(Range<u64>) -> Vec<Range<u64>> + Sync),
    /// What lies behind file systems.
    pub behind: Vec<Behind>,
    /// Whether what stands in is compared, too: an output has it.
    pub compares_unread: bool,
}

/// A leaf as far as it came.
struct Leaf {
    hash: Sha256,
    /// Bytes of it that were hashed.
    done: u64,
    /// Bytes that came too early, by their place in it.
    early: BTreeMap<u64, Zeroizing<Vec<u8>>>,
}

/// Whole leaves.
struct Whole {
    tree: Tree,
    /// The number of the next one.
    next: u64,
    /// Those that came too early.
    early: BTreeMap<u64, tree::Hash>,
}

/// What the pass found.
pub struct Passed {
    pub tree: TreeInfo,
    pub zero: u64,
    pub data: u64,
    /// Bytes that stand for what could not be read, and are in neither of the two before.
    pub unread: u64,
    pub behind: Vec<Behind>,
    pub map: Map,
    /// The lowest ranges that differ from what was compared, and the bytes of all.
    pub differences: (Vec<Range<u64>>, u64),
}

impl<'a> Pass<'a> {
    pub fn new(file: Option<TreeFile>, compare: Option<&'a Compare>, around: Around<'a>, size: u64) -> Self {
        Self {
            open: Mutex::default(),
            whole: Mutex::new(Whole { tree: Tree::new(file), next: 0, early: BTreeMap::new() }),
            zero: AtomicU64::new(0),
            data: AtomicU64::new(0),
            cells: Cells::new(size),
            compare,
            differences: Mutex::default(),
            around,
            unread: AtomicU64::new(0),
        }
    }

    /// The end, after `size` bytes.
    pub fn finish(self, size: u64) -> Result<Passed> {
        // The last leaf is shorter.
        let open: Vec<u64> = lock(&self.open).keys().copied().collect();
        for number in open {
            self.close(number)?;
        }
        let whole = self.whole.into_inner().unwrap_or_else(PoisonError::into_inner);
        let differences = self.differences.into_inner().unwrap_or_else(PoisonError::into_inner).listed();
        let (zero, data) = (self.zero.into_inner(), self.data.into_inner());
        let map = self.cells.finish();
        let (unread, behind) = (self.unread.into_inner(), self.around.behind);
        Ok(Passed { tree: whole.tree.finish(size)?, zero, data, unread, behind, map, differences })
    }

    /// Adds bytes of one leaf.
    fn add(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let (number, place) = (offset / LEAF, offset % LEAF);
        let new = || Leaf { hash: tree::leaf(), done: 0, early: BTreeMap::new() };
        let leaf = Arc::clone(lock(&self.open).entry(number).or_insert_with(|| Arc::new(Mutex::new(new()))));
        let mut leaf = lock(&leaf);
        if place != leaf.done {
            leaf.early.insert(place, Zeroizing::new(bytes.to_vec()));
            return Ok(());
        }
        leaf.take(bytes);
        let mut next = leaf.done;
        while let Some(early) = leaf.early.remove(&next) {
            leaf.take(&early);
            next = leaf.done;
        }
        let is_whole = leaf.done == LEAF;
        drop(leaf);
        if is_whole { self.close(number) } else { Ok(()) }
    }

    /// Ends a leaf, and hands on those that are in order now.
    fn close(&self, number: u64) -> Result<()> {
        let Some(leaf) = lock(&self.open).remove(&number) else { return Ok(()) };
        let leaf = lock(&leaf);
        let hash: tree::Hash = leaf.hash.clone().finalize().into();
        if let Some(Compare::Tree(earlier)) = self.compare
            && earlier.leaf(number).map_err(|e| e.with_condition(Condition::Output))?.is_some_and(|other| other != hash)
        {
            let start = number.saturating_mul(LEAF);
            lock(&self.differences).add(start..start.saturating_add(leaf.done));
        }
        drop(leaf);
        let mut whole = lock(&self.whole);
        whole.early.insert(number, hash);
        let mut next = whole.next;
        while let Some(hash) = whole.early.remove(&next) {
            whole.tree.push(hash)?;
            next = next.saturating_add(1);
        }
        whole.next = next;
        Ok(())
    }

    /// Compares a chunk with the plaintext as it was, block by block. Where that is shorter, its length tells.
    fn compare(&self, bytes: &[u8], offset: u64, unread: &[Range<u64>]) -> Result<()> {
        let Some(Compare::Plaintext(file, len)) = self.compare else { return Ok(()) };
        let there = at_most(len.saturating_sub(offset), bytes.len());
        let mut other = Zeroizing::new(vec![0; there]);
        file.read_exact_at(&mut other, offset).map_err(|e| {
            // It is none of the image's bytes.
            Error::io("reading the plaintext to compare with", e).at(offset).with_condition(Condition::Output)
        })?;
        if !self.around.compares_unread {
            let place = |at: u64| at_most(at.saturating_sub(offset), there);
            for range in unread {
                let (start, end) = (place(range.start), place(range.end));
                other[start..end].copy_from_slice(&bytes[start..end]);
            }
        }
        if other.as_slice() == &bytes[..there] {
            return Ok(());
        }
        let mut at = offset;
        for (a, b) in bytes[..there].chunks(BLOCK).zip(other.chunks(BLOCK)) {
            let differ = |pair: &(&u8, &u8)| pair.0 != pair.1;
            let first = a.iter().zip(b).position(|(a, b)| differ(&(a, b)));
            let last = a.iter().zip(b).rposition(|(a, b)| differ(&(a, b)));
            if let (Some(first), Some(last)) = (first, last) {
                let place = |n: usize| at.saturating_add(to_u64(n));
                lock(&self.differences).add(place(first)..place(last).saturating_add(1));
            }
            at = at.saturating_add(to_u64(a.len()));
        }
        Ok(())
    }
}

impl Leaf {
    fn take(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.done = self.done.saturating_add(to_u64(bytes.len()));
    }
}

impl Sink for Pass<'_> {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let unread = (self.around.unread)(offset..offset.saturating_add(to_u64(plaintext.len())));
        let (mut zero, mut data, mut lost) = (0u64, 0u64, 0u64);
        for (n, block) in plaintext.chunks(BLOCK).enumerate() {
            let start = offset.saturating_add(to_u64(n.saturating_mul(BLOCK)));
            let place = start..start.saturating_add(to_u64(block.len()));
            let gone = overlap(&unread, &place);
            let known = to_u64(block.len()).saturating_sub(gone);
            lost = lost.saturating_add(gone);
            if known == 0 {
                continue;
            }
            let is_gone = |n: usize| unread.iter().any(|r| r.contains(&start.saturating_add(to_u64(n))));
            let is_zero = block.iter().enumerate().all(|(n, b)| *b == 0 || (gone > 0 && is_gone(n)));
            let sum = if is_zero { &mut zero } else { &mut data };
            *sum = sum.saturating_add(known);
            let look = if is_zero { Look::Zero } else { Look::Data(block) };
            self.cells.add(start, look, at_most(known, block.len()));
            for behind in self.around.behind.iter().filter(|_| !is_zero) {
                let within = overlap(std::slice::from_ref(&behind.range), &place);
                behind.data.fetch_add(within, Ordering::Relaxed);
            }
        }
        self.zero.fetch_add(zero, Ordering::Relaxed);
        self.data.fetch_add(data, Ordering::Relaxed);
        self.unread.fetch_add(lost, Ordering::Relaxed);
        self.compare(plaintext, offset, &unread)?;
        let (mut rest, mut at) = (plaintext, offset);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(at_most(LEAF.saturating_sub(at % LEAF), rest.len()));
            self.add(now, at)?;
            (rest, at) = (later, at.saturating_add(to_u64(now.len())));
        }
        Ok(())
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_read(unread: &(dyn Fn(Range<u64>) -> Vec<Range<u64>> + Sync)) -> Around<'_> {
        Around { unread, behind: Vec::new(), compares_unread: false }
    }

    fn root(order: &[usize], bytes: &[u8]) -> String {
        let none = |_| Vec::new();
        let pass = Pass::new(None, None, all_read(&none), to_u64(bytes.len()));
        let chunks: Vec<&[u8]> = bytes.chunks(512 << 10).collect();
        for n in order {
            pass.write(chunks[*n], to_u64(*n) * (512 << 10)).unwrap();
        }
        pass.finish(to_u64(bytes.len())).unwrap().tree.root
    }

    #[test]
    fn chunks_in_any_order_are_one_tree() {
        let bytes: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[1]).take((5 << 19) + 100).collect();
        let in_order = root(&[0, 1, 2, 3, 4, 5], &bytes);
        assert_eq!(in_order, root(&[5, 4, 3, 2, 1, 0], &bytes));
        assert_eq!(in_order, root(&[1, 3, 0, 5, 2, 4], &bytes));
        let mut other = bytes.clone();
        other[1 << 20] ^= 1;
        assert_ne!(in_order, root(&[0, 1, 2, 3, 4, 5], &other));
    }

    #[test]
    fn zeroes_and_differences_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plain");
        let mut bytes = vec![0; 10 * BLOCK + 7];
        bytes[5 * BLOCK + 3] = 1;
        std::fs::write(&path, &bytes).unwrap();
        let compare = Compare::open(&path).unwrap();
        bytes[2 * BLOCK + 1] = 9;
        let none = |_| Vec::new();
        let pass = Pass::new(None, Some(&compare), all_read(&none), to_u64(bytes.len()));
        pass.write(&bytes, 0).unwrap();
        let passed = pass.finish(to_u64(bytes.len())).unwrap();
        let block = to_u64(BLOCK);
        assert_eq!((passed.zero, passed.data), (8 * block + 7, 2 * block));
        assert_eq!((passed.map.cells.as_str(), passed.map.cell_bytes), ("00100100000", block));
        assert_eq!(passed.differences, (std::iter::once(2 * block + 1..2 * block + 2).collect(), 1));
        // What stands for bytes that could not be read is in no sum, and like nothing that it is compared with.
        let lost = |_| vec![2 * block..3 * block, 5 * block..5 * block + 512];
        let pass = Pass::new(None, Some(&compare), all_read(&lost), to_u64(bytes.len()));
        pass.write(&bytes, 0).unwrap();
        let passed = pass.finish(to_u64(bytes.len())).unwrap();
        assert_eq!((passed.zero, passed.data, passed.unread), (9 * block - 512 + 7, 0, block + 512));
        assert_eq!((passed.map.cells.as_str(), passed.differences.1), ("00.00.00000", 0));
    }
}
