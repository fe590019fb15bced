//! Key material from the command line, a prompt, or the standard input.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use unluks::files::{Inputs, Role};
use unluks::key::{read_first_line, read_key_file};
use unluks::luks::unlock::{UnlockOptions, derivations};
use unluks::num::to_usize;
use unluks::{Error, Image, Key, Limits, Result, SecretBytes, UnlockedImage, VolumeKey};

use crate::args::{KeyArgs, LimitArgs};
use crate::backup::InBackup;
use crate::source::{is_dash, shown, stdin};

/// What the user gave to open the image with.
pub enum Material {
    Passphrases { key: Key, guessed: bool },
    VolumeKey(VolumeKey),
}

/// Refuses what cannot be, before anything is read.
pub fn check(args: &KeyArgs, stdin_is_image: bool) -> Result<()> {
    // Clap waives a requirement that is in conflict with another flag.
    if args.key_file.is_none() && (args.keyfile_offset.is_some() || args.keyfile_size.is_some()) {
        return Err(Error::invalid("--keyfile-offset and --keyfile-size are for --key-file"));
    }
    if stdin_is_image && paths(args).any(|path| is_dash(path)) {
        Err(Error::invalid("the standard input cannot be both the image and the key"))
    } else {
        Ok(())
    }
}

/// All files that hold keys.
fn paths(args: &KeyArgs) -> impl Iterator<Item = &PathBuf> {
    let first = [&args.barbican_key, &args.key_file, &args.passphrase_file, &args.key, &args.volume_key_file];
    first.into_iter().flatten().chain(&args.also_key_file).chain(&args.also_passphrase_file)
}

/// Takes note of the keys as inputs, before any of them is read. The standard input may be one, also unnamed.
pub fn note(args: &KeyArgs, inputs: &mut Inputs) -> Result<()> {
    inputs.add(&stdin()?, "the standard input", Role::Key)?;
    for path in paths(args).filter(|path| !is_dash(path)) {
        inputs.add_path(path, Role::Key);
    }
    Ok(())
}

/// Reads the key, and what is to be tried beside it. `stdin_is_image` says that the standard input is taken; a backup's
/// own key stands back behind one that was named.
pub fn read(args: &KeyArgs, stdin_is_image: bool, backup: Option<&InBackup>) -> Result<Material> {
    match read_first(args, stdin_is_image, backup)? {
        Material::Passphrases { mut key, guessed } => {
            for path in &args.also_key_file {
                key = key.and(Key::passphrase(with_file(path, |f| read_key_file(f, 0, None))?));
            }
            for path in &args.also_passphrase_file {
                key = key.and(Key::passphrase(with_file(path, read_first_line)?));
            }
            Ok(Material::Passphrases { key, guessed })
        }
        volume_key => Ok(volume_key),
    }
}

fn read_first(args: &KeyArgs, stdin_is_image: bool, backup: Option<&InBackup>) -> Result<Material> {
    let all = |path: &Path| with_file(path, |f| read_key_file(f, 0, None));
    let plain = |bytes| Material::Passphrases { key: Key::passphrase(bytes), guessed: false };
    if let Some(path) = &args.barbican_key {
        return Ok(Material::Passphrases { key: Key::barbican(&all(path)?)?, guessed: false });
    }
    if let Some(path) = &args.key_file {
        let size = args.keyfile_size.map(to_usize).transpose()?;
        let offset = args.keyfile_offset.unwrap_or(0);
        return with_file(path, |f| read_key_file(f, offset, size)).map(plain);
    }
    if let Some(path) = &args.passphrase_file {
        return with_file(path, read_first_line).map(plain);
    }
    if let Some(path) = &args.key {
        return Ok(Material::Passphrases { key: Key::guess(&all(path)?)?, guessed: true });
    }
    if let Some(path) = &args.volume_key_file {
        return Ok(Material::VolumeKey(VolumeKey(all(path)?)));
    }
    if let Some(key) = backup.map(InBackup::key).transpose()?.flatten() {
        return Ok(Material::Passphrases { key, guessed: false });
    }
    if std::io::stdin().is_terminal() || stdin_is_image {
        prompt().map(plain)
    } else {
        read_first_line(&mut stdin()?).map(plain)
    }
}

fn with_file(path: &Path, read: impl FnOnce(&mut File) -> Result<SecretBytes>) -> Result<SecretBytes> {
    let mut file = if is_dash(path) {
        stdin()?
    } else {
        File::open(path).map_err(|e| Error::io(format!("opening the key {}", shown(path)), e))?
    };
    read(&mut file).map_err(|e| e.within(shown(path)))
}

/// Asks on the terminal, without echo. A signal at the prompt puts the terminal back before it ends the program.
fn prompt() -> Result<SecretBytes> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let no_terminal = |e| {
        Error::io("asking for the passphrase", e)
            .with_hint("give a key with --barbican-key, --key-file, --passphrase-file or --key")
    };
    let open = || File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal);
    let (mut tty, tty_at_signal) = (open()?, open()?);
    let before = tcgetattr(&tty).map_err(|e| no_terminal(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(no_terminal)?;
    let handle = signals.handle();
    let at_signal = before.clone();
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            let _ = tcsetattr(&tty_at_signal, OptionalActions::Now, &at_signal);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    };
    let watch = std::thread::Builder::new().name("prompt".into()).spawn(watch).map_err(no_terminal)?;
    // The echo is off before the prompt shows, so that no key of a quick typist is seen.
    tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(|e| no_terminal(e.into()))?;
    let line = tty.write_all(b"Passphrase: ").map_err(no_terminal).and_then(|()| read_first_line(&mut tty));
    let _ = tcsetattr(&tty, OptionalActions::Now, &before);
    handle.close();
    let _ = watch.join();
    line
}

pub fn limits(args: &LimitArgs) -> Limits {
    let mut limits = Limits::for_this_machine();
    limits.kdf_memory = args.max_kdf_memory.unwrap_or(limits.kdf_memory);
    limits.kdf_time = args.max_kdf_time.unwrap_or(limits.kdf_time);
    limits
}

/// What the command line says about unlocking.
pub fn options(allow_foreign_segments: bool, key: &KeyArgs, limits: &LimitArgs) -> UnlockOptions {
    UnlockOptions { keyslot: key.key_slot, limits: self::limits(limits), allow_foreign_segments }
}

/// Opens the image, and says on the standard error how.
pub fn unlock(image: &Image, material: Material, options: &UnlockOptions, quiet: bool) -> Result<UnlockedImage> {
    let mut err = anstream::stderr();
    match material {
        Material::VolumeKey(key) => image.unlock_with_volume_key(key, options),
        Material::Passphrases { key, guessed } => {
            if guessed && !quiet {
                let n = derivations(image.metadata(), &key, options)?;
                let _ = writeln!(err, "trying {} forms of the key: up to {n} key derivations", key.candidates().len());
            }
            let empty = key.candidates().iter().all(|c| c.passphrase.expose().is_empty());
            let unlocked = image.unlock(&key, options).map_err(|e| {
                if empty && e.kind() == unluks::ErrorKind::WrongKey {
                    e.with_hint("the passphrase is empty: was a key given?")
                } else {
                    e
                }
            })?;
            for opened in unlocked.opened().iter().filter(|_| !quiet) {
                let rule = key.candidates().get(opened.candidate).map_or("", |c| c.rule.describe());
                let _ = writeln!(err, "keyslot {} opened with the key: {rule}", opened.keyslot);
            }
            Ok(unlocked)
        }
    }
}
