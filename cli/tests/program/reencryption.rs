//! Reencryptions that were not finished: what nobody without the keys may change, what two passphrases open, and that
//! no state, however wrong, does more than give an error. The plaintext itself is `tests/golden.rs`'s.

use std::sync::Arc;

use crate::common::{
    Golden, chain, check_all, golden_names, latin1, read_stored, sha256, sidecar, text, unluks, unluks_with_stdin,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use unluks::luks::unlock::{UnlockOptions, Unlocked};
use unluks::volume::VolumeOptions;
use unluks::{Error, ErrorKind, Image, Key, ReadAt, Result, SecretBytes, UnlockedImage, Volume, VolumeKey};

/// Bytes of a header copy in all of these images.
const COPY: usize = 0x4000;

/// A golden image in memory, whose metadata can be changed.
#[derive(Clone)]
struct Draft {
    header: Vec<u8>,
    /// The data file, where the header is another.
    data: Option<Vec<u8>>,
    passphrase: Vec<u8>,
}

impl Draft {
    fn of(name: &str) -> Self {
        let sidecar = sidecar(name);
        let image = read_stored(sidecar["image"].as_str().unwrap());
        let passphrase = latin1(sidecar["passphrase"].as_str().unwrap());
        match sidecar["header"].as_str() {
            Some(header) => Self { header: read_stored(header), data: Some(image), passphrase },
            None => Self { header: image, data: None, passphrase },
        }
    }

    fn metadata(&self) -> Value {
        let end = self.header[4096..COPY].iter().position(|b| *b == 0).unwrap();
        serde_json::from_slice(&self.header[4096..4096 + end]).unwrap()
    }

    /// Writes changed metadata into both copies, with their checksums.
    fn change(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut metadata = self.metadata();
        change(&mut metadata);
        let json = serde_json::to_vec(&metadata).unwrap();
        for copy in self.header[..2 * COPY].chunks_exact_mut(COPY) {
            copy[4096..].fill(0);
            copy[4096..][..json.len()].copy_from_slice(&json);
            copy[448..512].fill(0);
            let sum = Sha256::digest(&copy);
            copy[448..480].copy_from_slice(&sum);
        }
        self
    }

    fn open(&self) -> Result<Image> {
        let header: Arc<dyn ReadAt> = Arc::new(self.header.clone());
        let data: Arc<dyn ReadAt> = match &self.data {
            Some(data) => Arc::new(data.clone()),
            None => Arc::clone(&header),
        };
        Image::open_detached(header, data)
    }

    fn unlock(&self) -> Result<UnlockedImage> {
        self.open()?.unlock(&passphrase(&self.passphrase), &UnlockOptions::default())
    }

    fn volume(&self) -> Result<Volume> {
        self.unlock()?.volume(VolumeOptions::default())
    }

    #[track_caller]
    fn refusal(&self) -> Error {
        self.volume().err().expect("the image was opened")
    }
}

fn passphrase(bytes: &[u8]) -> Key {
    Key::passphrase(SecretBytes::copy_of(bytes).unwrap())
}

fn copy(key: &VolumeKey) -> VolumeKey {
    VolumeKey::copy_of(key.expose()).unwrap()
}

fn first_key(unlocked: &UnlockedImage) -> VolumeKey {
    copy(unlocked.keys().values().next().unwrap())
}

fn read_all(volume: &Volume) -> Result<Vec<u8>> {
    let mut all = vec![0; usize::try_from(volume.len()).unwrap()];
    volume.read_exact_at(&mut all, 0)?;
    Ok(all)
}

/// The golden images of reencryptions whose plaintext is the whole chain.
fn all() -> Vec<String> {
    let chained = |n: &String| {
        let s = sidecar(n);
        s["tags"].as_array().unwrap().iter().any(|t| t == "reencryption") && s["plaintext"] == "chain"
    };
    let names: Vec<_> = golden_names().into_iter().filter(chained).collect();
    assert!(names.len() > 20, "{names:?}");
    names
}

/// The number of the keyslot that holds the state.
fn state(metadata: &Value) -> String {
    let slots = metadata["keyslots"].as_object().unwrap();
    slots.iter().find(|(_, k)| k["type"] == "reencrypt").unwrap().0.clone()
}

/// The numbers of the segments that have the flag.
fn flagged(metadata: &Value, flag: &str) -> String {
    let segments = metadata["segments"].as_object().unwrap();
    let has = |s: &Value| s["flags"].as_array().is_some_and(|f| f.iter().any(|f| f == flag));
    segments.iter().find(|(_, s)| has(s)).unwrap().0.clone()
}

/// A hot zone is read as a whole, and byte for byte from anywhere, across its borders and those of its blocks.
#[test]
fn any_part_can_be_read() {
    check_all(
        &all(),
        |name| name.clone(),
        |name| {
            let volume = Draft::of(name).volume().unwrap();
            let whole = read_all(&volume).unwrap();
            if sha256(&whole) != sidecar(name)["sha256"].as_str().unwrap() {
                return Some("wrong plaintext".into());
            }
            let mut seed = 1u64;
            let mut below = |n: usize| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                usize::try_from(seed >> 33).unwrap() % n
            };
            for _ in 0..200 {
                let from = below(whole.len());
                let len = below((whole.len() - from).min(20_000) + 1);
                let mut part = vec![0; len];
                volume.read_exact_at(&mut part, from.try_into().unwrap()).unwrap();
                if part != whole[from..from + len] {
                    return Some(format!("{len} bytes from {from} on are others when read alone"));
                }
            }
            None
        },
    );
}

/// The image's hash is that of its bytes in their order, wherever the plaintext came from.
#[test]
fn the_image_is_hashed_as_it_lies() {
    check_all(
        &all(),
        |name| name.clone(),
        |name| {
            let golden = Golden::unpack(name);
            let mut args = vec!["decrypt".to_owned(), text(&golden.image)];
            args.extend(golden.header.iter().flat_map(|h| ["--header".to_owned(), text(h)]));
            args.extend(["--key-file", &text(&golden.key), "--hash", "image:sha256", "-o", "-"].map(str::to_owned));
            let run = unluks(&args);
            let wanted = sha256(&std::fs::read(&golden.image).unwrap());
            (run.code != Some(0) || !run.stderr.contains(&wanted)).then(|| format!("{:?}, not {wanted}", run.stderr))
        },
    );
}

/// CVE-2021-4122: whoever can write to a header must not be able to make a reencryption of it, or to change one.
#[test]
fn the_state_cannot_be_changed_without_the_keys() {
    let images = ["l2-reencrypt-half", "l2-reencrypt-shift-init", "l2-encrypt-init", "l2-decrypt-init"];
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 6] = [
        ("the direction", |m| {
            let slot = state(m);
            let other = if m["keyslots"][&slot]["direction"] == "forward" { "backward" } else { "forward" };
            m["keyslots"][&slot]["direction"] = other.into();
        }),
        ("the resilience", |m| {
            let slot = state(m);
            let area = &m["keyslots"][&slot]["area"];
            m["keyslots"][&slot]["area"] = json!({"type": "journal", "offset": area["offset"], "size": area["size"]});
        }),
        ("the area's size", |m| {
            let slot = state(m);
            m["keyslots"][&slot]["area"]["size"] = "512".into();
        }),
        ("the new segment's offset", |m| {
            let last = flagged(m, "backup-final");
            m["segments"][&last]["offset"] = "524288".into();
        }),
        ("the old segment's size", |m| {
            let previous = flagged(m, "backup-previous");
            m["segments"][&previous]["size"] = "4096".into();
        }),
        ("the mode", |m| {
            let slot = state(m);
            let other = if m["keyslots"][&slot]["mode"] == "decrypt" { "encrypt" } else { "decrypt" };
            m["keyslots"][&slot]["mode"] = other.into();
        }),
    ];
    for image in images {
        assert!(Draft::of(image).change(|_| {}).volume().is_ok(), "{image}: the unchanged header opens");
        for (what, change) in changes {
            let e = Draft::of(image).change(change).refusal();
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{image}, {what}: {e}");
            assert!(e.rule().ends_with(".digest") && e.to_string().contains("does not match its digest"), "{e}");
        }
        let e = Draft::of(image)
            .change(|m| {
                let slot = state(m);
                for d in m["digests"].as_object_mut().unwrap().values_mut() {
                    d["keyslots"].as_array_mut().unwrap().retain(|k| *k != slot.as_str());
                }
            })
            .refusal();
        assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains("no digest proves"), "{image}: {e}");
    }
}

#[test]
fn a_state_of_another_version_is_refused() {
    for requirement in ["online-reencrypt", "online-reencrypt-v3", "online-reencrypt-v4"] {
        let draft = Draft::of("l2-reencrypt-half");
        let e = draft.change(|m| m["config"]["requirements"]["mandatory"] = json!([requirement])).refusal();
        // The version itself is among the verified data.
        let kind = if requirement.ends_with("v3") { ErrorKind::Corrupt } else { ErrorKind::Unsupported };
        assert_eq!(e.kind(), kind, "{e}");
    }
    let other = json!(["online-reencrypt-v2", "made-up"]);
    let e = Draft::of("l2-reencrypt-half").change(|m| m["config"]["requirements"]["mandatory"] = other).refusal();
    assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains("made-up"), "{e}");
}

/// Without resilience it cannot be known what is old in the hot zone. The digest would refuse this header too, but what
/// the user must learn is which bytes are lost.
#[test]
fn a_hot_zone_without_resilience_is_named() {
    let e = Draft::of("l2-reencrypt-crash-journal")
        .change(|m| {
            let slot = state(m);
            m["keyslots"][&slot]["area"]["type"] = "none".into();
        })
        .refusal();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("which of the 16384 bytes from 212992 on"), "{e}");
}

/// Takes keyslot 0 away: the old volume key is then in keyslot 1 alone, and the new one in keyslot 2.
fn two_passphrases() -> Draft {
    Draft::of("l2-reencrypt-second-passphrase").change(|m| {
        m["keyslots"].as_object_mut().unwrap().remove("0").unwrap();
        for d in m["digests"].as_object_mut().unwrap().values_mut() {
            d["keyslots"].as_array_mut().unwrap().retain(|k| k != "0");
        }
    })
}

#[test]
fn two_passphrases_open_what_one_does_not() {
    let draft = two_passphrases();
    let image = draft.open().unwrap();
    let options = UnlockOptions::default();
    for one in [draft.passphrase.as_slice(), b"second"] {
        let e = image.unlock(&passphrase(one), &options).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::WrongKey);
        assert!(e.to_string().contains("give the other passphrase too"), "{e}");
    }
    let both = passphrase(&draft.passphrase).and(passphrase(b"second"));
    let unlocked = image.unlock(&both, &options).unwrap();
    let mut opened: Vec<_> = unlocked.opened().iter().map(|o| (o.keyslot, o.candidate)).collect();
    opened.sort_unstable();
    assert_eq!(opened, [(1, 1), (2, 0)]);
    let volume = unlocked.volume(VolumeOptions::default()).unwrap();
    assert!(read_all(&volume).unwrap() == chain("l2-reencrypt-second-passphrase", 8192));
}

#[test]
fn the_program_takes_two_passphrases() {
    let dir = tempfile::tempdir().unwrap();
    let draft = two_passphrases();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        text(&path)
    };
    let image = write("image", &draft.header);
    let (first, second, line) =
        (write("first", &draft.passphrase), write("second", b"second"), write("line", b"second\nmore\n"));
    let run = unluks(&["decrypt", &image, "--key-file", &first, "-o", "-"]);
    assert_eq!(run.refusal_fault(&[3]), None);
    for also in [["--also-key-file", &second], ["--also-passphrase-file", &line]] {
        let run = unluks(&["decrypt", &image, "--key-file", &first, also[0], also[1], "-o", "-"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stdout == chain("l2-reencrypt-second-passphrase", 8192));
    }
    let run = unluks(&["decrypt", "-", "--key-file", &first, "--also-key-file", "-", "-o", "-"]);
    assert_eq!(run.refusal_fault(&[2]), None);
}

/// The volume key is enough where there is only one: the other side is not encrypted.
#[test]
fn one_volume_key_opens_an_encryption_and_a_decryption() {
    for name in ["l2-encrypt-crash-last", "l2-decrypt-crash"] {
        let draft = Draft::of(name);
        let image = draft.open().unwrap();
        let key = first_key(&draft.unlock().unwrap());
        let unlocked = image.unlock_with_volume_key(key, &UnlockOptions::default()).unwrap();
        let volume = unlocked.volume(VolumeOptions::default()).unwrap();
        assert!(read_all(&volume).unwrap() == chain(name, usize::try_from(volume.len()).unwrap()), "{name}");
    }
    let draft = Draft::of("l2-reencrypt-half");
    let key = first_key(&draft.unlock().unwrap());
    let e = draft.open().unwrap().unlock_with_volume_key(key, &UnlockOptions::default()).err().unwrap();
    assert!(e.to_string().contains("2 volume keys"), "{e}");
}

/// Where the data moves, its length is known from the file's alone: one that ends inside a sector is cut off.
#[test]
fn a_file_that_is_cut_off_is_missed_where_the_data_moves() {
    for cut in [1, 100, 511] {
        let mut draft = Draft::of("l2-reencrypt-shift-init");
        draft.header.truncate(draft.header.len() - cut);
        let e = draft.refusal();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "truncated"), "without {cut} bytes: {e}");
    }
}

/// What lies in one order comes through a pipe; what does not is refused, and left unread.
#[test]
fn a_pipe_gives_what_lies_in_one_order() {
    for (name, exit) in [("l2-reencrypt-half", 0), ("l2-reencrypt-crash-checksum", 5), ("l2-reencrypt-shift-init", 5)] {
        let golden = Golden::unpack(name);
        let image = std::fs::read(&golden.image).unwrap();
        let run = unluks_with_stdin(&["decrypt", "-", "--key-file", &text(&golden.key), "-o", "-"], &image);
        assert_eq!(run.code, Some(exit), "{name}: {}", run.stderr);
        match exit {
            0 => assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap()),
            _ => assert!(run.stderr.contains("save the image to a file first"), "{}", run.stderr),
        }
    }
}

/// Numbers and names that a hostile header may have in any place.
const HOSTILE: &[&str] = &[
    "0",
    "1",
    "511",
    "512",
    "513",
    "4096",
    "16384",
    "65536",
    "131072",
    "262144",
    "16777216",
    "4294967295",
    "4294967296",
    "9223372036854775296",
    "18446744073709551104",
    "18446744073709551615",
    "dynamic",
    "sha1",
    "whirlpool",
    "crc32",
    "none",
    "checksum",
    "journal",
    "datashift",
    "datashift-checksum",
    "datashift-journal",
    "forward",
    "backward",
    "encrypt",
    "decrypt",
    "reencrypt",
    "linear",
    "crypt",
    "aes-xts-plain64",
    "aes-cbc-essiv:sha256",
    "cipher_null-ecb",
    "",
];

/// Every field of segments and of the state, with every hostile value, with the keys at hand as if the digest had been
/// made anew: an error or some plaintext, never a crash, never a hang, and never a byte more than the file may hold.
#[test]
fn no_state_does_more_than_give_an_error() {
    let images = [
        "l2-reencrypt-crash-checksum",
        "l2-reencrypt-crash-journal",
        "l2-reencrypt-crash-sector-4096",
        "l2-reencrypt-shift-crash",
        "l2-encrypt-crash-last",
        "l2-decrypt-crash-last-checksum",
        "l2-decrypt-crash",
    ];
    check_all(
        &images,
        |name| (*name).to_owned(),
        |name| {
            let good = Draft::of(name);
            let (unlocked, base) = (good.unlock().unwrap(), good.metadata());
            let mut paths = Vec::new();
            for id in base["segments"].as_object().unwrap().keys() {
                let fields = base["segments"][id].as_object().unwrap().keys();
                paths.extend(fields.map(|f| format!("/segments/{id}/{f}")));
            }
            let slot = format!("/keyslots/{}", state(&base));
            let area = base.pointer(&format!("{slot}/area")).unwrap();
            paths.extend(["mode", "direction"].map(|f| format!("{slot}/{f}")));
            paths.extend(area.as_object().unwrap().keys().map(|f| format!("{slot}/area/{f}")));
            let (mut opened, mut refused) = (0, 0);
            for (path, value) in paths.iter().flat_map(|p| HOSTILE.iter().map(move |v| (p, v))) {
                let draft = good.clone().change(|m| {
                    let at = m.pointer_mut(path).unwrap();
                    *at = match at {
                        Value::Number(_) => value.parse::<u64>().map_or_else(|_| json!(value), |n| json!(n)),
                        Value::Array(_) => json!([value]),
                        _ => json!(value),
                    };
                });
                let len = draft.data.as_ref().map_or(draft.header.len(), Vec::len);
                let tried = draft.open().and_then(|image| {
                    let keys = unlocked.keys().iter().map(|(id, key)| (*id, copy(key))).collect();
                    let unlocked = Unlocked::unproven(image.metadata(), keys, &UnlockOptions::default())?;
                    let header: Arc<dyn ReadAt> = Arc::new(draft.header.clone());
                    let data = draft.data.clone().map_or_else(|| Arc::clone(&header), |data| Arc::new(data));
                    Volume::new_detached(image.metadata(), &header, data, &unlocked, VolumeOptions::default())
                });
                match tried.and_then(|volume| {
                    assert!(
                        volume.len() <= u64::try_from(2 * len).unwrap(),
                        "{path} = {value}: {} bytes",
                        volume.len()
                    );
                    read_all(&volume)
                }) {
                    Ok(_) => opened += 1,
                    Err(_) => refused += 1,
                }
            }
            (opened == 0 || refused < 100).then(|| format!("{opened} opened, {refused} refused"))
        },
    );
}
