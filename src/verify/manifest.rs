//! A manifest: the hashes of files as `sha256sum` and its relatives print them, over paths in an image.
//!
//! | line | is |
//! |---|---|
//! | `HEX  PATH`, `HEX *PATH` | GNU's; which hash it is, its length says: MD5, SHA-1 or one of SHA-2 |
//! | `\HEX  PATH` | the same, and in the path `\\`, `\n` and `\r` are a backslash, a newline and a carriage return |
//! | `NAME (PATH) = HEX` | BSD's, `sha256sum --tag`; a backslash before it as above |
//! | `# …`, and an empty one | nothing |
//!
//! Source: `digest.c` of GNU coreutils 9.5, `split_3` and `bsd_split_3`. Any other line is an error: what is not read would
//! not be proven, and nobody would know.

use sha2::{Digest, Sha256};

use crate::decrypt::hash::Algorithm;
use crate::error::{Error, Result};
use crate::limits::VERIFY_MANIFEST_MAX;
use crate::num::to_u64;

/// A file, and the hash that it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path from the root: it begins with a slash, and has no empty name and no `.` in it.
    pub path: Vec<u8>,
    /// Which hash.
    pub algorithm: Algorithm,
    /// The hash in lower-case hex.
    pub hex: String,
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// SHA-256 of its bytes, in lower-case hex.
    pub sha256: String,
    /// Its lines, in their order.
    pub lines: Vec<Listed>,
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a line that is none of its own, with its number, for
    /// one without any, and for one that is too long.
    pub fn parse(text: &[u8]) -> Result<Self> {
        if to_u64(text.len()) > VERIFY_MANIFEST_MAX {
            let message = format!("it has {} bytes; a manifest has at most {VERIFY_MANIFEST_MAX}", text.len());
            return Err(Error::invalid(message));
        }
        let mut lines = Vec::new();
        for (n, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let bad = || {
                let message = format!(
                    "line {}: a hash and a path are wanted, as sha256sum, sha512sum, sha1sum and md5sum print them",
                    n.saturating_add(1)
                );
                Error::invalid(message)
            };
            lines.push(listed(line).ok_or_else(bad)?);
        }
        if lines.is_empty() {
            return Err(Error::invalid("it has no line with a hash and a path"));
        }
        Ok(Self { sha256: hex::encode(Sha256::digest(text)), lines })
    }
}

/// A line of a manifest, if it is one.
pub fn listed(line: &[u8]) -> Option<Listed> {
    let (line, is_escaped) = match line.strip_prefix(b"\\") {
        Some(rest) => (rest, true),
        None => (line, false),
    };
    let (algorithm, hex, path) = gnu(line).or_else(|| bsd(line))?;
    let path = if is_escaped { unescaped(path)? } else { path.to_vec() };
    let path = from_root(&path);
    Some(Listed { path, algorithm, hex }).filter(|listed| listed.path != b"/")
}

fn gnu(line: &[u8]) -> Option<(Algorithm, String, &[u8])> {
    let end = line.iter().position(|byte| *byte == b' ')?;
    let (hex, rest) = line.split_at_checked(end)?;
    let path = rest.strip_prefix(b"  ").or_else(|| rest.strip_prefix(b" *"))?;
    let algorithm = by_digits(hex.len())?;
    Some((algorithm, digits(hex, algorithm)?, path))
}

fn bsd(line: &[u8]) -> Option<(Algorithm, String, &[u8])> {
    let start = line.windows(2).position(|two| two == b" (")?;
    let end = line.windows(4).rposition(|four| four == b") = ")?;
    let name = std::str::from_utf8(line.get(..start)?).ok()?.to_ascii_lowercase();
    let algorithm: Algorithm = name.parse().ok()?;
    let path = line.get(start.checked_add(2)?..end)?;
    Some((algorithm, digits(line.get(end.checked_add(4)?..)?, algorithm)?, path))
}

/// The hash that has so many digits, of those that have a program of their own.
fn by_digits(digits: usize) -> Option<Algorithm> {
    match digits {
        32 => Some(Algorithm::Md5),
        40 => Some(Algorithm::Sha1),
        56 => Some(Algorithm::Sha224),
        64 => Some(Algorithm::Sha256),
        96 => Some(Algorithm::Sha384),
        128 => Some(Algorithm::Sha512),
        _ => None,
    }
}

/// A hash in lower-case hex, where the text is one.
pub(super) fn digits(hex: &[u8], algorithm: Algorithm) -> Option<String> {
    let is_hash = hex.len() == algorithm.output_len().saturating_mul(2) && hex.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(hex).ok().filter(|_| is_hash)?;
    Some(text.to_ascii_lowercase())
}

fn unescaped(path: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bytes) = (Vec::with_capacity(path.len()), path.iter());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
            byte => *byte,
        });
    }
    Some(out)
}

/// A path as a manifest has it, from the root on: `etc/fstab`, `./etc/fstab` and `/etc/fstab` are one.
pub fn from_root(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len().saturating_add(1));
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        out.push(b'/');
        out.extend(name);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Option<(String, &'static str)> {
        let listed = listed(line.as_bytes())?;
        Some((String::from_utf8(listed.path).unwrap(), listed.algorithm.name()))
    }

    #[test]
    fn lines_are_those_of_the_programs() {
        let (md5, sha1, sha256, sha512) = ("Ab".repeat(16), "0".repeat(40), "f".repeat(64), "1".repeat(128));
        let is = |line: String, path: &str, name: &'static str| {
            assert_eq!(one(&line), Some((path.to_owned(), name)), "{line}");
        };
        is(format!("{sha256}  etc/fstab"), "/etc/fstab", "sha256");
        is(format!("{sha256} *./etc//fstab"), "/etc/fstab", "sha256");
        is(format!("{md5}  /a b"), "/a b", "md5");
        is(format!("{sha1}   x"), "/ x", "sha1");
        is(format!("{sha512}  x\\n"), "/x\\n", "sha512");
        is(format!("\\{sha256}  a\\nb\\\\c\\r"), "/a\nb\\c\r", "sha256");
        is(format!("SHA256 (a (1) = b) = {sha256}"), "/a (1) = b", "sha256");
        is(format!("\\MD5 (a\\nb) = {md5}"), "/a\nb", "md5");
        is(format!("BLAKE2b (x) = {sha512}"), "/x", "blake2b");
        assert_eq!(listed(format!("{md5}  x").as_bytes()).unwrap().hex, "ab".repeat(16));
        for wrong in [
            "x".into(),
            format!("{sha256} x"),
            format!("{sha256}  /"),
            format!("{}  x", &sha256[1..]),
            format!("{}g  x", &sha256[1..]),
            format!("\\{sha256}  a\\tb"),
            format!("SHA256 (x) = {md5}"),
            format!("CRC (x) = {md5}"),
        ] {
            assert_eq!(one(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        let sha256 = "f".repeat(64);
        let text = format!("# made by hand\n\n{sha256}  a\r\n{sha256}  b\n");
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.lines.len(), manifest.lines[0].path.as_slice()), (2, b"/a".as_slice()));
        assert_eq!(manifest.sha256, hex::encode(Sha256::digest(&text)));
        let e = Manifest::parse(format!("{text}hello\n").as_bytes()).unwrap_err();
        assert!(e.to_string().starts_with("line 5: "), "{e}");
        assert!(Manifest::parse(b"# nothing\n").is_err());
    }
}
