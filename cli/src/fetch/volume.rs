//! `unluks fetch volume`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use unluks::backup::{Backup, KEY_FILE};
use unluks::files::{Existing, write_whole};
use unluks::progress::Progress;
use unluks::{Error, ErrorKind, Result};
use unluks_openstack::secret::{self, Secret};
use unluks_openstack::steps::{self, Resource, ResourceKind, roll_back, with_remains};
use unluks_openstack::volume::{Found, find};
use unluks_openstack::{Cloud, Options, Service};

use super::{catch_signals, connect, describe, image, make_dir, write_key};
use crate::args::fetch::{ImageArgs, VolumeArgs};
use crate::quote;
use crate::terminal;

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
        for other in unluks_openstack::backup::of_volume(&cloud, &found.info.id).unwrap_or_default() {
            let kind = if other.incremental { "an incremental" } else { "a full" };
            let key =
                other.key_id.as_deref().map_or("no key".into(), |id| format!("the key {}", unluks::error::escape(id)));
            let made = unluks::error::escape(&other.created_at);
            let line =
                format!("there is {kind} backup {} of it, made {made}, with {key}: unluks fetch backup", other.id);
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    }
    if !args.quiet {
        let _ =
            writeln!(anstream::stderr(), "the key is there; the data becomes an image by --make-image, or by hand:");
    }
    let name = args.cloud.cloud.as_deref();
    let client = quote::client(name)?;
    let cloud = match name {
        Some(name) => format!(" {}", quote::flag("--cloud", name)?),
        None => String::new(),
    };
    let steps = found.steps(&client, &format!("unluks fetch image{cloud} --output DIR")).join("\n") + "\n";
    terminal::print_script(&steps).map(|()| ExitCode::SUCCESS)
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
    let kept = Kept::read(&args.output, &found)?;
    let mut made: Vec<Resource> = Vec::new();
    let image = match kept.as_ref().filter(|kept| is_there(&maker, &kept.image)) {
        Some(kept) => {
            tell(&format!("image {}: an earlier run made it, and its download is gone on with", kept.image));
            made.push(Resource { kind: ResourceKind::Image, id: kept.image.clone() });
            Ok(kept.image.clone())
        }
        None => found.make_image(&maker, &mut made, &progress.cancel_flag(), &tell),
    };
    let fetched = image.and_then(|image| {
        image_args.image = image;
        image::fetch(&image_args, &reader, &progress, Some(found.info.clone()))
    });
    let keep = fetched.is_err() && !args.no_ciphertext && has_part(&args.output);
    let image =
        made.iter().position(|made| made.kind == ResourceKind::Image).filter(|_| keep).map(|at| made.remove(at));
    if let Some(image) = &image {
        Kept { volume: found.info.id.clone(), snapshot: found.info.snapshot.clone(), image: image.id.clone() }
            .write(&args.output)?;
        // Said last, where it is seen: the error's own line follows.
        tell(&format!(
            "image {} is kept, for the same command to go on with; or delete it: {}",
            image.id,
            image.delete_command()
        ));
    } else {
        Kept::remove(&args.output);
    }
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

/// The image that a run which was stopped had made, in the backup's directory beside what came of it.
#[derive(Serialize, Deserialize)]
struct Kept {
    volume: String,
    snapshot: Option<String>,
    image: String,
}

impl Kept {
    const FILE: &str = ".image.unluks-fetch";

    /// The one of the same volume and snapshot; another's is passed over.
    fn read(dir: &Path, found: &Found) -> Result<Option<Self>> {
        let mut json = Vec::new();
        match File::open(dir.join(Self::FILE)) {
            Ok(file) => file.take(1 << 16).read_to_end(&mut json).map_err(|e| Error::io("reading what is kept", e))?,
            Err(_) => return Ok(None),
        };
        let kept: Option<Self> = serde_json::from_slice(&json).ok();
        let same = |kept: &Self| {
            kept.volume == found.info.id && kept.snapshot == found.info.snapshot && steps::is_id(&kept.image)
        };
        Ok(kept.filter(same))
    }

    fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).map_err(|e| Error::invalid(e.to_string()))?;
        write_whole(&dir.join(Self::FILE), &json, Existing::Replace)
    }

    fn remove(dir: &Path) {
        let _ = std::fs::remove_file(dir.join(Self::FILE));
    }
}

/// Whether an earlier run's image can still be downloaded.
fn is_there(cloud: &Cloud, image: &str) -> bool {
    let answer = steps::get(cloud, Service::Image, &ResourceKind::Image.path(image));
    answer
        .and_then(|answer| answer.success("looking at the image"))
        .is_ok_and(|json| steps::text(&json, "/status") == "active")
}

/// Whether there are bytes of an image that a download can go on with.
fn has_part(dir: &Path) -> bool {
    let of = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let part = entry.file_name().to_string_lossy().ends_with(".unluks-part");
        (part && entry.metadata().ok()?.len() > 0).then_some(())
    };
    std::fs::read_dir(dir).is_ok_and(|entries| entries.into_iter().any(|entry| of(entry).is_some()))
}
