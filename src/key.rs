//! Key material: from the bytes that somebody saved to the passphrases that a keyslot may want.
//!
//! OpenStack's Cinder and Nova take the *lower-case hex* of a secret's bytes as the passphrase (`binascii.hexlify` in
//! os-brick's `encryptors/luks.py`); a secret of the type `passphrase` is taken as it is. Nobody can see from a file
//! how it was saved, so [`Key::guess`] tries what people do, in the order of likelihood.

use std::io::Read;

use base64::Engine;

use crate::error::{Error, Hint, Result};
use crate::limits::KEYFILE_SIZE_MAX;
use crate::secret::{Passphrase, SecretBytes};

/// How a passphrase was made from the saved bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRule {
    /// The bytes as they are.
    AsIs,
    /// The lower-case hex of the bytes.
    Hexlified,
    /// The bytes without one newline at the end.
    WithoutNewline,
    /// The lower-case hex of the bytes without one newline at the end.
    HexlifiedWithoutNewline,
    /// The bytes, which are hex, in lower case.
    LowerCasedHex,
    /// What the bytes, which are hex, stand for.
    UnHexed,
    /// What the bytes, which are Base64, stand for.
    Base64Decoded,
    /// The lower-case hex of what the bytes, which are Base64, stand for.
    Base64DecodedHexlified,
}

impl KeyRule {
    /// What was done to the bytes, for reports.
    pub fn describe(self) -> &'static str {
        match self {
            Self::AsIs => "the bytes as they are",
            Self::Hexlified => "hexlified",
            Self::WithoutNewline => "without the trailing newline",
            Self::HexlifiedWithoutNewline => "hexlified, without the trailing newline",
            Self::LowerCasedHex => "hex in lower case",
            Self::UnHexed => "un-hexed",
            Self::Base64Decoded => "base64-decoded",
            Self::Base64DecodedHexlified => "base64-decoded, then hexlified",
        }
    }
}

/// A passphrase to try, and where it comes from.
#[non_exhaustive]
pub struct Candidate {
    /// How it was made.
    pub rule: KeyRule,
    /// The passphrase.
    pub passphrase: Passphrase,
}

/// One or more passphrases to try, the likeliest first; no two are the same.
pub struct Key {
    candidates: Vec<Candidate>,
}

impl Key {
    /// A passphrase as it is.
    pub fn passphrase(bytes: SecretBytes) -> Self {
        Self { candidates: vec![Candidate { rule: KeyRule::AsIs, passphrase: Passphrase(bytes) }] }
    }

    /// A Barbican secret's payload: the passphrase is its lower-case hex.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn barbican(payload: &SecretBytes) -> Result<Self> {
        let mut key = Self { candidates: Vec::new() };
        key.add(KeyRule::Hexlified, hexlify(payload.expose())?);
        Ok(key)
    }

    /// Bytes that were saved nobody knows how: all the passphrases that they may stand for.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn guess(saved: &SecretBytes) -> Result<Self> {
        let mut key = Self { candidates: Vec::new() };
        let bytes = saved.expose();
        key.add(KeyRule::AsIs, SecretBytes::copy_of(bytes)?);
        key.add(KeyRule::Hexlified, hexlify(bytes)?);
        let line = without_newline(bytes);
        if line.len() != bytes.len() {
            key.add(KeyRule::WithoutNewline, SecretBytes::copy_of(line)?);
            key.add(KeyRule::HexlifiedWithoutNewline, hexlify(line)?);
        }
        if let Some(raw) = unhex(line)? {
            let mut lower = SecretBytes::copy_of(line)?;
            lower.expose_mut().make_ascii_lowercase();
            key.add(KeyRule::LowerCasedHex, lower);
            key.add(KeyRule::UnHexed, raw);
        }
        if let Some(raw) = unbase64(line)? {
            let hex = hexlify(raw.expose())?;
            key.add(KeyRule::Base64Decoded, raw);
            key.add(KeyRule::Base64DecodedHexlified, hex);
        }
        Ok(key)
    }

    fn add(&mut self, rule: KeyRule, bytes: SecretBytes) {
        if self.candidates.iter().all(|c| c.passphrase.expose() != bytes.expose()) {
            self.candidates.push(Candidate { rule, passphrase: Passphrase(bytes) });
        }
    }

    /// Adds the passphrases of another key behind these: a reencrypted image may want two.
    pub fn and(mut self, other: Self) -> Self {
        for c in other.candidates {
            self.add(c.rule, c.passphrase.0);
        }
        self
    }

    /// The passphrases, the likeliest first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    line.strip_suffix(b"\r").filter(|_| line.len() != bytes.len()).unwrap_or(line)
}

/// The lower-case hex of `bytes`, made without table look-ups that depend on the secret.
fn hexlify(bytes: &[u8]) -> Result<SecretBytes> {
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
fn unhex(text: &[u8]) -> Result<Option<SecretBytes>> {
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

/// What Base64 stands for; `None` where `text` is no Base64 with its padding.
fn unbase64(text: &[u8]) -> Result<Option<SecretBytes>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut raw = SecretBytes::zeroed(text.len().div_ceil(4) * 3)?;
    let engine = &base64::engine::general_purpose::STANDARD;
    match engine.decode_slice(text, raw.expose_mut()) {
        Ok(len) => {
            raw.truncate(len);
            Ok(Some(raw))
        }
        Err(_) => Ok(None),
    }
}

/// Reads a key file: `size` bytes from `offset` on, all to the end where `size` is `None`.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where it cannot be read; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput)
/// where it has fewer bytes than asked for; [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) above 8 MiB,
/// cryptsetup's own limit.
pub fn read_key_file(from: &mut impl Read, offset: u64, size: Option<usize>) -> Result<SecretBytes> {
    let wanted = size.unwrap_or(KEYFILE_SIZE_MAX);
    if wanted > KEYFILE_SIZE_MAX {
        return Err(too_large());
    }
    let skipped = std::io::copy(&mut from.take(offset), &mut std::io::sink()).map_err(reading)?;
    if skipped < offset {
        return Err(Error::invalid(format!(
            "the key file has {skipped} bytes, but the key is said to start at byte {offset}"
        )));
    }
    // A buffer that grows by copying, so that no more memory is locked than the key wants.
    let mut key = SecretBytes::zeroed(wanted.min(4096))?;
    let mut len = 0;
    while len < wanted {
        if len == key.len() {
            let mut larger = SecretBytes::zeroed((len * 4).min(wanted))?;
            larger.expose_mut()[..len].copy_from_slice(key.expose());
            key = larger;
        }
        match from.read(&mut key.expose_mut()[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
    match size {
        Some(size) if len < size => {
            return Err(Error::invalid(format!(
                "the key file ends after {len} of the {size} bytes that the key is said to have"
            )));
        }
        None if len == KEYFILE_SIZE_MAX && matches!(from.read(&mut [0]), Ok(1)) => return Err(too_large()),
        _ => {}
    }
    key.truncate(len);
    Ok(key)
}

/// Reads the first line, without its newline.
///
/// # Errors
/// As [`read_key_file`]; an empty input is an empty passphrase.
pub fn read_first_line(from: &mut impl Read) -> Result<SecretBytes> {
    // One byte at a time: what follows the line in a pipe is not ours to take.
    let mut line = SecretBytes::zeroed(4096)?;
    let mut len = 0;
    let mut byte = SecretBytes::zeroed(1)?;
    loop {
        match from.read(byte.expose_mut()) {
            Ok(0) => break,
            Ok(_) if byte.expose() == b"\n" => break,
            Ok(_) if len == line.len() => {
                return Err(Error::limit("passphrase", format!("the first line is longer than {len} bytes"))
                    .with_hint(Hint::WholeKeyFile));
            }
            Ok(_) => {
                line.expose_mut()[len] = byte.expose()[0];
                len += 1;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(reading(e)),
        }
    }
    line.truncate(len);
    Ok(line)
}

fn reading(e: std::io::Error) -> Error {
    Error::io("reading the key", e)
}

fn too_large() -> Error {
    Error::limit("key-file", format!("the key file has more than {KEYFILE_SIZE_MAX} bytes"))
        .with_hint(Hint::KeyFilePart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guesses(saved: &[u8]) -> Vec<(KeyRule, Vec<u8>)> {
        let key = Key::guess(&SecretBytes::copy_of(saved).unwrap()).unwrap();
        key.candidates().iter().map(|c| (c.rule, c.passphrase.expose().to_vec())).collect()
    }

    #[test]
    fn a_binary_key_gives_two_guesses() {
        assert_eq!(
            guesses(&[0, 0x9f, 0xa0, 0xff]),
            [(KeyRule::AsIs, vec![0, 0x9f, 0xa0, 0xff]), (KeyRule::Hexlified, b"009fa0ff".to_vec())]
        );
    }

    #[test]
    fn hex_text_with_a_newline_is_seen_through() {
        let rules = guesses(b"AB0f\n");
        assert!(rules.contains(&(KeyRule::WithoutNewline, b"AB0f".to_vec())));
        assert!(rules.contains(&(KeyRule::LowerCasedHex, b"ab0f".to_vec())));
        assert!(rules.contains(&(KeyRule::UnHexed, vec![0xab, 0x0f])));
        // Four hex digits are Base64 too.
        assert!(rules.contains(&(KeyRule::Base64Decoded, vec![0, 29, 31])));
    }

    #[test]
    fn no_derivation_is_paid_twice() {
        let rules = guesses(b"ab0f");
        let mut passphrases: Vec<_> = rules.iter().map(|(_, p)| p.clone()).collect();
        passphrases.sort();
        passphrases.dedup();
        assert_eq!(passphrases.len(), rules.len());
        assert!(rules.iter().all(|(r, _)| *r != KeyRule::LowerCasedHex), "it is as it is already");
    }

    #[test]
    fn barbican_is_lower_case_hex_of_all_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        let key = Key::barbican(&SecretBytes::copy_of(&all).unwrap()).unwrap();
        let expected = hex::encode(&all);
        assert_eq!(key.candidates()[0].passphrase.expose(), expected.as_bytes());
        assert_eq!(unhex(expected.to_uppercase().as_bytes()).unwrap().unwrap().expose(), all);
    }

    #[test]
    fn a_key_file_is_read_as_cryptsetup_reads_it() {
        let read = |offset, size| read_key_file(&mut &b"0123456789\n"[..], offset, size).map(|k| k.expose().to_vec());
        assert_eq!(read(0, None).unwrap(), b"0123456789\n");
        assert_eq!(read(2, Some(3)).unwrap(), b"234");
        assert!(read(12, None).is_err());
        assert!(read(9, Some(3)).is_err());
        let big = vec![7u8; 100_000];
        assert_eq!(read_key_file(&mut &big[..], 0, None).unwrap().expose(), big);
        let huge = std::io::repeat(1);
        assert_eq!(read_key_file(&mut { huge }, 0, None).err().unwrap().kind(), crate::ErrorKind::LimitExceeded);
    }

    #[test]
    fn a_first_line_leaves_the_rest() {
        let mut input = &b"secret\nrest"[..];
        assert_eq!(read_first_line(&mut input).unwrap().expose(), b"secret");
        assert_eq!(input, b"rest");
        assert!(read_first_line(&mut &b""[..]).unwrap().is_empty());
    }
}
