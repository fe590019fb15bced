//! From an image file to the place where its LUKS container starts: through a container format and a partition table.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::{self, Contents, Format, Qcow2Luks};
use crate::io::{ReadAt, Window};
use crate::luks::MAGIC_SECONDARY;
use crate::storage::{self, Entry, Scheme, Table, list_of, starts_as_luks};

/// Where to look.
#[derive(Clone, Default)]
pub struct FindOptions {
    /// How the container is opened.
    pub container: format::Options,
    /// The partition to take, by number, label or UUID.
    pub partition: Option<String>,
    /// The byte to start at, in place of a partition.
    pub offset: Option<u64>,
    /// The file holds data alone, and its header is elsewhere: no header is looked for in it.
    pub detached: bool,
    /// Take what is there of a partition that is cut off.
    pub allow_truncated: bool,
}

/// Where the LUKS container is.
pub struct Found {
    /// What holds it.
    pub place: Place,
    /// What was chosen on the way, one line each.
    pub notes: Vec<String>,
}

/// What holds a LUKS container.
pub enum Place {
    /// The file itself, from its first byte to its last.
    File(Arc<dyn ReadAt>),
    /// A part of the file, or what a container format makes of it.
    Inside(Arc<dyn ReadAt>),
    /// A qcow2 image that encrypts its clusters itself.
    Qcow2Luks(Qcow2Luks),
}

impl Place {
    /// The bytes of the LUKS container, or of the header where the clusters are encrypted one by one.
    pub fn source(&self) -> &Arc<dyn ReadAt> {
        match self {
            Self::File(source) | Self::Inside(source) => source,
            Self::Qcow2Luks(luks) => &luks.header,
        }
    }
}

/// Looks for the LUKS container in a file. A raw image is never led into another file.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where several partitions hold LUKS and none was named, or
/// where the named one is not there; otherwise as [`format::open`] and [`storage::list`].
pub fn find(file: Arc<dyn ReadAt>, options: FindOptions) -> Result<Found> {
    let opened = format::open(Arc::clone(&file), options.container)?;
    let mut notes = opened.notes;
    let raw = opened.format == Format::Raw;
    let disk = match opened.contents {
        Contents::Disk(disk) => disk,
        Contents::Qcow2Luks(_) if options.partition.is_some() || options.offset.is_some() => {
            let message =
                "the qcow2 image encrypts its clusters itself: there is no partition or offset before it is decrypted";
            return Err(Error::invalid(message));
        }
        Contents::Qcow2Luks(luks) => {
            notes.push("a qcow2 image that encrypts its clusters itself".into());
            return Ok(Found { place: Place::Qcow2Luks(luks), notes });
        }
    };
    if !raw {
        notes.push(format!("a {} image with a disk of {} bytes", opened.format, disk.len()));
    }
    let whole = |disk| if raw { Place::File(disk) } else { Place::Inside(disk) };
    if let Some(offset) = options.offset {
        let part = Window::new(disk, offset, None)?;
        if !options.detached {
            refuse_lvm(&part, "the place")?;
        }
        return Ok(Found { place: Place::Inside(Arc::new(part)), notes });
    }
    let asked = options.partition.is_some();
    if !asked && starts_as_luks(&*disk, 0)? {
        return Ok(Found { place: whole(disk), notes });
    }
    let table = match storage::list(&*disk, opened.sector_size) {
        // A table that is damaged is no matter to a container that lies over all of the disk.
        Err(e) if !asked => match options.detached || crate::luks::open(&*disk).is_ok() {
            true => None,
            false => {
                return Err(e.with_hint("--offset takes any place, and unluks scan finds headers without a table"));
            }
        },
        table => table?,
    };
    let Some(table) = table else {
        if asked {
            return Err(Error::invalid("--partition: the image has no partition table")
                .with_hint("--offset BYTES takes any place"));
        }
        if !options.detached {
            refuse_lvm(&*disk, "the image")?;
        }
        return Ok(Found { place: whole(disk), notes });
    };
    notes.extend(table.notes.iter().cloned());
    let entry = match &options.partition {
        Some(name) => Some(table.find(name)?),
        None if options.detached => match is_chance(&table, &*disk) {
            true => return Ok(Found { place: whole(disk), notes: Vec::new() }),
            false => return Err(whose_data(&table)),
        },
        None => only_luks(&table, &*disk, &mut notes)?,
    };
    match entry {
        Some(entry) => {
            notes.push(format!("{} partition {entry}", table.scheme));
            let part = match options.allow_truncated {
                true => entry.open_as_far_as_it_is_there(disk)?,
                false => entry.open(disk)?,
            };
            if !options.detached {
                refuse_lvm(&part, &format!("partition {}", entry.number))?;
            }
            Ok(Found { place: Place::Inside(Arc::new(part)), notes })
        }
        None => nothing(disk, &table, whole, notes),
    }
}

/// Whether the table may be no more than encrypted bytes that look like one: partitions that all lie on the disk do not
/// come by chance.
fn is_chance(table: &Table, disk: &dyn ReadAt) -> bool {
    table.entries.is_empty() || table.scheme == Scheme::Mbr && table.entries.iter().any(|e| e.open(disk).is_err())
}

/// A header that lies elsewhere does not say which partition holds its data, and a wrong one decrypts to noise.
fn whose_data(table: &Table) -> Error {
    let all: Vec<&Entry> = table.entries.iter().collect();
    let message = format!(
        "the image has a {} partition table, and a detached header does not say where on it its data is: {}",
        table.scheme,
        list_of(&all)
    );
    let hint = "choose one with --partition, or take all of the image with --offset 0";
    Error::invalid(message).with_rule("partition").with_hint(hint)
}

/// Says of a physical volume of LVM that it is one, where there is no LUKS header at all.
fn refuse_lvm(source: &dyn ReadAt, what: &str) -> Result<()> {
    if starts_as_luks(source, 0)? || !storage::is_lvm(source)? || crate::luks::open(source).is_ok() {
        return Ok(());
    }
    let message = format!("{what} is an LVM physical volume, and LUKS may be inside one of its volumes");
    Err(Error::corrupt("magic", message)
        .with_hint("LVM volumes have to be copied out first; unluks scan finds headers anywhere"))
}

/// Whether a partition has the magic of a LUKS2 secondary header at one of the places that it can have.
fn has_secondary(disk: &dyn ReadAt, entry: &Entry) -> bool {
    (0..9).map(|n| 0x4000u64 << n).any(|place| {
        let mut magic = [0u8; 6];
        let at = entry.start.checked_add(place).filter(|_| place + 4096 <= entry.len);
        at.is_some_and(|at| disk.read_exact_at(&mut magic, at).is_ok()) && magic == MAGIC_SECONDARY
    })
}

/// The one partition that holds LUKS, if there is one: by its start, or else by a secondary header.
fn only_luks<'t>(table: &'t Table, disk: &dyn ReadAt, notes: &mut Vec<String>) -> Result<Option<&'t Entry>> {
    let found = table.luks(disk)?;
    let whole: BTreeSet<u32> = found.iter().map(|e| e.number).collect();
    let others = table.entries.iter().filter(|e| !whole.contains(&e.number));
    let damaged: Vec<_> = others.filter(|e| has_secondary(disk, e)).collect();
    if !damaged.is_empty() {
        notes.push(format!("a LUKS2 secondary header, but no primary one, is in {}", list_of(&damaged)));
    }
    let found = if found.is_empty() { damaged } else { found };
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let message = format!("{} partitions hold LUKS: {}", several.len(), list_of(several));
            Err(Error::invalid(message).with_rule("partition").with_hint("choose one with --partition"))
        }
    }
}

/// A table without a LUKS partition. The disk may have been a LUKS container once, and its secondary header may be left.
fn nothing(
    disk: Arc<dyn ReadAt>,
    table: &Table,
    whole: impl Fn(Arc<dyn ReadAt>) -> Place,
    notes: Vec<String>,
) -> Result<Found> {
    if crate::luks::open(&*disk).is_ok() {
        return Ok(Found { place: whole(disk), notes });
    }
    let mut message = format!("the disk has a {} partition table, but no partition holds LUKS", table.scheme);
    let is_lvm = |entry: &&storage::Entry| entry.open(&*disk).is_ok_and(|p| storage::is_lvm(&p).unwrap_or(false));
    for entry in table.entries.iter().filter(is_lvm).take(storage::NAMED_MAX) {
        message += &format!(
            "; partition {} is an LVM physical volume, and LUKS may be inside one of its volumes",
            entry.number
        );
    }
    let hint = "--partition or --offset takes a place by its name, and unluks scan finds headers anywhere; LVM volumes have to be copied out first";
    Err(Error::corrupt("magic", message).with_hint(hint))
}
