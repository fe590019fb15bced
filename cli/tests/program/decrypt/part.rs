//! Parts of the plaintext, images that are cut off, images through pipes, headers that are elsewhere.

use std::fs;

use crate::common::{Golden, chain, check_all, peer, text, unluks, unluks_with_stdin};
use crate::decrypt::{assert_ok, assert_refused, decrypt, sh, small};

#[test]
fn every_part_is_that_part() {
    let (golden, plaintext) = small();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let piped = fs::read(&golden.image).unwrap();
    let mut parts = Vec::new();
    for skip in [0, 1, 511, 512, 513, 4096, 8191, 8192] {
        parts.push((skip, None));
        parts.extend([0, 1, 511, 512, 1025].map(|n| (skip, Some(n))).iter().filter(|p| skip + p.1.unwrap() <= 8192));
    }
    let name = |(skip, len): &(usize, Option<usize>)| format!("skip {skip}, length {len:?}");
    check_all(&parts, name, |(skip, len)| {
        let mut more = vec!["--skip".to_owned(), skip.to_string()];
        more.extend(len.iter().flat_map(|n| ["--length".to_owned(), n.to_string()]));
        let more: Vec<_> = more.iter().map(String::as_str).collect();
        let wanted = &plaintext[*skip..len.map_or(8192, |n| skip + n)];
        let out = golden.path(&format!("{skip}-{len:?}"));
        let to_file = decrypt(&golden, &[&more[..], &["-o", &text(&out)]].concat());
        let to_stdout = decrypt(&golden, &[&more[..], &["-o", "-"]].concat());
        let from_pipe =
            unluks_with_stdin(&[&["decrypt", "-", "--key-file", &key, "-o", "-"], &more[..]].concat(), &piped);
        for (way, run) in [("file", &to_file), ("stdout", &to_stdout), ("pipe", &from_pipe)] {
            if run.code != Some(0) {
                return Some(format!("{way} of {image}: {}", run.stderr));
            }
        }
        let wrong = fs::read(&out).unwrap() != wanted || to_stdout.stdout != wanted || from_pipe.stdout != wanted;
        wrong.then(|| "other bytes".to_owned())
    });
}

#[test]
fn a_part_beyond_the_end_is_refused_with_the_length() {
    let (golden, _) = small();
    let out = golden.path("out");
    let refused: [&[&str]; 4] = [
        &["--skip", "8193"],
        &["--skip", "8192", "--length", "1"],
        &["--length", "8193"],
        &["--skip", "18446744073709551615", "--length", "18446744073709551615"],
    ];
    for part in refused {
        let run = decrypt(&golden, &[&["-o", &text(&out)], part].concat());
        assert_refused(&run, 2, &["beyond the plaintext's 8192 bytes"]);
        assert!(!out.exists());
    }
    // Of a pipe nobody knows the length before its end.
    let image = fs::read(&golden.image).unwrap();
    let key = text(&golden.key);
    let run = unluks_with_stdin(&["decrypt", "-", "--key-file", &key, "-q", "-o", "-", "--length", "8193"], &image);
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert!(run.stderr.contains("the pipe ended"), "{}", run.stderr);
}

#[test]
fn a_pipe_a_fifo_and_a_file_give_the_same() {
    let (golden, plaintext) = small();
    let image = fs::read(&golden.image).unwrap();
    let (out, key) = (golden.path("out"), text(&golden.key));
    let run = unluks_with_stdin(&["decrypt", "-", "--key-file", &key, "-o", &text(&out)], &image);
    assert_ok(&run);
    assert_eq!(fs::read(&out).unwrap(), plaintext);

    let fifo = text(&golden.path("fifo"));
    let line = r#"mkfifo "$1"; cat "$2" >"$1" & unluks decrypt "$1" --key-file "$3" -o -"#;
    let run = sh(line, &[&fifo, &text(&golden.image), &key]);
    assert_ok(&run);
    assert_eq!(run.stdout, plaintext);
}

#[test]
fn the_standard_input_is_one_thing_only() {
    let (golden, _) = small();
    let image = fs::read(&golden.image).unwrap();
    let run = unluks_with_stdin(&["decrypt", "-", "--key-file", "-", "-o", "-"], &image);
    assert_refused(&run, 2, &["cannot be both the image and the key"]);
    assert_refused(&decrypt(&golden, &["--header", "-", "-o", "-"]), 2, &["--header cannot be the standard input"]);
}

/// How much is cut off, the plaintext that is left, and what the message must say is missing.
const CUTS: [(usize, usize, &str); 4] =
    [(1, 7680, "1 bytes"), (511, 7680, "511 bytes"), (513, 7168, "1 bytes"), (8191, 0, "511 bytes")];

#[test]
fn a_sector_that_is_cut_off_is_missed() {
    let (golden, plaintext) = small();
    let whole = fs::read(&golden.image).unwrap();
    let key = text(&golden.key);
    for (cut, left, says) in CUTS {
        let image = &whole[..whole.len() - cut];
        fs::write(&golden.image, image).unwrap();
        assert_refused(
            &decrypt(&golden, &["-o", &text(&golden.path("out"))]),
            4,
            &["truncated", says, "--allow-trunc"],
        );
        assert!(!golden.path("out").exists());
        let taken = decrypt(&golden, &["-o", "-", "--allow-truncated"]);
        assert_ok(&taken);
        assert_eq!(taken.stdout, plaintext[..left]);
        assert!(taken.stderr.contains("bytes are missing at the end of the image"), "{}", taken.stderr);

        let piped = ["decrypt", "-", "--key-file", &key, "-q", "-o", "-"];
        let run = unluks_with_stdin(&piped, image);
        assert_eq!(run.code, Some(4), "{}", run.stderr);
        assert!(run.stderr.contains(says), "{}", run.stderr);
        let taken = unluks_with_stdin(&[&piped[..], &["--allow-truncated"]].concat(), image);
        assert_ok(&taken);
        assert_eq!(taken.stdout, plaintext[..left]);
    }
}

#[test]
fn a_segment_with_a_size_is_missed_to_its_end() {
    let golden = Golden::unpack("l2-segment-size");
    let size = usize::try_from(golden.sidecar["size"].as_u64().unwrap()).unwrap();
    let plaintext = chain(&golden.name, size);
    let whole = fs::read(&golden.image).unwrap();
    // Where the data start, as the table of the kernel says in sectors.
    let start: usize = golden.sidecar["table"].as_str().unwrap().split(' ').nth(7).unwrap().parse().unwrap();
    fs::write(&golden.image, &whole[..start * 512 + 1024]).unwrap();
    let missing = format!("{} bytes", size - 1024);
    assert_refused(&decrypt(&golden, &["-o", "-"]), 4, &["truncated", &missing]);
    let taken = decrypt(&golden, &["-o", "-", "--allow-truncated"]);
    assert_ok(&taken);
    assert_eq!(taken.stdout, plaintext[..1024]);

    // The file ends before the data even start.
    fs::write(&golden.image, &whole[..start * 512 - 512]).unwrap();
    assert_refused(&decrypt(&golden, &["-o", "-"]), 4, &["cut off", &format!("{} bytes", start * 512 - 512)]);
}

#[test]
fn the_header_may_be_elsewhere() {
    for name in ["l1-detached", "l2-detached", "l1-header-backup", "l2-header-backup"] {
        let golden = Golden::unpack(name);
        let run = golden.decrypt(&golden.path("out"), true);
        assert_ok(&run);
        assert_eq!(fs::read(golden.path("out")).unwrap(), chain(name, 8192), "{name}");
    }
    let golden = Golden::unpack("l2-detached");
    let (key, header) = (text(&golden.key), text(golden.header.as_ref().unwrap()));
    // Without its header the data are noise, and the message says what may help.
    assert_refused(&decrypt(&golden, &["-o", "-"]), 4, &["l2-detached.img", "--header"]);
    // Both may be pipes of their own.
    let line = r#"cat "$1" | unluks decrypt - --header "$2" --key-file "$3" -o - -q"#;
    let run = sh(line, &[&text(&golden.image), &header, &key]);
    assert_ok(&run);
    assert_eq!(run.stdout, chain("l2-detached", 8192));
    // A header that is none: the message names the header's file.
    let run = unluks(&["decrypt", &header, "--header", &key, "--key-file", &key, "-o", "-"]);
    assert_refused(&run, 4, &[&key]);
}

#[cfg(feature = "peer-tests")]
#[test]
fn a_cut_off_qcow2_image_that_encrypts_its_clusters_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let [raw, key, image, out] = ["raw", "key", "image", "out"].map(|name| text(&dir.path().join(name)));
    fs::write(&raw, chain("clusters", 1 << 20)).unwrap();
    fs::write(&key, "pass").unwrap();
    let secret = format!("secret,id=s,file={key}");
    let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let make = ["convert", "--object", &secret, "-f", "raw", "-O", "qcow2", "-o", encrypt, &raw, &image];
    assert_ok(&peer("qemu-img", "qemu-utils", &make));
    let whole = fs::read(&image).unwrap();
    let data = || {
        let run = unluks(&["inspect", "--json", &image]);
        assert_ok(&run);
        let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
        (report["data"]["state"].as_str().unwrap().to_owned(), report["data"]["missing"].as_u64())
    };
    assert_eq!(data(), ("complete".into(), Some(0)));
    // At a cluster's start, at a sector's, and within one.
    for cut in [128 << 10, 1024, 1000] {
        fs::write(&image, &whole[..whole.len() - cut]).unwrap();
        let run = unluks(&["decrypt", &image, "--key-file", &key, "-o", &out]);
        assert_refused(&run, 4, &["container.truncated", "fetch it again"]);
        assert!(!std::path::Path::new(&out).exists());
        let (state, missing) = data();
        assert_eq!(state, "truncated");
        assert!(missing.is_some_and(|n| (1..=cut.try_into().unwrap()).contains(&n)), "cut {cut}: {missing:?}");
    }
}

#[cfg(feature = "peer-tests")]
#[test]
fn a_fixed_vhd_that_is_read_as_raw_is_told_of() {
    let (golden, _) = small();
    let raw = text(&golden.path("raw.vhd"));
    let image = text(&golden.image);
    let options = "subformat=fixed,force_size=on";
    assert_ok(&peer("qemu-img", "qemu-utils", &["convert", "-f", "raw", "-O", "vpc", "-o", options, &image, &raw]));
    let key = text(&golden.key);
    for command in [&["inspect", &raw][..], &["decrypt", &raw, "--key-file", &key, "-o", "-"]] {
        let run = unluks(command);
        assert!(
            run.stderr.contains("footer of a fixed VHD") && run.stderr.contains("the format vhd leaves them out"),
            "{}",
            run.stderr
        );
        let run = unluks(&[command, &["--format", "vhd"]].concat());
        assert!(run.code == Some(0) && !run.stderr.contains("footer"), "{}", run.stderr);
    }
}

#[test]
fn what_a_pipe_cannot_bring_is_named() {
    let golden = Golden::unpack("luks-in-qcow2");
    let key = text(&golden.key);
    let args = ["decrypt", "-", "--key-file", &key, "-o", "-"];
    let qcow2 = fs::read(&golden.image).unwrap();
    let run = unluks_with_stdin(&args, &qcow2);
    assert_refused(&run, 2, &["standard input: container.format", "a qcow2 image", "save it to a file first"]);
    assert_eq!(unluks_with_stdin(&["inspect", "-"], &qcow2).code, Some(2));
    let run = unluks_with_stdin(&args, &[&b"\xfd7zXZ\0"[..], &[7; 100]].concat());
    assert_refused(&run, 5, &["an xz file", "unpack the file first"]);
    // A whole disk, and what is too short for anything.
    for bytes in [vec![0; 5 << 20], vec![0; 10], Vec::new()] {
        let run = unluks_with_stdin(&args, &bytes);
        assert_refused(&run, 4, &["no LUKS header", "save a whole disk to a file first"]);
        assert!(!run.stderr.contains("--partition"), "{}", run.stderr);
    }
}

#[test]
fn a_character_device_is_no_empty_image() {
    let (golden, _) = small();
    let (key, image) = (text(&golden.key), text(&golden.image));
    for device in ["/dev/zero", "/dev/null"] {
        for args in [
            &["scan", device][..],
            &["inspect", device],
            &["decrypt", device, "--key-file", &key, "-o", "-"],
            &["decrypt", &image, "--header", device, "--key-file", &key, "-o", "-"],
        ] {
            assert_refused(&unluks(args), 2, &[device, "is a character device, not an image"]);
        }
    }
}

#[cfg(feature = "peer-tests")]
#[test]
fn a_set_may_have_more_files_than_a_process_may_have_open_at_first() {
    let (golden, _) = small();
    let set = text(&golden.path("set"));
    let acquire = ["-u", "-q", "-f", "encase6", "-c", "fast", "-t", &set, &text(&golden.image)];
    assert_ok(&peer("ewfacquire", "ewf-tools", &acquire));
    let numbered = (2..=99).map(|n| format!("E{n:02}"));
    let letters = || 'A'..='Z';
    let lettered = letters().flat_map(|x| letters().map(move |y| format!("E{x}{y}")));
    for extension in numbered.chain(lettered).chain(["FAA".into(), "FAB".into()]) {
        fs::write(format!("{set}.{extension}"), "").unwrap();
    }
    // All of them are opened, and then it turns out that the image has one.
    let run = sh(r#"ulimit -Sn 100; unluks inspect "$1""#, &[&format!("{set}.E01")]);
    assert_refused(&run, 2, &["the image ends in segment file 1, but 776 more were given"]);
}

#[test]
fn a_pipe_that_ends_early_gives_what_came_and_its_hash() {
    let (golden, plaintext) = small();
    let image = fs::read(&golden.image).unwrap();
    let (out, list, key) = (text(&golden.path("out")), text(&golden.path("list")), text(&golden.key));
    let args = ["decrypt", "-", "--key-file", &key, "-o", &out, "--length", "1048576", "--allow-truncated"];
    let hash = ["--hash", "plaintext:sha256", "--hash-file", &list];
    let run = unluks_with_stdin(&[&args[..], &hash].concat(), &image);
    assert_ok(&run);
    assert!(run.stderr.contains("1040384 bytes before the end of the part"), "{}", run.stderr);
    assert_eq!(fs::read(&out).unwrap(), plaintext);
    assert!(fs::read_to_string(&list).unwrap().starts_with(&crate::common::sha256(&plaintext)));

    let skipped = ["decrypt", "-", "--key-file", &key, "-o", "-", "--skip", "10G"];
    assert_refused(&unluks_with_stdin(&skipped, &image), 2, &["the plaintext ends at byte 8192"]);
}
