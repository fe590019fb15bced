//! Data without a header: plain dm-crypt, a LUKS volume whose header is lost while its volume key is known, and what is not
//! encrypted at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Image, UnlockedImage};
use crate::error::Result;
use crate::io::ReadAt;
use crate::luks::metadata::{CryptSegment, Digest, DigestKind, Metadata, Segment, SegmentKind, Version};
use crate::luks::unlock::{UnlockOptions, Unlocked};
use crate::secret::VolumeKey;

/// The number of the one segment, and of the digest that is not there.
const ONLY: u32 = 0;

/// What a header would say of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainOptions {
    /// The cipher, as dm-crypt spells it.
    pub cipher: String,
    /// Bytes of an encryption sector.
    pub sector_size: u32,
    /// What is added to the IV's sector number, in 512-byte sectors (cryptsetup's `--skip`).
    pub iv_offset: u64,
    /// The byte where the data starts.
    pub offset: u64,
    /// Bytes of data; `None` is to the end.
    pub size: Option<u64>,
}

impl Image {
    /// Takes data that has no header for what the options say.
    ///
    /// It has no keyslots and no digests: [`Image::unlock_unproven`] alone opens it.
    pub fn plain(data: Arc<dyn ReadAt>, options: PlainOptions) -> Self {
        let PlainOptions { cipher, sector_size, iv_offset, offset, size } = options;
        let crypt = CryptSegment { encryption: cipher, iv_tweak: iv_offset, sector_size, integrity: None };
        let segment = Segment { kind: SegmentKind::Crypt(crypt), offset, size, flags: Vec::new() };
        let digest =
            Digest { kind: DigestKind::Unknown { kind: "none".into() }, keyslots: Vec::new(), segments: vec![ONLY] };
        Self::without_header(data, segment, BTreeMap::from([(ONLY, digest)]))
    }

    /// Takes data that is not encrypted, as it is: [`Image::unlock_unencrypted`] opens it.
    pub fn unencrypted(data: Arc<dyn ReadAt>) -> Self {
        let segment = Segment { kind: SegmentKind::Linear, offset: 0, size: None, flags: Vec::new() };
        Self::without_header(data, segment, BTreeMap::new())
    }

    fn without_header(data: Arc<dyn ReadAt>, segment: Segment, digests: BTreeMap<u32, Digest>) -> Self {
        let metadata = Metadata {
            version: Version::V2,
            uuid: String::new(),
            label: String::new(),
            subsystem: String::new(),
            seqid: 0,
            copies: Vec::new(),
            metadata_size: 0,
            header_size: 0,
            keyslots_size: 0,
            differences: Vec::new(),
            keyslots: BTreeMap::new(),
            disabled_keyslots: BTreeMap::new(),
            segments: vec![segment],
            digests,
            tokens: BTreeMap::new(),
            flags: Vec::new(),
            requirements: Vec::new(),
            json: None,
            offline: None,
            recovery: None,
        };
        // There is none, and the data may start with its first byte, as behind a detached one.
        Self::new(Arc::new(Vec::new()), data, metadata)
    }

    /// Whether there is no header: nothing proves a key, and nothing but the caller says where the data is.
    pub fn is_plain(&self) -> bool {
        self.metadata.copies.is_empty()
    }

    /// Whether it is not encrypted, by whoever opened it so.
    pub fn is_unencrypted(&self) -> bool {
        self.is_plain() && self.metadata.digests.is_empty()
    }

    /// What is not encrypted; `None` where there is something that a key opens.
    pub fn unlock_unencrypted(&self) -> Option<UnlockedImage> {
        self.is_unencrypted().then(|| {
            let unlocked = Unlocked::without_keyslots(&self.metadata, BTreeMap::new());
            UnlockedImage { image: self.clone(), unlocked }
        })
    }

    /// Takes a key that nothing proves.
    ///
    /// # Errors
    /// As [`Unlocked::unproven`].
    ///
    /// # Security
    /// A wrong key gives noise for plaintext, without an error.
    pub fn unlock_unproven(&self, key: VolumeKey, options: &UnlockOptions) -> Result<UnlockedImage> {
        let keys = BTreeMap::from([(ONLY, key)]);
        let unlocked = Unlocked::unproven(&self.metadata, keys, options)?;
        Ok(UnlockedImage { image: self.clone(), unlocked })
    }
}
