//! Bounded reads of a disk that may be anything, and the few forms of text that superblocks have.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use uuid::Uuid;
use zerocopy::FromBytes;

use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt, check_range};
use crate::limits::{INSIDE_FULL_READS, INSIDE_READ_MAX};
use crate::num::{at_most, to_u64};

/// The start of a disk, which nearly all probes look at: read once. The last that lies in it is btrfs's superblock.
const HEAD: usize = 72 << 10;

/// How far contents are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Roots of the metadata: some milliseconds.
    Quick,
    /// Every structure, and all data that has checksums.
    #[default]
    Full,
}

impl Level {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }
}

/// A full look makes this many reads at most, as a power of 2, for each time that it may read the disk.
const READS_LOG: u32 = 26;

/// A disk of which no more is read than a look may.
pub(super) struct Metered {
    inner: Arc<dyn ReadAt>,
    left: AtomicU64,
    reach: u64,
    level: Level,
    /// What a read counts at least.
    least: u64,
    cancelled: Arc<AtomicBool>,
    head: OnceLock<Option<Vec<u8>>>,
}

impl Metered {
    /// The disk that the bytes are counted at, for a quick look.
    pub(super) fn outermost(inner: Arc<dyn ReadAt>, reach: u64) -> Arc<Self> {
        Self::new(inner, INSIDE_READ_MAX, reach, Level::Quick, Arc::default())
    }

    /// The same for a full one, which `cancelled` stops.
    pub(super) fn full(inner: Arc<dyn ReadAt>, cancelled: Arc<AtomicBool>) -> Arc<Self> {
        let left = inner.len().saturating_mul(INSIDE_FULL_READS).saturating_add(INSIDE_READ_MAX);
        Self::new(inner, left, u64::MAX, Level::Full, cancelled)
    }

    /// The same without an end to what is read: for whoever meters that itself.
    #[cfg(feature = "read-ext")]
    pub(super) fn unmetered(inner: Arc<dyn ReadAt>) -> Arc<Self> {
        Self::new(inner, u64::MAX, u64::MAX, Level::Full, Arc::default())
    }

    /// A part of one that counts.
    pub(super) fn nested(&self, inner: Arc<dyn ReadAt>) -> Arc<Self> {
        Self::new(inner, u64::MAX, u64::MAX, self.level, Arc::clone(&self.cancelled))
    }

    fn new(inner: Arc<dyn ReadAt>, left: u64, reach: u64, level: Level, cancelled: Arc<AtomicBool>) -> Arc<Self> {
        let least = if level == Level::Full { (inner.len() >> READS_LOG).max(512) } else { 0 };
        Arc::new(Self { inner, left: AtomicU64::new(left), reach, level, least, cancelled, head: OnceLock::new() })
    }

    fn read_on(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = to_u64(buf.len());
        let is_near = offset.checked_add(len).is_some_and(|end| end <= self.reach);
        // Many small reads are work, too.
        let take = |left: u64| left.checked_sub(len.max(self.least));
        let has_room = is_near && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if !has_room {
            return Err(Error::limit("contents.read", "a look does not read this far").at(offset));
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        self.inner.read_exact_at(buf, offset)
    }
}

impl ReadAt for Metered {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        let head = || {
            let mut head = vec![0; at_most(self.len().min(self.reach), HEAD)];
            // One bad sector in it must not hide the others: what is not kept is read piece by piece.
            self.read_on(&mut head, 0).is_ok().then_some(head)
        };
        let end = offset.saturating_add(to_u64(buf.len()));
        if end <= to_u64(HEAD)
            && let Some(head) = self.head.get_or_init(head)
            && let (Ok(start), Ok(end)) = (usize::try_from(offset), usize::try_from(end))
            && let Some(kept) = head.get(start..end)
        {
            buf.copy_from_slice(kept);
            return Ok(());
        }
        self.read_on(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        self.inner.extent_at(offset)
    }
}

/// A disk as the probes see it: what cannot be read is not there, and what the checks cannot read is an error.
pub(super) struct Look<'a> {
    disk: &'a Arc<Metered>,
}

impl<'a> Look<'a> {
    pub(super) fn new(disk: &'a Arc<Metered>) -> Self {
        Self { disk }
    }

    pub(super) fn disk(&self) -> &'a Arc<Metered> {
        self.disk
    }

    pub(super) fn level(&self) -> Level {
        self.disk.level
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.disk.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn len(&self) -> u64 {
        self.disk.len()
    }

    /// The structure at `offset`, where the disk has it.
    pub(super) fn structure<T: FromBytes>(&self, offset: u64) -> Option<T> {
        T::read_from_bytes(&self.bytes(offset, size_of::<T>())?).ok()
    }

    /// The bytes at `offset`, where the disk has them.
    pub(super) fn bytes(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        check_range(offset, len, self.len()).ok()?;
        self.read(offset, len).ok()
    }

    pub(super) fn has(&self, magic: &[u8], offset: u64) -> bool {
        self.bytes(offset, magic.len()).is_some_and(|found| found == magic)
    }

    /// The bytes at `offset`. `len` is bounded by the caller.
    pub(super) fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        check_range(offset, len, self.len())?;
        let mut bytes = vec![0; len];
        self.disk.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Text up to its first NUL, without blanks at its end; `None` where there is none.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(bytes);
    Some(text.trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// Text in units of two bytes, whose order `unit` knows.
pub(super) fn text16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, _) = bytes.as_chunks::<2>();
    let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).take_while(|unit| *unit != 0).collect();
    Some(String::from_utf16_lossy(&units).trim_end().to_owned()).filter(|text| !text.is_empty())
}

/// A UUID in its usual form; `None` where it is all zeroes.
pub(super) fn uuid(bytes: &[u8; 16]) -> Option<String> {
    (*bytes != [0; 16]).then(|| Uuid::from_bytes(*bytes).to_string())
}

/// The first `N` bytes from `at` on, or zeroes where there are fewer.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(field(bytes, at))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(field(bytes, at))
}

pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(field(bytes, at))
}

/// CRC-32C with a start of its own, and not inverted at its end.
pub(super) fn crc32c_raw(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// A checksum as messages show it.
pub(super) fn hex(sum: u32) -> String {
    format!("{sum:#010x}")
}

/// What a message says of a checksum that is not the stored one.
pub(super) fn checksum_is(sum: u32) -> String {
    format!("the checksum is {}", hex(sum))
}
