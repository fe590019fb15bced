//! From an unlocked image to its plaintext, in memory: what no key may open, whose keys a volume takes, that all ways to
//! read give the same bytes, and that a source that panics makes nobody wait.

#![cfg(feature = "unlock")]
#![allow(clippy::unwrap_used)] // What does not go as it should fails the test.

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use unluks::decrypt::hash::Hashers;
use unluks::decrypt::{Job, Options, Sink};
use unluks::format::{HostMap, Mapping, Qcow2Luks};
use unluks::io::{Pipe, Window};
use unluks::luks::metadata::{Metadata, SegmentKind};
use unluks::luks::unlock::{UnlockOptions, Watch, cost};
use unluks::progress::Progress;
use unluks::volume::VolumeOptions;
use unluks::{Error, ErrorKind, Image, Key, ReadAt, Result, SecretBytes, UnlockedImage, Volume, VolumeKey};

const LUKS1: &[u8] = include_bytes!("../fuzz/images/luks1.img");
const LUKS2: &[u8] = include_bytes!("../fuzz/images/luks2-pbkdf2.img");
/// Bytes of a header copy, and where the data starts.
const COPY: usize = 0x4000;
const DATA: usize = 1 << 20;
/// Bytes of data.
const SIZE: usize = 1 << 20;

/// A LUKS2 image of the passphrase `fuzz`, with changed metadata and the data behind it.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut image = vec![0; DATA + SIZE];
    image[..LUKS2.len()].copy_from_slice(LUKS2);
    let text = LUKS2[4096..COPY].split(|b| *b == 0).next().unwrap();
    let mut metadata: Value = serde_json::from_slice(text).unwrap();
    change(&mut metadata);
    let json = metadata.to_string();
    for copy in image[..2 * COPY].chunks_exact_mut(COPY) {
        copy[4096..].fill(0);
        copy[4096..][..json.len()].copy_from_slice(json.as_bytes());
        copy[448..512].fill(0);
        let sum = Sha256::digest(&*copy);
        copy[448..480].copy_from_slice(&sum);
    }
    let mut block = Sha256::digest(b"data");
    for bytes in image[DATA..].chunks_exact_mut(32) {
        bytes.copy_from_slice(&block);
        block = Sha256::digest(block);
    }
    image
}

/// Segments one behind the other: the bytes of a sector, or 0 for one that is not encrypted, and how many bytes.
fn with_segments(parts: &[(u32, u64)]) -> Vec<u8> {
    changed(|m| {
        let crypt = m["segments"]["0"].take();
        let (mut at, mut encrypted) = (u64::try_from(DATA).unwrap(), Vec::new());
        for (id, (sector, size)) in parts.iter().enumerate() {
            let mut segment = match sector {
                0 => json!({"type": "linear"}),
                _ => crypt.clone(),
            };
            if *sector > 0 {
                segment["sector_size"] = json!(sector);
                encrypted.push(id.to_string());
            }
            segment["offset"] = at.to_string().into();
            segment["size"] = size.to_string().into();
            m["segments"][id.to_string()] = segment;
            at += size;
        }
        m["digests"]["0"]["segments"] = json!(encrypted);
    })
}

fn key(passphrase: &[u8]) -> Key {
    Key::passphrase(SecretBytes::copy_of(passphrase).unwrap())
}

fn foreign() -> UnlockOptions {
    UnlockOptions { allow_foreign_segments: true, ..Default::default() }
}

fn open(image: Vec<u8>) -> Image {
    Image::open(Arc::new(image)).unwrap()
}

fn unlocked(image: Vec<u8>) -> UnlockedImage {
    open(image).unlock(&key(b"fuzz"), &foreign()).unwrap()
}

fn volume_key() -> VolumeKey {
    let unlocked = unlocked(changed(|_| ()));
    VolumeKey::copy_of(unlocked.keys()[&0].expose()).unwrap()
}

#[track_caller]
fn refused(e: Option<Error>, kind: ErrorKind, rule: &str) {
    let e = e.expect("it was taken");
    assert_eq!((e.kind(), e.rule()), (kind, rule), "{e}");
}

/// Whoever waits is told of each derivation: which keyslot, which passphrase of how many, and how long it may take.
#[test]
fn each_derivation_is_told_of_before_it_is_made() {
    let image = open(changed(|_| ()));
    let told = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&told);
    let watch = Watch::new(move |attempt| to.lock().unwrap().push(attempt));
    let options = UnlockOptions { watch: Some(watch), ..Default::default() };
    let two = key(b"wrong").and(key(b"fuzz"));
    let most = cost(image.metadata(), &two, &options).unwrap();
    let unlocked = image.unlock(&two, &options).unwrap();
    assert_eq!(unlocked.opened()[0].candidate, 1);
    let mut told = told.lock().unwrap().clone();
    told.sort_by_key(|attempt| attempt.candidate);
    let said: Vec<_> = told.iter().map(|attempt| (attempt.keyslot, attempt.candidate, attempt.candidates)).collect();
    assert_eq!(said, [(0, 0, 2), (0, 1, 2)]);
    assert_eq!(told.iter().map(|attempt| attempt.time).sum::<Duration>(), most.time);
    assert!(format!("{options:?}").contains("Watch"));
}

/// Where no live segment is encrypted, no key is right: not the wrong one, and not the right one.
#[test]
fn nothing_that_is_wanted_is_not_unlocked() {
    for passphrase in [&b"wrong"[..], b"fuzz", b""] {
        for keyslot in [None, Some(0)] {
            for allow_foreign_segments in [false, true] {
                let image = open(with_segments(&[(0, 4096)]));
                let options = UnlockOptions { keyslot, allow_foreign_segments, ..Default::default() };
                let rule = if allow_foreign_segments { "segments" } else { "segments.0.type" };
                let key = key(passphrase);
                refused(cost(image.metadata(), &key, &options).err(), ErrorKind::Unsupported, rule);
                refused(image.unlock(&key, &options).err(), ErrorKind::Unsupported, rule);
                for volume_key in [volume_key(), VolumeKey::copy_of(&[7; 16]).unwrap()] {
                    let e = image.unlock_with_volume_key(volume_key, &options).err();
                    refused(e, ErrorKind::Unsupported, rule);
                }
            }
        }
    }
}

#[test]
fn segments_that_cryptsetup_does_not_activate_are_taken_on_demand_alone() {
    for (parts, rule) in [
        (&[(0, 4096), (512, 4096)][..], "segments.0.type"),
        (&[(512, 4096), (0, 4096)], "segments.1.type"),
        (&[(512, 4096), (512, 4096)], "segments"),
    ] {
        let image = open(with_segments(parts));
        refused(image.unlock(&key(b"fuzz"), &Default::default()).err(), ErrorKind::Unsupported, rule);
        let e = image.unlock_with_volume_key(volume_key(), &Default::default()).err();
        refused(e, ErrorKind::Unsupported, rule);
        let unlocked = image.unlock(&key(b"fuzz"), &foreign()).unwrap();
        assert_eq!(unlocked.volume(Default::default()).unwrap().len(), 8192);
        assert_eq!(image.unlock(&key(b"wrong"), &foreign()).err().unwrap().kind(), ErrorKind::WrongKey);
    }
}

/// The state of a reencryption is proved by its digest (CVE-2021-4122). A header that only left the state out is refused,
/// also where segments that cryptsetup would not activate are allowed.
#[test]
fn a_reencryption_without_its_keyslot_is_refused() {
    let requirement = changed(|m| m["config"]["requirements"] = json!({"mandatory": ["online-reencrypt-v2"]}));
    let flag = changed(|m| m["segments"]["0"]["flags"] = json!(["in-reencryption"]));
    for (image, rule) in [(requirement, "config.requirements"), (flag, "segments.0.flags")] {
        let Ok(image) = Image::open(Arc::new(image)) else { continue };
        refused(image.unlock(&key(b"fuzz"), &foreign()).err(), ErrorKind::Corrupt, rule);
        refused(image.unlock_with_volume_key(volume_key(), &foreign()).err(), ErrorKind::Corrupt, rule);
    }
}

/// Two images of one key even: the keys were proved for one header, and its segments were checked.
#[test]
fn the_keys_of_another_image_are_refused() {
    let other_uuid = |image: &mut Vec<u8>| {
        for copy in image[..2 * COPY].chunks_exact_mut(COPY) {
            copy[168] = b'f';
            copy[448..512].fill(0);
            let sum = Sha256::digest(&*copy);
            copy[448..480].copy_from_slice(&sum);
        }
    };
    let one = unlocked(changed(|_| ()));
    let mut other = changed(|_| ());
    other_uuid(&mut other);
    let moved = changed(|m| m["segments"]["0"]["offset"] = (DATA + 4096).to_string().into());
    let another_salt = changed(|m| m["keyslots"]["0"]["kdf"]["iterations"] = json!(1001));
    for image in [other, moved, another_salt] {
        let data: Arc<dyn ReadAt> = Arc::new(image.clone());
        let image = open(image);
        let volume = Volume::new(image.metadata(), data, one.unlocked(), VolumeOptions::default());
        refused(volume.err(), ErrorKind::InvalidInput, "unlocked");
    }
    let data: Arc<dyn ReadAt> = Arc::new(changed(|_| ()));
    assert!(Volume::new(one.image().metadata(), data, one.unlocked(), VolumeOptions::default()).is_ok());
}

/// Keeps the plaintext.
struct Kept(Mutex<Vec<u8>>);

impl Sink for Kept {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[offset..][..plaintext.len()].copy_from_slice(plaintext);
        Ok(())
    }
}

fn stream(volume: &Volume, start: u64, len: u64) -> Result<Vec<u8>> {
    let sink = Kept(Mutex::new(vec![0; usize::try_from(len).unwrap()]));
    let job = Job { volume, start, len: Some(len) };
    unluks::decrypt::run(&job, 0, &sink, &Hashers::default(), Options::default(), &Progress::default())?;
    Ok(sink.0.into_inner().unwrap())
}

#[test]
fn a_part_that_starts_inside_a_sector_is_refused() {
    for parts in [&[(0, 512), (4096, 8192)][..], &[(512, 1536), (1024, 4096)], &[(2048, 2048), (4096, 4096)]] {
        let e = unlocked(with_segments(parts)).volume(Default::default()).err();
        refused(e, ErrorKind::Unsupported, "segments.1.sector_size");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the parts are: reading at any place, the stream, and the two halves of a read give the same bytes, or the
    /// volume is refused because a part starts inside a sector.
    #[test]
    fn all_ways_to_read_give_the_same_bytes(
        parts in prop::collection::vec((prop::sample::select(vec![0u32, 512, 1024, 2048, 4096]), 1u64..40), 2..5),
        ranges in prop::collection::vec((any::<u32>(), any::<u32>()), 1..6),
    ) {
        // Not all of them can be without a key.
        let parts: Vec<_> = std::iter::once((4096, 12_288))
            .chain(parts.into_iter().map(|(sector, n)| (sector, n * u64::from(sector.max(512)))))
            .collect();
        let starts = parts.iter().scan(0, |at, (sector, size)| { *at += size; Some((*at - size, u64::from(*sector))) });
        let aligned = starts.into_iter().all(|(at, sector)| at % sector.max(512) == 0);
        let volume = match unlocked(with_segments(&parts)).volume(Default::default()) {
            Ok(volume) => volume,
            Err(e) => {
                prop_assert!(!aligned && e.kind() == ErrorKind::Unsupported, "{}", e);
                return Ok(());
            }
        };
        prop_assert!(aligned);
        let len = volume.len();
        prop_assert_eq!(len, parts.iter().map(|(_, size)| size).sum::<u64>());
        let read = |at: u64, n: u64| {
            let mut buf = vec![0; usize::try_from(n).unwrap()];
            volume.read_exact_at(&mut buf, at).unwrap();
            buf
        };
        for (a, b) in ranges {
            let start = u64::from(a) % len;
            let n = u64::from(b) % (len - start) + 1;
            let wanted = read(start, n);
            prop_assert!(stream(&volume, start, n).unwrap() == wanted, "{} bytes from {}", n, start);
            for (at, byte) in (start..).zip(wanted.iter().take(9)) {
                prop_assert_eq!(read(at, 1)[0], *byte);
            }
            // The halves take whole sectors, and say so; what is whole for one part may not be for the next.
            let halves = |at: u64, n: u64| {
                let mut buf = vec![0; usize::try_from(n).unwrap()];
                volume.fetch(&mut buf, at)?;
                volume.decipher(&mut buf, at)?;
                Result::Ok(buf)
            };
            match halves(start, n) {
                Ok(buf) => prop_assert!(buf == wanted),
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::InvalidInput),
            }
            let sector = u64::from(volume.sector_size());
            let (from, to) = (start / sector * sector, (start + n).next_multiple_of(sector).min(len));
            prop_assert!(halves(from, to - from).unwrap() == read(from, to - from));
            prop_assert_eq!(halves(from, len - from + sector).unwrap_err().kind(), ErrorKind::Io);
        }
    }
}

/// Bytes of which one range panics when it is read.
struct Panics {
    bytes: Vec<u8>,
    from: u64,
}

impl ReadAt for Panics {
    fn len(&self) -> u64 {
        self.bytes.len().try_into().unwrap()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + u64::try_from(buf.len()).unwrap();
        assert!(end <= self.from, "as the test wants it");
        self.bytes.read_exact_at(buf, offset)
    }
}

/// What `work` gives, where it comes to its end.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, receive) = channel();
    std::thread::spawn(move || send.send(work()));
    receive.recv_timeout(Duration::from_secs(60)).expect("it did not come to its end")
}

/// Takes chunks in order, so that each worker waits for the one before it.
struct InOrder;

impl Sink for InOrder {
    fn in_order(&self) -> bool {
        true
    }

    fn write(&self, _: &[u8], offset: u64) -> Result<()> {
        assert!(offset < 512 << 10, "as the test wants it");
        Ok(())
    }
}

#[test]
fn a_worker_that_panics_ends_the_stream() {
    for threads in [1, 2, 8] {
        // In the source, and in the sink.
        for from in [DATA + (700 << 10), DATA + SIZE] {
            let e = within_a_minute(move || {
                let bytes = changed(|_| ());
                let data = Panics { bytes: bytes.clone(), from: from.try_into().unwrap() };
                let image = Image::open_detached(Arc::new(bytes), Arc::new(data)).unwrap();
                let volume =
                    image.unlock(&key(b"fuzz"), &Default::default()).unwrap().volume(Default::default()).unwrap();
                let job = Job { volume: &volume, start: 0, len: None };
                let options = Options { threads: std::num::NonZeroUsize::new(threads), ..Default::default() };
                let mut lanes = Hashers::default();
                lanes.plaintext(unluks::decrypt::hash::Algorithm::Sha256, None);
                unluks::decrypt::run(&job, 0, &InOrder, &lanes, options, &Progress::default()).err()
            });
            refused(e, ErrorKind::Io, "panic");
        }
    }
}

#[test]
fn an_unlock_that_panics_ends() {
    // Several keyslots, so that several threads wait for each other.
    let bytes = changed(|m| {
        let slot = m["keyslots"]["0"].clone();
        m["keyslots"]["1"] = slot.clone();
        m["keyslots"]["1"]["area"]["offset"] = (DATA - 65_536).to_string().into();
        m["config"]["keyslots_size"] = (DATA - 2 * COPY).to_string().into();
        m["digests"]["0"]["keyslots"] = json!(["0", "1"]);
    });
    let e = within_a_minute(move || {
        let header = Panics { bytes: bytes.clone(), from: (2 * COPY).try_into().unwrap() };
        let image = Image::open_detached(Arc::new(header), Arc::new(bytes)).unwrap();
        image.unlock(&key(b"wrong").and(key(b"fuzz")), &Default::default()).err()
    });
    refused(e, ErrorKind::Io, "panic");
}

/// All clusters are holes.
struct Holes;

impl HostMap for Holes {
    fn virtual_size(&self) -> u64 {
        4096
    }

    fn file(&self) -> &dyn ReadAt {
        const NOTHING: &Vec<u8> = &Vec::new();
        NOTHING
    }

    fn map(&self, guest: u64, _: u64) -> Result<Mapping> {
        Ok(Mapping::Zero { len: 4096 - guest })
    }
}

#[test]
fn the_header_in_a_qcow2_image_is_luks1_as_qemu_writes_it() {
    let clusters = |header: Vec<u8>| {
        let luks = Qcow2Luks { header: Arc::new(header), clusters: Arc::new(Holes) };
        Image::open_qcow2(&luks, Arc::new(Vec::<u8>::new())).unwrap()
    };
    let luks2 = clusters(changed(|_| ()));
    refused(luks2.unlock(&key(b"fuzz"), &Default::default()).err(), ErrorKind::Unsupported, "qcow2.luks");
    let e = luks2.unlock_with_volume_key(volume_key(), &Default::default()).err();
    refused(e, ErrorKind::Unsupported, "qcow2.luks");
    // Nor where the library's own parts are put together by hand.
    let keys = unlocked(changed(|_| ()));
    let e = Volume::of_clusters(keys.image().metadata(), Arc::new(Holes), keys.unlocked()).err();
    refused(e, ErrorKind::Unsupported, "qcow2.luks");

    let mut luks1 = LUKS1.to_vec();
    luks1.resize(DATA, 0);
    let volume = clusters(luks1.clone()).unlock(&key(b"fuzz"), &Default::default()).unwrap().volume(Default::default());
    assert_eq!(volume.unwrap().len(), 4096);
    let changes: [fn(&mut Metadata); 4] = [
        |m| {
            let again = m.segments[0].clone();
            m.segments.push(again);
        },
        |m| crypt(m).sector_size = 4096,
        |m| crypt(m).iv_tweak = 8,
        |m| m.segments[0].kind = SegmentKind::Linear,
    ];
    for change in changes {
        let mut metadata = unluks::open(&luks1).unwrap();
        assert!(Volume::check_clusters(&metadata).is_ok());
        change(&mut metadata);
        refused(Volume::check_clusters(&metadata).err(), ErrorKind::Corrupt, "segments");
    }
}

fn crypt(metadata: &mut Metadata) -> &mut unluks::luks::metadata::CryptSegment {
    match &mut metadata.segments[0].kind {
        SegmentKind::Crypt(c) => c,
        _ => unreachable!("a LUKS1 header has a crypt segment"),
    }
}

fn cut(image: Vec<u8>, len: usize, options: VolumeOptions) -> Result<Volume> {
    let whole: Arc<dyn ReadAt> = Arc::new(image);
    let image = Image::open(Arc::new(Window::new(whole, 0, Some(len.try_into().unwrap())).unwrap())).unwrap();
    image.unlock(&key(b"fuzz"), &foreign()).unwrap().volume(options)
}

/// The bytes that are missing are counted once, to the end of the last segment; a segment without a size may have had more.
#[test]
fn what_is_missing_is_all_that_is_missing() {
    let truncated = VolumeOptions { allow_truncated: true, ..Default::default() };
    let dynamic = || changed(|_| ());
    let fixed = || with_segments(&[(4096, 409_600)]);
    let three = || with_segments(&[(4096, 40_960), (512, 51_200), (4096, 4096 * 100)]);
    let (exactly, at_least) = (false, true);
    for (image, there, bytes, at_least, left) in [
        (dynamic(), 4096 + 100, 3996, at_least, 4096),
        (dynamic(), 100, 3996, at_least, 0),
        (dynamic(), 0, 0, at_least, 0),
        (fixed(), 4096 + 100, 409_600 - 4196, exactly, 4096),
        (fixed(), 0, 409_600, exactly, 0),
        (three(), 40_960 + 513, 51_200 - 513 + 409_600, exactly, 40_960 + 512),
        (three(), 1, 40_959 + 51_200 + 409_600, exactly, 0),
    ] {
        let says = match (there, bytes) {
            (0, 0) => "at least 0 bytes".to_owned(),
            _ => format!("{}{bytes} bytes", if at_least { "at least " } else { "" }),
        };
        let e = cut(image.clone(), DATA + there, VolumeOptions::default()).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "truncated"), "{e}");
        if bytes > 0 {
            assert!(e.to_string().contains(&says), "{says}: {e}");
        }
        let volume = cut(image, DATA + there, truncated).unwrap();
        assert_eq!(volume.len(), left);
        if bytes > 0 {
            let missing = volume.missing().map(|missing| (missing.bytes, missing.at_least));
            assert_eq!(missing, Some((bytes, at_least)));
        }
    }
    assert_eq!(cut(fixed(), DATA + 409_600, VolumeOptions::default()).unwrap().missing(), None);
}

#[test]
fn a_header_without_data_is_no_empty_volume() {
    let truncated = VolumeOptions { allow_truncated: true, ..Default::default() };
    let header_size = LUKS2.len() - LUKS2.len() % 4096 + 4096;
    for (len, says) in [
        (DATA, "it was cut off at the start of its data"),
        (DATA - 1, "at least 1 bytes are missing"),
        (0x8000 + 65_536, "it is a header backup"),
        (header_size, "bytes are missing"),
    ] {
        let e = cut(changed(|_| ()), len, VolumeOptions::default()).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "truncated"), "{len}: {e}");
        assert!(e.to_string().contains(says), "{len}: {e}");
        assert_eq!(cut(changed(|_| ()), len, truncated).unwrap().len(), 0);
    }
    // A data file of its own without a byte.
    let header = changed(|m| m["segments"]["0"]["offset"] = "0".into());
    let image = Image::open_detached(Arc::new(header.clone()), Arc::new(Vec::<u8>::new())).unwrap();
    let empty = image.unlock(&key(b"fuzz"), &Default::default()).unwrap();
    refused(empty.volume(Default::default()).err(), ErrorKind::Corrupt, "truncated");
    assert_eq!(empty.volume(truncated).unwrap().len(), 0);
    // A detached header alone: it would decrypt itself.
    let alone = unlocked(header);
    for options in [VolumeOptions::default(), truncated] {
        refused(alone.volume(options).err(), ErrorKind::Corrupt, "data");
    }
}

#[test]
fn a_pipe_that_ends_where_the_data_starts_is_cut_off() {
    let bytes = changed(|_| ());
    let run = |len: usize, allow_truncated: bool| {
        let pipe = Pipe::new(Box::new(std::io::Cursor::new(bytes[..len].to_vec())));
        let image = Image::open(Arc::new(pipe)).unwrap();
        let options = VolumeOptions { allow_truncated, ..Default::default() };
        let volume = image.unlock(&key(b"fuzz"), &Default::default()).unwrap().volume(options).unwrap();
        let job = Job { volume: &volume, start: 0, len: None };
        let options = Options { allow_truncated, ..Default::default() };
        unluks::decrypt::run(&job, 0, &unluks::decrypt::Discard, &Hashers::default(), options, &Progress::default())
    };
    for len in [DATA, DATA - 512, DATA - 1, DATA + 1] {
        refused(run(len, false).err(), ErrorKind::Corrupt, "truncated");
        assert_eq!(run(len, true).unwrap(), 0, "{len}");
    }
    assert_eq!(run(DATA + 4096, false).unwrap(), 4096);
}
