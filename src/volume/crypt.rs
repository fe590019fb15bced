//! Segments that lie in the data file byte for byte: encrypted by dm-crypt, or not encrypted.

use super::{InPlace, Layer, refuse_integrity};
use crate::crypto::cipher::SectorCipher;
use crate::crypto::spec::CipherSpec;
use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt};
use crate::luks::metadata::CryptSegment;
use crate::secret::VolumeKey;

/// Data that is not encrypted.
pub struct Linear {
    /// Where it starts in the data file.
    pub offset: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
}

impl Layer for Linear {
    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read(&self, data: &dyn ReadAt, buf: &mut [u8], inside: u64) -> Result<()> {
        data.read_exact_at(buf, self.stored_at(inside))
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }

    fn extent_at(&self, data: &dyn ReadAt, inside: u64) -> Result<Extent> {
        data.extent_at(self.stored_at(inside))
    }
}

impl InPlace for Linear {
    fn stored_at(&self, inside: u64) -> u64 {
        self.offset.saturating_add(inside)
    }

    fn decipher(&self, _: &mut [u8], _: u64) -> Result<()> {
        Ok(())
    }
}

/// Data that dm-crypt encrypted.
pub struct Crypt {
    /// Where it starts in the data file.
    pub offset: u64,
    /// Its cipher with its key.
    pub cipher: SectorCipher,
    /// What is added to the IV's sector number.
    pub iv_tweak: u64,
}

impl Crypt {
    /// Segment `id`, which starts at `offset` of the data file.
    pub fn new(id: u32, segment: &CryptSegment, offset: u64, key: &VolumeKey) -> Result<Self> {
        refuse_integrity(id, segment)?;
        Ok(Self { offset, cipher: cipher(id, segment, key)?, iv_tweak: segment.iv_tweak })
    }
}

/// The cipher of a crypt segment.
pub fn cipher(id: u32, c: &CryptSegment, key: &VolumeKey) -> Result<SectorCipher> {
    let field = |name: &str| format!("segments.{id}.{name}");
    if !matches!(c.sector_size, 512 | 1024 | 2048 | 4096) {
        let message = format!("found {}; 512, 1024, 2048 and 4096 can be decrypted", c.sector_size);
        return Err(Error::unsupported(field("sector_size"), message));
    }
    let spec = CipherSpec::parse(&c.encryption).map_err(|e| e.with_rule(field("encryption")))?;
    SectorCipher::new(&spec, key.expose(), c.sector_size).map_err(|e| e.with_rule(field("encryption")))
}

impl Layer for Crypt {
    fn sector_size(&self) -> u32 {
        self.cipher.sector_size()
    }

    fn read(&self, data: &dyn ReadAt, buf: &mut [u8], inside: u64) -> Result<()> {
        data.read_exact_at(buf, self.stored_at(inside))?;
        self.decipher(buf, inside)
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }
}

impl InPlace for Crypt {
    fn stored_at(&self, inside: u64) -> u64 {
        self.offset.saturating_add(inside)
    }

    fn decipher(&self, buf: &mut [u8], inside: u64) -> Result<()> {
        // The IV counts in 512-byte units, also where sectors are larger. It wraps as dm-crypt's does.
        self.cipher.decrypt(buf, self.iv_tweak.wrapping_add(inside / 512))
    }
}
