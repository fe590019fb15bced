//! Hashes, key derivation, anti-forensic merging, and ciphers that decrypt a run of sectors a call.

pub mod hash;
