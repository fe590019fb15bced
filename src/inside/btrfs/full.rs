//! btrfs: every node of every tree at each of its copies, and all data that has checksums.
//!
//! | item | type | bytes |
//! |---|---|---|
//! | root | 132 | 160: generation, 176: logical byte, 216: refs, 238: level |
//! | extent of data | 108 | 16: compression, 20: type, 21, 29: place and length on the disk, 37, 45: offset, bytes of the file |
//! | extent | 168, 169 | key: logical byte, and the length or a node's level |
//!
//! The trees are gone through in an order in which each needs only those in front: chunks, roots, extents, checksums with
//! the data, and then the files, of which those that have damaged data are named. What they say is held against each other
//! at the end.

use super::data::{Bad, Data};
use super::extents::Extents;
use super::files::{Files, Summed};
use super::groups::Groups;
use super::items::{EXTENT_DATA, EXTENT_ITEM, METADATA_ITEM, ROOT as ROOT_ITEM};
use super::keys::{Item, Key, LOG_TREE, Root};
use super::links::Links;
use super::names;
use super::tree::{Fs, Walker};
use super::{CHUNK_ITEM, Chunk, Contents, Severity, Superblock};
use crate::inside::full::Coverage;
use crate::inside::look::{Look, field, le32, le64};
use crate::limits::{INSIDE_CHUNKS_MAX, INSIDE_DIRECTORIES_MAX};
use crate::num::{to_u64, to_usize};

const ROOT_TREE: u64 = 1;
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const CSUM_TREE: u64 = 7;
/// What a balance that was interrupted has left.
const RELOCATION: u64 = u64::MAX.wrapping_sub(7);
/// The files through which a balance moves data.
const DATA_RELOCATION: u64 = u64::MAX.wrapping_sub(8);
const EXTENT_CSUM: u8 = 128;
/// All but zoned devices, the second extent tree, the tree of stripes, and what came later.
const INCOMPAT_UNDERSTOOD: u64 = 0xfff | 1 << 16;

/// How many times as many nodes as there are may be read to compare files, since snapshots share them.
const SHARED_READS: u64 = 4;
const NOT_COMPARED: &str =
    "btrfs: files of some subvolumes were not held against their names: nodes are damaged, or shared by too many";

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
    let (mut roots, mut is_changing, mut links) = (Vec::new(), false, Links::default());
    walker.walk(&fs, root_tree, &mut |item| {
        links.item(item);
        if item.key.1 == ROOT_ITEM && roots.len() < INSIDE_DIRECTORIES_MAX {
            let root = root(item.key.0, item.bytes);
            // What is being deleted or moved has been taken out in part.
            is_changing |= root.is_none() || item.key.0 == RELOCATION;
            roots.extend(root);
        }
    });
    let (mut used, mut extents, mut groups) = (0u64, Extents::default(), Groups::default());
    for root in roots.iter().filter(|root| root.id == EXTENT_TREE) {
        walker.walk(&fs, *root, &mut |item| {
            used = used.saturating_add(extent(&fs, item.key));
            extents.item(&fs, item);
            groups.item(&fs, item);
        });
    }
    let has_extents = !walker.is_partial;
    let (mut data, mut summed) = (Data::default(), Summed::default());
    for root in roots.iter().filter(|root| root.id == CSUM_TREE) {
        walker.walk(&fs, *root, &mut |item| sums(&fs, (&mut data, &mut summed), item));
    }
    let has_sums = !walker.is_partial;
    for root in roots.iter().filter(|root| ![EXTENT_TREE, CSUM_TREE].contains(&root.id) && !has_files(root.id)) {
        walker.walk(&fs, *root, &mut |item| groups.item(&fs, item));
    }
    let has_all = !walker.is_partial;
    log(&fs, &mut walker, &mut data);
    for root in roots.iter().filter(|root| has_files(root.id)) {
        walker.walk(&fs, *root, &mut |item| owners(root.id, &mut data.bad, item.key, item.bytes));
    }
    let (nodes, is_partial) = (walker.verified, walker.is_partial);
    let (references, count) = (std::mem::take(&mut walker.references), walker.nodes);
    let has_nodes_elsewhere = walker.has_elsewhere;
    found(&fs, contents, (root_tree, &roots), &data);
    if has_all {
        groups.check(&fs, &extents, contents);
    }
    let mut hits = Vec::new();
    if has_extents {
        hits = extents.check(&fs, &references, !is_partial && !is_changing, contents);
    }
    if has_sums {
        // Snapshots share nodes, which are read for each of them.
        let mut left = count.saturating_mul(SHARED_READS).saturating_add(1024);
        links.check(&fs, contents);
        for root in roots.iter().filter(|root| has_files(root.id) || root.id == DATA_RELOCATION) {
            match Files::check(&fs, *root, (&summed, &links), &mut left, contents) {
                Some(of_root) => hits.extend(of_root),
                None => contents.note(NOT_COMPARED),
            }
        }
    }
    for (nth, owner) in hits {
        let path = names::path(&fs, root_tree, &roots, owner);
        contents.findings.get_mut(nth).into_iter().for_each(|finding| finding.path.clone_from(&path));
    }
    if has_nodes_elsewhere || data.elsewhere > 0 {
        let (device, all) = (superblock.device(), le64(&superblock.bytes, 0x88));
        let structure = (format!("device {device} of {all}"), superblock.place);
        let found = match data.elsewhere {
            0 => "not all nodes".into(),
            len => format!("all but {len} bytes of data"),
        };
        let expected = "the others lie on other devices, or in stripes, and are not read here";
        contents.find(Severity::Error, "contents.btrfs.device", structure, found, expected);
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
    walker.walk(fs, fs.superblock.root(CHUNK_TREE), &mut |item| {
        if item.key.1 != CHUNK_ITEM {
            return;
        }
        let Some((chunk, _)) = Chunk::parse(item.key.2, item.bytes) else { return };
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

fn sums(fs: &Fs<'_>, (data, summed): (&mut Data, &mut Summed), item: &Item<'_>) {
    if item.key.1 == EXTENT_CSUM {
        let len = data.item(fs, item.key.2, item.bytes);
        summed.take(item.key.2, len);
    }
}

/// What was synced after the last commit: trees of their own, with checksums of their own.
fn log(fs: &Fs<'_>, walker: &mut Walker<'_>, data: &mut Data) {
    let log = fs.superblock.root(LOG_TREE);
    if log.logical == 0 {
        return;
    }
    let mut roots = Vec::new();
    walker.walk(fs, log, &mut |item| {
        if item.key.1 == ROOT_ITEM && roots.len() < INSIDE_DIRECTORIES_MAX {
            let [level] = field(item.bytes, 238);
            roots.push(Root { id: LOG_TREE, logical: le64(item.bytes, 176), level, generation: le64(item.bytes, 160) });
        }
    });
    // Its checksums are not those of what was committed.
    let mut summed = Summed::default();
    for root in roots {
        walker.walk(fs, root, &mut |item| sums(fs, (data, &mut summed), item));
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
