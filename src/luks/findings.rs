//! Weak points and oddities of a header, each with a severity, for reports.

use super::OFFLINE_UUID;
use super::data::{self, Data, DataFile, State};
use super::metadata::*;
use super::recovery::Recovery;
use super::v1::DAMAGED;
use crate::crypto::hash::Hash;
use crate::crypto::spec::{CipherName, CipherSpec, IvMode, Mode};
use crate::error::{counted, escape};
use crate::limits::{ARGON2_LANES_MAX, Limits};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
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
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable code, such as `null-cipher`: one of [`CODES`].
    pub code: &'static str,
    /// What it is about, such as `segments.0`.
    pub about: String,
    /// One sentence. Text of the image in it is escaped.
    pub message: String,
}

/// The codes of all findings, those of [`area`](super::area) and of dm-integrity's superblock among them.
pub const CODES: &[&str] = &[
    "allow-discards",
    "costly-kdf",
    "detached-header",
    "disabled-keyslot-not-wiped",
    "ecb",
    "few-iterations",
    "header-backup",
    "header-copies-differ",
    "header-copy-damaged",
    "header-only",
    "header-recovered",
    "ignored-keyslot",
    "integrity",
    "integrity-shorter",
    "invalid-kdf",
    "invalid-keyslot",
    "keyslot-overwritten",
    "keyslot-unreadable",
    "leftover-kdf-parameters",
    "little-memory",
    "malformed-base64",
    "malformed-digest",
    "malformed-uuid",
    "no-key",
    "no-keyslot",
    "null-cipher",
    "overwritten",
    "plain-iv",
    "plaintext-segment",
    "predictable-iv",
    "reencryption",
    "requirement",
    "sector-size",
    "sha1",
    "short-key",
    "small-block",
    "truncated",
    "unauthenticated-reencryption",
    "unbound",
    "unknown-cipher",
    "unknown-digest",
    "unknown-hash",
    "unknown-kdf",
    "unknown-keyslot",
    "unknown-priority",
    "unknown-segment",
];

/// PBKDF2 below this many iterations is quick to guess: NIST SP 800-132's minimum, and cryptsetup's.
const PBKDF2_FEW: u64 = 1000;
/// OWASP's advice of 2023 for PBKDF2-HMAC-SHA256.
const PBKDF2_ADVISED: u64 = 600_000;
/// RFC 9106's second recommended option has 64 MiB.
const ARGON2_ADVISED_KIB: u64 = 64 << 10;
/// Costs below the advice by more than this factor are more than a note.
const FAR_BELOW: u64 = 10;
/// HMACs in a second on a slow machine, for an estimate of the time that a derivation takes.
const SLOW_PBKDF2: u128 = 100_000;
/// KiB that Argon2 passes over in a second on a slow machine.
const SLOW_ARGON2_KIB: u128 = 400_000;
/// A key below this many bits can be searched for.
const KEY_BITS_FEW: u32 = 112;

/// Whether sectors are encrypted by one of the ciphers that are known above dm-integrity alone, which keeps tags and IVs of
/// them: `crypto/aead.rs` has what they are.
fn keeps_ivs(encryption: &str, integrity: &str) -> bool {
    let mut parts = encryption.splitn(3, '-');
    let [cipher, mode, iv] = [(); 3].map(|()| parts.next().unwrap_or_default());
    let is_aead = match integrity {
        "aead" => matches!((cipher, iv), ("aegis128" | "aegis128l" | "aegis256", "")) || matches!(mode, "gcm" | "ccm"),
        "poly1305" => (cipher, iv) == ("chacha20", ""),
        _ => mode == "xts" && iv == "random",
    };
    let spelled = if iv.is_empty() { mode } else { iv };
    is_aead && matches!(spelled, "random" | "plain64" | "plain64be" | "plain")
}

/// What there is to say about a header, and, where a data file is given, about that; the gravest first.
pub fn findings(metadata: &Metadata, file: Option<DataFile>) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    all.copies(metadata);
    if let Some(recovery) = &metadata.recovery {
        all.recovered(recovery);
    }
    all.whole(metadata);
    if let Some(file) = file {
        all.data(metadata, file);
    }
    for (id, segment) in metadata.live_segments() {
        all.segment(metadata, id, segment);
    }
    for (id, keyslot) in &metadata.keyslots {
        all.keyslot(metadata, *id, keyslot);
    }
    for (id, slot) in &metadata.disabled_keyslots {
        all.disabled(*id, slot);
    }
    for (id, digest) in &metadata.digests {
        all.digest(*id, digest);
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
            let about = format!("copies.{}", copy.role);
            if let Some(e) = &copy.error {
                let message = format!("the {} header is not good: {e}", copy.role);
                self.add(Severity::Warning, "header-copy-damaged", about.as_str(), message);
            }
            if copy.repaired {
                let message = "parameters that another KDF left behind were passed over";
                self.add(Severity::Note, "leftover-kdf-parameters", about, message);
            }
        }
        // A damaged copy differs because it is damaged, and that was said.
        if metadata.differences.is_empty() || metadata.copies.iter().any(|c| c.error.is_some()) {
            return;
        }
        let fields: Vec<_> = metadata.differences.iter().map(|d| d.field.as_str()).collect();
        let role = metadata.used_copy().map_or(Role::Primary, |c| c.role);
        let why = match fields.first() {
            Some(&"seqid") => "a write was interrupted, or one copy was put back; the newer one",
            _ => "cryptsetup never leaves copies of one sequence id so; the primary",
        };
        let message = format!("the copies differ in {}: {why} is used, which is the {role}", fields.join(", "));
        self.add(Severity::Warning, "header-copies-differ", "copies", message);
    }

    fn recovered(&mut self, recovery: &Recovery) {
        self.add(Severity::Warning, "header-recovered", "header", recovery.to_string());
        for range in &recovery.overwritten {
            let message = format!(
                "bytes {} to {} of the container were overwritten by the backup of a GPT: what they held is lost",
                range.start, range.end
            );
            self.add(Severity::Critical, "overwritten", "data", message);
        }
    }

    fn whole(&mut self, metadata: &Metadata) {
        if metadata.keyslots.is_empty() {
            self.add(
                Severity::Critical,
                "no-keyslot",
                "keyslots",
                "no keyslot is left: only the volume key itself can open this image",
            );
        }
        if !is_uuid(&metadata.uuid) {
            let message = format!("found \"{}\", which is no UUID", escape(&metadata.uuid));
            self.add(Severity::Note, "malformed-uuid", "uuid", message);
        } else if let Some(offline) = &metadata.offline {
            let message = format!(
                "{}; that is exact where it was stopped, and where it crashed, more may be new than its log says",
                offline.describe()
            );
            self.add(Severity::Critical, "reencryption", "segments", message);
        } else if metadata.uuid == OFFLINE_UUID {
            let message = "this is the new header of an offline reencryption by cryptsetup-reencrypt that was not \
                           finished: it encrypts only the part that was reached";
            self.add(Severity::Warning, "reencryption", "uuid", message);
        }
        if metadata.flags.iter().any(|f| f == "allow-discards") {
            let message = "discards are let through: whoever sees the image sees which blocks are unused";
            self.add(Severity::Note, "allow-discards", "config.flags", message);
        }
        for r in &metadata.requirements {
            let message = format!("the header demands {}", escape(r));
            self.add(Severity::Note, "requirement", "config.requirements", message);
            if r == "online-reencrypt" {
                let message = "no digest protects the state of the reencryption: whoever can write to the image can \
                               have a part of it decrypted (CVE-2021-4122)";
                self.add(Severity::Warning, "unauthenticated-reencryption", "config.requirements", message);
            }
        }
    }

    fn data(&mut self, metadata: &Metadata, file: DataFile) {
        let Data { state, offset, .. } = data::assess(metadata, file);
        let len = file.len.unwrap_or(0);
        match state {
            State::Complete | State::ToEndOfFile | State::Unknown => {}
            State::DetachedHeader => {
                let message = "this is a detached header: the data is in another file; open that, with this as \
                               its detached header";
                self.add(Severity::Note, "detached-header", "data", message);
            }
            State::HeaderBackup => {
                let message = format!(
                    "this is a header backup: its data belongs at byte {offset}, and the file ends at byte {len}; it \
                     serves as the detached header of the image it was taken from"
                );
                self.add(Severity::Note, "header-backup", "data", message);
            }
            State::HeaderOnly => {
                let message = format!(
                    "there is a header but no data: it would start at byte {offset}, and the file ends at byte {len}"
                );
                self.add(Severity::Critical, "header-only", "data", message);
            }
            State::Truncated => {
                for (id, segment) in metadata.live_segments() {
                    let missing = data::missing(segment, len);
                    if missing > 0 {
                        let end = match segment.size {
                            None if segment.offset >= len => "the start of this segment",
                            None => "the end of a sector",
                            Some(_) => "the end of this segment",
                        };
                        let message =
                            format!("the file is cut off: it ends at byte {len}, {missing} bytes before {end}");
                        self.add(Severity::Critical, "truncated", format!("segments.{id}"), message);
                    }
                }
            }
        }
    }

    fn segment(&mut self, metadata: &Metadata, id: u32, segment: &Segment) {
        let about = format!("segments.{id}");
        match &segment.kind {
            SegmentKind::Crypt(c) => self.crypt(metadata, id, c),
            // An encryption or a decryption that stopped, which is told of as such.
            SegmentKind::Linear if metadata.offline.is_some() => {}
            SegmentKind::Linear => {
                let message = "this part of the data is not encrypted";
                self.add(Severity::Critical, "plaintext-segment", about, message);
            }
            SegmentKind::Unknown { kind } => {
                let message = format!("the segment type {} is not known here", escape(kind));
                self.add(Severity::Warning, "unknown-segment", about, message);
            }
        }
    }

    fn crypt(&mut self, metadata: &Metadata, id: u32, crypt: &CryptSegment) {
        let about = format!("segments.{id}");
        if !matches!(crypt.sector_size, 512 | 1024 | 2048 | 4096) {
            let message =
                format!("sectors of {} bytes cannot be decrypted: 512 to 4096 are possible", crypt.sector_size);
            self.add(Severity::Warning, "sector-size", about.as_str(), message);
        }
        if let Some(i) = &crypt.integrity {
            let message = format!("below the encryption lies dm-integrity with {}", escape(&i.kind));
            self.add(Severity::Note, "integrity", about.as_str(), message);
        }
        let key_size = metadata
            .segment_digest(id)
            .and_then(|(_, d)| d.keyslots.iter().filter_map(|k| metadata.keyslots.get(k)).map(|k| k.key_size).min());
        if key_size.is_none() {
            let message = "no keyslot holds the key of this segment: only the volume key itself can open it";
            self.add(Severity::Critical, "no-key", about.as_str(), message);
        }
        if crypt.integrity.as_ref().is_some_and(|i| keeps_ivs(&crypt.encryption, &i.kind)) {
            return;
        }
        let Some(spec) = self.known_cipher(&about, &crypt.encryption) else { return };
        if spec.is_null() {
            let message = "the data is not encrypted at all: the cipher is the null cipher";
            return self.add(Severity::Critical, "null-cipher", about, message);
        }
        let bits = key_size.filter(|_| crypt.integrity.is_none()).map(|n| n.saturating_mul(8));
        if let Some(bits) = bits.map(|n| if spec.mode == Mode::Xts { n / 2 } else { n }).filter(|n| *n < KEY_BITS_FEW) {
            let message = format!("a key of {} can be searched for", counted(bits, "bit"));
            self.add(Severity::Critical, "short-key", about.as_str(), message);
        }
        if spec.cipher == CipherName::Cast5 {
            let message = "blocks of 64 bits repeat after some 32 GiB, and then tell of the plaintext (Sweet32)";
            self.add(Severity::Warning, "small-block", about.as_str(), message);
        }
        match (&spec.mode, &spec.iv) {
            (Mode::Ecb, _) => self.add(Severity::Warning, "ecb", about, "ECB shows which blocks are alike"),
            (Mode::Cbc, IvMode::Essiv(_)) => {}
            (Mode::Cbc, iv) => {
                let message = "CBC with predictable IVs shows marks that were planted in the data (watermarking)";
                self.add(Severity::Warning, "predictable-iv", about.as_str(), message);
                if *iv == IvMode::Plain {
                    self.add(Severity::Note, "plain-iv", about, "the IVs repeat every 2 TiB");
                }
            }
            (_, IvMode::Plain) => self.add(Severity::Note, "plain-iv", about, "the IVs repeat every 2 TiB"),
            _ => {}
        }
    }

    /// The cipher's parts, or a finding where they are not known.
    fn known_cipher(&mut self, about: &str, encryption: &str) -> Option<CipherSpec> {
        let parsed = CipherSpec::parse(encryption);
        match parsed.and_then(|spec| if spec.is_null() { Ok(spec) } else { spec.check_known().map(|()| spec) }) {
            Ok(spec) => Some(spec),
            Err(e) => {
                self.add(Severity::Warning, "unknown-cipher", about, format!("cannot be decrypted: {}", e.message()));
                None
            }
        }
    }

    fn keyslot(&mut self, metadata: &Metadata, id: u32, keyslot: &Keyslot) {
        let about = format!("keyslots.{id}");
        match &keyslot.kind {
            KeyslotKind::Luks2(slot) => {
                self.kdf(&about, &slot.kdf);
                self.known_hash(&about, "the anti-forensic splitter's hash", &slot.af_hash);
                if self.known_cipher(&about, &slot.encryption).is_some_and(|spec| spec.is_null()) {
                    let message = "the volume key lies here unencrypted: the cipher is the null cipher";
                    self.add(Severity::Critical, "null-cipher", about.as_str(), message);
                }
                if metadata.is_unbound(id) {
                    self.add(Severity::Note, "unbound", about.as_str(), "its key opens no live segment");
                }
                if keyslot.priority == Priority::Ignore {
                    let message = "its priority is to be ignored: it is tried only where it is named";
                    self.add(Severity::Note, "ignored-keyslot", about.as_str(), message);
                }
            }
            KeyslotKind::Reencrypt(r) => {
                let mut message = format!(
                    "a reencryption is under way (mode {}, {}, resilience {})",
                    r.mode,
                    r.direction,
                    escape(&r.resilience)
                );
                // Without resilience the header is written when the work stops in good order, and only then.
                let severity = match r.resilience.as_str() {
                    "none" => {
                        message += "; if it was not stopped but crashed, nobody can know how far it came: what it had \
                                    reached by then is garbage";
                        Severity::Critical
                    }
                    _ => Severity::Warning,
                };
                self.add(severity, "reencryption", about.as_str(), message);
            }
            KeyslotKind::Unknown { kind } if metadata.version == Version::V1 => {
                let message = if kind.starts_with(DAMAGED) {
                    format!("not used, for it is {}", escape(kind))
                } else {
                    format!("neither enabled nor disabled: {}", escape(kind))
                };
                self.add(Severity::Warning, "invalid-keyslot", about.as_str(), message);
            }
            KeyslotKind::Unknown { kind } => {
                let message = format!("the keyslot type {} is not known here", escape(kind));
                self.add(Severity::Note, "unknown-keyslot", about.as_str(), message);
            }
        }
        if let Priority::Unknown(n) = keyslot.priority {
            self.add(Severity::Note, "unknown-priority", about, format!("priority {n} means nothing to cryptsetup"));
        }
    }

    fn disabled(&mut self, id: u32, slot: &DisabledKeyslot) {
        if slot.was_not_wiped() {
            let message = "disabled, but its salt and iterations were not wiped: its key material may be there still";
            self.add(Severity::Note, "disabled-keyslot-not-wiped", format!("keyslots.{id}"), message);
        }
    }

    fn kdf(&mut self, about: &str, kdf: &Kdf) {
        match kdf {
            Kdf::Pbkdf2 { hash, iterations, salt } => self.pbkdf2(about, hash, *iterations, salt),
            Kdf::Argon2 { time, memory, cpus, salt, .. } => {
                self.known_base64(about, "salt", salt);
                self.argon2(about, *time, *memory, *cpus);
            }
            Kdf::Unknown { kind } => {
                let message = format!("the KDF {} is not known here: this keyslot cannot be opened", escape(kind));
                self.add(Severity::Warning, "unknown-kdf", about, message);
            }
        }
    }

    fn pbkdf2(&mut self, about: &str, hash: &str, iterations: u64, salt: &Bytes) {
        self.known_base64(about, "salt", salt);
        self.known_hash(about, "PBKDF2's hash", hash);
        if Hash::from_name(hash).is_ok_and(|h| h == Hash::Sha1) {
            self.add(Severity::Warning, "sha1", about, "PBKDF2 with sha1 is the quickest to guess");
        }
        if iterations == 0 || iterations > u64::from(u32::MAX) {
            let message =
                format!("PBKDF2 of {} cannot be: this keyslot cannot be opened", counted(iterations, "iteration"));
            return self.add(Severity::Warning, "invalid-kdf", about, message);
        }
        self.costly(about, u128::from(iterations) / SLOW_PBKDF2, &format!("{iterations} PBKDF2 iterations"));
        let severity = match iterations {
            n if n < PBKDF2_FEW => Severity::Critical,
            n if n < PBKDF2_ADVISED / FAR_BELOW => Severity::Warning,
            n if n < PBKDF2_ADVISED => Severity::Note,
            _ => return,
        };
        let message = format!(
            "{iterations} PBKDF2 iterations; {PBKDF2_ADVISED} are advised against the guessing of weak passphrases"
        );
        self.add(severity, "few-iterations", about, message);
    }

    fn argon2(&mut self, about: &str, time: u64, memory: u64, cpus: u64) {
        let legal = |n: u64| (1..=u64::from(u32::MAX)).contains(&n);
        // RFC 9106, §3.1: 8 KiB for each lane at least.
        if !legal(time) || !legal(memory) || !legal(cpus) || memory < cpus.saturating_mul(8) {
            let message = format!(
                "Argon2 of {} over {memory} KiB in {} cannot be: this keyslot cannot be opened",
                counted(time, "pass"),
                counted(cpus, "lane")
            );
            return self.add(Severity::Warning, "invalid-kdf", about, message);
        }
        if memory > Limits::KDF_MEMORY >> 10 || cpus > u64::from(ARGON2_LANES_MAX) {
            let message = format!(
                "asks for {memory} KiB of memory in {}, beyond what is allowed by default",
                counted(cpus, "lane")
            );
            self.add(Severity::Warning, "costly-kdf", about, message);
        } else {
            let seconds = u128::from(time).saturating_mul(u128::from(memory)) / SLOW_ARGON2_KIB;
            self.costly(about, seconds, &format!("{} over {memory} KiB", counted(time, "pass")));
        }
        let severity = match memory {
            n if n < ARGON2_ADVISED_KIB / FAR_BELOW => Severity::Warning,
            n if n < ARGON2_ADVISED_KIB => Severity::Note,
            _ => return,
        };
        let message = format!(
            "{memory} KiB of Argon2 memory; {ARGON2_ADVISED_KIB} KiB are advised against the guessing of weak passphrases"
        );
        self.add(severity, "little-memory", about, message);
    }

    fn costly(&mut self, about: &str, seconds: u128, work: &str) {
        if seconds > u128::from(Limits::KDF_TIME.as_secs()) {
            let message = format!("{work} take some {seconds} s on a slow machine, more than is allowed by default");
            self.add(Severity::Warning, "costly-kdf", about, message);
        }
    }

    fn digest(&mut self, id: u32, digest: &Digest) {
        let about = format!("digests.{id}");
        match &digest.kind {
            DigestKind::Pbkdf2 { hash, iterations, salt, digest } => {
                self.known_hash(&about, "its hash", hash);
                self.known_base64(&about, "salt", salt);
                self.known_base64(&about, "digest", digest);
                if *iterations == 0 || *iterations > u64::from(u32::MAX) {
                    let message = format!(
                        "PBKDF2 of {} cannot be: its keyslots cannot be opened",
                        counted(iterations, "iteration")
                    );
                    self.add(Severity::Warning, "invalid-kdf", about, message);
                } else {
                    let work = format!("{iterations} PBKDF2 iterations");
                    self.costly(&about, u128::from(*iterations) / SLOW_PBKDF2, &work);
                }
            }
            DigestKind::Malformed { error } => {
                let message = format!("its keyslots cannot be opened: {error}");
                self.add(Severity::Warning, "malformed-digest", about, message);
            }
            DigestKind::Unknown { kind } => {
                let message = format!("the type {} is not known here: its keyslots cannot be opened", escape(kind));
                self.add(Severity::Warning, "unknown-digest", about, message);
            }
        }
    }

    fn known_hash(&mut self, about: &str, what: &str, name: &str) {
        if Hash::from_name(name).is_err() {
            let message = format!("{what} \"{}\" is not known here", escape(name));
            self.add(Severity::Warning, "unknown-hash", about, message);
        }
    }

    fn known_base64(&mut self, about: &str, field: &str, bytes: &Bytes) {
        if let Err(e) = bytes.get(field) {
            self.add(Severity::Warning, "malformed-base64", about, format!("cannot be used: {e}"));
        }
    }
}

/// 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
pub(super) fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|g| g.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|g| g.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
pub(crate) mod tests;
