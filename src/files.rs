//! Files on a disk: which of them a name leads to, and how one is written whole or not at all.
//!
//! Nothing else in this crate makes, renames or removes a file. What is written has a hidden name beside its own until
//! it is whole; whoever has that file locked, and finds it under that name, owns the name and those beside it.

mod devices;
mod inputs;
mod temp;
pub mod tree;

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

pub use inputs::{Inputs, Role};
pub(crate) use temp::{Plain, Temp, beside, in_the_way, open_plain};

use crate::error::{Condition, Error, Hint, Result, shown};

/// What becomes of a file that has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and that it is there is an error.
    Keep,
    /// It is replaced.
    Replace,
}

/// Writes a small file whole or not at all, with mode 0600: under a hidden name, synced, renamed, and its folder synced.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where something has the name that may not be replaced, or that is no
/// regular file; [`Io`](crate::ErrorKind::Io) where it cannot be written.
pub fn write_whole(path: &Path, bytes: &[u8], existing: Existing) -> Result<()> {
    let mut whole = Whole::create(path, existing)?;
    whole.write(bytes)?;
    whole.finish()
}

/// A file that is written piece by piece, with mode 0600, and has its name once it is whole. One that is dropped before
/// leaves nothing behind.
pub struct Whole {
    path: PathBuf,
    temp: Temp,
    existing: Existing,
    is_named: bool,
}

impl Whole {
    /// Makes the file under its hidden name.
    ///
    /// # Errors
    /// As [`write_whole`].
    pub fn create(path: &Path, existing: Existing) -> Result<Self> {
        let path = resolve(path, existing)?;
        let temp = Temp::make(&path, |_| Ok(()))?;
        Ok(Self { path, temp, existing, is_named: false })
    }

    /// Writes what comes next.
    ///
    /// # Errors
    /// As [`write_whole`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.temp.file().write_all(bytes).map_err(|e| failed(&self.path, e))
    }

    /// Syncs the file and gives it its name.
    ///
    /// # Errors
    /// As [`write_whole`].
    pub fn finish(mut self) -> Result<()> {
        self.temp.file().sync_all().map_err(|e| failed(&self.path, e))?;
        self.temp.rename(&self.path, self.existing)?;
        self.is_named = true;
        sync_folder(&self.path)
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if !self.is_named {
            self.temp.remove();
        }
    }
}

/// Waits until the name of a file is on the disk, or gone from it: that is so once its folder is.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where the folder cannot be synced.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder(path);
    File::open(folder).and_then(|d| d.sync_all()).map_err(|e| {
        let message = format!("syncing {}, the folder of {}", shown(folder), shown(path));
        Error::io(message, e).with_condition(Condition::Output)
    })
}

/// The folder that holds a file's name.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// All names that writing `path` may take: its own, that of the unfinished file, and that of its journal.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where `path` names no file.
pub fn names(path: &Path) -> Result<[PathBuf; 3]> {
    Ok([path.to_owned(), beside(path, temp::PART)?, beside(path, temp::JOURNAL)?])
}

/// The name of the journal of an unfinished file.
pub(crate) fn journal_name(path: &Path) -> Result<PathBuf> {
    beside(path, temp::JOURNAL)
}

/// Where a file really goes: through a link, where one may be replaced. It is nothing yet, or a regular file that may be
/// replaced.
pub(crate) fn resolve(path: &Path, existing: Existing) -> Result<PathBuf> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        Err(e) => Err(failed(path, e)),
        Ok(_) if existing == Existing::Keep => Err(exists(path)),
        Ok(meta) => {
            let (path, meta) = if meta.is_symlink() {
                let path = std::fs::canonicalize(path).map_err(|e| failed(path, e))?;
                let meta = std::fs::metadata(&path).map_err(|e| failed(&path, e))?;
                (path, meta)
            } else {
                (path.to_owned(), meta)
            };
            if !meta.is_file() {
                let message = format!("{} is {}, and only a regular file is replaced", shown(&path), kind(&meta));
                return Err(Error::invalid(message).with_condition(Condition::Output));
            }
            Ok(path)
        }
    }
}

/// What a name leads to, in words.
pub(crate) fn kind(meta: &std::fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = meta.file_type();
    if kind.is_dir() {
        "a directory"
    } else if kind.is_block_device() {
        "a block device"
    } else if kind.is_char_device() {
        "a character device"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a regular file"
    }
}

pub(crate) fn exists(path: &Path) -> Error {
    Error::invalid(format!("{} is there already", shown(path))).with_hint(Hint::Force).with_condition(Condition::Output)
}

/// An error of making or writing `path`. The hidden name beside it is nothing that a user knows.
pub(crate) fn failed(path: &Path, e: std::io::Error) -> Error {
    let name = shown(path);
    let message = match e.kind() {
        ErrorKind::NotFound => format!("writing {name}: the folder {} does not exist", shown(folder(path))),
        ErrorKind::NotADirectory => format!("writing {name}: {} is no folder", shown(folder(path))),
        ErrorKind::PermissionDenied => {
            format!("writing {name}: no file may be made in the folder {}", shown(folder(path)))
        }
        ErrorKind::InvalidFilename => {
            format!(
                "writing {name}: its name is too long for the file system, which also has to take hidden ones beside it"
            )
        }
        _ => format!("writing {name}"),
    };
    let hint = match e.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some("make room, or write elsewhere"),
        _ => None,
    };
    let error = Error::io(message, e).with_condition(Condition::Output);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_small_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_whole(&path, b"one", Existing::Keep).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let e = write_whole(&path, b"two", Existing::Keep).unwrap_err();
        assert!(e.to_string().contains("is there already"), "{e}");
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        let link = dir.path().join("link");
        symlink("key", &link).unwrap();
        write_whole(&link, b"two", Existing::Replace).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_regular_file_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let link = dir.path().join("link");
        symlink("fifo", &link).unwrap();
        for (path, word) in [(&fifo, "a FIFO"), (&link, "a FIFO"), (&dir.path().to_owned(), "a directory")] {
            let e = write_whole(path, b"x", Existing::Replace).unwrap_err();
            assert!(e.to_string().contains(word) && e.kind() == crate::ErrorKind::InvalidInput, "{e}");
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);
    }

    #[test]
    fn an_error_names_the_file_and_no_hidden_one() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nowhere/key");
        let said = write_whole(&nowhere, b"x", Existing::Keep).unwrap_err().to_string();
        assert!(said.contains("nowhere does not exist") && !said.contains("unluks"), "{said}");
        let long = dir.path().join("n".repeat(256));
        let said = write_whole(&long, b"x", Existing::Keep).unwrap_err().to_string();
        assert!(said.contains("too long"), "{said}");
    }
}
