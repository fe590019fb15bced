//! Images that were cut into pieces of equal length (`split`, FTK Imager, `dd`, 7-Zip), which are read as one.
//!
//! | pieces are called | by |
//! |---|---|
//! | `X.001`, `X.002` … `X.999`, `X.1000` | FTK Imager, 7-Zip, `split -d -a 3 --numeric-suffixes=1` |
//! | `X.000`, `X.00`, `X.01`, `X.0001` | the same with other widths and starts |
//! | `X.aa` … `X.yz`, `X.zaaa` | `split` with a prefix that ends in a dot; it widens names where they run out |
//! | `X.AA`, `X.0a` … `X.0f`, `X.10` | the same in capitals; in hexadecimal, which `09` beside `0a` tells (`split -x`) |
//! | `X.1` … `X.9`, `X.10`; `X.0` | numbers without leading zeroes, where there is more than one |
//! | `xaa`, `part-aa`, `x00` | `split` with any other prefix |
//! | `X.001.dd`, `X.part0`, `X.part1.img` | imaging tools and `split --additional-suffix` |
//! | `X000.img`, `X001.img` | the same, but separate disks are called so more often: see below |
//!
//! No image names these files: the names follow from the one that was given. What else may be called so, copies of a
//! disk with a number or a date behind them, is told by how it begins: a piece does not begin as the first one does.
//! The pieces but the last are of one length. Where a table or a label tells that the first file is all of its disk, it
//! is. Numbers at the end of a stem are taken for those of pieces only where the first file begins as something that is
//! known, does not end where that ends, and the others go on as it would; where that cannot be told, it is refused.
//!
//! # Security
//! Only regular files in the directory of the file that was given are taken, no links, and only those whose names follow.

mod beginning;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use beginning::{Beginning, Extent, Start};

use crate::error::{Condition, Error, Result, shown};
use crate::limits::SPLIT_PIECES_MAX;

/// Letters that are no pieces lie further from the last one than this: `.gz` beside `.aa` is no gap.
const LETTERS_GAP: usize = 26;
/// The most digits of a number, so that a date is none, and the most characters of an extension behind it.
const NUMBER_MAX: usize = 6;
const EXTENSION_MAX: usize = 8;

/// The pieces of an image.
pub(super) struct Pieces {
    /// All of them in their order, the first one first.
    pub all: Vec<PathBuf>,
    /// What the user should know of them, one line each.
    pub notes: Vec<String>,
}

/// The pieces of the image that `given` is one of; `None` where it is an image of its own.
///
/// `apart` are files that were named for something else, and are no pieces.
pub(super) fn pieces(given: &Path, apart: &[&Path]) -> Result<Option<Pieces>> {
    let Some(name) = given.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
    if !given.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    // Where a first piece is there, it tells how the names are meant.
    let (led, others): (Vec<Series>, Vec<Series>) =
        Series::of(name).into_iter().partition(|series| series.first(given).is_some());
    for series in led.into_iter().chain(others) {
        if let Some(pieces) = series.pieces(given, apart)? {
            return Ok(Some(pieces));
        }
    }
    Ok(None)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    Decimal,
    Hex,
    Letters,
    Capitals,
}

impl Digits {
    fn alphabet(self) -> &'static str {
        match self {
            Self::Decimal => "0123456789",
            Self::Hex => "0123456789abcdef",
            Self::Letters => "abcdefghijklmnopqrstuvwxyz",
            Self::Capitals => "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        }
    }

    /// The first digit and the last.
    fn range(self) -> (char, char) {
        let mut all = self.alphabet().chars();
        let first = all.next().unwrap_or_default();
        (first, all.next_back().unwrap_or_default())
    }

    /// The digit that follows `c`.
    fn next(self, c: char) -> Option<char> {
        self.alphabet().chars().skip_while(|digit| *digit != c).nth(1)
    }

    fn holds(self, text: &str) -> bool {
        text.chars().all(|c| self.alphabet().contains(c))
    }

    /// Whether they are letters alone, as the endings of many names are.
    fn is_text(self) -> bool {
        matches!(self, Self::Letters | Self::Capitals)
    }
}

/// A way to take a name for that of a piece.
#[derive(Debug, PartialEq, Eq)]
struct Series {
    stem: String,
    suffix: String,
    /// What follows the suffix: the extension, where that is behind the number.
    tail: String,
    /// How long the first piece's suffix is.
    width: usize,
    digits: Digits,
}

impl Series {
    /// The ways to take `name`, the likeliest first.
    fn of(name: &str) -> Vec<Self> {
        let run = |digits: Digits| name.chars().rev().take_while(|c| digits.holds(c.encode_utf8(&mut [0; 4]))).count();
        let (count, digits) = match (run(Digits::Decimal), run(Digits::Letters)) {
            (0, 0) => (run(Digits::Capitals), Digits::Capitals),
            (0, count) => (count, Digits::Letters),
            (count, _) => (count, Digits::Decimal),
        };
        let cut = |width: usize| name.split_at(name.len().saturating_sub(width));
        let way = |of: usize, width: usize| {
            let (stem, suffix) = cut(of);
            Self { stem: stem.into(), suffix: suffix.into(), tail: String::new(), width, digits }
        };
        let mut ways = Self::of_inner(name);
        let hex = run(Digits::Hex);
        let (before, _) = cut(hex);
        // Numbers alone may be of either kind: hexadecimal where what only that has lies beside them.
        if before.len() > 1 && before.ends_with('.') && (2..=4).contains(&hex) {
            ways.push(Self { digits: Digits::Hex, ..way(hex, hex) });
        }
        let (before, suffix) = cut(count);
        if before.ends_with('.') {
            let (least, most) = if digits.is_text() { (2, 4) } else { (1, NUMBER_MAX) };
            // A name that is a suffix alone is that of a hidden file.
            if before.len() > 1 && (least..=most).contains(&count) {
                ways.push(way(count, count));
                // Names that ran out were widened: by one digit, or by two as split does it.
                let widened =
                    if digits.is_text() { suffix.starts_with(digits.range().1) } else { !suffix.starts_with('0') };
                ways.extend([1, 2].iter().filter(|_| widened).filter_map(|less| {
                    let width = count.checked_sub(*less).filter(|width| *width >= least)?;
                    Some(way(count, width))
                }));
            }
            return ways;
        }
        // A number behind "part" is among the ways above.
        for width in [2, 3, 4].into_iter().filter(|width| *width <= count && *width < name.len() && !is_part(before)) {
            ways.push(way(width, width));
        }
        ways
    }

    /// The ways to take a name with its number before the extension, or behind `part`.
    fn of_inner(name: &str) -> Vec<Self> {
        let is_short = |tail: &&str| tail.len() <= EXTENSION_MAX && tail.chars().all(|c| c.is_ascii_alphanumeric());
        let inner = name.rsplit_once('.').filter(|(_, tail)| is_short(tail)).map(|(base, _)| base);
        let mut ways = Vec::new();
        for base in inner.into_iter().chain([name]) {
            let (_, tail) = name.split_at(base.len());
            let count = base.chars().rev().take_while(char::is_ascii_digit).count();
            let (stem, suffix) = base.split_at(base.len().saturating_sub(count));
            let least = if is_part(stem) || stem.ends_with('.') { 1 } else { 2 };
            // Without an extension behind it, the number is at the end: that is for the other ways.
            let is_way = !matches!(stem, "" | ".")
                && (least..=NUMBER_MAX).contains(&count)
                && (is_part(stem) || !tail.is_empty());
            // 10 may follow 9 as well as 09.
            let widths = [count, count.saturating_sub(1)];
            let is_width = |width: &&usize| **width == count || **width >= least && !suffix.starts_with('0');
            ways.extend(widths.iter().filter(|_| is_way).filter(is_width).map(|width| Self {
                stem: stem.into(),
                suffix: suffix.into(),
                tail: tail.into(),
                width: *width,
                digits: Digits::Decimal,
            }));
        }
        ways
    }

    /// Whether hardly anything but a piece is called so. 24.04.img is a version.
    fn is_dotted(&self) -> bool {
        self.stem.ends_with('.') && (self.tail.is_empty() || self.width >= 3)
    }

    /// Whether separate disks are called so, too, or partitions, which count from 1.
    fn is_loose(&self, first: &str) -> bool {
        let is_part = is_part(&self.stem);
        !self.is_dotted() && if is_part { first.ends_with('1') } else { !self.tail.is_empty() }
    }

    fn zeroes(&self) -> String {
        self.digits.range().0.to_string().repeat(self.width)
    }

    /// The suffixes that may be the first one's: all zeroes, or 1 where numbers count from there.
    fn firsts(&self) -> Vec<String> {
        let zeroes = self.zeroes();
        match self.digits {
            Digits::Decimal | Digits::Hex if self.is_dotted() || self.is_loose("1") => {
                let one = format!("{:0width$}", 1, width = self.width);
                vec![zeroes, one]
            }
            _ => vec![zeroes],
        }
    }

    fn suffix_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.stem.as_str())?.strip_suffix(self.tail.as_str())
    }

    fn path(&self, given: &Path, suffix: &str) -> PathBuf {
        given.with_file_name(format!("{}{suffix}{}", self.stem, self.tail))
    }

    /// The suffix of the first piece, where that is there.
    fn first(&self, given: &Path) -> Option<String> {
        self.firsts().into_iter().find(|suffix| {
            let path = self.path(given, suffix);
            path == *given || is_file(&path)
        })
    }

    fn pieces(&self, given: &Path, apart: &[&Path]) -> Result<Option<Pieces>> {
        let path = |suffix: &str| self.path(given, suffix);
        let first = self.first(given);
        let is_one = self.width == 1 && !is_part(&self.stem);
        if first.is_none() && (self.digits != Digits::Decimal || is_one) {
            return Ok(None);
        }
        let there = self.there(given, apart)?;
        if self.digits == Digits::Hex && !self.counts_in_hex(&there) {
            return Ok(None);
        }
        let Some(first) = first else { return self.without_first(given, &there) };
        if self.is_loose(&first) && !self.goes_on(given, &first, &there, apart)? {
            return Ok(None);
        }
        let own = Beginning::of(&path(&first))?;
        let is_own = |suffix: &str| Ok::<_, Error>(own.is_some() && Beginning::of(&path(suffix))? == own);
        if self.suffix != first && is_own(&self.suffix)? {
            return Ok(None);
        }
        let chain = self.chain(&first, &there)?;
        if let Some(second) = chain.get(1)
            && is_own(second)?
        {
            let note = format!(
                "{} begins as {} does, so they are taken for two images and not for pieces of one",
                shown(&path(second)),
                shown(&path(&first))
            );
            let is_first = self.suffix == first;
            return Ok(is_first.then(|| Pieces { all: vec![given.to_owned()], notes: vec![note] }));
        }
        if let [_, second, ..] = chain.as_slice()
            && Extent::of(&path(&first))? == Extent::Whole
        {
            let (first_path, second) = (shown(&path(&first)), shown(&path(second)));
            let note =
                format!("{first_path} is all of its disk, as what it begins with says, so {second} is no piece of it");
            let is_first = self.suffix == first;
            return Ok(is_first.then(|| Pieces { all: vec![given.to_owned()], notes: vec![note] }));
        }
        if let Some((missing, further)) = self.gap(&chain, &there)
            && !is_own(&further)?
        {
            let message = format!(
                "{}, a piece of the image, is missing, for {} is there",
                shown(&path(&missing)),
                shown(&path(&further))
            );
            return Err(Error::invalid(message)
                .with_rule("split.missing")
                .with_condition(Condition::MissingMember)
                .with_hint(OF_ITS_OWN));
        }
        if !chain.contains(&self.suffix) {
            return Ok(None);
        }
        let all: Vec<PathBuf> = chain.iter().map(|suffix| path(suffix)).collect();
        let mut further = None;
        let note = match all.as_slice() {
            [_] if !self.is_dotted() || self.digits.is_text() || self.width == 1 => return Ok(None),
            [one] => {
                let next = self.after(&self.suffix).into_iter().next().map(|next| path(&next));
                let next = next.map(|next| format!(" ({} is not there)", shown(&next))).unwrap_or_default();
                format!("{} is taken for all of the image: no further pieces lie beside it{next}", shown(one))
            }
            all => {
                let (len, last) = check_lengths(all)?;
                further = if len == last { doubt(all, len)? } else { None };
                let from = if self.suffix == first { "" } else { ", read from the first on" };
                format!(
                    "an image in {} pieces of {len} bytes, the last one of {last}{from}: {} to {}",
                    all.len(),
                    all.first().map(|path| shown(path)).unwrap_or_default(),
                    all.last().map(|path| shown(path)).unwrap_or_default()
                )
            }
        };
        Ok(Some(Pieces { all, notes: std::iter::once(note).chain(further).collect() }))
    }

    /// Whether the files that are called as pieces may be such, where separate disks are called so, too.
    fn goes_on(&self, given: &Path, first: &str, there: &BTreeSet<String>, apart: &[&Path]) -> Result<bool> {
        let path = |suffix: &str| self.path(given, suffix);
        // The data of a header that was named with it is an image of its own.
        if self.suffix != first && !apart.is_empty() {
            return Ok(false);
        }
        let (first_path, chain) = (path(first), self.chain(first, there)?);
        let own = Beginning::of(&first_path)?;
        if own.is_none() && !(is_part(&self.stem) && Start::of(&first_path)? == Start::Noise) {
            return Ok(false);
        }
        let gap = self.gap(&chain, there);
        let further = gap.as_ref().map(|(_, further)| further);
        let mut others: Vec<&String> = chain.iter().skip(1).collect();
        if others.is_empty() || !chain.contains(&self.suffix) {
            others.extend(further);
        }
        let Some(next) = others.first() else { return Ok(false) };
        let lengths = others.iter().map(|other| len_of(&path(other))).collect::<Result<Vec<_>>>()?;
        let len = len_of(&first_path)?;
        let (last, middle) = lengths.split_last().map_or((0, lengths.as_slice()), |(last, middle)| (*last, middle));
        if !(1..=len).contains(&last) || middle.iter().any(|other| *other != len) {
            return Ok(false);
        }
        for other in &others {
            if Beginning::of(&path(other))?.is_some() {
                return Ok(false);
            }
        }
        let extent = Extent::of(&first_path)?;
        match (extent, Start::of(&path(next))?) {
            (Extent::Whole | Extent::Fits, _) | (Extent::Untold, Start::Disk) => Ok(false),
            (Extent::Longer(_), _) => Ok(true),
            // Two disks of one size may be two of a kind; the last of two pieces is rarely as long as the first.
            (Extent::Untold, Start::Noise)
                if own.is_some() && (self.width >= 3 || is_part(&self.stem) || others.len() > 1 || last < len) =>
            {
                Ok(true)
            }
            (Extent::Untold, Start::Other) if own == Some(Beginning::Luks) => Ok(false),
            (Extent::Untold, Start::Noise | Start::Zeroes | Start::Other) => {
                let message = format!(
                    "{} may be a piece of the image that {} begins, or a disk of its own: nothing tells",
                    shown(&path(next)),
                    shown(&first_path)
                );
                Err(Error::invalid(message).with_rule("split.doubt").with_hint(
                    "if it is a disk of its own, give it under a name without a number; pieces are joined where they are called X.001, X.002",
                ))
            }
        }
    }

    /// Whether there is one of the numbers behind 9 that have a digit of hexadecimal alone.
    fn counts_in_hex(&self, there: &BTreeSet<String>) -> bool {
        ('a'..='f').any(|digit| there.contains(&format!("{digit:0>width$}", width = self.width)))
    }

    /// The suffixes of files in the directory that may be of this series.
    fn there(&self, given: &Path, apart: &[&Path]) -> Result<BTreeSet<String>> {
        let dir = crate::files::folder(given);
        let listing = |e| Error::io(format!("listing {}", shown(dir)), e);
        let apart: Vec<PathBuf> = apart.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(dir).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            let name = entry.file_name();
            let Some(suffix) = name.to_str().and_then(|name| self.suffix_of(name)) else { continue };
            if suffix.len() < self.width || suffix.len() > 8 || !self.digits.holds(suffix) {
                continue;
            }
            let path = entry.path();
            let is_apart = || path.canonicalize().is_ok_and(|path| apart.contains(&path));
            if (is_file(&path) || path.file_name() == given.file_name()) && !is_apart() {
                there.insert(suffix.to_owned());
            }
        }
        Ok(there)
    }

    /// A numbered file whose first piece is not there: it may be an image all the same.
    fn without_first(&self, given: &Path, there: &BTreeSet<String>) -> Result<Option<Pieces>> {
        let has_neighbour = self.after(&self.suffix).iter().any(|next| there.contains(next))
            || there.iter().any(|other| self.after(other).contains(&self.suffix));
        let is_part = is_part(&self.stem) && Start::of(given)? == Start::Noise;
        let is_cut = self.suffix.starts_with('0') && self.suffix.len() > 1 || has_neighbour && self.tail.is_empty();
        let looks_cut = is_part && has_neighbour || self.is_dotted() && is_cut;
        if !looks_cut || Beginning::of(given)?.is_some() {
            return Ok(None);
        }
        let firsts = self.firsts();
        let firsts = firsts.iter().rev().map(|first| shown(&self.path(given, first))).collect::<Vec<_>>().join(" or ");
        let message = format!("this is called as a piece of an image, and the first one, {firsts}, is missing");
        Err(Error::invalid(message)
            .with_rule("split.missing")
            .with_condition(Condition::MissingMember)
            .with_hint(OF_ITS_OWN))
    }

    /// The suffixes from the first on, as far as they follow each other.
    fn chain(&self, first: &str, there: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut chain = vec![first.to_owned()];
        while let Some(next) =
            chain.last().and_then(|last| self.after(last).into_iter().find(|next| there.contains(next)))
        {
            if chain.len() >= SPLIT_PIECES_MAX {
                let message = format!("found more than {SPLIT_PIECES_MAX} pieces; so many are allowed");
                return Err(Error::limit("split.pieces", message));
            }
            chain.push(next);
        }
        Ok(chain)
    }

    /// The suffix that is missing behind the chain, and one that is there behind that.
    fn gap(&self, chain: &[String], there: &BTreeSet<String>) -> Option<(String, String)> {
        let last = chain.last()?;
        let missing = self.after(last).into_iter().next()?;
        let mut behind = there.iter().filter(|other| other.len() == last.len() && *other > last);
        let further = behind.next()?;
        if self.digits.is_text() {
            let mut at = missing.clone();
            let mut steps = (0..LETTERS_GAP).map_while(|_| {
                at = self.after(&at).into_iter().next()?;
                Some(at.clone())
            });
            steps.any(|step| step == *further).then(|| (missing, further.clone()))
        } else {
            Some((missing, further.clone()))
        }
    }

    /// What may follow `suffix`: the next number, and what split goes on with before numbers run out.
    fn after(&self, suffix: &str) -> Vec<String> {
        let (first, last) = self.digits.range();
        let mut ways = Vec::new();
        let mut chars: Vec<char> = suffix.chars().collect();
        let carried = chars.iter().rev().take_while(|c| **c == last).count();
        let kept = chars.len().saturating_sub(carried);
        chars.iter_mut().skip(kept).for_each(|c| *c = first);
        if let Some(c) = kept.checked_sub(1).and_then(|at| chars.get_mut(at)) {
            *c = self.digits.next(*c).unwrap_or(last);
            ways.push(chars.iter().collect());
        } else if self.digits == Digits::Decimal {
            ways.push(format!("1{}", "0".repeat(suffix.len())));
        }
        // A leading 9 or z is kept for longer names: 89 is followed by 9000, yz by zaaa.
        let leading = suffix.chars().take_while(|c| *c == last).count();
        let mut rest = suffix.chars().skip(leading);
        let before_last = self.digits.alphabet().chars().nth_back(1);
        if rest.next() == before_last && before_last.is_some() && rest.all(|c| c == last) {
            let nines = leading.saturating_add(1);
            let zeroes = suffix.len().saturating_add(2).saturating_sub(nines);
            ways.push(last.to_string().repeat(nines) + &first.to_string().repeat(zeroes));
        }
        ways
    }
}

/// Whether a piece that nobody named may be taken: a link may lead to another place.
fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

const OF_ITS_OWN: &str = "if it is an image of its own, give it under a name without a number";

/// Whether a stem says that a number behind it is that of a part.
fn is_part(stem: &str) -> bool {
    let tail = stem.len().checked_sub(5).and_then(|at| stem.get(at..)).and_then(|tail| tail.split_at_checked(1));
    tail.is_some_and(|(before, word)| [".", "-", "_"].contains(&before) && word.eq_ignore_ascii_case("part"))
}

fn len_of(path: &Path) -> Result<u64> {
    let meta = path.metadata().map_err(|e| Error::io(format!("looking at {}", shown(path)), e));
    meta.map(|meta| meta.len())
}

/// What is said where the last of the pieces, of `len` bytes each, is as long as the others: there may have been more.
fn doubt(all: &[PathBuf], len: u64) -> Result<Option<String>> {
    let ([first, ..], Some(last)) = (all, all.last()) else { return Ok(None) };
    let total = len.saturating_mul(crate::num::to_u64(all.len()));
    Ok(match Extent::within(first, total)? {
        Extent::Whole => None,
        Extent::Longer(size) => Some(format!(
            "pieces are missing behind {}: the pieces have {total} bytes, and what the first begins with says {size}",
            shown(last)
        )),
        Extent::Fits | Extent::Untold => Some(format!(
            "{} is as long as the other pieces: whether one is missing behind it, their lengths do not tell",
            shown(last)
        )),
    })
}

/// The length of all pieces but the last, and that of the last.
fn check_lengths(all: &[PathBuf]) -> Result<(u64, u64)> {
    let [first, .., last] = all else { return Ok((0, 0)) };
    let len = len_of(first)?;
    for path in all {
        let found = len_of(path)?;
        let is_last = path == last;
        if found == len || is_last && (1..len).contains(&found) {
            continue;
        }
        let allowed = if is_last { format!("1 to {len}") } else { len.to_string() };
        let message = format!(
            "{}, a piece of the image, has {found} bytes; {allowed} are allowed, for the first has {len}",
            shown(path)
        );
        return Err(Error::corrupt("split.length", message).with_hint(OF_ITS_OWN));
    }
    Ok((len, len_of(last)?))
}
