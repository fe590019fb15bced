//! PBKDF2 (RFC 8018 §5.2) with HMAC (RFC 2104) of the crate `hmac`.
//!
//! The crate `pbkdf2` derives the hash-sized blocks of a long key one after the other, and cannot begin with any but
//! the first. They do not depend on each other, and LUKS1 with a 512-bit key has two of SHA-256: here each may have a
//! thread of its own. The tests check it against that crate.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::thread;

use digest::{FixedOutput, KeyInit, Update};
use hmac::{Hmac, SimpleHmac};
use zeroize::Zeroize;

use crate::crypto::hash::{Hash, types};
use crate::error::{Error, Result};

/// Fills `out` with the key, on up to `threads` threads.
pub(super) fn derive(
    hash: Hash,
    passphrase: &[u8],
    salt: &[u8],
    iterations: u32,
    out: &mut [u8],
    threads: usize,
) -> Result<()> {
    // `Hmac` absorbs both pads once and not in every iteration, but only over hashes that show their block function.
    let fill = match hash {
        Hash::Sha1 => fill::<Hmac<types::Sha1>>,
        Hash::Sha224 => fill::<Hmac<types::Sha224>>,
        Hash::Sha256 => fill::<Hmac<types::Sha256>>,
        Hash::Sha384 => fill::<Hmac<types::Sha384>>,
        Hash::Sha512 => fill::<Hmac<types::Sha512>>,
        Hash::Ripemd160 => fill::<Hmac<types::Ripemd160>>,
        Hash::Whirlpool | Hash::WhirlpoolGcryptBug => fill::<Hmac<types::Whirlpool>>,
        Hash::Wp256 | Hash::Wp384 | Hash::Tgr128 | Hash::Tgr160 | Hash::Tgr192 => {
            return Err(Error::invalid(format!("{} is a hash for ESSIV, and for no key derivation", hash.name())));
        }
        Hash::Sha3_224 => fill::<SimpleHmac<types::Sha3_224>>,
        Hash::Sha3_256 => fill::<SimpleHmac<types::Sha3_256>>,
        Hash::Sha3_384 => fill::<SimpleHmac<types::Sha3_384>>,
        Hash::Sha3_512 => fill::<SimpleHmac<types::Sha3_512>>,
        Hash::Blake2b160 => fill::<SimpleHmac<types::Blake2b160>>,
        Hash::Blake2b256 => fill::<SimpleHmac<types::Blake2b256>>,
        Hash::Blake2b384 => fill::<SimpleHmac<types::Blake2b384>>,
        Hash::Blake2b512 => fill::<SimpleHmac<types::Blake2b512>>,
        Hash::Blake2s128 => fill::<SimpleHmac<types::Blake2s128>>,
        Hash::Blake2s160 => fill::<SimpleHmac<types::Blake2s160>>,
        Hash::Blake2s224 => fill::<SimpleHmac<types::Blake2s224>>,
        Hash::Blake2s256 => fill::<SimpleHmac<types::Blake2s256>>,
    };
    fill(passphrase, salt, iterations, out, threads)
}

fn fill<M>(passphrase: &[u8], salt: &[u8], iterations: u32, out: &mut [u8], threads: usize) -> Result<()>
where
    M: KeyInit + Update + FixedOutput + Clone + Sync,
{
    let keyed =
        |key| M::new_from_slice(key).map_err(|_| Error::invalid("HMAC does not take a passphrase of this length"));
    let mut hmac = keyed(passphrase)?;
    let blocks = out.len().div_ceil(M::output_size());
    let queue = Mutex::new((1u32..).zip(out.chunks_mut(M::output_size())));
    let work = || {
        loop {
            // The lock is held for this statement alone.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, block)) = next else { break };
            fill_block(&hmac, salt, index, iterations, block);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(blocks) {
            // Where no thread can be had, the ones there are do its work.
            let _ = thread::Builder::new().name("pbkdf2".into()).spawn_scoped(scope, work);
        }
        work();
    });
    // The state stands in for the passphrase. The hash crates' own zeroizing would also wipe the copies that each
    // iteration makes, with which SHA-256 takes 1.6 times as long.
    hmac = keyed(&[])?;
    black_box(&mut hmac);
    Ok(())
}

/// Fills `block`, the block of the key with number `index` from 1 on; the last may be shorter than the hash.
fn fill_block<M>(hmac: &M, salt: &[u8], index: u32, iterations: u32, block: &mut [u8])
where
    M: Update + FixedOutput + Clone,
{
    let mut first = hmac.clone();
    first.update(salt);
    first.update(&index.to_be_bytes());
    let mut u = first.finalize_fixed();
    block.copy_from_slice(&u[..block.len()]);
    for _ in 1..iterations {
        let mut next = hmac.clone();
        next.update(&u);
        u = next.finalize_fixed();
        for (sum, b) in block.iter_mut().zip(&u) {
            *sum ^= b;
        }
    }
    u.as_mut_slice().zeroize();
}
