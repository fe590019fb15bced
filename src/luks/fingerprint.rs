//! What tells one header from another, whichever of its copies is whole: a hash of what was parsed.

use super::metadata::{Bytes, DigestKind, Kdf, KeyslotKind, Metadata, SegmentKind};
use crate::crypto::hash::Hash;
use crate::num::to_u64;

/// The fields one behind the other, each behind its length, so that no two lists of fields look alike.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn bytes(&mut self, bytes: &[u8]) {
        self.number(to_u64(bytes.len()));
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.0.extend(number.to_be_bytes());
    }

    fn stored(&mut self, bytes: &Bytes) {
        match bytes {
            Bytes::Decoded(bytes) => self.bytes(bytes),
            Bytes::Malformed(text) => self.text(text),
        }
    }
}

impl Metadata {
    /// SHA-256 of what the header says, in lower-case hex. It is the same for a header whose other copy was damaged
    /// meanwhile, and another one for a header with other keyslots, segments, digests or tokens. It is stable: the
    /// journal of an unfinished output keeps it.
    pub fn fingerprint(&self) -> String {
        let mut fields = Fields::default();
        fields.number(self.version.number().into());
        for text in [&self.uuid, &self.label, &self.subsystem] {
            fields.text(text);
        }
        fields.number(self.seqid);
        fields.number(self.header_size);
        match &self.json {
            // All that LUKS2 has to say.
            Some(json) => fields.text(&json.to_string()),
            None => self.add_luks1(&mut fields),
        }
        hex::encode(Hash::Sha256.digest(&[&fields.0]))
    }

    fn add_luks1(&self, fields: &mut Fields) {
        for (id, keyslot) in &self.keyslots {
            for number in [u64::from(*id), keyslot.area.offset, keyslot.area.size, keyslot.key_size.into()] {
                fields.number(number);
            }
            if let KeyslotKind::Luks2(keyslot) = &keyslot.kind {
                fields.number(keyslot.af_stripes);
                fields.text(&keyslot.encryption);
                if let Kdf::Pbkdf2 { hash, iterations, salt } = &keyslot.kdf {
                    fields.text(hash);
                    fields.number(*iterations);
                    fields.stored(salt);
                }
            }
        }
        for (id, keyslot) in &self.disabled_keyslots {
            for number in [*id, keyslot.key_size, keyslot.iterations] {
                fields.number(number.into());
            }
            fields.number(keyslot.area.offset);
            fields.bytes(&keyslot.salt);
        }
        for segment in &self.segments {
            fields.number(segment.offset);
            if let SegmentKind::Crypt(crypt) = &segment.kind {
                fields.text(&crypt.encryption);
                fields.number(crypt.iv_tweak);
                fields.number(crypt.sector_size.into());
            }
        }
        for digest in self.digests.values() {
            if let DigestKind::Pbkdf2 { hash, iterations, salt, digest } = &digest.kind {
                fields.text(hash);
                fields.number(*iterations);
                fields.stored(salt);
                fields.stored(digest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::luks::findings::tests::good;

    #[test]
    fn it_is_of_what_was_parsed_and_not_of_the_copies() {
        let was = good().fingerprint();
        assert_eq!(was.len(), 64);
        let mut damaged = good();
        damaged.copies.clear();
        assert_eq!(damaged.fingerprint(), was);
        let mut other = good();
        other.uuid.push('0');
        assert_ne!(other.fingerprint(), was);
        let mut other = good();
        other.json = None;
        let luks1 = other.fingerprint();
        other.segments[0].offset += 512;
        assert_ne!(other.fingerprint(), luks1);
    }
}
