//! From a passphrase to the volume key: keyslots in order of priority, derived, decrypted, merged, and proved.

mod queue;
mod task;
mod unlocked;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use subtle::ConstantTimeEq;

use super::area;
use super::metadata::*;
use super::reencrypt::Reencryption;
use super::token;
use crate::crypto::cipher::SectorCipher;
use crate::crypto::hash::Hash;
use crate::crypto::kdf::{Argon2Variant, Kdf as Derivation};
use crate::crypto::{af, spec::CipherSpec};
use crate::error::{Error, ErrorKind, Hint, Result, choice, escape};
use crate::io::ReadAt;
use crate::key::Key;
use crate::limits::{KEY_SIZE_MAX, KEYSLOTS_MAX, Limits, STRIPES};
use crate::num::from_u32;
use crate::secret::{SecretBytes, VolumeKey};
use task::Task;
use unlocked::KeyedHeader;
pub use unlocked::{Opened, Unlocked};
pub use watch::{Attempt, Watch};

/// Keyslot salts have this length (`LUKS_SALTSIZE`).
const SALT_LEN: usize = 32;
/// A digest has 20 bytes, or as many as its hash gives, up to this.
const DIGEST_LEN_MAX: usize = 64;

/// What to try.
#[derive(Clone, Debug, Default)]
pub struct UnlockOptions {
    /// Only this keyslot, whatever its priority.
    pub keyslot: Option<u32>,
    /// What key derivations may cost.
    pub limits: Limits,
    /// Takes live segments that cryptsetup would not activate: some that are not encrypted, or several, in a header
    /// without a reencryption. Nothing proves that it was the owner who put them there.
    pub allow_foreign_segments: bool,
    /// Who is told of each key derivation as it begins.
    pub watch: Option<Watch>,
}

/// Finds the volume keys that the live segments want.
///
/// Keyslots of priority 2 are tried first, then those of 1; those of 0 only when named. A slot whose key opens no
/// segment is left out. Slots are tried side by side as far as the memory limit allows. One whose area cannot be read is
/// passed over.
///
/// # Errors
/// [`ErrorKind::WrongKey`] where no keyslot opens; [`ErrorKind::LimitExceeded`] where none opens and one was passed
/// over because of its cost; [`ErrorKind::Io`] where none opens and the area of one cannot be read;
/// [`ErrorKind::Unsupported`] for what cannot be opened at all; [`ErrorKind::Corrupt`] for
/// keyslots that break a rule.
pub fn unlock(header: &dyn ReadAt, metadata: &Metadata, key: &Key, options: &UnlockOptions) -> Result<Unlocked> {
    let Task { reencryption, wanted } = Task::of(metadata, options)?;
    let slots = slots_to_try(metadata, &wanted, options)?;
    let mut refused = Vec::new();
    let mut plans = Vec::new();
    for id in slots {
        match Plan::new(metadata, id, &options.limits) {
            Ok(plan) => plans.push(plan),
            Err(e) => refused.push(e),
        }
    }
    cheap_first(&mut plans, metadata);
    let found = queue::try_all(header, &plans, key, &wanted, options, &mut refused)?;
    let mut unlocked = Unlocked {
        opened: Vec::new(),
        keys: BTreeMap::new(),
        header: KeyedHeader::of(metadata),
        passed_over: Vec::new(),
    };
    for queue::Found { opened, digest, key } in found {
        unlocked.opened.push(opened);
        unlocked.keys.entry(digest).or_insert(key);
    }
    if !wanted.iter().all(|d| unlocked.keys.contains_key(d)) {
        return Err(nothing_opened(header, metadata, &unlocked, &plans, refused, options));
    }
    if let Some(reencryption) = &reencryption {
        verify(metadata, reencryption, &unlocked.keys, &options.limits)?;
    }
    unlocked.passed_over = refused.into_iter().filter(|e| e.kind() == ErrorKind::Io).collect();
    Ok(unlocked)
}

/// A keyslot that costs so many times more than the cheapest is tried when all others were.
const COSTLY: u32 = 8;

/// Puts the keyslots that cost many times more than another of their priority behind the others, and marks them: somebody
/// may have damaged one, or forged it, and a good one must not wait for it.
fn cheap_first(plans: &mut [Plan], metadata: &Metadata) {
    let priority = |id: u32| metadata.keyslots.get(&id).map(|keyslot| keyslot.priority);
    let least = |p: Option<Priority>| plans.iter().filter(|q| priority(q.id) == p).map(|q| q.cost).min();
    let limits: Vec<_> = plans.iter().map(|plan| least(priority(plan.id)).unwrap_or_default()).collect();
    for (plan, least) in plans.iter_mut().zip(limits) {
        plan.is_costly = plan.cost > least.saturating_mul(COSTLY).max(Duration::from_secs(1));
    }
    plans.sort_by_key(|plan| (std::cmp::Reverse(priority(plan.id)), plan.is_costly));
}

/// What [`unlock`] may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How many keys it may have to derive: each passphrase for each keyslot.
    pub derivations: usize,
    /// How long that may take, one after the other, where nothing opens.
    pub time: Duration,
}

/// What [`unlock`] may have to do, where only the last keyslot opens, or none.
///
/// # Errors
/// As [`unlock`], for what cannot be tried at all.
pub fn cost(metadata: &Metadata, key: &Key, options: &UnlockOptions) -> Result<Cost> {
    let slots = slots_to_try(metadata, &Task::of(metadata, options)?.wanted, options)?;
    let each = key.candidates().len();
    // A slot that cannot be tried costs nothing.
    let costs = slots.iter().filter_map(|id| Plan::new(metadata, *id, &options.limits).ok()).map(|plan| plan.cost);
    let once = costs.fold(Duration::ZERO, Duration::saturating_add);
    let time = once.saturating_mul(u32::try_from(each).unwrap_or(u32::MAX));
    Ok(Cost { derivations: slots.len().saturating_mul(each), time })
}

/// Takes a volume key as it is, where its digest proves it.
///
/// # Errors
/// [`ErrorKind::WrongKey`] where no digest of a live segment matches it.
pub fn with_volume_key(metadata: &Metadata, key: VolumeKey, options: &UnlockOptions) -> Result<Unlocked> {
    let Task { reencryption, wanted } = Task::of(metadata, options)?;
    let len = key.expose().len();
    let mut spent = Duration::ZERO;
    for id in &wanted {
        let digest = DigestCheck::new(metadata, *id, &options.limits)?;
        // The limit is for all digests together: a header may have thousands.
        spent = spent.saturating_add(digest.cost);
        if spent > options.limits.kdf_time {
            let message =
                format!("the digests up to {id} would take more than {} s", options.limits.kdf_time.as_secs());
            return Err(Error::limit("kdf.time", message).with_hint(Hint::RaiseKdfTime));
        }
        if digest.matches(key.expose())? {
            let keys = BTreeMap::from([(*id, key)]);
            if wanted.len() > 1 {
                let message = format!("the segments have {} volume keys; one was given", wanted.len());
                return Err(Error::unsupported("volume-key", message).with_hint("give the passphrase instead"));
            }
            if let Some(reencryption) = &reencryption {
                verify(metadata, reencryption, &keys, &options.limits)?;
            }
            return Ok(Unlocked {
                opened: Vec::new(),
                keys,
                header: KeyedHeader::of(metadata),
                passed_over: Vec::new(),
            });
        }
    }
    let sizes: Vec<_> = metadata.keyslots.values().map(|k| k.key_size.to_string()).collect();
    let message = format!("the volume key of {len} bytes is not this image's: its digest does not match");
    let error = Error::new(ErrorKind::WrongKey, message).with_rule("volume-key");
    Err(match sizes.first() {
        Some(size) if *size != len.to_string() => error.with_hint(format!("this image's volume key has {size} bytes")),
        _ => error,
    })
}

/// Refuses a reencryption whose state somebody changed who does not have the keys (CVE-2021-4122): the volume keys and
/// the state together must give the digest that names its keyslot (`LUKS2_reencrypt_digest_verify`).
fn verify(
    metadata: &Metadata,
    reencryption: &Reencryption<'_>,
    keys: &BTreeMap<u32, VolumeKey>,
    limits: &Limits,
) -> Result<()> {
    let rule = || format!("keyslots.{}.digest", reencryption.keyslot);
    let unproven = |message: &str| {
        Error::corrupt(rule(), message.to_owned()).with_hint(
            "the header is damaged, or somebody changed it; if you trust it, run cryptsetup repair on a copy",
        )
    };
    let Some((digest, _)) = metadata.keyslot_digest(reencryption.keyslot) else {
        return Err(unproven("no digest proves that the state of the reencryption is genuine"));
    };
    let mut needed: Vec<u32> = [reencryption.previous.0, reencryption.last.0]
        .into_iter()
        .filter_map(|id| metadata.segment_digest(id).map(|(d, _)| d))
        .collect();
    needed.dedup();
    let needed: Option<Vec<_>> = needed.iter().map(|d| keys.get(d).map(VolumeKey::expose)).collect();
    let Some(needed) = needed.filter(|k| !k.is_empty()) else {
        return Err(unproven("neither the old nor the new segment has a volume key"));
    };
    let data = reencryption.verification_data(&needed)?;
    if DigestCheck::new(metadata, digest, limits)?.matches(data.expose())? {
        Ok(())
    } else {
        Err(unproven("the state of the reencryption does not match its digest"))
    }
}

/// The keyslots to try, in order.
fn slots_to_try(metadata: &Metadata, wanted: &[u32], options: &UnlockOptions) -> Result<Vec<u32>> {
    if let Some(id) = options.keyslot {
        let slots: Vec<_> = metadata.keyslots.keys().collect();
        let Some(slot) = metadata.keyslots.get(&id) else {
            return Err(Error::invalid(format!("there is no keyslot {id}; {}", choice(&slots))));
        };
        if let KeyslotKind::Unknown { kind } = &slot.kind {
            return Err(Error::unsupported(
                format!("keyslots.{id}.type"),
                format!("found \"{}\"; luks2 is known", escape(kind)),
            ));
        }
        if id >= KEYSLOTS_MAX {
            let message = format!("keyslots are numbered 0 to {}; cryptsetup opens no others", KEYSLOTS_MAX - 1);
            return Err(Error::unsupported(format!("keyslots.{id}"), message));
        }
        return Ok(vec![id]);
    }
    let proves_wanted = |id: &u32| metadata.keyslot_digest(*id).is_some_and(|(d, _)| wanted.contains(&d));
    let mut slots: Vec<_> = metadata
        .keyslots
        .iter()
        .filter(|(id, k)| **id < KEYSLOTS_MAX && matches!(k.kind, KeyslotKind::Luks2(_)) && proves_wanted(id))
        .filter(|(_, k)| matches!(k.priority, Priority::Normal | Priority::Prefer))
        .map(|(id, k)| (std::cmp::Reverse(k.priority), *id))
        .collect();
    slots.sort_unstable();
    if slots.is_empty() {
        return Err(Error::new(ErrorKind::WrongKey, "no keyslot may be tried: none is left, or all have priority 0")
            .with_rule("keyslots")
            .with_hint([Hint::NameKeyslot, Hint::VolumeKey]));
    }
    Ok(slots.into_iter().map(|(_, id)| id).collect())
}

/// All that is needed to try a keyslot, checked before anything is derived.
struct Plan {
    id: u32,
    key_size: usize,
    area: Area,
    material_len: usize,
    derivation: Derivation,
    area_key_size: usize,
    area_cipher: CipherSpec,
    af_hash: Hash,
    digest: DigestCheck,
    cost: Duration,
    /// How many threads its derivation keeps busy.
    width: usize,
    /// It costs many times more than others, and is tried behind them, alone.
    is_costly: bool,
}

impl Plan {
    fn new(metadata: &Metadata, id: u32, limits: &Limits) -> Result<Self> {
        let field = |name: &str| format!("keyslots.{id}.{name}");
        let missing = || Error::corrupt(field("type"), "the keyslot is gone");
        let keyslot = metadata.keyslots.get(&id).ok_or_else(missing)?;
        let KeyslotKind::Luks2(slot) = &keyslot.kind else {
            return Err(Error::invalid(format!("keyslot {id} holds no volume key")));
        };
        let size = |name: &str, n: u32| match n {
            1..=KEY_SIZE_MAX => usize::try_from(n).map_err(|_| Error::limit(field(name), "is too large")),
            _ => Err(Error::limit(field(name), format!("found {n} bytes; 1 to {KEY_SIZE_MAX} are allowed"))),
        };
        let key_size = size("key_size", keyslot.key_size)?;
        let area_key_size = size("area.key_size", slot.area_key_size)?;
        // Stored stripes are ignored: cryptsetup always splits into 4000.
        let material_len = u64::from(keyslot.key_size).saturating_mul(u64::from(STRIPES)).next_multiple_of(512);
        if material_len > keyslot.area.size {
            let message = format!("found {}; a key of {key_size} bytes takes {material_len}", keyslot.area.size);
            return Err(Error::corrupt(field("area.size"), message));
        }
        let area_cipher = CipherSpec::parse(&slot.encryption).map_err(|e| e.with_rule(field("area.encryption")))?;
        // The cipher is made once before the costly derivation, so that an unknown one is refused at once.
        SectorCipher::new(&area_cipher, &vec![0x5a; area_key_size], 512)
            .map_err(|e| e.with_rule(field("area.encryption")))?;
        let derivation = derivation(&slot.kdf, id)?;
        derivation.check(limits, area_key_size).map_err(|e| e.within(format_args!("keyslot {id}")))?;
        let (digest, _) = metadata
            .keyslot_digest(id)
            .ok_or_else(|| Error::corrupt(field("digest"), "no digest names this keyslot"))?;
        let digest = DigestCheck::new(metadata, digest, limits)?;
        let cost = derivation.estimate(area_key_size).saturating_add(digest.cost);
        let width = match &derivation {
            Derivation::Pbkdf2 { hash, .. } => area_key_size.div_ceil(hash.output_len().max(1)),
            Derivation::Argon2 { cpus, .. } => from_u32(*cpus),
        };
        Ok(Self {
            id,
            key_size,
            area: keyslot.area,
            material_len: usize::try_from(material_len).map_err(|_| Error::limit(field("key_size"), "is too large"))?,
            derivation,
            area_key_size,
            area_cipher,
            af_hash: Hash::from_name(&slot.af_hash).map_err(|e| e.with_rule(field("af.hash")))?,
            digest,
            cost,
            width,
            is_costly: false,
        })
    }

    /// Derives, decrypts, merges and proves. `None` where the passphrase is not this slot's.
    fn open(&self, header: &dyn ReadAt, passphrase: &[u8]) -> Result<Option<VolumeKey>> {
        // A header that somebody changed must not talk us into a null cipher: CVE-2025-59054.
        if self.area_cipher.is_null() && !passphrase.is_empty() {
            return Ok(None);
        }
        // Before the costly derivation: it would be for nothing where the area cannot be read.
        let mut material = SecretBytes::zeroed(self.material_len)?;
        let unreadable = |e: Error| e.within(format_args!("keyslot {}'s area", self.id));
        header.read_exact_at(material.expose_mut(), self.area.offset).map_err(unreadable)?;
        let mut area_key = SecretBytes::zeroed(self.area_key_size)?;
        self.derivation.derive(passphrase, &mut area_key).map_err(|e| e.within(format_args!("keyslot {}", self.id)))?;
        let cipher = SectorCipher::new(&self.area_cipher, area_key.expose(), 512)?;
        drop(area_key);
        cipher.decrypt(material.expose_mut(), 0)?;
        let mut key = SecretBytes::zeroed(self.key_size)?;
        let stripes = from_u32(STRIPES);
        let material = &material.expose()[..self.key_size.saturating_mul(stripes)];
        // Headers do not say which Whirlpool it was; the digest does.
        let wrong = (self.af_hash == Hash::Whirlpool).then_some(Hash::WhirlpoolGcryptBug);
        for hash in std::iter::once(self.af_hash).chain(wrong) {
            af::merge(hash, material, STRIPES, &mut key)?;
            if self.digest.matches(key.expose())? {
                return Ok(Some(VolumeKey(key)));
            }
        }
        Ok(None)
    }
}

/// The checked form of a header's KDF.
fn derivation(kdf: &Kdf, id: u32) -> Result<Derivation> {
    let field = |name: &str| format!("keyslots.{id}.kdf.{name}");
    let number = |name: &str, n: u64| {
        u32::try_from(n).map_err(|_| Error::limit(field(name), format!("found {n}; at most {} is allowed", u32::MAX)))
    };
    match kdf {
        Kdf::Pbkdf2 { hash, iterations, salt } => Ok(Derivation::Pbkdf2 {
            hash: Hash::from_name(hash).map_err(|e| e.with_rule(field("hash")))?,
            iterations: number("iterations", *iterations)?,
            salt: salt_of(salt, &field("salt"))?,
        }),
        Kdf::Argon2 { variant, time, memory, cpus, salt } => Ok(Derivation::Argon2 {
            variant: if variant == "argon2i" { Argon2Variant::I } else { Argon2Variant::Id },
            time: number("time", *time)?,
            memory_kib: number("memory", *memory)?,
            cpus: number("cpus", *cpus)?,
            salt: salt_of(salt, &field("salt"))?,
        }),
        Kdf::Unknown { kind } => {
            let message = format!("found \"{}\"; pbkdf2, argon2i and argon2id are known", escape(kind));
            Err(Error::unsupported(field("type"), message))
        }
    }
}

fn salt_of(salt: &Bytes, field: &str) -> Result<Vec<u8>> {
    match salt.get(field)? {
        salt if salt.len() == SALT_LEN => Ok(salt.to_vec()),
        salt => Err(Error::corrupt(field.to_owned(), format!("found {} bytes; {SALT_LEN} are wanted", salt.len()))),
    }
}

/// A digest, ready to prove a key.
struct DigestCheck {
    id: u32,
    derivation: Derivation,
    expected: Vec<u8>,
    cost: Duration,
}

impl DigestCheck {
    fn new(metadata: &Metadata, id: u32, limits: &Limits) -> Result<Self> {
        let field = |name: &str| format!("digests.{id}.{name}");
        let gone = || Error::corrupt(field("type"), "the digest is gone");
        let digest = metadata.digests.get(&id).ok_or_else(gone)?;
        let (hash, iterations, salt, expected) = match &digest.kind {
            DigestKind::Pbkdf2 { hash, iterations, salt, digest } => (hash, *iterations, salt, digest),
            DigestKind::Malformed { error } => return Err(Error::corrupt(field("type"), error.clone())),
            DigestKind::Unknown { kind } => {
                return Err(Error::unsupported(field("type"), format!("found \"{}\"; pbkdf2 is known", escape(kind))));
            }
        };
        let hash = Hash::from_name(hash).map_err(|e| e.with_rule(field("hash")))?;
        let expected = expected.get(&field("digest"))?.to_vec();
        let legal = (expected.len() == 20 || expected.len() == hash.output_len()) && expected.len() <= DIGEST_LEN_MAX;
        if !legal {
            let message = format!(
                "found {} bytes; 20 or the {} of {} are allowed",
                expected.len(),
                hash.output_len(),
                hash.name()
            );
            return Err(Error::corrupt(field("digest"), message));
        }
        let too_many =
            |_| Error::limit(field("iterations"), format!("found {iterations}; at most {} is allowed", u32::MAX));
        let iterations = u32::try_from(iterations).map_err(too_many)?;
        let derivation = Derivation::Pbkdf2 { hash, iterations, salt: salt_of(salt, &field("salt"))? };
        derivation.check(limits, expected.len()).map_err(|e| e.within(format_args!("digest {id}")))?;
        let cost = derivation.estimate(expected.len());
        Ok(Self { id, derivation, expected, cost })
    }

    fn matches(&self, key: &[u8]) -> Result<bool> {
        let mut found = SecretBytes::zeroed(self.expected.len())?;
        self.derivation.derive(key, &mut found)?;
        Ok(bool::from(found.expose().ct_eq(&self.expected)))
    }
}

/// Why the image stays closed.
fn nothing_opened(
    header: &dyn ReadAt,
    metadata: &Metadata,
    unlocked: &Unlocked,
    plans: &[Plan],
    mut refused: Vec<Error>,
    options: &UnlockOptions,
) -> Error {
    if !unlocked.keys.is_empty() {
        let message = "the segments have several volume keys, and the passphrase opened only one of them";
        let error = Error::new(ErrorKind::WrongKey, message).with_rule("keyslots");
        return match options.keyslot {
            Some(_) => error.with_hint(Hint::AnyKeyslot),
            None => error.with_hint(Hint::MorePassphrases),
        };
    }
    // A slot that was never tried might have been the one.
    if let Some(at) = refused.iter().position(|e| e.kind() == ErrorKind::LimitExceeded) {
        return refused.swap_remove(at);
    }
    if let Some(at) = refused.iter().position(|e| e.kind() == ErrorKind::Io) {
        let error = refused.swap_remove(at);
        return match plans.len() {
            0 | 1 => error,
            _ => error.with_hint("the passphrase may be that keyslot's: it opens no other one"),
        };
    }
    if plans.is_empty() && !refused.is_empty() {
        return refused.swap_remove(0);
    }
    let tried: Vec<_> = plans.iter().map(|p| p.id.to_string()).collect();
    let which = match tried.len() {
        1 => format!("keyslot {}", tried[0]),
        _ => format!("any of the keyslots {}", tried.join(", ")),
    };
    let mut message = format!("the passphrase does not open {which}");
    if plans.iter().any(|p| p.area_cipher.is_null()) {
        message += "; a keyslot with the null cipher is taken only with an empty passphrase";
    }
    if !refused.is_empty() {
        let why: Vec<_> = refused.iter().map(ToString::to_string).collect();
        message += &format!(" ({} not tried: {})", refused.len(), why.join("; "));
    }
    if let Some(owners) = token::owners(metadata, plans.iter().map(|p| p.id)) {
        message += &format!("; {owners}");
    }
    let overwritten = area::overwritten(header, metadata, plans.iter().map(|p| p.id));
    for (id, what) in &overwritten {
        message +=
            &format!("; keyslot {id}'s area looks overwritten ({what}): the key may be right and the keyslot gone");
    }
    let error = Error::new(ErrorKind::WrongKey, message).with_rule("passphrase");
    if !overwritten.is_empty() {
        return error.with_hint(["a header backup from before has the keyslot still".into(), Hint::DetachedHeader]);
    }
    match options.keyslot {
        Some(_) => error.with_hint(Hint::AnyKeyslot),
        None => error.with_hint(Hint::GuessKey),
    }
}
