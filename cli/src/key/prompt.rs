//! A passphrase that is typed.

use std::fs::File;
use std::io::Write;

use unluks::key::read_first_line;
use unluks::{Error, Result, SecretBytes};

/// Asks for the image's passphrase on the terminal, without echo. A signal at the prompt puts the terminal back before it ends the program.
pub fn ask(image: &str) -> Result<SecretBytes> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let no_terminal = |e| {
        Error::io("asking for the passphrase", e)
            .with_hint("give a key with --barbican-key, --key-file, --passphrase-file or --key")
    };
    let open = || File::options().read(true).write(true).open("/dev/tty").map_err(no_terminal);
    let (mut tty, tty_at_signal) = (open()?, open()?);
    let before = tcgetattr(&tty).map_err(|e| no_terminal(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.local_modes.insert(LocalModes::ECHONL);
    let mut signals = signal_hook::iterator::Signals::new(crate::signals::stopping()).map_err(no_terminal)?;
    let handle = signals.handle();
    let at_signal = before.clone();
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            let _ = tcsetattr(&tty_at_signal, OptionalActions::Now, &at_signal);
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
    };
    let watch = std::thread::Builder::new().name("prompt".into()).spawn(watch).map_err(no_terminal)?;
    // The echo is off before the prompt shows, so that no key of a quick typist is seen.
    tcsetattr(&tty, OptionalActions::Flush, &silent).map_err(|e| no_terminal(e.into()))?;
    let prompt = format!("Passphrase for {image}: ");
    let line = tty.write_all(prompt.as_bytes()).map_err(no_terminal).and_then(|()| read_first_line(&mut tty));
    let _ = tcsetattr(&tty, OptionalActions::Now, &before);
    handle.close();
    let _ = watch.join();
    line
}
