//! Positioned reads: the one trait that every stage of the data flow takes and gives.

mod cursor;
#[cfg(feature = "unlock")]
mod peek;
mod pipe;
mod rescue;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::num::to_u64;
pub use cursor::ReadAtCursor;
#[cfg(feature = "unlock")]
pub(crate) use peek::Peek;
pub use pipe::{Pipe, Tap};
pub use rescue::{RescueMap, Rescued};

/// A run of bytes that reads alike, as [`ReadAt::extent_at`] reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many bytes from the asked offset on are of this sort. Never 0 inside the source.
    pub len: u64,
    /// The bytes are known to read as zeroes, and take no room where they are stored.
    pub zero: bool,
}

/// Bytes that can be read at any position, by any number of threads at once.
///
/// There is no cursor and no lock: stages compose, and a slice or a reader that fails can stand in any place.
pub trait ReadAt: Send + Sync {
    /// How many bytes there are.
    fn len(&self) -> u64;

    /// The pipe that the bytes come through, decrypted on the way or not. Such a source is read once and in order, but for
    /// its head, and its [`ReadAt::len`] is the most that there can be.
    fn pipe(&self) -> Option<&Pipe> {
        None
    }

    /// How many bytes there are, where that is known: not of a pipe.
    fn known_len(&self) -> Option<u64> {
        self.pipe().is_none().then(|| self.len())
    }

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where the bytes cannot be read, and where `buf` reaches beyond [`ReadAt::len`]; what `buf`
    /// holds is then not specified.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()>;

    /// What lies at `offset`: data, or bytes known to be zero without reading them. `offset` is below [`ReadAt::len`].
    ///
    /// # Errors
    /// [`ErrorKind::Io`] or [`ErrorKind::Corrupt`] where the source's own tables cannot be read.
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { len: self.len().saturating_sub(offset), zero: false })
    }

    /// Tells the source that `len` bytes from `offset` on will be wanted soon. Advice only.
    fn will_need(&self, _offset: u64, _len: u64) {}

    /// Tells the source that `len` bytes from `offset` on will not be wanted again. Advice only.
    fn wont_need(&self, _offset: u64, _len: u64) {}
}

fn short(offset: u64, wanted: usize, len: u64) -> Error {
    Error::new(ErrorKind::Io, format!("the source ends at byte {len}, but {wanted} bytes were wanted")).at(offset)
}

/// Whether `wanted` bytes from `offset` on lie within `len`.
pub(crate) fn check_range(offset: u64, wanted: usize, len: u64) -> Result<()> {
    let end = u64::try_from(wanted).ok().and_then(|w| offset.checked_add(w));
    match end {
        Some(end) if end <= len => Ok(()),
        _ => Err(short(offset, wanted, len)),
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        to_u64(<[u8]>::len(self))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).ok();
        let from = start.and_then(|start| self.get(start..start.checked_add(buf.len())?));
        buf.copy_from_slice(from.ok_or_else(|| short(offset, buf.len(), ReadAt::len(self)))?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn len(&self) -> u64 {
        ReadAt::len(self.as_slice())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.as_slice().read_exact_at(buf, offset)
    }
}

macro_rules! forward {
    ($($t:ty),*) => {$(
        impl<T: ReadAt + ?Sized> ReadAt for $t {
            fn len(&self) -> u64 { (**self).len() }
            fn pipe(&self) -> Option<&Pipe> { (**self).pipe() }
            fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> { (**self).read_exact_at(buf, offset) }
            fn extent_at(&self, offset: u64) -> Result<Extent> { (**self).extent_at(offset) }
            fn will_need(&self, offset: u64, len: u64) { (**self).will_need(offset, len) }
            fn wont_need(&self, offset: u64, len: u64) { (**self).wont_need(offset, len) }
        }
    )*};
}
forward!(&T, Box<T>, Arc<T>);

/// A file or a block device, opened read-only and read with `pread`.
///
/// Its length is taken when it is opened: a file that shrinks later gives an error, one that grows is read to the
/// length it had.
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Takes an open file or block device.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where its length cannot be found; [`ErrorKind::InvalidInput`] for a directory and for a
    /// character device, which has none.
    pub fn new(file: File) -> Result<Self> {
        use std::io::{Seek, SeekFrom};
        use std::os::unix::fs::FileTypeExt;
        let meta = file.metadata().map_err(|e| Error::io("reading the file's attributes", e))?;
        if meta.is_dir() {
            return Err(Error::invalid("is a directory, not an image"));
        }
        if meta.file_type().is_char_device() {
            return Err(Error::invalid("is a character device, not an image: a file or a block device is wanted"));
        }
        // A block device has no length in its attributes, but seeks to its end.
        let len = if meta.is_file() {
            meta.len()
        } else {
            (&file).seek(SeekFrom::End(0)).map_err(|e| Error::io("finding the end of the source", e))?
        };
        Ok(Self { file, len })
    }

    /// Opens `path` read-only.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be opened; otherwise as [`FileSource::new`].
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = || crate::error::escape(&path.display().to_string());
        let file = File::open(path).map_err(|e| Error::io(format!("opening {}", name()), e))?;
        Self::new(file).map_err(|e| e.within(name()))
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::Io, "the file became shorter while it was read").at(offset)
            }
            _ => Error::io(format!("reading {} bytes", buf.len()), e).at(offset),
        })
    }

    /// The holes that the file system knows of are zeroes.
    #[cfg(feature = "unlock")]
    fn extent_at(&self, offset: u64) -> Result<Extent> {
        use rustix::fs::{SeekFrom, seek};
        let rest = self.len.saturating_sub(offset);
        // The position that this moves is nobody's: all reads say where.
        let (len, zero) = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => (data - offset, true),
            Ok(_) => match seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => (hole - offset, false),
                _ => (rest, false),
            },
            // There is no data behind it.
            Err(rustix::io::Errno::NXIO) if offset < self.len => (rest, true),
            Err(_) => (rest, false),
        };
        Ok(Extent { len: len.min(rest), zero })
    }

    #[cfg(feature = "unlock")]
    fn will_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, rustix::fs::Advice::WillNeed);
    }

    #[cfg(feature = "unlock")]
    fn wont_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, rustix::fs::Advice::DontNeed);
    }
}

#[cfg(feature = "unlock")]
impl FileSource {
    /// Advice that the system does not take changes nothing.
    fn advise(&self, offset: u64, len: u64, advice: rustix::fs::Advice) {
        let len = std::num::NonZeroU64::new(len.min(self.len.saturating_sub(offset)));
        if let Some(len) = len {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), advice);
        }
    }
}

/// A part of another source, as a source of its own.
pub struct Window<S> {
    inner: S,
    start: u64,
    len: u64,
}

impl<S: ReadAt> Window<S> {
    /// The `len` bytes of `inner` from `start` on; to its end where `len` is `None`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the part does not lie within `inner`.
    pub fn new(inner: S, start: u64, len: Option<u64>) -> Result<Self> {
        let total = inner.len();
        let rest = total.checked_sub(start);
        let fits = rest.filter(|rest| len.is_none_or(|len| len <= *rest));
        let rest = fits.ok_or_else(|| {
            Error::invalid(match len {
                Some(len) => {
                    format!("a part of {len} bytes from byte {start} on does not fit a source of {total} bytes")
                }
                None => format!("a part from byte {start} on lies beyond a source of {total} bytes"),
            })
        })?;
        Ok(Self { inner, start, len: len.unwrap_or(rest) })
    }
}

impl<S: ReadAt> ReadAt for Window<S> {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        self.inner.read_exact_at(buf, self.start + offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let rest = self.len.saturating_sub(offset);
        let e = self.inner.extent_at(self.start.saturating_add(offset))?;
        Ok(Extent { len: e.len.min(rest), ..e })
    }

    fn will_need(&self, offset: u64, len: u64) {
        if offset < self.len {
            self.inner.will_need(self.start + offset, len.min(self.len - offset));
        }
    }

    fn wont_need(&self, offset: u64, len: u64) {
        if offset < self.len {
            self.inner.wont_need(self.start + offset, len.min(self.len - offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_beyond_the_end_is_an_error_with_its_place() {
        let source = vec![7u8; 10];
        let e = source.read_exact_at(&mut [0; 4], 8).unwrap_err();
        assert_eq!((e.kind(), e.offset()), (ErrorKind::Io, Some(8)));
        assert!(source.read_exact_at(&mut [0; 4], u64::MAX).is_err());
        assert!(source.read_exact_at(&mut [], 10).is_ok());
    }

    #[test]
    fn a_window_keeps_to_its_part() {
        let w = Window::new((0u8..10).collect::<Vec<_>>(), 2, Some(5)).unwrap();
        let mut b = [0; 5];
        w.read_exact_at(&mut b, 0).unwrap();
        assert_eq!(b, [2, 3, 4, 5, 6]);
        assert!(w.read_exact_at(&mut b, 1).is_err());
        assert!(Window::new(vec![0u8; 4], 3, Some(2)).is_err());
        assert_eq!(w.extent_at(1).unwrap(), Extent { len: 4, zero: false });
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let f = tempfile::NamedTempFile::new().unwrap();
        f.as_file().set_len(100).unwrap();
        let source = FileSource::open(f.path()).unwrap();
        f.as_file().set_len(50).unwrap();
        let e = source.read_exact_at(&mut [0; 100], 0).unwrap_err();
        assert!(e.to_string().contains("became shorter"), "{e}");
    }
}
