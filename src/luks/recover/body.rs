//! A LUKS1 header without its first bytes: what is behind them is much, and nothing else is like it.

use zerocopy::FromBytes;

use crate::crypto::hash::Hash;
use crate::crypto::spec::CipherSpec;
use crate::luks::v1::{HEADER_LEN, Header};

/// Magic, version, and the names of cipher and mode.
const START: usize = 72;
const CIPHER_NAME: usize = 8;
const CIPHER_MODE: usize = 40;
/// Of eight keyslots, as many must keep the rules: an accident that reaches further leaves nothing to open.
const SLOTS_MIN: usize = 4;

/// What cryptsetup and others write, the likeliest first.
const CIPHERS: [&str; 4] = ["aes", "serpent", "twofish", "camellia"];
const MODES: [&str; 4] = ["xts-plain64", "cbc-essiv:sha256", "cbc-plain64", "xts-plain"];

/// What the first 72 bytes may have been, the likeliest first; `None` where this is no LUKS1 header.
pub(super) fn recognise(bytes: &[u8; HEADER_LEN]) -> Option<Vec<[u8; START]>> {
    let header = Header::ref_from_bytes(bytes.as_slice()).ok()?;
    let hash = name(&header.hash_spec)?;
    Hash::from_name(hash).ok().filter(|hash| hash.output_len() >= 20)?;
    let uuid = header.uuid.get(..36).and_then(|uuid| std::str::from_utf8(uuid).ok())?;
    let is_uuid = crate::luks::findings::is_uuid(uuid) && header.uuid[36..].iter().all(|b| *b == 0);
    let key = header.key_bytes.get();
    let is_whole = is_uuid && matches!(key, 16 | 24 | 32 | 48 | 64) && header.mk_digest_iter.get() > 0;
    let good = || header.keyslots.iter().filter(|slot| header.check_slot(0, slot).is_ok());
    let is_enabled = good().any(|slot| slot.is_enabled());
    // Without data behind it, it would be a detached header, which no other tool writes over.
    if !is_whole || header.payload_offset.get() == 0 || good().count() < SLOTS_MIN || !is_enabled {
        return None;
    }
    let known = name(&header.cipher_name).zip(name(&header.cipher_mode)).filter(|(cipher, mode)| {
        CipherSpec::from_luks1(cipher, mode).is_ok_and(|spec| spec.check_known().is_ok() && !spec.is_null())
    });
    if let Some((cipher, mode)) = known {
        return (header.version.get() == 1).then(|| written(cipher, mode).into_iter().collect());
    }
    // What was written over the start ends somewhere in the names: what is left of them has to fit.
    let whole_cipher = name(&header.cipher_name).filter(|cipher| CIPHERS.contains(cipher));
    let fits = |mode: &&str| {
        let key_fits = if mode.starts_with("xts") { matches!(key, 32 | 64) } else { key <= 32 };
        key_fits && is_end_of(mode, &header.cipher_mode)
    };
    let ciphers = CIPHERS.into_iter().filter(|cipher| whole_cipher.is_none_or(|whole| whole == *cipher));
    let each = |cipher| MODES.into_iter().filter(fits).filter_map(move |mode| written(cipher, mode));
    let all: Vec<_> = ciphers.flat_map(each).collect();
    (!all.is_empty()).then_some(all)
}

/// The start of a header with these names.
fn written(cipher: &str, mode: &str) -> Option<[u8; START]> {
    let mut start = [0u8; START];
    start[..6].copy_from_slice(&crate::luks::MAGIC);
    start[7] = 1;
    start.get_mut(CIPHER_NAME..CIPHER_MODE)?.get_mut(..cipher.len())?.copy_from_slice(cipher.as_bytes());
    start.get_mut(CIPHER_MODE..)?.get_mut(..mode.len())?.copy_from_slice(mode.as_bytes());
    Some(start)
}

/// The text of a field that has nothing but zeroes behind it.
fn name(field: &[u8; 32]) -> Option<&str> {
    let end = field.iter().position(|b| *b == 0)?;
    let (text, rest) = field.split_at_checked(end)?;
    let is_name = !text.is_empty() && text.iter().all(|b| is_of_a_name(*b)) && rest.iter().all(|b| *b == 0);
    std::str::from_utf8(text).ok().filter(|_| is_name)
}

/// Whether a field whose start was overwritten may have held `text`: what is left at its end is as in the text.
fn is_end_of(text: &str, field: &[u8; 32]) -> bool {
    let Some((held, rest)) = field.split_at_checked(text.len()) else { return false };
    let left = held.iter().rev().zip(text.bytes().rev()).take_while(|(held, text)| **held == *text).count();
    let is_gone = held.iter().all(|b| *b == 0);
    // Two letters at the end of one mode may be those of another.
    rest.iter().all(|b| *b == 0) && (is_gone || left >= 3)
}

fn is_of_a_name(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b':' | b'_' | b'(' | b')' | b',')
}
