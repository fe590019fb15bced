//! Signatures of minisign: a key's file signs records, and a public key proves them.
//!
//! The crate `minisign` is by the author of the program and has its formats. It does not wipe a secret key; what it has of
//! one is in this process's memory alone, of which nobody gets a dump (`main.rs`).

use std::io::Cursor;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use minisign::{PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};
use sha2::{Digest, Sha256};
use unluks::error::escape;
use unluks::key::read_first_line;
use unluks::{Error, Result};
use zeroize::Zeroizing;

use crate::key;
use crate::source::{WithinFile, shown};

/// The largest file of a key or a signature that is read.
const FILE_MAX: u64 = 64 << 10;
/// Bytes of a signature of Ed25519.
const SIGNATURE_LEN: usize = 64;

/// What signs.
pub struct Signer {
    key: SecretKey,
    public: PublicKey,
}

impl Signer {
    /// Opens the key in the file at `path`. A key that is encrypted wants a passphrase: the first line of a file, or what
    /// somebody types.
    pub fn open(path: &Path, passphrase: Option<&Path>) -> Result<Self> {
        let text = read(path, "the key")?;
        let bad = |e: minisign::PError| {
            let message =
                format!("it is no secret key of minisign, or not by this passphrase: {}", escape(&e.to_string()));
            Error::invalid(message).within_file(path)
        };
        let parse = || SecretKeyBox::from_string(&text).map_err(bad);
        let key = if is_encrypted(&text) {
            let line = match passphrase {
                Some(file) => {
                    let opening = |e| Error::io(format!("opening {}", shown(file)), e);
                    read_first_line(&mut std::fs::File::open(file).map_err(opening)?)?
                }
                None => key::prompt::ask(&format!("the key {}", shown(path)))?,
            };
            let line = String::from_utf8(line.expose().to_vec());
            let line = line.map_err(|_| Error::invalid("the passphrase of a key of minisign is UTF-8"))?;
            parse()?.into_secret_key(Some(line)).map_err(bad)?
        } else if let Some(bytes) = without_checksum(&text) {
            SecretKey::from_bytes(&bytes).map_err(bad)?
        } else {
            parse()?.into_unencrypted_secret_key().map_err(bad)?
        };
        let public = PublicKey::from_secret_key(&key).map_err(bad)?;
        Ok(Self { key, public })
    }

    /// Refuses what `open` will refuse, as far as that can be said without a passphrase. A pipe can be read only once, and
    /// is left for `open`.
    pub fn check(path: &Path, passphrase: Option<&Path>) -> Result<()> {
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return Ok(());
        }
        if !is_encrypted(&read(path, "the key")?) {
            return Self::open(path, None).map(drop);
        }
        let unread = |file: &&Path| std::fs::metadata(file).map(drop).err();
        match passphrase.as_ref().and_then(unread).zip(passphrase) {
            Some((e, file)) => Err(Error::io(format!("opening {}", shown(file)), e)),
            None => Ok(()),
        }
    }

    /// The signature of a file of these bytes; `says` is signed with it, and so is their hash.
    pub fn sign(&self, bytes: &[u8], says: &str) -> Result<String> {
        let comment = format!("unluks verify: {says} sha256:{}", hex::encode(Sha256::digest(bytes)));
        let signed = minisign::sign(
            Some(&self.public),
            &self.key,
            Cursor::new(bytes),
            Some(&comment),
            Some("signature by unluks verify --sign"),
        );
        signed
            .map(SignatureBox::into_string)
            .map_err(|e| Error::invalid(format!("signing: {}", escape(&e.to_string()))))
    }
}

/// A key that is not encrypted and has zeroes in the place of its checksum, as `minisign -G -W` writes it.
fn without_checksum(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let line = text.lines().nth(1)?;
    let bytes = Zeroizing::new(BASE64.decode(line.trim()).ok()?);
    let is_none = |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|bytes| bytes.iter().all(|b| *b == 0));
    (bytes.len() == 158 && bytes.starts_with(b"Ed") && is_none(2..4) && is_none(126..158)).then_some(bytes)
}

/// Whether a secret key wants a passphrase: its second line has the function's name, `Sc` for scrypt, at byte 2.
fn is_encrypted(text: &str) -> bool {
    let key = text.lines().nth(1).and_then(|line| BASE64.decode(line.trim()).ok());
    key.is_some_and(|key| key.get(2..4) == Some(b"Sc"))
}

/// What the name of a signature has behind that of its file.
pub const SIGNATURE: &str = ".minisig";

/// Where what is said of a file is.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What proves.
pub struct Verifier(PublicKey);

impl Verifier {
    /// Reads a public key.
    pub fn open(path: &Path) -> Result<Self> {
        let text = read(path, "the public key")?;
        let key = PublicKeyBox::from_string(&text).and_then(PublicKeyBox::into_public_key);
        // The bare line of a key is one, too.
        let key = key.or_else(|_| PublicKey::from_base64(text.trim()));
        key.map(Self).map_err(|_| Error::invalid("it is no public key of minisign").within_file(path))
    }

    /// The comment that was signed with these bytes.
    ///
    /// # Errors
    /// `Corrupt` where the signature is not by this key, or not of these bytes.
    pub fn verify(&self, path: &Path, bytes: &[u8]) -> Result<String> {
        let beside = beside(path, SIGNATURE);
        let text = read(&beside, "the signature")?;
        let wrong = |e: minisign::PError| {
            Error::corrupt("signature", format!("the signature is not good: {}", escape(&e.to_string())))
                .within_file(&beside)
        };
        let signature = SignatureBox::from_string(&text).map_err(wrong)?;
        // The crate takes its last line to be long enough.
        let last = text.lines().nth(3).and_then(|line| BASE64.decode(line.trim()).ok());
        if last.is_none_or(|last| last.len() != SIGNATURE_LEN) {
            let message = format!("the signature of its comment has not {SIGNATURE_LEN} bytes");
            return Err(Error::corrupt("signature", message).within_file(&beside));
        }
        minisign::verify(&self.0, &signature, Cursor::new(bytes), true, false, false).map_err(wrong)?;
        let comment = signature.trusted_comment().map_err(wrong)?;
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        if !comment.ends_with(&hash) {
            let message = "the signature is good, but its comment names another file's hash";
            return Err(Error::corrupt("signature", message).within_file(&beside));
        }
        Ok(comment)
    }
}

fn read(path: &Path, what: &str) -> Result<String> {
    let failed = |e| Error::io(format!("reading {what} {}", shown(path)), e);
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(Error::invalid(format!("it has more than {FILE_MAX} bytes, and is not {what}")).within_file(path));
    }
    std::fs::read_to_string(path).map_err(failed)
}
