//! dm-integrity's superblock, layout and journal, below a LUKS2 segment whose key is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use unluks::luks::unlock::UnlockOptions;
use unluks::luks::unlock::Unlocked;
use unluks::volume::{BadSectorPolicy, VolumeOptions};
use unluks::{Image, ReadAt, Volume, VolumeKey};

use super::{FIELDS_LEN, Head, check_error, fix_image, read_volume};

/// Where the segment of the image starts.
const START: usize = 1 << 20;
/// Bytes of a patch: an offset from the segment's start, and what is put there.
const PATCH: usize = 4;
/// A journal of two sections, and the bytes of a sector with entries that entries may be in.
const SECTIONS: usize = 2;
const ENTRY_SPACE: usize = 504;

/// Ciphers with the bytes of their key.
const CIPHERS: [(&str, usize); 12] = [
    ("aes-xts-random", 32),
    ("aes-xts-plain64", 64),
    ("aes-cbc-essiv:sha256", 32),
    ("aes-ecb", 16),
    ("cipher_null-ecb", 16),
    ("cast5-cbc-plain64", 16),
    ("xchacha12,aes-adiantum-plain64", 32),
    ("aes-gcm-random", 16),
    ("aes-gcm-plain64", 32),
    ("aes-ccm-random", 19),
    ("aegis128-random", 16),
    ("chacha20-random", 32),
];
/// Integrity types with the bytes of their key.
const TYPES: [(&str, usize); 7] = [
    ("none", 0),
    ("hmac(sha256)", 32),
    ("hmac(sha1)", 20),
    ("hmac(sha512)", 64),
    ("aead", 0),
    ("poly1305", 0),
    ("cmac(aes)", 16),
];
/// Bytes of what is stored for a sector: the first is right for the first cipher and type.
const TAGS: [u8; 16] = [16, 0, 1, 12, 20, 24, 28, 32, 36, 48, 52, 64, 80, 96, 200, 255];

/// What the bytes choose that are no whole patch: the first cipher and type with none, which authenticates nothing, so
/// that all of it can be read.
#[derive(Clone, Copy, PartialEq)]
struct Choice {
    cipher: usize,
    kind: usize,
    tag: u8,
    log2_block: u8,
}

impl Choice {
    fn of(bytes: &[u8]) -> Self {
        let byte = |n: usize| bytes.get(n).copied().unwrap_or(0);
        Self {
            cipher: usize::from(byte(0)) % CIPHERS.len(),
            kind: usize::from(byte(1)) % TYPES.len(),
            tag: TAGS[usize::from(byte(2) & 15)],
            log2_block: byte(2) >> 4 & 3,
        }
    }
}

/// A device as the kernel leaves it in a crash: a superblock, and entries of a journal that was gone round.
fn device(choice: Choice) -> Vec<u8> {
    let tag = usize::from(choice.tag);
    let block = 1usize << choice.log2_block;
    let entry_size = (8 + 8 * block + tag).next_multiple_of(8);
    let entries = ENTRY_SPACE / entry_size * 8;
    let section_sectors = 8 + entries * block;
    let mut device = vec![0; 4096 + SECTIONS * section_sectors * 512];
    device[..7].copy_from_slice(b"integrt");
    // Version 4, areas of 128 sectors, the tags, two sections, 304 sectors, the fixed padding.
    device[8..18].copy_from_slice(&[4, 7, choice.tag, 0, 2, 0, 0, 0, 48, 1]);
    device[24] = 8;
    device[28] = choice.log2_block;
    for section in 0..SECTIONS {
        let at = 4096 + section * section_sectors * 512;
        for n in 0..entries {
            let entry = at + n % 8 * 512 + n / 8 * entry_size;
            let sector = if n < 10 { ((n * 7 + section) * block) as u64 } else { u64::MAX };
            device[entry..entry + 8].copy_from_slice(&sector.to_le_bytes());
            device[entry + 8..entry + entry_size].fill(n as u8);
        }
        for sector in 0..section_sectors {
            // The first section has the newer commit id.
            let id = [0x2222_2222_2222_2222, 0x1111_1111_1111_1111][section] ^ ((section as u64) << 32) ^ sector as u64;
            device[at + sector * 512 + 504..][..8].copy_from_slice(&id.to_le_bytes());
        }
    }
    device
}

/// The header of an image whose segment has that cipher and integrity.
fn image(device: &[u8], choice: Choice) -> Vec<u8> {
    let base: &[u8] = include_bytes!("../images/luks2-pbkdf2.img");
    let json = &base[4096..0x4000];
    let end = json.iter().position(|b| *b == 0).unwrap();
    let mut metadata: serde_json::Value = serde_json::from_slice(&json[..end]).unwrap();
    let segment = &mut metadata["segments"]["0"];
    segment["offset"] = START.to_string().into();
    segment["size"] = "dynamic".into();
    segment["encryption"] = CIPHERS[choice.cipher].0.into();
    segment["sector_size"] = (512u32 << choice.log2_block).into();
    segment["integrity"] =
        serde_json::json!({"type": TYPES[choice.kind].0, "journal_encryption": "none", "journal_integrity": "none"});
    let text = serde_json::to_vec(&metadata).unwrap();
    let mut image = base[..0x8000].to_vec();
    image[4096..0x8000].fill(0);
    image[4096..4096 + text.len()].copy_from_slice(&text);
    assert!(FIELDS_LEN + text.len() < 0x4000);
    fix_image(&mut image);
    image.resize(START, 0);
    image.extend_from_slice(device);
    image
}

/// Patches of a device with a journal: three bytes of offset, big-endian, and one byte to put there. They may lie behind
/// the journal, where the tags and the data are. The bytes that are left over choose the cipher, the type of integrity,
/// the size of a tag and that of a sector.
pub(super) fn integrity(data: &[u8]) -> bool {
    let patches = data.chunks_exact(PATCH);
    let choice = Choice::of(patches.remainder());
    let mut device = device(choice);
    let len = device.len() + 3 * (64 + 128) * 512;
    device.resize(len, 0);
    for patch in patches {
        let at = u32::from_be_bytes([0, patch[0], patch[1], patch[2]]) as usize;
        if let Some(byte) = device.get_mut(at) {
            *byte = patch[3];
        }
    }
    let image = image(&device, choice);
    let data: Arc<dyn ReadAt> = Arc::new(Head { len: image.len() as u64, head: image });
    let image = Image::open(Arc::clone(&data)).unwrap();
    let metadata = image.metadata();
    let digest = metadata.segment_digest(0).unwrap().0;
    let key = vec![7; CIPHERS[choice.cipher].1 + TYPES[choice.kind].1];
    let keys = BTreeMap::from([(digest, VolumeKey::copy_of(&key).unwrap())]);
    let unlocked = Unlocked::unproven(metadata, keys, &UnlockOptions::default()).unwrap();
    let _ = unluks::volume::integrity_findings(metadata, &*data);
    let mut good = false;
    for (allow_truncated, bad_sectors) in
        [(false, BadSectorPolicy::Refuse), (true, BadSectorPolicy::Refuse), (true, BadSectorPolicy::Report)]
    {
        let options = VolumeOptions { allow_truncated, bad_sectors };
        match Volume::new(metadata, Arc::clone(&data), &unlocked, options) {
            Ok(volume) => {
                good |= !allow_truncated;
                if choice == Choice::of(&[]) {
                    check(&volume);
                } else if bad_sectors == BadSectorPolicy::Report {
                    read_volume(&volume);
                } else {
                    let mut sector = [0; 4096];
                    let n = sector.len().min(volume.len() as usize);
                    let _ = volume.read_exact_at(&mut sector[..n], 0).inspect_err(check_error);
                }
            }
            Err(e) => check_error(&e),
        }
    }
    good
}

fn check(volume: &Volume) {
    read_volume(volume);
    let bad = volume.bad_sectors();
    assert!(bad.runs().is_empty() && bad.unlisted() == 0, "nothing is authenticated");
    assert_eq!(bad.is_empty(), bad.journal_damage().is_none());
}
