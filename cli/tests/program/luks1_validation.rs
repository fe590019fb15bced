//! The rules of LUKS1 headers, one changed header for each: `unluks inspect` must accept and refuse what is written
//! here, and so must the real `cryptsetup luksDump`, which is run on a copy.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use crate::common::{check_all, peer, read_stored, text, unluks};
use Verdict::{Accept, Refuse, Unknown};

/// What must happen to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Exit 0.
    Accept,
    /// Exit 4.
    Refuse,
    /// Exit 5: nothing is broken, but nobody can use it. cryptsetup has one answer for this and for what is broken.
    Unknown,
}

/// A header that is being changed, and how long the file is.
struct Draft {
    header: Vec<u8>,
    length: u64,
}

/// One changed header.
struct Case {
    verdict: Verdict,
    name: String,
    change: Box<dyn Fn(&mut Draft) + Sync>,
}

fn case(verdict: Verdict, name: impl Into<String>, change: impl Fn(&mut Draft) + Sync + 'static) -> Case {
    Case { verdict, name: name.into(), change: Box::new(change) }
}

// Where the fields lie.
const MAGIC: usize = 0;
const VERSION: usize = 6;
const CIPHER_NAME: usize = 8;
const CIPHER_MODE: usize = 40;
const HASH_SPEC: usize = 72;
const PAYLOAD_OFFSET: usize = 104;
const KEY_BYTES: usize = 108;
const MK_DIGEST_ITER: usize = 164;
const UUID: usize = 168;
const SLOTS: usize = 208;
// And within a keyslot.
const ACTIVE: usize = 0;
const ITERATIONS: usize = 4;
const KEY_MATERIAL_OFFSET: usize = 40;
const STRIPES: usize = 44;

const ENABLED: u32 = 0x00AC_71F3;
const DISABLED: u32 = 0x0000_DEAD;

impl Draft {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A string field of 32 bytes.
    fn name(&mut self, at: usize, name: &str) {
        self.header[at..at + 32].fill(0);
        self.put(at, name.as_bytes());
    }

    fn number(&mut self, at: usize, n: u32) {
        self.put(at, &n.to_be_bytes());
    }

    fn slot(&mut self, slot: usize, field: usize, n: u32) {
        self.number(SLOTS + 48 * slot + field, n);
    }

    /// Packs the slots as cryptsetup 1.0 did, one right behind the other from sector 8 on.
    fn pack(&mut self) {
        for slot in 0..8 {
            self.slot(slot, KEY_MATERIAL_OFFSET, 8 + 125 * u32::try_from(slot).unwrap());
        }
    }

    fn write(&self, path: &Path) {
        let file = File::create(path).unwrap();
        file.set_len(self.length).unwrap();
        let room = usize::try_from(self.length).unwrap().min(self.header.len());
        file.write_all_at(&self.header[..room], 0).unwrap();
    }
}

/// Made by testdata/make-headers: aes-cbc-plain64, 128 bits, sha256, keyslots 0 and 1 in use, data from sector 2048 on.
static BASE: LazyLock<Vec<u8>> = LazyLock::new(|| read_stored("header-luks1.gz"));

fn cases() -> Vec<Case> {
    let number = |verdict, name: &str, at, n| case(verdict, format!("{name} = {n}"), move |d| d.number(at, n));
    let named = |verdict, field: &str, at, name: &'static str| {
        case(verdict, format!("{field} = {name:?}"), move |d| d.name(at, name))
    };
    let slot = |verdict, name: &str, slot, field, n| {
        case(verdict, format!("slot {slot}: {name} = {n}"), move |d| d.slot(slot, field, n))
    };
    vec![
        case(Accept, "as cryptsetup wrote it", |_| ()),
        // The header.
        case(Refuse, "the magic is gone", |d| d.put(MAGIC, b"VACUUM")),
        case(Refuse, "one bit of the magic is changed", |d| d.header[5] ^= 1),
        case(Refuse, "the magic of a LUKS2 secondary", |d| d.put(MAGIC, b"SKUL")),
        case(Unknown, "version 0", |d| d.put(VERSION, &[0, 0])),
        case(Unknown, "version 3", |d| d.put(VERSION, &[0, 3])),
        case(Unknown, "version 256", |d| d.put(VERSION, &[1, 0])),
        named(Unknown, "hash-spec", HASH_SPEC, "md99"),
        named(Unknown, "hash-spec", HASH_SPEC, ""),
        named(Unknown, "hash-spec", HASH_SPEC, "md5"),
        named(Accept, "hash-spec", HASH_SPEC, "SHA256"),
        named(Accept, "hash-spec", HASH_SPEC, "sha1"),
        named(Accept, "hash-spec", HASH_SPEC, "ripemd160"),
        named(Accept, "hash-spec", HASH_SPEC, "whirlpool"),
        named(Accept, "hash-spec", HASH_SPEC, "sha3-512"),
        named(Accept, "hash-spec", HASH_SPEC, "blake2b-512"),
        named(Accept, "cipher-name", CIPHER_NAME, "rot13"),
        named(Accept, "cipher-mode", CIPHER_MODE, "future"),
        case(Accept, "cipher-name fills its field", |d| d.put(CIPHER_NAME, &[b'a'; 32])),
        case(Accept, "cipher-mode fills its field", |d| d.put(CIPHER_MODE, &[b'a'; 32])),
        case(Unknown, "hash-spec fills its field", |d| d.put(HASH_SPEC, &[b'a'; 32])),
        case(Accept, "uuid fills its field", |d| d.put(UUID, &[b'a'; 40])),
        case(Accept, "uuid is empty", |d| d.put(UUID, &[0; 40])),
        case(Accept, "uuid with bytes that are no UTF-8", |d| d.put(UUID, b"\xff\xfe\x1b[31m\0")),
        number(Accept, "mk-digest-iter", MK_DIGEST_ITER, 0),
        number(Accept, "mk-digest-iter", MK_DIGEST_ITER, u32::MAX),
        number(Refuse, "key-bytes", KEY_BYTES, 0),
        number(Accept, "key-bytes", KEY_BYTES, 1),
        number(Refuse, "key-bytes", KEY_BYTES, 64),
        number(Refuse, "key-bytes", KEY_BYTES, u32::MAX),
        // payload-offset: 0 is a detached header, else it must lie behind all slots.
        number(Accept, "payload-offset", PAYLOAD_OFFSET, 0),
        number(Refuse, "payload-offset", PAYLOAD_OFFSET, 1),
        number(Refuse, "payload-offset", PAYLOAD_OFFSET, 1020),
        number(Accept, "payload-offset", PAYLOAD_OFFSET, 1032),
        number(Accept, "payload-offset", PAYLOAD_OFFSET, 1031),
        number(Accept, "payload-offset", PAYLOAD_OFFSET, u32::MAX),
        // Keyslots, also those that are not in use.
        slot(Accept, "active is disabled", 0, ACTIVE, DISABLED),
        // A slot that is neither enabled nor disabled is not used, and does not make the header bad.
        slot(Accept, "active", 0, ACTIVE, 0),
        slot(Accept, "active", 7, ACTIVE, 1),
        slot(Accept, "active", 0, ACTIVE, ENABLED + 1),
        slot(Accept, "active is enabled", 5, ACTIVE, ENABLED),
        case(Accept, "no slot is enabled", |d| (0..8).for_each(|s| d.slot(s, ACTIVE, DISABLED))),
        slot(Accept, "iterations", 0, ITERATIONS, 0),
        slot(Accept, "iterations", 0, ITERATIONS, u32::MAX),
        slot(Refuse, "stripes", 0, STRIPES, 3999),
        slot(Refuse, "stripes", 0, STRIPES, 4001),
        slot(Refuse, "stripes", 0, STRIPES, 0),
        slot(Refuse, "stripes", 6, STRIPES, 1),
        slot(Refuse, "key-material-offset", 0, KEY_MATERIAL_OFFSET, 0),
        slot(Refuse, "key-material-offset", 0, KEY_MATERIAL_OFFSET, 1),
        slot(Accept, "key-material-offset", 0, KEY_MATERIAL_OFFSET, 2),
        slot(Refuse, "key-material-offset", 7, KEY_MATERIAL_OFFSET, 1),
        slot(Refuse, "key-material-offset", 7, KEY_MATERIAL_OFFSET, 8),
        slot(Refuse, "key-material-offset", 1, KEY_MATERIAL_OFFSET, 132),
        slot(Accept, "key-material-offset", 1, KEY_MATERIAL_OFFSET, 133),
        slot(Accept, "key-material-offset", 7, KEY_MATERIAL_OFFSET, 2048 - 125),
        slot(Refuse, "key-material-offset", 7, KEY_MATERIAL_OFFSET, 2048 - 124),
        slot(Refuse, "key-material-offset", 7, KEY_MATERIAL_OFFSET, u32::MAX),
        case(Accept, "slots in another order", |d| {
            d.slot(0, KEY_MATERIAL_OFFSET, 136);
            d.slot(1, KEY_MATERIAL_OFFSET, 8);
        }),
        case(Accept, "slots packed as cryptsetup 1.0 did", Draft::pack),
        case(Accept, "slots packed, the payload right behind them", |d| {
            d.pack();
            d.number(PAYLOAD_OFFSET, 8 + 8 * 125);
        }),
        case(Refuse, "slots packed, the payload one sector too early", |d| {
            d.pack();
            d.number(PAYLOAD_OFFSET, 8 + 8 * 125 - 1);
        }),
        // The file.
        case(Refuse, "the file is empty", |d| d.length = 0),
        case(Refuse, "the file ends in the header", |d| d.length = 512),
        case(Refuse, "the file ends in the keyslots", |d| d.length = 100 << 10),
        case(Accept, "the file ends behind the keyslots", |d| d.length = 1032 * 512),
        case(Accept, "the file ends where the data begin", |d| d.length = 1 << 20),
        case(Accept, "a valid LUKS1 header, and a LUKS2 magic at 16 KiB", |d| {
            d.header.resize(0x4006, 0);
            d.put(0x4000, b"SKUL\xba\xbe");
        }),
    ]
}

fn check(case: &Case) -> Option<String> {
    let mut draft = Draft { header: BASE.clone(), length: 2 << 20 };
    (case.change)(&mut draft);
    let dir = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|f| dir.path().join(f));
    draft.write(&ours);
    draft.write(&theirs);
    let mut faults = Vec::new();

    if cfg!(feature = "peer-tests") {
        let run = peer("cryptsetup", "cryptsetup-bin", &["luksDump", "--disable-locks", &text(&theirs)]);
        if (run.code == Some(0)) != (case.verdict == Accept) {
            faults.push(format!("cryptsetup exits {:?}: {}", run.code, run.stderr.trim_end()));
        }
    }

    let run = unluks(&["inspect", &text(&ours)]);
    match case.verdict {
        Accept if run.code == Some(0) && !run.stdout.is_empty() => {}
        Accept => faults.push(format!("must be accepted; exit {:?}: {}", run.code, run.stderr.trim_end())),
        Refuse => faults.extend(run.refusal_fault(&[4]).map(|f| format!("must be refused; {f}"))),
        Unknown => faults.extend(run.refusal_fault(&[5]).map(|f| format!("must be refused; {f}"))),
    }
    (!faults.is_empty()).then(|| faults.join("\n    "))
}

#[test]
fn every_rule_of_the_header() {
    let cases = cases();
    let mut names: Vec<_> = cases.iter().map(|c| &c.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    check_all(&cases, |case| case.name.clone(), check);
}
