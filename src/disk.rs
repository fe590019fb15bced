//! From an image file to the place where its LUKS container starts: through a container format and a partition table.

use std::sync::Arc;

use crate::container::{self, Contents, Format, Qcow2Luks};
use crate::error::{Error, Result};
use crate::io::{ReadAt, Window};
use crate::luks::{MAGIC, MAGIC_SECONDARY};
use crate::partition::{self, Table};

/// Where to look.
#[derive(Clone, Default)]
pub struct FindOptions {
    /// How the container is opened.
    pub container: container::Options,
    /// The partition to take, by number, label or UUID.
    pub partition: Option<String>,
    /// The byte to start at, in place of a partition.
    pub offset: Option<u64>,
    /// The file holds data alone, and its header is elsewhere: nothing is looked for that was not asked for.
    pub detached: bool,
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
/// where the named one is not there; otherwise as [`container::open`] and [`partition::list`].
pub fn find(file: Arc<dyn ReadAt>, options: FindOptions) -> Result<Found> {
    let opened = container::open(Arc::clone(&file), options.container)?;
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
        return Ok(Found { place: Place::Inside(Arc::new(part)), notes });
    }
    let asked = options.partition.is_some();
    if !asked && (options.detached || starts_as_luks(&*disk)?) {
        return Ok(Found { place: whole(disk), notes });
    }
    let table = match partition::list(&*disk, opened.sector_size) {
        // A table that is damaged matters only to whoever wants a partition of it.
        Err(_) if !asked => None,
        table => table?,
    };
    let Some(table) = table else {
        return match asked {
            true => Err(Error::invalid("--partition: the image has no partition table")
                .with_hint("--offset BYTES takes any place")),
            false => Ok(Found { place: whole(disk), notes }),
        };
    };
    notes.extend(table.notes.iter().cloned());
    let entry = match &options.partition {
        Some(name) => Some(table.find(name)?),
        None => only_luks(&table, &*disk)?,
    };
    match entry {
        Some(entry) => {
            notes.push(format!("{} partition {entry}", table.scheme));
            Ok(Found { place: Place::Inside(Arc::new(entry.open(disk)?)), notes })
        }
        None => nothing(disk, &table, whole, notes),
    }
}

fn starts_as_luks(disk: &dyn ReadAt) -> Result<bool> {
    let mut start = [0u8; 6];
    if disk.len() < 6 {
        return Ok(false);
    }
    disk.read_exact_at(&mut start, 0)?;
    Ok(start == MAGIC || start == MAGIC_SECONDARY)
}

/// The one partition that holds LUKS, if there is one.
fn only_luks<'t>(table: &'t Table, disk: &dyn ReadAt) -> Result<Option<&'t partition::Entry>> {
    let found = table.luks(disk)?;
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let message = format!("{} partitions hold LUKS: {}", several.len(), partition::list_of(several));
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
    let is_lvm = |entry: &&partition::Entry| entry.open(&*disk).is_ok_and(|p| partition::is_lvm(&p).unwrap_or(false));
    for entry in table.entries.iter().filter(is_lvm).take(partition::NAMED_MAX) {
        message += &format!(
            "; partition {} is an LVM physical volume, and LUKS may be inside one of its volumes",
            entry.number
        );
    }
    let hint = "--partition or --offset takes a place by its name, and unluks scan finds headers anywhere; LVM volumes have to be copied out first";
    Err(Error::corrupt("magic", message).with_hint(hint))
}
