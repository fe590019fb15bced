//! `unluks fetch`: an image, or just a key, out of OpenStack.

mod backup;
mod image;
mod key;
mod volume;

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use unluks::backup::{Becomes, StoredKey};
use unluks::files::{Existing, write_whole};
use unluks::num::to_u64;
use unluks::progress::Progress;
use unluks::{Error, Key, Result};
use unluks_openstack::secret::Secret;
use unluks_openstack::{Cloud, Options};

use crate::args::fetch::{CloudArgs, What};
use crate::signals;
use crate::source::shown;

pub fn run(what: &What) -> Result<ExitCode> {
    match what {
        What::Image(args) => image::run(args),
        What::Key(args) => key::run(args),
        What::Volume(args) => volume::run(args),
        What::Backup(args) => backup::run(args),
    }
}

/// Logs in. From here on the first signal stops all in good order, and a second one ends the program at once.
pub fn connect(args: &CloudArgs, progress: &Progress) -> Result<Cloud> {
    let flag = progress.cancel_flag();
    signals::stop_by(&flag)?;
    let cloud = Cloud::connect(Options { name: args.cloud.clone(), retries: args.retries, cancelled: flag })?;
    for note in cloud.notes() {
        let _ = writeln!(anstream::stderr(), "warning: {note}");
    }
    Ok(cloud)
}

/// For work that is taken back where it fails: the first signal stops it, a second one stops the taking back, and a third
/// one ends the program. Gives what the second one sets.
///
/// A request that changes something is not cut off by the first: nobody would know what became of it.
pub fn catch_signals(progress: &Progress) -> Result<Arc<AtomicBool>> {
    let mut caught = signal_hook::iterator::Signals::new(signals::stopping()).map_err(signals::failed)?;
    let (first, abort) = (progress.cancel_flag(), Arc::new(AtomicBool::new(false)));
    let second = Arc::clone(&abort);
    signals::outlive_file_size_limit()?;
    std::thread::spawn(move || {
        for signal in caught.forever() {
            if !first.swap(true, Ordering::Relaxed) {
                let _ = writeln!(anstream::stderr(), "stopping; what was made in the cloud is deleted again");
            } else if second.swap(true, Ordering::Relaxed) {
                drop(signal_hook::low_level::emulate_default_handler(signal));
            }
        }
    });
    Ok(abort)
}

/// Makes a directory that only its owner may look into.
pub fn make_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::io(format!("making {}", shown(path)), e))
}

/// Writes a key whole or not at all, with mode 0600. Another key that is there is not overwritten: it may be the last copy.
pub fn write_key(path: &Path, secret: &Secret) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let there = File::open(path).map_err(|e| Error::io(format!("opening {}", shown(path)), e))?;
        let there = unluks::key::read_key_file(&mut &there, 0, None).map_err(|e| e.within(shown(path)))?;
        return if there.expose() == secret.payload.expose() {
            Ok(())
        } else {
            Err(Error::invalid(format!("{} is there already, and is another key", shown(path)))
                .with_hint("name another directory, or move it away"))
        };
    }
    write_whole(path, secret.payload.expose(), Existing::Keep)
}

/// What a backup says of a key.
pub fn describe(secret: &Secret, file: &str, property: Option<&str>) -> StoredKey {
    StoredKey {
        file: file.to_owned(),
        size: to_u64(secret.payload.len()),
        becomes: Becomes::of_secret(&secret.info.secret_type),
        property: property.map(str::to_owned),
        secret: secret.info.clone(),
    }
}

/// What the key opens an image with.
pub fn opens_with(secret: &Secret) -> Result<Key> {
    match Becomes::of_secret(&secret.info.secret_type) {
        Becomes::Hexlify => Key::barbican(&secret.payload),
        Becomes::Direct => unluks::SecretBytes::copy_of(secret.payload.expose()).map(Key::passphrase),
    }
}
