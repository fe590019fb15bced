//! LUKS headers: both versions are parsed and validated into one [`Metadata`], and unlocked from it.
//!
//! [`open`] reads nothing but the header areas and needs no secret.

mod compare;
pub mod data;
pub mod findings;
mod json;
pub mod metadata;
#[cfg(feature = "unlock")]
pub mod reencrypt;
#[cfg(feature = "unlock")]
pub mod unlock;
pub mod v1;
pub mod v2;
mod validate;

use crate::error::{Error, ErrorKind, Result};
use crate::io::ReadAt;
use metadata::Metadata;

/// The first bytes of a LUKS1 header, and of a LUKS2 primary header.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// The first bytes of a LUKS2 secondary header.
pub const MAGIC_SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";

/// Reads and validates the header at the start of `source`, which may be an image, a detached header or a header
/// backup.
///
/// An image whose first bytes are LUKS1 is LUKS1, whatever stale bytes lie further on. One whose first bytes are
/// anything but a good LUKS2 primary header is searched for a LUKS2 secondary header at its legal offsets.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with the rule that failed where there is no valid header; [`ErrorKind::Unsupported`] for a
/// version that is neither 1 nor 2; [`ErrorKind::Io`] where the source cannot be read.
///
/// ```
/// # fn main() -> unluks::Result<()> {
/// let zeroes = vec![0u8; 1 << 20];
/// let e = unluks::open(&zeroes).unwrap_err();
/// assert_eq!(e.kind(), unluks::ErrorKind::Corrupt);
/// assert!(e.to_string().contains("no LUKS header"));
/// # Ok(()) }
/// ```
pub fn open(source: &(impl ReadAt + ?Sized)) -> Result<Metadata> {
    let mut start = [0u8; 8];
    if source.len() < 8 {
        return Err(Error::corrupt("magic", format!("no LUKS header: the source has only {} bytes", source.len())));
    }
    source.read_exact_at(&mut start, 0)?;
    let version = u16::from_be_bytes([start[6], start[7]]);
    if start[..6] == MAGIC && version == 1 {
        return v1::read(source);
    }
    match v2::read(source) {
        Ok(metadata) => Ok(metadata),
        Err(e) if start[..6] == MAGIC && version != 2 && e.kind() == ErrorKind::Corrupt => {
            let message =
                format!("found LUKS version {version}; 1 and 2 are known, and no LUKS2 secondary header was found");
            Err(Error::unsupported("version", message).at(6))
        }
        Err(e) => Err(e),
    }
}
