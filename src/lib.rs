//! Reads LUKS1 and LUKS2 images without cryptsetup, root or device-mapper: parses their headers, unlocks them, and
//! gives their plaintext at any position.
//!
//! ```text
//!  file ──► luks::open ──► Metadata ───────────────► reports, findings
//!                             │
//!    Key ──────────────► luks::unlock ──► UnlockedImage (volume keys)
//!                                              │
//!                                           Volume: ReadAt over plaintext
//!                                              │
//!                       decrypt: to a file, a pipe, a hasher · nbd: to any client
//! ```
//!
//! Every stage takes and gives [`ReadAt`], positioned reads that any number of threads may make at once. Images are
//! opened read-only and are taken to be hostile: see [`limits`].
//!
//! ```
//! use std::sync::Arc;
//! use unluks::{Image, Key, ReadAt, SecretBytes};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Any `ReadAt` will do; here it is a whole image in memory.
//! # let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
//! let image = std::fs::read(format!("{dir}/openstack-volume.img"))?;
//! let payload = SecretBytes::copy_of(&std::fs::read(format!("{dir}/openstack-volume.key"))?)?;
//!
//! let image = Image::open(Arc::new(image))?;
//! let unlocked = image.unlock(&Key::barbican(&payload)?, &Default::default())?;
//! let volume = unlocked.volume(Default::default())?;
//!
//! let mut start = [0u8; 16];
//! volume.read_exact_at(&mut start, 0)?;
//! assert!(start.is_ascii());
//! # Ok(()) }
//! ```
//!
//! # Features
//! `unlock`, on by default, is key derivation, unlocking and the volume; `nbd` is the NBD server, which serves any
//! [`ReadAt`]; `serde` makes the reports of `luks::report` and `scan::report`, in the JSON that the program prints;
//! `read-ext`, `read-xfs`, `read-btrfs`, `read-fat` and `read-ntfs` are readers of files, each with the crate that it is of.
//! Without them, with `default-features = false`, the crate is the header parsers alone: [`open`] and [`luks`].
//! The program and the client of OpenStack are crates of their own, `unluks-cli` and `unluks-openstack`.

#[cfg(not(unix))]
compile_error!(
    "unluks reads files and devices as Unix has them, and builds on Unix systems alone; its program, on Linux"
);

#[cfg(feature = "unlock")]
pub mod backup;
#[cfg(feature = "unlock")]
pub mod cinder;
pub mod crypto;
#[cfg(feature = "unlock")]
pub mod decrypt;
pub mod error;
#[cfg(feature = "unlock")]
pub mod files;
#[cfg(feature = "unlock")]
pub mod format;
#[cfg(feature = "unlock")]
mod image;
#[cfg(feature = "unlock")]
pub mod inside;
pub mod io;
#[cfg(feature = "serde")]
pub mod json;
#[cfg(feature = "unlock")]
pub mod key;
pub mod limits;
#[cfg(feature = "unlock")]
pub mod locate;
pub mod luks;
#[cfg(feature = "unlock")]
pub mod map;
#[cfg(feature = "nbd")]
pub mod nbd;
#[doc(hidden)]
pub mod num;
pub mod progress;
#[cfg(feature = "reader")]
pub mod reader;
#[cfg(feature = "unlock")]
pub mod scan;
#[cfg(feature = "unlock")]
pub mod secret;
#[cfg(feature = "unlock")]
pub mod storage;
#[cfg(feature = "unlock")]
#[doc(hidden)]
pub mod threads;
#[cfg(all(feature = "unlock", feature = "serde"))]
pub mod verify;
#[cfg(feature = "unlock")]
pub mod volume;

pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "unlock")]
pub use image::{Image, OpenOptions, PlainOptions, UnlockedImage};
pub use io::{FileSource, ReadAt};
#[cfg(feature = "unlock")]
pub use key::Key;
pub use limits::Limits;
pub use luks::metadata::Metadata;
pub use luks::open;
#[cfg(feature = "unlock")]
pub use secret::{Passphrase, SecretBytes, VolumeKey};
#[cfg(feature = "unlock")]
pub use volume::Volume;

/// The README's examples of the library, compiled and run with the other examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
