//! How fast keys are derived: the figures behind the table in `crypto/kdf/cost.rs` and the README.
//!
//! Two cores of an Intel Xeon with SHA-NI and AVX-512, Rust 1.95. The machine was busy, so these are CPU seconds, and
//! good as ratios only.
//!
//! | thousand iterations of HMAC a CPU second | |
//! |---|---|
//! | sha1, sha256 / sha384, sha512 | 6500, 6100 / 1800, 1700 |
//! | ripemd160 / whirlpool / sha3 | 1900 / 550 / 800 |
//! | blake2b / blake2s | 1400 / 1900 |
//!
//! | against cryptsetup 2.6.1 (OpenSSL 3.0, libargon2), CPU seconds | cryptsetup | here |
//! |---|---|---|
//! | LUKS1, sha256, 3,000,000 iterations, 512-bit key | 2.02, one thread | 1.07, two threads |
//! | LUKS1, sha512, likewise: one block, so one thread | 2.41 | 1.75 |
//! | argon2id, 1 GiB, 4 passes, 2 lanes | 4.8 | 4.1 |
//! | argon2id, 1 GiB, 4 passes, 4 lanes | 4.7 | 4.0 |

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use unluks::crypto::af;
use unluks::crypto::hash::Hash;
use unluks::crypto::kdf::{Argon2Variant, Kdf};
use unluks::secret::SecretBytes;

const HASHES: &[&str] = &[
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "ripemd160",
    "whirlpool",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "blake2b-160",
    "blake2b-256",
    "blake2b-384",
    "blake2b-512",
    "blake2s-128",
    "blake2s-160",
    "blake2s-224",
    "blake2s-256",
];

fn derive(kdf: &Kdf, len: usize) {
    let mut out = SecretBytes::zeroed(len).unwrap();
    kdf.derive(black_box(b"passphrase"), &mut out).unwrap();
    black_box(out.expose());
}

/// One hash-sized block on one thread: elements are iterations of HMAC.
fn pbkdf2_rate(c: &mut Criterion) {
    const ITERATIONS: u32 = 4000;
    let mut group = c.benchmark_group("pbkdf2 one block");
    group.throughput(Throughput::Elements(ITERATIONS.into()));
    for name in HASHES {
        let hash = Hash::from_name(name).unwrap();
        let kdf = Kdf::Pbkdf2 { hash, iterations: ITERATIONS, salt: vec![7; 32] };
        group.bench_function(*name, |b| b.iter(|| derive(&kdf, hash.output_len())));
    }
    group.finish();
}

/// A 512-bit key with a million iterations, as LUKS1 has it: ours, and the crate `pbkdf2` as a yardstick.
fn pbkdf2_luks1(c: &mut Criterion) {
    const ITERATIONS: u32 = 1_000_000;
    let mut group = c.benchmark_group("pbkdf2 512-bit key");
    group.throughput(Throughput::Elements(ITERATIONS.into()));
    for name in ["sha1", "sha256", "sha512"] {
        let kdf = Kdf::Pbkdf2 { hash: Hash::from_name(name).unwrap(), iterations: ITERATIONS, salt: vec![7; 32] };
        group.bench_function(name, |b| b.iter(|| derive(&kdf, 64)));
    }
    group.bench_function("sha256, crate pbkdf2", |b| {
        let mut out = [0; 64];
        b.iter(|| pbkdf2::pbkdf2_hmac::<sha2::Sha256>(black_box(b"passphrase"), &[7; 32], ITERATIONS, &mut out));
    });
    group.finish();
}

/// argon2id with cryptsetup's usual numbers: bytes are those passed over.
fn argon2(c: &mut Criterion) {
    let mut group = c.benchmark_group("argon2id");
    for (memory_kib, time, cpus) in [(64 << 10, 4, 4), (1 << 20, 4, 1), (1 << 20, 4, 2), (1 << 20, 4, 4)] {
        let kdf = Kdf::Argon2 { variant: Argon2Variant::Id, time, memory_kib, cpus, salt: vec![7; 32] };
        group.throughput(Throughput::BytesDecimal(kdf.memory() * u64::from(time)));
        let id = BenchmarkId::from_parameter(format!("{} MiB, {time} passes, {cpus} lanes", memory_kib >> 10));
        group.bench_function(id, |b| b.iter(|| derive(&kdf, 64)));
    }
    group.finish();
}

/// 4000 stripes of a 512-bit key: bytes are those of the stripes.
fn merge(c: &mut Criterion) {
    const STRIPES: u32 = 4000;
    let material = vec![0x5a; 4000 * 64];
    let mut group = c.benchmark_group("af merge");
    group.throughput(Throughput::BytesDecimal(4000 * 64));
    for name in ["sha1", "sha256", "sha512"] {
        let hash = Hash::from_name(name).unwrap();
        let mut key = SecretBytes::zeroed(64).unwrap();
        group.bench_function(name, |b| b.iter(|| af::merge(hash, black_box(&material), STRIPES, &mut key).unwrap()));
    }
    group.finish();
}

criterion_group! {
    name = short;
    config = Criterion::default().warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    targets = pbkdf2_rate, merge
}
criterion_group! {
    name = long;
    config = Criterion::default().sample_size(10);
    targets = pbkdf2_luks1, argon2
}
criterion_main!(short, long);
