//! Finds the LUKS headers of a disk at any 512-byte offset, primary and secondary, also where the partition table is
//! gone and the primary header was overwritten.
//!
//! The disk is read once, in chunks, by several threads; only the first six bytes of each sector are compared. What has
//! a magic is checked: a LUKS2 copy by its checksum and its JSON, a LUKS1 header by its rules. A secondary copy says
//! where it lies in its container, and so where the container starts. Copies of one start are one container.
//!
//! # Security
//! A disk can be full of magics. A copy whose first sector breaks a rule costs no read; the others are verified up to
//! [`SCAN_CHECK_MAX`] bytes for each chunk, so that a scan reads and hashes at most three times the disk; and no more than
//! [`SCAN_COPIES_MAX`] of each sort are kept.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::io::{ReadAt, Window};
use crate::limits::{SCAN_CHECK_MAX, SCAN_COPIES_MAX, SCAN_OPEN_MAX, SCAN_RETRIES_MAX};
use crate::luks::metadata::{HeaderCopy, Metadata, Role, Version};
use crate::luks::v2::{BinaryHeader, HDR_BIN_LEN};
use crate::luks::{MAGIC, MAGIC_OFFLINE, MAGIC_SECONDARY, v1, v2};
use crate::progress::Progress;

/// Bytes that a thread reads at a time.
pub const CHUNK: usize = 4 << 20;
/// Headers lie at multiples of this many bytes.
const SECTOR: usize = 512;
/// Reads are tried again down to this many bytes.
const PIECE: usize = 4096;
/// How far ahead of the reading the system is told what comes.
const READ_AHEAD: u64 = 16 << 20;
/// More threads than this read no faster, and each may hold a header's JSON.
const THREADS_MAX: usize = 8;

/// How to scan.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How many threads read: as many as the machine has cores where it is `None`, 8 at most.
    pub threads: Option<NonZeroUsize>,
    /// What was read leaves the page cache: for a disk that would fill it.
    pub drop_behind: bool,
}

/// What was found on a disk.
#[derive(Debug)]
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
pub struct Unreadable {
    /// How many bytes in all.
    pub bytes: u64,
    /// The offset in bytes of the first.
    pub first: u64,
    /// Why the first could not be read.
    pub error: Error,
}

/// A LUKS container, or what is left of one.
#[derive(Debug)]
pub struct Container {
    /// Where it starts on the disk, in bytes. `None` where only a secondary copy was found that does not tell.
    pub start: Option<u64>,
    /// Its header copies: those that were found, and those that should be there and are not.
    pub copies: Vec<Copy>,
    /// What [`crate::open`] makes of it; `None` where no copy is good.
    pub header: Option<Result<Metadata>>,
}

impl Container {
    /// Whether its header was opened.
    pub fn opens(&self) -> bool {
        matches!(self.header, Some(Ok(_)))
    }

    /// Whether one of its copies is good.
    pub fn has_good_copy(&self) -> bool {
        self.copies.iter().any(|c| c.error.is_none())
    }
}

/// A header copy on the disk.
#[derive(Debug)]
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
    if disk.len() == u64::MAX {
        return Err(Error::invalid("a scan wants a disk that can be read at any place, not a pipe"));
    }
    let cores = options.threads.or_else(|| std::thread::available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let search = Search {
        disk,
        options,
        progress,
        next: Mutex::new(0),
        found: Mutex::default(),
        unreadable: Mutex::new(None),
        failed_reads: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        for n in 1..cores.min(THREADS_MAX) {
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
    Ok(Scan { containers: group(disk, copies, progress)?, good_left_out, bad_left_out, unreadable })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bytes(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// What the threads share.
struct Search<'a> {
    disk: &'a dyn ReadAt,
    options: Options,
    progress: &'a Progress,
    /// The first byte that nobody has claimed.
    next: Mutex<u64>,
    found: Mutex<Found>,
    unreadable: Mutex<Option<Unreadable>>,
    failed_reads: AtomicU64,
}

#[derive(Default)]
struct Found {
    good: Kept,
    bad: Kept,
}

/// The first copies on the disk, and how many more there are. Which those are does not depend on the threads' order.
#[derive(Default)]
struct Kept {
    kept: BTreeMap<u64, (Option<u64>, Copy)>,
    left_out: u64,
}

impl Kept {
    fn add(&mut self, start: Option<u64>, copy: Copy) {
        self.kept.insert(copy.offset, (start, copy));
        if self.kept.len() > SCAN_COPIES_MAX {
            self.kept.pop_last();
            self.left_out += 1;
        }
    }
}

impl Search<'_> {
    fn work(&self) {
        let mut chunk = vec![0u8; CHUNK];
        while let Some((offset, len)) = self.claim() {
            let part = &mut chunk[..len];
            self.disk.will_need(offset.saturating_add(READ_AHEAD), bytes(len));
            self.read(part, offset);
            self.look(part, offset);
            if self.options.drop_behind {
                self.disk.wont_need(offset, bytes(len));
            }
            self.progress.add(bytes(len));
        }
    }

    /// The next chunk. What is known to be zero without reading is passed over.
    fn claim(&self) -> Option<(u64, usize)> {
        let mut next = lock(&self.next);
        loop {
            let rest = self.disk.len().saturating_sub(*next);
            if rest == 0 || self.progress.is_cancelled() {
                return None;
            }
            let extent = self.disk.extent_at(*next).ok().filter(|e| e.zero);
            // A hole ends where a sector does, or with the disk.
            let hole = extent.map_or(0, |e| if e.len >= rest { rest } else { e.len - e.len % bytes(SECTOR) });
            if hole > 0 {
                *next += hole;
                self.progress.add(hole);
                continue;
            }
            let (offset, len) = (*next, rest.min(bytes(CHUNK)));
            *next += len;
            return Some((offset, usize::try_from(len).unwrap_or(CHUNK)));
        }
    }

    /// Fills `part`; what cannot be read becomes zero, and is noted.
    fn read(&self, part: &mut [u8], offset: u64) {
        let Err(e) = self.disk.read_exact_at(part, offset) else { return };
        let failed = self.failed_reads.fetch_add(1, Ordering::Relaxed);
        if part.len() > PIECE && failed < SCAN_RETRIES_MAX {
            let half = (part.len() / 2).next_multiple_of(PIECE);
            let (first, second) = part.split_at_mut(half);
            self.read(first, offset);
            return self.read(second, offset.saturating_add(bytes(half)));
        }
        part.fill(0);
        let len = bytes(part.len());
        let mut unreadable = lock(&self.unreadable);
        match unreadable.as_mut() {
            Some(u) if u.first < offset => u.bytes += len,
            before => {
                let bytes = before.map_or(0, |u| u.bytes) + len;
                *unreadable = Some(Unreadable { bytes, first: offset, error: e });
            }
        }
    }

    /// Finds the magics in a chunk, and checks what they begin.
    fn look(&self, chunk: &[u8], offset: u64) {
        let sectors = chunk.chunks(SECTOR).enumerate();
        let magics = sectors.filter(|(_, s)| [MAGIC, MAGIC_SECONDARY, MAGIC_OFFLINE].iter().any(|m| s.starts_with(m)));
        let at = |n: usize| offset.saturating_add(bytes(n).saturating_mul(bytes(SECTOR)));
        let mut candidates: Vec<_> = magics.map(|(n, sector)| Candidate::glance(sector, at(n))).collect();
        if candidates.is_empty() {
            return;
        }
        candidates.sort_by_key(|c| c.size);
        let mut left = SCAN_CHECK_MAX;
        let checked: Vec<_> = candidates.into_iter().map(|c| c.check(self.disk, &mut left)).collect();
        let mut found = lock(&self.found);
        for (start, copy) in checked {
            match copy.error {
                None => found.good.add(start, copy),
                Some(_) => found.bad.add(start, copy),
            }
        }
    }
}

/// A sector that begins with a magic.
struct Candidate {
    offset: u64,
    version: Option<Version>,
    role: Role,
    /// Where its container starts; `None` where it cannot be told.
    start: Option<u64>,
    /// How many bytes have to be read to check it.
    size: u64,
    /// Why it is no header, where its first sector shows that.
    error: Option<Error>,
}

impl Candidate {
    /// What a first sector says, without reading on.
    fn glance(sector: &[u8], offset: u64) -> Self {
        let mut header = [0u8; HDR_BIN_LEN];
        header[..sector.len()].copy_from_slice(sector);
        if sector.starts_with(&MAGIC_OFFLINE) {
            let error = Some(crate::luks::offline_reencryption(&sector.to_vec()));
            let (version, role, start) = (Some(Version::V1), Role::Primary, Some(offset));
            return Self { offset, version, role, start, size: 0, error };
        }
        let version = match u16::from_be_bytes([header[6], header[7]]) {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            _ => None,
        };
        let mut place = [0u8; 8];
        place.copy_from_slice(&header[256..264]);
        let (role, place) = match header.starts_with(&MAGIC) {
            true => (Role::Primary, 0),
            false => (Role::Secondary, u64::from_be_bytes(place)),
        };
        let candidate = Self { offset, version, role, start: offset.checked_sub(place), size: 0, error: None };
        if role == Role::Primary && version == Some(Version::V1) {
            return Self { size: bytes(v1::HEADER_LEN), ..candidate };
        }
        match BinaryHeader::parse(&header, role, place) {
            Ok(_) if candidate.start.is_none() => {
                let message = format!("found {place} in a copy that lies at byte {offset} of the disk");
                Self { error: Some(Error::corrupt("hdr_offset", message)), ..candidate }
            }
            Ok(parsed) => Self { size: parsed.hdr_size.get(), ..candidate },
            // A place that no copy can have tells nothing of the start.
            Err(e) if role == Role::Secondary => Self { error: Some(e), start: None, ..candidate },
            Err(e) => Self { error: Some(e), ..candidate },
        }
    }

    /// Verifies it, if its chunk has that many bytes of checks `left`.
    fn check(mut self, disk: &dyn ReadAt, left: &mut u64) -> (Option<u64>, Copy) {
        if let (None, Some(start)) = (&self.error, self.start) {
            match left.checked_sub(self.size) {
                Some(rest) => {
                    *left = rest;
                    match self.verify(disk, start) {
                        Ok(copy) => return (Some(start), copy),
                        Err(e) => self.error = Some(e),
                    }
                }
                None => {
                    let message = format!(
                        "not verified: the headers in {CHUNK} bytes of the disk would take more than {SCAN_CHECK_MAX} bytes"
                    );
                    let hint = "unluks inspect with --offset checks one";
                    self.error = Some(Error::limit("scan.check", message).with_hint(hint));
                }
            }
        }
        let Self { offset, version, role, start, error, .. } = self;
        let (uuid, label) = (String::new(), String::new());
        (start, Copy { offset, version, role, uuid, label, seqid: None, state: State::Unusable, error })
    }

    fn verify(&self, disk: &dyn ReadAt, start: u64) -> Result<Copy> {
        let container = Window::new(disk, start, None)?;
        if self.version == Some(Version::V1) {
            let metadata = v1::read(&container)?;
            let copy = metadata.copies.into_iter().next().ok_or_else(|| Error::corrupt("magic", "no LUKS magic"))?;
            return Ok(Copy::of(copy, start, Some(Version::V1)));
        }
        let copy = v2::read_one(&container, self.role, self.offset.saturating_sub(start));
        Ok(Copy::of(copy, start, Some(Version::V2)))
    }
}

impl Copy {
    fn of(copy: HeaderCopy, start: u64, version: Option<Version>) -> Self {
        Self {
            offset: start.saturating_add(copy.offset),
            version,
            role: copy.role,
            uuid: copy.uuid,
            label: copy.label,
            seqid: copy.seqid,
            state: State::Unusable,
            error: copy.error,
        }
    }
}

/// Puts the copies of each container together, and opens its header, as long as all headers together are not too large.
fn group(
    disk: &dyn ReadAt,
    copies: impl Iterator<Item = (Option<u64>, Copy)>,
    progress: &Progress,
) -> Result<Vec<Container>> {
    let mut containers: BTreeMap<(u64, bool), Vec<Copy>> = BTreeMap::new();
    for (start, copy) in copies {
        containers.entry((start.unwrap_or(copy.offset), start.is_some())).or_default().push(copy);
    }
    let mut opened_bytes = 0u64;
    let mut open = |((at, known), mut copies): ((u64, bool), Vec<Copy>)| {
        if progress.is_cancelled() {
            return Err(stopped());
        }
        copies.sort_by_key(|c| c.offset);
        let start = known.then_some(at);
        let mut container = Container { start, copies, header: None };
        if let Some(start) = start.filter(|_| container.has_good_copy()) {
            let opened = match opened_bytes < SCAN_OPEN_MAX {
                true => Window::new(disk, start, None).and_then(|window| crate::luks::open(&window)),
                false => Err(too_many()),
            };
            // How much was read of one that does not open, nobody knows.
            opened_bytes += opened.as_ref().map_or(1 << 20, |m| m.metadata_size);
            if let Ok(metadata) = &opened {
                container.place_copies(start, metadata);
            }
            container.header = Some(opened);
        }
        Ok(container)
    };
    containers.into_iter().map(&mut open).collect()
}

fn stopped() -> Error {
    Error::cancelled()
}

fn too_many() -> Error {
    let message = format!("not opened: the headers before it take {SCAN_OPEN_MAX} bytes");
    Error::limit("scan.open", message).with_hint("unluks inspect with --offset opens it")
}

impl Container {
    /// Says of each copy what it is to the header, and adds those that are missing.
    fn place_copies(&mut self, start: u64, metadata: &Metadata) {
        for copy in self.copies.iter_mut().filter(|c| c.error.is_none()) {
            copy.state = State::LeftOver;
        }
        for known in &metadata.copies {
            let offset = start.saturating_add(known.offset);
            let state = match (&known.error, known.used) {
                (Some(_), _) => State::Unusable,
                (None, true) => State::Used,
                (None, false) => State::Spare,
            };
            match self.copies.iter_mut().find(|c| c.offset == offset) {
                Some(copy) if copy.error.is_none() => copy.state = state,
                Some(_) => {}
                None => self.copies.push(Copy {
                    offset,
                    version: Some(metadata.version).filter(|_| known.error.is_none()),
                    role: known.role,
                    uuid: known.uuid.clone(),
                    label: known.label.clone(),
                    seqid: known.seqid,
                    state,
                    error: known.error.as_ref().map(|e| Error::corrupt(e.rule().to_owned(), e.message())),
                }),
            }
        }
        self.copies.sort_by_key(|c| c.offset);
    }
}

#[cfg(test)]
mod tests;
