//! DOS partition tables. All numbers are little-endian; places and sizes are counted in sectors.
//!
//! | sector bytes | field | entry bytes | field |
//! |---|---|---|---|
//! | 440..444 | disk signature | 0 | status: 0x80 bootable, 0 not |
//! | 446..510 | four entries | 4 | type; 0 for an unused entry |
//! | 510..512 | 0x55 0xaa | 8..12, 12..16 | first sector, number of sectors |
//!
//! An entry of type 0x05, 0x0f or 0x85 is an extended partition: its first sector is a table of the same form, whose
//! place-giving entry counts from that table, and whose extended entry, counting from the extended partition's start,
//! places the next table. The numbering follows Linux's `block/partitions/msdos.c`.
//!
//! This parser is our own, not the crate mbrman (0.6): that one reads from a cursor, gives up all partitions where one
//! logical table is damaged, and follows a chain of any length.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Entry, Kind, Scheme, Table, shorten};
use crate::error::Result;
use crate::io::{Peek, ReadAt, Window};
use crate::limits::MBR_LOGICAL_MAX;

const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const PROTECTIVE: u8 = 0xee;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSector {
    boot_code: [u8; 440],
    disk_signature: U32,
    reserved: [u8; 2],
    entries: [RawEntry; 4],
    magic: [u8; 2],
}
const _: () = assert!(size_of::<RawSector>() == 512);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Clone, Copy)]
#[repr(C)]
struct RawEntry {
    status: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first: U32,
    count: U32,
}
const _: () = assert!(size_of::<RawEntry>() == 16);

impl RawEntry {
    /// Linux goes by the size alone, so the numbers of the partitions behind do, too.
    fn is_used(&self) -> bool {
        self.count.get() != 0
    }

    fn is_extended(&self) -> bool {
        self.is_used() && EXTENDED.contains(&self.kind)
    }
}

/// A sector with a table.
pub(super) struct Sector(RawSector);

impl Sector {
    /// The table in the 512 bytes at `offset`, where there is one.
    ///
    /// The boot sector of a filesystem ends in the same two bytes as a table; like Linux, this takes only a sector whose
    /// four status bytes are 0 or 0x80 for a table.
    pub(super) fn read(disk: &dyn ReadAt, offset: u64) -> Result<Option<Self>> {
        let Ok(window) = Window::new(disk, offset, Some(512)) else { return Ok(None) };
        let mut bytes = [0; 512];
        window.read_exact_at(&mut bytes, 0)?;
        let Ok(sector) = RawSector::read_from_bytes(&bytes) else { return Ok(None) };
        let sane = sector.magic == [0x55, 0xaa] && sector.entries.iter().all(|entry| matches!(entry.status, 0 | 0x80));
        Ok(sane.then_some(Self(sector)))
    }

    /// Whether the table says that the disk has a GPT.
    pub(super) fn is_protective(&self) -> bool {
        self.0.entries.iter().any(|entry| entry.kind == PROTECTIVE)
    }

    /// Whether any entry is used.
    pub(super) fn has_partitions(&self) -> bool {
        self.0.entries.iter().any(RawEntry::is_used)
    }
}

/// The partitions of the disk whose first sector is `mbr`, which counts in the first of `sector_sizes`, or in the second
/// where only that agrees with what lies on the disk. A disk behind a bridge of USB, or one with sectors of 4096 bytes
/// that was copied, counts so, and nothing in the table says it.
pub(super) fn list_by_contents(disk: &dyn ReadAt, mbr: &Sector, sector_sizes: &[u32]) -> Table {
    let mut tables = sector_sizes.iter().map(|size| list(disk, mbr, *size));
    let (Some(first), second) = (tables.next(), tables.next()) else { return list(disk, mbr, 512) };
    let Some(mut second) = second else { return first };
    let look = Peek::new(disk);
    if first.entries.iter().any(|entry| begins_as_known(&look, entry.start)) {
        return first;
    }
    let known = second.entries.iter().find(|entry| begins_as_known(&look, entry.start));
    let why = if let Some(entry) = known {
        format!("partition {} begins as one at byte {}", entry.number, entry.start)
    } else if second.sector_size > first.sector_size && fits_better(&second, &first, disk) {
        "its partitions end where the image does".to_owned()
    } else {
        return first;
    };
    second.notes.push(format!("mbr: the table counts in units of {} bytes: {why}", second.sector_size));
    second
}

/// Whether all of `table` lies on the disk and ends with it, and `other` does not.
fn fits_better(table: &Table, other: &Table, disk: &dyn ReadAt) -> bool {
    table.notes.is_empty() && table.entries.len() >= other.entries.len() && fills(table, disk) && !fills(other, disk)
}

/// Whether the last partition ends with the disk, as programs make it that give it all that is left.
fn fills(table: &Table, disk: &dyn ReadAt) -> bool {
    const SLACK: u64 = 1 << 20;
    let end = table.entries.iter().map(|entry| entry.start.saturating_add(entry.len)).max();
    end.and_then(|end| disk.len().checked_sub(end)).is_some_and(|rest| rest < SLACK)
}

/// Whether what is usually in a partition begins at byte `at`: LUKS, a member of an array, a physical volume, a file
/// system, swap, or a table of its own.
fn begins_as_known(look: &Peek<'_>, at: u64) -> bool {
    const KNOWN: [(u64, &[u8]); 15] = [
        (0, b"LUKS\xba\xbe"),
        (0, b"SKUL\xba\xbe"),
        (0x4000, b"SKUL\xba\xbe"),
        (0, b"LABELONE"),
        (512, b"LABELONE"),
        (1024, b"LABELONE"),
        (1536, b"LABELONE"),
        (0, &[0xfc, 0x4e, 0x2b, 0xa9]),
        (4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
        // ext2 to 4; the two bytes alone are little, so the state behind them counts, too.
        (1080, &[0x53, 0xef, 1, 0]),
        (0, b"XFSB"),
        (65_600, b"_BHRfS_M"),
        (4086, b"SWAPSPACE2"),
        (3, b"NTFS    "),
        (510, &[0x55, 0xaa]),
    ];
    KNOWN.iter().any(|(offset, magic)| at.checked_add(*offset).is_some_and(|at| look.has(magic, at)))
}

/// The partitions of the disk whose first sector is `mbr`.
pub(super) fn list(disk: &dyn ReadAt, mbr: &Sector, sector_size: u32) -> Table {
    let table = Table { scheme: Scheme::Mbr, sector_size, entries: Vec::new(), notes: Vec::new() };
    let mut lister = Lister { disk, sector: u64::from(sector_size), disk_signature: mbr.0.disk_signature.get(), table };
    for (number, raw) in (1..).zip(&mbr.0.entries) {
        // Linux gives an extended partition its number, too, but it holds nothing to open.
        if raw.is_used() && !raw.is_extended() {
            lister.add(number, 0, raw);
        }
    }
    for raw in mbr.0.entries.iter().filter(|raw| raw.is_extended()) {
        lister.follow(raw);
    }
    shorten(&mut lister.table.notes, "mbr");
    lister.table
}

struct Lister<'a> {
    disk: &'a dyn ReadAt,
    sector: u64,
    disk_signature: u32,
    table: Table,
}

impl Lister<'_> {
    /// Adds the partition of `raw`, which counts from sector `base`. All numbers of sectors are below 2^34.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "all numbers of sectors are below 2^34, and a sector has at most 4096 bytes"
    )]
    fn add(&mut self, number: u32, base: u64, raw: &RawEntry) {
        let start = (base + u64::from(raw.first.get())) * self.sector;
        let len = u64::from(raw.count.get()) * self.sector;
        if start + len > self.disk.len() {
            self.table.notes.push(format!("mbr: partition {number} ends beyond the image, which is cut off"));
        }
        let uuid = format!("{:08x}-{number:02x}", self.disk_signature);
        self.table.entries.push(Entry { number, start, len, kind: Kind::Mbr(raw.kind), label: None, uuid });
    }

    /// Adds the logical partitions of the extended one.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "all numbers of sectors are below 2^34, and a sector has at most 4096 bytes"
    )]
    fn follow(&mut self, extended: &RawEntry) {
        let (first, count) = (u64::from(extended.first.get()), u64::from(extended.count.get()));
        let (mut at, mut link_count) = (first, count);
        let mut seen = Vec::new();
        loop {
            // A chain that comes back to a table it has passed would go on for ever.
            if seen.contains(&at) || seen.len() >= MBR_LOGICAL_MAX {
                self.table.notes.push(format!("mbr: the chain of logical partitions does not end (sector {at})"));
                return;
            }
            seen.push(at);
            let link = match Sector::read(self.disk, at * self.sector) {
                Ok(Some(link)) => link,
                _ if at * self.sector >= self.disk.len() => {
                    let (byte, end) = (at * self.sector, self.disk.len());
                    self.table.notes.push(format!(
                        "mbr: the chain of logical partitions is broken off: its next table lies at byte {byte}, beyond the \
                         image's end at byte {end}"
                    ));
                    return;
                }
                broken => {
                    let why = broken.err().map_or(String::new(), |e| format!(", which cannot be read: {e}"));
                    let note = format!("mbr: the chain of logical partitions is broken off at sector {at}{why}");
                    self.table.notes.push(note);
                    return;
                }
            };
            for (n, raw) in link.0.entries.iter().enumerate().filter(|(_, raw)| raw.is_used() && !raw.is_extended()) {
                let (offset, size) = (u64::from(raw.first.get()), u64::from(raw.count.get()));
                // The third and the fourth entry are not used, and hold garbage on some disks.
                if n >= 2 && (offset + size > link_count || at + offset + size > first + count) {
                    continue;
                }
                let logical = self.table.entries.iter().filter(|entry| entry.number > 4).count();
                let Some(number) = u32::try_from(logical + 5).ok().filter(|_| logical < MBR_LOGICAL_MAX) else {
                    self.table.notes.push("mbr: there are more logical partitions than Linux numbers".into());
                    return;
                };
                self.add(number, at, raw);
            }
            let Some(next) = link.0.entries.iter().find(|raw| raw.is_extended()) else { return };
            at = first + u64::from(next.first.get());
            link_count = u64::from(next.count.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an entry of `kind` into the table in sector `at`.
    fn put(disk: &mut [u8], at: usize, n: usize, kind: u8, first: u32, count: u32) {
        let sector = &mut disk[at * 512..][..512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let entry = &mut sector[446 + n * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&count.to_le_bytes());
    }

    fn table(disk: &[u8]) -> Table {
        let disk = disk.to_vec();
        list(&disk, &Sector::read(&disk, 0).unwrap().unwrap(), 512)
    }

    #[test]
    fn logical_partitions_count_from_their_own_table() {
        let mut disk = vec![0; 100 * 512];
        put(&mut disk, 0, 0, 0x83, 1, 9);
        put(&mut disk, 0, 1, 0x0f, 10, 90);
        put(&mut disk, 10, 0, 0x83, 2, 8);
        put(&mut disk, 10, 1, 0x05, 40, 50);
        put(&mut disk, 50, 0, 0xe8, 1, 49);
        put(&mut disk, 50, 2, 0x83, 0xffff, 0xffff);
        let table = table(&disk);
        let found: Vec<_> = table.entries.iter().map(|e| (e.number, e.start / 512, e.len / 512)).collect();
        assert_eq!(found, [(1, 1, 9), (5, 12, 8), (6, 51, 49)]);
        assert_eq!(table.entries[2].uuid, "00000000-06");
        assert!(table.notes.is_empty(), "{:?}", table.notes);
    }

    #[test]
    fn a_chain_that_comes_back_ends() {
        let mut disk = vec![0; 100 * 512];
        put(&mut disk, 0, 0, 0x05, 10, 90);
        put(&mut disk, 10, 0, 0x83, 1, 1);
        put(&mut disk, 10, 1, 0x05, 20, 1);
        put(&mut disk, 30, 0, 0x83, 1, 1);
        put(&mut disk, 30, 1, 0x05, 0, 1);
        let looped = table(&disk);
        assert_eq!(looped.entries.iter().map(|e| e.number).collect::<Vec<_>>(), [5, 6]);
        assert!(looped.notes[0].contains("does not end"), "{:?}", looped.notes);
        put(&mut disk, 30, 1, 0x05, u32::MAX, u32::MAX);
        let note = &table(&disk).notes[0];
        assert!(note.contains("broken off") && note.contains("beyond the image's end at byte 51200"), "{note}");
    }

    #[test]
    fn units_of_4096_bytes_are_told_by_what_lies_there() {
        let by = |disk: &[u8], sizes: &[u32]| {
            let disk = disk.to_vec();
            let table = list_by_contents(&disk, &Sector::read(&disk, 0).unwrap().unwrap(), sizes);
            (table.sector_size, table.entries.iter().map(|e| (e.start, e.len)).collect::<Vec<_>>(), table.notes)
        };
        let mut disk = vec![0; 2 << 20];
        put(&mut disk, 0, 0, 0x83, 24, 64);
        put(&mut disk, 0, 1, 0x83, 128, 64);
        assert_eq!(by(&disk, &[512, 4096]).0, 512, "nothing tells");
        let mut large = disk.clone();
        large[128 * 4096..][..6].copy_from_slice(b"LUKS\xba\xbe");
        let (size, found, notes) = by(&large, &[512, 4096]);
        assert_eq!((size, found), (4096, vec![(98_304, 262_144), (524_288, 262_144)]));
        assert!(notes[0].contains("units of 4096 bytes: partition 2"), "{notes:?}");
        // What lies where 512 bytes lead counts first.
        large[24 * 512 + 1080..][..4].copy_from_slice(&[0x53, 0xef, 1, 0]);
        assert_eq!(by(&large, &[512, 4096]).0, 512);
        let mut small = disk.clone();
        small[128 * 512..][..6].copy_from_slice(b"LUKS\xba\xbe");
        assert_eq!((by(&small, &[512, 4096]).0, by(&small, &[4096, 512]).0), (512, 512));
        put(&mut disk, 0, 1, 0x83, 128, 384);
        let (size, _, notes) = by(&disk, &[512, 4096]);
        assert_eq!(size, 4096);
        assert!(notes[0].contains("end where the image does"), "{notes:?}");
    }

    #[test]
    fn a_boot_sector_of_a_filesystem_is_no_table() {
        let mut disk = vec![0; 1024];
        put(&mut disk, 0, 0, 0x83, 1, 1);
        disk[446] = 0x20;
        assert!(Sector::read(&disk, 0).unwrap().is_none());
    }
}
