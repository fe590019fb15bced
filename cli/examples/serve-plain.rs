//! Serves a file as it is over NBD: the library's server over the simplest source there is.
//!
//! ```text
//! cargo run --example serve-plain -- disk.img --run 'nbdinfo "$uri"'
//! cargo run --example serve-plain -- disk.img --listen 127.0.0.1:10809
//! nbdinfo -- [ target/debug/examples/serve-plain disk.img ]
//! ```
//!
//! It takes the same flags as `unluks serve`. Any [`unluks::ReadAt`] can stand in place of the file.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use unluks::io::FileSource;

#[path = "../src/args"]
mod args {
    pub mod serve;
}
#[path = "../src/serve.rs"]
mod serve;
#[path = "../src/signals.rs"]
#[allow(dead_code)]
mod signals;
#[path = "../src/time.rs"]
mod time;

/// Serve a file as it is over NBD, read-only
#[derive(Parser)]
struct Args {
    /// The file or block device to serve
    file: PathBuf,
    #[command(flatten)]
    serve: args::serve::ServeArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = args
        .serve
        .check()
        .and_then(|()| FileSource::open(&args.file))
        .and_then(|source| serve::serve(&args.serve, Arc::new(source)));
    match outcome {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(e) => {
            eprintln!("serve-plain: {e}");
            ExitCode::FAILURE
        }
    }
}
