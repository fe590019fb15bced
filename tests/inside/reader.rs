//! Files as the readers give them, against what mkfs put in; changed images; and journals that have what nothing else has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unluks::inside::{Contents, Kind};
use unluks::reader::walk::{Descend, Visitor, read, walk};
use unluks::reader::{FileKind, FileSystem, Metadata, open};
use unluks::{Error, ErrorKind, ReadAt, Result};

use crate::Patched;
use crate::filled::{Filled, exfat, fat, fill, noise, plant, run};
use crate::mutations::{is_wanted, memory_is_bounded, rounds_or, seal_node};

/// All that a walk finds: a file's bytes, a link's target, nothing of a directory; and what went wrong.
#[derive(Default)]
struct All {
    found: BTreeMap<String, Vec<u8>>,
    metadata: BTreeMap<String, Metadata>,
    faults: Vec<Error>,
    /// So many bytes of each file are read.
    most: Option<u64>,
}

impl Visitor for All {
    fn visit(&mut self, fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        let mut bytes: Vec<u8> = Vec::new();
        let of = Metadata { size: metadata.size.min(self.most.unwrap_or(u64::MAX)), ..metadata.clone() };
        let done = match metadata.kind {
            FileKind::File => read(fs, path, &of, &mut |piece| {
                bytes.extend(piece);
                Ok(())
            })
            .map(drop),
            FileKind::Link => fs.read_link(path).map(|target| bytes = target),
            _ => Ok(()),
        };
        let attributes = fs.xattrs(path).map(drop);
        let path = String::from_utf8_lossy(path).into_owned();
        for e in [done.err(), attributes.err().filter(|e| e.kind() != ErrorKind::Unsupported)].into_iter().flatten() {
            self.faults.push(e.within(&path));
        }
        self.metadata.insert(path.clone(), metadata.clone());
        self.found.insert(path, bytes);
        Ok(Descend::Into)
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        self.faults.push(e.within(String::from_utf8_lossy(path)));
        Ok(())
    }
}

fn all(disk: Arc<dyn ReadAt>, kind: Kind, most: Option<u64>) -> Result<All> {
    let mut fs = open(kind, disk)?;
    let mut all = All { most, ..All::default() };
    let root = fs.metadata(b"/")?;
    walk(&mut *fs, b"/", &root, &mut all)?;
    Ok(all)
}

fn kind(disk: &Arc<dyn ReadAt>) -> Kind {
    Contents::probe(Arc::clone(disk)).unwrap().kind
}

/// The same of a directory here.
fn planted(dir: &Path, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let (path, here) = (format!("{path}/{}", entry.file_name().into_string().unwrap()), entry.path());
        let bytes = if let Ok(target) = fs::read_link(&here) {
            target.into_os_string().into_string().unwrap().into_bytes()
        } else if here.is_dir() {
            planted(&here, &path, found);
            Vec::new()
        } else {
            fs::read(&here).unwrap()
        };
        found.insert(path, bytes);
    }
}

#[test]
fn every_file_is_what_mkfs_was_given() {
    let dir = tempfile::tempdir().unwrap();
    plant(dir.path());
    let mut wanted = BTreeMap::new();
    planted(dir.path(), "", &mut wanted);
    for name in ["ext4", "ext4-plain", "ext4-bigalloc", "ext2", "xfs", "xfs-1k", "btrfs"] {
        let image = fill(name, &plant);
        let mut all = all(Arc::clone(&image.disk), kind(&image.disk), None).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
        // mkfs.xfs takes the same file again for a hard link, and ext has this of its own.
        all.found.retain(|path, _| path != "/" && path != "/lost+found");
        assert_eq!(all.found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{name}");
        for (path, bytes) in &wanted {
            assert!(all.found[path] == *bytes, "{name}: {path} differs");
        }
        if !name.starts_with("xfs") {
            let (here, there) = (dir.path().join("dir/file").metadata().unwrap(), &all.metadata["/dir/file"]);
            assert_eq!((there.mode, there.uid), (Some(here.mode() & 0o7777), Some(here.uid())), "{name}");
        }
    }
}

struct Viewed(Arc<dyn ReadAt>);

impl ext4_view::Ext4Read for Viewed {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read_exact_at(dst, start_byte).map_err(|e| e.to_string().into())
    }
}

#[test]
fn ext4_view_reads_the_same_of_what_it_knows() {
    for name in ["ext4", "ext4-1k", "ext4-plain", "ext4-seed", "ext4-bigalloc", "ext4-sparse2"] {
        let image = fill(name, &plant);
        let ours = all(Arc::clone(&image.disk), Kind::Ext4, None).unwrap();
        let theirs = ext4_view::Ext4::load(Box::new(Viewed(Arc::clone(&image.disk)))).unwrap();
        let mut count = 0;
        for (path, metadata) in &ours.metadata {
            let there = theirs.symlink_metadata(path.as_str()).unwrap();
            let modified = (there.modified().seconds(), there.modified().nanoseconds());
            assert_eq!(
                (metadata.size, metadata.mode, metadata.uid, metadata.gid, metadata.modified),
                (there.len(), Some(u32::from(there.mode())), Some(there.uid()), Some(there.gid()), Some(modified)),
                "{name}: {path}"
            );
            match metadata.kind {
                FileKind::File => assert!(theirs.read(path.as_str()).unwrap() == ours.found[path], "{name}: {path}"),
                FileKind::Link => {
                    assert_eq!(theirs.read_link(path.as_str()).unwrap().as_ref(), ours.found[path], "{name}: {path}");
                }
                _ => {}
            }
            count += 1;
        }
        assert!(count > 300, "{name}: {count}");
        assert_eq!(ours.metadata["/again"].links, Some(2), "{name}");
    }
}

#[test]
fn files_of_fat_and_ntfs_are_what_was_put_in() {
    for name in ["fat16", "fat32"] {
        let image = fill(name, &plant);
        let all = all(Arc::clone(&image.disk), kind(&image.disk), None).unwrap();
        assert!(all.faults.is_empty(), "{name}: {:?}", all.faults);
        let size = usize::try_from(fat(&*image.disk).cluster).unwrap() * 4 - 100;
        assert!(all.found["/FILE.BIN"] == noise(size, 3), "{name}");
        assert_eq!(all.found["/DIR/INNER.TXT"].len(), 5, "{name}");
        // 1 January 2020.
        assert_eq!(all.metadata["/FILE.BIN"].modified, Some((1_577_836_800, 0)), "{name}");
        assert_eq!(all.found.len(), 4, "{name}: {:?}", all.found.keys());
    }
    let image = fill("exfat", &plant);
    let cluster = usize::try_from(exfat(&*image.disk).cluster).unwrap();
    let found = all(Arc::clone(&image.disk), Kind::Exfat, None).unwrap();
    assert!(found.faults.is_empty(), "{:?}", found.faults);
    assert_eq!(found.found.keys().collect::<Vec<_>>(), ["/", "/dir", "/file.bin", "/one piece and a long name"]);
    // One is in a chain, the other without: what is in their clusters.
    let place = exfat(&*image.disk);
    let bytes = |from: u64, len: usize| image.bytes(place.heap + (place.first + from - 2) * place.cluster, len);
    assert!(found.found["/file.bin"] == bytes(0, 3 * cluster - 10));
    assert!(found.found["/one piece and a long name"] == bytes(5, 2 * cluster));
    let image = fill("ntfs", &plant);
    let all = all(Arc::clone(&image.disk), Kind::Ntfs, None).unwrap();
    assert!(all.faults.is_empty(), "{:?}", all.faults);
    assert!(all.found["/file"] == noise(1 << 20, 5) && all.found["/other"] == noise(70_000, 6));
    assert_eq!(all.found.keys().collect::<Vec<_>>(), ["/", "/file", "/other"]);
}

#[test]
fn a_chain_of_fat_that_leads_in_a_circle_ends() {
    let image = fill("fat32", &plant);
    let place = fat(&*image.disk);
    let link = |from: u64, to: u32| (place.tables[0] + from * place.entry, to.to_le_bytes());
    // The file's third cluster leads to its first; then it is shorter than it says, and then it has all of its bytes.
    let with = |(at, bytes): (u64, [u8; 4])| Arc::new(Patched::new(&image.disk).with(at, &bytes));
    let all_of = |disk| all(disk, Kind::Fat32, None).unwrap();
    assert_eq!(all_of(with(link(5, 3))).faults.len(), 0);
    let short = all_of(with(link(4, 0x0fff_ffff)));
    assert!(short.faults.len() == 1 && short.faults[0].kind() == ErrorKind::Corrupt, "{:?}", short.faults);
    // A directory without an end, whose only cluster follows itself.
    let since = Instant::now();
    let full = place.data + 5 * place.cluster;
    let deleted = [[0xe5; 1].as_slice(), &[0x20; 31]].concat().repeat(usize::try_from(place.cluster).unwrap() / 32);
    let (at, bytes) = link(7, 7);
    let disk = Patched::new(&image.disk).with(at, &bytes).with(full, &deleted);
    let endless = all_of(Arc::new(disk));
    assert!(endless.faults.iter().any(|e| e.kind() == ErrorKind::LimitExceeded), "{:?}", endless.faults);
    assert!(since.elapsed() < Duration::from_secs(60), "{:?}", since.elapsed());
    // A directory that is in itself: the entry of DIR/INNER.TXT becomes one of DIR.
    let inner = full + 64;
    let disk = Patched::new(&image.disk).with(inner + 11, &[16]).with(inner + 26, &[7, 0]).with(inner + 28, &[0; 4]);
    let circle = all_of(Arc::new(disk));
    assert!(
        circle.faults.len() == 1 && circle.faults[0].to_string().contains("by another path"),
        "{:?}",
        circle.faults
    );
}

/// The place of some bytes.
fn place_of(image: &Filled, wanted: &[u8]) -> u64 {
    let bytes = image.bytes(0, usize::try_from(image.disk.len()).unwrap());
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    u64::try_from(at).unwrap()
}

#[test]
fn hostile_directories_of_ext_are_faults() {
    let image = fill("ext2", &|tree| {
        fs::create_dir_all(tree.join("sub/aaaaevil")).unwrap();
        fs::write(tree.join("good"), "good").unwrap();
    });
    // A name with a slash.
    let at = place_of(&image, b"aaaaevil");
    let disk = Patched::new(&image.disk).with(at, b"/../evil");
    let slashed = all(Arc::new(disk), Kind::Ext2, None).unwrap();
    assert_eq!(slashed.found["/good"], b"good");
    assert!(slashed.found.keys().all(|path| !path.contains("evil")) && !slashed.faults.is_empty());
    // The directory leads to the root, and so contains itself.
    let disk = Patched::new(&image.disk).with(at - 8, &2u32.to_le_bytes());
    let circle = all(Arc::new(disk), Kind::Ext2, None).unwrap();
    assert!(circle.faults.iter().any(|e| e.to_string().contains("by another path")), "{:?}", circle.faults);
    assert!(circle.found.len() < 100, "{}", circle.found.len());
    // A file with a size beyond all reason.
    let inode = image.inode("/good");
    let disk = Patched::new(&image.disk).with(inode + 4, &[0xff; 4]).with(inode + 0x6c, &[0xff, 0xff, 0xff, 0x7f]);
    let endless = all(Arc::new(disk), Kind::Ext2, None).unwrap();
    assert_eq!(endless.faults.len(), 1, "{:?}", endless.faults);
}

#[test]
fn what_only_the_journal_has_is_there() {
    for name in ["ext4-plain", "ext4-1k"] {
        replayed(name);
    }
}

/// With a journal that has no checksums, and with one that has.
fn replayed(name: &str) {
    let image = fill(name, &|tree| fs::write(tree.join("file"), [b'o'; 1024]).unwrap());
    let path = image.path.to_str().unwrap();
    let block = image.block("/file", 0) / 1024;
    let new = image.path.with_extension("new");
    fs::write(&new, [b'n'; 1024]).unwrap();
    let commands = image.path.with_extension("debugfs");
    let how = if name == "ext4-1k" { "-c -v 3" } else { "" };
    fs::write(&commands, format!("journal_open {how}\njournal_write -b {block} {}\njournal_close\n", new.display()))
        .unwrap();
    let output = run("debugfs", &["-w", "-f", commands.to_str().unwrap(), path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(image.bytes(block * 1024, 4), b"oooo", "the block itself is as it was");
    let all = all(Arc::clone(&image.disk), Kind::Ext4, None).unwrap();
    assert!(all.faults.is_empty(), "{:?}", all.faults);
    assert_eq!(all.found["/file"], [b'n'; 1024]);
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// In this process, where a panic that is not caught and a walk without an end fail the test. The program's tests have the
/// process of its own.
#[test]
fn changed_images_do_no_harm() {
    let mut rng = Rng(11);
    let all_of_them = [
        ("ext2", 1000),
        ("ext4-plain", 700),
        ("xfs", 400),
        ("btrfs", 150),
        ("fat16", 1000),
        ("fat32", 300),
        ("exfat", 500),
        ("ntfs", 500),
    ];
    for (name, rounds) in all_of_them.into_iter().filter(|(name, _)| is_wanted(name)) {
        let rounds = rounds_or(rounds);
        let image = fill(name, &|tree| {
            fs::create_dir(tree.join("dir")).unwrap();
            fs::create_dir_all(tree.join("dir/below")).unwrap();
            fs::write(tree.join("dir/file"), noise(30_000, 5)).unwrap();
            fs::write(tree.join("dir/below/other"), noise(70, 6)).unwrap();
            std::os::unix::fs::symlink("dir/file", tree.join("link")).unwrap();
        });
        if name.starts_with("ext") {
            let path = image.path.to_str().unwrap();
            for n in 0..12 {
                // More than an inode has room for.
                run("debugfs", &["-w", "-R", &format!("ea_set /dir/file user.number{n:02} {n:050}"), path]);
            }
        }
        let kind = kind(&image.disk);
        // Blocks of structures: what is in use, but no noise.
        let mut block = vec![0; 4096];
        let is_used = |at: &u64| {
            image.disk.read_exact_at(&mut block, *at).unwrap();
            let zeroes = block.iter().filter(|byte| **byte == 0).count();
            (64..4096).contains(&zeroes)
        };
        let blocks: Vec<u64> = (0..image.disk.len() / 4096).map(|n| n * 4096).filter(is_used).collect();
        let (since, mut slowest) = (Instant::now(), Duration::ZERO);
        for _ in 0..rounds {
            let at = blocks[usize::try_from(rng.below(blocks.len() as u64)).unwrap()];
            let mut block = image.bytes(at, 4096);
            for _ in 0..=rng.below(3) {
                let byte = usize::try_from(rng.below(4096)).unwrap();
                block[byte] = if rng.below(2) == 0 { 0xff } else { rng.below(256) as u8 };
            }
            // What lies behind a checksum is reached, too.
            let (at, block) =
                if rng.below(2) == 0 { None } else { seal_node(&*image.disk, at, &block) }.unwrap_or((at, block));
            let disk = Patched::new(&image.disk).with(at, &block);
            let started = Instant::now();
            if let Ok(all) = all(Arc::new(disk), kind, Some(1 << 20)) {
                assert!(all.found.keys().all(|path| !path.split('/').any(|name| name == "..")));
            }
            let taken = started.elapsed();
            slowest = slowest.max(taken);
            assert!(taken < Duration::from_secs(20), "{name}: {at}: {taken:?}");
        }
        eprintln!("{name}: {rounds} in {:?}, the slowest {slowest:?}; {} blocks", since.elapsed(), blocks.len());
        memory_is_bounded(name);
    }
}
