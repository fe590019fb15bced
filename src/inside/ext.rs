//! ext2, ext3 and ext4: the superblock, the group descriptors, and the superblock's backups; all else in `full`.
//!
//! | superblock bytes | field | descriptor bytes | field |
//! |---|---|---|---|
//! | 0x04, 0x150 | s_blocks_count, low and high | 0x00, 0x20 | bg_block_bitmap, low and high |
//! | 0x14, 0x18 | s_first_data_block, s_log_block_size | 0x04, 0x24 | bg_inode_bitmap |
//! | 0x20, 0x28 | s_blocks_per_group, s_inodes_per_group | 0x08, 0x28 | bg_inode_table |
//! | 0x38, 0x3a | s_magic 0xef53, s_state | 0x1e | bg_checksum |
//! | 0x5c, 0x60, 0x64 | features: compat, incompat, ro_compat | | |
//! | 0x68, 0x78 | s_uuid, s_volume_name | | |
//! | 0xfe, 0x270, 0x3fc | s_desc_size, s_checksum_seed, s_checksum | | |
//!
//! All little-endian. The superblock lies at byte 1024, the descriptors in the block behind it; the backups of both in
//! groups 1 and the powers of 3, 5 and 7. The source is Linux's `fs/ext4/ext4.h` and `super.c`, and e2fsprogs'
//! `lib/ext2fs/csum.c`. What is rejected as no superblock is what Linux refuses to mount.

mod attributes;
mod dirs;
#[cfg(feature = "read-ext")]
mod files;
mod full;
mod gather;
mod hash;
mod index;
mod journal;
mod map;
mod names;
mod resize;
mod sums;

#[cfg(feature = "read-ext")]
use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[cfg(feature = "read-ext")]
use super::look::Metered;
use super::look::{Look, checksum_is, crc32c_raw, hex, le16, le32, text, uuid};
use super::{Contents, Kind, Level, Severity, State};
use crate::error::counted;
#[cfg(feature = "read-ext")]
use crate::error::{Error, Result};
#[cfg(feature = "read-ext")]
use crate::io::ReadAt;
use crate::limits::{INSIDE_COPIES_MAX, INSIDE_TABLE_MAX};
#[cfg(feature = "read-ext")]
use crate::num::to_usize;
use crate::num::{at_most, to_u64};

#[cfg(feature = "read-ext")]
pub(crate) use files::{Data, Files, Node};

const SUPERBLOCK_AT: u64 = 1024;
const MAGIC: u16 = 0xef53;

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
/// What ext3 knows: file types, a journal to replay, descriptors in their own groups.
const INCOMPAT_EXT3: u32 = 0x16;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// What ext3 knows: sparse backups, large files, trees of directories.
const RO_COMPAT_EXT3: u32 = 0x7;
const STATE_VALID: u16 = 1;
const STATE_ERROR: u16 = 2;
const CRC32C: u8 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Superblock {
    s_inodes_count: U32,
    s_blocks_count_lo: U32,
    unused_08: [u8; 12],
    s_first_data_block: U32,
    s_log_block_size: U32,
    s_log_cluster_size: U32,
    s_blocks_per_group: U32,
    s_clusters_per_group: U32,
    s_inodes_per_group: U32,
    unused_2c: [u8; 12],
    s_magic: U16,
    s_state: U16,
    unused_3c: [u8; 16],
    s_rev_level: U32,
    unused_50: [u8; 8],
    s_inode_size: U16,
    s_block_group_nr: U16,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_volume_name: [u8; 16],
    unused_88: [u8; 118],
    s_desc_size: U16,
    unused_100: [u8; 4],
    s_first_meta_bg: U32,
    unused_108: [u8; 72],
    s_blocks_count_hi: U32,
    unused_154: [u8; 33],
    s_checksum_type: u8,
    unused_176: [u8; 214],
    s_backup_bgs: [U32; 2],
    unused_254: [u8; 28],
    s_checksum_seed: U32,
    unused_274: [u8; 392],
    s_checksum: U32,
}
const _: () = assert!(size_of::<Superblock>() == 1024);
const _: () = assert!(std::mem::offset_of!(Superblock, s_magic) == 0x38);
const _: () = assert!(std::mem::offset_of!(Superblock, s_desc_size) == 0xfe);
const _: () = assert!(std::mem::offset_of!(Superblock, s_blocks_count_hi) == 0x150);
const _: () = assert!(std::mem::offset_of!(Superblock, s_checksum_seed) == 0x270);

impl Superblock {
    /// The superblock at `offset`, where its fields can be those of one.
    fn read(look: &Look<'_>, offset: u64) -> Option<Self> {
        look.structure::<Self>(offset).filter(Self::is_sane)
    }

    fn is_sane(&self) -> bool {
        if self.s_magic.get() != MAGIC || self.s_log_block_size.get() > 6 {
            return false;
        }
        if self.has_incompat(INCOMPAT_JOURNAL_DEV) {
            return self.blocks() > 0;
        }
        let bits = self.block_size().saturating_mul(8);
        let per_group = |n: &U32| (1..=bits).contains(&u64::from(n.get()));
        let clusters = self.s_log_cluster_size.get();
        let cluster_ratio = clusters.checked_sub(self.s_log_block_size.get()).filter(|ratio| *ratio <= 20);
        let blocks_max = bits.saturating_mul(1 << cluster_ratio.unwrap_or(0));
        (1..=blocks_max).contains(&u64::from(self.s_blocks_per_group.get()))
            && per_group(&self.s_inodes_per_group)
            && self.s_first_data_block.get() <= 1
            && self.blocks() > u64::from(self.s_first_data_block.get())
            && self.s_inodes_count.get() > 0
            && u64::from(self.s_inodes_count.get())
                == self.groups().saturating_mul(u64::from(self.s_inodes_per_group.get()))
            && self.inode_size().is_power_of_two()
            && (128..=self.block_size()).contains(&self.inode_size())
    }

    fn has_incompat(&self, feature: u32) -> bool {
        self.s_feature_incompat.get() & feature != 0
    }

    fn has_ro_compat(&self, feature: u32) -> bool {
        self.s_feature_ro_compat.get() & feature != 0
    }

    fn block_size(&self) -> u64 {
        1024 << self.s_log_block_size.get().min(6)
    }

    fn blocks(&self) -> u64 {
        let high = if self.has_incompat(INCOMPAT_64BIT) { u64::from(self.s_blocks_count_hi.get()) } else { 0 };
        high << 32 | u64::from(self.s_blocks_count_lo.get())
    }

    /// Revision 0 has one size.
    fn inode_size(&self) -> u64 {
        if self.s_rev_level.get() == 0 { 128 } else { u64::from(self.s_inode_size.get()) }
    }

    fn size(&self) -> u64 {
        self.blocks().saturating_mul(self.block_size())
    }

    fn groups(&self) -> u64 {
        let blocks = self.blocks().saturating_sub(u64::from(self.s_first_data_block.get()));
        blocks.div_ceil(u64::from(self.s_blocks_per_group.get()).max(1))
    }

    fn desc_size(&self) -> u64 {
        if self.has_incompat(INCOMPAT_64BIT) { u64::from(self.s_desc_size.get()).max(32) } else { 32 }
    }

    /// The stored checksum and the right one, where it has one.
    fn checksums(&self) -> Option<(u32, u32)> {
        let has = self.has_ro_compat(RO_COMPAT_METADATA_CSUM) && self.s_checksum_type == CRC32C;
        let covered = self.as_bytes().get(..1020).unwrap_or_default();
        has.then(|| (self.s_checksum.get(), crc32c_raw(!0, covered)))
    }

    fn is_proved(&self) -> bool {
        self.checksums().is_none_or(|(stored, right)| stored == right)
    }

    /// What all checksums but the superblock's own begin with.
    fn seed(&self) -> u32 {
        if self.has_incompat(INCOMPAT_CSUM_SEED) { self.s_checksum_seed.get() } else { crc32c_raw(!0, &self.s_uuid) }
    }

    fn kind(&self) -> Kind {
        let newer = self.s_feature_incompat.get() & !INCOMPAT_EXT3 != 0
            || self.s_feature_ro_compat.get() & !RO_COMPAT_EXT3 != 0;
        if self.has_incompat(INCOMPAT_JOURNAL_DEV) {
            Kind::ExtJournal
        } else if newer {
            Kind::Ext4
        } else if self.s_feature_compat.get() & COMPAT_HAS_JOURNAL != 0 {
            Kind::Ext3
        } else {
            Kind::Ext2
        }
    }

    /// Whether a group has a backup of the superblock.
    fn has_super(&self, group: u64) -> bool {
        if group == 0 {
            return true;
        }
        if self.s_feature_compat.get() & COMPAT_SPARSE_SUPER2 != 0 {
            return self.s_backup_bgs.iter().any(|backup| u64::from(backup.get()) == group);
        }
        let is_power = |base: u64| {
            std::iter::successors(Some(base), |n| n.checked_mul(base)).take_while(|n| *n <= group).last() == Some(group)
        };
        !self.has_ro_compat(RO_COMPAT_SPARSE_SUPER) || group == 1 || [3, 5, 7].into_iter().any(is_power)
    }

    fn group_start(&self, group: u64) -> u64 {
        let first = u64::from(self.s_first_data_block.get());
        group.saturating_mul(u64::from(self.s_blocks_per_group.get())).saturating_add(first)
    }

    /// Where block `n` of the descriptors is, as a number of a block.
    fn descriptor_block(&self, n: u64) -> u64 {
        if self.has_incompat(INCOMPAT_META_BG) && n >= u64::from(self.s_first_meta_bg.get()) {
            let per_block = self.block_size().checked_div(self.desc_size()).unwrap_or(1);
            let group = n.saturating_mul(per_block);
            return self.group_start(group).saturating_add(u64::from(self.has_super(group)));
        }
        let first = if self.block_size() == 1024 { 2 } else { 1 };
        n.saturating_add(first)
    }

    /// What the backups must say as well.
    fn geometry(&self) -> [u64; 6] {
        [
            self.blocks(),
            self.block_size(),
            u64::from(self.s_blocks_per_group.get()),
            u64::from(self.s_inodes_per_group.get()),
            self.inode_size(),
            self.desc_size(),
        ]
    }

    fn contents(&self, look: &Look<'_>) -> Contents {
        let mut contents = Contents::new(self.kind(), look);
        contents.label = text(&self.s_volume_name);
        contents.uuid = uuid(&self.s_uuid);
        contents.block_size = Some(self.block_size());
        // One that is damaged is no witness.
        contents.size = self.is_proved().then(|| self.size());
        contents.state = if self.has_incompat(INCOMPAT_RECOVER) {
            State::JournalToReplay
        } else if self.s_state.get() & STATE_VALID == 0 && contents.kind != Kind::ExtJournal {
            State::Unclean
        } else {
            State::Clean
        };
        contents
    }
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let primary = Superblock::read(look, SUPERBLOCK_AT)?;
    let mut contents = primary.contents(look);
    // Its backup knows what a damaged one does not.
    if let Some((_, backup)) = (!primary.is_proved()).then(|| find_backup(look)).flatten() {
        contents.size = Some(backup.size());
    }
    Some(contents)
}

/// A file system whose first superblock is lost.
pub(super) fn probe_backup(look: &Look<'_>) -> Option<Contents> {
    find_backup(look).map(|(_, backup)| backup.contents(look))
}

/// The first backup that is whole, at the places that it has unless mkfs was told otherwise.
fn find_backup(look: &Look<'_>) -> Option<(u64, Superblock)> {
    let places = [1024u64, 2048, 4096].into_iter().flat_map(|block| {
        let first = u64::from(block == 1024);
        [1u64, 3].map(|group| (group, block, block.saturating_mul(8).saturating_mul(group).saturating_add(first)))
    });
    places.into_iter().find_map(|(group, block, start)| {
        let at = start.saturating_mul(block);
        let is_it = |backup: &Superblock| {
            u64::from(backup.s_block_group_nr.get()) == group
                && backup.block_size() == block
                && backup.group_start(group) == start
                && backup.is_proved()
        };
        Superblock::read(look, at).filter(is_it).map(|backup| (at, backup))
    })
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let primary = Superblock::read(look, SUPERBLOCK_AT);
    let structure = ("the superblock", SUPERBLOCK_AT);
    let superblock = match primary {
        Some(primary) if primary.is_proved() => primary,
        damaged => {
            if let Some((stored, right)) = damaged.as_ref().and_then(Superblock::checksums) {
                let code = "contents.ext.superblock-checksum";
                contents.find(Severity::Error, code, structure, hex(stored), checksum_is(right));
            }
            match find_backup(look) {
                Some((at, backup)) => {
                    if damaged.is_none() {
                        let expected = format!("its backup at byte {at} is whole");
                        contents.find(
                            Severity::Error,
                            "contents.ext.superblock",
                            structure,
                            "no sane fields",
                            expected,
                        );
                    }
                    backup
                }
                // Nothing that it says of other places can be believed.
                None => return,
            }
        }
    };
    if superblock.s_state.get() & STATE_ERROR != 0 {
        let expected = "Linux has found errors in this file system before";
        contents.find(Severity::Error, "contents.ext.state", structure, "the mark of errors", expected);
    }
    if contents.kind == Kind::ExtJournal {
        return;
    }
    if look.level() == Level::Quick {
        check_descriptors(look, &superblock, contents);
        return check_backups(look, &superblock, contents);
    }
    // What the journal will put in their places is what counts.
    let replayed = map::Fs::new(look, &superblock).and_then(|fs| journal::replayed(&fs, look.disk(), contents));
    let look = &Look::new(replayed.as_ref().unwrap_or(look.disk()));
    let superblock = match replayed.as_ref().and_then(|_| Superblock::read(look, SUPERBLOCK_AT)) {
        Some(newer) if newer.is_proved() => newer,
        _ => superblock,
    };
    check_descriptors(look, &superblock, contents);
    check_backups(look, &superblock, contents);
    full::check(look, &superblock, contents);
}

/// A disk whose journal is replayed, with a superblock that says so.
#[cfg(feature = "read-ext")]
struct Replayed {
    inner: Arc<Metered>,
    superblock: Vec<u8>,
}

#[cfg(feature = "read-ext")]
impl ReadAt for Replayed {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.inner.read_exact_at(buf, offset)?;
        for (byte, at) in buf.iter_mut().zip(offset..SUPERBLOCK_AT.saturating_mul(2)) {
            let within = at.checked_sub(SUPERBLOCK_AT).and_then(|at| self.superblock.get(to_usize(at).ok()?));
            within.into_iter().for_each(|new| *byte = *new);
        }
        Ok(())
    }
}

/// The disk as it is once its journal is replayed, for the reader of its files.
#[cfg(feature = "read-ext")]
fn replayed(disk: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    let disk = Metered::unmetered(disk);
    let look = Look::new(&disk);
    let no_superblock = || Error::corrupt("reader.ext", "found no sane superblock");
    let superblock = Superblock::read(&look, SUPERBLOCK_AT).ok_or_else(no_superblock)?;
    let mut contents = Contents::new(Kind::Ext4, &look);
    let fs = map::Fs::new(&look, &superblock).ok_or_else(no_superblock)?;
    let replayed = journal::replayed(&fs, look.disk(), &mut contents);
    if let Some(finding) = contents.findings.first() {
        return Err(Error::corrupt("reader.ext", format!("the journal cannot be replayed: {finding}")));
    }
    let inner = match (replayed, contents.notes.first()) {
        (Some(replayed), _) => replayed,
        (None, Some(note)) => return Err(Error::unsupported("reader.ext", note.clone())),
        // It is empty.
        (None, None) => Arc::clone(&disk),
    };
    let mut superblock = vec![0; 1024];
    inner.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    let incompat = le32(&superblock, 0x60) & !INCOMPAT_RECOVER;
    superblock[0x60..0x64].copy_from_slice(&incompat.to_le_bytes());
    let checksum = crc32c_raw(u32::MAX, &superblock[..0x3fc]);
    superblock[0x3fc..].copy_from_slice(&checksum.to_le_bytes());
    Ok(Arc::new(Replayed { inner, superblock }))
}

fn check_descriptors(look: &Look<'_>, superblock: &Superblock, contents: &mut Contents) {
    let (size, block) = (superblock.desc_size(), superblock.block_size());
    let structure = ("the superblock", SUPERBLOCK_AT);
    if !size.is_power_of_two() || size > 1024.min(block) {
        let expected = "a power of two from 64 to 1024 is allowed";
        contents.find(Severity::Error, "contents.ext.descriptor-size", structure, size, expected);
        return;
    }
    let per_block = block.checked_div(size).unwrap_or(1).max(1);
    let (Ok(size), Ok(block_len)) = (usize::try_from(size), usize::try_from(block)) else { return };
    let groups = superblock.groups();
    let most = INSIDE_TABLE_MAX.checked_div(block).unwrap_or(0);
    for n in 0..groups.div_ceil(per_block) {
        let place = superblock.descriptor_block(n).saturating_mul(block);
        let name = || format!("block {n} of the group descriptors");
        if n >= most {
            let note = format!(
                "ext: {} of group descriptors of {} were looked at",
                counted(n, "block"),
                groups.div_ceil(per_block)
            );
            contents.notes.push(note);
            return;
        }
        let bytes = match look.read(place, block_len) {
            Ok(bytes) => bytes,
            Err(e) => {
                contents.unread(look, (name(), place), block, &e);
                continue;
            }
        };
        let first = n.saturating_mul(per_block);
        for (group, descriptor) in (first..groups).zip(bytes.chunks_exact(size)) {
            let within = group.saturating_sub(first).saturating_mul(to_u64(size));
            check_descriptor(superblock, group, (place.saturating_add(within), descriptor), contents);
        }
    }
}

/// The stored checksum of a descriptor and the right one, where it has one.
fn descriptor_checksum(superblock: &Superblock, group: u64, bytes: &[u8]) -> Option<(u16, u16)> {
    let stored = le16(bytes, 0x1e);
    let number = u32::try_from(group).unwrap_or(u32::MAX).to_le_bytes();
    let (before, after) = (bytes.get(..0x1e).unwrap_or_default(), bytes.get(0x20..).unwrap_or_default());
    if superblock.has_ro_compat(RO_COMPAT_METADATA_CSUM) {
        let parts: [&[u8]; 4] = [&number, before, &[0, 0], after];
        let sum = parts.into_iter().fold(superblock.seed(), crc32c_raw);
        Some((stored, u16::try_from(sum & 0xffff).unwrap_or(0)))
    } else if superblock.has_ro_compat(RO_COMPAT_GDT_CSUM) {
        let parts: [&[u8]; 4] = [&superblock.s_uuid, &number, before, after];
        Some((stored, parts.into_iter().fold(0xffff, crc16)))
    } else {
        None
    }
}

fn check_descriptor(superblock: &Superblock, group: u64, (at, bytes): (u64, &[u8]), contents: &mut Contents) {
    let structure = || (format!("group descriptor {group}"), at);
    let sums = descriptor_checksum(superblock, group, bytes);
    if let Some((stored, right)) = sums.filter(|(stored, right)| right != stored) {
        let code = "contents.ext.group-descriptor-checksum";
        let expected = format!("the checksum is {right:#06x}");
        contents.find(Severity::Error, code, structure(), format!("{stored:#06x}"), expected);
        return;
    }
    let wide = bytes.len() >= 64;
    let place = |low, high| u64::from(if wide { le32(bytes, high) } else { 0 }) << 32 | u64::from(le32(bytes, low));
    let table = u64::from(superblock.s_inodes_per_group.get()).saturating_mul(superblock.inode_size());
    let table_len = table.div_ceil(superblock.block_size());
    let blocks = superblock.blocks();
    let code = "contents.ext.group-descriptor-range";
    let fields = [
        ("block bitmap", place(0x00, 0x20), 1),
        ("inode bitmap", place(0x04, 0x24), 1),
        ("inode table", place(0x08, 0x28), table_len),
    ];
    for (field, block, len) in fields {
        let is_within = block > u64::from(superblock.s_first_data_block.get())
            && block.checked_add(len).is_some_and(|end| end <= blocks);
        if !is_within {
            let found = format!("the {field} in block {block}");
            contents.find(
                Severity::Error,
                code,
                structure(),
                found,
                format!("the file system has {}", counted(blocks, "block")),
            );
        }
    }
}

/// The backups may lag behind in counts, times and states, and not in where things are.
fn check_backups(look: &Look<'_>, superblock: &Superblock, contents: &mut Contents) {
    let groups = superblock.groups();
    // Beyond the first few, backups are rare but in very old file systems, where each group has one.
    let with_backup = (1..groups).filter(|group| superblock.has_super(*group)).take(INSIDE_COPIES_MAX);
    for group in with_backup {
        let at = superblock.group_start(group).saturating_mul(superblock.block_size());
        let structure = || (format!("the backup superblock in group {group}"), at);
        let bytes = match look.read(at, size_of::<Superblock>()) {
            Ok(bytes) => bytes,
            Err(e) => {
                contents.unread(look, structure(), 1024, &e);
                continue;
            }
        };
        let Ok(backup) = Superblock::read_from_bytes(&bytes) else { continue };
        let code = "contents.ext.backup-superblock";
        if backup.s_magic.get() != MAGIC {
            let found = format!("the magic {:#06x}", backup.s_magic.get());
            contents.find(Severity::Warning, code, structure(), found, format!("{MAGIC:#06x} is wanted"));
        } else if backup.geometry() != superblock.geometry() {
            let name = ["blocks", "block size", "blocks a group", "inodes a group", "inode size", "descriptor size"];
            let pairs = backup.geometry().into_iter().zip(superblock.geometry()).zip(name);
            let differ = pairs.filter(|((found, first), _)| found != first).take(at_most(6, 6));
            for ((found, first), name) in differ {
                let expected = format!("the first superblock has {first}");
                contents.find(Severity::Warning, code, structure(), format!("{name}: {found}"), expected);
            }
        }
    }
}

/// CRC-16 with the polynomial 0x8005, reflected, as Linux's `lib/crc16.c`. No crate is taken for eight lines.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}
