//! The program about itself: manual pages and completions, made of the command line's own definitions, and the way from what
//! people type to a subcommand.

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use unluks::error::shown;
use unluks::{Error, Result};

use crate::args::Cli;

/// `unluks IMAGE` inspects it.
pub fn with_subcommand(mut args: Vec<OsString>) -> Vec<OsString> {
    let command = Cli::command();
    let is_subcommand =
        |name: &str| command.get_subcommands().any(|c| c.get_name() == name || c.get_all_aliases().any(|a| a == name));
    if let Some(first) = args.get(1)
        && !first.to_str().is_some_and(|first| first.starts_with('-') || first == "help" || is_subcommand(first))
        && Path::new(first).exists()
    {
        args.insert(1, "inspect".into());
    }
    args
}

/// Prints the script of a shell.
pub fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "unluks", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::io("writing to the standard output", e)),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Writes the pages into a folder that is there.
pub fn pages(dir: &Path) -> Result<ExitCode> {
    let written = clap_mangen::generate_to(Cli::command(), dir);
    written.map_err(|e| Error::io(format!("writing manual pages to {}", shown(dir)), e))?;
    Ok(ExitCode::SUCCESS)
}

/// What is said to who wants a device.
pub fn maps_nothing() -> Error {
    Error::invalid("unluks maps no device and mounts nothing")
        .with_hint("unluks decrypt IMAGE --output FILE writes the plaintext, and unluks serve IMAGE offers it over NBD")
}
