//! A report as Digital Forensics XML: <https://github.com/dfxml-working-group/dfxml_schema>, `dfxml.xsd` of version 1.1.1.
//!
//! What DFXML has no element for has one of our own namespace, as its schema lets others in. Text of an image is shown as
//! `unluks::error::visible` shows it, for XML has no way to write most control characters.

use std::collections::BTreeMap;

use askama::Template;
use unluks::error::visible;
use unluks::locate::LayerKind;
use unluks::verify::{Report, StageName};
use unluks::{Error, Result};

/// What a file begins with.
pub const BEGINS: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<dfxml version=";
/// The hashes that DFXML has names of.
const KINDS: [&str; 6] = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];

#[derive(Template)]
#[template(path = "record.xml")]
struct Dfxml<'a> {
    report: &'a Report,
    case: Vec<(&'static str, String)>,
    command: String,
    contents: Option<String>,
    /// The disk's bytes: what a container makes of its files, or the file itself.
    len: Option<u64>,
    /// Where the data is in the disk, where that is known.
    data_offset: Option<u64>,
    image: Vec<(&'a str, &'a str)>,
    plaintext: Vec<(&'a str, &'a str)>,
}

/// The text that a template shows of an image.
fn show(text: &str) -> String {
    visible(text)
}

/// The DFXML of a report.
pub fn render(report: &Report) -> Result<String> {
    let case = &report.run.case;
    let lines =
        [("case", &case.case), ("evidence", &case.evidence), ("examiner", &case.examiner), ("note", &case.note)];
    let arguments = report.run.program.as_ref().map(|program| program.arguments.as_slice()).unwrap_or_default();
    let contents = report.stages.iter().find(|stage| stage.stage == StageName::Contents);
    let known = |name: &&str| KINDS.contains(name);
    let format = report.layers.iter().find(|layer| layer.kind == LayerKind::Format);
    let hashes = if format.is_some() { &report.hashes.container } else { &report.hashes.image };
    let dfxml =
        Dfxml {
            report,
            len: format.map(|layer| layer.size).or(report.image.size),
            // A container in a partition or a volume counts from where that begins.
            data_offset: report.container.as_ref().map(|container| container.data_offset).filter(|_| {
                report.layers.iter().all(|layer| matches!(layer.kind, LayerKind::File | LayerKind::Format))
            }),
            case: lines.into_iter().filter_map(|(name, text)| Some((name, visible(text.as_deref()?)))).collect(),
            command: visible(&arguments.join(" ")),
            contents: contents.map(|stage| visible(&stage.says)),
            image: of_one(hashes).filter(|(name, _)| known(name)).collect(),
            plaintext: report.hashes.plaintext.iter().map(|(n, h)| (&**n, &**h)).filter(|(n, _)| known(n)).collect(),
        };
    dfxml.render().map_err(|e| Error::invalid(format!("writing the DFXML: {e}")))
}

/// The hashes of an image of one file: those of pieces are of no whole.
fn of_one(all: &BTreeMap<String, Vec<String>>) -> impl Iterator<Item = (&str, &str)> {
    all.iter().filter_map(|(name, of)| Some((name.as_str(), of.first().filter(|_| of.len() == 1)?.as_str())))
}
