//! The program `unluks`: reads LUKS images without cryptsetup.

mod args;
mod decrypt;
mod hashes;
mod inspect;
mod key;
mod progress;
mod source;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use unluks::{Error, ErrorKind};

use args::{Cli, Command};

fn main() -> ExitCode {
    keep_secrets_in();
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Inspect(args) => inspect::run(args),
        Command::Decrypt(args) => decrypt::run(args),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            let _ = writeln!(anstream::stderr(), "unluks: {e}");
            exit_code(&e)
        }
    }
}

/// No core dump and no debugger may see keys. Both are best effort: an image must open all the same.
fn keep_secrets_in() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// The exit codes that the README documents.
fn exit_code(e: &Error) -> ExitCode {
    match e.kind() {
        ErrorKind::Io if e.rule() == "cancelled" => ExitCode::from(130),
        ErrorKind::Io => ExitCode::from(1),
        ErrorKind::InvalidInput => ExitCode::from(2),
        ErrorKind::WrongKey => ExitCode::from(3),
        ErrorKind::Corrupt => ExitCode::from(4),
        ErrorKind::Unsupported => ExitCode::from(5),
        ErrorKind::LimitExceeded => ExitCode::from(6),
    }
}
