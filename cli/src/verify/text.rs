//! A report in words, for a terminal.

use std::path::Path;

use unluks::error::counted;
use unluks::verify::{Finding, Outcome, Report, Severity, Verdict};

use crate::source::shown;

/// The verdict as the last line has it.
pub fn last_line(report: &Report) -> String {
    let why = report.reason.as_deref().unwrap_or("no reason is known");
    match report.verdict {
        Verdict::Restorable => "restorable\n".into(),
        Verdict::RestorableWithFindings => "restorable with findings\n".into(),
        Verdict::NotRestorable => format!("not restorable: {why}\n"),
        Verdict::WrongKey => format!("wrong key: {why}\n"),
    }
}

/// All of it.
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n", shown(Path::new(&report.image.path)));
    for stage in &report.stages {
        let result = match stage.result {
            Outcome::Ok => "ok",
            Outcome::Finding => "finding",
            Outcome::Failed => "failed",
            Outcome::None => "none",
            Outcome::NotReached => "-",
        };
        let line = format!("  {:<10} {result:<8} {}", stage.stage.name(), stage.says);
        text += &format!("{}\n", line.trim_end());
    }
    let is_shown = |f: &&Finding| f.severity > Severity::Note || f.code == "contents.unrecognised";
    for finding in report.findings.iter().filter(is_shown) {
        text += &line(finding);
    }
    let notes = report.findings.iter().filter(|f| !is_shown(f)).count();
    if notes > 0 {
        // A decryption has no such flag, and always a record.
        let has = if report.output.is_some() { "the record" } else { "--json" };
        text += &format!("  without effect: {}; {has} has them\n", counted(notes, "note"));
    }
    if report.more_findings > 0 {
        text += &format!("  left out: {} more\n", counted(report.more_findings, "finding"));
    }
    for (name, hex) in &report.hashes.plaintext {
        text += &format!("  plaintext {name} {hex}\n");
    }
    for (name, hexes) in &report.hashes.image {
        hexes.iter().for_each(|hex| text += &format!("  image {name} {hex}\n"));
    }
    for (name, hexes) in &report.hashes.container {
        hexes.iter().for_each(|hex| text += &format!("  disk in the container {name} {hex}\n"));
    }
    if let Some(output) = &report.output {
        text += &format!("  output {}: {}\n", shown(Path::new(&output.path)), output.says());
    }
    if let Some(tree) = &report.hashes.tree {
        text += &format!("  tree of {}, root {}\n", counted(tree.leaves, "leaf"), tree.root);
    }
    for statement in &report.coverage.statements {
        text += &format!("  {statement}\n");
    }
    text + &last_line(report)
}

fn line(finding: &Finding) -> String {
    let place = |what: &str, offset: Option<u64>| offset.map_or(String::new(), |at| format!(" ({what} byte {at})"));
    let (image, plaintext) = (place("image", finding.image_offset), place("plaintext", finding.plaintext_offset));
    let Finding { severity, code, message, .. } = finding;
    format!("  {}: {code}: {message}{image}{plaintext}\n", severity.name())
}
