//! Key material: from the bytes that somebody saved to the passphrases that a keyslot may want.
//!
//! OpenStack's Cinder and Nova take the *lower-case hex* of a secret's bytes as the passphrase (`binascii.hexlify` in
//! os-brick's `encryptors/luks.py`); a secret of the type `passphrase` is taken as it is. Nobody can see from a file
//! how it was saved, so [`Key::guess`] tries what people do, in the order of likelihood.

mod codec;
mod fill;
mod guess;
mod payload;
mod plain;
mod qnap;
mod recovery;
mod rule;
mod seen;
mod text;
mod volume;

use std::io::Read;

pub use plain::{PlainHash, raw_key};
pub use rule::{KeyRule, Step};
pub use seen::Seen;
pub use volume::{DmTable, VolumeKeyForm, volume_key_forms};

use crate::error::{Error, Hint, Result};
use crate::limits::KEYFILE_SIZE_MAX;
use crate::secret::{Passphrase, SecretBytes};

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
        Self { candidates: vec![Candidate { rule: KeyRule::default(), passphrase: Passphrase(bytes) }] }
    }

    /// A Barbican secret's payload: the passphrase is its lower-case hex.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn barbican(payload: &SecretBytes) -> Result<Self> {
        let mut key = Self { candidates: Vec::new() };
        key.add(KeyRule::of(&[Step::Hexlified]), codec::hexlify(payload.expose())?);
        Ok(key)
    }

    /// Bytes that were saved nobody knows how: all the passphrases that they may stand for.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn guess(saved: &SecretBytes) -> Result<Self> {
        Ok(Self { candidates: guess::candidates(saved.expose())? })
    }

    /// A line that a program or a terminal gave, without its LF. Where it ends in a carriage return, that is taken to be
    /// the rest of a newline of Windows; it is tried with it, too.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn line(line: SecretBytes) -> Result<Self> {
        let mut key = Self { candidates: Vec::new() };
        if let Some(text) = line.expose().strip_suffix(b"\r") {
            key.add(KeyRule::of(&[Step::WithoutReturn]), SecretBytes::copy_of(text)?);
        }
        key.add(KeyRule::default(), line);
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

    /// The same passphrases once more.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where memory cannot be had.
    pub fn try_clone(&self) -> Result<Self> {
        let copy = |c: &Candidate| {
            Ok(Candidate { rule: c.rule.clone(), passphrase: Passphrase::copy_of(c.passphrase.expose())? })
        };
        Ok(Self { candidates: self.candidates.iter().map(copy).collect::<Result<_>>()? })
    }

    /// The passphrases, the likeliest first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
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

    #[test]
    fn barbican_is_lower_case_hex_of_all_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        let key = Key::barbican(&SecretBytes::copy_of(&all).unwrap()).unwrap();
        let expected = hex::encode(&all);
        assert_eq!(key.candidates()[0].passphrase.expose(), expected.as_bytes());
        assert_eq!(codec::unhex(expected.to_uppercase().as_bytes()).unwrap().unwrap().expose(), all);
    }

    #[test]
    fn a_line_of_windows_is_tried_without_its_return_first() {
        let line = |text: &[u8]| {
            let key = Key::line(SecretBytes::copy_of(text).unwrap()).unwrap().try_clone().unwrap();
            key.candidates().iter().map(|c| c.passphrase.expose().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(line(b"abc\r"), [b"abc".to_vec(), b"abc\r".to_vec()]);
        assert_eq!(line(b"abc"), [b"abc".to_vec()]);
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
