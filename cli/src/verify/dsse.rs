//! A statement in an envelope with a signature: DSSE, <https://github.com/secure-systems-lab/dsse>, `protocol.md` and
//! `envelope.md`, with Ed25519.
//!
//! The crate `ed25519-dalek` reads keys as `openssl genpkey` writes them (PKCS#8, PEM), and wipes them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePublicKey};
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256};
use unluks::{Error, Result, json};
use zeroize::Zeroizing;

use crate::source::{WithinFile, shown};

/// What an envelope begins with.
pub const BEGINS: &str = "{\"payloadType\":\"application/vnd.in-toto+json\",";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The largest file of a key that is read.
const FILE_MAX: u64 = 64 << 10;

/// What signs.
pub struct Key(SigningKey);

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: &'static str,
    payload: String,
    signatures: [Signature; 1],
}

#[derive(serde::Serialize)]
struct Signature {
    keyid: String,
    sig: String,
}

impl Key {
    /// Reads a private key.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |e| Error::io(format!("reading the key {}", shown(path)), e);
        if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
            return Err(Error::invalid(format!("it has more than {FILE_MAX} bytes, and is no key")).within_file(path));
        }
        let text = Zeroizing::new(std::fs::read(path).map_err(failed)?);
        let text = std::str::from_utf8(&text).ok();
        let key = text.and_then(|text| SigningKey::from_pkcs8_pem(text).ok());
        key.map(Self).ok_or_else(|| {
            Error::invalid("it is no private key of Ed25519 in PKCS#8 and PEM")
                .with_hint("openssl genpkey -algorithm ed25519 -out KEY makes one")
                .within_file(path)
        })
    }

    /// The envelope of a statement, a line.
    pub fn envelope(&self, statement: &str) -> Result<String> {
        let payload = statement.as_bytes();
        let mut signed = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
        signed.extend_from_slice(payload);
        let public = self.0.verifying_key().to_public_key_der();
        let public = public.map_err(|e| Error::invalid(format!("the public key of the attestation's key: {e}")))?;
        let signature = Signature {
            keyid: hex::encode(Sha256::digest(public.as_bytes())),
            sig: BASE64.encode(self.0.sign(&signed).to_bytes()),
        };
        let envelope =
            Envelope { payload_type: PAYLOAD_TYPE, payload: BASE64.encode(payload), signatures: [signature] };
        Ok(json::compact(&envelope)? + "\n")
    }
}
