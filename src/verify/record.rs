//! What a report says of the run that made it: all that may differ between two runs over one image. `verify` knows when it
//! began; a program adds what it knows of itself, of the machine and of the case.
//!
//! [`Report::seal`] gives a report its id, a hash of all of it, which a page made of it carries, too.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::report::{Report, SCHEMA};
use crate::error::{Error, Result, escape};
use crate::json;
use crate::limits::VERIFY_REPORT_MAX;
use crate::num::to_u64;

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

/// Digits of an id.
const ID_LEN: usize = 64;
/// What stands before the id in a report, and nowhere else: a text has no bare quotes in it.
const ID_BEFORE: &str = r#""run":{"id":""#;

impl Report {
    /// Gives the report its id, and its line of JSON.
    ///
    /// # Errors
    /// As [`json::compact`].
    pub fn seal(&mut self) -> Result<String> {
        self.run.id = "0".repeat(ID_LEN);
        let blank = json::compact(self)?;
        self.run.id = hex::encode(Sha256::digest(&blank));
        Ok(blank.replacen(&format!("{ID_BEFORE}{}", "0".repeat(ID_LEN)), &format!("{ID_BEFORE}{}", self.run.id), 1))
    }

    /// Reads a report that was written before.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where it is none of this schema, has members that are
    /// not known, or is not the one that its id was made of.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim_end();
        let none = |e: serde_json::Error| {
            let at = format!("line {}, column {}", e.line(), e.column());
            Error::invalid(format!("it is no report of verify that is known here ({at}): {}", escape(&e.to_string())))
        };
        if to_u64(text.len()) > VERIFY_REPORT_MAX {
            let message = format!("it has {} bytes; reports have at most {VERIFY_REPORT_MAX}", text.len());
            return Err(Error::invalid(message));
        }
        let found = schema_of(text)?;
        if found != SCHEMA {
            return Err(Error::invalid(format!("it is of schema {found}; this program reads {SCHEMA}")));
        }
        let report: Self = serde_json::from_str(text).map_err(none)?;
        let id = &report.run.id;
        let blank = text.replacen(&format!("{ID_BEFORE}{id}"), &format!("{ID_BEFORE}{}", "0".repeat(ID_LEN)), 1);
        if id.len() != ID_LEN || hex::encode(Sha256::digest(&blank)) != *id {
            return Err(Error::invalid("it was changed after it was written: its id is the hash of another text"));
        }
        Ok(report)
    }
}

/// The schema that a text says it is of.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where it is no report at all.
pub(super) fn schema_of(text: &str) -> Result<u32> {
    #[derive(Deserialize)]
    struct Only {
        schema: u32,
        #[serde(rename = "verdict")]
        _verdict: String,
    }
    let only: Only = serde_json::from_str(text).map_err(|_| Error::invalid("it is no report of verify"))?;
    Ok(only.schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn report() -> Report {
        let e = Error::corrupt("magic", "found \u{202e}nothing\"run\":{\"id\":\"");
        Report::of_refusal("a\"run\":{\"id\":\"0\u{202e}.img", None, &e).unwrap()
    }

    #[test]
    fn a_sealed_report_comes_back_and_a_changed_one_does_not() {
        let mut report = report();
        report.run.case.note = Some("\"run\":{\"id\":\"".into());
        let text = report.seal().unwrap();
        assert_eq!(text, json::compact(&report).unwrap());
        let back = Report::parse(&format!("{text}\n")).unwrap();
        assert_eq!(json::compact(&back).unwrap(), text);
        for (from, to) in [("not-restorable", "restorable"), ("\"schema\":1", "\"schema\":2"), ("{", "{\"more\":1,")] {
            let e = Report::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidInput, "{e}");
        }
        let e = Report::parse(&text.replacen("{", "{\"more\":1,", 1)).unwrap_err();
        assert!(e.to_string().contains("unknown field `more`"), "{e}");
        assert!(Report::parse("{}").is_err() && Report::parse("").is_err());
    }
}
