//! Whose keyslots tokens name, in words: what gives the passphrase out, and whether a person can have it at all.
//!
//! Types are from cryptsetup's own and its plugins (`luks2-keyring`, `ssh`), systemd-cryptenroll (`systemd-*`:
//! systemd's `docs/` and `src/shared/cryptsetup-*.c`), clevis (`clevis-luks-bind`), and Ubuntu's secboot
//! (`ubuntu-fde`).

use super::metadata::Metadata;
use crate::error::escape;

/// So many tokens are named in one message.
const NAMED: usize = 8;

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

/// The tokens of these keyslots, in one clause for a refusal; `None` where they have none.
pub(super) fn owners(metadata: &Metadata, keyslots: impl Iterator<Item = u32>) -> Option<String> {
    let tokens = |id: u32| metadata.tokens.values().filter(move |token| token.keyslots.contains(&id));
    let all: Vec<_> = keyslots.flat_map(|id| tokens(id).map(move |token| (id, token))).collect();
    let mut text = String::new();
    let mut last = None;
    for (id, token) in all.iter().take(NAMED) {
        let kind = escape(&token.kind);
        let what = meaning(&token.kind).map_or(kind.clone(), |meaning| format!("{kind} ({meaning})"));
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
