//! `Packages`: headers in a hash of Berkeley DB, as rpm kept them before 2020 (Berkeley DB 5.3's `dbinc/db_page.h`). Numbers
//! are of the machine's order that wrote it.
//!
//! | first page | | each page | | value that lies elsewhere, 12 bytes | |
//! |---|---|---|---|---|---|
//! | 12..16 | magic 0x061561 | 16..20 | the next of a chain | 0 | 3; other values are no headers |
//! | 20..24 | page size | 20..22 | number of items, or 0 | 4..8 | first page of its chain |
//! | 24 | 0: not encrypted | 22..24 | bytes, in a page of a chain | 8..12 | bytes in all |
//! | 32..36 | last page | 25 | 2, 13: of the hash; 7: of a chain | | |
//!
//! A page of the hash has places of 2 bytes from byte 26 on: of a key, and of its value, in turn.

use super::{Pages, Source, range};
use crate::error::{Error, Result};
use crate::limits::VERIFY_PACKAGES_TEXT_MAX;
use crate::num::to_u64;

const PAGE_HEADER: usize = 26;
const MAGIC: u32 = 0x0006_1561;

fn wrong(message: impl Into<String>) -> Error {
    Error::corrupt("packages.rpm", message)
}

/// The order in which numbers have their bytes.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn long(self, bytes: &[u8], at: usize) -> u32 {
        let four = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        match self {
            Self::Little => u32::from_le_bytes(four),
            Self::Big => u32::from_be_bytes(four),
        }
    }

    fn short(self, bytes: &[u8], at: usize) -> u16 {
        let two = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied().unwrap_or_default();
        match self {
            Self::Little => u16::from_le_bytes(two),
            Self::Big => u16::from_be_bytes(two),
        }
    }
}

/// Gives `take` each header.
pub fn headers(
    source: &mut Source<'_, '_, '_, '_>,
    take: &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let first = source.read(0, 72)?;
    let order = [Order::Little, Order::Big].into_iter().find(|order| order.long(&first, 12) == MAGIC);
    let order = order.ok_or_else(|| wrong("it is no hash of Berkeley DB"))?;
    let size = u64::from(order.long(&first, 20));
    if !size.is_power_of_two() || !(512..=65_536).contains(&size) || first.get(24) != Some(&0) {
        return Err(wrong(format!("its pages have {size} bytes, or are encrypted; 512 to 65536 are allowed")));
    }
    let pages = u64::from(order.long(&first, 32)).saturating_add(1);
    if pages.saturating_mul(size) > source.len() {
        return Err(wrong(format!("its {pages} pages end behind the file, at byte {}", source.len())));
    }
    let mut seen = Pages::new(pages)?;
    for number in 1..pages {
        let page = source.read(number.saturating_mul(size), size)?;
        if !matches!(page.get(25), Some(2 | 13)) {
            continue;
        }
        let items = usize::from(order.short(&page, 20));
        if items > page.len() / 2 {
            return Err(wrong(format!("page {number} is said to have {items} items")));
        }
        for n in (1..items).step_by(2) {
            let place = PAGE_HEADER.saturating_add(n.saturating_mul(2));
            let at = usize::from(order.short(&page, place));
            if page.get(at) != Some(&3) {
                continue;
            }
            let (start, len) = (order.long(&page, at.saturating_add(4)), order.long(&page, at.saturating_add(8)));
            let header = chain(source, order, size, u64::from(start), u64::from(len), &mut seen)?;
            take(source, header)?;
        }
    }
    Ok(())
}

/// A value in a chain of pages.
fn chain(
    source: &mut Source<'_, '_, '_, '_>,
    order: Order,
    size: u64,
    start: u64,
    len: u64,
    seen: &mut Pages,
) -> Result<Vec<u8>> {
    if len > VERIFY_PACKAGES_TEXT_MAX {
        let message = format!("a header has {len} bytes; {VERIFY_PACKAGES_TEXT_MAX} are read");
        return Err(Error::limit("verify.text", message));
    }
    let (mut bytes, mut number) = (Vec::new(), start);
    while to_u64(bytes.len()) < len {
        seen.enter(number)?;
        let page = source.read(number.saturating_mul(size), size)?;
        let held = u64::from(order.short(&page, 22)).min(len.saturating_sub(to_u64(bytes.len())));
        let part =
            page.get(range(to_u64(PAGE_HEADER), held)?).filter(|part| !part.is_empty() && page.get(25) == Some(&7));
        bytes.extend(part.ok_or_else(|| wrong(format!("page {number} is no part of a header")))?);
        number = u64::from(order.long(&page, 16));
    }
    Ok(bytes)
}
