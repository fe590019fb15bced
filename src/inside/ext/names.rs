//! ext: the paths of inodes that findings hit.

use std::collections::{BTreeMap, BTreeSet};

use super::dirs::{self, DirBlock};
use super::map::{Fs, ROOT};
use crate::limits::INSIDE_PATH_DEPTH_MAX;

/// The names of some inodes, and what leads to them.
pub(super) struct Names<'a> {
    fs: &'a Fs<'a>,
    /// By directory, and by their order in it.
    dirs: Vec<DirBlock>,
    found: BTreeMap<u32, (u32, String)>,
}

impl<'a> Names<'a> {
    /// Reads all directories once.
    pub(super) fn new(fs: &'a Fs<'a>, mut dirs: Vec<DirBlock>, wanted: BTreeSet<u32>) -> Self {
        let mut found = BTreeMap::new();
        for dir in &dirs {
            if found.len() == wanted.len() || fs.look.is_cancelled() {
                break;
            }
            let Ok(bytes) = dirs::read(fs, *dir) else { continue };
            for entry in dirs::entries(fs, &bytes, bytes.len()).0 {
                if wanted.contains(&entry.inode) && !matches!(entry.name, b"." | b"..") {
                    let name = String::from_utf8_lossy(entry.name).into_owned();
                    found.entry(entry.inode).or_insert((dir.inode, name));
                }
            }
        }
        dirs.sort_unstable_by_key(|dir| (dir.inode, dir.logical));
        Self { fs, dirs, found }
    }

    /// The path of an inode from the root, where its directories are there.
    pub(super) fn path(&self, inode: u32) -> Option<String> {
        if inode == ROOT {
            return Some("/".into());
        }
        let (mut dir, name) = self.found.get(&inode).cloned()?;
        let mut path = format!("/{name}");
        for _ in 0..INSIDE_PATH_DEPTH_MAX {
            if dir == ROOT {
                return Some(path);
            }
            let parent = self.entry(dir, |entry| entry.name == b"..").map(|(inode, _)| inode)?;
            let (_, name) = self.entry(parent, |entry| entry.inode == dir && !matches!(entry.name, b"." | b".."))?;
            path = format!("/{name}{path}");
            dir = parent;
        }
        None
    }

    fn entry(&self, dir: u32, is_it: impl Fn(&dirs::Entry<'_>) -> bool) -> Option<(u32, String)> {
        let first = self.dirs.partition_point(|block| block.inode < dir);
        let blocks = self.dirs.get(first..)?.iter().take_while(|block| block.inode == dir);
        blocks.filter_map(|block| dirs::read(self.fs, *block).ok()).find_map(|bytes| {
            let (entries, _) = dirs::entries(self.fs, &bytes, bytes.len());
            let found = entries.iter().find(|entry| is_it(entry))?;
            Some((found.inode, String::from_utf8_lossy(found.name).into_owned()))
        })
    }
}
