//! What the reports of many images come to.

use std::process::ExitCode;

use unluks::verify::fleet::Fleet;
use unluks::{Error, Result};

use crate::args::report::MergeArgs;
use crate::source::shown;
use crate::summary::{self, Form};
use crate::verify::batch::read_report;
use crate::verify::codes::{self, Findings, NO_REPORT};
use crate::verify::list;

/// Prints the summary of a folder.
pub fn run(args: &MergeArgs) -> Result<ExitCode> {
    let failed = |e| Error::io(format!("listing {}", shown(&args.dir)), e);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&args.dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|ending| ending == "json") {
            files.push(path);
        }
    }
    files.sort();
    let list = list::expand(&args.list)?;
    let list: Vec<String> = list.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let reports = files.iter().map(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, read_report(file)?))
    });
    let fleet = Fleet::merge(reports, Some(list.as_slice()).filter(|_| !args.list.is_empty()))?;
    summary::print(&fleet, Form::of([(Form::Json, args.json), (Form::Csv, args.csv), (Form::Html, args.html)]))?;
    let findings = Findings::of(args.strict);
    let code = |verdict: Option<_>| verdict.map_or(NO_REPORT, |verdict| codes::of(verdict, findings));
    let worst = fleet.images.iter().fold(0, |worst, proof| codes::worse(worst, code(proof.verdict)));
    Ok(ExitCode::from(worst))
}
