//! Thin volumes: the trees in which dm-thin keeps where each block of a volume lies (Linux's
//! `drivers/md/dm-thin-metadata.c` and `drivers/md/persistent-data/dm-btree-internal.h`). All numbers are little-endian,
//! and all metadata is in blocks of 4096 bytes.
//!
//! | superblock, block 0 | | node of a tree | |
//! |---|---|---|---|
//! | 0..4 | checksum of 4..4096 | 0..4 | checksum of 4..4096 |
//! | 4..8 | flags: 1 needs a check | 4..8 | flags: 1 inner node, 2 leaf |
//! | 8..16 | its own block, 0 | 8..16 | its own block |
//! | 32..40 | magic | 16..20 | number of entries |
//! | 40..44 | version | 20..24 | room for entries |
//! | 48..56 | transaction | 24..28 | size of a value |
//! | 320..328 | root of the mappings | 32.. | keys, 64 bits each, in order |
//! | 328..336 | root of the volumes' details | behind the room for keys | values |
//! | 336..340, 340..344 | sectors of a data block, of a metadata block | | |
//! | 344..352 | number of metadata blocks | | |
//! | 360..364 | features that must be known | | |
//!
//! The tree of mappings has a tree for each volume; there the value of a block is the data block that holds it, shifted
//! by 24 bits that are a time. What has no entry reads as zeroes.

use std::sync::Arc;

use super::stripe::split_at_most;
use crate::error::{Error, Result, counted};
use crate::io::{Extent, ReadAt};
use crate::limits::THIN_DEPTH_MAX;

const BLOCK: usize = 4096;
const MAGIC: u64 = 27_022_010;
/// What the checksums of a superblock and of a node are mixed with.
const SUPERBLOCK_SALT: u32 = 160_774;
const NODE_SALT: u32 = 121_107;
const NODE_HEADER: usize = 32;
const INNER: u32 = 1;
const LEAF: u32 = 2;

fn fault(rule: &'static str, message: String) -> Error {
    Error::corrupt(rule, format!("the thin pool's metadata {message}"))
}

fn u32_at(block: &[u8; BLOCK], at: usize) -> Result<u32> {
    let bytes = block.get(at..).and_then(|b| b.first_chunk());
    bytes.map(|b| u32::from_le_bytes(*b)).ok_or_else(|| fault("lvm.thin.node", "is cut off".into()))
}

fn u64_at(block: &[u8; BLOCK], at: usize) -> Result<u64> {
    let bytes = block.get(at..).and_then(|b| b.first_chunk());
    bytes.map(|b| u64::from_le_bytes(*b)).ok_or_else(|| fault("lvm.thin.node", "is cut off".into()))
}

/// The pool's metadata, one block after the other.
struct Blocks {
    source: Arc<dyn ReadAt>,
    count: u64,
}

impl Blocks {
    /// Block `n`, whose checksum is right and which says that it is that one.
    fn read(&self, n: u64, salt: u32) -> Result<[u8; BLOCK]> {
        let offset = n.checked_mul(4096).filter(|_| n < self.count);
        let offset = offset
            .ok_or_else(|| fault("lvm.thin.block", format!("points to its block {n}, and has {}", self.count)))?;
        let mut block = [0; BLOCK];
        self.source.read_exact_at(&mut block, offset)?;
        // The kernel's CRC-32C is not inverted at the end.
        let (stored, computed) = (u32_at(&block, 0)?, !crc32c::crc32c(&block[4..]) ^ salt);
        if stored != computed {
            let message = format!("has checksum {stored:#010x} in block {n}, whose bytes give {computed:#010x}");
            return Err(fault("lvm.thin.crc", message).at(offset));
        }
        let own = u64_at(&block, 8)?;
        if own != n {
            return Err(fault("lvm.thin.place", format!("has block {own} where block {n} belongs")).at(offset));
        }
        Ok(block)
    }

    fn node(&self, n: u64, value_size: u32) -> Result<Node> {
        let block = self.read(n, NODE_SALT)?;
        let wrong = |message: String| Err(fault("lvm.thin.node", format!("{message} in block {n}")));
        let is_leaf = match u32_at(&block, 4)? {
            INNER => false,
            LEAF => true,
            other => return wrong(format!("has a node of kind {other}")),
        };
        let (entries, room, size) = (u32_at(&block, 16)?, u32_at(&block, 20)?, u32_at(&block, 24)?);
        // The values of an inner node are blocks.
        let expected = if is_leaf { value_size } else { 8 };
        if size != expected {
            return wrong(format!("has values of {size} bytes, not of {expected},"));
        }
        let (Ok(len), Ok(room)) = (usize::try_from(entries), usize::try_from(room)) else {
            return wrong("has too many entries".into());
        };
        let width = usize::try_from(size).ok().and_then(|size| size.checked_add(8));
        let end = width.and_then(|width| room.checked_mul(width)).and_then(|n| n.checked_add(NODE_HEADER));
        if len > room || end.is_none_or(|end| end > BLOCK) {
            return wrong(format!("has {} and room for {room}", counted(len, "entry")));
        }
        let node = Node { block, is_leaf, len, values: NODE_HEADER + room * 8 };
        for i in 1..len {
            if node.key(i - 1)? >= node.key(i)? {
                return wrong("has keys out of order".into());
            }
        }
        Ok(node)
    }

    /// The entry of the tree at `root` for `key`.
    fn find(&self, root: u64, key: u64, value_size: u32) -> Result<Found> {
        let mut at = root;
        let mut end = None;
        for _ in 0..THIN_DEPTH_MAX {
            let node = self.node(at, value_size)?;
            let behind = node.behind(key)?;
            if behind < node.len {
                end = Some(node.key(behind)?);
            }
            let before = behind.checked_sub(1);
            match before {
                Some(n) if !node.is_leaf => at = node.value(n)?,
                Some(n) if node.key(n)? == key => return Ok(Found::Entry(Box::new(node), n)),
                _ => return Ok(Found::Hole { end }),
            }
        }
        Err(fault("lvm.thin.depth", format!("has a tree that is deeper than {THIN_DEPTH_MAX} levels")))
    }
}

enum Found {
    /// The node, and the number of the entry.
    Entry(Box<Node>, usize),
    /// There is none, and none below key `end`.
    Hole { end: Option<u64> },
}

struct Node {
    block: [u8; BLOCK],
    is_leaf: bool,
    len: usize,
    /// Where the values begin.
    values: usize,
}

impl Node {
    fn key(&self, n: usize) -> Result<u64> {
        u64_at(&self.block, NODE_HEADER + n * 8)
    }

    /// A value of 64 bits.
    fn value(&self, n: usize) -> Result<u64> {
        u64_at(&self.block, self.values + n * 8)
    }

    /// The number of the first entry whose key is above `key`.
    fn behind(&self, key: u64) -> Result<usize> {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle)? <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// A thin volume.
pub(super) struct Thin {
    blocks: Blocks,
    data: Arc<dyn ReadAt>,
    /// The size in bytes of a data block.
    block_size: u64,
    /// The root of the volume's own tree.
    root: u64,
}

/// What the metadata says of a pool, besides the trees.
pub(super) struct PoolState {
    pub(super) transaction: u64,
    pub(super) needs_check: bool,
}

/// A run of blocks.
struct Run {
    /// Where the first of them lies in the data; `None` for a hole.
    at: Option<u64>,
    blocks: u64,
}

impl Thin {
    /// The volume with number `device` of the pool whose metadata and data these are.
    pub(super) fn open(
        metadata: Arc<dyn ReadAt>,
        data: Arc<dyn ReadAt>,
        block_size: u64,
        device: u64,
    ) -> Result<(Self, PoolState)> {
        let count = metadata.len() / 4096;
        let mut blocks = Blocks { source: metadata, count };
        let superblock = blocks.read(0, SUPERBLOCK_SALT)?;
        let magic = u64_at(&superblock, 32)?;
        if magic != MAGIC {
            return Err(fault("lvm.thin.magic", format!("has the magic {magic}, not {MAGIC}")));
        }
        let (version, features) = (u32_at(&superblock, 40)?, u32_at(&superblock, 360)?);
        if !(1..=2).contains(&version) || features != 0 {
            let message = format!(
                "the thin pool's metadata has version {version} and features {features:#x}; 1 and 2, and 0, are read"
            );
            return Err(Error::unsupported("lvm.thin.version", message));
        }
        let (data_block, metadata_block) = (u64::from(u32_at(&superblock, 336)?) * 512, u32_at(&superblock, 340)?);
        if data_block != block_size || block_size == 0 || metadata_block != 8 {
            let message = format!(
                "has blocks of {data_block} bytes in pieces of {}; the volume group says {block_size}, and 8 are read",
                counted(metadata_block, "sector")
            );
            return Err(fault("lvm.thin.block_size", message));
        }
        let said = u64_at(&superblock, 344)?;
        if said > count {
            return Err(fault("lvm.thin.size", format!("has {}, but its volume {count}", counted(said, "block"))));
        }
        blocks.count = said;
        let (mappings, details) = (u64_at(&superblock, 320)?, u64_at(&superblock, 328)?);
        let missing = || fault("lvm.thin.device", format!("has no volume with number {device}"));
        let Found::Entry(..) = blocks.find(details, device, 24)? else { return Err(missing()) };
        let Found::Entry(node, n) = blocks.find(mappings, device, 8)? else { return Err(missing()) };
        let root = node.value(n)?;
        let state = PoolState { transaction: u64_at(&superblock, 48)?, needs_check: u32_at(&superblock, 4)? & 1 != 0 };
        Ok((Self { blocks, data, block_size, root }, state))
    }

    /// The run that begins with `block`.
    fn run(&self, block: u64) -> Result<Run> {
        let (node, n) = match self.blocks.find(self.root, block, 8)? {
            Found::Hole { end } => {
                // A key below the block asked for would have been found, or left a hole behind it.
                let end = end.unwrap_or(u64::MAX);
                return Ok(Run { at: None, blocks: end.saturating_sub(block).max(1) });
            }
            Found::Entry(node, n) => (node, n),
        };
        let first = node.value(n)? >> 24;
        let mut blocks = 1;
        for i in n + 1..node.len {
            if (node.key(i)?, node.value(i)? >> 24) != (block + blocks, first + blocks) {
                break;
            }
            blocks += 1;
        }
        let end = first.checked_add(blocks).and_then(|end| end.checked_mul(self.block_size));
        if end.is_none_or(|end| end > self.data.len()) {
            let message =
                format!("puts block {block} to block {first} of the data, which has {} bytes", self.data.len());
            return Err(fault("lvm.thin.beyond", message));
        }
        Ok(Run { at: Some(first * self.block_size), blocks })
    }

    /// Where `offset` lies in the data, `None` for a hole; and for how many bytes that goes on.
    fn place(&self, offset: u64) -> Result<(Option<u64>, u64)> {
        let (block, inside) = (offset / self.block_size, offset % self.block_size);
        let run = self.run(block)?;
        let bytes = run.blocks.saturating_mul(self.block_size) - inside;
        Ok((run.at.map(|at| at + inside), bytes))
    }

    pub(super) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let (at, run) = self.place(offset)?;
            let (piece, rest) = split_at_most(buf, run);
            match at {
                Some(at) => self.data.read_exact_at(piece, at)?,
                None => piece.fill(0),
            }
            buf = rest;
            offset = offset.saturating_add(run);
        }
        Ok(())
    }

    pub(super) fn extent(&self, offset: u64) -> Result<Extent> {
        let (at, run) = self.place(offset)?;
        match at {
            None => Ok(Extent { len: run, zero: true }),
            Some(at) => self.data.extent_at(at).map(|extent| Extent { len: extent.len.min(run), ..extent }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const DATA_BLOCK: u64 = 65536;

    fn put(bytes: &mut [u8], at: usize, number: u64) {
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn seal(metadata: &mut [u8]) {
        for (n, block) in metadata.chunks_mut(BLOCK).enumerate() {
            let salt = if n == 0 { SUPERBLOCK_SALT } else { NODE_SALT };
            let crc = !crc32c::crc32c(&block[4..]) ^ salt;
            block[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// A node in block `n` with room for four entries.
    fn node(metadata: &mut [u8], n: usize, kind: u8, value_size: u8, entries: &[(u64, u64)]) {
        let block = &mut metadata[n * BLOCK..][..BLOCK];
        put(block, 8, u64::try_from(n).unwrap());
        block[4] = kind;
        block[16] = u8::try_from(entries.len()).unwrap();
        block[20] = 4;
        block[24] = value_size;
        for (i, (key, value)) in entries.iter().enumerate() {
            put(block, 32 + i * 8, *key);
            put(block, 64 + i * usize::from(value_size), *value);
        }
    }

    /// Volume 7 with blocks 1, 2 and 4, and 20: in two leaves, data blocks 5, 6, 3 and 0.
    fn metadata() -> Vec<u8> {
        let mut bytes = vec![0; 8 * BLOCK];
        put(&mut bytes, 32, MAGIC);
        bytes[40] = 2;
        put(&mut bytes, 48, 9);
        put(&mut bytes, 320, 1);
        put(&mut bytes, 328, 2);
        put(&mut bytes, 336, 128 | 8 << 32);
        put(&mut bytes, 344, 8);
        node(&mut bytes, 1, 2, 8, &[(7, 3)]);
        node(&mut bytes, 2, 2, 24, &[(7, 4)]);
        node(&mut bytes, 3, 1, 8, &[(1, 4), (20, 5)]);
        node(&mut bytes, 4, 2, 8, &[(1, 5 << 24 | 1), (2, 6 << 24), (4, 3 << 24)]);
        node(&mut bytes, 5, 2, 8, &[(20, 0)]);
        for n in 6..8 {
            node(&mut bytes, n, 2, 8, &[]);
        }
        seal(&mut bytes);
        bytes
    }

    fn open(metadata: Vec<u8>, device: u64) -> Result<(Thin, PoolState)> {
        let data: Vec<u8> = (1..9u8).flat_map(|n| [n; 65536]).collect();
        Thin::open(Arc::new(metadata), Arc::new(data), DATA_BLOCK, device)
    }

    #[test]
    fn blocks_are_found_and_holes_are_zero() {
        let (thin, state) = open(metadata(), 7).unwrap();
        assert_eq!((state.transaction, state.needs_check), (9, false));
        let mut bytes = vec![9; 65536 * 22];
        thin.read(&mut bytes, 0).unwrap();
        let blocks: Vec<u8> = bytes.chunks(65536).map(|block| block[65535]).collect();
        assert_eq!(blocks[..6], [0, 6, 7, 0, 4, 0]);
        assert_eq!(blocks[19..], [0, 1, 0]);
        let extent = |offset| thin.extent(offset).map(|e| (e.len, e.zero)).unwrap();
        assert_eq!(extent(0), (65536, true));
        assert_eq!(extent(65536 + 100), (2 * 65536 - 100, false));
        assert_eq!(extent(3 * 65536), (65536, true));
        // The hole goes on to the next leaf.
        assert_eq!(extent(5 * 65536), (15 * 65536, true));
        assert!(extent(21 * 65536).0 > 1 << 40);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |at: usize, to: u64| {
            let mut bytes = metadata();
            put(&mut bytes, at, to);
            seal(&mut bytes);
            let read = |(thin, _): (Thin, PoolState)| thin.read(&mut [0; 512], 65536);
            let e = open(bytes, 7).and_then(read).unwrap_err();
            (e.rule().to_owned(), e.message().to_owned())
        };
        let is =
            |rule: &str, message: &str| (format!("lvm.thin.{rule}"), format!("the thin pool's metadata {message}"));
        assert_eq!(said(32, 1), is("magic", "has the magic 1, not 27022010"));
        let version = "has version 3 and features 0x0; 1 and 2, and 0, are read";
        assert_eq!(said(40, 3), is("version", version));
        assert_eq!(said(360, 1).0, "lvm.thin.version");
        assert_eq!(said(336, 64 | 8 << 32).0, "lvm.thin.block_size");
        assert_eq!(said(344, 9), is("size", "has 9 blocks, but its volume 8"));
        assert_eq!(said(320, 8), is("block", "points to its block 8, and has 8"));
        assert_eq!(said(BLOCK + 8, 2), is("place", "has block 2 where block 1 belongs"));
        assert_eq!(said(BLOCK + 32, 8), is("device", "has no volume with number 7"));
        assert_eq!(said(2 * BLOCK + 32, 8), is("device", "has no volume with number 7"));
        assert_eq!(said(3 * BLOCK + 4, 4 | 3 << 32), is("node", "has a node of kind 4 in block 3"));
        assert_eq!(said(4 * BLOCK + 40, 1), is("node", "has keys out of order in block 4"));
        assert_eq!(said(4 * BLOCK + 16, 5 | 4 << 32), is("node", "has 5 entries and room for 4 in block 4"));
        assert_eq!(said(4 * BLOCK + 16, 3 | 400 << 32), is("node", "has 3 entries and room for 400 in block 4"));
        assert_eq!(said(4 * BLOCK + 24, 24), is("node", "has values of 24 bytes, not of 8, in block 4"));
        assert_eq!(said(3 * BLOCK + 64, 3), is("depth", "has a tree that is deeper than 16 levels"));
        assert_eq!(
            said(4 * BLOCK + 64, 8 << 24),
            is("beyond", "puts block 1 to block 8 of the data, which has 524288 bytes")
        );
        let mut bytes = metadata();
        bytes[BLOCK + 100] ^= 1;
        let e = open(bytes, 7).err().unwrap();
        assert_eq!((e.kind(), e.rule(), e.offset()), (ErrorKind::Corrupt, "lvm.thin.crc", Some(4096)));
        assert_eq!(open(metadata(), 8).err().unwrap().rule(), "lvm.thin.device");
    }
}
