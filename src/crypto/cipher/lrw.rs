//! LRW (IEEE P1619/D2, the kernel's crypto/lrw.c): the mask is the block's number times the tweak key in GF(2^128).

use cipher::{BlockCipherDecrypt, BlockSizeUser, consts::U16};
use zeroize::Zeroizing;

use super::SectorMode;
use super::blocks::{self, Mask, Shape};

/// LRW over a cipher with 16-byte blocks.
pub(super) struct Lrw<C> {
    cipher: C,
    products: Products,
}

impl<C> Lrw<C> {
    /// `cipher` under `tweak_key`.
    pub(super) fn new(cipher: C, tweak_key: &[u8; 16]) -> Self {
        Self { cipher, products: Products::of(u128::from_be_bytes(*tweak_key)) }
    }
}

impl<C> SectorMode for Lrw<C>
where
    C: BlockCipherDecrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn decrypt(&self, data: &mut [u8], ivs: &mut [u8], sector_size: usize) {
        blocks::decrypt(&self.cipher, &self.products, data, ivs, sector_size);
    }
}

/// The tweak key times 1, 1 + x, 1 + x + x^2 and so on: from the product with a number, of which the last `n` bits are
/// ones, to that with the next number is one addition of the `n`th.
struct Products(Zeroizing<[u128; 128]>);

impl Products {
    fn of(key: u128) -> Self {
        let mut products = Zeroizing::new([0; 128]);
        let (mut power, mut sum) = (Zeroizing::new(key), Zeroizing::new(0));
        for product in products.iter_mut() {
            *sum ^= *power;
            *product = *sum;
            *power = (*power << 1) ^ (0x87 & (*power >> 127).wrapping_neg());
        }
        Self(products)
    }

    /// The product with the number after one that ends in `ones` ones, less the product with that one.
    #[inline(always)]
    fn step(&self, ones: u32) -> u128 {
        // The number after all ones is 0 again: the kernel's lrw_next_index takes the last product too.
        self.0[usize::try_from(ones).map_or(127, |ones| ones.min(127))]
    }

    /// The product with any number, bit by bit. A number is no secret.
    #[inline(always)]
    fn with(&self, number: u128) -> u128 {
        let mut product = 0;
        let mut left = number;
        while left != 0 {
            let bit = left.trailing_zeros();
            product ^= self.step(bit);
            if bit > 0 {
                product ^= self.step(bit - 1);
            }
            left &= left - 1;
        }
        product
    }
}

impl Mask for Products {
    const BEFORE: bool = true;

    #[inline(always)]
    fn fill(&self, mask: &mut [u8], _: &[u8], ivs: &[u8], shape: Shape) {
        for (mask, iv) in mask.chunks_exact_mut(shape.sector_size).zip(ivs.as_chunks::<16>().0) {
            let mut number = u128::from_be_bytes(*iv);
            let mut product = self.with(number);
            for block in mask.as_chunks_mut::<16>().0 {
                *block = product.to_be_bytes();
                product ^= self.step(number.trailing_ones());
                number = number.wrapping_add(1);
            }
        }
    }
}
