//! `unluks restore-plan`: what brings a backup back into a cloud, as a script for the openstack client.

mod cinder;
#[cfg(feature = "openstack")]
mod restore;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use unluks::backup::plan::{Plan, PlanOptions};
use unluks::backup::{Backup, BackupDir};
use unluks::cinder::is_tree;
use unluks::error::escape;
use unluks::{Error, Result};

use crate::args::RestorePlanArgs;
use crate::quote::{client, comment, flag, operand, path, preamble};
use crate::source::WithinFile;
use crate::terminal;

pub fn run(args: &RestorePlanArgs) -> Result<ExitCode> {
    if args.dir.is_dir() && is_tree(&args.dir) {
        return print(&cinder::script(args)?);
    }
    if args.backup.is_some() {
        let message = "--backup chooses one of a directory of Cinder backups, and this is none";
        return Err(Error::invalid(message).within_file(&args.dir));
    }
    let dir = BackupDir::open(&args.dir)?;
    let options = PlanOptions { volume: args.volume, volume_type: args.volume_type.clone() };
    let plan = Plan::new(&dir, &options)?;
    #[cfg(feature = "openstack")]
    if args.run {
        return restore::run(args, &dir, &plan);
    }
    print(&script(&dir, &plan, args.cloud.as_deref())?)
}

fn print(script: &str) -> Result<ExitCode> {
    terminal::print_script(script).map(|()| ExitCode::SUCCESS)
}

/// A command of several parts, each on a line of its own.
struct Command(Vec<String>);

impl Command {
    fn new(cloud: Option<&str>, what: &str) -> Result<Self> {
        Ok(Self(vec![format!("{} {what}", client(cloud)?)]))
    }

    fn push(&mut self, part: impl Into<String>) {
        self.0.push(part.into());
    }

    fn flag(&mut self, name: &str, value: &str) -> Result<()> {
        self.push(flag(name, value)?);
        Ok(())
    }

    fn text(&self) -> String {
        self.0.join(" \\\n    ")
    }
}

/// The commands in their order, with all that stands in the way before them.
fn script(dir: &BackupDir, plan: &Plan, cloud: Option<&str>) -> Result<String> {
    let mut out = heading(&dir.backup, dir.path());
    if !plan.notes.is_empty() {
        out += "#\n# What stands in the way, or comes back different:\n";
    }
    for note in &plan.notes {
        let _ = writeln!(out, "# - {}: {}", note.rule, comment(&note.message));
    }
    out += "set -eu\n\n";
    let commands = commands(dir, plan, cloud)?;
    if let Some(preamble) = preamble(&commands) {
        let _ = writeln!(out, "{preamble}\n");
    }
    Ok(out + &commands)
}

fn commands(dir: &BackupDir, plan: &Plan, cloud: Option<&str>) -> Result<String> {
    let mut out = String::new();
    if let Some(command) = secret(dir, plan, cloud)? {
        let _ = writeln!(out, "secret_href=$({})\nsecret_id=${{secret_href##*/}}\n", command.text());
    }
    let _ = writeln!(out, "image_id=$({})\n", image(dir, plan, cloud)?.text());
    out += &compare(&dir.backup, cloud)?;
    if plan.image.protected {
        let _ = writeln!(out, "{}", Command::new(cloud, "image set --protected \"$image_id\"")?.text());
    }
    let volume = volume(plan, cloud)?.text();
    if plan.volume_wanted {
        let _ = writeln!(out, "\nvolume_id=$({volume})");
    } else if plan.secret.is_some() {
        out += "\n# A volume of it, where one is wanted (--volume puts it here as a command):\n";
        for line in volume.lines() {
            let _ = writeln!(out, "#   {}", comment(line));
        }
    }
    // Not echo, which some shells let obey backslashes.
    out += "printf '%s\\n' \"image $image_id";
    if plan.secret.is_some() {
        out += " secret $secret_id";
    }
    if plan.volume_wanted {
        out += " volume $volume_id";
    }
    out += "\"\n";
    Ok(out)
}

fn heading(backup: &Backup, dir: &Path) -> String {
    let mut out = String::from("#!/bin/sh\n");
    let shown = |text: &Option<String>| text.as_deref().map_or("unknown".into(), escape);
    if let Some(image) = &backup.image {
        let _ = writeln!(out, "# Brings back the image {} ({}).", shown(&image.name), escape(&image.id));
    }
    let (name, region) = (shown(&backup.cloud.name), shown(&backup.cloud.region));
    let dir = escape(&dir.display().to_string());
    let _ =
        writeln!(out, "# Fetched {} from the cloud {name}, region {region}, into {dir}.", escape(&backup.fetched_at));
    out
}

/// `openstack secret store`. With `--file` and no content type the client sends the bytes as they are, so that the key
/// is in no argument and no variable.
fn secret(dir: &BackupDir, plan: &Plan, cloud: Option<&str>) -> Result<Option<Command>> {
    let (Some(secret), Some(key)) = (&plan.secret, dir.key_path()) else { return Ok(None) };
    let mut c = Command::new(cloud, "secret store -f value -c 'Secret href'")?;
    c.flag("--secret-type", &secret.secret_type)?;
    for (name, value) in [("--name", &secret.name), ("--algorithm", &secret.algorithm), ("--mode", &secret.mode)] {
        if let Some(value) = value {
            c.flag(name, value)?;
        }
    }
    if let Some(bits) = secret.bit_length {
        c.flag("--bit-length", &bits.to_string())?;
    }
    if let Some(expiration) = &secret.expiration {
        c.flag("--expiration", expiration)?;
    }
    // Text has to be said: bytes are what the client takes a file for.
    if secret.content_type.as_deref().is_some_and(|t| t.starts_with("text/plain")) {
        c.flag("--payload-content-type", "text/plain")?;
    }
    c.push(format!("--file {}", path(&key)));
    Ok(Some(c))
}

fn image(dir: &BackupDir, plan: &Plan, cloud: Option<&str>) -> Result<Command> {
    let image = &plan.image;
    let data = dir.data_path().ok_or_else(|| Error::invalid("the backup holds no image"))?;
    let mut c = Command::new(cloud, &format!("image create -f value -c id --{}", image.visibility))?;
    c.flag("--disk-format", &image.disk_format)?;
    c.flag("--container-format", &image.container_format)?;
    c.push(format!("--min-disk {} --min-ram {}", image.min_disk, image.min_ram));
    for tag in &image.tags {
        c.flag("--tag", tag)?;
    }
    for name in &image.key_properties {
        // The variable is an id, which wants no quotes of its own.
        c.push(format!("{}\"$secret_id\"", flag("--property", &format!("{name}="))?));
    }
    for (name, value) in &image.properties {
        c.flag("--property", &format!("{name}={value}"))?;
    }
    c.push(format!("--file {}", path(&data)));
    c.push(operand(&image.name)?);
    Ok(c)
}

/// What the cloud has now is what it had then.
fn compare(backup: &Backup, cloud: Option<&str>) -> Result<String> {
    let Some(image) = &backup.image else { return Ok(String::new()) };
    let show = |what: &str| Ok::<_, Error>(Command::new(cloud, &format!("image show {what} \"$image_id\""))?.text());
    let test = match (&image.os_hash_value, &image.checksum) {
        (Some(hex), _) => format!("{} | grep -q {hex}", show("-f json -c properties")?),
        (None, Some(hex)) => format!("test \"$({})\" = {hex}", show("-f value -c checksum")?),
        (None, None) => return Ok(String::new()),
    };
    let complaint = "image $image_id: its hash is not the one that was recorded";
    Ok(format!("{test} ||\n    {{ printf '%s\\n' \"{complaint}\" >&2; exit 1; }}\n"))
}

fn volume(plan: &Plan, cloud: Option<&str>) -> Result<Command> {
    let volume = &plan.volume;
    let mut c = Command::new(cloud, "volume create -f value -c id --image \"$image_id\"")?;
    match &volume.volume_type {
        Some(name) => c.flag("--type", name)?,
        None if plan.secret.is_some() => {
            c.push("--type \"${VOLUME_TYPE:?the name of a volume type that is encrypted by LUKS}\"")
        }
        None => {}
    }
    c.push(format!("--size {}", volume.size));
    c.push(operand(&volume.name)?);
    Ok(c)
}
