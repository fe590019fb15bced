//! rpm's database: a header for each package, which has the hashes of its files.
//!
//! | header | | entry, 16 bytes, big-endian | |
//! |---|---|---|---|
//! | 0..4 | number of entries | 0..4 | tag |
//! | 4..8 | bytes of data | 4..8 | type: 2 a byte, 3 of 2 bytes, 4 of 4 bytes, 6 a text, 8 texts |
//! | 8.. | entries, and behind them the data | 8..12, 12..16 | place in the data, and how many values |
//!
//! A file's path is a name (`BASENAMES`) behind one of the directories (`DIRNAMES`, by `DIRINDEXES`). Only what rpm installed is
//! held against its hash: regular files that are no `%ghost`, whose state is *normal*.
//!
//! Source: rpm 4.18's `lib/header.c`, `include/rpm/rpmtag.h`, `lib/rpmfi.c`. How headers are kept is in [`sqlite`] (from 2020
//! on), [`ndb`] (SUSE) and [`bdb`] (before). No crate reads these databases but through rpm's own library, or SQLite's, which
//! are not made for files of strangers.

mod bdb;
mod blobs;
mod ndb;
mod sqlite;

use std::ops::Range;

use super::{Packaged, Weight};
use crate::decrypt::hash::Algorithm;
use crate::error::Result;
use crate::num::{from_u32, to_usize};
use crate::verify::manifest::{digits, from_root};

pub use blobs::{Pages, Source};

/// The databases, by the ends of their paths. What is read of each gives its headers one by one.
type Read =
    fn(&mut Source<'_, '_, '_, '_>, &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>) -> Result<()>;
const KINDS: [(&[u8], Read); 3] =
    [(b"/rpmdb.sqlite", sqlite::headers), (b"/Packages.db", ndb::headers), (b"/Packages", bdb::headers)];

/// Where they lie; the first that is there is the one in use.
pub const PATHS: [&[u8]; 6] = [
    b"/usr/lib/sysimage/rpm/rpmdb.sqlite",
    b"/usr/lib/sysimage/rpm/Packages.db",
    b"/usr/lib/sysimage/rpm/Packages",
    b"/var/lib/rpm/rpmdb.sqlite",
    b"/var/lib/rpm/Packages.db",
    b"/var/lib/rpm/Packages",
];

/// Gives `take` each header of the database.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded),
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported); those of `take`.
pub fn headers(
    source: &mut Source<'_, '_, '_, '_>,
    take: &mut dyn FnMut(&mut Source<'_, '_, '_, '_>, Vec<u8>) -> Result<()>,
) -> Result<()> {
    match KINDS.iter().find(|(end, _)| source.path().ends_with(end)) {
        Some((_, read)) => read(source, take),
        None => sqlite::headers(source, take),
    }
}

const BASENAMES: u32 = 1117;
const DIRNAMES: u32 = 1118;
const DIRINDEXES: u32 = 1116;
const FILEDIGESTS: u32 = 1035;
const FILEDIGESTALGO: u32 = 5011;
const FILEMODES: u32 = 1030;
const FILEFLAGS: u32 = 1037;
const FILESTATES: u32 = 1029;
const FILEVERIFYFLAGS: u32 = 1045;

const CONFIG: u32 = 1;
const MISSING_OK: u32 = 1 << 3;
const GHOST: u32 = 1 << 6;
const VERIFY_DIGEST: u32 = 1;
const NORMAL: u32 = 0;
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// A header, of which nothing is copied.
struct Header<'a> {
    entries: &'a [[u8; 16]],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn of(blob: &'a [u8]) -> Option<Self> {
        let number = |at: usize| blob.get(at..)?.first_chunk::<4>().map(|b| from_u32(u32::from_be_bytes(*b)));
        let (entries, data) = (number(0)?, number(4)?);
        let end = entries.checked_mul(16)?.checked_add(8)?;
        let (entries, _) = blob.get(8..end)?.as_chunks::<16>();
        Some(Self { entries, data: blob.get(end..end.checked_add(data)?)? })
    }

    /// The type of a tag's values, how many there are, and the data from the first on.
    fn values(&self, tag: u32) -> Option<(u32, usize, &'a [u8])> {
        let field =
            |entry: &[u8; 16], n: usize| entry.as_chunks::<4>().0.get(n).map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let entry = self.entries.iter().find(|entry| field(entry, 0) == tag)?;
        let place = from_u32(field(entry, 2));
        Some((field(entry, 1), from_u32(field(entry, 3)), self.data.get(place..)?))
    }

    /// Numbers of 1, 2 or 4 bytes.
    fn numbers(&self, tag: u32) -> Option<Vec<u32>> {
        let (kind, count, data) = self.values(tag)?;
        let len = match kind {
            1 | 2 => 1,
            3 => 2,
            4 => 4,
            _ => return None,
        };
        let all = data.get(..count.checked_mul(len)?)?.chunks_exact(len);
        Some(all.map(|bytes| bytes.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte))).collect())
    }

    fn texts(&self, tag: u32) -> Option<Vec<&'a [u8]>> {
        let (kind, count, data) = self.values(tag)?;
        if !matches!(kind, 6 | 8 | 9) || count > data.len() {
            return None;
        }
        let all: Vec<&[u8]> = data.split(|byte| *byte == 0).take(count).collect();
        Some(all).filter(|all| all.len() == count)
    }
}

/// What a package has installed; and how many of its files the header says in no way that rpm writes.
pub fn files(blob: &[u8]) -> Option<(Vec<Packaged>, u64)> {
    let header = Header::of(blob)?;
    // A package without files has none of these.
    let Some(names) = header.texts(BASENAMES) else { return Some((Vec::new(), 0)) };
    let (dirs, indexes) = (header.texts(DIRNAMES)?, header.numbers(DIRINDEXES)?);
    let digests = header.texts(FILEDIGESTS)?;
    let algorithm = match header.numbers(FILEDIGESTALGO).and_then(|all| all.first().copied()) {
        None | Some(1) => Algorithm::Md5,
        Some(2) => Algorithm::Sha1,
        Some(8) => Algorithm::Sha256,
        Some(9) => Algorithm::Sha384,
        Some(10) => Algorithm::Sha512,
        Some(11) => Algorithm::Sha224,
        Some(_) => return None,
    };
    let number = |tag: u32| header.numbers(tag).unwrap_or_default();
    let (modes, flags, states, verify) =
        (number(FILEMODES), number(FILEFLAGS), number(FILESTATES), number(FILEVERIFYFLAGS));
    let (mut all, mut odd) = (Vec::new(), 0u64);
    for (n, name) in names.into_iter().enumerate() {
        let of = |numbers: &[u32], unsaid: u32| numbers.get(n).copied().unwrap_or(unsaid);
        let flags = of(&flags, 0);
        let is_installed = of(&modes, REGULAR) & KIND == REGULAR && of(&states, NORMAL) == NORMAL;
        if !is_installed || flags & GHOST != 0 {
            continue;
        }
        let dir = indexes.get(n).and_then(|index| dirs.get(from_u32(*index)));
        let hex = digests.get(n).and_then(|hex| digits(hex, algorithm));
        let (Some(dir), Some(hex)) = (dir, hex) else {
            odd = odd.saturating_add(1);
            continue;
        };
        let may_differ = flags & (CONFIG | MISSING_OK) != 0 || of(&verify, VERIFY_DIGEST) & VERIFY_DIGEST == 0;
        let weight = if may_differ { Weight::Config } else { Weight::Other };
        all.push(Packaged { path: from_root(&[*dir, name].concat()), algorithm, hex, weight });
    }
    Some((all, odd))
}

/// A range of `len` bytes from `at` on.
fn range(at: u64, len: u64) -> Result<Range<usize>> {
    let start = to_usize(at)?;
    Ok(start..start.saturating_add(to_usize(len)?))
}
