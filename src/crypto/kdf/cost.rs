//! What a derivation costs in time: from a table where that is surely little, and measured where it may be much.

use std::time::{Duration, Instant};

use super::{Kdf, argon2, pbkdf2, threads};
use crate::crypto::hash::Hash;
use crate::error::Result;
use crate::limits::{ARGON2_LANES_MAX, KEY_SIZE_MAX};
use crate::num::{from_u32, saturated, to_u64};

/// Estimates up to this come from the table of slow machines; beyond, this machine is measured.
pub(super) const MEASURE_ABOVE: Duration = Duration::from_secs(30);

/// How long a run must take to be a measurement.
const SAMPLE_TIME: Duration = Duration::from_millis(20);
/// How many iterations of PBKDF2 the first run makes; each further one makes twice as many.
const SAMPLE_ITERATIONS: u32 = 1024;
/// How much memory the first run of Argon2 takes; each further one takes twice as much.
const SAMPLE_MEMORY_KIB: u32 = 1 << 10;
/// The most memory that a run of Argon2 takes: 64 MiB, where most of it is out of the caches as in the real one.
const SAMPLE_MEMORY_MAX_KIB: u32 = 64 << 10;
/// The most passes that a run of Argon2 makes: so few that it is short, so many that making the memory, which is done
/// once, does not weigh much.
const SAMPLE_PASSES_MAX: u32 = 4;

/// Bytes that Argon2 passes over in a second on a slow machine, on all its threads.
const SLOW_ARGON2: u32 = 400_000_000;

/// Iterations of HMAC in a second on one thread of a slow machine, which has no instructions for the hash: a fifth or
/// less of what a server of 2023 does (`cargo bench --bench kdf`).
fn slow_pbkdf2(hash: Hash) -> u32 {
    use Hash::*;
    match hash {
        Sha1 => 500_000,
        Sha224 | Sha256 => 400_000,
        Sha384 | Sha512 => 350_000,
        Ripemd160 => 300_000,
        Whirlpool | WhirlpoolGcryptBug | Wp256 | Wp384 => 100_000,
        Tgr128 | Tgr160 | Tgr192 => 100_000,
        Sha3_224 | Sha3_256 | Sha3_384 | Sha3_512 => 100_000,
        Blake2b160 | Blake2b256 | Blake2b384 | Blake2b512 => 300_000,
        Blake2s128 | Blake2s160 | Blake2s224 | Blake2s256 => 400_000,
    }
}

/// About how long a derivation of `output_len` bytes takes; measured where the table says more than `threshold`.
pub(super) fn estimate(kdf: &Kdf, output_len: usize, threshold: Duration) -> Duration {
    let rate = match kdf {
        Kdf::Pbkdf2 { hash, .. } => slow_pbkdf2(*hash),
        Kdf::Argon2 { .. } => SLOW_ARGON2,
    };
    let slow = scale(Duration::from_secs(1), amount(kdf, output_len), u128::from(rate));
    if slow <= threshold { slow } else { measure(kdf, output_len).unwrap_or(slow) }
}

/// How much there is to do: iterations of HMAC, or bytes that Argon2 passes over.
fn amount(kdf: &Kdf, output_len: usize) -> u128 {
    match kdf {
        Kdf::Pbkdf2 { hash, iterations, .. } => pbkdf2_amount(*hash, *iterations, output_len),
        Kdf::Argon2 { time, .. } => u128::from(*time) * u128::from(kdf.memory()),
    }
}

fn pbkdf2_amount(hash: Hash, iterations: u32, output_len: usize) -> u128 {
    let blocks = output_len.div_ceil(hash.output_len().max(1));
    u128::from(iterations) * u128::from(to_u64(blocks))
}

/// The estimate from short runs on this machine, or none where they cannot be made.
fn measure(kdf: &Kdf, output_len: usize) -> Option<Duration> {
    let salt = [0; argon2::SALT_MIN];
    let (taken, done) = match kdf {
        Kdf::Pbkdf2 { hash, iterations, .. } => {
            let mut out = vec![0; output_len.min(from_u32(KEY_SIZE_MAX))];
            let (taken, sample) = run_doubling(SAMPLE_ITERATIONS, *iterations, |n| {
                pbkdf2::derive(*hash, b"", &salt, n, &mut out, threads())
            })?;
            (taken, pbkdf2_amount(*hash, sample, out.len()))
        }
        Kdf::Argon2 { variant, time, memory_kib, cpus, .. } => {
            let lanes = (*cpus).clamp(1, ARGON2_LANES_MAX);
            let passes = (*time).clamp(1, SAMPLE_PASSES_MAX);
            let most = (*memory_kib).min(SAMPLE_MEMORY_MAX_KIB).max(argon2::memory_min_kib(lanes));
            let mut out = [0; argon2::OUTPUT_MIN];
            let (taken, sample) = run_doubling(SAMPLE_MEMORY_KIB, most, |memory_kib| {
                let cost = argon2::Cost { variant: *variant, time: passes, memory_kib, lanes };
                argon2::derive(cost, b"", &salt, &mut out)
            })?;
            (taken, u128::from(passes) * (u128::from(sample) << 10))
        }
    };
    Some(scale(taken, amount(kdf, output_len), done))
}

/// Runs with a size that doubles from `first` to `most`, until a run takes long enough to be a measurement; gives its
/// time and size.
fn run_doubling(first: u32, most: u32, mut run: impl FnMut(u32) -> Result<()>) -> Option<(Duration, u32)> {
    let mut size = first.min(most);
    loop {
        let start = Instant::now();
        run(size).ok()?;
        let taken = start.elapsed();
        if taken >= SAMPLE_TIME || size == most {
            return Some((taken, size));
        }
        size = size.saturating_mul(2).min(most);
    }
}

/// How long `amount` takes where `done` took `taken`; at most what nanoseconds in 64 bits hold, some 584 years.
fn scale(taken: Duration, amount: u128, done: u128) -> Duration {
    let nanos = taken.as_nanos().saturating_mul(amount) / done.max(1);
    Duration::from_nanos(saturated(nanos))
}
