//! Bad sectors in partition tables.

use std::ops::Range;
use std::sync::Arc;

use unluks::locate::{FindOptions, find};
use unluks::storage::{is_lvm, list};
use unluks::{ErrorKind, Image, ReadAt};

use crate::failing::FailingRanges;
use crate::support::{Golden, PARTITION, in_mbr, open};

const SECTOR: u64 = 512;
/// The end of the disk of the golden image, where the GPT's second header is.
const END: u64 = 4 << 20;

fn sector(n: u64) -> Range<u64> {
    n * SECTOR..(n + 1) * SECTOR
}

#[test]
fn a_gpt_is_read_from_what_can_be_read() {
    let golden = Golden::read("gpt");
    let last = END / SECTOR - 1;
    // What cannot be read, and what is said of it; `None` where no table is left.
    let cases: [(Vec<Range<u64>>, Option<&str>); 8] = [
        (vec![], Some("GPT partition 2")),
        (vec![sector(0)], Some("master boot record cannot be read")),
        (vec![sector(1)], Some("its copy at the end was read")),
        (vec![sector(2)], Some("its copy at the end was read")),
        (vec![sector(0), sector(1)], Some("its copy at the end was read")),
        (vec![sector(last)], Some("GPT partition 2")),
        (vec![sector(1), sector(last)], None),
        (vec![sector(0), sector(2), sector(last)], None),
    ];
    for (bad, says) in cases {
        let name = format!("{bad:?}");
        let (image, notes) = open(Arc::new(FailingRanges::new(golden.image.clone(), bad)), None);
        match says {
            Some(says) => {
                golden.open(&image.unwrap_or_else(|e| panic!("{name}: {e}"))).unwrap();
                assert!(notes.iter().any(|note| note.contains(says)), "{name}: {notes:?}");
            }
            None => {
                let e = image.err().unwrap();
                assert_eq!((e.kind(), e.offset().is_some()), (ErrorKind::Io, true), "{name}: {e}");
            }
        }
    }
}

#[test]
fn a_partition_is_named_although_the_start_of_another_cannot_be_read() {
    let golden = Golden::read("gpt");
    let table = list(&golden.image, None).unwrap().unwrap();
    let other = table.entries.iter().find(|e| e.number == 1).unwrap();
    let luks = table.entries.iter().find(|e| e.number == 2).unwrap();
    let bad = |start| Arc::new(FailingRanges::new(golden.image.clone(), std::iter::once(start..start + SECTOR)));
    let (image, notes) = open(bad(other.start), None);
    golden.open(&image.unwrap()).unwrap();
    assert!(notes.iter().any(|n| n.contains("the start of a partition cannot be read")), "{notes:?}");
    // The one with LUKS2 is found by its secondary header, and opens when it is named.
    golden.open(&open(bad(luks.start), None).0.unwrap()).unwrap();
    let options = FindOptions { partition: Some("2".into()), ..FindOptions::default() };
    golden.open(&Image::open_found(&find(bad(luks.start), options).unwrap(), None).unwrap()).unwrap();
    assert_eq!(table.luks(&*bad(other.start)).unwrap().len(), 1);
    assert_eq!(table.luks(&*bad(luks.start)).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn where_no_partition_is_left_the_disk_is_to_blame() {
    let golden = Golden::read("l1-aes-xts-512-sha256");
    let disk = FailingRanges::new(in_mbr(&golden.image), std::iter::once(PARTITION..PARTITION + SECTOR));
    let e = open(Arc::new(disk), None).0.err().unwrap();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Io, Some(PARTITION)), "{e}");
    assert!(e.to_string().contains("no partition holds LUKS where it can be read"), "{e}");
    let disk = FailingRanges::new(in_mbr(&golden.image), std::iter::once(0..SECTOR));
    let e = open(Arc::new(disk), None).0.err().unwrap();
    assert_eq!((e.kind(), e.offset()), (ErrorKind::Io, Some(0)), "{e}");
}

#[test]
fn a_chain_of_logical_partitions_is_followed_as_far_as_it_can_be_read() {
    let mut disk = vec![0u8; 100 * 512];
    let mut put = |at: usize, n: usize, kind: u8, first: u32, count: u32| {
        let sector = &mut disk[at * 512..][..512];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let entry = &mut sector[446 + n * 16..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&first.to_le_bytes());
        entry[12..].copy_from_slice(&count.to_le_bytes());
    };
    put(0, 0, 0x83, 1, 9);
    put(0, 1, 0x05, 10, 90);
    put(10, 0, 0x83, 2, 8);
    put(10, 1, 0x05, 40, 50);
    put(50, 0, 0x83, 1, 49);
    let numbers = |disk: &dyn ReadAt| {
        let table = list(disk, None).unwrap().unwrap();
        (table.entries.iter().map(|e| e.number).collect::<Vec<_>>(), table.notes)
    };
    assert_eq!(numbers(&disk), (vec![1, 5, 6], vec![]));
    let (found, notes) = numbers(&FailingRanges::new(disk.clone(), [sector(50)]));
    assert_eq!(found, [1, 5]);
    assert!(notes[0].contains("cannot be read"), "{notes:?}");
}

#[test]
fn an_lvm_label_is_found_beside_a_bad_sector() {
    let mut disk = vec![0u8; 4096];
    disk[1024..1032].copy_from_slice(b"LABELONE");
    disk[1048..1056].copy_from_slice(b"LVM2 001");
    assert!(is_lvm(&FailingRanges::new(disk.clone(), [sector(0)])).unwrap());
    assert_eq!(is_lvm(&FailingRanges::new(disk, [sector(2)])).unwrap_err().kind(), ErrorKind::Io);
}
