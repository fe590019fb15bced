//! The words of messages that several modules have: numbers of things, sizes, times and choices.

use std::fmt;

/// `1 run`, `2 runs`, `0 entries`: a number of things, as messages have it.
pub fn counted(n: impl fmt::Display, what: &str) -> String {
    let n = n.to_string();
    if n == "1" {
        return format!("{n} {what}");
    }
    match what {
        "leaf" => format!("{n} leaves"),
        _ if what.ends_with('s') => format!("{n} {what}es"),
        _ => match what.strip_suffix('y') {
            // "entry", but no "day" and no "key".
            Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{n} {stem}ies"),
            _ => format!("{n} {what}s"),
        },
    }
}

/// What there is to choose from: `there is none`, `the only one is 0`, `there are 0, 5`.
pub fn choice<T: fmt::Display>(all: &[T]) -> String {
    match all {
        [] => "there is none".to_owned(),
        [one] => format!("the only one is {one}"),
        all => format!("there are {}", all.iter().map(T::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// `1536 bytes (1.5 KiB)`; one digit behind the point, rounded down.
pub fn bytes(n: u64) -> String {
    const UNITS: [(u32, &str); 6] = [(60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| n >> shift > 0) {
        None => counted(n, "byte"),
        Some((shift, name)) => {
            let one = 1u64 << shift;
            let tenths = u128::from(n % one) * 10 / u128::from(one);
            let point = if tenths == 0 { String::new() } else { format!(".{tenths}") };
            format!("{n} bytes ({}{point} {name})", n / one)
        }
    }
}

/// An estimate of a time, as exact as an estimate may look.
pub fn seconds(s: f64) -> String {
    match s {
        s if s < 0.01 => "less than 0.01 s".to_owned(),
        s if s < 1.0 => format!("about {s:.2} s"),
        s if s < 120.0 => format!("about {s:.0} s"),
        s if s < 7200.0 => format!("about {:.0} minutes", s / 60.0),
        s if s < 172_800.0 => format!("about {:.0} hours", s / 3600.0),
        s if s < 31_536_000.0 => format!("about {:.0} days", s / 86400.0),
        s => format!("about {:.0} years", s / 31_536_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_thing_and_several() {
        assert_eq!([counted(0, "run"), counted(1, "run"), counted(11, "run")], ["0 runs", "1 run", "11 runs"]);
        assert_eq!([counted(1u64, "entry"), counted(2u64, "entry")], ["1 entry", "2 entries"]);
        assert_eq!([counted(2, "pass"), counted(3, "leaf"), counted(1, "leaf")], ["2 passes", "3 leaves", "1 leaf"]);
    }

    #[test]
    fn sizes_have_their_exact_number_and_a_short_one() {
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1536 bytes (1.5 KiB)");
        assert_eq!(bytes(16 << 20), "16777216 bytes (16 MiB)");
        assert_eq!(bytes(u64::MAX), "18446744073709551615 bytes (15.9 EiB)");
    }

    #[test]
    fn times_are_rounded() {
        assert_eq!(seconds(0.001), "less than 0.01 s");
        assert_eq!(seconds(0.25), "about 0.25 s");
        assert_eq!(seconds(90.0), "about 90 s");
        assert_eq!(seconds(3600.0), "about 60 minutes");
        assert_eq!(seconds(1e9), "about 32 years");
    }

    #[test]
    fn a_choice_is_of_one_or_of_several() {
        assert_eq!(choice::<u32>(&[]), "there is none");
        assert_eq!(choice(&[7]), "the only one is 7");
        assert_eq!(choice(&["a", "b"]), "there are a, b");
    }
}
