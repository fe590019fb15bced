//! `unluks scan`: every LUKS header of a disk, whether it is good, and the command that opens it.

mod text;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Instant;

use unluks::locate::{FindOptions, ways};
use unluks::progress::Progress;
use unluks::scan::report::{self, Report};
use unluks::scan::{Options, Scan};
use unluks::{Error, Result, json};

use crate::args::scan::ScanArgs;
use crate::progress::ProgressView;
use crate::source::{self, Disk, WithinFile};

pub fn run(args: &ScanArgs) -> Result<ExitCode> {
    let disk = Disk::open(&args.source())?;
    let quiet = args.quiet || args.json;
    let mut err = anstream::stderr();
    for note in disk.notes.iter().filter(|_| !quiet) {
        let _ = writeln!(err, "{note}");
    }
    let len = disk.disk.len();
    let progress = Progress::default();
    let shown = ProgressView::new(args.progress, quiet, Some(len), 0);
    let start = Instant::now();
    let scan = shown.beside(&progress, || {
        let options = Options { threads: args.threads, drop_behind: args.drops_behind(len) };
        unluks::scan::run(&*disk.disk, options, &progress)
    });
    shown.finish(progress.bytes());
    let scan = scan.map_err(|e| e.within_file(&args.image))?;
    if !quiet {
        let _ = writeln!(err, "{len} bytes scanned in {:.1} s", start.elapsed().as_secs_f64());
    }
    if let Some(u) = scan.unreadable.as_ref().filter(|_| !args.quiet) {
        let _ =
            writeln!(err, "warning: {} bytes could not be read, the first at byte {}: {}", u.bytes, u.first, u.error);
    }
    let map = if args.map { Some(crate::map::of(&*disk.disk)?) } else { None };
    let Disk { disk, format, sector_size, with, snapshots, .. } = &disk;
    let options = FindOptions { name: source::shown(&args.image), with: with.clone(), ..FindOptions::default() };
    let ways = &ways(disk, *sector_size, &options).map_err(|e| e.within_file(&args.image))?;
    if ways.more && !args.quiet {
        let _ = writeln!(err, "warning: not all partitions and volumes were looked at: there are too many");
    }
    let sector_size = *sector_size;
    let scanned = report::Disk { path: &args.image, disk: &**disk, format: *format, sector_size, ways, snapshots };
    let mut report = Report::new(&scan, scanned);
    text::add_commands(&mut report, args);
    let mut output = if args.json { json::pretty(&report)? + "\n" } else { text::render(&report) };
    if let Some(map) = map {
        let headers: Vec<u64> = report.containers.iter().filter_map(|c| c.offset).collect();
        output += &crate::map::render(&map, len, &headers);
    }
    let mut stdout = anstream::stdout().lock();
    match stdout.write_all(output.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
        Err(e) => return Err(Error::io("writing to the standard output", e)),
        Ok(()) => {}
    }
    if scan.found() || report.containers.iter().any(|c| c.opens) {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(nothing(&scan).within_file(&args.image))
    }
}

fn nothing(scan: &Scan) -> Error {
    if !scan.containers.is_empty() {
        return Error::corrupt("magic", "no LUKS header that opens: each that begins as one is damaged or cut off");
    }
    match &scan.unreadable {
        // What could not be read may be what was looked for.
        Some(u) => {
            let message = format!("no LUKS header where it can be read: {} bytes cannot", u.bytes);
            Error::new(unluks::ErrorKind::Io, message).at(u.first)
        }
        None => Error::corrupt("magic", "no LUKS header at any place of it"),
    }
}
