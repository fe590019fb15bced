//! What the other modules say of an image, as findings; and the verdict that they come to.
//!
//! | finding | severity | why |
//! |---|---|---|
//! | bytes that are missing, unreadable, of a wrong tag, or other than recorded | error | they do not come back |
//! | a structure of the contents that data depends on | error | it would not mount |
//! | a spare copy, a member, another keyslot that is damaged | warning | it restores, and the next damage may be the last |
//! | what is weak about a header's secrecy | note | it restores |
//! | nothing recognised, where nobody said that something must be | note | a right key over a wrong header looks so, too |

use std::ops::Range;

use super::report::{Finding, Outcome, Severity, Stage, StageName, Verdict};
use crate::error::{Condition, Error, ErrorKind, counted, escape};
use crate::inside::{self, Contents};
use crate::limits::VERIFY_FINDINGS_MAX;
use crate::luks::findings as luks;
use crate::luks::metadata::{KeyslotKind, Metadata};
use crate::volume::{BadRun, Cause};

/// The code of contents that nothing is known of.
pub const UNRECOGNISED: &str = "contents.unrecognised";

/// Findings as they come together.
#[derive(Default)]
pub struct Findings {
    pub list: Vec<Finding>,
    pub more: u64,
}

impl Findings {
    pub fn add(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// Adds those of one sort: as many as are listed, and the number of the others.
    pub fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for (n, finding) in findings.into_iter().enumerate() {
            if n < VERIFY_FINDINGS_MAX {
                self.list.push(finding);
            } else {
                self.more = self.more.saturating_add(1);
            }
        }
    }

    /// Adds one of a sort that comes one by one.
    #[cfg(feature = "reader")]
    pub fn add_one_of_many(&mut self, finding: Finding) {
        if self.list.iter().filter(|f| f.code == finding.code).count() < VERIFY_FINDINGS_MAX {
            self.list.push(finding);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    pub fn has_error(&self) -> bool {
        self.list.iter().any(|f| f.severity == Severity::Error)
    }

    /// Brings them into the order of the stages, and judges.
    pub fn verdict(&mut self) -> (Verdict, Option<String>) {
        self.list.sort_by_key(|f| StageName::of(&f.code));
        let first = |wanted: &dyn Fn(&Finding) -> bool| self.list.iter().find(|f| wanted(f)).map(|f| f.message.clone());
        if let Some(why) = first(&|f| f.severity == Severity::Error) {
            return (Verdict::NotRestorable, Some(why));
        }
        match first(&|f| f.severity == Severity::Warning || f.code == UNRECOGNISED) {
            Some(why) => (Verdict::RestorableWithFindings, Some(why)),
            None => (Verdict::Restorable, None),
        }
    }

    /// How a stage went.
    pub fn stage(&self, stage: StageName, says: String) -> Stage {
        let of_stage = || self.list.iter().filter(|f| StageName::of(&f.code) == stage);
        let result = match of_stage().map(|f| f.severity).max() {
            Some(Severity::Error) => Outcome::Failed,
            Some(Severity::Warning) => Outcome::Finding,
            // It is what the verdict is about.
            Some(Severity::Note) if of_stage().any(|f| f.code == UNRECOGNISED) => Outcome::Finding,
            Some(Severity::Note) | None => Outcome::Ok,
        };
        Stage { stage, result, says }
    }
}

/// An error of the way down to the plaintext, where it is one of the image rather than of the machine or of what was asked.
pub fn of_error(e: &Error) -> Option<Finding> {
    let is_image = e.kind() == ErrorKind::Corrupt || e.is(Condition::MissingMember);
    if !is_image || e.is(Condition::Output) {
        return None;
    }
    let rule = if e.rule().is_empty() { "damaged" } else { e.rule() };
    let layer = match rule.split('.').next().unwrap_or_default() {
        "split" | "backup" | "data" | "image" | "cinder" => "file",
        "md" | "lvm" | "gpt" | "mbr" | "partition" | "volume" | "layers" => "storage",
        "qcow" | "qcow2" | "vhd" | "vhdx" | "vmdk" | "ewf" | "vdi" | "qed" | "parallels" | "android" | "rbd"
        | "aff4" | "container" => "format",
        "truncated" | "length" => "length",
        "keyslots" => "keyslot",
        "integrity" => "integrity",
        "contents" => "contents",
        _ => "header",
    };
    // The header and its keyslots are longer than the file.
    let rule = if rule == "length" { "length.header" } else { rule };
    let rest = rule.strip_prefix(layer).and_then(|rest| rest.strip_prefix('.')).unwrap_or(rule);
    let structure = rule.to_owned();
    Some(
        Finding::new(Severity::Error, format!("{layer}.{}", coded(rest)), structure, e.message().to_owned())
            .at(e.offset()),
    )
}

/// A rule's name as a part of a code.
fn coded(rule: &str) -> String {
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c.to_ascii_lowercase() } else { '-' };
    rule.chars().map(plain).collect()
}

/// What was said on the way to the container. A note that begins with its layer's name and a colon is of something that is
/// not as it should be; but for what tells only which of several is read.
pub fn of_note(note: &str) -> Option<Finding> {
    const TELLS: [&str; 2] = ["internal snapshot", "a descriptor of"];
    let (layer, rest) = note.split_once(": ").unwrap_or(("", ""));
    let code = match layer {
        "md" | "lvm" | "gpt" | "mbr" => format!("storage.{layer}"),
        // A part of the image, and nothing makes up for it.
        "with" => return Some(Finding::new(Severity::Error, "storage.with", layer, rest.to_owned())),
        "qcow2" | "qcow" | "vhd" | "vhdx" | "vmdk" | "ewf" | "vdi" | "qed" | "parallels" | "rbd" | "aff4" => {
            format!("format.{layer}")
        }
        _ if note.contains("cannot be read") => "storage.unreadable".into(),
        _ => return None,
    };
    if TELLS.iter().any(|tells| note.contains(tells)) {
        return None;
    }
    let structure = if layer.is_empty() { "disk" } else { layer };
    Some(Finding::new(Severity::Warning, code, structure, note.to_owned()))
}

/// The findings of a header, its keyslots and its data's length. `opened` are the keyslots that opened.
pub fn of_header(found: &[luks::Finding], metadata: &Metadata, opened: Option<&[u32]>) -> Vec<Finding> {
    let overwritten = found.iter().filter(|f| f.code == "keyslot-overwritten").count();
    let keyslots = metadata.keyslots.values().filter(|k| matches!(k.kind, KeyslotKind::Luks2(_))).count();
    let all_gone = overwritten > 0 && overwritten == keyslots && opened.is_none();
    let severity = |f: &luks::Finding| match f.code {
        "truncated" | "header-only" | "header-backup" | "detached-header" | "no-key" | "overwritten" => Severity::Error,
        // One safety less, where another keyslot opens.
        "keyslot-overwritten" if all_gone => Severity::Error,
        "keyslot-overwritten"
        | "header-copy-damaged"
        | "header-copies-differ"
        | "header-recovered"
        | "keyslot-unreadable"
        | "integrity-shorter"
        | "invalid-keyslot"
        | "invalid-kdf" => Severity::Warning,
        "reencryption" if f.severity > luks::Severity::Note => Severity::Warning,
        // A weak point of its secrecy: it restores all the same.
        _ => Severity::Note,
    };
    let layer = |f: &luks::Finding| match f.code {
        "truncated" | "header-only" | "header-backup" | "detached-header" | "integrity-shorter" => "length",
        _ if f.about.starts_with("keyslots.") => "keyslot",
        _ => "header",
    };
    let code = |f: &luks::Finding| {
        let layer = layer(f);
        let own = f.code.strip_prefix(layer).and_then(|rest| rest.strip_prefix('-')).unwrap_or(f.code);
        format!("{layer}.{own}")
    };
    found.iter().map(|f| Finding::new(severity(f), code(f), f.about.as_str(), f.message.clone())).collect()
}

/// The findings of the contents.
pub fn of_contents(contents: &Contents) -> Vec<Finding> {
    let of = |f: &&inside::Finding| {
        let severity = match f.severity {
            inside::Severity::Note => Severity::Note,
            inside::Severity::Warning => Severity::Warning,
            inside::Severity::Error => Severity::Error,
        };
        let path = f.path.as_ref().map_or(String::new(), |path| format!(", in {}", escape(path)));
        let message = format!("{}: found {}; {}{path}", f.structure, f.found, f.expected);
        let mut finding = Finding::new(severity, f.code, f.structure.as_str(), message);
        finding.path.clone_from(&f.path);
        finding.at_plaintext(f.offset).says(&f.found, &f.expected)
    };
    contents.all_findings().iter().map(of).collect()
}

/// Whether the data's own places are those of the image's file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// They are.
    Own,
    /// They are of a container within.
    Within,
}

/// Sectors that are bad. Their place in the file is told where the file is what holds the data.
pub fn of_bad(run: &BadRun, place: Place) -> Finding {
    let BadRun { start, len, .. } = run;
    let (code, message) = match run.cause {
        Cause::Unreadable => {
            ("file.unreadable", format!("{len} bytes of plaintext from byte {start} on cannot be read"))
        }
        Cause::Overwritten => (
            "header.overwritten",
            format!("{len} bytes of plaintext from byte {start} on were overwritten with the header"),
        ),
        Cause::Tag => (
            "integrity.tag",
            format!(
                "{len} bytes of plaintext from byte {start} on are not authentic: their tags of dm-integrity are wrong"
            ),
        ),
    };
    let finding = Finding::new(Severity::Error, code, "sectors", message);
    finding.at(Some(run.stored_at).filter(|_| place == Place::Own)).at_plaintext(Some(run.start))
}

/// Where ranges are, for a message: the first of them, how many, and their bytes.
pub fn places(ranges: &[Range<u64>], bytes: u64) -> String {
    match ranges {
        [] => format!("{bytes} bytes"),
        [one] => format!("{bytes} bytes from byte {} on", one.start),
        [first, ..] => {
            format!(
                "{bytes} bytes in {} or more, the first from byte {} on",
                counted(ranges.len(), "range"),
                first.start
            )
        }
    }
}
