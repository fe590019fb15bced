//! The flags that say what is written, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use unluks::decrypt::output::OutputOptions;
use unluks::decrypt::{Direct, Sparse};
use unluks::volume::BadSectorPolicy;

use super::{ProgressKind, When, size};

/// Which part, and of what.
#[derive(Args)]
#[command(next_help_heading = "Part")]
pub struct PartArgs {
    /// Leave out this many bytes of plaintext at the start
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub skip: Option<u64>,
    /// Write this many bytes of plaintext
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub length: Option<u64>,
    /// Go on at bad sectors, and list them; the exit code is 4 all the same
    ///
    /// They are those that cannot be read, and those whose integrity tag is wrong.
    #[arg(long, value_enum, value_name = "HOW")]
    pub bad_sectors: Option<BadSectors>,
}

impl PartArgs {
    /// Whether the part ends within `len` bytes of plaintext.
    pub fn is_within(&self, len: u64) -> bool {
        let end = self.length.and_then(|length| length.checked_add(self.skip.unwrap_or(0)));
        end.is_some_and(|end| end <= len)
    }
}

/// What becomes of sectors that cannot be read, or whose integrity tag is wrong.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BadSectors {
    /// They are zeroes in the output
    Zero,
    /// They are left out: a hole in a file, what was there before on a block device, zeroes in a pipe
    Skip,
    /// They are decrypted all the same, and may be anything; of what cannot be read, the rest of its sector is right
    Report,
}

impl BadSectors {
    pub fn policy(how: Option<Self>) -> BadSectorPolicy {
        match how {
            None => BadSectorPolicy::Refuse,
            Some(Self::Zero) => BadSectorPolicy::Zero,
            Some(Self::Skip) => BadSectorPolicy::Skip,
            Some(Self::Report) => BadSectorPolicy::Report,
        }
    }
}

/// What clients read of sectors that cannot be read, or whose integrity tag is wrong.
#[cfg(feature = "nbd")]
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ServedBadSectors {
    /// Clients read zeroes
    Zero,
    /// Clients read what they decrypt to, which may be anything
    Report,
}

#[cfg(feature = "nbd")]
impl ServedBadSectors {
    pub fn policy(how: Option<Self>) -> BadSectorPolicy {
        match how {
            None => BadSectorPolicy::Refuse,
            Some(Self::Zero) => BadSectorPolicy::Zero,
            Some(Self::Report) => BadSectorPolicy::Report,
        }
    }
}

/// How the output is written.
#[derive(Args)]
#[command(next_help_heading = "Output")]
pub struct OutArgs {
    /// Replace an output file that is there, finished or not
    #[arg(long)]
    pub force: bool,
    /// Resume an output that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// Whether zeroes in the plaintext become holes in the output file
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", hide_short_help = true)]
    pub sparse: When,
    /// Whether the output passes by the page cache; auto drops it from there if it is more than half the memory
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", hide_short_help = true)]
    pub direct: When,
    /// Do not wait until the output is on the disk: faster, but after a power cut it may look whole and not be
    #[arg(long, conflicts_with = "resume", hide_short_help = true)]
    pub no_sync: bool,
    /// Hash plaintext and image on the way, such as sha256
    ///
    /// Or md5, sha1, sha512, sha3-256, blake2b, blake3 or another; plaintext:NAME or image:NAME is for one of the two.
    #[arg(long, value_name = "[OF:]NAME")]
    pub hash: Vec<String>,
    /// Write the hashes to this file, in the format of sha256sum
    #[arg(long, value_name = "FILE", requires = "hash", hide_short_help = true)]
    pub hash_file: Option<PathBuf>,
    /// Write a mapfile as ddrescue has it of the plaintext: which bytes of it are right, and which are bad sectors
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub map: Option<PathBuf>,
    /// Do not compare a backup's image with the hash that was recorded when it was fetched
    #[arg(long, hide_short_help = true)]
    pub no_compare: bool,
    /// How many threads decrypt [default: as many as the machine has cores]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub threads: Option<std::num::NonZeroUsize>,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
}

impl OutArgs {
    pub fn direct(&self) -> Direct {
        match self.direct {
            When::Auto => Direct::Auto,
            When::Always => Direct::Always,
            When::Never => Direct::Never,
        }
    }

    pub fn options(&self) -> OutputOptions {
        OutputOptions {
            force: self.force,
            resume: self.resume,
            sparse: if self.sparse == When::Never { Sparse::Never } else { Sparse::Auto },
            direct: self.direct(),
            no_sync: self.no_sync,
            about: 0,
        }
    }
}
