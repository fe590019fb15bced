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
//!
//! libgcrypt before 1.6.1 forgot to count what it was given where that ended within a block that was begun: so it hashed
//! a last, short block of a key with Whirlpool as if its length were that of `j` alone. What it split opens with
//! [`Hash::WhirlpoolGcryptBug`], as with `whirlpool_gcryptbug` in cryptsetup (`GCRY_MD_FLAG_BUGEMU1`, libgcrypt's
//! cipher/whirlpool.c).

use digest::block_api::UpdateCore;
use digest::common::hazmat::SerializableState;
use digest::{Digest, Output};
use whirlpool::block_api::WhirlpoolCore;
use zeroize::{Zeroize, Zeroizing};

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
    match hash {
        Hash::WhirlpoolGcryptBug => merge_with(material, key.expose_mut(), diffuse_uncounted),
        _ => with_hash!(hash, D => merge_with(material, key.expose_mut(), diffuse::<D>)),
    }
    Ok(())
}

/// As [`merge`], with the lengths known to agree. The diffused block grows in `key` itself, so that no copy is left.
fn merge_with(material: &[u8], key: &mut [u8], diffuse: impl Fn(&mut [u8])) {
    key.fill(0);
    for (n, stripe) in material.chunks_exact(key.len()).enumerate() {
        // The last stripe is not diffused; so the diffusion comes before each stripe but the first.
        if n > 0 {
            diffuse(key);
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

/// The same as the wrong Whirlpool does it.
fn diffuse_uncounted(key: &mut [u8]) {
    const BLOCK: usize = 64;
    const COUNTER: usize = 4;
    let (whole, last) = key.split_at_mut(key.len() / BLOCK * BLOCK);
    diffuse::<whirlpool::Whirlpool>(whole);
    let counter = u32::try_from(whole.len() / BLOCK).unwrap_or(u32::MAX).to_be_bytes();
    if last.is_empty() {
        return;
    }
    if last.len() > BLOCK - COUNTER {
        // It goes on in another block, and what begins that one is counted.
        let digest = Zeroizing::new(whirlpool::Whirlpool::new().chain_update(counter).chain_update(&*last).finalize());
        last.copy_from_slice(&digest[..last.len()]);
        return;
    }
    // One block of counter and key, 0x80, zeroes up to 32 bytes before a block's end, and the length in bits.
    let mut message = Zeroizing::new([0u8; 2 * BLOCK]);
    let end = COUNTER + last.len();
    message[..COUNTER].copy_from_slice(&counter);
    message[COUNTER..end].copy_from_slice(last);
    message[end] = 0x80;
    let blocks = if end < BLOCK / 2 { 1 } else { 2 };
    message[blocks * BLOCK - 1] = 8 * 4;
    let mut core = WhirlpoolCore::default();
    for block in message.chunks_exact(BLOCK).take(blocks) {
        core.update_blocks(&[digest::block_api::Block::<WhirlpoolCore>::try_from(block).unwrap_or_default()]);
    }
    let mut state = core.serialize();
    last.copy_from_slice(&state[..last.len()]);
    state.as_mut_slice().zeroize();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    /// The key of 48 bytes that an independent merge in Python (`hashlib`; for whirlpool, `openssl dgst -provider
    /// legacy`) gave for four stripes of [`material`].
    #[rustfmt::skip]
    const FROM_PYTHON: &[(&str, &str)] = &[
        ("sha1", "4e7bdbcdc6deb753a20877e14b62eb04f9325c20fa46e4fa27d2f358eff060139371a7c9bb0e4bd586819c8261d63f1e"),
        ("sha224", "9b257fabd5075bc23edf6bcb602580bbc3cd98e242f7936b7fdf6a9d93df0dd5340f80bfe8bbc7f5c6c96c18133bac87"),
        ("sha256", "0b5b4239418c8e43457afb66718069e58e2dda6434225e1737b680c1843a4808fdea86dc7dd097f0e3f9ce680c977672"),
        ("sha384", "c39d625c0630ca633545025aed99e2c6e6556a689e1982a800c5d4e680b8edeb72352e6d3c0c9d9d50fcb45fa851923e"),
        ("sha512", "8f348b808c8692f63298fdc2899ab4f1d64467776b1123987135697816f0e7243b356acf8527423bd2e06995feb6dd87"),
        ("ripemd160", "a7fee4021a86beb9eb5b32dd49929fd6419ce4b6459a45a092e4291f9fca99f88698d37803fa2d6da43d18f534ab23cd"),
        ("whirlpool", "6a3b53b88f909d7916bfc26f225b45b9cd005ac8cc49ff4a0e033b51cde1f4452f46c92e6ca4e31f6eed7915b49f3419"),
        ("whirlpool_gcryptbug", "9e680cbe9affb4ede2a7c3a3681afa392afdaebe41bad76b576eeb3b390a99e801c871ce2136ea765bcc78fc27a6cee2"),
        ("sha3-224", "c892bec9ecd9873cee78d880c594fbdedb79b117ec006e701880f0e9710ff6f9b3592bbeb03081afdc0d7b0196705b89"),
        ("sha3-256", "5ac11302a1e03310c9c5508feff8f2b21df7711b89dc7da3bf562e39bbafc136b80d9f6a5ab8e36105820c0c5f3167d9"),
        ("sha3-384", "22a911949737ea9526cec9d1f5ecf4b65f99df90d2e167730f1c0510dcacb035969ef97294e2181edaa2092d7a10d30a"),
        ("sha3-512", "c0cd9a1390eb1cc3d8bc4358fe7a27a2b285175a481f573a2194ddbf2640097a9076c9a29889f297ed1fac462c205c41"),
        ("blake2b-160", "4a148b0ba0cea08d427040d2b2adfe7514b43e98b6ae44e58cfe706d67d231e1d7f49c4cb9d5e2ff93bb3452784482da"),
        ("blake2b-256", "5f7be13df75857b627bb25dd49a4e07ca69d6eb454e6313a71d60af3dc1727529782925559f218750ba58cffc0e59d5b"),
        ("blake2b-384", "68c05863c0fba57eb481cd7ea4995e134e096788c7c0a65c72a6996893f75cf6d621229ffdac5be429b24bbb8b43e001"),
        ("blake2b-512", "9b39668064d066028095e9f42d623373b517e13c3a4c705bcb0c6a7d15782da8cee4900ff331a0bb752871048d64d898"),
        ("blake2s-128", "6756782c6913c2d05461250fabbf6f743ec4a0e0be9436906376eb1dcaf2837cbc95d74228ea9ba03235a0fe7c79fb7b"),
        ("blake2s-160", "e73ae3b8f7b5b38874a461c17077959a972b5302421894be2df6eaee2dae4f870c326ec3d7a65bcb9e8e10a99a7724b4"),
        ("blake2s-224", "8b2122b56b1126714758349fde379368066e379064343e64f227e0eecef1dd4dd8c7a85a0948004881a3d9b955f78206"),
        ("blake2s-256", "29eabb0457e4ea0f3457923184d479b6ff2516f347197161b2687a571f87d7cfb8b967df7bb7f54b2f005380ee45ca2f"),
    ];

    /// `bytes((i * i * 31 + i * 7 + 3) & 255 for i in range(len))`
    fn material(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * i * 31 + i * 7 + 3).to_le_bytes()[0]).collect()
    }

    fn merged(hash: Hash, material: &[u8], stripes: u32, len: usize) -> String {
        let mut key = SecretBytes::copy_of(&vec![0xee; len]).unwrap();
        merge(hash, material, stripes, &mut key).unwrap();
        hex::encode(key.expose())
    }

    /// Spreads `key` over as many stripes as `random` has room for, and the last (`AFsplit`).
    fn split(hash: Hash, key: &[u8], mut random: Vec<u8>) -> Vec<u8> {
        let mut last = vec![0; key.len()];
        for stripe in random.chunks_exact(key.len()) {
            last.iter_mut().zip(stripe).for_each(|(l, s)| *l ^= s);
            if hash == Hash::WhirlpoolGcryptBug {
                diffuse_uncounted(&mut last);
                continue;
            }
            for (n, block) in last.chunks_mut(hash.output_len()).enumerate() {
                let counter = u32::try_from(n).unwrap().to_be_bytes();
                let digest = hash.digest(&[&counter, block]);
                block.copy_from_slice(&digest[..block.len()]);
            }
        }
        last.iter_mut().zip(key).for_each(|(l, k)| *l ^= k);
        random.extend(last);
        random
    }

    /// By libgcrypt 1.10 itself, with GCRY_MD_FLAG_BUGEMU1.
    #[test]
    fn the_wrong_whirlpool_is_libgcrypts() {
        #[rustfmt::skip]
        let keys = [
            (16, "49d32db0342e1d7871370723fbf8fd0d"),
            (32, "0948371ca554ceb0a19aaba58ff93ce5dd024d43350b9338559ff16e88a6f6ec"),
            (60, "3ca6758f0cd92c31ea1ef2b32934b232177d5caec26cd2198e95b79346a87ca044344978c8432c8fb3fdab350f58a7da921643a079e740a89663d35d"),
            (61, "d9dc519207223a66fc78702e9c643e5a1ed7429b83aefbf71f5625268944fa3e5852bd20a5ffea37905540c81a2ed3b91c13eaded68e34d0e55fb26662"),
            (64, "fc169a9609070f928ddb5830b04a2d45339729abdf52d51cac71d1ca5862b960e03448c7aa9f2a1a86653568440221f07a0f49480290a3601f7b29f91979a595"),
            (96, "2be0f07bc59139a5e53a4668d94814a6ea509f6df92d5cf267d1e3fe910997f2c4f11244087b67900a17d4758f669a6d079da86549024b102794dff9e12286683d586a229e14bb9a1099198d84b27fc8421332ddaa68c56aa460ab4e71fc8e5a"),
        ];
        for (len, key) in keys {
            assert_eq!(merged(Hash::WhirlpoolGcryptBug, &material(4 * len), 4, len), key, "{len}");
            let is_right = merged(Hash::Whirlpool, &material(4 * len), 4, len) == key;
            assert_eq!(is_right, matches!(len, 61 | 64), "{len}");
        }
    }

    #[test]
    fn merging_agrees_with_python_for_every_hash() {
        for (name, key) in FROM_PYTHON {
            let hash = Hash::from_name(name).unwrap();
            assert_eq!(merged(hash, &material(4 * 48), 4, 48), *key, "{name}");
        }
    }

    #[test]
    fn four_thousand_stripes_agree_with_python() {
        let (sha1, sha512) = (
            "89f2191b056e918011d5acbb029aca383788548dea5b64c9bfbe1dde380808db\
             46404811b772de7540e59ebf8177f6202e68aef3a9977b1234b784478e12a669",
            "a1bdeafa7814009e38d3ff92edcf5bc06c174ddda554020433caf0836280a80b\
             d48e449eacd21feb099543e0b84c69874fd328630dca1c2ad9307f453bacdf48\
             150e22c97d2cc3d4af92c3630bc3a23eeb97c2071d1ea554774523f47bf52b10",
        );
        assert_eq!(merged(Hash::Sha1, &material(4000 * 64), 4000, 64), sha1);
        assert_eq!(merged(Hash::Sha512, &material(4000 * 96), 4000, 96), sha512);
    }

    #[test]
    fn a_single_stripe_is_the_key() {
        assert_eq!(merged(Hash::Sha256, b"sixteen bytes of", 1, 16), hex::encode(b"sixteen bytes of"));
    }

    #[test]
    fn lengths_that_do_not_agree_are_refused() {
        for (stripes, len, key_len, kind) in [
            (0, 0, 32, ErrorKind::Corrupt),
            (4, 127, 32, ErrorKind::InvalidInput),
            (4, 129, 32, ErrorKind::InvalidInput),
            (4, 0, 0, ErrorKind::InvalidInput),
            (u32::MAX, 128, 32, ErrorKind::InvalidInput),
        ] {
            let mut key = SecretBytes::zeroed(key_len).unwrap();
            let error = merge(Hash::Sha256, &vec![0; len], stripes, &mut key).unwrap_err();
            assert_eq!(error.kind(), kind, "{stripes} stripes, {len} bytes: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_was_split_is_merged(
            (name, _) in prop::sample::select(FROM_PYTHON),
            (key, random) in (1usize..=96, 0usize..8).prop_flat_map(|(len, stripes)| {
                (prop::collection::vec(any::<u8>(), len), prop::collection::vec(any::<u8>(), len * stripes))
            }),
        ) {
            let hash = Hash::from_name(name).unwrap();
            let stripes = split(hash, &key, random);
            let count = u32::try_from(stripes.len() / key.len()).unwrap();
            prop_assert_eq!(merged(hash, &stripes, count, key.len()), hex::encode(&key));
        }
    }
}
