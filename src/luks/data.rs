//! Whether the data that a header speaks of is there, and how many bytes of plaintext it holds. No key is needed.

use super::metadata::{Metadata, Segment, SegmentKind};

/// What is known of the file that should hold the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Its length in bytes; `None` for a pipe.
    pub len: Option<u64>,
    /// The header came from another file.
    pub detached: bool,
}

/// How much of the data is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum State {
    /// All bytes that the header names.
    Complete,
    /// Whole sectors to the file's end. The header names no size: that bytes were cut off can show in the plaintext
    /// alone.
    ToEndOfFile,
    /// The file ends within the data, or its end is inside a sector.
    Truncated,
    /// The file is a header backup: a header, and nothing behind it.
    HeaderBackup,
    /// The file ends at the data's start or before it, but is no header backup by its length.
    HeaderOnly,
    /// The file is a detached header: its data is in another file.
    DetachedHeader,
    /// The data comes through a pipe, or the tables that place it are too many to follow, or broken.
    Unknown,
}

impl State {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ToEndOfFile => "to-end-of-file",
            Self::Truncated => "truncated",
            Self::HeaderBackup => "header-backup",
            Self::HeaderOnly => "header-only",
            Self::DetachedHeader => "detached-header",
            Self::Unknown => "unknown",
        }
    }

    /// Whether there is no data at all.
    pub fn is_absent(self) -> bool {
        matches!(self, Self::HeaderBackup | Self::HeaderOnly | Self::DetachedHeader)
    }
}

/// What [`assess`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Data {
    /// How much of it is there.
    pub state: State,
    /// Where it starts in its file, in bytes.
    pub offset: u64,
    /// The bytes of plaintext, cut off or not. `None` where the header does not say and the file is none to go by: it
    /// is cut off, a pipe or no data file, or dm-integrity's tags take a part of it.
    pub plaintext_size: Option<u64>,
    /// The bytes of plaintext that are there, in whole sectors. `None` where nobody knows.
    pub readable: Option<u64>,
    /// How many bytes of the file are missing at least. `None` where nobody knows.
    pub missing: Option<u64>,
}

impl Data {
    /// Data of `size` bytes of plaintext in the clusters of a qcow2 image that lacks `missing` bytes at least, where
    /// that is known.
    pub fn in_clusters(size: u64, missing: Option<u64>) -> Self {
        let state = match missing {
            Some(0) => State::Complete,
            Some(_) => State::Truncated,
            None => State::Unknown,
        };
        let readable = Some(size).filter(|_| state == State::Complete);
        Self { state, offset: 0, plaintext_size: Some(size), readable, missing }
    }
}

/// cryptsetup rounds a LUKS1 header backup up to the machine's page size: 4 KiB, 16 KiB or 64 KiB.
const PAGES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];

impl Metadata {
    /// The bytes of plaintext in a data file of `data_len` bytes, or `None` where that does not tell: see
    /// [`assess`].
    pub fn plaintext_size(&self, data_len: u64) -> Option<u64> {
        if self.reencrypt_keyslot().is_some() {
            return self.live_segments().try_fold(0u64, |sum, (_, s)| sum.checked_add(self.live_size(s, data_len)?));
        }
        assess(self, DataFile { len: Some(data_len), detached: true }).plaintext_size
    }

    /// The bytes of a live segment in a data file of `data_len` bytes, or `None` where it starts beyond it.
    ///
    /// A dynamic segment goes to the end of the file, but for a reencryption that shifts the data: one that makes room
    /// for a header gives up as many bytes at the end, and one that takes the header away has not filled them yet
    /// (`LUKS2_reencrypt_check_device_size`).
    pub fn live_size(&self, segment: &Segment, data_len: u64) -> Option<u64> {
        let to_the_end = || data_len.checked_sub(segment.offset);
        let Some((_, _, state)) = self.reencrypt_keyslot() else { return segment.size.or_else(to_the_end) };
        match (segment.size, state.shift_size, self.segments.iter().find(|s| s.has_flag("backup-final"))) {
            (Some(size), _, _) => Some(size),
            (None, Some(shift), Some(last)) => {
                let before = self.live_segments().filter_map(|(_, s)| s.size).try_fold(0u64, u64::checked_add)?;
                let all = data_len.checked_sub(last.offset)?.checked_sub(if state.is_forward() { shift } else { 0 })?;
                all.checked_sub(before)
            }
            _ => to_the_end(),
        }
    }
}

/// Compares what the header says of its data with the file that should hold it.
pub fn assess(metadata: &Metadata, file: DataFile) -> Data {
    let offset = metadata.data_offset();
    let fixed = metadata.live_segments().all(|(_, s)| s.size.is_some());
    let total = total(metadata.live_segments().map(|(_, s)| s.size.filter(|_| is_plain(s))));
    let whole = |state, missing| Data { state, offset, plaintext_size: total, readable: None, missing };
    let absent = |state| Data { readable: Some(0), ..whole(state, total) };
    if !file.detached && offset == 0 {
        return absent(State::DetachedHeader);
    }
    let Some(len) = file.len else { return whole(State::Unknown, None) };
    if len <= offset {
        let backup = !file.detached && PAGES.iter().any(|page| len == metadata.header_size.next_multiple_of(*page));
        return absent(if backup { State::HeaderBackup } else { State::HeaderOnly });
    }
    let missing = metadata.live_segments().map(|(_, s)| missing(s, len)).max().unwrap_or(0);
    let readable = self::total(metadata.live_segments().map(|(_, s)| is_plain(s).then(|| readable(s, len))));
    let state = match (missing, fixed) {
        (0, true) => State::Complete,
        (0, false) => State::ToEndOfFile,
        _ => State::Truncated,
    };
    let plaintext_size = match state {
        // One that shifts the data gives up as much as it shifts, or has not filled it yet.
        State::ToEndOfFile if metadata.reencrypt_keyslot().is_some() => metadata.plaintext_size(len),
        State::ToEndOfFile => readable,
        _ => total,
    };
    Data { state, offset, plaintext_size, readable, missing: Some(missing) }
}

/// How far a data file of `len` bytes ends before the end of `segment`. Of a dynamic segment that end is the end of its
/// last sector, or its start where the file ends before it.
pub fn missing(segment: &Segment, len: u64) -> u64 {
    let there = len.saturating_sub(segment.offset);
    let size = match segment.size {
        Some(size) => size,
        None if is_plain(segment) => there.checked_next_multiple_of(sector(segment)).unwrap_or(u64::MAX),
        // dm-integrity's own superblock says how much of it is used.
        None => there,
    };
    segment.offset.saturating_add(size).saturating_sub(len)
}

/// The bytes of whole sectors of `segment` in a data file of `len` bytes.
fn readable(segment: &Segment, len: u64) -> u64 {
    let there = len.saturating_sub(segment.offset);
    let there = segment.size.map_or(there, |size| size.min(there));
    there.saturating_sub(there.checked_rem(sector(segment)).unwrap_or(0))
}

fn sector(segment: &Segment) -> u64 {
    match &segment.kind {
        SegmentKind::Crypt(c) => u64::from(c.sector_size).max(1),
        _ => 512,
    }
}

/// Whether each byte of the segment is a byte of plaintext.
fn is_plain(segment: &Segment) -> bool {
    match &segment.kind {
        SegmentKind::Crypt(c) => c.integrity.is_none(),
        SegmentKind::Linear => true,
        SegmentKind::Unknown { .. } => false,
    }
}

fn total(mut sizes: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    sizes.try_fold(0u64, |sum, size| sum.checked_add(size?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks::findings::tests::{crypt, good};

    const MIB: u64 = 1 << 20;

    fn of(metadata: &Metadata, len: u64) -> Data {
        assess(metadata, DataFile { len: Some(len), detached: false })
    }

    #[test]
    fn a_dynamic_segment_reaches_to_the_end_of_the_file() {
        let m = good();
        let d = of(&m, 20 * MIB);
        assert_eq!((d.state, d.plaintext_size, d.missing), (State::ToEndOfFile, Some(4 * MIB), Some(0)));
        // A file that ends inside a sector says that it is cut off, and then its length says nothing of the plaintext.
        let d = of(&m, 20 * MIB - 12);
        assert_eq!((d.state, d.plaintext_size), (State::Truncated, None));
        assert_eq!((d.readable, d.missing), (Some(4 * MIB - 512), Some(12)));
    }

    #[test]
    fn a_fixed_segment_says_how_much_is_missing() {
        let mut m = good();
        m.segments[0].size = Some(4 * MIB);
        assert_eq!(of(&m, 20 * MIB).state, State::Complete);
        assert_eq!(of(&m, 30 * MIB).plaintext_size, Some(4 * MIB));
        let d = of(&m, 17 * MIB);
        assert_eq!((d.state, d.plaintext_size), (State::Truncated, Some(4 * MIB)));
        assert_eq!((d.readable, d.missing), (Some(MIB), Some(3 * MIB)));
    }

    #[test]
    fn a_file_without_data_is_no_truncated_image() {
        let m = good();
        assert_eq!(of(&m, 16 * MIB).state, State::HeaderBackup);
        let mut small = good();
        small.header_size = 2 * MIB + 512;
        assert_eq!(of(&small, 2 * MIB + 4096).state, State::HeaderBackup);
        let d = of(&small, 3 * MIB);
        assert_eq!((d.state, d.plaintext_size, d.readable, d.missing), (State::HeaderOnly, None, Some(0), None));
        let mut detached = good();
        detached.segments[0].offset = 0;
        assert_eq!(of(&detached, 16 * MIB).state, State::DetachedHeader);
        let with_data = assess(&detached, DataFile { len: Some(MIB), detached: true });
        assert_eq!((with_data.state, with_data.plaintext_size), (State::ToEndOfFile, Some(MIB)));
        // A data file of its own may be empty, too.
        assert_eq!(assess(&detached, DataFile { len: Some(0), detached: true }).state, State::HeaderOnly);
    }

    #[test]
    fn what_nobody_knows_is_not_made_up() {
        let mut m = good();
        let pipe = DataFile { len: None, detached: false };
        let d = assess(&m, pipe);
        assert_eq!((d.state, d.plaintext_size, d.readable, d.missing), (State::Unknown, None, None, None));
        m.segments[0].size = Some(MIB);
        assert_eq!(assess(&m, pipe).plaintext_size, Some(MIB));
        // dm-integrity's tags and journal take a part of the segment that its own superblock alone knows.
        let integrity = crate::luks::metadata::Integrity {
            kind: "hmac(sha256)".into(),
            journal_encryption: "none".into(),
            journal_integrity: "none".into(),
            key_size: None,
        };
        crypt(&mut m).integrity = Some(integrity);
        assert_eq!((of(&m, 20 * MIB).state, of(&m, 20 * MIB).plaintext_size), (State::Complete, None));
    }

    #[test]
    fn what_is_missing_of_several_segments_counts_once() {
        let mut m = good();
        m.segments[0].size = Some(4 * MIB);
        let mut next = m.segments[0].clone();
        (next.offset, next.size) = (20 * MIB, None);
        m.segments.push(next);
        assert_eq!(of(&m, 18 * MIB).missing, Some(2 * MIB));
        assert_eq!(of(&m, 18 * MIB).readable, Some(2 * MIB));
        assert_eq!(of(&m, 20 * MIB + 1).missing, Some(511));
        assert_eq!(of(&m, 22 * MIB).state, State::ToEndOfFile);
    }

    #[test]
    fn hostile_sizes_do_not_overflow() {
        let mut m = good();
        m.segments[0].size = Some(u64::MAX - 511);
        m.segments[0].offset = u64::MAX - 511;
        let other = m.segments[0].clone();
        m.segments.push(other);
        let d = assess(&m, DataFile { len: Some(u64::MAX - 510), detached: true });
        assert_eq!((d.state, d.plaintext_size, d.missing), (State::Truncated, None, Some(510)));
        let d = assess(&m, DataFile { len: Some(1), detached: true });
        assert_eq!((d.state, d.plaintext_size, d.readable, d.missing), (State::HeaderOnly, None, Some(0), None));
        m.segments.truncate(1);
        m.segments[0].size = None;
        crypt(&mut m).sector_size = u32::MAX - 511;
        assert_eq!(assess(&m, DataFile { len: Some(u64::MAX - 1), detached: true }).state, State::Truncated);
    }
}
