//! btrfs: all superblocks, and the roots of the chunk tree and the root tree in each of their copies; all else in `full`.
//!
//! | superblock bytes | field | node bytes | field |
//! |---|---|---|---|
//! | 0x00..0x20 | csum over 0x20..0x1000 | 0x00..0x20 | csum over the rest |
//! | 0x20, 0x30 | fsid, bytenr: its own place | 0x20, 0x30 | fsid, bytenr |
//! | 0x40, 0x48 | `_BHRfS_M`, generation | 0x60, 0x64 | nritems, level |
//! | 0x50, 0x58, 0x60 | root, chunk_root, log_root | 0x65 + 25 n | key of 17 bytes, offset, size |
//! | 0x90, 0x94, 0xa0 | sectorsize, nodesize, sys_chunk_array_size | chunk bytes | |
//! | 0xbc, 0xc4 | incompat_flags, csum_type | 0, 24 | length, type |
//! | 0xc6, 0xc7 | root_level, chunk_root_level | 44 | num_stripes |
//! | 0xc9 | dev_item: devid, total_bytes | 48 + 32 n | stripe: devid, offset, UUID |
//! | 0x12b, 0x23b, 0x32b | label, metadata_uuid, sys_chunk_array | | |
//!
//! All little-endian. Superblocks lie at 64 KiB, 64 MiB and 256 GiB. The source is Linux's
//! `include/uapi/linux/btrfs_tree.h` and btrfs-progs' `kernel-shared/disk-io.c`.

mod data;
mod extents;
mod files;
mod full;
mod groups;
mod items;
mod keys;
mod links;
mod names;
mod references;
mod tree;

use blake2::Blake2b;
use digest::Digest;
use digest::consts::U32;
use sha2::Sha256;

use super::look::{Look, field, le16, le32, le64, text, uuid};
use super::{Contents, Kind, Level, Severity, State};
use crate::num::{to_u64, to_usize};

const PLACES: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
const SIZE: usize = 4096;
const MAGIC: &[u8] = b"_BHRfS_M";
const CSUM_LEN: usize = 32;
const NODE_HEADER: usize = 101;
const ITEM: usize = 25;
const CHUNK: usize = 48;
const STRIPE: usize = 32;
const CHUNK_ITEM: u8 = 228;
const INCOMPAT_METADATA_UUID: u64 = 1 << 10;
/// RAID0, RAID10, RAID5 and RAID6: a chunk's bytes do not go on in one stripe.
const STRIPED: u64 = 1 << 3 | 1 << 6 | PARITY;
const PARITY: u64 = 1 << 7 | 1 << 8;

/// A superblock whose fields can be those of one.
struct Superblock {
    bytes: Vec<u8>,
    place: u64,
}

impl Superblock {
    fn read(look: &Look<'_>, place: u64) -> Option<Self> {
        let bytes = look.bytes(place, SIZE)?;
        let superblock = Self { bytes, place };
        superblock.is_sane().then_some(superblock)
    }

    fn is_sane(&self) -> bool {
        let sizes = [self.sector_size(), self.node_size()];
        self.bytes.get(0x40..0x48) == Some(MAGIC)
            && le64(&self.bytes, 0x30) == self.place
            && sizes.iter().all(|size| size.is_power_of_two() && (512..=65536).contains(size))
            && self.device_size() > 0
            && self.chunks_len() <= 2048
    }

    fn sector_size(&self) -> u32 {
        le32(&self.bytes, 0x90)
    }

    fn node_size(&self) -> u32 {
        le32(&self.bytes, 0x94)
    }

    fn chunks_len(&self) -> u32 {
        le32(&self.bytes, 0xa0)
    }

    fn device(&self) -> u64 {
        le64(&self.bytes, 0xc9)
    }

    /// The size of this device, which may be one of several.
    fn device_size(&self) -> u64 {
        le64(&self.bytes, 0xd1)
    }

    fn generation(&self) -> u64 {
        le64(&self.bytes, 0x48)
    }

    fn incompat(&self) -> u64 {
        le64(&self.bytes, 0xbc)
    }

    /// The root tree, the chunk tree, or else the tree of logs, as the superblock places it.
    fn root(&self, id: u64) -> keys::Root {
        let (at, level_at, generation) = match id {
            1 => (0x50, 0xc6, self.generation()),
            3 => (0x58, 0xc7, le64(&self.bytes, 0xa4)),
            _ => (0x60, 0xc8, self.generation().saturating_add(1)),
        };
        let [level] = field(&self.bytes, level_at);
        keys::Root { id, logical: le64(&self.bytes, at), level, generation }
    }

    fn csum_type(&self) -> u16 {
        le16(&self.bytes, 0xc4)
    }

    fn is_proved(&self) -> bool {
        is_proved(&self.bytes, self.csum_type()) == Some(true)
    }

    /// The UUID that nodes have.
    fn node_uuid(&self) -> [u8; 16] {
        let has_own = self.incompat() & INCOMPAT_METADATA_UUID != 0;
        field(&self.bytes, if has_own { 0x23b } else { 0x20 })
    }

    fn contents(&self, look: &Look<'_>) -> Contents {
        let mut contents = Contents::new(Kind::Btrfs, look);
        contents.label = self.bytes.get(0x12b..0x22b).and_then(text);
        contents.uuid = uuid(&field(&self.bytes, 0x20));
        contents.block_size = Some(u64::from(self.sector_size()));
        contents.size = self.is_proved().then(|| self.device_size());
        contents.state = if le64(&self.bytes, 0x60) == 0 { State::Clean } else { State::JournalToReplay };
        contents
    }

    fn chunks(&self) -> Vec<Chunk> {
        let mut rest = self.bytes.get(0x32b..).unwrap_or_default();
        rest = rest.get(..usize::try_from(self.chunks_len()).unwrap_or(0)).unwrap_or_default();
        let mut chunks = Vec::new();
        // Each takes at least 97 of 2048 bytes.
        while let Some((key, behind)) = rest.split_at_checked(17) {
            let Some((chunk, len)) = Chunk::parse(le64(key, 9), behind) else { break };
            chunks.push(chunk);
            rest = behind.get(len..).unwrap_or_default();
        }
        chunks
    }
}

/// Whether the checksum of a superblock or a node is right; `None` where its type is not known.
fn is_proved(bytes: &[u8], csum_type: u16) -> Option<bool> {
    let (stored, covered) = bytes.split_at_checked(CSUM_LEN)?;
    let right = match csum_type {
        0 => crc32c::crc32c(covered).to_le_bytes().to_vec(),
        1 => twox_hash::XxHash64::oneshot(0, covered).to_le_bytes().to_vec(),
        2 => Sha256::digest(covered).to_vec(),
        3 => Blake2b::<U32>::digest(covered).to_vec(),
        _ => return None,
    };
    Some(stored.starts_with(&right))
}

/// For a reader that knows CRC-32C alone: superblocks and nodes whose checksum of another kind is right get that one.
#[cfg(feature = "read-btrfs")]
pub(crate) struct OtherSums {
    csum_type: u16,
    node_len: usize,
    uuid: [u8; 16],
}

#[cfg(feature = "read-btrfs")]
impl OtherSums {
    /// Of the first superblock, where that has other checksums.
    pub(crate) fn of(superblock: &[u8]) -> Option<Self> {
        let superblock = Superblock { bytes: superblock.to_vec(), place: PLACES[0] };
        let (csum_type, node_len) = (superblock.csum_type(), usize::try_from(superblock.node_size()).ok()?);
        let is_other = csum_type != 0 && superblock.is_sane() && superblock.is_proved();
        is_other.then(|| Self { csum_type, node_len, uuid: superblock.node_uuid() })
    }

    /// Changes what was read, if it is a superblock or a node, and whole.
    pub(crate) fn restate(&self, read: &mut [u8]) {
        let is_superblock = read.len() == 4096 && read.get(0x40..0x48) == Some(MAGIC);
        let is_node = read.len() == self.node_len && field::<16>(read, 0x20) == self.uuid;
        if !(is_superblock || is_node) || is_proved(read, self.csum_type) != Some(true) {
            return;
        }
        if is_superblock {
            read[0xc4..0xc6].fill(0);
        }
        let Some((sum, covered)) = read.split_at_mut_checked(CSUM_LEN) else { return };
        sum.fill(0);
        sum[..4].copy_from_slice(&crc32c::crc32c(covered).to_le_bytes());
    }
}

/// A run of logical bytes, and where it lies.
struct Chunk {
    start: u64,
    len: u64,
    kind: u64,
    /// Devices, and the places on them.
    stripes: Vec<(u64, u64)>,
}

impl Chunk {
    /// The chunk at the start of `bytes`, and how long it is.
    fn parse(start: u64, bytes: &[u8]) -> Option<(Self, usize)> {
        let count = usize::from(le16(bytes.get(..CHUNK)?, 44));
        let len = count.checked_mul(STRIPE)?.checked_add(CHUNK)?;
        let stripes = bytes.get(CHUNK..len)?.chunks_exact(STRIPE).map(|s| (le64(s, 0), le64(s, 8))).collect();
        Some((Self { start, len: le64(bytes, 0), kind: le64(bytes, 24), stripes }, len))
    }

    /// The places on `device` of a logical byte.
    fn places(&self, device: u64, logical: u64) -> Vec<u64> {
        // One stripe alone goes on as long as the chunk.
        let goes_on = self.kind & STRIPED == 0 || self.stripes.len() == 1 && self.kind & PARITY == 0;
        let within = logical.checked_sub(self.start).filter(|within| *within < self.len && goes_on);
        let of_device = self.stripes.iter().filter(|(id, _)| *id == device);
        within.map_or(Vec::new(), |within| of_device.map(|(_, at)| at.saturating_add(within)).collect())
    }
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let primary = Superblock::read(look, PLACES[0])?;
    let mut contents = primary.contents(look);
    if let (None, Some(mirror)) = (contents.size, mirror(look)) {
        contents.size = Some(mirror.device_size());
    }
    Some(contents)
}

pub(super) fn probe_mirror(look: &Look<'_>) -> Option<Contents> {
    mirror(look).map(|mirror| mirror.contents(look))
}

/// The first mirror that is whole.
fn mirror(look: &Look<'_>) -> Option<Superblock> {
    PLACES[1..].iter().filter_map(|place| Superblock::read(look, *place)).find(Superblock::is_proved)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let mut whole: Option<Superblock> = None;
    let size = contents.size.unwrap_or(contents.volume_size);
    for (n, place) in PLACES.into_iter().enumerate() {
        // Behind the end of the file system there is none, also where the device goes on.
        if place.checked_add(to_u64(SIZE)).is_none_or(|end| end > size.min(look.len())) {
            continue;
        }
        let structure = || (format!("superblock {n}"), place);
        let severity = if n == 0 { Severity::Error } else { Severity::Warning };
        if let Err(e) = look.read(place, SIZE) {
            contents.unread(look, structure(), to_u64(SIZE), &e);
            continue;
        }
        let Some(superblock) = Superblock::read(look, place) else {
            let code = "contents.btrfs.superblock";
            contents.find(severity, code, structure(), "no sane fields", "each copy is a superblock");
            continue;
        };
        match is_proved(&superblock.bytes, superblock.csum_type()) {
            Some(true) => {
                if whole.as_ref().is_none_or(|best| best.generation() < superblock.generation()) {
                    whole = Some(superblock);
                }
            }
            Some(false) => {
                let code = "contents.btrfs.superblock-checksum";
                contents.find(severity, code, structure(), "another checksum", "that over its bytes is wanted");
            }
            None => contents.notes.push(format!("btrfs: checksums of type {} are not known", superblock.csum_type())),
        }
    }
    if let Some(superblock) = whole {
        match look.level() {
            Level::Quick => check_roots(look, &superblock, contents),
            Level::Full => full::check(look, &superblock, contents),
        }
    }
}

/// A root of a tree, as the superblock places it.
struct Root {
    name: &'static str,
    code: &'static str,
    logical: u64,
    level: u8,
}

fn check_roots(look: &Look<'_>, superblock: &Superblock, contents: &mut Contents) {
    let bytes = &superblock.bytes;
    let [root_level] = field(bytes, 0xc6);
    let [chunk_level] = field(bytes, 0xc7);
    let chunk_root = Root {
        name: "the chunk tree's root",
        code: "contents.btrfs.chunk-root",
        logical: le64(bytes, 0x58),
        level: chunk_level,
    };
    let system = superblock.chunks();
    let Some(node) = check_root(look, superblock, &chunk_root, &system, contents) else { return };
    // Where the tree is more than this node, the places of others are further down.
    let all = if chunk_level == 0 { leaf_chunks(&node) } else { return };
    let root = Root {
        name: "the root tree's root",
        code: "contents.btrfs.root",
        logical: le64(bytes, 0x50),
        level: root_level,
    };
    check_root(look, superblock, &root, &all, contents);
}

/// The chunks that a leaf of the chunk tree lists.
fn leaf_chunks(node: &[u8]) -> Vec<Chunk> {
    let count = usize::try_from(le32(node, 0x60)).unwrap_or(0);
    let items = node.get(NODE_HEADER..).unwrap_or_default().chunks_exact(ITEM).take(count);
    let chunk = |item: &[u8]| {
        let [kind] = field(item, 8);
        let at = usize::try_from(le32(item, 17)).ok()?.checked_add(NODE_HEADER)?;
        (kind == CHUNK_ITEM).then(|| Chunk::parse(le64(item, 9), node.get(at..)?)).flatten().map(|(chunk, _)| chunk)
    };
    items.filter_map(chunk).collect()
}

/// Reads a root at each place that it has on this device, and gives the first copy that is whole.
fn check_root(
    look: &Look<'_>,
    superblock: &Superblock,
    root: &Root,
    chunks: &[Chunk],
    contents: &mut Contents,
) -> Option<Vec<u8>> {
    let holds = |chunk: &&Chunk| root.logical.checked_sub(chunk.start).is_some_and(|within| within < chunk.len);
    let Some(chunk) = chunks.iter().find(holds) else {
        let expected = "a chunk maps it";
        let found = format!("logical byte {}", root.logical);
        contents.find(Severity::Error, root.code, (root.name, superblock.place), found, expected);
        return None;
    };
    let places = chunk.places(superblock.device(), root.logical);
    let size = to_usize(u64::from(superblock.node_size())).ok()?;
    let mut good = None;
    let mut bad = Vec::new();
    for place in places {
        match look.read(place, size) {
            Ok(node) => match wrong(superblock, root, &node) {
                None => good = good.or(Some(node)),
                Some(what) => bad.push((place, what)),
            },
            Err(e) => contents.unread(look, (root.name, place), to_u64(size), &e),
        }
    }
    let severity = if good.is_some() { Severity::Warning } else { Severity::Error };
    for (place, (found, expected)) in bad {
        contents.find(severity, root.code, (root.name, place), found, expected);
    }
    good
}

/// What is wrong with a node, if anything.
fn wrong(superblock: &Superblock, root: &Root, node: &[u8]) -> Option<(String, String)> {
    let [level] = field(node, 0x64);
    let place = le64(node, 0x30);
    if is_proved(node, superblock.csum_type()) == Some(false) {
        Some(("another checksum".into(), "that over its bytes is wanted".into()))
    } else if place != root.logical {
        Some((format!("logical byte {place}"), format!("it is that at {}", root.logical)))
    } else if field::<16>(node, 0x20) != superblock.node_uuid() {
        Some(("another UUID".into(), "the superblock's is wanted".into()))
    } else if level != root.level {
        Some((format!("level {level}"), format!("the superblock has {}", root.level)))
    } else {
        None
    }
}
