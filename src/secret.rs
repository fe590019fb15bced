//! Keys and passphrases: in memory of their own that is locked, kept out of core dumps, and zeroized when dropped.

use memmap2::{Advice, MmapMut};
use zeroize::Zeroize;

use crate::error::{Error, Result};

/// Secret bytes in pages of their own: not swapped (where the system allows locking), not in core dumps, zeroized
/// when dropped, and without `Debug`, `Display` or `Clone`.
pub struct SecretBytes {
    pages: MmapMut,
    len: usize,
    locked: bool,
}

impl SecretBytes {
    /// `len` zero bytes, to be filled in place.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the memory cannot be had.
    pub fn zeroed(len: usize) -> Result<Self> {
        let pages =
            MmapMut::map_anon(len.max(1)).map_err(|e| Error::io(format!("allocating {len} bytes for a secret"), e))?;
        // Both are best effort: a small RLIMIT_MEMLOCK must not keep an image from being opened.
        let locked = pages.lock().is_ok();
        #[cfg(target_os = "linux")]
        let _ = pages.advise(Advice::DontDump);
        Ok(Self { pages, len, locked })
    }

    /// A copy of `bytes`. The caller's own copy stays the caller's to wipe.
    ///
    /// # Errors
    /// As [`SecretBytes::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        let mut s = Self::zeroed(bytes.len())?;
        s.expose_mut().copy_from_slice(bytes);
        Ok(s)
    }

    /// The secret.
    pub fn expose(&self) -> &[u8] {
        &self.pages[..self.len]
    }

    /// The secret, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.pages[..self.len]
    }

    /// Drops what lies behind `len`, and wipes it.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.pages[len..self.len].zeroize();
            self.len = len;
        }
    }

    /// How many bytes the secret has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the secret is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the system keeps the pages from being swapped out.
    pub fn is_locked(&self) -> bool {
        self.locked
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.pages.zeroize();
    }
}

/// What a keyslot is opened with: the exact bytes that go into the key derivation.
pub struct Passphrase(pub SecretBytes);

/// The key that the data is encrypted with, as a keyslot holds it.
pub struct VolumeKey(pub SecretBytes);

impl Passphrase {
    /// A copy of `bytes`, as they are.
    ///
    /// # Errors
    /// As [`SecretBytes::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        SecretBytes::copy_of(bytes).map(Self)
    }

    /// The passphrase's bytes.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl VolumeKey {
    /// A copy of `bytes`, as they are.
    ///
    /// # Errors
    /// As [`SecretBytes::zeroed`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self> {
        SecretBytes::copy_of(bytes).map(Self)
    }

    /// The key's bytes.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncating_wipes_the_rest() {
        let mut s = SecretBytes::copy_of(b"secret\n").unwrap();
        s.truncate(6);
        assert_eq!(s.expose(), b"secret");
        assert_eq!(s.pages[6], 0);
    }

    #[test]
    fn an_empty_secret_is_allowed() {
        assert!(SecretBytes::zeroed(0).unwrap().expose().is_empty());
    }
}
