//! AFF4 images. Those that are made here are as the standard has them, and as was written before it; pyaff4's and the
//! reference images are read where they are at hand (see the ignored tests).

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use unluks::error::Condition;
use unluks::format::{Format, Named, Opened, Options, open};
use unluks::io::FileSource;
use unluks::num::to_u64;
use unluks::{ErrorKind, ReadAt};

use crate::support::{Bench, assert_same, check_extents, disk_of, open_bytes, read_all, run, test_disk, text};

const CHUNK: usize = 4096;
const PER_BEVY: usize = 20;
pub const VOLUME: &str = "aff4://11111111-1111-1111-1111-111111111111";
pub const STREAM: &str = "aff4://22222222-2222-2222-2222-222222222222";
const OTHER: &str = "aff4://33333333-3333-3333-3333-333333333333";
pub const MAP: &str = "aff4://44444444-4444-4444-4444-444444444444";

fn short(number: usize) -> [u8; 2] {
    u16::try_from(number).unwrap().to_le_bytes()
}

fn int(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_le_bytes()
}

fn long(number: usize) -> [u8; 8] {
    u64::try_from(number).unwrap().to_le_bytes()
}

fn packed(bytes: &[u8], is_zlib: bool) -> Vec<u8> {
    if is_zlib {
        let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        stream.write_all(bytes).unwrap();
        return stream.finish().unwrap();
    }
    let mut stream = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

/// The members of an archive, in their order.
#[derive(Clone, Default)]
pub struct Archive {
    pub members: Vec<(String, Vec<u8>)>,
    /// Whether all that is no bevy is deflated.
    is_deflated: bool,
    /// Whether its numbers have 64 bits, as the standard wants it.
    is_wide: bool,
}

impl Archive {
    fn new(turtle: &str) -> Self {
        let members = vec![
            ("container.description".to_owned(), VOLUME.as_bytes().to_vec()),
            ("version.txt".to_owned(), b"major=1\nminor=0\ntool=test\n".to_vec()),
            ("information.turtle".to_owned(), format!("{PREFIXES}{turtle}").into_bytes()),
        ];
        Self { members, is_deflated: false, is_wide: true }
    }

    fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.members.push((name, bytes));
    }

    pub fn bytes(&self) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, bytes) in &self.members {
            let is_packed = self.is_deflated && !name.ends_with(|c: char| c.is_ascii_digit());
            let stored = if is_packed { packed(bytes, false) } else { bytes.clone() };
            let method = if is_packed { 8 } else { 0 };
            let head = [short(45), short(0), short(method), short(0), short(0)].concat();
            let numbers = [long(bytes.len()), long(stored.len()), long(file.len())].concat();
            let (lens, at, extra) = if self.is_wide {
                let extra = [short(1), short(24)].concat();
                ([[0xff; 4]; 2].concat(), vec![0xff; 4], [extra, numbers].concat())
            } else {
                ([int(stored.len()), int(bytes.len())].concat(), int(file.len()).to_vec(), Vec::new())
            };
            let lens = [int(0).to_vec(), lens, short(name.len()).to_vec(), short(extra.len()).to_vec()].concat();
            let lens = [crc32fast::hash(bytes).to_le_bytes().to_vec(), lens[4..].to_vec()].concat();
            directory.extend([b"PK\x01\x02".to_vec(), short(45).to_vec(), head.clone(), lens.clone()].concat());
            directory.extend([vec![0; 10], at, name.as_bytes().to_vec(), extra.clone()].concat());
            file.extend([b"PK\x03\x04".to_vec(), head, lens, name.as_bytes().to_vec(), extra, stored].concat());
        }
        let (at, count) = (file.len(), self.members.len());
        file.extend(&directory);
        if self.is_wide {
            let wide = file.len();
            file.extend([b"PK\x06\x06".to_vec(), long(44).to_vec(), vec![0; 12], long(count).to_vec()].concat());
            file.extend([long(count), long(directory.len()), long(at)].concat());
            file.extend([b"PK\x06\x07".to_vec(), vec![0; 4], long(wide).to_vec(), int(1).to_vec()].concat());
        }
        file.extend([b"PK\x05\x06".to_vec(), vec![0; 4], short(count).to_vec(), short(count).to_vec()].concat());
        file.extend([int(directory.len()).to_vec(), int(at).to_vec(), short(VOLUME.len()).to_vec()].concat());
        file.extend(VOLUME.as_bytes());
        file
    }
}

const PREFIXES: &str = "@prefix : <aff4://11111111-1111-1111-1111-111111111111> .\n\
                        @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .\n\
                        @prefix aff4: <http://aff4.org/Schema#> .\n\
                        @prefix old: <http://afflib.org/2009/aff4#> .\n\n";

const SNAPPY: &str = "http://code.google.com/p/snappy/";
const METHODS: [&str; 8] = [
    "",
    "https://tools.ietf.org/html/rfc1951",
    "https://www.ietf.org/rfc/rfc1950.txt",
    SNAPPY,
    "https://github.com/google/snappy",
    "https://code.google.com/p/lz4/",
    "http://aff4.org/Schema#NullCompressor",
    "http://aff4.org/Schema#compression/stored",
];

fn compress(method: &str, chunk: &[u8]) -> Vec<u8> {
    match method {
        _ if method.ends_with("rfc1951") => packed(chunk, false),
        _ if method.ends_with("rfc1950.txt") => packed(chunk, true),
        _ if method.contains("snappy") => snap::raw::Encoder::new().compress_vec(chunk).unwrap(),
        _ if method.contains("lz4") => lz4_flex::block::compress(chunk),
        _ => chunk.to_vec(),
    }
}

/// The bevies of a stream and their indices: of the standard, or of what was before it, which counts from 0 or has ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Index {
    Standard,
    Begins,
    Ends,
}

fn bevies(archive: &mut Archive, urn: &str, bytes: &[u8], method: &str, index: Index) {
    let name = urn.replace("://", "%3A%2F%2F");
    for (n, part) in bytes.chunks(CHUNK * PER_BEVY).enumerate() {
        let (mut bevy, mut places) = (Vec::new(), Vec::new());
        for chunk in part.chunks(CHUNK) {
            let whole = [chunk, &vec![0; CHUNK - chunk.len()]].concat();
            let small = compress(method, &whole);
            let stored = if small.len() < CHUNK - 16 { small } else { whole };
            if index == Index::Begins {
                places.extend(int(bevy.len()));
            }
            if index == Index::Standard {
                places.extend([long(bevy.len()).to_vec(), int(stored.len()).to_vec()].concat());
            }
            bevy.extend(stored);
            if index == Index::Ends {
                places.extend(int(bevy.len()));
            }
        }
        archive.add(format!("{name}/{n:08}"), bevy);
        let behind = if index == Index::Standard { ".index" } else { "/index" };
        archive.add(format!("{name}/{n:08}{behind}"), places);
    }
}

fn stream_of(urn: &str, size: usize, method: &str) -> String {
    let method = if method.is_empty() { String::new() } else { format!("aff4:compressionMethod <{method}> ;") };
    format!(
        "<{urn}> a aff4:ImageStream ; {method}\n aff4:chunkSize \"{CHUNK}\"^^xsd:int ; \
         aff4:chunksInSegment \"{PER_BEVY}\"^^xsd:int ; aff4:size \"{size}\"^^xsd:long ; aff4:stored : .\n"
    )
}

fn image_of(data: &str) -> String {
    format!(
        "<aff4://55555555-5555-5555-5555-555555555555> a aff4:DiskImage, aff4:ContiguousImage , aff4:Image ;\n \
         aff4:dataStream <{data}> ; aff4:blockSize \"4096\"^^xsd:int ; aff4:diskSerial \"S\\\"1\" .\n"
    )
}

fn map_of(size: usize, gap: &str) -> String {
    format!("<{MAP}> a aff4:Map ; {gap} aff4:size \"{size}\"^^xsd:long .\n")
}

/// An image of `disk` in one stream.
pub fn plain(disk: &[u8], method: &str) -> Archive {
    let mut archive = Archive::new(&format!("{}{}", image_of(STREAM), stream_of(STREAM, disk.len(), method)));
    bevies(&mut archive, STREAM, disk, method, Index::Standard);
    archive
}

/// A map's entry: where on the disk, how much, where in the stream, and which.
type Entry = (usize, usize, usize, usize);

fn put_map(archive: &mut Archive, entries: &[Entry], names: &[&str]) {
    let name = MAP.replace("://", "%3A%2F%2F");
    let entry = |(at, len, place, n): &Entry| {
        [long(*at).to_vec(), long(*len).to_vec(), long(*place).to_vec(), int(*n).to_vec()].concat()
    };
    archive.add(format!("{name}/map"), entries.iter().flat_map(entry).collect());
    archive.add(format!("{name}/idx"), names.join("\n").into_bytes());
}

/// The blocks of `disk`, in the order of `seed`, of which those that are zero are left out; and what they make of a stream.
fn blocks(disk: &[u8], len: usize) -> (Vec<Entry>, Vec<u8>) {
    let (mut entries, mut stream) = (Vec::new(), Vec::new());
    let all: Vec<(usize, &[u8])> = disk.chunks(len).enumerate().collect();
    let (even, odd): (Vec<_>, Vec<_>) = all.into_iter().partition(|(n, _)| n % 2 == 0);
    for (n, block) in even.into_iter().chain(odd) {
        if block.iter().any(|b| *b != 0) {
            entries.push((n * len, block.len(), stream.len(), 0));
            stream.extend(block);
        }
    }
    (entries, stream)
}

/// An image of `disk` in a map over a stream.
pub fn mapped(disk: &[u8]) -> Archive {
    let (entries, stream) = blocks(disk, 3000);
    let turtle = [image_of(MAP), map_of(disk.len(), ""), stream_of(STREAM, stream.len(), SNAPPY)].concat();
    let mut archive = Archive::new(&turtle);
    bevies(&mut archive, STREAM, &stream, SNAPPY, Index::Standard);
    put_map(&mut archive, &entries, &[STREAM]);
    archive
}

fn disk() -> Vec<u8> {
    let mut disk = test_disk((1 << 20) + 777, 5);
    disk[9000..40_000].fill(0);
    disk
}

fn check(bytes: Vec<u8>, disk: &[u8], what: &str) -> Opened {
    let opened = open_bytes(bytes.clone(), None).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(opened.format, Format::Aff4, "{what}");
    let source = disk_of(open_bytes(bytes, None).unwrap());
    assert_same(&read_all(&source).unwrap_or_else(|e| panic!("{what}: {e}")), disk, what);
    check_extents(&source, disk, what);
    opened
}

#[test]
fn every_compression_is_read() {
    let disk = disk();
    for method in METHODS {
        let opened = check(plain(&disk, method).bytes(), &disk, method);
        assert_eq!(opened.sector_size, Some(4096));
        assert_eq!(opened.notes, Vec::<String>::new());
    }
    let mut archive = plain(&disk, SNAPPY);
    archive.is_deflated = true;
    check(archive.bytes(), &disk, "with small members that are deflated");
    archive.is_wide = false;
    check(archive.bytes(), &disk, "with numbers of 32 bits");
    archive.members.retain(|(name, _)| name != "container.description");
    check(archive.bytes(), &disk, "told by the comment");
    archive.members.rotate_left(2);
    assert!(archive.members[0].0.starts_with("aff4%3A"));
    check(archive.bytes(), &disk, "told by the first stream");
}

#[test]
fn names_are_found_however_they_are_written() {
    let disk = disk();
    // Relative to the volume, escaped twice, and with a slash too many.
    for (urn, name) in [("/disk%20one", "disk%2520one"), ("//disk.raw", "/disk.raw"), ("/a/b", "a/b")] {
        let urn = format!("{VOLUME}{urn}");
        let mut archive = Archive::new(&stream_of(&urn, disk.len(), ""));
        bevies(&mut archive, name, &disk, "", Index::Standard);
        check(archive.bytes(), &disk, name);
    }
}

#[test]
fn what_was_written_before_the_standard_is_read() {
    let disk = disk();
    let evimetry = format!(
        "<{STREAM}> a old:stream ; old:CompressionMethod <{SNAPPY}> ; old:chunk_size \"{CHUNK}\"^^xsd:int ;\n\
         old:chunks_in_segment \"{PER_BEVY}\"^^xsd:int ; old:size \"{}\"^^xsd:long .\n\
         <{MAP}> a old:QueryMap , old:map , old:Image ; old:size \"{}\"^^xsd:long .\n",
        disk.len(),
        disk.len()
    );
    let mut archive = Archive::new(&evimetry);
    bevies(&mut archive, STREAM, &disk, SNAPPY, Index::Ends);
    put_map(&mut archive, &[(0, disk.len(), 0, 1)], &["http://afflib.org/2009/aff4#Zero", STREAM]);
    check(archive.bytes(), &disk, "Evimetry 2");

    let rekall = format!(
        "<{STREAM}> a aff4:image ; aff4:compression <https://github.com/google/snappy> ; aff4:chunk_size {CHUNK} ;\n\
         aff4:chunks_per_segment {PER_BEVY} ; aff4:size {} .\n",
        disk.len()
    );
    let mut archive = Archive::new(&rekall);
    bevies(&mut archive, STREAM, &disk, "https://github.com/google/snappy", Index::Begins);
    check(archive.bytes(), &disk, "rekall");
}

#[test]
fn maps_are_laid_over_their_streams() {
    let disk = disk();
    check(mapped(&disk).bytes(), &disk, "a map");

    // All kinds of streams that are nowhere, and gaps of another kind.
    let mut disk = disk;
    const MIB: usize = 1 << 20;
    disk.resize(4 * MIB, 0xab);
    disk[3 * MIB + 1000..3 * MIB + 200_000].fill(0xff);
    let held = disk[..MIB + MIB / 2].to_vec();
    let gap = "aff4:mapGapDefaultStream aff4:SymbolicStreamAB ;";
    let turtle = [image_of(MAP), map_of(disk.len(), gap), stream_of(STREAM, held.len(), SNAPPY)].concat();
    let mut archive = Archive::new(&turtle);
    bevies(&mut archive, STREAM, &held, SNAPPY, Index::Standard);
    let schema = |name: &str| format!("http://aff4.org/Schema#{name}");
    let names = ["UnknownData", "UnreadableData", "FFDevice"].map(schema);
    let names = [STREAM, &names[0], &names[1], &names[2], "aff4://nothing.uses/this"];
    let entries =
        [(3 * MIB + 1000, 199_000, 7, 3), (0, held.len(), 0, 0), (2 * MIB, MIB, MIB - 500, 1), (3 * MIB, 1000, 0, 2)];
    put_map(&mut archive, &entries, &names);
    let opened = open_bytes(archive.bytes(), None).unwrap();
    assert_eq!(opened.notes.len(), 2, "{:?}", opened.notes);
    assert!(
        opened.notes[0].contains("1000 bytes could not be read") && opened.notes[1].contains("1048576 bytes were not")
    );
    // What is lost is no data, and no text in its place either.
    let image = disk_of(opened);
    let lost = 2 * MIB..3 * MIB + 1000;
    for whole in [0..lost.start, lost.end..disk.len()] {
        let mut bytes = vec![0; whole.len()];
        image.read_exact_at(&mut bytes, to_u64(whole.start)).unwrap();
        assert!(bytes == disk[whole.clone()], "{whole:?}");
    }
    for at in [lost.start - 1, lost.start, 3 * MIB - 1, 3 * MIB, lost.end - 1] {
        let e = image.read_exact_at(&mut [0; 2], to_u64(at)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io, "{at}: {e}");
        let range = to_u64(lost.start)..to_u64(lost.end);
        assert!(e.offset().is_some_and(|at| range.contains(&at)), "{at}: {e}");
    }
}

/// All of a disk, with the text that other readers have for what is lost.
fn read_with(disk: &dyn ReadAt, text: &[u8]) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(disk.len()).unwrap()];
    for (n, piece) in all.chunks_mut(512).enumerate() {
        let at = n * 512;
        if disk.read_exact_at(piece, to_u64(at)).is_err() {
            let text = text.iter().copied().cycle().skip(at % (1 << 20) % text.len());
            piece.iter_mut().zip(text).for_each(|(to, from)| *to = from);
        }
    }
    all
}

#[test]
fn stripes_lie_in_volumes_that_are_given() {
    let disk = disk();
    let half = disk.len() / 2;
    let (one, two) = disk.split_at(half);
    let stub = format!("<{OTHER}> a aff4:ImageStream ; aff4:stored <aff4://66666666-6666-6666-6666-666666666666> .\n");
    let turtle = [image_of(MAP), map_of(disk.len(), ""), stream_of(STREAM, one.len(), SNAPPY), stub].concat();
    let mut first = Archive::new(&turtle);
    bevies(&mut first, STREAM, one, SNAPPY, Index::Standard);
    put_map(&mut first, &[(0, half, 0, 0), (half, two.len(), 0, 1)], &[STREAM, OTHER]);
    let mut second = Archive::new(&stream_of(OTHER, two.len(), SNAPPY));
    bevies(&mut second, OTHER, two, SNAPPY, Index::Standard);

    let e = open_bytes(first.bytes(), None).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "aff4.volume"), "{e}");
    assert!(e.is(Condition::MissingMember) && e.to_string().contains(OTHER), "{e}");

    let other = Named::new("other", Arc::new(plain(b"another disk", "").bytes()));
    let named = Named::new("second", Arc::new(second.bytes()));
    let options = Options { with: vec![other.clone(), named.clone()], ..Options::default() };
    let source = disk_of(open(Arc::new(first.bytes()), options).unwrap());
    assert_same(&read_all(&source).unwrap(), &disk, "two stripes");
    assert!(named.is_used() && !other.is_used());
}

fn refused(archive: &Archive) -> (ErrorKind, String) {
    let e = open_bytes(archive.bytes(), Some(Format::Aff4)).and_then(|opened| read_all(&disk_of(opened))).err();
    let e = e.expect("it is refused");
    (e.kind(), e.rule().to_owned())
}

#[test]
fn what_is_wrong_is_named() {
    let disk = disk();
    let good = plain(&disk, SNAPPY);
    let with = |change: &dyn Fn(&mut Archive)| {
        let mut archive = good.clone();
        change(&mut archive);
        refused(&archive)
    };
    let is = |kind: ErrorKind, rule: &str| (kind, rule.to_owned());
    let turtle = |from: &'static str, to: &'static str| {
        with(&move |archive| {
            let text = String::from_utf8(archive.members[2].1.clone()).unwrap();
            assert!(text.contains(from), "{from}");
            archive.members[2].1 = text.replace(from, to).into_bytes();
        })
    };
    let corrupt = |rule: &str| is(ErrorKind::Corrupt, rule);
    assert_eq!(with(&|archive| drop(archive.members.remove(3))), corrupt("aff4.bevy"), "no bevy");
    assert_eq!(with(&|archive| drop(archive.members.remove(4))), corrupt("aff4.bevy"), "no index");
    assert_eq!(with(&|archive| drop(archive.members.remove(2))), corrupt("aff4.turtle"), "no turtle");
    assert_eq!(with(&|archive| archive.members[4].1.truncate(12)), corrupt("aff4.bevy"), "a short index");
    assert_eq!(with(&|archive| archive.members[3].1.truncate(500)), corrupt("aff4.bevy"), "a short bevy");
    assert_eq!(turtle("chunkSize \"4096\"", "chunkSize \"0\""), corrupt("aff4.stream"));
    assert_eq!(turtle("chunkSize \"4096\"", "chunkSize \"4194304\""), is(ErrorKind::LimitExceeded, "aff4.stream"));
    assert_eq!(turtle("chunkSize \"4096\"", "chunkSize \"many\""), corrupt("aff4.turtle"));
    assert_eq!(turtle("aff4:size \"", "aff4:size \"900000000000"), is(ErrorKind::LimitExceeded, "aff4.bevies"));
    assert_eq!(turtle("code.google.com/p/snappy", "example.com"), is(ErrorKind::Unsupported, "aff4.compression"));
    assert_eq!(turtle("a aff4:ImageStream", "a aff4:EncryptedStream"), is(ErrorKind::Unsupported, "aff4.encrypted"));
    assert_eq!(turtle("a aff4:ImageStream", "a aff4:ZipSegment"), is(ErrorKind::Unsupported, "aff4.image"));
    assert_eq!(turtle("dataStream <", "dataStream <x"), corrupt("aff4.image"));
    assert_eq!(
        turtle("<aff4://55555555", "<aff4://7> a aff4:DiskImage; aff4:dataStream <b> . <aff4://5"),
        is(ErrorKind::Unsupported, "aff4.image"),
        "two"
    );
    assert_eq!(turtle(" .\n", " ,\n"), corrupt("aff4.turtle"));

    // Maps: an entry that lies over another, one of no stream, one behind a stream's end; what is wrong with their members.
    let of_map = |entries: &[Entry], names: &[&str]| {
        let turtle = [image_of(MAP), map_of(100, ""), stream_of(STREAM, 100, "")].concat();
        let mut archive = Archive::new(&turtle);
        bevies(&mut archive, STREAM, &[7; 100], "", Index::Standard);
        put_map(&mut archive, entries, names);
        archive
    };
    check(of_map(&[(0, 100, 0, 0)], &[STREAM]).bytes(), &[7; 100], "the good one");
    assert_eq!(refused(&of_map(&[(0, 60, 0, 0), (50, 50, 0, 0)], &[STREAM])), corrupt("aff4.map"));
    assert_eq!(refused(&of_map(&[(0, 100, 0, 1)], &[STREAM])), corrupt("aff4.map"));
    assert_eq!(refused(&of_map(&[(0, 100, 50, 0)], &[STREAM])), corrupt("aff4.map"));
    assert_eq!(
        refused(&of_map(&[(0, 100, 0, 0)], &[MAP])),
        is(ErrorKind::Unsupported, "aff4.volume"),
        "a map of itself"
    );
    let many: Vec<&str> = std::iter::repeat_n(STREAM, 257).collect();
    assert_eq!(refused(&of_map(&[(0, 100, 0, 0)], &many)), is(ErrorKind::LimitExceeded, "aff4.map"));

    // The archive: an end that is not there, a CRC-32, numbers that lead elsewhere.
    let bytes = good.bytes();
    let of = |bytes: Vec<u8>| {
        let e = open_bytes(bytes, Some(Format::Aff4)).err().expect("it is refused");
        (e.kind(), e.rule().to_owned())
    };
    assert_eq!(of(bytes[..bytes.len() - 100].to_vec()), corrupt("aff4.archive"));
    let at = bytes.windows(8).position(|window| window == b"@prefix ").unwrap();
    let changed = |at: usize, by: u8| {
        let mut bytes = bytes.clone();
        bytes[at] ^= by;
        bytes
    };
    assert_eq!(of(changed(at + 1, 1)), corrupt("aff4.archive"), "CRC-32");
    let wide = bytes.len() - 65 - 20 - 56;
    assert_eq!(of(changed(wide + 34, 0xff)), is(ErrorKind::LimitExceeded, "aff4.archive"), "members");
    assert_eq!(of(changed(wide + 50, 1)), corrupt("aff4.archive"), "the directory's place");
}

/// The images of github.com/aff4/ReferenceImages, and aff4-cpp-lite's of memory: what Evimetry wrote.
#[test]
#[ignore = "wants the AFF4 reference images, in the folder that UNLUKS_AFF4_REFERENCE names"]
fn reference_images() {
    let folder = std::env::var_os("UNLUKS_AFF4_REFERENCE").expect("UNLUKS_AFF4_REFERENCE names a folder");
    let file = |name: &str| -> Arc<dyn ReadAt> { Arc::new(FileSource::open(Path::new(&folder).join(name)).unwrap()) };
    let (one, two) = ("AFF4Std/Striped/Base-Linear_1.aff4", "AFF4Std/Striped/Base-Linear_2.aff4");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    // The sums are of hashing_test.py of pyaff4 and tests/image.cc of aff4-cpp-lite.
    for (names, wanted) in [
        (&["AFF4Std/Base-Linear.aff4"][..], "7d3d27f667f95f7ec5b9d32121622c0f4b60b48d"),
        (&["AFF4Std/Base-Linear-AllHashes.aff4"], "7d3d27f667f95f7ec5b9d32121622c0f4b60b48d"),
        (&[one, two], "7d3d27f667f95f7ec5b9d32121622c0f4b60b48d"),
        (&[two, one], "7d3d27f667f95f7ec5b9d32121622c0f4b60b48d"),
        (&["AFF4Std/Base-Linear-ReadError.aff4"], "67e245a640e2784ead30c1ff1a3f8d237b58310f"),
        (&["AFF4Std/Base-Allocated.aff4"], "e8650e89b262cf0b4b73c025312488d5a6317a26"),
        (&["AFF4PreStd/Base-Linear.af4"], "5d5f183ae7355b8dc8938b67aab77c0215c29ab4"),
        (&["AFF4PreStd/Base-Allocated.af4"], "a9f21b04a0a77613a5a34ecdd3af269464984035"),
        (&["Micro7.001.aff4"], "deaa3877443908ac4d01ca410ff1012c8ab0db35"),
        (&["Micro9.001.aff4"], "2b0496d2ec4189f8190a8c3f8bf92f503706cf96"),
    ] {
        let with = names[1..].iter().map(|name| Named::new(*name, file(name))).collect();
        let opened = open(file(names[0]), Options { with, ..Options::default() });
        let opened = opened.unwrap_or_else(|e| panic!("{names:?}: {e}"));
        let recorded = &opened.checks.recorded;
        assert!(!recorded.is_empty() || !names[0].starts_with("AFF4Std"), "{names:?}: no hash");
        for one in recorded.iter().filter(|one| one.algorithm != "blake2b") {
            std::fs::write(&path, read_all(&one.of).unwrap()).unwrap();
            let sum = run(&format!("{}sum", one.algorithm), "coreutils", &[text(&path)]);
            assert!(sum.starts_with(&one.hex), "{names:?}: {sum}, not {}", one.hex);
        }
        let disk = disk_of(opened);
        let lost: &[u8] = if names[0].contains("ReadError") { b"UNREADABLEDATA" } else { b"UNKNOWN" };
        std::fs::write(&path, read_with(&*disk, lost)).unwrap();
        let sum = run("sha1sum", "coreutils", &[text(&path)]);
        assert!(sum.starts_with(wanted), "{names:?}: {sum}");
    }
}

/// What pyaff4 writes, which the interpreter that UNLUKS_PYAFF4 names has.
#[test]
#[ignore = "wants pyaff4, by the Python that UNLUKS_PYAFF4 names"]
fn pyaff4_writes_what_is_read() {
    let python = std::env::var("UNLUKS_PYAFF4").expect("UNLUKS_PYAFF4 names a Python that has pyaff4");
    let bench = Bench::new(disk());
    let (raw, image) = (bench.path("disk.raw"), bench.path("image.aff4"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/format/aff4.py");
    for kind in ["stored", "zlib", "snappy", "lz4", "map", "logical"] {
        run(&python, "python3", &[script, kind, text(&raw), text(&image)]);
        let opened = crate::support::open_path(&image, None).unwrap_or_else(|e| panic!("{kind}: {e}"));
        assert_eq!(opened.format, Format::Aff4, "{kind}");
        assert_same(&read_all(&disk_of(opened)).unwrap(), &bench.disk, kind);
        std::fs::remove_file(&image).unwrap();
    }
}
