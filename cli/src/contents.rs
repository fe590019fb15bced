//! What the plaintext is: one line of it where a volume is unlocked, the refusal of one that is cut off, and
//! `unluks inspect --inside`.

use std::io::Write;
use std::sync::Arc;

use unluks::error::{counted, escape};
use unluks::inside::{Contents, Kind, Part, Severity};
use unluks::limits::INSIDE_PIPE_REACH;
use unluks::map::Map;
use unluks::progress::Progress;
use unluks::volume::{BadSectorPolicy, VolumeOptions};
use unluks::{Error, ReadAt, Result, UnlockedImage, Volume};

use crate::args::plain::PlainArgs;
use crate::args::{InspectArgs, KeyArgs, SourceArgs};
use crate::key;
use crate::map;
use crate::open::Opened;
use crate::several;
use crate::signals;
use crate::source::{self, Disk, Source, is_dash};
use crate::terminal;

/// How many findings a command names that was asked for something else.
const FINDINGS_SHOWN: usize = 4;

/// What a command does with what it finds.
#[derive(Clone, Copy)]
pub struct Asked {
    /// Take a plaintext that is cut off.
    pub allow_truncated: bool,
    /// Say nothing but errors.
    pub quiet: bool,
}

/// The plaintext's contents, as far as they could be looked at.
pub struct Seen {
    contents: Option<Contents>,
    asked: Asked,
    /// The length is known at the end of a pipe only.
    is_open_ended: bool,
}

impl Seen {
    /// Says what the plaintext begins as; refuses one that is shorter than what is in it.
    pub fn look(opened: &Opened, unlocked: &UnlockedImage, volume: &Arc<Volume>, asked: Asked) -> Result<Self> {
        let is_open_ended = volume.is_open_ended();
        let reach = if opened.source.pipe().is_some() { INSIDE_PIPE_REACH } else { u64::MAX };
        // Sectors that are passed over are listed at the end, and only those that somebody asked for belong there.
        let disk = if volume.bad_sectors().policy() == BadSectorPolicy::Refuse {
            Some(Arc::clone(volume))
        } else {
            opened.volume(unlocked, VolumeOptions::default(), |_| true).ok().map(Arc::new)
        };
        // What cannot be read here is an error where it is wanted.
        let contents = disk.and_then(|disk| Contents::probe_start(disk, reach).ok());
        let seen = Self { contents, asked, is_open_ended };
        seen.say();
        // Where LUKS itself knows that bytes are missing, they are allowed, or the part that is wanted ends before them.
        let allowed = volume.missing().is_some();
        seen.check(volume.len(), allowed).map_err(|e| opened.source.named(e))?;
        Ok(seen)
    }

    fn say(&self) {
        let Some(contents) = self.contents.as_ref().filter(|_| !self.asked.quiet) else { return };
        let mut err = anstream::stderr();
        let _ = writeln!(err, "{}", line(contents));
        let findings = contents.all_findings();
        let shown = |code: &str| code != "contents.size";
        let bad: Vec<_> = findings.iter().filter(|f| f.severity == Severity::Error && shown(f.code)).collect();
        for finding in bad.iter().take(FINDINGS_SHOWN) {
            let _ = writeln!(err, "warning: {finding}");
        }
        if let more @ 1.. = bad.len().saturating_sub(FINDINGS_SHOWN) {
            let _ = writeln!(err, "warning: {} more; unluks inspect --inside lists them", counted(more, "finding"));
        }
    }

    fn check(&self, len: u64, is_allowed: bool) -> Result<()> {
        let Some(contents) = &self.contents else { return Ok(()) };
        match contents.fits(len) {
            Err(e) if is_allowed || self.asked.allow_truncated => {
                if !self.asked.quiet {
                    let _ = writeln!(anstream::stderr(), "warning: {}", e.message());
                }
                Ok(())
            }
            other => other,
        }
    }

    /// The same where a pipe has come to its end, and all of the plaintext was wanted: `end` bytes of it there were.
    pub fn check_end(&self, end: u64, is_to_the_end: bool) -> Result<()> {
        if self.is_open_ended && is_to_the_end { self.check(end, false) } else { Ok(()) }
    }
}

/// What contents begin as, in one line.
fn line(contents: &Contents) -> String {
    match contents.kind {
        Kind::Unknown => "begins as nothing that is known".to_owned(),
        Kind::Other(name) => format!("begins as {name}"),
        _ => format!("begins as {contents}"),
    }
}

/// Whether anything on the command line says where a key is.
pub fn is_key_given(args: &KeyArgs) -> bool {
    let one = [&args.barbican_key, &args.key_file, &args.passphrase_file, &args.key, &args.volume_key_file];
    one.into_iter().flatten().chain(&args.also_key_file).chain(&args.also_passphrase_file).next().is_some()
        || args.key_slot.is_some()
}

/// Refuses a key that nothing would be done with.
pub fn check_args(args: &InspectArgs) -> Result<()> {
    if !args.inside && !args.map && is_key_given(&args.key) {
        return Err(Error::invalid("a header is shown without a key; with one, --inside looks at the plaintext"));
    }
    Ok(())
}

/// What `--inside` and `--map` look at.
struct Looked {
    disk: Arc<dyn ReadAt>,
    /// The LUKS headers in it, where it is an image as it is.
    headers: Vec<u64>,
}

/// `unluks inspect --inside` and `--map`: the plaintext where there is a key, and else the image as it is.
pub fn inspect(args: &InspectArgs, source: SourceArgs, is_one_of_several: bool) -> Result<()> {
    let Looked { disk, headers } = looked(args, source)?;
    if args.map {
        let map = Mapped { bytes: disk.len(), headers, map: map::of(&*disk)? };
        let text = if args.json {
            several::json(&map, is_one_of_several)?
        } else {
            map::render(&map.map, map.bytes, &map.headers)
        };
        return terminal::print(&text);
    }
    let contents = if args.full {
        let progress = Progress::default();
        signals::stop_by(&progress.cancel_flag())?;
        Contents::check(disk, &progress)?
    } else {
        Contents::probe(disk)?
    };
    terminal::print(&if args.json { several::json(&contents, is_one_of_several)? } else { render(&contents) })
}

/// What `inspect --map --json` prints.
#[derive(serde::Serialize)]
struct Mapped {
    /// The size of what is mapped.
    bytes: u64,
    /// The places of the LUKS headers in it.
    headers: Vec<u64>,
    #[serde(flatten)]
    map: Map,
}

fn looked(args: &InspectArgs, mut source: SourceArgs) -> Result<Looked> {
    let of = |disk| Looked { disk, headers: Vec::new() };
    let is_named =
        source.partition.is_some() || source.offset.is_some() || source.volume.is_some() || !source.with.is_empty();
    if is_key_given(&args.key) || source.image.is_dir() {
        return plaintext(args, &mut source).map(of);
    }
    if is_dash(&source.image) {
        let flag = if args.map { "--map" } else { "--inside" };
        return Err(Error::invalid(format!("{flag} wants an image that can be read at any place, not a pipe")));
    }
    if is_named && args.inside {
        let source = Source::open(&source)?;
        source.print_notes(false);
        return Ok(of(Arc::clone(source.place().source())));
    }
    let disk = Disk::open(&source)?;
    for note in &disk.notes {
        let _ = writeln!(anstream::stderr(), "{note}");
    }
    // What lies where is beside the point where a layer cannot be read.
    let headers =
        if args.map { map::headers(&disk, source::shown(&source.image)).unwrap_or_default() } else { Vec::new() };
    Ok(Looked { disk: disk.disk, headers })
}

fn plaintext(args: &InspectArgs, source: &mut SourceArgs) -> Result<Arc<dyn ReadAt>> {
    key::check(&args.key, is_dash(&source.image))?;
    let opened = Opened::open_as(source, &PlainArgs::default(), &args.key, false)?;
    if opened.source.pipe().is_some() {
        return Err(Error::invalid("--inside wants an image that can be read at any place, not a pipe"));
    }
    opened.source.print_notes(false);
    let unlocked = opened.unlock(&args.key, &args.limits, false)?;
    Ok(Arc::new(opened.volume(&unlocked, VolumeOptions::default(), |_| true)?))
}

fn render(contents: &Contents) -> String {
    let mut text = line(contents) + "\n";
    let mut row = |name: &str, value: &str| text += &format!("  {name:<10} {value}\n");
    if let Some(uuid) = &contents.uuid {
        row("uuid", &escape(uuid));
    }
    match contents.size() {
        Some(size) => row("size", &format!("{size} bytes by its own structures, of {}", contents.volume_size)),
        None => row("size", &format!("{} bytes; what is in it does not say how many it takes", contents.volume_size)),
    }
    if let Some(block) = contents.block_size {
        row("blocks", &format!("{block} bytes"));
    }
    if let Some(covered) = contents.coverage() {
        let (proven, unchecked, free) = (covered.verified, covered.used_without_checksum, covered.free);
        row("coverage", &format!("{proven} bytes under a checksum that is right, {unchecked} in use and under none"));
        row("free", &format!("{free} bytes"));
    }
    for other in &contents.others {
        row("also", &format!("it has the mark of {other}, too"));
    }
    for part in &contents.parts {
        parts(&mut text, part, 1);
    }
    for finding in contents.all_findings() {
        text += &format!("  {}: {finding}\n", finding.severity);
    }
    if contents.more_findings > 0 {
        text += &format!("  left out: {} more\n", counted(contents.more_findings, "finding"));
    }
    for note in &contents.notes {
        text += &format!("  note: {}\n", escape(note));
    }
    text
}

/// A partition or a volume, and those in it.
fn parts(text: &mut String, part: &Part, depth: usize) {
    let place = part.start.map_or(String::new(), |start| format!(" at byte {start}"));
    let what = part.contents.as_ref().map_or("not looked at".to_owned(), |contents| match contents.kind {
        Kind::Unknown | Kind::Other(_) => contents.kind.to_string(),
        _ => contents.to_string(),
    });
    *text += &format!("{:indent$}{}: {} bytes{place}: {what}\n", "", escape(&part.name), part.len, indent = depth * 2);
    for inner in part.contents.iter().flat_map(|contents| &contents.parts) {
        parts(text, inner, depth + 1);
    }
}
