//! What a header must be like, by the rules of whoever owns the data: an image restores all the same, but not as it should.
//!
//! A policy is read by serde from any format; the program takes TOML. Each rule is a value, or a table of `is` and
//! `severity`:
//!
//! ```toml
//! min-argon2-memory-kib = 65536
//! forbidden-ciphers = { is = ["cbc", "ecb"], severity = "error" }
//! ```

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::must_be::MustBe;
use super::report::{Finding, PolicyUsed, Severity};
use crate::backup::rfc3339;
use crate::error::{Result, counted, escape};
use crate::luks::metadata::{DigestKind, Kdf, KeyslotKind, Metadata, SegmentKind};

/// A rule, and how much it weighs to break it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields, expecting = "a value of that rule is wanted, or a table of `is` and `severity`")]
pub enum Rule<T> {
    /// What must be, with the policy's own severity.
    Is(T),
    /// The same with one of its own.
    With {
        /// What must be.
        is: T,
        /// How much it weighs.
        severity: Severity,
    },
}

/// The rules. Those that are `None` ask for nothing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Policy {
    /// How much the rules weigh that do not say it themselves.
    pub severity: Severity,
    /// Whether the image must be encrypted. Where another rule of the header is there, it must be in any case.
    pub encrypted: Option<Rule<bool>>,
    /// The lowest version of LUKS.
    pub min_luks_version: Option<Rule<u8>>,
    /// The key derivation functions that are allowed.
    pub allowed_kdfs: Option<Rule<Vec<String>>>,
    /// The fewest iterations of a keyslot's PBKDF2.
    pub min_pbkdf2_iterations: Option<Rule<u64>>,
    /// The least memory of a keyslot's Argon2, in KiB.
    pub min_argon2_memory_kib: Option<Rule<u64>>,
    /// The fewest passes of a keyslot's Argon2.
    pub min_argon2_passes: Option<Rule<u64>>,
    /// Ciphers that may not be, whole or in part: `cbc` is any cipher in CBC, `aes-cbc-plain` that one.
    pub forbidden_ciphers: Option<Rule<Vec<String>>>,
    /// Hashes that may not be: of keyslots, of the anti-forensic splitter, of digests.
    pub forbidden_hashes: Option<Rule<Vec<String>>>,
    /// The fewest bits of a volume key. XTS has two keys in one: 512 bits for AES-256.
    pub min_key_bits: Option<Rule<u64>>,
    /// Whether each sector must be under a tag of dm-integrity.
    pub integrity: Option<Rule<bool>>,
    /// The most keyslots.
    pub max_keyslots: Option<Rule<u64>>,
    /// Whether both copies of a LUKS2 header must be good.
    pub both_headers: Option<Rule<bool>>,
    /// What must be in the plaintext, as [`MustBe`] has it. It is judged there, and is an error.
    pub contents: Option<String>,
    /// The oldest that a backup may be, in days since it was fetched.
    pub max_age_days: Option<Rule<u64>>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            severity: Severity::Warning,
            encrypted: None,
            min_luks_version: None,
            allowed_kdfs: None,
            min_pbkdf2_iterations: None,
            min_argon2_memory_kib: None,
            min_argon2_passes: None,
            forbidden_ciphers: None,
            forbidden_hashes: None,
            min_key_bits: None,
            integrity: None,
            max_keyslots: None,
            both_headers: None,
            contents: None,
            max_age_days: None,
        }
    }
}

/// The code of what breaks the age's rule; those of the header begin with [`HEADER`].
const AGE: &str = "file.policy.age";
const HEADER: &str = "header.policy.";
const DAY: Duration = Duration::from_secs(86400);

impl Policy {
    /// Refuses words that mean nothing.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput).
    pub fn check(&self) -> Result<()> {
        self.contents.as_deref().map_or(Ok(()), |word| word.parse::<MustBe>().map(drop))
    }

    pub(super) fn must_be(&self) -> Option<MustBe> {
        self.contents.as_deref().and_then(|word| word.parse().ok())
    }

    /// What breaks the rules of the header.
    pub fn judge(&self, metadata: &Metadata) -> Vec<Finding> {
        let mut judged = Judged { own: self.severity, findings: Vec::new() };
        self.judge_header(metadata, &mut judged);
        for (id, keyslot) in &metadata.keyslots {
            let KeyslotKind::Luks2(slot) = &keyslot.kind else { continue };
            let at = format!("keyslots.{id}");
            self.judge_kdf(&slot.kdf, &at, &mut judged);
            self.judge_cipher(&slot.encryption, &at, &mut judged);
            self.judge_hash(&slot.af_hash, &at, &mut judged);
            let bits = u64::from(keyslot.key_size).saturating_mul(8);
            judged.at_least("key-bits", &self.min_key_bits, bits, &at, "bits of volume key");
        }
        for (id, digest) in &metadata.digests {
            if let DigestKind::Pbkdf2 { hash, .. } = &digest.kind {
                self.judge_hash(hash, &format!("digests.{id}"), &mut judged);
            }
        }
        for (id, segment) in metadata.live_segments() {
            let at = format!("segments.{id}");
            let tagged = match &segment.kind {
                SegmentKind::Crypt(crypt) => {
                    self.judge_cipher(&crypt.encryption, &at, &mut judged);
                    crypt.integrity.as_ref().is_some_and(|integrity| integrity.kind != "none")
                }
                _ => false,
            };
            judged.must("integrity", &self.integrity, tagged, &at, "no tag of dm-integrity is over the data");
        }
        judged.findings
    }

    /// What it is to have no header at all.
    pub fn judge_unencrypted(&self) -> Vec<Finding> {
        let mut judged = Judged { own: self.severity, findings: Vec::new() };
        let of_header = self.rules_of_header().contains(&true).then_some(Rule::Is(true));
        let rule = self.encrypted.clone().or(of_header);
        judged.must("encrypted", &rule, false, "header", "it is not encrypted");
        judged.findings
    }

    fn judge_header(&self, metadata: &Metadata, judged: &mut Judged) {
        let number = metadata.version.number();
        if let Some((least, severity)) = judged.rule(&self.min_luks_version)
            && number < *least
        {
            let message = format!("it is LUKS{number}; the policy wants LUKS{least}");
            judged.add("luks-version", severity, "header", message, number, *least);
        }
        let keyslots = crate::num::to_u64(metadata.keyslots.len());
        if let Some((most, severity)) = judged.rule(&self.max_keyslots)
            && keyslots > *most
        {
            let message = format!("found {} in use; the policy allows {most}", counted(keyslots, "keyslot"));
            judged.add("keyslots", severity, "keyslots", message, keyslots, *most);
        }
        let all_good = metadata.copies.iter().all(|copy| copy.error.is_none());
        judged.must("both-headers", &self.both_headers, all_good, "header", "not every copy of the header is good");
    }

    fn judge_kdf(&self, kdf: &Kdf, at: &str, judged: &mut Judged) {
        let kind = match kdf {
            Kdf::Pbkdf2 { .. } => "pbkdf2",
            Kdf::Argon2 { variant, .. } => variant,
            Kdf::Unknown { kind } => kind,
        };
        if let Some((allowed, severity)) = judged.rule(&self.allowed_kdfs)
            && !allowed.iter().any(|name| name == kind)
        {
            let (kind, allowed) = (escape(kind), allowed.join(", "));
            let message = format!("{at} derives its key with {kind}; the policy allows {allowed}");
            judged.add("kdf", severity, at, message, kind, allowed);
        }
        match kdf {
            Kdf::Pbkdf2 { hash, iterations, .. } => {
                judged.at_least("pbkdf2-iterations", &self.min_pbkdf2_iterations, *iterations, at, "iterations");
                self.judge_hash(hash, at, judged);
            }
            Kdf::Argon2 { time, memory, .. } => {
                judged.at_least("argon2-memory", &self.min_argon2_memory_kib, *memory, at, "KiB of memory");
                judged.at_least("argon2-passes", &self.min_argon2_passes, *time, at, "passes");
            }
            Kdf::Unknown { .. } => {}
        }
    }

    fn judge_cipher(&self, cipher: &str, at: &str, judged: &mut Judged) {
        if let Some((forbidden, severity)) = judged.rule(&self.forbidden_ciphers)
            && let Some(rule) = forbidden.iter().find(|rule| is_part(rule, cipher))
        {
            let (cipher, rule) = (escape(cipher), rule.clone());
            let message = format!("{at} is encrypted with {cipher}; the policy forbids {rule}");
            judged.add("cipher", severity, at, message, cipher, format!("not {rule}"));
        }
    }

    fn judge_hash(&self, hash: &str, at: &str, judged: &mut Judged) {
        if let Some((forbidden, severity)) = judged.rule(&self.forbidden_hashes)
            && forbidden.iter().any(|rule| rule.eq_ignore_ascii_case(hash))
        {
            let hash = escape(hash);
            let message = format!("{at} uses {hash}; the policy forbids it");
            judged.add("hash", severity, at, message, &hash, format!("not {hash}"));
        }
    }

    /// What breaks the rule of the age: `fetched_at` is RFC 3339, in UTC.
    pub fn judge_age(&self, fetched_at: &str, now: SystemTime) -> Option<Finding> {
        let judged = Judged { own: self.severity, findings: Vec::new() };
        let (days, severity) = judged.rule(&self.max_age_days)?;
        let age = DAY.checked_mul(u32::try_from(*days).ok()?)?;
        // Moments of this one form are in the order of their texts.
        let is_old = now.checked_sub(age).is_some_and(|oldest| *fetched_at < *rfc3339(oldest));
        let fetched_at = escape(fetched_at);
        let message = format!("the backup was fetched at {fetched_at}; the policy allows {days} days");
        is_old.then(|| {
            Finding::new(severity, AGE, "backup.json", message).says(fetched_at, format!("at most {days} days ago"))
        })
    }

    /// Which rules of the header there are.
    fn rules_of_header(&self) -> [bool; 11] {
        [
            self.min_luks_version.is_some(),
            self.allowed_kdfs.is_some(),
            self.min_pbkdf2_iterations.is_some(),
            self.min_argon2_memory_kib.is_some(),
            self.min_argon2_passes.is_some(),
            self.forbidden_ciphers.is_some(),
            self.forbidden_hashes.is_some(),
            self.min_key_bits.is_some(),
            self.integrity.is_some(),
            self.max_keyslots.is_some(),
            self.both_headers.is_some(),
        ]
    }

    /// How many rules there are, and what they came to.
    pub(super) fn used(&self, findings: &[Finding]) -> PolicyUsed {
        let others = [self.encrypted.is_some(), self.contents.is_some(), self.max_age_days.is_some()];
        let rules = self.rules_of_header().into_iter().chain(others);
        let count = |n: usize| crate::num::to_u64(n);
        let of_policy = |f: &&Finding| f.code.starts_with(HEADER) || f.code == AGE;
        PolicyUsed {
            sha256: None,
            rules: count(rules.filter(|is_set| *is_set).count()),
            findings: count(findings.iter().filter(of_policy).count()),
        }
    }
}

/// Whether a rule's parts stand in a cipher's, one behind the other.
fn is_part(rule: &str, cipher: &str) -> bool {
    let parts = |text: &str| -> Vec<String> { text.split('-').map(str::to_ascii_lowercase).collect() };
    let (rule, cipher) = (parts(rule), parts(cipher));
    cipher.windows(rule.len().max(1)).any(|window| window == rule)
}

struct Judged {
    own: Severity,
    findings: Vec<Finding>,
}

impl Judged {
    fn rule<'a, T>(&self, rule: &'a Option<Rule<T>>) -> Option<(&'a T, Severity)> {
        Some(match rule.as_ref()? {
            Rule::Is(is) => (is, self.own),
            Rule::With { is, severity } => (is, *severity),
        })
    }

    fn add(
        &mut self,
        code: &str,
        severity: Severity,
        at: &str,
        message: String,
        found: impl ToString,
        wanted: impl ToString,
    ) {
        self.findings.push(Finding::new(severity, format!("{HEADER}{code}"), at, message).says(found, wanted));
    }

    fn at_least(&mut self, code: &str, rule: &Option<Rule<u64>>, found: u64, at: &str, unit: &str) {
        if let Some((least, severity)) = self.rule(rule)
            && found < *least
        {
            let message = format!("{at} has {found} {unit}; the policy wants {least}");
            self.add(code, severity, at, message, found, format!("at least {least}"));
        }
    }

    fn must(&mut self, code: &str, rule: &Option<Rule<bool>>, is_so: bool, at: &str, otherwise: &str) {
        if let Some((true, severity)) = self.rule(rule)
            && !is_so
        {
            self.add(code, severity, at, format!("{otherwise}; the policy wants it"), "no", "yes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        serde_json::from_str(json).unwrap()
    }

    fn broken(image: &str, json: &str) -> Vec<(String, Severity)> {
        let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/").to_owned() + image).unwrap();
        let metadata = crate::luks::open(&bytes).unwrap();
        let found = policy(json).judge(&metadata);
        found.into_iter().map(|f| (f.code.strip_prefix(HEADER).unwrap().to_owned(), f.severity)).collect()
    }

    #[test]
    fn each_rule_is_broken_by_an_image_that_breaks_it() {
        let image = "openstack-volume.img";
        let cases = [
            ("luks-version", r#"{"min-luks-version": 2}"#, r#"{"min-luks-version": 1}"#),
            ("kdf", r#"{"allowed-kdfs": ["argon2id"]}"#, r#"{"allowed-kdfs": ["argon2id", "pbkdf2"]}"#),
            ("pbkdf2-iterations", r#"{"min-pbkdf2-iterations": 100000000}"#, r#"{"min-pbkdf2-iterations": 1000}"#),
            ("cipher", r#"{"forbidden-ciphers": ["xts"]}"#, r#"{"forbidden-ciphers": ["cbc", "plain", "xts-plain"]}"#),
            ("hash", r#"{"forbidden-hashes": ["SHA256"]}"#, r#"{"forbidden-hashes": ["sha1"]}"#),
            ("key-bits", r#"{"min-key-bits": 1024}"#, r#"{"min-key-bits": 256}"#),
            ("integrity", r#"{"integrity": true}"#, r#"{"integrity": false}"#),
            ("keyslots", r#"{"max-keyslots": 0}"#, r#"{"max-keyslots": 1}"#),
        ];
        for (code, breaks, holds) in cases {
            let found = broken(image, breaks);
            assert!(!found.is_empty() && found.iter().all(|(found, _)| found == code), "{code}: {found:?}");
            assert_eq!(broken(image, holds), [], "{code}");
        }
        let found =
            broken(image, r#"{"severity": "note", "integrity": true, "max-keyslots": {"is": 0, "severity": "error"}}"#);
        assert_eq!(found, [("keyslots".into(), Severity::Error), ("integrity".into(), Severity::Note)]);
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for wrong in [
            r#"{"min-argon2-memory": 5}"#,
            r#"{"min-key-bits": "many"}"#,
            r#"{"min-key-bits": {"is": 5, "severity": "bad"}}"#,
            r#"{"min-key-bits": {"is": 5, "severity": "note", "more": 1}}"#,
        ] {
            assert!(serde_json::from_str::<Policy>(wrong).is_err(), "{wrong}");
        }
        assert!(policy(r#"{"contents": "ext"}"#).check().is_ok());
        assert!(policy(r#"{"contents": "minix"}"#).check().is_err());
    }

    #[test]
    fn a_backup_is_too_old_by_its_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let judge = |json: &str, at: &str| policy(json).judge_age(at, now).map(|f| f.severity);
        assert_eq!(judge(r#"{"max-age-days": 30}"#, "2026-12-01T00:00:00Z"), Some(Severity::Warning));
        assert_eq!(judge(r#"{"max-age-days": 30}"#, "2027-01-01T00:00:00Z"), None);
        assert_eq!(judge("{}", "1999-01-01T00:00:00Z"), None);
    }
}
