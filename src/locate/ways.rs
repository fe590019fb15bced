//! All that a disk leads to: every LUKS container that partitions, arrays and volumes hold, each with its way.
//!
//! [`find`](super::find) takes one; a scan names all of them, so that what it prints opens the right bytes, and the right
//! number of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{FindOptions, Layer, LayerKind, Search, layers, members};
use crate::error::{Error, Result, escape};
use crate::io::{Peek, ReadAt};
use crate::limits::{LAYER_WAYS_MAX, LAYERS_DEPTH_MAX};
use crate::storage::lvm::Label;
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
    /// Where its first byte lies on the disk; `None` where that is on another disk of the set.
    pub start: Option<u64>,
    /// The bytes from the container's first to its last.
    pub disk: Arc<dyn ReadAt>,
}

/// A range of the disk that is a part of something larger: a member of an array, a physical volume.
#[non_exhaustive]
pub struct Part {
    /// Its first byte's place on the disk.
    pub start: u64,
    /// How many bytes it has.
    pub len: u64,
    /// What it is a part of, one line.
    pub of: String,
    /// Why what it is a part of cannot be read.
    pub error: Option<Error>,
}

/// What a disk leads to.
#[derive(Default)]
#[non_exhaustive]
pub struct Ways {
    /// The containers, in the order of their places.
    pub found: Vec<Way>,
    /// The ranges of the disk that are parts of something larger. Bytes that lie beside each other in one need not do so in
    /// the whole.
    pub parts: Vec<Part>,
    /// Whether there is more, which was not looked at: [`LAYER_WAYS_MAX`](crate::limits::LAYER_WAYS_MAX).
    pub more: bool,
    looked_at: usize,
}

/// All containers that lie at the beginning of something: of `disk`, of a partition, an array, a volume. `sector_size` is
/// that of [`storage::list`]; of the options, the members count and the name.
///
/// # Errors
/// Where a file of [`FindOptions::with`] cannot be opened, as [`crate::format::open`].
pub fn ways(disk: &Arc<dyn ReadAt>, sector_size: Option<u32>, options: &FindOptions) -> Result<Ways> {
    let traced = Arc::new(Traced { disk: Arc::clone(disk), last: AtomicU64::new(u64::MAX) });
    let mut all = Ways::default();
    let base: Arc<dyn ReadAt> = Arc::<Traced>::clone(&traced);
    let mut options = options.clone();
    options.container.with = options.with.clone();
    let members = members(&base, &options)?;
    let search = Search { options: &options, members: &members.0 };
    all.walk(&base, sector_size, search, &Step { base: Some((0, disk.len())), ..Step::default() });
    for way in &mut all.found {
        traced.last.store(u64::MAX, Ordering::Relaxed);
        let read = way.disk.read_exact_at(&mut [0; 512], 0);
        way.start = Some(traced.last.load(Ordering::Relaxed)).filter(|start| read.is_ok() && *start != u64::MAX);
    }
    Ok(all)
}

/// A disk that knows where it was read last.
struct Traced {
    disk: Arc<dyn ReadAt>,
    last: AtomicU64,
}

impl ReadAt for Traced {
    fn len(&self) -> u64 {
        self.disk.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.last.store(offset, Ordering::Relaxed);
        self.disk.read_exact_at(buf, offset)
    }
}

/// Where a walk is.
#[derive(Clone, Default)]
struct Step {
    /// Where that is on the disk, and how long, as long as it is a range of it.
    base: Option<(u64, u64)>,
    partition: Option<u32>,
    volume: Option<String>,
    layers: Vec<Layer>,
}

impl Step {
    /// One layer further, which is no range of the disk.
    fn on(&self, layer: Layer) -> Self {
        let mut next = Self { base: None, ..self.clone() };
        next.layers.push(layer);
        next
    }

    /// This as a part of something larger.
    fn part(&self, of: impl ToString, error: Option<Error>) -> Option<Part> {
        self.base.map(|(start, len)| Part { start, len, of: of.to_string(), error })
    }
}

impl Ways {
    fn walk(&mut self, disk: &Arc<dyn ReadAt>, sector_size: Option<u32>, search: Search<'_>, step: &Step) {
        if self.looked_at >= LAYER_WAYS_MAX || step.layers.len() > LAYERS_DEPTH_MAX {
            self.more = true;
            return;
        }
        self.looked_at = self.looked_at.saturating_add(1);
        if let Some(own) = layers::own_superblock(disk) {
            match layers::array(disk, &own, search) {
                Ok(array) => {
                    self.parts.extend(step.part(array.info(), None));
                    let next = step.on(Layer::new(LayerKind::Array, array.info(), array.len()));
                    let array: Arc<dyn ReadAt> = Arc::new(array);
                    self.walk(&array, None, search, &next);
                }
                Err(e) => self.parts.extend(step.part(format_args!("an md {} array", own.level), Some(e))),
            }
            return;
        }
        if starts_as_luks(&Peek::new(disk), 0) {
            self.take(disk, step);
            return;
        }
        let before = self.found.len();
        self.further(disk, sector_size, search, step);
        // What leads nowhere may have been written over a container.
        if self.found.len() == before && layers::is_damaged_container(disk) {
            self.take(disk, step);
        }
    }

    fn take(&mut self, disk: &Arc<dyn ReadAt>, step: &Step) {
        let Step { partition, volume, layers, .. } = step.clone();
        self.found.push(Way { partition, volume, layers, start: None, disk: Arc::clone(disk) });
    }

    fn further(&mut self, disk: &Arc<dyn ReadAt>, sector_size: Option<u32>, search: Search<'_>, step: &Step) {
        if let Ok(Some(_)) = Label::probe(&**disk) {
            self.volumes(disk, search, step);
            return;
        }
        let entries = storage::list(&**disk, sector_size).ok().flatten().map_or_else(Vec::new, |table| table.entries);
        for entry in entries {
            let Ok(part) = entry.open_as_far_as_it_is_there(Arc::clone(disk)) else { continue };
            let mut next = step.on(Layer::new(LayerKind::Partition, entry.number, part.len()));
            next.base = step.base.and_then(|(start, _)| Some((start.checked_add(entry.start)?, part.len())));
            if step.layers.is_empty() {
                next.partition = Some(entry.number);
            }
            let part: Arc<dyn ReadAt> = Arc::new(part);
            self.walk(&part, None, search, &next);
        }
    }

    fn volumes(&mut self, disk: &Arc<dyn ReadAt>, search: Search<'_>, step: &Step) {
        let group = match layers::group(disk, search) {
            Ok(group) => group,
            Err(e) => {
                self.parts.extend(step.part("a volume group of LVM", Some(e)));
                return;
            }
        };
        self.parts.extend(step.part(format_args!("LVM volume group {}", escape(&group.name)), None));
        for volume in group.volumes.iter().filter(|volume| volume.is_visible) {
            let name = format!("{}/{}", group.name, volume.name);
            match group.open(volume) {
                Ok(opened) => {
                    let mut next = step.on(Layer::new(LayerKind::Volume, &name, opened.len()));
                    next.volume = Some(name);
                    let opened: Arc<dyn ReadAt> = Arc::new(opened);
                    self.walk(&opened, None, search, &next);
                }
                Err(e) => {
                    self.parts.extend(step.part(format_args!("LVM volume {}", escape(&name)), Some(e)));
                }
            }
        }
    }
}
