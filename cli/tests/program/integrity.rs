//! Volumes with dm-integrity below them, through the program and the library: what becomes of sectors whose tag is
//! wrong, and of a journal that was never replayed. `tests/golden.rs` has the images themselves.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::common::{Golden, Run, chain, text, unluks, unluks_with_stdin};
use unluks::volume::{BadRun, BadSectorPolicy, Cause, VolumeOptions};
use unluks::{Image, Key, ReadAt, SecretBytes, UnlockedImage, Volume};

/// Where the first tag and the first sector of `l2-integrity-data-flipped` and `l2-integrity-tag-flipped` lie.
const TAGS: usize = 147_456;
const TAG: usize = 28;
const DATA: usize = 1_064_960;
/// Where their plaintext ends.
const SIZE: usize = 32_768;

/// Where the journals of `l2-integrity-journal` and its like start; a section has its entries in the first 8 sectors.
const JOURNAL: usize = 102_400;

fn decrypt(golden: &Golden, output: &str, args: &[&str]) -> Run {
    let (image, key) = (text(&golden.image), text(&golden.key));
    unluks(&[&["decrypt", &image, "--key-file", &key, "--output", output], args].concat())
}

fn change(golden: &Golden, change: impl FnOnce(&mut Vec<u8>)) {
    let mut image = fs::read(&golden.image).unwrap();
    change(&mut image);
    fs::write(&golden.image, image).unwrap();
}

/// An image with one flipped bit in sector 5, the tags of sectors 16 to 23 zeroed, and the last sector's data zeroed.
fn damaged() -> (Golden, Vec<u8>) {
    let golden = Golden::unpack("l2-integrity-data-flipped");
    change(&golden, |image| {
        image[TAGS + 16 * TAG..TAGS + 24 * TAG].fill(0);
        image[DATA + SIZE - 512..DATA + SIZE].fill(0);
    });
    (golden, chain("l2-integrity-data-flipped", SIZE))
}

const LISTED: [&str; 3] = [
    "bad sectors: bytes 2560 to 3072 of the plaintext, stored from byte 1067520 on",
    "bad sectors: bytes 8192 to 12288 of the plaintext, stored from byte 1073152 on",
    "bad sectors: bytes 32256 to 32768 of the plaintext, stored from byte 1097216 on",
];

fn check_listed(run: &Run) {
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert_eq!(run.refusal_fault(&[4]), None);
    let listed: Vec<_> = run.stderr.lines().filter(|l| l.starts_with("bad sectors: ")).collect();
    assert_eq!(listed, LISTED);
    let last = run.stderr.lines().last().unwrap();
    assert!(last.contains("integrity.tag: the tags of 5120 bytes of plaintext in 3 runs do not match"), "{last}");
    assert!(last.contains("the output is kept"), "{last}");
}

#[test]
fn bad_sectors_are_refused_with_their_place_unless_they_are_passed_over() {
    let (golden, _) = damaged();
    let out = golden.path("out");
    let run = decrypt(&golden, &text(&out), &["--threads", "1"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("integrity.tag: sector 5 (byte 2560 of the plaintext)"), "{}", run.stderr);
    assert!(!out.exists());
    let run = decrypt(&golden, &text(&out), &["--bad-sectors", "zero", "--resume"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn bad_sectors_are_decrypted_all_the_same() {
    let (golden, mut plain) = damaged();
    let out = golden.path("out");
    check_listed(&decrypt(&golden, &text(&out), &["--bad-sectors", "report"]));
    let got = fs::read(&out).unwrap();
    // A bit that is flipped in counter mode is flipped in the plaintext.
    plain[2560 + 100] ^= 1;
    assert!(got[..8192] == plain[..8192]);
    assert!(got[12_288..32_256] == plain[12_288..32_256]);
    // Where the stored IV is lost with the tag, what comes out is noise.
    assert!(got[8192..12_288] != plain[8192..12_288] && got[8192..12_288] != [0; 4096]);
}

#[test]
fn bad_sectors_are_zeroes_or_holes() {
    let (golden, mut plain) = damaged();
    for range in [2560..3072, 8192..12_288, 32_256..32_768] {
        plain[range].fill(0);
    }
    let blocks = |how: &str, more: &[&str]| {
        let out = golden.path(how);
        check_listed(&decrypt(&golden, &text(&out), &[&["--force", "--bad-sectors", how], more].concat()));
        assert!(fs::read(&out).unwrap() == plain, "{how}");
        fs::metadata(&out).unwrap().blocks()
    };
    let zero = blocks("zero", &[]);
    let skip = blocks("skip", &[]);
    assert!(skip < zero, "{skip} blocks with holes, {zero} without");
    assert_eq!(blocks("skip", &["--sparse", "never"]), zero);
    let piped = decrypt(&golden, "-", &["--bad-sectors", "skip"]);
    check_listed(&piped);
    assert!(piped.stdout == plain);
    // A part that has no bad sector is as good as any.
    let part = decrypt(&golden, "-", &["--skip", "3100", "--length", "5000"]);
    assert_eq!(part.code, Some(0), "{}", part.stderr);
    assert!(part.stdout == plain[3100..8100]);
}

/// Both are as they were written, and each with its own tag; but each is in the other's place.
#[test]
fn sectors_that_changed_places_are_bad() {
    let golden = Golden::unpack("l2-integrity-tag-flipped");
    change(&golden, |image| {
        image[TAGS + 9 * TAG + 3] ^= 1;
        let (one, two) = image[DATA + 512..DATA + 1536].split_at_mut(512);
        one.swap_with_slice(two);
        let (one, two) = image[TAGS + TAG..TAGS + 3 * TAG].split_at_mut(TAG);
        one.swap_with_slice(two);
    });
    let out = golden.path("out");
    let run = decrypt(&golden, &text(&out), &["--bad-sectors", "zero"]);
    assert_eq!(run.code, Some(4));
    assert!(run.stderr.contains("bytes 512 to 1536"), "{}", run.stderr);
    assert!(fs::read(&out).unwrap()[1536..] == chain("l2-integrity-tag-flipped", SIZE)[1536..]);
}

/// What is in the journal is nowhere else: without its entries there is what was written before, or nothing.
#[test]
fn the_journal_is_needed_and_a_damaged_one_can_be_passed_over() {
    let golden = Golden::unpack("l2-integrity-journal");
    change(&golden, |image| {
        for sector in 0..8 {
            image[JOURNAL + sector * 512..][..504].fill(0xff);
        }
    });
    let out = golden.path("out");
    let run = decrypt(&golden, &text(&out), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    // The zeroes that cryptsetup wrote when it formatted, with tags that are right.
    assert!(fs::read(&out).unwrap() == vec![0; 98_304]);

    let golden = Golden::unpack("l2-integrity-journal-sections");
    change(&golden, |image| {
        for section in 0..3 {
            for sector in 0..8 {
                image[JOURNAL + (section * 88 + sector) * 512..][..504].fill(0xff);
            }
        }
    });
    let run = decrypt(&golden, &text(&golden.path("out")), &[]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(run.stderr.contains("integrity.tag: sector 160 "), "{}", run.stderr);

    let golden = Golden::unpack("l2-integrity-journal-damaged");
    let out = golden.path("out");
    let run = decrypt(&golden, &text(&out), &["--bad-sectors", "zero"]);
    assert_eq!(run.refusal_fault(&[4]), None);
    let why = "the journal was passed over (integrity.journal: sector 20 of section 0";
    assert!(run.stderr.contains(why), "{}", run.stderr);
    // Some of it the kernel had copied to its place before the crash; in the others' places are the zeroes from before.
    let (got, new) = (fs::read(&out).unwrap(), chain("l2-integrity-journal-damaged", 98_304));
    assert_eq!(got.len(), new.len());
    assert!(got.chunks(4096).zip(new.chunks(4096)).all(|(got, new)| got == new || got == [0; 4096]));
}

#[test]
fn a_pipe_is_refused_and_an_image_that_is_cut_off_gives_its_whole_sectors_when_asked() {
    let golden = Golden::unpack("l2-integrity-hmac");
    let image = fs::read(&golden.image).unwrap();
    let key = text(&golden.key);
    let run = unluks_with_stdin(&["decrypt", "-", "--key-file", &key, "--output", "-"], &image);
    assert_eq!(run.code, Some(5), "{}", run.stderr);
    assert!(run.stderr.contains("cannot come through a pipe"), "{}", run.stderr);

    change(&golden, |image| image.truncate(image.len() - 5000));
    let out = golden.path("out");
    let run = decrypt(&golden, &text(&out), &[]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(run.stderr.contains("truncated: the data ends at byte 683128, 5000 bytes"), "{}", run.stderr);
    let run = decrypt(&golden, &text(&out), &["--allow-truncated"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(fs::read(&out).unwrap() == chain("l2-integrity-hmac", 122_880 - 8192));
}

/// An image that is unlocked once and read with changed bytes.
struct Unlocked {
    bytes: Vec<u8>,
    image: Image,
    unlocked: UnlockedImage,
}

impl Unlocked {
    fn new(name: &str) -> Self {
        let golden = Golden::unpack(name);
        let bytes = fs::read(&golden.image).unwrap();
        let image = Image::open(Arc::new(bytes.clone())).unwrap();
        let passphrase = SecretBytes::copy_of(&fs::read(&golden.key).unwrap()).unwrap();
        let unlocked = image.unlock(&Key::passphrase(passphrase), &Default::default()).unwrap();
        Self { bytes, image, unlocked }
    }

    fn volume(&self, bytes: Vec<u8>, bad_sectors: BadSectorPolicy) -> unluks::Result<Volume> {
        let options = VolumeOptions { bad_sectors, ..Default::default() };
        Volume::new(self.image.metadata(), Arc::new(bytes), self.unlocked.unlocked(), options)
    }
}

#[test]
fn reads_at_any_position_are_those_of_one_long_read() {
    // Several areas, a journal, and sectors that are smaller than what is read.
    let open = Unlocked::new("l2-integrity-journal-sections");
    let volume = open.volume(open.bytes.clone(), BadSectorPolicy::Refuse).unwrap();
    let plain = chain("l2-integrity-journal-sections", 102_400);
    for (from, to) in [(0, 1), (511, 513), (0, 102_400), (32_767, 32_769), (32_256, 65_537), (102_399, 102_400)] {
        let mut buf = vec![0; to - from];
        volume.read_exact_at(&mut buf, u64::try_from(from).unwrap()).unwrap();
        assert!(buf == plain[from..to], "{from} to {to}");
    }
    assert!(volume.bad_sectors().is_empty());
}

#[test]
fn the_library_lists_bad_sectors_once() {
    let (golden, _) = damaged();
    let open = Unlocked::new("l2-integrity-data-flipped");
    let volume = open.volume(fs::read(&golden.image).unwrap(), BadSectorPolicy::Zero).unwrap();
    let mut sector = [1; 100];
    for _ in 0..2 {
        volume.read_exact_at(&mut sector, 2600).unwrap();
    }
    assert_eq!(sector, [0; 100]);
    assert_eq!(
        volume.bad_sectors().runs(),
        [BadRun { cause: Cause::Tag, start: 2560, len: 512, stored_at: 1_067_520 }]
    );
    let refusing = open.volume(fs::read(&golden.image).unwrap(), BadSectorPolicy::Refuse).unwrap();
    let e = refusing.read_exact_at(&mut sector, 2600).unwrap_err();
    assert_eq!((e.rule(), e.offset()), ("integrity.tag", Some(1_067_520)));
    assert_eq!(sector, [0; 100]);
}

/// A thousand changed superblocks and journals: an error, or each sector as it was written at some time, and no panic.
#[test]
fn a_thousand_changed_superblocks_and_journals_give_an_error_or_what_was_written() {
    let open = Unlocked::new("l2-integrity-journal-sections");
    let plain = chain("l2-integrity-journal-sections", 102_400);
    let start = 98_304;
    let journal_end = start + 4096 + 3 * 88 * 512;
    let mut seed = 0x5eed_u64;
    let mut next = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let (mut refused, mut opened) = (0, 0);
    for n in 0..1000 {
        let mut bytes = open.bytes.clone();
        for _ in 0..=next(3) {
            let at = match n % 3 {
                0 => start + next(64),
                // The sectors with entries of one section.
                1 => start + 4096 + next(3) * 88 * 512 + next(4096),
                _ => start + 4096 + next(journal_end - start - 4096),
            };
            bytes[at] ^= 1 << next(8);
        }
        let len = bytes.len();
        if next(50) == 0 {
            bytes.truncate(len - next(len - start));
        }
        let Ok(volume) = open.volume(bytes, BadSectorPolicy::Refuse) else {
            refused += 1;
            continue;
        };
        opened += 1;
        let mut sector = [0; 512];
        for at in (0..plain.len().min(usize::try_from(volume.len()).unwrap())).step_by(512) {
            if volume.read_exact_at(&mut sector, u64::try_from(at).unwrap()).is_ok() {
                let old = b"old ".repeat(128);
                assert!(sector == plain[at..at + 512] || sector[..] == old, "change {n}: sector {}", at / 512);
            }
        }
    }
    assert!(refused > 200 && opened > 200, "{refused} refused, {opened} opened");
}
