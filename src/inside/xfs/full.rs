//! XFS: the trees of each group, each inode in use, and whether every block is in one of them. Version 5 alone: version 4
//! has no checksums, and is looked at at its roots.
//!
//! | AGF bytes | field | AGI bytes | field |
//! |---|---|---|---|
//! | 16, 28 | roots and levels of free space by block | 20, 24 | root and level of inodes |
//! | 20, 32 | and by size | 328, 332 | and of free inodes |
//! | 24, 36 | and of owners | 16, 28 | inodes, free ones |
//! | 88, 92 | and of shared blocks | | |
//! | 40, 48, 52 | first and number in AGFL, free blocks | | |
//!
//! Where the log has to be replayed, a structure may be as it was before, or not yet there: what does not fit is then counted
//! in a note, and is no finding. The log is not replayed here.

use super::dirs;
use super::inodes::{self, Inode};
use super::links::Links;
use super::tree::{Fs, Kind, Walker, short};
use super::{Contents, INCOMPAT_NEEDSREPAIR, Severity, State, Superblock};
use crate::error::counted;
use crate::inside::full::{Claims, Coverage};
use crate::inside::look::{Look, be16, be32, be64, field};
use crate::limits::{INSIDE_DIRECTORIES_MAX, INSIDE_PATH_DEPTH_MAX};
use crate::num::{to_u64, to_usize};

const RO_COMPAT_UNDERSTOOD: u32 = 0xf;
/// All but realtime groups, zones, and what came later.
const INCOMPAT_UNDERSTOOD: u32 = 0xff;
const RO_COMPAT_FINOBT: u32 = 1;
const RO_COMPAT_RMAPBT: u32 = 2;
const RO_COMPAT_REFLINK: u32 = 4;
const INCOMPAT_SPARSE: u32 = 2;
/// An extent of the tree of shared blocks that is a copy in the making.
const COPYING: u32 = 1 << 31;
const CHUNK: u64 = 64;

fn kinds() -> [Kind; 6] {
    let kind = |name, code, magic, record, key| Kind { name, shape: short(code, magic), record, key };
    [
        kind("the tree of free space by block", "contents.xfs.free-tree", &[b"AB3B"], 8, 8),
        kind("the tree of free space by size", "contents.xfs.free-tree", &[b"AB3C"], 8, 8),
        kind("the tree of inodes", "contents.xfs.inode-tree", &[b"IAB3"], 16, 4),
        kind("the tree of free inodes", "contents.xfs.inode-tree", &[b"FIB3"], 16, 4),
        kind("the tree of owners", "contents.xfs.owner-tree", &[b"RMB3"], 24, 40),
        kind("the tree of shared blocks", "contents.xfs.shared-tree", &[b"R3FC"], 12, 4),
    ]
}

struct Full<'a, 'b> {
    fs: &'a Fs<'a>,
    walker: Walker<'b>,
    free: u64,
    hits: Vec<(usize, u64)>,
    directories: Vec<u64>,
    all_directories: bool,
    links: Links,
}

/// Checks all of a file system.
pub(super) fn check(look: &Look<'_>, sb: &Superblock, contents: &mut Contents) {
    let Some(fs) = Fs::new(look, sb).filter(|_| sb.has_checksums()) else {
        return contents.note("xfs: version 4 has no checksums, and is looked at at its roots alone");
    };
    let is_dirty = contents.state != State::Clean;
    let mut own = Contents::new(contents.kind, look);
    let code = "contents.xfs.feature";
    let [incompat, ro_compat] = sb.features();
    let unknown = (incompat & !INCOMPAT_UNDERSTOOD & !INCOMPAT_NEEDSREPAIR, ro_compat & !RO_COMPAT_UNDERSTOOD);
    let claims = Claims::new(sb.sb_dblocks.get().min(look.len().checked_div(fs.block).unwrap_or(0)));
    let is_partial = unknown != (0, 0);
    if is_partial {
        let found = format!("features {:#x} and, to be written, {:#x} that are not known", unknown.0, unknown.1);
        let expected = "the check is partial: what they change was not looked at";
        contents.find(Severity::Note, code, ("the superblock", 0), found, expected);
    }
    let walker = Walker { contents: &mut own, claims, verified: 512, is_partial };
    let mut full = Full {
        fs: &fs,
        walker,
        free: 0,
        hits: Vec::new(),
        directories: Vec::new(),
        all_directories: true,
        links: Links::default(),
    };
    full.claim_log();
    for group in 0..fs.groups {
        if look.is_cancelled() {
            return;
        }
        full.group(group);
    }
    full.lost();
    if full.all_directories && !full.walker.is_partial && !look.is_cancelled() {
        let hits = full.links.check(&fs, &full.directories, full.walker.contents);
        full.hits.extend(hits);
    }
    let (verified, free) = (full.walker.verified, full.free);
    full.name();
    let behind = look.len().saturating_sub(sb.sb_dblocks.get().saturating_mul(fs.block));
    contents.coverage = Some(Coverage::of(look.len(), verified, free.saturating_add(behind)));
    own.notes.drain(..).for_each(|note| contents.note(note));
    let count = to_u64(own.findings.len()).saturating_add(own.more_findings);
    if !is_dirty {
        contents.more_findings = contents.more_findings.saturating_add(own.more_findings);
        for finding in own.findings {
            let place = (finding.structure.as_str(), finding.offset.unwrap_or(0));
            let nth = contents.find_nth(finding.severity, finding.code, place, &finding.found, &finding.expected);
            let kept = nth.and_then(|n| contents.findings.get_mut(n));
            kept.into_iter().for_each(|kept| kept.path.clone_from(&finding.path));
        }
    } else if count > 0 {
        let found = format!("{} that do not fit yet, the first {}", counted(count, "structure"), own.findings[0]);
        let expected = "the log has to be replayed, which may mend them: what is there then was not looked at";
        contents.find(Severity::Note, "contents.xfs.log", ("the log", 0), found, expected);
    }
}

impl Full<'_, '_> {
    fn claim_log(&mut self) {
        let (start, len) = (self.fs.sb.sb_logstart.get(), u64::from(self.fs.sb.sb_logblocks.get()));
        let (group, block) = self.fs.split(start);
        if start != 0 && self.fs.holds(group, block, len) {
            self.walker.claim(self.fs, "the log", group, (block, len));
        }
    }

    fn group(&mut self, group: u64) {
        let fs = self.fs;
        let sector = u64::from(fs.sb.sb_sectsize.get());
        let at = fs.place(group, 0);
        let headers = sector.saturating_mul(4);
        self.walker.claim(fs, "the headers of a group", group, (0, headers.div_ceil(fs.block)));
        // What is wrong with them has been said.
        let Some(bytes) = to_usize(headers).ok().and_then(|len| fs.look.bytes(at, len)) else {
            self.walker.is_partial = true;
            return;
        };
        let number = u32::try_from(group).unwrap_or(u32::MAX);
        let is_right = super::HEADERS.iter().all(|header| {
            let (start, len) = (to_usize(sector).unwrap_or(512).saturating_mul(header.sector), to_usize(sector));
            let end = start.saturating_add(len.unwrap_or(512));
            let part = bytes.get(start..end).unwrap_or_default();
            let (stored, right) = super::checksums(part, header.checksum_at);
            part.starts_with(header.magic) && stored == right && be32(part, header.number_at) == number
        });
        if !is_right {
            self.walker.is_partial = true;
            return;
        }
        self.walker.verified = self.walker.verified.saturating_add(headers.saturating_sub(sector));
        let part = |n: u64| bytes.get(to_usize(sector.saturating_mul(n)).unwrap_or(0)..).unwrap_or_default();
        let (agf, agi, agfl) = (part(1), part(2), part(3));
        self.spare(group, agf, agfl.get(..to_usize(sector).unwrap_or(512)).unwrap_or_default());
        self.free_space(group, agf, at.saturating_add(sector));
        self.inodes(group, agi, at.saturating_add(sector.saturating_mul(2)));
    }

    /// The blocks that are kept for the trees to grow into.
    fn spare(&mut self, group: u64, agf: &[u8], agfl: &[u8]) {
        let fs = self.fs;
        let slots: Vec<u64> = agfl.get(36..).unwrap_or_default().chunks_exact(4).map(|s| be32(s, 0).into()).collect();
        let (first, count) = (be32(agf, 40), be32(agf, 48));
        let most = u32::try_from(slots.len()).unwrap_or(0).max(1);
        for n in 0..count.min(most) {
            let slot = first.wrapping_add(n).checked_rem(most).and_then(|n| slots.get(usize::try_from(n).ok()?));
            if let Some(block) = slot.filter(|block| fs.holds(group, **block, 1)) {
                self.walker.claim(fs, "the list of spare blocks", group, (*block, 1));
            }
        }
    }

    fn free_space(&mut self, group: u64, agf: &[u8], at: u64) {
        let fs = self.fs;
        let [by_block, by_size, _, _, owners, shared] = kinds();
        let mut extents = Vec::new();
        let each = &mut |record: &[u8]| {
            if extents.len() < INSIDE_DIRECTORIES_MAX {
                extents.push((u64::from(be32(record, 0)), u64::from(be32(record, 4))));
            }
        };
        self.walker.walk(fs, &by_block, group, (be32(agf, 16).into(), be32(agf, 28)), each);
        let sum = extents.iter().fold(0u64, |sum, (_, len)| sum.saturating_add(*len));
        let (mut other, mut longest) = (0u64, 0u64);
        let each = &mut |record: &[u8]| {
            other = other.saturating_add(be32(record, 4).into());
            longest = longest.max(be32(record, 4).into());
        };
        self.walker.walk(fs, &by_size, group, (be32(agf, 20).into(), be32(agf, 32)), each);
        let mut next = 0;
        for (block, len) in &extents {
            let structure = format!("free space of group {group}");
            if *block < next || !fs.holds(group, *block, *len) {
                let place = (structure, fs.place(group, *block));
                let says = (format!("{} at block {block}", counted(len, "block")), "in their order, within the group");
                self.walker.contents.find(Severity::Error, "contents.xfs.free-tree", place, says.0, says.1);
                continue;
            }
            next = block.saturating_add(*len);
            self.walker.claim(fs, &structure, group, (*block, *len));
        }
        self.free = self.free.saturating_add(sum.saturating_mul(fs.block));
        let counts = [
            ("free blocks", u64::from(be32(agf, 52)), sum),
            ("free blocks by size", other, sum),
            ("blocks in the longest free run", u64::from(be32(agf, 56)), longest),
        ];
        for (what, says, counted) in counts.into_iter().filter(|(_, says, counted)| says != counted) {
            if !self.walker.is_partial {
                let place = (format!("the AGF of group {group}"), at);
                let (found, expected) = (format!("{says} {what}"), format!("{counted} are there"));
                self.walker.contents.find(Severity::Warning, "contents.xfs.counts", place, found, expected);
            }
        }
        let has = |feature| fs.sb.features()[1] & feature != 0;
        if has(RO_COMPAT_RMAPBT) {
            self.walker.walk(fs, &owners, group, (be32(agf, 24).into(), be32(agf, 36)), &mut |_| ());
        }
        let mut copies = Vec::new();
        if has(RO_COMPAT_REFLINK) {
            let each = &mut |record: &[u8]| {
                let (start, len) = (be32(record, 0), be32(record, 4));
                if start & COPYING != 0 && copies.len() < INSIDE_DIRECTORIES_MAX {
                    copies.push((u64::from(start & !COPYING), u64::from(len)));
                }
            };
            self.walker.walk(fs, &shared, group, (be32(agf, 88).into(), be32(agf, 92)), each);
        }
        for run in copies.into_iter().filter(|(block, len)| fs.holds(group, *block, *len)) {
            self.walker.claim(fs, "blocks to be copied to", group, run);
        }
    }

    fn inodes(&mut self, group: u64, agi: &[u8], at: u64) {
        let fs = self.fs;
        let [_, _, all, free, _, _] = kinds();
        let is_sparse = fs.sb.features()[0] & INCOMPAT_SPARSE != 0;
        let mut chunks = Vec::new();
        let each = &mut |record: &[u8]| {
            if chunks.len() < INSIDE_DIRECTORIES_MAX {
                let [few] = field(record, 7);
                let says = if is_sparse { u32::from(few) } else { be32(record, 4) };
                chunks.push((u64::from(be32(record, 0)), be16(record, 4), be64(record, 8), says));
            }
        };
        self.walker.walk(fs, &all, group, (be32(agi, 20).into(), be32(agi, 24)), each);
        if fs.sb.features()[1] & RO_COMPAT_FINOBT != 0 {
            self.walker.walk(fs, &free, group, (be32(agi, 328).into(), be32(agi, 332)), &mut |_| ());
        }
        let (mut count, mut idle) = (0u64, 0u64);
        for (first, holes, free, says) in chunks {
            let holes = if is_sparse { holes } else { 0 };
            let missing = u64::from(holes.count_ones()).saturating_mul(4);
            count = count.saturating_add(CHUNK.saturating_sub(missing));
            // Those that are not there count as free in the bits, and not in the number.
            let there = u64::from(free.count_ones()).saturating_sub(missing);
            idle = idle.saturating_add(there);
            if u64::from(says) != there {
                let place = (format!("inodes from {first} on of group {group}"), at);
                let (found, expected) = (format!("{says} free inodes"), format!("{there} by its bits"));
                self.walker.contents.find(Severity::Error, "contents.xfs.inode-tree", place, found, expected);
            }
            self.chunk(group, (first, holes, free));
        }
        let pairs = [("inodes", 16usize, count), ("free inodes", 28, idle)];
        for (what, field, counted) in pairs.into_iter().filter(|(_, field, n)| u64::from(be32(agi, *field)) != *n) {
            if !self.walker.is_partial {
                let place = (format!("the AGI of group {group}"), at);
                let (found, expected) = (format!("{} {what}", be32(agi, field)), format!("{counted} are there"));
                self.walker.contents.find(Severity::Warning, "contents.xfs.counts", place, found, expected);
            }
        }
    }

    /// 64 inodes; each bit of `holes` is of four that are not there, and each of `free` of one that is free.
    fn chunk(&mut self, group: u64, (first, holes, free): (u64, u16, u64)) {
        let fs = self.fs;
        let size = u64::from(fs.sb.sb_inodesize.get());
        let log = u32::from(fs.sb.sb_inopblog);
        let block = first >> log;
        let per_block = 1u64 << log;
        let blocks = CHUNK.div_ceil(per_block);
        let structure = format!("inodes from {first} on of group {group}");
        let place = fs.place(group, block);
        if !fs.holds(group, block, blocks) && holes == 0 {
            self.walker.is_partial = true;
            let expected = format!("the group has {}", counted(fs.blocks_in(group), "block"));
            let code = "contents.xfs.inode-tree";
            return self.walker.contents.find(
                Severity::Error,
                code,
                (structure, place),
                format!("block {block}"),
                expected,
            );
        }
        let is_there = |n: u64| holes & 1u16.checked_shl(u32::try_from(n / 4).unwrap_or(0)).unwrap_or(0) == 0;
        for n in 0..blocks {
            let inode = n.saturating_mul(per_block);
            if is_there(inode) && fs.holds(group, block.saturating_add(n), 1) {
                self.walker.claim(fs, &structure, group, (block.saturating_add(n), 1));
            }
        }
        let whole = fs.look.bytes(place, to_usize(size.saturating_mul(CHUNK)).unwrap_or(0));
        for n in 0..CHUNK {
            if !is_there(n) {
                continue;
            }
            let within = n.saturating_mul(size);
            let at = place.saturating_add(within);
            let range = (to_usize(within).ok(), to_usize(within.saturating_add(size)).ok());
            let bytes = match (&whole, range) {
                (Some(whole), (Some(start), Some(end))) => whole.get(start..end).unwrap_or_default().to_vec(),
                _ => match fs.look.read(at, to_usize(size).unwrap_or(0)) {
                    Ok(bytes) => bytes,
                    Err(e) => {
                        self.walker.is_partial = true;
                        self.walker.contents.unread(fs.look, (structure.as_str(), at), size, &e);
                        continue;
                    }
                },
            };
            let number = group << fs.sb.sb_agblklog.saturating_add(fs.sb.sb_inopblog) | first.saturating_add(n);
            let inode = Inode { number, place: at, bytes: &bytes };
            if free >> n & 1 == 1 {
                if let Some((code, found, expected)) = inodes::core(fs, inode) {
                    let place = (format!("inode {number}, which is free"), at);
                    self.walker.contents.find(Severity::Warning, code, place, found, expected);
                }
                continue;
            }
            let is_one = inodes::check(fs, &mut self.walker, inode, &mut self.hits);
            self.links.take(inode);
            if inode.kind() == 4 {
                if is_one {
                    dirs::check(fs, &mut self.walker, inode, &mut self.hits);
                }
                self.all_directories = self.directories.len() < INSIDE_DIRECTORIES_MAX;
                if self.all_directories {
                    self.directories.push(number);
                }
            }
        }
    }

    /// Blocks that are neither in use nor free.
    fn lost(&mut self) {
        let fs = self.fs;
        if self.walker.is_partial || self.walker.claims.is_full() {
            if self.walker.claims.is_full() {
                self.walker
                    .contents
                    .note("xfs: not all blocks in use were kept in memory: some claimed twice may not be found");
            }
            return;
        }
        for group in 0..fs.groups {
            let blocks = fs.blocks_in(group);
            let start = group.saturating_mul(fs.in_group);
            let (mut count, mut first) = (0u64, None);
            let mut at = 0;
            while at < blocks {
                let valid = u64::MAX >> 64u64.saturating_sub(blocks.saturating_sub(at).min(64));
                let lost = !self.walker.claims.word(start.saturating_add(at)) & valid;
                count = count.saturating_add(lost.count_ones().into());
                if lost != 0 && first.is_none() {
                    first = Some(at.saturating_add(lost.trailing_zeros().into()));
                }
                at = at.saturating_add(64);
            }
            if let Some(block) = first {
                let place = (format!("group {group}"), fs.place(group, block));
                let found = format!("{}, the first block {block}, in no tree", counted(count, "block"));
                let expected = "each is in use or free";
                self.walker.contents.find(Severity::Warning, "contents.xfs.blocks-lost", place, found, expected);
            }
        }
    }

    /// Names the files that findings hit.
    fn name(mut self) {
        if self.hits.is_empty() || !self.all_directories {
            return;
        }
        let fs = self.fs;
        let wanted: std::collections::BTreeSet<u64> =
            self.hits.iter().map(|(_, number)| *number).chain(self.directories.iter().copied()).collect();
        let mut names = std::collections::BTreeMap::new();
        for number in self.directories.drain(..) {
            inodes::with_inode(fs, number, &mut |inode| {
                dirs::names(fs, inode, &mut |entry| {
                    if wanted.contains(&entry.inode) && !entry.is_dots() {
                        let name = String::from_utf8_lossy(entry.name).into_owned();
                        names.entry(entry.inode).or_insert((number, name));
                    }
                });
            });
        }
        for (n, number) in self.hits {
            let mut path = String::new();
            let mut at = number;
            for _ in 0..INSIDE_PATH_DEPTH_MAX {
                if at == fs.sb.sb_rootino.get() {
                    break;
                }
                let Some((parent, name)) = names.get(&at) else { break };
                path = format!("/{name}{path}");
                at = *parent;
            }
            if at == fs.sb.sb_rootino.get() {
                let path = if path.is_empty() { "/".to_owned() } else { path };
                self.walker.contents.findings.get_mut(n).into_iter().for_each(|f| f.path = Some(path.clone()));
            }
        }
    }
}
