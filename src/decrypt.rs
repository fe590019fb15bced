//! The plaintext of a volume as a stream: read, decrypted in place and written in chunks that stay in the cache, on all
//! cores, with memory that does not grow with the image.
//!
//! ```text
//!  worker 1: claim chunk ─► fetch ─► decipher ─► write at its offset ─┐   (a file: in any order)
//!  worker 2: claim chunk ─► fetch ─► decipher ─► wait its turn, write ─┤   (a pipe: in order)
//!                                                                       ▼
//!                                              in order to the hash hashers, a thread each
//! ```

mod buffer;
pub mod hash;
mod journal;
pub mod output;
mod room;
mod target;

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Condition, Error, Hint, Result, catch_panic};
use crate::io::{Pipe, ReadAt};
use crate::num::{at_most, from_u32, to_u64, to_usize};
use crate::progress::Progress;
use crate::volume::{Missing, Volume};
use buffer::{Chunk, Pool};
use hash::Hashers;

pub use journal::Identity;
pub use target::{Direct, Sparse};

/// Bytes that a worker reads, decrypts and writes at a time: they fit the second-level cache of one core.
pub const CHUNK: usize = 512 << 10;

/// How far ahead of the reading the system is told what comes. A disk that is slower than decrypting is kept busy so.
const READ_AHEAD: u64 = 8 << 20;

/// How a stream runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many threads decrypt; as many as the machine has cores where it is `None`.
    pub threads: Option<NonZeroUsize>,
    /// A source that ends early is taken as far as it has whole sectors.
    pub allow_truncated: bool,
    /// What was read leaves the page cache: for a source that would fill it.
    pub drop_behind: bool,
}

/// Where plaintext goes.
pub trait Sink: Sync {
    /// Whether chunks must come in order.
    fn in_order(&self) -> bool;

    /// Takes plaintext that belongs at `offset` of the output.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written.
    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()>;

    /// Leaves out plaintext that belongs at `offset` of the output; where it must have some, that is `zeroes`.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn leave_out(&self, zeroes: &[u8], offset: u64) -> Result<()> {
        self.write(zeroes, offset)
    }
}

/// A pipe, a terminal or anything else that takes bytes one after the other.
pub struct Stream<W: Write + Send> {
    to: Mutex<W>,
    name: String,
}

impl<W: Write + Send> Stream<W> {
    /// Takes a writer; it should not buffer.
    pub fn new(to: W) -> Self {
        Self::named(to, "the output".into())
    }

    /// Takes a writer that messages call `name`.
    fn named(to: W, name: String) -> Self {
        Self { to: Mutex::new(to), name }
    }
}

impl<W: Write + Send> Sink for Stream<W> {
    fn in_order(&self) -> bool {
        true
    }

    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let mut to = lock(&self.to);
        to.write_all(plaintext).and_then(|()| to.flush()).map_err(|e| {
            let what = match e.kind() {
                std::io::ErrorKind::BrokenPipe => format!("writing {}: whoever read the output went away", self.name),
                _ => format!("writing {}", self.name),
            };
            Error::io(what, e).at(offset).with_condition(Condition::Output)
        })
    }
}

/// Nowhere: for hashes alone.
pub struct Discard;

impl Sink for Discard {
    fn in_order(&self) -> bool {
        false
    }

    fn write(&self, _: &[u8], _: u64) -> Result<()> {
        Ok(())
    }
}

/// The part of a volume to stream.
pub struct Job<'a> {
    /// The volume.
    pub volume: &'a Volume,
    /// The first byte of plaintext.
    pub start: u64,
    /// Bytes of plaintext from `start` on; `None` is all.
    pub len: Option<u64>,
}

impl Job<'_> {
    /// The end of the plaintext to stream; with a pipe whose length is not known, the most that it can be.
    fn end(&self) -> u64 {
        self.len.map_or(self.volume.len(), |len| self.start.saturating_add(len))
    }
}

/// Streams a part of a volume, and says how many bytes of plaintext there were.
///
/// The output's offset 0 is the plaintext's `job.start`. The first `skip` bytes of the output are there already: they
/// are neither read nor written.
///
/// # Errors
/// The first error of reading, decrypting or writing; [`Corrupt`](crate::ErrorKind::Corrupt) where a pipe ends
/// early; [`Cancelled`](crate::ErrorKind::Cancelled) where somebody stopped it.
pub fn run(
    job: &Job<'_>,
    skip: u64,
    sink: &dyn Sink,
    hashers: &Hashers,
    options: Options,
    progress: &Progress,
) -> Result<u64> {
    let threads = options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let threads = crate::threads::room(threads);
    let pool = Pool::new(CHUNK);
    let begin = job.start.saturating_add(skip);
    let chunk = to_u64(CHUNK);
    let pipeline = Pipeline {
        job,
        sink,
        hashers,
        options,
        progress,
        pool: &pool,
        begin,
        end: Mutex::new(job.end()),
        first: begin / chunk,
        claim: Mutex::new(begin / chunk),
        turn: Mutex::new(begin / chunk),
        turned: Condvar::new(),
        failure: Mutex::new(None),
        failed: AtomicBool::new(false),
    };
    let started = std::thread::scope(|scope| {
        // The hashers come to their end when the last worker has dropped its share of the feeds.
        let feeds = hashers.start(scope, &pipeline.failed, progress);
        let feeds = Arc::new(feeds.inspect_err(|_| pipeline.failed.store(true, Ordering::Relaxed))?);
        let pipeline = &pipeline;
        // Buffers come before the stacks of many threads, which may take all of the address space that is left.
        drop([pipeline.pool.take()?, pipeline.pool.take()?]);
        for n in 1..threads {
            let feeds = Arc::clone(&feeds);
            let worker = std::thread::Builder::new().name(format!("decrypt-{n}"));
            // Where no thread can be had, the ones there are do its work.
            if worker.spawn_scoped(scope, move || pipeline.work(&feeds)).is_err() {
                break;
            }
        }
        pipeline.work(&feeds);
        Ok(())
    });
    started?;
    if let Some(e) = lock(&pipeline.failure).take() {
        return Err(e);
    }
    if progress.is_cancelled() {
        return Err(stopped());
    }
    let end = *lock(&pipeline.end);
    end.checked_sub(job.start).ok_or_else(|| {
        Error::invalid(format!("the part starts at byte {}, but the plaintext ends at byte {end}", job.start))
    })
}

fn stopped() -> Error {
    Error::cancelled()
}

/// What the workers share.
struct Pipeline<'a> {
    job: &'a Job<'a>,
    sink: &'a dyn Sink,
    hashers: &'a Hashers,
    options: Options,
    progress: &'a Progress,
    pool: &'a Pool,
    begin: u64,
    /// The end of the plaintext; a pipe may bring it nearer.
    end: Mutex<u64>,
    first: u64,
    claim: Mutex<u64>,
    turn: Mutex<u64>,
    turned: Condvar,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

/// A chunk of ciphertext, claimed and read.
struct Claimed<'p> {
    index: u64,
    /// The plaintext offset of the chunk's first byte.
    offset: u64,
    chunk: Chunk<'p>,
}

impl<'a> Pipeline<'a> {
    fn work<'s>(&'s self, feeds: &hash::Feeds<'s>)
    where
        'a: 's,
    {
        let worked = catch_panic("decrypting", || {
            self.claim_all(feeds);
            Ok(())
        });
        if let Err(e) = worked {
            self.fail(e);
        }
    }

    /// Decrypts chunk after chunk, until there is none left or something failed.
    fn claim_all<'s>(&'s self, feeds: &hash::Feeds<'s>)
    where
        'a: 's,
    {
        loop {
            if self.progress.is_cancelled() {
                self.fail(stopped());
            }
            if self.failed.load(Ordering::Relaxed) {
                return;
            }
            match self.claim() {
                Ok(Some(claimed)) => {
                    if let Err(e) = self.process(claimed, feeds) {
                        self.fail(e);
                    }
                }
                Ok(None) => return,
                Err(e) => self.fail(e),
            }
        }
    }

    fn fail(&self, e: Error) {
        lock(&self.failure).get_or_insert(e);
        self.failed.store(true, Ordering::Relaxed);
        self.turned.notify_all();
    }

    /// Takes the next chunk and reads its ciphertext. From a file, workers read side by side; from a pipe, in turn.
    fn claim(&self) -> Result<Option<Claimed<'a>>> {
        let size = to_u64(self.pool.size());
        let mut next = lock(&self.claim);
        let index = *next;
        let offset = index.saturating_mul(size);
        if offset >= *lock(&self.end) {
            return Ok(None);
        }
        *next += 1;
        let mut chunk = self.pool.take()?;
        if let Some(pipe) = self.job.volume.pipe() {
            self.fill_from_pipe(pipe, &mut chunk, offset)?;
            return Ok((!chunk.is_empty()).then_some(Claimed { index, offset, chunk }));
        }
        drop(next);
        self.job.volume.will_need(offset.saturating_add(READ_AHEAD), size);
        let len = self.job.volume.len().saturating_sub(offset).min(size);
        chunk.resize(to_usize(len)?);
        // What nobody asked for need not be readable, unless the image is hashed.
        let wanted = if self.hashers.want_ciphertext() { 0..chunk.len() } else { self.wanted(offset, chunk.len()).1 };
        if let Some(part) = chunk.get_mut(wanted.clone()) {
            self.job.volume.fetch(part, offset + to_u64(wanted.start))?;
        }
        Ok(Some(Claimed { index, offset, chunk }))
    }

    /// Which bytes of a chunk are of the part that is wanted, and which sectors those lie in.
    fn wanted(&self, offset: u64, len: usize) -> (Range<usize>, Range<usize>) {
        let end = *lock(&self.end);
        let range = at_most(self.begin.saturating_sub(offset), len)..at_most(end.saturating_sub(offset), len);
        let sector = from_u32(self.job.volume.sector_size());
        let first = range.start / sector * sector;
        let last = range.end.checked_next_multiple_of(sector).unwrap_or(range.end).min(len);
        (range, first..last)
    }

    /// Reads a chunk as far as the pipe goes, and takes note where it ends.
    fn fill_from_pipe(&self, pipe: &Pipe, chunk: &mut Chunk<'_>, offset: u64) -> Result<()> {
        let whole_file =
            || Error::unsupported("pipe", "this image cannot come through a pipe").with_hint("save it to a file first");
        let volume = self.job.volume;
        let wanted = at_most(volume.len().saturating_sub(offset), self.pool.size());
        chunk.resize(wanted);
        // A chunk may reach over the border of two segments, which need not lie side by side.
        let (mut got, mut stopped) = (0, 0);
        while let Some(part) = chunk.get_mut(got..).filter(|part| !part.is_empty()) {
            let (at, run) = volume.locate(offset + to_u64(got))?.ok_or_else(whole_file)?;
            let len = at_most(run, part.len());
            let came = pipe.read_on(&mut part[..len], at)?;
            got += came;
            stopped = at + to_u64(came);
            if came < len {
                break;
            }
        }
        if got == wanted {
            return Ok(());
        }
        let sector = from_u32(self.job.volume.sector_size());
        let whole = got / sector * sector;
        // A pipe that ended before the part began has no plaintext up to there.
        let before = stopped.saturating_sub(pipe.position());
        let offset = offset.saturating_sub(before);
        let offset = if before > 0 { offset - offset % to_u64(sector) } else { offset };
        let ends = offset + to_u64(got);
        let mut end = lock(&self.end);
        // Where the segment has no size of its own, the pipe's end is its end; a length that was asked for is a promise.
        let promised = self.job.len.is_some() || !self.job.volume.is_open_ended();
        if !self.options.allow_truncated && (whole != got || promised && ends < *end) {
            let bytes = if promised {
                end.saturating_sub(ends)
            } else {
                to_u64(sector.saturating_sub(got.saturating_sub(whole)))
            };
            let missing = Missing { bytes, at_least: !promised };
            return Err(Error::corrupt("truncated", format!("the pipe ended {missing} too early"))
                .at(stopped)
                .with_hint(Hint::AllowTruncated));
        }
        if !self.options.allow_truncated && offset == 0 && whole == 0 {
            let message = "the pipe ended where the data should start: there is nothing to decrypt";
            return Err(Error::corrupt("truncated", message).at(stopped).with_hint(Hint::HeaderBackup));
        }
        *end = (*end).min(offset + to_u64(whole));
        chunk.resize(whole);
        Ok(())
    }

    fn process<'s>(&'s self, claimed: Claimed<'s>, feeds: &hash::Feeds<'s>) -> Result<()> {
        let Claimed { index, offset, mut chunk } = claimed;
        let ciphertext = if self.hashers.want_ciphertext() {
            match self.job.volume.locate(offset)? {
                // What lies in several places is read again by whoever hashes the image.
                Some((at, run)) if u64::try_from(chunk.len()).is_ok_and(|len| len <= run) => {
                    Some((self.pool.copy_of(&chunk)?, at))
                }
                _ => None,
            }
        } else {
            None
        };
        let from = self.begin.saturating_sub(offset);
        // A bad sector that nobody asked for is no error: only the sectors that are wanted are decrypted.
        let (range, sectors) = self.wanted(offset, chunk.len());
        if let Some(wanted) = chunk.get_mut(sectors.clone()) {
            self.job.volume.decipher(wanted, offset + to_u64(sectors.start))?;
        }
        if self.options.drop_behind {
            self.job.volume.wont_need(offset, to_u64(chunk.len()));
        }
        let plaintext = chunk.get(range.clone()).unwrap_or_default();
        let in_order = self.sink.in_order();
        let write = || self.write(plaintext, offset.saturating_add(from));
        if !in_order {
            write()?;
            self.progress.add(to_u64(plaintext.len()));
        }
        if in_order || !feeds.is_empty() {
            let Some(mut turn) = self.wait_turn(index) else { return Ok(()) };
            if in_order {
                write()?;
                self.progress.add(to_u64(plaintext.len()));
            }
            feeds.send(chunk, range, ciphertext);
            *turn += 1;
            drop(turn);
            self.turned.notify_all();
        }
        Ok(())
    }

    /// Writes the plaintext of the volume at `offset`, without sectors that are to be left out.
    fn write(&self, plaintext: &[u8], offset: u64) -> Result<()> {
        let place = offset.saturating_sub(self.job.start);
        let end = offset.saturating_add(to_u64(plaintext.len()));
        let mut done = 0;
        let mut upto = |at: u64, leave_out: bool| {
            let upto = at_most(at.saturating_sub(offset), plaintext.len());
            let part = plaintext.get(done..upto).unwrap_or_default();
            let place = place.saturating_add(to_u64(done));
            done = upto;
            if part.is_empty() {
                Ok(())
            } else if leave_out {
                self.sink.leave_out(part, place)
            } else {
                self.sink.write(part, place)
            }
        };
        for bad in self.job.volume.bad_sectors().left_out(offset..end) {
            upto(bad.start, false)?;
            upto(bad.end, true)?;
        }
        upto(end, false)
    }

    /// Waits until all chunks before `index` are through; `None` where the stream has failed meanwhile.
    fn wait_turn(&self, index: u64) -> Option<MutexGuard<'_, u64>> {
        debug_assert!(index >= self.first);
        let mut turn = lock(&self.turn);
        while *turn != index {
            if self.failed.load(Ordering::Relaxed) {
                return None;
            }
            // A failure may be noted between the look and the wait, so the wait is not for ever.
            let wait = self.turned.wait_timeout(turn, std::time::Duration::from_millis(100));
            turn = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        if self.failed.load(Ordering::Relaxed) { None } else { Some(turn) }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
