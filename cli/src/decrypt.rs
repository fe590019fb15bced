//! `unluks decrypt`: the plaintext to a file, a pipe, or a block device.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use unluks::decrypt::hash::{Hashed, Wanted};
use unluks::decrypt::journal::Identity;
use unluks::decrypt::output::{self, Checked, Destination, Hashes, Written};
use unluks::decrypt::{Job, Options};
use unluks::error::Condition;
use unluks::locate::Place;
use unluks::luks::findings::{Severity, findings};
use unluks::progress::Progress;
use unluks::volume::{BadSectorPolicy, VolumeOptions};
use unluks::{Error, ErrorKind, Image, ReadAt, Result, Volume};

use crate::args::{BadSectors, DecryptArgs, SourceArgs};
use crate::backup::{self, InBackup};
use crate::hashes;
use crate::key;
use crate::progress::{Shown, StopFollowers};
use crate::source::{Source, WithinFile, is_dash};

pub fn run(args: &mut DecryptArgs) -> Result<ExitCode> {
    key::check(&args.key, is_dash(&args.source.image))?;
    let backup = backup::enter(&mut args.source)?;
    let args = &*args;
    let mut source = Source::open(&args.source)?;
    if let Some(backup) = &backup {
        backup.check(&mut source, args.source.allow_truncated).map_err(|e| e.within_file(&args.source.image))?;
    }
    source.print_notes(args.out.quiet);
    let wanted = hashes::parse(&args.out.hash)?;
    key::note(&args.key, &mut source.inputs)?;
    hashes::check_file(args, &source)?;
    if args.out.resume && source.pipe.is_some() {
        return Err(Error::invalid("--resume wants an image that can be read at any place, not a pipe"));
    }
    let image = source.image(&args.source).map_err(|e| backup::explain(backup.as_ref(), e))?;
    // All that can be known is looked at before any key is derived, which may take minutes.
    let len = Part::expected(args, &source, &image)?;
    let output = output::check(destination(&args.output), &source.inputs, len, args.out.options())?;
    for note in output.notes.iter().filter(|_| !args.out.quiet) {
        let _ = writeln!(anstream::stderr(), "note: {note}");
    }
    let material = key::read(&args.key, is_dash(&args.source.image), backup.as_ref())?;
    let unlocked = key::unlock(&image, material, &args.key, &args.limits, args.out.quiet);
    let unlocked = unlocked.map_err(|e| e.within_file(&args.source.image))?;
    let options = VolumeOptions {
        allow_truncated: args.source.allow_truncated,
        length_unknown: source.pipe.is_some(),
        bad_sectors: BadSectors::policy(args.part.bad_sectors),
    };
    let volume = match image.volume(&unlocked, options) {
        // A part that is there all the same is no matter of what is missing behind it.
        Err(e) if e.rule() == "truncated" && args.part.length.is_some() => {
            let there = image.volume(&unlocked, VolumeOptions { allow_truncated: true, ..options });
            there.ok().filter(|volume| args.part.is_within(volume.len())).ok_or(e)
        }
        other => other,
    };
    let volume = volume.map_err(|e| e.within_file(&args.source.image))?;
    drop(unlocked);
    warn(args.out.quiet, &image, &volume);
    let part = Part::of(args, &volume)?;
    let work = Work {
        args,
        source: &source,
        image: &image,
        volume: &volume,
        part,
        wanted: &wanted,
        backup: backup.as_ref(),
        progress: Progress::default(),
    };
    work.catch_signals()?;
    let hashes = work.write(output).map_err(|e| name_file(e, &args.source))?;
    hashes::report(&hashes, args, &source)?;
    report_bad_sectors(&volume, "the output is kept, with bad sectors")
        .map_err(|e| e.within_file(&args.source.image))?;
    Ok(ExitCode::SUCCESS)
}

fn destination(path: &std::path::Path) -> Destination<'_> {
    if is_dash(path) { Destination::Stdout } else { Destination::Path(path) }
}

/// Puts the image's name in front of its errors. Those of the output name that.
fn name_file(e: Error, source: &SourceArgs) -> Error {
    if e.kind() == ErrorKind::Cancelled || e.is(Condition::Output) { e } else { e.within_file(&source.image) }
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
    if !runs.is_empty() {
        let bytes: u64 = runs.iter().map(|run| run.len).sum();
        found.push(format!("the tags of {bytes} bytes of plaintext in {} runs do not match", runs.len()));
    }
    if bad.unlisted() > 0 {
        found.push(format!("{} sectors more are not listed", bad.unlisted()));
    }
    let rule = if runs.is_empty() { "integrity.journal" } else { "integrity.tag" };
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
    let mut err = anstream::stderr();
    for f in findings(image.metadata(), None).iter().filter(|f| f.severity == Severity::Critical) {
        let _ = writeln!(err, "warning: {}: {}", f.about, f.message);
    }
    let metadata = image.metadata();
    for damaged in metadata.copies.iter().filter(|c| !c.used) {
        if let (Some(e), Some(used)) = (&damaged.error, metadata.used_copy()) {
            let _ =
                writeln!(err, "warning: the {} header is damaged, so the {} one is used: {e}", damaged.role, used.role);
        }
    }
    if volume.missing() > 0 {
        let message = "bytes are missing at the end of the image; the whole sectors that are there are decrypted";
        let _ = writeln!(err, "warning: {} {message}", volume.missing());
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
            _ if source.pipe.is_some() => None,
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
    progress: Progress,
}

impl Work<'_> {
    /// The first signal stops the stream in good order; a second one ends the program at once.
    fn catch_signals(&self) -> Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
        let failed = |e| Error::io("catching signals", e);
        let flag = self.progress.cancel_flag();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag)).map_err(failed)?;
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(failed)?;
        }
        // A write beyond the limit on a file's size ends the program by this signal, unless somebody catches it: then
        // the write fails, which is an error like that of a full disk.
        signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
        Ok(())
    }

    /// Writes the output, and gives its hashes.
    fn write(&self, output: Checked) -> Result<Vec<Hashed>> {
        let args = &self.args.source;
        let pipe = self.source.pipe.as_deref();
        let job = Job { volume: self.volume, pipe, start: self.part.start, len: self.part.len };
        let identity = self.part.len.filter(|_| pipe.is_none()).map(|len| {
            // Words that the next version has to read as they are.
            let offset = args.offset.map_or("-".into(), |offset| offset.to_string());
            let partition = args.partition.as_deref().unwrap_or("-");
            let format = args.format.map_or("-".into(), |format| format.to_string());
            let place = format!("offset {offset}, partition {partition}, format {format}");
            Identity::of(self.image.metadata(), &self.source.inputs, place, self.part.start, len)
        });
        let writing = output.begin(job, identity)?;
        let out = &self.args.out;
        let before = writing.resumed_at();
        if before > 0 && !out.quiet {
            let all = self.part.len.unwrap_or(before);
            let _ = writeln!(anstream::stderr(), "resuming at byte {before} of {all}");
        }
        let shown = Shown::new(out.progress, out.quiet, self.part.len, before);
        let (start, stop) = (Instant::now(), AtomicBool::new(false));
        let may_wait = writing.unfinished().is_none() && !writing.can_resume() || pipe.is_some();
        let unfinished = writing.unfinished();
        let written = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                shown.follow(&self.progress, &stop, || {
                    if may_wait {
                        leave_pipe(unfinished.as_deref());
                    }
                });
            });
            let _stopped = StopFollowers::new(&stop, vec![watcher.thread().clone()]);
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
        self.backup.map_or(Ok(()), |backup| backup.compare(&written.hashes))?;
        if !quiet {
            let seconds = start.elapsed().as_secs_f64();
            let _ = writeln!(anstream::stderr(), "{} bytes of plaintext in {seconds:.1} s", written.bytes);
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
