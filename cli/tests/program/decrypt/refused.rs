//! Images that are whole by the rules of their format, and still not what they should be; and a machine that gives less
//! than it should.

use std::fs;

use super::*;
use crate::common::change_luks2;

fn change(golden: &Golden, change: impl FnOnce(&mut serde_json::Value)) {
    change_luks2(&golden.image, change);
}

#[test]
fn a_segment_that_is_not_encrypted_opens_with_no_key() {
    let (golden, _) = small();
    change(&golden, |m| {
        let offset = m["segments"]["0"]["offset"].take();
        m["segments"]["0"] = serde_json::json!({"type": "linear", "offset": offset, "size": "dynamic"});
        m["digests"]["0"]["segments"] = serde_json::json!([]);
    });
    let wrong = golden.path("wrong");
    fs::write(&wrong, "wrong").unwrap();
    for key in [&golden.key, &wrong] {
        for more in [&[][..], &["--key-slot", "0"], &["--key-slot", "0", "--allow-foreign-segments"], &["-q"]] {
            let (image, key) = (text(&golden.image), text(key));
            let out = text(&golden.path("out"));
            let run = unluks(&[&["decrypt", &image, "--key-file", &key, "-o", &out], more].concat());
            assert_refused(&run, 5, &["segments"]);
            assert!(!golden.path("out").exists());
        }
    }
}

#[test]
fn segments_that_are_not_encrypted_are_taken_on_demand() {
    let (golden, plaintext) = small();
    let whole = fs::read(&golden.image).unwrap();
    change(&golden, |m| {
        let start: usize = m["segments"]["0"]["offset"].as_str().unwrap().parse().unwrap();
        m["segments"]["0"]["size"] = "4096".into();
        m["segments"]["1"] =
            serde_json::json!({"type": "linear", "offset": (start + 4096).to_string(), "size": "dynamic"});
    });
    for more in [&[][..], &["-q"], &["--key-slot", "0"]] {
        let run = decrypt(&golden, &[&["-o", "-"], more].concat());
        assert_refused(&run, 5, &["segments.1.type: found linear", "--allow-foreign-segments"]);
    }
    let run = decrypt(&golden, &["-o", "-", "--allow-foreign-segments"]);
    assert_ok(&run);
    assert!(run.stdout == [&plaintext[..4096], &whole[whole.len() - 4096..]].concat());
    assert!(run.stderr.contains("warning: segments.1"), "{}", run.stderr);
}

/// The state of a reencryption proves which data is encrypted (CVE-2021-4122): without it, nothing does.
#[test]
fn an_unfinished_encryption_whose_state_was_left_out_is_refused() {
    for name in ["l2-encrypt-init", "l2-encrypt-crash", "l2-decrypt-crash"] {
        let golden = Golden::unpack(name);
        if golden.header.is_some() {
            continue;
        }
        change(&golden, |m| {
            let slots = m["keyslots"].as_object_mut().unwrap();
            slots.retain(|_, k| k["type"] != "reencrypt");
            let slots: Vec<_> = slots.keys().cloned().map(serde_json::Value::from).collect();
            let segments = m["segments"].as_object_mut().unwrap();
            segments.retain(|_, s| !s["flags"].to_string().contains("backup"));
            segments.values_mut().for_each(|s| drop(s.as_object_mut().unwrap().remove("flags")));
            let segments: Vec<_> = segments.keys().cloned().map(serde_json::Value::from).collect();
            for digest in m["digests"].as_object_mut().unwrap().values_mut() {
                digest["keyslots"].as_array_mut().unwrap().retain(|k| slots.contains(k));
                digest["segments"].as_array_mut().unwrap().retain(|s| segments.contains(s));
            }
            m["config"].as_object_mut().unwrap().remove("requirements");
        });
        let run = decrypt(&golden, &["-o", "-"]);
        assert_refused(&run, 5, &["segments", "--allow-foreign-segments"]);
    }
}

#[test]
fn a_header_without_data_is_an_error() {
    let (golden, _) = small();
    let whole = fs::read(&golden.image).unwrap();
    let start = whole.len() - 8192;
    fs::write(&golden.image, &whole[..start]).unwrap();
    for more in [&[][..], &["--skip", "0"], &["--length", "512"]] {
        let run = decrypt(&golden, &[&["-o", "-"], more].concat());
        assert_refused(&run, 4, &["truncated", &format!("ends at byte {start}"), "--header"]);
    }
    // No key is wanted to know it, and so none is derived.
    let (image, other) = (text(&golden.image), golden.path("other"));
    fs::write(&other, "another key").unwrap();
    let other = text(&other);
    for subcommand in [&["decrypt", "-o", "-"][..], &["serve", "--run", "true"]] {
        let run = unluks(&[subcommand, &[&image, "--key-file", &other]].concat());
        assert_refused(&run, 4, &["truncated", &format!("ends at byte {start}"), "--header"]);
        fs::write(&golden.image, &whole[..start + 4096 + 100]).unwrap();
        let run = unluks(&[subcommand, &[&image, "--key-file", &other]].concat());
        assert_refused(&run, 4, &["truncated", "too early", "--allow-truncated"]);
        let run = unluks(&["decrypt", "-o", "-", &image, "--key-file", &other, "--length", "4096"]);
        assert_refused(&run, 3, &[]);
        fs::write(&golden.image, &whole[..start]).unwrap();
    }
    let run = decrypt(&golden, &["-o", "-", "--allow-truncated"]);
    assert_ok(&run);
    assert!(run.stdout.is_empty());
    // A data file without a byte.
    let empty = golden.path("empty");
    fs::write(&empty, "").unwrap();
    fs::write(golden.path("whole"), whole).unwrap();
    let (empty, header, key) = (text(&empty), text(&golden.path("whole")), text(&golden.key));
    let run = unluks(&["decrypt", &empty, "--header", &header, "--key-file", &key, "-o", "-"]);
    assert_refused(&run, 4, &["truncated"]);
}

/// Nothing guards dm-integrity's superblock: one that says less than there is room for cuts the plaintext off.
#[test]
fn a_superblock_that_says_too_little_is_told_of() {
    let golden = Golden::unpack("l2-integrity-hmac");
    let start: usize = 576 * 512;
    let mut image = fs::read(&golden.image).unwrap();
    assert_eq!(image[start..start + 7], *b"integrt");
    let inspect = || unluks(&["inspect", &text(&golden.image)]);
    assert!(!String::from_utf8(inspect().stdout).unwrap().contains("integrity-shorter"));
    assert!(!decrypt(&golden, &["-o", "-"]).stderr.contains("superblock"));
    image[start + 16..start + 24].copy_from_slice(&64u64.to_le_bytes());
    fs::write(&golden.image, image).unwrap();
    let says = "says that there are 64 sectors of plaintext, but there is room for 240";
    let run = decrypt(&golden, &["-o", "-"]);
    assert_ok(&run);
    assert!(run.stderr.contains(says), "{}", run.stderr);
    let shown = String::from_utf8(inspect().stdout).unwrap();
    assert!(shown.contains(says) && shown.contains("integrity-shorter"), "{shown}");
}

/// Where the address space has no room for the stacks of many threads, fewer do the work.
#[test]
fn fewer_threads_are_enough() {
    let golden = Golden::unpack("l2-pbkdf2-sha512");
    let out = golden.path("out");
    let line = "ulimit -v 200000 && unluks decrypt \"$1\" --key-file \"$2\" -o \"$3\" --threads 4000 --progress json";
    let run = sh(line, &[&text(&golden.image), &text(&golden.key), &text(&out)]);
    assert_ok(&run);
    assert!(fs::read(&out).unwrap() == chain(&golden.name, fs::read(&out).unwrap().len()));
}
