//! An object's data, decompressed as a stream.
//!
//! zlib is flate2's, zstd is ruzstd's, which the crate has already. bz2 is `bzip2` 0.6 over libbz2-rs-sys: both are kept
//! by the Trifecta Tech Foundation and pure Rust. `bzip2-rs` was looked at, too: it has had no release since 2021.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use digest::Digest;
use md5::Md5;

use super::metadata::{Object, Packing};
use crate::error::{Error, Result, shown};
use crate::limits::ZSTD_WINDOW_MAX;
use crate::num::{at_most, to_u64};

/// An object that is read from its start on. At its end its MD5 is compared.
pub(super) struct Unpacked {
    stream: Box<dyn Read + Send>,
    name: String,
    object: Object,
    /// Bytes that were read.
    pub at: u64,
    md5: Md5,
}

impl Unpacked {
    pub fn open(prefix: &Path, object: Object) -> Result<Self> {
        let path = object.path(prefix);
        let name = shown(&path);
        let file = File::open(&path).map_err(|e| Error::io(format!("opening {name}"), e))?;
        let file = BufReader::with_capacity(256 << 10, file);
        let stream: Box<dyn Read + Send> = match object.packing {
            Packing::None => Box::new(file),
            Packing::Zlib => Box::new(flate2::bufread::ZlibDecoder::new(file)),
            Packing::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(file)),
            Packing::Zstd => {
                let stream = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(file, ZSTD_WINDOW_MAX);
                Box::new(stream.map_err(|e| bad(&name, &e))?)
            }
        };
        Ok(Self { stream, name, object, at: 0, md5: Md5::new() })
    }

    /// The next bytes, as many as `buf` has room for; fewer at the end alone.
    pub fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let wanted = at_most(self.object.length.saturating_sub(self.at), buf.len());
        let mut filled = 0;
        while let Some(room) = buf.get_mut(filled..wanted).filter(|room| !room.is_empty()) {
            match self.stream.read(room) {
                Ok(0) => {
                    let message =
                        format!("{} ends after {} bytes; the metadata says {}", self.name, self.at, self.object.length);
                    return Err(Error::corrupt("cinder.object", message));
                }
                Ok(n) => {
                    self.md5.update(room.get(..n).unwrap_or_default());
                    self.at = self.at.saturating_add(to_u64(n));
                    filled = filled.saturating_add(n);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // Of a file that cannot be read, the system says a number; of one that does not unpack, it does not.
                Err(e) if e.raw_os_error().is_some() => return Err(Error::io(format!("reading {}", self.name), e)),
                Err(e) => return Err(bad(&self.name, &e)),
            }
        }
        if self.at == self.object.length && wanted > 0 {
            self.finish()?;
        }
        Ok(filled)
    }

    fn finish(&mut self) -> Result<()> {
        if !matches!(self.stream.read(&mut [0]), Ok(0)) {
            let message =
                format!("{} gives more than the {} bytes that the metadata says", self.name, self.object.length);
            return Err(Error::corrupt("cinder.object", message));
        }
        let found = std::mem::take(&mut self.md5).finalize();
        if found.as_slice() != self.object.md5 {
            let message = format!(
                "the MD5 of {} is {}; the metadata says {}",
                self.name,
                hex::encode(found),
                hex::encode(self.object.md5)
            );
            return Err(Error::corrupt("cinder.md5", message)
                .at(self.object.offset)
                .with_hint("copy the object again"));
        }
        Ok(())
    }
}

fn bad(name: &str, e: &dyn std::fmt::Display) -> Error {
    Error::corrupt("cinder.object", format!("{name} does not decompress: {}", crate::error::escape(&e.to_string())))
}
