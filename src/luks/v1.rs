//! The LUKS1 header: 592 bytes, all numbers big-endian.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 6 | `magic` | `LUKS\xba\xbe` |
//! | 6 | 2 | `version` | 1 |
//! | 8 | 32 | `cipher-name` | such as `aes` |
//! | 40 | 32 | `cipher-mode` | such as `xts-plain64` |
//! | 72 | 32 | `hash-spec` | for PBKDF2 and the anti-forensic splitter |
//! | 104 | 4 | `payload-offset` | start of the data in 512-byte sectors; 0 with a detached header |
//! | 108 | 4 | `key-bytes` | bytes of the volume key |
//! | 112 | 20 | `mk-digest` | PBKDF2 of the volume key, 20 bytes whatever the hash |
//! | 132 | 32 | `mk-digest-salt` | |
//! | 164 | 4 | `mk-digest-iter` | |
//! | 168 | 40 | `uuid` | |
//! | 208 | 8 × 48 | keyslots | |
//!
//! A keyslot: `active` u32 at 0, `iterations` u32 at 4, `salt` 32 bytes at 8, `key-material-offset` u32 at 40 (in
//! 512-byte sectors), `stripes` u32 at 44.
//!
//! Source: the LUKS1 on-disk format paper 1.2.3, §2.1, and `luks1/keymanage.c`.

use std::collections::BTreeMap;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MAGIC;
use super::metadata::*;
use crate::crypto::hash::Hash;
use crate::error::{Condition, Error, Result};
use crate::io::ReadAt;
use crate::limits::{KEY_SIZE_MAX, STRIPES};

const SECTOR: u64 = 512;
const SLOT_ENABLED: u32 = 0x00AC_71F3;
const SLOT_DISABLED: u32 = 0x0000_DEAD;
/// The header takes two sectors; no key material may lie in them.
const FIRST_KEY_MATERIAL: u64 = 1024;
/// The digest is this long, whatever the hash (`LUKS_DIGESTSIZE`).
const DIGEST_LEN: usize = 20;

/// The header as it is on disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Header {
    pub magic: [u8; 6],
    pub version: U16,
    pub cipher_name: [u8; 32],
    pub cipher_mode: [u8; 32],
    pub hash_spec: [u8; 32],
    pub payload_offset: U32,
    pub key_bytes: U32,
    pub mk_digest: [u8; 20],
    pub mk_digest_salt: [u8; 32],
    pub mk_digest_iter: U32,
    pub uuid: [u8; 40],
    pub keyslots: [Slot; 8],
}

/// A keyslot as it is on disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Slot {
    pub active: U32,
    pub iterations: U32,
    pub salt: [u8; 32],
    pub key_material_offset: U32,
    pub stripes: U32,
}

/// Bytes of the header.
pub const HEADER_LEN: usize = 592;
const _: () = assert!(size_of::<Header>() == HEADER_LEN);
const _: () = assert!(size_of::<Slot>() == 48);

/// The text of a field that ends with a NUL, or with the field's last byte, which counts as one.
fn text(field: &[u8], rule: &'static str) -> Result<String> {
    let field = field.split_last().map_or(field, |(_, text)| text);
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    match std::str::from_utf8(&field[..end]) {
        Ok(s) if s.is_ascii() => Ok(s.to_owned()),
        _ => Err(Error::corrupt(rule, "the text is not ASCII")),
    }
}

impl Header {
    /// The bytes that a keyslot's key material takes: `key-bytes` times the stripes, in whole sectors.
    #[expect(clippy::arithmetic_side_effects, reason = "sums and products of numbers of 32 bits, in 64")]
    fn area_size(&self) -> u64 {
        (u64::from(self.key_bytes.get()) * u64::from(STRIPES)).next_multiple_of(SECTOR)
    }

    fn area(&self, slot: &Slot) -> Area {
        Area { offset: u64::from(slot.key_material_offset.get()) * SECTOR, size: self.area_size() }
    }

    fn payload(&self) -> u64 {
        u64::from(self.payload_offset.get()) * SECTOR
    }

    /// The rules for keyslot `id`, also a disabled one, by itself.
    #[expect(clippy::arithmetic_side_effects, reason = "sums and products of numbers of 32 bits, in 64")]
    pub(super) fn check_slot(&self, id: usize, slot: &Slot) -> Result<()> {
        let wrong = |field: &str, message: String| Err(Error::corrupt(format!("keyslots.{id}.{field}"), message));
        if slot.stripes.get() != STRIPES {
            return wrong("stripes", format!("found {}; {STRIPES} is allowed", slot.stripes));
        }
        let area = self.area(slot);
        if area.offset < FIRST_KEY_MATERIAL {
            return wrong(
                "key-material-offset",
                format!("found byte {}; the header takes the first {FIRST_KEY_MATERIAL}", area.offset),
            );
        }
        // A detached header has no data behind it.
        let (end, payload) = (area.offset + area.size, self.payload());
        if payload != 0 && end > payload {
            return wrong(
                "key-material-offset",
                format!("the area ends at byte {end}, behind the data's start at {payload}"),
            );
        }
        Ok(())
    }

    /// Why each keyslot that breaks a rule is damaged. Where two overlap, it is the one that is not in use, or else the
    /// second.
    fn damaged_slots(&self) -> Damaged {
        let mut damaged = Damaged::default();
        for ((id, slot), damage) in self.keyslots.iter().enumerate().zip(&mut damaged) {
            *damage = self.check_slot(id, slot).err();
        }
        let mut order: Vec<_> = self.keyslots.iter().enumerate().map(|(id, s)| (self.area(s), id, s)).collect();
        order.sort_by_key(|(a, id, s)| (!s.is_enabled(), a.offset, *id));
        let mut taken: Vec<(Area, usize)> = Vec::new();
        for (area, id, _) in order {
            let end = |a: Area| a.offset.saturating_add(a.size);
            let Some(damage) = damaged.get_mut(id).filter(|damage| damage.is_none()) else { continue };
            match taken.iter().find(|(other, _)| other.offset < end(area) && area.offset < end(*other)) {
                None => taken.push((area, id)),
                Some((_, other)) => {
                    let rule = format!("keyslots.{id}.key-material-offset");
                    *damage = Some(Error::corrupt(rule, format!("its area overlaps that of keyslot {other}")));
                }
            }
        }
        damaged
    }

    /// The rules for all eight keyslots, also disabled ones (`LUKS_check_keyslots`).
    #[expect(clippy::arithmetic_side_effects, reason = "sums and products of numbers of 32 bits, in 64")]
    fn check_keyslots(&self) -> Result<()> {
        for (id, slot) in self.keyslots.iter().enumerate() {
            self.check_slot(id, slot)?;
        }
        let mut order: Vec<_> = self.keyslots.iter().enumerate().map(|(id, s)| (self.area(s), id)).collect();
        order.sort_by_key(|(a, _)| a.offset);
        for pair in order.windows(2) {
            let ((first, a), (second, b)) = (pair[0], pair[1]);
            if first.offset + first.size > second.offset {
                let message = format!("the areas of keyslots {a} and {b} overlap at byte {}", second.offset);
                return Err(Error::corrupt(format!("keyslots.{b}.key-material-offset"), message));
            }
        }
        Ok(())
    }

    #[expect(clippy::arithmetic_side_effects, reason = "sums and products of numbers of 32 bits, in 64")]
    fn end_of_keyslots(&self, damaged: &Damaged) -> u64 {
        let whole = self.keyslots.iter().zip(damaged).filter(|(_, damage)| damage.is_none());
        whole.map(|(s, _)| self.area(s).offset + self.area_size()).max().unwrap_or(0)
    }
}

impl Slot {
    /// Whether it holds a key.
    pub(super) fn is_enabled(&self) -> bool {
        self.active.get() == SLOT_ENABLED
    }
}

/// Why a keyslot is damaged, for each that is.
type Damaged = [Option<Error>; 8];

/// How the kind of a damaged keyslot begins.
pub(super) const DAMAGED: &str = "damaged";

/// Reads and checks the header at the start of `source`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the field that breaks a rule.
pub fn read(source: &(impl ReadAt + ?Sized)) -> Result<Metadata> {
    let mut bytes = [0u8; HEADER_LEN];
    if source.len() < 592 {
        let message = format!("the source has {} bytes; a LUKS1 header takes {HEADER_LEN}", source.len());
        return Err(Error::corrupt("length", message));
    }
    source.read_exact_at(&mut bytes, 0)?;
    parse(&bytes, source.len())
}

/// Checks the header in a source of `source_len` bytes.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8; HEADER_LEN], source_len: u64) -> Result<Metadata> {
    parse_checked(bytes, source_len, |header| header.check_keyslots().map(|()| Damaged::default()))
}

/// The same, where keyslots are good or damaged one by one: a damaged one is [`KeyslotKind::Unknown`].
pub(super) fn parse_slots(bytes: &[u8; HEADER_LEN], source_len: u64) -> Result<Metadata> {
    parse_checked(bytes, source_len, |header| Ok(header.damaged_slots()))
}

fn parse_checked(
    bytes: &[u8; HEADER_LEN],
    source_len: u64,
    check: impl FnOnce(&Header) -> Result<Damaged>,
) -> Result<Metadata> {
    let header = Header::ref_from_bytes(bytes.as_slice()).map_err(|_| Error::corrupt("header", "is too short"))?;
    if header.magic != MAGIC {
        return Err(Error::corrupt("magic", "no LUKS magic").at(0).with_condition(Condition::NoHeader));
    }
    if header.version.get() != 1 {
        return Err(Error::corrupt("version", format!("found {}; 1 is wanted", header.version)).at(6));
    }
    let hash_spec = text(&header.hash_spec, "hash-spec")?;
    match Hash::from_name(&hash_spec) {
        Ok(hash) if hash.output_len() < DIGEST_LEN => {
            let message = format!(
                "found {}, which gives {} bytes; at least {DIGEST_LEN} are wanted",
                hash.name(),
                hash.output_len()
            );
            return Err(Error::corrupt("hash-spec", message).at(72));
        }
        Ok(_) => {}
        Err(e) => return Err(e.with_rule("hash-spec").at(72)),
    }
    if header.key_bytes.get() == 0 || header.key_bytes.get() > KEY_SIZE_MAX {
        let message = format!("found {}; 1 to {KEY_SIZE_MAX} are allowed", header.key_bytes);
        return Err(Error::corrupt("key-bytes", message).at(108));
    }
    let damaged = check(header)?;
    let end = header.end_of_keyslots(&damaged);
    if source_len < end {
        return Err(super::cut_off(source_len, end));
    }
    let encryption =
        format!("{}-{}", text(&header.cipher_name, "cipher-name")?, text(&header.cipher_mode, "cipher-mode")?);
    let uuid = String::from_utf8_lossy(&header.uuid[..39]);
    let uuid = uuid.split('\0').next().unwrap_or_default().to_owned();
    Ok(metadata(header, &damaged, &hash_spec, encryption, uuid))
}

fn metadata(header: &Header, damaged: &Damaged, hash: &str, encryption: String, uuid: String) -> Metadata {
    let slots = || (0u32..).zip(header.keyslots.iter().zip(damaged));
    // A slot that is neither enabled nor disabled is damaged; it is shown, never tried, and spoils no other slot.
    let shown = |s: &Slot, damage: &Option<Error>| damage.is_some() || s.active.get() != SLOT_DISABLED;
    let keyslots: BTreeMap<u32, Keyslot> = slots()
        .filter(|(_, (slot, damage))| shown(slot, damage))
        .map(|(id, (slot, damage))| (id, keyslot(header, (slot, damage.as_ref()), hash, &encryption)))
        .collect();
    let disabled_keyslots = slots().filter(|(_, (slot, damage))| !shown(slot, damage)).map(|(id, (slot, _))| {
        let salt = slot.salt.to_vec();
        let (area, key_size) = (header.area(slot), header.key_bytes.get());
        (id, DisabledKeyslot { area, key_size, iterations: slot.iterations.get(), salt })
    });
    let disabled_keyslots = disabled_keyslots.collect();
    let digest = Digest {
        kind: DigestKind::Pbkdf2 {
            hash: hash.to_owned(),
            iterations: header.mk_digest_iter.get().into(),
            salt: Bytes::Decoded(header.mk_digest_salt.to_vec()),
            digest: Bytes::Decoded(header.mk_digest.to_vec()),
        },
        keyslots: keyslots.keys().copied().collect(),
        segments: vec![0],
    };
    let crypt = CryptSegment { encryption, iv_tweak: 0, sector_size: 512, integrity: None };
    let segment = Segment { kind: SegmentKind::Crypt(crypt), offset: header.payload(), size: None, flags: Vec::new() };
    let end = header.end_of_keyslots(damaged);
    Metadata {
        version: Version::V1,
        uuid: uuid.clone(),
        label: String::new(),
        subsystem: String::new(),
        seqid: 0,
        copies: vec![HeaderCopy {
            role: Role::Primary,
            offset: 0,
            seqid: None,
            hdr_size: None,
            uuid,
            label: String::new(),
            subsystem: String::new(),
            csum_alg: String::new(),
            salt: Vec::new(),
            error: None,
            used: true,
            repaired: false,
        }],
        metadata_size: 592,
        header_size: end,
        keyslots_size: end.saturating_sub(FIRST_KEY_MATERIAL),
        differences: Vec::new(),
        keyslots,
        disabled_keyslots,
        segments: vec![segment],
        digests: BTreeMap::from([(0, digest)]),
        tokens: BTreeMap::new(),
        flags: Vec::new(),
        requirements: Vec::new(),
        json: None,
        offline: None,
        recovery: None,
    }
}

fn keyslot(header: &Header, (slot, damage): (&Slot, Option<&Error>), hash: &str, encryption: &str) -> Keyslot {
    if let Some(e) = damage {
        let kind = KeyslotKind::Unknown { kind: format!("{DAMAGED}: {e}") };
        let area = Area { offset: 0, size: 0 };
        return Keyslot { kind, key_size: header.key_bytes.get(), priority: Priority::Ignore, area };
    }
    if slot.active.get() != SLOT_ENABLED {
        let kind = KeyslotKind::Unknown { kind: format!("invalid state 0x{:08x}", slot.active) };
        return Keyslot { kind, key_size: header.key_bytes.get(), priority: Priority::Ignore, area: header.area(slot) };
    }
    let kdf = Kdf::Pbkdf2 {
        hash: hash.to_owned(),
        iterations: slot.iterations.get().into(),
        salt: Bytes::Decoded(slot.salt.to_vec()),
    };
    let kind = KeyslotKind::Luks2(Luks2Keyslot {
        kdf,
        af_hash: hash.to_owned(),
        af_stripes: STRIPES.into(),
        encryption: encryption.to_owned(),
        area_key_size: header.key_bytes.get(),
    });
    Keyslot { kind, key_size: header.key_bytes.get(), priority: Priority::Normal, area: header.area(slot) }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    /// A header as cryptsetup would write it: aes-xts-plain64, 64-byte key, data at 2 MiB.
    fn good() -> Header {
        let mut h = Header::new_zeroed();
        h.magic = MAGIC;
        h.version = 1.into();
        h.cipher_name[..3].copy_from_slice(b"aes");
        h.cipher_mode[..11].copy_from_slice(b"xts-plain64");
        h.hash_spec[..6].copy_from_slice(b"sha256");
        h.payload_offset = 4096.into();
        h.key_bytes = 64.into();
        for (i, s) in (0u32..).zip(&mut h.keyslots) {
            s.active = SLOT_DISABLED.into();
            s.key_material_offset = (8 + i * 504).into();
            s.stripes = STRIPES.into();
        }
        h.keyslots[0].active = SLOT_ENABLED.into();
        h
    }

    fn parse_changed(change: impl FnOnce(&mut Header)) -> Result<Metadata> {
        let mut h = good();
        change(&mut h);
        let bytes: [u8; HEADER_LEN] = h.as_bytes().try_into().unwrap();
        parse(&bytes, 4 << 20)
    }

    #[test]
    fn a_good_header_becomes_metadata() {
        let m = parse_changed(|_| {}).unwrap();
        assert_eq!(m.keyslots.keys().collect::<Vec<_>>(), [&0]);
        assert_eq!(m.disabled_keyslots.keys().collect::<Vec<_>>(), [&1, &2, &3, &4, &5, &6, &7]);
        assert_eq!(m.disabled_keyslots[&1].area, Area { offset: 512 * 512, size: 256_000 });
        assert_eq!(m.data_offset(), 2 << 20);
        assert_eq!(m.header_size, (8 + 7 * 504) * 512 + 256_000);
    }

    #[test]
    fn each_rule_has_its_code() {
        let rule = |change: fn(&mut Header)| parse_changed(change).unwrap_err().rule().to_owned();
        assert_eq!(rule(|h| h.magic[0] = 0), "magic");
        assert_eq!(rule(|h| h.version = 3.into()), "version");
        assert_eq!(rule(|h| h.hash_spec[..6].copy_from_slice(b"crc32\0")), "hash-spec");
        assert_eq!(rule(|h| h.hash_spec[..12].copy_from_slice(b"blake2s-128\0")), "hash-spec");
        assert_eq!(rule(|h| h.key_bytes = 0.into()), "key-bytes");
        assert_eq!(rule(|h| h.key_bytes = u32::MAX.into()), "key-bytes");
        assert_eq!(rule(|h| h.keyslots[5].stripes = 3999.into()), "keyslots.5.stripes");
        assert_eq!(rule(|h| h.keyslots[1].key_material_offset = 1.into()), "keyslots.1.key-material-offset");
        assert_eq!(rule(|h| h.keyslots[1].key_material_offset = u32::MAX.into()), "keyslots.1.key-material-offset");
        assert_eq!(rule(|h| h.keyslots[3].key_material_offset = 100.into()), "keyslots.3.key-material-offset");
    }

    #[test]
    fn a_slot_in_no_known_state_is_shown_and_spoils_no_other() {
        let m = parse_changed(|h| h.keyslots[7].active = 1.into()).unwrap();
        assert!(matches!(&m.keyslots[&7].kind, KeyslotKind::Unknown { kind } if kind.contains("0x00000001")));
        assert!(matches!(m.keyslots[&0].kind, KeyslotKind::Luks2(_)));
    }

    #[test]
    fn a_detached_header_has_no_data_behind_it() {
        assert_eq!(parse_changed(|h| h.payload_offset = 0.into()).unwrap().data_offset(), 0);
        assert_eq!(parse_changed(|h| h.payload_offset = 100.into()).unwrap_err().kind(), crate::ErrorKind::Corrupt);
    }
}
