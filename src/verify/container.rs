//! What a report says of a header, for whoever has no image at hand.

use super::report::Container;
use crate::error::counted;
use crate::luks::metadata::{Kdf, KeyslotKind, Metadata, SegmentKind};

impl Container {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let mut ciphers: Vec<String> = Vec::new();
        for (_, segment) in metadata.live_segments() {
            let cipher = match &segment.kind {
                SegmentKind::Crypt(crypt) => match &crypt.integrity {
                    Some(integrity) => format!("{} with {}", crypt.encryption, integrity.kind),
                    None => crypt.encryption.clone(),
                },
                SegmentKind::Linear => "none".into(),
                SegmentKind::Unknown { kind } => kind.clone(),
            };
            if !ciphers.contains(&cipher) {
                ciphers.push(cipher);
            }
        }
        let bound = metadata.keyslots.iter().find(|(id, _)| !metadata.is_unbound(**id));
        Self {
            luks: metadata.version.number(),
            uuid: metadata.uuid.clone(),
            label: metadata.label.clone(),
            ciphers,
            key_bits: bound.map(|(_, keyslot)| u64::from(keyslot.key_size).saturating_mul(8)),
            header_bytes: metadata.header_size,
            data_offset: metadata.data_offset(),
            keyslots: metadata.keyslots.iter().map(|(id, keyslot)| (*id, derivation(&keyslot.kind))).collect(),
        }
    }
}

fn derivation(kind: &KeyslotKind) -> String {
    match kind {
        KeyslotKind::Luks2(keyslot) => match &keyslot.kdf {
            Kdf::Pbkdf2 { hash, iterations, .. } => format!("pbkdf2 with {hash}, {}", counted(iterations, "iteration")),
            Kdf::Argon2 { variant, time, memory, cpus, .. } => {
                format!("{variant}, {} over {memory} KiB, {}", counted(time, "pass"), counted(cpus, "lane"))
            }
            Kdf::Unknown { kind } => kind.clone(),
        },
        KeyslotKind::Reencrypt(_) => "the state of a reencryption".into(),
        KeyslotKind::Unknown { kind } => kind.clone(),
    }
}

/// Whether every sector has a tag.
pub(super) fn is_authenticated(metadata: &Metadata) -> bool {
    metadata.live_segments().all(|(_, segment)| match &segment.kind {
        SegmentKind::Crypt(crypt) => crypt.integrity.as_ref().is_some_and(|i| i.kind != "none"),
        _ => false,
    })
}
