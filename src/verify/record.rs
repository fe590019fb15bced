//! What a report says of the run that made it: all that may differ between two runs over one image. `verify` knows when it
//! began; a program adds what it knows of itself, of the machine and of the case.

use serde::{Deserialize, Serialize};

/// The one part that differs between two runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Run {
    /// SHA-256 over the report's line of JSON, in which these 64 digits are zeroes; empty where it was not sealed.
    pub id: String,
    /// The program.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// When it began: RFC 3339, UTC, by the machine's clock.
    pub started_at: String,
    /// When it ended.
    pub ended_at: String,
    /// How long it took.
    pub seconds: f64,
    /// What else is known of the program; `None` where nobody said.
    pub program: Option<Program>,
    /// The machine; `None` where nobody said.
    pub host: Option<Host>,
    /// The files that were read, as they were before: all of them were opened for reading alone.
    pub inputs: Vec<InputFile>,
    /// A hash of what was asked, beside the key: where it is the same, an unchanged image has the same report.
    pub asked: Option<String>,
    /// Whose record it is.
    pub case: Case,
}

/// The program that made a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// SHA-256 of its file, in lower-case hex.
    pub sha256: Option<String>,
    /// What it was built with.
    pub features: Vec<String>,
    /// The fences that this system has around processes that read files out of an image; empty where the program has none.
    #[serde(default)]
    pub sandbox: Vec<String>,
    /// Its arguments. The name of what is no file is left out where a key's file is wanted: it may be the key.
    pub arguments: Vec<String>,
    /// The most bytes of memory that a key derivation was allowed.
    pub kdf_memory_max: u64,
    /// The most seconds that all key derivations were allowed.
    pub kdf_seconds_max: u64,
}

/// The machine that a program ran on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Operating system and release.
    pub system: String,
    /// The architecture.
    pub architecture: String,
    /// The user's number.
    pub uid: u32,
    /// The user's name, as the environment has it.
    pub user: Option<String>,
}

/// A file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Its path; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// When it was last changed: nanoseconds since 1970.
    pub modified_ns: i64,
    /// The number of its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// Words of whoever ran it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The case's number or name.
    pub case: Option<String>,
    /// The evidence's.
    pub evidence: Option<String>,
    /// Who examined it.
    pub examiner: Option<String>,
    /// Anything else.
    pub note: Option<String>,
}
