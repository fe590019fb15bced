//! A download that goes on where it stopped: the bytes under a temporary name, and beside them which image they are of.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::image::Image;
use unluks::error::{Error, Result, shown};
use unluks::num::{at_most, to_u64};

/// A file of this size is no note of ours.
const NOTE_MAX: u64 = 64 << 10;

/// Which bytes they are: an image's data never changes in Glance, but an id may be used for another cloud's.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    unluks_fetch: u32,
    image: String,
    size: u64,
    checksum: Option<String>,
    os_hash_value: Option<String>,
}

/// An image's file while it comes in.
pub(super) struct Partial {
    path: PathBuf,
    temp: PathBuf,
    note: PathBuf,
    file: File,
    /// Bytes that are there.
    pub len: u64,
}

impl Partial {
    /// Starts, or goes on with, what will be `path`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) where `path` is there, or another process is writing
    /// it; [`ErrorKind::Io`](unluks::ErrorKind::Io) where it cannot be made.
    pub fn open(path: &Path, image: &Image, size: u64) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let beside = |suffix: &str| path.with_file_name(format!(".{name}.{suffix}"));
        let (temp, note) = (beside("unluks-part"), beside("unluks-fetch"));
        let info = &image.info;
        let wanted = Note {
            unluks_fetch: 1,
            image: info.id.clone(),
            size,
            checksum: info.checksum.clone(),
            os_hash_value: info.os_hash_value.clone(),
        };
        let same = read_note(&note).is_some_and(|found| found == wanted);
        if path.symlink_metadata().is_ok() {
            if !same {
                return Err(Error::invalid(format!("{} is there already", shown(path)))
                    .with_hint("name another directory, or move it away"));
            }
            // An earlier run got as far as this, and not to its end: it is looked through once more.
            fs::rename(path, &temp).map_err(|e| failed(&temp, e))?;
        }
        let mut open = OpenOptions::new();
        open.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = open.open(&temp).map_err(|e| failed(&temp, e))?;
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => {
                return Err(Error::invalid(format!("another unluks is writing {}", shown(&temp))));
            }
            // Not every file system can lock; then nothing is lost but the check.
            Ok(()) | Err(fs::TryLockError::Error(_)) => {}
        }
        let mut len = file.metadata().map_err(|e| failed(&temp, e))?.len();
        if !same || len > size {
            file.set_len(0).map_err(|e| failed(&temp, e))?;
            len = 0;
            let json = serde_json::to_vec(&wanted).map_err(|e| Error::invalid(e.to_string()))?;
            let mut open = OpenOptions::new();
            open.write(true).create(true).truncate(true).mode(0o600);
            open.open(&note).and_then(|mut f| f.write_all(&json)).map_err(|e| failed(&note, e))?;
        }
        // A disk that is too small says so before hours of download. The length stays that of what is there.
        let keep_size = rustix::fs::FallocateFlags::KEEP_SIZE;
        if let Err(rustix::io::Errno::NOSPC) = rustix::fs::fallocate(&file, keep_size, 0, size) {
            let full =
                Error::io(format!("allocating {size} bytes for {}", shown(path)), rustix::io::Errno::NOSPC.into());
            return Err(full.with_hint("make room, or name a directory elsewhere"));
        }
        Ok(Self { path: path.to_owned(), temp, note, file, len })
    }

    /// What is there from `at` on, at most `max` bytes.
    pub fn read(&self, at: u64, max: usize) -> Result<Vec<u8>> {
        let n = at_most(self.len.saturating_sub(at), max);
        let mut block = vec![0; n];
        let read = self.file.read_exact_at(&mut block, at);
        read.map_err(|e| Error::io(format!("reading {}", shown(&self.temp)), e).at(at))?;
        Ok(block)
    }

    /// Appends.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, self.len);
        written.map_err(|e| self.failed(e))?;
        self.len += to_u64(bytes.len());
        Ok(())
    }

    /// The same file once more: for whoever reads it or syncs it while it grows.
    pub fn share(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| self.failed(e))
    }

    /// The error of a failure to write it.
    pub fn failed(&self, e: std::io::Error) -> Error {
        failed(&self.path, e)
            .at(self.len)
            .with_hint(format!("what came is kept in {}: make room, and run it again to go on", shown(&self.temp)))
    }

    /// The temporary name.
    pub fn temp(&self) -> String {
        shown(&self.temp)
    }

    /// Gives the file its name. The note stays until [`Partial::finish`].
    pub fn commit(&self) -> Result<()> {
        self.file.sync_all().map_err(|e| failed(&self.path, e))?;
        let cwd = rustix::fs::CWD;
        let renamed =
            match rustix::fs::renameat_with(cwd, &self.temp, cwd, &self.path, rustix::fs::RenameFlags::NOREPLACE) {
                // Some file systems cannot rename without replacing; then the look before has to do.
                Err(rustix::io::Errno::INVAL) if !self.path.exists() => rustix::fs::rename(&self.temp, &self.path),
                other => other,
            };
        renamed.map_err(|e| failed(&self.path, e.into()))?;
        unluks::files::sync_folder(&self.path)
    }

    /// Removes the note: nobody need go on with this.
    pub fn finish(self) {
        let _ = fs::remove_file(&self.note);
    }

    /// Removes all: these are the wrong bytes.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.temp);
        let _ = fs::remove_file(&self.note);
    }
}

fn read_note(path: &Path) -> Option<Note> {
    let mut json = Vec::new();
    File::open(path).ok()?.take(NOTE_MAX).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

fn failed(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("writing {}", shown(path)), e)
}
