//! What a VHDX differencing disk says of its parent (\[MS-VHDX\] 2.6.2.6). All numbers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..16 | LocatorType |
//! | 18..20 | KeyValueCount |
//! | 20.. | entries of 12 bytes: KeyOffset, ValueOffset, KeyLength (2 bytes), ValueLength (2 bytes) |
//!
//! Keys and values are UTF-16; their offsets count from the locator's start, their lengths are in bytes.

use std::sync::Arc;

use uuid::Uuid;
use zerocopy::FromBytes;
use zerocopy::byteorder::little_endian::{U16, U32};

use super::data_write_guid;
use crate::error::{Error, Hint, Result, escape};
use crate::format::below::Below;
use crate::format::parent::{Kin, Wanted};
use crate::format::{Format, fields};
use crate::io::ReadAt;
use crate::num::to_usize;

/// What is wanted of the parent locator.
pub(super) struct Locator {
    /// Of `parent_linkage` and `parent_linkage2`, those that are there.
    linkage: Vec<Uuid>,
    /// What the parent is called.
    path: String,
    at: u64,
}

impl Locator {
    /// Reads the locator of `len` bytes, which the caller bounds, at byte `at`.
    pub(super) fn read(file: &dyn ReadAt, at: u64, len: u32) -> Result<Self> {
        let mut bytes = vec![0; to_usize(u64::from(len))?];
        fields::fill(file, &mut bytes, at, "vhdx.parent", "the parent locator")?;
        let number = |offset: usize| Some(usize::from(U16::read_from_prefix(bytes.get(offset..)?).ok()?.0.get()));
        let long = |offset: usize| usize::try_from(U32::read_from_prefix(bytes.get(offset..)?).ok()?.0.get()).ok();
        let text = |offset: usize, len: usize| {
            let utf16 = bytes.get(offset..offset.checked_add(len)?)?.as_chunks::<2>().0;
            let units: Vec<u16> = utf16.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            Some(String::from_utf16_lossy(&units))
        };
        let entry = |n: usize| {
            let entry = n.checked_mul(12)?.checked_add(20)?;
            let [key, value, key_len, value_len] = [0usize, 4, 8, 10].map(|field| entry.saturating_add(field));
            Some((text(long(key)?, number(key_len)?)?, text(long(value)?, number(value_len)?)?))
        };
        let count = number(18).unwrap_or_default();
        let mut locator = Self { linkage: Vec::new(), path: String::new(), at };
        for (key, value) in (0..count).map_while(entry) {
            match key.as_str() {
                "parent_linkage" | "parent_linkage2" => locator.linkage.extend(Uuid::try_parse(&value)),
                "absolute_win32_path" => locator.path = value,
                "relative_path" if locator.path.is_empty() => locator.path = value,
                _ => {}
            }
        }
        Ok(locator)
    }

    /// The parent, out of the files that were named.
    pub(super) fn find(&self, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Below> {
        let by = |file: &Arc<dyn ReadAt>| data_write_guid(file).is_some_and(|id| self.linkage.contains(&id));
        kin.parent(&Wanted::Proven { format: Format::Vhdx, by: &by }, notes)?.ok_or_else(|| {
            let name = if self.path.is_empty() { "a parent".into() } else { escape(&self.path) };
            let ids: Vec<String> = self.linkage.iter().map(Uuid::to_string).collect();
            let id = if ids.is_empty() { String::new() } else { format!(" with the data write GUID {}", ids.join(" or ")) };
            let message = format!(
                "this is a differencing disk on top of {name}{id}, which is not followed; only the image itself is read: an \
                 image can name any file, and its maker would get to see it"
            );
            Error::unsupported("vhdx.parent", message).at(self.at).with_hint(Hint::NameParent)
        })
    }
}
