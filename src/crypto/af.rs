//! Anti-forensic merging: a key that was spread over many stripes, so that losing a few bytes of them destroys it,
//! becomes one key again (LUKS1 on-disk format 1.2.3, §2.4).
//!
//! ```text
//! d[0] = 0
//! d[i] = diffuse(d[i-1] ^ stripe[i-1])      for each stripe but the last
//! key  = d[stripes-1] ^ stripe[stripes-1]
//!
//! diffuse: for each hash-sized block j, hash(j as a big-endian u32, block), cut to the block where the last is short
//! ```

use digest::{Digest, Output};
use zeroize::Zeroize;

use crate::crypto::hash::Hash;
use crate::error::{Error, Result};
use crate::secret::SecretBytes;
use crate::with_hash;

/// Merges `stripes` stripes of `key.len()` bytes each, which lie in `material` one after the other, and fills `key`.
///
/// The rule is LUKS1 on-disk format 1.2.3, §2.4 (`AFmerge`), which LUKS2 calls `luks1` in a keyslot's `af.type`.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) for no stripes at all, and
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where `material` is not exactly as long as the stripes.
pub fn merge(hash: Hash, material: &[u8], stripes: u32, key: &mut SecretBytes) -> Result<()> {
    if stripes == 0 {
        return Err(Error::corrupt("af.stripes", "found 0; at least 1 is allowed"));
    }
    let expected = usize::try_from(stripes).ok().and_then(|n| n.checked_mul(key.len()));
    if key.is_empty() || expected != Some(material.len()) {
        return Err(Error::invalid(format!(
            "merging {stripes} stripes of {} bytes each out of {} bytes",
            key.len(),
            material.len()
        )));
    }
    with_hash!(hash, D => merge_with::<D>(material, key.expose_mut()));
    Ok(())
}

/// As [`merge`], with the lengths known to agree. The diffused block grows in `key` itself, so that no copy is left.
fn merge_with<D: Digest>(material: &[u8], key: &mut [u8]) {
    key.fill(0);
    for (n, stripe) in material.chunks_exact(key.len()).enumerate() {
        // The last stripe is not diffused; so the diffusion comes before each stripe but the first.
        if n > 0 {
            diffuse::<D>(key);
        }
        for (k, s) in key.iter_mut().zip(stripe) {
            *k ^= s;
        }
    }
}

/// Spreads each bit of a hash-sized block over that block; the last one may be shorter.
fn diffuse<D: Digest>(key: &mut [u8]) {
    let mut digest = Output::<D>::default();
    for (n, block) in (0u32..).zip(key.chunks_mut(<D as Digest>::output_size())) {
        D::new().chain_update(n.to_be_bytes()).chain_update(&*block).finalize_into(&mut digest);
        block.copy_from_slice(&digest[..block.len()]);
    }
    digest.as_mut_slice().zeroize();
}
