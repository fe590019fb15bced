//! What a container says of itself that reading its disk does not show: how often its parts are used, and which hash the
//! disk had when it was made.

use std::sync::Arc;

use crate::error::Result;
use crate::io::ReadAt;
use crate::progress::Progress;

/// What there is to check, besides the disk itself.
#[derive(Clone, Default)]
pub struct Checks {
    /// Books that have to agree with the tables they are kept of.
    pub books: Vec<Arc<dyn Bookkeeping>>,
    /// Hashes that were stored with the disk.
    pub recorded: Vec<Recorded>,
}

impl Checks {
    /// Takes those of other files, which say whose they are.
    pub(crate) fn join(&mut self, other: Self) {
        self.books.extend(other.books);
        self.recorded.extend(other.recorded);
    }

    /// The same, as those of the file `name`.
    pub(crate) fn of(self, name: &str) -> Self {
        let of =
            |book: Arc<dyn Bookkeeping>| -> Arc<dyn Bookkeeping> { Arc::new(OfAnother { name: name.into(), book }) };
        let books = self.books.into_iter().map(of).collect();
        let named = |r: Recorded| Recorded { by: format!("{} in {name}", r.by), at: None, ..r };
        Self { books, recorded: self.recorded.into_iter().map(named).collect() }
    }
}

/// A hash that a container keeps of its disk, or of a stream that the disk is made of.
#[derive(Clone)]
pub struct Recorded {
    /// What keeps it, for messages: `the hash section`.
    pub by: String,
    /// The hash's name, in lower case: `md5`, `sha1`.
    pub algorithm: &'static str,
    /// The hash in lower-case hex.
    pub hex: String,
    /// Where it is stored in the file, if that is one place.
    pub at: Option<u64>,
    /// Of what it is.
    pub of: Arc<dyn ReadAt>,
}

/// A container's books, checked against what they are kept of.
pub trait Bookkeeping: Send + Sync {
    /// What does not agree.
    ///
    /// # Errors
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) where somebody stopped it, and [`ErrorKind::Io`](crate::ErrorKind::Io).
    fn check(&self, progress: &Progress) -> Result<Vec<Doubt>>;
}

/// How much a doubt weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Room is lost, or something was not checked.
    Note,
    /// Something is wrong that reading the disk does not meet, or says itself where it does.
    Warning,
    /// Some of the disk's bytes cannot be what they were.
    Error,
}

/// What does not agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// How much it weighs.
    pub weight: Weight,
    /// The rule, as errors name them: `qcow2.refcount`.
    pub rule: &'static str,
    /// The first byte in the file that it is about.
    pub at: Option<u64>,
    /// One sentence.
    pub message: String,
}

/// Books of another file than the image's own: their places are not the image's.
struct OfAnother {
    name: String,
    book: Arc<dyn Bookkeeping>,
}

impl Bookkeeping for OfAnother {
    fn check(&self, progress: &Progress) -> Result<Vec<Doubt>> {
        let place = |at: Option<u64>| at.map_or(String::new(), |at| format!(" (at byte {at} of it)"));
        let named = |d: Doubt| Doubt { at: None, message: format!("{}: {}{}", self.name, d.message, place(d.at)), ..d };
        Ok(self.book.check(progress)?.into_iter().map(named).collect())
    }
}
