//! What the server sees of a connection while others serve it: whether it waits for its client, and since when.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::num::saturated;

/// What a connection does.
pub(super) struct Activity {
    start: Instant,
    /// When the client was last heard of, in milliseconds from `start` on.
    last: AtomicU64,
    /// Requests that were read and not answered yet.
    busy: AtomicUsize,
    /// Threads that hand the client bytes, or wait for the rest of a request.
    waiting: AtomicUsize,
}

impl Default for Activity {
    fn default() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0), busy: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }
}

impl Activity {
    /// A whole request has come, or the client took a piece of a reply. Bytes of a request that is not whole are none: a
    /// client that sends one now and then would keep its place with them.
    pub(super) fn touch(&self) {
        self.last.store(self.now(), SeqCst);
    }

    pub(super) fn requested(&self) {
        self.busy.fetch_add(1, SeqCst);
        self.touch();
    }

    pub(super) fn answered(&self, requests: usize) {
        self.touch();
        self.busy.fetch_sub(requests, SeqCst);
    }

    /// Whether requests are under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(SeqCst) > 0
    }

    /// Until what this gives is dropped, a thread waits for the client, though there are requests under way.
    pub(super) fn wait(&self) -> Wait<'_> {
        self.waiting.fetch_add(1, SeqCst);
        Wait(self)
    }

    /// How long the client has let the server wait: it sends no request, or takes no reply. A client that waits for the
    /// server lets nobody wait, however long a slow disk takes.
    pub(super) fn idle(&self) -> Duration {
        if self.is_busy() && self.waiting.load(SeqCst) == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.now().saturating_sub(self.last.load(SeqCst)))
    }

    fn now(&self) -> u64 {
        saturated(self.start.elapsed().as_millis())
    }
}

/// A thread waits for the client.
pub(super) struct Wait<'a>(&'a Activity);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_lets_the_server_wait_is_idle() {
        let long = Duration::from_millis(30);
        let activity = Activity::default();
        std::thread::sleep(long);
        assert!(activity.idle() >= long && !activity.is_busy());
        activity.requested();
        std::thread::sleep(long);
        assert_eq!(activity.idle(), Duration::ZERO, "the server is at work");
        let wait = activity.wait();
        assert!(activity.idle() >= long, "the client takes no reply");
        activity.touch();
        assert!(activity.idle() < long);
        drop(wait);
        activity.answered(1);
        assert!(activity.idle() < long && !activity.is_busy());
    }
}
