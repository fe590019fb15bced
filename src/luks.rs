//! LUKS headers: both versions are parsed and validated into one [`Metadata`], and unlocked from it.
//!
//! [`open`] reads nothing but the header areas and needs no secret.
//!
//! It is our own: of the crates, `luks2` (0.5) takes LUKS2 with AES-XTS and SHA-256 alone and compares no checksum, and
//! `luks` (0.4) unlocks LUKS2 alone and hands the key to dmsetup. Neither limits what a header asks for.

// Numbers of an image reach all of this: sums that cannot be are an error or a bound, never another number.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod area;
mod compare;
pub mod data;
pub mod findings;
mod fingerprint;
mod json;
pub mod layer;
pub mod metadata;
pub mod offline;
pub mod recover;
pub mod recovery;
#[cfg(feature = "unlock")]
pub(crate) mod reencrypt;
#[cfg(feature = "serde")]
pub mod report;
#[cfg(feature = "unlock")]
pub mod token;
#[cfg(feature = "unlock")]
pub mod unlock;
pub mod v1;
pub mod v2;
mod validate;

use crate::error::{Condition, Error, ErrorKind, Hint, Result, counted};
use crate::io::ReadAt;
use metadata::Metadata;

/// The first bytes of a LUKS1 header, and of a LUKS2 primary header.
pub const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
/// The first bytes of a LUKS2 secondary header.
pub const MAGIC_SECONDARY: [u8; 6] = *b"SKUL\xba\xbe";

/// The first bytes of a header that `cryptsetup-reencrypt` made unusable for as long as it works (`NOMAGIC`).
pub(crate) const MAGIC_OFFLINE: [u8; 6] = *b"LUKS\xde\xad";
/// The UUID of a header that `cryptsetup-reencrypt` made up (`NO_UUID`), and of one that it makes for plaintext.
pub(crate) const OFFLINE_UUID: &str = "cafecafe-cafe-cafe-cafe-cafecafeeeee";

/// The error of a source that ends before its header and keyslots do.
fn cut_off(len: u64, wanted: u64) -> Error {
    let message = format!("the source has {len} bytes; header and keyslots take {wanted}");
    Error::corrupt("length", message).with_hint(
        "the file was cut off; get a whole copy, or, of an image in pieces (.001, .aa …), all of them side by side",
    )
}

/// Reads and validates the header at the start of `source`, which may be an image, a detached header or a header
/// backup.
///
/// Of an offline reencryption there are two, which [`offline::join`] makes one of.
///
/// An image whose first bytes are LUKS1 is LUKS1, whatever stale bytes lie further on. One whose first bytes are
/// anything but a good LUKS2 primary header is searched for a LUKS2 secondary header at its legal offsets. A header that
/// is damaged beyond what cryptsetup opens is [`recover::open`]'s.
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
        let message = match source.len() {
            0 => "no LUKS header: it is empty".to_owned(),
            len => format!("no LUKS header: it has only {}", counted(len, "byte")),
        };
        return Err(Error::corrupt("magic", message).with_condition(Condition::NoHeader));
    }
    // Where the first sector cannot be read, a LUKS2 secondary header may still be there.
    if source.read_exact_at(&mut start, 0).is_err() {
        return v2::read(source);
    }
    let version = u16::from_be_bytes([start[6], start[7]]);
    if start[..6] == MAGIC && version == 1 {
        return v1::read(source);
    }
    if offline::is_log(source) {
        return offline::open(source);
    }
    match v2::read(source) {
        Ok(metadata) => Ok(metadata),
        Err(e) if e.kind() == ErrorKind::Corrupt && start[..6] == MAGIC_OFFLINE => Err(offline_reencryption(source)),
        Err(e) if start[..6] == MAGIC && version != 2 && e.kind() == ErrorKind::Corrupt => {
            let message =
                format!("found LUKS version {version}; 1 and 2 are known, and no LUKS2 secondary header was found");
            Err(Error::unsupported("version", message).at(6))
        }
        Err(e) => Err(e),
    }
}

/// Explains a LUKS1 header that an offline reencryption has made unusable.
pub(crate) fn offline_reencryption(source: &(impl ReadAt + ?Sized)) -> Error {
    // The header is LUKS1's but for its magic: the UUID names the files that the state is in.
    let mut uuid = [0u8; 36];
    let known = source.read_exact_at(&mut uuid, 168).is_ok()
        && uuid.iter().all(|b| matches!(b, b'-' | b'0'..=b'9' | b'a'..=b'f'));
    let uuid = if known { String::from_utf8_lossy(&uuid).into_owned() } else { "UUID".to_owned() };
    let message = format!(
        "found LUKS\\xde\\xad: an offline reencryption by cryptsetup-reencrypt was not finished; how far it came is in its \
         log LUKS-{uuid}.log, and it left the old header in LUKS-{uuid}.org and the new one in LUKS-{uuid}.new"
    );
    Error::unsupported("magic", message).at(0).with_hint(Hint::OfflineLog)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A LUKS1 header as `cryptsetup-reencrypt` leaves it while it works: the magic is changed, and nothing else.
    #[test]
    fn an_offline_reencryption_is_explained() {
        let mut image = vec![0u8; 1 << 20];
        image[..8].copy_from_slice(b"LUKS\xde\xad\0\x01");
        image[168..204].copy_from_slice(b"0b9c7b3e-7c1f-4b5e-9a57-1d9d3b0a4f11");
        let e = open(&image).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "magic"));
        assert!(e.to_string().contains("LUKS-0b9c7b3e-7c1f-4b5e-9a57-1d9d3b0a4f11.org"), "{e}");
        // Bytes that are no UUID are not repeated, and a file that ends early is explained too.
        image[170] = 0x1b;
        let e = open(&image).unwrap_err().to_string();
        assert!(e.contains("LUKS-UUID.log") && !e.contains('\u{1b}'), "{e}");
        image.truncate(100);
        assert_eq!(open(&image).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn the_log_of_an_offline_reencryption_is_no_image() {
        let mut log = b"# LUKS reencryption log, DO NOT EDIT OR DELETE.\nversion = 2\nUUID = x\n".to_vec();
        log.resize(512, 0);
        let e = open(&log).unwrap_err();
        assert!(e.kind() == ErrorKind::Unsupported && e.to_string().contains("and no image"), "{e}");
    }
}
