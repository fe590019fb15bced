//! What was damaged in a header, and what stands in for it.

use std::fmt;
use std::ops::Range;

use crate::error::Error;
use crate::num::{to_u64, to_usize};

/// How a header was read that has lost some of its bytes.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovery {
    /// The rule that the header breaks as it lies there; `None` where cryptsetup would open it, too.
    pub error: Option<Error>,
    /// What is missing or damaged, and what stands in for it, one line.
    pub missing: String,
    /// What lies over the header's start now, where that is known.
    pub lies_there: Option<&'static str>,
    /// Other bytes that were overwritten with it, counted from the container's start: a GPT's backup at the end.
    pub overwritten: Vec<Range<u64>>,
    /// How many ciphers there may be, where the name of it is gone: they are tried in order, and the digest proves one.
    #[cfg_attr(not(feature = "unlock"), expect(dead_code, reason = "unlocking tries them"))]
    pub(crate) ciphers: usize,
    pub(super) patches: Vec<Patch>,
}

impl Recovery {
    /// Lays what was mended over `bytes`, which were read from `offset` on.
    pub fn mend(&self, bytes: &mut [u8], offset: u64) {
        self.patches.iter().for_each(|patch| patch.lay_over(bytes, offset));
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.missing)?;
        self.lies_there.map_or(Ok(()), |what| write!(f, "; {what} lies there now"))
    }
}

/// Bytes that stand in for damaged ones.
#[derive(Debug)]
pub(super) struct Patch {
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
}

impl Patch {
    pub(super) fn lay_over(&self, buf: &mut [u8], offset: u64) {
        let end = self.at.saturating_add(to_u64(self.bytes.len()));
        let (from, to) = (self.at.max(offset), end.min(offset.saturating_add(to_u64(buf.len()))));
        let within = |base: u64| Some(to_usize(from.checked_sub(base)?).ok()?..to_usize(to.checked_sub(base)?).ok()?);
        if let (true, Some(place), Some(part)) = (from < to, within(offset), within(self.at))
            && let (Some(place), Some(part)) = (buf.get_mut(place), self.bytes.get(part))
        {
            place.copy_from_slice(part);
        }
    }
}
