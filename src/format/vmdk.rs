//! VMDK images (VMware's Virtual Disk Format 5.0): monolithicSparse and streamOptimized in one file, and descriptors of
//! several. All numbers are little-endian, and places and sizes are counted in sectors of 512 bytes.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..4 | magic `KDMV` | 44..48 | numGTEsPerGT: entries of a grain table |
//! | 4..8 | version, 1 to 3 | 48..56 | rgdOffset: of the spare grain directory |
//! | 8..12 | flags | 56..64 | gdOffset: of the grain directory |
//! | 12..20 | capacity | 64..72 | overHead |
//! | 20..28 | grainSize | 72 | uncleanShutdown |
//! | 28..36, 36..44 | descriptorOffset, descriptorSize | 73..77 | `\n`, space, `\r`, `\n` |
//! | | | 77..79 | compressAlgorithm: 0, or 1 for zlib |
//!
//! An entry of the grain directory points to a grain table, an entry of that to a grain. A streamOptimized image is
//! written front to back: its real header, which knows where the directory is, comes again as a footer, 1024 bytes
//! before the end, and each grain has its sector and packed length before it.
//!
//! The extents of the split kinds are such files of their own, or flat ones; a text file, the [`descriptor`], says in which
//! order. A snapshot has in its grains what was changed on top of its parent, the VMDK whose CID is its `parentCID`.
//!
//! This reader is our own, not the crate imago (0.2.6): of VMDK that one reads flat extents alone, and opens whatever
//! they are called.
//!
//! # Security
//! A descriptor can name other files, as extents or as the parent. A parent is never opened; for extents see
//! [`extent_files`].

mod descriptor;

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::below::Below;
use super::cache::Pages;
use super::fields;
use super::joined::{Joined, Zeroes};
use super::map::{Layout, Mapped, Place, Run};
use super::parent::{Kin, Wanted};
use super::unpack::{Packing, unpack};
use super::{Format, Set, VMDK_DESCRIPTOR};
use crate::error::{Error, Hint, Result, counted, escape};
use crate::io::{Peek, ReadAt, Window};
use crate::limits::CONTAINER_UNIT_MAX;
use crate::num;
use descriptor::{Descriptor, Extent, Store, WHY};
pub(super) use descriptor::{descriptor_of, extent_files};

const SECTOR: u64 = 512;
const FLAG_SPARE: u32 = 1 << 1;
const FLAG_ZEROED_GRAINS: u32 = 1 << 2;
const FLAG_COMPRESSED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
/// gdOffset of a header whose directory is known to the footer alone.
const GD_AT_END: u64 = u64::MAX;
/// With [`FLAG_ZEROED_GRAINS`]: the grain reads as zeroes.
const GRAIN_ZEROED: u32 = 1;
const COMPRESSION_ZLIB: u16 = 1;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: U32,
    flags: U32,
    capacity: U64,
    grain_size: U64,
    descriptor_offset: U64,
    descriptor_size: U64,
    num_gtes_per_gt: U32,
    rgd_offset: U64,
    gd_offset: U64,
    over_head: U64,
    unclean_shutdown: u8,
    line_ends: [u8; 4],
    compress_algorithm: U16,
    pad: [u8; 433],
}
const _: () = assert!(size_of::<Header>() == 512);

impl Header {
    fn read(file: &dyn ReadAt, offset: u64) -> Result<Self> {
        let header: Self = fields::read(file, offset, "vmdk.header", "the VMDK header")?;
        if header.magic != *b"KDMV" {
            return Err(Error::corrupt("vmdk.magic", "no header with VMDK's magic KDMV is there").at(offset));
        }
        if header.line_ends != *b"\n \r\n" {
            return Err(Error::corrupt(
                "vmdk.header",
                "its line end bytes are changed: the file was transferred as text, and is damaged",
            )
            .at(offset.saturating_add(73)));
        }
        Ok(header)
    }
}

/// Gives the disk whose extents lie in the files behind the descriptor.
pub(super) fn open_descriptor(file: &dyn ReadAt, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let descriptor = Descriptor::read(file, 0, file.len())?;
    let names = descriptor.files()?;
    if kin.options.set != Set::Extents || kin.options.segments.len() != names.len() {
        return Err(descriptor.refuse());
    }
    let below = parent(&descriptor, kin, notes)?;
    let file_of = |name: &str| {
        let files = names.iter().zip(&kin.options.segments);
        files.filter(|(own, _)| **own == name).map(|(_, file)| Arc::clone(file)).next()
    };
    let (mut parts, mut start) = (Vec::new(), 0u64);
    for extent in &descriptor.extents {
        let size = extent.size()?;
        let named = |e: Error| e.within(format_args!("extent {}", escape(&extent.name)));
        let none = || Error::corrupt("vmdk.extents", "no file was given for it");
        let part: Arc<dyn ReadAt> = match extent.store()? {
            Store::Zeroes => Arc::new(Zeroes(size)),
            Store::Flat { offset } => {
                let file = file_of(&extent.name).ok_or_else(|| named(none()))?;
                let (len, end) = (file.len(), offset.checked_add(size));
                if end.is_none_or(|end| end > len) {
                    let message =
                        format!("its {size} bytes from byte {offset} on do not fit the file, which has {len}");
                    let e = Error::corrupt("container.truncated", message);
                    return Err(named(e.with_hint("the image file is cut off or damaged: fetch it again")));
                }
                Arc::new(Window::new(file, offset, Some(size))?)
            }
            Store::Sparse => {
                let file = file_of(&extent.name).ok_or_else(|| named(none()))?;
                let below = below.as_ref().map(|below| below.from(start));
                let disk = open_sparse(file, names.len(), below, notes).map_err(named)?;
                if disk.size != size {
                    let found = format!("found {} bytes; the descriptor has {size}", disk.size);
                    return Err(named(Error::corrupt("vmdk.capacity", found).at(12)));
                }
                Arc::new(Mapped::new(disk))
            }
        };
        start = start.checked_add(size).ok_or_else(|| Error::corrupt("vmdk.extents", "their sizes overflow"))?;
        parts.push(part);
    }
    let held = names.len();
    notes.push(format!(
        "vmdk: a descriptor of {} in {}",
        counted(descriptor.extents.len(), "extent"),
        counted(held, "file")
    ));
    Ok(Arc::new(Joined::new(parts)?))
}

/// Reads the header and the embedded descriptor, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let descriptor = embedded(&file, &Header::read(&file, 0)?)?;
    // An extent of a split disk has no descriptor, or an empty one.
    if descriptor.extents.is_empty() {
        let message =
            format!("this is one extent of a disk that is split into several files, which are not followed; {WHY}");
        return Err(Error::unsupported("vmdk.descriptor", message)
            .at(28)
            .with_hint("give the descriptor, the small text file, which has to lie beside all extents"));
    }
    // The one extent is this file, whatever name it had when it was made.
    if !matches!(descriptor.extents.as_slice(), [Extent { kind, .. }] if kind == "SPARSE") {
        let message = format!("the disk's bytes lie in {}, which is not followed; {WHY}", descriptor.names());
        return Err(Error::unsupported("vmdk.extents", message));
    }
    let below = parent(&descriptor, kin, notes)?;
    Ok(Arc::new(Mapped::new(open_sparse(file, 1, below, notes)?)))
}

/// The parent's disk, where the descriptor wants one.
fn parent(descriptor: &Descriptor, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Option<Below>> {
    let Some(parent) = &descriptor.parent else { return Ok(None) };
    let found = match descriptor.parent_cid {
        Some(wanted) => {
            let by = |file: &Arc<dyn ReadAt>| cid(file) == Some(wanted);
            kin.parent(&Wanted::Proven { format: Format::Vmdk, by: &by }, notes)?
        }
        None => None,
    };
    found.map(Some).ok_or_else(|| {
        let cid = descriptor.parent_cid.map(|cid| format!(" with the parent CID {cid:08x}")).unwrap_or_default();
        let parent = escape(parent);
        let message = format!("this is a snapshot{cid} on top of {parent}, which is not followed; {WHY}");
        Error::unsupported("vmdk.parent", message).with_hint(Hint::NameParent)
    })
}

/// Checks the header of one of `files` sparse files, and reads the place of its directory.
fn open_sparse(file: Arc<dyn ReadAt>, files: usize, below: Option<Below>, notes: &mut Vec<String>) -> Result<Sparse> {
    let first = Header::read(&file, 0)?;
    let (header, at) = match first.gd_offset.get() {
        GD_AT_END => {
            let at = file.len().checked_sub(2 * SECTOR).ok_or_else(|| {
                Error::corrupt("vmdk.footer", format!("the file ends at byte {}, before its footer", file.len()))
            })?;
            let footer = Header::read(&file, at).map_err(|e| {
                e.within("the stream's footer").with_hint("the image file is cut off or damaged: fetch it again")
            })?;
            (footer, at)
        }
        _ => (first, 0),
    };
    if header.unclean_shutdown != 0 {
        notes.push("vmdk: the image was not closed cleanly".into());
    }
    let disk = Sparse::new(Pages::of_several(Arc::clone(&file), files), file, &header, at)?.over(below);
    if let (Err(e), Some(_)) = (disk.check_directory(), disk.spare) {
        notes.push(format!(
            "vmdk: the grain directory cannot be read, so the spare one is used where it has to be: {e}"
        ));
    }
    Ok(disk)
}

/// The descriptor in a sparse file; an empty one where it has none.
fn embedded(file: &dyn ReadAt, header: &Header) -> Result<Descriptor> {
    let sectors = |n: U64| n.get().checked_mul(SECTOR);
    let (Some(offset), Some(size)) = (sectors(header.descriptor_offset), sectors(header.descriptor_size)) else {
        return Err(Error::corrupt("vmdk.descriptor", "its place or its size overflows").at(28));
    };
    if offset == 0 { Ok(Descriptor::parse("")) } else { Descriptor::read(file, offset, size) }
}

/// The CID of a VMDK, by which the images on top of it know it; `None` for any other file.
pub(super) fn cid(file: &dyn ReadAt) -> Option<u32> {
    let look = Peek::new(file);
    let descriptor = if look.has(VMDK_DESCRIPTOR, 0) {
        Descriptor::read(file, 0, file.len())
    } else if look.has(b"KDMV", 0) {
        Header::read(file, 0).and_then(|header| embedded(file, &header))
    } else {
        return None;
    };
    descriptor.ok()?.cid
}

struct Sparse {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    grain: u64,
    grains_per_table: u64,
    directory: u64,
    /// A second grain directory, with grain tables of its own.
    spare: Option<u64>,
    zeroed_grains: bool,
    compressed: bool,
    markers: bool,
    below: Option<Below>,
}

impl Sparse {
    /// Checks the header that lies at `at`.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a grain is at most 2^30 bytes, and a table has at most 2^9 of them"
    )]
    fn new(pages: Pages, file: Arc<dyn ReadAt>, header: &Header, at: u64) -> Result<Self> {
        let flags = header.flags.get();
        if !(1..=3).contains(&header.version.get()) {
            let found = format!("found {}; 1 to 3 are read", header.version.get());
            return Err(Error::unsupported("vmdk.version", found).at(at.saturating_add(4)));
        }
        let compressed = flags & FLAG_COMPRESSED != 0;
        if compressed && header.compress_algorithm.get() != COMPRESSION_ZLIB {
            let found = format!("found {}; 1 (zlib) is read", header.compress_algorithm.get());
            return Err(Error::unsupported("vmdk.compress_algorithm", found).at(at.saturating_add(77)));
        }
        let grain = header.grain_size.get().checked_mul(SECTOR).filter(|grain| grain.is_power_of_two());
        let grain = grain.filter(|grain| *grain <= 1 << 30).ok_or_else(|| {
            let found = format!("found {}; a power of two up to 2097152 is allowed", header.grain_size.get());
            Error::corrupt("vmdk.grain_size", found).at(at.saturating_add(20))
        })?;
        if compressed && grain > CONTAINER_UNIT_MAX {
            let found = format!("found {grain} bytes; {CONTAINER_UNIT_MAX} are allowed where grains are compressed");
            return Err(Error::limit("vmdk.grain_size", found).at(at.saturating_add(20)));
        }
        let grains_per_table = u64::from(header.num_gtes_per_gt.get());
        // QEMU's cap; VMware writes 512.
        if !(1..=512).contains(&grains_per_table) {
            let found = format!("found {grains_per_table}; 1 to 512 is allowed");
            return Err(Error::corrupt("vmdk.num_gtes_per_gt", found).at(at.saturating_add(44)));
        }
        let overflow = |what: &str| Error::corrupt("vmdk.header", format!("{what} overflows")).at(at);
        let size = header.capacity.get().checked_mul(SECTOR).ok_or_else(|| overflow("capacity"))?;
        let directory = header.gd_offset.get().checked_mul(SECTOR).ok_or_else(|| overflow("gdOffset"))?;
        // A grain is at most 2^30 bytes and a table has at most 2^9 of them.
        let tables = size.div_ceil(grain * grains_per_table);
        fields::table_within(&file, directory, tables, 4, "vmdk.capacity", "the grain directory")?;
        // A stream has none, and one that does not fit the file is none.
        let spare = header.rgd_offset.get().checked_mul(SECTOR).filter(|at| *at != 0 && flags & FLAG_SPARE != 0);
        let fits = |at: &u64| fields::table_within(&file, *at, tables, 4, "vmdk.rgd", "the spare directory").is_ok();
        Ok(Self {
            spare: spare.filter(fits),
            pages,
            file,
            size,
            grain,
            grains_per_table,
            directory,
            zeroed_grains: flags & FLAG_ZEROED_GRAINS != 0,
            compressed,
            markers: flags & FLAG_MARKERS != 0,
            below: None,
        })
    }

    /// On top of a parent.
    fn over(self, below: Option<Below>) -> Self {
        Self { below, ..self }
    }
}

impl Sparse {
    /// Reads the grain directory once, to know whether it can be read.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the directory lies within the file, and a grain has at most 2^30 bytes"
    )]
    fn check_directory(&self) -> Result<()> {
        let tables = self.size.div_ceil(self.grain * self.grains_per_table);
        let mut buf = [0; 4096];
        let end = self.directory + tables * 4;
        let mut at = self.directory;
        while at < end {
            let len = num::at_most(end - at, buf.len());
            fields::fill(&self.file, &mut buf[..len], at, "vmdk.capacity", "the grain directory")?;
            at += num::to_u64(len);
        }
        Ok(())
    }

    /// The run at `offset`, by the grain directory at `directory`.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the directory lies within the file, and a place in it is 512 times 32 bits"
    )]
    fn run_by(&self, directory: u64, offset: u64, wanted: u64) -> Result<Run> {
        let (grain, skip) = (offset / self.grain, offset % self.grain);
        let (table, index) = (grain / self.grains_per_table, grain % self.grains_per_table);
        let left = self.grains_per_table - index;
        let table = u64::from(u32::from_le_bytes(self.pages.entry(directory + table * 4)?)) * SECTOR;
        if table == 0 {
            return Ok(Run { len: left * self.grain - skip, place: Place::Below });
        }
        fields::table_within(&self.file, table, self.grains_per_table, 4, "vmdk.grain_table", "a grain table")?;
        let mut run: Option<Run> = None;
        self.pages.each::<4>(table + index * 4, left, |entry| {
            let sector = u32::from_le_bytes(entry);
            let place = match sector {
                0 => Place::Below,
                GRAIN_ZEROED if self.zeroed_grains => Place::Zero,
                sector if self.compressed => Place::Packed { unit: u64::from(sector), skip: 0 },
                sector => Place::Stored(u64::from(sector) * SECTOR),
            };
            let run = match &mut run {
                None => run.insert(Run { len: self.grain, place }),
                Some(run) => {
                    let goes_on = match run.place {
                        Place::Zero | Place::Below => place == run.place,
                        Place::Stored(at) => place == Place::Stored(at + run.len),
                        Place::Packed { .. } => false,
                    };
                    if !goes_on {
                        return Ok(false);
                    }
                    run.len += self.grain;
                    run
                }
            };
            Ok(run.len - skip < wanted)
        })?;
        let Some(Run { len, place }) = run else { return Ok(Run { len: 0, place: Place::Zero }) };
        let place = match place {
            Place::Zero | Place::Below => place,
            Place::Stored(at) => Place::Stored(at + skip),
            Place::Packed { unit, .. } => Place::Packed { unit, skip },
        };
        Ok(Run { len: len - skip, place })
    }
}

impl Layout for Sparse {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    fn run_at(&self, offset: u64, wanted: u64) -> Result<Run> {
        let first = self.run_by(self.directory, offset, wanted);
        match (first, self.spare) {
            // Where neither will do, the first one's fault is the one to know.
            (Err(e), Some(spare)) => self.run_by(spare, offset, wanted).map_err(|_| e),
            (first, _) => first,
        }
    }

    /// `unit` is the sector where the grain begins: its marker, a sector number and a length in bytes, and the stream.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a grain is at most 2^30 bytes, and its place is 512 times 32 bits"
    )]
    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        let at = unit * SECTOR;
        let (at, len) = if self.markers {
            (at + 12, u64::from(u32::from_le_bytes(self.pages.entry(at + 8)?)))
        } else {
            (at, (2 * self.grain).min(self.file.len().saturating_sub(at)))
        };
        // A stream that does not shrink its grain is a little longer than it, never twice as long.
        let most = 2 * self.grain + SECTOR;
        if len > most {
            return Err(Error::corrupt(
                "vmdk.grain",
                format!("a packed grain is said to be {len} bytes; {most} are allowed"),
            )
            .at(at));
        }
        let mut packed = vec![0; num::to_usize(len)?];
        fields::fill(&self.file, &mut packed, at, "container.truncated", "a packed grain")?;
        unpack(Packing::Zlib, &packed, self.grain).map_err(|e| e.at(at))
    }

    fn unit_size(&self) -> u64 {
        self.grain
    }
}
