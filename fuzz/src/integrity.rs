//! dm-integrity's superblock, layout and journal, below a LUKS2 segment whose key is known.

use std::collections::BTreeMap;
use std::sync::Arc;

use unluks::luks::unlock::Unlocked;
use unluks::volume::{BadSectorPolicy, VolumeOptions};
use unluks::{Image, Volume, VolumeKey};

use super::{FIELDS_LEN, Head, check_error, fix_image, read_volume};

/// Where the segment of the image starts.
const START: usize = 1 << 20;
/// Bytes of a patch: an offset from the segment's start, and what is put there.
const PATCH: usize = 4;
/// A journal of two sections, each with 120 entries in 8 sectors, and a sector of data for each entry.
const SECTIONS: usize = 2;
const ENTRIES: usize = 120;
const ENTRY_SIZE: usize = 32;

/// A device as the kernel leaves it in a crash: a superblock, and entries of a journal that was gone round.
fn device() -> Vec<u8> {
    let section_sectors = 8 + ENTRIES;
    let mut device = vec![0; 4096 + SECTIONS * section_sectors * 512];
    device[..7].copy_from_slice(b"integrt");
    // Version 4, areas of 128 sectors, tags of 16 bytes, two sections, 300 sectors, the fixed padding.
    device[8..18].copy_from_slice(&[4, 7, 16, 0, 2, 0, 0, 0, 44, 1]);
    device[24] = 8;
    for section in 0..SECTIONS {
        let at = 4096 + section * section_sectors * 512;
        for n in 0..ENTRIES {
            let entry = at + n % 8 * 512 + n / 8 * ENTRY_SIZE;
            let sector = if n < 10 { (n * 7 + section) as u64 } else { u64::MAX };
            device[entry..entry + 8].copy_from_slice(&sector.to_le_bytes());
            device[entry + 8..entry + ENTRY_SIZE].fill(n as u8);
        }
        for sector in 0..section_sectors {
            // The first section has the newer commit id.
            let id = [0x2222_2222_2222_2222, 0x1111_1111_1111_1111][section] ^ ((section as u64) << 32) ^ sector as u64;
            device[at + sector * 512 + 504..][..8].copy_from_slice(&id.to_le_bytes());
        }
    }
    device
}

/// The header of an image whose segment stores an IV for each sector, and authenticates nothing: so that all of it can
/// be read, whatever it is.
fn image(device: &[u8]) -> Vec<u8> {
    let base: &[u8] = include_bytes!("../images/luks2-pbkdf2.img");
    let json = &base[4096..0x4000];
    let end = json.iter().position(|b| *b == 0).unwrap();
    let mut metadata: serde_json::Value = serde_json::from_slice(&json[..end]).unwrap();
    let segment = &mut metadata["segments"]["0"];
    segment["offset"] = START.to_string().into();
    segment["size"] = "dynamic".into();
    segment["encryption"] = "aes-xts-random".into();
    segment["sector_size"] = 512.into();
    segment["integrity"] =
        serde_json::json!({"type": "none", "journal_encryption": "none", "journal_integrity": "none"});
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
/// the journal, where the tags and the data are.
pub(super) fn integrity(data: &[u8]) -> bool {
    let mut device = device();
    let len = device.len() + 3 * (8 + 128) * 512;
    device.resize(len, 0);
    for patch in data.chunks_exact(PATCH) {
        let at = u32::from_be_bytes([0, patch[0], patch[1], patch[2]]) as usize;
        if let Some(byte) = device.get_mut(at) {
            *byte = patch[3];
        }
    }
    let image = image(&device);
    let head = Head { len: image.len() as u64, head: image };
    let image = Image::open(Arc::new(head)).unwrap();
    let digest = image.metadata().segment_digest(0).unwrap().0;
    let key = VolumeKey::copy_of(&[7; 32]).unwrap();
    let unlocked = Unlocked { opened: Vec::new(), keys: BTreeMap::from([(digest, key)]), passed_over: Vec::new() };
    let mut good = false;
    for (allow_truncated, bad_sectors) in
        [(false, BadSectorPolicy::Refuse), (true, BadSectorPolicy::Refuse), (true, BadSectorPolicy::Report)]
    {
        let options = VolumeOptions { allow_truncated, bad_sectors, ..Default::default() };
        match image.volume(&unlocked, options) {
            Ok(volume) => {
                good |= !allow_truncated;
                check(&volume);
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
