//! `--hash`: what the usual programs say to its lines.

use std::fs;

use crate::common::{peer, text, unluks, unluks_with_stdin};
use crate::decrypt::{assert_ok, assert_refused, decrypt, sh, small};

/// Runs `PROGRAM -c LIST` where the lines' names are.
#[track_caller]
fn assert_checked(golden: &crate::decrypt::Golden, program: &str, lines: usize) {
    let dir = text(golden.image.parent().unwrap());
    let run = sh(r#"cd "$1" && "$2" --strict --check list"#, &[&dir, program]);
    assert_ok(&run);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(said.lines().filter(|l| l.ends_with(": OK")).count(), lines, "{said}");
}

#[test]
fn sha256sum_agrees_about_image_and_plaintext() {
    let (golden, _) = small();
    // A line break and a backslash in the name want sha256sum's escape.
    for name in ["out", "a\nb\\c"] {
        let (out, list) = (text(&golden.path(name)), text(&golden.path("list")));
        let run = decrypt(&golden, &["-o", &out, "--hash", "sha256", "--hash-file", &list, "--force"]);
        assert_ok(&run);
        assert_eq!(run.stdout, fs::read(&list).unwrap());
        assert_checked(&golden, "sha256sum", 2);
    }
}

#[test]
fn several_algorithms_are_told_apart() {
    let (golden, plaintext) = small();
    let (out, list) = (text(&golden.path("out")), text(&golden.path("list")));
    let wanted = ["--hash", "md5", "--hash", "sha1", "--hash", "image:sha512", "--hash", "plaintext:sha256"];
    let run = decrypt(&golden, &[&["-o", &out, "--hash-file", &list], &wanted[..]].concat());
    assert_ok(&run);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(said.lines().count(), 6, "{said}");
    for (program, prefix, lines) in [("md5sum", "MD5 ", 2), ("sha1sum", "SHA1 ", 2), ("sha512sum", "SHA512 ", 1)] {
        let mine: String = said.lines().filter(|l| l.starts_with(prefix)).map(|l| format!("{l}\n")).collect();
        fs::write(&list, mine).unwrap();
        assert_checked(&golden, program, lines);
    }
    assert!(said.contains(&format!("SHA256 ({out}) = {}\n", crate::common::sha256(&plaintext))), "{said}");
}

#[test]
fn a_part_and_a_pipe_are_hashed_as_what_they_are() {
    let (golden, plaintext) = small();
    let wanted = crate::common::sha256(&plaintext[100..1100]);
    let part = ["--skip", "100", "--length", "1000", "--hash", "sha256", "-q"];
    let run = decrypt(&golden, &[&["-o", "-"], &part[..]].concat());
    assert_ok(&run);
    // The image's hash is that of the whole image, whatever part was wanted.
    let image = crate::common::sha256_file(&golden.image);
    assert_eq!(run.stderr, format!("{image}  {}\n{wanted}  -\n", text(&golden.image)));
    let key = text(&golden.key);
    let bytes = fs::read(&golden.image).unwrap();
    let run = unluks_with_stdin(&[&["decrypt", "-", "--key-file", &key, "-o", "-"], &part[..]].concat(), &bytes);
    assert_ok(&run);
    let mut lines: Vec<_> = run.stderr.lines().collect();
    lines.sort_unstable();
    let mut want = [format!("{image}  -"), format!("{wanted}  -")];
    want.sort_unstable();
    assert_eq!(lines, want);
}

#[test]
fn blake3_is_what_its_own_program_says() {
    let (golden, plaintext) = small();
    let run = decrypt(&golden, &["-o", "-", "-q", "--hash", "plaintext:blake3"]);
    assert_ok(&run);
    assert_eq!(run.stderr, format!("{}  -\n", blake3::hash(&plaintext).to_hex()));
}

#[test]
fn a_list_of_hashes_replaces_nothing() {
    let (golden, _) = small();
    let (out, list) = (text(&golden.path("out")), text(&golden.path("list")));
    let more = ["-o", &out, "--hash", "sha256", "--hash-file"];
    fs::write(&list, "mine").unwrap();
    assert_refused(&decrypt(&golden, &[&more[..], &[&list]].concat()), 2, &["list is there already", "--force"]);
    assert_refused(&decrypt(&golden, &[&more[..], &[&out]].concat()), 2, &["is the output itself"]);
    assert_refused(&decrypt(&golden, &[&more[..], &["-"]].concat()), 2, &["name a file"]);
    assert!(!golden.path("out").exists());
    assert_eq!(fs::read(&list).unwrap(), b"mine");
    let refused = [("sha257", "sha257"), ("cipher:md5", "plaintext: and image: are known"), ("", "")];
    for (hash, says) in refused {
        assert_refused(&decrypt(&golden, &["-o", &out, "--hash", hash]), 2, &[says]);
    }
    // Where nothing can be made, even by root.
    let fresh = golden.path("fresh");
    let run = decrypt(&golden, &["-o", &text(&fresh), "--hash", "sha256", "--hash-file", "/proc/self/sums"]);
    assert!(run.code != Some(0) && run.stderr.contains("/proc/self"), "{}", run.stderr);
    assert!(!fresh.exists() && !run.stderr.contains("opened with"), "{}", run.stderr);
    // --hash-file alone would write nothing.
    assert_eq!(decrypt(&golden, &["-o", &out, "--hash-file", &list]).code, Some(2));
    assert_eq!(peer("sha256sum", "coreutils", &[&list]).code, Some(0));
}

#[cfg(feature = "peer-tests")]
#[test]
fn each_file_of_a_set_is_hashed() {
    each_file_of("encase6", ".E01");
    each_file_of("smart", ".s01");
}

fn each_file_of(format: &str, ending: &str) {
    let (golden, plaintext) = small();
    let set = text(&golden.path("set"));
    let image = text(&golden.image);
    fs::write(&image, [fs::read(&image).unwrap(), vec![0x6b; 3 << 20]].concat()).unwrap();
    let acquire = ["-u", "-q", "-f", format, "-c", "none", "-S", "1048576", "-t", &set, &image];
    assert_ok(&peer("ewfacquire", "ewf-tools", &acquire));
    let (first, list, key) = (format!("{set}{ending}"), text(&golden.path("list")), text(&golden.key));
    let files = crate::decrypt::names(golden.path("").as_path())
        .iter()
        .filter(|name| name.starts_with(&format!("set{}", &ending[..2])))
        .count();
    assert!(files > 1, "{files} files");
    let args =
        ["decrypt", &first, "--key-file", &key, "-o", &text(&golden.path("out")), "--hash-file", &list, "--force"];
    assert_ok(&unluks(&[&args[..], &["--hash", "image:sha256"]].concat()));
    assert_checked(&golden, "sha256sum", files);
    let run = unluks(&[&args[..], &["--hash", "image:md5", "--hash", "sha1"]].concat());
    assert_ok(&run);
    let said = String::from_utf8(run.stdout).unwrap();
    assert_eq!(said.lines().count(), 2 * files + 1, "{said}");
    for (program, prefix, lines) in [("md5sum", "MD5 ", files), ("sha1sum", "SHA1 ", files + 1)] {
        let mine: String = said.lines().filter(|l| l.starts_with(prefix)).map(|l| format!("{l}\n")).collect();
        fs::write(&list, mine).unwrap();
        assert_checked(&golden, program, lines);
    }
    assert!(fs::read(golden.path("out")).unwrap().starts_with(&plaintext));
}

#[test]
fn a_hash_file_that_would_do_harm_is_refused_before_the_work() {
    let (golden, _) = small();
    let dir = text(golden.image.parent().unwrap());
    let (image, key) = (text(&golden.image), text(&golden.key));
    let line = r#"cd "$1" && unluks decrypt "$2" --key-file "$3" -o out --hash sha256 --hash-file "$4" --force"#;
    for (file, code, word) in [("./out", 2, "it is the output itself"), ("nowhere/list", 1, "opening the folder of")] {
        assert_refused(&sh(line, &[&dir, &image, &key, file]), code, &[word]);
        assert!(!golden.path("out").exists());
    }
}

#[test]
fn a_name_is_written_byte_for_byte_and_the_file_before_the_screen() {
    let (golden, _) = small();
    let dir = text(golden.image.parent().unwrap());
    let (image, key) = (text(&golden.image), text(&golden.key));
    let line = r#"cd "$1" && unluks decrypt "$2" --key-file "$3" -o "$(printf 'o\377')" --hash sha256 --hash-file list >/dev/full
        test $? = 1 && sha256sum --strict --check list"#;
    assert_ok(&sh(line, &[&dir, &image, &key]));
}
