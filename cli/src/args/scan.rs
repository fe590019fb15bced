//! The command line of `unluks scan`.

use std::path::{Path, PathBuf};

use clap::Args;
use unluks::decrypt::Direct;
use unluks::format::Format;

use super::{ProgressKind, SourceArgs, examples, size};

/// Finds LUKS headers anywhere on a damaged disk, and says how to open them; needs no key
#[derive(Args)]
#[command(after_long_help = examples::SCAN)]
pub struct ScanArgs {
    /// The disks: files or block devices; one after the other
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,
    /// The container format, where it should not be detected: raw, qcow2, vhd, vhdx, vmdk, ewf, vdi, qed, qcow,
    /// parallels, android-sparse, rbd, aff4
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    pub format: Option<Format>,
    /// The largest disk that a container may declare [default: 1TiB and 1000 times its file, 64TiB at most]
    #[arg(long, value_name = "SIZE", value_parser = size, hide_short_help = true)]
    pub max_size: Option<u64>,
    /// Another disk of the set, with an md array or an LVM volume group over several; may be repeated
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub with: Vec<PathBuf>,
    /// Print JSON (docs/scan.schema.json describes it): of several disks a line each
    #[arg(long)]
    pub json: bool,
    /// Show where the disk is zero, text or noise, too
    #[arg(long, conflicts_with = "json")]
    pub map: bool,
    /// How many threads read [default: as many as the machine has cores, 4 at most]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Say nothing but what was found, and errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
}

impl ScanArgs {
    /// One of the whole disks as a source.
    pub fn source(&self, image: &Path) -> SourceArgs {
        SourceArgs {
            image: image.to_owned(),
            format: self.format,
            max_size: self.max_size,
            with: self.with.clone(),
            ..SourceArgs::default()
        }
    }

    /// Whether what was read leaves the page cache: it does where it would fill it.
    pub fn drops_behind(&self, len: u64) -> bool {
        Direct::Auto.drops_behind(len)
    }
}
