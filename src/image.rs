//! An image as a whole: where its header is, where its data is, and what the header says.

mod foreign;
mod open;

use std::sync::Arc;

use crate::error::Result;
use crate::format::{HostMap, Qcow2Luks};
use crate::io::ReadAt;
use crate::key::Key;
use crate::luks::metadata::Metadata;
use crate::luks::unlock::{self, UnlockOptions, Unlocked};
use crate::secret::VolumeKey;
use crate::volume::{Volume, VolumeOptions};

pub use open::OpenOptions;

/// A LUKS image whose header was read and validated.
///
/// ```no_run
/// use std::sync::Arc;
/// use unluks::{FileSource, Image, Key, ReadAt, SecretBytes};
///
/// # fn main() -> unluks::Result<()> {
/// let image = Image::open(Arc::new(FileSource::open("volume.img")?))?;
/// let payload = SecretBytes::copy_of(&std::fs::read("barbican-payload").unwrap())?;
/// let unlocked = image.unlock(&Key::barbican(&payload)?, &Default::default())?;
/// let volume = image.volume(&unlocked, Default::default())?;
/// let mut superblock = [0u8; 1024];
/// volume.read_exact_at(&mut superblock, 1024)?;
/// # Ok(()) }
/// ```
pub struct Image {
    header: Arc<dyn ReadAt>,
    data: Arc<dyn ReadAt>,
    /// Set where the data is the clusters of a qcow2 image that encrypts them itself.
    clusters: Option<Arc<dyn HostMap>>,
    metadata: Metadata,
}

impl Image {
    /// Opens an image that starts with its header.
    ///
    /// # Errors
    /// As [`crate::open`].
    pub fn open(image: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_detached(Arc::clone(&image), image)
    }

    /// Opens an image whose header is elsewhere: a detached header, or a header backup in place of a damaged one.
    ///
    /// # Errors
    /// As [`crate::open`].
    pub fn open_detached(header: Arc<dyn ReadAt>, data: Arc<dyn ReadAt>) -> Result<Self> {
        let metadata = crate::luks::open(&*header)?;
        Ok(Self { header, data, clusters: None, metadata })
    }

    /// Opens a qcow2 image that encrypts its clusters itself.
    ///
    /// # Errors
    /// As [`crate::open`].
    pub fn open_qcow2(luks: &Qcow2Luks, file: Arc<dyn ReadAt>) -> Result<Self> {
        let metadata = crate::luks::open(&*luks.header)?;
        Ok(Self { header: Arc::clone(&luks.header), data: file, clusters: Some(Arc::clone(&luks.clusters)), metadata })
    }

    /// What the header says.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The file that holds the data.
    pub fn data(&self) -> &Arc<dyn ReadAt> {
        &self.data
    }

    /// Finds the volume key with a passphrase.
    ///
    /// # Errors
    /// As [`unlock::unlock`].
    pub fn unlock(&self, key: &Key, options: &UnlockOptions) -> Result<Unlocked> {
        unlock::unlock(&*self.header, &self.metadata, key, options)
    }

    /// Takes a volume key as it is, where its digest proves it.
    ///
    /// # Errors
    /// As [`unlock::with_volume_key`].
    pub fn unlock_with_volume_key(&self, key: VolumeKey, options: &UnlockOptions) -> Result<Unlocked> {
        unlock::with_volume_key(&self.metadata, key, options)
    }

    /// The plaintext.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn volume(&self, unlocked: &Unlocked, options: VolumeOptions) -> Result<Volume> {
        match &self.clusters {
            Some(clusters) => Volume::of_clusters(&self.metadata, Arc::clone(clusters), unlocked),
            None => Volume::new_detached(&self.metadata, &self.header, Arc::clone(&self.data), unlocked, options),
        }
    }
}
