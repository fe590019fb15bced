//! Why a key does not open, or cannot even be read, in words that help whoever has it.

use std::io::ErrorKind as IoErrorKind;
use std::path::Path;

use unluks::error::Hint;
use unluks::key::Seen;
use unluks::{Error, ErrorKind, SecretBytes};

use super::Passphrases;
use crate::source::shown;

/// The error for a key's file that cannot be opened. What may be a key itself, given in place of a file's name, must not
/// get into a log.
pub fn opening(path: &Path, e: std::io::Error) -> Error {
    if e.kind() != IoErrorKind::NotFound || is_place(path) {
        return Error::io(format!("opening the key {}", shown(path)), e);
    }
    let names = path.to_str().and_then(|text| SecretBytes::copy_of(text.as_bytes()).ok()).and_then(|it| Seen::of(&it));
    if matches!(names, Some(Seen::Uuid | Seen::Href)) {
        return Error::io("opening the key", e).with_hint(
            "the name of a file that holds the key is wanted; what was given names a secret: unluks fetch key SECRET \
             --output FILE gets its payload",
        );
    }
    Error::io("opening the key", e).with_hint(
        "the name of a file that holds the key is wanted; if it was the key itself that was given, it is in the \
         shell's history now",
    )
}

/// Whether a name leads into a folder that is there, as no key does.
fn is_place(path: &Path) -> bool {
    path.parent().is_some_and(|dir| dir.parent().is_some() && dir.is_dir())
}

/// A refusal with what was tried, and with what the key visibly is.
pub fn wrong(e: Error, given: &Passphrases) -> Error {
    if e.kind() != ErrorKind::WrongKey {
        return e;
    }
    let candidates = given.key.candidates();
    if candidates.iter().all(|c| c.passphrase.expose().is_empty()) {
        return e.with_hint("the passphrase is empty: was a key given?");
    }
    let mut hints: Vec<Hint> = given.seen.map(|seen| Hint::from(about(seen))).into_iter().collect();
    if given.guessed {
        let rules: Vec<_> = candidates.iter().map(|c| c.rule.describe()).collect();
        hints.push(format!("tried: {}", rules.join("; ")).into());
    }
    // That --key tries them is no news to who gave it.
    hints.extend(e.hint().filter(|hint| !(given.guessed && **hint == Hint::GuessKey)).cloned());
    if hints.is_empty() { e } else { e.with_hint(Hint::All(hints)) }
}

fn about(seen: Seen) -> &'static str {
    match seen {
        Seen::Empty => "the key file is empty, or holds white space alone",
        Seen::Uuid => {
            "the key file holds a UUID, which may name a secret but is not its payload: unluks fetch key UUID gets that, or \
             openstack secret get --payload --file FILE HREF"
        }
        Seen::Href => {
            "the key file holds an address, which names a secret but is not its payload: unluks fetch key ADDRESS gets \
             that, or openstack secret get --payload --file FILE ADDRESS"
        }
        Seen::SecretMetadata => {
            "the key file holds what is known about a secret, but not its payload: openstack secret get --payload --file \
             FILE HREF gets that"
        }
        Seen::Html => "the key file holds a web page: the download went to a login or an error page",
        Seen::ErrorPage => "the key file holds the answer of a service, which looks like an error, and no key",
        Seen::Certificate => "the key file holds a certificate, which opens nothing",
        Seen::PublicKey => "the key file holds a public key, which opens nothing",
        Seen::PrivateKey => "the key file holds a private key of TLS or SSH",
        Seen::Encrypted => "the key file is encrypted itself: decrypt it first, with gpg or age",
        Seen::LuksHeader => "the key file holds a LUKS header: are key and header swapped?",
        _ => "the key file holds no key",
    }
}
