//! Headers that are damaged, recognised by what they are and not by their first six bytes, and mended in memory.
//!
//! | what is damaged | what proves the header |
//! |---|---|
//! | the magic of a LUKS2 copy | its own checksum, once the magic is put in |
//! | one copy's binary header and the other's JSON area | the checksum of the first over the second |
//! | LUKS2's binary headers | the JSON area keeps all rules and says its own size; both JSON areas are alike, if both are there |
//! | the magic of LUKS1, and up to the first names | the fields behind it: hash, UUID, lengths, eight keyslots with their stripes |
//! | some of LUKS1's keyslots | each keeps the rules by itself |
//! | objects of LUKS2's JSON area, or both checksums; only where that is allowed ([`Rules::Recover`]) | the others keep all rules |
//!
//! What the accident left is never trusted beyond that, and a key is proved by its digest as ever. Nothing is written: the
//! damaged bytes are laid over in memory (`Overlay`).
//!
//! It is our own: no crate recovers headers, and `cryptsetup repair` writes to the image.

mod body;
mod salvage;
mod there;

use zerocopy::{FromZeros, IntoBytes};

use super::metadata::{KeyslotKind, Metadata, Role, SegmentKind, Version};
use super::recovery::{Patch, Recovery};
use super::v2::{BinaryHeader, HDR_BIN_LEN};
use super::{MAGIC, MAGIC_OFFLINE, MAGIC_SECONDARY, area, json, offline, v1, v2, validate};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::io::ReadAt;
use crate::limits::{LUKS2_HDR_SIZE_MAX, LUKS2_HDR_SIZE_MIN};
use crate::num::{to_u64, to_usize};

/// What a disk reads, or does not, at a time.
const SECTOR: usize = 512;

/// The magics of the layers of Ceph's clones: whole, and no damage.
const CLONES: [[u8; 6]; 2] = [*b"RBDL\xba\xbe", *b"LDBR\xba\xbe"];

/// A source with some bytes replaced.
struct Overlay<'a, S: ?Sized> {
    source: &'a S,
    patches: &'a [Patch],
}

impl<S: ReadAt + ?Sized> ReadAt for Overlay<'_, S> {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.source.read_exact_at(buf, offset)?;
        self.patches.iter().for_each(|patch| patch.lay_over(buf, offset));
        Ok(())
    }
}

/// Which headers are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// Those that cryptsetup opens, and damaged ones that prove themselves.
    #[default]
    Strict,
    /// Also LUKS2 headers of which parts break the rules: these are left out.
    Recover,
}

/// Reads the header at the start of `source` as [`super::open`] does, and one that is damaged where nothing else can be
/// meant: see the table above. [`Metadata::recovery`] says what was missing.
///
/// # Errors
/// As [`super::open`], which is what is said of a header that cannot be recovered.
pub fn open(source: &(impl ReadAt + ?Sized)) -> Result<Metadata> {
    open_as(source, 0)
}

/// The same by other rules.
///
/// # Errors
/// As [`open`].
pub fn open_by(source: &(impl ReadAt + ?Sized), rules: Rules) -> Result<Metadata> {
    match open(source) {
        Err(e) if rules == Rules::Recover && e.kind() == ErrorKind::Corrupt && !offline::is_log(source) => {
            let Some((mut metadata, mut recovery)) = salvage::open(source) else { return Err(e) };
            recovery.error = Some(e);
            recovery.lies_there = there::name(source);
            metadata.recovery = Some(Box::new(recovery));
            Ok(metadata)
        }
        other => other,
    }
}

/// The same, with the cipher number `nth` of those that there may be: [`Recovery::ciphers`].
pub(crate) fn open_as(source: &(impl ReadAt + ?Sized), nth: usize) -> Result<Metadata> {
    let error = match super::open(source) {
        // The names are damaged, and the rest of a LUKS1 header tells of itself.
        Ok(metadata) if metadata.version == Version::V1 && lost_names(&metadata) => {
            let Some((mut recovered, mut recovery)) = v1(source, nth) else { return Ok(metadata) };
            recovery.error = Some(Error::corrupt("cipher-name", "the name of the cipher, or its mode, is no name"));
            recovered.recovery = Some(Box::new(recovery));
            return Ok(recovered);
        }
        Ok(mut metadata) => {
            metadata.recovery = accident(source, &metadata).map(Box::new);
            return Ok(metadata);
        }
        // What is cut off is nowhere. What cannot be read may be what the rest does without.
        Err(e) if !matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Io) || e.rule() == "length" => return Err(e),
        Err(e) => e,
    };
    let mut start = [0u8; 8];
    let known = source.read_exact_at(&mut start, 0).is_ok();
    if known && (start.starts_with(&MAGIC_OFFLINE) || CLONES.iter().any(|clone| start.starts_with(clone))) {
        return Err(error);
    }
    // What an offline reencryption left has two headers, and no place of a third.
    if offline::is_log(source) {
        return Err(error);
    }
    // LUKS2 has a second copy for what cannot be read, which was looked at.
    let v2 = || if error.kind() == ErrorKind::Corrupt { v2(source) } else { None };
    let Some((mut metadata, mut recovery)) = v1(source, nth).or_else(v2) else {
        return Err(if error.kind() == ErrorKind::Corrupt && salvage::open(source).is_some() {
            error.with_hint(Hint::Recover)
        } else {
            error
        });
    };
    recovery.error = Some(error);
    recovery.lies_there = there::name(source);
    recovery.overwritten = there::overwritten(source);
    metadata.recovery = Some(Box::new(recovery));
    Ok(metadata)
}

/// Whether a header begins at the start of `source` that [`super::open`] does not take.
#[cfg(feature = "unlock")]
pub(crate) fn is_damaged_header(source: &(impl ReadAt + ?Sized)) -> bool {
    open(source).is_ok_and(|m| m.recovery.is_some_and(|r| r.error.is_some()))
}

/// What was written over the primary header of a container that its secondary one opens.
fn accident(source: &(impl ReadAt + ?Sized), metadata: &Metadata) -> Option<Recovery> {
    metadata.copies.first().filter(|copy| copy.error.is_some())?;
    let lies_there = there::name(source);
    lies_there?;
    let missing = "the primary header is gone, and the secondary one is used".to_owned();
    let overwritten = there::overwritten(source);
    Some(Recovery { error: None, missing, lies_there, overwritten, ciphers: 1, patches: Vec::new() })
}

fn recovery(missing: String, ciphers: usize, patches: Vec<Patch>) -> Recovery {
    Recovery { error: None, missing, lies_there: None, overwritten: Vec::new(), ciphers, patches }
}

fn v1(source: &(impl ReadAt + ?Sized), nth: usize) -> Option<(Metadata, Recovery)> {
    let mut bytes = [0u8; v1::HEADER_LEN];
    let mut missing = Vec::new();
    if source.read_exact_at(&mut bytes, 0).is_err() {
        // A sector may be bad: the first has all but the last two keyslots.
        let (first, behind) = bytes.split_at_mut_checked(SECTOR)?;
        source.read_exact_at(first, 0).ok()?;
        behind.fill(0);
        missing.push(format!("bytes {SECTOR} to {} of the header cannot be read", v1::HEADER_LEN.saturating_sub(1)));
    }
    let (mut ciphers, mut patches) = (1, Vec::new());
    let has_magic = bytes.starts_with(&MAGIC) && bytes[6..8] == [0, 1];
    let lost = match v1::parse_slots(&bytes, source.len()) {
        Ok(metadata) => lost_names(&metadata),
        Err(e) => matches!(e.rule(), "cipher-name" | "cipher-mode"),
    };
    if !has_magic || lost {
        let found = body::recognise(&bytes)?;
        ciphers = found.len();
        let start = found.into_iter().nth(nth)?;
        let what = match (ciphers, has_magic) {
            (1, _) => "the magic of the LUKS1 header is gone; what is behind it tells that it is one",
            (_, false) => {
                "the magic of the LUKS1 header and the name of its cipher are gone; the key's digest tells which it was"
            }
            (_, true) => "the name of the LUKS1 header's cipher is gone; the key's digest tells which it was",
        };
        missing.push(what.to_owned());
        bytes[..start.len()].copy_from_slice(&start);
        patches.push(Patch { at: 0, bytes: start.to_vec() });
    }
    let metadata = v1::parse_slots(&bytes, source.len()).ok()?;
    let good = metadata.keyslots.values().filter(|k| matches!(k.kind, KeyslotKind::Luks2(_))).count();
    let is_damaged = |k: &KeyslotKind| matches!(k, KeyslotKind::Unknown { kind } if kind.starts_with(v1::DAMAGED));
    let damaged: Vec<String> =
        metadata.keyslots.iter().filter(|(_, k)| is_damaged(&k.kind)).map(|(id, _)| id.to_string()).collect();
    match damaged.as_slice() {
        [] => {}
        [one] => missing.push(format!("keyslot {one} is damaged, and not used")),
        several => missing.push(format!("keyslots {} are damaged, and not used", several.join(", "))),
    }
    (good > 0 && !missing.is_empty()).then(|| (metadata, recovery(missing.join("; "), ciphers, patches)))
}

/// Whether the cipher of a LUKS1 header has no name at all, or bytes that no name has.
fn lost_names(metadata: &Metadata) -> bool {
    let Some(SegmentKind::Crypt(crypt)) = metadata.segments.first().map(|segment| &segment.kind) else { return false };
    let is_of_a_name = |b: u8| b.is_ascii_alphanumeric() || b"-_:(),.".contains(&b);
    let is_lost = |name: &str| name.is_empty() || !name.bytes().all(is_of_a_name);
    crypt.encryption.split_once('-').is_none_or(|(cipher, mode)| is_lost(cipher) || is_lost(mode))
}

/// The places of LUKS2's copies.
fn places() -> impl Iterator<Item = (Role, u64)> {
    let sizes = std::iter::successors(Some(LUKS2_HDR_SIZE_MIN), |size| size.checked_mul(2));
    let secondaries = sizes.take_while(|size| *size <= LUKS2_HDR_SIZE_MAX).map(|size| (Role::Secondary, size));
    std::iter::once((Role::Primary, 0)).chain(secondaries)
}

fn v2(source: &(impl ReadAt + ?Sized)) -> Option<(Metadata, Recovery)> {
    places()
        .find_map(|(role, place)| proved(source, role, place))
        .or_else(|| places().find_map(|(role, place)| rebuilt(source, role, place)))
}

/// A copy's binary header with its magic put in, and whether that was right before.
fn binary(source: &(impl ReadAt + ?Sized), role: Role, place: u64) -> Option<(Option<BinaryHeader>, bool)> {
    let mut bytes = Box::new([0u8; HDR_BIN_LEN]);
    source.read_exact_at(&mut *bytes, place).ok()?;
    let magic = magic(role);
    let is_right = bytes.starts_with(&magic);
    bytes[..magic.len()].copy_from_slice(&magic);
    Some((BinaryHeader::parse(&bytes, role, place).ok(), is_right))
}

fn magic(role: Role) -> [u8; 6] {
    match role {
        Role::Primary => MAGIC,
        Role::Secondary => MAGIC_SECONDARY,
    }
}

/// A copy that its checksum proves, once the magic is put in, or with the JSON area of the other copy.
fn proved(source: &(impl ReadAt + ?Sized), role: Role, place: u64) -> Option<(Metadata, Recovery)> {
    let (header, is_right) = binary(source, role, place)?;
    let header = header?;
    let size = header.hdr_size.get();
    let other = match role {
        Role::Primary => size,
        Role::Secondary => 0,
    };
    let mut area = vec![0u8; to_usize(size.checked_sub(to_u64(HDR_BIN_LEN))?).ok()?];
    for from in [place, other] {
        let at = from.checked_add(to_u64(HDR_BIN_LEN))?;
        // One that is as it should be was taken before.
        if is_right && from == place || source.read_exact_at(&mut area, at).is_err() || header.verify(&area).is_err() {
            continue;
        }
        let mut missing = Vec::new();
        let mut patches = Vec::new();
        if !is_right {
            missing.push(format!("the magic of the {role} header is gone; its checksum proves it"));
            patches.push(Patch { at: place, bytes: magic(role).to_vec() });
        }
        if from != place {
            missing.push(format!(
                "the JSON area of the {role} header is damaged; its checksum proves that of the other copy"
            ));
            patches.push(Patch { at: place.checked_add(to_u64(HDR_BIN_LEN))?, bytes: area.clone() });
        }
        if let Ok(metadata) = v2::read(&Overlay { source, patches: &patches }) {
            return Some((metadata, recovery(missing.join("; "), 1, patches)));
        }
    }
    None
}

/// A copy whose binary header was overwritten: it is made anew for the JSON area behind it.
///
/// A binary header that is there, and says that the JSON area is another one than was written, is believed: then the JSON
/// area is what was changed.
fn rebuilt(source: &(impl ReadAt + ?Sized), role: Role, place: u64) -> Option<(Metadata, Recovery)> {
    let (found, is_right) = binary(source, role, place)?;
    if is_right && (role == Role::Secondary || there::name(source).is_none()) {
        return None;
    }
    if is_of_another_place(source, role, place) {
        return None;
    }
    let area = json_area(source, place)?;
    let size = to_u64(area.len()).checked_add(to_u64(HDR_BIN_LEN))?;
    let other = match role {
        Role::Primary => size,
        Role::Secondary if place == size => 0,
        Role::Secondary => return None,
    };
    // Two that differ: nobody knows which was meant.
    if json_area(source, other).is_some_and(|other| other != area) {
        return None;
    }
    let mut header = Box::new(found.filter(|h| h.hdr_size.get() == size).unwrap_or_else(|| {
        let mut header = BinaryHeader::new_zeroed();
        header.magic = magic(role);
        header.version = 2.into();
        header.hdr_size = size.into();
        header.seqid = 1.into();
        header.hdr_offset = place.into();
        header
    }));
    header.checksum_alg = [0; 32];
    header.checksum_alg[..6].copy_from_slice(b"sha256");
    header.sign(&area).ok()?;
    let patches = vec![Patch { at: place, bytes: header.as_bytes().to_vec() }];
    let metadata = v2::read(&Overlay { source, patches: &patches }).ok()?;
    // Key material lies where the JSON area says, which it does not where that is of another place.
    let mut slots = metadata.keyslots.values().filter(|k| matches!(k.kind, KeyslotKind::Luks2(_)));
    if !slots.any(|slot| matches!(area::check(source, slot), Ok(None))) {
        return None;
    }
    let missing = format!(
        "the binary header of the {role} copy is gone; it was made anew for the JSON area behind it, which no checksum proves"
    );
    Some((metadata, recovery(missing, 1, patches)))
}

/// Whether what is left of a binary header says that it is not the one of this place.
fn is_of_another_place(source: &(impl ReadAt + ?Sized), role: Role, place: u64) -> bool {
    let mut start = [0u8; 264];
    if source.read_exact_at(&mut start, place).is_err() {
        return false;
    }
    let other = match role {
        Role::Primary => MAGIC_SECONDARY,
        Role::Secondary => MAGIC,
    };
    let mut hdr_offset = [0u8; 8];
    hdr_offset.copy_from_slice(&start[256..]);
    let says = u64::from_be_bytes(hdr_offset);
    start.starts_with(&other) || start[6..8] == [0, 2] && says != place && places().any(|(_, legal)| legal == says)
}

/// The whole JSON area of the copy at `place`, where it keeps all rules and says its own size.
fn json_area(source: &(impl ReadAt + ?Sized), place: u64) -> Option<Vec<u8>> {
    let at = place.checked_add(to_u64(HDR_BIN_LEN))?;
    let mut start = [0u8; 2];
    source.read_exact_at(&mut start, at).ok()?;
    // Most of all places are none of a JSON area, and cost no more than this.
    if start != *b"{\"" {
        return None;
    }
    let sizes = places().map(|(_, size)| size).filter(|size| *size > 0);
    sizes.into_iter().find_map(|size| {
        let mut area = vec![0u8; to_usize(size.checked_sub(to_u64(HDR_BIN_LEN))?).ok()?];
        source.read_exact_at(&mut area, at).ok()?;
        // The text ends within the area, and nothing but zeroes follows: shorter ones are not looked at any further.
        let mut value = json::parse_area(&area).ok()?;
        validate::validate(&mut value, size).ok()?;
        Some(area)
    })
}

// Their images are the fuzz targets', which are a package of their own.
#[cfg(test)]
#[cfg(feature = "repository-tests")]
mod tests;
