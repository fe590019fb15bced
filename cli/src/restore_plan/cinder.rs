//! What brings a backup of Cinder back: the service does it itself, onto a volume that has to be there and right.

use std::fmt::Write as _;

use unluks::ReadAt;
use unluks::backup::plan::wait_line;
use unluks::cinder::Tree;
use unluks::error::escape;
use unluks::{Error, Result};

use super::Command;
use crate::args::RestorePlanArgs;
use crate::quote::{client, operand, preamble};
use crate::source::WithinFile;

const GIB: u64 = 1 << 30;

/// The commands in their order, with what stands in the way before them.
pub fn script(args: &RestorePlanArgs) -> Result<String> {
    #[cfg(feature = "openstack")]
    if args.run {
        let message = "--run restores what unluks fetch brought; Cinder restores its own backups, as the plan says";
        return Err(Error::invalid(message).within_file(&args.dir));
    }
    let within = |e: Error| e.within_file(&args.dir);
    let tree = Tree::open(&args.dir).map_err(within)?;
    let backup = tree.choose(args.backup.as_deref()).map_err(within)?;
    // One that is not whole would not come back.
    let size = tree.chain(backup).map_err(within)?.len().div_ceil(GIB).max(1);
    let cloud = args.cloud.as_deref();
    let name = format!("restored-{}", backup.volume_name.as_deref().unwrap_or(&backup.volume));

    let mut out = String::from("#!/bin/sh\n");
    let (id, volume, made) = (escape(&backup.id), escape(&backup.volume), escape(&backup.created_at));
    let _ = writeln!(out, "# Brings back the backup {id} of volume {volume}, made {made}, onto a new volume.");
    out += "#\n# What stands in the way, or comes back different:\n";
    for note in [
        "the cloud has to know the backup, and its objects have to lie where its backup service looks for them",
        "an encrypted volume wants the very same volume type as it had: VOLUME_TYPE names it; onto a volume that Cinder \
         makes by itself, the restore of one that is not the default type ends in error_restoring",
        "the backup has a key of its own in Barbican, which has to be there; unluks fetch backup fetches it",
        "a backup of a volume in use is as after a loss of power: crash-consistent, not app-consistent",
        "onto a volume that is there already, the same command works, and what the volume holds is gone",
    ] {
        let _ = writeln!(out, "# - {note}");
    }
    out += "set -eu\n\n";

    let mut create = Command::new(cloud, "volume create -f value -c id")?;
    match &args.volume_type {
        Some(name) => create.flag("--type", name)?,
        None => create.push("--type \"${VOLUME_TYPE:?the type of the volume that the backup is of}\""),
    }
    create.push(format!("--size {size}"));
    create.push(operand(&name)?);
    let mut restore = Command::new(cloud, "volume backup restore --force")?;
    restore.push(format!("{} \"$volume_id\" >/dev/null", operand(&backup.id)?));
    let wait = wait_line(&client(cloud)?, "volume", "\"$volume_id\"", "available");
    let commands = format!(
        "volume_id=$({})\n{wait}\n\n{}\n{wait}\n\nprintf '%s\\n' \"volume $volume_id\"\n",
        create.text(),
        restore.text()
    );
    if let Some(preamble) = preamble(&commands) {
        let _ = writeln!(out, "{preamble}\n");
    }
    Ok(out + &commands)
}
