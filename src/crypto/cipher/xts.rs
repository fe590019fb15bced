//! XTS (IEEE 1619, the kernel's crypto/xts.c): the mask is the encrypted IV, times x for each further block.
//!
//! It is our own, not the crate `xts-mode` (0.6): that one calls the cipher for each block, and where such a call is
//! much dearer than a block it takes twenty times as long (`benches/cipher.rs`). The tests check this one by it.

use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, consts::U16};

use super::SectorMode;
use super::blocks::{self, Mask, Shape};
use crate::crypto::iv::EncryptBlocks;

/// How many tweaks are made from one: as many as the smallest sector has.
const GROUP: usize = 32;

/// XTS over a cipher with 16-byte blocks.
pub(super) struct Xts<C> {
    pub(super) data: C,
    pub(super) tweak: C,
}

impl<C> SectorMode for Xts<C>
where
    C: BlockCipherDecrypt + BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn decrypt(&self, data: &mut [u8], ivs: &mut [u8], sector_size: usize) {
        self.tweak.encrypt_all(ivs);
        blocks::decrypt(&self.data, &Powers, data, ivs, sector_size);
    }
}

/// The tweaks of a sector's blocks: `T`, `T x`, `T x^2` and so on in GF(2^128).
struct Powers;

impl Mask for Powers {
    const BEFORE: bool = true;

    #[inline(always)]
    fn fill(&self, mask: &mut [u8], _: &[u8], ivs: &[u8], shape: Shape) {
        for (mask, iv) in mask.chunks_exact_mut(shape.sector_size).zip(ivs.as_chunks::<16>().0) {
            let mut tweak = u128::from_le_bytes(*iv);
            if shape.wide {
                // Each from the first of its group, on its own: the compiler makes many at a time.
                for group in mask.as_chunks_mut::<{ 16 * GROUP }>().0 {
                    for (n, block) in (0..).zip(group.as_chunks_mut::<16>().0) {
                        *block = times_x_to(tweak, n);
                    }
                    tweak = u128::from_le_bytes(times_x_to(tweak, 32));
                }
            } else {
                // Without registers whose lanes shift by different counts, one from the other is faster.
                for block in mask.as_chunks_mut::<16>().0 {
                    *block = tweak.to_le_bytes();
                    tweak = (tweak << 1) ^ (0x87 & (tweak >> 127).wrapping_neg());
                }
            }
        }
    }
}

/// `tweak` times x^n in GF(2^128), for n of at most 57, in two halves: vectors have lanes of 64 bits and not of 128.
///
/// What is shifted out of the top comes back times x^7 + x^2 + x + 1.
#[inline(always)]
fn times_x_to(tweak: u128, n: u32) -> [u8; 16] {
    let tweak = tweak.to_le_bytes();
    let (halves, _) = tweak.as_chunks();
    let (low, high) = (u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1]));
    // In two steps, for n may be 0.
    let (carry, top) = (low >> 1 >> (63 - n), high >> 1 >> (63 - n));
    let low = (low << n) ^ top ^ (top << 1) ^ (top << 2) ^ (top << 7);
    let high = (high << n) | carry;
    let mut product = [0; 16];
    product[..8].copy_from_slice(&low.to_le_bytes());
    product[8..].copy_from_slice(&high.to_le_bytes());
    product
}
