//! A snapshot that keeps what it has of its own in a store of exceptions (Linux's `drivers/md/dm-snap-persistent.c`). All
//! numbers are little-endian.
//!
//! The store is made of chunks. Its first begins with the magic `SnAp`, whether the snapshot is valid, the version 1, and
//! the size of a chunk in sectors, 32 bits each. Behind it come areas: a chunk of pairs (a chunk of the origin, and the
//! chunk of the store that stands for it, 64 bits each), then the chunks that it has places for. A pair whose second is 0
//! ends the list. What has no pair reads as the origin does.

use std::sync::Arc;

use super::stripe::split_at_most;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Extent, ReadAt};
use crate::limits::LVM_EXCEPTIONS_MAX;
use crate::num::to_u64;

const MAGIC: u32 = 0x7041_6e53;
/// What the pairs of one area take at most: dm's chunks have at most 512 KiB, and ours no more than this.
const CHUNK_MAX: u64 = 1 << 20;

pub(super) struct Snapshot {
    origin: Arc<dyn ReadAt>,
    store: Arc<dyn ReadAt>,
    chunk: u64,
    /// Chunks of the origin, and those of the store that stand for them, in the order of the first.
    exceptions: Vec<(u64, u64)>,
}

fn fault(rule: &'static str, message: String) -> Error {
    Error::corrupt(rule, format!("the snapshot's store {message}"))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

impl Snapshot {
    /// A snapshot of `len` bytes of `origin`.
    pub(super) fn open(origin: Arc<dyn ReadAt>, store: Arc<dyn ReadAt>, len: u64) -> Result<Self> {
        if origin.len() < len {
            let message = format!("is for {len} bytes, but the origin has {}", origin.len());
            return Err(fault("lvm.snapshot.size", message));
        }
        let mut header = [0; 512];
        store.read_exact_at(&mut header, 0)?;
        let word = |at| u32_at(&header, at).unwrap_or(0);
        let (magic, valid, version, sectors) = (word(0), word(4), word(8), word(12));
        if magic == 0 {
            // LVM wipes the store, and the kernel writes its header when the snapshot is first used: nothing differs yet.
            return Ok(Self { origin, store, chunk: 512, exceptions: Vec::new() });
        }
        if magic != MAGIC {
            return Err(fault("lvm.snapshot.magic", format!("begins with {magic:#010x}, not with {MAGIC:#010x}")));
        }
        if version != 1 {
            let message = format!("the snapshot's store has version {version}; 1 is read");
            return Err(Error::unsupported("lvm.snapshot.version", message));
        }
        if valid == 0 {
            let message = "the snapshot is invalid: its store was full, or could not be written";
            return Err(Error::new(ErrorKind::Corrupt, message).with_rule("lvm.snapshot.invalid"));
        }
        let chunk = u64::from(sectors) * 512;
        if !sectors.is_power_of_two() || chunk > CHUNK_MAX {
            let message = format!("has chunks of {chunk} bytes; a power of two up to {CHUNK_MAX} is allowed");
            return Err(fault("lvm.snapshot.chunk_size", message));
        }
        let mut exceptions = read_exceptions(&*store, chunk)?;
        exceptions.sort_unstable();
        // The kernel would look one of the two up, by what order they were read in.
        if let Some(pair) = exceptions.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(fault("lvm.snapshot.twice", format!("has two exceptions for chunk {}", pair[0].0)));
        }
        Ok(Self { origin, store, chunk, exceptions })
    }

    /// What holds the bytes at `offset`, where in it, and for how many bytes that goes on.
    fn place(&self, offset: u64) -> (&Arc<dyn ReadAt>, u64, u64) {
        let (number, inside) = (offset / self.chunk, offset % self.chunk);
        let n = self.exceptions.partition_point(|(old, _)| *old < number);
        match self.exceptions.get(n) {
            Some((old, new)) if *old == number => {
                let follows = |(at, next): &(u64, &(u64, u64))| (old + at, new + at) == **next;
                let run = (0..).zip(&self.exceptions[n..]).take_while(follows).count();
                let run = to_u64(run) * self.chunk;
                (&self.store, new * self.chunk + inside, run - inside)
            }
            Some((old, _)) => (&self.origin, offset, old.saturating_mul(self.chunk) - offset),
            None => (&self.origin, offset, u64::MAX - offset),
        }
    }

    pub(super) fn read(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let (source, at, run) = self.place(offset);
            let (piece, rest) = split_at_most(buf, run);
            source.read_exact_at(piece, at)?;
            buf = rest;
            offset += run;
        }
        Ok(())
    }

    pub(super) fn extent(&self, offset: u64) -> Result<Extent> {
        let (source, at, run) = self.place(offset);
        let extent = source.extent_at(at)?;
        Ok(Extent { len: extent.len.min(run), ..extent })
    }
}

/// All exceptions of the store. None of them lies beyond its end.
fn read_exceptions(store: &dyn ReadAt, chunk: u64) -> Result<Vec<(u64, u64)>> {
    let per_area = chunk / 16;
    let chunks = store.len() / chunk;
    let mut found = Vec::new();
    let Ok(len) = usize::try_from(chunk) else { return Err(fault("lvm.snapshot.chunk_size", "is too large".into())) };
    let mut area = vec![0; len];
    let mut at = 1;
    while at < chunks {
        store.read_exact_at(&mut area, at * chunk)?;
        for pair in area.chunks_exact(16) {
            let (Some(old), Some(new)) = (u64_at(pair, 0), u64_at(pair, 8)) else { return Ok(found) };
            if new == 0 {
                return Ok(found);
            }
            if new >= chunks || old > u64::MAX / chunk - 1 {
                let message = format!("puts chunk {old} to its own chunk {new}, and has {chunks}");
                return Err(fault("lvm.snapshot.beyond", message).at(at * chunk));
            }
            if found.len() == LVM_EXCEPTIONS_MAX {
                let message = format!("the snapshot has more than {LVM_EXCEPTIONS_MAX} chunks of its own");
                return Err(Error::limit("lvm.snapshot.exceptions", message));
            }
            found.push((old, new));
        }
        at += per_area + 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1024;

    /// A store of chunks of 1024 bytes, each filled with its number, with these exceptions in its first area.
    fn store(exceptions: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..200u8).flat_map(|n| [n; CHUNK]).collect();
        bytes[..16].copy_from_slice(b"SnAp\x01\0\0\0\x01\0\0\0\x02\0\0\0");
        bytes[CHUNK..2 * CHUNK].fill(0);
        for (n, (old, new)) in exceptions.iter().enumerate() {
            // The 64 pairs of an area, and their chunks, lie before the next.
            let at = CHUNK * (1 + n / 64 * 65) + n % 64 * 16;
            bytes[at..at + 8].copy_from_slice(&old.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&new.to_le_bytes());
        }
        bytes
    }

    fn open(store: Vec<u8>, len: u64) -> Result<Snapshot> {
        Snapshot::open(Arc::new(vec![255u8; 100 * CHUNK]), Arc::new(store), len)
    }

    fn chunks(snapshot: &Snapshot, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count * CHUNK];
        snapshot.read(&mut bytes, 0).unwrap();
        bytes.chunks(CHUNK).map(|chunk| chunk[CHUNK - 1]).collect()
    }

    #[test]
    fn exceptions_stand_for_chunks_of_the_origin() {
        let snapshot = open(store(&[(3, 7), (1, 5), (2, 6)]), 100 * 1024).unwrap();
        assert_eq!(chunks(&snapshot, 6), [255, 5, 6, 7, 255, 255]);
        assert_eq!(snapshot.extent(1024).unwrap().len, 3 * 1024);
        assert_eq!(snapshot.extent(100).unwrap().len, 924);
        // A second area, behind the first one's 64 chunks.
        let mut many: Vec<(u64, u64)> = (0..64).map(|n| (n, n + 2)).collect();
        many.push((70, 68));
        let mut bytes = store(&many);
        bytes[66 * CHUNK + 16..67 * CHUNK].fill(0);
        let snapshot = open(bytes, 100 * 1024).unwrap();
        assert_eq!(chunks(&snapshot, 72)[62..], [64, 65, 255, 255, 255, 255, 255, 255, 68, 255]);
        assert_eq!(chunks(&open(vec![0; 8192], 1024).unwrap(), 2), [255, 255]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = |change: &dyn Fn(&mut Vec<u8>), len| {
            let mut bytes = store(&[(3, 7), (1, 5)]);
            change(&mut bytes);
            let e = open(bytes, len).err().unwrap();
            (e.rule().to_owned(), e.message().to_owned())
        };
        let is = |rule: &str, message: &str| (format!("lvm.snapshot.{rule}"), message.to_owned());
        let magic = is("magic", "the snapshot's store begins with 0x70416e58, not with 0x70416e53");
        assert_eq!(said(&|b| b[0] = b'X', 1024), magic);
        let invalid = is("invalid", "the snapshot is invalid: its store was full, or could not be written");
        assert_eq!(said(&|b| b[4] = 0, 1024), invalid);
        assert_eq!(said(&|b| b[8] = 2, 1024), is("version", "the snapshot's store has version 2; 1 is read"));
        let chunk =
            is("chunk_size", "the snapshot's store has chunks of 1536 bytes; a power of two up to 1048576 is allowed");
        assert_eq!(said(&|b| b[12] = 3, 1024), chunk);
        assert_eq!(said(&|b| b[12..16].fill(0), 1024).0, "lvm.snapshot.chunk_size");
        let beyond = is("beyond", "the snapshot's store puts chunk 3 to its own chunk 255, and has 200");
        assert_eq!(said(&|b| b[CHUNK + 8] = 255, 1024), beyond);
        let twice = is("twice", "the snapshot's store has two exceptions for chunk 3");
        assert_eq!(said(&|b| b[CHUNK + 16] = 3, 1024), twice);
        let size = is("size", "the snapshot's store is for 102401 bytes, but the origin has 102400");
        assert_eq!(said(&|_| (), 102_401), size);
    }
}
