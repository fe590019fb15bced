//! The front door: from a path, or from what [`find`] found, to an image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Image;
use crate::error::{Condition, Error, Hint, Result, shown};
use crate::format::{self, Foreign, Format};
use crate::io::{FileSource, ReadAt};
use crate::locate::{FindOptions, Found, HeaderAt, Place, find, with_snapshots, within};
use crate::luks::offline;
use crate::luks::recover::Rules;

/// What is known of an image before it is opened. All of it can be left out.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The file with the header: a detached header, a header backup in place of a damaged one, or the log of an offline
    /// reencryption, with the two headers beside it.
    pub header: Option<PathBuf>,
    /// Takes a header that does not belong to the data, by all that can be seen: see [`Image::foreign_header`].
    pub foreign_header: bool,
    /// The partition of a whole disk, by number, label or UUID; without it the only one with LUKS is taken.
    pub partition: Option<String>,
    /// The other disks of a set, in any order: members of an md array, physical volumes of LVM; and images that others
    /// lie on top of. Each has to be used.
    pub with: Vec<PathBuf>,
    /// The internal snapshot of a qcow2 image, by its id or its name, in place of the disk's last state.
    pub snapshot: Option<String>,
    /// The volume of LVM, as `LV` or `VG/LV`; without it the only one with LUKS is taken.
    pub volume: Option<String>,
    /// The byte where the LUKS container starts, in place of a partition.
    pub offset: Option<u64>,
    /// Takes an offset into a disk that is a part of a set.
    pub foreign_offset: bool,
    /// The file format; otherwise it is detected.
    pub format: Option<Format>,
    /// The largest disk in bytes that a file format may declare: see [`format::Options::max_size`].
    pub max_size: Option<u64>,
    /// Takes what is there of a partition that is cut off.
    pub allow_truncated: bool,
    /// Which damaged headers are taken.
    pub rules: Rules,
}

impl Image {
    /// Opens a file: detects its format, looks for a partition, and finds the LUKS header. The other files of its set are
    /// opened, too, as [`file_set`](crate::format::file_set) tells them, and what an offline reencryption left beside it; no
    /// other file is, but those that were named.
    ///
    /// ```
    /// use unluks::{Image, Key, OpenOptions, SecretBytes};
    ///
    /// # fn main() -> unluks::Result<()> {
    /// # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    /// # let path = format!("{dir}/openstack-volume.img");
    /// // A raw image, a qcow2 or VHDX image, a whole disk: what it is is found out.
    /// let image = Image::open_path(path, &OpenOptions::default())?;
    /// assert!(!image.metadata().uuid.is_empty());
    ///
    /// let payload = SecretBytes::copy_of(&std::fs::read(format!("{dir}/openstack-volume.key")).unwrap())?;
    /// let unlocked = image.unlock(&Key::barbican(&payload)?, &Default::default())?;
    /// # let _ = unlocked;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`find`] and [`Image::open_found`]; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a foreign
    /// header that is not allowed.
    pub fn open_path(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let path = path.as_ref();
        let image = path;
        let header = options.header.as_deref().map(header_at).transpose()?;
        let apart: Vec<&Path> = options.header.iter().chain(&options.with).map(PathBuf::as_path).collect();
        let (named, _) = format::open_named(path, options.format, &apart)?;
        let mut with = Vec::new();
        for path in &options.with {
            let apart: Vec<&Path> = apart.iter().copied().filter(|other| other != path).chain([image]).collect();
            let (named, _) = format::open_named(path, None, &apart)?;
            with.push(named);
        }
        let find_options = FindOptions {
            name: shown(path),
            with,
            volume: options.volume.clone(),
            foreign_offset: options.foreign_offset,
            container: format::Options {
                format: options.format,
                segments: named.segments,
                set: named.set,
                max_size: options.max_size,
                with: Vec::new(),
                snapshot: options.snapshot.clone(),
            },
            partition: options.partition.clone(),
            offset: options.offset,
            header: HeaderAt::from(&header),
            allow_truncated: options.allow_truncated,
            ..FindOptions::default()
        };
        let image = find(named.file, find_options).and_then(|found| {
            let header = header.map_or_else(|| offline_header(image, &found), |header| Ok(Some(header)))?;
            Self::open_found_by(&found, header, options.rules)
        });
        let image = image.map_err(|e| e.within(shown(path)))?;
        match image.foreign_header() {
            Some(e) if !options.foreign_header => Err(e.within(shown(path))),
            _ => Ok(image),
        }
    }

    /// Opens what [`find`] found, with its header, or with one that lies elsewhere.
    ///
    /// # Errors
    /// As [`crate::open`]; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a header beside a qcow2 image
    /// that has its own.
    pub fn open_found(found: &Found, header: Option<Arc<dyn ReadAt>>) -> Result<Self> {
        Self::open_found_by(found, header, Rules::Strict)
    }

    /// The same by other rules.
    ///
    /// # Errors
    /// As [`Image::open_found`].
    pub fn open_found_by(found: &Found, header: Option<Arc<dyn ReadAt>>, rules: Rules) -> Result<Self> {
        Ok(Self::open_place(found, header, rules)?.found_in(found))
    }

    /// Takes what was found with [`HeaderAt::Nowhere`] as it is: it is not encrypted.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a qcow2 image that encrypts its clusters itself.
    pub fn unencrypted_found(found: &Found) -> Result<Self> {
        match &found.place {
            Place::File(data) | Place::Inside(data) => Ok(Self::unencrypted(Arc::clone(data)).found_in(found)),
            Place::Qcow2Luks(_) => Err(Error::invalid("the qcow2 image is encrypted, with a header of its own")),
        }
    }

    fn found_in(self, found: &Found) -> Self {
        let mut image = self;
        image.notes = found.notes.as_slice().into();
        image.snapshots = found.snapshots.as_slice().into();
        image.layers = found.layers.as_slice().into();
        image.groups = found.groups.as_slice().into();
        image.checks = found.checks.clone();
        image.file = match found.place {
            Place::File(_) => None,
            Place::Inside(_) | Place::Qcow2Luks(_) => Some(Arc::clone(&found.file)),
        };
        image
    }

    fn open_place(found: &Found, header: Option<Arc<dyn ReadAt>>, rules: Rules) -> Result<Self> {
        match (&found.place, header) {
            (Place::Qcow2Luks(_), Some(_)) => Err(Error::invalid(
                "a qcow2 image that encrypts its clusters has a header of its own, and takes no other one",
            )),
            (Place::Qcow2Luks(luks), None) => Self::open_qcow2(luks, Arc::clone(&found.file)),
            (Place::File(data) | Place::Inside(data), None) => Self::open_by(Arc::clone(data), Arc::clone(data), rules)
                .map_err(|e| {
                    let named = if e.is(Condition::NoHeader) { format::name(&**data) } else { None };
                    let e = within(found.format, named.map_or(e, |foreign| no_header(&foreign)));
                    with_snapshots(e, &found.snapshots)
                }),
            (Place::File(data) | Place::Inside(data), Some(header)) => Self::open_by(header, Arc::clone(data), rules)
                .map_err(|e| {
                    if e.is(Condition::NoHeader) && crate::luks::recover::open(&**data).is_ok() {
                        e.with_hint("but the image begins with one: are image and header swapped?")
                    } else {
                        e
                    }
                }),
        }
    }

    /// Whether the header is in a file of its own.
    #[cfg(feature = "serde")]
    pub(crate) fn has_given_header(&self) -> bool {
        self.clusters.is_none() && !self.has_own_header()
    }

    /// Whether the header is where the data is, and not in another file.
    pub(crate) fn has_own_header(&self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.header), Arc::as_ptr(&self.data))
    }
}

/// The error for a disk without a LUKS header that is something else.
fn no_header(foreign: &Foreign) -> Error {
    Error::corrupt("magic", format!("no LUKS header: this is {}", foreign.name))
        .at(foreign.at)
        .with_condition(Condition::NoHeader)
        .with_hint([foreign.hint.into(), Hint::NoHeader])
}

fn source(path: &Path) -> Result<Arc<dyn ReadAt>> {
    Ok(Arc::new(FileSource::open(path)?))
}

/// The header in a file, or those beside the log that it is.
fn header_at(path: &Path) -> Result<Arc<dyn ReadAt>> {
    let header = source(path)?;
    if !offline::is_log(&*header) {
        return Ok(header);
    }
    let [old, new] = offline::headers_beside(path);
    offline::join(&*header, source(&old)?, source(&new)?)
}

/// What an offline reencryption left beside the image that it stopped in.
fn offline_header(image: &Path, found: &Found) -> Result<Option<Arc<dyn ReadAt>>> {
    let log = found.offline_log(image);
    log.map(|log| header_at(&log).map_err(|e| e.within(shown(&log)))).transpose()
}
