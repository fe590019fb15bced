//! What a file visibly is that holds no key: said where nothing opens, so that nobody has to look.

use crate::limits::KEY_TEXT_MAX;
use crate::secret::SecretBytes;

/// What was found in place of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// Nothing at all, or white space alone.
    Empty,
    /// The UUID of a secret or of another thing.
    Uuid,
    /// An address, such as a secret's href.
    Href,
    /// What a key manager says of a secret, without its payload.
    SecretMetadata,
    /// A web page.
    Html,
    /// The error of a service.
    ErrorPage,
    /// An X.509 certificate, or a request for one.
    Certificate,
    /// A public key.
    PublicKey,
    /// A private key, of TLS or SSH.
    PrivateKey,
    /// A message that PGP or age encrypted.
    Encrypted,
    /// A LUKS header.
    LuksHeader,
}

impl Seen {
    /// What the saved bytes are, where that shows and it is no key.
    pub fn of(saved: &SecretBytes) -> Option<Self> {
        let bytes = saved.expose();
        if bytes.starts_with(b"LUKS\xba\xbe") || bytes.starts_with(b"SKUL\xba\xbe") {
            return Some(Self::LuksHeader);
        }
        let text = std::str::from_utf8(bytes.get(..KEY_TEXT_MAX).unwrap_or(bytes)).ok()?;
        let text = text.trim_start_matches('\u{feff}').trim();
        let starts = |with: &str| text.get(..with.len()).is_some_and(|t| t.eq_ignore_ascii_case(with));
        let has = |word: &str| text.contains(word);
        let begin = || text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split("-----").next());
        if text.is_empty() {
            Some(Self::Empty)
        } else if is_uuid(text) {
            Some(Self::Uuid)
        } else if (starts("http://") || starts("https://") || starts("barbican://"))
            && !text.contains(char::is_whitespace)
        {
            Some(Self::Href)
        } else if starts("<!doctype html") || starts("<html") {
            Some(Self::Html)
        } else if let Some(what) = begin() {
            match what {
                w if w.ends_with("CERTIFICATE") || w.ends_with("CERTIFICATE REQUEST") => Some(Self::Certificate),
                w if w.ends_with("PUBLIC KEY") || w.starts_with("PGP PUBLIC") => Some(Self::PublicKey),
                w if w.contains("PRIVATE KEY") => Some(Self::PrivateKey),
                w if w.starts_with("PGP MESSAGE") || w.starts_with("AGE") => Some(Self::Encrypted),
                _ => None,
            }
        } else if starts("ssh-") || starts("ecdsa-sha2-") {
            Some(Self::PublicKey)
        } else if starts("age-encryption.org/") {
            Some(Self::Encrypted)
        } else if has("Secret href") || has("\"secret_ref\"") {
            Some(Self::SecretMetadata)
        } else {
            let is_error = starts("{") && ["\"error\"", "\"code\"", "\"faultstring\""].iter().any(|name| has(name));
            (is_error || starts("<?xml") || starts("HTTP/")).then_some(Self::ErrorPage)
        }
    }
}

fn is_uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    text.len() == 36
        && text.bytes().enumerate().all(|(n, b)| if dashes.contains(&n) { b == b'-' } else { b.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_named() {
        let cases = [
            ("\r\n", Some(Seen::Empty)),
            ("5ca1ab1e-0000-4000-8000-00000000c0de\n", Some(Seen::Uuid)),
            ("https://barbican.example/v1/secrets/5ca1ab1e-0000-4000-8000-00000000c0de", Some(Seen::Href)),
            ("<!DOCTYPE html><title>401", Some(Seen::Html)),
            ("{\"code\": 401, \"title\": \"Unauthorized\"}", Some(Seen::ErrorPage)),
            ("{\"error\": {\"message\": \"x\"}}", Some(Seen::ErrorPage)),
            ("-----BEGIN CERTIFICATE-----\nMII", Some(Seen::Certificate)),
            ("-----BEGIN RSA PUBLIC KEY-----\nMII", Some(Seen::PublicKey)),
            ("ssh-ed25519 AAAA me@host", Some(Seen::PublicKey)),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n", Some(Seen::PrivateKey)),
            ("-----BEGIN AGE ENCRYPTED FILE-----\n", Some(Seen::Encrypted)),
            ("| Secret href | https://x |", Some(Seen::SecretMetadata)),
            ("LUKS", None),
            ("hunter2\n", None),
            ("{\"payload\": \"x\"}", None),
            ("https://x and more", None),
        ];
        for (text, seen) in cases {
            assert_eq!(Seen::of(&SecretBytes::copy_of(text.as_bytes()).unwrap()), seen, "{text}");
        }
        assert_eq!(Seen::of(&SecretBytes::copy_of(b"LUKS\xba\xbe\0\x02").unwrap()), Some(Seen::LuksHeader));
    }
}
