//! What LVM2 writes on each physical volume: the label, and the areas that hold the volume group's metadata (LVM2's
//! `lib/label/label.h`, `lib/format_text/layout.h`). All numbers are little-endian.
//!
//! | label: in one of the sectors 0 to 3, usually 1 | | metadata area: its first 512 bytes | |
//! |---|---|---|---|
//! | 0..8 | `LABELONE` | 0..4 | checksum of 4..512 |
//! | 8..16 | its own sector | 4..20 | ` LVM2 x[5A%r0N*>` |
//! | 16..20 | checksum of 20..512 | 20..24 | version, 1 |
//! | 20..24 | where in the sector the header lies | 24..32, 32..40 | its own place, and its size |
//! | 24..32 | `LVM2 001` | 40..512 | places of texts, 24 bytes each: the first is the committed one |
//!
//! The header is the volume's UUID (32 characters), its size in bytes, and lists of places that a pair of zeroes ends:
//! data areas, metadata areas, and behind the version and the flags of an extension the boot loader's areas.
//!
//! A text's place counts from the area's start; what does not fit behind it goes on at byte 512 of the area: the rest of
//! the area is a ring, in which each text begins at a sector and older ones stay until they are written over.

use std::collections::BTreeMap;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::metadata::{Metadata, Summary};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::ReadAt;
use crate::limits::{LVM_RING_MAX, LVM_TEXT_SIZE_MAX};

const SECTOR: usize = 512;
const LABEL_MAGIC: &[u8; 8] = b"LABELONE";
const LABEL_TYPE: &[u8; 8] = b"LVM2 001";
const AREA_MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
/// The area holds metadata that LVM has been told not to use (`RAW_LOCN_IGNORED`).
const IGNORED: u32 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLabel {
    id: [u8; 8],
    sector: U64,
    crc: U32,
    offset: U32,
    kind: [u8; 8],
    rest: [u8; 480],
}
const _: () = assert!(size_of::<RawLabel>() == SECTOR);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawArea {
    crc: U32,
    magic: [u8; 16],
    version: U32,
    start: U64,
    size: U64,
    /// Where the committed text is. What follows is what a change in progress has not committed.
    offset: U64,
    text_size: U64,
    text_crc: U32,
    flags: U32,
    rest: [u8; 448],
}
const _: () = assert!(size_of::<RawArea>() == SECTOR);

/// LVM's checksum (`lib/misc/crc.c`): CRC-32 that starts with a number of its own, and is not inverted at the end.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

/// A part of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Region {
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes; 0 where it goes on to the device's end.
    pub size: u64,
}

/// The label of a physical volume, and the newest metadata that it holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Label {
    /// The sector that it lies in.
    pub sector: u64,
    /// The physical volume's UUID, as LVM prints it.
    pub uuid: String,
    /// The size in bytes that the device had when it became a physical volume, or was last resized.
    pub device_size: u64,
    /// Where the extents lie.
    pub data_areas: Vec<Region>,
    /// Where the metadata lies.
    pub metadata_areas: Vec<Region>,
    /// What the user should know, one line each: damage that was passed over.
    pub notes: Vec<String>,
    /// The newest metadata of all areas; `None` where none holds any in use.
    pub(super) metadata: Option<Metadata>,
    /// Why there is no metadata, where a copy is damaged.
    pub(super) damage: Option<Error>,
}

/// A version of the metadata in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadataVersion {
    /// The volume group's name then.
    pub name: String,
    /// Its number: each change has the next.
    pub seqno: u64,
    /// When it was written, in seconds since 1970.
    pub time: u64,
    /// What LVM was asked to do. This is the image's text: escape it before it is printed.
    pub description: String,
}

impl Label {
    /// The label of `disk`, or `None` where it is no physical volume.
    ///
    /// A label one of whose two magics was wiped is found by its checksum. Damaged copies of the metadata are noted.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the label is damaged, or metadata with a right checksum breaks a rule;
    /// [`ErrorKind::LimitExceeded`] where it is too large; [`ErrorKind::Io`] where the disk cannot be read.
    pub fn probe(disk: &dyn ReadAt) -> Result<Option<Self>> {
        let mut damaged = None;
        for sector in 0..4u64 {
            let offset = sector * 512;
            let mut bytes = [0; SECTOR];
            if disk.len() < offset + 512 {
                break;
            }
            disk.read_exact_at(&mut bytes, offset)?;
            let (is_named, is_ours) = (bytes.starts_with(LABEL_MAGIC), bytes[24..32] == *LABEL_TYPE);
            if !is_named && !is_ours {
                continue;
            }
            // Right but for a magic that `wipefs` took: put back what belongs there, and the checksum proves it.
            bytes[..8].copy_from_slice(LABEL_MAGIC);
            bytes[24..32].copy_from_slice(LABEL_TYPE);
            match parse_label(&bytes, sector) {
                Ok(mut label) => {
                    if !(is_named && is_ours) {
                        let note =
                            format!("lvm: the magic of the label in sector {sector} is wiped; its checksum is right");
                        label.notes.push(note);
                    }
                    label.read_metadata(disk)?;
                    return Ok(Some(label));
                }
                Err(e) if is_named && is_ours => damaged = damaged.or(Some(e.at(offset))),
                Err(_) => (),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Takes the newest metadata of all areas.
    fn read_metadata(&mut self, disk: &dyn ReadAt) -> Result<()> {
        let mut last: Option<Vec<u8>> = None;
        for (n, region) in self.metadata_areas.clone().into_iter().enumerate() {
            let text = match Area::read(disk, region).and_then(|area| area.committed(disk)) {
                Ok(text) => text,
                Err(e) if e.kind() == ErrorKind::LimitExceeded => return Err(e),
                Err(e) => {
                    self.notes.push(format!("lvm: metadata area {} of {} is passed over: {e}", n + 1, self.uuid));
                    self.damage = self.damage.take().or(Some(e));
                    continue;
                }
            };
            // The second area of a volume usually holds the same text.
            let Some(text) = text.filter(|text| last.as_ref() != Some(text)) else { continue };
            let metadata = Metadata::parse(&text)?;
            if self.metadata.as_ref().is_none_or(|newest| newest.seqno < metadata.seqno) {
                self.metadata = Some(metadata);
            }
            last = Some(text);
        }
        Ok(())
    }

    /// The volume group that the newest metadata is of: its name and its UUID.
    pub fn group(&self) -> Option<(&str, &str)> {
        self.metadata.as_ref().map(|m| (m.name.as_str(), m.uuid.as_str()))
    }

    /// The number of the newest metadata.
    pub fn seqno(&self) -> Option<u64> {
        self.metadata.as_ref().map(|m| m.seqno)
    }

    /// All versions of the metadata that are whole in the rings, that in use, too: the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where `disk` cannot be read; [`ErrorKind::LimitExceeded`] where a ring is too large.
    pub fn versions(&self, disk: &dyn ReadAt) -> Result<Vec<MetadataVersion>> {
        let mut found = BTreeMap::new();
        for region in &self.metadata_areas {
            let Ok(area) = Area::read(disk, *region) else { continue };
            for version in area.versions(disk)? {
                found.insert((version.seqno, version.time), version);
            }
        }
        Ok(found.into_values().rev().collect())
    }
}

/// The pairs of offset and size up to the pair of zeroes, and what is behind it.
fn regions(mut bytes: &[u8]) -> Option<(Vec<Region>, &[u8])> {
    let mut found = Vec::new();
    loop {
        let (offset, rest) = bytes.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let region = Region { offset: u64::from_le_bytes(*offset), size: u64::from_le_bytes(*size) };
        bytes = rest;
        if region.offset == 0 {
            return Some((found, bytes));
        }
        found.push(region);
    }
}

fn parse_label(bytes: &[u8; SECTOR], sector: u64) -> Result<Label> {
    let fault = |rule: &'static str, message: String| Error::corrupt(rule, format!("LVM's label {message}"));
    let Ok(raw) = RawLabel::read_from_bytes(bytes) else { return Err(fault("lvm.label", "is cut off".into())) };
    let (stored, computed) = (raw.crc.get(), checksum(&bytes[20..]));
    if stored != computed {
        return Err(fault(
            "lvm.label.crc",
            format!("has checksum {stored:#010x}, but its bytes give {computed:#010x}"),
        ));
    }
    if raw.sector.get() != sector {
        let message = format!("is in sector {sector}, but says that it is in sector {}", raw.sector.get());
        return Err(fault("lvm.label.sector", message));
    }
    let offset = raw.offset.get();
    let header = usize::try_from(offset).ok().filter(|at| *at >= 32).and_then(|at| bytes.get(at..));
    let lists = header.and_then(|h| {
        let (uuid, rest) = h.split_first_chunk::<32>()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (data_areas, rest) = regions(rest)?;
        let (metadata_areas, _) = regions(rest)?;
        Some((uuid, u64::from_le_bytes(*size), data_areas, metadata_areas))
    });
    let Some((uuid, device_size, data_areas, metadata_areas)) = lists else {
        return Err(fault(
            "lvm.label.header",
            format!("has its header at byte {offset}, and it does not end in the sector"),
        ));
    };
    let uuid = dashed(uuid).ok_or_else(|| {
        fault("lvm.label.uuid", format!("has the UUID \"{}\"", escape(&String::from_utf8_lossy(uuid))))
    })?;
    Ok(Label { sector, uuid, device_size, data_areas, metadata_areas, notes: Vec::new(), metadata: None, damage: None })
}

/// The UUID as LVM prints it: `aaaaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaaaa`.
fn dashed(uuid: &[u8; 32]) -> Option<String> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#');
    let text = std::str::from_utf8(uuid).ok().filter(|_| uuid.iter().all(allowed))?;
    let mut parts = Vec::new();
    let mut rest = text;
    for len in [6, 4, 4, 4, 4, 4, 6] {
        let (part, behind) = rest.split_at(len);
        parts.push(part);
        rest = behind;
    }
    Some(parts.join("-"))
}

/// A metadata area.
struct Area {
    region: Region,
    raw: RawArea,
}

impl Area {
    fn read(disk: &dyn ReadAt, region: Region) -> Result<Self> {
        let fault = |rule: &'static str, message: String| Error::corrupt(rule, message).at(region.offset);
        let end = region.offset.checked_add(region.size);
        if end.is_none_or(|end| end > disk.len()) || region.size < 1024 {
            let message = format!("it has {} bytes, and the device {} in all", region.size, disk.len());
            return Err(fault("lvm.area.place", message));
        }
        let mut bytes = [0; SECTOR];
        disk.read_exact_at(&mut bytes, region.offset)?;
        let Ok(raw) = RawArea::read_from_bytes(&bytes) else {
            return Err(fault("lvm.area", "the header is cut off".into()));
        };
        let (stored, computed) = (raw.crc.get(), checksum(&bytes[4..]));
        if stored != computed {
            let message = format!("the header has checksum {stored:#010x}, but its bytes give {computed:#010x}");
            return Err(fault("lvm.area.crc", message));
        }
        if raw.magic != *AREA_MAGIC {
            return Err(fault("lvm.area.magic", "the header has not the magic of LVM2's text format".into()));
        }
        if raw.version.get() != 1 {
            return Err(fault("lvm.area.version", format!("the header has version {}; 1 is known", raw.version.get())));
        }
        let (start, size) = (raw.start.get(), raw.size.get());
        if (start, size) != (region.offset, region.size) {
            let message = format!(
                "the header says {size} bytes at byte {start}, the label {} bytes at byte {}",
                region.size, region.offset
            );
            return Err(fault("lvm.area.start", message));
        }
        Ok(Self { region, raw })
    }

    /// The committed text; `None` where the area is empty or not in use.
    fn committed(&self, disk: &dyn ReadAt) -> Result<Option<Vec<u8>>> {
        let (offset, size) = (self.raw.offset.get(), self.raw.text_size.get());
        if offset == 0 || self.raw.flags.get() & IGNORED != 0 {
            return Ok(None);
        }
        let fault = |rule: &'static str, message: String| Error::corrupt(rule, message).at(self.region.offset);
        let area = self.region.size;
        if offset < 512 || offset >= area || size == 0 || size > area - 512 {
            let message = format!("the text has {size} bytes at byte {offset} of an area of {area} bytes");
            return Err(fault("lvm.text.place", message));
        }
        if size > LVM_TEXT_SIZE_MAX {
            let message = format!("the metadata has {size} bytes; at most {LVM_TEXT_SIZE_MAX} are read");
            return Err(Error::limit("lvm.text.size", message).at(self.region.offset));
        }
        let Ok(len) = usize::try_from(size) else {
            return Err(Error::limit("lvm.text.size", format!("the metadata has {size} bytes")));
        };
        let mut text = vec![0; len];
        let first = usize::try_from(area - offset).map_or(len, |first| first.min(len));
        let (head, tail) = text.split_at_mut(first);
        disk.read_exact_at(head, self.region.offset + offset)?;
        disk.read_exact_at(tail, self.region.offset + 512)?;
        let (stored, computed) = (self.raw.text_crc.get(), checksum(&text));
        if stored != computed {
            let message = format!("the text has checksum {stored:#010x}, but its bytes give {computed:#010x}");
            return Err(fault("lvm.text.crc", message));
        }
        Ok(Some(text))
    }

    /// All texts in the ring that are whole. Each begins at a sector, and ends with a NUL.
    fn versions(&self, disk: &dyn ReadAt) -> Result<Vec<MetadataVersion>> {
        let size = self.region.size - 512;
        let Some(len) = usize::try_from(size).ok().filter(|_| size <= LVM_RING_MAX) else {
            let message = format!("the ring has {size} bytes; at most {LVM_RING_MAX} are looked through");
            return Err(Error::limit("lvm.ring.size", message).at(self.region.offset));
        };
        let mut ring = vec![0; len];
        disk.read_exact_at(&mut ring, self.region.offset + 512)?;
        let mut found = Vec::new();
        // Texts of a sound ring do not overlap. A ring full of beginnings would be parsed once for each of them.
        let mut budget = len.saturating_mul(2);
        for start in (0..len).step_by(SECTOR) {
            if !begins_a_text(&ring[start..]) {
                continue;
            }
            let (tail, head) = (&ring[start..], &ring[..start]);
            let text: Vec<u8> = tail.iter().chain(head).copied().take_while(|b| *b != 0).collect();
            let Some(left) = budget.checked_sub(text.len()) else { break };
            budget = left;
            if let Ok(Summary { name, seqno, time, description }) = Summary::parse(&text) {
                found.push(MetadataVersion { name, seqno, time, description });
            }
        }
        Ok(found)
    }
}

/// Whether bytes begin as a volume group's text does: a name, a brace, and the UUID.
fn begins_a_text(bytes: &[u8]) -> bool {
    let name = bytes.iter().take(128).take_while(|b| b.is_ascii_alphanumeric() || b"_+.-".contains(b)).count();
    name > 0 && bytes[name..].starts_with(b" {\nid = \"")
}
