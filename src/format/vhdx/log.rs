//! VHDX's log (MS-VHDX 2.3): changes of the file's structures that were on their way when it was left, played back in memory.
//!
//! | entry header, 64 bytes | | descriptor, 32 bytes | | data sector, 4096 bytes | |
//! |---|---|---|---|---|---|
//! | 0..4 | `loge` | 0..4 | `desc`, or `zero` | 0..4 | `data` |
//! | 4..8 | CRC-32C of the entry, this field as 0 | 4..8 | last 4 bytes of the sector | 4..8 | sequence number, high |
//! | 8..12 | entry's length | 8..16 | its first 8 bytes, or how many are zero | 8..4092 | what lies between |
//! | 12..16 | place of the oldest entry in the log | 16..24 | place in the file | 4092..4096 | sequence number, low |
//! | 16..24 | sequence number | 24..32 | sequence number | | |
//! | 24..28 | number of descriptors | | | | |
//! | 32..48 | GUID of the log | | | | |
//! | 48..56, 56..64 | bytes that the file has at least, and is to have | | | | |
//!
//! The log is a ring of entries of whole sectors: descriptors, padded to one, and a data sector for each `desc`. The newest
//! entry that is whole says where the oldest is that still counts; between the two each has the next number.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum;
use crate::error::{Error, Result, counted};
use crate::format::fields;
use crate::io::{Extent, ReadAt, check_range};
use crate::limits::{CONTAINER_SIZE_MAX, VHDX_LOG_CHANGES_MAX, VHDX_LOG_MAX};
use crate::num::{at_most, from_u32, to_u64, to_usize};

const SECTOR: u64 = 4 << 10;
/// How many of the newest entries may lead to no whole sequence.
const HEADS_MAX: usize = 16;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct EntryHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_length: U32,
    tail: U32,
    sequence_number: U64,
    descriptor_count: U32,
    reserved: U32,
    log_guid: [u8; 16],
    flushed_file_offset: U64,
    last_file_offset: U64,
}
const _: () = assert!(size_of::<EntryHeader>() == 64);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Descriptor {
    signature: [u8; 4],
    trailing: [u8; 4],
    /// The first bytes of a sector, or how many bytes are zero.
    leading: [u8; 8],
    file_offset: U64,
    sequence_number: U64,
}
const _: () = assert!(size_of::<Descriptor>() == 32);

/// Where the log lies, and which it is.
pub(super) struct Log {
    pub start: u64,
    pub len: u64,
    pub guid: [u8; 16],
}

/// An entry that is whole.
#[derive(Clone, Copy)]
struct Entry {
    len: u64,
    tail: u64,
    number: u64,
}

/// What a range of the file is to have.
#[derive(Clone, Copy)]
enum Change {
    Zero,
    /// A sector, whose middle lies in the log.
    Sector {
        at: u64,
        leading: [u8; 8],
        trailing: [u8; 4],
    },
}

/// Plays the log back over the file, where there is something in it; `notes` says so.
pub(super) fn replay(file: Arc<dyn ReadAt>, log: &Log, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let wrong = |message: String| Error::corrupt("vhdx.log", message).at(log.start);
    if log.len > VHDX_LOG_MAX {
        let message = format!("the log has {} bytes; {VHDX_LOG_MAX} are allowed", log.len);
        return Err(Error::limit("vhdx.log", message).at(log.start));
    }
    if !log.len.is_multiple_of(SECTOR) || log.start.checked_add(log.len).is_none_or(|end| end > file.len()) {
        return Err(wrong(format!("a log of {} bytes does not fit the file of {} bytes", log.len, file.len())));
    }
    let Some(entries) = log.entries(&*file)? else { return Ok(file) };
    if entries.is_empty() {
        notes.push(
            "vhdx: the image was not closed cleanly, and no entry of its log is whole: what it was to change may be \
             missing"
                .into(),
        );
        return Ok(file);
    }
    let sequence = sequence(&entries, log.len);
    let sequence = sequence.ok_or_else(|| {
        wrong("the image was not closed cleanly, and its log is damaged: entries that still count are not whole".into())
            .with_hint("a copy of the image that was made after it was closed can be read")
    })?;
    let mut replayed = Replayed { len: file.len(), file, changes: BTreeMap::new() };
    for at in &sequence {
        replayed.apply(log, log.start.saturating_add(*at))?;
    }
    notes.push(format!(
        "the VHDX image was not closed cleanly: {} of its log {} played back in memory",
        counted(sequence.len(), "entry"),
        if sequence.len() == 1 { "is" } else { "are" }
    ));
    Ok(Arc::new(replayed))
}

/// The entries that count, from the oldest to the newest, by their places in the log.
fn sequence(entries: &BTreeMap<u64, Entry>, log_len: u64) -> Option<Vec<u64>> {
    let mut heads: Vec<_> = entries.iter().collect();
    heads.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.number));
    heads.into_iter().take(HEADS_MAX).find_map(|(head_at, head)| {
        let (mut at, mut all) = (head.tail, Vec::new());
        let mut entry = entries.get(&at)?;
        while at != *head_at {
            all.push(at);
            at = at.checked_add(entry.len)?.checked_rem(log_len)?;
            let next = entries.get(&at)?;
            if entry.number.checked_add(1) != Some(next.number) || all.len() > entries.len() {
                return None;
            }
            entry = next;
        }
        all.push(at);
        Some(all)
    })
}

impl Log {
    /// The entries that are whole, by their places in the log; `None` where nothing in it begins as one of this log's.
    fn entries(&self, file: &dyn ReadAt) -> Result<Option<BTreeMap<u64, Entry>>> {
        let (mut all, mut has_any) = (BTreeMap::new(), false);
        // What was written one round before may be looked through again, and no more.
        let mut left = self.len.saturating_mul(4);
        let mut at = 0u64;
        while at < self.len {
            let place = self.start.saturating_add(at);
            let header: EntryHeader = fields::read(file, place, "vhdx.log", "a log entry")?;
            let len = u64::from(header.entry_length.get());
            if header.signature == *b"loge" && header.log_guid == self.guid {
                has_any = true;
                let fits = len >= SECTOR && len.is_multiple_of(SECTOR) && len <= self.len;
                if fits && len <= left {
                    left = left.saturating_sub(len);
                    let bytes = self.read(file, at, len)?;
                    if checksum(&bytes) == header.checksum.get() && is_whole(&bytes, &header) {
                        let (tail, number) = (u64::from(header.tail.get()), header.sequence_number.get());
                        all.insert(at, Entry { len, tail, number });
                    }
                }
            }
            at = at.saturating_add(SECTOR);
        }
        Ok(has_any.then_some(all))
    }

    /// Bytes of the log, which is a ring.
    fn read(&self, file: &dyn ReadAt, at: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; to_usize(len)?];
        let here = at_most(self.len.saturating_sub(at), bytes.len());
        let (first, rest) = bytes.split_at_mut(here);
        fields::fill(file, first, self.start.saturating_add(at), "vhdx.log", "a log entry")?;
        if !rest.is_empty() {
            fields::fill(file, rest, self.start, "vhdx.log", "a log entry")?;
        }
        Ok(bytes)
    }
}

/// The entry's descriptors.
fn descriptors(bytes: &[u8], count: u32) -> impl Iterator<Item = Descriptor> {
    let all = bytes.get(size_of::<EntryHeader>()..).unwrap_or_default().chunks_exact(size_of::<Descriptor>());
    all.take(from_u32(count)).filter_map(|bytes| Descriptor::read_from_bytes(bytes).ok())
}

/// Where the data sectors of an entry begin in it.
fn data_at(count: u32) -> u64 {
    u64::from(count).saturating_mul(32).saturating_add(64).next_multiple_of(SECTOR)
}

/// Whether all parts of an entry are of it.
fn is_whole(bytes: &[u8], header: &EntryHeader) -> bool {
    let (count, number) = (header.descriptor_count.get(), header.sequence_number.get());
    let mut data = data_at(count);
    if data > to_u64(bytes.len()) {
        return false;
    }
    descriptors(bytes, count).all(|descriptor| {
        let is_aligned = descriptor.file_offset.get().is_multiple_of(SECTOR);
        let of_entry = descriptor.sequence_number.get() == number && is_aligned;
        match &descriptor.signature {
            b"zero" => of_entry && u64::from_le_bytes(descriptor.leading).is_multiple_of(SECTOR),
            b"desc" => {
                let at = usize::try_from(data).unwrap_or(usize::MAX);
                data = data.saturating_add(SECTOR);
                let sector = bytes.get(at..).and_then(|rest| rest.first_chunk::<4096>());
                sector.is_some_and(|sector| {
                    let part = |at: usize| sector.get(at..).and_then(|rest| rest.first_chunk::<4>());
                    let [high, low] = [part(4), part(4092)].map(|b| b.map_or(0, |b| u32::from_le_bytes(*b)));
                    of_entry && sector.starts_with(b"data") && u64::from(high) << 32 | u64::from(low) == number
                })
            }
            _ => false,
        }
    })
}

/// A file with the changes of its log.
struct Replayed {
    file: Arc<dyn ReadAt>,
    len: u64,
    /// Ranges by their starts, with their ends; no two overlap, and all are of whole sectors.
    changes: BTreeMap<u64, (u64, Change)>,
}

impl Replayed {
    fn apply(&mut self, log: &Log, place: u64) -> Result<()> {
        let at = place.saturating_sub(log.start);
        let header: EntryHeader = fields::read(&*self.file, place, "vhdx.log", "a log entry")?;
        if header.flushed_file_offset.get() > self.file.len() {
            let message = format!(
                "the file had {} bytes when its log was written, and has {}",
                header.flushed_file_offset.get(),
                self.file.len()
            );
            return Err(Error::corrupt("vhdx.log", message)
                .at(place)
                .with_hint("the image file is cut off: fetch it again"));
        }
        let last = header.last_file_offset.get();
        if last > CONTAINER_SIZE_MAX.saturating_mul(2) {
            let message = format!("its log makes the file {last} bytes long; a disk may have {CONTAINER_SIZE_MAX}");
            return Err(Error::limit("vhdx.log", message).at(place));
        }
        self.len = self.len.max(last);
        let count = header.descriptor_count.get();
        let bytes = log.read(&*self.file, at, u64::from(header.entry_length.get()))?;
        let mut data = at.saturating_add(data_at(count));
        for Descriptor { signature, trailing, leading, file_offset, .. } in descriptors(&bytes, count) {
            let start = file_offset.get();
            let (len, change) = if signature == *b"zero" {
                (u64::from_le_bytes(leading), Change::Zero)
            } else {
                let at = log.start.saturating_add(data.checked_rem(log.len).unwrap_or(0));
                data = data.saturating_add(SECTOR);
                (SECTOR, Change::Sector { at, leading, trailing })
            };
            let end = start.checked_add(len).filter(|end| *end <= self.len);
            let end = end.ok_or_else(|| {
                let message = format!("its log writes {len} bytes at byte {start} of a file of {}", self.len);
                Error::corrupt("vhdx.log", message).at(place)
            })?;
            if self.changes.len() >= VHDX_LOG_CHANGES_MAX {
                let message = format!("the log has more than {VHDX_LOG_CHANGES_MAX} changes");
                return Err(Error::limit("vhdx.log", message).at(place));
            }
            if len > 0 {
                self.put(start..end, change);
            }
        }
        Ok(())
    }

    /// Puts a change over those that are there.
    fn put(&mut self, range: Range<u64>, change: Change) {
        let overlapped: Vec<_> = self
            .changes
            .range(..range.end)
            .rev()
            .take_while(|(_, (end, _))| *end > range.start)
            .map(|(s, c)| (*s, *c))
            .collect();
        for (start, (end, old)) in overlapped {
            self.changes.remove(&start);
            // A sector is covered as a whole, so what is left is of zeroes.
            if start < range.start {
                self.changes.insert(start, (range.start, old));
            }
            if end > range.end {
                self.changes.insert(range.end, (end, old));
            }
        }
        self.changes.insert(range.start, (range.end, change));
    }

    /// What lies at `offset`, and to where: a change, or the file as it is.
    fn at(&self, offset: u64) -> (Option<(u64, Change)>, u64) {
        let before = self.changes.range(..=offset).next_back().filter(|(_, (end, _))| *end > offset);
        match before {
            Some((start, (end, change))) => (Some((*start, *change)), *end),
            None => (None, self.changes.range(offset..).next().map_or(self.len, |(start, _)| *start)),
        }
    }
}

impl ReadAt for Replayed {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (change, end) = self.at(at);
            let len = at_most(end.saturating_sub(at), rest.len());
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(len);
            match change {
                Some((_, Change::Zero)) => part.fill(0),
                Some((start, Change::Sector { at: place, leading, trailing })) => {
                    let mut sector = [0; 4096];
                    self.file.read_exact_at(&mut sector, place)?;
                    sector[..8].copy_from_slice(&leading);
                    sector[4092..].copy_from_slice(&trailing);
                    let skip = at_most(at.saturating_sub(start), sector.len());
                    part.copy_from_slice(sector.get(skip..skip.saturating_add(len)).unwrap_or_default());
                }
                None => {
                    let held = at_most(self.file.len().saturating_sub(at), len);
                    let (stored, added) = part.split_at_mut(held);
                    self.file.read_exact_at(stored, at)?;
                    added.fill(0);
                }
            }
            at = at.saturating_add(to_u64(len));
            rest = behind;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (change, end) = self.at(offset);
        let len = end.saturating_sub(offset);
        match change {
            Some((_, change)) => Ok(Extent { len, zero: matches!(change, Change::Zero) }),
            None if offset >= self.file.len() => Ok(Extent { len, zero: true }),
            None => {
                let extent = self.file.extent_at(offset)?;
                Ok(Extent { len: extent.len.min(len), ..extent })
            }
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.file.will_need(offset, len);
    }
}
