//! exFAT, through `lamexfat`. Its names are Unicode, and here UTF-8; letters are the same whatever their case.
//!
//! The crate finds a path from the root on each time, gives no times, and follows a file's chain from its start for each
//! read: a very large file in many pieces takes long. What stands for a directory's number is its first cluster.

use std::sync::Arc;

use lamexfat::{BlockRead, EntryKind, ExFat, Path};

use super::disk::Disk;
use super::{Entry, FileKind, FileSystem, Metadata, absent, check_path, join, not_a, split};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::ReadAt;

pub(super) struct ExfatReader {
    disk: Disk,
    fs: ExFat<Source>,
    /// The directory that was listed last: its names, and the first clusters of directories.
    listed: Option<(Vec<u8>, Vec<Found>)>,
}

#[derive(Clone)]
struct Found {
    name: String,
    cluster: Option<u64>,
}

struct Source(Disk);

impl BlockRead for Source {
    type Error = Error;

    fn read_at(&mut self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read(offset_bytes, buf)
    }
}

fn explain(e: &lamexfat::Error) -> Error {
    match e {
        lamexfat::Error::NotFound { component: "not a directory" } => not_a("directory"),
        lamexfat::Error::NotFound { .. } => absent(),
        lamexfat::Error::NotARegularFile => not_a("regular file"),
        lamexfat::Error::UnsupportedFeature(_) => Error::unsupported("reader.exfat", escape(&e.to_string())),
        lamexfat::Error::Io { offset, .. } => Error::new(ErrorKind::Io, "the disk cannot be read").at(*offset),
        e => Error::corrupt("reader.exfat", escape(&e.to_string())),
    }
}

impl ExfatReader {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let len = disk.len();
        let fs = disk.operation(|| {
            ExFat::open(Source(disk.clone()), len).map_err(|e| explain(&e).within("opening the file system"))
        })?;
        Ok(Self { disk, fs, listed: None })
    }

    fn list(&mut self, path: &[u8]) -> Result<Vec<Found>> {
        if let Some((_, found)) = self.listed.as_ref().filter(|(there, _)| there == path) {
            return Ok(found.clone());
        }
        let Self { disk, fs, .. } = self;
        let entries = disk.operation(|| fs.read_dir(Path::new(path)).map_err(|e| explain(&e)))?;
        let of = |entry: lamexfat::DirEntry| {
            let cluster = (entry.kind == EntryKind::Directory).then_some(u64::from(entry.first_cluster));
            Found { name: entry.name, cluster }
        };
        let found: Vec<Found> = entries.into_iter().map(of).collect();
        self.listed = Some((path.to_vec(), found.clone()));
        Ok(found)
    }

    fn describe(&mut self, path: &[u8], cluster: Option<u64>) -> Result<Metadata> {
        let Self { disk, fs, .. } = self;
        disk.operation(|| {
            let found = fs.metadata(Path::new(path)).map_err(|e| explain(&e))?;
            let (kind, size) = if found.is_dir() { (FileKind::Directory, 0) } else { (FileKind::File, found.size()) };
            Ok(Metadata { id: cluster, ..Metadata::new(kind, size) })
        })
    }
}

impl FileSystem for ExfatReader {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        check_path(path)?;
        let Some((above, name)) = split(path) else { return self.describe(path, Some(0)) };
        let metadata = self.describe(path, None)?;
        if !metadata.is_dir() {
            return Ok(metadata);
        }
        let name = std::str::from_utf8(name).map_err(|_| absent())?;
        let all = self.list(above)?;
        let exact = all.iter().find(|found| found.name == name);
        let folded = || all.iter().find(|found| found.name.to_lowercase() == name.to_lowercase());
        Ok(Metadata { id: exact.or_else(folded).and_then(|found| found.cluster), ..metadata })
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        check_path(path)?;
        for Found { name, cluster } in self.list(path)? {
            let name = name.into_bytes();
            // One that no file can have is told by whoever asked.
            let metadata = join(path, &name).and_then(|below| self.describe(&below, cluster));
            take(Entry { name, metadata: metadata.map_err(|e| e.to_string()) })?;
        }
        Ok(())
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        check_path(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| fs.read_at(Path::new(path), offset, buf).map_err(|e| explain(&e)))
    }

    fn read_link(&mut self, _: &[u8]) -> Result<Vec<u8>> {
        Err(not_a("link"))
    }
}
