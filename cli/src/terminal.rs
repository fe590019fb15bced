//! The standard output: what is printed there as a whole, and what a terminal can show.

use std::io::{ErrorKind, Write};

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

/// Whether more than ASCII is shown: by the locale, as the C library finds it.
pub fn is_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_ascii_uppercase();
    locale.contains("UTF-8") || locale.contains("UTF8")
}
