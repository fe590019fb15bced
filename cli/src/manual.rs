//! The program about itself: manual pages and completions, made of the command line's own definitions, and the way from what
//! people type to a subcommand.

mod page;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use unluks::error::shown;
use unluks::{Error, Result};

use crate::args::Cli;
use crate::own;
use crate::terminal;

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

/// What `--version --verbose` prints, where that is what is asked.
pub fn version(args: &[OsString]) -> Option<String> {
    let given: Option<Vec<&str>> = args.iter().skip(1).map(|arg| arg.to_str()).collect();
    let (mut version, mut verbose) = (false, false);
    for arg in given? {
        match arg {
            "--version" | "-V" => version = true,
            "--verbose" | "-v" => verbose = true,
            "-Vv" | "-vV" => (version, verbose) = (true, true),
            _ => return None,
        }
    }
    (version && verbose).then(about)
}

/// The build and the file that runs, a line each.
fn about() -> String {
    let digest = own::hash().unwrap_or_else(|e| format!("unknown: {e}"));
    let features: Vec<&str> = own::features().collect();
    let features = if features.is_empty() { "none".into() } else { features.join(" ") };
    format!(
        "unluks {}\ncommit:   {}\nfeatures: {features}\ntarget:   {}\ncompiler: {}\nsha256:   {digest}\n",
        env!("CARGO_PKG_VERSION"),
        env!("UNLUKS_COMMIT"),
        env!("UNLUKS_TARGET"),
        env!("UNLUKS_COMPILER"),
    )
}

/// Prints a text, to its last byte.
pub fn print(text: &str) -> Result<ExitCode> {
    terminal::print_script(text).map(|()| ExitCode::SUCCESS)
}

/// Prints the script of a shell.
pub fn completions(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "unluks", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes the pages into a folder that is there.
pub fn pages(dir: &Path) -> Result<ExitCode> {
    let failed = |e| Error::io(format!("writing manual pages to {}", shown(dir)), e);
    for (name, text) in page::all(Cli::command()).map_err(failed)? {
        std::fs::write(dir.join(name), text).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is said to who wants a device.
pub fn maps_nothing() -> Error {
    Error::invalid("unluks maps no device and mounts nothing")
        .with_hint("unluks decrypt IMAGE --output FILE writes the plaintext, and unluks serve IMAGE offers it over NBD")
}
