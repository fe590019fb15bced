//! What a verification says, as `docs/verify.schema.json` describes it. All but `run` is the same, byte for byte, whenever the
//! same image is verified with the same key and the same wishes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::counts::{Database, FilesUsed, PackagesUsed};
pub use super::output::Output;
use super::record::Run;
use crate::luks::layer::Layer;
pub use crate::map::Map;

/// The version of the report's shape.
pub const SCHEMA: u32 = 1;

/// Whether a restore would bring back what was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing is wrong that was looked at.
    Restorable,
    /// It restores, and something should be seen to.
    RestorableWithFindings,
    /// A restore would not bring back all of it.
    NotRestorable,
    /// No keyslot opened with this key: nothing is known of the data.
    WrongKey,
}

impl Verdict {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restorable => "restorable",
            Self::RestorableWithFindings => "restorable-with-findings",
            Self::NotRestorable => "not-restorable",
            Self::WrongKey => "wrong-key",
        }
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; it changes no verdict, but for contents that are not recognised.
    Note,
    /// A safety is gone, and no data is.
    Warning,
    /// Data would not come back.
    Error,
}

impl Severity {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// Its stable code, whose first word is the layer: `file`, `format`, `storage`, `header`, `keyslot`, `length`,
    /// `integrity` or `contents`.
    pub code: String,
    /// The structure that it is in.
    pub structure: String,
    /// The first byte of it in the container: of the file, where that is its own container.
    pub image_offset: Option<u64>,
    /// The first byte of it in the plaintext.
    pub plaintext_offset: Option<u64>,
    /// The path of the file in the contents that it hits, where that is known.
    pub path: Option<String>,
    /// One sentence; text of the image in it is escaped.
    pub message: String,
    /// What was found.
    pub found: Option<String>,
    /// What is allowed, or was recorded.
    pub expected: Option<String>,
}

impl Finding {
    /// A finding of that code.
    pub fn new(severity: Severity, code: impl Into<String>, structure: impl Into<String>, message: String) -> Self {
        let (code, structure) = (code.into(), structure.into());
        let (image_offset, plaintext_offset, path, found, expected) = (None, None, None, None, None);
        Self { severity, code, structure, image_offset, plaintext_offset, path, message, found, expected }
    }

    pub(super) fn at(mut self, offset: Option<u64>) -> Self {
        self.image_offset = offset;
        self
    }

    pub(super) fn at_plaintext(mut self, offset: Option<u64>) -> Self {
        self.plaintext_offset = offset;
        self
    }

    pub(super) fn says(mut self, found: impl ToString, expected: impl ToString) -> Self {
        self.found = Some(found.to_string());
        self.expected = Some(expected.to_string());
        self
    }
}

/// What is looked at, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum StageName {
    File,
    Layers,
    Header,
    Key,
    Length,
    Integrity,
    Contents,
    Plaintext,
}

impl StageName {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::File,
        Self::Layers,
        Self::Header,
        Self::Key,
        Self::Length,
        Self::Integrity,
        Self::Contents,
        Self::Plaintext,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Layers => "layers",
            Self::Header => "header",
            Self::Key => "key",
            Self::Length => "length",
            Self::Integrity => "integrity",
            Self::Contents => "contents",
            Self::Plaintext => "plaintext",
        }
    }

    /// The stage that a finding's code belongs to.
    pub(super) fn of(code: &str) -> Self {
        match code.split('.').next().unwrap_or_default() {
            "file" => Self::File,
            "format" | "storage" => Self::Layers,
            "keyslot" => Self::Key,
            "length" => Self::Length,
            "integrity" => Self::Integrity,
            "contents" => Self::Contents,
            "plaintext" => Self::Plaintext,
            _ => Self::Header,
        }
    }
}

/// How a stage went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing is wrong.
    Ok,
    /// Something should be seen to.
    Finding,
    /// Data would not come back.
    Failed,
    /// There was nothing to look at.
    None,
    /// It was not come to, for one before it failed.
    NotReached,
}

/// A stage, and what there is to say of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Stage {
    /// Which one.
    pub stage: StageName,
    /// How it went.
    pub result: Outcome,
    /// What it was about, in some words.
    pub says: String,
}

/// What the stage of integrity says where there are no tags.
pub(super) const UNAUTHENTICATED: &str = "nothing authenticates the data";

/// The file that was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ImageFile {
    /// Its path as it was given; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Bytes of all its files together; `None` where it was not opened.
    pub size: Option<u64>,
}

/// What opened the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct KeyUsed {
    /// The keyslots that opened; empty with a volume key.
    pub keyslots: Vec<u32>,
    /// What was done to the key's bytes to make the passphrase of them, for each of the keyslots.
    pub forms: Vec<String>,
}

/// What was proven of how many bytes, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Coverage {
    /// Bytes of plaintext by the header and the data's length.
    pub plaintext_bytes: Option<u64>,
    /// Bytes of plaintext that were read and decrypted; what stands for bytes that could not be read is none of them.
    pub read_bytes: u64,
    /// Bytes of plaintext, in blocks of 4096, that are zero.
    pub zero_bytes: u64,
    /// Bytes of plaintext in blocks that are not zero.
    pub data_bytes: u64,
    /// Bytes of plaintext under a tag of dm-integrity that was checked, and is right.
    pub authenticated_bytes: u64,
    /// Bytes of the files that are the same as a recorded hash says.
    pub hashed_bytes: u64,
    /// Bytes of disks, or of streams, that are the same as a hash says that their container keeps.
    pub recorded_bytes: u64,
    /// Bytes of plaintext that are the same as in what they were compared with.
    pub compared_bytes: u64,
    /// Bytes of the files that could not be read.
    pub unreadable_bytes: u64,
    /// How far the contents were looked at: `full`, `quick`, or `none`.
    pub contents: Cow<'static, str>,
    /// Bytes of plaintext under a checksum of the contents' own that was verified, and is right; `None` where the contents
    /// were not looked at in full.
    pub checksummed_bytes: Option<u64>,
    /// Bytes of plaintext that the contents use, and that are under no such checksum.
    pub unchecked_bytes: Option<u64>,
    /// Bytes of plaintext that are free, by the contents.
    pub free_bytes: Option<u64>,
    /// Bytes of plaintext behind the end of a file system, in its volume: none of its own. `None` where the contents were not
    /// looked at.
    pub behind_bytes: Option<u64>,
    /// Bytes of these in blocks of 4096 that are not zero; `None` also where not all was read.
    pub behind_data_bytes: Option<u64>,
    /// Bytes of files in the contents that are as a manifest says; `None` where there was none. Like the next one, it is a number
    /// of its own: a file's length, whatever room it takes.
    pub listed_bytes: Option<u64>,
    /// Bytes of files that are as the image's own package databases say; `None` where that was not asked.
    pub package_bytes: Option<u64>,
    /// Whether the bytes of files in the contents are under a checksum that was verified.
    pub file_data_proven: bool,
    /// The same for people, and what was not checked, a sentence each.
    pub statements: Vec<String>,
}

/// The tree of hashes over the plaintext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct TreeInfo {
    /// How it is made: the Merkle tree of RFC 6962 with SHA-256.
    pub kind: Cow<'static, str>,
    /// Bytes of plaintext of a leaf; the last one may be shorter.
    pub leaf_bytes: u64,
    /// How many leaves there are.
    pub leaves: u64,
    /// The root, in lower-case hex.
    pub root: String,
}

/// The hashes that were made. Those of bytes that could not all be read are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Hashes {
    /// Of the plaintext, by the hash's name.
    pub plaintext: BTreeMap<String, String>,
    /// Of the image's files, by the hash's name, in their order.
    pub image: BTreeMap<String, Vec<String>>,
    /// Of disks, or of streams, in containers that keep such a hash of them, by the hash's name.
    pub container: BTreeMap<String, Vec<String>>,
    /// The tree over the plaintext.
    pub tree: Option<TreeInfo>,
}

/// What a policy came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PolicyUsed {
    /// SHA-256 of the policy's file, in lower-case hex; `None` where it is from no file.
    pub sha256: Option<String>,
    /// How many rules it has.
    pub rules: u64,
    /// How many findings they brought.
    pub findings: u64,
}

/// What the header says of the container, for whoever reads the report without the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Container {
    /// The version of LUKS: 1 or 2.
    pub luks: u8,
    /// The UUID, as the header has it, not escaped.
    pub uuid: String,
    /// The label, as the header has it, not escaped.
    pub label: String,
    /// The ciphers of the live segments, as the header has them, not escaped.
    pub ciphers: Vec<String>,
    /// Bits of the volume key, where a keyslot says it.
    pub key_bits: Option<u64>,
    /// Bytes of header and keyslots.
    pub header_bytes: u64,
    /// The first byte of data in the file that holds it.
    pub data_offset: u64,
    /// How each keyslot derives its key, in words.
    pub keyslots: BTreeMap<u32, String>,
}

/// All that a verification says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether it restores.
    pub verdict: Verdict,
    /// Why, where it does not, or not without findings.
    pub reason: Option<String>,
    /// The image.
    pub image: ImageFile,
    /// What its header says; `None` where it could not be read, and where there is none.
    pub container: Option<Container>,
    /// What the policy came to, where there is one.
    pub policy: Option<PolicyUsed>,
    /// How each stage went.
    pub stages: Vec<Stage>,
    /// What opened it; `None` where nothing did, and where it is not encrypted.
    pub key: Option<KeyUsed>,
    /// What a manifest of files came to, where there is one.
    pub files: Option<FilesUsed>,
    /// What the image's own package databases came to, where that was asked.
    pub packages: Option<PackagesUsed>,
    /// What is not as it should be, in the order of the stages.
    pub findings: Vec<Finding>,
    /// How many findings were left out of the list.
    pub more_findings: u64,
    /// What was proven, and what was not.
    pub coverage: Coverage,
    /// The hashes.
    pub hashes: Hashes,
    /// The output that was read back, in the record of a decryption.
    pub output: Option<Output>,
    /// What the plaintext looks like; `None` where not all of it went by.
    pub map: Option<Map>,
    /// What lies on what, from the file down to what holds the container.
    pub layers: Vec<Layer>,
    /// When and by what.
    pub run: Run,
}
