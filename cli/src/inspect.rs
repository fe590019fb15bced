//! `unluks inspect`: all that a header says, for people and for programs.

mod picture;
mod text;

use std::io::Write;
use std::process::ExitCode;

use unluks::cinder::Backup;
use unluks::luks::report::Report;
use unluks::{Error, Result};

use crate::args::{InspectArgs, SourceArgs};
use crate::cinder;
use crate::contents;
use crate::open::Opened;
use crate::several::{self, each};
use crate::terminal;

/// A report, with the backups of the directory that its image is of.
#[derive(serde::Serialize)]
struct Listed<'a> {
    #[serde(flatten)]
    report: &'a Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backups: Option<&'a [Backup]>,
}

/// Shows each image; `exit_code` is that of an error.
pub fn run(args: &InspectArgs, exit_code: impl Fn(&Error) -> ExitCode) -> Result<ExitCode> {
    contents::check_args(args)?;
    let several = !args.more.is_empty();
    let mut is_first = true;
    each(std::iter::once(&args.source.image).chain(&args.more), exit_code, |image| {
        if !std::mem::take(&mut is_first) && !args.json {
            terminal::print("\n")?;
        }
        // What is there of an image that is cut off, is shown with what is missing.
        let source = SourceArgs { image: image.to_owned(), header_alone: true, ..args.source.clone() };
        if args.inside || args.map { contents::inspect(args, source, several) } else { inspect(args, source, several) }
    })
}

fn inspect(args: &InspectArgs, mut asked: SourceArgs, is_one_of_several: bool) -> Result<()> {
    let backups = cinder::backups(&asked.image)?;
    if let Some(backups) = backups.as_ref().filter(|_| !args.json) {
        // Before what may go wrong with the one that is opened.
        terminal::print(&cinder::list(backups))?;
    }
    let opened = Opened::open(&mut asked)?;
    let Opened { source, image, .. } = &opened;
    for doubt in opened.doubts() {
        let _ = writeln!(anstream::stderr(), "warning: {doubt}");
    }
    if source.is_plain_file() {
        // Those of a container are in the report.
        source.print_notes(false);
    }
    let report = image.report(&asked.image, asked.header.as_deref());
    if image.is_plain() && !args.json {
        // How it is read, was said when it was opened.
        return terminal::print(
            "no LUKS header: plain dm-crypt, of which the backup's description says all that is known\n",
        );
    }
    terminal::print(&if args.json {
        several::json(&Listed { report: &report, backups: backups.as_deref() }, is_one_of_several)?
    } else {
        text::render(&report, picture::Canvas::of_stdout())
    })?;
    // As strict as cryptsetup, which opens none that is damaged so.
    match image.metadata().recovery.as_ref().and_then(|recovery| recovery.error.as_ref()) {
        Some(e) => {
            let again = Error::corrupt(e.rule().to_owned(), e.message());
            let hint = "decrypt and serve open it all the same, as its findings say";
            Err(source.named(again.with_hint(hint)))
        }
        None => Ok(()),
    }
}
