//! Damages of btrfs: with checksums made right, only what they say is wrong.

use crate::filled::Filled;
use crate::table::{Damage, Patches};

type Key = (u64, u8, u64);

/// An item of a leaf: the places of the leaf, and within it those of the key and the bytes.
struct Item {
    leaves: Vec<u64>,
    key: u64,
    bytes: u64,
}

/// The first item of a tree whose key and bytes are wanted.
fn item(image: &Filled, tree: u64, wanted: impl Fn(Key, &[u8]) -> bool) -> Item {
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let short = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    let all = image.nodes(tree);
    for at in &all {
        let leaf = image.bytes(*at, 16384);
        for n in (0..short(&leaf, 0x60)).filter(|_| leaf[0x64] == 0).map(|n| 101 + 25 * n) {
            let (start, len) = (101 + short(&leaf, n + 17), short(&leaf, n + 21));
            if wanted((number(&leaf, n), leaf[n + 8], number(&leaf, n + 9)), &leaf[start..start + len]) {
                let logical = number(&leaf, 0x30);
                let leaves = all.iter().copied().filter(|at| image.le(at + 0x30, 8) == logical).collect();
                return Item { leaves, key: n as u64, bytes: start as u64 };
            }
        }
    }
    panic!("tree {tree} has no such item");
}

/// Changes all copies of a leaf, and makes their checksums right.
fn sealed(image: &Filled, leaves: &[u64], at: u64, new: &[u8]) -> Patches {
    let seal = |leaf: &u64| {
        let mut node = image.bytes(*leaf, 16384);
        node[at as usize..][..new.len()].copy_from_slice(new);
        let sum = crc32c::crc32c(&node[32..]);
        node[..4].copy_from_slice(&sum.to_le_bytes());
        (*leaf, node)
    };
    leaves.iter().map(seal).collect()
}

/// Changes bytes of the first item of a type.
fn of_kind(image: &Filled, tree: u64, kind: u8, at: u64, new: &[u8]) -> Patches {
    let item = item(image, tree, |key, _| key.1 == kind && key.0 > 256);
    sealed(image, &item.leaves, item.bytes + at, new)
}

/// The inode that a name is of.
fn inode(image: &Filled, name: &str) -> u64 {
    let named = item(image, 5, |key, bytes| key.1 == 96 && bytes.ends_with(name.as_bytes()));
    image.le(named.leaves[0] + named.bytes, 8)
}

/// Changes bytes of an inode's item.
fn of_inode(image: &Filled, name: &str, kind: u8, at: u64, new: &[u8]) -> Patches {
    let number = inode(image, name);
    let item = item(image, 5, |key, _| key.0 == number && key.1 == kind);
    sealed(image, &item.leaves, item.bytes + at, new)
}

pub const OF_BTRFS_TREES: &[Damage] = &[
    (
        "the number of an inode's links",
        |i| of_inode(i, "file", 1, 40, &[9]),
        "contents.btrfs.inode-links",
        Some("/dir/file"),
    ),
    (
        "the bytes of an inode's extents",
        |i| of_inode(i, "file", 1, 24, &[0, 16]),
        "contents.btrfs.inode-bytes",
        Some("/dir/file"),
    ),
    ("the size of a directory", |i| of_inode(i, "below", 1, 16, &[99]), "contents.btrfs.directory", Some("/dir/below")),
    ("a generation that is not yet there", |i| of_inode(i, "file", 1, 0, &[0, 0, 9]), "contents.btrfs.node", None),
    (
        "an inode of another type",
        |i| of_inode(i, "file", 1, 52, &[0xa4, 0x11]),
        "contents.btrfs.directory",
        Some("/dir/file"),
    ),
    ("the index of a name", |i| of_inode(i, "file", 12, 0, &[77]), "contents.btrfs.directory", Some("/dir/file")),
    (
        "the inode of a name",
        |i| {
            let named = item(i, 5, |key, bytes| key.1 == 96 && bytes.ends_with(b"below"));
            sealed(i, &named.leaves, named.bytes, &[0xff, 0xff])
        },
        "contents.btrfs.directory",
        None,
    ),
    (
        "the place of a file's extent",
        |i| {
            let number = inode(i, "file");
            let extent = item(i, 5, |key, _| key.0 == number && key.1 == 108);
            let place = i.le(extent.leaves[0] + extent.bytes + 21, 8) + 4096;
            sealed(i, &extent.leaves, extent.bytes + 21, &place.to_le_bytes())
        },
        "contents.btrfs.extent",
        Some("/dir/file"),
    ),
    (
        "data without a checksum",
        |i| {
            let item = item(i, 7, |key, _| key.1 == 128);
            let start = i.le(item.leaves[0] + item.key + 9, 8) + 4096;
            sealed(i, &item.leaves, item.key + 9, &start.to_le_bytes())
        },
        "contents.btrfs.checksum-missing",
        None,
    ),
    ("the references of an extent", |i| of_kind(i, 2, 168, 0, &[7]), "contents.btrfs.extent", None),
    ("who has an extent", |i| of_kind(i, 2, 168, 24 + 9, &[9, 9]), "contents.btrfs.extent", None),
    (
        "the level of a node",
        |i| {
            let item = item(i, 2, |key, _| key.1 == 169);
            sealed(i, &item.leaves, item.key + 9, &[3])
        },
        "contents.btrfs.extent",
        None,
    ),
    ("the bytes in use of a group", |i| of_kind(i, 2, 192, 0, &[0, 0, 3]), "contents.btrfs.block-group", None),
    ("the type of a group", |i| of_kind(i, 2, 192, 16, &[7]), "contents.btrfs.block-group", None),
    (
        "the chunk of a stripe",
        |i| {
            let item = item(i, 4, |key, _| key.1 == 204);
            sealed(i, &item.leaves, item.bytes + 16, &[0, 0, 9])
        },
        "contents.btrfs.stripe",
        None,
    ),
    (
        "the sectors of a chunk",
        |i| {
            let item = item(i, 3, |key, _| key.1 == 228);
            sealed(i, &item.leaves, item.bytes + 40, &[0, 2])
        },
        "contents.btrfs.node",
        None,
    ),
    (
        "free space over what is in use",
        |i| {
            let item = item(i, 10, |key, _| key.1 == 199 && key.0 > 16 << 20);
            let len = i.le(item.leaves[0] + item.key + 9, 8) + 16384;
            sealed(i, &item.leaves, item.key + 9, &len.to_le_bytes())
        },
        "contents.btrfs.free-space",
        None,
    ),
];
