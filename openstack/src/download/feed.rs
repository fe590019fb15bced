//! The pipe from a download to whoever takes its bytes while they come.
//!
//! Where the bytes are kept in a file, the reader reads that: it may lag as far behind as it likes, such as for the seconds of a
//! key derivation, and halts nobody. Where they are kept nowhere, some pieces wait, and then the download does.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use unluks::error::{Condition, Error, ErrorKind, Result};
use unluks::limits::CLOUD_PIECES_MAX;
use unluks::num::{at_most, to_u64};

/// The end of a pipe that a download writes to.
pub struct Feed {
    to: SyncSender<Piece>,
    kept: Option<Arc<Kept>>,
}

/// The end that somebody reads.
pub struct FeedReader {
    from: Receiver<Piece>,
    current: Bytes,
    kept: Option<(Arc<Kept>, u64)>,
    ended: bool,
}

enum Piece {
    Bytes(Bytes),
    Kept(Arc<Kept>),
    End,
}

/// A file that grows.
struct Kept {
    file: File,
    grown: Mutex<Grown>,
    changed: Condvar,
}

struct Grown {
    len: u64,
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Growing,
    /// All is there, and it is right.
    Whole,
    /// The download stopped before.
    Stopped,
    /// The reader has.
    Unread,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Grown> {
        self.grown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, until: Until) {
        let mut grown = self.lock();
        if grown.until == Until::Growing {
            grown.until = until;
        }
        drop(grown);
        self.changed.notify_all();
    }

    /// Bytes that are there from `at` on, at most `max`; waits where there are none yet. 0 is the end of all.
    fn wait(&self, at: u64, max: usize) -> std::io::Result<usize> {
        let mut grown = self.lock();
        loop {
            match grown.until {
                _ if grown.len > at => return Ok(at_most(grown.len - at, max)),
                Until::Growing => grown = self.changed.wait(grown).unwrap_or_else(PoisonError::into_inner),
                Until::Whole => return Ok(0),
                Until::Stopped | Until::Unread => return Err(stopped()),
            }
        }
    }
}

fn stopped() -> std::io::Error {
    std::io::Error::other("the download stopped before the end")
}

/// The error of a feed that nobody reads any more.
fn unread() -> Error {
    let message = "whoever took the data in has stopped";
    Error::new(ErrorKind::Io, message).with_rule("feed").with_condition(Condition::Feed)
}

impl Feed {
    /// A pipe that holds some pieces.
    pub fn pair() -> (Self, FeedReader) {
        let (to, from) = sync_channel(CLOUD_PIECES_MAX);
        (Self { to, kept: None }, FeedReader { from, current: Bytes::new(), kept: None, ended: false })
    }

    /// From here on the bytes are in a file.
    pub(super) fn keep_in(&mut self, file: File) -> Result<()> {
        let grown = Mutex::new(Grown { len: 0, until: Until::Growing });
        let kept = Arc::new(Kept { file, grown, changed: Condvar::new() });
        self.kept = Some(Arc::clone(&kept));
        self.to.send(Piece::Kept(kept)).map_err(|_| unread())
    }

    /// Hands bytes on that are kept nowhere.
    pub(super) fn send(&self, bytes: Bytes) -> Result<()> {
        self.to.send(Piece::Bytes(bytes)).map_err(|_| unread())
    }

    /// Says that the file has `len` bytes.
    pub(super) fn grow(&self, len: u64) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let mut grown = kept.lock();
        grown.len = len;
        let until = grown.until;
        drop(grown);
        kept.changed.notify_all();
        if until == Until::Unread { Err(unread()) } else { Ok(()) }
    }

    /// Says that it was all, and that it is right.
    pub(super) fn end(self) {
        if let Some(kept) = &self.kept {
            kept.end(Until::Whole);
        } else {
            let _ = self.to.send(Piece::End);
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.kept.iter().for_each(|kept| kept.end(Until::Stopped));
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        // The file may not have been looked for yet.
        let waiting =
            self.from.try_iter().find_map(|piece| if let Piece::Kept(kept) = piece { Some(kept) } else { None });
        self.kept.take().map(|(kept, _)| kept).or(waiting).into_iter().for_each(|kept| kept.end(Until::Unread));
    }
}

impl Read for FeedReader {
    /// A download that stops before its end is an error here, so that nobody takes a part for the whole.
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if let Some((kept, at)) = &mut self.kept {
                let n = kept.wait(*at, buf.len())?;
                kept.file.read_exact_at(&mut buf[..n], *at)?;
                *at += to_u64(n);
                return Ok(n);
            }
            if !self.current.is_empty() || self.ended {
                let n = self.current.len().min(buf.len());
                buf[..n].copy_from_slice(&self.current.split_to(n));
                return Ok(n);
            }
            match self.from.recv() {
                Ok(Piece::Bytes(bytes)) => self.current = bytes,
                Ok(Piece::Kept(kept)) => self.kept = Some((kept, 0)),
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(stopped()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::io::Write;

    #[test]
    fn a_feed_that_stops_is_no_end() {
        let (feed, mut reader) = Feed::pair();
        feed.send(Bytes::from_static(b"abc")).unwrap();
        let mut two = [0; 2];
        assert_eq!((reader.read(&mut two).unwrap(), two), (2, *b"ab"));
        drop(feed);
        assert_eq!(reader.read(&mut two).unwrap(), 1);
        assert!(reader.read(&mut two).unwrap_err().to_string().contains("download stopped"));
    }

    #[test]
    fn a_feed_that_came_to_its_end_says_so() {
        let (feed, mut reader) = Feed::pair();
        feed.send(Bytes::from_static(b"abc")).unwrap();
        feed.end();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }

    fn kept(bytes: &[u8]) -> (Feed, FeedReader) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let (mut feed, reader) = Feed::pair();
        feed.keep_in(file).unwrap();
        (feed, reader)
    }

    #[test]
    fn a_file_is_read_as_far_as_it_was_said_to_be_and_no_writer_waits_for_that() {
        let (feed, mut reader) = kept(&[7; 1000]);
        // Nobody reads yet, and more is said than pieces could wait.
        (0..=900).for_each(|len| feed.grow(len).unwrap());
        let mut block = [0; 2000];
        assert_eq!(reader.read(&mut block).unwrap(), 900);
        let later = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            feed.grow(1000).unwrap();
            feed.end();
        });
        assert_eq!((reader.read(&mut block).unwrap(), reader.read(&mut block).unwrap()), (100, 0));
        later.join().unwrap();
    }

    #[test]
    fn a_file_that_stops_growing_is_no_end_and_one_that_nobody_reads_is_not_written_on() {
        let (feed, mut reader) = kept(b"abc");
        feed.grow(3).unwrap();
        drop(feed);
        let mut all = Vec::new();
        assert!(reader.read_to_end(&mut all).unwrap_err().to_string().contains("download stopped"));
        assert_eq!(all, b"abc");
        let (feed, reader) = kept(b"abc");
        drop(reader);
        assert!(feed.grow(3).unwrap_err().is(Condition::Feed));
    }
}
