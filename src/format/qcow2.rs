//! qcow2 images, versions 2 and 3, read-only (QEMU's docs/interop/qcow2.rst). All numbers are big-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..4 | magic `QFI\xfb` | 48..56 | refcount_table_offset |
//! | 4..8 | version, 2 or 3 | 56..60 | refcount_table_clusters |
//! | 8..16 | backing_file_offset | 60..64 | nb_snapshots |
//! | 16..20 | backing_file_size | 64..72 | snapshots_offset; version 2 ends here |
//! | 20..24 | cluster_bits | 72..80 | incompatible_features |
//! | 24..32 | size | 80..88 | compatible_features |
//! | 32..36 | crypt_method | 88..96 | autoclear_features |
//! | 36..40 | l1_size | 96..100 | refcount_order |
//! | 40..48 | l1_table_offset | 100..104 | header_length |
//! | | | 104 | compression_type, where header_length reaches it |
//!
//! An entry of the L1 table points to an L2 table, a cluster long; an entry of that tells where a guest cluster lies.
//!
//! This reader is our own, not the crate imago (0.2.6), for three reasons: its storage trait has `unsafe` methods, which
//! a crate that forbids `unsafe` cannot implement for its own sources; it unpacks zlib clusters alone, not zstd ones, and
//! has no extended L2 entries; and it passes over `crypt_method`, and so gives ciphertext as the disk.
//!
//! # Security
//! Of the files that an image can name, its backing file and its external data file, none is ever opened: whoever made
//! the image could name any file that the reader may read, and find its bytes in the output. Reading stays within the one
//! file, and every offset is checked against it; a backing file is one that the caller opened. Reference counts are not
//! looked at to read the disk; [`references`] checks them.

mod encrypted;
mod extensions;
mod references;
mod snapshots;

use std::sync::Arc;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use self::encrypted::luks_header;
pub use self::encrypted::{HostMap, Mapping, Qcow2Luks};
use self::extensions::Extensions;
use self::references::References;
pub use self::snapshots::Snapshot;
pub(crate) use self::snapshots::hint as snapshots_hint;
use super::Contents;
use super::below::Below;
use super::cache::Pages;
use super::checks::Bookkeeping;
use super::fields;
use super::map::{Layout, Mapped, Place, Run, run_within, truncated};
use super::parent::Kin;
use super::unpack::{Packing, unpack};
use crate::error::{Error, Result, counted};
use crate::io::ReadAt;
use crate::limits::QCOW2_L1_SIZE_MAX;
use crate::num::{low_u64, to_usize};

const FEATURE_DIRTY: u64 = 1 << 0;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_DATA_FILE: u64 = 1 << 2;
const FEATURE_COMPRESSION: u64 = 1 << 3;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;
const FEATURES_KNOWN: u64 = (1 << 5) - 1;

/// Bits 9 to 55 of a table entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const L2_COMPRESSED: u64 = 1 << 62;
const L2_ZERO: u64 = 1;
/// A cluster has this many subclusters, in images with extended L2 entries.
const SUBCLUSTERS: u64 = 32;
/// What QEMU encrypts at a time, with an IV of its own.
const SECTOR: u64 = 512;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    version: U32,
    backing_file_offset: U64,
    backing_file_size: U32,
    cluster_bits: U32,
    size: U64,
    crypt_method: U32,
    l1_size: U32,
    l1_table_offset: U64,
    refcount_table_offset: U64,
    refcount_table_clusters: U32,
    nb_snapshots: U32,
    snapshots_offset: U64,
}
const _: () = assert!(size_of::<Header>() == 72);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct HeaderV3 {
    incompatible_features: U64,
    compatible_features: U64,
    autoclear_features: U64,
    refcount_order: U32,
    header_length: U32,
}
const _: () = assert!(size_of::<HeaderV3>() == 32);

/// An opened image.
pub(super) struct Opened {
    pub contents: Contents,
    pub snapshots: Vec<Snapshot>,
    /// Its reference counts; `None` where not all that is counted is known.
    pub references: Option<Arc<dyn Bookkeeping>>,
}

/// The tables of a disk's state.
struct Qcow2 {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    version: u32,
    cluster_bits: u32,
    l1_table_offset: u64,
    extended_l2: bool,
    packing: Packing,
    below: Option<Below>,
}

/// Reads the header and its extensions, and gives the disk.
#[expect(clippy::arithmetic_side_effects, reason = "2^22 entries of 2^39 bytes at most")]
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Opened> {
    let header: Header = fields::read(&file, 0, "qcow2.header", "the qcow2 header")?;
    if header.magic != *b"QFI\xfb" {
        return Err(Error::corrupt("qcow2.magic", "the file does not begin with qcow2's magic QFI\\xfb").at(0));
    }
    let version = header.version.get();
    let v3 = match version {
        2 => HeaderV3::new_zeroed(),
        3 => fields::read(&file, 72, "qcow2.header", "the version 3 header")?,
        _ => {
            return Err(Error::unsupported("qcow2.version", format!("found {version}; versions 2 and 3 are read"))
                .at(4)
                .with_hint("qemu-img convert -O raw IMAGE DISK.raw makes an image that can be read"));
        }
    };
    let cluster_bits = header.cluster_bits.get();
    if !(9..=21).contains(&cluster_bits) {
        return Err(Error::corrupt("qcow2.cluster_bits", format!("found {cluster_bits}; 9 to 21 is allowed")).at(20));
    }
    let cluster = 1u64 << cluster_bits;
    let header_length = if version == 2 { 72 } else { u64::from(v3.header_length.get()) };
    if version == 3 && (header_length < 104 || header_length % 8 != 0 || header_length > cluster) {
        return Err(Error::corrupt(
            "qcow2.header_length",
            format!("found {header_length}; a multiple of 8 from 104 to the cluster size {cluster} is allowed"),
        )
        .at(100));
    }
    let pages = Pages::new(file.clone());
    let extensions = Extensions::read(&pages, &header, header_length, cluster, file.len())?;
    extensions.refuse_data_file(&pages, &v3)?;
    let below = extensions.backing_file(&pages, &header, kin, notes)?;

    let features = v3.incompatible_features.get();
    if let unknown @ 1.. = features & !FEATURES_KNOWN {
        let name = extensions.feature_name(&pages, unknown.trailing_zeros()).unwrap_or_default();
        return Err(Error::unsupported(
            "qcow2.incompatible_features",
            format!("bit {}{name} is not known", unknown.trailing_zeros()),
        )
        .at(72)
        .with_hint("qemu-img convert -O raw IMAGE DISK.raw makes an image that can be read"));
    }
    let extended_l2 = features & FEATURE_EXTENDED_L2 != 0;
    if extended_l2 && cluster_bits < 14 {
        return Err(Error::corrupt(
            "qcow2.cluster_bits",
            format!("found {cluster_bits}; with extended L2 entries at least 14 is allowed"),
        )
        .at(20));
    }
    let packing = packing(&pages, features, header_length)?;

    let (snapshots, all_known) = match (snapshots::read(&file, &header), &kin.options.snapshot) {
        (Ok(snapshots), _) => (snapshots, true),
        // They do not matter to the disk's last state.
        (Err(e), None) => {
            notes.push(format!("qcow2: the internal snapshots cannot be told: {e}"));
            (Vec::new(), false)
        }
        (Err(e), Some(_)) => return Err(e),
    };
    let wanted = kin.options.snapshot.as_deref();
    let snapshot = wanted.map(|wanted| snapshots::find(&snapshots, wanted)).transpose()?;
    let State { size, l1_table_offset, l1_size, at: [size_at, l1_size_at, l1_at] } = State::of(&header, snapshot);
    if !l1_table_offset.is_multiple_of(cluster) {
        return Err(Error::corrupt(
            "qcow2.l1_table_offset",
            format!("found {l1_table_offset}; a multiple of the cluster size {cluster} is allowed"),
        )
        .at(l1_at));
    }
    if l1_size * 8 > QCOW2_L1_SIZE_MAX {
        return Err(Error::limit(
            "qcow2.l1_size",
            format!("found {}; {} are allowed", counted(l1_size, "entry"), QCOW2_L1_SIZE_MAX / 8),
        )
        .at(l1_size_at));
    }
    fields::table_within(&file, l1_table_offset, l1_size, 8, "qcow2.l1_size", "the L1 table")?;
    let has_below = below.is_some();
    let references: Option<Arc<dyn Bookkeeping>> = if all_known {
        let state = |l1_table_offset, l1_size, is_read| references::State { l1_table_offset, l1_size, is_read };
        let last = state(header.l1_table_offset.get(), u64::from(header.l1_size.get()), snapshot.is_none());
        let is_read = |s: &Snapshot| snapshot.is_some_and(|read| read.at == s.at);
        let kept = snapshots.iter().map(|s| state(s.l1_table_offset, s.l1_size, is_read(s)));
        let listed = snapshots.last().map(|last| header.snapshots_offset.get()..last.end);
        let crypt_header = extensions.crypt_header.map(|(at, len)| at..at.saturating_add(len));
        Some(Arc::new(References {
            file: file.clone(),
            cluster_bits,
            refcount_order: if version == 2 { 4 } else { v3.refcount_order.get() },
            refcount_table_offset: header.refcount_table_offset.get(),
            refcount_table_clusters: u64::from(header.refcount_table_clusters.get()),
            states: std::iter::once(last).chain(kept).collect(),
            others: listed.into_iter().chain(crypt_header).collect(),
            bitmaps: extensions.bitmaps(&pages, &v3)?,
            extended_l2,
            is_dirty: features & FEATURE_DIRTY != 0,
        }))
    } else {
        None
    };
    let file_of = file.clone();
    let image =
        Qcow2 { file: file_of, pages, size, version, cluster_bits, l1_table_offset, extended_l2, packing, below };
    // The largest L1 table maps 2^22 * 2^18 * 2^21 bytes, so this does not overflow.
    let mapped = l1_size * image.l1_entry_span();
    if size > mapped {
        return Err(Error::corrupt(
            "qcow2.size",
            format!("found {size} bytes; the image's L1 table of {} maps {mapped}", counted(l1_size, "entry")),
        )
        .at(size_at));
    }

    let luks = luks_header(&file, &header, &extensions, size, cluster)?;
    if has_below && luks.is_some() {
        let message =
            "the image encrypts its clusters itself, and lies on top of a backing file: the two are not read together";
        return Err(Error::unsupported("qcow2.backing_file", message).at(8));
    }
    if features & FEATURE_DIRTY != 0 {
        notes.push(
            "qcow2: the image was not closed cleanly; its reference counts may be wrong, and reading wants none".into(),
        );
    }
    // QEMU opens such an image for reading, too.
    if features & FEATURE_CORRUPT != 0 {
        notes.push(
            "qcow2: the image is marked corrupt: QEMU found its tables damaged, and parts of the disk may be wrong; \
             qemu-img check tells more"
                .into(),
        );
    }
    match (snapshot, snapshots.as_slice()) {
        (Some(snapshot), _) => {
            notes.push(format!("qcow2: the disk as of the internal snapshot {}", snapshots::list([snapshot])));
        }
        (None, []) => {}
        (None, all) => {
            let (count, list) = (all.len(), snapshots::list(all));
            notes
                .push(format!("qcow2: {}, {list}; the disk's last state is read", counted(count, "internal snapshot")));
        }
    }
    let contents = match luks {
        Some(header) => Contents::Qcow2Luks(Qcow2Luks { header, clusters: Arc::new(image) }),
        None => Contents::Disk(Arc::new(Mapped::new(image))),
    };
    Ok(Opened { contents, snapshots, references })
}

/// Where the tables of a state of the disk are.
struct State {
    size: u64,
    l1_table_offset: u64,
    l1_size: u64,
    /// Where in the file it says so of each.
    at: [u64; 3],
}

impl State {
    /// The last state, or that of the snapshot.
    fn of(header: &Header, snapshot: Option<&Snapshot>) -> Self {
        match snapshot {
            None => Self {
                size: header.size.get(),
                l1_table_offset: header.l1_table_offset.get(),
                l1_size: u64::from(header.l1_size.get()),
                at: [24, 36, 40],
            },
            Some(snapshot) => Self {
                size: snapshot.size.unwrap_or(header.size.get()),
                l1_table_offset: snapshot.l1_table_offset,
                l1_size: snapshot.l1_size,
                at: [48, 8, 0].map(|field| snapshot.at.saturating_add(field)),
            },
        }
    }
}

fn packing(pages: &Pages, features: u64, header_length: u64) -> Result<Packing> {
    let compression_type = if header_length > 104 { pages.entry::<1>(104)?[0] } else { 0 };
    match (features & FEATURE_COMPRESSION != 0, compression_type) {
        (false, 0) => Ok(Packing::Deflate),
        (true, 1) => Ok(Packing::Zstd),
        (true, 2..) => Err(Error::unsupported(
            "qcow2.compression_type",
            format!("found {compression_type}; 0 (deflate) and 1 (zstd) are read"),
        )
        .at(104)),
        (set, _) => Err(Error::corrupt(
            "qcow2.compression_type",
            format!("found {compression_type}, but incompatible feature bit 3 is {}", u8::from(set)),
        )
        .at(104)),
    }
}

/// Where the compressed bytes of an L2 entry start, and the end of the last sector that they reach into.
#[expect(clippy::arithmetic_side_effects, reason = "offset_bits is 49 to 61")]
fn packed_range(entry: u64, cluster_bits: u32) -> (u64, u64) {
    let offset_bits = 62 - (cluster_bits - 8);
    let host = entry & ((1 << offset_bits) - 1);
    let more_sectors = (entry & !(L2_COMPRESSED | 1 << 63)) >> offset_bits;
    (host, host - host % 512 + (more_sectors + 1) * 512)
}

/// Where one cluster, or subcluster, lies.
enum Unit {
    Zero,
    /// Nowhere in this image.
    Below,
    Host(u64),
    Compressed,
}

impl Qcow2 {
    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// log2 of how many entries an L2 table has, which is a cluster long.
    #[expect(clippy::arithmetic_side_effects, reason = "a cluster has at least 2^9 bytes")]
    fn l2_bits(&self) -> u32 {
        self.cluster_bits - if self.extended_l2 { 4 } else { 3 }
    }

    /// How many bytes of the disk one L1 entry stands for.
    #[expect(clippy::arithmetic_side_effects, reason = "2^39 bytes at most")]
    fn l1_entry_span(&self) -> u64 {
        1 << (self.cluster_bits + self.l2_bits())
    }

    /// Where the entry's cluster or subcluster number `sub` lies.
    #[expect(clippy::arithmetic_side_effects, reason = "a place in the file has 56 bits")]
    fn unit(&self, entry: u64, bitmap: u64, sub: u64, guest: u64) -> Result<Unit> {
        let wrong = |what: &str| Err(Error::corrupt("qcow2.l2_entry", format!("byte {guest} of the disk: {what}")));
        if entry & L2_COMPRESSED != 0 {
            return Ok(Unit::Compressed);
        }
        let host = entry & OFFSET;
        if !host.is_multiple_of(self.cluster()) {
            return wrong(&format!(
                "its cluster is said to lie at byte {host}, which is not a multiple of {}",
                self.cluster()
            ));
        }
        if self.extended_l2 {
            let allocated = bitmap >> sub & 1 == 1;
            let zero = bitmap >> (SUBCLUSTERS + sub) & 1 == 1;
            return match (allocated, zero, host) {
                (true, true, _) => wrong("its subcluster is marked both as data and as zeroes"),
                (true, false, 0) => wrong("its subcluster is marked as data, but its cluster has no place"),
                (true, false, _) => Ok(Unit::Host(host + sub * (self.cluster() / SUBCLUSTERS))),
                (false, true, _) => Ok(Unit::Zero),
                (false, false, _) => Ok(Unit::Below),
            };
        }
        let zero = entry & L2_ZERO != 0;
        if zero && self.version == 2 {
            wrong("its cluster is marked as zeroes, which version 2 does not know")
        } else if zero {
            Ok(Unit::Zero)
        } else if host == 0 {
            Ok(Unit::Below)
        } else {
            Ok(Unit::Host(host))
        }
    }

    /// The run of one entry that is not compressed, from subcluster `first` on, `skip` bytes into it.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "a run is of one L2 table, 2^39 bytes at most, and a place in the file has 56 bits"
    )]
    fn extend(&self, run: &mut Option<Run>, entry: u64, bitmap: u64, first: u64, guest: u64) -> Result<bool> {
        let subs = if self.extended_l2 { SUBCLUSTERS } else { 1 };
        let unit_len = self.cluster() / subs;
        for sub in first..subs {
            let place = match self.unit(entry, bitmap, sub, guest)? {
                Unit::Zero => Place::Zero,
                Unit::Below => Place::Below,
                Unit::Host(host) => Place::Stored(host),
                Unit::Compressed => return Ok(false),
            };
            match run {
                None => *run = Some(Run { len: unit_len, place }),
                Some(Run { len, place: same @ (Place::Zero | Place::Below) }) if place == *same => *len += unit_len,
                Some(Run { len, place: Place::Stored(at) }) if place == Place::Stored(*at + *len) => *len += unit_len,
                Some(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The run that starts in the cluster at `l2_entry`, `skip` bytes into that cluster.
    #[expect(clippy::arithmetic_side_effects, reason = "skip is within the first unit of the run")]
    fn run_in_l2(&self, l2_entry: u64, entries: u64, skip: u64, offset: u64, wanted: u64) -> Result<Run> {
        let unit_len = if self.extended_l2 { self.cluster() / SUBCLUSTERS } else { self.cluster() };
        let (first, skip) = (skip / unit_len, skip % unit_len);
        let mut run: Option<Run> = None;
        let mut packed = None;
        let mut step = |entry: u64, bitmap: u64| {
            if run.is_none() && entry & L2_COMPRESSED != 0 {
                packed = Some(entry);
                return Ok(false);
            }
            let first = if run.is_none() { first } else { 0 };
            // What is wrong with a later entry is told to whoever reads there.
            let more = match self.extend(&mut run, entry, bitmap, first, offset) {
                Err(_) if run.is_some() => false,
                more => more?,
            };
            Ok(more && run.is_some_and(|run| run.len.saturating_sub(skip) < wanted))
        };
        if self.extended_l2 {
            self.pages.each::<16>(l2_entry, entries, |bytes| {
                let both = u128::from_be_bytes(bytes);
                step(low_u64(both >> 64), low_u64(both))
            })?;
        } else {
            self.pages.each::<8>(l2_entry, entries, |bytes| step(u64::from_be_bytes(bytes), 0))?;
        }
        if let Some(entry) = packed {
            let skip = offset % self.cluster();
            let unit = entry & !(1 << 63);
            return Ok(Run { len: self.cluster() - skip, place: Place::Packed { unit, skip } });
        }
        let Some(mut run) = run else { return Ok(Run { len: 0, place: Place::Zero }) };
        run.len -= skip;
        if let Place::Stored(at) = &mut run.place {
            *at += skip;
        }
        Ok(run)
    }
}

impl Layout for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn below(&self) -> Option<&Below> {
        self.below.as_ref()
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "offset is within the disk, which the L1 table covers, and a place in the file has 56 bits"
    )]
    fn run_at(&self, offset: u64, wanted: u64) -> Result<Run> {
        let l1_index = offset / self.l1_entry_span();
        let in_l1 = offset % self.l1_entry_span();
        // The header's check of the L1 table against the disk's size keeps the index within the table.
        let l1_entry = u64::from_be_bytes(self.pages.entry(self.l1_table_offset + l1_index * 8)?);
        let l2_table = l1_entry & OFFSET;
        if l2_table == 0 {
            return Ok(Run { len: self.l1_entry_span() - in_l1, place: Place::Below });
        }
        if !l2_table.is_multiple_of(self.cluster()) {
            return Err(Error::corrupt(
                "qcow2.l1_entry",
                format!("the L2 table of byte {offset} of the disk is said to lie at byte {l2_table}, not at a cluster's start"),
            )
            .at(self.l1_table_offset + l1_index * 8));
        }
        let entry_size = if self.extended_l2 { 16 } else { 8 };
        fields::table_within(
            &self.file,
            l2_table,
            self.cluster() / entry_size,
            entry_size,
            "container.truncated",
            "an L2 table",
        )?;
        let l2_index = in_l1 / self.cluster();
        let entries = (1 << self.l2_bits()) - l2_index;
        self.run_in_l2(l2_table + l2_index * entry_size, entries, offset % self.cluster(), offset, wanted)
    }

    /// `unit` is the L2 entry without its highest bit: the offset of the compressed bytes, and how many more 512-byte
    /// sectors than the first they reach into.
    fn unpack(&self, unit: u64) -> Result<Vec<u8>> {
        let (host, end) = packed_range(unit, self.cluster_bits);
        // The last sector may lie beyond the file's end: QEMU writes only the bytes that the stream has.
        let len = end.min(self.file.len()).saturating_sub(host);
        let mut packed = vec![0; to_usize(len)?];
        fields::fill(&self.file, &mut packed, host, "container.truncated", "a compressed cluster")?;
        unpack(self.packing, &packed, self.cluster()).map_err(|e| e.at(host))
    }

    fn unit_size(&self) -> u64 {
        self.cluster()
    }
}

impl HostMap for Qcow2 {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    fn map(&self, guest: u64, wanted: u64) -> Result<Mapping> {
        let run = run_within(self, guest, wanted)?;
        match run.place {
            Place::Zero | Place::Below => Ok(Mapping::Zero { len: run.len }),
            // The sector that a cut-off file ends within cannot be decrypted.
            Place::Stored(offset) => match run.len.saturating_sub(run.len % SECTOR) {
                0 => Err(truncated(guest, offset, self.file.len())),
                len => Ok(Mapping::Host { offset, len }),
            },
            // QEMU stores these in the clear, and its tools refuse to make them.
            Place::Packed { .. } => Err(Error::unsupported(
                "qcow2.compressed",
                format!("byte {guest} of the disk lies in a compressed cluster, which an encrypted image cannot have"),
            )),
        }
    }
}
