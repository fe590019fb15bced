//! `--type plain`: data without a header, by what the command line says of it, or a line of dmsetup.

use std::io::Write;

use unluks::error::counted;
use unluks::key::{PlainHash, VolumeKeyForm, raw_key, volume_key_forms};
use unluks::locate::Place;
use unluks::{Error, Image, Passphrase, PlainOptions, Result, Volume, VolumeKey};

use crate::args::KeyArgs;
use crate::args::plain::PlainArgs;
use crate::key::{self, Saved};
use crate::source::Source;

/// cryptsetup's defaults from 2.7 on.
const CIPHER: &str = "aes-xts-plain64";
const HASH: &str = "sha256";
const KEY_BITS: u32 = 256;
/// What is said where a default is taken.
const OLDER: &str = "as cryptsetup has it from 2.7 on; before, it was aes-cbc-essiv:sha256 with ripemd160";

/// Data for what the command line takes it for, and its key.
pub struct Plain {
    pub image: Image,
    pub key: VolumeKey,
    /// What was taken for granted, one line each.
    pub notes: Vec<String>,
}

/// Reads the key, of which nothing will tell whether it is right.
pub fn open(source: &Source, args: &PlainArgs, keys: &KeyArgs, stdin_is_image: bool) -> Result<Plain> {
    if let Place::Qcow2Luks(_) = source.place() {
        return Err(Error::invalid("--type plain is for data without a header, and this qcow2 image has its own"));
    }
    if keys.key_slot.is_some() || !keys.also_key_file.is_empty() || !keys.also_passphrase_file.is_empty() {
        let message =
            "--key-slot, --also-key-file and --also-passphrase-file are for keyslots, which plain data has not";
        return Err(Error::invalid(message));
    }
    let bits = args.key_size.unwrap_or(KEY_BITS);
    if !bits.is_multiple_of(8) {
        return Err(Error::invalid(format!("--key-size {bits} is no number of whole bytes")));
    }
    let size = usize::try_from(bits / 8).unwrap_or(usize::MAX);
    let mut notes = Vec::new();
    let mut table = None;
    let hashed = |passphrase: &Passphrase, notes: &mut Vec<String>| {
        let name = args.plain_hash.as_deref().unwrap_or_else(|| {
            notes.push(format!("the passphrase is hashed with {HASH}, {OLDER}: --plain-hash names another"));
            HASH
        });
        PlainHash::parse(name)?.key(passphrase, size)
    };
    let key = match key::saved(keys, stdin_is_image, &source.shown())? {
        Saved::Passphrase(passphrase) => hashed(&passphrase, &mut notes)?,
        Saved::KeyFile(file) => raw_key(file.expose(), size)?,
        Saved::VolumeKey(saved) => {
            let form = choose(volume_key_forms(saved.expose())?, args.key_size.map(|_| size))?;
            notes.push(format!("the volume key is taken from {}", form.rule));
            table = form.table;
            form.key
        }
        Saved::Unknown => {
            let message = "--key tries forms of a key, and without a header nothing tells which of them is right";
            return Err(
                Error::invalid(message).with_hint("say what it is, with --passphrase-file or --volume-key-file")
            );
        }
    };
    let cipher = match (&args.cipher, &table) {
        (Some(cipher), _) => cipher.clone(),
        (None, Some(table)) => table.cipher.clone(),
        (None, None) => {
            notes.push(format!("the cipher is taken to be {CIPHER}, {OLDER}: --cipher names another"));
            CIPHER.to_owned()
        }
    };
    let of_table = table.as_ref();
    let options = PlainOptions {
        cipher,
        sector_size: args.sector_size.or(of_table.map(|t| t.sector_size)).unwrap_or(512),
        iv_offset: args.iv_offset.or(of_table.map(|t| t.iv_offset)).unwrap_or(0),
        // The table counts from the start of its device: an offset that is named leads there already.
        offset: of_table.filter(|_| !source.has_offset()).map_or(0, |t| t.offset),
        size: of_table.map(|t| t.len),
    };
    notes.push(format!(
        "no header: {}, a key of {}, sectors of {} bytes, IV offset {}, from byte {} on",
        options.cipher,
        counted(key.expose().len().saturating_mul(8), "bit"),
        options.sector_size,
        options.iv_offset,
        options.offset
    ));
    let image = Image::plain(std::sync::Arc::clone(source.place().source()), options);
    Ok(Plain { image, key, notes })
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
