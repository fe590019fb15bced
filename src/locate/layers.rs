//! Down from a disk through what it is a member of: md arrays and LVM's volumes, in any order.

use std::sync::Arc;

use super::{HeaderAt, Layer, LayerKind, Member, Search, Trail};
use crate::error::{Condition, Error, Hint, Result, counted, escape};
use crate::format::Named;
use crate::io::{Peek, ReadAt};
use crate::limits::{LAYERS_DEPTH_MAX, NESTED_LOOKS_MAX};
use crate::luks::recover;
use crate::storage::lvm::{Label, Volume, VolumeGroup};
use crate::storage::md::{Array, AssembleOptions, MemberState, Source, Superblock, Version};
use crate::storage::{self, starts_as_luks};

/// What lies one layer below `disk`, or `None` where it is the last.
pub(super) fn below(disk: &Arc<dyn ReadAt>, search: Search<'_>, trail: &mut Trail) -> Result<Option<Arc<dyn ReadAt>>> {
    if let Some(own) = own_superblock(disk) {
        let array = array(disk, &own, search)?;
        // An array that was made over a container by accident leads nowhere, and the container is there still.
        if !is_on_the_way(&array, &mut Looks::new()) && is_damaged_container(disk) {
            trail.notes.push(format!("{}, was made over a LUKS container", array.info()));
            return Ok(None);
        }
        trail.notes.push(format!("{}, {} bytes", array.info(), array.info().size));
        if let missing @ 1.. = array.info().members.iter().filter(|m| m.state == MemberState::Missing).count() {
            let of = array.info().raid_disks;
            trail.notes.push(format!("md: the array is degraded: {missing} of {} missing", counted(of, "member")));
        }
        trail.notes.extend(array.info().notes.iter().cloned());
        trail.layers.push(Layer::new(LayerKind::Array, array.info(), array.len()));
        return Ok(Some(Arc::new(array)));
    }
    if starts_as_luks(&Peek::new(disk), 0) {
        return Ok(None);
    }
    let is_as_it_is = search.options.header == HeaderAt::Nowhere && search.options.volume.is_none();
    match Label::probe(&**disk) {
        Ok(Some(_)) if !is_as_it_is => {
            let (before, groups) = (trail.notes.len(), trail.groups.len());
            volume(disk, search, trail).map(Some).or_else(|e| {
                // The same of a label of LVM. Whoever names a volume wants no other thing.
                if search.options.volume.is_some() || !is_damaged_container(disk) {
                    return Err(e);
                }
                trail.notes.truncate(before);
                trail.groups.truncate(groups);
                Ok(None)
            })
        }
        _ => Ok(None),
    }
}

/// The superblock of the array that `disk` is a member of. One of version 0.90 does not say where its member begins: in a
/// disk's last partition it looks like that of the disk, and is taken for the partition's where it fits there.
pub(super) fn own_superblock(disk: &dyn ReadAt) -> Option<Superblock> {
    let own = Superblock::probe(disk).ok().flatten()?;
    if own.version != Version::V0_90 {
        return Some(own);
    }
    let is_its = |entry: &storage::Entry| {
        let part = entry.open(disk).ok()?;
        let md = Superblock::probe(&part).ok().flatten()?;
        Some(md.offset.checked_add(entry.start)? == own.offset && own.size <= md.data_size)
    };
    let entries = storage::list(disk, None).ok().flatten().map_or_else(Vec::new, |table| table.entries);
    let holds = |entry: &&storage::Entry| own.offset.checked_sub(entry.start).is_some_and(|inside| inside < entry.len);
    (!entries.iter().filter(holds).any(|entry| is_its(entry) == Some(true))).then_some(own)
}

/// Whether `disk` is a part of something larger, and what that is: an offset into it leads nowhere by itself.
pub(super) fn part_of(disk: &dyn ReadAt) -> Option<String> {
    // A mirror's bytes go on in it, but beyond the array's end.
    if let Ok(Some(md)) = Superblock::probe(disk) {
        return Some(format!("a member of an md {} array", md.level));
    }
    let label = Label::probe(disk).ok().flatten();
    label.filter(|_| !starts_as_luks(&Peek::new(disk), 0)).map(|_| "a physical volume of LVM".to_owned())
}

/// The disks that were named besides, and the partitions of those that have some, each with the file that it is of. A table
/// that is seen in the member of an array is the array's.
fn candidates(members: &[Member]) -> Vec<(&Named, Source)> {
    let mut all = Vec::new();
    for Member { named, disk, .. } in members {
        let name = &named.name;
        all.push((named, Source { name: name.clone(), disk: Arc::clone(disk) }));
        if own_superblock(disk).is_none() {
            let partitions = partitions(disk).into_iter();
            all.extend(partitions.map(|(number, disk)| {
                let name = format!("{name}, partition {number}");
                (named, Source { name, disk })
            }));
        }
    }
    all
}

/// The partitions that lie on a disk, with their numbers.
fn partitions(disk: &Arc<dyn ReadAt>) -> Vec<(u32, Arc<dyn ReadAt>)> {
    let entries = storage::list(&**disk, None).ok().flatten().map_or_else(Vec::new, |table| table.entries);
    let open = |entry: &storage::Entry| -> Option<(u32, Arc<dyn ReadAt>)> {
        Some((entry.number, Arc::new(entry.open(Arc::clone(disk)).ok()?)))
    };
    entries.iter().filter_map(open).collect()
}

/// The array that `disk` is a member of, with those of the named disks that are members of it, too.
pub(super) fn array(disk: &Arc<dyn ReadAt>, own: &Superblock, search: Search<'_>) -> Result<Array> {
    array_of(Source { name: search.options.name.clone(), disk: Arc::clone(disk) }, own, search)
}

/// The array that `first` is a member of.
fn array_of(first: Source, own: &Superblock, search: Search<'_>) -> Result<Array> {
    let mut members = vec![first];
    for (named, source) in candidates(search.members) {
        let md = own_superblock(&*source.disk);
        // The member itself is among them, too.
        if md.is_some_and(|md| md.set_uuid == own.set_uuid && md != *own) {
            named.mark_used();
            members.push(source);
        }
    }
    Array::assemble(members, &AssembleOptions::default())
}

/// The UUIDs of the volume group that `disk` is a physical volume of, and of itself.
pub(super) fn physical_volume(disk: &dyn ReadAt) -> Option<(String, String)> {
    let label = Label::probe(disk).ok().flatten()?;
    let (_, group) = label.group()?;
    Some((group.to_owned(), label.uuid.clone()))
}

/// What may be a physical volume: the named disks, the arrays that those make, and the partitions of both. A member of an
/// array is none, though the label of a mirror can be read in it.
fn may_be_physical(search: Search<'_>) -> Vec<(&Named, Arc<dyn ReadAt>)> {
    let mut all: Vec<(&Named, Arc<dyn ReadAt>)> = Vec::new();
    let mut arrays = Vec::new();
    for (named, source) in candidates(search.members) {
        let Some(md) = own_superblock(&*source.disk) else {
            all.push((named, source.disk));
            continue;
        };
        if !arrays.contains(&md.set_uuid) {
            arrays.push(md.set_uuid);
            // One that cannot be read may be another's; the group says what it misses.
            if let Ok(array) = array_of(source, &md, search) {
                let array: Arc<dyn ReadAt> = Arc::new(array);
                all.extend(partitions(&array).into_iter().map(|(_, part)| (named, part)));
                all.push((named, array));
            }
        }
    }
    all
}

/// The volume group that `disk` is a physical volume of, with those of the named disks that belong to it, too.
pub(super) fn group(disk: &Arc<dyn ReadAt>, search: Search<'_>) -> Result<VolumeGroup> {
    let own = Label::probe(&**disk)?;
    let group_of = |label: &Label| label.group().map(|(_, uuid)| uuid.to_owned());
    let group = own.as_ref().and_then(group_of);
    let mut devices = vec![Arc::clone(disk)];
    let mut files: Vec<Option<&Named>> = vec![None];
    for (named, other) in may_be_physical(search) {
        let Some(label) = Label::probe(&*other).ok().flatten() else { continue };
        // The image itself is among what was named, and with it this physical volume.
        let is_own = || own.as_ref().is_some_and(|own| own.uuid == label.uuid);
        if search.is_image(named) && is_own() {
            continue;
        }
        // One without metadata of its own may be of this group: assembling knows by its UUID.
        if group_of(&label).is_none_or(|other| group.as_ref().is_none_or(|own| *own == other)) {
            devices.push(other);
            files.push(Some(named));
        }
    }
    let group = VolumeGroup::assemble(devices)?;
    // The group's metadata say which devices are of it.
    for device in group.physical.iter().filter_map(|physical| physical.device) {
        files.get(device).copied().flatten().iter().for_each(|named| named.mark_used());
    }
    Ok(group)
}

/// The volume that was named, or the only one that leads to LUKS.
fn volume(disk: &Arc<dyn ReadAt>, search: Search<'_>, trail: &mut Trail) -> Result<Arc<dyn ReadAt>> {
    let options = search.options;
    let group = Arc::new(group(disk, search)?);
    trail.groups.push(Arc::clone(&group));
    trail.notes.push(format!("LVM volume group {}", escape(&group.name)));
    trail.notes.extend(group.notes.iter().cloned());
    let mut take = |volume: &Volume, opened: Arc<dyn ReadAt>| {
        trail.notes.push(format!("LVM volume {}/{volume}", escape(&group.name)));
        let name = format!("{}/{}", group.name, volume.name);
        trail.layers.push(Layer::new(LayerKind::Volume, name, opened.len()));
        opened
    };
    if let Some(name) = &options.volume {
        let volume = group.find(name)?;
        return Ok(take(volume, Arc::new(group.open(volume)?)));
    }
    let (mut held, mut failed) = (Vec::new(), None);
    let mut looks = Looks::new();
    for volume in group.volumes.iter().filter(|volume| volume.is_visible) {
        match group.open(volume) {
            Ok(opened) => {
                let opened: Arc<dyn ReadAt> = Arc::new(opened);
                if is_on_the_way(&opened, &mut looks) {
                    held.push((volume, opened));
                }
            }
            Err(e) => failed = failed.or(Some(e.within(format_args!("volume {}", escape(&volume.name))))),
        }
    }
    let list = |names: Vec<String>| names.into_iter().take(storage::NAMED_MAX).collect::<Vec<_>>().join(", ");
    if held.len() > 1 {
        let names = list(held.iter().map(|(volume, _)| escape(&volume.name)).collect());
        let message = format!("{} of LVM hold LUKS: {names}", counted(held.len(), "volume"));
        return Err(Error::invalid(message).with_rule("volume").with_hint(Hint::NameVolume));
    }
    if let Some((volume, opened)) = held.pop() {
        return Ok(take(volume, opened));
    }
    if let Some(e) = failed {
        return Err(e);
    }
    let names = list(group.volumes.iter().filter(|v| v.is_visible).map(|v| escape(&v.name)).collect());
    let message = format!("no volume of the LVM group {} holds LUKS; there are: {names}", escape(&group.name));
    Err(Error::corrupt("magic", message).with_condition(Condition::NoHeader).with_hint([Hint::NameVolume, Hint::Scan]))
}

/// Whether a disk is a LUKS container, or may lead to one.
fn is_on_the_way(disk: &dyn ReadAt, looks: &mut Looks) -> bool {
    holds_luks(disk) || is_lower(disk, looks)
}

/// Whether a disk is a LUKS container, with its magic or without.
pub(super) fn holds_luks(disk: &dyn ReadAt) -> bool {
    starts_as_luks(&Peek::new(disk), 0) || is_damaged_container(disk)
}

/// Whether a disk is a LUKS container whose first bytes are those of something else.
pub(super) fn is_damaged_container(disk: &dyn ReadAt) -> bool {
    !starts_as_luks(&Peek::new(disk), 0) && recover::open(disk).is_ok()
}

/// Whether a disk may lead to LUKS through an array, a volume group or a partition table of its own.
pub(super) fn is_lower(disk: &dyn ReadAt, looks: &mut Looks) -> bool {
    is_member(disk) || leads_on(disk, LAYERS_DEPTH_MAX, looks)
}

/// Whether a disk is a member of an array, or a physical volume.
pub(super) fn is_member(disk: &dyn ReadAt) -> bool {
    own_superblock(disk).is_some() || Label::probe(disk).is_ok_and(|label| label.is_some())
}

/// Whether a part of a disk is a whole disk, as a virtual machine's is, with a partition that leads to LUKS, in its own
/// table or in that of a disk within it.
pub(super) fn is_nested(disk: &dyn ReadAt) -> bool {
    leads_on(disk, LAYERS_DEPTH_MAX, &mut Looks::new())
}

/// How many partitions within partitions may be looked at yet: all that lie on a disk share it, for each may hold the same
/// table.
pub(super) struct Looks(usize);

impl Looks {
    pub(super) fn new() -> Self {
        Self(NESTED_LOOKS_MAX)
    }

    /// Takes one; `None` where none is left.
    fn take(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }
}

fn leads_on(disk: &dyn ReadAt, depth: usize, looks: &mut Looks) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    let look = Peek::new(disk);
    let Ok(Some(table)) = storage::list(disk, None) else { return false };
    table.entries.iter().any(|entry| {
        let Some(()) = looks.take() else { return false };
        let leads = |part: &dyn ReadAt, looks: &mut Looks| is_member(part) || leads_on(part, depth, looks);
        entry.starts_as_luks(&look) || entry.open(disk).is_ok_and(|part| leads(&part, looks))
    })
}
