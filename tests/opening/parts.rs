//! Damages of files that were named besides the image: further members of an array, physical volumes, parents, diffs.

use crate::damages::{BAD, Damage, FINDINGS, damage, part, small, zero};
use crate::layers::{group, put, raid1, raid5};
use crate::support::{Golden, in_qcow2};
use crate::verify::Case;

/// What the files are called: the first of them is the damaged one.
const DAMAGED: &str = "other 0";
const SMALL: &str = "l1-aes-xts-512-sha256";

/// A qcow2 on top of another one, which has all of its bytes.
fn over(parent: &str, size: usize) -> Vec<u8> {
    let mut file = in_qcow2(&[]);
    put(&mut file, 8, &104u64.to_be_bytes());
    put(&mut file, 16, &u32::try_from(parent.len()).unwrap().to_be_bytes());
    put(&mut file, 24, &u64::try_from(size).unwrap().to_be_bytes());
    put(&mut file, 72, &0xe279_2acau32.to_be_bytes());
    put(&mut file, 76, &5u32.to_be_bytes());
    put(&mut file, 80, b"qcow2");
    put(&mut file, 104, parent.as_bytes());
    file
}

/// A diff of `rbd export-diff` between two snapshots, with some bytes of a disk.
fn diff(from: &str, to: &str, disk: &[u8], at: usize, len: usize) -> Vec<u8> {
    let mut file = b"rbd diff v1\n".to_vec();
    for (tag, name) in [(b'f', from), (b't', to)] {
        file.push(tag);
        file.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        file.extend(name.as_bytes());
    }
    let number = |n: usize| u64::try_from(n).unwrap().to_le_bytes();
    file.push(b's');
    file.extend(number(disk.len()));
    file.push(b'w');
    file.extend([number(at), number(len)].concat());
    file.extend(&disk[at..at + len]);
    file.push(b'e');
    file
}

fn with(image: Vec<u8>, parts: Vec<Vec<u8>>) -> Case {
    Case { with: parts, ..Case::of(&Golden::read(SMALL), image) }
}

/// Sound sets, each with one damaged part.
pub fn of_parts() -> Vec<Damage> {
    let disk = small();
    let len = disk.len();
    let superblock = |members: &mut Vec<Vec<u8>>| zero(&mut members[1], 4096, 256);
    let checksum = |members: &mut Vec<Vec<u8>>| members[1][4096 + 16] ^= 1;
    let volumes = || group("vg", 2, &[("crypt", &disk)]);
    let base = || in_qcow2(&disk);
    let cut = |mut file: Vec<u8>, keep: usize| {
        file.truncate(keep);
        file
    };
    let changed = |mut file: Vec<u8>, at: usize| {
        file[at] ^= 0xff;
        file
    };
    // The disk as it was before the first diff, and the diffs that lead to it.
    let before = || {
        let mut before = disk.clone();
        zero(&mut before, 1024, 4096);
        before
    };
    let first = || diff("a", "b", &disk, 1024, 2048);
    let second = || diff("b", "c", &disk, 3072, 2048);
    let of = |what, case, verdict, code| damage("storage", what, case, verdict, code);
    let file = |what, case, verdict, code| damage("format", what, case, verdict, code);
    vec![
        of("the superblock of a mirror's other half", part(raid1(&disk), 2, superblock), FINDINGS, "storage.md"),
        of("a bit in the superblock of a mirror's other half", part(raid1(&disk), 2, checksum), FINDINGS, "storage.md"),
        of("a mirror's other half is empty", part(raid1(&disk), 2, |m| m[1].clear()), FINDINGS, "storage.md"),
        of("the superblock of one member under parity", part(raid5(&disk), 3, superblock), FINDINGS, "storage.md"),
        of(
            "the superblock of one of two members that are left",
            part(raid5(&disk), 2, superblock),
            BAD,
            "storage.md.members",
        ),
        of(
            "the label of another physical volume",
            part(volumes(), 2, |m| zero(&mut m[1], 512, 512)),
            BAD,
            "storage.lvm.",
        ),
        of("another physical volume is cut off", part(volumes(), 2, |m| m[1].truncate(1 << 20)), BAD, "storage.lvm."),
        file("the magic of a backing file", with(over(DAMAGED, len), vec![changed(base(), 0)]), BAD, "format."),
        file(
            "a backing file that is cut off",
            with(over(DAMAGED, len), vec![cut(base(), (1 << 20) + len - 4096)]),
            BAD,
            "format.damaged",
        ),
        file(
            "a backing file that is cut off in its header",
            with(over(DAMAGED, len), vec![cut(base(), 50)]),
            BAD,
            "format.",
        ),
        file(
            "the magic of an overlay in the middle",
            with(over(DAMAGED, len), vec![changed(over("other 1", len), 1), base()]),
            BAD,
            "format.",
        ),
        file("the banner of an rbd diff", with(before(), vec![changed(first(), 0), second()]), BAD, "storage.with"),
        file("an rbd diff that is cut off", with(before(), vec![cut(first(), 1000), second()]), BAD, "format."),
        file(
            "a tag in an rbd diff",
            with(before(), vec![changed(first(), first().len() - 1), second()]),
            BAD,
            "format.",
        ),
        file(
            "an rbd diff is missing between two",
            with(before(), vec![first(), diff("c", "d", &disk, 3072, 2048)]),
            BAD,
            "format.rbd.chain",
        ),
    ]
}

#[test]
fn sets_and_chains_that_are_whole_restore() {
    let disk = small();
    let len = disk.len();
    let mut before = disk.clone();
    zero(&mut before, 1024, 4096);
    for (what, case) in [
        ("mirror", part(raid1(&disk), 2, |_| ())),
        ("parity", part(raid5(&disk), 3, |_| ())),
        ("group", part(group("vg", 2, &[("crypt", &disk)]), 2, |_| ())),
        ("chain", with(over("other 0", len), vec![over("other 1", len), in_qcow2(&disk)])),
        ("diffs", with(before, vec![diff("a", "b", &disk, 1024, 2048), diff("b", "c", &disk, 3072, 2048)])),
    ] {
        let report = case.verify();
        let findings = report["findings"].as_array().unwrap();
        assert!(findings.iter().all(|f| f["severity"] == "note"), "{what}: {report:#}");
        // Its plaintext is noise by design.
        assert_eq!(report["verdict"], "restorable-with-findings", "{what}");
    }
}

/// Whoever reads the verdict knows which of the files it is.
#[test]
fn the_damaged_part_is_named() {
    for Damage { what, case, .. } in of_parts() {
        let report = case.verify();
        let findings = report["findings"].as_array().unwrap().iter();
        let grave: Vec<&str> =
            findings.filter(|f| f["severity"] != "note").map(|f| f["message"].as_str().unwrap()).collect();
        assert!(
            grave.iter().any(|m| m.contains(DAMAGED) || what.contains("cut off") && m.contains("physical volume")),
            "{what}: {grave:?}"
        );
    }
}
