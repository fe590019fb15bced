//! What `rbd export` and `rbd export-diff` write (Ceph's doc/dev/rbd-export.rst and rbd-diff.rst, and the code of
//! src/tools/rbd/action). All numbers are little-endian. Version 1 of `rbd export` is the raw disk.
//!
//! ```text
//! rbd image v2\n   records: tag, u64 length, data; ended by 'E' alone
//! rbd image diffs v2\n   u64 number of diffs, and then each:
//!   rbd diff v2\n   records: tag, u64 length, data; ended by 'e' alone
//! rbd diff v1\n    records: tag and data, whose length the tag tells; ended by 'e'
//! ```
//!
//! | tag | of a diff | data |
//! |---|---|---|
//! | f, t | the snapshots it goes from and to | u32 length and name |
//! | s | the disk's size | u64 |
//! | w | bytes that are written | u64 offset, u64 length, bytes |
//! | z | bytes that are zeroes now | u64 offset, u64 length |
//!
//! An exported image is its diffs laid over each other in their order. A diff that begins at a snapshot lies over the
//! disk as it was then; it is told apart, and opened with that disk as its base. No crate reads it.

use std::sync::Arc;

use super::fields;
use super::map::Mapped;
use super::runs::{Runs, RunsDisk, Source};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;
use crate::limits::RBD_RECORDS_MAX;
use crate::num::{to_u64, to_usize};

/// The banner of `rbd export --export-format 2`.
pub(super) const IMAGE: &[u8] = b"rbd image v2\n";
/// The banner of `rbd export-diff`.
pub(super) const DIFF_1: &[u8] = b"rbd diff v1\n";
/// The banner of each diff of an image, and of `rbd export-diff --export-format 2`.
pub(super) const DIFF_2: &[u8] = b"rbd diff v2\n";
const DIFFS: &[u8] = b"rbd image diffs v2\n";

/// The longest name of a snapshot that is kept.
const NAME_MAX: u64 = 4096;

/// Reads all records, and gives the disk.
pub(super) fn open(file: Arc<dyn ReadAt>) -> Result<Arc<dyn ReadAt>> {
    let mut reader = Reader { file: &*file, at: 0, records: 0 };
    let mut disk = Disk::default();
    if reader.skip_banner(IMAGE)? {
        reader.image_header()?;
        if !reader.skip_banner(DIFFS)? {
            return Err(reader.wrong("there is no list of diffs where one is wanted"));
        }
        for _ in 0..reader.u64()? {
            if !reader.skip_banner(DIFF_2)? {
                return Err(reader.wrong("there is no diff where one is wanted"));
            }
            reader.diff(&mut disk, true)?;
        }
    } else if reader.skip_banner(DIFF_1)? {
        reader.diff(&mut disk, false)?;
        disk.refuse_on_top()?;
    } else if reader.skip_banner(DIFF_2)? {
        reader.diff(&mut disk, true)?;
        disk.refuse_on_top()?;
    } else {
        return Err(reader.wrong("the file does not begin as one of rbd"));
    }
    let size = disk.size.ok_or_else(|| Error::corrupt("rbd.size", "no record says how large the disk is"))?;
    let runs = disk.runs;
    Ok(Arc::new(Mapped::new(RunsDisk { file, size, runs })))
}

/// What the records say so far.
#[derive(Default)]
struct Disk {
    size: Option<u64>,
    from: Option<String>,
    runs: Runs,
}

impl Disk {
    /// A diff from a snapshot on is no disk without the one below it.
    fn refuse_on_top(&self) -> Result<()> {
        match &self.from {
            None => Ok(()),
            Some(name) => {
                let message = format!(
                    "this is an rbd diff from the snapshot \"{}\" on: what did not change since is not in it",
                    escape(name)
                );
                Err(Error::unsupported("rbd.from_snap", message)
                    .with_hint("rbd import-diff lays it over the image; rbd export gives it whole"))
            }
        }
    }
}

struct Reader<'a> {
    file: &'a dyn ReadAt,
    at: u64,
    records: u64,
}

impl Reader<'_> {
    fn wrong(&self, what: impl Into<String>) -> Error {
        Error::corrupt("rbd.record", what.into()).at(self.at)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        fields::fill(self.file, &mut bytes, self.at, "container.truncated", "a record of the rbd file")?;
        self.skip(to_u64(N))?;
        Ok(bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// Goes on behind `len` bytes, which must be there.
    fn skip(&mut self, len: u64) -> Result<()> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.file.len());
        self.at = end.ok_or_else(|| {
            let message = format!("a record takes {len} bytes, but the file ends at byte {}", self.file.len());
            Error::corrupt("container.truncated", message)
                .at(self.at)
                .with_hint("the image file is cut off or damaged: fetch it again")
        })?;
        Ok(())
    }

    fn skip_banner(&mut self, banner: &[u8]) -> Result<bool> {
        let mut found = vec![0; banner.len()];
        if fields::fill(self.file, &mut found, self.at, "rbd.banner", "a banner").is_err() || found != banner {
            return Ok(false);
        }
        self.skip(to_u64(banner.len()))?;
        Ok(true)
    }

    #[expect(
        clippy::arithmetic_side_effects,
        reason = "open() bounds each factor: the tables lie within the file, and the disk within 2^64"
    )]
    fn count(&mut self) -> Result<()> {
        self.records += 1;
        if self.records > RBD_RECORDS_MAX {
            let message = format!("found more than {RBD_RECORDS_MAX} records, the most that are read");
            return Err(Error::limit("rbd.records", message).at(self.at));
        }
        Ok(())
    }

    /// Passes over what an image says of itself: order, features, stripes and metadata.
    fn image_header(&mut self) -> Result<()> {
        loop {
            self.count()?;
            let [tag] = self.bytes()?;
            if tag == b'E' {
                return Ok(());
            }
            let len = self.u64()?;
            self.skip(len)?;
        }
    }

    /// Reads one diff; with `lengths`, each record says how long it is.
    fn diff(&mut self, disk: &mut Disk, lengths: bool) -> Result<()> {
        loop {
            self.count()?;
            let [tag] = self.bytes()?;
            if tag == b'e' {
                return Ok(());
            }
            let end = if lengths {
                let len = self.u64()?;
                Some(self.at.checked_add(len).ok_or_else(|| self.wrong(format!("a record takes {len} bytes")))?)
            } else {
                None
            };
            match tag {
                b'f' => disk.from = Some(self.name()?),
                b't' => drop(self.name()?),
                b's' => disk.size = Some(self.u64()?),
                b'w' => {
                    let (start, len) = (self.u64()?, self.u64()?);
                    disk.runs.put(start, len, Source::Stored(self.at), "rbd.record")?;
                    self.skip(len)?;
                }
                b'z' => {
                    let (start, len) = (self.u64()?, self.u64()?);
                    disk.runs.put(start, len, Source::Zero, "rbd.record")?;
                }
                other => match end {
                    // Newer ones say more of snapshots.
                    Some(end) => self.skip(end.saturating_sub(self.at))?,
                    None => {
                        let tag = char::from(other).escape_default();
                        return Err(self.wrong(format!("found the tag '{tag}'; f, t, s, w, z and e are known")));
                    }
                },
            }
            if let Some(end) = end.filter(|end| *end != self.at) {
                let tag = char::from(tag).escape_default();
                return Err(self.wrong(format!("the record '{tag}' should end at byte {end}")));
            }
        }
    }

    fn name(&mut self) -> Result<String> {
        let len = u64::from(u32::from_le_bytes(self.bytes()?));
        if len > NAME_MAX {
            return Err(self.wrong(format!("a snapshot's name takes {len} bytes; at most {NAME_MAX} are allowed")));
        }
        let mut name = vec![0; to_usize(len)?];
        fields::fill(self.file, &mut name, self.at, "container.truncated", "a snapshot's name")?;
        self.skip(len)?;
        Ok(String::from_utf8_lossy(&name).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn record(tag: u8, data: &[&[u8]]) -> Vec<u8> {
        let data = data.concat();
        [&[tag][..], &u64::try_from(data.len()).unwrap().to_le_bytes(), &data].concat()
    }

    fn n(n: u64) -> [u8; 8] {
        n.to_le_bytes()
    }

    fn image() -> Vec<u8> {
        let name: &[u8] = b"\x02\0\0\0s1";
        [
            IMAGE,
            &record(b'O', &[&n(22)]),
            &record(b'M', &[b"\x01\0\0\0k\x01\0\0\0v"]),
            b"E",
            DIFFS,
            &n(2),
            DIFF_2,
            &record(b't', &[name]),
            &record(b'p', &[&[1]]),
            &record(b's', &[&n(20)]),
            &record(b'w', &[&n(2), &n(6), b"abcdef"]),
            b"e",
            DIFF_2,
            &record(b'f', &[name]),
            &record(b's', &[&n(16)]),
            &record(b'w', &[&n(4), &n(2), b"XY"]),
            &record(b'z', &[&n(7), &n(9)]),
            b"e",
        ]
        .concat()
    }

    fn read(disk: &dyn ReadAt) -> Vec<u8> {
        let mut all = vec![9; usize::try_from(disk.len()).unwrap()];
        disk.read_exact_at(&mut all, 0).unwrap();
        all
    }

    #[test]
    fn an_image_is_its_diffs_one_over_the_other() {
        let disk = open(Arc::new(image())).unwrap();
        assert_eq!(read(&disk), b"\0\0abXYe\0\0\0\0\0\0\0\0\0");
        let whole = image();
        for cut in 0..whole.len() {
            let e = open(Arc::new(whole[..cut].to_vec())).err().unwrap_or_else(|| panic!("{cut} bytes open"));
            assert_eq!(e.kind(), ErrorKind::Corrupt, "{cut}: {e}");
        }
    }

    #[test]
    fn a_diff_from_the_beginning_is_a_disk_and_another_is_not() {
        let first =
            [DIFF_1, b"t\x02\0\0\0s1", b"s", &n(4), b"w", &n(1), &n(2), b"ab", b"z", &n(0), &n(1), b"e"].concat();
        assert_eq!(read(&open(Arc::new(first)).unwrap()), b"\0ab\0");
        let later = [DIFF_1, b"f\x02\0\0\0s1", b"s", &n(4), b"e"].concat();
        let e = open(Arc::new(later)).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Unsupported, "rbd.from_snap"));
        let unknown = [DIFF_1, b"q"].concat();
        assert!(open(Arc::new(unknown)).err().unwrap().message().contains("the tag 'q'"));
        assert_eq!(open(Arc::new([DIFF_1, b"e"].concat())).err().unwrap().rule(), "rbd.size");
    }
}
