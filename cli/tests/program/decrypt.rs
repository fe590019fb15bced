//! `unluks decrypt` as a user meets it: outputs, keys, parts, pipes, and what goes wrong on the way.

mod hashes;
mod interrupted;
mod keys;
mod output;
mod part;
mod refused;
mod safe;
mod unreadable;

use std::path::Path;

use crate::common::{Golden, Run, chain, text, unluks};

/// A small image of LUKS2 with sectors of 512 bytes, and its plaintext.
fn small() -> (Golden, Vec<u8>) {
    let golden = Golden::unpack("l2-argon2id");
    let plaintext = chain(&golden.name, 8192);
    (golden, plaintext)
}

/// `unluks decrypt IMAGE --key-file KEY` and more arguments.
fn decrypt(golden: &Golden, more: &[&str]) -> Run {
    let (image, key) = (text(&golden.image), text(&golden.key));
    unluks(&[&["decrypt", &image, "--key-file", &key], more].concat())
}

/// Fails unless the program refused with `code` and one line that has all of `words`.
#[track_caller]
fn assert_refused(run: &Run, code: i32, words: &[&str]) {
    assert_eq!(run.refusal_fault(&[code]), None);
    for word in words {
        assert!(run.stderr.contains(word), "{word:?} is not in {:?}", run.stderr);
    }
}

#[track_caller]
fn assert_ok(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.stderr);
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a line of shell with `$1`, `$2` and so on.
fn sh(line: &str, args: &[&str]) -> Run {
    let line = format!("PATH={}:$PATH; {line}", text(Path::new(crate::common::UNLUKS).parent().unwrap()));
    crate::common::peer("sh", "dash", &[&["-c", &line, "sh"], args].concat())
}
