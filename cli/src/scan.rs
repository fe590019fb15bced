//! `unluks scan`: every LUKS header of a disk, whether it is good, and the command that opens it.

mod text;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use unluks::locate::{FindOptions, ways};
use unluks::progress::Progress;
use unluks::scan::report::{self, Report};
use unluks::scan::{Options, Scan};
use unluks::{Error, Result};

use crate::args::scan::ScanArgs;
use crate::progress::ProgressView;
use crate::several::{self, each};
use crate::source::{self, Disk, WithinFile};
use crate::terminal;

/// Scans each disk; `exit_code` is that of an error.
pub fn run(args: &ScanArgs, exit_code: impl Fn(&Error) -> ExitCode) -> Result<ExitCode> {
    each(&args.images, exit_code, |image| scan(args, image))
}

fn scan(args: &ScanArgs, image: &Path) -> Result<()> {
    let disk = Disk::open(&args.source(image))?;
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
    let scan = scan.map_err(|e| e.within_file(image))?;
    if !quiet {
        let _ = writeln!(err, "{len} bytes scanned in {:.1} s", start.elapsed().as_secs_f64());
    }
    if let Some(u) = scan.unreadable.as_ref().filter(|_| !args.quiet) {
        let _ =
            writeln!(err, "warning: {} bytes could not be read, the first at byte {}: {}", u.bytes, u.first, u.error);
    }
    let map = if args.map { Some(crate::map::of(&*disk.disk)?) } else { None };
    let Disk { disk, format, sector_size, with, snapshots, .. } = &disk;
    let options = FindOptions { name: source::shown(image), with: with.clone(), ..FindOptions::default() };
    let ways = &ways(disk, *sector_size, &options).map_err(|e| e.within_file(image))?;
    if ways.more && !args.quiet {
        let _ = writeln!(err, "warning: not all partitions and volumes were looked at: there are too many");
    }
    let sector_size = *sector_size;
    let scanned = report::Disk { path: image, disk: &**disk, format: *format, sector_size, ways, snapshots };
    let mut report = Report::new(&scan, scanned);
    text::add_commands(&mut report, args, image);
    let several = args.images.len() > 1;
    let mut text = if args.json { several::json(&report, several)? } else { text::render(&report) };
    if let Some(map) = map {
        let headers: Vec<u64> = report.containers.iter().filter_map(|c| c.offset).collect();
        text += &crate::map::render(&map, len, &headers);
    }
    terminal::print(&if several && !args.json { format!("{}:\n{text}\n", source::shown(image)) } else { text })?;
    if scan.found() || report.containers.iter().any(|c| c.opens) {
        Ok(())
    } else {
        Err(nothing(&scan).within_file(image))
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
