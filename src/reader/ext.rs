//! ext2, ext3 and ext4, by what [`inside`](crate::inside) knows of them, journal and checksums among it.
//!
//! `ext4-view` would be the kept crate, and read them until it was found to refuse files of ext2 and ext3 with a hole where a
//! block of pointers would be, file systems with data in inodes, large directories or folded names, and to keep the numbers of
//! inodes to itself, without which deep trees look like circles; nor does it read from the middle of a file without counting
//! blocks from its start. It is what the tests compare with.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::disk::Disk;
use super::{Entry, FileKind, FileSystem, Metadata, Xattr, absent, check_link, check_path, not_a, of_mode};
use crate::error::{Error, Result};
use crate::inside::{ExtData, ExtFiles, ExtNode};
use crate::io::ReadAt;
use crate::limits::READER_ENTRIES_MAX;

/// So many directories are kept.
const KEPT: usize = 64;

pub(super) struct Ext {
    disk: Disk,
    files: ExtFiles,
    dirs: Dirs,
    /// The file that was read last.
    file: Option<(u32, ExtNode, ExtData)>,
}

/// Names in the directories that were gone through last, by their hashes.
#[derive(Default)]
struct Dirs {
    kept: VecDeque<(u32, HashMap<u64, u32>)>,
    names: usize,
}

impl Dirs {
    fn add(&mut self, number: u32, names: HashMap<u64, u32>) {
        self.names = self.names.saturating_add(names.len());
        self.kept.push_back((number, names));
        while self.kept.len() > KEPT || self.names > READER_ENTRIES_MAX && self.kept.len() > 1 {
            let gone = self.kept.pop_front().map_or(0, |(_, names)| names.len());
            self.names = self.names.saturating_sub(gone);
        }
    }
}

struct Source(Disk);

impl ReadAt for Source {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.0.read(offset, buf)
    }
}

fn hash_of(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

fn metadata(node: &ExtNode) -> Metadata {
    let (kind, mode) = of_mode(node.mode());
    let (uid, gid) = node.owner();
    Metadata {
        mode: Some(mode),
        uid: Some(uid),
        gid: Some(gid),
        modified: Some(node.modified()),
        links: Some(node.links()),
        id: Some(u64::from(node.number)),
        ..Metadata::new(kind, node.size())
    }
}

impl Ext {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let files = disk.operation(|| {
            ExtFiles::open(Arc::new(Source(disk.clone()))).map_err(|e| e.within("opening the file system"))
        })?;
        Ok(Self { disk, files, dirs: Dirs::default(), file: None })
    }
}

/// The inode of a path.
fn node(files: &ExtFiles, dirs: &mut Dirs, path: &[u8]) -> Result<ExtNode> {
    let mut number = files.root();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let wanted = hash_of(name);
        let kept = dirs.kept.iter().find(|(there, _)| *there == number);
        number = if let Some((_, names)) = kept {
            names.get(&wanted).copied().ok_or_else(absent)?
        } else {
            let mut names = HashMap::new();
            list(files, number, &mut |name, number| {
                names.entry(hash_of(name)).or_insert(number);
                Ok(())
            })?;
            let found = names.get(&wanted).copied();
            dirs.add(number, names);
            found.ok_or_else(absent)?
        };
    }
    files.node(number)
}

/// Goes through the names of a directory, of which no more are taken than a directory may have.
fn list(files: &ExtFiles, number: u32, take: &mut dyn FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
    let dir = files.node(number)?;
    if of_mode(dir.mode()).0 != FileKind::Directory {
        return Err(not_a("directory"));
    }
    let mut count = 0usize;
    files.entries(&dir, &mut |name, number| {
        count = count.saturating_add(1);
        if count > READER_ENTRIES_MAX {
            let message = format!("found a directory of more than {READER_ENTRIES_MAX} entries");
            return Err(Error::limit("reader.entries", message));
        }
        take(name, number)
    })
}

impl FileSystem for Ext {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        check_path(path)?;
        let Self { disk, files, dirs, .. } = self;
        disk.operation(|| node(files, dirs, path).map(|node| metadata(&node)))
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        check_path(path)?;
        let Self { disk, files, dirs, .. } = self;
        disk.operation(|| {
            let number = node(files, dirs, path)?.number;
            let mut names = HashMap::new();
            list(files, number, &mut |name, number| {
                names.entry(hash_of(name)).or_insert(number);
                let metadata = files.node(number).map(|node| metadata(&node)).map_err(|e| e.to_string());
                take(Entry { name: name.to_vec(), metadata })
            })?;
            dirs.kept.retain(|(there, _)| *there != number);
            dirs.add(number, names);
            Ok(())
        })
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        check_path(path)?;
        let Self { disk, files, dirs, file } = self;
        disk.operation(|| {
            let node = node(files, dirs, path)?;
            if file.as_ref().is_none_or(|(there, ..)| *there != node.number) {
                if of_mode(node.mode()).0 != FileKind::File {
                    return Err(not_a("regular file"));
                }
                let data = files.data(&node)?;
                *file = Some((node.number, node, data));
            }
            file.as_ref().map_or(Ok(0), |(_, node, data)| files.read(node, data, offset, buf))
        })
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        check_path(path)?;
        let Self { disk, files, dirs, .. } = self;
        disk.operation(|| {
            let node = node(files, dirs, path)?;
            check_link(&metadata(&node))?;
            files.link(&node)
        })
    }

    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Xattr>> {
        check_path(path)?;
        let Self { disk, files, dirs, .. } = self;
        disk.operation(|| {
            let all = files.xattrs(&node(files, dirs, path)?)?;
            Ok(all.into_iter().map(|(name, value)| Xattr { name, value }).collect())
        })
    }

    fn directories_max(&mut self) -> Option<u64> {
        Some(u64::from(self.files.inodes()))
    }
}
