//! What hashes of files that somebody recorded came to: a manifest's, and those of package databases in the image.

use serde::{Deserialize, Serialize};

/// What a manifest came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FilesUsed {
    /// SHA-256 of the manifest, in lower-case hex.
    pub sha256: String,
    /// Its lines.
    pub lines: u64,
    /// Lines whose file is there with that hash.
    pub matched: u64,
    /// Bytes of these files.
    pub matched_bytes: u64,
    /// Lines whose file has another hash.
    pub differing: u64,
    /// Lines for which there is no file.
    pub missing: u64,
    /// Lines whose file could not be read.
    pub unread: u64,
    /// Regular files in the image that the manifest does not name; `None` where not all directories could be gone through.
    pub not_listed: Option<u64>,
    /// Bytes of these.
    pub not_listed_bytes: Option<u64>,
}

impl FilesUsed {
    /// Whether each file in the image is as the manifest says.
    pub fn is_all(&self) -> bool {
        self.not_listed == Some(0) && self.matched == self.lines
    }
}

/// What package databases came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PackagesUsed {
    /// Each of them.
    pub databases: Vec<Database>,
    /// Regular files that none of them has a right hash of; `None` where not all directories could be gone through.
    pub not_proven: Option<u64>,
    /// Bytes of these.
    pub not_proven_bytes: Option<u64>,
}

/// What a package database came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Database {
    /// Whose it is: `dpkg`, `apk`, `pacman`; or `rpm`, which is not read.
    pub kind: String,
    /// Where it is in the image.
    pub path: String,
    /// Whether it was read.
    pub is_read: bool,
    /// Packages that it says are installed.
    pub packages: u64,
    /// Files that have the hash that it has of them.
    pub matched: u64,
    /// Bytes of these.
    pub matched_bytes: u64,
    /// Files of configuration that were changed, or are gone.
    pub changed_config: u64,
    /// Other files that have another hash.
    pub differing: u64,
    /// Other files that are not there.
    pub missing: u64,
    /// Files that could not be read.
    pub unread: u64,
    /// Files under an empty directory of the first two levels, where another file system was mounted.
    pub elsewhere: u64,
}
