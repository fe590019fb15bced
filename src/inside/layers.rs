//! What other disks are made of: md's members, LVM2's physical volumes, LUKS, BitLocker. Their structures are read by
//! [`storage`](crate::storage) and [`luks`](crate::luks), which check them.

use std::sync::Arc;

use super::look::{Look, Metered, text, uuid};
use super::{Contents, Kind, Part, Severity, State};
use crate::error::{ErrorKind, counted, escape};
use crate::io::ReadAt;
use crate::limits::INSIDE_PARTS_MAX;
use crate::luks::metadata::Version as LuksVersion;
use crate::storage::lvm::{Label, VolumeGroup};
use crate::storage::md::{Array, AssembleOptions, Level, Source, Superblock, Version};

pub(super) fn probe_luks(look: &Look<'_>) -> Option<Contents> {
    if !look.has(b"LUKS\xba\xbe", 0) {
        return None;
    }
    let opened = crate::luks::open(&**look.disk());
    // One that is cut off within its keyslots says its size all the same.
    let opened = match opened {
        Err(e) if e.kind() == ErrorKind::Corrupt => crate::luks::open(&Endless(look.disk())).or(Err(e)),
        other => other,
    };
    match opened {
        Ok(metadata) => {
            let kind = match metadata.version {
                LuksVersion::V1 => Kind::Luks1,
                LuksVersion::V2 => Kind::Luks2,
            };
            let mut contents = Contents::new(kind, look);
            contents.uuid = Some(metadata.uuid.clone()).filter(|uuid| !uuid.is_empty());
            contents.label = Some(metadata.label.clone()).filter(|label| !label.is_empty());
            let ends = metadata.segments.iter().map(|s| s.offset.saturating_add(s.size.unwrap_or(0)));
            contents.size = ends.max();
            Some(contents)
        }
        Err(e) if e.kind() == ErrorKind::Io => None,
        Err(e) => {
            let version = look.bytes(6, 2)?;
            let kind = if version == [0, 1] { Kind::Luks1 } else { Kind::Luks2 };
            let mut contents = Contents::new(kind, look);
            let structure = ("the LUKS header", e.offset().unwrap_or(0));
            let found = escape(&format!("{} ({})", e.message(), e.rule()));
            contents.find(Severity::Error, "contents.luks.header", structure, found, "a whole header is wanted");
            Some(contents)
        }
    }
}

/// A disk of which nobody knows the end.
struct Endless<'a>(&'a Arc<Metered>);

impl ReadAt for Endless<'_> {
    fn len(&self) -> u64 {
        u64::MAX
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> crate::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

pub(super) fn probe_bitlocker(look: &Look<'_>) -> Option<Contents> {
    look.has(b"-FVE-FS-", 3).then(|| Contents::new(Kind::BitLocker, look))
}

pub(super) fn probe_md(look: &Look<'_>) -> Option<Contents> {
    let superblock = Superblock::probe(&**look.disk()).ok().flatten()?;
    // One at the end that does not say where its member begins may be the last partition's.
    if superblock.version == Version::V0_90 && super::tables::probe(look).is_some() {
        return None;
    }
    let mut contents = Contents::new(Kind::Md, look);
    contents.label = text(superblock.name.as_bytes());
    contents.uuid = uuid(&superblock.set_uuid.0);
    contents.block_size = Some(superblock.chunk).filter(|chunk| *chunk > 0);
    let data = superblock.data_offset.checked_add(superblock.data_size.min(superblock.size.max(1)));
    contents.size = data.filter(|_| superblock.size > 0).max(superblock.offset.checked_add(256));
    contents.state = if superblock.resync_offset.is_some() { State::Unknown } else { State::Clean };
    contents.notes.push(format!("md {} of {}", superblock.level, counted(superblock.raid_disks, "member")));
    Some(contents)
}

/// A mirror has all of it in each member; of other arrays more disks are wanted.
pub(super) fn open_md(disk: &Arc<Metered>, contents: &mut Contents, depth: usize) {
    let level = Superblock::probe(&**disk).ok().flatten().map(|superblock| superblock.level);
    if level != Some(Level::Raid1) {
        return;
    }
    let member = Source { name: "this member".into(), disk: Arc::<Metered>::clone(disk) };
    match Array::assemble(vec![member], &AssembleOptions::default()) {
        Ok(array) => {
            let array: Arc<dyn ReadAt> = Arc::new(array);
            let len = array.len();
            let inside = super::probe_part(array, "the array", None, (disk, depth)).ok();
            contents.parts.push(Part { name: "array".into(), start: None, len, contents: inside });
        }
        Err(e) => contents.notes.push(format!("the array was not looked into: {}", escape(e.message()))),
    }
}

pub(super) fn probe_lvm(look: &Look<'_>) -> Option<Contents> {
    let label = Label::probe(&**look.disk()).ok().flatten()?;
    let mut contents = Contents::new(Kind::Lvm2, look);
    contents.uuid = Some(label.uuid.clone());
    match VolumeGroup::assemble(vec![Arc::<Metered>::clone(look.disk())]) {
        Ok(group) => {
            contents.label = Some(group.name.clone());
            contents.block_size = Some(group.extent_size);
            contents.size = group.used_end(0);
        }
        Err(e) => {
            // One that was made and never given to a group has no metadata, and nothing is wrong with it.
            if e.kind() == ErrorKind::Corrupt {
                let structure = ("the metadata of LVM", e.offset().unwrap_or(0));
                let found = escape(e.message());
                contents.find(Severity::Error, "contents.lvm.metadata", structure, found, "whole metadata are wanted");
            } else {
                contents.notes.push(format!("lvm: {}", escape(e.message())));
            }
        }
    }
    Some(contents)
}

pub(super) fn open_lvm(disk: &Arc<Metered>, contents: &mut Contents, depth: usize) {
    let Ok(group) = VolumeGroup::assemble(vec![Arc::<Metered>::clone(disk)]) else { return };
    contents.notes.extend(group.notes.iter().cloned());
    let visible = || group.volumes.iter().filter(|volume| volume.is_visible);
    for volume in visible().take(INSIDE_PARTS_MAX) {
        let title = format!("volume {}", escape(&volume.name));
        let inside = group.open(volume).map_err(|e| {
            contents.notes.push(format!("{title} was not looked into: {}", escape(e.message())));
        });
        let inside =
            inside.ok().and_then(|opened| super::probe_part(Arc::new(opened), &title, None, (disk, depth)).ok());
        contents.parts.push(Part { name: volume.name.clone(), start: None, len: volume.size, contents: inside });
    }
    if let more @ 1.. = visible().count().saturating_sub(INSIDE_PARTS_MAX) {
        contents.notes.push(format!("not looked at: {} more", counted(more, "volume")));
    }
}
