//! qcow, version 1 (QEMU's block/qcow.c is its only description). All numbers are big-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..4 | magic `QFI\xfb` | 32 | cluster_bits |
//! | 4..8 | version: 1 | 33 | l2_bits: log2 of the entries of an L2 table |
//! | 8..16 | backing_file_offset | 36..40 | crypt_method: 1 is AES |
//! | 16..20 | backing_file_size | 40..48 | l1_table_offset |
//! | 24..32 | size | | |
//!
//! An entry of the L1 table is the place of an L2 table, an entry of that one the place of a cluster; 0 was never
//! written. Bit 63 says that the cluster is compressed (deflate): its length is then in the bits below, as many as a
//! cluster's length has. No crate reads it.

use std::sync::Arc;

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cache::Pages;
use super::fields;
use super::map::{Layout, Mapped, Place, Run};
use super::unpack::{Packing, unpack};
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::num::to_usize;

/// The bytes that an image of version 1 begins with.
pub(super) const MAGIC: [u8; 8] = *b"QFI\xfb\0\0\0\x01";

const COMPRESSED: u64 = 1 << 63;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    backing_file_offset: U64,
    backing_file_size: U32,
    mtime: U32,
    size: U64,
    cluster_bits: u8,
    l2_bits: u8,
    padding: U16,
    crypt_method: U32,
    l1_table_offset: U64,
}
const _: () = assert!(size_of::<Header>() == 48);

/// Reads the header, and gives the disk.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
)]
pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    let header: Header = fields::read(&file, 0, "qcow.header", "the qcow header")?;
    if header.backing_file_offset.get() != 0 {
        let message = "this image lies on top of a backing file, which is not followed: an image can name any file, and its maker would get to see it";
        return Err(Error::unsupported("qcow.backing_file", message)
            .at(8)
            .with_hint("if you trust the image: qemu-img convert -O raw makes one image of the chain"));
    }
    if header.crypt_method.get() != 0 {
        let message = format!("found {}; images that QEMU's own AES encrypts are not read", header.crypt_method.get());
        return Err(Error::unsupported("qcow.crypt_method", message)
            .at(36)
            .with_hint("qemu-img convert decrypts it, with the key as a secret object"));
    }
    // As QEMU has it.
    let (cluster_bits, l2_bits) = (u32::from(header.cluster_bits), u32::from(header.l2_bits));
    if !(9..=16).contains(&cluster_bits) {
        return Err(Error::corrupt("qcow.cluster_bits", format!("found {cluster_bits}; 9 to 16 are allowed")).at(32));
    }
    if !(6..=13).contains(&l2_bits) {
        return Err(Error::corrupt("qcow.l2_bits", format!("found {l2_bits}; 6 to 13 are allowed")).at(33));
    }
    let size = header.size.get();
    let (l1, entries) = (header.l1_table_offset.get(), size.div_ceil(1 << (cluster_bits + l2_bits)));
    fields::table_within(&file, l1, entries, 8, "qcow.l1_table", "the L1 table")?;
    let pages = Pages::new(Arc::clone(&file));
    Ok(Arc::new(Mapped::new(Qcow1 { file, pages, size, cluster_bits, l2_bits, l1 })))
}

struct Qcow1 {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    cluster_bits: u32,
    l2_bits: u32,
    l1: u64,
}

impl Layout for Qcow1 {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let cluster = 1 << self.cluster_bits;
        let (number, skip) = (offset >> self.cluster_bits, offset % cluster);
        let (first, second) = (number >> self.l2_bits, number % (1 << self.l2_bits));
        // The L1 table lies within the file, so this is no more than its length.
        let l2 = u64::from_be_bytes(self.pages.entry(self.l1 + first * 8)?);
        if l2 == 0 {
            let rest = ((1 << self.l2_bits) - second) * cluster - skip;
            return Ok(Run { len: rest, place: Place::Zero });
        }
        let at = l2.checked_add(second * 8).ok_or_else(|| {
            let message = format!("byte {offset} of the disk: its table is said to lie at byte {l2}");
            Error::corrupt("qcow.l1_table", message)
        })?;
        let place = match u64::from_be_bytes(self.pages.entry(at)?) {
            0 => Place::Zero,
            entry if entry & COMPRESSED != 0 => Place::Packed { unit: entry, skip },
            entry => Place::Stored(entry + skip),
        };
        Ok(Run { len: cluster - skip, place })
    }

    /// The unit's number is the entry itself.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn unpack(&self, entry: u64) -> Result<Vec<u8>> {
        let cluster = 1u64 << self.cluster_bits;
        let len = entry >> (63 - self.cluster_bits) & (cluster - 1);
        let at = entry & ((1 << (63 - self.cluster_bits)) - 1);
        let mut packed = vec![0; to_usize(len)?];
        fields::fill(&self.file, &mut packed, at, "qcow.l2_entry", "a compressed cluster")?;
        unpack(Packing::Deflate, &packed, cluster)
    }

    fn unit_size(&self) -> u64 {
        1 << self.cluster_bits
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::ErrorKind;

    fn header() -> Header {
        let mut header = Header::read_from_bytes(&[0; 48]).unwrap();
        header.magic = MAGIC;
        header.size = 2000.into();
        header.cluster_bits = 9;
        header.l2_bits = 6;
        header.l1_table_offset = 48.into();
        header
    }

    fn image(header: &Header, l2: [u64; 4]) -> Vec<u8> {
        let mut image = header.as_bytes().to_vec();
        image.extend(512u64.to_be_bytes());
        image.resize(512, 0);
        image.extend(l2.iter().flat_map(|e| e.to_be_bytes()));
        image.resize(1024, 0);
        image.extend([1; 512]);
        let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        deflate.write_all(&[7; 512]).unwrap();
        image.extend(deflate.finish().unwrap());
        image
    }

    #[test]
    fn clusters_are_stored_compressed_or_not_there() {
        let len = u64::try_from(image(&header(), [0; 4]).len() - 1536).unwrap();
        let packed = COMPRESSED | len << 54 | 1536;
        let disk = open(Arc::new(image(&header(), [1024, 0, packed, 1024]))).unwrap();
        let mut found = vec![9; 2000];
        disk.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [vec![1; 512], vec![0; 512], vec![7; 512], vec![1; 464]].concat());
        for entry in [COMPRESSED | 511 << 54 | 1536, (1 << 62) - 1] {
            let disk = open(Arc::new(image(&header(), [entry, 0, 0, 0]))).unwrap();
            assert_eq!(disk.read_exact_at(&mut [0; 1], 0).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            let e = open(Arc::new(image(&header, [0; 4]))).err().unwrap();
            (e.kind(), e.rule().to_owned())
        };
        assert_eq!(refused(|h| h.backing_file_offset = 1.into()), (ErrorKind::Unsupported, "qcow.backing_file".into()));
        assert_eq!(refused(|h| h.crypt_method = 1.into()), (ErrorKind::Unsupported, "qcow.crypt_method".into()));
        assert_eq!(refused(|h| h.cluster_bits = 8), (ErrorKind::Corrupt, "qcow.cluster_bits".into()));
        assert_eq!(refused(|h| h.l2_bits = 64), (ErrorKind::Corrupt, "qcow.l2_bits".into()));
        assert_eq!(refused(|h| h.size = u64::MAX.into()), (ErrorKind::Corrupt, "qcow.l1_table".into()));
    }
}
