//! `unluks inspect`: all that a header says, for people and for programs.

mod text;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use unluks::cinder::Backup;
use unluks::luks::report::Report;
use unluks::{Error, Result, json};

use crate::args::InspectArgs;
use crate::cinder;
use crate::contents;
use crate::open::Opened;

/// A report, with the backups of the directory that its image is of.
#[derive(serde::Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    report: &'a Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<&'a [Backup]>,
}

pub fn run(args: &mut InspectArgs) -> Result<ExitCode> {
    contents::check_args(args)?;
    if args.inside || args.map {
        return contents::inspect(args);
    }
    let backups = cinder::backups(&args.source.image)?;
    if let Some(backups) = backups.as_ref().filter(|_| !args.json) {
        // Before what may go wrong with the one that is opened.
        let written = anstream::stdout().lock().write_all(cinder::list(backups).as_bytes());
        written.map_err(|e| Error::io("writing to the standard output", e))?;
    }
    let opened = Opened::open(&mut args.source)?;
    let args = &*args;
    let Opened { source, image, .. } = &opened;
    for doubt in opened.doubts() {
        let _ = writeln!(anstream::stderr(), "warning: {doubt}");
    }
    if source.is_plain_file() {
        // Those of a container are in the report.
        source.print_notes(false);
    }
    let report = image.report(&args.source.image, args.source.header.as_deref());
    let output = if args.json {
        json::pretty(&Listed { report: &report, backups: backups.as_deref() })? + "\n"
    } else {
        text::render(&report)
    };
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(e) => Err(Error::io("writing to the standard output", e)),
        // As strict as cryptsetup, which opens none that is damaged so.
        Ok(()) => match image.metadata().recovery.as_ref().and_then(|recovery| recovery.error.as_ref()) {
            Some(e) => {
                let again = Error::corrupt(e.rule().to_owned(), e.message());
                let hint = "decrypt and serve open it all the same, as its findings say";
                Err(source.named(again.with_hint(hint)))
            }
            None => Ok(ExitCode::SUCCESS),
        },
    }
}
