//! The journal beside an unfinished output: with it, a decryption that was stopped is resumed where it was.
//!
//! A line of JSON says which image and which part of it, as [`Identity`]; each further line says how many bytes from the
//! output's start were on the disk by then. Data is synced before the line that speaks of it. All of these bytes came
//! from sectors that were right: what passes over bad sectors keeps no journal, so that no list of them is cut short.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Condition, Error, Hint, Result, shown};
use crate::files::{Inputs, Plain, failed, in_the_way, journal_name, open_plain, sync_folder};
use crate::luks::metadata::Metadata;

/// The format of the journal.
const VERSION: u32 = 3;
/// The longest line that is read.
const LINE_MAX: u64 = 1 << 20;

/// What must not have changed when an output is resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The journal's own format.
    unluks_journal: u32,
    /// Of each file of the image: its bytes, and when it was last changed, in nanoseconds since 1970.
    files: Vec<(u64, i128)>,
    /// Where in the image the container is.
    place: String,
    /// [`Metadata::fingerprint`].
    header_sha256: String,
    /// The first byte of plaintext in the output.
    start: u64,
    /// Bytes of the output.
    pub(super) len: u64,
    /// The inode of the unfinished output: a journal vouches for no other file.
    output: u64,
}

impl Identity {
    /// Of `len` bytes of plaintext from `start` on, of the image whose files are `inputs`. `place` says where in them
    /// the container is, in words that are the same the next time.
    pub fn of(metadata: &Metadata, inputs: &Inputs, place: String, start: u64, len: u64) -> Self {
        let (files, header_sha256) = (inputs.stamps(), metadata.fingerprint());
        Self { unluks_journal: VERSION, files, place, header_sha256, start, len, output: 0 }
    }

    /// What is not as it was, if anything.
    fn difference(&self, was: &Self) -> Option<&'static str> {
        if was.unluks_journal != self.unluks_journal {
            return Some("the journal is of another version of unluks");
        }
        if was.header_sha256 != self.header_sha256 {
            return Some("the header is not the one that it was");
        }
        if was.files != self.files {
            return Some("the image was changed since, or is another one");
        }
        if was.place != self.place {
            return Some(
                "the image is another, or lies at another place: offset, partition and format must be what they were",
            );
        }
        ((was.start, was.len) != (self.start, self.len))
            .then_some("another part is wanted: its start and its length must be what they were")
    }
}

/// A journal that is being written.
pub struct Journal {
    path: PathBuf,
    file: File,
    done: u64,
}

impl Journal {
    /// Starts the journal of a new output whose unfinished file has this inode.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) where it cannot be written. No part of it is left then.
    pub(super) fn create(output: &Path, identity: Identity, inode: u64) -> Result<Self> {
        let path = journal_name(output)?;
        let identity = Identity { output: inode, ..identity };
        let mut line = serde_json::to_string(&identity).map_err(|e| writing(output, e.into()))?;
        line.push('\n');
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path).map_err(|e| writing(output, e))?;
        if let Err(e) = file.write_all(line.as_bytes()) {
            let _ = std::fs::remove_file(&path);
            return Err(writing(output, e));
        }
        Ok(Self { path, file, done: 0 })
    }

    /// Opens the journal of an output that was left behind, if it is there, whole, and of this image and part. The
    /// caller has locked the unfinished output, whose inode this is.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) where there is nothing to resume, or the image or the options are
    /// not what they were; it says which.
    pub(super) fn open(output: &Path, identity: &Identity, inode: u64) -> Result<Self> {
        let path = journal_name(output)?;
        let Some((file, noted)) = read(output)? else {
            return Err(refuse("there is no journal of an unfinished output"));
        };
        let Noted { identity: was, done, len } = noted.ok_or_else(|| refuse("the journal is damaged"))?;
        if let Some(what) = identity.difference(&was) {
            return Err(refuse(what));
        }
        if done > identity.len {
            return Err(refuse("the journal is damaged"));
        }
        if inode != was.output {
            return Err(refuse("the unfinished output is not the one that the journal is of"));
        }
        // What is written from here on must not continue a line that a crash cut off.
        file.set_len(len).map_err(|e| writing(output, e))?;
        Ok(Self { path, file, done })
    }

    /// Writes down that `done` bytes from the start are on the disk.
    pub(super) fn note(&mut self, done: u64) -> std::io::Result<()> {
        self.file.write_all(format!("{{\"done\":{done}}}\n").as_bytes())?;
        self.file.sync_data()?;
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

/// Refuses to resume, and says why.
pub(super) fn refuse(why: &str) -> Error {
    Error::invalid(format!("cannot resume: {why}")).with_hint(Hint::StartAgain).with_condition(Condition::Output)
}

fn writing(output: &Path, e: std::io::Error) -> Error {
    match e.kind() {
        std::io::ErrorKind::StorageFull => failed(output, e),
        _ => Error::io(format!("writing the journal of {}", shown(output)), e).with_condition(Condition::Output),
    }
}

/// Removes the journal of an earlier output, for good: it would vouch for bytes that the next one has not written.
pub(super) fn forget(output: &Path) -> Result<()> {
    match std::fs::remove_file(journal_name(output)?) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(writing(output, e)),
        Ok(()) => sync_folder(output),
    }
}

/// Refuses to give up what could be resumed: hours of work, perhaps.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) where the journal says that a part of the output with this inode is
/// done.
pub(super) fn refuse_resumable(output: &Path, inode: u64) -> Result<()> {
    match read(output)? {
        Some((_, Some(noted))) if noted.done > 0 && noted.identity.output == inode => {
            let message = format!("an unfinished {} is there, with {} bytes that are done", shown(output), noted.done);
            Err(Error::invalid(message).with_hint(Hint::ResumeOrForce).with_condition(Condition::Output))
        }
        _ => Ok(()),
    }
}

/// Refuses a `--resume` for which there is nothing.
pub(super) fn refuse_nothing(output: &Path) -> Result<()> {
    match read(output)? {
        None => Err(refuse("there is no journal of an unfinished output")),
        Some((_, None)) => Err(refuse("the journal is damaged")),
        Some(_) => Ok(()),
    }
}

#[derive(Deserialize)]
struct Line {
    done: u64,
}

/// What a journal says.
struct Noted {
    identity: Identity,
    /// The last `done`.
    done: u64,
    /// Bytes of the whole lines.
    len: u64,
}

/// Reads the journal of an output: `None` where there is none, and nothing noted where it is damaged.
fn read(output: &Path) -> Result<Option<(File, Option<Noted>)>> {
    let path = journal_name(output)?;
    match open_plain(&path, OpenOptions::new().read(true).append(true)) {
        Ok(file) => {
            let noted = lines(&file);
            Ok(Some((file, noted)))
        }
        Err(Plain::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(Plain::Io(e)) => {
            Err(Error::io(format!("reading the journal of {}", shown(output)), e).with_condition(Condition::Output))
        }
        Err(Plain::Other(what)) => Err(in_the_way(output, &path, what)),
    }
}

/// Reads the whole lines. One that was cut off by a crash does not count.
fn lines(file: &File) -> Option<Noted> {
    use std::io::Read;
    let mut lines = BufReader::new(file);
    let mut next = || {
        let mut line = Vec::new();
        (&mut lines).take(LINE_MAX).read_until(b'\n', &mut line).ok()?;
        line.ends_with(b"\n").then_some(line)
    };
    let first = next()?;
    let length = |line: &[u8]| crate::num::to_u64(line.len());
    let mut noted = Noted { identity: serde_json::from_slice(&first).ok()?, done: 0, len: length(&first) };
    while let Some(line) = next() {
        noted.done = serde_json::from_slice::<Line>(&line).ok()?.done.max(noted.done);
        noted.len = noted.len.checked_add(length(&line))?;
    }
    Some(noted)
}

#[cfg(test)]
impl Identity {
    /// Of `len` bytes of nothing in particular.
    pub(super) fn of_nothing(len: u64) -> Self {
        let (files, place, header_sha256) = (vec![(len, 0)], String::new(), String::new());
        Self { unluks_journal: VERSION, files, place, header_sha256, start: 0, len, output: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_off_is_forgotten_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        let identity = Identity::of_nothing(9);
        let mut journal = Journal::create(&output, identity.clone(), 7).unwrap();
        journal.note(9).unwrap();
        journal.file.write_all(b"{\"done\":7").unwrap();
        drop(journal);
        for _ in 0..2 {
            let mut journal = Journal::open(&output, &identity, 7).unwrap();
            assert_eq!(journal.done(), 9);
            journal.note(9).unwrap();
        }
        assert_eq!(std::fs::read_to_string(journal_name(&output).unwrap()).unwrap().lines().count(), 4);
    }

    #[test]
    fn what_could_be_resumed_is_not_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        refuse_resumable(&output, 7).unwrap();
        let mut journal = Journal::create(&output, Identity::of_nothing(9), 7).unwrap();
        // Nothing is done yet.
        refuse_resumable(&output, 7).unwrap();
        journal.note(5).unwrap();
        let said = refuse_resumable(&output, 7).unwrap_err().to_string();
        assert!(said.contains("resume it, or allow it to be discarded") && said.contains("5 bytes"), "{said}");
        // It is of another file.
        refuse_resumable(&output, 8).unwrap();
        std::fs::write(journal_name(&output).unwrap(), "{}").unwrap();
        refuse_resumable(&output, 7).unwrap();
    }
}
