//! From an image file to the place where its LUKS container starts: through a file format, partition tables, md arrays and
//! LVM's volumes.

mod header_at;
mod layers;
mod unfit;
mod ways;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::luks::layer::{Layer, LayerKind};
pub use header_at::HeaderAt;
pub use unfit::Unfit;
pub use ways::{Part, Way, Ways, ways};

use crate::error::{Condition, Error, ErrorKind, Hint, Result, counted, escape};
use crate::format::{self, Checks, Contents, Format, Named, Qcow2Luks, Snapshot};
use crate::io::{Peek, ReadAt, Window};
use crate::limits::{LAYERS_DEPTH_MAX, LUKS2_HDR_SIZE_MIN};
use crate::luks::{MAGIC_SECONDARY, offline, recover};
use crate::storage::lvm::VolumeGroup;
use crate::storage::{self, Entry, Scheme, Table, list_of, starts_as_luks};

/// A further disk of a set: a member of an array, or a physical volume.
#[derive(Clone)]
struct Member {
    named: Named,
    disk: Arc<dyn ReadAt>,
    /// What its container says of itself.
    checks: Checks,
}

/// The names of files that do not open, and why.
type Broken = Vec<(String, Error)>;

/// What was met on the way down.
#[derive(Default)]
struct Trail {
    notes: Vec<String>,
    layers: Vec<Layer>,
    groups: Vec<Arc<VolumeGroup>>,
}

/// Where to look.
#[derive(Clone, Default)]
pub struct FindOptions {
    /// What messages call the file where it is one of several.
    pub name: String,
    /// The other disks of a set, and images that others lie on top of, in any order. Each has to be used.
    pub with: Vec<Named>,
    /// The volume of LVM to take, as `LV` or `VG/LV`; without it the only one with LUKS is taken.
    pub volume: Option<String>,
    /// Takes an offset into a disk that is a part of a set.
    pub foreign_offset: bool,
    /// How the container is opened.
    pub container: format::Options,
    /// The partition to take, by number, label or UUID; in the table of a disk within it, or in one of its volumes, behind a
    /// slash: `2/1`.
    pub partition: Option<String>,
    /// The byte to start at, in place of a partition.
    pub offset: Option<u64>,
    /// Where the header is.
    pub header: HeaderAt,
    /// Take what is there of a partition that is cut off.
    pub allow_truncated: bool,
    /// What is done with a file of [`FindOptions::with`] that fits nothing.
    pub unfit: Unfit,
}

/// Where the LUKS container is.
pub struct Found {
    /// The file that was looked at, byte for byte; the first of a set.
    pub file: Arc<dyn ReadAt>,
    /// What holds it.
    pub place: Place,
    /// The file's format.
    pub format: Format,
    /// The internal snapshots that a qcow2 image has.
    pub snapshots: Vec<Snapshot>,
    /// What was chosen on the way, one line each.
    pub notes: Vec<String>,
    /// What lies on what, from the file down to what holds the container.
    pub layers: Vec<Layer>,
    /// The volume groups of LVM on the way.
    pub groups: Vec<Arc<VolumeGroup>>,
    /// What the containers of its files say of themselves.
    pub checks: Checks,
}

impl Found {
    /// The log that an offline reencryption left beside `image`, the file that this was found in, where it is there: see
    /// [`offline`].
    pub fn offline_log(&self, image: &Path) -> Option<PathBuf> {
        let (Place::File(data) | Place::Inside(data)) = &self.place else { return None };
        // A pipe has nothing beside it.
        offline::log_beside(image, &**Some(data).filter(|data| data.pipe().is_none())?)
    }
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
/// What cannot be read is not there: a note says so, and it is an error only where nothing else was found.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] where several partitions hold LUKS and none was named, or
/// where the named one is not there, or a file of [`FindOptions::with`] fits nothing and is to be refused; otherwise as
/// [`format::open`] and [`storage::list`].
pub fn find(file: Arc<dyn ReadAt>, options: FindOptions) -> Result<Found> {
    let (unfit, with) = (options.unfit, options.with.clone());
    find_all(file, options).map_err(|e| if unfit == Unfit::Damaged { unfit::blame(e, &with) } else { e })
}

fn find_all(file: Arc<dyn ReadAt>, mut options: FindOptions) -> Result<Found> {
    options.container.with = options.with.clone();
    let opened = format::open(Arc::clone(&file), options.container.clone())?;
    let mut trail = Trail {
        notes: opened.notes,
        layers: vec![Layer::new(LayerKind::File, &options.name, file.len())],
        ..Trail::default()
    };
    let raw = opened.format == Format::Raw && options.container.segments.is_empty();
    let disk = match opened.contents {
        Contents::Disk(disk) => disk,
        Contents::Qcow2Luks(_) if options.partition.is_some() || options.offset.is_some() => {
            let message =
                "the qcow2 image encrypts its clusters itself: there is no partition or offset before it is decrypted";
            return Err(Error::invalid(message));
        }
        Contents::Qcow2Luks(luks) => {
            let Trail { mut notes, mut layers, groups } = trail;
            notes.push("a qcow2 image that encrypts its clusters itself".into());
            layers.push(Layer::new(LayerKind::Format, opened.format, luks.clusters.virtual_size()));
            unfit::tell(options.unfit, &options.with, &[], &[], &mut notes)?;
            let (place, format, snapshots, checks) =
                (Place::Qcow2Luks(luks), opened.format, opened.snapshots, opened.checks);
            return Ok(Found { file, place, format, snapshots, notes, layers, groups, checks });
        }
    };
    if opened.format != Format::Raw {
        trail.notes.push(format!("{} image with a disk of {} bytes", opened.format.with_article(), disk.len()));
        trail.layers.push(Layer::new(LayerKind::Format, opened.format, disk.len()));
    }
    let (members, broken) = members(&disk, &options)?;
    let search = Search { options: &options, members: &members };
    let resolved = resolve(disk, opened.sector_size, search, &mut trail, 0);
    let (disk, is_whole) = resolved.map_err(|e| with_snapshots(within(opened.format, e), &opened.snapshots))?;
    unfit::tell(options.unfit, &options.with, &members, &broken, &mut trail.notes)?;
    let place = if raw && is_whole { Place::File(disk) } else { Place::Inside(disk) };
    let (format, snapshots, Trail { notes, layers, groups }) = (opened.format, opened.snapshots, trail);
    let mut checks = opened.checks;
    members.into_iter().filter(|member| member.named.is_used()).for_each(|member| checks.join(member.checks));
    Ok(Found { file, place, format, snapshots, notes, layers, groups, checks })
}

/// Names the internal snapshots in the error of a disk without a LUKS header: an earlier state may have one.
pub(crate) fn with_snapshots(e: Error, snapshots: &[Snapshot]) -> Error {
    if snapshots.is_empty() || !e.is(Condition::NoHeader) {
        return e;
    }
    let mut hints = vec![format::snapshots_hint(snapshots)];
    hints.extend(e.hint().cloned());
    e.with_hint(Hint::All(hints))
}

/// Opens the files that were named and are no parents: what is left are further disks of a set. The disk itself is one, too:
/// several of its partitions may be parts of one set. With the errors of those that do not open, where they are no reason to
/// refuse.
fn members(disk: &Arc<dyn ReadAt>, options: &FindOptions) -> Result<(Vec<Member>, Broken)> {
    let open = |(n, named): (usize, &Named)| {
        if named.is_used() { None } else { Some((named.clone(), format::open_disk(&options.container, n))) }
    };
    let opened: Vec<_> = options.with.iter().enumerate().filter_map(open).collect();
    let own = Named::new(&options.name, Arc::clone(disk));
    let own = Member { named: own, disk: Arc::clone(disk), checks: Checks::default() };
    let (mut members, mut broken) = (vec![own], Vec::new());
    for (named, disk) in opened {
        // One of those behind it may lie on top of it.
        if named.is_used() {
            continue;
        }
        match disk {
            Ok(Some((disk, checks))) => members.push(Member { named, disk, checks }),
            Ok(None) => {}
            Err(e) if options.unfit == Unfit::Damaged && e.kind() == ErrorKind::Corrupt => broken.push((named.name, e)),
            Err(e) => return Err(e),
        }
    }
    Ok((members, broken))
}

/// What is looked for, and the disks that may be parts of what it lies in.
#[derive(Clone, Copy)]
struct Search<'a> {
    options: &'a FindOptions,
    members: &'a [Member],
}

impl Search<'_> {
    /// Whether `named` is the image itself, which is the first of the members.
    fn is_image(&self, named: &Named) -> bool {
        self.members.first().is_some_and(|own| std::ptr::eq(&own.named, named))
    }
}

/// Says of an error of a disk that it is one inside a file format.
pub(crate) fn within(format: Format, e: Error) -> Error {
    if format == Format::Raw { e } else { e.within(format_args!("the disk in the {format} image")) }
}

/// Goes down from a disk to what holds LUKS, layer by layer, and says whether that is the disk itself.
fn resolve(
    disk: Arc<dyn ReadAt>,
    sector_size: Option<u32>,
    search: Search<'_>,
    trail: &mut Trail,
    depth: usize,
) -> Result<(Arc<dyn ReadAt>, bool)> {
    if depth > LAYERS_DEPTH_MAX {
        let message = format!("more than {LAYERS_DEPTH_MAX} layers lie on each other");
        return Err(Error::limit("layers", message));
    }
    let options = search.options;
    let survey = Survey { disk: &disk, options, members: search.members };
    // The members of an array come before a table that lies in the array and can be seen in its first member.
    let layout = match layers::own_superblock(&disk) {
        Some(_) if options.offset.is_none() => Layout::Member,
        _ => survey.look(sector_size),
    };
    let (choice, partition) = survey.choose(layout, trail)?;
    let (taken, is_whole): (Arc<dyn ReadAt>, bool) = match choice {
        Choice::Whole => (Arc::clone(&disk), true),
        Choice::Part(part) => (Arc::new(part), false),
    };
    // An offset is a place that somebody is sure of.
    if options.offset.is_some() {
        return Ok((taken, is_whole));
    }
    let below = match layers::below(&taken, search, trail)? {
        // A virtual machine's disk in a partition or a volume.
        None if !is_whole
            && (options.header == HeaderAt::Own || partition.is_some())
            && (partition.is_some() || !starts_as_luks(&Peek::new(&taken), 0) && layers::is_nested(&taken)) =>
        {
            trail.notes.push("it holds a disk with a partition table of its own".into());
            taken
        }
        None => match &partition {
            Some(name) => return Err(no_table(name)),
            None => return Ok((taken, is_whole)),
        },
        Some(below) => below,
    };
    let options = FindOptions { partition, ..options.clone() };
    let search = Search { options: &options, ..search };
    resolve(below, None, search, trail, depth.saturating_add(1)).map(|(disk, _)| (disk, false))
}

/// What a disk is, as far as it matters here.
enum Layout {
    /// It begins as LUKS does, and nobody asked for a partition.
    Luks,
    /// It is a member of an array.
    Member,
    /// It has no partition table.
    Bare,
    /// It has one.
    Table(Table),
    /// It has one that is damaged, or cannot be read.
    Damaged(Error),
}

/// What is taken of a disk.
enum Choice {
    Whole,
    Part(Window<Arc<dyn ReadAt>>),
}

/// What a partition leads to.
struct End {
    layer: Option<Layer>,
    /// Its volume group's UUID and its own, where it is a physical volume.
    physical: Option<(String, String)>,
}

impl End {
    /// Whether `other` leads to the same: another member of one array, whose name has its UUID, or another physical volume
    /// of one group. Copies lead to their own.
    fn is(&self, other: &Self) -> bool {
        let is_same = self.layer.as_ref().map(|layer| layer.kind).is_some_and(|kind| match kind {
            LayerKind::Array => true,
            LayerKind::Volume => match (&self.physical, &other.physical) {
                (Some((group, own)), Some((other_group, other))) => group == other_group && own != other,
                _ => false,
            },
            _ => false,
        });
        is_same && self.layer == other.layer
    }
}

/// A disk, and what is wanted of it.
struct Survey<'a> {
    disk: &'a Arc<dyn ReadAt>,
    options: &'a FindOptions,
    members: &'a [Member],
}

impl Survey<'_> {
    fn look(&self, sector_size: Option<u32>) -> Layout {
        if self.options.partition.is_none() && starts_as_luks(&Peek::new(self.disk), 0) {
            return Layout::Luks;
        }
        match storage::list(&**self.disk, sector_size) {
            Ok(Some(table)) => Layout::Table(table),
            Ok(None) => Layout::Bare,
            Err(e) => Layout::Damaged(e),
        }
    }

    /// The decision, by what the disk is, what was named, and whether the header is elsewhere.
    ///
    /// With it comes what is left of the path of partitions that was named, for tables further down.
    fn choose(&self, layout: Layout, trail: &mut Trail) -> Result<(Choice, Option<String>)> {
        let wanted = self.options.partition.clone();
        match (&layout, &wanted) {
            (Layout::Member, _) => return Ok((Choice::Whole, wanted)),
            // Of a volume on the disk itself.
            (Layout::Bare, Some(_)) if self.options.offset.is_none() && layers::is_member(self.disk) => {
                return Ok((Choice::Whole, wanted));
            }
            (Layout::Table(table), Some(name)) if self.options.offset.is_none() => {
                trail.notes.extend_from_slice(&table.notes);
                let (entry, within) = table.find_path(name)?;
                return Ok((self.entry(table, entry, trail)?, within.map(Into::into)));
            }
            _ => {}
        }
        self.choose_one(layout, trail).map(|choice| (choice, None))
    }

    /// The same where no partition was named, or there is none.
    fn choose_one(&self, layout: Layout, trail: &mut Trail) -> Result<Choice> {
        if let Some(offset) = self.options.offset {
            if self.options.header == HeaderAt::Own {
                refuse_sectors(&**self.disk, offset)?;
            }
            self.refuse_offset(&layout, offset)?;
            return Ok(Choice::Part(Window::new(Arc::clone(self.disk), offset, None)?));
        }
        let table_notes: &[String] = if let Layout::Table(table) = &layout { &table.notes } else { &[] };
        let before = trail.notes.len();
        trail.notes.extend_from_slice(table_notes);
        match (layout, self.options.partition.as_deref(), self.options.header) {
            (Layout::Luks | Layout::Member, _, _)
            | (Layout::Bare, None, _)
            | (Layout::Table(_), _, HeaderAt::Nowhere) => Ok(Choice::Whole),
            (Layout::Bare, Some(name), _) => Err(no_table(name)),
            (Layout::Table(table), None, HeaderAt::Elsewhere) if is_chance(&table, self.disk) => {
                trail.notes.truncate(before);
                Ok(Choice::Whole)
            }
            (Layout::Table(table), _, HeaderAt::Elsewhere) => Err(whose_data(&table)),
            (Layout::Table(table), _, HeaderAt::Own) => {
                let look = Peek::new(self.disk);
                match only_luks(&table, self.disk, &look, trail)? {
                    Some(entry) => self.entry(&table, entry, trail),
                    // The disk may have been a LUKS container once, and its secondary header may be left.
                    None if self.has_header() => Ok(Choice::Whole),
                    // A table that leads nowhere was written over the container that is there still.
                    None if self.lower(&table).is_some() => self
                        .through(&table, trail)
                        .or_else(|e| if recover::is_damaged_header(&**self.disk) { Ok(Choice::Whole) } else { Err(e) }),
                    None if recover::is_damaged_header(&**self.disk) => Ok(Choice::Whole),
                    None => Err(nothing(&table, &look)),
                }
            }
            (Layout::Damaged(e), Some(_), _) => Err(e),
            // A table that is damaged does not matter to a container that lies over all of the disk.
            (Layout::Damaged(_), None, HeaderAt::Elsewhere | HeaderAt::Nowhere) => Ok(Choice::Whole),
            (Layout::Damaged(e), None, HeaderAt::Own) => match recover::open(&**self.disk) {
                Ok(_) => Ok(Choice::Whole),
                Err(own) => {
                    let error = if own.kind() == ErrorKind::Io { own } else { e };
                    Err(error.with_hint([Hint::NameOffset, Hint::Scan]))
                }
            },
        }
    }

    fn entry(&self, table: &Table, entry: &Entry, trail: &mut Trail) -> Result<Choice> {
        trail.notes.push(format!("{} partition {entry}", table.scheme));
        let disk = Arc::clone(self.disk);
        let part =
            if self.options.allow_truncated { entry.open_as_far_as_it_is_there(disk)? } else { entry.open(disk)? };
        trail.notes.extend(entry.cut_off(part.len()));
        trail.layers.push(Layer::new(LayerKind::Partition, entry.number, part.len()));
        Ok(Choice::Part(part))
    }

    /// The partitions that are members of an array, or physical volumes; `None` where there are none.
    fn lower<'t>(&self, table: &'t Table) -> Option<Vec<&'t Entry>> {
        let mut looks = layers::Looks::new();
        let mut is_lower =
            |entry: &Entry| entry.open(&**self.disk).is_ok_and(|part| layers::is_lower(&part, &mut looks));
        let all: Vec<&Entry> = table.entries.iter().filter(|entry| is_lower(entry)).collect();
        (!all.is_empty()).then_some(all)
    }

    /// The one partition that leads to LUKS through an array or a volume group.
    fn through(&self, table: &Table, trail: &mut Trail) -> Result<Choice> {
        let (mut leads, mut ends) = (Vec::new(), Vec::new());
        let mut failed = None;
        for entry in self.lower(table).unwrap_or_default() {
            let part: Arc<dyn ReadAt> = Arc::new(entry.open(Arc::clone(self.disk))?);
            let search = Search { options: self.options, members: self.members };
            let mut below = Trail::default();
            // What is named in messages is named from the disk itself on.
            let outer = trail.layers.iter().filter(|layer| layer.kind == LayerKind::Partition).cloned();
            below.layers.extend(outer);
            below.layers.push(Layer::new(LayerKind::Partition, entry.number, part.len()));
            let found = resolve(Arc::clone(&part), None, search, &mut below, 1);
            match found {
                Ok((disk, _)) if layers::holds_luks(&disk) => {
                    let end = End { layer: below.layers.pop(), physical: layers::physical_volume(&part) };
                    if !ends.iter().any(|other| end.is(other)) {
                        leads.push(entry);
                        ends.push(end);
                    }
                }
                Ok(_) => {}
                Err(e) => failed = failed.or(Some(e.within(format_args!("partition {}", entry.number)))),
            }
        }
        match (leads.as_slice(), failed) {
            ([one], _) => self.entry(table, one, trail),
            ([], Some(e)) => Err(e),
            ([], None) => Err(nothing(table, &Peek::new(self.disk))),
            (several, _) => {
                let (number, list, path) = (several.len(), list_of(several), path_of(several, trail));
                let message = format!("{} lead to LUKS: {list}{path}", counted(number, "partition"));
                Err(Error::invalid(message).with_rule("partition").with_hint(Hint::NamePartition))
            }
        }
    }

    /// Refuses an offset into a disk, or a partition, whose bytes are those of something larger.
    fn refuse_offset(&self, layout: &Layout, offset: u64) -> Result<()> {
        if self.options.foreign_offset {
            return Ok(());
        }
        let mut part = layers::part_of(&**self.disk);
        if let (None, Layout::Table(table)) = (&part, layout) {
            let holds = |entry: &&Entry| offset.checked_sub(entry.start).is_some_and(|inside| inside < entry.len);
            let entry = table.entries.iter().find(holds).and_then(|entry| entry.open(&**self.disk).ok());
            part = entry.and_then(|entry| layers::part_of(&entry));
        }
        part.map_or(Ok(()), |what| {
            let message = format!("byte {offset} lies in {what}: what starts there need not go on there");
            Err(Error::invalid(message).with_rule("offset").with_hint([
                "without an offset the arrays and the volumes of LVM are looked through".into(),
                Hint::ForceOffset,
            ]))
        })
    }

    fn has_header(&self) -> bool {
        crate::luks::open(&**self.disk).is_ok()
    }
}

/// The error for an offset that was given in sectors, where a header lies at as many of them.
fn refuse_sectors(disk: &dyn ReadAt, offset: u64) -> Result<()> {
    let look = Peek::new(disk);
    let is_there = |at: u64| starts_as_luks(&look, at);
    let is_header =
        is_there(offset) || Window::new(disk, offset, None).is_ok_and(|window| recover::open(&window).is_ok());
    let sectors = [512u64, 4096].into_iter().filter(|_| offset > 0 && !is_header);
    let found = sectors.filter_map(|size| Some((size, offset.checked_mul(size)?))).find(|(_, at)| is_there(*at));
    found.map_or(Ok(()), |(size, at)| {
        let message = format!(
            "no LUKS header is at byte {offset}, but one is at byte {at}, which is {} of {size} bytes",
            counted(offset, "sector")
        );
        Err(Error::invalid(message).with_rule("offset").with_hint(format!("give the offset in bytes: {at}")))
    })
}

fn no_table(name: &str) -> Error {
    Error::invalid(format!("partition {}: the image has no partition table", escape(name))).with_hint(Hint::NameOffset)
}

/// Whether the table may be no more than encrypted bytes that look like one: partitions that all lie on the disk do not
/// come by chance.
fn is_chance(table: &Table, disk: &dyn ReadAt) -> bool {
    table.entries.is_empty() || table.scheme == Scheme::Mbr && table.entries.iter().any(|e| e.open(disk).is_err())
}

/// A header that lies elsewhere does not say which partition holds its data, and a wrong one decrypts to noise.
fn whose_data(table: &Table) -> Error {
    let all: Vec<&Entry> = table.entries.iter().collect();
    let message = format!(
        "the image has a {} partition table, and a detached header does not say where on it its data is: {}",
        table.scheme,
        list_of(&all)
    );
    Error::invalid(message).with_rule("partition").with_hint([Hint::NamePartition, Hint::WholeImage])
}

/// Whether a partition has the magic of a LUKS2 secondary header at one of the places that it can have.
fn has_secondary(look: &Peek<'_>, entry: &Entry) -> bool {
    (0..9).map(|n| LUKS2_HDR_SIZE_MIN << n).any(|place| {
        let at = entry.start.checked_add(place).filter(|_| place + 4096 <= entry.len);
        at.is_some_and(|at| look.has(&MAGIC_SECONDARY, at))
    })
}

/// How partitions within partitions are named, where these are such.
fn path_of(entries: &[&Entry], trail: &Trail) -> String {
    let outer = trail.layers.iter().filter(|layer| layer.kind == LayerKind::Partition);
    let outer: String = outer.map(|layer| format!("{}/", layer.name)).collect();
    if outer.is_empty() {
        return outer;
    }
    let paths: Vec<String> =
        entries.iter().take(storage::NAMED_MAX).map(|entry| format!("{outer}{}", entry.number)).collect();
    format!("; they are named {}", paths.join(", "))
}

/// The one partition that holds LUKS, if there is one: by its start, or else by a secondary header.
fn only_luks<'t>(
    table: &'t Table,
    disk: &Arc<dyn ReadAt>,
    look: &Peek<'_>,
    trail: &mut Trail,
) -> Result<Option<&'t Entry>> {
    let (found, others): (Vec<&Entry>, Vec<&Entry>) = table.entries.iter().partition(|e| e.starts_as_luks(look));
    let unreadable = look.take_failure();
    let (mut damaged, others): (Vec<&Entry>, Vec<&Entry>) = others.into_iter().partition(|e| has_secondary(look, e));
    if !damaged.is_empty() {
        trail.notes.push(format!("a LUKS2 secondary header, but no primary one, is in {}", list_of(&damaged)));
    }
    if found.is_empty() && damaged.is_empty() {
        let is_damaged = |e: &&Entry| e.open(disk).is_ok_and(|part| recover::is_damaged_header(&part));
        damaged = others.into_iter().filter(is_damaged).collect();
        if !damaged.is_empty() {
            trail.notes.push(format!("a damaged LUKS header is in {}", list_of(&damaged)));
        }
    }
    let found = if found.is_empty() { damaged } else { found };
    match (found.as_slice(), unreadable) {
        ([], Some(e)) => {
            look.fail(e);
            Ok(None)
        }
        ([], None) => Ok(None),
        ([one], unreadable) => {
            trail.notes.extend(unreadable.map(|e| format!("the start of a partition cannot be read: {e}")));
            Ok(Some(one))
        }
        (several, _) => {
            let (number, list, path) = (several.len(), list_of(several), path_of(several, trail));
            let message = format!("{} hold LUKS: {list}{path}", counted(number, "partition"));
            Err(Error::invalid(message).with_rule("partition").with_hint(Hint::NamePartition))
        }
    }
}

/// A table without a LUKS partition, on a disk that is none itself.
fn nothing(table: &Table, look: &Peek<'_>) -> Error {
    let hint = Hint::All(vec![Hint::NameOffset, Hint::Scan]);
    let noted: String = table.notes.iter().take(1).map(|note| format!(" ({note})")).collect();
    let message = format!("the disk has a {} partition table, but no partition holds LUKS{noted}", table.scheme);
    // What could not be read may be what was looked for.
    if let Some(e) = look.take_failure() {
        return e.within(format!("{message} where it can be read")).with_hint(hint);
    }
    Error::corrupt("magic", message).with_condition(Condition::NoHeader).with_hint(hint)
}
