//! NTFS, through `ntfs-core`. Its names are Unicode, and here UTF-8; letters are the same whatever their case.
//!
//! The crate reads files whole. Here it says where they lie ([`NtfsFs::runs_by_record`]), and their bytes are read by
//! position; a compressed one is read whole by the crate, up to a limit. What lies behind a file's valid bytes is zeroes.

use std::sync::Arc;

use ntfs_core::standard_information::StandardInformation;
use ntfs_core::{
    Attribute, AttributeBody, MftRecordHeader, NtfsError, NtfsFs, Run, parse_attribute_list, parse_attributes,
    read_attribute_value,
};

use super::disk::{Disk, DiskCursor};
use super::known::Known;
use super::{Entry, FileKind, FileSystem, Metadata, absent, check_path, join, not_a};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;
use crate::limits::READER_WHOLE_MAX;
use crate::num::{at_most, to_u64, to_usize};

const ROOT: u64 = 5;
/// The records of the file system's own files, which no directory shows.
const OWN: u64 = 16;
const STANDARD_INFORMATION: u32 = 0x10;
const ATTRIBUTE_LIST: u32 = 0x20;
const DATA: u32 = 0x80;
/// `FILE_ATTRIBUTE_REPARSE_POINT`: a link, a junction, or a file whose contents another driver makes.
const REPARSE_POINT: u32 = 0x400;

pub(super) struct Ntfs {
    disk: Disk,
    fs: NtfsFs<DiskCursor>,
    known: Known<u64>,
    file: Option<(u64, Data)>,
}

/// A file's contents.
enum Data {
    /// In its record, or decompressed.
    Here(Vec<u8>),
    There {
        runs: Vec<Run>,
        len: u64,
        /// Those that were written.
        valid: u64,
    },
}

fn explain(e: &NtfsError) -> Error {
    match e {
        NtfsError::NotFound(_) => absent(),
        NtfsError::NotADirectory(_) => not_a("directory"),
        e => Error::corrupt("reader.ntfs", escape(&e.to_string())),
    }
}

impl Ntfs {
    pub(super) fn open(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let disk = Disk::new(disk);
        let fs =
            disk.operation(|| NtfsFs::open(disk.cursor()).map_err(|e| explain(&e).within("opening the file system")))?;
        Ok(Self { disk, fs, known: Known::new(), file: None })
    }

    fn record(&mut self, path: &[u8]) -> Result<u64> {
        check_path(path)?;
        if path == b"/" {
            return Ok(ROOT);
        }
        if let Some(record) = self.known.get(path) {
            return Ok(record);
        }
        let (mut at, mut here) = (ROOT, b"/".to_vec());
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let name = std::str::from_utf8(name).map_err(|_| absent())?;
            let entries = self.names(at)?;
            let exact = entries.iter().find(|(_, there)| there == name);
            let folded = || entries.iter().find(|(_, there)| there.to_lowercase() == name.to_lowercase());
            at = exact.or_else(folded).ok_or_else(absent)?.0;
            here = join(&here, name.as_bytes())?;
        }
        self.known.add(here, at);
        Ok(at)
    }

    /// The names in a directory, each once, and the records that they lead to.
    fn names(&self, record: u64) -> Result<Vec<(u64, String)>> {
        let entries = self.disk.operation(|| {
            let record = self.fs.read_record(record).map_err(|e| explain(&e))?;
            self.fs.directory_entries(&record).map_err(|e| explain(&e))
        })?;
        let names = entries.into_iter().filter_map(|entry| {
            let name = entry.file_name.filter(|name| !name.is_dos_namespace())?;
            let record = entry.file_reference.record_number;
            (record >= OWN).then_some((record, name.name))
        });
        Ok(names.collect())
    }

    fn describe(&self, record: u64) -> Result<Metadata> {
        self.disk.operation(|| {
            let bytes = self.fs.read_record(record).map_err(|e| explain(&e))?;
            let header = MftRecordHeader::parse(&bytes).map_err(|e| explain(&e))?;
            let attributes = parse_attributes(&bytes, header.first_attribute_offset.into());
            let attributes = attributes.map_err(|e| explain(&e))?;
            let standard = attributes.iter().find(|a| a.type_code == STANDARD_INFORMATION);
            let standard = standard.and_then(|a| a.resident_content(&bytes));
            let standard = standard.and_then(|bytes| StandardInformation::parse(bytes).ok());
            let is_reparse = standard.as_ref().is_some_and(|s| s.file_attributes & REPARSE_POINT != 0);
            let data = if header.is_directory() { None } else { self.data_attribute(&bytes, attributes)? };
            let size = match data.map(|data| data.body) {
                Some(AttributeBody::Resident { content_length, .. }) => u64::from(content_length),
                Some(AttributeBody::NonResident { real_size, .. }) => real_size,
                None => 0,
            };
            let kind = if is_reparse {
                FileKind::Special
            } else if header.is_directory() {
                FileKind::Directory
            } else {
                FileKind::File
            };
            let modified = standard.map(|s| {
                let nanos = s.modified.to_unix_nanos();
                let second = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(0);
                (second, u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0))
            });
            Ok(Metadata { modified, id: Some(record), ..Metadata::new(kind, size) })
        })
    }

    /// What describes a file's data: in its own record, or in the one that its list of attributes names.
    fn data_attribute(&self, bytes: &[u8], attributes: Vec<Attribute>) -> Result<Option<Attribute>> {
        let list = attributes.iter().find(|a| a.type_code == ATTRIBUTE_LIST).cloned();
        let own = attributes.into_iter().find(|a| a.type_code == DATA && a.name.is_none());
        let Some(list) = list.filter(|_| own.is_none()) else { return Ok(own) };
        let value = read_attribute_value(&mut self.disk.cursor(), bytes, &list, self.fs.boot().cluster_size());
        let entries = parse_attribute_list(&value.map_err(|e| explain(&e))?).map_err(|e| explain(&e))?;
        let first = entries.iter().find(|e| e.type_code == DATA && e.name.is_none() && e.start_vcn == 0);
        let Some(first) = first else { return Ok(None) };
        let bytes = self.fs.read_record(first.base_reference.record_number).map_err(|e| explain(&e))?;
        let header = MftRecordHeader::parse(&bytes).map_err(|e| explain(&e))?;
        let attributes = parse_attributes(&bytes, header.first_attribute_offset.into()).map_err(|e| explain(&e))?;
        Ok(attributes.into_iter().find(|a| a.type_code == DATA && a.name.is_none()))
    }

    fn data(&self, record: u64) -> Result<Data> {
        let bytes = self.fs.read_record(record).map_err(|e| explain(&e))?;
        let header = MftRecordHeader::parse(&bytes).map_err(|e| explain(&e))?;
        if header.is_directory() {
            return Err(not_a("regular file"));
        }
        let attributes = parse_attributes(&bytes, header.first_attribute_offset.into());
        let attributes = attributes.map_err(|e| explain(&e))?;
        let data = self.data_attribute(&bytes, attributes)?;
        if data.as_ref().is_some_and(Attribute::is_encrypted) {
            return Err(Error::unsupported("reader.ntfs", "found a file that the file system encrypts"));
        }
        let whole = |len: u64| {
            if len > READER_WHOLE_MAX {
                let message = format!("found a compressed file of {len} bytes; {READER_WHOLE_MAX} are allowed");
                return Err(Error::limit("reader.whole", message));
            }
            let read = self.fs.read_data_by_record(record, None, READER_WHOLE_MAX);
            read.map(Data::Here).map_err(|e| explain(&e))
        };
        match data.as_ref().map(|data| (&data.body, data.is_compressed())) {
            Some((AttributeBody::Resident { content_length, .. }, _)) => whole(u64::from(*content_length)),
            Some((AttributeBody::NonResident { real_size, .. }, true)) => whole(*real_size),
            Some((AttributeBody::NonResident { real_size, initialized_size, .. }, false)) => {
                let runs = self.fs.runs_by_record(record, None).map_err(|e| explain(&e))?;
                Ok(Data::There { runs, len: *real_size, valid: *initialized_size })
            }
            None => Ok(Data::Here(Vec::new())),
        }
    }
}

impl FileSystem for Ntfs {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        let record = self.record(path)?;
        self.describe(record)
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let record = self.record(path)?;
        for (record, name) in self.names(record)? {
            let name = name.into_bytes();
            if let Ok(below) = join(path, &name) {
                self.known.add(below, record);
            }
            let metadata = self.describe(record).map_err(|e| e.to_string());
            take(Entry { name, metadata })?;
        }
        Ok(())
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        let record = self.record(path)?;
        if self.file.as_ref().is_none_or(|(there, _)| *there != record) {
            let data = self.disk.operation(|| self.data(record))?;
            self.file = Some((record, data));
        }
        let Some((_, data)) = &self.file else { return Ok(0) };
        match data {
            Data::Here(bytes) => {
                let rest = to_usize(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
                let len = rest.len().min(buf.len());
                buf[..len].copy_from_slice(&rest[..len]);
                Ok(len)
            }
            Data::There { runs, len, valid } => {
                let there = at_most(len.saturating_sub(offset), buf.len());
                let buf = &mut buf[..there];
                self.disk.operation(|| read_runs(&self.disk, runs, self.fs.boot().cluster_size(), offset, buf))?;
                let written = at_most(valid.saturating_sub(offset), buf.len());
                buf[written..].fill(0);
                Ok(there)
            }
        }
    }

    fn read_link(&mut self, _: &[u8]) -> Result<Vec<u8>> {
        Err(not_a("link that is read"))
    }
}

/// Bytes of a file that lies in runs of clusters; a run without a place is zeroes.
fn read_runs(disk: &Disk, runs: &[Run], cluster: u64, offset: u64, buf: &mut [u8]) -> Result<()> {
    buf.fill(0);
    let end = offset.saturating_add(to_u64(buf.len()));
    let mut start = 0u64;
    for run in runs {
        let len = run.length.saturating_mul(cluster);
        let (from, to) = (start.max(offset), start.saturating_add(len).min(end));
        if let (Some(lcn), true) = (run.lcn, from < to) {
            let stored = lcn.saturating_mul(cluster).saturating_add(from.saturating_sub(start));
            let (a, b) = (from.saturating_sub(offset), to.saturating_sub(offset));
            disk.read(stored, &mut buf[to_usize(a)?..to_usize(b)?])?;
        }
        start = start.saturating_add(len);
        if start >= end {
            return Ok(());
        }
    }
    Err(Error::corrupt("reader.ntfs", format!("the runs of the file end after {start} bytes")))
}
