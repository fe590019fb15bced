//! A proxy on the loopback address that hands on HTTP, one request a connection, and fails as it is told.

// Sizes of test data fit every type.
#![allow(clippy::as_conversions)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Debug, Default)]
pub struct Fault {
    /// The connection is closed after so many bytes of the body.
    pub cut_after: Option<u64>,
    /// This is the answer, and nobody else is asked.
    pub answer: Option<String>,
    /// The byte at this place of the body is another.
    pub flip: Option<u64>,
    /// This header is not handed on.
    pub without_header: Option<&'static str>,
    /// These bytes in the answer are others, as many.
    pub replace: Option<(String, String)>,
    /// So many bytes of the body are handed on in a second.
    pub rate: Option<u64>,
}

impl Fault {
    pub fn cut(after: u64) -> Self {
        Self { cut_after: Some(after), ..Self::default() }
    }

    pub fn answer(head: &str) -> Self {
        Self {
            answer: Some(format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")),
            ..Self::default()
        }
    }
}

type Plan = Box<dyn Fn(&str, usize) -> Fault + Send + Sync>;

pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    plan: Plan,
    downloads: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

impl Proxy {
    /// A proxy before a port. `plan` is given a request's head, and the number of downloads of data before it.
    pub fn start(upstream: u16, plan: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan: Plan = Box::new(plan);
        let shared = Arc::new(Shared { upstream, plan, downloads: AtomicUsize::new(0), heads: Mutex::default() });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&own);
                // Either side may go away at any moment: that is what this is for.
                std::thread::spawn(move || shared.serve(client).ok());
            }
        });
        Self { port, shared }
    }

    /// A proxy whose downloads of data fail as `plan` says by their number, and nothing else.
    pub fn downloads(upstream: u16, plan: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Self {
        Self::start(upstream, move |head, n| if is_download(head) { plan(n) } else { Fault::default() })
    }

    /// The heads of all requests for data.
    pub fn download_heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().iter().filter(|h| is_download(h)).cloned().collect()
    }
}

pub fn is_download(head: &str) -> bool {
    head.starts_with("GET /v2/images/") && head.lines().next().unwrap().contains("/file ")
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut head = read_head(&mut client)?;
        self.heads.lock().unwrap().push(head.clone());
        let n = if is_download(&head) {
            self.downloads.fetch_add(1, Ordering::SeqCst)
        } else {
            self.downloads.load(Ordering::SeqCst)
        };
        let fault = (self.plan)(&head, n);
        if let Some(answer) = &fault.answer {
            client.write_all(answer.as_bytes())?;
            return client.shutdown(Shutdown::Write);
        }
        if let Some(name) = fault.without_header {
            head = head.split_inclusive("\r\n").filter(|l| !l.to_lowercase().starts_with(name)).collect();
        }
        let mut server = TcpStream::connect(("127.0.0.1", self.upstream))?;
        // One request a connection: the client must not send a second one here.
        server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes())?;
        let mut body = client.try_clone()?;
        let mut to = server.try_clone()?;
        std::thread::spawn(move || std::io::copy(&mut body, &mut to).ok());
        let mut answer = read_head(&mut server)?;
        if let Some((from, to)) = &fault.replace {
            assert_eq!(from.len(), to.len());
            answer = answer.replace(from, to);
        }
        client.write_all(answer.as_bytes())?;
        hand_on(&mut server, &mut client, &fault)?;
        client.shutdown(Shutdown::Both)
    }
}

fn read_head(from: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

fn hand_on(from: &mut TcpStream, to: &mut TcpStream, fault: &Fault) -> std::io::Result<()> {
    if let Some((old, new)) = &fault.replace {
        let mut body = Vec::new();
        from.read_to_end(&mut body)?;
        return to.write_all(String::from_utf8_lossy(&body).replace(old, new).as_bytes());
    }
    let mut at = 0u64;
    let mut block = vec![0; 64 << 10];
    loop {
        let room = fault.cut_after.map_or(block.len() as u64, |cut| cut - at).min(block.len() as u64);
        let n = match room {
            0 => 0,
            room => from.read(&mut block[..room as usize])?,
        };
        if n == 0 {
            return Ok(());
        }
        if let Some(place) = fault.flip.filter(|place| (at..at + n as u64).contains(place)) {
            block[(place - at) as usize] ^= 1;
        }
        to.write_all(&block[..n])?;
        at += n as u64;
        if let Some(rate) = fault.rate {
            std::thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
        }
    }
}
