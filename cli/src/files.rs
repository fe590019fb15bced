//! `unluks ls`, `cat`, `cp`, `find` and `hash`: files out of an image, through readers in a process of their own.

pub mod cat;
pub mod copy;
pub mod find;
mod glob;
pub mod hash;
pub mod list;
mod print;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::sync::Arc;

use unluks::error::Condition;
use unluks::files::Inputs;
use unluks::inside::Kind;
use unluks::reader::volumes::{Volume, Volumes};
use unluks::reader::walk::{Follow, resolve};
use unluks::reader::{Metadata, is_read, not_read, shown};
use unluks::volume::VolumeOptions;
use unluks::{Error, ErrorKind, ReadAt, Result};

use crate::args::SourceArgs;
use crate::args::files::InsideArgs;
use crate::contents::is_key_given;
use crate::hint;
use crate::key;
use crate::open::Opened;
use crate::reader::Reader;
use crate::source::{Disk, Source, is_dash};

/// So many errors of readers that end are said in a row, before the command does.
const ENDED_MAX: usize = 16;

/// The file systems of an image, and the reader of the one that was asked last.
pub struct Files {
    volumes: Volumes,
    reader: Option<(usize, Reader)>,
    pub inputs: Inputs,
}

/// A file or a directory that somebody named.
pub struct Named {
    /// The number of the volume that it is in.
    volume: usize,
    /// Its path in the volume, without links.
    pub path: Vec<u8>,
    pub metadata: Metadata,
}

impl Files {
    /// Opens the image: the plaintext of one that is encrypted, any other as it is.
    pub fn open(source: &mut SourceArgs, inside: &InsideArgs) -> Result<Self> {
        let (disk, inputs) = disk(source, inside)?;
        let volumes = Volumes::list(disk)?;
        for note in volumes.notes.iter().filter(|_| !inside.quiet) {
            let _ = writeln!(anstream::stderr(), "note: {note}");
        }
        Ok(Self { volumes, reader: None, inputs })
    }

    /// The volumes that lie under a path, which is none of theirs; all of them for the root.
    pub fn below(&self, path: &[u8]) -> Vec<&Volume> {
        let path = path.strip_suffix(b"/").unwrap_or(path);
        let is_below = |volume: &&Volume| volume.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(b"/"));
        // One that is the whole disk lies under nothing.
        self.volumes.all.iter().filter(|volume| volume.path != b"/").filter(is_below).collect()
    }

    /// What a path leads to.
    pub fn named(&mut self, path: &[u8], follow: Follow) -> Result<Named> {
        let Some((volume, rest)) = self.volumes.find(path) else {
            return Err(self.no_volume());
        };
        let rest = rest.to_vec();
        let number = self.volumes.all.iter().position(|other| std::ptr::eq(other, volume)).unwrap_or(0);
        let (path, metadata) = resolve(self.reader(number)?, &rest, follow)?;
        Ok(Named { volume: number, path, metadata })
    }

    fn no_volume(&self) -> Error {
        let names: Vec<_> = self.volumes.all.iter().take(16).map(|volume| shown(&volume.path)).collect();
        if names.is_empty() {
            return Error::unsupported("reader.kind", "no file system was found in the image");
        }
        let message = format!("there is no such volume; a path begins with one of these: {}", names.join(", "));
        Error::invalid(message)
    }

    /// The reader of what was named.
    pub fn of(&mut self, named: &Named) -> Result<&mut Reader> {
        self.reader(named.volume)
    }

    /// The path of what was named, from the image's root.
    pub fn full(&self, named: &Named, path: &[u8]) -> Vec<u8> {
        match self.volumes.all.get(named.volume).map(|volume| volume.path.as_slice()) {
            None | Some(b"/") => path.to_vec(),
            Some(volume) if path == b"/" => volume.to_vec(),
            Some(volume) => [volume, path].concat(),
        }
    }

    fn reader(&mut self, number: usize) -> Result<&mut Reader> {
        let volume = self.volumes.all.get(number).ok_or_else(|| not_read(Kind::Unknown))?;
        if !is_read(volume.kind) {
            return Err(not_read(volume.kind));
        }
        let is_other = self.reader.as_ref().is_none_or(|(there, _)| *there != number);
        if is_other {
            self.reader = None;
            let reader = Reader::open(Arc::clone(&volume.disk), volume.kind)?;
            self.reader = Some((number, reader));
        }
        self.reader.as_mut().map(|(_, reader)| reader).ok_or_else(|| not_read(Kind::Unknown))
    }
}

/// The plaintext of an image that is encrypted, any other as it is.
pub fn disk(source: &mut SourceArgs, inside: &InsideArgs) -> Result<(Arc<dyn ReadAt>, Inputs)> {
    key::check(&inside.key, is_dash(&source.image))?;
    if is_dash(&source.image) {
        return Err(no_pipe());
    }
    match Opened::open_as(source, &inside.plain, &inside.key, inside.quiet) {
        Ok(opened) => plaintext(opened, inside),
        Err(e) if e.is(Condition::NoHeader) && !is_key_given(&inside.key) && source.header.is_none() => {
            as_it_is(source, inside)
        }
        Err(e) => Err(e),
    }
}

fn no_pipe() -> Error {
    Error::invalid("files are read of an image that can be read at any place, not a pipe")
        .with_hint("save it to a file first")
}

fn plaintext(mut opened: Opened, inside: &InsideArgs) -> Result<(Arc<dyn ReadAt>, Inputs)> {
    if opened.source.pipe().is_some() {
        return Err(no_pipe());
    }
    opened.source.print_notes(inside.quiet);
    key::note(&inside.key, &mut opened.source.inputs)?;
    let unlocked = opened.unlock(&inside.key, &inside.limits, inside.quiet)?;
    // Of an image that is cut off, the files that are there are read.
    let volume = opened.volume(&unlocked, VolumeOptions::default(), |_| true)?;
    Ok((Arc::new(volume), opened.source.inputs))
}

fn as_it_is(source: &SourceArgs, inside: &InsideArgs) -> Result<(Arc<dyn ReadAt>, Inputs)> {
    let is_named =
        source.partition.is_some() || source.offset.is_some() || source.volume.is_some() || !source.with.is_empty();
    if is_named {
        let source = Source::open(source)?;
        source.print_notes(inside.quiet);
        return Ok((Arc::clone(source.place().source()), source.inputs));
    }
    let disk = Disk::open(source)?;
    for note in disk.notes.iter().filter(|_| !inside.quiet) {
        let _ = writeln!(anstream::stderr(), "{note}");
    }
    Ok((disk.disk, disk.inputs))
}

/// A path as somebody typed it, from the root, without what leads nowhere.
pub fn from_root(path: &OsStr) -> Vec<u8> {
    let mut out = Vec::new();
    for name in path.as_bytes().split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        out.push(b'/');
        out.extend(name);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

/// A path's last name, if it has one.
pub fn last_name(path: &[u8]) -> Option<OsString> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    if matches!(name, [] | b"." | b"..") {
        return None;
    }
    Some(OsStr::from_bytes(name).to_owned())
}

/// What could not be read, each said by its name; the others go on.
pub struct Faults {
    code_of: fn(&Error) -> u8,
    code: Option<u8>,
    ended: usize,
}

impl Faults {
    pub fn new(code_of: fn(&Error) -> u8) -> Self {
        Self { code_of, code: None, ended: 0 }
    }

    /// Says one. What stops all is an error.
    pub fn say(&mut self, path: &[u8], e: Error) -> Result<()> {
        if e.kind() == ErrorKind::Cancelled {
            return Err(e);
        }
        if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) {
            return Err(e);
        }
        if e.is(Condition::ReaderEnded) {
            self.ended += 1;
            if self.ended > ENDED_MAX {
                return Err(e);
            }
        }
        // Damage weighs more than a name that is not there.
        let code = (self.code_of)(&e);
        self.code = Some(self.code.map_or(code, |before| if before == 4 || code == 2 { before } else { code }));
        let e = if e.is(Condition::Output) { e } else { e.within(shown(path)) };
        let _ = writeln!(anstream::stderr(), "unluks: {}", hint::line(&e));
        Ok(())
    }

    /// What the program exits with.
    pub fn exit(&self) -> ExitCode {
        self.code.map_or(ExitCode::SUCCESS, ExitCode::from)
    }
}
