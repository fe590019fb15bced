//! The disk as the readers see it: one operation reads so much and no more, and blocks that were just read are kept.
//!
//! A reader that goes round in circles reads on and on: the budget ends it, whatever structure it was that leads back.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result, catch_panic};
use crate::io::{ReadAt, check_range};
use crate::limits::{READER_CACHE_BLOCKS, READER_OPERATION_BYTES, READER_OPERATION_READS};
use crate::num::{at_most, to_u64};

const BLOCK: usize = 64 << 10;
const BLOCK_LEN: u64 = 64 << 10;
const SECTOR: u64 = 512;

/// The same disk for every clone.
#[derive(Clone)]
pub(super) struct Disk {
    inner: Arc<dyn ReadAt>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blocks: VecDeque<(u64, Vec<u8>)>,
    bytes: u64,
    reads: u64,
    /// The first byte that was read since somebody wanted to know.
    watched: Option<Option<u64>>,
    /// Why the last read failed: most readers keep no more of an error than that there was one.
    failed: Option<Error>,
}

impl Disk {
    pub(super) fn new(inner: Arc<dyn ReadAt>) -> Self {
        Self { inner, state: Arc::default() }
    }

    pub(super) fn len(&self) -> u64 {
        self.inner.len()
    }

    /// One operation of a reader: metered, and an error of the disk comes before what the reader makes of it. A panic is
    /// the reader's way to say that something cannot be.
    pub(super) fn operation<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.bytes, state.reads, state.failed) = (0, 0, None);
        }
        let done = catch_panic("the reader", work);
        let failed = self.state.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
        match (done, failed) {
            (Err(e), _) if e.is(crate::error::Condition::Panic) => {
                Err(Error::corrupt("reader.panic", "the reader met what it takes to be impossible, and gave up"))
            }
            (Err(_), Some(e)) => Err(e),
            (done, _) => done,
        }
    }

    pub(super) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let read = self.read_metered(&mut state, offset, buf);
        if let Err(e) = &read {
            let mut kept = Error::new(e.kind(), e.to_string()).with_rule(e.rule().to_owned());
            if e.kind() == ErrorKind::Io {
                kept = Error::new(ErrorKind::Io, e.to_string());
            }
            state.failed.get_or_insert(kept);
        }
        read
    }

    fn read_metered(&self, state: &mut State, offset: u64, buf: &mut [u8]) -> Result<()> {
        state.reads = state.reads.saturating_add(1);
        if let Some(watched) = &mut state.watched {
            watched.get_or_insert(offset);
        }
        state.bytes = state.bytes.saturating_add(to_u64(buf.len()));
        if state.reads > READER_OPERATION_READS || state.bytes > READER_OPERATION_BYTES {
            let message = format!(
                "one step takes more than {READER_OPERATION_READS} reads or {READER_OPERATION_BYTES} bytes: its structures may lead in a circle"
            );
            return Err(Error::limit("reader.operation", message));
        }
        if let Err(e) = check_range(offset, buf.len(), self.len()) {
            let message = format!("a structure leads to byte {offset}, and the volume has {}", self.len());
            return Err(Error::corrupt("reader.range", message).with_hint(e.message().to_owned()));
        }
        if buf.len() >= BLOCK {
            return self.inner.read_exact_at(buf, offset);
        }
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(to_u64(done));
            done = done.saturating_add(self.read_some(state, at, rest)?);
        }
        Ok(())
    }

    /// Reads the start of `buf`, at most to the end of a block, and says how much that was: never nothing.
    fn read_some(&self, state: &mut State, at: u64, buf: &mut [u8]) -> Result<usize> {
        let start = at.saturating_sub(at % BLOCK_LEN);
        let found = state.blocks.iter().position(|(there, _)| *there == start);
        let block = match found.and_then(|n| state.blocks.remove(n)) {
            Some((_, block)) => block,
            None => {
                let mut block = vec![0; at_most(self.len().saturating_sub(start), BLOCK)];
                if self.inner.read_exact_at(&mut block, start).is_err() {
                    // One bad sector must not hide the others of its block: what is wanted is read alone, and not kept.
                    let to_end = SECTOR.saturating_sub(at % SECTOR).min(self.len().saturating_sub(at));
                    let len = at_most(to_end, buf.len());
                    self.inner.read_exact_at(&mut buf[..len], at)?;
                    return Ok(len);
                }
                block
            }
        };
        let from = block.get(at_most(at.saturating_sub(start), BLOCK)..).unwrap_or_default();
        let len = from.len().min(buf.len());
        buf[..len].copy_from_slice(&from[..len]);
        while state.blocks.len() >= READER_CACHE_BLOCKS {
            state.blocks.pop_front();
        }
        state.blocks.push_back((start, block));
        Ok(len)
    }

    /// From here on the first byte that is read is taken note of.
    #[cfg(feature = "read-fat")]
    pub(super) fn watch(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).watched = Some(None);
    }

    /// Which it was, if any.
    #[cfg(feature = "read-fat")]
    pub(super) fn watched(&self) -> Option<u64> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).watched.take().flatten()
    }

    /// The same with a position, for readers that want one.
    #[cfg_attr(not(any(feature = "read-fat", feature = "read-ntfs")), allow(dead_code))]
    pub(super) fn cursor(&self) -> DiskCursor {
        DiskCursor { disk: self.clone(), position: 0 }
    }
}

/// A disk that is read as a file is.
#[cfg_attr(not(any(feature = "read-fat", feature = "read-ntfs")), allow(dead_code))]
pub(super) struct DiskCursor {
    disk: Disk,
    position: u64,
}

impl Read for DiskCursor {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = at_most(self.disk.len().saturating_sub(self.position), buf.len());
        if len == 0 {
            return Ok(0);
        }
        self.disk.read(self.position, &mut buf[..len]).map_err(|e| io::Error::other(e.to_string()))?;
        self.position = self.position.saturating_add(to_u64(len));
        Ok(len)
    }
}

impl Seek for DiskCursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.disk.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// `lamfat` wants to be able to write, and is never made to.
impl Write for DiskCursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with one bad sector, which begins there.
    struct Bad(Vec<u8>, u64);

    impl ReadAt for Bad {
        fn len(&self) -> u64 {
            to_u64(self.0.len())
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            if offset < self.1 + SECTOR && self.1 < offset + to_u64(buf.len()) {
                return Err(Error::new(ErrorKind::Io, "a bad sector"));
            }
            self.0.read_exact_at(buf, offset)
        }
    }

    #[test]
    fn a_bad_sector_hides_no_other() {
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n.to_le_bytes()[1]).collect();
        let disk = Disk::new(Arc::new(Bad(bytes.clone(), 4608)));
        let read = |at: usize, len: usize| {
            let mut buf = vec![0; len];
            disk.read(to_u64(at), &mut buf).map(|()| buf)
        };
        for (at, len) in [(0, 100), (0, 4608), (5120, 60_000), (511, 2), (65_000, 2000), (199_990, 10), (3, 1)] {
            assert!(read(at, len).unwrap() == bytes[at..at + len], "{at} {len}");
        }
        assert!(read(4607, 2).is_err() && read(5119, 1).is_err());
        let e = read(199_990, 11).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "reader.range"));
    }

    #[test]
    fn a_step_that_reads_on_and_on_ends_and_says_so() {
        let disk = Disk::new(Arc::new(vec![7u8; 1 << 20]));
        let endless = || -> Result<()> {
            let mut buf = vec![0; 1 << 20];
            loop {
                // A reader that keeps no errors.
                disk.read(0, &mut buf).map_err(|_| Error::corrupt("x", "something went wrong"))?;
            }
        };
        assert_eq!(disk.operation(endless).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(disk.operation(|| Ok(5)).unwrap(), 5);
        let e = disk.operation(|| -> Result<()> { panic!("impossible") }).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "reader.panic"));
    }
}
