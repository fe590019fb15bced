//! btrfs: every node of every tree at each of its copies, and all data that has checksums.
//!
//! | item | type | bytes |
//! |---|---|---|
//! | root | 132 | 160: generation, 176: logical byte, 216: refs, 238: level |
//! | extent of data | 108 | 16: compression, 20: type, 21, 29: place and length on the disk, 37, 45: offset, bytes of the file |
//! | extent | 168, 169 | key: logical byte, and the length or a node's level |
//!
//! The trees are gone through in an order in which each needs only those in front: chunks, roots, extents, checksums with
//! the data, and then the files, of which those that have damaged data are named.

use super::data::{Bad, Data};
use super::names;
use super::tree::{Fs, Key, Root, Walker};
use super::{CHUNK_ITEM, Chunk, Contents, Severity, Superblock};
use crate::inside::full::Coverage;
use crate::inside::look::{Look, field, le32, le64};
use crate::limits::{INSIDE_CHUNKS_MAX, INSIDE_DIRECTORIES_MAX};
use crate::num::{to_u64, to_usize};

const ROOT_TREE: u64 = 1;
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const CSUM_TREE: u64 = 7;
const LOG_TREE: u64 = u64::MAX.wrapping_sub(5);
const EXTENT_DATA: u8 = 108;
const EXTENT_CSUM: u8 = 128;
const ROOT_ITEM: u8 = 132;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
/// All but zoned devices, the second extent tree, the tree of stripes, and what came later.
const INCOMPAT_UNDERSTOOD: u64 = 0xfff | 1 << 16;

/// Whether a tree holds files.
fn has_files(id: u64) -> bool {
    id == 5 || (256..0xffff_ffff_0000_0000).contains(&id)
}

/// A root as its item has it; `None` where it is being deleted, and its nodes may be gone.
fn root(id: u64, item: &[u8]) -> Option<Root> {
    let [level] = field(item, 238);
    let root = Root { id, logical: le64(item, 176), level, generation: le64(item, 160) };
    (item.len() >= 239 && le32(item, 216) > 0 && root.logical > 0).then_some(root)
}

pub(super) fn check(look: &Look<'_>, superblock: &Superblock, contents: &mut Contents) {
    let Ok(node_size) = to_usize(superblock.node_size().into()) else { return };
    let unknown = superblock.incompat() & !INCOMPAT_UNDERSTOOD;
    if unknown != 0 {
        let place = ("the superblock", superblock.place);
        let expected = "the check is partial: what they change was not looked at";
        let code = "contents.btrfs.feature";
        contents.find(Severity::Note, code, place, format!("features {unknown:#x} that are not known"), expected);
    }
    let mut chunks = superblock.chunks();
    chunks.sort_by_key(|chunk| chunk.start);
    let mut fs = Fs { look, superblock, chunks, node_size };
    let mut walker = Walker::new(look, contents);
    walker.is_partial = unknown != 0;
    fs.chunks = chunks_of(&fs, &mut walker);

    let root_tree = superblock.root(ROOT_TREE);
    let mut roots = Vec::new();
    walker.walk(&fs, root_tree, &mut |key, item| {
        if key.1 == ROOT_ITEM && roots.len() < INSIDE_DIRECTORIES_MAX {
            roots.extend(root(key.0, item));
        }
    });
    let mut used = 0u64;
    for root in roots.iter().filter(|root| root.id == EXTENT_TREE) {
        walker.walk(&fs, *root, &mut |key, _| used = used.saturating_add(extent(&fs, key)));
    }
    let mut data = Data::default();
    for root in roots.iter().filter(|root| root.id == CSUM_TREE) {
        walker.walk(&fs, *root, &mut |key, item| sums(&fs, &mut data, key, item));
    }
    for root in roots.iter().filter(|root| ![EXTENT_TREE, CSUM_TREE].contains(&root.id) && !has_files(root.id)) {
        walker.walk(&fs, *root, &mut |_, _| ());
    }
    log(&fs, &mut walker, &mut data);
    for root in roots.iter().filter(|root| has_files(root.id)) {
        walker.walk(&fs, *root, &mut |key, item| owners(root.id, &mut data.bad, key, item));
    }
    let (nodes, is_partial) = (walker.verified, walker.is_partial);
    found(&fs, contents, (root_tree, &roots), &data);
    if data.elsewhere > 0 {
        let elsewhere = data.elsewhere;
        contents
            .note(format!("btrfs: {elsewhere} bytes of data lie on other devices, or in stripes, and were not read"));
    }
    if data.left_out > 0 {
        contents.note(format!("btrfs: {} bytes of data were not read", data.left_out));
    }
    let verified = nodes.saturating_add(data.verified).saturating_add(superblocks(look, superblock));
    let free = if is_partial {
        0
    } else {
        look.len().saturating_sub(used.saturating_add(superblocks(look, superblock)).max(verified))
    };
    contents.coverage = Some(Coverage::of(look.len(), verified, free));
}

/// The bytes of the superblocks.
fn superblocks(look: &Look<'_>, superblock: &Superblock) -> u64 {
    let size = superblock.device_size().min(look.len());
    let is_there = |place: &&u64| place.checked_add(to_u64(super::SIZE)).is_some_and(|end| end <= size);
    to_u64(super::PLACES.iter().filter(is_there).count()).saturating_mul(to_u64(super::SIZE))
}

/// The chunks of the chunk tree; those of the superblock lead to it.
fn chunks_of(fs: &Fs<'_>, walker: &mut Walker<'_>) -> Vec<Chunk> {
    let (mut chunks, mut stripes, mut left_out) = (Vec::new(), 0usize, false);
    walker.walk(fs, fs.superblock.root(CHUNK_TREE), &mut |key, item| {
        if key.1 != CHUNK_ITEM {
            return;
        }
        let Some((chunk, _)) = Chunk::parse(key.2, item) else { return };
        stripes = stripes.saturating_add(chunk.stripes.len().max(1));
        left_out |= stripes > INSIDE_CHUNKS_MAX;
        if !left_out {
            chunks.push(chunk);
        }
    });
    if left_out {
        walker.contents.note("btrfs: not all chunks were gone into: more than are kept in memory");
    }
    walker.is_partial |= left_out;
    chunks
}

/// The bytes of an extent that lie on this device.
fn extent(fs: &Fs<'_>, key: Key) -> u64 {
    let len = match key.1 {
        EXTENT_ITEM => key.2,
        METADATA_ITEM => to_u64(fs.node_size),
        _ => return 0,
    };
    let copies = fs.places(key.0).map_or(0, |(places, _)| to_u64(places.len()));
    len.saturating_mul(copies)
}

fn sums(fs: &Fs<'_>, data: &mut Data, key: Key, item: &[u8]) {
    if key.1 == EXTENT_CSUM {
        data.item(fs, key.2, item);
    }
}

/// What was synced after the last commit: trees of their own, with checksums of their own.
fn log(fs: &Fs<'_>, walker: &mut Walker<'_>, data: &mut Data) {
    let log = fs.superblock.root(LOG_TREE);
    if log.logical == 0 {
        return;
    }
    let mut roots = Vec::new();
    walker.walk(fs, log, &mut |key, item| {
        if key.1 == ROOT_ITEM && roots.len() < INSIDE_DIRECTORIES_MAX {
            let [level] = field(item, 238);
            roots.push(Root { id: LOG_TREE, logical: le64(item, 176), level, generation: le64(item, 160) });
        }
    });
    for root in roots {
        walker.walk(fs, root, &mut |key, item| sums(fs, data, key, item));
    }
}

/// Takes note of whose data a damaged piece is. A file that shows the very bytes comes before one that has them in an extent
/// of which it uses another part.
fn owners(id: u64, bad: &mut [Bad], key: Key, item: &[u8]) {
    let [kind] = field(item, 20);
    if bad.is_empty() || key.1 != EXTENT_DATA || !matches!(kind, 1 | 2) {
        return;
    }
    let [compression] = field(item, 16);
    let (place, len) = (le64(item, 21), le64(item, 29));
    let (offset, shown) = if compression == 0 { (le64(item, 37), le64(item, 45)) } else { (0, len) };
    let overlaps = |bad: &Bad, start: u64, len: u64| {
        start < bad.logical.saturating_add(bad.len) && bad.logical < start.saturating_add(len)
    };
    for bad in bad.iter_mut().filter(|bad| place > 0 && overlaps(bad, place, len)) {
        let is_shown = overlaps(bad, place.saturating_add(offset), shown);
        if is_shown && !bad.is_shown || bad.owner.is_none() {
            bad.owner = Some((id, key.0));
            bad.is_shown = is_shown;
        }
    }
}

/// Makes findings of the damaged data.
fn found(fs: &Fs<'_>, contents: &mut Contents, (root_tree, roots): (Root, &[Root]), data: &Data) {
    for bad in &data.bad {
        let severity = if bad.is_lost { Severity::Error } else { Severity::Warning };
        let structure = match bad.owner {
            Some((id, inode)) => format!("data of inode {inode} in {}", super::tree::name(id)),
            None => format!("data at logical byte {}", bad.logical),
        };
        let expected = if bad.is_lost { "no copy here has its checksum" } else { "another copy has its checksum" };
        let text = format!("{} bytes of other content", bad.len);
        let code = "contents.btrfs.data-checksum";
        if let Some(n) = contents.find_nth(severity, code, (structure, bad.place), text, expected) {
            let path = bad.owner.and_then(|owner| names::path(fs, root_tree, roots, owner));
            contents.findings.get_mut(n).into_iter().for_each(|finding| finding.path.clone_from(&path));
        }
    }
    contents.more_findings = contents.more_findings.saturating_add(data.more);
}
