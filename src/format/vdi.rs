//! VirtualBox's VDI, dynamic and fixed (VirtualBox's VDICore.h and QEMU's block/vdi.c agree on it). All numbers are
//! little-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 64..68 | signature 0xbeda107f | 360..364 | sector_size: 512 |
//! | 68..72 | version: major in the high half | 368..376 | disk_size |
//! | 76..80 | image_type: 1 dynamic, 2 fixed, 3 undo, 4 differencing | 376..380 | block_size |
//! | 340..344 | offset_blocks: of the block map | 380..384 | block_extra |
//! | 344..348 | offset_data | 384..388 | blocks_in_image |
//!
//! The map has a number for each block of the disk: the block's place in the data, or that it was never written, or that
//! it was discarded. No crate reads it.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cache::Pages;
use super::fields;
use super::map::{Layout, Mapped, Place, Run};
use crate::error::{Error, Result};
use crate::io::ReadAt;

/// Where the signature lies.
pub(super) const SIGNATURE_AT: u64 = 64;
/// The signature's bytes.
pub(super) const SIGNATURE: [u8; 4] = [0x7f, 0x10, 0xda, 0xbe];

const DYNAMIC: u32 = 1;
const FIXED: u32 = 2;
const UNDO: u32 = 3;
const DIFFERENCING: u32 = 4;
/// A block that was never written.
const UNALLOCATED: u32 = u32::MAX;
/// A block that the guest gave back.
const DISCARDED: u32 = u32::MAX - 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    text: [u8; 64],
    signature: [u8; 4],
    version: U32,
    header_size: U32,
    image_type: U32,
    image_flags: U32,
    description: [u8; 256],
    offset_blocks: U32,
    offset_data: U32,
    cylinders: U32,
    heads: U32,
    sectors: U32,
    sector_size: U32,
    unused: U32,
    disk_size: U64,
    block_size: U32,
    block_extra: U32,
    blocks_in_image: U32,
    blocks_allocated: U32,
    uuid_image: [u8; 16],
    uuid_last_snapshot: [u8; 16],
    uuid_link: [u8; 16],
    uuid_parent: [u8; 16],
}
const _: () = assert!(size_of::<Header>() == 456);

/// Reads the header, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    let header: Header = fields::read(&file, 0, "vdi.header", "the VDI header")?;
    let version = header.version.get();
    if version >> 16 != 1 {
        return Err(Error::unsupported("vdi.version", format!("found {version:#x}; version 1 is read")).at(68));
    }
    match header.image_type.get() {
        DYNAMIC | FIXED => {}
        UNDO | DIFFERENCING => {
            let message = "this is a differencing image on top of another one, which VDI does not name but by its UUID";
            return Err(Error::unsupported("vdi.image_type", message)
                .at(76)
                .with_hint("VBoxManage clonemedium makes one image of the chain"));
        }
        other => {
            let message = format!("found {other}; 1 (dynamic) and 2 (fixed) are read");
            return Err(Error::unsupported("vdi.image_type", message).at(76));
        }
    }
    let block_size = u64::from(header.block_size.get());
    if !block_size.is_power_of_two() || block_size < 512 {
        let message = format!("found {block_size}; a power of two from 512 on is allowed");
        return Err(Error::corrupt("vdi.block_size", message).at(376));
    }
    let block_extra = u64::from(header.block_extra.get());
    let blocks = u64::from(header.blocks_in_image.get());
    let size = header.disk_size.get();
    if size.div_ceil(block_size) > blocks {
        let message = format!("found {size}; {blocks} blocks of {block_size} bytes are fewer");
        return Err(Error::corrupt("vdi.disk_size", message).at(368));
    }
    let table_offset = u64::from(header.offset_blocks.get());
    fields::table_within(&file, table_offset, blocks, 4, "vdi.blocks", "the block map")?;
    let (data, pages) = (u64::from(header.offset_data.get()), Pages::new(Arc::clone(&file)));
    Ok(Arc::new(Mapped::new(Vdi { file, pages, size, table_offset, data, block_size, block_extra })))
}

struct Vdi {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    table_offset: u64,
    data: u64,
    block_size: u64,
    /// Bytes of the host's own before each block's data.
    block_extra: u64,
}

impl Layout for Vdi {
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
        let (block, skip) = (offset / self.block_size, offset % self.block_size);
        // The table lies within the file, and the sums below are of numbers below 2^32 and one product of two such.
        let entry = u32::from_le_bytes(self.pages.entry(self.table_offset + block * 4)?);
        let place = match entry {
            UNALLOCATED | DISCARDED => Place::Zero,
            entry => u64::from(entry)
                .checked_mul(self.block_size + self.block_extra)
                .and_then(|at| at.checked_add(self.data + self.block_extra + skip))
                .map(Place::Stored)
                .ok_or_else(|| {
                    let message = format!("byte {offset} of the disk: its block is said to be number {entry}");
                    Error::corrupt("vdi.blocks", message)
                })?,
        };
        Ok(Run { len: self.block_size - skip, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const BLOCK: usize = 1024;

    fn header(image_type: u32) -> Header {
        let mut header = Header::read_from_bytes(&[0; 456]).unwrap();
        header.signature = SIGNATURE;
        header.version = 0x1_0001.into();
        header.image_type = image_type.into();
        header.offset_blocks = 512.into();
        header.offset_data = 1024.into();
        header.disk_size = 4000.into();
        header.block_size = 1024.into();
        header.blocks_in_image = 4.into();
        header
    }

    fn image(header: &Header, blocks: [u32; 4]) -> Vec<u8> {
        let mut image = header.as_bytes().to_vec();
        image.resize(512, 0);
        image.extend(blocks.iter().flat_map(|b| b.to_le_bytes()));
        image.resize(1024, 0);
        image.extend([[1u8; BLOCK], [2; BLOCK], [3; BLOCK]].concat());
        image
    }

    fn refused(header: &Header) -> (ErrorKind, String) {
        let e = open(Arc::new(image(header, [0; 4]))).err().unwrap();
        (e.kind(), e.rule().to_owned())
    }

    #[test]
    fn blocks_lie_where_the_map_says() {
        let disk = open(Arc::new(image(&header(DYNAMIC), [2, UNALLOCATED, 0, DISCARDED]))).unwrap();
        let mut found = vec![9; 4000];
        disk.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [vec![3; BLOCK], vec![0; BLOCK], vec![1; BLOCK], vec![0; 928]].concat());
        let beyond = open(Arc::new(image(&header(FIXED), [3, 0, 0, 0]))).unwrap();
        assert_eq!(beyond.read_exact_at(&mut [0; 4], 0).unwrap_err().rule(), "container.truncated");
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let with = |change: fn(&mut Header)| {
            let mut header = header(DYNAMIC);
            change(&mut header);
            refused(&header)
        };
        assert_eq!(with(|h| h.version = 0x2_0000.into()), (ErrorKind::Unsupported, "vdi.version".into()));
        assert_eq!(with(|h| h.image_type = 4.into()), (ErrorKind::Unsupported, "vdi.image_type".into()));
        assert_eq!(with(|h| h.block_size = 1000.into()), (ErrorKind::Corrupt, "vdi.block_size".into()));
        assert_eq!(with(|h| h.block_size = 0.into()), (ErrorKind::Corrupt, "vdi.block_size".into()));
        assert_eq!(with(|h| h.disk_size = 4097.into()), (ErrorKind::Corrupt, "vdi.disk_size".into()));
        assert_eq!(with(|h| h.blocks_in_image = u32::MAX.into()), (ErrorKind::Corrupt, "vdi.blocks".into()));
    }
}
