//! Many images: which share of a list is whose, and what all their reports come to.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::report::{Report, Severity, Verdict};
use super::seal::schema_of;
use crate::error::{Error, Result, escape};

/// One of several shares of a list. A path belongs to the same one wherever the list is, and whatever else is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which one, from 0 on.
    pub index: u64,
    /// How many there are; 1 or more.
    pub count: u64,
}

impl Shard {
    /// Whether a path belongs to it.
    pub fn has(self, path: &str) -> bool {
        number(path).checked_rem(self.count) == Some(self.index)
    }
}

/// A number that a path comes to: the first 8 bytes of its SHA-256, big-endian.
fn number(path: &str) -> u64 {
    let hash: [u8; 32] = Sha256::digest(path).into();
    hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The name of an image's report: readable, and another one for each path.
pub fn report_name(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    let last: String = last.trim_start_matches('.').chars().take(80).map(plain).collect();
    format!("{last}-{:016x}.json", number(path))
}

/// What is known of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Proof {
    /// Its path.
    pub path: String,
    /// The verdict; `None` where there is no report of it.
    pub verdict: Option<Verdict>,
    /// Why, or why there is no report.
    pub reason: Option<String>,
    /// When it was verified: RFC 3339, UTC.
    pub verified_at: Option<String>,
    /// How many findings are errors.
    pub errors: u64,
    /// How many findings are warnings.
    pub warnings: u64,
    /// Its bytes.
    pub size: Option<u64>,
    /// SHA-256 of its plaintext, where that was made.
    pub plaintext_sha256: Option<String>,
    /// The file of its report.
    pub report: Option<String>,
}

impl Proof {
    /// What a report says.
    pub fn of(report: &Report, file: Option<String>) -> Self {
        let count = |severity| crate::num::to_u64(report.findings.iter().filter(|f| f.severity == severity).count());
        Self {
            path: report.image.path.clone(),
            verdict: Some(report.verdict),
            reason: report.reason.clone(),
            verified_at: Some(report.run.started_at.clone()),
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            size: report.image.size,
            plaintext_sha256: report.hashes.plaintext.get("sha256").cloned(),
            report: file,
        }
    }

    /// An image without a report.
    pub fn missing(path: &str, why: &str) -> Self {
        Self {
            path: path.to_owned(),
            verdict: None,
            reason: Some(why.to_owned()),
            verified_at: None,
            errors: 0,
            warnings: 0,
            size: None,
            plaintext_sha256: None,
            report: None,
        }
    }
}

/// All images, in the order of their paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Fleet {
    /// How many there are of each verdict, by its name; `no-report` is of those without.
    pub counts: BTreeMap<String, u64>,
    /// How many reports an image's newer one took the place of.
    pub superseded: u64,
    /// Each of them.
    pub images: Vec<Proof>,
}

impl Fleet {
    /// These images.
    pub fn new(mut images: Vec<Proof>) -> Self {
        images.sort_by(|a, b| a.path.cmp(&b.path));
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for proof in &images {
            let count = counts.entry(proof.verdict.map_or("no-report", Verdict::name).to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        Self { counts, superseded: 0, images }
    }

    /// Brings reports together, each with the name of its file: of an image with several, the newest counts. With a list,
    /// all images of it are there, also those without a report, and no others.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where they are not all of one schema, or one of them is
    /// no report, naming the file.
    pub fn merge(files: impl IntoIterator<Item = Result<(String, String)>>, list: Option<&[String]>) -> Result<Self> {
        let mut newest: BTreeMap<String, Proof> = BTreeMap::new();
        let mut schemas: BTreeMap<u32, String> = BTreeMap::new();
        let (mut superseded, mut wrong) = (0u64, None);
        for file in files {
            let (name, text) = file?;
            let within = |e: Error| e.within(escape(&name));
            schemas.entry(schema_of(&text).map_err(within)?).or_insert_with(|| name.clone());
            let report = match Report::parse(&text) {
                Ok(report) => report,
                // That the schemas are mixed says more.
                Err(e) => {
                    wrong.get_or_insert(within(e));
                    continue;
                }
            };
            let proof = Proof::of(&report, Some(name));
            match newest.get(&proof.path) {
                Some(other) if other.verified_at >= proof.verified_at => superseded = superseded.saturating_add(1),
                Some(_) => {
                    superseded = superseded.saturating_add(1);
                    newest.insert(proof.path.clone(), proof);
                }
                None => drop(newest.insert(proof.path.clone(), proof)),
            }
        }
        if schemas.len() > 1 {
            let each: Vec<String> =
                schemas.iter().map(|(n, name)| format!("{} is of schema {n}", escape(name))).collect();
            return Err(Error::invalid(format!("the reports are of several schemas: {}", each.join(", "))));
        }
        if let Some(e) = wrong {
            return Err(e);
        }
        let images = match list {
            None => newest.into_values().collect(),
            Some(list) => {
                let wanted: BTreeSet<&String> = list.iter().collect();
                let take = |path: &String| newest.remove(path).unwrap_or_else(|| Proof::missing(path, "no report"));
                wanted.into_iter().map(take).collect()
            }
        };
        Ok(Self { superseded, ..Self::new(images) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(path: &str, at: &str, schema: u32) -> Result<(String, String)> {
        let mut report = Report::of_refusal(path, None, &Error::corrupt("magic", "none")).unwrap();
        report.run.started_at = at.into();
        report.schema = schema;
        Ok((format!("{path} {at}"), report.seal().unwrap()))
    }

    #[test]
    fn shards_share_all_paths_and_none_twice() {
        let paths: Vec<String> = (0..1000).map(|n| format!("/images/{n}.img")).collect();
        for path in &paths {
            let owners = (0..7).filter(|index| Shard { index: *index, count: 7 }.has(path)).count();
            assert_eq!(owners, 1);
        }
        for index in 0..7 {
            let share = paths.iter().filter(|path| Shard { index, count: 7 }.has(path)).count();
            assert!((100..190).contains(&share), "{share}");
        }
        assert!(!Shard { index: 0, count: 0 }.has("a"));
    }

    #[test]
    fn names_of_reports_are_plain_and_differ() {
        assert_ne!(report_name("/a/disk.img"), report_name("/b/disk.img"));
        let hostile = report_name("/a/../..\u{202e}\n$(x) .img/");
        assert!(hostile.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !hostile.starts_with('.'));
        assert!(report_name(&"x".repeat(400)).len() < 120);
    }

    #[test]
    fn the_newest_wins_and_the_lost_are_named() {
        let files = || [report("b", "2026-01-01", 1), report("a", "2026-01-02", 1), report("b", "2026-01-03", 1)];
        let fleet = Fleet::merge(files(), Some(&["a".into(), "b".into(), "c".into(), "a".into()])).unwrap();
        let said: Vec<_> = fleet.images.iter().map(|p| (p.path.as_str(), p.verified_at.as_deref())).collect();
        assert_eq!(said, [("a", Some("2026-01-02")), ("b", Some("2026-01-03")), ("c", None)]);
        assert_eq!((fleet.superseded, fleet.counts["no-report"], fleet.counts["not-restorable"]), (1, 1, 2));
        assert_eq!(Fleet::merge(files(), None).unwrap().images.len(), 2);
    }

    #[test]
    fn several_schemas_and_what_is_no_report_are_refused() {
        let e = Fleet::merge([report("a", "1", 1), report("b", "1", 2)], None).unwrap_err();
        assert!(e.to_string().contains("several schemas"), "{e}");
        let e = Fleet::merge([Ok(("x.json".into(), "{}".into()))], None).unwrap_err();
        assert!(e.to_string().contains("x.json"), "{e}");
    }
}
