//! Headers are found wherever they lie, each with the rule that it breaks; hostile disks cost no more than they may.

use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::ErrorKind;
use crate::io::Extent;
use crate::limits::{SCAN_COPIES_MAX, SCAN_OPEN_MAX};

/// A golden image.
fn image(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/{name}.img.gz", env!("CARGO_MANIFEST_DIR"));
    let stored = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(stored.as_slice()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A disk of zeroes with images at the given offsets.
fn disk(len: usize, images: &[(usize, &[u8])]) -> Vec<u8> {
    let mut disk = vec![0; len];
    for (at, image) in images {
        let end = at + <[u8]>::len(image);
        disk[*at..end].copy_from_slice(image);
    }
    disk
}

fn scan(disk: &dyn ReadAt) -> Scan {
    run(disk, Options::default(), &Progress::default()).unwrap()
}

/// Offset, role, state and the broken rule of each copy.
fn copies(container: &Container) -> Vec<(u64, Role, State, &str)> {
    let one = |c: &Copy| (c.offset, c.role, c.state, c.error.as_ref().map(|e| e.rule().to_owned()));
    let all = container.copies.iter().map(one);
    all.map(|(offset, role, state, rule)| (offset, role, state, &*rule.unwrap_or_default().leak())).collect()
}

const MIB: usize = 1 << 20;

#[test]
fn both_copies_of_a_container_are_one_container_at_any_sector() {
    let luks2 = image("l2-pbkdf2-sha512");
    for at in [0, 512, 4 * MIB - 512, 4 * MIB - 16384, 7 * MIB + 3 * 512] {
        let disk = disk(9 * MIB, &[(at, &luks2)]);
        let found = scan(&disk);
        let [container] = found.containers.as_slice() else { panic!("at {at}: {:?}", found.containers) };
        let start = bytes(at);
        assert_eq!(container.start, Some(start));
        let wanted = [(start, Role::Primary, State::Used, ""), (start + 16384, Role::Secondary, State::Spare, "")];
        assert_eq!(copies(container), wanted);
        let opened = container.header.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(opened.uuid, crate::open(&luks2).unwrap().uuid);
        assert_eq!((found.good_left_out, found.bad_left_out, found.unreadable.is_none()), (0, 0, true));
    }
    // One byte further is no place of a header.
    assert!(!scan(&disk(9 * MIB, &[(4097, &luks2)])).found());
}

#[test]
fn a_lost_primary_is_told_by_the_secondary_whatever_its_size() {
    for (name, size) in [("l2-primary-zeroed", 16384), ("l2-metadata-64k-primary-zeroed", 65536)] {
        let disk = disk(8 * MIB, &[(5 * MIB + 512, &image(name))]);
        let found = scan(&disk);
        let [container] = found.containers.as_slice() else { panic!("{name}: {:?}", found.containers) };
        let start = bytes(5 * MIB + 512);
        let wanted =
            [(start, Role::Primary, State::Unusable, "magic"), (start + size, Role::Secondary, State::Used, "")];
        assert_eq!((container.start, copies(container)), (Some(start), wanted.to_vec()));
        assert!(container.header.as_ref().unwrap().is_ok());
    }
}

#[test]
fn the_rule_that_a_damaged_copy_breaks_is_named() {
    let found = scan(&image("l2-primary-json-flipped"));
    let wanted = [(0, Role::Primary, State::Unusable, "csum"), (16384, Role::Secondary, State::Used, "")];
    assert_eq!(copies(&found.containers[0]), wanted);
    let mut both = image("l2-both-damaged");
    let found = scan(&both);
    assert!(!found.found() && found.containers[0].header.is_none());
    assert!(found.containers.iter().flat_map(|c| &c.copies).all(|c| c.error.is_some()));
    // A secondary whose place is damaged does not tell where its container starts.
    both = image("l2-pbkdf2-sha512");
    both[..4096].fill(0);
    // As long as a JSON area is there, the header is put together from it.
    assert_eq!((scan(&both).containers[0].start, scan(&both).found()), (Some(0), true));
    both[4096..16384].fill(0);
    both[16384 + 4096..32768].fill(0);
    both[16384 + 256..][..8].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let found = scan(&both);
    assert_eq!((found.containers[0].start, found.found()), (None, false));
    // One that would start before the disk does.
    let found = scan(&image("l2-pbkdf2-sha512")[16384..].to_vec());
    assert_eq!(copies(&found.containers[0]), [(0, Role::Secondary, State::Unusable, "hdr_offset")]);
    let mut luks1 = image("l1-sha512");
    luks1[108..112].fill(0);
    let found = scan(&disk(MIB * 2, &[(MIB, &luks1)]));
    assert_eq!(copies(&found.containers[0]), [(bytes(MIB), Role::Primary, State::Unusable, "key-bytes")]);
    let found = scan(&b"LUKS\xba\xbe".to_vec());
    assert_eq!(copies(&found.containers[0]), [(0, Role::Primary, State::Unusable, "version")]);
}

#[test]
fn what_an_earlier_header_left_is_not_taken_for_a_copy() {
    let stale = image("l1-stale-skul-4000");
    let found = scan(&stale);
    let [container] = found.containers.as_slice() else { panic!("{:?}", found.containers) };
    assert_eq!(container.header.as_ref().unwrap().as_ref().unwrap().version, Version::V1);
    assert_eq!(copies(container)[0], (0, Role::Primary, State::Used, ""));
    assert!(copies(container)[1..].iter().all(|c| matches!(c.2, State::LeftOver | State::Unusable)));
    assert!(container.copies.len() > 1);
}

/// Counts the bytes that are read of a disk.
struct Counted<D>(D, AtomicU64);

impl<D: ReadAt> ReadAt for Counted<D> {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(bytes(buf.len()), Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn a_disk_full_of_headers_costs_three_times_its_size_and_hides_no_good_one() {
    // Each sector begins a header of 4 MiB whose first sector breaks no rule.
    let mut fake = image("l2-pbkdf2-sha512")[..512].to_vec();
    fake[8..16].copy_from_slice(&(4u64 << 20).to_be_bytes());
    let mut full = fake.repeat(24 * MIB / 512);
    let good = image("l2-primary-zeroed");
    full[17 * MIB..][..good.len()].copy_from_slice(&good);
    let counted = Counted(full, AtomicU64::new(0));
    let found = scan(&counted);
    let read = counted.1.load(Ordering::Relaxed);
    assert!(read < 24 * 1024 * 1024 * 3 + (64 << 20), "{read} bytes were read");
    let good: Vec<_> = found.containers.iter().filter(|c| c.has_good_copy()).collect();
    assert_eq!(good.iter().map(|c| c.start).collect::<Vec<_>>(), [Some(bytes(17 * MIB))]);
    let bad = found.containers.iter().flat_map(|c| &c.copies).filter(|c| c.error.is_some());
    let rules: Vec<_> = bad.map(|c| c.error.as_ref().unwrap().rule().to_owned()).collect();
    assert!(rules.contains(&"csum".to_owned()) && rules.contains(&"scan.check".to_owned()));
    assert!(rules.len() <= SCAN_COPIES_MAX + 1 && found.bad_left_out > 40_000, "{}", found.bad_left_out);
}

#[test]
fn what_is_kept_does_not_depend_on_the_threads() {
    let luks1 = &image("l1-sha512")[..100_000];
    let mut full = luks1[..1024].repeat(9 * MIB / 1024);
    full.extend(luks1);
    let offsets = |threads: usize| {
        let options = Options { threads: NonZeroUsize::new(threads), ..Options::default() };
        let found = run(&full, options, &Progress::default()).unwrap();
        let offsets: Vec<_> = found.containers.iter().flat_map(|c| &c.copies).map(|c| c.offset).collect();
        (offsets, found.good_left_out, found.bad_left_out)
    };
    let one = offsets(1);
    assert_eq!(one, offsets(7));
    assert!(one.0.len() >= SCAN_COPIES_MAX && one.0.len() <= 2 * SCAN_COPIES_MAX);
    assert_eq!(bytes(one.0.len()) + one.1 + one.2, bytes(9 * MIB / 1024 + 1));
}

/// A disk with a bad part.
struct Scratched(Vec<u8>, std::ops::Range<u64>);

impl ReadAt for Scratched {
    fn len(&self) -> u64 {
        ReadAt::len(&self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset < self.1.end && offset + bytes(buf.len()) > self.1.start {
            Err(Error::new(ErrorKind::Io, "a scratch").at(offset))
        } else {
            self.0.read_exact_at(buf, offset)
        }
    }
}

#[test]
fn a_bad_sector_hides_nothing_but_itself() {
    let luks2 = image("l2-pbkdf2-sha512");
    let start = 5 * MIB;
    let primary = bytes(start)..bytes(start) + 512;
    let found = scan(&Scratched(disk(9 * MIB + 100, &[(start, &luks2)]), primary.clone()));
    let unreadable = found.unreadable.as_ref().unwrap();
    assert_eq!((unreadable.bytes, unreadable.first, unreadable.error.message()), (4096, primary.start, "a scratch"));
    // The container opens from its other copy.
    let wanted = [
        (primary.start, Role::Primary, State::Unusable, ""),
        (primary.start + 16384, Role::Secondary, State::Used, ""),
    ];
    assert_eq!(copies(&found.containers[0]), wanted);
    assert!(found.containers[0].header.as_ref().unwrap().is_ok());
    let all = Scratched(vec![0; 9 * MIB + 100], 0..u64::MAX);
    let e = run(&all, Options::default(), &Progress::default()).unwrap_err();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Io, "a scratch"));
}

/// Terabytes of zeroes with something at their end.
struct Sparse(u64, Vec<u8>);

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.0 + ReadAt::len(&self.1)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.read_exact_at(buf, offset.checked_sub(self.0).expect("a hole is not read"))
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(match self.0.checked_sub(offset) {
            Some(len) if len > 0 => Extent { len, zero: true },
            _ => Extent { len: self.len() - offset, zero: false },
        })
    }
}

#[test]
fn holes_are_passed_over() {
    let found = scan(&Sparse(60 << 40, image("l2-pbkdf2-sha512")));
    assert_eq!(found.containers[0].start, Some(60 << 40));
    assert!(!scan(&Vec::new()).found());
}

#[test]
fn it_can_be_stopped_and_refuses_a_pipe() {
    let progress = Progress::default();
    progress.cancel();
    let e = run(&vec![0u8; MIB], Options::default(), &progress).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    let pipe = crate::io::Pipe::new(Box::new(std::io::empty()));
    assert_eq!(run(&pipe, Options::default(), &Progress::default()).unwrap_err().kind(), ErrorKind::InvalidInput);
    let progress = Progress::default();
    run(&vec![0u8; 9 * MIB + 5], Options::default(), &progress).unwrap();
    assert_eq!(progress.bytes(), bytes(9 * MIB + 5));
}

/// The same header again and again, each with room behind it, without that much memory.
struct Repeated(Vec<u8>, u64);

impl ReadAt for Repeated {
    fn len(&self) -> u64 {
        bytes(self.0.len()) * self.1
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let within = usize::try_from(at % bytes(self.0.len())).unwrap();
            let n = rest.len().min(self.0.len() - within);
            let (now, later) = rest.split_at_mut(n);
            now.copy_from_slice(&self.0[within..within + n]);
            at += bytes(n);
            rest = later;
        }
        Ok(())
    }
}

#[test]
fn large_headers_are_opened_as_long_as_they_are_few() {
    let mut header = image("l2-metadata-4m-primary-zeroed");
    header.truncate(9 * MIB);
    let most = usize::try_from(SCAN_OPEN_MAX / (4 << 20)).unwrap();
    let found = scan(&Repeated(header, bytes(most) + 4));
    assert_eq!(found.containers.len(), most + 4);
    let opened = found.containers.iter().filter(|c| c.opens()).count();
    assert_eq!(opened, most);
    let last = found.containers.last().unwrap().header.as_ref().unwrap().as_ref().unwrap_err();
    assert_eq!((last.kind(), last.rule()), (ErrorKind::LimitExceeded, "scan.open"));
}

#[test]
fn noise_has_no_header() {
    let mut x = 7u64;
    let mut next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x ^ x >> 29).to_le_bytes()
    };
    let noise: Vec<u8> = (0..32 * MIB / 8).flat_map(|_| next()).collect();
    assert!(scan(&noise).containers.is_empty());
}
