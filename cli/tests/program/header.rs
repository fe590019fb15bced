//! `unluks header`: backups of headers, and volume keys, in files of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{Golden, sha256, text, unluks};

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_header_backup_opens_data_whose_header_is_gone() {
    for name in ["l1-aes-xts-512-sha256", "l2-argon2id"] {
        let golden = Golden::unpack(name);
        let (image, backup) = (text(&golden.image), golden.path("backup"));
        let run = unluks(&["header", &image, "--output", &text(&backup)]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(mode(&backup), 0o600);
        let copied = fs::read(&backup).unwrap();
        let mut data = fs::read(&golden.image).unwrap();
        assert!(copied.len().is_multiple_of(4096) && copied.len() < data.len());
        assert!(data[..100_000] == copied[..100_000], "{name}: not as it is");
        data[..copied.len()].fill(0);
        fs::write(&golden.image, data).unwrap();
        let (header, key) = (text(&backup), text(&golden.key));
        let run = unluks(&["decrypt", &image, "--header", &header, "--key-file", &key, "-o", "-"]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap());
        // That it opens only so, is a finding.
        let verify = |image: &str| {
            let run = unluks(&["verify", image, "--header", &header, "--key-file", &key, "--json"]);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            String::from_utf8(run.stdout).unwrap()
        };
        let report = verify(&image);
        assert!(report.contains("\"header.missing\"") && report.contains("in a file of its own"), "{report}");
        let sound = Golden::unpack(name);
        assert!(verify(&text(&sound.image)).contains("\"header.given\""));
        let mut bytes = fs::read(&sound.image).unwrap();
        // The salt of a keyslot that is not in use.
        bytes[264] ^= 1;
        if name.starts_with("l1") {
            fs::write(&sound.image, bytes).unwrap();
            assert!(verify(&text(&sound.image)).contains("\"header.differs\""));
        }
        // The file is there; and inputs are never outputs.
        for path in [&backup, &golden.image] {
            let run = unluks(&["header", &image, "--header", &header, "--output", &text(path)]);
            assert_eq!(run.code, Some(2), "{}", run.stderr);
        }
    }
}

/// The backup is the one that cryptsetup itself writes, byte for byte.
#[test]
#[cfg(feature = "peer-tests")]
fn cryptsetup_takes_the_backup() {
    for name in ["l1-aes-xts-512-sha256", "l2-argon2id"] {
        let golden = Golden::unpack(name);
        let (image, ours, theirs) = (text(&golden.image), golden.path("ours"), golden.path("theirs"));
        assert_eq!(unluks(&["header", &image, "--output", &text(&ours)]).code, Some(0));
        let cryptsetup = |args: &[&str]| std::process::Command::new("cryptsetup").args(args).output().unwrap();
        let made = cryptsetup(&["luksHeaderBackup", &image, "--header-backup-file", &text(&theirs)]);
        assert!(made.status.success(), "{made:?}");
        assert!(fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(), "{name}: another backup");
    }
}

#[test]
fn a_volume_key_goes_to_a_file_that_nobody_else_reads() {
    let golden = Golden::unpack("l2-argon2id");
    let (image, key, out) = (text(&golden.image), text(&golden.key), golden.path("vk"));
    let dump = |more: &[&str]| {
        let args = ["header", &image, "--key-file", &key, "--dump-volume-key"];
        unluks(&[&args[..], more].concat())
    };
    let run = dump(&[&text(&out)]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("warning:") && run.stderr.contains("whoever has it reads the data"), "{}", run.stderr);
    assert!(run.stdout.is_empty());
    assert_eq!((mode(&out), fs::read(&out).unwrap().len()), (0o600, 64));
    let run = unluks(&["decrypt", &image, "--volume-key-file", &text(&out), "-o", "-"]);
    assert_eq!(sha256(&run.stdout), golden.sidecar["sha256"].as_str().unwrap(), "{}", run.stderr);
    for (more, says) in [
        (&[&text(&out)[..]][..], "is there already"),
        (&["-"], "go to a file"),
        (&["/dev/stdout"], "/dev/stdout"),
        (&[&image, "--force"], "image"),
    ] {
        let run = dump(more);
        assert_eq!(run.code, Some(2), "{more:?}: {}", run.stderr);
        assert!(run.stderr.contains(says) && run.stdout.is_empty(), "{more:?}: {}", run.stderr);
    }
    assert_eq!(unluks(&["header", &image]).code, Some(2), "nothing is asked for");
}
