//! The report: one shape for LUKS1 and LUKS2, which `docs/inspect.schema.json` describes. Every member is there in
//! every report; what does not apply is null or empty.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use unluks::Metadata;
use unluks::crypto::hash::Hash;
use unluks::crypto::kdf::{Argon2Variant, Kdf as Derivation};
use unluks::luks::data::{self, DataFile};
use unluks::luks::findings::{Finding as LuksFinding, findings};
use unluks::luks::metadata as meta;
use unluks::luks::metadata::{Bytes, DigestKind, KeyslotKind, Priority, SegmentKind, Version};

use super::layout::{self, Range};

/// The version of the report's shape. It grows where a member is taken away or changes its meaning.
const SCHEMA: u32 = 1;
/// For so many keyslots the time of a derivation is estimated, which may take some 20 ms each: as many as cryptsetup
/// allows (`LUKS2_KEYSLOTS_MAX`).
const ESTIMATES_MAX: usize = 32;

#[derive(Serialize)]
pub struct Report {
    pub schema: u32,
    pub image: FileInfo,
    pub container: Option<Container>,
    pub header: Option<FileInfo>,
    pub version: u8,
    pub uuid: String,
    pub label: Option<String>,
    pub subsystem: Option<String>,
    pub seqid: Option<u64>,
    pub flags: Vec<String>,
    pub requirements: Vec<String>,
    pub metadata_size: u64,
    pub header_size: u64,
    pub keyslots_area: Area,
    pub data: Data,
    pub findings: Vec<Finding>,
    pub copies: Vec<Copy>,
    pub differences: Vec<Difference>,
    pub segments: Vec<Segment>,
    pub keyslots: Vec<Keyslot>,
    pub digests: Vec<Digest>,
    pub tokens: Vec<Token>,
    pub layout: Vec<Range>,
    pub json: Option<Value>,
}

#[derive(Serialize)]
pub struct FileInfo {
    pub path: String,
    pub size: Option<u64>,
}

/// Where in the image file the LUKS data is, where it is not all of it.
#[derive(Serialize)]
pub struct Container {
    pub notes: Vec<String>,
    pub snapshots: Vec<Snapshot>,
    pub size: u64,
}

/// An internal snapshot of a qcow2 image.
#[derive(Serialize)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    pub date: u32,
    pub size: Option<u64>,
}

impl Snapshot {
    pub fn of(snapshot: &unluks::format::Snapshot) -> Self {
        let unluks::format::Snapshot { id, name, date, size, .. } = snapshot;
        Self { id: id.clone(), name: name.clone(), date: *date, size: *size }
    }
}

/// The files that the report is about.
pub struct Files {
    pub image: FileInfo,
    pub container: Option<Container>,
    pub header: Option<FileInfo>,
}

/// Where the data is that the header speaks of.
#[derive(Clone, Copy)]
pub enum DataIn {
    /// Where the header says.
    File(DataFile),
    /// In the clusters of a qcow2 image, of a disk of `size` bytes: the header's own offset means nothing.
    /// It lacks `missing` bytes at least, where that is known.
    Clusters { size: u64, missing: Option<u64> },
}

#[derive(Serialize)]
pub struct Area {
    pub offset: u64,
    pub size: u64,
}

#[derive(Serialize)]
pub struct Data {
    pub state: &'static str,
    pub offset: u64,
    pub plaintext_size: Option<u64>,
    pub readable: Option<u64>,
    pub missing: Option<u64>,
}

#[derive(Serialize)]
pub struct Finding {
    pub severity: &'static str,
    pub code: &'static str,
    pub about: String,
    pub message: String,
}

#[derive(Serialize)]
pub struct Copy {
    pub role: String,
    pub offset: u64,
    pub good: bool,
    pub used: bool,
    pub repaired: bool,
    pub error: Option<CopyError>,
    pub hdr_size: Option<u64>,
    pub seqid: Option<u64>,
    pub uuid: Option<String>,
    pub label: Option<String>,
    pub subsystem: Option<String>,
    pub checksum_alg: Option<String>,
    pub salt: Option<String>,
}

#[derive(Serialize)]
pub struct CopyError {
    pub rule: String,
    pub message: String,
    pub offset: Option<u64>,
    pub text: String,
}

#[derive(Serialize)]
pub struct Difference {
    pub field: String,
    pub primary: Option<String>,
    pub secondary: Option<String>,
}

#[derive(Serialize)]
pub struct Segment {
    pub id: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub backup: bool,
    pub offset: u64,
    pub size: Option<u64>,
    pub encryption: Option<String>,
    pub key_size: Option<u32>,
    pub sector_size: Option<u32>,
    pub iv_tweak: Option<u64>,
    pub integrity: Option<Integrity>,
    pub flags: Vec<String>,
    pub digest: Option<u32>,
    pub keyslots: Vec<u32>,
}

#[derive(Serialize)]
pub struct Integrity {
    #[serde(rename = "type")]
    pub kind: String,
    pub journal_encryption: String,
    pub journal_integrity: String,
    pub key_size: Option<u64>,
}

#[derive(Serialize)]
pub struct Keyslot {
    pub id: u32,
    pub state: &'static str,
    #[serde(rename = "type")]
    pub kind: String,
    pub key_size: u32,
    pub priority: Option<i64>,
    pub unbound: Option<bool>,
    pub digest: Option<u32>,
    pub segments: Vec<u32>,
    pub kdf: Option<Kdf>,
    pub af: Option<Af>,
    pub area: KeyslotArea,
    pub reencryption: Option<Reencryption>,
}

#[derive(Serialize)]
pub struct Kdf {
    #[serde(rename = "type")]
    pub kind: String,
    pub hash: Option<String>,
    pub iterations: Option<u64>,
    pub time: Option<u64>,
    pub memory: Option<u64>,
    pub cpus: Option<u64>,
    pub salt: Option<String>,
    pub cost: Option<Cost>,
}

/// What one derivation takes.
#[derive(Serialize)]
pub struct Cost {
    pub memory_bytes: u64,
    pub seconds: f64,
}

#[derive(Serialize)]
pub struct Af {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub stripes: u64,
    pub hash: String,
}

#[derive(Serialize)]
pub struct KeyslotArea {
    pub offset: u64,
    pub size: u64,
    pub encryption: Option<String>,
    pub key_size: Option<u32>,
}

#[derive(Serialize)]
pub struct Reencryption {
    pub mode: String,
    pub direction: String,
    pub resilience: String,
    pub hash: Option<String>,
    pub sector_size: Option<u32>,
    pub shift_size: Option<u64>,
}

#[derive(Serialize)]
pub struct Digest {
    pub id: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub hash: Option<String>,
    pub iterations: Option<u64>,
    pub salt: Option<String>,
    pub digest: Option<String>,
    pub error: Option<String>,
    pub keyslots: Vec<u32>,
    pub segments: Vec<u32>,
}

#[derive(Serialize)]
pub struct Token {
    pub id: u32,
    #[serde(rename = "type")]
    pub kind: String,
    pub keyslots: Vec<u32>,
    pub content: Value,
}

impl Report {
    /// What `metadata` says, what is there of its data, and what was `found` beside the header.
    pub fn new(metadata: &Metadata, files: Files, data_in: DataIn, found: Vec<LuksFinding>) -> Self {
        let (file, data) = match data_in {
            DataIn::File(file) => (Some(file), data::assess(metadata, file)),
            DataIn::Clusters { size, missing } => (None, data::Data::in_clusters(size, missing)),
        };
        let in_container = files.container.as_ref().map(|c| c.size);
        let header_len = files.header.as_ref().map_or(in_container.or(files.image.size), |f| f.size);
        let mut findings = findings(metadata, file);
        findings.extend(found);
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        let area = layout::keyslots_area(metadata);
        Self {
            schema: SCHEMA,
            version: metadata.version.number(),
            uuid: metadata.uuid.clone(),
            label: text(&metadata.label),
            subsystem: text(&metadata.subsystem),
            seqid: Some(metadata.seqid).filter(|_| metadata.version == Version::V2),
            flags: metadata.flags.clone(),
            requirements: metadata.requirements.clone(),
            metadata_size: metadata.metadata_size,
            header_size: metadata.header_size,
            keyslots_area: Area { offset: area.offset, size: area.size },
            data: Data {
                state: data.state.name(),
                offset: data.offset,
                plaintext_size: data.plaintext_size,
                readable: data.readable,
                missing: data.missing,
            },
            findings: findings.into_iter().map(Finding::new).collect(),
            copies: metadata.copies.iter().map(|c| Copy::new(c, metadata.version)).collect(),
            differences: metadata.differences.iter().map(Difference::new).collect(),
            segments: (0..).zip(&metadata.segments).map(|(id, s)| Segment::new(metadata, id, s)).collect(),
            keyslots: keyslots(metadata),
            digests: metadata.digests.iter().map(|(id, d)| Digest::new(*id, d)).collect(),
            tokens: metadata.tokens.iter().map(|(id, t)| Token::new(*id, t)).collect(),
            layout: layout::layout(metadata, &data, file, header_len),
            json: metadata.json.clone(),
            image: files.image,
            container: files.container,
            header: files.header,
        }
    }
}

/// Text that may be absent.
fn text(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|t| !t.is_empty())
}

fn decoded(bytes: &Bytes) -> Option<String> {
    match bytes {
        Bytes::Decoded(bytes) => Some(hex::encode(bytes)),
        Bytes::Malformed(_) => None,
    }
}

impl Finding {
    fn new(f: LuksFinding) -> Self {
        Self { severity: f.severity.name(), code: f.code, about: f.about, message: f.message }
    }
}

impl Copy {
    fn new(copy: &meta::HeaderCopy, version: Version) -> Self {
        // Where the binary header could not be read, its texts are not empty but unknown.
        let read = version == Version::V1 || copy.hdr_size.is_some();
        Self {
            role: copy.role.to_string(),
            offset: copy.offset,
            good: copy.error.is_none(),
            used: copy.used,
            repaired: copy.repaired,
            error: copy.error.as_ref().map(|e| CopyError {
                rule: e.rule().to_owned(),
                message: e.message().to_owned(),
                offset: e.offset(),
                text: e.to_string(),
            }),
            hdr_size: copy.hdr_size,
            seqid: copy.seqid,
            uuid: Some(copy.uuid.clone()).filter(|_| read),
            label: text(&copy.label),
            subsystem: text(&copy.subsystem),
            checksum_alg: text(&copy.csum_alg),
            salt: Some(hex::encode(&copy.salt)).filter(|s| !s.is_empty()),
        }
    }
}

impl Difference {
    fn new(d: &meta::Difference) -> Self {
        Self { field: d.field.clone(), primary: d.primary.clone(), secondary: d.secondary.clone() }
    }
}

impl Segment {
    fn new(metadata: &Metadata, id: u32, segment: &meta::Segment) -> Self {
        let digest = metadata.segment_digest(id);
        let keyslots: Vec<_> = digest.map(|(_, d)| d.keyslots.clone()).unwrap_or_default();
        let disabled = || metadata.disabled_keyslots.values().map(|k| k.key_size).next();
        let key_size = keyslots.iter().find_map(|k| metadata.keyslots.get(k)).map(|k| k.key_size).or_else(disabled);
        let (kind, crypt) = match &segment.kind {
            SegmentKind::Crypt(crypt) => ("crypt", Some(crypt)),
            SegmentKind::Linear => ("linear", None),
            SegmentKind::Unknown { kind } => (kind.as_str(), None),
        };
        Self {
            id,
            kind: kind.to_owned(),
            backup: segment.is_backup(),
            offset: segment.offset,
            size: segment.size,
            encryption: crypt.map(|c| c.encryption.clone()),
            key_size: key_size.filter(|_| crypt.is_some()),
            sector_size: crypt.map(|c| c.sector_size),
            iv_tweak: crypt.map(|c| c.iv_tweak),
            integrity: crypt.and_then(|c| c.integrity.as_ref()).map(|i| Integrity {
                kind: i.kind.clone(),
                journal_encryption: i.journal_encryption.clone(),
                journal_integrity: i.journal_integrity.clone(),
                key_size: i.key_size,
            }),
            flags: segment.flags.clone(),
            digest: digest.map(|(id, _)| id),
            keyslots,
        }
    }
}

/// All keyslots in the order of their numbers, LUKS1's disabled ones too.
fn keyslots(metadata: &Metadata) -> Vec<Keyslot> {
    let with_cost = |n: usize| n < ESTIMATES_MAX;
    let used = metadata.keyslots.iter().enumerate();
    let mut all: BTreeMap<_, _> =
        used.map(|(n, (id, slot))| (*id, Keyslot::new(metadata, *id, slot, with_cost(n)))).collect();
    all.extend(metadata.disabled_keyslots.iter().map(|(id, slot)| (*id, Keyslot::disabled(*id, slot))));
    all.into_values().collect()
}

impl Keyslot {
    fn new(metadata: &Metadata, id: u32, slot: &meta::Keyslot, with_cost: bool) -> Self {
        let digest = metadata.keyslot_digest(id);
        let v1 = metadata.version == Version::V1;
        let mut keyslot = Self {
            id,
            state: "active",
            kind: String::new(),
            key_size: slot.key_size,
            priority: Some(slot.priority.number()).filter(|_| !v1),
            unbound: Some(metadata.is_unbound(id)),
            digest: digest.map(|(id, _)| id),
            segments: digest.map(|(_, d)| d.segments.clone()).unwrap_or_default(),
            kdf: None,
            af: None,
            area: KeyslotArea { offset: slot.area.offset, size: slot.area.size, encryption: None, key_size: None },
            reencryption: None,
        };
        match &slot.kind {
            KeyslotKind::Luks2(k) => {
                keyslot.kind = if v1 { "luks1" } else { "luks2" }.to_owned();
                keyslot.kdf = Some(Kdf::new(k, with_cost));
                keyslot.af = Some(Af { kind: "luks1", stripes: k.af_stripes, hash: k.af_hash.clone() });
                keyslot.area.encryption = Some(k.encryption.clone());
                keyslot.area.key_size = Some(k.area_key_size);
            }
            KeyslotKind::Reencrypt(r) => {
                keyslot.kind = "reencrypt".to_owned();
                keyslot.reencryption = Some(Reencryption {
                    mode: r.mode.clone(),
                    direction: r.direction.clone(),
                    resilience: r.resilience.clone(),
                    hash: r.hash.clone(),
                    sector_size: r.sector_size,
                    shift_size: r.shift_size,
                });
            }
            KeyslotKind::Unknown { .. } if v1 => {
                keyslot.kind = "luks1".to_owned();
                keyslot.state = "invalid";
            }
            KeyslotKind::Unknown { kind } => keyslot.kind = kind.clone(),
        }
        keyslot
    }

    fn disabled(id: u32, slot: &meta::DisabledKeyslot) -> Self {
        Self {
            id,
            state: "disabled",
            kind: "luks1".to_owned(),
            key_size: slot.key_size,
            priority: None,
            unbound: None,
            digest: None,
            segments: Vec::new(),
            kdf: slot.was_not_wiped().then(|| Kdf {
                iterations: Some(slot.iterations.into()),
                salt: Some(hex::encode(&slot.salt)),
                ..Kdf::of_type("pbkdf2")
            }),
            af: None,
            area: KeyslotArea { offset: slot.area.offset, size: slot.area.size, encryption: None, key_size: None },
            reencryption: None,
        }
    }

    /// The priority's name, where cryptsetup has one for its number.
    pub fn priority_name(&self) -> Option<&'static str> {
        self.priority.and_then(|n| match Priority::from_number(n) {
            Priority::Ignore => Some("ignore"),
            Priority::Normal => Some("normal"),
            Priority::Prefer => Some("prefer"),
            Priority::Unknown(_) => None,
        })
    }
}

impl Kdf {
    fn new(slot: &meta::Luks2Keyslot, with_cost: bool) -> Self {
        let mut kdf = match &slot.kdf {
            meta::Kdf::Pbkdf2 { hash, iterations, salt } => Self {
                hash: Some(hash.clone()),
                iterations: Some(*iterations),
                salt: decoded(salt),
                ..Self::of_type("pbkdf2")
            },
            meta::Kdf::Argon2 { variant, time, memory, cpus, salt } => Self {
                time: Some(*time),
                memory: Some(*memory),
                cpus: Some(*cpus),
                salt: decoded(salt),
                ..Self::of_type(variant)
            },
            meta::Kdf::Unknown { kind } => Self::of_type(kind),
        };
        kdf.cost = with_cost.then(|| cost(slot)).flatten();
        kdf
    }

    fn of_type(kind: &str) -> Self {
        let kind = kind.to_owned();
        Self { kind, hash: None, iterations: None, time: None, memory: None, cpus: None, salt: None, cost: None }
    }
}

/// What one derivation takes; `None` for parameters that cannot be.
fn cost(slot: &meta::Luks2Keyslot) -> Option<Cost> {
    let number = |n: u64| u32::try_from(n).ok().filter(|n| *n > 0);
    let salt = Vec::new();
    let kdf = match &slot.kdf {
        meta::Kdf::Pbkdf2 { hash, iterations, .. } => {
            Derivation::Pbkdf2 { hash: Hash::from_name(hash).ok()?, iterations: number(*iterations)?, salt }
        }
        meta::Kdf::Argon2 { variant, time, memory, cpus, .. } => {
            let variant = match variant.as_str() {
                "argon2i" => Argon2Variant::I,
                "argon2id" => Argon2Variant::Id,
                _ => return None,
            };
            let (time, memory_kib, cpus) = (number(*time)?, number(*memory)?, number(*cpus)?);
            if memory_kib / 8 < cpus {
                return None;
            }
            Derivation::Argon2 { variant, time, memory_kib, cpus, salt }
        }
        meta::Kdf::Unknown { .. } => return None,
    };
    let seconds = kdf.estimate(usize::try_from(slot.area_key_size).ok()?).as_secs_f64();
    Some(Cost { memory_bytes: kdf.memory(), seconds })
}

impl Digest {
    fn new(id: u32, digest: &meta::Digest) -> Self {
        let mut report = Self {
            id,
            kind: "pbkdf2".to_owned(),
            hash: None,
            iterations: None,
            salt: None,
            digest: None,
            error: None,
            keyslots: digest.keyslots.clone(),
            segments: digest.segments.clone(),
        };
        match &digest.kind {
            DigestKind::Pbkdf2 { hash, iterations, salt, digest } => {
                report.hash = Some(hash.clone());
                report.iterations = Some(*iterations);
                report.salt = decoded(salt);
                report.digest = decoded(digest);
            }
            DigestKind::Malformed { error } => report.error = Some(error.clone()),
            DigestKind::Unknown { kind } => report.kind = kind.clone(),
        }
        report
    }
}

impl Token {
    fn new(id: u32, token: &meta::Token) -> Self {
        Self { id, kind: token.kind.clone(), keyslots: token.keyslots.clone(), content: token.json.clone() }
    }
}
