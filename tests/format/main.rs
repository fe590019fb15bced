//! File formats and partition tables, against the programs that make and read them.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "peer-tests", feature = "unlock"))]

mod aff4;
mod books;
mod ewf2;
mod formats;
mod hostile;
mod partitions;
mod refused;
mod sets;
mod support;
mod vhdx_log;
