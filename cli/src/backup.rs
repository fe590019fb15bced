//! A backup's directory in place of an image.

use unluks::backup::{BackupDir, DESCRIPTION};
use unluks::decrypt::hash::{Hashed, Of};
use unluks::files::Role;
use unluks::{Error, Key, Result};

use crate::args::SourceArgs;
use crate::source::{Source, WithinFile, is_dash};

/// A backup that the command line named, and whose image stands in its place from now on.
pub struct InBackup(BackupDir);

/// Puts a backup's image in the place of its directory; `None` where the command line names no directory.
pub fn enter(args: &mut SourceArgs) -> Result<Option<InBackup>> {
    if is_dash(&args.image) || !args.image.is_dir() {
        return Ok(None);
    }
    let dir = BackupDir::open(&args.image)?;
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
    Ok(Some(InBackup(dir)))
}

/// Adds what the cloud said to the error of an image without a LUKS header.
pub fn explain(backup: Option<&InBackup>, e: Error) -> Error {
    match backup.is_some_and(|b| b.0.backup.key.is_none()) && e.rule() == "magic" {
        true => e.with_hint("the cloud names no key of this image: it is not encrypted, and is its own plaintext"),
        false => e,
    }
}

impl InBackup {
    /// Refuses an image that is not as long as it was, and all of the backup's files as outputs.
    pub fn check(&self, source: &mut Source, allow_truncated: bool) -> Result<()> {
        source.inputs.add_path(&self.0.path().join(DESCRIPTION), Role::Description);
        if let Some(key) = self.0.key_path() {
            source.inputs.add_path(&key, Role::Key);
        }
        let found = source.file.len();
        let short = self.0.backup.data.as_ref().is_some_and(|data| found < data.size);
        match self.0.check_len(found) {
            Err(_) if short && allow_truncated => Ok(()),
            Err(e) if short => {
                Err(e.with_hint("fetch it again, or take the whole sectors that are there with --allow-truncated"))
            }
            other => other,
        }
    }

    /// The key; `None` where the backup has none.
    pub fn key(&self) -> Result<Option<Key>> {
        self.0.read_key()
    }

    /// Refuses an image whose hash is not the one that the cloud had.
    pub fn compare(&self, hashes: &[Hashed]) -> Result<()> {
        let Some(image) = &self.0.backup.image else { return Ok(()) };
        let md5 = image.checksum.as_deref().map(|hex| ("image.checksum", "md5", hex));
        let other = image.os_hash_algo.as_deref().zip(image.os_hash_value.as_deref());
        let other = other.map(|(name, hex)| ("image.os_hash_value", name, hex));
        for (rule, name, recorded) in md5.into_iter().chain(other) {
            let made = hashes.iter().find(|h| h.of == Of::Image && h.algorithm.name() == name);
            if let Some(h) = made.filter(|h| h.hex != recorded) {
                let message = format!("the image's {name} is {}; it was {recorded} when it was fetched", h.hex);
                return Err(Error::corrupt(rule, message).with_hint("the image was changed since: fetch it again"));
            }
        }
        Ok(())
    }
}
