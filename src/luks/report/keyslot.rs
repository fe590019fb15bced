//! Keyslots in a report, and what a guess at them costs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::decoded;
use crate::luks::metadata::{self as meta, DisabledKeyslot, KeyslotKind, Metadata, ReencryptKeyslot, Version};

/// For so many keyslots the time of a derivation is estimated, which may take some 20 ms each: as many as cryptsetup
/// allows (`LUKS2_KEYSLOTS_MAX`).
const ESTIMATES_MAX: usize = 32;

/// A keyslot.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Keyslot<'a> {
    /// Its number.
    pub id: u32,
    /// Whether it can be opened.
    pub state: State,
    /// `luks1`, `luks2`, `reencrypt`, or a type that is not known here.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// Bytes of the key that it holds.
    pub key_size: u32,
    /// When it is tried; `None` in LUKS1.
    pub priority: Option<i64>,
    /// Whether its key opens no live segment; `None` where it has none.
    pub unbound: Option<bool>,
    /// The digest of its key.
    pub digest: Option<u32>,
    /// The segments that its key encrypts.
    pub segments: &'a [u32],
    /// How the passphrase becomes the area key.
    pub kdf: Option<Kdf<'a>>,
    /// The anti-forensic splitter.
    pub af: Option<Af<'a>>,
    /// Where its key material lies.
    pub area: KeyslotArea<'a>,
    /// The state of a reencryption.
    pub reencryption: Option<&'a ReencryptKeyslot>,
}

/// Whether a keyslot can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds a key, or a state.
    Active,
    /// LUKS1's word for one that holds nothing.
    Disabled,
    /// It has parameters that cannot be.
    Invalid,
}

impl State {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Invalid => "invalid",
        }
    }
}

/// A key derivation function with its parameters.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Kdf<'a> {
    /// `pbkdf2`, `argon2i`, `argon2id`, or a type that is not known here.
    #[serde(rename = "type")]
    pub kind: &'a str,
    /// PBKDF2's hash.
    pub hash: Option<&'a str>,
    /// PBKDF2's iterations.
    pub iterations: Option<u64>,
    /// Argon2's passes.
    pub time: Option<u64>,
    /// Argon2's memory in KiB.
    pub memory: Option<u64>,
    /// Argon2's lanes.
    pub cpus: Option<u64>,
    /// The salt in hexadecimal digits; `None` where it is malformed.
    pub salt: Option<String>,
    /// What one derivation takes; `None` for parameters that cannot be, and beyond 32 keyslots.
    pub cost: Option<Cost>,
}

/// What one derivation takes.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Seconds, about, on this machine.
    pub seconds: f64,
}

/// The anti-forensic splitter.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Af<'a> {
    /// `luks1`, the only one there is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// How many stripes.
    pub stripes: u64,
    /// The hash's name.
    pub hash: &'a str,
}

/// Where a keyslot's key material lies.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct KeyslotArea<'a> {
    /// The byte where it starts.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Its cipher.
    pub encryption: Option<&'a str>,
    /// Bytes of its cipher's key.
    pub key_size: Option<u32>,
}

/// All keyslots in the order of their numbers, LUKS1's disabled ones too.
pub(super) fn all(metadata: &Metadata) -> Vec<Keyslot<'_>> {
    let with_cost = |n: usize| n < ESTIMATES_MAX;
    let used = metadata.keyslots.iter().enumerate();
    let mut all: BTreeMap<_, _> =
        used.map(|(n, (id, slot))| (*id, Keyslot::new(metadata, *id, slot, with_cost(n)))).collect();
    all.extend(metadata.disabled_keyslots.iter().map(|(id, slot)| (*id, Keyslot::disabled(*id, slot))));
    all.into_values().collect()
}

impl<'a> Keyslot<'a> {
    fn new(metadata: &'a Metadata, id: u32, slot: &'a meta::Keyslot, with_cost: bool) -> Self {
        let digest = metadata.keyslot_digest(id);
        let v1 = metadata.version == Version::V1;
        let mut keyslot = Self {
            id,
            state: State::Active,
            kind: "",
            key_size: slot.key_size,
            priority: Some(slot.priority.number()).filter(|_| !v1),
            unbound: Some(metadata.is_unbound(id)),
            digest: digest.map(|(id, _)| id),
            segments: digest.map_or(&[][..], |(_, d)| &d.segments),
            kdf: None,
            af: None,
            area: KeyslotArea::new(slot.area),
            reencryption: None,
        };
        match &slot.kind {
            KeyslotKind::Luks2(k) => {
                keyslot.kind = if v1 { "luks1" } else { "luks2" };
                keyslot.kdf = Some(Kdf::new(k, with_cost));
                keyslot.af = Some(Af { kind: "luks1", stripes: k.af_stripes, hash: &k.af_hash });
                keyslot.area.encryption = Some(&k.encryption);
                keyslot.area.key_size = Some(k.area_key_size);
            }
            KeyslotKind::Reencrypt(state) => {
                keyslot.kind = "reencrypt";
                keyslot.reencryption = Some(state);
            }
            KeyslotKind::Unknown { .. } if v1 => {
                keyslot.kind = "luks1";
                keyslot.state = State::Invalid;
            }
            KeyslotKind::Unknown { kind } => keyslot.kind = kind,
        }
        keyslot
    }

    fn disabled(id: u32, slot: &'a DisabledKeyslot) -> Self {
        Self {
            id,
            state: State::Disabled,
            kind: "luks1",
            key_size: slot.key_size,
            priority: None,
            unbound: None,
            digest: None,
            segments: &[],
            kdf: slot.was_not_wiped().then(|| Kdf {
                iterations: Some(slot.iterations.into()),
                salt: Some(hex::encode(&slot.salt)),
                ..Kdf::of_type("pbkdf2")
            }),
            af: None,
            area: KeyslotArea::new(slot.area),
            reencryption: None,
        }
    }
}

impl KeyslotArea<'_> {
    fn new(meta::Area { offset, size }: meta::Area) -> Self {
        Self { offset, size, encryption: None, key_size: None }
    }
}

impl<'a> Kdf<'a> {
    fn new(slot: &'a meta::Luks2Keyslot, with_cost: bool) -> Self {
        let mut kdf = match &slot.kdf {
            meta::Kdf::Pbkdf2 { hash, iterations, salt } => {
                Self { hash: Some(hash), iterations: Some(*iterations), salt: decoded(salt), ..Self::of_type("pbkdf2") }
            }
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

    fn of_type(kind: &'a str) -> Self {
        Self { kind, hash: None, iterations: None, time: None, memory: None, cpus: None, salt: None, cost: None }
    }
}

/// The functions that derive are not in this build, nor what they would take.
#[cfg(not(feature = "unlock"))]
fn cost(_: &meta::Luks2Keyslot) -> Option<Cost> {
    None
}

/// What one derivation takes; `None` for parameters that cannot be.
#[cfg(feature = "unlock")]
fn cost(slot: &meta::Luks2Keyslot) -> Option<Cost> {
    use crate::crypto::hash::Hash;
    use crate::crypto::kdf::{Argon2Variant, Kdf as Derivation};
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
