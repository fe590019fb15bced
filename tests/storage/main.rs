//! Disks made of disks, byte for byte as a real kernel reads them.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used, clippy::as_conversions)]
#![cfg(feature = "unlock")]

mod inside;
mod lvm;
mod lvm_mutations;
mod md;
