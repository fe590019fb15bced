//! `unluks report`: whether reports are as they were written, and what those of many images come to.

mod check;
mod merge;

use std::process::ExitCode;

use unluks::Result;

use crate::args::report::What;

/// Runs a subcommand.
pub fn run(what: &What) -> Result<ExitCode> {
    match what {
        What::Verify(args) => check::run(args),
        What::Merge(args) => merge::run(args),
    }
}
