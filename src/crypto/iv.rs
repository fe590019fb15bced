//! The IVs of sectors: dm-crypt's `crypt_iv_*_gen` (drivers/md/dm-crypt.c).
//!
//! Sector numbers count units of 512 bytes, whatever the sector size is.

use cipher::{Array, BlockCipherEncrypt};

use crate::crypto::spec::IvMode;
use crate::error::{Error, Result};

/// A block cipher with its key, of which no more is asked than that it encrypts whole blocks.
pub(crate) trait EncryptBlocks: Send + Sync {
    /// Encrypts `data`, whole blocks, each on its own.
    fn encrypt_all(&self, data: &mut [u8]);
}

impl<C: BlockCipherEncrypt + Send + Sync> EncryptBlocks for C {
    fn encrypt_all(&self, data: &mut [u8]) {
        self.encrypt_blocks(Array::slice_as_chunks_mut(data).0);
    }
}

/// Makes the IVs of a run of sectors.
pub(crate) struct IvGenerator {
    kind: Kind,
    size: usize,
}

enum Kind {
    Null,
    Plain,
    Plain64,
    Plain64be,
    /// The sector number is shifted to count cipher blocks.
    Benbi(u32),
    Essiv(Box<dyn EncryptBlocks>),
}

impl IvGenerator {
    /// IVs of `size` bytes for a cipher of `block_size` bytes. `essiv` makes the cipher that encrypts ESSIV's IVs.
    ///
    /// # Errors
    /// What `essiv` gives, and what [`CipherSpec::check_known`](crate::crypto::spec::CipherSpec::check_known) refuses.
    pub(crate) fn new(
        mode: &IvMode,
        size: usize,
        block_size: usize,
        essiv: impl FnOnce(crate::crypto::hash::Hash) -> Result<Box<dyn EncryptBlocks>>,
    ) -> Result<Self> {
        let kind = match mode {
            IvMode::None | IvMode::Null => Kind::Null,
            IvMode::Plain => Kind::Plain,
            IvMode::Plain64 => Kind::Plain64,
            IvMode::Plain64be => Kind::Plain64be,
            IvMode::Benbi => Kind::Benbi((512 / block_size).ilog2()),
            IvMode::Essiv(hash) => Kind::Essiv(essiv(*hash)?),
            IvMode::Other(name) => {
                return Err(Error::unsupported("cipher", format!("IV mode {name} is not known")));
            }
        };
        Ok(Self { kind, size })
    }

    /// How many bytes an IV has: 0 where the mode takes none, else at least 8.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Fills `ivs`, zeroed before, with the IVs of sectors `first`, `first + step`, and so on, and returns the number
    /// of the next one. dm-crypt's sector numbers wrap around too.
    pub(crate) fn fill(&self, ivs: &mut [u8], first: u64, step: u64) -> u64 {
        if self.size == 0 {
            return first;
        }
        let mut sector = first;
        let each = ivs.chunks_exact_mut(self.size).map(|iv| {
            let this = sector;
            sector = sector.wrapping_add(step);
            (iv, this)
        });
        let last = self.size - 8;
        match &self.kind {
            Kind::Null => return first,
            Kind::Plain => each.for_each(|(iv, n)| iv[..4].copy_from_slice(&n.to_le_bytes()[..4])),
            Kind::Plain64 => each.for_each(|(iv, n)| iv[..8].copy_from_slice(&n.to_le_bytes())),
            Kind::Plain64be => each.for_each(|(iv, n)| iv[last..].copy_from_slice(&n.to_be_bytes())),
            Kind::Benbi(shift) => each.for_each(|(iv, n)| {
                let block = n.wrapping_shl(*shift).wrapping_add(1);
                iv[last..].copy_from_slice(&block.to_be_bytes());
            }),
            Kind::Essiv(cipher) => {
                each.for_each(|(iv, n)| iv[..8].copy_from_slice(&n.to_le_bytes()));
                cipher.encrypt_all(ivs);
            }
        }
        sector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ivs(mode: IvMode, size: usize, block: usize, first: u64, step: u64) -> Vec<Vec<u8>> {
        let generator = IvGenerator::new(&mode, size, block, |_| unreachable!()).unwrap();
        let mut ivs = vec![0; 2 * size];
        generator.fill(&mut ivs, first, step);
        ivs.chunks(size).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn numbers_lie_where_dm_crypt_puts_them() {
        let n = 0x0102_0304_0506_0708;
        let le = |tail: usize| [&[8, 7, 6, 5, 4, 3, 2, 1][..], &vec![0; tail]].concat();
        assert_eq!(ivs(IvMode::Plain64, 16, 16, n, 1)[0], le(8));
        assert_eq!(ivs(IvMode::Plain64, 32, 16, n, 1)[0], le(24));
        assert_eq!(ivs(IvMode::Plain64, 8, 8, n, 1)[0], le(0));
        assert_eq!(ivs(IvMode::Plain, 16, 16, n, 1)[0], [&[8, 7, 6, 5][..], &[0; 12]].concat());
        assert_eq!(ivs(IvMode::Plain64be, 16, 16, n, 1)[0], [&[0; 8][..], &[1, 2, 3, 4, 5, 6, 7, 8]].concat());
        assert_eq!(ivs(IvMode::Null, 16, 16, n, 1)[0], [0; 16]);
    }

    #[test]
    fn benbi_counts_cipher_blocks_from_one() {
        let benbi = ivs(IvMode::Benbi, 16, 16, 3, 1);
        assert_eq!(benbi[0], 97u128.to_be_bytes());
        assert_eq!(benbi[1], 129u128.to_be_bytes());
        assert_eq!(ivs(IvMode::Benbi, 8, 8, 3, 1)[0], 193u64.to_be_bytes());
    }

    #[test]
    fn a_sector_of_4096_bytes_advances_by_eight_and_numbers_wrap() {
        assert_eq!(ivs(IvMode::Plain64, 8, 8, 0, 8)[1], 8u64.to_le_bytes());
        assert_eq!(ivs(IvMode::Plain64, 8, 8, u64::MAX, 1)[1], [0; 8]);
        assert_eq!(ivs(IvMode::Plain, 8, 8, 0xffff_ffff, 1)[1], [0; 8]);
    }
}
