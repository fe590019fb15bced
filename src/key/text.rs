//! Text as programs save it: line ends, byte order marks, and the ways to write letters beyond ASCII as bytes.
//!
//! A passphrase that was typed on one machine and saved on another is the same text in other bytes: editors of Windows
//! write UTF-16 or a mark in front, macOS decomposes letters (NFD), old terminals sent Latin-1 or Windows-1252.
//! Sources: Unicode's UAX #15 for NFC and NFD (the crate `unicode-normalization` has the tables); the WHATWG's index of
//! windows-1252.

use unicode_normalization::UnicodeNormalization;

use super::fill;
use crate::error::Result;
use crate::secret::SecretBytes;

/// The unit of UTF-16 that two bytes are.
type ToUnit = fn(&[u8]) -> u16;
/// The byte of a letter, in an encoding of one byte for each.
pub(super) type ToByte = fn(char) -> Option<u8>;
/// The letter of a byte.
pub(super) type FromByte = fn(u8) -> Option<char>;

/// What Windows-1252 has in the place of Latin-1's second row of controls, 0x80 to 0x9f; 0 where it has nothing.
const WINDOWS_1252: [u16; 32] = [
    0x20ac, 0, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017d, 0, 0,
    0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0, 0x017e, 0x0178,
];

/// The bytes without one newline at the end, LF or CRLF.
pub(super) fn without_newline(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").filter(|_| line.len() != bytes.len()).unwrap_or(line)
}

/// The bytes up to the first newline, LF or CRLF; `None` where there is none.
pub(super) fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes.split(|b| *b == b'\n').next().filter(|line| line.len() < bytes.len())?;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The text with LF for each CRLF; `None` where there is no CRLF.
pub(super) fn line_feeds(bytes: &[u8]) -> Result<Option<SecretBytes>> {
    let is_return = |n: usize| bytes[n..].starts_with(b"\r\n");
    if !(0..bytes.len()).any(is_return) {
        return Ok(None);
    }
    fill::bytes((0..bytes.len()).filter(|n| !is_return(*n)).map(|n| bytes[n])).map(Some)
}

/// UTF-16 as UTF-8, without the mark; `None` where the bytes are hardly UTF-16. Without a mark they are where they are
/// text, and most letters of it are those of Europe.
pub(super) fn utf16(bytes: &[u8]) -> Result<Option<SecretBytes>> {
    if bytes.len() < 4 || !bytes.len().is_multiple_of(2) {
        return Ok(None);
    }
    let little = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let big = |pair: &[u8]| u16::from_be_bytes([pair[0], pair[1]]);
    let orders: [(ToUnit, [u8; 2]); 2] = [(little, [0xff, 0xfe]), (big, [0xfe, 0xff])];
    for (unit, mark) in orders {
        let text = bytes.strip_prefix(&mark);
        let chars = || char::decode_utf16(text.unwrap_or(bytes).chunks_exact(2).map(unit));
        if !chars().all(|c| c.is_ok_and(is_text)) {
            continue;
        }
        let latin = chars().flatten().filter(|c| u32::from(*c) < 0x100).count();
        if text.is_some() || latin >= bytes.len() / 4 {
            return fill::utf8(chars().flatten()).map(Some);
        }
    }
    Ok(None)
}

/// The text as UTF-16, little-endian, without a mark.
pub(super) fn to_utf16(text: &str) -> Result<SecretBytes> {
    fill::bytes(text.encode_utf16().flat_map(u16::to_le_bytes))
}

fn is_text(c: char) -> bool {
    // The byte order mark the wrong way round is no letter.
    c != '\u{fffe}' && (!c.is_control() || matches!(c, '\t' | '\r' | '\n'))
}

/// The bytes as text, where they are UTF-8 without controls.
pub(super) fn printable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_text))
}

/// The composed form.
pub(super) fn nfc(text: &str) -> Result<SecretBytes> {
    fill::utf8(text.nfc())
}

/// The decomposed form.
pub(super) fn nfd(text: &str) -> Result<SecretBytes> {
    fill::utf8(text.nfd())
}

/// The text in an encoding of one byte for each letter; `None` where that has not all of them.
pub(super) fn to_bytes(text: &str, byte: impl Fn(char) -> Option<u8>) -> Result<Option<SecretBytes>> {
    if !text.nfc().all(|c| byte(c).is_some()) {
        return Ok(None);
    }
    fill::bytes(text.nfc().filter_map(byte)).map(Some)
}

/// The text that bytes stand for, one for each letter; `None` where one stands for none.
pub(super) fn from_bytes(bytes: &[u8], letter: impl Fn(u8) -> Option<char>) -> Result<Option<SecretBytes>> {
    if !bytes.iter().all(|b| letter(*b).is_some_and(is_text)) {
        return Ok(None);
    }
    fill::utf8(bytes.iter().filter_map(|b| letter(*b))).map(Some)
}

/// A letter as Latin-1.
pub(super) fn latin1_byte(c: char) -> Option<u8> {
    u8::try_from(u32::from(c)).ok()
}

/// A byte of Latin-1.
pub(super) fn latin1_letter(b: u8) -> Option<char> {
    Some(char::from(b))
}

/// A letter as Windows-1252.
pub(super) fn windows_1252_byte(c: char) -> Option<u8> {
    let row = || (0x80u8..).zip(WINDOWS_1252).find(|(_, unit)| *unit != 0 && u32::from(*unit) == u32::from(c));
    match latin1_byte(c) {
        Some(0x80..=0x9f) => None,
        Some(b) => Some(b),
        None => row().map(|(b, _)| b),
    }
}

/// A byte of Windows-1252.
pub(super) fn windows_1252_letter(b: u8) -> Option<char> {
    match b {
        0x80..=0x9f => {
            let unit = WINDOWS_1252[usize::from(b - 0x80)];
            char::from_u32(u32::from(unit)).filter(|c| *c != '\0')
        }
        b => Some(char::from(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Option<SecretBytes>) -> Option<String> {
        bytes.map(|b| String::from_utf8(b.expose().to_vec()).unwrap())
    }

    #[test]
    fn utf16_is_known_by_its_mark_or_its_letters() {
        let units = |text: &str, order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<_>>();
        for order in [u16::to_le_bytes, u16::to_be_bytes] {
            assert_eq!(text(utf16(&units("Grüße\r\n", order)).unwrap()).unwrap(), "Grüße\r\n");
            assert_eq!(text(utf16(&units("\u{feff}пароль", order)).unwrap()).unwrap(), "пароль");
        }
        for no in [&b"plain text"[..], b"ab", b"odd", &[0x9c; 32], &[0xff, 0xfe, 0, 0xd8]] {
            assert!(utf16(no).unwrap().is_none(), "{no:?}");
        }
    }

    #[test]
    fn each_letter_of_windows_1252_is_its_own_byte_again() {
        for b in 0..=255u8 {
            assert_eq!(windows_1252_letter(b).map(windows_1252_byte), windows_1252_letter(b).map(|_| Some(b)), "{b}");
        }
        assert_eq!((windows_1252_byte('€'), windows_1252_letter(0x9f)), (Some(0x80), Some('Ÿ')));
        assert_eq!(
            (windows_1252_byte('ж'), windows_1252_byte('\u{85}'), windows_1252_letter(0x81)),
            (None, None, None)
        );
    }

    #[test]
    fn latin_1_has_not_all_letters() {
        assert_eq!(to_bytes("e\u{301}ß", latin1_byte).unwrap().unwrap().expose(), [0xe9, 0xdf]);
        assert!(to_bytes("ж", latin1_byte).unwrap().is_none());
        assert_eq!(text(from_bytes(&[0x47, 0xfc], latin1_letter).unwrap()).unwrap(), "Gü");
        assert!(from_bytes(&[0x47, 0x90], latin1_letter).unwrap().is_none(), "a control");
    }
}
