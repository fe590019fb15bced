//! `unluks cat`.

use std::process::ExitCode;

use unluks::reader::walk::{self, Follow};
use unluks::{Error, Result};

use super::print::Out;
use super::{Faults, Files, from_root};
use crate::args::files::CatArgs;

pub fn run(args: &mut CatArgs, code: fn(&Error) -> u8) -> Result<ExitCode> {
    let mut files = Files::open(&mut args.source, &args.inside)?;
    let mut faults = Faults::new(code);
    let mut out = Out::new();
    let done = args.paths.iter().try_for_each(|path| {
        let path = from_root(path);
        cat(&mut files, &path, &mut out).or_else(|e| faults.say(&path, e))
    });
    out.finish(done)?;
    Ok(faults.exit())
}

fn cat(files: &mut Files, path: &[u8], out: &mut Out) -> Result<()> {
    let named = files.named(path, Follow::Last)?;
    if named.metadata.is_dir() {
        return Err(Error::invalid("it is a directory").with_hint("unluks ls lists it, and unluks cp -r copies it"));
    }
    walk::read(files.of(&named)?, &named.path, &named.metadata, &mut |bytes| out.contents(bytes)).map(drop)
}
