//! A header that was given for data that has another one.

use super::Image;
use crate::error::{Error, escape};
use crate::io::ReadAt;
use crate::luks::data::{DataFile, State, assess};
use crate::luks::metadata::Metadata;
use crate::luks::{MAGIC, MAGIC_SECONDARY};

/// What is known of the header that the data begins with.
struct Own {
    uuid: String,
    /// `None` where it is damaged.
    metadata: Option<Metadata>,
}

impl Own {
    /// Also a damaged header names its image, as long as its UUID looks like one.
    fn of(data: &dyn ReadAt) -> Option<Self> {
        if let Ok(metadata) = crate::luks::open(data) {
            return Some(Self { uuid: metadata.uuid.clone(), metadata: Some(metadata) });
        }
        // Magic and UUID lie in the same places in all headers.
        let mut start = [0u8; 208];
        data.read_exact_at(&mut start, 0).ok()?;
        let uuid = start.get(168..204).and_then(|uuid| std::str::from_utf8(uuid).ok())?;
        let is_header = start.starts_with(&MAGIC) || start.starts_with(&MAGIC_SECONDARY);
        let is_uuid = uuid.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit()) && start.get(204) == Some(&0);
        (is_header && is_uuid).then(|| Self { uuid: uuid.to_owned(), metadata: None })
    }
}

impl Image {
    /// Why the header is hardly that of the data, where that shows: the data begins with a header of another UUID, or the
    /// two files are swapped. Data that is decrypted with a foreign header is noise, and nothing tells.
    ///
    /// It is an [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) with the rule `header`; `None` for an image
    /// that starts with its header, for a header backup of the data's own one, and for data without a header.
    pub fn foreign_header(&self) -> Option<Error> {
        if self.clusters.is_some() || self.has_own_header() || self.is_plain() {
            return None;
        }
        let own = Own::of(&*self.data)?;
        let own_is_bare = own.metadata.as_ref().is_some_and(|own| state(own, &*self.data).is_absent());
        if own_is_bare && !state(&self.metadata, &*self.header).is_absent() {
            let message =
                "the image is a LUKS header without data, and what was given as its header has data behind it";
            return Some(Error::invalid(message).with_rule("header").with_hint("are they swapped?"));
        }
        let (of_data, given) = (&own.uuid, &self.metadata.uuid);
        if of_data.eq_ignore_ascii_case(given) || of_data.is_empty() || given.is_empty() {
            return None;
        }
        let message = format!(
            "the image begins with a LUKS header of its own, with UUID {}; the one that was given has UUID {}, and would \
             make noise of the data",
            escape(of_data),
            escape(given)
        );
        Some(Error::invalid(message).with_rule("header"))
    }
}

/// How much data a file that begins with a header has behind it.
fn state(metadata: &Metadata, file: &dyn ReadAt) -> State {
    assess(metadata, DataFile { len: file.known_len(), detached: false }).state
}
