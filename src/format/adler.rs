//! Adler-32 (RFC 1950, 8.2), which both versions of EWF have over their structures.

use std::sync::Arc;

use adler2::Adler32;
use zerocopy::byteorder::little_endian::U32;

use super::fields;
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::num::{at_most, to_u64};

/// The checksum of bytes in memory.
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    let mut sum = Adler32::new();
    sum.write_slice(bytes);
    sum.checksum()
}

pub(super) fn check_adler32(file: &Arc<dyn ReadAt>, at: u64, end: u64, rule: &'static str, what: &str) -> Result<()> {
    let mut sum = Adler32::new();
    let mut buf = vec![0; 64 << 10];
    let mut from = at;
    while from < end {
        let len = at_most(end.saturating_sub(from), buf.len());
        let part = &mut buf[..len];
        fields::fill(file, part, from, rule, what)?;
        sum.write_slice(part);
        from = from.saturating_add(to_u64(len));
    }
    let stored: U32 = fields::read(file, end, rule, "an Adler-32")?;
    if stored.get() == sum.checksum() {
        Ok(())
    } else {
        Err(Error::corrupt(rule, format!("the Adler-32 of {what} is wrong")).at(at))
    }
}
