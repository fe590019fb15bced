//! The verdict on sound images and on damaged ones: one damage each, with the layer that has to name it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use unluks::decrypt::hash::{Algorithm, Of};
use unluks::files::Existing;
use unluks::format::Named;
use unluks::locate::{FindOptions, HeaderAt, Place, Unfit, find};
use unluks::progress::Progress;
use unluks::verify::{Compare, Expected, Options, Report, Subject, TreeFile, verify};
use unluks::verify::{FileProof, Manifest};
use unluks::volume::VolumeOptions;
use unluks::{Error, Image, ReadAt, json};

use crate::failing::FailingRanges;
use crate::support::{Golden, key};

/// Where the plaintext of the image with the file system begins.
pub const DATA: usize = 163_840;

/// An image, and what is asked of it.
pub struct Case {
    pub file: Arc<dyn ReadAt>,
    pub with: Vec<Vec<u8>>,
    pub header: Option<Vec<u8>>,
    pub passphrase: String,
    pub options: Options,
}

impl Case {
    pub fn of(golden: &Golden, image: Vec<u8>) -> Self {
        let (header, passphrase) = (golden.header.clone(), golden.passphrase.clone());
        Self { file: Arc::new(image), with: Vec::new(), header, passphrase, options: Options::default() }
    }

    pub fn golden(name: &str) -> Self {
        let golden = Golden::read(name);
        Self::of(&golden, golden.image.clone())
    }

    pub fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let golden = Golden::read(name);
        let mut image = golden.image.clone();
        change(&mut image);
        Self::of(&golden, image)
    }

    pub fn asked(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// The report, which the schema has nothing against.
    pub fn verify(self) -> Value {
        let Self { file, with, header, passphrase, options } = self;
        let refused = |image: Option<&Image>, e: Error| {
            Report::of_refusal("image", image, &e).unwrap_or_else(|| panic!("nothing is known: {e}"))
        };
        let member = |(n, disk): (usize, Vec<u8>)| Named::new(format!("other {n}"), Arc::new(disk));
        let with = with.into_iter().enumerate().map(member).collect();
        let (name, header_at) = ("image".into(), HeaderAt::from(&header));
        let find_options = FindOptions { name, with, header: header_at, unfit: Unfit::Damaged, ..Default::default() };
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

pub fn codes<'a>(report: &'a Value, severity: &str) -> Vec<&'a str> {
    let all = report["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == severity);
    all.map(|f| f["code"].as_str().unwrap()).collect()
}

pub fn plaintext(name: &str) -> Vec<u8> {
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

/// What is left of a file system that is cut off is no proof of the files that it had.
#[test]
fn files_are_not_proven_where_a_part_is_cut_off() {
    let report = Case::changed("l2-ext4", |image| image.truncate(600_000)).verify();
    assert_eq!((&report["verdict"], &report["coverage"]["unchecked_bytes"]), (&"not-restorable".into(), &0.into()));
    assert_eq!(report["coverage"]["file_data_proven"], false);
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

/// A file in bytes that cannot be read has no hash, whatever stands for them.
#[test]
fn a_file_that_cannot_be_read_is_unread() {
    let golden = Golden::read("l2-ext4");
    let bytes = plaintext("l2-ext4");
    let block = {
        let is_file = |block: &&[u8]| block.starts_with(b"12.11\n") && block[6..].iter().all(|b| *b == 0);
        let number = bytes.chunks(1024).position(|block| is_file(&block)).unwrap();
        number * 1024 / 4096 * 4096
    };
    let manifest = Manifest::parse(format!("{}  hello.txt\n", "a".repeat(64)).as_bytes()).unwrap();
    let open = |disk, kind| unluks::reader::open(kind, disk);
    let proof = FileProof { open: Arc::new(open), manifest: Some(Arc::new(manifest)), packages: false };
    let options = || Options { files: Some(proof.clone()), ..Options::default() };
    let sound = Case::golden("l2-ext4").asked(options()).verify();
    assert_eq!(codes(&sound, "error"), ["contents.files.differs"]);
    let lost = u64::try_from(DATA + block).unwrap()..u64::try_from(DATA + block + 4096).unwrap();
    let mut case = Case::golden("l2-ext4").asked(options());
    case.file = Arc::new(FailingRanges::new(golden.image, vec![lost]));
    let report = case.verify();
    let errors = codes(&report, "error");
    assert!(errors.contains(&"contents.files.unread") && !errors.contains(&"contents.files.differs"), "{errors:?}");
    let files = &report["files"];
    assert_eq!((&files["unread"], &files["differing"]), (&1.into(), &0.into()));
    let of = |report: &Value, name: &str| report["coverage"][name].as_u64().unwrap();
    assert_eq!(
        (of(&report, "read_bytes") + 4096, of(&report, "zero_bytes")),
        (of(&sound, "read_bytes"), of(&sound, "zero_bytes"))
    );
    assert_eq!(
        (of(&report, "data_bytes") + 4096, &report["hashes"]["plaintext"]),
        (of(&sound, "data_bytes"), &serde_json::json!({}))
    );
    assert_eq!(report["stages"][7]["result"], "failed");
}
