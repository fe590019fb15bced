//! `unluks fetch volume`.

use std::io::Write;
use std::process::ExitCode;

use unluks::backup::{Backup, KEY_FILE};
use unluks::progress::Progress;
use unluks::{Error, ErrorKind, Result};
use unluks_openstack::secret::{self, Secret};
use unluks_openstack::steps::{Resource, roll_back, with_remains};
use unluks_openstack::volume::{Found, find};
use unluks_openstack::{Cloud, Options};

use super::{catch_signals, connect, describe, image, make_dir, write_key};
use crate::args::fetch::{ImageArgs, VolumeArgs};
use crate::quote;

pub fn run(args: &VolumeArgs) -> Result<ExitCode> {
    let image_args = image_args(args);
    image::refuse_what_is_there(&image_args)?;
    if args.make_image { with_image(args, image_args) } else { key_alone(args) }
}

/// What is left to do when there is an image.
fn image_args(args: &VolumeArgs) -> ImageArgs {
    ImageArgs {
        image: String::new(),
        output: args.output.clone(),
        decrypt: args.decrypt.clone(),
        no_ciphertext: args.no_ciphertext,
        no_key: false,
        force: args.force,
        cloud: args.cloud.clone(),
        limits: args.limits.clone(),
        quiet: args.quiet,
        progress: args.progress,
    }
}

fn look(args: &VolumeArgs, cloud: &Cloud) -> Result<(Found, Secret)> {
    let found = find(cloud, &args.volume)?;
    // Before anything is made: data without its key is no use.
    let secret = secret::fetch(cloud, &found.key_id)?;
    Ok((found, secret))
}

/// The key, the description, and the steps that lead to the data.
fn key_alone(args: &VolumeArgs) -> Result<ExitCode> {
    let progress = Progress::default();
    let cloud = connect(&args.cloud, &progress)?;
    let (found, secret) = look(args, &cloud)?;
    make_dir(&args.output)?;
    write_key(&args.output.join(KEY_FILE), &secret)?;
    let mut backup = Backup::new(cloud.description());
    backup.key = Some(describe(&secret, KEY_FILE, None));
    backup.volume = Some(found.info.clone());
    backup.write(&args.output)?;
    if !args.quiet {
        let _ =
            writeln!(anstream::stderr(), "the key is there; the data becomes an image by --make-image, or by hand:");
    }
    let name = args.cloud.cloud.as_deref();
    let client = match name {
        Some(name) => format!("openstack {}", quote::flag("--os-cloud", name)?),
        None => "openstack".into(),
    };
    let mut steps = found.steps(&client).join("\n");
    let cloud = match name {
        Some(name) => format!(" {}", quote::flag("--cloud", name)?),
        None => String::new(),
    };
    steps += &format!("\nunluks fetch image{cloud} {} --output DIR\n", Found::IMAGE_NAME);
    std::io::stdout().write_all(steps.as_bytes()).map_err(|e| Error::io("printing the steps", e))?;
    Ok(ExitCode::SUCCESS)
}

/// All of it: an image is made, fetched, and deleted again with what it was made by.
fn with_image(args: &VolumeArgs, mut image_args: ImageArgs) -> Result<ExitCode> {
    let progress = Progress::default();
    let abort = catch_signals(&progress)?;
    let connect =
        |cancelled| Cloud::connect(Options { name: args.cloud.cloud.clone(), retries: args.cloud.retries, cancelled });
    // The one is stopped by the first signal, the other, which changes things, by the second.
    let (reader, maker) = (connect(progress.cancel_flag())?, connect(std::sync::Arc::clone(&abort))?);
    let (found, secret) = look(args, &reader)?;
    drop(secret);
    let tell = |line: &str| {
        if !args.quiet {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    };
    let mut made: Vec<Resource> = Vec::new();
    let fetched = found.make_image(&maker, &mut made, &progress.cancel_flag(), &tell).and_then(|image| {
        image_args.image = image;
        image::fetch(&image_args, &reader, &progress, Some(found.info.clone()))
    });
    let remain = roll_back(&maker, &made, &abort);
    match (fetched, remain.is_empty()) {
        (Ok(code), true) => Ok(code),
        (Ok(_), false) => {
            let whole = Error::new(ErrorKind::Io, "the backup is whole, but the cloud is not as it was")
                .with_rule("volume.remains");
            Err(with_remains(whole, &made, &remain))
        }
        (Err(e), _) => Err(with_remains(e, &made, &remain)),
    }
}
