//! What a scan found, in the shape of what `unluks scan --json` prints and `docs/scan.schema.json` describes. Every member is
//! there in every report; what does not apply is null or empty.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Scan, State, Unreadable};
use crate::error::Error;
use crate::format::{Format, Snapshot};
use crate::io::{ReadAt, Window};
use crate::locate::{Layer, LayerKind, Part, Way, Ways};
use crate::luks::data::{self, DataFile, assess};
use crate::luks::metadata::Role;
use crate::storage;

/// The version of the report's shape. It grows where a member is taken away or changes its meaning.
pub const SCHEMA: u32 = 1;

/// The disk that was scanned.
#[derive(Clone, Copy)]
pub struct Disk<'a> {
    /// The path of its file.
    pub path: &'a Path,
    /// The disk: the file itself, or what its format makes of it.
    pub disk: &'a dyn ReadAt,
    /// The file's format.
    pub format: Format,
    /// The size in bytes of the disk's logical sectors, where the format says it.
    pub sector_size: Option<u32>,
    /// What the disk leads to, through partitions, arrays and volumes.
    pub ways: &'a Ways,
    /// Earlier states of the disk that its image keeps, which were not scanned.
    pub snapshots: &'a [Snapshot],
}

/// What a scan found.
///
/// ```
/// use std::sync::Arc;
/// use unluks::locate::ways;
/// use unluks::scan::report::{Disk, Report};
///
/// # fn main() -> unluks::Result<()> {
/// # let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/openstack-volume.img"));
/// let disk: Arc<dyn unluks::ReadAt> = Arc::new(unluks::FileSource::open(path)?);
/// let scan = unluks::scan::run(&*disk, Default::default(), &Default::default())?;
/// let ways = &ways(&disk, None, &Default::default())?;
/// let format = unluks::format::Format::Raw;
/// let disk = Disk { path, disk: &*disk, format, sector_size: None, ways, snapshots: &[] };
/// let report = Report::new(&scan, disk);
/// assert_eq!(report.containers[0].offset, Some(0));
/// assert!(unluks::json::pretty(&report)?.contains(r#""good_left_out": 0"#));
/// # Ok(()) }
/// ```
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report<'a> {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The disk.
    pub image: Image,
    /// What could not be read.
    pub unreadable: Option<&'a Unreadable>,
    /// The containers, in the order of their places.
    pub containers: Vec<Container<'a>>,
    /// How many good copies there are besides those of `containers`.
    pub good_left_out: u64,
    /// How many damaged copies there are besides those of `containers`.
    pub bad_left_out: u64,
}

/// A disk in a report.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Image {
    /// The path as it was given; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// The file format's name.
    pub format: &'static str,
    /// Bytes of the disk, which in a file format are not those of the file.
    pub size: u64,
    /// The names of earlier states of the disk that the image keeps, and that were not scanned: qcow2's internal
    /// snapshots.
    pub snapshots: Vec<String>,
}

/// A container in a report.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Container<'a> {
    /// Where it starts on the disk; `None` where only a secondary copy was found that does not tell.
    pub offset: Option<u64>,
    /// 1 or 2, where it is known.
    pub version: Option<u8>,
    /// The UUID as the header holds it, where it could be read.
    pub uuid: Option<&'a str>,
    /// The label, where there is one.
    pub label: Option<&'a str>,
    /// The subsystem label, where there is one.
    pub subsystem: Option<&'a str>,
    /// The number of the partition that starts at the same byte, or that leads to it through other layers.
    pub partition: Option<u32>,
    /// The volume of LVM that holds it, as `VG/LV`.
    pub volume: Option<&'a str>,
    /// What lies on what, from the disk down to what holds it. Empty where nothing leads to it.
    pub layers: &'a [Layer],
    /// What the bytes around it are a part of, where nothing leads to it and what starts there need not go on there: a
    /// member of an array, a physical volume. Why that cannot be read follows.
    pub part_of: Option<String>,
    /// Where the next container starts within this one, whose header does not say where it ends. Not in the JSON.
    #[serde(skip)]
    pub next: Option<u64>,
    /// Whether the header is good as a whole.
    pub opens: bool,
    /// What is behind the header; `None` where it does not open.
    pub data: Option<data::State>,
    /// Why it does not open though a copy is good.
    pub error: Option<Fault<'a>>,
    /// What of the header is damaged, and what stands in for it, where it opens all the same.
    pub recovered: Option<String>,
    /// The command that opens it. It is the caller's to fill in, whose command it is.
    pub command: Option<String>,
    /// The copies that were found, and those that should be there and are not.
    pub copies: Vec<Copy<'a>>,
}

/// A header copy in a report.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Copy<'a> {
    /// Primary or secondary.
    pub role: Role,
    /// Where it lies on the disk.
    pub offset: u64,
    /// 1 or 2, where it is known.
    pub version: Option<u8>,
    /// Whether it passes every rule.
    pub good: bool,
    /// What it is to its container.
    pub state: State,
    /// Its UUID, where it could be read.
    pub uuid: Option<&'a str>,
    /// Its label, where there is one.
    pub label: Option<&'a str>,
    /// Its sequence id; `None` in LUKS1, and where it could not be read.
    pub seqid: Option<u64>,
    /// The rule that it breaks.
    pub error: Option<Fault<'a>>,
}

/// A broken rule.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Fault<'a> {
    /// Its stable code; empty where it is none, as for a part that cannot be read.
    pub rule: &'a str,
    /// What was found and what is allowed.
    pub message: &'a str,
}

impl<'a> Fault<'a> {
    fn new(e: &'a Error) -> Self {
        Self { rule: e.rule(), message: e.message() }
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            "" => f.write_str(self.message),
            rule => write!(f, "{rule}: {}", self.message),
        }
    }
}

/// An error as its line.
pub(super) fn line<S: serde::Serializer>(e: &Error, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(e)
}

impl<'a> Report<'a> {
    /// What `scan` found on `disk`. The headers are read again, one at a time.
    pub fn new(scan: &'a Scan, disk: Disk<'a>) -> Self {
        // A damaged table is no matter here: it only gives names to places.
        let table = storage::list(disk.disk, disk.sector_size).ok().flatten();
        let partition = |start: u64| {
            let entries = table.as_ref().map_or(&[][..], |t| &t.entries);
            entries.iter().find(|e| e.start == start)
        };
        let starts: Vec<u64> = scan.containers.iter().filter(|c| c.opens()).filter_map(|c| c.start).collect();
        let disk_len = disk.disk.len();
        let ways = disk.ways;
        let container = |c: &'a super::Container| {
            let way = ways.found.iter().find(|way| way.start.is_some() && way.start == c.start);
            let partition = c.start.and_then(partition);
            let number = partition.map(|p| p.number);
            match (way, c.start.and_then(|start| part_of(ways, start))) {
                (Some(way), _) if way.layers.iter().any(|layer| layer.kind != LayerKind::Partition) => {
                    let place = Place { disk: &*way.disk, start: 0, end: way.disk.len(), next: None };
                    Container {
                        layers: &way.layers,
                        volume: way.volume.as_deref(),
                        ..Container::new(c, place, way.partition)
                    }
                }
                (None, Some(part)) => {
                    let place = Place { disk: disk.disk, start: c.start.unwrap_or(0), end: disk_len, next: None };
                    Container { part_of: Some(part), ..Container::new(c, place, number) }
                }
                // One in a table within a partition ends where the inner one does.
                (Some(way), _) if way.layers.len() > 1 => {
                    let place = Place { disk: &*way.disk, start: 0, end: way.disk.len(), next: None };
                    Container { layers: &way.layers, ..Container::new(c, place, way.partition) }
                }
                (way, _) => {
                    // A container ends where its partition does, and without one where the disk does.
                    let end = partition.map_or(disk_len, |p| p.start.saturating_add(p.len).min(disk_len));
                    let after = |next: &u64| c.start.is_some_and(|start| *next > start) && *next < end;
                    let next = starts.iter().copied().filter(after).min();
                    let place = Place { disk: disk.disk, start: c.start.unwrap_or(0), end, next };
                    Container { layers: way.map_or(&[], |way| &way.layers), ..Container::new(c, place, number) }
                }
            }
        };
        let seen = |way: &&Way| scan.containers.iter().any(|c| c.start.is_some() && c.start == way.start);
        let elsewhere = ways.found.iter().filter(|way| !seen(way)).filter_map(Container::on_another_disk);
        Self {
            schema: SCHEMA,
            image: Image {
                path: disk.path.to_string_lossy().into_owned(),
                format: disk.format.name(),
                size: disk_len,
                snapshots: disk.snapshots.iter().map(|snapshot| snapshot.name.clone()).collect(),
            },
            unreadable: scan.unreadable.as_ref(),
            containers: scan.containers.iter().map(container).chain(elsewhere).collect(),
            good_left_out: scan.good_left_out,
            bad_left_out: scan.bad_left_out,
        }
    }
}

/// Text that may be absent.
fn text(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

/// What the disk's byte `at` is a part of, and why that cannot be read.
fn part_of(ways: &Ways, at: u64) -> Option<String> {
    let holds = |part: &&Part| at.checked_sub(part.start).is_some_and(|inside| inside < part.len);
    let part = ways.parts.iter().find(holds)?;
    Some(part.error.as_ref().map_or_else(|| part.of.clone(), |e| format!("{}: {e}", part.of)))
}

/// Where a container lies, on the disk or on what that leads to.
struct Place<'a> {
    disk: &'a dyn ReadAt,
    start: u64,
    /// Where the disk ends for it.
    end: u64,
    /// Where another container starts before that.
    next: Option<u64>,
}

impl<'a> Container<'a> {
    /// The partitions that lead to it, from the disk's own on, as a path: `2/1`.
    pub fn partitions(&self) -> Option<String> {
        let layers = self.layers.iter().filter(|layer| layer.kind == LayerKind::Partition);
        let names: Vec<&str> = layers.map(|layer| layer.name.as_str()).collect();
        if names.is_empty() { self.partition.map(|number| number.to_string()) } else { Some(names.join("/")) }
    }

    fn new(found: &'a super::Container, place: Place<'_>, partition: Option<u32>) -> Self {
        // A header is large once it is parsed: one at a time.
        let whole = found.start.is_some().then(|| Window::new(place.disk, place.start, None));
        let metadata = whole.and_then(Result::ok).and_then(|whole| crate::luks::recover::open(&whole).ok());
        // The header as it lies on the disk is not all of it where a chunk of an array ends within it.
        let opened = found.header.as_ref().and_then(|h| h.as_ref().ok());
        let file = DataFile { len: place.end.checked_sub(place.start), detached: false };
        let data = metadata.as_ref().map(|m| assess(m, file).state);
        let next = place.next;
        let recovered = metadata.as_ref().and_then(|m| m.recovery.as_ref()).map(ToString::to_string);
        let open_ended = metadata.is_some_and(|m| m.live_segments().any(|(_, s)| s.size.is_none()));
        let copies: Vec<_> = found.copies.iter().map(Copy::new).collect();
        Self {
            offset: found.start,
            version: opened.map(|m| m.version.number()).or_else(|| copies.iter().find_map(|c| c.version)),
            uuid: opened.map(|m| m.uuid.as_str()).or_else(|| copies.iter().find_map(|c| c.uuid)),
            label: opened.and_then(|m| text(&m.label)),
            subsystem: opened.and_then(|m| text(&m.subsystem)),
            partition,
            volume: None,
            layers: &[],
            part_of: None,
            next: next.filter(|_| open_ended),
            opens: data.is_some(),
            data,
            recovered,
            error: found.header.as_ref().and_then(|h| h.as_ref().err()).filter(|_| data.is_none()).map(Fault::new),
            command: None,
            copies,
        }
    }

    /// One that the layers lead to, but whose first byte is on another disk of the set.
    fn on_another_disk(way: &'a Way) -> Option<Self> {
        let metadata = crate::luks::recover::open(&*way.disk).ok()?;
        let file = DataFile { len: Some(way.disk.len()), detached: false };
        Some(Self {
            offset: None,
            version: Some(metadata.version.number()),
            uuid: None,
            label: None,
            subsystem: None,
            partition: way.partition,
            volume: way.volume.as_deref(),
            layers: &way.layers,
            part_of: None,
            next: None,
            opens: true,
            data: Some(assess(&metadata, file).state),
            error: None,
            recovered: metadata.recovery.as_ref().map(ToString::to_string),
            command: None,
            copies: Vec::new(),
        })
    }
}

impl<'a> Copy<'a> {
    fn new(copy: &'a super::Copy) -> Self {
        Self {
            role: copy.role,
            offset: copy.offset,
            version: copy.version.map(|v| v.number()),
            good: copy.error.is_none(),
            state: copy.state,
            uuid: text(&copy.uuid),
            label: text(&copy.label),
            seqid: copy.seqid,
            error: copy.error.as_ref().map(Fault::new),
        }
    }
}
