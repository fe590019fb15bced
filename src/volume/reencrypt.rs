//! The hot zone: the part of a volume that was being overwritten when a reencryption stopped.
//!
//! What cryptsetup's recovery (`reencrypt_recover_segment`) would write there is made in memory, sector by sector as it
//! is read. The image stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::crypt::{Crypt, Linear, cipher};
use super::{Layer, key, refuse_integrity};
use crate::crypto::cipher::SectorCipher;
use crate::crypto::hash::Hash;
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::luks::metadata::{Metadata, SegmentKind};
use crate::luks::reencrypt::{HotZone, Numbered, Recovery, Reencryption};
use crate::num::{to_u64, to_usize};
use crate::secret::VolumeKey;

/// The hot zone's layer, and where in the data file what it reads starts; `None` where that is in the header.
pub fn hot_zone(
    metadata: &Metadata,
    reencryption: &Reencryption<'_>,
    hot: &HotZone<'_>,
    header: &Arc<dyn ReadAt>,
    keys: &BTreeMap<u32, VolumeKey>,
) -> Result<(Box<dyn Layer>, Option<u64>)> {
    let side = |segment| Side::new(segment, metadata, keys);
    let offset = hot.segment.1.offset;
    let area = reencryption.area.offset;
    let old = side(reencryption.previous)?;
    let (layer, at): (Box<dyn Layer>, _) = match hot.recovery {
        Recovery::Shift { offset, iv_tweak } => (old.layer(offset, iv_tweak), Some(offset)),
        Recovery::Journal => {
            let journal = Journal { header: Arc::clone(header), area, old, iv_tweak: hot.iv_tweak };
            (Box::new(journal), None)
        }
        Recovery::Checksum { hash, block } => {
            let new = side(reencryption.last)?;
            let sums = Sums { header: Arc::clone(header), area, hash, block };
            (Box::new(Checksum { sums, offset, old, new, iv_tweak: hot.iv_tweak }), Some(offset))
        }
    };
    let sector = u64::from(layer.sector_size());
    if !hot.size.is_multiple_of(sector) {
        let message = format!("found {}; a multiple of the encryption sector of {sector} bytes is wanted", hot.size);
        return Err(Error::corrupt(format!("segments.{}.size", hot.segment.0), message));
    }
    if let Recovery::Checksum { block, .. } = hot.recovery
        && !block.is_multiple_of(sector)
    {
        let message = format!("found {block}; a multiple of the encryption sector of {sector} bytes is wanted");
        let field = format!("keyslots.{}.area.sector_size", reencryption.keyslot);
        return Err(Error::corrupt(field, message));
    }
    Ok((layer, at))
}

/// How data before or after the reencryption is encrypted.
enum Side {
    Plain,
    Encrypted(SectorCipher),
}

impl Side {
    fn new((id, segment): Numbered<'_>, metadata: &Metadata, keys: &BTreeMap<u32, VolumeKey>) -> Result<Self> {
        match &segment.kind {
            SegmentKind::Crypt(c) => {
                refuse_integrity(id, c)?;
                Ok(Self::Encrypted(cipher(id, c, key(id, metadata, keys)?)?))
            }
            _ => Ok(Self::Plain),
        }
    }

    fn sector_size(&self) -> u32 {
        match self {
            Self::Plain => 512,
            Self::Encrypted(cipher) => cipher.sector_size(),
        }
    }

    /// Decrypts whole sectors whose first IV is `iv`.
    fn decipher(&self, buf: &mut [u8], iv: u64) -> Result<()> {
        match self {
            Self::Plain => Ok(()),
            Self::Encrypted(cipher) => cipher.decrypt(buf, iv),
        }
    }

    /// All of it at `offset` of the data file.
    fn layer(self, offset: u64, iv_tweak: u64) -> Box<dyn Layer> {
        match self {
            Self::Plain => Box::new(Linear { offset, sector_size: 512 }),
            Self::Encrypted(cipher) => Box::new(Crypt { offset, cipher, iv_tweak }),
        }
    }
}

/// A hot zone whose old ciphertext was put into the header before it was overwritten.
struct Journal {
    header: Arc<dyn ReadAt>,
    /// Where it lies in the header.
    area: u64,
    old: Side,
    iv_tweak: u64,
}

impl Layer for Journal {
    fn sector_size(&self) -> u32 {
        self.old.sector_size()
    }

    fn read(&self, _: &dyn ReadAt, buf: &mut [u8], inside: u64) -> Result<()> {
        self.header.read_exact_at(buf, self.area.saturating_add(inside))?;
        self.old.decipher(buf, self.iv_tweak.wrapping_add(inside / 512))
    }
}

/// The hashes of the old ciphertext's blocks.
struct Sums {
    header: Arc<dyn ReadAt>,
    /// Where they lie in the header.
    area: u64,
    hash: Hash,
    /// Bytes that one hash is of.
    block: u64,
}

impl Sums {
    /// Whether the `number`th block is still what it was.
    fn is_old(&self, number: u64, block: &[u8]) -> Result<bool> {
        let mut sum = vec![0; self.hash.output_len()];
        let len = to_u64(sum.len());
        self.header.read_exact_at(&mut sum, self.area.saturating_add(number.saturating_mul(len)))?;
        Ok(bool::from(self.hash.digest(&[block]).ct_eq(&sum)))
    }
}

/// A hot zone in which each block is either old or new.
struct Checksum {
    sums: Sums,
    /// Where it starts in the data file.
    offset: u64,
    old: Side,
    new: Side,
    iv_tweak: u64,
}

impl Layer for Checksum {
    fn sector_size(&self) -> u32 {
        self.old.sector_size().max(self.new.sector_size())
    }

    #[expect(clippy::arithmetic_side_effects, reason = "a block is not 0, and all positions are within the hot zone")]
    fn read(&self, data: &dyn ReadAt, mut buf: &mut [u8], mut inside: u64) -> Result<()> {
        let too_large = |_| Error::limit("area.sector_size", "is too large");
        let mut block = Zeroizing::new(vec![0; usize::try_from(self.sums.block).map_err(too_large)?]);
        while !buf.is_empty() {
            // The hash is of a whole block, also where only some of its sectors are wanted.
            let number = inside / self.sums.block;
            let start = number * self.sums.block;
            data.read_exact_at(&mut block, self.offset.saturating_add(start))?;
            let side = if self.sums.is_old(number, &block)? { &self.old } else { &self.new };
            side.decipher(&mut block, self.iv_tweak.wrapping_add(start / 512))?;
            let wanted = &block[to_usize(inside - start)?..];
            let (now, rest) = buf.split_at_mut(wanted.len().min(buf.len()));
            now.copy_from_slice(&wanted[..now.len()]);
            inside += to_u64(now.len());
            buf = rest;
        }
        Ok(())
    }
}
