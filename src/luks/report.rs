//! All that a header says, and what is known of its data, in one shape for LUKS1 and LUKS2: what `unluks inspect --json`
//! prints and `docs/inspect.schema.json` describes. Every member is there in every report; what
//! does not apply is null or empty.
//!
//! A report borrows from the header: where the header's own types have the report's shape they are its members, and the
//! types here are those that have more to say, or say it in another order.
//!
//! Without the feature `unlock`, no report says what a derivation costs.

mod keyslot;
mod layout;

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::data::{self, DataFile};
use super::findings::{Finding, findings};
use super::layer::Layer;
use super::metadata::*;
use crate::io::ReadAt;

pub use keyslot::{Af, Cost, Kdf, Keyslot, KeyslotArea, State};
pub use layout::{File, Kind, Range};

/// The version of the report's shape. It grows where a member is taken away or changes its meaning.
pub const SCHEMA: u32 = 1;

/// All that a header says.
///
/// ```
/// use unluks::json;
/// use unluks::luks::data::DataFile;
/// use unluks::luks::report::{DataIn, FileInfo, Files, Report};
///
/// # fn main() -> unluks::Result<()> {
/// # let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openstack-volume.img"));
/// let image = unluks::FileSource::open(path)?;
/// let metadata = unluks::open(&image)?;
/// let file = FileInfo::new(path, &image);
/// let data = DataFile { len: file.size, detached: false };
/// let report = Report::new(&metadata, Files::of(file), DataIn::File(data), Vec::new());
/// assert_eq!(report.segments[0].encryption, Some("aes-xts-plain64"));
/// // What `unluks inspect --json` prints, but for what it finds in the keyslots' areas.
/// assert!(json::pretty(&report)?.contains(r#""uuid": ""#));
/// # Ok(()) }
/// ```
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report<'a> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The file that was given.
    pub image: FileInfo,
    /// Where in it the LUKS data is, where it is not all of it.
    pub container: Option<Container>,
    /// The file of a detached header.
    pub header: Option<FileInfo>,
    /// 1 or 2.
    pub version: u8,
    /// The UUID as text, as the header holds it.
    pub uuid: &'a str,
    /// The label, where there is one.
    pub label: Option<&'a str>,
    /// The subsystem label, where there is one.
    pub subsystem: Option<&'a str>,
    /// The sequence id of the copy in use; `None` in LUKS1.
    pub seqid: Option<u64>,
    /// Persistent flags.
    pub flags: &'a [String],
    /// Mandatory requirements.
    pub requirements: &'a [String],
    /// Bytes of one header copy.
    pub metadata_size: u64,
    /// Bytes from the start to the end of the last keyslot area.
    pub header_size: u64,
    /// Where the keyslots' areas may lie.
    pub keyslots_area: Area,
    /// What is there of the data.
    pub data: data::Data,
    /// What its owner should know, the most severe first.
    pub findings: Vec<Finding>,
    /// The header copies that were found or looked for.
    pub copies: Vec<Copy<'a>>,
    /// What the copies say differently.
    pub differences: &'a [Difference],
    /// The segments in order, backup segments last.
    pub segments: Vec<Segment<'a>>,
    /// All keyslots in the order of their numbers, LUKS1's disabled ones too.
    pub keyslots: Vec<Keyslot<'a>>,
    /// The digests.
    pub digests: Vec<Digest<'a>>,
    /// The tokens.
    pub tokens: Vec<Numbered<'a, Token>>,
    /// Which bytes of which file are what.
    pub layout: Vec<Range>,
    /// The JSON area of the copy in use, as it is; `None` in LUKS1.
    pub json: Option<&'a Value>,
}

/// A file that a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileInfo {
    /// Its path as it was given; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Its bytes; `None` for a pipe.
    pub size: Option<u64>,
}

impl FileInfo {
    /// The file of that name.
    pub fn new(path: &Path, file: &dyn ReadAt) -> Self {
        Self { path: path.to_string_lossy().into_owned(), size: file.known_len() }
    }
}

/// Where in the image file the LUKS data is, where it is not all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// What was found and chosen on the way, one line each.
    pub notes: Vec<String>,
    /// The internal snapshots of a qcow2 image.
    pub snapshots: Vec<Snapshot>,
    /// Bytes of the LUKS data, or of the header that a qcow2 image holds.
    pub size: u64,
    /// What lies on what, from the file down to what holds the LUKS data.
    pub layers: Vec<Layer>,
    /// The volume groups of LVM among those, with what is left of their history.
    pub groups: Vec<Group>,
}

/// A volume group of LVM, and the versions of its metadata that are on the disks. Names and descriptions are the image's
/// text: escape them before they are printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its UUID.
    pub uuid: String,
    /// The version that is used.
    pub current: GroupVersion,
    /// Those that it replaced, and that nothing has been written over yet, the newest first.
    pub older: Vec<GroupVersion>,
    /// How many more there are, which are older still.
    pub left_out: u64,
}

/// A version of a volume group's metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupVersion {
    /// The group's name then.
    pub name: String,
    /// Its number: each change has the next.
    pub seqno: u64,
    /// When it was written, in seconds since 1970.
    pub time: u64,
    /// What LVM was asked to do.
    pub description: String,
}

/// An internal snapshot of a qcow2 image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    /// Its id, as the image has it.
    pub id: String,
    /// Its name, as the image has it.
    pub name: String,
    /// When it was made, in seconds since 1970.
    pub date: u32,
    /// Bytes of the disk then, where the snapshot says it.
    pub size: Option<u64>,
}

/// The files that a report is about.
#[derive(Clone, Debug)]
pub struct Files {
    /// The image.
    pub image: FileInfo,
    /// Where in it the LUKS data is, where it is not all of it.
    pub container: Option<Container>,
    /// The file of a detached header.
    pub header: Option<FileInfo>,
}

impl Files {
    /// An image that is its own container, with its header.
    pub fn of(image: FileInfo) -> Self {
        Self { image, container: None, header: None }
    }
}

/// Where the data is that the header speaks of.
#[derive(Clone, Copy, Debug)]
pub enum DataIn {
    /// Where the header says.
    File(DataFile),
    /// In the clusters of a qcow2 image: the header's own offset means nothing.
    Clusters {
        /// Bytes of the disk.
        size: u64,
        /// How many bytes the file lacks at least; `None` where that is not known.
        missing: Option<u64>,
    },
}

/// A copy of the header.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Copy<'a> {
    /// Primary or secondary.
    pub role: Role,
    /// Where it lies, or should.
    pub offset: u64,
    /// Whether it passes every rule.
    pub good: bool,
    /// Whether the report comes from it.
    pub used: bool,
    /// Whether parameters that another KDF had left behind were passed over to make it good.
    pub repaired: bool,
    /// Why it is not good.
    pub error: Option<CopyError<'a>>,
    /// Its `hdr_size` in bytes, where the binary header could be read, as all below.
    pub hdr_size: Option<u64>,
    /// Its sequence id.
    pub seqid: Option<u64>,
    /// Its UUID.
    pub uuid: Option<&'a str>,
    /// Its label, where it has one.
    pub label: Option<&'a str>,
    /// Its subsystem label, where it has one.
    pub subsystem: Option<&'a str>,
    /// Its checksum's algorithm; `None` in LUKS1.
    pub checksum_alg: Option<&'a str>,
    /// Its salt in hexadecimal digits; `None` in LUKS1.
    pub salt: Option<String>,
}

/// Why a copy is not good.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct CopyError<'a> {
    /// The rule's stable code.
    pub rule: &'a str,
    /// What was found and what is allowed.
    pub message: &'a str,
    /// The byte that it is about, where it is about one.
    pub offset: Option<u64>,
    /// All of it in one line.
    pub text: String,
}

/// A part of the data.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Segment<'a> {
    /// Its number.
    pub id: u32,
    /// `crypt`, `linear`, or a type that is not known here.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Whether it is a note that a reencryption keeps, and no live data.
    pub backup: bool,
    /// Where it starts in the data file, in bytes.
    pub offset: u64,
    /// Its length in bytes; `None` is to the end of the file.
    pub size: Option<u64>,
    /// The cipher, as dm-crypt spells it.
    pub encryption: Option<&'a str>,
    /// Bytes of its key, where a keyslot tells.
    pub key_size: Option<u32>,
    /// Bytes of an encryption sector.
    pub sector_size: Option<u32>,
    /// What is added to the IV's sector number.
    pub iv_tweak: Option<u64>,
    /// The dm-integrity layer below.
    pub integrity: Option<&'a Integrity>,
    /// Its flags.
    pub flags: &'a [String],
    /// The digest that proves its key.
    pub digest: Option<u32>,
    /// The keyslots that hold its key.
    pub keyslots: &'a [u32],
}

/// What proves that a volume key is the right one.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Digest<'a> {
    /// Its number.
    pub id: u32,
    /// `pbkdf2`, or a type that is not known here.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// The hash's name.
    pub hash: Option<&'a str>,
    /// PBKDF2's iterations.
    pub iterations: Option<u64>,
    /// The salt in hexadecimal digits.
    pub salt: Option<String>,
    /// What the derivation must give, in hexadecimal digits.
    pub digest: Option<String>,
    /// What it lacks, where it lacks something.
    pub error: Option<&'a str>,
    /// The keyslots whose key it proves.
    pub keyslots: &'a [u32],
    /// The segments that the key encrypts.
    pub segments: &'a [u32],
}

/// An item with its number in front.
#[derive(Debug, Serialize)]
pub struct Numbered<'a, T> {
    /// Its number.
    pub id: u32,
    /// The item.
    #[serde(flatten)]
    pub item: &'a T,
}

impl<'a> Report<'a> {
    /// What `metadata` says, what is there of its data, and what was `found` beside the header: by
    /// [`area::findings`](super::area::findings) and, in data with dm-integrity, by `volume::integrity_findings`.
    ///
    /// It takes up to 20 ms for each keyslot whose derivation is so costly that this machine is measured.
    pub fn new(metadata: &'a Metadata, files: Files, data_in: DataIn, found: Vec<Finding>) -> Self {
        let (file, data) = match data_in {
            DataIn::File(file) => (Some(file), data::assess(metadata, file)),
            DataIn::Clusters { size, missing } => (None, data::Data::in_clusters(size, missing)),
        };
        let in_container = files.container.as_ref().map(|c| c.size);
        let header_len = files.header.as_ref().map_or(in_container.or(files.image.size), |f| f.size);
        let mut findings = findings(metadata, file);
        findings.extend(found);
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        Self {
            schema: SCHEMA,
            version: metadata.version.number(),
            uuid: &metadata.uuid,
            label: text(&metadata.label),
            subsystem: text(&metadata.subsystem),
            seqid: Some(metadata.seqid).filter(|_| metadata.version == Version::V2),
            flags: &metadata.flags,
            requirements: &metadata.requirements,
            metadata_size: metadata.metadata_size,
            header_size: metadata.header_size,
            keyslots_area: layout::keyslots_area(metadata),
            data,
            findings,
            copies: metadata.copies.iter().map(|c| Copy::new(c, metadata.version)).collect(),
            differences: &metadata.differences,
            segments: (0..).zip(&metadata.segments).map(|(id, s)| Segment::new(metadata, id, s)).collect(),
            keyslots: keyslot::all(metadata),
            digests: metadata.digests.iter().map(|(id, d)| Digest::new(*id, d)).collect(),
            tokens: metadata.tokens.iter().map(|(id, item)| Numbered { id: *id, item }).collect(),
            layout: layout::layout(metadata, &data, file, header_len),
            json: metadata.json.as_ref(),
            image: files.image,
            container: files.container,
            header: files.header,
        }
    }
}

/// Text that may be absent.
fn text(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

fn decoded(bytes: &Bytes) -> Option<String> {
    match bytes {
        Bytes::Decoded(bytes) => Some(hex::encode(bytes)),
        Bytes::Malformed(_) => None,
    }
}

impl<'a> Copy<'a> {
    fn new(copy: &'a HeaderCopy, version: Version) -> Self {
        // Where the binary header could not be read, its texts are not empty but unknown.
        let read = version == Version::V1 || copy.hdr_size.is_some();
        Self {
            role: copy.role,
            offset: copy.offset,
            good: copy.error.is_none(),
            used: copy.used,
            repaired: copy.repaired,
            error: copy.error.as_ref().map(|e| CopyError {
                rule: e.rule(),
                message: e.message(),
                offset: e.offset(),
                text: e.to_string(),
            }),
            hdr_size: copy.hdr_size,
            seqid: copy.seqid,
            uuid: Some(copy.uuid.as_str()).filter(|_| read),
            label: text(&copy.label),
            subsystem: text(&copy.subsystem),
            checksum_alg: text(&copy.csum_alg),
            salt: Some(hex::encode(&copy.salt)).filter(|s| !s.is_empty()),
        }
    }
}

impl<'a> Segment<'a> {
    fn new(metadata: &'a Metadata, id: u32, segment: &'a super::metadata::Segment) -> Self {
        let digest = metadata.segment_digest(id);
        let keyslots = digest.map_or(&[][..], |(_, d)| &d.keyslots);
        let disabled = || metadata.disabled_keyslots.values().map(|k| k.key_size).next();
        let key_size = keyslots.iter().find_map(|k| metadata.keyslots.get(k)).map(|k| k.key_size).or_else(disabled);
        let (kind, crypt) = match &segment.kind {
            SegmentKind::Crypt(crypt) => ("crypt", Some(crypt)),
            SegmentKind::Linear => ("linear", None),
            SegmentKind::Unknown { kind } => (kind.as_str(), None),
        };
        Self {
            id,
            kind,
            backup: segment.is_backup(),
            offset: segment.offset,
            size: segment.size,
            encryption: crypt.map(|c| c.encryption.as_str()),
            key_size: key_size.filter(|_| crypt.is_some()),
            sector_size: crypt.map(|c| c.sector_size),
            iv_tweak: crypt.map(|c| c.iv_tweak),
            integrity: crypt.and_then(|c| c.integrity.as_ref()),
            flags: &segment.flags,
            digest: digest.map(|(id, _)| id),
            keyslots,
        }
    }
}

impl<'a> Digest<'a> {
    fn new(id: u32, digest: &'a super::metadata::Digest) -> Self {
        let mut report = Self {
            id,
            kind: "pbkdf2",
            hash: None,
            iterations: None,
            salt: None,
            digest: None,
            error: None,
            keyslots: &digest.keyslots,
            segments: &digest.segments,
        };
        match &digest.kind {
            DigestKind::Pbkdf2 { hash, iterations, salt, digest } => {
                report.hash = Some(hash);
                report.iterations = Some(*iterations);
                report.salt = decoded(salt);
                report.digest = decoded(digest);
            }
            DigestKind::Malformed { error } => report.error = Some(error),
            DigestKind::Unknown { kind } => report.kind = kind,
        }
        report
    }
}
