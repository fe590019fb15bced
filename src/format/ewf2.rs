//! EWF images of version 2 (Ex01, from EnCase 7 on) of one or more segment files (Joachim Metz, *Expert Witness Compression
//! Format version 2*, libyal's libewf). All numbers are little-endian.
//!
//! | file header, 32 bytes | | section descriptor, 64 bytes, behind the section's data | | sector table | |
//! |---|---|---|---|---|---|
//! | 0..8 | `EVF2\r\n\x81\x00` | 0..4 | type | 0..8 | number of the first chunk |
//! | 8..10 | version, 2.1 | 4..8 | flags: 2 is encrypted | 8..12 | number of entries |
//! | 10..12 | compression: 0 none, 1 zlib, 2 bzip2 | 8..16 | place of the one before | 16..20 | Adler-32 of 0..16 |
//! | 12..16 | number of the segment file | 16..24 | bytes of data, with padding | 32.. | entries of 16 bytes |
//! | 16..32 | the set's GUID | 28..32 | bytes of padding | | Adler-32 of the entries |
//! | | | 60..64 | Adler-32 of 0..60 | | |
//!
//! A segment file is read from its end: its last section is *next* or *done*. An entry of a table has a chunk's place in
//! the segment file (8 bytes), its length and flags: 1 for one that is compressed, 2 for one with its Adler-32 behind it,
//! and 5 for one that is made of the 8 bytes that stand in place of its place. What the image is of is said in texts of
//! UTF-16, of which the third line has names and the fourth their values: `bp` bytes a sector, `ts` sectors, `sb` sectors
//! a chunk.
//!
//! Images that EnCase encrypted are refused: how is not published. No crate reads Ex01.

use std::ops::Range;
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::adler::{adler32, check_adler32};
use super::cache::Pages;
use super::ewf::{Ewf, HASHES_MAX, Stored, errors};
use super::joined::Joined;
use super::lost;
use super::map::{Layout, Mapped, Place, Run};
use super::unpack::{Packing, unpack};
use super::{Format, fields};
use crate::error::{Condition, Error, Result, counted};
use crate::io::ReadAt;
use crate::limits::{CONTAINER_UNIT_MAX, EWF_SECTIONS_MAX, EWF2_TEXT_MAX};
use crate::num::{to_u64, to_usize};

/// The first bytes of a segment file.
pub(super) const MAGIC: [u8; 8] = *b"EVF2\r\n\x81\0";
const FILE_HEADER: u64 = 32;
const DESCRIPTOR: u64 = 64;
const TABLE_HEADER: u64 = 32;
const ENTRY: u64 = 16;
const CHECKSUM: u64 = 4;

const DEVICE: u32 = 1;
const CASE: u32 = 2;
const TABLE: u32 = 4;
const ERRORS: u32 = 5;
const MD5: u32 = 8;
const SHA1: u32 = 9;
const NEXT: u32 = 13;
const DONE: u32 = 15;

const ENCRYPTED: u32 = 2;
const COMPRESSED: u32 = 1;
const CHECKSUMED: u32 = 2;
const PATTERN: u32 = 4;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 8],
    version: [u8; 2],
    compression: U16,
    segment_number: U32,
    set: [u8; 16],
}
const _: () = assert!(size_of::<FileHeader>() == 32);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    kind: U32,
    flags: U32,
    previous: U64,
    data_size: U64,
    descriptor_size: U32,
    padding_size: U32,
    md5: [u8; 16],
    reserved: [u8; 12],
    checksum: U32,
}
const _: () = assert!(size_of::<Descriptor>() == 64);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableHeader {
    first_chunk: U64,
    entry_count: U32,
    padding: U32,
    checksum: U32,
    alignment: [u8; 12],
}
const _: () = assert!(size_of::<TableHeader>() == 32);

/// A section's data in its segment file.
struct Section {
    kind: u32,
    flags: u32,
    at: u64,
    end: u64,
    padding: u64,
}

/// One table: where the chunks from `first_chunk` on lie.
struct Table {
    first_chunk: u64,
    entries: u64,
    /// Offsets in the joined file: of the first entry, of what places count from, and of the end of that.
    entries_at: u64,
    base: u64,
    end: u64,
}

#[derive(Default)]
struct Found {
    set: Option<([u8; 16], u16)>,
    sections: usize,
    bytes_per_sector: Option<u64>,
    sectors: Option<u64>,
    sectors_per_chunk: Option<u64>,
    tables: Vec<Table>,
    /// The sectors that could not be read when the image was made.
    unread: Vec<Range<u64>>,
    stored: Vec<Stored>,
    /// Why a section with a hash could not be read.
    unreadable_hash: Option<Error>,
}

/// Reads all sections of all segment files, which come in their order, and gives the disk.
pub(super) fn open(segments: Vec<Arc<dyn ReadAt>>, notes: &mut Vec<String>) -> Result<Ewf> {
    let file = Joined::new(segments)?;
    let mut found = Found::default();
    let mut ended = false;
    for (n, (start, segment)) in file.parts.iter().enumerate() {
        if ended {
            let more = file.parts.len().saturating_sub(n);
            return Err(Error::invalid(format!("the image ends in segment file {n}, but {more} more were given")));
        }
        let number = n.saturating_add(1);
        ended = found.segment(segment, *start, number).map_err(|e| e.within(format_args!("segment file {number}")))?;
    }
    if !ended {
        let n = file.parts.len();
        return Err(Error::invalid(format!("the image goes on after segment file {n}, but no more were given"))
            .with_rule("ewf.segments")
            .with_condition(Condition::MissingMember)
            .with_hint("all segment files (Ex01, Ex02 …) have to lie side by side"));
    }
    let unread = std::mem::take(&mut found.unread);
    let (stored, unreadable_hash) = (std::mem::take(&mut found.stored), found.unreadable_hash.take());
    let chunks = Chunks::new(found, Arc::new(file))?;
    let lost = errors::in_bytes(unread, chunks.sector_size);
    let sector_size = u32::try_from(chunks.sector_size).unwrap_or(512);
    if let Some(e) = unreadable_hash {
        notes.push(format!("ewf: a hash of the disk that the image keeps cannot be read: {e}"));
    }
    let taken: Arc<dyn ReadAt> = Arc::new(Mapped::new(chunks));
    let recorded = Stored::of_disk(stored, &taken);
    let disk = lost::without(taken, Format::Ewf, [(lost, lost::UNREAD)], notes);
    Ok(Ewf { disk, sector_size, recorded })
}

impl Found {
    /// Reads the sections of segment file `number`, which begins at `start` of the joined file; whether the image ends
    /// with it.
    fn segment(&mut self, file: &Arc<dyn ReadAt>, start: u64, number: usize) -> Result<bool> {
        let header: FileHeader = fields::read(file, 0, "ewf.header", "the segment file's header")?;
        let found = to_usize(u64::from(header.segment_number.get()))?;
        if header.magic != MAGIC || found != number {
            let message = format!("found segment file {found}, or none; number {number} was expected here");
            return Err(
                Error::corrupt("ewf.header", message).with_hint("the first segment file of an image ends in .Ex01")
            );
        }
        if header.version[0] != 2 {
            let message = format!("found version {}.{}; 2 is read", header.version[0], header.version[1]);
            return Err(Error::unsupported("ewf.version", message).at(8));
        }
        let compression = header.compression.get();
        if compression > 1 {
            let message = format!("found compression method {compression}; 0 (none) and 1 (zlib) are read");
            return Err(Error::unsupported("ewf.compression", message)
                .at(10)
                .with_hint("libewf's ewfexport -f raw, or the tool that made it, exports an image that can be read"));
        }
        if *self.set.get_or_insert((header.set, compression)) != (header.set, compression) {
            let what = "the segment files are of different images: their GUIDs differ";
            return Err(Error::corrupt("ewf.header", what).at(16));
        }
        let (sections, is_done) = self.sections(file)?;
        for section in sections {
            if section.flags & ENCRYPTED != 0 {
                return Err(Error::unsupported("ewf.encrypted", "the image is encrypted by EnCase")
                    .at(section.at)
                    .with_hint("EnCase opens it, and exports an image that can be read"));
            }
            match section.kind {
                DEVICE | CASE => self.text(file, &section, compression)?,
                TABLE => self.table(file, start, &section)?,
                MD5 => self.hash(file, start, &section, "md5", 16),
                SHA1 => self.hash(file, start, &section, "sha1", 20),
                ERRORS => self.unread.extend(errors::read(file, section.at, section.end, errors::VERSION_2)?),
                _ => (),
            }
        }
        Ok(is_done)
    }

    /// A hash of the disk, with its Adler-32 behind it.
    fn hash(&mut self, file: &Arc<dyn ReadAt>, start: u64, section: &Section, algorithm: &'static str, len: usize) {
        let mut hash = vec![0; len];
        let read = fields::fill(file, &mut hash, section.at, "ewf.hash", "the section").and_then(|()| {
            let end = section.at.saturating_add(to_u64(len));
            check_adler32(file, section.at, end, "ewf.hash", "the section")
        });
        match read {
            Ok(()) if self.stored.len() >= HASHES_MAX => {}
            Ok(()) => self.stored.push(Stored { algorithm, hash, at: start.saturating_add(section.at) }),
            Err(e) => self.unreadable_hash = Some(e),
        }
    }

    /// The sections in the order in which they lie, and whether they end the image.
    fn sections(&mut self, file: &Arc<dyn ReadAt>) -> Result<(Vec<Section>, bool)> {
        let mut all: Vec<Section> = Vec::new();
        let cut = || {
            Error::corrupt("ewf.section", "no section ends where the segment file does")
                .with_hint("the segment file is cut off or damaged")
        };
        let mut at = file.len().checked_sub(DESCRIPTOR).ok_or_else(cut)?;
        loop {
            let section: Descriptor = fields::read(file, at, "ewf.section", "a section descriptor")?;
            self.sections = self.sections.saturating_add(1);
            if self.sections > EWF_SECTIONS_MAX {
                let message = format!("the image has more than {EWF_SECTIONS_MAX} sections");
                return Err(Error::limit("ewf.sections", message).at(at));
            }
            let (kind, previous) = (section.kind.get(), section.previous.get());
            let is_last = all.is_empty();
            if section.as_bytes().get(..60).map(adler32) != Some(section.checksum.get()) {
                let wrong = Error::corrupt("ewf.section", "the section descriptor's Adler-32 is wrong");
                return Err(if is_last { cut() } else { wrong }.at(at));
            }
            if is_last && !matches!(kind, NEXT | DONE) {
                return Err(cut().at(at));
            }
            // Sections lie one before the other: no byte is of two, and going back ends.
            let floor = if previous == 0 { FILE_HEADER } else { previous.saturating_add(DESCRIPTOR) };
            let (size, padding) = (section.data_size.get(), u64::from(section.padding_size.get()));
            let begin = at.checked_sub(size).filter(|begin| *begin >= floor && padding <= size);
            let Some(begin) = begin.filter(|_| u64::from(section.descriptor_size.get()) == DESCRIPTOR) else {
                let message = format!("found {size} bytes of data, and the section before at byte {previous}");
                return Err(Error::corrupt("ewf.section", message).at(at));
            };
            all.push(Section { kind, flags: section.flags.get(), at: begin, end: at, padding });
            if previous == 0 {
                break;
            }
            at = previous;
        }
        let is_done = all.first().is_some_and(|last| last.kind == DONE);
        all.reverse();
        Ok((all, is_done))
    }

    /// What one of the texts says of the disk and its chunks.
    fn text(&mut self, file: &Arc<dyn ReadAt>, section: &Section, compression: u16) -> Result<()> {
        let len = section.end.saturating_sub(section.at).saturating_sub(section.padding);
        if len > EWF2_TEXT_MAX {
            let found = format!("found a text of {len} bytes; {EWF2_TEXT_MAX} are allowed");
            return Err(Error::limit("ewf.text", found).at(section.at));
        }
        let mut bytes = vec![0; to_usize(len)?];
        fields::fill(file, &mut bytes, section.at, "ewf.text", "a text")?;
        if compression == 1 {
            bytes = unpack(Packing::Zlib, &bytes, EWF2_TEXT_MAX).map_err(|e| e.at(section.at))?;
        }
        let (units, _) = bytes.as_chunks::<2>();
        let text: String = char::decode_utf16(units.iter().map(|unit| u16::from_le_bytes(*unit)))
            .map(|c| c.unwrap_or('\u{fffd}'))
            .collect();
        let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
        let (Some(names), Some(values)) = (lines.get(2), lines.get(3)) else {
            return Err(Error::corrupt("ewf.text", "the text has no line of names, or none of values").at(section.at));
        };
        for (name, value) in names.split('\t').zip(values.split('\t')) {
            let field = match name {
                "bp" => &mut self.bytes_per_sector,
                "ts" => &mut self.sectors,
                "sb" => &mut self.sectors_per_chunk,
                _ => continue,
            };
            let wrong = |what: &str| Error::corrupt("ewf.text", format!("{name} {what}")).at(section.at);
            let value = value.parse().map_err(|_| wrong("is no number"))?;
            // Each segment file has a copy of the texts.
            if *field.get_or_insert(value) != value {
                return Err(wrong("differs in the segment files: they are of different images"));
            }
        }
        Ok(())
    }

    fn table(&mut self, file: &Arc<dyn ReadAt>, start: u64, section: &Section) -> Result<()> {
        let wrong = |what: String| Error::corrupt("ewf.table", what).at(section.at);
        let header: TableHeader = fields::read(file, section.at, "ewf.table", "a table header")?;
        if header.as_bytes().get(..16).map(adler32) != Some(header.checksum.get()) {
            return Err(wrong("the table header's Adler-32 is wrong".into()));
        }
        let expected = self.tables.last().map_or(0, |table| table.first_chunk.saturating_add(table.entries));
        let (first_chunk, entries) = (header.first_chunk.get(), u64::from(header.entry_count.get()));
        if first_chunk != expected {
            return Err(wrong(format!("found chunk {first_chunk}; {expected} is the next")));
        }
        let entries_at = section.at.saturating_add(TABLE_HEADER);
        let entries_end = entries_at.saturating_add(entries.saturating_mul(ENTRY));
        if entries_end.saturating_add(CHECKSUM) > section.end {
            return Err(wrong(format!(
                "found {}; the table's data ends at byte {}",
                counted(entries, "entry"),
                section.end
            )));
        }
        check_adler32(file, entries_at, entries_end, "ewf.table", "the table's entries")?;
        if entries > 0 {
            let (entries_at, end) = (start.saturating_add(entries_at), start.saturating_add(file.len()));
            self.tables.push(Table { first_chunk, entries, entries_at, base: start, end });
        }
        Ok(())
    }
}

struct Chunks {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    tables: Vec<Table>,
    sector_size: u64,
    chunk_size: u64,
    size: u64,
}

/// An entry of a table: 8 bytes that are a place or a pattern, the length, and flags.
struct Entry {
    place: [u8; 8],
    len: u64,
    flags: u32,
    /// Of the segment file that it is in.
    base: u64,
    end: u64,
}

impl Chunks {
    fn new(found: Found, file: Arc<dyn ReadAt>) -> Result<Self> {
        let missing = |what: &str| Error::corrupt("ewf.text", format!("the image does not say its {what}"));
        let sector_size = found.bytes_per_sector.ok_or_else(|| missing("bytes per sector (bp)"))?;
        let sectors = found.sectors.ok_or_else(|| missing("number of sectors (ts)"))?;
        let sectors_per_chunk = found.sectors_per_chunk.ok_or_else(|| missing("sectors per chunk (sb)"))?;
        let chunk_size = sectors_per_chunk.saturating_mul(sector_size);
        if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) || chunk_size == 0 {
            let message = format!("found {} of {sector_size} bytes a chunk", counted(sectors_per_chunk, "sector"));
            return Err(Error::corrupt("ewf.text", message));
        }
        if chunk_size > CONTAINER_UNIT_MAX {
            let message = format!("found chunks of {chunk_size} bytes; {CONTAINER_UNIT_MAX} are allowed");
            return Err(Error::limit("ewf.text", message));
        }
        let size = sectors.checked_mul(sector_size);
        let size = size.ok_or_else(|| Error::corrupt("ewf.text", "the number of sectors overflows"))?;
        let chunks = found.tables.last().map_or(0, |table| table.first_chunk.saturating_add(table.entries));
        if chunks.saturating_mul(chunk_size) < size {
            let message = format!(
                "the tables place {} of {chunk_size} bytes; the disk of {size} bytes has more",
                counted(chunks, "chunk")
            );
            return Err(Error::corrupt("ewf.tables", message).with_hint("a segment file is cut off or damaged"));
        }
        let pages = Pages::new(Arc::clone(&file));
        Ok(Self { file, pages, tables: found.tables, sector_size, chunk_size, size })
    }

    fn entry(&self, chunk: u64) -> Result<Entry> {
        let n = self.tables.partition_point(|table| table.first_chunk <= chunk).saturating_sub(1);
        let none = || Error::corrupt("ewf.table", format!("no table places chunk {chunk}"));
        let table = self.tables.get(n).ok_or_else(none)?;
        let index = chunk.checked_sub(table.first_chunk).filter(|index| *index < table.entries).ok_or_else(none)?;
        let entry: [u8; 16] = self.pages.entry(table.entries_at.saturating_add(index.saturating_mul(ENTRY)))?;
        let ([place @ .., _, _, _, _, _, _, _, _], [_, _, _, _, _, _, _, _, rest @ ..]) = (entry, entry);
        let ([len @ .., _, _, _, _], [_, _, _, _, flags @ ..]): ([u8; 8], [u8; 8]) = (rest, rest);
        let (len, flags) = (u64::from(u32::from_le_bytes(len)), u32::from_le_bytes(flags));
        Ok(Entry { place, len, flags, base: table.base, end: table.end })
    }
}

impl Layout for Chunks {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    /// Also a chunk that is stored as it is goes through [`Layout::unpack`], where its checksum is compared.
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let unit = offset.checked_div(self.chunk_size).unwrap_or(0);
        let skip = offset.checked_rem(self.chunk_size).unwrap_or(0);
        Ok(Run { len: self.chunk_size.saturating_sub(skip), place: Place::Packed { unit, skip } })
    }

    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        let Entry { place, len, flags, base, end } = self.entry(unit)?;
        // The last chunk holds only what the disk has left.
        let wanted = self.chunk_size.min(self.size.saturating_sub(unit.saturating_mul(self.chunk_size)));
        let wanted_len = to_usize(wanted)?;
        if flags & (COMPRESSED | PATTERN) == COMPRESSED | PATTERN {
            return Ok(place.iter().copied().cycle().take(wanted_len).collect());
        }
        let wrong = |what: String| Error::corrupt("ewf.chunk", format!("chunk {unit}: {what}"));
        let place = u64::from_le_bytes(place);
        let start = base.checked_add(place);
        let is_there = |start: &u64| start.checked_add(len).is_some_and(|behind| behind <= end);
        let most = self.chunk_size.saturating_mul(2);
        let Some(start) = start.filter(is_there).filter(|_| (1..=most).contains(&len)) else {
            return Err(wrong(format!("it is said to lie in {len} bytes from byte {place} of its segment file on")));
        };
        let mut bytes = vec![0; to_usize(len)?];
        fields::fill(&self.file, &mut bytes, start, "container.truncated", "a chunk")?;
        if flags & COMPRESSED != 0 {
            return unpack(Packing::Zlib, &bytes, self.chunk_size).map_err(|e| e.at(start));
        }
        if flags & CHECKSUMED != 0 {
            // The checksum is behind the chunk's bytes: all of them for a chunk that was padded to its full size.
            let lens = [to_usize(self.chunk_size)?, wanted_len];
            let is_whole = |len: &usize| {
                let sum = bytes.get(*len..).and_then(|rest| rest.first_chunk::<4>());
                sum.is_some_and(|sum| Some(u32::from_le_bytes(*sum)) == bytes.get(..*len).map(adler32))
            };
            let Some(len) = lens.into_iter().find(is_whole) else {
                return Err(wrong("its Adler-32 is wrong".into()).at(start));
            };
            bytes.truncate(len);
        }
        if bytes.len() < wanted_len {
            return Err(wrong(format!("it has {} bytes; {wanted} are wanted", bytes.len())).at(start));
        }
        bytes.truncate(to_usize(self.chunk_size)?);
        Ok(bytes)
    }

    fn unit_size(&self) -> u64 {
        self.chunk_size
    }
}
