//! A statement in an envelope with a signature: DSSE, <https://github.com/secure-systems-lab/dsse>, `protocol.md` and
//! `envelope.md`, with Ed25519.
//!
//! The crate `ed25519-dalek` reads keys as `openssl genpkey` writes them (PKCS#8, PEM), and wipes them.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
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
        let text = read(path)?;
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
        let signed = signed(payload);
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

/// What is signed: the pre-authentication encoding of a payload.
fn signed(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |e| Error::io(format!("reading the key {}", shown(path)), e);
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(Error::invalid(format!("it has more than {FILE_MAX} bytes, and is no key")).within_file(path));
    }
    Ok(Zeroizing::new(std::fs::read(path).map_err(failed)?))
}

/// An envelope that is there: any has these, and may have more.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Received {
    payload_type: String,
    payload: String,
    signatures: Vec<ReceivedSignature>,
}

#[derive(serde::Deserialize)]
struct ReceivedSignature {
    sig: String,
}

/// What checks an envelope.
pub struct Verifier(VerifyingKey);

impl Verifier {
    /// Reads a public key.
    pub fn open(path: &Path) -> Result<Self> {
        let text = read(path)?;
        let key = std::str::from_utf8(&text).ok().and_then(|text| VerifyingKey::from_public_key_pem(text).ok());
        key.map(Self).ok_or_else(|| {
            Error::invalid("it is no public key of Ed25519 in PEM")
                .with_hint("openssl pkey -in KEY -pubout makes it of the private one")
                .within_file(path)
        })
    }
}

/// The statement in an envelope, which a key has signed, where one is given.
pub fn open(envelope: &str, verifier: Option<&Verifier>) -> Result<String> {
    let bad = |why: &str| Error::corrupt("report", why.to_owned());
    let received: Received = serde_json::from_str(envelope).map_err(|_| bad("it is no envelope of DSSE"))?;
    if received.payload_type != PAYLOAD_TYPE {
        return Err(bad("the envelope holds no statement of in-toto"));
    }
    let payload = BASE64.decode(&received.payload).map_err(|_| bad("what the envelope holds is no base64"))?;
    if let Some(Verifier(key)) = verifier {
        let signed = signed(&payload);
        let is_right = |signature: &ReceivedSignature| {
            let bytes = BASE64.decode(&signature.sig).ok()?;
            let signature = ed25519_dalek::Signature::from_slice(&bytes).ok()?;
            key.verify_strict(&signed, &signature).ok()
        };
        if !received.signatures.iter().any(|signature| is_right(signature).is_some()) {
            return Err(bad("no signature of the envelope is of this key"));
        }
    }
    String::from_utf8(payload).map_err(|_| bad("what the envelope holds is no text"))
}
