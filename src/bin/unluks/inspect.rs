//! `unluks inspect`: all that a header says, for people and for programs.

use std::process::ExitCode;

use unluks::Result;

use crate::args::InspectArgs;
use crate::source::Source;

pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let source = Source::open(&args.source)?;
    let image = source.image(&args.source)?;
    println!("{:#?}", image.metadata());
    Ok(ExitCode::SUCCESS)
}
