//! The program `unluks`: reads LUKS images without cryptsetup.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the program unluks keeps keys out of core dumps by calls that only Linux has, and builds on Linux alone"
);

mod args;
mod backup;
mod cinder;
mod contents;
mod decrypt;
#[cfg(feature = "openstack")]
mod fetch;
#[cfg(feature = "files")]
mod files;
mod hashes;
mod header;
mod hint;
mod inspect;
mod key;
mod manual;
mod map;
#[cfg(feature = "mount")]
mod mount;
mod open;
mod own;
mod page;
mod plain;
mod progress;
mod quote;
#[cfg(feature = "files")]
mod reader;
mod report;
mod restore_plan;
#[cfg(feature = "files")]
mod sandbox;
mod scan;
#[cfg(feature = "nbd")]
mod serve;
mod several;
mod side_file;
mod sign;
mod signals;
mod source;
mod summary;
mod terminal;
mod test_key;
mod time;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use unluks::{Error, ErrorKind};

use args::{Cli, Command};

fn main() -> ExitCode {
    keep_secrets_in();
    let args: Vec<_> = std::env::args_os().collect();
    let result = match manual::version(&args) {
        Some(text) => manual::print(&text),
        None => run(args),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            let _ = writeln!(anstream::stderr(), "unluks: {}", hint::line(&e));
            exit_code(&e)
        }
    }
}

fn run(args: Vec<std::ffi::OsString>) -> unluks::Result<ExitCode> {
    let mut cli = Cli::parse_from(manual::with_subcommand(args));
    args::color(cli.color);
    match &mut cli.command {
        Command::Inspect(args) => inspect::run(args, exit_code),
        Command::Decrypt(args) => decrypt::run(args, code),
        Command::Scan(args) => scan::run(args, exit_code),
        Command::TestKey(args) => test_key::run(args, exit_code),
        Command::Header(args) => header::run(args),
        #[cfg(feature = "openstack")]
        Command::Fetch(args) => fetch::run(&args.what),
        Command::Verify(args) => verify::run(args, code),
        Command::Report(args) => report::run(&args.what),
        Command::RestorePlan(args) => restore_plan::run(args),
        #[cfg(feature = "nbd")]
        Command::Serve(args) => serve_image(args),
        #[cfg(feature = "files")]
        Command::Ls(args) => files::list::run(args, code),
        #[cfg(feature = "files")]
        Command::Cat(args) => files::cat::run(args, code),
        #[cfg(feature = "files")]
        Command::Cp(args) => files::copy::run(args, code),
        #[cfg(feature = "files")]
        Command::Find(args) => files::find::run(args, code),
        #[cfg(feature = "files")]
        Command::Hash(args) => files::hash::run(args, code),
        #[cfg(feature = "mount")]
        Command::Mount(args) => mount::run(args),
        #[cfg(feature = "files")]
        Command::Reader => reader::child(),
        Command::Completions(args) => manual::completions(args.shell),
        Command::Man(args) => manual::pages(&args.dir),
        Command::Open(_) => Err(manual::maps_nothing()),
    }
}

/// `unluks serve`: unlocks first, so that no client can make the server derive keys.
#[cfg(feature = "nbd")]
fn serve_image(args: &mut args::ServeCommand) -> unluks::Result<ExitCode> {
    args.serve.check()?;
    let opened = open::Opened::open_as(&mut args.source, &args.plain, &args.key, args.quiet)?;
    let open::Opened { source, image, .. } = &opened;
    if source.pipe().is_some() {
        return Err(Error::invalid("serve wants an image that can be read at any place, not a pipe"));
    }
    source.print_notes(args.quiet);
    if opened.backup.is_some() && !args.quiet {
        let message = "the image was not compared with the hash that was recorded of it; unluks decrypt compares it";
        let _ = writeln!(anstream::stderr(), "warning: {message}");
    }
    opened.check_data(|_| false)?;
    let unlocked = opened.unlock(&args.key, &args.limits, args.quiet)?;
    let options = unluks::volume::VolumeOptions {
        bad_sectors: args::out::ServedBadSectors::policy(args.bad_sectors),
        ..Default::default()
    };
    let volume = std::sync::Arc::new(opened.volume(&unlocked, options, |_| false)?);
    decrypt::warn(args.quiet, image, &volume);
    let asked = contents::Asked { allow_truncated: args.source.allow_truncated, quiet: args.quiet };
    contents::Seen::look(&opened, &unlocked, &volume, asked)?;
    drop(unlocked);
    let code = serve::serve(&args.serve, std::sync::Arc::<unluks::Volume>::clone(&volume))?;
    let served = decrypt::report_bad_sectors(&volume, "they were served");
    served.map_err(|e| source.named(e))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// No core dump and no debugger may see keys. Both are best effort: an image must open all the same.
fn keep_secrets_in() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// The exit codes that the README documents.
fn code(e: &Error) -> u8 {
    match e.kind() {
        ErrorKind::Io => 1,
        ErrorKind::InvalidInput => 2,
        ErrorKind::WrongKey => 3,
        ErrorKind::Corrupt => 4,
        ErrorKind::Unsupported => 5,
        ErrorKind::LimitExceeded => 6,
        ErrorKind::Cancelled => 130,
    }
}

fn exit_code(e: &Error) -> ExitCode {
    ExitCode::from(code(e))
}
