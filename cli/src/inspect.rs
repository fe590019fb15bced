//! `unluks inspect`: all that a header says, for people and for programs.

pub mod json;
mod layout;
mod report;
mod text;

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use unluks::locate::Place;
use unluks::luks::area;
use unluks::luks::data::DataFile;
use unluks::volume::integrity_findings;
use unluks::{Error, ReadAt, Result};

use crate::args::InspectArgs;
use crate::contents;
use crate::open::Opened;
use report::{Container, DataIn, FileInfo, Files, Report};

pub fn run(args: &mut InspectArgs) -> Result<ExitCode> {
    contents::check_args(args)?;
    if args.inside {
        return contents::inspect(args);
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
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let file_info = |p: &Path, file: &dyn ReadAt| FileInfo { path: path(p), size: length(file) };
    let data = match source.place() {
        Place::Qcow2Luks(luks) => DataIn::Clusters { size: luks.clusters.virtual_size(), missing: luks.missing() },
        Place::File(data) | Place::Inside(data) => {
            DataIn::File(DataFile { len: length(&**data), detached: args.source.header.is_some() })
        }
    };
    let files = Files {
        image: file_info(&args.source.image, &*source.file),
        container: (!source.is_plain_file()).then(|| Container {
            notes: source.notes().to_vec(),
            size: match source.place() {
                Place::Qcow2Luks(luks) => luks.header.len(),
                Place::File(luks) | Place::Inside(luks) => luks.len(),
            },
        }),
        header: args.source.header.as_ref().map(|h| file_info(h, &**source.header())),
    };
    let mut found = area::findings(&**source.header(), image.metadata());
    if let (Place::File(data) | Place::Inside(data), None) = (source.place(), &source.pipe) {
        found.extend(integrity_findings(image.metadata(), &**data));
    }
    let report = Report::new(image.metadata(), files, data, found);
    let output = if args.json {
        json::pretty(&report).map_err(|e| Error::io("writing JSON", e.into()))? + "\n"
    } else {
        text::render(&report)
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
