//! Text as a shell takes it, that no terminal obeys.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes as one word of a shell: as they are, or in quotes; with `$'…'` where no terminal should get them as they are.
fn word(bytes: &[u8]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:=@%".contains(c);
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && text.chars().all(plain) => text.to_owned(),
        Ok(text) if text.chars().all(|c| (' '..='~').contains(&c) || c.is_alphanumeric()) => {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => escaped(bytes),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut out = String::from("$'");
    for byte in bytes {
        match byte {
            b'\'' | b'\\' => {
                out.push('\\');
                out.push(char::from(*byte));
            }
            b' '..=b'~' => out.push(char::from(*byte)),
            // Always three digits, so that one that follows is not taken in.
            byte => {
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out + "'"
}

/// A path as one word.
pub fn path(path: &Path) -> String {
    // A path that begins with a dash would be taken for a flag.
    match path.as_os_str().as_bytes().starts_with(b"-") {
        true => word(Path::new(".").join(path).as_os_str().as_bytes()),
        false => word(path.as_os_str().as_bytes()),
    }
}

/// A flag and its value; in one word where the value would be taken for a flag itself.
pub fn flag(flag: &str, value: &str) -> String {
    match value.starts_with('-') {
        true => word(format!("{flag}={value}").as_bytes()),
        false => format!("{flag} {}", word(value.as_bytes())),
    }
}

/// A text as one word, behind all flags.
pub fn operand(text: &str) -> String {
    match text.starts_with('-') {
        true => format!("-- {}", word(text.as_bytes())),
        false => word(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    const NAMES: [&[u8]; 11] = [
        b"disk.img",
        b"/dev/disk/by-id/usb-x:0",
        b"my disk.img",
        b"it's $(touch pwned) `id` \"x\" \\ * !.img",
        b"--output",
        "b\u{fc}ro \u{6f22}.img".as_bytes(),
        b"\x1b[31m\n\x07'8.img",
        b"\xff\xfe9.img",
        "\u{202e}gmi.txt".as_bytes(),
        b"~root",
        b"",
    ];

    fn assert_bash_takes(quoted: &str, wanted: &[u8]) {
        assert!(quoted.chars().all(|c| (' '..='~').contains(&c) || c.is_alphanumeric()), "{quoted}");
        let output =
            std::process::Command::new("bash").args(["-c", &format!("printf '%s|' {quoted}")]).output().unwrap();
        assert_eq!(output.stdout, wanted, "{quoted}");
    }

    #[test]
    fn a_shell_takes_a_quoted_path_as_it_was() {
        for name in NAMES {
            let wanted = if name.starts_with(b"-") { [b"./", name].concat() } else { name.to_vec() };
            assert_bash_takes(&path(Path::new(OsStr::from_bytes(name))), &[&wanted[..], b"|"].concat());
        }
    }

    #[test]
    fn a_value_is_never_taken_for_a_flag() {
        for name in NAMES.iter().filter_map(|name| std::str::from_utf8(name).ok()) {
            let wanted = if name.starts_with('-') { format!("--tag={name}|") } else { format!("--tag|{name}|") };
            assert_bash_takes(&flag("--tag", name), wanted.as_bytes());
            let wanted = if name.starts_with('-') { format!("--|{name}|") } else { format!("{name}|") };
            assert_bash_takes(&operand(name), wanted.as_bytes());
        }
    }
}
