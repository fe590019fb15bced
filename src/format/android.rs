//! Android's sparse images (AOSP's libsparse, sparse_format.h). All numbers are little-endian.
//!
//! | bytes | field | bytes | field of a chunk |
//! |---|---|---|---|
//! | 0..4 | magic 0xed26ff3a | 0..2 | chunk_type: 0xcac1 raw, 0xcac2 fill, 0xcac3 don't care, 0xcac4 CRC-32 |
//! | 4..6, 6..8 | major_version 1, minor_version | 4..8 | chunk_sz, in blocks |
//! | 8..10, 10..12 | file_hdr_sz, chunk_hdr_sz | 8..12 | total_sz: bytes of the chunk with its header |
//! | 12..16 | blk_sz | | |
//! | 16..20, 20..24 | total_blks, total_chunks | | |
//! | 24..28 | image_checksum, which its tools leave 0 | | |
//!
//! The checksums are not compared, as by the format's own tools. No crate that is kept reads it by position.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fields;
use super::map::Mapped;
use super::runs::{Runs, RunsDisk, Source};
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::limits::FORMAT_RUNS_MAX;
use crate::num::to_u64;

/// The bytes that an image begins with.
pub(super) const MAGIC: [u8; 4] = [0x3a, 0xff, 0x26, 0xed];

const RAW: u16 = 0xcac1;
const FILL: u16 = 0xcac2;
const DONT_CARE: u16 = 0xcac3;
const CRC32: u16 = 0xcac4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    major_version: U16,
    minor_version: U16,
    file_hdr_sz: U16,
    chunk_hdr_sz: U16,
    blk_sz: U32,
    total_blks: U32,
    total_chunks: U32,
    image_checksum: U32,
}
const _: () = assert!(size_of::<Header>() == 28);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Chunk {
    chunk_type: U16,
    reserved1: U16,
    chunk_sz: U32,
    total_sz: U32,
}
const _: () = assert!(size_of::<Chunk>() == 12);

/// Reads the headers of all chunks, and gives the disk.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
)]
pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    let header: Header = fields::read(&file, 0, "android.header", "the header")?;
    if header.major_version.get() != 1 {
        let message = format!("found {}; version 1 is read", header.major_version.get());
        return Err(Error::unsupported("android.major_version", message).at(4));
    }
    let (file_hdr, chunk_hdr) = (u64::from(header.file_hdr_sz.get()), u64::from(header.chunk_hdr_sz.get()));
    if file_hdr < to_u64(size_of::<Header>()) || chunk_hdr < to_u64(size_of::<Chunk>()) {
        let message = format!("found {file_hdr} and {chunk_hdr}; at least 28 and 12 are allowed");
        return Err(Error::corrupt("android.file_hdr_sz", message).at(8));
    }
    let block = u64::from(header.blk_sz.get());
    if block == 0 || !block.is_multiple_of(4) {
        let message = format!("found {block}; a non-zero multiple of 4 is allowed");
        return Err(Error::corrupt("android.blk_sz", message).at(12));
    }
    let chunks = header.total_chunks.get();
    if usize::try_from(chunks).map_or(true, |chunks| chunks > FORMAT_RUNS_MAX) {
        let message = format!("found {chunks}; at most {FORMAT_RUNS_MAX} are allowed");
        return Err(Error::limit("android.total_chunks", message).at(20));
    }
    // Both factors are below 2^32.
    let size = u64::from(header.total_blks.get()) * block;
    let mut runs = Runs::default();
    let (mut at, mut start) = (file_hdr, 0);
    for n in 0..chunks {
        let chunk: Chunk = fields::read(&file, at, "android.chunk", &format!("the header of chunk {n}"))?;
        let wrong = |found: String| Error::corrupt("android.chunk", format!("chunk {n}: {found}")).at(at);
        let len = u64::from(chunk.chunk_sz.get()) * block;
        let total = u64::from(chunk.total_sz.get());
        let (body, source) = match chunk.chunk_type.get() {
            RAW => (len, Source::Stored(at + chunk_hdr)),
            FILL => {
                let mut pattern = [0; 4];
                fields::fill(&file, &mut pattern, at + chunk_hdr, "android.chunk", "the pattern of a fill chunk")?;
                (4, Source::Filled(pattern))
            }
            DONT_CARE => (0, Source::Zero),
            CRC32 => (4, Source::Zero),
            other => return Err(wrong(format!("found type {other:#x}; 0xcac1 to 0xcac4 are known"))),
        };
        if total != chunk_hdr + body {
            return Err(wrong(format!("found total_sz {total}; {} is right for its type", chunk_hdr + body)));
        }
        if chunk.chunk_type.get() == CRC32 {
            at += total;
            continue;
        }
        let end = start + len;
        if end > size {
            return Err(wrong(format!("it ends at byte {end} of a disk of {size} bytes")));
        }
        runs.put(start, len, source, "android.chunk")?;
        (at, start) = (at + total, end);
    }
    if start != size {
        let message = format!("the chunks end at byte {start} of a disk of {size} bytes");
        return Err(Error::corrupt("android.total_blks", message).at(16));
    }
    if at > file.len() {
        let message = format!("the chunks end at byte {at}, but the file ends at byte {}", file.len());
        return Err(Error::corrupt("container.truncated", message)
            .at(file.len())
            .with_hint("the image file is cut off or damaged: fetch it again"));
    }
    Ok(Arc::new(Mapped::new(RunsDisk { file, size, runs, below: None })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn header(blocks: u32, chunks: u32) -> Header {
        Header {
            magic: MAGIC,
            major_version: 1.into(),
            minor_version: 0.into(),
            file_hdr_sz: 28.into(),
            chunk_hdr_sz: 12.into(),
            blk_sz: 8.into(),
            total_blks: blocks.into(),
            total_chunks: chunks.into(),
            image_checksum: 0.into(),
        }
    }

    fn chunk(chunk_type: u16, blocks: u32, body: &[u8]) -> Vec<u8> {
        let total_sz = u32::try_from(12 + body.len()).unwrap().into();
        let chunk = Chunk { chunk_type: chunk_type.into(), reserved1: 0.into(), chunk_sz: blocks.into(), total_sz };
        [chunk.as_bytes(), body].concat()
    }

    fn image(header: &Header) -> Vec<u8> {
        let chunks = [
            chunk(RAW, 1, &[1; 8]),
            chunk(FILL, 2, &[1, 2, 3, 4]),
            chunk(CRC32, 0, &[9; 4]),
            chunk(DONT_CARE, 1, &[]),
            chunk(RAW, 1, &[5; 8]),
        ];
        [header.as_bytes().to_vec(), chunks.concat()].concat()
    }

    #[test]
    fn chunks_follow_each_other() {
        let disk = open(Arc::new(image(&header(5, 5)))).unwrap();
        let mut found = vec![9; 40];
        disk.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [vec![1; 8], [1, 2, 3, 4].repeat(4), vec![0; 8], vec![5; 8]].concat());
        let mut cut = image(&header(5, 5));
        cut.truncate(cut.len() - 1);
        assert_eq!(open(Arc::new(cut)).err().unwrap().rule(), "container.truncated");
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header(5, 5);
            change(&mut header);
            let e = open(Arc::new(image(&header))).err().unwrap();
            (e.kind(), e.rule().to_owned())
        };
        assert_eq!(refused(|h| h.major_version = 2.into()), (ErrorKind::Unsupported, "android.major_version".into()));
        assert_eq!(refused(|h| h.chunk_hdr_sz = 0.into()), (ErrorKind::Corrupt, "android.file_hdr_sz".into()));
        assert_eq!(refused(|h| h.blk_sz = 0.into()), (ErrorKind::Corrupt, "android.blk_sz".into()));
        assert_eq!(refused(|h| h.total_blks = 4.into()), (ErrorKind::Corrupt, "android.chunk".into()));
        assert_eq!(refused(|h| h.total_blks = 6.into()), (ErrorKind::Corrupt, "android.total_blks".into()));
        assert_eq!(refused(|h| h.total_chunks = 6.into()), (ErrorKind::Corrupt, "android.chunk".into()));
        let many = refused(|h| h.total_chunks = u32::MAX.into());
        assert_eq!(many, (ErrorKind::LimitExceeded, "android.total_chunks".into()));
    }
}
