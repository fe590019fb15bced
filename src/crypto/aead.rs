//! Authenticated decryption of sectors, as dm-crypt does it above dm-integrity (drivers/md/dm-crypt.c,
//! `crypt_convert_block_aead`): dm-integrity stores a tag for each sector and knows nothing of its meaning.
//!
//! | part of a stored tag | bytes |
//! |---|---|
//! | what authenticates the sector | 64, 32 or 20 for HMAC with SHA-512, SHA-256 or SHA-1; 16 otherwise; 0 for `none` |
//! | the sector's IV, with the IV mode `random` | as many as the IV has |
//!
//! A tag authenticates the sector's number (64 bits, little-endian, in units of 512 bytes), the IV and the ciphertext.
//!
//! | integrity | encryption | dm-crypt's name for it |
//! |---|---|---|
//! | `hmac(sha256)` and its like | any cipher, such as `aes-xts-plain64` | `authenc(hmac(sha256),xts(aes))-plain64` |
//! | `aead` | `aes-gcm-random` | `gcm(aes)-random` |
//! | `aead` | `aes-ccm-random` | `rfc4309(ccm(aes))-random` |
//! | `cmac(aes)` | any cipher | `authenc(cmac(aes),xts(aes))-plain64` |
//! | `aead` | `aegis128-random`, and aegis128l and aegis256 | `aegis128-random` |
//! | `poly1305` | `chacha20-random` | `rfc7539(chacha20,poly1305)-random` |
//! | `none` | `aes-xts-random` | `aes-xts-random`: the IVs are stored, and nothing is authenticated |
//!
//! The names are put together by cryptsetup's `cipher_c2dm` (lib/libdevmapper.c), the sizes by its
//! `INTEGRITY_tag_size` and `INTEGRITY_key_size` (lib/integrity/integrity.c).

use crate::num::{from_u32, to_u64, to_usize};
mod aegis;
mod aegis128;
mod ccm;
mod chacha20_poly1305;
mod gcm;
#[cfg(test)]
mod tests;

use cmac::Cmac;
use hmac::{Hmac, KeyInit, Mac};
use subtle::ConstantTimeEq;

use self::aegis::{Aegis128L, Aegis256};
use self::aegis128::Aegis128;
use self::ccm::Ccm;
use self::chacha20_poly1305::ChaCha20Poly1305;
use self::gcm::Gcm;
use crate::crypto::cipher::{SectorCipher, block_cipher};
use crate::crypto::iv::IvGenerator;
use crate::crypto::spec::{CipherSpec, IvMode, plain_iv};
use crate::error::{Error, Result, escape};

/// How many sectors are worked on at once.
const RUN: usize = 128;
/// The longest IV: Adiantum's.
const IV_MAX: usize = 32;
/// The tags of all modes but those of HMAC.
const TAG: usize = 16;
/// The largest sector.
const SECTOR_MAX: usize = 4096;

/// A cipher of one sector that makes a tag on the way.
trait Aead: Send + Sync {
    /// Decrypts a sector in place, and gives the tag that it must have.
    fn decrypt(&self, data: &mut [u8], iv: &[u8], aad: &[u8]) -> [u8; TAG];
}

/// A keyed hash of associated data and ciphertext.
trait SectorMac: Send + Sync {
    /// Whether `tag` is right, in constant time.
    fn verify(&self, aad: &[u8], ciphertext: &[u8], tag: &[u8]) -> bool;
}

impl<M: Mac + Clone + Send + Sync> SectorMac for M {
    fn verify(&self, aad: &[u8], ciphertext: &[u8], tag: &[u8]) -> bool {
        let mut mac = self.clone();
        mac.update(aad);
        mac.update(ciphertext);
        mac.verify_slice(tag).is_ok()
    }
}

enum Kind {
    /// Encrypted, then authenticated.
    Authenc { mac: Box<dyn SectorMac>, cipher: SectorCipher },
    /// Both at once.
    Aead(Box<dyn Aead>),
    /// Only the IVs are stored.
    Unauthenticated(SectorCipher),
}

/// Where IVs come from.
enum Ivs {
    /// They are stored behind the tags.
    Stored,
    /// A cipher of its own makes them.
    OfCipher,
    Made(IvGenerator),
}

/// A cipher with its key, that decrypts runs of sectors and checks their tags.
pub(crate) struct SectorAead {
    kind: Kind,
    ivs: Ivs,
    iv_size: usize,
    /// Bytes of a tag without the IV.
    tag_size: usize,
    sector_size: usize,
}

/// A cipher's name taken apart as cryptsetup does it: at its first two dashes.
struct Names<'a> {
    cipher: &'a str,
    /// Empty where there are only two parts.
    mode: &'a str,
    iv: &'a str,
}

impl<'a> Names<'a> {
    fn of(encryption: &'a str) -> Self {
        let (cipher, rest) = encryption.split_once('-').unwrap_or((encryption, ""));
        let (mode, iv) = rest.split_once('-').unwrap_or(("", rest));
        Self { cipher, mode, iv }
    }
}

impl SectorAead {
    /// The cipher that a segment's `encryption` and the type of its `integrity` name, with the volume key: the cipher's
    /// key, and the MAC's behind it, which has `mac_key_size` bytes where the header says so.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for names and combinations that are not known here;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), rule `key_size`, for a key that does not fit.
    pub(crate) fn new(
        encryption: &str,
        integrity: &str,
        mac_key_size: Option<u64>,
        key: &[u8],
        sector_size: u32,
    ) -> Result<Self> {
        let names = Names::of(encryption);
        let size = from_u32(sector_size);
        if !size.is_power_of_two() || !(512..=SECTOR_MAX).contains(&size) {
            let message = format!("found {sector_size}; 512, 1024, 2048 and 4096 are allowed");
            return Err(Error::corrupt("sector_size", message));
        }
        let aead = match integrity {
            "aead" | "poly1305" => Self::of_aead(&names, encryption, integrity, key, size)?,
            "none" => {
                let (cipher, ivs) = sector_cipher(&names, encryption, key, key, sector_size)?;
                let iv_size = cipher.iv_size();
                Self { kind: Kind::Unauthenticated(cipher), ivs, iv_size, tag_size: 0, sector_size: size }
            }
            _ => {
                let (usual, tag_size) = mac_sizes(integrity)?;
                let mac_len = mac_key_size.map_or(Ok(usual), to_usize)?;
                let split = key.len().checked_sub(mac_len).ok_or_else(|| {
                    let message = format!("found {} bytes; {integrity} alone takes {mac_len} of them", key.len());
                    Error::corrupt("key_size", message)
                })?;
                let (cipher_key, mac_key) = key.split_at(split);
                let mac = new_mac(integrity, mac_key)?;
                let (cipher, ivs) = sector_cipher(&names, encryption, cipher_key, key, sector_size)?;
                let iv_size = cipher.iv_size();
                Self { kind: Kind::Authenc { mac, cipher }, ivs, iv_size, tag_size, sector_size: size }
            }
        };
        if aead.stored_size() == 0 {
            // dm-integrity has no such tags, and cryptsetup makes no such volume.
            let message =
                format!("found {integrity} with {}: nothing would be stored for a sector", escape(encryption));
            return Err(Error::unsupported("integrity.type", message));
        }
        Ok(aead)
    }

    fn of_aead(names: &Names<'_>, encryption: &str, integrity: &str, key: &[u8], sector_size: usize) -> Result<Self> {
        let (found, iv_size): (Option<Box<dyn Aead>>, usize) = match (names.cipher, names.mode, integrity) {
            (cipher, "gcm", "aead") => (block_cipher(cipher, key)?.map(|c| aead(Gcm::new(c))), 12),
            (cipher, "ccm", "aead") => {
                // The key is followed by the three bytes of the nonce that are not stored (RFC 4309, section 4).
                let parts = key.split_last_chunk::<3>();
                let ccm = parts.map(|(key, salt)| Ok((block_cipher(cipher, key)?, salt))).transpose()?;
                (ccm.and_then(|(c, salt)| Some(aead(Ccm::new(c?, *salt)))), 8)
            }
            ("aegis128", "", "aead") => (key.try_into().ok().map(|key| aead(Aegis128::new(key))), 16),
            ("aegis128l", "", "aead") => (key.try_into().ok().map(|key| aead(Aegis128L::new(key))), 16),
            ("aegis256", "", "aead") => (key.try_into().ok().map(|key| aead(Aegis256::new(key))), 32),
            ("chacha20", "", "poly1305") => (key.try_into().ok().map(|key| aead(ChaCha20Poly1305::new(key))), 12),
            _ => {
                let message = format!(
                    "found {} with {integrity}; gcm, ccm, aegis128, aegis128l and aegis256 with aead, and chacha20 with poly1305 are known",
                    escape(encryption)
                );
                return Err(Error::unsupported("cipher", message));
            }
        };
        let found = found.ok_or_else(|| {
            Error::corrupt("key_size", format!("found {} bytes; {} takes no such key", key.len(), escape(encryption)))
        })?;
        let ivs = match names.iv {
            "random" => Ivs::Stored,
            name => match plain_iv(name) {
                Some(mode) => Ivs::Made(IvGenerator::new(&mode, iv_size, TAG, |_| Err(unknown_iv(name)))?),
                None => return Err(unknown_iv(name)),
            },
        };
        Ok(Self { kind: Kind::Aead(found), ivs, iv_size, tag_size: TAG, sector_size })
    }

    /// Bytes of a sector.
    pub(crate) fn sector_size(&self) -> usize {
        self.sector_size
    }

    /// Bytes that are stored for a sector: its tag, and its IV where that is random.
    pub(crate) fn stored_size(&self) -> usize {
        match self.ivs {
            Ivs::Stored => self.tag_size + self.iv_size,
            _ => self.tag_size,
        }
    }

    /// Decrypts whole sectors in place, and gives those whose tag is wrong, by their index: they are decrypted as well,
    /// and not to be trusted. `tags` is what is stored for each sector, one behind the other. `sector` is the number of
    /// the first one in units of 512 bytes, and `iv_sector` the number that its IV is made of.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where `data` is not whole sectors with a tag each.
    pub(crate) fn decrypt(&self, data: &mut [u8], tags: &[u8], sector: u64, iv_sector: u64) -> Result<Vec<usize>> {
        let stored = self.stored_size();
        let count = data.len() / self.sector_size;
        if !data.len().is_multiple_of(self.sector_size) || Some(tags.len()) != count.checked_mul(stored) {
            let message = format!("{} bytes with {} bytes of tags are not whole sectors", data.len(), tags.len());
            return Err(Error::invalid(message));
        }
        let step = to_u64(self.sector_size / 512);
        let (mut number, mut iv_number, mut first) = (sector, iv_sector, 0);
        let mut wrong = Vec::new();
        for (run, tags) in data.chunks_mut(RUN * self.sector_size).zip(tags.chunks(RUN * stored)) {
            let n = run.len() / self.sector_size;
            let mut ivs = [0; RUN * IV_MAX];
            let ivs = &mut ivs[..n * self.iv_size];
            iv_number = self.fill_ivs(ivs, tags, iv_number, step);
            let each = run.chunks_exact_mut(self.sector_size).zip(tags.chunks_exact(stored));
            let each = each.zip(ivs.chunks_exact(self.iv_size)).enumerate();
            for (index, ((data, tag), iv)) in each {
                let mut aad = [0; 8 + IV_MAX];
                aad[..8].copy_from_slice(&number.to_le_bytes());
                aad[8..8 + iv.len()].copy_from_slice(iv);
                let aad = &aad[..8 + iv.len()];
                let tag = &tag[..self.tag_size];
                let right = match &self.kind {
                    Kind::Authenc { mac, .. } => mac.verify(aad, data, tag),
                    Kind::Aead(aead) => aead.decrypt(data, iv, aad).ct_eq(tag).into(),
                    Kind::Unauthenticated(_) => true,
                };
                if !right {
                    wrong.push(first + index);
                }
                number = number.wrapping_add(step);
            }
            if let Kind::Authenc { cipher, .. } | Kind::Unauthenticated(cipher) = &self.kind {
                cipher.decrypt_with(run, ivs);
            }
            first += n;
        }
        Ok(wrong)
    }

    /// Fills `ivs` for the sectors from number `first` on, and gives the number of the next one.
    fn fill_ivs(&self, ivs: &mut [u8], tags: &[u8], first: u64, step: u64) -> u64 {
        match (&self.ivs, &self.kind) {
            (Ivs::Stored, _) => {
                let stored = tags.chunks_exact(self.stored_size()).map(|tag| &tag[self.tag_size..]);
                ivs.chunks_exact_mut(self.iv_size).zip(stored).for_each(|(iv, stored)| iv.copy_from_slice(stored));
                first
            }
            (Ivs::Made(generator), _) => generator.fill(ivs, first, step),
            (Ivs::OfCipher, Kind::Authenc { cipher, .. } | Kind::Unauthenticated(cipher)) => {
                cipher.fill_ivs(ivs, first)
            }
            (Ivs::OfCipher, Kind::Aead(_)) => first,
        }
    }
}

fn unknown_iv(name: &str) -> Error {
    let message = format!("found IV mode \"{}\"; random and plain64 are known for this cipher", escape(name));
    Error::unsupported("cipher", message)
}

/// The cipher below a MAC, or above IVs that are stored.
fn sector_cipher(
    names: &Names<'_>,
    encryption: &str,
    key: &[u8],
    volume_key: &[u8],
    sector_size: u32,
) -> Result<(SectorCipher, Ivs)> {
    let mut spec = CipherSpec::parse(encryption)?;
    let ivs = match names.iv {
        // Cryptsetup makes room for the IVs of xts and of no other mode that is known here.
        "random" if names.mode == "xts" => Ivs::Stored,
        "random" => {
            let message =
                format!("found {}; random IVs are stored for xts, gcm, ccm, aegis and chacha20", escape(encryption));
            return Err(Error::unsupported("cipher", message));
        }
        _ => Ivs::OfCipher,
    };
    if matches!(ivs, Ivs::Stored) {
        spec.iv = IvMode::Null;
    }
    let cipher = SectorCipher::with_volume_key(&spec, key, volume_key, sector_size)?;
    match cipher.iv_size() {
        0 => Err(Error::unsupported("cipher", format!("found {} below a MAC: it has no IV", escape(encryption)))),
        _ => Ok((cipher, ivs)),
    }
}

/// The bytes of a MAC's key, where the header does not say, and of its tag.
fn mac_sizes(integrity: &str) -> Result<(usize, usize)> {
    match integrity {
        "hmac(sha1)" => Ok((20, 20)),
        "hmac(sha256)" => Ok((32, 32)),
        "hmac(sha512)" => Ok((64, 64)),
        "cmac(aes)" => Ok((16, 16)),
        _ => {
            let known = "aead, poly1305, hmac(sha1), hmac(sha256), hmac(sha512), cmac(aes) and none are known";
            Err(Error::unsupported("integrity.type", format!("found \"{}\"; {known}", escape(integrity))))
        }
    }
}

fn aead(aead: impl Aead + 'static) -> Box<dyn Aead> {
    Box::new(aead)
}

fn new_mac(integrity: &str, key: &[u8]) -> Result<Box<dyn SectorMac>> {
    // HMAC takes keys of any length, but no volume has an empty one.
    let mac: Option<Box<dyn SectorMac>> = match integrity {
        _ if key.is_empty() => None,
        "hmac(sha1)" => boxed::<Hmac<sha1::Sha1>>(key),
        "hmac(sha256)" => boxed::<Hmac<sha2::Sha256>>(key),
        "hmac(sha512)" => boxed::<Hmac<sha2::Sha512>>(key),
        // The MAC has its own kinds of keys, by their length.
        "cmac(aes)" => match key.len() {
            16 => boxed::<Cmac<aes::Aes128>>(key),
            24 => boxed::<Cmac<aes::Aes192>>(key),
            _ => boxed::<Cmac<aes::Aes256>>(key),
        },
        _ => None,
    };
    mac.ok_or_else(|| {
        Error::corrupt("integrity.key_size", format!("found {} bytes; {integrity} takes no such key", key.len()))
    })
}

fn boxed<M: Mac + KeyInit + Clone + Send + Sync + 'static>(key: &[u8]) -> Option<Box<dyn SectorMac>> {
    let mac = <M as KeyInit>::new_from_slice(key).ok()?;
    Some(Box::new(mac))
}
