//! What an output may not be, and what is said about it before any key is derived.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::interrupted::Big;
use crate::common::{UNLUKS, sha256_file, text, unluks};
use crate::decrypt::{assert_ok, assert_refused, decrypt, names, sh, small};

#[test]
fn a_key_is_never_an_output() {
    let (golden, _) = small();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let before = fs::read(&golden.key).unwrap();
    let [hard, soft, out, list] = ["hard", "soft", "out", "list"].map(|name| golden.path(name));
    fs::hard_link(&key, &hard).unwrap();
    symlink("key", &soft).unwrap();
    let all = names(golden.path("").as_path());
    for flag in ["--key-file", "--barbican-key", "--passphrase-file", "--key", "--volume-key-file"] {
        for to in [&golden.key, &hard, &soft] {
            let run = unluks(&["decrypt", &image, flag, &key, "-o", &text(to), "--force"]);
            assert_refused(&run, 2, &["is the input itself"]);
            let hash = ["--hash", "sha256", "--hash-file", &text(to), "--force"];
            let run = unluks(&[&["decrypt", &image, flag, &key, "-o", &text(&out)], &hash[..]].concat());
            assert_refused(&run, 2, &["is the input itself"]);
        }
    }
    for flag in ["--also-key-file", "--also-passphrase-file"] {
        let run = decrypt(
            &golden,
            &["-o", &text(&list), flag, &text(&soft), "--hash", "md5", "--hash-file", &key, "--force"],
        );
        assert_refused(&run, 2, &["is the input itself"]);
    }
    assert_eq!(fs::read(&key).unwrap(), before);
    assert_eq!(names(golden.path("").as_path()), all);
}

#[test]
fn what_comes_through_a_descriptor_is_never_an_output() {
    let (golden, _) = small();
    let before = (sha256_file(&golden.image), sha256_file(&golden.key));
    let (image, key) = (text(&golden.image), text(&golden.key));
    for line in [
        r#"unluks decrypt "$1" --key-file - -o "$2" --force <"$2""#,
        r#"unluks decrypt "$1" -o "$2" --force <"$2""#,
        r#"unluks decrypt - --key-file "$2" -o "$1" --force <"$1""#,
        r#"unluks decrypt "$1" --key-file /dev/stdin -o /dev/stdin --force <"$2""#,
        r#"unluks decrypt "$1" --key-file /dev/fd/5 -o "$2" --force 5<"$2""#,
        r#"unluks decrypt "$1" --key-file "$2" -o /proc/self/fd/5 --force 5<"$2""#,
        r#"unluks decrypt "$1" --key-file "$2" -o /dev/fd/5 --force 5<>"$1""#,
        r#"unluks decrypt "$1" --key-file "$2" -o - 1<>"$2""#,
    ] {
        assert_refused(&sh(line, &[&image, &key]), 2, &["is the input itself"]);
    }
    assert_eq!((sha256_file(&golden.image), sha256_file(&golden.key)), before);
}

#[test]
fn a_name_that_the_output_takes_meanwhile_is_no_input_either() {
    let (golden, _) = small();
    let (image, out) = (text(&golden.image), text(&golden.path("out")));
    let before = fs::read(&golden.key).unwrap();
    for name in [".out.unluks-part", ".out.unluks-journal"] {
        let key = golden.path(name);
        fs::copy(&golden.key, &key).unwrap();
        let run = unluks(&["decrypt", &image, "--key-file", &text(&key), "-o", &out, "--force"]);
        assert_refused(&run, 2, &["is the input itself"]);
        assert_eq!(fs::read(&key).unwrap(), before);
        fs::remove_file(key).unwrap();
        // Nor is it the file of the hashes.
        let list = text(&golden.path(name));
        let run = decrypt(&golden, &["-o", &out, "--hash", "sha256", "--hash-file", &list, "--force"]);
        assert_refused(&run, 2, &["a name that it takes meanwhile"]);
    }
    let part = text(&golden.path(".list.unluks-part"));
    let run = decrypt(&golden, &["-o", &part, "--hash", "md5", "--hash-file", &text(&golden.path("list")), "--force"]);
    assert_refused(&run, 2, &["a name that it takes meanwhile"]);
}

#[test]
fn what_can_be_known_is_said_before_a_key_is_derived() {
    let (golden, _) = small();
    // With it, each of these would otherwise end with exit code 3.
    fs::write(&golden.key, "wrong").unwrap();
    let out = text(&golden.path("out"));
    fs::write(golden.path("file"), "").unwrap();
    for (more, code, words) in [
        (&["-o", &text(&golden.path("nowhere/out"))][..], 1, &["nowhere of the output does not exist"][..]),
        (&["-o", &text(&golden.path("file/out"))], 1, &["file of the output is no folder"]),
        (&["-o", &text(&golden.path(&"n".repeat(256)))], 1, &["too long"]),
        (&["-o", "/dev/unluks-no-such-device"], 2, &["there is no device"]),
        (&["-o", &out, "--skip", "8193"], 2, &["--skip 8193", "8192 bytes"]),
        (&["-o", &out, "--skip", "8000", "--length", "200"], 2, &["--length 200", "8192 bytes"]),
        (&["-o", &out, "--resume"], 2, &["cannot resume", "no journal"]),
    ] {
        let run = decrypt(&golden, more);
        assert_refused(&run, code, words);
        assert!(!run.stderr.contains("l2-argon2id.img") && !run.stderr.contains(".unluks-"), "{}", run.stderr);
    }
    let line = r#"ulimit -f 2; exec unluks decrypt "$1" --key-file "$2" -o "$3""#;
    let run = sh(line, &[&text(&golden.image), &text(&golden.key), &out]);
    assert_refused(&run, 1, &["8192 bytes", "File too large"]);
    assert_eq!(names(golden.path("").as_path()), ["file", "key", "l2-argon2id.img"]);
}

#[test]
fn a_closed_standard_output_is_no_output() {
    let (golden, plaintext) = small();
    let (image, key, out) = (text(&golden.image), text(&golden.key), text(&golden.path("out")));
    for closed in [">&-", ">&- <&-", "<&- 1</dev/null"] {
        let line = format!(r#"unluks decrypt "$1" --key-file "$2" -o - {closed}"#);
        assert_refused(&sh(&line, &[&image, &key]), 2, &["the standard output is closed"]);
    }
    assert_eq!(sh(r#"unluks decrypt "$1" --key-file "$2" -o - >&- 2>&-"#, &[&image, &key]).code, Some(2));
    // None of the files that are opened takes the place of one that is closed.
    let line = r#"unluks decrypt "$1" --key-file "$2" -o "$3" --force --hash sha256 <&- >&- 2>&-"#;
    for _ in 0..2 {
        sh(line, &[&image, &key, &out]);
        assert_eq!(fs::read(&out).unwrap(), plaintext);
    }
    assert_ok(&sh(r#"unluks decrypt "$1" --key-file "$2" -o - >/dev/null"#, &[&image, &key]));
}

#[test]
fn a_fifo_in_place_of_the_unfinished_output_is_not_waited_for() {
    let (golden, _) = small();
    let out = text(&golden.path("out"));
    for name in [".out.unluks-part", ".out.unluks-journal"] {
        let fifo = golden.path(name);
        assert_ok(&sh(r#"mkfifo "$1""#, &[&text(&fifo)]));
        let start = Instant::now();
        let resume: &[&str] = if name.ends_with("part") { &[] } else { &["--resume"] };
        let run = decrypt(&golden, &[&["-o", &out], resume].concat());
        assert_refused(&run, 2, &["is a FIFO"]);
        assert!(start.elapsed() < Duration::from_secs(60));
        fs::remove_file(fifo).unwrap();
    }
    // A link there is not followed.
    symlink(&golden.key, golden.path(".out.unluks-part")).unwrap();
    let before = fs::read(&golden.key).unwrap();
    assert_eq!(decrypt(&golden, &["-o", &out, "--force"]).code, Some(2));
    assert_eq!(fs::read(&golden.key).unwrap(), before);
}

#[test]
fn a_long_name_has_room_beside_it() {
    let (golden, plaintext) = small();
    for n in [240, 255] {
        let out = golden.path(&"n".repeat(n));
        assert_ok(&decrypt(&golden, &["-o", &text(&out)]));
        assert_eq!(fs::read(&out).unwrap(), plaintext);
    }
    assert_eq!(names(golden.path("").as_path()).len(), 4);
}

#[test]
fn of_several_at_once_one_writes_the_output() {
    let big = Big::new(3 << 20);
    let whole = big.path("whole");
    assert_ok(&big.decrypt(&whole, &[]));
    let want = sha256_file(&whole);
    let out = big.path("out");
    for round in 0..8 {
        let force: &[&str] = if round % 2 == 0 { &[] } else { &["--force"] };
        let start = || {
            let mut command = Command::new(UNLUKS);
            command.args(big.args(&out)).args(force).args(["--quiet", "--threads", "1"]);
            command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let ended: Vec<_> = [(); 4].map(|()| start()).map(|child| child.wait_with_output().unwrap()).into();
        let said: Vec<_> = ended.iter().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).collect();
        let whole = ended.iter().filter(|o| o.status.code() == Some(0)).count();
        assert!(whole > 0 && (whole == 1 || !force.is_empty()), "{whole}: {said:?}");
        assert!(ended.iter().all(|o| matches!(o.status.code(), Some(0 | 2))), "{said:?}");
        assert_eq!(sha256_file(&out), want);
        fs::remove_file(&out).unwrap();
        let _ = fs::remove_file(big.path(".out.unluks-part"));
    }
}

#[cfg(feature = "peer-tests")]
#[test]
fn a_damaged_image_near_the_end_loses_nothing_of_what_is_done() {
    // Damage that reading finds: a qcow2 image whose file is cut off below clusters that its tables name.
    let big = Big::new(192 << 20);
    let (raw, qcow2, out) = (text(&big.image), big.path("big.qcow2"), big.path("out"));
    assert_ok(&crate::common::peer(
        "qemu-img",
        "qemu-utils",
        &["convert", "-f", "raw", "-S", "0", "-O", "qcow2", &raw, &text(&qcow2)],
    ));
    let key = text(&big.key);
    let run = |more: &[&str]| {
        unluks(&[&["decrypt", &text(&qcow2), "--barbican-key", &key, "-o", &text(&out)], more].concat())
    };
    let whole = fs::read(&qcow2).unwrap();
    // An L2 entry of the last cluster with a reserved bit set is what no writer writes.
    let l1 = u64::from_be_bytes(whole[40..48].try_into().unwrap());
    let at = usize::try_from(l1).unwrap();
    let l2 = u64::from_be_bytes(whole[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00;
    let last = usize::try_from(l2).unwrap() + (192 << 20 >> 16) * 8 - 8;
    let mut damaged = whole.clone();
    damaged[last] |= 0x40;
    damaged[last + 7] |= 0x3e;
    damaged[last + 1..last + 7].fill(0xff);
    fs::write(&qcow2, &damaged).unwrap();
    let stopped = run(&["--threads", "1", "--quiet"]);
    assert!(matches!(stopped.code, Some(4 | 1)), "{stopped:?}");
    assert!(stopped.stderr.contains("bytes are kept in") && stopped.stderr.contains("--resume"), "{stopped:?}");
    assert!(big.path(".out.unluks-journal").exists() && big.path(".out.unluks-part").exists());
    // A new run does not throw it away unasked, and one that is told to does.
    assert_refused(&run(&[]), 2, &["--resume", "--force", "unfinished"]);
    assert!(big.path(".out.unluks-journal").exists());
    let modified = fs::metadata(&qcow2).unwrap().modified().unwrap();
    fs::write(&qcow2, &whole).unwrap();
    fs::File::options().write(true).open(&qcow2).unwrap().set_modified(modified).unwrap();
    let resumed = run(&["--resume"]);
    assert_ok(&resumed);
    assert!(resumed.stderr.contains("resuming at byte "), "{}", resumed.stderr);
    let again = big.path("again");
    assert_ok(&big.decrypt(&again, &[]));
    assert_eq!(sha256_file(&out), sha256_file(&again));
}
