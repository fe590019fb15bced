//! Key material: each source, each form that a key may have been saved in, and each way to give the wrong one.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use unluks::{FileSource, Image, Key, SecretBytes};

use crate::common::{Golden, Run, UNLUKS, chain, latin1, read_stored, testdata, text, unluks, unluks_with_stdin};
use crate::decrypt::{assert_ok, assert_refused, decrypt, sh, small};

/// `unluks decrypt IMAGE -o - FLAG KEY`, with the key in a file.
fn with_key(golden: &Golden, flag: &str, key: &[u8]) -> Run {
    fs::write(&golden.key, key).unwrap();
    unluks(&["decrypt", &text(&golden.image), "-o", "-", flag, &text(&golden.key)])
}

/// The image that is opened with a Barbican secret, and that secret.
fn openstack() -> (Golden, Vec<u8>) {
    (Golden::unpack("openstack-volume"), read_stored("openstack-volume.key"))
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn a_barbican_payload_is_hexlified() {
    let (golden, secret) = openstack();
    let run = with_key(&golden, "--barbican-key", &secret);
    assert_ok(&run);
    assert!(run.stdout.starts_with(b"If you can read this, the volume was decrypted.\n"));
    assert!(run.stderr.contains("keyslot 0 opened with the key: hexlified"), "{}", run.stderr);
    assert_refused(&with_key(&golden, "--key-file", &secret), 3, &[]);
    assert_ok(&with_key(&golden, "--key-file", hex(&secret).as_bytes()));
}

#[test]
fn a_key_saved_nobody_knows_how_is_found_and_the_rule_named() {
    let (golden, secret) = openstack();
    let line = |text: String| [text.as_bytes(), b"\n"].concat();
    let saved = [
        (hex(&secret).into_bytes(), "the bytes as they are"),
        (secret.clone(), "hexlified"),
        (line(hex(&secret)), "without the trailing newline"),
        ([&secret[..], b"\n"].concat(), "without the trailing newline, then hexlified"),
        (hex(&secret).to_uppercase().into_bytes(), "hex in lower case"),
        (line(hex(&secret).to_uppercase()), "hex in lower case"),
        (line(base64(&secret)), "base64-decoded, then hexlified"),
        (
            format!("{{\"Payload\": \"{}\"}}\n", base64(&secret)).into_bytes(),
            "the payload of the JSON, then base64-decoded, then hexlified",
        ),
    ];
    for (key, rule) in saved {
        let run = with_key(&golden, "--key", &key);
        assert_ok(&run);
        assert!(run.stderr.contains(&format!("keyslot 0 opened with the key: {rule}\n")), "{rule}: {}", run.stderr);
        assert!(run.stderr.contains(" forms of the key: up to "), "{}", run.stderr);
    }
    let golden = Golden::unpack("l2-argon2id");
    let passphrase = latin1(golden.sidecar["passphrase"].as_str().unwrap());
    let saved = [(line(hex(&passphrase)), "un-hexed"), (base64(&passphrase).into_bytes(), "base64-decoded")];
    for (key, rule) in saved {
        let run = with_key(&golden, "--key", &key);
        assert_ok(&run);
        assert!(run.stderr.contains(&format!("opened with the key: {rule}\n")), "{rule}: {}", run.stderr);
    }
    assert_refused(&with_key(&golden, "--key", b"wrong"), 3, &[]);
}

/// `refusal_fault` wants one line, and `--key` says one more before: how many derivations it may cost.
#[test]
fn the_cost_of_guessing_is_said_before() {
    let (golden, _) = small();
    let run = with_key(&golden, "--key", b"00ff\n");
    assert_eq!(run.code, Some(3));
    let lines: Vec<_> = run.stderr.lines().collect();
    // The bytes, the line, each hexlified in either case, as Base64 in one; un-hexed, and that as Base64; decoded, and that
    // hexlified; QNAP's. The keyslot is one.
    let n = lines[0].split(' ').nth(1).unwrap().parse::<usize>().unwrap();
    assert!((8..=24).contains(&n), "{lines:?}");
    assert_eq!(lines[0], format!("trying {n} forms of the key: up to {n} key derivations"));
    assert_eq!(lines.len(), 2, "{lines:?}");
    // All that was tried is listed, and nobody is told to use the flag that was used.
    for rule in ["tried: the bytes as they are; ", "un-hexed", "QNAP's hash of the password"] {
        assert!(lines[1].contains(rule), "{rule}: {lines:?}");
    }
    assert!(!lines[1].contains("--key FILE"), "{lines:?}");
}

#[test]
fn what_is_no_key_is_named() {
    let (golden, _) = small();
    let uuid = "5ca1ab1e-0000-4000-8000-00000000c0de";
    for (saved, says) in [
        (format!("{uuid}\n"), "holds a UUID"),
        (format!("https://cloud.example/v1/secrets/{uuid}"), "unluks fetch key ADDRESS"),
        ("<!DOCTYPE html><html>".into(), "web page"),
        ("{\"code\": 401, \"title\": \"Unauthorized\"}".into(), "looks like an error"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into(), "certificate"),
        ("ssh-ed25519 AAAA me@here\n".into(), "public key"),
    ] {
        for flag in ["--key", "--barbican-key", "--key-file"] {
            let run = with_key(&golden, flag, saved.as_bytes());
            assert_refused(&run, 3, &[says]);
            assert!(!run.stderr.contains(saved.trim()), "{}", run.stderr);
        }
    }
}

/// A key in place of a file's name must not get into a log.
#[test]
fn a_key_as_the_argument_is_not_repeated() {
    let (golden, _) = small();
    for key in ["5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e", "hunter2", "/x9kf+Ab/3e=", "Zm9v/YmFy", "a/b"] {
        for flag in ["--key", "--key-file", "--barbican-key", "--passphrase-file", "--volume-key-file"] {
            let run = unluks(&["decrypt", &text(&golden.image), "-o", "-", flag, key]);
            assert_refused(&run, 1, &["the name of a file that holds the key is wanted"]);
            assert!(!run.stderr.contains(key), "{}", run.stderr);
        }
    }
}

#[test]
fn the_newline_of_windows_is_dropped_from_a_line() {
    let (golden, plaintext) = small();
    let passphrase = latin1(golden.sidecar["passphrase"].as_str().unwrap());
    let line = [&passphrase[..], b"\r\n"].concat();
    let run = with_key(&golden, "--passphrase-file", &line);
    assert_ok(&run);
    assert_eq!(run.stdout, plaintext);
    let run = unluks_with_stdin(&["decrypt", &text(&golden.image), "-o", "-"], &line);
    assert_ok(&run);
}

#[test]
fn a_key_file_is_taken_to_the_byte() {
    let (golden, plaintext) = small();
    let passphrase = latin1(golden.sidecar["passphrase"].as_str().unwrap());
    let with_newline = [&passphrase[..], b"\n"].concat();
    assert_refused(&with_key(&golden, "--key-file", &with_newline), 3, &[]);
    assert_ok(&with_key(&golden, "--passphrase-file", &with_newline));
    assert_ok(&with_key(&golden, "--passphrase-file", &[&with_newline[..], b"second line\n"].concat()));

    fs::write(&golden.key, [b"abc", &passphrase[..], b"xyz"].concat()).unwrap();
    let size = passphrase.len().to_string();
    let part = |offset: &str, size: &str| {
        decrypt(&golden, &["-o", "-", "-q", "--keyfile-offset", offset, "--keyfile-size", size])
    };
    let run = part("3", &size);
    assert_ok(&run);
    assert_eq!(run.stdout, plaintext);
    assert_refused(&part("2", &size), 3, &[]);
    assert_refused(&part("3", "999"), 2, &["ends after 19 of the 999 bytes"]);
    assert_refused(&part("999", "1"), 2, &["said to start at byte 999"]);
    // Each is of --key-file alone.
    let key = text(&golden.key);
    let image = text(&golden.image);
    let run = unluks(&["decrypt", &image, "-o", "-", "--passphrase-file", &key, "--keyfile-size", "3"]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
}

#[test]
fn a_wrong_key_says_so_and_nothing_more() {
    let (golden, _) = small();
    for flag in ["--key-file", "--passphrase-file", "--barbican-key", "--volume-key-file"] {
        assert_refused(&with_key(&golden, flag, b"not the key"), 3, &[]);
    }
    assert!(!with_key(&golden, "--key-file", b"not the key").stderr.contains("not the key"));
    assert_refused(&with_key(&golden, "--key-file", b""), 3, &["the passphrase is empty"]);
    let gone = text(&golden.path("gone"));
    let run = unluks(&["decrypt", &text(&golden.image), "-o", "-", "--key-file", &gone]);
    assert_refused(&run, 1, &["opening the key", "gone", "No such file"]);
}

#[test]
fn two_sources_at_once_are_refused() {
    let (golden, _) = small();
    let key = text(&golden.key);
    let flags = ["--barbican-key", "--key-file", "--passphrase-file", "--key", "--volume-key-file"];
    for a in flags {
        for b in flags.iter().filter(|b| **b != a) {
            let run = unluks(&["decrypt", &text(&golden.image), "-o", "-", a, &key, b, &key]);
            assert_eq!(run.code, Some(2), "{a} {b}: {}", run.stderr);
            assert!(run.stderr.contains("cannot be used with"), "{a} {b}: {}", run.stderr);
        }
    }
}

#[test]
fn a_key_comes_from_the_standard_input_or_an_open_file_too() {
    let (golden, plaintext) = small();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let passphrase = fs::read(&golden.key).unwrap();
    for source in ["-", "/dev/stdin", "/dev/fd/0"] {
        let run = unluks_with_stdin(&["decrypt", &image, "-o", "-", "--key-file", source], &passphrase);
        assert_ok(&run);
        assert_eq!(run.stdout, plaintext);
    }
    let line = r#"unluks decrypt "$1" -o - --key-file /dev/fd/7 7<"$2""#;
    assert_eq!(sh(line, &[&image, &key]).stdout, plaintext);
    let line = r#"cat "$2" | { unluks decrypt "$1" -o - --key-file /dev/fd/7 7<&0 </dev/null; }"#;
    assert_eq!(sh(line, &[&image, &key]).stdout, plaintext);

    // Without any flag: the first line of the standard input.
    let run = unluks_with_stdin(&["decrypt", &image, "-o", "-"], &[&passphrase[..], b"\nmore\n"].concat());
    assert_ok(&run);
    assert_eq!(run.stdout, plaintext);
    assert_refused(&unluks(&["decrypt", &image, "-o", "-"]), 3, &["the passphrase is empty"]);
}

#[test]
fn a_terminal_is_asked_without_echo() {
    let (golden, plaintext) = small();
    let out = golden.path("out");
    let right = fs::read(&golden.key).unwrap();
    let prompt = format!("Passphrase for {}: ", text(&golden.image));
    // The third attempt is the last.
    for (lines, opens) in
        [(&[&right[..]][..], true), (&[b"wrong", b"wrong", &right[..]], true), (&[&b"wrong"[..]; 3], false)]
    {
        let _ = fs::remove_file(&out);
        let (seen, status) = typed(&golden, &out, &prompt, lines);
        assert_eq!(status, opens, "{seen}");
        assert_eq!(seen.matches(&prompt).count(), lines.len(), "{seen}");
        assert!(!seen.contains("pass-l2-argon2id") && !seen.contains("wrong"), "{seen}");
        assert_eq!(fs::read(&out).ok(), opens.then(|| plaintext.clone()));
    }
}

/// What is seen on a terminal where the lines are typed, one at each prompt, and whether the program succeeded.
fn typed(golden: &Golden, out: &std::path::Path, prompt: &str, lines: &[&[u8]]) -> (String, bool) {
    let command = format!("{UNLUKS} decrypt {} -o {}", text(&golden.image), text(out));
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("script: {e}: apt-get install bsdutils"));
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut byte = [0];
    for line in lines {
        // What is typed before the prompt is thrown away, as it should be.
        let from = seen.len();
        while !seen[from..].ends_with(prompt.as_bytes()) {
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "no prompt: {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        keyboard.write_all(&[line, &b"\n"[..]].concat()).unwrap();
    }
    screen.read_to_end(&mut seen).unwrap();
    drop(keyboard);
    (String::from_utf8_lossy(&seen).into_owned(), child.wait().unwrap().success())
}

#[test]
fn a_volume_key_needs_no_keyslot() {
    for name in ["l1-aes-xts-512-sha256", "l2-argon2id", "l2-sector-4096"] {
        let golden = Golden::unpack(name);
        let image = Image::open(Arc::new(FileSource::open(&golden.image).unwrap())).unwrap();
        let passphrase = SecretBytes::copy_of(&fs::read(&golden.key).unwrap()).unwrap();
        let unlocked = image.unlock(&Key::passphrase(passphrase), &Default::default()).unwrap();
        let key = unlocked.keys().values().next().unwrap().expose().to_vec();
        let run = with_key(&golden, "--volume-key-file", &key);
        assert_ok(&run);
        assert_eq!(crate::common::sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap());

        // The right length does not make a key right, and a wrong length is named.
        let mut other = key.clone();
        other[0] ^= 1;
        assert_refused(&with_key(&golden, "--volume-key-file", &other), 3, &["digest"]);
        let says = format!("has {} bytes", key.len());
        assert_refused(&with_key(&golden, "--volume-key-file", &key[1..]), 3, &[&says]);
    }
}

#[test]
fn a_keyslot_can_be_named() {
    let golden = Golden::unpack("l1-two-slots");
    let plaintext = chain(&golden.name, 8192);
    for (passphrase, slot) in [("second", "5"), ("pass-l1-two-slots", "0")] {
        for more in [&[][..], &["--key-slot", slot]] {
            fs::write(&golden.key, passphrase).unwrap();
            let run = decrypt(&golden, &[&["-o", "-"], more].concat());
            assert_ok(&run);
            assert_eq!(run.stdout, plaintext);
            assert!(run.stderr.contains(&format!("keyslot {slot} opened")), "{}", run.stderr);
        }
    }
    fs::write(&golden.key, "second").unwrap();
    assert_refused(&decrypt(&golden, &["-o", "-", "--key-slot", "0"]), 3, &["keyslot 0"]);
    assert_refused(&decrypt(&golden, &["-o", "-", "--key-slot", "1"]), 2, &["there is no keyslot 1", "0, 5"]);

    // Keyslot 2 has priority 0: it is tried only when it is named.
    let golden = Golden::unpack("l2-priority-ignore");
    let run = decrypt(&golden, &["-o", "-"]);
    assert_refused(&run, 3, &[]);
    let run = decrypt(&golden, &["-o", "-", "--key-slot", "2"]);
    assert_ok(&run);
    assert!(run.stderr.contains("keyslot 2 opened"), "{}", run.stderr);
}

#[test]
fn a_costly_header_is_refused_with_the_flag_that_allows_it() {
    let (golden, _) = small();
    // The keyslot takes 64 KiB.
    let run = decrypt(&golden, &["-o", "-", "--max-kdf-memory", "63K"]);
    assert_refused(&run, 6, &["65536", "--max-kdf-memory"]);
    assert_ok(&decrypt(&golden, &["-o", "-", "--max-kdf-memory", "64K"]));
    assert_refused(&decrypt(&golden, &["-o", "-", "--max-kdf-time", "0s"]), 6, &["--max-kdf-time"]);
}

#[test]
fn the_test_data_has_what_the_readme_shows() {
    assert_eq!(fs::metadata(testdata().join("openstack-volume.key")).unwrap().len(), 32);
}
