//! Swap areas, of either order of bytes and of all sizes of a page.
//!
//! | bytes | field |
//! |---|---|
//! | 1024, 1028, 1032 | version 1, last_page, nr_badpages |
//! | 1036, 1052 | UUID, label |
//! | page - 10 | `SWAPSPACE2`; another mark where a machine's memory is in it |
//!
//! The source is Linux's `include/linux/swap.h`, and `kernel/power` for the marks of a suspended system. There is no
//! checksum.

use super::look::{Look, be32, field, le32, text, uuid};
use super::{Contents, Kind, Severity, State};

const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const HEADER: u64 = 1024;
const SUSPENDED: [&[u8]; 4] = [b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"];

struct Area {
    page: u64,
    last_page: u64,
    bad_pages: u64,
    kind: Kind,
    header: Vec<u8>,
}

impl Area {
    fn read(look: &Look<'_>) -> Option<Self> {
        PAGES.into_iter().find_map(|page| Self::read_page(look, page))
    }

    fn read_page(look: &Look<'_>, page: u64) -> Option<Self> {
        let magic = look.bytes(page.checked_sub(10)?, 10)?;
        let kind = match magic.as_slice() {
            b"SWAPSPACE2" => Kind::Swap,
            other if SUSPENDED.contains(&other) => Kind::Hibernation,
            _ => return None,
        };
        let header = look.bytes(HEADER, 512)?;
        let number = |at| match le32(&header, 0) {
            1 => le32(&header, at),
            _ => be32(&header, at),
        };
        let area =
            Self { page, last_page: number(4).into(), bad_pages: number(8).into(), kind, header: header.clone() };
        (number(0) == 1 && area.last_page > 0).then_some(area)
    }

    fn size(&self) -> u64 {
        self.last_page.saturating_add(1).saturating_mul(self.page)
    }
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let area = Area::read(look)?;
    let mut contents = Contents::new(area.kind, look);
    contents.uuid = uuid(&field(&area.header, 12));
    contents.label = area.header.get(28..44).and_then(text);
    contents.block_size = Some(area.page);
    contents.size = Some(area.size());
    contents.state = State::Clean;
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(area) = Area::read(look) else { return };
    // The list of bad pages ends where the mark begins.
    let room = area.page.saturating_sub(HEADER + 512 + 10) / 4;
    if area.bad_pages > room.min(area.last_page) {
        let structure = ("nr_badpages", HEADER + 8);
        let expected = format!("at most {} are allowed", room.min(area.last_page));
        contents.find(Severity::Error, "contents.swap.bad-pages", structure, area.bad_pages, expected);
    }
}
