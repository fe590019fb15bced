//! An image as a whole: where its header is, where its data is, and what the header says.

mod foreign;
mod open;
mod plain;
#[cfg(feature = "serde")]
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Checks, HostMap, Qcow2Luks, Snapshot};
use crate::io::ReadAt;
use crate::key::Key;
use crate::luks::data::{Data, DataFile, assess};
use crate::luks::layer::Layer;
use crate::luks::metadata::Metadata;
use crate::luks::recover::{self, Rules};
use crate::luks::unlock::{self, Opened, UnlockOptions, Unlocked};
use crate::secret::VolumeKey;
use crate::storage::lvm::VolumeGroup;
use crate::volume::{Volume, VolumeOptions};

pub use open::OpenOptions;
pub use plain::PlainOptions;

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
/// let volume = unlocked.volume(Default::default())?;
/// let mut superblock = [0u8; 1024];
/// volume.read_exact_at(&mut superblock, 1024)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Image {
    header: Arc<dyn ReadAt>,
    data: Arc<dyn ReadAt>,
    /// Set where the data is the clusters of a qcow2 image that encrypts them itself.
    clusters: Option<Arc<dyn HostMap>>,
    /// The file that it was found in, where that is not the container itself.
    file: Option<Arc<dyn ReadAt>>,
    notes: Arc<[String]>,
    layers: Arc<[Layer]>,
    groups: Arc<[Arc<VolumeGroup>]>,
    snapshots: Arc<[Snapshot]>,
    checks: Checks,
    metadata: Arc<Metadata>,
}

/// An image with the keys that open it.
///
/// It shares the image's files: it may outlive the [`Image`] that it comes from.
pub struct UnlockedImage {
    image: Image,
    unlocked: Unlocked,
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
    /// As [`recover::open`]: a header that is damaged is mended in memory, where nothing else can be meant.
    pub fn open_detached(header: Arc<dyn ReadAt>, data: Arc<dyn ReadAt>) -> Result<Self> {
        Self::open_by(header, data, Rules::Strict)
    }

    fn open_by(header: Arc<dyn ReadAt>, data: Arc<dyn ReadAt>, rules: Rules) -> Result<Self> {
        let metadata = recover::open_by(&*header, rules)?;
        Ok(Self::new(header, data, metadata))
    }

    /// Opens a qcow2 image that encrypts its clusters itself.
    ///
    /// # Errors
    /// As [`crate::open`].
    pub fn open_qcow2(luks: &Qcow2Luks, file: Arc<dyn ReadAt>) -> Result<Self> {
        let metadata = crate::luks::open(&*luks.header)?;
        let image = Self::new(Arc::clone(&luks.header), Arc::clone(&file), metadata);
        Ok(Self { clusters: Some(Arc::clone(&luks.clusters)), file: Some(file), ..image })
    }

    /// A header and its data, of which nothing more is known.
    fn new(header: Arc<dyn ReadAt>, data: Arc<dyn ReadAt>, metadata: Metadata) -> Self {
        Self {
            header,
            data,
            clusters: None,
            file: None,
            notes: Arc::default(),
            layers: Arc::default(),
            groups: Arc::default(),
            snapshots: Arc::default(),
            checks: Checks::default(),
            metadata: Arc::new(metadata),
        }
    }

    /// What the header says.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What was found and chosen on the way from the file to the container, one line each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What lies on what, from the file down to what holds the container; empty where it was not looked for.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What the containers of its files say of themselves; nothing where it was not looked for.
    pub fn checks(&self) -> &Checks {
        &self.checks
    }

    /// The file that the container was found in; its first one, where it lies in several.
    pub fn file(&self) -> &Arc<dyn ReadAt> {
        self.file.as_ref().unwrap_or(&self.data)
    }

    /// What begins with the header; empty where there is none.
    pub fn header(&self) -> &Arc<dyn ReadAt> {
        &self.header
    }

    /// The file that holds the data.
    pub fn data(&self) -> &Arc<dyn ReadAt> {
        &self.data
    }

    /// Finds the volume key with a passphrase.
    ///
    /// # Errors
    /// As [`unlock::unlock`].
    pub fn unlock(&self, key: &Key, options: &UnlockOptions) -> Result<UnlockedImage> {
        self.check_clusters()?;
        let wrong = match unlock::unlock(&*self.header, &self.metadata, key, options) {
            Ok(unlocked) => return Ok(UnlockedImage { image: self.clone(), unlocked }),
            Err(e) => e,
        };
        // Where the cipher's name is gone, the digest says which of them it was.
        for nth in 1..self.ciphers() {
            if wrong.kind() != ErrorKind::WrongKey {
                break;
            }
            let metadata = recover::open_as(&*self.header, nth)?;
            match unlock::unlock(&*self.header, &metadata, key, options) {
                Ok(unlocked) => {
                    let image = Self { metadata: Arc::new(metadata), ..self.clone() };
                    return Ok(UnlockedImage { image, unlocked });
                }
                Err(e) if e.kind() == ErrorKind::WrongKey => {}
                Err(e) => return Err(e),
            }
        }
        Err(wrong)
    }

    /// How many ciphers there may be.
    fn ciphers(&self) -> usize {
        self.metadata.recovery.as_ref().map_or(1, |recovery| recovery.ciphers)
    }

    /// Reads the header, as it was mended where it is damaged.
    ///
    /// # Errors
    /// As [`ReadAt::read_exact_at`].
    pub fn read_header(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.header.read_exact_at(buf, offset)?;
        if let Some(recovery) = &self.metadata.recovery {
            recovery.mend(buf, offset);
        }
        Ok(())
    }

    /// Takes a volume key as it is, where its digest proves it.
    ///
    /// # Errors
    /// As [`unlock::with_volume_key`].
    pub fn unlock_with_volume_key(&self, key: VolumeKey, options: &UnlockOptions) -> Result<UnlockedImage> {
        self.check_clusters()?;
        if self.ciphers() > 1 {
            let message = "the name of the cipher is gone, and the volume key does not tell it";
            return Err(Error::unsupported("cipher-name", message).with_hint("a passphrase of a keyslot does"));
        }
        let unlocked = unlock::with_volume_key(&self.metadata, key, options)?;
        Ok(UnlockedImage { image: self.clone(), unlocked })
    }

    /// Refuses data that is cut off or not there, unless that is allowed, as far as the header tells it without a key.
    ///
    /// # Errors
    /// As [`Volume::check_file`].
    pub fn check_data(&self, options: VolumeOptions) -> Result<()> {
        if self.clusters.is_some() || self.is_plain() {
            return Ok(());
        }
        Volume::check_file(&self.metadata, self.data_file(), options)
    }

    /// How much of the data is there, as far as the header tells it.
    pub fn assess(&self) -> Data {
        match &self.clusters {
            Some(clusters) => Data::in_clusters(clusters.virtual_size(), clusters.missing()),
            None => assess(&self.metadata, self.data_file()),
        }
    }

    /// What is known of the file that holds the data.
    fn data_file(&self) -> DataFile {
        DataFile { len: self.data.known_len(), detached: !self.has_own_header() }
    }

    /// Refuses a header that cannot be that of encrypted clusters, before anything is derived.
    fn check_clusters(&self) -> Result<()> {
        self.clusters.as_ref().map_or(Ok(()), |_| Volume::check_clusters(&self.metadata))
    }
}

impl UnlockedImage {
    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The keyslots that opened, each with the index of the passphrase among [`Key::candidates`]. Empty where a volume
    /// key was given.
    pub fn opened(&self) -> &[Opened] {
        self.unlocked.opened()
    }

    /// Why keyslots were passed over whose area could not be read.
    pub fn passed_over(&self) -> &[crate::Error] {
        self.unlocked.passed_over()
    }

    /// The volume keys by the digest that proves them.
    pub fn keys(&self) -> &BTreeMap<u32, VolumeKey> {
        self.unlocked.keys()
    }

    /// What opened, for [`Volume::new`].
    pub fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    /// The plaintext.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn volume(&self, options: VolumeOptions) -> Result<Volume> {
        self.volume_over(Arc::clone(&self.image.data), options)
    }

    /// The plaintext, read through another reader of the same data file. A qcow2 image that encrypts its clusters itself is
    /// read by its own tables all the same.
    ///
    /// # Errors
    /// As [`Volume::new`].
    pub fn volume_over(&self, data: Arc<dyn ReadAt>, options: VolumeOptions) -> Result<Volume> {
        let Image { header, clusters, metadata, .. } = &self.image;
        if let Some(clusters) = clusters {
            return Volume::of_clusters(metadata, Arc::clone(clusters), &self.unlocked);
        }
        // A header that lies elsewhere says nothing of its image's accident.
        if !self.image.has_own_header() {
            return Volume::new_detached(metadata, header, data, &self.unlocked, options);
        }
        let volume = Volume::new(metadata, data, &self.unlocked, options)?;
        let overwritten = metadata.recovery.as_ref().map_or(&[][..], |recovery| &recovery.overwritten);
        Ok(volume.with_overwritten(overwritten))
    }
}
