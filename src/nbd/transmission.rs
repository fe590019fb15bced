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

use zerocopy::IntoBytes;

use super::buffer::{Buffer, HEAD, PIECE, Reader, put};
use super::handshake::Session;
use super::service::{Service, Summary};
use super::stream::{Stream, lock};
use super::wire::{self, Request, chunk, command, command_flag, errno, len_usize, len32};
use crate::error::{Error, ErrorKind};
use crate::limits::{NBD_EXTENTS_MAX, NBD_PAYLOAD_MAX, NBD_STRING_MAX};

/// Up to this length, the leader answers a read itself.
const SMALL: usize = 32 << 10;
/// A small read that takes longer waited for a device: then it is worth a thread of its own.
const SLOW: Duration = Duration::from_micros(150);
/// How much a slow read weighs against fast ones, from where on reads are given threads, and the most it adds up to.
const SLOW_WEIGHT: u32 = 8;
const SLOW_FROM: u32 = 16;
const SLOW_MOST: u32 = 64;

/// One connection in its transmission phase.
pub(super) struct Connection<'a> {
    stream: &'a dyn Stream,
    service: &'a Service,
    session: Session,
    /// Requests that were read and not answered yet.
    busy: &'a AtomicUsize,
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
        busy: &'a AtomicUsize,
    ) -> Connection<'a> {
        Connection {
            stream,
            service,
            session,
            busy,
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
        while let Some(request) = self.lead(&mut buffer) {
            self.call_helper(scope);
            let started = Instant::now();
            let outcome = self.answer_apart(&request, &mut buffer);
            self.busy.fetch_sub(1, SeqCst);
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
        let most = match self.is_slow() {
            true => self.service.threads,
            // More threads than cores only push each other's buffers out of the cache.
            false => self.service.threads.min(self.service.cores),
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

    /// Takes the lead, answers what is small, and comes back with a request that deserves a thread of its own, its
    /// turn to lead given away. `None` when the connection is over.
    fn lead(&self, buffer: &mut Buffer) -> Option<Request> {
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

    fn lead_with(&self, reader: &mut Reader, buffer: &mut Buffer) -> io::Result<Option<Request>> {
        let mut batch = Batch { connection: self, buffer, used: 0, replies: 0 };
        while !self.over.load(SeqCst) {
            if !reader.has_request() {
                batch.send()?;
            }
            let Some(request) = reader.next(self.stream)? else { break };
            self.requests.fetch_add(1, Relaxed);
            self.busy.fetch_add(1, SeqCst);
            match request.command.get() {
                command::DISC => {
                    self.busy.fetch_sub(1, SeqCst);
                    break;
                }
                // The payload is dropped before anything is said about it, so that the stream stays in step.
                command::WRITE => {
                    // It may be long in coming: replies that are ready do not wait for it.
                    batch.send()?;
                    reader.skip(self.stream, len_usize(request.length.get()))?;
                }
                _ => {}
            }
            let verdict = self.check(&request);
            let apart = match verdict {
                Ok(Do::Read) => len_usize(request.length.get()) > SMALL || self.is_slow(),
                Ok(Do::BlockStatus) => self.is_slow(),
                _ => false,
            };
            if apart {
                batch.send()?;
                return Ok(Some(request));
            }
            batch.answer(&request, verdict)?;
        }
        batch.send()?;
        self.over.store(true, SeqCst);
        Ok(None)
    }

    /// Answers a request that [`Connection::lead`] came back with.
    fn answer_apart(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        match self.check(request) {
            Ok(Do::Read) => self.answer_read(request, buffer),
            verdict => {
                let space = buffer.space();
                let n = self.encode(request, verdict, space);
                self.send(&space[..n])
            }
        }
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
            Ok(Do::BlockStatus) => self.encode_block_status(request, out),
            Ok(Do::Cache) => {
                self.service.export.source.will_need(request.offset.get(), request.length.get().into());
                Ok(self.encode_success(request, out))
            }
            Ok(Do::Nothing) => Ok(self.encode_success(request, out)),
            Err(refusal) => Err(refusal),
        };
        answer.unwrap_or_else(|refusal| self.encode_error(request, &refusal, out))
    }

    fn encode_success(&self, request: &Request, out: &mut [u8]) -> usize {
        match self.session.structured {
            true => put(out, 0, &[chunk_head(request, chunk::FLAG_DONE, chunk::NONE, 0).as_bytes()]),
            false => put(out, 0, &[simple_head(request, 0).as_bytes()]),
        }
    }

    fn encode_error(&self, request: &Request, refusal: &Refusal, out: &mut [u8]) -> usize {
        if !self.session.structured {
            return put(out, 0, &[simple_head(request, refusal.errno).as_bytes()]);
        }
        let text = refusal.text.as_bytes();
        let text = text.get(..NBD_STRING_MAX).unwrap_or(text);
        let text_len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        let at = refusal.offset.map(u64::to_be_bytes);
        let at = at.as_ref().map(<[u8; 8]>::as_slice).unwrap_or_default();
        let kind = if at.is_empty() { chunk::ERROR } else { chunk::ERROR_OFFSET };
        let length = 6 + text.len() + at.len();
        let head = chunk_head(request, chunk::FLAG_DONE, kind, length);
        put(out, 0, &[head.as_bytes(), &refusal.errno.to_be_bytes(), &text_len.to_be_bytes(), text, at])
    }

    /// How long the head of a read's reply is.
    fn read_head_len(&self) -> usize {
        if self.session.structured { size_of::<wire::Chunk>() + 8 } else { size_of::<wire::SimpleReply>() }
    }

    /// A read that is answered whole, its data already right behind its head.
    fn encode_read(&self, request: &Request, out: &mut [u8]) -> Result<usize, Refusal> {
        let head = self.read_head_len();
        let (offset, length) = (request.offset.get(), len_usize(request.length.get()));
        let data = &mut out[head..head + length];
        self.read_source(data, offset)?;
        match self.session.structured {
            true => {
                let chunk = chunk_head(request, chunk::FLAG_DONE, chunk::OFFSET_DATA, 8 + length);
                put(out, 0, &[chunk.as_bytes(), &offset.to_be_bytes()])
            }
            false => put(out, 0, &[simple_head(request, 0).as_bytes()]),
        };
        Ok(head + length)
    }

    fn read_source(&self, data: &mut [u8], offset: u64) -> Result<(), Refusal> {
        self.service.export.source.read_exact_at(data, offset).map_err(|e| {
            self.service.log(format_args!("a read of {} bytes from byte {offset} on failed: {e}", data.len()));
            Refusal { errno: errno_of(&e), text: e.to_string(), offset: Some(offset) }
        })
    }

    fn encode_block_status(&self, request: &Request, out: &mut [u8]) -> Result<usize, Refusal> {
        let source = &self.service.export.source;
        let most = if request.flags.get() & command_flag::REQ_ONE != 0 { 1 } else { NBD_EXTENTS_MAX };
        let mut extents: Vec<(u32, u32)> = Vec::new();
        let mut at = request.offset.get();
        let end = at + u64::from(request.length.get());
        // A source that is cut into ever so many pieces of one sort must not keep this busy for long.
        for _ in 0..NBD_EXTENTS_MAX * 4 {
            if at >= end {
                break;
            }
            let extent = match source.extent_at(at) {
                Ok(extent) if extent.len > 0 => extent,
                Ok(_) => return Err(Refusal::new(errno::EIO, "an extent of no length")),
                // What is known already is an answer; the client asks again from here on.
                Err(_) if !extents.is_empty() => break,
                Err(e) => return Err(Refusal { errno: errno_of(&e), text: e.to_string(), offset: Some(at) }),
            };
            let len = u32::try_from(extent.len.min(end - at)).unwrap_or(u32::MAX);
            let state = if extent.zero { wire::STATE_HOLE | wire::STATE_ZERO } else { 0 };
            let full = extents.len() == most;
            match extents.last_mut() {
                Some((last, same)) if *same == state => *last += len,
                _ if full => break,
                _ => extents.push((len, state)),
            }
            at += u64::from(len);
        }
        let head = chunk_head(request, chunk::FLAG_DONE, chunk::BLOCK_STATUS, 4 + 8 * extents.len());
        let mut n = put(out, 0, &[head.as_bytes(), &wire::BASE_ALLOCATION_ID.to_be_bytes()]);
        for (len, state) in extents {
            n = put(out, n, &[&len.to_be_bytes(), &state.to_be_bytes()]);
        }
        Ok(n)
    }

    /// Answers a read of any length with a write for each piece.
    fn answer_read(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let length = len_usize(request.length.get());
        if length <= PIECE {
            let space = buffer.aligned_space(self.read_head_len());
            let n = match self.encode_read(request, space) {
                Ok(n) => n,
                Err(refusal) => self.encode_error(request, &refusal, space),
            };
            return self.send(&space[..n]);
        }
        if !self.session.structured {
            return self.answer_read_simple(request, buffer);
        }
        match request.flags.get() & command_flag::DF != 0 {
            true => self.answer_read_unfragmented(request, buffer),
            false => self.answer_read_in_chunks(request, buffer),
        }
    }

    /// The pieces of a long read: their offsets and lengths. All but the first start at a multiple of 4096.
    fn pieces(request: &Request) -> impl Iterator<Item = (u64, usize)> {
        let end = request.offset.get() + u64::from(request.length.get());
        let mut at = request.offset.get();
        std::iter::from_fn(move || {
            let from = at;
            let most = len_usize(len32(PIECE)) - usize::try_from(from % 4096).unwrap_or(0);
            let len = usize::try_from(end - from).unwrap_or(usize::MAX).min(most);
            at += u64::try_from(len).unwrap_or(0);
            (len > 0).then_some((from, len))
        })
    }

    fn answer_read_in_chunks(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let end = request.offset.get() + u64::from(request.length.get());
        for (offset, len) in Self::pieces(request) {
            let space = buffer.aligned_space(self.read_head_len());
            let head = self.read_head_len();
            if let Err(refusal) = self.read_source(&mut space[head..head + len], offset) {
                let n = self.encode_error(request, &refusal, space);
                return self.send(&space[..n]);
            }
            // The last piece is read: nothing can fail any more.
            let last = offset + u64::try_from(len).unwrap_or(0) == end;
            let flags = if last { chunk::FLAG_DONE } else { 0 };
            let chunk = chunk_head(request, flags, chunk::OFFSET_DATA, 8 + len);
            put(space, 0, &[chunk.as_bytes(), &offset.to_be_bytes()]);
            self.send(&space[..head + len])?;
        }
        Ok(())
    }

    /// One chunk, sent while it is read. Once its head is out its length is promised: what cannot be read is made up
    /// for by zeroes, and an error chunk behind it says from where on (as the protocol has it).
    fn answer_read_unfragmented(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let head = self.read_head_len();
        let mut failed: Option<Refusal> = None;
        let mut turn = None;
        for (offset, len) in Self::pieces(request) {
            let space = buffer.aligned_space(head);
            let data = &mut space[head..head + len];
            match &failed {
                Some(_) => data.fill(0),
                None => match self.read_source(data, offset) {
                    Ok(()) => {}
                    Err(refusal) if turn.is_none() => {
                        let n = self.encode_error(request, &refusal, space);
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
                    let chunk = chunk_head(request, 0, chunk::OFFSET_DATA, 8 + len_usize(request.length.get()));
                    put(space, 0, &[chunk.as_bytes(), &request.offset.get().to_be_bytes()]);
                    0
                }
            };
            self.write(&space[from..head + len])?;
        }
        let space = buffer.space();
        let n = match failed {
            Some(refusal) => self.encode_error(request, &refusal, space),
            None => self.encode_success(request, space),
        };
        self.write(&space[..n])
    }

    /// A simple reply cannot take its success back. So it is built whole where the memory for that is to be had; where
    /// it is not, it is sent piece by piece, and an error in the midst of it can only end the connection.
    fn answer_read_simple(&self, request: &Request, buffer: &mut Buffer) -> io::Result<()> {
        let head = self.read_head_len();
        let length = len_usize(request.length.get());
        if let Some(_permit) = self.service.whole_replies.take(length) {
            let mut whole = vec![0; head + length];
            let n = match self.encode_read(request, &mut whole) {
                Ok(n) => n,
                Err(refusal) => self.encode_error(request, &refusal, &mut whole),
            };
            return self.send(&whole[..n]);
        }
        let mut turn = None;
        for (offset, len) in Self::pieces(request) {
            let space = buffer.aligned_space(head);
            let outcome = self.read_source(&mut space[head..head + len], offset);
            let from = match (&turn, outcome) {
                (Some(_), Ok(())) => head,
                (Some(_), Err(refusal)) => return Err(io::Error::other(refusal.text)),
                (None, Ok(())) => {
                    turn = Some(lock(&self.writer));
                    put(space, 0, &[simple_head(request, 0).as_bytes()]);
                    0
                }
                (None, Err(refusal)) => {
                    let n = self.encode_error(request, &refusal, space);
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
        self.sent.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Relaxed);
        self.stream.write_all(bytes)
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
        let next = match started.elapsed() >= SLOW {
            true => (slow + SLOW_WEIGHT).min(SLOW_MOST),
            false => slow.saturating_sub(1),
        };
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

/// Why a request fails: the protocol's error number, a text for people, and where.
struct Refusal {
    errno: u32,
    text: String,
    offset: Option<u64>,
}

impl Refusal {
    fn new(errno: u32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into(), offset: None }
    }
}

/// The protocol's error number for an error of the source: a total match on its kind.
fn errno_of(e: &Error) -> u32 {
    match e.kind() {
        ErrorKind::Io if e.io_error().is_some_and(|e| e.kind() == io::ErrorKind::OutOfMemory) => errno::ENOMEM,
        ErrorKind::Io | ErrorKind::Corrupt | ErrorKind::WrongKey | ErrorKind::Cancelled => errno::EIO,
        ErrorKind::Unsupported => errno::ENOTSUP,
        ErrorKind::LimitExceeded => errno::ENOMEM,
        ErrorKind::InvalidInput => errno::EINVAL,
    }
}

fn chunk_head(request: &Request, flags: u16, kind: u16, length: usize) -> wire::Chunk {
    wire::Chunk {
        magic: wire::STRUCTURED_REPLY_MAGIC.into(),
        flags: flags.into(),
        kind: kind.into(),
        cookie: request.cookie,
        length: len32(length).into(),
    }
}

fn simple_head(request: &Request, error: u32) -> wire::SimpleReply {
    wire::SimpleReply { magic: wire::SIMPLE_REPLY_MAGIC.into(), error: error.into(), cookie: request.cookie }
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
            self.connection.busy.fetch_sub(self.replies, SeqCst);
            (self.used, self.replies) = (0, 0);
            outcome?;
        }
        Ok(())
    }
}

const _: () = assert!(Batch::LONGEST <= PIECE && NBD_EXTENTS_MAX * 8 + HEAD <= Batch::LONGEST);
