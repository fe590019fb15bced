//! F2FS: both superblocks, and both packs of checkpoints.
//!
//! | superblock bytes | field | checkpoint bytes | field |
//! |---|---|---|---|
//! | 0 | magic 0xf2f52010 | 0 | checkpoint_ver |
//! | 8, 12 | log_sectorsize, log_sectors_per_block | 132 | ckpt_flags: bit 0 unmounted |
//! | 16, 20 | log_blocksize, log_blocks_per_seg | 136 | cp_pack_total_block_count |
//! | 32, 36 | checksum_offset, block_count | 164 | checksum_offset |
//! | 76, 92 | cp_blkaddr, main_blkaddr | | |
//! | 108, 124 | uuid, volume_name in UTF-16 | | |
//! | 2180 | feature: bit 11, a checksum of the superblock | | |
//!
//! All little-endian. The superblocks lie at bytes 1024 and 5120. Of the two packs, one segment apart, that with the higher
//! version counts; the other may be half written. The source is Linux's `include/linux/f2fs_fs.h` and `fs/f2fs/super.c`.

use super::look::{Look, checksum_is, field, hex, le32, le64, text16, uuid};
use super::{Contents, Kind, Severity, State};
use crate::num::to_u64;

const PLACES: [u64; 2] = [1024, 5120];
const SIZE: usize = 3072;
const MAGIC: u32 = 0xf2f5_2010;
const FEATURE_SB_CHKSUM: u32 = 0x800;
const BLOCK: usize = 4096;

struct Superblock {
    bytes: Vec<u8>,
}

impl Superblock {
    fn read(look: &Look<'_>, offset: u64) -> Option<Self> {
        let superblock = Self { bytes: look.bytes(offset, SIZE)? };
        superblock.is_sane().then_some(superblock)
    }

    fn is_sane(&self) -> bool {
        let log = |at| le32(&self.bytes, at);
        log(0) == MAGIC
            && matches!(log(16), 12 | 14)
            && (9..=log(16)).contains(&log(8))
            && log(8).checked_add(log(12)) == Some(log(16))
            && log(20) == 9
            && self.blocks() > 0
            && u64::from(log(76)) < self.blocks()
    }

    fn block_size(&self) -> u64 {
        1 << le32(&self.bytes, 16).min(16)
    }

    fn blocks(&self) -> u64 {
        le64(&self.bytes, 36)
    }

    /// The stored checksum and the right one, where there is one.
    fn checksums(&self) -> Option<(u32, u32)> {
        let at = usize::try_from(le32(&self.bytes, 32)).ok()?;
        let has = le32(&self.bytes, 2180) & FEATURE_SB_CHKSUM != 0 && at != 0;
        let covered = self.bytes.get(..at).filter(|_| has && at <= SIZE.saturating_sub(4))?;
        Some((le32(&self.bytes, at), crc(covered)))
    }

    fn is_proved(&self) -> bool {
        self.checksums().is_none_or(|(stored, right)| stored == right)
    }
}

/// CRC-32 that begins with the magic, and is not inverted.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!MAGIC);
    hasher.update(bytes);
    !hasher.finalize()
}

/// The first superblock that is whole, or else the first that is sane.
fn superblock(look: &Look<'_>) -> Option<Superblock> {
    let mut all: Vec<Superblock> = PLACES.iter().filter_map(|place| Superblock::read(look, *place)).collect();
    let whole = all.iter().position(Superblock::is_proved).unwrap_or(0);
    (!all.is_empty()).then(|| all.swap_remove(whole))
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let superblock = superblock(look)?;
    let mut contents = Contents::new(Kind::F2fs, look);
    contents.uuid = uuid(&field(&superblock.bytes, 108));
    contents.label = superblock.bytes.get(124..1148).and_then(|name| text16(name, u16::from_le_bytes));
    contents.block_size = Some(superblock.block_size());
    contents.size = superblock.is_proved().then(|| superblock.blocks().saturating_mul(superblock.block_size()));
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    for (n, place) in PLACES.into_iter().enumerate() {
        let structure = || (format!("superblock {n}"), place);
        let severity = if n == 0 { Severity::Error } else { Severity::Warning };
        match Superblock::read(look, place) {
            None => {
                let expected = "the other is whole";
                contents.find(severity, "contents.f2fs.superblock", structure(), "no sane fields", expected);
            }
            Some(superblock) => {
                if let Some((stored, right)) = superblock.checksums().filter(|(stored, right)| stored != right) {
                    let code = "contents.f2fs.superblock-checksum";
                    contents.find(severity, code, structure(), hex(stored), checksum_is(right));
                }
            }
        }
    }
    let Some(superblock) = superblock(look) else { return };
    if superblock.block_size() != to_u64(BLOCK) {
        return;
    }
    let first = u64::from(le32(&superblock.bytes, 76)).saturating_mul(superblock.block_size());
    let second = first.saturating_add(superblock.block_size().saturating_mul(512));
    let mut newest: Option<(u64, u32)> = None;
    let mut is_unread = false;
    for place in [first, second] {
        match look.read(place, BLOCK) {
            Ok(bytes) => newest = newest.max(checkpoint(&bytes)),
            Err(e) => {
                is_unread = true;
                contents.unread(look, ("a checkpoint", place), to_u64(BLOCK), &e);
            }
        }
    }
    match newest {
        Some((_, flags)) => contents.state = if flags & 1 != 0 { State::Clean } else { State::JournalToReplay },
        None if is_unread => {}
        None => {
            let structure = ("both checkpoints", first);
            let expected = "one with a right checksum is wanted";
            contents.find(Severity::Error, "contents.f2fs.checkpoint", structure, "wrong checksums", expected);
        }
    }
}

/// The version and the flags of a checkpoint whose checksum is right.
fn checkpoint(bytes: &[u8]) -> Option<(u64, u32)> {
    let at = usize::try_from(le32(bytes, 164)).ok().filter(|at| (192..=BLOCK.saturating_sub(4)).contains(at))?;
    let is_right = crc(bytes.get(..at)?) == le32(bytes, at);
    is_right.then(|| (le64(bytes, 0), le32(bytes, 132)))
}
