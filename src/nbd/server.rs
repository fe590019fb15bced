//! Accepts connections, gives each a thread, and stops in good order.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::activity::Activity;
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
/// The longest and the shortest time until it is looked again whose idle timeout is over.
const IDLE_LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));
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
    activity: Activity,
    network: Option<IpAddr>,
    /// It was hung up on, and leaves: its place is free.
    leaving: AtomicBool,
}

impl Peer {
    fn hang_up(&self) {
        self.leaving.store(true, SeqCst);
        self.socket.close();
    }
}

/// What counts as one address: of IPv6, a network of 64 bits, all of whose addresses one machine may have.
fn network(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        ip => ip,
    }
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
            let look = self.service.idle_timeout.map(|timeout| self.close_idle(timeout));
            match poll(&mut waits, look.and_then(|time| Timespec::try_from(time).ok()).as_ref()) {
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
                            self.admit(next_id, socket, from);
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

    /// Hangs up on clients that were idle for `timeout`, and says when to look again.
    fn close_idle(&self, timeout: Duration) -> Duration {
        let mut next = timeout;
        for (id, peer) in lock(&self.peers.all).iter().filter(|(_, peer)| !peer.leaving.load(SeqCst)) {
            match timeout.checked_sub(peer.activity.idle()) {
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => {
                    self.service.log(format_args!("connection {id}: hung up on, after {} s idle", timeout.as_secs()));
                    peer.hang_up();
                }
            }
        }
        next.clamp(IDLE_LOOKS.0, IDLE_LOOKS.1)
    }

    /// Why there is no place for a client from `network`; where all places are taken, the client that was idle longest
    /// makes room, if it was so for long.
    fn refusal(&self, network: Option<IpAddr>) -> Option<String> {
        let all = lock(&self.peers.all);
        let staying = || all.iter().filter(|(_, peer)| !peer.leaving.load(SeqCst));
        let from_there = staying().filter(|(_, peer)| peer.network.is_some() && peer.network == network).count();
        let count = staying().count();
        if from_there < self.service.max_per_address && count < self.service.max_connections {
            return None;
        }
        let of_one_address = from_there >= self.service.max_per_address;
        let longest = staying()
            .filter(|(_, peer)| !of_one_address || peer.network == network)
            .max_by_key(|(_, peer)| peer.activity.idle())
            .filter(|(_, peer)| peer.activity.idle() >= self.service.idle_yield);
        match longest {
            Some((id, peer)) => {
                self.service.log(format_args!("connection {id}: hung up on, as the client that was idle longest"));
                peer.hang_up();
                None
            }
            None if of_one_address => Some(format!("there are {from_there} from its address already")),
            None => Some(format!("there are {count} already")),
        }
    }

    /// Starts a thread for a connection, where there is room for one more. Otherwise the client is hung up on: it is
    /// better off with an error than with a wait that may never end.
    fn admit(&self, id: u64, socket: Socket, address: Option<SocketAddr>) {
        let from = address.map_or("the unix socket".to_owned(), |address| address.to_string());
        let network = address.map(network);
        if let Some(why) = self.refusal(network) {
            self.service.log(format_args!("connection {id} from {from}: refused, {why}"));
            return socket.close();
        }
        self.service.log(format_args!("connection {id} from {from}"));
        let peer = Peer { socket, activity: Activity::default(), network, leaving: AtomicBool::new(false) };
        let peer = Arc::new(peer);
        lock(&self.peers.all).insert(id, peer.clone());
        let entry = Entry { peers: self.peers.clone(), id };
        let service = self.service.clone();
        let thread = thread::Builder::new().name(format!("nbd {id}")).spawn(move || {
            let _entry = entry;
            // Both go before the entry does: who sees no connection may rely on nothing being used any more.
            let (service, peer) = (service, peer);
            match service.serve_counted(&peer.socket, &peer.activity, &format_args!("connection {id}")) {
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
        let is_busy = || lock(&self.peers.all).values().any(|peer| peer.activity.is_busy());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nbd::Export;

    #[test]
    fn where_no_place_is_left_the_client_that_was_idle_longest_makes_room() {
        let export = Export::new("", None, Arc::new(vec![0u8; 512])).unwrap();
        let mut service = Service::new(export).with_max_connections(2);
        service.idle_yield = Duration::from_secs(2);
        let server = Server::new(Arc::new(service), Vec::new()).unwrap();
        let mut id = 0;
        let mut connect = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            id += 1;
            server.admit(id, Socket::unix(ours), None);
            theirs
        };
        let greeted = |mut client: &UnixStream| client.read(&mut [0; 18]).unwrap() == 18;
        let ended = |mut client: &UnixStream| client.read(&mut [0; 18]).unwrap() == 0;
        let (first, second) = (connect(), connect());
        assert!(greeted(&first) && greeted(&second));
        assert!(ended(&connect()), "nobody was idle for long");
        thread::sleep(Duration::from_millis(2100));
        let third = connect();
        assert!(greeted(&third), "there is room");
        assert!(ended(&first), "the oldest went");
        let fourth = connect();
        assert!(greeted(&fourth) && ended(&second));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:5"));
        assert_ne!(of("192.0.2.2:1"), of("192.0.2.1:1"));
    }
}
