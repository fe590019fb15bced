//! A report as its one line of JSON: with an id, which is a hash of all of it, and back again.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::report::{Report, SCHEMA};
use crate::error::{Error, Result, visible};
use crate::json;
use crate::limits::VERIFY_REPORT_MAX;
use crate::num::to_u64;

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
            Error::invalid(format!("it is no report of verify that is known here ({at}): {}", visible(&e.to_string())))
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
