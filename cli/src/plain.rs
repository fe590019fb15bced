//! `--type plain`: data without a header, by what the command line says of it, or a line of dmsetup.

use std::io::Write;
use std::sync::Arc;

use unluks::error::{counted, escape};
use unluks::inside::Contents;
use unluks::key::{PlainHash, VolumeKeyForm, raw_key, volume_key_forms};
use unluks::locate::Place;
use unluks::luks::unlock::UnlockOptions;
use unluks::volume::VolumeOptions;
use unluks::{Error, Image, Passphrase, PlainOptions, ReadAt, Result, Volume, VolumeKey};

use crate::args::KeyArgs;
use crate::args::plain::PlainArgs;
use crate::backup::InBackup;
use crate::key::{self, Saved};
use crate::source::Source;

/// cryptsetup's defaults from 2.7 on.
const CIPHER: &str = "aes-xts-plain64";
const HASH: &str = "sha256";
const KEY_BITS: u32 = 256;
/// What is said where a default is taken.
const OLDER: &str = "as cryptsetup has it from 2.7 on; before, it was aes-cbc-essiv:sha256 with ripemd160";

/// What a passphrase is hashed with where nobody says it: the defaults of cryptsetup from 2.7 on, and before.
const HASHES: [&str; 2] = [HASH, "ripemd160"];

/// Data for what the command line takes it for, and its key.
pub struct Plain {
    pub image: Image,
    /// `None` where the data is a backup's that has none.
    pub key: Option<VolumeKey>,
    /// What was taken for granted, one line each.
    pub notes: Vec<String>,
}

/// What there is to make the key of.
enum Given {
    Key(VolumeKey),
    Hashed(Passphrase),
    Nothing,
}

/// Reads the key, of which nothing will tell whether it is right. What is not said is as the backup has it, which the data is
/// of, and then as cryptsetup has it.
pub fn open(
    source: &Source,
    args: &PlainArgs,
    keys: &KeyArgs,
    stdin_is_image: bool,
    backup: Option<&InBackup>,
) -> Result<Plain> {
    if let Place::Qcow2Luks(_) = source.place() {
        return Err(Error::invalid("--type plain is for data without a header, and this qcow2 image has its own"));
    }
    if keys.key_slot.is_some() || !keys.also_key_file.is_empty() || !keys.also_passphrase_file.is_empty() {
        let message =
            "--key-slot, --also-key-file and --also-passphrase-file are for keyslots, which plain data has not";
        return Err(Error::invalid(message));
    }
    let volume = backup.and_then(InBackup::plain);
    let volume_bits = volume.and_then(|volume| volume.key_size).map(|bits| u32::try_from(bits).unwrap_or(u32::MAX));
    let bits = args.key_size.or(volume_bits).unwrap_or(KEY_BITS);
    if !bits.is_multiple_of(8) {
        return Err(Error::invalid(format!("a key of {bits} bits is no number of whole bytes")));
    }
    let size = usize::try_from(bits / 8).unwrap_or(usize::MAX);
    let mut notes = Vec::new();
    let mut table = None;
    let is_own = backup.is_some() && key::paths(keys).next().is_none();
    let given = if let Some(backup) = backup.filter(|_| is_own) {
        match backup.key()?.as_ref().and_then(|key| key.candidates().first()) {
            Some(first) => Given::Hashed(Passphrase::copy_of(first.passphrase.expose())?),
            None => Given::Nothing,
        }
    } else {
        match key::saved(keys, stdin_is_image, &source.shown())? {
            Saved::Passphrase(passphrase) => Given::Hashed(passphrase),
            Saved::KeyFile(file) => Given::Key(raw_key(file.expose(), size)?),
            Saved::VolumeKey(saved) => {
                let form = choose(volume_key_forms(saved.expose())?, args.key_size.map(|_| size))?;
                notes.push(format!("the volume key is taken from {}", form.rule));
                table = form.table;
                Given::Key(form.key)
            }
            Saved::Unknown => {
                let message = "--key tries forms of a key, and without a header nothing tells which of them is right";
                return Err(
                    Error::invalid(message).with_hint("say what it is, with --passphrase-file or --volume-key-file")
                );
            }
        }
    };
    let of_table = table.as_ref();
    let said = args.cipher.clone().or(of_table.map(|table| table.cipher.clone()));
    let cipher = said.or(volume.and_then(|volume| volume.cipher.clone())).unwrap_or_else(|| {
        notes.push(format!("the cipher is taken to be {CIPHER}, {OLDER}: --cipher names another"));
        CIPHER.to_owned()
    });
    let options = PlainOptions {
        cipher,
        sector_size: args.sector_size.or(of_table.map(|t| t.sector_size)).unwrap_or(512),
        iv_offset: args.iv_offset.or(of_table.map(|t| t.iv_offset)).unwrap_or(0),
        // The table counts from the start of its device: an offset that is named leads there already.
        offset: of_table.filter(|_| !source.has_offset()).map_or(0, |t| t.offset),
        size: of_table.map(|t| t.len),
    };
    let image = Image::plain(Arc::clone(source.place().source()), options.clone());
    let mut hashed = String::new();
    let key = match given {
        Given::Key(key) => Some(key),
        Given::Nothing => None,
        Given::Hashed(passphrase) => {
            let (key, how) = hash(args, &image, &passphrase, size, if is_own { &HASHES } else { &HASHES[..1] })?;
            match volume {
                Some(_) => hashed = format!(", {how}"),
                None if args.plain_hash.is_none() => notes.push(how),
                None => {}
            }
            Some(key)
        }
    };
    let of_backup = if volume.is_some() { "the volume's type has the provider plain: " } else { "" };
    let bits = key.as_ref().map_or(size, |key| key.expose().len()).saturating_mul(8);
    notes.push(format!(
        "{of_backup}no header: {}, a key of {}, sectors of {} bytes, IV offset {}, from byte {} on{hashed}",
        escape(&options.cipher),
        counted(bits, "bit"),
        options.sector_size,
        options.iv_offset,
        options.offset
    ));
    Ok(Plain { image, key, notes })
}

/// The key that a passphrase becomes, and by which hash. For a volume of a cloud that is the default of the cryptsetup on its
/// hypervisor, which the cloud does not tell: it is the one by which the data begins as something known.
fn hash(
    args: &PlainArgs,
    image: &Image,
    passphrase: &Passphrase,
    size: usize,
    names: &[&str],
) -> Result<(VolumeKey, String)> {
    if let Some(name) = &args.plain_hash {
        let key = PlainHash::parse(name)?.key(passphrase, size)?;
        return Ok((key, format!("the passphrase is hashed with {}", escape(name))));
    }
    if names.len() > 1 {
        let mut known = Vec::new();
        for name in names {
            let key = PlainHash::parse(name)?.key(passphrase, size)?;
            if let Some(contents) = begins(image, &key) {
                known.push((key, format!("hashed with {name}, by which it begins as {contents}")));
            }
        }
        if known.len() == 1
            && let Some(only) = known.pop()
        {
            return Ok(only);
        }
    }
    let key = PlainHash::parse(HASH)?.key(passphrase, size)?;
    Ok((key, format!("the passphrase is hashed with {HASH}, {OLDER}: --plain-hash names another")))
}

/// What the data is with this key, where that is known.
fn begins(image: &Image, key: &VolumeKey) -> Option<String> {
    let options = UnlockOptions::default();
    let unlocked = image.unlock_unproven(VolumeKey::copy_of(key.expose()).ok()?, &options).ok()?;
    let volume: Arc<dyn ReadAt> = Arc::new(unlocked.volume(VolumeOptions::default()).ok()?);
    let contents = Contents::probe(volume).ok()?;
    contents.is_known().then(|| contents.kind.to_string())
}

/// The likeliest form: the last, which has the most of a shape, or the only one of the right size.
fn choose(forms: Vec<VolumeKeyForm>, size: Option<usize>) -> Result<VolumeKeyForm> {
    let fits = |form: &VolumeKeyForm| size.is_none_or(|size| form.key.expose().len() == size);
    let sizes: Vec<_> = forms.iter().map(|form| form.key.expose().len().to_string()).collect();
    forms.into_iter().rev().find(fits).ok_or_else(|| {
        let message = format!("the volume key has {} bytes, which is not what --key-size says", sizes.join(" or "));
        Error::invalid(message)
    })
}

/// Says that nothing proved the plaintext, and what it begins as, which is some proof.
pub fn warn(volume: Option<&Volume>) {
    let begins = match volume.map(|volume| unluks::format::name(volume)) {
        Some(Some(known)) => format!("; it begins as {}", known.name),
        Some(None) => "; it begins as nothing that is known here".to_owned(),
        None => String::new(),
    };
    let message = "without a header nothing proves the key, so that the plaintext may be noise";
    let _ = writeln!(anstream::stderr(), "warning: {message}{begins}");
}
