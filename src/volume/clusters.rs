//! The clusters of a qcow2 image that encrypts them itself (`crypt_method` 2).
//!
//! The key is in a LUKS1 header that a header extension points to, and its payload offset means nothing: the IV of a
//! sector is its *host* offset in the qcow2 file (QEMU, docs/interop/qcow2.rst, and block/qcow2-cluster.c).

use std::sync::Arc;

use super::Layer;
use super::crypt::cipher;
use crate::crypto::cipher::SectorCipher;
use crate::error::{Error, Result};
use crate::format::{HostMap, Mapping};
use crate::io::{Extent, ReadAt};
use crate::luks::metadata::{CryptSegment, Metadata, Segment, SegmentKind, Version};
use crate::num::{at_most, to_u64};
use crate::secret::VolumeKey;

/// The one segment of a header in a qcow2 image.
///
/// QEMU reads and writes LUKS1 alone (crypto/block-luks.c), whose segment is always one with sectors of 512 bytes and IVs
/// from 0 on. Where each sector lies is what the tables of qcow2 say, so that there is no use for anything else.
pub fn segment(metadata: &Metadata) -> Result<(u32, &CryptSegment)> {
    if metadata.version != Version::V1 {
        let message = format!("found LUKS{} in the qcow2 header; QEMU knows LUKS1 alone", metadata.version.number());
        return Err(Error::unsupported("qcow2.luks", message));
    }
    let mut live = metadata.live_segments();
    match (live.next(), live.next()) {
        (Some((id, Segment { kind: SegmentKind::Crypt(c), .. })), None)
            if c.sector_size == 512 && c.iv_tweak == 0 && c.integrity.is_none() =>
        {
            Ok((id, c))
        }
        _ => {
            let message = "the LUKS header in the qcow2 header wants one crypt segment, with sectors of 512 bytes";
            Err(Error::corrupt("segments", message))
        }
    }
}

/// Encrypted clusters.
pub struct Clusters {
    cipher: SectorCipher,
    map: Arc<dyn HostMap>,
}

impl Clusters {
    pub fn new(id: u32, segment: &CryptSegment, map: Arc<dyn HostMap>, key: &VolumeKey) -> Result<Self> {
        Ok(Self { cipher: cipher(id, segment, key)?, map })
    }
}

impl Layer for Clusters {
    fn sector_size(&self) -> u32 {
        self.cipher.sector_size()
    }

    fn read(&self, _: &dyn ReadAt, mut buf: &mut [u8], mut inside: u64) -> Result<()> {
        while !buf.is_empty() {
            let wanted = to_u64(buf.len());
            let mapping = self.map.map(inside, wanted)?;
            let (Mapping::Host { len, .. } | Mapping::Zero { len }) = mapping;
            let n = at_most(len, buf.len());
            let (now, rest) = buf.split_at_mut(n);
            match mapping {
                Mapping::Zero { .. } => now.fill(0),
                Mapping::Host { offset, .. } => {
                    self.map.file().read_exact_at(now, offset)?;
                    self.cipher.decrypt(now, offset / 512)?;
                }
            }
            if n == 0 {
                return Err(Error::corrupt("qcow2.l2", "a cluster maps to no bytes").at(inside));
            }
            inside = inside.saturating_add(to_u64(n));
            buf = rest;
        }
        Ok(())
    }

    /// Unallocated clusters were never written, so they are zeroes, not ciphertext.
    fn extent_at(&self, _: &dyn ReadAt, inside: u64) -> Result<Extent> {
        Ok(match self.map.map(inside, u64::MAX)? {
            Mapping::Host { len, .. } => Extent { len, zero: false },
            Mapping::Zero { len } => Extent { len, zero: true },
        })
    }
}
