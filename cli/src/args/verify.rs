//! The command line of `unluks verify`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use unluks::format::Format;
use unluks::verify::MustBe;

use super::{KeyArgs, LimitArgs, ProgressKind, SourceArgs, size};

/// Reads all of an image once and says whether a restore would bring back what was there: exits with 0 where it would,
/// with 3 where the key is wrong, and with 4 where it would not
#[derive(Args)]
pub struct VerifyArgs {
    /// The images, or directories of backups by unluks fetch; one after the other
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// Take the header from this file
    #[arg(long, value_name = "FILE")]
    pub header: Option<PathBuf>,
    /// The container format, where it should not be detected
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The largest disk that a container may declare
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// The partition, by number, label or UUID
    #[arg(long, value_name = "N|LABEL|UUID", conflicts_with = "offset")]
    pub partition: Option<String>,
    /// Another disk of the set, or the parent of an image that lies on top of one; may be repeated
    #[arg(long, value_name = "FILE")]
    pub with: Vec<PathBuf>,
    /// The volume of LVM
    #[arg(long, value_name = "VG/LV", conflicts_with = "offset")]
    pub volume: Option<String>,
    /// The backup of a Cinder backup's directory, by its id; without it the newest that is complete is taken
    #[arg(long, value_name = "ID")]
    pub backup: Option<String>,
    /// Where the LUKS container starts
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub offset: Option<u64>,
    /// The hash that the image must have, such as sha256:HEX; plaintext:sha256:HEX is the plaintext's. A backup's own is
    /// compared in any case
    #[arg(long, value_name = "[OF:]NAME:HEX")]
    pub expect: Vec<String>,
    /// What must be in the plaintext, on one of its partitions or volumes at least: any, ext, ext4, xfs, btrfs, fat, ntfs,
    /// swap, gpt, lvm …
    #[arg(long, value_name = "KIND")]
    pub must_be: Option<MustBe>,
    /// Compare with the plaintext as it was: a file of it, or one that --tree wrote; says where the two differ
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Write the hashes of each MiB of plaintext to this file, for --compare
    #[arg(long, value_name = "FILE")]
    pub tree: Option<PathBuf>,
    /// Replace a file of --tree that is there
    #[arg(long, requires = "tree")]
    pub force: bool,
    /// Hash plaintext and image on the way, as decrypt does; the plaintext's sha256 is always made
    #[arg(long, value_name = "[OF:]NAME")]
    pub hash: Vec<String>,
    /// Look at the contents at their roots alone: the only level that there is yet
    #[arg(long)]
    pub quick: bool,
    /// Exit with 7 where it restores, but there are findings
    #[arg(long)]
    pub strict: bool,
    /// Print a line of JSON for each image (docs/verify.schema.json describes it)
    #[arg(long)]
    pub json: bool,
    /// How many threads decrypt [default: as many as the machine has cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Say nothing but the verdict, and errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW")]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

impl VerifyArgs {
    /// One of the images as a source.
    pub fn source(&self, image: &Path) -> SourceArgs {
        SourceArgs {
            image: image.to_owned(),
            header: self.header.clone(),
            format: self.format,
            max_size: self.max_size,
            partition: self.partition.clone(),
            with: self.with.clone(),
            volume: self.volume.clone(),
            backup: self.backup.clone(),
            offset: self.offset,
            ..SourceArgs::default()
        }
    }
}
