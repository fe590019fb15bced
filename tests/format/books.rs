//! What containers say of themselves, against what their own programs say of it.

use std::sync::Arc;

use sha1::Digest;
use unluks::format::{Checks, Doubt, Options, Weight, open};
use unluks::progress::Progress;

use crate::aff4::{Archive, MAP, STREAM, mapped, plain};
use crate::support::{Bench, Rng, assert_same, qemu_img, qemu_io, read_all, run, test_disk, text};

/// What the books of an image say.
fn doubts(checks: &Checks) -> Vec<Doubt> {
    checks.books.iter().flat_map(|book| book.check(&Progress::default()).unwrap()).collect()
}

/// What `qemu-img check` counts: clusters that are lost, and those where something worse is wrong; `None` where it cannot
/// open the image at all.
fn qemu_check(path: &str) -> Option<(u64, u64)> {
    let output = std::process::Command::new("qemu-img").args(["check", "-f", "qcow2", "--output=json", path]).output();
    let said: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
    let count = |name: &str| said[name].as_u64().unwrap_or(0);
    Some((count("leaks"), count("corruptions") + count("check-errors")))
}

/// Images of every kind, with data, snapshots, bitmaps and what is compressed, as QEMU's own programs make them.
fn images(bench: &Bench) -> Vec<String> {
    let raw = bench.path("disk.raw");
    let raw = text(&raw);
    let mut all = Vec::new();
    let mut made = |name: &str, options: &str, more: &[&str]| {
        let path = bench.path(name);
        let path = text(&path).to_owned();
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2"];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend(more);
        args.extend([raw, path.as_str()]);
        qemu_img(&args);
        all.push(path.clone());
        path
    };
    made("plain", "", &[]);
    made("old", "compat=0.10", &[]);
    made("small", "cluster_size=512", &[]);
    made("large", "cluster_size=2M", &[]);
    for bits in ["1", "2", "4", "8", "32", "64"] {
        made(&format!("counts{bits}"), &format!("refcount_bits={bits},cluster_size=4096"), &[]);
    }
    made("packed", "", &["-c"]);
    made("packed-zstd", "compression_type=zstd,cluster_size=8192", &["-c"]);
    made("extended", "extended_l2=on,cluster_size=16384", &[]);
    made("lazy", "lazy_refcounts=on", &[]);
    made("metadata", "preallocation=metadata", &[]);
    let kept = made("kept", "cluster_size=4096", &[]);
    qemu_img(&["snapshot", "-c", "one", &kept]);
    qemu_io(&["-f", "qcow2", "-c", "write -P 7 100k 300k", &kept]);
    qemu_img(&["snapshot", "-c", "two", &kept]);
    qemu_io(&["-f", "qcow2", "-c", "write -z 200k 300k", "-c", "discard 1M 64k", &kept]);
    let marked = made("marked", "", &[]);
    qemu_img(&["bitmap", "--add", "-g", "4096", &marked, "changed"]);
    qemu_img(&["bitmap", "--add", "-g", "65536", &marked, "other"]);
    qemu_io(&["-f", "qcow2", "-c", "write -P 9 1M 500k", &marked]);
    all
}

#[test]
fn the_books_of_a_qcow2_agree_where_qemu_says_so() {
    let bench = Bench::new(test_disk(3 << 20, 31));
    let mut rng = Rng(77);
    let (mut sound, mut damaged, mut leaks) = (0, 0, 0);
    for path in images(&bench) {
        let bytes = std::fs::read(&path).unwrap();
        let opened = open(Arc::new(bytes.clone()), Options::default()).unwrap();
        let found = doubts(&opened.checks);
        assert_eq!((&found, qemu_check(&path)), (&Vec::new(), Some((0, 0))), "{path}");
        sound += 1;
        // The structures lie before the data: what is changed there is mostly one of theirs.
        for _ in 0..40 {
            let mut changed = bytes.clone();
            let at = 104 + rng.index(changed.len().min(400 << 10) - 104);
            let bit = rng.index(8);
            changed[at] ^= 1 << bit;
            let Ok(opened) = open(Arc::new(changed.clone()), Options::default()) else { continue };
            // Where the table of snapshots is no table, nothing is counted.
            if opened.checks.books.is_empty() {
                continue;
            }
            let copy = bench.path("changed");
            std::fs::write(&copy, &changed).unwrap();
            let Some((leaked, corrupt)) = qemu_check(text(&copy)) else { continue };
            let found = doubts(&opened.checks);
            let has = |grave: bool| found.iter().any(|d| (d.weight != Weight::Note) == grave);
            let what = format!("{path}: bit {bit} of byte {at}: {found:?}, QEMU {leaked} leaked, {corrupt} corrupt");
            assert!(corrupt == 0 || has(true), "{what}");
            assert!(leaked == 0 || has(false) || has(true), "{what}");
            assert!(!found.iter().any(|d| d.weight == Weight::Error) || corrupt > 0, "{what}");
            damaged += usize::from(corrupt > 0);
            leaks += usize::from(leaked > 0);
        }
    }
    assert!(sound >= 15 && damaged >= 20 && leaks >= 5, "{sound} sound, {damaged} damaged, {leaks} with leaks");
}

#[test]
fn the_hashes_of_an_ewf_image_are_those_of_its_disk() {
    let bench = Bench::new(test_disk(2 << 20, 32));
    let raw = bench.path("disk.raw");
    let sum = |program: &str| run(program, "coreutils", &[text(&raw)])[..].split(' ').next().unwrap().to_owned();
    let wanted = [("md5", sum("md5sum")), ("sha1", sum("sha1sum"))];
    for format in ["encase6", "encase1", "smart", "ewf"] {
        let target = bench.path(format);
        let args = ["-u", "-q", "-f", format, "-d", "sha1", "-t", text(&target), text(&raw)];
        run("ewfacquire", "ewf-tools", &args);
        let file = target.with_extension(if format == "smart" {
            "s01"
        } else if format == "ewf" {
            "e01"
        } else {
            "E01"
        });
        let opened = open(Arc::new(std::fs::read(&file).unwrap()), Options::default()).unwrap();
        let recorded = &opened.checks.recorded;
        assert!(!recorded.is_empty() && opened.notes.is_empty(), "{format}: {:?}", opened.notes);
        for one in recorded {
            assert!(
                wanted.iter().any(|(name, hex)| *name == one.algorithm && *hex == one.hex),
                "{format}: {}",
                one.hex
            );
            assert_eq!(one.of.len(), 2 << 20, "{format}");
        }
    }
}

#[test]
fn the_hashes_of_aff4_are_those_of_a_stream_or_of_a_whole_map() {
    let disk = test_disk((1 << 20) + 777, 33);
    let recorded = |mut archive: Archive, statement: &str| {
        let (_, turtle) = archive.members.iter_mut().find(|(name, _)| name == "information.turtle").unwrap();
        turtle.extend(statement.as_bytes());
        open(Arc::new(archive.bytes()), Options::default()).unwrap().checks.recorded
    };
    let hex = hex::encode(sha1::Sha1::digest(&disk));
    let of = |urn: &str, kind: &str| format!("<{urn}> aff4:hash \"{hex}\"^^aff4:{kind} .\n");
    let found = recorded(plain(&disk, ""), &of(STREAM, "SHA1"));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].algorithm, found[0].hex.as_str()), ("sha1", hex.as_str()));
    assert_same(&read_all(&found[0].of).unwrap(), &disk, "a stream");
    // A stream that a map puts into another order, and the map itself.
    let found = recorded(mapped(&disk), &of(STREAM, "SHA1"));
    assert!(found.len() == 1 && read_all(&found[0].of).unwrap() != disk);
    let found = recorded(mapped(&disk), &of(MAP, "sha1"));
    assert_same(&read_all(&found[0].of).unwrap(), &disk, "a map");
    // Hashes of chunks and of maps are of no bytes in their order.
    for kind in ["blockMapHashSHA512", "SHA1block", "unknown"] {
        assert!(recorded(mapped(&disk), &of(MAP, kind)).is_empty(), "{kind}");
    }
    assert!(recorded(plain(&disk, ""), &format!("<{STREAM}> aff4:hash \"no hash\"^^aff4:SHA1 .\n")).is_empty());
}
