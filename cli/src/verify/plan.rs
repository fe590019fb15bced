//! What the key derivations of images want, for a scheduler that asks before it runs anything.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use unluks::luks::unlock::cost;
use unluks::{Error, Key, Result, SecretBytes, json};

use super::codes;
use super::memory::wanted;
use super::open::open;
use crate::args::verify::VerifyArgs;
use crate::key;
use crate::source::shown;

/// Bytes that a verification takes beside its key derivation, rounded up.
const BESIDE: u64 = 128 << 20;

#[derive(Serialize)]
struct Plan {
    path: String,
    /// Bytes to read.
    bytes: u64,
    /// Bytes of memory of the largest key derivation.
    kdf_memory_bytes: u64,
    /// The most seconds that one passphrase takes on this machine, for all keyslots.
    kdf_seconds: f64,
    /// Bytes of memory of all of it.
    memory_bytes: u64,
}

/// Prints the plan of each image, and what so many at once want together; `code` is the exit code of an error.
pub fn run(args: &VerifyArgs, images: &[PathBuf], jobs: NonZeroUsize, code: impl Fn(&Error) -> u8) -> Result<ExitCode> {
    let mut worst = 0;
    let mut out = anstream::stdout().lock();
    let mut write = |text: String| writeln!(out, "{text}").map_err(|e| Error::io("writing to the standard output", e));
    let mut most: Vec<u64> = Vec::new();
    for image in images {
        match plan(args, image) {
            Ok(plan) => {
                most.push(plan.kdf_memory_bytes);
                write(if args.json.is_some() { json::compact(&plan)? } else { text(&plan) })?;
            }
            Err(e) => {
                let _ = writeln!(anstream::stderr(), "unluks: {}", crate::hint::line(&e));
                worst = codes::worse(worst, code(&e));
            }
        }
    }
    most.sort_unstable_by(|a, b| b.cmp(a));
    let together = most.iter().take(jobs.get()).fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    if args.json.is_none() && images.len() > 1 {
        let one = mib(most.first().copied().unwrap_or(0).saturating_add(BESIDE));
        let all = mib(together.saturating_add(BESIDE));
        write(format!("memory: {one} MiB one at a time; {all} MiB for {jobs} at once (Slurm: --mem={all}M)"))?;
    }
    Ok(ExitCode::from(worst))
}

fn plan(args: &VerifyArgs, image: &Path) -> Result<Plan> {
    let opened = open(args, image)?;
    let (kdf_memory_bytes, kdf_seconds) = if opened.image.is_unencrypted() {
        (0, 0.0)
    } else {
        let metadata = opened.image.metadata();
        let options = key::options(false, &args.key, &args.limits);
        // The cost of a passphrase is that of any.
        let cost = cost(metadata, &Key::passphrase(SecretBytes::copy_of(b"any")?), &options)?;
        (wanted(metadata), cost.time.as_secs_f64())
    };
    let segments = opened.source.segments.iter().map(|segment| segment.file.len());
    Ok(Plan {
        path: image.to_string_lossy().into_owned(),
        bytes: segments.fold(opened.source.file.len(), u64::saturating_add),
        kdf_memory_bytes,
        kdf_seconds,
        memory_bytes: kdf_memory_bytes.saturating_add(BESIDE),
    })
}

fn text(plan: &Plan) -> String {
    let Plan { path, bytes, kdf_memory_bytes, kdf_seconds, memory_bytes } = plan;
    let (kdf, all) = (mib(*kdf_memory_bytes), mib(*memory_bytes));
    let path = shown(Path::new(path));
    format!("{path}: {bytes} bytes to read; key derivation: {kdf} MiB, {kdf_seconds:.1} s at most; memory: {all} MiB")
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
