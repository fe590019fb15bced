//! ext2, ext3 and ext4, through `ext4-view`, which replays the journal in memory; one that it does not know is replayed by
//! [`inside`](crate::inside).
//!
//! It goes by paths, and keeps numbers of inodes to itself. What stands for one is a hash of all that it says of a
//! directory, its own times to the nanosecond among it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ext4_view::{Ext4, Ext4Error, Ext4Read, File, FileType};

use super::disk::Disk;
use super::{Entry, FileKind, FileSystem, Metadata, absent, check_link, check_path, not_a};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::inside::replayed_ext;
use crate::io::ReadAt;
use crate::limits::READER_SEEK_MAX;

pub(super) struct Ext {
    disk: Disk,
    fs: Ext4,
    /// The file that was read last: reading on does not look for its blocks again.
    file: Option<(Vec<u8>, File)>,
    inodes: u32,
}

struct Source(Disk);

impl Ext4Read for Source {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> std::result::Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        self.0.read(start_byte, dst).map_err(|e| e.to_string().into())
    }
}

fn explain(e: Ext4Error) -> Error {
    match e {
        Ext4Error::NotFound => absent(),
        Ext4Error::NotADirectory => not_a("directory"),
        Ext4Error::IsADirectory | Ext4Error::IsASpecialFile => not_a("regular file"),
        Ext4Error::NotASymlink => not_a("link"),
        Ext4Error::Encrypted => Error::unsupported("reader.ext", "found a directory that the file system encrypts"),
        Ext4Error::Incompatible(what) => Error::unsupported("reader.ext", escape(&what.to_string())),
        e => Error::corrupt("reader.ext", escape(&e.to_string())),
    }
}

impl Ext {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let load = |disk: &Disk| {
            disk.operation(|| {
                let loaded = Ext4::load(Box::new(Source(disk.clone())));
                loaded.map_err(|e| explain(e).within("opening the file system"))
            })
        };
        let first = Disk::new(Arc::clone(&disk));
        let (disk, fs) = match load(&first) {
            Ok(fs) => (first, fs),
            // It replays journals with checksums of their third version alone: not those of ext3 and of older ext4.
            Err(e) if e.kind() == ErrorKind::Unsupported && is_to_be_replayed(&first) => {
                let replayed = Disk::new(replayed_ext(disk)?);
                let fs = load(&replayed)?;
                (replayed, fs)
            }
            Err(e) => return Err(e),
        };
        let mut inodes = [0; 4];
        // `s_inodes_count` is the superblock's first field.
        disk.read(1024, &mut inodes)?;
        Ok(Self { disk, fs, file: None, inodes: u32::from_le_bytes(inodes) })
    }
}

/// Whether the superblock has the mark (`EXT4_FEATURE_INCOMPAT_RECOVER`).
fn is_to_be_replayed(disk: &Disk) -> bool {
    let mut incompat = [0; 4];
    disk.read(1024 + 0x60, &mut incompat).is_ok() && u32::from_le_bytes(incompat) & 0x4 != 0
}

fn metadata(meta: &ext4_view::Metadata) -> Metadata {
    let kind = match meta.file_type() {
        FileType::Regular => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Special,
    };
    let id = meta.is_dir().then(|| {
        let mut hasher = DefaultHasher::new();
        meta.hash(&mut hasher);
        hasher.finish()
    });
    let modified = meta.modified();
    Metadata {
        mode: Some(u32::from(meta.mode())),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
        modified: Some((modified.seconds(), modified.nanoseconds())),
        id,
        is_likely: true,
        ..Metadata::new(kind, meta.len())
    }
}

impl FileSystem for Ext {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        check_path(path)?;
        self.disk.operation(|| self.fs.symlink_metadata(path).map(|m| metadata(&m)).map_err(explain))
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        check_path(path)?;
        self.disk.operation(|| {
            for entry in self.fs.read_dir(path).map_err(explain)? {
                let entry = entry.map_err(explain)?;
                let name = entry.file_name().as_ref().to_vec();
                if name == b"." || name == b".." {
                    continue;
                }
                let metadata = entry.metadata().map(|m| metadata(&m));
                take(Entry { name, metadata: metadata.map_err(|e| escape(&e.to_string())) })?;
            }
            Ok(())
        })
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        check_path(path)?;
        let Self { disk, fs, file, .. } = self;
        disk.operation(|| {
            let mut open = match file.take() {
                Some((there, open)) if there == path => open,
                _ => fs.open(path).map_err(explain)?,
            };
            if open.position() != offset {
                // It goes from block to block to get there.
                if offset / 1024 > READER_SEEK_MAX {
                    let message = "the file is too long to be read from its middle on".to_owned();
                    return Err(Error::limit("reader.seek", message));
                }
                open.seek_to(offset).map_err(explain)?;
            }
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                match open.read_bytes(rest).map_err(explain)? {
                    0 => break,
                    n => done = done.saturating_add(n),
                }
            }
            *file = Some((path.to_vec(), open));
            Ok(done)
        })
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        check_link(&self.metadata(path)?)?;
        self.disk.operation(|| self.fs.read_link(path).map(|p| p.as_ref().to_vec()).map_err(explain))
    }

    fn directories_max(&mut self) -> Option<u64> {
        Some(u64::from(self.inodes))
    }
}
