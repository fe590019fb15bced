//! XTS (IEEE 1619, the kernel's crypto/xts.c): the mask is the encrypted IV, times x for each further block.

use cipher::{BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, consts::U16};

use super::SectorMode;
use super::blocks::{self, Mask};
use crate::crypto::iv::EncryptBlocks;

/// How many tweaks are made side by side. Eight u64 fill one AVX-512 register, two AVX2 ones or four NEON ones.
const LANES: usize = 8;

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
    fn fill(&self, mask: &mut [u8], _: &[u8], ivs: &[u8], sector_size: usize) {
        for (mask, first) in mask.chunks_exact_mut(sector_size).zip(ivs.as_chunks::<16>().0) {
            let mut tweaks = Lanes::starting_with(u128::from_le_bytes(*first));
            for group in mask.as_chunks_mut::<{ 16 * LANES }>().0 {
                tweaks.store(group);
                tweaks.advance();
            }
        }
    }
}

/// Eight consecutive tweaks, the low and the high half of each on its own, so that all are computed at once.
struct Lanes {
    low: [u64; LANES],
    high: [u64; LANES],
}

impl Lanes {
    #[inline(always)]
    fn starting_with(tweak: u128) -> Self {
        let mut low = [0; LANES];
        let mut high = [0; LANES];
        let mut tweak = tweak;
        for (low, high) in low.iter_mut().zip(&mut high) {
            [*low, *high] = halves(tweak);
            tweak = (tweak << 1) ^ ((tweak >> 127) * 0x87);
        }
        Self { low, high }
    }

    /// Multiplies each by x^8. What falls off the top, 8 bits, comes back times x^7 + x^2 + x + 1.
    #[inline(always)]
    fn advance(&mut self) {
        for (low, high) in self.low.iter_mut().zip(&mut self.high) {
            let top = *high >> 56;
            *high = (*high << 8) | (*low >> 56);
            *low = (*low << 8) ^ top ^ (top << 1) ^ (top << 2) ^ (top << 7);
        }
    }

    #[inline(always)]
    fn store(&self, group: &mut [u8; 16 * LANES]) {
        for ((block, low), high) in group.as_chunks_mut::<16>().0.iter_mut().zip(&self.low).zip(&self.high) {
            block[..8].copy_from_slice(&low.to_le_bytes());
            block[8..].copy_from_slice(&high.to_le_bytes());
        }
    }
}

#[inline(always)]
fn halves(n: u128) -> [u64; 2] {
    let bytes = n.to_le_bytes();
    let (halves, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
}
