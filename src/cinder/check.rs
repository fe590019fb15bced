//! Whether a backup is what it was: the MD5 of each object, and the SHA-256 of each block of the volume.
//!
//! `PREFIX_sha256file` has `chunk_size` and `sha256s`, a list of the hashes of the *whole* volume, also in an increment:
//! so the last one's proves that all were laid over each other rightly. Its members are in the order of their names, which
//! puts `chunk_size` first; it has 72 bytes for each block of 32 KiB, and is read as a stream beside the volume.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use super::chain::{Chain, Layer};
use super::metadata::Object;
use super::stream;
use super::unpack::Unpacked;
use super::with_end;
use crate::error::{Error, ErrorKind, Result, counted, escape, shown};
use crate::io::ReadAt;
use crate::limits::{CINDER_BLOCK_MAX, CINDER_DAMAGED_MAX};
use crate::num::{at_most, to_u64, to_usize};
use crate::progress::Progress;

/// Bytes that are hashed at a time.
const CHUNK: usize = 1 << 20;
/// How many blocks, and how many objects, a message names.
const NAMED: usize = 8;

/// What was compared, and is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Objects, by their MD5.
    pub objects: usize,
    /// Blocks of the volume, by their SHA-256.
    pub blocks: u64,
}

/// An object that is not what it was, by its layer and its number there.
struct Bad {
    layer: usize,
    object: usize,
    why: Error,
}

impl Chain {
    /// Reads every object of every backup in the chain, and compares its MD5. `progress` counts the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the rule `cinder.md5` or `cinder.object` and the object's name, at the first that is
    /// wrong; `cancelled`.
    pub fn check_objects(&self, progress: &Progress) -> Result<usize> {
        self.each_object(progress, &|bad| Err(bad.why))
    }

    /// Reads every object, and gives those that are damaged to `take`.
    fn each_object(&self, progress: &Progress, take: &(dyn Fn(Bad) -> Result<()> + Sync)) -> Result<usize> {
        let layers = self.layers.iter().enumerate();
        let all: Vec<_> = layers
            .flat_map(|(n, layer)| layer.objects.iter().enumerate().map(move |object| (n, layer, object)))
            .collect();
        let done = AtomicUsize::new(0);
        all.par_iter().try_for_each_init(
            || vec![0; CHUNK],
            |buf, (layer, of, (number, object))| {
                done.fetch_add(1, Ordering::Relaxed);
                match whole(&of.prefix, **object, buf, progress) {
                    Err(why) if why.kind() == ErrorKind::Corrupt => take(Bad { layer: *layer, object: *number, why }),
                    other => other,
                }
            },
        )?;
        Ok(done.into_inner())
    }

    /// Compares every object's MD5, and every block of the volume with the backup's own list of hashes. What is damaged is
    /// all named, with the blocks of the volume that are not what they were, by the list of the backup that the object is
    /// of.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the rule of the first object that is damaged, `cinder.md5` or `cinder.object`; with
    /// `cinder.sha256` and the place in the volume for a block that is another, or a list that is no such list;
    /// `cancelled`.
    pub fn check(&self, progress: &Progress) -> Result<Checked> {
        let (bad, count) = (Mutex::new(Vec::new()), AtomicUsize::new(0));
        let objects = self.each_object(progress, &|found| {
            count.fetch_add(1, Ordering::Relaxed);
            let mut bad = bad.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if bad.len() < CINDER_DAMAGED_MAX {
                bad.push(found);
            }
            Ok(())
        })?;
        let mut bad = bad.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        bad.sort_by_key(|bad| (bad.layer, bad.object));
        if !bad.is_empty() {
            return Err(self.damaged(bad, count.into_inner(), progress));
        }
        let blocks = self.blocks(progress)?;
        Ok(Checked { objects, blocks })
    }

    /// Compares the blocks of the volume with the last backup's list.
    fn blocks(&self, progress: &Progress) -> Result<u64> {
        let Some(last) = self.layers.last() else { return Ok(0) };
        let (mut wrong, mut buf) = (Wrong::default(), Vec::new());
        let blocks = read_hashes(last, self.len(), &mut |at, size, hash| {
            if progress.is_cancelled() {
                return Err(Error::cancelled());
            }
            buf.resize(at_most(self.len().saturating_sub(at), to_usize(size)?), 0);
            self.read_exact_at(&mut buf, at)?;
            wrong.compare(&buf, hash, at);
            progress.add(to_u64(buf.len()));
            Ok(())
        })?;
        let Some((at, found, listed)) = &wrong.first else { return Ok(blocks) };
        let message = format!(
            "the SHA-256 of the volume's block at byte {at} is {found}; the list says {}{}",
            escape(listed),
            wrong.others()
        );
        Err(Error::corrupt("cinder.sha256", message).at(*at).within(shown(&list_path(last))).with_hint(
            "each object has the MD5 that the metadata says: the list was changed, or backups are not of one chain",
        ))
    }

    /// One error for all that is damaged.
    fn damaged(&self, bad: Vec<Bad>, count: usize, progress: &Progress) -> Error {
        let mut named = Vec::new();
        let mut first = None;
        for (n, Bad { layer, object, why }) in bad.into_iter().enumerate() {
            if n >= NAMED {
                break;
            }
            let Some(of) = self.layers.get(layer) else { continue };
            let Some(object) = of.objects.get(object).copied() else { continue };
            let blocks = match locate(of, object, self.len(), progress) {
                Ok(wrong) => wrong.said(),
                Err(e) if progress.is_cancelled() => return e,
                Err(e) => format!("which blocks of the volume that are, cannot be told: {}", e.message()),
            };
            let what = why.message().to_owned();
            named.push(format!("{what}: {blocks}"));
            first.get_or_insert((why, object.offset));
        }
        let mut message = named.join("; and ");
        if let Some(more) = count.checked_sub(named.len()).filter(|more| *more > 0) {
            let _ = write!(message, "; and {} more", counted(more, "damaged object"));
        }
        let (rule, at) = first.map_or(("cinder.object".to_owned(), 0), |(why, at)| (why.rule().to_owned(), at));
        Error::corrupt(rule, message).at(at).with_hint("copy these objects again")
    }
}

/// Reads an object to its end.
fn whole(prefix: &Path, object: Object, buf: &mut [u8], progress: &Progress) -> Result<()> {
    let mut stream = Unpacked::open(prefix, object)?;
    while stream.at < object.length {
        if progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let n = stream.read(buf)?;
        progress.add(to_u64(n));
    }
    Ok(())
}

/// Which blocks of an object are not those of the list of its own backup.
fn locate(of: &Layer, object: Object, len: u64, progress: &Progress) -> Result<Wrong> {
    let (mut wrong, mut buf) = (Wrong::default(), Vec::new());
    let mut stream = match Unpacked::open(&of.prefix, object) {
        Ok(stream) => Some(stream),
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            wrong.lost_from = Some(object.offset);
            return Ok(wrong);
        }
        Err(e) => return Err(e),
    };
    let mut expected = object.offset;
    read_hashes(of, len, &mut |at, size, hash| {
        if progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        if at < object.offset || at >= object.end() {
            return Ok(());
        }
        if at != expected {
            return Err(Error::corrupt("cinder.sha256", "the object does not begin where a block does"));
        }
        let wanted = at_most(object.end().saturating_sub(at), to_usize(size)?);
        expected = at.saturating_add(to_u64(wanted));
        buf.resize(wanted, 0);
        match stream.as_mut().map(|stream| stream.read(&mut buf)) {
            // The MD5 is wrong, which is known, and all bytes are there.
            Some(Err(e)) if e.rule() == "cinder.md5" => wrong.compare(&buf, hash, at),
            Some(Ok(_)) => wrong.compare(&buf, hash, at),
            // What does not decompress has nothing behind it.
            Some(Err(e)) if e.kind() == ErrorKind::Corrupt => {
                stream = None;
                wrong.lost_from = Some(at);
            }
            Some(Err(e)) => return Err(e),
            None => {}
        }
        Ok(())
    })?;
    Ok(wrong)
}

/// Blocks that are not what the list says.
#[derive(Default)]
struct Wrong {
    /// The first one: its place, its hash, and the list's.
    first: Option<(u64, String, String)>,
    /// The places of the first few.
    places: Vec<u64>,
    count: u64,
    /// The first block of an object that cannot be had any more.
    lost_from: Option<u64>,
}

impl Wrong {
    fn compare(&mut self, block: &[u8], hash: &str, at: u64) {
        let found = hex::encode(Sha256::digest(block));
        if found.eq_ignore_ascii_case(hash) {
            return;
        }
        self.first.get_or_insert_with(|| (at, found, hash.to_owned()));
        if self.places.len() < NAMED {
            self.places.push(at);
        }
        self.count = self.count.saturating_add(1);
    }

    fn list(&self, places: &[u64]) -> String {
        let mut text = places.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        if let Some(more) = self.count.checked_sub(to_u64(self.places.len())).filter(|more| *more > 0) {
            let _ = write!(text, " and {more} more");
        }
        text
    }

    /// The blocks behind the first one, where there are any.
    fn others(&self) -> String {
        match self.places.get(1..) {
            Some(more @ [_, ..]) => format!("; so are those at {}", self.list(more)),
            _ => String::new(),
        }
    }

    fn said(&self) -> String {
        let lost = self
            .lost_from
            .map(|at| format!("nothing can be read of the volume from the block at byte {at} to the object's end"));
        let changed = match &self.places[..] {
            [] => None,
            [at] => Some(format!("the volume's block at byte {at} is another")),
            places => Some(format!("the volume's blocks at the bytes {} are others", self.list(places))),
        };
        let all: Vec<_> = changed.into_iter().chain(lost).collect();
        if all.is_empty() {
            return "each block of it is as the list of hashes says, so that the metadata was changed".into();
        }
        all.join(", and ")
    }
}

fn list_path(layer: &Layer) -> PathBuf {
    with_end(&layer.prefix, "_sha256file")
}

/// Takes the place of a block, the size of blocks, and its hash.
type Take<'a> = dyn FnMut(u64, u64, &str) -> Result<()> + 'a;

/// Reads a backup's list of hashes as a stream; gives how many blocks it has. It must be of that backup, and of all of the
/// `len` bytes of the volume.
fn read_hashes(of: &Layer, len: u64, take: &mut Take<'_>) -> Result<u64> {
    let path = list_path(of);
    let mut json = serde_json::Deserializer::from_reader(stream::open(&path)?);
    let mut failed = None;
    let list = List { of, len, take, chunk: None, blocks: 0, failed: &mut failed };
    let read = list.deserialize(&mut json).and_then(|blocks| json.end().map(|()| blocks));
    match (failed, read) {
        (Some(e), _) if e.kind() == ErrorKind::Corrupt => Err(e.within(shown(&path))),
        (Some(e), _) => Err(e),
        (None, Err(e)) => Err(Error::corrupt("cinder.sha256", format!("{}: {}", shown(&path), escape(&e.to_string())))),
        (None, Ok(blocks)) => Ok(blocks),
    }
}

/// The file, read as a stream, and compared as it comes.
struct List<'a> {
    of: &'a Layer,
    len: u64,
    take: &'a mut Take<'a>,
    chunk: Option<u64>,
    blocks: u64,
    failed: &'a mut Option<Error>,
}

impl List<'_> {
    fn one(&mut self, hash: &str, chunk: u64) -> Result<()> {
        let at = self.blocks.saturating_mul(chunk);
        if at >= self.len {
            let message = format!("there are more hashes than the volume's {} bytes have blocks", self.len);
            return Err(Error::corrupt("cinder.sha256", message));
        }
        (self.take)(at, chunk, hash)?;
        self.blocks = self.blocks.saturating_add(1);
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
            // What the metadata says, too, has to be the same.
            let same = match key.as_str() {
                "backup_id" => Some(("backup", &self.of.id)),
                "volume_id" => Some(("volume", &self.of.volume)),
                "created_at" => Some(("time", &self.of.created_at)),
                _ => None,
            };
            if let Some((what, wanted)) = same {
                let found: String = map.next_value()?;
                if found != *wanted {
                    let (found, wanted) = (escape(&found), escape(wanted));
                    return Err(A::Error::custom(format!("it says the {what} {found}, and the metadata {wanted}")));
                }
                continue;
            }
            match key.as_str() {
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
        if covered < self.len {
            return Err(A::Error::custom(format!("its hashes end at byte {covered} of the volume's {}", self.len)));
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
        while let Some(hash) = seq.next_element::<String>()? {
            if let Err(e) = self.0.one(&hash, chunk) {
                *self.0.failed = Some(e);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}
