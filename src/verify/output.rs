//! What a decryption wrote, read back: a fact of its own. It proves that the output is what was decrypted, and nothing of the
//! image.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The output of a decryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Output {
    /// Its path as it was given; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hex; `None` where it is not what was decrypted.
    pub sha256: Option<String>,
    /// Whether all of it was read back and is what was decrypted.
    pub read_back: bool,
    /// Bytes in it that stand for what could not be read, or was left out for a wrong tag.
    pub stand_in_bytes: u64,
    /// What these are: `zeroes`, or `noise` where they were decrypted all the same; `None` where there are none.
    pub stand_in: Option<Cow<'static, str>>,
}

impl Output {
    /// Its bytes, its hash, and what is to be known of them, in words.
    pub fn says(&self) -> String {
        let mut words = format!("{} bytes", self.bytes);
        if let Some(hex) = &self.sha256 {
            words += &format!(", sha256 {hex}");
        }
        if let Some(what) = &self.stand_in {
            words += &format!(", with {} bytes as {what} for what was not read", self.stand_in_bytes);
        }
        words + if self.read_back { ", read back" } else { ", which is not what was decrypted" }
    }
}
