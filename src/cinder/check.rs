//! Whether a backup is what it was: the MD5 of each object, and the SHA-256 of each block of the volume.
//!
//! `PREFIX_sha256file` has `chunk_size` and `sha256s`, a list of the hashes of the *whole* volume, also in an increment:
//! so the last one's proves that all were laid over each other rightly. Its members are in the order of their names, which
//! puts `chunk_size` first; it has 72 bytes for each block of 32 KiB, and is read as a stream beside the volume.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use super::chain::Chain;
use super::stream;
use super::unpack::Unpacked;
use super::with_end;
use crate::error::{Error, Result, escape, shown};
use crate::io::ReadAt;
use crate::limits::CINDER_BLOCK_MAX;
use crate::num::{at_most, to_u64, to_usize};
use crate::progress::Progress;

/// Bytes that are hashed at a time.
const CHUNK: usize = 1 << 20;

/// What was compared, and is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Objects, by their MD5.
    pub objects: usize,
    /// Blocks of the volume, by their SHA-256.
    pub blocks: u64,
}

impl Chain {
    /// Reads every object of every backup in the chain, and compares its MD5. `progress` counts the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the rule `cinder.md5` or `cinder.object` and the object's
    /// name; `cancelled`.
    pub fn check_objects(&self, progress: &Progress) -> Result<usize> {
        let all: Vec<_> =
            self.layers.iter().flat_map(|layer| layer.objects.iter().map(move |object| (layer, object))).collect();
        let done = AtomicUsize::new(0);
        all.par_iter().try_for_each_init(
            || vec![0; CHUNK],
            |buf, (layer, object)| {
                let mut stream = Unpacked::open(&layer.prefix, **object)?;
                while stream.at < object.length {
                    if progress.is_cancelled() {
                        return Err(Error::cancelled());
                    }
                    let n = stream.read(buf)?;
                    progress.add(to_u64(n));
                }
                done.fetch_add(1, Ordering::Relaxed);
                Ok(())
            },
        )?;
        Ok(done.into_inner())
    }

    /// Compares every object's MD5, and every block of the volume with the backup's own list of hashes.
    ///
    /// # Errors
    /// As [`Chain::check_objects`]; the rule `cinder.sha256` with the place in the volume for a block that is another, or a
    /// list that is no such list.
    pub fn check(&self, progress: &Progress) -> Result<Checked> {
        let objects = self.check_objects(progress)?;
        let Some(last) = self.layers.last() else { return Ok(Checked { objects, blocks: 0 }) };
        let path = with_end(&last.prefix, "_sha256file");
        let mut json = serde_json::Deserializer::from_reader(stream::open(&path)?);
        let mut failed = None;
        let list = List { chain: self, progress, chunk: None, blocks: 0, failed: &mut failed };
        let read = list.deserialize(&mut json).and_then(|blocks| json.end().map(|()| blocks));
        match (failed, read) {
            (Some(e), _) => Err(e.within(shown(&path))),
            (None, Err(e)) => {
                Err(Error::corrupt("cinder.sha256", format!("{}: {}", shown(&path), escape(&e.to_string()))))
            }
            (None, Ok(blocks)) => Ok(Checked { objects, blocks }),
        }
    }
}

/// The file, read as a stream, and compared as it comes.
struct List<'a> {
    chain: &'a Chain,
    progress: &'a Progress,
    chunk: Option<u64>,
    blocks: u64,
    failed: &'a mut Option<Error>,
}

impl List<'_> {
    /// Compares the next block.
    fn compare(&mut self, hash: &str, chunk: u64, buf: &mut Vec<u8>) -> Result<()> {
        let at = self.blocks.saturating_mul(chunk);
        if self.progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let len = at_most(self.chain.len().saturating_sub(at), to_usize(chunk)?);
        if len == 0 {
            let message = format!("there are more hashes than the volume's {} bytes have blocks", self.chain.len());
            return Err(Error::corrupt("cinder.sha256", message));
        }
        buf.resize(len, 0);
        self.chain.read_exact_at(buf, at)?;
        let found = hex::encode(Sha256::digest(&buf));
        if !found.eq_ignore_ascii_case(hash) {
            let message =
                format!("the SHA-256 of the volume's block at byte {at} is {found}; the list says {}", escape(hash));
            return Err(Error::corrupt("cinder.sha256", message).at(at));
        }
        self.blocks = self.blocks.saturating_add(1);
        self.progress.add(to_u64(len));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = u64;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<u64, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of hashes")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<u64, A::Error> {
        let mut seen = false;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "backup_id" => {
                    let id: String = map.next_value()?;
                    if id != self.chain.id() {
                        return Err(A::Error::custom(format!("it is of the backup {}", escape(&id))));
                    }
                }
                "chunk_size" => {
                    let size: u64 = map.next_value()?;
                    if size == 0 || size > CINDER_BLOCK_MAX {
                        return Err(A::Error::custom(format!(
                            "chunk_size is {size}; 1 to {CINDER_BLOCK_MAX} is wanted"
                        )));
                    }
                    self.chunk = Some(size);
                }
                "sha256s" if !seen => {
                    seen = true;
                    map.next_value_seed(Hashes(&mut self))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let covered = self.blocks.saturating_mul(self.chunk.unwrap_or(0));
        if covered < self.chain.len() {
            return Err(A::Error::custom(format!(
                "its hashes end at byte {covered} of the volume's {}",
                self.chain.len()
            )));
        }
        Ok(self.blocks)
    }
}

struct Hashes<'a, 'b>(&'a mut List<'b>);

impl<'de> DeserializeSeed<'de> for Hashes<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Hashes<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hashes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let chunk = self.0.chunk.ok_or_else(|| A::Error::custom("chunk_size is wanted before the hashes"))?;
        let mut buf = Vec::new();
        while let Some(hash) = seq.next_element::<String>()? {
            if let Err(e) = self.0.compare(&hash, chunk, &mut buf) {
                *self.0.failed = Some(e);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
