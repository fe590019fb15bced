//! The mapfile of GNU ddrescue: which bytes of an image could be read from its medium.
//!
//! A copy of a bad medium has zeroes, or what was in the file before, where nothing could be read; the map says where that is.
//! Its lines (ddrescue's manual, "Mapfile structure"), but for those that start with `#`:
//!
//! | line | fields |
//! |------|--------|
//! | first | current position, current status, and in newer versions the pass |
//! | others | position, size, status: `+` for read, `?`, `*`, `/` and `-` for what was not |
//!
//! Numbers are decimal, hexadecimal with `0x`, or octal with `0`. The blocks follow each other without a gap. What lies before
//! the first or behind the last was not tried.

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use super::{Extent, Pipe, ReadAt, check_range};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::limits::RESCUE_MAP_MAX;
use crate::num::to_u64;

/// A line's number and its fields.
type Fields<'t> = (usize, Vec<&'t [u8]>);

/// The parts of a file that were read from its medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RescueMap {
    /// In their order, apart from each other.
    rescued: Vec<Range<u64>>,
}

impl RescueMap {
    /// Reads a mapfile.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`] for one of more than [`RESCUE_MAP_MAX`] bytes; [`ErrorKind::Corrupt`] with the line, where
    /// it is none.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if to_u64(text.len()) > RESCUE_MAP_MAX {
            let message = format!("found {} bytes; {RESCUE_MAP_MAX} are allowed", text.len());
            return Err(Error::limit("mapfile", message));
        }
        let wrong = |nth: usize, what: &str| {
            Error::corrupt(
                "mapfile",
                format!("line {} is {what}: this is no mapfile of ddrescue", nth.saturating_add(1)),
            )
        };
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        let mut lines = lines.filter(|(_, line)| !matches!(line.trim_ascii().first(), None | Some(b'#')));
        let mut fields = |wanted: Range<usize>| -> Result<Option<Fields<'_>>> {
            let Some((nth, line)) = lines.next() else { return Ok(None) };
            let fields: Vec<&[u8]> = line.split(u8::is_ascii_whitespace).filter(|f| !f.is_empty()).take(4).collect();
            let shown = || escape(&String::from_utf8_lossy(line.get(..line.len().min(60)).unwrap_or_default()));
            let is_right = wanted.contains(&fields.len());
            is_right.then_some(Some((nth, fields))).ok_or_else(|| wrong(nth, &format!("\"{}\"", shown())))
        };
        let Some((nth, status)) = fields(2..4)? else { return Err(wrong(0, "not there")) };
        if number(status.first()).is_none()
            || !matches!(status.get(1), Some(&[b'?' | b'*' | b'/' | b'-' | b'F' | b'G' | b'+']))
        {
            return Err(wrong(nth, "no status line"));
        }
        let mut map = Self::default();
        let mut expected = None;
        while let Some((nth, block)) = fields(3..4)? {
            let (start, len) = (number(block.first()), number(block.get(1)).filter(|len| *len > 0));
            let end = start.and_then(|start| start.checked_add(len?));
            let (Some(start), Some(end)) = (start, end) else { return Err(wrong(nth, "no block")) };
            if expected.is_some_and(|expected| expected != start) {
                return Err(wrong(nth, "a block that does not start where the one before it ends"));
            }
            expected = Some(end);
            match block.get(2) {
                Some(&[b'+']) => map.add(start..end),
                Some(&[b'?' | b'*' | b'/' | b'-']) => {}
                _ => return Err(wrong(nth, "of no status that is known")),
            }
        }
        Ok(map)
    }

    /// Adds what was rescued behind all that was before.
    fn add(&mut self, range: Range<u64>) {
        match self.rescued.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.rescued.push(range),
        }
    }

    /// The map of `len` bytes from `start` on, of which `lost`, in their order, are bad.
    pub fn of_lost(start: u64, len: u64, lost: impl IntoIterator<Item = Range<u64>>) -> Self {
        let end = start.saturating_add(len);
        let (mut map, mut at) = (Self::default(), start);
        for range in lost {
            let (from, to) = (range.start.clamp(at, end), range.end.clamp(at, end));
            if from > at {
                map.add(at..from);
            }
            at = to;
        }
        if at < end {
            map.add(at..end);
        }
        map
    }

    /// How many bytes from `offset` on are alike, and whether they were rescued.
    fn run_at(&self, offset: u64) -> (u64, bool) {
        let next = self.rescued.partition_point(|range| range.end <= offset);
        match self.rescued.get(next) {
            Some(range) if range.start <= offset => (range.end.saturating_sub(offset), true),
            Some(range) => (range.start.saturating_sub(offset), false),
            None => (u64::MAX.saturating_sub(offset), false),
        }
    }

    /// The mapfile's text, for `len` bytes from `start` on.
    pub fn text(&self, start: u64, len: u64) -> String {
        let mut text = String::from(
            "# Mapfile\n# current_pos  current_status  current_pass\n0x00000000     +               1\n#      pos        size  status\n",
        );
        let (mut at, end) = (start, start.saturating_add(len));
        if start > 0 {
            let _ = writeln!(text, "0x{:08X}  0x{start:08X}  ?", 0);
        }
        while at < end {
            let (run, rescued) = self.run_at(at);
            let run = run.min(end.saturating_sub(at)).max(1);
            let _ = writeln!(text, "0x{at:08X}  0x{run:08X}  {}", if rescued { '+' } else { '-' });
            at = at.saturating_add(run);
        }
        text
    }
}

/// A number as C writes it.
fn number(field: Option<&&[u8]>) -> Option<u64> {
    let text = std::str::from_utf8(field?).ok()?;
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    // from_str_radix takes a sign.
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

/// A copy of a medium, where what could not be read from that is an error here, too.
pub struct Rescued {
    copy: Arc<dyn ReadAt>,
    map: RescueMap,
}

impl Rescued {
    /// Reads `copy`, of which `map` says what was rescued.
    pub fn new(copy: Arc<dyn ReadAt>, map: RescueMap) -> Self {
        Self { copy, map }
    }
}

impl ReadAt for Rescued {
    fn len(&self) -> u64 {
        self.copy.len()
    }

    fn pipe(&self) -> Option<&Pipe> {
        self.copy.pipe()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        let (run, rescued) = self.map.run_at(offset);
        if !buf.is_empty() && (!rescued || run < to_u64(buf.len())) {
            let at = if rescued { offset.saturating_add(run) } else { offset };
            return Err(Error::new(ErrorKind::Io, "could not be read from the medium when it was copied").at(at));
        }
        self.copy.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let (run, rescued) = self.map.run_at(offset);
        let extent = self.copy.extent_at(offset)?;
        Ok(Extent { len: extent.len.min(run), zero: extent.zero && rescued })
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.copy.will_need(offset, len);
    }

    fn wont_need(&self, offset: u64, len: u64) {
        self.copy.wont_need(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From ddrescue's manual, with a hole between two blocks closed.
    const MAP: &str = "\
# Mapfile. Created by GNU ddrescue version 1.30
# Command line: ddrescue -d /dev/fd0 fdimage mapfile
# Start time:   2025-01-01 00:00:00
# current_pos  current_status  current_pass
0x00039C00     ?               1
#      pos        size  status
0x00000000  0x00117000  +
0x00117000  0x00000200  -
0x00117200  0x00001000  /
0x00118200  0x00007E00  *
0x00120000  0x00048000  ?
";

    #[test]
    fn a_map_says_what_was_rescued() {
        let map = RescueMap::parse(MAP.as_bytes()).unwrap();
        assert_eq!((map.rescued.len(), map.run_at(0)), (1, (0x0011_7000, true)));
        // An older version's, in decimal and octal.
        let map = RescueMap::parse(b"0 -\n0 512 -\n512 01000 +\n1024 0x200 ?\n1536 5 +").unwrap();
        assert_eq!(map.rescued, [512..1024, 1536..1541]);
        let copy = Rescued::new(Arc::new(vec![7u8; 2000]), map);
        let read = |offset, n| copy.read_exact_at(&mut vec![0; n], offset).map_err(|e| (e.kind(), e.offset()));
        assert_eq!(read(512, 512), Ok(()));
        assert_eq!(read(512, 513), Err((ErrorKind::Io, Some(1024))));
        assert_eq!(read(511, 1), Err((ErrorKind::Io, Some(511))));
        assert_eq!(read(1536, 5), Ok(()));
        assert_eq!(read(1541, 1), Err((ErrorKind::Io, Some(1541))), "behind the last block nothing was tried");
        assert_eq!(read(1900, 200).unwrap_err().0, ErrorKind::Io);
        assert_eq!(read(0, 0), Ok(()));
        assert_eq!(copy.extent_at(100).unwrap(), Extent { len: 412, zero: false });
    }

    #[test]
    fn what_is_no_map_is_refused_with_its_line() {
        for (text, line) in [
            ("", "line 1"),
            ("# only\n\n", "line 1"),
            ("0x0 +\n0 512 +\n513 1 +\n", "line 3"),
            ("0x0 +\n0 0 +\n", "line 2"),
            ("0x0 +\n0 512 !\n", "line 2"),
            ("0x0 +\n+1 512 -\n", "line 2"),
            ("0x0 +\n0xFFFFFFFFFFFFFFFF 2 -\n", "line 2"),
            ("0x0 Q\n", "line 1"),
            ("<html>\n", "line 1"),
        ] {
            let e = RescueMap::parse(text.as_bytes()).unwrap_err();
            assert!(e.to_string().contains(line), "{text:?}: {e}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let map = RescueMap::of_lost(4096, 10_000, [0..100, 5000..5512, 5512..6000, 14_000..20_000]);
        assert_eq!(map.rescued, [4096..5000, 6000..14_000]);
        let text = map.text(4096, 10_000);
        assert_eq!(RescueMap::parse(text.as_bytes()).unwrap(), map, "{text}");
        assert!(text.contains("0x00001388  0x000003E8  -\n"), "{text}");
    }
}
