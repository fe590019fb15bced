//! exFAT: the boot region, its checksum, and its backup; the label in the root directory.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..3, 3..11 | jump 0xeb 0x76 0x90, `EXFAT   ` | 96, 100 | FirstClusterOfRootDirectory, VolumeSerialNumber |
//! | 11..64 | zeroes | 106 | VolumeFlags: bit 1 dirty, bit 2 media failure |
//! | 72 | VolumeLength in sectors | 108, 109 | logarithms: bytes a sector, sectors a cluster |
//! | 80, 84 | FatOffset, FatLength | 110 | NumberOfFats |
//! | 88, 92 | ClusterHeapOffset, ClusterCount | 510 | 0x55 0xaa |
//!
//! All little-endian. The region is twelve sectors, of which the last repeats the checksum of the eleven before it, without
//! VolumeFlags and PercentInUse; a copy of all follows. The source is Microsoft's "exFAT file system specification".

mod full;

use super::look::{Look, field, hex, le16, le32, le64, text16};
use super::{Contents, Kind, Level, Severity, State};
use crate::error::counted;
use crate::num::{to_u64, to_usize};

const SECTORS: u64 = 12;
const ROOT_MAX: u64 = 64 << 10;
const LABEL_ENTRY: u8 = 0x83;

struct Boot {
    bytes: Vec<u8>,
    sector: u64,
    cluster: u64,
    sectors: u64,
}

impl Boot {
    fn read(look: &Look<'_>, offset: u64) -> Option<Self> {
        let bytes = look.bytes(offset, 512)?;
        let [sector_log] = field(&bytes, 108);
        let [cluster_log] = field(&bytes, 109);
        let [tables] = field(&bytes, 110);
        let sane = bytes.starts_with(b"\xeb\x76\x90EXFAT   ")
            && bytes.get(11..64)?.iter().all(|b| *b == 0)
            && bytes.get(510..512) == Some(&[0x55, 0xaa])
            && (9..=12).contains(&sector_log)
            && cluster_log <= 25_u8.saturating_sub(sector_log)
            && matches!(tables, 1 | 2);
        if !sane {
            return None;
        }
        let sector = 1u64 << sector_log;
        let boot = Self { sector, cluster: sector << cluster_log, sectors: le64(&bytes, 72), bytes };
        let (heap, clusters) = (u64::from(le32(&boot.bytes, 88)), u64::from(le32(&boot.bytes, 92)));
        let used = clusters.checked_mul(boot.cluster)?.checked_div(sector)?.checked_add(heap)?;
        (used <= boot.sectors && clusters > 0).then_some(boot)
    }

    fn contents(&self, look: &Look<'_>) -> Contents {
        let mut contents = Contents::new(Kind::Exfat, look);
        contents.label = self.label(look);
        let serial = le32(&self.bytes, 100);
        contents.uuid = (serial != 0).then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
        contents.block_size = Some(self.cluster);
        contents.size = Some(self.sectors.saturating_mul(self.sector));
        contents.state = if le16(&self.bytes, 106) & 2 == 0 { State::Clean } else { State::Unclean };
        contents
    }

    fn label(&self, look: &Look<'_>) -> Option<String> {
        let number = u64::from(le32(&self.bytes, 96)).checked_sub(2)?;
        let heap = u64::from(le32(&self.bytes, 88)).checked_mul(self.sector)?;
        let at = number.checked_mul(self.cluster)?.checked_add(heap)?;
        let bytes = look.bytes(at, to_usize(self.cluster.min(ROOT_MAX)).ok()?)?;
        let mut entries = bytes.chunks_exact(32).take_while(|entry| entry.first() != Some(&0));
        let entry = entries.find(|entry| entry.first() == Some(&LABEL_ENTRY))?;
        let [count] = field(entry, 1);
        text16(entry.get(2..)?.get(..usize::from(count).saturating_mul(2))?, u16::from_le_bytes)
    }
}

/// The checksum of the region at `start`, and the stored one; `None` where it cannot be read.
fn checksums(look: &Look<'_>, start: u64, sector: u64) -> Option<(u32, u32)> {
    let len = sector.checked_mul(SECTORS.checked_sub(1)?)?;
    let region = look.bytes(start, to_usize(len).ok()?)?;
    let stored = look.bytes(start.checked_add(len)?, to_usize(sector).ok()?)?;
    let covered = region.iter().enumerate().filter(|(n, _)| !matches!(n, 106 | 107 | 112));
    let sum = covered.fold(0u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
    // It fills its sector.
    let other = stored.chunks_exact(4).map(|word| le32(word, 0)).find(|word| *word != sum);
    Some((sum, other.unwrap_or(sum)))
}

fn is_proved(look: &Look<'_>, start: u64, sector: u64) -> bool {
    checksums(look, start, sector).is_some_and(|(right, stored)| right == stored)
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let boot = Boot::read(look, 0)?;
    let mut contents = boot.contents(look);
    if !is_proved(look, 0, boot.sector) {
        // One that is damaged is no witness.
        let start = SECTORS.saturating_mul(boot.sector);
        let backup = Boot::read(look, start).filter(|backup| is_proved(look, start, backup.sector));
        contents.size = backup.map(|backup| backup.sectors.saturating_mul(backup.sector));
    }
    Some(contents)
}

/// One whose first boot region is lost.
pub(super) fn probe_backup(look: &Look<'_>) -> Option<Contents> {
    let backup = |sector: u64| {
        let start = SECTORS.saturating_mul(sector);
        Boot::read(look, start).filter(|boot| boot.sector == sector && is_proved(look, start, sector))
    };
    let boot = [512, 4096].into_iter().find_map(backup)?;
    let mut contents = boot.contents(look);
    let expected = format!("its backup at byte {} is whole", SECTORS.saturating_mul(boot.sector));
    let structure = ("the boot region", 0);
    contents.find(Severity::Error, "contents.exfat.boot-sector", structure, "no sane fields", expected);
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(boot) = Boot::read(look, 0) else { return };
    if le16(&boot.bytes, 106) & 4 != 0 {
        let expected = "whoever wrote to it last had errors of the medium";
        contents.find(Severity::Error, "contents.exfat.state", ("VolumeFlags", 106), "MediaFailure", expected);
    }
    let copies = [("the boot region", 0, Severity::Error), ("the backup boot region", SECTORS, Severity::Warning)];
    for (name, first, severity) in copies {
        let at = boot.sector.saturating_mul(first);
        let len = boot.sector.saturating_mul(SECTORS);
        match checksums(look, at, boot.sector) {
            Some((right, stored)) if right != stored => {
                let code = "contents.exfat.boot-checksum";
                let expected = format!("the checksum is {}", hex(right));
                contents.find(severity, code, (name, at), hex(stored), expected);
            }
            Some(_) => {}
            None => {
                let read = look.read(at, to_usize(len).unwrap_or(0));
                if let Err(e) = read {
                    contents.unread(look, (name, at), to_u64(512), &e);
                }
            }
        }
    }
    let (first, last) = (field::<1>(&boot.bytes, 3), look.bytes(SECTORS.saturating_mul(boot.sector), 120));
    let same =
        |copy: &Vec<u8>| copy.get(..106) == boot.bytes.get(..106) && copy.get(108..112) == boot.bytes.get(108..112);
    if let Some(copy) = last.filter(|copy| copy.get(3..4) == Some(&first) && !same(copy)) {
        let structure = ("the backup boot region", SECTORS.saturating_mul(boot.sector));
        let found = format!("{}, or another field", counted(le64(&copy, 72), "sector"));
        let expected = format!("the fields of the first, with {}, are wanted", counted(boot.sectors, "sector"));
        contents.find(Severity::Warning, "contents.exfat.backup-boot-sector", structure, found, expected);
    }
    if look.level() == Level::Full {
        full::check(look, &boot, contents);
    }
}
