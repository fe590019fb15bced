//! All that a disk leads to: every LUKS container that partitions, arrays and volumes hold, each with its way.
//!
//! [`find`](super::find) takes one; a scan names all of them, so that what it prints opens the right bytes, and the right
//! number of them.

use std::sync::Arc;

use super::{FindOptions, Layer, LayerKind, layers};
use crate::error::Error;
use crate::io::{Peek, ReadAt};
use crate::limits::LAYER_WAYS_MAX;
use crate::storage::lvm::Label;
use crate::storage::md::Superblock;
use crate::storage::{self, starts_as_luks};

/// A LUKS container, and what leads to it.
#[non_exhaustive]
pub struct Way {
    /// The partition of the disk itself, where there is one on the way.
    pub partition: Option<u32>,
    /// The last volume of LVM on the way, as `VG/LV`.
    pub volume: Option<String>,
    /// What lies on what, from the outermost down.
    pub layers: Vec<Layer>,
    /// The bytes from the container's first to its last.
    pub disk: Arc<dyn ReadAt>,
}

/// What a disk leads to.
#[derive(Default)]
#[non_exhaustive]
pub struct Ways {
    /// The containers, in the order of their places.
    pub found: Vec<Way>,
    /// The layers that could not be gone through, and why.
    pub failed: Vec<(Vec<Layer>, Error)>,
    /// Whether there is more, which was not looked at: [`LAYER_WAYS_MAX`](crate::limits::LAYER_WAYS_MAX).
    pub more: bool,
    looked_at: usize,
}

/// All containers that lie at the beginning of something: of `disk`, of a partition, an array, a volume. `sector_size` is
/// that of [`storage::list`]; of the options, the members count and the name.
pub fn ways(disk: &Arc<dyn ReadAt>, sector_size: Option<u32>, options: &FindOptions) -> Ways {
    let mut all = Ways::default();
    all.walk(disk, sector_size, options, &Step::default());
    all
}

/// Where a walk is.
#[derive(Clone, Default)]
struct Step {
    partition: Option<u32>,
    volume: Option<String>,
    layers: Vec<Layer>,
}

impl Step {
    fn on(&self, layer: Layer) -> Self {
        let mut next = self.clone();
        next.layers.push(layer);
        next
    }
}

impl Ways {
    fn walk(&mut self, disk: &Arc<dyn ReadAt>, sector_size: Option<u32>, options: &FindOptions, step: &Step) {
        if self.looked_at >= LAYER_WAYS_MAX || step.layers.len() > layers::DEPTH_MAX {
            self.more = true;
            return;
        }
        self.looked_at = self.looked_at.saturating_add(1);
        if let Some(own) = Superblock::probe(&**disk).ok().flatten() {
            match layers::array(disk, &own, options) {
                Ok(array) => {
                    let next = step.on(Layer::new(LayerKind::Array, array.info(), array.len()));
                    let array: Arc<dyn ReadAt> = Arc::new(array);
                    self.walk(&array, None, options, &next);
                }
                Err(e) => {
                    let layer = Layer::new(LayerKind::Array, format_args!("md {}", own.level), disk.len());
                    self.failed.push((step.on(layer).layers, e));
                }
            }
            return;
        }
        if starts_as_luks(&Peek::new(disk), 0) {
            let Step { partition, volume, layers } = step.clone();
            self.found.push(Way { partition, volume, layers, disk: Arc::clone(disk) });
            return;
        }
        if let Ok(Some(_)) = Label::probe(&**disk) {
            self.volumes(disk, options, step);
            return;
        }
        let entries = storage::list(&**disk, sector_size).ok().flatten().map_or_else(Vec::new, |table| table.entries);
        for entry in entries {
            let Ok(part) = entry.open_as_far_as_it_is_there(Arc::clone(disk)) else { continue };
            let mut next = step.on(Layer::new(LayerKind::Partition, entry.number, part.len()));
            if step.layers.is_empty() {
                next.partition = Some(entry.number);
            }
            let part: Arc<dyn ReadAt> = Arc::new(part);
            self.walk(&part, None, options, &next);
        }
    }

    fn volumes(&mut self, disk: &Arc<dyn ReadAt>, options: &FindOptions, step: &Step) {
        let group = match layers::group(disk, options) {
            Ok(group) => group,
            Err(e) => {
                self.failed.push((step.on(Layer::new(LayerKind::Volume, "LVM", disk.len())).layers, e));
                return;
            }
        };
        for volume in group.volumes.iter().filter(|volume| volume.is_visible) {
            let name = format!("{}/{}", group.name, volume.name);
            match group.open(volume) {
                Ok(opened) => {
                    let mut next = step.on(Layer::new(LayerKind::Volume, &name, opened.len()));
                    next.volume = Some(name);
                    let opened: Arc<dyn ReadAt> = Arc::new(opened);
                    self.walk(&opened, None, options, &next);
                }
                Err(e) => self.failed.push((step.on(Layer::new(LayerKind::Volume, name, 0)).layers, e)),
            }
        }
    }
}
