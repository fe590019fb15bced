//! A tree of hashes over the plaintext, so that a later run names the places that differ.
//!
//! It is the Merkle tree of RFC 6962, section 2.1, with SHA-256 over leaves of 1 MiB: a leaf is SHA-256(0x00, bytes), a node
//! SHA-256(0x01, left, right), and the left side of a node is as large a power of two as there can be.
//!
//! The leaves are kept in a text file, each at a place that its number tells:
//!
//! ```text
//! unluks-tree 1 rfc6962-sha256 1048576    the header, 37 bytes with its newline
//! 64 digits of lower-case hex             65 bytes with the newline, a leaf each
//! size 20 digits                          the plaintext's bytes, 26 bytes with the newline
//! root 64 digits                          70 bytes with the newline
//! ```
//!
//! No crate is taken: those of RFC 6962 keep all leaves in memory, and this is forty lines.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::report::TreeInfo;
use crate::error::{Error, Result, shown};
use crate::files::{Existing, Whole};

/// Bytes of plaintext of a leaf.
pub const LEAF: u64 = 1 << 20;
/// How the tree is made, by name.
const KIND: &str = "rfc6962-sha256";
const HEADER: &str = "unluks-tree 1 rfc6962-sha256 1048576\n";
/// Bytes of the header, of a line of a leaf, and of all behind the leaves.
const HEADER_LEN: u64 = 37;
const LINE: u64 = 65;
const TAIL: u64 = 26 + 70;
/// Lines are written so many at a time.
const BUFFERED: usize = 64 << 10;

/// A hash of the tree.
pub type Hash = [u8; 32];

/// Starts the hash of a leaf.
pub fn leaf() -> Sha256 {
    Sha256::new_with_prefix([0])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new_with_prefix([1]).chain_update(left).chain_update(right).finalize().into()
}

/// A tree whose leaves come in order: it keeps one hash a level, and writes the leaves to a file where one is wanted.
#[derive(Default)]
pub struct Tree {
    /// Complete subtrees, the largest first, each with the number of its leaves.
    subtrees: Vec<(u64, Hash)>,
    leaves: u64,
    file: Option<TreeFile>,
}

impl Tree {
    /// A tree whose leaves are written to `file`, where there is one.
    pub fn new(file: Option<TreeFile>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Adds the next leaf.
    ///
    /// # Errors
    /// Those of the file.
    pub fn push(&mut self, leaf: Hash) -> Result<()> {
        if let Some(file) = &mut self.file {
            file.line(&hex::encode(leaf))?;
        }
        self.leaves = self.leaves.saturating_add(1);
        let mut subtree = (1u64, leaf);
        while let Some((leaves, left)) = self.subtrees.pop_if(|(leaves, _)| *leaves == subtree.0) {
            subtree = (leaves.saturating_mul(2), node(&left, &subtree.1));
        }
        self.subtrees.push(subtree);
        Ok(())
    }

    /// The root over `size` bytes; gives the file its name.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(self, size: u64) -> Result<TreeInfo> {
        let mut hashes = self.subtrees.into_iter().rev().map(|(_, hash)| hash);
        let first = hashes.next().unwrap_or_else(|| Sha256::digest([]).into());
        let root = hex::encode(hashes.fold(first, |right, left| node(&left, &right)));
        if let Some(file) = self.file {
            file.finish(size, &root)?;
        }
        Ok(TreeInfo { kind: KIND.into(), leaf_bytes: LEAF, leaves: self.leaves, root })
    }
}

/// A file of leaves that is being written.
pub struct TreeFile {
    file: Whole,
    waiting: Vec<u8>,
}

impl TreeFile {
    /// Begins the file at `path`, which has its name once the tree is whole.
    ///
    /// # Errors
    /// As [`write_whole`](crate::files::write_whole).
    pub fn create(path: &Path, existing: Existing) -> Result<Self> {
        Ok(Self { file: Whole::create(path, existing)?, waiting: HEADER.into() })
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.waiting.extend_from_slice(text.as_bytes());
        self.waiting.push(b'\n');
        if self.waiting.len() >= BUFFERED {
            self.file.write(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }

    fn finish(mut self, size: u64, root: &str) -> Result<()> {
        self.line(&format!("size {size:020}"))?;
        self.line(&format!("root {root}"))?;
        self.file.write(&self.waiting)?;
        self.file.finish()
    }
}

/// A file of leaves that an earlier run wrote.
pub struct Earlier {
    file: File,
    /// The bytes of its plaintext.
    pub size: u64,
}

impl Earlier {
    /// Whether a file begins as one.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where it cannot be read.
    pub fn begins(file: &File) -> Result<bool> {
        let mut start = [0; 12];
        match file.read_exact_at(&mut start, 0) {
            Ok(()) => Ok(start == HEADER.as_bytes()[..12]),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
            Err(e) => Err(Error::io("reading what is compared", e)),
        }
    }

    /// Opens it, and checks its shape.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where it is not whole, or of another version.
    pub fn open(file: File, path: &Path) -> Result<Self> {
        let bad = || Error::invalid(format!("{} is no whole tree of this version", shown(path)));
        let read = |len: usize, at: u64| {
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, at).map_err(|_| bad())?;
            String::from_utf8(bytes).map_err(|_| bad())
        };
        let len = file.metadata().map_err(|e| Error::io(format!("looking at {}", shown(path)), e))?.len();
        let leaves = len.checked_sub(HEADER_LEN + TAIL).ok_or_else(bad)?;
        let tail = read(26, len.checked_sub(TAIL).ok_or_else(bad)?)?;
        let size = tail.strip_prefix("size ").and_then(|size| size.trim_end().parse::<u64>().ok()).ok_or_else(bad)?;
        if read(HEADER.len(), 0)? != HEADER || size.div_ceil(LEAF).checked_mul(LINE) != Some(leaves) {
            return Err(bad());
        }
        Ok(Self { file, size })
    }

    /// The leaf of that number; `None` behind the last.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where it cannot be read;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where it is no leaf.
    pub fn leaf(&self, number: u64) -> Result<Option<Hash>> {
        if number >= self.size.div_ceil(LEAF) {
            return Ok(None);
        }
        let mut line = [0; 64];
        let at = number.saturating_mul(LINE).saturating_add(HEADER_LEN);
        self.file.read_exact_at(&mut line, at).map_err(|e| Error::io("reading the tree to compare with", e))?;
        let mut leaf = Hash::default();
        hex::decode_to_slice(line, &mut leaf)
            .map_err(|_| Error::invalid(format!("leaf {number} of the tree to compare with is no hash")))?;
        Ok(Some(leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962, as it is written there.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Sha256::digest([]).into(),
            [one] => *one,
            more => {
                let k = more.len().next_power_of_two() / 2;
                node(&by_definition(&more[..k]), &by_definition(&more[k..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_rfc_6962() {
        for count in 0..40u8 {
            let leaves: Vec<Hash> = (0..count).map(|n| leaf().chain_update([n]).finalize().into()).collect();
            let mut tree = Tree::default();
            leaves.iter().for_each(|leaf| tree.push(*leaf).unwrap());
            assert_eq!(tree.finish(1).unwrap().root, hex::encode(by_definition(&leaves)), "{count}");
        }
        // The vector of Certificate Transparency's own test for one empty leaf.
        let empty: Hash = leaf().finalize().into();
        assert_eq!(hex::encode(empty), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn a_file_gives_its_leaves_back_and_one_that_was_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let mut tree = Tree::new(Some(TreeFile::create(&path, Existing::Keep).unwrap()));
        let leaves: Vec<Hash> = (0..3u8).map(|n| [n; 32]).collect();
        leaves.iter().for_each(|leaf| tree.push(*leaf).unwrap());
        assert!(!path.exists());
        tree.finish(2 * LEAF + 1).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        assert!(Earlier::begins(&open()).unwrap());
        let earlier = Earlier::open(open(), &path).unwrap();
        let back: Vec<_> = (0..4).map(|n| earlier.leaf(n).unwrap()).collect();
        assert_eq!((earlier.size, &back[..3]), (2 * LEAF + 1, &leaves.into_iter().map(Some).collect::<Vec<_>>()[..]));
        assert_eq!(back[3], None);
        open().set_len(200).unwrap();
        assert!(Earlier::open(open(), &path).is_err());
    }
}
