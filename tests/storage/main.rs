//! Arrays that a real kernel made, byte for byte.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]
#![cfg(feature = "unlock")]

mod md;
