//! An output file that is either whole or not there: written under another name beside its own, synced, renamed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Advice, FallocateFlags};
use zeroize::Zeroize;

use super::{Sink, lock};
use crate::error::{Error, ErrorKind, Result, escape};

/// Zero plaintext becomes a hole in runs of at least this many bytes.
const HOLE: usize = 32 << 10;
/// The system is told to write out what is finished in steps of this many bytes, so that syncing at the end is short.
const WRITE_OUT: u64 = 32 << 20;
/// How far behind the writing finished pages are dropped from the page cache, where they are.
const DROP_BEHIND: u64 = 256 << 20;
/// `O_DIRECT` wants offsets and lengths of this alignment; buffers are page-aligned anyway.
const DIRECT_ALIGN: usize = 4096;

/// Whether runs of zero plaintext become holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sparse {
    /// They do.
    #[default]
    Auto,
    /// All of it is written.
    Never,
}

/// How the page cache is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// An output that is more than half of the memory leaves the page cache as it is written.
    #[default]
    Auto,
    /// The page cache is passed by (`O_DIRECT`), where the file system allows it.
    Always,
    /// The page cache keeps what was written.
    Never,
}

impl Direct {
    /// Whether what was read and written of `len` bytes leaves the page cache, so that the machine stays usable.
    pub fn drops_behind(self, len: u64) -> bool {
        match self {
            Self::Auto => len > memory() / 2,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// How an output file is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetOptions {
    /// Replace a file that is there.
    pub force: bool,
    /// Whether runs of zero plaintext become holes.
    pub sparse: Sparse,
    /// How the page cache is treated.
    pub direct: Direct,
    /// Give the file its name without waiting for the disk: what `cp` does, and what a power cut may undo.
    pub no_sync: bool,
}

/// An output file that appears under its name when it is whole.
pub struct Target {
    path: PathBuf,
    temp: PathBuf,
    file: File,
    /// The same file, opened with `O_DIRECT`.
    direct: Option<File>,
    options: TargetOptions,
    /// Blocks were allocated, so zeroes must be punched out rather than left out.
    allocated: bool,
    drop_behind: bool,
    done: Mutex<Done>,
    /// What becomes of the temporary file when this is dropped.
    keep: bool,
}

/// The bytes that are written without a gap from the start, and the runs behind a gap.
#[derive(Default)]
struct Done {
    upto: u64,
    later: std::collections::BTreeMap<u64, u64>,
    written_out: u64,
}

/// A name beside `path` that is not taken for a finished file.
fn beside(path: &Path, suffix: &str) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("{} is no file name", shown(path))))?;
    let mut temp = std::ffi::OsString::from(".");
    temp.push(name);
    temp.push(suffix);
    Ok(path.with_file_name(temp))
}

/// A path as errors show it.
fn shown(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// The name of the journal of an output.
pub(super) fn journal_path(path: &Path) -> Result<PathBuf> {
    beside(path, ".unluks-journal")
}

/// The names beside an output that its making takes: of the unfinished output, and of its journal.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where `path` names no file.
pub fn names_beside(path: &Path) -> Result<[PathBuf; 2]> {
    Ok([beside(path, ".unluks-part")?, journal_path(path)?])
}

/// Removes the journal of an earlier output, for good: it would vouch for bytes that the next one has not written.
fn forget_journal(path: &Path) -> Result<()> {
    match std::fs::remove_file(journal_path(path)?) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(format!("removing the journal of {}", shown(path)), e)),
        Ok(()) => sync_folder(path),
    }
}

/// A name is on the disk, or gone from it, once its directory is.
fn sync_folder(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| Error::io(format!("syncing {}", shown(parent)), e))
}

/// Whether two names lead to the same file, also through links.
///
/// # Errors
/// [`ErrorKind::Io`] where a file's attributes cannot be read.
pub fn is_same_file(a: &File, path: &Path) -> Result<bool> {
    let a = a.metadata().map_err(|e| Error::io("reading the input's attributes", e))?;
    match std::fs::metadata(path) {
        Ok(b) => Ok((a.dev(), a.ino()) == (b.dev(), b.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io(format!("looking at {}", shown(path)), e)),
    }
}

impl Target {
    /// Starts an output of `len` bytes that will be `path`.
    ///
    /// The whole length is allocated first, where the file system can: a disk that is too small says so before hours of
    /// work, and writing is faster.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where `path` is there and may not be replaced, or another process writes to it;
    /// [`ErrorKind::Io`] where it cannot be made.
    pub fn create(path: &Path, len: u64, options: TargetOptions) -> Result<Self> {
        let path = resolve(path, options.force)?;
        let temp = beside(&path, ".unluks-part")?;
        forget_journal(&path)?;
        let mut open = OpenOptions::new();
        open.read(true).write(true).create_new(true).mode(0o600);
        let file = match open.open(&temp) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                drop(lock_file(OpenOptions::new().write(true).open(&temp).map_err(|e| making(&temp, e))?, &temp)?);
                std::fs::remove_file(&temp).map_err(|e| making(&temp, e))?;
                open.open(&temp)
            }
            other => other,
        };
        let file = lock_file(file.map_err(|e| making(&temp, e))?, &temp)?;
        let mut target = Self::with_file(path, temp, file, len, options);
        target.allocate(len)?;
        Ok(target)
    }

    /// Goes on with an output that was left behind; its first `done` bytes are right.
    pub(super) fn reopen(path: &Path, done: u64, len: u64, options: TargetOptions) -> Result<Self> {
        let path = resolve(path, options.force)?;
        let temp = beside(&path, ".unluks-part")?;
        let file = OpenOptions::new().read(true).write(true).open(&temp).map_err(|e| making(&temp, e))?;
        let mut target = Self::with_file(path, temp, file, len, options);
        target.keep = true;
        target.file = lock_file(target.file.try_clone().map_err(|e| making(&target.temp, e))?, &target.temp)?;
        target.allocated = true;
        *lock(&target.done) = Done { upto: done, written_out: done, ..Done::default() };
        Ok(target)
    }

    fn with_file(path: PathBuf, temp: PathBuf, file: File, len: u64, options: TargetOptions) -> Self {
        let direct = match options.direct {
            Direct::Always => open_direct(&temp),
            _ => None,
        };
        let drop_behind = options.direct.drops_behind(len);
        let done = Mutex::default();
        Self { path, temp, file, direct, options, allocated: false, drop_behind, done, keep: false }
    }

    /// Gives the file its length and, where it can be had, its room.
    fn allocate(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| making(&self.temp, e))?;
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => self.allocated = true,
            // A sparse output may fit where its full length does not.
            Err(rustix::io::Errno::NOSPC) if self.options.sparse == Sparse::Auto => {}
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(Error::io(format!("allocating {len} bytes for {}", shown(&self.path)), e.into())),
        }
        Ok(())
    }

    /// The output under its temporary name, for reading back.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be opened once more.
    pub fn reader(&self) -> Result<File> {
        self.file.try_clone().map_err(|e| making(&self.temp, e))
    }

    /// Which file it is on its file system.
    pub(super) fn inode(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.ino()).map_err(|e| making(&self.temp, e))
    }

    /// The temporary name.
    pub fn temp_path(&self) -> &Path {
        &self.temp
    }

    /// How many bytes from the start are written without a gap.
    pub fn done(&self) -> u64 {
        lock(&self.done).upto
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| self.writing(e))
    }

    /// Leaves the temporary file where it is when the target is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Cuts the output to `len` bytes, where it was taken for longer.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be cut.
    pub fn truncate(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|e| self.writing(e))
    }

    /// Syncs the output, where it is wanted on the disk, and gives it its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be synced or renamed; [`ErrorKind::InvalidInput`] where somebody else took the
    /// name meanwhile.
    pub fn commit(mut self) -> Result<()> {
        if !self.options.no_sync {
            self.file.sync_all().map_err(|e| self.writing(e))?;
        }
        let flags = match self.options.force {
            true => rustix::fs::RenameFlags::empty(),
            false => rustix::fs::RenameFlags::NOREPLACE,
        };
        let cwd = rustix::fs::CWD;
        let renamed = match rustix::fs::renameat_with(cwd, &self.temp, cwd, &self.path, flags) {
            // Some file systems cannot rename without replacing; then the look before has to do.
            Err(rustix::io::Errno::INVAL) if !self.path.exists() => rustix::fs::rename(&self.temp, &self.path),
            other => other,
        };
        // All of it is there, whatever becomes of its name.
        self.keep = true;
        renamed.map_err(|e| {
            let error = match e {
                rustix::io::Errno::EXIST => exists(&self.path),
                e => Error::io(format!("renaming the output to {}", shown(&self.path)), e.into()),
            };
            error.with_hint(format!("the output is whole, and in {}", shown(&self.temp)))
        })?;
        match self.options.no_sync {
            true => Ok(()),
            false => sync_folder(&self.path),
        }
    }

    fn writing(&self, e: std::io::Error) -> Error {
        let error = Error::io(format!("writing {}", shown(&self.path)), e);
        match error.io_error().map(std::io::Error::kind) {
            Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
                error.with_hint("make room, or write elsewhere")
            }
            _ => error,
        }
    }

    fn write_run(&self, run: &[u8], at: u64) -> std::io::Result<()> {
        let aligned = run.len() / DIRECT_ALIGN * DIRECT_ALIGN;
        match &self.direct {
            Some(direct)
                if at.is_multiple_of(4096) && aligned > 0 && run.as_ptr().addr().is_multiple_of(DIRECT_ALIGN) =>
            {
                direct.write_all_at(&run[..aligned], at)?;
                self.file.write_all_at(&run[aligned..], at + u64::try_from(aligned).unwrap_or(0))
            }
            _ => self.file.write_all_at(run, at),
        }
    }

    /// Leaves out, or punches out, a run of zeroes.
    fn write_zeroes(&self, zeroes: &[u8], at: u64) -> std::io::Result<()> {
        if !self.allocated {
            return Ok(());
        }
        let len = u64::try_from(zeroes.len()).unwrap_or(0);
        match rustix::fs::fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => Ok(()),
            Err(_) => self.file.write_all_at(zeroes, at),
        }
    }

    /// Takes note that `len` bytes at `at` are written, and has the system write out what is finished.
    fn note(&self, at: u64, len: usize) {
        let mut done = lock(&self.done);
        done.later.insert(at, at + u64::try_from(len).unwrap_or(0));
        while let Some((start, end)) = done.later.first_key_value().map(|(s, e)| (*s, *e)) {
            if start > done.upto {
                break;
            }
            done.upto = done.upto.max(end);
            done.later.remove(&start);
        }
        // What nobody waits for is left to the system.
        let early = !self.options.no_sync || self.drop_behind;
        if !early || done.upto - done.written_out < WRITE_OUT {
            return;
        }
        let (from, to) = (done.written_out, done.upto);
        done.written_out = to;
        drop(done);
        // For dirty pages this advice starts the writing without waiting for it; it drops clean ones.
        let advise = |from: u64, to: u64| {
            let _ = rustix::fs::fadvise(&self.file, from, std::num::NonZeroU64::new(to - from), Advice::DontNeed);
        };
        if self.direct.is_none() {
            advise(from, to);
            if self.drop_behind && to > DROP_BEHIND {
                advise(from.saturating_sub(DROP_BEHIND), to - DROP_BEHIND);
            }
        }
    }
}

impl Sink for Target {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let mut at = offset;
        let mut rest = plaintext;
        while !rest.is_empty() {
            let (run, zero) = match self.options.sparse {
                Sparse::Auto => next_run(rest),
                Sparse::Never => (rest.len(), false),
            };
            let (now, later) = rest.split_at(run);
            let written = if zero { self.write_zeroes(now, at) } else { self.write_run(now, at) };
            written.map_err(|e| self.writing(e).at(at))?;
            at += u64::try_from(run).unwrap_or(0);
            rest = later;
        }
        self.note(offset, plaintext.len());
        Ok(())
    }

    fn leave_out(&self, zeroes: &[u8], offset: u64) -> Result<()> {
        if self.options.sparse == Sparse::Never {
            return self.write(zeroes, offset);
        }
        self.write_zeroes(zeroes, offset).map_err(|e| self.writing(e).at(offset))?;
        self.note(offset, zeroes.len());
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_file(&self.temp);
        }
    }
}

/// The length of the run at the start that is all zeroes, or has none in runs worth a hole.
fn next_run(data: &[u8]) -> (usize, bool) {
    let blocks = || data.chunks(HOLE).map(|b| b.len() == HOLE && is_zero(b));
    let zero = blocks().next().unwrap_or(false);
    let n = blocks().take_while(|z| *z == zero).count();
    ((n * HOLE).min(data.len()), zero)
}

/// Whether all bytes are zero. Data that is not says so in its first bytes, most of the time.
fn is_zero(data: &[u8]) -> bool {
    data.chunks(64).all(|c| c.iter().fold(0, |all, b| all | b) == 0)
}

/// A block device, or anything else that is there already and is written in place.
pub struct InPlace(pub File);

impl Sink for InPlace {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        self.0.write_all_at(plaintext, offset).map_err(|e| Error::io("writing the output", e).at(offset))
    }

    /// What was there stays there.
    fn leave_out(&self, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }
}

/// Where the output really goes: through a link, where one may be replaced.
fn resolve(path: &Path, force: bool) -> Result<PathBuf> {
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(path.to_owned()),
        Err(e) => Err(Error::io(format!("looking at {}", shown(path)), e)),
        Ok(_) if !force => Err(exists(path)),
        Ok(meta) if meta.is_dir() => Err(Error::invalid(format!("{} is a directory", shown(path)))),
        Ok(meta) if meta.is_symlink() => {
            std::fs::canonicalize(path).map_err(|e| Error::io(format!("following the link {}", shown(path)), e))
        }
        Ok(_) => Ok(path.to_owned()),
    }
}

fn exists(path: &Path) -> Error {
    Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it")
}

fn making(temp: &Path, e: std::io::Error) -> Error {
    Error::io(format!("making {}", shown(temp)), e)
}

/// Keeps a second process from writing the same output.
fn lock_file(file: File, temp: &Path) -> Result<File> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::InvalidInput, format!("another unluks is writing {}", shown(temp))))
        }
        // Not every file system can lock; then nothing is lost but the check.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

fn open_direct(path: &Path) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// Bytes of memory that the machine has.
pub fn memory() -> u64 {
    let info = rustix::system::sysinfo();
    // On machines of 32 bits these fields are narrower.
    #[allow(clippy::useless_conversion)]
    let total = u64::try_from(info.totalram).unwrap_or(u64::MAX);
    total.saturating_mul(info.mem_unit.into())
}

/// Wipes a buffer that held plaintext.
pub(super) fn wipe(buf: &mut [u8]) {
    buf.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_zeroes_are_found_in_whole_holes() {
        let mut data = vec![0u8; 4 * HOLE + 5];
        assert_eq!(next_run(&data), (4 * HOLE, true));
        data[2 * HOLE] = 1;
        assert_eq!(next_run(&data), (2 * HOLE, true));
        assert_eq!(next_run(&data[2 * HOLE..]), (HOLE, false));
        assert_eq!(next_run(&data[4 * HOLE..]), (5, false));
    }

    #[test]
    fn an_output_is_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let target = Target::create(&path, 100_000, TargetOptions::default()).unwrap();
        target.write(&[7; 50_000], 50_000).unwrap();
        assert_eq!(target.done(), 0);
        drop(target);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);

        let target = Target::create(&path, 100_000, TargetOptions::default()).unwrap();
        target.write(&[7; 50_000], 50_000).unwrap();
        target.write(&[0; 50_000], 0).unwrap();
        assert_eq!(target.done(), 100_000);
        assert!(!path.exists());
        target.commit().unwrap();
        let got = std::fs::read(&path).unwrap();
        assert!(got[..50_000].iter().all(|b| *b == 0) && got[50_000..].iter().all(|b| *b == 7));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_replaced_unasked_and_nobody_writes_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let first = Target::create(&path, 10, TargetOptions::default()).unwrap();
        assert!(
            Target::create(&path, 10, TargetOptions::default()).err().unwrap().to_string().contains("another unluks")
        );
        std::fs::write(&path, "theirs").unwrap();
        assert_eq!(first.commit().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        assert!(Target::create(&path, 10, TargetOptions::default()).is_err());
        Target::create(&path, 3, TargetOptions { force: true, ..Default::default() }).unwrap().commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [0; 3]);
    }
}
