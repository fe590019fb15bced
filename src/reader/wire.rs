//! A reader in a process of its own: it gets the plaintext by positioned reads through a pipe, and no key.
//!
//! ```text
//! parent, with the image and the key                child, with two pipes and nothing else
//! Remote ── Q request (JSON) ───────────────────►  serve
//!        ◄─ R offset, length ───────────────────      │ the reader wants bytes of the disk
//!        ── D bytes, or F why not ──────────────►     │ any number of times
//!        ◄─ A answer (JSON), B bytes of a file ──     ▼
//! ```
//!
//! | bytes of a frame | field |
//! |---|---|
//! | 0 | what it is: Q, R, D, F, A or B |
//! | 1 | length of what follows, little-endian, 4 bytes |
//! | 5 | the rest |
//!
//! Neither side believes the other: a frame that is too long or out of place ends it, and so does a child that reads and
//! reads without an answer. Its end is an error ([`has_ended`]) and nothing more.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{Entry, FileSystem, Metadata, Xattr};
use crate::error::{Condition, Error, ErrorKind, Result, escape, visible};
use crate::inside::Kind;
use crate::io::ReadAt;
use crate::limits::{READER_ENTRIES_MAX, READER_FRAME_MAX, READER_LINK_MAX, READER_OPERATION_READS, READER_PIECE};
use crate::num::{at_most, from_u32, to_u64, to_usize};

const REQUEST: u8 = b'Q';
const WANT: u8 = b'R';
const DATA: u8 = b'D';
const FAILED: u8 = b'F';
const ANSWER: u8 = b'A';
const BYTES: u8 = b'B';

/// So many characters of an error are taken.
const SAID_MAX: usize = 512;
/// So many entries are in an answer.
const BATCH: usize = 256;

#[derive(Serialize, Deserialize)]
enum Request {
    Open { kind: String, len: u64 },
    Metadata { path: Vec<u8> },
    ReadDir { path: Vec<u8> },
    ReadAt { path: Vec<u8>, offset: u64, len: u32 },
    ReadLink { path: Vec<u8> },
    Xattrs { path: Vec<u8> },
}

#[derive(Serialize, Deserialize)]
enum Answer {
    Opened { directories_max: Option<u64> },
    Metadata(Metadata),
    Entries(Vec<Entry>),
    End,
    Link(Vec<u8>),
    Xattrs(Vec<Xattr>),
    Failed { kind: u8, rule: String, message: String, is_absent: bool },
}

const KINDS: [ErrorKind; 5] =
    [ErrorKind::Io, ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::LimitExceeded, ErrorKind::InvalidInput];

impl Answer {
    fn of(e: &Error) -> Self {
        let kind = KINDS.iter().position(|kind| *kind == e.kind()).unwrap_or(0);
        // The rule goes apart from the rest of the line.
        let mut message = e.message().to_owned();
        if let Some(offset) = e.offset() {
            message += &format!(" (at byte {offset})");
        }
        if e.rule().is_empty() {
            message = e.to_string();
        }
        let (kind, rule) = (u8::try_from(kind).unwrap_or(0), e.rule().to_owned());
        Self::Failed { kind, rule, message, is_absent: super::is_absent(e) }
    }
}

/// An end of two pipes.
struct Ends {
    input: Box<dyn Read + Send>,
    output: Box<dyn Write + Send>,
}

fn ended(why: impl std::fmt::Display) -> Error {
    Error::corrupt("reader.ended", format!("the reader gave up: {why}")).with_condition(Condition::ReaderEnded)
}

/// Whether an error says that the process of a reader has ended, or does not do what it should.
pub fn has_ended(e: &Error) -> bool {
    e.is(Condition::ReaderEnded)
}

impl Ends {
    fn send(&mut self, tag: u8, bytes: &[u8]) -> Result<()> {
        let len = u32::try_from(bytes.len()).map_err(ended)?.to_le_bytes();
        let head = [tag, len[0], len[1], len[2], len[3]];
        let sent = self.output.write_all(&head).and_then(|()| self.output.write_all(bytes));
        sent.and_then(|()| self.output.flush()).map_err(ended)
    }

    fn send_json(&mut self, tag: u8, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(ended)?;
        self.send(tag, &text)
    }

    /// The next frame; nothing at the end of the pipe.
    fn receive(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        let mut tag = [0];
        if self.input.read(&mut tag).map_err(ended)? == 0 {
            return Ok(None);
        }
        let mut len = [0; 4];
        self.input.read_exact(&mut len).map_err(ended)?;
        let len = from_u32(u32::from_le_bytes(len));
        if len > READER_FRAME_MAX {
            return Err(ended(format!("found a frame of {len} bytes; {READER_FRAME_MAX} are allowed")));
        }
        let mut bytes = vec![0; len];
        self.input.read_exact(&mut bytes).map_err(ended)?;
        Ok(Some((tag[0], bytes)))
    }
}

/// The disk as the child has it.
struct Far {
    ends: Arc<Mutex<Ends>>,
    len: u64,
}

impl ReadAt for Far {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (n, piece) in buf.chunks_mut(READER_PIECE).enumerate() {
            let at = offset.saturating_add(to_u64(n.saturating_mul(READER_PIECE)));
            let len = u32::try_from(piece.len()).map_err(ended)?;
            ends.send(WANT, &[&at.to_le_bytes()[..], &len.to_le_bytes()[..]].concat())?;
            match ends.receive()? {
                Some((DATA, bytes)) if bytes.len() == piece.len() => piece.copy_from_slice(&bytes),
                Some((FAILED, why)) => {
                    let (kind, why) = why.split_first().ok_or_else(misplaced)?;
                    let kind = KINDS.get(usize::from(*kind)).copied().unwrap_or(ErrorKind::Io);
                    return Err(Error::new(kind, String::from_utf8_lossy(why)));
                }
                _ => return Err(ended("the answer to a read is out of place")),
            }
        }
        Ok(())
    }
}

/// The child's part: opens what the parent names and answers until the pipe ends.
///
/// # Errors
/// Where a pipe fails, or the parent does not do what it should.
pub fn serve(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> Result<()> {
    let ends = Arc::new(Mutex::new(Ends { input: Box::new(input), output: Box::new(output) }));
    let next = || ends.lock().unwrap_or_else(PoisonError::into_inner).receive();
    let mut open: Option<Box<dyn FileSystem>> = None;
    while let Some((tag, bytes)) = next()? {
        if tag != REQUEST {
            return Err(ended("a request is out of place"));
        }
        let request: Request = serde_json::from_slice(&bytes).map_err(ended)?;
        let done = match (request, &mut open) {
            (Request::Open { kind, len }, open) => {
                let far = Arc::new(Far { ends: Arc::clone(&ends), len });
                named(&kind).and_then(|kind| super::open(kind, far)).map(|mut fs| {
                    let answer = Answer::Opened { directories_max: fs.directories_max() };
                    *open = Some(fs);
                    Some(answer)
                })
            }
            (_, None) => return Err(ended("a request came before anything was opened")),
            (request, Some(fs)) => answer(&mut **fs, request, &ends),
        };
        let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
        match done {
            Ok(Some(answer)) => ends.send_json(ANSWER, &answer)?,
            Ok(None) => {}
            Err(e) if has_ended(&e) => return Err(e),
            Err(e) => ends.send_json(ANSWER, &Answer::of(&e))?,
        }
    }
    Ok(())
}

fn named(name: &str) -> Result<Kind> {
    let all = [Kind::Ext4, Kind::Xfs, Kind::Btrfs, Kind::Fat32, Kind::Exfat, Kind::Ntfs];
    let all = all.into_iter().chain([Kind::Ext2, Kind::Ext3, Kind::Fat12, Kind::Fat16]);
    let mut all = all.filter(|kind| kind.name() == name);
    all.next().ok_or_else(|| super::not_read(Kind::Unknown))
}

fn answer(fs: &mut dyn FileSystem, request: Request, ends: &Mutex<Ends>) -> Result<Option<Answer>> {
    let send = |tag: u8, bytes: &[u8]| ends.lock().unwrap_or_else(PoisonError::into_inner).send(tag, bytes);
    match request {
        Request::Open { .. } => Err(ended("it is open already")),
        Request::Metadata { path } => fs.metadata(&path).map(Answer::Metadata).map(Some),
        Request::ReadLink { path } => fs.read_link(&path).map(Answer::Link).map(Some),
        Request::Xattrs { path } => fs.xattrs(&path).map(Answer::Xattrs).map(Some),
        Request::ReadAt { path, offset, len } => {
            let mut buf = vec![0; from_u32(len).min(READER_PIECE)];
            let n = fs.read_at(&path, offset, &mut buf)?;
            send(BYTES, buf.get(..n).unwrap_or_default()).map(|()| None)
        }
        Request::ReadDir { path } => {
            let mut batch = Vec::new();
            fs.read_dir(&path, &mut |entry| {
                batch.push(entry);
                if batch.len() < BATCH {
                    return Ok(());
                }
                let answer = Answer::Entries(std::mem::take(&mut batch));
                send(ANSWER, &serde_json::to_vec(&answer).map_err(ended)?)
            })?;
            if !batch.is_empty() {
                send(ANSWER, &serde_json::to_vec(&Answer::Entries(batch)).map_err(ended)?)?;
            }
            Ok(Some(Answer::End))
        }
    }
}

/// The parent's part: a file system whose reader is on the other side of two pipes.
pub struct Remote {
    ends: Ends,
    disk: Arc<dyn ReadAt>,
    directories_max: Option<u64>,
}

/// What came from the child.
enum Came {
    Answer(Answer),
    Bytes(Vec<u8>),
}

impl Remote {
    /// Has the child open a file system of `kind` on `disk`.
    ///
    /// # Errors
    /// As [`super::open`]; and one of [`has_ended`].
    pub fn open(
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
        disk: Arc<dyn ReadAt>,
        kind: Kind,
    ) -> Result<Self> {
        let ends = Ends { input: Box::new(input), output: Box::new(output) };
        let mut remote = Self { ends, disk, directories_max: None };
        let request = Request::Open { kind: kind.name().to_owned(), len: remote.disk.len() };
        match remote.ask(&request)? {
            Came::Answer(Answer::Opened { directories_max }) => remote.directories_max = directories_max,
            _ => return Err(misplaced()),
        }
        Ok(remote)
    }

    fn ask(&mut self, request: &Request) -> Result<Came> {
        self.ends.send_json(REQUEST, request)?;
        self.answer()
    }

    /// The next answer; what the child wants to read until then, it gets.
    fn answer(&mut self) -> Result<Came> {
        let mut reads = 0u64;
        loop {
            let (tag, bytes) = self.ends.receive()?.ok_or_else(|| ended("its process ended"))?;
            match tag {
                WANT => {
                    reads = reads.saturating_add(1);
                    if reads > READER_OPERATION_READS {
                        return Err(ended(format!(
                            "it wanted more than {READER_OPERATION_READS} reads for one answer"
                        )));
                    }
                    self.give(&bytes)?;
                }
                BYTES => return Ok(Came::Bytes(bytes)),
                ANSWER => match serde_json::from_slice(&bytes).map_err(|_| misplaced())? {
                    Answer::Failed { kind, rule, message, is_absent } => {
                        let kind = KINDS.get(usize::from(kind)).copied().unwrap_or(ErrorKind::Io);
                        let mut e = Error::new(kind, visible(&cut(message))).with_rule(escape(&rule));
                        if is_absent {
                            e = e.with_condition(Condition::Absent);
                        }
                        return Err(e);
                    }
                    answer => return Ok(Came::Answer(answer)),
                },
                _ => return Err(misplaced()),
            }
        }
    }

    fn give(&mut self, want: &[u8]) -> Result<()> {
        let (at, len) = want.split_first_chunk::<8>().ok_or_else(misplaced)?;
        let len: [u8; 4] = len.try_into().map_err(|_| misplaced())?;
        let (at, len) = (u64::from_le_bytes(*at), from_u32(u32::from_le_bytes(len)));
        if len > READER_PIECE {
            return Err(misplaced());
        }
        let mut bytes = vec![0; len];
        match self.disk.read_exact_at(&mut bytes, at) {
            Ok(()) => self.ends.send(DATA, &bytes),
            Err(e) => {
                // What can be done about it is said where the image is opened, in the words of who opens it.
                let why = e.without_hint();
                let why = why.get(..at_most(1024, why.len())).unwrap_or("the disk cannot be read");
                let kind = KINDS.iter().position(|kind| *kind == e.kind()).unwrap_or(0);
                self.ends.send(FAILED, &[&[u8::try_from(kind).unwrap_or(0)], why.as_bytes()].concat())
            }
        }
    }
}

/// What a child says is text of no more than a line.
fn cut(mut text: String) -> String {
    if let Some((at, _)) = text.char_indices().nth(SAID_MAX) {
        text.truncate(at);
    }
    text
}

fn misplaced() -> Error {
    ended("what it said is out of place")
}

impl FileSystem for Remote {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        match self.ask(&Request::Metadata { path: path.to_vec() })? {
            Came::Answer(Answer::Metadata(metadata)) => Ok(metadata),
            _ => Err(misplaced()),
        }
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut came = self.ask(&Request::ReadDir { path: path.to_vec() })?;
        let (mut count, mut failed) = (0usize, None);
        loop {
            match came {
                Came::Answer(Answer::Entries(entries)) => {
                    for entry in entries {
                        count = count.saturating_add(1);
                        if count > READER_ENTRIES_MAX {
                            // The child is in the midst of it, and of no more use.
                            return Err(ended(format!(
                                "{} has more than the {READER_ENTRIES_MAX} entries that are allowed",
                                super::shown(path)
                            )));
                        }
                        // All of the answer is heard out, so that the next request has its own.
                        if failed.is_none() {
                            let Entry { name, metadata } = entry;
                            failed = take(Entry { name, metadata: metadata.map_err(cut) }).err();
                        }
                    }
                }
                Came::Answer(Answer::End) => return failed.map_or(Ok(()), Err),
                _ => return Err(misplaced()),
            }
            came = self.answer()?;
        }
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = u32::try_from(buf.len().min(READER_PIECE)).map_err(ended)?;
        match self.ask(&Request::ReadAt { path: path.to_vec(), offset, len })? {
            Came::Bytes(bytes) if to_u64(bytes.len()) <= u64::from(len) => {
                let n = to_usize(to_u64(bytes.len()))?;
                buf[..n].copy_from_slice(&bytes);
                Ok(n)
            }
            _ => Err(misplaced()),
        }
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        match self.ask(&Request::ReadLink { path: path.to_vec() })? {
            Came::Answer(Answer::Link(target)) if target.len() <= READER_LINK_MAX => Ok(target),
            _ => Err(misplaced()),
        }
    }

    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Xattr>> {
        match self.ask(&Request::Xattrs { path: path.to_vec() })? {
            // A frame bounds them.
            Came::Answer(Answer::Xattrs(all)) => Ok(all),
            _ => Err(misplaced()),
        }
    }

    fn directories_max(&mut self) -> Option<u64> {
        self.directories_max
    }
}
