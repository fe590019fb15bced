//! A backup of an encrypted OpenStack image: the directory that `unluks fetch` writes, and that the other commands take.
//!
//! ```text
//! DIR/backup.json   what the cloud said of image, secret and volume: docs/backup.schema.json
//! DIR/image.raw     the image, byte for byte, named by its disk_format; not there where only the plaintext was wanted
//! DIR/key           the secret's payload as Barbican gave it, mode 0600; not there where the image is not encrypted
//! ```
//!
//! `backup.json` is written last, and holds no key and no token: a directory without it is not complete.

mod encryption;
pub mod plan;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use encryption::Encryption;

use crate::error::{Error, ErrorKind, Result, escape, shown};
use crate::files::{Existing, write_whole};
use crate::format::Format;
use crate::key::{Key, read_key_file};
use crate::limits::BACKUP_JSON_MAX;
use crate::secret::SecretBytes;

/// The description of a backup, in its directory.
pub const DESCRIPTION: &str = "backup.json";
/// The name that a new backup gives to the secret's payload.
pub const KEY_FILE: &str = "key";
/// The version of the description's shape. It grows with every change, so that each version is read strictly.
pub const FORMAT: u32 = 1;

/// The properties that name the key of an encrypted image: Cinder's upload-to-image's own, those of the image encryption
/// that Glance and Nova specify, and that of a server's encrypted ephemeral disk.
pub const KEY_PROPERTIES: [&str; 3] =
    ["cinder_encryption_key_id", "os_encrypt_key_id", "hw_ephemeral_encryption_secret_uuid"];

/// Fields of an image that are Glance's own (image schema v2.16, and what `image_location` and stores add).
pub const IMAGE_FIELDS: [&str; 25] = [
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "checksum",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "size",
    "virtual_size",
    "min_disk",
    "min_ram",
    "disk_format",
    "container_format",
    "created_at",
    "updated_at",
    "tags",
    "file",
    "self",
    "schema",
    "direct_url",
    "locations",
    "stores",
];

/// What `backup.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// [`FORMAT`].
    pub unluks_backup: u32,
    /// The program that wrote it, and its version.
    pub tool: String,
    /// When it was fetched: RFC 3339, UTC.
    pub fetched_at: String,
    /// Where it was fetched from.
    pub cloud: Cloud,
    /// The image, as Glance described it; `None` where only a key, or a volume's key, was fetched.
    pub image: Option<ImageInfo>,
    /// The image's bytes; `None` where they were not kept.
    pub data: Option<Data>,
    /// What was decrypted on the way; `None` where nothing was.
    pub plaintext: Option<Plaintext>,
    /// The key; `None` where the image is not encrypted.
    pub key: Option<StoredKey>,
    /// The volume that the image was made of, where it could be seen.
    pub volume: Option<VolumeInfo>,
}

/// The cloud, without anything secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cloud {
    /// The name in clouds.yaml.
    pub name: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The project that it was fetched as.
    pub project_id: Option<String>,
}

/// An image of Glance. The names are Glance's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ImageInfo {
    pub id: String,
    pub name: Option<String>,
    pub disk_format: Option<String>,
    pub container_format: Option<String>,
    /// Bytes of the data; `None` where there was none.
    pub size: Option<u64>,
    pub virtual_size: Option<u64>,
    /// GiB.
    pub min_disk: u64,
    /// MiB.
    pub min_ram: u64,
    /// MD5 of the data, lower-case hex.
    pub checksum: Option<String>,
    pub os_hash_algo: Option<String>,
    /// The hash of the data by `os_hash_algo`, lower-case hex.
    pub os_hash_value: Option<String>,
    pub visibility: Option<String>,
    pub protected: bool,
    pub owner: Option<String>,
    pub created_at: Option<String>,
    pub updated_at: Option<String>,
    pub tags: Vec<String>,
    /// All that is no field of Glance's own.
    pub properties: BTreeMap<String, String>,
}

/// The image's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// A file of the directory.
    pub file: String,
    /// Its bytes.
    pub size: u64,
}

/// The plaintext that was made while the image came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plaintext {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// How a secret's payload becomes the passphrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Becomes {
    /// Its lower-case hex is the passphrase: what Cinder and Nova do with symmetric keys.
    Hexlify,
    /// It is the passphrase.
    Direct,
}

/// The key's file and its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
    /// A file of the directory.
    pub file: String,
    /// Its bytes.
    pub size: u64,
    /// How it becomes the passphrase.
    pub becomes: Becomes,
    /// The image's property that named the secret.
    pub property: Option<String>,
    /// The secret's attributes.
    pub secret: SecretInfo,
}

/// A secret of Barbican, without its payload. The names are Barbican's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SecretInfo {
    pub id: String,
    pub name: Option<String>,
    pub secret_type: String,
    pub algorithm: Option<String>,
    pub bit_length: Option<u64>,
    pub mode: Option<String>,
    /// The default one of `content_types`.
    pub content_type: Option<String>,
    pub created: Option<String>,
    pub expiration: Option<String>,
}

/// A volume of Cinder. The names are Cinder's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct VolumeInfo {
    pub id: String,
    pub name: Option<String>,
    /// The snapshot that led to it.
    pub snapshot: Option<String>,
    pub volume_type: Option<String>,
    /// GiB.
    pub size: Option<u64>,
    pub availability_zone: Option<String>,
    /// The encryption of its type, which most users may not see.
    pub encryption: Option<Encryption>,
}

impl Becomes {
    /// How OpenStack takes a secret of this type: a passphrase as it is, and any other key hexlified.
    pub fn of_secret(secret_type: &str) -> Self {
        match secret_type {
            "passphrase" => Self::Direct,
            _ => Self::Hexlify,
        }
    }
}

impl Backup {
    /// A description of now, of a backup that holds nothing yet.
    pub fn new(cloud: Cloud) -> Self {
        Self {
            unluks_backup: FORMAT,
            tool: concat!("unluks ", env!("CARGO_PKG_VERSION")).into(),
            fetched_at: rfc3339(SystemTime::now()),
            cloud,
            image: None,
            data: None,
            plaintext: None,
            key: None,
            volume: None,
        }
    }

    /// The property that names a key which is not in the backup, and the secret's id: somebody left it out. `None` where the
    /// key is there, and where the cloud named none.
    pub fn key_left_out(&self) -> Option<(&'static str, &str)> {
        let image = self.image.as_ref().filter(|_| self.key.is_none())?;
        KEY_PROPERTIES.iter().find_map(|name| Some((*name, image.properties.get(*name)?.as_str())))
    }

    /// The encryption of a volume whose data has no header, where the backup is of one.
    pub fn plain(&self) -> Option<&Encryption> {
        self.volume.as_ref()?.encryption.as_ref().filter(|encryption| encryption.is_plain())
    }

    /// Reads a description, and checks all that other parts rely on.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the field that is wrong as the rule; [`ErrorKind::Unsupported`] for a format of
    /// another version of the program.
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            unluks_backup: u32,
        }
        let wrong = |e: serde_json::Error| Error::corrupt("backup.json", escape(&e.to_string()));
        let Version { unluks_backup } = serde_json::from_slice(json).map_err(wrong)?;
        if unluks_backup != FORMAT {
            let message = format!("found format {unluks_backup}; this version of unluks reads {FORMAT}");
            return Err(Error::unsupported("unluks_backup", message).with_hint("use the unluks that wrote it"));
        }
        let backup: Self = serde_json::from_slice(json).map_err(wrong)?;
        backup.check()?;
        Ok(backup)
    }

    fn check(&self) -> Result<()> {
        if let Some(image) = &self.image {
            check_id("image.id", &image.id)?;
            plan::check_properties(&image.properties)?;
            check_hex("image.checksum", image.checksum.as_deref())?;
            check_hex("image.os_hash_value", image.os_hash_value.as_deref())?;
            if image.os_hash_value.is_some() && image.os_hash_algo.is_none() {
                return Err(Error::corrupt("image.os_hash_algo", "found nothing; os_hash_value is by some algorithm"));
            }
        }
        if let Some(data) = &self.data {
            check_file_name("data.file", &data.file)?;
            let Some(image) = &self.image else {
                return Err(Error::corrupt("image", "found nothing; data is of some image"));
            };
            if let Some(size) = image.size.filter(|size| *size != data.size) {
                let message = format!("found {}; the image has {size} bytes", data.size);
                return Err(Error::corrupt("data.size", message));
            }
        }
        if let Some(plaintext) = &self.plaintext {
            check_hex("plaintext.sha256", Some(&plaintext.sha256))?;
        }
        if let Some(key) = &self.key {
            check_file_name("key.file", &key.file)?;
            check_id("key.secret.id", &key.secret.id)?;
            if let Some(name) = &key.property {
                plan::check_properties(&BTreeMap::from([(name.clone(), String::new())]))?;
            }
            if self.data.as_ref().is_some_and(|data| data.file == key.file) {
                return Err(Error::corrupt("key.file", "found the name of the data's file; they are two"));
            }
        }
        if let Some(volume) = &self.volume {
            check_id("volume.id", &volume.id)?;
            volume.snapshot.as_deref().map_or(Ok(()), |id| check_id("volume.snapshot", id))?;
        }
        Ok(())
    }

    /// The description as text. What a terminal would obey is escaped, as JSON allows.
    ///
    /// # Errors
    /// As [`Backup::parse`] of what it gives.
    pub fn to_json(&self) -> Result<String> {
        self.check()?;
        let plain = serde_json::to_string_pretty(self).map_err(|e| Error::corrupt("backup.json", e.to_string()))?;
        let mut json = String::with_capacity(plain.len() + 1);
        for c in plain.chars() {
            match c {
                '\n' | ' '..='~' => json.push(c),
                c if c.is_alphanumeric() => json.push(c),
                // JSON has such characters in strings only, where they may be escaped.
                c => json.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
            }
        }
        json.push('\n');
        Ok(json)
    }

    /// Writes the description into `dir`, whole or not at all, with mode 0600. One that is there is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be written; [`ErrorKind::Corrupt`] for what could not be read back.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = self.to_json()?;
        write_whole(&dir.join(DESCRIPTION), json.as_bytes(), Existing::Replace)
    }
}

/// A backup's directory whose description was read and whose files are there.
#[derive(Clone, Debug)]
pub struct BackupDir {
    path: PathBuf,
    /// What `backup.json` says.
    pub backup: Backup,
}

impl BackupDir {
    /// Reads the description in `path`, and looks at the files that it names.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] where there is no description; [`ErrorKind::LimitExceeded`] where it is too large;
    /// [`ErrorKind::Corrupt`] where it, or a file that it names, is not what it should be; [`ErrorKind::Io`] where it
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let description = path.join(DESCRIPTION);
        let file = File::open(&description).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound if !path.exists() => Error::invalid(format!("{} does not exist", shown(path))),
            std::io::ErrorKind::NotFound => Error::invalid(format!("{} has no {DESCRIPTION}", shown(path)))
                .with_hint("name an image, or a directory that unluks fetch has finished"),
            std::io::ErrorKind::NotADirectory => {
                Error::invalid(format!("{} is no directory of a backup by unluks fetch", shown(path)))
            }
            _ => Error::io(format!("opening {}", shown(&description)), e),
        })?;
        let mut json = Vec::new();
        file.take(BACKUP_JSON_MAX + 1)
            .read_to_end(&mut json)
            .map_err(|e| Error::io(format!("reading {}", shown(&description)), e))?;
        if u64::try_from(json.len()).is_ok_and(|len| len > BACKUP_JSON_MAX) {
            let message = format!("it has more than {BACKUP_JSON_MAX} bytes");
            return Err(Error::limit("backup.json", message).within(shown(&description)));
        }
        let backup = Backup::parse(&json).map_err(|e| e.within(shown(&description)))?;
        let dir = Self { path: path.to_owned(), backup };
        for file in [dir.data_path(), dir.key_path()].into_iter().flatten() {
            check_own_file(&file)?;
        }
        Ok(dir)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The image's bytes, where they were kept.
    pub fn data_path(&self) -> Option<PathBuf> {
        self.backup.data.as_ref().map(|data| whole_or_first_piece(self.path.join(&data.file)))
    }

    /// The secret's payload, where there is one.
    pub fn key_path(&self) -> Option<PathBuf> {
        self.backup.key.as_ref().map(|key| self.path.join(&key.file))
    }

    /// Compares the image's bytes, of which there are `found`, with what they were.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the rule `data.size` where they are more or fewer.
    pub fn check_len(&self, found: u64) -> Result<()> {
        match &self.backup.data {
            Some(data) if data.size != found => {
                let message = format!("found {found} bytes; it had {} when it was fetched", data.size);
                Err(Error::corrupt("data.size", message).with_hint("fetch it again"))
            }
            _ => Ok(()),
        }
    }

    /// The hashes of the image's bytes that the cloud had, the strongest first.
    pub fn recorded_hashes(&self) -> Vec<RecordedHash<'_>> {
        let Some(image) = &self.backup.image else { return Vec::new() };
        let md5 = image.checksum.as_deref().map(|hex| ("image.checksum", "md5", hex));
        let os_hash = image.os_hash_algo.as_deref().zip(image.os_hash_value.as_deref());
        let os_hash = os_hash.map(|(algorithm, hex)| ("image.os_hash_value", algorithm, hex));
        let all = os_hash.into_iter().chain(md5);
        all.map(|(field, algorithm, hex)| RecordedHash { field, algorithm, hex }).collect()
    }

    /// The image's container format, where the cloud's word for it is one of ours.
    pub fn format(&self) -> Option<Format> {
        match self.backup.image.as_ref()?.disk_format.as_deref()? {
            "raw" | "luks" => Some(Format::Raw),
            "qcow2" => Some(Format::Qcow2),
            "vhd" => Some(Format::Vhd),
            "vhdx" => Some(Format::Vhdx),
            "vmdk" => Some(Format::Vmdk),
            _ => None,
        }
    }

    /// Reads the secret's payload; `None` where there is none.
    ///
    /// # Errors
    /// As [`read_key_file`]; [`ErrorKind::Corrupt`] where it has another size than it had.
    pub fn read_payload(&self) -> Result<Option<SecretBytes>> {
        let (Some(key), Some(path)) = (&self.backup.key, self.key_path()) else { return Ok(None) };
        let mut file = File::open(&path).map_err(|e| Error::io(format!("opening the key {}", shown(&path)), e))?;
        let payload = read_key_file(&mut file, 0, None).map_err(|e| e.within(shown(&path)))?;
        match u64::try_from(payload.len()) {
            Ok(len) if len == key.size => Ok(Some(payload)),
            _ => Err(Error::corrupt("key.size", format!("found {} bytes; it had {}", payload.len(), key.size))
                .within(shown(&path))
                .with_hint("it was changed since it was fetched: fetch the key again")),
        }
    }

    /// Reads the key, and makes it what opens the image; `None` where there is none.
    ///
    /// # Errors
    /// As [`BackupDir::read_payload`].
    pub fn read_key(&self) -> Result<Option<Key>> {
        let (Some(key), Some(payload)) = (&self.backup.key, self.read_payload()?) else { return Ok(None) };
        match key.becomes {
            Becomes::Hexlify => Key::barbican(&payload).map(Some),
            Becomes::Direct => Ok(Some(Key::passphrase(payload))),
        }
    }
}

/// A hash of the image's bytes as they were when they were fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedHash<'a> {
    field: &'static str,
    /// The name of the hash, such as `sha512`.
    pub algorithm: &'a str,
    /// The hash in lower-case hex.
    pub hex: &'a str,
}

impl RecordedHash<'_> {
    /// Compares the hash of the bytes that are there.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the field of the description as the rule.
    pub fn compare(&self, made: &str) -> Result<()> {
        if made == self.hex {
            return Ok(());
        }
        let message = format!("the image's {} is {made}; it was {} when it was fetched", self.algorithm, self.hex);
        Err(Error::corrupt(self.field, message).with_hint("the image was changed since: fetch it again"))
    }
}

/// The name that a new backup gives to an image's bytes: `image.raw`, by its disk format.
pub fn data_file_name(disk_format: Option<&str>) -> String {
    let plain = |f: &&str| !f.is_empty() && f.len() <= 16 && f.bytes().all(|b| b.is_ascii_alphanumeric());
    format!("image.{}", disk_format.filter(plain).unwrap_or("bin"))
}

/// A moment as RFC 3339 has it, in UTC and whole seconds.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (mut days, of_day) = (seconds / 86400, seconds % 86400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // Whole periods of 400 years are all alike, so the loops are short for any time.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for len in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < len {
            break;
        }
        days -= len;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

/// A description may come from anybody: it names files of its own directory, and none that is hidden or described here.
fn check_file_name(rule: &'static str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty()
        || name.len() > 255
        || name.starts_with(['.', '-'])
        || name == DESCRIPTION
        || !name.chars().all(plain)
    {
        let message = format!("found \"{}\"; the plain name of a file in the directory is wanted", escape(name));
        return Err(Error::corrupt(rule, message));
    }
    Ok(())
}

/// Refuses an id that is none: ids become parts of addresses.
///
/// # Errors
/// [`ErrorKind::Corrupt`] with `rule`.
pub fn check_id(rule: &'static str, id: &str) -> Result<()> {
    if !id.is_empty() && id.len() <= 64 && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        Ok(())
    } else {
        Err(Error::corrupt(rule, format!("found \"{}\"; an id of letters, digits and - is wanted", escape(id))))
    }
}

fn check_hex(rule: &'static str, hex: Option<&str>) -> Result<()> {
    match hex {
        Some(hex)
            if hex.is_empty() || hex.len() > 128 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
        {
            Err(Error::corrupt(rule, format!("found \"{}\"; lower-case hex is wanted", escape(hex))))
        }
        _ => Ok(()),
    }
}

/// The file, or its first piece where it was cut into pieces since.
fn whole_or_first_piece(path: PathBuf) -> PathBuf {
    if path.symlink_metadata().is_ok() {
        return path;
    }
    let piece = |end: &&str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    };
    let ends = [".000", ".001", ".00", ".01", ".0000", ".0001", ".aa", ".aaa"];
    ends.iter().map(piece).find(|piece| piece.is_file()).unwrap_or(path)
}

/// Refuses a link, which may lead out of the directory, and whatever else is no file.
fn check_own_file(path: &Path) -> Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{} is not there, though {DESCRIPTION} names it", shown(path));
            return Err(Error::new(ErrorKind::Corrupt, message).with_rule("backup.file").with_hint("fetch it again"));
        }
        Err(e) => return Err(Error::io(format!("looking at {}", shown(path)), e)),
    };
    if !kind.is_file() {
        let what = if kind.is_symlink() { "a link" } else { "no file" };
        let message = format!("{} is {what}; a backup's files are its own", shown(path));
        return Err(Error::corrupt("backup.file", message).with_hint("name the image itself, and its key with a flag"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
