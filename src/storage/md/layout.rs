//! Where a byte of an array lies: each level and layout as arithmetic, without a member in sight.
//!
//! Offsets of members count from where their data begins. The rules are the kernel's: `raid0.c` (`create_strip_zones`,
//! `map_sector`), `raid5.c` (`raid5_compute_sector`, `raid6_idx_to_slot`), `raid10.c` (`setup_geo`, `__raid10_find_phys`)
//! and `md-linear.c`.

use crate::error::{Error, Result, counted};
use crate::num::{at_most, from_u32, to_u64};

use super::parity::Parity;
use super::superblock::{Level, SECTOR, Superblock};

/// How RAID0 continues behind the end of its smaller members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raid0Layout {
    /// The next chunk's member is told by the chunk's number in the array (Linux before 3.14, and mdadm's `original`).
    Original,
    /// It is told by the chunk's number in the zone (Linux from 3.14 on, and mdadm's `alternate`).
    Alternate,
}

/// A place on a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub member: usize,
    pub offset: u64,
}

/// A run of RAID0's stripes that go over the same members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// Where it ends in the array.
    end: u64,
    /// Where it begins on each of its members.
    start: u64,
    members: Vec<usize>,
}

/// RAID10's copies of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copies {
    near: u64,
    far: u64,
    /// The far copies of a stripe follow it at once.
    offset: bool,
    /// Members are taken in sets of this number, and copies keep to their set.
    far_set_size: u64,
    /// From a copy to its next far copy on a member.
    stride: u64,
    /// How many of the far copies can be read. With some sets the kernel writes two chunks' copies to one place.
    readable: u64,
    disks: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where each member's part ends in the array.
    Linear(Vec<u64>),
    Mirror(u32),
    Striped(Vec<Zone>, Raid0Layout),
    Parity(Parity),
    Copied(Copies),
}

/// An array's shape. It cannot be made but with numbers that cannot overflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub kind: Kind,
    /// 0 where nothing is in chunks.
    pub chunk: u64,
    /// The array's size in bytes; never 0.
    pub size: u64,
    /// What is used of each member.
    pub used: Vec<u64>,
    /// The layout's name, where the level has several.
    pub name: String,
}

fn wrong(sb: &Superblock, rule: &'static str, message: String) -> Error {
    Error::corrupt(rule, format!("{}: {message}", sb.array()))
}

impl Geometry {
    /// The shape of the array that `sb` tells of. `data_sizes` are the room for data on each member, which only linear
    /// and RAID0 need; `asked` is taken where RAID0's layout makes a difference and the superblock does not say it.
    pub fn new(sb: &Superblock, data_sizes: &[u64], asked: Option<Raid0Layout>) -> Result<Self> {
        let disks = u64::from(sb.raid_disks);
        let members = from_u32(sb.raid_disks);
        check_chunk(sb)?;
        let equal = |used: u64| vec![used; members];
        let chunks = sb.size.checked_div(sb.chunk).unwrap_or(0);
        // The members' own sizes were checked to be below 2^63.
        let too_large =
            || wrong(sb, "md.size", format!("members of {} bytes make an array that is too large", sb.size));
        let times = |bytes: u64, n: u64| bytes.checked_mul(n).ok_or_else(too_large);
        let (kind, size, used, name) = match sb.level {
            Level::Linear => {
                let used: Vec<u64> = data_sizes.iter().map(|size| whole(*size, sb.chunk)).collect();
                let ends = ends(&used).ok_or_else(too_large)?;
                let size = ends.last().copied().unwrap_or(0);
                (Kind::Linear(ends), size, used, String::new())
            }
            Level::Raid0 => {
                let used: Vec<u64> = data_sizes.iter().map(|size| whole(*size, sb.chunk)).collect();
                let zones = zones(&used).ok_or_else(too_large)?;
                let (layout, name) = raid0_layout(sb, &zones, asked)?;
                // The kernel's sum (`raid0_size`), which also tells how it rounds with chunks that are no power of 2.
                let mask = !(sb.chunk / SECTOR - 1);
                let size = used.iter().map(|bytes| ((bytes / SECTOR) & mask) * SECTOR).sum();
                (Kind::Striped(zones, layout), size, used, name.to_owned())
            }
            Level::Raid1 => (Kind::Mirror(sb.raid_disks), sb.size, equal(sb.size), String::new()),
            Level::Raid4 | Level::Raid5 | Level::Raid6 => {
                let parity = Parity::new(sb)?;
                let name = parity.name();
                let size = times(chunks * sb.chunk, parity.data_disks())?;
                (Kind::Parity(parity), size, equal(chunks * sb.chunk), name)
            }
            Level::Raid10 => {
                let (copies, used, chunks) = Copies::new(sb, chunks)?;
                let name = copies.name();
                (Kind::Copied(copies), times(chunks, sb.chunk)?, equal(used), name)
            }
            Level::Other(_) => {
                let message = format!("{}: this level is not read", sb.array());
                return Err(Error::unsupported("md.level", message));
            }
        };
        if size == 0 || i64::try_from(size).is_err() || times(used.iter().copied().max().unwrap_or(0), disks).is_err() {
            return Err(wrong(sb, "md.size", format!("found {} bytes of each member; that makes no array", sb.size)));
        }
        Ok(Self { kind, chunk: sb.chunk, size, used, name })
    }

    /// All places of the byte at `offset`, which is below the size: one, or as many as there are copies.
    pub fn places(&self, offset: u64) -> Places<'_> {
        let copies = match &self.kind {
            Kind::Mirror(members) => (*members).into(),
            Kind::Copied(copies) => copies.near * copies.readable,
            _ => 1,
        };
        Places { geometry: self, offset, copies: 0..copies, last: Place { member: 0, offset: 0 } }
    }

    /// How many bytes from `offset` on lie together; `offset` is below the size.
    pub fn run(&self, offset: u64) -> u64 {
        let rest = self.size.saturating_sub(offset);
        match &self.kind {
            Kind::Linear(ends) => ends.get(member_at(ends, offset)).map_or(rest, |end| end - offset),
            Kind::Mirror(_) => rest,
            _ => rest.min(self.chunk - offset % self.chunk),
        }
    }

    /// The first place of the byte at `offset`, which is below the size.
    pub fn place(&self, offset: u64) -> Place {
        self.copy(offset, 0)
    }

    /// The near copy with this number.
    fn copy(&self, offset: u64, copy: u64) -> Place {
        let chunk = self.chunk.max(1);
        let (number, within) = (offset / chunk, offset % chunk);
        match &self.kind {
            Kind::Linear(ends) => {
                let member = member_at(ends, offset);
                let start = member.checked_sub(1).and_then(|n| ends.get(n)).copied().unwrap_or(0);
                Place { member, offset: offset - start }
            }
            Kind::Mirror(_) => Place { member: index(copy), offset },
            Kind::Striped(zones, layout) => {
                let n = zones.partition_point(|zone| zone.end <= offset).min(zones.len() - 1);
                let start = n.checked_sub(1).map_or(0, |n| zones[n].end);
                let zone = &zones[n];
                let count = to_u64(zone.members.len());
                let in_zone = (offset - start) / chunk;
                let turn = match layout {
                    Raid0Layout::Original => number % count,
                    Raid0Layout::Alternate => in_zone % count,
                };
                Place { member: zone.members[index(turn)], offset: zone.start + in_zone / count * chunk + within }
            }
            Kind::Parity(parity) => {
                let (stripe, block) = (number / parity.data_disks(), number % parity.data_disks());
                Place { member: index(parity.data(stripe, block)), offset: stripe * chunk + within }
            }
            Kind::Copied(copies) => {
                let (member, row) = copies.near(number, copy);
                Place { member: index(member), offset: row * chunk + within }
            }
        }
    }
}

/// The places of one byte.
pub(super) struct Places<'a> {
    geometry: &'a Geometry,
    offset: u64,
    copies: std::ops::Range<u64>,
    last: Place,
}

impl Iterator for Places<'_> {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let copy = self.copies.next()?;
        self.last = match &self.geometry.kind {
            Kind::Copied(copies) if copy % copies.readable == 0 => {
                self.geometry.copy(self.offset, copy / copies.readable)
            }
            Kind::Copied(copies) => {
                let member = to_u64(self.last.member);
                Place { member: index(copies.next_far(member)), offset: self.last.offset + copies.stride }
            }
            _ => self.geometry.copy(self.offset, copy),
        };
        Some(self.last)
    }
}

/// A member's number, which is below the number of members, as an index.
pub(super) fn index(member: u64) -> usize {
    at_most(member, usize::MAX)
}

/// `size` without what does not fill a chunk.
fn whole(size: u64, chunk: u64) -> u64 {
    size.checked_div(chunk).map_or(size, |chunks| chunks * chunk)
}

fn ends(sizes: &[u64]) -> Option<Vec<u64>> {
    let mut end = 0u64;
    sizes.iter().map(|size| end.checked_add(*size).inspect(|sum| end = *sum)).collect()
}

fn member_at(ends: &[u64], offset: u64) -> usize {
    ends.partition_point(|end| *end <= offset)
}

/// RAID0's zones: the first goes over all members up to the end of the smallest, the next over those that are left.
fn zones(sizes: &[u64]) -> Option<Vec<Zone>> {
    let mut zones = Vec::new();
    let (mut start, mut end) = (0, 0u64);
    loop {
        let members: Vec<usize> = (0..sizes.len()).filter(|n| sizes[*n] > start).collect();
        let Some(smallest) = members.iter().map(|n| sizes[*n]).min() else { return Some(zones) };
        end = end.checked_add((smallest - start).checked_mul(u64::try_from(members.len()).ok()?)?)?;
        zones.push(Zone { end, start, members });
        start = smallest;
    }
}

/// RAID0's layout, and its name where it makes a difference.
fn raid0_layout(sb: &Superblock, zones: &[Zone], asked: Option<Raid0Layout>) -> Result<(Raid0Layout, &'static str)> {
    let (original, alternate) = ((Raid0Layout::Original, "original"), (Raid0Layout::Alternate, "alternate"));
    // A zone of one member has no turns.
    if zones.get(1).is_none_or(|zone| zone.members.len() == 1) {
        return Ok((Raid0Layout::Original, ""));
    }
    match (sb.layout, asked) {
        (Some(1), _) => Ok(original),
        (Some(2), _) => Ok(alternate),
        (Some(0) | None, Some(Raid0Layout::Original)) => Ok(original),
        (Some(0) | None, Some(Raid0Layout::Alternate)) => Ok(alternate),
        (Some(0) | None, None) => Err(Error::unsupported(
            "md.layout",
            format!(
                "{}: its members differ in size, and it does not say which layout it has: Linux before 3.14 wrote \
                 \"original\", later ones \"alternate\"",
                sb.array()
            ),
        )),
        (Some(other), _) => Err(wrong(sb, "md.layout", format!("found layout {other}; RAID0 has 1 and 2"))),
    }
}

fn check_chunk(sb: &Superblock) -> Result<()> {
    let allowed = match sb.level {
        Level::Linear | Level::Raid1 | Level::Other(_) => true,
        Level::Raid0 => sb.chunk > 0,
        Level::Raid4 | Level::Raid5 | Level::Raid6 | Level::Raid10 => sb.chunk >= 4096 && sb.chunk.is_power_of_two(),
    };
    if allowed {
        Ok(())
    } else {
        let message = format!("found a chunk of {} bytes; a power of 2 from 4096 on is allowed", sb.chunk);
        Err(wrong(sb, "md.chunksize", message))
    }
}

impl Copies {
    /// The copies, what is used of each member in bytes, and the array's size in chunks.
    fn new(sb: &Superblock, chunks: u64) -> Result<(Self, u64, u64)> {
        let layout = sb.layout.unwrap_or(0);
        let disks = u64::from(sb.raid_disks);
        let (near, far) = (u64::from(layout & 0xff), u64::from(layout >> 8 & 0xff));
        let far_set_size = match layout >> 17 {
            0 => disks,
            1 => disks.checked_div(far).unwrap_or(0),
            2 => near * far,
            _ => 0,
        };
        if near * far < 2 || near * far > disks || far_set_size < 1 || far_set_size > disks {
            let message =
                format!("found layout {layout:#x} for {}; that is none of RAID10's", counted(disks, "member"));
            return Err(wrong(sb, "md.layout", message));
        }
        let offset = layout & 1 << 16 != 0;
        if offset && near > 1 && far > 1 && !disks.is_multiple_of(near) {
            let message =
                format!("{}: with layout {layout:#x} md writes copies of two chunks to one place", sb.array());
            return Err(Error::unsupported("md.layout", message));
        }
        let too_large =
            || wrong(sb, "md.size", format!("members of {} bytes make an array that is too large", sb.size));
        // `calc_sectors` and `raid10_size`: what a member's chunks hold, and what that takes of each member.
        let held = |chunks: u64| (chunks / far).checked_mul(disks).map(|n| n / near).ok_or_else(too_large);
        let used = held(chunks)?.checked_mul(near * far).ok_or_else(too_large)?.div_ceil(disks);
        let stride = if offset { sb.chunk } else { used / far * sb.chunk };
        let mut copies = Self { near, far, offset, far_set_size, stride, readable: far, disks };
        let mut taken: Vec<u64> = (0..disks).map(|member| copies.next_far(member)).collect();
        taken.sort_unstable();
        if taken.windows(2).any(|pair| pair[0] == pair[1]) {
            copies.readable = 1;
        }
        Ok((copies, used * sb.chunk, held(used)?))
    }

    /// Near copy `near` of chunk `number`: on which member, and in which row of chunks.
    fn near(&self, number: u64, near: u64) -> (u64, u64) {
        let position = number * self.near + near;
        let row = position / self.disks * if self.offset { self.far } else { 1 };
        (position % self.disks, row)
    }

    /// The member that has the next far copy of what `member` has.
    fn next_far(&self, member: u64) -> u64 {
        let last = (self.disks / self.far_set_size - 1) * self.far_set_size;
        let moved = member + self.near;
        // As the kernel has it: a last set that is larger than the others begins behind its own first member.
        if !self.disks.is_multiple_of(self.far_set_size) && moved > last {
            let size = self.far_set_size + self.disks % self.far_set_size;
            last + (moved - last) % size
        } else {
            moved % self.far_set_size + member / self.far_set_size * self.far_set_size
        }
    }

    fn name(&self) -> String {
        let far = if self.offset { "offset" } else { "far" };
        let sets =
            if self.far_set_size < self.disks { format!(", in sets of {}", self.far_set_size) } else { String::new() };
        match (self.near, self.far) {
            (near, 1) => format!("near={near}"),
            (1, copies) => format!("{far}={copies}{sets}"),
            (near, copies) => format!("near={near}, {far}={copies}{sets}"),
        }
    }
}
