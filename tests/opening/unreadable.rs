//! Bad sectors in each kind of header, in each place where an image can lie: what another copy serves for is opened, and
//! says so; where nothing else serves, the error is that of the disk, with its place.

use std::ops::Range;
use std::sync::Arc;

use unluks::luks::area;
use unluks::luks::unlock::UnlockOptions;
use unluks::{ErrorKind, ReadAt};

use crate::failing::FailingRanges;
use crate::support::{Golden, PARTITION, in_mbr, in_qcow2, key, open};

/// Where an image lies.
struct Place {
    name: &'static str,
    golden: Golden,
    /// The file that holds the header, and the one that holds the data where that is another.
    header_file: Vec<u8>,
    data: Option<Vec<u8>>,
    /// Where the header starts in its file.
    base: u64,
    luks2: bool,
}

fn places() -> Vec<Place> {
    let mut all = Vec::new();
    let mut add = |name, golden: &Golden, header_file: Vec<u8>, data, base, luks2| {
        all.push(Place { name, golden: golden.clone(), header_file, data, base, luks2 });
    };
    for (image, luks2) in [("l1-aes-xts-512-sha256", false), ("l2-argon2id", true)] {
        let golden = Golden::read(image);
        add("a file", &golden, golden.image.clone(), None, 0, luks2);
        add("an MBR partition", &golden, in_mbr(&golden.image), None, PARTITION, luks2);
        add("a qcow2 image", &golden, in_qcow2(&golden.image), None, PARTITION, luks2);
        let disk = in_mbr(&golden.image);
        add("a partition in a qcow2 image", &golden, in_qcow2(&disk), None, 2 * PARTITION, luks2);
    }
    for (image, luks2) in [("l1-detached", false), ("l2-detached", true)] {
        let golden = Golden::read(image);
        let header = golden.header.clone().unwrap();
        add("a detached header", &golden, header, Some(golden.image.clone()), 0, luks2);
    }
    let golden = Golden::read("gpt");
    add("a GPT partition", &golden, golden.image.clone(), None, 4096 * 512, true);
    let golden = Golden::read("qcow2-luks");
    let header = golden.image.windows(6).position(|w| w == b"LUKS\xba\xbe").unwrap();
    add("qcow2's own encryption", &golden, golden.image.clone(), None, u64::try_from(header).unwrap(), false);
    all
}

/// What cannot be read, counted from the header's start, and whether LUKS1 and LUKS2 open all the same.
#[allow(clippy::single_range_in_vec_init)] // They are ranges of bytes, some of them alone.
fn faults() -> Vec<(&'static str, Vec<Range<u64>>, bool, bool)> {
    let (primary, secondary) = (0..512, 16384..16896);
    vec![
        ("nothing", vec![], true, true),
        ("the first sector", vec![primary.clone()], false, true),
        ("the second sector", vec![512..1024], true, true),
        ("the primary JSON area", vec![4096..4608], true, true),
        ("all of the primary", vec![0..16384], false, true),
        ("the secondary", vec![secondary.clone()], true, true),
        ("the secondary's JSON area", vec![20480..20992], true, true),
        ("both headers", vec![primary.clone(), secondary], false, false),
        ("one's start and the other's end", vec![primary, 32256..32768], false, false),
    ]
}

#[test]
fn headers_open_from_what_can_be_read() {
    let mut opened = 0;
    for place in places() {
        for (what, ranges, luks1, luks2) in faults() {
            let name = format!("{} {}, LUKS{}", what, place.name, if place.luks2 { 2 } else { 1 });
            // LUKS1 has its key material, and not a JSON area, from byte 4096 on.
            if !place.luks2 && ranges.iter().any(|r| r.start >= 4096) {
                continue;
            }
            let bad = ranges.iter().map(|r| r.start + place.base..r.end + place.base);
            let file: Arc<dyn ReadAt> = Arc::new(FailingRanges::new(place.header_file.clone(), bad));
            let (image, notes) = match &place.data {
                Some(data) => open(Arc::new(data.clone()), Some(Arc::clone(&file))),
                None => open(Arc::clone(&file), None),
            };
            let outcome = image.and_then(|image| place.golden.open(&image).map(|()| image));
            // The keyslots that lie in it are done without, but for a header that is never taken for a damaged one.
            let is_second = what == "the second sector" && !place.luks2;
            let opens =
                if place.luks2 { luks2 } else { luks1 && !(is_second && place.name.starts_with("qcow2's own")) };
            match (outcome, opens) {
                (Ok(image), true) => {
                    let copies = &image.metadata().copies;
                    let unreadable = copies.iter().filter_map(|c| c.error.as_ref());
                    let recovery = image.metadata().recovery.as_ref().and_then(|recovery| recovery.error.as_ref());
                    let told = unreadable.chain(recovery.filter(|_| is_second));
                    let said = told.filter(|e| e.kind() == ErrorKind::Io && e.offset().is_some()).count();
                    assert_eq!(said, ranges.len(), "{name}: each bad copy is told of: {notes:?}");
                    opened += 1;
                }
                (Err(e), false) => {
                    assert_eq!(e.kind(), ErrorKind::Io, "{name}: {e}");
                    assert!(e.offset().is_some() && e.to_string().contains("Input/output error"), "{name}: {e}");
                }
                (Ok(_), false) => panic!("{name}: opens"),
                (Err(e), true) => panic!("{name}: {e}"),
            }
        }
    }
    assert!(opened > 30, "only {opened} were opened");
}

#[test]
#[allow(clippy::single_range_in_vec_init)] // One range that fails.
fn a_scan_finds_what_can_be_read_and_says_what_could_not() {
    for place in places() {
        // A scan takes a disk, and not the clusters of a file format.
        if place.name.contains("qcow2") {
            continue;
        }
        let len = u64::try_from(place.header_file.len()).unwrap();
        let disk = FailingRanges::new(place.header_file.clone(), [place.base..place.base + 512]);
        let scan = unluks::scan::run(&disk, Default::default(), &Default::default()).unwrap();
        assert_eq!(scan.found(), place.luks2, "{}", place.name);
        let unreadable = scan.unreadable.unwrap();
        assert!(unreadable.first <= place.base && unreadable.bytes < len, "{}", place.name);
        assert_eq!(unreadable.error.kind(), ErrorKind::Io);
    }
}

/// Images with two keyslots that have passphrases of their own, by their numbers.
const TWO_KEYSLOTS: [(&str, [(u32, &str); 2]); 2] = [
    ("l1-two-slots", [(0, "pass-l1-two-slots"), (5, "second")]),
    ("l2-priorities", [(0, "pass-l2-priorities"), (1, "preferred")]),
];

#[test]
fn a_keyslot_that_cannot_be_read_does_not_hide_another() {
    for (name, slots) in TWO_KEYSLOTS {
        let golden = Golden::read(name);
        let metadata = unluks::open(&golden.image).unwrap();
        for (bad, _) in slots {
            let area = metadata.keyslots[&bad].area;
            // One sector in the middle of the key material.
            let at = area.offset + 1024;
            let file: Arc<dyn ReadAt> =
                Arc::new(FailingRanges::new(golden.image.clone(), std::iter::once(at..at + 512)));
            let image = open(Arc::clone(&file), None).0.unwrap();
            let seen = area::findings(&*file, image.metadata());
            let seen = seen.iter().find(|f| f.code == "keyslot-unreadable").unwrap();
            assert_eq!(seen.about, format!("keyslots.{bad}"), "inspect tells of it");
            for (slot, passphrase) in slots {
                let options = |keyslot| UnlockOptions { keyslot, ..UnlockOptions::default() };
                for keyslot in [None, Some(slot)] {
                    let unlocked = image.unlock(&key(passphrase), &options(keyslot));
                    if slot == bad {
                        let e = unlocked.err().unwrap();
                        assert_eq!(e.kind(), ErrorKind::Io, "{name}: {e}");
                        assert!(e.to_string().contains(&format!("keyslot {bad}'s area")), "{name}: {e}");
                        assert_eq!(e.offset(), Some(area.offset), "{name}: {e}");
                    } else {
                        let unlocked = unlocked.unwrap_or_else(|e| panic!("{name}, keyslot {slot}: {e}"));
                        assert_eq!(unlocked.opened()[0].keyslot, slot);
                        assert!(unlocked.volume(Default::default()).is_ok());
                    }
                }
                // A passphrase of no keyslot: the one that could not be read may have it.
                let e = image.unlock(&key("of none"), &options(None)).err().unwrap();
                assert_eq!(e.kind(), ErrorKind::Io, "{name}: {e}");
            }
        }
    }
}

#[test]
fn many_candidates_meet_a_bad_keyslot_once() {
    let golden = Golden::read("l1-two-slots");
    let area = unluks::open(&golden.image).unwrap().keyslots[&0].area;
    let file: Arc<dyn ReadAt> =
        Arc::new(FailingRanges::new(golden.image.clone(), std::iter::once(area.offset..area.offset + 1)));
    let image = open(file, None).0.unwrap();
    let text = |s: &str| unluks::SecretBytes::copy_of(s.as_bytes()).unwrap();
    let key = key("one").and(unluks::Key::passphrase(text("two"))).and(unluks::Key::passphrase(text("second")));
    let unlocked = image.unlock(&key, &UnlockOptions::default()).unwrap();
    assert_eq!((unlocked.opened()[0].keyslot, unlocked.opened()[0].candidate), (5, 2));
    assert_eq!(unlocked.passed_over().len(), 1, "{:?}", unlocked.passed_over());
    assert!(unlocked.passed_over()[0].to_string().contains("keyslot 0's area"), "{:?}", unlocked.passed_over());
}
