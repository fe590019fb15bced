//! Positioned reads of a database's file, which go through the reader of the file system.

use crate::error::{Error, Result};
use crate::limits::VERIFY_PACKAGES_TEXT_MAX;
use crate::num::{at_most, to_u64, to_usize};
use crate::reader::FileSystem;
use crate::verify::packages::Held;

/// Read at a time: pages of a database lie beside each other mostly.
const WINDOW: u64 = 256 << 10;

/// A file of the database.
pub struct Source<'f, 'h, 'a, 'p> {
    pub fs: &'f mut dyn FileSystem,
    pub held: &'h mut Held<'a, 'p>,
    path: Vec<u8>,
    len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'f, 'h, 'a, 'p> Source<'f, 'h, 'a, 'p> {
    pub fn new(fs: &'f mut dyn FileSystem, held: &'h mut Held<'a, 'p>, path: Vec<u8>, len: u64) -> Self {
        Self { fs, held, path, len, window: Vec::new(), window_at: 0 }
    }

    pub fn path(&self) -> &[u8] {
        &self.path
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    /// So many bytes from `at` on.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where the file ends before;
    /// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) for more than a header may have.
    pub fn read(&mut self, at: u64, len: u64) -> Result<Vec<u8>> {
        if len > VERIFY_PACKAGES_TEXT_MAX {
            let message = format!("a part of it has {len} bytes; {VERIFY_PACKAGES_TEXT_MAX} are read");
            return Err(Error::limit("verify.text", message));
        }
        if at.checked_add(len).is_none_or(|end| end > self.len) {
            let message = format!("{len} bytes at byte {at} are wanted, and the file has {}", self.len);
            return Err(Error::corrupt("packages.rpm", message));
        }
        let mut bytes = Vec::with_capacity(to_usize(len)?);
        let mut from = at;
        while to_u64(bytes.len()) < len {
            let skip = from.checked_sub(self.window_at).filter(|skip| *skip < to_u64(self.window.len()));
            let Some(skip) = skip else {
                self.fill(from)?;
                continue;
            };
            let held = self.window.get(at_most(skip, self.window.len())..).unwrap_or_default();
            let take = at_most(len.saturating_sub(to_u64(bytes.len())), held.len());
            bytes.extend(held.get(..take).unwrap_or_default());
            from = from.saturating_add(to_u64(take));
        }
        Ok(bytes)
    }

    /// Reads the window that has `at`, which is in the file.
    fn fill(&mut self, at: u64) -> Result<()> {
        self.window_at = at.saturating_sub(at.checked_rem(WINDOW).unwrap_or(0));
        self.window.resize(at_most(self.len.saturating_sub(self.window_at), at_most(WINDOW, usize::MAX)), 0);
        let mut done = 0;
        while let Some(rest) = self.window.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let read = self.fs.read_at(&self.path, self.window_at.saturating_add(to_u64(done)), rest)?;
            if read == 0 {
                return Err(Error::corrupt("packages.rpm", "the file is shorter than its length"));
            }
            done = done.saturating_add(read);
        }
        self.held.meter.take(self.window.len())
    }
}

/// Which pages of a database were gone into: none is twice, so that every walk ends.
pub struct Pages {
    seen: Vec<u64>,
    count: u64,
}

impl Pages {
    /// For a file of `count` pages.
    pub fn new(count: u64) -> Result<Self> {
        let words = to_usize(count.div_ceil(64).saturating_add(1))?;
        // A bit for each page of at least 512 bytes of a file that the file system has.
        if words > 1 << 24 {
            return Err(Error::limit("verify.text", format!("the database has {count} pages")));
        }
        Ok(Self { seen: vec![0; words], count })
    }

    /// Goes into a page, counted from 0 on.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where there is none such, or it was gone into before.
    pub fn enter(&mut self, page: u64) -> Result<()> {
        let word = usize::try_from(page / 64).ok().filter(|_| page < self.count).and_then(|n| self.seen.get_mut(n));
        let bit = 1u64 << (page % 64);
        match word {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                Ok(())
            }
            Some(_) => Err(Error::corrupt("packages.rpm", format!("two places lead to page {page}"))),
            None => Err(Error::corrupt("packages.rpm", format!("page {page} is not among its {}", self.count))),
        }
    }
}
