//! LUKS2 headers that cryptsetup does not open: what is left of them does, where that is asked for.

use std::fs;

use serde_json::{Value, json};

use super::{Case, plaintext};
use crate::common::{change_luks2, text, unluks};

const NAME: &str = "luks2-pbkdf2";

/// The image with another JSON area in both copies, whose checksums are right.
fn with_json(change: impl Fn(&mut Value)) -> Case {
    let case = Case::new(NAME, |_| ());
    change_luks2(&case.image, change);
    case
}

#[test]
fn what_is_damaged_is_left_out_and_the_rest_opens() {
    let plaintext = plaintext(NAME);
    let second = |m: &mut Value, change: &dyn Fn(&mut Value)| {
        let mut slot = m["keyslots"]["0"].clone();
        change(&mut slot);
        m["keyslots"]["1"] = slot;
        for digest in m["digests"].as_object_mut().unwrap().values_mut() {
            digest["keyslots"].as_array_mut().unwrap().push("1".into());
        }
    };
    type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
    let cases: Vec<(&str, Change<'_>, &str)> = vec![
        ("a token without a type", Box::new(|m| m["tokens"] = json!({"0": {"keyslots": []}})), "token 0 is damaged"),
        (
            "a token of a keyslot that is not there, and one that is right",
            Box::new(|m| {
                m["tokens"] = json!({"0": {"type": "a", "keyslots": ["7"]}, "1": {"type": "b", "keyslots": ["0"]}})
            }),
            "token 0 is damaged, and not shown",
        ),
        ("tokens that are no object", Box::new(|m| m["tokens"] = json!([1])), ""),
        (
            "an area beyond the others",
            Box::new(|m| second(m, &|slot| slot["area"]["offset"] = "99999744".into())),
            "keyslot 1 is damaged, and not used",
        ),
        ("areas that overlap", Box::new(|m| second(m, &|_| ())), "keyslot 1 is damaged"),
        ("a keyslot without a KDF", Box::new(|m| second(m, &|slot| slot["kdf"] = Value::Null)), "keyslot 1 is damaged"),
        (
            "a keyslot of no digest",
            Box::new(|m| {
                second(m, &|_| ());
                m["digests"]["0"]["keyslots"] = json!(["0"]);
            }),
            "keyslot 1 is damaged",
        ),
        (
            "a digest of a keyslot that is not there",
            Box::new(|m| m["digests"]["0"]["keyslots"] = json!(["0", "5"])),
            "",
        ),
        (
            "a configuration of another header",
            Box::new(|m| (m["config"]["json_size"], m["config"]["keyslots_size"]) = ("28672".into(), "1".into())),
            "the configuration contradicts the header",
        ),
        ("no configuration", Box::new(|m| m["config"] = Value::Null), "the configuration contradicts the header"),
    ];
    for (what, change, says) in cases {
        let case = with_json(change);
        let run = case.decrypt(&[]);
        assert_eq!(run.refusal_fault(&[4]), None, "{what}: {}", run.stderr);
        assert!(run.stderr.contains("--recover takes what is left of it"), "{what}: {}", run.stderr);
        let inspect = unluks(&["inspect", &text(&case.image)]);
        assert_eq!(inspect.code, Some(4), "{what}: {}", inspect.stderr);
        let run = case.decrypt(&["--recover"]);
        assert_eq!(run.code, Some(0), "{what}: {}", run.stderr);
        assert!(case.output() == plaintext, "{what}");
        assert!(run.stderr.contains(says) && run.stderr.contains("warning: "), "{what}: {}", run.stderr);
        let inspect = unluks(&["inspect", "--recover", &text(&case.image)]);
        assert!(
            inspect.code == Some(4) && inspect.stderr.contains("decrypt and serve open it"),
            "{what}: {}",
            inspect.stderr
        );
        assert!(String::from_utf8_lossy(&inspect.stdout).contains("keyslot"), "{what}");
    }
}

#[test]
fn checksums_that_do_not_match_leave_the_rest_unproved_and_say_so() {
    let plaintext = plaintext(NAME);
    let case = Case::new(NAME, |image| {
        image[448] ^= 1;
        image[0x4000 + 448] ^= 1;
    });
    assert_eq!(case.decrypt(&[]).refusal_fault(&[4]), None);
    let run = case.decrypt(&["--recover"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("no checksum proves the primary header"), "{}", run.stderr);
    assert!(case.output() == plaintext);
    // A record says so, too.
    let page = case.path("page.html");
    let run = case.decrypt(&["--recover", "--report", &page]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("header.recovered") && page.contains("no checksum proves the primary header"), "{page}");
    // Bytes behind the end of the text.
    let case = Case::new(NAME, |image| [0x3ff0, 0x7ff0].iter().for_each(|at| image[*at] = b'x'));
    assert_eq!(case.decrypt(&[]).refusal_fault(&[4]), None);
    assert_eq!(case.decrypt(&["--recover"]).code, Some(0));
    assert!(case.output() == plaintext);
}

#[test]
fn what_cannot_be_left_out_is_refused_as_ever() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 4] = [
        ("no keyslot", |m| m["keyslots"] = json!({})),
        ("no segment", |m| m["segments"] = json!({})),
        ("the only keyslot", |m| m["keyslots"]["0"]["area"]["size"] = "0".into()),
        ("a requirement that is no list", |m| m["config"]["requirements"] = json!({"mandatory": 5})),
    ];
    for (what, change) in cases {
        let case = with_json(change);
        let (plain, recover) = (case.decrypt(&[]), case.decrypt(&["--recover"]));
        assert_ne!(plain.code, Some(0), "{what}");
        assert_eq!((recover.code, &recover.stderr), (plain.code, &plain.stderr), "{what}");
        assert!(!plain.stderr.contains("--recover"), "{what}: {}", plain.stderr);
    }
}

/// What is left of the header is one that cryptsetup takes.
#[test]
#[cfg(feature = "peer-tests")]
fn cryptsetup_takes_what_is_left() {
    let case = with_json(|m| {
        m["tokens"] = json!({"0": {"keyslots": []}});
        m["config"]["json_size"] = "1".into();
    });
    let (image, header) = (text(&case.image), case.path("header"));
    let cryptsetup = |header: &str| {
        let args = ["open", "--test-passphrase", "--key-file", &case.path("key"), header];
        crate::common::peer("cryptsetup", "cryptsetup-bin", &args).code
    };
    assert_ne!(cryptsetup(&image), Some(0));
    let run = unluks(&["header", &image, "--recover", "--output", &header]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    fs::OpenOptions::new().append(true).open(&header).unwrap().set_len(2 << 20).unwrap();
    assert_eq!(cryptsetup(&header), Some(0));
}
