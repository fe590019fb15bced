//! apk's database: `installed`, a line for each fact, the first letter says which.
//!
//! | line | is |
//! |---|---|
//! | `P:NAME` | a package begins, or goes on |
//! | `F:DIR` | the directory of the files below, from the root without its slash |
//! | `R:NAME` | a file in it |
//! | `Z:Q1…`, `Z:Q2…` | its SHA-1 or SHA-256, in base64; of a link, that of where it leads |
//!
//! Source: `src/database.c` of apk-tools 2.14, `apk_db_read_fdb`; `apk_blob_pull_csum`. By default the protected paths are
//! those in `/etc`.

use base64::Engine;

use super::{Packaged, Weight};
use crate::decrypt::hash::Algorithm;
use crate::error::Result;
use crate::verify::manifest::from_root;

/// Gives `take` the files of all packages; says how many packages there are, and how many lines are none.
///
/// # Errors
/// Those of `take`.
pub fn installed(text: &[u8], take: &mut dyn FnMut(Packaged) -> Result<()>) -> Result<(u64, u64)> {
    let (mut packages, mut odd) = (0u64, 0u64);
    let (mut dir, mut file): (&[u8], Option<&[u8]>) = (b"", None);
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let (name, value) = match line {
            [name, b':', value @ ..] if name.is_ascii_alphabetic() => (*name, value),
            _ => {
                odd = odd.saturating_add(1);
                continue;
            }
        };
        match name {
            b'P' => {
                packages = packages.saturating_add(1);
                (dir, file) = (b"", None);
            }
            b'F' => (dir, file) = (value, None),
            b'R' => file = Some(value),
            b'Z' => match (file.take(), hash(value)) {
                (Some(file), Some((algorithm, hex))) => {
                    let path = from_root(&[dir, b"/", file].concat());
                    let weight = if path.starts_with(b"/etc/") { Weight::Config } else { Weight::Other };
                    take(Packaged { path, algorithm, hex, weight })?;
                }
                _ => odd = odd.saturating_add(1),
            },
            _ => {}
        }
    }
    Ok((packages, odd))
}

fn hash(text: &[u8]) -> Option<(Algorithm, String)> {
    let (algorithm, rest) = match text.strip_prefix(b"Q1") {
        Some(rest) => (Algorithm::Sha1, rest),
        None => (Algorithm::Sha256, text.strip_prefix(b"Q2")?),
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
    Some((algorithm, hex::encode(&bytes))).filter(|_| bytes.len() == algorithm.output_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_those_of_their_directories() {
        let text = b"P:busybox\nV:1.36\nF:bin\nR:busybox\na:0:0:755\nZ:Q1AAAAAAAAAAAAAAAAAAAAAAAAAAA=\nF:etc\nR:x\n\
            Z:Q1//////////////////////////8=\n\nP:b\nF:\nR:top\nR:none\nZ:Q1zz\nnoise\n";
        let mut found = Vec::new();
        let counts = installed(text, &mut |file| {
            found.push((String::from_utf8(file.path).unwrap(), file.hex, file.weight == Weight::Config));
            Ok(())
        });
        assert_eq!(counts.unwrap(), (2, 2));
        assert_eq!(found[0], ("/bin/busybox".to_owned(), "00".repeat(20), false));
        assert_eq!(found[1..], [("/etc/x".to_owned(), "ff".repeat(20), true)]);
    }
}
