//! VHDX images, fixed and dynamic (Microsoft's \[MS-VHDX\]). All numbers are little-endian.
//!
//! | at byte | what |
//! |---|---|
//! | 0 | file type identifier: `vhdxfile`, and the creator's name |
//! | 64 KiB, 128 KiB | two headers: `head`, CRC-32C, sequence_number, …, log_guid; the valid one with the higher number counts |
//! | 192 KiB, 256 KiB | two region tables: `regi`, CRC-32C, entries that place the block allocation table and the metadata |
//!
//! An entry of the block allocation table has a block's state in bits 0 to 2 and its place in the file, counted in MiB,
//! in bits 20 to 63. After every *chunk ratio* entries of blocks comes one of a sector bitmap, which only differencing
//! disks use: of a block in state 7 it says, the lowest bit of a byte first, which sectors are here, and which in the
//! parent. That is the file whose `data_write_guid` the parent locator, a list of names and values, calls
//! `parent_linkage`.
//!
//! A log that was not played back, because Hyper-V or QEMU crashed, is played back in memory ([`log`]): the tables may be
//! half-written. The header names a log from the first write on; where the log has no entry of that name, there is nothing
//! to play back.
//!
//! This reader is our own, not the crate vhdx (0.1.0): that one opens the file for writing, compares no checksum, and
//! panics where a rule is broken.

mod locator;
mod log;

use std::sync::Arc;

use uuid::{Uuid, uuid};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::below::Below;
use super::cache::Pages;
use super::fields;
use super::map::{Layout, Mapped, Place, Run};
use super::parent::Kin;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{Peek, ReadAt};
use crate::limits::VHDX_LOCATOR_MAX;
use crate::num::from_u32;
use locator::Locator;

const HEADERS: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
/// The most entries of a region table, and of the metadata table.
const ENTRIES_MAX: u32 = 2047;
const MIB: u64 = 1 << 20;

const REGION_BAT: Uuid = uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08");
const REGION_METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const ITEM_FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
const ITEM_VIRTUAL_DISK_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const ITEM_LOGICAL_SECTOR_SIZE: Uuid = uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f");
const ITEM_PHYSICAL_SECTOR_SIZE: Uuid = uuid!("cda348c7-445d-4471-9cc9-e9885251c556");
const ITEM_PAGE_83_DATA: Uuid = uuid!("beca12ab-b2e6-4523-93ef-c309e000c746");
const ITEM_PARENT_LOCATOR: Uuid = uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c");

const HAS_PARENT: u32 = 1 << 1;
const ITEM_IS_REQUIRED: u32 = 1 << 2;
const REGION_IS_REQUIRED: u32 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    checksum: U32,
    sequence_number: U64,
    file_write_guid: [u8; 16],
    data_write_guid: [u8; 16],
    log_guid: [u8; 16],
    log_version: U16,
    version: U16,
    log_length: U32,
    log_offset: U64,
    reserved: [u8; 4016],
}
const _: () = assert!(size_of::<Header>() == 4096);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Region {
    guid: [u8; 16],
    file_offset: U64,
    length: U32,
    required: U32,
}
const _: () = assert!(size_of::<Region>() == 32);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MetadataTable {
    signature: [u8; 8],
    reserved: U16,
    entry_count: U16,
    reserved2: [u8; 20],
}
const _: () = assert!(size_of::<MetadataTable>() == 32);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Item {
    guid: [u8; 16],
    offset: U32,
    length: U32,
    flags: U32,
    reserved: U32,
}
const _: () = assert!(size_of::<Item>() == 32);

/// A disk, and the size in bytes of its logical sectors.
pub(super) struct Vhdx {
    pub disk: Arc<dyn ReadAt>,
    pub sector_size: u32,
}

/// Reads headers, regions and metadata, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Vhdx> {
    let mut magic = [0; 8];
    fields::fill(&file, &mut magic, 0, "vhdx.signature", "the file type identifier")?;
    if magic != *b"vhdxfile" {
        return Err(Error::corrupt("vhdx.signature", "the file does not begin with vhdxfile").at(0));
    }
    let (header, header_offset) = current_header(&file, notes)?;
    if header.version.get() != 1 {
        let found = format!("found {}; 1 is read", header.version.get());
        return Err(Error::unsupported("vhdx.version", found).at(header_offset.saturating_add(66)));
    }
    let file = if header.log_guid == [0; 16] {
        file
    } else {
        let (start, len) = (header.log_offset.get(), u64::from(header.log_length.get()));
        log::replay(file, &log::Log { start, len, guid: header.log_guid }, notes)?
    };
    let regions = Regions::read(&file, notes)?;
    let metadata = Metadata::read(&file, regions.metadata)?;
    let below = metadata.parent.as_ref().map(|parent| parent.find(kin, notes)).transpose()?;
    let disk = metadata.blocks(file, regions.bat, below)?;
    Ok(Vhdx { sector_size: metadata.sector_size, disk: Arc::new(Mapped::new(disk)) })
}

/// The identity by which the disks on top of it know a VHDX; `None` for any other file.
pub(super) fn data_write_guid(file: &Arc<dyn ReadAt>) -> Option<Uuid> {
    if !Peek::new(file).has(b"vhdxfile", 0) {
        return None;
    }
    let (header, _) = current_header(file, &mut Vec::new()).ok()?;
    Some(Uuid::from_bytes_le(header.data_write_guid))
}

/// The CRC-32C of `bytes` with the four at byte 4 taken as zeroes.
fn checksum(bytes: &[u8]) -> u32 {
    let (before, rest) = bytes.split_at(4.min(bytes.len()));
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, rest.get(4..).unwrap_or_default())
}

/// The newer of the two headers that are good. One that cannot be read may have been newer, and have had a log.
fn current_header(file: &Arc<dyn ReadAt>, notes: &mut Vec<String>) -> Result<(Header, u64)> {
    let mut best: Option<(Header, u64)> = None;
    let mut unreadable = None;
    for offset in HEADERS {
        let header: Header = match fields::read(file, offset, "vhdx.header", "a VHDX header") {
            Ok(header) => header,
            Err(e) => {
                unreadable = Some(e);
                continue;
            }
        };
        let valid = header.signature == *b"head" && checksum(header.as_bytes()) == header.checksum.get();
        let newer = best.as_ref().is_none_or(|(b, _)| header.sequence_number.get() > b.sequence_number.get());
        if valid && newer {
            best = Some((header, offset));
        }
    }
    match (best, unreadable) {
        (Some(best), None) => Ok(best),
        (Some(best), Some(e)) => {
            notes.push(format!(
                "vhdx: one of the two headers cannot be read, so the other one is used; had it been newer, changes that \
                 wait in the log would be missing: {e}"
            ));
            Ok(best)
        }
        (None, Some(e)) => Err(e),
        (None, None) => {
            let message = "neither of the two headers has the signature head and a right CRC-32C";
            Err(Error::corrupt("vhdx.header", message).at(HEADERS[0]))
        }
    }
}

struct Regions {
    /// Offset and length in the file.
    bat: (u64, u64),
    metadata: (u64, u64),
}

impl Regions {
    fn read(file: &Arc<dyn ReadAt>, notes: &mut Vec<String>) -> Result<Self> {
        let [first, second] = REGION_TABLES.map(|offset| Self::read_copy(file, offset));
        match (first, second) {
            (Ok(regions), _) => Ok(regions),
            (Err(e), Ok(regions)) => {
                notes.push(format!("vhdx: the first region table is damaged, so the second one is used: {e}"));
                Ok(regions)
            }
            // One that cannot be read may be good.
            (Err(first), Err(second)) => Err(if second.kind() == ErrorKind::Io { second } else { first }),
        }
    }

    fn read_copy(file: &Arc<dyn ReadAt>, table: u64) -> Result<Self> {
        const SIZE: usize = 64 << 10;
        let wrong = |message: String| Error::corrupt("vhdx.regions", message).at(table);
        let mut bytes = vec![0; SIZE];
        fields::fill(file, &mut bytes, table, "vhdx.regions", "a region table")?;
        let stored = bytes.get(4..8).and_then(|b| U32::read_from_bytes(b).ok()).unwrap_or_default();
        if !bytes.starts_with(b"regi") || checksum(&bytes) != stored.get() {
            return Err(wrong("the region table has not the signature regi and a right CRC-32C".into()));
        }
        let count = bytes.get(8..12).and_then(|b| U32::read_from_bytes(b).ok()).unwrap_or_default().get();
        if count > ENTRIES_MAX {
            return Err(wrong(format!("found {count} regions; {ENTRIES_MAX} are allowed")));
        }
        let (mut bat, mut metadata) = (None, None);
        let entries = bytes.get(16..).unwrap_or_default().chunks_exact(32).take(from_u32(count));
        for region in entries.filter_map(|b| Region::read_from_bytes(b).ok()) {
            let place = (region.file_offset.get(), u64::from(region.length.get()));
            let slot = match Uuid::from_bytes_le(region.guid) {
                REGION_BAT => &mut bat,
                REGION_METADATA => &mut metadata,
                other if region.required.get() & REGION_IS_REQUIRED != 0 => {
                    let what = format!("the image needs region {other}, which is not known");
                    return Err(Error::unsupported("vhdx.regions", what).at(table));
                }
                _ => continue,
            };
            if place.0 % MIB != 0 || place.0.checked_add(place.1).is_none_or(|end| end > file.len()) {
                let (at, len) = place;
                return Err(wrong(format!(
                    "a region is said to be {len} bytes at byte {at}; a multiple of 1 MiB within the file's {} bytes is \
                     allowed",
                    file.len()
                )));
            }
            if slot.replace(place).is_some() {
                return Err(wrong("a region occurs twice".into()));
            }
        }
        match (bat, metadata) {
            (Some(bat), Some(metadata)) => Ok(Self { bat, metadata }),
            _ => Err(wrong("the region of the block allocation table, or that of the metadata, is missing".into())),
        }
    }
}

struct Metadata {
    block_size: u64,
    size: u64,
    sector_size: u32,
    parent: Option<Locator>,
}

impl Metadata {
    #[expect(clippy::arithmetic_side_effects, reason = "offsets of 32 bits in a region within the file")]
    fn read(file: &Arc<dyn ReadAt>, (start, len): (u64, u64)) -> Result<Self> {
        let table: MetadataTable = fields::read(file, start, "vhdx.metadata", "the metadata table")?;
        let count = u32::from(table.entry_count.get());
        if table.signature != *b"metadata" || count > ENTRIES_MAX {
            let found = format!("the metadata table has {count} entries, or does not begin with metadata");
            return Err(Error::corrupt("vhdx.metadata", found).at(start));
        }
        let (mut parameters, mut size, mut sector_size, mut locator_at) = (None, None, None, None);
        for n in 0..u64::from(count) {
            let entry_offset = start + 32 + n * 32;
            let item: Item = fields::read(file, entry_offset, "vhdx.metadata", "a metadata entry")?;
            let guid = Uuid::from_bytes_le(item.guid);
            let wanted = match guid {
                ITEM_FILE_PARAMETERS | ITEM_VIRTUAL_DISK_SIZE => 8,
                ITEM_LOGICAL_SECTOR_SIZE => 4,
                ITEM_PARENT_LOCATOR => {
                    locator_at = Some((u64::from(item.offset.get()), item.length.get()));
                    continue;
                }
                ITEM_PHYSICAL_SECTOR_SIZE | ITEM_PAGE_83_DATA => continue,
                other if item.flags.get() & ITEM_IS_REQUIRED != 0 => {
                    let what = format!("the image needs metadata item {other}, which is not known");
                    return Err(Error::unsupported("vhdx.metadata", what).at(entry_offset));
                }
                _ => continue,
            };
            let (offset, length) = (u64::from(item.offset.get()), item.length.get());
            if length != wanted || offset + u64::from(length) > len {
                return Err(Error::corrupt(
                    "vhdx.metadata",
                    format!("item {guid} is said to be {length} bytes at byte {offset} of {len}; {wanted} are allowed"),
                )
                .at(entry_offset));
            }
            let at = start + offset;
            match guid {
                ITEM_FILE_PARAMETERS => {
                    parameters = Some(fields::read::<[U32; 2]>(file, at, "vhdx.metadata", "the file parameters")?);
                }
                ITEM_VIRTUAL_DISK_SIZE => {
                    size = Some(fields::read::<U64>(file, at, "vhdx.metadata", "the virtual disk size")?.get());
                }
                _ => sector_size = Some(fields::read::<U32>(file, at, "vhdx.metadata", "the sector size")?.get()),
            }
        }
        let (Some([block_size, flags]), Some(size), Some(sector_size)) = (parameters, size, sector_size) else {
            return Err(Error::corrupt(
                "vhdx.metadata",
                "the file parameters, the virtual disk size or the logical sector size is missing",
            )
            .at(start));
        };
        let parent = if flags.get() & HAS_PARENT != 0 {
            let (offset, length) = locator_at.unwrap_or_default();
            if length > VHDX_LOCATOR_MAX || offset + u64::from(length) > len {
                let found = format!("the parent locator is said to be {length} bytes at byte {offset} of {len}");
                return Err(Error::corrupt("vhdx.parent", found).at(start));
            }
            Some(Locator::read(file, start + offset, length)?)
        } else {
            None
        };
        let block_size = u64::from(block_size.get());
        if !block_size.is_power_of_two() || !(MIB..=256 * MIB).contains(&block_size) {
            return Err(Error::corrupt(
                "vhdx.block_size",
                format!("found {block_size}; a power of two from 1 MiB to 256 MiB is allowed"),
            )
            .at(start));
        }
        if !matches!(sector_size, 512 | 4096) {
            let found = format!("found {sector_size}; 512 and 4096 are allowed");
            return Err(Error::corrupt("vhdx.sector_size", found).at(start));
        }
        Ok(Self { block_size, size, sector_size, parent })
    }

    /// The disk's blocks, whose table lies in the region `bat`.
    #[expect(clippy::arithmetic_side_effects, reason = "a block has 2^20 to 2^28 bytes, a sector 512 or 4096")]
    fn blocks(&self, file: Arc<dyn ReadAt>, (bat, bat_len): (u64, u64), below: Option<Below>) -> Result<Blocks> {
        let chunk_ratio = (u64::from(self.sector_size) << 23) / self.block_size;
        let blocks = self.size.div_ceil(self.block_size);
        // A differencing disk has all bitmaps, the last one, too.
        let entries = match below {
            Some(_) => blocks.div_ceil(chunk_ratio) * (chunk_ratio + 1),
            None => blocks + blocks.saturating_sub(1) / chunk_ratio,
        };
        if entries > bat_len / 8 {
            return Err(Error::corrupt(
                "vhdx.size",
                format!(
                    "found {} bytes, which take {entries} entries of the block allocation table; it has room for {}",
                    self.size,
                    bat_len / 8
                ),
            )
            .at(bat));
        }
        let pages = Pages::new(file.clone());
        let sector_size = u64::from(self.sector_size);
        Ok(Blocks { file, pages, size: self.size, block_size: self.block_size, chunk_ratio, bat, sector_size, below })
    }
}

struct Blocks {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    block_size: u64,
    chunk_ratio: u64,
    bat: u64,
    sector_size: u64,
    /// The parent of a differencing disk.
    below: Option<Below>,
}

impl Blocks {
    /// How much from byte `offset` of the disk on, in a block in state 7, is alike, and whether it is in this file.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "offset is within the disk, a chunk has 2^23 sectors, and the table of blocks lies within the file"
    )]
    fn sectors(&self, offset: u64, wanted: u64) -> Result<(u64, bool)> {
        let chunk = self.chunk_ratio * self.block_size;
        let at = self.bat + (offset / chunk * (self.chunk_ratio + 1) + self.chunk_ratio) * 8;
        let entry = u64::from_le_bytes(self.pages.entry(at)?);
        if entry & 7 != 6 || entry < MIB {
            let what =
                format!("byte {offset} of the disk: the bitmap of its sectors has state {}; 6 is allowed", entry & 7);
            return Err(Error::corrupt("vhdx.bat", what).at(at));
        }
        let bitmap = entry & !(MIB - 1);
        let is_here = |sector: u64| {
            let at = bitmap.saturating_add(sector / 8);
            let [bits] = self.pages.entry::<1>(at)?;
            Ok::<_, Error>(bits >> (sector % 8) & 1 == 1)
        };
        let (first, skip) = (offset % chunk / self.sector_size, offset % self.sector_size);
        let block_end = (offset % chunk / self.block_size + 1) * (self.block_size / self.sector_size);
        let here = is_here(first)?;
        let mut end = first + 1;
        while end < block_end && (end - first) * self.sector_size - skip < wanted && is_here(end)? == here {
            end += 1;
        }
        Ok(((end - first) * self.sector_size - skip, here))
    }
}

impl Layout for Blocks {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    #[expect(clippy::arithmetic_side_effects, reason = "the table of blocks lies within the file")]
    fn run_at(&self, offset: u64, wanted: u64) -> Result<Run> {
        let (block, skip) = (offset / self.block_size, offset % self.block_size);
        let at = self.bat + (block + block / self.chunk_ratio) * 8;
        let entry = u64::from_le_bytes(self.pages.entry(at)?);
        let mut len = self.block_size - skip;
        let place = match entry & 7 {
            0 => Place::Below,
            // Undefined, zero, unmapped, and what drafts of the format had for unmapped: QEMU, too, gives
            // zeroes for all of them.
            1..=3 | 5 => Place::Zero,
            state @ (6 | 7) if state == 6 || self.below.is_some() => {
                let (alike, here) = if state == 6 { (len, true) } else { self.sectors(offset, wanted)? };
                len = alike;
                if !here {
                    return Ok(Run { len, place: Place::Below });
                }
                let start = entry & !(MIB - 1);
                let data = start.checked_add(skip).filter(|_| start != 0);
                Place::Stored(data.ok_or_else(|| {
                    let what = format!("byte {offset} of the disk: its block is said to lie at byte {start}");
                    Error::corrupt("vhdx.bat", what).at(at)
                })?)
            }
            state => {
                return Err(Error::corrupt(
                    "vhdx.bat",
                    format!("byte {offset} of the disk: its block has state {state}; 0 to 3 and 6 are allowed"),
                )
                .at(at));
            }
        };
        Ok(Run { len, place })
    }

    fn unpack(&self, _unit: u64) -> Result<Vec<u8>> {
        Err(Error::unsupported("vhdx.block", "VHDX has no compressed blocks"))
    }

    fn unit_size(&self) -> u64 {
        self.block_size
    }
}
