//! Adiantum (<https://eprint.iacr.org/2018/720>, the kernel's crypto/adiantum.c and crypto/nhpoly1305.c): a sector is
//! one block of a wide cipher, made of XChaCha, AES-256, NH and Poly1305.
//!
//! With a sector's last 16 bytes as R and the others as L, decrypting is:
//! `M = R + H(L)`, `L = L xor XChaCha(M)`, `M = AES^-1(M)`, `R = M - H(L)`, where H hashes the IV too.
//!
//! AES and XChaCha are crates. The construction is our own, not the crate `adiantum` (0.2): that one hashes with the
//! crate `poly1305`, which is slow at this (the module `poly1305` says why).

use std::marker::PhantomData;

use aes::Aes256;
use cipher::consts::{U24, U32};
use cipher::{BlockCipherDecrypt, KeyInit, KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::poly1305::Poly1305;
use super::{IV_MAX, SectorMode};
use crate::num::to_u64;

/// How many bytes NH hashes at once, to 32 bytes.
const NH_UNIT: usize = 1024;
/// How many 32-bit words NH's key has: a unit's, and the next 3 blocks' for its passes.
const NH_KEY: usize = (NH_UNIT + 3 * 16) / 4;

/// Adiantum with the stream cipher `S`.
pub(super) struct Adiantum<S> {
    stream_key: Zeroizing<[u8; 32]>,
    block: Aes256,
    header_hash: Poly1305,
    message_hash: Poly1305,
    nh_key: Box<Zeroizing<[u32; NH_KEY]>>,
    stream: PhantomData<fn() -> S>,
}

impl<S: KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher> Adiantum<S> {
    /// Derives the other keys from `key`, as `adiantum_setkey` does.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let mut derived = Zeroizing::new([0; 32 + 16 + 16 + 4 * NH_KEY]);
        let mut nonce = [0; 24];
        nonce[0] = 1;
        S::new(key.into(), &nonce.into()).apply_keystream(&mut *derived);

        let (keys, rest) = derived.as_chunks::<16>();
        let mut block_key = Zeroizing::new([0; 32]);
        block_key.copy_from_slice(keys[..2].as_flattened());
        let mut nh_key = Box::new(Zeroizing::new([0; NH_KEY]));
        for (word, bytes) in nh_key.iter_mut().zip(keys[4..].as_flattened().as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        debug_assert!(rest.is_empty(), "NH's key is whole blocks");
        Self {
            stream_key: Zeroizing::new(*key),
            block: Aes256::new((&*block_key).into()),
            header_hash: Poly1305::new(&keys[2]),
            message_hash: Poly1305::new(&keys[3]),
            nh_key,
            stream: PhantomData,
        }
    }

    fn decrypt_sector(&self, sector: &mut [u8], iv: &[u8; IV_MAX]) {
        let Some((bulk, last)) = sector.split_last_chunk_mut::<16>() else { return };
        let header = self.hash_header(bulk.len(), iv);

        let hash = header.wrapping_add(self.hash_message(bulk));
        let mut middle = u128::from_le_bytes(*last).wrapping_add(hash).to_le_bytes();

        let mut nonce = [0; 24];
        nonce[..16].copy_from_slice(&middle);
        nonce[16] = 1;
        S::new((&*self.stream_key).into(), &nonce.into()).apply_keystream(bulk);

        self.block.decrypt_block((&mut middle).into());
        let hash = header.wrapping_add(self.hash_message(bulk));
        *last = u128::from_le_bytes(middle).wrapping_sub(hash).to_le_bytes();
    }

    /// The length in bits and the IV, through Poly1305.
    fn hash_header(&self, bulk_len: usize, iv: &[u8; IV_MAX]) -> u128 {
        let bits = u128::from(to_u64(bulk_len)) * 8;
        self.header_hash.hash([bits.to_le_bytes()].iter().chain(iv.as_chunks().0))
    }

    /// Whole blocks, through NH, and its sums through Poly1305.
    fn hash_message(&self, bulk: &[u8]) -> u128 {
        // A sector of 4096 bytes has four units.
        let mut sums = [[0; 32]; 4];
        let units = bulk.chunks(NH_UNIT);
        let count = units.len();
        for (sums, unit) in sums.iter_mut().zip(units) {
            *sums = nh(&self.nh_key, unit);
        }
        self.message_hash.hash(sums[..count].as_flattened().as_chunks().0.iter())
    }
}

impl<S: KeyIvInit<KeySize = U32, IvSize = U24> + StreamCipher> SectorMode for Adiantum<S> {
    fn decrypt(&self, data: &mut [u8], ivs: &mut [u8], sector_size: usize) {
        for (sector, iv) in data.chunks_exact_mut(sector_size).zip(ivs.as_chunks().0) {
            self.decrypt_sector(sector, iv);
        }
    }
}

/// NH: four passes over a unit of whole blocks, each with the key 4 words further.
fn nh(key: &[u32; NH_KEY], unit: &[u8]) -> [u8; 32] {
    let mut sums = [0u64; 4];
    for (block, key) in unit.as_chunks::<16>().0.iter().zip(key.windows(16).step_by(4)) {
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        for (sum, key) in sums.iter_mut().zip(key.as_chunks::<4>().0) {
            let term = |at: usize| u64::from(words[at].wrapping_add(key[at]));
            *sum = sum.wrapping_add(term(0) * term(2)).wrapping_add(term(1) * term(3));
        }
    }
    let mut bytes = [0; 32];
    for (bytes, sum) in bytes.as_chunks_mut().0.iter_mut().zip(sums) {
        *bytes = sum.to_le_bytes();
    }
    bytes
}
