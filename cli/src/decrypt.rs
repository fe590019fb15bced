//! `unluks decrypt`: the plaintext to a file, a pipe, or a block device.

mod record;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use unluks::decrypt::hash::{Hashed, Wanted};
use unluks::decrypt::output::{self, Checked, Destination, Hashes, Written};
use unluks::decrypt::{Identity, Job, Options};
use unluks::error::Condition;
use unluks::error::counted;
use unluks::io::RescueMap;
use unluks::locate::Place;
use unluks::luks::findings::{Severity, findings};
use unluks::progress::Progress;
use unluks::volume::{BadRun, BadSectorPolicy, Cause, VolumeOptions};
use unluks::{Error, ErrorKind, Image, ReadAt, Result, Volume};

use crate::args::DecryptArgs;
use crate::args::out::BadSectors;
use crate::backup::InBackup;
use crate::cinder::{self, Compare};
use crate::contents::{Asked, Seen};
use crate::hashes;
use crate::key;
use crate::open::Opened;
use crate::progress::{ProgressView, StopFollowers};
use crate::side_file;
use crate::signals;
use crate::source::{Source, is_dash};
use crate::verify;

/// Decrypts; `code` is the exit code of an error.
pub fn run(args: &mut DecryptArgs, code: impl Fn(&Error) -> u8 + Sync) -> Result<ExitCode> {
    key::check(&args.key, is_dash(&args.source.image))?;
    let record = record::wanted(args)?;
    let mut opened = Opened::open_as(&mut args.source, &args.plain, &args.key, args.out.quiet)?;
    let args = &*args;
    opened.source.print_notes(args.out.quiet);
    let asked = hashes::parse(&args.out.hash)?;
    key::note(&args.key, &mut opened.source.inputs)?;
    let Opened { source, image, .. } = &opened;
    side_file::check_all(args, source)?;
    if args.out.resume && source.pipe().is_some() {
        return Err(Error::invalid("--resume wants an image that can be read at any place, not a pipe"));
    }
    if args.out.resume && image.is_plain() {
        return Err(Error::invalid(
            "--resume is for images with a header: without one, nothing tells that the key is the same",
        ));
    }
    // All that can be known is looked at before any key is derived, which may take minutes.
    opened.check_data(|len| args.part.is_within(len))?;
    let len = Part::expected(args, source, image)?;
    let output = output::check(destination(&args.output), &source.inputs, len, args.out.options())?;
    for note in output.notes.iter().filter(|_| !args.out.quiet) {
        let _ = writeln!(anstream::stderr(), "note: {note}");
    }
    let compared = opened.to_compare(args.out.no_compare, args.out.quiet);
    let to_compare = compared.map(InBackup::wanted).transpose()?.flatten().filter(|wanted| !asked.contains(wanted));
    let wanted: Vec<_> = asked.iter().copied().chain(to_compare).collect();
    let unlocked = opened.unlock(&args.key, &args.limits, args.out.quiet)?;
    let options = VolumeOptions { bad_sectors: BadSectors::policy(args.part.bad_sectors), ..VolumeOptions::default() };
    let volume = Arc::new(opened.volume(&unlocked, options, |len| args.part.is_within(len))?);
    warn(args.out.quiet, image, &volume);
    let how = Asked { allow_truncated: args.source.allow_truncated, quiet: args.out.quiet };
    let seen = Seen::look(&opened, &unlocked, &volume, how)?;
    drop(unlocked);
    let part = Part::of(args, &volume)?;
    let work = Work {
        args,
        source,
        image,
        volume: &volume,
        part,
        wanted: &wanted,
        backup: compared,
        seen,
        progress: Progress::default(),
    };
    signals::stop_by(&work.progress.cancel_flag())?;
    if let Some(chain) = source.cinder.as_ref().filter(|_| !args.out.no_compare) {
        let progress = Progress::stopped_with(&work.progress);
        let compared = cinder::check(chain, Compare::Objects, args.out.progress, args.out.quiet, &progress);
        compared.map_err(|e| source.named(e))?;
    }
    let hashes = work.write(output).map_err(|e| name_file(e, source))?;
    let map_text = work.map();
    // One that was made to compare the image alone was not asked for.
    let asked_for = |h: &Hashed| asked.contains(&Wanted { of: h.of, algorithm: h.algorithm });
    let hashes: Vec<_> = hashes.into_iter().filter(asked_for).collect();
    hashes::report(&hashes, args, source)?;
    side_file::write("--map", args.out.map.as_deref(), map_text.as_bytes(), args)?;
    let bad = report_bad_sectors(&volume, "the output is kept, with bad sectors").map_err(|e| source.named(e));
    let ended = match record {
        // What was written is read back. The record is also of an output with bad sectors: it says where they are.
        Some(record) => verify::run(&record, code)?,
        None => ExitCode::SUCCESS,
    };
    bad.map(|()| ended)
}

fn destination(path: &std::path::Path) -> Destination<'_> {
    if is_dash(path) { Destination::Stdout } else { Destination::Path(path) }
}

/// Puts the image's name in front of its errors. Those of the output name that.
fn name_file(e: Error, source: &Source) -> Error {
    if e.kind() == ErrorKind::Cancelled || e.is(Condition::Output) { e } else { source.named(e) }
}

/// Lists the sectors that were passed over. The output is kept, but nobody must take it for whole.
pub fn report_bad_sectors(volume: &Volume, kept: &str) -> Result<()> {
    let bad = volume.bad_sectors();
    if bad.is_empty() {
        return Ok(());
    }
    let mut err = anstream::stderr();
    let runs = bad.runs();
    for run in &runs {
        let (start, end) = (run.start, run.start + run.len);
        let _ = writeln!(
            err,
            "bad sectors: bytes {start} to {end} of the plaintext, stored from byte {} on",
            run.stored_at
        );
    }
    let how = match bad.policy() {
        BadSectorPolicy::Report | BadSectorPolicy::Refuse => "decrypted all the same",
        BadSectorPolicy::Zero => "as zeroes",
        BadSectorPolicy::Skip => "left out",
    };
    let mut found = Vec::new();
    let of = |cause: Cause| {
        let runs: Vec<&BadRun> = runs.iter().filter(|run| run.cause == cause).collect();
        (runs.iter().map(|run| run.len).sum::<u64>(), runs.len())
    };
    let (wrong, lost, unread) = (of(Cause::Tag), of(Cause::Overwritten), of(Cause::Unreadable));
    if wrong.1 > 0 {
        found.push(format!("the tags of {} bytes of plaintext in {} do not match", wrong.0, counted(wrong.1, "run")));
    }
    if lost.1 > 0 {
        let by = "by what was written over the header";
        found.push(format!("{} bytes of plaintext in {} were overwritten {by}", lost.0, counted(lost.1, "run")));
    }
    if unread.1 > 0 {
        found.push(format!("{} bytes of plaintext in {} could not be read", unread.0, counted(unread.1, "run")));
    }
    if bad.unlisted() > 0 {
        found.push(format!("not listed: {} more", counted(bad.unlisted(), "sector")));
    }
    let rules = [(wrong, "integrity.tag"), (unread, "unreadable"), (lost, "overwritten")];
    let rule = rules.iter().find(|((_, runs), _)| *runs > 0).map_or("integrity.journal", |(_, rule)| *rule);
    if let Some(damage) = bad.journal_damage() {
        found.push(format!("the journal was passed over ({damage})"));
    }
    let message = format!("{}; {kept} {how}", found.join("; "));
    Err(Error::corrupt(rule, message))
}

/// Says what a user must not overlook.
pub fn warn(quiet: bool, image: &Image, volume: &Volume) {
    if quiet {
        return;
    }
    // A pipe has no plaintext yet.
    if image.is_plain() {
        crate::plain::warn(Some(volume).filter(|v| !v.is_open_ended()));
        return warn_of_volume(volume);
    }
    let mut err = anstream::stderr();
    for f in findings(image.metadata(), None).iter().filter(|f| f.severity == Severity::Critical) {
        let _ = writeln!(err, "warning: {}: {}", f.about, f.message);
    }
    let metadata = image.metadata();
    if let Some(recovery) = &metadata.recovery {
        let _ = writeln!(err, "warning: {recovery}");
    }
    for damaged in metadata.copies.iter().filter(|c| !c.used) {
        if let (Some(e), Some(used)) = (&damaged.error, metadata.used_copy()) {
            let how = if e.kind() == ErrorKind::Io { "cannot be read" } else { "is damaged" };
            let (role, used) = (damaged.role, used.role);
            let _ = writeln!(err, "warning: the {role} header {how}, so the {used} one is used: {e}");
        }
    }
    warn_of_volume(volume);
}

fn warn_of_volume(volume: &Volume) {
    let mut err = anstream::stderr();
    for note in volume.notes() {
        let _ = writeln!(err, "warning: {note}");
    }
    if let Some(missing) = volume.missing() {
        let message = "are missing at the end of the image; the whole sectors that are there are decrypted";
        let _ = writeln!(err, "warning: {missing} {message}");
    }
}

/// The plaintext that is wanted.
struct Part {
    start: u64,
    /// `None` is to the end, which nobody knows for a pipe.
    len: Option<u64>,
}

impl Part {
    /// The bytes of the part, where the header and the data's length tell them without a key; refuses one beyond the end
    /// of the plaintext.
    fn expected(args: &DecryptArgs, source: &Source, image: &Image) -> Result<Option<u64>> {
        let known = match source.place() {
            _ if source.pipe().is_some() => None,
            Place::Qcow2Luks(luks) => Some(luks.clusters.virtual_size()),
            Place::File(_) | Place::Inside(_) => image.metadata().plaintext_size(image.data().len()),
        };
        match known {
            Some(len) => Self::within(args, len).map(|part| part.len),
            None => Ok(args.part.length),
        }
    }

    fn of(args: &DecryptArgs, volume: &Volume) -> Result<Self> {
        let start = args.part.skip.unwrap_or(0);
        if volume.is_open_ended() {
            return Ok(Self { start, len: args.part.length });
        }
        Self::within(args, volume.len())
    }

    /// The part of `all` bytes of plaintext that is wanted.
    fn within(args: &DecryptArgs, all: u64) -> Result<Self> {
        let start = args.part.skip.unwrap_or(0);
        let too_far = || Error::invalid(format!("--skip {start} is beyond the plaintext's {all} bytes"));
        let rest = all.checked_sub(start).ok_or_else(too_far)?;
        let len = args.part.length.unwrap_or(rest);
        if len > rest {
            return Err(Error::invalid(format!(
                "--length {len} from byte {start} on is beyond the plaintext's {all} bytes"
            )));
        }
        Ok(Self { start, len: Some(len) })
    }
}

/// All that a decryption works with.
struct Work<'a> {
    args: &'a DecryptArgs,
    source: &'a Source,
    image: &'a Image,
    volume: &'a Volume,
    part: Part,
    wanted: &'a [Wanted],
    backup: Option<&'a InBackup>,
    seen: Seen,
    progress: Progress,
}

impl Work<'_> {
    /// Which bytes of the plaintext are right, as ddrescue's mapfile.
    fn map(&self) -> String {
        let (start, len) = (self.part.start, self.part.len.unwrap_or_else(|| self.progress.bytes()));
        let lost = self.volume.bad_sectors().runs().into_iter().map(|run| run.start..run.end());
        RescueMap::of_lost(start, len, lost).text(start, len)
    }

    /// Writes the output, and gives its hashes.
    fn write(&self, output: Checked) -> Result<Vec<Hashed>> {
        let args = &self.args.source;
        let pipe = self.source.pipe();
        let job = Job { volume: self.volume, start: self.part.start, len: self.part.len };
        let identity = self.part.len.filter(|_| pipe.is_none() && !self.image.is_plain()).map(|len| {
            // Words that the next version has to read as they are.
            let offset = args.offset.map_or("-".into(), |offset| offset.to_string());
            let partition = args.partition.as_deref().unwrap_or("-");
            let format = args.format.map_or("-".into(), |format| format.to_string());
            let volume = args.volume.as_deref().unwrap_or("-");
            let snapshot = args.snapshot.as_ref().map_or(String::new(), |snapshot| format!(", snapshot {snapshot}"));
            let place = format!("offset {offset}, partition {partition}, volume {volume}, format {format}{snapshot}");
            Identity::of(self.image.metadata(), &self.source.inputs, place, self.part.start, len)
        });
        let writing = output.begin(job, identity)?;
        let out = &self.args.out;
        let before = writing.resumed_at();
        if before > 0 && !out.quiet {
            let all = self.part.len.unwrap_or(before);
            let _ = writeln!(anstream::stderr(), "resuming at byte {before} of {all}");
        }
        let shown = ProgressView::new(out.progress, out.quiet, self.part.len, before);
        let (start, stop) = (Instant::now(), AtomicBool::new(false));
        let may_wait = writing.unfinished().is_none() && !writing.can_resume() || pipe.is_some();
        let unfinished = writing.unfinished();
        let written = std::thread::scope(|scope| {
            let follow = || {
                shown.follow(&self.progress, &stop, || {
                    if may_wait {
                        leave_pipe(unfinished.as_deref());
                    }
                });
            };
            // Without a thread of its own, nothing is shown.
            let watcher = std::thread::Builder::new().name("progress".into()).spawn_scoped(scope, follow);
            let _stopped = StopFollowers::new(&stop, watcher.iter().map(|w| w.thread().clone()).collect());
            let more = self.source.segments.iter().map(|segment| &segment.file);
            let image = std::iter::once(&self.source.file).chain(more).map(Arc::clone).collect();
            let hashes = Hashes { wanted: self.wanted, image, passes_by: self.source.is_plain_file() };
            let options = Options {
                threads: out.threads,
                allow_truncated: self.args.source.allow_truncated,
                ..Options::default()
            };
            writing.run(&hashes, options, &self.progress)
        });
        shown.finish(self.progress.bytes());
        self.finish(written?, start)
    }

    /// Gives what was written its name, unless something is wrong with the image.
    fn finish(&self, mut written: Written, start: Instant) -> Result<Vec<Hashed>> {
        let quiet = self.args.out.quiet;
        if written.missing > 0 && !quiet {
            let message = "bytes before the end of the part";
            let _ = writeln!(anstream::stderr(), "warning: the pipe ended {} {message}", written.missing);
        }
        self.seen.check_end(self.part.start.saturating_add(written.bytes), self.part.len.is_none())?;
        if let Some(same) = self.backup.map(|backup| backup.compare(&written.hashes)).transpose()?.filter(|_| !quiet) {
            let _ = writeln!(anstream::stderr(), "{same}");
        }
        if !quiet {
            let seconds = start.elapsed().as_secs_f64();
            let unproven = if self.image.is_plain() { ", which nothing proves" } else { "" };
            let _ = writeln!(anstream::stderr(), "{} bytes of plaintext in {seconds:.1} s{unproven}", written.bytes);
        }
        let hashes = std::mem::take(&mut written.hashes);
        written.commit()?;
        Ok(hashes)
    }
}

/// Ends the program where it was told to stop but waits for a pipe. There is no journal then, so nothing is kept.
fn leave_pipe(unfinished: Option<&std::path::Path>) {
    if let Some(unfinished) = unfinished {
        let _ = std::fs::remove_file(unfinished);
    }
    let _ = writeln!(anstream::stderr(), "unluks: cancelled: stopped before the end");
    std::process::exit(130);
}
