//! What is known by a name and no further, and what is not known at all.

use super::look::Look;
use super::{Contents, Kind};
use crate::error::Result;
use crate::format;

/// Where a mark lies, its bytes, and the name.
const MARKS: &[(u64, &[u8], &str)] = &[
    (0, b"SQLite format 3\0", "an SQLite database"),
    (0, b"\xfd7zXZ\0", "an xz file"),
    (0, b"\x1f\x8b\x08", "a gzip file"),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"QFI\xfb", "a qcow2 image"),
    (0, b"KDMV", "a VMDK image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"\x7fELF", "an ELF file"),
    (0, b"PGDMP", "a dump of a PostgreSQL database"),
    (0, b"bluestore block device", "a device of Ceph's BlueStore"),
    (0, b"sqsh", "a SquashFS image, big-endian"),
    (0, b"\x45\x3d\xcd\x28", "a cramfs image"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS image"),
    (32769, b"BEA01", "a UDF file system"),
    (65588, b"ReIsEr", "a ReiserFS file system"),
    (32768, b"JFS1", "a JFS file system"),
];

/// What is there where no probe knew it.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where the first bytes cannot be read: then nothing can be said.
pub(super) fn name(look: &Look<'_>) -> Result<Contents> {
    let mut contents = Contents::new(Kind::Unknown, look);
    if look.len() == 0 {
        return Ok(contents);
    }
    look.read(0, crate::num::at_most(look.len(), 512))?;
    let found = MARKS.iter().find(|(at, mark, _)| look.has(mark, *at)).map(|(_, _, name)| *name);
    let found = found.or_else(|| format::name(&**look.disk()).map(|foreign| foreign.name));
    contents.kind = found.map_or(Kind::Unknown, Kind::Other);
    Ok(contents)
}
