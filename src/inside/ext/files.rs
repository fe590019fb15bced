//! ext: inodes by their numbers, names in directories, and where a file's bytes lie, for the reader of files.
//!
//! | bytes in an inode | field | bytes of an attribute in it | field |
//! |---|---|---|---|
//! | 0x02, 0x78 | i_uid, low and high | 0, 1 | e_name_len, e_name_index |
//! | 0x18, 0x7a | i_gid, low and high | 2, 4 | e_value_offs, e_value_inum |
//! | 0x10, 0x88 | i_mtime, and its nanoseconds and epoch | 8 | e_value_size |
//! | 0x80 | i_extra_isize | 16 | e_name |
//!
//! Attributes begin behind the inode's own fields, with the magic 0xea020000; `system.data` has what of a small file or
//! directory does not fit into i_block's 60 bytes. The source is Linux's `fs/ext4/inline.c` and `xattr.h`.

use std::sync::Arc;

use super::attributes::{self, Attribute, Value};
use super::dirs::{self, DirBlock};
use super::map::{EXTENTS, Fault, Fs, INLINE_DATA, Inode, ROOT, Run, Visitor, walk};
use super::{INCOMPAT_RECOVER, SUPERBLOCK_AT, Superblock, find_backup, replayed};
use crate::error::{Error, Result};
use crate::inside::look::{Look, Metered, le16, le32};
use crate::io::ReadAt;
use crate::limits::{READER_EXTENTS_MAX, READER_LINK_MAX, READER_XATTRS_MAX};
use crate::num::{at_most, to_u64, to_usize};

/// What does not change where files lie, or is seen to here: file types, groups of descriptors, extents, 64 bits, protection
/// against mounting twice, flexible groups, attributes in inodes, a seed of checksums, large directories, data in inodes,
/// encrypted directories (which are refused one by one), and names that are folded.
const INCOMPAT_KNOWN: u32 =
    0x2 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x1_0000 | 0x2_0000;
const ENCRYPTED: u32 = 0x800;
const INDEXED: u32 = 0x1000;
const XATTR_MAGIC: u32 = 0xea02_0000;
/// `system.`, and the name behind it.
const DATA: (u8, &[u8]) = (7, b"data");

/// An ext whose journal is replayed.
pub(crate) struct Files {
    disk: Arc<Metered>,
    superblock: Superblock,
}

/// An inode.
pub(crate) struct Node {
    pub number: u32,
    bytes: Vec<u8>,
    place: u64,
}

/// Where a file's bytes lie.
pub(crate) struct Data(Place);

/// Bytes of a file that lie together, and those of small files that lie in their inodes.
enum Place {
    Runs(Vec<Run>),
    Inline(Vec<u8>),
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::corrupt("reader.ext", what.into())
}

impl Node {
    fn inode(&self) -> Inode<'_> {
        Inode { number: self.number, bytes: &self.bytes, place: self.place }
    }

    /// Its mode, with the type.
    pub(crate) fn mode(&self) -> u32 {
        u32::from(le16(&self.bytes, 0))
    }

    pub(crate) fn size(&self) -> u64 {
        self.inode().size()
    }

    pub(crate) fn links(&self) -> u32 {
        u32::from(self.inode().links())
    }

    pub(crate) fn owner(&self) -> (u32, u32) {
        let wide = |low, high| u32::from(le16(&self.bytes, high)) << 16 | u32::from(le16(&self.bytes, low));
        (wide(0x02, 0x78), wide(0x18, 0x7a))
    }

    /// When it was last changed: seconds since 1970, and nanoseconds.
    pub(crate) fn modified(&self) -> (i64, u32) {
        let seconds = i64::from(le32(&self.bytes, 0x10).cast_signed());
        let has_more = self.bytes.len() > 128 && le16(&self.bytes, 0x80) >= 12;
        let more = if has_more { le32(&self.bytes, 0x88) } else { 0 };
        // Two bits more of the seconds, which then reach 2446.
        (seconds.saturating_add(i64::from(more & 3) << 32), more >> 2)
    }

    fn is_inline(&self) -> bool {
        self.inode().flags() & INLINE_DATA != 0
    }

    /// What lies in the inode: i_block, and what its attribute has.
    fn inline(&self) -> Vec<u8> {
        let mut data = self.bytes.get(0x28..0x64).unwrap_or_default().to_vec();
        data.extend_from_slice(self.attribute(DATA).unwrap_or_default());
        data
    }

    /// The attributes within the inode.
    fn attributes(&self) -> impl Iterator<Item = Attribute<'_>> {
        let start = usize::from(le16(&self.bytes, 0x80)).saturating_add(128);
        let has_some = self.bytes.len() > 128 && le32(&self.bytes, start) == XATTR_MAGIC;
        let first = if has_some { start.saturating_add(4) } else { self.bytes.len() };
        attributes::all(&self.bytes, first, first)
    }

    /// The value of an attribute within the inode.
    fn attribute(&self, (index, name): (u8, &[u8])) -> Option<&[u8]> {
        let found = self.attributes().find(|attribute| attribute.index == index && attribute.name == name)?;
        if let Value::Here(value) = found.value { Some(value) } else { None }
    }
}

impl Files {
    /// Opens the file system on a disk.
    pub(crate) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let (mut disk, mut superblock) = Self::superblock(disk)?;
        if superblock.has_incompat(INCOMPAT_RECOVER) {
            (disk, superblock) = Self::superblock(replayed(disk)?)?;
        }
        let unknown = superblock.s_feature_incompat.get() & !INCOMPAT_KNOWN;
        if unknown != 0 {
            let message = format!("found the features {unknown:#x}, which its reader does not know");
            return Err(Error::unsupported("reader.ext", message));
        }
        let files = Self { disk, superblock };
        files.with(|_| Ok(()))?;
        Ok(files)
    }

    fn superblock(disk: Arc<dyn ReadAt>) -> Result<(Arc<Metered>, Superblock)> {
        let disk = Metered::unmetered(disk);
        let look = Look::new(&disk);
        let first = Superblock::read(&look, SUPERBLOCK_AT).filter(Superblock::is_proved);
        let found = first.or_else(|| find_backup(&look).map(|(_, backup)| backup));
        let superblock = found.ok_or_else(|| corrupt("found no sane superblock"))?;
        Ok((disk, superblock))
    }

    fn with<T>(&self, work: impl FnOnce(&Fs<'_>) -> Result<T>) -> Result<T> {
        let look = Look::new(&self.disk);
        let fs = Fs::new(&look, &self.superblock).ok_or_else(|| corrupt("found descriptors of an odd size"))?;
        work(&fs)
    }

    /// How many inodes there are.
    pub(crate) fn inodes(&self) -> u32 {
        self.superblock.s_inodes_count.get()
    }

    pub(crate) fn root(&self) -> u32 {
        ROOT
    }

    /// An inode by its number.
    pub(crate) fn node(&self, number: u32) -> Result<Node> {
        self.with(|fs| {
            let damaged = || corrupt(format!("inode {number} is beyond the last, or its group is damaged"));
            let (bytes, place) = fs.inode(number)?.ok_or_else(damaged)?;
            let node = Node { number, bytes, place };
            if fs.has_csum {
                let (stored, right) = node.inode().checksums(fs);
                if stored != right {
                    let message =
                        format!("found the checksum {stored:#010x} of inode {number}; {right:#010x} is right");
                    return Err(corrupt(message).at(place));
                }
            }
            if node.inode().links() == 0 && node.inode().dtime() != 0 {
                return Err(corrupt(format!("inode {number} was deleted, and a name leads to it")).at(place));
            }
            Ok(node)
        })
    }

    /// Gives `take` the names in a directory and the inodes that they lead to, but for `.` and `..`.
    pub(crate) fn entries(&self, dir: &Node, take: &mut dyn FnMut(&[u8], u32) -> Result<()>) -> Result<()> {
        let is_sound = |name: &[u8]| name != b"." && name != b"..";
        if dir.inode().flags() & ENCRYPTED != 0 {
            return Err(Error::unsupported("reader.ext", "found a directory that the file system encrypts"));
        }
        let wrong = |(_, at, found, expected): dirs::Wrong, place: u64| {
            Err(corrupt(format!("found {found}; {expected}")).at(place.saturating_add(at)))
        };
        let size = dir.size();
        self.with(|fs| match self.data(dir)?.0 {
            Place::Inline(bytes) => {
                // The number of the directory above, entries up to the end of i_block, and entries of the attribute.
                let (head, rest) = bytes.split_at(bytes.len().min(60));
                for part in [head.get(4..).unwrap_or_default(), rest] {
                    let (entries, fault) = dirs::entries(fs, part, part.len());
                    for entry in entries.iter().filter(|entry| is_sound(entry.name)) {
                        take(entry.name, entry.inode)?;
                    }
                    if let Some(fault) = fault {
                        return wrong(fault, dir.place);
                    }
                }
                Ok(())
            }
            Place::Runs(runs) => {
                let blocks = size.div_ceil(fs.block);
                for run in &runs {
                    for n in 0..run.len {
                        let (logical, block) = (run.logical.saturating_add(n), run.start.saturating_add(n));
                        if logical >= blocks {
                            break;
                        }
                        let block = DirBlock {
                            block,
                            inode: dir.number,
                            generation: dir.inode().generation(),
                            logical: u32::try_from(logical).unwrap_or(u32::MAX),
                            is_indexed: dir.inode().flags() & INDEXED != 0,
                            is_encrypted: false,
                        };
                        let bytes = dirs::read(fs, block)?;
                        let (entries, fault, _) = dirs::check(fs, block, &bytes, blocks);
                        for entry in entries.iter().filter(|entry| is_sound(entry.name)) {
                            take(entry.name, entry.inode)?;
                        }
                        if let Some(fault) = fault {
                            return wrong(fault, fs.place(block.block));
                        }
                    }
                }
                Ok(())
            }
        })
    }

    /// Where a file's bytes lie; what no run has is zeroes.
    pub(crate) fn data(&self, node: &Node) -> Result<Data> {
        if node.is_inline() {
            return Ok(Data(Place::Inline(node.inline())));
        }
        self.with(|fs| {
            let mut gathered = Gathered::default();
            walk(fs, node.inode(), &mut gathered);
            if let Some(e) = gathered.failed {
                return Err(e);
            }
            gathered.runs.sort_by_key(|run| run.logical);
            Ok(Data(Place::Runs(gathered.runs)))
        })
    }

    /// Fills `buf` with bytes of a file from `offset` on, and says how many there were.
    pub(crate) fn read(&self, node: &Node, data: &Data, offset: u64, buf: &mut [u8]) -> Result<usize> {
        if node.inode().flags() & ENCRYPTED != 0 {
            return Err(Error::unsupported("reader.ext", "found a file that the file system encrypts"));
        }
        let len = at_most(node.size().saturating_sub(offset), buf.len());
        let buf = &mut buf[..len];
        buf.fill(0);
        let end = offset.saturating_add(to_u64(len));
        let runs = match &data.0 {
            Place::Inline(bytes) => {
                let there = bytes.get(at_most(offset, bytes.len())..).unwrap_or_default();
                let n = there.len().min(len);
                buf[..n].copy_from_slice(&there[..n]);
                return Ok(len);
            }
            Place::Runs(runs) => runs,
        };
        let block = self.superblock.block_size();
        let behind = |run: &Run| run.logical.saturating_add(run.len).saturating_mul(block);
        let first = runs.partition_point(|run| behind(run) <= offset);
        for run in runs.iter().skip(first).take_while(|run| run.logical.saturating_mul(block) < end) {
            let start = run.logical.saturating_mul(block).max(offset);
            let stop = behind(run).min(end);
            if !run.written || stop <= start {
                continue;
            }
            let skip = start.saturating_sub(run.logical.saturating_mul(block));
            let place = run.start.saturating_mul(block).saturating_add(skip);
            let (from, to) = (at_most(start.saturating_sub(offset), len), at_most(stop.saturating_sub(offset), len));
            self.disk.read_exact_at(&mut buf[from..to], place)?;
        }
        Ok(len)
    }

    /// The extended attributes of a file: names with what they begin with, and values.
    pub(crate) fn xattrs(&self, node: &Node) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        let mut left = READER_XATTRS_MAX;
        for attribute in node.attributes() {
            self.put(&attribute, &mut all, &mut left)?;
        }
        let block = node.inode().attributes();
        if block == 0 {
            return Ok(all);
        }
        let bytes = self.with(|fs| {
            let place = fs.place(block);
            if !fs.holds(block, 1) {
                return Err(corrupt(format!("found attributes in block {block} of {}", fs.blocks)).at(node.place));
            }
            let bytes = fs.read(block)?;
            if le32(&bytes, 0) != XATTR_MAGIC || le32(&bytes, 8) != 1 {
                return Err(corrupt("found no attributes where an inode has them").at(place));
            }
            let (stored, right) = attributes::checksums(fs, block, &bytes);
            if fs.has_csum && stored != right {
                let message = format!("found the checksum {stored:#010x} of attributes; {right:#010x} is right");
                return Err(corrupt(message).at(place));
            }
            Ok(bytes)
        })?;
        for attribute in attributes::all(&bytes, 32, 0) {
            self.put(&attribute, &mut all, &mut left)?;
        }
        Ok(all)
    }

    /// Adds an attribute, unless it is what has a part of a small file.
    fn put(&self, attribute: &Attribute<'_>, all: &mut Vec<(Vec<u8>, Vec<u8>)>, left: &mut usize) -> Result<()> {
        let Attribute { index, name, value } = attribute;
        let start: &[u8] = match index {
            0 => b"",
            1 => b"user.",
            2 => b"system.posix_acl_access",
            3 => b"system.posix_acl_default",
            4 => b"trusted.",
            6 => b"security.",
            7 => b"system.",
            5 => b"lustre.",
            8 => b"system.richacl",
            10 => b"gnu.",
            // What says how a file is encrypted is no attribute to the kernel, either.
            9 => return Ok(()),
            _ => return Err(Error::unsupported("reader.xattr", format!("found attributes of the kind {index}"))),
        };
        if (*index, *name) == DATA {
            return Ok(());
        }
        let len = match value {
            Value::Here(value) => <[u8]>::len(value),
            Value::Inode(_, len) => to_usize(u64::from(*len))?,
        };
        let room = left.checked_sub(len.saturating_add(<[u8]>::len(name)).saturating_add(16));
        *left = room.ok_or_else(|| {
            let message = format!("found a file with more than {READER_XATTRS_MAX} bytes of attributes");
            Error::limit("reader.xattr", message)
        })?;
        let value = match value {
            Value::Here(value) => value.to_vec(),
            Value::Inode(_, 0) => Vec::new(),
            Value::Inode(number, _) => {
                let node = self.node(*number)?;
                let mut bytes = vec![0; len];
                let read = self.read(&node, &self.data(&node)?, 0, &mut bytes)?;
                bytes.truncate(read);
                bytes
            }
        };
        all.push(([start, name].concat(), value));
        Ok(())
    }

    /// Where a link leads.
    pub(crate) fn link(&self, node: &Node) -> Result<Vec<u8>> {
        if node.inode().flags() & ENCRYPTED != 0 {
            return Err(Error::unsupported("reader.ext", "found a link that the file system encrypts"));
        }
        let len = at_most(node.size(), READER_LINK_MAX);
        let is_short = node.size() < 60 && node.inode().flags() & (EXTENTS | INLINE_DATA) == 0;
        let mut target = vec![0; len];
        if is_short {
            target.copy_from_slice(node.bytes.get(0x28..).and_then(|map| map.get(..len)).unwrap_or_default());
        } else {
            self.read(node, &self.data(node)?, 0, &mut target)?;
        }
        Ok(target)
    }
}

/// The runs of a file, up to the first fault.
#[derive(Default)]
struct Gathered {
    runs: Vec<Run>,
    failed: Option<Error>,
}

impl Visitor for Gathered {
    fn run(&mut self, run: Run) {
        if self.runs.len() < READER_EXTENTS_MAX {
            self.runs.push(run);
        } else if self.failed.is_none() {
            let message = format!("found a file in more than {READER_EXTENTS_MAX} pieces");
            self.failed = Some(Error::limit("reader.extents", message));
        }
    }

    fn node(&mut self, _: u64) -> bool {
        self.failed.is_none()
    }

    fn proved(&mut self) {}

    fn fault(&mut self, fault: Fault) {
        let Fault { place, found, expected, .. } = fault;
        self.failed.get_or_insert_with(|| corrupt(format!("found {found}; {expected}")).at(place));
    }

    fn unread(&mut self, _: u64, e: &Error) {
        let again = || Error::new(e.kind(), e.message().to_owned()).with_rule(e.rule().to_owned());
        self.failed.get_or_insert_with(again);
    }
}
