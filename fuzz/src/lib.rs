//! The bodies of the fuzz targets.
//!
//! They need no libFuzzer: `fuzz_targets/` wraps each of them for cargo-fuzz, and `cli/tests/program/fuzz_corpus.rs` runs
//! them over the committed corpus as ordinary tests. README.md says what each covers. Each takes any bytes, must not panic, and says whether they were accepted.

// A panic is how a fuzz target reports what it found.
#![allow(clippy::unwrap_used, clippy::as_conversions)]

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use unluks::crypto::af;
use unluks::crypto::cipher::SectorCipher;
use unluks::crypto::hash::Hash;
use unluks::crypto::spec::CipherSpec;
use unluks::key::{Step, read_first_line, read_key_file};
use unluks::luks::data::DataFile;
use unluks::luks::findings::findings;
use unluks::luks::metadata::{KeyslotKind, Role, SegmentKind, Version};
use unluks::luks::unlock::UnlockOptions;
use unluks::luks::v1::{self, HEADER_LEN};
use unluks::luks::v2::{BinaryHeader, HDR_BIN_LEN};
use unluks::luks::{MAGIC, MAGIC_SECONDARY};
use unluks::volume::VolumeOptions;
use unluks::{Error, ErrorKind, Image, Key, Limits, Metadata, ReadAt, Result, SecretBytes, Volume, VolumeKey};

mod cinder;
mod containers;
mod inside;
mod integrity;
mod lvm;
mod md;
mod reader;
mod server;

/// A body, which says whether its input was accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target by the name of its directory in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("luks1", luks1),
    ("luks2_header", luks2_header),
    ("json", json),
    ("metadata", metadata),
    ("af", af),
    ("cipher_spec", cipher_spec),
    ("key_guess", key_guess),
    ("unlock", unlock),
    ("integrity", integrity::integrity),
    ("qcow2", containers::qcow2),
    ("vhd", containers::vhd),
    ("vhdx", containers::vhdx),
    ("vmdk", containers::vmdk),
    ("ewf", containers::ewf),
    ("vdi", containers::vdi),
    ("parallels", containers::parallels),
    ("qed", containers::qed),
    ("qcow", containers::qcow),
    ("android", containers::android),
    ("rbd", containers::rbd),
    ("aff4", containers::aff4),
    ("sets", containers::sets),
    ("cinder", cinder::cinder),
    ("partitions", containers::partitions),
    ("md", md::md),
    ("lvm", lvm::lvm),
    ("inside", inside::inside),
    ("nbd", server::nbd),
    ("reader", reader::reader),
    ("rescue_map", rescue_map),
    ("backup", backup),
];

/// What opens all images in `images/`.
const PASSPHRASE: &[u8] = b"fuzz";
/// Bytes of the fields at the start of a LUKS2 binary header; what follows is padding.
const FIELDS_LEN: usize = 512;

/// The legal places of a LUKS2 secondary header.
fn secondary_offsets() -> impl DoubleEndedIterator<Item = usize> {
    (0..9).map(|n| 0x4000usize << n)
}

/// A source of `len` bytes that starts with `head`, and is zero behind it: so that inputs can stay small.
struct Head {
    head: Vec<u8>,
    len: u64,
}

impl ReadAt for Head {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(Error::new(ErrorKind::Io, "beyond the end of the source").at(offset));
        }
        let rest = usize::try_from(offset).ok().and_then(|o| self.head.get(o..)).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        buf[n..].fill(0);
        Ok(())
    }
}

/// One line, of a bounded length, without anything that a terminal might obey.
fn check_line(text: &str) {
    let harmful = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(harmful), "{text:?}");
    assert!(text.len() <= 16 << 10, "{} bytes of message", text.len());
}

fn check_error(e: &Error) {
    check_line(&e.to_string());
    check_line(&format!("{e:?}"));
    check_line(e.rule());
}

/// The result of `f`, which must be the same twice; `None` where it is an error.
fn same_twice<T: Debug>(f: impl Fn() -> Result<T>) -> Option<T> {
    let (first, second) = (f(), f());
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    first.inspect_err(check_error).ok()
}

/// The rules that all metadata obeys, whatever bytes it came from.
fn check_metadata(m: &Metadata, source_len: u64) {
    assert!(m.header_size <= source_len);
    let area_start = match m.version {
        Version::V1 => 1024,
        Version::V2 => 2 * m.metadata_size,
    };
    let mut areas: Vec<_> = m.keyslots.values().map(|k| k.area).collect();
    areas.sort_by_key(|a| a.offset);
    for a in &areas {
        assert!(a.size > 0 && a.offset >= area_start && a.offset.checked_add(a.size).unwrap() <= m.header_size);
    }
    assert!(areas.windows(2).all(|p| p[0].offset + p[0].size <= p[1].offset), "{areas:?}");
    for (id, k) in &m.keyslots {
        let proofs = m.digests.values().filter(|d| d.keyslots.contains(id)).count();
        assert!(proofs == 1 || !matches!(k.kind, KeyslotKind::Luks2(_)));
    }
    check_segments(m);
    for d in m.digests.values() {
        assert!(d.keyslots.iter().all(|k| m.keyslots.contains_key(k)));
        assert!(d.segments.iter().all(|s| m.segments.get(*s as usize).is_some()));
    }
    for t in m.tokens.values() {
        assert!(t.keyslots.iter().all(|k| m.keyslots.contains_key(k)));
    }
    assert_eq!(m.copies.iter().filter(|c| c.used).count(), 1);
    assert!(m.used_copy().unwrap().error.is_none());
    m.copies.iter().filter_map(|c| c.error.as_ref()).for_each(check_error);
    for len in [None, Some(0), Some(source_len), Some(u64::MAX)] {
        for file in [None, Some(DataFile { len, detached: false }), Some(DataFile { len, detached: true })] {
            for f in findings(m, file) {
                check_line(&f.message);
                check_line(&f.about);
            }
        }
        let _ = m.plaintext_size(len.unwrap_or(1));
    }
}

fn check_segments(m: &Metadata) {
    let live: Vec<_> = m.live_segments().map(|(_, s)| s).collect();
    assert!(!live.is_empty() && !m.segments[0].is_backup());
    assert!(m.segments[live.len()..].iter().all(|s| s.is_backup()), "backup segments come last");
    assert!(live.iter().rev().skip(1).all(|s| s.size.is_some()), "only the last live segment is dynamic");
    for (id, s) in (0u32..).zip(&m.segments) {
        assert!(s.offset % 512 == 0 && s.size.is_none_or(|n| n > 0 && n % 512 == 0));
        if let SegmentKind::Crypt(c) = &s.kind {
            assert!(c.sector_size > 0 && c.sector_size % 512 == 0);
            assert!(s.size.is_none_or(|n| n % u64::from(c.sector_size) == 0));
            assert!(m.segment_digest(id).is_some());
        }
    }
    let mut ends: Vec<_> =
        live.iter().map(|s| (s.offset, s.size.map_or(u128::MAX, |n| u128::from(s.offset) + u128::from(n)))).collect();
    ends.sort_unstable();
    assert!(ends.windows(2).all(|p| p[0].1 <= u128::from(p[1].0)), "{ends:?}");
    let data = m.data_offset();
    assert!(data == 0 || m.version == Version::V1 || data >= m.header_size);
}

/// Opens an image twice and checks what comes out.
fn open(source: &Head) -> bool {
    let metadata = same_twice(|| unluks::open(source));
    metadata.inspect(|m| check_metadata(m, source.len)).is_some()
}

/// `data` with zeroes behind it, or cut, to `N` bytes; and what was cut off.
fn padded<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let n = data.len().min(N);
    let mut bytes = [0; N];
    bytes[..n].copy_from_slice(&data[..n]);
    (bytes, &data[n..])
}

/// A LUKS1 header of 592 bytes, and perhaps the source's length as a big-endian u64.
pub fn luks1(data: &[u8]) -> bool {
    let (bytes, rest) = padded::<HEADER_LEN>(data);
    let source_len = match rest.first_chunk() {
        Some(len) => u64::from_be_bytes(*len),
        None => 4 << 20,
    };
    let parsed = same_twice(|| v1::parse(&bytes, source_len));
    let source = Head { head: bytes.to_vec(), len: source_len };
    if source_len >= HEADER_LEN as u64 && bytes[..8] == *b"LUKS\xba\xbe\0\x01" {
        assert_eq!(unluks::open(&source).is_ok(), parsed.is_some());
    } else {
        open(&source);
    }
    parsed.inspect(|m| check_metadata(m, source_len)).is_some()
}

/// The text in a field of the binary header, which a NUL ends.
fn field_text(field: &[u8]) -> String {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// Puts the right checksum into the header copy that `copy` is. Leaves it as it is where the hash is not known.
fn fix_checksum(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let Ok(hash) = Hash::from_name(&field_text(&copy[72..104])) else { return };
    let digest = hash.digest(&[copy]);
    copy[448..448 + digest.len()].copy_from_slice(&digest);
}

/// A byte that says which copy it is and where it lies, a LUKS2 binary header of 4096 bytes, and its JSON area.
pub fn luks2_header(data: &[u8]) -> bool {
    let Some((which, data)) = data.split_first() else { return false };
    let (role, offset) = match which.checked_sub(1) {
        None => (Role::Primary, 0),
        Some(n) => (Role::Secondary, 0x4000 << (n % 9)),
    };
    let (bytes, json_area) = padded::<HDR_BIN_LEN>(data);
    let verify = |bytes: &[u8; HDR_BIN_LEN], json_area: &[u8]| -> Result<()> {
        BinaryHeader::parse(bytes, role, offset)?.verify(json_area)
    };
    if BinaryHeader::parse(&bytes, role, offset).is_err() {
        return same_twice(|| verify(&bytes, json_area)).is_some();
    }
    same_twice(|| verify(&bytes, json_area));
    let mut whole = [&bytes[..], json_area].concat();
    fix_checksum(&mut whole);
    let fixed = whole.first_chunk().unwrap();
    let good = same_twice(|| verify(fixed, json_area)).is_some();
    assert_eq!(good, Hash::from_name(&field_text(&bytes[72..104])).is_ok(), "a right checksum was not taken");
    // No changed byte passes: one in the JSON area, one in the header's padding.
    let mut changed = json_area.to_vec();
    if let Some(last) = changed.last_mut() {
        *last ^= 1;
        assert!(verify(fixed, &changed).is_err());
    }
    let mut padding = *fixed;
    padding[HDR_BIN_LEN - 1] ^= 1;
    assert!(verify(&padding, json_area).is_err());
    good
}

/// The JSON area's text, in a primary header that is right.
pub fn json(data: &[u8]) -> bool {
    let Some(hdr_size) = secondary_offsets().find(|size| size - HDR_BIN_LEN > data.len()) else { return false };
    let mut copy = vec![0; hdr_size];
    copy[..6].copy_from_slice(&MAGIC);
    copy[7] = 2;
    copy[8..16].copy_from_slice(&(hdr_size as u64).to_be_bytes());
    copy[72..78].copy_from_slice(b"sha256");
    copy[HDR_BIN_LEN..][..data.len()].copy_from_slice(data);
    fix_checksum(&mut copy);
    open(&Head { head: copy, len: 1 << 40 })
}

/// Puts the right checksums into all LUKS2 header copies of an image.
pub fn fix_image(image: &mut Vec<u8>) {
    // The first copy last: where it is large, it covers the places of others.
    for offset in secondary_offsets().rev().chain([0]) {
        let magic = if offset == 0 { MAGIC } else { MAGIC_SECONDARY };
        let Some(fields) = image.get(offset..).and_then(|i| i.first_chunk::<16>()) else { continue };
        let size = u64::from_be_bytes(*fields.last_chunk().unwrap());
        let Some(size) = secondary_offsets().find(|s| *s as u64 == size).filter(|_| fields[..6] == magic) else {
            continue;
        };
        image.resize(image.len().max(offset + size), 0);
        fix_checksum(&mut image[offset..offset + size]);
    }
}

/// An image with both header copies; the zeroes at its end may be left out.
pub fn metadata(data: &[u8]) -> bool {
    let mut image = data.to_vec();
    fix_image(&mut image);
    let len = image.len() as u64;
    let cut = Head { head: image, len };
    let good_cut = open(&cut);
    let good = open(&Head { head: cut.head, len: 1 << 30 });
    assert!(good || !good_cut, "a longer source cannot be worse");
    good
}

/// A hash, a key's length and stripes: the stripes must merge to what they were split from.
pub fn af(data: &[u8]) -> bool {
    const HASHES: [&str; 8] =
        ["sha1", "sha224", "sha256", "sha512", "ripemd160", "whirlpool", "blake2s-128", "sha3-384"];
    let Some(([hash, high, low, more], material)) = data.split_first_chunk() else { return false };
    let hash = Hash::from_name(HASHES[usize::from(*hash) % HASHES.len()]).unwrap();
    let len = usize::from(u16::from_be_bytes([*high, *low])) % 520;
    let mut key = SecretBytes::zeroed(len).unwrap();
    let merge = |material: &[u8], stripes: u32, key: &mut SecretBytes| af::merge(hash, material, stripes, key);
    let count = material.len().checked_div(len).unwrap_or(0);
    let wrong = merge(material, count as u32 + 1 + u32::from(*more), &mut key);
    check_error(&wrong.unwrap_err());
    if count == 0 {
        return false;
    }
    let stripes = &material[..count * len];
    merge(stripes, count as u32, &mut key).unwrap();
    // Any stripes but the last may be chosen freely; the last one makes the key.
    let wanted: Vec<u8> = (0..len).map(|n| *more ^ n as u8).collect();
    let (free, last) = stripes.split_at((count - 1) * len);
    let new_last: Vec<u8> = last.iter().zip(key.expose()).zip(&wanted).map(|((l, k), w)| l ^ k ^ w).collect();
    merge(&[free, &new_last].concat(), count as u32, &mut key).unwrap();
    assert_eq!(key.expose(), wanted);
    let mut diffused = vec![0; len];
    for stripe in free.chunks_exact(len) {
        diffused.iter_mut().zip(stripe).for_each(|(d, s)| *d ^= s);
        for (n, block) in (0u32..).zip(diffused.chunks_mut(hash.output_len())) {
            let digest = hash.digest(&[&n.to_be_bytes(), block]);
            block.copy_from_slice(&digest[..block.len()]);
        }
    }
    diffused.iter_mut().zip(&new_last).for_each(|(d, s)| *d ^= s);
    assert_eq!(diffused, wanted, "not as the paper has it");
    true
}

/// A cipher's name.
pub fn cipher_spec(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let (name, mode) = text.split_once('-').unwrap_or((text, ""));
    same_twice(|| CipherSpec::from_luks1(name, mode));
    let Some(spec) = same_twice(|| CipherSpec::parse(text)) else { return false };
    assert!(spec.is_null() || !text.starts_with("cipher_null"), "{text} must not pass for encrypted");
    check_line(&spec.to_string());
    let known = spec.check_known();
    match &known {
        Ok(()) => assert_eq!(CipherSpec::parse(&spec.to_string()).unwrap(), spec),
        Err(e) => check_error(e),
    }
    let mut works = false;
    for len in [0, 1, 8, 16, 20, 24, 32, 48, 64, 80] {
        let key: Vec<u8> = (0..len).collect();
        let cipher = match SectorCipher::new(&spec, &key, 512) {
            Ok(cipher) => cipher,
            Err(e) => {
                check_error(&e);
                continue;
            }
        };
        works = true;
        let (mut at_once, mut one_by_one) = ([0u8; 1024], [0u8; 1024]);
        cipher.decrypt(&mut at_once, u64::MAX).unwrap();
        cipher.decrypt(&mut one_by_one[..512], u64::MAX).unwrap();
        cipher.decrypt(&mut one_by_one[512..], 0).unwrap();
        assert!(at_once == one_by_one, "{text}: a run of sectors is not its sectors");
        assert_eq!(at_once == [0; 1024], spec.is_null(), "{text}");
        check_error(&cipher.decrypt(&mut [0; 511], 0).unwrap_err());
    }
    assert!(!works || known.is_ok());
    works
}

/// A saved key, of which nobody knows how it was saved.
pub fn key_guess(data: &[u8]) -> bool {
    let saved = SecretBytes::copy_of(data).unwrap();
    let key = Key::guess(&saved).unwrap();
    let candidates = key.candidates();
    assert_eq!(candidates[0].passphrase.expose(), data);
    assert!(candidates.len() <= unluks::limits::KEY_FORMS_MAX);
    for (n, c) in candidates.iter().enumerate() {
        assert!(candidates[..n].iter().all(|d| d.passphrase.expose() != c.passphrase.expose()), "tried twice");
    }
    let _ = unluks::key::Seen::of(&saved);
    let payload = Key::barbican(&saved).unwrap();
    let hex: String = data.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(payload.candidates()[0].passphrase.expose(), hex.as_bytes());

    assert_eq!(read_key_file(&mut &data[..], 0, None).unwrap().expose(), data);
    let (from, size) = (data.len() / 3, data.len() / 2);
    assert_eq!(read_key_file(&mut &data[..], from as u64, Some(size)).unwrap().expose(), &data[from..from + size]);
    check_error(&read_key_file(&mut &data[..], data.len() as u64 + 1, None).err().unwrap());
    match read_first_line(&mut &data[..]) {
        Ok(line) => assert_eq!(line.expose(), data.split(|b| *b == b'\n').next().unwrap()),
        Err(e) => check_error(&e),
    }
    // The others are forms of any bytes or of any text.
    let tells = |step: &Step| {
        use Step::{Base64Encoded, Base64UrlEncoded, Hexlified, Qnap, ToUtf16, UpperHexlified, WithNewline};
        !matches!(step, Hexlified | UpperHexlified | Base64Encoded | Base64UrlEncoded | WithNewline | Qnap | ToUtf16)
    };
    candidates.iter().any(|c| c.rule.steps().first().is_some_and(tells))
}

/// What a run may cost: so little that each is quick.
fn small_limits() -> Limits {
    Limits { kdf_memory: 1 << 20, kdf_time: Duration::from_millis(50) }
}

/// A byte that chooses an image of `images/`, and what its header is replaced with: for LUKS1 up to 592 bytes, for LUKS2
/// the 512 bytes of fields and the JSON text. With the byte alone the image is as it was.
pub fn unlock(data: &[u8]) -> bool {
    let Some((which, header)) = data.split_first() else { return false };
    let base: &[u8] = match which % 3 {
        0 => include_bytes!("../images/luks1.img"),
        1 => include_bytes!("../images/luks2-pbkdf2.img"),
        _ => include_bytes!("../images/luks2-argon2id.img"),
    };
    let mut image = base.to_vec();
    if which % 3 == 0 {
        let n = header.len().min(HEADER_LEN);
        image[..n].copy_from_slice(&header[..n]);
    } else if let Some((fields, json)) = header.split_at_checked(FIELDS_LEN) {
        image[..FIELDS_LEN].copy_from_slice(fields);
        // The secondary copy would be the one that is taken wherever the primary is broken.
        image[HDR_BIN_LEN..0x8000].fill(0);
        let n = json.len().min(0x4000 - HDR_BIN_LEN);
        image[HDR_BIN_LEN..][..n].copy_from_slice(&json[..n]);
        fix_image(&mut image);
    }
    let image = Image::open(Arc::new(Head { head: image, len: 16 << 20 }));
    let Ok(image) = image.inspect_err(check_error) else { return false };
    let options = UnlockOptions { limits: small_limits(), allow_foreign_segments: true, ..Default::default() };
    unlock_with(&image, PASSPHRASE, &options) | unlock_with(&image, b"", &options)
}

fn unlock_with(image: &Image, passphrase: &[u8], options: &UnlockOptions) -> bool {
    let key = Key::passphrase(SecretBytes::copy_of(passphrase).unwrap());
    let unlocked = match image.unlock(&key, options) {
        Ok(unlocked) => unlocked,
        Err(e) => {
            check_error(&e);
            return false;
        }
    };
    let keys = unlocked.keys();
    let expose = |key: &VolumeKey| key.expose().to_vec();
    // How long a derivation takes is measured where it may be long: an unlock near the limit may go either way.
    match image.unlock(&key, options) {
        Ok(again) => assert!(again.keys().values().map(expose).eq(keys.values().map(expose))),
        Err(e) => assert_eq!(e.kind(), ErrorKind::LimitExceeded, "{e}"),
    }
    if keys.len() == 1 {
        let key = keys.values().next().unwrap();
        match image.unlock_with_volume_key(VolumeKey::copy_of(key.expose()).unwrap(), options) {
            Ok(same) => assert!(same.keys().keys().eq(keys.keys())),
            // A header whose cipher is found by trying tells it with a passphrase only.
            Err(e) => assert!(e.kind() == ErrorKind::LimitExceeded || e.rule() == "cipher-name", "{e}"),
        }
    }
    for allow_truncated in [false, true] {
        match unlocked.volume(VolumeOptions { allow_truncated, ..Default::default() }) {
            Ok(volume) => read_volume(&volume),
            Err(e) => check_error(&e),
        }
    }
    true
}

/// Bytes read at any position are those of one long read, and none lie behind the end.
fn read_volume(volume: &Volume) {
    let len = volume.len();
    let n = len.min(20_000) as usize;
    let start = (len - n as u64).min(1 << 20);
    let read = |from: usize, to: usize| {
        let mut buf = vec![0xaa; to - from];
        volume.read_exact_at(&mut buf, start + from as u64).unwrap();
        buf
    };
    let whole = read(0, n);
    for (from, to) in
        [(0, 1), (1, 512), (511, 513), (513, 4096), (4095, 8193), (5000, 5000), (8192, 20_000), (19_999, 20_000)]
    {
        let (from, to) = (from.min(n), to.min(n));
        assert!(read(from, to) == whole[from..to], "bytes {from} to {to} differ");
    }
    for (offset, wanted) in
        [(len, 1), (len.saturating_sub(1), 2), (u64::MAX, 1), (u64::MAX, 4096), (len / 2, n + n + 1)]
    {
        if offset.checked_add(wanted as u64).is_none_or(|end| end > len) {
            check_error(&volume.read_exact_at(&mut vec![0; wanted], offset).unwrap_err());
        }
    }
    assert!(volume.read_exact_at(&mut [], len).is_ok());
}

/// A mapfile of ddrescue.
pub fn rescue_map(data: &[u8]) -> bool {
    use unluks::io::{RescueMap, Rescued};
    let map = match RescueMap::parse(data) {
        Ok(map) => map,
        Err(e) => {
            check_error(&e);
            return false;
        }
    };
    // What it says of the first bytes is said again by what is written of it.
    const LEN: usize = 40_000;
    let is_rescued = |map: &RescueMap, at: usize| {
        let copy = Rescued::new(Arc::new(vec![1u8; LEN]), map.clone());
        assert!(copy.extent_at(at as u64).unwrap().len > 0);
        copy.read_exact_at(&mut [0], at as u64).is_ok()
    };
    let again = RescueMap::parse(map.text(0, LEN as u64).as_bytes());
    let again = again.unwrap_or_else(|e| panic!("what was written is no map: {e}"));
    (0..LEN).step_by(509).for_each(|at| assert_eq!(is_rescued(&map, at), is_rescued(&again, at), "{at}"));
    true
}

/// The description of a backup, and the services' answers that it is made of.
pub fn backup(data: &[u8]) -> bool {
    use unluks::backup::Backup;
    let is_id = |id: &str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if let Ok(answer) = serde_json::from_slice(data) {
        // What is taken of an answer can stand in an address.
        let ids = [
            unluks_openstack::shapes::image(&answer).map(|image| image.id),
            unluks_openstack::shapes::secret(&answer).map(|secret| secret.id),
            unluks_openstack::shapes::volume(&answer).map(|volume| volume.id),
        ];
        assert!(ids.iter().flatten().all(|id| is_id(id)), "{ids:?}");
        let _ = unluks_openstack::shapes::encryption(&answer);
    }
    let Ok(backup) = Backup::parse(data) else { return false };
    let files = backup.data.iter().map(|data| &data.file).chain(backup.key.iter().map(|key| &key.file));
    for file in files {
        assert!(!file.contains('/') && !file.starts_with('.'), "{file:?} leads out of the directory");
    }
    let json = backup.to_json().expect("what was read can be written");
    assert!(json.chars().all(|c| c == '\n' || (' '..='~').contains(&c) || c.is_alphanumeric()), "{json}");
    assert_eq!(Backup::parse(json.as_bytes()).expect("what was written can be read"), backup);
    true
}
