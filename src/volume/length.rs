//! Whether the data file is as long as the header wants it.

use std::fmt;

use super::{SECTOR_MAX, VolumeOptions};
use crate::error::{Error, Hint, Result};
use crate::luks::data::{self, DataFile, State, assess};
use crate::luks::metadata::{Metadata, Segment, SegmentKind, Version};
use crate::num::to_usize;

/// Bytes that a data file lacks at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// How many.
    pub bytes: u64,
    /// There may be more: the header does not say how long the data is.
    pub at_least: bool,
}

impl Missing {
    pub(super) fn new(bytes: u64, at_least: bool) -> Self {
        Self { bytes, at_least }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{} bytes", if self.at_least { "at least " } else { "" }, self.bytes)
    }
}

/// What there is of the plaintext.
pub(super) struct Found {
    /// In bytes, whole sectors; `None` where that is not known.
    pub(super) plaintext: Option<u64>,
    pub(super) missing: Option<Missing>,
}

impl Found {
    /// What the header tells without a key. Of a reencryption that is nothing, since its segments may lie behind each other
    /// in ways of their own, and of sectors that no volume has.
    pub(super) fn without_key(metadata: &Metadata, file: DataFile) -> Self {
        let is_known = |segment: &Segment| match &segment.kind {
            SegmentKind::Crypt(c) => to_usize(u64::from(c.sector_size)).is_ok_and(|size| size <= SECTOR_MAX),
            SegmentKind::Linear => true,
            SegmentKind::Unknown { .. } => false,
        };
        let is_plain = metadata.reencrypt_keyslot().is_none() && metadata.live_segments().all(|(_, s)| is_known(s));
        let Some(len) = file.len.filter(|_| is_plain) else {
            return Self { plaintext: None, missing: None };
        };
        let ends = metadata.live_segments().map(|(_, s)| Missing::new(data::missing(s, len), s.size.is_none()));
        let missing = ends.filter(|missing| missing.bytes > 0).max_by_key(|missing| missing.bytes);
        Self { plaintext: assess(metadata, file).readable, missing }
    }
}

/// Refuses a data file that is cut off, or that holds no data at all, unless that is allowed.
pub(super) fn check(metadata: &Metadata, file: DataFile, found: Found, options: VolumeOptions) -> Result<()> {
    let data = assess(metadata, file);
    if metadata.version == Version::V1 && data.offset == 0 && !file.detached && data.state != State::DetachedHeader {
        let message = "found 0, which is a detached header's, in a header that is none: it is damaged, or forged";
        return Err(Error::corrupt("payload-offset", message).at(104).with_hint(Hint::DetachedHeader));
    }
    if data.state == State::DetachedHeader {
        let message = "this is a detached header: it has no data behind it, which is in another file";
        return Err(Error::corrupt("data", message).with_hint("open that file, with this one as its detached header"));
    }
    let Some(end) = file.len.filter(|_| !options.allow_truncated) else { return Ok(()) };
    if found.plaintext == Some(0) {
        let what = match data.state {
            State::HeaderBackup => "it is a header backup, a header and nothing else",
            _ if end == data.offset && end > 0 => "it was cut off at the start of its data",
            _ => "there is nothing to decrypt",
        };
        let more = found.missing.map_or(String::new(), |missing| format!(", {missing} are missing"));
        let message =
            format!("the data would start at byte {}, but its file ends at byte {end}{more}: {what}", data.offset);
        return Err(Error::corrupt("truncated", message).at(end).with_hint(Hint::HeaderBackup));
    }
    match found.missing {
        None => Ok(()),
        Some(missing) => Err(Error::corrupt("truncated", format!("the data ends at byte {end}, {missing} too early"))
            .at(end)
            .with_hint(Hint::AllowTruncated)),
    }
}
