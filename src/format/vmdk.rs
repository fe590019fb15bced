//! VMDK images in one file: monolithicSparse and streamOptimized (VMware's Virtual Disk Format 5.0). All numbers are
//! little-endian, and places and sizes are counted in sectors of 512 bytes.
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
//! This reader is our own, not the crate imago (0.2.6): of VMDK that one reads flat extents alone, which lie in other
//! files, and refuses both of these.
//!
//! # Security
//! A descriptor can name other files, as extents or as the parent. None is opened: see [the module above](super).

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cache::Pages;
use super::fields;
use super::map::{Layout, Mapped, Place, Run};
use super::unpack::{Packing, unpack};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;
use crate::limits::{CONTAINER_UNIT_MAX, VMDK_DESCRIPTOR_MAX};
use crate::num;

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
    fn read(file: &Arc<dyn ReadAt>, offset: u64) -> Result<Self> {
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

/// Refuses a descriptor file, which holds no bytes of the disk but the names of the files that do.
pub(super) fn refuse_descriptor(file: &dyn ReadAt) -> Error {
    let descriptor = match Descriptor::read(file, 0, file.len().min(VMDK_DESCRIPTOR_MAX)) {
        Ok(descriptor) => descriptor,
        Err(e) => return e,
    };
    let hint = match descriptor.extents.as_slice() {
        [Extent { kind, .. }] if kind == "FLAT" || kind == "VMFS" => "give the file it names instead, as a raw one",
        _ => "if you trust the image: qemu-img convert -O raw IMAGE DISK.raw makes one file of them",
    };
    Error::unsupported(
        "vmdk.descriptor",
        format!(
            "this is a VMDK descriptor: the disk's bytes lie in {}, which is not followed; {WHY}",
            descriptor.names()
        ),
    )
    .at(0)
    .with_hint(hint)
}

const WHY: &str = "only the image itself is read: an image can name any file, and its maker would get to see it";

/// Reads the header and the embedded descriptor, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let first = Header::read(&file, 0)?;
    refuse_other_files(&file, &first)?;
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
    let disk = Sparse::new(file, &header, at)?;
    if let (Err(e), Some(_)) = (disk.check_directory(), disk.spare) {
        notes.push(format!(
            "vmdk: the grain directory cannot be read, so the spare one is used where it has to be: {e}"
        ));
    }
    Ok(Arc::new(Mapped::new(disk)))
}

/// Refuses an image whose descriptor says that the disk lies, in part, in other files.
fn refuse_other_files(file: &Arc<dyn ReadAt>, header: &Header) -> Result<()> {
    let sectors = |n: U64| n.get().checked_mul(SECTOR);
    let (Some(offset), Some(size)) = (sectors(header.descriptor_offset), sectors(header.descriptor_size)) else {
        return Err(Error::corrupt("vmdk.descriptor", "its place or its size overflows").at(28));
    };
    if size > VMDK_DESCRIPTOR_MAX {
        let found = format!("found {size} bytes; {VMDK_DESCRIPTOR_MAX} are allowed");
        return Err(Error::limit("vmdk.descriptor", found).at(36));
    }
    // An extent of a split disk has no descriptor, or an empty one.
    let descriptor = match offset {
        0 => Descriptor::parse(""),
        offset => Descriptor::read(file, offset, size)?,
    };
    if descriptor.extents.is_empty() {
        return Err(Error::unsupported(
            "vmdk.descriptor",
            format!("this is one extent of a disk that is split into several files, which are not followed; {WHY}"),
        )
        .at(28)
        .with_hint("if you trust the image: qemu-img convert -O raw IMAGE.vmdk DISK.raw makes one file of them"));
    }
    if let Some(parent) = &descriptor.parent {
        return Err(Error::unsupported(
            "vmdk.parent",
            format!("this is a snapshot on top of {}, which is not followed; {WHY}", escape(parent)),
        )
        .at(offset)
        .with_hint("if you trust the image: qemu-img convert -O raw IMAGE.vmdk DISK.raw makes one file of both"));
    }
    match descriptor.extents.as_slice() {
        // The one extent is this file, whatever name it had when it was made.
        [Extent { kind, .. }] if kind == "SPARSE" => Ok(()),
        _ => Err(Error::unsupported(
            "vmdk.extents",
            format!("the disk's bytes lie in {}, which is not followed; {WHY}", descriptor.names()),
        )
        .at(offset)),
    }
}

/// What a descriptor says of other files.
struct Descriptor {
    extents: Vec<Extent>,
    parent: Option<String>,
}

struct Extent {
    kind: String,
    name: String,
}

impl Descriptor {
    fn read(file: &(impl ReadAt + ?Sized), offset: u64, len: u64) -> Result<Self> {
        let mut bytes = vec![0; num::to_usize(len)?];
        fields::fill(file, &mut bytes, offset, "vmdk.descriptor", "the descriptor")?;
        Ok(Self::parse(&String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default())))
    }

    /// Lines are `name=value`, or `RW|RDONLY|NOACCESS SECTORS KIND "FILE" [OFFSET]` for an extent.
    fn parse(text: &str) -> Self {
        let mut descriptor = Self { extents: Vec::new(), parent: None };
        let mut has_parent = false;
        for line in text.lines().map(str::trim) {
            match line.split_once('=').map(|(name, value)| (name.trim(), value.trim())) {
                Some(("parentCID", cid)) => has_parent = !cid.eq_ignore_ascii_case("ffffffff"),
                Some(("parentFileNameHint", name)) => descriptor.parent = Some(name.trim_matches('"').to_owned()),
                _ => (),
            }
            let mut words = line.split_whitespace();
            if let (Some("RW" | "RDONLY" | "NOACCESS"), Some(_sectors), Some(kind)) =
                (words.next(), words.next(), words.next())
            {
                let name = line.split('"').nth(1).unwrap_or_default().to_owned();
                descriptor.extents.push(Extent { kind: kind.to_owned(), name });
            }
        }
        if has_parent {
            descriptor.parent.get_or_insert_with(|| "a parent that it does not name".into());
        } else {
            descriptor.parent = None;
        }
        descriptor
    }

    /// The extents' names, fit for a message.
    fn names(&self) -> String {
        let names = self.extents.iter().take(3).map(|extent| escape(&extent.name)).collect::<Vec<_>>();
        match self.extents.len() {
            0 => "files that it does not name".into(),
            1..=3 => names.join(", "),
            n => format!("{} and {} more", names.join(", "), n.saturating_sub(3)),
        }
    }
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
}

impl Sparse {
    /// Checks the header that lies at `at`.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a grain is at most 2^30 bytes, and a table has at most 2^9 of them"
    )]
    fn new(file: Arc<dyn ReadAt>, header: &Header, at: u64) -> Result<Self> {
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
            pages: Pages::new(file.clone()),
            file,
            size,
            grain,
            grains_per_table,
            directory,
            zeroed_grains: flags & FLAG_ZEROED_GRAINS != 0,
            compressed,
            markers: flags & FLAG_MARKERS != 0,
        })
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
            return Ok(Run { len: left * self.grain - skip, place: Place::Zero });
        }
        fields::table_within(&self.file, table, self.grains_per_table, 4, "vmdk.grain_table", "a grain table")?;
        let mut run: Option<Run> = None;
        self.pages.each::<4>(table + index * 4, left, |entry| {
            let sector = u32::from_le_bytes(entry);
            let place = match sector {
                0 => Place::Zero,
                GRAIN_ZEROED if self.zeroed_grains => Place::Zero,
                sector if self.compressed => Place::Packed { unit: u64::from(sector), skip: 0 },
                sector => Place::Stored(u64::from(sector) * SECTOR),
            };
            let run = match &mut run {
                None => run.insert(Run { len: self.grain, place }),
                Some(run) => {
                    let goes_on = match run.place {
                        Place::Zero => place == Place::Zero,
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
            Place::Zero => Place::Zero,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_tell_extents_and_parents() {
        let d = Descriptor::parse(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\nRW 8192 FLAT \"/etc/shadow\" 0\n",
        );
        assert_eq!((d.extents.len(), d.names(), d.parent), (1, "/etc/shadow".into(), None));
        let d =
            Descriptor::parse("parentCID=1234abcd\nparentFileNameHint=\"base disk.vmdk\"\nRW 8 SPARSE \"a.vmdk\"\n");
        assert_eq!(d.parent.as_deref(), Some("base disk.vmdk"));
        let d = Descriptor::parse("parentCID=1234abcd\n");
        assert_eq!(d.parent.as_deref(), Some("a parent that it does not name"));
        let split: String = (0..9).map(|n| format!("RW 8 SPARSE \"s{n}.vmdk\"\n")).collect();
        assert_eq!(Descriptor::parse(&split).names(), "s0.vmdk, s1.vmdk, s2.vmdk and 6 more");
    }
}
