//! The fuzz targets over their committed corpus, without libFuzzer.
//!
//! A file whose name starts with `good-` must be accepted, one that starts with `bad-` refused; the others, which a
//! fuzzer found, may be either.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the whole corpus may take in the repository.
const CORPUS_MAX: u64 = 2 << 20;

fn fuzz_dir() -> PathBuf {
    crate::common::root().join("fuzz")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())).map(|f| f.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs one target over its corpus.
fn run(name: &str) {
    let (_, target) = crate::targets::TARGETS.iter().find(|(n, _)| *n == name).unwrap();
    let files = files(&fuzz_dir().join("corpus").join(name));
    let (mut good, mut bad) = (0, 0);
    for file in &files {
        let shown = file.file_name().unwrap().to_str().unwrap();
        eprintln!("{name}/{shown}");
        let accepted = target(&fs::read(file).unwrap());
        if shown.starts_with("good-") {
            good += 1;
            assert!(accepted, "{name}/{shown} must be accepted");
        }
        if shown.starts_with("bad-") {
            bad += 1;
            assert!(!accepted, "{name}/{shown} must be refused");
        }
    }
    assert!(
        good > 0 && bad > 0,
        "{name}: {good} good and {bad} bad inputs; without them nothing is known to be reached"
    );
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! { luks1 luks2_header json metadata af cipher_spec key_guess unlock integrity backup qcow2 vhd vhdx vmdk ewf vdi parallels qed qcow android rbd aff4 sets cinder partitions md lvm inside nbd reader rescue_map }

#[test]
fn every_target_is_tested_built_and_has_a_corpus() {
    let names: BTreeSet<_> = crate::targets::TARGETS.iter().map(|(n, _)| (*n).to_owned()).collect();
    assert_eq!(names, TESTED.iter().map(|n| (*n).to_owned()).collect());
    let stems = |dir: &str| -> BTreeSet<String> {
        files(&fuzz_dir().join(dir)).iter().map(|f| f.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names, stems("corpus"));
    assert_eq!(names, stems("fuzz_targets"));
    let manifest = fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    let built = manifest.matches("[[bin]]").count();
    assert_eq!(names.len(), built);
    assert!(names.iter().all(|n| manifest.contains(&format!("name = \"{n}\""))));
}

#[test]
fn the_corpus_stays_small() {
    let dirs = files(&fuzz_dir().join("corpus")).into_iter().chain([fuzz_dir().join("images")]);
    let total: u64 = dirs.flat_map(|d| files(&d)).map(|f| f.metadata().unwrap().len()).sum();
    assert!(total <= CORPUS_MAX, "{total} bytes; at most {CORPUS_MAX} are wanted");
}
