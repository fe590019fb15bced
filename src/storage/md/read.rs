//! Reading an array: runs of bytes from the members that have them, from another copy, or computed from parity.

use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::{Extent, ReadAt, check_range};
use crate::num::to_u64;

use super::layout::{Kind, Place, index};
use super::parity::Parity;
use super::{Array, Member, raid6};

/// How much is computed at once: two buffers of this size are taken for it.
const BLOCK: usize = 128 << 10;
/// Chunks below this are read together, as far as they lie together on a member.
const SMALL_CHUNK: u64 = 64 << 10;
/// How much is read together, and so the most memory that this takes.
const GATHER: usize = 1 << 20;
/// The most runs that one question for an extent looks at.
const EXTENT_RUNS_MAX: usize = 65_536;

impl Member {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let start = self.data_offset.saturating_add(offset);
        let end = start.saturating_add(to_u64(buf.len()));
        if let Some(bad) = self.bad_blocks.iter().find(|b| b.start < end && start < b.start.saturating_add(b.len)) {
            let message = format!("{}: its list of bad blocks names {} bytes here", escape(&self.name), bad.len);
            return Err(Error::new(ErrorKind::Io, message).with_rule("md.bad_blocks").at(bad.start));
        }
        self.disk.read_exact_at(buf, start).map_err(|e| e.within(escape(&self.name)))
    }
}

/// Why a block could not be computed: a member that was thought to be there could not be read.
struct Lost {
    member: u64,
    error: Error,
}

impl Array {
    fn member(&self, n: usize) -> Option<&Member> {
        self.members.get(n).and_then(Option::as_ref)
    }

    /// Reads one run, which lies together on each of its places.
    fn read_run(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut first = None;
        for place in self.geometry.places(offset) {
            let Some(member) = self.member(place.member) else { continue };
            match member.read(buf, place.offset) {
                Ok(()) => return Ok(()),
                Err(e) => first = first.or(Some(e)),
            }
        }
        if let Kind::Parity(parity) = &self.geometry.kind {
            return self.compute(parity, buf, self.geometry.place(offset), first);
        }
        let nowhere =
            || Error::new(ErrorKind::Io, format!("byte {offset} of the array lies on members that are missing"));
        Err(first.unwrap_or_else(nowhere))
    }

    /// Computes what the member at `place`, which is missing or cannot be read, has there.
    fn compute(&self, parity: &Parity, buf: &mut [u8], place: Place, because: Option<Error>) -> Result<()> {
        let end = place.offset.saturating_add(to_u64(buf.len()));
        if let Some(at) = self.in_sync_to.filter(|at| !self.options.stale_parity && end > *at) {
            let why = because.map_or_else(|| "it is missing".into(), |e| e.to_string());
            let message = format!(
                "member {} is wanted here ({why}), but the parity to compute it from may be out of date from byte {at} on",
                place.member
            );
            return Err(Error::corrupt("md.resync", message).at(place.offset));
        }
        let wanted = to_u64(place.member);
        let mut lost: Vec<u64> = (0..parity.disks()).filter(|n| self.member(index(*n)).is_none()).collect();
        if !lost.contains(&wanted) {
            lost.push(wanted);
        }
        let mut first = because;
        let mut row = Row { stripe: place.offset / self.geometry.chunk, offset: place.offset };
        for block in buf.chunks_mut(BLOCK) {
            loop {
                if to_u64(lost.len()) > parity.parities() {
                    let too_many = || Error::new(ErrorKind::Io, "more members are missing than parity makes up for");
                    return Err(first.unwrap_or_else(too_many));
                }
                match self.solve(parity, row, wanted, &lost, block) {
                    Ok(()) => break,
                    Err(Lost { member, error }) => {
                        lost.push(member);
                        first = first.or(Some(error));
                    }
                }
            }
            row.offset += to_u64(block.len());
        }
        Ok(())
    }

    /// Computes a block of the member `wanted` from those that are not lost, of which there are enough.
    fn solve(
        &self,
        parity: &Parity,
        row: Row,
        wanted: u64,
        lost: &[u64],
        block: &mut [u8],
    ) -> std::result::Result<(), Lost> {
        let data = (0..parity.data_disks()).map(|n| parity.data(row.stripe, n)).filter(|n| *n != wanted);
        let (others, other_lost): (Vec<u64>, Vec<u64>) = data.partition(|n| !lost.contains(n));
        let p = Some(parity.p(row.stripe)).filter(|p| !lost.contains(p));
        let q = parity.q(row.stripe).filter(|q| !lost.contains(q));
        let power = |member| raid6::power_of_two(parity.exponent(row.stripe, member));
        let mut from = vec![0; block.len()];
        if let (Some(p), []) = (p, other_lost.as_slice()) {
            self.fetch(p, row.offset, block)?;
            for other in others {
                self.fetch(other, row.offset, &mut from)?;
                raid6::add(block, &from);
            }
            return Ok(());
        }
        let nothing_left = || Lost {
            member: wanted,
            error: Error::new(ErrorKind::Io, "more members are missing than parity makes up for"),
        };
        // What is left of Q, and of P, when all that is there was taken away.
        self.fetch(q.ok_or_else(nothing_left)?, row.offset, block)?;
        let mut rest_of_p = vec![0; if other_lost.is_empty() { 0 } else { block.len() }];
        if !rest_of_p.is_empty() {
            self.fetch(p.ok_or_else(nothing_left)?, row.offset, &mut rest_of_p)?;
        }
        for other in others {
            self.fetch(other, row.offset, &mut from)?;
            raid6::Times::new(power(other)).add_to(block, &from);
            raid6::add(&mut rest_of_p, &from);
        }
        // P was the sum of both that are lost, Q the sum of their products.
        let mut factor = power(wanted);
        if let [other] = other_lost.as_slice() {
            raid6::Times::new(power(*other)).add_to(block, &rest_of_p);
            factor ^= power(*other);
        }
        raid6::Times::new(raid6::inverse(factor)).scale(block);
        Ok(())
    }

    fn fetch(&self, member: u64, offset: u64, buf: &mut [u8]) -> std::result::Result<(), Lost> {
        let there = self.member(index(member));
        let missing = || Error::new(ErrorKind::Io, format!("member {member} is missing"));
        let read = there.ok_or_else(missing).and_then(|there| there.read(buf, offset));
        read.map_err(|error| Lost { member, error })
    }

    /// The first copy of the byte at `offset` that a member has, if one is there.
    fn first_copy(&self, offset: u64) -> Option<Place> {
        self.geometry.places(offset).find(|place| self.member(place.member).is_some())
    }

    /// Reads small chunks: what lies together on a member is read at once, and then put where it belongs.
    fn gather(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < buf.len() {
            let here = offset + to_u64(at);
            let len = index(self.geometry.run(here)).min(buf.len() - at);
            pieces.push((self.first_copy(here), at..at + len));
            at += len;
        }
        let key = |place: &Option<Place>| place.map(|place| (place.member, place.offset));
        pieces.sort_by_key(|(place, _)| key(place));
        let mut together = Vec::new();
        let mut rest = pieces.as_slice();
        while let Some((first, _)) = rest.first() {
            // Parity may lie between: a gap of a chunk costs less than another read.
            let mut end = None;
            let follows = rest.iter().take_while(|(place, part)| {
                let joins = place.zip(*first).is_some_and(|(place, first)| {
                    let near = end.is_none_or(|end| place.offset <= end + self.geometry.chunk);
                    place.member == first.member && near && place.offset - first.offset < to_u64(GATHER)
                });
                end = place.map(|place| place.offset + to_u64(part.len()));
                joins
            });
            let (group, more) = rest.split_at(follows.count().max(1));
            rest = more;
            let whole = match (first, group) {
                (Some(first), [_, .., (Some(last), part)]) => {
                    together.resize(index(last.offset - first.offset) + part.len(), 0);
                    let member = self.member(first.member);
                    member
                        .is_some_and(|member| member.read(&mut together, first.offset).is_ok())
                        .then_some(first.offset)
                }
                _ => None,
            };
            for (place, part) in group {
                match (whole, place) {
                    (Some(start), Some(place)) => {
                        let from = index(place.offset - start);
                        buf[part.clone()].copy_from_slice(&together[from..from + part.len()]);
                    }
                    // One alone, or one of several of which not all can be read.
                    _ => self.read_run(&mut buf[part.clone()], offset + to_u64(part.start))?,
                }
            }
        }
        Ok(())
    }

    /// Whether runs are so short that they are better read together.
    fn has_small_chunks(&self) -> bool {
        let striped = !matches!(self.geometry.kind, Kind::Linear(_) | Kind::Mirror(_));
        striped && self.geometry.chunk < SMALL_CHUNK
    }

    /// What lies at `offset`, with what the members said last of their holes.
    fn extent(&self, offset: u64, said: &mut [Option<(u64, Extent)>]) -> Result<Extent> {
        let run = self.geometry.run(offset);
        let data = Extent { len: run, zero: false };
        let Some(place) = self.first_copy(offset) else { return Ok(data) };
        let (Some(member), Some(said)) = (self.member(place.member), said.get_mut(place.member)) else {
            return Ok(data);
        };
        if !member.bad_blocks.is_empty() {
            return Ok(data);
        }
        let skip = |start: u64, extent: &Extent| place.offset.checked_sub(start).filter(|skip| *skip < extent.len);
        let known = said.as_ref().and_then(|(start, extent)| skip(*start, extent).map(|skip| (skip, *extent)));
        let (skip, extent) = match known {
            Some(known) => known,
            None => {
                let extent = member.disk.extent_at(member.data_offset.saturating_add(place.offset))?;
                *said = Some((place.offset, extent));
                (0, extent)
            }
        };
        Ok(Extent { len: (extent.len - skip).min(run), zero: extent.zero })
    }

    /// Passes advice on a range to all members, each for the rows of chunks that it covers.
    fn advise(&self, offset: u64, len: u64, advice: fn(&dyn ReadAt, u64, u64)) {
        let Some(last) =
            offset.checked_add(len).map(|end| end.min(self.geometry.size)).and_then(|end| end.checked_sub(1))
        else {
            return;
        };
        if offset > last {
            return;
        }
        let ends = (self.geometry.place(offset), self.geometry.place(last));
        for (n, member) in self.members.iter().enumerate() {
            let Some(member) = member else { continue };
            let (start, end) = match &self.geometry.kind {
                Kind::Linear(_) if n < ends.0.member || n > ends.1.member => continue,
                Kind::Linear(_) => {
                    let start = if n == ends.0.member { ends.0.offset } else { 0 };
                    (start, if n == ends.1.member { ends.1.offset + 1 } else { self.used(n) })
                }
                Kind::Mirror(_) if self.first_copy(offset).is_some_and(|place| place.member != n) => continue,
                Kind::Mirror(_) => (ends.0.offset, ends.1.offset + 1),
                _ => {
                    let row = |offset: u64| offset / self.geometry.chunk * self.geometry.chunk;
                    (row(ends.0.offset), (row(ends.1.offset) + self.geometry.chunk).min(self.used(n)))
                }
            };
            if start < end {
                advice(&member.disk, member.data_offset.saturating_add(start), end - start);
            }
        }
    }

    fn used(&self, member: usize) -> u64 {
        self.geometry.used.get(member).copied().unwrap_or(0)
    }
}

/// A place on all members at once.
#[derive(Clone, Copy)]
struct Row {
    stripe: u64,
    offset: u64,
}

impl ReadAt for Array {
    fn len(&self) -> u64 {
        self.geometry.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len())?;
        let gathers = self.has_small_chunks();
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let run = index(self.geometry.run(offset)).min(rest.len());
            let len = if gathers { rest.len().min(GATHER) } else { run };
            let (part, more) = rest.split_at_mut(len);
            if len > run {
                self.gather(part, offset)?;
            } else {
                self.read_run(part, offset)?;
            }
            rest = more;
            offset += to_u64(len);
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        let mut said = vec![None; self.members.len()];
        let mut all = self.extent(offset, &mut said)?;
        for _ in 1..EXTENT_RUNS_MAX {
            let next = offset.saturating_add(all.len);
            if next >= self.len() {
                break;
            }
            // What cannot be looked up ends the extent: the error comes to whoever asks there.
            match self.extent(next, &mut said) {
                Ok(more) if more.zero == all.zero && more.len > 0 => all.len += more.len,
                _ => break,
            }
        }
        Ok(all)
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, |disk, offset, len| disk.will_need(offset, len));
    }

    fn wont_need(&self, offset: u64, len: u64) {
        self.advise(offset, len, |disk, offset, len| disk.wont_need(offset, len));
    }
}
