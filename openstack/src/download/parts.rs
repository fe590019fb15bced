//! Parts of an image by several connections at once, for stores and ways that give one connection less than they have.
//!
//! They are handed out in the image's order, so that all behind them is as with one connection; memory is bounded by
//! [`CLOUD_PARTS_MAX`] parts of [`CLOUD_PART`] bytes. That all parts are of one image is what its hash says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, HeaderMap};
use tokio::task::JoinHandle;

use crate::answer::{Request, Service};
use crate::cloud::Cloud;
use crate::failure::{Failure, transport};
use unluks::error::{Error, ErrorKind, Result, escape};
use unluks::limits::{CLOUD_PART, CLOUD_PARTS_MAX};
use unluks::num::to_u64;

/// How long one connection is looked at before others are made.
const LOOK: Duration = Duration::from_secs(1);

/// How much of a connection's time is spent waiting for it.
pub(super) struct Pace {
    since: Instant,
    waited: Duration,
}

impl Pace {
    pub fn start() -> Self {
        Self { since: Instant::now(), waited: Duration::ZERO }
    }

    pub fn waiting<T>(&mut self, what: impl FnOnce() -> T) -> T {
        let before = Instant::now();
        let done = what();
        self.waited += before.elapsed();
        done
    }

    /// Whether the connection is what all else waits for: where hash, disk or decryption are, more connections are no use.
    pub fn is_limit(&self) -> bool {
        let all = self.since.elapsed();
        all >= LOOK && self.waited >= all.mul_f32(0.75)
    }
}

/// Why a part did not come.
pub(super) enum Refusal {
    /// The store gives no parts, or not so many at once.
    NoParts(Error),
    /// Another connection may do better.
    Cut(Error),
}

/// Parts that are under way.
pub(super) struct Parts<'a> {
    cloud: &'a Cloud,
    path: String,
    /// Where the first of them begins.
    pub at: u64,
    asked: u64,
    size: u64,
    under_way: VecDeque<JoinHandle<std::result::Result<Vec<Bytes>, Refusal>>>,
}

impl<'a> Parts<'a> {
    /// Asks for the first parts from `at` on.
    pub fn begin(cloud: &'a Cloud, path: &str, at: u64, size: u64) -> Result<Self> {
        let mut parts = Self { cloud, path: path.to_owned(), at, asked: at, size, under_way: VecDeque::new() };
        parts.ask()?;
        Ok(parts)
    }

    fn ask(&mut self) -> Result<()> {
        while self.asked < self.size && self.under_way.len() < CLOUD_PARTS_MAX {
            let (start, end) = (self.asked, self.size.min(self.asked.saturating_add(CLOUD_PART)));
            let range = format!("bytes={start}-{}", end - 1);
            let headers = &[("accept", "application/json"), ("range", &range)];
            let response = self.cloud.start(&Request { headers, ..Request::get(Service::Image, &self.path) })?;
            let size = self.size;
            self.under_way.push_back(self.cloud.spawn(async move { part(response.await, start, end, size).await }));
            self.asked = end;
        }
        Ok(())
    }

    /// The next part; `None` where all were given. They come in the image's order.
    pub fn next(&mut self) -> std::result::Result<Option<Vec<Bytes>>, Refusal> {
        let Some(first) = self.under_way.pop_front() else { return Ok(None) };
        let came = self.cloud.block(first).map_err(Refusal::Cut)?;
        let part = came.map_err(|_| Refusal::Cut(Error::invalid("a connection ended early")))??;
        self.at += part.iter().map(|bytes| to_u64(bytes.len())).sum::<u64>();
        self.ask().map_err(Refusal::Cut)?;
        Ok(Some(part))
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        self.under_way.iter().for_each(JoinHandle::abort);
    }
}

/// The bytes of one part, neither more nor less.
async fn part(
    response: reqwest::Result<reqwest::Response>,
    start: u64,
    end: u64,
    size: u64,
) -> std::result::Result<Vec<Bytes>, Refusal> {
    let broke = |e: &reqwest::Error| {
        let (Failure::Passing(e, _) | Failure::Final(e)) = transport("Glance", e);
        Refusal::Cut(e.at(start))
    };
    let mut response = response.map_err(|e| broke(&e))?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => check_range(response.headers(), start, size).map_err(Refusal::NoParts)?,
        // The token has expired: whoever makes the next connection renews it.
        StatusCode::UNAUTHORIZED => {
            return Err(Refusal::Cut(Error::new(ErrorKind::Io, "Glance refuses the token").at(start)));
        }
        other => {
            let message = format!("Glance answers {} where a part is asked for", other.as_u16());
            return Err(Refusal::NoParts(Error::new(ErrorKind::Io, message).at(start)));
        }
    }
    let (mut bytes, mut left) = (Vec::new(), end - start);
    while let Some(chunk) = response.chunk().await.map_err(|e| broke(&e))? {
        left = left.checked_sub(to_u64(chunk.len())).ok_or_else(|| {
            Refusal::NoParts(
                Error::corrupt("image.range", "Glance sends more than the part that was asked for").at(start),
            )
        })?;
        bytes.push(chunk);
    }
    if left > 0 {
        return Err(Refusal::Cut(Error::new(ErrorKind::Io, "Glance ended a part too early").at(end - left)));
    }
    Ok(bytes)
}

/// Whether a part is the one that was asked for.
pub(super) fn check_range(headers: &HeaderMap, at: u64, size: u64) -> Result<()> {
    let text = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let parts = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let right = parts.is_some_and(|(range, total)| {
        let start = range.split_once('-').map(|(start, _)| start.parse());
        start == Some(Ok(at)) && (total == "*" || total.parse() == Ok(size))
    });
    if right {
        Ok(())
    } else {
        let message = format!("Glance answers with another part of the image (Content-Range {})", escape(text));
        Err(Error::corrupt("image.range", message).at(at))
    }
}
