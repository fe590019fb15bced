//! Linux md RAID: arrays of several disks as one, without md.
//!
//! ```text
//!  members ─► superblock ─► set: who is in it, and new enough ─► layout: where each byte lies ─► Array: ReadAt
//!                                                                 parity, raid6: what a missing member had
//! ```
//!
//! All levels that the kernel has are read: linear, RAID0, 1, 4, 5, 6 and 10 in all their layouts, from superblocks 0.90,
//! 1.0, 1.1 and 1.2, also while members are missing that the others make up for. What is missing is computed as it is
//! read; nothing is written. An array whose members' data is not the array's is refused: one that is being reshaped, and
//! one with a journal of writes. Which members count is decided as the kernel and mdadm do it.

// The numbers are bounded where they are parsed, and overflow is checked in every build: the mutations of the tests run so.
// The lint itself has not been gone through here.
#![allow(clippy::arithmetic_side_effects)]

mod layout;
mod parity;
mod probe;
mod raid6;
mod read;
mod set;
mod superblock;
mod v0;
mod v1;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::error::{Condition, Error, Hint, Result, escape};
use crate::io::ReadAt;

use super::NAMED_MAX;
pub use layout::Raid0Layout;
use layout::{Geometry, Kind, index};
pub use superblock::{BadBlocks, Level, Role, SetUuid, Superblock, Version};

/// A disk that may be a member of an array.
#[derive(Clone)]
pub struct Source {
    /// What messages call it: a file's name.
    pub name: String,
    /// The disk, or the partition, from its first byte to its last.
    pub disk: Arc<dyn ReadAt>,
}

/// What the superblocks do not say, or what they speak against.
#[derive(Clone, Copy, Debug, Default)]
pub struct AssembleOptions {
    /// The layout of a RAID0 with members of several sizes that does not name its own.
    pub raid0_layout: Option<Raid0Layout>,
    /// Computes what a missing member had also from parity that may be out of date. Without it, such reads fail.
    pub stale_parity: bool,
}

/// Whether a source's data counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It does.
    InSync,
    /// There is no source for the member.
    Missing,
    /// It is behind the others: it dropped out of the array before the last writes.
    Stale,
    /// The newest member says that it failed or was replaced.
    Failed,
    /// It was being rebuilt.
    Recovering,
    /// It replaces a member that is there.
    Replacement,
    /// It is a spare.
    Spare,
    /// It says of itself that it failed.
    Faulty,
    /// It is the journal of writes.
    Journal,
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InSync => "in sync",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Failed => "failed",
            Self::Recovering => "being rebuilt",
            Self::Replacement => "replacement",
            Self::Spare => "spare",
            Self::Faulty => "faulty",
            Self::Journal => "journal",
        })
    }
}

/// A source, or a member that there is no source for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// The index of the source; `None` where the member is missing.
    pub source: Option<usize>,
    /// The source's name.
    pub name: String,
    /// What its superblock says that it is.
    pub role: Role,
    /// How often its superblock was written.
    pub events: u64,
    /// Whether its data counts.
    pub state: MemberState,
}

/// What an array is, for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Info {
    /// How the members make one disk.
    pub level: Level,
    /// The superblocks' version.
    pub version: Version,
    /// The array's name as it stands there, often `host:name`; empty where it has none.
    pub name: String,
    /// The array's UUID.
    pub uuid: SetUuid,
    /// The layout's name, as mdadm has it; empty where the level has but one.
    pub layout: String,
    /// The size of a chunk in bytes; 0 where the level has none.
    pub chunk: u64,
    /// How many members a whole array has.
    pub raid_disks: u32,
    /// The array's size in bytes.
    pub size: u64,
    /// How often the newest superblock was written.
    pub events: u64,
    /// The array keeps a bitmap of writes. It says nothing that is needed to read.
    pub bitmap: bool,
    /// The array has a log of partial parity. It is not replayed: where it would be, parity counts as out of date.
    pub ppl: bool,
    /// The sources in their order, and then the members that are missing.
    pub members: Vec<MemberInfo>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "md {} of {} members", self.level, self.raid_disks)?;
        let missing = self.members.iter().filter(|m| m.state == MemberState::Missing).count();
        if missing > 0 {
            write!(f, " ({missing} missing)")?;
        }
        if !self.layout.is_empty() {
            write!(f, ", {}", self.layout)?;
        }
        if self.chunk > 0 && !matches!(self.level, Level::Linear | Level::Raid1) {
            write!(f, ", chunks of {} bytes", self.chunk)?;
        }
        write!(f, ", metadata {}", self.version)?;
        if !self.name.is_empty() {
            write!(f, ", \"{}\"", escape(&self.name))?;
        }
        write!(f, ", UUID {}", self.uuid)
    }
}

/// A member whose data counts.
struct Member {
    name: String,
    disk: Arc<dyn ReadAt>,
    data_offset: u64,
    bad_blocks: Vec<BadBlocks>,
}

/// An array as one disk.
///
/// ```no_run
/// use std::sync::Arc;
/// use unluks::storage::md::{Array, AssembleOptions, Source};
/// use unluks::{FileSource, ReadAt};
///
/// # fn main() -> unluks::Result<()> {
/// let names = ["sda.img", "sdc.img"];
/// let open = |name: &str| Ok(Source { name: name.into(), disk: Arc::new(FileSource::open(name)?) });
/// let sources = names.into_iter().map(open).collect::<unluks::Result<Vec<_>>>()?;
/// let array = Array::assemble(sources, &AssembleOptions::default())?;
/// println!("{}: {} bytes", array.info(), array.len());
/// # Ok(()) }
/// ```
pub struct Array {
    info: Info,
    geometry: Geometry,
    members: Vec<Option<Member>>,
    /// Where parity, and copies, may begin to be out of date, in the bytes that the superblock counts in.
    in_sync_to: Option<u64>,
    options: AssembleOptions,
}

impl Array {
    /// Puts the array together that the sources are members of, in any order.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a source is no member, is one of another array
    /// or is given twice, and where too many members are missing: the message names them;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where a superblock is damaged, where members contradict each
    /// other, and where one is cut off; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for an array that is
    /// being reshaped, that has a journal of writes, or whose level or layout is not known;
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where it has more members than are allowed.
    pub fn assemble(sources: Vec<Source>, options: &AssembleOptions) -> Result<Self> {
        let set::Set { newest, members, infos, mut notes, left_out } = set::sort_out(&sources)?;
        notes.extend(left_out.iter().map(|words| format!("md: {words}")));
        let data_sizes: Vec<u64> =
            members.iter().map(|m| m.as_ref().map_or(0, |(_, superblock)| superblock.data_size)).collect();
        if matches!(newest.level, Level::Linear | Level::Raid0) {
            // Their shape is told by all members' sizes.
            check_enough(&newest, &members, None, &left_out)?;
        }
        let geometry = Geometry::new(&newest, &data_sizes, options.raid0_layout)?;
        check_enough(&newest, &members, Some(&geometry), &left_out)?;
        let mut whole = Vec::new();
        for (member, used) in members.into_iter().zip(&geometry.used) {
            let member = member.map(|(n, superblock)| usable(&newest, &sources[n], superblock, *used));
            whole.push(member.transpose()?);
        }
        notes.extend(whole.iter().flatten().filter(|m| !m.bad_blocks.is_empty()).map(|m| {
            format!("md: {} has a list of {} bad blocks, which are not read", escape(&m.name), m.bad_blocks.len())
        }));
        let limit = if newest.level == Level::Raid10 { geometry.size } else { newest.size };
        let redundant = !matches!(newest.level, Level::Linear | Level::Raid0);
        let in_sync_to = newest.resync_offset.filter(|at| redundant && *at < limit);
        if let Some(at) = in_sync_to {
            let of = if newest.level == Level::Raid10 { "the array" } else { "each member" };
            notes.push(format!(
                "md: {}: it was not stopped cleanly, or its resync was not done: from byte {at} of {of} on, parity and \
                 copies may be out of date",
                newest.array()
            ));
        }
        let info = Info {
            level: newest.level,
            version: newest.version,
            name: newest.name,
            uuid: newest.set_uuid,
            layout: geometry.name.clone(),
            chunk: newest.chunk,
            raid_disks: newest.raid_disks,
            size: geometry.size,
            events: newest.events,
            bitmap: newest.bitmap,
            ppl: newest.ppl,
            members: infos,
            notes,
        };
        Ok(Self { info, geometry, members: whole, in_sync_to, options: *options })
    }

    /// What the array is.
    pub fn info(&self) -> &Info {
        &self.info
    }
}

/// The source as a member, of which `used` bytes are wanted.
fn usable(newest: &Superblock, source: &Source, superblock: Superblock, used: u64) -> Result<Member> {
    let (data_offset, data_size) = (superblock.data_offset, superblock.data_size);
    let name = escape(&source.name);
    if used > data_size {
        let message = format!("{name}: the array uses {used} bytes of each member, but it has room for {data_size}");
        return Err(Error::corrupt("md.data_size", message).at(superblock.offset));
    }
    // Both were checked to be below 2^63.
    let (end, len) = (data_offset + used, source.disk.len());
    if end > len {
        let message = format!("{name}: its data ends at byte {end}, but the image ends at byte {len}: it is cut off");
        let e = Error::corrupt("md.truncated", format!("{}: {message}", newest.array()));
        return Err(e.with_hint("fetch it again; an array with redundancy may be read without it"));
    }
    let disk = Arc::clone(&source.disk);
    Ok(Member { name: source.name.clone(), disk, data_offset, bad_blocks: superblock.bad_blocks })
}

/// Refuses an array of which more members are missing than the others make up for. Without a geometry, none may be.
fn check_enough<M>(
    newest: &Superblock,
    members: &[Option<M>],
    geometry: Option<&Geometry>,
    left_out: &[String],
) -> Result<()> {
    let missing: Vec<usize> = (0..members.len()).filter(|n| members[*n].is_none()).collect();
    let enough = match geometry.map(|geometry| (&geometry.kind, geometry)) {
        _ if missing.is_empty() => true,
        Some((Kind::Mirror(_), _)) => missing.len() < members.len(),
        Some((Kind::Parity(parity), _)) => missing.len() <= index(parity.parities()),
        Some((Kind::Copied(_), geometry)) => {
            // The pattern of copies comes again after as many chunks as there are members.
            let chunks = (0..u64::from(newest.raid_disks)).map(|chunk| chunk * geometry.chunk);
            let mut there = chunks.take_while(|at| *at < geometry.size);
            there.all(|at| geometry.places(at).any(|place| members[place.member].is_some()))
        }
        Some((Kind::Linear(_) | Kind::Striped(..), _)) | None => false,
    };
    if enough {
        return Ok(());
    }
    let numbers: Vec<String> = missing.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let more = missing.len().saturating_sub(NAMED_MAX);
    let (s, verb) = if missing.len() == 1 { ("", "is") } else { ("s", "are") };
    let and = if more > 0 { format!(" and {more} more") } else { String::new() };
    let of = newest.raid_disks;
    let mut message =
        format!("{} wants {of} members; member{s} {}{and} {verb} missing", newest.array(), numbers.join(", "));
    left_out.iter().take(NAMED_MAX).for_each(|words| message += &format!("; {words}"));
    Err(Error::invalid(message)
        .with_rule("md.members")
        .with_condition(Condition::MissingMember)
        .with_hint(Hint::NameMembers))
}
