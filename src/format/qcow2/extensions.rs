//! qcow2's header extensions, and the files that an image names in them and in its header.
//!
//! An extension is its type (4 bytes), the length of its data (4 bytes), and the data, padded to a multiple of 8 bytes.

use super::{FEATURE_DATA_FILE, Header, HeaderV3};
use crate::error::{Error, Result, escape};
use crate::format::cache::Pages;

const EXTENSION_END: u32 = 0;
const EXTENSION_CRYPT_HEADER: u32 = 0x0537_be77;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// What the reader wants of the header extensions.
#[derive(Default)]
pub(super) struct Extensions {
    /// Offset and length in the file.
    pub(super) crypt_header: Option<(u64, u64)>,
    /// Offset of the name, and its length.
    data_file: Option<(u64, u64)>,
    feature_names: Option<(u64, u64)>,
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
                EXTENSION_DATA_FILE => found.data_file.replace((data, len)),
                EXTENSION_FEATURE_NAMES => found.feature_names.replace((data, len)),
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

    /// Refuses images whose bytes lie, all or in part, in files that they name.
    pub(super) fn refuse_other_files(&self, pages: &Pages, header: &Header, v3: &HeaderV3) -> Result<()> {
        const WHY: &str =
            "only the image itself is read: an image can name any file, and its maker would get to see it";
        let name = |offset: u64, len: u64| {
            let bytes: Vec<u8> =
                (0..len.min(1023)).map_while(|n| pages.entry::<1>(offset.checked_add(n)?).ok()).flatten().collect();
            escape(&String::from_utf8_lossy(&bytes))
        };
        if v3.incompatible_features.get() & FEATURE_DATA_FILE != 0 || self.data_file.is_some() {
            let named = self.data_file.map(|(offset, len)| format!(", {},", name(offset, len))).unwrap_or_default();
            return Err(Error::unsupported(
                "qcow2.data_file",
                format!("the disk's bytes lie in an external data file{named} which is not followed; {WHY}"),
            )
            .at(72)
            .with_hint("if you trust the image: qemu-img convert -O raw IMAGE DISK.raw makes one file of both"));
        }
        if let offset @ 1.. = header.backing_file_offset.get() {
            let named = name(offset, u64::from(header.backing_file_size.get()));
            return Err(Error::unsupported(
                "qcow2.backing_file",
                format!("the image builds on a backing file, {named}, which is not followed; {WHY}"),
            )
            .at(8)
            .with_hint("if you trust the image: qemu-img convert -O raw IMAGE DISK.raw makes one file of both"));
        }
        Ok(())
    }
}
