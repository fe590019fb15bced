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
