//! A secret that is written piece by piece, and that leaves no copy behind where it grows.

use crate::error::Result;
use crate::secret::SecretBytes;

/// What a secret without a length known before starts with.
const FIRST: usize = 256;

/// A secret under way.
pub(super) struct Fill {
    bytes: SecretBytes,
    len: usize,
}

impl Fill {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { bytes: SecretBytes::zeroed(FIRST)?, len: 0 })
    }

    pub(super) fn push(&mut self, more: &[u8]) -> Result<()> {
        let end = self.len.saturating_add(more.len());
        if end > self.bytes.len() {
            let mut larger = SecretBytes::zeroed(end.saturating_mul(2))?;
            larger.expose_mut()[..self.len].copy_from_slice(&self.bytes.expose()[..self.len]);
            self.bytes = larger;
        }
        self.bytes.expose_mut()[self.len..end].copy_from_slice(more);
        self.len = end;
        Ok(())
    }

    pub(super) fn push_char(&mut self, c: char) -> Result<()> {
        self.push(c.encode_utf8(&mut [0; 4]).as_bytes())
    }

    pub(super) fn finish(mut self) -> SecretBytes {
        self.bytes.truncate(self.len);
        self.bytes
    }
}

/// All of `chars` as UTF-8.
pub(super) fn utf8(chars: impl Iterator<Item = char>) -> Result<SecretBytes> {
    let mut text = Fill::new()?;
    for c in chars {
        text.push_char(c)?;
    }
    Ok(text.finish())
}

/// All of `bytes`.
pub(super) fn bytes(bytes: impl Iterator<Item = u8>) -> Result<SecretBytes> {
    let mut filled = Fill::new()?;
    for b in bytes {
        filled.push(&[b])?;
    }
    Ok(filled.finish())
}
