//! The other files of an image that lies in several: which they are, by rules and never by an image's word alone.

use std::path::{Path, PathBuf};

use super::{Format, Named, VMDK_DESCRIPTOR, detect_by, ewf, split, vmdk};
use crate::error::{Error, Result, shown};
use crate::io::{FileSource, Peek, ReadAt};

/// What the files of an image behind the first are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Set {
    /// Segment files of EWF.
    #[default]
    Segments,
    /// Pieces that the file was cut into.
    Pieces,
    /// The extents of a VMDK descriptor, in the order in which it names them first.
    Extents,
}

/// The files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSet {
    /// The file to begin with: the one that was given, or the first piece where that is a later one.
    pub first: PathBuf,
    /// The others, in their order.
    pub others: Vec<PathBuf>,
    /// What they are.
    pub set: Set,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

/// The files of the image that the file at `path`, open as `file`, is, or is a part of.
///
/// `format` is the format where the caller knows it. `apart` are files that were named for something else: none of them
/// is a piece of the image.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where one of them is missing, and for an extent of a VMDK;
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where a piece has the wrong length;
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where an extent does not lie beside its descriptor;
/// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where they are too many;
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where the directory cannot be read.
pub fn file_set(path: &Path, file: &dyn ReadAt, format: Option<Format>, apart: &[&Path]) -> Result<FileSet> {
    let look = Peek::new(file);
    let alone = FileSet { first: path.to_owned(), others: Vec::new(), set: Set::Segments, notes: Vec::new() };
    // What cannot be detected says so when it is opened.
    match format.map_or_else(|| detect_by(&look).ok(), Some) {
        Some(Format::Ewf) => return Ok(FileSet { others: ewf::segment_files(path), ..alone }),
        Some(Format::Vmdk) if look.has(VMDK_DESCRIPTOR, 0) => {
            let others = vmdk::extent_files(path, file)?;
            return Ok(FileSet { others, set: Set::Extents, ..alone });
        }
        _ => {}
    }
    if format != Some(Format::Raw)
        && let Some(descriptor) = vmdk::descriptor_of(path)
    {
        let message = format!("this is an extent of {}, its descriptor, and not all of the disk", shown(&descriptor));
        return Err(Error::invalid(message).with_rule("vmdk.extents").with_hint("give the descriptor instead"));
    }
    let Some(split::Pieces { all, notes }) = split::pieces(path, apart)? else { return Ok(alone) };
    let mut all = all.into_iter();
    let Some(first) = all.next() else { return Ok(alone) };
    Ok(FileSet { first, others: all.collect(), set: Set::Pieces, notes })
}

/// Opens the file at `path` with all files of its set.
///
/// # Errors
/// As [`file_set`] and [`FileSource::open`].
pub(crate) fn open_named(path: &Path, format: Option<Format>, apart: &[&Path]) -> Result<(Named, Vec<String>)> {
    let open = |path: &Path| Ok::<_, Error>(std::sync::Arc::new(FileSource::open(path)?));
    let file = open(path)?;
    let set = file_set(path, &file, format, apart).map_err(|e| e.within(shown(path)))?;
    let file = if set.first == path { file } else { open(&set.first)? };
    let mut named = Named::new(shown(&set.first), file);
    for other in &set.others {
        named.segments.push(open(other)?);
    }
    named.set = set.set;
    Ok((named, set.notes))
}
