//! `unluks fetch image`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use unluks::backup::{Backup, DESCRIPTION, Data, KEY_FILE, Plaintext, VolumeInfo, data_file_name};
use unluks::decrypt::hash::{Algorithm, Of, Wanted};
use unluks::decrypt::output::{self, Checked, Destination, Hashes, OutputOptions, Written};
use unluks::decrypt::{Job, Options};
use unluks::error::Condition;
use unluks::files::{Inputs, folder, names};
use unluks::io::Pipe;
use unluks::luks::unlock::UnlockOptions;
use unluks::progress::Progress;
use unluks::volume::VolumeOptions;
use unluks::{Error, Key, Result};
use unluks_openstack::image::{Image, find};
use unluks_openstack::secret::{self, Secret};
use unluks_openstack::{Cloud, Download, Downloaded, Feed, FeedReader};

use super::{connect, describe, make_dir, opens_with, write_key};
use crate::args::fetch::ImageArgs;
use crate::key::{Material, Passphrases};
use crate::open::Opened;
use crate::progress::ProgressView;
use crate::source::shown;

pub fn run(args: &ImageArgs) -> Result<ExitCode> {
    refuse_what_is_there(args)?;
    let progress = Progress::default();
    let cloud = connect(&args.cloud, &progress)?;
    fetch(args, &cloud, &progress, None)
}

/// Fetches an image; `volume` is what it was made of, where that is known.
pub fn fetch(args: &ImageArgs, cloud: &Cloud, progress: &Progress, volume: Option<VolumeInfo>) -> Result<ExitCode> {
    let image = find(cloud, &args.image)?;
    let size = image.check_data().inspect_err(|_| print_snapshots(&image))?;
    let named = image.key()?;
    check_decrypt(args, &image, named.is_some())?;
    let secret = match named.filter(|_| !args.no_key) {
        Some((_, id)) => Some(secret::fetch(cloud, id).map_err(|e| explain(args, e))?),
        None => None,
    };
    if !image.snapshots()?.is_empty() {
        let of = "warning: this image is of the server's own disk alone; the data of its volumes is not in it:";
        let _ = writeln!(anstream::stderr(), "{of}");
        print_snapshots(&image);
    }

    make_dir(&args.output)?;
    let file = data_file_name(image.info.disk_format.as_deref());
    keep_apart(args, &file)?;
    let output = args.decrypt.as_deref().map(|to| check_output(args, to, size)).transpose()?;
    let mut backup = Backup::new(cloud.description());
    backup.image = Some(image.info.clone());
    backup.volume = volume;
    if let Some(secret) = &secret {
        // Before hours of download: a key that cannot be kept is no use then.
        write_key(&args.output.join(KEY_FILE), secret)?;
        backup.key = Some(describe(secret, KEY_FILE, named.map(|(property, _)| property)));
    }
    let path = args.output.join(&file);
    let download =
        Download { cloud, image: &image, path: (!args.no_ciphertext).then_some(&path), feed: None, progress };
    let bar = ProgressView::new(args.progress, args.quiet, Some(size), 0);
    let fetched = bar.beside(progress, || match (output, &secret) {
        (Some(output), Some(secret)) => fetch_and_decrypt(download, output, secret, args, progress),
        _ => download.run().map(|downloaded| (downloaded, None)),
    });
    bar.finish(progress.bytes());
    let (downloaded, plaintext) = fetched?;

    downloaded.commit()?;
    backup.data = (!args.no_ciphertext).then_some(Data { file, size: downloaded.size });
    if let Some((written, plaintext)) = plaintext {
        written.commit()?;
        backup.plaintext = Some(plaintext);
    }
    backup.write(&args.output)?;
    report(args, &downloaded);
    if secret.is_none() {
        say_that_no_key_is_there(args, &path, named)?;
    }
    downloaded.finish();
    Ok(ExitCode::SUCCESS)
}

/// An image without a key is plaintext, or lost without the key: its own bytes tell which.
fn say_that_no_key_is_there(args: &ImageArgs, path: &Path, named: Option<(&str, &str)>) -> Result<()> {
    let mut err = anstream::stderr();
    let encrypted = holds_luks(path)?;
    let _ = match (encrypted, named) {
        (_, Some((property, id))) => writeln!(
            err,
            "warning: THE KEY IS NOT IN THE BACKUP, as it was to be left out: it is the secret {} ({property}), and \
             unluks fetch key gives it",
            unluks::error::escape(id)
        ),
        (true, None) => writeln!(
            err,
            "warning: THE IMAGE IS ENCRYPTED BY LUKS, AND ITS KEY IS NOT IN THE BACKUP: none of its properties names one. \
             Find the key while the cloud is there: by unluks fetch volume, of the volume that the image was made of, or \
             from whoever made it"
        ),
        (false, None) if args.quiet => Ok(()),
        (false, None) => {
            writeln!(err, "the image names no key, and begins with no LUKS header: it is not encrypted by OpenStack")
        }
    };
    Ok(())
}

/// Whether a raw image begins with a LUKS header, or a qcow2 image says that it is encrypted by LUKS
/// (`crypt_method` 2 at byte 32).
fn holds_luks(path: &Path) -> Result<bool> {
    let failed = |e| Error::io(format!("reading {}", shown(path)), e);
    let mut head = Vec::new();
    File::open(path).map_err(failed)?.take(36).read_to_end(&mut head).map_err(failed)?;
    Ok(head.starts_with(b"LUKS\xba\xbe") || (head.starts_with(b"QFI\xfb") && head.get(32..36) == Some(&[0, 0, 0, 2])))
}

/// What is finished is not touched.
pub fn refuse_what_is_there(args: &ImageArgs) -> Result<()> {
    if args.output.join(DESCRIPTION).symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{} holds a backup already", shown(&args.output)))
            .with_hint("name another directory"));
    }
    // What is refused here is refused before anything is asked of the cloud. The backup's own folder is made later.
    let is_own = |to: &Path| !args.output.exists() && to.parent().is_some_and(|parent| same_path(parent, &args.output));
    match args.decrypt.as_deref() {
        Some(to) if !is_own(to) => check_output(args, to, 0).map(drop),
        _ => Ok(()),
    }
}

/// Whether two names are one, as far as that can be told of folders that are not there yet.
fn same_path(a: &Path, b: &Path) -> bool {
    std::path::absolute(a).ok().zip(std::path::absolute(b).ok()).is_some_and(|(a, b)| a == b)
}

/// Looks at where the plaintext of an image of `size` bytes goes.
fn check_output(args: &ImageArgs, to: &Path, size: u64) -> Result<Checked> {
    let options = OutputOptions { force: args.force, about: size, ..OutputOptions::default() };
    output::check(Destination::Path(to), &Inputs::default(), None, options)
}

/// Refuses a plaintext that would be one of the backup's own files.
fn keep_apart(args: &ImageArgs, file: &str) -> Result<()> {
    let Some(to) = &args.decrypt else { return Ok(()) };
    let same = matches!((folder(to).canonicalize(), args.output.canonicalize()), (Ok(a), Ok(b)) if a == b);
    let mut taken = Vec::new();
    for own in [file, KEY_FILE, DESCRIPTION] {
        taken.extend(names(Path::new(own))?);
    }
    let own = |name: &PathBuf| taken.iter().any(|own| own.file_name() == name.file_name());
    if same && names(to)?.iter().any(own) {
        Err(Error::invalid(format!("{} is a file of the backup itself", shown(to))).with_hint("name another file"))
    } else {
        Ok(())
    }
}

/// Refuses to decrypt what cannot be, before it is downloaded.
fn check_decrypt(args: &ImageArgs, image: &Image, has_key: bool) -> Result<()> {
    if args.decrypt.is_none() {
        return Ok(());
    }
    if !has_key {
        return Err(Error::invalid("the image is not encrypted: it names no key")
            .with_rule("image.encryption")
            .with_hint("leave --decrypt out; what is fetched then is the plaintext"));
    }
    match image.info.disk_format.as_deref() {
        Some("raw" | "luks") | None => Ok(()),
        Some(format) => {
            let message = format!("a {} image cannot be decrypted while it comes in", unluks::error::escape(format));
            Err(Error::unsupported("image.disk_format", message)
                .with_hint("leave --decrypt out, then: unluks decrypt DIR -o FILE"))
        }
    }
}

/// Says that the data may be had without the key.
fn explain(args: &ImageArgs, e: Error) -> Error {
    if !args.quiet && args.decrypt.is_none() && e.rule().starts_with("secret.") {
        let _ = writeln!(anstream::stderr(), "the encrypted image alone can be fetched with --no-key");
    }
    e
}

/// The commands that lead to the data of a volume-booted server's image.
fn print_snapshots(image: &Image) {
    let mut err = anstream::stderr();
    for snapshot in image.snapshots().unwrap_or_default() {
        let id = &snapshot.id;
        let size = snapshot.size.map_or(String::new(), |size| format!(", {size} GiB"));
        let device = snapshot.device.map_or(String::new(), |device| format!(", {device}"));
        let boot = if snapshot.boot { ", the one it started from" } else { "" };
        let _ = writeln!(err, "snapshot {id}{size}{device}{boot}: its data becomes an image by");
        let _ = writeln!(err, "    unluks fetch volume {id} --make-image --output DIR");
        let _ = writeln!(err, "  or, by hand:");
        let _ = writeln!(err, "    openstack volume create --snapshot {id} unluks-{id}");
        let _ = writeln!(err, "    openstack image create --volume unluks-{id} unluks-{id}");
        let _ = writeln!(err, "    unluks fetch image unluks-{id} --output DIR");
    }
}

/// Downloads on this thread, and decrypts on others what comes. The plaintext has no name yet.
fn fetch_and_decrypt(
    mut download: Download<'_>,
    output: Checked,
    secret: &Secret,
    args: &ImageArgs,
    progress: &Progress,
) -> Result<(Downloaded, Option<(Written, Plaintext)>)> {
    let key = opens_with(secret)?;
    let (feed, reader) = Feed::pair();
    download.feed = Some(feed);
    std::thread::scope(|scope| {
        let decryption = scope.spawn(|| decrypt(reader, key, output, args));
        let downloaded = download.run();
        let decrypted = decryption.join().unwrap_or_else(|_| Err(Error::invalid("the decryption ended early")));
        match (downloaded, decrypted) {
            (Ok(downloaded), Ok(decrypted)) => Ok((downloaded, Some(decrypted))),
            // The cause, and not what it led to on the other side.
            (Err(e), Err(cause)) if e.is(Condition::Feed) => Err(cause),
            (Err(e), _) => Err(e),
            (Ok(_), Err(e)) => Err(e),
        }
        .map_err(|e| if progress.is_cancelled() { Error::cancelled() } else { e })
    })
}

/// Decrypts what comes through a pipe into an output that has no name yet.
fn decrypt(reader: FeedReader, key: Key, output: Checked, args: &ImageArgs) -> Result<(Written, Plaintext)> {
    let opened = Opened::of_pipe(Pipe::new(Box::new(reader)), PathBuf::from(&args.image))?;
    let options = UnlockOptions { limits: crate::key::limits(&args.limits), ..UnlockOptions::default() };
    let material = || Ok(Material::Passphrases(Passphrases { key, guessed: false, seen: None }));
    let unlocked = opened.unlock_with(material, &options, args.quiet)?;
    let volume = opened.volume(&unlocked, VolumeOptions::default(), |_| false)?;
    drop(unlocked);
    crate::decrypt::warn(args.quiet, &opened.image, &volume);
    let job = Job { volume: &volume, start: 0, len: None };
    let wanted = [Wanted { of: Of::Plaintext, algorithm: Algorithm::Sha256 }];
    let hashes = Hashes { wanted: &wanted, ..Hashes::default() };
    let mut written = output.begin(job, None)?.run(&hashes, Options::default(), &Progress::default())?;
    // What is behind the last whole sector belongs to the image, and to its hash.
    opened.source.pipe().map_or(Ok(0), Pipe::drain)?;
    let sha256 = std::mem::take(&mut written.hashes).pop().map(|h| h.hex).unwrap_or_default();
    let plaintext = Plaintext { size: written.bytes, sha256 };
    Ok((written, plaintext))
}

fn report(args: &ImageArgs, downloaded: &Downloaded) {
    if args.quiet {
        return;
    }
    let mut err = anstream::stderr();
    if downloaded.resumed > 0 {
        let _ = writeln!(err, "{} bytes were there from an earlier run", downloaded.resumed);
    }
    let hashes = if downloaded.compared.is_empty() {
        "Glance gave no hash that is known here to compare them with".into()
    } else {
        format!("{} as Glance has it", downloaded.compared.join(" and "))
    };
    let _ = writeln!(err, "{} bytes in {}; {hashes}", downloaded.size, shown(&args.output));
}
