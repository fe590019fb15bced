//! Where the plaintext goes, and what it must never replace.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use crate::common::{UNLUKS, sha256_file, text};
use crate::decrypt::{assert_ok, assert_refused, decrypt, names, sh, small};

#[test]
fn a_file_and_the_standard_output_get_the_same() {
    let (golden, plaintext) = small();
    let out = golden.path("out");
    let to_file = decrypt(&golden, &["-o", &text(&out)]);
    assert_ok(&to_file);
    assert!(to_file.stdout.is_empty() && to_file.stderr.contains("8192 bytes of plaintext"));
    assert_eq!(fs::read(&out).unwrap(), plaintext);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(out.parent().unwrap()), ["key", "l2-argon2id.img", "out"]);

    let to_stdout = decrypt(&golden, &["-o", "-", "--quiet"]);
    assert_ok(&to_stdout);
    assert_eq!((to_stdout.stdout, to_stdout.stderr), (plaintext, String::new()));
}

#[test]
fn what_is_there_stays_there_without_force() {
    let (golden, plaintext) = small();
    let out = golden.path("out");
    fs::write(&out, "mine").unwrap();
    let run = decrypt(&golden, &["-o", &text(&out)]);
    assert_refused(&run, 2, &["out is there already", "--force"]);
    assert_eq!(fs::read(&out).unwrap(), b"mine");

    assert_ok(&decrypt(&golden, &["-o", &text(&out), "--force"]));
    assert_eq!(fs::read(&out).unwrap(), plaintext);

    // A wrong key leaves even with --force what was there.
    fs::write(&out, "mine").unwrap();
    fs::write(&golden.key, "wrong").unwrap();
    assert_refused(&decrypt(&golden, &["-o", &text(&out), "--force"]), 3, &[]);
    assert_eq!(fs::read(&out).unwrap(), b"mine");
}

#[test]
fn a_link_is_followed_only_with_force_and_stays_a_link() {
    let (golden, plaintext) = small();
    let (out, link) = (golden.path("out"), golden.path("link"));
    fs::write(&out, "mine").unwrap();
    symlink("out", &link).unwrap();
    assert_refused(&decrypt(&golden, &["-o", &text(&link)]), 2, &["there already"]);
    assert_ok(&decrypt(&golden, &["-o", &text(&link), "--force"]));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&out).unwrap(), plaintext);
}

#[test]
fn a_directory_is_no_output() {
    let (golden, _) = small();
    let dir = golden.path("dir");
    fs::create_dir(&dir).unwrap();
    for more in [&[][..], &["--force"]] {
        let run = decrypt(&golden, &[&["-o", &text(&dir)], more].concat());
        assert_refused(&run, 2, &["is a directory"]);
    }
    let nowhere = golden.path("nowhere/out");
    assert_refused(&decrypt(&golden, &["-o", &text(&nowhere)]), 1, &["No such file or directory"]);
}

#[test]
fn the_input_is_never_the_output() {
    let (golden, _) = small();
    let before = sha256_file(&golden.image);
    let (sym, hard) = (golden.path("sym"), golden.path("hard"));
    symlink(&golden.image, &sym).unwrap();
    fs::hard_link(&golden.image, &hard).unwrap();
    for out in [&golden.image, &sym, &hard] {
        for more in [&[][..], &["--force"]] {
            let run = decrypt(&golden, &[&["-o", &text(out)], more].concat());
            assert_refused(&run, 2, &["is the input itself"]);
        }
        let other = text(&golden.path("other"));
        let run = decrypt(&golden, &["-o", &other, "--hash", "sha256", "--hash-file", &text(out), "--force"]);
        assert_refused(&run, 2, &["is the input itself"]);
    }
    assert_eq!(sha256_file(&golden.image), before);
    assert_eq!(names(golden.image.parent().unwrap()), ["hard", "key", "l2-argon2id.img", "sym"]);
}

#[test]
fn a_detached_header_is_never_the_output() {
    let golden = crate::decrypt::Golden::unpack("l2-detached");
    let header = golden.header.as_ref().unwrap();
    let before = sha256_file(header);
    let run = decrypt(&golden, &["--header", &text(header), "-o", &text(header), "--force"]);
    assert_refused(&run, 2, &["is the input itself"]);
    assert_eq!(sha256_file(header), before);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let (golden, _) = small();
    assert_refused(&decrypt(&golden, &["-o", "/dev/full", "--quiet"]), 1, &["No space left on device"]);

    // A limit of 2 blocks on the size of a file stands for a disk that gets full. The message is all there may be.
    let out = golden.path("out");
    let line = r#"ulimit -f 2; exec unluks decrypt "$1" --key-file "$2" -o "$3" --quiet"#;
    for more in ["", " --sparse never", " --direct always"] {
        let run = sh(&format!("{line}{more}"), &[&text(&golden.image), &text(&golden.key), &text(&out)]);
        assert_refused(&run, 1, &["File too large"]);
        assert_eq!(names(out.parent().unwrap()), ["key", "l2-argon2id.img"]);
    }
}

#[test]
fn a_reader_that_goes_away_is_an_error_at_once() {
    let big = crate::decrypt::interrupted::Big::new(64 << 20);
    let mut child = Command::new(UNLUKS)
        .args(["decrypt", &text(&big.image), "--barbican-key", &text(&big.key), "-o", "-", "--quiet"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("whoever read the output went away") && said.lines().count() == 1, "{said}");
}

#[test]
fn progress_for_programs_is_json_on_the_standard_error() {
    let (golden, plaintext) = small();
    let run = decrypt(&golden, &["-o", "-", "--quiet", "--progress", "json"]);
    assert_ok(&run);
    assert_eq!(run.stdout, plaintext);
    let lines: Vec<serde_json::Value> = run.stderr.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["bytes"], &last["total"], &last["eta_seconds"]), (&8192.into(), &8192.into(), &0.into()));
    assert!(last["bytes_per_second"].is_u64());
}

#[test]
fn nothing_is_printed_beside_the_plaintext_without_a_terminal() {
    let (golden, _) = small();
    let run = decrypt(&golden, &["-o", "-"]);
    assert_ok(&run);
    assert_eq!(run.stderr.lines().count(), 3, "{}", run.stderr);
    assert!(run.stderr.is_ascii() && !run.stderr.contains(['\r', '\u{1b}']));
}

#[test]
fn the_input_is_neither_the_standard_output_nor_a_name_beside_the_output() {
    let (golden, _) = small();
    let before = sha256_file(&golden.image);
    let (image, key) = (text(&golden.image), text(&golden.key));
    for line in
        [r#"unluks decrypt "$1" --key-file "$2" -o - >>"$1""#, r#"unluks decrypt "$1" --key-file "$2" -o - 1<>"$1""#]
    {
        assert_refused(&crate::decrypt::sh(line, &[&image, &key]), 2, &["the standard output is the input itself"]);
    }
    assert_eq!(sha256_file(&golden.image), before);
    let part = golden.path(".out.unluks-part");
    fs::rename(&golden.image, &part).unwrap();
    let run = crate::decrypt::unluks(&["decrypt", &text(&part), "--key-file", &key, "-o", &text(&golden.path("out"))]);
    assert_refused(&run, 2, &["is the input itself"]);
    assert_eq!(sha256_file(&part), before);
}
