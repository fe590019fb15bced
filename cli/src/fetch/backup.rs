//! `unluks fetch backup`.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use unluks::backup::{Backup, DESCRIPTION, KEY_FILE, VolumeInfo};
use unluks::error::{counted, escape};
use unluks::progress::Progress;
use unluks::{Error, Result};
use unluks_openstack::backup::{self, Found, NewBackup};
use unluks_openstack::{Cloud, secret, volume};

use super::{connect, describe, make_dir, write_key};
use crate::args::fetch::BackupArgs;
use crate::args::{KeyArgs, LimitArgs, SourceArgs};
use crate::cinder::{self, Compare};
use crate::open::Opened;
use crate::progress::ProgressView;
use crate::source::shown;

pub fn run(args: &BackupArgs) -> Result<ExitCode> {
    if args.output.join(DESCRIPTION).symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{} holds a backup already", shown(&args.output)))
            .with_hint("name another directory"));
    }
    let progress = Progress::default();
    let cloud = connect(&args.cloud, &progress)?;
    let made = if args.make { Some(make(args, &cloud, &progress)?) } else { None };
    let found = backup::find(&cloud, made.as_deref().unwrap_or(&args.backup))?;
    if !matches!(found.status.as_str(), "available" | "restoring") {
        let message = format!("the backup is {}; available is wanted", escape(&found.status));
        return Err(Error::unsupported("backup.status", message));
    }
    // Before anything is downloaded: data without its key is no use.
    let secret = secret::fetch(&cloud, found.key()?)?;
    make_dir(&args.output)?;
    write_key(&args.output.join(KEY_FILE), &secret)?;
    let objects = objects(args, &cloud, &found, &progress)?;
    let mut description = Backup::new(cloud.description());
    description.key = Some(describe(&secret, KEY_FILE, None));
    description.volume = Some(describe_volume(&cloud, &found));
    description.write(&args.output)?;
    if objects.is_some() {
        check(args, &found, &progress).inspect_err(|_| {
            // A directory with a description is whole; without it, the same command goes on with what is there.
            let _ = fs::remove_file(args.output.join(DESCRIPTION));
        })?;
    }
    say(args, &cloud, &found, objects);
    Ok(ExitCode::SUCCESS)
}

/// Has Cinder make one; gives its id.
fn make(args: &BackupArgs, cloud: &Cloud, progress: &Progress) -> Result<String> {
    let of = volume::find(cloud, args.snapshot.as_deref().unwrap_or(&args.backup))?;
    if args.snapshot.is_some() {
        let volume = volume::find(cloud, &args.backup)?;
        if of.info.snapshot.is_none() || of.info.id != volume.info.id {
            return Err(Error::invalid("the snapshot is none of this volume").with_rule("backup.snapshot"));
        }
    }
    // Before anything is made: data without its key is no use.
    secret::fetch(cloud, &of.key_id)?;
    let tell = |line: &str| {
        if !args.quiet {
            let _ = writeln!(anstream::stderr(), "{line}");
        }
    };
    let name = format!("unluks-{}", of.info.id);
    let new = NewBackup { of: &of, name: &name, incremental: args.incremental, force: args.force };
    new.make(cloud, &progress.cancel_flag(), &tell)
}

/// Compares what was downloaded with Cinder's own hashes, and tries the key on it.
fn check(args: &BackupArgs, found: &Found, progress: &Progress) -> Result<()> {
    let image = args.output.clone();
    let opened = Opened::open(&mut SourceArgs { image, backup: Some(found.id.clone()), ..SourceArgs::default() })?;
    if let Some(chain) = &opened.source.cinder {
        cinder::check(chain, Compare::Blocks, args.progress, args.quiet, &Progress::stopped_with(progress))?;
    }
    opened.unlock(&KeyArgs::default(), &LimitArgs::default(), args.quiet).map(drop)
}

/// Downloads the objects of the volume's backups, where they are ours; gives how many there are.
fn objects(args: &BackupArgs, cloud: &Cloud, found: &Found, progress: &Progress) -> Result<Option<usize>> {
    let Some(container) = found.container.as_deref().filter(|name| !name.contains('/')) else { return Ok(None) };
    let Some(mut objects) = backup::objects(cloud, container, &found.volume)? else { return Ok(None) };
    // Which backups an increment lies over is in the objects alone, but none is younger.
    let all = backup::of_volume(cloud, &found.volume)?;
    let older = all.iter().filter(|other| other.created_at <= found.created_at).map(|other| &other.id);
    let wanted: Vec<&String> = if found.incremental { older.chain([&found.id]).collect() } else { vec![&found.id] };
    objects.retain(|object| wanted.iter().any(|id| object.name.contains(&format!("_backup_{id}"))));
    let bytes = objects.iter().map(|object| object.bytes).sum();
    let view = ProgressView::new(args.progress, args.quiet, Some(bytes), 0);
    let done = view.beside(progress, || {
        objects.iter().try_for_each(|object| backup::download(cloud, container, object, &args.output, progress))
    });
    view.finish(progress.bytes());
    done.map_err(|e| if progress.is_cancelled() { Error::cancelled() } else { e })?;
    Ok(Some(objects.len()).filter(|n| *n > 0))
}

/// The volume, which may be gone.
fn describe_volume(cloud: &Cloud, found: &Found) -> VolumeInfo {
    volume::describe(cloud, &found.volume).unwrap_or_else(|_| VolumeInfo {
        id: found.volume.clone(),
        name: None,
        snapshot: None,
        volume_type: None,
        size: found.size,
        availability_zone: None,
        encryption: None,
    })
}

fn say(args: &BackupArgs, cloud: &Cloud, found: &Found, objects: Option<usize>) {
    if args.quiet {
        return;
    }
    let dir = shown(&args.output);
    let mut err = anstream::stderr();
    let _ = match objects {
        Some(n) => writeln!(err, "the key and {} are in {dir}: unluks decrypt {dir} -o FILE", counted(n, "object")),
        None => {
            let place = found.container.as_deref().map_or("the operator's share".into(), escape);
            writeln!(
                err,
                "the key is in {dir}; the objects are not the project's own ({place}). Copy all whose names have \
                 _backup_ID into {dir}, whatever folders they are in, of these backups, and then: unluks decrypt {dir} \
                 --backup {} -o FILE",
                found.id
            )
        }
    };
    let Ok(all) = backup::of_volume(cloud, &found.volume) else { return };
    for other in all.iter().filter(|other| other.created_at <= found.created_at) {
        let kind = if other.incremental { "incremental" } else { "full" };
        let _ = writeln!(err, "  {}  {}  {kind}", other.id, escape(&other.created_at));
    }
}
