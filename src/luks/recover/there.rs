//! What was written over a header: the signatures of what people make by accident on a disk that holds a container.
//!
//! | what | where | bytes |
//! |---|---|---|
//! | swap | end of the first page | `SWAPSPACE2`, `SWAP-SPACE` |
//! | LVM2 | one of the first four sectors | `LABELONE` |
//! | GPT | the second sector, and the last | `EFI PART` |
//! | md | 0, 4096 | 0xa92b4efc, little-endian |
//! | ext | 1080 | 0xef53, little-endian |
//! | XFS, NTFS, FAT32, Btrfs | 0, 3, 82, 65600 | their names |
//! | MBR | 510 | 0x55 0xaa |
//!
//! Source: util-linux's libblkid, and the structures' own specifications.

use std::ops::Range;

use crate::io::ReadAt;

const GPT: &[u8] = b"EFI PART";
/// A GPT's backup: its header in the last sector, and 16 KiB of entries before it.
const GPT_ENTRIES: u64 = 16384;

const SIGNATURES: &[(u64, &[u8], &str)] = &[
    (4086, b"SWAPSPACE2", "a swap signature"),
    (4086, b"SWAP-SPACE", "a swap signature"),
    (16374, b"SWAPSPACE2", "a swap signature"),
    (65526, b"SWAPSPACE2", "a swap signature"),
    (0, b"LABELONE", "an LVM label"),
    (512, b"LABELONE", "an LVM label"),
    (1024, b"LABELONE", "an LVM label"),
    (1536, b"LABELONE", "an LVM label"),
    (512, GPT, "a GPT"),
    (4096, GPT, "a GPT"),
    (0, b"\xfc\x4e\x2b\xa9", "an md superblock"),
    (4096, b"\xfc\x4e\x2b\xa9", "an md superblock"),
    (0, b"XFSB", "an XFS file system"),
    (3, b"NTFS    ", "an NTFS file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (65600, b"_BHRfS_M", "a Btrfs file system"),
    (1080, b"\x53\xef", "an ext file system"),
    (510, b"\x55\xaa", "a master boot record"),
];

fn has(source: &(impl ReadAt + ?Sized), magic: &[u8], at: u64) -> bool {
    let mut found = [0u8; 16];
    found.get_mut(..magic.len()).is_some_and(|found| source.read_exact_at(found, at).is_ok() && found == magic)
}

/// What lies over the start of `source`.
pub(super) fn name(source: &(impl ReadAt + ?Sized)) -> Option<&'static str> {
    SIGNATURES.iter().find(|(at, magic, _)| has(source, magic, *at)).map(|(_, _, name)| *name)
}

/// What was overwritten at the end of `source` by what lies over its start.
pub(super) fn overwritten(source: &(impl ReadAt + ?Sized)) -> Vec<Range<u64>> {
    let Some(len) = source.known_len() else { return Vec::new() };
    let backup = |sector: u64| {
        let header = len.checked_sub(sector).filter(|at| has(source, GPT, *at))?;
        Some(header.checked_sub(GPT_ENTRIES)?..len)
    };
    backup(512).or_else(|| backup(4096)).into_iter().collect()
}
