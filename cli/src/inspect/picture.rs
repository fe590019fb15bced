//! The layout to scale, in one line: where header, keyslots and data are. It is for a terminal, and of characters that the
//! terminal has.

use unluks::luks::report::{File, Kind, Report, State};

use crate::terminal::{self, is_unicode};

/// The narrowest and the widest picture.
const WIDTHS: std::ops::RangeInclusive<usize> = 30..=160;

/// What a stretch of the layout is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Header,
    Keyslot(u32),
    Disabled(u32),
    Free,
    Gap,
    Data,
    Old,
    Hot,
    New,
    Trailing,
}

impl What {
    /// Its character, where the terminal has all of Unicode and where not.
    fn signs(self) -> [char; 2] {
        match self {
            Self::Header => ['▓', '#'],
            Self::Keyslot(_) => ['▄', 'k'],
            Self::Disabled(_) => ['▁', '_'],
            Self::Free => ['·', '.'],
            Self::Gap => [' ', ' '],
            Self::Data => ['█', '='],
            Self::Old => ['░', '-'],
            Self::Hot => ['▚', '*'],
            Self::New => ['█', '='],
            Self::Trailing => ['~', '~'],
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Keyslot(_) => "keyslot",
            Self::Disabled(_) => "keyslot not in use",
            Self::Free => "free for keyslots",
            Self::Gap => "gap",
            Self::Data => "data",
            Self::Old => "old",
            Self::Hot => "hot zone",
            Self::New => "new",
            Self::Trailing => "behind it",
        }
    }

    /// Whether both are the same to who looks, and can be one.
    fn is_like(self, other: Self) -> bool {
        self.words() == other.words()
    }
}

/// What is drawn on.
#[derive(Clone, Copy)]
pub struct Canvas {
    pub width: usize,
    pub is_unicode: bool,
}

impl Canvas {
    /// The terminal of the standard output; `None` where that is none, or a narrow one.
    pub fn of_stdout() -> Option<Self> {
        Self::new(terminal::columns()?, is_unicode())
    }

    fn new(columns: usize, is_unicode: bool) -> Option<Self> {
        let width = columns.saturating_sub(4).min(*WIDTHS.end());
        WIDTHS.contains(&width).then_some(Self { width, is_unicode })
    }

    fn sign(self, what: What) -> char {
        let [unicode, ascii] = what.signs();
        if self.is_unicode { unicode } else { ascii }
    }
}

/// The lines of the picture: the bar, and what its characters mean.
pub fn lines(report: &Report, canvas: Canvas) -> Vec<String> {
    // One file to scale: that of the header, and the data where it lies there.
    let first = report.layout.first().map(|range| range.file);
    let mut pieces: Vec<(What, u64)> = Vec::new();
    for range in report.layout.iter().filter(|range| Some(range.file) == first && range.file != File::Elsewhere) {
        let id = range.id.unwrap_or(0);
        let what = match range.kind {
            Kind::Header => What::Header,
            Kind::Keyslot if report.keyslots.iter().any(|k| k.id == id && k.state != State::Disabled) => {
                What::Keyslot(id)
            }
            Kind::Keyslot => What::Disabled(id),
            Kind::Free => What::Free,
            Kind::Gap => What::Gap,
            Kind::Segment => segment(report, id),
            Kind::Trailing => What::Trailing,
        };
        pieces.push((what, range.size.unwrap_or(1)));
    }
    draw(pieces, canvas)
}

/// What the segment of a number is in a reencryption, or that there is none.
fn segment(report: &Report, id: u32) -> What {
    let flagged = |flag: &str| report.segments.iter().find(|s| s.flags.iter().any(|f| f == flag));
    let (Some(last), Some(s)) = (flagged("backup-final"), report.segments.iter().find(|s| s.id == id && !s.backup))
    else {
        return What::Data;
    };
    if s.flags.iter().any(|f| f == "in-reencryption") {
        What::Hot
    } else if (s.kind, s.digest) == (last.kind, last.digest) {
        What::New
    } else {
        What::Old
    }
}

fn draw(mut pieces: Vec<(What, u64)>, canvas: Canvas) -> Vec<String> {
    let total = |of: &dyn Fn(What) -> bool| {
        pieces.iter().filter(|(what, _)| of(*what)).fold(0u128, |sum, (_, size)| sum.saturating_add((*size).into()))
    };
    let (new, data) = (total(&|w| w == What::New), total(&|w| matches!(w, What::New | What::Hot | What::Old)));
    let percent = new.saturating_mul(100).checked_div(data);
    // Where there are more pieces than places, those beside each other that look alike become one.
    if pieces.len() > canvas.width {
        pieces.dedup_by(|b, a| {
            let is_one = a.0.is_like(b.0);
            if is_one {
                a.1 = a.1.saturating_add(b.1);
            }
            is_one
        });
    }
    if pieces.is_empty() || pieces.len() > canvas.width {
        return Vec::new();
    }
    let mut bar = String::new();
    for ((what, _), cells) in pieces.iter().zip(widths(&pieces, canvas.width)) {
        bar += &cell(*what, cells, canvas);
    }
    let mut legend: Vec<String> = Vec::new();
    for (what, _) in &pieces {
        let mut line = format!("{} {}", canvas.sign(*what), what.words());
        if let (What::New, Some(percent)) = (what, percent) {
            line += &format!(" {percent}%");
        }
        if *what != What::Gap && !legend.contains(&line) {
            legend.push(line);
        }
    }
    vec![bar, legend.join("  ")]
}

/// How many places each piece has: one, and of the others its share by size.
fn widths(pieces: &[(What, u64)], width: usize) -> Vec<usize> {
    let all = pieces.iter().fold(0u128, |sum, (_, size)| sum.saturating_add((*size).into())).max(1);
    let spare = width.saturating_sub(pieces.len());
    let mut taken = 0usize;
    let mut so_far = 0u128;
    let share = |(_, size): &(What, u64)| {
        so_far = so_far.saturating_add((*size).into());
        // Rounded where it ends, so that the places of all are all the places.
        let end = u128::try_from(spare).unwrap_or(0).saturating_mul(so_far).checked_div(all).unwrap_or(0);
        let end = usize::try_from(end).unwrap_or(spare);
        let cells = end.saturating_sub(taken).saturating_add(1);
        taken = end;
        cells
    };
    pieces.iter().map(share).collect()
}

/// The places of one piece. A keyslot has its number where that fits.
fn cell(what: What, cells: usize, canvas: Canvas) -> String {
    let sign = canvas.sign(what);
    let number = match what {
        What::Keyslot(id) => id.to_string(),
        _ => String::new(),
    };
    let number = if number.len() <= cells { number } else { String::new() };
    let rest = std::iter::repeat_n(sign, cells.saturating_sub(number.len()));
    number.chars().chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(pieces: &[(What, u64)], width: usize, is_unicode: bool) -> Vec<String> {
        let lines = draw(pieces.to_vec(), Canvas { width, is_unicode });
        assert!(lines.is_empty() || lines[0].chars().count() == width, "{lines:?}");
        lines
    }

    #[test]
    fn pieces_have_places_by_their_size_and_one_at_least() {
        let pieces = [(What::Header, 1), (What::Keyslot(0), 1), (What::Gap, 2), (What::Data, 96)];
        let [bar, legend] = &drawn(&pieces, 30, false)[..] else { panic!() };
        assert_eq!(bar, "#0  ==========================");
        assert_eq!(legend, "# header  k keyslot  = data");
        assert_eq!(drawn(&pieces, 30, true)[0], "▓0  ██████████████████████████");
        let wide = [(What::Header, 50), (What::Keyslot(12), 50)];
        assert_eq!(drawn(&wide, 30, false)[0], "###############12kkkkkkkkkkkkk");
    }

    #[test]
    fn a_reencryption_is_new_and_old_with_the_hot_zone_between() {
        let pieces = [(What::Header, 4), (What::New, 48), (What::Hot, 8), (What::Old, 40)];
        let [bar, legend] = &drawn(&pieces, 40, false)[..] else { panic!() };
        assert_eq!(bar, "##==================****----------------");
        assert_eq!(legend, "# header  = new 50%  * hot zone  - old");
    }

    #[test]
    fn what_does_not_fit_becomes_one_or_is_left_out() {
        let many: Vec<_> = (0..64).map(|id| (What::Keyslot(id), 1)).collect();
        assert_eq!(drawn(&many, 30, false)[0].trim_start_matches(char::is_numeric), "k".repeat(29));
        let mixed: Vec<_> = many.iter().flat_map(|k| [*k, (What::Gap, 1)]).collect();
        assert!(drawn(&mixed, 30, false).is_empty() && drawn(&[], 30, false).is_empty());
        assert!(drawn(&[(What::Data, u64::MAX), (What::Header, u64::MAX)], 30, false)[0].starts_with("====="));
    }

    #[test]
    fn a_narrow_terminal_has_none() {
        assert!(Canvas::new(20, true).is_none() && Canvas::new(40, true).is_some());
        assert_eq!(Canvas::new(500, true).unwrap().width, 160);
    }
}
