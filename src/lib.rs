//! Reads LUKS1 and LUKS2 images: parses their headers, unlocks them, and gives their plaintext at any position.

pub mod crypto;
pub mod error;
pub mod io;
pub mod limits;
#[cfg(feature = "nbd")]
pub mod nbd;
#[cfg(feature = "unlock")]
pub mod secret;

pub use error::{Error, ErrorKind, Result};
pub use io::ReadAt;
pub use limits::Limits;
