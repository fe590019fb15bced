//! Names as they are printed: on a terminal nothing of theirs is obeyed, and elsewhere they are the bytes that they are.

use std::io::{BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use unluks::backup::rfc3339;
use unluks::error::visible;
use unluks::reader::{FileKind, Metadata, Xattr};
use unluks::{Error, Result, json};

/// The standard output.
pub struct Out {
    to: BufWriter<StdoutLock<'static>>,
    is_terminal: bool,
    /// Whoever reads has seen enough.
    is_closed: bool,
}

impl Out {
    pub fn new() -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        Self { to: BufWriter::with_capacity(64 << 10, stdout.lock()), is_terminal, is_closed: false }
    }

    /// Bytes of a name, or of a line of them.
    pub fn name(&self, name: &[u8]) -> Vec<u8> {
        if self.is_terminal { visible(&String::from_utf8_lossy(name)).into_bytes() } else { name.to_vec() }
    }

    /// Writes a piece of a file: as it is, but on a terminal with everything escaped that this would obey.
    pub fn contents(&mut self, bytes: &[u8]) -> Result<()> {
        if !self.is_terminal {
            return self.write(bytes);
        }
        let mut text = String::new();
        for part in bytes.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\n' | '\t' => text.push(c),
                    c => text += &visible(c.encode_utf8(&mut [0; 4])),
                }
            }
            part.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
        }
        self.write(text.as_bytes())
    }

    /// Writes bytes as they are. Where nobody reads them, that ends what is done.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.to.write_all(bytes);
        self.check(written)
    }

    pub fn json(&mut self, value: &impl Serialize) -> Result<()> {
        self.write((json::compact(value)? + "\n").as_bytes())
    }

    fn check(&mut self, written: std::io::Result<()>) -> Result<()> {
        match written {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Err(Error::cancelled())
            }
            Err(e) => Err(Error::io("writing to the standard output", e)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes out what is left; `done` is what became of the rest.
    pub fn finish(mut self, done: Result<()>) -> Result<()> {
        let written = self.to.flush();
        let flushed = self.check(written);
        if self.is_closed { Ok(()) } else { done.and(flushed) }
    }
}

/// A file as JSON has it.
#[derive(Serialize)]
pub struct Line {
    /// The path from the image's root; with replacement characters where it is not UTF-8.
    pub path: String,
    /// The path's bytes, where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    #[serde(rename = "type")]
    pub kind: FileKind,
    pub bytes: u64,
    /// Permissions, in octal digits.
    pub mode: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub links: Option<u32>,
    /// In UTC.
    pub modified: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<Vec<XattrLine>>,
}

/// An extended attribute as JSON has it.
#[derive(Serialize)]
pub struct XattrLine {
    /// With replacement characters where it is not UTF-8.
    name: String,
    value_hex: String,
}

impl XattrLine {
    pub fn of(Xattr { name, value }: &Xattr) -> Self {
        Self { name: String::from_utf8_lossy(name).into_owned(), value_hex: hex::encode(value) }
    }
}

impl Line {
    pub fn new(path: &[u8], metadata: &Metadata) -> Self {
        let path_hex = std::str::from_utf8(path).is_err().then(|| hex::encode(path));
        Self {
            path: String::from_utf8_lossy(path).into_owned(),
            path_hex,
            kind: metadata.kind,
            bytes: metadata.size,
            mode: metadata.mode.map(|mode| format!("{mode:04o}")),
            uid: metadata.uid,
            gid: metadata.gid,
            links: metadata.links,
            modified: metadata.modified.and_then(time),
            target: None,
            sha256: None,
            xattrs: None,
        }
    }
}

fn time((seconds, _): (i64, u32)) -> Option<String> {
    let since = Duration::from_secs(u64::try_from(seconds).ok()?);
    UNIX_EPOCH.checked_add(since).map(rfc3339)
}

/// The columns before the name of a long listing.
pub fn columns(metadata: &Metadata) -> String {
    let number = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
    let time = metadata.modified.and_then(time).unwrap_or("-".to_owned());
    let (uid, gid, links) = (number(metadata.uid), number(metadata.gid), number(metadata.links));
    format!("{} {links:>2} {uid:>5} {gid:>5} {:>11} {time:<20} ", mode(metadata), metadata.size)
}

/// The permissions as `ls` has them; question marks where they are not known.
fn mode(metadata: &Metadata) -> String {
    let kind = match metadata.kind {
        FileKind::File => '-',
        FileKind::Directory => 'd',
        FileKind::Link => 'l',
        _ => '?',
    };
    let Some(mode) = metadata.mode else { return format!("{kind}?????????") };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, false) => 'x',
            (false, false) => '-',
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        let metadata = |mode| Metadata {
            kind: FileKind::File,
            size: 5,
            mode,
            uid: Some(0),
            gid: None,
            modified: Some((1_000_000_000, 0)),
            links: None,
            id: None,
        };
        assert_eq!(mode(&metadata(Some(0o4755))), "-rwsr-xr-x");
        assert_eq!(mode(&metadata(Some(0o1644))), "-rw-r--r-T");
        assert_eq!(mode(&metadata(None)), "-?????????");
        assert_eq!(columns(&metadata(Some(0o600))), "-rw-------  -     0     -           5 2001-09-09T01:46:40Z ");
    }
}
