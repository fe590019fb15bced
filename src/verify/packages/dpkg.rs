//! dpkg's database: what it says of files that it installed.
//!
//! | file | lines |
//! |---|---|
//! | `info/PACKAGE[:ARCH].md5sums` | `HEX  PATH`, the path from the root without its slash |
//! | `status` | stanzas between empty lines; `Package`, `Status`, and below `Conffiles:` ` PATH HEX[ obsolete]` |
//! | `diversions` | three lines each: from, to, and the package whose own file is not moved, or `:` |
//!
//! Source: `dpkg(1)`, `deb-md5sums(5)`, `dpkg-divert(1)`; `lib/dpkg/parse.c` of dpkg 1.22.

use std::collections::HashMap;

use super::{Packaged, Weight};
use crate::decrypt::hash::Algorithm;
use crate::error::Result;
use crate::verify::manifest::{from_root, listed};

/// What `status` says.
#[derive(Default)]
pub struct Status {
    /// Packages that are installed.
    pub packages: u64,
    /// Their files of configuration.
    pub conffiles: Vec<Packaged>,
    /// Lines that are none of its own.
    pub odd: u64,
}

/// Reads `status`.
pub fn status(text: &[u8]) -> Status {
    let mut status = Status::default();
    for stanza in stanzas(text) {
        let mut conffiles = Vec::new();
        let (mut is_installed, mut in_conffiles) = (false, false);
        for line in stanza {
            if let Some(rest) = line.strip_prefix(b" ") {
                if in_conffiles {
                    match conffile(rest) {
                        Some(file) => conffiles.extend(file),
                        None => status.odd = status.odd.saturating_add(1),
                    }
                }
                continue;
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                status.odd = status.odd.saturating_add(u64::from(!line.starts_with(b"\t")));
                continue;
            };
            let (name, value) = line.split_at(colon);
            in_conffiles = name.eq_ignore_ascii_case(b"Conffiles");
            if name.eq_ignore_ascii_case(b"Status") {
                is_installed = value.ends_with(b" installed");
            }
        }
        if is_installed {
            status.packages = status.packages.saturating_add(1);
            status.conffiles.append(&mut conffiles);
        }
    }
    status
}

/// The lines of each stanza.
fn stanzas(text: &[u8]) -> impl Iterator<Item = impl Iterator<Item = &[u8]>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.windows(2).position(|two| two == b"\n\n").unwrap_or(rest.len());
        let (stanza, behind) = rest.split_at(end);
        rest = behind.strip_prefix(b"\n\n").unwrap_or(b"");
        Some(stanza.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()))
    })
}

/// A line of `Conffiles`: the outer `None` where it is none, the inner where there is nothing to compare.
fn conffile(line: &[u8]) -> Option<Option<Packaged>> {
    let mut words = line.rsplit(|byte| *byte == b' ').peekable();
    // What is obsolete, or to be removed, may be gone rightly.
    let is_old = words.next_if(|word| matches!(*word, b"obsolete" | b"remove-on-upgrade")).is_some();
    let hex = std::str::from_utf8(words.next()?).ok().filter(|hex| !hex.is_empty())?;
    let name_len = line.windows(hex.len()).rposition(|part| part == hex.as_bytes())?.checked_sub(1)?;
    let path = line.get(..name_len).filter(|path| path.starts_with(b"/"))?;
    if is_old || hex == "newconffile" {
        return Some(None);
    }
    let is_hash = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let hex = Some(hex.to_ascii_lowercase()).filter(|_| is_hash)?;
    Some(Some(Packaged { path: from_root(path), algorithm: Algorithm::Md5, hex, weight: Weight::Config }))
}

/// Gives `take` the files of a package, and says how many lines are none.
///
/// # Errors
/// Those of `take`.
pub fn md5sums(text: &[u8], take: &mut dyn FnMut(Packaged) -> Result<()>) -> Result<u64> {
    let mut odd = 0u64;
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match listed(line).filter(|listed| listed.algorithm == Algorithm::Md5) {
            Some(file) => {
                take(Packaged { path: file.path, algorithm: file.algorithm, hex: file.hex, weight: Weight::Other })?;
            }
            None => odd = odd.saturating_add(1),
        }
    }
    Ok(odd)
}

/// Files that are elsewhere, by where they were: where they are, and whose own is not.
pub type Diversions = HashMap<Vec<u8>, (Vec<u8>, Vec<u8>)>;

/// Reads `diversions`.
pub fn diversions(text: &[u8]) -> Diversions {
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec);
    std::iter::from_fn(|| Some((lines.next()?, (lines.next()?, lines.next()?)))).collect()
}

/// Where a package's file is instead, if it is.
pub fn diverted<'a>(all: &'a Diversions, path: &[u8], package: &[u8]) -> Option<&'a [u8]> {
    let (to, _) = all.get(path).filter(|(_, of)| of != package)?;
    Some(to).filter(|to| to.starts_with(b"/")).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(file: &Packaged) -> &str {
        std::str::from_utf8(&file.path).unwrap()
    }

    #[test]
    fn configuration_is_that_of_installed_packages() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let text = format!(
            "Package: adduser\nStatus: install ok installed\nConffiles:\n /etc/a b {a}\n /etc/old {b} obsolete\n \
             /etc/new newconffile\n /etc/odd zzz\n /etc/space \n  \nDescription: add\n /etc/no {b}\n\nPackage: gone\nConffiles:\n \
             /etc/gone {b}\nStatus: deinstall ok config-files\n\nPackage: x\nStatus: hold ok installed\n"
        );
        let status = status(text.as_bytes());
        let paths: Vec<_> = status.conffiles.iter().map(path).collect();
        assert_eq!((status.packages, status.odd, paths), (2, 3, vec!["/etc/a b"]));
        assert_eq!(status.conffiles[0].hex, a);
    }

    #[test]
    fn a_file_that_was_diverted_is_looked_for_where_it_is() {
        let all = diversions(b"/bin/sh\n/bin/sh.distrib\ndash\n/x\n/y\n:\n");
        assert_eq!(diverted(&all, b"/bin/sh", b"bash"), Some(b"/bin/sh.distrib".as_slice()));
        assert_eq!((diverted(&all, b"/bin/sh", b"dash"), diverted(&all, b"/z", b"bash")), (None, None));
        assert_eq!(diverted(&all, b"/x", b"any"), Some(b"/y".as_slice()));
        let mut found = Vec::new();
        let text = format!("{}  usr/bin/x\nnoise\n", "c".repeat(32));
        let odd = md5sums(text.as_bytes(), &mut |file| {
            found.push(path(&file).to_owned());
            Ok(())
        });
        assert_eq!((odd.unwrap(), found), (1, vec!["/usr/bin/x".to_owned()]));
    }
}
