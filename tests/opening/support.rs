//! Golden images in memory, in the places where images lie.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use unluks::format::Options;
use unluks::locate::{FindOptions, HeaderAt, find};
use unluks::luks::unlock::UnlockOptions;
use unluks::{Image, Key, ReadAt, Result, SecretBytes};

pub fn testdata(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(file)
}

/// A file of testdata, decompressed where its name ends in `.gz`.
pub fn read_stored(file: &str) -> Vec<u8> {
    let stored = std::fs::read(testdata(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
    if !file.ends_with(".gz") {
        return stored;
    }
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(stored.as_slice()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A golden image in memory.
#[derive(Clone)]
pub struct Golden {
    pub image: Vec<u8>,
    pub header: Option<Vec<u8>>,
    pub passphrase: String,
    sha256: String,
    size: usize,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let sidecar: Value =
            serde_json::from_str(&std::fs::read_to_string(testdata(&format!("{name}.json"))).unwrap()).unwrap();
        let text = |field: &str| sidecar[field].as_str().map(str::to_owned);
        Self {
            image: read_stored(&text("image").unwrap()),
            header: text("header").map(|file| read_stored(&file)),
            passphrase: text("passphrase").unwrap(),
            // One that was damaged has none.
            sha256: text("sha256").unwrap_or_default(),
            size: usize::try_from(sidecar["size"].as_u64().unwrap()).unwrap(),
        }
    }

    /// Unlocks `image` and compares its plaintext.
    pub fn open(&self, image: &Image) -> Result<()> {
        let unlocked = image.unlock(&key(&self.passphrase), &UnlockOptions::default())?;
        let volume = unlocked.volume(Default::default())?;
        let mut plaintext = vec![0; self.size];
        volume.read_exact_at(&mut plaintext, 0)?;
        assert_eq!(hex::encode(Sha256::digest(&plaintext)), self.sha256, "other plaintext");
        Ok(())
    }
}

pub fn key(passphrase: &str) -> Key {
    Key::passphrase(SecretBytes::copy_of(passphrase.as_bytes()).unwrap())
}

/// Finds and opens, as every command does; what was said on the way comes beside it.
pub fn open(file: Arc<dyn ReadAt>, header: Option<Arc<dyn ReadAt>>) -> (Result<Image>, Vec<String>) {
    let options = FindOptions { header: HeaderAt::from(&header), container: Options::default(), ..Default::default() };
    match find(file, options) {
        Ok(found) => (Image::open_found(&found, header), found.notes),
        Err(e) => (Err(e), Vec::new()),
    }
}

/// A disk with one MBR partition at [`PARTITION`], which holds `luks`.
pub fn in_mbr(luks: &[u8]) -> Vec<u8> {
    let start = usize::try_from(PARTITION).unwrap();
    let mut disk = vec![0; start];
    disk.extend_from_slice(luks);
    disk.resize(disk.len().next_multiple_of(512), 0);
    let sectors = |bytes: usize| u32::try_from(bytes / 512).unwrap().to_le_bytes();
    disk[450] = 0x83;
    disk[454..458].copy_from_slice(&sectors(start));
    let len = sectors(disk.len() - start);
    disk[458..462].copy_from_slice(&len);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

/// Where the partition of [`in_mbr`] lies, and the data of [`in_qcow2`].
pub const PARTITION: u64 = 1 << 20;

/// Where the reference counts of [`in_qcow2`] lie.
pub const REFERENCES: usize = 4 << 16;

/// A qcow2 image, version 2, whose clusters of 64 KiB lie in order from [`PARTITION`] on.
pub fn in_qcow2(disk: &[u8]) -> Vec<u8> {
    const CLUSTER: usize = 64 << 10;
    let clusters = disk.len().div_ceil(CLUSTER);
    let mut file = vec![0; usize::try_from(PARTITION).unwrap() + clusters * CLUSTER];
    file[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(20, &16u32.to_be_bytes());
    put(24, &u64::try_from(disk.len()).unwrap().to_be_bytes());
    put(36, &1u32.to_be_bytes());
    put(40, &(1u64 << 16).to_be_bytes());
    // The L1 table is the second cluster, its one L2 table the third.
    put(CLUSTER, &(2u64 << 16 | 1 << 63).to_be_bytes());
    for n in 0..clusters {
        let at = PARTITION + u64::try_from(n * CLUSTER).unwrap();
        put(2 * CLUSTER + n * 8, &(at | 1 << 63).to_be_bytes());
    }
    // The table of reference counts is the fourth, its one block the fifth; a count has 16 bits.
    put(48, &(3u64 << 16).to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(3 * CLUSTER, &(4u64 << 16).to_be_bytes());
    for used in (0..5).chain(16..16 + clusters) {
        put(REFERENCES + used * 2, &1u16.to_be_bytes());
    }
    put(usize::try_from(PARTITION).unwrap(), disk);
    file
}

/// An EWF image with one chunk for each 32 KiB, none of them compressed, and the disk's MD5 and SHA-1 at the place that is
/// given besides.
pub fn in_ewf(disk: &[u8]) -> (Vec<u8>, usize) {
    const CHUNK: usize = 32 << 10;
    let adler = |bytes: &[u8]| {
        let mut sum = adler2::Adler32::new();
        sum.write_slice(bytes);
        sum.checksum().to_le_bytes()
    };
    let int = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let long = |n: usize| u64::try_from(n).unwrap().to_le_bytes();
    let summed = |mut bytes: Vec<u8>| {
        bytes.extend(adler(&bytes));
        bytes
    };
    let mut file = b"EVF\x09\x0d\x0a\xff\0\x01\x01\0\0\0".to_vec();
    let mut section = |kind: &str, body: &[u8]| {
        let (at, size) = (file.len(), 76 + body.len());
        let next = if body.is_empty() { at } else { at + size };
        let mut header = kind.as_bytes().to_vec();
        header.resize(16, 0);
        header.extend([long(next), long(size)].concat());
        header.resize(72, 0);
        file.extend(summed(header));
        file.extend(body);
        at + 76
    };
    let count = disk.len().div_ceil(CHUNK);
    let mut volume = [int(1), int(count), int(CHUNK / 512), int(512)].concat();
    volume.extend(long(disk.len() / 512));
    volume.resize(90, 0);
    section("volume", &summed(volume));
    let chunks: Vec<Vec<u8>> = disk.chunks(CHUNK).map(|chunk| summed(chunk.to_vec())).collect();
    let sectors = section("sectors", &chunks.concat());
    let places: Vec<u8> = (0..count).flat_map(|n| int(sectors + n * (CHUNK + 4))).collect();
    let header = [int(count).as_slice(), &[0; 16]].concat();
    section("table", &[summed(header), summed(places)].concat());
    let hashes = [md5::Md5::digest(disk).as_slice(), sha1::Sha1::digest(disk).as_slice(), &[0; 40]].concat();
    let digest = section("digest", &summed(hashes));
    section("done", &[]);
    (file, digest)
}
