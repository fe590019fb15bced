//! An image stream: chunks of one size, so many of them in each bevy, with an index beside it (AFF4 Standard v1.0, 3).
//!
//! | index of v1.0, `NNNNNNNN.index` | | before it, `NNNNNNNN/index` |
//! |---|---|---|
//! | 0..8 | the chunk's place in the bevy | 32 bits for each chunk |
//! | 8..12 | its length there | |
//!
//! A chunk that has the chunk size in its bevy is stored as it is, and the last one is padded. Before v1.0, Evimetry wrote
//! the places where chunks end, and rekall those where they begin: the first of which is 0.

use std::sync::Arc;

use super::archive::{Archive, Member};
use crate::error::{Error, Result, escape};
use crate::format::cache::Cache;
use crate::format::fields;
use crate::format::unpack::{Packing, unpack};
use crate::limits::{AFF4_INDEX_MAX, CONTAINER_UNIT_MAX};
use crate::num::{to_u64, to_usize};

/// How a stream's chunks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Packed(Packing),
    /// rekall packs also those chunks that do not become smaller.
    Snappy,
}

impl Method {
    /// The method of a name that `information.turtle` has for it.
    pub(super) fn of(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(Self::Stored) };
        let known = [
            ("rfc1951", Self::Packed(Packing::Deflate)),
            ("rfc1950", Self::Packed(Packing::Zlib)),
            ("code.google.com/p/snappy", Self::Packed(Packing::Snappy)),
            ("google/snappy", Self::Snappy),
            ("lz4", Self::Packed(Packing::Lz4)),
            ("NullCompressor", Self::Stored),
            ("compression/stored", Self::Stored),
        ];
        known.into_iter().find(|(mark, _)| name.contains(mark)).map(|(_, method)| method).ok_or_else(|| {
            let message =
                format!("found compression method \"{}\"; snappy, deflate, zlib, LZ4 and none are read", escape(name));
            Error::unsupported("aff4.compression", message)
        })
    }
}

/// A bevy, and the index of its chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bevy {
    pub data: Option<Member>,
    pub index: Option<Member>,
    /// Whether the index is of the kind from before the standard.
    pub is_old: bool,
}

/// What `information.turtle` says of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub size: u64,
    pub chunk_size: u64,
    pub chunks_in_segment: u64,
    pub method: Method,
}

impl Geometry {
    pub(super) fn check(&self) -> Result<()> {
        let (chunk_size, chunks) = (self.chunk_size, self.chunks_in_segment);
        if chunk_size == 0 || chunks == 0 {
            let message = format!("found {chunks} chunks of {chunk_size} bytes in a bevy");
            return Err(Error::corrupt("aff4.stream", message));
        }
        if chunk_size > CONTAINER_UNIT_MAX {
            let message = format!("found chunks of {chunk_size} bytes; {CONTAINER_UNIT_MAX} are allowed");
            return Err(Error::limit("aff4.stream", message));
        }
        Ok(())
    }

    pub(super) fn chunks(&self) -> u64 {
        self.size.div_ceil(self.chunk_size.max(1))
    }

    pub(super) fn bevies(&self) -> u64 {
        self.chunks().div_ceil(self.chunks_in_segment.max(1))
    }
}

/// A stream that is there.
pub(super) struct Stream {
    archive: Arc<Archive>,
    pub geometry: Geometry,
    bevies: Vec<Bevy>,
    indices: Cache<Arc<Vec<u8>>>,
}

/// A chunk's place in its bevy.
struct Chunk {
    at: u64,
    len: u64,
}

impl Stream {
    /// The stream whose bevies are all there.
    pub(super) fn new(archive: Arc<Archive>, name: &str, geometry: Geometry, bevies: Vec<Bevy>) -> Result<Self> {
        let missing = bevies.iter().position(|bevy| bevy.data.is_none() || bevy.index.is_none());
        if let Some(n) = missing {
            let message = format!("the archive lacks bevy {n:08} of {}, or its index", escape(name));
            return Err(Error::corrupt("aff4.bevy", message).with_hint("the image is not whole: fetch it again"));
        }
        if let Some(n) = bevies.iter().filter_map(|bevy| bevy.data).position(|data| !data.is_stored()) {
            let message = format!("bevy {n:08} of {} is packed in the archive", escape(name));
            return Err(Error::unsupported("aff4.bevy", message)
                .with_hint("the archive was packed again: unzip it, and zip -0 it with container.description first"));
        }
        let largest = bevies.iter().filter_map(|bevy| bevy.index).map(|index| index.size).max().unwrap_or(1);
        Ok(Self { archive, geometry, bevies, indices: Cache::for_size(largest.clamp(1, AFF4_INDEX_MAX)) })
    }

    /// The bytes of chunk `n`: those that the stream has of it, or more.
    pub(super) fn chunk(&self, n: u64) -> Result<Vec<u8>> {
        let Geometry { size, chunk_size, chunks_in_segment, method } = self.geometry;
        let number = n.checked_div(chunks_in_segment).unwrap_or(0);
        let inside = n.checked_rem(chunks_in_segment).unwrap_or(0);
        let wrong = |what: &str| Error::corrupt("aff4.bevy", format!("chunk {n}, in bevy {number:08}: {what}"));
        let bevy = self.bevies.get(to_usize(number)?).ok_or_else(|| wrong("there is no such bevy"))?;
        let (Some(data), Some(index)) = (bevy.data, bevy.index) else { return Err(wrong("there is no such bevy")) };
        let index = self.indices.get_or_make(number, || {
            self.archive.read(&index, AFF4_INDEX_MAX, &format!("the index of bevy {number:08}")).map(Arc::new)
        })?;
        let found = if bevy.is_old { old_entry(&index, inside, data.size) } else { entry(&index, inside) };
        let Chunk { at, len } = found.ok_or_else(|| wrong("its index has no place for it"))?;
        if at.checked_add(len).is_none_or(|end| end > data.size) || !(1..=chunk_size.saturating_mul(2)).contains(&len) {
            return Err(wrong(&format!("it is said to lie in {len} bytes from byte {at} of the bevy on")));
        }
        let start = self.archive.data_at(&data)?.saturating_add(at);
        let mut bytes = vec![0; to_usize(len)?];
        fields::fill(&self.archive.file, &mut bytes, start, "container.truncated", "a chunk")?;
        let bytes = match method {
            Method::Packed(packing) if len != chunk_size => {
                unpack(packing, &bytes, chunk_size).map_err(|e| e.at(start))?
            }
            Method::Snappy => match unpack(Packing::Snappy, &bytes, chunk_size) {
                Ok(bytes) => bytes,
                Err(_) if len == chunk_size => bytes,
                Err(e) => return Err(e.at(start)),
            },
            Method::Stored | Method::Packed(_) => bytes,
        };
        let wanted = chunk_size.min(size.saturating_sub(n.saturating_mul(chunk_size)));
        if to_u64(bytes.len()) < wanted {
            return Err(wrong(&format!("it has {} bytes; {wanted} are wanted", bytes.len())).at(start));
        }
        Ok(bytes)
    }
}

fn entry(index: &[u8], n: u64) -> Option<Chunk> {
    let (entries, _) = index.as_chunks::<12>();
    let [at @ .., a, b, c, d] = *entries.get(usize::try_from(n).ok()?)?;
    Some(Chunk { at: u64::from_le_bytes(at), len: u64::from(u32::from_le_bytes([a, b, c, d])) })
}

/// The chunk `n` of a bevy of `size` bytes, by the places of where chunks begin, or where they end.
fn old_entry(index: &[u8], n: u64, size: u64) -> Option<Chunk> {
    let (entries, _) = index.as_chunks::<4>();
    let place = |n: usize| entries.get(n).map(|entry| u64::from(u32::from_le_bytes(*entry)));
    let n = usize::try_from(n).ok()?;
    let (at, end) = if place(0)? == 0 {
        (place(n)?, n.checked_add(1).and_then(place).unwrap_or(size))
    } else {
        let at = n.checked_sub(1).map_or(Some(0), place)?;
        (at, place(n).unwrap_or(size))
    };
    Some(Chunk { at, len: end.checked_sub(at)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_from_before_the_standard() {
        let of = |places: &[u32]| -> Vec<u8> { places.iter().flat_map(|place| place.to_le_bytes()).collect() };
        let all = |index: &[u8]| -> Vec<(u64, u64)> {
            (0..5).map_while(|n| old_entry(index, n, 100)).map(|chunk| (chunk.at, chunk.len)).collect()
        };
        assert_eq!(all(&of(&[0, 10, 60])), [(0, 10), (10, 50), (60, 40)], "rekall's");
        assert_eq!(all(&of(&[10, 60, 100]))[..3], [(0, 10), (10, 50), (60, 40)], "Evimetry's");
        assert_eq!(all(&of(&[10, 60])), [(0, 10), (10, 50), (60, 40)], "without the last end");
        assert_eq!(all(&of(&[10, 5])), [(0, 10)], "an end before its beginning");
        assert_eq!(all(&[]), []);
    }
}
