//! The rules of the LUKS2 JSON area, as cryptsetup enforces them (luks2_json_metadata.c, luks2_keyslot*.c), and the
//! typed values behind them. The sections are checked in cryptsetup's order, so that the same rule fails first.

use std::collections::BTreeMap;

use serde_json::Value;

use super::json::{Object, number};
use super::metadata::*;
use crate::error::{Error, Result, escape};
use crate::limits::{LUKS2_HDR_SIZE_MAX, LUKS2_HDR_SIZE_MIN, LUKS2_KEYSLOTS_SIZE_MAX};

/// The binary header in front of the JSON area.
const HDR_BIN_LEN: u64 = 4096;
const SECTOR: u64 = 512;

/// The JSON area's content, checked.
#[derive(Debug)]
pub struct Json {
    pub keyslots: BTreeMap<u32, Keyslot>,
    pub segments: Vec<Segment>,
    pub digests: BTreeMap<u32, Digest>,
    pub tokens: BTreeMap<u32, Token>,
    pub flags: Vec<String>,
    pub requirements: Vec<String>,
    pub keyslots_size: u64,
    /// A KDF's leftover parameters were dropped in memory.
    pub repaired: bool,
}

/// Checks a JSON area that belongs to a header copy of `hdr_size` bytes.
///
/// Where a rule fails, KDF parameters that old versions left behind are dropped, and the rules are tried once more:
/// cryptsetup does the same (`LUKS2_hdr_repair`).
pub fn validate(value: &mut Value, hdr_size: u64) -> Result<Json> {
    match check(value, hdr_size) {
        Err(_) if drop_leftover_kdf_keys(value) => {
            let mut json = check(value, hdr_size)?;
            json.repaired = true;
            Ok(json)
        }
        other => other,
    }
}

fn check(value: &Value, hdr_size: u64) -> Result<Json> {
    let root = Object::root(value)?;
    let requirements = requirements(&root)?;
    let known = Known::new(&root)?;
    let tokens = tokens(&root, &known)?;
    let digests = digests(&root, &known)?;
    let segments = segments(&root, &digests)?;
    let slots = root.object("keyslots")?.numbered()?;
    for (_, slot) in &slots {
        slot.string("type")?;
        slot.integer32("key_size")?;
    }
    let (config, keyslots_size) = config(&root, &segments, hdr_size)?;
    let areas = areas(&slots, hdr_size, keyslots_size)?;
    let mut keyslots = BTreeMap::new();
    for ((id, slot), area) in slots.iter().zip(areas) {
        let keyslot = keyslot(slot, area)?;
        let proofs = digests.values().filter(|d| d.keyslots.contains(id)).count();
        if matches!(keyslot.kind, KeyslotKind::Luks2(_)) && proofs != 1 {
            let message = format!("{proofs} digests name this keyslot; exactly one must");
            return Err(Error::corrupt(format!("keyslots.{id}.digest"), message));
        }
        keyslots.insert(*id, keyslot);
    }
    check_reencryption(&keyslots, &requirements, &segments)?;
    Ok(Json {
        keyslots,
        segments,
        digests,
        tokens,
        flags: config.strings_if_any("flags")?,
        requirements,
        keyslots_size,
        repaired: false,
    })
}

/// Drops parameters that the keyslot's KDF does not have. Says whether there were any.
fn drop_leftover_kdf_keys(value: &mut Value) -> bool {
    let Some(slots) = value.get_mut("keyslots").and_then(Value::as_object_mut) else { return false };
    let mut dropped = false;
    for slot in slots.values_mut().filter(|s| s.get("type").and_then(Value::as_str) == Some("luks2")) {
        let Some(kdf) = slot.get_mut("kdf").and_then(Value::as_object_mut) else { continue };
        let Some(keys) = kdf.get("type").and_then(Value::as_str).and_then(kdf_keys) else { continue };
        let before = kdf.len();
        kdf.retain(|k, _| keys.contains(&k.as_str()));
        dropped |= kdf.len() != before;
    }
    dropped
}

/// The keys that a known KDF has, all of them and no others.
fn kdf_keys(kind: &str) -> Option<&'static [&'static str]> {
    match kind {
        "pbkdf2" => Some(&["type", "salt", "hash", "iterations"]),
        "argon2i" | "argon2id" => Some(&["type", "salt", "time", "memory", "cpus"]),
        _ => None,
    }
}

fn requirements(root: &Object<'_>) -> Result<Vec<String>> {
    let config = root.object("config")?;
    match config.has("requirements") {
        true => config.object("requirements")?.strings_if_any("mandatory"),
        false => Ok(Vec::new()),
    }
}

/// The ids of keyslots and segments, for references from sections that are checked before them.
struct Known<'a> {
    keyslots: Object<'a>,
    segments: Object<'a>,
}

impl<'a> Known<'a> {
    fn new(root: &Object<'a>) -> Result<Self> {
        Ok(Self { keyslots: root.object("keyslots")?, segments: root.object("segments")? })
    }

    fn references(&self, from: &Object<'_>, field: &str, to: &Object<'_>) -> Result<Vec<u32>> {
        let resolve = |name: &str| match to.map.get(name) {
            Some(Value::Object(_)) => number(name),
            _ => None,
        };
        let one = |name: &str| {
            resolve(name).ok_or_else(|| from.error(field, format!("names \"{}\", which does not exist", escape(name))))
        };
        from.strings(field)?.into_iter().map(one).collect()
    }
}

fn tokens(root: &Object<'_>, known: &Known<'_>) -> Result<BTreeMap<u32, Token>> {
    let mut tokens = BTreeMap::new();
    for (id, token) in root.object("tokens")?.digits()? {
        let kind = token.string("type")?.to_owned();
        let keyslots = known.references(&token, "keyslots", &known.keyslots)?;
        // A token by the name of `00` breaks no rule, but nothing ever finds it.
        if let Some(id) = id {
            tokens.insert(id, Token { kind, keyslots, json: Value::Object(token.map.clone()) });
        }
    }
    Ok(tokens)
}

fn digests(root: &Object<'_>, known: &Known<'_>) -> Result<BTreeMap<u32, Digest>> {
    let mut digests = BTreeMap::new();
    for (id, d) in root.object("digests")?.numbered()? {
        let kind = match d.string("type")? {
            "pbkdf2" => pbkdf2_digest(&d).unwrap_or_else(|e| DigestKind::Malformed { error: e.to_string() }),
            other => DigestKind::Unknown { kind: other.to_owned() },
        };
        let keyslots = known.references(&d, "keyslots", &known.keyslots)?;
        let segments = known.references(&d, "segments", &known.segments)?;
        digests.insert(id, Digest { kind, keyslots, segments });
    }
    Ok(digests)
}

fn pbkdf2_digest(d: &Object<'_>) -> Result<DigestKind> {
    Ok(DigestKind::Pbkdf2 {
        hash: d.string("hash")?.to_owned(),
        iterations: d.integer("iterations")?,
        salt: Bytes::from_base64(d.string("salt")?),
        digest: Bytes::from_base64(d.string("digest")?),
    })
}

fn segments(root: &Object<'_>, digests: &BTreeMap<u32, Digest>) -> Result<Vec<Segment>> {
    let all = root.object("segments")?;
    let members = all.numbered()?;
    if members.is_empty() {
        return Err(root.error("segments", "found none; at least one is wanted"));
    }
    let mut segments = Vec::with_capacity(members.len());
    for (expected, (id, s)) in (0u32..).zip(&members) {
        if *id != expected {
            return Err(root.error(
                "segments",
                format!("found segment {id} where {expected} is next; ids must be contiguous from 0"),
            ));
        }
        segments.push(segment(*id, s, digests)?);
    }
    let first_backup = segments.iter().position(Segment::is_backup).unwrap_or(segments.len());
    if first_backup == 0 {
        return Err(root.error("segments", "segment 0 is a backup; a regular segment is wanted"));
    }
    if let Some(late) = segments.iter().skip(first_backup).position(|s| !s.is_backup()) {
        let id = first_backup.saturating_add(late);
        return Err(
            root.error("segments", format!("segment {id} is regular, but lies behind backup segment {first_backup}"))
        );
    }
    check_overlap(root, &segments[..first_backup])?;
    Ok(segments)
}

/// The regular segments must not overlap, and only the last may be dynamic.
fn check_overlap(root: &Object<'_>, regular: &[Segment]) -> Result<()> {
    let end = |s: &Segment| s.size.map_or(u128::MAX, |size| u128::from(s.offset).saturating_add(u128::from(size)));
    if let Some(id) = regular.iter().rev().skip(1).rposition(|s| s.size.is_none()) {
        let message = "the size is \"dynamic\"; only the last regular segment may be";
        return Err(Error::corrupt(format!("segments.{id}.size"), message));
    }
    let mut order: Vec<_> = regular.iter().enumerate().collect();
    order.sort_by_key(|(_, s)| s.offset);
    for pair in order.windows(2) {
        let ((a, first), (b, second)) = (pair[0], pair[1]);
        if end(first) > u128::from(second.offset) {
            return Err(root.error("segments", format!("segments {a} and {b} overlap at byte {}", second.offset)));
        }
    }
    Ok(())
}

fn aligned(s: &Object<'_>, key: &str, n: u64) -> Result<u64> {
    match n % SECTOR {
        0 => Ok(n),
        _ => Err(s.error(key, format!("found {n}; a multiple of {SECTOR} is allowed"))),
    }
}

fn segment(id: u32, s: &Object<'_>, digests: &BTreeMap<u32, Digest>) -> Result<Segment> {
    let kind = s.string("type")?;
    let offset = aligned(s, "offset", s.decimal("offset")?)?;
    let size = match s.string("size")? {
        "dynamic" => None,
        _ => match s.decimal("size")? {
            0 => return Err(s.error("size", "found 0; \"dynamic\" or a multiple of 512 above 0 is allowed")),
            n => Some(aligned(s, "size", n)?),
        },
    };
    let flags = s.strings_if_any("flags")?;
    let kind = match kind {
        "crypt" => SegmentKind::Crypt(crypt_segment(id, s, size, digests)?),
        "linear" => SegmentKind::Linear,
        other => {
            if other.starts_with("hw-opal") {
                check_opal(s, size)?;
            }
            SegmentKind::Unknown { kind: other.to_owned() }
        }
    };
    Ok(Segment { kind, offset, size, flags })
}

fn crypt_segment(id: u32, s: &Object<'_>, size: Option<u64>, digests: &BTreeMap<u32, Digest>) -> Result<CryptSegment> {
    let iv_tweak = s.decimal("iv_tweak")?;
    let encryption = s.string("encryption")?.to_owned();
    let sector_size = s.integer32("sector_size")?;
    let integrity = match s.has("integrity") {
        true => {
            let i = s.object("integrity")?;
            Some(Integrity {
                kind: i.string("type")?.to_owned(),
                journal_encryption: i.string("journal_encryption")?.to_owned(),
                journal_integrity: i.string("journal_integrity")?.to_owned(),
                key_size: i.has("key_size").then(|| i.integer("key_size")).transpose()?,
            })
        }
        false => None,
    };
    if sector_size == 0 || !u64::from(sector_size).is_multiple_of(SECTOR) {
        return Err(s.error("sector_size", format!("found {sector_size}; a multiple of {SECTOR} above 0 is allowed")));
    }
    if let Some(size) = size.filter(|size| !size.is_multiple_of(u64::from(sector_size))) {
        return Err(s.error("size", format!("found {size}; a multiple of sector_size {sector_size} is allowed")));
    }
    if !digests.values().any(|d| d.segments.contains(&id)) {
        return Err(s.error("digest", "no digest names this crypt segment"));
    }
    Ok(CryptSegment { encryption, iv_tweak, sector_size, integrity })
}

fn check_opal(s: &Object<'_>, size: Option<u64>) -> Result<()> {
    let Some(size) = size else { return Err(s.error("size", "found \"dynamic\"; a hw-opal segment has a fixed size")) };
    s.integer32("opal_segment_number")?;
    s.integer32("opal_key_size")?;
    let opal = s.decimal("opal_segment_size")?;
    match opal >= size {
        true => Ok(()),
        false => {
            Err(s.error("opal_segment_size", format!("found {opal}; at least the segment's size {size} is wanted")))
        }
    }
}

fn config<'a>(root: &Object<'a>, segments: &[Segment], hdr_size: u64) -> Result<(Object<'a>, u64)> {
    let config = root.object("config")?;
    let json_size = config.decimal("json_size")?;
    let metadata_size = json_size.checked_add(HDR_BIN_LEN);
    let legal = |n: &u64| (LUKS2_HDR_SIZE_MIN..=LUKS2_HDR_SIZE_MAX).contains(n) && n.is_power_of_two();
    let Some(metadata_size) = metadata_size.filter(legal) else {
        let message =
            format!("found {json_size}; with the binary header's 4096 it must be a power of two from 16384 to 4194304");
        return Err(config.error("json_size", message));
    };
    let keyslots_size = config.decimal("keyslots_size")?;
    if keyslots_size % 4096 != 0 || keyslots_size > LUKS2_KEYSLOTS_SIZE_MAX {
        let message = format!("found {keyslots_size}; a multiple of 4096 up to {LUKS2_KEYSLOTS_SIZE_MAX} is allowed");
        return Err(config.error("keyslots_size", message));
    }
    // A detached header has its data at offset 0, in another file.
    let data = segments.iter().filter(|s| !s.is_backup()).map(|s| s.offset).min().unwrap_or(0);
    let end = metadata_size.saturating_mul(2).saturating_add(keyslots_size);
    if data != 0 && end > data {
        let message = format!(
            "found {keyslots_size}: the keyslots area would end at byte {end}, behind the data's start at {data}"
        );
        return Err(config.error("keyslots_size", message));
    }
    config.strings_if_any("flags")?;
    if metadata_size != hdr_size {
        let message = format!("found {json_size}; the binary header says {}", hdr_size.saturating_sub(HDR_BIN_LEN));
        return Err(config.error("json_size", message));
    }
    Ok((config, keyslots_size))
}

/// The keyslots' areas, in the order of `slots`: within the keyslots area and not overlapping.
fn areas(slots: &[(u32, Object<'_>)], hdr_size: u64, keyslots_size: u64) -> Result<Vec<Area>> {
    let start = hdr_size.saturating_mul(2);
    let end = start.saturating_add(keyslots_size);
    let mut areas = Vec::with_capacity(slots.len());
    for (_, slot) in slots {
        let a = slot.object("area")?;
        a.string("type")?;
        let area = Area { offset: a.decimal("offset")?, size: a.decimal("size")? };
        if area.offset < start {
            return Err(a.error("offset", format!("found {}; the keyslots area starts at byte {start}", area.offset)));
        }
        if area.size == 0 {
            return Err(a.error("size", "found 0; more is wanted"));
        }
        if area.offset.checked_add(area.size).is_none_or(|e| e > end) {
            let message =
                format!("found {} from byte {}; the keyslots area ends at byte {end}", area.size, area.offset);
            return Err(a.error("size", message));
        }
        areas.push(area);
    }
    let mut order: Vec<_> = slots.iter().map(|(id, _)| *id).zip(&areas).collect();
    order.sort_by_key(|(_, a)| a.offset);
    for pair in order.windows(2) {
        let ((a, first), (b, second)) = (pair[0], pair[1]);
        if first.offset.saturating_add(first.size) > second.offset {
            let message = format!("the areas of keyslots {a} and {b} overlap at byte {}", second.offset);
            return Err(Error::corrupt(format!("keyslots.{b}.area.offset"), message));
        }
    }
    Ok(areas)
}

fn keyslot(slot: &Object<'_>, area: Area) -> Result<Keyslot> {
    let kind = match slot.string("type")? {
        "luks2" => KeyslotKind::Luks2(luks2_keyslot(slot)?),
        "reencrypt" => KeyslotKind::Reencrypt(reencrypt_keyslot(slot)?),
        other => KeyslotKind::Unknown { kind: other.to_owned() },
    };
    // cryptsetup takes a priority of any type: a string for its number, anything else for none that it knows.
    let priority = match slot.map.get("priority") {
        None => Priority::Normal,
        Some(Value::String(s)) => Priority::from_number(s.parse().unwrap_or(-1)),
        Some(p) => Priority::from_number(p.as_i64().unwrap_or(-1)),
    };
    Ok(Keyslot { kind, key_size: slot.integer32("key_size")?, priority, area })
}

fn luks2_keyslot(slot: &Object<'_>) -> Result<Luks2Keyslot> {
    let (kdf, af, area) = (slot.object("kdf")?, slot.object("af")?, slot.object("area")?);
    let kind = kdf.string("type")?;
    if let Some(keys) = kdf_keys(kind).filter(|keys| kdf.map.len() != keys.len()) {
        let extra = kdf.map.keys().find(|k| !keys.contains(&k.as_str()));
        let found = extra.map_or("too few keys".into(), |k| format!("the key \"{}\"", escape(k)));
        return Err(slot.error("kdf", format!("found {found}; {kind} has {}", keys.join(", "))));
    }
    let kdf = match kind {
        "pbkdf2" => Kdf::Pbkdf2 {
            hash: kdf.string("hash")?.to_owned(),
            iterations: kdf.integer("iterations")?,
            salt: Bytes::from_base64(kdf.string("salt")?),
        },
        "argon2i" | "argon2id" => Kdf::Argon2 {
            variant: kind.to_owned(),
            time: kdf.integer("time")?,
            memory: kdf.integer("memory")?,
            cpus: kdf.integer("cpus")?,
            salt: Bytes::from_base64(kdf.string("salt")?),
        },
        other => Kdf::Unknown { kind: other.to_owned() },
    };
    match af.string("type")? {
        "luks1" => {}
        other => return Err(af.error("type", format!("found \"{}\"; luks1 is allowed", escape(other)))),
    }
    match area.string("type")? {
        "raw" => {}
        other => return Err(area.error("type", format!("found \"{}\"; raw is allowed", escape(other)))),
    }
    Ok(Luks2Keyslot {
        kdf,
        af_hash: af.string("hash")?.to_owned(),
        af_stripes: af.integer("stripes")?,
        encryption: area.string("encryption")?.to_owned(),
        area_key_size: area.integer32("key_size")?,
    })
}

fn reencrypt_keyslot(slot: &Object<'_>) -> Result<ReencryptKeyslot> {
    match slot.integer32("key_size")? {
        1 => {}
        n => return Err(slot.error("key_size", format!("found {n}; a reencrypt keyslot has 1"))),
    }
    let one_of = |key: &str, allowed: &[&str]| match slot.string(key)? {
        found if allowed.contains(&found) => Ok(found.to_owned()),
        found => Err(slot.error(key, format!("found \"{}\"; {} is allowed", escape(found), allowed.join(", ")))),
    };
    let mode = one_of("mode", &["reencrypt", "encrypt", "decrypt"])?;
    let direction = one_of("direction", &["forward", "backward"])?;
    let area = slot.object("area")?;
    let resilience = area.string("type")?.to_owned();
    let (mut hash, mut sector_size, mut shift_size) = (None, None, None);
    if matches!(resilience.as_str(), "checksum" | "datashift-checksum") {
        hash = Some(area.string("hash")?.to_owned());
        let n = area.integer32("sector_size")?;
        if n < 512 || !n.is_power_of_two() {
            return Err(area.error("sector_size", format!("found {n}; a power of two from 512 on is allowed")));
        }
        sector_size = Some(n);
    }
    if matches!(resilience.as_str(), "datashift" | "datashift-checksum" | "datashift-journal") {
        match aligned(&area, "shift_size", area.decimal("shift_size")?)? {
            0 => return Err(area.error("shift_size", "found 0; more is wanted")),
            n => shift_size = Some(n),
        }
    }
    Ok(ReencryptKeyslot { mode, direction, resilience, hash, sector_size, shift_size })
}

/// A reencryption has exactly one keyslot for its state, and a requirement that keeps old versions away.
fn check_reencryption(keyslots: &BTreeMap<u32, Keyslot>, requirements: &[String], segments: &[Segment]) -> Result<()> {
    let slots = keyslots.values().filter(|k| matches!(k.kind, KeyslotKind::Reencrypt(_))).count();
    let online = requirements.iter().filter(|r| is_online_reencrypt(r)).count();
    let wrong = |message: String| Err(Error::corrupt("config.requirements", message));
    match (slots, online) {
        (0, 0) => Ok(()),
        (1, 1) => match ["backup-previous", "backup-final"].iter().find(|f| !segments.iter().any(|s| s.has_flag(f))) {
            Some(flag) => {
                let message = format!("a reencryption is under way, but no segment has the flag {flag}");
                Err(Error::corrupt("segments", message))
            }
            None => Ok(()),
        },
        (0, _) => wrong("names online-reencrypt, but there is no reencrypt keyslot".into()),
        (1, 0) => wrong("there is a reencrypt keyslot, but no online-reencrypt requirement".into()),
        (1, n) => wrong(format!("names {n} online-reencrypt requirements; one is allowed")),
        (n, _) => wrong(format!("there are {n} reencrypt keyslots; one is allowed")),
    }
}

/// `online-reencrypt`, or `online-reencrypt-v2` and later.
pub(super) fn is_online_reencrypt(requirement: &str) -> bool {
    requirement.strip_prefix("online-reencrypt").is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix("-v").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}
