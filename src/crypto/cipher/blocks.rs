//! The engine that the modes of a block cipher share: one closure inside the cipher's backend for a whole run of
//! sectors.
//!
//! A call into a backend costs much more than a block: with VAES it spreads the key schedule over wide registers first.
//! So the closure is called once for a run, and what it inlines is compiled for the backend's instruction set. Within
//! it, 4 KiB at a time: the mode fills a mask, and each group of blocks that the backend takes in parallel is
//! decrypted between two XORs with it.

use std::marker::PhantomData;

use cipher::array::{Array, ArraySize};
use cipher::typenum::Unsigned;
use cipher::{BlockCipherDecBackend, BlockCipherDecClosure, BlockCipherDecrypt, BlockSizeUser};

/// How many bytes are masked at once: the largest sector, and few enough to stay in the L1 cache with their mask.
const PIECE: usize = 4096;

/// A mask on cache lines of its own, for a wide store that straddles two lines costs twice.
#[repr(align(64))]
struct Piece([u8; PIECE]);

/// What a mode XORs the blocks of its sectors with.
pub(super) trait Mask {
    /// Whether the ciphertext is XORed as well as the plaintext.
    const BEFORE: bool;

    /// Fills `mask` for the sectors of `data`, that are not decrypted yet and have `ivs`.
    ///
    /// It must be `inline(always)`, to be compiled for the backend's instruction set.
    fn fill(&self, mask: &mut [u8], data: &[u8], ivs: &[u8], shape: Shape);
}

/// How a run is cut into sectors.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) sector_size: usize,
    pub(super) iv_size: usize,
    /// Whether the backend has registers of 256 bits or more: it then takes more than 8 blocks at a time.
    pub(super) wide: bool,
}

/// Decrypts `data`, whole sectors of at most 4096 bytes, in place. `ivs` holds one IV a sector.
pub(super) fn decrypt<C: BlockCipherDecrypt>(
    cipher: &C,
    mask: &impl Mask,
    data: &mut [u8],
    ivs: &[u8],
    sector_size: usize,
) {
    let iv_size = ivs.len() / (data.len() / sector_size).max(1);
    let shape = Shape { sector_size, iv_size, wide: false };
    cipher.decrypt_with_backend(Run { mask, data, ivs, shape, block_size: PhantomData });
}

struct Run<'a, M, BS> {
    mask: &'a M,
    data: &'a mut [u8],
    ivs: &'a [u8],
    shape: Shape,
    block_size: PhantomData<BS>,
}

impl<M, BS: ArraySize> BlockSizeUser for Run<'_, M, BS> {
    type BlockSize = BS;
}

impl<M: Mask, BS: ArraySize> BlockCipherDecClosure for Run<'_, M, BS> {
    #[inline(always)]
    fn call<B: BlockCipherDecBackend<BlockSize = BS>>(self, backend: &B) {
        let mut piece = Piece([0; PIECE]);
        let shape = Shape { wide: B::ParBlocksSize::USIZE > 8, ..self.shape };
        let mut ivs = self.ivs;
        for data in self.data.chunks_mut(PIECE) {
            let mask = &mut piece.0[..data.len()];
            let (these, rest) = ivs.split_at(data.len() / shape.sector_size * shape.iv_size);
            ivs = rest;
            self.mask.fill(mask, data, these, shape);

            let (blocks, _) = Array::<u8, BS>::slice_as_chunks_mut(data);
            let (masks, _) = Array::<u8, BS>::slice_as_chunks(mask);
            let (blocks, last_blocks) = Array::<_, B::ParBlocksSize>::slice_as_chunks_mut(blocks);
            let (masks, last_masks) = Array::<_, B::ParBlocksSize>::slice_as_chunks(masks);
            for (blocks, masks) in blocks.iter_mut().zip(masks) {
                if M::BEFORE {
                    xor(blocks, masks);
                }
                backend.decrypt_par_blocks_inplace(blocks);
                xor(blocks, masks);
            }
            if M::BEFORE {
                xor(last_blocks, last_masks);
            }
            backend.decrypt_tail_blocks_inplace(last_blocks);
            xor(last_blocks, last_masks);
        }
    }
}

#[inline(always)]
fn xor<BS: ArraySize>(blocks: &mut [Array<u8, BS>], masks: &[Array<u8, BS>]) {
    let blocks = Array::slice_as_flattened_mut(blocks);
    for (byte, mask) in blocks.iter_mut().zip(Array::slice_as_flattened(masks)) {
        *byte ^= mask;
    }
}
