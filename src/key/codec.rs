//! Bytes as text that programs read: hex and Base64, with what people and programs put around them.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::fill;
use crate::error::{Error, Result};
use crate::secret::SecretBytes;

/// What decoders take: with padding or without.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const ENGINE_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// The lower-case hex of `bytes`, made without table look-ups that depend on the secret.
pub(super) fn hexlify(bytes: &[u8]) -> Result<SecretBytes> {
    // '0' + n for n below 10, else 'a' - 10 + n, without a branch.
    let digit = |n: u8| b'0' + n + (((9u8.wrapping_sub(n)) >> 7) * (b'a' - b'0' - 10));
    let mut hex = SecretBytes::zeroed(bytes.len() * 2)?;
    for (pair, b) in hex.expose_mut().chunks_exact_mut(2).zip(bytes) {
        pair[0] = digit(b >> 4);
        pair[1] = digit(b & 15);
    }
    Ok(hex)
}

/// What hex digits stand for; `None` where `text` is no hex.
pub(super) fn unhex(text: &[u8]) -> Result<Option<SecretBytes>> {
    if text.is_empty() || !text.len().is_multiple_of(2) || !text.iter().all(u8::is_ascii_hexdigit) {
        return Ok(None);
    }
    let value = |c: u8| (c & 15) + (c >> 6) * 9;
    let mut raw = SecretBytes::zeroed(text.len() / 2)?;
    for (b, pair) in raw.expose_mut().iter_mut().zip(text.chunks_exact(2)) {
        *b = (value(pair[0]) << 4) | value(pair[1]);
    }
    Ok(Some(raw))
}

/// The digits of hex as people have it: `ab01`, `0xab01`, `ab:01`, `ab 01`, `\xab\x01`, `0xab, 0x01`, over several
/// lines. `None` where `text` is no hex of whole bytes.
pub(super) fn hex_digits(text: &[u8]) -> Result<Option<SecretBytes>> {
    let between = |b: u8| b.is_ascii_whitespace() || matches!(b, b':' | b'-' | b',' | b'_');
    let prefix = |rest: &[u8]| rest.len() > 2 && matches!(&rest[..2], b"0x" | b"0X" | b"\\x");
    let mut digits = SecretBytes::zeroed(text.len())?;
    let (mut len, mut at, mut word) = (0, 0, 0);
    while let Some(&b) = text.get(at) {
        if b.is_ascii_hexdigit() && !(word == 0 && prefix(&text[at..])) {
            digits.expose_mut()[len] = b;
            (len, at, word) = (len + 1, at + 1, word + 1);
            continue;
        }
        // A digit that stands alone is no byte: "1-2-3" is not hex.
        if word % 2 != 0 {
            return Ok(None);
        }
        at += if prefix(&text[at..]) {
            2
        } else if between(b) {
            1
        } else {
            return Ok(None);
        };
        word = 0;
    }
    if len == 0 || word % 2 != 0 {
        return Ok(None);
    }
    digits.truncate(len);
    Ok(Some(digits))
}

/// The same digits in upper case.
pub(super) fn upper(digits: &[u8]) -> Result<SecretBytes> {
    let mut upper = SecretBytes::copy_of(digits)?;
    upper.expose_mut().make_ascii_uppercase();
    Ok(upper)
}

/// The same digits in lower case.
pub(super) fn lower(digits: &[u8]) -> Result<SecretBytes> {
    let mut lower = SecretBytes::copy_of(digits)?;
    lower.expose_mut().make_ascii_lowercase();
    Ok(lower)
}

/// What Base64 stands for, of either alphabet, with padding or without, over several lines; `None` where `text` is none.
pub(super) fn unbase64(text: &[u8]) -> Result<Option<SecretBytes>> {
    let text = fill::bytes(text.iter().copied().filter(|b| !b.is_ascii_whitespace()))?;
    if text.is_empty() {
        return Ok(None);
    }
    let is_url = text.expose().iter().any(|b| matches!(b, b'-' | b'_'));
    let mut raw = SecretBytes::zeroed(text.len().div_ceil(4) * 3)?;
    let engine = if is_url { &ENGINE_URL } else { &ENGINE };
    match engine.decode_slice(text.expose(), raw.expose_mut()) {
        Ok(len) => {
            raw.truncate(len);
            Ok(Some(raw))
        }
        Err(_) => Ok(None),
    }
}

/// The Base64 of `bytes`, with padding.
pub(super) fn base64(bytes: &[u8]) -> Result<SecretBytes> {
    encode(&ENGINE, bytes)
}

/// The Base64 of `bytes` in its form for URLs, with padding.
pub(super) fn base64_url(bytes: &[u8]) -> Result<SecretBytes> {
    encode(&ENGINE_URL, bytes)
}

fn encode(engine: &GeneralPurpose, bytes: &[u8]) -> Result<SecretBytes> {
    let mut text = SecretBytes::zeroed(bytes.len().div_ceil(3) * 4)?;
    let len =
        engine.encode_slice(bytes, text.expose_mut()).map_err(|_| Error::invalid("the key is too long for Base64"))?;
    text.truncate(len);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_seen_through_what_stands_between() {
        let digits = |text: &str| hex_digits(text.as_bytes()).unwrap().map(|d| d.expose().to_vec());
        for yes in [
            "ab01Fe",
            "0xab01Fe",
            "0Xab01Fe",
            "ab:01:Fe",
            "ab 01\n Fe\r\n",
            "ab01 Fe",
            "ab-01-Fe",
            "\\xab\\x01\\xFe",
            "0xab, 0x01, 0xFe",
            "{ab",
        ] {
            assert_eq!(digits(yes).is_some(), !yes.starts_with('{'), "{yes}");
            assert!(digits(yes).is_none_or(|d| d == b"ab01Fe"), "{yes}");
        }
        for no in ["", "0x", "abc", "a:b:c:d", "1-2-3-4", "hunter2", "ab0xcd01x", "ab:0"] {
            assert!(digits(no).is_none(), "{no}");
        }
    }

    #[test]
    fn base64_of_either_alphabet_with_padding_or_without() {
        let raw = |text: &str| unbase64(text.as_bytes()).unwrap().map(|d| d.expose().to_vec());
        for yes in ["+//+", "-__-", "+/\n/+\n"] {
            assert_eq!(raw(yes).unwrap(), [0xfb, 0xff, 0xfe], "{yes}");
        }
        assert_eq!((raw("+w").unwrap(), raw("-w==").unwrap()), (vec![0xfb], vec![0xfb]));
        assert!(["", "+-+-", "a", "pass phrase!"].iter().all(|no| raw(no).is_none()));
        assert_eq!(base64(&[0xfb, 0xff]).unwrap().expose(), b"+/8=");
        assert_eq!(base64_url(&[0xfb, 0xff]).unwrap().expose(), b"-_8=");
    }
}
