//! Containers over which something was written by accident, through the program.

mod offline;
mod salvage;

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Run, text, unluks};

const MIB: usize = 1 << 20;
const LEN: usize = MIB + 64 * 1024;
const SECONDARY: usize = 0x4000;

struct Case {
    dir: tempfile::TempDir,
    image: PathBuf,
}

impl Case {
    /// The image as it was, with data of some bytes, and a change of it.
    fn new(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, changed(name, change)).unwrap();
        fs::write(dir.path().join("key"), "fuzz").unwrap();
        Self { dir, image }
    }

    fn path(&self, name: &str) -> String {
        text(&self.dir.path().join(name))
    }

    fn decrypt(&self, more: &[&str]) -> Run {
        let (image, key, out) = (text(&self.image), self.path("key"), self.path("out"));
        let mut args =
            vec!["decrypt", &image, "--key-file", &key, "--output", &out, "--max-kdf-memory", "1M", "--force"];
        args.extend(more);
        unluks(&args)
    }

    fn output(&self) -> Vec<u8> {
        fs::read(Path::new(&self.path("out"))).unwrap()
    }
}

fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut image = fs::read(format!("{}/../fuzz/images/{name}.img", env!("CARGO_MANIFEST_DIR"))).unwrap();
    image.resize(LEN, 0);
    for (n, byte) in image[MIB..].iter_mut().enumerate() {
        *byte = u8::try_from(n % 251).unwrap();
    }
    change(&mut image);
    image
}

fn plaintext(name: &str) -> Vec<u8> {
    let case = Case::new(name, |_| ());
    let run = case.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    case.output()
}

fn wipe_magics(image: &mut [u8]) {
    image[..6].fill(0);
    if image[SECONDARY..].starts_with(b"SKUL") {
        image[SECONDARY..SECONDARY + 6].fill(0);
    }
}

#[test]
fn a_container_without_its_magic_opens() {
    for name in ["luks1", "luks2-pbkdf2", "luks2-argon2id"] {
        let case = Case::new(name, |image| wipe_magics(image));
        let run = case.decrypt(&[]);
        assert_eq!(run.code, Some(0), "{name}: {}", run.stderr);
        assert!(run.stderr.contains("warning: the magic of the"), "{}", run.stderr);
        assert_eq!(case.output(), plaintext(name));
        // As strict as cryptsetup, and it says all there is.
        let image = text(&case.image);
        let run = unluks(&["inspect", &image]);
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        assert!(String::from_utf8_lossy(&run.stdout).contains("the magic of the"));
        let run = unluks(&["scan", &image]);
        let found = String::from_utf8_lossy(&run.stdout).into_owned();
        assert_eq!((run.code, found.matches(" at byte 0\n").count()), (Some(0), 1), "{found}{}", run.stderr);
        assert!(found.contains("the magic of the") && !found.contains("LUKS2 at byte 16384"), "{found}");
    }
}

#[test]
fn what_lies_there_now_does_not_lead_away() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change); 3] = [
        ("an LVM label", |image| {
            image[..4608].fill(0);
            image[512..520].copy_from_slice(b"LABELONE");
            image[536..544].copy_from_slice(b"LVM2 001");
        }),
        ("a swap signature", |image| {
            image[..4096].fill(0);
            image[4086..4096].copy_from_slice(b"SWAPSPACE2");
        }),
        ("a master boot record", |image| {
            image[..4608].fill(0);
            // One partition, in which nothing is.
            image[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0xff, 0xff, 0xff, 0, 8, 0, 0, 64, 0, 0, 0]);
            image[510..512].copy_from_slice(&[0x55, 0xaa]);
        }),
    ];
    for (what, change) in cases {
        let case = Case::new("luks2-pbkdf2", change);
        let run = case.decrypt(&[]);
        assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
        assert!(run.stderr.contains(what), "{}", run.stderr);
        assert_eq!(case.output(), plaintext("luks2-pbkdf2"), "{what}");
    }
}

#[test]
fn what_a_gpt_overwrote_at_the_end_is_named_and_the_output_is_kept() {
    let case = Case::new("luks2-pbkdf2", |image| {
        image[446..SECONDARY + 1024].fill(0);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[512..520].copy_from_slice(b"EFI PART");
        let end = image.len();
        image[end - 33 * 512..].fill(0);
        image[end - 512..end - 504].copy_from_slice(b"EFI PART");
    });
    let whole = plaintext("luks2-pbkdf2");
    let kept = whole.len() - 33 * 512;
    let run = case.decrypt(&[]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let named = format!("bad sectors: bytes {kept} to {} of the plaintext", whole.len());
    assert!(run.stderr.contains(&named) && run.stderr.contains("a GPT lies there now"), "{}", run.stderr);
    // Sectors of 4096 bytes.
    let first = kept / 4096 * 4096;
    assert_eq!(case.output()[..first], whole[..first]);
    // As zeroes, where they are wanted so.
    let run = case.decrypt(&["--bad-sectors", "zero"]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(case.output()[kept..].iter().all(|b| *b == 0));
}

#[test]
fn luks1_opens_with_a_keyslot_that_is_whole() {
    let case = Case::new("luks1", |image| {
        image[440..512].fill(0);
        image[444] = 0x20;
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
    });
    let run = case.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("keyslots 4, 5 are damaged"), "{}", run.stderr);
    assert_eq!(case.output(), plaintext("luks1"));
    let run = unluks(&["inspect", "--json", &text(&case.image)]);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    let json = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(json.contains("invalid-keyslot") && json.contains("header-recovered"), "{json}");
    let run = unluks(&["test-key", &text(&case.image), "--key-file", &case.path("key")]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

#[test]
fn luks1_without_the_name_of_its_cipher_opens() {
    for lost in [0..45, 8..40] {
        let case = Case::new("luks1", |image| image[lost].fill(0x24));
        let run = case.decrypt(&[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(case.output(), plaintext("luks1"));
    }
}

#[test]
fn a_payload_offset_of_0_is_a_detached_headers() {
    let case = Case::new("luks1", |image| image[104..108].fill(0));
    let run = case.decrypt(&[]);
    assert!(matches!(run.code, Some(4 | 5)), "{:?}: {}", run.code, run.stderr);
    assert!(!Path::new(&case.path("out")).exists());
}

#[test]
fn a_good_keyslot_does_not_wait_for_a_costly_one() {
    let case = Case::new("luks1", |image| {
        // Keyslot 1 gets what is keyslot 0's, and that asks for minutes.
        let material = image[8 * 512..72 * 512 + 512 * 61].to_vec();
        image[136 * 512..136 * 512 + material.len()].copy_from_slice(&material);
        let slot: Vec<u8> = image[208..248].to_vec();
        image[256..296].copy_from_slice(&slot);
        image[212..216].copy_from_slice(&400_000_000u32.to_be_bytes());
    });
    let start = std::time::Instant::now();
    let run = case.decrypt(&[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(case.output(), plaintext("luks1"));
}
