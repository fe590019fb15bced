//! Whether reports, and what else was written of their run, are as they were written, of one run, and signed.
//!
//! | file | what shows that it was not changed |
//! |---|---|
//! | the JSON | the run's id is the hash of all of it |
//! | a page | it is what its record makes |
//! | a statement, in an envelope or not | the envelope's signature; it is what the report among the files makes |
//! | DFXML | it is what the report among the files makes |
//! | `FILE.minisig` | the signature |
//! | `FILE.tsq` | it asks for a time stamp of the file as it is |
//! | `FILE.tsr` | it has the hash of the file as it is; who answered is for `openssl ts -verify` |

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use unluks::error::visible;
use unluks::verify::Report;
use unluks::{Error, ErrorKind, Result};

use crate::args::report::VerifyArgs;
use crate::sign::{SIGNATURE, Verifier, beside};
use crate::source::{WithinFile, shown};
use crate::verify::batch::read_report;
use crate::verify::{attestation, dfxml, dsse, page, timestamp};

/// A file, and what is in it.
struct Found<'a> {
    file: &'a Path,
    text: String,
    what: What,
}

enum What {
    /// A report, and what its file is.
    Report(Box<Report>, &'static str),
    /// A statement of in-toto, and what is known of who signed it.
    Statement(String, &'static str),
    Dfxml,
}

/// Checks the files.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let verifier = args.public_key.as_deref().map(Verifier::open).transpose()?;
    let envelopes = args.attestation_public_key.as_deref().map(dsse::Verifier::open).transpose()?;
    let mut all = Vec::new();
    for file in &args.files {
        let text = read_report(file)?;
        let what = read(&text, envelopes.as_ref()).map_err(|e| e.within_file(file))?;
        all.push(Found { file, text, what });
    }
    let of = all.iter().find_map(|found| match &found.what {
        What::Report(report, _) => Some((found.file, &**report)),
        What::Statement(..) | What::Dfxml => None,
    });
    let mut out = anstream::stdout().lock();
    for found in &all {
        let says = check(found, of).map_err(|e| e.within_file(found.file))?;
        let signed = match &verifier {
            Some(verifier) => format!("signed: {}", visible(&verifier.verify(found.file, found.text.as_bytes())?)),
            None if beside(found.file, SIGNATURE).exists() => "its signature was not checked: --public-key does".into(),
            None => "not signed".into(),
        };
        let asked = time_stamp(found)?;
        if !args.quiet {
            writeln!(out, "{}: {says}, {signed}{asked}", shown(found.file))
                .map_err(|e| Error::io("writing to the standard output", e))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a file says; an error where it is not of the run, or not what the run's report makes.
fn check(found: &Found<'_>, of: Option<(&Path, &Report)>) -> Result<String> {
    let is_known = of.is_some_and(|(_, report)| report.run.version == env!("CARGO_PKG_VERSION"));
    let of_run = |id: &str| match of {
        Some((other, same)) if same.run.id != id => {
            let message = format!("it is of run {}, and {} of run {}", visible(id), shown(other), same.run.id);
            Err(Error::corrupt("report", message))
        }
        _ => Ok(()),
    };
    let other = |what: &str| Error::corrupt("report", format!("it is not the {what} that its report makes"));
    match &found.what {
        What::Report(report, kind) => {
            of_run(&report.run.id)?;
            Ok(format!("{kind} of run {}: {}", report.run.id, report.verdict.name()))
        }
        What::Statement(statement, signed) => {
            let id = attestation::run_of(statement)
                .ok_or_else(|| Error::corrupt("report", "it is a statement of no run of verify"))?;
            of_run(&id)?;
            match of.filter(|_| is_known) {
                Some((_, report)) if attestation::statement(report)? != *statement => Err(other("statement")),
                Some(_) => Ok(format!("a statement of run {id}{signed}")),
                None => Ok(format!("a statement of run {}{signed}, held against no report", visible(&id))),
            }
        }
        What::Dfxml => {
            let Some((_, report)) = of else {
                return Err(Error::invalid("it is DFXML: the report that it is of is wanted, too"));
            };
            if !is_known {
                return Ok("DFXML (made by another version, and not checked)".into());
            }
            if dfxml::render(report)? != found.text {
                return Err(other("DFXML"));
            }
            Ok(format!("DFXML of run {}", report.run.id))
        }
    }
}

/// What is said of a query for a time stamp, and of its answer, that lie beside a file.
fn time_stamp(found: &Found<'_>) -> Result<String> {
    let is_asked = query(found)?;
    let path = beside(found.file, timestamp::ANSWER);
    if !path.exists() {
        let none = ", a query for a time stamp lies beside it; no answer";
        return Ok(if is_asked { none.into() } else { String::new() });
    }
    let failed = |e| Error::io(format!("reading {}", shown(&path)), e);
    let len = std::fs::metadata(&path).map_err(failed)?.len();
    let is_its = len <= timestamp::ANSWER_MAX
        && timestamp::answers(&std::fs::read(&path).map_err(failed)?, found.text.as_bytes());
    if !is_its {
        let message = format!("it is no time stamp of {}: the hash of that file is not in it", shown(found.file));
        return Err(Error::corrupt("report", message).within_file(&path));
    }
    let (file, answer) = (shown(found.file), shown(&path));
    Ok(format!(
        ", an answer for a time stamp lies beside it; check with openssl ts -verify -data {file} -in {answer} -CAfile CA"
    ))
}

/// Whether a query for a time stamp of a file lies beside it.
fn query(found: &Found<'_>) -> Result<bool> {
    let path = beside(found.file, timestamp::SUFFIX);
    if !path.exists() {
        return Ok(false);
    }
    let wanted = timestamp::query(found.text.as_bytes());
    let failed = |e| Error::io(format!("reading {}", shown(&path)), e);
    let is_its = std::fs::metadata(&path).map_err(failed)?.len() == u64::try_from(wanted.len()).unwrap_or(0)
        && std::fs::read(&path).map_err(failed)? == wanted;
    if is_its {
        return Ok(true);
    }
    let message = format!("it asks for a time stamp of another file than {}", shown(found.file));
    Err(Error::corrupt("report", message).within_file(&path))
}

/// What a file is.
fn read(text: &str, envelopes: Option<&dsse::Verifier>) -> Result<What> {
    if text.starts_with(dsse::BEGINS) {
        let statement = dsse::open(text, envelopes)?;
        let signed = match envelopes {
            Some(_) => " in an envelope that is signed",
            None => " in an envelope (its signature was not checked: --attestation-public-key does)",
        };
        return Ok(What::Statement(statement, signed));
    }
    if text.starts_with(attestation::BEGINS) {
        if envelopes.is_some() {
            return Err(Error::corrupt("report", "it is a statement without an envelope, and not signed"));
        }
        return Ok(What::Statement(text.to_owned(), ""));
    }
    if text.starts_with(dfxml::BEGINS) {
        return Ok(What::Dfxml);
    }
    let (report, kind) = report(text)?;
    Ok(What::Report(Box::new(report), kind))
}

/// A report, and what its file is.
fn report(text: &str) -> Result<(Report, &'static str)> {
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
