//! Many images: several at once, the largest first, each with a report of its own; and what has one already is passed over.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use unluks::limits::VERIFY_REPORT_MAX;
use unluks::progress::Progress;
use unluks::verify::fleet::{Fleet, Proof, report_name};
use unluks::verify::{Report, Verdict};
use unluks::{Error, ErrorKind, Result};

use super::codes::{self, Findings};
use super::facts;
use super::one::Wishes;
use super::outputs::Outputs;
use crate::source::{WithinFile, shown};
use crate::summary::{self, Form};

/// An image, and the bytes by which the largest goes first.
struct Task {
    path: PathBuf,
    bytes: u64,
}

/// How many images are verified at once, and with how many threads each.
#[derive(Clone, Copy)]
pub struct Share {
    pub jobs: NonZeroUsize,
    pub threads: NonZeroUsize,
}

impl Share {
    /// The machine's cores among images.
    pub fn of(jobs: Option<NonZeroUsize>, threads: Option<NonZeroUsize>, images: usize) -> Self {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let most = NonZeroUsize::new(images).unwrap_or(NonZeroUsize::MIN);
        let jobs = jobs.unwrap_or(cores).min(most);
        let each = NonZeroUsize::new(cores.get() / jobs.get()).unwrap_or(NonZeroUsize::MIN);
        Self { jobs, threads: threads.unwrap_or(each) }
    }
}

/// What became of one image.
struct Ended {
    proof: Proof,
    code: u8,
    /// Whether it has an unchanged report.
    is_passed_over: bool,
}

/// Verifies all images, and prints what they come to; `code` is the exit code of an error.
pub fn run(
    wishes: &Wishes<'_>,
    images: Vec<PathBuf>,
    jobs: NonZeroUsize,
    code: &(impl Fn(&Error) -> u8 + Sync),
) -> Result<ExitCode> {
    let args = wishes.args;
    let folder = args.fleet.reports.as_deref().ok_or_else(without_reports)?;
    std::fs::create_dir_all(folder).map_err(|e| Error::io(format!("making {}", shown(folder)), e))?;
    let mut tasks: Vec<Task> = images.into_iter().map(|path| Task { bytes: bytes(&path), path }).collect();
    tasks.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let progress = Progress::default();
    crate::signals::stop_by(&progress.cancel_flag())?;
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while !progress.is_cancelled() {
            let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            let ended = one(wishes, folder, &task.path, &progress, code);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push(ended);
            if let Some(last) = done.last().filter(|_| !args.quiet) {
                say(last, done.len(), tasks.len());
            }
        }
    };
    std::thread::scope(|scope| {
        for n in 1..jobs.get() {
            // With fewer threads it is slower, and done all the same.
            let _ = std::thread::Builder::new().name(format!("image {n}")).spawn_scoped(scope, work);
        }
        work();
    });
    if progress.is_cancelled() {
        let message = "interrupted; the reports that are there are whole, and the same command goes on from there";
        return Err(Error::new(ErrorKind::Cancelled, message));
    }
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let worst = done.iter().fold(0, |worst, ended| codes::worse(worst, ended.code));
    let fleet = Fleet::new(done.into_iter().map(|ended| ended.proof).collect());
    let form = [(Form::Json, args.json.is_some()), (Form::Csv, args.fleet.csv), (Form::Html, args.fleet.html)];
    summary::print(&fleet, Form::of(form))?;
    Ok(ExitCode::from(worst))
}

/// The bytes of an image's file, or of all files of its backup.
fn bytes(path: &Path) -> u64 {
    let len =
        |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map_or(0, |meta| meta.len());
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().fold(0, |sum: u64, entry| sum.saturating_add(len(&entry.path()))),
        Err(_) => len(path),
    }
}

fn one(wishes: &Wishes<'_>, folder: &Path, path: &Path, progress: &Progress, code: &impl Fn(&Error) -> u8) -> Ended {
    let name = report_name(&path.to_string_lossy());
    let file = folder.join(&name);
    let findings = Findings::of(wishes.args.strict);
    if let Some(report) = unchanged(wishes, path, &file) {
        let code = codes::of(report.verdict, findings);
        return Ended { proof: Proof::of(&report, Some(name)), code, is_passed_over: true };
    }
    let verified = Outputs::in_folder(&file, wishes.args).and_then(|outputs| wishes.verify(path, outputs, progress));
    match verified {
        Ok(verified) => {
            let report = &verified.report;
            Ended {
                proof: Proof::of(report, Some(name)),
                code: codes::of(report.verdict, findings),
                is_passed_over: false,
            }
        }
        Err(e) => {
            let proof = Proof::missing(&path.to_string_lossy(), &crate::hint::line(&e));
            Ended { proof, code: code(&e), is_passed_over: false }
        }
    }
}

/// The error of a batch whose reports go nowhere.
pub fn without_reports() -> Error {
    Error::invalid("--batch writes a report of each image").with_hint("--reports DIR says where")
}

/// The report of an earlier run, where the same was asked, and none of the files has changed since. What did not open is
/// tried again: the key may be another one, and a file of its set may be there by now.
fn unchanged(wishes: &Wishes<'_>, path: &Path, file: &Path) -> Option<Report> {
    if wishes.args.force {
        return None;
    }
    let report = Report::parse(&read_report(file).ok()?).ok()?;
    let inputs = &report.run.inputs;
    let same = facts::inputs(inputs.iter().map(|input| Path::new(&input.path))) == *inputs;
    let is_same = same
        && !inputs.is_empty()
        && (report.key.is_some() || report.is_unencrypted())
        && report.image.path == path.to_string_lossy()
        && report.run.asked == Some(facts::asked(wishes.args, &wishes.asked()));
    is_same.then_some(report)
}

/// The text of a report's file.
pub fn read_report(file: &Path) -> Result<String> {
    let failed = |e| Error::io(format!("reading {}", shown(file)), e);
    let len = std::fs::metadata(file).map_err(failed)?.len();
    if len > VERIFY_REPORT_MAX {
        let message = format!("it has {len} bytes; reports have at most {VERIFY_REPORT_MAX}");
        return Err(Error::invalid(message).within_file(file));
    }
    let bytes = std::fs::read(file).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("it is no text, and no report").within_file(file))
}

fn say(ended: &Ended, done: usize, all: usize) {
    let verdict = ended.proof.verdict.map_or("no report", Verdict::name);
    let before = if ended.is_passed_over { ", as its report says, which is unchanged" } else { "" };
    let path = shown(Path::new(&ended.proof.path));
    let _ = writeln!(anstream::stderr(), "{done} of {all}: {path}: {verdict}{before}");
}
