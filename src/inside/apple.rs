//! APFS and HFS+.
//!
//! | APFS bytes | field | HFS+ bytes from 1024 on | field |
//! |---|---|---|---|
//! | 0..8 | Fletcher-64 over the rest of the block | 0, 2 | `H+` with version 4, `HX` with version 5 |
//! | 32 | `NXSB` | 4 | attributes: bit 8 unmounted, bit 13 with a journal |
//! | 36, 40 | nx_block_size, nx_block_count | 40, 44 | blockSize, totalBlocks |
//! | 72 | nx_uuid | 104 | the volume's number, of which its UUID is made |
//! | | | 288 | first extent of the catalog: block, count |
//!
//! APFS is little-endian, HFS+ is big-endian. The sources are Apple's "Apple File System Reference" and Technical Note
//! TN1150; the UUID of HFS+ is made as `blkid` makes it, an MD5 over Apple's name space and the number.

use digest::Digest;
use md5::Md5;

use super::look::{Look, be16, be32, field, le32, le64, text16, uuid};
use super::{Contents, Kind, Severity, State};
use crate::num::to_usize;

const HFS_AT: u64 = 1024;
const HFS_SPACE: [u8; 16] =
    [0xb3, 0xe2, 0x0f, 0x39, 0xf2, 0x92, 0x11, 0xd6, 0x97, 0xa4, 0x00, 0x30, 0x65, 0x43, 0xec, 0xac];
const UNMOUNTED: u32 = 1 << 8;
const JOURNALED: u32 = 1 << 13;

/// Fletcher-64 over words of 32 bits, as APFS has it.
#[expect(clippy::arithmetic_side_effects, reason = "all sums are below 2^33, and the divisor is not 0")]
fn fletcher64(bytes: &[u8]) -> u64 {
    let most = u64::from(u32::MAX);
    let (words, _) = bytes.as_chunks::<4>();
    let (mut low, mut high) = (0u64, 0u64);
    for word in words {
        low = (low + u64::from(u32::from_le_bytes(*word))) % most;
        high = (high + low) % most;
    }
    let first = most - (low + high) % most;
    let second = most - (low + first) % most;
    second << 32 | first
}

pub(super) fn probe_apfs(look: &Look<'_>) -> Option<Contents> {
    let start = look.bytes(0, 88)?;
    let block = u64::from(le32(&start, 36));
    let sane = start.get(32..36) == Some(b"NXSB")
        && block.is_power_of_two()
        && (4096..=65536).contains(&block)
        && le64(&start, 40) > 0;
    if !sane {
        return None;
    }
    let mut contents = Contents::new(Kind::Apfs, look);
    contents.uuid = uuid(&field(&start, 72));
    contents.block_size = Some(block);
    let bytes = look.bytes(0, to_usize(block).ok()?)?;
    let right = fletcher64(bytes.get(8..)?);
    if right == le64(&bytes, 0) {
        contents.size = Some(le64(&start, 40).saturating_mul(block));
    } else {
        let (found, expected) = (format!("{:#018x}", le64(&bytes, 0)), format!("the checksum is {right:#018x}"));
        let code = "contents.apfs.superblock-checksum";
        contents.find(Severity::Error, code, ("the container's superblock", 0), found, expected);
    }
    Some(contents)
}

fn header(look: &Look<'_>, offset: u64) -> Option<Vec<u8>> {
    let bytes = look.bytes(offset, 512)?;
    let block = u64::from(be32(&bytes, 40));
    let sane = matches!((bytes.get(..2)?, be16(&bytes, 2)), (b"H+", 4) | (b"HX", 5))
        && block.is_power_of_two()
        && block >= 512
        && be32(&bytes, 44) > 0;
    sane.then_some(bytes)
}

fn size(header: &[u8]) -> u64 {
    u64::from(be32(header, 40)).saturating_mul(u64::from(be32(header, 44)))
}

pub(super) fn probe_hfs_plus(look: &Look<'_>) -> Option<Contents> {
    let header = header(look, HFS_AT)?;
    let mut contents = Contents::new(Kind::HfsPlus, look);
    contents.uuid = hfs_uuid(field(&header, 104));
    contents.label = hfs_label(look, &header);
    contents.block_size = Some(u64::from(be32(&header, 40)));
    contents.size = Some(size(&header));
    let attributes = be32(&header, 4);
    contents.state = match (attributes & UNMOUNTED, attributes & JOURNALED) {
        (0, 0) => State::Unclean,
        (0, _) => State::JournalToReplay,
        _ => State::Clean,
    };
    Some(contents)
}

fn hfs_uuid(number: [u8; 8]) -> Option<String> {
    if number == [0; 8] {
        return None;
    }
    let mut hash: [u8; 16] = Md5::new().chain_update(HFS_SPACE).chain_update(number).finalize().into();
    hash[6] = 0x30 | hash[6] & 0x0f;
    hash[8] = 0x80 | hash[8] & 0x3f;
    uuid(&hash)
}

/// The name of the root directory: the first key of the catalog's first leaf.
fn hfs_label(look: &Look<'_>, header: &[u8]) -> Option<String> {
    let block = u64::from(be32(header, 40));
    let catalog = u64::from(be32(header, 288)).checked_mul(block)?;
    let tree = look.bytes(catalog, 64)?;
    let (leaf, node) = (u64::from(be32(&tree, 24)), u64::from(be16(&tree, 32)));
    let within = leaf.checked_mul(node)?;
    // Beyond the first extent the leaf may be anywhere.
    if within >= u64::from(be32(header, 292)).checked_mul(block)? {
        return None;
    }
    let bytes = look.bytes(catalog.checked_add(within)?, 14 + 8 + 2 * 255)?;
    let (parent, len) = (be32(&bytes, 16), usize::from(be16(&bytes, 20)));
    let name = bytes.get(22..)?.get(..len.checked_mul(2)?)?;
    text16(name, u16::from_be_bytes).filter(|_| parent == 1)
}

/// The copy of the header is 1024 bytes before the end.
pub(super) fn check_hfs_plus(look: &Look<'_>, contents: &mut Contents) {
    let Some(first) = header(look, HFS_AT) else { return };
    // The file system may end in the middle of a block, and the volume may have grown.
    let Some(at) = contents.size.filter(|size| *size <= look.len()).and_then(|size| size.checked_sub(1024)) else {
        return;
    };
    let structure = ("the copy of the volume header", at);
    match look.read(at, 512) {
        Err(e) => contents.unread(look, structure, 512, &e),
        Ok(_) => {
            let copy = header(look, at);
            if copy.as_deref().map(size) != Some(size(&first)) {
                let found = if copy.is_some() { "another size" } else { "no header" };
                let expected = "a copy of the header is wanted";
                contents.find(Severity::Warning, "contents.hfs-plus.backup-header", structure, found, expected);
            }
        }
    }
}
