//! The standard output: what is printed there as a whole, and what a terminal can show.

use std::io::{ErrorKind, IsTerminal, Write};

use unluks::{Error, Result};

/// Prints a text for people or programs; colours only where a terminal shows them.
pub fn print(text: &str) -> Result<()> {
    write(anstream::stdout().lock(), text)
}

/// Prints a script, to its last byte.
pub fn print_script(text: &str) -> Result<()> {
    write(std::io::stdout().lock(), text)
}

fn write(mut stdout: impl Write, text: &str) -> Result<()> {
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(e) => Err(Error::io("writing to the standard output", e)),
        Ok(()) => Ok(()),
    }
}

/// How wide the terminal is that the standard output is; `None` where it is none.
pub fn columns() -> Option<usize> {
    columns_of(&std::io::stdout())
}

/// How wide a terminal is; `None` where it is none.
pub fn columns_of(stream: &(impl IsTerminal + std::os::fd::AsFd)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(stream).map(|size| size.ws_col).ok().filter(|n| *n > 0);
    Some(usize::from(columns.unwrap_or(80)))
}

/// Whether more than ASCII is shown: by the locale, as the C library finds it.
pub fn is_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_ascii_uppercase();
    locale.contains("UTF-8") || locale.contains("UTF8")
}
