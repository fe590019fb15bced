//! FAT12, FAT16 and FAT32, through `lamfat`. Its names are Unicode, and here UTF-8; letters are the same whatever their case.
//!
//! A chain of clusters may lead in a circle, which `lamfat` does not look for. A file's is followed for as many bytes as the
//! file has; a directory's, until the operation has read too much ([`Disk`]). What stands for a directory's number is the
//! byte that it begins at.

use std::sync::Arc;

use lamfat::{DefaultTimeProvider, FsOptions, LossyOemCpConverter, StdIoWrapper};

use super::disk::{Disk, DiskCursor};
use super::{Entry, FileKind, FileSystem, Metadata, absent, check_path, not_a, split};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;
use crate::limits::READER_EXTENTS_MAX;
use crate::num::{at_most, to_u64};

type Io = StdIoWrapper<DiskCursor>;
type Inner = lamfat::FileSystem<Io, DefaultTimeProvider, LossyOemCpConverter>;
type Dir<'a> = lamfat::Dir<'a, Io, DefaultTimeProvider, LossyOemCpConverter>;
type Found<'a> = lamfat::DirEntry<'a, Io, DefaultTimeProvider, LossyOemCpConverter>;

pub(super) struct Fat {
    disk: Disk,
    fs: Inner,
    /// Where the file lies that was read last.
    file: Option<(Vec<u8>, Vec<Run>)>,
}

/// Bytes of a file that lie together.
#[derive(Clone, Copy)]
struct Run {
    /// In the file.
    at: u64,
    /// On the disk.
    stored: u64,
    len: u64,
}

fn explain(e: &lamfat::Error<std::io::Error>) -> Error {
    match e {
        lamfat::Error::NotFound => absent(),
        lamfat::Error::InvalidInput => not_a("directory"),
        e => Error::corrupt("reader.fat", escape(&format!("{e:?}"))),
    }
}

impl Fat {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let options = FsOptions::new().update_accessed_date(false).strict(false);
        let fs = disk.operation(|| {
            let opened = Inner::new(disk.cursor(), options);
            opened.map_err(|e| explain(&e).within("opening the file system"))
        })?;
        Ok(Self { disk, fs, file: None })
    }
}

/// The directory of a path.
fn dir<'a>(fs: &'a Inner, path: &[u8]) -> Result<Dir<'a>> {
    let root = fs.root_dir();
    let text = std::str::from_utf8(path).map_err(|_| absent())?;
    let mut at = root;
    for name in text.split('/').filter(|name| !name.is_empty()) {
        let found = find(&at, name)?;
        if !found.is_dir() {
            return Err(not_a("directory"));
        }
        at = found.to_dir();
    }
    Ok(at)
}

fn find<'a>(dir: &Dir<'a>, name: &str) -> Result<Found<'a>> {
    let mut folded = None;
    for entry in dir.iter() {
        let entry = entry.map_err(|e| explain(&e))?;
        let there = entry.file_name();
        if there == name {
            return Ok(entry);
        }
        if folded.is_none() && there.to_lowercase() == name.to_lowercase() {
            folded = Some(entry);
        }
    }
    folded.ok_or_else(absent)
}

/// What an entry leads to.
fn entry<'a>(fs: &'a Inner, path: &[u8]) -> Result<Found<'a>> {
    let (above, name) = split(path).ok_or_else(|| not_a("regular file"))?;
    let name = std::str::from_utf8(name).map_err(|_| absent())?;
    find(&dir(fs, above)?, name)
}

/// Seconds since 1970 of a date and a time, taken as UTC (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn seconds(date: lamfat::Date, time: lamfat::Time) -> Option<i64> {
    let (year, month, day) = (i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let month = month.checked_add(9)?.checked_rem(12)?;
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = month.checked_mul(153)?.checked_add(2)?.checked_div(5)?.checked_add(day)?.checked_sub(1)?;
    let days = of_era.checked_mul(365)?.checked_add(of_era / 4)?.checked_sub(of_era / 100)?.checked_add(of_year)?;
    let days = era.checked_mul(146_097)?.checked_add(days)?.checked_sub(719_468)?;
    let hours = i64::from(time.hour).checked_mul(60)?.checked_add(i64::from(time.min))?;
    days.checked_mul(86_400)?.checked_add(hours.checked_mul(60)?)?.checked_add(i64::from(time.sec))
}

impl Fat {
    /// What of an entry is said, and what stands for its number.
    fn describe(disk: &Disk, entry: &Found<'_>) -> Metadata {
        let kind = if entry.is_dir() { FileKind::Directory } else { FileKind::File };
        let changed = entry.modified();
        let modified = seconds(changed.date, changed.time).map(|seconds| (seconds, 0));
        let id = entry.is_dir().then(|| {
            disk.watch();
            let _ = entry.to_dir().iter().next();
            disk.watched()
        });
        Metadata { modified, id: id.flatten(), ..Metadata::new(kind, entry.len()) }
    }
}

impl FileSystem for Fat {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        check_path(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| {
            if path == b"/" {
                disk.watch();
                let _ = fs.root_dir().iter().next();
                return Ok(Metadata { id: disk.watched(), ..Metadata::new(FileKind::Directory, 0) });
            }
            Ok(Self::describe(disk, &entry(fs, path)?))
        })
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        check_path(path)?;
        let Self { disk, fs, .. } = self;
        disk.operation(|| {
            for found in dir(fs, path)?.iter() {
                let found = found.map_err(|e| explain(&e))?;
                let name = found.file_name();
                if name != "." && name != ".." {
                    take(Entry { name: name.into_bytes(), metadata: Ok(Self::describe(disk, &found)) })?;
                }
            }
            Ok(())
        })
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        check_path(path)?;
        let Self { disk, fs, file } = self;
        disk.operation(|| {
            if file.as_ref().is_none_or(|(there, _)| there != path) {
                let entry = entry(fs, path)?;
                if entry.is_dir() {
                    return Err(not_a("regular file"));
                }
                *file = Some((path.to_vec(), runs(&entry)?));
            }
            let runs = file.as_ref().map(|(_, runs)| runs.as_slice()).unwrap_or_default();
            let mut done = 0;
            while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
                let at = offset.saturating_add(to_u64(done));
                let within = |run: &&Run| at >= run.at && at < run.at.saturating_add(run.len);
                let Some(run) = runs.iter().find(within) else { break };
                let skip = at.saturating_sub(run.at);
                let len = at_most(run.len.saturating_sub(skip), rest.len());
                disk.read(run.stored.saturating_add(skip), &mut rest[..len])?;
                done = done.saturating_add(len);
            }
            Ok(done)
        })
    }

    fn read_link(&mut self, _: &[u8]) -> Result<Vec<u8>> {
        Err(not_a("link"))
    }
}

/// Where a file lies. Its chain is followed no further than its length goes, and has to go so far.
fn runs(entry: &Found<'_>) -> Result<Vec<Run>> {
    let len = entry.len();
    let mut runs: Vec<Run> = Vec::new();
    let mut at = 0u64;
    if len == 0 {
        return Ok(runs);
    }
    for extent in entry.to_file().extents() {
        let extent = extent.map_err(|e| explain(&e))?;
        let size = u64::from(extent.size);
        let count = runs.len();
        match runs.last_mut() {
            Some(last) if last.stored.checked_add(last.len) == Some(extent.offset) => {
                last.len = last.len.saturating_add(size);
            }
            _ if count >= READER_EXTENTS_MAX => {
                let message = format!("found a file in more than {READER_EXTENTS_MAX} pieces");
                return Err(Error::limit("reader.extents", message));
            }
            _ => runs.push(Run { at, stored: extent.offset, len: size }),
        }
        at = at.saturating_add(size);
        if at >= len {
            return Ok(runs);
        }
    }
    let message = format!("the file has {len} bytes, and its chain of clusters ends after {at}");
    Err(Error::corrupt("reader.fat", message))
}
