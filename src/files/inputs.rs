//! The files that were opened to be read: none of them is ever written.

use std::fs::{File, Metadata};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::devices::{Id, Sysfs};
use crate::error::{Condition, Error, Result, shown};

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The image, or one of the files that it lies in.
    Image,
    /// A detached header.
    Header,
    /// A key.
    Key,
    /// The description of a backup.
    Description,
    /// What an image is compared with.
    Compared,
    /// What of an image could be read.
    Map,
    /// What an image must be like.
    Policy,
    /// The hashes that files of an image must have.
    Manifest,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Image => "the image",
            Self::Header => "the header",
            Self::Key => "the key",
            Self::Description => "the description",
            Self::Compared => "what is compared with",
            Self::Map => "the map of the image",
            Self::Policy => "the policy",
            Self::Manifest => "the manifest",
        }
    }
}

/// All files that a run reads, by what they are and not by what they are called.
#[derive(Debug, Default)]
pub struct Inputs {
    all: Vec<Input>,
    sysfs: Sysfs,
}

#[derive(Debug)]
struct Input {
    id: Id,
    role: Role,
    name: String,
    stamp: Stamp,
}

/// By what it shows that a file was changed.
pub(crate) type Stamp = (u64, i128);

impl Inputs {
    /// Takes note of a file that was opened; `name` is what messages call it. What cannot be overwritten, such as a pipe
    /// or a terminal, is nothing to take note of.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where the file's attributes cannot be read.
    pub fn add(&mut self, file: &File, name: impl Into<String>, role: Role) -> Result<()> {
        let name = name.into();
        let looking = |e| Error::io(format!("looking at {name}"), e);
        let meta = file.metadata().map_err(looking)?;
        let Some(id) = Id::of(&meta) else { return Ok(()) };
        let len = match id {
            Id::File { .. } => meta.len(),
            // Positioned reads do not mind where the file's own position is.
            Id::Block(_) => (&*file).seek(SeekFrom::End(0)).map_err(looking)?,
        };
        let mtime = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        self.all.push(Input { id, role, name, stamp: (len, mtime) });
        Ok(())
    }

    /// Takes note of a file that will be opened by its name, also through links. One that is not there is left to
    /// whoever opens it.
    pub fn add_path(&mut self, path: &Path, role: Role) {
        let Some((meta, id)) = std::fs::metadata(path).ok().and_then(|meta| Id::of(&meta).map(|id| (meta, id))) else {
            return;
        };
        self.all.push(Input { id, role, name: shown(path), stamp: (meta.len(), 0) });
    }

    /// Refuses a name of something to write that leads to an input: through links, `/proc/self/fd`, a loop device, a
    /// partition of the disk, the disk of a partition, or a device that is mapped onto it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where it does; [`Io`](crate::ErrorKind::Io) where the name
    /// cannot be looked at.
    pub fn refuse(&self, path: &Path) -> Result<()> {
        match std::fs::metadata(path) {
            Ok(meta) => self.refuse_meta(&meta, &format!("the output {}", shown(path))),
            // It is nothing yet, or cannot be: whoever makes it finds out.
            Err(e) if is_absent(&e) => Ok(()),
            Err(e) => Err(Error::io(format!("looking at {}", shown(path)), e).with_condition(Condition::Output)),
        }
    }

    /// Refuses a file that is open for writing, where it is an input; `what` is what messages call it.
    ///
    /// # Errors
    /// As [`Inputs::refuse`].
    pub fn refuse_file(&self, file: &File, what: &str) -> Result<()> {
        let meta = file.metadata().map_err(|e| Error::io(format!("looking at {what}"), e))?;
        self.refuse_meta(&meta, what)
    }

    fn refuse_meta(&self, meta: &Metadata, what: &str) -> Result<()> {
        let Some(id) = Id::of(meta) else { return Ok(()) };
        match self.all.iter().find(|input| self.sysfs.overlap(input.id, id)) {
            Some(Input { role, name, .. }) => {
                Err(Error::invalid(format!("{what} is the input itself: {} {name}", role.name()))
                    .with_condition(Condition::Output))
            }
            None => Ok(()),
        }
    }

    /// Of each file of the image and its header: its length, and when it was last changed, in nanoseconds since 1970.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        let of_image = |input: &&Input| matches!(input.role, Role::Image | Role::Header);
        self.all.iter().filter(of_image).map(|input| input.stamp).collect()
    }
}

fn is_absent(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, NotADirectory, NotFound, PermissionDenied};
    matches!(e.kind(), NotFound | NotADirectory | PermissionDenied | InvalidFilename)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_input_is_refused_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        let [key, hard, soft, other] = ["key", "hard", "soft", "other"].map(|name| dir.path().join(name));
        std::fs::write(&key, "secret").unwrap();
        std::fs::write(&other, "").unwrap();
        std::fs::hard_link(&key, &hard).unwrap();
        symlink("key", &soft).unwrap();
        let file = File::open(&key).unwrap();
        let fd = file.as_raw_fd();
        let mut inputs = Inputs::default();
        inputs.add(&file, "key", Role::Key).unwrap();
        for name in [&key, &hard, &soft, &format!("/proc/self/fd/{fd}").into(), &format!("/dev/fd/{fd}").into()] {
            let said = inputs.refuse(name).unwrap_err().to_string();
            assert!(said.contains("is the input itself: the key key"), "{said}");
        }
        inputs.refuse_file(&File::open(&hard).unwrap(), "it").unwrap_err();
        inputs.refuse(&other).unwrap();
        inputs.refuse(&dir.path().join("nothing")).unwrap();
        let mut by_name = Inputs::default();
        by_name.add_path(&soft, Role::Key);
        by_name.refuse(&hard).unwrap_err();
    }

    #[test]
    fn what_cannot_be_overwritten_is_no_input() {
        let mut inputs = Inputs::default();
        inputs.add(&File::open("/dev/null").unwrap(), "/dev/null", Role::Key).unwrap();
        inputs.refuse(Path::new("/dev/null")).unwrap();
    }
}
