//! `*`, `?`, `[a-z]` and `\` over names as bytes.
//!
//! Not the crates `glob` or `globset`: the one wants UTF-8, which names need not be, and the other brings regular expressions.

/// Whether all of a name fits a pattern (glob(7)). Without `*` it takes one step for each byte, and with it the last one is
/// all that is taken back, so that no pattern takes more than their lengths multiplied.
pub fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where the last star is, and the name behind what it has taken.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
            continue;
        }
        if n == name.len() {
            return p == pattern.len();
        }
        match one(&pattern[p..], name[n]) {
            Some(len) => (p, n) = (p + len, n + 1),
            None => match &mut star {
                Some((at, taken)) => {
                    *taken += 1;
                    (p, n) = (*at + 1, *taken);
                }
                None => return false,
            },
        }
    }
}

/// How much of the pattern takes this byte, if it does.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', other, ..] => (*other == byte).then_some(2),
        [b'[', rest @ ..] => match set(rest, byte) {
            Some((len, has)) => has.then_some(len + 1),
            // A bracket that nothing closes is one.
            None => (byte == b'[').then_some(1),
        },
        [other, ..] => (*other == byte).then_some(1),
    }
}

/// The length of a set with its end, and whether the byte is in it.
fn set(rest: &[u8], byte: u8) -> Option<(usize, bool)> {
    let is_not = matches!(rest.first(), Some(b'!' | b'^'));
    let start = usize::from(is_not);
    let (mut at, mut has) = (start, false);
    loop {
        match rest.get(at..)? {
            [b']', ..] if at > start => return Some((at + 1, has != is_not)),
            [from, b'-', to, ..] if *to != b']' => {
                has |= (*from..=*to).contains(&byte);
                at += 3;
            }
            [one, ..] => {
                has |= *one == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn names_fit_as_in_a_shell() {
        let yes = [
            ("*", ""),
            ("*.conf", "a.conf"),
            ("*.conf", ".conf"),
            ("a*b*c", "axxbxbc"),
            ("?", "x"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("[", "["),
            ("\\*", "*"),
            ("a[", "a["),
        ];
        for (pattern, name) in yes {
            assert!(fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        let no =
            [("*.conf", "a.confx"), ("?", ""), ("?", "ab"), ("[a-c]", "d"), ("[!a]", "a"), ("\\*", "x"), ("", "a")];
        for (pattern, name) in no {
            assert!(!fits(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        assert!(fits(b"\xff*", b"\xff\xfe"));
        // It takes no time that grows with the number of stars.
        assert!(!fits("*a".repeat(64).as_bytes(), "a".repeat(63).as_bytes()));
    }
}
