//! Key material from the command line, a prompt, or the standard input.

mod explain;
pub mod prompt;

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use unluks::error::counted;
use unluks::files::{Inputs, Role};
use unluks::key::{Seen, VolumeKeyForm, read_first_line, read_key_file, volume_key_forms};
use unluks::luks::unlock::{UnlockOptions, cost};
use unluks::num::to_usize;
use unluks::{Error, ErrorKind, Image, Key, Limits, Passphrase, Result, SecretBytes, UnlockedImage, VolumeKey};

use crate::args::{KeyArgs, LimitArgs};
use crate::backup::InBackup;
use crate::progress::Derivations;
use crate::source::{is_dash, shown, stdin};

/// What the user gave to open the image with.
pub enum Material {
    Passphrases(Passphrases),
    /// Whoever sits at the terminal is asked; these are tried, too.
    Ask {
        also: Option<Key>,
    },
    /// The volume keys that a file may stand for.
    VolumeKey(Vec<VolumeKeyForm>),
}

/// Passphrases, and what is known of them.
pub struct Passphrases {
    pub key: Key,
    /// The forms were guessed, so that the one that opens is worth a word.
    pub guessed: bool,
    /// What the file visibly is, where it holds no key.
    pub seen: Option<Seen>,
}

/// A keyslot that takes longer than this in all its forms is announced with its time.
const WORTH_SAYING: Duration = Duration::from_secs(10);
/// As often as cryptsetup asks.
const ATTEMPTS: u32 = 3;

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
pub fn paths(args: &KeyArgs) -> impl Iterator<Item = &PathBuf> {
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
    let mut also: Option<Key> = None;
    let mut add = |key: Key| {
        also = Some(match also.take() {
            Some(also) => also.and(key),
            None => key,
        });
    };
    if let Some(key) = backup.and_then(InBackup::unproven) {
        if paths(args).next().is_some() {
            let message = "the backup is of data without a header, and its own key opens it";
            return Err(Error::invalid(message).with_hint("unluks decrypt --type plain takes another key"));
        }
        let rule = "the backup's own, which nothing proves";
        return Ok(Material::VolumeKey(vec![VolumeKeyForm {
            rule,
            key: VolumeKey::copy_of(key.expose())?,
            table: None,
        }]));
    }
    let first = read_first(args, stdin_is_image, backup)?;
    for path in &args.also_key_file {
        add(Key::passphrase(with_file(path, |f| read_key_file(f, 0, None))?));
    }
    for path in &args.also_passphrase_file {
        add(Key::line(with_file(path, read_first_line)?)?);
    }
    Ok(match first {
        Material::Passphrases(Passphrases { key, guessed, seen }) => {
            let key = match also {
                Some(also) => key.and(also),
                None => key,
            };
            Material::Passphrases(Passphrases { key, guessed, seen })
        }
        Material::Ask { .. } => Material::Ask { also },
        volume_key @ Material::VolumeKey(_) => volume_key,
    })
}

fn read_first(args: &KeyArgs, stdin_is_image: bool, backup: Option<&InBackup>) -> Result<Material> {
    let all = |path: &Path| with_file(path, |f| read_key_file(f, 0, None));
    let plain = |key, seen| Material::Passphrases(Passphrases { key, guessed: false, seen });
    if let Some(path) = &args.barbican_key {
        let payload = all(path)?;
        return Ok(plain(Key::barbican(&payload)?, Seen::of(&payload)));
    }
    if let Some(path) = &args.key_file {
        let size = args.keyfile_size.map(to_usize).transpose()?;
        let offset = args.keyfile_offset.unwrap_or(0);
        let key = with_file(path, |f| read_key_file(f, offset, size))?;
        let seen = Seen::of(&key);
        return Ok(plain(Key::passphrase(key), seen));
    }
    if let Some(path) = &args.passphrase_file {
        return Ok(plain(Key::line(with_file(path, read_first_line)?)?, None));
    }
    if let Some(path) = &args.key {
        let saved = all(path)?;
        let (key, seen) = (Key::guess(&saved)?, Seen::of(&saved));
        return Ok(Material::Passphrases(Passphrases { key, guessed: true, seen }));
    }
    if let Some(path) = &args.volume_key_file {
        return volume_key_forms(all(path)?.expose()).map(Material::VolumeKey).map_err(|e| e.within(shown(path)));
    }
    if let Some(key) = backup.map(InBackup::key).transpose()?.flatten() {
        return Ok(plain(key, None));
    }
    if std::io::stdin().is_terminal() || stdin_is_image {
        Ok(Material::Ask { also: None })
    } else {
        Ok(plain(Key::line(read_first_line(&mut stdin()?)?)?, None))
    }
}

fn with_file(path: &Path, read: impl FnOnce(&mut File) -> Result<SecretBytes>) -> Result<SecretBytes> {
    let mut file = if is_dash(path) { stdin()? } else { File::open(path).map_err(|e| explain::opening(path, e))? };
    read(&mut file).map_err(|e| e.within(shown(path)))
}

pub fn limits(args: &LimitArgs) -> Limits {
    let mut limits = Limits::for_this_machine();
    limits.kdf_memory = args.max_kdf_memory.unwrap_or(limits.kdf_memory);
    limits.kdf_time = args.max_kdf_time.unwrap_or(limits.kdf_time);
    limits
}

/// What the command line says about unlocking.
pub fn options(allow_foreign_segments: bool, key: &KeyArgs, limits: &LimitArgs) -> UnlockOptions {
    UnlockOptions { keyslot: key.key_slot, limits: self::limits(limits), allow_foreign_segments, watch: None }
}

/// What is said on the way, and of which image.
pub struct Saying {
    pub image: String,
    pub quiet: bool,
}

/// Opens the image, and says on the standard error how.
pub fn unlock(image: &Image, material: &Material, options: &UnlockOptions, saying: &Saying) -> Result<UnlockedImage> {
    let mut err = anstream::stderr();
    if image.is_plain() && !matches!(material, Material::VolumeKey(_)) {
        let message = "the data has no header, and the backup no key";
        return Err(Error::invalid(message).with_hint("unluks decrypt --type plain takes one"));
    }
    match material {
        Material::VolumeKey(forms) => unlock_with_volume_key(image, forms, options, saying.quiet),
        Material::Passphrases(passphrases) => unlock_with(image, passphrases, options, saying.quiet),
        Material::Ask { also } => {
            for attempt in 1.. {
                let also = also.as_ref().map(Key::try_clone).transpose()?;
                let passphrases = ask_once(&saying.image, also)?;
                match unlock_with(image, &passphrases, options, saying.quiet) {
                    Err(e) if e.kind() == ErrorKind::WrongKey && attempt < ATTEMPTS => {
                        let _ = writeln!(err, "{}", crate::hint::line(&e));
                    }
                    result => return result,
                }
            }
            Err(Error::invalid("nobody was asked"))
        }
    }
}

/// What was typed, where somebody has to be asked.
pub fn asked(material: Material, image: &Path) -> Result<Material> {
    match material {
        Material::Ask { also } => ask_once(&shown(image), also).map(Material::Passphrases),
        material => Ok(material),
    }
}

/// A passphrase that is typed, with these behind it.
pub fn ask_once(image: &str, also: Option<Key>) -> Result<Passphrases> {
    let typed = Key::line(prompt::ask(image)?)?;
    let key = match also {
        Some(also) => typed.and(also),
        None => typed,
    };
    Ok(Passphrases { key, guessed: false, seen: None })
}

fn unlock_with_volume_key(
    image: &Image,
    forms: &[VolumeKeyForm],
    options: &UnlockOptions,
    quiet: bool,
) -> Result<UnlockedImage> {
    if let Some(form) = forms.first().filter(|_| image.is_plain()) {
        return image.unlock_unproven(VolumeKey::copy_of(form.key.expose())?, options);
    }
    let mut wrong = None;
    for form in forms {
        match image.unlock_with_volume_key(VolumeKey::copy_of(form.key.expose())?, options) {
            Ok(unlocked) => {
                if !quiet {
                    let _ = writeln!(anstream::stderr(), "opened with the volume key: {}", form.rule);
                }
                return Ok(unlocked);
            }
            // The last form is the one that the file has the shape of.
            Err(e) if e.kind() == ErrorKind::WrongKey => wrong = Some(e),
            Err(e) => return Err(e),
        }
    }
    Err(wrong.unwrap_or_else(|| Error::invalid("no volume key was given")))
}

/// A key for data without keyslots.
pub enum Saved {
    /// It is to be hashed.
    Passphrase(Passphrase),
    /// Its first bytes are the key.
    KeyFile(SecretBytes),
    /// It is the volume key, in some form.
    VolumeKey(SecretBytes),
    /// Nobody knows how it was saved.
    Unknown,
}

/// Reads the key for data without keyslots, as cryptsetup takes it for such: a key file through the standard input is
/// hashed like a passphrase, another one is not.
pub fn saved(args: &KeyArgs, stdin_is_image: bool, image: &str) -> Result<Saved> {
    let all = |path: &Path| with_file(path, |f| read_key_file(f, 0, None));
    if let Some(path) = &args.barbican_key {
        let key = Key::barbican(&all(path)?)?;
        let hex = key.candidates().first().ok_or_else(|| Error::invalid("the key is empty"))?;
        return Passphrase::copy_of(hex.passphrase.expose()).map(Saved::Passphrase);
    }
    if let Some(path) = &args.key_file {
        let size = args.keyfile_size.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let key = with_file(path, |f| read_key_file(f, args.keyfile_offset.unwrap_or(0), size))?;
        return Ok(if is_dash(path) { Saved::Passphrase(Passphrase(key)) } else { Saved::KeyFile(key) });
    }
    if let Some(path) = &args.volume_key_file {
        return all(path).map(Saved::VolumeKey);
    }
    if args.key.is_some() {
        return Ok(Saved::Unknown);
    }
    let line = match &args.passphrase_file {
        Some(path) => with_file(path, read_first_line)?,
        None if std::io::stdin().is_terminal() || stdin_is_image => prompt::ask(image)?,
        None => read_first_line(&mut stdin()?)?,
    };
    // Nothing would tell which of two is right: CR is what Windows puts before LF.
    let line = match line.expose().strip_suffix(b"\r") {
        Some(text) => SecretBytes::copy_of(text)?,
        None => line,
    };
    Ok(Saved::Passphrase(Passphrase(line)))
}

fn unlock_with(image: &Image, given: &Passphrases, options: &UnlockOptions, quiet: bool) -> Result<UnlockedImage> {
    let mut err = anstream::stderr();
    let candidates = given.key.candidates();
    if given.guessed && !quiet {
        let cost = cost(image.metadata(), &given.key, options)?;
        let time =
            if cost.time > WORTH_SAYING { format!(", {} s at most", cost.time.as_secs()) } else { String::new() };
        let (forms, n) = (candidates.len(), cost.derivations);
        let _ =
            writeln!(err, "trying {} of the key: up to {}{time}", counted(forms, "form"), counted(n, "key derivation"));
    }
    let shown = Derivations::new(quiet, cost(image.metadata(), &given.key, options).map_or(Duration::ZERO, |c| c.time));
    let options = UnlockOptions { watch: shown.watch(), ..options.clone() };
    let unlocked = image.unlock(&given.key, &options);
    shown.finish();
    let unlocked = unlocked.map_err(|e| explain::wrong(e, given))?;
    for opened in unlocked.opened().iter().filter(|_| !quiet) {
        let rule = candidates.get(opened.candidate).map_or_else(String::new, |c| c.rule.describe());
        let _ = writeln!(err, "keyslot {} opened with the key: {rule}", opened.keyslot);
    }
    Ok(unlocked)
}
