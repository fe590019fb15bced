//! A look at places of a source that may be damaged.

use std::cell::RefCell;

use super::ReadAt;
use crate::error::Error;

/// Reads for detection: what cannot be read is not there.
///
/// Whatever is looked for may be in another place that can be read, so a failed read ends nothing. The first failure is
/// kept, for a note, and for the error where nothing was found at all.
pub(crate) struct Peek<'a> {
    source: &'a dyn ReadAt,
    failure: RefCell<Option<Error>>,
}

impl<'a> Peek<'a> {
    pub(crate) fn new(source: &'a dyn ReadAt) -> Self {
        Self { source, failure: RefCell::new(None) }
    }

    /// The `N` bytes at `offset`, where the source has them.
    pub(crate) fn bytes<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, offset).then_some(bytes)
    }

    /// Whether `magic` is at `offset`.
    pub(crate) fn has(&self, magic: &[u8], offset: u64) -> bool {
        let mut found = vec![0; magic.len()];
        self.fill(&mut found, offset) && found == magic
    }

    /// Whether `magic` begins `distance` bytes before the source's end.
    pub(crate) fn has_before_end(&self, magic: &[u8], distance: u64) -> bool {
        self.source.len().checked_sub(distance).is_some_and(|at| self.has(magic, at))
    }

    fn fill(&self, buf: &mut [u8], offset: u64) -> bool {
        // A source that is too short is no failure.
        if super::check_range(offset, buf.len(), self.source.len()).is_err() {
            return false;
        }
        match self.source.read_exact_at(buf, offset) {
            Ok(()) => true,
            Err(e) => {
                self.fail(e);
                false
            }
        }
    }

    /// Keeps a failure, unless there was one before it.
    pub(crate) fn fail(&self, e: Error) {
        self.failure.borrow_mut().get_or_insert(e);
    }

    /// The first failure since it was asked for last.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.borrow_mut().take()
    }
}
