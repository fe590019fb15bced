//! XFS: directories: their names, and whether their blocks are as they have to be. `hashes` has the trees over them.
//!
//! | bytes in an inode | field | bytes of a block of names | field |
//! |---|---|---|---|
//! | 0, 1 | entries, those with numbers of 8 bytes | 0 | `XDD3`, or `XDB3` where it is the only one |
//! | 2 | the directory above: 4 or 8 bytes | 48 | place and length (u16) of the three largest free runs |
//! | behind it, each | length (u8), place (u16), name, type (u8), number | 64 | entries and free runs |
//!
//! An entry is its inode (u64), the length of its name, the name, its type, and in its last two bytes its own place; a free
//! run 0xffff, its length, and its place. Both take a multiple of 8 bytes. The only block ends with its hashes, their number
//! and how many of them are stale (u32). The source is Linux's `fs/xfs/libxfs/xfs_da_format.h`, `xfs_dir2_data.c` and
//! `xfs_dir2_sf.c`.

use super::Severity;
use super::hashes::{self, Block};
use super::inodes::{self, Extent, Fork, Inode};
use super::tree::{DIRECTORY, Fs, NAMES, ROOM, SMALL, Shape, Walker};
use crate::error::Result;
use crate::inside::look::{be16, be32, be64};
use crate::limits::INSIDE_DIRECTORIES_MAX;
use crate::num::{at_most, to_u64, to_usize};

/// Where the blocks of hashes of a directory begin, and those of free room, in bytes.
const LEAF_AT: u64 = 32 << 30;
const FREE_AT: u64 = 64 << 30;
/// Behind the header.
const FIRST: usize = 64;
/// Where the first name of a directory in its inode would lie in a block: behind `.` and `..`.
const FIRST_SHORT: usize = FIRST + 32;
const TYPES: u8 = 9;

/// A name in a directory.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub inode: u64,
    pub name: &'a [u8],
    pub kind: u8,
    /// Where it begins in its block.
    at: usize,
}

impl Entry<'_> {
    pub(super) fn is_dots(&self) -> bool {
        matches!(self.name, b"." | b"..")
    }

    /// What is wrong with it, if anything.
    fn wrong(&self) -> Option<(String, String)> {
        let is_name = !self.name.is_empty() && !self.name.iter().any(|byte| matches!(byte, 0 | b'/'));
        let found = if is_name {
            format!("type {} of \"{}\"", self.kind, self.name.escape_ascii())
        } else {
            format!("the name \"{}\"", self.name.escape_ascii())
        };
        let expected = if is_name { "less than 9 is wanted" } else { "a name without / and NUL is wanted" };
        (!is_name || self.kind >= TYPES).then(|| (found, expected.to_owned()))
    }
}

/// How many bytes an entry with a name of so many takes in a block.
fn room(name: usize) -> usize {
    name.saturating_add(12).next_multiple_of(8)
}

/// What a directory in its inode begins with: how many entries, and how many bytes a number has.
fn short_head(bytes: &[u8]) -> (usize, usize) {
    let [count, wide] = [0, 1].map(|n| bytes.get(n).copied().unwrap_or(0));
    (usize::from(count), if wide > 0 { 8 } else { 4 })
}

/// The entries in an inode, with their places in it; `..` is the first. What is wrong with them comes at the end.
fn short<'a>(bytes: &'a [u8], each: &mut dyn FnMut(Entry<'a>)) -> std::result::Result<usize, (String, String)> {
    let (count, width) = short_head(bytes);
    let number = |at: usize| if width == 8 { be64(bytes, at) } else { u64::from(be32(bytes, at)) };
    let mut at = 2usize.saturating_add(width);
    each(Entry { inode: number(2), name: b"..", kind: 2, at: 0 });
    for n in 0..count {
        let len = bytes.get(at).map_or(0, |len| usize::from(*len));
        let name_at = at.saturating_add(3);
        let end = name_at.saturating_add(len);
        // The type is behind the name.
        let number_at = end.saturating_add(1);
        let next = number_at.saturating_add(width);
        let (Some(name), true) = (bytes.get(name_at..end), next <= bytes.len()) else {
            return Err((format!("no room for entry {n} of {count}"), format!("the inode has {}", bytes.len())));
        };
        let kind = bytes.get(end).copied().unwrap_or(0);
        each(Entry { inode: number(number_at), name, kind, at: usize::from(be16(bytes, at.saturating_add(1))) });
        at = next;
    }
    Ok(at)
}

/// The entries of a block of names and its free runs, up to what can be neither.
fn entries<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Entry<'a>),
) -> std::result::Result<Vec<(usize, usize)>, (String, String)> {
    let end = if bytes.starts_with(b"XDB3") { hashes::small(bytes).0 } else { bytes.len() };
    let (mut at, mut free) = (FIRST, Vec::new());
    let mut behind_free = false;
    while let Some(rest) = bytes.get(at..end).filter(|rest| rest.len() >= 8) {
        let is_free = rest.starts_with(&[0xff, 0xff]);
        let name = usize::from(rest.get(8).copied().unwrap_or(0));
        let len = if is_free { usize::from(be16(rest, 2)) } else { room(name) };
        let tag = len.checked_sub(2).filter(|at| rest.len() >= at.saturating_add(2)).map(|at| be16(rest, at));
        if tag.map(usize::from) != Some(at) || len < 8 || len % 8 != 0 || is_free && behind_free {
            let found = format!("{} of {len} bytes at byte {at}", if is_free { "a free run" } else { "an entry" });
            return Err((found, format!("its place behind it, up to byte {end}, and one free run at a time")));
        }
        if is_free {
            free.push((at, len));
        } else {
            let name = rest.get(9..9usize.saturating_add(name)).unwrap_or_default();
            let kind = rest.get(9usize.saturating_add(name.len())).copied().unwrap_or(0);
            each(Entry { inode: be64(rest, 0), name, kind, at });
        }
        behind_free = is_free;
        at = at.saturating_add(len);
    }
    if at == end { Ok(free) } else { Err((format!("entries up to byte {at}"), format!("{end} is wanted"))) }
}

/// Names in a directory, with their inodes.
pub(super) fn names(fs: &Fs<'_>, inode: Inode<'_>, each: &mut dyn FnMut(Entry<'_>)) {
    let Some((format, bytes, _)) = inode.fork(Fork::Data) else { return };
    if format == 1 {
        let _ = short(bytes, &mut |entry| each(entry));
        return;
    }
    let pieces = pieces(fs, &inodes::extents(fs, inode));
    for (n, places) in blocks(fs, &pieces) {
        if n >= fs.in_directory(LEAF_AT) || fs.look.is_cancelled() {
            return;
        }
        if let Ok(bytes) = read(fs, places) {
            let _ = entries(&bytes, &mut |entry| each(entry));
        }
    }
}

/// The blocks of the file system that a directory has: their numbers in it, and their places.
fn pieces(fs: &Fs<'_>, extents: &[Extent]) -> Vec<(u64, u64)> {
    let written = extents.iter().filter(|extent| extent.written);
    let each = written.flat_map(|extent| {
        let (group, block) = fs.split(extent.start);
        let place = move |n| (extent.logical.saturating_add(n), fs.place(group, block.saturating_add(n)));
        (0..extent.len).map(place)
    });
    each.take(INSIDE_DIRECTORIES_MAX).collect()
}

/// The same by blocks of the directory, which may have several.
fn blocks<'a>(fs: &Fs<'_>, pieces: &'a [(u64, u64)]) -> impl Iterator<Item = (u64, &'a [(u64, u64)])> {
    let step = fs.directory_step();
    let number = move |piece: &(u64, u64)| piece.0.checked_div(step).unwrap_or(0);
    pieces.chunk_by(move |a, b| number(a) == number(b)).map(move |all| (all.first().map_or(0, number), all))
}

fn read(fs: &Fs<'_>, places: &[(u64, u64)]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for run in places.chunk_by(|a, b| a.1.checked_add(fs.block) == Some(b.1)) {
        let place = run.first().map_or(0, |(_, place)| *place);
        let len = to_usize(to_u64(run.len()).saturating_mul(fs.block))?;
        bytes.extend(fs.look.read(place, len)?);
    }
    Ok(bytes)
}

/// Checks a directory whose inode is one. Says which findings are of it.
pub(super) fn check(fs: &Fs<'_>, walker: &mut Walker<'_>, inode: Inode<'_>, hits: &mut Vec<(usize, u64)>) {
    let mut dir = Dir { fs, walker, inode, hits };
    match inode.fork(Fork::Data) {
        Some((1, bytes, _)) => dir.short(bytes),
        Some((2 | 3, ..)) => dir.long(),
        _ => {
            let says = ("another format of a directory".to_owned(), "1, 2 or 3 is wanted".to_owned());
            dir.find("contents.xfs.directory", (format!("directory {}", inode.number), inode.place), says);
        }
    }
}

struct Dir<'a, 'b, 'c> {
    fs: &'a Fs<'a>,
    walker: &'b mut Walker<'c>,
    inode: Inode<'a>,
    hits: &'b mut Vec<(usize, u64)>,
}

impl Dir<'_, '_, '_> {
    /// What takes names away from the directory: links are then not counted.
    fn find(&mut self, code: &'static str, place: (String, u64), says: (String, String)) {
        self.walker.is_partial = true;
        self.say(code, place, says);
    }

    fn say(&mut self, code: &'static str, place: (String, u64), says: (String, String)) {
        let nth = self.walker.contents.find_nth(Severity::Error, code, place, says.0, says.1);
        self.hits.extend(nth.map(|n| (n, self.inode.number)));
    }

    fn short(&mut self, bytes: &[u8]) {
        let mut wrong = None;
        let (mut next, mut wide) = (FIRST_SHORT, 0u8);
        let end = short(bytes, &mut |entry| {
            wide = wide.saturating_add(u8::from(entry.inode > u32::MAX.into()));
            if entry.is_dots() && entry.at == 0 {
                return;
            }
            wrong = wrong.take().or_else(|| entry.wrong()).or_else(|| {
                let found = || format!("place {} of \"{}\"", entry.at, entry.name.escape_ascii());
                (entry.at < next).then(|| (found(), format!("{next} or more is wanted")))
            });
            next = entry.at.saturating_add(room(entry.name.len()));
        });
        let size = be64(self.inode.bytes, 56);
        let (count, _) = short_head(bytes);
        let says_wide = bytes.get(1).copied().unwrap_or(0);
        let behind = next.saturating_add(count.saturating_add(3).saturating_mul(8));
        let says = match end {
            Err(says) => says,
            Ok(end) if to_u64(end) != size => (format!("a size of {size}"), format!("its entries take {end}")),
            Ok(_) if wide != says_wide => {
                (format!("{says_wide} numbers of 8 bytes"), format!("{wide} of them want that"))
            }
            Ok(_) if to_u64(behind) > self.fs.directory_block() => {
                (format!("places up to {next}"), "they do not fit into a block".to_owned())
            }
            Ok(_) => match wrong {
                Some(says) => says,
                None => return,
            },
        };
        let place = (format!("directory {}", self.inode.number), self.inode.place.saturating_add(176));
        self.find("contents.xfs.directory", place, says);
    }

    fn long(&mut self) {
        let fs = self.fs;
        let pieces = pieces(fs, &inodes::extents(fs, self.inode));
        if pieces.len() >= INSIDE_DIRECTORIES_MAX {
            self.walker.is_partial = true;
            return self.walker.contents.note("xfs: not all blocks of very large directories were gone into");
        }
        let mut tree = hashes::Tree::new(fs, LEAF_AT);
        let mut is_whole = true;
        let is_only = to_u64(pieces.len()) <= fs.directory_step();
        for (n, places) in blocks(fs, &pieces) {
            if fs.look.is_cancelled() {
                return;
            }
            match self.block(n, places, is_only, &mut tree) {
                Some(()) => {}
                None => is_whole = false,
            }
        }
        if !is_whole {
            self.walker.is_partial = true;
            return;
        }
        let says = tree.judge(|address| {
            let number = address.checked_div(fs.directory_block())?;
            let first = number.checked_mul(fs.directory_step())?;
            let start = pieces.partition_point(|(logical, _)| *logical < first);
            let (_, places) = blocks(fs, pieces.get(start..)?).next()?;
            let bytes = read(fs, places).ok()?;
            let within = address.checked_rem(fs.directory_block())?;
            let entry = bytes.get(at_most(within, bytes.len())..)?;
            let len = usize::from(*entry.get(8)?);
            let piece = places.get(at_most(within.checked_div(fs.block)?, places.len()))?;
            let place = piece.1.checked_add(within.checked_rem(fs.block)?)?;
            Some((place, entry.get(9..len.checked_add(9)?)?.to_vec()))
        });
        let number = self.inode.number;
        for (code, (what, place), says) in says {
            let place = if place == 0 { self.inode.place } else { place };
            self.say(code, (format!("{what} of directory {number}"), place), says);
        }
    }

    /// Reads a block and takes what it has into the tree; nothing where it is no sound one.
    fn block(&mut self, n: u64, places: &[(u64, u64)], is_only: bool, tree: &mut hashes::Tree) -> Option<()> {
        let fs = self.fs;
        let place = places.first().map_or(0, |(_, place)| *place);
        let logical = n.saturating_mul(fs.directory_step());
        let structure = (format!("block {logical} of directory {}", self.inode.number), place);
        let bytes = match read(fs, places) {
            Ok(bytes) => bytes,
            Err(e) => {
                self.walker.contents.unread(fs.look, structure, fs.directory_block(), &e);
                return None;
            }
        };
        let shape: &Shape = match n {
            0 if is_only => &SMALL,
            n if n < fs.in_directory(LEAF_AT) => &DIRECTORY,
            n if n < fs.in_directory(FREE_AT) => &NAMES,
            _ => &ROOM,
        };
        let short = to_u64(bytes.len()) != fs.directory_block();
        let short =
            short.then(|| (format!("{} bytes of it", bytes.len()), format!("{} are wanted", fs.directory_block())));
        if let Some(says) = short.or_else(|| fs.wrong(shape, place, self.inode.number, &bytes)) {
            self.find(shape.code, structure, says);
            return None;
        }
        self.walker.verified = self.walker.verified.saturating_add(to_u64(bytes.len()));
        if n >= fs.in_directory(LEAF_AT) {
            let base = if n < fs.in_directory(FREE_AT) { LEAF_AT } else { FREE_AT };
            let block = Block { place, number: n.saturating_sub(fs.in_directory(base)), logical };
            let says = if base == LEAF_AT { tree.leaf(block, &bytes) } else { tree.free(block, &bytes) };
            return says.err().map_or(Some(()), |says| {
                self.say("contents.xfs.directory-tree", structure, says);
                None
            });
        }
        let mut wrong = None;
        let (mut has_self, mut has_above) = (false, false);
        let free = entries(&bytes, &mut |entry| {
            wrong = wrong.take().or_else(|| entry.wrong());
            has_self |= entry.name == b"." && entry.inode == self.inode.number;
            has_above |= entry.name == b"..";
            tree.name(entry.name, n.saturating_mul(fs.directory_block()).saturating_add(to_u64(entry.at)));
        });
        let free = match free {
            Ok(free) => free,
            Err(says) => {
                self.find("contents.xfs.directory", structure, says);
                return None;
            }
        };
        let dots = (n == 0 && !(has_self && has_above))
            .then(|| ("no names of itself and of the one above".to_owned(), "they are wanted".to_owned()));
        let says = wrong.or(dots).or_else(|| largest(&bytes, &free));
        if is_only && let Err(says) = tree.only(place, &bytes) {
            self.say("contents.xfs.directory-tree", structure.clone(), says);
        }
        tree.room(n, be16(&bytes, 50));
        if let Some(says) = says {
            self.say("contents.xfs.directory", structure, says);
        }
        Some(())
    }
}

/// Compares the three largest free runs with those that a block says.
fn largest(bytes: &[u8], free: &[(usize, usize)]) -> Option<(String, String)> {
    let mut lens: Vec<usize> = free.iter().map(|(_, len)| *len).collect();
    lens.sort_unstable_by(|a, b| b.cmp(a));
    lens.resize(lens.len().max(3), 0);
    let says =
        [48usize, 52, 56].map(|at| (usize::from(be16(bytes, at)), usize::from(be16(bytes, at.saturating_add(2)))));
    let are_there = says.iter().all(|run| *run == (0, 0) || free.contains(run));
    let same = says.iter().map(|(_, len)| *len).eq(lens.iter().take(3).copied());
    (!same || !are_there).then(|| {
        let says: Vec<_> = says.iter().map(|(at, len)| format!("{len} at {at}")).collect();
        (
            format!("the largest free runs {}", says.join(", ")),
            format!("those of {:?} bytes", lens.get(..3).unwrap_or(&lens)),
        )
    })
}
