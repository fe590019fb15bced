//! What a volume's `information.turtle` says of the things in it, as far as reading a disk wants it: AFF4 Standard v1.0, 2
//! to 6, and the names that came before it.
//!
//! | | v1.0 (`http://aff4.org/Schema#`) | Evimetry 2 (`http://afflib.org/2009/aff4#`) | rekall and pmem |
//! |---|---|---|---|
//! | a stream of chunks | ImageStream | stream | image |
//! | its chunks | chunkSize, chunksInSegment | chunk_size, chunks_in_segment | chunk_size, chunks_per_segment |
//! | how they are packed | compressionMethod | CompressionMethod | compression |
//! | a map | Map | map | map |
//! | what is in it | Image, DiskImage …, by dataStream | Image, the map itself | |

use std::collections::BTreeMap;
use std::sync::Arc;

use super::archive::Archive;
use super::turtle::{self, Object};
use crate::error::{Error, Result, escape};
use crate::limits::{AFF4_NAME_MAX, AFF4_TEXT_MAX, AFF4_THINGS_MAX};

const NAMESPACES: [&str; 2] = ["http://aff4.org/Schema#", "http://afflib.org/2009/aff4#"];
const TURTLE: &str = "information.turtle";
const DESCRIPTION: &str = "container.description";

/// What a thing is; it may be several at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub is_image: bool,
    pub is_disk: bool,
    pub is_map: bool,
    pub is_stream: bool,
    pub is_encrypted: bool,
    /// Of a kind of file that is a member of the archive.
    pub is_segment: bool,
}

/// A thing that the text describes. Its numbers are as the text has them.
#[derive(Clone, Debug, Default)]
pub(super) struct Thing {
    pub kinds: Kinds,
    pub size: Option<u64>,
    pub block_size: Option<u64>,
    pub chunk_size: Option<u64>,
    pub chunks_in_segment: Option<u64>,
    pub compression: Option<String>,
    pub data_stream: Option<String>,
    /// What lies where a map maps nothing.
    pub gap: Option<String>,
    /// Hashes of its bytes from first to last: a name, and the hash in lower-case hex.
    pub hashes: Vec<(&'static str, String)>,
}

/// An archive with what its text says.
pub(super) struct Volume {
    pub archive: Arc<Archive>,
    /// The volume's own name.
    pub urn: String,
    pub things: BTreeMap<String, Thing>,
}

impl Volume {
    pub(super) fn open(archive: Archive) -> Result<Self> {
        let (mut turtle, mut description) = (None, None);
        archive.each(|name, member| {
            // A later member of a name stands for an earlier one.
            match name {
                _ if name == TURTLE.as_bytes() => turtle = Some(member),
                _ if name == DESCRIPTION.as_bytes() => description = Some(member),
                _ => {}
            }
            Ok(())
        })?;
        let turtle = turtle.ok_or_else(|| {
            Error::corrupt("aff4.turtle", "the archive has no information.turtle, which says what is in it")
                .with_hint("unzip -l lists what a ZIP archive has; one that is no AFF4 image is unpacked first")
        })?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let urn = match description {
            Some(member) => archive.read(&member, 1 << 10, DESCRIPTION)?,
            None => archive.comment.clone(),
        };
        let urn = text(urn);
        let urn = urn.split(['\0', '\n', '\r']).next().unwrap_or_default().trim();
        let turtle = text(archive.read(&turtle, AFF4_TEXT_MAX, TURTLE)?);
        let mut things: BTreeMap<String, Thing> = BTreeMap::new();
        turtle::each(&turtle, |subject, predicate, object| {
            let property = local(predicate).or_else(|| predicate.ends_with("#type").then_some("type"));
            let Some(property) = property.filter(|property| PROPERTIES.contains(property)) else { return Ok(()) };
            let subject = canonical(subject.as_bytes());
            if things.len() >= AFF4_THINGS_MAX && !things.contains_key(&subject) {
                let message = format!("information.turtle describes more than {AFF4_THINGS_MAX} things");
                return Err(Error::limit("aff4.things", message)
                    .with_hint("an AFF4 container of many files is no image of a disk: pyaff4 extracts them"));
            }
            things.entry(subject).or_default().set(property, object)
        })?;
        Ok(Self { archive: Arc::new(archive), urn: canonical(urn.as_bytes()), things })
    }

    /// The full name of the member that is called `name` in the archive.
    pub(super) fn full_name(&self, name: &[u8]) -> String {
        let name = canonical(name);
        let name = name.trim_start_matches('/');
        if name.starts_with("aff4://") { name.to_owned() } else { format!("{}/{name}", self.urn) }
    }
}

/// A name of AFF4 without its namespace.
pub(super) fn local(name: &str) -> Option<&str> {
    NAMESPACES.iter().find_map(|namespace| name.strip_prefix(namespace))
}

/// What is kept of a thing.
const PROPERTIES: [&str; 14] = [
    "type",
    "size",
    "blockSize",
    "chunkSize",
    "chunk_size",
    "chunksInSegment",
    "chunks_in_segment",
    "chunks_per_segment",
    "compressionMethod",
    "CompressionMethod",
    "compression",
    "dataStream",
    "mapGapDefaultStream",
    "hash",
];

/// The hashes, with the length of their hex, whose type says that they are of a thing's bytes from first to last; others are of its map or its chunks.
const HASHES: [(&str, &str, usize); 5] = [
    ("MD5", "md5", 32),
    ("SHA1", "sha1", 40),
    ("SHA256", "sha256", 64),
    ("SHA512", "sha512", 128),
    ("Blake2b", "blake2b", 128),
];

impl Thing {
    /// Takes over what a statement says.
    fn set(&mut self, property: &str, object: Object<'_>) -> Result<()> {
        if property == "hash" {
            self.hash(object);
            return Ok(());
        }
        let text = match object {
            Object::Name(name) => canonical(name.as_bytes()),
            Object::Literal(text, _) => text.to_owned(),
        };
        if text.len() > AFF4_NAME_MAX {
            let message =
                format!("{property} has {} bytes in information.turtle; {AFF4_NAME_MAX} are allowed", text.len());
            return Err(Error::limit("aff4.turtle", message));
        }
        let number = || {
            text.parse::<u64>().map_err(|_| {
                let message = format!("{property} is \"{}\" in information.turtle, and no number", escape(&text));
                Error::corrupt("aff4.turtle", message)
            })
        };
        match property {
            "size" => self.size = Some(number()?),
            "blockSize" => self.block_size = Some(number()?),
            "chunkSize" | "chunk_size" => self.chunk_size = Some(number()?),
            "chunksInSegment" | "chunks_in_segment" | "chunks_per_segment" => self.chunks_in_segment = Some(number()?),
            "compressionMethod" | "CompressionMethod" | "compression" => self.compression = Some(text),
            "dataStream" => self.data_stream = Some(text),
            "mapGapDefaultStream" => self.gap = Some(text),
            _ => {
                if let Some(set) = local(&text).and_then(kind) {
                    set(&mut self.kinds);
                }
            }
        }
        Ok(())
    }
}

impl Thing {
    fn hash(&mut self, object: Object<'_>) {
        let Object::Literal(text, kind) = object else { return };
        let kind = local(kind).and_then(|kind| HASHES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(kind)));
        let Some((_, algorithm, len)) = kind else { return };
        let is_hex = text.len() == *len && text.bytes().all(|b| b.is_ascii_hexdigit());
        if is_hex && !self.hashes.iter().any(|(other, _)| other == algorithm) {
            self.hashes.push((algorithm, text.to_ascii_lowercase()));
        }
    }
}

fn kind(class: &str) -> Option<fn(&mut Kinds)> {
    Some(match class {
        "Image" | "ContiguousImage" | "DiscontiguousImage" | "VolumeImage" | "MemoryImage" | "FileImage" => {
            |kinds| kinds.is_image = true
        }
        "DiskImage" => |kinds| (kinds.is_image, kinds.is_disk) = (true, true),
        "Map" | "map" => |kinds| kinds.is_map = true,
        "ImageStream" | "stream" | "image" => |kinds| kinds.is_stream = true,
        "EncryptedStream" | "RandomAccessImageStream" => |kinds| kinds.is_encrypted = true,
        "ZipSegment" | "zip_segment" => |kinds| kinds.is_segment = true,
        _ => return None,
    })
}

/// A name as it is meant: the same thing may be escaped in one place, not in another, and twice by pyaff4, which also
/// puts a slash too many behind a volume.
pub(super) fn canonical(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(&unescaped(&unescaped(name))).into_owned();
    let Some(path) = name.strip_prefix("aff4://").filter(|path| path.contains("//")) else { return name };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("aff4://{}", parts.join("/"))
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<2>().filter(|_| *byte == b'%');
        let decoded = digits.and_then(|digits| hex::decode(digits).ok()).and_then(|decoded| decoded.first().copied());
        bytes.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_however_they_are_escaped() {
        let plain = "aff4://c9f6/a b/00000000";
        for name in [
            plain,
            "aff4%3A%2F%2Fc9f6/a%20b/00000000",
            "aff4%3a%2f%2fc9f6/a%2520b/00000000",
            "aff4://c9f6//a b///00000000",
        ] {
            assert_eq!(canonical(name.as_bytes()), plain);
        }
        assert_eq!(canonical(b"100%/%zz%"), "100%/%zz%");
        assert_eq!(canonical(b"http://code.google.com//p"), "http://code.google.com//p");
    }
}
