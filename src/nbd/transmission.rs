//! The transmission phase: commands in, replies out, by as many threads as the work is worth.
//!
//! The threads of a connection pass one role round: to *lead* is to hold the lock of the reading side. The leader
//! answers small requests itself, straight into a batch of replies that leaves with one write as soon as no further
//! request is at hand: a client that keeps 64 requests of 4 KiB in flight costs two system calls for all of them, and
//! one positioned read each. Before the leader turns to a large request it gives the lock away, so that the next one
//! is read and answered at the same time; replies then leave in whatever order they are done.
//!
//! There is no queue: a thread holds one request and one buffer, and what is not read yet waits in the client's
//! socket. So a client can make the server hold no more than its threads do.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::{Builder, Scope};
use std::time::{Duration, Instant};

use super::activity::Activity;
use super::buffer::{Buffer, HEAD, PIECE, Reader, Wiped};
use super::handshake::Session;
use super::reply::{self, Encoder, Refusal};
use super::service::Service;
use super::stream::{Stream, lock};
use super::wire::{Request, chunk, command, command_flag, errno, len_usize};
use crate::limits::{NBD_EXTENTS_MAX, NBD_PAYLOAD_MAX};
use crate::num::to_u64;

/// Up to this length, the leader answers a read itself.
const SMALL: usize = 32 << 10;
/// A small read that takes longer waited for a device: then it is worth a thread of its own.
const SLOW: Duration = Duration::from_micros(150);
/// How much a slow read weighs against fast ones, from where on reads are given threads, and the most it adds up to.
const SLOW_WEIGHT: u32 = 8;
const SLOW_FROM: u32 = 16;
const SLOW_MOST: u32 = 64;

/// What a connection did, for the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many requests the client sent.
    pub requests: u64,
    /// How many bytes of replies it was sent.
    pub sent: u64,
}

/// One connection in its transmission phase.
pub(super) struct Connection<'a> {
    stream: &'a dyn Stream,
    service: &'a Service,
    session: Session,
    encoder: Encoder,
    activity: &'a Activity,
    reader: Mutex<Reader>,
    /// Held while one reply is written.
    writer: Mutex<()>,
    over: AtomicBool,
    threads: AtomicUsize,
    /// How many of them wait for their turn to lead.
    waiting: AtomicUsize,
    slow: AtomicU32,
    requests: AtomicU64,
    sent: AtomicU64,
}

/// Closes the stream when a thread panics: the others would wait for a request that the client never sends, since it
/// waits for a reply that never comes.
struct CloseOnPanic<'a>(&'a dyn Stream);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close();
        }
    }
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        stream: &'a dyn Stream,
        service: &'a Service,
        session: Session,
        activity: &'a Activity,
    ) -> Connection<'a> {
        Connection {
            stream,
            service,
            session,
            encoder: Encoder { structured: session.structured },
            activity,
            reader: Mutex::new(Reader::new()),
            writer: Mutex::new(()),
            over: AtomicBool::new(false),
            threads: AtomicUsize::new(1),
            waiting: AtomicUsize::new(0),
            slow: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Serves the connection until the client leaves, breaks the protocol, or the stream is closed. Requests that were
    /// read are answered before it returns.
    pub(super) fn run(&self) -> Summary {
        std::thread::scope(|scope| self.work(scope));
        Summary { requests: self.requests.load(Relaxed), sent: self.sent.load(Relaxed) }
    }

    fn work<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let _guard = CloseOnPanic(self.stream);
        let mut buffer = Buffer::default();
        while let Some((request, verdict)) = self.lead(&mut buffer) {
            self.call_helper(scope);
            let started = Instant::now();
            let outcome = self.answer_apart(&request, verdict, &mut buffer);
            self.activity.answered(1);
            match outcome {
                // Only small reads tell how the source does: a large one takes its time anywhere.
                Ok(()) if len_usize(request.length.get()) <= SMALL => self.note_time(started),
                Ok(()) => {}
                Err(_) => self.end(),
            }
        }
    }

    /// Starts another thread if the rest of the work has none that waits for it.
    fn call_helper<'s>(&'s self, scope: &'s Scope<'s, '_>) {
        let most = if self.is_slow() {
            self.service.threads
        } else {
            // More threads than cores only push each other's buffers out of the cache.
            self.service.threads.min(self.service.cores)
        };
        if self.waiting.load(SeqCst) > 0 || self.threads.load(SeqCst) >= most {
            return;
        }
        let Some(permit) = self.service.helpers.take(1) else { return };
        self.threads.fetch_add(1, SeqCst);
        let helper = Builder::new().name("nbd helper".into()).spawn_scoped(scope, move || {
            self.work(scope);
            drop(permit);
        });
        if helper.is_err() {
            // The system has no thread left: those that there are go on.
            self.threads.fetch_sub(1, SeqCst);
        }
    }

    /// Takes the lead, answers what is small, and comes back with a request that deserves a thread of its own, and what
    /// is to be done with it, its turn to lead given away. `None` when the connection is over.
    fn lead(&self, buffer: &mut Buffer) -> Option<(Request, Do)> {
        self.waiting.fetch_add(1, SeqCst);
        let reader = self.reader.lock();
        self.waiting.fetch_sub(1, SeqCst);
        // A leader that panicked left the stream out of step.
        let mut reader = reader.ok()?;
        let outcome = self.lead_with(&mut reader, buffer);
        if outcome.is_err() {
            self.end();
        }
        outcome.ok().flatten()
    }

    fn lead_with(&self, reader: &mut Reader, buffer: &mut Buffer) -> io::Result<Option<(Request, Do)>> {
        let mut batch = Batch { connection: self, buffer, used: 0, replies: 0 };
        while !self.over.load(SeqCst) {
            if !reader.has_request() {
                batch.send()?;
            }
            let Some(request) = reader.next(self.stream)? else { break };
            self.requests.fetch_add(1, Relaxed);
            self.activity.requested();
            match request.command.get() {
                command::DISC => {
                    self.activity.answered(1);
                    break;
                }
                // The payload is dropped before anything is said about it, so that the stream stays in step.
                command::WRITE => {
                    // It may be long in coming: replies that are ready do not wait for it.
                    batch.send()?;
                    let _wait = self.activity.wait();
                    reader.skip(self.stream, len_usize(request.length.get()))?;
                }
                _ => {}
            }
            let verdict = self.check(&request);
            match verdict {
                Ok(what) if self.is_for_a_thread(&request, what) => {
                    batch.send()?;
                    return Ok(Some((request, what)));
                }
                verdict => batch.answer(&request, verdict)?,
            }
        }
        batch.send()?;
        self.over.store(true, SeqCst);
        Ok(None)
    }

    /// Whether others should not wait until it is done.
    fn is_for_a_thread(&self, request: &Request, what: Do) -> bool {
        match what {
            Do::Read => len_usize(request.length.get()) > SMALL || self.is_slow(),
            Do::BlockStatus => self.is_slow(),
            Do::Cache | Do::Nothing => false,
        }
    }

    /// Answers a request that [`Connection::lead`] came back with.
    fn answer_apart(&self, request: &Request, what: Do, buffer: &mut Buffer) -> io::Result<()> {
        if let Do::Read = what {
            return self.answer_read(request, buffer);
        }
        let space = buffer.space();
        let n = self.encode(request, Ok(what), space);
        self.send(&space[..n])
    }

    /// Decides what is to be done with a request: the one place where requests are checked.
    fn check(&self, request: &Request) -> Result<Do, Refusal> {
        let (offset, length, flags) = (request.offset.get(), request.length.get(), request.flags.get());
        if self.service.is_stopping() {
            return Err(Refusal::new(errno::ESHUTDOWN, "the server stops"));
        }
        let allowed = match request.command.get() {
            command::READ if self.session.structured => command_flag::DF,
            command::BLOCK_STATUS => command_flag::REQ_ONE,
            command::WRITE | command::TRIM | command::WRITE_ZEROES => {
                return Err(Refusal::new(errno::EPERM, "the export is read-only"));
            }
            _ => 0,
        };
        if flags & !allowed != 0 {
            return Err(Refusal::new(errno::EINVAL, format!("unknown command flags {flags:#x}")));
        }
        let in_bounds = || match offset.checked_add(length.into()) {
            Some(end) if end <= self.service.export.len() => Ok(()),
            _ => Err(Refusal::new(errno::EINVAL, "beyond the end of the export")),
        };
        match request.command.get() {
            command::READ if length > NBD_PAYLOAD_MAX => {
                let code = if self.session.structured { errno::EOVERFLOW } else { errno::EINVAL };
                Err(Refusal::new(code, format!("a read has at most {NBD_PAYLOAD_MAX} bytes")))
            }
            command::READ => in_bounds().map(|()| if length == 0 { Do::Nothing } else { Do::Read }),
            command::FLUSH if (offset, length) != (0, 0) => {
                Err(Refusal::new(errno::EINVAL, "FLUSH takes no offset and no length"))
            }
            command::FLUSH => Ok(Do::Nothing),
            command::CACHE => in_bounds().map(|()| Do::Cache),
            command::BLOCK_STATUS if !self.session.base_allocation => {
                Err(Refusal::new(errno::EINVAL, "no metadata context was chosen"))
            }
            command::BLOCK_STATUS if length == 0 => Err(Refusal::new(errno::EINVAL, "a block status of nothing")),
            command::BLOCK_STATUS => in_bounds().map(|()| Do::BlockStatus),
            other => Err(Refusal::new(errno::EINVAL, format!("unknown command {other}"))),
        }
    }

    /// Writes the whole answer into `out`, and says how long it is. `out` holds the longest there is: a read of
    /// [`PIECE`], [`NBD_EXTENTS_MAX`] extents, or an error's text.
    fn encode(&self, request: &Request, verdict: Result<Do, Refusal>, out: &mut [u8]) -> usize {
        let answer = match verdict {
            Ok(Do::Read) => {
                let started = Instant::now();
                let answer = self.encode_read(request, out);
                self.note_time(started);
                answer
            }
            Ok(Do::BlockStatus) => reply::block_status(&*self.service.export.source, request, out),
            Ok(Do::Cache) => {
                self.service.export.source.will_need(request.offset.get(), request.length.get().into());
                Ok(self.encoder.success(request, out))
            }
            Ok(Do::Nothing) => Ok(self.encoder.success(request, out)),
            Err(refusal) => Err(refusal),
        };
        answer.unwrap_or_else(|refusal| self.encoder.error(request, &refusal, out))
    }

    /// A read that is answered whole, its data already right behind its head.
    fn encode_read(&self, request: &Request, out: &mut [u8]) -> Result<usize, Refusal> {
        let head = self.encoder.read_head_len();
        let (offset, length) = (request.offset.get(), len_usize(request.length.get()));
        let data = &mut out[head..head + length];
        self.read_source(data, offset)?;
        self.encoder.read_head(request, length, out);
        Ok(head + length)
    }

    fn read_source(&self, data: &mut [u8], offset: u64) -> Result<(), Refusal> {
        self.service.export.source.read_exact_at(data, offset).map_err(|e| {
            self.service.log(format_args!("a read of {} bytes from byte {offset} on failed: {e}", data.len()));
            Refusal::of_source(&e, offset)
        })
    }

    /// Answers a read of any length with a write for each piece.
    fn answer_read(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let length = len_usize(request.length.get());
        if length <= PIECE {
            let space = buffer.aligned_space(self.encoder.read_head_len());
            let n = match self.encode_read(request, space) {
                Ok(n) => n,
                Err(refusal) => self.encoder.error(request, &refusal, space),
            };
            return self.send(&space[..n]);
        }
        if !self.session.structured {
            return self.answer_read_simple(request, buffer);
        }
        if request.flags.get() & command_flag::DF != 0 {
            self.answer_read_unfragmented(request, buffer)
        } else {
            self.answer_read_in_chunks(request, buffer)
        }
    }

    fn answer_read_in_chunks(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let end = request.offset.get() + u64::from(request.length.get());
        for (offset, len) in reply::pieces(request) {
            let space = buffer.aligned_space(self.encoder.read_head_len());
            let head = self.encoder.read_head_len();
            if let Err(refusal) = self.read_source(&mut space[head..head + len], offset) {
                let n = self.encoder.error(request, &refusal, space);
                return self.send(&space[..n]);
            }
            // The last piece is read: nothing can fail any more.
            let last = offset + to_u64(len) == end;
            let flags = if last { chunk::FLAG_DONE } else { 0 };
            reply::read_chunk_head(request, flags, offset, len, space);
            self.send(&space[..head + len])?;
        }
        Ok(())
    }

    /// One chunk, sent while it is read. Once its head is out its length is promised: what cannot be read is made up
    /// for by zeroes, and an error chunk behind it says from where on (as the protocol has it).
    fn answer_read_unfragmented(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let head = self.encoder.read_head_len();
        let mut failed: Option<Refusal> = None;
        let mut turn = None;
        for (offset, len) in reply::pieces(request) {
            let space = buffer.aligned_space(head);
            let data = &mut space[head..head + len];
            match &failed {
                Some(_) => data.fill(0),
                None => match self.read_source(data, offset) {
                    Ok(()) => {}
                    Err(refusal) if turn.is_none() => {
                        let n = self.encoder.error(request, &refusal, space);
                        return self.send(&space[..n]);
                    }
                    Err(refusal) => {
                        data.fill(0);
                        failed = Some(refusal);
                    }
                },
            }
            let from = match turn {
                Some(_) => head,
                None => {
                    turn = Some(lock(&self.writer));
                    let length = len_usize(request.length.get());
                    reply::read_chunk_head(request, 0, request.offset.get(), length, space);
                    0
                }
            };
            self.write(&space[from..head + len])?;
        }
        let space = buffer.space();
        let n = match failed {
            Some(refusal) => self.encoder.error(request, &refusal, space),
            None => self.encoder.success(request, space),
        };
        self.write(&space[..n])
    }

    /// A simple reply cannot take its success back. So it is built whole where the memory for that is to be had; where
    /// it is not, it is sent piece by piece, and an error in the midst of it can only end the connection.
    fn answer_read_simple(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let head = self.encoder.read_head_len();
        let length = len_usize(request.length.get());
        if let Some(_permit) = self.service.whole_replies.take(length) {
            let mut whole = Wiped::zeroed(head + length);
            let n = match self.encode_read(request, &mut whole) {
                Ok(n) => n,
                Err(refusal) => self.encoder.error(request, &refusal, &mut whole),
            };
            return self.send(&whole[..n]);
        }
        let mut turn = None;
        for (offset, len) in reply::pieces(request) {
            let space = buffer.aligned_space(head);
            let outcome = self.read_source(&mut space[head..head + len], offset);
            let from = match (&turn, outcome) {
                (Some(_), Ok(())) => head,
                (Some(_), Err(refusal)) => return Err(io::Error::other(refusal.text)),
                (None, Ok(())) => {
                    turn = Some(lock(&self.writer));
                    reply::simple_read_head(request, space);
                    0
                }
                (None, Err(refusal)) => {
                    let n = self.encoder.error(request, &refusal, space);
                    return self.send(&space[..n]);
                }
            };
            self.write(&space[from..head + len])?;
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let _turn = lock(&self.writer);
        self.write(bytes)
    }

    /// Writes while the caller holds the writer's lock.
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let _wait = self.activity.wait();
        // In pieces, so that a client that takes its time is told from one that takes nothing.
        for piece in bytes.chunks(HEAD + PIECE) {
            self.stream.write_all(piece)?;
            self.sent.fetch_add(to_u64(piece.len()), Relaxed);
            self.activity.touch();
        }
        Ok(())
    }

    /// Ends the connection at once: whoever waits in the stream comes back.
    fn end(&self) {
        self.over.store(true, SeqCst);
        self.stream.close();
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Relaxed) >= SLOW_FROM
    }

    /// Keeps count of whether small reads wait for a device. A lost update does not matter.
    fn note_time(&self, started: Instant) {
        let slow = self.slow.load(Relaxed);
        let next = if started.elapsed() >= SLOW { (slow + SLOW_WEIGHT).min(SLOW_MOST) } else { slow.saturating_sub(1) };
        if next != slow {
            self.slow.store(next, Relaxed);
        }
    }
}

/// What is to be done with a request that is in order.
#[derive(Clone, Copy)]
enum Do {
    /// At least one byte.
    Read,
    BlockStatus,
    Cache,
    /// It succeeds as it is.
    Nothing,
}

/// Replies that wait to be sent together.
struct Batch<'c, 'b> {
    connection: &'c Connection<'c>,
    buffer: &'b mut Buffer,
    used: usize,
    replies: usize,
}

impl Batch<'_, '_> {
    /// The longest reply that a batch takes: the data of a small read and its head; extents and texts are shorter.
    const LONGEST: usize = SMALL + HEAD;

    fn answer(&mut self, request: &Request, verdict: Result<Do, Refusal>) -> io::Result<()> {
        if HEAD + PIECE - self.used < Self::LONGEST {
            self.send()?;
        }
        let out = &mut self.buffer.space()[self.used..];
        self.used += self.connection.encode(request, verdict, out);
        self.replies += 1;
        // Others must not wait for a device that only one of them needs.
        if self.connection.is_slow() { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.replies > 0 {
            let outcome = self.connection.send(&self.buffer.space()[..self.used]);
            self.connection.activity.answered(self.replies);
            (self.used, self.replies) = (0, 0);
            outcome?;
        }
        Ok(())
    }
}

const _: () = assert!(Batch::LONGEST <= PIECE && NBD_EXTENTS_MAX * 8 + HEAD <= Batch::LONGEST);
