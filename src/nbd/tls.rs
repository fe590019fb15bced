//! TLS for the server: certificates from a folder as libnbd and QEMU name them, and the encrypted stream.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::stream::{Stream, lock};
use crate::error::{Error, Hint, Result, escape};

/// How much plaintext is encrypted at once: what rustls buffers before it asks for a write.
const BATCH: usize = 64 << 10;
/// How much ciphertext is read at once. It stays below rustls' limit on plaintext that was not fetched.
const RAW: usize = 16 << 10;

/// The server's certificate and key, and whose clients it lets in. Connections must use TLS (1.2 or 1.3) then.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Loads `server-cert.pem` and `server-key.pem` from `folder`; with `verify_peer` also `ca-cert.pem`, and then a
    /// client must present a certificate that this authority signed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where a file is missing, is not PEM, or does not fit
    /// the others; the message names it.
    pub fn from_folder(folder: &Path, verify_peer: bool) -> Result<Self> {
        let (cert, key) = (folder.join("server-cert.pem"), folder.join("server-key.pem"));
        let chain = certificates(&cert)?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|e| refused(&key, e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = match verify_peer {
            false => Arc::new(NoClientAuth),
            true => {
                let path = folder.join("ca-cert.pem");
                let mut roots = RootCertStore::empty();
                for ca in certificates(&path)? {
                    roots.add(ca).map_err(|e| refused(&path, e))?;
                }
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                    .build()
                    .map_err(|e| refused(&path, e))?
            }
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::invalid(format!("TLS: {e}")))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|e| {
                // GnuTLS pads the number of some EC keys with a zero byte, which the standard and ring do not allow.
                refused(&cert, format!("with server-key.pem: {e}")).with_hint(
                    "certificate and key must belong together; an EC key of certtool may need \
                     `openssl pkcs8 -topk8 -nocrypt`",
                )
            })?;
        Ok(Self::from_config(config))
    }

    /// Takes a configuration of rustls as it is.
    pub fn from_config(mut config: ServerConfig) -> Self {
        // Connections live long: tickets to take one up again would be sent for nothing.
        config.send_tls13_tickets = 0;
        Self { config: Arc::new(config) }
    }

    /// Does the server's side of the TLS handshake over `inner`.
    pub(super) fn accept<'a>(&self, inner: &'a dyn Stream) -> io::Result<TlsStream<'a>> {
        let mut tls = ServerConnection::new(self.config.clone()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            if tls.complete_io(&mut Io(inner))? == (0, 0) && tls.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(TlsStream { inner, tls: Mutex::new(tls), raw: Mutex::new(vec![0; RAW]), sealed: Mutex::new(Vec::new()) })
    }
}

fn refused(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("TLS: {}: {why}", escape(&path.display().to_string()))).with_hint(Hint::TlsFolder)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).map_err(|e| refused(path, e))?;
    let all = all.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| refused(path, e))?;
    match all.is_empty() {
        true => Err(refused(path, "holds no certificate")),
        false => Ok(all),
    }
}

/// A [`Stream`] where rustls wants `Read` and `Write`.
struct Io<'a>(&'a dyn Stream);

impl Read for Io<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Io<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write_all(buf)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// TLS over another stream, after its handshake.
///
/// The state of the connection serves both directions, so it is locked; but never while a thread waits for the peer.
pub(super) struct TlsStream<'a> {
    inner: &'a dyn Stream,
    tls: Mutex<ServerConnection>,
    raw: Mutex<Vec<u8>>,
    /// Ciphertext on its way out. Its lock also keeps records in the order they were sealed in.
    sealed: Mutex<Vec<u8>>,
}

impl TlsStream<'_> {
    /// What was negotiated, for the log.
    pub(super) fn version(&self) -> &'static str {
        match lock(&self.tls).protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS",
        }
    }

    /// Sends what rustls has to send: replies, alerts, key updates.
    fn send_pending(&self, sealed: &mut Vec<u8>) -> io::Result<()> {
        sealed.clear();
        {
            let mut tls = lock(&self.tls);
            while tls.wants_write() {
                tls.write_tls(sealed)?;
            }
        }
        self.inner.write_all(sealed)
    }
}

impl Stream for TlsStream<'_> {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut raw = lock(&self.raw);
        loop {
            match lock(&self.tls).reader().read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            let n = self.inner.read(&mut raw)?;
            let mut rest = raw.get(..n).unwrap_or_default();
            let outcome = {
                let mut tls = lock(&self.tls);
                loop {
                    // An empty read tells rustls that the stream ended, so that it can tell a clean end from a cut.
                    tls.read_tls(&mut rest)?;
                    let outcome = tls.process_new_packets();
                    if outcome.is_err() || rest.is_empty() {
                        break outcome;
                    }
                }
            };
            if let Err(e) = outcome {
                // The alert that says why; the connection ends whether or not it arrives.
                let _ = self.send_pending(&mut lock(&self.sealed));
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        }
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut sealed = lock(&self.sealed);
        while !bytes.is_empty() {
            let part = bytes.get(..BATCH).unwrap_or(bytes);
            // rustls takes less than it is given where something else waits to be sent.
            let n = lock(&self.tls).writer().write(part)?;
            bytes = bytes.get(n..).unwrap_or_default();
            self.send_pending(&mut sealed)?;
        }
        Ok(())
    }

    fn set_deadline(&self, at: Option<Instant>) {
        self.inner.set_deadline(at);
    }

    fn finish(&self) {
        lock(&self.tls).send_close_notify();
        // A client that is gone needs no goodbye.
        let _ = self.send_pending(&mut lock(&self.sealed));
    }

    fn close(&self) {
        self.inner.close();
    }
}
