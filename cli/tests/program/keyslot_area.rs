//! What the passphrase cannot open: a keyslot whose area was overwritten is called so, by inspecting and by unlocking;
//! one that is intact, or was overwritten with noise, is not.

use std::fs;

use serde_json::Value;

use crate::common::{Golden, chain, check_all, golden_names, sidecar, text, unluks};

const CODE: &str = "keyslot-overwritten";

fn findings(golden: &Golden) -> Option<Vec<Value>> {
    let mut args = vec!["inspect".to_owned(), "--json".to_owned(), text(&golden.image)];
    args.extend(golden.header.iter().flat_map(|h| ["--header".to_owned(), text(h)]));
    args.extend(golden.has_tag("partition").then(|| ["--partition".to_owned(), "2".to_owned()]).into_iter().flatten());
    let run = unluks(&args);
    let report: Value = serde_json::from_slice(&run.stdout).ok()?;
    let all = report["findings"].as_array().unwrap();
    Some(all.iter().filter(|f| f["code"] == CODE || f["code"] == "keyslot-unreadable").cloned().collect())
}

/// Images that were made by hand, with nothing in their keyslots' areas: they exist for their headers.
const EMPTY: &[&str] = &[
    "l2-hostile-argon2-memory",
    "l2-hostile-argon2-memory-8g",
    "l2-hostile-argon2-time",
    "l2-hostile-digest-iterations",
    "l2-hostile-pbkdf2-iterations",
    "l2-unknown-af-hash",
    "l2-unknown-hash",
    "l2-unknown-kdf",
    "l2-unknown-keyslot-cipher",
    "l2-unknown-requirement",
];

#[test]
fn no_keyslot_that_a_kernel_or_qemu_wrote_is_called_overwritten() {
    let names = golden_names();
    let opens =
        names.iter().filter(|n| sidecar(n)["expect"]["exit"] == 0 && findings(&Golden::unpack(n)).is_some()).count();
    assert!(opens > 60, "only {opens} were looked at");
    check_all(
        &names,
        |name| name.clone(),
        |name| match findings(&Golden::unpack(name)).unwrap_or_default() {
            found if EMPTY.contains(&name.as_str()) => found.is_empty().then(|| "nothing was found".into()),
            found if found.is_empty() => None,
            found => Some(format!("{found:?}")),
        },
    );
}

/// The golden image with keyslot 0's area (byte 32768, 256,000 bytes of key material) changed.
fn damaged(change: impl FnOnce(&mut [u8])) -> Golden {
    let golden = Golden::unpack("l2-argon2id");
    let mut image = fs::read(&golden.image).unwrap();
    change(&mut image[32768..32768 + 256_000]);
    fs::write(&golden.image, image).unwrap();
    golden
}

#[test]
fn inspect_and_the_refusal_say_that_the_slot_is_gone() {
    let text_of_a_log = b"Nov 20 23:46:01 host kernel: written to the wrong disk\n".repeat(100);
    let mut swap = vec![0u8; 4096];
    swap[4086..].copy_from_slice(b"SWAPSPACE2");
    let cases: [(&[u8], usize, &str); 4] = [
        (&[0; 4096], 8192, "8 of 500 sectors are zeroes, from byte 40960 on"),
        (&text_of_a_log[..4096], 4096, "8 of 500 sectors are text, from byte 36864 on"),
        (&[0xff; 63_488], 0, "124 of 500 sectors are one repeated byte, from byte 32768 on"),
        (
            &swap,
            0,
            "7 of 500 sectors are zeroes, 1 other data that is no noise, from byte 32768 on, with the signature of swap space",
        ),
    ];
    for (bytes, at, says) in cases {
        let golden = damaged(|area| area[at..at + bytes.len()].copy_from_slice(bytes));
        let found = findings(&golden).unwrap();
        let [finding] = found.as_slice() else { panic!("{says}: {found:?}") };
        assert_eq!((&finding["severity"], &finding["about"]), (&"critical".into(), &"keyslots.0".into()));
        let message = finding["message"].as_str().unwrap();
        assert!(message.contains(says) && message.contains("no passphrase opens it any more"), "{message}");
        let run = golden.decrypt(&golden.path("out"), false);
        assert_eq!(run.refusal_fault(&[3]), None);
        let says = format!("keyslot 0's area looks overwritten ({says}): the key may be right and the keyslot gone");
        assert!(run.stderr.contains(&says), "{}", run.stderr);
        assert!(run.stderr.contains("header backup"), "{}", run.stderr);
    }
}

/// Six bytes, or noise over the noise, leave nothing that could be told without the key: claiming damage, or its
/// absence, would be a guess.
#[test]
fn what_cannot_be_told_is_not_claimed() {
    let golden = Golden::unpack("l2-keyslot-damaged");
    let noise = damaged(|area| area.copy_from_slice(&chain("noise", area.len())));
    let wrong = Golden::unpack("l2-wrong-passphrase");
    for golden in [&golden, &noise, &wrong] {
        assert_eq!(findings(golden).unwrap(), Vec::<Value>::new());
        let run = golden.decrypt(&golden.path("out"), false);
        assert_eq!(run.refusal_fault(&[3]), None);
        assert!(run.stderr.contains("does not open") && !run.stderr.contains("overwritten"), "{}", run.stderr);
    }
}

/// One slot is gone, the passphrase is another's: both are said.
#[test]
fn each_slot_is_judged_by_itself() {
    let golden = Golden::unpack("l1-two-slots");
    let before = findings(&golden).unwrap();
    assert_eq!(before, Vec::<Value>::new());
    let metadata = unluks::open(&fs::read(&golden.image).unwrap()).unwrap();
    let area = metadata.keyslots[&0].area;
    let mut image = fs::read(&golden.image).unwrap();
    let at = usize::try_from(area.offset).unwrap();
    image[at..at + 4096].fill(0);
    fs::write(&golden.image, image).unwrap();
    let found = findings(&golden).unwrap();
    assert_eq!(found.iter().map(|f| f["about"].as_str().unwrap()).collect::<Vec<_>>(), ["keyslots.0"]);
    // The passphrase is keyslot 5's: it opens all the same.
    assert_eq!(golden.decrypt(&golden.path("out"), true).code, Some(0));
    fs::write(&golden.key, "another").unwrap();
    let run = golden.decrypt(&golden.path("out2"), false);
    assert_eq!(run.code, Some(3));
    assert!(run.stderr.contains("keyslot 0's area") && !run.stderr.contains("keyslot 5's area"), "{}", run.stderr);
}
