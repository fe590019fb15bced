//! `unluks inspect`: all that a header says, for people and for programs.

mod json;
mod layout;
mod report;
mod text;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use unluks::luks::data::DataFile;
use unluks::{Error, ReadAt, Result};

use crate::args::InspectArgs;
use crate::source::Source;
use report::{FileInfo, Report};

pub fn run(args: &InspectArgs) -> Result<ExitCode> {
    let source = Source::open(&args.source)?;
    let image = source.image(&args.source)?;
    source.print_notes(args.json);
    let detached = args.source.header.is_some();
    let file = DataFile { len: length(&**image.data()), detached };
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let files = report::Files {
        image: FileInfo { path: path(&args.source.image), size: length(&*source.file) },
        header: args.source.header.as_ref().map(|h| FileInfo { path: path(h), size: length(&**source.header()) }),
    };
    let report = Report::new(image.metadata(), files, file);
    let output = match args.json {
        true => json::pretty(&report).map_err(|e| Error::io("writing JSON", e.into()))? + "\n",
        false => text::render(&report),
    };
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Error::io("writing to the standard output", e)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// A source's length; a pipe has none that is known.
fn length(source: &dyn ReadAt) -> Option<u64> {
    Some(source.len()).filter(|len| *len != u64::MAX)
}
