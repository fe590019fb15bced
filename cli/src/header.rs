//! `unluks header`: a copy of the header, or the volume key that a passphrase opens, each to a file of its own.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use unluks::files::{Existing, write_whole};
use unluks::limits::HEADER_BACKUP_MAX;
use unluks::num::to_usize;
use unluks::{Error, Result};

use crate::args::HeaderArgs;
use crate::key;
use crate::open::Opened;
use crate::source::{is_dash, shown};

/// cryptsetup rounds its backups up to pages.
const PAGE: u64 = 4096;

pub fn run(args: &mut HeaderArgs) -> Result<ExitCode> {
    key::check(&args.key, is_dash(&args.source.image))?;
    let mut opened = Opened::open(&mut args.source)?;
    opened.source.print_notes(args.quiet);
    key::note(&args.key, &mut opened.source.inputs)?;
    let outputs = [&args.output, &args.dump_volume_key];
    for path in outputs.into_iter().flatten() {
        if is_dash(path) {
            return Err(Error::invalid("a header and a volume key go to a file, and to nothing that others may read"));
        }
        opened.source.inputs.refuse(path)?;
    }
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    if let Some(path) = &args.output {
        write_header(&opened, path, existing)?;
        say(args.quiet, &format!("{}: the header; with a passphrase of its time it opens the data", shown(path)));
    }
    if let Some(path) = &args.dump_volume_key {
        // Nobody types a passphrase in vain.
        if path.exists() && !args.force {
            return Err(
                Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it")
            );
        }
        let unlocked = opened.unlock(&args.key, &args.limits, args.quiet)?;
        let mut keys = unlocked.keys().values();
        let (Some(key), None) = (keys.next(), keys.next()) else {
            let message = "the image has several volume keys, since a reencryption goes on";
            return Err(opened.source.named(Error::unsupported("volume-key", message)));
        };
        write_whole(path, key.expose(), existing)?;
        let message = "holds the volume key: whoever has it reads the data, whatever becomes of the passphrases";
        say(args.quiet, &format!("warning: {} {message}", shown(path)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Header and keyslots as they are, in the length that cryptsetup's own backup has.
fn write_header(opened: &Opened, path: &Path, existing: Existing) -> Result<()> {
    let metadata = opened.image.metadata();
    if metadata.offline.is_some() {
        let message =
            "the image has two headers, the .org and the .new of its offline reencryption: these are its backup";
        return Err(opened.source.named(Error::invalid(message).with_rule("header")));
    }
    let len = metadata.header_size;
    if len > HEADER_BACKUP_MAX {
        let message = format!("header and keyslots have {len} bytes; at most {HEADER_BACKUP_MAX} are copied");
        return Err(opened.source.named(Error::limit("header", message)));
    }
    let mut header = vec![0; to_usize(len.next_multiple_of(PAGE))?];
    let wanted = header.get_mut(..to_usize(len)?).unwrap_or_default();
    opened.image.read_header(wanted, 0).map_err(|e| opened.source.named(e))?;
    write_whole(path, &header, existing)
}

fn say(quiet: bool, line: &str) {
    if !quiet {
        let _ = writeln!(anstream::stderr(), "{line}");
    }
}
