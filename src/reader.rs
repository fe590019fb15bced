//! Reads files out of the file systems in a plaintext, or in any other disk: no mount, no kernel, no root.
//!
//! ```text
//! disk: ReadAt ─► volumes ─► Volume ─► open ─► FileSystem: metadata, read_dir, read_at, read_link, xattrs
//!                 /          its disk    │
//!                 /2, /vg/root           └──── wire::serve ◄── two pipes ──► wire::Remote: FileSystem ─► walk
//!                                              in a process of its own       with whoever has the key
//! ```
//!
//! The parsers are kept crates but for ext, each behind a feature and pinned, and none of them is trusted: what they read is metered
//! (`disk`), they run in a process that has nothing but positioned reads ([`wire`]), and what they say is
//! checked again where it arrives ([`walk`]). A journal is replayed in memory, as far as its crate does it.
//!
//! | file system | crate | what it does not tell |
//! |---|---|---|
//! | ext2, ext3, ext4 | none, but what [`inside`](crate::inside) knows: see `ext` | |
//! | XFS | `lamxfs`: version 5's log is replayed | owners and times |
//! | btrfs | `lambutter`: from the top level, subvolumes are directories | times; data checksums are not verified |
//! | FAT12, FAT16, FAT32 | `lamfat` | owners, modes |
//! | exFAT | `lamexfat` | times, owners, modes |
//! | NTFS | `ntfs-core`: compressed files, too | owners, modes, links |
//!
//! Extended attributes are those of ext alone, for none of the crates gives them. Of all others a name is known
//! ([`inside`](crate::inside)), and their files are not read. For two of them no crate was good enough: of SquashFS `backhand`
//! reads all tables into memory as it opens, and brings the C libraries of xz and zstd into the process that is to hold hostile
//! bytes; of ISO 9660 `iso9660` and `cdfs` have no Rock Ridge or bring a program's dependencies, and `hadris-iso` has no
//! release that is not a candidate.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

#[cfg(feature = "read-btrfs")]
mod btrfs;
mod disk;
#[cfg(feature = "read-exfat")]
mod exfat;
#[cfg(feature = "read-ext")]
mod ext;
#[cfg(feature = "read-fat")]
mod fat;
#[cfg(any(feature = "read-btrfs", feature = "read-ntfs", feature = "read-xfs"))]
mod known;
#[cfg(feature = "read-ntfs")]
mod ntfs;
#[cfg(test)]
mod tests;
pub mod volumes;
pub mod walk;
pub mod wire;
#[cfg(feature = "read-xfs")]
mod xfs;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Condition, Error, Result, escape};
use crate::inside::Kind;
use crate::io::ReadAt;
use crate::limits::{READER_NAME_MAX, READER_PATH_MAX};

/// What a name in a directory leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a FIFO or a socket.
    Special,
}

/// What a file system says of a file. What it does not say, or its reader does not, is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its permissions: the low twelve bits of its mode.
    pub mode: Option<u32>,
    /// Its owner's number.
    pub uid: Option<u32>,
    /// Its group's number.
    pub gid: Option<u32>,
    /// When its contents were last changed: seconds since 1970, and nanoseconds. FAT's are local time, taken as UTC.
    pub modified: Option<(i64, u32)>,
    /// How many names it has.
    pub links: Option<u32>,
    /// A number that no other directory of the file system has.
    pub id: Option<u64>,
}

impl Metadata {
    fn new(kind: FileKind, size: u64) -> Self {
        let (mode, uid, gid, modified, links, id) = (None, None, None, None, None, None);
        Self { kind, size, mode, uid, gid, modified, links, id }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xattr {
    /// Its name, with what it begins with: `user.`, `security.` and so on. ACLs are `system.posix_acl_access` and
    /// `system.posix_acl_default`, and their values as the file system has them.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The name as the file system has it, in bytes that need not be UTF-8; as UTF-8 where its names are Unicode.
    pub name: Vec<u8>,
    /// What it leads to, or why that cannot be read.
    pub metadata: std::result::Result<Metadata, String>,
}

#[cfg(any(feature = "read-exfat", feature = "read-fat"))]
/// The directory that a path's last name is in, and that name; nothing for the root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    let (dir, name) = (path.get(..at)?, path.get(at.checked_add(1)?..)?);
    (!name.is_empty()).then_some((if dir.is_empty() { b"/" } else { dir }, name))
}

/// The files of one file system, by their paths: bytes that begin with a slash, with no link before their last name, and
/// neither `.` nor `..` in them. [`walk::resolve`] makes one of what people type.
pub trait FileSystem {
    /// What a path leads to; a link is not followed.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where there is nothing of that name, as [`is_absent`] tells;
    /// [`Corrupt`](crate::ErrorKind::Corrupt), [`Unsupported`](crate::ErrorKind::Unsupported) and
    /// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for what the reader makes of it;
    /// [`Io`](crate::ErrorKind::Io) where the disk cannot be read.
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata>;

    /// Gives `take` the entries of a directory, in the order in which they lie, without `.` and `..`.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`], where the path is no directory, and those of `take`.
    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()>;

    /// Fills `buf` with bytes of a regular file from `offset` on, and says how many there were; none behind its end.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`], and where the path is no regular file.
    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`], and where the path is no link.
    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>>;

    /// The extended attributes of a path, ACLs and capabilities among them; a link is not followed.
    ///
    /// # Errors
    /// As [`FileSystem::metadata`]; [`Unsupported`](crate::ErrorKind::Unsupported) with the rule `reader.xattr` where the
    /// reader of this file system does not give them.
    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Xattr>> {
        check_path(path)?;
        Err(Error::unsupported("reader.xattr", "extended attributes of this file system are not read"))
    }

    /// The most directories that there can be, where that is known.
    fn directories_max(&mut self) -> Option<u64> {
        None
    }
}

/// Whether files of such contents are read by this build.
pub fn is_read(kind: Kind) -> bool {
    // Features make it less than one pattern.
    #[allow(clippy::match_like_matches_macro)]
    match kind {
        Kind::Ext2 | Kind::Ext3 | Kind::Ext4 => cfg!(feature = "read-ext"),
        Kind::Xfs => cfg!(feature = "read-xfs"),
        Kind::Btrfs => cfg!(feature = "read-btrfs"),
        Kind::Fat12 | Kind::Fat16 | Kind::Fat32 => cfg!(feature = "read-fat"),
        Kind::Exfat => cfg!(feature = "read-exfat"),
        Kind::Ntfs => cfg!(feature = "read-ntfs"),
        _ => false,
    }
}

/// Opens the file system on a disk, in this process: [`wire`] has it in another.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) where `kind` is nothing whose files are read, and for features that the
/// reader does not know; the others as [`FileSystem::metadata`].
pub fn open(kind: Kind, disk: Arc<dyn ReadAt>) -> Result<Box<dyn FileSystem>> {
    match kind {
        #[cfg(feature = "read-ext")]
        Kind::Ext2 | Kind::Ext3 | Kind::Ext4 => Ok(Box::new(ext::Ext::open(disk)?)),
        #[cfg(feature = "read-xfs")]
        Kind::Xfs => Ok(Box::new(xfs::XfsReader::open(disk)?)),
        #[cfg(feature = "read-btrfs")]
        Kind::Btrfs => Ok(Box::new(btrfs::BtrfsReader::open(disk)?)),
        #[cfg(feature = "read-fat")]
        Kind::Fat12 | Kind::Fat16 | Kind::Fat32 => Ok(Box::new(fat::Fat::open(disk)?)),
        #[cfg(feature = "read-exfat")]
        Kind::Exfat => Ok(Box::new(exfat::ExfatReader::open(disk)?)),
        #[cfg(feature = "read-ntfs")]
        Kind::Ntfs => Ok(Box::new(ntfs::Ntfs::open(disk)?)),
        _ => Err(not_read(kind)),
    }
}

/// What is said of contents whose files are not read.
pub fn not_read(kind: Kind) -> Error {
    let message = match kind {
        Kind::Unknown => "found nothing that is known; a file system whose files can be read is wanted".to_owned(),
        Kind::Other(name) => format!("found {name}, which is no file system"),
        kind => format!("found {kind}, which is recognised, but files in it are not read"),
    };
    Error::unsupported("reader.kind", message)
}

/// The error where there is nothing of that name. Whoever asked knows the path, and so do its messages.
fn absent() -> Error {
    Error::invalid("there is no such file or directory").with_rule("reader.absent").with_condition(Condition::Absent)
}

fn not_a(what: &str) -> Error {
    Error::invalid(format!("it is no {what}")).with_rule("reader.kind-of-file")
}

/// Refuses what is no link, and one whose target would be longer than any is: the crates make room for as many bytes as
/// the inode says.
#[cfg(any(feature = "read-btrfs", feature = "read-ext", feature = "read-xfs"))]
fn check_link(meta: &Metadata) -> Result<()> {
    if meta.kind != FileKind::Link {
        return Err(not_a("link"));
    }
    let most = crate::num::to_u64(crate::limits::READER_LINK_MAX);
    if meta.size > most {
        let message = format!("found a link of {} bytes; {most} are allowed", meta.size);
        return Err(Error::limit("reader.link", message));
    }
    Ok(())
}

/// Whether an error says that there is nothing of that name.
pub fn is_absent(e: &Error) -> bool {
    e.is(Condition::Absent)
}

/// A path of an image as messages show it.
pub fn shown(path: &[u8]) -> String {
    crate::error::shown(Path::new(OsStr::from_bytes(path)))
}

/// Why no file can have this name, if none can.
pub fn fault_of_name(name: &[u8]) -> Option<&'static str> {
    match name {
        [] => Some("it is empty"),
        b"." | b".." => Some("it leads elsewhere"),
        name if name.contains(&b'/') => Some("a slash is in it"),
        name if name.contains(&0) => Some("a NUL is in it"),
        name if name.len() > READER_NAME_MAX => Some("it is too long"),
        _ => None,
    }
}

/// The path of a name in a directory.
///
/// # Errors
/// [`Corrupt`](crate::ErrorKind::Corrupt) for a name that no file can have;
/// [`LimitExceeded`](crate::ErrorKind::LimitExceeded) where the path would be too long.
pub fn join(dir: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    if let Some(fault) = fault_of_name(name) {
        let found = escape(&String::from_utf8_lossy(name));
        let message = format!("found the name \"{found}\" in {}; {fault}", shown(dir));
        return Err(Error::corrupt("reader.name", message));
    }
    let separator: &[u8] = if dir.ends_with(b"/") { b"" } else { b"/" };
    let path = [dir, separator, name].concat();
    check_path(&path)?;
    Ok(path)
}

/// Refuses what is too long for the readers, or would make one of them panic.
fn check_path(path: &[u8]) -> Result<()> {
    if path.len() > READER_PATH_MAX {
        let message = format!("found a path of {} bytes; {READER_PATH_MAX} are allowed", path.len());
        return Err(Error::limit("reader.path", message));
    }
    let mut names = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/');
    if !path.starts_with(b"/") || path != b"/" && names.any(|name| fault_of_name(name).is_some()) {
        return Err(Error::invalid(format!("{} is no path", shown(path))).with_rule("reader.path"));
    }
    Ok(())
}

/// The kind and the permissions of a mode as Unix has it.
#[cfg(any(feature = "read-btrfs", feature = "read-ext", feature = "read-xfs"))]
fn of_mode(mode: u32) -> (FileKind, u32) {
    let kind = match mode & 0o170_000 {
        0o100_000 => FileKind::File,
        0o040_000 => FileKind::Directory,
        0o120_000 => FileKind::Link,
        _ => FileKind::Special,
    };
    (kind, mode & 0o7777)
}
