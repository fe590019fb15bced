//! `unluks serve`: where the NBD server listens, for how long, and for whom.

use std::io::Write as _;
use std::net::ToSocketAddrs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;
use unluks::nbd::{Export, Listener, Server, Service, Stopper, Tls};
use unluks::{Error, ReadAt, Result};

use crate::args::serve::ServeArgs;
use crate::signals::{end_with_parent, failed, stopping};

/// Serves `source` until a signal comes or the captive command ends, and says what to exit with.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) for flags that do not go together and for addresses that
/// must not be used; [`ErrorKind::Io`](unluks::ErrorKind::Io) where the system refuses.
pub fn serve(args: &ServeArgs, source: Arc<dyn ReadAt>) -> Result<i32> {
    // Signals that come while things are being set up wait for their turn.
    let mut signals = Signals::new(stopping()).map_err(failed)?;
    let tls = args.tls_certificates.as_deref().map(|dir| Tls::from_folder(dir, args.tls_verify_peer)).transpose()?;
    let export = Export::new(args.export_name.as_str(), args.description.clone(), source)?;
    let mut service = Service::new(export)
        .with_threads(args.threads)
        .with_max_connections(args.max_connections)
        .with_max_per_address(args.max_per_address)
        .with_idle_timeout(args.idle_timeout);
    let has_tls = tls.is_some();
    if let Some(tls) = tls {
        service = service.with_tls(tls);
    }
    if args.verbose {
        // A log that cannot be written must not stop the server.
        service = service.with_log(Arc::new(|line| drop(writeln!(std::io::stderr(), "unluks: {line}"))));
    }
    let (listeners, activated) = args.listeners(has_tls)?;
    let place = Place::of(&listeners, &args.export_name, has_tls);
    let server = Server::new(Arc::new(service), listeners)?;
    let _pid_file = args.pid_file.as_deref().map(PidFile::write).transpose()?;

    let captive = Arc::new(Captive::default());
    let stopper = server.stopper();
    let handle = signals.handle();
    let watcher = start("signals", {
        let (captive, stopper) = (captive.clone(), stopper.clone());
        move || {
            for signal in signals.forever() {
                captive.pass_on(signal);
                stopper.stop();
            }
        }
    })?;
    let outcome = match args.captive_command() {
        Some(mut command) => captive.run(place.tell(&mut command), server, &stopper),
        None => {
            // A client that started this process shares its output: it has the socket, and wants no line of ours.
            if !activated {
                let mut out = std::io::stdout();
                // Whoever closed standard output does not want to know.
                let _ = place.uris.iter().try_for_each(|uri| writeln!(out, "{uri}")).and_then(|()| out.flush());
            }
            server.run().map(|()| 0)
        }
    };
    handle.close();
    // The watcher holds nothing that matters; one that panicked has been reported.
    let _ = watcher.join();
    outcome
}

/// A thread without which nothing can be served.
fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|e| Error::io(format!("starting the thread for {name}"), e))
}

impl ServeArgs {
    /// Checks what can be checked before there is a volume to serve, so that nobody types a passphrase in vain.
    ///
    /// # Errors
    /// As [`serve`].
    pub fn check(&self) -> Result<()> {
        // A parent that ends while keys are derived must not be missed.
        if self.exit_with_parent {
            end_with_parent("--exit-with-parent")?;
        }
        for address in self.addresses()? {
            self.check_exposure(!address.ip().to_canonical().is_loopback(), &address.to_string())?;
        }
        self.tls_certificates.as_deref().map(|dir| Tls::from_folder(dir, self.tls_verify_peer)).transpose()?;
        Ok(())
    }

    fn check_exposure(&self, exposed: bool, address: &str) -> Result<()> {
        if exposed && self.tls_certificates.is_none() && !self.insecure_listen {
            return Err(Error::invalid(format!("{address} can be reached by other machines, and TLS is not in use"))
                .with_hint("use --tls-certificates, listen on 127.0.0.1, or say --insecure-listen"));
        }
        Ok(())
    }

    /// Every address that `--listen` names. A name such as `localhost` may stand for several.
    fn addresses(&self) -> Result<Vec<std::net::SocketAddr>> {
        let mut all = Vec::new();
        for text in &self.listen {
            let shown = unluks::error::escape(text);
            let found = text.to_socket_addrs().map_err(|e| match e.kind() {
                // It is no address, whatever the network is like.
                std::io::ErrorKind::InvalidInput => Error::invalid(format!("--listen {shown}: {e}"))
                    .with_hint("write ADDR:PORT, such as 127.0.0.1:10809"),
                _ => Error::io(format!("--listen {shown}"), e),
            })?;
            let before = all.len();
            all.extend(found);
            if all.len() == before {
                return Err(Error::invalid(format!("--listen {shown}: no such address")));
            }
            // A free port can only be chosen for one address.
            if all[before].port() == 0 {
                all.truncate(before + 1);
            }
        }
        Ok(all)
    }

    /// The sockets to listen on, and whether they came from whoever started this process.
    fn listeners(&self, has_tls: bool) -> Result<(Vec<Listener>, bool)> {
        let captive = self.run.is_some() || !self.command.is_empty();
        let mut listeners = Listener::activated()?;
        let activated = !listeners.is_empty();
        if activated && (self.socket.is_some() || !self.listen.is_empty() || captive) {
            return Err(Error::invalid("socket activation does not go together with --socket, --listen or a command"));
        }
        if !activated {
            let addresses = self.addresses()?;
            for address in &addresses {
                self.check_exposure(!address.ip().to_canonical().is_loopback(), &address.to_string())?;
            }
            listeners.extend(self.socket.as_deref().map(Listener::unix).transpose()?);
            for address in addresses {
                listeners.push(Listener::tcp(address)?);
            }
            if listeners.is_empty() {
                listeners.push(Listener::private_unix()?);
            }
        }
        for listener in &listeners {
            let address = listener.address().map(|a| a.to_string()).unwrap_or_default();
            self.check_exposure(listener.is_exposed() && !has_tls, &address)?;
        }
        Ok((listeners, activated))
    }

    fn captive_command(&self) -> Option<Command> {
        if let Some(line) = &self.run {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(line);
            return Some(command);
        }
        let (program, arguments) = self.command.split_first()?;
        let mut command = Command::new(program);
        command.args(arguments);
        Some(command)
    }
}

/// Where clients find the server.
struct Place {
    uris: Vec<String>,
    export: String,
    socket: Option<PathBuf>,
    port: Option<u16>,
}

impl Place {
    fn of(listeners: &[Listener], export: &str, tls: bool) -> Self {
        Self {
            uris: listeners.iter().map(|listener| listener.uri(export, tls)).collect(),
            export: export.to_owned(),
            socket: listeners.iter().find_map(|listener| listener.path().map(Path::to_owned)),
            port: listeners.iter().find_map(|listener| listener.address().map(|address| address.port())),
        }
    }

    /// Puts it into the environment of `command`, under the names that nbdkit uses.
    fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("uri", self.uris.first().map(String::as_str).unwrap_or_default());
        command.env("exportname", &self.export);
        command.env("unixsocket", self.socket.as_deref().unwrap_or(Path::new("")));
        command.env("port", self.port.map(|port| port.to_string()).unwrap_or_default())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command that the server runs for, and a signal that came before it was started.
#[derive(Default)]
struct Captive {
    state: Mutex<CaptiveState>,
    ended: Condvar,
}

#[derive(Default)]
struct CaptiveState {
    pid: Option<rustix::process::Pid>,
    signalled: bool,
    status: Option<std::io::Result<ExitStatus>>,
}

impl Captive {
    fn state(&self) -> MutexGuard<'_, CaptiveState> {
        lock(&self.state)
    }

    /// Sends the signal on to the command, if it runs.
    fn pass_on(&self, signal: i32) {
        let mut state = self.state();
        state.signalled = true;
        if let (Some(pid), Some(signal)) = (state.pid, rustix::process::Signal::from_named_raw(signal)) {
            // It may have ended just now.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Serves while `command` runs, and gives its exit code: 128 and the signal's number where a signal ended it.
    fn run(self: &Arc<Self>, command: &mut Command, server: Server, stopper: &Stopper) -> Result<i32> {
        let child = {
            let mut state = self.state();
            if state.signalled {
                return Ok(128 + SIGTERM);
            }
            let program = unluks::error::escape(&command.get_program().to_string_lossy());
            let child = command.spawn().map_err(|e| Error::io(format!("running {program}"), e))?;
            state.pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            child
        };
        let child = Arc::new(Mutex::new(child));
        let waiter = start("the command", {
            let (this, stopper, child) = (self.clone(), stopper.clone(), child.clone());
            move || this.wait(&mut lock(&child), &stopper)
        });
        let waiter = waiter.inspect_err(|_| {
            // Nobody would see its end. It has just started, and is told to stop.
            self.pass_on(SIGTERM);
            let _ = lock(&child).wait();
        })?;
        let served = server.run();
        let mut state = self.state();
        while state.status.is_none() {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let status = state.status.take();
        drop(state);
        let _ = waiter.join();
        served?;
        let status = status.transpose().map_err(|e| Error::io("waiting for the command", e))?;
        Ok(status.map_or(1, |s| s.code().unwrap_or_else(|| 128 + s.signal().unwrap_or(0))))
    }

    fn wait(&self, child: &mut Child, stopper: &Stopper) {
        let status = child.wait();
        let mut state = self.state();
        // Its number may belong to another process from here on.
        state.pid = None;
        state.status = Some(status);
        self.ended.notify_all();
        stopper.stop();
    }
}

/// A file with the process id. It goes when the server does.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: &Path) -> Result<Self> {
        // Whoever waits for the file must not find half of it: it gets its name when it is complete.
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}", std::process::id()));
        std::fs::write(&unfinished, format!("{}\n", std::process::id()))
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|e| {
                Error::io(format!("writing the pid file {}", unluks::error::escape(&path.to_string_lossy())), e)
            })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
