//! An output file that is either whole or not there: written under another name beside its own, synced, renamed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::{Sink, journal, lock, room};
use crate::error::{Error, Result, shown};
use crate::files::{self, Existing, Temp};
use crate::limits::memory;
use crate::num::to_u64;

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
    /// About how many bytes it will have, where that is not known: for how the page cache is treated.
    pub about: u64,
}

impl TargetOptions {
    pub(super) fn existing(self) -> Existing {
        if self.force { Existing::Replace } else { Existing::Keep }
    }
}

/// An output file that appears under its name when it is whole.
pub struct Target {
    path: PathBuf,
    temp: Temp,
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

impl Target {
    /// Starts an output of `len` bytes that will be `path`.
    ///
    /// The whole length is allocated first, where the file system can: a disk that is too small says so before hours of
    /// work, and writing is faster. Where the room is not there, an output that may be sparse takes what it needs as it
    /// is written.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where `path` is there and may not be replaced, is no regular file, or another process
    /// writes to it, or an unfinished output is there that could be resumed; [`Io`](crate::ErrorKind::Io) where it cannot be made.
    pub fn create(path: &Path, len: u64, options: TargetOptions) -> Result<Self> {
        let path = files::resolve(path, options.existing())?;
        let temp = Temp::make(&path, |old| {
            if !options.force {
                journal::refuse_resumable(&path, old.inode()?)?;
            }
            journal::forget(&path)
        })?;
        let mut target = Self::with(path, temp, len, options);
        // Only now is it known that the journal is nobody's: one that wrote to it would have the unfinished file locked.
        journal::forget(&target.path)?;
        target.allocate(len)?;
        Ok(target)
    }

    /// Takes over an output that was left behind. None of it counts as done yet.
    pub(super) fn reopen(path: &Path, len: u64, options: TargetOptions) -> Result<Self> {
        let path = files::resolve(path, options.existing())?;
        let temp = Temp::open(&path)?.ok_or_else(|| journal::refuse("there is no unfinished output"))?;
        let mut target = Self::with(path, temp, len, options);
        (target.keep, target.allocated) = (true, true);
        Ok(target)
    }

    /// Counts the first `done` bytes as written, by an earlier run.
    pub(super) fn resume_at(&self, done: u64) {
        *lock(&self.done) = Done { upto: done, written_out: done, ..Done::default() };
    }

    fn with(path: PathBuf, temp: Temp, len: u64, options: TargetOptions) -> Self {
        let direct = match options.direct {
            Direct::Always => open_direct(&temp),
            _ => None,
        };
        let drop_behind = options.direct.drops_behind(len.max(options.about));
        let done = Mutex::default();
        Self { path, temp, direct, options, allocated: false, drop_behind, done, keep: false }
    }

    /// Gives the file its length and, where it can be had, its room.
    fn allocate(&mut self, len: u64) -> Result<()> {
        self.file().set_len(len).map_err(|e| self.writing(e))?;
        if len == 0 {
            return Ok(());
        }
        let may_be_sparse = self.options.sparse == Sparse::Auto;
        // A disk that fills up, if only for a moment, is full for everybody on it.
        if room::free(files::folder(&self.path)).is_some_and(|free| free < len) && may_be_sparse {
            return Ok(());
        }
        match rustix::fs::fallocate(self.file(), FallocateFlags::empty(), 0, len) {
            Ok(()) => self.allocated = true,
            Err(Errno::NOSPC | Errno::DQUOT) if may_be_sparse => {
                // Some file systems keep what they got of it.
                self.file().set_len(0).and_then(|()| self.file().set_len(len)).map_err(|e| self.writing(e))?;
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(e) => return Err(self.writing(e.into())),
        }
        Ok(())
    }

    fn file(&self) -> &File {
        self.temp.file()
    }

    /// The output under its temporary name, for reading back.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be opened once more.
    pub fn reader(&self) -> Result<File> {
        self.file().try_clone().map_err(|e| self.writing(e))
    }

    /// Which file it is on its file system.
    pub(super) fn inode(&self) -> Result<u64> {
        self.temp.inode()
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The temporary name.
    pub fn temp_path(&self) -> &Path {
        self.temp.name()
    }

    /// How many bytes from the start are written without a gap.
    pub fn done(&self) -> u64 {
        lock(&self.done).upto
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file().sync_data().map_err(|e| self.writing(e))
    }

    /// Leaves the temporary file where it is when the target is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Removes the temporary file when the target is dropped.
    pub fn discard(&mut self) {
        self.keep = false;
    }

    /// Cuts the output to `len` bytes, where it was taken for longer.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be cut.
    pub fn truncate(&self, len: u64) -> Result<()> {
        self.file().set_len(len).map_err(|e| self.writing(e))
    }

    /// Syncs the output, where it is wanted on the disk, and gives it its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be synced or renamed; [`InvalidInput`](crate::ErrorKind::InvalidInput) where somebody else took the
    /// name meanwhile.
    pub fn commit(mut self) -> Result<()> {
        if !self.options.no_sync {
            self.file().sync_all().map_err(|e| self.writing(e))?;
        }
        let renamed = self.temp.rename(&self.path, self.options.existing());
        // All of it is there, whatever becomes of its name.
        self.keep = true;
        renamed.map_err(|e| e.with_hint(format!("the output is whole, and in {}", shown(self.temp.name()))))?;
        if self.options.no_sync { Ok(()) } else { files::sync_folder(&self.path) }
    }

    fn writing(&self, e: std::io::Error) -> Error {
        files::failed(&self.path, e)
    }

    fn write_run(&self, run: &[u8], at: u64) -> std::io::Result<()> {
        let aligned = run.len() / DIRECT_ALIGN * DIRECT_ALIGN;
        match &self.direct {
            Some(direct)
                if at.is_multiple_of(4096) && aligned > 0 && run.as_ptr().addr().is_multiple_of(DIRECT_ALIGN) =>
            {
                direct.write_all_at(&run[..aligned], at)?;
                self.file().write_all_at(&run[aligned..], at + to_u64(aligned))
            }
            _ => self.file().write_all_at(run, at),
        }
    }

    /// Leaves out, or punches out, a run of zeroes.
    fn write_zeroes(&self, zeroes: &[u8], at: u64) -> std::io::Result<()> {
        if !self.allocated {
            return Ok(());
        }
        let len = to_u64(zeroes.len());
        match rustix::fs::fallocate(self.file(), FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => Ok(()),
            Err(_) => self.file().write_all_at(zeroes, at),
        }
    }

    /// Takes note that `len` bytes at `at` are written, and has the system write out what is finished.
    fn note(&self, at: u64, len: usize) {
        let mut done = lock(&self.done);
        done.later.insert(at, at + to_u64(len));
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
            let _ = rustix::fs::fadvise(self.file(), from, std::num::NonZeroU64::new(to - from), Advice::DontNeed);
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
            at += to_u64(run);
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
            self.temp.remove();
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

/// The same file once more, with `O_DIRECT`, where the file system has that.
fn open_direct(temp: &Temp) -> Option<File> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let direct = OpenOptions::new().write(true).custom_flags(flags).open(temp.name()).ok()?;
    let id = |file: &File| file.metadata().ok().map(|m| (m.dev(), m.ino()));
    (id(&direct)? == id(temp.file())?).then_some(direct)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

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

    #[test]
    fn what_gets_the_name_is_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let options = TargetOptions { force: true, no_sync: true, ..Default::default() };
        for _ in 0..200 {
            let write = |byte: u8| {
                let target = Target::create(&path, 3000, options)?;
                for at in [0, 1000, 2000] {
                    target.write(&[byte; 1000], at)?;
                }
                target.commit()
            };
            let whole = std::thread::scope(|scope| {
                let all = [1u8, 2, 3, 4].map(|byte| scope.spawn(move || write(byte)));
                all.map(|one| one.join().unwrap()).into_iter().filter(Result::is_ok).count()
            });
            assert!(whole > 0);
            let got = std::fs::read(&path).unwrap();
            assert!(
                got.len() == 3000 && got[0] > 0 && got.iter().all(|b| *b == got[0]),
                "{} {:?}",
                got.len(),
                &got[..9]
            );
            std::fs::remove_file(&path).unwrap();
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
