//! File systems with files in them, what is where in them, and their own checkers.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use tempfile::TempDir;
use unluks::inside::Contents;
use unluks::progress::Progress;
use unluks::{FileSource, ReadAt};

use crate::Patched;

pub fn check(disk: Arc<dyn ReadAt>) -> Contents {
    Contents::check(disk, &Progress::default()).unwrap()
}

/// xorshift: the same at each run.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()
    };
    (0..len.div_ceil(8)).flat_map(step).take(len).collect()
}

pub fn run(program: &str, words: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(program).args(words).env("PATH", path).output();
    output.unwrap_or_else(|e| panic!("{program} is wanted: {e}"))
}

/// A file system with files in it.
pub struct Filled {
    pub name: &'static str,
    pub path: PathBuf,
    pub disk: Arc<dyn ReadAt>,
    _dir: TempDir,
}

/// The name, the size in MiB and the command.
pub const FILLED: &[(&str, u64, &str)] = &[
    ("ext4", 64, "mkfs.ext4 -q -b 4096 -d TREE IMAGE"),
    ("ext4-1k", 40, "mkfs.ext4 -q -b 1024 -d TREE IMAGE"),
    ("ext4-plain", 40, "mkfs.ext4 -q -b 1024 -O ^metadata_csum -d TREE IMAGE"),
    ("ext4-crc16", 40, "mkfs.ext4 -q -b 1024 -O ^metadata_csum,uninit_bg -d TREE IMAGE"),
    ("ext4-seed", 40, "mkfs.ext4 -q -b 1024 -O metadata_csum_seed -d TREE IMAGE"),
    ("ext4-meta-bg", 100, "mkfs.ext4 -q -b 1024 -O meta_bg,^resize_inode -d TREE IMAGE"),
    ("ext4-bigalloc", 100, "mkfs.ext4 -q -O bigalloc -d TREE IMAGE"),
    ("ext4-sparse2", 100, "mkfs.ext4 -q -b 1024 -O sparse_super2 -d TREE IMAGE"),
    ("ext3", 60, "mkfs.ext3 -q -b 2048 -d TREE IMAGE"),
    ("ext2", 24, "mkfs.ext2 -q -b 1024 -d TREE IMAGE"),
    ("xfs", 300, "mkfs.xfs -q -p PROTO IMAGE"),
    ("xfs-1k", 300, "mkfs.xfs -q -b size=1024 -m rmapbt=1 -p PROTO IMAGE"),
    ("fat16", 40, "mkfs.vfat -F 16 IMAGE"),
    ("fat32", 80, "mkfs.vfat -F 32 IMAGE"),
    ("exfat", 40, "mkfs.exfat IMAGE"),
    ("ntfs", 40, "mkfs.ntfs -q -F -Q IMAGE"),
    ("btrfs", 120, "mkfs.btrfs -q --rootdir TREE IMAGE"),
    ("btrfs-xxhash", 120, "mkfs.btrfs -q --csum xxhash --rootdir TREE IMAGE"),
    ("btrfs-sha256", 120, "mkfs.btrfs -q --csum sha256 -m single --rootdir TREE IMAGE"),
    ("btrfs-blake2", 120, "mkfs.btrfs -q --csum blake2 --rootdir TREE IMAGE"),
];

/// A tree with a large directory, a file of a MiB, one with holes, links long and short.
pub fn plant(tree: &Path) {
    fs::create_dir_all(tree.join("dir/below")).unwrap();
    fs::create_dir(tree.join("many")).unwrap();
    fs::write(tree.join("dir/file"), noise(1 << 20, 5)).unwrap();
    fs::write(tree.join("dir/below/other"), noise(70_000, 6)).unwrap();
    for n in 0..300 {
        fs::write(tree.join(format!("many/a_name_that_takes_some_room_{n}")), n.to_string()).unwrap();
    }
    let holes = fs::File::create(tree.join("holes")).unwrap();
    for n in 0..24 {
        holes.write_all_at(&noise(8192, n + 9), n * 64 * 1024).unwrap();
    }
    fs::hard_link(tree.join("many/a_name_that_takes_some_room_7"), tree.join("again")).unwrap();
    std::os::unix::fs::symlink("dir/file", tree.join("link")).unwrap();
    std::os::unix::fs::symlink("x/".repeat(60), tree.join("long")).unwrap();
}

pub fn fill(name: &str, plant: &dyn Fn(&Path)) -> Filled {
    let (name, size, command) = *FILLED.iter().find(|(n, ..)| *n == name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (tree, path) = (dir.path().join("tree"), dir.path().join("image"));
    fs::create_dir(&tree).unwrap();
    plant(&tree);
    fs::File::create(&path).unwrap().set_len(size << 20).unwrap();
    let proto = dir.path().join("proto");
    fs::write(&proto, format!("/\n0 0\nd--755 0 0\n{}$\n", protofile(&tree))).unwrap();
    let (proto, tree, image) = (proto.to_str().unwrap(), tree.to_str().unwrap(), path.to_str().unwrap());
    let words: Vec<String> =
        command.split(' ').map(|w| w.replace("IMAGE", image).replace("TREE", tree).replace("PROTO", proto)).collect();
    let (program, words) = words.split_first().unwrap();
    let output = run(program, &words.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    match name {
        "fat16" | "fat32" => plant_fat(&path),
        "exfat" => plant_exfat(&path),
        // It makes trees over the names of large directories, which mkfs does not.
        "ext3" => assert!(run("e2fsck", &["-fyD", image]).status.code().is_some_and(|code| code < 2)),
        "ntfs" => {
            for (from, to) in [("dir/file", "file"), ("dir/below/other", "other")] {
                assert!(run("ntfscp", &["-f", "-q", image, &format!("{tree}/{from}"), to]).status.success());
            }
            for entry in fs::read_dir(dir.path().join("tree/names")).into_iter().flatten() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(run("ntfscp", &["-f", "-q", image, &format!("{tree}/again"), &name]).status.success());
            }
        }
        _ => {}
    }
    Filled { name, disk: Arc::new(FileSource::open(&path).unwrap()), path, _dir: dir }
}

impl Filled {
    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.disk.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    pub fn le(&self, at: u64, len: usize) -> u64 {
        self.bytes(at, len).iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    pub fn debugfs(&self, request: &str) -> String {
        let output = run("debugfs", &["-R", request, self.path.to_str().unwrap()]);
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn block_size(&self) -> u64 {
        1024 << self.le(1024 + 24, 4)
    }

    /// Where an inode of ext is.
    pub fn inode(&self, path: &str) -> u64 {
        let text = self.debugfs(&format!("imap {path}"));
        let word = |before: &str| {
            let rest = &text[text.find(before).unwrap_or_else(|| panic!("{text}")) + before.len()..];
            rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap().to_owned()
        };
        let offset = u64::from_str_radix(word("offset ").trim_start_matches("0x"), 16).unwrap();
        word("located at block ").parse::<u64>().unwrap() * self.block_size() + offset
    }

    /// Where xfs_db is after these commands.
    pub fn xfs(&self, commands: &[&str]) -> u64 {
        let mut words = vec!["-r"];
        commands.iter().for_each(|command| words.extend(["-c", command]));
        words.extend(["-c", "addr", self.path.to_str().unwrap()]);
        let text = String::from_utf8(run("xfs_db", &words).stdout).unwrap();
        let (_, rest) = text.rsplit_once("byte offset ").unwrap_or_else(|| panic!("{text}"));
        rest.split(',').next().unwrap().parse().unwrap()
    }

    /// Where block `n` of a file of ext is.
    pub fn block(&self, path: &str, n: usize) -> u64 {
        let text = self.debugfs(&format!("blocks {path}"));
        text.split_whitespace().nth(n).unwrap().parse::<u64>().unwrap() * self.block_size()
    }

    /// A field of descriptor 0, as a place.
    pub fn of_group(&self, at: u64) -> u64 {
        let descriptors = self.block_size().max(2048);
        self.le(descriptors + at, 4) * self.block_size()
    }

    /// Where bytes are that begin a sector.
    pub fn sector(&self, wanted: &[u8]) -> Option<u64> {
        (0..self.disk.len() / 4096).map(|n| n * 4096).find(|at| self.bytes(*at, 32) == wanted[..32])
    }

    /// The copies of a btrfs node of a tree, the newest.
    pub fn nodes(&self, tree: u64) -> Vec<u64> {
        let uuid = self.bytes(65536 + 0x20, 16);
        let field = |head: &[u8], at: usize| u64::from_le_bytes(*head[at..].first_chunk().unwrap());
        let all = (64..self.disk.len() / 16384).map(|n| (n * 16384, self.bytes(n * 16384, 101)));
        let of_tree =
            |(at, head): &(u64, Vec<u8>)| head[0x20..0x30] == uuid && *at != 64 << 20 && field(head, 0x58) == tree;
        let found: Vec<(u64, u64)> = all.filter(of_tree).map(|(at, head)| (field(&head, 0x50), at)).collect();
        let newest = found.iter().map(|(generation, _)| *generation).max();
        found.into_iter().filter(|(generation, _)| Some(*generation) == newest).map(|(_, at)| at).collect()
    }

    /// A copy of the image with some bytes changed, and what its checker says of it: whether it finds anything.
    pub fn judged(&self, patches: &[(u64, Vec<u8>)]) -> (Contents, bool) {
        let mut patched = Patched::new(&self.disk);
        let copy = self.path.with_extension("copy");
        fs::copy(&self.path, &copy).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&copy).unwrap();
        for (at, bytes) in patches {
            patched = patched.with(*at, bytes);
            file.write_all_at(bytes, *at).unwrap();
        }
        (check(Arc::new(patched)), !is_sound(self.name, &copy))
    }

    pub fn flip(&self, at: u64) -> Vec<(u64, Vec<u8>)> {
        vec![(at, vec![!self.bytes(at, 1)[0]])]
    }
}

/// Whether the checker of the file system finds nothing.
pub fn is_sound(name: &str, image: &Path) -> bool {
    let path = image.to_str().unwrap();
    let mut head = [0; 72];
    FileSource::open(image).unwrap().read_exact_at(&mut head, 65536).unwrap();
    let output = match &head[64..] {
        b"_BHRfS_M" => run("btrfs", &["check", "--readonly", "--check-data-csum", path]),
        _ if name.starts_with("xfs") => run("xfs_repair", &["-n", path]),
        _ if name.starts_with("fat") => run("fsck.vfat", &["-n", path]),
        _ if name == "exfat" => run("fsck.exfat", &["-n", path]),
        _ if name == "ntfs" => run("ntfsfix", &["-n", path]),
        _ => run("e2fsck", &["-fn", path]),
    };
    output.status.success()
}

/// The lines of a protofile of mkfs.xfs.
fn protofile(dir: &Path) -> String {
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    all.sort_by_key(|entry| entry.file_name());
    let line = |entry: &fs::DirEntry| {
        let (name, path) = (entry.file_name().into_string().unwrap(), entry.path());
        if let Ok(to) = fs::read_link(&path) {
            format!("{name} l--777 0 0 {}\n", to.display())
        } else if path.is_dir() {
            format!("{name} d--755 0 0\n{}$\n", protofile(&path))
        } else {
            format!("{name} ---644 0 0 {}\n", path.display())
        }
    };
    all.iter().map(line).collect()
}

/// What is where in a FAT16 or FAT32 with sectors of 512 bytes.
pub struct Fat {
    pub tables: [u64; 2],
    pub entry: u64,
    pub root: u64,
    /// Cluster 2, and the bytes of one.
    pub data: u64,
    pub cluster: u64,
}

pub fn fat(disk: &dyn ReadAt) -> Fat {
    let mut boot = [0; 64];
    disk.read_exact_at(&mut boot, 0).unwrap();
    let short = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    let (is_32, cluster) = (short(22) == 0, u64::from(boot[13]) * 512);
    let table = 512 * if is_32 { u64::from(u32::from_le_bytes(*boot[36..].first_chunk().unwrap())) } else { short(22) };
    let first = short(14) * 512;
    let behind = first + 2 * table;
    let data = behind + short(17) * 32;
    Fat { tables: [first, first + table], entry: if is_32 { 4 } else { 2 }, root: behind, data, cluster }
}

/// Puts a file of four clusters and a directory with another in it into an empty FAT.
fn plant_fat(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let Fat { tables, entry, root, data, cluster } = fat(&FileSource::open(path).unwrap());
    let write = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).unwrap();
    let link = |n: u64, next: u64| {
        tables.iter().for_each(|table| write(table + n * entry, &next.to_le_bytes()[..entry as usize]));
    };
    let end = if entry == 4 { 0x0fff_ffff } else { 0xffff };
    [(3, 4), (4, 5), (5, 6), (6, end), (7, end), (8, end)].iter().for_each(|(n, next)| link(*n, *next));
    let named = |name: &[u8; 11], attributes: u8, first: u64, size: u32| {
        let mut bytes = [0; 32];
        bytes[..11].copy_from_slice(name);
        bytes[11] = attributes;
        // 1 January 2020.
        bytes[16..18].copy_from_slice(&[0x21, 0x50]);
        bytes[24..26].copy_from_slice(&[0x21, 0x50]);
        bytes[26..28].copy_from_slice(&first.to_le_bytes()[..2]);
        bytes[28..].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    let size = cluster as u32 * 4 - 100;
    write(root, &[named(b"FILE    BIN", 32, 3, size), named(b"DIR        ", 16, 7, 0)].concat());
    let inner = [named(b".          ", 16, 7, 0), named(b"..         ", 16, 0, 0), named(b"INNER   TXT", 32, 8, 5)];
    // FSInfo knows no number of free clusters.
    if entry == 4 {
        write(512 + 488, &[0xff; 4]);
    }
    write(data + 5 * cluster, &vec![0; cluster as usize]);
    write(data + 5 * cluster, &inner.concat());
    write(data + cluster, &noise(size as usize, 3));
}

/// What is where in an exFAT.
pub struct Exfat {
    pub table: u64,
    /// Cluster 2, and the bytes of one.
    pub heap: u64,
    pub cluster: u64,
    /// Behind the entries that mkfs makes.
    pub free_entry: u64,
    /// The first cluster that is planted.
    pub first: u64,
}

pub fn exfat(disk: &dyn ReadAt) -> Exfat {
    let mut boot = [0; 512];
    disk.read_exact_at(&mut boot, 0).unwrap();
    let number = |at: usize| u64::from(u32::from_le_bytes(*boot[at..].first_chunk().unwrap()));
    let sector = 1 << boot[108];
    let (heap, cluster, root) = (number(88) * sector, sector << boot[109], number(96));
    let at = heap + (root - 2) * cluster;
    // A label, a bitmap and an up-case table.
    Exfat { table: number(80) * sector, heap, cluster, free_entry: at + 96, first: root + 10 }
}

/// A set of entries of a file.
fn exfat_set(name: &str, attributes: u8, cluster: u64, size: u64, has_chain: bool) -> Vec<u8> {
    let units: Vec<u16> = name.encode_utf16().collect();
    let names = units.len().div_ceil(15);
    let mut set = vec![0; 64 + 32 * names];
    (set[0], set[1], set[4]) = (0x85, 1 + names as u8, attributes);
    (set[32], set[33], set[35]) = (0xc0, if has_chain { 1 } else { 3 }, units.len() as u8);
    set[40..48].copy_from_slice(&size.to_le_bytes());
    set[52..56].copy_from_slice(&cluster.to_le_bytes()[..4]);
    set[56..64].copy_from_slice(&size.to_le_bytes());
    for (n, unit) in units.iter().enumerate() {
        let at = 64 + n / 15 * 32;
        set[at] = 0xc1;
        set[at + 2 + n % 15 * 2..][..2].copy_from_slice(&unit.to_le_bytes());
    }
    let sum = |bytes: &mut dyn Iterator<Item = u8>| {
        bytes.fold(0u16, |sum, byte| sum.rotate_right(1).wrapping_add(u16::from(byte)))
    };
    let hash = sum(&mut name.to_uppercase().encode_utf16().flat_map(u16::to_le_bytes));
    set[36..38].copy_from_slice(&hash.to_le_bytes());
    let checksum = sum(&mut set.iter().enumerate().filter(|(n, _)| !matches!(n, 2 | 3)).map(|(_, byte)| *byte));
    set[2..4].copy_from_slice(&checksum.to_le_bytes());
    set
}

/// Puts a file with a chain, one without, and a directory into an empty exFAT.
fn plant_exfat(path: &Path) {
    let file = fs::OpenOptions::new().write(true).read(true).open(path).unwrap();
    let Exfat { table, heap, cluster, free_entry, first, .. } = exfat(&FileSource::open(path).unwrap());
    let sets = [
        exfat_set("file.bin", 32, first, 3 * cluster - 10, true),
        exfat_set("one piece and a long name", 32, first + 5, 2 * cluster, false),
        exfat_set("dir", 16, first + 8, cluster, false),
    ];
    file.write_all_at(&sets.concat(), free_entry).unwrap();
    for (n, next) in [(first, first + 1), (first + 1, first + 2), (first + 2, 0xffff_ffff)] {
        file.write_all_at(&next.to_le_bytes()[..4], table + n * 4).unwrap();
    }
    file.write_all_at(&vec![0; cluster as usize], heap + (first + 6) * cluster).unwrap();
    file.write_all_at(&noise(3 * cluster as usize, 21), heap + (first - 2) * cluster).unwrap();
    file.write_all_at(&noise(2 * cluster as usize, 22), heap + (first + 3) * cluster).unwrap();
    // The bitmap is in cluster 2, the first of the heap.
    let mut bits = vec![0; 64];
    file.read_exact_at(&mut bits, heap).unwrap();
    [0, 1, 2, 5, 6, 8].iter().map(|n| first - 2 + n).for_each(|n| bits[n as usize / 8] |= 1 << (n % 8));
    file.write_all_at(&bits, heap).unwrap();
}
