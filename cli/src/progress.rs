//! Progress on the standard error: a bar for people, lines of JSON for programs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use unluks::num::saturated;
use unluks::progress::Progress;

use crate::args::ProgressKind;

/// How often progress is shown.
const EVERY: Duration = Duration::from_millis(500);

pub enum ProgressView {
    Bar(ProgressBar),
    Json { total: Option<u64>, start: Instant, before: u64 },
    Nothing,
}

impl ProgressView {
    /// `total` is `None` where nobody knows it; `before` bytes are there already.
    pub fn new(kind: ProgressKind, quiet: bool, total: Option<u64>, before: u64) -> Self {
        match kind {
            ProgressKind::Json => Self::Json { total, start: Instant::now(), before },
            ProgressKind::Auto if !quiet && std::io::stderr().is_terminal() => Self::Bar(bar(total, before)),
            _ => Self::Nothing,
        }
    }

    /// Shows how far `work` is, as long as it goes on.
    pub fn beside<T>(&self, progress: &Progress, work: impl FnOnce() -> T) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = std::thread::Builder::new().name("progress".into());
            // Without a thread of its own, nothing is shown.
            let watcher = watcher.spawn_scoped(scope, || self.follow(progress, &stop, || ()));
            let _stopped = StopFollowers::new(&stop, watcher.iter().map(|w| w.thread().clone()).collect());
            work()
        })
    }

    /// Shows how far it is until `stop` is set and this thread unparked. Where somebody stopped the work, and it goes on
    /// for longer than it should, it may wait for a pipe that nobody reads or writes: then `stuck` is called.
    pub fn follow(&self, progress: &Progress, stop: &AtomicBool, stuck: impl Fn()) {
        let mut cancelled = false;
        loop {
            std::thread::park_timeout(EVERY);
            if stop.load(Ordering::Acquire) {
                return;
            }
            if cancelled {
                stuck();
            }
            cancelled = progress.is_cancelled();
            self.show(progress.bytes());
        }
    }

    fn show(&self, bytes: u64) {
        match self {
            Self::Bar(bar) => bar.set_position(bytes),
            Self::Json { total, start, before } => {
                let line = line(bytes, *total, *before, start.elapsed());
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            Self::Nothing => {}
        }
    }

    /// Ends it.
    pub fn finish(&self, bytes: u64) {
        self.show(bytes);
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Ends the threads that follow the progress, also where the stream panics: the scope waits for them.
pub struct StopFollowers<'a> {
    stop: &'a AtomicBool,
    followers: Vec<std::thread::Thread>,
}

impl<'a> StopFollowers<'a> {
    pub fn new(stop: &'a AtomicBool, followers: Vec<std::thread::Thread>) -> Self {
        Self { stop, followers }
    }
}

impl Drop for StopFollowers<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.followers.iter().for_each(std::thread::Thread::unpark);
    }
}

fn bar(total: Option<u64>, before: u64) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::no_length(),
    };
    let template = match total {
        Some(_) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{spinner} {bytes} {bytes_per_sec} {elapsed}",
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(before);
    bar.reset_eta();
    bar
}

/// `bytes` and `total` in bytes, `bytes_per_second`, and `eta_seconds` where there is a total.
fn line(bytes: u64, total: Option<u64>, before: u64, elapsed: Duration) -> serde_json::Value {
    let millis = saturated(elapsed.as_millis()).max(1);
    let rate = bytes.saturating_sub(before).saturating_mul(1000) / millis;
    let eta = total.filter(|_| rate > 0).map(|t| t.saturating_sub(bytes) / rate);
    serde_json::json!({"bytes": bytes, "total": total, "bytes_per_second": rate, "eta_seconds": eta})
}
