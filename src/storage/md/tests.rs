//! Superblocks with one field changed, members that cannot be read, and mutations. Layouts are compared with the kernel's
//! own arrays in `tests/storage/md.rs`.

use std::ops::Range;
use std::sync::Mutex;

use super::*;
use crate::error::ErrorKind;
use crate::io::Extent;

const SUPERBLOCK: usize = 4096;
const DATA: usize = 8192;
const SIZE: usize = 65_536;
const CHUNK: usize = 4096;

fn put(member: &mut [u8], at: usize, bytes: &[u8]) {
    member[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Makes the checksum of the superblock at `at` right.
fn seal(member: &mut [u8], at: usize) {
    let max_dev = u32::from_le_bytes(member[at + 220..at + 224].try_into().unwrap());
    let end = (at + 256 + usize::try_from(max_dev).unwrap().min(1920) * 2).min(member.len());
    put(member, at + 216, &[0; 4]);
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let sum: u64 = member[at..end].chunks(4).map(word).sum();
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    put(member, at + 216, &sum.to_le_bytes());
}

/// A superblock of the three members of an array.
fn superblock(member: &mut [u8], at: usize, n: u32, level: i32, layout: u32) {
    let words = |sectors: usize| u64::try_from(sectors / 512).unwrap().to_le_bytes();
    let fields: &[(usize, &[u8])] = &[
        (0, &0xa92b_4efcu32.to_le_bytes()),
        (4, &[1]),
        (16, b"the array's uuid"),
        (32, b"host:name"),
        (64, &[1]),
        (72, &level.to_le_bytes()),
        (76, &layout.to_le_bytes()),
        (80, &words(SIZE)),
        (88, &[8]),
        (92, &[3]),
        (128, &words(if at == SUPERBLOCK { DATA } else { 0 })),
        (136, &words(SIZE)),
        (144, &words(at)),
        (160, &n.to_le_bytes()),
        (168, &[u8::try_from(n).unwrap() + 1; 16]),
        (200, &[7]),
        (208, &[0xff; 8]),
        (220, &[3]),
        (256, &[0, 0, 1, 0, 2, 0]),
    ];
    fields.iter().for_each(|(field, bytes)| put(member, at + field, bytes));
    seal(member, at);
}

/// The plaintext: each 8 bytes tell where they are.
fn disk(len: usize) -> Vec<u8> {
    (0..u64::try_from(len / 8).unwrap()).flat_map(u64::to_le_bytes).collect()
}

/// Three members of a RAID5, left-symmetric, and what is in it.
fn raid5() -> (Vec<Vec<u8>>, Vec<u8>) {
    let plain = disk(SIZE * 2);
    let mut members = vec![vec![0; DATA + SIZE]; 3];
    for (stripe, data) in plain.chunks(CHUNK * 2).enumerate() {
        let (first, second) = data.split_at(CHUNK);
        let parity: Vec<u8> = first.iter().zip(second).map(|(a, b)| a ^ b).collect();
        let p = 2 - stripe % 3;
        for (member, bytes) in [(p, parity.as_slice()), ((p + 1) % 3, first), ((p + 2) % 3, second)] {
            put(&mut members[member], DATA + stripe * CHUNK, bytes);
        }
    }
    for (n, member) in (0..).zip(&mut members) {
        superblock(member, SUPERBLOCK, n, 5, 2);
    }
    (members, plain)
}

/// A disk on which some bytes cannot be read: from the first of a pair to before the second.
struct Worn(Vec<u8>, Vec<(u64, u64)>);

impl ReadAt for Worn {
    fn len(&self) -> u64 {
        ReadAt::len(&self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + u64::try_from(buf.len()).unwrap();
        match self.1.iter().find(|(from, to)| *from < end && offset < *to) {
            Some((from, _)) => Err(Error::new(ErrorKind::Io, "worn").at(*from)),
            None => self.0.read_exact_at(buf, offset),
        }
    }
}

fn shared(disk: impl ReadAt + 'static) -> Arc<dyn ReadAt> {
    Arc::new(disk)
}

fn array_of(disks: Vec<Arc<dyn ReadAt>>, options: &AssembleOptions) -> Result<Array> {
    let sources = disks.into_iter().enumerate().map(|(n, disk)| Source { name: format!("m{n}"), disk });
    Array::assemble(sources.collect(), options)
}

fn assemble(members: &[Vec<u8>]) -> Result<Array> {
    let disks = members.iter().map(|m| shared(m.clone()));
    array_of(disks.collect(), &AssembleOptions::default())
}

fn read(array: &Array) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(array.len()).unwrap()];
    array.read_exact_at(&mut bytes, 0).map(|()| bytes)
}

fn error(members: &[Vec<u8>]) -> Error {
    assemble(members).and_then(|array| read(&array)).map(|bytes| bytes.len()).unwrap_err()
}

#[test]
fn one_field_and_one_error() {
    use ErrorKind::{Corrupt, InvalidInput, LimitExceeded, Unsupported};
    let le = |n: u64| n.to_le_bytes();
    type Case<'a> = (usize, &'a [u8], ErrorKind, &'a str, Option<u64>);
    let cases: &[Case] = &[
        (8, &[0, 0x20], Unsupported, "md.feature_map", Some(8)),
        (12, &[1], Unsupported, "md.feature_map", Some(8)),
        (8, &[4], Unsupported, "md.reshape", None),
        (8, &[0, 2], Unsupported, "md.journal", None),
        (8, &[0, 0x10], Corrupt, "md.feature_map", Some(8)),
        (8, &[8], Corrupt, "md.bblog_offset", Some(188)),
        (72, &(-4i32).to_le_bytes(), Unsupported, "md.level", None),
        (72, &[6], Corrupt, "md.raid_disks", None),
        (72, &[10], Corrupt, "md.layout", None),
        (76, &[6], Corrupt, "md.layout", None),
        (80, &le(0), Corrupt, "md.size", None),
        (80, &le(u64::MAX), Corrupt, "md.size", Some(80)),
        (80, &le(1 << 53), Corrupt, "md.size", None),
        (80, &le(1 << 40), Corrupt, "md.data_size", None),
        (88, &[0], Corrupt, "md.chunksize", None),
        (88, &[9], Corrupt, "md.chunksize", None),
        (88, &[4], Corrupt, "md.chunksize", None),
        (92, &[0], Corrupt, "md.raid_disks", Some(92)),
        (92, &[0x81, 7], LimitExceeded, "md.raid_disks", Some(92)),
        (92, &[1], Corrupt, "md.raid_disks", None),
        (92, &[5], InvalidInput, "md.members", None),
        (128, &[8], Corrupt, "md.data_offset", Some(128)),
        (128, &le(1 << 62), Corrupt, "md.data_offset", Some(128)),
        (128, &[17], Corrupt, "md.truncated", None),
        (136, &[127], Corrupt, "md.data_size", None),
        (136, &le(u64::MAX), Corrupt, "md.data_size", Some(136)),
        (144, &[9], InvalidInput, "md.member", None),
        (220, &[0x81, 7], Corrupt, "md.max_dev", Some(220)),
        (228, &[1], Unsupported, "md.feature_map", Some(8)),
    ];
    let (members, plain) = raid5();
    assert_eq!(read(&assemble(&members).unwrap()).unwrap(), plain);
    for (field, bytes, kind, rule, offset) in cases {
        let mut changed = members.clone();
        for member in &mut changed {
            put(member, SUPERBLOCK + field, bytes);
            seal(member, SUPERBLOCK);
        }
        let e = error(&changed);
        let at = offset.map(|offset| offset + 4096);
        assert_eq!((e.kind(), e.rule()), (*kind, *rule), "field {field}: {e}");
        assert!(offset.is_none() || e.offset() == at, "field {field}: {e}");
    }
    let mut changed = members.clone();
    changed[1][SUPERBLOCK + 40] ^= 1;
    let e = error(&changed);
    assert_eq!((e.kind(), e.rule(), e.offset()), (Corrupt, "md.sb_csum", Some(4096 + 216)), "{e}");
    assert!(e.to_string().starts_with("m1: "), "{e}");
}

#[test]
fn one_member_that_is_not_like_the_others() {
    let (members, plain) = raid5();
    let with = |n: usize, field: usize, bytes: &[u8]| {
        let mut changed = members.clone();
        put(&mut changed[n], SUPERBLOCK + field, bytes);
        seal(&mut changed[n], SUPERBLOCK);
        changed
    };
    let states = |members: &[Vec<u8>]| -> Vec<MemberState> {
        let array = assemble(members).unwrap_or_else(|e| panic!("{e}"));
        assert!(read(&array).unwrap() == plain, "{}", array.info());
        array.info().members.iter().map(|m| m.state).collect()
    };
    use MemberState::*;
    assert_eq!(states(&with(1, 200, &[6])), [InSync; 3], "one event behind is none");
    assert_eq!(states(&with(1, 200, &[5])), [InSync, Stale, InSync, Missing]);
    assert_eq!(states(&with(1, 160, &[9])), [InSync, Spare, InSync, Missing]);
    assert_eq!(states(&with(1, 258, &[0xfe, 0xff])), [InSync, Faulty, InSync, Missing]);
    assert_eq!(states(&with(1, 258, &[0xfd, 0xff])), [InSync, Journal, InSync, Missing]);
    assert_eq!(states(&with(1, 258, &[3, 0])), [InSync, Spare, InSync, Missing]);
    assert_eq!(states(&with(1, 8, &[2])), [InSync, Recovering, InSync, Missing]);
    // The newest says that another one failed.
    let mut newer = with(0, 200, &[8]);
    put(&mut newer[0], SUPERBLOCK + 258, &[0xfe, 0xff]);
    seal(&mut newer[0], SUPERBLOCK);
    assert_eq!(states(&newer), [InSync, Failed, InSync, Missing]);
    // A replacement is taken where what it replaces is not there.
    let mut four = members.clone();
    let mut replacement = members[1].clone();
    put(&mut replacement, SUPERBLOCK + 8, &[16]);
    seal(&mut replacement, SUPERBLOCK);
    four.push(replacement);
    assert_eq!(states(&four), [InSync, InSync, InSync, Replacement]);
    four.rotate_right(1);
    assert_eq!(states(&four), [Replacement, InSync, InSync, InSync]);
    four.remove(2);
    assert_eq!(states(&four), [InSync; 3]);

    let differs = error(&with(2, 88, &[16]));
    assert_eq!((differs.kind(), differs.rule()), (ErrorKind::Corrupt, "md.member.differs"));
    let other = error(&with(2, 16, b"another one's id"));
    assert_eq!((other.kind(), other.rule()), (ErrorKind::InvalidInput, "md.member.other"));
    assert!(
        other.to_string().contains("m2 is a member of another array: RAID5 array \"host:name\" (616e6f74:"),
        "{other}"
    );
    let message = error(&members[1..2]).to_string();
    let wanted = "md.members: RAID5 array \"host:name\" (74686520:61727261:79277320:75756964) wants 3 members; members 0, 2 are \
                  missing; give the other members too";
    assert_eq!(message, wanted);
    // Those that are there, but do not count, are named too.
    let stale = error(&with(1, 200, &[5])[..2]);
    let wanted = "members 1, 2 are missing; m1 is left out: as member 1 it stands at event 5, the array at 7";
    assert!(stale.message().ends_with(wanted), "{stale}");
    let cut: Vec<Vec<u8>> = members.iter().enumerate().map(|(n, m)| m[..m.len() - n * 512].to_vec()).collect();
    let e = error(&cut);
    assert_eq!(e.rule(), "md.truncated");
    assert!(
        e.message().contains("m1: its data ends at byte 73728, but the image ends at byte 73216: it is cut off"),
        "{e}"
    );
}

#[test]
fn what_cannot_be_read_is_computed() {
    let (members, plain) = raid5();
    let worn = |n: usize, ranges: &[(u64, u64)]| {
        let disks = members
            .iter()
            .enumerate()
            .map(|(m, disk)| shared(Worn(disk.clone(), if m == n { ranges.to_vec() } else { Vec::new() })));
        disks.collect::<Vec<_>>()
    };
    for n in 0..3 {
        let array = array_of(worn(n, &[(8192, 8193), (30_000, 30_100), (73_727, 73_728)]), &AssembleOptions::default())
            .unwrap();
        assert!(read(&array).unwrap() == plain);
        assert_eq!(array.extent_at(0).unwrap().len, array.len());
    }
    let mut both = worn(0, &[(9000, 9001)]);
    both[1] = Arc::new(Worn(members[1].clone(), vec![(9000, 9001)]));
    let e = array_of(both, &AssembleOptions::default()).and_then(|array| read(&array)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io, "{e}");
    assert!(e.to_string().contains("m0: worn") || e.to_string().contains("m1: worn"), "{e}");
    // A superblock that cannot be read.
    let e = array_of(worn(1, &[(4096, 4097)]), &AssembleOptions::default()).err().unwrap();
    assert!(e.kind() == ErrorKind::Io && e.to_string().starts_with("m1: "), "{e}");
}

/// A disk that knows its holes, and remembers what was said to be needed.
struct Sparse(Vec<u8>, Arc<Mutex<Vec<Range<u64>>>>);

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        ReadAt::len(&self.0)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let blocks: Vec<bool> = self.0.chunks(4096).map(|block| block.iter().all(|b| *b == 0)).collect();
        let first = usize::try_from(offset / 4096).unwrap();
        let same = blocks[first..].iter().take_while(|zero| **zero == blocks[first]).count();
        let end = u64::try_from((first + same) * 4096).unwrap().min(self.len());
        Ok(Extent { len: end - offset, zero: blocks[first] })
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.1.lock().unwrap().push(offset..offset + len);
    }
}

#[test]
fn holes_and_advice_go_through() {
    let (mut members, mut plain) = raid5();
    for (chunk, bytes) in plain.chunks_mut(CHUNK).enumerate() {
        // Two stripes of data, and then one chunk in a hole.
        if !matches!(chunk, 0..4 | 20) {
            bytes.fill(0);
        }
    }
    for member in &mut members {
        member[DATA + 2 * CHUNK..].fill(0);
    }
    // The stripe with chunk 20 and the same as its parity.
    let chunk = disk(SIZE * 2)[20 * CHUNK..21 * CHUNK].to_vec();
    let p = 2 - 10 % 3;
    put(&mut members[p], DATA + 10 * CHUNK, &chunk);
    put(&mut members[(p + 1) % 3], DATA + 10 * CHUNK, &chunk);
    let needed: Vec<_> = (0..3).map(|_| Arc::default()).collect();
    let sparse = |n: usize| shared(Sparse(members[n].clone(), Arc::clone(&needed[n])));
    let whole = array_of((0..3).map(sparse).collect(), &AssembleOptions::default()).unwrap();
    assert!(read(&whole).unwrap() == plain);
    let extents = |array: &Array| {
        let (mut at, mut all) = (0, Vec::new());
        while at < array.len() {
            let extent = array.extent_at(at).unwrap();
            all.push((extent.len, extent.zero));
            at += extent.len;
        }
        all
    };
    assert_eq!(extents(&whole), [(16_384, false), (65_536, true), (4096, false), (45_056, true)]);
    assert_eq!(whole.extent_at(16_385).unwrap(), Extent { len: 65_535, zero: true });
    // What a missing member has is not known without computing it.
    let two = array_of((1..3).map(sparse).collect(), &AssembleOptions::default()).unwrap();
    assert!(read(&two).unwrap() == plain);
    assert!(extents(&two).iter().all(|(len, zero)| !zero || *len < 65_536));
    // Two chunks and a bit of the third stripe: the rows 0 to 1 of all members.
    whole.will_need(100, 9000);
    let told: Vec<_> = needed.iter().map(|n| n.lock().unwrap().clone()).collect();
    assert_eq!(told, vec![vec![8192..16_384]; 3]);
}

#[test]
fn parity_that_may_be_out_of_date_is_not_used_unasked() {
    let (mut members, plain) = raid5();
    for member in &mut members {
        // The resync came to the middle.
        put(member, SUPERBLOCK + 208, &[64, 0, 0, 0, 0, 0, 0, 0]);
        seal(member, SUPERBLOCK);
    }
    let whole = assemble(&members).unwrap();
    assert!(read(&whole).unwrap() == plain);
    assert!(whole.info().notes[0].contains("from byte 32768 of each member on"), "{:?}", whole.info().notes);
    members.remove(0);
    let degraded = assemble(&members).unwrap();
    let mut half = vec![0; SIZE];
    degraded.read_exact_at(&mut half, 0).unwrap();
    assert!(half == plain[..SIZE]);
    let e = read(&degraded).unwrap_err();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "md.resync"), "{e}");
    let disks = members.iter().map(|m| shared(m.clone())).collect();
    let asked = array_of(disks, &AssembleOptions { stale_parity: true, ..Default::default() }).unwrap();
    assert!(read(&asked).unwrap() == plain);
}

#[test]
fn bad_blocks_are_not_read() {
    let (mut members, plain) = raid5();
    // One block of 8 sectors at the start of the data, one of 1 behind the end; the list lies behind the superblock.
    for member in &mut members[..1] {
        put(member, SUPERBLOCK + 8, &[8]);
        put(member, SUPERBLOCK + 186, &[1, 0, 2, 0, 0, 0]);
        put(member, SUPERBLOCK + 1024, &[0xff; 512]);
        put(member, SUPERBLOCK + 1024, &(16u64 << 10 | 8).to_le_bytes());
        put(member, SUPERBLOCK + 1032, &(1u64 << 40 | 1).to_le_bytes());
        // That what is listed is really not used.
        put(member, DATA, &[0xee; 4096]);
        seal(member, SUPERBLOCK);
    }
    let sb = Superblock::probe(&members[0]).unwrap().unwrap();
    assert_eq!(sb.bad_blocks[0], BadBlocks { start: 8192, len: 4096 });
    assert!(read(&assemble(&members).unwrap()).unwrap() == plain);
    members.remove(2);
    let e = error(&members);
    assert_eq!((e.kind(), e.rule(), e.offset()), (ErrorKind::Io, "md.bad_blocks", Some(8192)), "{e}");
    members[0][SUPERBLOCK + 185] = 31;
    seal(&mut members[0], SUPERBLOCK);
    let e = error(&members);
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "md.bblog"), "{e}");
}

#[test]
fn of_several_superblocks_the_last_array_counts() {
    let (mut members, _) = raid5();
    let end = 98_304;
    for (n, member) in (0..).zip(&mut members) {
        member.resize(end + 8192, 0);
        superblock(member, end, n, 1, 0);
        put(member, end + 16, b"an older array's");
        put(member, end + 64, &[0]);
        put(member, end + 200, &[99]);
        seal(member, end);
    }
    let sb = Superblock::probe(&members[0]).unwrap().unwrap();
    assert_eq!((sb.version, sb.level, sb.events), (Version::V1_2, Level::Raid5, 7));
    assert_eq!(sb.notes.len(), 1);
    assert!(
        sb.notes[0].contains("a superblock 1.0 of RAID1 array") && sb.notes[0].contains("at byte 98304"),
        "{:?}",
        sb.notes
    );
    // One member lost its newer superblock: the array that most are of is taken, and the other one is named.
    members[1][SUPERBLOCK] = 0;
    let array = assemble(&members[..1]).err().unwrap();
    assert!(array.to_string().contains("wants 3 members"), "{array}");
    let mut two = members.clone();
    two[1][end] = 0;
    assert_eq!(error(&two).rule(), "md.member");
    // A place that cannot be read, or is damaged, is none where another one is good.
    let worn = Worn(members[0].clone(), vec![(4096, 8192)]);
    assert_eq!(Superblock::probe(&worn).unwrap().unwrap().version, Version::V1_0);
    let worn = Worn(members[0].clone(), vec![(4096, 8192), (90_000, 106_496)]);
    assert_eq!(Superblock::probe(&worn).unwrap_err().kind(), ErrorKind::Io);
    members[0][SUPERBLOCK + 50] ^= 1;
    let sb = Superblock::probe(&members[0]).unwrap().unwrap();
    assert_eq!(sb.version, Version::V1_0);
    assert!(sb.notes[0].contains("md.sb_csum"), "{:?}", sb.notes);
    assert_eq!(Superblock::probe(&vec![0u8; 100_000]).unwrap(), None);
    assert_eq!(Superblock::probe(&vec![0u8; 100]).unwrap(), None);
}

/// A small generator, so that a failure can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// A superblock 0.90 of the three members of the same array, which lies behind the data.
fn old_superblock(n: u32) -> Vec<u8> {
    let mut words = vec![0u32; 1024];
    let fields = [
        (0, 0xa92b_4efc),
        (2, 90),
        (5, 1),
        (6, 1),
        (7, 5),
        (8, 64),
        (10, 3),
        (13, 2),
        (33, 1),
        (39, 7),
        (64, 2),
        (65, 4096),
    ];
    fields.iter().for_each(|(n, word)| words[*n] = *word);
    for disk in 0..3 {
        [disk, 0, 0, disk, 6]
            .into_iter()
            .enumerate()
            .for_each(|(n, word)| words[128 + usize::try_from(disk).unwrap() * 32 + n] = word);
    }
    words[992] = n;
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

fn seal_old(superblock: &mut [u8]) {
    put(superblock, 38 * 4, &[0; 4]);
    let sum: u64 = superblock.chunks(4).map(|b| u64::from(u32::from_le_bytes(b.try_into().unwrap()))).sum();
    put(superblock, 38 * 4, &u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap().to_le_bytes());
}

/// Members with superblocks of one version, in which one has some bytes changed: no panic, whatever is read.
fn mutate(version: Version, level: i32, layout: u32) {
    let (mut members, _) = raid5();
    let at = match version {
        Version::V0_90 => 65_536,
        Version::V1_0 => 98_304,
        Version::V1_1 => 0,
        Version::V1_2 => SUPERBLOCK,
    };
    for (n, member) in (0..).zip(&mut members) {
        member[..DATA].fill(0);
        member.resize(if version == Version::V0_90 { 131_072 } else { 98_304 + 8192 }, 0);
        if version == Version::V0_90 {
            put(member, at, &old_superblock(n));
            put(member, at + 28, &level.to_le_bytes());
            put(member, at + 256, &layout.to_le_bytes());
            seal_old(&mut member[at..at + 4096]);
        } else {
            superblock(member, at, n, level, layout);
            if version == Version::V1_1 {
                put(member, 128, &[16]);
                seal(member, 0);
            }
        }
    }
    assert!(assemble(&members).is_ok(), "{version} {level}");
    let mut random = Random(u64::try_from(at).unwrap() + u64::from(layout));
    for _ in 0..400 {
        let mut changed = members.clone();
        // The same change in all members, or in one: so that the array agrees with itself now and then.
        let which = if random.below(2) == 0 { 0..3 } else { 0..1 };
        for _ in 0..=random.below(4) {
            let field = if random.below(3) == 0 { random.below(1024) } else { random.below(264) };
            let byte = [0, 1, 0x7f, 0x80, 0xff, u8::try_from(random.below(256)).unwrap()][random.below(6)];
            let len = 1 + random.below(8);
            for member in &mut changed[which.clone()] {
                member[at + field..at + field + len].fill(byte);
            }
        }
        for member in &mut changed[which] {
            match version {
                Version::V0_90 => seal_old(&mut member[at..at + 4096]),
                _ => seal(member, at),
            }
        }
        let Ok(array) = assemble(&changed) else { continue };
        assert!(array.len() <= 3 * 131_072 && !array.info().to_string().contains(char::is_control), "{}", array.info());
        let mut buf = vec![0; 5000];
        for at in [0, array.len() / 2, array.len().saturating_sub(5000)] {
            let _ = array.read_exact_at(&mut buf, at);
            let extent = array.extent_at(at).unwrap();
            assert!(extent.len > 0 && at + extent.len <= array.len());
        }
        array.will_need(0, u64::MAX);
        array.wont_need(array.len() - 1, 1);
    }
}

#[test]
fn mutated_superblocks_are_refused_or_read() {
    for version in [Version::V0_90, Version::V1_0, Version::V1_1, Version::V1_2] {
        for (level, layout) in [(-1, 0), (0, 0), (1, 0), (4, 0), (5, 2), (10, 0x102), (10, 0x2_0201)] {
            mutate(version, level, layout);
        }
    }
}
