//! How a volume is encrypted, as Cinder says it of the volume or of its type.

use serde::{Deserialize, Serialize};

/// The encryption of a volume type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Encryption {
    pub provider: Option<String>,
    pub cipher: Option<String>,
    /// Bits.
    pub key_size: Option<u64>,
    pub control_location: Option<String>,
}

impl Encryption {
    /// Whether such data has no header, but is dm-crypt's alone: os-brick's provider `plain`, also by the names that it had
    /// in Nova and in os-brick before (`os_brick/encryptors/__init__.py`).
    pub fn is_plain(&self) -> bool {
        let provider = self.provider.as_deref().unwrap_or_default();
        provider == "plain" || provider.rsplit('.').next() == Some("CryptsetupEncryptor")
    }
}
