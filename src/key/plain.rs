//! The key of plain dm-crypt, which has no header: a passphrase that is hashed once.
//!
//! `cryptsetup open --type plain` hashes the passphrase to as many bytes as the cipher's key has. Where the hash gives
//! more, it is cut; where it gives less, the passphrase is hashed again with one `A` in front, then with two, and what
//! comes out is put one behind the other. `HASH:BYTES` fills only that many bytes, with zeroes behind; `plain` takes the
//! passphrase as it is. Source: cryptsetup's `lib/crypt_plain.c`, and its manual page's section "PASSPHRASE PROCESSING
//! FOR PLAIN MODE". A key file is not hashed: its first bytes are the key, but for the standard input as a key file.

use zeroize::Zeroize;

use crate::crypto::hash::Hash;
use crate::error::{Error, ErrorKind, Result, escape};
use crate::limits::KEY_SIZE_MAX;
use crate::secret::{Passphrase, SecretBytes, VolumeKey};

/// How a passphrase becomes the key of plain dm-crypt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainHash {
    /// `None` takes the passphrase as it is.
    hash: Option<Hash>,
    /// The bytes of the key that are filled; the others are zeroes.
    filled: Option<usize>,
}

impl PlainHash {
    /// A hash by name, `plain` for none, with `:BYTES` behind it where it fills a part of the key alone.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a hash that is not known here; [`ErrorKind::InvalidInput`] for bytes that are no
    /// number.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, filled) = match text.split_once(':') {
            Some((name, bytes)) => {
                let wrong = |_| Error::invalid(format!("found \"{}\"; HASH:BYTES is allowed", escape(text)));
                (name, Some(bytes.parse().map_err(wrong)?))
            }
            None => (text, None),
        };
        let hash = if name == "plain" { None } else { Some(Hash::from_name(name)?) };
        Ok(Self { hash, filled })
    }

    /// The key of `key_size` bytes that a passphrase gives. Nothing proves it: any passphrase gives one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for more bytes than the key has, and for a passphrase that is too short to be taken
    /// as it is; [`ErrorKind::LimitExceeded`] for a key above 512 bytes.
    pub fn key(&self, passphrase: &Passphrase, key_size: usize) -> Result<VolumeKey> {
        if u32::try_from(key_size).map_or(true, |size| size > KEY_SIZE_MAX || size == 0) {
            let message = format!("found {key_size} bytes; 1 to {KEY_SIZE_MAX} are allowed");
            return Err(Error::new(ErrorKind::LimitExceeded, message).with_rule("key-size"));
        }
        let filled = self.filled.unwrap_or(key_size);
        if filled > key_size {
            let message = format!("the hash is said to fill {filled} bytes of a key of {key_size}");
            return Err(Error::invalid(message).with_rule("plain-hash"));
        }
        let mut key = SecretBytes::zeroed(key_size)?;
        let Some(hash) = self.hash else {
            let Some(start) = passphrase.expose().get(..filled) else {
                let message = format!("the passphrase has {} bytes; the key has {filled}", passphrase.expose().len());
                return Err(Error::invalid(message).with_rule("plain-hash"));
            };
            key.expose_mut()[..filled].copy_from_slice(start);
            return Ok(VolumeKey(key));
        };
        for (round, part) in key.expose_mut()[..filled].chunks_mut(hash.output_len().max(1)).enumerate() {
            let mut digest = hash.digest(&[&vec![b'A'; round], passphrase.expose()]);
            part.copy_from_slice(&digest[..part.len()]);
            digest.zeroize();
        }
        Ok(VolumeKey(key))
    }
}

/// The key that the first bytes of a key file are.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where it has fewer.
pub fn raw_key(file: &[u8], key_size: usize) -> Result<VolumeKey> {
    let Some(key) = file.get(..key_size) else {
        let message = format!("the key file has {} bytes; the key has {key_size}", file.len());
        return Err(Error::invalid(message).with_rule("key-size"));
    };
    VolumeKey::copy_of(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hash: &str, passphrase: &[u8], key_size: usize) -> Result<String> {
        let passphrase = Passphrase::copy_of(passphrase)?;
        PlainHash::parse(hash)?.key(&passphrase, key_size).map(|key| hex::encode(key.expose()))
    }

    /// From `(printf secret | openssl dgst -HASH; printf Asecret | openssl dgst -HASH)`.
    #[test]
    fn a_short_hash_is_run_again_with_a_letter_in_front() {
        let ripemd = "cd98bf0202ef07e38e87f6bd9445e5e7331e2c78104677e9f86c16552856dae842f4bc1356932cda";
        assert_eq!(key("ripemd160", b"secret", 32).unwrap(), ripemd[..64]);
        assert_eq!(key("ripemd160", b"secret", 16).unwrap(), ripemd[..32]);
        let sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b40a1e4d40dbee92612950e2d0657f16e2ef366d37d0adf587d3845ac27593b3a";
        assert_eq!(key("sha256", b"secret", 64).unwrap(), sha256);
        assert_eq!(key("sha256:20", b"secret", 32).unwrap(), format!("{}{}", &sha256[..40], "0".repeat(24)));
        assert_eq!(key("plain", b"0123456789abcdefX", 16).unwrap(), hex::encode("0123456789abcdef"));
    }

    #[test]
    fn what_gives_no_key_is_refused() {
        for (hash, size, says) in [
            ("plain", 16, "has 6 bytes"),
            ("sha256:33", 32, "fill 33 bytes"),
            ("sha256:x", 32, "HASH:BYTES"),
            ("no-such-hash", 32, "no-such-hash"),
            ("sha256", 513, "1 to 512"),
            ("sha256", 0, "1 to 512"),
        ] {
            let e = key(hash, b"secret", size).unwrap_err().to_string();
            assert!(e.contains(says), "{hash}: {e}");
        }
        assert!(raw_key(&[1; 31], 32).is_err());
        assert_eq!(raw_key(&[1; 33], 32).unwrap().expose(), [1; 32]);
    }
}
