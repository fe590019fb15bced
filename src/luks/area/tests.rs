//! Noise is never called overwritten, and each sort of overwriting is, down to the least that can be told.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::luks::findings::tests::good;

const AREA: usize = 32768;

/// `len` bytes of noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let block = |n: u64| Sha256::digest([seed.to_be_bytes(), n.to_be_bytes()].concat());
    (0..).flat_map(|n| block(n).to_vec()).take(len).collect()
}

/// A header with a keyslot of a 64-byte key whose material is `change`d noise.
fn changed(change: impl FnOnce(&mut [u8])) -> Option<Overwritten> {
    let mut header = vec![0u8; AREA];
    let mut material = noise(1, 64 * 4000);
    change(&mut material);
    header.extend(material);
    // What lies behind the material counts for nothing.
    header.extend([0; 2048]);
    check(&header, &good().keyslots[&0]).unwrap()
}

#[test]
fn noise_is_what_was_written() {
    assert_eq!(changed(|_| {}), None);
    for seed in 0..20 {
        assert_eq!(changed(|m| m.copy_from_slice(&noise(seed, m.len()))), None, "seed {seed}");
    }
    for byte in [0u8, 255] {
        // A few bytes of anything cannot be told from noise, and are not.
        assert_eq!(changed(|m| m[5000..5016].fill(byte)), None);
    }
}

#[test]
fn each_sort_is_named_with_its_place_and_number() {
    let text = b"These are the lines of a log that somebody wrote to the wrong disk.\n".repeat(100);
    let binary: Vec<u8> = (0..4096u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
    let zero = changed(|m| m[4096..8192].fill(0)).unwrap();
    let wanted = Overwritten { sectors: 500, zero: 8, first: Some(36864), ..Overwritten::default() };
    assert_eq!(zero, wanted);
    assert_eq!(zero.to_string(), "8 of 500 sectors are zeroes, from byte 36864 on");
    let constant = changed(|m| m[..1024].fill(0xff)).unwrap();
    assert_eq!((constant.constant, constant.first), (2, Some(32768)));
    let log = changed(|m| m[512..1536].copy_from_slice(&text[..1024])).unwrap();
    assert_eq!((log.text, log.other, log.first), (2, 0, Some(33280)));
    let other = changed(|m| m[255_488..].copy_from_slice(&binary[..512])).unwrap();
    assert_eq!((other.other, other.first), (1, Some(32768 + 255_488)));
    let all = changed(|m| m.fill(0)).unwrap();
    assert_eq!((all.zero, all.sectors), (500, 500));
    // No sector of this is whole, and the two halves are not enough for text, but for a finding they are.
    let part = changed(|m| m[700..740].fill(0)).unwrap();
    assert_eq!((part.other, part.first), (1, Some(33280)));
}

#[test]
fn a_compressed_file_is_told_by_the_whole() {
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::Write;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    for n in 0..200_000u64 {
        writeln!(encoder, "{} {n}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40).unwrap();
    }
    let file = encoder.finish().unwrap();
    let found = changed(|m| m.copy_from_slice(&file[1000..][..m.len()])).unwrap();
    assert_eq!((found.first, found.zero + found.constant + found.text + found.other), (None, 0), "{found:?}");
    assert!(found.to_string().contains("not spread evenly"));
}

#[test]
fn signatures_are_named() {
    let named = |at: usize, magic: &'static [u8]| {
        let found = changed(|m| {
            m[4096..8192].fill(0);
            m[4096 + at..][..magic.len()].copy_from_slice(magic);
        });
        found.unwrap().signature
    };
    assert_eq!(named(0, b"XFSB"), Some("an XFS file system"));
    assert_eq!(named(4086, b"SWAPSPACE2"), Some("swap space"));
    assert_eq!(named(1024 + 56, b"\x53\xef\x01\x00"), Some("an ext4 file system"));
    assert_eq!(named(512, b"EFI PART"), Some("a GPT"));
    assert_eq!(named(9, b"XFSB"), None);
}

#[test]
fn only_key_material_is_judged_and_what_cannot_be_read_is_said() {
    let mut m = good();
    let header = vec![0u8; AREA];
    assert_eq!(findings(&header, &m)[0].code, "keyslot-unreadable");
    assert!(overwritten(&header, &m, [0, 1]).is_empty());
    let header = vec![0u8; AREA + 258_048];
    let found = findings(&header, &m);
    assert_eq!((found.len(), found[0].code, found[0].severity), (1, "keyslot-overwritten", Severity::Critical));
    assert_eq!(found[0].about, "keyslots.0");
    assert_eq!(overwritten(&header, &m, [0, 1]).len(), 1);
    m.keyslots.get_mut(&0).unwrap().kind = KeyslotKind::Unknown { kind: "x".into() };
    assert_eq!(findings(&header, &m), []);
}

#[test]
fn a_tiny_key_and_a_tiny_area_are_no_trouble() {
    let mut slot = good().keyslots[&0].clone();
    slot.key_size = 1;
    assert!(check(&vec![0u8; AREA + 4000], &slot).unwrap().is_some());
    slot.area.size = 100;
    assert_eq!(check(&vec![0u8; AREA + 4000], &slot).unwrap(), None);
    slot.key_size = u32::MAX;
    slot.area.size = u64::MAX;
    assert!(check(&vec![0u8; AREA + 4000], &slot).is_err());
}
