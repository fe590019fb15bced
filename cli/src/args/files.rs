//! The command line of `unluks ls`, `cat`, `cp`, `find`, `hash` and `mount`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::plain::PlainArgs;
use super::{KeyArgs, LimitArgs, SourceArgs, examples};

/// What all of them share: an image that is encrypted is unlocked, and one that is not is read as it is.
#[derive(Args)]
pub struct InsideArgs {
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    #[command(flatten)]
    pub plain: PlainArgs,
}

/// Lists files in an image, encrypted or not: of ext2/3/4, XFS, btrfs, FAT, exFAT and NTFS, with nothing mounted
#[derive(Args)]
#[command(after_long_help = examples::LS)]
pub struct LsArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The file or directory
    ///
    /// Where there are several file systems, it begins with a partition's number or VG/LV.
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
    /// Show mode, owner, group, size, time in UTC, and where links lead
    #[arg(short, long)]
    pub long: bool,
    /// Read each file, and show this hash of it
    #[arg(long, value_enum, value_name = "NAME")]
    pub hash: Option<HashName>,
    /// Show extended attributes, below each file and as getfattr writes them (ext2, ext3 and ext4)
    #[arg(long, hide_short_help = true)]
    pub xattrs: bool,
    /// Print a line of JSON for each file (docs/files.schema.json describes it)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub inside: InsideArgs,
}

/// Writes files of an image to the standard output
#[derive(Args)]
#[command(after_long_help = examples::CAT)]
pub struct CatArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The files
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub inside: InsideArgs,
}

/// Copies files out of an image: nothing is written outside of DEST, and no link there is followed
///
/// What is no regular file or directory is left out, and said. What cannot be read is said by name, the rest is copied, and
/// the exit code is 4.
#[derive(Args)]
#[command(after_long_help = examples::CP)]
pub struct CpArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The files, and where they go: a directory that is there, or a name that is not
    #[arg(value_name = "PATH... DEST", required = true, num_args = 2..)]
    pub paths: Vec<OsString>,
    /// Copy directories with all that is in them
    #[arg(short, long, visible_short_alias = 'R')]
    pub recursive: bool,
    /// Keep permissions and times
    ///
    /// Not set-user-ID and the like. Otherwise files have mode 0600, directories 0700.
    #[arg(short, long)]
    pub preserve: bool,
    /// Make the symbolic links, wherever they lead; otherwise they are left out
    #[arg(long)]
    pub links: bool,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub inside: InsideArgs,
}

impl CpArgs {
    /// What is copied, and where to.
    pub fn ends(&self) -> (&[OsString], PathBuf) {
        match self.paths.split_last() {
            Some((to, from)) => (from, to.into()),
            None => (&[], PathBuf::new()),
        }
    }
}

/// Prints the paths of files in an image that have a name, a kind, or any
#[derive(Args)]
#[command(after_long_help = examples::FIND)]
pub struct FindArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where to begin; all file systems of the image without it
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,
    /// Only names that this fits: * is any text, ? one character, [a-z] one of these, and \\ takes the next as it is
    #[arg(long, value_name = "GLOB")]
    pub name: Option<OsString>,
    /// Only files, directories, or links
    #[arg(long = "kind", value_enum, value_name = "f|d|l", hide_possible_values = true)]
    pub only: Option<FindKind>,
    /// End each path with a NUL instead of a newline
    #[arg(short = '0', long, conflicts_with = "json")]
    pub print0: bool,
    /// Print a line of JSON for each file (docs/files.schema.json describes it)
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub inside: InsideArgs,
}

/// Prints the SHA-256 of files in an image, of directories all files, as sha256sum does, which checks them after cp
#[derive(Args)]
#[command(after_long_help = examples::HASH)]
pub struct HashArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// The files and directories
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
    #[command(flatten)]
    pub inside: InsideArgs,
}

/// Shows the plaintext as a file, and the files in it, in a directory, read-only, for as long as this program runs
///
/// DIR gets the file `plain`, and the directory `files` with what `unluks ls` lists. Ctrl-C, SIGTERM, the end of the parent
/// process, and `umount` or `fusermount3 -u` of DIR end it. Nobody else may enter.
#[cfg(feature = "mount")]
#[derive(Args)]
#[command(after_long_help = examples::MOUNT)]
pub struct MountArgs {
    #[command(flatten)]
    pub source: SourceArgs,
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Stay in the foreground, as is always done
    #[arg(short, long, hide = true)]
    pub foreground: bool,
    #[command(flatten)]
    pub inside: InsideArgs,
}

/// Hashes of files.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HashName {
    Sha256,
}

/// Kinds of files, by the letters that find(1) has.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FindKind {
    /// Regular files
    F,
    /// Directories
    D,
    /// Symbolic links
    L,
}
