//! Damages of XFS: with checksums made right, only what they say is wrong.

use std::fs;
use std::sync::Arc;

use crate::Patched;
use crate::filled::{Filled, check, fill, noise, plant};
use crate::table::{Damage, MANY, Patches};

/// The first block of a tree of group 0.
fn root_of(image: &Filled, header: &str, field: &str) -> u64 {
    image.xfs(&[&format!("{header} 0"), &format!("addr {field}")])
}

pub const OF_XFS: &[Damage] = &[
    (
        "a time of an inode",
        |i| i.flip(i.xfs(&["path /dir/file"]) + 40),
        "contents.xfs.inode-checksum",
        Some("/dir/file"),
    ),
    (
        "a name in a directory",
        |i| i.flip(i.xfs(&["path /many", "dblock 0"]) + 80),
        "contents.xfs.directory",
        Some(MANY),
    ),
    (
        "a hash in a directory",
        |i| i.flip(i.xfs(&["path /many", "dblock 8388608"]) + 80),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    ("the tree of free space by block", |i| i.flip(root_of(i, "agf", "bnoroot") + 60), "contents.xfs.free-tree", None),
    ("the tree of free space by size", |i| i.flip(root_of(i, "agf", "cntroot") + 60), "contents.xfs.free-tree", None),
    ("the tree of inodes", |i| i.flip(root_of(i, "agi", "root") + 60), "contents.xfs.inode-tree", None),
    ("the tree of free inodes", |i| i.flip(root_of(i, "agi", "free_root") + 60), "contents.xfs.inode-tree", None),
    ("the tree of shared blocks", |i| i.flip(root_of(i, "agf", "refcntroot") + 9), "contents.xfs.shared-tree", None),
    (
        "a sector of zeroes over inodes",
        |i| vec![(i.xfs(&["path /dir/below/other"]), vec![0; 512])],
        "contents.xfs.inode",
        None,
    ),
    (
        "a tree's block in the place of another",
        |i| vec![(root_of(i, "agf", "cntroot"), i.bytes(root_of(i, "agf", "bnoroot"), 4096))],
        "contents.xfs.free-tree",
        None,
    ),
    ("a byte of a file", |i| i.flip(i.xfs(&["path /dir/file", "dblock 3"]) + 7), "", None),
    (
        "the number of an inode's links",
        |i| sealed(i, i.xfs(&["path /dir/file"]), 512, 100, &[(16, vec![0, 0, 0, 9])]),
        "contents.xfs.inode-links",
        Some("/dir/file"),
    ),
    (
        "the number of an inode's blocks",
        |i| sealed(i, i.xfs(&["path /dir/file"]), 512, 100, &[(64, vec![9; 8])]),
        "contents.xfs.inode-blocks",
        Some("/dir/file"),
    ),
    (
        "an inode of a name that waits to be freed",
        |i| sealed(i, i.xfs(&["path /dir/file"]), 512, 100, &[(96, vec![0; 4])]),
        "contents.xfs.inode",
        Some("/dir/file"),
    ),
    (
        "the number of free inodes of a group",
        |i| sealed(i, i.xfs(&["agi 0"]), 512, 312, &[(28, vec![0, 0, 0, 1])]),
        "contents.xfs.counts",
        None,
    ),
    (
        "the log's length in the superblock of a group",
        |i| sealed(i, 75 << 20, 512, 224, &[(96, vec![0, 0, 9, 0])]),
        "contents.xfs.secondary-superblock",
        None,
    ),
    (
        "the directory above one in its inode",
        |i| sealed(i, i.xfs(&["path /dir/below"]), 512, 100, &[(178, vec![0, 0, 0, 128])]),
        "contents.xfs.directory",
        Some("/dir/below"),
    ),
    (
        "the number of entries in an inode",
        |i| sealed(i, i.xfs(&["path /dir"]), 512, 100, &[(176, vec![1])]),
        "contents.xfs.directory",
        Some("/dir"),
    ),
    (
        "the place of an entry in an inode",
        |i| sealed(i, i.xfs(&["path /dir"]), 512, 100, &[(183, vec![0, 8])]),
        "contents.xfs.directory",
        Some("/dir"),
    ),
    (
        "the place of an entry in its block",
        |i| directory(i, 0, &[(64 + 32 + 46, vec![0, 8])]),
        "contents.xfs.directory",
        Some(MANY),
    ),
    ("a slash in a name", |i| directory(i, 0, &[(64 + 32 + 9, b"/".to_vec())]), "contents.xfs.directory", Some(MANY)),
    ("the type of an entry", |i| directory(i, 0, &[(64 + 32 + 38, vec![7])]), "contents.xfs.directory", Some(MANY)),
    ("the longest free run", |i| directory(i, 0, &[(48, vec![0, 64, 0, 64])]), "contents.xfs.directory", Some(MANY)),
    (
        "the place of a hash",
        |i| directory(i, LEAF, &[(64 + 20, vec![0, 0, 0, 9])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "hashes out of their order",
        |i| directory(i, LEAF, &[(64 + 16, vec![0xff; 4])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "the room of a block of names",
        |i| directory(i, LEAF, &[(4096 - 6, vec![1, 0])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
];

/// In a directory whose hashes have a tree, of blocks in four pieces.
pub const OF_LARGE_XFS: &[Damage] = &[
    (
        "the hash above a block",
        |i| directory(i, LEAF * 4, &[(64, vec![0; 4])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "a block of hashes twice in a tree",
        |i| {
            let at = i.xfs(&["path /many", &format!("dblock {}", LEAF * 4)]);
            directory(i, LEAF * 4, &[(64 + 12, i.bytes(at + 64 + 4, 4))])
        },
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "the block before one of hashes",
        |i| {
            let at = i.xfs(&["path /many", &format!("dblock {}", LEAF * 4)]);
            let first = i.bytes(at + 64 + 4, 4).into_iter().fold(0, |n, byte| n << 8 | u64::from(byte));
            directory(i, first, &[(4, vec![0, 0, 0, 9])])
        },
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "the room of a block of names",
        |i| directory(i, LEAF * 8, &[(64, vec![1, 0])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
    (
        "the number of blocks with names",
        |i| directory(i, LEAF * 8, &[(56, vec![0, 0, 0, 1])]),
        "contents.xfs.directory-tree",
        Some(MANY),
    ),
];

/// The first block of hashes, in blocks of 4096 bytes.
const LEAF: u64 = 8 << 20;

/// Other bytes in a block of a directory.
fn directory(image: &Filled, block: u64, changes: &[(usize, Vec<u8>)]) -> Patches {
    let at = image.xfs(&["path /many", &format!("dblock {block}")]);
    let sum_at = if image.bytes(at, 1) == b"X" { 4 } else { 12 };
    sealed(image, at, 4096, sum_at, changes)
}

/// Other bytes in a structure, and its checksum made right.
fn sealed(image: &Filled, at: u64, len: usize, sum_at: usize, changes: &[(usize, Vec<u8>)]) -> Patches {
    let mut all = image.bytes(at, len);
    changes.iter().for_each(|(within, bytes)| all[*within..within + bytes.len()].copy_from_slice(bytes));
    all[sum_at..sum_at + 4].fill(0);
    let sum = crc32c::crc32c(&all);
    all[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
    vec![(at, all)]
}

#[test]
fn a_link_of_two_blocks_has_one_header() {
    let image = fill("xfs-1k", &|tree| {
        plant(tree);
        fs::write(tree.join("two"), noise(1500, 3)).unwrap();
    });
    let (inode, block) = (image.xfs(&["path /two"]), image.xfs(&["path /two", "dblock 0"]));
    // The kernel makes such a link of a target of more than 968 bytes; here it is made of a file.
    let mut patches = sealed(&image, inode, 512, 100, &[(2, vec![0xa1, 0xff]), (56, 1000u64.to_be_bytes().into())]);
    let mut head = [b"XSLM".as_slice(), &[0; 4], &1000u32.to_be_bytes(), &[0; 4]].concat();
    head.extend(image.bytes(inode + 160, 16));
    head.extend(image.bytes(inode + 152, 8));
    head.extend((block / 512).to_be_bytes());
    patches.extend(sealed(&image, block, 2048, 12, &[(0, head)]));
    let patched = patches.iter().fold(Patched::new(&image.disk), |disk, (at, bytes)| disk.with(*at, bytes));
    let contents = check(Arc::new(patched));
    let codes: Vec<_> = contents.all_findings().iter().map(|finding| finding.code).collect();
    // The name says a file.
    assert_eq!(codes, ["contents.xfs.directory"]);
}
