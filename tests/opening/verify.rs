//! The verdict on sound images and on damaged ones: one damage each, with the layer that has to name it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use unluks::decrypt::hash::{Algorithm, Of};
use unluks::files::Existing;
use unluks::format::Named;
use unluks::locate::{FindOptions, Place, find};
use unluks::progress::Progress;
use unluks::verify::{Compare, Expected, Options, Report, Subject, TreeFile, verify};
use unluks::volume::VolumeOptions;
use unluks::{Error, Image, ReadAt, json};

use crate::failing::FailingRanges;
use crate::layers::{group, raid1, raid5};
use crate::support::{Golden, PARTITION, in_mbr, in_qcow2, key};

/// Where the plaintext of the image with the file system begins.
const DATA: usize = 163_840;

/// An image, and what is asked of it.
struct Case {
    file: Arc<dyn ReadAt>,
    with: Vec<Vec<u8>>,
    header: Option<Vec<u8>>,
    passphrase: String,
    options: Options,
}

impl Case {
    fn of(golden: &Golden, image: Vec<u8>) -> Self {
        let (header, passphrase) = (golden.header.clone(), golden.passphrase.clone());
        Self { file: Arc::new(image), with: Vec::new(), header, passphrase, options: Options::default() }
    }

    fn golden(name: &str) -> Self {
        let golden = Golden::read(name);
        Self::of(&golden, golden.image.clone())
    }

    fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let golden = Golden::read(name);
        let mut image = golden.image.clone();
        change(&mut image);
        Self::of(&golden, image)
    }

    fn asked(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The report, which the schema has nothing against.
    fn verify(self) -> Value {
        let Self { file, with, header, passphrase, options } = self;
        let refused = |image: Option<&Image>, e: Error| {
            Report::of_refusal("image", image, &e).unwrap_or_else(|| panic!("nothing is known: {e}"))
        };
        let member = |(n, disk): (usize, Vec<u8>)| Named::new(format!("other {n}"), Arc::new(disk));
        let with = with.into_iter().enumerate().map(member).collect();
        let find_options = FindOptions { name: "image".into(), with, detached: header.is_some(), ..Default::default() };
        let report = || {
            let found = match find(Arc::clone(&file), find_options) {
                Ok(found) => found,
                Err(e) => return refused(None, e),
            };
            let header = header.map(|bytes| -> Arc<dyn ReadAt> { Arc::new(bytes) });
            let image = match Image::open_found(&found, header) {
                Ok(image) => image,
                Err(e) => return refused(None, e),
            };
            let unlocked = match image.unlock(&key(&passphrase), &Default::default()) {
                Ok(unlocked) => unlocked,
                Err(e) => return refused(Some(&image), e),
            };
            let subject = Subject {
                path: "image".into(),
                unlocked: &unlocked,
                files: vec![Arc::clone(&file)],
                passes_by: matches!(found.place, Place::File(_)),
                forms: Vec::new(),
            };
            verify(&subject, options, &Progress::default()).unwrap()
        };
        let report: Value = serde_json::from_str(&json::compact(&report()).unwrap()).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verify.schema.json");
        let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let faults: Vec<_> = validator.iter_errors(&report).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert!(faults.is_empty(), "{}\n{report:#}", faults.join("\n"));
        report
    }
}

fn codes<'a>(report: &'a Value, severity: &str) -> Vec<&'a str> {
    let all = report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == severity);
    all.map(|f| f["code"].as_str().unwrap()).collect()
}

fn plaintext(name: &str) -> Vec<u8> {
    let golden = Golden::read(name);
    let image = Image::open(Arc::new(golden.image)).unwrap();
    let volume = image.unlock(&key(&golden.passphrase), &Default::default()).unwrap().volume(VolumeOptions::default());
    let volume = volume.unwrap();
    let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
    volume.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn no_sound_image_is_called_bad() {
    let names = [
        "l1-aes-xts-512-sha256",
        "l1-detached",
        "l1-two-slots",
        "l2-adiantum",
        "l2-argon2id",
        "l2-detached",
        "l2-ext4",
        "l2-integrity-aead",
        "l2-integrity-hmac",
        "l2-integrity-journal",
        "l2-integrity-none",
        "l2-sector-2048",
        "l2-tokens",
        "luks-in-qcow2",
        "qcow2-luks",
    ];
    let mut faults = Vec::new();
    for name in names {
        let report = Case::golden(name).verify();
        let recognised = name == "l2-ext4";
        let verdict = if recognised { "restorable" } else { "restorable-with-findings" };
        let alarms = [codes(&report, "warning"), codes(&report, "error")].concat();
        if report["verdict"] != verdict || !alarms.is_empty() {
            faults.push(format!("{name}: {} {} {alarms:?}", report["verdict"], report["reason"]));
        }
        let coverage = &report["coverage"];
        let read = coverage["read_bytes"].as_u64().unwrap();
        assert_eq!(coverage["plaintext_bytes"], read, "{name}");
        assert_eq!(coverage["zero_bytes"].as_u64().unwrap() + coverage["data_bytes"].as_u64().unwrap(), read, "{name}");
        let authenticated = name.contains("integrity") && name != "l2-integrity-none";
        assert_eq!(coverage["authenticated_bytes"], if authenticated { read } else { 0 }, "{name}");
        assert_eq!(coverage["file_data_proven"], authenticated, "{name}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn hashes_are_those_of_the_bytes_and_two_runs_are_alike() {
    use sha2::{Digest, Sha256};
    let golden = Golden::read("l2-ext4");
    let run = |threads| {
        let hex = hex::encode(Sha256::digest(&golden.image));
        let expected = vec![Expected { of: Of::Image, algorithm: Algorithm::Sha256, hex, by: "a note".into() }];
        let threads = std::num::NonZeroUsize::new(threads);
        let mut report = Case::golden("l2-ext4").asked(Options { expected, threads, ..Options::default() }).verify();
        let run = report.as_object_mut().unwrap().remove("run").unwrap();
        assert_eq!(run["tool"], "unluks");
        report
    };
    let report = run(1);
    assert_eq!(report, run(4));
    let plaintext = plaintext("l2-ext4");
    assert_eq!(report["hashes"]["plaintext"]["sha256"], hex::encode(Sha256::digest(&plaintext)));
    // There is one leaf.
    let leaf = Sha256::new_with_prefix([0]).chain_update(&plaintext).finalize();
    assert_eq!(report["hashes"]["tree"]["root"], hex::encode(leaf));
    assert_eq!(report["coverage"]["hashed_bytes"], golden.image.len());
    assert_eq!(report["coverage"]["file_data_proven"], true);
}

#[test]
fn an_earlier_tree_names_the_place_that_differs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    let tree = Some(TreeFile::create(&path, Existing::Keep).unwrap());
    let first = Case::golden("l2-ext4").asked(Options { tree, ..Options::default() }).verify();
    let root = first["hashes"]["tree"]["root"].as_str().unwrap();
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.ends_with(&format!("size 00000000000001048576\nroot {root}\n")), "{written}");
    let compare = || Options { compare: Some(Compare::open(&path).unwrap()), ..Options::default() };
    let same = Case::golden("l2-ext4").asked(compare()).verify();
    assert_eq!((&same["verdict"], &same["coverage"]["compared_bytes"]), (&"restorable".into(), &(1 << 20).into()));
    let other = Case::changed("l2-ext4", |image| image[DATA + 900_000] ^= 1).asked(compare()).verify();
    assert_eq!((&other["verdict"], codes(&other, "error")), (&"not-restorable".into(), vec!["plaintext.differs"]));
}

#[test]
fn a_byte_that_differs_from_the_plaintext_and_one_that_cannot_be_read_have_their_places() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = plaintext("l2-ext4");
    bytes[700_001] ^= 1;
    file.write_all(&bytes).unwrap();
    let compare = Some(Compare::open(file.path()).unwrap());
    let report = Case::golden("l2-ext4").asked(Options { compare, ..Options::default() }).verify();
    assert_eq!(report["findings"][1]["plaintext_offset"], 700_001, "{}", report["findings"]);

    let golden = Golden::read("l2-ext4");
    let at = u64::try_from(DATA).unwrap() + 500 * 1024;
    let failing = FailingRanges::new(golden.image.clone(), Some(at..at + 512));
    let report = Case { file: Arc::new(failing), ..Case::golden("l2-ext4") }.verify();
    let found = report["findings"].as_array().unwrap().iter().find(|f| f["code"] == "file.unreadable").unwrap();
    assert_eq!(found["image_offset"], at / 4096 * 4096);
    assert_eq!(found["plaintext_offset"], at / 4096 * 4096 - u64::try_from(DATA).unwrap());
    // A hash of what was not read is none.
    assert_eq!(report["hashes"]["plaintext"], serde_json::json!({}));
}

/// Zeroes in place of a range.
fn zero(image: &mut [u8], at: usize, len: usize) {
    image[at..at + len].fill(0);
}

/// A case with one keyslot's area gone: one that opens, or one that does not.
fn without_keyslot(name: &str, opens: impl Fn(bool) -> bool) -> Case {
    let golden = Golden::read(name);
    let image = Image::open(Arc::new(golden.image.clone())).unwrap();
    let unlocked = image.unlock(&key(&golden.passphrase), &Default::default()).unwrap();
    let opened = unlocked.opened()[0].keyslot;
    let keyslots = &image.metadata().keyslots;
    let (_, gone) = keyslots.iter().find(|(id, _)| opens(**id == opened)).unwrap();
    let at = usize::try_from(gone.area.offset).unwrap();
    Case::changed(name, |image| zero(image, at, 4096))
}

fn wrong_hash(of: Of) -> Options {
    let expected = Expected { of, algorithm: Algorithm::Sha256, hex: "0".repeat(64), by: "a note".into() };
    Options { expected: vec![expected], ..Options::default() }
}

fn must_be(word: &str) -> Options {
    Options { must_be: Some(word.parse().unwrap()), ..Options::default() }
}

#[test]
fn each_damage_has_its_verdict_and_the_layer_that_it_is_in() {
    const BAD: &str = "not-restorable";
    const FINDINGS: &str = "restorable-with-findings";
    let ext4 = Golden::read("l2-ext4");
    let small = Golden::read("l1-aes-xts-512-sha256");
    let part = |members: Vec<Vec<u8>>, kept: usize| {
        let mut members = members;
        members.truncate(kept);
        Case { with: members.split_off(1), ..Case::of(&small, members.remove(0)) }
    };
    let data = u64::try_from(DATA).unwrap();
    let failing = |from: u64, to: u64| Case {
        file: Arc::new(FailingRanges::new(ext4.image.clone(), Some(from..to))),
        ..Case::golden("l2-ext4")
    };
    let mut in_plaintext = tempfile::NamedTempFile::new().unwrap();
    in_plaintext.write_all(&plaintext("l2-ext4")[..1 << 19]).unwrap();
    let shorter = Some(Compare::open(in_plaintext.path()).unwrap());
    let cases: Vec<(&str, Case, &str, &str)> = vec![
        ("half of the data is cut off", Case::changed("l2-ext4", |i| i.truncate(DATA + (1 << 19))), BAD, "length."),
        ("all of the data is cut off", Case::changed("l2-ext4", |i| i.truncate(DATA)), BAD, "length."),
        ("a fixed segment is cut off", Case::golden("l2-truncated"), BAD, "length."),
        ("the primary header is gone", Case::changed("l2-ext4", |i| zero(i, 0, 16_384)), FINDINGS, "header."),
        ("the secondary header is gone", Case::changed("l2-ext4", |i| zero(i, 16_384, 16_384)), FINDINGS, "header."),
        ("both headers are gone", Case::changed("l2-ext4", |i| zero(i, 0, 32_768)), BAD, "header."),
        ("a bit of the primary's JSON", Case::changed("l2-ext4", |i| i[4200] ^= 1), FINDINGS, "header."),
        ("the magic of LUKS1", Case::changed("l1-two-slots", |i| i[0] ^= 1), FINDINGS, "header."),
        ("the primary cannot be read", failing(0, 512), FINDINGS, "header."),
        ("a sector of the data cannot be read", failing(data + 8192, data + 8704), BAD, "file."),
        ("the only keyslot is overwritten", without_keyslot("l2-ext4", |opens| opens), BAD, "keyslot."),
        ("another keyslot is overwritten", without_keyslot("l1-two-slots", |opens| !opens), FINDINGS, "keyslot."),
        ("a tag of dm-integrity", Case::golden("l2-integrity-tag-flipped"), BAD, "integrity."),
        ("data under dm-integrity", Case::golden("l2-integrity-data-flipped"), BAD, "integrity."),
        ("the journal of dm-integrity", Case::golden("l2-integrity-journal-damaged"), BAD, "integrity."),
        ("a bit in a group descriptor", Case::changed("l2-ext4", |i| i[DATA + 2048] ^= 1), BAD, "contents."),
        ("no superblock", Case::changed("l2-ext4", |i| zero(i, DATA, 4096)), FINDINGS, ""),
        (
            "no superblock, and something must be there",
            Case::changed("l2-ext4", |i| zero(i, DATA, 4096)).asked(must_be("any")),
            BAD,
            "contents.",
        ),
        ("noise in place of contents", Case::golden("l2-argon2id").asked(must_be("any")), BAD, "contents."),
        ("another file system", Case::golden("l2-ext4").asked(must_be("xfs")), BAD, "contents."),
        ("another hash of the image", Case::golden("l2-ext4").asked(wrong_hash(Of::Image)), BAD, "file."),
        ("another hash of the plaintext", Case::golden("l2-ext4").asked(wrong_hash(Of::Plaintext)), BAD, "plaintext."),
        (
            "another recorded length",
            Case::golden("l2-ext4").asked(Options { plaintext_bytes: Some(1 << 21), ..Options::default() }),
            BAD,
            "length.",
        ),
        (
            "more than it is compared with",
            Case::golden("l2-ext4").asked(Options { compare: shorter, ..Options::default() }),
            BAD,
            "plaintext.",
        ),
        ("a mirror without one half", part(raid1(&small.image), 1), FINDINGS, "storage."),
        ("parity without one member", part(raid5(&small.image), 2), FINDINGS, "storage."),
        ("parity without two members", part(raid5(&small.image), 1), BAD, "storage."),
        ("a group without one volume", part(group("vg", 2, &[("crypt", &small.image)]), 1), BAD, "storage."),
        ("a partition that is cut off", Case::of(&ext4, cut(in_mbr(&ext4.image))), BAD, ""),
        ("a qcow2 that is cut off", Case::of(&ext4, cut(in_qcow2(&ext4.image))), BAD, ""),
        ("another key", Case { passphrase: "another".into(), ..Case::golden("l2-ext4") }, "wrong-key", ""),
    ];
    assert!(cases.len() > 20);
    let mut faults = Vec::new();
    for (damage, case, verdict, layer) in cases {
        let report = case.verify();
        let severity = if verdict == BAD { "error" } else { "warning" };
        let named = codes(&report, severity);
        let is_named = layer.is_empty() || named.iter().any(|code| code.starts_with(layer));
        if report["verdict"] != verdict || !is_named || report["reason"].is_null() {
            faults.push(format!("{damage}: {} {named:?}: {}", report["verdict"], report["reason"]));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A disk that ends in the middle of its partition.
fn cut(mut disk: Vec<u8>) -> Vec<u8> {
    disk.truncate(usize::try_from(PARTITION).unwrap() + DATA + (1 << 19));
    disk
}
