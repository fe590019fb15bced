//! `PREFIX_metadata`: which parts of the volume the objects of a backup are.
//!
//! | member | |
//! |---|---|
//! | `version` | "1.0.0", as text |
//! | `backup_id`, `volume_id`, `created_at` | text |
//! | `parent_id` | null, or the id of the backup that this is an increment of |
//! | `volume_meta` | null, or JSON as text; `volume-base-metadata` in it has the volume's name |
//! | `objects` | a list in the order of the volume, of `{NAME: {offset, length, compression, md5}}` |
//!
//! Offset and length are of the volume, and `md5` is of the part before it was compressed. All else is passed over.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::stream;
use super::with_end;
use crate::error::{Error, Result, escape, shown};
use crate::limits::{CINDER_OBJECT_MAX, CINDER_OBJECTS_MAX, CONTAINER_SIZE_MAX};

/// What a description says, but for its objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata {
    pub id: String,
    pub volume: String,
    pub volume_name: Option<String>,
    pub created_at: String,
    pub parent: Option<String>,
}

/// How an object is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    /// RFC 1950.
    Zlib,
    Bzip2,
    /// RFC 8878.
    Zstd,
}

impl Packing {
    /// By the name in the metadata, which is what the operator configured (`get_compressor` of the driver).
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "none" | "off" | "no" => Self::None,
            "zlib" | "gzip" => Self::Zlib,
            "bz2" | "bzip2" => Self::Bzip2,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

/// A part of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub offset: u64,
    pub length: u64,
    /// What its name ends with.
    pub number: u32,
    /// How many digits that has in the name.
    digits: u8,
    pub packing: Packing,
    pub md5: [u8; 16],
}

impl Object {
    /// Its file.
    pub fn path(&self, prefix: &Path) -> PathBuf {
        let width = usize::from(self.digits);
        with_end(prefix, &format!("-{:0width$}", self.number))
    }

    /// The byte behind it; it was checked that there is one.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// Reads a description, and gives each object to `take`.
pub(super) fn read(prefix: &Path, take: &mut dyn FnMut(Object) -> Result<()>) -> Result<Metadata> {
    let path = with_end(prefix, "_metadata");
    let mut json = serde_json::Deserializer::from_reader(stream::open(&path)?);
    let mut failed = None;
    let base = prefix.file_name().unwrap_or_default().to_string_lossy();
    let whole = Whole { base: &base, take, failed: &mut failed };
    let read = whole.deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    if let Some(e) = failed {
        return Err(e);
    }
    let found = read.map_err(|e| match e.io_error_kind() {
        Some(kind) if kind != std::io::ErrorKind::Other => Error::io(format!("reading {}", shown(&path)), e.into()),
        _ => Error::corrupt("cinder.metadata", format!("{}: {}", shown(&path), escape(&e.to_string()))),
    })?;
    for id in [Some(&found.id), Some(&found.volume), found.parent.as_ref()].into_iter().flatten() {
        if id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            let message =
                format!("{}: found the id \"{}\"; letters, digits and - are wanted", shown(&path), escape(id));
            return Err(Error::corrupt("cinder.metadata", message));
        }
    }
    Ok(found)
}

/// Refuses an object whose file is not there, or cannot be what the description says.
pub(super) fn look_at(prefix: &Path, object: &Object) -> Result<()> {
    let path = object.path(prefix);
    let wrong = |what: String| Error::corrupt("cinder.object", format!("{} {what}", shown(&path)));
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{} is not there, though the metadata names it", shown(&path));
            return Err(Error::corrupt("cinder.missing-object", message).with_hint("copy all objects of the backup"));
        }
        Err(e) => return Err(Error::io(format!("looking at {}", shown(&path)), e)),
    };
    if !found.is_file() {
        return Err(wrong("is no file".into()));
    }
    match object.packing {
        Packing::None if found.len() != object.length => {
            Err(wrong(format!("has {} bytes; the metadata says {}", found.len(), object.length)))
        }
        _ => Ok(()),
    }
}

/// The file, read as a stream.
struct Whole<'a> {
    base: &'a str,
    take: &'a mut dyn FnMut(Object) -> Result<()>,
    /// What `take` said.
    failed: &'a mut Option<Error>,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = Metadata;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Metadata, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Metadata;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the metadata of a backup")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> std::result::Result<Metadata, A::Error> {
        let mut found = Metadata::default();
        let (mut version, mut objects) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value::<String>()?),
                "backup_id" => found.id = map.next_value()?,
                "volume_id" => found.volume = map.next_value()?,
                "created_at" => found.created_at = map.next_value()?,
                "parent_id" => found.parent = map.next_value()?,
                "volume_meta" => {
                    found.volume_name = map.next_value::<Option<String>>()?.and_then(|text| volume_name(&text))
                }
                "objects" if objects => return Err(A::Error::custom("there are two lists of objects")),
                "objects" => {
                    objects = true;
                    map.next_value_seed(Objects(&mut self))?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match version.as_deref() {
            Some("1.0.0") => {}
            Some(other) => return Err(A::Error::custom(format!("found version {other}; 1.0.0 is the only one"))),
            None => return Err(A::Error::custom("it has no version")),
        }
        if !objects || found.id.is_empty() || found.volume.is_empty() {
            return Err(A::Error::custom("it lacks objects, backup_id or volume_id"));
        }
        Ok(found)
    }
}

fn volume_name(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Meta {
        #[serde(rename = "volume-base-metadata")]
        base: Base,
    }
    #[derive(Deserialize)]
    struct Base {
        display_name: Option<String>,
    }
    let meta: Meta = serde_json::from_str(text).ok()?;
    meta.base.display_name.filter(|name| !name.is_empty())
}

struct Objects<'a, 'b>(&'a mut Whole<'b>);

impl<'de> DeserializeSeed<'de> for Objects<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<(), A::Error> {
        let mut count = 0_usize;
        while let Some(One(name, fields)) = seq.next_element()? {
            count = count.saturating_add(1);
            let object = if count > CINDER_OBJECTS_MAX {
                Err(Error::limit("cinder.metadata", format!("it has more than {CINDER_OBJECTS_MAX} objects")))
            } else {
                object(self.0.base, &name, &fields)
            };
            if let Err(e) = object.and_then(|object| (self.0.take)(object)) {
                *self.0.failed = Some(e);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// A map with one member.
struct One(String, Fields);

#[derive(Deserialize)]
struct Fields {
    offset: u64,
    length: u64,
    compression: String,
    md5: String,
}

impl<'de> Deserialize<'de> for One {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct OneVisitor;
        impl<'de> Visitor<'de> for OneVisitor {
            type Value = One;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object by its name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<One, A::Error> {
                let (name, fields) = map.next_entry()?.ok_or_else(|| A::Error::custom("an object without a name"))?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(One(name, fields)),
                    Some(_) => Err(A::Error::custom("an object with two names")),
                }
            }
        }
        deserializer.deserialize_map(OneVisitor)
    }
}

fn object(base: &str, name: &str, fields: &Fields) -> Result<Object> {
    let wrong = |what: &str, found: String, wanted: &str| {
        let message = format!("the object {} has the {what} {found}; {wanted}", escape(name));
        Err(Error::corrupt("cinder.metadata", message))
    };
    // The last part alone: what stands before it in a store is folders here, or nothing.
    let last = name.rsplit('/').next().unwrap_or_default();
    let number = last.strip_prefix(base).and_then(|rest| rest.strip_prefix('-'));
    let digits = number.filter(|n| (5..=9).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit()));
    let Some((number, digits)) = digits.and_then(|n| Some((n.parse().ok()?, u8::try_from(n.len()).ok()?))) else {
        let message = format!("found an object {}; {}-00001 and so on are wanted", escape(name), escape(base));
        return Err(Error::corrupt("cinder.metadata", message));
    };
    let end = fields.offset.checked_add(fields.length).filter(|end| *end <= CONTAINER_SIZE_MAX);
    if end.is_none() {
        return wrong("offset", fields.offset.to_string(), "volumes are smaller than that");
    }
    if fields.length == 0 || fields.length > CINDER_OBJECT_MAX {
        return wrong("length", fields.length.to_string(), &format!("1 to {CINDER_OBJECT_MAX} is wanted"));
    }
    let Some(packing) = Packing::of(&fields.compression) else {
        let message = format!(
            "the object {} is compressed by {}, which is not known here",
            escape(name),
            escape(&fields.compression)
        );
        return Err(Error::unsupported("cinder.compression", message).with_hint("none, zlib, bz2 and zstd are"));
    };
    let mut md5 = [0; 16];
    if hex::decode_to_slice(&fields.md5, &mut md5).is_err() {
        return wrong("md5", escape(&fields.md5), "32 hex digits are wanted");
    }
    Ok(Object { offset: fields.offset, length: fields.length, number, digits, packing, md5 })
}
