//! A request to a service, and its answer.

use std::fs::File;
use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use reqwest::Method;
use serde_json::Value;

use unluks::error::{Error, ErrorKind, Result, escape};
use unluks::num::{at_most, to_u64};

/// Bytes of a file that are read and sent at a time.
const UPLOAD_CHUNK: usize = 256 << 10;

/// A service of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Glance, v2.
    Image,
    /// Barbican, v1.
    KeyManager,
    /// Cinder, v3.
    BlockStorage,
    /// Swift, v1.
    ObjectStore,
}

impl Service {
    /// Its types in catalogues, the official one first (service-types-authority), and the version of the API at the start
    /// of paths.
    pub(super) fn parts(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Image => (&["image"], "v2"),
            Self::KeyManager => (&["key-manager"], "v1"),
            Self::BlockStorage => (&["block-storage", "block-store", "volumev3", "volumev2", "volume"], "v3"),
            Self::ObjectStore => (&["object-store"], "v1"),
        }
    }

    /// The name that people know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "Glance",
            Self::KeyManager => "Barbican",
            Self::BlockStorage => "Cinder",
            Self::ObjectStore => "Swift",
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, Default)]
pub enum Body<'a> {
    /// Nothing.
    #[default]
    Empty,
    /// A JSON document.
    Json(&'a Value),
    /// Bytes of a media type. They are copied once, into memory that is not locked.
    Bytes(&'a str, &'a [u8]),
    /// A media type, and so many bytes of a file or a pipe from where it stands, streamed.
    File(&'a str, &'a File, u64),
}

/// A request to a service.
#[derive(Clone)]
pub struct Request<'a> {
    /// The method; GET is repeated after failures, others are not.
    pub method: Method,
    /// The service.
    pub service: Service,
    /// The path behind the version, without a leading slash: `images/ID`.
    pub path: &'a str,
    /// What stands behind the question mark.
    pub query: &'a [(&'a str, &'a str)],
    /// Headers beside the token.
    pub headers: &'a [(&'static str, &'a str)],
    /// What it carries.
    pub body: Body<'a>,
}

impl<'a> Request<'a> {
    /// A GET of JSON.
    pub fn get(service: Service, path: &'a str) -> Self {
        let headers = &[("accept", "application/json")];
        Self { method: Method::GET, service, path, query: &[], headers, body: Body::Empty }
    }
}

/// An answer, whatever its status.
pub struct Answer {
    pub(super) service: Service,
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Whether the status is one of success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, whatever the status.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] where it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .map_err(|_| Error::corrupt("cloud.answer", format!("{}'s answer is no JSON", self.service.name())))
    }

    /// The body as JSON, where the status is one of success.
    ///
    /// # Errors
    /// As [`Answer::error`] and [`Answer::json`].
    pub fn success(&self, what: &str) -> Result<Value> {
        if self.is_success() { self.json() } else { Err(self.error(what)) }
    }

    /// The error that a status without a better explanation is: what was being done, the status and the service's own
    /// words.
    pub fn error(&self, what: &str) -> Error {
        let kind = match self.status {
            429 | 500..=599 => ErrorKind::Io,
            _ => ErrorKind::InvalidInput,
        };
        let words = self.words();
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("{what}: {} answered {}{words}", self.service.name(), self.status);
        Error::new(kind, message).with_rule("cloud.refused")
    }

    /// The service's own words: the message of its several shapes of errors, in one line.
    pub fn words(&self) -> String {
        let Ok(json) = serde_json::from_slice::<Value>(&self.body) else { return String::new() };
        // Keystone and Cinder have an outer name; Glance and Barbican have not.
        let inner = json.as_object().filter(|o| o.len() == 1).and_then(|o| o.values().next());
        let of = inner.filter(|v| v.is_object()).unwrap_or(&json);
        let text = ["message", "description"].iter().find_map(|key| of.get(*key)?.as_str()).unwrap_or_default();
        let text = text.replace("<br />", " ");
        escape(text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.'))
    }
}

/// A file's first `len` bytes as a stream. It fails where the file ends early or all was stopped.
pub(super) fn stream(
    file: File,
    len: u64,
    cancelled: Arc<AtomicBool>,
) -> impl futures_core::Stream<Item = std::io::Result<Vec<u8>>> + Send + 'static {
    FileStream { file, at: 0, len, cancelled }
}

struct FileStream {
    file: File,
    at: u64,
    len: u64,
    cancelled: Arc<AtomicBool>,
}

impl futures_core::Stream for FileStream {
    type Item = std::io::Result<Vec<u8>>;

    /// Reads in place: there is nothing else on this runtime to be kept waiting.
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.at == self.len {
            return Poll::Ready(None);
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Poll::Ready(Some(Err(std::io::ErrorKind::Interrupted.into())));
        }
        let n = at_most(self.len - self.at, UPLOAD_CHUNK);
        let mut chunk = vec![0; n];
        let read = self.file.read_exact(&mut chunk);
        self.at += to_u64(n);
        Poll::Ready(Some(read.map(|()| chunk)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_out_of_every_shape() {
        let words = |body: &str| Answer { service: Service::Image, status: 404, body: body.into() }.words();
        assert_eq!(
            words(r#"{"message":"No image found.<br /><br />\n\n\n","code":"404 Not Found"}"#),
            "No image found"
        );
        assert_eq!(words(r#"{"error":{"code":401,"message":"You\nmust"}}"#), "You must");
        assert_eq!(words(r#"{"code":403,"title":"Forbidden","description":"Not allowed"}"#), "Not allowed");
        assert_eq!(words(r#"{"itemNotFound":{"code":404,"message":"gone\u001b[31m"}}"#), "gone\\u{1b}[31m");
        assert_eq!(words("<html>") + &words("[]") + &words("{\"message\":7}"), "");
    }
}
