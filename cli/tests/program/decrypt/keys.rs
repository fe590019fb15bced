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
        ([&secret[..], b"\n"].concat(), "hexlified, without the trailing newline"),
        (hex(&secret).to_uppercase().into_bytes(), "hex in lower case"),
        (line(hex(&secret).to_uppercase()), "hex in lower case"),
        (line(base64(&secret)), "base64-decoded, then hexlified"),
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
    // As it is, hexlified, both without the newline, un-hexed, base64-decoded, and that hexlified; one keyslot.
    assert_eq!(lines[0], "trying 7 forms of the key: up to 7 key derivations");
    assert_eq!(lines.len(), 2, "{lines:?}");
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
    assert_refused(&part("3", "999"), 2, &["--keyfile-size"]);
    assert_refused(&part("999", "1"), 2, &["--keyfile-offset"]);
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
    let command = format!("{UNLUKS} decrypt {} -o {}", text(&golden.image), text(&out));
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("script: {e}: apt-get install bsdutils"));
    let (mut keyboard, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = Vec::new();
    let mut byte = [0];
    // What is typed before the prompt is thrown away, as it should be.
    while !seen.ends_with(b"Passphrase: ") {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "no prompt: {}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    keyboard.write_all(&[&fs::read(&golden.key).unwrap()[..], b"\n"].concat()).unwrap();
    screen.read_to_end(&mut seen).unwrap();
    drop(keyboard);
    let seen = String::from_utf8_lossy(&seen);
    assert!(child.wait().unwrap().success(), "{seen}");
    assert!(!seen.contains("pass-l2-argon2id"), "{seen}");
    assert_eq!(fs::read(&out).unwrap(), plaintext);
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
