//! What opened, and the header that it opened.

use std::collections::BTreeMap;

use super::UnlockOptions;
use super::task::Task;
use crate::error::{Error, Result, escape};
use crate::luks::metadata::{Digest, Keyslot, Metadata, Segment};
use crate::secret::VolumeKey;

/// What opened: the keys of one header, which no other one's volume takes.
pub struct Unlocked {
    pub(super) opened: Vec<Opened>,
    pub(super) keys: BTreeMap<u32, VolumeKey>,
    pub(super) header: KeyedHeader,
    pub(super) passed_over: Vec<Error>,
}

impl Unlocked {
    /// Takes volume keys as they are, by the digest that should prove them: for a header whose digests are lost, and for
    /// tests.
    ///
    /// # Errors
    /// As [`unlock`](super::unlock), for a header that cannot be opened with any key.
    ///
    /// # Security
    /// Nothing proves the keys, and nothing proves the state of a reencryption (CVE-2021-4122).
    pub fn unproven(metadata: &Metadata, keys: BTreeMap<u32, VolumeKey>, options: &UnlockOptions) -> Result<Self> {
        Task::of(metadata, options)?;
        Ok(Self::without_keyslots(metadata, keys))
    }

    /// Keys that no keyslot gave; none at all, where nothing is encrypted.
    pub(crate) fn without_keyslots(metadata: &Metadata, keys: BTreeMap<u32, VolumeKey>) -> Self {
        Self { opened: Vec::new(), keys, header: KeyedHeader::of(metadata), passed_over: Vec::new() }
    }

    /// The keyslots that opened, each with the index of the passphrase among [`Key::candidates`](crate::Key::candidates). Empty where a volume
    /// key was given.
    pub fn opened(&self) -> &[Opened] {
        &self.opened
    }

    /// Why keyslots were passed over whose area could not be read.
    pub fn passed_over(&self) -> &[Error] {
        &self.passed_over
    }

    /// The volume keys by the digest that proves them.
    pub fn keys(&self) -> &BTreeMap<u32, VolumeKey> {
        &self.keys
    }

    /// The keys of `metadata`, where that is the header that was unlocked.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where they are another header's.
    pub fn keys_of(&self, metadata: &Metadata) -> Result<&BTreeMap<u32, VolumeKey>> {
        if self.header == KeyedHeader::of(metadata) {
            Ok(&self.keys)
        } else {
            let message = format!(
                "the keys are of the header with UUID {}, and not of this one with UUID {}, or it was changed since",
                escape(&self.header.uuid),
                escape(&metadata.uuid)
            );
            Err(Error::invalid(message).with_rule("unlocked").with_hint("unlock this header too"))
        }
    }
}

/// All of a header that says which key opens what, and that unlocking has checked.
#[derive(Clone, PartialEq)]
pub(super) struct KeyedHeader {
    uuid: String,
    keyslots: BTreeMap<u32, Keyslot>,
    segments: Vec<Segment>,
    digests: BTreeMap<u32, Digest>,
    requirements: Vec<String>,
}

impl KeyedHeader {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let Metadata { uuid, keyslots, segments, digests, requirements, .. } = metadata;
        Self {
            uuid: uuid.clone(),
            keyslots: keyslots.clone(),
            segments: segments.clone(),
            digests: digests.clone(),
            requirements: requirements.clone(),
        }
    }
}

/// A keyslot that opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// The keyslot.
    pub keyslot: u32,
    /// The passphrase, as an index into [`Key::candidates`](crate::Key::candidates).
    pub candidate: usize,
}
