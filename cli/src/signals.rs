//! What the signals do that stop a program: one place for all commands.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use unluks::{Error, Result};

/// The signals that stop a command in good order. Under nohup the end of the terminal is none: a handler would undo that.
pub fn stopping() -> impl Iterator<Item = i32> {
    let is_outlived = is_ignored(SIGHUP);
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(move |signal| *signal != SIGHUP || !is_outlived)
}

/// Whether a signal is ignored (proc(5), `SigIgn`); where the system does not tell, it is not.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.zip(u32::try_from(signal - 1).ok()).is_some_and(|(mask, bit)| mask >> bit & 1 == 1)
}

/// The first of them sets `flag`; a second one ends the program at once.
pub fn stop_by(flag: &Arc<AtomicBool>) -> Result<()> {
    for signal in stopping() {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(flag)).map_err(failed)?;
        signal_hook::flag::register(signal, Arc::clone(flag)).map_err(failed)?;
    }
    outlive_file_size_limit()
}

/// A write beyond the limit on a file's size ends the program by a signal, unless somebody catches it: then the write
/// fails, which is an error like that of a full disk.
pub fn outlive_file_size_limit() -> Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop).map_err(failed)
}

/// The error where they cannot be caught.
pub fn failed(e: std::io::Error) -> Error {
    Error::io("catching signals", e)
}

/// SIGTERM comes when the parent process ends. `who` wants it.
#[cfg_attr(not(any(feature = "mount", feature = "nbd")), allow(dead_code))]
pub fn end_with_parent(who: &str) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(|e| Error::io(who, e.into()))?;
    // It may have ended while it was asked for.
    if getppid() == parent { Ok(()) } else { Err(Error::invalid(format!("{who}: the parent process has ended"))) }
}
