//! Where connections come from, and the URI that clients find it by.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::stream::Socket;
use crate::error::{Error, Hint, Result, escape};
use crate::limits::NBD_ACTIVATED_MAX;

/// How many connections may wait to be accepted. The system cuts it to what it allows.
const BACKLOG: i32 = 1024;

/// A socket that clients connect to. Its file, where it has one, goes when this is dropped.
pub struct Listener {
    kind: Kind,
}

enum Kind {
    Tcp(TcpListener),
    Unix { listener: UnixListener, path: Option<PathBuf>, _file: Option<SocketFile> },
}

/// A socket file that was made here, and the folder around it where that was made for it alone.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    folder: Option<PathBuf>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have put its own socket there since.
        if fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir(folder);
        }
    }
}

impl Listener {
    /// A unix socket at `path` that only its owner may connect to (mode 0600). A socket file that nobody listens on any
    /// more is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where `path` is in use or is something else than a
    /// socket; [`ErrorKind::Io`](crate::ErrorKind::Io) where the system refuses.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        Self::unix_in(path.as_ref(), None)
    }

    /// A unix socket in a new folder that only its owner may enter.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the system refuses.
    pub fn private_unix() -> Result<Self> {
        let parent = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let parent = parent.unwrap_or_else(std::env::temp_dir);
        // Creating a folder fails where something has its name, so a guessed name does no harm.
        for n in 0..1000u32 {
            let folder = parent.join(format!("unluks-{}-{n}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Self::unix_in(&folder.join("nbd.sock"), Some(folder)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    let failed = Error::io(format!("making the folder {} for the socket", name(&folder)), e);
                    return Err(failed.with_hint(Hint::NameSocket));
                }
            }
        }
        Err(Error::invalid(format!("{} is full of folders unluks-*", name(&parent))))
    }

    fn unix_in(path: &Path, folder: Option<PathBuf>) -> Result<Self> {
        let failed = |what: &str, e: io::Error| Error::io(format!("{what} the socket {}", name(path)), e);
        remove_stale(path)?;
        // The standard library binds and listens in one go. Here the mode is set in between: nobody can have connected.
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(|e| failed("making", e.into()))?;
        let address = SocketAddrUnix::new(path)
            .map_err(|e| failed("naming", e.into()).with_hint("the path of a unix socket has at most 107 bytes"))?;
        rustix::net::bind(&socket, &address).map_err(|e| failed("binding", e.into()))?;
        let meta = fs::symlink_metadata(path).map_err(|e| failed("looking for", e))?;
        let file = SocketFile { path: path.to_owned(), inode: (meta.dev(), meta.ino()), folder };
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).map_err(|e| failed("protecting", e.into()))?;
        rustix::net::listen(&socket, BACKLOG).map_err(|e| failed("listening on", e.into()))?;
        let path = std::path::absolute(path).map_err(|e| failed("naming", e))?;
        Ok(Self { kind: Kind::Unix { listener: socket.into(), path: Some(path), _file: Some(file) } })
    }

    /// A TCP socket. Port 0 lets the system choose one, which [`Listener::uri`] tells.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the system refuses.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).map_err(|e| Error::io(format!("listening on {address}"), e))?;
        Ok(Self { kind: Kind::Tcp(listener) })
    }

    /// The sockets that a service manager, or a client of libnbd, opened for this process (LISTEN_FDS of systemd's
    /// sd_listen_fds). None where LISTEN_PID does not name this process. The variables are taken out of the
    /// environment: call it once, and before there are other threads.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a descriptor is no listening stream socket.
    pub fn activated() -> Result<Vec<Self>> {
        let number = |key| std::env::var(key).ok().and_then(|value| value.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Ok(Vec::new());
        }
        let count = number("LISTEN_FDS").and_then(|count| usize::try_from(count).ok());
        match count {
            Some(count) if count <= NBD_ACTIVATED_MAX => {}
            _ => return Err(Error::invalid(format!("LISTEN_FDS is not a number up to {NBD_ACTIVATED_MAX}"))),
        }
        let mut sockets = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for n in 0..sockets.len() {
            let kind = match sockets.take_unix_listener(n) {
                Ok(unix) => unix.map(|listener| {
                    let address = listener.local_addr().ok();
                    let path = address.and_then(|address| address.as_pathname().map(Path::to_owned));
                    Kind::Unix { listener, path, _file: None }
                }),
                Err(_) => sockets.take_tcp_listener(n).map(|tcp| tcp.map(Kind::Tcp)).map_err(|e| {
                    Error::io(format!("socket activation: descriptor {} is no unix or TCP socket", n + 3), e)
                })?,
            };
            listeners.extend(kind.map(|kind| Self { kind }));
        }
        Ok(listeners)
    }

    /// Whether other machines can connect to it: a TCP address that is not a loopback address.
    pub fn is_exposed(&self) -> bool {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().map_or(true, |a| !a.ip().to_canonical().is_loopback()),
            Kind::Unix { .. } => false,
        }
    }

    /// The path of the unix socket, where it is one and has a path.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Unix { path, .. } => path.as_deref(),
            Kind::Tcp(_) => None,
        }
    }

    /// The address of the TCP socket, where it is one.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Tcp(listener) => listener.local_addr().ok(),
            Kind::Unix { .. } => None,
        }
    }

    /// The URI of an export on it (doc/uri.md of the NBD project), such as `nbd+unix:///disk?socket=/tmp/sock`.
    pub fn uri(&self, export: &str, tls: bool) -> String {
        let scheme = if tls { "nbds" } else { "nbd" };
        let export = percent(export.as_bytes(), b"");
        match &self.kind {
            Kind::Unix { path, .. } => {
                let path = path.as_deref().map(|path| percent(path.as_os_str().as_encoded_bytes(), b"/"));
                format!("{scheme}+unix:///{export}?socket={}", path.unwrap_or_default())
            }
            Kind::Tcp(_) => {
                // An address that stands for all of them is no place to connect to.
                let host = self
                    .address()
                    .map(|a| if a.ip().is_unspecified() { format!("localhost:{}", a.port()) } else { a.to_string() });
                format!("{scheme}://{}/{export}", host.unwrap_or_default())
            }
        }
    }

    /// From now on, [`Listener::accept`] does not wait.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match &self.kind {
            Kind::Tcp(listener) => listener.set_nonblocking(true),
            Kind::Unix { listener, .. } => listener.set_nonblocking(true),
        }
    }

    /// The next connection, and the address that it is from, where it has one.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Socket::tcp(stream)?, Some(peer)))
            }
            Kind::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok((Socket::unix(stream), None))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix { listener, .. } => listener.as_fd(),
        }
    }
}

fn name(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// Makes way at `path`, where a server left its socket behind.
fn remove_stale(path: &Path) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(format!("looking at {}", name(path)), e)),
    };
    if !meta.file_type().is_socket() {
        return Err(Error::invalid(format!("{} exists and is not a socket", name(path))));
    }
    match UnixStream::connect(path) {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|e| Error::io(format!("removing the stale socket {}", name(path)), e))
        }
        _ => Err(Error::invalid(format!("the socket {} is in use", name(path)))
            .with_hint("stop the server that listens there, or choose another path")),
    }
}

/// `bytes` with everything escaped that does not stand for itself in a URI, but for `plain`.
fn percent(bytes: &[u8], plain: &[u8]) -> String {
    let mut out = String::new();
    for &b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(b)),
            b if plain.contains(&b) => out.push(char::from(b)),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_unix_socket_is_private_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let listener = Listener::unix(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listener.uri("x/y", false).starts_with("nbd+unix:///x%2Fy?socket=/"));
        assert!(listener.uri("", true).ends_with("/a%20socket"));
        let e = Listener::unix(&path).err().unwrap();
        assert!(e.to_string().contains("in use"), "{e}");
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the standard library leaves it behind");
        Listener::unix(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(Listener::unix(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn a_socket_that_another_server_put_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let old = Listener::unix(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _new = Listener::unix(&path).unwrap();
        drop(old);
        assert!(path.exists());
    }

    #[test]
    fn a_private_socket_takes_its_folder_along() {
        let listener = Listener::private_unix().unwrap();
        let folder = listener.path().unwrap().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        drop(listener);
        assert!(!folder.exists());
    }

    #[test]
    fn tcp_addresses_are_told_with_their_port() {
        let v4 = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(v4.uri("a b", true), format!("nbds://127.0.0.1:{}/a%20b", v4.address().unwrap().port()));
        assert!(!v4.is_exposed());
        let v6 = Listener::tcp("[::1]:0".parse().unwrap()).unwrap();
        assert!(v6.uri("", false).starts_with("nbd://[::1]:"));
        assert!(!v6.is_exposed());
        let all = Listener::tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        assert!(all.is_exposed());
        assert!(all.uri("", false).starts_with("nbd://localhost:"));
    }
}
