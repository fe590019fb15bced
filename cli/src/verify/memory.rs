//! How much memory the key derivations of several images take together.

use std::sync::{Condvar, Mutex, PoisonError};

use unluks::luks::metadata::{Kdf, KeyslotKind, Metadata};

/// Bytes that are shared among images. One that wants more than all of them has its turn alone.
pub struct Memory {
    budget: u64,
    taken: Mutex<u64>,
    freed: Condvar,
}

/// Bytes that somebody has until this is dropped.
pub struct Taken<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Memory {
    pub fn new(budget: u64) -> Self {
        Self { budget, taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until so many bytes are free.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut u64| *taken > 0 && taken.saturating_add(bytes) > self.budget;
        let mut taken = self.freed.wait_while(taken, is_full).unwrap_or_else(PoisonError::into_inner);
        *taken = taken.saturating_add(bytes);
        Taken { memory: self, bytes }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut taken = self.memory.taken.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.saturating_sub(self.bytes);
        self.memory.freed.notify_all();
    }
}

/// The most bytes that the derivation of one of an image's keyslots takes: they are tried one after the other.
pub fn wanted(metadata: &Metadata) -> u64 {
    let of = |kind: &KeyslotKind| match kind {
        KeyslotKind::Luks2(slot) => match &slot.kdf {
            Kdf::Argon2 { memory, .. } => memory.saturating_mul(1024),
            _ => 0,
        },
        _ => 0,
    };
    metadata.keyslots.values().map(|keyslot| of(&keyslot.kind)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_together_than_there_is_and_too_much_waits_for_its_turn() {
        let memory = Memory::new(10);
        let (now, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for bytes in [4, 4, 4, 25, 4, 6, 25] {
                let (memory, now, most) = (&memory, &now, &most);
                scope.spawn(move || {
                    let taken = memory.take(bytes);
                    let together = now.fetch_add(bytes, Ordering::SeqCst) + bytes;
                    assert!(together <= 10 || together == bytes, "{together}");
                    most.fetch_max(together, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(3));
                    now.fetch_sub(bytes, Ordering::SeqCst);
                    drop(taken);
                });
            }
        });
        assert_eq!(most.into_inner(), 25);
    }
}
