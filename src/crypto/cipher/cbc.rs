//! Cipher block chaining (the kernel's crypto/cbc.c), over ciphers of any block size, and ECB, which is CBC without the
//! chain.
//!
//! It is our own, not the crate `cbc` (0.2), for what `blocks` says: that one calls the cipher for each sector at
//! least. The tests check this one by it.

use cipher::{BlockCipherDecrypt, BlockSizeUser};

use super::SectorMode;
use super::blocks::{self, Mask, Shape};

/// Cipher block chaining.
pub(super) struct Cbc<C>(pub(super) C);

impl<C: BlockCipherDecrypt + Send + Sync> SectorMode for Cbc<C> {
    fn decrypt(&self, data: &mut [u8], ivs: &mut [u8], sector_size: usize) {
        blocks::decrypt(&self.0, &Chain, data, ivs, sector_size);
    }
}

/// The ciphertext one block on: a block's plaintext is XORed with the ciphertext of the block before it.
struct Chain;

impl Mask for Chain {
    const BEFORE: bool = false;

    #[inline(always)]
    fn fill(&self, mask: &mut [u8], data: &[u8], ivs: &[u8], shape: Shape) {
        let Shape { sector_size, iv_size, .. } = shape;
        let sectors = mask.chunks_exact_mut(sector_size).zip(data.chunks_exact(sector_size));
        for ((mask, data), iv) in sectors.zip(ivs.chunks_exact(iv_size)) {
            let (first, rest) = mask.split_at_mut(iv_size);
            first.copy_from_slice(iv);
            rest.copy_from_slice(&data[..sector_size - iv_size]);
        }
    }
}

/// Each block on its own.
pub(super) struct Ecb<C>(pub(super) C);

impl<C: BlockCipherDecrypt + BlockSizeUser + Send + Sync> SectorMode for Ecb<C> {
    fn decrypt(&self, data: &mut [u8], _: &mut [u8], _: usize) {
        self.0.decrypt_blocks(cipher::Array::slice_as_chunks_mut(data).0);
    }
}
