//! GUID partition tables (UEFI specification, chapter 5.3). All numbers are little-endian.
//!
//! | header bytes | field | entry bytes | field |
//! |---|---|---|---|
//! | 0..8 | signature `EFI PART` | 0..16 | partition_type_guid; zero for an unused entry |
//! | 8..12 | revision | 16..32 | unique_partition_guid |
//! | 12..16 | header_size | 32..40 | starting_lba |
//! | 16..20 | header_crc32, of header_size bytes, itself as zero | 40..48 | ending_lba, the last one |
//! | 24..32, 32..40 | my_lba, alternate_lba | 48..56 | attributes |
//! | 72..80 | partition_entry_lba | 56..128 | partition_name, UTF-16 |
//! | 80..84, 84..88 | number_of_partition_entries, size_of_partition_entry | | |
//! | 88..92 | partition_entry_array_crc32 | | |
//!
//! The header is the disk's second sector; a copy of it and of the entries is at the disk's end. A copy counts only with
//! both checksums right. This parser is our own: the crate gpt (4.1) reads from a cursor that can also write, and
//! reserves for an entry the size that the header says.

use uuid::Uuid;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::{Entry, Kind, Scheme, Table, shorten};
use crate::error::{Error, Hint, Result};
use crate::io::ReadAt;
use crate::limits::GPT_ENTRIES_SIZE_MAX;
use crate::num::{from_u32, to_usize};

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc32: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable_lba: U64,
    last_usable_lba: U64,
    disk_guid: [u8; 16],
    partition_entry_lba: U64,
    number_of_partition_entries: U32,
    size_of_partition_entry: U32,
    partition_entry_array_crc32: U32,
}
const _: () = assert!(size_of::<Header>() == 92);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    partition_type_guid: [u8; 16],
    unique_partition_guid: [u8; 16],
    starting_lba: U64,
    ending_lba: U64,
    attributes: U64,
    partition_name: [U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

/// What one place where a copy may lie has.
enum Copy {
    /// A whole copy.
    Whole(Table),
    /// No signature: there is none.
    Absent,
    /// The signature, and then what is wrong; or that it cannot be read.
    Damaged(Error),
}

/// Reads the first copy, or the one at the end of the disk; `protected` where the MBR says that there is a GPT.
pub(super) fn list(disk: &dyn ReadAt, sector_sizes: &[u32], protected: bool) -> Result<Option<Table>> {
    let mut damage = None;
    for sector_size in sector_sizes {
        match read_copy(disk, 1, *sector_size) {
            Copy::Whole(table) => return Ok(Some(table)),
            Copy::Damaged(e) => damage = damage.or(Some(e)),
            Copy::Absent => (),
        }
    }
    for sector_size in sector_sizes {
        let sectors = disk.len().checked_div(u64::from(*sector_size));
        let Some(last_lba) = sectors.and_then(|n| n.checked_sub(1)) else { continue };
        match read_copy(disk, last_lba, *sector_size) {
            Copy::Whole(mut table) => {
                let why = damage.as_ref().map_or_else(|| "it is missing".to_owned(), ToString::to_string);
                table.notes.insert(
                    0,
                    format!("gpt: the table at the disk's start is damaged ({why}); its copy at the end was read"),
                );
                return Ok(Some(table));
            }
            Copy::Damaged(e) => damage = damage.or(Some(e)),
            Copy::Absent => (),
        }
    }
    match damage {
        Some(e) => Err(e.with_hint([Hint::NameOffset, Hint::Scan])),
        None if protected => Err(Error::corrupt(
            "gpt.signature",
            "the protective MBR says that the disk has a GPT, but neither its start nor its end has one",
        )
        .with_hint(["if the image is cut off, fetch it again".into(), Hint::NameOffset])),
        None => Ok(None),
    }
}

/// One of the two copies of a GPT.
#[derive(Debug)]
pub struct GptCopy {
    /// Where its header is, in bytes, or would have to be.
    pub offset: u64,
    /// Where its disk ends, in bytes, and the disk's GUID; or what is wrong with it.
    pub state: Result<(u64, Uuid)>,
}

/// Both copies of a GPT.
#[derive(Debug)]
pub struct GptCopies {
    /// That at the disk's start.
    pub first: GptCopy,
    /// That where the first says that it is, or at the disk's end where the first is not whole.
    pub spare: GptCopy,
    /// What two copies that are whole do not say alike.
    pub differ: Option<&'static str>,
}

impl GptCopies {
    fn whole(&self) -> Option<&(u64, Uuid)> {
        self.first.state.as_ref().or(self.spare.state.as_ref()).ok()
    }

    /// The byte behind the last that the table itself takes: the end of the spare copy's header.
    pub fn end(&self) -> Option<u64> {
        self.whole().map(|(end, _)| *end)
    }

    /// The disk's GUID.
    pub fn disk_guid(&self) -> Option<Uuid> {
        self.whole().map(|(_, guid)| *guid)
    }
}

pub(super) fn copies(disk: &dyn ReadAt, sector_size: u32) -> GptCopies {
    let sector = u64::from(sector_size);
    let copy = |lba: u64| {
        let state = match try_header(disk, lba, sector) {
            Ok(Some(header)) => {
                read_entries(disk, &header, sector, lba.saturating_mul(sector)).map(|_| header.end_and_guid(sector))
            }
            Ok(None) => Err(Error::corrupt("gpt.signature", "there is no table")),
            Err(e) => Err(e),
        };
        GptCopy { offset: lba.saturating_mul(sector), state }
    };
    let first = copy(1);
    let alternate = try_header(disk, 1, sector).ok().flatten().map(|header| header.alternate_lba.get());
    let last = disk.len().checked_div(sector).and_then(|n| n.checked_sub(1)).unwrap_or(0);
    let spare = alternate.unwrap_or(last);
    let header = |lba| try_header(disk, lba, sector).ok().flatten();
    let differ = header(1).zip(header(spare)).and_then(|(first, spare)| first.differs(&spare));
    GptCopies { first, spare: copy(spare), differ }
}

impl Header {
    /// What the other copy's header has to say as well, and does not.
    fn differs(&self, other: &Self) -> Option<&'static str> {
        let (entries, others) = (self.partition_entry_array_crc32, other.partition_entry_array_crc32);
        [
            ("the disk's GUID", self.disk_guid != other.disk_guid),
            ("the first sector that partitions may have", self.first_usable_lba != other.first_usable_lba),
            ("the last sector that partitions may have", self.last_usable_lba != other.last_usable_lba),
            ("the number of entries", self.number_of_partition_entries != other.number_of_partition_entries),
            ("the size of entries", self.size_of_partition_entry != other.size_of_partition_entry),
            ("the entries", entries != others),
            ("the place of the other header", self.my_lba != other.alternate_lba),
        ]
        .into_iter()
        .find_map(|(what, differs)| differs.then_some(what))
    }

    /// The end of the later of the two headers, and the disk's GUID.
    fn end_and_guid(&self, sector: u64) -> (u64, Uuid) {
        let last = self.my_lba.get().max(self.alternate_lba.get());
        (last.saturating_add(1).saturating_mul(sector), Uuid::from_bytes_le(self.disk_guid))
    }
}

/// The copy whose header is the sector `lba`.
fn read_copy(disk: &dyn ReadAt, lba: u64, sector_size: u32) -> Copy {
    match try_copy(disk, lba, u64::from(sector_size), sector_size) {
        Ok(Some(table)) => Copy::Whole(table),
        Ok(None) => Copy::Absent,
        Err(e) => Copy::Damaged(e),
    }
}

fn try_copy(disk: &dyn ReadAt, lba: u64, sector: u64, sector_size: u32) -> Result<Option<Table>> {
    let Some(header) = try_header(disk, lba, sector)? else { return Ok(None) };
    let entries = read_entries(disk, &header, sector, lba.saturating_mul(sector))?;
    Ok(Some(table(&entries, &header, sector, sector_size, disk.len())))
}

/// The header in the sector `lba`, where there is one.
fn try_header(disk: &dyn ReadAt, lba: u64, sector: u64) -> Result<Option<Header>> {
    let Some(at) = lba.checked_mul(sector).filter(|at| at.checked_add(sector).is_some_and(|end| end <= disk.len()))
    else {
        return Ok(None);
    };
    let mut bytes = vec![0; to_usize(sector)?];
    disk.read_exact_at(&mut bytes, at)?;
    let Ok((header, _)) = Header::read_from_prefix(&bytes) else { return Ok(None) };
    if header.signature != *b"EFI PART" {
        return Ok(None);
    }
    let wrong = |rule: &'static str, message: String| Err(Error::corrupt(rule, message).at(at));
    let header_size = u64::from(header.header_size.get());
    if !(92..=sector).contains(&header_size) {
        return wrong("gpt.header_size", format!("found {header_size}; 92 to {sector} is allowed"));
    }
    let mut covered = bytes;
    covered.truncate(to_usize(header_size)?);
    if let Some(crc) = covered.get_mut(16..20) {
        crc.zero();
    }
    let crc = crc32fast::hash(&covered);
    if crc != header.header_crc32.get() {
        return wrong(
            "gpt.header_crc32",
            format!("found {:#010x}; the header's CRC-32 is {crc:#010x}", header.header_crc32.get()),
        );
    }
    if header.my_lba.get() != lba {
        return wrong("gpt.my_lba", format!("found {}; the header lies in sector {lba}", header.my_lba.get()));
    }
    Ok(Some(header))
}

/// The array of entries, its checksum compared.
fn read_entries(disk: &dyn ReadAt, header: &Header, sector: u64, at: u64) -> Result<Vec<u8>> {
    let size = u64::from(header.size_of_partition_entry.get());
    if size < 128 || size % 8 != 0 {
        let found = format!("found {size}; a multiple of 8 from 128 on is allowed");
        return Err(Error::corrupt("gpt.size_of_partition_entry", found).at(at.saturating_add(84)));
    }
    let len = u64::from(header.number_of_partition_entries.get()).saturating_mul(size);
    if len > GPT_ENTRIES_SIZE_MAX {
        let found = format!("the entries take {len} bytes; {GPT_ENTRIES_SIZE_MAX} are allowed");
        return Err(Error::limit("gpt.number_of_partition_entries", found).at(at.saturating_add(80)));
    }
    let start = header.partition_entry_lba.get().checked_mul(sector);
    let start = start.filter(|start| start.checked_add(len).is_some_and(|end| end <= disk.len()));
    let Some(start) = start else {
        let found = format!(
            "found sector {}; {len} bytes from there on do not lie on the disk",
            header.partition_entry_lba.get()
        );
        return Err(Error::corrupt("gpt.partition_entry_lba", found).at(at.saturating_add(72)));
    };
    let mut entries = vec![0; to_usize(len)?];
    disk.read_exact_at(&mut entries, start)?;
    let (found, crc) = (header.partition_entry_array_crc32.get(), crc32fast::hash(&entries));
    if crc != found {
        let found = format!("found {found:#010x}; the entries' CRC-32 is {crc:#010x}");
        return Err(Error::corrupt("gpt.partition_entry_array_crc32", found).at(at.saturating_add(88)));
    }
    Ok(entries)
}

/// The used entries. One that has no sane place is left out with a note, as Linux leaves it out.
fn table(entries: &[u8], header: &Header, sector: u64, sector_size: u32, disk_len: u64) -> Table {
    let mut table = Table { scheme: Scheme::Gpt, sector_size, entries: Vec::new(), notes: Vec::new() };
    let size = from_u32(header.size_of_partition_entry.get());
    for (number, bytes) in (1..).zip(entries.chunks_exact(size)) {
        let Ok((raw, _)) = RawEntry::read_from_prefix(bytes) else { continue };
        if raw.partition_type_guid == [0; 16] {
            continue;
        }
        let (first, last) = (raw.starting_lba.get(), raw.ending_lba.get());
        let start = first.checked_mul(sector);
        let len = last.checked_sub(first).and_then(|n| n.checked_add(1)).and_then(|n| n.checked_mul(sector));
        let (Some(start), Some(len)) = (start, len.filter(|len| start.is_some_and(|s| s.checked_add(*len).is_some())))
        else {
            table.notes.push(format!("gpt: partition {number} from sector {first} to sector {last} has no sane place"));
            continue;
        };
        if start.saturating_add(len) > disk_len {
            table.notes.push(format!("gpt: partition {number} ends beyond the image, which is cut off"));
        }
        let name: Vec<u16> = raw.partition_name.iter().map(|c| c.get()).take_while(|c| *c != 0).collect();
        table.entries.push(Entry {
            number,
            start,
            len,
            kind: Kind::Gpt(Uuid::from_bytes_le(raw.partition_type_guid)),
            label: Some(String::from_utf16_lossy(&name)),
            uuid: Uuid::from_bytes_le(raw.unique_partition_guid).to_string(),
        });
    }
    shorten(&mut table.notes, "gpt");
    table
}
