//! dm-integrity's superblock (drivers/md/dm-integrity.c, `struct superblock`). All numbers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..8 | magic `integrt\0` |
//! | 8, 9 | version, 1 to 5; log2_interleave_sectors, 3 to 31, or 0 with a meta device |
//! | 10..12 | integrity_tag_size in bytes |
//! | 12..16 | journal_sections |
//! | 16..24 | provided_data_sectors, of 512 bytes: the size of what lies above |
//! | 24..28 | flags: 1 journal MAC, 2 recalculating, 4 dirty bitmap, 8 fixed padding, 16 fixed HMAC |
//! | 28, 29 | log2_sectors_per_block, 0 to 3; log2_blocks_per_bitmap_bit |
//! | 32..40 | recalc_sector |
//! | 48..64 | salt, of the journal's MAC |

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};
use crate::io::ReadAt;

const MAGIC: [u8; 8] = *b"integrt\0";
const VERSION_MAX: u8 = 5;
const LOG2_INTERLEAVE: std::ops::RangeInclusive<u8> = 3..=31;

const HAVE_JOURNAL_MAC: u32 = 1;
const RECALCULATING: u32 = 2;
const DIRTY_BITMAP: u32 = 4;
const FIXED_PADDING: u32 = 8;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    version: u8,
    log2_interleave_sectors: u8,
    integrity_tag_size: U16,
    journal_sections: U32,
    provided_data_sectors: U64,
    flags: U32,
    log2_sectors_per_block: u8,
    log2_blocks_per_bitmap_bit: u8,
    pad: [u8; 2],
    recalc_sector: U64,
    pad2: [u8; 8],
    salt: [u8; 16],
}
const _: () = assert!(size_of::<Raw>() == 64);

/// A superblock that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    pub log2_interleave_sectors: u8,
    pub integrity_tag_size: u16,
    pub journal_sections: u32,
    pub provided_data_sectors: u64,
    pub log2_sectors_per_block: u8,
    pub fixed_padding: bool,
    /// The journal's place is taken by a bitmap.
    pub dirty_bitmap: bool,
}

impl Superblock {
    /// Reads the superblock at byte `at` of `data`, below sectors of `sector_size` bytes with `tag_size` bytes each, where
    /// that is known.
    pub fn read(data: &dyn ReadAt, at: u64, sector_size: u32, tag_size: Option<usize>) -> Result<Self> {
        let mut bytes = [0; size_of::<Raw>()];
        if data.len().saturating_sub(at) < 4096 {
            let message = format!("the data ends at byte {}, before the end of dm-integrity's superblock", data.len());
            return Err(Error::corrupt("truncated", message).at(data.len()));
        }
        data.read_exact_at(&mut bytes, at)?;
        Self::parse(&bytes, sector_size, tag_size).map_err(|e| e.at(at))
    }

    fn parse(bytes: &[u8; size_of::<Raw>()], sector_size: u32, tag_size: Option<usize>) -> Result<Self> {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        let Raw { magic, version, log2_interleave_sectors, flags, log2_sectors_per_block, .. } = *raw;
        let field = |name: &str| format!("integrity.superblock.{name}");
        if magic != MAGIC {
            let message = match bytes.iter().all(|b| *b == 0) {
                true => "found zeroes; the superblock was wiped, or the data starts elsewhere",
                false => "found no \"integrt\"; the superblock was overwritten, or the data starts elsewhere",
            };
            return Err(Error::corrupt(field("magic"), message));
        }
        if !(1..=VERSION_MAX).contains(&version) {
            let message = format!("found {version}; 1 to {VERSION_MAX} are known");
            return Err(Error::unsupported(field("version"), message));
        }
        if log2_interleave_sectors == 0 {
            let message = "found 0: the tags are on another device (a meta device), which is not supported";
            return Err(Error::unsupported(field("log2_interleave_sectors"), message));
        }
        if !LOG2_INTERLEAVE.contains(&log2_interleave_sectors) {
            let message = format!("found {log2_interleave_sectors}; 3 to 31 are allowed");
            return Err(Error::corrupt(field("log2_interleave_sectors"), message));
        }
        let found = raw.integrity_tag_size.get();
        if found == 0 {
            return Err(Error::corrupt(field("integrity_tag_size"), "found 0 bytes; dm-integrity stores at least 1"));
        }
        if let Some(wanted) = tag_size.filter(|wanted| *wanted != usize::from(found)) {
            let message = format!("found {found} bytes; the LUKS header's cipher has tags of {wanted}");
            return Err(Error::corrupt(field("integrity_tag_size"), message));
        }
        if 512u32.checked_shl(log2_sectors_per_block.into()) != Some(sector_size) || log2_sectors_per_block > 3 {
            let message = format!("found {log2_sectors_per_block}; the LUKS header has sectors of {sector_size} bytes");
            return Err(Error::corrupt(field("log2_sectors_per_block"), message));
        }
        if raw.journal_sections == 0 {
            return Err(Error::corrupt(field("journal_sections"), "found 0; at least 1 is needed"));
        }
        let flags = flags.get();
        if flags & HAVE_JOURNAL_MAC != 0 {
            let message = "the journal has a MAC (journal_mac), which no LUKS header has a key for";
            return Err(Error::unsupported(field("flags"), message));
        }
        if flags & RECALCULATING != 0 {
            let message = "its tags are being recalculated, which is done for tags of dm-integrity's own only";
            return Err(Error::unsupported(field("flags"), message).with_hint("the kernel refuses it, too"));
        }
        let provided = raw.provided_data_sectors.get();
        if provided == 0 || !provided.is_multiple_of(1 << log2_sectors_per_block) {
            let message = format!("found {provided}; a multiple of {} above 0 is allowed", 1 << log2_sectors_per_block);
            return Err(Error::corrupt(field("provided_data_sectors"), message));
        }
        Ok(Self {
            log2_interleave_sectors,
            integrity_tag_size: found,
            journal_sections: raw.journal_sections.get(),
            provided_data_sectors: provided,
            log2_sectors_per_block,
            fixed_padding: flags & FIXED_PADDING != 0,
            dirty_bitmap: flags & DIRTY_BITMAP != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use zerocopy::FromZeros;

    fn raw() -> Raw {
        Raw {
            magic: MAGIC,
            version: 4,
            log2_interleave_sectors: 15,
            integrity_tag_size: 28.into(),
            journal_sections: 1.into(),
            provided_data_sectors: 656.into(),
            flags: FIXED_PADDING.into(),
            log2_sectors_per_block: 3,
            ..Raw::new_zeroed()
        }
    }

    fn parse(raw: &Raw) -> Result<Superblock> {
        Superblock::parse(raw.as_bytes().try_into().unwrap(), 4096, Some(28))
    }

    #[test]
    fn a_good_one_is_read() {
        let sb = parse(&raw()).unwrap();
        assert_eq!((sb.provided_data_sectors, sb.journal_sections, sb.fixed_padding), (656, 1, true));
        assert!(!sb.dirty_bitmap);
        assert!(parse(&Raw { flags: (DIRTY_BITMAP | 16).into(), ..raw() }).unwrap().dirty_bitmap);
    }

    #[test]
    fn each_field_is_checked() {
        use ErrorKind::{Corrupt, Unsupported};
        for (raw, kind, field) in [
            (Raw::new_zeroed(), Corrupt, "magic"),
            (Raw { magic: *b"integrit", ..raw() }, Corrupt, "magic"),
            (Raw { version: 0, ..raw() }, Unsupported, "version"),
            (Raw { version: 6, ..raw() }, Unsupported, "version"),
            (Raw { log2_interleave_sectors: 0, ..raw() }, Unsupported, "log2_interleave_sectors"),
            (Raw { log2_interleave_sectors: 2, ..raw() }, Corrupt, "log2_interleave_sectors"),
            (Raw { log2_interleave_sectors: 32, ..raw() }, Corrupt, "log2_interleave_sectors"),
            (Raw { integrity_tag_size: 29.into(), ..raw() }, Corrupt, "integrity_tag_size"),
            (Raw { integrity_tag_size: 0.into(), ..raw() }, Corrupt, "integrity_tag_size"),
            (Raw { log2_sectors_per_block: 2, ..raw() }, Corrupt, "log2_sectors_per_block"),
            (Raw { log2_sectors_per_block: 35, ..raw() }, Corrupt, "log2_sectors_per_block"),
            (Raw { log2_sectors_per_block: 255, ..raw() }, Corrupt, "log2_sectors_per_block"),
            (Raw { journal_sections: 0.into(), ..raw() }, Corrupt, "journal_sections"),
            (Raw { flags: HAVE_JOURNAL_MAC.into(), ..raw() }, Unsupported, "flags"),
            (Raw { flags: RECALCULATING.into(), ..raw() }, Unsupported, "flags"),
            (Raw { provided_data_sectors: 0.into(), ..raw() }, Corrupt, "provided_data_sectors"),
            (Raw { provided_data_sectors: 7.into(), ..raw() }, Corrupt, "provided_data_sectors"),
        ] {
            let e = parse(&raw).unwrap_err();
            assert_eq!((e.kind(), e.rule()), (kind, &*format!("integrity.superblock.{field}")), "{e}");
        }
    }

    #[test]
    fn a_short_file_is_truncated() {
        let e = Superblock::read(&vec![0; 4095], 0, 4096, Some(28)).unwrap_err();
        assert_eq!(e.rule(), "truncated");
        assert_eq!(Superblock::read(&vec![0; 4096], 8192, 4096, Some(28)).unwrap_err().rule(), "truncated");
    }
}
