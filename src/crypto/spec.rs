//! Cipher specifications, as LUKS headers and dm-crypt tables spell them.
//!
//! | spelling | meaning |
//! |---|---|
//! | `aes-xts-plain64`, `aes-cbc-essiv:sha256` | cipher, mode, IV mode and its option |
//! | `aes`, `aes-plain` | `aes-cbc-plain`: what dm-crypt made of it before it knew modes |
//! | `aes-ecb` | no IV |
//! | `null`, `cipher_null` | `cipher_null-ecb`: no encryption at all |
//! | `xchacha12,aes-adiantum-plain64` | a mode of several primitives |
//! | `capi:xts(aes)-plain64` | a template of the kernel's crypto API, and the IV mode |
//! | `capi:xts(ecb(aes-generic))-plain64` | the same, with the driver named |
//! | `capi:essiv(cbc(aes),sha256)-plain64` | `aes-cbc-essiv:sha256`, as the kernel itself writes it |
//!
//! The rules are those of `crypt_ctr_cipher_old` and `crypt_ctr_cipher_new` (drivers/md/dm-crypt.c), and of
//! `crypt_parse_name_and_mode` (cryptsetup, lib/utils_crypt.c). A name that is not known here is kept as it was
//! written, so that a header with it can still be inspected; `SectorCipher::new` refuses it.

use std::fmt;

use crate::crypto::hash::Hash;
use crate::error::{Error, Result, escape};

/// The longest specification: `CRYPTO_MAX_ALG_NAME`, the size of every algorithm name in the kernel.
const LONGEST: usize = 128;

/// Endings of the kernel's driver names for a bare block cipher: `aes-generic` is `aes`.
const DRIVERS: &[&str] = &["generic", "asm", "asm_64", "aesni", "fixed-time", "lib", "arm", "arm64", "ce", "padlock"];

/// Names of hashes where the kernel's crypto API differs from LUKS headers.
const KERNEL_HASHES: &[(&str, Hash)] = &[("wp512", Hash::Whirlpool), ("rmd160", Hash::Ripemd160)];

/// A block cipher, or the primitives of a wide-block mode.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CipherName {
    /// `cipher_null`: the data is stored as it is.
    Null,
    /// AES, 16-byte blocks.
    Aes,
    /// Serpent, 16-byte blocks.
    Serpent,
    /// Twofish, 16-byte blocks.
    Twofish,
    /// Camellia, 16-byte blocks.
    Camellia,
    /// CAST-128 (RFC 2144), 8-byte blocks.
    Cast5,
    /// CAST-256 (RFC 2612), 16-byte blocks.
    Cast6,
    /// XChaCha12 and AES, for Adiantum.
    Xchacha12Aes,
    /// XChaCha20 and AES, for Adiantum.
    Xchacha20Aes,
    /// A name that is not known here, as it was written.
    Other(String),
}

/// How a block cipher is applied to a sector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// XTS (IEEE 1619); the key is two keys of equal length.
    Xts,
    /// Cipher block chaining.
    Cbc,
    /// Each block on its own, without an IV.
    Ecb,
    /// LRW (IEEE P1619/D2); the key is followed by a 16-byte tweak key.
    Lrw,
    /// Adiantum (<https://eprint.iacr.org/2018/720>).
    Adiantum,
    /// A mode that is not known here, as it was written; empty where [`CipherName::Other`] holds a whole `capi:` name.
    Other(String),
}

/// How the IV of a sector is made from its number, which counts units of 512 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IvMode {
    /// The mode takes no IV.
    None,
    /// Zero bytes.
    Null,
    /// The low 32 bits of the sector number, little-endian.
    Plain,
    /// The sector number, little-endian.
    Plain64,
    /// The sector number, big-endian, in the last 8 bytes.
    Plain64be,
    /// The number of the sector's first cipher block, from 1, big-endian, in the last 8 bytes.
    Benbi,
    /// The `plain64` IV, encrypted with the same cipher under the hash of the volume key.
    Essiv(Hash),
    /// An IV mode that is not known here, with its option, as it was written.
    Other(String),
}

/// A cipher as headers name it: `aes-xts-plain64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CipherSpec {
    /// The cipher.
    pub cipher: CipherName,
    /// The mode.
    pub mode: Mode,
    /// The IV mode.
    pub iv: IvMode,
}

const CIPHERS: &[(&str, CipherName)] = &[
    ("cipher_null", CipherName::Null),
    ("aes", CipherName::Aes),
    ("serpent", CipherName::Serpent),
    ("twofish", CipherName::Twofish),
    ("camellia", CipherName::Camellia),
    ("cast5", CipherName::Cast5),
    ("cast6", CipherName::Cast6),
    ("xchacha12,aes", CipherName::Xchacha12Aes),
    ("xchacha20,aes", CipherName::Xchacha20Aes),
];

const MODES: &[(&str, Mode)] =
    &[("xts", Mode::Xts), ("cbc", Mode::Cbc), ("ecb", Mode::Ecb), ("lrw", Mode::Lrw), ("adiantum", Mode::Adiantum)];

const IV_MODES: &[(&str, IvMode)] = &[
    ("null", IvMode::Null),
    ("plain", IvMode::Plain),
    ("plain64", IvMode::Plain64),
    ("plain64be", IvMode::Plain64be),
    ("benbi", IvMode::Benbi),
];

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> Option<&'static str> {
    table.iter().find(|(_, v)| v == value).map(|(name, _)| *name)
}

fn find<T: Clone>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
}

/// The refusal of a name that [`CipherSpec::parse`] kept as text.
fn unknown<T>(what: &str, found: &str, table: &[(&str, T)], more: &str) -> Error {
    let names: Vec<_> = table.iter().map(|(name, _)| *name).collect();
    let message = format!("found {what} \"{}\"; known are {}{more}", escape(found), names.join(", "));
    Error::unsupported("cipher", message)
}

/// The IV mode of this name, if it is one of those that make IVs of the sector number alone, from its first bytes on.
#[cfg(feature = "unlock")]
pub(crate) fn plain_iv(name: &str) -> Option<IvMode> {
    find(IV_MODES, name).filter(|mode| *mode != IvMode::Benbi)
}

impl CipherSpec {
    /// Reads a specification. Names that are not known are kept as they are; [`CipherSpec::check_known`] refuses them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for a text that no dm-crypt takes: empty, longer than 128
    /// bytes, with spaces or control characters, or without the IV mode that its mode needs.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::corrupt("cipher", format!("found \"{}\": {why}", escape(text)));
        if text.is_empty() {
            return Err(bad("the cipher is not named; a name such as aes-xts-plain64 is allowed"));
        }
        if text.len() > LONGEST {
            return Err(bad("at most 128 bytes are allowed"));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(bad("printable ASCII without spaces is allowed"));
        }
        match text.strip_prefix("capi:") {
            Some(api) => parse_capi(api).map_err(bad),
            None => parse_dash(text).map_err(bad),
        }
    }

    /// Reads the specification from the two fields of a LUKS1 header.
    ///
    /// # Errors
    /// As [`CipherSpec::parse`], of `CIPHER_NAME-CIPHER_MODE`.
    pub fn from_luks1(cipher_name: &str, cipher_mode: &str) -> Result<Self> {
        Self::parse(&format!("{cipher_name}-{cipher_mode}"))
    }

    /// Whether the data is not encrypted at all.
    pub fn is_null(&self) -> bool {
        match &self.cipher {
            CipherName::Null => true,
            // However unlike a known spelling it is: a header that names the null cipher must never pass for encrypted.
            CipherName::Other(name) => name.contains("cipher_null"),
            _ => false,
        }
    }

    /// Refuses the names that [`CipherSpec::parse`] did not know.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), with the name and what is known.
    pub fn check_known(&self) -> Result<()> {
        if let CipherName::Other(name) = &self.cipher {
            return Err(unknown("cipher", name, CIPHERS, ""));
        }
        if let Mode::Other(name) = &self.mode {
            return Err(unknown("mode", name, MODES, ""));
        }
        match &self.iv {
            IvMode::Other(name) => {
                let hash_error = name.strip_prefix("essiv:").and_then(|hash| Hash::from_name(hash).err());
                Err(hash_error.unwrap_or_else(|| unknown("IV mode", name, IV_MODES, ", essiv:HASH")))
            }
            _ => Ok(()),
        }
    }
}

/// `cipher-mode-iv:option`, as `crypt_ctr_cipher_old` takes it apart.
fn parse_dash(text: &str) -> std::result::Result<CipherSpec, &'static str> {
    if matches!(text, "null" | "cipher_null") {
        return Ok(CipherSpec { cipher: CipherName::Null, mode: Mode::Ecb, iv: IvMode::None });
    }
    let (cipher, rest) = text.split_once('-').map_or((text, None), |(c, r)| (c, Some(r)));
    let (mode, iv) = match rest {
        None | Some("plain") => ("cbc", Some("plain")),
        Some(rest) => rest.split_once('-').map_or((rest, None), |(m, iv)| (m, Some(iv))),
    };
    if cipher.is_empty() {
        return Err("the cipher is not named");
    }
    if mode.is_empty() {
        return Err("the mode is not named");
    }
    let mode = find(MODES, mode).unwrap_or_else(|| Mode::Other(mode.to_owned()));
    let iv = parse_iv(&mode, iv)?;
    Ok(CipherSpec { cipher: cipher_name(cipher), mode, iv })
}

/// `template(cipher)-iv:option`, as `crypt_ctr_cipher_new` takes it apart: from the end, for driver names have dashes.
fn parse_capi(text: &str) -> std::result::Result<CipherSpec, &'static str> {
    let end = text.rfind(')').map_or(0, |at| at + 1);
    // An IV mode's option, such as sha3-256, may have a dash too.
    let before_option = text[end..].find(':').map_or(text.len(), |colon| end + colon);
    let (api, iv) = match text[end..before_option].rfind('-') {
        Some(dash) => (&text[..end + dash], Some(&text[end + dash + 1..])),
        None => (text, None),
    };
    let known = parse_template(api);
    let (cipher, mode, hash) = known.unwrap_or_else(|| {
        let api = format!("capi:{api}");
        (CipherName::Other(api), Mode::Other(String::new()), None)
    });
    let iv = parse_iv(&mode, iv)?;
    let iv = match (hash, iv) {
        (None, iv) => iv,
        // The essiv template encrypts the IV that dm-crypt hands to it.
        (Some(hash), IvMode::Plain64) => IvMode::Essiv(hash),
        (Some(hash), iv) => IvMode::Other(format!("essiv:{}({iv})", hash.name())),
    };
    Ok(CipherSpec { cipher, mode, iv })
}

/// `xts(aes)` and its like, with the hash of an `essiv(…,HASH)` around it.
fn parse_template(api: &str) -> Option<(CipherName, Mode, Option<Hash>)> {
    let (template, inner) = api.strip_suffix(')')?.split_once('(')?;
    if template == "essiv" {
        let (inner, hash) = inner.rsplit_once(',')?;
        return match parse_template(inner)? {
            (_, Mode::Ecb, _) | (_, _, Some(_)) => None,
            (cipher, mode, None) => Some((cipher, mode, Some(hash_name(hash)?))),
        };
    }
    let mode = find(MODES, template)?;
    let cipher = match mode {
        Mode::Adiantum => {
            let mut parts = inner.split(',').map(without_driver);
            let (stream, block) = (parts.next()?, parts.next()?);
            // The hash may be named, and there is only one.
            if !matches!(parts.next(), None | Some("nhpoly1305")) || parts.next().is_some() {
                return None;
            }
            find(CIPHERS, &format!("{stream},{block}"))?
        }
        // These two are templates around a mode or a cipher, as one likes.
        Mode::Xts | Mode::Lrw => {
            let bare = inner.strip_prefix("ecb(").and_then(|i| i.strip_suffix(')')).unwrap_or(inner);
            find(CIPHERS, without_driver(bare))?
        }
        _ => find(CIPHERS, without_driver(inner))?,
    };
    Some((cipher, mode, None))
}

fn without_driver(name: &str) -> &str {
    match name.split_once('-') {
        Some((bare, driver)) if DRIVERS.contains(&driver) => bare,
        _ => name,
    }
}

fn cipher_name(name: &str) -> CipherName {
    find(CIPHERS, name).unwrap_or_else(|| CipherName::Other(name.to_owned()))
}

fn hash_name(name: &str) -> Option<Hash> {
    find(KERNEL_HASHES, name).or_else(|| Hash::from_kernel_name(name)).or_else(|| Hash::from_name(name).ok())
}

fn parse_iv(mode: &Mode, iv: Option<&str>) -> std::result::Result<IvMode, &'static str> {
    // dm-crypt warns of an IV mode that a cipher without IVs is given, and drops it.
    if *mode == Mode::Ecb {
        return Ok(IvMode::None);
    }
    let iv = iv.filter(|iv| !iv.is_empty()).ok_or("this mode needs an IV mode, such as plain64")?;
    let (name, option) = iv.split_once(':').map_or((iv, None), |(name, option)| (name, Some(option)));
    if name == "essiv" {
        let hash = option.filter(|o| !o.is_empty()).ok_or("essiv needs a hash, such as essiv:sha256")?;
        return Ok(hash_name(hash).map_or_else(|| IvMode::Other(iv.to_owned()), IvMode::Essiv));
    }
    let known = find(IV_MODES, name).filter(|_| option.is_none());
    Ok(known.unwrap_or_else(|| IvMode::Other(iv.to_owned())))
}

impl fmt::Display for CipherName {
    /// The name as dm-crypt spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => f.write_str(name_of(CIPHERS, known).unwrap_or_default()),
        }
    }
}

impl fmt::Display for Mode {
    /// The name as dm-crypt spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(name) => f.write_str(name),
            known => f.write_str(name_of(MODES, known).unwrap_or_default()),
        }
    }
}

impl fmt::Display for IvMode {
    /// The name as dm-crypt spells it; nothing for [`IvMode::None`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Other(name) => f.write_str(name),
            Self::Essiv(hash) => {
                write!(f, "essiv:{}", name_of(KERNEL_HASHES, hash).unwrap_or(hash.name()))
            }
            known => f.write_str(name_of(IV_MODES, known).unwrap_or_default()),
        }
    }
}

impl fmt::Display for CipherSpec {
    /// The specification as dm-crypt spells it, in the form without `capi:` where there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cipher)?;
        if self.mode != Mode::Other(String::new()) {
            write!(f, "-{}", self.mode)?;
        }
        if self.iv != IvMode::None {
            write!(f, "-{}", self.iv)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn spellings_and_what_they_mean() {
        for (text, canonical) in [
            ("aes-xts-plain64", "aes-xts-plain64"),
            ("aes-cbc-essiv:sha256", "aes-cbc-essiv:sha256"),
            ("aes-cbc-essiv:sha3-256", "aes-cbc-essiv:sha3-256"),
            ("serpent-cbc-essiv:whirlpool", "serpent-cbc-essiv:wp512"),
            ("serpent-cbc-essiv:wp512", "serpent-cbc-essiv:wp512"),
            ("aes-cbc-essiv:wp256", "aes-cbc-essiv:wp256"),
            ("capi:essiv(cbc(twofish),tgr192)-plain64", "twofish-cbc-essiv:tgr192"),
            ("aes", "aes-cbc-plain"),
            ("aes-plain", "aes-cbc-plain"),
            ("aes-cbc-plain", "aes-cbc-plain"),
            ("aes-xts-plain", "aes-xts-plain"),
            ("aes-xts-plain64be", "aes-xts-plain64be"),
            ("aes-lrw-benbi", "aes-lrw-benbi"),
            ("aes-cbc-null", "aes-cbc-null"),
            ("aes-ecb", "aes-ecb"),
            ("aes-ecb-plain64", "aes-ecb"),
            ("null", "cipher_null-ecb"),
            ("cipher_null", "cipher_null-ecb"),
            ("cipher_null-ecb", "cipher_null-ecb"),
            ("xchacha12,aes-adiantum-plain64", "xchacha12,aes-adiantum-plain64"),
            ("xchacha20,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"),
            ("capi:xts(aes)-plain64", "aes-xts-plain64"),
            ("capi:xts(ecb(aes))-plain64", "aes-xts-plain64"),
            ("capi:xts(ecb(aes-generic))-plain64", "aes-xts-plain64"),
            ("capi:cbc(serpent-generic)-plain", "serpent-cbc-plain"),
            ("capi:cbc(aes)-essiv:sha256", "aes-cbc-essiv:sha256"),
            ("capi:essiv(cbc(aes),sha256)-plain64", "aes-cbc-essiv:sha256"),
            ("capi:lrw(ecb(twofish))-benbi", "twofish-lrw-benbi"),
            ("capi:ecb(cipher_null)", "cipher_null-ecb"),
            ("capi:adiantum(xchacha12,aes)-plain64", "xchacha12,aes-adiantum-plain64"),
            (
                "capi:adiantum(xchacha20-generic,aes-generic,nhpoly1305-generic)-plain64",
                "xchacha20,aes-adiantum-plain64",
            ),
        ] {
            let spec = CipherSpec::parse(text).unwrap();
            assert_eq!(spec.to_string(), canonical, "{text}");
            assert_eq!(CipherSpec::parse(canonical).unwrap(), spec, "{text}");
            spec.check_known().unwrap();
        }
    }

    #[test]
    fn luks1_fields_are_one_specification() {
        let spec = CipherSpec::from_luks1("aes", "cbc-essiv:sha256").unwrap();
        assert_eq!(spec, CipherSpec::parse("aes-cbc-essiv:sha256").unwrap());
        assert_eq!(CipherSpec::from_luks1("aes", "plain").unwrap().to_string(), "aes-cbc-plain");
        assert!(CipherSpec::from_luks1("aes", "").is_err());
        assert!(CipherSpec::from_luks1("", "xts-plain64").is_err());
    }

    #[test]
    fn unknown_names_are_kept_and_refused_when_used() {
        for (text, named) in [
            ("sm4-xts-plain64", "cipher \"sm4\""),
            ("aria-cbc-plain64", "cipher \"aria\""),
            ("kuznyechik-xts-plain64", "cipher \"kuznyechik\""),
            ("aes:64-cbc-lmk", "cipher \"aes:64\""),
            ("aes-gcm-random", "mode \"gcm\""),
            ("aes-hctr2-plain64", "mode \"hctr2\""),
            ("aes-xts-random", "IV mode \"random\""),
            ("aes-cbc-eboiv", "IV mode \"eboiv\""),
            ("aes-cbc-essiv:crc32", "\"crc32\""),
            ("capi:authenc(hmac(sha256),xts(aes))-plain64", "cipher \"capi:authenc(hmac(sha256),xts(aes))\""),
            ("capi:xts-aes-aesni-plain64", "cipher \"capi:xts-aes-aesni\""),
            ("capi:essiv(cbc(aes),sha256)-plain", "\"sha256(plain)\""),
        ] {
            let spec = CipherSpec::parse(text).unwrap();
            assert_eq!(CipherSpec::parse(&spec.to_string()).unwrap(), spec);
            let e = spec.check_known().unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            assert!(e.message().contains(named) && e.message().contains("known are"), "{text}: {e}");
        }
        let text = "capi:authenc(hmac(sha256),xts(aes))-plain64";
        assert_eq!(CipherSpec::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn what_no_dm_crypt_takes_is_corrupt() {
        for text in [
            "",
            "-",
            "-xts-plain64",
            "aes-",
            "aes--plain64",
            "aes-xts",
            "aes-xts-",
            "aes-cbc-essiv",
            "aes-cbc-essiv:",
            "aes xts plain64",
            "aes-xts-plain64\n",
            "äes-xts-plain64",
            "capi:",
            "capi:xts(aes)",
            &"a".repeat(129),
        ] {
            let e = CipherSpec::parse(text).unwrap_err();
            assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "cipher"), "{text:?}: {e}");
        }
    }

    #[test]
    fn every_spelling_of_the_null_cipher_is_null() {
        for text in [
            "null",
            "cipher_null",
            "cipher_null-ecb",
            "cipher_null-cbc-plain",
            "capi:ecb(cipher_null)-plain",
            "capi:pcbc(cipher_null)-plain",
        ] {
            assert!(CipherSpec::parse(text).unwrap().is_null(), "{text}");
        }
        assert!(!CipherSpec::parse("aes-xts-plain64").unwrap().is_null());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_reads_back(text in "(capi:)?[a-z0-9()_,:-]{0,24}") {
            if let Ok(spec) = CipherSpec::parse(&text) {
                let _ = (spec.is_null(), spec.check_known());
                let again = CipherSpec::parse(&spec.to_string());
                proptest::prop_assert_eq!(again.ok(), Some(spec), "{}", text);
            }
        }
    }
}
