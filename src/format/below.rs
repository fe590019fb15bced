//! The disk below another one: that of an image's parent.

use std::sync::Arc;

use crate::error::Result;
use crate::io::{Extent, ReadAt};
use crate::num::at_most;

/// What a disk has where the image on top of it says nothing: the bytes of the parent, and zeroes behind its end.
#[derive(Clone)]
pub(super) struct Below {
    disk: Arc<dyn ReadAt>,
    /// What errors of it have in front of them.
    name: Arc<str>,
    start: u64,
}

impl Below {
    /// The disk of the file `name`; that of the image itself where the name is empty.
    pub(super) fn new(disk: Arc<dyn ReadAt>, name: &str) -> Self {
        let name = if name.is_empty() { "the parent".into() } else { format!("the parent {name}") };
        Self { disk, name: name.into(), start: 0 }
    }

    /// The same from `start` on, for a part of the disk.
    pub(super) fn from(&self, start: u64) -> Self {
        Self { start: self.start.saturating_add(start), ..self.clone() }
    }

    /// Fills `buf` from byte `offset` of the disk on.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let at = self.start.saturating_add(offset);
        let held = at_most(self.disk.len().saturating_sub(at), buf.len());
        let (here, behind) = buf.split_at_mut(held);
        behind.fill(0);
        if here.is_empty() { Ok(()) } else { self.disk.read_exact_at(here, at).map_err(|e| e.within(&self.name)) }
    }

    /// What lies at byte `offset` of the disk, `len` bytes of it at most.
    pub(super) fn extent(&self, offset: u64, len: u64) -> Result<Extent> {
        let at = self.start.saturating_add(offset);
        if at >= self.disk.len() {
            return Ok(Extent { len, zero: true });
        }
        let extent = self.disk.extent_at(at)?;
        Ok(Extent { len: extent.len.min(len), ..extent })
    }

    pub(super) fn will_need(&self, offset: u64, len: u64) {
        let at = self.start.saturating_add(offset);
        if at < self.disk.len() {
            self.disk.will_need(at, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_its_end_are_zeroes() {
        let below = Below::new(Arc::new(vec![7u8; 10]), "").from(4);
        let mut found = [9; 8];
        below.read(&mut found, 2).unwrap();
        assert_eq!(found, [7, 7, 7, 7, 0, 0, 0, 0]);
        assert_eq!(below.extent(2, 3).unwrap(), Extent { len: 3, zero: false });
        assert_eq!(below.extent(2, 9).unwrap(), Extent { len: 4, zero: false });
        assert_eq!(below.extent(6, 9).unwrap(), Extent { len: 9, zero: true });
        below.read(&mut found, u64::MAX).unwrap();
        assert_eq!(found, [0; 8]);
    }
}
