//! AEGIS-128L and AEGIS-256 (Wu and Preneel, AEGIS v1.1, the CAESAR submission of 2016; with tags of 128 bits they are those
//! of draft-irtf-cfrg-aegis-aead): eight blocks of state with two message blocks in each step, and six with one.
//!
//! The kernel had both until 5.3. The rounds are the crate `aes`'s. The ciphers are our own, as AEGIS-128 beside them is:
//! the crate `aegis` (0.9) builds a library of C, or, with its feature pure-rust, wants another AES.

use aes::Block;
use aes::hazmat::{Block8, cipher_round_par};
use zeroize::{Zeroize, Zeroizing};

use super::aegis128::CONST;
use super::{Aead, TAG};
use crate::num::to_u64;

/// AEGIS-128L with its key.
pub(super) struct Aegis128L(Zeroizing<[u8; 16]>);

/// AEGIS-256 with its key.
pub(super) struct Aegis256(Zeroizing<[u8; 32]>);

impl Aegis128L {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl Aegis256 {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }
}

/// A block as a number, of which no sum is made: the machine's own order of bytes will do. One that is cut off is padded
/// with zeroes.
fn block(bytes: &[u8]) -> u128 {
    let mut block = [0; 16];
    for (to, from) in block.iter_mut().zip(bytes) {
        *to = *from;
    }
    u128::from_ne_bytes(block)
}

fn lengths(aad: &[u8], data: &[u8]) -> u128 {
    let [aad, data] = [aad, data].map(|bytes| (to_u64(bytes.len()) * 8).to_le_bytes());
    block(&[aad, data].concat())
}

fn constants() -> [u128; 2] {
    CONST.map(u128::from_ne_bytes)
}

/// The blocks `S0`, `S1` … of the state.
struct State<const N: usize>([u128; N]);

impl<const N: usize> State<N> {
    /// Each block becomes the AES round of the one before it, XORed with itself; the messages go into blocks of their own.
    fn update(&mut self, messages: [(usize, u128); 2]) {
        let s = self.0;
        let (mut before, mut keys) = (Block8::default(), Block8::default());
        for (n, (before, key)) in before.iter_mut().zip(&mut keys).enumerate().take(N) {
            *before = Block::from(s[(n + N - 1) % N].to_ne_bytes());
            let message = messages.iter().filter(|(at, _)| *at == n).fold(0, |sum, (_, message)| sum ^ message);
            *key = Block::from((s[n] ^ message).to_ne_bytes());
        }
        cipher_round_par(&mut before, &keys);
        for (s, block) in self.0.iter_mut().zip(before) {
            *s = u128::from_ne_bytes(block.into());
        }
    }

    fn xor(&self, count: usize) -> [u8; TAG] {
        self.0.iter().take(count).fold(0, |tag, s| tag ^ s).to_ne_bytes()
    }
}

impl<const N: usize> Drop for State<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Decrypts `data` in place with `mask` of the state, and puts it into the state, a part of `LEN` bytes after the other.
fn each<const N: usize, const LEN: usize>(
    state: &mut State<N>,
    data: &mut [u8],
    mask: impl Fn(&State<N>) -> [u128; 2],
    update: impl Fn(&mut State<N>, &[u8]),
) {
    for part in data.chunks_mut(LEN) {
        let mask = mask(state).map(u128::to_ne_bytes).concat();
        for (byte, mask) in part.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        update(state, part);
    }
}

impl Aead for Aegis128L {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let ([c0, c1], key, nonce) = (constants(), block(&*self.0), block(iv));
        let start = [key ^ nonce, c1, c0, c1, key ^ nonce, key ^ c0, key ^ c1, key ^ c0];
        let mut state = State::<8>(start);
        for _ in 0..10 {
            state.update([(0, nonce), (4, key)]);
        }
        let update = |state: &mut State<8>, part: &[u8]| {
            let (first, second) = part.split_at_checked(16).unwrap_or((part, &[]));
            state.update([(0, block(first)), (4, block(second))]);
        };
        aad.chunks(32).for_each(|part| update(&mut state, part));
        let mask = |State([_, s1, s2, s3, _, s5, s6, s7]): &State<8>| [s6 ^ s1 ^ (s2 & s3), s2 ^ s5 ^ (s6 & s7)];
        each::<8, 32>(&mut state, data, mask, update);
        let last = state.0[2] ^ lengths(aad, data);
        for _ in 0..7 {
            state.update([(0, last), (4, last)]);
        }
        state.xor(7)
    }
}

impl Aead for Aegis256 {
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG] {
        let [c0, c1] = constants();
        let halves = |bytes: &[u8]| [bytes.get(..16), bytes.get(16..)].map(|half| block(half.unwrap_or_default()));
        let ([k0, k1], [n0, n1]) = (halves(&*self.0), halves(iv));
        let mut state = State::<6>([k0 ^ n0, k1 ^ n1, c1, c0, k0 ^ c0, k1 ^ c1]);
        for _ in 0..4 {
            for message in [k0, k1, k0 ^ n0, k1 ^ n1] {
                state.update([(0, message), (0, 0)]);
            }
        }
        let update = |state: &mut State<6>, part: &[u8]| state.update([(0, block(part)), (0, 0)]);
        aad.chunks(16).for_each(|part| update(&mut state, part));
        let mask = |State([_, s1, s2, s3, s4, s5]): &State<6>| [s1 ^ s4 ^ s5 ^ (s2 & s3), 0];
        each::<6, 16>(&mut state, data, mask, update);
        let last = state.0[3] ^ lengths(aad, data);
        for _ in 0..7 {
            state.update([(0, last), (0, 0)]);
        }
        state.xor(6)
    }
}
