//! `unluks hash`.

use std::io::IsTerminal;
use std::process::ExitCode;

use sha2::{Digest, Sha256};
use unluks::reader::walk::{self, Descend, Follow, Visitor};
use unluks::reader::{FileKind, FileSystem, Metadata};
use unluks::{Error, Result};

use super::print::Out;
use super::{Faults, Files, Named, from_root};
use crate::args::ProgressKind;
use crate::args::files::HashArgs;
use crate::progress::ProgressView;

pub fn run(args: &mut HashArgs, code: fn(&Error) -> u8) -> Result<ExitCode> {
    let mut files = Files::open(&mut args.source, &args.inside)?;
    let mut faults = Faults::new(code);
    let mut out = Out::new();
    // Where the lines go to a terminal, they are what shows how far it is.
    let quiet = args.inside.quiet || std::io::stdout().is_terminal();
    let shown = ProgressView::new(ProgressKind::Auto, quiet, None, 0);
    let done = args.paths.iter().try_for_each(|path| {
        let path = from_root(path);
        let below: Vec<_> = files.below(&path).iter().map(|volume| volume.path.clone()).collect();
        let all = if below.is_empty() { vec![path] } else { below };
        all.iter().try_for_each(|path| hash(&mut files, path, (&mut out, &shown), &mut faults))
    });
    shown.clear();
    out.finish(done)?;
    Ok(faults.exit())
}

fn hash(files: &mut Files, path: &[u8], (out, shown): (&mut Out, &ProgressView), faults: &mut Faults) -> Result<()> {
    let named = match files.named(path, Follow::Last) {
        Ok(named) => named,
        Err(e) => return faults.say(path, e),
    };
    if !matches!(named.metadata.kind, FileKind::File | FileKind::Directory) {
        return faults.say(path, Error::invalid("it is no regular file, and has nothing to be hashed"));
    }
    let prefix = files.full(&named, b"");
    let Named { path, metadata, .. } = &named;
    let mut work = Hash { prefix, out, shown, faults };
    let reader = files.of(&named)?;
    walk::walk(reader, path, metadata, &mut work)
}

struct Hash<'a> {
    /// The path of the volume.
    prefix: Vec<u8>,
    out: &'a mut Out,
    shown: &'a ProgressView,
    faults: &'a mut Faults,
}

impl Visitor for Hash<'_> {
    fn visit(&mut self, fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        if metadata.kind == FileKind::File {
            match sha256(fs, path, metadata, self.shown) {
                Ok(hex) => {
                    let path = self.out.name(&[&self.prefix, path].concat());
                    self.out.write(&line(&hex, &path))?;
                }
                Err(e) => self.fault(path, e)?,
            }
        }
        Ok(Descend::Into)
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        self.faults.say(&[&self.prefix, path].concat(), e)
    }
}

/// The hash of a regular file, in hex.
pub fn sha256(fs: &mut dyn FileSystem, path: &[u8], metadata: &Metadata, shown: &ProgressView) -> Result<String> {
    let mut hasher = Sha256::new();
    walk::read(fs, path, metadata, &mut |bytes| {
        hasher.update(bytes);
        shown.add(bytes.len());
        Ok(())
    })?;
    Ok(hex::encode(hasher.finalize()))
}

/// A line of `sha256sum`, with the path from where the image's root is copied to. One with a newline or a backslash in its
/// name begins with a backslash, and has these escaped.
fn line(hex: &str, path: &[u8]) -> Vec<u8> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let is_escaped = path.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    let mut line = Vec::new();
    if is_escaped {
        line.push(b'\\');
    }
    line.extend(hex.as_bytes());
    line.extend(b"  ");
    for byte in path {
        match byte {
            b'\\' => line.extend(b"\\\\"),
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines_are_those_of_sha256sum() {
        assert_eq!(line("ab", b"/etc/fstab"), b"ab  etc/fstab\n");
        assert_eq!(line("ab", b"/a\nb\\c"), b"\\ab  a\\nb\\\\c\n");
    }
}
