//! `rpmdb.sqlite`: headers in a table of SQLite (sqlite.org/fileformat2.html), with what its log (`-wal`) has beside it.
//!
//! | database header | | page of a table | | frame of the log, behind its header of 32 bytes | |
//! |---|---|---|---|---|---|
//! | 0..16 | `SQLite format 3\0` | 0 | 13: records; 5: pages below | 0..4 | page |
//! | 16..18 | page size; 1 is 65536 | 3..5 | number of cells | 4..8 | pages in all, where it ends a change |
//! | 20 | bytes at each page's end that are not used | 8..12 | last page below | 8..16 | the log's salt |
//! | 28..32 | pages in all | 8 or 12.. | places of the cells | 16..24 | checksum of all before and this |
//!
//! A record is a header of its columns' types and then their values; what does not fit into its page goes on in a chain of
//! others. The table is `Packages`, whose second column is the header.

use std::collections::BTreeMap;

use super::{Pages, Source, range};
use crate::error::{Error, Result};
use crate::limits::VERIFY_PACKAGES_TEXT_MAX;
use crate::num::to_u64;
use crate::reader::is_absent;
use crate::reader::walk::{Follow, resolve};

/// How deep a table may be: four billion pages of two hundred each are five.
const DEPTH_MAX: usize = 16;
const HEADER: u64 = 100;

fn wrong(message: impl Into<String>) -> Error {
    Error::corrupt("packages.rpm", message)
}

/// A database, and what its log has of it.
struct Database {
    page_size: u64,
    /// Bytes of a page that are used.
    usable: u64,
    pages: u64,
    /// Where the log has the last state of a page.
    log: BTreeMap<u64, u64>,
    log_path: Vec<u8>,
    log_len: u64,
}

/// Gives `take` each header.
pub fn headers(
    source: &mut Source<'_, '_, '_, '_>,
    take: &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let database = Database::open(source)?;
    let mut root = None;
    database.records(source, 1, &mut |_, record| {
        // type, name, tbl_name, rootpage, sql
        let columns = columns(&record)?;
        let is = |n: usize, wanted: &[u8]| columns.get(n).is_some_and(|(_, value)| *value == wanted);
        if is(0, b"table") && is(1, b"Packages") {
            root = columns.get(3).map(|(_, value)| value.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte)));
        }
        Ok(())
    })?;
    let root = root.ok_or_else(|| wrong("it has no table Packages"))?;
    database.records(source, root, &mut |source, record| {
        let header = columns(&record)?.get(1).map(|(_, value)| value.to_vec());
        take(source, header.ok_or_else(|| wrong("a record of Packages has no header"))?)
    })
}

impl Database {
    fn open(source: &mut Source<'_, '_, '_, '_>) -> Result<Self> {
        let header = source.read(0, HEADER)?;
        let size = match header.get(16..).and_then(|b| b.first_chunk::<2>()).map(|b| u16::from_be_bytes(*b)) {
            Some(1) => 65_536,
            size => u64::from(size.unwrap_or(0)),
        };
        if !header.starts_with(b"SQLite format 3\0") || !size.is_power_of_two() || size < 512 {
            return Err(wrong(format!("it is no database of SQLite with pages of 512 to 65536 bytes, but of {size}")));
        }
        let unused = header.get(20).map_or(0, |byte| u64::from(*byte));
        let usable = size.saturating_sub(unused);
        if usable < 480 {
            return Err(wrong(format!("{unused} bytes of each page of {size} are said to be unused")));
        }
        let mut database = Self {
            page_size: size,
            usable,
            pages: source.len().checked_div(size).unwrap_or(0),
            log: BTreeMap::new(),
            log_path: [source.path(), b"-wal"].concat(),
            log_len: 0,
        };
        database.read_log(source)?;
        Ok(database)
    }

    /// The pages that the log has of changes that were finished.
    fn read_log(&mut self, source: &mut Source<'_, '_, '_, '_>) -> Result<()> {
        let len = match resolve(source.fs, &self.log_path, Follow::Last) {
            Ok((path, metadata)) => {
                self.log_path = path;
                metadata.size
            }
            Err(e) if is_absent(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        const LOG_HEADER: u64 = 32;
        if len < LOG_HEADER {
            return Ok(());
        }
        self.log_len = len;
        let mut log = Source::new(&mut *source.fs, &mut *source.held, self.log_path.clone(), len);
        let header = log.read(0, LOG_HEADER)?;
        let number = |bytes: &[u8], at: usize| {
            bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| u32::from_be_bytes(*b))
        };
        let magic = number(&header, 0);
        if magic & !1 != 0x377f_0682 || u64::from(number(&header, 8)) != self.page_size {
            return Ok(());
        }
        let sum = Sum { is_big: magic & 1 == 1 };
        let mut checksum = sum.over((0, 0), header.get(..24).unwrap_or_default());
        // A log that was begun anew, and is not whole, has nothing.
        if checksum != (number(&header, 24), number(&header, 28)) {
            return Ok(());
        }
        let frame = self.page_size.saturating_add(24);
        let mut at = LOG_HEADER;
        let mut waiting = BTreeMap::new();
        while at.saturating_add(frame) <= len {
            let bytes = log.read(at, frame)?;
            checksum = sum.over(checksum, bytes.get(..8).unwrap_or_default());
            checksum = sum.over(checksum, bytes.get(24..).unwrap_or_default());
            let is_of_log = bytes.get(8..16) == header.get(16..24);
            if !is_of_log || checksum != (number(&bytes, 16), number(&bytes, 20)) {
                break;
            }
            waiting.insert(u64::from(number(&bytes, 0)), at.saturating_add(24));
            if let pages @ 1.. = number(&bytes, 4) {
                self.log.append(&mut waiting);
                self.pages = u64::from(pages);
            }
            at = at.saturating_add(frame);
        }
        Ok(())
    }

    /// A page, counted from 1 on.
    fn page(&self, source: &mut Source<'_, '_, '_, '_>, page: u64) -> Result<Vec<u8>> {
        if let Some(at) = self.log.get(&page) {
            let mut log = Source::new(&mut *source.fs, &mut *source.held, self.log_path.clone(), self.log_len);
            return log.read(*at, self.page_size);
        }
        let at = page.checked_sub(1).and_then(|n| n.checked_mul(self.page_size));
        source.read(at.ok_or_else(|| wrong(format!("there is no page {page}")))?, self.page_size)
    }

    /// Gives `take` the records of the table whose first page is `root`.
    fn records(
        &self,
        source: &mut Source<'_, '_, '_, '_>,
        root: u64,
        take: &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let mut seen = Pages::new(self.pages)?;
        // Pages that are to be gone into, with their depths; the first is the last.
        let mut left = vec![(root, 0usize)];
        while let Some((number, depth)) = left.pop() {
            seen.enter(number.checked_sub(1).ok_or_else(|| wrong("a place leads to page 0"))?)?;
            let page = self.page(source, number)?;
            let start = if number == 1 { 100 } else { 0usize };
            let field = |skip: usize| start.saturating_add(skip);
            let byte = |at: usize| page.get(at).copied().unwrap_or(0);
            let word = |at: usize| usize::from(byte(at)) << 8 | usize::from(byte(at.saturating_add(1)));
            let below = |at: usize| {
                let bytes = page.get(at..).and_then(|rest| rest.first_chunk::<4>());
                bytes.map_or(0, |bytes| u64::from(u32::from_be_bytes(*bytes)))
            };
            let cells = word(field(3));
            let first = match byte(start) {
                5 => field(12),
                13 => field(8),
                kind => return Err(wrong(format!("page {number} is of kind {kind}, and not of a table"))),
            };
            if cells > page.len() / 2 {
                return Err(wrong(format!("page {number} is said to have {cells} cells")));
            }
            let places: Vec<usize> = (0..cells).map(|n| word(first.saturating_add(n.saturating_mul(2)))).collect();
            if byte(start) == 5 {
                if depth >= DEPTH_MAX {
                    return Err(wrong(format!("the table is more than {DEPTH_MAX} pages deep")));
                }
                let all = places.iter().map(|at| below(*at)).chain([below(field(8))]);
                let mut all: Vec<_> = all.map(|page| (page, depth.saturating_add(1))).collect();
                all.reverse();
                left.append(&mut all);
                continue;
            }
            for at in places {
                let record = self.record(source, &page, at, &mut seen)?;
                take(source, record)?;
            }
        }
        Ok(())
    }

    /// The record of a cell, with what lies in other pages.
    fn record(&self, source: &mut Source<'_, '_, '_, '_>, page: &[u8], at: usize, seen: &mut Pages) -> Result<Vec<u8>> {
        let cell = page.get(at..).unwrap_or_default();
        let cut = || wrong("a cell reaches beyond its page");
        let (len, behind) = varint(cell).ok_or_else(cut)?;
        let (_, payload) = varint(behind).ok_or_else(cut)?;
        if len > VERIFY_PACKAGES_TEXT_MAX {
            let message = format!("a record has {len} bytes; {VERIFY_PACKAGES_TEXT_MAX} are read");
            return Err(Error::limit("verify.text", message));
        }
        let (most, chained) = (self.usable.saturating_sub(35), self.usable.saturating_sub(4));
        let least = self.usable.saturating_sub(12).saturating_mul(32) / 255;
        let least = least.saturating_sub(23);
        let here = if len <= most {
            len
        } else {
            let fitting = least.saturating_add(len.saturating_sub(least).checked_rem(chained).unwrap_or(0));
            if fitting <= most { fitting } else { least }
        };
        let mut record = payload.get(range(0, here)?).ok_or_else(cut)?.to_vec();
        let mut next = payload.get(record.len()..).and_then(|rest| rest.first_chunk::<4>()).copied();
        while to_u64(record.len()) < len {
            let number = u64::from(u32::from_be_bytes(next.ok_or_else(cut)?));
            seen.enter(number.checked_sub(1).ok_or_else(|| wrong("a record's chain ends before it does"))?)?;
            let page = self.page(source, number)?;
            let more = chained.min(len.saturating_sub(to_u64(record.len())));
            record.extend(page.get(range(4, more)?).ok_or_else(cut)?);
            next = page.first_chunk::<4>().copied();
        }
        Ok(record)
    }
}

/// The columns of a record: their types and their bytes.
fn columns(record: &[u8]) -> Result<Vec<(u64, &[u8])>> {
    let cut = || wrong("a record is shorter than its header says");
    let (header_len, _) = varint(record).ok_or_else(cut)?;
    let header = record.get(range(0, header_len)?).ok_or_else(cut)?;
    let (_, mut types) = varint(header).ok_or_else(cut)?;
    let mut at = header_len;
    let mut all = Vec::new();
    while !types.is_empty() {
        let (kind, behind) = varint(types).ok_or_else(cut)?;
        let len = match kind {
            0 | 8 | 9 => 0,
            1..=4 => kind,
            5 => 6,
            6 | 7 => 8,
            _ => kind.saturating_sub(12) / 2,
        };
        all.push((kind, record.get(range(at, len)?).ok_or_else(cut)?));
        (at, types) = (at.saturating_add(len), behind);
    }
    Ok(all)
}

/// A number of 7 bits a byte, and of 8 in the ninth; and what is behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0u64;
    for n in 0..9 {
        let byte = *bytes.get(n)?;
        let behind = bytes.get(n.saturating_add(1)..)?;
        if n == 8 {
            return Some((number << 8 | u64::from(byte), behind));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, behind));
        }
    }
    None
}

/// The log's checksum, over pairs of numbers.
struct Sum {
    is_big: bool,
}

impl Sum {
    fn over(&self, start: (u32, u32), bytes: &[u8]) -> (u32, u32) {
        let number =
            |bytes: &[u8; 4]| if self.is_big { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) };
        let (pairs, _) = bytes.as_chunks::<4>().0.as_chunks::<2>();
        pairs.iter().fold(start, |(first, second), [a, b]| {
            let first = first.wrapping_add(number(a)).wrapping_add(second);
            (first, second.wrapping_add(number(b)).wrapping_add(first))
        })
    }
}
