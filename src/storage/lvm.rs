//! LVM2: physical volumes, the volume group that they make up, and its logical volumes.
//!
//! ```text
//! devices ─► label ─► text ─► metadata ─► build ─► LogicalVolume: ReadAt
//!            where     its     what the    which    map, stripe, raid,
//!            it lies  grammar  rules say  legs       snapshot, thin
//! ```
//!
//! It is our own because no crate reads what people have: `lamlvm`, the best of them, reads linear volumes on one physical
//! volume, `exhume_lvm` is under the GPL, and `lvm2` has been left. What LVM writes is described by LVM2's
//! `lib/format_text`, what the kernel does with it by Linux's `drivers/md/dm-*.c`.
//!
//! | volume | |
//! |---|---|
//! | linear, striped, zero | read |
//! | mirror | its first leg; another one where the log says that all regions are in sync |
//! | raid0, raid0_meta | read |
//! | raid1, raid10 | the first leg that is there and in sync, as the kernel's superblocks say |
//! | snapshot, and its origin | read |
//! | thin | read, also where the pool is striped or a RAID; with an external origin, named |
//! | raid4, raid5, raid6, cache, vdo, writecache, integrity | named, not read |
//! | what is in the middle of a merge or a reshape | named, not read |
//!
//! ```
//! # use std::sync::Arc;
//! # use unluks::{ReadAt, Result, storage::lvm::VolumeGroup};
//! # fn read(first: Arc<dyn ReadAt>, second: Arc<dyn ReadAt>) -> Result<()> {
//! let group = VolumeGroup::assemble(vec![first, second])?;
//! for volume in group.volumes.iter().filter(|volume| volume.is_visible) {
//!     println!("{volume}");
//! }
//! let volume = group.open(group.find("root")?)?;
//! let mut start = [0; 512];
//! volume.read_exact_at(&mut start, 0)?;
//! # Ok(()) }
//! ```

// The numbers are bounded where they are parsed, and overflow is checked in every build: the mutations of tests/storage run
// so. The lint itself has not been gone through here.
#![allow(clippy::arithmetic_side_effects)]

mod build;
mod label;
mod map;
mod metadata;
mod raid;
mod snapshot;
mod stripe;
#[cfg(test)]
mod tests;
mod text;
mod thin;

use std::fmt;
use std::sync::Arc;

pub use label::{Label, MetadataVersion, Region};
pub use map::LogicalVolume;

use self::build::{Builder, Device};
use self::metadata::{Metadata, Place, SegmentKind};
use crate::error::{Error, Result, escape};
use crate::io::ReadAt;

/// How many of many names a message lists.
const NAMED_MAX: usize = 16;

/// A physical volume, as the group's metadata describe it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PhysicalVolume {
    /// Its name in the metadata, `pv0`: that of a device is not kept.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The size in bytes that its device has to have.
    pub size: u64,
    /// Where the first extent lies on the device, in bytes.
    pub start: u64,
    /// The number of its extents.
    pub extents: u64,
    /// Its tags. These are the image's text: escape them before they are printed.
    pub tags: Vec<String>,
    /// Which of the devices that were given it is; `None` where it is none of them.
    pub device: Option<usize>,
    /// Why it is not read, where it is not.
    pub missing: Option<&'static str>,
}

impl fmt::Display for PhysicalVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {} bytes", escape(&self.name), escape(&self.uuid), self.size)?;
        match self.missing {
            Some(why) => write!(f, ", {why}"),
            None => Ok(()),
        }
    }
}

/// A logical volume, as the group's metadata describe it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is, by LVM's names for the types of its segments: `linear`, `raid1`, `thin`.
    pub kind: String,
    /// Its tags. These are the image's text: escape them before they are printed.
    pub tags: Vec<String>,
    /// Whether it is one of those that people use, and not a part of another.
    pub is_visible: bool,
    /// Its number in the metadata.
    number: usize,
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes, {}", escape(&self.name), self.size, escape(&self.kind))?;
        for tag in self.tags.iter().take(NAMED_MAX) {
            write!(f, ", @{}", escape(tag))?;
        }
        Ok(())
    }
}

/// A volume group.
#[derive(Debug)]
#[non_exhaustive]
pub struct VolumeGroup {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The number of its metadata: each change has the next.
    pub seqno: u64,
    /// When the metadata were written, in seconds since 1970.
    pub time: u64,
    /// What LVM was asked to do when it wrote them. This is the image's text: escape it before it is printed.
    pub description: String,
    /// The size of its extents in bytes.
    pub extent_size: u64,
    /// All its physical volumes, those that are missing, too.
    pub physical: Vec<PhysicalVolume>,
    /// All its logical volumes, internal ones, too.
    pub volumes: Vec<Volume>,
    /// What the user should know, one line each: damage that was passed over, what is missing.
    pub notes: Vec<String>,
    contents: Contents,
}

/// What is not for people.
struct Contents {
    metadata: Metadata,
    /// What was given, with its label.
    labels: Vec<(Label, Arc<dyn ReadAt>)>,
    /// One for each physical volume.
    devices: Vec<Device>,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

impl VolumeGroup {
    /// The volume group that `devices` are physical volumes of, in any order. Some may be missing; then what lies on them
    /// does not open.
    ///
    /// The newest metadata of all devices counts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a device is no physical volume, is one of another
    /// group, or is given twice; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where no copy of the metadata is whole,
    /// or the newest breaks a rule; [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where it is too large;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where a device cannot be read.
    pub fn assemble(devices: Vec<Arc<dyn ReadAt>>) -> Result<Self> {
        let mut labels = Vec::new();
        for (n, device) in (1..).zip(devices) {
            let label = Label::probe(&*device).map_err(|e| e.within(format!("device {n}")))?;
            let none = || Error::invalid(format!("device {n} is no physical volume of LVM2")).with_rule("lvm.label");
            labels.push((label.ok_or_else(none)?, device));
        }
        let mut notes: Vec<String> = labels.iter().flat_map(|(label, _)| label.notes.iter().cloned()).collect();
        let metadata = newest(&mut labels, &mut notes)?;
        let mut physical = Vec::new();
        let mut found: Vec<Device> = Vec::new();
        for pv in &metadata.pvs {
            let device = labels.iter().position(|(label, _)| label.uuid == pv.uuid);
            let missing = match device {
                None => Some("is missing"),
                Some(_) if pv.is_missing => Some("is old: the volume group was changed without it"),
                Some(_) => None,
            };
            let described = PhysicalVolume {
                name: pv.name.clone(),
                uuid: pv.uuid.clone(),
                size: pv.size,
                start: pv.start,
                extents: pv.extents,
                tags: pv.tags.clone(),
                device,
                missing,
            };
            if missing.is_some() {
                notes.push(format!("lvm: physical volume {described}"));
            }
            // LVM counts whole sectors.
            let there = device.map(|n| labels[n].1.len()).filter(|there| there / 512 < pv.size / 512);
            if let Some(there) = there {
                notes.push(format!(
                    "lvm: physical volume {described}, of which {there} are there: volumes behind do not open"
                ));
            }
            found.push(match (device, missing) {
                (Some(n), None) => Ok(Arc::clone(&labels[n].1)),
                (_, missing) => Err(missing.unwrap_or("is missing")),
            });
            physical.push(described);
        }
        if metadata.is_exported {
            let name = escape(&metadata.name);
            notes.push(format!("lvm: volume group {name} is exported: LVM does not use it until it is imported"));
        }
        if let more @ 1.. = notes.len().saturating_sub(NAMED_MAX) {
            notes.truncate(NAMED_MAX);
            notes.push(format!("lvm: {more} notes more are left out"));
        }
        Ok(Self {
            name: metadata.name.clone(),
            uuid: metadata.uuid.clone(),
            seqno: metadata.seqno,
            time: metadata.time,
            description: metadata.description.clone(),
            extent_size: metadata.extent_size,
            physical,
            volumes: metadata.lvs.iter().enumerate().map(|(n, _)| describe(&metadata, n)).collect(),
            notes,
            contents: Contents { metadata, labels, devices: found },
        })
    }

    /// The volume that `wanted` names: `LV`, `VG/LV`, `/dev/VG/LV`, or its UUID. Parts of other volumes are not found.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where there is none; the message lists what there is.
    pub fn find(&self, wanted: &str) -> Result<&Volume> {
        let path = wanted.strip_prefix("/dev/").unwrap_or(wanted);
        let name = match path.split_once('/') {
            Some((group, name)) if group == self.name => name,
            Some((group, _)) => {
                let message = format!("this is volume group {}, not {}", escape(&self.name), escape(group));
                return Err(Error::invalid(message).with_rule("lvm.name"));
            }
            None => path,
        };
        let named = self.volumes.iter().find(|volume| volume.name == name || volume.uuid == name);
        match named {
            Some(volume) if volume.is_visible => Ok(volume),
            Some(volume) => {
                let message = format!("volume {} is a part of another", escape(&volume.name));
                Err(Error::invalid(message).with_rule("lvm.name"))
            }
            None => {
                let message = format!("no volume is called \"{}\"; there are: {}", escape(wanted), self.list());
                Err(Error::invalid(message).with_rule("lvm.name"))
            }
        }
    }

    /// The volumes that people use in one line, for a message.
    fn list(&self) -> String {
        let visible = || self.volumes.iter().filter(|volume| volume.is_visible);
        let mut names: Vec<String> = visible().take(NAMED_MAX).map(|volume| escape(&volume.name)).collect();
        match visible().count() {
            0 => return "none".into(),
            n if n > NAMED_MAX => names.push(format!("and {} more", n - NAMED_MAX)),
            _ => (),
        }
        names.join(", ")
    }

    /// The bytes of `volume`, one of [`VolumeGroup::volumes`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a physical volume is missing that it needs;
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) where it is of a type that is not read;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where a device ends before the volume does, or what the kernel
    /// keeps of a RAID, a snapshot or a thin pool breaks a rule;
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where a snapshot or a thin volume is too large;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where a device cannot be read.
    pub fn open(&self, volume: &Volume) -> Result<LogicalVolume> {
        let number = volume.number;
        if self.contents.metadata.lvs.get(number).is_none_or(|lv| lv.name != volume.name) {
            let message = format!("volume {} is not of group {}", escape(&volume.name), escape(&self.name));
            return Err(Error::invalid(message).with_rule("lvm.name"));
        }
        Builder::new(&self.contents.metadata, &self.contents.devices).volume(number)
    }

    /// The byte behind the last that a volume has on a device, by its index among those that were given; the start of its
    /// extents where no volume has any. `None` where the device is none of the group's.
    pub fn used_end(&self, device: usize) -> Option<u64> {
        let number = self.physical.iter().position(|pv| pv.device == Some(device))?;
        Some(used_end(&self.contents.metadata, number))
    }

    /// Versions of the metadata that have been replaced, and are still on the devices, the newest first.
    ///
    /// # Errors
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where an area for metadata is too large to be looked
    /// through; [`ErrorKind::Io`](crate::ErrorKind::Io) where a device cannot be read.
    pub fn old_versions(&self) -> Result<Vec<MetadataVersion>> {
        let mut found = Vec::new();
        for (label, device) in &self.contents.labels {
            found.extend(label.versions(&**device)?);
        }
        found.retain(|version| version.seqno < self.seqno);
        found.sort_by(|a, b| (b.seqno, b.time, &b.description).cmp(&(a.seqno, a.time, &a.description)));
        found.dedup();
        Ok(found)
    }
}

/// Takes the newest metadata of all devices, which must be of one group.
fn newest(labels: &mut [(Label, Arc<dyn ReadAt>)], notes: &mut Vec<String>) -> Result<Metadata> {
    for (n, (label, _)) in labels.iter().enumerate() {
        if let Some(first) = labels[..n].iter().position(|(other, _)| other.uuid == label.uuid) {
            let message =
                format!("devices {} and {} are both physical volume {}", first + 1, n + 1, escape(&label.uuid));
            let hint = "one is a copy of the other: give only the one that belongs to the rest";
            return Err(Error::invalid(message).with_rule("lvm.pv.twice").with_hint(hint));
        }
    }
    let mut newest: Option<(usize, u64)> = None;
    for (n, (label, _)) in labels.iter().enumerate() {
        let Some((name, uuid)) = label.group() else { continue };
        let Some((best, seqno)) = newest else {
            newest = label.seqno().map(|seqno| (n, seqno));
            continue;
        };
        if let Some((other, _)) = labels[best].0.group().filter(|(_, other)| *other != uuid) {
            let (other, name) = (escape(other), escape(name));
            let message = format!("device {} belongs to volume group {other}, device {} to {name}", best + 1, n + 1);
            return Err(Error::invalid(message).with_rule("lvm.group"));
        }
        newest = label.seqno().filter(|own| *own > seqno).map(|own| (n, own)).or(newest);
    }
    let Some((best, seqno)) = newest else {
        let damage = labels.iter_mut().find_map(|(label, _)| label.damage.take());
        let none = "these physical volumes hold no metadata of a volume group in use";
        return Err(damage.unwrap_or_else(|| {
            Error::invalid(none).with_rule("lvm.group").with_hint("give the group's other physical volumes, too")
        }));
    };
    for (n, (label, _)) in labels.iter().enumerate() {
        if let Some(old) = label.seqno().filter(|own| *own < seqno) {
            notes.push(format!("lvm: device {} has old metadata, number {old} of {seqno}", n + 1));
        }
    }
    let Some(metadata) = labels[best].0.metadata.take() else {
        return Err(Error::corrupt("lvm.group", "there is no metadata"));
    };
    for (n, (label, _)) in labels.iter().enumerate() {
        if !metadata.pvs.iter().any(|pv| pv.uuid == label.uuid) {
            let (uuid, name) = (escape(&label.uuid), escape(&metadata.name));
            let message = format!("device {} is physical volume {uuid}, which is none of volume group {name}", n + 1);
            return Err(Error::invalid(message).with_rule("lvm.group"));
        }
    }
    Ok(metadata)
}

/// The byte behind the last that a volume has on a physical one, on its device.
fn used_end(metadata: &Metadata, pv: usize) -> u64 {
    let start = metadata.pvs.get(pv).map_or(0, |pv| pv.start);
    let segments = metadata.lvs.iter().flat_map(|lv| &lv.segments);
    let ends = segments.flat_map(|segment| {
        let (areas, len) = match &segment.kind {
            SegmentKind::Striped { areas, .. } => {
                let len = u64::try_from(areas.len()).ok().and_then(|n| segment.len.checked_div(n));
                (areas.as_slice(), len.unwrap_or(segment.len))
            }
            SegmentKind::Mirror { areas, .. } => (areas.as_slice(), segment.len),
            _ => (&[][..], 0),
        };
        let here = areas.iter().filter(move |area| area.place == Place::Pv(pv));
        here.map(move |area| area.start.saturating_add(len))
    });
    ends.fold(start, u64::max)
}

fn describe(metadata: &Metadata, number: usize) -> Volume {
    let lv = &metadata.lvs[number];
    let mut kinds: Vec<&str> = Vec::new();
    for segment in &lv.segments {
        let kind = segment.kind.name();
        if !kinds.contains(&kind) && kinds.len() < NAMED_MAX {
            kinds.push(kind);
        }
    }
    let (size, kind) = match lv.snapshot.and_then(|n| metadata.lvs.get(n)) {
        Some(snapshot) => (snapshot.size, "snapshot".to_owned()),
        None => (lv.size, kinds.join("+")),
    };
    Volume {
        name: lv.name.clone(),
        uuid: lv.uuid.clone(),
        size,
        kind,
        tags: lv.tags.clone(),
        is_visible: lv.is_visible,
        number,
    }
}
