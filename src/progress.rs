//! How far long work is, and how it is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How far a stream, a scan or a download is; shared with whoever shows it or stops it.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    /// Progress of its own, which is stopped when `other` is.
    pub fn stopped_with(other: &Self) -> Self {
        Self { bytes: AtomicU64::new(0), cancelled: Arc::clone(&other.cancelled) }
    }

    /// Bytes of plaintext that were written.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that need not be written again.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Stops the stream at the next chunk.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// What [`Progress::cancel`] sets, for a signal handler to set.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether somebody stopped the stream.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}
