//! An object store that answers as Swift's API documents it (container listings by `marker`, objects with their MD5 as `Etag`),
//! a page of a few names at a time, and fails as it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use md5::{Digest, Md5};
use serde_json::json;

/// What happens to one request of an object.
pub enum Swift {
    Good,
    Status(&'static str),
    /// The connection ends in the middle.
    Cut,
    /// The byte in the middle is another.
    Flip,
}

type Plan = Box<dyn FnMut(&str) -> Swift + Send>;

/// A running store.
pub struct Store {
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    objects: BTreeMap<String, Vec<u8>>,
    plan: Mutex<Plan>,
    asked: Mutex<Vec<String>>,
}

/// Names in one page of a listing.
const PAGE: usize = 5;

impl Store {
    /// A store whose container `volumebackups` has these objects.
    pub fn start(objects: BTreeMap<String, Vec<u8>>, plan: impl FnMut(&str) -> Swift + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { objects, plan: Mutex::new(Box::new(plan)), asked: Mutex::default() });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // Either side may go away at any moment: that is what this is for.
                own.serve(client).ok();
            }
        });
        Self { port, shared }
    }

    /// The account's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/AUTH_demo", self.port)
    }

    /// The names of all objects that were asked for since this was asked last.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock().unwrap())
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte)? == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let target = head.split(' ').nth(1).unwrap_or_default();
        let url = address(target);
        if !head.to_ascii_lowercase().contains("\r\nx-auth-token: ") {
            return answer(&mut client, "401 Unauthorized", "", b"", 0);
        }
        let path = url.0.strip_prefix("/v1/AUTH_demo/volumebackups").unwrap_or("/nothing");
        if path.is_empty() {
            let (prefix, marker) = (url.1.get("prefix").cloned(), url.1.get("marker").cloned());
            let (prefix, marker) = (prefix.unwrap_or_default(), marker.unwrap_or_default());
            let names = self.objects.iter().filter(|(name, _)| name.starts_with(&prefix) && **name > marker).take(PAGE);
            let page: Vec<_> = names
                .map(|(name, data)| json!({"name": name, "bytes": data.len(), "hash": hex::encode(Md5::digest(data))}))
                .collect();
            let page = json!(page).to_string();
            return answer(&mut client, "200 OK", "", page.as_bytes(), page.len());
        }
        let name = path.trim_start_matches('/');
        let Some(data) = self.objects.get(name) else { return answer(&mut client, "404 Not Found", "", b"", 0) };
        self.asked.lock().unwrap().push(name.to_owned());
        let what = (self.plan.lock().unwrap())(name);
        let etag = format!("Etag: {}\r\n", hex::encode(Md5::digest(data)));
        let mut data = data.clone();
        let (len, half) = (data.len(), data.len() / 2);
        match what {
            Swift::Good => {}
            Swift::Status(status) => return answer(&mut client, status, "", b"", 0),
            Swift::Cut => data.truncate(half),
            Swift::Flip => data[half] ^= 1,
        }
        answer(&mut client, "200 OK", &etag, &data, len)
    }
}

/// The path and the query, decoded.
fn address(target: &str) -> (String, BTreeMap<String, String>) {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, more @ ..] = rest {
            rest = more;
            match (first, more) {
                (b'%', [a, b, more @ ..]) => {
                    bytes.extend(hex::decode([*a, *b]).unwrap());
                    rest = more;
                }
                (b'+', _) => bytes.push(b' '),
                _ => bytes.push(*first),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    (decoded(path), pairs.map(|(key, value)| (decoded(key), decoded(value))).collect())
}

fn answer(client: &mut TcpStream, status: &str, header: &str, body: &[u8], len: usize) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\n{header}Content-Length: {len}\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes())?;
    client.write_all(body)
}
