//! The NBD server's connection: the input is all that a client ever sends.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use unluks::nbd::{Export, Service, Stream};

/// Reads go no further than the export, so a small one bounds what a script can ask for.
const EXPORT: usize = 96 << 10;

/// A client that has sent all it ever will, and what it was sent.
struct Script<'a> {
    unread: Mutex<&'a [u8]>,
    sent: Mutex<Vec<u8>>,
}

impl Stream for Script<'_> {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut unread = self.unread.lock().unwrap();
        let n = unread.len().min(buf.len());
        let (now, later) = unread.split_at(n);
        buf[..n].copy_from_slice(now);
        *unread = later;
        Ok(n)
    }

    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.sent.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn set_deadline(&self, _: Option<Instant>) {}

    fn close(&self) {}
}

fn service() -> Service {
    let content: Vec<u8> = (0..EXPORT).map(|n| (n / 512) as u8).collect();
    Service::new(Export::new("disk", Some("a disk".into()), Arc::new(content)).unwrap()).with_threads(1)
}

/// Accepted is a script that gets through the handshake and asks for something.
pub(super) fn nbd(data: &[u8]) -> bool {
    let script = Script { unread: Mutex::new(data), sent: Mutex::default() };
    let summary = service().serve_connection(&script);
    let sent = script.sent.into_inner().unwrap();
    assert!(sent.starts_with(b"NBDMAGICIHAVEOPT"));
    let requests = summary.as_ref().map_or(data.len() / 28 + 1, |s| s.requests as usize);
    // Nothing makes the server say more than all of its answers to the options and its data for each request.
    assert!(sent.len() <= (1 << 20) + data.len() * 64 + requests * (EXPORT + 4096), "{} bytes of replies", sent.len());
    summary.is_ok_and(|s| s.requests > 0)
}
