//! Where a download is, and the threads that take its bytes.
//!
//! ```text
//!  network ─┬─► hash                      pieces of some hundred KiB, shared and not copied; so many wait for each thread
//!           └─► writer ─► the file ─► decryption         (or, where nothing is kept, straight to the decryption)
//!                └─► sync, now and then, so that little is left for the end
//! ```

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;

use super::feed::Feed;
use crate::failure::Failure;
use crate::hashes::Hashes;
use crate::partial::Partial;
use unluks::error::{Error, ErrorKind, Result};
use unluks::limits::CLOUD_PIECES_MAX;
use unluks::num::{at_most, to_u64};
use unluks::progress::Progress;

/// Bytes of what an earlier run left that are read at a time.
const REPLAY: usize = 1 << 20;
/// Bytes after which the disk is told to begin.
const SYNC: u64 = 32 << 20;

/// Where the download is.
pub(super) struct State<'a> {
    /// Bytes that were taken, all from the start on.
    pub at: u64,
    pub size: u64,
    pub hashes: &'a Hashes,
    pub feed: Option<&'a Feed>,
    pub writer: Option<SyncSender<Bytes>>,
    pub progress: &'a Progress,
}

impl State<'_> {
    /// Takes bytes that came.
    pub fn take(&mut self, bytes: Bytes) -> std::result::Result<(), Failure> {
        let n = to_u64(bytes.len());
        if n > self.size - self.at {
            let message = format!("Glance sends more than the image's {} bytes", self.size);
            return Err(Failure::Final(Error::corrupt("image.size", message)));
        }
        self.hashes.take(&bytes);
        if let Some(writer) = &self.writer {
            // Why it stopped is what the writer itself says.
            let stopped = |_| Failure::Final(Error::new(ErrorKind::Io, "the writer stopped"));
            writer.send(bytes).map_err(stopped)?;
        } else if let Some(feed) = self.feed {
            feed.send(bytes).map_err(Failure::Final)?;
        }
        self.at += n;
        self.progress.add(n);
        Ok(())
    }

    /// Takes what an earlier run left.
    pub fn replay(&mut self, partial: &Partial) -> Result<()> {
        while partial.len > self.at {
            let block = Bytes::from(partial.read(self.at, REPLAY)?);
            let n = to_u64(block.len());
            self.hashes.take(&block);
            self.at += n;
            self.progress.add(n);
            self.feed.map_or(Ok(()), |feed| feed.grow(self.at))?;
            if self.progress.is_cancelled() {
                return Err(Error::cancelled());
            }
        }
        Ok(())
    }
}

/// Runs `transfer` with a writer beside it, and gives the error of either: the writer's is the cause.
pub(super) fn with_writer<T>(
    partial: Option<&mut Partial>,
    mut state: State<'_>,
    transfer: impl FnOnce(&mut State<'_>) -> Result<T>,
) -> Result<T> {
    let Some(partial) = partial else { return transfer(&mut state) };
    let feed = state.feed;
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(CLOUD_PIECES_MAX);
        let writer = scope.spawn(move || write(partial, feed, &receive));
        state.writer = Some(send);
        let done = transfer(&mut state);
        // All that came is written, also where the transfer failed: a later run goes on from there.
        drop(state);
        let written = writer.join().unwrap_or_else(|_| Err(Error::invalid("the writer ended early")));
        written.and(done)
    })
}

fn write(partial: &mut Partial, feed: Option<&Feed>, from: &Receiver<Bytes>) -> Result<()> {
    let syncing = partial.share()?;
    std::thread::scope(|scope| {
        let (tick, ticks) = sync_channel::<()>(1);
        // An error of the disk is told once, to whoever syncs first.
        let sync = scope.spawn(move || ticks.iter().try_for_each(|()| syncing.sync_data()));
        let mut synced = partial.len;
        let written = from.iter().try_for_each(|bytes| {
            partial.write(&bytes)?;
            if partial.len - synced >= SYNC {
                synced = partial.len;
                let _ = tick.try_send(());
            }
            feed.map_or(Ok(()), |feed| feed.grow(partial.len))
        });
        drop(tick);
        let synced = sync.join().unwrap_or_else(|_| Err(std::io::Error::other("the sync ended early")));
        written.and(synced.map_err(|e| partial.failed(e)))
    })
}

/// At most so many bytes as are left until `limit`; the rest is given back.
pub(super) fn split_at(bytes: &mut Bytes, left: u64) -> Bytes {
    bytes.split_off(at_most(left, bytes.len()))
}
