//! The plaintext of an unlocked image, at any position and from any number of threads.

// Numbers of an image reach all of this: sums that cannot be are an error or a bound, never another number.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod bad_sectors;
mod clusters;
mod crypt;
mod integrity;
mod length;
mod reencrypt;
mod unreadable;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result, escape};
use crate::format::HostMap;
use crate::io::{Extent, Pipe, ReadAt, check_range};
use crate::luks::data::DataFile;
use crate::luks::metadata::{CryptSegment, Metadata, SegmentKind};
use crate::luks::reencrypt::Reencryption;
use crate::luks::unlock::Unlocked;
use crate::num::{at_most, to_u64, to_usize};
use crate::secret::VolumeKey;
pub use bad_sectors::{BadRun, BadSectorPolicy, BadSectors, Cause};
use clusters::Clusters;
use crypt::{Crypt, Linear};
use integrity::Integrity;
pub use integrity::findings as integrity_findings;
use length::Found;
pub use length::Missing;

/// The largest encryption sector.
const SECTOR_MAX: usize = 4096;
/// Reads are split into runs of this many bytes, so that what was read is decrypted while it is in the cache.
const RUN: usize = 256 << 10;
/// What was overwritten is noted in pieces of this many bytes.
const NOTED: u64 = 512;

/// How a [`Volume`] treats its data file.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeOptions {
    /// Take the whole sectors of a data file that is cut off, instead of refusing it.
    pub allow_truncated: bool,
    /// What becomes of sectors that cannot be read, or whose integrity tag is wrong.
    pub bad_sectors: BadSectorPolicy,
}

/// The plaintext of an unlocked image.
///
/// It is a list of segments, each with its own key, cipher, sector size and IV offset: a volume that was caught in the
/// middle of a reencryption has two keys at once. All of it is shared by reference, so that any number of threads may
/// read at once.
pub struct Volume {
    data: Arc<dyn ReadAt>,
    parts: Vec<Part>,
    len: u64,
    missing: Option<Missing>,
    open_ended: bool,
    bad_sectors: Arc<BadSectors>,
    notes: Vec<String>,
    overwritten: Vec<BadRun>,
}

/// A run of plaintext that comes from one segment.
struct Part {
    /// Where it starts in the plaintext.
    start: u64,
    /// Where it ends in the plaintext, behind its start.
    end: u64,
    layer: Box<dyn Layer>,
}

impl Part {
    /// How far inside the part `offset` lies, and how many bytes of it come from there on.
    fn split(&self, offset: u64) -> (u64, u64) {
        (offset.saturating_sub(self.start), self.end.saturating_sub(offset))
    }
}

/// What a layer's own structures say of its size.
struct Size {
    /// Bytes of plaintext that there should be: whole sectors.
    whole: u64,
    /// Bytes of plaintext that can be read: whole sectors.
    there: u64,
    /// Where it ends in the data file, cut off or not.
    end: u64,
}

/// Where the data of a segment is.
struct Stored {
    /// The segment's number.
    id: u32,
    /// Where it starts in the data file; `None` where it is not there at all.
    at: Option<u64>,
    /// Its length in bytes; `None` is to the end of the data file.
    size: Option<u64>,
}

/// How the plaintext of a part comes out of what is stored. Positions count from the part's start.
trait Layer: Send + Sync {
    /// Reads are of whole sectors of this many bytes.
    fn sector_size(&self) -> u32;

    /// How much plaintext there is in a data file of `data_len` bytes, where the layer's own structures say so and not
    /// the segment.
    fn size(&self, _data_len: u64) -> Option<Size> {
        None
    }

    /// Reads the plaintext of whole sectors.
    fn read(&self, data: &dyn ReadAt, buf: &mut [u8], inside: u64) -> Result<()>;

    /// The same layer, where its plaintext lies in the data file byte for byte.
    fn in_place(&self) -> Option<&dyn InPlace> {
        None
    }

    /// What is known of the plaintext at `inside` without reading it. A hole in encrypted data is no run of zeroes.
    fn extent_at(&self, _data: &dyn ReadAt, _inside: u64) -> Result<Extent> {
        Ok(Extent { len: u64::MAX, zero: false })
    }
}

/// A layer each of whose bytes is one of the data file, so that reading and decrypting can be done apart.
trait InPlace {
    /// Where the plaintext at `inside` lies in the data file.
    fn stored_at(&self, inside: u64) -> u64;

    /// Makes plaintext of whole sectors that were read from where they are stored.
    fn decipher(&self, buf: &mut [u8], inside: u64) -> Result<()>;
}

impl Volume {
    /// The plaintext of `data`, which starts with its header, with the keys that unlocking gave.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the keys are of another header; [`ErrorKind::Corrupt`] where the data file is cut
    /// off or has no data at all and that is not allowed, and for a reencryption whose state contradicts itself;
    /// [`ErrorKind::Unsupported`] for a cipher, a sector size or a segment type that is not known here, and for a segment
    /// that does not start where a sector of the plaintext can.
    pub fn new(
        metadata: &Metadata,
        data: Arc<dyn ReadAt>,
        unlocked: &Unlocked,
        options: VolumeOptions,
    ) -> Result<Self> {
        Self::new_detached(metadata, &Arc::clone(&data), data, unlocked, options)
    }

    /// The plaintext of `data`, whose header is elsewhere. A crashed reencryption has left some of the data in it.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn new_detached(
        metadata: &Metadata,
        header: &Arc<dyn ReadAt>,
        data: Arc<dyn ReadAt>,
        unlocked: &Unlocked,
        options: VolumeOptions,
    ) -> Result<Self> {
        let keys = unlocked.keys_of(metadata)?;
        let file =
            DataFile { len: data.known_len(), detached: !std::ptr::addr_eq(Arc::as_ptr(header), Arc::as_ptr(&data)) };
        let mut volume = Self { bad_sectors: Arc::new(BadSectors::new(options.bad_sectors)), ..Self::empty(data) };
        let reencryption = Reencryption::of(metadata)?;
        let hot = reencryption.as_ref().and_then(|r| r.hot.as_ref().map(|hot| (r, hot)));
        let shifted = reencryption.as_ref().is_some_and(|r| r.state.shift_size.is_some());
        if volume.data.pipe().is_some() && (hot.is_some() || shifted) {
            let message = "the reencryption was not finished, and its data does not come in one order";
            return Err(Error::unsupported("pipe", message).with_hint("save the image to a file first"));
        }
        for (id, segment) in metadata.live_segments() {
            let (layer, at): (Box<dyn Layer>, _) = match (&segment.kind, hot) {
                (_, Some((r, hot))) if hot.segment.0 == id => reencrypt::hot_zone(metadata, r, hot, header, keys)?,
                (SegmentKind::Crypt(c @ CryptSegment { integrity: Some(names), .. }), _) => {
                    let key = key(id, metadata, keys)?;
                    let place = (volume.len, Arc::clone(&volume.bad_sectors));
                    let layer = Integrity::new(id, (segment, c, names), key, &*volume.data, place)?;
                    volume.notes.extend(layer.note());
                    (Box::new(layer), Some(segment.offset))
                }
                (SegmentKind::Crypt(c), _) => {
                    let crypt = Crypt::new(id, c, segment.offset, key(id, metadata, keys)?)?;
                    (Box::new(crypt), Some(segment.offset))
                }
                (SegmentKind::Linear, _) => {
                    // A file that was never a container may end anywhere.
                    let sector_size = if metadata.copies.is_empty() { 1 } else { 512 };
                    (Box::new(Linear { offset: segment.offset, sector_size }), Some(segment.offset))
                }
                (SegmentKind::Unknown { kind }, _) => {
                    let message = format!("found \"{}\"; crypt is known", escape(kind));
                    return Err(Error::unsupported(format!("segments.{id}.type"), message));
                }
            };
            let size = if shifted {
                // The segments before it are longer than the file: what this one should have, nobody knows.
                metadata.live_size(segment, volume.data.len()).or_else(|| volume.note_missing(1, true))
            } else {
                segment.size
            };
            volume.push(Stored { id, at, size }, layer)?;
        }
        length::check(metadata, file, Found { plaintext: Some(volume.len), missing: volume.missing }, options)?;
        Ok(volume)
    }

    /// The same, where `ranges` of the data file were overwritten: what is read of them is noted among the bad sectors.
    #[must_use]
    pub fn with_overwritten(mut self, ranges: &[Range<u64>]) -> Self {
        let mut overwritten = Vec::new();
        for part in &self.parts {
            let Some(base) = part.layer.in_place().map(|layer| layer.stored_at(0)) else { continue };
            let end = base.saturating_add(part.end.saturating_sub(part.start));
            for range in ranges {
                let (from, to) = (range.start.max(base), range.end.min(end));
                if from < to {
                    let start = part.start.saturating_add(from.saturating_sub(base));
                    let len = to.saturating_sub(from);
                    overwritten.push(BadRun { cause: Cause::Overwritten, start, len, stored_at: from });
                }
            }
        }
        self.overwritten = overwritten;
        self
    }

    /// What of the plaintext was overwritten, as far as that is known.
    pub fn overwritten(&self) -> &[BadRun] {
        &self.overwritten
    }

    /// Takes note of what was overwritten of the plaintext in `buf`, which is that from `offset` on, sector by sector; as
    /// zeroes, where bad sectors are wanted so.
    fn note_overwritten(&self, buf: &mut [u8], offset: u64) {
        let end = offset.saturating_add(to_u64(buf.len()));
        let as_zeroes = matches!(self.bad_sectors.policy(), BadSectorPolicy::Zero | BadSectorPolicy::Skip);
        for run in &self.overwritten {
            let (from, to) = (offset.max(run.start), end.min(run.end()));
            let mut at = from.saturating_sub(from.saturating_sub(run.start) % NOTED);
            while at < to {
                let stored_at = run.stored_at.saturating_add(at.saturating_sub(run.start));
                let len = NOTED.min(run.end().saturating_sub(at));
                self.bad_sectors.note(BadRun { start: at, len, stored_at, ..*run });
                at = at.saturating_add(NOTED);
            }
            if as_zeroes {
                blank(buf, offset, from..to);
            }
        }
    }

    /// The plaintext of a qcow2 image that encrypts its clusters itself.
    ///
    /// # Errors
    /// As [`Volume::check_clusters`]; [`ErrorKind::Unsupported`] for a cipher that is not known here.
    pub fn of_clusters(metadata: &Metadata, clusters: Arc<dyn HostMap>, unlocked: &Unlocked) -> Result<Self> {
        let keys = unlocked.keys_of(metadata)?;
        let (id, c) = clusters::segment(metadata)?;
        let len = clusters.virtual_size();
        let layer = Clusters::new(id, c, clusters, key(id, metadata, keys)?)?;
        let parts = vec![Part { start: 0, end: len, layer: Box::new(layer) }];
        Ok(Self { parts, len, ..Self::empty(Arc::new(Vec::new())) })
    }

    /// Refuses a header that QEMU does not put into a qcow2 image that encrypts its clusters itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for anything but LUKS1; [`ErrorKind::Corrupt`] for segments that no LUKS1 header has.
    pub fn check_clusters(metadata: &Metadata) -> Result<()> {
        clusters::segment(metadata).map(|_| ())
    }

    /// Refuses a data file that is cut off or holds no data, unless that is allowed, as far as the header tells it without
    /// a key. [`Volume::new`] refuses it, too; this is known before any key is derived.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`].
    pub fn check_file(metadata: &Metadata, file: DataFile, options: VolumeOptions) -> Result<()> {
        length::check(metadata, file, Found::without_key(metadata, file), options)
    }

    /// A volume without plaintext.
    fn empty(data: Arc<dyn ReadAt>) -> Self {
        let (parts, notes, bad_sectors) = (Vec::new(), Vec::new(), Arc::default());
        Self { data, parts, len: 0, missing: None, open_ended: false, bad_sectors, notes, overwritten: Vec::new() }
    }

    /// Takes note that the data file lacks `bytes` bytes, or more. Gives 0, for what is there of a segment that is not.
    fn note_missing(&mut self, bytes: u64, at_least: bool) -> Option<u64> {
        let before = self.missing.unwrap_or(Missing::new(0, false));
        self.missing = Some(Missing::new(before.bytes.max(bytes), before.at_least || at_least));
        Some(0)
    }

    /// Adds the part that a segment is, as far as its data is there.
    fn push(&mut self, stored: Stored, layer: Box<dyn Layer>) -> Result<()> {
        let (id, data_len) = (stored.id, self.data.len());
        let sector = u64::from(layer.sector_size());
        // What is behind a part that is cut off would lie in the wrong place.
        let cut_off_before = self.missing.is_some();
        if !self.len.is_multiple_of(sector) && !cut_off_before {
            let message = format!(
                "found {sector}; the segment starts at byte {} of the plaintext, which is no multiple of it",
                self.len
            );
            return Err(Error::unsupported(format!("segments.{id}.sector_size"), message));
        }
        let own = layer.size(data_len);
        let in_file = stored.at.map_or(u64::MAX, |at| data_len.saturating_sub(at));
        let there = own.as_ref().map_or(in_file, |own| own.there);
        let whole = own.as_ref().map(|own| own.whole).or(stored.size);
        let usable = round_down(whole.unwrap_or(there).min(there), sector);
        self.open_ended = whole.is_none() && self.data.pipe().is_some();
        // Where it ends in the data file: of a dynamic segment the end of its last sector, or its start where the file
        // ends before it.
        let end = match (own, stored.at) {
            (Some(own), _) => own.end,
            (None, Some(at)) => {
                let whole_sectors = || in_file.checked_next_multiple_of(sector).unwrap_or(u64::MAX);
                at.saturating_add(whole.unwrap_or_else(whole_sectors))
            }
            (None, None) => 0,
        };
        if end > data_len && !self.open_ended {
            self.note_missing(end.saturating_sub(data_len), whole.is_none());
        } else if let Some(over) = whole.and_then(|whole| whole.checked_rem(sector)).filter(|over| *over > 0) {
            // The size was taken from a file that ends inside a sector.
            self.note_missing(sector.saturating_sub(over), true);
        } else if self.missing.is_some() && whole.is_none() {
            self.note_missing(0, true);
        }
        if usable > 0 && !cut_off_before {
            let too_long = || Error::corrupt("segments", "their sizes add up to more than 2^64 bytes");
            let end = self.len.checked_add(usable).ok_or_else(too_long)?;
            self.parts.push(Part { start: self.len, end, layer });
            self.len = end;
        }
        Ok(())
    }

    /// The bytes that a cut-off data file lacks; `None` where it is whole, as far as anybody can know.
    pub fn missing(&self) -> Option<Missing> {
        self.missing
    }

    /// What its user should know of what lies below it, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether it goes on to the end of a pipe, and its length is only the most that there can be.
    pub fn is_open_ended(&self) -> bool {
        self.open_ended
    }

    /// The sectors that could not be read or trusted, where that is no error ([`VolumeOptions::bad_sectors`]).
    pub fn bad_sectors(&self) -> &BadSectors {
        &self.bad_sectors
    }

    /// The largest encryption sector in bytes: reads that are aligned to it cost nothing extra.
    pub fn sector_size(&self) -> u32 {
        self.parts.iter().map(|p| p.layer.sector_size()).max().unwrap_or(512)
    }

    /// The part that holds the plaintext byte at `offset`.
    fn part_at(&self, offset: u64) -> Result<&Part> {
        let index = self.parts.partition_point(|p| p.end <= offset);
        self.parts.get(index).ok_or_else(|| Error::new(ErrorKind::Io, "read beyond the end of the volume").at(offset))
    }

    /// Where the plaintext byte at `offset` lies in the data file, and how many bytes lie there in one run; `None` where
    /// the plaintext does not lie there byte for byte.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] beyond the end of the volume.
    pub fn locate(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        let part = self.part_at(offset)?;
        let (inside, rest) = part.split(offset);
        Ok(part.layer.in_place().map(|layer| (layer.stored_at(inside), rest)))
    }

    /// Splits a range of the volume at the borders of its parts.
    fn each_part(
        &self,
        mut buf: &mut [u8],
        mut offset: u64,
        mut work: impl FnMut(&Part, &mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        while !buf.is_empty() {
            let part = self.part_at(offset)?;
            let (inside, rest) = part.split(offset);
            let (now, rest) = buf.split_at_mut(at_most(rest, buf.len()));
            offset = offset.saturating_add(to_u64(now.len()));
            work(part, now, inside)?;
            buf = rest;
        }
        Ok(())
    }

    /// Reads the ciphertext of whole sectors, which [`Volume::decipher`] then makes plaintext: the two halves of a read,
    /// for a source that must be read in order while any thread may decrypt.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where `buf` or `offset` is not whole sectors of the parts that it lies in: multiples of
    /// [`Volume::sector_size`] are, and so is the end of the volume; [`ErrorKind::Io`] where the data file cannot be read,
    /// and beyond the end of the volume.
    pub fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.each_run_of_sectors(buf, offset, |part, now, inside| match part.layer.in_place() {
            Some(layer) => self.read_stored(part, layer, now, inside),
            None => Ok(()),
        })
    }

    /// Decrypts what [`Volume::fetch`] read, in place. What does not lie in the data file byte for byte is read only now.
    ///
    /// # Errors
    /// As [`Volume::fetch`].
    pub fn decipher(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.each_run_of_sectors(buf, offset, |part, now, inside| match part.layer.in_place() {
            Some(layer) => layer.decipher(now, inside),
            None => self.read_sectors(part, now, inside),
        })?;
        self.note_overwritten(buf, offset);
        self.blank_unreadable(buf, offset);
        Ok(())
    }

    /// Splits a range of whole sectors at the borders of the parts.
    fn each_run_of_sectors(
        &self,
        buf: &mut [u8],
        offset: u64,
        mut work: impl FnMut(&Part, &mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.each_part(buf, offset, |part, now, inside| {
            let sector = part.layer.sector_size();
            let whole = |n: u64| n.is_multiple_of(u64::from(sector));
            if whole(inside) && u64::try_from(now.len()).is_ok_and(whole) {
                work(part, now, inside)
            } else {
                let message =
                    format!("{} bytes from byte {inside} of a part are not whole sectors of {sector}", now.len());
                Err(Error::invalid(message).at(offset))
            }
        })
    }

    /// Reads within one part, at any alignment.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a sector has at least 512 bytes, and all sums stay within the part"
    )]
    fn read_part(&self, part: &Part, mut buf: &mut [u8], mut inside: u64) -> Result<()> {
        let sector = u64::from(part.layer.sector_size());
        while !buf.is_empty() {
            let skew = inside % sector;
            let whole = if skew == 0 { to_u64(buf.len()) / sector * sector } else { 0 };
            let n = match at_most(whole, RUN) {
                0 => self.read_in_sector(part, buf, inside - skew, to_usize(skew)?, sector)?,
                n => {
                    self.read_sectors(part, &mut buf[..n], inside)?;
                    n
                }
            };
            inside += to_u64(n);
            buf = &mut buf[n..];
        }
        Ok(())
    }

    /// Reads the part of one sector that a read at no sector's border wants.
    #[expect(clippy::arithmetic_side_effects, reason = "the skew is below the sector's size")]
    fn read_in_sector(&self, part: &Part, buf: &mut [u8], at: u64, skew: usize, sector: u64) -> Result<usize> {
        let mut whole = [0u8; SECTOR_MAX];
        let whole = &mut whole[..at_most(sector, SECTOR_MAX)];
        self.read_sectors(part, whole, at)?;
        let n = buf.len().min(whole.len() - skew);
        buf[..n].copy_from_slice(&whole[skew..skew + n]);
        whole.zeroize();
        Ok(n)
    }
}

/// Makes the part of `buf`, which is the plaintext from `offset` on, zeroes that lies in `range`.
fn blank(buf: &mut [u8], offset: u64, range: Range<u64>) {
    let place = |at: u64| to_usize(at.saturating_sub(offset)).unwrap_or(usize::MAX);
    if let Some(lost) = buf.get_mut(place(range.start)..place(range.end)) {
        lost.fill(0);
    }
}

/// `n`, or the multiple of `of` before it.
fn round_down(n: u64, of: u64) -> u64 {
    n.saturating_sub(n.checked_rem(of).unwrap_or(0))
}

/// The key that a segment is encrypted with.
fn key<'k>(id: u32, metadata: &Metadata, keys: &'k BTreeMap<u32, VolumeKey>) -> Result<&'k VolumeKey> {
    let key = metadata.segment_digest(id).and_then(|(d, _)| keys.get(&d));
    key.ok_or_else(|| Error::new(ErrorKind::WrongKey, format!("no key for segment {id}")))
}

/// Refuses integrity tags where no volume has them.
fn refuse_integrity(id: u32, c: &CryptSegment) -> Result<()> {
    match &c.integrity {
        Some(i) => {
            let message = format!("found {}; dm-integrity cannot be below this segment", escape(&i.kind));
            Err(Error::unsupported(format!("segments.{id}.integrity"), message))
        }
        None => Ok(()),
    }
}

impl ReadAt for Volume {
    fn len(&self) -> u64 {
        self.len
    }

    fn pipe(&self) -> Option<&Pipe> {
        self.data.pipe()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.each_part(buf, offset, |part, now, inside| self.read_part(part, now, inside))?;
        self.note_overwritten(buf, offset);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let part = self.part_at(offset)?;
        let (inside, rest) = part.split(offset);
        let e = part.layer.extent_at(&*self.data, inside)?;
        Ok(Extent { len: e.len.min(rest), ..e })
    }

    fn will_need(&self, offset: u64, len: u64) {
        if let Ok(Some((at, run))) = self.locate(offset) {
            self.data.will_need(at, run.min(len));
        }
    }

    fn wont_need(&self, offset: u64, len: u64) {
        if let Ok(Some((at, run))) = self.locate(offset) {
            self.data.wont_need(at, run.min(len));
        }
    }
}

#[cfg(test)]
mod tests;
