//! What the first bytes of a file tell of it: what it is, and how long that is.

use std::path::Path;

use zerocopy::byteorder::little_endian::{U32, U64};

use crate::error::Result;
use crate::format::{Format, foreign, known};
use crate::io::{FileSource, Peek, ReadAt};

/// What a file begins as.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    Luks,
    Format(Format),
    Foreign(&'static str),
    Table,
    Md,
    Lvm,
}

/// The magic of md's superblocks.
const MD: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
/// Where a label of LVM may lie.
const LABELS: [u64; 4] = [0, 512, 1024, 1536];

impl Beginning {
    /// `None` where the file begins as nothing that is known, as the middle of an image does.
    pub(super) fn of(path: &Path) -> Result<Option<Self>> {
        let file = FileSource::open(path)?;
        let look = Peek::new(&file);
        let luks = [b"LUKS\xba\xbe", b"SKUL\xba\xbe"];
        if luks.iter().any(|magic| look.has(*magic, 0)) {
            return Ok(Some(Self::Luks));
        }
        if let Some(format) = known(&look) {
            return Ok(Some(Self::Format(format)));
        }
        if let Some(foreign) = foreign::unread(&look) {
            return Ok(Some(Self::Foreign(foreign.name)));
        }
        if look.has(&MD, 0) || look.has(&MD, 4096) {
            return Ok(Some(Self::Md));
        }
        if LABELS.iter().any(|at| look.has(b"LABELONE", *at)) {
            return Ok(Some(Self::Lvm));
        }
        Ok(partitions(&look).map(|_| Self::Table))
    }
}

/// The ends of the partitions of a master boot record, in sectors; `None` where there is none.
fn partitions(look: &Peek<'_>) -> Option<Vec<u64>> {
    let sector: [u8; 512] = look.bytes(0)?;
    let (entries, _) = sector.get(446..510)?.as_chunks::<16>();
    let is_table = sector.ends_with(&[0x55, 0xaa])
        && entries.iter().all(|entry| matches!(entry[0], 0 | 0x80))
        && entries.iter().any(|entry| entry[12..] != [0; 4]);
    let number = |entry: &[u8; 16], at: usize| {
        let bytes = entry.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
        u64::from(u32::from_le_bytes(bytes))
    };
    is_table.then(|| entries.iter().map(|entry| number(entry, 8).saturating_add(number(entry, 12))).collect())
}

/// How long what a file begins with is, against the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// It ends where the file does.
    Whole,
    /// It ends within the file.
    Fits,
    /// It has more bytes than the file, and how many.
    Longer(u64),
    /// It does not say.
    Untold,
}

impl Extent {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = FileSource::open(path)?;
        let len = file.len();
        let look = Peek::new(&file);
        // Members of arrays whose superblock is at their end, in version 1.0 and 0.90.
        let ends = [
            (len / 512).checked_sub(16).map(|sector| (sector & !7).saturating_mul(512)),
            (len & !0xffff).checked_sub(0x1_0000),
        ];
        if ends.iter().flatten().any(|at| look.has(&MD, *at)) {
            return Ok(Self::Whole);
        }
        Ok(Self::by(&look, len))
    }

    /// The same for a file of which the one at `path` is the first piece, and which has `len` bytes.
    pub(super) fn within(path: &Path, len: u64) -> Result<Self> {
        let file = FileSource::open(path)?;
        Ok(Self::by(&Peek::new(&file), len))
    }

    fn by(look: &Peek<'_>, len: u64) -> Self {
        let against = |size: u64| match size.cmp(&len) {
            std::cmp::Ordering::Equal => Self::Whole,
            std::cmp::Ordering::Less => Self::Fits,
            std::cmp::Ordering::Greater => Self::Longer(size),
        };
        let number = |at: u64| look.bytes(at).map(|bytes: [u8; 8]| U64::from_bytes(bytes).get());
        // A GPT names the sector of its other copy, which is the last.
        if let Some(sector) = [512, 4096_u64].into_iter().find(|sector| look.has(b"EFI PART", *sector)) {
            let last = number(sector.saturating_add(32)).unwrap_or(0);
            return against(last.saturating_add(1).saturating_mul(sector));
        }
        if let Some(at) = LABELS.iter().find(|at| look.has(b"LABELONE", **at)) {
            let header = look.bytes(at.saturating_add(20)).map_or(0, |bytes| U32::from_bytes(bytes).get());
            let size = number(at.saturating_add(u64::from(header)).saturating_add(32)).unwrap_or(0);
            return against(size);
        }
        if let Some(at) = [0, 4096_u64].iter().find(|at| look.has(&MD, **at)) {
            let (offset, size) = (number(at.saturating_add(128)), number(at.saturating_add(136)));
            let sectors = offset.unwrap_or(0).saturating_add(size.unwrap_or(0));
            // Behind the data a member may have some bytes to spare.
            return if against(sectors.saturating_mul(512)) == Self::Fits {
                Self::Whole
            } else {
                against(sectors.saturating_mul(512))
            };
        }
        if known(look).is_none()
            && let Some(ends) = partitions(look)
        {
            return match ends.into_iter().max().map(|end| against(end.saturating_mul(512))) {
                // Behind the last partition a disk may go on.
                Some(longer @ Self::Longer(_)) => longer,
                _ => Self::Fits,
            };
        }
        Self::Untold
    }
}

/// What a file begins with that begins as nothing that a piece could not begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A file system, or another disk that has a name.
    Disk,
    /// As encrypted data does.
    Noise,
    Zeroes,
    Other,
}

impl Start {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = FileSource::open(path)?;
        Ok(match foreign::kind(&file) {
            foreign::Kind::Marked => Self::Disk,
            foreign::Kind::Noise => Self::Noise,
            foreign::Kind::Zeroes => Self::Zeroes,
            foreign::Kind::Unknown => Self::Other,
        })
    }
}
