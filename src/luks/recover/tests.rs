//! Damaged headers, and what is none.

use super::*;
use crate::luks::metadata::SegmentKind;

const MIB: usize = 1 << 20;
const PRIMARY_CSUM: usize = 448;
const SECONDARY: usize = 0x4000;

/// An image with some bytes of data, which are zeroes.
fn image(name: &str) -> Vec<u8> {
    let path = format!("{}/fuzz/images/{name}.img", env!("CARGO_MANIFEST_DIR"));
    let mut image = std::fs::read(path).unwrap();
    image.resize(MIB + 64 * 1024, 0);
    image
}

fn recovered(image: &[u8]) -> Metadata {
    let strict = crate::luks::open(image).unwrap_err();
    let metadata = open(image).unwrap();
    let recovery = metadata.recovery.as_ref().unwrap();
    assert_eq!(recovery.error.as_ref().unwrap().to_string(), strict.to_string());
    metadata
}

fn said(metadata: &Metadata) -> String {
    metadata.recovery.as_ref().unwrap().to_string()
}

#[test]
fn a_magic_that_is_gone_is_put_in() {
    for name in ["luks1", "luks2-pbkdf2", "luks2-argon2id"] {
        let whole = image(name);
        assert!(open(&whole).unwrap().recovery.is_none());
        let mut wiped = whole.clone();
        wiped[..6].fill(0);
        if name != "luks1" {
            wiped[SECONDARY..SECONDARY + 6].fill(0);
        }
        let m = recovered(&wiped);
        assert_eq!(m.uuid, crate::luks::open(&whole).unwrap().uuid);
        assert!(said(&m).contains("magic"), "{}", said(&m));
        // What is mended is what was there.
        let mut mended = wiped[..592].to_vec();
        m.recovery.as_ref().unwrap().mend(&mut mended, 0);
        assert_eq!(mended, whole[..592]);
        // A layer of a clone is whole, and no damage.
        for clone in CLONES {
            wiped[..6].copy_from_slice(&clone);
            assert!(open(&wiped).is_err());
        }
    }
}

#[test]
fn a_copy_may_have_the_json_area_of_the_other() {
    let mut image = image("luks2-pbkdf2");
    image[4096 + 50] ^= 1;
    image[SECONDARY..SECONDARY + 4096].fill(0);
    let m = recovered(&image);
    assert!(said(&m).contains("JSON area of the primary header is damaged"), "{}", said(&m));
}

/// As a GPT leaves it: both binary headers and the primary's JSON area are overwritten.
fn under_a_gpt() -> Vec<u8> {
    let mut image = image("luks2-pbkdf2");
    image[446..512].fill(0);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    image[512..SECONDARY + 1024].fill(0);
    image[512..520].copy_from_slice(b"EFI PART");
    let end = image.len();
    image[end - 512..end - 504].copy_from_slice(b"EFI PART");
    image
}

#[test]
fn a_binary_header_is_made_anew_for_its_json_area() {
    let whole = crate::luks::open(&image("luks2-pbkdf2")).unwrap();
    let image = under_a_gpt();
    let m = recovered(&image);
    assert_eq!(m.json, whole.json);
    let recovery = m.recovery.as_ref().unwrap();
    assert_eq!(recovery.lies_there, Some("a GPT"));
    let end = to_u64(image.len());
    assert_eq!(recovery.overwritten, std::iter::once(end - 33 * 512..end).collect::<Vec<_>>());
}

/// Where a binary header says that its JSON area is another one, that is what was changed: no digest proves a segment.
#[test]
fn a_changed_json_area_is_not_believed() {
    let mut image = image("luks2-pbkdf2");
    for copy in [0, SECONDARY] {
        let area = &mut image[copy + 4096..copy + SECONDARY];
        let at = area.windows(7).position(|w| w == b"1048576").unwrap();
        area[at + 6] = b'0';
    }
    assert!(open(&image).is_err());
    image[PRIMARY_CSUM] ^= 1;
    assert!(open(&image).is_err());
    // Two that differ are none.
    let mut image = under_a_gpt();
    let json = image[SECONDARY + 4096..2 * SECONDARY].to_vec();
    image[4096..SECONDARY].copy_from_slice(&json);
    let at = json.windows(7).position(|w| w == b"1048576").unwrap();
    image[4096 + at + 1] = b'1';
    image[4096 + at..4096 + at + 7].copy_from_slice(b"1052672");
    assert!(open(&image).is_err());
}

#[test]
fn luks1_without_the_names_of_its_cipher_has_several() {
    for damage in [0, 0x24, 0x9c] {
        let mut image = image("luks1");
        image[8..40].fill(damage);
        let m = open(&image).unwrap();
        let recovery = m.recovery.as_ref().unwrap();
        assert!(recovery.ciphers > 1 && recovery.error.is_some());
        assert!(recovery.missing.starts_with("the name of the LUKS1 header's cipher is gone"), "{recovery}");
    }
    // A name that is not known is a name.
    let mut image = image("luks1");
    image[8..40].fill(0);
    image[8..12].copy_from_slice(b"idea");
    assert!(open(&image).unwrap().recovery.is_none());
}

#[test]
fn luks1_without_its_first_bytes_has_several_ciphers() {
    let mut image = image("luks1");
    image[..50].fill(0x24);
    let m = recovered(&image);
    assert!(m.recovery.as_ref().unwrap().ciphers > 1);
    let SegmentKind::Crypt(crypt) = &m.segments[0].kind else { panic!() };
    assert_eq!(crypt.encryption, "aes-cbc-essiv:sha256");
    // What is left of the mode's name rules the others out.
    let ciphers = |n| match &open_as(&image, n).unwrap().segments[0].kind {
        SegmentKind::Crypt(crypt) => crypt.encryption.clone(),
        _ => panic!(),
    };
    let all: Vec<_> = (0..m.recovery.as_ref().unwrap().ciphers).map(ciphers).collect();
    assert!(all.iter().all(|cipher| cipher.ends_with("cbc-essiv:sha256")), "{all:?}");
}

#[test]
fn luks1_keyslots_are_damaged_one_by_one() {
    let mut image = image("luks1");
    // As a master boot record does.
    image[440..512].fill(0);
    image[444..448].copy_from_slice(&[0x20, 0, 0, 0]);
    image[510..512].copy_from_slice(&[0x55, 0xaa]);
    let m = recovered(&image);
    assert!(matches!(m.keyslots[&0].kind, KeyslotKind::Luks2(_)));
    assert!(said(&m).contains("keyslots 4, 5 are damaged"), "{}", said(&m));
    assert!(said(&m).contains("a master boot record"), "{}", said(&m));
    // The one that is left is damaged, too.
    image[208 + 47] = 0;
    assert!(open(&image).is_err());
}

/// SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % to_u64(n)).unwrap()
    }
}

#[test]
fn noise_is_no_header() {
    let mut numbers = Numbers(7);
    let noise: Vec<u8> = (0..32 * MIB / 8).flat_map(|_| numbers.next().to_le_bytes()).collect();
    for at in (0..noise.len() - MIB).step_by(512) {
        assert!(open(&noise[at..at + MIB]).is_err(), "{at}");
    }
}

/// What is almost a header: with all that is public of one, and without what proves it.
#[test]
fn mutations_of_what_is_no_header_are_none() {
    let mut luks1 = image("luks1");
    luks1.truncate(256 * 1024);
    // No UUID, and no keyslot that is as it should be.
    luks1[168..592].fill(0);
    let mut luks2 = image("luks2-pbkdf2");
    luks2.truncate(256 * 1024);
    for copy in [0, SECONDARY] {
        let end = luks2[copy + 4096..].iter().position(|b| *b == 0).unwrap();
        luks2[copy + 4096 + end - 40..copy + 4096 + end].fill(b' ');
    }
    let mut table = vec![0u8; 256 * 1024];
    table[510..512].copy_from_slice(&[0x55, 0xaa]);
    table[512..520].copy_from_slice(b"EFI PART");
    table[4086..4096].copy_from_slice(b"SWAPSPACE2");
    let bases = [luks1, luks2, table];
    let mut numbers = Numbers(11);
    for n in 0..100_000 {
        let mut image = bases[n % 3].clone();
        image.truncate(64 * 1024);
        for _ in 0..=numbers.below(8) {
            let at = numbers.below(if n % 2 == 0 { 1024 } else { 3 * SECONDARY });
            image[at] = u8::try_from(numbers.next() & 0xff).unwrap();
        }
        if n % 5 == 0 {
            image[..6].copy_from_slice(&MAGIC);
        }
        assert!(open(&image).is_err(), "mutation {n}");
    }
}

/// Bytes of which some cannot be read.
struct BadSector<'a>(&'a [u8], std::ops::Range<u64>);

impl ReadAt for BadSector<'_> {
    fn len(&self) -> u64 {
        to_u64(self.0.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + to_u64(buf.len());
        if offset < self.1.end && self.1.start < end {
            return Err(crate::Error::io("reading", std::io::Error::from_raw_os_error(5)));
        }
        self.0.to_vec().read_exact_at(buf, offset)
    }
}

#[test]
fn luks1_does_without_its_second_sector() {
    let image = image("luks1");
    let source = BadSector(&image, 512..1024);
    assert_eq!(crate::luks::open(&source).unwrap_err().kind(), ErrorKind::Io);
    let m = open(&source).unwrap();
    assert!(
        said(&m).contains("bytes 512 to 591 of the header cannot be read; keyslots 6, 7 are damaged"),
        "{}",
        said(&m)
    );
    assert!(matches!(m.keyslots[&0].kind, KeyslotKind::Luks2(_)));
    // With the first, too, nothing is left of it; and of another version nothing is made up.
    assert_eq!(
        open(&BadSector(&image, 0..1024)).unwrap_err().kind(),
        crate::luks::open(&BadSector(&image, 0..1024)).unwrap_err().kind()
    );
}
