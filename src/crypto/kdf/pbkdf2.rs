//! PBKDF2 (RFC 8018 §5.2) with HMAC (RFC 2104).
//!
//! The crate `pbkdf2` derives the hash-sized blocks of a long key one after the other, and cannot begin with any but
//! the first. They do not depend on each other, and LUKS1 with a 512-bit key has two of SHA-256: here each may have a
//! thread of its own. The tests check it against that crate.

use std::hint::black_box;
use std::sync::{Mutex, PoisonError};
use std::thread;

use digest::block_api::{Block, BlockSizeUser};
use digest::{Digest, Output};
use zeroize::Zeroize;

use crate::crypto::hash::Hash;
use crate::with_hash;

/// Fills `out` with the key, on up to `threads` threads.
pub(super) fn derive(hash: Hash, passphrase: &[u8], salt: &[u8], iterations: u32, out: &mut [u8], threads: usize) {
    with_hash!(hash, D => fill::<D>(passphrase, salt, iterations, out, threads));
}

fn fill<D>(passphrase: &[u8], salt: &[u8], iterations: u32, out: &mut [u8], threads: usize)
where
    D: Digest + BlockSizeUser + Clone + Sync,
{
    let hmac = Hmac::<D>::new(passphrase);
    let hash_len = <D as Digest>::output_size();
    let blocks = out.len().div_ceil(hash_len);
    let queue = Mutex::new((1u32..).zip(out.chunks_mut(hash_len)));
    let work = || {
        loop {
            // The lock is held for this statement alone.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, block)) = next else { break };
            hmac.derive_block(salt, index, iterations, block);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(blocks) {
            // Where no thread can be had, the ones there are do its work.
            let _ = thread::Builder::new().name("pbkdf2".into()).spawn_scoped(scope, work);
        }
        work();
    });
}

/// HMAC with its key absorbed: the hashers behind the inner and the outer pad.
struct Hmac<D: Digest> {
    inner: D,
    outer: D,
}

impl<D: Digest + BlockSizeUser + Clone> Hmac<D> {
    fn new(key: &[u8]) -> Self {
        let mut pad = Block::<D>::default();
        match pad.get_mut(..key.len()) {
            Some(start) => start.copy_from_slice(key),
            // A key longer than a block is hashed, once.
            None => {
                let mut digest = D::digest(key);
                pad[..digest.len()].copy_from_slice(&digest);
                digest.as_mut_slice().zeroize();
            }
        }
        let mut keyed = |byte: u8| {
            pad.iter_mut().for_each(|b| *b ^= byte);
            let hasher = D::new_with_prefix(&pad);
            pad.iter_mut().for_each(|b| *b ^= byte);
            hasher
        };
        let hmac = Self { inner: keyed(0x36), outer: keyed(0x5c) };
        pad.as_mut_slice().zeroize();
        hmac
    }

    /// The MAC of `message`.
    fn mac(&self, message: &[&[u8]]) -> Output<D> {
        let mut inner = self.inner.clone();
        message.iter().for_each(|part| inner.update(part));
        self.outer.clone().chain_update(inner.finalize()).finalize()
    }

    /// Fills `block`, the block of the key with number `index` from 1 on, which may be shorter than the hash.
    fn derive_block(&self, salt: &[u8], index: u32, iterations: u32, block: &mut [u8]) {
        let mut u = self.mac(&[salt, &index.to_be_bytes()]);
        let mut sum = u.clone();
        for _ in 1..iterations {
            u = self.mac(&[&u]);
            for (s, b) in sum.iter_mut().zip(&u) {
                *s ^= b;
            }
        }
        block.copy_from_slice(&sum[..block.len()]);
        sum.as_mut_slice().zeroize();
        u.as_mut_slice().zeroize();
    }
}

impl<D: Digest> Drop for Hmac<D> {
    fn drop(&mut self) {
        // These states stand in for the passphrase. The hash crates' own zeroizing would also wipe each copy in each
        // iteration, which makes SHA-256 take 1.6 times as long.
        self.inner = D::new();
        self.outer = D::new();
        black_box(self);
    }
}
