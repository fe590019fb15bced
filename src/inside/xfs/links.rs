//! XFS: links of inodes against the names that lead to them.
//!
//! Byte 16 of an inode is its number of links (u32). A directory has two, and one more for each directory in it; its `..` is
//! the one that has its name. An entry says the type of its inode. The source is xfsprogs' `repair/phase6.c` and `phase7.c`.

use std::collections::HashMap;

use super::dirs;
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
    /// The type by its mode.
    kind: u16,
    /// Of a directory, the one that its `..` is, and the one that has its name.
    above: u64,
    named_in: u64,
}

impl Seen {
    fn is_dir(&self) -> bool {
        self.kind == 4
    }

    /// Whether an entry may say this type of it: 8 is what is left where a name of a lower layer was removed.
    fn has_kind(&self, kind: u8) -> bool {
        let own = match self.kind {
            8 => 1,
            4 => 2,
            2 => 3,
            6 => 4,
            1 => 5,
            12 => 6,
            10 => 7,
            _ => 0,
        };
        kind == own || kind == 8 && own == 3
    }
}

/// The inodes that are in use.
#[derive(Default)]
pub(super) struct Links {
    seen: HashMap<u64, Seen>,
    is_full: bool,
}

impl Links {
    pub(super) fn take(&mut self, inode: Inode<'_>) {
        // Each takes 64 bytes, and links of ext 8.
        if self.seen.len() >= INSIDE_INODES_MAX / 16 {
            self.is_full = true;
            return;
        }
        let (place, wanted, kind) = (inode.place, be32(inode.bytes, 16), inode.kind());
        self.seen.insert(inode.number, Seen { place, wanted, names: 0, below: 0, kind, above: 0, named_in: 0 });
    }

    /// Counts names; gives the findings and the inodes that they hit.
    pub(super) fn check(&mut self, fs: &Fs<'_>, directories: &[u64], contents: &mut Contents) -> Vec<(usize, u64)> {
        if self.is_full {
            contents.note("xfs: links of inodes were not counted: more than are kept in memory");
            return Vec::new();
        }
        let mut odd = Vec::new();
        for number in directories {
            inodes::with_inode(fs, *number, &mut |inode| {
                dirs::names(fs, inode, &mut |entry| {
                    let says = self.entry(fs, *number, entry);
                    if odd.len() < 64 {
                        odd.extend(says.map(|says| (*number, inode.place, says)));
                    }
                });
            });
        }
        let mut hits = Vec::new();
        for (number, place, (found, expected)) in odd {
            let structure = (format!("directory {number}"), place);
            let code = "contents.xfs.directory";
            hits.extend(contents.find_nth(Severity::Error, code, structure, found, expected).map(|n| (n, number)));
        }
        let systems = systems(fs);
        let mut all: Vec<_> = self.seen.iter().filter(|(number, _)| !systems.contains(number)).collect();
        all.sort_unstable_by_key(|(number, _)| **number);
        for (number, seen) in all {
            let right = if seen.is_dir() { seen.below.saturating_add(2) } else { seen.names };
            let is_lost = seen.names == 0 && *number != fs.sb.sb_rootino.get();
            if seen.is_dir() && !is_lost && seen.above != seen.named_in {
                let structure = (format!("directory {number}"), seen.place);
                let (found, expected) = (format!("inode {} as ..", seen.above), format!("it is in {}", seen.named_in));
                let code = "contents.xfs.directory";
                hits.extend(contents.find_nth(Severity::Error, code, structure, found, expected).map(|n| (n, *number)));
            }
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

    /// Takes a name. Says what is wrong with it, if anything.
    fn entry(&mut self, fs: &Fs<'_>, directory: u64, entry: dirs::Entry<'_>) -> Option<(String, String)> {
        let name = || format!("inode {} by the name \"{}\"", entry.inode, entry.name.escape_ascii());
        if entry.is_dots() {
            let own = self.seen.get_mut(&directory).filter(|_| entry.name == b"..")?;
            own.above = entry.inode;
            // The root is in itself.
            if directory == fs.sb.sb_rootino.get() {
                own.named_in = directory;
            }
            return None;
        }
        let Some(seen) = self.seen.get_mut(&entry.inode) else {
            return Some((name(), "it is not in use".into()));
        };
        seen.names = seen.names.saturating_add(1);
        let has_kind = seen.has_kind(entry.kind);
        if seen.is_dir() {
            let is_second = seen.names > 1;
            seen.named_in = directory;
            let dir = self.seen.get_mut(&directory)?;
            dir.below = dir.below.saturating_add(1);
            if is_second {
                return Some((name(), "a directory has one name".into()));
            }
        }
        (!has_kind).then(|| (format!("{}, of type {}", name(), entry.kind), "its mode has another type".into()))
    }
}

/// The inodes of the realtime device and of quotas, which have no names: the superblock has their numbers.
fn systems(fs: &Fs<'_>) -> [u64; 5] {
    let sector = fs.look.bytes(0, 512).unwrap_or_default();
    [64, 72, 160, 168, 232].map(|at| be64(&sector, at))
}
