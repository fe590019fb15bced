//! `unluks decrypt`: the plaintext to a file, a pipe, or a block device.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use unluks::crypto::hash::Hash;
use unluks::decrypt::hash::{Hashed, Lanes, Of, PipeHashes};
use unluks::decrypt::journal::{Identity, Journal, resume};
use unluks::decrypt::target::{InPlace, Sparse, Target, TargetOptions};
use unluks::decrypt::{Job, Options, Sink, Stream, run as stream};
use unluks::luks::findings::{Severity, findings};
use unluks::progress::Progress;
use unluks::volume::{BadSectorPolicy, VolumeOptions};
use unluks::{Error, ErrorKind, Image, ReadAt, Result, Volume};

use crate::args::{BadSectors, DecryptArgs, When};
use crate::backup::{self, InBackup};
use crate::hashes;
use crate::key;
use crate::progress::{Shown, StopFollowers};
use crate::source::{Source, WithinFile, is_dash, shown};

/// An output below this is not worth a journal.
const JOURNAL_FROM: u64 = 64 << 20;

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
    hashes::check_file(args, &source)?;
    let output = Output::look(args, &source)?;
    let image = source.image(&args.source).map_err(|e| backup::explain(backup.as_ref(), e))?;
    let material = key::read(&args.key, is_dash(&args.source.image), backup.as_ref())?;
    let options = key::options(&args.source, &args.key, &args.limits);
    let unlocked = key::unlock(&image, material, &options, args.out.quiet);
    let unlocked = unlocked.map_err(|e| e.within_file(&args.source.image))?;
    let options = VolumeOptions {
        allow_truncated: args.source.allow_truncated,
        length_unknown: source.pipe.is_some(),
        bad_sectors: BadSectors::policy(args.part.bad_sectors),
    };
    let volume = match unlocked.volume(options) {
        // A part that is there all the same is no matter of what is missing behind it.
        Err(e) if e.rule() == "truncated" && args.part.length.is_some() => {
            let there = unlocked.volume(VolumeOptions { allow_truncated: true, ..options });
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
    let hashes = match output {
        Output::Stream(to) => work.to_stream(to),
        Output::Device(file) => work.to_device(file),
        Output::File => work.to_file(),
    };
    let hashes = hashes.map_err(|e| match e.kind() {
        ErrorKind::Cancelled => e,
        _ => e.within_file(&args.source.image),
    })?;
    hashes::report(&hashes, args, &source)?;
    report_bad_sectors(&volume, "the output is kept, with bad sectors")
        .map_err(|e| e.within_file(&args.source.image))?;
    Ok(ExitCode::SUCCESS)
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
    fn of(args: &DecryptArgs, volume: &Volume) -> Result<Self> {
        let start = args.part.skip.unwrap_or(0);
        if volume.is_open_ended() {
            return Ok(Self { start, len: args.part.length });
        }
        let rest = volume.len().checked_sub(start);
        let too_far = || Error::invalid(format!("--skip {start} is beyond the plaintext's {} bytes", volume.len()));
        let rest = rest.ok_or_else(too_far)?;
        let len = args.part.length.unwrap_or(rest);
        if len > rest {
            let message =
                format!("--length {len} from byte {start} on is beyond the plaintext's {} bytes", volume.len());
            return Err(Error::invalid(message));
        }
        Ok(Self { start, len: Some(len) })
    }
}

/// What kind of output it is.
enum Output {
    Stream(File),
    Device(File),
    File,
}

impl Output {
    /// Looks at the output before any work is done, and refuses what would do harm.
    fn look(args: &DecryptArgs, source: &Source) -> Result<Self> {
        let path = &args.output;
        let failed = |e| Error::io(format!("opening {}", shown(path)), e);
        if is_dash(path) {
            return Self::stdout(args, source);
        }
        source.refuse_as_output(path)?;
        let Ok(meta) = std::fs::metadata(path) else { return Ok(Self::File) };
        let kind = meta.file_type();
        if kind.is_dir() {
            return Err(Error::invalid(format!("{} is a directory", shown(path))).with_hint("name a file in it"));
        }
        if kind.is_char_device() || kind.is_fifo() {
            return no_resume(args, File::options().write(true).open(path).map_err(failed)?).map(Self::Stream);
        }
        if kind.is_block_device() {
            if !args.out.force {
                return Err(Error::invalid(format!("{} is a block device", shown(path)))
                    .with_hint("use --force to overwrite it"));
            }
            return no_resume(args, File::options().write(true).open(path).map_err(failed)?).map(Self::Device);
        }
        if !args.out.force {
            return Err(
                Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it")
            );
        }
        Ok(Self::File)
    }

    fn stdout(args: &DecryptArgs, source: &Source) -> Result<Self> {
        use std::os::fd::AsFd;
        let stdout = std::io::stdout();
        if stdout.is_terminal() && !args.out.force {
            return Err(
                Error::invalid("the plaintext would go to the terminal").with_hint("redirect it, or use --force")
            );
        }
        let file = stdout.as_fd().try_clone_to_owned().map_err(|e| Error::io("opening the standard output", e))?;
        let file = File::from(file);
        source.refuse_as_stream(&file)?;
        no_resume(args, file).map(Self::Stream)
    }
}

fn no_resume(args: &DecryptArgs, file: File) -> Result<File> {
    match args.out.resume {
        true => Err(Error::invalid("--resume wants an output file; a pipe or a device cannot be gone on with")),
        false => Ok(file),
    }
}

/// All that a decryption works with.
struct Work<'a> {
    args: &'a DecryptArgs,
    source: &'a Source,
    image: &'a Image,
    volume: &'a Volume,
    part: Part,
    wanted: &'a [hashes::Wanted],
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

    fn to_stream(&self, to: File) -> Result<Vec<Hashed>> {
        if to.metadata().is_ok_and(|m| m.file_type().is_fifo()) {
            // A larger pipe means fewer turns between the two ends. It is advice: the system may not allow it.
            let _ = rustix::pipe::fcntl_setpipe_size(&to, 1 << 20);
        }
        let (_, hashes) = self.stream(0, &Stream::new(to), None, None)?;
        Ok(hashes)
    }

    fn to_device(&self, file: File) -> Result<Vec<Hashed>> {
        let sink = InPlace(file);
        let (_, hashes) = self.stream(0, &sink, None, None)?;
        if !self.args.out.no_sync {
            sink.0.sync_all().map_err(|e| Error::io("syncing the output", e))?;
        }
        Ok(hashes)
    }

    fn to_file(&self) -> Result<Vec<Hashed>> {
        let out = &self.args.out;
        let path = &self.args.output;
        let options = TargetOptions {
            force: out.force,
            sparse: if out.sparse == When::Never { Sparse::Never } else { Sparse::Auto },
            direct: out.direct(),
            no_sync: out.no_sync,
        };
        let len = self.part.len.unwrap_or(0);
        if out.resume && self.source.pipe.is_some() {
            return Err(Error::invalid("--resume wants an image that can be read at any place, not a pipe"));
        }
        let (mut target, mut journal) = match out.resume {
            true => resume(path, &self.identity(len)?, self.volume, options).map(|(t, j)| (t, Some(j)))?,
            false => {
                let target = Target::create(path, len, options)?;
                // A pipe cannot be read again; and bad sectors are not noted there, so a second run would not tell of them.
                let again = self.source.pipe.is_none() && self.args.part.bad_sectors.is_none();
                let journaled = len >= JOURNAL_FROM && again && !out.no_sync;
                let journal = journaled.then(|| Journal::create(path, self.identity(len)?, &target)).transpose()?;
                (target, journal)
            }
        };
        let before = target.done();
        if before > 0 && !out.quiet {
            let _ = writeln!(anstream::stderr(), "resuming at byte {before} of {len}");
        }
        let result = self.stream(before, &target, Some(&target), journal.as_mut());
        let (written, hashes) = match result {
            Ok(done) => done,
            Err(e) => return Err(give_up(target, journal, e)),
        };
        if self.part.len.is_none_or(|len| written < len) {
            target.truncate(written)?;
        }
        if !out.no_sync
            && let Err(e) = target.sync()
        {
            target.keep();
            return Err(e);
        }
        // An output that is whole has no use for a journal, also where it does not get its name.
        if let Some(journal) = journal {
            journal.remove();
        }
        target.commit()?;
        Ok(hashes)
    }

    /// Runs the stream, with progress, hashes and the journal beside it.
    fn stream(
        &self,
        skip: u64,
        sink: &dyn Sink,
        target: Option<&Target>,
        journal: Option<&mut Journal>,
    ) -> Result<(u64, Vec<Hashed>)> {
        let mut lanes = Lanes::default();
        let mut of_pipe = Vec::new();
        for w in self.wanted {
            match (w.of, &self.source.pipe) {
                (Of::Plaintext, _) => {
                    let written = target.filter(|_| skip > 0).map(|t| t.reader().map(|f| (f, skip))).transpose()?;
                    lanes.plaintext(w.algorithm, written);
                }
                (Of::Image, Some(_)) => of_pipe.push(w.algorithm),
                (Of::Image, None) => {
                    let more = self.source.segments.iter().map(|segment| &segment.file);
                    let files = std::iter::once(&self.source.file).chain(more).map(Arc::clone).collect();
                    lanes.image(w.algorithm, files, self.source.is_plain_file());
                }
            }
        }
        let tapped = match self.source.pipe.as_ref().filter(|_| !of_pipe.is_empty()) {
            Some(pipe) => Some((pipe, PipeHashes::tap(pipe, &of_pipe)?)),
            None => None,
        };
        let job =
            Job { volume: self.volume, pipe: self.source.pipe.as_deref(), start: self.part.start, len: self.part.len };
        let options = Options {
            threads: self.args.out.threads,
            allow_truncated: self.args.source.allow_truncated,
            drop_behind: self.args.out.direct().drops_behind(self.part.len.unwrap_or(0)),
        };
        let out = &self.args.out;
        let shown = Shown::new(out.progress, out.quiet, self.part.len, skip);
        self.progress.add(skip);
        let start = Instant::now();
        let stop = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let follow = || shown.follow(&self.progress, &stop, || self.leave_pipe(target));
            let thread = |name: &str| std::thread::Builder::new().name(name.into());
            // Without a thread of its own, no progress is shown; what is to be resumed has to be noted.
            let watcher = thread("progress").spawn_scoped(scope, follow).ok();
            let mut stopped = StopFollowers::new(&stop, watcher.iter().map(|w| w.thread().clone()).collect());
            let scribe = journal.zip(target).map(|(j, t)| {
                let stop = &stop;
                thread("journal").spawn_scoped(scope, move || j.follow(t, stop))
            });
            let scribe = scribe.transpose().map_err(|e| Error::io("starting a thread for the journal", e))?;
            stopped.add(scribe.iter().map(|s| s.thread().clone()));
            let written = stream(&job, skip, sink, &lanes, options, &self.progress);
            drop(stopped);
            let panicked = || Err(Error::new(ErrorKind::Io, "noting the progress ended by a panic").with_rule("panic"));
            let noted = scribe.map_or(Ok(()), |s| s.join().unwrap_or_else(|_| panicked()));
            written.and_then(|n| noted.map(|()| n))
        });
        shown.finish(self.progress.bytes());
        let written = written?;
        let missing = self.part.len.and_then(|len| len.checked_sub(written)).filter(|n| *n > 0);
        if let Some(missing) = missing.filter(|_| !out.quiet) {
            let _ = writeln!(anstream::stderr(), "warning: the pipe ended {missing} bytes before the end of the part");
        }
        let mut hashes = lanes.results()?;
        if let Some((pipe, tapped)) = tapped {
            hashes.extend(tapped.finish(pipe)?);
        }
        // Before the output gets its name.
        self.backup.map_or(Ok(()), |backup| backup.compare(&hashes))?;
        if !out.quiet {
            let seconds = start.elapsed().as_secs_f64();
            let _ = writeln!(anstream::stderr(), "{written} bytes of plaintext in {seconds:.1} s");
        }
        Ok((written, hashes))
    }

    /// Ends the program where it was told to stop but waits for a pipe. There is no journal then, so nothing is kept.
    fn leave_pipe(&self, target: Option<&Target>) {
        if self.source.pipe.is_none() && target.is_some() {
            return;
        }
        if let Some(target) = target {
            let _ = std::fs::remove_file(target.temp_path());
        }
        let _ = writeln!(anstream::stderr(), "unluks: cancelled: stopped before the end");
        std::process::exit(130);
    }

    /// What a journal must be of.
    fn identity(&self, len: u64) -> Result<Identity> {
        let metadata = self.image.metadata();
        // Not the keyslots' areas: a LUKS1 header may put them terabytes away, in a file full of holes.
        let copies = u64::try_from(metadata.copies.len()).unwrap_or(1);
        let len_of_copies = usize::try_from(metadata.metadata_size * copies).unwrap_or(0);
        let mut header = vec![0u8; len_of_copies];
        self.source.header().read_exact_at(&mut header, 0)?;
        let of = |f: &File| {
            let m = f.metadata().map_err(|e| Error::io("looking at the image", e))?;
            Ok((
                self.source.file.len().max(m.len()),
                i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()),
            ))
        };
        let args = &self.args.source;
        let sha256 = Hash::Sha256.digest(&[&header]);
        Ok(Identity {
            unluks_journal: 2,
            files: self.source.files.iter().map(of).collect::<Result<_>>()?,
            place: format!("{:?} {:?} {:?}", args.offset, args.partition, args.format),
            header_sha256: hex::encode(sha256),
            start: self.part.start,
            len,
            output: 0,
        })
    }
}

/// Keeps what can be gone on with, removes what cannot, and says so.
fn give_up(mut target: Target, journal: Option<Journal>, e: Error) -> Error {
    let Some(mut journal) = journal else { return e };
    let worth = e.kind() == ErrorKind::Io && journal.note(&target, JOURNAL_FROM).is_ok() && journal.done() > 0;
    if !worth {
        journal.remove();
        return e;
    }
    target.keep();
    let (done, temp) = (journal.done(), shown(target.temp_path()));
    e.with_hint(format!("{done} bytes are kept in {temp}: go on with --resume"))
}
