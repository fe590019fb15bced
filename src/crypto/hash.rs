//! The hash functions that LUKS headers name, by the names that cryptsetup and the kernel use.

use digest::Digest;

use crate::error::{Error, Result, escape};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[non_exhaustive]
pub enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Ripemd160,
    Whirlpool,
    /// Whirlpool, and what libgcrypt before 1.6.1 made of it in the anti-forensic splitter: see
    /// [`af`](crate::crypto::af).
    WhirlpoolGcryptBug,
    /// Whirlpool, cut to 256 bits: for ESSIV alone.
    Wp256,
    /// Whirlpool, cut to 384 bits: for ESSIV alone.
    Wp384,
    /// Tiger, cut to 128 bits: for ESSIV alone.
    Tgr128,
    /// Tiger, cut to 160 bits: for ESSIV alone.
    Tgr160,
    /// Tiger: for ESSIV alone.
    Tgr192,
    Sha3_224,
    Sha3_256,
    Sha3_384,
    Sha3_512,
    Blake2b160,
    Blake2b256,
    Blake2b384,
    Blake2b512,
    Blake2s128,
    Blake2s160,
    Blake2s224,
    Blake2s256,
}

/// Name, variant, output length in bytes. Names as libgcrypt, OpenSSL and the kernel spell them in headers.
const NAMES: &[(&str, Hash, usize)] = &[
    ("sha1", Hash::Sha1, 20),
    ("sha224", Hash::Sha224, 28),
    ("sha256", Hash::Sha256, 32),
    ("sha384", Hash::Sha384, 48),
    ("sha512", Hash::Sha512, 64),
    ("ripemd160", Hash::Ripemd160, 20),
    ("whirlpool", Hash::Whirlpool, 64),
    ("whirlpool_gcryptbug", Hash::WhirlpoolGcryptBug, 64),
    ("sha3-224", Hash::Sha3_224, 28),
    ("sha3-256", Hash::Sha3_256, 32),
    ("sha3-384", Hash::Sha3_384, 48),
    ("sha3-512", Hash::Sha3_512, 64),
    ("blake2b-160", Hash::Blake2b160, 20),
    ("blake2b-256", Hash::Blake2b256, 32),
    ("blake2b-384", Hash::Blake2b384, 48),
    ("blake2b-512", Hash::Blake2b512, 64),
    ("blake2s-128", Hash::Blake2s128, 16),
    ("blake2s-160", Hash::Blake2s160, 20),
    ("blake2s-224", Hash::Blake2s224, 28),
    ("blake2s-256", Hash::Blake2s256, 32),
];

/// The same for hashes that the kernel alone knows: a header names them as an option of ESSIV, and nowhere else. The
/// kernel makes the shorter ones by cutting the long one (crypto/wp512.c, and crypto/tgr192.c up to Linux 5.11).
const KERNEL_NAMES: &[(&str, Hash, usize)] = &[
    ("wp256", Hash::Wp256, 32),
    ("wp384", Hash::Wp384, 48),
    ("tgr128", Hash::Tgr128, 16),
    ("tgr160", Hash::Tgr160, 20),
    ("tgr192", Hash::Tgr192, 24),
];

type Blake2b160 = blake2::Blake2b<digest::consts::U20>;
type Blake2b256 = blake2::Blake2b<digest::consts::U32>;
type Blake2b384 = blake2::Blake2b<digest::consts::U48>;
type Blake2s128 = blake2::Blake2s<digest::consts::U16>;
type Blake2s160 = blake2::Blake2s<digest::consts::U20>;
type Blake2s224 = blake2::Blake2s<digest::consts::U28>;

/// Calls the macro or function `$f` with the type that implements a [`Hash`]: the one place that knows them all. The type
/// of a hash that is a longer one cut short is the longer one's.
#[macro_export]
#[doc(hidden)]
macro_rules! with_hash {
    ($hash:expr, $D:ident => $body:expr) => {{
        use $crate::crypto::hash::{Hash, types};
        macro_rules! go {
            ($t:ty) => {{
                type $D = $t;
                $body
            }};
        }
        match $hash {
            Hash::Sha1 => go!(types::Sha1),
            Hash::Sha224 => go!(types::Sha224),
            Hash::Sha256 => go!(types::Sha256),
            Hash::Sha384 => go!(types::Sha384),
            Hash::Sha512 => go!(types::Sha512),
            Hash::Ripemd160 => go!(types::Ripemd160),
            Hash::Whirlpool | Hash::WhirlpoolGcryptBug | Hash::Wp256 | Hash::Wp384 => go!(types::Whirlpool),
            Hash::Tgr128 | Hash::Tgr160 | Hash::Tgr192 => go!(types::Tiger),
            Hash::Sha3_224 => go!(types::Sha3_224),
            Hash::Sha3_256 => go!(types::Sha3_256),
            Hash::Sha3_384 => go!(types::Sha3_384),
            Hash::Sha3_512 => go!(types::Sha3_512),
            Hash::Blake2b160 => go!(types::Blake2b160),
            Hash::Blake2b256 => go!(types::Blake2b256),
            Hash::Blake2b384 => go!(types::Blake2b384),
            Hash::Blake2b512 => go!(types::Blake2b512),
            Hash::Blake2s128 => go!(types::Blake2s128),
            Hash::Blake2s160 => go!(types::Blake2s160),
            Hash::Blake2s224 => go!(types::Blake2s224),
            Hash::Blake2s256 => go!(types::Blake2s256),
        }
    }};
}

/// The types behind [`Hash`](enum@Hash), for [`with_hash!`](crate::with_hash).
#[doc(hidden)]
pub mod types {
    pub type Sha1 = sha1::Sha1;
    pub type Sha224 = sha2::Sha224;
    pub type Sha256 = sha2::Sha256;
    pub type Sha384 = sha2::Sha384;
    pub type Sha512 = sha2::Sha512;
    pub type Ripemd160 = ripemd::Ripemd160;
    pub type Whirlpool = whirlpool::Whirlpool;
    pub type Tiger = tiger::Tiger;
    pub type Sha3_224 = sha3::Sha3_224;
    pub type Sha3_256 = sha3::Sha3_256;
    pub type Sha3_384 = sha3::Sha3_384;
    pub type Sha3_512 = sha3::Sha3_512;
    pub type Blake2b160 = super::Blake2b160;
    pub type Blake2b256 = super::Blake2b256;
    pub type Blake2b384 = super::Blake2b384;
    pub type Blake2b512 = blake2::Blake2b512;
    pub type Blake2s128 = super::Blake2s128;
    pub type Blake2s160 = super::Blake2s160;
    pub type Blake2s224 = super::Blake2s224;
    pub type Blake2s256 = blake2::Blake2s256;
}

impl Hash {
    /// The hash that a header names `name`. Case does not matter: libgcrypt never minded it, and old headers differ.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a name that is not known here.
    pub fn from_name(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let known = NAMES.iter().find(|(n, ..)| *n == lower);
        known.map(|(_, h, _)| *h).ok_or_else(|| {
            let names: Vec<_> = NAMES.iter().map(|(n, ..)| *n).collect();
            Error::unsupported("hash", format!("found \"{}\"; known are {}", escape(name), names.join(", ")))
        })
    }

    /// The hash that the kernel alone knows by `name`, for ESSIV.
    pub(crate) fn from_kernel_name(name: &str) -> Option<Self> {
        KERNEL_NAMES.iter().find(|(n, ..)| *n == name).map(|(_, h, _)| *h)
    }

    fn row(self) -> Option<&'static (&'static str, Self, usize)> {
        NAMES.iter().chain(KERNEL_NAMES).find(|(_, h, _)| *h == self)
    }

    /// The name in headers.
    pub fn name(self) -> &'static str {
        self.row().map_or("", |(n, ..)| n)
    }

    /// How many bytes it gives.
    pub fn output_len(self) -> usize {
        self.row().map_or(0, |(_, _, len)| *len)
    }

    /// The hash of `parts`, one after the other.
    pub fn digest(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut digest = with_hash!(self, D => {
            let mut d = <D as Digest>::new();
            for p in parts {
                Digest::update(&mut d, p);
            }
            Digest::finalize(d).to_vec()
        });
        digest.truncate(self.output_len());
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_to_its_hash_and_length() {
        for (name, hash, len) in NAMES {
            assert_eq!(Hash::from_name(name).unwrap(), *hash);
            assert_eq!(hash.name(), *name);
            assert_eq!(hash.digest(&[b"a", b"bc"]).len(), *len, "{name}");
            assert_eq!(hash.digest(&[b"a", b"bc"]), hash.digest(&[b"abc"]));
        }
        assert_eq!(Hash::from_name("SHA1").unwrap(), Hash::Sha1);
        assert!(Hash::from_name("crc32").is_err());
        // The vectors of the kernel's crypto/testmgr.h.
        for (name, digest) in [
            ("tgr192", "2aab1484e8c158f2bfb8c5ff41b57a525129131c957b5f93"),
            ("tgr160", "2aab1484e8c158f2bfb8c5ff41b57a525129131c"),
            ("tgr128", "2aab1484e8c158f2bfb8c5ff41b57a52"),
            ("wp256", "4e2448a4c6f486bb16b6562c73b4020bf3043e3a731bce721ae1b303d97e6d4c"),
        ] {
            let hash = Hash::from_kernel_name(name).unwrap();
            assert_eq!(hex::encode(hash.digest(&[b"abc"])), digest, "{name}");
            assert_eq!((hash.name(), hash.output_len()), (name, digest.len() / 2));
            assert!(Hash::from_name(name).is_err());
        }
    }
}
