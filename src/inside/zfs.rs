//! ZFS: the labels of a device, and what the first of them says of the pool.
//!
//! A device has four labels of 256 KiB, two at its start and two at its end. In a label, the name-value list lies at 16 KiB,
//! in XDR: numbers are big-endian and everything is padded to four bytes. The ring of uberblocks lies at 128 KiB, and each
//! begins with 0x00bab10c in the order of bytes of the machine that wrote it. The source is Sun's "ZFS On-Disk
//! Specification", chapter 1, and OpenZFS's `include/sys/vdev_impl.h` and `module/nvpair/nvpair.c`.
//!
//! | pair, behind the list's 12 bytes | |
//! |---|---|
//! | 0, 4 | its size, its size in memory; 0 ends the list |
//! | 8, 12 | length of the name, the name |
//! | then | type: 8 number, 9 text, 19 list; count; value |

use super::look::{Look, be32, field};
use super::{Contents, Kind, State};
use crate::num::to_u64;

const LABEL: u64 = 256 << 10;
const LIST_AT: u64 = 16 << 10;
const LIST_LEN: usize = 112 << 10;
const RING_AT: u64 = 128 << 10;
const RING_LEN: usize = 128 << 10;
const UBERBLOCK: usize = 1024;
const MAGIC: u64 = 0x00ba_b10c;
/// Before the space of a device: two labels, and room for a boot loader; behind it two labels more.
const BEFORE: u64 = 4 << 20;
const BEHIND: u64 = 2 * LABEL;
/// A label has some twenty pairs, and lists in lists three deep.
const PAIRS_MAX: usize = 1000;
const NUMBER: u32 = 8;
const TEXT: u32 = 9;
const LIST: u32 = 19;

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let is_uberblock = |block: &[u8]| {
        let magic = field(block, 0);
        u64::from_le_bytes(magic) == MAGIC || u64::from_be_bytes(magic) == MAGIC
    };
    // Where the first label is damaged, the second is not.
    let label = [0, LABEL].into_iter().find(|label| {
        let ring = look.bytes(label.saturating_add(RING_AT), RING_LEN);
        ring.is_some_and(|ring| ring.chunks_exact(UBERBLOCK).any(is_uberblock))
    })?;
    let mut contents = Contents::new(Kind::Zfs, look);
    contents.block_size = None;
    contents.state = State::Unknown;
    let list = look.bytes(label.saturating_add(LIST_AT), LIST_LEN)?;
    let mut pool = Pool::default();
    // An encoding other than XDR is not written.
    if list.starts_with(&[1]) {
        pool.take(list.get(12..).unwrap_or_default(), &mut PAIRS_MAX.clone());
    }
    contents.label = pool.name;
    contents.uuid = pool.guid.map(|guid| guid.to_string());
    // Of other kinds of devices this one has a share.
    let is_alone = matches!(pool.kind.as_deref(), Some("disk" | "file" | "mirror"));
    contents.size = pool.space.filter(|_| is_alone).and_then(|space| space.checked_add(BEFORE)?.checked_add(BEHIND));
    Some(contents)
}

#[derive(Default)]
struct Pool {
    name: Option<String>,
    guid: Option<u64>,
    /// Of the device at the top, and not of those that it is made of.
    kind: Option<String>,
    space: Option<u64>,
}

impl Pool {
    /// Takes the pairs of the outer list, and of the list of the device in it.
    fn take(&mut self, list: &[u8], left: &mut usize) {
        for (name, kind, value) in Pairs::new(list, left) {
            match (name.as_slice(), kind) {
                (b"name", TEXT) => self.name = self.name.take().or_else(|| text(value)),
                (b"pool_guid", NUMBER) => self.guid = Some(u64::from_be_bytes(field(value, 0))),
                (b"vdev_tree", LIST) => {
                    // An embedded list begins with its version and its flags.
                    let device = value.get(8..).unwrap_or_default();
                    for (name, kind, value) in Pairs::new(device, &mut PAIRS_MAX.clone()) {
                        match (name.as_slice(), kind) {
                            (b"type", TEXT) => self.kind = text(value),
                            (b"asize", NUMBER) => self.space = Some(u64::from_be_bytes(field(value, 0))),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn text(value: &[u8]) -> Option<String> {
    let len = usize::try_from(be32(value, 0)).ok()?;
    super::look::text(value.get(4..)?.get(..len)?)
}

/// The pairs of a list: name, type, value.
struct Pairs<'a, 'l> {
    rest: &'a [u8],
    left: &'l mut usize,
}

impl<'a, 'l> Pairs<'a, 'l> {
    fn new(rest: &'a [u8], left: &'l mut usize) -> Self {
        Self { rest, left }
    }
}

impl<'a> Iterator for Pairs<'a, '_> {
    type Item = (Vec<u8>, u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        *self.left = self.left.checked_sub(1)?;
        let size = usize::try_from(be32(self.rest, 0)).ok()?;
        let pair = self.rest.get(8..size)?;
        self.rest = self.rest.get(size..)?;
        let len = usize::try_from(be32(pair, 0)).ok()?;
        let name = pair.get(4..)?.get(..len)?.to_vec();
        let behind = pair.get(len.checked_next_multiple_of(4)?.checked_add(4)?..)?;
        Some((name, be32(behind, 0), behind.get(8..)?))
    }
}

const _: () = assert!(RING_LEN.is_multiple_of(UBERBLOCK) && LIST_AT < RING_AT);
const _: () = assert!(to_u64(LIST_LEN) + LIST_AT == RING_AT);
