//! Where dm-integrity keeps what (drivers/md/dm-integrity.c: `calculate_journal_section_size`,
//! `calculate_device_limits`, `get_metadata_sector_and_offset`, `get_data_sector`).
//!
//! ```text
//!  superblock │ journal: sections   │ tags of area 0 │ data of area 0 │ tags of area 1 │ data of area 1 │ …
//!  8 sectors  │ section_sectors each│ metadata_run   │ 2^interleave   │
//!             ╰─ initial_sectors ──▶│
//! ```
//!
//! A journal section is 8 sectors with entries and then a block of data for each entry.

use super::superblock::Superblock;
use crate::error::{Error, Result};
use crate::limits::INTEGRITY_JOURNAL_MAX;

const SECTOR: u64 = 512;
/// Sectors of the superblock.
const SB_SECTORS: u64 = 8;
/// Sectors with entries at the start of a journal section.
pub const ENTRY_SECTORS: u64 = 8;
/// Bytes of a journal sector before its commit id.
const SECTOR_SPACE: u64 = 504;
/// The padding of tag areas, in bytes: as it was meant to be, and as it was before the flag was made.
const PADDING: [u64; 2] = [8 << 9, 1 << 9 << 8];
/// Tags are read and written in buffers of at most so many sectors, whose positions are multiples of their size. This
/// is dm-integrity's default (`buffer_sectors`), and cryptsetup has no option for it.
const LOG2_BUFFER_SECTORS: u32 = 7;

/// Where everything lies. All positions that it gives are below 2^63 bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Where the superblock is, in bytes of the data file.
    start: u64,
    /// Sectors from `start` to the first area.
    initial_sectors: u64,
    /// Sectors of tags in each area.
    metadata_run: u64,
    log2_interleave_sectors: u8,
    pub log2_sectors_per_block: u8,
    log2_buffer_sectors: u32,
    pub tag_size: u64,
    pub provided_data_sectors: u64,
    pub journal: JournalLayout,
}

/// The journal's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLayout {
    /// Where it starts, in bytes of the data file.
    pub start: u64,
    pub sections: u32,
    /// Sectors of a section.
    pub section_sectors: u64,
    /// Entries of a section: the n-th is in sector n % 8.
    pub section_entries: u64,
    /// Bytes of an entry: sector number, the last 8 bytes of each sector of its data, and the tag.
    pub entry_size: u64,
}

/// Where a block lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its data, in bytes of the data file.
    pub data: u64,
    /// Its tag, in bytes of the data file.
    pub tag: u64,
    /// How many blocks from it on lie side by side, and their tags too.
    pub blocks: u64,
}

impl Layout {
    /// The layout of what follows the superblock at byte `start` of the data file.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "products of numbers of at most 16 bits with one of 32, and shifts that the superblock bounds"
    )]
    pub fn new(sb: &Superblock, start: u64) -> Result<Self> {
        let sectors_per_block = 1u64 << sb.log2_sectors_per_block;
        let tag_size = u64::from(sb.integrity_tag_size);
        let entry_size = (8 + 8 * sectors_per_block + tag_size).next_multiple_of(8);
        let section_entries = SECTOR_SPACE / entry_size * ENTRY_SECTORS;
        if section_entries == 0 {
            let message = format!("found {tag_size} bytes; a journal sector has no room for such a tag");
            return Err(Error::corrupt("integrity.superblock.integrity_tag_size", message).at(start));
        }
        let section_sectors = section_entries * sectors_per_block + ENTRY_SECTORS;
        let journal_sectors = section_sectors * u64::from(sb.journal_sections);
        if journal_sectors * SECTOR > INTEGRITY_JOURNAL_MAX {
            let message = format!(
                "found {} sections, a journal of {} bytes; at most {INTEGRITY_JOURNAL_MAX} are allowed",
                sb.journal_sections,
                journal_sectors * SECTOR
            );
            return Err(Error::limit("integrity.superblock.journal_sections", message).at(start));
        }
        let padding = PADDING[usize::from(!sb.fixed_padding)];
        let tags = tag_size << (sb.log2_interleave_sectors - sb.log2_sectors_per_block);
        let metadata_run = tags.next_multiple_of(padding) / SECTOR;
        let journal_start = start.checked_add(SB_SECTORS * SECTOR);
        let layout = Self {
            start,
            initial_sectors: SB_SECTORS + journal_sectors,
            metadata_run,
            log2_interleave_sectors: sb.log2_interleave_sectors,
            log2_sectors_per_block: sb.log2_sectors_per_block,
            log2_buffer_sectors: metadata_run.trailing_zeros().min(LOG2_BUFFER_SECTORS),
            tag_size,
            provided_data_sectors: sb.provided_data_sectors,
            journal: JournalLayout {
                start: journal_start.unwrap_or(u64::MAX),
                sections: sb.journal_sections,
                section_sectors,
                section_entries,
                entry_size,
            },
        };
        // Once the end is known to be within bounds, no other position can overflow.
        match layout.end() {
            Some(_) => Ok(layout),
            None => {
                let message = format!("found {}; no file is so long", sb.provided_data_sectors);
                Err(Error::corrupt("integrity.superblock.provided_data_sectors", message).at(start))
            }
        }
    }

    /// The byte after the last block's data; `None` where that is more than 2^63, which `new` refuses.
    #[expect(clippy::arithmetic_side_effects, reason = "log2_interleave_sectors is at most 31")]
    pub fn end(&self) -> Option<u64> {
        let areas = self.provided_data_sectors.checked_add((1 << self.log2_interleave_sectors) - 1)?;
        let tags = (areas >> self.log2_interleave_sectors).checked_mul(self.metadata_run)?;
        let sectors = self.provided_data_sectors.checked_add(tags)?.checked_add(self.initial_sectors)?;
        sectors.checked_mul(SECTOR)?.checked_add(self.start).filter(|end| *end < 1 << 63)
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> u64 {
        self.provided_data_sectors >> self.log2_sectors_per_block
    }

    /// The byte after the journal, where the areas begin.
    #[expect(clippy::arithmetic_side_effects, reason = "`new` has refused an end beyond 2^63 bytes")]
    pub fn first_area(&self) -> u64 {
        self.start + self.initial_sectors * SECTOR
    }

    /// How many blocks, with their tags, lie before byte `len` of the data file.
    pub fn blocks_before(&self, len: u64) -> u64 {
        self.sectors_before(len).min(self.provided_data_sectors) >> self.log2_sectors_per_block
    }

    /// How many sectors of data have room before byte `len` of the data file, with their tags.
    #[expect(clippy::arithmetic_side_effects, reason = "an area has sectors, of which metadata_run are below 2^48")]
    pub fn sectors_before(&self, len: u64) -> u64 {
        let interleave = 1u64 << self.log2_interleave_sectors;
        let sectors = len.saturating_sub(self.first_area()) / SECTOR;
        let area = interleave + self.metadata_run;
        let rest = (sectors % area).saturating_sub(self.metadata_run);
        (sectors / area).saturating_mul(interleave).saturating_add(rest)
    }

    /// Where block `block` lies, which must be one of [`Layout::blocks`].
    #[expect(clippy::arithmetic_side_effects, reason = "`new` has refused an end beyond 2^63 bytes")]
    pub fn place(&self, block: u64) -> Place {
        let sector = block << self.log2_sectors_per_block;
        let area = sector >> self.log2_interleave_sectors;
        let before = (area << self.log2_interleave_sectors) + area * self.metadata_run;
        let offset = sector - (area << self.log2_interleave_sectors);
        let in_area = offset >> self.log2_sectors_per_block;
        // With an interleave below the size of a buffer, the kernel's tag areas start where a buffer does.
        let tags = before >> self.log2_buffer_sectors << self.log2_buffer_sectors;
        let area_blocks = 1u64 << (self.log2_interleave_sectors - self.log2_sectors_per_block);
        Place {
            data: self.first_area() + (before + self.metadata_run + offset) * SECTOR,
            tag: self.first_area() + tags * SECTOR + in_area * self.tag_size,
            blocks: (area_blocks - in_area).min(self.blocks() - block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock(tag: u16, log2_block: u8, log2_interleave: u8, sections: u32, provided: u64) -> Superblock {
        Superblock {
            log2_interleave_sectors: log2_interleave,
            integrity_tag_size: tag,
            journal_sections: sections,
            provided_data_sectors: provided,
            log2_sectors_per_block: log2_block,
            fixed_padding: true,
            dirty_bitmap: false,
        }
    }

    /// What the kernel's `dmsetup table` says of journal_sectors, and the plaintext's size, for devices of known size:
    /// a device that is one sector shorter than `end` would provide fewer sectors.
    #[test]
    fn journal_and_end_are_the_kernels() {
        for (tag, log2_block, sections, provided, journal_sectors, device) in [
            (28, 3, 1, 656, 264, 589_824),
            (32, 3, 1, 240, 264, 393_216),
            (28, 0, 1, 64, 88, 999_424),
            (32, 0, 1, 64, 88, 1_130_496),
            (64, 1, 1, 64, 88, 1_130_496),
            (48, 2, 1, 64, 168, 516_096),
        ] {
            let layout = Layout::new(&superblock(tag, log2_block, 15, sections, provided), 0).unwrap();
            let name = format!("tag {tag}, block {log2_block}");
            assert_eq!(layout.journal.section_sectors * u64::from(sections), journal_sectors, "{name}");
            assert_eq!(layout.end(), Some(device), "{name}");
            assert_eq!(layout.blocks_before(device), provided >> log2_block, "{name}");
            assert_eq!(layout.blocks_before(device - 1), (provided >> log2_block) - 1, "{name}");
        }
    }

    #[test]
    fn areas_lie_one_behind_the_other() {
        // Tags of 28 bytes for 64 sectors: 1792 bytes, padded to 8 sectors.
        let layout = Layout::new(&superblock(28, 0, 6, 3, 200), 98_304).unwrap();
        assert_eq!(layout.journal.start, 98_304 + 4096);
        let first = 98_304 + (8 + 3 * 88) * 512;
        assert_eq!(layout.first_area(), first);
        assert_eq!(layout.place(0), Place { data: first + 8 * 512, tag: first, blocks: 64 });
        assert_eq!(layout.place(63), Place { data: first + 71 * 512, tag: first + 63 * 28, blocks: 1 });
        assert_eq!(layout.place(64), Place { data: first + 80 * 512, tag: first + 72 * 512, blocks: 64 });
        assert_eq!(layout.place(193), Place { data: first + 225 * 512, tag: first + 216 * 512 + 28, blocks: 7 });
        for blocks in 0..=200 {
            let len = match blocks {
                0 => 0,
                n => layout.place(n - 1).data + 512,
            };
            assert_eq!(layout.blocks_before(len), blocks);
            assert_eq!(layout.blocks_before(len + 511), blocks);
        }
        assert_eq!(layout.blocks_before(u64::MAX), 200);
    }

    /// Before the padding was fixed, it was 256 sectors.
    #[test]
    fn the_old_padding_is_longer() {
        let mut sb = superblock(28, 0, 7, 1, 300);
        assert_eq!(Layout::new(&sb, 0).unwrap().metadata_run, 8);
        sb.fixed_padding = false;
        let layout = Layout::new(&sb, 0).unwrap();
        assert_eq!(layout.metadata_run, 256);
        assert_eq!(layout.place(128).data - layout.place(127).data, 257 * 512);
        // An area of 8 sectors is no multiple of a buffer: the next one's tags start at the buffer before it.
        sb.log2_interleave_sectors = 3;
        let layout = Layout::new(&sb, 0).unwrap();
        assert_eq!((layout.place(8).tag - layout.place(0).tag) / 512, 256);
        assert_eq!((layout.place(8).data - layout.place(0).data) / 512, 264);
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let e = Layout::new(&superblock(28, 3, 15, u32::MAX, 656), 0).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::LimitExceeded);
        let e = Layout::new(&superblock(500, 3, 15, 1, 656), 0).unwrap_err();
        assert_eq!(e.rule(), "integrity.superblock.integrity_tag_size");
        for provided in [u64::MAX - 7, 1 << 62, 1 << 54] {
            let e = Layout::new(&superblock(424, 3, 31, 1, provided), 0).unwrap_err();
            assert_eq!(e.rule(), "integrity.superblock.provided_data_sectors");
        }
        assert!(Layout::new(&superblock(28, 3, 15, 1, 656), u64::MAX).is_err());
    }

    proptest::proptest! {
        /// Blocks never overlap each other or the tags of their own area, and stay before the end.
        #[test]
        fn places_are_apart(
            tag in 1u16..=424, log2_block in 0u8..=3, log2_interleave in 7u8..=20, provided in 1u64..100_000, at in 0u64..100_000
        ) {
            let sb = superblock(tag, log2_block, log2_interleave, 1, provided << log2_block);
            let Ok(layout) = Layout::new(&sb, 4096) else { return Ok(()) };
            let block = at % layout.blocks();
            let place = layout.place(block);
            let size = 512u64 << log2_block;
            proptest::prop_assert!(place.tag >= layout.first_area());
            proptest::prop_assert!(place.tag + place.blocks * layout.tag_size <= place.data);
            proptest::prop_assert!(place.data + place.blocks * size <= layout.end().unwrap());
            let next = block + place.blocks;
            if next < layout.blocks() {
                proptest::prop_assert!(layout.place(next).tag >= place.data + place.blocks * size);
                proptest::prop_assert_eq!(layout.blocks_before(layout.place(next).data), next);
            }
        }
    }
}
