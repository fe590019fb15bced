//! dm-integrity's journal, replayed in memory (drivers/md/dm-integrity.c, `replay_journal` and `do_journal_write`).
//!
//! A write goes to the journal first. After a crash the newest data of a block may be there and nowhere else, and the
//! kernel copies it to its place when the device is opened. Here only its place in the journal is kept, and what is
//! read from there takes precedence.
//!
//! | bytes of a journal sector | |
//! |---|---|
//! | 0..504 | entries, in the first 8 sectors of a section; data in all others |
//! | 504..512 | commit id: one of four constants, XORed with section << 32 ^ sector |
//!
//! | bytes of an entry | |
//! |---|---|
//! | 0..8 | the block's first data sector; the high half is -1 where the entry is not used |
//! | 8.. | for each sector of the block the 8 bytes that the commit id took the place of |
//! | then | the tag |
//!
//! Each time that the writing comes round to the first section, it takes the next of the four commit ids: so those of a
//! section tell whether it belongs to the last round, the one before it, or was never wholly written.

use std::collections::BTreeMap;
use std::ops::Range;

use super::layout::{ENTRY_SECTORS, JournalLayout, Layout};
use crate::error::{Condition, Error, Result};
use crate::io::ReadAt;
use crate::num::{at_most, to_usize};

const SECTOR: usize = 512;
/// Where a sector's commit id is.
const COMMIT_ID: usize = 504;
const COMMIT_IDS: [u64; 4] =
    [0x1111_1111_1111_1111, 0x2222_2222_2222_2222, 0x3333_3333_3333_3333, 0x4444_4444_4444_4444];
/// The high half of an entry's sector where it is not used.
const UNUSED: u64 = 0xffff_ffff;

/// The entry that holds the newest data of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    section: u32,
    entry: u32,
}

/// The blocks whose newest data is in the journal.
#[derive(Debug, Default)]
pub struct Journal {
    newest: BTreeMap<u64, Slot>,
}

/// The place of `n` in the round of four commit ids, `steps` on.
#[expect(clippy::arithmetic_side_effects, reason = "of four")]
fn turn(n: usize, steps: usize) -> usize {
    (n + steps) % COMMIT_IDS.len()
}

/// What the commit ids of all sections say.
struct Commits {
    /// The commit id that all sectors of a section have, by its number; `None` where they differ.
    of_section: Vec<Option<u8>>,
    /// For each commit id the last section that has it.
    last_with: [Option<u32>; 4],
    /// No entry is used.
    empty: bool,
}

impl Journal {
    /// Reads the journal and finds what the kernel would write from it to its place.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), rule `integrity.journal`, where the kernel would give up;
    /// `truncated` where the data file ends before the journal does.
    pub fn replay(data: &dyn ReadAt, layout: &Layout) -> Result<Self> {
        if layout.first_area() > data.len() {
            let message = format!("the data ends at byte {}, before the end of dm-integrity's journal", data.len());
            return Err(Error::corrupt("truncated", message).at(data.len()));
        }
        let commits = Commits::read(data, &layout.journal)?;
        let sections = commits.to_replay(layout.journal.sections).map_err(|e| e.at(layout.journal.start))?;
        let mut journal = Self::default();
        let mut sectors = [0; ENTRY_SECTORS_BYTES];
        for section in sections {
            data.read_exact_at(&mut sectors, section_at(&layout.journal, section))?;
            journal.take(&sectors, section, layout)?;
        }
        Ok(journal)
    }

    /// Takes the entries of a section; newer ones come later and replace older ones.
    fn take(&mut self, sectors: &[u8], section: u32, layout: &Layout) -> Result<()> {
        for (entry, bytes) in entries(sectors, &layout.journal) {
            let sector = number(bytes, 0);
            if sector >> 32 == UNUSED {
                continue;
            }
            if !sector.is_multiple_of(1 << layout.log2_sectors_per_block) {
                let message =
                    format!("entry {entry} of section {section} is of sector {sector}, which starts no block");
                return Err(damaged(message).at(section_at(&layout.journal, section)));
            }
            if sector < layout.provided_data_sectors {
                self.newest.insert(sector >> layout.log2_sectors_per_block, Slot { section, entry });
            }
        }
        Ok(())
    }

    /// Whether nothing is replayed.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.newest.is_empty()
    }

    /// Those of `blocks` whose newest data is here.
    pub fn of(&self, blocks: Range<u64>) -> impl Iterator<Item = (u64, Slot)> {
        self.newest.range(blocks).map(|(block, slot)| (*block, *slot))
    }
}

impl Slot {
    #[expect(clippy::arithmetic_side_effects, reason = "the journal is one of the layout, and so within 2^63 bytes")]
    /// Reads the block's data and tag, and gives the byte of the data file that the data is at.
    pub fn read(self, data: &dyn ReadAt, layout: &Layout, block: &mut [u8], tag: &mut [u8]) -> Result<u64> {
        let journal = &layout.journal;
        let section = section_at(journal, self.section);
        let entry = u64::from(self.entry);
        let mut buf = [0; SECTOR];
        let bytes = &mut buf[..at_most(journal.entry_size, SECTOR)];
        data.read_exact_at(bytes, section + entry % ENTRY_SECTORS * 512 + entry / ENTRY_SECTORS * journal.entry_size)?;
        let at = section + (ENTRY_SECTORS + (entry << layout.log2_sectors_per_block)) * 512;
        data.read_exact_at(block, at)?;
        let (last_bytes, rest) = bytes[8..].split_at(block.len() / SECTOR * 8);
        for (sector, last) in block.chunks_exact_mut(SECTOR).zip(last_bytes.chunks_exact(8)) {
            sector[COMMIT_ID..].copy_from_slice(last);
        }
        tag.copy_from_slice(&rest[..tag.len()]);
        Ok(at)
    }
}

const ENTRY_SECTORS_BYTES: usize = 8 * SECTOR;

/// Where a section starts, in bytes of the data file.
#[expect(clippy::arithmetic_side_effects, reason = "the journal is one of the layout, and so within 2^63 bytes")]
fn section_at(journal: &JournalLayout, section: u32) -> u64 {
    journal.start + u64::from(section) * journal.section_sectors * 512
}

/// The entries in the first sectors of a section, by number.
#[expect(clippy::arithmetic_side_effects, reason = "each entry is below 504 bytes, in one of 8 sectors")]
fn entries<'a>(sectors: &'a [u8], journal: &JournalLayout) -> impl Iterator<Item = (u32, &'a [u8])> {
    let size = at_most(journal.entry_size, SECTOR);
    // More entries than the sectors have bytes there are not.
    let count = at_most(journal.section_entries, sectors.len());
    (0u32..).zip((0..count).map(move |n| &sectors[n % 8 * SECTOR + n / 8 * size..][..size]))
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

fn damaged(message: String) -> Error {
    Error::corrupt("integrity.journal", message).with_condition(Condition::IntegrityJournal)
}

impl Commits {
    fn read(data: &dyn ReadAt, journal: &JournalLayout) -> Result<Self> {
        let mut commits = Self { of_section: Vec::new(), last_with: [None; 4], empty: true };
        let len = journal.section_sectors.saturating_mul(512);
        let mut buf = vec![0; to_usize(len)?];
        for section in 0..journal.sections {
            data.read_exact_at(&mut buf, section_at(journal, section))?;
            commits.take(&buf, section, journal).map_err(|e| e.at(section_at(journal, section)))?;
        }
        Ok(commits)
    }

    fn take(&mut self, buf: &[u8], section: u32, journal: &JournalLayout) -> Result<()> {
        let mut all = None;
        let mut differ = false;
        for (sector, bytes) in (0u64..).zip(buf.chunks_exact(SECTOR)) {
            let found = number(bytes, COMMIT_ID) ^ (u64::from(section) << 32) ^ sector;
            let Some((n, _)) = (0u8..).zip(COMMIT_IDS).find(|(_, id)| *id == found) else {
                let message = format!("sector {sector} of section {section} has no commit id: it was overwritten");
                return Err(damaged(message));
            };
            self.last_with[usize::from(n)] = Some(section);
            differ |= *all.get_or_insert(n) != n;
        }
        self.of_section.push(all.filter(|_| !differ));
        self.empty &= entries(buf, journal).all(|(_, entry)| number(entry, 0) >> 32 == UNUSED);
        Ok(())
    }

    /// The sections whose entries the kernel replays, in its order.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a journal of INTEGRITY_JOURNAL_MAX has at most a million sections"
    )]
    fn to_replay(&self, sections: u32) -> Result<Vec<u32>> {
        // The commit id of the last round is the one before the first that is not in use, in the round of four.
        let used = self.last_with.map(|last| last.is_some());
        let unused = match used {
            [.., false] => used.iter().rposition(|used| *used).map_or(0, |n| n + 1),
            _ => used.iter().position(|used| !used).ok_or_else(|| damaged("all four commit ids are in use".into()))?,
        };
        let last_used = turn(unused, 3);
        let mut wanted = turn(last_used, 3);
        let empty = self.empty || !used[wanted] && used[turn(wanted, 3)];
        // The oldest section is the one behind the newest; it has the commit id of the round before.
        let mut section = self.last_with[last_used].unwrap_or(0) + 1;
        let mut replayed = Vec::new();
        for _ in 0..sections {
            if section >= sections {
                (section, wanted) = (0, turn(wanted, 1));
            }
            let of_section = usize::try_from(section).ok().and_then(|n| *self.of_section.get(n)?);
            if of_section.map(usize::from) != Some(wanted) {
                break;
            }
            replayed.push(section);
            section += 1;
        }
        Ok(if empty { Vec::new() } else { replayed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::integrity::superblock::Superblock;

    const BLOCK: usize = 1024;

    fn layout(sections: u32) -> Layout {
        let sb = Superblock {
            log2_interleave_sectors: 15,
            integrity_tag_size: 20,
            journal_sections: sections,
            provided_data_sectors: 1000,
            log2_sectors_per_block: 1,
            fixed_padding: true,
            dirty_bitmap: false,
        };
        Layout::new(&sb, 0).unwrap()
    }

    /// A journal as the kernel writes it: each section has a commit id, and entries (sector, filling byte).
    fn device(sections: &[(usize, &[(u64, u8)])]) -> (Layout, Vec<u8>) {
        let layout = layout(u32::try_from(sections.len()).unwrap());
        let journal = layout.journal;
        let mut device = vec![0; usize::try_from(layout.first_area()).unwrap()];
        for (section, (commit, used)) in (0u32..).zip(sections) {
            let at = usize::try_from(section_at(&journal, section)).unwrap();
            let size = usize::try_from(journal.entry_size).unwrap();
            for n in 0..usize::try_from(journal.section_entries).unwrap() {
                let entry = at + n % 8 * SECTOR + n / 8 * size;
                device[entry..entry + 8].fill(0xff);
                if let Some((sector, fill)) = used.get(n) {
                    device[entry..entry + 8].copy_from_slice(&sector.to_le_bytes());
                    device[entry + 8..entry + 8 + 16].fill(*fill);
                    device[entry + 24..entry + 24 + 20].fill(fill ^ 0x80);
                    device[at + (8 + 2 * n) * SECTOR..][..BLOCK].fill(*fill);
                }
            }
            for sector in 0..journal.section_sectors {
                let id = COMMIT_IDS[*commit] ^ (u64::from(section) << 32) ^ sector;
                let sector = usize::try_from(sector).unwrap();
                device[at + sector * SECTOR + COMMIT_ID..][..8].copy_from_slice(&id.to_le_bytes());
            }
        }
        (layout, device)
    }

    /// What is replayed: the block, and the byte it is filled with.
    fn replayed(sections: &[(usize, &[(u64, u8)])]) -> Vec<(u64, u8)> {
        let (layout, device) = device(sections);
        let journal = Journal::replay(&device, &layout).unwrap();
        let read = |(block, slot): (u64, Slot)| {
            let (mut data, mut tag) = ([0; BLOCK], [0; 20]);
            slot.read(&device, &layout, &mut data, &mut tag).unwrap();
            assert_eq!(data, [data[0]; BLOCK]);
            assert_eq!(tag, [data[0] ^ 0x80; 20]);
            (block, data[0])
        };
        journal.of(0..u64::MAX).map(read).collect()
    }

    const NONE: &[(u64, u8)] = &[];

    #[test]
    fn a_journal_that_was_just_made_is_empty() {
        assert_eq!(replayed(&[(0, NONE), (0, NONE), (0, NONE)]), []);
        assert_eq!(replayed(&[(2, NONE)]), []);
    }

    #[test]
    fn the_newest_data_wins() {
        // Two rounds: sections 0 and 1 are of the newer one.
        let journal: &[(usize, &[_])] = &[(1, &[(4, 3), (6, 4)]), (1, &[(4, 5)]), (0, &[(4, 1), (8, 2)])];
        assert_eq!(replayed(journal), [(2, 5), (3, 4), (4, 2)]);
        // The four commit ids are gone round, too.
        let journal: &[(usize, &[_])] = &[(0, &[(4, 3), (4, 7)]), (3, &[(4, 1), (6, 2)])];
        assert_eq!(replayed(journal), [(2, 7), (3, 2)]);
    }

    #[test]
    fn a_section_that_was_not_wholly_written_ends_the_replay() {
        let (layout, mut device) = device(&[(1, &[(4, 3)]), (1, &[(4, 5)]), (0, &[(8, 2)])]);
        let at = usize::try_from(section_at(&layout.journal, 1)).unwrap();
        let old = COMMIT_IDS[0] ^ (1 << 32) ^ 9;
        device[at + 9 * SECTOR + COMMIT_ID..][..8].copy_from_slice(&old.to_le_bytes());
        let journal = Journal::replay(&device, &layout).unwrap();
        // Section 1 is still the last with commit id 1: the replay starts behind it, and ends before it.
        assert_eq!(journal.of(0..u64::MAX).map(|(block, _)| block).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(journal.of(0..3).map(|(_, slot)| slot).collect::<Vec<_>>(), [Slot { section: 0, entry: 0 }]);
    }

    #[test]
    fn sectors_beyond_the_end_are_left_out_and_odd_ones_refused() {
        assert_eq!(replayed(&[(1, &[(1000, 1), (998, 2), (0xffff_fffe_0000_0000, 3)]), (0, NONE)]), [(499, 2)]);
        let (layout, device) = device(&[(1, &[(3, 1)]), (0, NONE)]);
        assert_eq!(Journal::replay(&device, &layout).unwrap_err().rule(), "integrity.journal");
    }

    #[test]
    fn what_the_kernel_gives_up_on_is_refused() {
        let (layout, mut device) = device(&[(0, NONE), (1, NONE), (2, NONE), (3, NONE)]);
        let e = Journal::replay(&device, &layout).unwrap_err();
        assert!(e.message().contains("all four"), "{e}");
        device[usize::try_from(layout.journal.start).unwrap() + 511] ^= 1;
        let e = Journal::replay(&device, &layout).unwrap_err();
        assert!(e.message().contains("no commit id"), "{e}");
        device.pop();
        assert_eq!(Journal::replay(&device, &layout).unwrap_err().rule(), "truncated");
        assert!(Journal::default().is_empty());
    }

    proptest::proptest! {
        /// Bytes that somebody changed give an error or a replay, never a panic, and blocks that are there.
        #[test]
        fn changed_journals_do_no_harm(
            changes in proptest::collection::vec((0usize..40_000, 0u8..=255), 1..40), rounds in [0usize..4, 0..4, 0..4]
        ) {
            let rounds = rounds.map(|round| (round, &[(4u64, 1u8), (6, 2)][..]));
            let (layout, mut device) = device(&rounds);
            for (at, byte) in changes {
                let at = at % device.len();
                device[at] = byte;
            }
            if let Ok(journal) = Journal::replay(&device, &layout) {
                for (block, slot) in journal.of(0..u64::MAX) {
                    proptest::prop_assert!(block < layout.blocks());
                    slot.read(&device, &layout, &mut [0; BLOCK], &mut [0; 20]).unwrap();
                }
            }
        }
    }
}
