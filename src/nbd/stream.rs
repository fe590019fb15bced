//! The byte stream under a connection: a socket, TLS over one, or a script in memory.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A stream whose two directions are used by several threads at once.
///
/// One thread reads at a time, and one writes at a time; both may happen together.
pub trait Stream: Send + Sync {
    /// Reads at least one byte into `buf`, and says how many; 0 at the end.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::TimedOut`] at the deadline.
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::TimedOut`] at the deadline.
    fn write_all(&self, bytes: &[u8]) -> io::Result<()>;

    /// From `at` on, reads and writes fail; `None` takes the deadline away. It holds for calls that start later.
    fn set_deadline(&self, at: Option<Instant>);

    /// Says goodbye where the stream has a way to (TLS), once nobody reads or writes any more.
    fn finish(&self) {}

    /// Ends both directions: a thread that waits in the stream comes back.
    fn close(&self);
}

/// The lock's content, also after a thread panicked that held it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connected socket.
pub struct Socket {
    kind: Kind,
    deadline: Mutex<Option<Instant>>,
}

enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// A TCP connection. Nagle's algorithm is switched off, and the system looks whether the peer is still there: one
    /// that lost its power would otherwise hold its connection for ever.
    ///
    /// # Errors
    /// What the system says when the options are set.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        use rustix::net::sockopt;
        stream.set_nodelay(true)?;
        sockopt::set_socket_keepalive(&stream, true)?;
        #[cfg(target_os = "linux")]
        {
            sockopt::set_tcp_keepidle(&stream, Duration::from_secs(60))?;
            sockopt::set_tcp_keepintvl(&stream, Duration::from_secs(15))?;
            sockopt::set_tcp_keepcnt(&stream, 4)?;
        }
        Ok(Self { kind: Kind::Tcp(stream), deadline: Mutex::new(None) })
    }

    /// A connection over a unix socket.
    pub fn unix(stream: UnixStream) -> Self {
        Self { kind: Kind::Unix(stream), deadline: Mutex::new(None) }
    }

    /// What the deadline leaves; `None` where there is no deadline.
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let Some(at) = *lock(&self.deadline) else { return Ok(None) };
        match at.checked_duration_since(Instant::now()) {
            // A timeout of nothing would mean none at all to the system.
            Some(left) if !left.is_zero() => Ok(Some(left.max(Duration::from_millis(1)))),
            _ => Err(timed_out()),
        }
    }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

/// The system's word for a timeout on a socket is "would block".
fn name_timeout(e: io::Error) -> io::Error {
    match e.kind() {
        io::ErrorKind::WouldBlock => timed_out(),
        _ => e,
    }
}

impl Stream for Socket {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.time_left()?;
            let n = match &self.kind {
                Kind::Tcp(s) => left.map_or(Ok(()), |l| s.set_read_timeout(Some(l))).and_then(|()| (&*s).read(buf)),
                Kind::Unix(s) => left.map_or(Ok(()), |l| s.set_read_timeout(Some(l))).and_then(|()| (&*s).read(buf)),
            };
            match n {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(name_timeout),
            }
        }
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = self.time_left()?;
            let n = match &self.kind {
                Kind::Tcp(s) => left.map_or(Ok(()), |l| s.set_write_timeout(Some(l))).and_then(|()| (&*s).write(bytes)),
                Kind::Unix(s) => {
                    left.map_or(Ok(()), |l| s.set_write_timeout(Some(l))).and_then(|()| (&*s).write(bytes))
                }
            };
            match n {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(name_timeout(e)),
            }
        }
        Ok(())
    }

    fn set_deadline(&self, at: Option<Instant>) {
        *lock(&self.deadline) = at;
        if at.is_none() {
            // Taking a timeout away cannot fail on an open socket; on a dead one the next read says so.
            let _ = match &self.kind {
                Kind::Tcp(s) => s.set_read_timeout(None).and_then(|()| s.set_write_timeout(None)),
                Kind::Unix(s) => s.set_read_timeout(None).and_then(|()| s.set_write_timeout(None)),
            };
        }
    }

    fn close(&self) {
        // A peer that is gone already is no news.
        let _ = match &self.kind {
            Kind::Tcp(s) => s.shutdown(Shutdown::Both),
            Kind::Unix(s) => s.shutdown(Shutdown::Both),
        };
    }
}

/// Fills `buf`, or fails with [`io::ErrorKind::UnexpectedEof`].
pub(super) fn read_exact(stream: &dyn Stream, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match stream.read(buf)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => buf = buf.get_mut(n..).unwrap_or_default(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ends_a_read_and_a_write_and_can_be_taken_away() {
        let (a, b) = UnixStream::pair().unwrap();
        let a = Socket::unix(a);
        a.set_deadline(Some(Instant::now() + Duration::from_millis(30)));
        assert_eq!(a.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(a.write_all(b"x").unwrap_err().kind(), io::ErrorKind::TimedOut);
        a.set_deadline(Some(Instant::now() + Duration::from_millis(30)));
        assert_eq!(a.write_all(&vec![0; 8 << 20]).unwrap_err().kind(), io::ErrorKind::TimedOut, "nobody reads");
        a.set_deadline(None);
        (&b).write_all(b"y").unwrap();
        assert_eq!(a.read(&mut [0; 1]).unwrap(), 1);
    }

    #[test]
    fn closing_wakes_a_reader() {
        let (a, _b) = UnixStream::pair().unwrap();
        let a = Socket::unix(a);
        std::thread::scope(|s| {
            let reader = s.spawn(|| a.read(&mut [0; 1]));
            std::thread::sleep(Duration::from_millis(20));
            a.close();
            assert_eq!(reader.join().unwrap().unwrap(), 0);
        });
    }
}
