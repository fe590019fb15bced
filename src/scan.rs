//! Finds the LUKS headers of a disk at any 512-byte offset, primary and secondary, also where the partition table is
//! gone and the primary header was overwritten.
//!
//! The disk is read once, in chunks, by several threads; only the first six bytes of each sector are compared. What has
//! a magic is checked: a LUKS2 copy by its checksum and its JSON, a LUKS1 header by its rules. A secondary copy says
//! where it lies in its container, and so where the container starts. Copies of one start are one container.
//!
//! # Security
//! A disk can be full of magics. A copy whose first sector breaks a rule costs no read; the others are verified up to
//! [`SCAN_CHECK_MAX`](crate::limits::SCAN_CHECK_MAX) bytes for each chunk, so that a scan reads and hashes at most three times the disk; and no more than
//! [`SCAN_COPIES_MAX`](crate::limits::SCAN_COPIES_MAX) of each sort are kept, by their names alone. Of headers above
//! [`SCAN_HEADER_SHARED`](crate::limits::SCAN_HEADER_SHARED) one at a time is in memory, whatever the number of threads.

mod candidate;
mod group;
#[cfg(feature = "serde")]
pub mod report;
mod search;

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::luks::metadata::{Metadata, Role, Version};
use crate::num::to_u64;
use crate::progress::Progress;
use search::Search;

/// Bytes that a thread reads at a time.
pub const CHUNK: usize = 4 << 20;
/// More threads than this read no faster, and each holds a chunk, and what the allocator keeps for it.
const THREADS_MAX: usize = 4;

/// How to scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many threads read: as many as the machine has cores where it is `None`, 4 at most.
    pub threads: Option<NonZeroUsize>,
    /// What was read leaves the page cache: for a disk that would fill it.
    pub drop_behind: bool,
}

/// What was found on a disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct Scan {
    /// The containers, in the order of their starts.
    pub containers: Vec<Container>,
    /// How many good copies there are besides those in `containers`.
    pub good_left_out: u64,
    /// How many copies that are not good there are besides those in `containers`.
    pub bad_left_out: u64,
    /// What could not be read, and so was not looked at.
    pub unreadable: Option<Unreadable>,
}

impl Scan {
    /// Whether there is a container that opens.
    pub fn found(&self) -> bool {
        self.containers.iter().any(Container::opens)
    }
}

/// A part of the disk that could not be read.
#[derive(Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Unreadable {
    /// How many bytes in all.
    pub bytes: u64,
    /// The offset in bytes of the first.
    pub first: u64,
    /// Why the first could not be read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "report::line"))]
    pub error: Error,
}

/// A LUKS container, or what is left of one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Container {
    /// Where it starts on the disk, in bytes. `None` where only a secondary copy was found that does not tell.
    pub start: Option<u64>,
    /// Its header copies: those that were found, and those that should be there and are not.
    pub copies: Vec<Copy>,
    /// What [`crate::open`] makes of it, in short; `None` where no copy is good.
    pub header: Option<Result<Opened>>,
}

/// What a header calls itself. [`Container::open`] gives all that it says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The on-disk format.
    pub version: Version,
    /// The UUID as text.
    pub uuid: String,
    /// The label; empty where there is none.
    pub label: String,
    /// The subsystem label; empty where there is none.
    pub subsystem: String,
}

impl Opened {
    fn new(metadata: &Metadata) -> Self {
        Self {
            version: metadata.version,
            uuid: metadata.uuid.clone(),
            label: metadata.label.clone(),
            subsystem: metadata.subsystem.clone(),
        }
    }
}

impl Container {
    /// Whether its header was opened.
    pub fn opens(&self) -> bool {
        matches!(self.header, Some(Ok(_)))
    }

    /// Opens its header again on the `disk` that was scanned; `None` where it did not open.
    ///
    /// # Errors
    /// As [`crate::open`], where the disk is not what it was.
    pub fn open(&self, disk: &dyn ReadAt) -> Option<Result<Metadata>> {
        let start = self.start.filter(|_| self.opens())?;
        Some(group::open_at(disk, start))
    }

    /// Whether one of its copies is good.
    pub fn has_good_copy(&self) -> bool {
        self.copies.iter().any(|c| c.error.is_none())
    }
}

/// A header copy on the disk.
#[derive(Debug)]
#[non_exhaustive]
pub struct Copy {
    /// Where it lies on the disk, in bytes.
    pub offset: u64,
    /// The version that it says it has; `None` for a number that is neither, and where there is nothing.
    pub version: Option<Version>,
    /// Primary or secondary.
    pub role: Role,
    /// Its UUID; empty where it could not be read.
    pub uuid: String,
    /// Its label; empty where there is none or it could not be read.
    pub label: String,
    /// Its sequence id; `None` in LUKS1, and where it could not be read.
    pub seqid: Option<u64>,
    /// What it is to its container.
    pub state: State,
    /// Why it is not good, or `None` where it is. Offsets in it count from the container's start.
    pub error: Option<Error>,
}

/// What a copy is to its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
pub enum State {
    /// The header comes from it.
    Used,
    /// It would do if the other were lost.
    Spare,
    /// The header does not count it as its own: an earlier header left it.
    LeftOver,
    /// It is not good, or the container does not open.
    Unusable,
}

/// Scans `disk`, and counts in `progress` the bytes that were read.
///
/// ```
/// # fn main() -> unluks::Result<()> {
/// // A container at byte 1536 of a disk.
/// let mut disk = vec![0u8; 1536];
/// disk.extend(std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openstack-volume.img")).unwrap());
/// let scan = unluks::scan::run(&disk, Default::default(), &Default::default())?;
/// assert_eq!(scan.containers[0].start, Some(1536));
/// assert!(scan.found());
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) where nothing can be read at all; [`Cancelled`](crate::ErrorKind::Cancelled) where somebody stopped it;
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a pipe. A part that cannot be read is no error: see [`Scan::unreadable`].
pub fn run(disk: &dyn ReadAt, options: Options, progress: &Progress) -> Result<Scan> {
    if disk.pipe().is_some() {
        return Err(Error::invalid("a scan wants a disk that can be read at any place, not a pipe"));
    }
    let cores = options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let search = Search::new(disk, options, progress);
    std::thread::scope(|scope| {
        for n in 1..crate::threads::room(cores.min(THREADS_MAX)) {
            // Where no thread can be had, the ones there are do its work.
            let _ = std::thread::Builder::new().name(format!("scan-{n}")).spawn_scoped(scope, || search.work());
        }
        search.work();
    });
    if progress.is_cancelled() {
        return Err(stopped());
    }
    let unreadable = search.unreadable.into_inner().unwrap_or_else(PoisonError::into_inner);
    let unreadable = match unreadable {
        Some(u) if u.bytes >= disk.len() => return Err(u.error),
        other => other,
    };
    let found = search.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (good_left_out, bad_left_out) = (found.good.left_out, found.bad.left_out);
    let copies = found.good.kept.into_values().chain(found.bad.kept.into_values());
    Ok(Scan { containers: group::group(disk, copies, progress)?, good_left_out, bad_left_out, unreadable })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(n: usize) -> u64 {
    to_u64(n)
}

fn stopped() -> Error {
    Error::cancelled()
}

#[cfg(test)]
mod tests;
