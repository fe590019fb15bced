//! Fixed structures of container files, read whole.

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Condition, Error, ErrorKind, Result};
use crate::io::ReadAt;
use crate::num::to_u64;

/// The structure at `offset`; `what` names it, with its rule, where the file is too short for it.
pub(super) fn read<T: FromBytes + IntoBytes>(
    file: &(impl ReadAt + ?Sized),
    offset: u64,
    rule: &'static str,
    what: &str,
) -> Result<T> {
    let mut value = T::new_zeroed();
    fill(file, value.as_mut_bytes(), offset, rule, what)?;
    Ok(value)
}

/// Fills `buf` from `offset` on, and names `what` where the file is too short for it.
pub(super) fn fill(
    file: &(impl ReadAt + ?Sized),
    buf: &mut [u8],
    offset: u64,
    rule: &'static str,
    what: &str,
) -> Result<()> {
    let size = to_u64(buf.len());
    if offset.checked_add(size).is_none_or(|end| end > file.len()) {
        return Err(Error::corrupt(
            rule,
            format!("{what} takes {size} bytes, but the file ends at byte {}", file.len()),
        )
        .at(offset));
    }
    file.read_exact_at(buf, offset).map_err(|e| match e.kind() {
        ErrorKind::Io => e.within(format!("reading {what}")),
        _ => e,
    })
}

/// Refuses a table of `entries` entries of `size` bytes each at `offset` that does not lie within the file.
pub(super) fn table_within(
    file: &(impl ReadAt + ?Sized),
    offset: u64,
    entries: u64,
    size: u64,
    rule: &'static str,
    what: &str,
) -> Result<()> {
    let end = entries.checked_mul(size).and_then(|len| len.checked_add(offset));
    if end.is_none_or(|end| end > file.len()) {
        return Err(Error::corrupt(
            rule,
            format!("{what} of {entries} entries does not fit the file, which ends at byte {}", file.len()),
        )
        .at(offset)
        .with_condition(Condition::TableBeyondEnd)
        .with_hint("the image file is cut off or damaged: fetch it again"));
    }
    Ok(())
}
