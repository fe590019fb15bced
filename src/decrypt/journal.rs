//! The journal beside an unfinished output: with it, a decryption that was killed goes on where it stopped.
//!
//! A line of JSON says which image and which part of it, as [`Identity`]; each further line says how many bytes from the
//! output's start were on the disk by then. Data is synced before the line that speaks of it.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::target::{Target, TargetOptions, journal_path, wipe};
use crate::error::{Error, Result};
use crate::io::ReadAt;

/// How often the journal is brought up to date.
const EVERY: Duration = Duration::from_secs(2);
/// A journal line is not worth its sync for less than this.
const STEP: u64 = 64 << 20;
/// How much of the output is compared with the image again before a journal is trusted, at both ends.
const CHECK: u64 = 1 << 20;
/// The longest line that is read.
const LINE_MAX: u64 = 4096;

/// What must not have changed when an output is gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The journal's own format.
    pub unluks_journal: u32,
    /// Of each file of the image: its bytes, and when it was last changed, in nanoseconds since 1970.
    pub files: Vec<(u64, i128)>,
    /// Where in the image the container is, as the options say it.
    pub place: String,
    /// SHA-256 of the header area.
    pub header_sha256: String,
    /// The first byte of plaintext in the output.
    pub start: u64,
    /// Bytes of the output.
    pub len: u64,
    /// The inode of the unfinished output, which [`Journal::create`] fills in: a journal vouches for no other file.
    pub output: u64,
}

/// A journal that is being written.
pub struct Journal {
    path: PathBuf,
    file: File,
    done: u64,
}

impl Journal {
    /// Starts the journal of a new output.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where it cannot be written.
    pub fn create(output: &Path, identity: Identity, target: &Target) -> Result<Self> {
        let path = journal_path(output)?;
        let failed = |e| Error::io("writing the journal", e);
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let identity = Identity { output: target.inode()?, ..identity };
        let mut line = serde_json::to_string(&identity).map_err(|e| failed(e.into()))?;
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(failed)?;
        Ok(Self { path, file, done: 0 })
    }

    /// Writes down how far `target` is, every two seconds, until `stop` is set and this thread unparked.
    pub fn follow(&mut self, target: &Target, stop: &AtomicBool) -> Result<()> {
        loop {
            std::thread::park_timeout(EVERY);
            if stop.load(Ordering::Acquire) {
                return Ok(());
            }
            self.note(target, STEP)?;
        }
    }

    /// Writes down how far `target` is, if that is at least `step` bytes more than last time.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where data or journal cannot be synced.
    pub fn note(&mut self, target: &Target, step: u64) -> Result<()> {
        let done = target.done();
        if done < self.done.saturating_add(step) {
            return Ok(());
        }
        target.sync()?;
        let failed = |e| Error::io("writing the journal", e);
        self.file.write_all(format!("{{\"done\":{done}}}\n").as_bytes()).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.done = done;
        Ok(())
    }

    /// How many bytes are known to be on the disk.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Removes the journal: its output is finished, or given up.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(Deserialize)]
struct Line {
    done: u64,
}

/// Goes on with an output that was left behind, if its journal is there, fits, and tells the truth.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where there is nothing to go on with, or the image or the
/// options are not what they were; it says which.
pub fn resume(
    output: &Path,
    identity: &Identity,
    plaintext: &dyn ReadAt,
    options: TargetOptions,
) -> Result<(Target, Journal)> {
    let path = journal_path(output)?;
    let refuse =
        |why: String| Error::invalid(format!("cannot resume: {why}")).with_hint("start again without --resume");
    let file = OpenOptions::new().read(true).append(true).open(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => refuse("there is no journal of an unfinished output".into()),
        _ => Error::io("reading the journal", e),
    })?;
    let Noted { identity: was, done, len } = read(&file).ok_or_else(|| refuse("the journal is damaged".into()))?;
    if let Some(what) = difference(&was, identity) {
        return Err(refuse(what.into()));
    }
    if done > identity.len {
        return Err(refuse("the journal is damaged".into()));
    }
    let target = Target::reopen(output, done, identity.len, options)?;
    if target.inode()? != was.output {
        return Err(refuse("the unfinished output is not the one that the journal is of".into()));
    }
    let there = target.reader()?.metadata().map_err(|e| Error::io("looking at the unfinished output", e))?.len();
    if there != identity.len {
        return Err(refuse(format!("the unfinished output has {there} bytes, not {}", identity.len)));
    }
    for at in [0, done.saturating_sub(CHECK)] {
        if !same(&target.reader()?, plaintext, identity.start, at, done.min(at + CHECK))? {
            return Err(refuse("the unfinished output is not what this key and image give".into()));
        }
    }
    // What is written from here on must not continue a line that a crash cut off.
    file.set_len(len).map_err(|e| Error::io("writing the journal", e))?;
    Ok((target, Journal { path, file, done }))
}

/// What a journal says.
struct Noted {
    identity: Identity,
    /// The last `done`.
    done: u64,
    /// Bytes of the whole lines.
    len: u64,
}

/// Reads the whole lines. One that was cut off by a crash does not count.
fn read(file: &File) -> Option<Noted> {
    use std::io::Read;
    let mut lines = BufReader::new(file);
    let mut next = || {
        let mut line = Vec::new();
        (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line).ok()?;
        line.ends_with(b"\n").then_some(line)
    };
    let first = next()?;
    let length = |line: &[u8]| u64::try_from(line.len()).unwrap_or(0);
    let mut noted = Noted { identity: serde_json::from_slice(&first).ok()?, done: 0, len: length(&first) };
    while let Some(line) = next() {
        noted.done = serde_json::from_slice::<Line>(&line).ok()?.done.max(noted.done);
        noted.len += length(&line);
    }
    Some(noted)
}

/// What is not as it was, if anything.
fn difference(was: &Identity, is: &Identity) -> Option<&'static str> {
    if was.unluks_journal != is.unluks_journal {
        return Some("the journal is of another version of unluks");
    }
    if was.header_sha256 != is.header_sha256 {
        return Some("the header is not the one that it was");
    }
    if was.files != is.files {
        return Some("the image was changed since, or is another one");
    }
    if was.place != is.place {
        return Some("--offset, --partition or --format are not what they were");
    }
    ((was.start, was.len) != (is.start, is.len))
        .then_some("--skip, --length or --allow-truncated are not what they were")
}

/// Whether the output from `from` to `to` is what decrypting gives.
fn same(output: &File, plaintext: &dyn ReadAt, start: u64, from: u64, to: u64) -> Result<bool> {
    let len = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
    let (mut written, mut wanted) = (vec![0u8; len], vec![0u8; len]);
    output.read_exact_at(&mut written, from).map_err(|e| Error::io("reading the unfinished output", e))?;
    plaintext.read_exact_at(&mut wanted, start.saturating_add(from))?;
    let same = written == wanted;
    wipe(&mut written);
    wipe(&mut wanted);
    Ok(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let header_sha256 = "00".repeat(32);
        Identity {
            unluks_journal: 2,
            files: vec![(9, 0)],
            place: String::new(),
            header_sha256,
            start: 0,
            len: 9,
            output: 0,
        }
    }

    #[test]
    fn a_line_that_was_cut_off_is_forgotten_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let plaintext = b"plaintext".to_vec();
        let mut target = Target::create(&output, 9, TargetOptions::default()).unwrap();
        crate::decrypt::Sink::write(&target, &plaintext, 0).unwrap();
        let mut journal = Journal::create(&output, identity(), &target).unwrap();
        journal.note(&target, 1).unwrap();
        journal.file.write_all(b"{\"done\":7").unwrap();
        target.keep();
        drop((journal, target));
        for _ in 0..2 {
            let (mut target, mut journal) = resume(&output, &identity(), &plaintext, TargetOptions::default()).unwrap();
            assert_eq!((target.done(), journal.done()), (9, 9));
            journal.note(&target, 0).unwrap();
            target.keep();
        }
        assert_eq!(std::fs::read_to_string(journal_path(&output).unwrap()).unwrap().lines().count(), 4);
    }
}
