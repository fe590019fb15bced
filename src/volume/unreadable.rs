//! Reading on where the data file cannot be read: what is lost is narrowed down, noted, and stood in for.

use super::bad_sectors::{BadRun, BadSectorPolicy, Cause};
use super::{InPlace, Part, Volume, blank, round_down};
use crate::error::{Error, ErrorKind, Hint, Result};
use crate::num::{at_most, to_u64};

/// A range that cannot be read is read in pieces of the first size, those that cannot in pieces of the next, so that few
/// reads wait for a medium's own retries. The last is the least that a disk loses.
const PIECES: [u64; 3] = [64 << 10, 4096, 512];

impl Volume {
    /// Reads whole sectors of a part, and decrypts them.
    pub(super) fn read_sectors(&self, part: &Part, buf: &mut [u8], inside: u64) -> Result<()> {
        match part.layer.read(&*self.data, buf, inside) {
            Err(e) if self.passes_over(&e) => {}
            other => return other.map_err(hinted),
        }
        if let Some(layer) = part.layer.in_place() {
            self.read_stored(part, layer, buf, inside)?;
            layer.decipher(buf, inside)?;
            self.blank_unreadable(buf, part.start.saturating_add(inside));
            return Ok(());
        }
        let (mut buf, mut at) = (buf, inside);
        while !buf.is_empty() {
            let len = buf.len().min(at_most(part.layer.sector_size().into(), buf.len()));
            let (now, rest) = buf.split_at_mut(len);
            let len = to_u64(now.len());
            match part.layer.read(&*self.data, now, at) {
                Err(e) if self.passes_over(&e) => {
                    now.fill(0);
                    let start = part.start.saturating_add(at);
                    self.note_unreadable(BadRun {
                        cause: Cause::Unreadable,
                        start,
                        len,
                        stored_at: e.offset().unwrap_or(0),
                    })?;
                }
                other => other?,
            }
            (buf, at) = (rest, at.saturating_add(len));
        }
        Ok(())
    }

    /// Reads the ciphertext of whole sectors of a part.
    pub(super) fn read_stored(&self, part: &Part, layer: &dyn InPlace, buf: &mut [u8], inside: u64) -> Result<()> {
        match self.data.read_exact_at(buf, layer.stored_at(inside)) {
            Err(e) if self.passes_over(&e) => self.read_pieces(part, layer, buf, inside, &PIECES),
            other => other.map_err(hinted),
        }
    }

    /// Reads what can be read of a range that as a whole cannot.
    fn read_pieces(
        &self,
        part: &Part,
        layer: &dyn InPlace,
        mut buf: &mut [u8],
        mut inside: u64,
        sizes: &[u64],
    ) -> Result<()> {
        let Some((size, smaller)) = sizes.split_first() else { return self.lose(part, layer, buf, inside) };
        while !buf.is_empty() {
            let at = layer.stored_at(inside);
            let to_border = size.saturating_sub(at.checked_rem(*size).unwrap_or(0));
            let len = at_most(to_border, buf.len());
            let (now, rest) = buf.split_at_mut(len);
            match self.data.read_exact_at(now, at) {
                Err(e) if self.passes_over(&e) => self.read_pieces(part, layer, now, inside, smaller)?,
                other => other?,
            }
            (buf, inside) = (rest, inside.saturating_add(to_u64(len)));
        }
        Ok(())
    }

    /// Takes note of bytes that are lost, and with them of the encryption sectors that they are part of.
    fn lose(&self, part: &Part, layer: &dyn InPlace, buf: &mut [u8], inside: u64) -> Result<()> {
        buf.fill(0);
        let sector = u64::from(part.layer.sector_size());
        let (mut at, end) = (round_down(inside, sector), inside.saturating_add(to_u64(buf.len())));
        while at < end {
            let (start, stored_at) = (part.start.saturating_add(at), layer.stored_at(at));
            self.note_unreadable(BadRun { cause: Cause::Unreadable, start, len: sector, stored_at })?;
            at = at.saturating_add(sector);
        }
        Ok(())
    }

    fn note_unreadable(&self, sector: BadRun) -> Result<()> {
        self.bad_sectors.note(sector);
        let listed = self.bad_sectors.unreadable(sector.start..sector.end()).iter().any(|r| r.start <= sector.start);
        if listed {
            return Ok(());
        }
        let message = "so much of the data file cannot be read that the places are too many to list";
        Err(Error::limit("bad-sectors", message).at(sector.stored_at))
    }

    /// Makes zeroes of what could not be read, where bad sectors are wanted so.
    pub(super) fn blank_unreadable(&self, buf: &mut [u8], offset: u64) {
        if !matches!(self.bad_sectors.policy(), BadSectorPolicy::Zero | BadSectorPolicy::Skip) {
            return;
        }
        for lost in self.bad_sectors.unreadable(offset..offset.saturating_add(to_u64(buf.len()))) {
            blank(buf, offset, lost);
        }
    }

    /// Whether a reader goes on past this error. What comes through a pipe is gone for good.
    fn passes_over(&self, e: &Error) -> bool {
        self.bad_sectors.policy() != BadSectorPolicy::Refuse
            && matches!(e.kind(), ErrorKind::Io | ErrorKind::Corrupt)
            && self.data.pipe().is_none()
    }
}

/// An error of reading says how to go on past it.
fn hinted(e: Error) -> Error {
    if e.kind() == ErrorKind::Io && e.hint().is_none() { e.with_hint(Hint::BadSectors) } else { e }
}
