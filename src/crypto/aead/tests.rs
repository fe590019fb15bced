use hex_literal::hex;

use super::*;

/// One block behind another, through the one-sector interface.
fn open(aead: &dyn Aead, iv: &[u8], aad: &[u8], ciphertext: &[u8]) -> (Vec<u8>, [u8; TAG]) {
    let mut data = ciphertext.to_vec();
    let tag = aead.decrypt(&mut data, iv, aad);
    (data, tag)
}

/// McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test cases 2 and 3.
#[test]
fn gcm_gives_the_published_tags() {
    let gcm = Gcm::new(block_cipher("aes", &[0; 16]).unwrap().unwrap());
    let (plain, tag) = open(&gcm, &[0; 12], &[], &hex!("0388dace60b6a392f328c2b971b2fe78"));
    assert_eq!(plain, [0; 16]);
    assert_eq!(tag, hex!("ab6e47d42cec13bdf53a67b21257bddf"));

    let key = hex!("feffe9928665731c6d6a8f9467308308");
    let gcm = Gcm::new(block_cipher("aes", &key).unwrap().unwrap());
    let ciphertext = hex!(
        "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
        "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985"
    );
    let (plain, tag) = open(&gcm, &hex!("cafebabefacedbaddecaf888"), &[], &ciphertext);
    assert_eq!(plain[..16], hex!("d9313225f88406e5a55909c5aff5269a"));
    assert_eq!(tag, hex!("4d5c2af327cd64a62cf35abd2ba6fab4"));
}

/// RFC 8439, section 2.8.2, without the last 2 bytes of plaintext's last block: the interface takes whole messages.
#[test]
fn chacha20_poly1305_gives_the_published_tag() {
    let key = hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let ciphertext = hex!(
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
        "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
        "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
        "3ff4def08e4b7a9de576d26586cec64b6116"
    );
    let aead = ChaCha20Poly1305::new(key);
    let (plain, tag) = open(&aead, &hex!("070000004041424344454647"), &hex!("50515253c0c1c2c3c4c5c6c7"), &ciphertext);
    assert!(plain.starts_with(b"Ladies and Gentlemen of the class of '99"));
    assert_eq!(tag, hex!("1ae10b594f09e26a7e902ecbd0600691"));
}

/// AEGIS v1.1, test vectors of AEGIS-128.
#[test]
fn aegis128_gives_the_published_tags() {
    let aead = Aegis128::new([0; 16]);
    let (plain, tag) = open(&aead, &[0; 16], &[], &hex!("951b050fa72b1a2fc16d2e1f01b07d7e"));
    assert_eq!(plain, [0; 16]);
    assert_eq!(tag, hex!("a7d2a99773249542f422217ee888d5f1"));
}

/// draft-irtf-cfrg-aegis-aead, appendix A, the first test vectors of AEGIS-128L and AEGIS-256.
#[test]
fn later_aegis_gives_the_published_tags() {
    let (mut key, mut iv) = ([0; 16], [0; 16]);
    key[..2].copy_from_slice(&[0x10, 0x01]);
    iv[0] = 0x10;
    iv[2] = 0x02;
    let (plain, tag) = open(&Aegis128L::new(key), &iv, &[], &hex!("c1c0e58bd913006feba00f4b3cc3594e"));
    assert_eq!(plain, [0; 16]);
    assert_eq!(tag, hex!("abe0ece80c24868a226a35d16bdae37a"));

    let (mut key, mut iv) = ([0; 32], [0; 32]);
    key[..2].copy_from_slice(&[0x10, 0x01]);
    iv[0] = 0x10;
    iv[2] = 0x02;
    let (plain, tag) = open(&Aegis256::new(key), &iv, &[], &hex!("754fc3d8c973246dcc6d741412a4b236"));
    assert_eq!(plain, [0; 16]);
    assert_eq!(tag, hex!("3fe91994768b332ed7f570a19ec5896e"));
}

/// RFC 4493, section 4, example 3: a message of 40 bytes.
#[test]
fn cmac_gives_the_published_tag() {
    let mac = new_mac("cmac(aes)", &hex!("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
    let message = hex!("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e5130c81c46a35ce411");
    let (aad, ciphertext) = message.split_at(24);
    assert!(mac.verify(aad, ciphertext, &hex!("dfa66747de9ae63030ca32611497c827")));
    assert!(!mac.verify(aad, ciphertext, &hex!("dfa66747de9ae63030ca32611497c828")));
}

fn sectors(encryption: &str, integrity: &str, key: &[u8]) -> SectorAead {
    SectorAead::new(encryption, integrity, None, key, 512).unwrap()
}

#[test]
fn stored_sizes_are_those_of_cryptsetup() {
    for (encryption, integrity, key, stored) in [
        ("aes-xts-plain64", "hmac(sha256)", 64 + 32, 32),
        ("aes-xts-plain64", "hmac(sha512)", 64 + 64, 64),
        ("aes-cbc-essiv:sha256", "hmac(sha1)", 32 + 20, 20),
        ("aes-xts-random", "hmac(sha256)", 64 + 32, 48),
        ("xchacha12,aes-adiantum-plain64", "hmac(sha256)", 32 + 32, 32),
        ("aes-xts-random", "none", 64, 16),
        ("aes-gcm-random", "aead", 16, 28),
        ("serpent-gcm-random", "aead", 32, 28),
        ("aes-gcm-plain64", "aead", 32, 16),
        ("aes-ccm-random", "aead", 19, 24),
        ("aegis128-random", "aead", 16, 32),
        ("aegis128l-random", "aead", 16, 32),
        ("aegis256-random", "aead", 32, 48),
        ("aes-xts-random", "cmac(aes)", 64 + 16, 32),
        ("aes-xts-plain64", "cmac(aes)", 64 + 16, 16),
        ("chacha20-random", "poly1305", 32, 28),
    ] {
        let aead = sectors(encryption, integrity, &vec![7; key]);
        assert_eq!(aead.stored_size(), stored, "{encryption} {integrity}");
        let mut data = vec![0; 1024];
        // Tags of zeroes are right for nothing but what has none.
        let wrong = aead.decrypt(&mut data, &vec![0; 2 * stored], 8, 8).unwrap();
        assert_eq!(wrong, if integrity == "none" { vec![] } else { vec![0, 1] }, "{encryption} {integrity}");
    }
}

#[test]
fn what_is_not_known_or_does_not_fit_is_refused() {
    use crate::ErrorKind::{Corrupt, Unsupported};
    for (encryption, integrity, key, kind) in [
        ("aes-xts-plain64", "cmac(serpent)", 80, Unsupported),
        ("aes-xts-plain64", "cmac(aes)", 15, Corrupt),
        ("aes-xts-plain64", "phmac(sha256)", 96, Unsupported),
        ("aes-cbc-random", "hmac(sha256)", 64, Unsupported),
        ("cipher_null-ecb", "hmac(sha256)", 64, Unsupported),
        ("aes-ecb", "hmac(sha256)", 64, Unsupported),
        ("aes-ctr-plain64", "hmac(sha256)", 64, Unsupported),
        ("aes-xts-plain64", "none", 64, Unsupported),
        ("aes-cbc-essiv:sha256", "none", 32, Unsupported),
        ("xchacha12,aes-adiantum-plain64", "none", 32, Unsupported),
        ("aegis256-random", "aead", 16, Corrupt),
        ("aegis128l-random", "aead", 32, Corrupt),
        ("aegis256l-random", "aead", 32, Unsupported),
        ("aes-gcm-benbi", "aead", 32, Unsupported),
        ("aes-gcm-essiv:sha256", "aead", 32, Unsupported),
        ("aes-gcm-random", "poly1305", 32, Unsupported),
        ("cast5-gcm-random", "aead", 16, Unsupported),
        ("cipher_null-gcm-random", "aead", 16, Unsupported),
        ("aes-gcm-random", "aead", 17, Corrupt),
        ("aes-ccm-random", "aead", 16, Corrupt),
        ("aes-ccm-random", "aead", 2, Corrupt),
        ("aegis128-random", "aead", 32, Corrupt),
        ("chacha20-random", "poly1305", 16, Corrupt),
        ("aes-xts-plain64", "hmac(sha512)", 63, Corrupt),
        ("aes-xts-plain64", "hmac(sha512)", 64, Corrupt),
        ("", "aead", 16, Unsupported),
    ] {
        let e = SectorAead::new(encryption, integrity, None, &vec![7; key], 512).err();
        assert_eq!(e.as_ref().map(Error::kind), Some(kind), "{encryption} {integrity} {key}: {e:?}");
    }
    assert!(SectorAead::new("aes-gcm-random", "aead", None, &[7; 16], 8192).is_err());
    assert!(SectorAead::new("aes-xts-plain64", "hmac(sha256)", Some(0), &[7; 64], 512).is_err());
    assert!(SectorAead::new("aes-xts-plain64", "hmac(sha256)", Some(u64::MAX), &[7; 64], 512).is_err());
    let aead = sectors("aes-gcm-random", "aead", &[7; 16]);
    assert!(aead.decrypt(&mut [0; 511], &[0; 28], 0, 0).is_err());
    assert!(aead.decrypt(&mut [0; 512], &[0; 27], 0, 0).is_err());
}

/// The number of a sector and its IV are authenticated: a sector that is moved is wrong.
#[test]
fn a_sector_in_another_place_is_wrong() {
    // Encrypts by decrypting: counter mode is its own inverse, and GCM's tag is then taken over the ciphertext.
    let gcm = Gcm::new(block_cipher("aes", &[7; 16]).unwrap().unwrap());
    let (iv, mut aad) = ([5; 12], [5; 20]);
    aad[..8].copy_from_slice(&8u64.to_le_bytes());
    let mut ciphertext = vec![0x55; 512];
    gcm.decrypt(&mut ciphertext, &iv, &aad);
    let (plain, tag) = open(&gcm, &iv, &aad, &ciphertext);
    assert_eq!(plain, [0x55; 512]);
    let stored = [&tag[..], &iv].concat();
    let aead = sectors("aes-gcm-random", "aead", &[7; 16]);
    let mut data = ciphertext.clone();
    assert_eq!(aead.decrypt(&mut data, &stored, 8, 8).unwrap(), [0; 0]);
    assert_eq!(data, plain);
    assert_eq!(aead.decrypt(&mut ciphertext.clone(), &stored, 16, 16).unwrap(), [0]);
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 0x80;
        assert_eq!(aead.decrypt(&mut ciphertext.clone(), &changed, 8, 8).unwrap(), [0], "{at}");
    }
    ciphertext[511] ^= 1;
    assert_eq!(aead.decrypt(&mut ciphertext, &stored, 8, 8).unwrap(), [0]);
}

/// Every cipher with every integrity, key and sector size: refused, or able to decrypt whatever is stored.
#[test]
fn no_cipher_with_any_integrity_panics() {
    const CIPHERS: &[&str] = &[
        "aes-xts-plain64",
        "aes-xts-random",
        "aes-xts-null",
        "aes-cbc-plain64",
        "aes-cbc-essiv:sha256",
        "aes-cbc-random",
        "aes-cbc-benbi",
        "aes-ecb",
        "aes-ecb-random",
        "aes-lrw-benbi",
        "aes-lrw-random",
        "aes-gcm-random",
        "aes-gcm-plain64",
        "aes-gcm-null",
        "aes-ccm-random",
        "aes-ccm-plain64",
        "serpent-xts-random",
        "serpent-gcm-random",
        "twofish-cbc-plain",
        "camellia-xts-plain64be",
        "cast5-cbc-plain64",
        "cast5-cbc-random",
        "cast5-xts-random",
        "cast6-xts-plain64",
        "xchacha12,aes-adiantum-plain64",
        "xchacha20,aes-adiantum-random",
        "aegis128-random",
        "aegis128-plain64",
        "chacha20-random",
        "chacha20-plain64",
        "cipher_null-ecb",
        "cipher_null-ecb-random",
        "null-ecb",
        "",
        "-",
        "--",
        "aes",
        "aes-xts",
        "capi:xts(aes)-plain64",
        "capi:rfc4106(gcm(aes))-random",
    ];
    const KINDS: &[&str] =
        &["none", "aead", "poly1305", "hmac(sha1)", "hmac(sha256)", "hmac(sha512)", "cmac(aes)", "phmac(aes)", ""];
    let (mut taken, mut refused) = (0, 0);
    for (cipher, kind) in CIPHERS.iter().flat_map(|c| KINDS.iter().map(move |k| (c, k))) {
        for key in [0, 1, 3, 16, 19, 20, 32, 35, 48, 52, 64, 96, 128, 512] {
            for (sector, mac_key) in
                [(512, None), (4096, None), (1024, Some(0)), (2048, Some(16)), (0, None), (513, None)]
            {
                let Ok(aead) = SectorAead::new(cipher, kind, mac_key, &vec![7; key], sector) else {
                    refused += 1;
                    continue;
                };
                taken += 1;
                let stored = aead.stored_size();
                assert!(stored > 0, "{cipher} {kind} {key}");
                for tags in [0, 1, stored - 1, stored, stored + 1, 2 * stored] {
                    let mut data = vec![3; aead.sector_size() * 2];
                    let done = aead.decrypt(&mut data, &vec![5; tags], u64::MAX, u64::MAX);
                    assert_eq!(done.is_ok(), tags == 2 * stored, "{cipher} {kind} {key}: {tags} bytes of tags");
                    assert!(aead.decrypt(&mut data[1..], &vec![5; tags], 0, 0).is_err());
                    assert!(aead.decrypt(&mut [], &[], 0, 0).unwrap().is_empty());
                }
            }
        }
    }
    assert!(taken > 100 && refused > 10_000, "{taken} taken, {refused} refused");
}
