//! Bounded, thread-safe memory for what a container reads again and again: pages of its tables, and unpacked units.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Condition, Error, Result};
use crate::io::{ReadAt, check_range};
use crate::limits::CONTAINER_CACHE;
use crate::num::to_u64;
use crate::num::{at_most, to_usize};

/// The values that were used last, found by number.
///
/// The lock is held while a slot is looked for, never while a value is made: two threads that miss at once both make
/// it. With this few slots, walking over them costs less than keeping a map and a list.
pub(super) struct Cache<T> {
    slots: Mutex<Slots<T>>,
    most: usize,
}

struct Slots<T> {
    slots: Vec<Slot<T>>,
    clock: u64,
}

struct Slot<T> {
    key: u64,
    used: u64,
    value: T,
}

impl<T: Clone> Cache<T> {
    /// A cache for values of `size` bytes each, [`CONTAINER_CACHE`] bytes together.
    pub(super) fn for_size(size: u64) -> Self {
        let most = at_most(CONTAINER_CACHE.checked_div(size).unwrap_or(CONTAINER_CACHE), 256).max(2);
        Self { slots: Mutex::new(Slots { slots: Vec::new(), clock: 0 }), most }
    }

    /// The value of `key`: the one kept, or the one that `make` gives.
    pub(super) fn get_or_make(&self, key: u64, make: impl FnOnce() -> Result<T>) -> Result<T> {
        if let Some(value) = self.get(key) {
            return Ok(value);
        }
        let value = make()?;
        self.put(key, value.clone());
        Ok(value)
    }

    fn get(&self, key: u64) -> Option<T> {
        let mut inner = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Slots { slots, clock } = &mut *inner;
        let slot = slots.iter_mut().find(|slot| slot.key == key)?;
        *clock = clock.saturating_add(1);
        slot.used = *clock;
        Some(slot.value.clone())
    }

    fn put(&self, key: u64, value: T) {
        let mut inner = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let Slots { slots, clock } = &mut *inner;
        *clock = clock.saturating_add(1);
        let new = Slot { key, used: *clock, value };
        if slots.len() < self.most {
            slots.push(new);
        } else if let Some(oldest) = slots.iter_mut().min_by_key(|slot| slot.used) {
            *oldest = new;
        }
    }
}

/// Small reads of a file's tables, through a cache of its pages.
///
/// No table is ever held whole: what a table takes in memory does not depend on what the image says of its size.
pub(super) struct Pages {
    file: Arc<dyn ReadAt>,
    cache: Cache<Arc<[u8]>>,
}

/// A table entry is 4, 8 or 16 bytes, aligned to its size, so it never crosses a page.
const PAGE: u64 = 64 << 10;

impl Pages {
    pub(super) fn new(file: Arc<dyn ReadAt>) -> Self {
        Self { file, cache: Cache::for_size(PAGE) }
    }

    /// One of `files` that share the memory of one.
    pub(super) fn of_several(file: Arc<dyn ReadAt>, files: usize) -> Self {
        Self { file, cache: Cache::for_size(PAGE.saturating_mul(to_u64(files))) }
    }

    /// A table that the file ends before, or within, is damage of the image and no failed read.
    fn check(&self, offset: u64, len: usize) -> Result<()> {
        check_range(offset, len, self.file.len()).map_err(|_| {
            let end = self.file.len();
            let message = format!("{len} bytes of the image's tables lie at byte {offset}, but the file ends at {end}");
            Error::corrupt("container.truncated", message)
                .at(offset)
                .with_condition(Condition::TableBeyondEnd)
                .with_hint("the image file is cut off or damaged: fetch it again")
        })
    }

    /// The page that holds `offset`, from `offset` on: at least one byte.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "the offset is within the file, and so is the start of its page"
    )]
    fn with<R>(&self, offset: u64, take: impl FnOnce(&[u8]) -> R) -> Result<R> {
        self.check(offset, 1)?;
        let start = offset - offset % PAGE;
        let page = self.cache.get_or_make(start, || {
            let mut page = vec![0; to_usize(PAGE.min(self.file.len() - start))?];
            self.file.read_exact_at(&mut page, start)?;
            Ok(page.into())
        })?;
        let skip = at_most(offset - start, <[u8]>::len(&page));
        Ok(take(page.get(skip..).unwrap_or_default()))
    }

    /// The entry of `N` bytes at `offset`.
    pub(super) fn entry<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let found = self.with(offset, |page| page.first_chunk::<N>().copied())?;
        if let Some(entry) = found {
            return Ok(entry);
        }
        // Only a table that is not aligned, or one at the end of the file, comes here.
        self.check(offset, N)?;
        let mut entry = [0; N];
        self.file.read_exact_at(&mut entry, offset)?;
        Ok(entry)
    }

    /// Hands `take` the entries of `N` bytes from `offset` on, at most `count` and at least one, while it says so.
    ///
    /// Fewer are handed over where they go on in another page.
    pub(super) fn each<const N: usize>(
        &self,
        offset: u64,
        count: u64,
        mut take: impl FnMut([u8; N]) -> Result<bool>,
    ) -> Result<()> {
        let first = self.entry::<N>(offset)?;
        if !take(first)? || count == 1 {
            return Ok(());
        }
        let count = to_usize(count)?;
        self.with(offset, |page| {
            let (entries, _) = page.as_chunks::<N>();
            for entry in entries.iter().take(count).skip(1) {
                if !take(*entry)? {
                    break;
                }
            }
            Ok(())
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_used_last() {
        let cache = Cache::for_size(CONTAINER_CACHE / 2);
        let make = |n: u64| move || Ok(n * 10);
        assert_eq!(cache.get_or_make(1, make(1)).unwrap(), 10);
        assert_eq!(cache.get_or_make(2, make(2)).unwrap(), 20);
        assert_eq!(cache.get_or_make(1, || panic!("1 was kept")).unwrap(), 10);
        assert_eq!(cache.get_or_make(3, make(3)).unwrap(), 30);
        assert_eq!(cache.get_or_make(1, || panic!("1 was used after 2")).unwrap(), 10);
        assert_eq!(cache.get_or_make(2, || Ok(99)).unwrap(), 99, "2 made room for 3");
    }

    #[test]
    fn entries_come_from_pages_and_end_with_the_file() {
        let bytes: Vec<u8> = (0..PAGE + 100).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let pages = Pages::new(Arc::new(bytes.clone()));
        assert_eq!(pages.entry::<4>(PAGE).unwrap(), bytes[65536..65540]);
        assert_eq!(pages.entry::<4>(PAGE - 2).unwrap(), bytes[65534..65538], "across two pages");
        for beyond in [PAGE + 96, PAGE + 100, u64::MAX] {
            assert_eq!(pages.entry::<8>(beyond).unwrap_err().rule(), "container.truncated");
        }
        let mut seen = Vec::new();
        pages
            .each::<4>(PAGE + 80, 9, |entry| {
                seen.push(entry);
                Ok(true)
            })
            .unwrap();
        assert_eq!(seen.concat(), bytes[65616..65636], "5 whole entries are left in the file");
        assert!(pages.each::<4>(PAGE + 100, 1, |_| Ok(true)).is_err());
    }
}
