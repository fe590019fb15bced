//! The disk that a map makes of streams.

use std::ops::Range;
use std::sync::Arc;

use super::stream::Stream;
use super::things::local;
use crate::error::{Error, Result};
use crate::format::map::{Layout, Mapped, Place, Run};
use crate::format::{Format, lost};
use crate::io::ReadAt;
use crate::num::{from_u32, to_usize};

/// A run of the disk's bytes that lies in a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub start: u64,
    pub end: u64,
    /// Where in the stream.
    pub place: u64,
    /// The stream's number among the targets.
    pub target: u32,
}

/// A stream that lies nowhere: one byte again and again, or what is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Symbol {
    Byte(u8),
    Unknown,
    Unreadable,
}

/// The stream of this name, if it is one that is made.
pub(super) fn symbol(name: &str) -> Option<Symbol> {
    // Evimetry 2 has a namespace of its own for them.
    let digits = name.strip_prefix("http://afflib.org/2012/SymbolicStream#");
    let digits = digits.or_else(|| local(name)?.strip_prefix("SymbolicStream"));
    if let Some(digits) = digits.filter(|digits| digits.len() == 2) {
        return u8::from_str_radix(digits, 16).ok().map(Symbol::Byte);
    }
    match local(name)? {
        "Zero" => Some(Symbol::Byte(0)),
        "FF" | "FFDevice" => Some(Symbol::Byte(0xff)),
        "UnknownData" => Some(Symbol::Unknown),
        "UnreadableData" => Some(Symbol::Unreadable),
        _ => None,
    }
}

impl Symbol {
    /// What is read at a time of a byte that is always the same.
    const UNIT: u64 = 64 << 10;

    /// Its unit among those of the disk: they are counted from the last number down.
    fn unit(byte: u8) -> u64 {
        u64::MAX.saturating_sub(u64::from(byte))
    }

    fn byte_of(unit: u64) -> Option<u8> {
        u64::MAX.checked_sub(unit).and_then(|byte| u8::try_from(byte).ok())
    }

    /// The run of so many bytes of it. What is lost is an error before it comes here.
    fn run(self, rest: u64) -> Run {
        match self {
            Self::Byte(0) | Self::Unknown | Self::Unreadable => Run { len: rest, place: Place::Zero },
            Self::Byte(byte) => {
                Run { len: rest.min(Self::UNIT), place: Place::Packed { unit: Self::unit(byte), skip: 0 } }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    Made(Symbol),
    /// Of the disk's streams.
    Stream(usize),
}

/// What a disk is made of.
pub(super) struct Parts {
    /// In the disk's order; no two cover the same byte.
    pub entries: Vec<Entry>,
    pub targets: Vec<Target>,
    /// What lies where there is no entry.
    pub gap: Symbol,
    pub streams: Vec<Stream>,
}

pub(super) struct Disk {
    file: Arc<dyn ReadAt>,
    size: u64,
    parts: Parts,
    /// The number of the first unit of each stream; units are its chunks.
    first_units: Vec<u64>,
    unit_size: u64,
}

impl Disk {
    pub(super) fn new(file: Arc<dyn ReadAt>, size: u64, parts: Parts) -> Result<Self> {
        let mut units = 0u64;
        let mut first_units = Vec::with_capacity(parts.streams.len());
        for stream in &parts.streams {
            first_units.push(units);
            // The last numbers are those of streams that are made.
            let more = units.checked_add(stream.geometry.chunks()).filter(|units| *units < u64::MAX >> 1);
            units = more.ok_or_else(|| Error::corrupt("aff4.stream", "the streams are too long together"))?;
        }
        let unit_size = parts.streams.iter().map(|stream| stream.geometry.chunk_size).max().unwrap_or(64 << 10);
        Ok(Self { file, size, parts, first_units, unit_size })
    }

    /// What the image says of `symbol`: its ranges of the disk, in their order.
    fn ranges(&self, symbol: Symbol) -> Vec<Range<u64>> {
        let Parts { entries, targets, gap, .. } = &self.parts;
        let mut all = Vec::new();
        let mut at = 0;
        for entry in entries {
            if *gap == symbol && entry.start > at {
                all.push(at..entry.start);
            }
            if matches!(targets.get(from_u32(entry.target)), Some(Target::Made(made)) if *made == symbol) {
                all.push(entry.start..entry.end);
            }
            at = entry.end;
        }
        if *gap == symbol && self.size > at {
            all.push(at..self.size);
        }
        all
    }

    /// A stream as it is, from its first byte to its last.
    pub(super) fn of_stream(file: Arc<dyn ReadAt>, stream: Stream) -> Result<Arc<dyn ReadAt>> {
        let size = stream.geometry.size;
        let entries = vec![Entry { start: 0, end: size, place: 0, target: 0 }];
        let parts = Parts { entries, targets: vec![Target::Stream(0)], gap: Symbol::Byte(0), streams: vec![stream] };
        Ok(Arc::new(Mapped::new(Self::new(file, size, parts)?)))
    }

    /// The disk, of which what its image lacks is an error to read; and whether it lacks nothing.
    pub(super) fn finish(self, notes: &mut Vec<String>) -> (Arc<dyn ReadAt>, bool) {
        let lost = [
            (self.ranges(Symbol::Unreadable), lost::UNREAD),
            (self.ranges(Symbol::Unknown), "were not taken into the image"),
        ];
        let is_whole = lost.iter().all(|(ranges, _)| ranges.is_empty());
        (lost::without(Arc::new(Mapped::new(self)), Format::Aff4, lost, notes), is_whole)
    }
}

impl Layout for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let Parts { entries, targets, gap, streams } = &self.parts;
        let n = entries.partition_point(|entry| entry.end <= offset);
        let Some(entry) = entries.get(n).filter(|entry| entry.start <= offset) else {
            let end = entries.get(n).map_or(self.size, |entry| entry.start);
            return Ok(gap.run(end.saturating_sub(offset)));
        };
        let rest = entry.end.saturating_sub(offset);
        let wrong = |what: &str| Error::corrupt("aff4.map", format!("byte {offset} of the disk: {what}"));
        let place = entry.place.checked_add(offset.saturating_sub(entry.start));
        let place = place.ok_or_else(|| wrong("its place in the stream overflows"))?;
        let number = match targets.get(from_u32(entry.target)).ok_or_else(|| wrong("it lies in no stream"))? {
            Target::Made(symbol) => return Ok(symbol.run(rest)),
            Target::Stream(number) => *number,
        };
        let (stream, first) =
            streams.get(number).zip(self.first_units.get(number)).ok_or_else(|| wrong("it lies in no stream"))?;
        let (size, chunk_size) = (stream.geometry.size, stream.geometry.chunk_size);
        if place >= size {
            return Err(wrong(&format!("it is said to lie at byte {place} of a stream that has {size}")));
        }
        let chunk = place.checked_div(chunk_size).unwrap_or(0);
        let skip = place.checked_rem(chunk_size).unwrap_or(0);
        let len = rest.min(chunk_size.saturating_sub(skip)).min(size.saturating_sub(place));
        Ok(Run { len, place: Place::Packed { unit: first.saturating_add(chunk), skip } })
    }

    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        if let Some(byte) = Symbol::byte_of(unit) {
            return Ok(vec![byte; to_usize(Symbol::UNIT)?]);
        }
        let n = self.first_units.partition_point(|first| *first <= unit).checked_sub(1);
        let found = n.and_then(|n| self.parts.streams.get(n).zip(self.first_units.get(n)));
        let (stream, first) =
            found.ok_or_else(|| Error::corrupt("aff4.stream", format!("no stream has chunk {unit}")))?;
        stream.chunk(unit.saturating_sub(*first))
    }

    fn unit_size(&self) -> u64 {
        self.unit_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_made_have_names_of_all_ages() {
        let (new, old) = ("http://aff4.org/Schema#", "http://afflib.org/2009/aff4#");
        for (name, wanted) in [
            (format!("{new}Zero"), Some(Symbol::Byte(0))),
            (format!("{new}SymbolicStream00"), Some(Symbol::Byte(0))),
            (format!("{new}SymbolicStreamFf"), Some(Symbol::Byte(0xff))),
            (format!("{old}FF"), Some(Symbol::Byte(0xff))),
            ("http://afflib.org/2012/SymbolicStream#61".into(), Some(Symbol::Byte(0x61))),
            (format!("{old}UnknownData"), Some(Symbol::Unknown)),
            (format!("{new}UnreadableData"), Some(Symbol::Unreadable)),
            (format!("{new}SymbolicStream1"), None),
            (format!("{new}SymbolicStreamXY"), None),
            ("aff4://Zero".into(), None),
        ] {
            assert_eq!(symbol(&name), wanted, "{name}");
        }
        assert!([0, 1, 255].into_iter().all(|byte| Symbol::byte_of(Symbol::unit(byte)) == Some(byte)));
        assert_eq!(Symbol::byte_of(u64::MAX >> 1), None);
    }
}
