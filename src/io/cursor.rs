//! A cursor over positioned reads, for code that wants [`Read`] and [`Seek`].

use std::io::{self, Read, Seek, SeekFrom};

use super::ReadAt;
use crate::error::ErrorKind;
use crate::num::{at_most, to_u64};

/// Reads a source from a place on, as a file is read: for parsers of file systems, archives and the like.
///
/// ```
/// use std::io::{Read, Seek, SeekFrom};
/// use unluks::io::ReadAtCursor;
///
/// // Any `ReadAt` will do, such as a `Volume`.
/// let mut cursor = ReadAtCursor::new(b"the plaintext".to_vec());
/// cursor.seek(SeekFrom::End(-4))?;
/// let mut end = String::new();
/// cursor.read_to_string(&mut end)?;
/// assert_eq!(end, "text");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadAtCursor<S> {
    source: S,
    position: u64,
}

impl<S: ReadAt> ReadAtCursor<S> {
    /// A cursor at the start of `source`.
    pub fn new(source: S) -> Self {
        Self { source, position: 0 }
    }

    /// The source.
    pub fn get_ref(&self) -> &S {
        &self.source
    }

    /// The source, without the cursor.
    pub fn into_inner(self) -> S {
        self.source
    }
}

impl<S: ReadAt> Read for ReadAtCursor<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let rest = self.source.len().saturating_sub(self.position);
        let len = at_most(rest, buf.len());
        if len == 0 {
            return Ok(0);
        }
        self.source.read_exact_at(&mut buf[..len], self.position).map_err(|e| {
            let kind = match e.kind() {
                ErrorKind::Io => e.io_error().map_or(io::ErrorKind::Other, io::Error::kind),
                ErrorKind::Corrupt => io::ErrorKind::InvalidData,
                ErrorKind::Unsupported => io::ErrorKind::Unsupported,
                _ => io::ErrorKind::Other,
            };
            io::Error::new(kind, e)
        })?;
        self.position = self.position.saturating_add(to_u64(len));
        Ok(len)
    }
}

impl<S: ReadAt> Seek for ReadAtCursor<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => self.source.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let before_start = || io::Error::new(io::ErrorKind::InvalidInput, "a place before the start, or beyond 2^64");
        self.position = position.ok_or_else(before_start)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Result};

    /// Its second half cannot be read.
    struct Half;

    impl ReadAt for Half {
        fn len(&self) -> u64 {
            100
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
            match offset + to_u64(buf.len()) {
                0..=50 => {
                    buf.fill(7);
                    Ok(())
                }
                _ => Err(Error::io("reading", io::Error::from(io::ErrorKind::TimedOut)).at(50)),
            }
        }
    }

    #[test]
    fn it_reads_and_seeks_as_a_file_does() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut cursor = ReadAtCursor::new(bytes.clone());
        let mut some = [0; 10];
        cursor.read_exact(&mut some).unwrap();
        assert_eq!(some, bytes[..10]);
        assert_eq!(cursor.seek(SeekFrom::Current(-5)).unwrap(), 5);
        cursor.read_exact(&mut some).unwrap();
        assert_eq!(some, bytes[5..15]);
        cursor.seek(SeekFrom::End(-3)).unwrap();
        assert_eq!(cursor.read(&mut some).unwrap(), 3, "a read ends where the source does");
        assert_eq!(cursor.read(&mut some).unwrap(), 0);
        assert_eq!(cursor.seek(SeekFrom::Start(200)).unwrap(), 200);
        assert_eq!(cursor.read(&mut some).unwrap(), 0, "and there is nothing beyond it");
        assert!(cursor.seek(SeekFrom::Current(-201)).is_err());
        assert!(cursor.seek(SeekFrom::Start(u64::MAX)).is_ok() && cursor.seek(SeekFrom::Current(1)).is_err());
        assert_eq!(cursor.stream_position().unwrap(), u64::MAX, "a seek that fails moves nothing");
        assert_eq!(cursor.into_inner(), bytes);
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_words() {
        let mut cursor = ReadAtCursor::new(Half);
        cursor.read_exact(&mut [0; 50]).unwrap();
        let e = cursor.read(&mut [0; 1]).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(e.to_string().contains("at byte 50"), "{e}");
        assert_eq!(cursor.stream_position().unwrap(), 50);
    }
}
