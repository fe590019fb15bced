//! ext: every group, inode and directory, and whether what they say of each other agrees.
//!
//! One pass over the groups reads bitmaps and inode tables, the latter in large pieces; the blocks of directories are
//! remembered and read in their order on the disk. Then links are counted and bitmaps compared. Where something could not
//! be gone into, what depends on the whole is not judged: one damage is one finding.

use std::collections::{BTreeMap, HashMap};

use super::attributes;
use super::dirs::{self, DirBlock};
use super::gather::{Gathered, Inodes};
use super::index::Trees;
use super::map::{EA_INODE, Fault, Fs, Group, INLINE_DATA, Inode, ROOT, Run, walk};
use super::names::Names;
use super::{Contents, INCOMPAT_RECOVER, Severity, State, Superblock};
use crate::error::counted;
use crate::inside::full::{Claims, Coverage, set_bits};
use crate::inside::look::{Look, crc32c_raw, le16, le32};
use crate::limits::INSIDE_DIRECTORIES_MAX;
use crate::num::{at_most, low_u32, to_u64, to_usize};

const COMPAT_RESIZE_INODE: u32 = 0x10;
const COMPAT_ORPHAN_FILE: u32 = 0x1000;
const INCOMPAT_FILETYPE: u32 = 0x2;
const INCOMPAT_MMP: u32 = 0x100;
const RO_COMPAT_HUGE_FILE: u32 = 0x8;
const RO_COMPAT_SHARED_BLOCKS: u32 = 0x4000;
const RO_COMPAT_ORPHAN_PRESENT: u32 = 0x10000;
/// What is known of the incompatible features, and understood here.
const INCOMPAT_UNDERSTOOD: u32 =
    0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
const RO_COMPAT_UNDERSTOOD: u32 =
    0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x100 | 0x200 | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000;
const INODE_UNINIT: u16 = 1;
const HUGE_FILE: u32 = 0x4_0000;
const INDEXED: u32 = 0x1000;
const ENCRYPTED: u32 = 0x800;
/// Names are hashed as they fold.
const FOLDED: u32 = 0x4000_0000;
const VERITY: u32 = 0x10_0000;
const RESIZE: u32 = 7;
/// How much of an inode table is read at once.
const WINDOW: u64 = 1 << 20;
const ATTRIBUTES_MAGIC: u32 = 0xea02_0000;
/// How many blocks of attributes that several inodes may share are remembered.
const SHARED_MAX: usize = 1 << 18;

pub(super) struct Full<'a, 'b> {
    pub fs: &'a Fs<'a>,
    pub contents: &'b mut Contents,
    pub claims: Claims,
    pub inodes: Inodes,
    pub dirs: Vec<DirBlock>,
    pub all_dirs: bool,
    /// How many blocks each directory has that is indexed.
    pub lengths: HashMap<u32, u64>,
    pub trees: Trees,
    pub attributes: HashMap<u64, u32>,
    /// The inodes that findings hit, by the findings' numbers.
    pub hits: BTreeMap<usize, u32>,
    pub verified: u64,
    pub free: u64,
    /// Something was not gone into, so that sums of the whole say nothing.
    pub is_partial: bool,
}

/// Checks all of a file system; `look` sees it as it will be when its journal is replayed.
pub(super) fn check(look: &Look<'_>, sb: &Superblock, contents: &mut Contents) {
    let Some(fs) = Fs::new(look, sb) else { return };
    let mut full = Full {
        claims: Claims::new(fs.blocks.min(look.len().checked_div(fs.block).unwrap_or(0))),
        fs: &fs,
        contents,
        inodes: Inodes::default(),
        dirs: Vec::new(),
        all_dirs: true,
        lengths: HashMap::new(),
        trees: Trees::default(),
        attributes: HashMap::new(),
        hits: BTreeMap::new(),
        verified: if fs.has_csum { 1024 } else { 0 },
        free: 0,
        is_partial: false,
    };
    full.features();
    full.claim_headers();
    for group in 0..fs.groups {
        if look.is_cancelled() {
            return;
        }
        full.group(group);
    }
    full.directories();
    full.trees();
    full.links();
    full.bitmaps();
    full.finish();
}

impl Full<'_, '_> {
    fn features(&mut self) {
        let incompat = self.fs.sb.s_feature_incompat.get() & !INCOMPAT_UNDERSTOOD;
        let ro_compat = self.fs.sb.s_feature_ro_compat.get() & !RO_COMPAT_UNDERSTOOD;
        if incompat | ro_compat != 0 {
            let found = format!("features {incompat:#x} and, to be written, {ro_compat:#x} that are not known");
            let expected = "the check is partial: what they change was not looked at";
            let code = "contents.ext.feature";
            self.contents.find(Severity::Note, code, ("the superblock", super::SUPERBLOCK_AT), found, expected);
            self.is_partial = true;
        }
        if self.fs.cluster() > 1 {
            self.contents.note("ext: with clusters, blocks that are claimed twice are not looked for");
        }
    }

    pub(super) fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: (String, u64),
        says: (impl std::fmt::Display, impl std::fmt::Display),
        inode: Option<u32>,
    ) {
        if let Some(n) = self.contents.find_nth(severity, code, place, says.0, says.1) {
            match inode {
                Some(inode) => drop(self.hits.insert(n, inode)),
                None => drop(self.hits.remove(&n)),
            }
        }
    }

    pub(super) fn claims_twice(&self) -> bool {
        self.fs.cluster() == 1 && !self.fs.sb.has_ro_compat(RO_COMPAT_SHARED_BLOCKS)
    }

    /// Claims what no inode has: superblocks, descriptors, bitmaps and tables.
    fn claim_headers(&mut self) {
        let fs = self.fs;
        for group in 0..fs.groups {
            let mut all: Vec<(&str, u64, u64)> =
                fs.headers(group).into_iter().map(|(start, len)| ("descriptors", start, len)).collect();
            match fs.group(group) {
                Ok(Some(found)) => {
                    self.verified = self.verified.saturating_add(if fs.has_csum { fs.sb.desc_size() } else { 0 });
                    all.push(("block bitmap", found.block_bitmap, 1));
                    all.push(("inode bitmap", found.inode_bitmap, 1));
                    all.push(("inode table", found.inode_table, fs.table_len()));
                }
                // It has been said what is wrong.
                Ok(None) | Err(_) => self.is_partial = true,
            }
            for (name, start, len) in all {
                let twice = if len > 0 { self.claims.claim(start, len) } else { None };
                if let Some(block) = twice.filter(|_| self.claims_twice()) {
                    let place = (format!("the {name} of group {group}"), fs.place(block));
                    let code = "contents.ext.block-claimed-twice";
                    let says = (format!("block {block}"), "another structure has it");
                    self.find(Severity::Error, code, place, says, None);
                }
            }
        }
        let mmp = u64::from(fs.word(0x16c)) << 32 | u64::from(fs.word(0x168));
        if fs.sb.has_incompat(INCOMPAT_MMP) && fs.holds(mmp, 1) {
            self.claims.claim(mmp, 1);
        }
        if fs.first == 0 && fs.block == 1024 {
            self.claims.claim(0, 1);
        }
    }

    /// A bitmap whose checksum is right, where it has one.
    pub(super) fn bitmap(
        &mut self,
        name: &str,
        group: u64,
        block: u64,
        bits: u64,
        (stored, mask): (u32, u32),
    ) -> Option<Vec<u8>> {
        let fs = self.fs;
        let structure = || (format!("the {name} bitmap of group {group}"), fs.place(block));
        let bytes = match fs.read(block) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.contents.unread(fs.look, structure(), fs.block, &e);
                self.is_partial = true;
                return None;
            }
        };
        let covered = bytes.get(..at_most(bits / 8, bytes.len())).unwrap_or_default();
        if fs.has_csum {
            let right = crc32c_raw(fs.seed, covered) & mask;
            if right != stored & mask {
                let code = if name == "block" {
                    "contents.ext.block-bitmap-checksum"
                } else {
                    "contents.ext.inode-bitmap-checksum"
                };
                let says = (format!("{:#010x}", stored & mask), format!("the checksum is {right:#010x}"));
                self.find(Severity::Error, code, structure(), says, None);
                self.is_partial = true;
                return None;
            }
            self.verified = self.verified.saturating_add(to_u64(covered.len()));
        }
        Some(bytes)
    }

    fn group(&mut self, group: u64) {
        let fs = self.fs;
        let Ok(Some(found)) = fs.group(group) else { return };
        if found.flags & INODE_UNINIT != 0 {
            return self.count_free_inodes(group, &found, (0, 0));
        }
        let sum = (found.inode_bitmap_checksum, found.checksum_mask);
        let Some(bitmap) = self.bitmap("inode", group, found.inode_bitmap, fs.inodes_per_group, sum) else { return };
        let (mut used, mut directories) = (0u64, 0u64);
        let size = fs.sb.inode_size();
        let per_window = WINDOW.checked_div(size).unwrap_or(1).max(1);
        let mut window: Option<(u64, Vec<u8>)> = None;
        let last = set_bits(&bitmap, fs.inodes_per_group).last().unwrap_or(0);
        for n in set_bits(&bitmap, fs.inodes_per_group) {
            used = used.saturating_add(1);
            let first = n.checked_div(per_window).unwrap_or(0).saturating_mul(per_window);
            if window.as_ref().is_none_or(|(start, _)| *start != first) {
                let count = per_window.min(last.saturating_add(1).saturating_sub(first));
                let at = fs.place(found.inode_table).saturating_add(first.saturating_mul(size));
                let Ok(len) = to_usize(count.saturating_mul(size)) else { return };
                match fs.look.read(at, len) {
                    Ok(bytes) => window = Some((first, bytes)),
                    Err(e) => {
                        self.is_partial = true;
                        let structure = (format!("the inode table of group {group}"), at);
                        return self.contents.unread(fs.look, structure, to_u64(len), &e);
                    }
                }
            }
            let Some((start, bytes)) = &window else { return };
            let at = n.saturating_sub(*start).saturating_mul(size);
            let range = at_most(at, bytes.len())..at_most(at.saturating_add(size), bytes.len());
            let number = group.saturating_mul(fs.inodes_per_group).saturating_add(n).saturating_add(1);
            let place = fs.place(found.inode_table).saturating_add(n.saturating_mul(size));
            let inode = Inode { number: low_u32(number), bytes: bytes.get(range).unwrap_or_default(), place };
            directories = directories.saturating_add(u64::from(inode.kind() == 4));
            self.inode(inode);
        }
        self.count_free_inodes(group, &found, (used, directories));
    }

    /// Compares the counts of a descriptor. Without a journal they may be late.
    fn count_free_inodes(&mut self, group: u64, found: &Group, (used, directories): (u64, u64)) {
        let free = self.fs.inodes_per_group.saturating_sub(used);
        let is_late = self.contents.state == State::Unclean;
        let pairs = [("free inodes", found.free_inodes, free), ("directories", found.directories, directories)];
        for (what, says, counted) in pairs.into_iter().filter(|(_, says, counted)| says != counted && !is_late) {
            let code = "contents.ext.counts";
            let place = (format!("group descriptor {group}"), found.place);
            self.find(Severity::Warning, code, place, (format!("{says} {what}"), format!("{counted} are there")), None);
        }
    }

    fn inode(&mut self, inode: Inode<'_>) {
        let fs = self.fs;
        let number = inode.number;
        let is_reserved = number < self.first_inode() && number != ROOT;
        let place = || (format!("inode {number}"), inode.place);
        if inode.bytes.iter().all(|byte| *byte == 0) && is_reserved {
            return;
        }
        if fs.has_csum {
            let (stored, right) = inode.checksums(fs);
            if stored != right {
                let says = (format!("{stored:#010x}"), format!("the checksum is {right:#010x}"));
                self.is_partial = true;
                return self.find(Severity::Error, "contents.ext.inode-checksum", place(), says, Some(number));
            }
            self.verified = self.verified.saturating_add(to_u64(inode.bytes.len()));
        }
        let (kind, links) = (inode.kind(), inode.links());
        let is_own = !is_reserved && !self.is_systems(number);
        if links == 0 && (is_own && kind == 0 || (is_own || inode.dtime() != 0) && self.is_settled()) {
            let says = ("an inode that was freed".to_owned(), "the bitmap says that it is in use".to_owned());
            return self.find(Severity::Warning, "contents.ext.inode-bitmap", place(), says, None);
        }
        if !is_reserved && !matches!(kind, 1 | 2 | 4 | 6 | 8 | 10 | 12) {
            let says = (format!("a mode of type {kind}"), "a file, a directory or another type is wanted");
            self.is_partial = true;
            return self.find(Severity::Error, "contents.ext.inode-mode", place(), says, Some(number));
        }
        if !is_reserved {
            self.fields(inode);
        }
        let is_special = is_reserved || inode.flags() & EA_INODE != 0 || self.is_systems(number);
        if let Some(seen) = self.inodes.get(number) {
            seen.wanted = if is_special { 0 } else { links };
            (seen.kind, seen.is_used) = (kind, true);
        }
        if kind == 4 && inode.flags() & INLINE_DATA != 0 {
            self.is_partial = true;
            self.contents.note("ext: directories within their inodes were not looked into");
        }
        self.map(inode);
    }

    /// What an inode says of its own size and of its end, and the attributes within it.
    fn fields(&mut self, inode: Inode<'_>) {
        let place = || (format!("inode {}", inode.number), inode.place);
        if inode.dtime() != 0 && self.is_settled() {
            let says = (format!("a time of deletion, {}", inode.dtime()), "it is in use");
            self.find(Severity::Warning, "contents.ext.inode-deleted", place(), says, Some(inode.number));
        }
        let Some(room) = inode.bytes.len().checked_sub(128).filter(|room| *room > 0) else { return };
        let extra = usize::from(le16(inode.bytes, 0x80));
        if extra != 0 && !(4..=room).contains(&extra) || !extra.is_multiple_of(4) {
            let says = (format!("{extra} bytes more of fields"), format!("4 to {room}, a multiple of 4, is allowed"));
            return self.find(Severity::Warning, "contents.ext.inode-extra", place(), says, Some(inode.number));
        }
        let start = extra.saturating_add(132);
        let has_some = extra > 0 && le32(inode.bytes, start.saturating_sub(4)) == ATTRIBUTES_MAGIC;
        if let Some(says) = has_some.then(|| attributes::wrong(inode.bytes, start, start)).flatten() {
            self.find(Severity::Warning, "contents.ext.attributes", place(), says, Some(inode.number));
        }
    }

    /// The blocks of an inode: its map, its data's places, its attributes.
    fn map(&mut self, inode: Inode<'_>) {
        let fs = self.fs;
        let number = inode.number;
        let is_dir = inode.kind() == 4;
        let claim = !(number == RESIZE && fs.sb.s_feature_compat.get() & COMPAT_RESIZE_INODE != 0);
        let mut kept = None;
        let mut gathered = Gathered {
            fs,
            claims: &mut self.claims,
            claim,
            blocks: 0,
            end: 0,
            proved: 0,
            twice: None,
            faults: Vec::new(),
            unread: Vec::new(),
            dirs: is_dir.then(Vec::new),
        };
        if claim {
            walk(fs, inode, &mut gathered);
        } else if let Some(double) = Some(u64::from(le32(inode.bytes, 0x28 + 52))).filter(|block| fs.holds(*block, 1)) {
            // The other blocks of this one are those that are kept for more descriptors.
            gathered.claim = true;
            gathered.take(double, 1);
            kept = Some(double);
        }
        let Gathered { blocks, end, proved, twice, faults, unread, dirs, .. } = gathered;
        self.verified = self.verified.saturating_add(proved);
        let is_whole = faults.is_empty() && unread.is_empty();
        self.is_partial |= !is_whole;
        for (block, e) in &unread {
            let structure = (format!("block {block} of the map of inode {number}"), fs.place(*block));
            self.contents.unread(fs.look, structure, fs.block, e);
        }
        for Fault { place, code, found, expected } in faults {
            let structure = (format!("the map of inode {number}"), place);
            self.find(Severity::Error, code, structure, (found, expected), Some(number));
        }
        if let Some(block) = twice.filter(|_| self.claims_twice()) {
            let place = (format!("inode {number}"), fs.place(block));
            let code = "contents.ext.block-claimed-twice";
            self.find(
                Severity::Error,
                code,
                place,
                (format!("block {block}"), "another structure has it"),
                Some(number),
            );
        }
        if let Some(double) = kept {
            self.resize(inode, double);
        }
        let attributes = self.attribute_block(inode);
        if is_whole && claim {
            self.sizes(inode, blocks.saturating_add(attributes), end);
        }
        if let Some(dirs) = dirs {
            self.take_directory(inode, &dirs);
        }
    }

    /// Whether the inode's own sums are right.
    fn sizes(&mut self, inode: Inode<'_>, blocks: u64, end: u64) {
        let fs = self.fs;
        let place = || (format!("inode {}", inode.number), inode.place);
        let in_blocks = fs.sb.has_ro_compat(RO_COMPAT_HUGE_FILE) && inode.flags() & HUGE_FILE != 0;
        let unit = if in_blocks { 1 } else { fs.block / 512 };
        let sectors = blocks.saturating_mul(unit);
        // Values of attributes in inodes of their own count, too.
        let counts = fs.cluster() == 1 && !fs.sb.has_incompat(0x400) && self.is_settled();
        if counts && inode.sectors() != sectors && !(inode.number < self.first_inode() && inode.number != ROOT) {
            let says = (format!("{} in i_blocks", inode.sectors()), format!("{sectors} by its map"));
            self.find(Severity::Warning, "contents.ext.inode-blocks", place(), says, Some(inode.number));
        }
        let is_file = inode.kind() == 8 && inode.flags() & VERITY == 0;
        let last = end.saturating_sub(1).saturating_mul(fs.block);
        if is_file && self.is_settled() && end > 0 && inode.size() < last && inode.number >= self.first_inode() {
            let says = (format!("{} bytes", inode.size()), format!("blocks up to byte {last} are written"));
            self.find(Severity::Warning, "contents.ext.inode-size", place(), says, Some(inode.number));
        }
    }

    /// The block of an inode's extended attributes, which several may share; says how many blocks it is.
    fn attribute_block(&mut self, inode: Inode<'_>) -> u64 {
        let fs = self.fs;
        let block = inode.attributes();
        if block == 0 || inode.number < self.first_inode() && inode.number != ROOT {
            return 0;
        }
        if let Some(count) = self.attributes.get_mut(&block) {
            *count = count.saturating_add(1);
            return 1;
        }
        let place = (format!("the attributes of inode {}", inode.number), fs.place(block));
        let code = "contents.ext.attributes";
        if !fs.holds(block, 1) {
            let says = (format!("block {block}"), format!("the file system has {}", counted(fs.blocks, "block")));
            self.find(Severity::Error, code, (place.0, inode.place), says, Some(inode.number));
            return 1;
        }
        let twice = self.claims.claim(block, 1);
        if self.attributes.len() < SHARED_MAX {
            self.attributes.insert(block, 1);
            if twice.is_some() && self.claims_twice() {
                let code = "contents.ext.block-claimed-twice";
                let says = (format!("block {block}"), "another structure has it");
                self.find(Severity::Error, code, place.clone(), says, Some(inode.number));
            }
        }
        let bytes = match fs.read(block) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.contents.unread(fs.look, place, fs.block, &e);
                return 1;
            }
        };
        if le32(&bytes, 0) != ATTRIBUTES_MAGIC || le32(&bytes, 8) != 1 {
            let says = (format!("the magic {:#010x}", le32(&bytes, 0)), format!("{ATTRIBUTES_MAGIC:#010x} is wanted"));
            self.find(Severity::Error, code, place, says, Some(inode.number));
        } else if fs.has_csum {
            let (stored, right) = attributes::checksums(fs, block, &bytes);
            if stored != right {
                let says = (format!("{stored:#010x}"), format!("the checksum is {right:#010x}"));
                let code = "contents.ext.attributes-checksum";
                self.find(Severity::Error, code, place, says, Some(inode.number));
            } else {
                self.verified = self.verified.saturating_add(fs.block);
            }
        } else if let Some(says) = attributes::wrong(&bytes, 32, 0) {
            self.find(Severity::Warning, code, place, says, Some(inode.number));
        }
        1
    }

    fn take_directory(&mut self, inode: Inode<'_>, runs: &[Run]) {
        let fs = self.fs;
        let blocks = inode.size().div_ceil(fs.block);
        let mapped = runs.iter().filter(|run| run.written).fold(0u64, |sum, run| sum.saturating_add(run.len));
        let is_indexed = inode.flags() & INDEXED != 0;
        let is_encrypted = inode.flags() & ENCRYPTED != 0;
        if mapped < blocks && inode.flags() & INLINE_DATA == 0 {
            let place = (format!("directory {}", inode.number), inode.place);
            let says = (counted(mapped, "block"), format!("{blocks} by its size"));
            self.find(Severity::Error, "contents.ext.directory-hole", place, says, Some(inode.number));
            self.is_partial = true;
        }
        if is_indexed && self.lengths.len() < INSIDE_DIRECTORIES_MAX {
            self.lengths.insert(inode.number, blocks);
        }
        for run in runs {
            for n in 0..run.len {
                let logical = run.logical.saturating_add(n);
                if logical >= blocks {
                    break;
                }
                if self.dirs.len() >= INSIDE_DIRECTORIES_MAX {
                    self.all_dirs = false;
                    self.directories();
                    self.dirs.clear();
                }
                let block = run.start.saturating_add(n);
                if logical == 0 && is_indexed && inode.flags() & FOLDED == 0 {
                    self.trees.directory(inode.number, block);
                }
                let (inode, generation) = (inode.number, inode.generation());
                let logical = low_u32(logical);
                self.dirs.push(DirBlock { block, inode, generation, logical, is_indexed, is_encrypted });
            }
        }
    }

    /// Reads the directories that were remembered.
    fn directories(&mut self) {
        let fs = self.fs;
        self.dirs.sort_unstable_by_key(|dir| dir.block);
        let dirs = std::mem::take(&mut self.dirs);
        for dir in &dirs {
            let structure = || format!("block {} of directory {}", dir.logical, dir.inode);
            let bytes = match dirs::read(fs, *dir) {
                Ok(bytes) => bytes,
                Err(e) => {
                    self.is_partial = true;
                    self.trees.damaged(dir.inode);
                    self.contents.unread(fs.look, (structure(), fs.place(dir.block)), fs.block, &e);
                    continue;
                }
            };
            let blocks = self.lengths.get(&dir.inode).copied().unwrap_or(u64::MAX);
            let (entries, wrong, proved) = dirs::check(fs, *dir, &bytes, blocks);
            self.verified = self.verified.saturating_add(if proved { fs.block } else { 0 });
            if wrong.is_none() {
                self.trees.block(fs, *dir, &bytes, &entries);
            }
            if let Some((code, within, found, expected)) = wrong {
                self.is_partial = true;
                self.trees.damaged(dir.inode);
                let place = (structure(), fs.place(dir.block).saturating_add(within));
                self.find(Severity::Error, code, place, (found, expected), Some(dir.inode));
            }
            self.names(*dir, &entries, structure());
        }
        self.dirs = dirs;
    }

    /// Names in a block of a directory, and whether their inodes are of the types that they say.
    fn names(&mut self, dir: DirBlock, entries: &[dirs::Entry<'_>], structure: String) {
        let fs = self.fs;
        let place = (structure, fs.place(dir.block));
        // One that could not be gone through to its end has been said.
        if let Some(says) = dirs::wrong_names(dir, entries).filter(|_| !entries.is_empty()) {
            self.find(Severity::Error, "contents.ext.directory-entry", place.clone(), says, Some(dir.inode));
        }
        let has_types = fs.sb.has_incompat(INCOMPAT_FILETYPE);
        let mut other = None;
        for entry in entries {
            let Some(seen) = self.inodes.get(entry.inode) else { continue };
            seen.counted = seen.counted.saturating_add(1);
            let wanted = dirs::entry_kind(seen.kind);
            if has_types && seen.is_used && wanted != 0 && entry.kind != wanted && other.is_none() {
                let name = entry.name.escape_ascii();
                other = Some((format!("type {} of \"{name}\"", entry.kind), format!("{wanted} by its inode")));
            }
        }
        if let Some(says) = other {
            self.find(Severity::Warning, "contents.ext.directory-type", place, says, Some(dir.inode));
        }
    }

    fn finish(mut self) {
        let fs = self.fs;
        let behind = fs.look.len().saturating_sub(fs.sb.size());
        let covered = Coverage::of(fs.look.len(), self.verified, self.free.saturating_add(behind));
        self.contents.coverage = Some(covered);
        if !self.hits.is_empty() && self.all_dirs {
            let wanted = self.hits.values().copied().collect();
            let names = Names::new(fs, std::mem::take(&mut self.dirs), wanted);
            for (n, inode) in &self.hits {
                let path = names.path(*inode);
                self.contents.findings.get_mut(*n).into_iter().for_each(|finding| finding.path.clone_from(&path));
            }
        }
    }

    pub(super) fn first_inode(&self) -> u32 {
        if self.fs.sb.s_rev_level.get() == 0 { 11 } else { self.fs.word(0x54) }
    }

    /// Whether an inode belongs to the file system itself.
    fn is_systems(&self, number: u32) -> bool {
        [0xe0, 0x240, 0x244, 0x26c, 0x280].iter().any(|at| self.fs.word(*at) == number)
    }

    /// Without a journal, and not unmounted, what agrees with what is a matter of chance: e2fsck mends it without loss.
    pub(super) fn unless_late(&self, severity: Severity) -> Severity {
        if self.contents.state == State::Unclean { Severity::Note } else { severity }
    }

    /// Whether it was unmounted, so that nothing waits to be cleaned up.
    pub(super) fn is_settled(&self) -> bool {
        let sb = self.fs.sb;
        let orphan_file = sb.s_feature_compat.get() & COMPAT_ORPHAN_FILE != 0;
        self.contents.state == State::Clean
            && self.fs.word(0xe8) == 0
            && !sb.has_incompat(INCOMPAT_RECOVER)
            && !(orphan_file && sb.has_ro_compat(RO_COMPAT_ORPHAN_PRESENT))
    }
}
