//! QED, QEMU's enhanced disk (QEMU's docs/interop/qed_spec.rst). All numbers are little-endian.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0..4 | magic `QED\0` | 16..24 | features: 1 backing file, 2 need check, 4 raw backing file |
//! | 4..8 | cluster_size | 40..48 | l1_table_offset |
//! | 8..12 | table_size, in clusters | 48..56 | image_size |
//! | 12..16 | header_size, in clusters | 56..64 | backing_filename_offset, backing_filename_size |
//!
//! An entry of the L1 table is the place of an L2 table, an entry of that one the place of a cluster; 0 was never
//! written, and 1 is zeroes. No crate reads it.

use std::sync::Arc;

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::below::Below;
use super::cache::Pages;
use super::map::{Layout, Mapped, Place, Run};
use super::parent::{Kin, Wanted, give_it};
use super::{Format, fields};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;
use crate::num::from_u32;

/// The bytes that a QED image begins with.
pub(super) const MAGIC: [u8; 4] = *b"QED\0";

const BACKING_FILE: u64 = 1;
const NEED_CHECK: u64 = 2;
const BACKING_FILE_RAW: u64 = 4;
const KNOWN: u64 = 7;
const ZERO_CLUSTER: u64 = 1;
/// The longest name of a backing file that is shown.
const NAME_MAX: u32 = 1024;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    cluster_size: U32,
    table_size: U32,
    header_size: U32,
    features: U64,
    compat_features: U64,
    autoclear_features: U64,
    l1_table_offset: U64,
    image_size: U64,
    backing_filename_offset: U32,
    backing_filename_size: U32,
}
const _: () = assert!(size_of::<Header>() == 64);

/// Reads the header, and gives the disk.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
)]
pub(super) fn open(file: Arc<dyn ReadAt>, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Arc<dyn ReadAt>> {
    let header: Header = fields::read(&file, 0, "qed.header", "the QED header")?;
    let cluster = u64::from(header.cluster_size.get());
    if !cluster.is_power_of_two() || !(4096..=64 << 20).contains(&cluster) {
        let message = format!("found {cluster}; a power of two from 4096 to 67108864 is allowed");
        return Err(Error::corrupt("qed.cluster_size", message).at(4));
    }
    let table = u64::from(header.table_size.get());
    if !table.is_power_of_two() || table > 16 {
        let message = format!("found {table} clusters; 1, 2, 4, 8 and 16 are allowed");
        return Err(Error::corrupt("qed.table_size", message).at(8));
    }
    let features = header.features.get();
    if features & !KNOWN != 0 {
        let message = format!("found the features {features:#x}; those up to {KNOWN:#x} are known");
        return Err(Error::unsupported("qed.features", message).at(16));
    }
    let below = if features & BACKING_FILE != 0 { Some(backing_file(&file, &header, kin, notes)?) } else { None };
    if features & NEED_CHECK != 0 {
        notes.push("qed: the image was not closed; what its last user had not written is not in it".into());
    }
    let (size, entries) = (header.image_size.get(), table * cluster / 8);
    // At most 2^26 bytes in each of (2^27)^2 clusters: that is above 2^64 for the largest only.
    let most = u128::from(entries) * u128::from(entries) * u128::from(cluster);
    if u128::from(size) > most || !size.is_multiple_of(512) {
        let message = format!("found {size}; a multiple of 512 up to {most} is allowed");
        return Err(Error::corrupt("qed.image_size", message).at(48));
    }
    let l1 = header.l1_table_offset.get();
    if l1 == 0 || !l1.is_multiple_of(cluster) {
        let message = format!("found {l1}; a non-zero multiple of the cluster's {cluster} bytes is allowed");
        return Err(Error::corrupt("qed.l1_table_offset", message).at(40));
    }
    fields::table_within(&file, l1, entries, 8, "qed.l1_table", "the L1 table")?;
    let pages = Pages::new(Arc::clone(&file));
    Ok(Arc::new(Mapped::new(Qed { file, pages, size, cluster, entries, l1, below })))
}

/// The disk of the backing file, out of those that were named.
fn backing_file(file: &dyn ReadAt, header: &Header, kin: &Kin<'_>, notes: &mut Vec<String>) -> Result<Below> {
    let len = from_u32(header.backing_filename_size.get().min(NAME_MAX));
    let mut name = vec![0; len];
    let at = u64::from(header.backing_filename_offset.get());
    fields::fill(file, &mut name, at, "qed.backing_filename", "the name of the backing file")?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let format = (header.features.get() & BACKING_FILE_RAW != 0).then_some(Format::Raw);
    kin.parent(&Wanted::Name { name: &name, format }, notes)?.ok_or_else(|| {
        let message = format!(
            "this image lies on top of {}, which is not followed: an image can name any file, and its maker would get to see it",
            escape(&name)
        );
        Error::unsupported("qed.backing_file", message).at(56).with_hint(give_it(kin))
    })
}

struct Qed {
    file: Arc<dyn ReadAt>,
    pages: Pages,
    size: u64,
    cluster: u64,
    /// Entries of a table.
    entries: u64,
    l1: u64,
    below: Option<Below>,
}

impl Qed {
    /// The place of a table or a cluster that an entry gives.
    fn checked(&self, place: u64, offset: u64) -> Result<u64> {
        if place.is_multiple_of(self.cluster) && place < self.file.len() {
            return Ok(place);
        }
        let (cluster, end) = (self.cluster, self.file.len());
        let message = format!(
            "byte {offset} of the disk is said to lie at byte {place}; a multiple of {cluster} below the file's end, {end}, is allowed"
        );
        Err(Error::corrupt("qed.table", message))
    }
}

impl Layout for Qed {
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
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn run_at(&self, offset: u64, _wanted: u64) -> Result<Run> {
        let (number, skip) = (offset / self.cluster, offset % self.cluster);
        let (first, second) = (number / self.entries, number % self.entries);
        let l2 = u64::from_le_bytes(self.pages.entry(self.l1 + first * 8)?);
        if l2 == 0 {
            // All clusters of the table; its length is below 2^64, for both factors are below 2^27 and 2^26.
            let rest = (self.entries - second) * self.cluster - skip;
            return Ok(Run { len: rest, place: Place::Below });
        }
        // Both are below the file's length.
        let place = match u64::from_le_bytes(self.pages.entry(self.checked(l2, offset)? + second * 8)?) {
            0 => Place::Below,
            ZERO_CLUSTER => Place::Zero,
            place => Place::Stored(self.checked(place, offset)? + skip),
        };
        Ok(Run { len: self.cluster - skip, place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::format::Options;

    const CLUSTER: usize = 4096;

    fn open_alone(file: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
        open(file, &Kin::new(&Options::default(), &[]), &mut Vec::new())
    }

    fn header() -> Header {
        let mut header = Header::read_from_bytes(&[0; 64]).unwrap();
        header.magic = MAGIC;
        header.cluster_size = 4096.into();
        header.table_size = 1.into();
        header.header_size = 1.into();
        header.l1_table_offset = 4096.into();
        header.image_size = (3 * 4096).into();
        header
    }

    fn image(header: &Header, l2: [u64; 3]) -> Vec<u8> {
        let mut image = header.as_bytes().to_vec();
        image.resize(CLUSTER, 0);
        image.extend(8192u64.to_le_bytes());
        image.resize(2 * CLUSTER, 0);
        image.extend(l2.iter().flat_map(|e| e.to_le_bytes()));
        image.resize(3 * CLUSTER, 0);
        image.extend([[1u8; CLUSTER], [2; CLUSTER]].concat());
        image
    }

    #[test]
    fn clusters_lie_where_the_tables_say() {
        let disk = open_alone(Arc::new(image(&header(), [4 * 4096, 1, 3 * 4096]))).unwrap();
        let mut found = vec![9; 3 * CLUSTER];
        disk.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [[2; CLUSTER], [0; CLUSTER], [1; CLUSTER]].concat());
        for place in [4097, 5 * 4096, u64::MAX] {
            let disk = open_alone(Arc::new(image(&header(), [place, 0, 0]))).unwrap();
            assert_eq!(disk.read_exact_at(&mut [0; 1], 0).unwrap_err().rule(), "qed.table");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_its_field() {
        let refused = |change: fn(&mut Header)| {
            let mut header = header();
            change(&mut header);
            let e = open_alone(Arc::new(image(&header, [0; 3]))).err().unwrap();
            (e.kind(), e.rule().to_owned())
        };
        assert_eq!(refused(|h| h.cluster_size = 0.into()), (ErrorKind::Corrupt, "qed.cluster_size".into()));
        assert_eq!(refused(|h| h.table_size = 3.into()), (ErrorKind::Corrupt, "qed.table_size".into()));
        assert_eq!(refused(|h| h.features = 8.into()), (ErrorKind::Unsupported, "qed.features".into()));
        assert_eq!(refused(|h| h.features = 1.into()), (ErrorKind::Unsupported, "qed.backing_file".into()));
        assert_eq!(refused(|h| h.image_size = u64::MAX.into()), (ErrorKind::Corrupt, "qed.image_size".into()));
        assert_eq!(refused(|h| h.l1_table_offset = 4097.into()), (ErrorKind::Corrupt, "qed.l1_table_offset".into()));
        assert_eq!(refused(|h| h.l1_table_offset = (1 << 40).into()), (ErrorKind::Corrupt, "qed.l1_table".into()));
    }
}
