//! What a page draws: lines of one scale, and the picture of the plaintext, in SVG.

use std::fmt::Write;

use unluks::error::visible;
use unluks::verify::{Report, Severity};

/// The length of a whole line, in units of its drawing.
const WHOLE: u64 = 1000;
/// Cells of a row of the picture.
const COLUMNS: usize = 64;

/// A line with what it says.
pub struct Bar {
    pub name: String,
    pub says: String,
    pub start: u64,
    pub len: u64,
    pub class: &'static str,
}

/// The picture of the plaintext.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// The outline of all cells of a class.
    pub paths: Vec<(String, String)>,
    /// The outlines of cells with findings.
    pub marks: String,
    /// What each class is, with how many cells it has.
    pub legend: Vec<(String, &'static str, usize)>,
    pub cell_bytes: u64,
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            format!("{bytes} bytes ({}.{} {unit})", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

/// Bytes as a part of `all`, in units of a whole line.
fn part(bytes: u64, all: u64) -> u64 {
    let part = (u128::from(bytes) * u128::from(WHOLE)).checked_div(all.into()).unwrap_or(0);
    u64::try_from(part).unwrap_or(WHOLE).min(WHOLE)
}

/// Tenths of a percent, rounded down: 100.0 is all of it.
fn percent(bytes: u64, all: u64) -> String {
    let part = part(bytes, all);
    format!("{}.{} %", part / 10, part % 10)
}

/// What lies on what, each as long as it is.
pub fn layers(report: &Report) -> Vec<Bar> {
    let container = report.container.as_ref();
    let plaintext = report.coverage.plaintext_bytes.unwrap_or(0);
    let end = container.map_or(0, |container| container.data_offset.saturating_add(plaintext));
    let most = report.layers.iter().map(|layer| layer.size).chain([end, report.image.size.unwrap_or(0)]).max();
    let most = most.unwrap_or(0);
    let bar = |name: String, start: u64, bytes: u64, class| {
        let (start, len) = (part(start, most), part(bytes, most).max(2));
        Bar { name, says: size(bytes), start: start.min(WHOLE - 2), len, class }
    };
    let mut bars: Vec<Bar> = Vec::new();
    if report.layers.is_empty() {
        bars.extend(report.image.size.map(|size| bar("file".into(), 0, size, "layer")));
    }
    for layer in &report.layers {
        bars.push(bar(visible(&format!("{} {}", layer.kind.name(), layer.name)), 0, layer.size, "layer"));
    }
    if let Some(container) = container {
        bars.push(bar("LUKS: header and keyslots".into(), 0, container.header_bytes, "header"));
        if plaintext > 0 {
            // Tags and a journal lie before and between the data of dm-integrity, up to the end of what holds it all.
            let holder = report.layers.last().map(|layer| layer.size).or(report.image.size);
            let behind = holder.unwrap_or(0).saturating_sub(container.data_offset);
            let has_tags = container.ciphers.iter().any(|cipher| cipher.contains(" with "));
            let (name, bytes) = if has_tags && behind > plaintext {
                ("LUKS: encrypted data, with tags and journal of dm-integrity", behind)
            } else {
                ("LUKS: encrypted data", plaintext)
            };
            bars.push(bar(name.into(), container.data_offset, bytes, "data"));
        }
    }
    bars
}

/// How much of the plaintext what was proven of.
pub fn coverage(report: &Report) -> Vec<Bar> {
    let coverage = &report.coverage;
    let Some(all) = coverage.plaintext_bytes.filter(|all| *all > 0) else { return Vec::new() };
    let bar = |name: &str, bytes: u64, of: u64, class| Bar {
        name: name.into(),
        says: format!("{}: {}", size(bytes), percent(bytes, of)),
        start: 0,
        len: part(bytes, of),
        class,
    };
    let file = report.image.size.unwrap_or(0);
    let mut bars = vec![
        bar("of the plaintext that is there, read and decrypted", coverage.read_bytes, all, "data"),
        bar("of that, zero", coverage.zero_bytes, all, "zero"),
    ];
    // What was not asked, or is not there, has no line: what was not checked is said below in words.
    let mut more = |name: &str, bytes: Option<u64>, of, class| {
        bars.extend(bytes.map(|bytes| bar(name, bytes, of, class)));
    };
    let some = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
    more(
        "of the plaintext, under a tag of dm-integrity that is right",
        some(coverage.authenticated_bytes),
        all,
        "good",
    );
    more("of the plaintext, the same as in an earlier copy", some(coverage.compared_bytes), all, "good");
    more("of the plaintext, under a right checksum of its file system", coverage.checksummed_bytes, all, "good");
    more("of the plaintext, in use by its file system, and under none", coverage.unchecked_bytes, all, "open");
    more("of the plaintext, free by its file system", coverage.free_bytes, all, "zero");
    let behind = coverage.behind_bytes.and_then(some);
    more("of the plaintext, behind the end of its file system, and none of its own", behind, all, "open");
    more("of the image, as a recorded hash says", some(coverage.hashed_bytes), file, "good");
    more("of the image, unreadable", Some(coverage.unreadable_bytes), file, "bad");
    bars
}

/// The picture, where the plaintext went by.
pub fn map(report: &Report) -> Option<Picture> {
    let map = report.map.as_ref().filter(|map| !map.cells.is_empty())?;
    let cells: Vec<char> = map.cells.chars().collect();
    let classes = [
        ('.', "not all of it was read"),
        ('0', "zeroes"),
        ('1', "1 bit of entropy a byte, or less"),
        ('2', "2 bits"),
        ('3', "3 bits"),
        ('4', "4 bits"),
        ('5', "5 bits: text"),
        ('6', "6 bits: programs"),
        ('7', "7 bits"),
        ('8', "8 bits: compressed, encrypted, or noise"),
    ];
    let (mut paths, mut legend) = (Vec::new(), Vec::new());
    for (class, what) in classes {
        let name = format!("c{}", if class == '.' { 'x' } else { class });
        let count = cells.iter().filter(|cell| **cell == class).count();
        if count > 0 {
            paths.push((name.clone(), outline(&cells, |n| cells[n] == class)));
            legend.push((name, what, count));
        }
    }
    let place = |at: u64| at.checked_div(map.cell_bytes).and_then(|n| usize::try_from(n).ok());
    let found = report.findings.iter().filter(|f| f.severity > Severity::Note).filter_map(|f| f.plaintext_offset);
    let found: Vec<usize> = found.filter_map(place).collect();
    let marks = outline(&cells, |n| found.contains(&n));
    let height = cells.len().div_ceil(COLUMNS);
    Some(Picture { width: COLUMNS, height, paths, marks, legend, cell_bytes: map.cell_bytes })
}

/// The outline of the cells that `is_of` takes, runs of them together.
fn outline(cells: &[char], is_of: impl Fn(usize) -> bool) -> String {
    let mut path = String::new();
    let mut n = 0;
    while n < cells.len() {
        let row_end = (n / COLUMNS + 1) * COLUMNS;
        let run = (n..cells.len().min(row_end)).take_while(|n| is_of(*n)).count();
        if run > 0 {
            let _ = write!(path, "M{} {}h{run}v1h-{run}z", n % COLUMNS, n / COLUMNS);
        }
        n += run.max(1);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_cells_are_one_outline_and_end_with_the_row() {
        let cells: Vec<char> = "0".repeat(130).chars().collect();
        assert_eq!(outline(&cells, |n| !(2..=126).contains(&n)), "M0 0h2v1h-2zM63 1h1v1h-1zM0 2h2v1h-2z");
        assert_eq!(outline(&cells, |_| false), "");
    }

    #[test]
    fn sizes_and_parts() {
        assert_eq!((size(1000), size(1536)), ("1000 bytes".into(), "1536 bytes (1.5 KiB)".into()));
        assert_eq!(size(u64::MAX), "18446744073709551615 bytes (16777215.9 TiB)");
        assert_eq!((percent(984, 1000), percent(u64::MAX - 1, u64::MAX)), ("98.4 %".into(), "99.9 %".into()));
        assert_eq!((part(1, 2), part(u64::MAX, u64::MAX), part(5, 0), part(9, 3)), (500, 1000, 0, 1000));
    }
}
