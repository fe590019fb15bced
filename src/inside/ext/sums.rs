//! ext: links counted, bitmaps compared with what is claimed.

use super::full::Full;
use super::gather::{SEEN, Seen};
use super::map::ROOT;
use super::{Severity, State};
use crate::error::counted;
use crate::inside::full::words;
use crate::limits::INSIDE_INODES_MAX;

const BLOCK_UNINIT: u16 = 2;

impl Full<'_, '_> {
    /// The trees over the names, once all blocks were read.
    pub(super) fn trees(&mut self) {
        let trees = std::mem::take(&mut self.trees);
        if trees.is_full() {
            self.contents.note("ext: not all trees of directories were looked at: more than are kept in memory");
        }
        for (number, (place, found, expected)) in trees.odd(self.fs) {
            let place = (format!("the tree of directory {number}"), place);
            self.find(Severity::Error, "contents.ext.directory-tree", place, (found, expected), Some(number));
        }
    }

    /// Compares the links of inodes with the names that they have.
    pub(super) fn links(&mut self) {
        if self.inodes.is_full {
            return self.contents.note(format!(
                "ext: links of inodes were not counted: {INSIDE_INODES_MAX} inodes are kept in memory at most"
            ));
        }
        let orphans = !self.is_settled();
        let mut numbers: Vec<u32> = self.inodes.chunks.keys().copied().collect();
        numbers.sort_unstable();
        let size = u32::try_from(SEEN).unwrap_or(1);
        for chunk in numbers {
            let Some(all) = self.inodes.chunks.get(&chunk).cloned() else { continue };
            let first = chunk.saturating_mul(size).saturating_add(1);
            for (number, seen) in (first..).zip(all.iter()) {
                self.links_of(number, *seen, orphans);
            }
        }
    }

    fn links_of(&mut self, number: u32, seen: Seen, orphans: bool) {
        let Seen { wanted, counted: found, is_used, kind } = seen;
        let is_reserved = number < self.first_inode() && number != ROOT;
        let (code, severity, says) = if !is_used && found > 0 && !is_reserved {
            // One whose own group is damaged has been found.
            if self.is_partial {
                return;
            }
            let says = (format!("{} in directories", counted(found, "name")), "the inode is not in use".to_owned());
            ("contents.ext.inode-unused", Severity::Error, says)
        } else if is_reserved || !is_used || self.is_partial || orphans && found == 0 || wanted == 0 {
            return;
        } else if found == 0 {
            let says = ("no name in any directory".to_owned(), format!("it has {}", counted(wanted, "link")));
            ("contents.ext.inode-unattached", Severity::Error, says)
        } else if wanted != found && !(kind == 4 && wanted == 1) && !(kind == 4 && found > 65000) {
            (
                "contents.ext.inode-links",
                Severity::Warning,
                (counted(wanted, "link"), format!("{} are there", counted(found, "name"))),
            )
        } else {
            return;
        };
        let severity = self.unless_late(severity);
        let place = self.fs.inode(number).ok().flatten().map_or(0, |(_, place)| place);
        self.find(severity, code, (format!("inode {number}"), place), says, Some(number));
    }

    /// Compares the block bitmaps with what is claimed, and counts what is free.
    pub(super) fn bitmaps(&mut self) {
        let fs = self.fs;
        let cluster = fs.cluster();
        let is_late = self.contents.state == State::Unclean;
        if self.claims.is_full() {
            self.contents.note("ext: not all blocks in use were kept in memory: those claimed twice may not be found");
        }
        for group in 0..fs.groups {
            if fs.look.is_cancelled() {
                return;
            }
            let Ok(Some(found)) = fs.group(group) else { continue };
            let start = fs.sb.group_start(group);
            let bits = fs.blocks_in(group).div_ceil(cluster);
            if found.flags & BLOCK_UNINIT != 0 {
                self.free = self.free.saturating_add(found.free_blocks.min(bits).saturating_mul(fs.place(cluster)));
                continue;
            }
            let per_group = u64::from(fs.sb.s_clusters_per_group.get());
            let covered =
                if per_group > 0 && cluster > 1 { per_group } else { u64::from(fs.sb.s_blocks_per_group.get()) };
            let sum = (found.block_bitmap_checksum, found.checksum_mask);
            let Some(bitmap) = self.bitmap("block", group, found.block_bitmap, covered, sum) else { continue };
            let (mut used, mut lost, mut idle) = (0u64, (0u64, None), (0u64, None));
            for (first, word) in words(&bitmap, bits) {
                used = used.saturating_add(u64::from(word.count_ones()));
                if cluster > 1 || self.claims.is_full() {
                    continue;
                }
                let valid = u64::MAX >> 64u64.saturating_sub(bits.saturating_sub(first).min(64));
                let claimed = self.claims.word(start.saturating_add(first)) & valid;
                for (sum, differ) in [(&mut lost, claimed & !word), (&mut idle, word & !claimed)] {
                    sum.0 = sum.0.saturating_add(u64::from(differ.count_ones()));
                    if differ != 0 && sum.1.is_none() {
                        let bit = first.saturating_add(u64::from(differ.trailing_zeros()));
                        sum.1 = Some(start.saturating_add(bit));
                    }
                }
            }
            let free = bits.saturating_sub(used);
            self.free = self.free.saturating_add(free.saturating_mul(fs.place(cluster)));
            let place = || (format!("the block bitmap of group {group}"), fs.place(found.block_bitmap));
            if let (count, Some(block)) = lost {
                let says = (format!("{} free, the first block {block}", counted(count, "block")), "they are in use");
                let severity = self.unless_late(Severity::Error);
                self.find(severity, "contents.ext.block-bitmap", place(), says, None);
            }
            if let ((count, Some(block)), false) = (idle, self.is_partial || is_late || !self.is_settled()) {
                let says = (format!("{} in use, the first block {block}", counted(count, "block")), "nothing has them");
                self.find(Severity::Warning, "contents.ext.block-bitmap", place(), says, None);
            }
            if found.free_blocks != free && !is_late {
                let place = (format!("group descriptor {group}"), found.place);
                let says = (format!("{} free clusters or blocks", found.free_blocks), format!("{free} are free"));
                self.find(Severity::Warning, "contents.ext.counts", place, says, None);
            }
        }
    }
}
