//! The LUKS2 binary header, its two copies, and the choice between them.
//!
//! All numbers are big-endian. A copy is 4096 bytes of binary header and a JSON area behind it, `hdr_size` together;
//! the secondary copy lies at `hdr_size`.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 6 | `magic` | `LUKS\xba\xbe`, or `SKUL\xba\xbe` in the secondary copy |
//! | 6 | 2 | `version` | 2 |
//! | 8 | 8 | `hdr_size` | bytes of a copy: a power of two from 0x4000 to 0x400000 |
//! | 16 | 8 | `seqid` | grows with each change |
//! | 24 | 48 | `label` | |
//! | 72 | 32 | `checksum_alg` | the checksum's hash |
//! | 104 | 64 | `salt` | makes the copies differ; never an input to a KDF |
//! | 168 | 40 | `uuid` | |
//! | 208 | 48 | `subsystem` | |
//! | 256 | 8 | `hdr_offset` | where this copy lies |
//! | 264 | 184 | `_padding` | |
//! | 448 | 64 | `csum` | of the binary header with this field zeroed, and the JSON area |
//! | 512 | 3584 | `_padding4096` | |
//!
//! Source: the LUKS2 on-disk format paper, §2, and `luks2_disk_metadata.c`.

use std::collections::BTreeMap;

use zerocopy::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::metadata::{Difference, HeaderCopy, Metadata, Role, Version};
use super::validate::{self, Json};
use super::{MAGIC, MAGIC_SECONDARY, compare, json};
use crate::crypto::hash::Hash;
use crate::error::{Condition, Error, ErrorKind, Hint, Result, escape};
use crate::io::ReadAt;
use crate::limits::{LUKS2_HDR_SIZE_MAX, LUKS2_HDR_SIZE_MIN};
use crate::num::{to_u64, to_usize};

/// Bytes of the binary header.
pub const HDR_BIN_LEN: usize = 4096;

/// The binary header as it is on disk.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[allow(missing_docs)]
pub struct BinaryHeader {
    pub magic: [u8; 6],
    pub version: U16,
    pub hdr_size: U64,
    pub seqid: U64,
    pub label: [u8; 48],
    pub checksum_alg: [u8; 32],
    pub salt: [u8; 64],
    pub uuid: [u8; 40],
    pub subsystem: [u8; 48],
    pub hdr_offset: U64,
    pub padding: [u8; 184],
    pub csum: [u8; 64],
    pub padding4096: [u8; 3584],
}

const _: () = assert!(size_of::<BinaryHeader>() == HDR_BIN_LEN);

impl BinaryHeader {
    /// Checks what can be checked before the checksum: magic, version, place and size.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the field that is wrong.
    pub fn parse(bytes: &[u8; HDR_BIN_LEN], role: Role, offset: u64) -> Result<Self> {
        let (header, _) =
            Self::read_from_prefix(bytes.as_slice()).map_err(|_| Error::corrupt("header", "is too short"))?;
        let magic = match role {
            Role::Primary => MAGIC,
            Role::Secondary => MAGIC_SECONDARY,
        };
        if header.magic != magic {
            return Err(Error::corrupt("magic", "no LUKS2 magic").at(offset).with_condition(Condition::NoHeader));
        }
        let at = |field: u64| offset.saturating_add(field);
        if header.version.get() != 2 {
            let message = format!("found {}; 2 is wanted", header.version);
            return Err(Error::corrupt("version", message).at(at(6)));
        }
        let size = header.hdr_size.get();
        if !(LUKS2_HDR_SIZE_MIN..=LUKS2_HDR_SIZE_MAX).contains(&size) || !size.is_power_of_two() {
            let message = format!("found {size}; a power of two from 16384 to 4194304 is allowed");
            return Err(Error::corrupt("hdr_size", message).at(at(8)));
        }
        let place = header.hdr_offset.get();
        if place != offset {
            let message = format!("found {place} in a copy that lies at byte {offset}");
            return Err(Error::corrupt("hdr_offset", message).at(at(256)));
        }
        if role == Role::Secondary && size != offset {
            let message = format!("found {size} in a secondary copy that lies at byte {offset}; both must be the same");
            return Err(Error::corrupt("hdr_size", message).at(at(8)));
        }
        Ok(header)
    }

    /// Checks the checksum over the binary header and `json_area`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where it does not match, or its algorithm is not known.
    pub fn verify(&self, json_area: &[u8]) -> Result<()> {
        let name = text(&self.checksum_alg);
        let hash = Hash::from_name(&name).map_err(|_| {
            Error::corrupt("checksum_alg", format!("found \"{}\", which is no known hash", escape(&name)))
        })?;
        let computed = self.checksum(hash, json_area);
        if self.csum.starts_with(&computed) {
            Ok(())
        } else {
            let message = format!("the {} checksum does not match: the header was damaged or changed", hash.name());
            Err(Error::corrupt("csum", message).at(self.hdr_offset.get().saturating_add(448)))
        }
    }
}

impl BinaryHeader {
    fn checksum(&self, hash: Hash, json_area: &[u8]) -> Vec<u8> {
        let mut bare = Box::new(self.clone());
        bare.csum = [0; 64];
        hash.digest(&[bare.as_bytes(), json_area]).to_vec()
    }

    /// Puts in the checksum over the binary header and `json_area`.
    pub(super) fn sign(&mut self, json_area: &[u8]) -> Result<()> {
        let computed = self.checksum(Hash::from_name(&text(&self.checksum_alg))?, json_area);
        self.csum = [0; 64];
        self.csum.iter_mut().zip(computed).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

/// The text of a field that ends with a NUL, or with the field's last byte, which counts as one.
fn text(field: &[u8]) -> String {
    let field = field.split_last().map_or(field, |(_, text)| text);
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// What was learned of one copy.
struct Read {
    offset: u64,
    header: Option<Box<BinaryHeader>>,
    /// The checksum was good: what follows, the JSON area, is what was written.
    intact: bool,
    json: Result<(Json, serde_json::Value)>,
}

impl Read {
    fn is_unreadable(&self) -> bool {
        self.json.as_ref().is_err_and(|e| e.kind() == ErrorKind::Io)
    }
}

/// Reads one copy: binary header, checksum, JSON.
fn read_copy(source: &(impl ReadAt + ?Sized), role: Role, offset: u64) -> Read {
    let missing = |e: Error| Read { offset, header: None, intact: false, json: Err(e) };
    let short = |wanted: u64| {
        let message = format!("the source ends at byte {}, before the header's end at byte {wanted}", source.len());
        Error::corrupt("length", message)
    };
    let header_end = offset.saturating_add(4096);
    if source.len() < header_end {
        return missing(short(header_end).with_condition(Condition::NoHeader));
    }
    // On the heap, as all that has 4 KiB here: a thread may have a small stack.
    let mut bytes = Box::new([0u8; HDR_BIN_LEN]);
    // A sector that cannot be read spoils one copy; the other may be good.
    if let Err(e) = source.read_exact_at(&mut *bytes, offset) {
        // A pipe shows its end only now.
        return missing(if e.is(Condition::Truncated) { e.with_condition(Condition::NoHeader) } else { e });
    }
    let header = match BinaryHeader::parse(&bytes, role, offset) {
        Ok(header) => Box::new(header),
        Err(e) => return missing(e),
    };
    let end = offset.saturating_add(header.hdr_size.get());
    let mut read = Read { offset, header: None, intact: false, json: Err(short(end)) };
    if source.len() >= end {
        let area = to_usize(header.hdr_size.get().saturating_sub(to_u64(HDR_BIN_LEN))).and_then(|len| {
            let mut area = vec![0u8; len];
            source.read_exact_at(&mut area, header_end)?;
            header.verify(&area)?;
            Ok(area)
        });
        read.intact = area.is_ok();
        read.json = area.and_then(|area| {
            let mut value = json::parse_area(&area)?;
            Ok((validate::validate(&mut value, header.hdr_size.get())?, value))
        });
    }
    read.header = Some(header);
    read
}

/// Finds the secondary copy, from the primary's size or, where there is none to trust, at all legal offsets.
fn find_secondary(source: &(impl ReadAt + ?Sized), primary: &Read) -> Read {
    if let Some(header) = primary.header.as_ref().filter(|_| primary.intact) {
        return read_copy(source, Role::Secondary, header.hdr_size.get());
    }
    let mut offset = LUKS2_HDR_SIZE_MIN;
    let mut best = read_copy(source, Role::Secondary, offset);
    while !best.intact && offset < LUKS2_HDR_SIZE_MAX {
        offset = offset.saturating_mul(2);
        let read = read_copy(source, Role::Secondary, offset);
        // A copy whose binary header can be read says more about what went wrong than one that is not there.
        // One that cannot be read may be good, so it says more than that, too.
        if read.intact || best.header.is_none() && (read.header.is_some() || read.is_unreadable()) {
            best = read;
        }
    }
    best
}

/// A good copy's content.
struct Good {
    header: Box<BinaryHeader>,
    json: Json,
    value: serde_json::Value,
}

/// Splits what was learned of a copy into its report and its content.
fn report(read: Read, role: Role) -> (HeaderCopy, Option<Good>) {
    let header = read.header.as_ref();
    let mut copy = HeaderCopy {
        role,
        offset: read.offset,
        seqid: header.map(|h| h.seqid.get()),
        hdr_size: header.map(|h| h.hdr_size.get()),
        uuid: header.map(|h| text(&h.uuid)).unwrap_or_default(),
        label: header.map(|h| text(&h.label)).unwrap_or_default(),
        subsystem: header.map(|h| text(&h.subsystem)).unwrap_or_default(),
        csum_alg: header.map(|h| text(&h.checksum_alg)).unwrap_or_default(),
        salt: header.map(|h| h.salt.to_vec()).unwrap_or_default(),
        error: None,
        used: false,
        repaired: false,
    };
    match (read.json, read.header) {
        (Ok((json, value)), Some(header)) => {
            copy.repaired = json.repaired;
            (copy, Some(Good { header, json, value }))
        }
        (Ok(_), None) => (copy, None),
        (Err(e), _) => {
            copy.error = Some(e);
            (copy, None)
        }
    }
}

/// Reads and checks one copy, whatever became of the other. `offset` counts from the container's start: 0 for a primary,
/// and the copy's `hdr_size` for a secondary.
///
/// What is wrong with the copy, also that it cannot be read, is its [`HeaderCopy::error`]. It costs a read of `hdr_size`
/// bytes at most.
#[cfg(feature = "unlock")]
pub(crate) fn read_one(source: &(impl ReadAt + ?Sized), role: Role, offset: u64) -> HeaderCopy {
    report(read_copy(source, role, offset), role).0
}

/// Reads both copies and takes the good one; of two good ones the one with the higher sequence id, on a tie the primary.
///
/// # Errors
/// [`ErrorKind::Corrupt`] where no copy is good, or the source is too short for the keyslots area; [`ErrorKind::Io`] where
/// no copy is good and one cannot be read.
pub fn read(source: &(impl ReadAt + ?Sized)) -> Result<Metadata> {
    let primary = read_copy(source, Role::Primary, 0);
    let secondary = find_secondary(source, &primary);
    let (mut first, primary) = report(primary, Role::Primary);
    let (mut second, secondary) = report(secondary, Role::Secondary);
    second.used = match (&primary, &secondary) {
        (Some(p), Some(s)) => s.header.seqid.get() > p.header.seqid.get(),
        (None, Some(_)) => true,
        (Some(_), None) => false,
        (None, None) => return Err(neither(first.error, second.error)),
    };
    first.used = !second.used;
    let values = primary.as_ref().zip(secondary.as_ref()).map(|(p, s)| (&p.value, &s.value));
    let differences = compare::differences(&first, &second, values);
    let good = if second.used { secondary } else { primary };
    let good = good.ok_or_else(|| Error::corrupt("header", "no copy is good"))?;
    metadata(source, good, vec![first, second], differences)
}

/// Why no copy is good. Where nothing looks like a header at all, that is what it says.
fn neither(primary: Option<Error>, secondary: Option<Error>) -> Error {
    let is_nothing = |e: &Option<Error>| e.as_ref().is_none_or(|e| e.is(Condition::NoHeader));
    match (primary, secondary) {
        // What could not be read may be good.
        (Some(e), _) if e.kind() == ErrorKind::Io => e.within("primary header"),
        (Some(p), Some(e)) if e.kind() == ErrorKind::Io => e.within(format!("primary header: {p}, secondary header")),
        (primary, secondary) if is_nothing(&primary) && is_nothing(&secondary) => no_header(),
        (Some(p), Some(s)) => both_damaged(&p, &s),
        (Some(e), None) | (None, Some(e)) => e,
        (None, None) => no_header(),
    }
}

fn no_header() -> Error {
    let message = "no LUKS header: neither the start nor any place of a secondary copy has one";
    Error::corrupt("magic", message).with_condition(Condition::NoHeader).with_hint(Hint::NoHeader)
}

fn both_damaged(first: &Error, second: &Error) -> Error {
    let hint = ["both copies are damaged".into(), Hint::DetachedHeader];
    // The rule is that of the primary, unless there is none to speak of.
    let rule = if first.is(Condition::NoHeader) { second.rule() } else { first.rule() }.to_owned();
    Error::new(ErrorKind::Corrupt, format!("primary header: {first}, secondary header: {second}"))
        .with_rule(rule)
        .with_hint(hint)
}

fn metadata(
    source: &(impl ReadAt + ?Sized),
    good: Good,
    copies: Vec<HeaderCopy>,
    differences: Vec<Difference>,
) -> Result<Metadata> {
    let Good { header, json, value } = good;
    let metadata_size = header.hdr_size.get();
    let header_size = metadata_size.saturating_mul(2).saturating_add(json.keyslots_size);
    if source.len() < header_size {
        return Err(super::cut_off(source.len(), header_size));
    }
    Ok(Metadata {
        version: Version::V2,
        uuid: text(&header.uuid),
        label: text(&header.label),
        subsystem: text(&header.subsystem),
        seqid: header.seqid.get(),
        copies,
        metadata_size,
        header_size,
        keyslots_size: json.keyslots_size,
        differences,
        keyslots: json.keyslots,
        disabled_keyslots: BTreeMap::new(),
        segments: json.segments,
        digests: json.digests,
        tokens: json.tokens,
        flags: json.flags,
        requirements: json.requirements,
        json: Some(value),
        offline: None,
        recovery: None,
    })
}
