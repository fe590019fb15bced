//! A cloud for tests of what goes wrong: it answers as a test says, and notes what it was asked.

use std::io::Read;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::steps::Api;
use super::{Answer, Body, Request};
use unluks::error::Result;

type Reply = Box<dyn Fn(&str) -> Option<(u16, Value)> + Sync>;

/// Answers `METHOD path`.
pub struct Fake {
    reply: Reply,
    /// What it was asked, as `METHOD path`.
    pub asked: Mutex<Vec<String>>,
    /// What was sent with it.
    pub sent: Mutex<Vec<Vec<u8>>>,
}

impl Fake {
    /// What `reply` has no answer for gets a 404.
    pub fn new(reply: impl Fn(&str) -> Option<(u16, Value)> + Sync + 'static) -> Self {
        Self { reply: Box::new(reply), asked: Mutex::default(), sent: Mutex::default() }
    }

    /// Whatever changes something, as `METHOD path`.
    pub fn changes(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|a| !a.starts_with("GET")).cloned().collect()
    }
}

impl Api for Fake {
    fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let asked = format!("{} {}", request.method, request.path);
        let sent = match request.body {
            Body::Empty => Vec::new(),
            Body::Json(json) => json.to_string().into_bytes(),
            Body::Bytes(_, bytes) => bytes.to_vec(),
            Body::File(_, file, len) => {
                let mut sent = Vec::new();
                let mut file = file;
                file.read_to_end(&mut sent).unwrap();
                // A service that gets less than it was promised breaks off.
                if u64::try_from(sent.len()).unwrap() != len {
                    return Err(unluks::Error::new(unluks::ErrorKind::Io, "the connection broke"));
                }
                sent
            }
        };
        self.sent.lock().unwrap().push(sent);
        let (status, json) = (self.reply)(&asked).unwrap_or_else(|| (404, json!({"message": "no such thing"})));
        self.asked.lock().unwrap().push(asked);
        Ok(Answer { service: request.service, status, body: json.to_string().into_bytes() })
    }
}

type Served = (u16, Vec<(&'static str, String)>, String);

/// An HTTP server on the loopback address, for what goes before the services: one request a connection.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    asked: std::sync::Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request, which `reply` sees whole, with a status, headers and a body.
    pub fn start(reply: impl Fn(&str) -> Served + Send + 'static) -> Self {
        use std::io::Write;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
        let noted = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut block = [0; 4096];
                let whole = |request: &[u8]| {
                    let text = String::from_utf8_lossy(request).into_owned();
                    text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                        let head = head.to_lowercase();
                        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        body.len() >= len.map_or(0, |len| len.parse().unwrap())
                    })
                };
                while !whole(&request) {
                    match stream.read(&mut block) {
                        Ok(n) if n > 0 => request.extend_from_slice(&block[..n]),
                        _ => break,
                    }
                }
                let request = String::from_utf8_lossy(&request).into_owned();
                let (status, headers, body) = reply(&request);
                noted.lock().unwrap().push(request);
                let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let len = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
                );
            }
        });
        Self { port, asked }
    }

    /// All requests, whole.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
