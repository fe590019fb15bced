//! One header without a finding, and for each code a change that brings it, alone where that can be.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::error::Error;

const MIB: u64 = 1 << 20;

/// A header of which there is nothing to say: two good copies, one keyslot, one dynamic segment at 16 MiB.
pub(crate) fn good() -> Metadata {
    let copy = |role, offset, used| HeaderCopy {
        role,
        offset,
        seqid: Some(3),
        hdr_size: Some(16384),
        uuid: String::new(),
        label: String::new(),
        subsystem: String::new(),
        csum_alg: "sha256".into(),
        salt: vec![0; 64],
        error: None,
        used,
        repaired: false,
    };
    let keyslot = Keyslot {
        kind: KeyslotKind::Luks2(Luks2Keyslot {
            kdf: Kdf::Argon2 {
                variant: "argon2id".into(),
                time: 4,
                memory: 1 << 20,
                cpus: 4,
                salt: Bytes::Decoded(vec![1; 32]),
            },
            af_hash: "sha256".into(),
            af_stripes: 4000,
            encryption: "aes-xts-plain64".into(),
            area_key_size: 64,
        }),
        key_size: 64,
        priority: Priority::Normal,
        area: Area { offset: 32768, size: 258_048 },
    };
    let crypt = CryptSegment { encryption: "aes-xts-plain64".into(), iv_tweak: 0, sector_size: 512, integrity: None };
    let digest = Digest {
        kind: DigestKind::Pbkdf2 {
            hash: "sha256".into(),
            iterations: 100_000,
            salt: Bytes::Decoded(vec![2; 32]),
            digest: Bytes::Decoded(vec![3; 32]),
        },
        keyslots: vec![0],
        segments: vec![0],
    };
    Metadata {
        version: Version::V2,
        uuid: "6ea28771-3840-44f0-8473-3c781e07dd00".into(),
        label: String::new(),
        subsystem: String::new(),
        seqid: 3,
        copies: vec![copy(Role::Primary, 0, true), copy(Role::Secondary, 16384, false)],
        metadata_size: 16384,
        header_size: 16 * MIB,
        keyslots_size: 16 * MIB - 32768,
        differences: Vec::new(),
        keyslots: BTreeMap::from([(0, keyslot)]),
        disabled_keyslots: BTreeMap::new(),
        segments: vec![Segment { kind: SegmentKind::Crypt(crypt), offset: 16 * MIB, size: None, flags: Vec::new() }],
        digests: BTreeMap::from([(0, digest)]),
        tokens: BTreeMap::new(),
        flags: Vec::new(),
        requirements: Vec::new(),
        json: None,
        offline: None,
        recovery: None,
    }
}

/// Adds the state of a reencryption.
fn reencrypting(m: &mut Metadata, resilience: &str) {
    let kind = KeyslotKind::Reencrypt(ReencryptKeyslot {
        mode: "encrypt".into(),
        direction: "forward".into(),
        resilience: resilience.into(),
        hash: None,
        sector_size: None,
        shift_size: None,
    });
    let priority = Priority::Ignore;
    m.keyslots.insert(1, Keyslot { kind, priority, ..m.keyslots[&0].clone() });
}

/// The first segment's parameters.
pub(crate) fn crypt(m: &mut Metadata) -> &mut CryptSegment {
    match &mut m.segments[0].kind {
        SegmentKind::Crypt(c) => c,
        other => panic!("{other:?}"),
    }
}

fn slot(m: &mut Metadata) -> &mut Luks2Keyslot {
    match &mut m.keyslots.get_mut(&0).unwrap().kind {
        KeyslotKind::Luks2(k) => k,
        other => panic!("{other:?}"),
    }
}

fn pbkdf2(hash: &str, iterations: u64) -> Kdf {
    Kdf::Pbkdf2 { hash: hash.into(), iterations, salt: Bytes::Decoded(vec![1; 32]) }
}

fn argon2(time: u64, memory: u64, cpus: u64) -> Kdf {
    Kdf::Argon2 { variant: "argon2i".into(), time, memory, cpus, salt: Bytes::Decoded(vec![1; 32]) }
}

fn digest(m: &mut Metadata) -> &mut DigestKind {
    &mut m.digests.get_mut(&0).unwrap().kind
}

type Change = fn(&mut Metadata, &mut DataFile);

/// A change of the good header and its 20 MiB of file, and what is found then.
struct Case {
    severity: Severity,
    code: &'static str,
    about: &'static str,
    change: Change,
}

const fn case(severity: Severity, code: &'static str, about: &'static str, change: Change) -> Case {
    Case { severity, code, about, change }
}

use Severity::{Critical, Note, Warning};

fn recovery(overwritten: Vec<std::ops::Range<u64>>) -> Box<Recovery> {
    let missing = "the magic is gone".to_owned();
    Box::new(Recovery { error: None, missing, lies_there: None, overwritten, ciphers: 1, patches: Vec::new() })
}

/// Each of these brings exactly one finding.
const CASES: &[Case] = &[
    case(Note, "allow-discards", "config.flags", |m, _| m.flags.push("allow-discards".into())),
    case(Warning, "costly-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(4, (4 << 20) + 1, 4)),
    case(Warning, "costly-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(4, 1 << 20, 65)),
    case(Warning, "costly-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(250, 1 << 20, 4)),
    case(Warning, "costly-kdf", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 61_000_000)),
    case(Warning, "costly-kdf", "digests.0", |m, _| {
        if let DigestKind::Pbkdf2 { iterations, .. } = digest(m) {
            *iterations = u64::from(u32::MAX);
        }
    }),
    case(Note, "detached-header", "data", |m, _| m.segments[0].offset = 0),
    case(Note, "disabled-keyslot-not-wiped", "keyslots.7", |m, _| {
        let area = Area { offset: 4096, size: 4096 };
        m.disabled_keyslots.insert(6, DisabledKeyslot { area, key_size: 64, iterations: 0, salt: vec![0; 32] });
        m.disabled_keyslots.insert(7, DisabledKeyslot { area, key_size: 64, iterations: 0, salt: vec![1; 32] });
    }),
    case(Warning, "ecb", "segments.0", |m, _| crypt(m).encryption = "aes-ecb".into()),
    case(Critical, "few-iterations", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 999)),
    case(Warning, "few-iterations", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 1000)),
    case(Note, "few-iterations", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 599_999)),
    case(Note, "header-backup", "data", |_, f| f.len = Some(16 * MIB)),
    case(Warning, "header-copies-differ", "copies", |m, _| {
        m.differences.push(Difference {
            field: "seqid".into(),
            primary: Some("3".into()),
            secondary: Some("2".into()),
        });
    }),
    case(Warning, "header-copy-damaged", "copies.secondary", |m, _| {
        m.copies[1].error = Some(Error::corrupt("csum", "the checksum does not match"));
        m.differences.push(Difference {
            field: "label".into(),
            primary: Some("a".into()),
            secondary: Some("b".into()),
        });
    }),
    case(Critical, "header-only", "data", |m, f| {
        m.header_size = 15 * MIB;
        f.len = Some(16 * MIB);
    }),
    case(Note, "ignored-keyslot", "keyslots.0", |m, _| {
        m.keyslots.get_mut(&0).unwrap().priority = Priority::Ignore;
    }),
    case(Note, "integrity", "segments.0", |m, _| {
        crypt(m).integrity = Some(Integrity {
            kind: "aead".into(),
            journal_encryption: "none".into(),
            journal_integrity: "none".into(),
            key_size: None,
        });
    }),
    case(Warning, "invalid-kdf", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 0)),
    case(Warning, "invalid-kdf", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha256", 1 << 32)),
    case(Warning, "invalid-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(0, 1 << 20, 4)),
    case(Warning, "invalid-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(4, 31, 4)),
    case(Warning, "invalid-kdf", "keyslots.0", |m, _| slot(m).kdf = argon2(4, 1 << 20, u64::MAX)),
    case(Warning, "invalid-kdf", "digests.0", |m, _| {
        if let DigestKind::Pbkdf2 { iterations, .. } = digest(m) {
            *iterations = 0;
        }
    }),
    case(Warning, "invalid-keyslot", "keyslots.5", |m, _| {
        m.version = Version::V1;
        let kind = KeyslotKind::Unknown { kind: "invalid state 0x00000001".into() };
        m.keyslots.insert(5, Keyslot { kind, ..m.keyslots[&0].clone() });
    }),
    case(Warning, "header-recovered", "header", |m, _| m.recovery = Some(recovery(Vec::new()))),
    case(Note, "leftover-kdf-parameters", "copies.primary", |m, _| m.copies[0].repaired = true),
    case(Note, "little-memory", "keyslots.0", |m, _| slot(m).kdf = argon2(4, 65_535, 4)),
    case(Warning, "little-memory", "keyslots.0", |m, _| slot(m).kdf = argon2(4, 64, 1)),
    case(Warning, "malformed-base64", "keyslots.0", |m, _| {
        if let Kdf::Argon2 { salt, .. } = &mut slot(m).kdf {
            *salt = Bytes::from_base64("!");
        }
    }),
    case(Warning, "malformed-base64", "digests.0", |m, _| {
        if let DigestKind::Pbkdf2 { digest, .. } = digest(m) {
            *digest = Bytes::from_base64("!");
        }
    }),
    case(Warning, "malformed-digest", "digests.0", |m, _| {
        *digest(m) = DigestKind::Malformed { error: "digests.0.hash: found nothing".into() };
    }),
    case(Note, "malformed-uuid", "uuid", |m, _| m.uuid = "6ea28771-3840-44f0-8473-3c781e07dd0g".into()),
    case(Critical, "null-cipher", "segments.0", |m, _| crypt(m).encryption = "cipher_null-ecb".into()),
    case(Critical, "null-cipher", "segments.0", |m, _| crypt(m).encryption = "capi:cbc(cipher_null)-plain64".into()),
    case(Critical, "null-cipher", "keyslots.0", |m, _| slot(m).encryption = "null".into()),
    case(Note, "plain-iv", "segments.0", |m, _| crypt(m).encryption = "aes-xts-plain".into()),
    case(Critical, "plaintext-segment", "segments.0", |m, _| m.segments[0].kind = SegmentKind::Linear),
    case(Warning, "predictable-iv", "segments.0", |m, _| crypt(m).encryption = "aes-cbc-plain64".into()),
    case(Warning, "predictable-iv", "segments.0", |m, _| crypt(m).encryption = "capi:cbc(aes)-plain64".into()),
    case(Warning, "reencryption", "keyslots.1", |m, _| reencrypting(m, "journal")),
    case(Critical, "reencryption", "keyslots.1", |m, _| reencrypting(m, "none")),
    case(Warning, "reencryption", "uuid", |m, _| m.uuid = OFFLINE_UUID.into()),
    case(Note, "requirement", "config.requirements", |m, _| m.requirements.push("online-reencrypt-v2".into())),
    case(Warning, "sector-size", "segments.0", |m, _| crypt(m).sector_size = 8192),
    case(Warning, "sha1", "keyslots.0", |m, _| slot(m).kdf = pbkdf2("sha1", 600_000)),
    case(Critical, "short-key", "segments.0", |m, _| m.keyslots.get_mut(&0).unwrap().key_size = 16),
    case(Warning, "small-block", "segments.0", |m, _| crypt(m).encryption = "cast5-cbc-essiv:sha256".into()),
    case(Critical, "truncated", "segments.0", |_, f| f.len = Some(20 * MIB - 1)),
    case(Note, "unbound", "keyslots.1", |m, _| {
        m.keyslots.insert(1, m.keyslots[&0].clone());
        m.digests.insert(1, Digest { keyslots: vec![1], segments: vec![], ..m.digests[&0].clone() });
    }),
    case(Warning, "unknown-cipher", "segments.0", |m, _| crypt(m).encryption = "rot13-xts-plain64".into()),
    case(Warning, "unknown-cipher", "keyslots.0", |m, _| slot(m).encryption = "aes-xts-\u{1b}".into()),
    case(Warning, "unknown-digest", "digests.0", |m, _| *digest(m) = DigestKind::Unknown { kind: "x".into() }),
    case(Warning, "unknown-hash", "keyslots.0", |m, _| slot(m).af_hash = "crc32".into()),
    case(Warning, "unknown-hash", "digests.0", |m, _| {
        if let DigestKind::Pbkdf2 { hash, .. } = digest(m) {
            *hash = "crc32".into();
        }
    }),
    case(Warning, "unknown-kdf", "keyslots.0", |m, _| slot(m).kdf = Kdf::Unknown { kind: "scrypt".into() }),
    case(Note, "unknown-keyslot", "keyslots.1", |m, _| {
        let kind = KeyslotKind::Unknown { kind: "x".into() };
        m.keyslots.insert(1, Keyslot { kind, ..m.keyslots[&0].clone() });
    }),
    case(Note, "unknown-priority", "keyslots.0", |m, _| {
        m.keyslots.get_mut(&0).unwrap().priority = Priority::Unknown(7);
    }),
    case(Warning, "unknown-segment", "segments.0", |m, _| {
        m.segments[0].kind = SegmentKind::Unknown { kind: "hw-opal".into() };
    }),
];

/// These bring others with them: all of them, the gravest first.
const TOGETHER: &[(Change, &[&str])] = &[
    (
        |m, _| m.recovery = Some(recovery(std::iter::once(20 * MIB - 16896..20 * MIB).collect())),
        &["overwritten", "header-recovered"],
    ),
    (
        |m, _| {
            m.keyslots.clear();
            m.digests.get_mut(&0).unwrap().keyslots.clear();
        },
        &["no-keyslot", "no-key"],
    ),
    (
        |m, _| {
            let other = Digest { keyslots: vec![0], segments: vec![1], ..m.digests[&0].clone() };
            m.digests.get_mut(&0).unwrap().keyslots.clear();
            m.digests.insert(1, other);
        },
        &["no-key", "unbound"],
    ),
    (|m, _| m.requirements.push("online-reencrypt".into()), &["unauthenticated-reencryption", "requirement"]),
    (|m, _| crypt(m).encryption = "aes".into(), &["predictable-iv", "plain-iv"]),
];

fn found(change: Change) -> Vec<Finding> {
    let mut metadata = good();
    let mut file = DataFile { len: Some(20 * MIB), detached: false };
    change(&mut metadata, &mut file);
    findings(&metadata, Some(file))
}

#[test]
fn of_a_good_header_there_is_nothing_to_say() {
    assert_eq!(found(|_, _| {}), []);
}

#[test]
fn each_weak_point_is_found_and_nothing_else() {
    for case in CASES {
        let found: Vec<_> = found(case.change).into_iter().map(|f| (f.severity, f.code, f.about, f.message)).collect();
        let [(severity, code, about, message)] = found.as_slice() else { panic!("{}: {found:?}", case.code) };
        assert_eq!((*severity, *code, about.as_str()), (case.severity, case.code, case.about), "{message}");
        assert!(!message.is_empty() && !message.contains(|c: char| c.is_control()), "{message}");
    }
    for (change, codes) in TOGETHER {
        let found = found(*change);
        assert_eq!(found.iter().map(|f| f.code).collect::<Vec<_>>(), *codes);
        assert!(found.is_sorted_by_key(|f| std::cmp::Reverse(f.severity)));
    }
}

#[test]
fn each_code_has_a_case() {
    let together = TOGETHER.iter().flat_map(|(_, codes)| codes.iter().copied());
    // Those of the keyslots' areas and of dm-integrity have theirs beside their own code, and tests/decrypt/refused.rs.
    let elsewhere = ["keyslot-overwritten", "keyslot-unreadable", "integrity-shorter"];
    let cases: BTreeSet<_> = CASES.iter().map(|c| c.code).chain(together).chain(elsewhere).collect();
    assert_eq!(cases, CODES.iter().copied().collect());
}

#[test]
fn without_a_data_file_nothing_is_said_about_data() {
    let mut m = good();
    m.segments[0].offset = 0;
    assert_eq!(findings(&m, None), []);
    // A detached header's data starts at byte 0 of its own file.
    assert_eq!(findings(&m, Some(DataFile { len: Some(MIB), detached: true })), []);
}

#[test]
fn a_damaged_copy_is_not_also_said_to_differ() {
    let mut m = good();
    m.differences.push(Difference { field: "json".into(), primary: None, secondary: None });
    assert_eq!(findings(&m, None)[0].code, "header-copies-differ");
    m.copies[0].error = Some(Error::corrupt("csum", "x"));
    assert_eq!(findings(&m, None).iter().map(|f| f.code).collect::<Vec<_>>(), ["header-copy-damaged"]);
}

/// What opens is not called unknown, and what does not open is.
#[cfg(feature = "unlock")]
#[test]
fn a_cipher_above_dm_integrity_is_known_where_it_decrypts() {
    let ciphers =
        ["aes-gcm", "aes-ccm", "aegis128", "aegis128l", "aegis256", "chacha20", "aes-xts", "aes-cbc", "aes-gcmx"];
    let kinds = ["aead", "poly1305", "hmac(sha256)", "none"];
    let mut opening = 0;
    for (cipher, kind, iv) in ciphers
        .iter()
        .flat_map(|c| kinds.iter().flat_map(move |k| ["random", "plain64", "lmk"].map(move |iv| (*c, *k, iv))))
    {
        let encryption = format!("{cipher}-{iv}");
        let opens = [16, 19, 32, 35, 64, 96].iter().any(|len| {
            let key = vec![7; *len];
            crate::crypto::aead::SectorAead::new(&encryption, kind, None, &key, 512).is_ok()
        });
        opening += u32::from(opens);
        let mut metadata = good();
        let journal = || "none".to_owned();
        *crypt(&mut metadata) = CryptSegment {
            encryption: encryption.clone(),
            integrity: Some(Integrity {
                kind: kind.into(),
                journal_encryption: journal(),
                journal_integrity: journal(),
                key_size: None,
            }),
            ..crypt(&mut metadata).clone()
        };
        let unknown = findings(&metadata, None).iter().any(|f| f.code == "unknown-cipher");
        assert!(!opens || !unknown, "{encryption} with {kind}");
        assert!(opens || unknown || cipher == "aes-cbc" || cipher == "aes-xts", "{encryption} with {kind}");
    }
    assert!(opening > 12, "{opening}");
}
