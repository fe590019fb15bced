//! Container files and partition tables: whatever opens can be read and walked, within its bounds.
//!
//! A file comes in pieces, so that an input is small where its file is sparse: the number of a 512-byte sector and a
//! length, both 16 bits and big-endian, and that many bytes; what no piece covers is zero. Checksums are made right
//! afterwards, so that a mutation gets past them.

use std::sync::Arc;

use unluks::format::{Contents, Format, Mapping, Options, Set, open};
use unluks::io::Window;
use unluks::limits::CONTAINER_SIZE_MAX;
use unluks::progress::Progress;
use unluks::{Error, ErrorKind, ReadAt, Result, storage};

use super::{check_error, check_line};

const SECTOR: usize = 512;
/// How much of a disk is read: a mutated file may declare any size.
const READ_MAX: u64 = 1 << 20;
/// How many extents of a disk are looked at.
const EXTENTS: usize = 64;

/// A file in pieces; a later one covers an earlier one.
#[derive(Clone, Default)]
pub(super) struct Pieces {
    pieces: Vec<(u64, Vec<u8>)>,
    len: u64,
}

impl Pieces {
    pub(super) fn parse(mut input: &[u8]) -> Self {
        let mut file = Self::default();
        while let Some((head, rest)) = input.split_first_chunk::<4>() {
            let at = u64::from(u16::from_be_bytes([head[0], head[1]])) * SECTOR as u64;
            let len = usize::from(u16::from_be_bytes([head[2], head[3]])).min(rest.len());
            let (piece, rest) = rest.split_at(len);
            file.put(at, piece);
            input = rest;
        }
        file
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.len = self.len.max(at + bytes.len() as u64);
        self.pieces.push((at, bytes.to_vec()));
    }

    /// `len` bytes at `at`, where the file has them.
    pub(super) fn get(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    pub(super) fn get_u64(&self, at: u64) -> Option<u64> {
        self.get(at, 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()))
    }

    /// Puts the checksum of `len` bytes at `at` to their byte `field`, where it counts as zero.
    pub(super) fn fix(&mut self, at: u64, len: usize, field: usize, checksum: impl Fn(&[u8]) -> [u8; 4]) {
        let Some(mut bytes) = self.get(at, len) else { return };
        bytes[field..field + 4].fill(0);
        self.put(at + field as u64, &checksum(&bytes));
    }

    /// Puts the checksum of `len` bytes at `at` behind them.
    fn fix_behind(&mut self, at: u64, len: usize, checksum: impl Fn(&[u8]) -> [u8; 4]) {
        let Some(bytes) = self.get(at, len) else { return };
        if at + len as u64 + 4 <= self.len {
            self.put(at + len as u64, &checksum(&bytes));
        }
    }
}

impl ReadAt for Pieces {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let Some(end) = end.filter(|end| *end <= self.len) else {
            return Err(Error::new(ErrorKind::Io, "beyond the end of the source").at(offset));
        };
        buf.fill(0);
        for (at, piece) in &self.pieces {
            let from = offset.max(*at);
            let to = end.min(at + piece.len() as u64);
            if from < to {
                let source = (from - at) as usize..(to - at) as usize;
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&piece[source]);
            }
        }
        Ok(())
    }
}

/// VHD's checksum: the complement of the sum of all bytes.
fn complement(bytes: &[u8]) -> [u8; 4] {
    (!bytes.iter().fold(0u32, |sum, b| sum + u32::from(*b))).to_be_bytes()
}

fn crc32c_of(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).to_le_bytes()
}

fn crc32_of(bytes: &[u8]) -> [u8; 4] {
    crc32fast::hash(bytes).to_le_bytes()
}

fn adler_of(bytes: &[u8]) -> [u8; 4] {
    adler2::adler32_slice(bytes).to_le_bytes()
}

fn fix_vhd(file: &mut Pieces) {
    // The dynamic header lies where the footer says; the footer is at the end, and a copy at the start.
    if let Some(at) = file.get(16, 8) {
        file.fix(u64::from_be_bytes(at.try_into().unwrap()), 1024, 36, complement);
    }
    for at in [0, file.len.saturating_sub(SECTOR as u64)] {
        file.fix(at, SECTOR, 64, complement);
    }
}

fn fix_vhdx(file: &mut Pieces) {
    for at in [64 << 10, 128 << 10] {
        file.fix(at, 4096, 4, crc32c_of);
    }
    for at in [192 << 10, 256 << 10] {
        file.fix(at, 64 << 10, 4, crc32c_of);
    }
}

fn fix_ewf(file: &mut Pieces) {
    let mut at = 13;
    for _ in 0..32 {
        let Some(kind) = file.get(at, 16) else { return };
        match kind.as_slice() {
            k if k.starts_with(b"volume\0") || k.starts_with(b"disk\0") => file.fix_behind(at + 76, 1048, adler_of),
            k if k.starts_with(b"table") => {
                file.fix_behind(at + 76, 20, adler_of);
                let entries = file.get(at + 76, 4).map_or(0, |n| u32::from_le_bytes(n.try_into().unwrap()).min(4096));
                file.fix_behind(at + 76 + 24, entries as usize * 4, adler_of);
            }
            _ => {}
        }
        file.fix_behind(at, 72, adler_of);
        match file.get_u64(at + 16) {
            Some(next) if next > at => at = next,
            _ => return,
        }
    }
}

/// The same of version 2, from the end back.
fn fix_ewf2(file: &mut Pieces) {
    let mut at = file.len.saturating_sub(64);
    for _ in 0..32 {
        if file.get(at, 4).is_some_and(|kind| kind == [4, 0, 0, 0]) {
            let table = at.saturating_sub(file.get_u64(at + 16).unwrap_or(0));
            file.fix_behind(table, 16, adler_of);
            let entries = file.get(table + 8, 4).map_or(0, |n| u32::from_le_bytes(n.try_into().unwrap()).min(4096));
            file.fix_behind(table + 32, entries as usize * 16, adler_of);
        }
        file.fix_behind(at, 60, adler_of);
        match file.get_u64(at + 8) {
            Some(previous) if previous < at && previous > 0 => at = previous,
            _ => return,
        }
    }
}

fn fix_gpt(file: &mut Pieces) {
    for header in [SECTOR as u64, file.len.saturating_sub(SECTOR as u64)] {
        let Some(fields) = file.get(header, 92) else { continue };
        let u32_at = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().unwrap()) as usize;
        let entries = file.get_u64(header + 72).and_then(|lba| lba.checked_mul(SECTOR as u64));
        let size = u32_at(80).saturating_mul(u32_at(84)).min(1 << 20);
        if let Some(bytes) = entries.and_then(|at| file.get(at, size)) {
            file.put(header + 88, &crc32_of(&bytes));
        }
        file.fix(header, u32_at(12).clamp(92, SECTOR), 16, crc32_of);
    }
}

/// Opens a container, reads its start and its end, and walks its extents.
fn container(format: Format, file: Pieces) -> bool {
    let result = exercise(format, Arc::new(file));
    result.inspect_err(check_error).is_ok()
}

fn exercise(format: Format, file: Arc<Pieces>) -> Result<()> {
    let opened = open(file, Options { format: Some(format), ..Options::default() })?;
    opened.notes.iter().for_each(|note| check_line(note));
    assert!(opened.contents.size() <= CONTAINER_SIZE_MAX);
    for book in &opened.checks.books {
        book.check(&Progress::default())?.iter().for_each(|doubt| check_line(&doubt.message));
    }
    match opened.contents {
        Contents::Disk(disk) => walk(&*disk),
        Contents::Qcow2Luks(luks) => {
            let mut at = 0;
            for _ in 0..EXTENTS {
                if at >= luks.clusters.virtual_size() {
                    break;
                }
                let len = match luks.clusters.map(at, 1 << 20)? {
                    Mapping::Zero { len } => len,
                    Mapping::Host { offset, len } => {
                        assert!(offset + len <= luks.clusters.file().len());
                        len
                    }
                };
                assert!(len > 0);
                at += len;
            }
            let mut header = vec![0; luks.header.len().min(4096) as usize];
            luks.header.read_exact_at(&mut header, 0)
        }
    }
}

pub(super) fn walk(disk: &dyn ReadAt) -> Result<()> {
    let mut at = 0;
    for _ in 0..EXTENTS {
        if at >= disk.len() {
            break;
        }
        let extent = disk.extent_at(at)?;
        assert!(extent.len > 0 && extent.len <= disk.len() - at, "{extent:?} at byte {at}");
        at += extent.len;
    }
    let mut buf = vec![0; disk.len().min(READ_MAX) as usize];
    disk.read_exact_at(&mut buf, 0)?;
    let last = buf.len().min(SECTOR);
    disk.read_exact_at(&mut buf[..last], disk.len() - last as u64)
}

pub(super) fn qcow2(data: &[u8]) -> bool {
    container(Format::Qcow2, Pieces::parse(data))
}

pub(super) fn vhd(data: &[u8]) -> bool {
    let mut file = Pieces::parse(data);
    fix_vhd(&mut file);
    container(Format::Vhd, file)
}

pub(super) fn vhdx(data: &[u8]) -> bool {
    let mut file = Pieces::parse(data);
    fix_vhdx(&mut file);
    container(Format::Vhdx, file)
}

pub(super) fn vmdk(data: &[u8]) -> bool {
    container(Format::Vmdk, Pieces::parse(data))
}

pub(super) fn ewf(data: &[u8]) -> bool {
    let mut file = Pieces::parse(data);
    if file.get(0, 4).is_some_and(|magic| magic == *b"EVF2") {
        fix_ewf2(&mut file);
    } else {
        fix_ewf(&mut file);
    }
    container(Format::Ewf, file)
}

pub(super) fn vdi(data: &[u8]) -> bool {
    container(Format::Vdi, Pieces::parse(data))
}

pub(super) fn parallels(data: &[u8]) -> bool {
    container(Format::Parallels, Pieces::parse(data))
}

pub(super) fn qed(data: &[u8]) -> bool {
    container(Format::Qed, Pieces::parse(data))
}

pub(super) fn qcow(data: &[u8]) -> bool {
    container(Format::Qcow, Pieces::parse(data))
}

pub(super) fn android(data: &[u8]) -> bool {
    container(Format::AndroidSparse, Pieces::parse(data))
}

pub(super) fn rbd(data: &[u8]) -> bool {
    container(Format::Rbd, Pieces::parse(data))
}

/// Puts the CRC-32 of each member that is stored and small into an archive's directory, which has numbers of 32 bits.
fn fix_aff4(file: &mut Pieces) {
    const MEMBERS: usize = 64;
    const LEN_MAX: usize = 64 << 10;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    // The comment is the name of the volume.
    let Some(end) = file.len.checked_sub(22 + 43).and_then(|at| file.get(at, 22)) else { return };
    let mut at = number(&end[16..20]);
    for _ in 0..MEMBERS {
        let Some(entry) = file.get(at, 46).filter(|entry| entry.starts_with(b"PK\x01\x02")) else { return };
        let (len, header_at) = (number(&entry[20..24]) as usize, number(&entry[42..46]));
        if len <= LEN_MAX
            && let Some(header) = file.get(header_at, 30)
            && let data_at = header_at + 30 + number(&header[26..28]) + number(&header[28..30])
            && let Some(data) = file.get(data_at, len)
        {
            file.put(at + 16, &crc32_of(&data));
        }
        at += 46 + number(&entry[28..30]) + number(&entry[30..32]) + number(&entry[32..34]);
    }
}

pub(super) fn aff4(data: &[u8]) -> bool {
    let mut file = Pieces::parse(data);
    fix_aff4(&mut file);
    container(Format::Aff4, file)
}

/// A VMDK descriptor, a zero byte, and the one file that all its extents lie in; that file in pieces, too, which read as
/// the whole.
pub(super) fn sets(data: &[u8]) -> bool {
    let at = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (descriptor, rest) = data.split_at(at);
    let file: Arc<dyn ReadAt> = Arc::new(Pieces::parse(rest.get(1..).unwrap_or_default()));
    let third = file.len() / 3;
    let part = |start: u64, len: Option<u64>| Arc::new(Window::new(Arc::clone(&file), start, len).unwrap());
    let segments: Vec<Arc<dyn ReadAt>> = vec![part(third, Some(third)), part(2 * third, None)];
    let options = Options { format: Some(Format::Raw), segments, set: Set::Pieces, ..Options::default() };
    let Contents::Disk(joined) = open(part(0, Some(third)), options).unwrap().contents else { panic!("raw is raw") };
    let len = file.len().min(READ_MAX);
    let [mut whole, mut found] = [(); 2].map(|()| vec![0; len as usize]);
    file.read_exact_at(&mut whole, 0).unwrap();
    joined.read_exact_at(&mut found, 0).unwrap();
    assert!(joined.len() == file.len() && whole == found);

    // How many files the descriptor names is its own affair: the first number that it takes is right.
    (0..8).any(|files| {
        let segments = std::iter::repeat_n(Arc::clone(&file), files).collect();
        let options = Options { format: Some(Format::Vmdk), segments, set: Set::Extents, ..Options::default() };
        let opened = open(Arc::new(descriptor.to_vec()), options);
        let read = opened.and_then(|opened| match opened.contents {
            Contents::Disk(disk) => walk(&*disk),
            Contents::Qcow2Luks(_) => panic!("a VMDK has no clusters"),
        });
        read.inspect_err(check_error).is_ok()
    })
}

/// GPT and MBR, with sectors of 512 and of 4096 bytes.
pub(super) fn partitions(data: &[u8]) -> bool {
    let mut disk = Pieces::parse(data);
    fix_gpt(&mut disk);
    let mut found = false;
    for sector_size in [None, Some(512), Some(4096)] {
        let Ok(table) = storage::list(&disk, sector_size).inspect_err(check_error) else { continue };
        let Some(table) = table else { continue };
        table.notes.iter().for_each(|note| check_line(note));
        let _ = table.luks(&disk).inspect_err(check_error);
        for entry in &table.entries {
            check_line(&entry.to_string());
            assert!(entry.len > 0 && entry.start.checked_add(entry.len).is_some());
            found |= entry.open(&disk).inspect_err(check_error).is_ok();
            let _ = table.find(&entry.number.to_string()).inspect_err(check_error).unwrap();
        }
    }
    let _ = storage::is_lvm(&disk).inspect_err(check_error);
    found
}
