//! All files of every file system whose files are read come out by `cp -r` with the bytes that went in.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use crate::common::{chain, check_all, peer, read_stored, root, sha256_file, text, unluks};

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

/// Its kernel wrote this one: compressed by zlib and zstd, with subvolumes in each other, a snapshot, and shared extents.
#[test]
fn subvolumes_and_compressed_files_of_btrfs_come_out_as_the_kernel_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let (image, out) = (dir.path().join("image"), dir.path().join("out"));
    fs::write(&image, read_stored("files/btrfs.img.gz")).unwrap();
    let run = unluks(&["cp", "-r", &text(&image), "/", &text(&out)]);
    // Two links are left out, and that is all that is said.
    assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 2), "{}", run.stderr);
    let sums_file = root().join("testdata/files/btrfs.sha256");
    let lines = fs::read_to_string(&sums_file).unwrap();
    let wanted: BTreeMap<PathBuf, String> = lines
        .lines()
        .map(|line| line.split_once("  ./").unwrap())
        .map(|(sum, path)| (path.into(), sum.into()))
        .collect();
    let mut found = sums(&out);
    found.retain(|_, what| what != "is a directory");
    assert!(wanted.len() > 80, "{}", wanted.len());
    assert_eq!(difference(&wanted, &found), None);
}

/// A volume group of one device with these volumes, each as it is, of extents of 4 KiB: the label and the text are all that
/// is needed of LVM (`lib/format_text` of LVM2).
fn group(volumes: &[(&str, &[u8])]) -> Vec<u8> {
    const EXTENT: usize = 4096;
    const START: usize = 1 << 20;
    let long = |number: usize| u64::try_from(number).unwrap().to_le_bytes();
    let crc = |bytes: &[u8]| {
        let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        let crc = bytes.iter().fold(0xf597_a6cf, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)));
        crc.to_le_bytes()
    };
    let (mut disk, mut said) = (vec![0; START], String::new());
    for (name, bytes) in volumes {
        let (at, count) = ((disk.len() - START) / EXTENT, bytes.len() / EXTENT);
        assert_eq!(bytes.len() % EXTENT, 0);
        disk.extend_from_slice(bytes);
        said += &format!(
            "{name} {{\nid = \"{name}\"\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {{\n\
             start_extent = 0\nextent_count = {count}\ntype = \"striped\"\nstripe_count = 1\n\
             stripes = [\"pv0\", {at}]\n}}\n}}\n"
        );
    }
    let id = "vgroup-0000-0000-0000-0000-0000-vgroup";
    let (size, count) = (disk.len() / 512, (disk.len() - START) / EXTENT);
    let text = format!(
        "vg {{\nid = \"vg\"\nseqno = 1\nformat = \"lvm2\"\nstatus = [\"READ\"]\nextent_size = 8\nphysical_volumes {{\n\
         pv0 {{\nid = \"{id}\"\ndev_size = {size}\npe_start = {}\npe_count = {count}\nstatus = [\"ALLOCATABLE\"]\n}}\n\
         }}\nlogical_volumes {{\n{said}}}\n}}\ncontents = \"Text Format Volume Group\"\nversion = 1\n\
         description = \"\"\ncreation_time = 1\n\0",
        START / 512
    );
    let mut put = |at: usize, bytes: &[u8]| disk[at..at + bytes.len()].copy_from_slice(bytes);
    put(512, b"LABELONE");
    put(520, &long(1));
    put(532, &32u32.to_le_bytes());
    put(536, b"LVM2 001");
    put(544, id.replace('-', "").as_bytes());
    put(576, &long(size * 512));
    put(584, &long(START));
    put(616, &long(4096));
    put(624, &long(START - 4096));
    put(4096 + 4, b" LVM2 x[5A%r0N*>");
    put(4096 + 20, &1u32.to_le_bytes());
    put(4096 + 24, &long(4096));
    put(4096 + 32, &long(START - 4096));
    put(4096 + 40, &long(512));
    put(4096 + 48, &long(text.len()));
    put(4096 + 56, &crc(text.as_bytes()));
    put(4096 + 512, text.as_bytes());
    let sums = [(528, crc(&disk[532..1024])), (4096, crc(&disk[4096 + 4..4096 + 512]))];
    sums.iter().for_each(|(at, sum)| disk[*at..at + 4].copy_from_slice(sum));
    disk
}

#[test]
fn two_file_systems_in_lvm_in_luks_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let tree = at("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/fstab"), "/dev/vg/root / ext4\n").unwrap();
    fs::write(tree.join("noise"), chain("noise", 300_000)).unwrap();
    for name in ["root", "boot"] {
        fs::File::create(at(name)).unwrap().set_len(4 << 20).unwrap();
    }
    done("mkfs.ext4", "e2fsprogs", &["-q", "-b", "1024", "-L", "system", "-d", &text(&tree), &text(&at("root"))]);
    done("mkfs.ext2", "e2fsprogs", &["-q", "-d", &text(&tree.join("etc")), &text(&at("boot"))]);
    let (root, boot) = (fs::read(at("root")).unwrap(), fs::read(at("boot")).unwrap());
    fs::write(at("plain"), group(&[("root", &root), ("boot", &boot)])).unwrap();
    fs::write(at("key"), "words").unwrap();
    let secret = format!("secret,id=s,file={}", text(&at("key")));
    let (plain, image) = (text(&at("plain")), text(&at("image")));
    let options = "key-secret=s,iter-time=10";
    done(
        "qemu-img",
        "qemu-utils",
        &["convert", "--object", &secret, "-f", "raw", "-O", "luks", "-o", options, &plain, &image],
    );
    let key = text(&at("key"));
    let ask = |command: &str, args: &[&str]| {
        let run = unluks(&[&[command, "--quiet", "--key-file", &key, &image], args].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{command} {args:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let listed = ask("ls", &[]);
    assert!(
        listed.contains("/vg/root  ext4 \"system\", 4194304 bytes\n") && listed.contains("/vg/boot  ext2,"),
        "{listed}"
    );
    assert_eq!(ask("ls", &["/vg/root"]), "etc\nlost+found\nnoise\n");
    assert_eq!(ask("cat", &["/vg/root/etc/fstab", "/vg/boot/fstab"]), "/dev/vg/root / ext4\n".repeat(2));
    let out = at("out");
    assert_eq!(ask("cp", &["-r", "/", &text(&out)]), "");
    assert_eq!(sha256_file(&out.join("vg/root/noise")), sha256_file(&tree.join("noise")));
    assert_eq!(fs::read(out.join("vg/boot/fstab")).unwrap(), b"/dev/vg/root / ext4\n");
}
