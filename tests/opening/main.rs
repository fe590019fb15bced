//! From a file to its plaintext: what can be opened although parts of it cannot be read, and the library's front door.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]
#![cfg(feature = "unlock")]

#[cfg(feature = "serde")]
mod damages;
mod failing;
mod foreign;
mod front_door;
mod layers;
mod nested;
#[cfg(feature = "serde")]
mod parts;
mod proved;
#[cfg(feature = "serde")]
mod report;
mod support;
mod tables;
mod unreadable;
#[cfg(feature = "serde")]
mod verify;
