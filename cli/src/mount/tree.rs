//! What the kernel asks for: `plain`, and `files/` with a directory for each file system, as `unluks ls` names them.
//!
//! Inodes have numbers for as long as the kernel remembers them. Devices, FIFOs and sockets are left out, as `cp` does. All
//! is whoever's who mounted it, and may be read by them; no bit is there that lets anybody write or change who they are.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, Request,
};
use unluks::limits::READER_PIECE;
use unluks::reader::volumes::Volume;
use unluks::reader::{FileKind, FileSystem, Metadata, is_absent, join, shown, walk};
use unluks::{Error, ErrorKind, ReadAt, Result};

use crate::hint;
use crate::reader::Reader;

const ROOT: u64 = 1;
const PLAIN: u64 = 2;
const FILES: u64 = 3;
/// A number that nobody has been told yet.
const UNKNOWN: u64 = 0xffff_ffff;
/// The image does not change.
const VALID: Duration = Duration::from_secs(3600);
/// So many errors are said.
const SAID_MAX: u64 = 16;
const BLOCK: u64 = 512;

/// A file system, and its reader once somebody has asked for a file.
struct Inside {
    volume: Volume,
    reader: Mutex<Option<Reader>>,
}

/// The names that the kernel has been told.
#[derive(Default)]
struct Nodes {
    /// The path of a number, and how often it was told.
    by_number: HashMap<u64, (Vec<u8>, u64)>,
    by_path: HashMap<Vec<u8>, u64>,
    last: u64,
}

/// What is in a directory that is open.
type Listing = Arc<Vec<(Vec<u8>, FileType)>>;

pub struct Tree {
    plain: Arc<dyn ReadAt>,
    inside: Vec<Inside>,
    nodes: Mutex<Nodes>,
    open: Mutex<HashMap<u64, Listing>>,
    next: AtomicU64,
    said: AtomicU64,
    since: SystemTime,
    owner: (u32, u32),
}

/// Where a path under `files/` leads.
enum Place<'a> {
    /// Above volumes.
    Above,
    In(&'a Inside, &'a [u8]),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    /// The answer to a read. A new one for each would cost as much as what it is filled with.
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

fn absent() -> Error {
    Error::invalid("there is no such file or directory").with_condition(unluks::error::Condition::Absent)
}

fn errno(e: &Error) -> Errno {
    match e.kind() {
        _ if is_absent(e) => Errno::ENOENT,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        ErrorKind::InvalidInput => Errno::EINVAL,
        _ => Errno::EIO,
    }
}

fn kind(metadata: &Metadata) -> Option<FileType> {
    match metadata.kind {
        FileKind::File => Some(FileType::RegularFile),
        FileKind::Directory => Some(FileType::Directory),
        FileKind::Link => Some(FileType::Symlink),
        _ => None,
    }
}

/// A place on the time line; what the kernel cannot say is its beginning.
fn time((seconds, nanos): (i64, u32)) -> SystemTime {
    let by = Duration::new(seconds.unsigned_abs(), if seconds < 0 { 0 } else { nanos.min(999_999_999) });
    let at = if seconds < 0 { SystemTime::UNIX_EPOCH.checked_sub(by) } else { SystemTime::UNIX_EPOCH.checked_add(by) };
    at.unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Tree {
    pub fn new(plain: Arc<dyn ReadAt>, volumes: Vec<Volume>) -> Self {
        let inside = volumes.into_iter().map(|volume| Inside { volume, reader: Mutex::default() }).collect();
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let nodes = Mutex::new(Nodes { last: FILES, ..Nodes::default() });
        let (open, next, said) = (Mutex::default(), AtomicU64::new(1), AtomicU64::new(0));
        Self { plain, inside, nodes, open, next, said, since: SystemTime::now(), owner }
    }

    /// The first errors are told where the program runs: a number says little.
    fn fail(&self, path: &[u8], e: Error) -> Errno {
        let errno = errno(&e);
        if !is_absent(&e) && self.said.fetch_add(1, Ordering::Relaxed) < SAID_MAX {
            let _ = writeln!(anstream::stderr(), "unluks: {}", hint::line(&e.within(shown(path))));
        }
        errno
    }

    fn place<'a>(&'a self, path: &'a [u8]) -> Result<Place<'a>> {
        let found = self.inside.iter().find_map(|inside| {
            if inside.volume.path == b"/" {
                return Some(Place::In(inside, path));
            }
            match path.strip_prefix(inside.volume.path.as_slice())? {
                [] => Some(Place::In(inside, b"/")),
                rest => rest.starts_with(b"/").then_some(Place::In(inside, rest)),
            }
        });
        let is_above = || path == b"/" || !self.names_below(path).is_empty();
        found.or_else(|| is_above().then_some(Place::Above)).ok_or_else(absent)
    }

    /// The next names of the volumes that lie under a path.
    fn names_below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let above = path.strip_suffix(b"/").unwrap_or(path);
        let rest = |inside: &Inside| {
            let rest = inside.volume.path.strip_prefix(above)?.strip_prefix(b"/")?;
            let name = rest.split(|byte| *byte == b'/').next()?;
            (!name.is_empty()).then(|| name.to_vec())
        };
        let mut names: Vec<_> = self.inside.iter().filter_map(rest).collect();
        names.sort();
        names.dedup();
        names
    }

    fn ask<T>(&self, inside: &Inside, question: impl FnOnce(&mut Reader) -> Result<T>) -> Result<T> {
        let mut reader = lock(&inside.reader);
        if reader.is_none() {
            *reader = Some(Reader::open(Arc::clone(&inside.volume.disk), inside.volume.kind)?);
        }
        match reader.as_mut() {
            Some(reader) => question(reader),
            None => Err(absent()),
        }
    }

    /// What is said of a path under `files/`.
    fn describe(&self, path: &[u8], number: u64) -> Result<FileAttr> {
        let metadata = match self.place(path)? {
            Place::Above => return Ok(self.attributes(number, FileType::Directory, 0)),
            Place::In(inside, rest) => self.ask(inside, |reader| reader.metadata(rest))?,
        };
        let kind = kind(&metadata).ok_or_else(absent)?;
        let mut attributes = self.attributes(number, kind, metadata.size);
        let least = if kind == FileType::RegularFile { 0o400 } else { 0o500 };
        // A link's own say nothing.
        let mode = metadata.mode.filter(|_| kind != FileType::Symlink);
        let mode = mode.and_then(|mode| u16::try_from(mode & 0o555).ok());
        attributes.perm = mode.map_or(attributes.perm, |mode| mode | least);
        attributes.nlink = metadata.links.unwrap_or(1).max(1);
        if let Some(modified) = metadata.modified.map(time) {
            (attributes.mtime, attributes.ctime, attributes.atime) = (modified, modified, modified);
        }
        Ok(attributes)
    }

    fn attributes(&self, number: u64, kind: FileType, size: u64) -> FileAttr {
        let (uid, gid) = self.owner;
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(BLOCK),
            atime: self.since,
            mtime: self.since,
            ctime: self.since,
            crtime: self.since,
            kind,
            perm: match kind {
                FileType::RegularFile => 0o444,
                FileType::Symlink => 0o777,
                _ => 0o555,
            },
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: 1 << 20,
            flags: 0,
        }
    }

    /// What is said of a number.
    fn known(&self, number: u64) -> Result<FileAttr> {
        match number {
            ROOT => Ok(self.attributes(ROOT, FileType::Directory, 0)),
            PLAIN => {
                let attributes = self.attributes(PLAIN, FileType::RegularFile, self.plain.len());
                Ok(FileAttr { perm: 0o400, ..attributes })
            }
            number => self.describe(&self.path(number)?, number),
        }
    }

    /// The path of a number, from `files/` on.
    fn path(&self, number: u64) -> Result<Vec<u8>> {
        if number == FILES {
            return Ok(b"/".to_vec());
        }
        lock(&self.nodes).by_number.get(&number).map(|(path, _)| path.clone()).ok_or_else(absent)
    }

    /// The number of a path, which the kernel is told once more.
    fn tell(&self, path: Vec<u8>) -> u64 {
        let mut nodes = lock(&self.nodes);
        let number = nodes.by_path.get(&path).copied().unwrap_or(nodes.last + 1);
        if number > nodes.last {
            nodes.last = number;
            nodes.by_path.insert(path.clone(), number);
        }
        nodes.by_number.entry(number).or_insert((path, 0)).1 += 1;
        number
    }

    fn find(&self, parent: u64, name: &OsStr) -> std::result::Result<FileAttr, Errno> {
        match (parent, name.as_bytes()) {
            (ROOT, b"plain") => self.known(PLAIN).map_err(|e| errno(&e)),
            (ROOT, b"files") => self.known(FILES).map_err(|e| errno(&e)),
            (ROOT, _) => Err(Errno::ENOENT),
            (parent, name) => {
                let path = self.path(parent).and_then(|above| join(&above, name)).map_err(|e| errno(&e))?;
                let attributes = self.describe(&path, 0).map_err(|e| self.fail(&path, e))?;
                Ok(FileAttr { ino: INodeNo(self.tell(path)), ..attributes })
            }
        }
    }

    fn list(&self, number: u64) -> std::result::Result<Vec<(Vec<u8>, FileType)>, Errno> {
        let dots = [b".".to_vec(), b"..".to_vec()].map(|name| (name, FileType::Directory));
        if number == ROOT {
            let own = [(b"plain".to_vec(), FileType::RegularFile), (b"files".to_vec(), FileType::Directory)];
            return Ok(dots.into_iter().chain(own).collect());
        }
        let path = self.path(number).map_err(|e| errno(&e))?;
        let listed = self.place(&path).and_then(|place| match place {
            Place::Above => {
                Ok(self.names_below(&path).into_iter().map(|name| (name, FileType::Directory)).collect::<Vec<_>>())
            }
            Place::In(inside, rest) => {
                let (entries, faults) = self.ask(inside, |reader| walk::list(reader, rest))?;
                for e in faults {
                    self.fail(&path, e);
                }
                // What cannot be looked at has a name all the same, and whoever asks for it is told why.
                let of = |entry: unluks::reader::Entry| match entry.metadata {
                    Ok(metadata) => kind(&metadata).map(|kind| (entry.name, kind)),
                    Err(_) => Some((entry.name, FileType::RegularFile)),
                };
                Ok(entries.into_iter().filter_map(of).collect())
            }
        });
        listed.map(|entries| dots.into_iter().chain(entries).collect()).map_err(|e| self.fail(&path, e))
    }

    /// Fills the start of `buf`, and says how much of it that is.
    fn fill(&self, number: u64, offset: u64, buf: &mut [u8]) -> std::result::Result<usize, Errno> {
        if number == PLAIN {
            let left = self.plain.len().saturating_sub(offset);
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let read = self.plain.read_exact_at(&mut buf[..len], offset);
            return read.map(|()| len).map_err(|e| self.fail(b"/plain", e));
        }
        let path = self.path(number).map_err(|e| errno(&e))?;
        let read = self.place(&path).and_then(|place| {
            let Place::In(inside, rest) = place else { return Err(absent()) };
            let mut done = 0;
            while done < buf.len() {
                let end = buf.len().min(done + READER_PIECE);
                let at = u64::try_from(done).map_or(u64::MAX, |done| offset.saturating_add(done));
                match self.ask(inside, |reader| reader.read_at(rest, at, &mut buf[done..end]))? {
                    0 => break,
                    n => done += n,
                }
            }
            Ok(done)
        });
        read.map_err(|e| self.fail(&path, e))
    }
}

impl Filesystem for Tree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // As much as the kernel gives.
        if let Err(most) = config.set_max_readahead(READER_PIECE.try_into().unwrap_or(u32::MAX)) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_write(READER_PIECE.try_into().unwrap_or(u32::MAX));
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(parent.0, name) {
            Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
            Err(e) => reply.error(e),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        let mut nodes = lock(&self.nodes);
        let Some((_, told)) = nodes.by_number.get_mut(&number.0) else { return };
        *told = told.saturating_sub(count);
        if *told == 0
            && let Some((path, _)) = nodes.by_number.remove(&number.0)
        {
            nodes.by_path.remove(&path);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.known(number.0) {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let path = self.path(number.0).unwrap_or_default();
        let target = self.place(&path).and_then(|place| match place {
            Place::In(inside, rest) => self.ask(inside, |reader| reader.read_link(rest)),
            Place::Above => Err(Error::invalid("it is no link")),
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(self.fail(&path, e)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.acc_mode() == fuser::OpenAccMode::O_RDONLY {
            reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
        } else {
            reply.error(Errno::EROFS);
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let len = usize::try_from(size).unwrap_or(0);
        ANSWER.with_borrow_mut(|buf| {
            if buf.len() < len {
                buf.resize(len, 0);
            }
            match self.fill(number.0, offset, &mut buf[..len]) {
                Ok(n) => reply.data(&buf[..n]),
                Err(e) => reply.error(e),
            }
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.list(number.0) {
            Ok(listing) => {
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                lock(&self.open).insert(handle, Arc::new(listing));
                reply.opened(FileHandle(handle), FopenFlags::empty());
            }
            Err(e) => reply.error(e),
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listing) = lock(&self.open).get(&handle.0).cloned() else { return reply.error(Errno::EBADF) };
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((name, kind), behind) in listing.iter().skip(skip).zip(offset.saturating_add(1)..) {
            let number = if name == b"." { number.0 } else { UNKNOWN };
            if reply.add(INodeNo(number), behind, *kind, OsStr::from_bytes(name)) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.open).remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(self.plain.len().div_ceil(BLOCK), 0, 0, 0, 0, 512, 255, 512);
    }
}
