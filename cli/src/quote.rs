//! Text as any POSIX shell takes it, that no terminal obeys.
//!
//! Not the crate `shlex`: it lets control characters through, and these words go to a terminal, too.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use unluks::error::escape;
use unluks::{Error, Result};

/// How words name a newline: `$(…)` drops those at its end, so that `printf` alone cannot give them.
const NL: &str = "\"$nl\"";
/// What sets the variable that words with a newline name.
const SET_NL: &str = r"nl=$(printf '\012.'); nl=${nl%.}";

/// What must be said before `command`, which is made of words from here: nothing, for most.
pub fn preamble(command: &str) -> Option<&'static str> {
    Some(SET_NL).filter(|_| command.contains(NL))
}

/// What may stand in single quotes, and on a terminal.
fn is_harmless(c: char) -> bool {
    (' '..='~').contains(&c) || c.is_alphanumeric()
}

/// Bytes without a NUL as one word of a POSIX shell, which knows no `$'…'`: as they are, or in single quotes, and from
/// `printf` where no terminal should get them as they are.
fn word(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+,:=@%".contains(b);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return bytes.iter().copied().map(char::from).collect();
    }
    let mut out = Word::default();
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\n' => out.newline(),
                '\'' => out.apostrophe(),
                c if is_harmless(c) => out.quoted(c),
                c => out.octal(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.octal(part.invalid());
    }
    out.end()
}

/// A word that grows.
#[derive(Default)]
struct Word {
    text: String,
    /// What ends the quotes that are open.
    close: &'static str,
}

impl Word {
    /// Makes `open` and `close` the quotes that what follows stands in.
    fn within(&mut self, open: &str, close: &'static str) {
        if self.close != close {
            self.text += self.close;
            self.text += open;
            self.close = close;
        }
    }

    fn quoted(&mut self, c: char) {
        self.within("'", "'");
        self.text.push(c);
    }

    fn apostrophe(&mut self) {
        self.within("", "");
        self.text += r"\'";
    }

    fn newline(&mut self) {
        self.within("", "");
        self.text += NL;
    }

    /// Always three digits, so that one that follows is not taken in.
    fn octal(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.within("\"$(printf '", "')\"");
            let _ = write!(self.text, "\\{byte:03o}");
        }
    }

    fn end(mut self) -> String {
        self.within("", "");
        if self.text.is_empty() { "''".into() } else { self.text }
    }
}

/// `text` as a word; no program can be given a NUL.
fn checked(text: &str) -> Result<String> {
    if text.contains('\0') {
        let message = format!("found \"{}\"; a NUL byte cannot be part of a command", escape(text));
        return Err(Error::unsupported("restore-plan", message).with_hint("use --run, which needs no command"));
    }
    Ok(word(text.as_bytes()))
}

/// A path as one word. A path with a NUL cannot have been opened.
pub fn path(path: &Path) -> String {
    // A path that begins with a dash would be taken for a flag.
    if path.as_os_str().as_bytes().starts_with(b"-") {
        word(Path::new(".").join(path).as_os_str().as_bytes())
    } else {
        word(path.as_os_str().as_bytes())
    }
}

/// A flag and its value; in one word where the value would be taken for a flag itself.
///
/// # Errors
/// [`unluks::ErrorKind::Unsupported`] for a NUL.
pub fn flag(flag: &str, value: &str) -> Result<String> {
    if value.starts_with('-') { checked(&format!("{flag}={value}")) } else { Ok(format!("{flag} {}", checked(value)?)) }
}

/// How the openstack client is called for a cloud of clouds.yaml; without one, for what its variables say.
///
/// # Errors
/// As [`flag`].
pub fn client(cloud: Option<&str>) -> Result<String> {
    Ok(match cloud {
        Some(cloud) => format!("openstack {}", flag("--os-cloud", cloud)?),
        None => "openstack".into(),
    })
}

/// A text as one word, behind all flags.
///
/// # Errors
/// As [`flag`].
pub fn operand(text: &str) -> Result<String> {
    let word = checked(text)?;
    Ok(if text.starts_with('-') { format!("-- {word}") } else { word })
}

/// Text for a line of a script that is a comment: nothing in it ends the line, and no terminal obeys it.
pub fn comment(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if is_harmless(c) || c == '…' {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::process::{Command, Output};

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&[u8]; 15] = [
        b"disk.img",
        b"/dev/disk/by-id/usb-x:0",
        b"my disk.img",
        b"it's $(touch pwned) `id` \"x\" \\ * !.img",
        b"--output",
        "b\u{fc}ro \u{6f22}.img".as_bytes(),
        b"\x1b[31m\n\x07'8.img",
        b"\x07';touch PWNED;\"",
        b"\xff\xfe9.img",
        "\u{202e}gmi.txt".as_bytes(),
        b"~root",
        b"",
        b"ends in lines\n\n",
        b"\n",
        b"%s\\n\x81\x82\x88\r\t",
    ];

    /// The shells that a printed command must mean the same in. Debian's /bin/sh is dash.
    fn shells() -> Vec<Vec<&'static str>> {
        let mut shells = vec![vec!["dash"], vec!["bash"], vec!["bash", "--posix"]];
        if cfg!(feature = "peer-tests") {
            shells.push(vec!["busybox", "sh"]);
        }
        shells
    }

    fn run(shell: &[&str], script: &str) -> Output {
        let output = Command::new(shell[0]).args(&shell[1..]).args(["-uc", script]).output();
        output.unwrap_or_else(|e| panic!("{} of the Debian package of that name: {e}", shell[0]))
    }

    #[track_caller]
    fn assert_shells_take(quoted: &str, wanted: &[u8]) {
        assert!(quoted.chars().all(|c| (' '..='~').contains(&c) || c.is_alphanumeric()), "{quoted}");
        for shell in shells() {
            let output = run(&shell, &format!("{SET_NL}; printf '%s|' {quoted}"));
            assert_eq!(output.stdout, wanted, "{shell:?}: {quoted}: {:?}", output.stderr);
            assert!(output.stderr.is_empty(), "{shell:?}: {quoted}: {:?}", output.stderr);
        }
    }

    #[test]
    fn a_shell_takes_a_quoted_path_as_it_was() {
        for name in NAMES {
            let wanted = if name.starts_with(b"-") { [b"./", name].concat() } else { name.to_vec() };
            assert_shells_take(&path(Path::new(OsStr::from_bytes(name))), &[&wanted[..], b"|"].concat());
        }
    }

    #[test]
    fn a_value_is_never_taken_for_a_flag() {
        for name in NAMES.iter().filter_map(|name| std::str::from_utf8(name).ok()) {
            let wanted = if name.starts_with('-') { format!("--tag={name}|") } else { format!("--tag|{name}|") };
            assert_shells_take(&flag("--tag", name).unwrap(), wanted.as_bytes());
            let wanted = if name.starts_with('-') { format!("--|{name}|") } else { format!("{name}|") };
            assert_shells_take(&operand(name).unwrap(), wanted.as_bytes());
        }
    }

    #[test]
    fn no_word_holds_a_nul() {
        for quoted in [flag("--tag", "a\0b"), operand("a\0b")] {
            let e = quoted.unwrap_err();
            assert_eq!(e.kind(), unluks::ErrorKind::Unsupported);
            assert!(e.to_string().contains("a\\u{0}b"), "{e}");
        }
    }

    #[test]
    fn a_comment_stays_a_comment() {
        assert_eq!(comment("a\nrm\r\u{1b}[2J\u{202e} b\u{fc}\u{2026}"), "a\\nrm\\r\\u{1b}[2J\\u{202e} b\u{fc}\u{2026}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_come_back(words in prop::collection::vec(prop::collection::vec(1u8.., 0..24), 1..8)) {
            let quoted: Vec<_> = words.iter().map(|bytes| word(bytes)).collect();
            let script = format!("{SET_NL}; printf '%s\\0' {}", quoted.join(" "));
            let wanted: Vec<u8> = words.iter().flat_map(|bytes| bytes.iter().copied().chain([0])).collect();
            for shell in shells() {
                prop_assert_eq!(&run(&shell, &script).stdout, &wanted, "{:?}: {}", shell, script);
            }
        }
    }
}
