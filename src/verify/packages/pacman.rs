//! pacman's database: a directory for each package, with `mtree` (gzip) and `files`.
//!
//! | file | lines |
//! |---|---|
//! | `mtree` | `./PATH KEY=VALUE …`; `type` is a file's where none is said; `sha256digest` or `md5digest`; octal escapes in paths |
//! | `files` | below `%BACKUP%`, up to an empty line: `PATH<tab>HEX`, the files of configuration |
//!
//! Source: `makepkg`'s `write_mtree`, `lib/libalpm/be_local.c` of pacman 6.1, and `mtree(5)`. Paths that begin with a dot are
//! the package's own texts, which are not installed.

use std::collections::HashSet;
use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::{Key, Packaged, Weight, key};
use crate::decrypt::hash::Algorithm;
use crate::error::{Error, Result};
use crate::limits::VERIFY_PACKAGES_TEXT_MAX;
use crate::num::to_u64;
use crate::verify::manifest::{digits, from_root};

/// Unpacks an `mtree`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt), [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded).
pub fn unpack(packed: &[u8]) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = VERIFY_PACKAGES_TEXT_MAX.saturating_add(1);
    let read = MultiGzDecoder::new(packed).take(most).read_to_end(&mut text);
    read.map_err(|e| Error::corrupt("packages.gzip", format!("it is no whole gzip: {e}")))?;
    if to_u64(text.len()) == most {
        let message = format!("it unpacks to more than the {VERIFY_PACKAGES_TEXT_MAX} bytes that are read");
        return Err(Error::limit("verify.text", message));
    }
    Ok(text)
}

/// The files of configuration that `files` names.
pub fn backup(text: &[u8]) -> HashSet<Key> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.skip_while(|line| *line != b"%BACKUP%").skip(1).take_while(|line| !line.is_empty());
    lines.filter_map(|line| line.split(|byte| *byte == b'\t').next()).map(|path| key(&from_root(path))).collect()
}

/// Gives `take` the files of a package, and says how many lines are none.
///
/// # Errors
/// Those of `take`.
pub fn mtree(text: &[u8], config: &HashSet<Key>, take: &mut dyn FnMut(Packaged) -> Result<()>) -> Result<u64> {
    let mut odd = 0u64;
    // libarchive writes files as the usual, and says so.
    let mut usual: &[u8] = b"file";
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#")) {
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
        let name = words.next().unwrap_or(b"");
        let values: Vec<&[u8]> = words.collect();
        let value = |key: &[u8]| values.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix(b"="));
        if let Some(command) = name.strip_prefix(b"/") {
            if command == b"set" {
                usual = value(b"type").unwrap_or(usual);
            }
            continue;
        }
        let Some(path) = name.strip_prefix(b"./").and_then(unescaped) else {
            odd = odd.saturating_add(1);
            continue;
        };
        if value(b"type").unwrap_or(usual) != b"file" || path.starts_with(b".") {
            continue;
        }
        let known = [(b"sha256digest".as_slice(), Algorithm::Sha256), (b"md5digest", Algorithm::Md5)];
        let hash = known.into_iter().find_map(|(key, algorithm)| Some((algorithm, digits(value(key)?, algorithm)?)));
        match hash {
            Some((algorithm, hex)) => {
                let path = from_root(&path);
                let weight = if config.contains(&key(&path)) { Weight::Config } else { Weight::Other };
                take(Packaged { path, algorithm, hex, weight })?;
            }
            None => odd = odd.saturating_add(1),
        }
    }
    Ok(odd)
}

/// A path without its escapes: a backslash and three octal digits.
fn unescaped(path: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut bytes) = (Vec::with_capacity(path.len()), path.iter());
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let digits = [*bytes.next()?, *bytes.next()?, *bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        out.push(u8::from_str_radix(digits, 8).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_that_are_installed() {
        let hex = "a".repeat(64);
        let text = format!(
            "#mtree\n/set type=file uid=0 gid=0 mode=644\n./.PKGINFO time=1.0 size=3 sha256digest={hex}\n./usr type=dir\n\
             ./usr/a\\040b time=1.0 mode=755 size=1 md5digest={} sha256digest={hex}\n./l type=link link=usr\n\
             ./etc/x size=1 md5digest={}\n./bad sha256digest=1\nnoise\n./a\\9 size=1\n",
            "b".repeat(32),
            "c".repeat(32)
        );
        let config = backup(b"%FILES%\nusr/\netc/x\n\n%BACKUP%\netc/x\tffff\n\n");
        let mut found = Vec::new();
        let odd = mtree(text.as_bytes(), &config, &mut |file| {
            found.push((String::from_utf8(file.path).unwrap(), file.algorithm.name(), file.weight == Weight::Config));
            Ok(())
        });
        let wanted = vec![("/usr/a b".to_owned(), "sha256", false), ("/etc/x".to_owned(), "md5", true)];
        assert_eq!((odd.unwrap(), found), (3, wanted));
        assert!(unpack(b"\x1f\x8bnoise").is_err());
    }
}
