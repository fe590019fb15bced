//! An image's data: streamed, hashed, written and decrypted on threads of their own, and gone on with after every failure
//! that passes.

mod feed;
mod parts;
mod state;
mod stream;

use std::path::Path;

use super::cloud::{Backoff, Cloud};
use super::failure::Failure;
use super::hashes::Hashes;
use super::image::Image;
use super::partial::Partial;
use state::{State, with_writer};
use stream::{Stop, Ways, connection};
use unluks::error::{Condition, Error, Result};
use unluks::progress::Progress;

pub use feed::{Feed, FeedReader};

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
    /// [`ErrorKind::Io`](unluks::ErrorKind::Io) where it cannot be synced or renamed, or somebody took the name.
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

impl Download<'_> {
    /// Downloads all of it, and compares its hashes.
    ///
    /// # Errors
    /// As [`Image::check_data`] and [`Cloud::send`]; [`ErrorKind::InvalidInput`](unluks::ErrorKind::InvalidInput) with the
    /// rule `image.download` where the role does not allow it; [`ErrorKind::Corrupt`](unluks::ErrorKind::Corrupt) with the
    /// rule `image.data` where the store has none or not all of it, `image.checksum` or `image.os_hash_value` where it has
    /// another hash. What came is kept for a later run, but not where it is wrong.
    pub fn run(self) -> Result<Downloaded> {
        let size = self.image.check_data()?;
        let mut partial = self.path.map(|path| Partial::open(path, self.image, size)).transpose()?;
        let hashes = Hashes::start(&self.image.info);
        let mut feed = self.feed;
        if let (Some(feed), Some(partial)) = (&mut feed, &partial) {
            feed.keep_in(partial.share()?)?;
        }
        let mut state =
            State { at: 0, size, hashes: &hashes, feed: feed.as_ref(), writer: None, progress: self.progress };
        let replayed = partial.as_ref().map_or(Ok(()), |partial| state.replay(partial));
        let resumed = state.at;
        let id = &self.image.info.id;
        let done = replayed.and_then(|()| with_writer(partial.as_mut(), state, |state| fetch(self.cloud, id, state)));
        done.map_err(|e| match &partial {
            Some(partial) if e.hint().is_none() && !e.is(Condition::Feed) && partial.len > 0 => {
                e.with_hint(format!("{} bytes are kept in {}: run it again to go on", partial.len, partial.temp()))
            }
            _ => e,
        })?;
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
            feed.end();
        }
        Ok(Downloaded { partial, size, resumed, compared })
    }
}

/// Makes connections until all is there.
fn fetch(cloud: &Cloud, id: &str, state: &mut State<'_>) -> Result<()> {
    // Without a hash nothing would tell that all parts are of one image.
    let mut ways = if state.hashes.is_empty() { Ways::One } else { Ways::Several };
    let mut backoff = Backoff::new(cloud.options().retries);
    let mut fruitless = 0;
    while state.at < state.size {
        let before = state.at;
        let (e, asked, cut) = match connection(cloud, id, state, &mut ways) {
            Ok(()) => continue,
            Err(Stop::Failed(Failure::Final(e))) => return Err(e),
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
            return Err(Error::corrupt("image.data", message).at(state.at).with_hint(hint));
        }
        backoff.wait(cloud, e, asked)?;
    }
    Ok(())
}
