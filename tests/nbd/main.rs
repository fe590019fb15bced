//! The NBD server: byte by byte, against real clients, and under stress.

// Clippy takes only functions with #[test] for tests.
#![allow(clippy::as_conversions, clippy::unwrap_used)]
#![cfg(all(feature = "nbd", feature = "unlock"))]

mod handshake;
mod idle;
#[cfg(feature = "peer-tests")]
mod peers;
mod stress;
#[allow(dead_code)] // The tests of the program use a part of it.
mod support;
#[cfg(feature = "peer-tests")]
mod tls;
mod transmission;
