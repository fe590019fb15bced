//! The command line.

pub mod examples;
#[cfg(feature = "openstack")]
pub mod fetch;
#[cfg(feature = "files")]
pub mod files;
pub mod manual;
pub mod out;
pub mod plain;
pub mod report;
pub mod scan;
#[cfg(feature = "nbd")]
pub mod serve;
pub mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use unluks::format::Format;
use unluks::locate::{HeaderAt, Unfit};

use crate::time::duration;
#[cfg(feature = "nbd")]
use out::ServedBadSectors;
use out::{OutArgs, PartArgs};

/// Reads LUKS1 and LUKS2 images: no root, no device-mapper, no cryptsetup. The image is never written to.
#[derive(Parser)]
#[command(name = "unluks", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// Whether what is printed has colours: auto has them on a terminal, where NO_COLOR is not set
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", global = true, hide_short_help = true)]
    pub color: When,
    /// With --version: how this program was built, and its own SHA-256
    #[arg(short, long, requires = "version")]
    pub verbose: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Sets what `--color` asks for, before anything is printed.
pub fn color(when: When) {
    match when {
        When::Auto => anstream::ColorChoice::Auto,
        When::Always => anstream::ColorChoice::Always,
        When::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

#[derive(Subcommand)]
// There is one value of it, made once.
#[allow(clippy::large_enum_variant)]
pub enum Command {
    #[command(aliases = ["luksDump", "luksdump", "info", "dump", "isLuks"])]
    Inspect(InspectArgs),
    Decrypt(DecryptArgs),
    Scan(scan::ScanArgs),
    TestKey(TestKeyArgs),
    Verify(verify::VerifyArgs),
    Report(ReportCommand),
    Header(HeaderArgs),
    RestorePlan(RestorePlanArgs),
    #[cfg(feature = "nbd")]
    Serve(ServeCommand),
    #[cfg(feature = "files")]
    Ls(files::LsArgs),
    #[cfg(feature = "files")]
    Cat(files::CatArgs),
    #[cfg(feature = "files")]
    Cp(files::CpArgs),
    #[cfg(feature = "files")]
    Find(files::FindArgs),
    #[cfg(feature = "files")]
    Hash(files::HashArgs),
    #[cfg(feature = "mount")]
    Mount(files::MountArgs),
    #[cfg(feature = "openstack")]
    Fetch(FetchCommand),
    Completions(manual::CompletionsArgs),
    Man(manual::ManArgs),
    /// The process that parses a file system, for the commands that read files: it talks to them alone.
    #[cfg(feature = "files")]
    #[command(hide = true)]
    Reader,
    /// For those who know it from cryptsetup.
    #[command(hide = true, aliases = ["luksOpen", "map"])]
    #[cfg_attr(not(feature = "mount"), command(alias = "mount"))]
    Open(manual::OpenArgs),
}

/// Checks reports of verify, and brings those of many images together
#[derive(Args)]
#[command(after_long_help = examples::REPORT)]
pub struct ReportCommand {
    #[command(subcommand)]
    pub what: report::What,
}

/// Fetches an image and its key from OpenStack into a directory that the other commands take
#[cfg(feature = "openstack")]
#[derive(Args)]
#[command(after_long_help = examples::FETCH)]
pub struct FetchCommand {
    #[command(subcommand)]
    pub what: fetch::What,
}

/// Shows all that a header says, and what is wrong or weak about it
///
/// A key is for --inside and --map alone.
#[derive(Args)]
#[command(after_long_help = examples::INSPECT, override_usage = "unluks inspect [OPTIONS] <IMAGE>...")]
pub struct InspectArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// More images, one after the other
    #[arg(value_name = "IMAGE")]
    pub more: Vec<PathBuf>,
    /// Print JSON (docs/inspect.schema.json describes it): of several images a line each
    #[arg(long)]
    pub json: bool,
    /// Show what is in the plaintext instead, and what is wrong with it
    ///
    /// Without a key, what is in the image as it is. With --json docs/inside.schema.json describes it.
    #[arg(long)]
    pub inside: bool,
    /// Look at every structure, and all data that has checksums, and not at the roots alone
    #[arg(long, requires = "inside")]
    pub full: bool,
    /// Show where the image is zero, text or noise instead
    ///
    /// With a key, where the plaintext is.
    #[arg(long, conflicts_with = "full")]
    pub map: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Writes the plaintext of an image to a file or a pipe
#[derive(Args)]
#[command(after_long_help = examples::DECRYPT)]
pub struct DecryptArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where the plaintext goes; - is the standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub plain: plain::PlainArgs,
    #[command(flatten)]
    pub part: PartArgs,
    #[command(flatten)]
    pub out: OutArgs,
    #[command(flatten)]
    pub record: verify::RecordArgs,
}

/// Writes a copy of the header, which cryptsetup takes as a backup, or the volume key that a passphrase opens
#[derive(Args)]
#[command(after_long_help = examples::HEADER)]
#[command(group = clap::ArgGroup::new("header_output").args(["output", "dump_volume_key"]).required(true).multiple(true))]
pub struct HeaderArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Write header and keyslots to this file, as they are
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the volume key to this file
    ///
    /// Whoever has it reads the data, whatever becomes of the passphrases.
    #[arg(long, value_name = "FILE")]
    pub dump_volume_key: Option<PathBuf>,
    /// Replace a file that is there
    #[arg(long)]
    pub force: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Says whether a key opens images, keyslot by keyslot, and reads none of their data
///
/// Exits with 3 where one stays closed.
#[derive(Args)]
#[command(after_long_help = examples::TEST_KEY)]
pub struct TestKeyArgs {
    /// The images, or directories of backups by unluks fetch
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// Take the header from this file
    #[arg(long, value_name = "FILE")]
    pub header: Option<PathBuf>,
    /// The partition of a whole-disk image, by number, label or UUID
    #[arg(long, value_name = "PART", conflicts_with = "offset")]
    pub partition: Option<String>,
    /// The volume of LVM
    #[arg(long, value_name = "VG/LV", conflicts_with = "offset", hide_short_help = true)]
    pub volume: Option<String>,
    /// Where the LUKS container starts
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub offset: Option<u64>,
    /// Print a line of JSON for each image
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl TestKeyArgs {
    /// One of the images as a source.
    pub fn source(&self, image: &Path) -> SourceArgs {
        SourceArgs {
            image: image.to_owned(),
            header: self.header.clone(),
            partition: self.partition.clone(),
            volume: self.volume.clone(),
            offset: self.offset,
            allow_truncated: true,
            header_alone: true,
            ..SourceArgs::default()
        }
    }
}

/// Prints the openstack commands that bring a backup's secret and image back, and what will stand in the way
#[derive(Args)]
#[command(after_long_help = examples::RESTORE_PLAN)]
pub struct RestorePlanArgs {
    /// The directory of a backup by unluks fetch, or of backups of Cinder
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The cloud of clouds.yaml to restore into [default: what the OS_* variables say]
    #[arg(long, value_name = "NAME")]
    pub cloud: Option<String>,
    /// The backup of a Cinder backup's directory, by its id; without it the newest that is complete is taken
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Make a volume of the image too, also where the backup is not one of a volume
    #[arg(long)]
    pub volume: bool,
    /// Make a volume of this type
    #[arg(long, value_name = "TYPE")]
    pub volume_type: Option<String>,
    /// Do it, through the cloud's API; what was made is deleted again where a later step fails
    #[cfg(feature = "openstack")]
    #[arg(long)]
    pub run: bool,
    /// Say nothing but what was made, and errors
    #[cfg(feature = "openstack")]
    #[arg(short, long, requires = "run")]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[cfg(feature = "openstack")]
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", requires = "run", hide_short_help = true)]
    pub progress: ProgressKind,
}

/// Serves the plaintext of an image over NBD, read-only, and writes it nowhere
#[cfg(feature = "nbd")]
#[derive(Args)]
#[command(after_long_help = examples::SERVE)]
pub struct ServeCommand {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Serve bad sectors, too, and list them at the end; the exit code is 4 then
    ///
    /// They are those that cannot be read, and those whose integrity tag is wrong.
    #[arg(long, value_enum, value_name = "HOW")]
    pub bad_sectors: Option<ServedBadSectors>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub plain: plain::PlainArgs,
    #[command(flatten, next_help_heading = "Server")]
    pub serve: serve::ServeArgs,
}

/// Where the image is.
#[derive(Clone, Default, Args)]
pub struct SourceArgs {
    /// What is done with files of --with that fit nothing: to a verification that is a finding.
    #[arg(skip)]
    pub unfit: Unfit,
    /// No data is read: a partition may be cut off.
    #[arg(skip)]
    pub header_alone: bool,
    /// The image, or the directory of a backup by unluks fetch or Cinder; - is the standard input
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Take the header from this file: a detached header, or a header backup
    ///
    /// A backup stands in for a header that is damaged. It may be the log of an offline reencryption, with the two headers beside it.
    #[arg(long, value_name = "FILE")]
    pub header: Option<PathBuf>,
    /// Take the header of --header also where the image begins with one of another UUID
    #[arg(long, requires = "header", hide_short_help = true)]
    pub force_header: bool,
    /// The container format, where it should not be detected: raw, qcow2, vhd, vhdx, vmdk, ewf, vdi, qed, qcow,
    /// parallels, android-sparse, rbd, aff4
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    pub format: Option<Format>,
    /// The largest disk that a container may declare [default: 1TiB and 1000 times its file, 64TiB at most]
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    pub max_size: Option<u64>,
    /// The partition of a whole-disk image, by number, label or UUID
    ///
    /// Without it the only one with LUKS is taken.
    #[arg(long, value_name = "PART", conflicts_with = "offset")]
    pub partition: Option<String>,
    /// Another disk of the set, of an md array or an LVM volume group over several, or the parent of an image that lies
    /// on top of one; may be repeated, and each has to fit
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub with: Vec<PathBuf>,
    /// The volume of LVM; without it the only one with LUKS is taken
    #[arg(long, value_name = "VG/LV", conflicts_with = "offset", hide_short_help = true)]
    pub volume: Option<String>,
    /// The internal snapshot of a qcow2 image, by name or id, in place of the disk's last state
    #[arg(long, value_name = "NAME|ID", hide_short_help = true)]
    pub snapshot: Option<String>,
    /// The backup of a Cinder backup's directory, by its id; without it the newest that is complete is taken
    #[arg(long, value_name = "ID", hide_short_help = true)]
    pub backup: Option<String>,
    /// Where the LUKS container starts in the image
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub offset: Option<u64>,
    /// Take --offset also in a member of an array or a physical volume of LVM, whose bytes need not go on there
    #[arg(long, requires = "offset", hide_short_help = true)]
    pub force_offset: bool,
    /// ddrescue's mapfile of the image: what it could not read from the medium is an error here, too
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub image_map: Option<PathBuf>,
    /// Take what is there, in whole sectors, when the image or its partition is cut off
    #[arg(long, hide_short_help = true)]
    pub allow_truncated: bool,
    /// Take a LUKS2 header that cryptsetup does not open, without what is damaged in it: keyslots, tokens, configuration,
    /// checksums
    #[arg(long, hide_short_help = true)]
    pub recover: bool,
    /// Take data that cryptsetup would not: segments that are not encrypted, or several, without a reencryption
    #[arg(long, hide_short_help = true)]
    pub allow_foreign_segments: bool,
    /// Where the header is, unless one is named.
    #[arg(skip)]
    pub header_at: HeaderAt,
}

/// Where the key is. In each of these, FILE may be - for the standard input, or /dev/fd/N.
#[derive(Args, Clone, Default)]
#[command(
    next_help_heading = "Key (one of these; with none, a backup's own, a prompt, or the first line of standard input)"
)]
pub struct KeyArgs {
    /// A Barbican secret's payload, as downloaded
    ///
    /// Its lower-case hex is the passphrase, as OpenStack has it.
    #[arg(long, value_name = "FILE", group = "key_source")]
    pub barbican_key: Option<PathBuf>,
    /// A passphrase: the file's bytes as they are
    ///
    /// A newline at the end is part of it, as cryptsetup reads key files.
    #[arg(long, value_name = "FILE", group = "key_source")]
    pub key_file: Option<PathBuf>,
    /// Skip this many bytes of --key-file
    #[arg(long, value_name = "BYTES", requires = "key_file", value_parser = size, hide_short_help = true)]
    pub keyfile_offset: Option<u64>,
    /// Take this many bytes of --key-file
    #[arg(long, value_name = "BYTES", requires = "key_file", value_parser = size, hide_short_help = true)]
    pub keyfile_size: Option<u64>,
    /// A passphrase: the file's first line
    ///
    /// The newline is left out, LF or CRLF.
    #[arg(long, value_name = "FILE", group = "key_source")]
    pub passphrase_file: Option<PathBuf>,
    /// A key saved nobody knows how: tries the usual forms, and says which it was
    ///
    /// As it is, hexlified, without its newline, un-hexed, base64-decoded, as a recovery key, in other encodings, out of JSON
    /// or a table.
    #[arg(long, value_name = "FILE", group = "key_source")]
    pub key: Option<PathBuf>,
    /// The volume key itself, in place of a passphrase: raw, hex, luksDump's text, or a line of dmsetup table --showkeys
    #[arg(long, value_name = "FILE", group = "key_source", hide_short_help = true)]
    pub volume_key_file: Option<PathBuf>,
    /// One more passphrase, taken like --key-file: an unfinished reencryption may want two
    #[arg(long, value_name = "FILE", conflicts_with = "volume_key_file", hide_short_help = true)]
    pub also_key_file: Vec<PathBuf>,
    /// One more passphrase, taken like --passphrase-file
    #[arg(long, value_name = "FILE", conflicts_with = "volume_key_file", hide_short_help = true)]
    pub also_passphrase_file: Vec<PathBuf>,
    /// Try only this keyslot, whatever its priority
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub key_slot: Option<u32>,
}

/// What unlocking may cost.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Limits")]
pub struct LimitArgs {
    /// The most memory that a key derivation may take [default: 4GiB, or three quarters of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    pub max_kdf_memory: Option<u64>,
    /// The time that all key derivations together may take; each is estimated before it starts [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration, hide_short_help = true)]
    pub max_kdf_time: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgressKind {
    /// A bar on a terminal
    Auto,
    /// A line of JSON twice a second
    Json,
    /// Nothing
    None,
}

/// A number of bytes, with a unit of 1024s if one is given: 512, 64K, 4GiB.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err("a number of bytes is wanted, such as 4096, 64K or 4GiB".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "a number of bytes is wanted, such as 4096, 64K or 4GiB".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "it is more than 2^64 bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("4 GiB"), Ok(4 << 30));
        assert!(size("").is_err() && size("4x").is_err() && size("-1").is_err() && size("99999999999T").is_err());
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        assert!(duration("m").is_err());
    }
}
