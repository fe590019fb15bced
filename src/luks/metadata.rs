//! What a LUKS header says, whichever version it is: the shape is LUKS2's, and LUKS1 is expressed in it.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, escape};

/// The on-disk format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// LUKS1: a binary header of 592 bytes and eight keyslots.
    V1,
    /// LUKS2: two copies of a binary header and a JSON area.
    V2,
}

impl Version {
    /// 1 or 2.
    pub fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

/// A parsed and validated LUKS header.
#[derive(Debug)]
#[non_exhaustive]
pub struct Metadata {
    /// The on-disk format.
    pub version: Version,
    /// The UUID as text, as the header holds it.
    pub uuid: String,
    /// The label; empty where there is none, and in LUKS1.
    pub label: String,
    /// The subsystem label; empty where there is none, and in LUKS1.
    pub subsystem: String,
    /// The sequence id of the copy in use; 0 in LUKS1.
    pub seqid: u64,
    /// The header copies that were found or looked for: one in LUKS1, two in LUKS2.
    pub copies: Vec<HeaderCopy>,
    /// Bytes of one header copy, binary header and JSON area together; 592 in LUKS1.
    pub metadata_size: u64,
    /// Bytes from the start to the end of the last keyslot area: what a header backup holds.
    pub header_size: u64,
    /// Bytes of the keyslots area.
    pub keyslots_size: u64,
    /// What the two header copies say differently; empty in LUKS1.
    pub differences: Vec<Difference>,
    /// The keyslots by number. LUKS1's disabled ones are left out.
    pub keyslots: BTreeMap<u32, Keyslot>,
    /// LUKS1's disabled keyslots by number; empty in LUKS2, which has none.
    pub disabled_keyslots: BTreeMap<u32, DisabledKeyslot>,
    /// The segments in order, backup segments of a reencryption last.
    pub segments: Vec<Segment>,
    /// The digests by number.
    pub digests: BTreeMap<u32, Digest>,
    /// The tokens by number.
    pub tokens: BTreeMap<u32, Token>,
    /// Persistent flags, such as `allow-discards`.
    pub flags: Vec<String>,
    /// Mandatory requirements, such as `online-reencrypt-v2`.
    pub requirements: Vec<String>,
    /// The JSON area of the copy in use, as it is; `None` in LUKS1.
    pub json: Option<serde_json::Value>,
    /// How far an offline reencryption came, whose two headers this one was made of.
    pub offline: Option<Offline>,
    /// What was damaged and how it was read all the same: see [`recover::open`](super::recover::open).
    pub recovery: Option<Box<super::recovery::Recovery>>,
}

/// How far an offline reencryption came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offline {
    /// What it does.
    pub mode: OfflineMode,
    /// From the start of the volume to its end, or the other way.
    pub is_forward: bool,
    /// Where in the plaintext old and new data meet, in bytes; `None` where nothing was done yet.
    pub offset: Option<u64>,
}

/// What an offline reencryption does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflineMode {
    /// Another volume key.
    Reencrypt,
    /// Plaintext is encrypted.
    Encrypt,
    /// A volume is decrypted.
    Decrypt,
}

impl Offline {
    /// What it is, in a sentence of a report.
    pub fn describe(&self) -> String {
        let what = match self.mode {
            OfflineMode::Reencrypt => "reencryption",
            OfflineMode::Encrypt => "encryption",
            OfflineMode::Decrypt => "decryption",
        };
        match (self.offset, self.is_forward) {
            (None, _) => format!("an offline {what} by cryptsetup-reencrypt, which had not begun"),
            (Some(at), true) => {
                format!(
                    "an offline {what} by cryptsetup-reencrypt was not finished: it goes forward, and came to byte {at}"
                )
            }
            (Some(at), false) => {
                format!(
                    "an offline {what} by cryptsetup-reencrypt was not finished: it goes backward, and came to byte {at}"
                )
            }
        }
    }
}

/// Which of the two places of a LUKS2 header a copy is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Role {
    /// At the start.
    Primary,
    /// At the primary's `hdr_size`.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// One copy of the header, and whether it is good.
#[derive(Debug)]
#[non_exhaustive]
pub struct HeaderCopy {
    /// Which copy it is.
    pub role: Role,
    /// Where it lies, in bytes; for a secondary that was not found, where it should be.
    pub offset: u64,
    /// Its sequence id, where the binary header could be read.
    pub seqid: Option<u64>,
    /// Its `hdr_size` in bytes, where the binary header could be read.
    pub hdr_size: Option<u64>,
    /// Its UUID as text; empty where the binary header could not be read.
    pub uuid: String,
    /// Its label; empty where there is none, in LUKS1, and where the binary header could not be read.
    pub label: String,
    /// Its subsystem label; empty as the label.
    pub subsystem: String,
    /// Its checksum algorithm; empty in LUKS1 and where the binary header could not be read.
    pub csum_alg: String,
    /// Its salt; empty in LUKS1 and where the binary header could not be read.
    pub salt: Vec<u8>,
    /// Why it is not good, or `None` where it is.
    pub error: Option<Error>,
    /// Whether this is the copy that the metadata comes from.
    pub used: bool,
    /// A KDF's leftover parameters were dropped in memory to make the JSON valid.
    pub repaired: bool,
}

/// Something that the two header copies say differently.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Difference {
    /// The field of the binary header, or the path in the JSON area, such as `keyslots.0.kdf.time`.
    pub field: String,
    /// What the primary copy says; `None` where it has no such field.
    pub primary: Option<String>,
    /// What the secondary copy says; `None` where it has no such field.
    pub secondary: Option<String>,
}

/// A LUKS1 keyslot that is disabled. cryptsetup zeroes iterations and salt when it disables one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DisabledKeyslot {
    /// Where its key material would lie.
    pub area: Area,
    /// Bytes of the key that it would hold.
    pub key_size: u32,
    /// PBKDF2's iterations.
    pub iterations: u32,
    /// PBKDF2's salt.
    pub salt: Vec<u8>,
}

impl DisabledKeyslot {
    /// Whether something is left in it that cryptsetup would have zeroed.
    pub fn was_not_wiped(&self) -> bool {
        self.iterations != 0 || self.salt.iter().any(|b| *b != 0)
    }
}

/// A keyslot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyslot {
    /// What it holds.
    pub kind: KeyslotKind,
    /// Bytes of the key that it holds.
    pub key_size: u32,
    /// When it is tried.
    pub priority: Priority,
    /// Where its key material lies.
    pub area: Area,
}

/// Bytes from `offset` on, `size` many, counted from the start of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Area {
    /// Offset in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub size: u64,
}

/// What a keyslot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyslotKind {
    /// A volume key, split by the anti-forensic splitter and encrypted with a key that a KDF gives.
    Luks2(Luks2Keyslot),
    /// The state of a reencryption.
    Reencrypt(ReencryptKeyslot),
    /// A type that is not known here; it is kept and shown.
    Unknown {
        /// The type's name.
        kind: String,
    },
}

/// The parameters of a keyslot that holds a volume key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Luks2Keyslot {
    /// How the passphrase becomes the area key.
    pub kdf: Kdf,
    /// The hash of the anti-forensic splitter.
    pub af_hash: String,
    /// The stripes of the anti-forensic splitter, as stored; 4000 are used whatever this says.
    pub af_stripes: u64,
    /// The cipher of the area.
    pub encryption: String,
    /// Bytes of the key that the KDF must give for the area's cipher.
    pub area_key_size: u32,
}

/// A key derivation function and its parameters, as stored. Unlocking checks the ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kdf {
    /// PBKDF2 with HMAC.
    Pbkdf2 {
        /// The hash's name.
        hash: String,
        /// How many iterations.
        iterations: u64,
        /// The salt.
        salt: Bytes,
    },
    /// Argon2i or Argon2id.
    Argon2 {
        /// `argon2i` or `argon2id`.
        variant: String,
        /// How many passes.
        time: u64,
        /// KiB of memory.
        memory: u64,
        /// How many lanes.
        cpus: u64,
        /// The salt.
        salt: Bytes,
    },
    /// A type that is not known here. A header with it is valid; the keyslot cannot be opened.
    Unknown {
        /// The type's name.
        kind: String,
    },
}

/// Bytes that a LUKS2 header holds as Base64. Text that is no Base64 does not make a header invalid.
#[derive(Clone, PartialEq, Eq)]
pub enum Bytes {
    /// What it decodes to.
    Decoded(Vec<u8>),
    /// Text that is no Base64.
    Malformed(String),
}

impl Bytes {
    /// Decodes Base64 as cryptsetup writes it: the standard alphabet, with padding.
    pub fn from_base64(text: &str) -> Self {
        use base64::Engine;
        match base64::engine::general_purpose::STANDARD.decode(text) {
            Ok(bytes) => Self::Decoded(bytes),
            Err(_) => Self::Malformed(text.to_owned()),
        }
    }

    /// The bytes, or an error that names `field`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where the text was no Base64.
    pub fn get(&self, field: &str) -> crate::Result<&[u8]> {
        match self {
            Self::Decoded(bytes) => Ok(bytes),
            Self::Malformed(text) => {
                Err(Error::corrupt(field.to_owned(), format!("found \"{}\"; Base64 is allowed", escape(text))))
            }
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decoded(bytes) => f.write_str(&hex::encode(bytes)),
            Self::Malformed(text) => write!(f, "malformed \"{}\"", escape(text)),
        }
    }
}

/// The state of a reencryption, as its keyslot holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ReencryptKeyslot {
    /// `encrypt`, `reencrypt` or `decrypt`.
    pub mode: String,
    /// `forward` or `backward`.
    pub direction: String,
    /// The resilience: `none`, `checksum`, `journal`, `datashift`, `datashift-journal` or `datashift-checksum`.
    pub resilience: String,
    /// The hash of `checksum` resilience.
    pub hash: Option<String>,
    /// The sector size in bytes of `checksum` resilience.
    pub sector_size: Option<u32>,
    /// The shift in bytes of the `datashift` resiliences.
    pub shift_size: Option<u64>,
}

impl ReencryptKeyslot {
    /// Whether it goes from the start of the volume to its end.
    pub fn is_forward(&self) -> bool {
        self.direction == "forward"
    }
}

/// When a keyslot is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// 0: only when the keyslot is named.
    Ignore,
    /// 1.
    Normal,
    /// 2: before the others.
    Prefer,
    /// A number that means nothing to cryptsetup; tried like `Normal` by none, like `Ignore` by all.
    Unknown(i64),
}

impl Priority {
    /// The priority that a header's number stands for.
    pub fn from_number(n: i64) -> Self {
        match n {
            0 => Self::Ignore,
            1 => Self::Normal,
            2 => Self::Prefer,
            n => Self::Unknown(n),
        }
    }

    /// cryptsetup's name for it, where it has one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Ignore => Some("ignore"),
            Self::Normal => Some("normal"),
            Self::Prefer => Some("prefer"),
            Self::Unknown(_) => None,
        }
    }

    /// The header's number.
    pub fn number(self) -> i64 {
        match self {
            Self::Ignore => 0,
            Self::Normal => 1,
            Self::Prefer => 2,
            Self::Unknown(n) => n,
        }
    }
}

/// A part of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// Where it starts in the data file, in bytes.
    pub offset: u64,
    /// Its length in bytes; `None` is `"dynamic"`: to the end of the data file.
    pub size: Option<u64>,
    /// Its flags, such as `backup-final`.
    pub flags: Vec<String>,
}

impl Segment {
    /// Whether it has this flag.
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }

    /// Whether it is a note that a reencryption keeps, and no live data.
    pub fn is_backup(&self) -> bool {
        self.flags.iter().any(|f| f.starts_with("backup"))
    }
}

/// What a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SegmentKind {
    /// Data encrypted by dm-crypt.
    Crypt(CryptSegment),
    /// Data as it is: a part that a reencryption has not encrypted yet, or has decrypted already.
    Linear,
    /// A type that is not known here; it is kept and shown.
    Unknown {
        /// The type's name.
        kind: String,
    },
}

/// The parameters of a segment that dm-crypt encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CryptSegment {
    /// The cipher, as dm-crypt spells it.
    pub encryption: String,
    /// What is added to the IV's sector number, in 512-byte sectors.
    pub iv_tweak: u64,
    /// Bytes of an encryption sector.
    pub sector_size: u32,
    /// The dm-integrity layer below, where there is one.
    pub integrity: Option<Integrity>,
}

/// The dm-integrity layer of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Integrity {
    /// The integrity algorithm, such as `hmac(sha256)` or `aead`.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub kind: String,
    /// The journal's encryption, `none` in all that cryptsetup writes.
    pub journal_encryption: String,
    /// The journal's integrity, `none` in all that cryptsetup writes.
    pub journal_integrity: String,
    /// Bytes of the integrity key, where the header says.
    pub key_size: Option<u64>,
}

/// A digest: it proves that a volume key is the right one for its keyslots and segments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Digest {
    /// How it is made.
    pub kind: DigestKind,
    /// The keyslots whose key it proves.
    pub keyslots: Vec<u32>,
    /// The segments that the key encrypts.
    pub segments: Vec<u32>,
}

/// How a digest is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigestKind {
    /// PBKDF2 of the volume key.
    Pbkdf2 {
        /// The hash's name.
        hash: String,
        /// How many iterations.
        iterations: u64,
        /// The salt.
        salt: Bytes,
        /// What the derivation must give.
        digest: Bytes,
    },
    /// A `pbkdf2` digest that lacks a part. A header with it is valid; its keyslots cannot be opened.
    Malformed {
        /// What it lacks.
        error: String,
    },
    /// A type that is not known here.
    Unknown {
        /// The type's name.
        kind: String,
    },
}

/// A token: how some other program gets at a passphrase.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Token {
    /// Its type, such as `luks2-keyring`.
    #[cfg_attr(feature = "serde", serde(rename = "type"))]
    pub kind: String,
    /// The keyslots that its passphrase opens.
    pub keyslots: Vec<u32>,
    /// The whole token, as it is.
    #[cfg_attr(feature = "serde", serde(rename = "content"))]
    pub json: serde_json::Value,
}

impl Metadata {
    /// The segments that hold live data, in order.
    pub fn live_segments(&self) -> impl Iterator<Item = (u32, &Segment)> {
        (0u32..).zip(&self.segments).filter(|(_, s)| !s.is_backup())
    }

    /// The copy that the metadata comes from.
    pub fn used_copy(&self) -> Option<&HeaderCopy> {
        self.copies.iter().find(|c| c.used)
    }

    /// The first byte of data in the data file; 0 with a detached header.
    pub fn data_offset(&self) -> u64 {
        self.live_segments().map(|(_, s)| s.offset).min().unwrap_or(0)
    }

    /// The keyslot that holds the state of a reencryption, with its number.
    pub fn reencrypt_keyslot(&self) -> Option<(u32, &Keyslot, &ReencryptKeyslot)> {
        self.keyslots.iter().find_map(|(id, k)| match &k.kind {
            KeyslotKind::Reencrypt(state) => Some((*id, k, state)),
            _ => None,
        })
    }

    /// The digest of a keyslot's key.
    pub fn keyslot_digest(&self, keyslot: u32) -> Option<(u32, &Digest)> {
        self.digests.iter().find(|(_, d)| d.keyslots.contains(&keyslot)).map(|(n, d)| (*n, d))
    }

    /// The digest of a segment's key.
    pub fn segment_digest(&self, segment: u32) -> Option<(u32, &Digest)> {
        self.digests.iter().find(|(_, d)| d.segments.contains(&segment)).map(|(n, d)| (*n, d))
    }

    /// Whether a keyslot's key opens no live segment. The key that a reencryption has prepared opens none yet.
    pub fn is_unbound(&self, keyslot: u32) -> bool {
        self.keyslot_digest(keyslot)
            .is_none_or(|(_, d)| self.live_segments().all(|(segment, _)| !d.segments.contains(&segment)))
    }
}
