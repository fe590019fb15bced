use std::time::{Duration, Instant};

use ::pbkdf2::hmac::SimpleHmac;
use proptest::prelude::*;

use super::*;
use crate::ErrorKind;
use crate::with_hash;

/// `hashlib.pbkdf2_hmac(name, b"correct horse", bytes(range(32)), 3, 48)` of Python 3, or the same from its `hmac` and
/// `hashlib.blake2b(digest_size=...)`; for whirlpool, with `openssl dgst -provider legacy`.
#[rustfmt::skip]
const FROM_PYTHON: &[(&str, &str)] = &[
    ("sha1", "d40bd697d74f7a95c1b1a132197ec6635eb035ee1622812d8f857e22c20f9aaf3f3d8232b93c9d5ff911f9a8095a9fb4"),
    ("sha224", "af4d7749fd63aa034d9d40ee1ba1dd4ae1c4c164cd3d9d651d724f49414b530d7fbfc2a28e1d6b97952a079db92ec38c"),
    ("sha256", "bbac65ff09a9cf6ec6a255e9803d293c0bf883d7ae850736e45f3bbab81ba5f87faa9794879d1c7890b667344e3ec5c0"),
    ("sha384", "893984a0b5bc502d4900778195912b7a452cfde7ac6cbebfb14cea65c1197ef60026d225ffc2628d984308aa170d59cf"),
    ("sha512", "0ab04eaac6cd7908903127879b20cc3371cd7e264bd358ebb497f3361b867e9221d75729f748a67d7d5704a510c51d59"),
    ("ripemd160", "3d27f280993d6d8d37edb9b81bc7d0c33cafc24dcf90b16e590e07a490180ebc51598a10308899f271698d156372cd31"),
    ("whirlpool", "58dc33b99018985675604e194a37153ee87dfa3834df28a95c9d242d2ba1d63003fae5d645aa3d9408da0e9408c735e0"),
    ("sha3-224", "549ec82d7d86ddcfbb5b881c531591023a7e552f9119241d9378c4a3d1790fcc04232d73f4b3ec70a96b33831cdf5d39"),
    ("sha3-256", "a5232699e185284f6956322fb27112ed521a35b429df22633758f7022efbbe2602f04562863df41481fddc2ce03b3977"),
    ("sha3-384", "6ad24cee605a97e9369e38643fa3a1ec63c6772e42d74200bf612581337613078dd4c1b440b0f6eace11fc18ccca82cf"),
    ("sha3-512", "dd0d0319ebc99fcc8cf94b84ef6d692891a908e0bbf391ac80b0ae8e54736dc3c9ec003e6aabf471dcf61a38b9624228"),
    ("blake2b-160", "6686ff56594d7a5da7ba430425b63e0ffe05f25bc16f5e2db55ceba5dc02547cdee5fb10c3fc67464476500a4d8d992c"),
    ("blake2b-256", "5ea0f85d2ad79403f93b4144bc94714090d19a07709487c889de89c444fdf720234a6f3dc841de3c3719fe1dd22a8ba2"),
    ("blake2b-384", "1ed8db5f4343d4bd0bd39e8dfade6b1a223eda77bc21692579015da69ce4e401c8f168ed18bf697f458c59cb15121cf9"),
    ("blake2b-512", "e3454a31bda3f4a2b448324209253a24bd925d0c11203c069e30186c7bacdd30c15f9d54aad296bb8003244a4e4ae6df"),
    ("blake2s-128", "9e5eae90e8aafa45cd72248f529b1a513bc260e40f9d16b42bb6d220bd98816dcba43e9a17e058926d2a8c0f5b7d70e0"),
    ("blake2s-160", "1c632f377138100493266fc9aa6eb1913b467852c8ae7092604f0112b55953d0faa14100c6253cf6aaf0ad6006a76cd9"),
    ("blake2s-224", "b106e921104a0faf70e44499b8b33ae4ea0c79e2fa11a1f0ef1685286c1d02aba4b0fe6d332a56df8c532d1fd5924b0d"),
    ("blake2s-256", "28529ff65af5409519392c7f513bb03bb600d667f3787cd0f66e85633845994c1a872b878ea160a4bea9aeb161b6fbb8"),
];

/// Hash, passphrase, salt, iterations, key.
type Pbkdf2Vector = (Hash, &'static [u8], &'static [u8], u32, &'static str);
/// Variant, passes, KiB, lanes, passphrase, key.
type Argon2Vector = (Argon2Variant, u32, u32, u32, &'static [u8], &'static str);

fn pbkdf2(hash: Hash, iterations: u32, salt: &[u8]) -> Kdf {
    Kdf::Pbkdf2 { hash, iterations, salt: salt.to_vec() }
}

fn argon2(variant: Argon2Variant, time: u32, memory_kib: u32, cpus: u32) -> Kdf {
    Kdf::Argon2 { variant, time, memory_kib, cpus, salt: b"somesalt".to_vec() }
}

fn derive(kdf: &Kdf, passphrase: &[u8], len: usize) -> String {
    let mut out = SecretBytes::zeroed(len).unwrap();
    kdf.derive(passphrase, &mut out).unwrap();
    hex::encode(out.expose())
}

#[test]
fn pbkdf2_gives_what_rfc_6070_and_7914_publish() {
    use Hash::{Sha1, Sha256, Sha512};
    let long_salt = b"saltSALTsaltSALTsaltSALTsaltSALTsalt";
    #[rustfmt::skip]
    let published: &[Pbkdf2Vector] = &[
        (Sha1, b"password", b"salt", 1, "0c60c80f961f0e71f3a9b524af6012062fe037a6"),
        (Sha1, b"password", b"salt", 2, "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"),
        (Sha1, b"password", b"salt", 4096, "4b007901b765489abead49d926f721d065a429c1"),
        (Sha1, b"passwordPASSWORDpassword", long_salt, 4096, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"),
        (Sha1, b"pass\0word", b"sa\0lt", 4096, "56fa6aa75548099dcc37d7f03425e0c3"),
        (Sha256, b"passwd", b"salt", 1,
            "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc\
             49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"),
        (Sha256, b"Password", b"NaCl", 80000,
            "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56\
             a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"),
        (Sha512, b"password", b"salt", 1,
            "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252\
             c02d470a285a0501bad999bfe943c08f050235d7d68b1da55e63f73b60a57fce"),
        (Sha512, b"passwordPASSWORDpassword", long_salt, 4096,
            "8c0511f4c6e597c6ac6315d8f0362e225f3c501495ba23b868c005174dc4ee71\
             115b59f9e60cd9532fa33e0f75aefe30225c583a186cd82bd4daea9724a3d3b8"),
    ];
    for (hash, passphrase, salt, iterations, key) in published {
        let kdf = pbkdf2(*hash, *iterations, salt);
        assert_eq!(derive(&kdf, passphrase, key.len() / 2), *key, "{kdf:?}");
    }
}

#[test]
fn pbkdf2_agrees_with_python_for_every_hash() {
    let salt: Vec<u8> = (0..32).collect();
    for (name, key) in FROM_PYTHON {
        let kdf = pbkdf2(Hash::from_name(name).unwrap(), 3, &salt);
        assert_eq!(derive(&kdf, b"correct horse", 48), *key, "{name}");
    }
    // Longer than a block of the hash, so that HMAC hashes it first.
    let long = [b'p'; 200];
    for (hash, key) in [
        (Hash::Sha256, "fd70f852a1c6f36470e7bfd5e32321594e93bdf68e62a0471a58044334e9ad03"),
        (Hash::Sha512, "c8aa9dff6c72fa5d1a923826edf07085d10b16e990bf8bc77a8e4881d44e29c2"),
    ] {
        assert_eq!(derive(&pbkdf2(hash, 3, &salt), &long, 32), key, "{hash:?}");
    }
}

/// The first four are in libargon2's `src/test.c`; the others were made with libargon2 20171227, since those of RFC 9106
/// have a secret and associated data, which LUKS does not.
#[test]
fn argon2_gives_what_libargon2_gives() {
    use Argon2Variant::{I, Id};
    #[rustfmt::skip]
    let published: &[Argon2Vector] = &[
        (I, 2, 256, 1, b"password", "89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"),
        (I, 2, 256, 2, b"password", "4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61"),
        (Id, 2, 256, 1, b"password", "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
        (Id, 2, 256, 2, b"password", "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
    ];
    for (variant, time, memory_kib, cpus, passphrase, key) in published {
        let kdf = argon2(*variant, *time, *memory_kib, *cpus);
        assert_eq!(derive(&kdf, passphrase, 32), *key, "{kdf:?}");
    }
    // As LUKS2 has them: a salt of 32 bytes, memory that is no multiple of the lanes, keys of 256, 512 and 768 bits.
    #[rustfmt::skip]
    let made: &[Argon2Vector] = &[
        (I, 3, 1234, 3, b"", "21853e554dc9e956280576eac92e0849dafaff8f92386e55f6f0f41e5643b1c6"),
        (Id, 3, 1234, 3, b"", "cd37b5cbd98a4ffa7c067922b014ccd933b04f553ffc87af7bc1843680fe6f17"),
        (I, 3, 1234, 3, b"correct horse", "6e465e5430a81bf3ab85be72dd40e25d210eac27d5967509ff5ab75fd821c018"),
        (Id, 3, 1234, 3, b"correct horse", "1440326645ef333cf6c97f077ce541c269514ed999b87258a0760d6d43a198b4"),
        (Id, 4, 2048, 4, b"correct horse",
            "03ef670378df09ed8b52722e0219358c0eab7fca3faf23ae3b6cf0ef00be638d\
             a0dbe30f7578400bec967d44bcf0c0e8ea34349e28a2533baefea3ef86f5f0f1"),
        (I, 4, 2048, 4, b"correct horse",
            "97c7a4dcb85c2741f27ab852e84e731d126abd96b35a14b6bc4ecac54bd04082\
             bef7bc6c9f561ae86d34b94594979f09f912b2d559af10429ef0ee7231965ea1\
             0318b89fe5ee83ff9897655e671efe3b129532686f78d10f13953cf3fd61296c"),
    ];
    for (variant, time, memory_kib, cpus, passphrase, key) in made {
        let salt = (0..32).collect();
        let kdf = Kdf::Argon2 { variant: *variant, time: *time, memory_kib: *memory_kib, cpus: *cpus, salt };
        assert_eq!(derive(&kdf, passphrase, key.len() / 2), *key, "{kdf:?}");
    }
}

#[test]
fn parameters_that_the_function_does_not_allow_are_corrupt() {
    use Argon2Variant::{I, Id};
    let short_salt = Kdf::Argon2 { variant: I, time: 1, memory_kib: 8, cpus: 1, salt: vec![0; 7] };
    for (kdf, output_len, rule) in [
        (pbkdf2(Hash::Sha1, 0, b"salt"), 32, "kdf.iterations"),
        (pbkdf2(Hash::Sha1, 1, b"salt"), 0, "kdf.output"),
        (argon2(I, 0, 8, 1), 32, "kdf.time"),
        (argon2(Id, 1, 7, 1), 32, "kdf.memory"),
        (argon2(Id, 1, 31, 4), 32, "kdf.memory"),
        (argon2(Id, 1, u32::MAX, u32::MAX), 32, "kdf.cpus"),
        (argon2(Id, 1, 1024, u32::MAX), 32, "kdf.memory"),
        (argon2(Id, 1, 8, 0), 32, "kdf.cpus"),
        (argon2(Id, 1, 8, 1), 3, "kdf.output"),
        (short_salt, 32, "kdf.salt"),
    ] {
        let error = kdf.check(&Limits::default(), output_len).unwrap_err();
        assert_eq!((error.kind(), error.rule()), (ErrorKind::Corrupt, rule), "{kdf:?}");
        let mut out = SecretBytes::zeroed(output_len).unwrap();
        let error = kdf.derive(b"passphrase", &mut out).unwrap_err();
        assert_eq!((error.kind(), error.rule()), (ErrorKind::Corrupt, rule), "{kdf:?}");
    }
    // The least that is allowed.
    argon2(I, 1, 8, 1).check(&Limits::default(), 4).unwrap();
    argon2(Id, 1, 32, 4).check(&Limits::default(), 4).unwrap();
    pbkdf2(Hash::Sha1, 1, b"").check(&Limits::default(), 1).unwrap();
}

#[test]
fn what_costs_more_than_the_limits_is_refused() {
    use Argon2Variant::Id;
    let limits = Limits { kdf_memory: 1 << 30, kdf_time: Duration::from_secs(2) };
    for (kdf, rule, found, hint) in [
        (argon2(Id, 1, 1 << 20, 65), "kdf.cpus", "65", Hint::from("nothing raises this limit")),
        (argon2(Id, 1, (1 << 20) + 1, 4), "kdf.memory", "1073742848", Hint::RaiseKdfMemory),
        (argon2(Id, u32::MAX, u32::MAX, 4), "kdf.memory", "4398046510080", Hint::RaiseKdfMemory),
        (argon2(Id, u32::MAX, 1 << 20, 4), "kdf.time", "4294967295 passes", Hint::RaiseKdfTime),
        (argon2(Id, u32::MAX, 32, 4), "kdf.time", "4294967295 passes", Hint::RaiseKdfTime),
        (pbkdf2(Hash::Sha512, u32::MAX, b""), "kdf.time", "4294967295 iterations", Hint::RaiseKdfTime),
    ] {
        let error = kdf.check(&limits, 64).unwrap_err();
        assert_eq!((error.kind(), error.rule()), (ErrorKind::LimitExceeded, rule), "{kdf:?}");
        assert!(error.message().contains(found), "{error}");
        assert_eq!(error.hint(), Some(&hint));
    }
    // Exactly the limit is allowed.
    argon2(Id, 1, 1 << 20, 64).check(&Limits { kdf_time: Duration::MAX, ..limits }, 64).unwrap();
}

#[test]
fn beyond_the_threshold_this_machine_is_measured() {
    let kdf = pbkdf2(Hash::Sha512, 2000, b"");
    let table = kdf.estimate(64);
    assert_eq!(cost::estimate(&kdf, 64, table), table);
    // No machine takes the table's time to the nanosecond.
    assert_ne!(cost::estimate(&kdf, 64, table - Duration::from_nanos(1)), table);
}

#[test]
fn ordinary_parameters_are_estimated_from_the_table() {
    // What cryptsetup writes by default on a fast machine: 2 s of each of them.
    let argon2id = argon2(Argon2Variant::Id, 10, 1 << 20, 4);
    let luks1 = pbkdf2(Hash::Sha256, 4_000_000, b"");
    for kdf in [argon2id, luks1] {
        let estimate = kdf.estimate(64);
        assert!(estimate > Duration::from_secs(2) && estimate <= cost::MEASURE_ABOVE, "{kdf:?}: {estimate:?}");
        // A measurement would not give the same nanoseconds twice.
        assert_eq!(estimate, kdf.estimate(64));
    }
}

#[test]
fn estimates_of_anything_end_and_do_not_overflow() {
    use Argon2Variant::Id;
    for n in [0, 1, u32::MAX] {
        for output_len in [0, 1, 64, usize::MAX] {
            pbkdf2(Hash::Blake2s128, n, b"").estimate(output_len);
        }
        for memory_kib in [0, 1, u32::MAX] {
            argon2(Id, n, memory_kib, n).estimate(64);
        }
    }
    let hour = Duration::from_secs(3600);
    assert!(argon2(Id, u32::MAX, u32::MAX, 4).estimate(64) > hour);
    assert!(pbkdf2(Hash::Sha1, u32::MAX, b"").estimate(usize::MAX) > hour);
}

#[test]
fn a_measured_estimate_is_near_the_truth() {
    for kdf in [pbkdf2(Hash::Sha256, 50_000, b""), argon2(Argon2Variant::Id, 8, 8 << 10, 4)] {
        let estimate = cost::estimate(&kdf, 64, Duration::ZERO);
        let start = Instant::now();
        derive(&kdf, b"passphrase", 64);
        let taken = start.elapsed();
        // The machine may be busy with other tests at one time and not at the other.
        assert!(estimate < taken * 20 && taken < estimate * 20, "{kdf:?}: estimated {estimate:?}, took {taken:?}");
    }
}

#[test]
fn memory_is_what_the_header_asks_for() {
    assert_eq!(argon2(Argon2Variant::Id, 1, u32::MAX, 4).memory(), 4_398_046_510_080);
    assert_eq!(pbkdf2(Hash::Sha1, u32::MAX, b"").memory(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn pbkdf2_agrees_with_the_crate(
        (name, _) in prop::sample::select(FROM_PYTHON),
        passphrase in prop::collection::vec(any::<u8>(), 0..300),
        salt in prop::collection::vec(any::<u8>(), 0..64),
        iterations in 1u32..20,
        len in 1usize..200,
        threads in 1usize..5,
    ) {
        let hash = Hash::from_name(name).unwrap();
        let (mut ours, mut theirs) = (vec![0; len], vec![0xff; len]);
        super::pbkdf2::derive(hash, &passphrase, &salt, iterations, &mut ours, threads).unwrap();
        with_hash!(hash, D => ::pbkdf2::pbkdf2::<SimpleHmac<D>>(&passphrase, &salt, iterations, &mut theirs).unwrap());
        prop_assert_eq!(hex::encode(&ours), hex::encode(&theirs));
    }
}
