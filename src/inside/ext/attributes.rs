//! ext: the entries of extended attributes, within inodes and in blocks of their own.
//!
//! | bytes of an entry | field |
//! |---|---|
//! | 0, 1 | e_name_len, e_name_index |
//! | 2, 4, 8 | e_value_offs, e_value_inum, e_value_size |
//! | 12, 16 | e_hash, e_name |
//!
//! The hash goes over the name and the value; in an inode it may be zero, and is not there then. The source is e2fsprogs'
//! `lib/ext2fs/ext_attr.c`.

use super::map::Fs;
use crate::inside::look::{crc32c_raw, le16, le32};
use crate::num::to_usize;

const ENTRY: usize = 16;

/// What is wrong with the entries that begin at `start`, if anything: found, and wanted. Values are placed from `values` on.
pub(super) fn wrong(bytes: &[u8], start: usize, values: usize) -> Option<(String, String)> {
    let mut at = start;
    // Each takes 16 bytes and more.
    while let Some(entry) = bytes.get(at..).filter(|rest| rest.len() >= 4 && le32(rest, 0) != 0) {
        let name_len = usize::from(entry.first().copied().unwrap_or(0));
        let end = ENTRY.saturating_add(name_len);
        let Some(name) = entry.get(ENTRY..end) else {
            return Some((format!("a name of {name_len} bytes"), "it ends within the attributes".into()));
        };
        let (is_inode, size) = (le32(entry, 4) != 0, le32(entry, 8));
        if !is_inode {
            let from = values.saturating_add(usize::from(le16(entry, 2)));
            let len = to_usize(u64::from(size)).unwrap_or(usize::MAX);
            let padded = len.checked_next_multiple_of(4).and_then(|len| from.checked_add(len));
            let value = padded.and_then(|end| bytes.get(from..end));
            let Some(value) = value else {
                return Some((format!("a value of {size} bytes"), "it ends within the attributes".into()));
            };
            let (stored, right) = (le32(entry, 12), hash(name, value));
            // Whether the bytes of a name have a sign has differed among machines.
            if stored != right && name.is_ascii() && (stored != 0 || start == values.saturating_add(32)) {
                return Some((format!("the hash {stored:#010x}"), format!("{right:#010x} is wanted")));
            }
        }
        at = at.saturating_add(end.next_multiple_of(4));
    }
    None
}

/// The checksum that a block of attributes has, and the right one.
pub(super) fn checksums(fs: &Fs<'_>, block: u64, bytes: &[u8]) -> (u32, u32) {
    let parts = [bytes.get(..16), Some(&[0; 4]), bytes.get(20..)].into_iter().flatten();
    (le32(bytes, 16), parts.fold(crc32c_raw(fs.seed, &block.to_le_bytes()), crc32c_raw))
}

/// An attribute: what its name begins with, by a number, the rest of the name, and where its value is.
#[cfg(feature = "read-ext")]
pub(super) struct Attribute<'a> {
    pub index: u8,
    pub name: &'a [u8],
    pub value: Value<'a>,
}

/// The value of an attribute.
#[cfg(feature = "read-ext")]
pub(super) enum Value<'a> {
    Here(&'a [u8]),
    /// So many bytes of an inode of its own.
    Inode(u32, u32),
}

/// The attributes whose entries begin at `start`, up to the first that is none. Values are placed from `values` on.
#[cfg(feature = "read-ext")]
pub(super) fn all(bytes: &[u8], start: usize, values: usize) -> impl Iterator<Item = Attribute<'_>> {
    let mut at = start;
    std::iter::from_fn(move || {
        let entry = bytes.get(at..).filter(|rest| rest.len() >= ENTRY && le32(rest, 0) != 0)?;
        let end = ENTRY.checked_add(usize::from(*entry.first()?))?;
        let (name, index, size) = (entry.get(ENTRY..end)?, *entry.get(1)?, le32(entry, 8));
        let value = match le32(entry, 4) {
            0 => {
                let from = values.checked_add(usize::from(le16(entry, 2)))?;
                Value::Here(bytes.get(from..from.checked_add(to_usize(u64::from(size)).ok()?)?)?)
            }
            inode => Value::Inode(inode, size),
        };
        at = at.checked_add(end.checked_next_multiple_of(4)?)?;
        Some(Attribute { index, name, value })
    })
}

fn hash(name: &[u8], value: &[u8]) -> u32 {
    let of_name = name.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
    value.chunks_exact(4).fold(of_name, |hash, word| hash.rotate_left(16) ^ le32(word, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_and_bounds_are_held() {
        // As mke2fs writes user.small = "value".
        let mut bytes = vec![0; 96];
        bytes[..2].copy_from_slice(&[5, 1]);
        bytes[2] = 40;
        bytes[8] = 5;
        bytes[16..21].copy_from_slice(b"small");
        bytes[40..45].copy_from_slice(b"value");
        let right = hash(b"small", b"value\0\0\0");
        bytes[12..16].copy_from_slice(&right.to_le_bytes());
        assert_eq!(wrong(&bytes, 0, 0), None);
        bytes[40] ^= 1;
        assert!(wrong(&bytes, 0, 0).unwrap().0.contains("hash"));
        bytes[3] = 1;
        assert!(wrong(&bytes, 0, 0).unwrap().0.contains("value of 5 bytes"));
        bytes[0] = 200;
        assert!(wrong(&bytes, 0, 0).unwrap().0.contains("name of 200 bytes"));
    }
}
