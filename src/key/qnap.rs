//! QNAP's passphrases: its NAS does not open a keyslot with the password that its owner types, but with the text of that
//! password's MD5-crypt, always with the same salt: `$1$YCCaQNAP$…`.
//!
//! MD5-crypt is that of FreeBSD and glibc (`crypt-md5.c`; Ulrich Drepper describes the pattern in his paper on SHA-crypt).
//! Own code, since the crates that have it (`pwhash`, `md5-crypt`) leave copies of the password in memory.

use md5::{Digest, Md5};
use zeroize::Zeroize;

use super::fill::Fill;
use crate::error::Result;
use crate::secret::SecretBytes;

/// The salt that all of QNAP's boxes have.
const SALT: &[u8] = b"YCCaQNAP";
/// QNAP allows less; a text that is longer is no password.
const PASSWORD_MAX: usize = 128;
/// How often MD5-crypt hashes.
const ROUNDS: usize = 1000;
/// The alphabet of crypt(3).
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a NAS makes of a password; `None` for what can be none.
pub(super) fn passphrase(password: &[u8]) -> Result<Option<SecretBytes>> {
    let is_hash = password.starts_with(b"$1$");
    if password.is_empty() || password.len() > PASSWORD_MAX || is_hash {
        return Ok(None);
    }
    let mut digest = md5_crypt(password, SALT);
    let mut text = Fill::new()?;
    for part in [b"$1$", SALT, b"$"] {
        text.push(part)?;
    }
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        let [a, b, c] = [digest[a], digest[b], digest[c]].map(u32::from);
        push_digits(&mut text, (a << 16) | (b << 8) | c, 4)?;
    }
    push_digits(&mut text, u32::from(digest[11]), 2)?;
    digest.zeroize();
    Ok(Some(text.finish()))
}

fn push_digits(text: &mut Fill, number: u32, digits: u32) -> Result<()> {
    for n in 0..digits {
        let index = usize::try_from((number >> (6 * n)) & 63).unwrap_or_default();
        text.push(&ALPHABET[index..=index])?;
    }
    Ok(())
}

fn md5_crypt(password: &[u8], salt: &[u8]) -> [u8; 16] {
    let mut alternate: [u8; 16] =
        Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut first = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    for part in password.chunks(16) {
        first.update(&alternate[..part.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // A set bit is a zero, and a clear one the password's first byte: so it was written once, and so it stayed.
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    alternate.zeroize();
    let mut digest: [u8; 16] = first.finalize().into();
    for round in 0..ROUNDS {
        let mut md5 = Md5::new();
        let odd = round % 2 == 1;
        md5.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            md5.update(salt);
        }
        if round % 7 != 0 {
            md5.update(password);
        }
        md5.update(if odd { &digest } else { password });
        digest = md5.finalize().into();
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `openssl passwd -1 -salt YCCaQNAP PASSWORD`.
    #[test]
    fn as_openssl_has_it() {
        for (password, hash) in [
            ("nas-password", "$1$YCCaQNAP$VKoiDfThdujsVNZujeIHQ1"),
            ("a", "$1$YCCaQNAP$6ZpcFowX6hw7boBGUBSfW0"),
            ("admin1234567890-longer-than-16", "$1$YCCaQNAP$Hpzdo0KS9is8pD5ehhxht."),
        ] {
            assert_eq!(passphrase(password.as_bytes()).unwrap().unwrap().expose(), hash.as_bytes(), "{password}");
        }
        assert!(passphrase(b"").unwrap().is_none());
        assert!(passphrase(b"$1$YCCaQNAP$VKoiDfThdujsVNZujeIHQ1").unwrap().is_none());
    }
}
