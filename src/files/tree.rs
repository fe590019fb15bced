//! Files and directories under one that somebody named, and nowhere else: no name of theirs leads out of it, and no link
//! that lies in it is followed.
//!
//! Every directory is open, and each name is taken from the one that it is in (`openat`, `O_NOFOLLOW`). A file has a hidden
//! name until it is whole, as all have that are written here.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::temp::{PART, beside, in_the_way};
use super::{Existing, Inputs, exists, failed};
use crate::error::{Condition, Error, Result, shown};
use crate::num::to_u64;

/// What a file or a directory gets when it is whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes {
    /// Its permissions; 0600 or 0700 without them. Bits beyond 0777 are not set.
    pub mode: Option<u32>,
    /// When it was changed: seconds since 1970, and nanoseconds.
    pub modified: Option<(i64, u32)>,
}

/// A directory that is open.
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    /// It was made here, and is empty but for what is made in it.
    is_new: bool,
}

/// Zeroes become a hole in runs of at least this many bytes.
const HOLE: usize = 32 << 10;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn is_name(name: &OsStr) -> bool {
    let name = name.as_bytes();
    !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
}

impl Folder {
    /// Opens a directory that is there. Links in its path are followed: whoever named it chose them.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let opened = rustix::fs::open(path, FOLDER, Mode::empty());
        let fd = opened.map_err(|e| {
            Error::io(format!("opening the folder {}", shown(path)), e.into()).with_condition(Condition::Output)
        })?;
        Ok(Self { fd, path: path.to_owned(), is_new: false })
    }

    /// Makes a directory with mode 0700 and opens it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where something has the name; [`Io`](crate::ErrorKind::Io) where it
    /// cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        match rustix::fs::mkdir(path, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists(path)),
            Err(e) => return Err(failed(path, e.into())),
        }
        let opened = rustix::fs::open(path, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        let fd = opened.map_err(|e| failed(path, e.into()))?;
        Ok(Self { fd, path: path.to_owned(), is_new: true })
    }

    /// Its path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn below(&self, name: &OsStr) -> Result<PathBuf> {
        let path = self.path.join(name);
        if is_name(name) {
            return Ok(path);
        }
        Err(Error::invalid(format!("{} is no name of a file", shown(Path::new(name))))
            .with_condition(Condition::Output))
    }

    /// A directory in it, which is made with mode 0700 where there is none.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where something else has the name, also a link to a directory;
    /// [`Io`](crate::ErrorKind::Io) where it cannot be made.
    pub fn folder(&self, name: &OsStr) -> Result<Self> {
        let path = self.below(name)?;
        let is_new = match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(e) => return Err(failed(&path, e.into())),
        };
        match rustix::fs::openat(&self.fd, name, FOLDER | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path, is_new }),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let message = format!("{} is there already, and no directory", shown(&path));
                Err(Error::invalid(message).with_condition(Condition::Output))
            }
            Err(e) => Err(failed(&path, e.into())),
        }
    }

    /// Refuses a name that is taken, and may not be replaced: only a regular file or a link that is no input may.
    fn check(&self, name: &OsStr, path: &Path, existing: Existing, inputs: &Inputs) -> Result<()> {
        match rustix::fs::openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(failed(path, e.into())),
            Ok(_) if existing == Existing::Keep => Err(exists(path)),
            Ok(fd) => {
                let file = File::from(fd);
                let meta = file.metadata().map_err(|e| failed(path, e))?;
                if !meta.is_file() && !meta.is_symlink() {
                    let what = super::kind(&meta);
                    let message = format!("{} is {what}, and only a regular file is replaced", shown(path));
                    return Err(Error::invalid(message).with_condition(Condition::Output));
                }
                inputs.refuse_file(&file, &format!("the output {}", shown(path)))
            }
        }
    }

    /// Begins a file in it, with mode 0600 and a hidden name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where something has the name that may not be replaced, or is one of
    /// `inputs`; [`Io`](crate::ErrorKind::Io) where it cannot be made.
    pub fn file(&self, name: &OsStr, existing: Existing, inputs: &Inputs) -> Result<Part<'_>> {
        let path = self.below(name)?;
        self.check(name, &path, existing, inputs)?;
        let hidden = beside(&path, PART)?;
        let hidden_name = hidden.file_name().unwrap_or_default().to_owned();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&self.fd, &hidden_name, flags, Mode::RUSR | Mode::WUSR);
        let file = match made {
            Ok(fd) => File::from(fd),
            // It may be left of a run that was killed, or be a file of that name that was copied: nobody knows.
            Err(Errno::EXIST) => return Err(in_the_way(&path, &hidden, "there already")),
            Err(e) => return Err(failed(&path, e.into())),
        };
        let name = name.to_owned();
        Ok(Part { folder: self, name, hidden: hidden_name, path, file, existing, len: 0, is_named: false })
    }

    /// Makes a symbolic link in it, which nothing here follows.
    ///
    /// # Errors
    /// As [`Folder::file`].
    pub fn link(&self, name: &OsStr, target: &OsStr, existing: Existing, inputs: &Inputs) -> Result<()> {
        let path = self.below(name)?;
        self.check(name, &path, existing, inputs)?;
        let hidden = beside(&path, PART)?;
        let hidden_name = hidden.file_name().unwrap_or_default();
        match rustix::fs::symlinkat(target, &self.fd, hidden_name) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(in_the_way(&path, &hidden, "there already")),
            Err(e) => return Err(failed(&path, e.into())),
        }
        self.rename(hidden_name, name, existing).map_err(|e| {
            let _ = rustix::fs::unlinkat(&self.fd, hidden_name, AtFlags::empty());
            named(&path, e)
        })
    }

    fn rename(&self, from: &OsStr, to: &OsStr, existing: Existing) -> std::result::Result<(), Errno> {
        let flags = match existing {
            Existing::Replace => RenameFlags::empty(),
            Existing::Keep => RenameFlags::NOREPLACE,
        };
        match rustix::fs::renameat_with(&self.fd, from, &self.fd, to, flags) {
            // Some file systems cannot rename without replacing; then the look before has to do.
            Err(Errno::INVAL) if rustix::fs::statat(&self.fd, to, AtFlags::SYMLINK_NOFOLLOW).is_err() => {
                rustix::fs::renameat(&self.fd, from, &self.fd, to)
            }
            other => other,
        }
    }

    /// Gives a directory that was made here its attributes: once all is in it, since they may forbid that.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot have them.
    pub fn finish(&self, attributes: Attributes) -> Result<()> {
        if self.is_new { set(&self.fd, &self.path, attributes) } else { Ok(()) }
    }

    /// Waits until all that was written to the file system of this directory is on its disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written.
    pub fn sync(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        let synced = rustix::fs::syncfs(&self.fd);
        #[cfg(not(target_os = "linux"))]
        let synced = rustix::fs::fsync(&self.fd);
        synced.map_err(|e| failed(&self.path, e.into()))
    }
}

fn named(path: &Path, e: Errno) -> Error {
    if e == Errno::EXIST { exists(path) } else { failed(path, e.into()) }
}

fn set(fd: impl AsFd, path: &Path, attributes: Attributes) -> Result<()> {
    if let Some(mode) = attributes.mode {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode & 0o777)).map_err(|e| failed(path, e.into()))?;
    }
    if let Some((seconds, nanos)) = attributes.modified {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanos.min(999_999_999).into() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(&fd, &times).map_err(|e| failed(path, e.into()))?;
    }
    Ok(())
}

/// A file that is written piece by piece, and has its name once it is whole. One that is dropped before leaves nothing
/// behind.
pub struct Part<'f> {
    folder: &'f Folder,
    name: OsString,
    hidden: OsString,
    path: PathBuf,
    file: File,
    existing: Existing,
    len: u64,
    is_named: bool,
}

impl Part<'_> {
    /// Writes what comes next; zeroes become a hole.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let is_hole = |block: &[u8]| block.iter().all(|byte| *byte == 0);
            let first = rest.chunks(HOLE).next().is_some_and(is_hole);
            let run = rest.chunks(HOLE).take_while(|block| is_hole(block) == first).count().saturating_mul(HOLE);
            let (now, later) = rest.split_at(run.min(rest.len()));
            if !first {
                self.file.write_all_at(now, self.len).map_err(|e| failed(&self.path, e).at(self.len))?;
            }
            self.len = self.len.saturating_add(to_u64(now.len()));
            rest = later;
        }
        Ok(())
    }

    /// Gives the file its attributes and its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written or named; [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// where somebody took the name meanwhile.
    pub fn finish(mut self, attributes: Attributes) -> Result<()> {
        let written = self.file.flush().and_then(|()| self.file.set_len(self.len));
        written.map_err(|e| failed(&self.path, e))?;
        set(&self.file, &self.path, attributes)?;
        self.folder.rename(&self.hidden, &self.name, self.existing).map_err(|e| named(&self.path, e))?;
        self.is_named = true;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.is_named {
            // Best effort: what is left behind does no harm.
            let _ = rustix::fs::unlinkat(&self.folder.fd, &self.hidden, AtFlags::empty());
        }
    }
}

/// Whether a path leads to a directory, through links.
pub fn is_folder(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn inputs() -> Inputs {
        Inputs::default()
    }

    #[test]
    fn a_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(&dir.path().join("new")).unwrap();
        let inner = folder.folder(OsStr::new("in")).unwrap();
        let mut part = inner.file(OsStr::new("a"), Existing::Keep, &inputs()).unwrap();
        part.write(b"one").unwrap();
        part.write(&[0; 100_000]).unwrap();
        assert!(!dir.path().join("new/in/a").exists());
        part.finish(Attributes { mode: Some(0o4755), modified: Some((1_000_000, 5)) }).unwrap();
        let path = dir.path().join("new/in/a");
        let meta = path.metadata().unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (100_003, 0o755));
        assert_eq!(
            meta.modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos(),
            1_000_000_000_000_005
        );
        drop(inner.file(OsStr::new("b"), Existing::Keep, &inputs()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("new/in")).unwrap().count(), 1);
        let e = inner.file(OsStr::new("a"), Existing::Keep, &inputs()).err().unwrap();
        assert!(e.to_string().contains("is there already"), "{e}");
        inner.file(OsStr::new("a"), Existing::Replace, &inputs()).unwrap().finish(Attributes::default()).unwrap();
        let meta = path.metadata().unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (0, 0o600));
        assert_eq!(dir.path().join("new/in").metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    }

    #[test]
    fn nothing_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("precious"), "theirs").unwrap();
        symlink(&outside, inside.join("dir")).unwrap();
        symlink(outside.join("precious"), inside.join("file")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        for name in ["..", ".", "", "a/b", "../outside/x", "/etc/x"] {
            assert!(folder.folder(OsStr::new(name)).is_err(), "{name}");
            assert!(folder.file(OsStr::new(name), Existing::Replace, &inputs()).is_err(), "{name}");
            assert!(folder.link(OsStr::new(name), OsStr::new("x"), Existing::Replace, &inputs()).is_err(), "{name}");
        }
        let said = folder.folder(OsStr::new("dir")).err().unwrap().to_string();
        assert!(said.contains("no directory"), "{said}");
        assert!(folder.file(OsStr::new("file"), Existing::Keep, &inputs()).is_err());
        let mut part = folder.file(OsStr::new("file"), Existing::Replace, &inputs()).unwrap();
        part.write(b"ours").unwrap();
        part.finish(Attributes::default()).unwrap();
        assert_eq!(std::fs::read(outside.join("precious")).unwrap(), b"theirs");
        assert_eq!(std::fs::read(inside.join("file")).unwrap(), b"ours");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn an_input_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        std::fs::write(&image, "the image").unwrap();
        let mut inputs = inputs();
        inputs.add(&File::open(&image).unwrap(), "image", crate::files::Role::Image).unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let e = folder.file(OsStr::new("image"), Existing::Replace, &inputs).err().unwrap();
        assert!(e.to_string().contains("the input itself"), "{e}");
        let e = folder.link(OsStr::new("image"), OsStr::new("x"), Existing::Replace, &inputs).err().unwrap();
        assert!(e.to_string().contains("the input itself"), "{e}");
        assert_eq!(std::fs::read(&image).unwrap(), b"the image");
    }
}
