//! The full level: sound images with files in them, journals, and every file of a btrfs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use unluks::inside::{Contents, Finding, Severity};
use unluks::{FileSource, ReadAt};

use crate::Patched;
use crate::filled::{FILLED, check, fill, is_sound, noise, plant, run};
use crate::make::CASES;

pub fn sums_up(contents: &Contents, len: u64) -> bool {
    contents.coverage().is_none_or(|c| c.verified + c.used_without_checksum + c.free == len)
}

#[test]
fn sound_images_give_no_finding() {
    let mut faults = Vec::new();
    let mut see = |name: &str, disk: Arc<dyn ReadAt>| {
        let contents = check(Arc::clone(&disk));
        if !contents.all_findings().is_empty() || !sums_up(&contents, disk.len()) {
            faults.push(format!("{name}: {:?} {:?}", contents.coverage(), contents.all_findings()));
        }
        contents
    };
    for case in CASES {
        see(case.name, crate::open(&case.make()));
    }
    for (name, ..) in FILLED {
        let filled = fill(name, &plant);
        let contents = see(name, Arc::clone(&filled.disk));
        let covered = contents.coverage().unwrap();
        // There is data in each.
        match name {
            name if name.starts_with("btrfs") => assert!(covered.verified > 1 << 20, "{name}: {covered:?}"),
            _ => assert!(covered.used_without_checksum > 4096, "{name}: {covered:?}"),
        }
        let has_sums = !matches!(*name, "ext2" | "ext3" | "ext4-crc16" | "ext4-plain" | "fat16" | "fat32" | "ntfs");
        assert_eq!(covered.verified > 0, has_sums, "{name}: {covered:?}");
        assert!(covered.free > 0 && is_sound(name, &filled.path), "{name}: {covered:?}");
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn any_flipped_bit_of_a_thousand_files_is_found_and_the_file_named() {
    let len = |n: usize| 4096 + n * 37 % 16384;
    let image = fill("btrfs", &|tree: &Path| {
        for n in 0..1000 {
            let dir = tree.join(format!("d{}", n % 10));
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(format!("f{n}")), noise(len(n), 1000 + n as u64)).unwrap();
        }
    });
    let heads: HashMap<Vec<u8>, u64> =
        (0..image.disk.len() / 4096).map(|n| (image.bytes(n * 4096, 32), n * 4096)).collect();
    for n in (0..1000).step_by(29) {
        let content = noise(len(n), 1000 + n as u64);
        let byte = n * 7919 % content.len();
        let sector = byte / 4096 * 4096;
        // What is behind the end of the file is not of it.
        let Some(at) = heads.get(&content[sector..][..32.min(content.len() - sector)]) else { continue };
        let at = at + (byte - sector) as u64;
        let flipped = image.bytes(at, 1)[0] ^ 1 << (n % 8);
        let contents = check(Arc::new(Patched::new(&image.disk).with(at, &[flipped])));
        let found: Vec<_> = contents.all_findings().iter().map(|f| (f.code, f.severity, f.path.clone())).collect();
        let path = Some(format!("/d{}/f{n}", n % 10));
        assert_eq!(found, [("contents.btrfs.data-checksum", Severity::Error, path)], "{n}");
    }
}

#[test]
fn a_block_whose_names_were_all_removed_is_none_of_a_tree() {
    let image = fill("ext3", &plant);
    // It mends the directories by giving them trees.
    run("e2fsck", &["-fyD", image.path.to_str().unwrap()]);
    let disk: Arc<dyn ReadAt> = Arc::new(FileSource::open(&image.path).unwrap());
    let root = image.block("/many", 0);
    assert!(image.le(root + 0x22, 2) > 2, "/many has a tree");
    let mut empty = vec![0; 2048];
    empty[4..6].copy_from_slice(&2048u16.to_le_bytes());
    let contents = check(Arc::new(Patched::new(&disk).with(image.block("/many", 2), &empty)));
    let codes: Vec<_> = contents.all_findings().iter().map(|finding| finding.code).collect();
    // Its inodes have no names then.
    assert!(codes.contains(&"contents.ext.inode-unattached"), "{codes:?}");
    assert!(!codes.contains(&"contents.ext.directory-tree"), "{codes:?}");
}

#[test]
fn a_journal_to_replay_is_judged_as_it_will_be() {
    replay("jo", None);
    replay("jo -c -v 3", Some("contents.ext.journal-checksum"));
}

/// `of_journal` is the code of a damage within the journal, where that has checksums of its own.
fn replay(open: &str, of_journal: Option<&str>) {
    let image = fill("ext4", &plant);
    let at = image.inode("/dir/file");
    let (block, within) = (at / 4096, (at % 4096) as usize);
    let good = image.bytes(block * 4096, 4096);
    let copy = image.path.with_extension("block");
    fs::write(&copy, &good).unwrap();
    // debugfs writes the good block into the journal and marks it to be replayed.
    let script = image.path.with_extension("script");
    fs::write(&script, format!("{open}\njw -b {block} {}\njc\n", copy.to_str().unwrap())).unwrap();
    let output = run("debugfs", &["-w", "-f", script.to_str().unwrap(), image.path.to_str().unwrap()]);
    assert!(output.status.success());
    let disk: Arc<dyn ReadAt> = Arc::new(FileSource::open(&image.path).unwrap());
    let dirty = check(Arc::clone(&disk));
    assert_eq!(dirty.state, unluks::inside::State::JournalToReplay);
    assert_eq!(dirty.all_findings(), [] as [&Finding; 0]);
    // In its place the block is damaged, and the journal has it right.
    let in_place = check(Arc::new(Patched::new(&disk).flipped(at + 0x10)));
    assert_eq!(in_place.all_findings(), [] as [&Finding; 0]);
    // The other way round, the damage is what will be there.
    let journal = (0..disk.len() / 4096).map(|n| n * 4096).filter(|at| *at != block * 4096);
    let is_it = |at: &u64| {
        let mut bytes = vec![0; 4096];
        disk.read_exact_at(&mut bytes, *at).unwrap();
        bytes == good
    };
    let place = journal.into_iter().find(is_it).unwrap();
    let damaged = check(Arc::new(Patched::new(&disk).flipped(place + within as u64 + 0x10)));
    let codes: Vec<_> = damaged.all_findings().iter().map(|f| (f.code, f.offset)).collect();
    assert_eq!(codes, [of_journal.map_or(("contents.ext.inode-checksum", Some(at)), |code| (code, Some(place)))]);
}
