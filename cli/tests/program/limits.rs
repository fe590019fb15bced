//! Headers that are right by every rule of their format, and ask for too much.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use unluks::luks::unlock::UnlockOptions;
use unluks::{ErrorKind, Image, Key, Limits, SecretBytes, VolumeKey};

use crate::common::{text, unluks};

const LUKS1: &[u8] = include_bytes!("../../../fuzz/images/luks1.img");
const LUKS2: &[u8] = include_bytes!("../../../fuzz/images/luks2-pbkdf2.img");
/// Where the data of the images starts.
const DATA: usize = 1 << 20;

/// The LUKS2 image with a changed JSON area, and room for 128 KiB of it.
fn changed(change: impl FnOnce(&mut Value)) -> Image {
    const HDR_SIZE: usize = 128 << 10;
    let text = LUKS2[4096..16384].split(|b| *b == 0).next().unwrap();
    let mut json: Value = serde_json::from_slice(text).unwrap();
    json["config"]["json_size"] = (HDR_SIZE - 4096).to_string().into();
    json["keyslots"]["0"]["area"]["offset"] = (2 * HDR_SIZE).to_string().into();
    change(&mut json);
    let json = json.to_string();
    let mut image = vec![0; DATA + (1 << 20)];
    image[..4096].copy_from_slice(&LUKS2[..4096]);
    image[8..16].copy_from_slice(&u64::try_from(HDR_SIZE).unwrap().to_be_bytes());
    image[4096..][..json.len()].copy_from_slice(json.as_bytes());
    image[2 * HDR_SIZE..][..LUKS2.len() - 0x8000].copy_from_slice(&LUKS2[0x8000..]);
    crate::targets::fix_image(&mut image);
    Image::open(Arc::new(image)).unwrap()
}

fn key() -> Key {
    Key::passphrase(SecretBytes::copy_of(b"fuzz").unwrap())
}

/// The image's keyslot under another number.
fn renumbered(number: &str) -> Image {
    changed(|json| {
        let slot = json["keyslots"]["0"].take();
        json["keyslots"] = json!({ number: slot });
        json["digests"]["0"]["keyslots"] = json!([number]);
    })
}

#[test]
fn keyslots_are_tried_up_to_number_31() {
    let options = UnlockOptions::default();
    assert_eq!(renumbered("31").unlock(&key(), &options).unwrap().opened()[0].keyslot, 31);
    let e = renumbered("32").unlock(&key(), &options).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::WrongKey, "keyslots"), "{e}");
    let named = UnlockOptions { keyslot: Some(32), ..options };
    let e = renumbered("32").unlock(&key(), &named).err().unwrap();
    assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "keyslots.32"), "{e}");
}

#[test]
fn all_digests_of_a_volume_key_share_the_time_limit() {
    const COUNT: usize = 300;
    let image = changed(|json| {
        let (segment, digest) = (json["segments"]["0"].take(), json["digests"]["0"].take());
        for n in 0..COUNT {
            let mut s = segment.clone();
            s["offset"] = (DATA + n * 512).to_string().into();
            s["size"] = "512".into();
            s["sector_size"] = 512.into();
            json["segments"][n.to_string()] = s;
            let mut d = digest.clone();
            d["segments"] = json!([n.to_string()]);
            if n > 0 {
                d["keyslots"] = json!([]);
            }
            json["digests"][n.to_string()] = d;
        }
    });
    let try_with = |kdf_time| {
        let options = UnlockOptions {
            limits: Limits { kdf_time, ..Limits::default() },
            allow_foreign_segments: true,
            ..UnlockOptions::default()
        };
        image.unlock_with_volume_key(VolumeKey::copy_of(&[7; 16]).unwrap(), &options).err().unwrap()
    };
    // Each is some milliseconds: one does no harm, and all together do.
    let e = try_with(Duration::from_millis(200));
    assert_eq!((e.kind(), e.rule()), (ErrorKind::LimitExceeded, "kdf.time"), "{e}");
    assert_eq!(try_with(Limits::KDF_TIME).kind(), ErrorKind::WrongKey);
}

#[test]
fn a_keyslot_terabytes_away_in_a_file_of_holes_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut header = LUKS1.to_vec();
    // The data is elsewhere, so that a keyslot, a disabled one, may lie anywhere.
    header[104..108].fill(0);
    let far = 0x8000_0000u32;
    header[208 + 7 * 48 + 40..][..4].copy_from_slice(&far.to_be_bytes());
    let file = File::create(path("header")).unwrap();
    file.write_all_at(&header, 0).unwrap();
    file.set_len(u64::from(far) * 512 + 64_000)
        .unwrap_or_else(|e| panic!("the file system of {} wants files of 1 TiB: {e}", dir.path().display()));
    // From 64 MiB on the output has a journal, which notes what header it is of.
    File::create(path("data")).unwrap().set_len(64 << 20).unwrap();
    fs::write(path("key"), "fuzz").unwrap();
    let [data, header, key, out] = ["data", "header", "key", "out"].map(|n| text(&path(n)));
    let run = unluks(&["decrypt", &data, "--header", &header, "--key-file", &key, "--output", &out]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(fs::metadata(&out).unwrap().len(), 64 << 20);
}
