//! The one safe way out: what an output is and may not be, looked at before any work; then written, and named when it is
//! whole.
//!
//! ```text
//!  check ─► Checked ─► begin ─► Writing ─► run ─► Written ─► commit
//!  no key is         made, or         plaintext, hashes,     synced, and
//!  derived yet       resumed          journal                under its name
//! ```
//!
//! A file gets its name only in the last step: dropped before it, what cannot be resumed is removed. A pipe and a device
//! are written in place.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::hash::{Hashed, Hashers, Of, PipeHashes, Wanted};
use super::journal::{self, Identity, Journal};
use super::target::{Direct, Sparse, Target, TargetOptions};
use super::{Job, Options, Sink, Stream, room};
use crate::error::{Condition, Error, Hint, Result, shown};
use crate::files::{self, Inputs, kind};
use crate::io::ReadAt;
use crate::progress::Progress;
use crate::volume::BadSectorPolicy;

/// An output below this is not worth a journal, and a journal's line is not worth its sync for less.
const JOURNAL_FROM: u64 = 64 << 20;
/// How often the journal is brought up to date.
const EVERY: Duration = Duration::from_secs(2);
/// How much of the output is compared with the image again before a journal is trusted, at both ends.
const COMPARED: u64 = 1 << 20;

/// Where plaintext goes.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// The standard output.
    Stdout,
    /// A file, a FIFO, a character device or a block device.
    Path(&'a Path),
}

/// How an output is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions {
    /// Replace a file that is there, and an unfinished one that could be resumed; overwrite a block device.
    pub force: bool,
    /// Resume an output that was left unfinished.
    pub resume: bool,
    /// Whether runs of zero plaintext become holes.
    pub sparse: Sparse,
    /// How the page cache is treated.
    pub direct: Direct,
    /// Give the file its name without waiting for the disk: what `cp` does, and what a power cut may undo.
    pub no_sync: bool,
    /// About how many bytes it will have, where that is not known: for how the page cache is treated.
    pub about: u64,
}

impl OutputOptions {
    fn target(self) -> TargetOptions {
        let Self { force, sparse, direct, no_sync, about, .. } = self;
        TargetOptions { force, sparse, direct, no_sync, about }
    }
}

/// An output that was looked at, and is not written to yet.
#[must_use]
pub struct Checked {
    to: To,
    options: OutputOptions,
    /// What a user should know before hours of work, one line each.
    pub notes: Vec<String>,
}

/// What kind of output it is.
enum To {
    Stream { file: File, name: String },
    Device { file: File, name: String },
    File(PathBuf),
}

/// Looks at an output before any work is done, and refuses what would do harm or cannot be. `len` is its length, where
/// that is known already.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an output that is one of `inputs`, that is there and may not be
/// replaced, that another process writes, or that is unfinished and could be resumed, and for a `resume` without such a
/// one; [`Io`](crate::ErrorKind::Io) where the output cannot be made, or has no room.
pub fn check(to: Destination<'_>, inputs: &Inputs, len: Option<u64>, options: OutputOptions) -> Result<Checked> {
    let to = match to {
        Destination::Stdout => stdout(inputs, options)?,
        Destination::Path(path) => look(path, inputs, options)?,
    };
    let mut checked = Checked { to, options, notes: Vec::new() };
    match &checked.to {
        To::File(path) => checked.notes.extend(check_file(path, len, options)?),
        To::Device { file, name } => check_device(file, name, len.unwrap_or(0))?,
        To::Stream { .. } => {}
    }
    Ok(checked)
}

fn output(e: Error) -> Error {
    e.with_condition(Condition::Output)
}

fn stdout(inputs: &Inputs, options: OutputOptions) -> Result<To> {
    use std::io::IsTerminal;
    use std::os::fd::AsFd;
    let stdout = std::io::stdout();
    if stdout.is_terminal() && !options.force {
        let e = Error::invalid("the plaintext would go to the terminal").with_hint(Hint::ForceTerminal);
        return Err(output(e));
    }
    let opening = |e| output(Error::io("opening the standard output", e));
    let file = File::from(stdout.as_fd().try_clone_to_owned().map_err(opening)?);
    let mode = rustix::fs::fcntl_getfl(&file).map_err(|e| opening(e.into()))? & OFlags::RWMODE;
    // In place of one that is closed, Rust's standard library opens this before the program starts. What a shell and
    // most programs open to throw output away is open for writing alone.
    if mode == OFlags::RDONLY || mode == OFlags::RDWR && is_null(&file) {
        let e = Error::invalid("the standard output is closed: the plaintext would go nowhere");
        return Err(output(e.with_hint("redirect it, or name a file; -o /dev/null throws it away")));
    }
    inputs.refuse_file(&file, "the standard output")?;
    no_resume(options)?;
    Ok(To::Stream { file, name: "the standard output".into() })
}

fn is_null(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == rustix::fs::makedev(1, 3))
}

fn look(path: &Path, inputs: &Inputs, options: OutputOptions) -> Result<To> {
    for name in files::names(path)? {
        inputs.refuse(&name)?;
    }
    let opening = |e| output(Error::io(format!("opening {}", shown(path)), e));
    let name = shown(path);
    let Ok(meta) = std::fs::metadata(path) else {
        // Nothing, a link to nothing, or out of reach.
        room::check_folder(path)?;
        if files::folder(path).canonicalize().is_ok_and(|folder| folder == Path::new("/dev")) {
            // A file there would be one in memory, under the name that a device gets when it comes.
            return Err(output(Error::invalid(format!("there is no device {name}"))));
        }
        return files::resolve(path, options.target().existing()).map(To::File);
    };
    let file_type = meta.file_type();
    if file_type.is_dir() {
        return Err(output(Error::invalid(format!("{name} is a directory")).with_hint("name a file in it")));
    }
    if file_type.is_char_device() || file_type.is_fifo() {
        no_resume(options)?;
        let file = File::options().write(true).open(path).map_err(opening)?;
        return Ok(To::Stream { file, name });
    }
    if file_type.is_block_device() {
        if !options.force {
            let e = Error::invalid(format!("{name} is a block device")).with_hint(Hint::ForceDevice);
            return Err(output(e));
        }
        no_resume(options)?;
        return open_device(path).map(|file| To::Device { file, name });
    }
    if !file_type.is_file() {
        return Err(output(Error::invalid(format!("{name} is {}, and no output", kind(&meta)))));
    }
    files::resolve(path, options.target().existing()).map(To::File)
}

fn no_resume(options: OutputOptions) -> Result<()> {
    if options.resume {
        return Err(output(Error::invalid("a pipe or a device cannot be resumed: an output file can")));
    }
    Ok(())
}

/// Opens a block device for itself alone: what is mounted, or a part of another device, is refused by the kernel.
fn open_device(path: &Path) -> Result<File> {
    let flags = i32::try_from(OFlags::EXCL.bits()).map_err(|e| Error::invalid(e.to_string()))?;
    OpenOptions::new().write(true).custom_flags(flags).open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::ResourceBusy => {
            let message = format!("{} is in use: it is mounted, or a part of another device", shown(path));
            output(Error::invalid(message).with_hint("unmount it or take it out of use, or write elsewhere"))
        }
        _ => output(Error::io(format!("opening {}", shown(path)), e)),
    })
}

fn check_device(file: &File, name: &str, len: u64) -> Result<()> {
    let mut device = file;
    let size = device.seek(SeekFrom::End(0)).map_err(|e| output(Error::io(format!("looking at {name}"), e)))?;
    if size < len {
        let message = format!("{name} has {size} bytes, and the plaintext has {len}");
        return Err(output(Error::invalid(message).with_hint(Hint::Length)));
    }
    Ok(())
}

/// Looks at a file that is to be made, and gives what a user should know.
fn check_file(path: &Path, len: Option<u64>, options: OutputOptions) -> Result<Option<String>> {
    room::check_folder(path)?;
    // Whoever writes it has it locked; the lock that is taken for this look goes with it.
    let there = files::Temp::open(path)?;
    if options.resume {
        journal::refuse_nothing(path)?;
        return there.map(|_| None).ok_or_else(|| journal::refuse("there is no unfinished output"));
    }
    if let Some(there) = there.filter(|_| !options.force) {
        journal::refuse_resumable(path, there.inode()?)?;
    }
    let Some(len) = len else { return Ok(None) };
    room::check_size(path, len)?;
    room::check_free(path, len, options.sparse == Sparse::Auto)
}

impl Checked {
    /// Makes the output, or resumes it; `identity` is what a journal must be of, where the image can be read again.
    ///
    /// # Errors
    /// As [`check`], for what changed since, and what was not known then. [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// where the output cannot be resumed, with the reason.
    pub fn begin(self, job: Job<'_>, identity: Option<Identity>) -> Result<Writing<'_>> {
        let Self { to, options, .. } = self;
        let (sink, journal) = match to {
            To::Stream { file, name } => (Way::Stream(Stream::named(file, name)), None),
            To::Device { file, name } => {
                check_device(&file, &name, job.len.unwrap_or(0))?;
                (Way::Device(Device { file, name }), None)
            }
            To::File(path) => {
                let (target, journal) = begin_file(&path, &job, identity, options)?;
                (Way::File(target), journal)
            }
        };
        Ok(Writing { job, sink, journal, options })
    }
}

fn begin_file(
    path: &Path,
    job: &Job<'_>,
    identity: Option<Identity>,
    options: OutputOptions,
) -> Result<(Target, Option<Journal>)> {
    let len = job.len.unwrap_or(0);
    if options.resume {
        let identity = identity.ok_or_else(|| {
            output(Error::invalid("an output of an image that comes through a pipe cannot be resumed"))
        })?;
        return resume(path, &identity, job, options).map(|(target, journal)| (target, Some(journal)));
    }
    room::check_size(path, len)?;
    let target = Target::create(path, len, options.target())?;
    // Bad sectors that were passed over are not noted in a journal, so a second run would not tell of them.
    let noted = len >= JOURNAL_FROM && !options.no_sync && passes_over_nothing(job);
    let journal = identity
        .filter(|_| noted)
        .map(|identity| Journal::create(target.path(), identity, target.inode()?))
        .transpose();
    match journal {
        Ok(journal) => Ok((target, journal)),
        // A sparse output may fit where not even a journal does.
        Err(e) if e.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull) => Ok((target, None)),
        Err(e) => Err(e),
    }
}

fn passes_over_nothing(job: &Job<'_>) -> bool {
    job.volume.bad_sectors().policy() == BadSectorPolicy::Refuse
}

/// Resumes an output that was left behind, if its journal is there, fits, and tells the truth.
fn resume(path: &Path, identity: &Identity, job: &Job<'_>, options: OutputOptions) -> Result<(Target, Journal)> {
    let target = Target::reopen(path, identity.len, options.target())?;
    let journal = Journal::open(target.path(), identity, target.inode()?)?;
    let written = target.reader()?;
    let there = written.metadata().map_err(|e| files::failed(path, e))?.len();
    if there != identity.len {
        return Err(journal::refuse(&format!("the unfinished output has {there} bytes, not {}", identity.len)));
    }
    let done = journal.done();
    for at in [0, done.saturating_sub(COMPARED)] {
        if !same(&written, job, at, done.min(at + COMPARED))? {
            return Err(journal::refuse("the unfinished output is not what this key and image give"));
        }
    }
    target.resume_at(done);
    Ok((target, journal))
}

/// Whether the output from `from` to `to` is what decrypting gives.
fn same(written: &File, job: &Job<'_>, from: u64, to: u64) -> Result<bool> {
    let len = crate::num::to_usize(to.saturating_sub(from))?;
    let (mut there, mut wanted) = (Zeroizing::new(vec![0u8; len]), Zeroizing::new(vec![0u8; len]));
    written.read_exact_at(&mut there, from).map_err(|e| output(Error::io("reading the unfinished output", e)))?;
    job.volume.read_exact_at(&mut wanted, job.start.saturating_add(from))?;
    Ok(there == wanted)
}

/// A block device, written in place.
struct Device {
    file: File,
    name: String,
}

impl Sink for Device {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let failed = |e| output(Error::io(format!("writing {}", self.name), e).at(offset));
        self.file.write_all_at(plaintext, offset).map_err(failed)
    }

    /// What was there stays there.
    fn leave_out(&self, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }
}

enum Way {
    Stream(Stream<File>),
    Device(Device),
    File(Target),
}

impl Way {
    fn sink(&self) -> &dyn Sink {
        match self {
            Self::Stream(stream) => stream,
            Self::Device(device) => device,
            Self::File(target) => target,
        }
    }

    fn target(&self) -> Option<&Target> {
        match self {
            Self::File(target) => Some(target),
            _ => None,
        }
    }
}

/// What is hashed while the plaintext is written.
#[derive(Default)]
pub struct Hashes<'a> {
    /// Which hashes.
    pub wanted: &'a [Wanted],
    /// The files of the image in their order, where it comes through no pipe.
    pub image: Vec<Arc<dyn ReadAt>>,
    /// The stream reads the first of them byte for byte, so that its chunks can be hashed as they pass by.
    pub passes_by: bool,
}

/// An output that is being written.
#[must_use]
pub struct Writing<'a> {
    job: Job<'a>,
    sink: Way,
    journal: Option<Journal>,
    options: OutputOptions,
}

impl Writing<'_> {
    /// How many bytes of the output are there from an earlier run.
    pub fn resumed_at(&self) -> u64 {
        self.sink.target().map_or(0, Target::done)
    }

    /// The file that has to be removed where the process ends at once; `None` where there is none, or its journal vouches
    /// for it.
    pub fn unfinished(&self) -> Option<PathBuf> {
        self.sink.target().filter(|_| self.journal.is_none()).map(|target| target.temp_path().to_owned())
    }

    /// Whether a journal is kept, so that the output can be resumed where it ends early.
    pub fn can_resume(&self) -> bool {
        self.journal.is_some()
    }

    /// Writes the plaintext, hashes it, and keeps the journal.
    ///
    /// # Errors
    /// As [`super::run`]. What can be resumed is kept, and the hint says so.
    pub fn run(mut self, hashes: &Hashes<'_>, threads: Options, progress: &Progress) -> Result<Written> {
        let len = self.job.len.unwrap_or(self.options.about);
        let threads = Options { drop_behind: self.options.direct.drops_behind(len), ..threads };
        match self.stream(hashes, threads, progress) {
            Ok((bytes, hashes)) => {
                let missing = self.job.len.and_then(|len| len.checked_sub(bytes)).unwrap_or(0);
                let (sink, journal) = (Some(self.sink), self.journal);
                let cut = self.job.len.is_none() || missing > 0;
                Ok(Written { bytes, hashes, missing, sink, journal, cut, no_sync: self.options.no_sync })
            }
            Err(e) => Err(self.give_up(e)),
        }
    }

    fn stream(&mut self, hashes: &Hashes<'_>, options: Options, progress: &Progress) -> Result<(u64, Vec<Hashed>)> {
        let skip = self.resumed_at();
        let mut hashers = Hashers::default();
        let (pipe, mut of_pipe) = (self.job.volume.pipe(), Vec::new());
        for w in hashes.wanted {
            match (w.of, pipe) {
                (Of::Plaintext, _) => {
                    let target = self.sink.target().filter(|_| skip > 0);
                    let written = target.map(|target| target.reader().map(|file| (file, skip))).transpose()?;
                    hashers.plaintext(w.algorithm, written);
                }
                (Of::Image, Some(_)) => of_pipe.push(w.algorithm),
                (Of::Image, None) => hashers.image(w.algorithm, hashes.image.clone(), hashes.passes_by),
            }
        }
        let tap = |pipe| PipeHashes::tap(pipe, &of_pipe).map(|tapped| (pipe, tapped));
        let tapped = pipe.filter(|_| !of_pipe.is_empty()).map(tap).transpose()?;
        progress.add(skip);
        // One that passes over bad sectors does not go on with a journal: see there.
        let journal = self.journal.as_mut().filter(|_| passes_over_nothing(&self.job));
        let stop = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let scribe = journal.zip(self.sink.target()).map(|(journal, target)| {
                let stop = &stop;
                let thread = std::thread::Builder::new().name("journal".into());
                let started = thread.spawn_scoped(scope, move || follow(journal, target, stop));
                started.map_err(|e| output(Error::io("starting a thread for the journal", e)))
            });
            let scribe = scribe.transpose()?;
            let stopped = StopScribe { stop: &stop, scribe: scribe.as_ref().map(|s| s.thread().clone()) };
            let written = super::run(&self.job, skip, self.sink.sink(), &hashers, options, progress);
            drop(stopped);
            let synced = scribe.map_or(Ok(()), |s| s.join().unwrap_or(Ok(())));
            written.and_then(|n| synced.map(|()| n))
        })?;
        let mut hashed = hashers.results()?;
        if let Some((pipe, tapped)) = tapped {
            hashed.extend(tapped.finish(pipe)?);
        }
        Ok((written, hashed))
    }

    /// Keeps what can be resumed, removes what cannot, and says so.
    fn give_up(self, e: Error) -> Error {
        let Self { job, sink, journal, .. } = self;
        let (Way::File(mut target), Some(mut journal)) = (sink, journal) else { return e };
        if passes_over_nothing(&job) {
            // What cannot be written down any more was not done.
            let _ = note(&mut journal, &target, JOURNAL_FROM);
        }
        if journal.done() == 0 {
            journal.remove();
            target.discard();
            return e;
        }
        target.keep();
        let kept = format!("{} bytes are kept in {}", journal.done(), shown(target.temp_path()));
        let hints = e.hint().cloned().into_iter().chain([kept.into(), Hint::Resume]);
        let hints = Hint::All(hints.collect());
        e.with_hint(hints)
    }
}

/// Ends the thread that keeps the journal, also where the stream panics: the scope waits for it.
struct StopScribe<'a> {
    stop: &'a AtomicBool,
    scribe: Option<std::thread::Thread>,
}

impl Drop for StopScribe<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.scribe.iter().for_each(std::thread::Thread::unpark);
    }
}

/// Writes down how far `target` is, every two seconds, until `stop` is set and this thread unparked.
fn follow(journal: &mut Journal, target: &Target, stop: &AtomicBool) -> Result<()> {
    loop {
        std::thread::park_timeout(EVERY);
        if stop.load(Ordering::Acquire) {
            return Ok(());
        }
        note(journal, target, JOURNAL_FROM)?;
    }
}

/// Writes down how far `target` is, if that is at least `step` bytes more than last time.
///
/// That the data cannot be synced is an error of the output. That the journal cannot be written is none: it says less
/// then than was done.
fn note(journal: &mut Journal, target: &Target, step: u64) -> Result<()> {
    let done = target.done();
    if done >= journal.done().saturating_add(step) {
        target.sync()?;
        let _ = journal.note(done);
    }
    Ok(())
}

/// An output that is whole, and has no name yet. Dropped, it is removed.
#[must_use]
#[non_exhaustive]
pub struct Written {
    /// Bytes of plaintext.
    pub bytes: u64,
    /// The hashes.
    pub hashes: Vec<Hashed>,
    /// How many bytes of the part a pipe did not bring.
    pub missing: u64,
    /// `None` once it is committed.
    sink: Option<Way>,
    journal: Option<Journal>,
    /// It was made longer than it is.
    cut: bool,
    no_sync: bool,
}

impl Written {
    /// Waits until the output is on the disk, where that is wanted, and gives it its name.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be synced or renamed; [`InvalidInput`](crate::ErrorKind::InvalidInput)
    /// where somebody else took the name meanwhile.
    pub fn commit(mut self) -> Result<()> {
        match self.sink.take() {
            Some(Way::File(target)) => self.commit_file(target),
            Some(Way::Device(device)) if !self.no_sync => {
                device.file.sync_all().map_err(|e| output(Error::io(format!("syncing {}", device.name), e)))
            }
            _ => Ok(()),
        }
    }

    fn commit_file(&mut self, mut target: Target) -> Result<()> {
        if self.cut {
            target.truncate(self.bytes)?;
        }
        if !self.no_sync
            && let Err(e) = target.sync()
        {
            target.keep();
            self.journal = None;
            return Err(e);
        }
        // An output that is whole has no use for a journal, also where it does not get its name.
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
        target.commit()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(journal) = self.journal.take() {
            journal.remove();
        }
        if let Some(Way::File(target)) = &mut self.sink {
            target.discard();
        }
    }
}
