//! FAT12, FAT16 and FAT32: the boot sector and its backup, the first entries of both tables, the label in the root.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..3 | a jump | 19, 32 | sectors, of 16 and of 32 bits |
//! | 11, 13 | bytes a sector, sectors a cluster | 22, 36 | sectors a table, of 16 bits; FAT32's of 32 |
//! | 14, 16 | reserved sectors, tables | 37, 65 | state; FAT32's: bit 0 is "not unmounted" |
//! | 17 | entries of the root; FAT32 has none here | 39, 67 | serial number; FAT32's |
//! | 21 | media | 43, 71 | label; FAT32's |
//! | 40, 44, 48, 50 | FAT32: flags, root, FSInfo, backup | 510 | 0x55 0xaa |
//!
//! All little-endian. The source is Microsoft's "FAT: General Overview of On-Disk Format" and Linux's `fs/fat/inode.c`. A
//! boot sector has no magic: all that Linux refuses is refused, and the tables must have room for the clusters.

mod full;

use super::look::{Look, field, le16, le32, text};
use super::{Contents, Kind, Level, Severity, State};
use crate::num::{to_u64, to_usize};

/// The most of the root directory that is looked through for the label.
const ROOT_MAX: u64 = 64 << 10;
const ENTRY: usize = 32;
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_LONG_NAME: u8 = 0x0f;

struct Boot {
    bytes: Vec<u8>,
    kind: Kind,
    sector: u64,
    cluster: u64,
    reserved: u64,
    tables: u64,
    /// Sectors of one table.
    table: u64,
    root_entries: u64,
    sectors: u64,
}

impl Boot {
    fn read(look: &Look<'_>, offset: u64) -> Option<Self> {
        Self::parse(look.bytes(offset, 512)?)
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let [jump, second, third, ..] = *bytes.as_slice() else { return None };
        let jumps = jump == 0xeb && third == 0x90 && second >= 0x10 || jump == 0xe9;
        if !jumps || bytes.get(510..512) != Some(&[0x55, 0xaa]) {
            return None;
        }
        let sector = u64::from(le16(&bytes, 11));
        let [per_cluster] = field(&bytes, 13);
        let [tables] = field(&bytes, 16);
        let [media] = field(&bytes, 21);
        let reserved = u64::from(le16(&bytes, 14));
        let root_entries = u64::from(le16(&bytes, 17));
        let either = |short: u16, long: u32| if short == 0 { u64::from(long) } else { u64::from(short) };
        let sectors = either(le16(&bytes, 19), le32(&bytes, 32));
        let is_32 = le16(&bytes, 22) == 0;
        let table = either(le16(&bytes, 22), le32(&bytes, 36));
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && matches!(tables, 1 | 2)
            && (media == 0xf0 || media >= 0xf8)
            && table > 0
            && sectors > 0
            && (root_entries == 0) == is_32;
        let tables = u64::from(tables);
        let root = root_entries.checked_mul(to_u64(ENTRY))?.div_ceil(sector.max(1));
        let before = table.checked_mul(tables)?.checked_add(reserved)?.checked_add(root)?;
        let clusters = sectors.checked_sub(before)?.checked_div(u64::from(per_cluster))?;
        let kind = match clusters {
            _ if is_32 => Kind::Fat32,
            0..4085 => Kind::Fat12,
            4085..65525 => Kind::Fat16,
            _ => return None,
        };
        let bits: u64 = match kind {
            Kind::Fat32 => 32,
            Kind::Fat16 => 16,
            _ => 12,
        };
        let wanted = clusters.checked_add(2)?.checked_mul(bits)?.div_ceil(8);
        let has_room = clusters > 0 && wanted <= table.checked_mul(sector)?;
        let cluster = u64::from(per_cluster).checked_mul(sector)?;
        let boot = Self { bytes, kind, sector, cluster, reserved, tables, table, root_entries, sectors };
        (sane && has_room).then_some(boot)
    }

    fn is_32(&self) -> bool {
        self.kind == Kind::Fat32
    }

    fn table_at(&self, n: u64) -> u64 {
        n.saturating_mul(self.table).saturating_add(self.reserved).saturating_mul(self.sector)
    }

    /// Where the root directory is, and how much of it lies in one piece.
    fn root(&self) -> (u64, u64) {
        let behind = self.table_at(self.tables);
        if self.is_32() {
            let number = u64::from(le32(&self.bytes, 44)).saturating_sub(2);
            (number.saturating_mul(self.cluster).saturating_add(behind), self.cluster)
        } else {
            (behind, self.root_entries.saturating_mul(to_u64(ENTRY)))
        }
    }

    /// The label in the root directory, which is what people change.
    fn root_label(&self, look: &Look<'_>) -> Option<String> {
        let (at, len) = self.root();
        let bytes = look.bytes(at, to_usize(len.min(ROOT_MAX)).ok()?)?;
        let entries = bytes.chunks_exact(ENTRY).take_while(|entry| entry.first() != Some(&0));
        let is_label = |entry: &&[u8]| {
            let [attributes] = field(entry, 11);
            entry.first() != Some(&0xe5)
                && attributes & ATTR_LONG_NAME != ATTR_LONG_NAME
                && attributes & ATTR_VOLUME_ID != 0
        };
        entries.into_iter().find(is_label).and_then(|entry| text(entry.get(..11)?))
    }

    fn boot_label(&self) -> Option<String> {
        let (mark, label) = if self.is_32() { (66, 71..82) } else { (38, 43..54) };
        let has_extension = field(&self.bytes, mark) == [0x29];
        let label = self.bytes.get(label).filter(|_| has_extension).and_then(text);
        label.filter(|label| label != "NO NAME")
    }

    fn contents(&self, look: &Look<'_>) -> Contents {
        let mut contents = Contents::new(self.kind, look);
        contents.label = self.root_label(look).or_else(|| self.boot_label());
        let serial = le32(&self.bytes, if self.is_32() { 67 } else { 39 });
        contents.uuid = (serial != 0).then(|| format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff));
        contents.block_size = Some(self.cluster);
        contents.size = Some(self.sectors.saturating_mul(self.sector));
        let [state] = field(&self.bytes, if self.is_32() { 65 } else { 37 });
        contents.state = if state & 1 == 0 { State::Clean } else { State::Unclean };
        contents
    }

    /// What a backup has to say as well: all but the state.
    fn geometry(&self) -> [&[u8]; 2] {
        [self.bytes.get(11..65).unwrap_or_default(), self.bytes.get(66..90).unwrap_or_default()]
    }
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    Boot::read(look, 0).map(|boot| boot.contents(look))
}

/// A FAT32 whose first boot sector is lost: its backup is in sector 6, wherever anybody has made one.
pub(super) fn probe_backup(look: &Look<'_>) -> Option<Contents> {
    let at = 6 * 512;
    let boot = Boot::read(look, at).filter(|boot| boot.is_32() && boot.sector == 512 && le16(&boot.bytes, 50) == 6)?;
    let mut contents = boot.contents(look);
    let expected = format!("its backup at byte {at} is whole");
    let structure = ("the boot sector", 0);
    contents.find(Severity::Error, "contents.fat.boot-sector", structure, "no sane fields", expected);
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(boot) = Boot::read(look, 0) else { return };
    check_tables(look, &boot, contents);
    let at = u64::from(le16(&boot.bytes, 50)).saturating_mul(boot.sector);
    // FAT32 alone has a backup, and 0 and 0xffff are none.
    if boot.is_32() && at > 0 && at < boot.reserved.saturating_mul(boot.sector) {
        let structure = ("the backup of the boot sector", at);
        let code = "contents.fat.backup-boot-sector";
        match look.read(at, 512) {
            Err(e) => contents.unread(look, structure, 512, &e),
            Ok(bytes) => match Boot::parse(bytes) {
                None => contents.find(Severity::Warning, code, structure, "no sane fields", "a copy is wanted"),
                Some(backup) if backup.geometry() != boot.geometry() => {
                    let expected = "those of the first are wanted";
                    contents.find(Severity::Warning, code, structure, "other fields", expected);
                }
                Some(_) => {}
            },
        }
    }
    let at = u64::from(le16(&boot.bytes, 48)).saturating_mul(boot.sector);
    if boot.is_32() && at > 0 && at < boot.reserved.saturating_mul(boot.sector) {
        let structure = ("FSInfo", at);
        let marks = [look.has(b"RRaA", at), look.has(b"rrAa", at.saturating_add(484))];
        if at.saturating_add(512) <= look.len() && marks != [true, true] {
            let expected = "RRaA and rrAa are wanted";
            contents.find(Severity::Warning, "contents.fat.fsinfo", structure, "other marks", expected);
        }
    }
    if look.level() == Level::Full {
        full::check(look, &boot, contents);
    }
}

/// The first two entries are no clusters: the first repeats the media byte, the second has bits of the state.
fn check_tables(look: &Look<'_>, boot: &Boot, contents: &mut Contents) {
    let len = match boot.kind {
        Kind::Fat32 => 8,
        Kind::Fat16 => 4,
        _ => 3,
    };
    let [media] = field::<1>(&boot.bytes, 21);
    let mut first: Option<Vec<u8>> = None;
    for n in 0..boot.tables {
        let at = boot.table_at(n);
        let structure = || (format!("table {n}"), at);
        let entries = match look.read(at, len) {
            Ok(entries) => entries,
            Err(e) => {
                contents.unread(look, structure(), to_u64(len), &e);
                continue;
            }
        };
        let severity = if n == 0 { Severity::Error } else { Severity::Warning };
        // Above the media byte all bits are set; FAT32 keeps the upper four of an entry to itself.
        let ones = match boot.kind {
            Kind::Fat32 => le32(&entries, 0) & 0x0fff_ff00 == 0x0fff_ff00,
            Kind::Fat16 => le16(&entries, 0) & 0xff00 == 0xff00,
            _ => le16(&entries, 0) & 0x0f00 == 0x0f00,
        };
        let is_sane = entries.first() == Some(&media) && ones;
        if !is_sane {
            let found = format!("an entry that begins with {:#04x}", entries.first().unwrap_or(&0));
            let expected = format!("the media byte {media:#04x}, and then ones");
            contents.find(severity, "contents.fat.first-entry", structure(), found, expected);
        } else if first.as_ref().is_some_and(|first| *first != entries) {
            let expected = "those of the first table are wanted";
            contents.find(severity, "contents.fat.tables-differ", structure(), "other first entries", expected);
        }
        if n == 0 {
            // Windows clears a bit while it is mounted.
            let is_clean = match boot.kind {
                Kind::Fat32 => le32(&entries, 4) & 0x0800_0000 != 0,
                Kind::Fat16 => le16(&entries, 2) & 0x8000 != 0,
                _ => true,
            };
            if !is_clean {
                contents.state = State::Unclean;
            }
            first = Some(entries).filter(|_| is_sane);
        }
    }
}
