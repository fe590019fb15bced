//! What brings a backup back into a cloud: a secret, an image, and a volume of it, and what will stand in the way.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Backup, BackupDir, IMAGE_FIELDS, KEY_PROPERTIES, SecretInfo, rfc3339};
use crate::error::{Error, ErrorKind, Result, escape};
use crate::io::FileSource;
use crate::luks::metadata::Version;

/// The property that Cinder names an image's key by.
pub const CINDER_KEY: &str = "cinder_encryption_key_id";
/// Properties of this prefix are Glance's own: it refuses them from anybody (403).
const RESERVED: &str = "os_glance";
/// A property that names the volume type, by which Cinder makes volumes of the image.
const TYPE_PROPERTY: &str = "cinder_img_volume_type";

/// The property of a restored image that names the old one, where it would have none beside the key's.
pub const FROM_PROPERTY: &str = "unluks_restored_from";
/// What goes with the properties that name a key.
const KEY_POLICIES: [&str; 2] = ["cinder_encryption_key_deletion_policy", "os_encrypt_key_deletion_policy"];

/// A line of a POSIX shell that waits until something has a status, and ends where it has one that says error, which never
/// becomes another. `client` is how the openstack client is called, and `id` what names the thing, both ready for a shell.
pub fn wait_line(client: &str, what: &str, id: &str, status: &str) -> String {
    format!(
        "while s=$({client} {what} show -f value -c status {id}); [ \"$s\" != {status} ]; do \
         case \"$s\" in error*|killed|deleted) echo \"the {what} is $s\" >&2; exit 1;; esac; sleep 2; done"
    )
}

/// What a plan is made for.
#[derive(Clone, Debug, Default)]
pub struct PlanOptions {
    /// A volume is wanted, also where the backup is not one of a volume.
    pub volume: bool,
    /// The volume's type, where it should be another than it was.
    pub volume_type: Option<String>,
}

/// What is to be made, in this order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The secret's attributes; `None` where the image is not encrypted. Its id is that of the old one.
    pub secret: Option<SecretInfo>,
    /// The image.
    pub image: NewImage,
    /// The volume.
    pub volume: NewVolume,
    /// Whether the volume is wanted: it was asked for, or the backup is one of a volume.
    pub volume_wanted: bool,
    /// The LUKS version of the image's header; `None` where it has none that is good.
    pub luks: Option<Version>,
    /// What stands in the way, or comes back different.
    pub notes: Vec<Note>,
}

/// Something that stands in the way, or comes back different.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// A stable code.
    pub rule: &'static str,
    /// One line of text. What came from the backup in it is escaped.
    pub message: String,
}

/// An image to be made. The names are Glance's own.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewImage {
    pub name: String,
    pub disk_format: String,
    pub container_format: String,
    pub min_disk: u64,
    pub min_ram: u64,
    pub protected: bool,
    pub visibility: &'static str,
    pub tags: Vec<String>,
    /// Properties that come back as they were.
    pub properties: BTreeMap<String, String>,
    /// Properties that get the new secret's id.
    pub key_properties: Vec<String>,
    /// Bytes.
    pub size: u64,
}

/// A volume to be made. The names are Cinder's own.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct NewVolume {
    pub name: String,
    /// GiB.
    pub size: u64,
    /// `None` where the backup does not tell.
    pub volume_type: Option<String>,
}

impl Plan {
    /// Makes the plan of a backup. Its image's header is looked at; no cloud is.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where the backup has no image to bring back; [`ErrorKind::Corrupt`] where the image is
    /// not as long as it was; [`ErrorKind::Io`] where it cannot be read.
    pub fn new(dir: &BackupDir, options: &PlanOptions) -> Result<Self> {
        let backup = &dir.backup;
        let image = backup.image.as_ref().filter(|image| image.size != Some(0) || backup.data.is_some());
        let (Some(image), Some(data), Some(path)) = (image, &backup.data, dir.data_path()) else {
            return Err(nothing(dir));
        };
        if data.size == 0 {
            return Err(nothing(dir));
        }
        let source = FileSource::open(&path)?;
        dir.check_len(crate::io::ReadAt::len(&source))?;
        let header = crate::luks::open(&source);
        let old = backup.key.as_ref().map(|key| key.secret.id.as_str());
        let named = backup.key.as_ref().map(|key| key.property.as_deref().unwrap_or(CINDER_KEY).to_owned());
        let names_old =
            image.properties.iter().filter(|(_, value)| Some(value.as_str()) == old).map(|(name, _)| name.clone());
        let mut key_properties: Vec<String> = named.into_iter().chain(names_old).collect();
        key_properties.sort();
        key_properties.dedup();
        let mut properties = image.properties.clone();
        // An id that names no secret of the new cloud would make the image one that nothing can read, or delete.
        let of_key =
            |name: &str| KEY_PROPERTIES.contains(&name) || (backup.key.is_none() && KEY_POLICIES.contains(&name));
        properties.retain(|name, _| !name.starts_with(RESERVED) && !key_properties.contains(name) && !of_key(name));
        if key_properties == [CINDER_KEY] && properties.keys().all(|name| KEY_POLICIES.contains(&name.as_str())) {
            // Cinder 28 makes no image of a volume whose own image had no other property: it sends Glance an empty object
            // (`_merge_volume_image_meta` of cinder/volume/api.py), which that refuses.
            properties.insert(FROM_PROPERTY.into(), image.id.clone());
        }
        let gib = |bytes: u64| bytes.div_ceil(1 << 30);
        let volume = NewVolume {
            name: backup.volume.as_ref().and_then(|v| v.name.clone()).or(image.name.clone()).unwrap_or_default(),
            size: backup.volume.as_ref().and_then(|v| v.size).unwrap_or(0).max(image.min_disk).max(gib(data.size)),
            volume_type: (options.volume_type.clone())
                .or_else(|| backup.volume.as_ref().and_then(|v| v.volume_type.clone()))
                .or_else(|| image.properties.get(TYPE_PROPERTY).cloned()),
        };
        let mut plan = Self {
            secret: backup.key.as_ref().map(|key| key.secret.clone()),
            image: NewImage {
                name: image.name.clone().unwrap_or_default(),
                disk_format: image.disk_format.clone().unwrap_or_else(|| "raw".into()),
                container_format: image.container_format.clone().unwrap_or_else(|| "bare".into()),
                min_disk: image.min_disk,
                min_ram: image.min_ram,
                protected: image.protected,
                // Any member of a project may make these two; the others are for an administrator.
                visibility: if image.visibility.as_deref() == Some("shared") { "shared" } else { "private" },
                tags: image.tags.clone(),
                properties,
                key_properties,
                size: data.size,
            },
            volume,
            volume_wanted: options.volume || options.volume_type.is_some() || backup.volume.is_some(),
            luks: header.as_ref().ok().map(|metadata| metadata.version),
            notes: Vec::new(),
        };
        plan.add_notes(dir, header.err());
        Ok(plan)
    }

    fn note(&mut self, rule: &'static str, message: impl Into<String>) {
        self.notes.push(Note { rule, message: message.into() });
    }

    fn add_notes(&mut self, dir: &BackupDir, header: Option<Error>) {
        let backup = &dir.backup;
        let Some(image) = &backup.image else { return };
        let raw = self.image.disk_format == "raw";
        if raw && self.luks == Some(Version::V2) {
            self.note(
                "luks2",
                "a current Glance (2026.1 does) refuses a LUKS2 container that is uploaded as raw, at the end of the \
                 upload: 415, Image failed safety checks. Try it with the header alone, as --run does, or decrypt the \
                 backup onto a new encrypted volume that is attached to a server",
            );
        }
        if let (true, Some(e), Some(_), None) = (raw, header, &backup.key, backup.plain()) {
            self.note("header", format!("the image has a key, but no LUKS header that is good: {e}"));
        }
        match &backup.key {
            None => match backup.key_left_out() {
                Some((name, id)) => self.note(
                    "key-left-out",
                    format!(
                        "the key is not in the backup, and the new image does not name it: where the secret {0} is still \
                         there, set it with openstack image set --property {name}={0}",
                        escape(id)
                    ),
                ),
                None => self.note("key", "the cloud named no key for this image: it is uploaded as it is"),
            },
            Some(key) => {
                let names = escaped(&self.image.key_properties);
                self.note(
                    "secret-id",
                    format!(
                        "the secret gets another id than {}, and {names} of the new image gets it too; volumes, \
                         snapshots and other images that name the old id do not find the new one",
                        key.secret.id
                    ),
                );
                self.expired(key.secret.expiration.as_deref());
            }
        }
        if !self.image.key_properties.is_empty() && !self.image.key_properties.iter().any(|p| p == CINDER_KEY) {
            let names = escaped(&self.image.key_properties);
            self.note("cinder", format!("only a Cinder that knows {names} makes a volume of this image"));
        }
        if self.image.properties.contains_key(FROM_PROPERTY) && !image.properties.contains_key(FROM_PROPERTY) {
            let message =
                format!("the new image has {FROM_PROPERTY}: Cinder makes no image of a volume without such a property");
            self.note("only-key", message);
        }
        self.volume_type(backup);
        let reserved: Vec<_> =
            image.properties.keys().filter(|name| name.starts_with(RESERVED)).map(|n| escape(n)).collect();
        if !reserved.is_empty() {
            self.note(
                "reserved",
                format!("only Glance itself may set these properties, so they stay away: {}", reserved.join(", ")),
            );
        }
        if image.properties.contains_key("img_signature_certificate_uuid") {
            self.note(
                "signature",
                "the image is signed: Glance wants the certificate that img_signature_certificate_uuid names, and \
                 refuses the upload without it",
            );
        }
        if image.properties.contains_key("block_device_mapping") {
            self.note("block-device-mapping", "block_device_mapping names snapshots of the old cloud");
        }
        if let Some(owner) =
            image.owner.as_deref().filter(|owner| backup.cloud.project_id.as_deref().is_some_and(|p| p != *owner))
        {
            let message = format!(
                "the image was project {}'s; the new one belongs to the project that restores it",
                escape(owner)
            );
            self.note("owner", message);
        }
        match image.visibility.as_deref() {
            None | Some("private") => {}
            Some("shared") => {
                self.note("visibility", "the image is shared, but with nobody until you name its members")
            }
            Some(other) => {
                let message = format!("the image was {}; the new one is private until you set it", escape(other));
                self.note("visibility", message);
            }
        }
    }

    fn volume_type(&mut self, backup: &Backup) {
        let how = backup.plain().map_or("by LUKS".to_owned(), |encryption| {
            let cipher = encryption
                .cipher
                .as_deref()
                .map_or("the same cipher".into(), |name| format!("the cipher {}", escape(name)));
            let bits = encryption.key_size.map_or(String::new(), |bits| format!(" with {bits} bits"));
            format!("by the provider plain, {cipher}{bits}")
        });
        let message = match (&self.volume.volume_type, backup.key.is_some()) {
            (Some(name), true) => format!(
                "the volume type {} must be there, and encrypted {how}: with another type, or none, the volume is \
                 refused, or nothing can read it",
                escape(name)
            ),
            (None, true) => format!("the backup does not tell the volume's type: name one that is encrypted {how}"),
            (Some(name), false) => format!("the volume type {} must be there", escape(name)),
            (None, false) => return,
        };
        self.note("volume-type", message);
    }

    fn expired(&mut self, expiration: Option<&str>) {
        let now = rfc3339(SystemTime::now());
        // Both are UTC, and years have four digits: the texts are in the order of the times.
        if let Some(was) = expiration.filter(|e| *e < now.trim_end_matches('Z')) {
            self.note("expiration", format!("the secret expired at {}; the new one does not expire", escape(was)));
            if let Some(secret) = &mut self.secret {
                secret.expiration = None;
            }
        }
    }
}

/// Names in a row, as messages show them.
fn escaped(names: &[String]) -> String {
    names.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
}

/// Why there is nothing to bring back.
fn nothing(dir: &BackupDir) -> Error {
    let backup = &dir.backup;
    let error = |message: &str| Error::new(ErrorKind::InvalidInput, message).with_rule("restore");
    let empty = backup.image.as_ref().is_some_and(|image| image.size.is_none_or(|size| size == 0));
    let error = match (&backup.image, &backup.plaintext) {
        (Some(_), _) if empty => error("the image has 0 bytes: there is nothing to upload").with_hint(
            "the data of a server that was booted from a volume is in the snapshots that block_device_mapping names",
        ),
        (Some(_), Some(_)) => error("the image was decrypted while it was fetched, and the ciphertext was not kept")
            .with_hint("write the plaintext onto a new encrypted volume"),
        _ if backup.volume.is_some() => error("the backup holds no image").with_hint(
            "fetch the image too; a backup of Cinder is restored in its cloud, onto a new volume that was made with the very \
             same type and size before: openstack volume backup restore --force BACKUP VOLUME",
        ),
        _ => error("the backup holds no image").with_hint("fetch the image too"),
    };
    error.within(crate::error::shown(dir.path()))
}

/// Refuses custom properties that are none.
pub(super) fn check_properties(properties: &BTreeMap<String, String>) -> Result<()> {
    match properties.keys().find(|name| name.is_empty() || IMAGE_FIELDS.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            Err(Error::corrupt("image.properties", format!("found \"{}\", which is no custom property", escape(name))))
        }
    }
}
