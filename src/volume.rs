//! The plaintext of an unlocked image, at any position and from any number of threads.

use std::collections::BTreeMap;
use std::sync::Arc;

use zeroize::Zeroize;

use crate::crypto::cipher::SectorCipher;
use crate::crypto::spec::CipherSpec;
use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::{Extent, ReadAt, check_range};
use crate::luks::metadata::{CryptSegment, Metadata, Segment, SegmentKind};
use crate::luks::unlock::Unlocked;
use crate::secret::VolumeKey;

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
}

/// A run of plaintext that comes from one segment.
struct Part {
    /// Where it starts in the plaintext.
    start: u64,
    len: u64,
    /// Where it starts in the data file.
    offset: u64,
    cipher: Option<Crypt>,
}

struct Crypt {
    cipher: SectorCipher,
    iv_tweak: u64,
}

impl Volume {
    /// The plaintext of `data`, with the keys that unlocking gave.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where the data file is cut off and that is not allowed; [`ErrorKind::Unsupported`] for a
    /// cipher, a sector size or a segment type that is not known here.
    pub fn new(
        metadata: &Metadata,
        data: Arc<dyn ReadAt>,
        unlocked: &Unlocked,
        options: VolumeOptions,
    ) -> Result<Self> {
        let mut volume = Self { data, parts: Vec::new(), len: 0, missing: 0, open_ended: false };
        for (id, segment) in metadata.live_segments() {
            let cipher = match &segment.kind {
                SegmentKind::Crypt(c) => Some(crypt(id, c, metadata, &unlocked.keys)?),
                SegmentKind::Linear => None,
                SegmentKind::Unknown { kind } => {
                    let message = format!("found \"{}\"; crypt is known", escape(kind));
                    return Err(Error::unsupported(format!("segments.{id}.type"), message));
                }
            };
            volume.push(id, segment, cipher, options)?;
        }
        Ok(volume)
    }

    fn push(&mut self, id: u32, segment: &Segment, cipher: Option<Crypt>, options: VolumeOptions) -> Result<()> {
        let sector = cipher.as_ref().map_or(512, |c| u64::from(c.cipher.sector_size()));
        let there = self.data.len().saturating_sub(segment.offset);
        let wanted = segment.size.unwrap_or(there);
        let usable = wanted.min(there) / sector * sector;
        let missing = match segment.size {
            Some(size) => size - usable,
            None if options.length_unknown => 0,
            None => (sector - wanted % sector) % sector,
        };
        self.open_ended = segment.size.is_none() && options.length_unknown;
        // A segment that starts behind the file's end lacks at least what lies between them.
        let gap = segment.offset.saturating_sub(self.data.len());
        if (missing > 0 || gap > 0) && !options.allow_truncated {
            let message = match gap {
                0 => format!(
                    "the data ends at byte {}, {missing} bytes before the end of a sector or of segment {id}",
                    self.data.len()
                ),
                _ => format!(
                    "segment {id} starts at byte {}, but the data ends at byte {}: {gap} bytes are missing before it",
                    segment.offset,
                    self.data.len()
                ),
            };
            return Err(Error::corrupt("truncated", message)
                .at(self.data.len())
                .with_hint("get a whole copy, or take the whole sectors that are there with --allow-truncated"));
        }
        self.missing = self.missing.saturating_add(missing).saturating_add(gap);
        if usable > 0 {
            self.parts.push(Part { start: self.len, len: usable, offset: segment.offset, cipher });
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

    /// The largest encryption sector in bytes: reads that are aligned to it cost nothing extra.
    pub fn sector_size(&self) -> u32 {
        self.parts.iter().filter_map(|p| p.cipher.as_ref()).map(|c| c.cipher.sector_size()).max().unwrap_or(512)
    }

    /// The part that holds the plaintext byte at `offset`.
    fn part_at(&self, offset: u64) -> Result<&Part> {
        let index = self.parts.partition_point(|p| p.start + p.len <= offset);
        self.parts.get(index).ok_or_else(|| Error::new(ErrorKind::Io, "read beyond the end of the volume").at(offset))
    }

    /// Where the sector that holds the plaintext byte at `offset` lies in the data file, and how many bytes lie there
    /// in one run.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] beyond the end of the volume.
    pub fn locate(&self, offset: u64) -> Result<(u64, u64)> {
        let part = self.part_at(offset)?;
        let inside = offset - part.start;
        Ok((part.offset + inside, part.len - inside))
    }

    /// Reads the ciphertext of whole sectors, which [`Volume::decipher`] then makes plaintext: the two halves of a read,
    /// for a source that must be read in order while any thread may decrypt.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the data file cannot be read.
    pub fn fetch(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let (at, run) = self.locate(offset)?;
            let (now, rest) = buf.split_at_mut(usize::try_from(run).unwrap_or(usize::MAX).min(buf.len()));
            self.data.read_exact_at(now, at)?;
            offset += u64::try_from(now.len()).unwrap_or(0);
            buf = rest;
        }
        Ok(())
    }

    /// Decrypts what [`Volume::fetch`] read, in place.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where `buf` or `offset` is not whole sectors.
    pub fn decipher(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        while !buf.is_empty() {
            let part = self.part_at(offset)?;
            let inside = offset - part.start;
            let run = usize::try_from(part.len - inside).unwrap_or(usize::MAX).min(buf.len());
            let (now, rest) = buf.split_at_mut(run);
            part.decipher(now, inside)?;
            offset += u64::try_from(run).unwrap_or(0);
            buf = rest;
        }
        Ok(())
    }

    /// Reads within one part, at any alignment.
    fn read_part(&self, part: &Part, mut buf: &mut [u8], mut inside: u64) -> Result<()> {
        let sector = part.cipher.as_ref().map_or(1, |c| u64::from(c.cipher.sector_size()));
        while !buf.is_empty() {
            let skew = inside % sector;
            let whole = match skew {
                0 => u64::try_from(buf.len()).unwrap_or(0) / sector * sector,
                _ => 0,
            };
            let n = match usize::try_from(whole).unwrap_or(0).min(RUN) {
                0 => self.read_in_sector(part, buf, inside - skew, usize::try_from(skew).unwrap_or(0), sector)?,
                n => {
                    self.data.read_exact_at(&mut buf[..n], part.offset + inside)?;
                    part.decipher(&mut buf[..n], inside)?;
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
        self.data.read_exact_at(whole, part.offset + at)?;
        part.decipher(whole, at)?;
        let n = buf.len().min(whole.len() - skew);
        buf[..n].copy_from_slice(&whole[skew..skew + n]);
        whole.zeroize();
        Ok(n)
    }
}

impl Part {
    /// Decrypts whole sectors that start `inside` bytes into the part.
    fn decipher(&self, buf: &mut [u8], inside: u64) -> Result<()> {
        match &self.cipher {
            // The IV counts in 512-byte units, also where sectors are larger. It wraps as dm-crypt's does.
            Some(c) => c.cipher.decrypt(buf, c.iv_tweak.wrapping_add(inside / 512)),
            None => Ok(()),
        }
    }
}

fn crypt(id: u32, c: &CryptSegment, metadata: &Metadata, keys: &BTreeMap<u32, VolumeKey>) -> Result<Crypt> {
    let field = |name: &str| format!("segments.{id}.{name}");
    if !matches!(c.sector_size, 512 | 1024 | 2048 | 4096) {
        let message = format!("found {}; 512, 1024, 2048 and 4096 can be decrypted", c.sector_size);
        return Err(Error::unsupported(field("sector_size"), message));
    }
    if let Some(i) = &c.integrity {
        let message = format!("found {} below the segment; dm-integrity is not supported", escape(&i.kind));
        return Err(Error::unsupported(field("integrity"), message));
    }
    let spec = CipherSpec::parse(&c.encryption).map_err(|e| e.with_rule(field("encryption")))?;
    let digest = metadata.segment_digest(id).map(|(d, _)| d);
    let key = digest.and_then(|d| keys.get(&d));
    let key = key.ok_or_else(|| Error::new(ErrorKind::WrongKey, format!("no key for segment {id}")))?;
    let cipher = SectorCipher::new(&spec, key.expose(), c.sector_size).map_err(|e| e.with_rule(field("encryption")))?;
    Ok(Crypt { cipher, iv_tweak: c.iv_tweak })
}

impl ReadAt for Volume {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        while !buf.is_empty() {
            let part = self.part_at(offset)?;
            let inside = offset - part.start;
            let (now, rest) = buf.split_at_mut(usize::try_from(part.len - inside).unwrap_or(usize::MAX).min(buf.len()));
            self.read_part(part, now, inside)?;
            offset += u64::try_from(now.len()).unwrap_or(0);
            buf = rest;
        }
        Ok(())
    }

    /// A hole in encrypted data does not decrypt to zeroes: only parts that are not encrypted pass on what they know.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let part = self.part_at(offset)?;
        let inside = offset - part.start;
        let rest = part.len - inside;
        match part.cipher {
            Some(_) => Ok(Extent { len: rest, zero: false }),
            None => self.data.extent_at(part.offset + inside).map(|e| Extent { len: e.len.min(rest), ..e }),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        if let Ok((at, run)) = self.locate(offset) {
            self.data.will_need(at, run.min(len));
        }
    }
}
