//! A backup's directory in place of an image.

use std::sync::OnceLock;

use unluks::backup::{BackupDir, DESCRIPTION, Encryption};
use unluks::decrypt::hash::{Algorithm, Hashed, Of, Wanted};
use unluks::error::{Condition, escape};
use unluks::files::Role;
use unluks::verify::{Expected, MustBe};
use unluks::{Error, Key, Result, VolumeKey};

use crate::args::SourceArgs;
use crate::source::{Source, WithinFile, is_dash};

/// A backup that the command line named, and whose image stands in its place from now on.
pub struct InBackup {
    dir: BackupDir,
    /// The key of data without a header, which nothing proves.
    unproven: OnceLock<VolumeKey>,
}

/// Puts a backup's image in the place of its directory; `None` where the command line names no directory.
pub fn enter(args: &mut SourceArgs) -> Result<Option<InBackup>> {
    if is_dash(&args.image) || !args.image.is_dir() {
        return Ok(None);
    }
    // One that Cinder made is no backup of ours, unless we fetched its key into it.
    let own = args.image.join(DESCRIPTION).symlink_metadata().is_ok();
    if !own && unluks::cinder::is_tree(&args.image) {
        return Ok(None);
    }
    let dir = BackupDir::open(&args.image)?;
    if dir.data_path().is_none() && unluks::cinder::is_tree(&args.image) {
        return Ok(Some(InBackup { dir, unproven: OnceLock::new() }));
    }
    let Some(data) = dir.data_path() else {
        let error = Error::invalid("the backup holds no image").within_file(&args.image);
        return Err(match dir.backup.plaintext {
            Some(_) => error.with_hint("it was decrypted while it was fetched, and the ciphertext was not kept"),
            None => {
                error.with_hint("only a key was fetched: name the image, and the key with --barbican-key or --key-file")
            }
        });
    };
    args.image = data;
    args.format = args.format.or(dir.format());
    Ok(Some(InBackup { dir, unproven: OnceLock::new() }))
}

/// Adds what the cloud said to the error of an image without a LUKS header.
pub fn explain(backup: Option<&InBackup>, e: Error) -> Error {
    let without_key = backup.map(|b| &b.dir.backup).filter(|backup| backup.key.is_none() && e.is(Condition::NoHeader));
    if let Some(backup) = without_key {
        e.with_hint(match backup.key_left_out() {
            Some(_) => "the cloud names a key of this image, which was left out when it was fetched",
            None => "the cloud names no key of this image: it is not encrypted, and is its own plaintext",
        })
    } else {
        e
    }
}

impl InBackup {
    /// None of the backup's files may be an output; and what was cut into pieces is the one file that the backup knows.
    pub fn keep_from_outputs(&self, source: &mut Source) {
        if let Some(data) = &self.dir.backup.data {
            source.join(self.dir.path().join(&data.file));
        }
        source.inputs.add_path(&self.dir.path().join(DESCRIPTION), Role::Description);
        if let Some(key) = self.dir.key_path() {
            source.inputs.add_path(&key, Role::Key);
        }
    }

    /// Refuses an image that is not as long as it was.
    pub fn check_len(&self, source: &Source, allow_truncated: bool) -> Result<()> {
        let found = source.file.len();
        let short = self.dir.backup.data.as_ref().is_some_and(|data| found < data.size);
        match self.dir.check_len(found) {
            Err(_) if short && allow_truncated => Ok(()),
            Err(e) if short => {
                Err(e.with_hint("fetch it again, or take the whole sectors that are there with --allow-truncated"))
            }
            other => other,
        }
    }

    /// Whether its image was encrypted, by all that the cloud and the backup say of it.
    pub fn is_encrypted(&self) -> bool {
        let backup = &self.dir.backup;
        let volume = backup.volume.as_ref().and_then(|volume| volume.encryption.as_ref());
        backup.key.is_some() || backup.key_left_out().is_some() || volume.is_some()
    }

    /// The encryption of a volume whose data has no header.
    pub fn plain(&self) -> Option<&Encryption> {
        self.dir.backup.plain()
    }

    /// Keeps the key of data without a header.
    pub fn set_unproven(&self, key: &VolumeKey) -> Result<()> {
        // Whoever sets it again has the same.
        let _ = self.unproven.set(VolumeKey::copy_of(key.expose())?);
        Ok(())
    }

    /// The key of data without a header, where it is such.
    pub fn unproven(&self) -> Option<&VolumeKey> {
        self.unproven.get()
    }

    /// The key; `None` where the backup has none.
    pub fn key(&self) -> Result<Option<Key>> {
        self.dir.read_key()
    }

    /// The hash of the image to make on the way: the strongest that was recorded, and that is known here. `None` where none
    /// was recorded.
    pub fn wanted(&self) -> Result<Option<Wanted>> {
        let recorded = self.dir.recorded_hashes();
        let known = recorded.iter().find_map(|recorded| recorded.algorithm.parse().ok());
        match (known, recorded.first()) {
            (Some(algorithm), _) => Ok(Some(Wanted { of: Of::Image, algorithm })),
            (None, None) => Ok(None),
            (None, Some(recorded)) => {
                let message = format!(
                    "the hash that was recorded of the image is {}, which is not known here",
                    escape(recorded.algorithm)
                );
                Err(Error::unsupported("image.os_hash_algo", message)
                    .with_hint("--no-compare takes the image without comparing it"))
            }
        }
    }

    /// The strongest hash that was recorded of the image, and that of its plaintext where it was decrypted on the way.
    pub fn expected(&self) -> Vec<Expected> {
        let by = || DESCRIPTION.to_owned();
        let image = self.dir.recorded_hashes().into_iter().find_map(|recorded| {
            let algorithm = recorded.algorithm.parse().ok()?;
            Some(Expected { of: Of::Image, algorithm, hex: recorded.hex.to_owned(), by: by() })
        });
        let plaintext = self.dir.backup.plaintext.as_ref().map(|plaintext| {
            let (of, algorithm) = (Of::Plaintext, Algorithm::Sha256);
            Expected { of, algorithm, hex: plaintext.sha256.clone(), by: by() }
        });
        image.into_iter().chain(plaintext).collect()
    }

    /// The bytes of its plaintext, where they were recorded.
    pub fn plaintext_bytes(&self) -> Option<u64> {
        self.dir.backup.plaintext.as_ref().map(|plaintext| plaintext.size)
    }

    /// When it was fetched.
    pub fn fetched_at(&self) -> String {
        self.dir.backup.fetched_at.clone()
    }

    /// What must be in its plaintext.
    pub fn must_be(&self) -> Option<MustBe> {
        MustBe::of_backup(&self.dir.backup)
    }

    /// Refuses an image whose hash is not the one that the cloud had; otherwise says which hashes are the same.
    pub fn compare(&self, hashes: &[Hashed]) -> Result<String> {
        let mut same = Vec::new();
        for recorded in self.dir.recorded_hashes() {
            let is_same =
                |h: &&Hashed| recorded.algorithm.parse().is_ok_and(|algorithm: Algorithm| algorithm == h.algorithm);
            let made = hashes.iter().filter(|h| h.of == Of::Image).find(is_same);
            if let Some(made) = made {
                recorded.compare(&made.hex)?;
                same.push(format!("{} {}", recorded.algorithm, recorded.hex));
            }
        }
        Ok(if same.is_empty() {
            "warning: the image was not compared: no hash was recorded of it".into()
        } else {
            format!("the image is as it was fetched: {}", same.join(", "))
        })
    }
}
