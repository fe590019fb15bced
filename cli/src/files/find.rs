//! `unluks find`.

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use unluks::reader::walk::{self, Descend, Follow, Visitor};
use unluks::reader::{FileKind, FileSystem, Metadata};
use unluks::{Error, Result};

use super::glob::fits;
use super::print::{Line, Out};
use super::{Faults, Files, Named, from_root};
use crate::args::files::{FindArgs, FindKind};

pub fn run(args: &mut FindArgs, code: fn(&Error) -> u8) -> Result<ExitCode> {
    let mut files = Files::open(&mut args.source, &args.inside)?;
    let path = args.path.as_deref().map_or_else(|| b"/".to_vec(), from_root);
    let mut faults = Faults::new(code);
    let mut out = Out::new();
    let below: Vec<_> = files.below(&path).iter().map(|volume| volume.path.clone()).collect();
    let all = if below.is_empty() { vec![path] } else { below };
    let done = all.iter().try_for_each(|path| find(args, &mut files, path, &mut out, &mut faults));
    out.finish(done)?;
    Ok(faults.exit())
}

fn find(args: &FindArgs, files: &mut Files, path: &[u8], out: &mut Out, faults: &mut Faults) -> Result<()> {
    let named = match files.named(path, Follow::NotLast) {
        Ok(named) => named,
        Err(e) => return faults.say(path, e),
    };
    let prefix = files.full(&named, b"");
    let Named { path, metadata, .. } = &named;
    let mut work = Find { args, prefix, out, faults };
    walk::walk(files.of(&named)?, path, metadata, &mut work)
}

struct Find<'a> {
    args: &'a FindArgs,
    /// The path of the volume.
    prefix: Vec<u8>,
    out: &'a mut Out,
    faults: &'a mut Faults,
}

impl Find<'_> {
    fn is_wanted(&self, path: &[u8], metadata: &Metadata) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_kind = self.args.only.is_none_or(|kind| match kind {
            FindKind::F => metadata.kind == FileKind::File,
            FindKind::D => metadata.kind == FileKind::Directory,
            FindKind::L => metadata.kind == FileKind::Link,
        });
        is_kind && self.args.name.as_ref().is_none_or(|pattern| fits(pattern.as_bytes(), name))
    }
}

impl Visitor for Find<'_> {
    fn visit(&mut self, _: &mut dyn FileSystem, path: &[u8], metadata: &Metadata) -> Result<Descend> {
        if self.is_wanted(path, metadata) {
            let rest = if self.prefix.is_empty() || path != b"/" { path } else { b"" };
            let full = [&self.prefix, rest].concat();
            if self.args.json {
                self.out.json(&Line::new(&full, metadata))?;
            } else {
                let mut line = if self.args.print0 { full } else { self.out.name(&full) };
                line.push(if self.args.print0 { 0 } else { b'\n' });
                self.out.write(&line)?;
            }
        }
        Ok(Descend::Into)
    }

    fn fault(&mut self, path: &[u8], e: Error) -> Result<()> {
        self.faults.say(&[&self.prefix, path].concat(), e)
    }
}
