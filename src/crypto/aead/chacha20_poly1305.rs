//! ChaCha20 and Poly1305 (RFC 8439, which was RFC 7539).
//!
//! Both are crates. What joins them is our own, not the crate `chacha20poly1305` (0.11): that one gives no plaintext
//! where the tag is wrong, and `BadSectorPolicy::Report` has to.

use chacha20::ChaCha20;
use cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};
use zeroize::Zeroizing;

use super::{Aead, TAG};
use crate::num::to_u64;

/// The two with their key.
pub(super) struct ChaCha20Poly1305(Zeroizing<[u8; 32]>);

impl ChaCha20Poly1305 {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl Aead for ChaCha20Poly1305 {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv);
        let mut stream = ChaCha20::new(&(*self.0).into(), &nonce.into());
        // Poly1305's key is the start of the first block of 64 bytes; the data begins with the second.
        let mut key = Zeroizing::new([0; 32]);
        stream.apply_keystream(&mut *key);
        stream.seek(64u32);
        let mut poly = Poly1305::new(&(*key).into());
        poly.update_padded(aad);
        poly.update_padded(data);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&len(aad).to_le_bytes());
        lengths[8..].copy_from_slice(&len(data).to_le_bytes());
        poly.update(&[lengths.into()]);
        stream.apply_keystream(data);
        poly.finalize().into()
    }
}

fn len(bytes: &[u8]) -> u64 {
    to_u64(bytes.len())
}
