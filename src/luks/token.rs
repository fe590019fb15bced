//! Whose keyslots tokens name, in words: what gives the passphrase out, and whether a person can have it at all.
//!
//! Types are from cryptsetup's own and its plugins (`luks2-keyring`, `ssh`), systemd-cryptenroll (`systemd-*`:
//! systemd's `docs/` and `src/shared/cryptsetup-*.c`), clevis (`clevis-luks-bind`), and Ubuntu's secboot
//! (`ubuntu-fde`).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::metadata::{Metadata, Token};
use crate::error::escape;

/// So many tokens are named in one message.
const NAMED: usize = 8;
/// How many pins of clevis are named, all of a token's `sss` together; people have three.
const PINS_MAX: usize = 16;
/// How deep one `sss` may lie in another.
const PINS_DEPTH: usize = 4;

/// What a type of token means for whoever has a passphrase; `None` for one that is not known here.
pub fn meaning(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "clevis" => "a random passphrase that a Tang server, a TPM or several of them give out: nobody types it",
        "systemd-tpm2" => "a random passphrase that only the TPM of its machine gives out",
        "systemd-fido2" => "a passphrase that only its FIDO2 key gives out",
        "systemd-pkcs11" => "a random passphrase that only its smart card decrypts",
        "systemd-recovery" => "its recovery key opens it: 8 groups of 8 letters",
        "ubuntu-fde" => "a random passphrase that only the TPM of its machine gives out",
        "ubuntu-fde-recovery" => "its recovery key opens it: 8 groups of 5 digits",
        "luks2-keyring" => "a passphrase that a program of its machine puts into the kernel's keyring",
        "ssh" => "a passphrase that lies on another machine",
        _ => return None,
    })
}

/// What gives out the passphrase of a clevis token, such as `2 of: tang at http://tang.example, tpm2 (PCRs 7)`: the pins
/// that its JWE names in the clear. `None` for other tokens, and where it cannot be read.
///
/// None of them can be had offline: a Tang server takes part in each opening, a TPM is a chip, and `sss` shares the
/// passphrase among such.
///
/// Source: clevis, `src/luks/clevis-luks-bind` and `src/pins`; RFC 7516, §7.
pub fn pins(token: &Token) -> Option<String> {
    let protected = token.json.get("jwe").filter(|_| token.kind == "clevis")?.get("protected")?.as_str()?;
    pin(protected, PINS_DEPTH, &mut PINS_MAX.clone())
}

/// The pin that a JWE's protected header names.
fn pin(protected: &str, depth: usize, left: &mut usize) -> Option<String> {
    *left = left.checked_sub(1)?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(protected).ok()?).ok()?;
    let clevis = header.get("clevis")?;
    let name = clevis.get("pin")?.as_str()?;
    let of = |field: &str| clevis.get(name).and_then(|pin| pin.get(field));
    let text = |field: &str| of(field).and_then(Value::as_str).map(escape);
    Some(match name {
        "tang" => format!("tang at {}", text("url").unwrap_or_default()),
        "tpm2" => match text("pcr_ids").filter(|ids| !ids.is_empty()) {
            Some(ids) => format!("tpm2 (PCRs {ids})"),
            None => name.to_owned(),
        },
        "sss" => {
            let shares = of("jwe").and_then(Value::as_array)?;
            let depth = depth.checked_sub(1)?;
            let mut names = Vec::new();
            for share in shares.iter().take(PINS_MAX) {
                let protected = share.as_str().and_then(|jwe| jwe.split('.').next());
                let pin = protected.and_then(|protected| pin(protected, depth, left));
                names.push(pin.unwrap_or_else(|| "a pin that cannot be read".to_owned()));
            }
            let wanted = of("t").and_then(Value::as_u64)?;
            format!("{wanted} of: {}", names.join(", "))
        }
        other => escape(other),
    })
}

/// The tokens of these keyslots, in one clause for a refusal; `None` where they have none.
pub(super) fn owners(metadata: &Metadata, keyslots: impl Iterator<Item = u32>) -> Option<String> {
    let tokens = |id: u32| metadata.tokens.values().filter(move |token| token.keyslots.contains(&id));
    let all: Vec<_> = keyslots.flat_map(|id| tokens(id).map(move |token| (id, token))).collect();
    let mut text = String::new();
    let mut last = None;
    for (id, token) in all.iter().take(NAMED) {
        let kind = escape(&token.kind);
        let meaning = pins(token).or_else(|| meaning(&token.kind).map(str::to_owned));
        let what = meaning.map_or(kind.clone(), |meaning| format!("{kind} ({meaning})"));
        match last {
            None => text += &format!("keyslot {id} belongs to the token {what}"),
            Some(last) if last == *id => text += &format!(", and {what}"),
            Some(_) => text += &format!("; keyslot {id} to {what}"),
        }
        last = Some(*id);
    }
    if let Some(more @ 1..) = all.len().checked_sub(NAMED) {
        text += &format!("; and {more} tokens more");
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protected(header: &Value) -> String {
        URL_SAFE_NO_PAD.encode(header.to_string())
    }

    fn token(protected: &str) -> Token {
        let json = serde_json::json!({ "type": "clevis", "keyslots": ["1"], "jwe": { "protected": protected } });
        Token { kind: "clevis".into(), keyslots: vec![1], json }
    }

    #[test]
    fn the_pins_of_clevis_are_named() {
        let tang = serde_json::json!({ "alg": "ECDH-ES", "clevis": { "pin": "tang", "tang": { "adv": {}, "url": "http://tang.example\u{1b}[2J" } } });
        let tpm2 = serde_json::json!({ "alg": "dir", "clevis": { "pin": "tpm2", "tpm2": { "pcr_bank": "sha256", "pcr_ids": "0,7" } } });
        assert_eq!(pins(&token(&protected(&tpm2))).unwrap(), "tpm2 (PCRs 0,7)");
        let shares = [&tang, &tpm2].map(|pin| format!("{}.a.b.c.d", protected(pin)));
        let sss = serde_json::json!({ "clevis": { "pin": "sss", "sss": { "p": "x", "t": 2, "jwe": [shares[0], shares[1], "!"] } } });
        let named = pins(&token(&protected(&sss))).unwrap();
        assert!(
            named.starts_with("2 of: tang at http://tang.example\\u{1b}[2J, tpm2 (PCRs 0,7), a pin that"),
            "{named}"
        );
    }

    #[test]
    fn pins_within_pins_come_to_an_end() {
        let mut header = serde_json::json!({ "clevis": { "pin": "null" } });
        for _ in 0..8 {
            let share = format!("{}.", protected(&header));
            header = serde_json::json!({ "clevis": { "pin": "sss", "sss": { "t": 1, "jwe": vec![share; 3] } } });
        }
        let named = pins(&token(&protected(&header))).unwrap();
        assert!(named.contains("a pin that cannot be read") && named.len() < 2000, "{named}");
        assert!(pins(&token("e30")).is_none() && pins(&token("?")).is_none());
    }
}
