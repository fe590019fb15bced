//! AEGIS-128 (Wu and Preneel, AEGIS v1.1, the CAESAR submission of 2016), which the kernel has and later AEGIS-128L and
//! AEGIS-256 are not: five blocks of state, and a message block in each step.
//!
//! The rounds are the crate `aes`'s. The cipher is our own: the crate `aegis` (0.9) has only the later ones.

use aes::Block;
use aes::hazmat::{Block8, cipher_round_par};
use zeroize::{Zeroize, Zeroizing};

use super::{Aead, TAG};
use crate::num::to_u64;

/// The Fibonacci sequence modulo 256.
pub(super) const CONST: [[u8; 16]; 2] = [
    [0x00, 0x01, 0x01, 0x02, 0x03, 0x05, 0x08, 0x0d, 0x15, 0x22, 0x37, 0x59, 0x90, 0xe9, 0x79, 0x62],
    [0xdb, 0x3d, 0x18, 0x55, 0x6d, 0xc2, 0x2f, 0xf1, 0x20, 0x11, 0x31, 0x42, 0x73, 0xb5, 0x28, 0xdd],
];

/// AEGIS-128 with its key.
pub(super) struct Aegis128(Zeroizing<[u8; 16]>);

impl Aegis128 {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl Aead for Aegis128 {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let mut nonce = [0; 16];
        nonce.copy_from_slice(iv);
        let mut state = State::new(u128::from_ne_bytes(*self.0), u128::from_ne_bytes(nonce));
        for chunk in aad.chunks(16) {
            let mut block = [0; 16];
            block[..chunk.len()].copy_from_slice(chunk);
            state.update(u128::from_ne_bytes(block));
        }
        // Sectors are whole blocks.
        for block in data.as_chunks_mut::<16>().0 {
            let plain = u128::from_ne_bytes(*block) ^ state.mask();
            state.update(plain);
            *block = plain.to_ne_bytes();
        }
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&bits(aad).to_le_bytes());
        lengths[8..].copy_from_slice(&bits(data).to_le_bytes());
        state.tag(u128::from_ne_bytes(lengths))
    }
}

fn bits(bytes: &[u8]) -> u64 {
    to_u64(bytes.len()) * 8
}

/// The five blocks `S0` to `S4`. They are numbers so that they can be XORed; no sum is ever made of them, so that the
/// machine's own order of bytes will do.
struct State([u128; 5]);

impl State {
    fn new(key: u128, iv: u128) -> Self {
        let [const0, const1] = CONST.map(u128::from_ne_bytes);
        let mut state = Self([key ^ iv, const1, const0, key ^ const0, key ^ const1]);
        for _ in 0..5 {
            state.update(key);
            state.update(key ^ iv);
        }
        state
    }

    /// Each block becomes the AES round of the one before it, XORed with itself; the message goes into the first.
    fn update(&mut self, message: u128) {
        let [s0, s1, s2, s3, s4] = self.0;
        let zero = Block::default();
        let block = |s: u128| Block::from(s.to_ne_bytes());
        // The AES rounds go side by side; the last three are for nothing.
        let mut blocks = Block8::from([block(s4), block(s0), block(s1), block(s2), block(s3), zero, zero, zero]);
        let keys = Block8::from([block(s0 ^ message), block(s1), block(s2), block(s3), block(s4), zero, zero, zero]);
        cipher_round_par(&mut blocks, &keys);
        for (s, block) in self.0.iter_mut().zip(blocks) {
            *s = u128::from_ne_bytes(block.into());
        }
    }

    /// What a message block is masked with.
    fn mask(&self) -> u128 {
        let [_, s1, s2, s3, s4] = self.0;
        s1 ^ s4 ^ (s2 & s3)
    }

    fn tag(mut self, lengths: u128) -> [u8; TAG] {
        let last = lengths ^ self.0[3];
        for _ in 0..7 {
            self.update(last);
        }
        self.0.iter().fold(0, |tag, s| tag ^ s).to_ne_bytes()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
