//! Ciphers that decrypt a run of sectors a call, as dm-crypt encrypted them.

mod adiantum;
mod blocks;
mod cbc;
mod lrw;
mod poly1305;
mod twofish;
mod xts;

use cipher::KeyInit;
use zeroize::{Zeroize, Zeroizing};

use self::adiantum::Adiantum;
use self::cbc::{Cbc, Ecb};
use self::lrw::Lrw;
use self::xts::Xts;
use crate::crypto::hash::Hash;
use crate::crypto::iv::{EncryptBlocks, IvGenerator};
use crate::crypto::spec::{CipherName, CipherSpec, IvMode, Mode};
use crate::error::{Error, Result};
use crate::num::from_u32;

/// How many sectors are decrypted at once: enough IVs to fill the widest backend twice.
const RUN: usize = 128;
/// The longest IV: Adiantum's.
const IV_MAX: usize = 32;

/// Decrypts whole sectors in place. `ivs` holds one IV a sector, and is the mode's to overwrite.
trait SectorMode: Send + Sync {
    fn decrypt(&self, data: &mut [u8], ivs: &mut [u8], sector_size: usize);
}

/// A cipher with its key, that decrypts runs of sectors. Its key schedules are zeroized when it is dropped.
///
/// Any number of threads may use one at the same time. Runs of 64 KiB and more, in memory that is aligned to 64 bytes,
/// are fastest; a run that stays in the cache is worth more than a long one.
pub struct SectorCipher {
    /// `None` is the null cipher.
    keyed: Option<(Box<dyn SectorMode>, IvGenerator)>,
    sector_size: u32,
}

/// Evaluates `$body`, an `Option`, with `$C` as the type of `$cipher` under keys of `$len` bytes; `None` where it takes
/// no such key. These have 16-byte blocks.
macro_rules! with_wide_cipher {
    ($cipher:expr, $len:expr, $C:ident => $body:expr) => {{
        macro_rules! go {
            ($t:ty) => {{
                type $C = $t;
                $body
            }};
        }
        match ($cipher, $len) {
            (CipherName::Aes, 16) => go!(aes::Aes128),
            (CipherName::Aes, 24) => go!(aes::Aes192),
            (CipherName::Aes, 32) => go!(aes::Aes256),
            (CipherName::Camellia, 16) => go!(camellia::Camellia128),
            (CipherName::Camellia, 24) => go!(camellia::Camellia192),
            (CipherName::Camellia, 32) => go!(camellia::Camellia256),
            (CipherName::Serpent, _) => go!(serpent::Serpent),
            (CipherName::Twofish, _) => go!(self::twofish::Twofish),
            (CipherName::Cast6, _) => go!(cast6::Cast6),
            _ => None,
        }
    }};
}

/// As `with_wide_cipher`, and for the ciphers with 8-byte blocks too.
macro_rules! with_cipher {
    ($cipher:expr, $len:expr, $C:ident => $body:expr) => {
        match $cipher {
            CipherName::Cast5 => {
                type $C = cast5::Cast5;
                $body
            }
            cipher => with_wide_cipher!(cipher, $len, $C => $body),
        }
    };
}

impl SectorCipher {
    /// The cipher that `spec` names, with `key`, over sectors of 512, 1024, 2048 or 4096 bytes.
    ///
    /// The null cipher takes any key.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a cipher, a mode, an IV mode or a combination that
    /// is not known here; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), rule `key_size`, for a key that the cipher
    /// does not take, and rule `sector_size` for a sector size that dm-crypt does not take.
    pub fn new(spec: &CipherSpec, key: &[u8], sector_size: u32) -> Result<Self> {
        Self::with_volume_key(spec, key, key, sector_size)
    }

    /// As [`SectorCipher::new`], where the volume key holds a MAC's key too: ESSIV hashes all of it.
    pub(crate) fn with_volume_key(spec: &CipherSpec, key: &[u8], volume_key: &[u8], sector_size: u32) -> Result<Self> {
        if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
            let message = format!("found {sector_size}; 512, 1024, 2048 and 4096 are allowed");
            return Err(Error::corrupt("sector_size", message));
        }
        spec.check_known()?;
        check_combination(spec)?;
        if spec.is_null() {
            return Ok(Self { keyed: None, sector_size });
        }
        let mode = leave_no_trace(|| new_mode(spec, key))
            .ok_or_else(|| Error::corrupt("key_size", format!("found {} bytes; {}", key.len(), takes(spec))))?;
        let block_size = block_size(&spec.cipher);
        let iv_size = match spec.mode {
            Mode::Ecb => 0,
            Mode::Adiantum => IV_MAX,
            _ => block_size,
        };
        let ivs = IvGenerator::new(&spec.iv, iv_size, block_size, |hash| new_essiv(spec, volume_key, hash))?;
        Ok(Self { keyed: Some((mode, ivs)), sector_size })
    }

    /// How many bytes a sector has.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Decrypts whole sectors in place. `iv_sector` is the IV number of the first one, counted in units of 512 bytes:
    /// a sector of 4096 bytes advances it by 8.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where `data` is not whole sectors.
    pub fn decrypt(&self, data: &mut [u8], iv_sector: u64) -> Result<()> {
        let sector_size = from_u32(self.sector_size);
        if !data.len().is_multiple_of(sector_size) {
            let message = format!("{} bytes are not whole sectors of {sector_size} bytes", data.len());
            return Err(Error::invalid(message));
        }
        let Some((mode, generator)) = &self.keyed else { return Ok(()) };
        let step = u64::from(self.sector_size / 512);
        let mut first = iv_sector;
        for run in data.chunks_mut(RUN * sector_size) {
            let mut ivs = [0; RUN * IV_MAX];
            let ivs = &mut ivs[..run.len() / sector_size * generator.size()];
            first = generator.fill(ivs, first, step);
            mode.decrypt(run, ivs, sector_size);
        }
        wipe_stack();
        Ok(())
    }

    /// Bytes of an IV; 0 for a cipher without IVs.
    pub(crate) fn iv_size(&self) -> usize {
        self.keyed.as_ref().map_or(0, |(_, generator)| generator.size())
    }

    /// Fills `ivs`, zeroed before, with the IVs of the sectors from number `first` on, and gives the next number.
    pub(crate) fn fill_ivs(&self, ivs: &mut [u8], first: u64) -> u64 {
        match &self.keyed {
            Some((_, generator)) => generator.fill(ivs, first, u64::from(self.sector_size / 512)),
            None => first,
        }
    }

    /// Decrypts whole sectors with an IV each, which are overwritten.
    pub(crate) fn decrypt_with(&self, data: &mut [u8], ivs: &mut [u8]) {
        if let Some((mode, _)) = &self.keyed {
            mode.decrypt(data, ivs, from_u32(self.sector_size));
            wipe_stack();
        }
    }
}

/// A block cipher with 16-byte blocks and its key; `None` where it takes no such key.
///
/// # Errors
/// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a name that is not known here.
pub(crate) fn block_cipher(name: &str, key: &[u8]) -> Result<Option<Box<dyn EncryptBlocks>>> {
    let spec = CipherSpec::parse(&format!("{name}-cbc-plain64"))?;
    spec.check_known()?;
    check_combination(&spec)?;
    match block_size(&spec.cipher) {
        16 => Ok(leave_no_trace(|| new_cipher(&spec.cipher, key))),
        n => Err(Error::unsupported(
            "cipher",
            format!("found {name}: this mode is over ciphers with 16-byte blocks, not {n}"),
        )),
    }
}

/// Refuses what the kernel's templates refuse: modes over ciphers that do not fit them.
fn check_combination(spec: &CipherSpec) -> Result<()> {
    let block_size = block_size(&spec.cipher);
    let streams = matches!(spec.cipher, CipherName::Xchacha12Aes | CipherName::Xchacha20Aes);
    let refused = match (&spec.mode, &spec.iv) {
        (Mode::Ecb, _) if spec.is_null() => return Ok(()),
        (_, _) if spec.is_null() => "the null cipher has no mode but ecb",
        (Mode::Adiantum, _) if !streams => "adiantum is over xchacha12,aes or xchacha20,aes",
        (mode, _) if *mode != Mode::Adiantum && streams => "a stream cipher has no mode but adiantum",
        (Mode::Adiantum, IvMode::Essiv(_)) => "essiv gives IVs of one cipher block, and adiantum has longer ones",
        (Mode::Xts | Mode::Lrw, _) if block_size != 16 => "this mode is over ciphers with 16-byte blocks",
        (mode, IvMode::None) if *mode != Mode::Ecb => "this mode needs an IV mode",
        _ => return Ok(()),
    };
    Err(Error::unsupported("cipher", format!("found {spec}: {refused}")))
}

fn block_size(cipher: &CipherName) -> usize {
    match cipher {
        CipherName::Cast5 => 8,
        _ => 16,
    }
}

/// The mode over its cipher; `None` where the key does not fit.
fn new_mode(spec: &CipherSpec, key: &[u8]) -> Option<Box<dyn SectorMode>> {
    let cipher = &spec.cipher;
    match spec.mode {
        Mode::Xts => {
            let (data, tweak) = key.split_at(key.len() / 2);
            with_wide_cipher!(cipher, tweak.len(), C => {
                xts::<C>(data, tweak)
            })
        }
        Mode::Cbc => with_cipher!(cipher, key.len(), C => Some(Box::new(Cbc(keyed::<C>(key)?)))),
        Mode::Ecb => with_cipher!(cipher, key.len(), C => Some(Box::new(Ecb(keyed::<C>(key)?)))),
        Mode::Lrw => {
            let (key, tweak_key) = key.split_last_chunk()?;
            with_wide_cipher!(cipher, key.len(), C => Some(Box::new(Lrw::new(keyed::<C>(key)?, tweak_key))))
        }
        Mode::Adiantum => {
            let key = key.try_into().ok()?;
            match cipher {
                CipherName::Xchacha12Aes => Some(Box::new(Adiantum::<chacha20::XChaCha12>::new(key))),
                _ => Some(Box::new(Adiantum::<chacha20::XChaCha20>::new(key))),
            }
        }
        Mode::Other(_) => None,
    }
}

/// Of its own, so that the stack holds no room for the schedules of all other ciphers.
#[inline(never)]
fn xts<C: KeyInit>(data: &[u8], tweak: &[u8]) -> Option<Box<dyn SectorMode>>
where
    Xts<C>: SectorMode + 'static,
{
    Some(Box::new(Xts { data: keyed(data)?, tweak: keyed(tweak)? }))
}

/// More than any cipher's key schedule, and the steps to it, take of the stack.
const STACK: usize = 32 << 10;

/// Runs `make`, and wipes the stack that it used: a key schedule is made there before it moves to where it stays, and
/// moving leaves a copy that nobody drops.
fn leave_no_trace<T>(make: impl FnOnce() -> Option<Box<T>>) -> Option<Box<T>>
where
    T: ?Sized,
{
    #[inline(never)]
    fn below<T>(make: impl FnOnce() -> T) -> T {
        make()
    }
    let made = below(make);
    wipe_stack();
    made
}

/// Wipes the stack below the caller: besides what was made there, the round keys for which a processor's registers were not
/// enough while sectors were decrypted.
#[inline(never)]
fn wipe_stack() {
    let mut stack = [0u8; STACK];
    stack.zeroize();
    std::hint::black_box(&mut stack);
}

fn keyed<C: KeyInit>(key: &[u8]) -> Option<C> {
    C::new_from_slice(key).ok()
}

/// The cipher of ESSIV's IVs: `spec`'s own, with the hash of the whole volume key for its key (crypto/essiv.c).
fn new_essiv(spec: &CipherSpec, key: &[u8], hash: Hash) -> Result<Box<dyn EncryptBlocks>> {
    let salt = Zeroizing::new(hash.digest(&[key]));
    leave_no_trace(|| new_cipher(&spec.cipher, &salt)).ok_or_else(|| {
        let (hash, len, cipher) = (hash.name(), salt.len(), &spec.cipher);
        let message = format!("essiv:{hash} makes a key of {len} bytes; {cipher} takes {}", key_sizes(cipher));
        Error::corrupt("key_size", message)
    })
}

fn new_cipher(cipher: &CipherName, key: &[u8]) -> Option<Box<dyn EncryptBlocks>> {
    with_cipher!(cipher, key.len(), C => Some(Box::new(keyed::<C>(key)?)))
}

/// The keys of a cipher in bytes, as a message names them.
fn key_sizes(cipher: &CipherName) -> &'static str {
    match cipher {
        CipherName::Aes | CipherName::Twofish | CipherName::Camellia => "16, 24 or 32",
        CipherName::Serpent => "16 to 32",
        CipherName::Cast5 => "5 to 16",
        CipherName::Cast6 => "16, 20, 24, 28 or 32",
        CipherName::Xchacha12Aes | CipherName::Xchacha20Aes => "32",
        CipherName::Null | CipherName::Other(_) => "any number of",
    }
}

/// The keys of a whole specification, as a message names them.
fn takes(spec: &CipherSpec) -> String {
    let sizes = key_sizes(&spec.cipher);
    match spec.mode {
        Mode::Xts => format!("{spec} takes twice {sizes}"),
        Mode::Lrw => format!("{spec} takes {sizes}, and 16 more"),
        _ => format!("{spec} takes {sizes}"),
    }
}

#[cfg(test)]
mod tests;
