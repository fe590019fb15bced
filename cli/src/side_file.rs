//! Files that are written beside the output: its hashes, its map.

use std::fs::File;
use std::path::{Path, PathBuf};

use unluks::files::{Existing, Inputs, Role, Whole, folder, names, write_whole};
use unluks::{Error, Result};

use crate::args::DecryptArgs;
use crate::source::{Source, is_dash, shown};

/// Refuses files beside the output that would do harm, before hours of work rather than after them.
pub fn check_all(args: &DecryptArgs, source: &Source) -> Result<()> {
    check("--hash-file", args.out.hash_file.as_deref(), args, source)?;
    check("--map", args.out.map.as_deref(), args, source)?;
    if let (Some(one), Some(other)) = (&args.out.hash_file, &args.out.map)
        && full_name(one)? == full_name(other)?
    {
        return Err(Error::invalid(format!("--map {}: it is the file of --hash-file, too", shown(other))));
    }
    Ok(())
}

fn check(flag: &str, path: Option<&Path>, args: &DecryptArgs, source: &Source) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let refuse = |why: &str| Err(Error::invalid(format!("{flag} {}: {why}", shown(path))));
    if is_dash(path) {
        return refuse("name a file");
    }
    let [_, unfinished, _] = names(path)?;
    for name in [path, unfinished.as_path()] {
        source.inputs.refuse(name)?;
    }
    if path.is_dir() {
        return refuse("it is a folder");
    }
    let full = full_name(path)?;
    if !is_dash(&args.output) {
        // Whoever makes the one must not take a name of the other.
        let own = [full, full_name(&unfinished)?];
        for name in names(&args.output)? {
            // An output whose folder is not there says so itself.
            if full_name(&name).is_ok_and(|name| own.contains(&name)) || is_output(path, args) {
                return refuse("it is the output itself, or a name that it takes meanwhile");
            }
        }
    }
    match path.symlink_metadata() {
        Ok(_) if !args.out.force => {
            Err(Error::invalid(format!("{} is there already", shown(path))).with_hint("use --force to replace it"))
        }
        Ok(_) if path.metadata().is_ok_and(|meta| !meta.is_file()) => refuse("it is no regular file"),
        // Whether it can be written there is known when it is begun.
        _ => Whole::create(path, existing(args)).map(drop),
    }
}

fn existing(args: &DecryptArgs) -> Existing {
    if args.out.force { Existing::Replace } else { Existing::Keep }
}

/// A file's name with its folder's true name.
fn full_name(path: &Path) -> Result<PathBuf> {
    let failed = |e| Error::io(format!("opening the folder of {}", shown(path)), e);
    let folder = folder(path).canonicalize().map_err(failed)?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

/// Whether the name leads to the output, where both are there.
fn is_output(path: &Path, args: &DecryptArgs) -> bool {
    let output = Some(&args.output).filter(|p| p.is_file()).and_then(|p| File::open(p).ok());
    let mut outputs = Inputs::default();
    let noted = output.map(|file| outputs.add(&file, shown(&args.output), Role::Image));
    noted.is_some_and(|noted| noted.is_ok()) && outputs.refuse(path).is_err()
}

/// Writes one of them, where it is wanted.
pub fn write(flag: &str, path: Option<&Path>, text: &[u8], args: &DecryptArgs) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    // Somebody may have made a link of it meanwhile.
    if is_output(path, args) {
        return Err(Error::invalid(format!("{flag} {}: it is the output itself", shown(path))));
    }
    write_whole(path, text, existing(args))
}
