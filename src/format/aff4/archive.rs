//! The ZIP archive of an AFF4 volume (PKWARE's APPNOTE 6.3.10, 4.3; all numbers are little-endian), as far as AFF4 has it:
//! members that are stored as they are, or deflated where they are small.
//!
//! | end record | | its 64-bit form | | directory entry | | local header | |
//! |---|---|---|---|---|---|---|---|
//! | 0..4 | `PK\5\6` | 0..4 | `PK\6\6` | 0..4 | `PK\1\2` | 0..4 | `PK\3\4` |
//! | 10..12 | entries | 32..40 | entries | 8..10 | flags | 26..28 | length of the name |
//! | 12..16 | directory's size | 40..48 | size | 10..12 | method | 28..30 | length of the extra field |
//! | 16..20 | directory's place | 48..56 | place | 16..28 | CRC-32, packed size, size | 30.. | name, extra field, data |
//! | 20..22 | length of the comment | | | 28..34 | lengths of name, extra field, comment | | |
//! | | | | | 42..46 | place of the local header | | |
//!
//! A number that 32 bits do not hold is all ones, and then in the extra field 1, in the order size, packed size, place. The
//! 64-bit end record is where the locator (`PK\6\7`, 20 bytes, place in 8..16) in front of the end record has it.
//!
//! The directory is walked, and never kept: an image of some terabytes has a million members. That is why neither zip nor
//! rc-zip reads it: both keep the whole directory, and a reader with a position of its own. The CRC-32 of what is read
//! whole is compared; that of a bevy, of which a read wants a chunk, is not.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};
use crate::format::fields;
use crate::format::unpack::{Packing, unpack};
use crate::io::ReadAt;
use crate::limits::AFF4_MEMBERS_MAX;
use crate::num::{at_most, to_u64, to_usize};

const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR: [u8; 4] = *b"PK\x06\x07";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
/// The first bytes of a member, and so of most archives.
pub(super) const LOCAL: [u8; 4] = *b"PK\x03\x04";
/// A directory entry before its name.
const ENTRY_LEN: usize = 46;
/// The longest end of an archive: the end record and its comment.
const END_MAX: u64 = 22 + 65535;
const ENCRYPTED: u16 = 1;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
/// The extra field with numbers of 64 bits.
const WIDE: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct End {
    signature: [u8; 4],
    disks: [U16; 2],
    entries_here: U16,
    entries: U16,
    size: U32,
    offset: U32,
    comment_len: U16,
}
const _: () = assert!(size_of::<End>() == 22);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct End64 {
    signature: [u8; 4],
    record_size: U64,
    versions: [U16; 2],
    disks: [U32; 2],
    entries_here: U64,
    entries: U64,
    size: U64,
    offset: U64,
}
const _: () = assert!(size_of::<End64>() == 56);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Locator {
    signature: [u8; 4],
    disk: U32,
    offset: U64,
    disks: U32,
}
const _: () = assert!(size_of::<Locator>() == 20);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    signature: [u8; 4],
    versions: [U16; 2],
    flags: U16,
    method: U16,
    time: [U16; 2],
    crc32: U32,
    packed: U32,
    size: U32,
    name_len: U16,
    extra_len: U16,
    comment_len: U16,
    disk: U16,
    attributes: [u8; 6],
    offset: U32,
}
const _: () = assert!(size_of::<Entry>() == ENTRY_LEN);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Local {
    signature: [u8; 4],
    ignored: [u8; 22],
    name_len: U16,
    extra_len: U16,
}
const _: () = assert!(size_of::<Local>() == 30);

/// A member of the archive, as the directory has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Where its local header lies.
    pub header_at: u64,
    /// How many bytes it takes in the archive.
    pub packed: u64,
    /// How many it has.
    pub size: u64,
    crc32: u32,
    method: u16,
    flags: u16,
}

impl Member {
    /// Whether its bytes lie in the archive as they are.
    pub(super) fn is_stored(&self) -> bool {
        self.method == STORED && self.flags & ENCRYPTED == 0 && self.packed == self.size
    }
}

/// An archive whose end was found.
pub(super) struct Archive {
    pub file: Arc<dyn ReadAt>,
    /// What stands behind the end record.
    pub comment: Vec<u8>,
    directory: std::ops::Range<u64>,
    entries: u64,
}

fn wrong(what: impl Into<String>) -> Error {
    Error::corrupt("aff4.archive", what)
}

impl Archive {
    /// Finds the directory from the end of the file.
    pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Self> {
        let tail = file.len().min(END_MAX);
        let tail_at = file.len().saturating_sub(tail);
        let mut bytes = vec![0; to_usize(tail)?];
        fields::fill(&file, &mut bytes, tail_at, "aff4.archive", "the archive's end")?;
        // The record whose comment ends with the file; another's signature may be in a comment.
        let ends = |at: &usize| {
            let (end, rest) = End::ref_from_prefix(bytes.get(*at..)?).ok()?;
            (end.signature == END && usize::from(end.comment_len.get()) == rest.len()).then_some((end, rest))
        };
        let found = (0..bytes.len()).rev().find_map(|at| ends(&at).map(|found| (at, found)));
        let Some((at, (end, comment))) = found else {
            let cut = wrong("the ZIP archive has no end record");
            return Err(cut.at(tail_at).with_hint("the image file is cut off or damaged: fetch it again"));
        };
        let end_at = tail_at.saturating_add(to_u64(at));
        let (mut entries, mut offset) = (u64::from(end.entries.get()), u64::from(end.offset.get()));
        let (mut size, mut before) = (u64::from(end.size.get()), end_at);
        let locator = at.checked_sub(20).and_then(|at| Locator::ref_from_prefix(bytes.get(at..)?).ok());
        if let Some((locator, _)) = locator.filter(|(locator, _)| locator.signature == LOCATOR) {
            before = locator.offset.get();
            let wide: End64 = fields::read(&file, before, "aff4.archive", "the archive's 64-bit end record")?;
            if wide.signature != END_64 {
                return Err(wrong("there is no 64-bit end record where the locator has it").at(before));
            }
            (entries, size, offset) = (wide.entries.get(), wide.size.get(), wide.offset.get());
        }
        if entries > AFF4_MEMBERS_MAX {
            let message = format!("the archive has {entries} members; {AFF4_MEMBERS_MAX} are allowed");
            return Err(Error::limit("aff4.archive", message).at(end_at));
        }
        let directory_end = offset.checked_add(size).filter(|directory_end| *directory_end <= before);
        let directory_end = directory_end.ok_or_else(|| {
            let message =
                format!("the directory is said to have {size} bytes from byte {offset} on, before byte {before}");
            wrong(message).at(end_at)
        })?;
        let comment = comment.to_vec();
        Ok(Self { file, comment, directory: offset..directory_end, entries })
    }

    /// Hands over all members, with their names as they stand in the directory.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], Member) -> Result<()>) -> Result<()> {
        let mut reader = Reader { file: &*self.file, end: self.directory.end, start: 0, buffer: Vec::new() };
        let mut at = self.directory.start;
        for _ in 0..self.entries {
            let bytes = reader.get(at, ENTRY_LEN)?;
            let entry = Entry::read_from_bytes(bytes).map_err(|_| wrong("a directory entry is cut off").at(at))?;
            if entry.signature != ENTRY {
                return Err(wrong("there is no directory entry where one is wanted").at(at));
            }
            let lens = [entry.name_len, entry.extra_len, entry.comment_len].map(|len| usize::from(len.get()));
            let [name_len, extra_len, _] = lens;
            let len = lens.into_iter().fold(ENTRY_LEN, usize::saturating_add);
            let bytes = reader.get(at, len)?;
            let (_, rest) = bytes.split_at_checked(ENTRY_LEN).unwrap_or_default();
            let (name, rest) = rest.split_at_checked(name_len).unwrap_or_default();
            let extra = rest.get(..extra_len).unwrap_or_default();
            let member =
                member(&entry, extra).ok_or_else(|| wrong("a directory entry lacks its 64-bit numbers").at(at))?;
            take(name, member)?;
            at = at.saturating_add(to_u64(len));
        }
        Ok(())
    }

    /// Where the bytes of `member` begin.
    pub(super) fn data_at(&self, member: &Member) -> Result<u64> {
        let local: Local = fields::read(&self.file, member.header_at, "aff4.archive", "a member's header")?;
        if local.signature != LOCAL {
            return Err(wrong("there is no member where the directory has one").at(member.header_at));
        }
        let len =
            30u64.saturating_add(u64::from(local.name_len.get())).saturating_add(u64::from(local.extra_len.get()));
        let at = member.header_at.saturating_add(len);
        if at.checked_add(member.packed).is_none_or(|end| end > self.file.len()) {
            let message = format!("a member has {} bytes; the file ends at byte {}", member.packed, self.file.len());
            return Err(wrong(message).at(at));
        }
        Ok(at)
    }

    /// All bytes of `member`, which may have `most`; `what` names it.
    pub(super) fn read(&self, member: &Member, most: u64, what: &str) -> Result<Vec<u8>> {
        let at = self.data_at(member)?;
        let (packed, size) = (member.packed, member.size);
        if packed > most || size > most {
            let message = format!("{what} has {} bytes; {most} are allowed", packed.max(size));
            return Err(Error::limit("aff4.archive", message).at(at));
        }
        if member.flags & ENCRYPTED != 0 || !matches!(member.method, STORED | DEFLATED) {
            let message = format!("{what} is packed by method {}, or encrypted", member.method);
            return Err(Error::unsupported("aff4.archive", message).at(at));
        }
        let mut bytes = vec![0; to_usize(packed)?];
        fields::fill(&self.file, &mut bytes, at, "container.truncated", what)?;
        if member.method == DEFLATED {
            bytes = unpack(Packing::Deflate, &bytes, size).map_err(|e| e.at(at))?;
        }
        if to_u64(bytes.len()) != size || crc32fast::hash(&bytes) != member.crc32 {
            return Err(wrong(format!("the CRC-32 of {what} is wrong")).at(at));
        }
        Ok(bytes)
    }
}

/// The member with its numbers of 64 bits, where it has some.
fn member(entry: &Entry, mut extra: &[u8]) -> Option<Member> {
    let mut wide: &[u8] = &[];
    while let Some(([a, b, c, d], rest)) = extra.split_first_chunk::<4>() {
        let len = usize::from(u16::from_le_bytes([*c, *d]));
        let (field, behind) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        if u16::from_le_bytes([*a, *b]) == WIDE {
            wide = field;
        }
        extra = behind;
    }
    let mut number = |narrow: U32| {
        if narrow.get() != u32::MAX {
            return Some(u64::from(narrow.get()));
        }
        let (number, rest) = wide.split_first_chunk::<8>()?;
        wide = rest;
        Some(u64::from_le_bytes(*number))
    };
    let (size, packed, header_at) = (number(entry.size)?, number(entry.packed)?, number(entry.offset)?);
    let (crc32, method, flags) = (entry.crc32.get(), entry.method.get(), entry.flags.get());
    Some(Member { header_at, packed, size, crc32, method, flags })
}

/// Reads the directory in large pieces.
struct Reader<'a> {
    file: &'a dyn ReadAt,
    end: u64,
    start: u64,
    buffer: Vec<u8>,
}

/// More than the longest entry has: three fields of 65535 bytes.
const PIECE: usize = 256 << 10;

impl Reader<'_> {
    fn get(&mut self, at: u64, len: usize) -> Result<&[u8]> {
        let held = |start: u64, buffer: &[u8]| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            let to = from.checked_add(len)?;
            (to <= buffer.len()).then_some(from..to)
        };
        if held(self.start, &self.buffer).is_none() {
            let rest = self.end.saturating_sub(at);
            if rest < to_u64(len) {
                return Err(wrong("the directory ends within an entry").at(at));
            }
            self.buffer.resize(at_most(rest, PIECE), 0);
            self.start = at;
            fields::fill(self.file, &mut self.buffer, at, "aff4.archive", "the archive's directory")?;
        }
        let range = held(self.start, &self.buffer).ok_or_else(|| wrong("a directory entry is too long").at(at))?;
        Ok(self.buffer.get(range).unwrap_or_default())
    }
}
