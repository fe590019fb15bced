//! qcow2's own LUKS encryption (`crypt_method` 2): a LUKS1 header in the file, and clusters that are encrypted one by one.

use std::sync::Arc;

use super::extensions::Extensions;
use super::{Header, SECTOR};
use crate::error::{Condition, Error, Result};
use crate::io::{ReadAt, Window};
use crate::limits::CONTAINER_RUNS_MAX;

/// The smallest LUKS1 header: its fixed part alone.
const LUKS_HEADER_MIN: u64 = 592;

/// Where the bytes of a run of an encrypted image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// In the image file: `len` bytes from byte `offset` on, encrypted. The sector number that the IV is made from is
    /// `offset / 512`, counted on through the run.
    Host {
        /// The first byte's offset in the image file; a multiple of 512 where the guest offset is one.
        offset: u64,
        /// How many bytes. Never 0, and a multiple of 512 where the guest offset is one.
        len: u64,
    },
    /// Nowhere: `len` bytes of plaintext zeroes, never encrypted.
    Zero {
        /// How many bytes. Never 0.
        len: u64,
    },
}

/// A disk whose bytes are stored encrypted, with IVs from where they lie in the file and not from where they lie on the
/// disk.
pub trait HostMap: Send + Sync {
    /// The size of the disk in bytes; a multiple of 512.
    fn virtual_size(&self) -> u64;

    /// The file that [`Mapping::Host`] counts in.
    fn file(&self) -> &dyn ReadAt;

    /// Where the disk's bytes from `guest` on lie; `guest` is below [`HostMap::virtual_size`]. The run may be longer than
    /// the `wanted` bytes that the caller has a use for.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where the tables break a rule or the file is cut off,
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a compressed cluster, and
    /// [`ErrorKind::Io`](crate::ErrorKind::Io).
    fn map(&self, guest: u64, wanted: u64) -> Result<Mapping>;

    /// Follows the tables, and gives how many bytes the file lacks at least: 0 where it has all clusters, `None` where
    /// the tables are too many to follow, or broken.
    #[expect(clippy::arithmetic_side_effects, reason = "no run reaches beyond the disk")]
    fn missing(&self) -> Option<u64> {
        let mut at = 0;
        for _ in 0..CONTAINER_RUNS_MAX {
            if at >= self.virtual_size() {
                return Some(0);
            }
            at += match self.map(at, u64::MAX) {
                Ok(Mapping::Host { len, .. } | Mapping::Zero { len }) => len,
                Err(e) if e.is(Condition::TableBeyondEnd) => {
                    let end = e.offset().unwrap_or(0).saturating_add(SECTOR);
                    return Some(end.saturating_sub(self.file().len()).max(1));
                }
                Err(_) => return None,
            };
        }
        None
    }
}

/// A qcow2 image with its own LUKS encryption (`crypt_method` 2).
#[derive(Clone)]
pub struct Qcow2Luks {
    /// The LUKS1 header with its key material: the part of the file that the header extension 0x0537be77 points to.
    /// Its key-material offsets count from here; its payload-offset means nothing.
    pub header: Arc<dyn ReadAt>,
    /// Where the encrypted clusters lie.
    pub clusters: Arc<dyn HostMap>,
}

/// The LUKS header that the crypt method needs, checked to lie within the file.
#[expect(clippy::arithmetic_side_effects, reason = "a cluster is not 0")]
pub(super) fn luks_header(
    file: &Arc<dyn ReadAt>,
    header: &Header,
    extensions: &Extensions,
    size: u64,
    cluster: u64,
) -> Result<Option<Arc<dyn ReadAt>>> {
    match header.crypt_method.get() {
        0 => return Ok(None),
        1 => {
            return Err(Error::unsupported(
                "qcow2.crypt_method",
                "the image has qcow2's legacy AES encryption (method 1), which is not LUKS",
            )
            .at(32)
            .with_hint(
                "qemu-img convert decrypts it, with the key as a secret object and encrypt.format=aes among the options of the image",
            ));
        }
        2 => (),
        other => {
            let found = format!("found {other}; 0 (none), 1 (AES) and 2 (LUKS) are known");
            return Err(Error::unsupported("qcow2.crypt_method", found).at(32));
        }
    }
    let Some((offset, len)) = extensions.crypt_header else {
        return Err(Error::corrupt(
            "qcow2.crypt_header",
            "crypt_method is 2 (LUKS), but the header extension 0x0537be77, which points to the LUKS header, is missing",
        )
        .at(32));
    };
    if offset % cluster != 0 || len < LUKS_HEADER_MIN || offset.checked_add(len).is_none_or(|end| end > file.len()) {
        return Err(Error::corrupt(
            "qcow2.crypt_header",
            format!(
                "the LUKS header is said to be {len} bytes at byte {offset}; at least {LUKS_HEADER_MIN}, from the start of \
                 a cluster on and within the file's {} bytes, are allowed",
                file.len()
            ),
        ));
    }
    if !size.is_multiple_of(512) {
        let found = format!("found {size}; with encryption a multiple of 512 is allowed");
        return Err(Error::corrupt("qcow2.size", found).at(24));
    }
    Ok(Some(Arc::new(Window::new(file.clone(), offset, Some(len))?)))
}
