//! Progress on the standard error: a bar for people, lines of JSON for programs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use unluks::luks::unlock::Watch;
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

    /// So many bytes more.
    #[cfg(feature = "files")]
    pub fn add(&self, bytes: usize) {
        if let Self::Bar(bar) = self {
            bar.inc(u64::try_from(bytes).unwrap_or(u64::MAX));
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }

    /// Ends it.
    pub fn finish(&self, bytes: u64) {
        self.show(bytes);
        self.clear();
    }
}

/// The key derivation that is made, for people, where all of them may take longer than one waits without asking.
pub struct Derivations(Option<ProgressBar>);

/// From here on, it is shown which derivation is made.
const WORTH_SHOWING: Duration = Duration::from_secs(3);

impl Derivations {
    /// `most` is what all derivations may take together.
    pub fn new(quiet: bool, most: Duration) -> Self {
        let is_shown = !quiet && most >= WORTH_SHOWING && std::io::stderr().is_terminal();
        Self(is_shown.then(|| {
            let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::no_length().with_style(style)
        }))
    }

    /// What the unlock tells of its derivations.
    pub fn watch(&self) -> Option<Watch> {
        let bar = self.0.clone()?;
        Some(Watch::new(move |attempt| {
            bar.set_message(said(attempt.keyslot, attempt.candidate, attempt.candidates, attempt.time));
        }))
    }

    /// Ends it.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// A derivation in words.
fn said(keyslot: u32, candidate: usize, candidates: usize, time: Duration) -> String {
    let form = match candidates {
        0 | 1 => String::new(),
        several => format!(", form {} of {several}", candidate.saturating_add(1)),
    };
    format!("trying keyslot {keyslot}{form}, {} s at most", time.as_secs().max(1))
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
        Some(_) => with_total(crate::terminal::columns_of(&std::io::stderr()).unwrap_or(80)),
        None => "{spinner} {bytes} {bytes_per_sec} {elapsed}".into(),
    };
    bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_position(before);
    bar.reset_eta();
    bar
}

/// What a line so wide has room for: numbers before a bar.
fn with_total(columns: usize) -> String {
    /// As long as "123.45 MiB/123.45 GiB 123.45 MiB/s 12m" and a blank.
    const NUMBERS: usize = 40;
    match columns.saturating_sub(NUMBERS).min(30) {
        room @ 5.. => format!("{{bar:{room}}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} {{eta}}"),
        _ => "{percent}% {bytes} {bytes_per_sec} {eta}".into(),
    }
}

/// `bytes` and `total` in bytes, `bytes_per_second`, and `eta_seconds` where there is a total.
fn line(bytes: u64, total: Option<u64>, before: u64, elapsed: Duration) -> serde_json::Value {
    let millis = saturated(elapsed.as_millis()).max(1);
    let rate = bytes.saturating_sub(before).saturating_mul(1000) / millis;
    let eta = total.filter(|_| rate > 0).map(|t| t.saturating_sub(bytes) / rate);
    serde_json::json!({"bytes": bytes, "total": total, "bytes_per_second": rate, "eta_seconds": eta})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derivation_is_said_in_a_line() {
        let four = Duration::from_millis(4200);
        assert_eq!(said(1, 2, 12, four), "trying keyslot 1, form 3 of 12, 4 s at most");
        assert_eq!(said(0, 0, 1, Duration::from_millis(200)), "trying keyslot 0, 1 s at most");
    }

    #[test]
    fn a_bar_fits_the_line() {
        let bars = [200, 80, 60, 45, 44, 20].map(with_total);
        assert_eq!(bars.each_ref().map(|bar| bar.contains("{bar:")), [true, true, true, true, false, false]);
        assert!(bars[0].starts_with("{bar:30} ") && bars[2].starts_with("{bar:20} "), "{bars:?}");
    }

    #[test]
    fn nothing_is_shown_where_nobody_waits_or_asked_for_quiet() {
        assert!(Derivations::new(true, Duration::MAX).watch().is_none());
        assert!(Derivations::new(false, Duration::from_secs(2)).watch().is_none());
    }
}
