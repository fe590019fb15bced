//! XFS: links of inodes against the names that lead to them.
//!
//! Byte 16 of an inode is its number of links (u32). A directory has two, and one more for each directory in it. The source
//! is xfsprogs' `repair/phase7.c`.

use std::collections::HashMap;

use super::inodes::{self, Inode};
use super::tree::Fs;
use super::{Contents, Severity};
use crate::error::counted;
use crate::inside::look::{be32, be64};
use crate::limits::INSIDE_INODES_MAX;

/// What is known of an inode.
struct Seen {
    place: u64,
    wanted: u32,
    names: u32,
    /// Directories in it.
    below: u32,
    is_dir: bool,
}

/// The inodes that are in use.
#[derive(Default)]
pub(super) struct Links {
    seen: HashMap<u64, Seen>,
    is_full: bool,
}

impl Links {
    pub(super) fn take(&mut self, inode: Inode<'_>) {
        // Each takes 48 bytes, and links of ext 8.
        if self.seen.len() >= INSIDE_INODES_MAX / 16 {
            self.is_full = true;
            return;
        }
        let (wanted, is_dir) = (be32(inode.bytes, 16), inode.kind() == 4);
        self.seen.insert(inode.number, Seen { place: inode.place, wanted, names: 0, below: 0, is_dir });
    }

    /// Counts names; gives the findings and the inodes that they hit.
    pub(super) fn check(&mut self, fs: &Fs<'_>, directories: &[u64], contents: &mut Contents) -> Vec<(usize, u64)> {
        if self.is_full {
            contents.note("xfs: links of inodes were not counted: more than are kept in memory");
            return Vec::new();
        }
        let mut unused = Vec::new();
        for number in directories {
            inodes::with_inode(fs, *number, &mut |inode| {
                inodes::names(fs, inode, &mut |entry, name| {
                    if matches!(name, b"." | b"..") {
                        return;
                    }
                    let Some(seen) = self.seen.get_mut(&entry) else {
                        if unused.len() < 64 {
                            unused.push((*number, inode.place, entry, name.escape_ascii().to_string()));
                        }
                        return;
                    };
                    seen.names = seen.names.saturating_add(1);
                    if seen.is_dir
                        && let Some(dir) = self.seen.get_mut(number)
                    {
                        dir.below = dir.below.saturating_add(1);
                    }
                });
            });
        }
        let mut hits = Vec::new();
        for (number, place, entry, name) in unused {
            let structure = (format!("directory {number}"), place);
            let found = format!("inode {entry} by the name \"{name}\"");
            let code = "contents.xfs.directory";
            hits.extend(
                contents.find_nth(Severity::Error, code, structure, found, "it is not in use").map(|n| (n, number)),
            );
        }
        let systems = systems(fs);
        let mut all: Vec<_> = self.seen.iter().filter(|(number, _)| !systems.contains(number)).collect();
        all.sort_unstable_by_key(|(number, _)| **number);
        for (number, seen) in all {
            let right = if seen.is_dir { seen.below.saturating_add(2) } else { seen.names };
            let is_lost = seen.names == 0 && *number != fs.sb.sb_rootino.get();
            // One without links waits to be freed.
            if seen.wanted == 0 && seen.names == 0 || seen.wanted == right && !is_lost {
                continue;
            }
            let structure = (format!("inode {number}"), seen.place);
            let nth = if is_lost {
                let expected = format!("it has {}", counted(seen.wanted, "link"));
                let code = "contents.xfs.inode-unattached";
                contents.find_nth(Severity::Error, code, structure, "no name in any directory", expected)
            } else {
                let (found, expected) = (counted(seen.wanted, "link"), format!("{right} are there"));
                contents.find_nth(Severity::Warning, "contents.xfs.inode-links", structure, found, expected)
            };
            hits.extend(nth.map(|n| (n, *number)));
        }
        hits
    }
}

/// The inodes of the realtime device and of quotas, which have no names: the superblock has their numbers.
fn systems(fs: &Fs<'_>) -> [u64; 5] {
    let sector = fs.look.bytes(0, 512).unwrap_or_default();
    [64, 72, 160, 168, 232].map(|at| be64(&sector, at))
}
