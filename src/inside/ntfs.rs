//! NTFS: the boot sector and its copy, the first records of the MFT and their mirror, the volume's name and flags.
//!
//! | boot bytes | field | record bytes | field |
//! |---|---|---|---|
//! | 3 | `NTFS    ` | 0 | `FILE` |
//! | 11, 13 | bytes a sector, sectors a cluster | 4, 6 | update sequence: place, count |
//! | 14..21, 22..28 | zeroes | 20, 22 | first attribute; flags: bit 0 in use |
//! | 40 | sectors, without that of the copy | attribute | type, length; 16 length, 20 place of a resident value |
//! | 48, 56 | clusters of $MFT and $MFTMirr | 0x60 | $VOLUME_NAME, UTF-16 |
//! | 64 | size of a record: clusters, or a power of 2 | 0x70 | $VOLUME_INFORMATION: 10 flags, bit 0 dirty |
//! | 72, 510 | serial number, 0x55 0xaa | | |
//!
//! All little-endian. In each 512 bytes of a record the last two are replaced by a number, and stand in the update
//! sequence: a write that was torn shows there. The source is the Linux-NTFS project's documentation and Linux's
//! `fs/ntfs3/super.c`.

mod attributes;
mod full;
mod index;

use super::look::{Look, field, le16, le32, le64, text16};
use super::{Contents, Kind, Level, Severity, State};
use crate::num::{to_u64, to_usize};

const STRIDE: usize = 512;
const RECORD_MAX: u64 = 4096;
const RECORDS_MIRRORED: u64 = 4;
const VOLUME: u64 = 3;

struct Boot {
    bytes: Vec<u8>,
    sector: u64,
    cluster: u64,
    sectors: u64,
    record: u64,
}

impl Boot {
    fn read(look: &Look<'_>, offset: u64) -> Option<Self> {
        let bytes = look.bytes(offset, 512)?;
        let sector = u64::from(le16(&bytes, 11));
        let [per_cluster] = field::<1>(&bytes, 13);
        // Above 0x80 it is a negative power of 2.
        let per_cluster = match per_cluster {
            0xf4..=0xff => 1u64 << 0u8.wrapping_sub(per_cluster),
            n => u64::from(n),
        };
        let cluster = per_cluster.checked_mul(sector)?;
        let [record] = field::<1>(&bytes, 64);
        let record = match record {
            1..0x80 => u64::from(record).checked_mul(cluster)?,
            0xe1..=0xff => 1u64 << 0u8.wrapping_sub(record),
            _ => return None,
        };
        let zeroes = [bytes.get(14..21)?, bytes.get(22..24)?, bytes.get(32..36)?];
        let sane = bytes.get(3..11) == Some(b"NTFS    ")
            && bytes.get(510..512) == Some(&[0x55, 0xaa])
            && matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && zeroes.into_iter().flatten().all(|b| *b == 0)
            && record.is_power_of_two()
            && (512..=RECORD_MAX).contains(&record);
        let boot = Self { sector, cluster, sectors: le64(&bytes, 40), record, bytes };
        let clusters = boot.sectors.checked_div(per_cluster)?;
        let places = [boot.mft_cluster(), boot.mirror_cluster()];
        (sane && boot.sectors > 0 && places.into_iter().all(|place| place < clusters)).then_some(boot)
    }

    fn mft_cluster(&self) -> u64 {
        le64(&self.bytes, 48)
    }

    fn mirror_cluster(&self) -> u64 {
        le64(&self.bytes, 56)
    }

    fn copy_at(&self) -> u64 {
        self.sectors.saturating_mul(self.sector)
    }

    /// Record `n` as it lies at a cluster.
    fn place(&self, cluster: u64, n: u64) -> u64 {
        cluster.saturating_mul(self.cluster).saturating_add(n.saturating_mul(self.record))
    }

    fn volume(&self, look: &Look<'_>) -> Option<Vec<u8>> {
        let read = |cluster| {
            let bytes = look.bytes(self.place(cluster, VOLUME), to_usize(self.record).ok()?)?;
            restore(bytes).ok()
        };
        read(self.mft_cluster()).or_else(|| read(self.mirror_cluster()))
    }

    fn contents(&self, look: &Look<'_>) -> Contents {
        let mut contents = Contents::new(Kind::Ntfs, look);
        let serial = le64(&self.bytes, 72);
        contents.uuid = (serial != 0).then(|| format!("{serial:016X}"));
        contents.block_size = Some(self.cluster);
        contents.size = Some(self.copy_at().saturating_add(self.sector));
        if let Some(volume) = self.volume(look) {
            contents.label = attribute(&volume, 0x60).and_then(|name| text16(name, u16::from_le_bytes));
            contents.state = match attribute(&volume, 0x70).map(|value| le16(value, 10) & 1) {
                Some(0) => State::Clean,
                Some(_) => State::Unclean,
                None => State::Unknown,
            };
        }
        contents
    }
}

/// A record with its own bytes in the place of the update sequence's number; what is wrong with it otherwise.
fn restore(record: Vec<u8>) -> Result<Vec<u8>, (String, String)> {
    restore_as(*b"FILE", record)
}

/// The same of what has another mark.
fn restore_as(mark: [u8; 4], mut record: Vec<u8>) -> Result<Vec<u8>, (String, String)> {
    if !record.starts_with(&mark) {
        let found = format!("\"{}\"", field::<4>(&record, 0).escape_ascii());
        return Err((found, format!("\"{}\" is wanted", mark.escape_ascii())));
    }
    let (at, count) = (usize::from(le16(&record, 4)), usize::from(le16(&record, 6)));
    let strides = record.len() / STRIDE;
    let sequence = at.checked_add(count.saturating_mul(2)).and_then(|end| record.get(at..end)).map(<[u8]>::to_vec);
    let Some(sequence) = sequence.filter(|_| count == strides.saturating_add(1)) else {
        let found = format!("an update sequence of {count} numbers at byte {at}");
        return Err((found, format!("one of {} is wanted", strides.saturating_add(1))));
    };
    let number: [u8; 2] = field(&sequence, 0);
    for (n, stride) in (1usize..).zip(record.chunks_exact_mut(STRIDE)) {
        if let Some(last) = stride.last_chunk_mut::<2>() {
            if *last != number {
                let found = format!("the number {:#06x} in sector {n} of it", u16::from_le_bytes(*last));
                return Err((found, format!("{:#06x} is wanted: a write was torn", u16::from_le_bytes(number))));
            }
            *last = field(&sequence, n.saturating_mul(2));
        }
    }
    Ok(record)
}

/// The value of the first resident attribute of a type.
fn attribute(record: &[u8], wanted: u32) -> Option<&[u8]> {
    let mut at = usize::from(le16(record, 20));
    // Each takes at least 24 of 4096 bytes.
    while let Some(attribute) = record.get(at..).filter(|rest| rest.len() >= 24) {
        let (kind, len) = (le32(attribute, 0), usize::try_from(le32(attribute, 4)).ok()?);
        if kind == u32::MAX || len < 24 {
            return None;
        }
        if kind == wanted && field(attribute, 8) == [0] {
            let (value_len, value) = (usize::try_from(le32(attribute, 16)).ok()?, usize::from(le16(attribute, 20)));
            return attribute.get(value..value.checked_add(value_len)?);
        }
        at = at.checked_add(len)?;
    }
    None
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    Boot::read(look, 0).map(|boot| boot.contents(look))
}

/// One whose first boot sector is lost: the copy is in the last sector of the partition.
pub(super) fn probe_backup(look: &Look<'_>) -> Option<Contents> {
    let at = look.len().checked_sub(512)?;
    let boot = Boot::read(look, at).filter(|boot| boot.sector == 512 && boot.copy_at() == at)?;
    let mut contents = boot.contents(look);
    let structure = ("the boot sector", 0);
    let expected = format!("its copy at byte {at} is whole");
    contents.find(Severity::Error, "contents.ntfs.boot-sector", structure, "no sane fields", expected);
    Some(contents)
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(boot) = Boot::read(look, 0) else { return };
    let structure = ("the copy of the boot sector", boot.copy_at());
    let code = "contents.ntfs.backup-boot-sector";
    match look.read(boot.copy_at(), 512) {
        Err(e) => contents.unread(look, structure, boot.sector, &e),
        Ok(copy) if copy.get(3..80) != boot.bytes.get(3..80) => {
            let found = if copy.get(3..11) == Some(b"NTFS    ") { "other fields" } else { "no boot sector" };
            contents.find(Severity::Warning, code, structure, found, "a copy of the first sector is wanted");
        }
        Ok(_) => {}
    }
    for n in 0..RECORDS_MIRRORED {
        check_record(look, &boot, n, contents);
    }
    if look.level() == Level::Full {
        full::check(look, &boot, contents);
    }
}

fn check_record(look: &Look<'_>, boot: &Boot, n: u64, contents: &mut Contents) {
    let copies = [("$MFT", boot.mft_cluster()), ("$MFTMirr", boot.mirror_cluster())];
    let Ok(len) = to_usize(boot.record) else { return };
    let mut whole: Vec<Vec<u8>> = Vec::new();
    for (name, cluster) in copies {
        let at = boot.place(cluster, n);
        let structure = || (format!("record {n} of {name}"), at);
        let is_mirror = name != "$MFT";
        let code = if is_mirror { "contents.ntfs.mft-mirror" } else { "contents.ntfs.mft-record" };
        let severity = if is_mirror { Severity::Warning } else { Severity::Error };
        match look.read(at, len).map(restore) {
            Err(e) => contents.unread(look, structure(), to_u64(len), &e),
            Ok(Err((found, expected))) => contents.find(severity, code, structure(), found, expected),
            Ok(Ok(record)) => match whole.first() {
                Some(first) if *first != record => {
                    let expected = "the record of $MFT is wanted";
                    contents.find(Severity::Warning, code, structure(), "another record", expected);
                }
                _ => whole.push(record),
            },
        }
    }
}
