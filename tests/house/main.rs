//! The repository itself: the order of its modules, and what it links in.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]

mod dependencies;
mod layering;
