//! Page-aligned buffers that are used again, and wiped before they are given back to the system.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use memmap2::MmapMut;
use zeroize::Zeroize;

use super::lock;
use crate::error::{Error, Result};

/// A pool of buffers of one size. It grows to what is in use at once, which the users bound.
pub struct Pool {
    size: usize,
    free: Mutex<Vec<MmapMut>>,
}

/// A buffer of the pool, as much of it as is in use. It goes back to the pool when it is dropped.
pub struct Chunk<'p> {
    pages: Option<MmapMut>,
    len: usize,
    pool: &'p Pool,
}

impl Pool {
    pub fn new(size: usize) -> Self {
        Self { size, free: Mutex::default() }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// A buffer of the pool's size, with whatever it held last.
    pub fn take(&self) -> Result<Chunk<'_>> {
        let free = lock(&self.free).pop();
        let pages = match free {
            Some(pages) => pages,
            None => MmapMut::map_anon(self.size).map_err(|e| Error::io("allocating a buffer", e))?,
        };
        Ok(Chunk { pages: Some(pages), len: self.size, pool: self })
    }

    pub fn copy_of(&self, other: &Chunk<'_>) -> Result<Chunk<'_>> {
        let mut copy = self.take()?;
        copy.resize(other.len());
        copy.copy_from_slice(other);
        Ok(copy)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for pages in lock(&self.free).iter_mut() {
            pages.zeroize();
        }
    }
}

impl Chunk<'_> {
    /// Uses the first `len` bytes; never more than the pool's size.
    pub fn resize(&mut self, len: usize) {
        self.len = len.min(self.pool.size);
    }
}

impl Deref for Chunk<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_deref().map_or(&[], |p| &p[..self.len])
    }
}

impl DerefMut for Chunk<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.pages.as_deref_mut().map_or(&mut [], |p| &mut p[..len])
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            lock(&self.pool.free).push(pages);
        }
    }
}
