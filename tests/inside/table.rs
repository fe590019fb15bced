//! Damages, what the file system's own checker says of each, and the table of both in docs/inside.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use unluks::ReadAt;
use unluks::inside::Finding;

use crate::btrfs::OF_BTRFS_TREES;
use crate::filled::{Exfat, Fat, Filled, exfat, fat, fill, noise, plant};
use crate::full::sums_up;
use crate::ntfs::OF_NTFS;
use crate::xfs::{OF_LARGE_XFS, OF_XFS};

/// What is done to an image.
pub type Patches = Vec<(u64, Vec<u8>)>;
pub type Damage = (&'static str, fn(&Filled) -> Patches, &'static str, Option<&'static str>);

pub const MANY: &str = "/many";

/// One damage each: what it is, how it is made, the code that has to be found, and the path of what it hits.
const OF_EXT4: &[Damage] = &[
    ("a time of an inode", |i| i.flip(i.inode("/dir/file") + 0x10), "contents.ext.inode-checksum", Some("/dir/file")),
    ("a name in a directory", |i| i.flip(i.block(MANY, 1) + 100), "contents.ext.directory-checksum", Some(MANY)),
    ("the block bitmap of group 0", |i| i.flip(i.of_group(0) + 9), "contents.ext.block-bitmap-checksum", None),
    ("the inode bitmap of group 0", |i| i.flip(i.of_group(4) + 1), "contents.ext.inode-bitmap-checksum", None),
    ("a node of extents", |i| i.flip(extent_node(i, "/holes") + 13), "contents.ext.extent-checksum", Some("/holes")),
    ("the journal's superblock", |i| i.flip(i.block("<8>", 0) + 13), "contents.ext.journal", None),
    ("a group descriptor", |i| i.flip(4096 + 12), "contents.ext.group-descriptor-checksum", None),
    ("a byte of a file", |i| i.flip(i.block("/dir/file", 3) + 7), "", None),
];

/// Without checksums: what does not agree.
const OF_EXT2: &[Damage] = &[
    (
        "a block in use, marked free",
        |i| clear(i, i.of_group(0), i.block("/dir/file", 0) / 1024 - 1),
        "contents.ext.block-bitmap",
        None,
    ),
    (
        "an inode in use, marked free",
        |i| clear(i, i.of_group(4), number(i, "/dir/file") - 1),
        "contents.ext.inode-unused",
        Some("/dir/file"),
    ),
    (
        "the number of an inode's links",
        |i| vec![(i.inode("/dir/file") + 0x1a, vec![9, 0])],
        "contents.ext.inode-links",
        Some("/dir/file"),
    ),
    (
        "a pointer behind the end",
        |i| vec![(i.inode("/dir/file") + 0x28, vec![0, 0, 0, 9])],
        "contents.ext.block-pointer",
        Some("/dir/file"),
    ),
    (
        "a pointer to another file's block",
        |i| vec![(i.inode("/dir/file") + 0x28, i.bytes(i.inode("/dir/below/other") + 0x28, 4))],
        "contents.ext.block-claimed-twice",
        None,
    ),
    (
        "the length of an entry",
        |i| vec![(i.block("/dir", 0) + 28, vec![3, 0])],
        "contents.ext.directory-entry",
        Some("/dir"),
    ),
    (
        "an entry without its inode",
        |i| vec![(entry(i, "/dir/below", "other"), vec![0; 4])],
        "contents.ext.inode-unattached",
        None,
    ),
    (
        "an entry beyond the last inode",
        |i| vec![(entry(i, "/dir/below", "other"), vec![0, 0, 0, 9])],
        "contents.ext.directory-entry",
        Some("/dir/below"),
    ),
    (
        "the mode of an inode",
        |i| vec![(i.inode("/dir/file"), vec![0, 0xf0])],
        "contents.ext.inode-mode",
        Some("/dir/file"),
    ),
    ("the free blocks of a group", |i| i.flip(2048 + 12), "contents.ext.counts", None),
    ("i_blocks of an inode", |i| i.flip(i.inode("/dir/file") + 0x1c), "contents.ext.inode-blocks", Some("/dir/file")),
    (
        "the size of a file",
        |i| vec![(i.inode("/dir/file") + 4, vec![1, 0, 0, 0])],
        "contents.ext.inode-size",
        Some("/dir/file"),
    ),
    (
        "a directory without its first block",
        |i| vec![(i.inode("/dir") + 0x28, vec![0; 4])],
        "contents.ext.directory-hole",
        Some("/dir"),
    ),
    (
        "a slash in a name",
        |i| vec![(entry(i, "/dir/below", "other") + 9, b"/".to_vec())],
        "contents.ext.directory-entry",
        Some("/dir/below"),
    ),
    (
        "a name twice in a directory",
        |i| {
            let at = i.block(MANY, 2);
            let bytes = i.bytes(at, 1024);
            let (first, next) = (usize::from(bytes[4]), usize::from(bytes[6]));
            let other = i.bytes(at + first as u64 + 8, next);
            vec![(at + 8, other)]
        },
        "contents.ext.directory-entry",
        Some(MANY),
    ),
    (
        "the type of an entry",
        |i| vec![(entry(i, "/dir/below", "other") + 7, vec![2])],
        "contents.ext.directory-type",
        Some("/dir/below"),
    ),
    (
        "a time of deletion",
        |i| vec![(i.inode("/dir/file") + 0x14, vec![1])],
        "contents.ext.inode-deleted",
        Some("/dir/file"),
    ),
    (
        "the size of an inode's other fields",
        |i| vec![(i.inode("/dir/file") + 0x80, vec![0x7f])],
        "contents.ext.inode-extra",
        Some("/dir/file"),
    ),
    (
        "a list of blocks for more descriptors",
        |i| vec![(i.le(i.inode("<7>") + 0x28 + 52, 4) * 1024 + 16, vec![0; 4])],
        "contents.ext.resize-inode",
        None,
    ),
    ("a block for more descriptors", |_| vec![(5 * 1024, vec![0; 4])], "contents.ext.resize-inode", None),
    (
        "the whole of the first superblock but its magic",
        |_| vec![(1024, vec![0; 0x38]), (1024 + 0x3a, vec![0; 900])],
        "contents.ext.superblock",
        None,
    ),
];

/// A directory with a tree over the hashes of its names, and no checksums.
const OF_EXT3: &[Damage] = &[
    (
        "letters of names",
        |i| {
            // One alone may by chance have a hash that fits its block.
            let (block, len) = (i.block(MANY, 1), i.block_size());
            let mut entries = vec![0];
            while let Some(at) = entries.last().map(|at| at + i.le(block + at + 4, 2)).filter(|at| *at < len) {
                entries.push(at);
            }
            entries.into_iter().map(|at| (block + at + 10, vec![i.bytes(block + at + 10, 1)[0] ^ 1])).collect()
        },
        "contents.ext.directory-tree",
        Some(MANY),
    ),
    (
        "the hash of a block of names",
        |i| vec![(i.block(MANY, 0) + 0x28, vec![0xf0, 0xff, 0xff, 0xff])],
        "contents.ext.directory-tree",
        Some(MANY),
    ),
    (
        "a block of names twice in a tree",
        |i| vec![(i.block(MANY, 0) + 0x2c, vec![1, 0, 0, 0])],
        "contents.ext.directory-tree",
        Some(MANY),
    ),
    ("the kind of its hashes", |i| vec![(i.block(MANY, 0) + 0x1c, vec![9])], "contents.ext.directory-tree", Some(MANY)),
];

const OF_BTRFS: &[Damage] = &[
    (
        "a byte of a file",
        |i| i.flip(i.sector(&noise(1 << 20, 5)).unwrap() + 7),
        "contents.btrfs.data-checksum",
        Some("/dir/file"),
    ),
    (
        "a byte of a file with holes",
        |i| i.flip(i.sector(&noise(8192, 12)).unwrap() + 99),
        "contents.btrfs.data-checksum",
        Some("/holes"),
    ),
    ("one copy of a node of files", |i| i.flip(i.nodes(5)[0] + 200), "contents.btrfs.node-checksum", None),
    (
        "both copies of a node of checksums",
        |i| i.nodes(7).into_iter().flat_map(|at| i.flip(at + 200)).collect(),
        "contents.btrfs.node-checksum",
        None,
    ),
    (
        "both copies of a node of extents",
        |i| i.nodes(2).into_iter().flat_map(|at| i.flip(at + 200)).collect(),
        "contents.btrfs.node-checksum",
        None,
    ),
    (
        "a copy of a node in the place of another",
        |i| {
            let n = i.nodes(5);
            vec![(n[0], i.bytes(i.nodes(2)[0], 16384))]
        },
        "contents.btrfs.node",
        None,
    ),
];

fn clear(image: &Filled, bitmap: u64, bit: u64) -> Patches {
    let at = bitmap + bit / 8;
    vec![(at, vec![image.bytes(at, 1)[0] & !(1 << (bit % 8))])]
}

fn number(image: &Filled, path: &str) -> u64 {
    let text = image.debugfs(&format!("stat {path}"));
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The block that the first index of an inode's extents leads to.
fn extent_node(image: &Filled, path: &str) -> u64 {
    let root = image.inode(path) + 0x28;
    assert_eq!(image.le(root + 6, 2), 1, "{path} has a node");
    image.le(root + 12 + 4, 4) * image.block_size()
}

fn entry(image: &Filled, dir: &str, name: &str) -> u64 {
    let at = image.block(dir, 0);
    let bytes = image.bytes(at, 1024);
    at + bytes.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() as u64 - 8
}

fn link(i: &Filled, table: usize, n: u64, next: u64) -> (u64, Vec<u8>) {
    let Fat { tables, entry, .. } = fat(&*i.disk);
    (tables[table] + n * entry, next.to_le_bytes()[..entry as usize].to_vec())
}

fn links(i: &Filled, n: u64, next: u64) -> Patches {
    vec![link(i, 0, n, next), link(i, 1, n, next)]
}

const OF_FAT: &[Damage] = &[
    ("the second table", |i| vec![link(i, 1, 5, 4)], "contents.fat.tables-differ", None),
    ("a chain that is a loop", |i| links(i, 5, 3), "contents.fat.chain-crosses", Some("/FILE.BIN")),
    ("a chain that runs into another", |i| links(i, 5, 8), "contents.fat.chain-crosses", None),
    ("a chain that ends at a free cluster", |i| links(i, 6, 0), "contents.fat.chain-broken", Some("/FILE.BIN")),
    ("a chain that leaves the disk", |i| links(i, 5, 0xfff0), "contents.fat.chain-broken", Some("/FILE.BIN")),
    ("a chain that is too short", |i| links(i, 4, 0x0fff_ffff), "contents.fat.size", Some("/FILE.BIN")),
    ("clusters that no file has", |i| links(i, 40, 0x0fff_ffff), "contents.fat.clusters-lost", None),
    ("the size of a file", |i| vec![(fat(&*i.disk).root + 31, vec![1])], "contents.fat.size", Some("/FILE.BIN")),
    (
        "a directory without its own name",
        |i| vec![(fat(&*i.disk).data + 5 * fat(&*i.disk).cluster, b"X".to_vec())],
        "contents.fat.directory",
        Some("/DIR"),
    ),
    ("a byte of a file", |i| i.flip(fat(&*i.disk).data + fat(&*i.disk).cluster + 9), "", None),
];

fn exfat_link(i: &Filled, n: u64, next: u32) -> Patches {
    let Exfat { table, first, .. } = exfat(&*i.disk);
    vec![(table + (first + n) * 4, next.to_le_bytes().to_vec())]
}

fn exfat_bits(i: &Filled, change: fn(u8) -> u8) -> Patches {
    let Exfat { heap, first, .. } = exfat(&*i.disk);
    let at = heap + (first - 2) / 8;
    vec![(at, vec![change(i.bytes(at, 1)[0])])]
}

const OF_EXFAT: &[Damage] = &[
    ("the size of a file", |i| i.flip(exfat(&*i.disk).free_entry + 56), "contents.exfat.entries-checksum", None),
    (
        "the up-case table",
        |i| i.flip(exfat(&*i.disk).heap + exfat(&*i.disk).cluster + 40),
        "contents.exfat.up-case",
        None,
    ),
    ("a chain that leaves the disk", |i| exfat_link(i, 1, 0xff_fff0), "contents.exfat.chain-broken", Some("/file.bin")),
    (
        "a chain that is a loop",
        |i| exfat_link(i, 1, exfat(&*i.disk).first as u32),
        "contents.exfat.chain-crosses",
        Some("/file.bin"),
    ),
    ("a chain that is too short", |i| exfat_link(i, 1, 0xffff_ffff), "contents.exfat.chain-short", Some("/file.bin")),
    ("the checksum's sector", |i| i.flip(11 * 512 + 100), "contents.exfat.boot-checksum", None),
    ("clusters in use, marked free", |i| exfat_bits(i, |_| 0), "contents.exfat.bitmap", None),
    ("free clusters, marked in use", |i| exfat_bits(i, |_| 0xff), "contents.exfat.bitmap", None),
];

/// So many names that XFS has a tree over their hashes.
fn plant_more(tree: &Path) {
    plant(tree);
    (0..1500).for_each(|n| fs::write(tree.join(format!("many/more_{n}")), "").unwrap());
}

/// So many names that NTFS has blocks for them.
fn plant_names(tree: &Path) {
    plant(tree);
    fs::create_dir(tree.join("names")).unwrap();
    (0..60).for_each(|n| fs::write(tree.join(format!("names/a_name_that_takes_some_room_{n}")), "").unwrap());
}

const TABLES: &[(&str, &[Damage])] = &[
    ("ext4", OF_EXT4),
    ("ext2", OF_EXT2),
    ("ext3", OF_EXT3),
    ("btrfs", OF_BTRFS),
    ("btrfs", OF_BTRFS_TREES),
    ("btrfs-sha256", OF_BTRFS),
    ("xfs", OF_XFS),
    ("xfs-1k", OF_LARGE_XFS),
    ("fat16", OF_FAT),
    ("fat32", OF_FAT),
    ("exfat", OF_EXFAT),
    ("ntfs", OF_NTFS),
];

#[test]
fn damages_are_found_with_their_places_and_the_table_is_in_the_documents() {
    let mut faults = Vec::new();
    let mut table = String::from("| file system | damage | its own checker | unluks |\n|---|---|---|---|\n");
    for (name, damages) in TABLES {
        let plant: &dyn Fn(&Path) = match *name {
            "xfs-1k" => &plant_more,
            "ntfs" => &plant_names,
            _ => &plant,
        };
        let image = fill(name, plant);
        for (what, damage, code, path) in *damages {
            let patches = damage(&image);
            let (contents, oracle) = image.judged(&patches);
            let found = contents.all_findings();
            let is_near = |f: &Finding| {
                let near = |at: u64| patches.iter().any(|(patch, _)| patch.abs_diff(at) <= 65536);
                // What two places say differently is found at one of them.
                let is_of_two =
                    name.starts_with("ext2") || name.contains("fat") || f.code.ends_with("checksum-missing");
                f.offset.is_some_and(near) || is_of_two
            };
            let paths: Vec<&str> = path.map_or(Vec::new(), |path| path.split('|').collect());
            let has_path = |f: &Finding| paths.is_empty() || f.path.as_deref().is_some_and(|p| paths.contains(&p));
            let hit = found.iter().find(|f| f.code == *code && is_near(f) && has_path(f));
            let right = hit.is_some() || code.is_empty() && found.is_empty();
            if !right || oracle && found.is_empty() || !sums_up(&contents, image.disk.len()) {
                faults.push(format!("{name}: {what}: {oracle} {found:#?} {:?}", contents.coverage()));
            }
            let finds = if oracle { "finds it" } else { "finds nothing" };
            let own = match hit {
                Some(hit) => format!("{} `{}`", hit.severity, hit.code),
                None => "nothing: it is under no checksum".into(),
            };
            writeln!(table, "| {name} | {what} | {finds} | {own} |").unwrap();
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/inside.md")).unwrap();
    assert!(document.contains(&table), "docs/inside.md wants this table:\n{table}");
}
