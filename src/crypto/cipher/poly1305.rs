//! Poly1305 as a hash of whole blocks, without the nonce that a MAC adds: what Adiantum needs, many times over a few
//! blocks.
//!
//! The polynomial is kept in three limbs of 64, 64 and a few bits. The crate `poly1305`, made for one long message,
//! spends most of its time on setting up and folding its vectors here; the tests check this one by it.

use zeroize::Zeroizing;

/// The key, clamped: `r`, and 5/4 of its high half, for what is carried around 2^130.
pub(super) struct Poly1305(Zeroizing<[u64; 3]>);

impl Poly1305 {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        let [low, high] = halves(key);
        let (low, high) = (low & 0x0fff_fffc_0fff_ffff, high & 0x0fff_fffc_0fff_fffc);
        Self(Zeroizing::new([low, high, high + (high >> 2)]))
    }

    /// The hash of `blocks`, modulo 2^128.
    pub(super) fn hash<'a>(&self, blocks: impl Iterator<Item = &'a [u8; 16]>) -> u128 {
        let [r0, r1, s1] = *self.0;
        let mut h = [0u64; 3];
        for block in blocks {
            h = plus(h, halves(block), 1);
            let m0 = wide(h[0], r0) + wide(h[1], s1);
            let m1 = wide(h[0], r1) + wide(h[1], r0) + wide(h[2], s1) + (m0 >> 64);
            // The third limb never has more than 3 bits, nor `r0` more than 60.
            let top = h[2].wrapping_mul(r0).wrapping_add(low(m1 >> 64));
            let around = (top & !3).wrapping_add(top >> 2);
            h = plus([low(m0), low(m1), top & 3], [around, 0], 0);
        }
        // Fully reduced: less 2^130 - 5 where it is not below that.
        let reduced = plus(h, [5, 0], 0);
        let [low, high, _] = if reduced[2] >= 4 { reduced } else { h };
        u128::from(low) | (u128::from(high) << 64)
    }
}

fn plus(h: [u64; 3], low: [u64; 2], high: u64) -> [u64; 3] {
    let (h0, carry) = h[0].overflowing_add(low[0]);
    let (h1, carry1) = h[1].overflowing_add(low[1]);
    let (h1, carry2) = h1.overflowing_add(u64::from(carry));
    [h0, h1, h[2].wrapping_add(high).wrapping_add(u64::from(carry1 | carry2))]
}

fn wide(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

fn low(n: u128) -> u64 {
    halves(&n.to_le_bytes())[0]
}

fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let (halves, _) = bytes.as_chunks();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
}

#[cfg(test)]
mod tests {
    use poly1305::universal_hash::{KeyInit, UniversalHash};
    use proptest::prelude::*;

    fn peer(key: &[u8; 16], blocks: &[[u8; 16]]) -> u128 {
        let mut padded = [0; 32];
        padded[..16].copy_from_slice(key);
        let mut hash = poly1305::Poly1305::new(&padded.into());
        hash.update(cipher::Array::cast_slice_from_core(blocks));
        u128::from_le_bytes(hash.finalize().into())
    }

    /// Bytes of the sort that carries run through.
    fn block() -> impl Strategy<Value = [u8; 16]> {
        prop_oneof![
            any::<[u8; 16]>(),
            Just([0xff; 16]),
            Just([0; 16]),
            any::<u8>().prop_map(|b| (!u128::from(b)).to_le_bytes())
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_poly1305_of_the_crate(key in block(), blocks in proptest::collection::vec(block(), 0..12)) {
            prop_assert_eq!(super::Poly1305::new(&key).hash(blocks.iter()), peer(&key, &blocks));
        }
    }

    #[test]
    fn a_value_between_the_prime_and_2_to_the_130_is_reduced() {
        // With r = 1 the hash is the blocks' sum, each with 2^128 added: here 2^130 - 1 - less.
        let mut one = [0; 16];
        one[0] = 1;
        for less in 0..12 {
            let blocks = [(u128::MAX - less).to_le_bytes(), [0; 16], [0; 16]];
            let expected = if less <= 4 { 4 - less } else { u128::MAX - less };
            assert_eq!(super::Poly1305::new(&one).hash(blocks.iter()), expected);
            assert_eq!(peer(&one, &blocks), expected);
        }
    }
}
