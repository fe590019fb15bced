//! The process that a file system is parsed in: this program once more, which has two pipes and no key. Its end is an error
//! of one line here.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use unluks::error::{Condition, escape};
use unluks::inside::Kind;
use unluks::limits::READER_SECONDS_MAX;
use unluks::reader::wire::{self, Remote, has_ended};
use unluks::reader::{Entry, FileSystem, Metadata, Xattr};
use unluks::{Error, ReadAt, Result};

use crate::own;
use crate::sandbox;

/// So often a process that has ended is started again.
const RESTARTS: usize = 8;
/// How long one that closed its pipe may take to end.
const GRACE: Duration = Duration::from_millis(500);
/// So much of what it says at its end is looked at.
const LAST_WORDS: u64 = 4096;
const BUFFER: usize = 64 << 10;

/// What the hidden subcommand does.
pub fn child() -> Result<ExitCode> {
    let failed = |e| Error::io("opening the pipes of a reader", e);
    let input = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    sandbox::enter();
    wire::serve(BufReader::with_capacity(BUFFER, input), BufWriter::with_capacity(BUFFER, output))?;
    Ok(ExitCode::SUCCESS)
}

/// A pipe that something has to come through now and then.
struct Watched(ChildStdout);

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wait = Timespec { tv_sec: i64::try_from(READER_SECONDS_MAX).unwrap_or(60), tv_nsec: 0 };
        loop {
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) => {
                    return Err(io::Error::other(format!("it said nothing for {READER_SECONDS_MAX} seconds")));
                }
                Ok(_) => return self.0.read(buf),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// A file system whose reader is in a process of its own, which is started again where it ends.
pub struct Reader {
    disk: Arc<dyn ReadAt>,
    kind: Kind,
    running: Option<(Remote, Child, ChildStderr)>,
    starts: usize,
}

impl Reader {
    pub fn open(disk: Arc<dyn ReadAt>, kind: Kind) -> Result<Self> {
        let mut reader = Self { disk, kind, running: None, starts: 0 };
        reader.ask(|_| Ok(()))?;
        Ok(reader)
    }

    fn start(&mut self) -> Result<()> {
        if self.starts > RESTARTS {
            let message =
                format!("the reader of the {} file system gave up too often, and is not started again", self.kind);
            return Err(Error::corrupt("reader.ended", message).with_condition(Condition::ReaderEnded));
        }
        self.starts += 1;
        let failed = |e| Error::io("starting the process of a reader", e);
        let mut command = Command::new(own::path().map_err(failed)?);
        // It gets nothing of what this process was told.
        command.arg("reader").env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        #[cfg(target_os = "linux")]
        for pipe in [input.as_fd(), output.as_fd()] {
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, 1 << 20);
        }
        let from = BufReader::with_capacity(BUFFER, Watched(output));
        let to = BufWriter::with_capacity(BUFFER, input);
        match Remote::open(from, to, Arc::clone(&self.disk), self.kind) {
            Ok(remote) => self.running = Some((remote, child, errors)),
            Err(e) if has_ended(&e) => return Err(self.explain(&e, child, errors)),
            Err(e) => {
                bury(&mut child);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Asks the reader, which runs from then on.
    fn ask<T>(&mut self, question: impl FnOnce(&mut Remote) -> Result<T>) -> Result<T> {
        if self.running.is_none() {
            self.start()?;
        }
        let Some((remote, ..)) = &mut self.running else { return Err(Error::invalid("there is no reader")) };
        let answer = question(remote);
        match answer {
            Err(e) if has_ended(&e) => {
                let Some((remote, child, errors)) = self.running.take() else { return Err(e) };
                drop(remote);
                Err(self.explain(&e, child, errors))
            }
            answer => answer,
        }
    }

    /// Why a process ended: by its own last words, by its status, or because it was ended here.
    fn explain(&self, e: &Error, mut child: Child, errors: ChildStderr) -> Error {
        let since = Instant::now();
        let mut status = child.try_wait().ok().flatten();
        while status.is_none() && since.elapsed() < GRACE {
            thread::sleep(Duration::from_millis(2));
            status = child.try_wait().ok().flatten();
        }
        bury(&mut child);
        let mut words = Vec::new();
        let _ = errors.take(LAST_WORDS).read_to_end(&mut words);
        let words = String::from_utf8_lossy(&words);
        let said = words.lines().map(str::trim).find(|line| !line.is_empty()).map(escape);
        let own = e.message().trim_start_matches("the reader gave up: ").to_owned();
        let why = match (status, said) {
            (Some(status), Some(said)) if !status.success() => said,
            (Some(status), _) => ending(status).unwrap_or(own),
            (None, _) => own,
        };
        let message = format!("the reader of the {} file system gave up: {why}", self.kind);
        Error::corrupt("reader.ended", message).with_condition(Condition::ReaderEnded)
    }
}

fn ending(status: ExitStatus) -> Option<String> {
    match (status.signal(), status.code()) {
        (Some(signal), _) => Some(format!("its process ended by signal {signal}")),
        (_, Some(code @ 1..)) => Some(format!("its process ended with the code {code}")),
        _ => None,
    }
}

fn bury(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((remote, mut child, _)) = self.running.take() {
            drop(remote);
            bury(&mut child);
        }
    }
}

impl FileSystem for Reader {
    fn metadata(&mut self, path: &[u8]) -> Result<Metadata> {
        self.ask(|remote| remote.metadata(path))
    }

    fn read_dir(&mut self, path: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        self.ask(|remote| remote.read_dir(path, take))
    }

    fn read_at(&mut self, path: &[u8], offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.ask(|remote| remote.read_at(path, offset, buf))
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        self.ask(|remote| remote.read_link(path))
    }

    fn xattrs(&mut self, path: &[u8]) -> Result<Vec<Xattr>> {
        self.ask(|remote| remote.xattrs(path))
    }

    fn directories_max(&mut self) -> Option<u64> {
        self.ask(|remote| Ok(remote.directories_max())).ok().flatten()
    }
}
