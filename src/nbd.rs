//! An NBD server that serves any [`ReadAt`](crate::ReadAt), read-only, and knows nothing of LUKS.
//!
//! | file | what it holds |
//! |---|---|
//! | `wire` | constants and fixed layouts of the protocol |
//! | `handshake` | greeting, options, what the client chose |
//! | `transmission` | commands and replies, and the threads that do them |
//! | `reply` | replies as bytes |
//! | `buffer` | what was read ahead, and replies on their way out |
//! | `activity` | whether a connection waits for its client |
//! | `stream`, `tls` | sockets with deadlines, and TLS over them |
//! | `service` | an export and its settings |
//! | `connection` | one connection from its first byte to its last |
//! | `listen` | where connections come from: unix sockets, TCP, socket activation |
//! | `server` | accepts connections, and stops in good order |
//!
//! The protocol is doc/proto.md of the NBD project: fixed newstyle, structured replies, `base:allocation`, TLS. The
//! server keeps to what clients of nbdkit and qemu-nbd rely on.
//!
//! It is our own, not the server of the crate `nbd` (0.3): that one answers a request after the other from a cursor,
//! and has no structured replies, `GO` or TLS, which nbdcopy and QEMU ask for. The tests read from this one with its
//! client.
//!
//! # Security
//! Clients are hostile. Nothing that a client announces is allocated before it arrived, every count has a cap in
//! [`limits`](crate::limits), the handshake has a deadline, and one connection cannot hold what another one needs.
//! Bytes that come before TLS is up are never taken for bytes that came through it.
//!
//! ```
//! use std::sync::Arc;
//! use unluks::nbd::{Export, Listener, Server, Service};
//!
//! # fn main() -> unluks::Result<()> {
//! let export = Export::new("disk", None, Arc::new(vec![7u8; 1 << 20]))?;
//! let listener = Listener::private_unix()?;
//! println!("{}", listener.uri("disk", false));
//! let server = Server::new(Arc::new(Service::new(export)), vec![listener])?;
//! let stopper = server.stopper();
//! let running = std::thread::spawn(move || server.run());
//! // Clients come and go, until somebody has enough:
//! stopper.stop();
//! # running.join().unwrap()
//! # }
//! ```

mod activity;
mod buffer;
mod connection;
mod handshake;
mod listen;
mod reply;
mod server;
mod service;
mod stream;
mod tls;
mod transmission;
mod wire;

pub use listen::Listener;
pub use server::{Server, Stopper};
pub use service::{Export, Log, Service};
pub use stream::{Socket, Stream};
pub use tls::Tls;
pub use transmission::Summary;
