//! Galois/Counter Mode (NIST SP 800-38D) with 12-byte IVs, over any cipher with 16-byte blocks.
//!
//! GHASH is the crate `ghash`'s. The mode is our own, not the crate `aes-gcm` (0.11): that one gives no plaintext where
//! the tag is wrong, and `BadSectorPolicy::Report` has to.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::{Aead, SECTOR_MAX, TAG};
use crate::crypto::iv::EncryptBlocks;
use crate::num::to_u64;

/// GCM over a keyed cipher.
pub(super) struct Gcm {
    cipher: Box<dyn EncryptBlocks>,
    ghash: GHash,
}

impl Gcm {
    pub(super) fn new(cipher: Box<dyn EncryptBlocks>) -> Self {
        let mut h = zeroize::Zeroizing::new([0; 16]);
        cipher.encrypt_all(&mut *h);
        Self { cipher, ghash: GHash::new(&(*h).into()) }
    }
}

impl Aead for Gcm {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let mut ghash = self.ghash.clone();
        ghash.update_padded(aad);
        ghash.update_padded(data);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&bits(aad).to_be_bytes());
        lengths[8..].copy_from_slice(&bits(data).to_be_bytes());
        ghash.update(&[lengths.into()]);
        let mut tag: [u8; TAG] = ghash.finalize().into();

        // The first block of the key stream masks the tag, and the others the data.
        let mut stream = [0; TAG + SECTOR_MAX];
        let stream = &mut stream[..TAG + data.len()];
        for (counter, block) in (1u32..).zip(stream.as_chunks_mut::<16>().0) {
            block[..12].copy_from_slice(iv);
            block[12..].copy_from_slice(&counter.to_be_bytes());
        }
        self.cipher.encrypt_all(stream);
        let (mask, stream) = stream.split_at(TAG);
        tag.iter_mut().zip(mask).for_each(|(t, m)| *t ^= m);
        data.iter_mut().zip(stream).for_each(|(d, s)| *d ^= s);
        tag
    }
}

fn bits(bytes: &[u8]) -> u64 {
    to_u64(bytes.len()) * 8
}
