//! Hashes, key derivation, anti-forensic merging, and ciphers that decrypt a run of sectors a call.

#[cfg(feature = "unlock")]
pub mod af;
pub mod hash;
#[cfg(feature = "unlock")]
pub mod kdf;
