//! Counter with CBC-MAC (RFC 3610) as RFC 4309 uses it, over any cipher with 16-byte blocks: a nonce of 11 bytes, of
//! which 3 belong to the key and 8 are the IV, and a length of 4 bytes. The IV is not part of what is authenticated
//! besides (the kernel's crypto/ccm.c, `crypto_rfc4309_crypt`).
//!
//! It is our own, not the crate `ccm` (0.6): that one zeroes the plaintext where the tag is wrong, and
//! `BadSectorPolicy::Report` has to give it.

use super::{Aead, SECTOR_MAX, TAG};
use crate::crypto::iv::EncryptBlocks;
use crate::num::{low_u32, to_u64};

/// Bytes of a length field, less one: it stands so in the first byte of counters and of the first block.
const LENGTH_FIELD: u8 = 3;
/// There is associated data, and the tag has 16 bytes.
const FLAGS: u8 = 0x40 | 7 << 3 | LENGTH_FIELD;

/// CCM over a keyed cipher.
pub(super) struct Ccm {
    cipher: Box<dyn EncryptBlocks>,
    salt: zeroize::Zeroizing<[u8; 3]>,
}

impl Ccm {
    pub(super) fn new(cipher: Box<dyn EncryptBlocks>, salt: [u8; 3]) -> Self {
        Self { cipher, salt: zeroize::Zeroizing::new(salt) }
    }

    /// A first byte, the nonce, and a number.
    fn block(&self, first: u8, iv: &[u8], number: u32) -> [u8; 16] {
        let mut block = [0; 16];
        block[0] = first;
        block[1..4].copy_from_slice(&*self.salt);
        block[4..12].copy_from_slice(iv);
        block[12..].copy_from_slice(&number.to_be_bytes());
        block
    }
}

impl Aead for Ccm {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let aad = &aad[..aad.len() - iv.len()];
        let mut stream = [0; TAG + SECTOR_MAX];
        let stream = &mut stream[..TAG + data.len()];
        for (counter, block) in (0u32..).zip(stream.as_chunks_mut::<16>().0) {
            *block = self.block(LENGTH_FIELD, iv, counter);
        }
        self.cipher.encrypt_all(stream);
        let (mask, stream) = stream.split_at(TAG);
        data.iter_mut().zip(stream).for_each(|(d, s)| *d ^= s);

        let mut mac = self.block(FLAGS, iv, low_u32(to_u64(data.len())));
        self.cipher.encrypt_all(&mut mac);
        // The associated data is one block: its length in two bytes, and eight bytes of sector number.
        let [length, ..] = to_u64(aad.len()).to_le_bytes();
        let mut first = [0; 16];
        first[1] = length;
        first[2..2 + aad.len()].copy_from_slice(aad);
        for block in std::iter::once(&first[..]).chain(data.chunks_exact(16)) {
            mac.iter_mut().zip(block).for_each(|(m, b)| *m ^= b);
            self.cipher.encrypt_all(&mut mac);
        }
        mac.iter_mut().zip(mask).for_each(|(t, m)| *t ^= m);
        mac
    }
}
