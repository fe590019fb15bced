//! `unluks verify`: whether images restore, in words, as JSON, as a page and as an exit code.

pub mod attestation;
pub mod batch;
pub mod codes;
pub mod dfxml;
pub mod dsse;
mod facts;
pub mod list;
mod memory;
mod one;
mod open;
mod outputs;
pub mod page;
mod plan;
mod policy;
#[cfg(feature = "files")]
mod proof;
mod shard;
mod text;
pub mod timestamp;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use unluks::progress::Progress;
use unluks::{Error, ErrorKind, Result};

use crate::args::verify::VerifyArgs;
use crate::key;
use crate::progress::ProgressView;
use crate::sign::Signer;
use crate::signals;
use crate::source::is_dash;
use batch::Share;
use codes::Findings;
use memory::Memory;
use one::Wishes;
use outputs::Outputs;

/// Verifies the images; `code` is the exit code of an error.
pub fn run(args: &VerifyArgs, code: impl Fn(&Error) -> u8 + Sync) -> Result<ExitCode> {
    check(args)?;
    let images = images(args)?;
    let share = Share::of(args.fleet.jobs, args.threads, images.len());
    if args.fleet.plan {
        return plan::run(args, &images, share.jobs, code);
    }
    let record = &args.record;
    let signer = record.sign.as_deref().map(|key| Signer::open(key, record.sign_passphrase_file.as_deref()));
    let wishes = Wishes {
        args,
        policy: args.policy.as_deref().map(policy::load).transpose()?,
        #[cfg(feature = "files")]
        proof: proof::load(&args.proof)?,
        signer: signer.transpose()?,
        envelope: record.attestation_key.as_deref().map(dsse::Key::open).transpose()?,
        threads: if args.fleet.batch { Some(share.threads) } else { args.threads },
        memory: Memory::new(args.fleet.batch_memory.unwrap_or_else(half_of_memory)),
        key: Mutex::new(None),
    };
    if args.fleet.batch {
        return batch::run(&wishes, images, share.jobs, &code);
    }
    let mut worst = 0;
    for image in &images {
        let ended = match one(&wishes, image) {
            Ok(code) => code,
            Err(e) if e.kind() == ErrorKind::Cancelled || images.len() == 1 => return Err(e),
            Err(e) => {
                let _ = writeln!(anstream::stderr(), "unluks: {}", crate::hint::line(&e));
                code(&e)
            }
        };
        worst = codes::worse(worst, ended);
    }
    Ok(ExitCode::from(worst))
}

/// Verifies one image of those that are named, and gives its exit code.
fn one(wishes: &Wishes<'_>, image: &std::path::Path) -> Result<u8> {
    let args = wishes.args;
    let outputs = Outputs::begin(args)?;
    let progress = Progress::default();
    signals::stop_by(&progress.cancel_flag())?;
    let view = ProgressView::new(args.progress, args.quiet, None, 0);
    let verified = view.beside(&progress, || wishes.verify(image, outputs, &progress));
    view.finish(progress.bytes());
    let verified = verified?;
    verified.print(args)?;
    Ok(codes::of(verified.report.verdict, Findings::of(args.strict)))
}

/// Refuses files of a record that could not be written.
pub fn check_outputs(args: &VerifyArgs) -> Result<()> {
    Outputs::begin(args).map(drop)
}

/// The images that are ours.
fn images(args: &VerifyArgs) -> Result<Vec<PathBuf>> {
    let mut images = if args.fleet.batch { list::expand(&args.images)? } else { args.images.clone() };
    if let Some(text) = &args.fleet.shard {
        let shard = shard::parse(text, |name| std::env::var(name).ok())?;
        images.retain(|path| shard.has(&path.to_string_lossy()));
    }
    Ok(images)
}

fn check(args: &VerifyArgs) -> Result<()> {
    if args.images.iter().any(|image| is_dash(image)) {
        return Err(Error::invalid("verify wants an image that can be read at any place, not a pipe"));
    }
    key::check(&args.key, false)?;
    if args.fleet.batch && args.fleet.reports.is_none() && !args.fleet.plan {
        return Err(batch::without_reports());
    }
    let record = &args.record;
    let single = [
        ("--tree", args.tree.is_some()),
        ("--compare", args.compare.is_some()),
        ("--expect", !args.expect.is_empty()),
        ("--header", args.header.is_some()),
        ("--files", args.proof.manifest().is_some()),
        ("--report", record.report.is_some()),
        ("--attestation", record.attestation.is_some()),
        ("--dfxml", record.dfxml.is_some()),
        ("--json=FILE", args.json_file().is_some()),
    ];
    let many = args.fleet.batch || args.images.len() > 1;
    if let Some((flag, _)) = single.iter().find(|(_, is_given)| *is_given && many) {
        let and = if args.fleet.batch {
            "and --batch is for many".into()
        } else {
            format!("and {} were named", args.images.len())
        };
        return Err(Error::invalid(format!("{flag} is for one image, {and}")));
    }
    let writes = args.json_file().is_some() || record.writes();
    let flag = [("--sign", record.sign.is_some()), ("--timestamp-query", record.timestamp_query)];
    if let Some((flag, _)) = flag.into_iter().find(|(_, given)| *given && !writes && !args.fleet.batch) {
        let message = format!("{flag} wants a file of the record: --report, --json=FILE, --attestation or --dfxml");
        return Err(Error::invalid(message));
    }
    Ok(())
}

fn half_of_memory() -> u64 {
    let info = rustix::system::sysinfo();
    // On machines of 32 bits these fields are narrower.
    #[allow(clippy::useless_conversion)]
    let total = u64::from(info.totalram);
    total.saturating_mul(info.mem_unit.into()) / 2
}
