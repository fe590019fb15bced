//! How many threads there is room for.

use rustix::process::{Resource, getrlimit};

/// The address space that one thread may take: its stack, its signal stack, and its share of the heap.
const THREAD: u64 = 8 << 20;

/// As many of `wanted` threads, the one that asks among them, as a limit on the address space (`ulimit -v`) leaves
/// room for. Always one.
///
/// A thread that starts and then finds no memory for its signal stack ends the process: so what is left is not tried
/// out, but counted before.
pub fn room(wanted: usize) -> usize {
    match getrlimit(Resource::As).current {
        Some(limit) => wanted.min(fitting(limit, taken().unwrap_or(limit))),
        None => wanted,
    }
}

/// Half of what is left goes to threads, the other half to what they work on.
fn fitting(limit: u64, taken: u64) -> usize {
    let more = limit.saturating_sub(taken) / 2 / THREAD;
    usize::try_from(more).unwrap_or(usize::MAX).saturating_add(1)
}

/// The bytes of address space that this process has, where the system says: proc(5), `statm`.
pub fn taken() -> Option<u64> {
    let said = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = said.split(' ').next()?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_leaves_fewer_threads_and_always_one() {
        assert_eq!(fitting(1 << 30, 1 << 29), 33);
        assert_eq!(fitting(1 << 30, 1 << 30), 1);
        assert_eq!(fitting(0, u64::MAX), 1);
        assert!(taken().is_some_and(|bytes| bytes > 1 << 20));
        assert!((1..=3).contains(&room(3)));
    }
}
