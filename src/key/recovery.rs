//! Recovery keys that systems make, and that people type, print and photograph.
//!
//! | made by | looks like | what opens the keyslot |
//! |---|---|---|
//! | `systemd-cryptenroll --recovery-key` | 8 groups of 8 letters, `cbdefghi-…` (Yubico's modhex) | that text in lower case, with the dashes (systemd: `src/shared/recovery-key.c`) |
//! | Ubuntu (snapd, secboot) | 8 groups of 5 digits, `16750-42887-…` | 16 bytes: each group a number of 16 bits, little-endian (secboot: `RecoveryKey`) |

use crate::error::Result;
use crate::secret::SecretBytes;

use super::fill;

/// Both have so many groups.
const GROUPS: usize = 8;
/// Letters of one group of systemd's.
const LETTERS: usize = 8;
/// Digits of one group of Ubuntu's.
const DIGITS: usize = 5;
/// A text of more words is not looked through further: it is no note about a key.
const WORDS: usize = 256;

/// A dash as keyboards and word processors have it.
fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// The canonical forms of all of systemd's recovery keys in the text: the text is one, or words of it are.
pub(super) fn systemd(text: &str) -> Result<Vec<SecretBytes>> {
    let is_modhex = |c: char| "cbdefghijklnrtuv".contains(c);
    each(
        text,
        GROUPS * LETTERS,
        |c| Some(c.to_ascii_lowercase()).filter(|c| is_modhex(*c)),
        |letters| {
            let dashes = letters.chunks(LETTERS).enumerate().flat_map(|(n, group)| {
                let dash = (n > 0).then_some(b'-');
                dash.into_iter().chain(group.iter().copied())
            });
            fill::bytes(dashes).map(Some)
        },
    )
}

/// The bytes of all of Ubuntu's recovery keys in the text: the text is one, or words of it are.
pub(super) fn ubuntu(text: &str) -> Result<Vec<SecretBytes>> {
    each(
        text,
        GROUPS * DIGITS,
        |c| Some(c).filter(char::is_ascii_digit),
        |digits| {
            let number = |group: &[u8]| group.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0'));
            let mut key = SecretBytes::zeroed(GROUPS * 2)?;
            for (pair, group) in key.expose_mut().chunks_exact_mut(2).zip(digits.chunks(DIGITS)) {
                let Ok(group) = u16::try_from(number(group)) else { return Ok(None) };
                pair.copy_from_slice(&group.to_le_bytes());
            }
            Ok(Some(key))
        },
    )
}

/// What `key` makes of each run of `len` symbols that makes up the whole text or a word of it, but for what may stand
/// between symbols.
fn each(
    text: &str,
    len: usize,
    symbol: impl Fn(char) -> Option<char>,
    key: impl Fn(&[u8]) -> Result<Option<SecretBytes>>,
) -> Result<Vec<SecretBytes>> {
    let mut keys = Vec::new();
    let words = text.split_whitespace().take(WORDS).filter(|word| word.len() < text.len());
    for part in std::iter::once(text).chain(words) {
        let wanted = || part.chars().filter(|c| !is_dash(*c) && !c.is_whitespace());
        // No longer text is looked at symbol by symbol.
        if wanted().take(len + 1).count() == len && wanted().all(|c| symbol(c).is_some()) {
            let symbols = fill::utf8(wanted().filter_map(&symbol))?;
            keys.extend(key(symbols.expose())?);
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "lrdggkkl-ektgkfnb-fetlgdik-cdcttelf-vlkdkvji-jnrvgnth-hvdlnhvc-kudlbubr";

    #[test]
    fn systemd_s_key_is_known_in_each_writing() {
        let found = |text: &str| systemd(text).unwrap().iter().map(|k| k.expose().to_vec()).collect::<Vec<_>>();
        for text in [
            KEY.to_owned(),
            KEY.replace('-', ""),
            KEY.replace('-', " "),
            KEY.to_uppercase(),
            KEY.replace('-', "\u{2013}"),
            format!("A secret recovery key has been generated for this volume:\n\n    {KEY}\n\nPlease save it.\n"),
        ] {
            assert_eq!(found(&text)[0], KEY.as_bytes(), "{text}");
        }
        for text in [KEY.replace('l', "a"), KEY[1..].to_owned(), format!("{KEY}c"), String::new()] {
            assert!(found(&text).is_empty(), "{text}");
        }
    }

    #[test]
    fn ubuntu_s_groups_are_numbers_of_16_bits() {
        let found = |text: &str| ubuntu(text).unwrap().iter().map(|k| k.expose().to_vec()).collect::<Vec<_>>();
        let key = [0, 0, 1, 0, 0xff, 0xff, 0x39, 0x30, 0, 0, 0, 0, 0, 0, 7, 0].to_vec();
        let text = "00000-00001-65535-12345-00000-00000-00000-00007";
        for text in [text.to_owned(), text.replace('-', ""), text.replace('-', " "), format!("recovery: {text}\n")] {
            assert_eq!(found(&text), std::slice::from_ref(&key), "{text}");
        }
        assert!(found(&text.replace("65535", "65536")).is_empty(), "no 16 bits");
        assert!(found(&text[1..]).is_empty());
    }
}
