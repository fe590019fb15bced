//! One damage each, and the one finding that it has to give.

use unluks::ReadAt;
use unluks::inside::{Contents, Kind, Severity, State};

use crate::make::make;
use crate::{Patched, open};

fn codes(contents: &Contents) -> Vec<(&'static str, Severity, Option<u64>)> {
    contents.all_findings().iter().map(|f| (f.code, f.severity, f.offset)).collect()
}

fn flip(name: &str, at: u64) -> Vec<(&'static str, Severity, Option<u64>)> {
    codes(&Patched::new(&open(&make(name))).flipped(at).contents())
}

use Severity::{Error, Warning};

#[test]
fn of_ext() {
    let code = "contents.ext.group-descriptor-checksum";
    assert_eq!(flip("ext4", 4096 + 64 + 12), [(code, Error, Some(4096 + 64))]);
    assert_eq!(flip("ext4-crc16", 2048 + 64 + 12), [(code, Error, Some(2048 + 64))]);
    assert_eq!(flip("ext4-seed", 2048 + 64 + 12), [(code, Error, Some(2048 + 64))]);
    // The first byte of a label, which the checksum covers.
    assert_eq!(flip("ext4", 1024 + 0x78), [("contents.ext.superblock-checksum", Error, Some(1024))]);
    // Without checksums only the bounds tell: the high byte of the inode table's block.
    assert_eq!(flip("ext2", 2048 + 32 + 11), [("contents.ext.group-descriptor-range", Error, Some(2048 + 32))]);
    let backup = (8192 + 1) * 1024;
    let spare = "contents.ext.backup-superblock";
    assert_eq!(flip("ext4-1k", backup + 0x38), [(spare, Warning, Some(backup))]);
    assert_eq!(flip("ext4-1k", backup + 0x28), [(spare, Warning, Some(backup))]);
}

#[test]
fn an_ext_whose_first_superblock_is_lost_is_found_by_its_backup() {
    for name in ["ext2", "ext3", "ext4", "ext4-1k"] {
        let image = open(&make(name));
        let whole = Patched::new(&image).contents();
        let contents = Patched::new(&image).with(1024, &[0; 1024]).contents();
        assert_eq!((contents.kind, contents.size()), (whole.kind, whole.size()), "{name}");
        assert_eq!((contents.uuid.as_ref(), contents.label.as_ref()), (whole.uuid.as_ref(), whole.label.as_ref()));
        assert_eq!(codes(&contents), [("contents.ext.superblock", Error, Some(1024))], "{name}");
    }
    // One whose checksum is wrong says no size of its own, and its backup does.
    let image = open(&make("ext4"));
    let contents = Patched::new(&image).flipped(1024 + 5).contents();
    assert_eq!(contents.size(), Some(300 << 20));
}

#[test]
fn of_xfs() {
    // The groups are a quarter of the file each.
    let group = 75 << 20;
    for (sector, code) in [(1, "contents.xfs.agf"), (2, "contents.xfs.agi"), (3, "contents.xfs.agfl")] {
        let at = group + sector * 512;
        assert_eq!(flip("xfs", at + 40), [(code, Error, Some(at))]);
        assert_eq!(flip("xfs", at), [(code, Error, Some(at))]);
    }
    assert_eq!(flip("xfs-v4", group + 512 + 12), [("contents.xfs.agf", Error, Some(group + 512))]);
    assert_eq!(flip("xfs", group + 130), [("contents.xfs.secondary-superblock", Warning, Some(group))]);
    assert_eq!(flip("xfs", 130), [("contents.xfs.superblock-checksum", Error, Some(0))]);
}

#[test]
fn a_log_of_xfs_whose_last_record_is_no_unmount_is_to_be_replayed() {
    let image = open(&make("xfs"));
    assert_eq!(Patched::new(&image).contents().state, State::Clean);
    let mut superblock = [0; 128];
    image.read_exact_at(&mut superblock, 0).unwrap();
    let number = |at: usize| u32::from_be_bytes(*superblock[at..].first_chunk().unwrap()) as u64;
    let start = u64::from_be_bytes(*superblock[48..].first_chunk().unwrap());
    let (group, within) = (start >> superblock[124], start & ((1 << superblock[124]) - 1));
    let log = (group * number(84) + within) * number(4);
    // The flags of the operation, behind the record's header.
    assert_eq!(Patched::new(&image).with(log + 512 + 9, &[0]).contents().state, State::JournalToReplay);
}

#[test]
fn of_btrfs() {
    let mirror = 64 << 20;
    let code = "contents.btrfs.superblock-checksum";
    for name in ["btrfs", "btrfs-xxhash", "btrfs-sha256", "btrfs-blake2"] {
        assert_eq!(flip(name, 65536 + 0x12b), [(code, Error, Some(65536))], "{name}");
        assert_eq!(flip(name, mirror + 0x12b), [(code, Warning, Some(mirror))], "{name}");
        assert_eq!(flip(name, 65536 + 0x40), [("contents.btrfs.superblock", Error, Some(65536))], "{name}");
    }
    let image = open(&make("btrfs"));
    let mut superblock = vec![0; 4096];
    image.read_exact_at(&mut superblock, 65536).unwrap();
    let number = |at: usize| u64::from_le_bytes(*superblock[at..].first_chunk().unwrap());
    // The system chunk has two stripes on the one device.
    let (first, second) = (number(0x32b + 17 + 48 + 8), number(0x32b + 17 + 48 + 32 + 8));
    let within = number(0x58) - number(0x32b + 9);
    let one = Patched::new(&image).flipped(first + within + 200).contents();
    assert_eq!(codes(&one), [("contents.btrfs.chunk-root", Warning, Some(first + within))]);
    let both = Patched::new(&image).flipped(first + within + 200).flipped(second + within + 200).contents();
    let code = "contents.btrfs.chunk-root";
    assert_eq!(codes(&both), [(code, Error, Some(first + within)), (code, Error, Some(second + within))]);
}

#[test]
fn of_fat() {
    let image = open(&make("fat32"));
    let mut boot = [0; 512];
    image.read_exact_at(&mut boot, 0).unwrap();
    let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]])) * 512;
    let table = u64::from(u32::from_le_bytes(*boot[36..].first_chunk().unwrap())) * 512;
    let second = reserved + table;
    assert_eq!(flip("fat32", reserved), [("contents.fat.first-entry", Error, Some(reserved)),]);
    assert_eq!(flip("fat32", second), [("contents.fat.first-entry", Warning, Some(second))]);
    assert_eq!(flip("fat32", second + 4), [("contents.fat.tables-differ", Warning, Some(second))]);
    assert_eq!(flip("fat32", 6 * 512 + 13), [("contents.fat.backup-boot-sector", Warning, Some(6 * 512))]);
    assert_eq!(flip("fat32", 6 * 512 + 36), [("contents.fat.backup-boot-sector", Warning, Some(6 * 512))]);
    assert_eq!(flip("fat32", 512), [("contents.fat.fsinfo", Warning, Some(512))]);
    assert_eq!(flip("fat32", 510), [("contents.fat.boot-sector", Error, Some(0))]);
}

#[test]
fn of_exfat_and_ntfs() {
    let code = "contents.exfat.boot-checksum";
    assert_eq!(flip("exfat", 200), [(code, Error, Some(0))]);
    assert_eq!(flip("exfat", 12 * 512 + 200), [(code, Warning, Some(12 * 512))]);
    assert_eq!(flip("exfat", 3), [("contents.exfat.boot-sector", Error, Some(0))]);
    let image = open(&make("ntfs"));
    let mut boot = [0; 512];
    image.read_exact_at(&mut boot, 0).unwrap();
    let number = |at: usize| u64::from_le_bytes(*boot[at..].first_chunk().unwrap());
    let cluster = u64::from(boot[13]) * 512;
    let (mft, mirror, copy) = (number(48) * cluster, number(56) * cluster, number(40) * 512);
    assert_eq!(flip("ntfs", mft + 510), [("contents.ntfs.mft-record", Error, Some(mft))]);
    assert_eq!(flip("ntfs", mirror + 1024 + 510), [("contents.ntfs.mft-mirror", Warning, Some(mirror + 1024))]);
    assert_eq!(flip("ntfs", mirror + 40), [("contents.ntfs.mft-mirror", Warning, Some(mirror))]);
    assert_eq!(flip("ntfs", copy + 48), [("contents.ntfs.backup-boot-sector", Warning, Some(copy))]);
    assert_eq!(flip("ntfs", 3), [("contents.ntfs.boot-sector", Error, Some(0))]);
}

#[test]
fn of_the_others() {
    assert_eq!(flip("f2fs", 1024), [("contents.f2fs.superblock", Error, Some(1024))]);
    assert_eq!(flip("f2fs", 5120), [("contents.f2fs.superblock", Warning, Some(5120))]);
    assert_eq!(flip("iso9660", 32768 + 124), [("contents.iso9660.both-endian", Error, Some(32768 + 124))]);
    assert_eq!(flip("squashfs", 64 + 7), [("contents.squashfs.table", Error, Some(64))]);
    assert_eq!(flip("swap", 1024 + 11), [("contents.swap.bad-pages", Error, Some(1032))]);
    let table = "contents.gpt.table";
    assert_eq!(flip("gpt", 512 + 40), [(table, Warning, Some(512))]);
    assert_eq!(flip("gpt", 1024 + 40), [(table, Warning, Some(512))]);
    assert_eq!(flip("gpt", (20 << 20) - 512 + 40), [(table, Warning, Some((20 << 20) - 512))]);
    let image = open(&make("gpt"));
    let both = Patched::new(&image).flipped(512 + 40).flipped((20 << 20) - 512 + 40).contents();
    assert_eq!((both.kind, codes(&both)), (Kind::Gpt, vec![(table, Error, Some(512))]));
    let f2fs = open(&make("f2fs"));
    let mut superblock = [0; 128];
    f2fs.read_exact_at(&mut superblock, 1024).unwrap();
    let pack = u64::from(u32::from_le_bytes(*superblock[76..].first_chunk().unwrap())) * 4096;
    let one = Patched::new(&f2fs).flipped(pack).contents();
    assert_eq!(codes(&one), []);
    let both = Patched::new(&f2fs).flipped(pack).flipped(pack + (512 * 4096)).contents();
    assert_eq!(codes(&both), [("contents.f2fs.checkpoint", Error, Some(pack))]);
}

#[test]
fn of_a_gpt_whose_copies_say_different_things() {
    let disk = open(&make("gpt"));
    let spare = disk.len() - 512;
    let mut header = vec![0; 512];
    disk.read_exact_at(&mut header, spare).unwrap();
    header[56] ^= 1;
    header[16..20].fill(0);
    let sum = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    let contents = Patched::new(&disk).with(spare, &header).contents();
    assert_eq!(codes(&contents), [("contents.gpt.copies-differ", Warning, Some(spare))]);
}
