//! `--map`: where the bytes of an image or a plaintext are zero, text or noise, as lines of cells.

use std::fmt::Write;

use unluks::locate::{FindOptions, ways};
use unluks::map::{Map, survey};
use unluks::progress::Progress;
use unluks::{ReadAt, Result};

use crate::signals;
use crate::source::Disk;
use crate::terminal;

/// Cells of a line, where there is room.
const COLUMNS: usize = 64;
/// And where there is none.
const COLUMNS_MIN: usize = 16;

/// What a line is drawn with.
struct Signs {
    zero: char,
    low: char,
    middle: char,
    high: char,
}

const UNICODE: Signs = Signs { zero: '·', low: '░', middle: '▒', high: '█' };
const ASCII: Signs = Signs { zero: '.', low: '-', middle: '+', high: '#' };
const HEADER: char = 'L';
const UNREADABLE: char = '!';

impl Signs {
    fn of(&self, cell: char) -> char {
        match cell {
            '.' => UNREADABLE,
            '0' => self.zero,
            '1'..='4' => self.low,
            '5'..='7' => self.middle,
            _ => self.high,
        }
    }
}

/// Looks at a disk, until somebody stops it.
pub fn of(disk: &dyn ReadAt) -> Result<Map> {
    let progress = Progress::default();
    signals::stop_by(&progress.cancel_flag())?;
    survey(disk, &progress)
}

/// The places of the LUKS headers that lie at the beginning of something.
pub fn headers(disk: &Disk, name: String) -> Result<Vec<u64>> {
    let options = FindOptions { name, with: disk.with.clone(), ..FindOptions::default() };
    let found = ways(&disk.disk, disk.sector_size, &options)?.found;
    let is_luks = |way: &unluks::locate::Way| unluks::luks::recover::open(&way.disk).is_ok();
    Ok(found.into_iter().filter(is_luks).filter_map(|way| way.start).collect())
}

/// The map of `len` bytes for people, with an `L` where a LUKS header is.
pub fn render(map: &Map, len: u64, headers: &[u64]) -> String {
    draw(map, len, headers, if terminal::is_unicode() { &UNICODE } else { &ASCII }, terminal::columns())
}

/// Draws it for a terminal so wide; 64 cells in a line where it is none.
fn draw(map: &Map, len: u64, headers: &[u64], signs: &Signs, width: Option<usize>) -> String {
    let offset = len.to_string().len();
    let mut columns = COLUMNS;
    // Halves, so that a line begins at a round place.
    while columns > COLUMNS_MIN && width.is_some_and(|width| offset.saturating_add(1).saturating_add(columns) > width) {
        columns /= 2;
    }
    let place = |at: &u64| at.checked_div(map.cell_bytes).and_then(|n| usize::try_from(n).ok());
    let headers: Vec<usize> = headers.iter().filter_map(place).collect();
    let cells: Vec<char> = map.cells.chars().collect();
    let mut text = format!("{len} bytes, {} in a cell\n", map.cell_bytes);
    for (n, line) in cells.chunks(columns).enumerate() {
        let first = n.saturating_mul(columns);
        let start = u64::try_from(first).unwrap_or(u64::MAX).saturating_mul(map.cell_bytes);
        let sign = |(n, cell): (usize, &char)| {
            if headers.contains(&first.saturating_add(n)) { HEADER } else { signs.of(*cell) }
        };
        let line: String = line.iter().enumerate().map(sign).collect();
        let _ = writeln!(text, "{start:>offset$} {line}");
    }
    let drawn = |of: &dyn Fn(char) -> bool| cells.iter().any(|cell| of(*cell));
    let legend = [
        (!headers.is_empty(), HEADER, "a LUKS header"),
        (drawn(&|cell| cell == '0'), signs.zero, "zero"),
        (drawn(&|cell| ('1'..='4').contains(&cell)), signs.low, "tables, sparse data"),
        (drawn(&|cell| ('5'..='7').contains(&cell)), signs.middle, "text, programs"),
        (drawn(&|cell| cell == '8'), signs.high, "encrypted, compressed or noise"),
        (drawn(&|cell| cell == '.'), UNREADABLE, "cannot be read"),
    ];
    let legend: Vec<String> =
        legend.into_iter().filter(|(is_there, ..)| *is_there).map(|(_, sign, what)| format!("{sign} {what}")).collect();
    let legend = legend.join("   ");
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(offset).saturating_sub(1));
    if legend.chars().count() <= room {
        let _ = writeln!(text, "{:>offset$} {legend}", "");
    } else {
        legend.split("   ").for_each(|sign| text.extend(["  ", sign, "\n"]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_lines_of_cells() {
        let json = format!(r#"{{"cell_bytes": 4096, "cells": "{}8."}}"#, "0158".repeat(16));
        let map: Map = serde_json::from_str(&json).unwrap();
        let text = draw(&map, 66 * 4096, &[4097], &ASCII, None);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "270336 bytes, 4096 in a cell");
        assert!(lines[1].starts_with("     0 .L+#.-+#") && lines[1].len() == 7 + COLUMNS);
        assert_eq!(lines[2], "262144 #!");
        assert!(lines[3].contains("L a LUKS header") && lines[3].contains("! cannot be read"));
        assert!(draw(&map, 66 * 4096, &[], &UNICODE, None).contains("·░▒█"));
        for (width, wanted) in [(80, 71), (71, 71), (70, 39), (40, 39), (39, 39), (38, 23), (10, 23)] {
            let text = draw(&map, 66 * 4096, &[4097], &ASCII, Some(width));
            assert_eq!(text.lines().nth(1).map(str::len), Some(wanted), "{width}");
            assert!(width < 32 || text.lines().all(|line| line.len() <= width), "{width}: {text}");
        }
    }
}
