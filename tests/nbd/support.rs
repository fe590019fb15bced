//! What the NBD tests share: a source with a known content, a server around it, and a client that sends raw bytes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use unluks::io::Extent;
use unluks::nbd::{Export, Listener, Server, Service, Stopper};
use unluks::{Error, ErrorKind, ReadAt, Result};

pub const SIZE: u64 = 40 << 20;
/// Known to be zero, and reported as such.
pub const HOLE: std::ops::Range<u64> = 1 << 20..2 << 20;
/// Reading here fails.
pub const BAD: std::ops::Range<u64> = (3 << 20) + 300_000..(3 << 20) + 300_512;
/// Reading here takes a while.
pub const SLEEPY: std::ops::Range<u64> = 5 << 20..6 << 20;
pub const NAP: Duration = Duration::from_millis(900);
/// Reading here panics: a source with a defect.
pub const DEFECT: std::ops::Range<u64> = 7 << 20..(7 << 20) + 512;

/// A source whose every byte is known.
pub struct Known;

/// What [`Known`] holds from `offset` on.
pub fn known(offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(&mut bytes, offset);
    bytes
}

fn fill(buf: &mut [u8], offset: u64) {
    /// Bytes that repeat after a prime number: a piece in the wrong place is told from the right one.
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    let pattern =
        PATTERN.get_or_init(|| (0..1_000_003u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect());
    let mut done = 0;
    while done < buf.len() {
        let from = ((offset + done as u64) % pattern.len() as u64) as usize;
        let part = (buf.len() - done).min(pattern.len() - from);
        buf[done..done + part].copy_from_slice(&pattern[from..from + part]);
        done += part;
    }
    let end = offset + buf.len() as u64;
    let (from, to) = (HOLE.start.clamp(offset, end), HOLE.end.clamp(offset, end));
    buf[(from - offset) as usize..(to - offset) as usize].fill(0);
}

impl ReadAt for Known {
    fn len(&self) -> u64 {
        SIZE
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        assert!(end <= SIZE, "the server checks bounds");
        let hits = |range: &std::ops::Range<u64>| offset < range.end && range.start < end;
        assert!(!hits(&DEFECT), "a defect of the source, made on purpose");
        if hits(&BAD) {
            return Err(Error::new(ErrorKind::Io, "a bad sector, made on purpose").at(BAD.start));
        }
        if hits(&SLEEPY) {
            std::thread::sleep(NAP);
        }
        fill(buf, offset);
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> Result<Extent> {
        Ok(match offset {
            o if o < HOLE.start => Extent { len: HOLE.start - o, zero: false },
            o if o < HOLE.end => Extent { len: HOLE.end - o, zero: true },
            o => Extent { len: SIZE - o, zero: false },
        })
    }
}

/// A server that runs as long as this lives.
pub struct Running {
    pub path: PathBuf,
    pub uri: String,
    pub stopper: Stopper,
    thread: Option<JoinHandle<Result<()>>>,
}

pub fn export() -> Export {
    Export::new("disk", Some("the plaintext of a test".into()), Arc::new(Known)).unwrap()
}

pub fn start() -> Running {
    start_service(Service::new(export()))
}

pub fn start_service(service: Service) -> Running {
    start_on(service, Listener::private_unix().unwrap())
}

pub fn start_on(service: Service, listener: Listener) -> Running {
    let uri = listener.uri("disk", service.has_tls());
    let path = listener.path().map(Path::to_owned).unwrap_or_default();
    let server = Server::new(Arc::new(service), vec![listener]).unwrap();
    let stopper = server.stopper();
    Running { path, uri, stopper, thread: Some(std::thread::spawn(move || server.run())) }
}

impl Running {
    pub fn connect(&self) -> Raw<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Raw(stream)
    }

    /// A client in the transmission phase, with structured replies and `base:allocation`.
    pub fn structured(&self) -> Raw<UnixStream> {
        let mut c = self.connect();
        c.greet(3);
        c.negotiate();
        c
    }

    /// A client in the transmission phase, with simple replies.
    pub fn simple(&self) -> Raw<UnixStream> {
        let mut c = self.connect();
        c.greet(3);
        assert_eq!(c.go(b"disk", &[]).last().unwrap().0, ACK);
        c
    }

    /// Proves that the server still serves right bytes.
    pub fn check_alive(&self) {
        let mut c = self.structured();
        c.request(0, READ, 77, 12_345, 1000);
        assert_eq!(c.read_reply(77, 12_345, 1000), Ok(known(12_345, 1000)));
        c.request(0, DISC, 0, 0, 0);
        c.expect_end();
    }

    pub fn stop_and_join(mut self) {
        self.stopper.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stopper.stop();
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(std::thread::panicking() || outcome.unwrap().is_ok());
        }
    }
}

pub const READ: u16 = 0;
pub const WRITE: u16 = 1;
pub const DISC: u16 = 2;
pub const FLUSH: u16 = 3;
pub const TRIM: u16 = 4;
pub const CACHE: u16 = 5;
pub const WRITE_ZEROES: u16 = 6;
pub const BLOCK_STATUS: u16 = 7;

pub const EXPORT_NAME: u32 = 1;
pub const ABORT: u32 = 2;
pub const LIST: u32 = 3;
pub const STARTTLS: u32 = 5;
pub const INFO: u32 = 6;
pub const GO: u32 = 7;
pub const STRUCTURED_REPLY: u32 = 8;
pub const LIST_META: u32 = 9;
pub const SET_META: u32 = 10;
pub const EXTENDED_HEADERS: u32 = 11;

pub const ACK: u32 = 1;
pub const SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const META: u32 = 4;
pub const ERR_UNSUP: u32 = (1 << 31) + 1;
pub const ERR_POLICY: u32 = (1 << 31) + 2;
pub const ERR_INVALID: u32 = (1 << 31) + 3;
pub const ERR_TLS_REQD: u32 = (1 << 31) + 5;
pub const ERR_UNKNOWN: u32 = (1 << 31) + 6;
pub const ERR_TOO_BIG: u32 = (1 << 31) + 9;

pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const EOVERFLOW: u32 = 75;
pub const ESHUTDOWN: u32 = 108;

/// A client that says exactly what a test makes it say.
pub struct Raw<S>(pub S);

/// A chunk of a structured reply.
#[derive(Debug)]
pub struct Chunk {
    pub flags: u16,
    pub kind: u16,
    pub cookie: u64,
    pub data: Vec<u8>,
}

pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

/// The data of SET_META_CONTEXT and LIST_META_CONTEXT.
pub fn queries(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    queries.iter().for_each(|q| data.extend(string(q)));
    data
}

/// The data of GO and INFO.
pub fn wishes(name: &[u8], infos: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((infos.len() as u16).to_be_bytes());
    infos.iter().for_each(|i| data.extend(i.to_be_bytes()));
    data
}

impl<S: Read + Write> Raw<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    /// The server closes, and says nothing more.
    pub fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert_eq!(rest, b"", "something was said before the end"),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "{e}"),
        }
    }

    pub fn greet(&mut self, flags: u32) {
        assert_eq!(self.take(16), b"NBDMAGICIHAVEOPT");
        assert_eq!(self.u16(), 3, "FIXED_NEWSTYLE and NO_ZEROES, and nothing else");
        self.send(&flags.to_be_bytes());
    }

    pub fn send_option(&mut self, kind: u32, data: &[u8]) {
        self.send(&[b"IHAVEOPT", &kind.to_be_bytes()[..], &string(data)].concat());
    }

    pub fn option_reply(&mut self, kind: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), 0x3_e889_0455_65a9);
        assert_eq!(self.u32(), kind, "the reply names its option");
        let code = self.u32();
        let len = self.u32() as usize;
        (code, self.take(len))
    }

    /// Sends an option, and takes replies up to the ACK or the error.
    pub fn option(&mut self, kind: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send_option(kind, data);
        let mut all = Vec::new();
        loop {
            let reply = self.option_reply(kind);
            let done = reply.0 == ACK || reply.0 >> 31 == 1;
            all.push(reply);
            if done {
                return all;
            }
        }
    }

    /// Sends an option, and gives the type of its last reply.
    pub fn code(&mut self, kind: u32, data: &[u8]) -> u32 {
        self.option(kind, data).last().unwrap().0
    }

    pub fn go(&mut self, name: &[u8], infos: &[u16]) -> Vec<(u32, Vec<u8>)> {
        self.option(GO, &wishes(name, infos))
    }

    /// Structured replies, `base:allocation`, GO.
    pub fn negotiate(&mut self) {
        assert_eq!(self.code(STRUCTURED_REPLY, b""), ACK);
        let meta = self.option(SET_META, &queries(b"disk", &[b"base:allocation"]));
        assert_eq!(meta[0].0, META);
        assert_eq!(self.go(b"disk", &[]).last().unwrap().0, ACK);
    }

    pub fn request(&mut self, flags: u16, command: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&request(flags, command, cookie, offset, length));
    }

    pub fn chunk(&mut self) -> Chunk {
        assert_eq!(self.u32(), 0x668e_33ef, "a structured reply");
        let (flags, kind, cookie) = (self.u16(), self.u16(), self.u64());
        let len = self.u32() as usize;
        Chunk { flags, kind, cookie, data: self.take(len) }
    }

    /// The single chunk of an error: its number. The text must be there.
    pub fn error(&mut self, cookie: u64) -> u32 {
        let chunk = self.chunk();
        assert_eq!((chunk.flags, chunk.cookie), (1, cookie), "{chunk:?}");
        let offset = match chunk.kind {
            0x8001 => 0,
            0x8002 => 8,
            _ => panic!("not an error: {chunk:?}"),
        };
        let text_len = usize::from(u16::from_be_bytes(chunk.data[4..6].try_into().unwrap()));
        assert!(text_len > 0 && chunk.data.len() == 6 + text_len + offset, "{chunk:?}");
        u32::from_be_bytes(chunk.data[..4].try_into().unwrap())
    }

    /// A structured reply that is a success without data.
    pub fn success(&mut self, cookie: u64) {
        let chunk = self.chunk();
        assert_eq!((chunk.flags, chunk.kind, chunk.cookie, chunk.data.len()), (1, 0, cookie, 0), "{chunk:?}");
    }

    /// Takes a whole structured reply to a READ, and checks that its chunks lie in range and do not overlap. The error
    /// number where there was an error chunk.
    pub fn read_reply(&mut self, cookie: u64, offset: u64, length: usize) -> std::result::Result<Vec<u8>, u32> {
        let (mut data, mut got, mut error) = (vec![0xee; length], 0, None);
        let mut covered: Vec<(usize, usize)> = Vec::new();
        loop {
            let chunk = self.chunk();
            assert_eq!(chunk.cookie, cookie);
            match chunk.kind {
                0 => assert_eq!((chunk.flags, chunk.data.len()), (1, 0)),
                1 => {
                    let at = u64::from_be_bytes(chunk.data[..8].try_into().unwrap());
                    let bytes = &chunk.data[8..];
                    let from = usize::try_from(at.checked_sub(offset).expect("in range")).unwrap();
                    let to = from + bytes.len();
                    assert!(!bytes.is_empty() && to <= length, "in range");
                    assert!(covered.iter().all(|c| to <= c.0 || c.1 <= from), "no overlap");
                    covered.push((from, to));
                    data[from..to].copy_from_slice(bytes);
                    got += bytes.len();
                }
                0x8001 | 0x8002 => error = Some(u32::from_be_bytes(chunk.data[..4].try_into().unwrap())),
                other => panic!("chunk type {other}"),
            }
            if chunk.flags & 1 != 0 {
                assert!(error.is_some() || got == length, "all of it, or an error");
                return error.map_or(Ok(data), Err);
            }
        }
    }

    /// A simple reply's head: the error number.
    pub fn simple_reply(&mut self, cookie: u64) -> u32 {
        assert_eq!(self.u32(), 0x6744_6698, "a simple reply");
        let error = self.u32();
        assert_eq!(self.u64(), cookie);
        error
    }
}

pub fn request(flags: u16, command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = 0x2560_9513u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Runs another program. A test that needs a program that is not there fails, and says what to install.
pub fn peer(package: &str, command: &mut Command) -> Output {
    command.output().unwrap_or_else(|e| {
        panic!("{:?} does not run ({e}): install the Debian package {package}", command.get_program())
    })
}

/// As [`peer`], with a program that must succeed: what it printed.
pub fn peer_ok(package: &str, command: &mut Command) -> String {
    let out = peer(package, command);
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{text}\n{errors}", out.status);
    text.into_owned()
}

/// A command from a program and its arguments.
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// A folder with an authority, a server's certificate for localhost and 127.0.0.1, and a client's, made by certtool.
/// `stranger` holds a client certificate of another authority, beside the ca-cert.pem of the first.
/// They are made once for all tests of a binary, in the build folder.
pub fn certificates() -> (&'static Path, &'static Path) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(concat!("certificates-", env!("CARGO_CRATE_NAME")));
        // What an earlier run left; there may be nothing.
        let _ = std::fs::remove_dir_all(&dir);
        let (stranger, stranger_ca) = (dir.join("stranger"), dir.join("stranger-ca"));
        std::fs::create_dir_all(&stranger).unwrap();
        std::fs::create_dir_all(&stranger_ca).unwrap();
        authority(&dir);
        authority(&stranger_ca);
        signed(&dir, &dir, "server", "tls_www_server\ndns_name = localhost\nip_address = 127.0.0.1\n");
        signed(&dir, &dir, "client", "tls_www_client\n");
        signed(&stranger_ca, &stranger, "client", "tls_www_client\n");
        std::fs::copy(dir.join("ca-cert.pem"), stranger.join("ca-cert.pem")).unwrap();
        (dir, stranger)
    });
    (&made.0, &made.1)
}

fn certtool(dir: &Path, words: &[&str]) {
    peer_ok("gnutls-bin", Command::new("certtool").args(words).current_dir(dir));
}

fn authority(dir: &Path) {
    std::fs::write(dir.join("ca.info"), "cn = authority\nca\ncert_signing_key\nexpiration_days = 2\n").unwrap();
    certtool(dir, &["--generate-privkey", "--bits", "2048", "--outfile", "ca-key.pem"]);
    let sign = ["--generate-self-signed", "--load-privkey", "ca-key.pem", "--template", "ca.info"];
    certtool(dir, &[&sign[..], &["--outfile", "ca-cert.pem"]].concat());
}

fn signed(ca: &Path, dir: &Path, who: &str, template: &str) {
    let (info, key, cert) = (format!("{who}.info"), format!("{who}-key.pem"), format!("{who}-cert.pem"));
    let template = format!("cn = {who}\nexpiration_days = 2\nsigning_key\nencryption_key\n{template}");
    std::fs::write(dir.join(&info), template).unwrap();
    certtool(dir, &["--generate-privkey", "--bits", "2048", "--outfile", &key]);
    let (ca_cert, ca_key) = (ca.join("ca-cert.pem"), ca.join("ca-key.pem"));
    let authority = ["--load-ca-certificate", ca_cert.to_str().unwrap(), "--load-ca-privkey", ca_key.to_str().unwrap()];
    let own = ["--generate-certificate", "--load-privkey", &key, "--template", &info, "--outfile", &cert];
    certtool(dir, &[&own[..], &authority].concat());
}
