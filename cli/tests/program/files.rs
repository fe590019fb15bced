//! `unluks ls`, `cat`, `cp`, `find` and `hash`.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::{Golden, Run, sha256, text, unluks, unluks_with_stdin};

#[cfg(feature = "peer-tests")]
mod golden;
#[cfg(feature = "peer-tests")]
mod peers;

/// An ext4 of one MiB with `hello.txt` and `lost+found`, in LUKS2.
fn golden() -> Golden {
    Golden::unpack("l2-ext4")
}

fn run(golden: &Golden, command: &str, args: &[&str]) -> Run {
    let (image, key) = (text(&golden.image), text(&golden.key));
    unluks(&[&[command, "--quiet", "--key-file", &key, &image], args].concat())
}

fn stdout(run: &Run) -> String {
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    String::from_utf8(run.stdout.clone()).unwrap()
}

/// The plaintext of the golden image.
fn plain(golden: &Golden) -> Vec<u8> {
    let out = golden.path("plain");
    if !out.exists() {
        assert_eq!(golden.decrypt(&out, true).code, Some(0));
    }
    fs::read(out).unwrap()
}

/// A disk with an MBR: the ext4 in partition 1, and zeroes in partition 2.
pub fn disk(golden: &Golden) -> PathBuf {
    let (ext4, path) = (plain(golden), golden.path("disk"));
    let file = fs::File::create(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    let mut mbr = [0; 512];
    for (n, (start, sectors)) in [(2048u32, 2048u32), (8192, 1024)].into_iter().enumerate() {
        let at = 446 + 16 * n;
        mbr[at + 4] = 0x83;
        mbr[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        mbr[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&mbr, 0).unwrap();
    file.write_all_at(&ext4, 1 << 20).unwrap();
    path
}

#[test]
fn files_of_an_encrypted_image_are_read() {
    let golden = golden();
    assert_eq!(stdout(&run(&golden, "ls", &[])), "hello.txt\nlost+found\n");
    let hello = run(&golden, "cat", &["hello.txt"]).stdout;
    assert_eq!(hello.len(), 6);
    assert_eq!(run(&golden, "cat", &["/hello.txt", "lost+found/../hello.txt"]).stdout, hello.repeat(2));
    let line = format!("{}  hello.txt\n", sha256(&hello));
    assert_eq!(stdout(&run(&golden, "hash", &["/"])), line);
    let long = stdout(&run(&golden, "ls", &["-l", "--hash", "sha256", "/hello.txt"]));
    assert!(long.starts_with(&sha256(&hello)) && long.contains("  -rw-r--r-- "), "{long}");
    assert_eq!(stdout(&run(&golden, "find", &["--name", "*.t?t", "--kind", "f"])), "/hello.txt\n");
    assert_eq!(stdout(&run(&golden, "find", &["--kind", "d", "--print0"])), "/\0/lost+found\0");

    let out = golden.path("hello");
    assert_eq!(stdout(&run(&golden, "cp", &["hello.txt", &text(&out)])), "");
    assert_eq!((fs::read(&out).unwrap(), out.metadata().unwrap().permissions().mode() & 0o777), (hello.clone(), 0o600));
    let all = golden.path("all");
    assert_eq!(stdout(&run(&golden, "cp", &["-r", "--preserve", "/", &text(&all)])), "");
    let copied = all.join("hello.txt");
    assert_eq!((fs::read(&copied).unwrap(), copied.metadata().unwrap().permissions().mode() & 0o777), (hello, 0o644));
    assert!(copied.metadata().unwrap().mtime() < out.metadata().unwrap().mtime());
    assert!(all.join("lost+found").is_dir());
}

#[test]
fn json_is_as_its_schema_says() {
    let golden = golden();
    let schema = fs::read_to_string(crate::common::root().join("docs/files.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let lines = |run: &Run| -> Vec<serde_json::Value> {
        let lines: Vec<_> = stdout(run).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for line in &lines {
            let faults: Vec<String> = schema.iter_errors(line).map(|e| e.to_string()).collect();
            assert!(faults.is_empty(), "{line}: {faults:?}");
        }
        lines
    };
    let listed = lines(&run(&golden, "ls", &["--json", "--hash", "sha256"]));
    assert_eq!(listed[0]["path"], "/hello.txt");
    assert_eq!((listed[0]["bytes"].as_u64(), listed[0]["mode"].as_str()), (Some(6), Some("0644")));
    assert_eq!((listed[1]["type"].as_str(), listed.len()), (Some("directory"), 2));
    assert_eq!(lines(&run(&golden, "find", &["--json"])).len(), 3);
    let volumes = lines(&unluks(&["ls", "--quiet", "--json", &text(&disk(&golden))]));
    assert_eq!((volumes[0]["volume"].as_str(), volumes[0]["kind"].as_str()), (Some("/1"), Some("ext4")));
    assert_eq!((volumes[1]["is_read"].as_bool(), volumes.len()), (Some(false), 2));
}

#[test]
fn an_image_that_is_not_encrypted_is_read_as_it_is() {
    let golden = golden();
    let path = golden.path("ext4");
    fs::write(&path, plain(&golden)).unwrap();
    assert_eq!(stdout(&unluks(&["ls", &text(&path)])), "hello.txt\nlost+found\n");
    let disk = text(&disk(&golden));
    let listed = stdout(&unluks(&["ls", &disk]));
    assert!(
        listed.starts_with("/1  ext4 \"restored\", 1048576 bytes\n/2  ") && listed.lines().count() == 2,
        "{listed}"
    );
    assert_eq!(stdout(&unluks(&["ls", &disk, "/1"])), "hello.txt\nlost+found\n");
    assert_eq!(stdout(&unluks(&["ls", "--quiet", &disk, "--partition", "1"])), "hello.txt\nlost+found\n");
    assert_eq!(unluks(&["cat", &disk, "/1/hello.txt"]).stdout.len(), 6);
    assert_eq!(stdout(&unluks(&["find", &disk, "/1", "--name", "h*"])), "/1/hello.txt\n");
    // The other volume has no files, which is an error, and the first has them all the same.
    let out = golden.path("out");
    let copied = unluks(&["cp", "-r", &disk, "/", &text(&out)]);
    assert_eq!(copied.refusal_fault(&[5]), None, "{}", copied.stderr);
    assert!(out.join("1/hello.txt").is_file() && copied.stderr.contains("/2: "), "{}", copied.stderr);
    for (path, says) in
        [("/3/x", "there is no such volume"), ("/1/none", "no such file"), ("/2/x", "which is no file system")]
    {
        let refused = unluks(&["cat", &disk, path]);
        assert!(refused.stderr.contains(says) && refused.stderr.contains(path), "{}", refused.stderr);
        assert_eq!(refused.refusal_fault(&[2, 5]), None, "{}", refused.stderr);
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let golden = golden();
    let image = text(&golden.image);
    let cases: [(&str, &[&str], i32, &str); 6] = [
        ("cat", &["/none"], 2, "no such file"),
        ("cat", &["/"], 2, "directory"),
        ("cat", &["/hello.txt/x"], 2, "no directory"),
        ("cp", &["/lost+found", "out"], 2, "-r"),
        ("cp", &["/hello.txt", "/lost+found", "/nowhere/at/all"], 2, "no directory"),
        ("ls", &["/none"], 2, "no such file"),
    ];
    for (command, args, code, says) in cases {
        let refused = run(&golden, command, args);
        assert_eq!(refused.refusal_fault(&[code]), None, "{command} {args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says) && refused.stdout.is_empty(), "{command} {args:?}: {}", refused.stderr);
    }
    let wrong = unluks(&["ls", &image, "--key-file", &text(&golden.image), "--keyfile-size", "8"]);
    assert_eq!(wrong.refusal_fault(&[3]), None, "{}", wrong.stderr);
    let pipe = unluks_with_stdin(&["ls", "-"], &fs::read(&golden.image).unwrap());
    assert_eq!(pipe.refusal_fault(&[2]), None, "{}", pipe.stderr);
    // One that is there is read although another is not.
    let both = run(&golden, "cat", &["/none", "/hello.txt"]);
    assert_eq!((both.code, both.stdout.len()), (Some(2), 6));
}

#[test]
fn nothing_is_replaced_unasked_and_nothing_is_written_elsewhere() {
    let golden = golden();
    let out = golden.path("out");
    fs::create_dir(&out).unwrap();
    let (there, outside) = (out.join("hello.txt"), golden.path("outside"));
    let copy = |more: &[&str]| run(&golden, "cp", &[more, &["/hello.txt", &text(&out)]].concat());
    fs::write(&there, "theirs").unwrap();
    assert_eq!(copy(&[]).refusal_fault(&[2]), None);
    assert_eq!(fs::read(&there).unwrap(), b"theirs");
    assert_eq!(copy(&["--force"]).code, Some(0));
    assert_eq!(fs::read(&there).unwrap().len(), 6);
    // A link is replaced, and what it leads to stays.
    fs::write(&outside, "theirs").unwrap();
    fs::remove_file(&there).unwrap();
    symlink(&outside, &there).unwrap();
    assert_eq!(copy(&[]).refusal_fault(&[2]), None);
    assert_eq!(copy(&["--force"]).code, Some(0));
    assert!(fs::read(&outside).unwrap() == b"theirs" && there.symlink_metadata().unwrap().is_file());
    // The image itself, by another name.
    fs::remove_file(&there).unwrap();
    fs::hard_link(&golden.image, &there).unwrap();
    let refused = copy(&["--force"]);
    assert_eq!(refused.refusal_fault(&[2]), None, "{}", refused.stderr);
    assert!(refused.stderr.contains("the input itself"), "{}", refused.stderr);
    assert_eq!(fs::read(&there).unwrap(), fs::read(&golden.image).unwrap());
    // A link in the place of a directory is not gone through.
    let (all, elsewhere) = (golden.path("all"), golden.path("elsewhere"));
    fs::create_dir(&all).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, all.join("lost+found")).unwrap();
    let refused = run(&golden, "cp", &["-r", "/", &text(&all)]);
    assert_eq!(refused.refusal_fault(&[2]), None, "{}", refused.stderr);
    assert!(all.join("hello.txt").is_file(), "the others are copied");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let left: Vec<_> = fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn the_process_of_a_reader_wants_its_parent() {
    for stdin in [b"".as_slice(), b"anything at all", &[0xff; 64], b"Q\x02\x00\x00\x00{}"] {
        let run = unluks_with_stdin(&["reader"], stdin);
        assert!(run.code.is_some() && !run.stderr.contains("panicked"), "{run:?}");
        assert_eq!(run.code == Some(0), stdin.is_empty(), "{run:?}");
    }
}

/// An image with any bytes never takes the program with it.
#[test]
fn changed_images_end_in_decency() {
    let golden = golden();
    let sound = plain(&golden);
    let used: Vec<usize> =
        (0..sound.len() / 1024).filter(|n| sound[n * 1024..][..1024].iter().any(|b| *b != 0)).collect();
    let mut state = 3u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let path = golden.path("changed");
    for round in 0..60 {
        let mut bytes = sound.clone();
        for _ in 0..4 {
            let at = used[below(used.len())] * 1024 + below(1024);
            bytes[at] = if round % 2 == 0 { 0xff } else { u8::try_from(below(256)).unwrap() };
        }
        fs::write(&path, &bytes).unwrap();
        let run = unluks(&["ls", "-l", &text(&path)]);
        assert!(matches!(run.code, Some(0 | 1 | 2 | 4 | 5 | 6)), "{round}: {run:?}");
        assert!(run.stderr.lines().all(|line| !line.starts_with("thread ")), "{round}: {run:?}");
    }
}

fn is_inside(path: &Path, dir: &Path) -> bool {
    path.canonicalize().unwrap().starts_with(dir.canonicalize().unwrap())
}

#[test]
fn a_copy_lies_in_its_directory() {
    let golden = golden();
    let out = golden.path("a/b");
    fs::create_dir_all(&out).unwrap();
    // No path leads above the image's root.
    assert_eq!(run(&golden, "cp", &["/../../hello.txt", &text(&out)]).code, Some(0));
    assert!(is_inside(&out.join("hello.txt"), &out));
    assert_eq!(fs::read_dir(golden.path("a")).unwrap().count(), 1);
}
