//! EWF images (E01, from EnCase, FTK Imager and ewfacquire), version 1, of one or more segment files (Joachim Metz,
//! *Expert Witness Compression Format*, libyal's libewf). All numbers are little-endian.
//!
//! A segment file begins with 13 bytes: the magic `EVF\x09\x0d\x0a\xff\x00`, 1, its number from 1 on (2 bytes), and 2
//! zeroes. A chain of sections follows, each with a header of 76 bytes:
//!
//! | section header | | volume section | | table section | |
//! |---|---|---|---|---|---|
//! | 0..16 | type | 4..8 | chunk_count | 0..4 | entry count |
//! | 16..24 | offset of the next | 8..12 | sectors_per_chunk | 8..16 | base offset |
//! | 24..32 | size, with this header | 12..16 | bytes_per_sector | 20..24 | Adler-32 of 0..20 |
//! | 72..76 | Adler-32 of 0..72 | 16..24 | sector_count | 24.. | entries, and their Adler-32 |
//!
//! A table's entry has a chunk's place, from the base offset on, in bits 0 to 30, and in bit 31 whether it is a zlib
//! stream; one that is not has its Adler-32 behind it. All these checksums are compared. EnCase writes each table twice,
//! as `table` and `table2`; the second is read where the first is damaged.
//!
//! This reader is our own, not the crate ewf (0.4.10): that one reserves what the image says a chunk takes, up to 2 GiB;
//! leaves out table entries that it finds malformed, so that all chunks behind them move; gives zeroes for what a short
//! stream lacks; and compares neither the tables' nor the chunks' checksums. Each would give wrong bytes for right ones.
//!
//! The hashes of the disk that the image keeps are told ([`Recorded`]); a section that holds one and is damaged is a note.
//!
//! Segment files are named by a fixed rule, E01, E02 …, and not by the image; so a caller who was given the first may
//! open the others. This module opens none: it names them, and takes them in their order.

pub(super) mod errors;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::adler::{adler32, check_adler32};
use super::cache::Pages;
use super::checks::Recorded;
use super::joined::Joined;
use super::lost;
use super::map::{Layout, Mapped, Place, Run};
use super::unpack::{Packing, unpack};
use super::{Format, fields};
use crate::error::{Condition, Error, ErrorKind, Result, counted, escape};
use crate::io::ReadAt;
use crate::limits::{CONTAINER_UNIT_MAX, EWF_SECTIONS_MAX};
use crate::num::to_usize;

/// The first bytes of a segment file.
pub(super) const MAGIC: [u8; 8] = *b"EVF\x09\x0d\x0a\xff\x00";
const FILE_HEADER: u64 = 13;
const SECTION_HEADER: u64 = 76;
const TABLE_HEADER: u64 = 24;
const COMPRESSED: u32 = 1 << 31;
const CHECKSUM: u64 = 4;
/// Hashes of the disk that are compared; an image has an MD5, twice, and a SHA-1.
pub(super) const HASHES_MAX: usize = 8;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 8],
    start: u8,
    segment_number: U16,
    end: U16,
}
const _: () = assert!(size_of::<FileHeader>() == 13);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Section {
    kind: [u8; 16],
    next: U64,
    size: U64,
    padding: [u8; 40],
    checksum: U32,
}
const _: () = assert!(size_of::<Section>() == 76);

/// The part of a volume section that EnCase's 1052 bytes and SMART's 94 have in common.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Volume {
    media_type: [u8; 4],
    chunk_count: U32,
    sectors_per_chunk: U32,
    bytes_per_sector: U32,
    sector_count: U64,
}
const _: () = assert!(size_of::<Volume>() == 24);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TableHeader {
    entry_count: U32,
    padding: U32,
    base_offset: U64,
    padding2: U32,
    checksum: U32,
}
const _: () = assert!(size_of::<TableHeader>() == 24);

/// The names of the files of a set behind `first`, as far as files of these names are there; none where `first` is not
/// called as the first of a set is.
///
/// They are `.E02` to `.E99`, then `.EAA` to `.EZZ`, `.FAA` and so on to `.ZZZ`, as libewf calls them; in version 2 `.Ex02`
/// to `.Ex99`, then `.ExAA` to `.EzZZ`.
pub fn segment_files(first: &Path) -> Vec<PathBuf> {
    let letter = first.extension().and_then(|e| e.to_str()).and_then(|e| e.strip_suffix("01"));
    if let Some("Ex" | "ex") = letter {
        let paths = segment_extensions_2().map(|extension| first.with_extension(extension));
        return paths.take_while(|path| path.exists()).collect();
    }
    let letter = match letter {
        Some("E") => 'E',
        Some("e") => 'e',
        Some("S") => 'S',
        Some("s") => 's',
        _ => return Vec::new(),
    };
    let paths = segment_extensions(letter).map(|extension| first.with_extension(extension));
    paths.take_while(|path| path.exists()).collect()
}

fn segment_extensions(letter: char) -> impl Iterator<Item = String> {
    let (a, z) = if letter.is_ascii_uppercase() { ('A', 'Z') } else { ('a', 'z') };
    let numbered = (2..=99).map(move |n| format!("{letter}{n:02}"));
    let lettered =
        (letter..=z).flat_map(move |x| (a..=z).flat_map(move |y| (a..=z).map(move |w| format!("{x}{y}{w}"))));
    numbered.chain(lettered)
}

/// Those of version 2.
fn segment_extensions_2() -> impl Iterator<Item = String> {
    let numbered = (2..=99).map(|n| format!("Ex{n:02}"));
    let lettered =
        ('x'..='z').flat_map(|x| ('A'..='Z').flat_map(move |y| ('A'..='Z').map(move |z| format!("E{x}{y}{z}"))));
    numbered.chain(lettered)
}

/// The disk, and what else its sections tell.
pub(super) struct Ewf {
    pub disk: Arc<dyn ReadAt>,
    pub sector_size: u32,
    /// The hashes that the disk had when it was taken.
    pub recorded: Vec<Recorded>,
}

/// A hash of the disk that a section holds.
pub(super) struct Stored {
    pub algorithm: &'static str,
    pub hash: Vec<u8>,
    /// Where it lies in the segment files.
    pub at: u64,
}

impl Stored {
    /// Those that are there: an all-zero one was not made, and the same may be stored twice.
    pub(super) fn of_disk(found: Vec<Self>, disk: &Arc<dyn ReadAt>) -> Vec<Recorded> {
        let mut all: Vec<Recorded> = Vec::new();
        for Self { algorithm, hash, at } in found {
            let hex = hex::encode(&hash);
            let is_new = !all.iter().any(|r| r.algorithm == algorithm && r.hex == hex);
            if is_new && all.len() < HASHES_MAX && hash.iter().any(|byte| *byte != 0) {
                all.push(Recorded { by: "the EWF image".into(), algorithm, hex, at: Some(at), of: Arc::clone(disk) });
            }
        }
        all
    }
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
        ended = found.read_segment(segment, *start, n.saturating_add(1))?;
    }
    if !ended {
        let n = file.parts.len();
        return Err(Error::invalid(format!("the image goes on after segment file {n}, but no more were given"))
            .with_rule("ewf.segments")
            .with_condition(Condition::MissingMember)
            .with_hint("all segment files (E01, E02 …) have to lie side by side"));
    }
    if let damaged @ 1.. = found.second_tables {
        notes.push(format!(
            "ewf: damaged: {} of chunks; of these the second copy (table2) was read",
            counted(damaged, "table")
        ));
    }
    let volume = match (found.volume.take(), found.unreadable_volume) {
        (Some(volume), None) => volume,
        (Some(volume), Some(e)) => {
            notes.push(format!("ewf: a volume section cannot be read, and its copy was used: {e}"));
            volume
        }
        (None, Some(e)) => return Err(e),
        (None, None) => return Err(Error::corrupt("ewf.volume", "the image has no volume section")),
    };
    let sector_size = volume.bytes_per_sector;
    let chunks = found.tables.last().map_or(0, |table| table.first_chunk.saturating_add(table.entries));
    // A chunk is at most 2^21 bytes and there are fewer than 2^19 tables of fewer than 2^32 chunks each.
    if chunks.saturating_mul(volume.chunk_size) < volume.size {
        return Err(Error::corrupt(
            "ewf.tables",
            format!(
                "the tables place {} of {} bytes; the disk of {} bytes has more",
                counted(chunks, "chunk"),
                volume.chunk_size,
                volume.size
            ),
        )
        .with_hint("a segment file is cut off or damaged"));
    }
    let file: Arc<dyn ReadAt> = Arc::new(file);
    let chunks = Chunks { pages: Pages::new(file.clone()), file, volume, tables: found.tables };
    let lost = errors::in_bytes(found.unread, sector_size.into());
    if let Some(e) = found.unreadable_hash {
        notes.push(format!("ewf: a hash of the disk that the image keeps cannot be read: {e}"));
    }
    // What could not be read was taken as zeroes, in the hashes as well.
    let taken: Arc<dyn ReadAt> = Arc::new(Mapped::new(chunks));
    let recorded = Stored::of_disk(found.stored, &taken);
    let disk = lost::without(taken, Format::Ewf, [(lost, lost::UNREAD)], notes);
    Ok(Ewf { disk, sector_size, recorded })
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Geometry {
    chunk_size: u64,
    bytes_per_sector: u32,
    /// The disk's size in bytes.
    size: u64,
}

/// One table: where the chunks from `first_chunk` on lie.
struct Table {
    first_chunk: u64,
    entries: u64,
    /// Offsets in the joined file: of the first entry, of what the entries count from, and of the end of the last chunk.
    entries_at: u64,
    base: u64,
    data_end: u64,
}

#[derive(Default)]
struct Found {
    volume: Option<Geometry>,
    /// Why a volume section could not be read: each segment file has one, and any of them will do.
    unreadable_volume: Option<Error>,
    tables: Vec<Table>,
    sections: usize,
    /// How many tables were read from their second copy.
    second_tables: usize,
    /// The sectors that could not be read when the image was made.
    unread: Vec<Range<u64>>,
    stored: Vec<Stored>,
    /// Why a section with a hash could not be read.
    unreadable_hash: Option<Error>,
}

impl Found {
    /// Reads the sections of segment file `number`, which begins at `start` of the joined file; whether the image ends
    /// with it.
    fn read_segment(&mut self, file: &Arc<dyn ReadAt>, start: u64, number: usize) -> Result<bool> {
        let header: FileHeader = fields::read(file, 0, "ewf.header", "the segment file's header")?;
        let found = usize::from(header.segment_number.get());
        if header.magic != MAGIC || found != number {
            return Err(Error::corrupt(
                "ewf.header",
                format!("found segment file {found}, or none; number {number} was expected here"),
            )
            .with_hint("the first segment file of an image ends in .E01"));
        }
        let mut at = FILE_HEADER;
        let mut sectors_end = None;
        let mut damaged: Option<(Error, u64)> = None;
        loop {
            let section: Section = fields::read(file, at, "ewf.section", "a section header")?;
            self.sections = self.sections.saturating_add(1);
            let wrong = |what: String| Error::corrupt("ewf.section", format!("segment file {number}: {what}")).at(at);
            let sum = section.as_bytes().get(..72).map(adler32);
            if sum != Some(section.checksum.get()) {
                return Err(wrong("the section header's Adler-32 is wrong".into()));
            }
            if self.sections > EWF_SECTIONS_MAX {
                return Err(Error::limit(
                    "ewf.sections",
                    format!("the image has more than {EWF_SECTIONS_MAX} sections"),
                )
                .at(at));
            }
            let kind = section.kind.split(|b| *b == 0).next().unwrap_or_default();
            let (next, size) = (section.next.get(), section.size.get());
            // EnCase writes each table twice: a damaged one is an error only where its copy does not follow it.
            if let Some((e, _)) = damaged.take_if(|_| kind != b"table2") {
                return Err(e);
            }
            // The last section of a file, done or next, points to itself.
            if kind == b"done" || kind == b"next" {
                return Ok(kind == b"done");
            }
            let end = if size == 0 { Some(next) } else { at.checked_add(size) };
            // Sections that overlapped would have the same bytes summed once for each of them: no section reaches into
            // the next, so no byte is summed twice.
            let end = end.filter(|end| (at.saturating_add(SECTION_HEADER)..=next.min(file.len())).contains(end));
            let Some(end) = end else {
                let name = escape(&String::from_utf8_lossy(kind));
                return Err(wrong(format!("section {name} has {size} bytes, and the next comes at byte {next}"))
                    .with_hint("the segment file is cut off or damaged"));
            };
            let body = at.saturating_add(SECTION_HEADER);
            match kind {
                b"volume" | b"disk" | b"data" => match self.read_volume(file, body, end, kind == b"data") {
                    Err(e) if e.kind() == ErrorKind::Io => self.unreadable_volume = Some(e),
                    read => read?,
                },
                b"sectors" => sectors_end = Some(end),
                b"table" => {
                    // In SMART's files the chunks lie behind the entries, in the table's own section.
                    let data_end = sectors_end.take().unwrap_or(end);
                    match self.read_table(file, start, body, end, data_end) {
                        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io) => {
                            damaged = Some((e, data_end));
                        }
                        read => read?,
                    }
                }
                b"table2" => {
                    if let Some((_, data_end)) = damaged.take() {
                        self.read_table(file, start, body, end, data_end)?;
                        self.second_tables = self.second_tables.saturating_add(1);
                    }
                }
                b"hash" | b"digest" => {
                    if let Err(e) = self.read_hashes(file, start, body, kind) {
                        self.unreadable_hash = Some(e);
                    }
                }
                b"error2" => self.unread.extend(errors::read(file, body, end, errors::VERSION_1)?),
                _ => (),
            }
            at = next;
        }
    }

    fn read_volume(&mut self, file: &Arc<dyn ReadAt>, at: u64, end: u64, copy: bool) -> Result<()> {
        let volume: Volume = fields::read(file, at, "ewf.volume", "the volume section")?;
        // EnCase's volume sections and SMART's are of different lengths; both end with their checksum.
        let sum_at = end.checked_sub(CHECKSUM).filter(|sum_at| (90..=1048).contains(&sum_at.saturating_sub(at)));
        let Some(sum_at) = sum_at else {
            return Err(Error::corrupt("ewf.volume", "the volume section is of a length that is not known").at(at));
        };
        check_adler32(file, at, sum_at, "ewf.volume", "the volume section")?;
        let bytes_per_sector = volume.bytes_per_sector.get();
        let chunk_size = u64::from(volume.sectors_per_chunk.get()).saturating_mul(u64::from(bytes_per_sector));
        if !bytes_per_sector.is_power_of_two() || !(512..=4096).contains(&bytes_per_sector) || chunk_size == 0 {
            return Err(Error::corrupt(
                "ewf.volume",
                format!(
                    "found {} of {bytes_per_sector} bytes a chunk",
                    counted(volume.sectors_per_chunk.get(), "sector")
                ),
            )
            .at(at));
        }
        if chunk_size > CONTAINER_UNIT_MAX {
            let found = format!("found chunks of {chunk_size} bytes; {CONTAINER_UNIT_MAX} are allowed");
            return Err(Error::limit("ewf.volume", found).at(at));
        }
        let size = volume.sector_count.get().checked_mul(u64::from(bytes_per_sector));
        let size = size
            .ok_or_else(|| Error::corrupt("ewf.volume", "the number of sectors overflows").at(at.saturating_add(16)))?;
        let geometry = Geometry { chunk_size, bytes_per_sector, size };
        // Each further segment file has a copy of the first one's volume section; some tools leave it empty.
        match self.volume {
            None => self.volume = Some(geometry),
            Some(first) if first == geometry || copy && volume.sector_count.get() == 0 => (),
            Some(_) => {
                let what = "the segment files are of different images: their volume sections differ";
                return Err(Error::corrupt("ewf.volume", what).at(at));
            }
        }
        Ok(())
    }

    /// The section *hash* has an MD5, 16 bytes that nothing is known of, and their Adler-32; *digest* an MD5, a SHA-1, 40
    /// bytes of padding, and their Adler-32.
    fn read_hashes(&mut self, file: &Arc<dyn ReadAt>, start: u64, at: u64, kind: &[u8]) -> Result<()> {
        let is_digest = kind == b"digest";
        let sum_at = at.saturating_add(if is_digest { 76 } else { 32 });
        check_adler32(file, at, sum_at, "ewf.hash", "the section")?;
        let both: [u8; 36] = fields::read(file, at, "ewf.hash", "the section")?;
        let (md5, sha1) = both.split_at(16);
        let place = start.saturating_add(at);
        if self.stored.len() >= HASHES_MAX {
            return Ok(());
        }
        self.stored.push(Stored { algorithm: "md5", hash: md5.to_vec(), at: place });
        if is_digest {
            let at = place.saturating_add(16);
            self.stored.push(Stored { algorithm: "sha1", hash: sha1.to_vec(), at });
        }
        Ok(())
    }

    fn read_table(&mut self, file: &Arc<dyn ReadAt>, start: u64, at: u64, end: u64, data_end: u64) -> Result<()> {
        let header: TableHeader = fields::read(file, at, "ewf.table", "a table header")?;
        if header.as_bytes().get(..20).map(adler32) != Some(header.checksum.get()) {
            return Err(Error::corrupt("ewf.table", "the table header's Adler-32 is wrong").at(at));
        }
        let entries = u64::from(header.entry_count.get());
        let entries_at = at.saturating_add(TABLE_HEADER);
        let entries_end = entries_at.saturating_add(entries.saturating_mul(4));
        if entries_end > end {
            let found = format!("found {}; the table section ends at byte {end}", counted(entries, "entry"));
            return Err(Error::corrupt("ewf.table", found).at(at));
        }
        // SMART's tables have no checksum of their entries; EnCase's end with it.
        if entries_end.checked_add(CHECKSUM) == Some(end) {
            check_adler32(file, entries_at, entries_end, "ewf.table", "the table's entries")?;
        }
        let base = start.checked_add(header.base_offset.get());
        let base =
            base.ok_or_else(|| Error::corrupt("ewf.table", "the base offset overflows").at(at.saturating_add(8)))?;
        let first_chunk = self.tables.last().map_or(0, |table| table.first_chunk.saturating_add(table.entries));
        if entries > 0 {
            let (entries_at, data_end) = (start.saturating_add(entries_at), start.saturating_add(data_end));
            self.tables.push(Table { first_chunk, entries, entries_at, base, data_end });
        }
        Ok(())
    }
}

/// Compares the Adler-32 of the bytes from `at` to `end` with the one behind them.
struct Chunks {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    volume: Geometry,
    tables: Vec<Table>,
}

impl Chunks {
    /// The chunk's first byte and its end in the file, and whether it is compressed.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a chunk is of the disk, below 2^55, and its table starts at it or before"
    )]
    fn find(&self, chunk: u64) -> Result<(u64, u64, bool)> {
        let n = self.tables.partition_point(|table| table.first_chunk <= chunk).saturating_sub(1);
        let wrong = |what: String| Error::corrupt("ewf.table", format!("chunk {chunk}: {what}"));
        let table = self.tables.get(n).ok_or_else(|| wrong("no table places it".into()))?;
        let index = chunk - table.first_chunk;
        let at = table.entries_at + index * 4;
        let entry = u32::from_le_bytes(self.pages.entry(at)?);
        let place = |entry: u32| table.base.saturating_add(u64::from(entry & !COMPRESSED));
        let start = place(entry);
        let end = if index + 1 < table.entries {
            place(u32::from_le_bytes(self.pages.entry(at + 4)?))
        } else {
            table.data_end
        };
        let len = end.checked_sub(start).filter(|len| (1..=self.volume.chunk_size * 2).contains(len));
        let Some(_) = len.filter(|_| end <= self.file.len()) else {
            return Err(wrong(format!("it is said to lie from byte {start} to byte {end} of the segment files")).at(at));
        };
        Ok((start, end, entry & COMPRESSED != 0))
    }
}

impl Layout for Chunks {
    fn size(&self) -> u64 {
        self.volume.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    /// Also a chunk that is stored as it is goes through [`Layout::unpack`], where its checksum is compared.
    #[expect(clippy::arithmetic_side_effects, reason = "a chunk has at least 512 bytes")]
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let (unit, skip) = (offset / self.volume.chunk_size, offset % self.volume.chunk_size);
        Ok(Run { len: self.volume.chunk_size - skip, place: Place::Packed { unit, skip } })
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a chunk is of the disk, and `find` gives an end behind the start"
    )]
    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        let (start, end, compressed) = self.find(unit)?;
        // The last chunk holds only what the disk has left.
        let wanted = self.volume.chunk_size.min(self.volume.size.saturating_sub(unit * self.volume.chunk_size));
        let mut bytes = vec![0; to_usize(end - start)?];
        fields::fill(&self.file, &mut bytes, start, "container.truncated", "a chunk")?;
        if compressed {
            return unpack(Packing::Zlib, &bytes, self.volume.chunk_size).map_err(|e| e.at(start));
        }
        let stored = usize::try_from(wanted).ok().filter(|len| *len < bytes.len()).and_then(|_| {
            // The checksum comes after the chunk's bytes: all of them for a chunk that was padded to its full size.
            [self.volume.chunk_size, wanted].into_iter().find_map(|len| {
                let len = usize::try_from(len).ok()?;
                let sum = bytes.get(len..)?.first_chunk::<4>()?;
                (u32::from_le_bytes(*sum) == adler32(bytes.get(..len)?)).then_some(len)
            })
        });
        let Some(len) = stored else {
            return Err(Error::corrupt("ewf.chunk", format!("the Adler-32 of chunk {unit} is wrong")).at(start));
        };
        bytes.truncate(len);
        Ok(bytes)
    }

    fn unit_size(&self) -> u64 {
        self.volume.chunk_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_files_are_called_as_libewf_calls_them() {
        let all: Vec<String> = segment_extensions('E').collect();
        // Counted from 2 on.
        for (number, wanted) in [(2, "E02"), (99, "E99"), (100, "EAA"), (775, "EZZ"), (776, "FAA"), (14971, "ZZZ")] {
            assert_eq!(all[number - 2], wanted, "segment file {number}");
        }
        assert_eq!(all.len(), 14970);
        let of_2: Vec<String> = segment_extensions_2().collect();
        assert_eq!(
            [0, 97, 98, 773, 774, 2125].map(|n| of_2[n].as_str()),
            ["Ex02", "Ex99", "ExAA", "ExZZ", "EyAA", "EzZZ"]
        );
        let smart: Vec<String> = segment_extensions('s').skip(97).take(2).collect();
        assert_eq!(smart, ["s99", "saa"]);
    }

    #[test]
    fn a_set_ends_where_a_name_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.E01", "a.E02", "a.E03", "a.E05", "b.raw", "c01"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let of = |name: &str| segment_files(&dir.path().join(name));
        assert_eq!(of("a.E01"), [dir.path().join("a.E02"), dir.path().join("a.E03")]);
        assert!(of("a.E02").is_empty() && of("b.raw").is_empty() && of("c01").is_empty());
    }
}
