//! A file that is not finished: made under a hidden name beside its own, locked, and renamed when it is whole.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::Hasher;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::{Existing, exists, failed, kind};
use crate::error::{Condition, Error, Result, shown};

pub const PART: &str = ".unluks-part";
pub const JOURNAL: &str = ".unluks-journal";

/// The longest name that Linux's file systems take, in bytes.
const NAME_MAX: usize = 255;
/// So many bytes of a name that is too long for a suffix are kept in the hidden one.
const KEPT: usize = 160;
/// How often the hidden name is tried again when another process makes and removes it in between.
const ATTEMPTS: usize = 16;

/// A name beside `path` that is not taken for a finished file. It is always the same one.
pub fn beside(path: &Path, suffix: &str) -> Result<PathBuf> {
    let no_name = || Error::invalid(format!("{} is no file name", shown(path))).with_condition(Condition::Output);
    let name = path.file_name().ok_or_else(no_name)?.as_bytes();
    let mut hidden = b".".to_vec();
    if name.len() + 1 + JOURNAL.len() <= NAME_MAX {
        hidden.extend(name);
    } else {
        // Two long names that begin alike must not share one.
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(name);
        hidden.extend(name.get(..KEPT).unwrap_or(name));
        hidden.extend(format!("-{:016x}", hasher.finish()).as_bytes());
    }
    hidden.extend(suffix.as_bytes());
    Ok(path.with_file_name(OsString::from_vec(hidden)))
}

/// FNV-1a: the standard library's hash may be another one in its next version, and the name must not.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A file under its hidden name, locked.
pub struct Temp {
    /// What it will be, for messages.
    of: PathBuf,
    name: PathBuf,
    file: File,
}

impl Temp {
    /// Makes an empty file that will be `path`. One that was left behind is removed, once `discard` agrees: it is called
    /// while that one is locked.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where another process is writing it, or what has its name is no
    /// regular file; [`Io`](crate::ErrorKind::Io) where it cannot be made; and those of `discard`.
    pub fn make(path: &Path, mut discard: impl FnMut(&Self) -> Result<()>) -> Result<Self> {
        let name = beside(path, PART)?;
        for _ in 0..ATTEMPTS {
            let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&name);
            match made {
                Ok(file) => return Self::lock(path, name, file),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(failed(path, e)),
            }
            if let Some(old) = Self::open(path)? {
                discard(&old)?;
                old.unlink().map_err(|e| failed(path, e))?;
            }
        }
        Err(busy(path))
    }

    /// Takes over a file that was left behind; `None` where there is none.
    ///
    /// # Errors
    /// As [`Temp::make`].
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let name = beside(path, PART)?;
        // Neither a link of somebody else's nor a FIFO that nobody writes to is waited for or followed.
        match open_plain(&name, OpenOptions::new().read(true).write(true)) {
            Ok(file) => Self::lock(path, name, file).map(Some),
            Err(Plain::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(Plain::Io(e)) => Err(failed(path, e)),
            Err(Plain::Other(what)) => Err(in_the_way(path, &name, what)),
        }
    }

    /// Locks a file. The lock counts only where the name still leads to it.
    fn lock(of: &Path, name: PathBuf, file: File) -> Result<Self> {
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(busy(of)),
            // Not every file system can lock; then nothing is lost but the check.
            Err(std::fs::TryLockError::Error(_)) => {}
        }
        let temp = Self { of: of.to_owned(), name, file };
        if temp.is_named().map_err(|e| failed(of, e))? { Ok(temp) } else { Err(busy(of)) }
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The hidden name.
    pub fn name(&self) -> &Path {
        &self.name
    }

    /// Which file it is on its file system.
    pub fn inode(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.ino()).map_err(|e| failed(&self.of, e))
    }

    /// Whether the hidden name leads to this file, and not to one that somebody put in its place.
    fn is_named(&self) -> std::io::Result<bool> {
        is_at(&self.file, &self.name)
    }

    fn unlink(&self) -> std::io::Result<()> {
        if self.is_named()? { std::fs::remove_file(&self.name) } else { Ok(()) }
    }

    /// Removes the file, if the name still leads to it: best effort, for what is left behind does no harm.
    pub fn remove(&self) {
        let _ = self.unlink();
    }

    /// Gives the file its name. What gets the name is this file, whatever somebody did to the hidden name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where something has the name and stays;
    /// [`Io`](crate::ErrorKind::Io) where the file cannot be renamed, or is not the one under the hidden name.
    pub fn rename(&self, path: &Path, existing: Existing) -> Result<()> {
        let swapped = || {
            let message =
                format!("writing {}: somebody replaced the unfinished file {}", shown(path), shown(&self.name));
            Error::new(crate::ErrorKind::Io, message).with_condition(Condition::Output)
        };
        if !self.is_named().map_err(|e| failed(path, e))? {
            return Err(swapped());
        }
        let flags = match existing {
            Existing::Replace => RenameFlags::empty(),
            Existing::Keep => RenameFlags::NOREPLACE,
        };
        let cwd = rustix::fs::CWD;
        let renamed = match rustix::fs::renameat_with(cwd, &self.name, cwd, path, flags) {
            // Some file systems cannot rename without replacing; then the look before has to do.
            Err(Errno::INVAL) if path.symlink_metadata().is_err() => rustix::fs::rename(&self.name, path),
            other => other,
        };
        renamed.map_err(|e| match e {
            Errno::EXIST => exists(path),
            e => failed(path, e.into()),
        })?;
        // The look before cannot see what happens between it and the renaming.
        if is_at(&self.file, path).map_err(|e| failed(path, e))? { Ok(()) } else { Err(swapped()) }
    }
}

/// Why a file was not opened.
pub enum Plain {
    Io(std::io::Error),
    /// It is something else than a regular file.
    Other(&'static str),
}

/// Opens a regular file by its own name: no link is followed, and nothing is waited for.
pub fn open_plain(name: &Path, options: &mut OpenOptions) -> std::result::Result<File, Plain> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(|e| Plain::Io(std::io::Error::other(e)))?;
    let looked = std::fs::symlink_metadata(name).map_err(Plain::Io)?;
    if looked.is_symlink() {
        return Err(Plain::Other("a link"));
    }
    // A device does things when it is opened.
    if !looked.is_file() {
        return Err(Plain::Other(kind(&looked)));
    }
    let file = options.custom_flags(flags).open(name).map_err(Plain::Io)?;
    let meta = file.metadata().map_err(Plain::Io)?;
    if meta.is_file() { Ok(file) } else { Err(Plain::Other(kind(&meta))) }
}

/// Whether a name leads to this very file, and is no link.
fn is_at(file: &File, name: &Path) -> std::io::Result<bool> {
    let mine = file.metadata()?;
    match std::fs::symlink_metadata(name) {
        Ok(there) => Ok((mine.dev(), mine.ino()) == (there.dev(), there.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn busy(path: &Path) -> Error {
    Error::invalid(format!("another unluks is writing {}", shown(path))).with_condition(Condition::Output)
}

/// Something has a hidden name that is none of ours.
pub fn in_the_way(path: &Path, name: &Path, what: &str) -> Error {
    Error::invalid(format!("writing {}: {}, which it needs for itself, is {what}", shown(path), shown(name)))
        .with_hint("remove it, or write elsewhere")
        .with_condition(Condition::Output)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_hidden_name_is_never_too_long_and_never_shared() {
        let of = |n: usize, last: &str| beside(Path::new(&("n".repeat(n) + last)), JOURNAL).unwrap();
        assert_eq!(beside(Path::new("a/out"), PART).unwrap(), Path::new("a/.out.unluks-part"));
        for n in [238, 239, 240, 254] {
            assert!(of(n, "a").as_os_str().len() <= NAME_MAX, "{n}");
        }
        assert_eq!(of(254, "a"), of(254, "a"));
        assert_ne!(of(254, "a"), of(254, "b"));
        assert!(beside(Path::new("/"), PART).is_err());
    }

    #[test]
    fn a_file_that_was_swapped_does_not_get_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let temp = Temp::make(&path, |_| Ok(())).unwrap();
        temp.file().write_all(b"ours").unwrap();
        std::fs::remove_file(temp.name()).unwrap();
        std::fs::write(temp.name(), "theirs").unwrap();
        let said = temp.rename(&path, Existing::Keep).unwrap_err().to_string();
        assert!(said.contains("somebody replaced") && !path.exists(), "{said}");
        // It is theirs to remove.
        temp.remove();
        assert!(temp.name().exists());
    }

    #[test]
    fn what_is_left_behind_goes_only_with_leave_and_only_when_nobody_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Temp::make(&path, |_| Ok(())).unwrap();
        let asked = std::cell::Cell::new(0);
        let refuse = |_: &Temp| {
            asked.set(asked.get() + 1);
            Err(Error::invalid("no"))
        };
        let said = Temp::make(&path, refuse).err().unwrap().to_string();
        assert!(said.contains("another unluks is writing") && asked.get() == 0, "{said}");
        drop(first);
        assert_eq!(Temp::make(&path, refuse).err().unwrap().message(), "no");
        assert_eq!(asked.get(), 1);
        Temp::make(&path, |_| Ok(())).unwrap().remove();
        assert!(Temp::open(&path).unwrap().is_none());
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let part = beside(&path, PART).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &part, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(Temp::make(&path, |_| Ok(())).err().unwrap().to_string().contains("is a FIFO"));
        std::fs::remove_file(&part).unwrap();
        std::fs::write(dir.path().join("precious"), "theirs").unwrap();
        std::os::unix::fs::symlink("precious", &part).unwrap();
        assert!(Temp::make(&path, |_| Ok(())).err().unwrap().to_string().contains("is a link"));
        assert_eq!(std::fs::read(dir.path().join("precious")).unwrap(), b"theirs");
    }
}
