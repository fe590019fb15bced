//! The metadata of a volume group: its physical and logical volumes and their segments (LVM2's
//! `lib/format_text/import_vsn1.c`, and `_text_import` of the segment types in `lib/striped`, `lib/mirror`, `lib/raid`,
//! `lib/snapshot` and `lib/thin`).
//!
//! What is here obeys the rules that LVM checks before it uses a group: the segments of a volume follow each other
//! without a gap, every name that is mentioned exists, no extent of a physical volume is used twice or lies beyond its
//! end, and no volume lies on itself.

use std::collections::HashMap;

use super::text::{self, Section, Value};
use crate::error::{Error, Result, counted, escape};
use crate::limits::{LVM_AREAS_MAX, LVM_DEPTH_MAX};

const SECTOR: u64 = 512;

/// What a version of the metadata says of itself.
pub(super) struct Summary {
    pub(super) name: String,
    pub(super) seqno: u64,
    pub(super) time: u64,
    pub(super) description: String,
}

impl Summary {
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let top = text::parse(text)?;
        Self::of(&top, group(&top)?)
    }

    fn of(top: &Section, group: &Section) -> Result<Self> {
        Ok(Self {
            name: group.name.clone(),
            seqno: group.number("seqno")?,
            time: top.number_if_any("creation_time")?.unwrap_or(0),
            description: top.string_if_any("description")?.unwrap_or("").to_owned(),
        })
    }
}

/// The section of the volume group: the only one that the text has.
fn group(top: &Section) -> Result<&Section> {
    let mut sections = top.sections();
    match (sections.next(), sections.next()) {
        (Some(group), None) => Ok(group),
        _ => Err(Error::corrupt("lvm.metadata", "the metadata has not exactly one volume group")),
    }
}

#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) seqno: u64,
    pub(super) time: u64,
    pub(super) description: String,
    /// In bytes.
    pub(super) extent_size: u64,
    pub(super) is_exported: bool,
    pub(super) pvs: Vec<Pv>,
    pub(super) lvs: Vec<Lv>,
}

/// A physical volume. Sizes and places are in bytes.
#[derive(Debug)]
pub(super) struct Pv {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) size: u64,
    pub(super) start: u64,
    pub(super) extents: u64,
    /// LVM has marked it as missing: the group was changed without it.
    pub(super) is_missing: bool,
    pub(super) tags: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Lv {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) tags: Vec<String>,
    pub(super) is_visible: bool,
    /// LVM fills it anew: it holds nothing yet.
    pub(super) is_rebuilt: bool,
    /// In bytes.
    pub(super) size: u64,
    pub(super) segments: Vec<Segment>,
    /// The snapshot whose changes this volume holds, and whose name it has.
    pub(super) snapshot: Option<usize>,
    /// The volume that is being merged into this one, or that this one is being merged into.
    pub(super) merging: Option<usize>,
}

/// A run of extents, in bytes.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) kind: SegmentKind,
}

#[derive(Debug)]
pub(super) enum SegmentKind {
    /// Round robin in chunks of `chunk` bytes; one area alone is linear.
    Striped {
        areas: Vec<Area>,
        chunk: u64,
    },
    Mirror {
        areas: Vec<Area>,
        log: Option<usize>,
    },
    Raid {
        level: Level,
        legs: Vec<Leg>,
        chunk: u64,
        copies: u64,
    },
    Snapshot {
        origin: usize,
        cow: usize,
    },
    ThinPool {
        metadata: usize,
        data: usize,
        chunk: u64,
        transaction: u64,
    },
    Thin {
        pool: usize,
        device: u64,
        has_external_origin: bool,
    },
    Zero,
    /// A type that is named, and not read.
    Other(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Raid0,
    Raid1,
    Raid10,
}

impl SegmentKind {
    /// The name that LVM's `lvs -o segtype` gives it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Striped { areas, .. } if areas.len() == 1 => "linear",
            Self::Striped { .. } => "striped",
            Self::Mirror { .. } => "mirror",
            Self::Raid { level: Level::Raid0, .. } => "raid0",
            Self::Raid { level: Level::Raid1, .. } => "raid1",
            Self::Raid { level: Level::Raid10, .. } => "raid10",
            Self::Snapshot { .. } => "snapshot",
            Self::ThinPool { .. } => "thin-pool",
            Self::Thin { .. } => "thin",
            Self::Zero => "zero",
            Self::Other(name) => name,
        }
    }

    /// The logical volumes that it lies on.
    fn below(&self) -> Vec<usize> {
        let of_areas = |areas: &[Area]| -> Vec<usize> {
            areas.iter().filter_map(|area| if let Place::Lv(lv) = area.place { Some(lv) } else { None }).collect()
        };
        match self {
            Self::Striped { areas, .. } => of_areas(areas),
            Self::Mirror { areas, log } => of_areas(areas).into_iter().chain(*log).collect(),
            Self::Raid { legs, .. } => legs.iter().flat_map(|leg| leg.meta.into_iter().chain(leg.data)).collect(),
            Self::Snapshot { origin, cow } => vec![*origin, *cow],
            Self::ThinPool { metadata, data, .. } => vec![*metadata, *data],
            Self::Thin { pool, .. } => vec![*pool],
            Self::Zero | Self::Other(_) => Vec::new(),
        }
    }
}

/// Where a stripe or a leg of a mirror begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) place: Place,
    /// In bytes: of a physical volume, on its device; of a logical one, in itself.
    pub(super) start: u64,
}

/// What an area lies on, by its number in [`Metadata`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Pv(usize),
    Lv(usize),
}

/// A leg of a RAID. One that LVM has taken out has no volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) meta: Option<usize>,
    pub(super) data: Option<usize>,
}

fn fault(rule: &'static str, message: String) -> Error {
    Error::corrupt(rule, message)
}

/// `count` units of `unit` bytes.
fn bytes(count: u64, unit: u64) -> Result<u64> {
    // Positions are also given to systems that have them with a sign.
    let product = count.checked_mul(unit).filter(|n| i64::try_from(*n).is_ok());
    product.ok_or_else(|| fault("lvm.metadata", format!("{count} units of {unit} bytes are more than a disk can have")))
}

impl Metadata {
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let top = text::parse(text)?;
        let group = group(&top)?;
        let contents = top.string("contents")?;
        if contents != "Text Format Volume Group" || top.number("version")? != 1 {
            let message = format!("the metadata is \"{}\"; version 1 of LVM2's is known", escape(contents));
            return Err(fault("lvm.metadata.contents", message));
        }
        if let Some(format) = group.string_if_any("format")?.filter(|format| *format != "lvm2") {
            let message = format!("the volume group has the format \"{}\"; \"lvm2\" is known", escape(format));
            return Err(Error::unsupported("lvm.metadata.format", message));
        }
        let extent_size = bytes(group.number("extent_size")?, SECTOR)?;
        if extent_size == 0 {
            return Err(fault("lvm.metadata.extent_size", "the volume group has extents of 0 bytes".into()));
        }
        let mut pvs = Vec::new();
        for section in group.section("physical_volumes")?.sections() {
            pvs.push(Pv::parse(section)?);
        }
        let sections: Vec<&Section> =
            group.section_if_any("logical_volumes")?.map(|all| all.sections().collect()).unwrap_or_default();
        let names = Names {
            pvs: pvs.iter().enumerate().map(|(n, pv)| (pv.name.as_str(), n)).collect(),
            lvs: sections.iter().enumerate().map(|(n, lv)| (lv.name.as_str(), n)).collect(),
            starts: pvs.iter().map(|pv| pv.start).collect(),
            extent_size,
        };
        let mut lvs = Vec::new();
        for section in &sections {
            lvs.push(names.lv(section)?);
        }
        names.link_snapshots(&sections, &mut lvs)?;
        let Summary { name, seqno, time, description } = Summary::of(&top, group)?;
        let uuid = group.string("id")?.to_owned();
        let is_exported = group.strings("status")?.iter().any(|status| status == "EXPORTED");
        let metadata = Self { name, uuid, seqno, time, description, extent_size, is_exported, pvs, lvs };
        metadata.check_extents()?;
        metadata.check_order()?;
        Ok(metadata)
    }

    /// No extent of a physical volume lies beyond its end, and none is used twice.
    fn check_extents(&self) -> Result<()> {
        let mut used: Vec<(usize, u64, u64, usize)> = Vec::new();
        for (n, lv) in self.lvs.iter().enumerate() {
            for segment in &lv.segments {
                let (areas, len) = match &segment.kind {
                    SegmentKind::Striped { areas, .. } => (areas, segment.len / count_of(areas.len())?),
                    SegmentKind::Mirror { areas, .. } => (areas, segment.len),
                    _ => continue,
                };
                for area in areas {
                    let Place::Pv(pv) = area.place else { continue };
                    used.push((pv, area.start, len, n));
                }
            }
        }
        used.sort_unstable();
        for (pv, start, len, lv) in &used {
            let (pv, lv) = (&self.pvs[*pv], &self.lvs[*lv]);
            let end = bytes(pv.extents, self.extent_size)?.checked_add(pv.start);
            if end.zip(start.checked_add(*len)).is_none_or(|(end, needed)| needed > end) {
                let first = (start - pv.start) / self.extent_size;
                let message = format!(
                    "volume {} uses {} of physical volume {} from number {first} on, which has {}",
                    escape(&lv.name),
                    counted(len / self.extent_size, "extent"),
                    escape(&pv.name),
                    pv.extents
                );
                return Err(fault("lvm.extents.beyond", message));
            }
        }
        let twice = used.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 < pair[0].2);
        if let Some([one, other]) = twice {
            let pv = &self.pvs[one.0];
            let (first, second) = (escape(&self.lvs[one.3].name), escape(&self.lvs[other.3].name));
            let extent = (other.1 - pv.start) / self.extent_size;
            let message = format!(
                "volumes {first} and {second} both use extent {extent} of physical volume {}",
                escape(&pv.name)
            );
            return Err(fault("lvm.extents.overlap", message));
        }
        Ok(())
    }

    /// No volume lies on itself, and none on more than can be followed.
    fn check_order(&self) -> Result<()> {
        let below: Vec<Vec<usize>> =
            self.lvs.iter().map(|lv| lv.segments.iter().flat_map(|s| s.kind.below()).collect()).collect();
        // In each round those volumes get their height that lie on volumes which have one.
        let mut height: Vec<Option<usize>> = vec![None; self.lvs.len()];
        for round in 0..=LVM_DEPTH_MAX {
            let ready = |n: &usize| height[*n].is_none() && below[*n].iter().all(|lv| height[*lv].is_some());
            let next: Vec<usize> = (0..height.len()).filter(ready).collect();
            for n in next {
                height[n] = Some(round);
            }
        }
        let Some(first) = height.iter().position(Option::is_none) else { return Ok(()) };
        // Going down through those without a height comes back to one that was passed, or goes deeper than allowed.
        let mut path = vec![first];
        while let Some(next) = below[path[path.len() - 1]].iter().copied().find(|lv| height[*lv].is_none()) {
            if path.contains(&next) {
                let name = escape(&self.lvs[next].name);
                return Err(fault("lvm.lv.circle", format!("volume {name} lies on itself")));
            }
            path.push(next);
        }
        let message = format!("volume {} lies on more than {LVM_DEPTH_MAX} others", escape(&self.lvs[first].name));
        Err(Error::limit("lvm.lv.depth", message))
    }
}

fn count_of(areas: usize) -> Result<u64> {
    u64::try_from(areas).map_err(|_| fault("lvm.segment.areas", format!("there are {areas} areas")))
}

impl Pv {
    fn parse(section: &Section) -> Result<Self> {
        let lost = |flags: Vec<String>| flags.iter().any(|flag| flag == "MISSING");
        Ok(Self {
            name: section.name.clone(),
            uuid: section.string("id")?.to_owned(),
            size: bytes(section.number_if_any("dev_size")?.unwrap_or(0), SECTOR)?,
            start: bytes(section.number("pe_start")?, SECTOR)?,
            extents: section.number("pe_count")?,
            is_missing: lost(section.strings("status")?) || lost(section.strings("flags")?),
            tags: section.strings("tags")?,
        })
    }
}

/// What the names in the segments stand for.
struct Names<'a> {
    pvs: HashMap<&'a str, usize>,
    lvs: HashMap<&'a str, usize>,
    /// Where the first extent of each physical volume lies.
    starts: Vec<u64>,
    extent_size: u64,
}

impl Names<'_> {
    fn lv(&self, section: &Section) -> Result<Lv> {
        let name = escape(&section.name);
        let mut segments = Vec::new();
        let mut size = 0u64;
        let count = section.number("segment_count")?;
        for n in 1..=count {
            let inner = section.section(&format!("segment{n}"))?;
            let within = |e: Error| e.within(format!("volume {name}, segment {n}"));
            let segment = self.segment(inner).map_err(within)?;
            if segment.start != size {
                let (extent, wanted) = (segment.start / self.extent_size, size / self.extent_size);
                let message = format!("it begins at extent {extent}, where {wanted} is the next");
                return Err(within(fault("lvm.segment.order", message)));
            }
            // Neither of the two is above what has a sign.
            size = bytes(size + segment.len, 1).map_err(within)?;
            segments.push(segment);
        }
        let sections = section.sections().filter(|s| s.name.starts_with("segment")).count();
        if segments.len() != sections {
            let message = format!("volume {name} has {}, but a segment_count of {count}", counted(sections, "segment"));
            return Err(fault("lvm.segment.count", message));
        }
        // A layout that covers a whole volume has no place in it, so there can be but one.
        let alone = |kind: &SegmentKind| match kind {
            SegmentKind::Striped { .. } | SegmentKind::Mirror { .. } | SegmentKind::Zero => false,
            SegmentKind::Other(_) => false,
            _ => segments.len() > 1,
        };
        if let Some(segment) = segments.iter().find(|segment| alone(&segment.kind)) {
            let message =
                format!("volume {name} has {}, of which one is {}", counted(count, "segment"), segment.kind.name());
            return Err(fault("lvm.segment.alone", message));
        }
        let status = section.strings("status")?;
        let has = |wanted: &str| status.iter().any(|s| s == wanted);
        Ok(Lv {
            name: section.name.clone(),
            uuid: section.string("id")?.to_owned(),
            tags: section.strings("tags")?,
            is_visible: has("VISIBLE"),
            is_rebuilt: has("REBUILD"),
            size,
            segments,
            snapshot: None,
            merging: None,
        })
    }

    fn segment(&self, section: &Section) -> Result<Segment> {
        let start = bytes(section.number("start_extent")?, self.extent_size)?;
        let len = bytes(section.number("extent_count")?, self.extent_size)?;
        if len == 0 {
            return Err(fault("lvm.segment.empty", "it has no extents".into()));
        }
        // Behind a plus sign come flags without which an older LVM must not use the segment.
        let (kind, flags) = section.string("type")?.split_once('+').unwrap_or((section.string("type")?, ""));
        let known = |flag: &str| matches!(flag, "ERROR_WHEN_FULL" | "CROP_METADATA");
        let kind = match kind {
            _ if !flags.is_empty() && !flags.split('+').all(known) => {
                SegmentKind::Other(section.string("type")?.into())
            }
            "striped" | "linear" => self.striped(section, len)?,
            "mirror" => self.mirror(section)?,
            "raid0" | "raid0_meta" => self.raid(section, Level::Raid0, len)?,
            "raid1" => self.raid(section, Level::Raid1, len)?,
            "raid10" | "raid10_near" => self.raid(section, Level::Raid10, len)?,
            "snapshot" => {
                let cow = if section.has("merging_store") { "merging_store" } else { "cow_store" };
                SegmentKind::Snapshot { origin: self.volume(section, "origin")?, cow: self.volume(section, cow)? }
            }
            "thin-pool" => SegmentKind::ThinPool {
                metadata: self.volume(section, "metadata")?,
                data: self.volume(section, "pool")?,
                chunk: bytes(section.number("chunk_size")?, SECTOR)?,
                transaction: section.number("transaction_id")?,
            },
            "thin" => SegmentKind::Thin {
                pool: self.volume(section, "thin_pool")?,
                device: section.number("device_id")?,
                has_external_origin: section.has("external_origin"),
            },
            "zero" => SegmentKind::Zero,
            other => SegmentKind::Other(other.to_owned()),
        };
        Ok(Segment { start, len, kind })
    }

    fn volume(&self, section: &Section, name: &str) -> Result<usize> {
        self.lv_named(section.string(name)?)
    }

    fn lv_named(&self, name: &str) -> Result<usize> {
        let missing = || fault("lvm.segment.name", format!("there is no logical volume \"{}\"", escape(name)));
        self.lvs.get(name).copied().ok_or_else(missing)
    }

    /// The areas of an array of pairs: a name, and the extent that the area begins at.
    fn areas(&self, section: &Section, array: &str, count: u64) -> Result<Vec<Area>> {
        let values = section.array(array)?;
        check_count(count)?;
        if count_of(values.len())? != count * 2 {
            let message = format!("\"{array}\" has {} values; {count} areas have two each", values.len());
            return Err(fault("lvm.segment.areas", message));
        }
        let mut areas = Vec::new();
        for pair in values.chunks_exact(2) {
            let (Value::Str(name), Value::Int(extent)) = (&pair[0], &pair[1]) else {
                return Err(fault("lvm.segment.areas", format!("\"{array}\" is not made of names and numbers")));
            };
            let extent = u64::try_from(*extent)
                .map_err(|_| fault("lvm.segment.areas", format!("extent {extent} is below 0")))?;
            let start = bytes(extent, self.extent_size)?;
            areas.push(if let Some(pv) = self.pvs.get(name.as_str()) {
                let start = bytes(start + self.starts[*pv], 1)?;
                Area { place: Place::Pv(*pv), start }
            } else {
                let missing = |_| fault("lvm.segment.name", format!("there is no volume \"{}\"", escape(name)));
                Area { place: Place::Lv(self.lv_named(name).map_err(missing)?), start }
            });
        }
        Ok(areas)
    }

    fn striped(&self, section: &Section, len: u64) -> Result<SegmentKind> {
        let count = section.number("stripe_count")?;
        let areas = self.areas(section, "stripes", count)?;
        let chunk = if count == 1 { 0 } else { self.chunk(section, len, count)? };
        Ok(SegmentKind::Striped { areas, chunk })
    }

    /// The size of a stripe's chunks, in which the segment is laid out over `count` stripes of the same size.
    fn chunk(&self, section: &Section, len: u64, count: u64) -> Result<u64> {
        let chunk = bytes(section.number("stripe_size")?, SECTOR)?;
        let extents = len / self.extent_size;
        if !extents.is_multiple_of(count) {
            let message =
                format!("its {} are not a multiple of its {}", counted(extents, "extent"), counted(count, "stripe"));
            return Err(fault("lvm.segment.stripes", message));
        }
        if chunk == 0 || !(len / count).is_multiple_of(chunk) {
            let message = format!("a stripe of {} bytes is no multiple of chunks of {chunk}", len / count);
            return Err(fault("lvm.segment.stripe_size", message));
        }
        Ok(chunk)
    }

    fn mirror(&self, section: &Section) -> Result<SegmentKind> {
        let areas = self.areas(section, "mirrors", section.number("mirror_count")?)?;
        let log = if section.has("mirror_log") { Some(self.volume(section, "mirror_log")?) } else { None };
        Ok(SegmentKind::Mirror { areas, log })
    }

    fn raid(&self, section: &Section, level: Level, len: u64) -> Result<SegmentKind> {
        if section.number_if_any("reshape_count")?.is_some_and(|n| n > 0) || section.has("data_offset") {
            let kind = format!("{} in the middle of a reshape", section.string("type")?);
            return Ok(SegmentKind::Other(kind));
        }
        let count = section.number(if level == Level::Raid0 { "stripe_count" } else { "device_count" })?;
        let array = if section.has("raid0_lvs") { "raid0_lvs" } else { "raids" };
        check_count(count)?;
        let values = section.array(array)?;
        // RAID 0 may do without the volumes that hold the kernel's metadata.
        let has_meta = array == "raids";
        let expected = if has_meta { count * 2 } else { count };
        if count_of(values.len())? != expected {
            let message = format!("\"{array}\" has {} values for {count} legs", values.len());
            return Err(fault("lvm.segment.areas", message));
        }
        let named = |value: &Value| match value {
            Value::Str(name) => self.lv_named(name).map(Some),
            _ => Ok(None),
        };
        let mut legs = Vec::new();
        for leg in values.chunks_exact(if has_meta { 2 } else { 1 }) {
            let meta = if has_meta { named(&leg[0])? } else { None };
            legs.push(Leg { meta, data: named(&leg[leg.len() - 1])? });
        }
        let copies = section.number_if_any("data_copies")?.unwrap_or(2);
        let chunk = match level {
            Level::Raid1 => 0,
            Level::Raid0 => self.chunk(section, len, count)?,
            Level::Raid10 => {
                if copies < 2 || copies > count || !count.is_multiple_of(copies) {
                    let message = format!("it keeps {} on {count} legs", counted(copies, "copy"));
                    return Err(fault("lvm.segment.copies", message));
                }
                self.chunk(section, len, count / copies)?
            }
        };
        Ok(SegmentKind::Raid { level, legs, chunk, copies })
    }

    /// Snapshots are volumes without a name of their own: it is the volume with the changes that people know. What is
    /// being merged is neither what it was nor what it will be.
    fn link_snapshots(&self, sections: &[&Section], lvs: &mut [Lv]) -> Result<()> {
        for (n, section) in sections.iter().enumerate() {
            let Some(first) = section.section_if_any("segment1")? else { continue };
            match lvs[n].segments.first().map(|segment| &segment.kind) {
                Some(SegmentKind::Snapshot { origin, cow }) => {
                    let (origin, cow) = (*origin, *cow);
                    if first.has("merging_store") {
                        lvs[origin].merging = Some(cow);
                        lvs[cow].merging = Some(origin);
                    }
                    lvs[cow].snapshot = Some(n);
                    lvs[cow].is_visible = true;
                    lvs[n].is_visible = false;
                }
                Some(SegmentKind::Thin { .. }) if first.has("merge") => {
                    let into = self.volume(first, "merge")?;
                    lvs[into].merging = Some(n);
                    lvs[n].merging = Some(into);
                }
                _ => (),
            }
        }
        Ok(())
    }
}

fn check_count(count: u64) -> Result<()> {
    if count == 0 {
        return Err(fault("lvm.segment.areas", "it has no areas".into()));
    }
    if count > LVM_AREAS_MAX {
        return Err(Error::limit(
            "lvm.segment.areas",
            format!("it has {count} areas; at most {LVM_AREAS_MAX} are taken"),
        ));
    }
    Ok(())
}
