//! Disks made here: noise with marks in it, what no program at hand makes, and what lies in each other.

use std::sync::Arc;

use super::*;

fn probe(disk: Vec<u8>) -> Contents {
    Contents::probe(Arc::new(disk)).unwrap()
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// xorshift: the same at each run.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn noise_is_nothing_also_with_marks_in_it() {
    let marks: &[(usize, &[u8])] = &[
        (0, b""),
        (510, b"\x55\xaa"),
        (1080, b"\x53\xef"),
        (0, b"XFSB"),
        (65600, b"_BHRfS_M"),
        (3, b"NTFS    "),
        (3, b"EXFAT   "),
        (0, b"\xeb\x3c\x90mkfs.fat"),
        (54, b"FAT16   "),
        (82, b"FAT32   "),
        (0, b"hsqs"),
        (1024, b"\x10\x20\xf5\xf2"),
        (1024, b"H+\0\x04"),
        (32, b"NXSB"),
        (4086, b"SWAPSPACE2"),
        (512, b"LABELONE"),
        (4096, b"\xfc\x4e\x2b\xa9"),
    ];
    for (n, (at, mark)) in marks.iter().enumerate() {
        for seed in 1..9 {
            let mut disk = noise(160 << 10, seed * 100 + u64::try_from(n).unwrap());
            put(&mut disk, *at, mark);
            if at != &510 && seed % 2 == 0 {
                put(&mut disk, 510, b"\x55\xaa");
            }
            let contents = probe(disk);
            assert!(!contents.is_known(), "{mark:?} {seed}: {contents}");
            assert_eq!((contents.size(), contents.fits(0).is_ok()), (None, true));
        }
    }
}

#[test]
fn nothing_and_zeroes_are_named() {
    assert_eq!(probe(Vec::new()).kind, Kind::Unknown);
    assert_eq!(probe(vec![7; 100]).kind, Kind::Unknown);
    assert!(probe(vec![0; 8192]).to_string().contains("zeroes"));
    let mut database = vec![0; 8192];
    put(&mut database, 0, b"SQLite format 3\0");
    assert_eq!(probe(database).kind, Kind::Other("an SQLite database"));
}

#[test]
fn sizes_are_said_for_people() {
    let said = [
        (64 << 20, "64 MiB"),
        (1000, "1000 bytes"),
        (1536, "1.5 KiB"),
        ((1 << 20) + 512, "1.0 MiB"),
        (3 << 40, "3 TiB"),
    ];
    for (size, words) in said {
        assert_eq!(Size(size).to_string(), words);
    }
}

/// A swap area of a big-endian machine, with pages of 16 KiB.
#[test]
fn swap_of_the_other_order_of_bytes() {
    let mut disk = vec![0; 10 << 14];
    put(&mut disk, 1024, &1u32.to_be_bytes());
    put(&mut disk, 1028, &9u32.to_be_bytes());
    put(&mut disk, 1036, &[0x11; 16]);
    put(&mut disk, 1052, b"old");
    put(&mut disk, (1 << 14) - 10, b"SWAPSPACE2");
    let contents = probe(disk.clone());
    assert_eq!((contents.kind, contents.size(), contents.block_size), (Kind::Swap, Some(10 << 14), Some(1 << 14)));
    assert_eq!(contents.to_string(), "swap \"old\", 160 KiB");
    put(&mut disk, (1 << 14) - 10, b"S1SUSPEND\0");
    assert_eq!(probe(disk.clone()).kind, Kind::Hibernation);
    // One page too few.
    put(&mut disk, 1028, &10u32.to_be_bytes());
    let contents = probe(disk);
    assert_eq!(contents.findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["contents.size"]);
    assert!(contents.fits(11 << 14).is_ok() && contents.fits((11 << 14) - 1).is_err());
}

fn apfs() -> Vec<u8> {
    let mut disk = vec![0; 64 << 10];
    put(&mut disk, 32, b"NXSB");
    put(&mut disk, 36, &4096u32.to_le_bytes());
    put(&mut disk, 40, &16u64.to_le_bytes());
    put(&mut disk, 72, &[0x22; 16]);
    // The checksum makes both sums over all of the block zero, its own two words behind the others.
    let most = u64::from(u32::MAX);
    let (mut low, mut high) = (0u64, 0u64);
    for word in disk[8..4096].chunks(4) {
        low = (low + u64::from(u32::from_le_bytes(word.try_into().unwrap()))) % most;
        high = (high + low) % most;
    }
    let first = (2 * most - low - high) % most;
    let second = (2 * most - low - first) % most;
    let sum = [first, second];
    let check = sum.iter().fold((low, high), |(low, high), word| ((low + word) % most, (high + low + word) % most));
    assert_eq!(check, (0, 0));
    put(&mut disk, 0, &(second << 32 | first).to_le_bytes());
    disk
}

#[test]
fn of_apfs_the_checksum_is_compared() {
    let mut disk = apfs();
    let contents = probe(disk.clone());
    assert_eq!((contents.kind, contents.size(), contents.findings.len()), (Kind::Apfs, Some(64 << 10), 0));
    disk[500] ^= 1;
    let contents = probe(disk);
    let codes: Vec<_> = contents.findings.iter().map(|f| f.code).collect();
    assert_eq!((contents.size(), codes), (None, vec!["contents.apfs.superblock-checksum"]));
}

#[test]
fn hfs_plus_has_a_name_and_a_copy_of_its_header() {
    let mut disk = vec![0; 64 << 12];
    let mut header = vec![0; 512];
    put(&mut header, 0, b"H+\0\x04");
    put(&mut header, 4, &(1u32 << 13).to_be_bytes());
    put(&mut header, 40, &4096u32.to_be_bytes());
    put(&mut header, 44, &64u32.to_be_bytes());
    put(&mut header, 104, &[1, 2, 3, 4, 5, 6, 7, 8]);
    // The catalog is block 8 and the four behind it, with nodes of 4 KiB; its leaf is node 1.
    put(&mut header, 288, &8u32.to_be_bytes());
    put(&mut header, 292, &4u32.to_be_bytes());
    put(&mut disk, 1024, &header);
    put(&mut disk, (64 << 12) - 1024, &header);
    put(&mut disk, 8 * 4096 + 24, &1u32.to_be_bytes());
    put(&mut disk, 8 * 4096 + 32, &4096u16.to_be_bytes());
    put(&mut disk, 9 * 4096 + 14, b"\0\x0c\0\0\0\x01\0\x03\0M\0a\0c");
    let contents = probe(disk.clone());
    assert_eq!((contents.kind, contents.label.as_deref()), (Kind::HfsPlus, Some("Mac")));
    assert_eq!((contents.size(), contents.state), (Some(64 << 12), State::JournalToReplay));
    assert!(contents.uuid.is_some() && contents.findings.is_empty());
    disk[(64 << 12) - 1024] = 0;
    let codes: Vec<_> = probe(disk).findings.iter().map(|f| f.code).collect();
    assert_eq!(codes, ["contents.hfs-plus.backup-header"]);
}

fn pair(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let mut pair = Vec::new();
    pair.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
    pair.extend(name.bytes());
    pair.resize(pair.len().next_multiple_of(4), 0);
    pair.extend(kind.to_be_bytes());
    pair.extend(1u32.to_be_bytes());
    pair.extend(value);
    pair.resize(pair.len().next_multiple_of(4), 0);
    let size = u32::try_from(pair.len() + 8).unwrap().to_be_bytes();
    [&size[..], &size, &pair].concat()
}

fn counted(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

#[test]
fn zfs_says_its_pool_and_its_size() {
    let device =
        [&[0; 8][..], &pair("type", 9, &counted("disk")), &pair("asize", 8, &(3u64 << 20).to_be_bytes()), &[0; 8]];
    let list = [
        &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
        &pair("name", 9, &counted("tank")),
        &pair("pool_guid", 8, &1234u64.to_be_bytes()),
        &pair("vdev_tree", 19, &device.concat()),
        &[0; 8],
    ];
    let mut disk = vec![0; 8 << 20];
    put(&mut disk, 16 << 10, &list.concat());
    put(&mut disk, 128 << 10, &0x00ba_b10cu64.to_le_bytes());
    let contents = probe(disk.clone());
    assert_eq!((contents.kind, contents.label.as_deref()), (Kind::Zfs, Some("tank")));
    assert_eq!((contents.uuid.as_deref(), contents.size()), (Some("1234"), Some((7 << 20) + (512 << 10))));
    // A list that ends in the middle of a pair is no loop and no panic.
    for len in 0..list.concat().len() {
        let mut cut = disk.clone();
        cut[(16 << 10) + len..128 << 10].fill(0xff);
        let _ = probe(cut);
    }
}

/// A swap area in the second partition of an MBR, which is larger than it.
#[test]
fn partitions_are_looked_into_and_findings_have_the_disks_places() {
    let mut disk = vec![0; 1 << 20];
    put(&mut disk, 510, b"\x55\xaa");
    let entry = |kind: u8, first: u32, count: u32| {
        let mut entry = vec![0; 16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..16].copy_from_slice(&count.to_le_bytes());
        entry
    };
    put(&mut disk, 446, &entry(0x83, 64, 64));
    put(&mut disk, 462, &entry(0x82, 1024, 1024));
    let start = 512 << 10;
    put(&mut disk, start + 1024, &1u32.to_le_bytes());
    put(&mut disk, start + 1028, &128u32.to_le_bytes());
    put(&mut disk, start + 4086, b"SWAPSPACE2");
    let contents = probe(disk.clone());
    assert_eq!((contents.kind, contents.size(), contents.findings.len()), (Kind::Mbr, Some(1 << 20), 0));
    assert_eq!(contents.to_string(), "MBR (1, 2 swap), 1 MiB");
    let [finding] = contents.all_findings()[..] else { panic!("{contents:?}") };
    assert_eq!((finding.code, finding.offset), ("contents.size", Some(512 << 10)));
    assert!(finding.structure.starts_with("partition 2: "));
    // The disk is large enough for its table, whatever is in a partition.
    contents.fits(1 << 20).unwrap();
    // Of a disk that is cut off, what is in a partition still fits it.
    put(&mut disk, start + 1028, &127u32.to_le_bytes());
    disk.truncate(700 << 10);
    let contents = probe(disk);
    let codes: Vec<_> = contents.all_findings().iter().map(|f| f.code).collect();
    assert_eq!((contents.kind, codes), (Kind::Mbr, vec!["contents.size"]));
}

/// A disk of which some bytes cannot be read.
struct Failing(Vec<u8>, std::ops::Range<u64>);

impl ReadAt for Failing {
    fn len(&self) -> u64 {
        ReadAt::len(&self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + u64::try_from(buf.len()).unwrap();
        if offset < self.1.end && self.1.start < end {
            return Err(Error::io("reading", std::io::ErrorKind::TimedOut.into()).at(self.1.start));
        }
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn a_bad_sector_elsewhere_hides_nothing() {
    let contents = Contents::probe(Arc::new(Failing(apfs(), 8192..8704))).unwrap();
    assert_eq!((contents.kind, contents.findings.len()), (Kind::Apfs, 0));
    let e = Contents::probe(Arc::new(Failing(vec![7; 64 << 10], 0..512))).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::Io);
}
