//! The package databases in an image: each has the hashes that its files had when they were installed.
//!
//! | of | where | what has hashes | what is configuration |
//! |---|---|---|---|
//! | dpkg | `/var/lib/dpkg` | `info/*.md5sums`; `Conffiles` in `status` | what `Conffiles` names |
//! | apk | `/lib/apk/db/installed`, or under `/usr` | `Z:` lines: SHA-1, or SHA-256 | what lies in `/etc` |
//! | pacman | `/var/lib/pacman/local/*/mtree` | `sha256digest`, or `md5digest` | `%BACKUP%` in `files` |
//! | rpm | `/usr/lib/sysimage/rpm`, `/var/lib/rpm` | headers in SQLite, ndb or Berkeley DB | `%config`, and what is not to be verified |
//!
//! What differs is a warning and no error: an administrator may have changed it, and a database that lies in the image proves
//! nothing against whoever can write to both. A changed file of configuration is a note. Each is looked for at the root of a
//! file system, and in the subvolumes of btrfs that systems are installed in.
//!
//! Own readers, since no crate has them but those that need the packages' own programs.

mod apk;
mod dpkg;
mod pacman;
mod rpm;

use std::collections::HashSet;

use super::counts::{Database, PackagesUsed};
use super::hashing::{Finder, Key, Meter, is_damage, key};
use super::judge::Findings;
use super::report::{Finding, Severity};
use crate::decrypt::hash::Algorithm;
use crate::error::{Error, ErrorKind, Result, escape};
use crate::limits::VERIFY_PACKAGES_TEXT_MAX;
use crate::reader::walk::{Follow, list, resolve};
use crate::reader::{Entry, FileKind, FileSystem, Metadata, Xattr, is_absent, shown};

/// Where the root of a system may lie in a file system: at its own, and in subvolumes of Ubuntu and Arch, of Debian, and of
/// Fedora.
const ROOTS: [&[u8]; 4] = [b"", b"/@", b"/@rootfs", b"/root"];

/// How much it weighs that a file is another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It is there to be changed.
    Config,
    /// It is not.
    Other,
}

/// A file of a package, and its hash.
struct Packaged {
    /// From the system's root: it begins with a slash.
    path: Vec<u8>,
    algorithm: Algorithm,
    hex: String,
    weight: Weight,
}

/// Holds the files of a file system against the databases in it.
///
/// # Errors
/// [`ErrorKind::Cancelled`]; none for what is wrong with the image.
pub fn prove(
    fs: &mut dyn FileSystem,
    prefix: &[u8],
    used: &mut PackagesUsed,
    findings: &mut Findings,
    proven: &mut HashSet<Key>,
    meter: &mut Meter<'_>,
) -> Result<()> {
    type Reader = fn(&mut dyn FileSystem, &mut Held<'_, '_>) -> Result<()>;
    const KNOWN: [(&str, &[u8], Reader); 4] = [
        ("dpkg", b"/var/lib/dpkg/status", from_dpkg),
        ("apk", b"/lib/apk/db/installed", from_apk),
        ("apk", b"/usr/lib/apk/db/installed", from_apk),
        ("pacman", b"/var/lib/pacman/local", from_pacman),
    ];
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for root in ROOTS {
        let mut rooted = Rooted { inner: fs, root };
        let fs: &mut dyn FileSystem = &mut rooted;
        if fs.metadata(b"/").is_err() {
            continue;
        }
        let read_rpm: Reader = from_rpm;
        let of_rpm = rpm::PATHS.map(|path| ("rpm", path, read_rpm));
        for (kind, path, read) in KNOWN.into_iter().chain(of_rpm) {
            let Ok((own, _)) = resolve(fs, path, Follow::Last) else { continue };
            // /lib may lead to /usr/lib; and of rpm's in one directory, the first is in use.
            let end = own.iter().rposition(|byte| *byte == b'/').filter(|_| kind == "rpm").unwrap_or(own.len());
            if !seen.insert([root, own.get(..end).unwrap_or_default()].concat()) {
                continue;
            }
            let shown_path = [prefix, root, &own].concat();
            let mut held = Held {
                prefix: [prefix, root].concat(),
                at: own,
                database: Database {
                    kind: kind.into(),
                    path: String::from_utf8_lossy(&shown_path).into_owned(),
                    is_read: true,
                    ..Database::default()
                },
                findings: &mut *findings,
                proven: &mut *proven,
                meter: &mut *meter,
                finder: Finder::default(),
                elsewhere: None,
                asked: None,
            };
            if let Err(e) = read(fs, &mut held) {
                held.not_read(e)?;
            }
            used.databases.push(held.database);
        }
    }
    Ok(())
}

/// A file system as it looks from one of its directories: links lead from there on.
struct Rooted<'a> {
    inner: &'a mut dyn FileSystem,
    root: &'static [u8],
}

impl Rooted<'_> {
    fn path(&self, path: &[u8]) -> Vec<u8> {
        match (self.root, path) {
            (b"", path) => path.to_vec(),
            (root, b"/") => root.to_vec(),
            (root, path) => [root, path].concat(),
        }
    }
}

impl FileSystem for Rooted<'_> {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        let path = self.path(path);
        self.inner.metadata(&path)
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let path = self.path(path);
        self.inner.read_dir(&path, take)
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let path = self.path(path);
        self.inner.read_at(&path, offset, buf)
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.path(path);
        self.inner.read_link(&path)
    }

    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Xattr>> {
        let path = self.path(path);
        self.inner.xattrs(&path)
    }
}

/// A database, and what it came to.
struct Held<'a, 'p> {
    /// What stands before each path of the system.
    prefix: Vec<u8>,
    /// The database's own path.
    at: Vec<u8>,
    database: Database,
    findings: &'a mut Findings,
    proven: &'a mut HashSet<Key>,
    meter: &'a mut Meter<'p>,
    finder: Finder,
    /// The last directory in which another file system was mounted.
    elsewhere: Option<Vec<u8>>,
    /// The last directory that was asked for, and the answer.
    asked: Option<(Vec<u8>, bool)>,
}

impl Held<'_, '_> {
    /// The text of a file beside the database.
    fn text(&mut self, fs: &mut dyn FileSystem, path: &[u8]) -> Result<Vec<u8>> {
        self.meter.text(fs, path, VERIFY_PACKAGES_TEXT_MAX).map_err(|e| e.within(shown(path)))
    }

    /// Holds a file against its hash.
    fn check(&mut self, fs: &mut dyn FileSystem, file: &Packaged) -> Result<()> {
        let follow = if self.database.kind == "apk" { Follow::NotLast } else { Follow::Last };
        let (own, metadata) = match self.finder.find(fs, &file.path, follow) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) if is_absent(&e) || e.rule() == "reader.kind-of-file" => return self.missing(fs, file),
            Err(e) => return self.unread(file, &e),
        };
        let made = match metadata.kind {
            FileKind::File => self.meter.hash(fs, &own, &metadata, file.algorithm),
            // apk has the hash of where a link leads.
            FileKind::Link => fs.read_link(&own).map(|target| {
                let mut hasher = file.algorithm.hasher();
                hasher.update(&target);
                hasher.finish()
            }),
            _ => return self.missing(fs, file),
        };
        match made {
            Ok(hex) if hex == file.hex => {
                // What two packages have is one file.
                if self.proven.insert(key(&[self.prefix.as_slice(), &own].concat())) && metadata.kind == FileKind::File
                {
                    self.database.matched_bytes = self.database.matched_bytes.saturating_add(metadata.size);
                }
                self.database.matched = self.database.matched.saturating_add(1);
            }
            Ok(hex) => self.differs(file, &hex),
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => return self.unread(file, &e),
        }
        Ok(())
    }

    fn differs(&mut self, file: &Packaged, found: &str) {
        let (severity, code, count) = match file.weight {
            Weight::Config => (Severity::Note, "contents.packages.config", &mut self.database.changed_config),
            Weight::Other => (Severity::Warning, "contents.packages.differs", &mut self.database.differing),
        };
        *count = count.saturating_add(1);
        let (what, kind) = (shown(&[self.prefix.as_slice(), &file.path].concat()), &self.database.kind);
        let message =
            format!("{what}: its {} is {found}; when {kind} installed it, it was {}", file.algorithm.name(), file.hex);
        self.add(severity, code, file, message, found);
    }

    fn missing(&mut self, fs: &mut dyn FileSystem, file: &Packaged) -> Result<()> {
        if self.is_elsewhere(fs, &file.path)? {
            self.database.elsewhere = self.database.elsewhere.saturating_add(1);
            return Ok(());
        }
        let (severity, code, count) = match file.weight {
            Weight::Config => (Severity::Note, "contents.packages.config", &mut self.database.changed_config),
            Weight::Other => (Severity::Warning, "contents.packages.missing", &mut self.database.missing),
        };
        *count = count.saturating_add(1);
        let (what, kind) = (shown(&[self.prefix.as_slice(), &file.path].concat()), &self.database.kind);
        let message = format!("{what}: {kind} installed a file there, and there is none");
        self.add(severity, code, file, message, "nothing");
        Ok(())
    }

    fn unread(&mut self, file: &Packaged, e: &Error) -> Result<()> {
        self.database.unread = self.database.unread.saturating_add(1);
        let severity = if is_damage(e) { Severity::Error } else { Severity::Warning };
        let what = shown(&[self.prefix.as_slice(), &file.path].concat());
        let message = format!("{what}: it could not be read: {}", e.message());
        self.add(severity, "contents.packages.unread", file, message, &escape(e.message()));
        Ok(())
    }

    fn add(&mut self, severity: Severity, code: &str, file: &Packaged, message: String, found: &str) {
        let mut finding = Finding::new(severity, code, "file", message).says(found, &file.hex);
        let path = [self.prefix.as_slice(), &file.path].concat();
        finding.path = Some(String::from_utf8_lossy(&path).into_owned());
        self.findings.add_one_of_many(finding);
    }

    /// The database itself, or a part of it; what ends all is an error.
    fn not_read(&mut self, e: Error) -> Result<()> {
        if e.kind() == ErrorKind::Cancelled {
            return Err(e);
        }
        self.database.is_read = false;
        let severity = if is_damage(&e) { Severity::Error } else { Severity::Warning };
        let message = format!("the database of {} could not all be read: {}", self.database.kind, e.message());
        self.of_database(severity, "contents.packages.unread", message);
        Ok(())
    }

    /// Lines that are none of a database's own: a part of it may be damaged.
    fn odd(&mut self, lines: u64, path: &[u8]) {
        if lines > 0 {
            let what = shown(&[self.prefix.as_slice(), path].concat());
            let message = format!("{what}: {lines} of its entries are none that {} writes", self.database.kind);
            self.of_database(Severity::Warning, "contents.packages.damaged", message);
        }
    }

    fn of_database(&mut self, severity: Severity, code: &str, message: String) {
        let mut finding = Finding::new(severity, code, "package database", message);
        finding.path = Some(self.database.path.clone());
        self.findings.add_one_of_many(finding);
    }

    /// Whether a file that is not there is in another file system, which was mounted in an empty directory.
    fn is_elsewhere(&mut self, fs: &mut dyn FileSystem, path: &[u8]) -> Result<bool> {
        // Where one file of a directory is not, most are not.
        let parent = path.iter().rposition(|byte| *byte == b'/').and_then(|end| path.get(..end)).unwrap_or(b"");
        if let Some((_, known)) = self.asked.as_ref().filter(|(asked, _)| asked == parent) {
            return Ok(*known);
        }
        let is_elsewhere = self.find_elsewhere(fs, path)?;
        self.asked = Some((parent.to_vec(), is_elsewhere));
        Ok(is_elsewhere)
    }

    fn find_elsewhere(&mut self, fs: &mut dyn FileSystem, path: &[u8]) -> Result<bool> {
        let is_below = |dir: &[u8]| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
        if self.elsewhere.as_deref().is_some_and(is_below) {
            return Ok(true);
        }
        let mut dir = path;
        while let Some(end) = dir.iter().rposition(|byte| *byte == b'/').filter(|end| *end > 0) {
            dir = dir.get(..end).unwrap_or(b"");
            let Ok((own, metadata)) = resolve(fs, dir, Follow::Last) else { continue };
            let depth = own.iter().filter(|byte| **byte == b'/').count();
            if !metadata.is_dir() || depth > 2 || own == b"/" {
                return Ok(false);
            }
            let is_empty = list(fs, &own).is_ok_and(|(entries, faults)| entries.is_empty() && faults.is_empty());
            if is_empty {
                self.elsewhere = Some(dir.to_vec());
            }
            return Ok(is_empty);
        }
        Ok(false)
    }
}

fn from_dpkg(fs: &mut dyn FileSystem, held: &mut Held<'_, '_>) -> Result<()> {
    let status_path = held.at.clone();
    let dir = status_path.strip_suffix(b"/status").unwrap_or(b"/").to_vec();
    let status = dpkg::status(&held.text(fs, &status_path)?);
    held.database.packages = status.packages;
    held.odd(status.odd, &status_path);
    let diversions = match held.text(fs, &[&dir, b"/diversions".as_slice()].concat()) {
        Ok(text) => dpkg::diversions(&text),
        Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
        Err(_) => dpkg::Diversions::new(),
    };
    let config: HashSet<Key> = status.conffiles.iter().map(|file| key(&file.path)).collect();
    for file in &status.conffiles {
        held.check(fs, file)?;
    }
    let info = [&dir, b"/info".as_slice()].concat();
    let (entries, _) = list(fs, &info)?;
    for entry in entries {
        let Some(package) = entry.name.strip_suffix(b".md5sums") else { continue };
        let path = [&info, b"/".as_slice(), &entry.name].concat();
        let text = match held.text(fs, &path) {
            Ok(text) => text,
            Err(e) => {
                held.not_read(e)?;
                continue;
            }
        };
        let package = package.split(|byte| *byte == b':').next().unwrap_or(package);
        let odd = dpkg::md5sums(&text, &mut |mut file| {
            if config.contains(&key(&file.path)) {
                return Ok(());
            }
            if let Some(to) = dpkg::diverted(&diversions, &file.path, package) {
                file.path = to.to_vec();
            }
            held.check(fs, &file)
        })?;
        held.odd(odd, &path);
    }
    Ok(())
}

fn from_apk(fs: &mut dyn FileSystem, held: &mut Held<'_, '_>) -> Result<()> {
    let path = held.at.clone();
    let text = held.text(fs, &path)?;
    let (packages, odd) = apk::installed(&text, &mut |file| held.check(fs, &file))?;
    held.database.packages = packages;
    held.odd(odd, &path);
    Ok(())
}

fn from_pacman(fs: &mut dyn FileSystem, held: &mut Held<'_, '_>) -> Result<()> {
    let dir = held.at.clone();
    let (entries, _) = list(fs, &dir)?;
    for entry in entries {
        if !entry.metadata.is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        let package = [&dir, b"/".as_slice(), &entry.name].concat();
        held.database.packages = held.database.packages.saturating_add(1);
        let config = match held.text(fs, &[&package, b"/files".as_slice()].concat()) {
            Ok(text) => pacman::backup(&text),
            Err(e) => {
                held.not_read(e)?;
                HashSet::new()
            }
        };
        let path = [&package, b"/mtree".as_slice()].concat();
        let unpacked =
            held.text(fs, &path).and_then(|packed| pacman::unpack(&packed).map_err(|e| e.within(shown(&path))));
        let text = match unpacked {
            Ok(text) => text,
            Err(e) => {
                held.not_read(e)?;
                continue;
            }
        };
        held.meter.take(text.len())?;
        let odd = pacman::mtree(&text, &config, &mut |file| held.check(fs, &file))?;
        held.odd(odd, &path);
    }
    Ok(())
}

fn from_rpm(fs: &mut dyn FileSystem, held: &mut Held<'_, '_>) -> Result<()> {
    let path = held.at.clone();
    let metadata = fs.metadata(&path)?;
    let (mut packages, mut odd) = (0u64, 0u64);
    let mut source = rpm::Source::new(fs, held, path.clone(), metadata.size);
    let read = rpm::headers(&mut source, &mut |source, header| {
        let (files, strange) = rpm::files(&header).unwrap_or((Vec::new(), 1));
        (packages, odd) = (packages.saturating_add(1), odd.saturating_add(strange));
        files.iter().try_for_each(|file| source.held.check(source.fs, file))
    });
    held.database.packages = packages;
    held.odd(odd, &path);
    read
}
