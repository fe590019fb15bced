//! JSON of any size from a file, with no text in it that would take much memory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::error::{Error, Result, shown};
use crate::limits::CINDER_TEXT_MAX;

/// Opens a file of JSON.
pub(super) fn open(path: &Path) -> Result<BufReader<Bounded<File>>> {
    let file = File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::corrupt("cinder.missing-object", format!("{} is not there", shown(path)))
        }
        _ => Error::io(format!("opening {}", shown(path)), e),
    })?;
    Ok(BufReader::with_capacity(64 << 10, Bounded { inner: file, text: None, escaped: false }))
}

/// A reader that fails where a text of the JSON that passes is too long: the parser would hold all of it.
pub(super) struct Bounded<R> {
    inner: R,
    /// Bytes of the text that is open.
    text: Option<usize>,
    escaped: bool,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buf)?;
        for byte in buf.iter().take(n) {
            match (&mut self.text, byte) {
                (None, b'"') => self.text = Some(0),
                (None, _) => {}
                (Some(_), _) if self.escaped => self.escaped = false,
                (Some(_), b'\\') => self.escaped = true,
                (Some(_), b'"') => self.text = None,
                (Some(len), _) if *len >= CINDER_TEXT_MAX => {
                    return Err(std::io::Error::other(format!("a text has more than {CINDER_TEXT_MAX} bytes")));
                }
                (Some(len), _) => *len = len.saturating_add(1),
            }
        }
        Ok(n)
    }
}
