//! Weak points and oddities of a header, each with a severity, for reports.

use super::metadata::*;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Weaker than it should be, or damaged but usable.
    Warning,
    /// The data is not protected, or not all of it can be read.
    Critical,
}

impl Severity {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Something about a header that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable code, such as `null-cipher`.
    pub code: &'static str,
    /// What it is about, such as `segments.0`.
    pub about: String,
    /// One sentence.
    pub message: String,
}

/// PBKDF2 below this many iterations is quick to guess: NIST SP 800-132's minimum, and cryptsetup's.
const PBKDF2_FEW: u64 = 1000;
/// OWASP's advice of 2023 for PBKDF2-HMAC-SHA256.
const PBKDF2_ADVISED: u64 = 600_000;
/// RFC 9106's second recommended option has 64 MiB.
const ARGON2_ADVISED_KIB: u64 = 64 << 10;

/// What there is to say about a header whose data file has `data_len` bytes, if that is known.
pub fn findings(metadata: &Metadata, data_len: Option<u64>) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    all.copies(metadata);
    all.segments(metadata, data_len);
    for (id, keyslot) in &metadata.keyslots {
        all.keyslot(metadata, *id, keyslot);
    }
    if metadata.keyslots.is_empty() {
        all.add(
            Severity::Critical,
            "no-keyslot",
            "keyslots",
            "no keyslot is left: only the volume key itself can open this image",
        );
    }
    for r in &metadata.requirements {
        let message = format!("the header demands {}", crate::error::escape(r));
        all.add(Severity::Note, "requirement", "config.requirements", message);
    }
    all.0.sort_by_key(|f| std::cmp::Reverse(f.severity));
    all.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, code: &'static str, about: impl Into<String>, message: impl Into<String>) {
        self.0.push(Finding { severity, code, about: about.into(), message: message.into() });
    }

    fn copies(&mut self, metadata: &Metadata) {
        for copy in &metadata.copies {
            if let Some(e) = &copy.error {
                let message = format!("the {} header is not good: {e}", copy.role);
                self.add(Severity::Warning, "header-copy-damaged", format!("copies.{}", copy.role), message);
            }
            if copy.repaired {
                let message = "leftover KDF parameters were passed over";
                self.add(Severity::Note, "leftover-kdf-parameters", format!("copies.{}", copy.role), message);
            }
        }
        let seqids: Vec<_> = metadata.copies.iter().filter(|c| c.error.is_none()).filter_map(|c| c.seqid).collect();
        if seqids.windows(2).any(|w| w[0] != w[1]) {
            let message = format!("the copies have different sequence ids: {seqids:?}; the higher one is used");
            self.add(Severity::Warning, "header-copies-differ", "copies", message);
        }
    }

    fn segments(&mut self, metadata: &Metadata, data_len: Option<u64>) {
        for (id, segment) in metadata.live_segments() {
            let about = format!("segments.{id}");
            match &segment.kind {
                SegmentKind::Crypt(c) => self.cipher(&about, &c.encryption),
                SegmentKind::Linear => self.add(
                    Severity::Critical,
                    "plaintext-segment",
                    about.as_str(),
                    "this part of the data is not encrypted",
                ),
                SegmentKind::Unknown { kind } => {
                    let message = format!("the segment type {} is not known here", crate::error::escape(kind));
                    self.add(Severity::Warning, "unknown-segment", about.as_str(), message);
                }
            }
            let Some(data_len) = data_len else { continue };
            let end = segment.size.map_or(Some(segment.offset), |size| segment.offset.checked_add(size));
            if end.is_none_or(|end| end > data_len) {
                let missing = end.map_or("more than can be".to_owned(), |end| (end - data_len).to_string());
                let message = format!("the file is cut off: {missing} bytes of this segment are missing");
                self.add(Severity::Critical, "truncated", about, message);
            }
        }
    }

    fn cipher(&mut self, about: &str, encryption: &str) {
        if is_null(encryption) {
            self.add(
                Severity::Critical,
                "null-cipher",
                about,
                "the data is not encrypted at all: the cipher is the null cipher",
            );
        } else if encryption.contains("-ecb") || encryption.contains("ecb(") && !encryption.contains("xts(") {
            self.add(Severity::Warning, "ecb", about, "ECB shows which blocks are alike");
        } else if matches!(encryption, "aes" | "aes-plain")
            || encryption.ends_with("-cbc-plain")
            || encryption.ends_with("-cbc-plain64")
        {
            self.add(
                Severity::Warning,
                "predictable-iv",
                about,
                "CBC with predictable IVs leaks marks that were planted in the data (watermarking)",
            );
        }
        if encryption.ends_with("-plain") {
            self.add(Severity::Note, "plain-iv", about, "the IV repeats every 2 TiB");
        }
    }

    fn keyslot(&mut self, metadata: &Metadata, id: u32, keyslot: &Keyslot) {
        let about = format!("keyslots.{id}");
        match &keyslot.kind {
            KeyslotKind::Luks2(slot) => {
                self.kdf(&about, &slot.kdf);
                if is_null(&slot.encryption) {
                    self.add(
                        Severity::Critical,
                        "null-cipher",
                        about.as_str(),
                        "the volume key lies here unencrypted: the cipher is the null cipher",
                    );
                }
                if metadata.is_unbound(id) {
                    self.add(Severity::Note, "unbound", about.as_str(), "its key opens no segment");
                }
            }
            KeyslotKind::Reencrypt(r) => {
                let message = format!(
                    "a reencryption is under way (mode {}, {}, resilience {})",
                    r.mode,
                    r.direction,
                    crate::error::escape(&r.resilience)
                );
                self.add(Severity::Warning, "reencryption", about.as_str(), message);
            }
            KeyslotKind::Unknown { kind } => {
                let message = format!("the keyslot type {} is not known here", crate::error::escape(kind));
                self.add(Severity::Note, "unknown-keyslot", about.as_str(), message);
            }
        }
        if let Priority::Unknown(n) = keyslot.priority {
            self.add(Severity::Note, "unknown-priority", about, format!("priority {n} means nothing to cryptsetup"));
        }
    }

    fn kdf(&mut self, about: &str, kdf: &Kdf) {
        match kdf {
            Kdf::Pbkdf2 { hash, iterations, .. } => {
                if hash.eq_ignore_ascii_case("sha1") {
                    self.add(Severity::Warning, "sha1", about, "PBKDF2 with sha1 is the quickest to guess");
                }
                if *iterations < PBKDF2_FEW {
                    self.add(
                        Severity::Critical,
                        "few-iterations",
                        about,
                        format!("only {iterations} PBKDF2 iterations; {PBKDF2_FEW} are cryptsetup's minimum"),
                    );
                } else if *iterations < PBKDF2_ADVISED {
                    self.add(Severity::Note, "few-iterations", about, format!("{iterations} PBKDF2 iterations; {PBKDF2_ADVISED} are advised against guessing of weak passphrases"));
                }
            }
            Kdf::Argon2 { memory, .. } if *memory < ARGON2_ADVISED_KIB => {
                self.add(Severity::Note, "little-memory", about, format!("{memory} KiB of Argon2 memory; {ARGON2_ADVISED_KIB} KiB are advised against guessing of weak passphrases"));
            }
            Kdf::Argon2 { .. } => {}
            Kdf::Unknown { kind } => {
                let message =
                    format!("the KDF {} is not known here; this keyslot cannot be opened", crate::error::escape(kind));
                self.add(Severity::Warning, "unknown-kdf", about, message);
            }
        }
    }
}

/// Whether a cipher's name stands for no encryption.
fn is_null(encryption: &str) -> bool {
    encryption == "null" || encryption.contains("cipher_null")
}
