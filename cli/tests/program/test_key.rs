//! `unluks test-key`: which keyslots a key opens.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Golden, Run, text, unluks, unluks_with_stdin};

fn stdout(run: &Run) -> String {
    String::from_utf8(run.stdout.clone()).unwrap()
}

#[test]
fn each_keyslot_has_a_word() {
    let golden = Golden::unpack("l1-two-slots");
    let image = text(&golden.image);
    fs::write(&golden.key, "second\n").unwrap();
    let key = text(&golden.key);
    let run = unluks(&["test-key", &image, "--passphrase-file", &key]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let line = "opens: keyslot 0 does not open, keyslot 5 opens (the bytes as they are)\n";
    assert_eq!(stdout(&run), format!("{image}: {line}"));
    assert_eq!(run.stderr, "");

    let run = unluks(&["test-key", &image, "--key", &key, "--json", "--key-slot", "5"]);
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let slots = json!([
        {"keyslot": 0, "result": "not-tried"},
        {"keyslot": 5, "result": "opens", "rule": "without the trailing newline"},
    ]);
    assert_eq!(report, json!({"image": image, "opens": true, "keyslots": slots}));
}

#[test]
fn several_images_are_tested_with_one_key() {
    let (a, b) = (Golden::unpack("l1-two-slots"), Golden::unpack("l2-priority-ignore"));
    let images = [text(&a.image), text(&b.image)];
    // One line of the standard input serves them all.
    let run = unluks_with_stdin(&["test-key", &images[0], &images[1]], b"second\n");
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    let out = stdout(&run);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].contains(": opens: keyslot 0 does not open, keyslot 5 opens"), "{out}");
    assert!(lines[1].contains(": stays closed: ") && lines[1].contains("keyslot 2 not tried"), "{out}");

    // What cannot be looked at is worse than a wrong key, and keeps none from being tested.
    let gone = text(&a.path("gone"));
    let run = unluks_with_stdin(&["test-key", &images[1], &gone, &images[0], "--json"], b"second\n");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    let opens: Vec<_> =
        stdout(&run).lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["opens"].clone()).collect();
    assert_eq!(opens, [json!(false), json!(false), json!(true)]);
}
