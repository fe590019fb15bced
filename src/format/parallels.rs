//! Parallels' hard disk images (QEMU's docs/interop/parallels.rst). All numbers are little-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..16 | magic `WithoutFreeSpace` or `WithouFreSpacExt` | 36..44 | nb_sectors: of the disk |
//! | 16..20 | version: 2 | 44..48 | inuse |
//! | 28..32 | tracks: sectors of a cluster | 48..52 | data_off: sector of the data |
//! | 32..36 | bat_entries | 56..64 | ext_off: sector of the extensions |
//!
//! The block allocation table follows at byte 64. An entry is a place in the file: in sectors with the first magic, in
//! clusters with the second; 0 was never written. No crate reads it.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cache::Pages;
use super::fields;
use super::map::{Layout, Mapped, Place, Run};
use crate::error::{Error, Result};
use crate::io::ReadAt;

/// The magic of images whose table counts sectors.
pub(super) const MAGIC: [u8; 16] = *b"WithoutFreeSpace";
/// The magic of images whose table counts clusters.
pub(super) const MAGIC_EXT: [u8; 16] = *b"WithouFreSpacExt";

const SECTOR: u64 = 512;
/// What `inuse` says while a program has the image open for writing.
const IN_USE: u32 = 0x746f_6e59;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 16],
    version: U32,
    heads: U32,
    cylinders: U32,
    tracks: U32,
    bat_entries: U32,
    nb_sectors: U64,
    inuse: U32,
    data_off: U32,
    flags: U32,
    ext_off: U64,
}
const _: () = assert!(size_of::<Header>() == 64);

/// Reads the header, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let header: Header = fields::read(&file, 0, "parallels.header", "the Parallels header")?;
    let version = header.version.get();
    if version != 2 {
        return Err(Error::unsupported("parallels.version", format!("found {version}; version 2 is read")).at(16));
    }
    let is_ext = header.magic == MAGIC_EXT;
    // The older kind has only the low half of the number.
    let sectors = if is_ext { header.nb_sectors.get() } else { header.nb_sectors.get() & u64::from(u32::MAX) };
    let cluster = u64::from(header.tracks.get()) * SECTOR;
    if cluster == 0 {
        return Err(Error::corrupt("parallels.tracks", "found 0; the sectors of a cluster are wanted").at(28));
    }
    let entries = u64::from(header.bat_entries.get());
    // Both factors are below 2^41 and 2^32; the number of sectors is any.
    let size = sectors.checked_mul(SECTOR).filter(|size| size.div_ceil(cluster) <= entries).ok_or_else(|| {
        let message = format!("found {sectors}; {entries} clusters of {cluster} bytes are fewer");
        Error::corrupt("parallels.nb_sectors", message).at(36)
    })?;
    if header.inuse.get() == IN_USE {
        notes.push("parallels: the image was not closed; what its last user had not written is not in it".into());
    }
    fields::table_within(&file, 64, entries, 4, "parallels.bat", "the block allocation table")?;
    let (unit, pages) = (if is_ext { cluster } else { SECTOR }, Pages::new(Arc::clone(&file)));
    Ok(Arc::new(Mapped::new(Parallels { file, pages, size, cluster, unit })))
}

struct Parallels {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    cluster: u64,
    /// What the table counts in, in bytes.
    unit: u64,
}

impl Layout for Parallels {
    fn size(&self) -> u64 {
        self.size
    }

    fn file(&self) -> &dyn ReadAt {
        &self.file
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let (number, skip) = (offset / self.cluster, offset % self.cluster);
        let entry = u32::from_le_bytes(self.pages.entry(64 + number * 4)?);
        let wrong = || Error::corrupt("parallels.bat", format!("byte {offset} of the disk: its entry is {entry}"));
        let place = match entry {
            0 => Place::Zero,
            entry => {
                let at = u64::from(entry).checked_mul(self.unit).and_then(|at| at.checked_add(skip));
                Place::Stored(at.ok_or_else(wrong)?)
            }
        };
        Ok(Run { len: self.cluster - skip, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn header(magic: [u8; 16]) -> Header {
        let mut header = Header::read_from_bytes(&[0; 64]).unwrap();
        header.magic = magic;
        header.version = 2.into();
        header.tracks = 2.into();
        header.bat_entries = 3.into();
        header.nb_sectors = 5.into();
        header
    }

    fn image(header: &Header, bat: [u32; 3]) -> Vec<u8> {
        let mut image = header.as_bytes().to_vec();
        image.extend(bat.iter().flat_map(|b| b.to_le_bytes()));
        image.resize(1024, 0);
        image.extend([[1u8; 1024], [2; 1024]].concat());
        image
    }

    fn read(header: &Header, bat: [u32; 3]) -> Vec<u8> {
        let disk = open(Arc::new(image(header, bat)), &mut Vec::new()).unwrap();
        let mut found = vec![9; usize::try_from(disk.len()).unwrap()];
        disk.read_exact_at(&mut found, 0).unwrap();
        found
    }

    #[test]
    fn the_two_kinds_count_in_sectors_and_in_clusters() {
        let wanted = [vec![2; 1024], vec![0; 1024], vec![1; 512]].concat();
        assert_eq!(read(&header(MAGIC), [4, 0, 2]), wanted);
        assert_eq!(read(&header(MAGIC_EXT), [2, 0, 1]), wanted);
        let mut old = header(MAGIC);
        old.nb_sectors = (5 | 7 << 32).into();
        assert_eq!(read(&old, [4, 0, 2]), wanted, "the high half is not the older kind's");
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header(MAGIC_EXT);
            change(&mut header);
            let e = open(Arc::new(image(&header, [0; 3])), &mut Vec::new()).err().unwrap();
            (e.kind(), e.rule().to_owned())
        };
        assert_eq!(refused(|h| h.version = 3.into()), (ErrorKind::Unsupported, "parallels.version".into()));
        assert_eq!(refused(|h| h.tracks = 0.into()), (ErrorKind::Corrupt, "parallels.tracks".into()));
        assert_eq!(refused(|h| h.nb_sectors = 7.into()), (ErrorKind::Corrupt, "parallels.nb_sectors".into()));
        assert_eq!(refused(|h| h.nb_sectors = u64::MAX.into()), (ErrorKind::Corrupt, "parallels.nb_sectors".into()));
        assert_eq!(refused(|h| h.bat_entries = 9999.into()), (ErrorKind::Corrupt, "parallels.bat".into()));
    }
}
