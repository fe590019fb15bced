//! Paths that people type, and walks through directories, over any [`FileSystem`]: nothing that it says is believed.
//!
//! A link is followed here and not by the readers, and never leads out of its file system. A walk ends whatever leads back:
//! each directory is gone into once, by its number; where there are only likely numbers, one that is found above itself
//! several times, with the same names in it, is a circle, and there are no more directories than inodes. In an image that was
//! made all at once many directories have the same owner, size and time, and so one number.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::{Entry, FileKind, FileSystem, Metadata, fault_of_name, join, not_a};
use crate::error::{Error, Result, escape};
use crate::limits::{
    READER_DEPTH_MAX, READER_DIRECTORIES_MAX, READER_FILE_MAX, READER_HELD_MAX, READER_LINKS_MAX, READER_PIECE,
};
use crate::num::{at_most, to_u64};

/// So often a likely number is above itself before that is a circle.
const LIKELY: usize = 4;

/// Whether a link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is, as one before the end always is.
    Last,
    /// It is not.
    NotLast,
}

/// What a path leads to, with all links on the way followed: its own path without links, and what is there.
///
/// # Errors
/// As [`FileSystem::metadata`]; [`LimitExceeded`](crate::ErrorKind::LimitExceeded) for links without end.
pub fn resolve(fs: &mut dyn FileSystem, path: &[u8], follow: Follow) -> Result<(Vec<u8>, Metadata)> {
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').rev().filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    };
    // The next name is the last.
    let mut left = names(path);
    let mut here = vec![b"/".to_vec()];
    let mut metadata = fs.metadata(b"/")?;
    let mut links = 0usize;
    while let Some(name) = left.pop() {
        let above = here.last().cloned().unwrap_or_else(|| b"/".to_vec());
        match name.as_slice() {
            b"." => continue,
            b".." => {
                if here.len() > 1 {
                    here.pop();
                }
                let there = here.last().cloned().unwrap_or_else(|| b"/".to_vec());
                metadata = fs.metadata(&there)?;
                continue;
            }
            _ => {}
        }
        if !metadata.is_dir() {
            return Err(not_a("directory"));
        }
        if fault_of_name(&name).is_some() {
            return Err(super::absent());
        }
        let next = join(&above, &name)?;
        let found = fs.metadata(&next)?;
        if found.kind == FileKind::Link && (follow == Follow::Last || !left.is_empty()) {
            links = links.saturating_add(1);
            if links > READER_LINKS_MAX {
                let message = format!("it leads through more than {READER_LINKS_MAX} links");
                return Err(Error::limit("reader.links", message));
            }
            let target = fs.read_link(&next)?;
            if target.starts_with(b"/") {
                here.truncate(1);
                metadata = fs.metadata(b"/")?;
            }
            left.extend(names(&target));
            if left.len() > READER_DEPTH_MAX {
                let message = format!("it leads through more than {READER_DEPTH_MAX} names");
                return Err(Error::limit("reader.depth", message));
            }
            continue;
        }
        (metadata, here) = (found, [here, vec![next]].concat());
    }
    Ok((here.pop().unwrap_or_else(|| b"/".to_vec()), metadata))
}

/// The entries of a directory, by their names; and those with names that no file can have, as errors.
///
/// # Errors
/// As [`FileSystem::read_dir`].
pub fn list(fs: &mut dyn FileSystem, path: &[u8]) -> Result<(Vec<Entry>, Vec<Error>)> {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    fs.read_dir(path, &mut |entry| {
        match fault_of_name(&entry.name) {
            None => entries.push(entry),
            // A few tell as much as all.
            Some(_) if faults.len() >= 16 => {}
            Some(fault) => {
                let name = escape(&String::from_utf8_lossy(&entry.name));
                let message = format!("found the name \"{name}\" in it; {fault}");
                faults.push(Error::corrupt("reader.name", message));
            }
        }
        Ok(())
    })?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    // A directory has each name once. What comes a second time could replace what came first.
    entries.dedup_by(|a, b| {
        let is_same = a.name == b.name;
        if is_same && faults.len() < 16 {
            let name = escape(&String::from_utf8_lossy(&a.name));
            let message = format!("found the name \"{name}\" in it twice; once is allowed");
            faults.push(Error::corrupt("reader.name", message));
        }
        is_same
    });
    Ok((entries, faults))
}

/// Whether a walk goes into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// It does.
    Into,
    /// It goes on beside it.
    Past,
}

/// What is done on a walk.
pub trait Visitor {
    /// With each name; a directory's before those in it.
    ///
    /// # Errors
    /// Those that end the walk.
    fn visit(&mut self, fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend>;

    /// Behind all that is in a directory that was gone into.
    ///
    /// # Errors
    /// Those that end the walk.
    fn leave(&mut self, _path: &[u8]) -> Result<()> {
        Ok(())
    }

    /// With what cannot be read. The walk goes on.
    ///
    /// # Errors
    /// Those that end the walk.
    fn fault(&mut self, path: &[u8], e: Error) -> Result<()>;
}

struct Level {
    path: Vec<u8>,
    /// What stands for the directory and all that is in it, where its number is likely only.
    likeness: Option<u64>,
    entries: std::vec::IntoIter<Entry>,
}

/// A number for a directory and what is in it.
fn likeness(id: u64, entries: &[Entry]) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    for entry in entries {
        entry.name.hash(&mut hasher);
        if let Ok(metadata) = &entry.metadata {
            (metadata.is_dir(), metadata.size, metadata.modified, metadata.id).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Goes through all that is at and under a path, in the order of names.
///
/// # Errors
/// Those of `visitor`; and those of a reader that has ended.
pub fn walk(fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata, visitor: &mut dyn Visitor) -> Result<()> {
    let mut seen = HashSet::new();
    let mut levels: Vec<Level> = Vec::new();
    let (mut directories, mut held) = (0u64, 0usize);
    let most = fs.directories_max().unwrap_or(READER_DIRECTORIES_MAX).min(READER_DIRECTORIES_MAX);
    let mut next = Some((path.to_vec(), metadata.clone()));
    loop {
        if let Some((path, metadata)) = next.take()
            && visitor.visit(fs, &path, &metadata)? == Descend::Into
            && metadata.is_dir()
        {
            let is_circle = metadata.id.filter(|_| !metadata.is_likely).is_some_and(|id| !seen.insert(id));
            directories = directories.saturating_add(1);
            let circle = || {
                let message = "it is a directory that was gone into already, by another path".to_owned();
                Error::corrupt("reader.circle", message)
            };
            let fault = if is_circle {
                Some(circle())
            } else if levels.len() >= READER_DEPTH_MAX {
                let message = format!("it lies deeper than the {READER_DEPTH_MAX} directories that are allowed");
                Some(Error::limit("reader.depth", message))
            } else {
                None
            };
            if directories > most {
                let message = format!("found more than {most} directories, which is more than there can be");
                return Err(Error::corrupt("reader.circle", message));
            }
            let listed = fault.map_or_else(|| list(fs, &path), Err).and_then(|(entries, faults)| {
                let likeness = metadata.id.filter(|_| metadata.is_likely).map(|id| likeness(id, &entries));
                let above = levels.iter().filter(|level| likeness.is_some() && level.likeness == likeness).count();
                if above >= LIKELY { Err(circle()) } else { Ok((entries, faults, likeness)) }
            });
            match listed {
                Ok((entries, faults, likeness)) => {
                    for e in faults {
                        visitor.fault(&path, e)?;
                    }
                    held = held.saturating_add(entries.len());
                    if held > READER_HELD_MAX {
                        let message = format!("found more than {READER_HELD_MAX} names in directories in each other");
                        return Err(Error::limit("reader.held", message));
                    }
                    levels.push(Level { path, likeness, entries: entries.into_iter() });
                }
                Err(e) => {
                    visitor.fault(&path, e)?;
                    visitor.leave(&path)?;
                }
            }
        }
        let Some(level) = levels.last_mut() else { return Ok(()) };
        match level.entries.next() {
            None => {
                let path = std::mem::take(&mut level.path);
                levels.pop();
                visitor.leave(&path)?;
            }
            Some(entry) => {
                held = held.saturating_sub(1);
                match (join(&level.path, &entry.name), entry.metadata) {
                    (Ok(path), Ok(metadata)) => next = Some((path, metadata)),
                    (Ok(path), Err(why)) => {
                        visitor.fault(&path, Error::corrupt("reader.entry", escape(&why)))?;
                    }
                    (Err(e), _) => {
                        let path = level.path.clone();
                        visitor.fault(&path, e)?;
                    }
                }
            }
        }
    }
}

/// Gives `take` the bytes of a regular file, piece by piece, and says how many there were.
///
/// # Errors
/// As [`FileSystem::read_at`]; [`LimitExceeded`](crate::ErrorKind::LimitExceeded) where it is longer than is believed;
/// [`Corrupt`](crate::ErrorKind::Corrupt) where it ends before its length; and those of `take`.
pub fn read(
    fs: &mut dyn FileSystem,
    path: &[u8],
    metadata: &Metadata,
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<u64> {
    if metadata.kind != FileKind::File {
        return Err(not_a("regular file"));
    }
    if metadata.size > READER_FILE_MAX {
        let message = format!("found a file of {} bytes; {READER_FILE_MAX} are allowed", metadata.size);
        return Err(Error::limit("reader.file", message));
    }
    let mut buf = vec![0; at_most(metadata.size, READER_PIECE)];
    let mut at = 0u64;
    while at < metadata.size {
        let wanted = at_most(metadata.size.saturating_sub(at), buf.len());
        let n = fs.read_at(path, at, &mut buf[..wanted])?;
        if n == 0 {
            let message = format!("found {at} bytes; {} are its length", metadata.size);
            return Err(Error::corrupt("reader.short", message));
        }
        take(&buf[..n])?;
        at = at.saturating_add(to_u64(n));
    }
    Ok(at)
}
