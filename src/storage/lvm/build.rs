//! From metadata and devices to the bytes of a logical volume.
//!
//! A volume opens where what it needs is there. Of a mirror and a RAID with copies, a leg that is not there or not in
//! sync may be left out: that is noted.

use std::collections::HashMap;
use std::sync::Arc;

use super::map::{LogicalVolume, Segment, Target};
use super::metadata::{self, Leg, Level, Lv, Metadata, Place, SegmentKind};
use super::raid::{self, Superblock};
use super::snapshot::Snapshot;
use super::stripe::{Area, Striped};
use super::thin::Thin;
use crate::error::{Condition, Error, ErrorKind, Hint, Result, escape};
use crate::io::ReadAt;
use crate::limits::CONTAINER_SIZE_MAX;

/// How many notes a message lists.
const NAMED_MAX: usize = 8;

/// A physical volume's device, or why there is none.
pub(super) type Device = std::result::Result<Arc<dyn ReadAt>, &'static str>;

pub(super) struct Builder<'a> {
    metadata: &'a Metadata,
    /// One for each physical volume of the metadata.
    devices: &'a [Device],
    /// What was opened on the way: several legs may lie on the same volume.
    opened: HashMap<usize, std::result::Result<Arc<LogicalVolume>, Failure>>,
}

/// An error that is kept for the next who asks.
struct Failure {
    kind: ErrorKind,
    rule: String,
    message: String,
}

impl<'a> Builder<'a> {
    pub(super) fn new(metadata: &'a Metadata, devices: &'a [Device]) -> Self {
        Self { metadata, devices, opened: HashMap::new() }
    }

    /// The volume that people know by the name of number `n`: of a snapshot's store, the snapshot.
    pub(super) fn volume(mut self, n: usize) -> Result<LogicalVolume> {
        let lv = &self.metadata.lvs[n];
        if let Some(other) = lv.merging {
            let message = format!("volume {} is being merged with {}", name(lv), name(&self.metadata.lvs[other]));
            return Err(Error::unsupported("lvm.merging", message).with_hint("let LVM finish the merge first"));
        }
        let mut volume = self.build(lv.snapshot.unwrap_or(n))?;
        volume.name.clone_from(&lv.name);
        Ok(volume)
    }

    /// The volume with number `n` as part of another. Metadata keeps volumes from lying on themselves, or too deep.
    fn part(&mut self, n: usize) -> Result<Arc<LogicalVolume>> {
        if !self.opened.contains_key(&n) {
            let built = self.build(n).map(Arc::new).map_err(|e| Failure {
                kind: e.kind(),
                rule: e.rule().to_owned(),
                message: e.message().to_owned(),
            });
            self.opened.insert(n, built);
        }
        match self.opened.get(&n) {
            Some(Ok(volume)) => Ok(Arc::clone(volume)),
            Some(Err(f)) => Err(Error::new(f.kind, f.message.clone()).with_rule(f.rule.clone())),
            None => Err(Error::corrupt("lvm.lv", "a volume is missing")),
        }
    }

    fn build(&mut self, n: usize) -> Result<LogicalVolume> {
        let lv = &self.metadata.lvs[n];
        let mut volume = LogicalVolume { name: lv.name.clone(), len: lv.size, segments: Vec::new(), notes: Vec::new() };
        for segment in &lv.segments {
            let target = self.target(lv, segment, &mut volume.notes)?;
            volume.segments.push(Segment { start: segment.start, len: segment.len, target });
        }
        Ok(volume)
    }

    fn target(&mut self, lv: &Lv, segment: &metadata::Segment, notes: &mut Vec<String>) -> Result<Target> {
        match &segment.kind {
            SegmentKind::Striped { areas, chunk } => {
                let width = u64::try_from(areas.len()).ok().filter(|width| *width > 0);
                let len = segment.len / width.ok_or_else(|| unread(lv, "a segment without stripes"))?;
                let mut found = Vec::new();
                for area in areas {
                    found.push(self.area(lv, *area, len, notes)?);
                }
                if found.len() == 1 {
                    return found.pop().map(Target::Linear).ok_or_else(|| unread(lv, "a segment without stripes"));
                }
                striped(lv, found.into_iter().map(Some).collect(), *chunk, 1)
            }
            SegmentKind::Mirror { areas, log } => self.mirror(lv, areas, *log, segment.len, notes),
            SegmentKind::Raid { level, legs, chunk, copies } => {
                self.raid(lv, *level, legs, (*chunk, *copies), segment.len, notes)
            }
            SegmentKind::Snapshot { origin, cow } => {
                let (origin, store) = (self.part(*origin)?, self.part(*cow)?);
                take_notes(notes, &origin);
                take_notes(notes, &store);
                let opened = Snapshot::open(origin, store, segment.len);
                opened.map(Target::Snapshot).map_err(|e| e.within(format!("volume {}", name(lv))))
            }
            SegmentKind::Thin { pool, device, has_external_origin } => {
                if *has_external_origin {
                    return Err(unread(lv, "a thin volume over a volume outside of its pool (an external origin)"));
                }
                self.thin(lv, *pool, *device, notes)
            }
            SegmentKind::Zero => Ok(Target::Zero),
            SegmentKind::ThinPool { .. } => {
                Err(unread(lv, "a thin pool, which has no bytes of its own").with_hint("name one of its thin volumes"))
            }
            SegmentKind::Other(kind) => Err(unread(lv, &format!("of type \"{}\"", escape(kind)))),
        }
    }

    /// `len` bytes of what an area lies on.
    fn area(&mut self, lv: &Lv, area: metadata::Area, len: u64, notes: &mut Vec<String>) -> Result<Area> {
        let start = area.start;
        let source: Arc<dyn ReadAt> = match area.place {
            Place::Pv(n) => {
                let pv = &self.metadata.pvs[n];
                let device = self.devices[n].as_ref().map_err(|why| {
                    let message = format!(
                        "volume {} needs physical volume {} ({}), which {why}",
                        name(lv),
                        pv.name,
                        escape(&pv.uuid)
                    );
                    missing_member("lvm.pv.missing", message)
                })?;
                Arc::clone(device)
            }
            Place::Lv(n) => {
                let below = self.part(n)?;
                take_notes(notes, &below);
                below
            }
        };
        let total = source.len();
        if start.checked_add(len).is_none_or(|end| end > total) {
            let what = match area.place {
                Place::Pv(n) => format!("the device of physical volume {}", self.metadata.pvs[n].name),
                Place::Lv(n) => format!("volume {}", name(&self.metadata.lvs[n])),
            };
            let message = format!(
                "volume {} has {len} bytes from byte {start} on in {what}, which ends at byte {total}",
                name(lv)
            );
            return Err(Error::corrupt("lvm.pv.truncated", message));
        }
        Ok(Area { source, start })
    }

    /// The first leg: LVM puts that one first which the others are copied from. Another one only where it is known to be
    /// in sync; a log in memory is lost.
    fn mirror(
        &mut self,
        lv: &Lv,
        areas: &[metadata::Area],
        log: Option<usize>,
        len: u64,
        notes: &mut Vec<String>,
    ) -> Result<Target> {
        let Some((first, others)) = areas.split_first() else { return Err(unread(lv, "a mirror without legs")) };
        let missing = match self.area(lv, *first, len, notes) {
            Ok(area) => return Ok(Target::Linear(area)),
            Err(e) => e,
        };
        let Some(log) = log else { return Err(missing) };
        let log = self.part(log)?;
        if !raid::is_in_sync(&*log)? {
            return Err(missing);
        }
        for area in others {
            if let Ok(area) = self.area(lv, *area, len, notes) {
                notes.push(format!("lvm: volume {} is read from another leg of the mirror: {missing}", name(lv)));
                return Ok(Target::Linear(area));
            }
        }
        Err(missing)
    }

    fn raid(
        &mut self,
        lv: &Lv,
        level: Level,
        legs: &[Leg],
        (chunk, copies): (u64, u64),
        len: u64,
        notes: &mut Vec<String>,
    ) -> Result<Target> {
        let width = u64::try_from(legs.len()).ok().filter(|width| *width > 0);
        let width = width.ok_or_else(|| unread(lv, "a RAID without legs"))?;
        let (number, len) = match level {
            Level::Raid0 => (0, len / width),
            Level::Raid1 => (1, len),
            Level::Raid10 => (10, len / (width / copies).max(1)),
        };
        let mut areas = Vec::new();
        let mut failures = Vec::new();
        for leg in legs {
            let data = leg.data.ok_or_else(|| Error::corrupt("lvm.raid.leg", "is taken out"));
            let area = data.and_then(|n| self.area(lv, metadata::Area { place: Place::Lv(n), start: 0 }, len, notes));
            failures.push(area.as_ref().err().map(ToString::to_string));
            areas.push(match (area, level) {
                // No other leg has what this one had.
                (Err(e), Level::Raid0) => return Err(e),
                (area, _) => area.ok(),
            });
        }
        if level == Level::Raid0 {
            return striped(lv, areas, chunk, 1);
        }
        let mut superblocks = Vec::new();
        for (leg, area) in legs.iter().zip(&areas) {
            superblocks.push(if area.is_some() { self.superblock(leg, number, legs.len())? } else { None });
        }
        for (n, reason) in raid::stale_legs(&superblocks).into_iter().enumerate() {
            if let Some(reason) = reason {
                areas[n] = None;
                let why = failures[n].take().unwrap_or_else(|| reason.to_owned());
                notes.push(format!("lvm: leg {n} of volume {} is left out: {why}", name(lv)));
            }
        }
        let target = match level {
            Level::Raid10 => Striped::new(areas, chunk, copies).map(Target::Striped),
            _ => areas.into_iter().flatten().next().map(Target::Linear),
        };
        target.ok_or_else(|| too_few(lv, notes))
    }

    /// The superblock of a leg, where the leg is one of the set: not new, not split off, and not to be filled anew.
    fn superblock(&mut self, leg: &Leg, level: u32, legs: usize) -> Result<Option<Option<Superblock>>> {
        let (Some(meta), Some(data)) = (leg.meta, leg.data) else { return Ok(None) };
        let data = &self.metadata.lvs[data];
        if data.is_visible || data.is_rebuilt {
            return Ok(None);
        }
        match self.part(meta) {
            Ok(meta) => Superblock::read(&*meta, level, legs).map(Some),
            Err(e) if e.is(Condition::MissingMember) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn thin(&mut self, lv: &Lv, pool: usize, device: u64, notes: &mut Vec<String>) -> Result<Target> {
        let pool = &self.metadata.lvs[pool];
        let found = pool.segments.first().map(|segment| &segment.kind);
        let Some(SegmentKind::ThinPool { metadata, data, chunk, transaction }) = found else {
            let message = format!("volume {} is a thin volume of {}, which is no thin pool", name(lv), name(pool));
            return Err(Error::corrupt("lvm.thin.pool", message));
        };
        if lv.size > CONTAINER_SIZE_MAX {
            let message = format!(
                "volume {} has {} bytes; at most {CONTAINER_SIZE_MAX} are read of a thin one",
                name(lv),
                lv.size
            );
            return Err(Error::limit("lvm.thin.size", message));
        }
        let (metadata, data) = (self.part(*metadata)?, self.part(*data)?);
        take_notes(notes, &metadata);
        take_notes(notes, &data);
        let within = |e: Error| e.within(format!("volume {}", name(lv)));
        let (thin, state) = Thin::open(metadata, data, *chunk, device).map_err(within)?;
        if state.needs_check {
            notes.push(format!("lvm: thin pool {} says that it needs a check (thin_check)", name(pool)));
        }
        if state.transaction != *transaction {
            notes.push(format!(
                "lvm: thin pool {} is at transaction {}, the volume group's metadata at {transaction}",
                name(pool),
                state.transaction
            ));
        }
        Ok(Target::Thin(thin))
    }
}

fn name(lv: &Lv) -> String {
    escape(&lv.name)
}

fn unread(lv: &Lv, what: &str) -> Error {
    Error::unsupported("lvm.lv.type", format!("volume {} is {what}: that is not read", name(lv)))
}

/// A volume that lies on `below` has what is to be said of that.
fn take_notes(notes: &mut Vec<String>, below: &LogicalVolume) {
    for note in &below.notes {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
}

fn striped(lv: &Lv, areas: Vec<Option<Area>>, chunk: u64, copies: u64) -> Result<Target> {
    let found = Striped::new(areas, chunk, copies).map(Target::Striped);
    found.ok_or_else(|| Error::corrupt("lvm.raid.legs", format!("volume {} has too few legs", name(lv))))
}

fn too_few(lv: &Lv, notes: &[String]) -> Error {
    let listed = notes.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    let message = format!("volume {} has too few legs that are there and in sync: {}", name(lv), listed);
    missing_member("lvm.raid.legs", message)
}

fn missing_member(rule: &'static str, message: String) -> Error {
    Error::invalid(message).with_rule(rule).with_condition(Condition::MissingMember).with_hint(Hint::NameMembers)
}
