//! `unluks mount`: the plaintext as one file, and the file systems in it, for as long as this program runs.
//!
//! The kernel is asked through `/dev/fuse`, by the crate fuser without libfuse: as root directly, for others by the program
//! fusermount3. The mount is read-only, and nobody but who made it may enter.

mod tree;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionUnmounter};
use signal_hook::iterator::Signals;
use unluks::error::{escape, shown};
use unluks::reader::volumes::Volumes;
use unluks::reader::{is_read, not_read};
use unluks::{Error, Result};

use crate::args::files::MountArgs;
use crate::files;
use crate::signals::{self, failed, stopping};
use tree::Tree;

const DEVICE: &str = "/dev/fuse";
/// How long the kernel may take to let go of a mount.
const GRACE: Duration = Duration::from_secs(2);
/// What is read ahead, in KiB, where this process may say so; the kernel takes 128 KiB of its own.
const READ_AHEAD: &str = "4096";
const THREADS_MAX: usize = 8;

/// What ends a mount.
enum Event {
    Signal,
    /// Somebody unmounted it, or the kernel gave up.
    Ended(std::io::Result<()>),
}

pub fn run(args: &mut MountArgs) -> Result<ExitCode> {
    // A parent that ends while keys are derived must not be missed, and nobody should type a passphrase in vain.
    signals::end_with_parent("mount")?;
    check(&args.dir)?;
    let mut signals = Signals::new(stopping()).map_err(failed)?;
    let (disk, _) = files::disk(&mut args.source, &args.inside)?;
    let mut volumes = Volumes::list(Arc::clone(&disk))?;
    let is_quiet = args.inside.quiet;
    let left_out = volumes.all.iter().filter(|volume| !is_read(volume.kind));
    let left_out: Vec<String> =
        left_out.map(|volume| not_read(volume.kind).within(unluks::reader::shown(&volume.path)).to_string()).collect();
    for note in volumes.notes.iter().chain(&left_out).filter(|_| !is_quiet) {
        let _ = writeln!(anstream::stderr(), "note: {note}");
    }
    volumes.all.retain(|volume| is_read(volume.kind));

    let name = escape(&args.source.image.to_string_lossy()).replace(',', "_");
    let mut session = Session::new(Tree::new(disk, volumes.all), &args.dir, &config(&name)).map_err(refused)?;
    let mut unmounter = session.unmount_callable();
    let (sender, events) = channel();
    let handle = signals.handle();
    watch("signals", sender.clone(), move |sender| {
        for _ in signals.forever() {
            let _ = sender.send(Event::Signal);
        }
    })?;
    watch("the mount", sender, move |sender| drop(sender.send(Event::Ended(session.run()))))?;
    read_ahead(&args.dir);
    if !is_quiet {
        let dir = shown(&args.dir);
        let _ = writeln!(anstream::stderr(), "note: mounted on {dir}, until this program is stopped");
    }
    let done = wait(&events, &mut unmounter, &args.dir);
    handle.close();
    done.map(|()| ExitCode::SUCCESS)
}

fn watch(name: &str, sender: Sender<Event>, work: impl FnOnce(Sender<Event>) + Send + 'static) -> Result<()> {
    let thread = thread::Builder::new().name(name.into()).spawn(move || work(sender));
    thread.map(drop).map_err(|e| Error::io(format!("starting the thread for {name}"), e))
}

/// Until a signal comes, or the mount is gone.
fn wait(events: &Receiver<Event>, unmounter: &mut SessionUnmounter, dir: &Path) -> Result<()> {
    let lost = |e| Error::io("answering the kernel", e);
    match events.recv() {
        Ok(Event::Ended(done)) => return done.map_err(lost),
        Ok(Event::Signal) | Err(_) => {}
    }
    // Where somebody has a file of it open, it goes from sight, and what is open fails when this program has ended.
    if unmounter.unmount().is_err() {
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH)
            .map_err(|e| Error::io(format!("unmounting {}", shown(dir)), e.into()))?;
    }
    // Its end, or a second signal.
    let _ = events.recv_timeout(GRACE);
    Ok(())
}

fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(name.to_owned()),
        MountOption::Subtype("unluks".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoExec,
        MountOption::NoAtime,
        MountOption::DefaultPermissions,
    ];
    config.n_threads = Some(thread::available_parallelism().map_or(2, |n| n.get().clamp(2, THREADS_MAX)));
    config
}

/// Refuses what nothing can be mounted on.
fn check(dir: &Path) -> Result<()> {
    let at = |e| Error::io(format!("mounting on {}", shown(dir)), e);
    let invalid = |what: &str| Error::invalid(format!("mounting on {}: {what}", shown(dir)));
    let metadata = match fs::metadata(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(invalid("there is no such directory")),
        metadata => metadata.map_err(at)?,
    };
    if !metadata.is_dir() {
        return Err(invalid("it is no directory"));
    }
    if fs::read_dir(dir).map_err(at)?.next().is_some() {
        return Err(invalid("it is not empty").with_hint("name an empty directory"));
    }
    if !Path::new(DEVICE).exists() {
        let absent = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::io(format!("opening {DEVICE}"), absent)
            .with_hint("mounting wants the kernel's module fuse: modprobe fuse, or a container that has the device"));
    }
    Ok(())
}

fn refused(e: std::io::Error) -> Error {
    let is_absent = e.kind() == std::io::ErrorKind::NotFound;
    // What fusermount3 says has lines of its own.
    let text = escape(e.to_string().trim());
    let error = Error::io("mounting", std::io::Error::new(e.kind(), text));
    if is_absent {
        error.with_hint("users other than root want the program fusermount3, of the package fuse3")
    } else {
        error
    }
}

/// The kernel reads ahead little of what it takes to be slow. Whoever may not change that reads slower, and all the same.
fn read_ahead(dir: &Path) {
    let Ok(metadata) = fs::metadata(dir) else { return };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let _ = fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD);
}
