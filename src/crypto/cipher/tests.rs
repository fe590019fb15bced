use cipher::{Array, BlockCipherEncrypt, BlockModeEncrypt, BlockSizeUser, consts::U16};
use hex_literal::hex;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn spec(text: &str) -> CipherSpec {
    CipherSpec::parse(text).unwrap()
}

fn decrypted(text: &str, key: &[u8], sector_size: u32, data: &[u8], iv_sector: u64) -> Vec<u8> {
    let mut data = data.to_vec();
    SectorCipher::new(&spec(text), key, sector_size).unwrap().decrypt(&mut data, iv_sector).unwrap();
    data
}

/// The data unit of IEEE 1619's vectors 4 and 10.
fn counting() -> Vec<u8> {
    (0..=255).chain(0..=255).collect()
}

const IEEE_1619_VECTOR_4: [u8; 512] = hex!(
    "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89cc78cf7f5e543445f8333d8fa7f560000"
    "05279fa5d8b5e4ad40e736ddb4d35412328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
    "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad02655ea92dc4c4e41a8952c651d33174be51"
    "a10c421110e6d81588ede82103a252d8a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
    "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c5ccf2a55d705ddcd86d449511ceb7ec3"
    "0bf12b1fa35b913f9f747a8afd1b130e94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
    "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3e7ff72b1e99785ca0a7e7720c5b36dc6"
    "d72cac9574c8cbbc2f801e23e56fd344b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
    "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752afe656bb3c17256a9f6e9bf19fdd5a38"
    "fc82bbe872c5539edb609ef4f79c203ebb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
    "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568"
);

const IEEE_1619_VECTOR_10: [u8; 512] = hex!(
    "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44"
    "680a86ac35adfc3345befecb4bb188fd5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
    "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca2a3e7a7d7df7b10355165c8b9a6d0a7d"
    "e8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
    "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec583e9645e07b8d9670655ba5bbcfecc6"
    "dc3966380ad8fecb17b6ba02469a020a84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
    "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae9be69a2ffeceb1bec9de244fbe15992b"
    "11b77c040f12bd8f6a975a44a0f90c29a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
    "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e9bfdef33943054ff84011493"
    "c27b3429eaedb4ed5376441a77ed43851ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
    "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"
);

#[test]
fn xts_vectors_of_ieee_1619() {
    let key = hex!("2718281828459045235360287471352631415926535897932384626433832795");
    assert_eq!(decrypted("aes-xts-plain64", &key, 512, &IEEE_1619_VECTOR_4, 0), counting());
    let key = hex!(
        "2718281828459045235360287471352662497757247093699959574966967627"
        "3141592653589793238462643383279502884197169399375105820974944592"
    );
    assert_eq!(decrypted("aes-xts-plain64", &key, 512, &IEEE_1619_VECTOR_10, 0xff), counting());
    assert_eq!(decrypted("capi:xts(ecb(aes-generic))-plain", &key, 512, &IEEE_1619_VECTOR_10, 0xff), counting());
}

#[test]
fn cbc_vectors_of_nist_sp_800_38a() {
    let plain = hex!(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    );
    for (key, ciphertext) in [
        (
            &hex!("2b7e151628aed2a6abf7158809cf4f3c")[..],
            hex!(
                "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
                "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
            ),
        ),
        (
            &hex!("8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"),
            hex!(
                "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
                "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"
            ),
        ),
        (
            &hex!("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
            hex!(
                "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
                "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"
            ),
        ),
    ] {
        let mut sector = [0; 512];
        sector[..64].copy_from_slice(&ciphertext);
        let mut iv = hex!("000102030405060708090a0b0c0d0e0f");
        new_mode(&spec("aes-cbc-plain64"), key).unwrap().decrypt(&mut sector, &mut iv, 512);
        assert_eq!(sector[..64], plain);
    }
}

/// FIPS 197, RFC 3713, RFC 2144, RFC 2612, the Twofish paper, and the kernel's crypto/testmgr.h for Serpent.
#[test]
fn each_cipher_and_key_size_by_its_own_vector() {
    let plain = hex!("00112233445566778899aabbccddeeff").to_vec();
    let key: Vec<u8> = (0..32).collect();
    let camellia = hex!("0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff");
    for (name, key, plain, ciphertext) in [
        ("aes", &key[..16], &plain[..], &hex!("69c4e0d86a7b0430d8cdb78070b4c55a")[..]),
        ("aes", &key[..24], &plain, &hex!("dda97ca4864cdfe06eaf70a0ec0d7191")),
        ("aes", &key[..32], &plain, &hex!("8ea2b7ca516745bfeafc49904b496089")),
        ("camellia", &camellia[..16], &camellia[..16], &hex!("67673138549669730857065648eabe43")),
        ("camellia", &camellia[..24], &camellia[..16], &hex!("b4993401b3e996f84ee5cee7d79b09b9")),
        ("camellia", &camellia[..32], &camellia[..16], &hex!("9acc237dff16d76c20ef7c919e3a7509")),
        ("serpent", &key[..16], &key[..16], &hex!("4c7d8a328072a22c823e4a1f3acda16d")),
        ("serpent", &key[..32], &key[..16], &hex!("de269ff833e432b85b2e88d2701ce75c")),
        ("twofish", &[0; 16], &[0; 16], &hex!("9f589f5cf6122c32b6bfec2f2ae8c35a")),
        ("twofish", &camellia[..24], &[0; 16], &hex!("cfd1d2e5a9be9cdf501f13b892bd2248")),
        ("twofish", &camellia[..32], &[0; 16], &hex!("37527be0052334b89f0cfccae87cfa20")),
        ("cast6", &hex!("2342bb9efa38542c0af75647f29f615d"), &[0; 16], &hex!("c842a08972b43d20836c91d1b7530f6b")),
        (
            "cast6",
            &hex!("2342bb9efa38542cbed0ac83940ac298bac77a7717942863"),
            &[0; 16],
            &hex!("1b386c0210dcadcbdd0e41aa08a7a7e8"),
        ),
        (
            "cast6",
            &hex!("2342bb9efa38542cbed0ac83940ac2988d7c47ce264908461cc1b5137ae6b604"),
            &[0; 16],
            &hex!("4f6a2038286897b9c9870136553317fa"),
        ),
        ("cast5", &hex!("0123456712345678234567893456789a"), &hex!("0123456789abcdef"), &hex!("238b4fe5847e44b2")),
        ("cast5", &hex!("01234567123456782345"), &hex!("0123456789abcdef"), &hex!("eb6a711a2c02271b")),
        ("cast5", &hex!("0123456712"), &hex!("0123456789abcdef"), &hex!("7ac816d16e9b302e")),
    ] {
        let sector = ciphertext.repeat(512 / ciphertext.len());
        let found = decrypted(&format!("{name}-ecb"), key, 512, &sector, 9);
        assert_eq!(found, plain.repeat(512 / plain.len()), "{name}, {} bytes", key.len());
    }
}

#[test]
fn the_null_cipher_changes_nothing_and_takes_any_key() {
    for key in [&[][..], &[1; 7], &[1; 32]] {
        let found = decrypted("cipher_null-ecb", key, 4096, &[7; 8192], 3);
        assert_eq!(found, [7; 8192]);
    }
}

#[test]
fn keys_of_the_wrong_size_are_refused() {
    for (text, len, says) in [
        ("aes-xts-plain64", 33, "aes-xts-plain64 takes twice 16, 24 or 32"),
        ("aes-xts-plain64", 0, "found 0 bytes"),
        ("aes-xts-plain64", 31, "found 31 bytes"),
        ("aes-cbc-plain64", 64, "found 64 bytes; aes-cbc-plain64 takes 16, 24 or 32"),
        ("aes-ecb", 20, "takes 16, 24 or 32"),
        ("serpent-cbc-plain", 33, "takes 16 to 32"),
        ("serpent-xts-plain", 65, "takes twice 16 to 32"),
        ("twofish-xts-plain", 30, "takes twice 16, 24 or 32"),
        ("camellia-cbc-plain", 20, "takes 16, 24 or 32"),
        ("cast5-cbc-plain", 24, "takes 5 to 16"),
        ("cast6-cbc-plain", 17, "takes 16, 20, 24, 28 or 32"),
        ("aes-cbc-essiv:sha1", 32, "essiv:sha1 makes a key of 20 bytes; aes takes 16, 24 or 32"),
        ("aes-cbc-essiv:sha512", 32, "essiv:sha512 makes a key of 64 bytes"),
        ("cast5-cbc-essiv:sha256", 16, "essiv:sha256 makes a key of 32 bytes; cast5 takes 5 to 16"),
    ] {
        let e = SectorCipher::new(&spec(text), &vec![0; len], 512).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "key_size"), "{text} {len}: {e}");
        assert!(e.message().contains(says), "{text} {len}: {e}");
    }
}

#[test]
fn unknown_names_and_what_does_not_fit_are_unsupported() {
    for (text, says) in [
        ("sm4-xts-plain64", "\"sm4\""),
        ("aes-xts-random", "\"random\""),
        ("aes-hctr2-plain64", "\"hctr2\""),
        ("cast5-xts-plain64", "16-byte blocks"),
        ("cast5-lrw-benbi", "16-byte blocks"),
        ("aes-adiantum-plain64", "xchacha12,aes"),
        ("xchacha12,aes-xts-plain64", "no mode but adiantum"),
        ("xchacha12,aes-adiantum-essiv:sha256", "one cipher block"),
        ("cipher_null-cbc-plain", "no mode but ecb"),
    ] {
        let e = SectorCipher::new(&spec(text), &[0; 32], 512).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "cipher"), "{text}: {e}");
        assert!(e.message().contains(says), "{text}: {e}");
    }
}

#[test]
fn only_whole_sectors_of_an_allowed_size() {
    for size in [0, 1, 256, 513, 1536, 8192, u32::MAX] {
        let e = SectorCipher::new(&spec("aes-xts-plain64"), &[0; 32], size).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "sector_size"));
    }
    let cipher = SectorCipher::new(&spec("aes-xts-plain64"), &[0; 32], 4096).unwrap();
    assert_eq!(cipher.decrypt(&mut [0; 4608], 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    cipher.decrypt(&mut [], 0).unwrap();
}

/// Any modes of any ciphers, encrypted one sector at a time by the crates `xts-mode` and `cbc`.
mod peers {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap()).collect()
    }

    fn xts<C>(key: &[u8], sector_size: usize, plain: &[u8], ivs: impl Fn(u64) -> [u8; 16], first: u64) -> Vec<u8>
    where
        C: KeyInit + BlockCipherEncrypt + cipher::BlockCipherDecrypt + BlockSizeUser<BlockSize = U16>,
    {
        let (data_key, tweak_key) = key.split_at(key.len() / 2);
        let half = |key| C::new_from_slice(key).unwrap();
        let xts = xts_mode::Xts128::new(half(data_key), half(tweak_key));
        each_sector(plain, sector_size, first, |sector, n| xts.encrypt_sector(sector, Array(ivs(n))))
    }

    fn cbc<C: KeyInit + BlockCipherEncrypt>(
        key: &[u8],
        sector_size: usize,
        plain: &[u8],
        iv: impl Fn(u64) -> Vec<u8>,
        first: u64,
    ) -> Vec<u8> {
        each_sector(plain, sector_size, first, |sector, n| {
            let cipher = C::new_from_slice(key).unwrap();
            let iv = iv(n);
            let iv = Array::<u8, C::BlockSize>::slice_as_array(&iv).unwrap();
            let mut encryptor = <::cbc::Encryptor<C> as cipher::InnerIvInit>::inner_iv_init(cipher, iv);
            encryptor.encrypt_blocks(Array::slice_as_chunks_mut(sector).0);
        })
    }

    fn each_sector(plain: &[u8], sector_size: usize, first: u64, encrypt: impl Fn(&mut [u8], u64)) -> Vec<u8> {
        let mut data = plain.to_vec();
        let step = u64::try_from(sector_size / 512).unwrap();
        let mut n = first;
        for sector in data.chunks_mut(sector_size) {
            encrypt(sector, n);
            n = n.wrapping_add(step);
        }
        data
    }

    fn plain64(n: u64) -> [u8; 16] {
        u128::from(n).to_le_bytes()
    }

    fn benbi(n: u64) -> [u8; 16] {
        u128::from(n.wrapping_mul(32).wrapping_add(1)).to_be_bytes()
    }

    fn sector_sizes() -> impl Strategy<Value = (u32, usize)> {
        // Past a run of 128 sectors where sectors are small; debug builds are slow.
        prop_oneof![
            (Just(512), 1usize..300),
            (Just(1024), 1usize..140),
            (Just(2048), 1usize..40),
            (Just(4096), 1usize..20)
        ]
    }

    type XtsIv = fn(u64) -> [u8; 16];
    type CbcIv<'a> = &'a dyn Fn(u64) -> Vec<u8>;

    const XTS_IVS: [(&str, XtsIv); 5] = [
        ("plain64", plain64),
        ("plain", |n| plain64(n & 0xffff_ffff)),
        ("plain64be", |n| u128::from(n).to_be_bytes()),
        ("benbi", benbi),
        ("null", |_| [0; 16]),
    ];

    fn aes_xts_is_the_peers(size: u32, count: usize, key: &[u8], first: u64) {
        let sector_size = usize::try_from(size).unwrap();
        let plain = bytes(sector_size * count);
        for (name, iv) in XTS_IVS {
            let data = match key.len() {
                32 => xts::<aes::Aes128>(key, sector_size, &plain, iv, first),
                48 => xts::<aes::Aes192>(key, sector_size, &plain, iv, first),
                _ => xts::<aes::Aes256>(key, sector_size, &plain, iv, first),
            };
            assert!(decrypted(&format!("aes-xts-{name}"), key, size, &data, first) == plain, "{name}");
        }
    }

    fn aes_cbc_is_the_peers(size: u32, count: usize, key: &[u8], first: u64) {
        let sector_size = usize::try_from(size).unwrap();
        let plain = bytes(sector_size * count);
        let essiv = |n| {
            let mut iv = Array(plain64(n));
            aes::Aes256::new_from_slice(&Hash::Sha256.digest(&[key])).unwrap().encrypt_block(&mut iv);
            iv.to_vec()
        };
        let ivs: [(&str, CbcIv<'_>); 3] =
            [("plain64", &|n| plain64(n).to_vec()), ("essiv:sha256", &essiv), ("benbi", &|n| benbi(n).to_vec())];
        for (name, iv) in ivs {
            let data = match key.len() {
                16 => cbc::<aes::Aes128>(key, sector_size, &plain, iv, first),
                24 => cbc::<aes::Aes192>(key, sector_size, &plain, iv, first),
                _ => cbc::<aes::Aes256>(key, sector_size, &plain, iv, first),
            };
            assert!(decrypted(&format!("aes-cbc-{name}"), key, size, &data, first) == plain, "{name}");
        }
    }

    fn key_sizes() -> impl Strategy<Value = usize> {
        prop_oneof![Just(16), Just(24), Just(32)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn aes_xts((size, count) in sector_sizes(), key in any::<[u8; 64]>(), half in key_sizes(), first in any::<u64>()) {
            aes_xts_is_the_peers(size, count, &key[..2 * half], first);
        }

        #[test]
        fn aes_cbc((size, count) in sector_sizes(), key in any::<[u8; 32]>(), len in key_sizes(), first in any::<u64>()) {
            aes_cbc_is_the_peers(size, count, &key[..len], first);
        }

        #[test]
        fn other_ciphers(count in 1usize..5, key in any::<[u8; 64]>(), first in any::<u64>()) {
            let plain = bytes(1024 * count);
            let iv = |n| plain64(n).to_vec();
            macro_rules! wide {
                ($name:literal, $C:ty) => {{
                    let data = xts::<$C>(&key, 1024, &plain, plain64, first);
                    prop_assert_eq!(&decrypted(concat!($name, "-xts-plain64"), &key, 1024, &data, first), &plain);
                    let data = cbc::<$C>(&key[..32], 1024, &plain, iv, first);
                    prop_assert_eq!(&decrypted(concat!($name, "-cbc-plain64"), &key[..32], 1024, &data, first), &plain);
                }};
            }
            wide!("serpent", serpent::Serpent);
            wide!("twofish", ::twofish::Twofish);
            wide!("camellia", camellia::Camellia256);
            wide!("cast6", cast6::Cast6);
            let data = cbc::<cast5::Cast5>(&key[..16], 1024, &plain, |n| n.to_le_bytes().to_vec(), first);
            prop_assert_eq!(&decrypted("cast5-cbc-plain64", &key[..16], 1024, &data, first), &plain);
            let narrow_benbi = |n: u64| n.wrapping_mul(64).wrapping_add(1).to_be_bytes().to_vec();
            let data = cbc::<cast5::Cast5>(&key[..16], 1024, &plain, narrow_benbi, first);
            prop_assert_eq!(&decrypted("cast5-cbc-benbi", &key[..16], 1024, &data, first), &plain);
            // Serpent takes the 20 bytes of SHA-1, as the kernel does.
            let salt = Hash::Sha1.digest(&[&key[..32]]);
            let essiv = |n| {
                let mut iv = Array(plain64(n));
                serpent::Serpent::new_from_slice(&salt).unwrap().encrypt_block(&mut iv);
                iv.to_vec()
            };
            let data = cbc::<serpent::Serpent>(&key[..32], 1024, &plain, essiv, first);
            prop_assert_eq!(&decrypted("serpent-cbc-essiv:sha1", &key[..32], 1024, &data, first), &plain);
        }
    }
}

/// One unit of any length and IV, past the IV generator: what published vectors have.
fn decrypted_unit(text: &str, key: &[u8], iv: &[u8], data: &[u8]) -> Vec<u8> {
    let (mut iv, mut data) = (iv.to_vec(), data.to_vec());
    let len = data.len();
    new_mode(&spec(text), key).unwrap().decrypt(&mut data, &mut iv, len);
    data
}

/// The kernel's crypto/testmgr.h, which has them of google/adiantum.
#[test]
fn adiantum_vectors() {
    let key = hex!("9eebb2493c1cf5f46a99c2c4dfb1f4dd752057ea2c4fcdb2a53d7b491eabfd0f");
    let iv = hex!("df63d4abd249f3d8338137607dfa7308d8496d80e82f6254eb0ea9395b457f8a");
    let plain = hex!("67c9f23084418e43fbf3b33e79367fe8");
    let ciphertext = hex!("6d32861867860f3f967c9d280d53ec9f");
    assert_eq!(decrypted_unit("xchacha12,aes-adiantum-plain64", &key, &iv, &ciphertext), plain);
    let ciphertext = hex!("f67897d6aa9401272e4d83e06e649adf");
    assert_eq!(decrypted_unit("xchacha20,aes-adiantum-plain64", &key, &iv, &ciphertext), plain);

    let key = hex!("a52824341a3cd8f705918fee851f357f803dfc9b94f6fc9e190900a904314f11");
    let iv = hex!("a1ba4995ff346db8cd875d5efdea85db8a7b5eb25d57dd62aca98c41429475b7");
    let plain = hex!(
        "69b4e88c37e86782f1ec5d04e5149113dff2871b69811d71709e9c3bde497011a0a3db0d544f6669d7db80a7709268ce"
        "81042cc6abaee56015e96fefaa8fa7a7638ff2f077f1a8eae1b71f9eab9e4b3f07875b6fcda8afb9fa700b52b8a8a79e"
        "075fa60eb39b791379c33e8d1c2c68c8511d3c7b7d79772a5665c5542328b003"
    );
    let ciphertext = hex!(
        "9e16abed4ba7425ac6fb4e76ffbe03a00fe3adbae4982b0e2148a0b865482748845454b29a947be64b29e9cf0591801a"
        "3af34196851d9f74515663fa7c288549f72ff9f21846f53380a33cceb25793f5aebda9f57b30c49366e0307716e4a031"
        "ba70bc6813f5b09ac1fc7efe55805c4874a6aaa3acdcc2f58dde34867860758d"
    );
    assert_eq!(decrypted_unit("xchacha12,aes-adiantum-plain64", &key, &iv, &ciphertext), plain);
}

/// IEEE P1619/D2, in the kernel's crypto/testmgr.h.
#[test]
fn lrw_vectors() {
    for (key, iv, ciphertext) in [
        (
            &hex!("4562ac25f828176d4c268414b5680185258e2a05e73e9d03ee5a830ccc094c87")[..],
            1,
            hex!("f1b273cd65a3df5fe95d489254634eb8"),
        ),
        (
            &hex!("59704714f557478cd779e80f548879440d48f0b7b15a53ea1caa6b29c2cafbaf"),
            2,
            hex!("00c82bae95bbcde5274f0769b260e136"),
        ),
        (
            &hex!("d82a9134b26a565030fe69e2377f9847cdf90b160c648fb6b00d0d1bae85871f"),
            2 << 32,
            hex!("76322183ed8ff182f9596203690e5e01"),
        ),
        (
            &hex!("0f6aeff8d3d2bb152583f73c1f012874cac6bc354d4a655490ae61cf7baebdccade494c54a29ae70"),
            1,
            hex!("9c0f152f55a2d8f0d67b8f9e2822bc41"),
        ),
        (
            &hex!("8ad4ee102fbd81fff886ceac93c5adc6a01907c09df7bbdd5213b2b7f0ff11d8d608d0cd2eb1176f"),
            2 << 32,
            hex!("d4276a7f14913d65c860480287e33406"),
        ),
        (
            &hex!("f8d476ffd646ee6c2384cb1c77d6195dfef1a9f37bbc8d21a79c21f8cb900289a845348ec8c5b5f126f50e76fefd1b1e"),
            1,
            hex!("bd06b8e1db98899ec498e491cf1c702b"),
        ),
        (
            &hex!("fb7615b23d80891dd470980bc79584c8b2fb64ce6097878d17fce45a49e830b76e7817e72d5e12d46064047af12f9e0c"),
            2 << 32,
            hex!("5b908ec1abdd675f3d698a9553c89ce5"),
        ),
    ] {
        let iv = u128::to_be_bytes(iv);
        assert_eq!(decrypted_unit("aes-lrw-benbi", key, &iv, &ciphertext), b"0123456789ABCDEF");
    }
}

proptest! {
    /// Each block's tweak multiplied out, against the chain of the mask. Numbers that end in many ones, and wrap, too.
    #[test]
    fn lrw_is_what_it_says(
        key in any::<[u8; 32]>(),
        iv in prop_oneof![any::<u128>(), Just(u128::MAX), Just(u128::MAX - 5), Just((1 << 70) - 3)],
    ) {
        let multiply = |mut a: u128, b: u128| {
            let mut product = 0;
            for bit in 0..128 {
                product ^= ((b >> bit) & 1) * a;
                a = (a << 1) ^ ((a >> 127) * 0x87);
            }
            product
        };
        let plain: Vec<u8> = (0..512u16).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let tweak_key = u128::from_be_bytes(key[16..].try_into().unwrap());
        let cipher = aes::Aes128::new_from_slice(&key[..16]).unwrap();
        let mut number = iv;
        let mut data = Vec::new();
        for block in plain.chunks(16) {
            let tweak = multiply(tweak_key, number);
            let mut block = Array((u128::from_be_bytes(block.try_into().unwrap()) ^ tweak).to_be_bytes());
            cipher.encrypt_block(&mut block);
            data.extend((u128::from_be_bytes(block.0) ^ tweak).to_be_bytes());
            number = number.wrapping_add(1);
        }
        prop_assert_eq!(decrypted_unit("aes-lrw-benbi", &key, &iv.to_be_bytes(), &data), plain);
    }
}
