//! The memory of a connection: what was read ahead, and the replies on their way out.

use std::io;
use std::ops::{Deref, DerefMut};

use zerocopy::FromBytes;
use zeroize::Zeroize;

use super::stream::Stream;
use super::wire::{self, Request};

/// How much of a read is done at once: what stays in a core's cache from the source to the socket.
pub(super) const PIECE: usize = 256 << 10;
/// Room for a reply's head in front of its data. The data starts where a cache line does.
pub(super) const HEAD: usize = 64;
/// How much is read from the stream at once: some hundred requests.
const READ_AHEAD: usize = 16 << 10;

/// Copies `parts` one after the other into `out` from `at` on, and says where they end.
pub(super) fn put(out: &mut [u8], mut at: usize, parts: &[&[u8]]) -> usize {
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    at
}

/// Memory for plaintext. It is wiped before it is given back; and as its length is fixed, none of it is ever left behind
/// where it grew from.
#[derive(Default)]
pub(super) struct Wiped(Box<[u8]>);

impl Wiped {
    pub(super) fn zeroed(len: usize) -> Self {
        Self(vec![0; len].into_boxed_slice())
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Wiped {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// A thread's memory for replies. It is had when it is first needed: a connection that never reads needs none.
#[derive(Default)]
pub(super) struct Buffer(Wiped);

impl Buffer {
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.0.is_empty() {
            self.0 = Wiped::zeroed(HEAD + PIECE);
        }
        &mut self.0
    }

    /// Space for a head of `head` bytes, and data behind it that is well aligned.
    pub(super) fn aligned_space(&mut self, head: usize) -> &mut [u8] {
        &mut self.space()[HEAD - head..]
    }
}

/// The reading side: bytes that came together are kept for the next request.
pub(super) struct Reader {
    /// The payload of a WRITE that is refused passes through, and may be as secret.
    bytes: Wiped,
    start: usize,
    end: usize,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { bytes: Wiped::zeroed(READ_AHEAD), start: 0, end: 0 }
    }

    pub(super) fn has_request(&self) -> bool {
        self.end - self.start >= size_of::<Request>()
    }

    /// The next request; `None` where the stream ended between two requests.
    pub(super) fn next(&mut self, stream: &dyn Stream) -> io::Result<Option<Request>> {
        while !self.has_request() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match stream.read(&mut self.bytes[self.end..])? {
                0 if self.end == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => self.end += n,
            }
        }
        let (request, _) = Request::read_from_prefix(&self.bytes[self.start..self.end])
            .map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        self.start += size_of::<Request>();
        if request.magic.get() == wire::REQUEST_MAGIC {
            Ok(Some(request))
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a request without its magic number"))
        }
    }

    /// Drops the next `count` bytes of the stream.
    pub(super) fn skip(&mut self, stream: &dyn Stream, mut count: usize) -> io::Result<()> {
        loop {
            let here = count.min(self.end - self.start);
            self.start += here;
            count -= here;
            if count == 0 {
                return Ok(());
            }
            (self.start, self.end) = (0, stream.read(&mut self.bytes)?);
            if self.end == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
