//! Hashes of files in an image, through its readers: found by their paths, read once, and metered.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::decrypt::hash::Algorithm;
use crate::error::{Condition, Error, ErrorKind, Result};
use crate::limits::VERIFY_FILES_TIMES;
use crate::num::to_u64;
use crate::progress::Progress;
use crate::reader::walk::{self, Descend, Follow, Visitor, resolve};
use crate::reader::{FileKind, FileSystem, Metadata, join, shown};

/// What stands for a path, where there may be a million.
pub type Key = [u8; 16];

/// The key of a path.
pub fn key(path: &[u8]) -> Key {
    let hash: [u8; 32] = Sha256::digest(path).into();
    let mut key = Key::default();
    key.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    key
}

/// What may still be read.
pub struct Meter<'a> {
    left: u64,
    progress: &'a Progress,
}

impl<'a> Meter<'a> {
    /// For a plaintext of so many bytes.
    pub fn new(plaintext: u64, progress: &'a Progress) -> Self {
        // A small image may have a file with a large hole.
        Self { left: plaintext.saturating_mul(VERIFY_FILES_TIMES).max(1 << 30), progress }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`], [`ErrorKind::Cancelled`].
    pub fn take(&mut self, bytes: usize) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        self.left = self.left.checked_sub(to_u64(bytes)).ok_or_else(|| {
            let message =
                format!("the files that were read have {VERIFY_FILES_TIMES} times the bytes of the plaintext");
            Error::limit("verify.files", message)
        })?;
        Ok(())
    }

    /// The hash of a regular file, in hex.
    ///
    /// # Errors
    /// As [`walk::read`] and [`Meter::take`].
    pub fn hash(
        &mut self,
        fs: &mut dyn FileSystem,
        path: &[u8],
        metadata: &Metadata,
        algorithm: Algorithm,
    ) -> Result<String> {
        let mut hasher = algorithm.hasher();
        self.take(0)?;
        walk::read(fs, path, metadata, &mut |bytes| {
            hasher.update(bytes);
            self.take(bytes.len())
        })?;
        Ok(hasher.finish())
    }

    /// A whole file of at most so many bytes.
    ///
    /// # Errors
    /// As [`Meter::hash`]; [`ErrorKind::LimitExceeded`] where it is longer.
    pub fn text(&mut self, fs: &mut dyn FileSystem, path: &[u8], most: u64) -> Result<Vec<u8>> {
        let (path, metadata) = resolve(fs, path, Follow::Last)?;
        if metadata.size > most {
            let message = format!("it has {} bytes; {most} are read", metadata.size);
            return Err(Error::limit("verify.text", message));
        }
        let mut text = Vec::new();
        walk::read(fs, &path, &metadata, &mut |bytes| {
            text.extend_from_slice(bytes);
            self.take(bytes.len())
        })?;
        Ok(text)
    }
}

/// Finds files by paths that come directory by directory: the last directory's own path is remembered.
#[derive(Default)]
pub struct Finder {
    /// A directory as it was named, and without links.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl Finder {
    /// What a path leads to, with all links followed, as [`resolve`] does it; `follow` is for one at its end.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn find(&mut self, fs: &mut dyn FileSystem, path: &[u8], follow: Follow) -> Result<(Vec<u8>, Metadata)> {
        let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let (dir, name) = path.split_at_checked(end).unwrap_or((b"", path));
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if matches!(name, b"" | b"." | b"..") {
            return resolve(fs, path, follow);
        }
        if self.last.as_ref().is_none_or(|(named, _)| named != dir) {
            self.last = None;
            let (own, metadata) = resolve(fs, dir, Follow::Last)?;
            if !metadata.is_dir() {
                return resolve(fs, path, follow);
            }
            self.last = Some((dir.to_vec(), own));
        }
        let Some((_, own)) = &self.last else { return resolve(fs, path, follow) };
        let own = join(own, name)?;
        let metadata = fs.metadata(&own)?;
        if metadata.kind == FileKind::Link && follow == Follow::Last {
            return resolve(fs, path, follow);
        }
        Ok((own, metadata))
    }
}

/// Whether an error is of the image, rather than of what this program reads.
pub fn is_damage(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io) && !e.is(Condition::ReaderEnded)
}

/// A walk that counts them.
pub struct Count<'a, 'p> {
    prefix: &'a [u8],
    sets: &'a [&'a HashSet<Key>],
    counts: Vec<(u64, u64)>,
    /// Why not all directories could be gone through.
    fault: Option<Error>,
    meter: &'a mut Meter<'p>,
}

impl<'a, 'p> Count<'a, 'p> {
    /// Counts the regular files of a file system that are in none of some sets; for each set, their number and their bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`]; those by which not all directories could be gone through.
    pub fn of(
        fs: &mut dyn FileSystem,
        prefix: &'a [u8],
        sets: &'a [&'a HashSet<Key>],
        meter: &'a mut Meter<'p>,
    ) -> Result<Vec<(u64, u64)>> {
        let mut count = Self { prefix, sets, counts: vec![(0, 0); sets.len()], fault: None, meter };
        let root = fs.metadata(b"/")?;
        walk::walk(fs, b"/", &root, &mut count)?;
        count.fault.map_or(Ok(count.counts), Err)
    }
}

impl Visitor for Count<'_, '_> {
    fn visit(&mut self, _: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        self.meter.take(0)?;
        if metadata.kind == FileKind::File {
            let key = key(&[self.prefix, path].concat());
            for (set, (files, bytes)) in self.sets.iter().zip(&mut self.counts) {
                if !set.contains(&key) {
                    *files = files.saturating_add(1);
                    *bytes = bytes.saturating_add(metadata.size);
                }
            }
        }
        Ok(Descend::Into)
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        if e.kind() == ErrorKind::Cancelled {
            return Err(e);
        }
        self.fault.get_or_insert_with(|| e.within(shown(path)));
        Ok(())
    }
}
