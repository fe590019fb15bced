//! Partition tables that sfdisk writes, whole and damaged, compared with what sfdisk itself lists.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Rng, open_path, qemu_img, run, text};
use unluks::storage::{Kind, Scheme, Table, list};
use unluks::{ErrorKind, ReadAt};

/// A disk of `sectors` sectors of 512 bytes with the table that `script` describes, and sfdisk's own list of it:
/// (number, first sector, sectors, type, label, UUID).
fn sfdisk(sectors: u64, script: &str) -> (Vec<u8>, Vec<Listed>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(sectors * 512).unwrap();
    let mut child = Command::new("sfdisk")
        .args(["-q", "--no-reread", "--no-tell-kernel", text(file.path())])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("sfdisk is needed (Debian package fdisk): {e}"));
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "sfdisk: {}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value =
        serde_json::from_str(&run("sfdisk", "fdisk", &["--json", text(file.path())])).unwrap();
    let table = &json["partitiontable"];
    let listed = table["partitions"].as_array().unwrap().iter().map(|p| {
        let word = |name: &str| p[name].as_str().unwrap_or_default().to_owned();
        let node = word("node");
        let number: u32 = node.strip_prefix(text(file.path())).unwrap().trim_start_matches('p').parse().unwrap();
        let uuid = match table["label"].as_str() {
            Some("gpt") => word("uuid").to_lowercase(),
            _ => format!("{}-{number:02x}", table["id"].as_str().unwrap().trim_start_matches("0x")),
        };
        let (start, size) = (p["start"].as_u64().unwrap(), p["size"].as_u64().unwrap());
        (number, start, size, word("type").to_lowercase(), word("name"), uuid)
    });
    let listed = listed.filter(|p| !["5", "f", "85"].contains(&p.3.as_str())).collect();
    (std::fs::read(file.path()).unwrap(), listed)
}

type Listed = (u32, u64, u64, String, String, String);

fn listed(table: &Table) -> Vec<Listed> {
    let entries = table.entries.iter().map(|e| {
        let sector = u64::from(table.sector_size);
        let kind = match e.kind {
            Kind::Gpt(guid) => guid.to_string(),
            Kind::Mbr(byte) => format!("{byte:x}"),
        };
        (e.number, e.start / sector, e.len / sector, kind, e.label.clone().unwrap_or_default(), e.uuid.clone())
    });
    entries.collect()
}

const GPT: &str = "label: gpt\n\
    size=256KiB, name=\"boot\", type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
    size=300KiB, name=\"secret ß\", type=CA7D7CCB-63ED-4C53-861C-1742536059CC\n\
    7 : size=100KiB\n";

fn gpt() -> (Vec<u8>, Vec<Listed>) {
    sfdisk(8192, GPT)
}

/// The same table with sectors of 4096 bytes, for which sfdisk wants a disk that has them: each sector's bytes go to
/// where its number is then. The checksums stay right, for none covers a size of sectors.
fn with_large_sectors(disk: &[u8]) -> Vec<u8> {
    let mut large = vec![0; disk.len() * 8];
    let sectors = disk.len() / 512;
    for (from, to, len) in
        [(0, 0, 512), (1, 1, 512), (2, 2, 16384), (sectors - 33, sectors - 33, 16384), (sectors - 1, sectors - 1, 512)]
    {
        large[to * 4096..][..len].copy_from_slice(&disk[from * 512..][..len]);
    }
    large
}

#[test]
fn gpt_as_sfdisk_lists_it() {
    let (mut disk, wanted) = gpt();
    let large = with_large_sectors(&disk);
    for (disk, sector) in [(&disk, 512), (&large, 4096)] {
        for asked in [None, Some(sector)] {
            let table = list(disk, asked).unwrap().unwrap();
            assert_eq!((table.scheme, table.sector_size, table.notes.len()), (Scheme::Gpt, sector, 0));
            assert_eq!(listed(&table), wanted);
        }
        let table = list(disk, Some(4608 - sector)).unwrap().unwrap();
        assert_eq!((table.sector_size, listed(&table)), (sector, wanted.clone()), "with the wrong sector size");
        assert!(table.notes[0].contains(&format!("counts sectors of {sector} bytes")), "{:?}", table.notes);
    }
    let table = list(&disk, None).unwrap().unwrap();
    assert_eq!(table.find("secret ß").unwrap().number, 2);
    assert_eq!(table.find(&wanted[2].5.to_uppercase()).unwrap().number, 7);
    assert_eq!(table.find("7").unwrap().kind.to_string(), "Linux filesystem");
    assert!(table.luks(&disk).unwrap().is_empty());
    let at = usize::try_from(wanted[1].1 * 512).unwrap();
    disk[at..at + 6].copy_from_slice(b"LUKS\xba\xbe");
    assert_eq!(table.luks(&disk).unwrap().iter().map(|e| e.number).collect::<Vec<_>>(), [2]);
}

#[test]
fn a_container_may_have_other_sectors_than_the_disk_that_was_copied_into_it() {
    let (disk, wanted) = gpt();
    let mut disk = with_large_sectors(&disk);
    let at = usize::try_from(wanted[1].1 * 4096).unwrap();
    disk[at..at + 6].copy_from_slice(b"LUKS\xba\xbe");
    let dir = tempfile::tempdir().unwrap();
    let (raw, image) = (dir.path().join("raw"), dir.path().join("image"));
    std::fs::write(&raw, &disk).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "vhdx", text(&raw), text(&image)]);
    assert_eq!(open_path(&image, None).unwrap().sector_size, Some(512));
    run("ewfacquire", "ewf-tools", &["-u", "-q", "-f", "encase6", "-P", "512", "-t", text(&image), text(&raw)]);
    for image in [image.clone(), image.with_extension("E01")] {
        let file = std::sync::Arc::new(unluks::FileSource::open(&image).unwrap());
        let found = unluks::locate::find(file, unluks::locate::FindOptions::default()).unwrap();
        assert!(found.notes.iter().any(|note| note.starts_with("GPT partition 2: ")), "{:?}", found.notes);
        let mut magic = [0; 6];
        found.place.source().read_exact_at(&mut magic, 0).unwrap();
        assert_eq!(magic, *b"LUKS\xba\xbe", "{}", image.display());
    }
}

#[test]
fn a_damaged_gpt_is_read_from_its_copy() {
    let (disk, wanted) = gpt();
    for (disk, sector) in [(with_large_sectors(&disk), 4096), (disk, 512)] {
        let damages: [(&str, std::ops::Range<usize>); 4] = [
            ("MBR and header", 0..2 * sector),
            ("header", sector..sector + 1),
            ("header field", sector + 72..sector + 73),
            ("entries", 2 * sector + 40..2 * sector + 41),
        ];
        for (what, range) in damages {
            let mut damaged = disk.clone();
            damaged[range].iter_mut().for_each(|b| *b ^= if what == "MBR and header" { *b } else { 1 });
            let table = list(&damaged, None).unwrap().unwrap_or_else(|| panic!("{what}: no table"));
            assert_eq!(listed(&table), wanted, "{what}");
            assert!(table.notes[0].contains("its copy at the end was read"), "{what}: {:?}", table.notes);
            // Without its copy, there is an error that says what is wrong.
            damaged.truncate(damaged.len() - sector);
            let e = list(&damaged, None).map(|t| t.is_none());
            match what {
                "MBR and header" => assert!(e.unwrap(), "nothing says that there was a table"),
                _ => assert_eq!(e.unwrap_err().kind(), ErrorKind::Corrupt, "{what}"),
            }
        }
    }
}

#[test]
fn a_cut_off_disk_still_lists_what_it_has() {
    let (mut disk, wanted) = gpt();
    disk.truncate(usize::try_from((wanted[1].1 + 10) * 512).unwrap());
    let table = list(&disk, None).unwrap().unwrap();
    assert_eq!(listed(&table), wanted);
    assert!(table.notes[0].contains("partition 2 ends beyond the image"), "{:?}", table.notes);
    assert!(table.find("1").unwrap().open(&disk).is_ok());
    assert_eq!(table.find("2").unwrap().open(&disk).err().unwrap().rule(), "partition.truncated");
}

#[test]
fn mbr_as_sfdisk_lists_it() {
    let (disk, wanted) = sfdisk(
        131_072,
        "label: dos\nlabel-id: 0x1234abcd\n1 : size=8MiB, type=83\n2 : size=40MiB, type=5\n3 : size=4MiB, type=82\n\
         5 : size=8MiB, type=83\n6 : size=8MiB, type=e8\n7 : size=1MiB, type=8e\n",
    );
    let table = list(&disk, None).unwrap().unwrap();
    assert_eq!((table.scheme, table.notes.len()), (Scheme::Mbr, 0));
    assert_eq!(listed(&table), wanted);
    assert_eq!(table.entries.iter().map(|e| e.number).collect::<Vec<_>>(), [1, 3, 5, 6, 7]);
    assert_eq!(table.find("1234ABCD-06").unwrap().kind.to_string(), "Linux LUKS");
    // The same table on a disk with sectors of 4096 bytes: the caller has to say so.
    let table = list(&disk, Some(4096)).unwrap().unwrap();
    assert_eq!((table.entries[0].start, table.entries[0].len), (2048 * 4096, 64 << 20));
}

#[test]
fn no_table_is_no_error() {
    for disk in [vec![], vec![0; 511], vec![0; 512], vec![0; 1 << 20], vec![0xff; 1 << 20]] {
        assert!(list(&disk, None).unwrap().is_none());
    }
}

#[test]
fn mutated_tables_give_the_right_list_or_an_error() {
    let (disk, wanted) = gpt();
    let mut rng = Rng(21);
    let sectors = disk.len() / 512;
    for n in 0..1000 {
        let mut mutated = disk.clone();
        for _ in 0..=rng.below(4) {
            // The MBR has no checksum, so only the GPT's own sectors are held to the right list.
            let sector = [1, 2, 3, sectors - 33, sectors - 32, sectors - 1][rng.index(6)];
            let within = if rng.below(2) == 0 { 96 } else { 512 };
            let at = sector * 512 + rng.index(within);
            mutated[at] = u8::try_from(rng.below(256)).unwrap();
        }
        match list(&mutated, None) {
            Ok(table) => assert_eq!(table.as_ref().map(listed), Some(wanted.clone()), "mutation {n}"),
            Err(e) => assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::LimitExceeded), "mutation {n}: {e}"),
        }
    }
    let (disk, _) = sfdisk(
        65_536,
        "label: dos\n1 : size=8MiB, type=83\n2 : size=20MiB, type=5\n5 : size=1MiB\n6 : size=1MiB\n7 : size=1MiB\n",
    );
    let ends: Vec<usize> =
        (0..disk.len() / 512).map(|n| n * 512).filter(|at| disk[at + 510..at + 512] == [0x55, 0xaa]).collect();
    assert!(ends.len() >= 3, "the table and its links");
    let (mut mutated, mut undo) = (disk.clone(), Vec::new());
    for n in 0..1000 {
        undo.drain(..).for_each(|at: usize| mutated[at] = disk[at]);
        for _ in 0..=rng.below(6) {
            let at = ends[rng.index(ends.len())] + 440 + rng.index(72);
            mutated[at] = u8::try_from(rng.below(256)).unwrap();
            undo.push(at);
        }
        let table = list(&mutated, None).unwrap_or_else(|e| {
            // A type that became 0xee promises a GPT.
            assert_eq!(e.rule(), "gpt.signature", "mutation {n}");
            None
        });
        for entry in table.iter().flat_map(|table| &table.entries) {
            if let Ok(part) = entry.open(&mutated) {
                assert!(entry.len > 0 && unluks::ReadAt::len(&part) == entry.len, "mutation {n}");
            }
        }
    }
}

/// A GPT of `count` entries, each from sector `first` to sector `last`, on a disk of `sectors` sectors.
fn crowded_gpt(count: u32, first: u64, last: u64, sectors: usize) -> Vec<u8> {
    let mut entries = Vec::new();
    for n in 0..count {
        entries.extend([0xaf; 16]);
        entries.extend([n.to_le_bytes(); 4].concat());
        entries.extend([first.to_le_bytes(), last.to_le_bytes(), [0; 8]].concat());
        entries.extend([0xff; 72]);
    }
    let mut header = [&b"EFI PART\0\0\x01\0\x5c\0\0\0"[..], &[0; 76]].concat();
    header[24] = 1;
    header[72] = 2;
    header[80..84].copy_from_slice(&count.to_le_bytes());
    header[84] = 128;
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    let mut disk = vec![0; sectors * 512];
    disk[512..512 + header.len()].copy_from_slice(&header);
    disk[1024..1024 + entries.len()].copy_from_slice(&entries);
    disk
}

#[test]
fn thousands_of_partitions_make_no_message_longer() {
    const ALL: u32 = 32_768;
    let first = 2 + u64::from(ALL) / 4;
    let mut disk = crowded_gpt(ALL, first, first, usize::try_from(first).unwrap() + 8);
    let at = usize::try_from(first).unwrap() * 512;
    let error = |disk: Vec<u8>| {
        let found = unluks::locate::find(std::sync::Arc::new(disk), unluks::locate::FindOptions::default());
        found.err().unwrap().to_string()
    };
    disk[at..at + 6].copy_from_slice(b"LUKS\xba\xbe");
    let e = error(disk.clone());
    assert!(e.contains("32768 partitions hold LUKS: 1: ") && e.contains("and 32752 more"), "{}", e.len());
    assert!(e.len() < 8192, "{} bytes", e.len());
    disk[at..at + 8].copy_from_slice(b"LABELONE");
    disk[at + 24..at + 32].copy_from_slice(b"LVM2 001");
    let e = error(disk);
    assert!(e.contains("no partition holds LUKS"), "{}", e.len());
    assert!(e.len() < 8192, "{} bytes", e.len());
    for (first, last) in [(1 << 40, 1 << 41), (9, 8)] {
        let table = list(&crowded_gpt(ALL, first, last, 9000), None).unwrap().unwrap();
        assert_eq!(table.notes.len(), 17);
        assert_eq!(table.notes[16], "gpt: left out: 32752 notes more on its partitions");
    }
}
