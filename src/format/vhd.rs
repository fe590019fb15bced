//! VHD images, fixed and dynamic (Microsoft's Virtual Hard Disk Image Format Specification 1.0). All numbers are
//! big-endian.
//!
//! | footer bytes | field | dynamic header bytes | field |
//! |---|---|---|---|
//! | 0..8 | cookie `conectix` | 0..8 | cookie `cxsparse` |
//! | 16..24 | data_offset: of the dynamic header | 16..24 | table_offset: of the block allocation table |
//! | 28..32 | creator_application | 28..32 | max_table_entries |
//! | 40..48, 48..56 | original_size, current_size | 32..36 | block_size |
//! | 60..64 | disk_type: 2 fixed, 3 dynamic, 4 differencing | 36..40 | checksum |
//! | 64..68 | checksum | 40.. | the parent's id, time and name |
//!
//! The footer is the file's last 512 bytes; a dynamic disk has a copy of it at its start. A fixed disk is its bytes and
//! then the footer: it begins like a raw one, and is read as VHD only where the caller says so.
//!
//! The disk's size is `current_size`. Virtual PC itself shows a guest no more than the geometry in the footer has room
//! for, which can be less; what lies between is given here all the same.
//! Each block begins with a bitmap of the sectors that were ever written, the highest bit of a byte first. In a dynamic
//! disk QEMU does not read it, nor does this reader: what was never written is zero in the block. In a differencing disk
//! it says which sectors are here, and which in the parent, the disk with the id that the header names.
//!
//! This reader is our own, not the crate vhd (0.1.1): that one reads the whole file into memory to open it, reads from
//! a cursor, and compares no checksum but the footer's.

use std::sync::Arc;

use uuid::Uuid;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Format;
use super::below::Below;
use super::cache::Pages;
use super::fields;
use super::map::{Layout, Place, Run};
use super::parent::{Kin, Wanted};
use crate::error::{Error, Hint, Result, escape};
use crate::io::{ReadAt, Window};

const FOOTER: u64 = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
/// A block that was never written.
const UNALLOCATED: u32 = u32::MAX;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Footer {
    cookie: [u8; 8],
    features: U32,
    file_format_version: U32,
    data_offset: U64,
    time_stamp: U32,
    creator_application: [u8; 4],
    creator_version: U32,
    creator_host_os: U32,
    original_size: U64,
    current_size: U64,
    cylinders: U16,
    heads: u8,
    sectors_per_track: u8,
    disk_type: U32,
    checksum: U32,
    unique_id: [u8; 16],
    saved_state: u8,
    reserved: [u8; 427],
}
const _: () = assert!(size_of::<Footer>() == 512);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct DynamicHeader {
    cookie: [u8; 8],
    data_offset: U64,
    table_offset: U64,
    header_version: U32,
    max_table_entries: U32,
    block_size: U32,
    checksum: U32,
    parent_unique_id: [u8; 16],
    parent_time_stamp: U32,
    reserved: U32,
    /// UTF-16, big-endian.
    parent_unicode_name: [U16; 256],
    parent_locators: [[u8; 24]; 8],
    reserved2: [u8; 256],
}
const _: () = assert!(size_of::<DynamicHeader>() == 1024);

/// The ones' complement of the sum of all bytes, those of the checksum itself, at `at`, left out.
#[expect(clippy::arithmetic_side_effects, reason = "the place of a checksum in a structure")]
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let counted = bytes.iter().enumerate().filter(|(n, _)| !(at..at + 4).contains(n));
    !counted.map(|(_, b)| u32::from(*b)).fold(0, u32::wrapping_add)
}

impl Footer {
    /// The footer at `offset`, where one with a right checksum lies there.
    fn read(file: &dyn ReadAt, offset: u64) -> Result<Option<Self>> {
        if offset.checked_add(FOOTER).is_none_or(|end| end > file.len()) {
            return Ok(None);
        }
        let footer: Self = fields::read(file, offset, "vhd.footer", "the VHD footer")?;
        let sound = footer.cookie == *b"conectix" && checksum(footer.as_bytes(), 64) == footer.checksum.get();
        Ok(sound.then_some(footer))
    }
}

/// Whether `file` ends as a fixed disk does: with a footer for all the bytes before it.
///
/// A file whose end cannot be read has none: this is asked of any raw disk.
pub(super) fn ends_as_fixed(file: &dyn ReadAt) -> bool {
    let Some(last) = file.len().checked_sub(FOOTER) else { return false };
    let footer = Footer::read(file, last).ok().flatten();
    footer.is_some_and(|footer| footer.disk_type.get() == FIXED && footer.current_size.get() == last)
}

/// The id by which the disks on top of it know a VHD; `None` for any other file.
pub(super) fn unique_id(file: &dyn ReadAt) -> Option<[u8; 16]> {
    let at_end = file.len().checked_sub(FOOTER).and_then(|last| Footer::read(file, last).ok().flatten());
    let footer = at_end.or_else(|| Footer::read(file, 0).ok().flatten());
    footer.map(|footer| footer.unique_id)
}

/// Reads the footer, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let last = file.len().checked_sub(FOOTER);
    let at_end = last.map_or(Ok(None), |last| Footer::read(&file, last));
    let (footer, at) = match (at_end, last) {
        (Ok(Some(footer)), Some(last)) => (footer, last),
        // A fixed disk has no copy at its start: what looks like one there is the guest's.
        (at_end, _) => match (Footer::read(&file, 0), at_end) {
            (Ok(Some(copy)), at_end) if copy.disk_type.get() != FIXED => {
                let why = match at_end {
                    Err(e) => format!("cannot be read ({e})"),
                    Ok(_) => "is damaged or cut off".into(),
                };
                notes.push(format!("vhd: the footer at the file's end {why}; its copy at the start was used"));
                (copy, 0)
            }
            // The copy that cannot be read may be good.
            (_, Err(e)) | (Err(e), _) => return Err(e),
            _ => {
                return Err(Error::corrupt(
                    "vhd.footer",
                    "the file's last 512 bytes are no VHD footer (cookie conectix, with a right checksum), nor are its first",
                )
                .with_hint(Hint::RawFormat));
            }
        },
    };
    let size = footer.current_size.get();
    match footer.disk_type.get() {
        FIXED if size <= at => Ok(Arc::new(Window::new(file, 0, Some(size))?)),
        FIXED => Err(Error::corrupt(
            "vhd.current_size",
            format!("found {size}; the file holds {at} bytes before its footer"),
        )
        .at(at.saturating_add(48))),
        DYNAMIC | DIFFERENCING => open_dynamic(file, &footer, at, kin, notes),
        other => Err(Error::unsupported("vhd.disk_type", format!("found {other}; 2 (fixed) and 3 (dynamic) are read"))
            .at(at.saturating_add(60))),
    }
}

#[expect(clippy::arithmetic_side_effects, reason = "factors below 2^32")]
fn open_dynamic(
    file: Arc<dyn ReadAt>,
    footer: &Footer,
    at: u64,
    kin: &Kin<'_>,
    notes: &mut Vec<String>,
) -> Result<Arc<dyn ReadAt>> {
    let header_offset = footer.data_offset.get();
    let header: DynamicHeader = fields::read(&file, header_offset, "vhd.header", "the dynamic disk header")?;
    let wrong = |rule: &'static str, message: String| Err(Error::corrupt(rule, message).at(header_offset));
    if header.cookie != *b"cxsparse" {
        return wrong("vhd.header", "the dynamic disk header does not begin with cxsparse".into());
    }
    let sum = checksum(header.as_bytes(), 36);
    if header.checksum.get() != sum {
        return wrong("vhd.checksum", format!("found {:#x}; {sum:#x} is the header's checksum", header.checksum.get()));
    }
    let below = if footer.disk_type.get() == DIFFERENCING { Some(parent(&header, at, kin, notes)?) } else { None };
    let block_size = u64::from(header.block_size.get());
    if !block_size.is_power_of_two() || block_size < 512 {
        return wrong("vhd.block_size", format!("found {block_size}; a power of two from 512 on is allowed"));
    }
    let entries = u64::from(header.max_table_entries.get());
    let size = footer.current_size.get();
    // Both factors are below 2^32.
    if size > entries * block_size {
        let found = format!("found {size}; {entries} blocks of {block_size} bytes are fewer");
        return Err(Error::corrupt("vhd.current_size", found).at(at.saturating_add(48)));
    }
    let table_offset = header.table_offset.get();
    fields::table_within(&file, table_offset, entries, 4, "vhd.table", "the block allocation table")?;
    let bitmap = (block_size / 512).div_ceil(8).next_multiple_of(512);
    let pages = Pages::new(file.clone());
    Ok(Arc::new(super::map::Mapped::new(Dynamic { file, pages, size, table_offset, block_size, bitmap, below })))
}

/// The parent of a differencing disk, out of the files that were named.
fn parent(header: &DynamicHeader, at: u64, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Below> {
    let by = |file: &Arc<dyn ReadAt>| unique_id(file) == Some(header.parent_unique_id);
    kin.parent(&Wanted::Proven { format: Format::Vhd, by: &by }, notes)?.ok_or_else(|| {
        let name: Vec<u16> = header.parent_unicode_name.iter().map(|c| c.get()).take_while(|c| *c != 0).collect();
        let message = format!(
            "this is a differencing disk on top of {}, with the id {}, which is not followed; only the image itself is \
             read: an image can name any file, and its maker would get to see it",
            escape(&String::from_utf16_lossy(&name)),
            Uuid::from_bytes(header.parent_unique_id)
        );
        Error::unsupported("vhd.parent", message).at(at.saturating_add(60)).with_hint(Hint::NameParent)
    })
}

struct Dynamic {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    table_offset: u64,
    block_size: u64,
    /// The length in bytes of a block's sector bitmap, which comes before the block's data.
    bitmap: u64,
    /// The parent of a differencing disk.
    below: Option<Below>,
}

impl Dynamic {
    /// How much from `skip` bytes into the block at byte `at` on is alike, and whether it is in this file; at least a
    /// sector, and not much more than `wanted`.
    #[expect(clippy::arithmetic_side_effects, reason = "a block has less than 2^32 bytes, and lies below byte 2^42")]
    fn sectors(&self, at: u64, skip: u64, wanted: u64) -> Result<(u64, bool)> {
        let is_here = |sector: u64| {
            let [bits] = self.pages.entry::<1>(at + sector / 8)?;
            Ok::<_, Error>(bits >> (7 - sector % 8) & 1 == 1)
        };
        let first = skip / 512;
        let here = is_here(first)?;
        let mut end = first + 1;
        while end * 512 < self.block_size && end * 512 - skip < wanted && is_here(end)? == here {
            end += 1;
        }
        Ok((end * 512 - skip, here))
    }
}

impl Layout for Dynamic {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a block is a power of two, and its entry lies in the table, which is within the file"
    )]
    fn run_at(&self, offset: u64, wanted: u64) -> Result<Run> {
        let (block, skip) = (offset / self.block_size, offset % self.block_size);
        let sector = u32::from_be_bytes(self.pages.entry(self.table_offset + block * 4)?);
        let block = match sector {
            UNALLOCATED => return Ok(Run { len: self.block_size - skip, place: Place::Below }),
            sector => u64::from(sector) * 512,
        };
        let stored = Place::Stored(block + self.bitmap + skip);
        if self.below.is_none() {
            return Ok(Run { len: self.block_size - skip, place: stored });
        }
        let (len, here) = self.sectors(block, skip, wanted)?;
        Ok(Run { len, place: if here { stored } else { Place::Below } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::format::Options;

    fn footer(disk_type: u32, current_size: u64) -> Vec<u8> {
        let mut footer = Footer::read_from_bytes(&[0; 512]).unwrap();
        footer.cookie = *b"conectix";
        footer.data_offset = 512.into();
        footer.disk_type = disk_type.into();
        footer.current_size = current_size.into();
        footer.checksum = checksum(footer.as_bytes(), 64).into();
        footer.as_bytes().to_vec()
    }

    fn open_bytes(bytes: Vec<u8>) -> Result<Arc<dyn ReadAt>> {
        open(Arc::new(bytes), &Kin::new(&Options::default(), &[]), &mut Vec::new())
    }

    #[test]
    fn a_fixed_disk_ends_before_its_footer() {
        let disk = open_bytes([vec![5; 1024], footer(FIXED, 1024)].concat()).unwrap();
        assert_eq!(disk.len(), 1024);
        assert!(ends_as_fixed(&[vec![5; 1024], footer(FIXED, 1024)].concat()));
        for other in [footer(FIXED, 1536), footer(FIXED, 512), footer(DYNAMIC, 1024), vec![5; 512], vec![]] {
            assert!(!ends_as_fixed(&[vec![5; 1024], other].concat()));
        }
        let e = open_bytes([vec![5; 1024], footer(FIXED, 1536)].concat()).err().unwrap();
        assert_eq!((e.rule(), e.offset()), ("vhd.current_size", Some(1072)));
    }

    #[test]
    fn what_a_guest_writes_at_the_start_of_a_fixed_disk_is_no_footer() {
        let mut image = [footer(FIXED, 0), vec![5; 512], footer(FIXED, 1024)].concat();
        assert_eq!(open_bytes(image.clone()).unwrap().len(), 1024);
        let end = image.len() - 1;
        image[end] ^= 1;
        assert_eq!(open_bytes(image).err().unwrap().rule(), "vhd.footer");
    }

    #[test]
    fn a_differencing_disk_is_refused_by_name() {
        let mut header = DynamicHeader::read_from_bytes(&[0; 1024]).unwrap();
        header.cookie = *b"cxsparse";
        for (to, from) in header.parent_unicode_name.iter_mut().zip("/etc/shadow".encode_utf16()) {
            *to = from.into();
        }
        header.checksum = checksum(header.as_bytes(), 36).into();
        let footer = footer(DIFFERENCING, 1 << 20);
        let e = open_bytes([footer.clone(), header.as_bytes().to_vec(), footer].concat()).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "vhd.parent"));
        assert!(e.to_string().contains("/etc/shadow, with the id 0"), "{e}");
    }
}
