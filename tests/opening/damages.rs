//! Damages, one each, in every layer of an image: the verdict, the finding and its place; and the table of them in
//! docs/damages.md. What is wrong within file systems has a longer table of its own, in docs/inside.md.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use unluks::Image;
use unluks::decrypt::hash::{Algorithm, Of};
use unluks::files::Existing;
use unluks::verify::{Compare, Expected, Options, TreeFile};

use crate::failing::FailingRanges;
use crate::layers::{group, put, raid1, raid5};
use crate::parts::of_parts;
use crate::support::{Golden, PARTITION, REFERENCES, in_ewf, in_mbr, in_qcow2, key};
use crate::verify::{Case, DATA, plaintext};

pub const BAD: &str = "not-restorable";
pub const FINDINGS: &str = "restorable-with-findings";
const WRONG_KEY: &str = "wrong-key";
/// The image with an ext4 of 1 MiB, in blocks of 1 KiB; its second copy of the header, and its only keyslot.
const EXT4: &str = "l2-ext4";
const SECONDARY: usize = 16_384;
const KEYSLOT: usize = 32_768;
/// A small image of LUKS1.
const SMALL: &str = "l1-aes-xts-512-sha256";
/// The group descriptor in an ext4.
const GROUP: usize = 2048;
/// Where the plaintext of the image with the null cipher begins, which has any plaintext as it is.
const NULL_DATA: usize = 1032 * 512;

/// Where a finding has to be.
#[derive(Clone, Copy)]
enum At {
    /// The damage is in no one place.
    Any,
    Image(usize),
    Plaintext(usize),
    Path(&'static str),
}

pub struct Damage {
    layer: &'static str,
    pub what: &'static str,
    pub case: Case,
    verdict: &'static str,
    /// The code of the finding, or what it begins with; empty where there is none.
    code: &'static str,
    at: At,
}

pub fn damage(
    layer: &'static str,
    what: &'static str,
    case: Case,
    verdict: &'static str,
    code: &'static str,
) -> Damage {
    Damage { layer, what, case, verdict, code, at: At::Any }
}

impl Damage {
    fn at(self, at: At) -> Self {
        Self { at, ..self }
    }
}

/// Zeroes in place of a range.
pub fn zero(image: &mut [u8], at: usize, len: usize) {
    image[at..at + len].fill(0);
}

/// What looks like noise.
fn noise(image: &mut [u8]) {
    let mut state = 1u64;
    for byte in image {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = state.to_be_bytes()[0];
    }
}

/// The image with the ext4, changed.
fn ext4(change: impl FnOnce(&mut Vec<u8>)) -> Case {
    Case::changed(EXT4, change)
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

fn wrong_hash(of: Of, algorithm: Algorithm) -> Options {
    let expected = Expected { of, algorithm, hex: "0".repeat(2 * algorithm.output_len()), by: "a note".into() };
    Options { expected: vec![expected], ..Options::default() }
}

fn must_be(word: &str) -> Options {
    Options { must_be: Some(word.parse().unwrap()), ..Options::default() }
}

/// An image whose bytes cannot be read in a range.
fn failing(from: usize, to: usize) -> Case {
    let range = u64::try_from(from).unwrap()..u64::try_from(to).unwrap();
    Case { file: Arc::new(FailingRanges::new(Golden::read(EXT4).image, Some(range))), ..Case::golden(EXT4) }
}

/// A container with the null cipher, and any plaintext.
fn null(plaintext: &[u8]) -> Case {
    Case::changed("l1-null", |image| {
        image.truncate(NULL_DATA);
        image.extend_from_slice(plaintext);
        image.resize(image.len().next_multiple_of(512), 0);
    })
}

/// A disk that ends in the middle of its partition.
fn cut(mut disk: Vec<u8>) -> Vec<u8> {
    disk.truncate(usize::try_from(PARTITION).unwrap() + DATA + (1 << 19));
    disk
}

/// The first members of a set that holds a small image, changed.
pub fn part(mut members: Vec<Vec<u8>>, kept: usize, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Case {
    members.truncate(kept);
    change(&mut members);
    let first = members.remove(0);
    Case { with: members, ..Case::of(&Golden::read(SMALL), first) }
}

pub fn small() -> Vec<u8> {
    Golden::read(SMALL).image
}

/// A file format around the image with the ext4, changed.
fn qcow2(change: impl FnOnce(&mut Vec<u8>)) -> Case {
    let golden = Golden::read(EXT4);
    let mut file = in_qcow2(&golden.image);
    change(&mut file);
    Case::of(&golden, file)
}

/// A swap area.
fn swap() -> Vec<u8> {
    let mut area = vec![0; 1 << 20];
    put(&mut area, 1024, &1u32.to_le_bytes());
    put(&mut area, 1028, &255u32.to_le_bytes());
    put(&mut area, 4086, b"SWAPSPACE2");
    area
}

/// Where a structure of the ext4 is, by the field of its group descriptor.
fn of_group(plain: &[u8], field: usize) -> usize {
    let at = GROUP + field;
    usize::try_from(u32::from_le_bytes(plain[at..at + 4].try_into().unwrap())).unwrap() * 1024
}

/// Where the data begins, by the report of the sound image.
fn data_of(name: &str) -> usize {
    let report = Case::golden(name).verify();
    usize::try_from(report["container"]["data_offset"].as_u64().unwrap()).unwrap()
}

fn of_files() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("file", what, case, verdict, code);
    let len = Golden::read(EXT4).image.len();
    vec![
        of("a sector of the data cannot be read", failing(DATA + 8192, DATA + 8704), BAD, "file.unreadable")
            .at(At::Plaintext(8192)),
        of("the last sector cannot be read", failing(len - 512, len), BAD, "file.unreadable").at(At::Image(len - 4096)),
        of("another SHA-256", Case::golden(EXT4).asked(wrong_hash(Of::Image, Algorithm::Sha256)), BAD, "file.hash"),
        of("another MD5", Case::golden(EXT4).asked(wrong_hash(Of::Image, Algorithm::Md5)), BAD, "file.hash"),
        of(
            "a hash that is not known",
            Case::golden(EXT4)
                .asked(Options { not_compared: Some("blake9 is not known".into()), ..Options::default() }),
            FINDINGS,
            "file.not-compared",
        ),
    ]
}

fn of_formats() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("format", what, case, verdict, code);
    const CLUSTER: usize = 64 << 10;
    vec![
        of("a qcow2 that is cut off", qcow2(|file| *file = cut(std::mem::take(file))), BAD, ""),
        of("a qcow2 that is cut off in its header", qcow2(|file| file.truncate(60)), BAD, ""),
        of("the magic of a qcow2", qcow2(|file| file[0] ^= 1), BAD, "header."),
        of(
            "a table of a qcow2 that is behind the end",
            qcow2(|file| put(file, CLUSTER, &(1u64 << 40 | 1 << 63).to_be_bytes())),
            BAD,
            "format.",
        ),
        of(
            "a cluster of a qcow2 that is behind the end",
            qcow2(|file| put(file, 2 * CLUSTER + 8 * 10, &(1u64 << 40 | 1 << 63).to_be_bytes())),
            BAD,
            "format.",
        ),
        of(
            "a cluster of a qcow2 in no cluster's place",
            qcow2(|file| put(file, 2 * CLUSTER + 8 * 10, &(1u64 << 20 | 512 | 1 << 63).to_be_bytes())),
            BAD,
            "format.",
        ),
        of(
            "a reference count of a qcow2 that is 0",
            qcow2(|file| put(file, REFERENCES + 2 * 20, &[0, 0])),
            FINDINGS,
            "format.qcow2.refcount",
        )
        .at(At::Image(20 * CLUSTER)),
        of(
            "two clusters of a qcow2 in one place",
            qcow2(|file| put(file, 2 * CLUSTER + 8 * 10, &(18u64 << 16 | 1 << 63).to_be_bytes())),
            BAD,
            "format.qcow2.claimed-twice",
        )
        .at(At::Image(18 * CLUSTER)),
        of(
            "a cluster of a qcow2 that is its table",
            qcow2(|file| put(file, 2 * CLUSTER + 8 * 10, &(3u64 << 16 | 1 << 63).to_be_bytes())),
            BAD,
            "format.qcow2.claimed-twice",
        )
        .at(At::Image(3 * CLUSTER)),
        of(
            "the table of reference counts of a qcow2",
            qcow2(|file| put(file, 48, &(3u64 << 40).to_be_bytes())),
            FINDINGS,
            "format.qcow2.refcount-table",
        ),
        of("the MD5 that an E01 keeps", ewf(|file, at| file[at] ^= 1), BAD, "format.hash"),
        of("the SHA-1 that an E01 keeps", ewf(|file, at| file[at + 16] ^= 1), BAD, "format.hash"),
    ]
}

/// The image with the ext4 in an E01, of which the hashes are changed; their checksum is right again.
fn ewf(change: impl FnOnce(&mut Vec<u8>, usize)) -> Case {
    let golden = Golden::read(EXT4);
    let (mut file, at) = in_ewf(&golden.image);
    change(&mut file, at);
    let mut sum = adler2::Adler32::new();
    sum.write_slice(&file[at..at + 76]);
    put(&mut file, at + 76, &sum.checksum().to_le_bytes());
    Case::of(&golden, file)
}

/// What a container says of itself is proof where it is right, and no finding.
#[test]
fn containers_that_agree_with_themselves_are_sound() {
    let report = qcow2(|_| ()).verify();
    assert_eq!(report["verdict"], "restorable");
    assert!(report["findings"].as_array().unwrap().iter().all(|f| !f["code"].as_str().unwrap().starts_with("format.")));
    let report = ewf(|_, _| ()).verify();
    assert_eq!((&report["verdict"], &report["coverage"]["file_data_proven"]), (&"restorable".into(), &true.into()));
    assert_eq!(report["coverage"]["recorded_bytes"], Golden::read(EXT4).image.len());
    let hashes = report["hashes"]["container"].as_object().unwrap();
    assert_eq!(hashes.keys().collect::<Vec<_>>(), ["md5", "sha1"]);
    // A section that is damaged says nothing of the disk.
    let golden = Golden::read(EXT4);
    let (mut file, at) = in_ewf(&golden.image);
    file[at] ^= 1;
    let report = Case::of(&golden, file).verify();
    assert_eq!((&report["verdict"], &report["findings"][0]["code"]), (&FINDINGS.into(), &"format.ewf".into()));
}

fn of_storage() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("storage", what, case, verdict, code);
    let golden = Golden::read(EXT4);
    let volumes = |devices| group("vg", devices, &[("crypt", &small())]);
    vec![
        of("a mirror without one half", part(raid1(&small()), 1, |_| ()), FINDINGS, "storage."),
        of(
            "the superblock of the only half of a mirror that is there",
            part(raid1(&small()), 1, |m| zero(&mut m[0], 4096, 256)),
            BAD,
            "",
        ),
        of("parity without one member", part(raid5(&small()), 2, |_| ()), FINDINGS, "storage."),
        of("parity without two members", part(raid5(&small()), 1, |_| ()), BAD, "storage."),
        of("a group without one volume", part(volumes(2), 1, |_| ()), BAD, "storage."),
        of("the only label of a physical volume", part(volumes(1), 1, |m| zero(&mut m[0], 512, 512)), BAD, ""),
        of("the only text of a group", part(volumes(1), 1, |m| zero(&mut m[0], 4096 + 512, 3072)), BAD, ""),
        of("a partition that is cut off", Case::of(&golden, cut(in_mbr(&golden.image))), BAD, "storage."),
        of(
            "a partition table without its mark",
            Case::of(&golden, {
                let mut disk = in_mbr(&golden.image);
                disk[510] = 0;
                disk
            }),
            BAD,
            "header.",
        ),
        of(
            "a partition that begins a sector too late",
            Case::of(&golden, {
                let mut disk = in_mbr(&golden.image);
                disk[454] += 1;
                disk
            }),
            BAD,
            "header.",
        ),
    ]
}

fn of_headers() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("header", what, case, verdict, code);
    vec![
        of("the primary is gone", ext4(|i| zero(i, 0, 16_384)), FINDINGS, "header."),
        of("the secondary is gone", ext4(|i| zero(i, SECONDARY, 16_384)), FINDINGS, "header."),
        of("both are gone", ext4(|i| zero(i, 0, 32_768)), BAD, "header."),
        of("noise over both", ext4(|i| noise(&mut i[..32_768])), BAD, "header."),
        of("a bit of the primary's JSON", ext4(|i| i[4200] ^= 1), FINDINGS, "header."),
        of("a bit of the secondary's JSON", ext4(|i| i[SECONDARY + 4200] ^= 1), FINDINGS, "header."),
        of(
            "a bit of the JSON of both",
            ext4(|i| [4200, SECONDARY + 4300].iter().for_each(|at| i[*at] ^= 1)),
            BAD,
            "header.",
        ),
        of("the checksum of the primary", ext4(|i| i[450] ^= 1), FINDINGS, "header."),
        of("the size that the primary says", ext4(|i| i[13] ^= 1), FINDINGS, "header."),
        of("the magic of LUKS1", Case::changed("l1-two-slots", |i| i[0] ^= 1), FINDINGS, "header."),
        of("cut off within the primary", ext4(|i| i.truncate(5000)), BAD, ""),
        of("the primary cannot be read", failing(0, 512), FINDINGS, "header."),
        of("the digest of LUKS1", Case::changed(SMALL, |i| i[120] ^= 1), WRONG_KEY, ""),
    ]
}

fn of_keyslots() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("keyslot", what, case, verdict, code);
    vec![
        of("the only one is overwritten", without_keyslot(EXT4, |opens| opens), BAD, "keyslot.overwritten"),
        of("the only one of LUKS1 is overwritten", without_keyslot(SMALL, |opens| opens), BAD, "keyslot.overwritten"),
        of(
            "another one is overwritten",
            without_keyslot("l1-two-slots", |opens| !opens),
            FINDINGS,
            "keyslot.overwritten",
        ),
        of("a bit of the only one", ext4(|i| i[KEYSLOT + 9] ^= 1), WRONG_KEY, ""),
        of("cut off within the only one", ext4(|i| i.truncate(KEYSLOT + 4096)), BAD, ""),
        of("another key", Case { passphrase: "another".into(), ..Case::golden(EXT4) }, WRONG_KEY, ""),
    ]
}

fn of_lengths() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("length", what, case, verdict, code);
    let plain = plaintext(EXT4);
    // A partition in the plaintext that is shorter than its file system.
    let mut short = in_mbr(&plain);
    put(&mut short, 458, &1024u32.to_le_bytes());
    vec![
        of("half of the data is cut off", ext4(|i| i.truncate(DATA + (1 << 19))), BAD, "length."),
        of("all of the data is cut off", ext4(|i| i.truncate(DATA)), BAD, "length."),
        of("a sector is cut off", ext4(|i| i.truncate(i.len() - 512)), BAD, "length."),
        of("half a sector is cut off", ext4(|i| i.truncate(i.len() - 256)), BAD, ""),
        of("a fixed segment is cut off", Case::golden("l2-truncated"), BAD, "length."),
        of(
            "another length was recorded",
            Case::golden(EXT4).asked(Options { plaintext_bytes: Some(1 << 21), ..Options::default() }),
            BAD,
            "length.recorded",
        ),
        of("a partition in the plaintext is shorter than what is in it", null(&short), BAD, ""),
    ]
}

fn of_integrity() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("integrity", what, case, verdict, code);
    let flipped = |name: &str| Case::changed(name, |i| *i.last_mut().unwrap() ^= 1);
    let (hmac, journal) = (data_of("l2-integrity-hmac"), data_of("l2-integrity-journal"));
    vec![
        of("a tag", Case::golden("l2-integrity-tag-flipped"), BAD, "integrity.tag"),
        of("data under a tag", Case::golden("l2-integrity-data-flipped"), BAD, "integrity.tag"),
        of("the last byte under AEAD", flipped("l2-integrity-aead"), BAD, "integrity."),
        of("the last byte under HMAC", flipped("l2-integrity-hmac"), BAD, "integrity."),
        of("the journal", Case::golden("l2-integrity-journal-damaged"), BAD, "integrity.journal"),
        of("the magic of its superblock", Case::changed("l2-integrity-hmac", |i| i[hmac] ^= 1), BAD, "integrity."),
        of(
            "the length that its superblock says",
            Case::changed("l2-integrity-journal", |i| i[journal + 23] ^= 1),
            BAD,
            "",
        ),
    ]
}

fn of_contents() -> Vec<Damage> {
    let of = |what, case, verdict, code| damage("contents", what, case, verdict, code);
    let plain = plaintext(EXT4);
    let (blocks, inodes, table) = (of_group(&plain, 0), of_group(&plain, 4), of_group(&plain, 8));
    let nested = usize::try_from(PARTITION).unwrap();
    let mut inner = in_mbr(&plain);
    inner[nested + GROUP] ^= 1;
    let mut unmarked = in_mbr(&plain);
    unmarked[511] = 0;
    let mut no_swap = swap();
    no_swap[4090] ^= 1;
    vec![
        of("a bit in the superblock", ext4(|i| i[DATA + 1024 + 0x90] ^= 1), BAD, "contents.ext.")
            .at(At::Plaintext(1024)),
        of("a bit in a group descriptor", ext4(|i| i[DATA + GROUP] ^= 1), BAD, "contents.ext.")
            .at(At::Plaintext(GROUP)),
        of("a bit in the block bitmap", ext4(|i| i[DATA + blocks] ^= 1), BAD, "contents.ext.block-bitmap")
            .at(At::Plaintext(blocks)),
        of("a bit in the inode bitmap", ext4(|i| i[DATA + inodes] ^= 1), BAD, "contents.ext.inode-bitmap")
            .at(At::Plaintext(inodes)),
        of("a bit in the root's inode", ext4(|i| i[DATA + table + 256] ^= 1), BAD, "contents.ext.inode")
            .at(At::Path("/")),
        of("zeroes over the inodes", ext4(|i| zero(i, DATA + table, 1024)), BAD, "contents.ext."),
        of("no superblock", ext4(|i| zero(i, DATA, 4096)), FINDINGS, ""),
        of(
            "no superblock, and something must be there",
            ext4(|i| zero(i, DATA, 4096)).asked(must_be("any")),
            BAD,
            "contents.must-be",
        ),
        of("noise in place of contents", Case::golden("l2-argon2id").asked(must_be("any")), BAD, "contents.must-be"),
        of("another file system", Case::golden(EXT4).asked(must_be("xfs")), BAD, "contents.must-be"),
        of("a file system in a partition of the plaintext", null(&inner), BAD, "contents.ext.")
            .at(At::Plaintext(nested + GROUP)),
        of(
            "a partition table in the plaintext without its mark",
            null(&unmarked).asked(must_be("ext")),
            BAD,
            "contents.must-be",
        ),
        of("the mark of a swap area", null(&no_swap).asked(must_be("swap")), BAD, "contents.must-be"),
    ]
}

/// A file of the ext4, and the hash that it must have.
#[cfg(feature = "read-ext")]
fn of_named_files() -> Vec<Damage> {
    use sha2::{Digest, Sha256};
    use unluks::reader::open;
    use unluks::verify::{FileProof, Manifest};

    let plain = plaintext(EXT4);
    let named = |name: &str, bytes: &[u8]| {
        let text = format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)));
        let manifest = Some(Arc::new(Manifest::parse(text.as_bytes()).unwrap()));
        let files = FileProof { open: Arc::new(|disk, kind| open(kind, disk)), manifest, packages: false };
        Options { files: Some(files), ..Options::default() }
    };
    // The file's only block is the one with its bytes.
    let hello = b"12.11\n";
    let at = plain.windows(hello.len()).position(|bytes| bytes == hello).unwrap();
    assert_eq!(Case::golden(EXT4).asked(named("hello.txt", hello)).verify()["verdict"], "restorable");
    let of = |what, case, code| damage("contents", what, case, BAD, code).at(At::Path("/hello.txt"));
    vec![
        of(
            "a bit in a file that a manifest names",
            ext4(|i| i[DATA + at] ^= 1).asked(named("hello.txt", hello)),
            "contents.files.differs",
        ),
        of(
            "a file that a manifest names is another",
            Case::golden(EXT4).asked(named("./hello.txt", b"other")),
            "contents.files.differs",
        ),
        damage(
            "contents",
            "a file that a manifest names is gone",
            Case::golden(EXT4).asked(named("/gone", b"")),
            BAD,
            "contents.files.missing",
        )
        .at(At::Path("/gone")),
    ]
}

#[cfg(not(feature = "read-ext"))]
fn of_named_files() -> Vec<Damage> {
    Vec::new()
}

fn of_plaintexts(dir: &Path) -> Vec<Damage> {
    let of = |what, case, code| damage("plaintext", what, case, BAD, code);
    let plain = plaintext(EXT4);
    let against = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        Case::golden(EXT4).asked(Options { compare: Some(Compare::open(&path).unwrap()), ..Options::default() })
    };
    let mut changed = plain.clone();
    changed[700_001] ^= 1;
    let tree = dir.join("tree");
    let made = Options { tree: Some(TreeFile::create(&tree, Existing::Keep).unwrap()), ..Options::default() };
    Case::golden(EXT4).asked(made).verify();
    let by_tree = Options { compare: Some(Compare::open(&tree).unwrap()), ..Options::default() };
    vec![
        of("another hash", Case::golden(EXT4).asked(wrong_hash(Of::Plaintext, Algorithm::Sha256)), "plaintext.hash"),
        of("a byte that differs from an earlier copy", against("changed", &changed), "plaintext.differs")
            .at(At::Plaintext(700_001)),
        of("more than an earlier copy has", against("shorter", &plain[..1 << 19]), "plaintext.size-differs"),
        of(
            "less than an earlier copy has",
            against("longer", &[plain.as_slice(), &[1; 512]].concat()),
            "plaintext.size-differs",
        ),
        of(
            "a bit that differs from an earlier tree",
            ext4(|i| i[DATA + 900_000] ^= 1).asked(by_tree),
            "plaintext.differs",
        )
        .at(At::Plaintext(0)),
    ]
}

fn place(at: At, finding: &Value) -> bool {
    match at {
        At::Any => true,
        At::Image(at) => finding["image_offset"] == at,
        At::Plaintext(at) => finding["plaintext_offset"] == at,
        At::Path(path) => finding["path"] == path,
    }
}

#[test]
fn each_damage_has_its_verdict_and_the_layer_and_place_that_it_is_in() {
    let dir = tempfile::tempdir().unwrap();
    let all = [
        of_files(),
        of_formats(),
        of_storage(),
        of_parts(),
        of_headers(),
        of_keyslots(),
        of_lengths(),
        of_integrity(),
        of_contents(),
        of_named_files(),
        of_plaintexts(dir.path()),
    ];
    let all: Vec<Damage> = all.into_iter().flatten().collect();
    let mut faults = Vec::new();
    let mut table = String::from("| layer | damage | verdict | finding | place |\n|---|---|---|---|---|\n");
    let count = all.len();
    for Damage { layer, what, case, verdict, code, at } in all {
        let report = case.verify();
        let severity = if verdict == BAD { "error" } else { "warning" };
        let findings = report["findings"].as_array().unwrap();
        let weighs = |f: &&Value| f["severity"] == severity && f["code"].as_str().unwrap().starts_with(code);
        let found = findings.iter().filter(weighs).find(|f| place(at, f)).or(findings.iter().find(weighs));
        let is_there = match found {
            Some(found) => place(at, found),
            None => code.is_empty(),
        };
        if report["verdict"] != verdict || !is_there || report["reason"].is_null() {
            let said: Vec<String> =
                findings.iter().map(|f| format!("{} {} {}", f["severity"], f["code"], f["plaintext_offset"])).collect();
            faults.push(format!("{layer}: {what}: {} {said:?}: {}", report["verdict"], report["reason"]));
        }
        let text = |name: &str| found.and_then(|f| f[name].as_str()).map(|text| format!("`{text}`"));
        let number =
            |what: &str, name: &str| found.and_then(|f| f[name].as_u64()).map(|at| format!("{what} byte {at}"));
        let places = [number("image", "image_offset"), number("plaintext", "plaintext_offset"), text("path")];
        let places: Vec<String> = places.into_iter().flatten().collect();
        let finding = text("code").unwrap_or_default();
        let verdict = verdict.replace('-', " ");
        writeln!(table, "| {layer} | {what} | {verdict} | {finding} | {} |", places.join(", ")).unwrap();
    }
    assert!(faults.is_empty(), "{}\n{table}", faults.join("\n"));
    assert!(count >= 60 || cfg!(not(feature = "read-ext")), "{count}");
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/damages.md")).unwrap();
    let is_whole = document.contains(&table) || cfg!(not(feature = "read-ext"));
    assert!(is_whole, "docs/damages.md wants this table:\n{table}");
}
