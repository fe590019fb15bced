//! The one way in, as users meet it: headers that are not the image's, and sectors that cannot be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Golden, Run, UNLUKS, text, unluks};

#[test]
fn a_header_of_another_image_is_refused_unless_it_is_forced() {
    for (image, other) in [
        ("l1-aes-xts-512-sha256", "l1-two-slots"),
        ("l2-argon2id", "l2-pbkdf2-sha512"),
        ("l2-argon2id", "l1-aes-xts-512-sha256"),
        ("l1-aes-xts-512-sha256", "l2-argon2id"),
        ("gpt", "l2-argon2id"),
    ] {
        let (golden, other) = (Golden::unpack(image), Golden::unpack(other));
        let (image, header, key) = (text(&golden.image), text(&other.image), text(&other.key));
        let out = golden.path("out");
        let mut args = vec![image.as_str(), "--header", &header];
        if golden.name == "gpt" {
            args.extend(["--partition", "2"]);
        }
        let with = |command: &str, more: &[&str]| -> Run { unluks(&[&[command], args.as_slice(), more].concat()) };
        let out_arg = text(&out);
        let decrypt = ["--key-file", &key, "--output", &out_arg];
        let run = with("decrypt", &decrypt);
        assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
        let metadata = unluks::open(&fs::read(&other.image).unwrap()).unwrap();
        assert!(run.stderr.contains(&metadata.uuid) && run.stderr.contains("--force-header"), "{}", run.stderr);
        assert!(!out.exists());
        // Replacing an output is another thing.
        assert_eq!(with("decrypt", &[&decrypt[..], &["--force"]].concat()).refusal_fault(&[2]), None);
        let forced = with("decrypt", &[&decrypt[..], &["--force-header", "--allow-truncated"]].concat());
        assert_eq!(forced.code, Some(0), "{}", forced.stderr);
        let run = with("inspect", &[]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.contains("warning: ") && run.stderr.contains("of its own, with UUID"), "{}", run.stderr);
        assert!(!with("inspect", &["--force-header"]).stderr.contains("warning: "));
        #[cfg(feature = "nbd")]
        assert_eq!(with("serve", &["--key-file", &key, "--socket", "nowhere"]).refusal_fault(&[2]), None);
    }
}

#[test]
fn swapped_files_are_told() {
    for name in ["l1-detached", "l2-detached"] {
        let golden = Golden::unpack(name);
        let (image, header, key) = (text(golden.header.as_ref().unwrap()), text(&golden.image), text(&golden.key));
        let run = unluks(&["decrypt", &image, "--header", &header, "--key-file", &key, "--output", "-"]);
        assert_eq!(run.refusal_fault(&[4]), None, "{}", run.stderr);
        assert!(run.stderr.contains("swapped?"), "{}", run.stderr);
    }
    let golden = Golden::unpack("l2-argon2id");
    let bytes = fs::read(&golden.image).unwrap();
    let backup = golden.path("backup");
    let size = unluks::open(&bytes).unwrap().header_size;
    fs::write(&backup, &bytes[..usize::try_from(size).unwrap()]).unwrap();
    let (image, header, key) = (text(&backup), text(&golden.image), text(&golden.key));
    let run = unluks(&["decrypt", &image, "--header", &header, "--key-file", &key, "--output", "-"]);
    assert_eq!(run.refusal_fault(&[2]), None, "{}", run.stderr);
    assert!(run.stderr.contains("are they swapped?"), "{}", run.stderr);
    let run = unluks(&["decrypt", &header, "--header", &image, "--key-file", &key, "--output", "-"]);
    assert_eq!(run.code, Some(0), "the right way round: {}", run.stderr);
}

/// A library that makes reads of some sectors of one file fail, as a bad disk does.
struct BadDisk {
    dir: tempfile::TempDir,
    library: PathBuf,
}

impl BadDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let library = dir.path().join("eio.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program/eio.c");
        let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
        let cc = cc.unwrap_or_else(|e| panic!("cc is not there (apt-get install gcc libc6-dev): {e}"));
        assert!(cc.status.success(), "{}", String::from_utf8_lossy(&cc.stderr));
        Self { dir, library }
    }

    /// Runs the program; `bad` are the bytes of `image` that cannot be read.
    fn run(&self, image: &Path, bad: &[u64], args: &[&str]) -> Run {
        let bad: Vec<String> = bad.iter().map(u64::to_string).collect();
        let output = Command::new(UNLUKS)
            .args(args)
            .env("LD_PRELOAD", &self.library)
            .env("EIO_FILE", image)
            .env("EIO_AT", bad.join(","))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Run { code: output.status.code(), stdout: output.stdout, stderr }
    }
}

#[test]
fn bad_sectors_do_not_hide_what_can_be_read() {
    let disk = BadDisk::new();
    let golden = Golden::unpack("l2-argon2id");
    let (image, key) = (text(&golden.image), text(&golden.key));
    let decrypt = ["decrypt", &image, "--key-file", &key, "--output", "-"];
    for bad in [&[][..], &[0], &[4096], &[16384]] {
        let run = disk.run(&golden.image, bad, &decrypt);
        assert_eq!(run.code, Some(0), "{bad:?}: {}", run.stderr);
        assert_eq!(crate::common::sha256(&run.stdout), golden.sidecar["sha256"], "{bad:?}");
        assert_eq!(run.stderr.contains("header cannot be read"), !bad.is_empty(), "{bad:?}: {}", run.stderr);
        let inspect = disk.run(&golden.image, bad, &["inspect", &image]);
        assert_eq!(inspect.code, Some(0), "{bad:?}: {}", inspect.stderr);
        let scan = disk.run(&golden.image, bad, &["scan", &image]);
        assert_eq!(scan.code, Some(0), "{bad:?}: {}", scan.stderr);
    }
    for (bad, place) in [(&[0, 16384][..], "at byte 0"), (&[32768], "keyslot 0's area")] {
        let run = disk.run(&golden.image, bad, &decrypt);
        assert_eq!(run.refusal_fault(&[1]), None, "{bad:?}: {}", run.stderr);
        assert!(run.stderr.contains(place) && run.stderr.contains("Input/output error"), "{bad:?}: {}", run.stderr);
    }
    // A keyslot that another one makes up for, and a header in a partition.
    let slots = Golden::unpack("l1-two-slots");
    let area = unluks::open(&fs::read(&slots.image).unwrap()).unwrap().keyslots[&0].area;
    let (image, key) = (text(&slots.image), text(&slots.key));
    let args = ["decrypt", &image, "--key-file", &key, "--output", "-"];
    let run = disk.run(&slots.image, &[area.offset], &args);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning: a keyslot was passed over: keyslot 0's area"), "{}", run.stderr);
    let gpt = Golden::unpack("gpt");
    let (image, key) = (text(&gpt.image), text(&gpt.key));
    for bad in [0, 512, 4096 * 512] {
        let out = disk.dir.path().join(bad.to_string());
        let out_arg = text(&out);
        let args = ["decrypt", &image, "--key-file", &key, "--length", "8192", "--output", &out_arg];
        let run = disk.run(&gpt.image, &[bad], &args);
        assert_eq!(run.code, Some(0), "{bad}: {}", run.stderr);
        assert_eq!(crate::common::sha256_file(&out), gpt.sidecar["sha256"], "{bad}");
    }
    let l1 = Golden::unpack("l1-aes-xts-512-sha256");
    let run = disk.run(&l1.image, &[0], &["scan", &text(&l1.image)]);
    assert_eq!(run.refusal_fault(&[1]), None, "{}", run.stderr);
}
