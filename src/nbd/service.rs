//! An export and how it is served: what all connections share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use super::tls::Tls;
use crate::error::{Error, Result};
use crate::io::ReadAt;
use crate::limits::{
    NBD_CONNECTIONS, NBD_CONNECTIONS_PER_ADDRESS, NBD_HELPERS_MAX, NBD_IDLE_YIELD, NBD_STRING_MAX, NBD_THREADS,
    NBD_WHOLE_REPLIES_MAX,
};

/// What is served, and under which name.
pub struct Export {
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) source: Arc<dyn ReadAt>,
    len: u64,
}

impl Export {
    /// An export called `name`. The empty name, which clients send that ask for none, finds it too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where the name or the description has more than
    /// 4096 bytes or a NUL, or the source more bytes than the protocol can count (2^63 - 1).
    pub fn new(name: impl Into<String>, description: Option<String>, source: Arc<dyn ReadAt>) -> Result<Self> {
        let (name, len) = (name.into(), source.len());
        for (what, text) in [("name", Some(&name)), ("description", description.as_ref())] {
            if text.is_some_and(|text| text.len() > NBD_STRING_MAX || text.contains('\0')) {
                return Err(Error::invalid(format!(
                    "an export's {what} has at most {NBD_STRING_MAX} bytes and no NUL"
                )));
            }
        }
        if i64::try_from(len).is_err() {
            return Err(Error::invalid(format!("NBD serves at most {} bytes, not {len}", i64::MAX)));
        }
        Ok(Self { name, description, source, len })
    }

    /// How many bytes the export has.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the export has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_called(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.name.as_bytes()
    }
}

/// Takes lines about what happens: connections, never a byte of data.
pub type Log = Arc<dyn Fn(fmt::Arguments<'_>) + Send + Sync>;

/// An export with its settings, and what its connections share.
pub struct Service {
    pub(super) export: Export,
    pub(super) threads: usize,
    pub(super) cores: usize,
    pub(super) max_connections: usize,
    pub(super) max_per_address: usize,
    pub(super) idle_timeout: Option<Duration>,
    /// How long a client was idle that makes room for another.
    pub(super) idle_yield: Duration,
    pub(super) helpers: Budget,
    pub(super) whole_replies: Budget,
    pub(super) tls: Option<Tls>,
    log: Option<Log>,
    stopping: AtomicBool,
}

impl Service {
    /// Serves `export` without TLS, with the defaults of [`limits`](crate::limits).
    pub fn new(export: Export) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).max(2);
        Self {
            export,
            threads: NBD_THREADS,
            cores,
            max_connections: NBD_CONNECTIONS,
            max_per_address: NBD_CONNECTIONS_PER_ADDRESS,
            idle_timeout: None,
            idle_yield: NBD_IDLE_YIELD,
            helpers: Budget::new(NBD_HELPERS_MAX),
            whole_replies: Budget::new(NBD_WHOLE_REPLIES_MAX),
            tls: None,
            log: None,
            stopping: AtomicBool::new(false),
        }
    }

    /// The same, but clients must use TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same, with at most `threads` (1 or more) threads for each connection.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// The same, with at most `connections` (1 or more) at the same time. With one, clients are told not to try more.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// The same, with at most `connections` (1 or more) at the same time from one address: of IPv6, from one network of
    /// 64 bits, which is what one machine may have. Clients of unix sockets have no address.
    #[must_use]
    pub fn with_max_per_address(mut self, connections: usize) -> Self {
        self.max_per_address = connections.max(1);
        self
    }

    /// The same, but a client is hung up on that sent no request, and took nothing of a reply, for this long.
    ///
    /// Without it a client may be silent for as long as it likes: a kernel may have a disk mounted that nobody reads.
    /// But where a new client finds no place, the one that was silent longest makes room, if that was longer than
    /// [`NBD_IDLE_YIELD`](crate::limits::NBD_IDLE_YIELD).
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The same, with a place for lines about what happens.
    #[must_use]
    pub fn with_log(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// The export.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// Whether clients must use TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// From now on, requests are answered with ESHUTDOWN. Those that are being worked on are finished.
    pub(super) fn stop(&self) {
        self.stopping.store(true, SeqCst);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    pub(super) fn log(&self, line: fmt::Arguments<'_>) {
        if let Some(log) = &self.log {
            log(line);
        }
    }
}

/// So much of something that connections share: threads, bytes.
pub(super) struct Budget {
    left: AtomicUsize,
}

/// A part of a [`Budget`], given back when dropped.
pub(super) struct Permit<'a> {
    budget: &'a Budget,
    count: usize,
}

impl Budget {
    pub(super) fn new(count: usize) -> Self {
        Self { left: AtomicUsize::new(count) }
    }

    /// Takes `count`, where as much is left.
    pub(super) fn take(&self, count: usize) -> Option<Permit<'_>> {
        self.left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(count)).ok()?;
        Some(Permit { budget: self, count })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.budget.left.fetch_add(self.count, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_what_it_has_and_takes_it_back() {
        let budget = Budget::new(3);
        let two = budget.take(2).unwrap();
        assert!(budget.take(2).is_none());
        drop(two);
        assert!(budget.take(3).is_some());
    }

    #[test]
    fn names_and_lengths_that_the_protocol_cannot_carry_are_refused() {
        let source = || Arc::new(vec![0u8; 4]);
        assert!(Export::new("x".repeat(4096), None, source()).is_ok());
        assert!(Export::new("x".repeat(4097), None, source()).is_err());
        assert!(Export::new("a\0b", None, source()).is_err());
        assert!(Export::new("", Some("\0".into()), source()).is_err());
    }
}
