//! What the program says of what lies in a plaintext, and what it refuses because of it.

use std::fs;
use std::path::Path;

use crate::common::{Golden, Run, text, unluks, unluks_with_stdin};

/// Where the data of the golden image begins, how much there is, and where it is cut.
const DATA: u64 = 163_840;
const LEN: u64 = 1 << 20;
const CUT: u64 = LEN / 2;

const LINE: &str = "begins as ext4";

fn golden() -> Golden {
    Golden::unpack("l2-ext4")
}

/// The image of an ext4, of which half the plaintext is there.
fn cut() -> Golden {
    let golden = golden();
    fs::File::options().write(true).open(&golden.image).unwrap().set_len(DATA + CUT).unwrap();
    golden
}

fn decrypt(golden: &Golden, out: &Path, more: &[&str]) -> Run {
    let (image, key, out) = (text(&golden.image), text(&golden.key), text(out));
    let mut args = vec!["decrypt", &image, "--key-file", &key, "--output", &out];
    args.extend(more);
    unluks(&args)
}

fn assert_cut_off(run: &Run) {
    assert_eq!(run.code, Some(4), "{}", run.stderr);
    assert_eq!(run.refusal_fault(&[4]), None, "{}", run.stderr);
    let last = run.stderr.lines().last().unwrap();
    let says = ["contents.size", "524288", "1048576", "ext4", "--allow-truncated"];
    assert!(says.iter().all(|words| last.contains(words)), "{last}");
}

#[test]
fn a_whole_file_system_is_named_in_one_line() {
    let golden = golden();
    let run = decrypt(&golden, &golden.path("out"), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(run.stderr.lines().filter(|line| line.starts_with(LINE)).count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains(", 1 MiB"), "{}", run.stderr);
    let quiet = decrypt(&golden, &golden.path("quiet"), &["--quiet"]);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (Some(0), ""));
}

#[test]
fn one_that_is_cut_off_is_refused_before_anything_is_written() {
    let golden = cut();
    let out = golden.path("out");
    assert_cut_off(&decrypt(&golden, &out, &[]));
    assert!(!out.exists());
    // The part is there, and the file system is not all the same.
    assert_cut_off(&decrypt(&golden, &out, &["--length", "4096"]));
    assert_cut_off(&decrypt(&golden, &out, &["--skip", "1024", "--quiet"]));
    let allowed = decrypt(&golden, &out, &["--allow-truncated"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
    let warned = allowed.stderr.lines().any(|line| line.starts_with("warning: the plaintext has 524288 bytes"));
    assert!(warned, "{}", allowed.stderr);
    assert_eq!(fs::metadata(&out).unwrap().len(), CUT);
}

#[test]
fn a_pipe_that_ends_before_the_file_system_leaves_no_output() {
    let whole = golden();
    let out = whole.path("out");
    let args = |golden: &Golden, out: &Path, more: &[&str]| -> Vec<String> {
        let mut args = ["decrypt", "-", "--key-file"].map(str::to_owned).to_vec();
        args.extend([text(&golden.key), "--output".into(), text(out)]);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let run = unluks_with_stdin(&args(&whole, &out, &[]), &fs::read(&whole.image).unwrap());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains(LINE), "{}", run.stderr);
    let plain = fs::read(&out).unwrap();
    assert_eq!(crate::common::sha256(&plain), whole.sidecar["sha256"].as_str().unwrap());
    let golden = cut();
    let out = golden.path("out");
    let bytes = fs::read(&golden.image).unwrap();
    let run = unluks_with_stdin(&args(&golden, &out, &[]), &bytes);
    assert_cut_off(&run);
    assert!(!out.exists());
    let run = unluks_with_stdin(&args(&golden, &out, &["--allow-truncated"]), &bytes);
    assert_eq!((run.code, fs::metadata(&out).unwrap().len()), (Some(0), CUT), "{}", run.stderr);
}

#[cfg(feature = "nbd")]
#[test]
fn nothing_is_served_that_is_cut_off() {
    let golden = cut();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let args = ["serve", &image, "--key-file", &key, "--run", "true"];
    assert_cut_off(&unluks(&args));
    let allowed = unluks(&[&args[..], &["--allow-truncated"]].concat());
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
}

#[test]
fn inspect_looks_into_plaintext_and_into_what_is_not_encrypted() {
    let golden = golden();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let out = golden.path("out");
    assert_eq!(decrypt(&golden, &out, &[]).code, Some(0));
    let through = unluks(&["inspect", &image, "--inside", "--key-file", &key]);
    let plain = unluks(&["inspect", &text(&out), "--inside"]);
    assert_eq!((through.code, plain.code), (Some(0), Some(0)), "{}{}", through.stderr, plain.stderr);
    assert_eq!(through.stdout, plain.stdout);
    let said = String::from_utf8(plain.stdout).unwrap();
    assert!(said.starts_with(LINE) && said.contains("1048576 bytes by its own structures, of 1048576"), "{said}");
    let outer = String::from_utf8(unluks(&["inspect", &image, "--inside"]).stdout).unwrap();
    assert!(outer.starts_with("begins as LUKS2"), "{outer}");
    // A damage is said with its code and its place.
    let mut bytes = fs::read(&out).unwrap();
    bytes[1024 + 0x78] ^= 1;
    fs::write(&out, &bytes).unwrap();
    let damaged = String::from_utf8(unluks(&["inspect", &text(&out), "--inside"]).stdout).unwrap();
    assert!(damaged.contains("error: contents.ext.superblock-checksum: the superblock: found 0x"), "{damaged}");
    assert!(damaged.contains("(at byte 1024)"), "{damaged}");
    // A key alone has no use.
    let refused = unluks(&["inspect", &image, "--key-file", &key]);
    assert_eq!(refused.refusal_fault(&[2]), None, "{}", refused.stderr);
}

#[test]
fn inside_in_full_is_json_as_its_schema_says() {
    let golden = golden();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let out = golden.path("out");
    assert_eq!(decrypt(&golden, &out, &[]).code, Some(0));
    let mut bytes = fs::read(&out).unwrap();
    bytes[1024 + 0x78] ^= 1;
    fs::write(&out, &bytes).unwrap();
    let schema = fs::read_to_string(crate::common::root().join("docs/inside.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let report = |args: &[&str]| -> serde_json::Value {
        let run = unluks(&[&["inspect", "--inside", "--json"], args].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let report = serde_json::from_slice(&run.stdout).unwrap();
        let faults: Vec<String> = schema.iter_errors(&report).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}");
        report
    };
    let full = report(&["--full", &image, "--key-file", &key]);
    let covered = &full["coverage"];
    let sum: u64 = ["verified", "used_without_checksum", "free"].iter().map(|m| covered[m].as_u64().unwrap()).sum();
    assert_eq!((full["findings"].as_array().unwrap().len(), Some(sum)), (0, full["volume_size"].as_u64()));
    assert!(report(&[&image, "--key-file", &key])["coverage"].is_null());
    assert_eq!(report(&["--full", &text(&out)])["findings"][0]["code"], "contents.ext.superblock-checksum");
    let refused = unluks(&["inspect", &image, "--full"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--inside"), "{}", refused.stderr);
}

#[test]
fn a_map_shows_containers_in_an_empty_disk_and_the_plaintext() {
    let golden = golden();
    let (image, key) = (text(&golden.image), text(&golden.key));
    let container = fs::read(&golden.image).unwrap();
    let disk = golden.path("disk");
    let mut bytes = vec![0; 64 << 20];
    bytes[..container.len()].copy_from_slice(&container);
    bytes[(48 << 20)..][..container.len()].copy_from_slice(&container);
    fs::write(&disk, &bytes).unwrap();
    let schema = fs::read_to_string(crate::common::root().join("docs/map.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let map = |args: &[&str]| -> serde_json::Value {
        let run = unluks(&[&["inspect", "--map", "--json"], args].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let map = serde_json::from_slice(&run.stdout).unwrap();
        let faults: Vec<String> = schema.iter_errors(&map).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{faults:?}");
        map
    };
    let whole = map(&[&text(&disk)]);
    let cells = whole["cells"].as_str().unwrap();
    let of = |at: usize| &cells[at / (64 << 10)..][..1];
    assert_eq!((cells.len(), whole["headers"].to_string().as_str()), (1024, "[0]"));
    assert_eq!((of(container.len() - 1), of(32 << 20), of((48 << 20) + container.len() - 1)), ("8", "0", "8"));
    // The plaintext is another picture than the container, and a pipe has none.
    assert_ne!(map(&[&image, "--key-file", &key])["cells"], map(&[&image])["cells"]);
    let shown = String::from_utf8(unluks(&["inspect", "--map", &image]).stdout).unwrap();
    assert!(shown.contains("L a LUKS header") && shown.contains("encrypted, compressed or noise"), "{shown}");
    let scanned = String::from_utf8(unluks(&["scan", "--map", "-q", &text(&disk)]).stdout).unwrap();
    let last = format!("\n{} ", 60 << 20);
    assert!(scanned.contains(&last) && scanned.matches('L').count() > 4, "{scanned}");
    assert_eq!(unluks(&["inspect", "--map", "-"]).code, Some(2));
}
