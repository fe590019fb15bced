//! A report as a page for people: one file that asks for nothing, runs nothing, and prints well.
//!
//! It is made of the report alone, and holds its JSON, so that it can be made again and compared. What it shows of an image
//! is hostile text: controls and marks of direction are shown as what they are (`unluks::error::visible`), the template
//! escapes the rest, and a policy in the page lets nothing in, not even a style that is not ours.

mod files;
mod picture;

use askama::Template;
use unluks::error::{counted, visible};
use unluks::verify::{Finding, Outcome, Report, Verdict};
use unluks::{Error, Result};

use crate::page::Frame;

/// What a page begins with.
pub const BEGINS: &str = "<!DOCTYPE html>\n<!-- unluks verify -->";
/// What stands around the report's JSON.
const RECORD_STARTS: &str = "<pre id=\"record\">";
const RECORD_ENDS: &str = "</pre>";

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    frame: Frame,
    report: &'a Report,
    verdict: Verdict2,
    title: String,
    path: String,
    reason: Option<String>,
    /// Where what the reason says is, where that is known.
    place: Option<String>,
    examiner: Option<String>,
    /// What was decrypted to where.
    output: Option<String>,
    case: Vec<(&'static str, String)>,
    stages: Vec<Stage>,
    layers: Vec<picture::Bar>,
    map: Option<picture::Picture>,
    coverage: Vec<picture::Bar>,
    findings: Vec<Row>,
    files: Vec<files::Row>,
    header: Vec<(&'static str, String)>,
    hashes: Vec<(String, String)>,
    checked: Vec<String>,
    limits: Vec<String>,
    run: Vec<(&'static str, String)>,
    inputs: Vec<String>,
    record: &'a str,
}

/// The verdict in words.
struct Verdict2 {
    class: &'static str,
    words: &'static str,
    means: &'static str,
}

struct Stage {
    name: &'static str,
    class: &'static str,
    result: &'static str,
    says: String,
}

struct Row {
    severity: &'static str,
    code: String,
    places: Vec<String>,
    message: String,
    found: String,
    expected: String,
}

/// The page of a report whose line of JSON is `line`.
pub fn render(report: &Report, line: &str) -> Result<String> {
    let case = &report.run.case;
    let lines =
        [("Case", &case.case), ("Evidence", &case.evidence), ("Examiner", &case.examiner), ("Note", &case.note)];
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let name = report.image.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let page = Page {
        frame: Frame::of(BEGINS),
        report,
        verdict: verdict(report.verdict),
        title: visible(name),
        path: visible(&report.image.path),
        reason: report.reason.as_deref().map(visible),
        place: place(report),
        examiner: report.run.case.examiner.as_deref().map(visible),
        output: report.output.as_ref().map(|o| visible(&format!("{}, {}", o.path, o.says()))),
        case: lines.into_iter().filter_map(|(name, text)| Some((name, in_lines(text.as_deref()?)))).collect(),
        stages: report.stages.iter().map(stage).collect(),
        layers: picture::layers(report),
        map: picture::map(report),
        coverage: picture::coverage(report),
        findings: findings.into_iter().map(row).collect(),
        files: files::rows(report),
        header: header(report),
        hashes: hashes(report),
        checked: checked(report),
        limits: limits(report),
        run: run(report),
        inputs: report.run.inputs.iter().map(input).collect(),
        record: line,
    };
    page.render().map_err(|e| Error::invalid(format!("writing the page: {e}")))
}

/// A text of several lines.
fn in_lines(text: &str) -> String {
    text.lines().map(visible).collect::<Vec<_>>().join("\n")
}

/// The report's line of JSON in a page; `None` where the text is none.
pub fn record(page: &str) -> Option<String> {
    let rest = page.strip_prefix(BEGINS)?;
    let (_, rest) = rest.rsplit_once(RECORD_STARTS)?;
    let (record, _) = rest.split_once(RECORD_ENDS)?;
    let plain = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    Some(plain.iter().fold(record.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain)))
}

fn verdict(verdict: Verdict) -> Verdict2 {
    let (class, words, means) = match verdict {
        Verdict::Restorable => {
            ("good", "Restorable", "The key opens it, all of it can be read, and nothing that was looked at is wrong.")
        }
        Verdict::RestorableWithFindings => (
            "some",
            "Restorable with findings",
            "The key opens it and all of it can be read; but something should be seen to.",
        ),
        Verdict::NotRestorable => {
            ("bad", "Not restorable", "A restore would not bring back all that was there. Another copy is needed.")
        }
        Verdict::WrongKey => (
            "bad",
            "Wrong key",
            "No keyslot opens with this key: it is another, or a keyslot is damaged. Nothing is known of the data behind it.",
        ),
    };
    Verdict2 { class, words, means }
}

fn stage(stage: &unluks::verify::Stage) -> Stage {
    let (class, result) = match stage.result {
        Outcome::Ok => ("good", "ok"),
        Outcome::Finding => ("some", "finding"),
        Outcome::Failed => ("bad", "failed"),
        Outcome::None => ("none", "none"),
        Outcome::NotReached => ("none", "not reached"),
    };
    Stage { name: stage.stage.name(), class, result, says: visible(&stage.says) }
}

fn row(finding: &Finding) -> Row {
    let mut places = places(finding);
    if places.is_empty() {
        places.push(visible(&finding.structure));
    }
    // What the message says already is not said again.
    let is_said = finding.found.as_ref().is_some_and(|found| finding.message.contains(found.as_str()));
    let text = |text: &Option<String>| text.as_deref().filter(|_| !is_said).map(visible).unwrap_or_default();
    Row {
        severity: finding.severity.name(),
        code: visible(&finding.code),
        places,
        message: visible(&finding.message),
        found: text(&finding.found),
        expected: text(&finding.expected),
    }
}

fn places(finding: &Finding) -> Vec<String> {
    let byte = |what: &str, at: Option<u64>| at.map(|at| format!("{what} byte {at}"));
    let path = finding.path.as_deref().map(visible);
    [byte("image", finding.image_offset), byte("plaintext", finding.plaintext_offset), path]
        .into_iter()
        .flatten()
        .collect()
}

/// Where the finding is that the verdict names.
fn place(report: &Report) -> Option<String> {
    let reason = report.reason.as_ref()?;
    let places = places(report.findings.iter().find(|finding| finding.message == *reason)?);
    Some(places.join(", ")).filter(|text| !text.is_empty())
}

fn header(report: &Report) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(container) = &report.container {
        rows.push(("Format", format!("LUKS{}", container.luks)));
        rows.push(("UUID", visible(&container.uuid)));
        if !container.label.is_empty() {
            rows.push(("Label", visible(&container.label)));
        }
        rows.push(("Cipher", visible(&container.ciphers.join(", "))));
        if let Some(bits) = container.key_bits {
            rows.push(("Volume key", counted(bits, "bit")));
        }
        for (id, kdf) in &container.keyslots {
            rows.push(("Keyslot", visible(&format!("{id}: {kdf}"))));
        }
    }
    match &report.key {
        Some(key) if key.keyslots.is_empty() => rows.push(("Opened by", "the volume key itself".into())),
        Some(key) => {
            let slots: Vec<String> = key.keyslots.iter().map(ToString::to_string).collect();
            let form = key.forms.first().map_or(String::new(), |form| format!(" ({})", visible(form)));
            rows.push((
                "Opened by",
                format!("a passphrase of keyslot {}{form}; the key is in no report", slots.join(", ")),
            ));
        }
        None if report.is_unencrypted() => rows.push(("Format", "not encrypted: there is no LUKS header".into())),
        None => rows.push(("Opened by", "nothing".into())),
    }
    rows
}

fn hashes(report: &Report) -> Vec<(String, String)> {
    let hashes = &report.hashes;
    let mut rows: Vec<(String, String)> = Vec::new();
    for (of, part, by_name) in
        [("image", "file", &hashes.image), ("disk in the container, by its own record", "part", &hashes.container)]
    {
        for (name, all) in by_name {
            for (n, hex) in all.iter().enumerate() {
                let which = if all.len() > 1 { format!(", {part} {}", n + 1) } else { String::new() };
                rows.push((visible(&format!("{of}{which}, {name}")), visible(hex)));
            }
        }
    }
    if let Some((output, hex)) = report.output.as_ref().and_then(|output| Some((output, output.sha256.as_ref()?))) {
        let made = match &output.stand_in {
            Some(what) => format!(", with {} bytes as {what}", output.stand_in_bytes),
            None => String::new(),
        };
        rows.push((visible(&format!("output {}{made}, sha256", output.path)), visible(hex)));
    }
    rows.extend(hashes.plaintext.iter().map(|(name, hex)| (visible(&format!("plaintext, {name}")), visible(hex))));
    if let Some(tree) = &hashes.tree {
        let what =
            format!("plaintext, tree of {} of {} bytes ({})", counted(tree.leaves, "leaf"), tree.leaf_bytes, tree.kind);
        rows.push((visible(&what), visible(&tree.root)));
    }
    rows
}

/// What was done, in words.
fn checked(report: &Report) -> Vec<String> {
    let coverage = &report.coverage;
    let mut all = vec![
        "Every file was opened for reading alone. Nothing was written to them, mounted, replayed or sent anywhere.".into(),
        "In this order: what lies on what, both copies of the header and every rule of LUKS, the key, the lengths, the tags \
         of dm-integrity where there are some, and the contents; each as far as the stages above say."
            .into(),
    ];
    if let Some(bytes) = coverage.plaintext_bytes.filter(|_| coverage.read_bytes > 0) {
        let read = coverage.read_bytes;
        all.push(format!("The plaintext was read once, from its first byte on: {read} of {bytes} bytes."));
    }
    if report.output.is_some() {
        all.push(
            "The output was written first. Then the image was read again, and the output beside it, byte for byte."
                .into(),
        );
    }
    if let Some(policy) = &report.policy {
        let hash = policy.sha256.as_deref().map_or(String::new(), |hash| format!(" (SHA-256 {})", visible(hash)));
        all.push(format!(
            "A policy of {}{hash} was held against the header: {}.",
            counted(policy.rules, "rule"),
            counted(policy.findings, "finding")
        ));
    }
    if let Some(used) = &report.files {
        let hash = visible(&used.sha256);
        all.push(format!(
            "The files that a manifest of {} names (its SHA-256 is {hash}) were read out of the image and hashed.",
            counted(used.lines, "line")
        ));
    }
    if report.packages.is_some() {
        all.push(
            "The files of installed packages were read out of the image and held against the hashes that its own package \
             databases have of them. Whoever can write to both can make them agree."
                .into(),
        );
    }
    all
}

/// What was not.
fn limits(report: &Report) -> Vec<String> {
    let mut all: Vec<String> = report.coverage.statements.iter().map(|text| visible(text)).collect();
    if report.more_findings > 0 {
        all.push(format!("Counted, and not listed: {} more.", counted(report.more_findings, "finding")));
    }
    if report.policy.is_none() {
        all.push("No policy was given: what is weak about the header is a note, and changes no verdict.".into());
    }
    all.extend([
        "Whether the data is what it should be is known only as far as a hash or an earlier copy tells; nobody can tell \
         from an image alone what was in it."
            .to_owned(),
        "The times are those of the machine's clock, which nothing here proves.".into(),
        "A signature beside this page proves who signed it and that it was not changed since, and not when.".into(),
    ]);
    all
}

fn run(report: &Report) -> Vec<(&'static str, String)> {
    let run = &report.run;
    let examiner = run.case.examiner.as_deref().map_or("not named".into(), visible);
    let mut rows = vec![
        ("Examiner", examiner),
        ("Program", visible(&format!("{} {}", run.tool, run.version))),
        ("Began", visible(&run.started_at)),
        ("Ended", visible(&format!("{} (UTC, {} s)", run.ended_at, run.seconds))),
    ];
    if let Some(program) = &run.program {
        let hash = program.sha256.as_deref().map_or("unknown".into(), visible);
        rows.push(("Its SHA-256", hash));
        rows.push(("Built with", visible(&program.features.join(", "))));
        let fences = if program.sandbox.is_empty() { "none".into() } else { visible(&program.sandbox.join(", ")) };
        rows.push(("Readers of files behind", fences));
        rows.push(("Command", visible(&program.arguments.join(" "))));
        let (memory, time) = (program.kdf_memory_max >> 20, program.kdf_seconds_max);
        rows.push(("Limits", format!("{memory} MiB and {time} s for key derivations")));
    }
    if let Some(host) = &run.host {
        let user = host.user.as_deref().map_or(String::new(), |user| format!(" ({user})"));
        let text = format!("{}, {}, {}; user {}{user}", host.name, host.system, host.architecture, host.uid);
        rows.push(("Machine", visible(&text)));
    }
    rows
}

fn input(file: &unluks::verify::InputFile) -> String {
    let seconds = u64::try_from(file.modified_ns / 1_000_000_000).unwrap_or(0);
    let time = std::time::SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds));
    let changed = time.map_or(String::new(), |time| format!(", last changed {}", unluks::backup::rfc3339(time)));
    let (path, size) = (visible(&file.path), file.size);
    format!("{path}: {size} bytes{changed}, inode {} of device {}", file.inode, file.device)
}
