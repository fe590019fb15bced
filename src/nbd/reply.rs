//! Replies as the bytes that go over the wire. Nothing is read or sent here but a source's extents.

use std::io;

use zerocopy::IntoBytes;

use super::buffer::{PIECE, put};
use super::wire::{self, Request, chunk, command_flag, errno, len_usize, len32};
use crate::error::{Error, ErrorKind};
use crate::io::ReadAt;
use crate::limits::{NBD_EXTENTS_MAX, NBD_STRING_MAX};
use crate::num::{at_most, low_u32, to_u64};

/// Writes replies in the form that the client chose.
#[derive(Clone, Copy)]
pub(super) struct Encoder {
    /// Replies are structured chunks.
    pub structured: bool,
}

impl Encoder {
    /// A success without data. Gives its length, as the others do.
    pub(super) fn success(self, request: &Request, out: &mut [u8]) -> usize {
        if self.structured {
            put(out, 0, &[chunk_head(request, chunk::FLAG_DONE, chunk::NONE, 0).as_bytes()])
        } else {
            put(out, 0, &[simple_head(request, 0).as_bytes()])
        }
    }

    /// Why a request failed.
    pub(super) fn error(self, request: &Request, refusal: &Refusal, out: &mut [u8]) -> usize {
        if !self.structured {
            return put(out, 0, &[simple_head(request, refusal.errno).as_bytes()]);
        }
        let text = refusal.text.as_bytes();
        let text = text.get(..NBD_STRING_MAX).unwrap_or(text);
        let [.., high, low] = len32(text.len()).to_be_bytes();
        let text_len = u16::from_be_bytes([high, low]);
        let at = refusal.offset.map(u64::to_be_bytes);
        let at = at.as_ref().map(<[u8; 8]>::as_slice).unwrap_or_default();
        let kind = if at.is_empty() { chunk::ERROR } else { chunk::ERROR_OFFSET };
        let length = 6 + text.len() + at.len();
        let head = chunk_head(request, chunk::FLAG_DONE, kind, length);
        put(out, 0, &[head.as_bytes(), &refusal.errno.to_be_bytes(), &text_len.to_be_bytes(), text, at])
    }

    /// How long the head of a read's reply is.
    pub(super) fn read_head_len(self) -> usize {
        if self.structured { size_of::<wire::Chunk>() + 8 } else { size_of::<wire::SimpleReply>() }
    }

    /// The head of a read's reply whose `length` bytes of data follow whole, and with nothing behind them.
    pub(super) fn read_head(self, request: &Request, length: usize, out: &mut [u8]) -> usize {
        if self.structured {
            read_chunk_head(request, chunk::FLAG_DONE, request.offset.get(), length, out)
        } else {
            simple_read_head(request, out)
        }
    }
}

/// The head of a chunk of `length` bytes of data from `offset` on.
pub(super) fn read_chunk_head(request: &Request, flags: u16, offset: u64, length: usize, out: &mut [u8]) -> usize {
    let head = chunk_head(request, flags, chunk::OFFSET_DATA, 8 + length);
    put(out, 0, &[head.as_bytes(), &offset.to_be_bytes()])
}

/// The head of a simple reply that succeeds.
pub(super) fn simple_read_head(request: &Request, out: &mut [u8]) -> usize {
    put(out, 0, &[simple_head(request, 0).as_bytes()])
}

/// The extents of `source` from the request's offset on, in one chunk.
pub(super) fn block_status(source: &dyn ReadAt, request: &Request, out: &mut [u8]) -> Result<usize, Refusal> {
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
            Err(e) => return Err(Refusal::of_source(&e, at)),
        };
        // A request has at most 32 bits of bytes, and so has what is left of it.
        let len = low_u32(extent.len.min(end - at));
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

/// The pieces of a long read: their offsets and lengths. All but the first start at a multiple of 4096.
pub(super) fn pieces(request: &Request) -> impl Iterator<Item = (u64, usize)> {
    let end = request.offset.get() + u64::from(request.length.get());
    let mut at = request.offset.get();
    std::iter::from_fn(move || {
        let from = at;
        let most = len_usize(len32(PIECE)) - at_most(from % 4096, 4096);
        let len = at_most(end - from, most);
        at += to_u64(len);
        (len > 0).then_some((from, len))
    })
}

/// Why a request fails: the protocol's error number, a text for people, and where.
pub(super) struct Refusal {
    errno: u32,
    pub text: String,
    offset: Option<u64>,
}

impl Refusal {
    pub(super) fn new(errno: u32, text: impl Into<String>) -> Self {
        Self { errno, text: text.into(), offset: None }
    }

    /// What the source said of a read at `offset`.
    pub(super) fn of_source(e: &Error, offset: u64) -> Self {
        Self { errno: errno_of(e), text: e.to_string(), offset: Some(offset) }
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
