//! Which bytes of which file are what.

use serde::Serialize;

use crate::luks::data::{Data, DataFile, State};
use crate::luks::metadata::{Area, Metadata};

/// A run of bytes of one file.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Range {
    /// The file that it lies in.
    pub file: File,
    /// Its first byte.
    pub start: u64,
    /// The first byte behind it; `None` where nobody knows.
    pub end: Option<u64>,
    /// How many bytes it has; `None` where nobody knows.
    pub size: Option<u64>,
    /// What it is.
    pub kind: Kind,
    /// The number of the copy (0 and 1), keyslot or segment.
    pub id: Option<u32>,
}

/// The file that a range lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum File {
    /// The image.
    Image,
    /// The file of a detached header.
    Header,
    /// Another file that was not given.
    Elsewhere,
}

/// What a range is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A copy of the header.
    Header,
    /// A keyslot's key material.
    Keyslot,
    /// A part of the keyslots area that no keyslot uses.
    Free,
    /// Bytes that mean nothing.
    Gap,
    /// A segment of the data.
    Segment,
    /// Bytes of the file behind all that the header names.
    Trailing,
}

/// The ranges of the header's file and then of the data's, each in order, without holes and overlaps.
///
/// Without a `file`, the data is in the clusters of a qcow2 image and has no place of its own.
pub(super) fn layout(metadata: &Metadata, data: &Data, file: Option<DataFile>, header_len: Option<u64>) -> Vec<Range> {
    let header_file = if file.is_some_and(|f| f.detached) { File::Header } else { File::Image };
    let mut ranges = Ranges { file: header_file, at: 0, keyslots: keyslots_area(metadata), all: Vec::new() };
    for (id, copy) in (0u32..).zip(&metadata.copies) {
        ranges.push(Kind::Header, Some(id), copy.offset, copy.offset.checked_add(metadata.metadata_size));
    }
    let mut areas: Vec<_> = metadata.keyslots.iter().map(|(id, k)| (*id, k.area)).collect();
    areas.extend(metadata.disabled_keyslots.iter().map(|(id, k)| (*id, k.area)));
    // Of a damaged keyslot, nobody knows where its area was.
    areas.retain(|(_, a)| a.size > 0);
    areas.sort_by_key(|(_, a)| a.offset);
    for (id, area) in areas {
        ranges.push(Kind::Keyslot, Some(id), area.offset, area.offset.checked_add(area.size));
    }
    ranges.fill(metadata.header_size);
    let same_file = file.is_some_and(|f| !f.detached) && data.state != State::DetachedHeader;
    if let Some(len) = header_len.filter(|len| !same_file && *len > ranges.at) {
        ranges.push(Kind::Trailing, None, ranges.at, Some(len));
    }
    let Some(file) = file else { return ranges.all };
    if !same_file {
        ranges.file = if file.detached { File::Image } else { File::Elsewhere };
        ranges.at = 0;
        ranges.keyslots = Area { offset: 0, size: 0 };
    }
    // Of a file without data, nobody knows where the data ends.
    let len = file.len.filter(|_| !data.state.is_absent());
    let mut segments: Vec<_> = metadata.live_segments().collect();
    segments.sort_by_key(|(_, s)| s.offset);
    for (id, segment) in segments {
        let end = match segment.size {
            Some(size) => segment.offset.checked_add(size),
            None => len.map(|len| len.max(segment.offset)),
        };
        ranges.push(Kind::Segment, Some(id), segment.offset, end);
    }
    if let Some(len) = len.filter(|len| *len > ranges.at) {
        ranges.push(Kind::Trailing, None, ranges.at, Some(len));
    }
    ranges.all
}

/// Where the keyslots' areas may lie.
pub(super) fn keyslots_area(metadata: &Metadata) -> Area {
    let size = metadata.keyslots_size;
    Area { offset: metadata.header_size.saturating_sub(size), size }
}

struct Ranges {
    file: File,
    /// The end of what was listed so far.
    at: u64,
    keyslots: Area,
    all: Vec<Range>,
}

impl Ranges {
    fn push(&mut self, kind: Kind, id: Option<u32>, start: u64, end: Option<u64>) {
        self.fill(start);
        let size = end.map(|end| end.saturating_sub(start));
        self.all.push(Range { file: self.file, start, end, size, kind, id });
        self.at = end.unwrap_or(u64::MAX);
    }

    /// Lists what lies before `start` and belongs to nothing.
    fn fill(&mut self, start: u64) {
        let Area { offset, size } = self.keyslots;
        let area_end = offset.saturating_add(size);
        while self.at < start {
            let (kind, end) = match self.at {
                at if at < offset => (Kind::Gap, offset.min(start)),
                at if at < area_end => (Kind::Free, start.min(area_end)),
                _ => (Kind::Gap, start),
            };
            self.all.push(Range {
                file: self.file,
                start: self.at,
                end: Some(end),
                size: Some(end.saturating_sub(self.at)),
                kind,
                id: None,
            });
            self.at = end;
        }
    }
}
