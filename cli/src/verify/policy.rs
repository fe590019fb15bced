//! A policy from its file.

use std::path::Path;

use sha2::{Digest, Sha256};
use unluks::error::visible;
use unluks::limits::VERIFY_POLICY_MAX;
use unluks::verify::Policy;
use unluks::{Error, Result};

use crate::source::{WithinFile, shown};

/// A policy, and the hash of its file.
pub struct Loaded {
    pub policy: Policy,
    pub sha256: String,
}

/// Reads a policy.
pub fn load(path: &Path) -> Result<Loaded> {
    let text = read(path)?;
    let policy = parse(&text).map_err(|e| e.within_file(path))?;
    Ok(Loaded { policy, sha256: hex::encode(Sha256::digest(&text)) })
}

fn read(path: &Path) -> Result<String> {
    let failed = |e| Error::io(format!("reading the policy {}", shown(path)), e);
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > VERIFY_POLICY_MAX {
        let message = format!("it has {len} bytes; a policy has at most {VERIFY_POLICY_MAX}");
        return Err(Error::invalid(message).within_file(path));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn parse(text: &str) -> Result<Policy> {
    let policy: Policy = toml::from_str(text).map_err(|e| {
        let line = e.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.split('\n').count());
        Error::invalid(format!("line {line}: {}", visible(e.message())))
    })?;
    policy.check()?;
    Ok(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_line() {
        let said = |text: &str| parse(text).unwrap_err().to_string();
        let e = said("# a policy\n\nmin-key-bits = 256\nmin-keybits = 512\n");
        assert!(e.starts_with("line 4: unknown field `min-keybits`"), "{e}");
        let e = said("min-key-bits = 256\nintegrity = \"perhaps\"\n");
        assert!(e.starts_with("line 2: "), "{e}");
        let e = said("min-key-bits = 256\ninteg");
        assert!(e.starts_with("line 2: "), "{e}");
        assert!(said("contents = \"minix\"").contains("minix"));
        let policy =
            parse("severity = \"note\"\nforbidden-ciphers = { is = [\"cbc\"], severity = \"error\" }\n").unwrap();
        assert!(policy.forbidden_ciphers.is_some() && policy.integrity.is_none());
    }
}
