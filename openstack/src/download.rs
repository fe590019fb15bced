//! An image's data: streamed, hashed on the way, and gone on with after every failure that passes.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap};

use super::answer::{Answer, Request, Service};
use super::cloud::{Backoff, Cloud, Failure, passes, retry_after, stopped_error, transport};
use super::hashes::Hashes;
use super::image::Image;
use super::partial::Partial;
use unluks::error::{Condition, Error, ErrorKind, Result, escape};
use unluks::limits::CLOUD_ANSWER_MAX;
use unluks::num::{at_most, to_u64};
use unluks::progress::Progress;

/// Pieces of the download that may wait for the decryption.
const WAITING: usize = 32;
/// Bytes of what an earlier run left that are read at a time.
const REPLAY: usize = 1 << 20;
/// So many connections in a row that end without a byte, at the same place, are no accident: the store has no more.
const SHORT: u32 = 3;

/// A download to do.
pub struct Download<'a> {
    /// The cloud.
    pub cloud: &'a Cloud,
    /// The image.
    pub image: &'a Image,
    /// Where the data is kept; `None` keeps it nowhere, and then it cannot be gone on with in a later run.
    pub path: Option<&'a Path>,
    /// Who else gets the data as it comes.
    pub feed: Option<Feed>,
    /// Is told how far it is.
    pub progress: &'a Progress,
}

/// All bytes of an image, compared with its hashes.
pub struct Downloaded {
    partial: Option<Partial>,
    /// Bytes.
    pub size: u64,
    /// How many of them an earlier run had left.
    pub resumed: u64,
    /// The names of the hashes that were compared, and are right.
    pub compared: Vec<String>,
}

impl Downloaded {
    /// Gives the file its name.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it cannot be synced or renamed, or somebody took the name.
    pub fn commit(&self) -> Result<()> {
        self.partial.as_ref().map_or(Ok(()), Partial::commit)
    }

    /// Removes what a later run would go on with: all that belongs to the file is there.
    pub fn finish(self) {
        if let Some(partial) = self.partial {
            partial.finish();
        }
    }
}

/// The end of a pipe that a download writes to.
pub struct Feed(SyncSender<Piece>);

/// The end that somebody reads.
pub struct FeedReader {
    from: Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

enum Piece {
    Bytes(Bytes),
    End,
}

impl Feed {
    /// A pipe that holds some pieces.
    pub fn pair() -> (Self, FeedReader) {
        let (send, from) = sync_channel(WAITING);
        (Self(send), FeedReader { from, current: Bytes::new(), ended: false })
    }

    fn send(&self, piece: Piece) -> std::result::Result<(), Failure> {
        self.0.send(piece).map_err(|_| {
            let message = "whoever took the data in has stopped";
            Failure::Final(Error::new(ErrorKind::Io, message).with_rule("feed").with_condition(Condition::Feed))
        })
    }
}

impl Read for FeedReader {
    /// A download that stops before its end is an error here, so that nobody takes a part for the whole.
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.from.recv() {
                Ok(Piece::Bytes(bytes)) => self.current = bytes,
                Ok(Piece::End) => self.ended = true,
                Err(_) => return Err(std::io::Error::other("the download stopped before the end")),
            }
        }
        let n = self.current.len().min(buf.len());
        buf[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}

/// Where the download is.
struct State<'a> {
    at: u64,
    size: u64,
    hashes: Hashes,
    partial: Option<Partial>,
    feed: Option<Feed>,
    progress: &'a Progress,
}

impl State<'_> {
    /// Takes bytes that were there already, or that were just written.
    fn pass(&mut self, bytes: Bytes) -> std::result::Result<(), Failure> {
        let n = to_u64(bytes.len());
        self.hashes.take(&bytes);
        if let Some(feed) = &self.feed {
            feed.send(Piece::Bytes(bytes))?;
        }
        self.at += n;
        self.progress.add(n);
        Ok(())
    }

    /// Takes bytes that came.
    fn take(&mut self, bytes: Bytes) -> std::result::Result<(), Failure> {
        if u64::try_from(bytes.len()).is_ok_and(|n| n > self.size - self.at) {
            let message = format!("Glance sends more than the image's {} bytes", self.size);
            return Err(Failure::Final(Error::corrupt("image.size", message)));
        }
        if let Some(partial) = &mut self.partial {
            partial.write(&bytes).map_err(Failure::Final)?;
        }
        self.pass(bytes)
    }

    /// Takes what an earlier run left.
    fn replay(&mut self) -> std::result::Result<(), Failure> {
        while let Some(partial) = self.partial.as_ref().filter(|p| p.len > self.at) {
            let block = partial.read(self.at, REPLAY).map_err(Failure::Final)?;
            self.pass(block.into())?;
            if self.progress.is_cancelled() {
                return Err(Failure::Final(stopped_error()));
            }
        }
        Ok(())
    }
}

impl Download<'_> {
    /// Downloads all of it, and compares its hashes.
    ///
    /// # Errors
    /// As [`Image::check_data`] and [`Cloud::send`]; [`ErrorKind::InvalidInput`] with the rule `image.download` where the
    /// role does not allow it; [`ErrorKind::Corrupt`] with the rule `image.data` where the store has none or not all of
    /// it, `image.checksum` or `image.os_hash_value` where it has another hash. What came is kept for a later run, but
    /// not where it is wrong.
    pub fn run(self) -> Result<Downloaded> {
        let size = self.image.check_data()?;
        let partial = self.path.map(|path| Partial::open(path, self.image, size)).transpose()?;
        let hashes = Hashes::start(&self.image.info);
        let mut state = State { at: 0, size, hashes, partial, feed: self.feed, progress: self.progress };
        let done = state.replay().and_then(|()| {
            let resumed = state.at;
            fetch(self.cloud, &self.image.info.id, &mut state).map(|()| resumed)
        });
        let resumed = done.map_err(|failure| {
            let (Failure::Final(e) | Failure::Passing(e, _)) = failure;
            match &state.partial {
                Some(partial) if e.hint().is_none() && !e.is(Condition::Feed) && partial.len > 0 => {
                    e.with_hint(format!("{} bytes are kept in {}: run it again to go on", partial.len, partial.temp()))
                }
                _ => e,
            }
        })?;
        let State { hashes, partial, feed, .. } = state;
        let compared = match hashes.compare() {
            Ok(compared) => compared,
            Err(e) => {
                partial.into_iter().for_each(Partial::discard);
                return Err(e.with_hint(match resumed {
                    0 => "nothing of it is kept; run it again: if it is the same, the image is damaged in the store",
                    _ => "nothing of it is kept, as what an earlier run left may be damaged: run it again",
                }));
            }
        };
        // Only now does whoever reads the feed get to know that it was all.
        if let Some(feed) = feed {
            let _ = feed.send(Piece::End);
        }
        Ok(Downloaded { partial, size, resumed, compared })
    }
}

/// Makes connections until all is there.
fn fetch(cloud: &Cloud, id: &str, state: &mut State<'_>) -> std::result::Result<(), Failure> {
    let mut backoff = Backoff::new(cloud.options().retries);
    let mut fruitless = 0;
    while state.at < state.size {
        let before = state.at;
        let (e, asked, cut) = match connection(cloud, id, state) {
            Ok(()) => continue,
            Err(Stop::Failed(Failure::Final(e))) => return Err(Failure::Final(e)),
            Err(Stop::Failed(Failure::Passing(e, asked))) => (e, asked, false),
            Err(Stop::Cut(e)) => (e, None, true),
        };
        if state.at > before {
            backoff.renew();
            fruitless = 0;
        }
        if cut && state.at == before {
            fruitless += 1;
        }
        if fruitless >= SHORT {
            let message = format!(
                "the store seems to have only {} of the image's {} bytes: every connection ends there",
                state.at, state.size
            );
            let hint = "the image is damaged in the store: ask whoever runs the cloud";
            return Err(Failure::Final(Error::corrupt("image.data", message).at(state.at).with_hint(hint)));
        }
        backoff.wait(cloud, e, asked).map_err(Failure::Final)?;
    }
    Ok(())
}

/// Why a connection ended.
enum Stop {
    /// It was answered, and then cut off.
    Cut(Error),
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Takes as much as one connection gives.
fn connection(cloud: &Cloud, id: &str, state: &mut State<'_>) -> std::result::Result<(), Stop> {
    let path = format!("images/{id}/file");
    let range = format!("bytes={}-", state.at);
    let headers: &[_] = match state.at {
        0 => &[("accept", "application/json")],
        _ => &[("accept", "application/json"), ("range", &range)],
    };
    let mut response = cloud.open(&Request { headers, ..Request::get(Service::Image, &path) })?;
    let mut passed_by = match response.status().as_u16() {
        200 => state.at,
        206 => check_range(response.headers(), state)?,
        _ => return Err(Stop::Failed(refused(cloud, &mut response)?)),
    };
    if let Some(len) = number(response.headers(), CONTENT_LENGTH.as_str()) {
        // In whole, or from where it was asked for: both end with the image.
        if len != state.size - state.at + passed_by {
            let message = format!("Glance announces {len} bytes more; the image has {} bytes", state.size);
            return Err(Failure::Final(Error::corrupt("image.size", message).at(state.at)).into());
        }
    }
    loop {
        let chunk = cloud.block(response.chunk()).map_err(Failure::Final)?;
        let mut chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(e) => {
                let (Failure::Passing(e, _) | Failure::Final(e)) = transport("Glance", &e);
                return Err(Stop::Cut(e.at(state.at)));
            }
        };
        // A store without ranges sends all of it again: what is there already is not taken twice.
        let known = at_most(passed_by, chunk.len());
        passed_by -= to_u64(known);
        let new = chunk.split_off(known);
        if !new.is_empty() {
            state.take(new)?;
        }
    }
    if state.at < state.size {
        Err(Stop::Cut(Error::new(ErrorKind::Io, "Glance ended the answer too early").at(state.at)))
    } else {
        Ok(())
    }
}

/// Whether a part is the one that was asked for; it has nothing that is there already.
fn check_range(headers: &HeaderMap, state: &State<'_>) -> std::result::Result<u64, Failure> {
    let text = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let parts = text.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let right = parts.is_some_and(|(range, total)| {
        let start = range.split_once('-').map(|(start, _)| start.parse());
        start == Some(Ok(state.at)) && (total == "*" || total.parse() == Ok(state.size))
    });
    if right {
        Ok(0)
    } else {
        let message = format!("Glance answers with another part of the image (Content-Range {})", escape(text));
        Err(Failure::Final(Error::corrupt("image.range", message).at(state.at)))
    }
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// What a status without data means.
fn refused(cloud: &Cloud, response: &mut Response) -> std::result::Result<Failure, Failure> {
    let status = response.status();
    let asked = retry_after(response.headers());
    let body = cloud.read_body(Service::Image, response, CLOUD_ANSWER_MAX)?;
    let answer = Answer { service: Service::Image, status: status.as_u16(), body };
    let e = match answer.status {
        204 => Error::corrupt("image.data", "Glance has no data of this image: it was lost in the store")
            .with_hint("ask whoever runs the cloud; what is left is the image's metadata"),
        403 => Error::invalid(format!("the image may be seen, but not downloaded ({})", answer.words()))
            .with_rule("image.download")
            .with_hint("the role is not enough: ask for member in its project in place of reader"),
        404 => Error::invalid("the image is gone: it was deleted meanwhile").with_rule("image.id"),
        416 => Error::corrupt("image.range", "Glance says that the image ends before this"),
        _ => answer.error("downloading the image"),
    };
    Ok(if passes(status) { Failure::Passing(e, asked) } else { Failure::Final(e) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_that_stops_is_no_end() {
        let (feed, mut reader) = Feed::pair();
        assert!(feed.send(Piece::Bytes(Bytes::from_static(b"abc"))).is_ok());
        let mut two = [0; 2];
        assert_eq!((reader.read(&mut two).unwrap(), two), (2, *b"ab"));
        drop(feed);
        assert_eq!(reader.read(&mut two).unwrap(), 1);
        assert!(reader.read(&mut two).unwrap_err().to_string().contains("download stopped"));
    }

    #[test]
    fn a_feed_that_came_to_its_end_says_so() {
        let (feed, mut reader) = Feed::pair();
        assert!(feed.send(Piece::Bytes(Bytes::from_static(b"abc"))).is_ok() && feed.send(Piece::End).is_ok());
        drop(feed);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abc");
    }
}
