//! `unluks fetch`: an image, or just a key, out of OpenStack.

mod image;
mod key;
mod volume;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, Subcommand};
use unluks::backup::{Becomes, StoredKey};
use unluks::decrypt::Progress;
use unluks::openstack::secret::Secret;
use unluks::openstack::{Cloud, Options};
use unluks::{Error, Key, Result};

use crate::args::{LimitArgs, ProgressKind};
use crate::source::shown;

/// What is fetched.
#[derive(Subcommand)]
pub enum What {
    Image(ImageArgs),
    Key(KeyArgs),
    Volume(VolumeArgs),
}

/// Fetches an image and its key
#[derive(Args)]
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
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW")]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub cloud: CloudArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Fetches a key alone, and says what it is
#[derive(Args)]
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
    #[arg(long, value_enum, default_value = "auto", value_name = "HOW")]
    pub progress: ProgressKind,
    #[command(flatten)]
    pub cloud: CloudArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
}

/// Which cloud.
#[derive(Args, Clone)]
#[command(next_help_heading = "Cloud")]
pub struct CloudArgs {
    /// Its name in clouds.yaml [default: OS_CLOUD, the other OS_* variables, or the only one there]
    #[arg(long, value_name = "NAME")]
    pub cloud: Option<String>,
    /// How many failures in a row are waited out, each twice as long
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub retries: u32,
}

pub fn run(what: &What) -> Result<ExitCode> {
    match what {
        What::Image(args) => image::run(args),
        What::Key(args) => key::run(args),
        What::Volume(args) => volume::run(args),
    }
}

/// Logs in. From here on the first signal stops all in good order, and a second one ends the program at once.
pub fn connect(args: &CloudArgs, progress: &Progress) -> Result<Cloud> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    let failed = |e| Error::io("catching signals", e);
    let flag = progress.cancel_flag();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag)).map_err(failed)?;
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(failed)?;
    }
    // A write beyond the limit on a file's size is then an error like that of a full disk.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    Cloud::connect(Options { name: args.cloud.clone(), retries: args.retries, cancelled: flag })
}

/// For work that is taken back where it fails: the first signal stops it, a second one stops the taking back, and a third
/// one ends the program. Gives what the second one sets.
///
/// A request that changes something is not cut off by the first: nobody would know what became of it.
pub fn catch_signals(progress: &Progress) -> Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    let failed = |e| Error::io("catching signals", e);
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let (first, again) = (progress.cancel_flag(), Arc::new(AtomicBool::new(false)));
    let second = Arc::clone(&again);
    // A write beyond the limit on a file's size is then an error like that of a full disk.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map_err(failed)?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            match (first.swap(true, Ordering::Relaxed), second.load(Ordering::Relaxed)) {
                (false, _) => {
                    let _ = writeln!(anstream::stderr(), "stopping; what was made in the cloud is deleted again");
                }
                (true, false) => second.store(true, Ordering::Relaxed),
                (true, true) => drop(signal_hook::low_level::emulate_default_handler(signal)),
            }
        }
    });
    Ok(again)
}

/// Makes a directory that only its owner may look into.
pub fn make_dir(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Error::io(format!("making {}", shown(path)), e))
}

/// Writes a key whole or not at all, with mode 0600. Another key that is there is not overwritten: it may be the last copy.
pub fn write_key(path: &Path, secret: &Secret) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let there = File::open(path).map_err(|e| Error::io(format!("opening {}", shown(path)), e))?;
        let there = unluks::key::read_key_file(&mut &there, 0, None).map_err(|e| e.within(shown(path)))?;
        return match there.expose() == secret.payload.expose() {
            true => Ok(()),
            false => Err(Error::invalid(format!("{} is there already, and is another key", shown(path)))
                .with_hint("name another directory, or move it away")),
        };
    }
    let failed = |e| Error::io(format!("writing {}", shown(path)), e);
    let name = path.file_name().ok_or_else(|| Error::invalid(format!("{} is no file name", shown(path))))?;
    let temp = path.with_file_name(format!(".{}.unluks-part", name.to_string_lossy()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let _ = std::fs::remove_file(&temp);
    let written =
        options.open(&temp).and_then(|mut f| f.write_all(secret.payload.expose()).and_then(|()| f.sync_all()));
    if let Err(e) = written.and_then(|()| std::fs::rename(&temp, path)) {
        let _ = std::fs::remove_file(&temp);
        return Err(failed(e));
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|d| d.sync_all()).map_err(failed)
}

/// What a backup says of a key.
pub fn describe(secret: &Secret, file: &str, property: Option<&str>) -> StoredKey {
    StoredKey {
        file: file.to_owned(),
        size: u64::try_from(secret.payload.len()).unwrap_or(0),
        becomes: Becomes::of_secret(&secret.info.secret_type),
        property: property.map(str::to_owned),
        secret: secret.info.clone(),
    }
}

/// What the key opens an image with.
pub fn opens_with(secret: &Secret) -> Result<Key> {
    match Becomes::of_secret(&secret.info.secret_type) {
        Becomes::Hexlify => Key::barbican(&secret.payload),
        Becomes::Direct => unluks::SecretBytes::copy_of(secret.payload.expose()).map(Key::passphrase),
    }
}
