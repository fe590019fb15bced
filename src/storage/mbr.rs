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

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Entry, Kind, Scheme, Table, shorten};
use crate::error::Result;
use crate::io::{ReadAt, Window};
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

/// The partitions of the disk whose first sector is `mbr`.
pub(super) fn list(disk: &dyn ReadAt, mbr: &Sector, sector_size: u32) -> Result<Table> {
    let table = Table { scheme: Scheme::Mbr, sector_size, entries: Vec::new(), notes: Vec::new() };
    let mut lister = Lister { disk, sector: u64::from(sector_size), disk_signature: mbr.0.disk_signature.get(), table };
    for (number, raw) in (1..).zip(&mbr.0.entries) {
        // Linux gives an extended partition its number, too, but it holds nothing to open.
        if raw.is_used() && !raw.is_extended() {
            lister.add(number, 0, raw);
        }
    }
    for raw in mbr.0.entries.iter().filter(|raw| raw.is_extended()) {
        lister.follow(raw)?;
    }
    shorten(&mut lister.table.notes, "mbr");
    Ok(lister.table)
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
    fn follow(&mut self, extended: &RawEntry) -> Result<()> {
        let (first, count) = (u64::from(extended.first.get()), u64::from(extended.count.get()));
        let (mut at, mut link_count) = (first, count);
        let mut seen = Vec::new();
        loop {
            // A chain that comes back to a table it has passed would go on for ever.
            if seen.contains(&at) || seen.len() >= MBR_LOGICAL_MAX {
                self.table.notes.push(format!("mbr: the chain of logical partitions does not end (sector {at})"));
                return Ok(());
            }
            seen.push(at);
            let Some(link) = Sector::read(self.disk, at * self.sector)? else {
                self.table.notes.push(format!("mbr: the chain of logical partitions is broken off at sector {at}"));
                return Ok(());
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
                    return Ok(());
                };
                self.add(number, at, raw);
            }
            let Some(next) = link.0.entries.iter().find(|raw| raw.is_extended()) else { return Ok(()) };
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
        list(&disk, &Sector::read(&disk, 0).unwrap().unwrap(), 512).unwrap()
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
        assert!(table(&disk).notes[0].contains("broken off"));
    }

    #[test]
    fn a_boot_sector_of_a_filesystem_is_no_table() {
        let mut disk = vec![0; 1024];
        put(&mut disk, 0, 0, 0x83, 1, 1);
        disk[446] = 0x20;
        assert!(Sector::read(&disk, 0).unwrap().is_none());
    }
}
