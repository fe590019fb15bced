//! Headers that somebody changed: whatever opens has the volume key that a digest proves, and so it is the
//! image's own; and a header under a checksum that was not put right gives the image's own plaintext, or none.
//!
//! Cipher and place of the data are under no digest: whoever puts the checksum right, or changes LUKS1, which has none, may
//! name others. cryptsetup takes them, too.
//!
//! `UNLUKS_MUTATIONS=10000` tries so many of them, which takes minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use unluks::luks::unlock::UnlockOptions;
use unluks::{ErrorKind, Image, Key, Limits, ReadAt, UnlockedImage};

use crate::support::key;

const MUTATIONS: u64 = 1_000;
const LUKS1: &[u8] = include_bytes!("../../fuzz/images/luks1.img");
const LUKS2: &[u8] = include_bytes!("../../fuzz/images/luks2-pbkdf2.img");
/// Bytes of a copy of LUKS2's header, and of LUKS1's.
const COPY: usize = 0x4000;
const HEADER: usize = 592;
const LEN: u64 = (1 << 20) + 4096;

/// Reproducible numbers: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(n).unwrap()).unwrap()
    }

    fn change(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        match self.below(4) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = b"0123456789\"{}[],:ax"[self.below(19)],
            2 => bytes[at] = u8::try_from(self.below(256)).unwrap(),
            _ => {
                let end = bytes.len().min(at + 1 + self.below(40));
                bytes[at..end].fill([0, 0xff][self.below(2)]);
            }
        }
    }
}

/// A header that was changed, in front of its keyslots; and whether a checksum that was left as it was is over it.
fn mutated(n: u64) -> (Vec<u8>, bool) {
    let mut numbers = Numbers(n);
    let is_1 = n.is_multiple_of(3);
    let mut head = if is_1 { LUKS1 } else { LUKS2 }.to_vec();
    if is_1 {
        for _ in 0..=numbers.below(3) {
            numbers.change(&mut head[..HEADER]);
        }
        return (head, false);
    }
    let text = head[4096..COPY].iter().position(|b| *b == 0).unwrap();
    let is_put_right = numbers.below(4) > 0;
    let first = head[..COPY].to_vec();
    let places = [0..512, 4096..4096 + text, 4096..4096 + text];
    for _ in 0..=numbers.below(3) {
        let place = places[numbers.below(3)].clone();
        numbers.change(&mut head[..COPY][place]);
    }
    // The second copy would open wherever the first does not.
    match numbers.below(3) {
        0 => head[COPY..2 * COPY].fill(0),
        1 => {
            for _ in 0..=numbers.below(3) {
                let place = places[numbers.below(3)].clone();
                numbers.change(&mut head[COPY..2 * COPY][place]);
            }
        }
        _ => {}
    }
    if is_put_right && (head[..448] != first[..448] || head[512..COPY] != first[512..]) {
        head[448..512].fill(0);
        let sum = Sha256::digest(&head[..COPY]);
        head[448..480].copy_from_slice(&sum);
    }
    (head, !is_put_right)
}

/// A header, with a megabyte behind it that is the same everywhere.
struct Head(Vec<u8>);

impl ReadAt for Head {
    fn len(&self) -> u64 {
        LEN
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> unluks::Result<()> {
        if offset.checked_add(u64::try_from(buf.len()).unwrap()).is_none_or(|end| end > LEN) {
            return Err(unluks::Error::new(ErrorKind::Io, "beyond the end of the source").at(offset));
        }
        buf.fill(0x5a);
        let held = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let len = held.len().min(buf.len());
        buf[..len].copy_from_slice(&held[..len]);
        Ok(())
    }
}

struct Opener {
    options: UnlockOptions,
    key: Key,
}

impl Opener {
    fn open(&self, head: Vec<u8>) -> unluks::Result<UnlockedImage> {
        Image::open(Arc::new(Head(head)))?.unlock(&self.key, &self.options)
    }
}

fn plaintext(unlocked: &UnlockedImage) -> unluks::Result<Vec<u8>> {
    let volume = unlocked.volume(Default::default())?;
    let mut bytes = vec![0; usize::try_from(volume.len().min(4096)).unwrap()];
    volume.read_exact_at(&mut bytes, 0).map(|()| bytes)
}

#[test]
fn no_plaintext_without_a_digest_that_proves_its_key() {
    let limits = Limits { kdf_memory: 1 << 20, kdf_time: Duration::from_millis(50) };
    let opener = Opener { options: UnlockOptions { limits, ..UnlockOptions::default() }, key: key("fuzz") };
    let whole = [LUKS1, LUKS2].map(|image| opener.open(image.to_vec()).unwrap());
    let keys = whole.each_ref().map(|image| image.keys().values().next().unwrap().expose().to_vec());
    let plain = whole.each_ref().map(|image| plaintext(image).unwrap());
    let mutations = std::env::var("UNLUKS_MUTATIONS").map_or(MUTATIONS, |n| n.parse().unwrap());
    let (next, opened, refused) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        loop {
            let n = u64::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            if n >= mutations {
                return;
            }
            let (head, is_checked) = mutated(n);
            let version = usize::from(!n.is_multiple_of(3));
            let unlocked = match opener.open(head) {
                Ok(unlocked) => unlocked,
                Err(e) => {
                    assert!(e.kind() != ErrorKind::Io && !e.message().contains('\n'), "mutation {n}: {e}");
                    refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            opened.fetch_add(1, Ordering::Relaxed);
            for found in unlocked.keys().values() {
                assert!(found.expose() == keys[version], "mutation {n}: it opened with another key");
            }
            if is_checked && let Ok(bytes) = plaintext(&unlocked) {
                assert!(bytes == plain[version], "mutation {n}: other plaintext under a checksum that holds");
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let [opened, refused] = [opened, refused].map(AtomicUsize::into_inner);
    let least = usize::try_from(mutations / 10).unwrap();
    assert!(opened > least && refused > least, "{opened} opened, {refused} were refused: the mutations miss");
}
