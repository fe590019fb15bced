//! ext: the inode whose blocks are kept for more group descriptors.
//!
//! Its double pointer leads to a block that lists those behind the descriptors in use, each at its number of a descriptor
//! block; and each of them lists its own copies, in the order of the groups that have backups. The source is e2fsprogs'
//! `lib/ext2fs/res_gdt.c` and Linux's `fs/ext4/resize.c`.

use super::full::Full;
use super::map::{Fs, Inode};
use super::{COMPAT_SPARSE_SUPER2, INCOMPAT_META_BG, RO_COMPAT_SPARSE_SUPER, Severity};
use crate::inside::look::{le16, le32};
use crate::num::{at_most, to_u64};
use zerocopy::IntoBytes;

/// The first word of a block that is not as wanted: its number, what it is, and what it has to be.
fn differs(bytes: &[u8], wanted: &dyn Fn(u64) -> u64) -> Option<(u64, u64, u64)> {
    let words = (0u64..).zip(bytes.chunks_exact(4).map(|word| u64::from(le32(word, 0))));
    words.map(|(n, word)| (n, word, wanted(n))).find(|(_, word, wanted)| word != wanted)
}

/// The groups that have copies of the descriptors, where the blocks that are kept have the usual places.
fn copies(fs: &Fs<'_>) -> Option<Vec<u64>> {
    let sb = fs.sb;
    let is_usual = sb.has_ro_compat(RO_COMPAT_SPARSE_SUPER)
        && sb.s_feature_compat.get() & COMPAT_SPARSE_SUPER2 == 0
        && !sb.has_incompat(INCOMPAT_META_BG)
        && (fs.block > 1024 || fs.first == 1);
    is_usual.then(|| (1..fs.groups).filter(|group| sb.has_super(*group)).collect())
}

impl Full<'_, '_> {
    /// Checks the blocks that are kept, from the block on that the inode's double pointer leads to.
    pub(super) fn resize(&mut self, inode: Inode<'_>, double: u64) {
        let fs = self.fs;
        let per_block = fs.block.checked_div(fs.sb.desc_size()).unwrap_or(1).max(1);
        let used = fs.sb.groups().div_ceil(per_block);
        let kept = u64::from(le16(fs.sb.as_bytes(), 0xce));
        let Some(copies) = copies(fs).filter(|_| kept > 0 && fs.groups == fs.sb.groups()) else { return };
        let words = fs.block / 4;
        let first = fs.first.saturating_add(1).saturating_add(used);
        let start = used.checked_rem(words).unwrap_or(0);
        // Those behind the last word go on at the first.
        let of_list = |n: u64| {
            let k = n.saturating_add(words).saturating_sub(start).checked_rem(words).unwrap_or(0);
            if k < kept { first.saturating_add(k) } else { 0 }
        };
        let blocks = std::iter::once((double, None)).chain((0..kept).map(|k| (first.saturating_add(k), Some(k))));
        for (block, k) in blocks {
            // What cannot be read holds no data.
            let Ok(bytes) = fs.read(block) else { return };
            let per_group = u64::from(fs.sb.s_blocks_per_group.get());
            let of_block = |n: u64| {
                let group = copies.get(at_most(n, usize::MAX)).filter(|_| n < to_u64(copies.len()));
                group.map_or(0, |group| group.saturating_mul(per_group).saturating_add(block))
            };
            let wrong = if k.is_none() { differs(&bytes, &of_list) } else { differs(&bytes, &of_block) };
            if let Some((n, found, wanted)) = wrong {
                let at = fs.place(block).saturating_add(n.saturating_mul(4));
                let structure = format!("block {block}, kept for more group descriptors");
                let says = (format!("block {found}"), format!("{wanted} is wanted"));
                let number = Some(inode.number);
                return self.find(Severity::Warning, "contents.ext.resize-inode", (structure, at), says, number);
            }
        }
    }
}
