//! What the containers of an image say of themselves, as findings: their books, and the hashes that they keep.

use std::sync::Arc;

use super::Work;
use super::patient::{Patient, Unread};
use super::report::{Finding, Severity};
use crate::decrypt::hash::Algorithm;
use crate::error::{Error, ErrorKind, Result, escape};
use crate::format::{Checks, Doubt, Format, Recorded, Weight};
use crate::io::ReadAt;
use crate::luks::layer::LayerKind;
use crate::num::{at_most, to_u64};
use crate::progress::Progress;

/// Read at a time.
const BLOCK: usize = 1 << 20;

impl Work<'_> {
    /// The books of all containers.
    pub(super) fn check_books(&mut self, progress: &Progress) -> Result<()> {
        for book in &self.image.checks().books {
            match book.check(progress) {
                Ok(doubts) => self.findings.add_all(doubts.into_iter().map(of_doubt)),
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => {
                    let message = format!("the container's own books cannot be checked: {}", e.message());
                    let finding = Finding::new(Severity::Warning, "format.not-checked", "container", message);
                    self.findings.add(finding.at(e.offset()));
                }
            }
        }
        Ok(())
    }

    /// What came of the hashes that containers keep.
    pub(super) fn take_compared(&mut self, all: Result<Vec<Compared<'_>>>) -> Result<()> {
        let all = match all {
            Ok(all) => all,
            Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(e) => {
                let message = format!("the hashes that the container keeps were not compared: {}", e.message());
                self.findings.add(Finding::new(Severity::Warning, "format.not-compared", "container", message));
                return Ok(());
            }
        };
        for Compared { bytes, made, unread } in all {
            if let Some(unread) = unread {
                let message = format!(
                    "the hashes that {} keeps were not compared, for {} bytes of what they are of cannot be read: {}",
                    made.first().map_or("the container", |(r, _)| r.by.as_str()),
                    unread.bytes,
                    escape(&unread.error)
                );
                self.findings.add(Finding::new(Severity::Warning, "format.not-compared", "container", message));
                continue;
            }
            let is_same = !made.is_empty() && made.iter().all(|(recorded, made)| *made == recorded.hex);
            if is_same {
                self.coverage.recorded_bytes = self.coverage.recorded_bytes.saturating_add(bytes);
            }
            for (recorded, made) in made {
                let name = recorded.algorithm;
                if made != recorded.hex {
                    let by = &recorded.by;
                    let message = format!("the {name} of the disk is {made}; by {by} it was {}", recorded.hex);
                    let finding = Finding::new(Severity::Error, "format.hash", "container", message);
                    self.findings.add(finding.at(recorded.at).says(&made, &recorded.hex));
                }
                self.hashes.container.entry(name.to_owned()).or_default().push(made);
            }
        }
        Ok(())
    }

    /// Whether all of the disk is as its container's own hash says: those of a part of it, or of a parent, have no place in
    /// the file, and of an array or a group other files are a part.
    pub(super) fn is_as_recorded(&self) -> bool {
        let of = &self.image.checks().recorded;
        let layers = self.image.layers();
        let is_of_several = layers.iter().any(|layer| matches!(layer.kind, LayerKind::Array | LayerKind::Volume));
        let disk = layers.iter().find(|layer| layer.kind == LayerKind::Format);
        let is_all =
            disk.is_some_and(|disk| disk.name == Format::Ewf.name() && disk.size == self.coverage.recorded_bytes);
        is_all && !is_of_several && of.iter().all(|recorded| recorded.at.is_some())
    }
}

/// The hashes of one source, beside those that are recorded of it.
pub(super) struct Compared<'a> {
    bytes: u64,
    made: Vec<(&'a Recorded, String)>,
    unread: Option<Unread>,
}

/// Makes the hashes that the containers keep of their disks: all of one disk in one pass over it.
pub(super) fn compare<'a>(checks: &'a Checks, progress: &Progress) -> Result<Vec<Compared<'a>>> {
    let mut left: Vec<&Recorded> = checks.recorded.iter().collect();
    let mut all = Vec::new();
    while let Some(first) = left.first().copied() {
        let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|r| Arc::ptr_eq(&r.of, &first.of));
        left = others;
        all.push(compare_one(&first.of, &same, progress)?);
    }
    Ok(all)
}

fn compare_one<'a>(of: &Arc<dyn ReadAt>, all: &[&'a Recorded], progress: &Progress) -> Result<Compared<'a>> {
    let known = |r: &&'a Recorded| Some((*r, r.algorithm.parse::<Algorithm>().ok()?.hasher()));
    let mut hashers: Vec<_> = all.iter().filter_map(known).collect();
    let source = Patient::new(Arc::clone(of));
    let bytes = source.len();
    let mut buf = vec![0; at_most(bytes, BLOCK)];
    let mut at = 0u64;
    while at < bytes {
        if progress.is_cancelled() {
            return Err(Error::cancelled());
        }
        let len = at_most(bytes.saturating_sub(at), buf.len());
        let block = buf.get_mut(..len).unwrap_or_default();
        source.read_exact_at(block, at)?;
        // What follows makes no hash any more.
        if source.unread().is_some() {
            break;
        }
        hashers.iter_mut().for_each(|(_, hasher)| hasher.update(block));
        at = at.saturating_add(to_u64(len));
    }
    let made = hashers.into_iter().map(|(recorded, hasher)| (recorded, hasher.finish())).collect();
    Ok(Compared { bytes, made, unread: source.unread() })
}

fn of_doubt(doubt: Doubt) -> Finding {
    let severity = match doubt.weight {
        Weight::Note => Severity::Note,
        Weight::Warning => Severity::Warning,
        Weight::Error => Severity::Error,
    };
    Finding::new(severity, format!("format.{}", doubt.rule), "container", doubt.message).at(doubt.at)
}
