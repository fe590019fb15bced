//! qcow2's header extensions, and the files that an image names in them and in its header.
//!
//! An extension is its type (4 bytes), the length of its data (4 bytes), and the data, padded to a multiple of 8 bytes.

use std::ops::Range;

use super::{FEATURE_DATA_FILE, Header, HeaderV3};
use crate::error::{Error, Result, escape};
use crate::format::Format;
use crate::format::below::Below;
use crate::format::cache::Pages;
use crate::format::parent::{Kin, Wanted, give_it};

const EXTENSION_END: u32 = 0;
const EXTENSION_CRYPT_HEADER: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// Of the entries of a directory of bitmaps: more are not gone into (`QCOW2_MAX_BITMAPS`).
const BITMAPS_MAX: u32 = 65_535;
/// The entries of a bitmap's table that are looked at: at a bit for 64 KiB, those of clusters of 64 KiB are of petabytes.
const BITMAP_TABLE_MAX: u32 = 1 << 20;
/// The bit of `autoclear_features` without which bitmaps are of an older state, and what they lead to is anybody's.
const BITMAPS_ARE_VALID: u64 = 1;

/// What the reader wants of the header extensions.
#[derive(Default)]
pub(super) struct Extensions {
    /// Offset and length in the file.
    pub(super) crypt_header: Option<(u64, u64)>,
    /// Offset of the name, and its length.
    data_file: Option<(u64, u64)>,
    backing_format: Option<(u64, u64)>,
    feature_names: Option<(u64, u64)>,
    bitmaps: Option<(u64, u64)>,
}

/// The bitmaps of what was changed, which backup programs keep in an image.
///
/// | an entry of their directory | | | |
/// |---|---|---|---|
/// | 0..8 | bitmap_table_offset | 18..20 | name_size |
/// | 8..12 | bitmap_table_size, in entries of 8 bytes | 20..24 | extra_data_size |
/// | 12..18 | flags, type, granularity | 24.. | both, padded to a multiple of 8 |
pub(super) struct Bitmaps {
    count: u32,
    pub(super) directory: Range<u64>,
}

impl Bitmaps {
    /// Where the table of each lies.
    pub(super) fn tables(&self, pages: &Pages) -> Result<Vec<Range<u64>>> {
        let mut at = self.directory.start;
        let mut tables = Vec::new();
        for _ in 0..self.count.min(BITMAPS_MAX) {
            if at.saturating_add(24) > self.directory.end {
                break;
            }
            let field = |skip: u64| at.saturating_add(skip);
            let start = u64::from_be_bytes(pages.entry(at)?);
            let entries = u32::from_be_bytes(pages.entry(field(8))?).min(BITMAP_TABLE_MAX);
            let name = u16::from_be_bytes(pages.entry(field(18))?);
            let extra = u32::from_be_bytes(pages.entry(field(20))?);
            tables.push(start..start.saturating_add(u64::from(entries).saturating_mul(8)));
            let len = 24u64.saturating_add(u64::from(name)).saturating_add(u64::from(extra));
            at = at.saturating_add(len.next_multiple_of(8));
        }
        Ok(tables)
    }
}

impl Extensions {
    /// Walks the extensions, which end with an empty one, with the backing file's name, or with the first cluster.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "at and data lie before `end`, which is within the first cluster"
    )]
    pub(super) fn read(
        pages: &Pages,
        header: &Header,
        header_length: u64,
        cluster: u64,
        file_len: u64,
    ) -> Result<Self> {
        let mut found = Self::default();
        let backing = header.backing_file_offset.get();
        let end = if (1..cluster).contains(&backing) { backing } else { cluster }.min(file_len);
        let mut at = header_length;
        while at.saturating_add(8) <= end {
            let [t0, t1, t2, t3, l0, l1, l2, l3] = pages.entry::<8>(at)?;
            let kind = u32::from_be_bytes([t0, t1, t2, t3]);
            let len = u64::from(u32::from_be_bytes([l0, l1, l2, l3]));
            let data = at + 8;
            if kind == EXTENSION_END {
                break;
            }
            if len > end - data {
                return Err(Error::corrupt(
                    "qcow2.extension",
                    format!(
                        "header extension {kind:#010x} of {len} bytes reaches beyond the header's end at byte {end}"
                    ),
                )
                .at(at));
            }
            let slot = match kind {
                EXTENSION_CRYPT_HEADER if len == 16 => {
                    let offset = u64::from_be_bytes(pages.entry(data)?);
                    found.crypt_header.replace((offset, u64::from_be_bytes(pages.entry(data + 8)?)))
                }
                EXTENSION_CRYPT_HEADER => {
                    let wrong = format!("header extension 0x0537be77 has {len} bytes; 16 are allowed");
                    return Err(Error::corrupt("qcow2.crypt_header", wrong).at(at));
                }
                EXTENSION_BACKING_FORMAT => found.backing_format.replace((data, len)),
                EXTENSION_DATA_FILE => found.data_file.replace((data, len)),
                EXTENSION_FEATURE_NAMES => found.feature_names.replace((data, len)),
                EXTENSION_BITMAPS if len >= 24 => found.bitmaps.replace((data, len)),
                _ => None,
            };
            if slot.is_some() {
                return Err(
                    Error::corrupt("qcow2.extension", format!("header extension {kind:#010x} occurs twice")).at(at)
                );
            }
            at = data + len.next_multiple_of(8);
        }
        Ok(found)
    }

    /// ` (NAME)` of an incompatible feature, where the image carries it: 48-byte entries of kind, bit and name.
    #[expect(clippy::arithmetic_side_effects, reason = "the names lie within the first cluster")]
    pub(super) fn feature_name(&self, pages: &Pages, bit: u32) -> Option<String> {
        let (offset, len) = self.feature_names?;
        for n in 0..(len / 48).min(256) {
            let entry: [u8; 48] = pages.entry(offset + n * 48).ok()?;
            if entry[0] == 0 && u32::from(entry[1]) == bit {
                let name = entry[2..].split(|b| *b == 0).next().unwrap_or_default();
                return Some(format!(" ({})", escape(&String::from_utf8_lossy(name))));
            }
        }
        None
    }

    /// The bitmaps of what was changed, where the image has some.
    pub(super) fn bitmaps(&self, pages: &Pages, v3: &HeaderV3) -> Result<Option<Bitmaps>> {
        let are_valid = v3.autoclear_features.get() & BITMAPS_ARE_VALID != 0;
        let Some((at, _)) = self.bitmaps.filter(|_| are_valid) else { return Ok(None) };
        let number = |skip: u64| Ok::<_, Error>(u64::from_be_bytes(pages.entry(at.saturating_add(skip))?));
        let count = u32::from_be_bytes(pages.entry(at)?);
        let (len, start) = (number(8)?, number(16)?);
        Ok(Some(Bitmaps { count, directory: start..start.saturating_add(len) }))
    }

    /// Refuses images whose bytes lie in a file that they name.
    pub(super) fn refuse_data_file(&self, pages: &Pages, v3: &HeaderV3) -> Result<()> {
        if v3.incompatible_features.get() & FEATURE_DATA_FILE == 0 && self.data_file.is_none() {
            return Ok(());
        }
        let named = self.data_file.map(|(at, len)| format!(", {},", escape(&text(pages, at, len)))).unwrap_or_default();
        let message = format!("the disk's bytes lie in an external data file{named} which is not followed; {WHY}");
        Err(Error::unsupported("qcow2.data_file", message)
            .at(72)
            .with_hint("if you trust the image: qemu-img convert -O raw IMAGE DISK.raw makes one file of both"))
    }

    /// The disk of the backing file, out of those that were named; `None` where the image has none.
    pub(super) fn backing_file(
        &self,
        pages: &Pages,
        header: &Header,
        kin: &Kin<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Below>> {
        let offset @ 1.. = header.backing_file_offset.get() else { return Ok(None) };
        let name = text(pages, offset, u64::from(header.backing_file_size.get()));
        let format = self.backing_format.map(|(at, len)| text(pages, at, len));
        // A guest writes the first bytes of a raw disk: what they look like does not count then.
        let format = format.and_then(|format| format.parse::<Format>().ok());
        let found = kin.parent(&Wanted::Name { name: &name, format }, notes)?;
        found.map(Some).ok_or_else(|| {
            let name = escape(&name);
            let message = format!("the image builds on a backing file, {name}, which is not followed; {WHY}");
            Error::unsupported("qcow2.backing_file", message).at(8).with_hint(give_it(kin))
        })
    }
}

const WHY: &str = "only the image itself is read: an image can name any file, and its maker would get to see it";

/// At most QEMU's longest name of a file.
fn text(pages: &Pages, offset: u64, len: u64) -> String {
    let bytes = (0..len.min(1023)).map_while(|n| pages.entry::<1>(offset.checked_add(n)?).ok()).flatten();
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}
