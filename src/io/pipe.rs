//! An image that comes through a pipe: its head can be read at any position, its data once and in order.

use std::io::Read;
use std::sync::Mutex;

use super::ReadAt;
use crate::error::{Condition, Error, ErrorKind, Result};
use crate::limits::{LUKS2_HDR_SIZE_MAX, LUKS2_KEYSLOTS_SIZE_MAX};
use crate::num::{at_most, to_u64};

/// The most that is kept of a pipe's head: two header copies and the keyslots area of the largest legal LUKS2 header.
const HEAD_MAX: u64 = 2 * LUKS2_HDR_SIZE_MAX + LUKS2_KEYSLOTS_SIZE_MAX;

/// Is given every byte of the pipe once, in order.
pub type Tap = Box<dyn FnMut(&[u8]) + Send>;

/// A source that can be read only once and in order.
///
/// Reading it through [`ReadAt`] keeps what was read, so that headers can be parsed; reading it through
/// [`Pipe::read_on`] does not. Its length is not known, and is `u64::MAX` where a number is wanted.
pub struct Pipe {
    state: Mutex<State>,
}

struct State {
    from: Box<dyn Read + Send>,
    head: Vec<u8>,
    /// How many bytes have come out of the pipe.
    position: u64,
    tap: Option<Tap>,
}

impl Pipe {
    /// Takes a reader, such as the standard input.
    pub fn new(from: Box<dyn Read + Send>) -> Self {
        Self { state: Mutex::new(State { from, head: Vec::new(), position: 0, tap: None }) }
    }

    /// Lets `tap` see what came so far, and all that will come.
    pub fn set_tap(&self, mut tap: Tap) {
        let mut s = self.lock();
        tap(&s.head);
        s.tap = Some(tap);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Fills `buf` from `offset` on as far as the pipe goes, and says how far that was.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the pipe cannot be read; [`ErrorKind::InvalidInput`] where `offset` has passed by.
    pub fn read_on(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let mut s = self.lock();
        let kept = usize::try_from(offset).ok().and_then(|o| s.head.get(o..)).unwrap_or_default();
        let from_head = kept.len().min(buf.len());
        buf[..from_head].copy_from_slice(&kept[..from_head]);
        let buf_rest = &mut buf[from_head..];
        if buf_rest.is_empty() {
            return Ok(from_head);
        }
        let offset = offset.saturating_add(to_u64(from_head));
        if offset < s.position {
            let message = format!("byte {offset} of a pipe is wanted, but the pipe is at byte {}", s.position);
            return Err(Error::invalid(message).with_hint("save the image to a file first"));
        }
        while s.position < offset {
            let gap = at_most(offset - s.position, buf_rest.len());
            if s.read(&mut buf_rest[..gap])? == 0 {
                return Ok(0);
            }
        }
        Ok(from_head + s.fill(buf_rest)?)
    }

    /// How many bytes have come through it.
    pub fn position(&self) -> u64 {
        self.lock().position
    }

    /// Reads to the end, for the sake of the tap, and says how long the pipe was.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the pipe cannot be read.
    pub fn drain(&self) -> Result<u64> {
        let mut buf = vec![0u8; 64 << 10];
        let mut s = self.lock();
        while s.read(&mut buf)? > 0 {}
        Ok(s.position)
    }
}

impl State {
    /// One read; 0 is the end.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match self.from.read(buf) {
                Ok(n) => {
                    if let Some(tap) = &mut self.tap {
                        tap(&buf[..n]);
                    }
                    self.position += to_u64(n);
                    return Ok(n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("reading the pipe", e).at(self.position)),
            }
        }
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut len = 0;
        while len < buf.len() {
            match self.read(&mut buf[len..])? {
                0 => break,
                n => len += n,
            }
        }
        Ok(len)
    }
}

impl ReadAt for Pipe {
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn pipe(&self) -> Option<&Pipe> {
        Some(self)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut s = self.lock();
        let end = offset.saturating_add(to_u64(buf.len()));
        if end > HEAD_MAX {
            let message =
                format!("byte {end} of a pipe is wanted; only the first {HEAD_MAX} can be read at any position");
            return Err(Error::invalid(message).with_hint("save the image to a file first"));
        }
        let end = usize::try_from(end).map_err(|_| Error::invalid("too large for this machine"))?;
        let have = s.head.len();
        if have < end {
            if u64::try_from(have).ok() != Some(s.position) {
                return Err(Error::invalid("the head of a pipe is wanted, but its data has been read already"));
            }
            let mut more = vec![0u8; end - have];
            let got = s.fill(&mut more)?;
            s.head.extend_from_slice(&more[..got]);
            if s.head.len() < end {
                return Err(Error::new(ErrorKind::Corrupt, format!("the pipe ended at byte {}", s.position))
                    .with_rule("length")
                    .with_condition(Condition::Truncated));
            }
        }
        buf.copy_from_slice(&s.head[end - buf.len()..end]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(n: u8) -> Pipe {
        Pipe::new(Box::new(std::io::Cursor::new((0..n).collect::<Vec<_>>())))
    }

    #[test]
    fn the_head_can_be_read_again_and_the_rest_once() {
        let p = pipe(100);
        let mut b = [0; 4];
        p.read_exact_at(&mut b, 10).unwrap();
        assert_eq!(b, [10, 11, 12, 13]);
        p.read_exact_at(&mut b, 0).unwrap();
        assert_eq!(b, [0, 1, 2, 3]);
        assert_eq!(p.read_on(&mut b, 12).unwrap(), 4);
        assert_eq!(b, [12, 13, 14, 15]);
        assert_eq!(p.read_on(&mut b, 40).unwrap(), 4);
        assert_eq!(b, [40, 41, 42, 43]);
        assert!(p.read_on(&mut b, 20).is_err());
        assert_eq!(p.read_on(&mut b, 98).unwrap(), 2);
        assert_eq!(p.read_on(&mut b, 200).unwrap(), 0);
    }

    #[test]
    fn the_tap_sees_every_byte_once() {
        let seen = std::sync::Arc::new(Mutex::new(Vec::new()));
        let p = pipe(100);
        p.read_exact_at(&mut [0; 8], 0).unwrap();
        let tap = std::sync::Arc::clone(&seen);
        p.set_tap(Box::new(move |b| tap.lock().unwrap().extend_from_slice(b)));
        p.read_on(&mut [0; 3], 50).unwrap();
        assert_eq!(p.drain().unwrap(), 100);
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn a_short_head_is_an_error() {
        assert!(pipe(10).read_exact_at(&mut [0; 11], 0).unwrap_err().to_string().contains("ended at byte 10"));
    }
}
