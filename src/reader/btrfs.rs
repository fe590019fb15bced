//! btrfs, through `lambutter`, from its top level: subvolumes and snapshots are directories, as a mount with `subvolid=5`
//! shows them. It verifies the checksums of nodes, and not those of data: [`inside`](crate::inside) does, and verifies nodes
//! with other checksums than CRC-32C, which the crate does not know.

use std::sync::Arc;

use lambutter::{BlockRead, Btrfs, Inode, Path};

use super::disk::Disk;
use super::known::Known;
use super::{Entry, FileSystem, Metadata, absent, check_link, check_path, join, not_a, of_mode};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::inside::BtrfsSums;
use crate::io::ReadAt;

/// The top level's number (`BTRFS_FS_TREE_OBJECTID`).
const TOP: u64 = 5;

pub(super) struct BtrfsReader {
    disk: Disk,
    fs: Btrfs<Source>,
    known: Known<Inode>,
}

struct Source(Disk, Option<BtrfsSums>);

impl BlockRead for Source {
    type Error = Error;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset_bytes, buf)?;
        if let Some(sums) = &self.1 {
            sums.restate(buf);
        }
        Ok(())
    }
}

fn explain(e: &lambutter::Error) -> Error {
    match e {
        lambutter::Error::NotFound => absent(),
        lambutter::Error::NotARegularFile => not_a("regular file"),
        lambutter::Error::NotASymlink => not_a("link"),
        lambutter::Error::UnsupportedFeature(_)
        | lambutter::Error::UnsupportedProfile(_)
        | lambutter::Error::UnsupportedChecksum(_) => Error::unsupported("reader.btrfs", escape(&e.to_string())),
        lambutter::Error::Io { offset, .. } => Error::new(ErrorKind::Io, "the disk cannot be read").at(*offset),
        e => Error::corrupt("reader.btrfs", escape(&e.to_string())),
    }
}

impl BtrfsReader {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let len = disk.len();
        let mut superblock = vec![0; 4096];
        disk.read(65536, &mut superblock)?;
        let source = Source(disk.clone(), BtrfsSums::of(&superblock));
        let fs = disk.operation(|| {
            let opened = Btrfs::open_subvol_id(source, len, TOP);
            opened.map_err(|e| explain(&e).within("opening the file system"))
        })?;
        Ok(Self { disk, fs, known: Known::new() })
    }

    fn inode(&mut self, path: &[u8]) -> Result<Inode> {
        check_path(path)?;
        if let Some(inode) = self.known.get(path) {
            return Ok(inode);
        }
        let Self { disk, fs, .. } = self;
        let wanted = Path::new(path).ok_or_else(absent)?;
        let inode = disk.operation(|| fs.resolve(wanted).map_err(|e| explain(&e)))?;
        self.known.add(path.to_vec(), inode);
        Ok(inode)
    }
}

fn metadata(inode: &Inode, meta: &lambutter::Metadata) -> Metadata {
    let (kind, mode) = of_mode(meta.mode);
    // Numbers of inodes are a subvolume's own. Neither has more than 2^40 in practice; where they do, two may look alike.
    let id = inode.subvolume().wrapping_shl(40) ^ inode.objectid();
    Metadata {
        mode: Some(mode),
        uid: Some(meta.uid),
        gid: Some(meta.gid),
        links: Some(meta.nlink),
        id: Some(id),
        ..Metadata::new(kind, meta.size)
    }
}

impl FileSystem for BtrfsReader {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        let inode = self.inode(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| fs.metadata(&inode).map(|m| metadata(&inode, &m)).map_err(|e| explain(&e)))
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if !self.metadata(path)?.is_dir() {
            return Err(not_a("directory"));
        }
        let Self { disk, fs, known } = self;
        let wanted = Path::new(path).ok_or_else(absent)?;
        let entries = disk.operation(|| fs.read_dir(wanted).map_err(|e| explain(&e)))?;
        for entry in entries {
            let inode = entry.inode;
            let meta = disk.operation(|| fs.metadata(&inode).map_err(|e| explain(&e)));
            if let Ok(below) = join(path, &entry.name) {
                known.add(below, inode);
            }
            let metadata = meta.map(|m| metadata(&inode, &m)).map_err(|e| e.to_string());
            take(Entry { name: entry.name, metadata })?;
        }
        Ok(())
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let inode = self.inode(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| fs.read_file_at(&inode, offset, buf).map_err(|e| explain(&e)))
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        check_link(&self.metadata(path)?)?;
        let Self { disk, fs, .. } = self;
        let wanted = Path::new(path).ok_or_else(absent)?;
        disk.operation(|| fs.read_link(wanted).map_err(|e| explain(&e)))
    }
}
