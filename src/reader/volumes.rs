//! The file systems in a disk, by the names that begin a path: a partition's number, a group's and a volume's name.
//!
//! One that lies in the disk directly has no name, and `/` is its root.

use std::sync::Arc;

use super::fault_of_name;
use crate::error::{Result, escape};
use crate::inside::{Contents, Kind};
use crate::io::ReadAt;
use crate::limits::{INSIDE_DEPTH_MAX, INSIDE_PARTS_MAX};
use crate::storage;
use crate::storage::lvm::VolumeGroup;
use crate::storage::md::{Array, AssembleOptions, Source};

/// What lies in a disk, or in a part of it.
pub struct Volume {
    /// The path that leads to it: `/`, `/2`, `/vg/root`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Its label. This is the image's text: escape it before it is printed.
    pub label: Option<String>,
    /// Its length in bytes.
    pub len: u64,
    /// Its bytes.
    pub disk: Arc<dyn ReadAt>,
}

/// All that lies in a disk.
#[derive(Default)]
pub struct Volumes {
    /// In their order on the disk.
    pub all: Vec<Volume>,
    /// What could not be looked into, one line each. Text of the image in it is escaped.
    pub notes: Vec<String>,
}

impl Volumes {
    /// Looks at a disk.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where its start cannot be read.
    pub fn list(disk: Arc<dyn ReadAt>) -> Result<Self> {
        let mut found = Self::default();
        found.look(disk, b"/".to_vec(), 0)?;
        Ok(found)
    }

    /// The volume that a path leads into, and the rest of the path, in it.
    pub fn find<'p>(&self, path: &'p [u8]) -> Option<(&Volume, &'p [u8])> {
        self.all.iter().find_map(|volume| {
            if volume.path == b"/" {
                return Some((volume, path));
            }
            match path.strip_prefix(volume.path.as_slice())? {
                [] => Some((volume, b"/".as_slice())),
                rest => rest.starts_with(b"/").then_some((volume, rest)),
            }
        })
    }

    fn look(&mut self, disk: Arc<dyn ReadAt>, path: Vec<u8>, depth: usize) -> Result<()> {
        let contents = Contents::probe(Arc::clone(&disk))?;
        let is_deep = depth >= INSIDE_DEPTH_MAX;
        match contents.kind {
            Kind::Gpt | Kind::Mbr if !is_deep => self.partitions(&disk, &path, depth),
            Kind::Lvm2 if !is_deep => self.group(&disk, &path, depth),
            Kind::Md if !is_deep => self.array(&disk, path, depth),
            kind => {
                let len = disk.len();
                self.all.push(Volume { path, kind, label: contents.label, len, disk });
            }
        }
        Ok(())
    }

    fn part(&mut self, disk: Result<Arc<dyn ReadAt>>, path: Vec<u8>, depth: usize) {
        let shown = super::shown(&path);
        if let Err(e) = disk.and_then(|disk| self.look(disk, path, depth.saturating_add(1))) {
            self.notes.push(format!("{shown} was not looked into: {}", escape(&e.to_string())));
        }
    }

    fn partitions(&mut self, disk: &Arc<dyn ReadAt>, path: &[u8], depth: usize) {
        let table = match storage::list(&**disk, None) {
            Ok(Some(table)) => table,
            Ok(None) => return,
            Err(e) => return self.notes.push(format!("the partition table was not read: {}", escape(&e.to_string()))),
        };
        for entry in table.entries.iter().take(INSIDE_PARTS_MAX) {
            let part = entry.open_as_far_as_it_is_there(Arc::clone(disk));
            let part = part.map(|part| -> Arc<dyn ReadAt> { Arc::new(part) });
            self.part(part, below(path, entry.number.to_string().as_bytes()), depth);
        }
        self.left_out(table.entries.len());
    }

    fn group(&mut self, disk: &Arc<dyn ReadAt>, path: &[u8], depth: usize) {
        let group = match VolumeGroup::assemble(vec![Arc::clone(disk)]) {
            Ok(group) => group,
            Err(e) => return self.notes.push(format!("the volume group was not read: {}", escape(&e.to_string()))),
        };
        let visible = || group.volumes.iter().filter(|volume| volume.is_visible);
        for volume in visible().take(INSIDE_PARTS_MAX) {
            let names = [group.name.as_bytes(), volume.name.as_bytes()];
            if names.iter().any(|name| fault_of_name(name).is_some()) {
                let name = escape(&volume.name);
                self.notes.push(format!("the volume {name} has a name that no path can have"));
                continue;
            }
            let opened = group.open(volume).map(|opened| -> Arc<dyn ReadAt> { Arc::new(opened) });
            self.part(opened, below(&below(path, names[0]), names[1]), depth);
        }
        self.left_out(visible().count());
    }

    /// A mirror has all of it in each member; of other arrays more disks are wanted.
    fn array(&mut self, disk: &Arc<dyn ReadAt>, path: Vec<u8>, depth: usize) {
        let member = Source { name: "this member".into(), disk: Arc::clone(disk) };
        let array = Array::assemble(vec![member], &AssembleOptions::default());
        self.part(array.map(|array| -> Arc<dyn ReadAt> { Arc::new(array) }), path, depth);
    }

    fn left_out(&mut self, count: usize) {
        if let more @ 1.. = count.saturating_sub(INSIDE_PARTS_MAX) {
            self.notes.push(format!("{more} parts more were not looked into"));
        }
    }
}

fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    [path, b"/", name].concat()
}
