//! `unluks cp`: what is written, and where it may go, is the library's ([`unluks::files::tree`]).

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use unluks::error::Condition;
use unluks::files::tree::{Attributes, Folder, is_folder};
use unluks::files::{Existing, Inputs, folder};
use unluks::reader::walk::{self, Descend, Follow, Visitor};
use unluks::reader::{FileKind, FileSystem, Metadata, shown};
use unluks::{Error, Result};

use super::{Faults, Files, Named, from_root, last_name};
use crate::args::ProgressKind;
use crate::args::files::CpArgs;
use crate::progress::ProgressView;
use crate::signals;

/// So many names that are left out are said one by one.
const SAID_MAX: u64 = 16;

pub fn run(args: &mut CpArgs, code: fn(&Error) -> u8) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut files = Files::open(&mut args.source, &args.inside)?;
    let args = &*args;
    let (from, to) = args.ends();
    let to = To::of(to, from.len())?;
    signals::stop_by(&stop)?;
    let inputs = std::mem::take(&mut files.inputs);
    let mut copy = Copy {
        args,
        inputs: &inputs,
        stop: &stop,
        faults: Faults::new(code),
        prefix: Vec::new(),
        root: None,
        folders: Vec::new(),
        skipped: 0,
        shown: ProgressView::new(ProgressKind::Auto, args.inside.quiet, None, 0),
    };
    for path in from {
        let path = from_root(path);
        copy.one(&mut files, &path, &to)?;
    }
    copy.shown.clear();
    // Every file has its name; that all of them outlive a power cut is waited for once.
    if let Ok(there) = Folder::open(to.folder()) {
        there.sync()?;
    }
    if let more @ 1.. = copy.skipped.saturating_sub(SAID_MAX)
        && !args.inside.quiet
    {
        let _ = writeln!(anstream::stderr(), "note: {more} names more are left out");
    }
    Ok(copy.faults.exit())
}

/// Where it goes.
enum To {
    /// Into a directory that is there.
    Into(PathBuf),
    /// It gets this name.
    Name(PathBuf),
}

impl To {
    fn of(path: PathBuf, count: usize) -> Result<Self> {
        if is_folder(&path) {
            return Ok(Self::Into(path));
        }
        if count > 1 || path.as_os_str().as_bytes().ends_with(b"/") {
            let message = format!("{} is no directory that is there", unluks::error::shown(&path));
            return Err(Error::invalid(message).with_condition(Condition::Output));
        }
        Ok(Self::Name(path))
    }

    fn folder(&self) -> &Path {
        match self {
            Self::Into(path) => path,
            Self::Name(path) => folder(path),
        }
    }
}

/// Where the first of a walk goes.
enum Root {
    /// Under this name.
    Name(Folder, OsString),
    /// Into this directory itself.
    Is(Folder),
}

struct Copy<'a> {
    args: &'a CpArgs,
    inputs: &'a Inputs,
    stop: &'a AtomicBool,
    faults: Faults,
    /// The path of the volume.
    prefix: Vec<u8>,
    root: Option<Root>,
    /// The directories that are open, each in the one before it, and what they get.
    folders: Vec<(Folder, Attributes)>,
    skipped: u64,
    shown: ProgressView,
}

impl Copy<'_> {
    fn one(&mut self, files: &mut Files, path: &[u8], to: &To) -> Result<()> {
        let below: Vec<_> = files.below(path).iter().map(|volume| volume.path.clone()).collect();
        if below.is_empty() {
            return self.try_one(files, path, to).or_else(|e| self.faults.say(path, e));
        }
        if !self.args.recursive {
            return self.faults.say(path, no_recursion());
        }
        let base = match to {
            To::Into(path) => path.clone(),
            To::Name(path) => {
                Folder::create(path)?;
                path.clone()
            }
        };
        for volume in below {
            let copied = self.volume(files, path, &volume, &base);
            copied.or_else(|e| self.faults.say(&volume, e))?;
        }
        Ok(())
    }

    /// All of a volume, whose path leads to a directory of the same names.
    fn volume(&mut self, files: &mut Files, path: &[u8], volume: &[u8], base: &Path) -> Result<()> {
        let named = files.named(volume, Follow::NotLast)?;
        let mut into = Folder::open(base)?;
        let rest = volume.strip_prefix(path.strip_suffix(b"/").unwrap_or(path)).unwrap_or(volume);
        for name in rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            into = into.folder(OsStr::from_bytes(name))?;
        }
        self.root = Some(Root::Is(into));
        self.walk(files, &named)
    }

    fn try_one(&mut self, files: &mut Files, path: &[u8], to: &To) -> Result<()> {
        let follow = if self.args.recursive { Follow::NotLast } else { Follow::Last };
        let named = files.named(path, follow)?;
        if named.metadata.is_dir() && !self.args.recursive {
            return Err(no_recursion());
        }
        self.root = Some(match to {
            To::Into(folder) => match last_name(path).or_else(|| last_name(&named.path)) {
                Some(name) => Root::Name(Folder::open(folder)?, name),
                None => Root::Is(Folder::open(folder)?),
            },
            To::Name(path) if named.metadata.is_dir() => Root::Is(Folder::create(path)?),
            To::Name(path) => {
                let name = path.file_name().ok_or_else(|| {
                    let message = format!("{} is no name of a file", unluks::error::shown(path));
                    Error::invalid(message).with_condition(Condition::Output)
                })?;
                Root::Name(Folder::open(folder(path))?, name.to_owned())
            }
        });
        self.walk(files, &named)
    }

    fn walk(&mut self, files: &mut Files, named: &Named) -> Result<()> {
        self.prefix = files.full(named, b"");
        self.folders.clear();
        walk::walk(files.of(named)?, &named.path, &named.metadata, self)
    }

    fn attributes(&self, metadata: &Metadata) -> Attributes {
        if self.args.preserve {
            Attributes { mode: metadata.mode, modified: metadata.modified }
        } else {
            Attributes::default()
        }
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Error::cancelled()) } else { Ok(()) }
    }

    fn leave_out(&mut self, path: &[u8], why: &str) {
        self.skipped += 1;
        if self.skipped <= SAID_MAX && !self.args.inside.quiet {
            let path = shown(&[&self.prefix, path].concat());
            let _ = writeln!(anstream::stderr(), "note: {path} is left out: {why}");
        }
    }

    /// Makes one; whether it is a directory to be gone into.
    fn make(&mut self, fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        let existing = if self.args.force { Existing::Replace } else { Existing::Keep };
        let attributes = self.attributes(metadata);
        let own = match self.root.take() {
            Some(Root::Is(folder)) => {
                self.folders.push((folder, attributes));
                return Ok(Descend::Into);
            }
            Some(Root::Name(folder, name)) => Some((folder, name)),
            None => None,
        };
        let (parent, name) = match &own {
            Some((folder, name)) => (folder, name.clone()),
            None => {
                let (folder, _) = self.folders.last().ok_or_else(|| Error::invalid("there is no directory for it"))?;
                (folder, last_name(path).unwrap_or_default())
            }
        };
        match metadata.kind {
            FileKind::Directory => {
                let folder = parent.folder(&name)?;
                self.folders.push((folder, attributes));
                return Ok(Descend::Into);
            }
            FileKind::File => {
                let mut part = parent.file(&name, existing, self.inputs)?;
                walk::read(fs, path, metadata, &mut |bytes| {
                    self.check_stop()?;
                    self.shown.add(bytes.len());
                    part.write(bytes)
                })?;
                part.finish(attributes)?;
            }
            FileKind::Link if self.args.links => {
                let target = fs.read_link(path)?;
                parent.link(&name, OsStr::from_bytes(&target), existing, self.inputs)?;
            }
            FileKind::Link => self.leave_out(path, "it is a symbolic link, which --links makes"),
            _ => self.leave_out(path, "it is a device, a FIFO, a socket or a reparse point"),
        }
        Ok(Descend::Past)
    }
}

fn no_recursion() -> Error {
    Error::invalid("it is a directory").with_hint("use -r to copy it with all that is in it")
}

impl Visitor for Copy<'_> {
    fn visit(&mut self, fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        self.check_stop()?;
        match self.make(fs, path, metadata) {
            Ok(descend) => Ok(descend),
            Err(e) => self.fault(path, e).map(|()| Descend::Past),
        }
    }

    fn leave(&mut self, path: &[u8]) -> Result<()> {
        let Some((folder, attributes)) = self.folders.pop() else { return Ok(()) };
        folder.finish(attributes).or_else(|e| self.fault(path, e))
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        self.faults.say(&[&self.prefix, path].concat(), e)
    }
}
