//! XFS, through `lamxfs`, which replays version 5's log in memory. It gives neither owners nor times.

use std::sync::Arc;

use lamxfs::{BlockRead, Inode, Path, Xfs};

use super::disk::Disk;
use super::known::Known;
use super::{Entry, FileSystem, Metadata, absent, check_link, check_path, join, not_a, of_mode};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::ReadAt;

pub(super) struct XfsReader {
    disk: Disk,
    fs: Xfs<Source>,
    known: Known<u64>,
}

struct Source(Disk);

impl BlockRead for Source {
    type Error = Error;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset_bytes, buf)
    }
}

fn explain(e: &lamxfs::Error) -> Error {
    match e {
        lamxfs::Error::NotFound { .. } => absent(),
        lamxfs::Error::NotARegularFile => not_a("regular file"),
        lamxfs::Error::NotASymlink => not_a("link"),
        lamxfs::Error::UnsupportedFeature(what) => {
            Error::unsupported("reader.xfs", format!("found the feature {}, which is not read", escape(what)))
        }
        lamxfs::Error::BadSuperblock(why) => Error::unsupported("reader.xfs", format!("found {why:?}")),
        lamxfs::Error::Io { offset, .. } => Error::new(ErrorKind::Io, "the disk cannot be read").at(*offset),
        e => Error::corrupt("reader.xfs", escape(&format!("{e:?}"))),
    }
}

impl XfsReader {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let len = disk.len();
        let fs = disk.operation(|| {
            Xfs::open(Source(disk.clone()), len).map_err(|e| explain(&e).within("opening the file system"))
        })?;
        Ok(Self { disk, fs, known: Known::new() })
    }

    fn inode(&mut self, path: &[u8]) -> Result<Inode> {
        check_path(path)?;
        if let Some(ino) = self.known.get(path) {
            return Ok(Inode { ino });
        }
        let Self { disk, fs, .. } = self;
        let inode = disk.operation(|| fs.resolve(Path::new(path)).map_err(|e| explain(&e)))?;
        self.known.add(path.to_vec(), inode.ino);
        Ok(inode)
    }
}

fn metadata(inode: u64, meta: &lamxfs::Metadata) -> Metadata {
    let (kind, mode) = of_mode(meta.mode());
    Metadata { mode: Some(mode), id: Some(inode), ..Metadata::new(kind, meta.size()) }
}

impl FileSystem for XfsReader {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        let inode = self.inode(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| fs.metadata(&inode).map(|m| metadata(inode.ino, &m)).map_err(|e| explain(&e)))
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        if !self.metadata(path)?.is_dir() {
            return Err(not_a("directory"));
        }
        let Self { disk, fs, known } = self;
        let entries = disk.operation(|| fs.read_dir(Path::new(path)).map_err(|e| explain(&e)))?;
        for entry in entries {
            let ino = entry.inode_number;
            let meta = disk.operation(|| fs.metadata(&Inode { ino }).map_err(|e| explain(&e)));
            if let Ok(below) = join(path, &entry.name) {
                known.add(below, ino);
            }
            let metadata = meta.map(|m| metadata(ino, &m)).map_err(|e| e.to_string());
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
        disk.operation(|| fs.read_link(Path::new(path)).map_err(|e| explain(&e)))
    }
}
