//! Accepts connections, gives each a thread, and stops in good order.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use super::listen::Listener;
use super::service::Service;
use super::stream::{Socket, Stream, lock};
use crate::error::{Error, Result};
use crate::limits::NBD_SHUTDOWN_TIME;

/// How long clients may still send requests, and be told that the server stops, once the outstanding ones are answered.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often it is looked whether the outstanding requests are answered.
const GLANCE: Duration = Duration::from_millis(2);
/// How long threads may take to end after their sockets were closed: one that waits for a dead disk may never do.
const LAST_STEPS: Duration = Duration::from_secs(2);
/// How long accepting rests where the system has no descriptor or no memory left.
const REST: Duration = Duration::from_millis(50);
/// How many connections one socket may hand over before the others have their turn.
const TURN: usize = 64;

/// Serves an export to whoever connects.
pub struct Server {
    service: Arc<Service>,
    listeners: Vec<Listener>,
    stopper: Stopper,
    /// A byte arrives here when the server is to stop.
    wake: UnixStream,
    peers: Arc<Peers>,
}

/// Stops a [`Server`], from any thread.
#[derive(Clone)]
pub struct Stopper {
    calls: Arc<AtomicU32>,
    wake: Arc<UnixStream>,
}

impl Stopper {
    /// Accepts no more connections, finishes outstanding requests, closes. Called again, it does not wait for them.
    pub fn stop(&self) {
        self.calls.fetch_add(1, SeqCst);
        // Where the pipe is full, the server is awake already.
        let _ = (&*self.wake).write(&[1]);
    }

    fn is_impatient(&self) -> bool {
        self.calls.load(SeqCst) > 1
    }
}

/// The connections there are.
#[derive(Default)]
struct Peers {
    all: Mutex<HashMap<u64, Arc<Peer>>>,
    one_left: Condvar,
}

struct Peer {
    socket: Socket,
    busy: AtomicUsize,
}

/// Takes its connection off the list when the connection's thread ends, however it ends.
struct Entry {
    peers: Arc<Peers>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.peers.all).remove(&self.id);
        self.peers.one_left.notify_all();
    }
}

impl Server {
    /// Makes `listeners` ready for [`Server::run`]. Clients can connect already, and wait.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the system refuses.
    pub fn new(service: Arc<Service>, listeners: Vec<Listener>) -> Result<Self> {
        let failed = |e| Error::io("preparing the sockets", e);
        for listener in &listeners {
            listener.set_nonblocking().map_err(failed)?;
        }
        let (wake, waker) = UnixStream::pair().map_err(failed)?;
        waker.set_nonblocking(true).map_err(failed)?;
        let stopper = Stopper { calls: Arc::default(), wake: Arc::new(waker) };
        Ok(Self { service, listeners, stopper, wake, peers: Arc::default() })
    }

    /// What stops this server.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped. Then no socket file is left, and no connection.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the system cannot wait for connections.
    pub fn run(mut self) -> Result<()> {
        let outcome = self.accept_all();
        self.service.log(format_args!("stopping, with {} connections", lock(&self.peers.all).len()));
        // From here on, nobody can connect.
        self.listeners.clear();
        self.service.stop();
        self.drain();
        outcome.map_err(|e| Error::io("waiting for connections", e))
    }

    fn accept_all(&mut self) -> io::Result<()> {
        let mut next_id = 0;
        loop {
            let mut waits = vec![PollFd::new(&self.wake, PollFlags::IN)];
            waits.extend(self.listeners.iter().map(|l| PollFd::new(l, PollFlags::IN)));
            match poll(&mut waits, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let ready: Vec<bool> = waits.iter().map(|wait| !wait.revents().is_empty()).collect();
            if ready.first() == Some(&true) {
                let _ = self.wake.read(&mut [0; 16]);
                return Ok(());
            }
            for (listener, _) in self.listeners.iter().zip(ready.iter().skip(1)).filter(|(_, ready)| **ready) {
                for _ in 0..TURN {
                    match listener.accept() {
                        Ok((socket, from)) => {
                            next_id += 1;
                            self.admit(next_id, socket, &from);
                        }
                        Err(e) => match e.kind() {
                            io::ErrorKind::WouldBlock => break,
                            // The client was gone before its turn.
                            io::ErrorKind::Interrupted
                            | io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::NotConnected => {}
                            // A socket that does not listen: no client will ever come.
                            io::ErrorKind::InvalidInput => return Err(e),
                            _ => {
                                self.service.log(format_args!("cannot accept a connection: {e}"));
                                thread::sleep(REST);
                                break;
                            }
                        },
                    }
                }
            }
        }
    }

    /// Starts a thread for a connection, where there is room for one more. Otherwise the client is hung up on: it is
    /// better off with an error than with a wait that may never end.
    fn admit(&self, id: u64, socket: Socket, from: &str) {
        let count = lock(&self.peers.all).len();
        if count >= self.service.max_connections {
            self.service.log(format_args!("connection {id} from {from}: refused, there are {count} already"));
            return socket.close();
        }
        self.service.log(format_args!("connection {id} from {from}"));
        let peer = Arc::new(Peer { socket, busy: AtomicUsize::new(0) });
        lock(&self.peers.all).insert(id, peer.clone());
        let entry = Entry { peers: self.peers.clone(), id };
        let service = self.service.clone();
        let thread = thread::Builder::new().name(format!("nbd {id}")).spawn(move || {
            let _entry = entry;
            // Both go before the entry does: who sees no connection may rely on nothing being used any more.
            let (service, peer) = (service, peer);
            match service.serve_counted(&peer.socket, &peer.busy, &format_args!("connection {id}")) {
                Ok(done) => service.log(format_args!(
                    "connection {id}: closed after {} requests and {} bytes of replies",
                    done.requests, done.sent
                )),
                Err(e) => service.log(format_args!("connection {id}: handshake failed: {e}")),
            }
        });
        if let Err(e) = thread {
            // The closure is dropped, and the entry with it.
            self.service.log(format_args!("connection {id}: no thread to be had: {e}"));
        }
    }

    /// Lets outstanding requests be finished, and then ends the connections.
    fn drain(&self) {
        let deadline = Instant::now() + NBD_SHUTDOWN_TIME;
        let in_time = || Instant::now() < deadline && !self.stopper.is_impatient();
        let is_busy = || lock(&self.peers.all).values().any(|peer| peer.busy.load(SeqCst) > 0);
        while in_time() && is_busy() {
            thread::sleep(GLANCE);
        }
        let last_words = Instant::now() + LAST_WORDS;
        while in_time() && (Instant::now() < last_words || is_busy()) && !lock(&self.peers.all).is_empty() {
            thread::sleep(GLANCE);
        }
        let mut left = lock(&self.peers.all);
        for peer in left.values() {
            peer.socket.close();
        }
        let deadline = Instant::now() + LAST_STEPS;
        while !left.is_empty() {
            let Some(wait) = deadline.checked_duration_since(Instant::now()) else { return };
            left = match self.peers.one_left.wait_timeout(left, wait) {
                Ok((left, _)) => left,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}
