//! A sector that begins with a magic, and what it takes to know whether it begins a header.

use super::{CHUNK, Copy, State, bytes};
use crate::error::{Error, Hint, Result};
use crate::io::{ReadAt, Window};
use crate::limits::{LUKS2_HDR_SIZE_MAX, LUKS2_HDR_SIZE_MIN, SCAN_CHECK_MAX};
use crate::luks::metadata::{HeaderCopy, Role, Version};
use crate::luks::v2::{BinaryHeader, HDR_BIN_LEN};
use crate::luks::{MAGIC, MAGIC_OFFLINE, MAGIC_SECONDARY, recover, v1, v2};

/// What may be of a header whose magic is gone.
pub(super) struct Suspect {
    /// Where the container may start, the surer place first.
    pub(super) starts: Vec<u64>,
    /// How many bytes have to be read to check it.
    pub(super) size: u64,
}

/// Of a UUID in a header: its dashes, and the NUL behind it.
const UUID: [(usize, u8); 5] = [(176, b'-'), (181, b'-'), (186, b'-'), (191, b'-'), (204, 0)];
/// What the JSON area says of its own size.
const JSON_SIZE: &[u8] = b"\"json_size\":\"";

impl Suspect {
    /// What `rest`, which begins with a sector at `offset`, may be of: a header by its UUID, or a JSON area.
    pub(super) fn of(rest: &[u8], offset: u64) -> Option<Self> {
        if UUID.iter().all(|(at, byte)| rest.get(*at) == Some(byte)) {
            let field = |at: usize| rest.get(at..).and_then(|field| field.first_chunk::<8>());
            let size = match rest.get(6..8)? {
                [0, 1] => LUKS2_HDR_SIZE_MIN,
                // With its magic it is a candidate, whose other copy has what is lost of it.
                _ if Candidate::begins_in(rest) => return None,
                _ => field(8).map_or(0, |size| u64::from_be_bytes(*size)),
            };
            let size =
                if (LUKS2_HDR_SIZE_MIN..=LUKS2_HDR_SIZE_MAX).contains(&size) { size } else { LUKS2_HDR_SIZE_MIN };
            return Some(Self { starts: vec![offset], size: size.saturating_mul(2) });
        }
        if !rest.starts_with(b"{\"") {
            return None;
        }
        let text = rest.get(..rest.iter().position(|b| *b == 0)?)?;
        // The configuration is the last of cryptsetup's sections.
        let at = text.windows(JSON_SIZE.len()).rposition(|window| window == JSON_SIZE)?;
        let digits = text.get(at.saturating_add(JSON_SIZE.len())..)?.split(|b| *b == b'"').next()?;
        let bin = bytes(HDR_BIN_LEN);
        let size = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_add(bin)?;
        if !(LUKS2_HDR_SIZE_MIN..=LUKS2_HDR_SIZE_MAX).contains(&size) {
            return None;
        }
        let primary = offset.checked_sub(bin)?;
        // That of a secondary copy: key material where the header itself would be shows that it is none.
        let starts = primary.checked_sub(size).into_iter().chain([primary]).collect();
        Some(Self { starts, size: size.saturating_mul(4) })
    }

    /// The copy that its header was recovered from, if one can be.
    pub(super) fn check(&self, disk: &dyn ReadAt) -> Option<(Option<u64>, Copy)> {
        self.starts.iter().find_map(|start| {
            let metadata = recover::open(&Window::new(disk, *start, None).ok()?).ok()?;
            metadata.recovery.as_ref().filter(|recovery| recovery.error.is_some())?;
            let version = metadata.version;
            let copy = metadata.copies.into_iter().find(|copy| copy.used)?;
            Some((Some(*start), Copy::of(copy, *start, Some(version))))
        })
    }
}

/// A sector that begins with a magic.
pub(super) struct Candidate {
    offset: u64,
    version: Option<Version>,
    role: Role,
    /// Where its container starts; `None` where it cannot be told.
    start: Option<u64>,
    /// How many bytes have to be read to check it.
    pub(super) size: u64,
    /// Why it is no header, where its first sector shows that.
    error: Option<Error>,
}

impl Candidate {
    /// What a first sector says, without reading on.
    pub(super) fn glance(sector: &[u8], offset: u64) -> Self {
        let mut header = [0u8; HDR_BIN_LEN];
        header[..sector.len()].copy_from_slice(sector);
        if sector.starts_with(&MAGIC_OFFLINE) {
            let error = Some(crate::luks::offline_reencryption(&sector.to_vec()));
            let (version, role, start) = (Some(Version::V1), Role::Primary, Some(offset));
            return Self { offset, version, role, start, size: 0, error };
        }
        let version = match u16::from_be_bytes([header[6], header[7]]) {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            _ => None,
        };
        let mut place = [0u8; 8];
        place.copy_from_slice(&header[256..264]);
        let (role, place) =
            if header.starts_with(&MAGIC) { (Role::Primary, 0) } else { (Role::Secondary, u64::from_be_bytes(place)) };
        let candidate = Self { offset, version, role, start: offset.checked_sub(place), size: 0, error: None };
        if role == Role::Primary && version == Some(Version::V1) {
            return Self { size: bytes(v1::HEADER_LEN), ..candidate };
        }
        match BinaryHeader::parse(&header, role, place) {
            Ok(_) if candidate.start.is_none() => {
                let message = format!("found {place} in a copy that lies at byte {offset} of the disk");
                Self { error: Some(Error::corrupt("hdr_offset", message)), ..candidate }
            }
            Ok(parsed) => Self { size: parsed.hdr_size.get(), ..candidate },
            // A place that no copy can have tells nothing of the start.
            Err(e) if role == Role::Secondary => Self { error: Some(e), start: None, ..candidate },
            Err(e) => Self { error: Some(e), ..candidate },
        }
    }

    /// Whether `sector` begins with a magic.
    pub(super) fn begins_in(sector: &[u8]) -> bool {
        [MAGIC, MAGIC_SECONDARY, MAGIC_OFFLINE].iter().any(|magic| sector.starts_with(magic))
    }

    /// Verifies it, if its chunk has that many bytes of checks `left`.
    pub(super) fn check(mut self, disk: &dyn ReadAt, left: &mut u64) -> (Option<u64>, Copy) {
        if let (None, Some(start)) = (&self.error, self.start) {
            match left.checked_sub(self.size) {
                Some(rest) => {
                    *left = rest;
                    match self.verify(disk, start) {
                        Ok(copy) => return (Some(start), copy),
                        Err(e) => self.error = Some(e),
                    }
                }
                None => {
                    let message = format!(
                        "not verified: the headers in {CHUNK} bytes of the disk would take more than {SCAN_CHECK_MAX} bytes"
                    );
                    let hint = Hint::InspectAt;
                    self.error = Some(Error::limit("scan.check", message).with_hint(hint));
                }
            }
        }
        let Self { offset, version, role, start, error, .. } = self;
        let (uuid, label) = (String::new(), String::new());
        (start, Copy { offset, version, role, uuid, label, seqid: None, state: State::Unusable, error })
    }

    fn verify(&self, disk: &dyn ReadAt, start: u64) -> Result<Copy> {
        let container = Window::new(disk, start, None)?;
        if self.version == Some(Version::V1) {
            let metadata = v1::read(&container)?;
            let copy = metadata.copies.into_iter().next().ok_or_else(|| Error::corrupt("magic", "no LUKS magic"))?;
            return Ok(Copy::of(copy, start, Some(Version::V1)));
        }
        let copy = v2::read_one(&container, self.role, self.offset.saturating_sub(start));
        Ok(Copy::of(copy, start, Some(Version::V2)))
    }
}

impl Copy {
    fn of(copy: HeaderCopy, start: u64, version: Option<Version>) -> Self {
        Self {
            offset: start.saturating_add(copy.offset),
            version,
            role: copy.role,
            uuid: copy.uuid,
            label: copy.label,
            seqid: copy.seqid,
            state: State::Unusable,
            error: copy.error,
        }
    }
}
