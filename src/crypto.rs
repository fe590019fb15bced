//! Hashes, key derivation, anti-forensic merging, and ciphers that decrypt a run of sectors a call.

#[cfg(feature = "unlock")]
pub(crate) mod aead;
#[cfg(feature = "unlock")]
pub mod af;
#[cfg(feature = "unlock")]
pub mod cipher;
pub mod hash;
#[cfg(feature = "unlock")]
mod iv;
#[cfg(feature = "unlock")]
pub mod kdf;
pub mod spec;
