//! Whether reports are as they were written, of one run, and signed.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use unluks::verify::Report;
use unluks::{Error, ErrorKind, Result};

use crate::args::report::VerifyArgs;
use crate::sign::{SIGNATURE, Verifier, beside};
use crate::source::{WithinFile, shown};
use crate::verify::batch::read_report;
use crate::verify::page;

/// Checks the reports.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let verifier = args.public_key.as_deref().map(Verifier::open).transpose()?;
    let mut first: Option<(&Path, Report)> = None;
    let mut out = anstream::stdout().lock();
    for file in &args.files {
        let text = read_report(file)?;
        let (report, kind) = read(&text).map_err(|e| e.within_file(file))?;
        if let Some((other, same)) = first.as_ref().filter(|(_, first)| first.run.id != report.run.id) {
            let message = format!("it is of run {}, and {} of run {}", report.run.id, shown(other), same.run.id);
            return Err(Error::corrupt("report", message).within_file(file));
        }
        let signed = match &verifier {
            Some(verifier) => format!("signed: {}", unluks::error::visible(&verifier.verify(file, text.as_bytes())?)),
            None if beside(file, SIGNATURE).exists() => "its signature was not checked: --public-key does".into(),
            None => "not signed".into(),
        };
        if !args.quiet {
            let (file, verdict, id) = (shown(file), report.verdict.name(), &report.run.id);
            writeln!(out, "{file}: {kind} of run {id}: {verdict}, {signed}")
                .map_err(|e| Error::io("writing to the standard output", e))?;
        }
        first.get_or_insert((file, report));
    }
    Ok(ExitCode::SUCCESS)
}

/// A report, and what its file is.
fn read(text: &str) -> Result<(Report, &'static str)> {
    let Some(record) = page::record(text) else {
        return Ok((parse(text)?, "the JSON"));
    };
    let report = parse(&record)?;
    // What one version makes of a report is always the same page.
    if report.run.version != env!("CARGO_PKG_VERSION") {
        return Ok((report, "a page (made by another version, so that only the record in it is checked)"));
    }
    if page::render(&report, &record)? == text {
        return Ok((report, "a page"));
    }
    Err(Error::corrupt("report", "the page was changed after it was written: it does not show what its record says"))
}

/// What is no report as it was written is damaged.
fn parse(text: &str) -> Result<Report> {
    Report::parse(text).map_err(|e| match e.kind() {
        ErrorKind::InvalidInput => Error::corrupt("report", e.message().to_owned()),
        _ => e,
    })
}
