//! All files of every file system whose files are read come out by `cp -r` with the bytes that went in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::{chain, check_all, peer, read_stored, sha256, sha256_file, text, unluks};

/// How files get into an image.
#[derive(Clone, Copy, PartialEq)]
enum How {
    /// mkfs takes the tree.
    Tree,
    /// mkfs.xfs takes a list of it.
    Protofile,
    /// mtools put it in.
    Mtools,
    /// A server in user space has the image mounted for as long as it takes.
    Mounted,
}

/// The name, the size in MiB and the command; `TREE` stands for the files, `IMAGE` for the image.
struct Case(&'static str, u64, How, &'static str);

const CASES: &[Case] = &[
    Case("ext2", 40, How::Tree, "mkfs.ext2 -q -b 1024 -d TREE IMAGE"),
    Case("ext2-4k", 40, How::Tree, "mkfs.ext2 -q -b 4096 -I 128 -d TREE IMAGE"),
    Case("ext3", 60, How::Tree, "mkfs.ext3 -q -b 2048 -d TREE IMAGE"),
    Case("ext4", 60, How::Tree, "mkfs.ext4 -q -O metadata_csum,64bit -d TREE IMAGE"),
    Case("ext4-1k", 60, How::Tree, "mkfs.ext4 -q -b 1024 -O metadata_csum -d TREE IMAGE"),
    Case("ext4-plain", 60, How::Tree, "mkfs.ext4 -q -b 1024 -O ^metadata_csum,^64bit -d TREE IMAGE"),
    Case("ext4-inline", 60, How::Tree, "mkfs.ext4 -q -I 512 -O inline_data,metadata_csum -d TREE IMAGE"),
    Case("ext4-bigalloc", 100, How::Tree, "mkfs.ext4 -q -O bigalloc -C 16384 -d TREE IMAGE"),
    Case("ext4-pointers", 60, How::Tree, "mkfs.ext4 -q -O ^extents,^64bit,^has_journal -d TREE IMAGE"),
    Case("ext4-new", 60, How::Tree, "mkfs.ext4 -q -O metadata_csum_seed,large_dir,project,quota -d TREE IMAGE"),
    Case("ext4-casefold", 60, How::Tree, "mkfs.ext4 -q -O casefold -E encoding=utf8 -d TREE IMAGE"),
    Case("xfs", 300, How::Protofile, "mkfs.xfs -q -p PROTO IMAGE"),
    Case("xfs-1k", 300, How::Protofile, "mkfs.xfs -q -b size=1024 -m rmapbt=1,reflink=1 -p PROTO IMAGE"),
    Case("xfs-wide", 300, How::Protofile, "mkfs.xfs -q -n size=16384 -i size=1024,sparse=0 -p PROTO IMAGE"),
    Case("xfs-v4", 300, How::Protofile, "mkfs.xfs -q -m crc=0 -p PROTO IMAGE"),
    Case("btrfs", 120, How::Tree, "mkfs.btrfs -q --rootdir TREE IMAGE"),
    Case("btrfs-sha256", 120, How::Tree, "mkfs.btrfs -q --csum sha256 -m single -n 4096 --rootdir TREE IMAGE"),
    Case("btrfs-mixed", 120, How::Tree, "mkfs.btrfs -q --mixed --csum xxhash --rootdir TREE IMAGE"),
    Case("fat12", 15, How::Mtools, "mkfs.vfat -F 12 -s 8 IMAGE"),
    Case("fat16", 40, How::Mtools, "mkfs.vfat -F 16 -s 4 IMAGE"),
    Case("fat32", 80, How::Mtools, "mkfs.vfat -F 32 -s 1 IMAGE"),
    Case("ntfs", 60, How::Mounted, "mkfs.ntfs -q -F -Q IMAGE"),
    Case("ntfs-64k", 120, How::Mounted, "mkfs.ntfs -q -F -Q -c 65536 IMAGE"),
];

/// Files of all shapes. FAT has no links, and no holes.
fn plant(tree: &Path, how: How) {
    let write = |path: &str, bytes: &[u8]| fs::write(tree.join(path), bytes).unwrap();
    fs::create_dir_all(tree.join("a/directory")).unwrap();
    write("empty", b"");
    for len in [1, 100, 511, 512, 700, 4095, 4096, 4097, 70_000] {
        write(&format!("a/{len}"), &chain(&len.to_string(), len));
    }
    write("large", &chain("large", (3 << 20) + 17));
    write("text", &b"the same line again and again\n".repeat(20_000));
    write("zeroes", &vec![0; 200_000]);
    let holes = fs::File::create(tree.join("holes")).unwrap();
    holes.set_len(2 << 20).unwrap();
    for n in 0..60 {
        holes.write_all_at(&chain(&n.to_string(), 4096), (n * 31_337 + 5000) / 4096 * 4096).unwrap();
    }
    // mkfs.ext4 forgets a hole at the end of a file where it keeps data in inodes.
    holes.write_all_at(&chain("end", 4096), (2 << 20) - 4096).unwrap();
    fs::File::create(tree.join("hole")).unwrap().set_len(1_000_001).unwrap();
    let mut deep = tree.to_owned();
    for n in 0..30 {
        deep.push(format!("level-{n}"));
        fs::create_dir(&deep).unwrap();
        fs::write(deep.join("file"), chain(&format!("deep {n}"), n * 100)).unwrap();
    }
    write(&"long-".repeat(51), b"a name of 255 bytes");
    write("Straße_Łódź_日本語.txt", b"names");
    write("e\u{301}_is_no_\u{e9}", b"and the other way round");
    fs::create_dir(tree.join("many")).unwrap();
    for n in 0..700 {
        write(&format!("many/a_name_that_takes_some_room_{n}"), n.to_string().as_bytes());
    }
    if how != How::Mtools {
        // mtools cuts what takes two units of UTF-16.
        write("🦀", b"names");
    }
    // ntfs-3g makes files of its own of links.
    if matches!(how, How::Tree | How::Protofile) {
        symlink("a/directory", tree.join("link")).unwrap();
        symlink("x/".repeat(200), tree.join("long_link")).unwrap();
        symlink("nowhere", tree.join("dangling")).unwrap();
    }
    if how != How::Mtools {
        fs::hard_link(tree.join("text"), tree.join("a/again")).unwrap();
    }
    if matches!(how, How::Tree) {
        write("a/with a blank\tand more\\", b"odd");
        write("a/a line\nand another", b"odd");
        fs::write(tree.join(std::ffi::OsStr::from_bytes(b"a/\xff\xfe is no UTF-8")), "odd").unwrap();
    }
}

/// What is in a tree: the hash of each file, the target of each link.
fn sums(dir: &Path) -> BTreeMap<PathBuf, String> {
    fn into(dir: &Path, root: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            let what = if kind.is_symlink() {
                format!("leads to {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                into(&path, root, all);
                "is a directory".to_owned()
            } else {
                sha256_file(&path)
            };
            all.insert(path.strip_prefix(root).unwrap().to_owned(), what);
        }
    }
    let mut all = BTreeMap::new();
    into(dir, dir, &mut all);
    all.remove(Path::new("lost+found"));
    all
}

/// The first differences.
fn difference(wanted: &BTreeMap<PathBuf, String>, found: &BTreeMap<PathBuf, String>) -> Option<String> {
    let missing = wanted.iter().filter(|(path, what)| found.get(*path) != Some(what));
    let missing = missing.map(|(path, what)| format!("{path:?}: {what}, found {:?}", found.get(path)));
    let more = found.keys().filter(|path| !wanted.contains_key(*path)).map(|path| format!("{path:?} is too much"));
    let all: Vec<_> = missing.chain(more).collect();
    (!all.is_empty()).then(|| format!("{} differ: {}", all.len(), all[..all.len().min(4)].join("; ")))
}

/// The lines of a protofile of mkfs.xfs.
fn protofile(dir: &Path) -> String {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let line = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        if let Ok(to) = fs::read_link(path) {
            format!("{name} l--777 0 0 {}\n", to.display())
        } else if path.is_dir() {
            format!("{name} d--755 0 0\n{}$\n", protofile(path))
        } else {
            format!("{name} ---644 0 0 {}\n", path.display())
        }
    };
    all.iter().map(line).collect()
}

fn package(program: &str) -> &'static str {
    match program {
        "mkfs.xfs" => "xfsprogs",
        "mkfs.btrfs" => "btrfs-progs",
        "mkfs.vfat" => "dosfstools",
        "mkfs.ntfs" => "ntfs-3g",
        _ => "e2fsprogs",
    }
}

fn done(program: &str, package: &str, args: &[&str]) {
    let run = peer(program, package, args);
    assert_eq!(run.code, Some(0), "{program} {args:?}: {}", run.stderr);
}

/// The image, and what is in it.
fn make(case: &Case, dir: &Path) -> (PathBuf, BTreeMap<PathBuf, String>) {
    let &Case(_, size, how, command) = case;
    let (tree, image) = (dir.join("tree"), dir.join("image"));
    fs::create_dir(&tree).unwrap();
    plant(&tree, how);
    fs::File::create(&image).unwrap().set_len(size << 20).unwrap();
    let proto = dir.join("proto");
    if how == How::Protofile {
        fs::write(&proto, format!("/\n0 0\nd--755 0 0\n{}$\n", protofile(&tree))).unwrap();
    }
    let (tree_text, image_text, proto) = (text(&tree), text(&image), text(&proto));
    let words: Vec<&str> = command
        .split(' ')
        .map(|word| match word {
            "TREE" => &tree_text,
            "IMAGE" => &image_text,
            "PROTO" => &proto,
            word => word,
        })
        .collect();
    done(words[0], package(words[0]), &words[1..]);
    let all = format!("set -e; cd {tree_text}; export LC_ALL=C.UTF-8; ");
    match how {
        How::Mtools => {
            assert!(Path::new("/usr/bin/mcopy").exists(), "mcopy is not installed: apt-get install mtools");
            done("sh", "dash", &["-c", &format!("{all} mcopy -s -Q -i {image_text} * ::/")]);
        }
        How::Mounted => {
            let at = dir.join("mounted");
            fs::create_dir(&at).unwrap();
            done("ntfs-3g", "ntfs-3g", &["-o", "compression", &image_text, &text(&at)]);
            // A link of ntfs-3g is a file with this in it, and a long one has its data described in a record of its own.
            let target = "x/".repeat(200);
            let bytes = [b"IntxLNK\x01".to_vec(), target.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat();
            let script = format!("{all} cp -a . {at}; ln -s {target} {at}/interix", at = text(&at));
            let copied = peer("sh", "dash", &["-c", &script]);
            done("umount", "mount", &[&text(&at)]);
            assert_eq!(copied.code, Some(0), "{}", copied.stderr);
            fs::write(tree.join("interix"), bytes).unwrap();
        }
        How::Tree | How::Protofile => {}
    }
    (image, sums(&tree))
}

/// Copies all of it, and says what differs.
fn copied(image: &Path, dir: &Path, wanted: &BTreeMap<PathBuf, String>) -> Option<String> {
    let out = dir.join("out");
    let run = unluks(&["cp", "-r", "--links", &text(image), "/", &text(&out)]);
    if run.code != Some(0) || !run.stderr.is_empty() {
        return Some(format!("exit {:?}: {}", run.code, run.stderr));
    }
    difference(wanted, &sums(&out))
}

#[test]
fn all_files_of_every_file_system_come_out_as_they_went_in() {
    let has_fuse = Path::new("/dev/fuse").exists();
    if !has_fuse {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no /dev/fuse here: NTFS is not filled and not read");
    }
    let cases: Vec<&Case> = CASES.iter().filter(|case| has_fuse || case.2 != How::Mounted).collect();
    check_all(
        &cases,
        |case| case.0.to_owned(),
        |case| {
            let dir = tempfile::tempdir().unwrap();
            let (image, wanted) = make(case, dir.path());
            copied(&image, dir.path(), &wanted)
        },
    );
}
