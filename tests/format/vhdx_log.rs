//! The log of a VHDX: what QEMU leaves when it dies, and logs that are made here, against what QEMU makes of them.

use std::process::{Command, Stdio};

use unluks::format::Opened;
use unluks::num::to_u64;
use unluks::{ErrorKind, Result};

use crate::support::{Bench, Rng, assert_same, disk_of, open_bytes, qemu_img, read_all, test_disk, text};

const SECTOR: usize = 4096;
const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
const GUID: [u8; 16] = [9; 16];

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

/// Where the log lies.
fn log_of(image: &[u8]) -> (usize, usize) {
    let len = u32::from_le_bytes(image[HEADERS[0] + 68..HEADERS[0] + 72].try_into().unwrap());
    (number(image, HEADERS[0] + 72), usize::try_from(len).unwrap())
}

/// Where the table of blocks lies.
fn blocks_of(image: &[u8]) -> usize {
    let guid = [0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42];
    let at = (192 << 10..256 << 10).find(|at| image[*at..].starts_with(&guid)).unwrap();
    number(image, at + 16)
}

fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Names the log in both headers.
fn name_log(image: &mut [u8], guid: [u8; 16]) {
    for at in HEADERS {
        image[at + 48..at + 64].copy_from_slice(&guid);
        seal(&mut image[at..at + SECTOR]);
    }
}

/// What an entry changes.
enum Change<'a> {
    Sector(usize, &'a [u8]),
    Zero(usize, usize),
}

/// An entry of the log.
fn entry(number: u64, tail: usize, file_len: usize, changes: &[Change<'_>]) -> Vec<u8> {
    let (mut descriptors, mut data) = (Vec::new(), Vec::new());
    for change in changes {
        let (at, fields) = match change {
            Change::Sector(at, sector) => {
                data.extend(b"data");
                data.extend(u32::try_from(number >> 32).unwrap().to_le_bytes());
                data.extend(&sector[8..4092]);
                data.extend(u32::try_from(number & 0xffff_ffff).unwrap().to_le_bytes());
                (at, [b"desc", &sector[4092..], &sector[..8]].concat())
            }
            Change::Zero(at, len) => (at, [b"zero\0\0\0\0".as_slice(), &to_u64(*len).to_le_bytes()].concat()),
        };
        descriptors.extend(fields);
        descriptors.extend([to_u64(*at).to_le_bytes(), number.to_le_bytes()].concat());
    }
    let mut bytes = b"loge\0\0\0\0".to_vec();
    let len = (64 + descriptors.len()).next_multiple_of(SECTOR) + data.len();
    let int = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    bytes.extend([int(len), int(tail)].concat());
    bytes.extend(number.to_le_bytes());
    bytes.extend([int(changes.len()), int(0)].concat());
    bytes.extend(GUID);
    bytes.extend([to_u64(file_len).to_le_bytes(); 2].concat());
    bytes.extend(descriptors);
    bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
    bytes.extend(data);
    seal(&mut bytes);
    bytes
}

/// Puts an entry into the ring, from `at` of the log on.
fn put(image: &mut [u8], at: usize, entry: &[u8]) {
    let (start, len) = log_of(image);
    for (n, byte) in entry.iter().enumerate() {
        image[start + (at + n) % len] = *byte;
    }
}

/// What QEMU reads of the image once it has played the log back on a copy.
fn by_qemu(bench: &Bench, image: &[u8]) -> Vec<u8> {
    let (copy, raw) = (bench.path("copy.vhdx"), bench.path("copy.raw"));
    std::fs::write(&copy, image).unwrap();
    qemu_img(&["check", "-q", "-f", "vhdx", "-r", "all", text(&copy)]);
    qemu_img(&["convert", "-f", "vhdx", "-O", "raw", text(&copy), text(&raw)]);
    std::fs::read(raw).unwrap()
}

fn read(image: &[u8]) -> Result<(Vec<u8>, Vec<String>)> {
    let opened: Opened = open_bytes(image.to_vec(), None)?;
    let notes = opened.notes.clone();
    Ok((read_all(&disk_of(opened))?, notes))
}

fn is_replayed(notes: &[String], entries: &str) -> bool {
    notes.len() == 1 && notes[0].starts_with("the VHDX image was not closed cleanly") && notes[0].contains(entries)
}

/// QEMU's own log.
#[test]
fn what_qemu_leaves_behind_when_it_dies_is_played_back() {
    let bench = Bench::new(Vec::new());
    let path = bench.path("crash.vhdx");
    qemu_img(&["create", "-q", "-f", "vhdx", "-o", "block_size=1M", text(&path), "64M"]);
    let writes = ["write -P 5 0 1M", "write -P 6 20M 3M", "write -P 7 63M 1M", "flush", "abort"];
    let commands: Vec<&str> = writes.into_iter().flat_map(|command| ["-c", command]).collect();
    let died = Command::new("qemu-io").args(["-f", "vhdx"]).args(commands).arg(&path).stdout(Stdio::null()).status();
    assert!(!died.unwrap().success());
    let mut image = std::fs::read(&path).unwrap();
    // It names each entry in the headers before it writes to the table, and takes the name away behind that: as if it had
    // died in between.
    let (start, len) = log_of(&image);
    let entries = (start..start + len).step_by(SECTOR).filter(|at| image[*at..].starts_with(b"loge"));
    let newest = entries.max_by_key(|at| number(&image, at + 16)).unwrap();
    let guid = image[newest + 32..newest + 48].try_into().unwrap();
    name_log(&mut image, guid);
    let mut wanted = vec![0u8; 64 << 20];
    for (byte, at, len) in [(5, 0, 1), (6, 20, 3), (7, 63, 1)] {
        wanted[at << 20..(at + len) << 20].fill(byte);
    }
    let (found, notes) = read(&image).unwrap();
    assert!(is_replayed(&notes, "1 entry"), "{notes:?}");
    assert_same(&found, &wanted, "as it was left");
    assert_same(&by_qemu(&bench, &image), &wanted, "by QEMU");
    // The table as it was before the entry: what that one wrote is in the log alone.
    let mut stale = image.clone();
    let table = blocks_of(&image);
    stale[table + 63 * 8..table + 64 * 8].fill(0);
    assert_same(&read(&stale).unwrap().0, &wanted, "with a stale table");
    assert_same(&by_qemu(&bench, &stale), &wanted, "with a stale table, by QEMU");
}

fn sound(bench: &Bench) -> Vec<u8> {
    std::fs::read(bench.convert("vhdx", "block_size=1M", &[])).unwrap()
}

#[test]
fn entries_are_played_back_from_the_oldest_to_the_newest_around_the_ring() {
    let bench = Bench::new(test_disk(8 << 20, 41));
    let image = sound(&bench);
    let (_, log_len) = log_of(&image);
    let table = blocks_of(&image);
    let right = image[table..table + SECTOR].to_vec();
    let mut wrong = right.clone();
    wrong[..64].fill(0);
    let len = image.len();
    // The table is lost, written wrongly, cleared with what lies around it, and written as it was.
    let mut dirty = image.clone();
    dirty[table..table + SECTOR].fill(0xee);
    name_log(&mut dirty, GUID);
    let tail = log_len - 3 * SECTOR;
    let chain: [&[Change<'_>]; 3] = [
        &[Change::Sector(table, &wrong), Change::Sector(table + SECTOR, &wrong)],
        &[Change::Zero(table, 16 * SECTOR)],
        &[Change::Sector(table, &right)],
    ];
    let mut at = tail;
    let mut places = Vec::new();
    for (n, changes) in chain.iter().enumerate() {
        let bytes = entry(7 + to_u64(n), tail, len, changes);
        put(&mut dirty, at, &bytes);
        places.push(at);
        at = (at + bytes.len()) % log_len;
    }
    assert!(places[2] < places[0], "the ring goes around");
    let (found, notes) = read(&dirty).unwrap();
    assert!(is_replayed(&notes, "3 entries"), "{notes:?}");
    assert_same(&found, &bench.disk, "played back");
    assert_same(&by_qemu(&bench, &dirty), &bench.disk, "by QEMU");

    // An older entry that counts and is damaged is no log; the newest one that is torn was never to be.
    let mut damaged = dirty.clone();
    let (start, _) = log_of(&image);
    damaged[start + places[0] + 5000] ^= 1;
    let e = read(&damaged).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "vhdx.log"), "{e}");
    let mut torn = dirty.clone();
    let next = entry(10, tail, len, &[Change::Zero(table, SECTOR)]);
    put(&mut torn, at, &next);
    let torn_at = start + at + 80;
    torn[torn_at] ^= 1;
    let (found, notes) = read(&torn).unwrap();
    assert!(is_replayed(&notes, "3 entries"), "{notes:?}");
    assert_same(&found, &bench.disk, "before the torn one");
}

#[test]
fn what_a_log_cannot_say_is_refused_or_told() {
    let bench = Bench::new(test_disk(1 << 20, 13));
    let mut image = sound(&bench);
    name_log(&mut image, GUID);
    // QEMU, too, opens an image whose log has a name and no entry.
    let (found, notes) = read(&image).unwrap();
    assert!(notes.is_empty());
    assert_same(&found, &bench.disk, "an empty log");
    let (start, log_len) = log_of(&image);
    let table = blocks_of(&image);
    let len = image.len();
    // Nothing but what has the mark of an entry.
    for at in [0, 8192, log_len - SECTOR] {
        let mut image = image.clone();
        image[start + at..start + at + 4].copy_from_slice(b"loge");
        assert!(read(&image).unwrap().1.is_empty(), "the entry is of another log");
        image[start + at + 32..start + at + 48].copy_from_slice(&GUID);
        let (found, notes) = read(&image).unwrap();
        assert!(notes.len() == 1 && notes[0].starts_with("vhdx: "), "{notes:?}");
        assert_same(&found, &bench.disk, "no entry is whole");
    }
    let with = |bytes: &[u8]| {
        let mut image = image.clone();
        put(&mut image, 0, bytes);
        read(&image).map(|(bytes, notes)| (bytes == bench.disk, notes))
    };
    let refused = |bytes: &[u8]| {
        let e = with(bytes).err().unwrap();
        (e.kind(), e.rule().to_owned())
    };
    let corrupt = (ErrorKind::Corrupt, "vhdx.log".to_owned());
    let nothing = entry(1, 0, len, &[]);
    assert!(with(&nothing).unwrap().0);
    // A file that is shorter than it was; a place behind its end, or beyond all numbers.
    assert_eq!(refused(&entry(1, 0, len + SECTOR, &[])), corrupt);
    assert_eq!(refused(&entry(1, 0, len, &[Change::Zero(len, SECTOR)])), corrupt);
    let beyond = usize::MAX - usize::MAX % SECTOR;
    assert_eq!(refused(&entry(1, 0, len, &[Change::Zero(beyond, SECTOR)])), corrupt);
    assert_eq!(refused(&entry(1, 0, len, &[Change::Zero(0, beyond)])), corrupt);
    // What is not at a sector's start is no entry; a tail that leads nowhere is no sequence.
    assert!(with(&entry(1, 0, len, &[Change::Zero(table + 8, SECTOR)])).unwrap().1[0].starts_with("vhdx: "));
    assert_eq!(refused(&entry(1, 8192, len, &[])), corrupt);
    // A length that the log does not have.
    for at in [68, 72] {
        let mut image = image.clone();
        for header in HEADERS {
            image[header + at + 3] = 0xf0;
            seal(&mut image[header..header + SECTOR]);
        }
        assert!(matches!(read(&image).err().unwrap().rule(), "vhdx.log"), "byte {at} of the header");
    }
}

/// Changed logs whose checksums are right: bytes or an error, and nothing else.
#[test]
fn changed_logs_are_bytes_or_an_error() {
    let bench = Bench::new(test_disk(256 << 10, 14));
    let mut image = sound(&bench);
    name_log(&mut image, GUID);
    let table = blocks_of(&image);
    let right = image[table..table + SECTOR].to_vec();
    let whole = entry(5, 0, image.len(), &[Change::Sector(table, &right), Change::Zero(table + SECTOR, SECTOR)]);
    let (mut rng, mut read_all_of, mut refused) = (Rng(5), 0, 0);
    for n in 0..500 {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.index(160);
            bytes[at] = if rng.below(2) == 0 { 0xff } else { bytes[at] ^ 1 << rng.below(8) };
        }
        let len = usize::try_from(u32::from_le_bytes(bytes[8..12].try_into().unwrap())).unwrap();
        if (SECTOR..=bytes.len()).contains(&len) {
            seal(&mut bytes[..len]);
        }
        let mut image = image.clone();
        put(&mut image, 0, &bytes);
        // What it declares may be large; the first of it is enough.
        let opened = open_bytes(image, None).and_then(|opened| {
            let disk = disk_of(opened);
            let mut first = vec![0; usize::try_from(disk.len().min(1 << 20)).unwrap()];
            disk.read_exact_at(&mut first, 0)
        });
        match opened {
            Ok(()) => read_all_of += 1,
            Err(e) => {
                assert!(!e.rule().is_empty(), "{n}: {e}");
                refused += 1;
            }
        }
    }
    assert!(read_all_of > 50 && refused > 20, "{read_all_of} read, {refused} refused");
}
