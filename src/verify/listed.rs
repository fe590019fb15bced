//! Files in the contents, held against hashes that somebody recorded: those of a manifest, and of the image's own package
//! databases ([`packages`](super::packages)).
//!
//! What a manifest lists and is not there, or is another, restoring would not bring back: an error. A file that this program
//! cannot read says nothing of the image, and is a warning, unless it is the image that is damaged. The manifest's own hash
//! goes into the report: it is evidence.

use std::collections::HashSet;
use std::sync::Arc;

use super::counts::{FilesUsed, PackagesUsed};
use super::hashing::{Count, Finder, Key, Meter, is_damage, key};
use super::judge::Findings;
use super::manifest::{Listed, Manifest};
use super::packages;
use super::report::{Finding, Severity};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::inside::Kind;
use crate::io::ReadAt;
use crate::num::to_u64;
use crate::progress::Progress;
use crate::reader::volumes::{Volume, Volumes};
use crate::reader::walk::Follow;
use crate::reader::{FileKind, FileSystem, is_absent, is_read, not_read, shown};

/// Opens a file system: in a process of its own, where there is a sandbox.
pub type OpenFiles = Arc<dyn Fn(Arc<dyn ReadAt>, Kind) -> Result<Box<dyn FileSystem>> + Send + Sync>;

/// Which files are held against what.
#[derive(Clone)]
pub struct FileProof {
    /// Opens the file systems.
    pub open: OpenFiles,
    /// Hashes that files must have.
    pub manifest: Option<Arc<Manifest>>,
    /// Whether package databases in the image are read, and files held against them.
    pub packages: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Proven {
    pub files: Option<FilesUsed>,
    pub packages: Option<PackagesUsed>,
}

/// Looks into all volumes of a plaintext.
///
/// # Errors
/// [`ErrorKind::Cancelled`]; none for what is wrong with the image.
pub fn prove(
    wanted: &FileProof,
    disk: Arc<dyn ReadAt>,
    findings: &mut Findings,
    progress: &Progress,
) -> Result<Proven> {
    let mut meter = Meter::new(disk.len(), progress);
    let manifest = wanted.manifest.as_deref();
    let mut work = Work {
        manifest,
        used: manifest.map(|m| FilesUsed {
            sha256: m.sha256.clone(),
            lines: to_u64(m.lines.len()),
            not_listed: Some(0),
            not_listed_bytes: Some(0),
            ..FilesUsed::default()
        }),
        packages: wanted.packages.then(|| PackagesUsed {
            not_proven: Some(0),
            not_proven_bytes: Some(0),
            ..PackagesUsed::default()
        }),
        findings,
        listed: HashSet::new(),
        proven: HashSet::new(),
    };
    let volumes = match Volumes::list(disk) {
        Ok(volumes) => volumes,
        Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
        Err(e) => {
            let message = format!("no file of the contents could be looked for: {}", e.message());
            work.findings.add(Finding::new(Severity::Error, "contents.files.unread", "contents", message));
            work.not_whole();
            Volumes::default()
        }
    };
    for volume in &volumes.all {
        work.volume(wanted, &volumes, volume, &mut meter)?;
    }
    work.of_no_volume(&volumes);
    if work.packages.as_ref().is_some_and(|used| used.databases.is_empty()) {
        let message = "no package database was found in the contents".to_owned();
        work.findings.add(Finding::new(Severity::Note, "contents.packages.none", "contents", message));
    }
    Ok(Proven { files: work.used, packages: work.packages })
}

/// What goes from volume to volume.
struct Work<'a> {
    manifest: Option<&'a Manifest>,
    used: Option<FilesUsed>,
    packages: Option<PackagesUsed>,
    findings: &'a mut Findings,
    /// Files that the manifest names, and those that a package database proves, from the image's root.
    listed: HashSet<Key>,
    proven: HashSet<Key>,
}

impl Work<'_> {
    fn volume(&mut self, wanted: &FileProof, volumes: &Volumes, volume: &Volume, meter: &mut Meter<'_>) -> Result<()> {
        let own = |line: &&Listed| volumes.find(&line.path).is_some_and(|(found, _)| std::ptr::eq(found, volume));
        let lines: Vec<&Listed> = self.manifest.into_iter().flat_map(|m| &m.lines).filter(own).collect();
        let opened = if is_read(volume.kind) {
            (wanted.open)(Arc::clone(&volume.disk), volume.kind)
        } else {
            Err(not_read(volume.kind))
        };
        let mut fs = match opened {
            Ok(fs) => fs,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                if !has_no_files(volume.kind) {
                    self.not_whole();
                }
                lines.into_iter().for_each(|line| self.unread(line, &e));
                return Ok(());
            }
        };
        let prefix = volume.path.strip_suffix(b"/").unwrap_or(&volume.path);
        let mut finder = Finder::default();
        for line in lines {
            self.line(&mut *fs, &mut finder, prefix, line, meter)?;
        }
        if let Some(used) = &mut self.packages {
            packages::prove(&mut *fs, prefix, used, self.findings, &mut self.proven, meter)?;
        }
        self.beside(&mut *fs, prefix, meter)
    }

    /// One line of the manifest.
    fn line(
        &mut self,
        fs: &mut dyn FileSystem,
        finder: &mut Finder,
        prefix: &[u8],
        line: &Listed,
        meter: &mut Meter<'_>,
    ) -> Result<()> {
        let path = line.path.strip_prefix(prefix).filter(|path| !path.is_empty()).unwrap_or(b"/");
        let (own, metadata) = match finder.find(fs, path, Follow::Last) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            // A file may be where a directory was.
            Err(e) if is_absent(&e) || e.rule() == "reader.kind-of-file" => {
                self.missing(line, "nothing", "there is no such file");
                return Ok(());
            }
            Err(e) => {
                self.unread(line, &e);
                return Ok(());
            }
        };
        if metadata.kind != FileKind::File {
            let (found, why) = match metadata.kind {
                FileKind::Directory => ("a directory", "it is a directory"),
                _ => ("no regular file", "it is no regular file"),
            };
            self.missing(line, found, why);
            return Ok(());
        }
        self.listed.insert(key(&[prefix, &own].concat()));
        match meter.hash(fs, &own, &metadata, line.algorithm) {
            Ok(hex) if hex == line.hex => {
                if let Some(used) = &mut self.used {
                    used.matched = used.matched.saturating_add(1);
                    used.matched_bytes = used.matched_bytes.saturating_add(metadata.size);
                }
            }
            Ok(hex) => {
                let name = line.algorithm.name();
                let message = format!("{}: its {name} is {hex}; by the manifest it is {}", shown(&line.path), line.hex);
                self.add(Severity::Error, "contents.files.differs", line, message, &hex);
                self.used.iter_mut().for_each(|used| used.differing = used.differing.saturating_add(1));
            }
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => self.unread(line, &e),
        }
        Ok(())
    }

    /// What is in no volume.
    fn of_no_volume(&mut self, volumes: &Volumes) {
        let names: Vec<String> = volumes.all.iter().take(16).map(|volume| shown(&volume.path)).collect();
        let why = match names.as_slice() {
            [] => "no file system was found".to_owned(),
            names => format!("there is no such volume; a path begins with one of these: {}", names.join(", ")),
        };
        let manifest = self.manifest;
        let lines = manifest.into_iter().flat_map(|manifest| &manifest.lines);
        for line in lines.filter(|line| volumes.find(&line.path).is_none()) {
            self.missing(line, "nothing", &why);
        }
    }

    fn missing(&mut self, line: &Listed, found: &str, why: &str) {
        let message = format!("{}: {why}; the manifest lists it", shown(&line.path));
        self.add(Severity::Error, "contents.files.missing", line, message, found);
        self.used.iter_mut().for_each(|used| used.missing = used.missing.saturating_add(1));
    }

    fn unread(&mut self, line: &Listed, e: &Error) {
        let severity = if is_damage(e) { Severity::Error } else { Severity::Warning };
        let message = format!("{}: it could not be read: {}", shown(&line.path), e.message());
        self.add(severity, "contents.files.unread", line, message, e.message());
        self.used.iter_mut().for_each(|used| used.unread = used.unread.saturating_add(1));
    }

    fn add(&mut self, severity: Severity, code: &str, line: &Listed, message: String, found: &str) {
        let mut finding = Finding::new(severity, code, "file", message).says(escape(found), &line.hex);
        finding.path = Some(String::from_utf8_lossy(&line.path).into_owned());
        self.findings.add_one_of_many(finding);
    }

    /// Counts what nothing names.
    fn beside(&mut self, fs: &mut dyn FileSystem, prefix: &[u8], meter: &mut Meter<'_>) -> Result<()> {
        let sets = [&self.listed, &self.proven];
        let counts = match Count::of(fs, prefix, &sets, meter) {
            Ok(counts) => counts,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                self.not_whole();
                let message = format!("not all files could be counted: {}", e.message());
                self.findings.add_one_of_many(Finding::new(
                    Severity::Note,
                    "contents.files.uncounted",
                    "directory",
                    message,
                ));
                return Ok(());
            }
        };
        let add = |to: &mut Option<u64>, more: u64| *to = to.map(|n| n.saturating_add(more));
        if let (Some(used), Some((files, bytes))) = (&mut self.used, counts.first()) {
            add(&mut used.not_listed, *files);
            add(&mut used.not_listed_bytes, *bytes);
        }
        if let (Some(used), Some((files, bytes))) = (&mut self.packages, counts.get(1)) {
            add(&mut used.not_proven, *files);
            add(&mut used.not_proven_bytes, *bytes);
        }
        Ok(())
    }

    /// Not all files are known.
    fn not_whole(&mut self) {
        if let Some(used) = &mut self.used {
            (used.not_listed, used.not_listed_bytes) = (None, None);
        }
        if let Some(used) = &mut self.packages {
            (used.not_proven, used.not_proven_bytes) = (None, None);
        }
    }
}

/// Whether what is recognised has no files at all.
fn has_no_files(kind: Kind) -> bool {
    matches!(kind, Kind::Unknown | Kind::Other(_) | Kind::Swap | Kind::Hibernation | Kind::ExtJournal)
}
