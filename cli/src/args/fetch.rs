//! The flags of `unluks fetch`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{LimitArgs, ProgressKind};

/// What is fetched.
#[derive(Subcommand)]
pub enum What {
    Image(ImageArgs),
    Key(KeyArgs),
    Volume(VolumeArgs),
    Backup(BackupArgs),
}

/// Fetches an image and its key
#[derive(Args)]
#[command(after_long_help = super::examples::FETCH_IMAGE)]
pub struct ImageArgs {
    /// The image's id or name
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// The directory that gets image.raw, key and backup.json; it is made
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Write the plaintext to this file while the image comes in
    #[arg(long, value_name = "FILE")]
    pub decrypt: Option<PathBuf>,
    /// Keep no copy of the encrypted image: it never touches the disk
    #[arg(long, requires = "decrypt")]
    pub no_ciphertext: bool,
    /// Fetch the image alone, where its key cannot be had or is had from elsewhere
    #[arg(long, conflicts_with = "decrypt")]
    pub no_key: bool,
    /// Replace the file of --decrypt if it is there
    #[arg(long, requires = "decrypt")]
    pub force: bool,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub cloud: CloudArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Fetches a key alone, and says what it is
#[derive(Args)]
#[command(after_long_help = super::examples::FETCH_KEY)]
pub struct KeyArgs {
    /// The secret's id, or its address
    #[arg(value_name = "SECRET")]
    pub secret: String,
    /// The file that gets the payload as Barbican has it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Fetches a volume's key, and says how its data becomes an image; with --make-image fetches that too
#[derive(Args)]
#[command(after_long_help = super::examples::FETCH_VOLUME)]
pub struct VolumeArgs {
    /// The id or name of a volume or a snapshot
    #[arg(value_name = "VOLUME")]
    pub volume: String,
    /// The directory that gets key and backup.json, and the image; it is made
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Make an image of the data, fetch it, and delete it again; of a volume in use by a snapshot, deleted too
    #[arg(long)]
    pub make_image: bool,
    /// Write the plaintext to this file while the image comes in
    #[arg(long, value_name = "FILE", requires = "make_image")]
    pub decrypt: Option<PathBuf>,
    /// Keep no copy of the encrypted image: it never touches the disk
    #[arg(long, requires = "decrypt")]
    pub no_ciphertext: bool,
    /// Replace the file of --decrypt if it is there
    #[arg(long, requires = "decrypt")]
    pub force: bool,
    /// Say nothing but errors, and the steps
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub cloud: CloudArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Fetches the key of a backup of Cinder, and its objects where they are in the project's own object store
#[derive(Args)]
#[command(after_long_help = super::examples::FETCH_BACKUP)]
pub struct BackupArgs {
    /// The id or name of a backup; with --make, of a volume or a snapshot
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// Have Cinder make a backup first, and wait for it. It stays in the cloud
    #[arg(long)]
    pub make: bool,
    /// Make one of only what is not in the newest backup of the volume
    #[arg(long, requires = "make", hide_short_help = true)]
    pub incremental: bool,
    /// Make one also of a volume in use: its data is then as after a loss of power
    #[arg(long, requires = "make", hide_short_help = true)]
    pub force: bool,
    /// Make one of this snapshot of the volume, by its id or name
    #[arg(long, value_name = "SNAPSHOT", requires = "make", hide_short_help = true)]
    pub snapshot: Option<String>,
    /// The directory that gets key and backup.json, and the objects; it is made
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Say nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
    /// How progress is shown on the standard error: auto is a bar on a terminal, and nothing elsewhere
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW", hide_short_help = true)]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Which cloud.
#[derive(Args, Clone)]
#[command(next_help_heading = "Cloud")]
pub struct CloudArgs {
    /// Its name in clouds.yaml [default: OS_CLOUD, the other OS_* variables, or the only one there]
    #[arg(long, value_name = "NAME")]
    pub cloud: Option<String>,
    /// How many failures in a row are waited out, each twice as long
    #[arg(long, value_name = "N", default_value_t = 8, hide_short_help = true)]
    pub retries: u32,
}
