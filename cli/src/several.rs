//! Several images by one command: one after the other, each by itself, and one exit code.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use unluks::{Error, Result, json};

use crate::hint;

/// Does it for each. What goes wrong with one of several is said, and the others are gone on with; the exit code is that of
/// the first that failed. With one alone its error is the command's.
pub fn each<'p>(
    images: impl IntoIterator<Item = &'p PathBuf>,
    exit_code: impl Fn(&Error) -> ExitCode,
    mut one: impl FnMut(&Path) -> Result<()>,
) -> Result<ExitCode> {
    let mut images = images.into_iter().peekable();
    let first = images.next().map(|image| one(image));
    if images.peek().is_none() {
        return first.unwrap_or(Ok(())).map(|()| ExitCode::SUCCESS);
    }
    let mut code = ExitCode::SUCCESS;
    let mut failed = false;
    for result in first.into_iter().chain(images.map(|image| one(image))) {
        let Err(e) = result else { continue };
        let _ = writeln!(anstream::stderr(), "unluks: {}", hint::line(&e));
        if !failed {
            (failed, code) = (true, exit_code(&e));
        }
        if e.kind() == unluks::ErrorKind::Cancelled {
            return Ok(exit_code(&e));
        }
    }
    Ok(code)
}

/// A report as JSON: on lines of its own where there is one, on one line where there are several.
pub fn json(report: &impl Serialize, is_one_of_several: bool) -> Result<String> {
    Ok(if is_one_of_several { json::compact(report)? } else { json::pretty(report)? } + "\n")
}
