//! What many images come to: in words, as JSON, as CSV, and as a page.
//!
//! CSV is that of RFC 4180. No crate is taken: writing it is a quote at each end, and what matters here is what a spreadsheet
//! must not take for a formula.

mod page;

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use unluks::error::{counted, visible};
use unluks::verify::Verdict;
use unluks::verify::fleet::{Fleet, Proof};
use unluks::{Error, Result, json};

use crate::source::shown;

/// How a summary is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Json,
    Csv,
    Html,
}

impl Form {
    /// The first that is asked for; words where none is.
    pub fn of(asked: [(Self, bool); 3]) -> Self {
        asked.into_iter().find(|(_, is_asked)| *is_asked).map_or(Self::Text, |(form, _)| form)
    }
}

/// Prints a summary.
pub fn print(fleet: &Fleet, form: Form) -> Result<()> {
    let text = match form {
        Form::Text => text(fleet),
        Form::Json => json::compact(fleet)? + "\n",
        Form::Csv => csv(fleet),
        Form::Html => page::render(fleet, SystemTime::now())?,
    };
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Error::io("writing to the standard output", e))
}

/// The images that somebody has to see to, and how many there are of each sort.
fn text(fleet: &Fleet) -> String {
    let mut text = String::new();
    for proof in fleet.images.iter().filter(|proof| proof.verdict != Some(Verdict::Restorable)) {
        let why = visible(proof.reason.as_deref().unwrap_or_default());
        text += &format!("{}: {}: {why}\n", shown(Path::new(&proof.path)), name(proof));
    }
    let counts: Vec<String> = fleet.counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    let oldest = fleet.images.iter().filter_map(|proof| proof.verified_at.as_deref()).min();
    let oldest = oldest.map_or(String::new(), |at| format!("; the oldest proof is of {at}"));
    text + &format!("{}: {}{oldest}\n", counted(fleet.images.len(), "image"), counts.join(", "))
}

fn name(proof: &Proof) -> &'static str {
    proof.verdict.map_or("no-report", Verdict::name)
}

fn csv(fleet: &Fleet) -> String {
    let mut text = "path,verdict,reason,verified_at,errors,warnings,size,plaintext_sha256,report\r\n".to_owned();
    for proof in &fleet.images {
        let cells = [
            proof.path.clone(),
            name(proof).to_owned(),
            proof.reason.clone().unwrap_or_default(),
            proof.verified_at.clone().unwrap_or_default(),
            proof.errors.to_string(),
            proof.warnings.to_string(),
            proof.size.map_or(String::new(), |size| size.to_string()),
            proof.plaintext_sha256.clone().unwrap_or_default(),
            proof.report.clone().unwrap_or_default(),
        ];
        text += &cells.map(|text| cell(&text)).join(",");
        text += "\r\n";
    }
    text
}

fn cell(text: &str) -> String {
    let text = visible(text);
    let formula = if text.starts_with(['=', '+', '-', '@']) { "'" } else { "" };
    format!("\"{formula}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_no_formula_and_ends_where_it_ends() {
        assert_eq!(cell("a\"b,c\r\nd"), "\"a\"\"b,c\\r\\nd\"");
        assert_eq!(cell("=HYPERLINK(1)"), "\"'=HYPERLINK(1)\"");
        let fleet = Fleet::new(vec![Proof::missing("b\u{202e}", "no report"), Proof::missing("a", "no report")]);
        let said = csv(&fleet);
        assert_eq!(said.lines().count(), 3);
        assert!(said.contains("\"b\\u{202e}\",\"no-report\",\"no report\",\"\",\"0\""), "{said}");
        assert!(text(&fleet).ends_with("2 images: 2 no-report\n"));
    }
}
