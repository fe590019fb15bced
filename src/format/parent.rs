//! Images that hold what was changed on top of another one, their parent.
//!
//! # Security
//! An image says what its parent is called, or which identity it has. That is only compared with the files that the user
//! named: nothing is ever opened by an image's word.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::below::Below;
use super::checks::Checks;
use super::{Contents, Format, Opened, Options, Set, open_below};
use crate::error::{Error, Hint, Result};
use crate::io::ReadAt;
use crate::limits::CONTAINER_PARENTS_MAX;

/// A file that was named besides the image: a parent, or a further disk of a set.
#[derive(Clone)]
pub struct Named {
    /// What messages call it; its last component is compared with the name that an image has for its parent.
    pub name: String,
    /// The file, byte for byte; the first of a set.
    pub file: Arc<dyn ReadAt>,
    /// The files behind it.
    pub segments: Vec<Arc<dyn ReadAt>>,
    /// What those are.
    pub set: Set,
    used: Arc<AtomicBool>,
}

impl Named {
    /// A file of its own.
    pub fn new(name: impl Into<String>, file: Arc<dyn ReadAt>) -> Self {
        Self { name: name.into(), file, segments: Vec::new(), set: Set::Segments, used: Arc::default() }
    }

    /// Whether an image, an array or a volume group that was opened since is made of it.
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Opens it as one of `options.with`; `chain` has the number that it has there, behind those on top of it.
    fn open(&self, options: &Options, format: Option<Format>, chain: &[usize]) -> Result<Opened> {
        let options = Options {
            format,
            segments: self.segments.clone(),
            set: self.set,
            max_size: options.max_size,
            with: options.with.clone(),
            snapshot: None,
        };
        open_below(Arc::clone(&self.file), options, chain)
    }

    fn last_component(&self) -> &str {
        last_component(&self.name)
    }
}

/// Opens the file number `n` of `options.with`, which may lie on top of others of them.
///
/// # Errors
/// As [`super::open`]; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for one that encrypts its clusters.
pub(crate) fn open_disk(options: &Options, n: usize) -> Result<Option<(Arc<dyn ReadAt>, Checks)>> {
    let Some(named) = options.with.get(n) else { return Ok(None) };
    let opened = named.open(options, None, &[n]).map_err(|e| e.within(&named.name))?;
    match opened.contents {
        Contents::Disk(disk) => Ok(Some((disk, opened.checks.of(&named.name)))),
        Contents::Qcow2Luks(_) => {
            Err(Error::invalid("it encrypts its clusters itself, and is no part of a set").within(&named.name))
        }
    }
}

fn last_component(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// What leads on from the error of a parent that is not there.
pub(super) fn give_it(kin: &Kin<'_>) -> Hint {
    if kin.options.with.is_empty() {
        Hint::NameParent
    } else {
        Hint::All(vec![
            Hint::NameParent,
            "the one that is meant has this name; a link may give it to another file".into(),
        ])
    }
}

/// What an image says of its parent.
pub(super) enum Wanted<'a> {
    /// What it is called, and its format, where the image says that.
    ///
    /// Nothing proves that it is the right one, and a wrong one gives wrong bytes: so no file of another name is taken.
    Name { name: &'a str, format: Option<Format> },
    /// What a file of the format has to have.
    Proven { format: Format, by: &'a dyn Fn(&Arc<dyn ReadAt>) -> bool },
    /// It was found by its number among the files.
    Chosen(usize),
}

/// The files that an image may have as its parent.
pub(super) struct Kin<'a> {
    pub options: &'a Options,
    /// Which of them are above this image in its chain.
    pub chain: &'a [usize],
    /// What those that were opened say of themselves.
    pub checks: RefCell<Checks>,
}

impl<'a> Kin<'a> {
    pub(super) fn new(options: &'a Options, chain: &'a [usize]) -> Self {
        Self { options, chain, checks: RefCell::default() }
    }

    /// The files that are not above this image, with their numbers.
    pub(super) fn free(&self) -> impl Iterator<Item = (usize, &'a Named)> + use<'a, '_> {
        self.options.with.iter().enumerate().filter(|(n, _)| !self.chain.contains(n))
    }

    /// The parent that `wanted` describes, opened; `None` where no file that was named is it.
    pub(super) fn parent(&self, wanted: &Wanted<'_>, notes: &mut Vec<String>) -> Result<Option<Below>> {
        let Some((n, format)) = self.find(wanted) else { return Ok(None) };
        if self.chain.len() >= CONTAINER_PARENTS_MAX {
            let message = format!("more than {CONTAINER_PARENTS_MAX} images lie on top of each other");
            return Err(Error::limit("container.parents", message));
        }
        let Some(named) = self.options.with.get(n) else { return Ok(None) };
        let chain: Vec<usize> = self.chain.iter().copied().chain([n]).collect();
        let opened = named.open(self.options, format, &chain);
        let opened = opened.map_err(|e| e.within(format_args!("the parent {}", named.name)))?;
        let Contents::Disk(disk) = opened.contents else {
            let message =
                format!("the parent {} encrypts its clusters itself, and is no parent of this image", named.name);
            return Err(Error::unsupported("container.parent", message));
        };
        named.mark_used();
        notes.push(format!(
            "on top of {}, {} image with a disk of {} bytes",
            named.name,
            opened.format.with_article(),
            disk.len()
        ));
        notes.extend(opened.notes);
        self.checks.borrow_mut().join(opened.checks.of(&format!("the parent {}", named.name)));
        Ok(Some(Below::new(disk, &named.name)))
    }

    /// The number of the parent among the files, and its format where that is known.
    fn find(&self, wanted: &Wanted<'_>) -> Option<(usize, Option<Format>)> {
        let by = |fits: &dyn Fn(&Named) -> bool| self.free().find(|(_, named)| fits(named)).map(|(n, _)| n);
        match wanted {
            Wanted::Name { name, format } => {
                by(&|named| named.last_component() == last_component(name)).map(|n| (n, *format))
            }
            Wanted::Proven { format, by: fits } => by(&|named| fits(&named.file)).map(|n| (n, Some(*format))),
            Wanted::Chosen(n) => self.free().find(|(free, _)| free == n).map(|_| (*n, None)),
        }
    }
}
