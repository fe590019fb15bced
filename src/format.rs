//! Container files: a disk inside another file format, given as positioned reads of the disk's bytes.
//!
//! # Security
//! A file's format is told by its first bytes, and on a raw disk the guest writes those. QEMU once let a guest turn its
//! raw disk into a qcow2 image that named any file of the host as its backing file (CVE-2008-2004); OpenStack was led to
//! other people's files through VMDK descriptors and qcow2 data files (CVE-2022-47951, CVE-2024-32498). Therefore:
//!
//! - No format here ever opens a file that an image names: not a backing file, a data file or a parent. Each is refused,
//!   and the refusal says so; a parent can be among the files that the caller opened ([`Options::with`]). A guest that
//!   writes a container's header gains nothing but a wrong view of its own disk.
//! - The one exception are the extents of a VMDK descriptor, which [`file_set`] looks for: regular files in the
//!   descriptor's own directory, by names that do not leave it, also through links.
//! - A file that begins as LUKS is raw, whatever else is in it.
//! - Only the start of a file tells its format. A fixed VHD, which is told by its end alone, has to be named; a note says
//!   so.
//! - A caller who knows the format says so, and then nothing is detected.
//!
//! No table is read whole: an open container takes at most two times [`limits::CONTAINER_CACHE`] in memory, and each
//! reading thread at most a few times [`limits::CONTAINER_UNIT_MAX`].

// Numbers of an image reach all of this: sums that cannot be are an error or a bound, never another number.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod adler;
mod aff4;
mod android;
mod below;
mod cache;
mod checks;
mod ewf;
mod ewf2;
mod fields;
mod foreign;
mod joined;
mod lost;
mod map;
mod parallels;
mod parent;
mod qcow1;
mod qcow2;
mod qed;
mod rbd;
mod runs;
mod set;
mod split;
mod unpack;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use checks::{Bookkeeping, Checks, Doubt, Recorded, Weight};
pub use ewf::segment_files;
pub use foreign::{Foreign, name};
pub use parent::Named;
pub(crate) use parent::open_disk;
pub(crate) use qcow2::snapshots_hint;
pub use qcow2::{HostMap, Mapping, Qcow2Luks, Snapshot};
pub(crate) use set::open_named;
pub use set::{FileSet, Set, file_set};

use crate::error::{Error, Hint, Result, escape};
use crate::io::{Peek, ReadAt};
use crate::limits;
pub(crate) use joined::Joined;
use parent::Kin;

/// A container format that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// No container: the file is the disk.
    Raw,
    /// QEMU's qcow2, versions 2 and 3.
    Qcow2,
    /// QEMU's qcow, version 1.
    Qcow,
    /// QEMU's QED.
    Qed,
    /// VirtualBox's VDI, dynamic and fixed.
    Vdi,
    /// Parallels' hard disk images.
    Parallels,
    /// Virtual PC's VHD (QEMU calls it vpc), fixed and dynamic.
    Vhd,
    /// Hyper-V's VHDX, fixed and dynamic.
    Vhdx,
    /// VMware's VMDK in one file: monolithicSparse and streamOptimized.
    Vmdk,
    /// EnCase's E01 and Ex01, in one or more segment files.
    Ewf,
    /// Android's sparse images.
    AndroidSparse,
    /// Ceph's `rbd export` of version 2, and `rbd export-diff`.
    Rbd,
    /// AFF4's images of disks, as Evimetry, pyaff4 and c-aff4 write them.
    Aff4,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Raw,
        Self::Qcow2,
        Self::Qcow,
        Self::Qed,
        Self::Vdi,
        Self::Parallels,
        Self::Vhd,
        Self::Vhdx,
        Self::Vmdk,
        Self::Ewf,
        Self::AndroidSparse,
        Self::Rbd,
        Self::Aff4,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Qcow => "qcow",
            Self::Qed => "qed",
            Self::Vdi => "vdi",
            Self::Parallels => "parallels",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Ewf => "ewf",
            Self::AndroidSparse => "android-sparse",
            Self::Rbd => "rbd",
            Self::Aff4 => "aff4",
        }
    }

    /// Its name with its article, for messages: a name that begins with a vowel, or is spelled out from one, has "an".
    pub fn with_article(self) -> String {
        let article = if matches!(self, Self::Ewf | Self::AndroidSparse | Self::Rbd | Self::Aff4) { "an" } else { "a" };
        format!("{article} {self}")
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let name = match lower.as_str() {
            "vpc" => "vhd",
            "e01" => "ewf",
            other => other,
        };
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::invalid(format!("{} is no container format; there are {known}", escape(name)))
        })
    }
}

/// How a container is opened.
#[derive(Clone, Default)]
pub struct Options {
    /// The format, where the caller knows it (`--format`); otherwise it is detected.
    pub format: Option<Format>,
    /// The files of the image that follow the first, in their order: see [`file_set`].
    pub segments: Vec<Arc<dyn ReadAt>>,
    /// What those are.
    pub set: Set,
    /// Files of which the image's parents may be some.
    pub with: Vec<Named>,
    /// The internal snapshot of a qcow2 image to open, by its id or its name, in place of the disk's last state.
    pub snapshot: Option<String>,
    /// The largest disk in bytes that a container may declare (`--max-size`). Without it that is
    /// [`limits::CONTAINER_SPARSE_SIZE`] and [`limits::CONTAINER_SPARSE_RATIO`] times the bytes of its files,
    /// [`limits::CONTAINER_SIZE_MAX`] at most.
    pub max_size: Option<u64>,
}

impl Options {
    /// The largest disk that `file`, with its segment files, may declare.
    fn largest_disk(&self, file: &dyn ReadAt) -> u64 {
        let len = self.segments.iter().fold(file.len(), |len, segment| len.saturating_add(segment.len()));
        let sparse = len.saturating_mul(limits::CONTAINER_SPARSE_RATIO).saturating_add(limits::CONTAINER_SPARSE_SIZE);
        self.max_size.unwrap_or(sparse.min(limits::CONTAINER_SIZE_MAX))
    }
}

/// An opened container.
#[non_exhaustive]
pub struct Opened {
    /// The format that was named or detected.
    pub format: Format,
    /// What is in it.
    pub contents: Contents,
    /// The size in bytes of the disk's logical sectors, where the container says it.
    pub sector_size: Option<u32>,
    /// The internal snapshots that a qcow2 image has.
    pub snapshots: Vec<Snapshot>,
    /// What the user should know, one line each: a log of damage that was passed over, things that were left unread.
    pub notes: Vec<String>,
    /// What it says of itself that reading the disk does not show; that of its parents, too.
    pub checks: Checks,
}

/// What is in a container.
#[derive(Clone)]
pub enum Contents {
    /// A disk, as its guest sees it.
    Disk(Arc<dyn ReadAt>),
    /// A disk that the container itself encrypts: there is none to read before it is unlocked.
    Qcow2Luks(Qcow2Luks),
}

impl Contents {
    /// The disk's size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.len(),
            Self::Qcow2Luks(luks) => luks.clusters.virtual_size(),
        }
    }
}

/// Opens the container in `file`, or `file` itself as a raw disk where it is none.
///
/// ```
/// use std::sync::Arc;
/// use unluks::format::{Contents, Format, Options, open};
///
/// let opened = open(Arc::new(vec![0u8; 4096]), Options::default())?;
/// assert_eq!((opened.format, opened.contents.size()), (Format::Raw, 4096));
/// # Ok::<(), unluks::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a format that is not read, and for an image that needs
/// another file; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where its structures break a rule;
/// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where the disk is larger than
/// [`Options::max_size`]; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a wrong set of segment files;
/// [`ErrorKind::Io`](crate::ErrorKind::Io).
pub fn open(file: Arc<dyn ReadAt>, options: Options) -> Result<Opened> {
    open_below(file, options, &[])
}

/// Opens a parent: `chain` has the numbers of the files that were named and lie on top of it, and its own.
fn open_below(file: Arc<dyn ReadAt>, mut options: Options, chain: &[usize]) -> Result<Opened> {
    let largest = options.largest_disk(&file);
    let file: Arc<dyn ReadAt> = if options.set == Set::Pieces && !options.segments.is_empty() {
        Arc::new(Joined::new(std::iter::once(file).chain(std::mem::take(&mut options.segments)))?)
    } else {
        file
    };
    let look = Peek::new(&file);
    let format = match options.format {
        Some(format) => format,
        None => detect_by(&look)?,
    };
    let takes_files = match options.set {
        Set::Segments => format == Format::Ewf,
        Set::Pieces => true,
        Set::Extents => format == Format::Vmdk,
    };
    if !takes_files && !options.segments.is_empty() {
        return Err(Error::invalid(format!("{} image has no segment files", format.with_article())));
    }
    if options.snapshot.is_some() && format != Format::Qcow2 {
        return Err(
            Error::invalid(format!("{} image has no internal snapshots", format.with_article())).with_rule("snapshot")
        );
    }
    let kin = Kin::new(&options, chain);
    let mut checks = Checks::default();
    let mut snapshots = Vec::new();
    let mut notes = Vec::new();
    let mut sector_size = None;
    if let Some(e) = look.take_failure() {
        notes.push(format!(
            "the file's first bytes, which tell its format, cannot be read, so it is taken as {format}: {e}"
        ));
    }
    if format == Format::Raw && options.format.is_none() && vhd::ends_as_fixed(&file) {
        notes.push(
            "the file is read as a raw disk, but its last 512 bytes are the footer of a fixed VHD, and no part of the \
             disk: the format vhd leaves them out"
                .into(),
        );
    }
    let mut state = rbd::State::Unknown;
    let mut contents = match format {
        Format::Raw => Contents::Disk(file),
        Format::Qcow2 => {
            let qcow2 = qcow2::open(file, &kin, &mut notes)?;
            snapshots = qcow2.snapshots;
            checks.books.extend(qcow2.references);
            qcow2.contents
        }
        Format::Qcow => Contents::Disk(qcow1::open(file)?),
        Format::Qed => Contents::Disk(qed::open(file, &kin, &mut notes)?),
        Format::Vdi => Contents::Disk(vdi::open(file)?),
        Format::AndroidSparse => Contents::Disk(android::open(file)?),
        Format::Rbd => {
            let opened = rbd::open(file, &kin, &mut notes)?;
            state = opened.state;
            Contents::Disk(opened.disk)
        }
        Format::Aff4 => {
            let aff4 = aff4::open(file, &kin, &mut notes)?;
            sector_size = aff4.sector_size;
            checks.recorded = aff4.recorded;
            Contents::Disk(aff4.disk)
        }
        Format::Parallels => Contents::Disk(parallels::open(file, &mut notes)?),
        Format::Vhd => Contents::Disk(vhd::open(file, &kin, &mut notes)?),
        Format::Vhdx => {
            let vhdx = vhdx::open(file, &kin, &mut notes)?;
            sector_size = Some(vhdx.sector_size);
            Contents::Disk(vhdx.disk)
        }
        Format::Vmdk if look.has(VMDK_DESCRIPTOR, 0) => Contents::Disk(vmdk::open_descriptor(&file, &kin, &mut notes)?),
        Format::Vmdk => Contents::Disk(vmdk::open(file, &kin, &mut notes)?),
        Format::Ewf => {
            let is_2 = look.has(&ewf2::MAGIC, 0);
            let segments = std::iter::once(file).chain(options.segments.iter().cloned()).collect();
            let ewf = if is_2 { ewf2::open(segments, &mut notes)? } else { ewf::open(segments, &mut notes)? };
            sector_size = Some(ewf.sector_size);
            checks.recorded = ewf.recorded;
            Contents::Disk(ewf.disk)
        }
    };
    let mut format = format;
    if let Contents::Disk(disk) = &contents
        && let Some(laid) = rbd::with_diffs(disk, state, &kin, &mut notes)?
    {
        (contents, format) = (Contents::Disk(laid), Format::Rbd);
    }
    if format != Format::Raw && contents.size() > largest {
        return Err(Error::limit(
            "container.size",
            format!(
                "the {format} image declares a disk of {} bytes; {largest} are allowed for a file of its length",
                contents.size(),
            ),
        )
        .with_hint(Hint::RaiseMaxSize));
    }
    checks.join(kin.checks.take());
    Ok(Opened { format, contents, sector_size, snapshots, notes, checks })
}

const VMDK_DESCRIPTOR: &[u8] = b"# Disk Descriptor";

/// The formats that are read, by bytes at a place near their start.
const KNOWN: &[(u64, &[u8], Format)] = &[
    // qcow's version 1 has the magic of version 2.
    (0, &qcow1::MAGIC, Format::Qcow),
    (0, b"QFI\xfb", Format::Qcow2),
    (0, &qed::MAGIC, Format::Qed),
    (vdi::SIGNATURE_AT, &vdi::SIGNATURE, Format::Vdi),
    (0, &parallels::MAGIC, Format::Parallels),
    (0, &parallels::MAGIC_EXT, Format::Parallels),
    (0, b"conectix", Format::Vhd),
    (0, b"vhdxfile", Format::Vhdx),
    (0, b"KDMV", Format::Vmdk),
    (0, VMDK_DESCRIPTOR, Format::Vmdk),
    (0, &ewf::MAGIC, Format::Ewf),
    (0, &ewf2::MAGIC, Format::Ewf),
    (0, &android::MAGIC, Format::AndroidSparse),
    (0, rbd::IMAGE, Format::Rbd),
    (0, rbd::DIFF_1, Format::Rbd),
    (0, rbd::DIFF_2, Format::Rbd),
];

/// The format that the first bytes of `file` tell; [`Format::Raw`] where they tell none, and where they cannot be read:
/// a raw disk may have what it takes elsewhere, and no other format has.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a format that is known but not read.
pub fn detect(file: &dyn ReadAt) -> Result<Format> {
    detect_by(&Peek::new(file))
}

fn detect_by(look: &Peek<'_>) -> Result<Format> {
    // Both copies of a LUKS2 header have their magic: a disk whose first copy is lost can begin with the second's.
    if [b"LUKS\xba\xbe", b"SKUL\xba\xbe"].iter().any(|luks| look.has(*luks, 0)) {
        return Ok(Format::Raw);
    }
    // Any other ZIP archive is a packed file.
    if aff4::is_image(look) {
        return Ok(Format::Aff4);
    }
    if let Some(foreign) = foreign::unread(look) {
        return Err(foreign.refuse());
    }
    Ok(known(look).unwrap_or(Format::Raw))
}

/// The format whose magic the file has.
fn known(look: &Peek<'_>) -> Option<Format> {
    KNOWN.iter().find(|(offset, magic, _)| look.has(magic, *offset)).map(|(_, _, format)| *format)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_go_both_ways() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().unwrap(), format);
        }
        assert_eq!("VPC".parse::<Format>().unwrap(), Format::Vhd);
        let e = "zip".parse::<Format>().unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
        assert!(
            e.to_string().contains("raw, qcow2, qcow, qed, vdi, parallels, vhd, vhdx, vmdk, ewf, android-sparse, rbd"),
            "{e}"
        );
    }

    #[test]
    fn luks_is_raw_whatever_else_is_in_it() {
        let mut bytes = b"LUKS\xba\xbe".to_vec();
        bytes.resize(4096, 0);
        bytes[64..68].copy_from_slice(b"\x7f\x10\xda\xbe");
        let footer = bytes.len() - 512;
        bytes[footer..footer + 8].copy_from_slice(b"conectix");
        assert_eq!(detect(&bytes).unwrap(), Format::Raw);
    }

    #[test]
    fn a_later_version_is_no_raw_disk() {
        assert_eq!(detect(&b"QFI\xfb\0\0\0\x09".to_vec()).unwrap(), Format::Qcow2);
        for short in [0, 1, 4, 63, 66] {
            assert_eq!(detect(&vec![0u8; short]).unwrap(), Format::Raw);
        }
    }

    #[test]
    fn only_ewf_has_segment_files() {
        let more: Arc<dyn ReadAt> = Arc::new(vec![0u8; 512]);
        let e = open(more.clone(), Options { segments: vec![more], ..Options::default() }).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::InvalidInput);
    }
}
