//! Who is told of key derivations, which may take minutes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A key derivation that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The keyslot.
    pub keyslot: u32,
    /// The number of the passphrase among those of the key, from 0 on.
    pub candidate: usize,
    /// How many of those there are.
    pub candidates: usize,
    /// How long it takes on a slow machine.
    pub time: Duration,
}

/// What is called as each key derivation begins, on the thread that makes it.
#[derive(Clone)]
pub struct Watch(Arc<dyn Fn(Attempt) + Send + Sync>);

impl Watch {
    /// Calls `tell` as each begins. It must not take long: the derivation waits for it.
    pub fn new(tell: impl Fn(Attempt) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(super) fn tell(&self, attempt: Attempt) {
        (self.0)(attempt);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
