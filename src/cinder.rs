//! Backups of Cinder's backup service, as their objects lie in a directory: on a posix, NFS or GlusterFS share, or as they
//! come out of Swift, S3 or GCS.
//!
//! ```text
//! PREFIX-00001 … PREFIX-NNNNN   data: a part of the volume, as it is or compressed (`unpack`)
//! PREFIX_metadata               JSON: which parts they are, and of which backup this is an increment (`metadata`)
//! PREFIX_sha256file             JSON: a hash of each block of the whole volume (`check`)
//!
//! directory ─► Tree: what backups there are, and whether they are complete
//!                └► Chain: a full backup and its increments laid over each other, as `ReadAt`
//!                     └► check: the MD5 of each object, the SHA-256 of each block
//! ```
//!
//! PREFIX is `volume_VOLUME_TIME_backup_ID` on a share, and `volume_VOLUME/TIME/az_AZ_backup_ID` in an object store, whose
//! slashes a download makes folders of. Objects lie beside their metadata however deep that is: only the last part of a
//! name counts, so that no name leads out of the folder. A metadata file is read as a stream, and twice: once for the list
//! of backups, which keeps no object of any, and once for the chain that is opened.
//!
//! Source: openstack/cinder (2026.1), `cinder/backup/chunkeddriver.py` and `cinder/backup/drivers/*.py`. Cinder's own
//! restore compares neither MD5 nor SHA-256.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod chain;
mod check;
mod metadata;
mod stream;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, choice, counted, escape, shown};
use crate::limits::{CINDER_CHAIN_MAX, CINDER_DEPTH_MAX, CINDER_NAMES_MAX};

pub use chain::Chain;
pub use check::Checked;

/// A backup in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// The volume's id.
    pub volume: String,
    /// The volume's name, where the backup tells it.
    pub volume_name: Option<String>,
    /// When it was made, as Cinder wrote it.
    pub created_at: String,
    /// The backup that it is an increment of; `None` for a full one.
    pub parent: Option<String>,
    /// How many data objects it has.
    pub objects: u64,
    /// The bytes of the volume that its objects hold.
    pub bytes: u64,
    /// Why it cannot be opened; `None` where all that it needs is there.
    pub problem: Option<String>,
    /// Its files' names up to `-00001` and `_metadata`.
    #[cfg_attr(feature = "serde", serde(skip))]
    prefix: PathBuf,
    /// The part of `problem` that is its own, and not that of a backup below it.
    #[cfg_attr(feature = "serde", serde(skip))]
    own: Option<String>,
}

/// The backups in a directory.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// In the order of their times.
    backups: Vec<Backup>,
    /// Where each is, by its id.
    places: BTreeMap<String, usize>,
}

/// The names in a directory that belong to backups.
#[derive(Default)]
struct Names {
    /// Prefixes that have metadata.
    complete: BTreeSet<PathBuf>,
    /// Prefixes of data objects.
    data: BTreeSet<PathBuf>,
    looked_at: usize,
}

impl Names {
    fn walk(&mut self, dir: &Path, depth: usize) -> Result<()> {
        if depth > CINDER_DEPTH_MAX {
            return Err(limit(format!("{} is deeper than {CINDER_DEPTH_MAX} folders", shown(dir))));
        }
        let failed = |e| Error::io(format!("reading the directory {}", shown(dir)), e);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            self.looked_at = self.looked_at.saturating_add(1);
            if self.looked_at > CINDER_NAMES_MAX {
                return Err(limit(format!("there are more than {CINDER_NAMES_MAX} names in the directory")));
            }
            // A link may lead out of the directory, or in a circle.
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                self.walk(&entry.path(), depth.saturating_add(1))?;
            } else if kind.is_file()
                && let Some(name) = entry.file_name().to_str()
            {
                match part_of(name) {
                    Some((prefix, Part::Metadata)) => drop(self.complete.insert(dir.join(prefix))),
                    Some((prefix, Part::Data)) => drop(self.data.insert(dir.join(prefix))),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn limit(message: String) -> Error {
    Error::limit("cinder.tree", message)
}

/// What an object of a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Data,
    Metadata,
    Hashes,
}

/// The prefix of an object's name, without folders, and what it is.
fn part_of(name: &str) -> Option<(&str, Part)> {
    let (prefix, part) = if let Some(prefix) = name.strip_suffix("_metadata") {
        (prefix, Part::Metadata)
    } else if let Some(prefix) = name.strip_suffix("_sha256file") {
        (prefix, Part::Hashes)
    } else {
        let (prefix, number) = name.rsplit_once('-')?;
        let is_number = (5..=9).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        (prefix, is_number.then_some(Part::Data)?)
    };
    // `_backup_` and an id of 36 characters end it.
    let (_, id) = prefix.rsplit_once("_backup_")?;
    let is_id = id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_id.then_some((prefix, part))
}

/// Refuses a file that is one object of a backup: a part of a volume, that would be taken for the whole of it.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the rule `cinder.object`.
pub fn refuse_object(path: &Path) -> Result<()> {
    let part = path.file_name().and_then(|name| name.to_str()).and_then(part_of);
    let message = match part {
        None => return Ok(()),
        Some((_, Part::Data)) => "this is one object of a Cinder backup: a part of a volume, and no image",
        Some((_, Part::Metadata | Part::Hashes)) => "this is the description of a Cinder backup, and no image",
    };
    Err(Error::invalid(message).with_rule("cinder.object").with_hint("name the directory that all its objects lie in"))
}

/// Whether a directory holds objects of backups.
pub fn is_tree(root: &Path) -> bool {
    let mut names = Names::default();
    // A directory that is too large is one that has to be looked at.
    (names.walk(root, 0).is_err() && names.looked_at > CINDER_NAMES_MAX)
        || !(names.complete.is_empty() && names.data.is_empty())
}

impl Tree {
    /// Reads the descriptions of all backups in a directory. One that cannot be read is in the list, with its problem.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the directory cannot be read;
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where it is too large;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the rule `cinder.tree` where one backup lies there twice.
    pub fn open(root: &Path) -> Result<Self> {
        let mut names = Names::default();
        names.walk(root, 0)?;
        let mut backups: Vec<Backup> = names.complete.iter().map(|prefix| summary(prefix)).collect();
        let without = names.data.difference(&names.complete);
        backups.extend(without.map(|prefix| {
            let problem = "it has data and no metadata: Cinder had not finished it, or not all of it was copied";
            Backup { own: Some(problem.into()), ..unread(prefix) }
        }));
        backups.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
        let mut places = BTreeMap::new();
        for (at, backup) in backups.iter().enumerate() {
            if let Some(other) = places.insert(backup.id.clone(), at).and_then(|other| backups.get(other)) {
                let message = format!(
                    "the backup {} lies there twice: {} and {}",
                    escape(&backup.id),
                    shown(&other.prefix),
                    shown(&backup.prefix)
                );
                return Err(Error::corrupt("cinder.tree", message).with_hint("name a directory with one of them"));
            }
        }
        let mut tree = Self { root: root.to_owned(), backups, places };
        let problems: Vec<Option<String>> = (tree.backups.iter())
            .map(|backup| backup.own.clone().or_else(|| tree.ancestry(backup).err().map(|e| e.message().to_owned())))
            .collect();
        for (backup, problem) in tree.backups.iter_mut().zip(problems) {
            backup.problem = problem;
        }
        Ok(tree)
    }

    /// All backups, the oldest first.
    pub fn backups(&self) -> &[Backup] {
        &self.backups
    }

    /// The backup of that id; without one the newest that is complete, where all are of one volume.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the rule `cinder.backup` where none has the id, or
    /// there are several volumes' and none is named; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where none is
    /// complete.
    pub fn choose(&self, id: Option<&str>) -> Result<&Backup> {
        if let Some(id) = id {
            return self.find(id).ok_or_else(|| {
                let all: Vec<_> = self.backups.iter().take(16).map(|backup| escape(&backup.id)).collect();
                let message = format!("no backup here has the id \"{}\"; {}", escape(id), choice(&all));
                Error::invalid(message).with_rule("cinder.backup")
            });
        }
        let complete: Vec<&Backup> = self.backups.iter().filter(|backup| backup.problem.is_none()).collect();
        let volumes: BTreeSet<&str> = complete.iter().map(|backup| backup.volume.as_str()).collect();
        match (complete.last(), volumes.len()) {
            (Some(newest), 1) => Ok(newest),
            (Some(_), _) => {
                let of: Vec<_> = complete
                    .iter()
                    .rev()
                    .take(16)
                    .map(|b| format!("{} of volume {}", escape(&b.id), escape(&b.volume)))
                    .collect();
                let message = format!("there are backups of {}: {}", counted(volumes.len(), "volume"), of.join(", "));
                Err(Error::invalid(message).with_rule("cinder.backup").with_hint(crate::error::Hint::NameBackup))
            }
            (None, _) => {
                let why = self.backups.last().map_or_else(
                    || "there is none".to_owned(),
                    |newest| format!("{}: {}", escape(&newest.id), newest.problem.as_deref().unwrap_or_default()),
                );
                Err(Error::corrupt("cinder.backup", format!("no backup in {} is complete: {why}", shown(&self.root))))
            }
        }
    }

    fn find(&self, id: &str) -> Option<&Backup> {
        self.backups.get(*self.places.get(id)?)
    }

    /// The backup and all that it is an increment of, the full one first.
    fn ancestry<'a>(&'a self, backup: &'a Backup) -> Result<Vec<&'a Backup>> {
        let mut chain = vec![backup];
        let mut current = backup;
        while let Some(parent) = &current.parent {
            let wrong = |what: &str| {
                let message =
                    format!("the backup {} is an increment of {}, {what}", escape(&current.id), escape(parent));
                Error::corrupt("cinder.parent", message)
            };
            let next = self.find(parent).ok_or_else(|| {
                wrong("which is not here").with_hint("all backups of the chain are wanted, back to the full one")
            })?;
            if chain.iter().any(|before| before.id == next.id) {
                return Err(wrong("which is an increment of it: a circle").with_rule("cinder.cycle"));
            }
            if let Some(problem) = &next.own {
                return Err(wrong(&format!("which cannot be opened: {problem}")));
            }
            if next.volume != backup.volume {
                return Err(wrong("which is of another volume"));
            }
            if chain.len() >= CINDER_CHAIN_MAX {
                return Err(limit(format!("the chain has more than {CINDER_CHAIN_MAX} backups")));
            }
            chain.push(next);
            current = next;
        }
        chain.reverse();
        Ok(chain)
    }

    /// Opens a backup, with all that it is an increment of.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the rule `cinder.parent` or `cinder.cycle` where the chain
    /// is not whole, `cinder.missing-object` where a file is not there, `cinder.range` where parts overlap or leave a gap,
    /// `cinder.metadata` for a description that is none; otherwise as [`Tree::open`].
    pub fn chain(&self, backup: &Backup) -> Result<Chain> {
        let chain = self.ancestry(backup)?;
        Chain::open(chain.iter().map(|backup| backup.prefix.as_path()))
    }

    /// The files of a backup and of all that it is an increment of: what must not be an output.
    ///
    /// # Errors
    /// As [`Tree::chain`].
    pub fn folders(&self, backup: &Backup) -> Result<Vec<PathBuf>> {
        let folder = |backup: &&Backup| backup.prefix.parent().map(Path::to_owned);
        let mut all: Vec<PathBuf> = self.ancestry(backup)?.iter().filter_map(folder).collect();
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// What can be said of a backup by its name alone.
fn unread(prefix: &Path) -> Backup {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    let id = name.rsplit_once("_backup_").map_or("", |(_, id)| id).to_owned();
    Backup {
        id,
        volume: String::new(),
        volume_name: None,
        created_at: String::new(),
        parent: None,
        objects: 0,
        bytes: 0,
        problem: None,
        prefix: prefix.to_owned(),
        own: None,
    }
}

/// Reads a backup's description, and looks at its files.
fn summary(prefix: &Path) -> Backup {
    let (mut objects, mut bytes) = (0_u64, 0_u64);
    let read = metadata::read(prefix, &mut |object| {
        metadata::look_at(prefix, &object)?;
        objects = objects.saturating_add(1);
        bytes = bytes.saturating_add(object.length);
        Ok(())
    });
    match read {
        Ok(found) => Backup {
            id: found.id,
            volume: found.volume,
            volume_name: found.volume_name,
            created_at: found.created_at,
            parent: found.parent,
            objects,
            bytes,
            ..unread(prefix)
        },
        Err(e) => Backup { own: Some(e.message().to_owned()), ..unread(prefix) },
    }
}

/// A name with something behind it: `PREFIX` and `_metadata`.
fn with_end(prefix: &Path, end: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests;
