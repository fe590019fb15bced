//! Several files, or parts of them, one after the other.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::io::{Extent, ReadAt, check_range};
use crate::num::to_u64;

/// Sources that lie behind each other as one.
pub(crate) struct Joined {
    /// Where each starts, and what it is; none is empty.
    pub parts: Vec<(u64, Arc<dyn ReadAt>)>,
    len: u64,
}

impl Joined {
    pub(crate) fn new(sources: impl IntoIterator<Item = Arc<dyn ReadAt>>) -> Result<Self> {
        let mut joined = Self { parts: Vec::new(), len: 0 };
        for source in sources {
            let len = source.len();
            joined.parts.push((joined.len, source));
            let sum = joined.len.checked_add(len);
            joined.len = sum.ok_or_else(|| Error::invalid("the files of the set are too long together"))?;
        }
        Ok(joined)
    }

    /// The part that holds `offset`, with its number, and where in it that is.
    fn part(&self, offset: u64) -> Option<(usize, &Arc<dyn ReadAt>, u64)> {
        let n = self.parts.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, part) = self.parts.get(n)?;
        Some((n, part, offset.checked_sub(*start)?))
    }
}

impl ReadAt for Joined {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.len)?;
        let (mut rest, mut offset) = (buf, offset);
        while !rest.is_empty() {
            let Some((_, part, inside)) = self.part(offset) else { break };
            let held = part.len().saturating_sub(inside);
            let len = rest.len().min(usize::try_from(held).unwrap_or(usize::MAX));
            let (here, more) = rest.split_at_mut(len);
            part.read_exact_at(here, inside)?;
            offset = offset.saturating_add(to_u64(len));
            rest = more;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        match self.part(offset) {
            Some((_, part, inside)) => part.extent_at(inside),
            None => Ok(Extent { len: self.len.saturating_sub(offset), zero: false }),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        if let Some((_, part, inside)) = self.part(offset) {
            part.will_need(inside, len);
        }
    }

    fn wont_need(&self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        for (start, part) in &self.parts {
            let (from, to) = (offset.max(*start), end.min(start.saturating_add(part.len())));
            if from < to {
                part.wont_need(from.saturating_sub(*start), to.saturating_sub(from));
            }
        }
    }
}

/// So many bytes of zeroes, which lie nowhere.
pub(super) struct Zeroes(pub u64);

impl ReadAt for Zeroes {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        check_range(offset, buf.len(), self.0)?;
        buf.fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(Extent { len: self.0.saturating_sub(offset), zero: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_behind_each_other() {
        let parts: [Arc<dyn ReadAt>; 4] =
            [Arc::new(vec![1u8; 3]), Arc::new(Zeroes(2)), Arc::new(Vec::new()), Arc::new(vec![3u8; 4])];
        let joined = Joined::new(parts).unwrap();
        let mut all = [9; 9];
        joined.read_exact_at(&mut all, 0).unwrap();
        assert_eq!(all, [1, 1, 1, 0, 0, 3, 3, 3, 3]);
        for from in 0..9 {
            let mut rest = vec![9; 9 - from];
            joined.read_exact_at(&mut rest, to_u64(from)).unwrap();
            assert_eq!(rest, all[from..]);
        }
        assert_eq!(joined.extent_at(4).unwrap(), Extent { len: 1, zero: true });
        assert_eq!(joined.extent_at(5).unwrap(), Extent { len: 4, zero: false });
        assert!(joined.read_exact_at(&mut [0; 1], 9).is_err());
    }
}
