//! Decrypting in memory: 128 KiB that stay in the cache, against `xts-mode` and `cbc` as their documentation shows them.
//!
//! `openssl speed -decrypt -elapsed -evp aes-256-xts -bytes 512` (and 4096) is the peer outside of Rust.

// A benchmark has nobody to hand an error to, and its sizes are small.
#![allow(clippy::unwrap_used, clippy::as_conversions, missing_docs)]

use std::hint::black_box;

use aes::Aes256;
use cipher::{BlockModeDecrypt, KeyInit, KeyIvInit};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use unluks::crypto::cipher::SectorCipher;
use unluks::crypto::spec::CipherSpec;
use xts_mode::{Xts128, get_tweak_default};

const BYTES: usize = 128 << 10;

#[repr(align(4096))]
struct Buffer([u8; BYTES]);

fn key(len: usize) -> Vec<u8> {
    (0..=255).take(len).collect()
}

fn specs(c: &mut Criterion) {
    let mut group = c.benchmark_group("decrypt");
    group.throughput(Throughput::Bytes(BYTES as u64));
    let mut data = Box::new(Buffer([0x5a; BYTES]));
    for (spec, key_size) in [
        ("aes-xts-plain64", 64),
        ("aes-xts-plain64", 32),
        ("aes-cbc-essiv:sha256", 32),
        ("aes-cbc-plain64", 32),
        ("aes-lrw-benbi", 48),
        ("xchacha12,aes-adiantum-plain64", 32),
        ("serpent-xts-plain64", 64),
        ("twofish-xts-plain64", 64),
        ("camellia-xts-plain64", 64),
        ("cast6-xts-plain64", 64),
        ("cast5-cbc-plain64", 16),
    ] {
        for sector_size in [512, 4096] {
            let cipher = SectorCipher::new(&CipherSpec::parse(spec).unwrap(), &key(key_size), sector_size).unwrap();
            group.bench_function(format!("{spec}/{}/{sector_size}", key_size * 8), |b| {
                b.iter(|| cipher.decrypt(black_box(&mut data.0), 7).unwrap())
            });
        }
    }
    group.finish();
}

fn one_sector(c: &mut Criterion) {
    let mut group = c.benchmark_group("one sector");
    let mut data = Box::new(Buffer([0x5a; BYTES]));
    for sector_size in [512u32, 4096] {
        let cipher = SectorCipher::new(&CipherSpec::parse("aes-xts-plain64").unwrap(), &key(64), sector_size).unwrap();
        group.throughput(Throughput::Bytes(sector_size.into()));
        group.bench_function(format!("aes-xts-plain64/512/{sector_size}"), |b| {
            b.iter(|| cipher.decrypt(black_box(&mut data.0[..sector_size as usize]), 7).unwrap())
        });
    }
    group.finish();
}

fn peers(c: &mut Criterion) {
    let mut group = c.benchmark_group("peers");
    group.throughput(Throughput::Bytes(BYTES as u64));
    let mut data = Box::new(Buffer([0x5a; BYTES]));
    let key = key(64);
    let half = |at: usize| Aes256::new_from_slice(&key[at..at + 32]).unwrap();
    for sector_size in [512, 4096] {
        let xts = Xts128::new(half(0), half(32));
        group.bench_function(format!("xts-mode/aes-256/{sector_size}"), |b| {
            b.iter(|| xts.decrypt_area(black_box(&mut data.0), sector_size, 7, get_tweak_default))
        });
        group.bench_function(format!("cbc/aes-256/{sector_size}"), |b| {
            b.iter(|| {
                for (n, sector) in (7u128..).zip(black_box(&mut data.0).chunks_exact_mut(sector_size)) {
                    let mut cbc = cbc::Decryptor::<Aes256>::new_from_slices(&key[..32], &n.to_le_bytes()).unwrap();
                    cbc.decrypt_blocks(cipher::Array::slice_as_chunks_mut(sector).0);
                }
            })
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(std::time::Duration::from_secs(2));
    targets = specs, one_sector, peers
}
criterion_main!(benches);
