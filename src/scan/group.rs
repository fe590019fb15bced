//! Puts copies together to containers, and opens those.

use std::collections::BTreeMap;

use super::{Container, Copy, Opened, State, stopped};
use crate::error::{Error, Hint, Result};
use crate::io::{ReadAt, Window};
use crate::limits::SCAN_OPEN_MAX;
use crate::luks::metadata::Metadata;
use crate::progress::Progress;

/// Puts the copies of each container together, and opens its header, as long as all headers together are not too large.
pub(super) fn group(
    disk: &dyn ReadAt,
    copies: impl Iterator<Item = (Option<u64>, Copy)>,
    progress: &Progress,
) -> Result<Vec<Container>> {
    let mut containers: BTreeMap<(u64, bool), Vec<Copy>> = BTreeMap::new();
    for (start, copy) in copies {
        containers.entry((start.unwrap_or(copy.offset), start.is_some())).or_default().push(copy);
    }
    let mut opened_bytes = 0u64;
    let mut open = |((at, known), mut copies): ((u64, bool), Vec<Copy>)| {
        if progress.is_cancelled() {
            return Err(stopped());
        }
        copies.sort_by_key(|c| c.offset);
        let start = known.then_some(at);
        let mut container = Container { start, copies, header: None };
        if let Some(start) = start.filter(|_| container.has_good_copy()) {
            let opened = if opened_bytes < SCAN_OPEN_MAX { open_at(disk, start) } else { Err(too_many()) };
            // How much was read of one that does not open, nobody knows.
            opened_bytes += opened.as_ref().map_or(1 << 20, |m| m.metadata_size);
            if let Ok(metadata) = &opened {
                container.place_copies(start, metadata);
            }
            // What a hostile header says at length is not kept.
            container.header = Some(opened.map(|metadata| Opened::new(&metadata)));
        }
        Ok(container)
    };
    containers.into_iter().map(&mut open).collect()
}

pub(super) fn open_at(disk: &dyn ReadAt, start: u64) -> Result<Metadata> {
    crate::luks::recover::open(&Window::new(disk, start, None)?)
}

fn too_many() -> Error {
    let message = format!("not opened: the headers before it take {SCAN_OPEN_MAX} bytes");
    Error::limit("scan.open", message).with_hint(Hint::InspectAt)
}

impl Container {
    /// Says of each copy what it is to the header, and adds those that are missing.
    fn place_copies(&mut self, start: u64, metadata: &Metadata) {
        for copy in self.copies.iter_mut().filter(|c| c.error.is_none()) {
            copy.state = State::LeftOver;
        }
        for known in &metadata.copies {
            let offset = start.saturating_add(known.offset);
            let state = match (&known.error, known.used) {
                (Some(_), _) => State::Unusable,
                (None, true) => State::Used,
                (None, false) => State::Spare,
            };
            match self.copies.iter_mut().find(|c| c.offset == offset) {
                Some(copy) if copy.error.is_none() => copy.state = state,
                Some(_) => {}
                None => self.copies.push(Copy {
                    offset,
                    version: Some(metadata.version).filter(|_| known.error.is_none()),
                    role: known.role,
                    uuid: known.uuid.clone(),
                    label: known.label.clone(),
                    seqid: known.seqid,
                    state,
                    error: known.error.as_ref().map(|e| Error::corrupt(e.rule().to_owned(), e.message())),
                }),
            }
        }
        self.copies.sort_by_key(|c| c.offset);
    }
}
