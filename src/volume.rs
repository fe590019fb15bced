//! The plaintext of an unlocked image, at any position and from any number of threads.

mod bad_sectors;
mod clusters;
mod crypt;
mod integrity;
mod reencrypt;

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result, escape};
use crate::format::HostMap;
use crate::io::{Extent, ReadAt, check_range};
use crate::luks::metadata::{CryptSegment, Metadata, Segment, SegmentKind};
use crate::luks::reencrypt::Reencryption;
use crate::luks::unlock::Unlocked;
use crate::secret::VolumeKey;
pub use bad_sectors::{BadRun, BadSectorPolicy, BadSectors};
use clusters::Clusters;
use crypt::{Crypt, Linear};
use integrity::Integrity;

/// The largest encryption sector.
const SECTOR_MAX: usize = 4096;
/// Reads are split into runs of this many bytes, so that what was read is decrypted while it is in the cache.
const RUN: usize = 256 << 10;

/// How a [`Volume`] treats its data file.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeOptions {
    /// Take the whole sectors of a data file that is cut off, instead of refusing it.
    pub allow_truncated: bool,
    /// The data comes through a pipe: nobody knows how much there is before its end.
    pub length_unknown: bool,
    /// What becomes of sectors whose integrity tag is wrong.
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
    missing: u64,
    open_ended: bool,
    bad_sectors: Arc<BadSectors>,
}

/// A run of plaintext that comes from one segment.
struct Part {
    /// Where it starts in the plaintext.
    start: u64,
    len: u64,
    layer: Box<dyn Layer>,
}

/// Bytes of plaintext, whole sectors.
struct Size {
    /// As many as there should be.
    whole: u64,
    /// As many as can be read.
    there: u64,
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

    /// Where the plaintext at `inside` lies in the data file, where it lies there byte for byte; `None` where it does not.
    fn stored_at(&self, inside: u64) -> Option<u64>;

    /// Makes plaintext of whole sectors that were read from where they are stored.
    fn decipher(&self, buf: &mut [u8], inside: u64) -> Result<()>;

    /// Reads the plaintext of whole sectors.
    fn read(&self, data: &dyn ReadAt, buf: &mut [u8], inside: u64) -> Result<()> {
        let at = self.stored_at(inside).ok_or_else(|| Error::invalid("this layer reads its data itself"))?;
        data.read_exact_at(buf, at)?;
        self.decipher(buf, inside)
    }

    /// What is known of the plaintext at `inside` without reading it. A hole in encrypted data is no run of zeroes.
    fn extent_at(&self, _data: &dyn ReadAt, _inside: u64) -> Result<Extent> {
        Ok(Extent { len: u64::MAX, zero: false })
    }
}

impl Volume {
    /// The plaintext of `data`, which starts with its header, with the keys that unlocking gave.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the data file is cut off and that is not allowed, and for a reencryption whose state
    /// contradicts itself; [`ErrorKind::Unsupported`] for a cipher, a sector size or a segment type that is not known
    /// here.
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
        let bad_sectors = Arc::new(BadSectors::new(options.bad_sectors));
        let mut volume = Self { data, parts: Vec::new(), len: 0, missing: 0, open_ended: false, bad_sectors };
        let reencryption = Reencryption::of(metadata)?;
        let hot = reencryption.as_ref().and_then(|r| r.hot.as_ref().map(|hot| (r, hot)));
        let shifted = reencryption.as_ref().is_some_and(|r| r.state.shift_size.is_some());
        if options.length_unknown && (hot.is_some() || shifted) {
            let message = "the reencryption was not finished, and its data does not come in one order";
            return Err(Error::unsupported("pipe", message).with_hint("save the image to a file first"));
        }
        for (id, segment) in metadata.live_segments() {
            let (layer, at): (Box<dyn Layer>, _) = match (&segment.kind, hot) {
                (_, Some((r, hot))) if hot.segment.0 == id => reencrypt::hot_zone(metadata, r, hot, header, unlocked)?,
                (SegmentKind::Crypt(c @ CryptSegment { integrity: Some(names), .. }), _) => {
                    let key = key(id, metadata, &unlocked.keys)?;
                    let place = (volume.len, Arc::clone(&volume.bad_sectors));
                    let layer = Integrity::new(id, (segment, c, names), key, &*volume.data, place, options)?;
                    (Box::new(layer), Some(segment.offset))
                }
                (SegmentKind::Crypt(c), _) => {
                    let crypt = Crypt::new(id, c, segment.offset, key(id, metadata, &unlocked.keys)?)?;
                    (Box::new(crypt), Some(segment.offset))
                }
                (SegmentKind::Linear, _) => (Box::new(Linear { offset: segment.offset }), Some(segment.offset)),
                (SegmentKind::Unknown { kind }, _) => {
                    let message = format!("found \"{}\"; crypt is known", escape(kind));
                    return Err(Error::unsupported(format!("segments.{id}.type"), message));
                }
            };
            let size = match shifted {
                true => Some(metadata.live_size(segment, volume.data.len()).unwrap_or(0)),
                false => segment.size,
            };
            volume.push(Stored { id, at, size }, layer, options)?;
        }
        Ok(volume)
    }

    /// The plaintext of a qcow2 image that encrypts its clusters itself.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a cipher that is not known here.
    pub fn of_clusters(metadata: &Metadata, clusters: Arc<dyn HostMap>, unlocked: &Unlocked) -> Result<Self> {
        let Some((id, Segment { kind: SegmentKind::Crypt(c), .. })) = metadata.live_segments().next() else {
            return Err(Error::corrupt("segments", "the LUKS header in the qcow2 header has no crypt segment"));
        };
        let len = clusters.virtual_size();
        let layer = Clusters::new(id, c, Arc::clone(&clusters), key(id, metadata, &unlocked.keys)?)?;
        let parts = vec![Part { start: 0, len, layer: Box::new(layer) }];
        let bad_sectors = Arc::default();
        Ok(Self { data: Arc::new(Vec::new()), parts, len, missing: 0, open_ended: false, bad_sectors })
    }

    fn push(&mut self, stored: Stored, layer: Box<dyn Layer>, options: VolumeOptions) -> Result<()> {
        let sector = u64::from(layer.sector_size());
        let (id, at) = (stored.id, stored.at.unwrap_or(0));
        let own = layer.size(self.data.len());
        let rest = || stored.at.map_or(u64::MAX, |at| self.data.len().saturating_sub(at));
        let there = own.as_ref().map_or_else(rest, |own| own.there);
        let size = own.map(|own| own.whole).or(stored.size);
        let wanted = size.unwrap_or(there);
        let usable = wanted.min(there) / sector * sector;
        let missing = match size {
            Some(size) => size - usable,
            None if options.length_unknown => 0,
            None => (sector - wanted % sector) % sector,
        };
        self.open_ended = size.is_none() && options.length_unknown;
        // A segment that starts behind the file's end lacks at least what lies between them.
        let gap = at.saturating_sub(self.data.len());
        if (missing > 0 || gap > 0) && !options.allow_truncated {
            let end = self.data.len();
            let message = match gap {
                0 => format!(
                    "the data ends at byte {end}, {missing} bytes before the end of a sector or of segment {id}"
                ),
                _ => format!(
                    "segment {id} starts at byte {at}, but the data ends at byte {end}: {gap} bytes are missing before it"
                ),
            };
            return Err(Error::corrupt("truncated", message)
                .at(end)
                .with_hint("get a whole copy, or take the whole sectors that are there with --allow-truncated"));
        }
        self.missing = self.missing.saturating_add(missing).saturating_add(gap);
        if usable > 0 {
            self.parts.push(Part { start: self.len, len: usable, layer });
            let too_long = || Error::corrupt("segments", "their sizes add up to more than 2^64 bytes");
            self.len = self.len.checked_add(usable).ok_or_else(too_long)?;
        }
        Ok(())
    }

    /// Bytes that a cut-off data file lacks; 0 where it is whole.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether it goes on to the end of a pipe, and its length is only the most that there can be.
    pub fn is_open_ended(&self) -> bool {
        self.open_ended
    }

    /// The sectors whose integrity tag was wrong when they were read, where that is no error
    /// ([`VolumeOptions::bad_sectors`]).
    pub fn bad_sectors(&self) -> &BadSectors {
        &self.bad_sectors
    }

    /// The largest encryption sector in bytes: reads that are aligned to it cost nothing extra.
    pub fn sector_size(&self) -> u32 {
        self.parts.iter().map(|p| p.layer.sector_size()).max().unwrap_or(512)
    }

    /// The part that holds the plaintext byte at `offset`.
    fn part_at(&self, offset: u64) -> Result<&Part> {
        let index = self.parts.partition_point(|p| p.start + p.len <= offset);
        self.parts.get(index).ok_or_else(|| Error::new(ErrorKind::Io, "read beyond the end of the volume").at(offset))
    }

    /// Where the plaintext byte at `offset` lies in the data file, and how many bytes lie there in one run; `None` where
    /// the plaintext does not lie there byte for byte.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] beyond the end of the volume.
    pub fn locate(&self, offset: u64) -> Result<Option<(u64, u64)>> {
        let part = self.part_at(offset)?;
        let inside = offset - part.start;
        Ok(part.layer.stored_at(inside).map(|at| (at, part.len - inside)))
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
            let inside = offset - part.start;
            let (now, rest) = buf.split_at_mut(usize::try_from(part.len - inside).unwrap_or(usize::MAX).min(buf.len()));
            offset += u64::try_from(now.len()).unwrap_or(0);
            work(part, now, inside)?;
            buf = rest;
        }
        Ok(())
    }

    /// Reads the ciphertext of whole sectors, which [`Volume::decipher`] then makes plaintext: the two halves of a read,
    /// for a source that must be read in order while any thread may decrypt.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the data file cannot be read.
    pub fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.each_part(buf, offset, |part, now, inside| match part.layer.stored_at(inside) {
            Some(at) => self.data.read_exact_at(now, at),
            None => Ok(()),
        })
    }

    /// Decrypts what [`Volume::fetch`] read, in place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where `buf` or `offset` is not whole sectors.
    pub fn decipher(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.each_part(buf, offset, |part, now, inside| match part.layer.stored_at(inside) {
            Some(_) => part.layer.decipher(now, inside),
            None => part.layer.read(&*self.data, now, inside),
        })
    }

    /// Reads within one part, at any alignment.
    fn read_part(&self, part: &Part, mut buf: &mut [u8], mut inside: u64) -> Result<()> {
        let sector = u64::from(part.layer.sector_size());
        while !buf.is_empty() {
            let skew = inside % sector;
            let whole = match skew {
                0 => u64::try_from(buf.len()).unwrap_or(0) / sector * sector,
                _ => 0,
            };
            let n = match usize::try_from(whole).unwrap_or(0).min(RUN) {
                0 => self.read_in_sector(part, buf, inside - skew, usize::try_from(skew).unwrap_or(0), sector)?,
                n => {
                    part.layer.read(&*self.data, &mut buf[..n], inside)?;
                    n
                }
            };
            inside += u64::try_from(n).unwrap_or(0);
            buf = &mut buf[n..];
        }
        Ok(())
    }

    /// Reads the part of one sector that a read at no sector's border wants.
    fn read_in_sector(&self, part: &Part, buf: &mut [u8], at: u64, skew: usize, sector: u64) -> Result<usize> {
        let mut whole = [0u8; SECTOR_MAX];
        let whole = &mut whole[..usize::try_from(sector).unwrap_or(SECTOR_MAX)];
        part.layer.read(&*self.data, whole, at)?;
        let n = buf.len().min(whole.len() - skew);
        buf[..n].copy_from_slice(&whole[skew..skew + n]);
        whole.zeroize();
        Ok(n)
    }
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

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.each_part(buf, offset, |part, now, inside| self.read_part(part, now, inside))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let part = self.part_at(offset)?;
        let inside = offset - part.start;
        let e = part.layer.extent_at(&*self.data, inside)?;
        Ok(Extent { len: e.len.min(part.len - inside), ..e })
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
