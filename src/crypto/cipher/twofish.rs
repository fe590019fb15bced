//! Twofish (<https://www.schneier.com/academic/twofish/>) with its S-boxes and the MDS matrix worked out for the key
//! into four tables of words: the paper's "full keying".
//!
//! The crate `twofish` works them out for each byte of each round, at a megabyte a second; the tests check this one by
//! it.

use cipher::array::{Array, ArraySize};
use cipher::consts::{U1, U4, U16, U32};
use cipher::{
    Block, BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockCipherEncBackend,
    BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, InOut, InvalidLength, Key, KeyInit, KeySizeUser,
    ParBlocks, ParBlocksSizeUser,
};
use zeroize::Zeroizing;

/// The 4-bit permutations that q0 and q1 are made of.
const Q_NIBBLES: [[[u8; 16]; 4]; 2] = [
    [
        [8, 1, 7, 13, 6, 15, 3, 2, 0, 11, 5, 9, 14, 12, 10, 4],
        [14, 12, 11, 8, 1, 2, 3, 5, 15, 4, 10, 6, 7, 0, 9, 13],
        [11, 10, 5, 14, 6, 13, 9, 0, 12, 8, 15, 3, 2, 4, 7, 1],
        [13, 7, 15, 4, 1, 2, 6, 14, 9, 11, 3, 0, 8, 5, 12, 10],
    ],
    [
        [2, 8, 11, 13, 15, 7, 6, 14, 3, 1, 9, 4, 0, 10, 12, 5],
        [1, 14, 2, 11, 4, 12, 3, 7, 6, 13, 10, 5, 15, 9, 0, 8],
        [4, 12, 7, 5, 1, 6, 9, 10, 0, 14, 13, 8, 2, 11, 3, 15],
        [11, 9, 5, 1, 12, 3, 13, 14, 6, 4, 7, 15, 2, 0, 8, 10],
    ],
];
/// The 8-bit permutations q0 and q1.
const Q: [[u8; 256]; 2] = [q(&Q_NIBBLES[0]), q(&Q_NIBBLES[1])];
/// Which of them each byte of a word goes through: before the key's words 0 to 3, and at last.
const Q_ORDER: [[usize; 4]; 5] = [[0, 0, 1, 1], [0, 1, 0, 1], [1, 1, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0]];

/// The columns of the MDS matrix, over GF(2^8) modulo x^8 + x^6 + x^5 + x^3 + 1.
const MDS: [[u8; 4]; 4] =
    [[0x01, 0x5b, 0xef, 0xef], [0xef, 0xef, 0x5b, 0x01], [0x5b, 0xef, 0x01, 0xef], [0x5b, 0x01, 0xef, 0x5b]];
const MDS_POLYNOMIAL: u8 = 0x69;

/// The rows of the Reed-Solomon matrix, over GF(2^8) modulo x^8 + x^6 + x^3 + x^2 + 1.
const RS: [[u8; 8]; 4] = [
    [0x01, 0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e],
    [0xa4, 0x56, 0x82, 0xf3, 0x1e, 0xc6, 0x68, 0xe5],
    [0x02, 0xa1, 0xfc, 0xc1, 0x47, 0xae, 0x3d, 0x19],
    [0xa4, 0x55, 0x87, 0x5a, 0x58, 0xdb, 0x9e, 0x03],
];
const RS_POLYNOMIAL: u8 = 0x4d;

/// Twofish with a key of 16, 24 or 32 bytes.
pub(super) struct Twofish {
    /// The whitening and round keys.
    keys: Zeroizing<[u32; 40]>,
    /// What each value of each byte of g's argument adds to its result.
    g: Box<Zeroizing<[[u32; 256]; 4]>>,
}

const fn q(nibbles: &[[u8; 16]; 4]) -> [u8; 256] {
    let mut q = [0; 256];
    let mut x = 0u8;
    loop {
        let (a, b) = mix(x >> 4, x & 15);
        let (a, b) = mix(pick(&nibbles[0], a), pick(&nibbles[1], b));
        let y = (pick(&nibbles[3], b) << 4) | pick(&nibbles[2], a);
        // A u8 fits an array of 256: this is the only way to index by one in a constant.
        #[allow(clippy::as_conversions)]
        let at = x as usize;
        q[at] = y;
        if x == 255 {
            return q;
        }
        x += 1;
    }
}

const fn mix(a: u8, b: u8) -> (u8, u8) {
    (a ^ b, (a ^ ((b >> 1) | (b << 3)) ^ (a << 3)) & 15)
}

const fn pick(table: &[u8; 16], nibble: u8) -> u8 {
    #[allow(clippy::as_conversions)]
    let at = nibble as usize;
    table[at]
}

/// The product in GF(2^8) modulo x^8 + `polynomial`.
fn multiply(a: u8, b: u8, polynomial: u8) -> u8 {
    let (mut product, mut power) = (0, a);
    for bit in 0..8 {
        product ^= power & (b >> bit & 1).wrapping_neg();
        power = (power << 1) ^ (polynomial & (power >> 7).wrapping_neg());
    }
    product
}

/// What byte `x` at `place` of h's argument adds to its result, where `list` are the words of the key.
fn h_byte(x: u8, place: usize, list: &[[u8; 4]]) -> u32 {
    let through = |order: [usize; 4], x: u8| Q[order[place]][usize::from(x)];
    let keyed = list.iter().zip(Q_ORDER).rev().fold(x, |x, (word, order)| through(order, x) ^ word[place]);
    let last = through(Q_ORDER[4], keyed);
    u32::from_le_bytes(MDS[place].map(|m| multiply(last, m, MDS_POLYNOMIAL)))
}

/// h of a word of four equal bytes.
fn h(x: u8, list: &[[u8; 4]]) -> u32 {
    (0..4).fold(0, |sum, place| sum ^ h_byte(x, place, list))
}

impl Twofish {
    fn g(&self, x: u32) -> u32 {
        let [a, b, c, d] = x.to_le_bytes().map(usize::from);
        self.g[0][a] ^ self.g[1][b] ^ self.g[2][c] ^ self.g[3][d]
    }

    /// The two sums that a round adds to the other half of the block.
    fn f(&self, round: usize, low: u32, high: u32) -> (u32, u32) {
        let (t0, t1) = (self.g(low), self.g(high.rotate_left(8)));
        let sum = t0.wrapping_add(t1);
        (sum.wrapping_add(self.keys[2 * round + 8]), sum.wrapping_add(t1).wrapping_add(self.keys[2 * round + 9]))
    }

    fn whiten(&self, words: [u32; 4], first: usize) -> [u32; 4] {
        std::array::from_fn(|at| words[at] ^ self.keys[first + at])
    }
}

impl KeySizeUser for Twofish {
    type KeySize = U32;
}

impl KeyInit for Twofish {
    fn new(key: &Key<Self>) -> Self {
        Self::with_key(key)
    }

    fn new_from_slice(key: &[u8]) -> Result<Self, InvalidLength> {
        match key.len() {
            16 | 24 | 32 => Ok(Self::with_key(key)),
            _ => Err(InvalidLength),
        }
    }
}

impl Twofish {
    /// The key schedule of section 4.3, for whole groups of 8 bytes.
    fn with_key(key: &[u8]) -> Self {
        let groups = key.as_chunks::<8>().0;
        let half = |at: usize| {
            Zeroizing::new(groups.iter().map(|g| [g[at], g[at + 1], g[at + 2], g[at + 3]]).collect::<Vec<_>>())
        };
        let (even, odd) = (half(0), half(4));
        let mut keys = Zeroizing::new([0; 40]);
        for (n, pair) in (0..).step_by(2).zip(keys.as_chunks_mut::<2>().0) {
            let (a, b) = (h(n, &even), h(n + 1, &odd).rotate_left(8));
            *pair = [a.wrapping_add(b), a.wrapping_add(b).wrapping_add(b).rotate_left(9)];
        }
        let code = |group: &[u8; 8]| {
            RS.map(|row| row.iter().zip(group).fold(0, |sum, (r, k)| sum ^ multiply(*k, *r, RS_POLYNOMIAL)))
        };
        let list = Zeroizing::new(groups.iter().rev().map(code).collect::<Vec<_>>());
        let mut g = Box::new(Zeroizing::new([[0; 256]; 4]));
        for (place, table) in g.iter_mut().enumerate() {
            for (x, word) in (0..=255).zip(table) {
                *word = h_byte(x, place, &list);
            }
        }
        Self { keys, g }
    }
}

impl BlockSizeUser for Twofish {
    type BlockSize = U16;
}

/// Blocks that are worked on in turn, each round of all before the next: a block's own rounds wait for each other.
type Abreast = U4;

impl ParBlocksSizeUser for Twofish {
    type ParBlocksSize = Abreast;
}

impl Twofish {
    #[inline(always)]
    fn encrypt<N: ArraySize>(&self, blocks: &mut Array<Block<Self>, N>) {
        let mut states = Array::<_, N>::from_fn(|n| self.whiten(words(&blocks[n]), 0));
        for round in (0..16).step_by(2) {
            for [a, b, c, d] in &mut states {
                let (f0, f1) = self.f(round, *a, *b);
                (*c, *d) = ((*c ^ f0).rotate_right(1), d.rotate_left(1) ^ f1);
            }
            for [a, b, c, d] in &mut states {
                let (f0, f1) = self.f(round + 1, *c, *d);
                (*a, *b) = ((*a ^ f0).rotate_right(1), b.rotate_left(1) ^ f1);
            }
        }
        for (block, [a, b, c, d]) in blocks.iter_mut().zip(states) {
            *block = bytes(self.whiten([c, d, a, b], 4));
        }
    }

    #[inline(always)]
    fn decrypt<N: ArraySize>(&self, blocks: &mut Array<Block<Self>, N>) {
        let mut states = Array::<_, N>::from_fn(|n| self.whiten(words(&blocks[n]), 4));
        for round in (0..16).step_by(2).rev() {
            for [c, d, a, b] in &mut states {
                let (f0, f1) = self.f(round + 1, *c, *d);
                (*a, *b) = (a.rotate_left(1) ^ f0, (*b ^ f1).rotate_right(1));
            }
            for [c, d, a, b] in &mut states {
                let (f0, f1) = self.f(round, *a, *b);
                (*c, *d) = (c.rotate_left(1) ^ f0, (*d ^ f1).rotate_right(1));
            }
        }
        for (block, [c, d, a, b]) in blocks.iter_mut().zip(states) {
            *block = bytes(self.whiten([a, b, c, d], 0));
        }
    }
}

impl BlockCipherEncBackend for Twofish {
    fn encrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let mut one = Array::<_, U1>([block.clone_in()]);
        self.encrypt(&mut one);
        *block.get_out() = one[0];
    }

    fn encrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        let mut several = blocks.clone_in();
        self.encrypt(&mut several);
        *blocks.get_out() = several;
    }
}

impl BlockCipherDecBackend for Twofish {
    fn decrypt_block(&self, mut block: InOut<'_, '_, Block<Self>>) {
        let mut one = Array::<_, U1>([block.clone_in()]);
        self.decrypt(&mut one);
        *block.get_out() = one[0];
    }

    fn decrypt_par_blocks(&self, mut blocks: InOut<'_, '_, ParBlocks<Self>>) {
        let mut several = blocks.clone_in();
        self.decrypt(&mut several);
        *blocks.get_out() = several;
    }
}

fn words(block: &Block<Twofish>) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(block.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

fn bytes(words: [u32; 4]) -> Block<Twofish> {
    let mut block = Block::<Twofish>::default();
    for (bytes, word) in block.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    block
}

impl BlockCipherEncrypt for Twofish {
    fn encrypt_with_backend(&self, f: impl BlockCipherEncClosure<BlockSize = U16>) {
        f.call(self);
    }
}

impl BlockCipherDecrypt for Twofish {
    fn decrypt_with_backend(&self, f: impl BlockCipherDecClosure<BlockSize = U16>) {
        f.call(self);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_twofish_of_the_crate(
            key in any::<[u8; 32]>(),
            len in prop_oneof![Just(16), Just(24), Just(32)],
            blocks in proptest::collection::vec(any::<[u8; 16]>(), 0..10),
        ) {
            let key = &key[..len];
            let (ours, peer) = (Twofish::new_from_slice(key).unwrap(), twofish::Twofish::new_from_slice(key).unwrap());
            let plain: Vec<_> = blocks.into_iter().map(Array).collect();
            let (mut found, mut expected) = (plain.clone(), plain.clone());
            ours.encrypt_blocks(&mut found);
            peer.encrypt_blocks(&mut expected);
            prop_assert_eq!(&found, &expected);
            ours.decrypt_blocks(&mut found);
            prop_assert_eq!(found, plain);
        }
    }

    #[test]
    fn other_key_sizes_are_refused() {
        for len in [0, 8, 15, 17, 31, 33, 40] {
            assert!(Twofish::new_from_slice(&vec![0; len]).is_err(), "{len}");
        }
    }
}
