//! Changed images: whatever bytes a disk has, there is no panic, no hang, and no read beyond the budget.
//!
//! By default there are a few of each. With `UNLUKS_MUTATIONS=20000` there are so many, which takes hours, and memory is looked
//! at, too; `UNLUKS_MUTATIONS_OF=xfs,btrfs` has these alone:
//!
//! ```sh
//! UNLUKS_MUTATIONS=20000 UNLUKS_MUTATIONS_OF=ext2 cargo test --all-features --test inside changed_images -- --nocapture
//! UNLUKS_MUTATIONS=20000 UNLUKS_MUTATIONS_OF=ext2 cargo test --all-features --test inside the_full_level -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use unluks::inside::Contents;
use unluks::limits::{INSIDE_FULL_READS, INSIDE_READ_MAX};
use unluks::{ReadAt, Result};

use crate::filled::{FILLED, check, fill, plant};
use crate::make::CASES;
use crate::{Patched, open};

const ROUNDS: usize = 2_000;
/// The full level takes a second and more where debug builds read 100 MiB.
const FULL_ROUNDS: usize = 200;

/// What the process may take in the whole run, beyond which a single image would have taken too much.
const MEMORY_MAX: u64 = 256 << 10;

/// How many changes there are to be.
pub(crate) fn rounds_or(few: usize) -> usize {
    std::env::var("UNLUKS_MUTATIONS").ok().map_or(few, |text| text.parse().unwrap())
}

/// Whether somebody wants this image.
pub(crate) fn is_wanted(name: &str) -> bool {
    std::env::var("UNLUKS_MUTATIONS_OF").map_or(true, |names| names.split(',').any(|wanted| wanted == name))
}

/// In a run of its own the most memory that was taken, in KiB, is that of the images.
pub(crate) fn memory_is_bounded(name: &str) {
    if std::env::var_os("UNLUKS_MUTATIONS").is_none() {
        return;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    eprintln!("{name}: {most} KiB at most");
    assert!(most <= MEMORY_MAX, "{name}: {most} KiB");
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Counts what is read.
struct Counted(Patched, Arc<AtomicU64>);

impl ReadAt for Counted {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.1.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.0.read_exact_at(buf, offset)
    }
}

/// Makes the checksum of the superblock right, so that what lies behind it is reached.
fn seal(name: &str, block: &mut [u8], at: u64) {
    match at {
        0 if name.starts_with("ext") => {
            let sum = !crc32c::crc32c(&block[1024..1024 + 0x3fc]);
            block[1024 + 0x3fc..][..4].copy_from_slice(&sum.to_le_bytes());
        }
        0 if name.starts_with("xfs") => {
            let sector = if name == "xfs-4k" { 4096 } else { 512 };
            block[224..228].fill(0);
            let sum = crc32c::crc32c(&block[..sector]);
            block[224..228].copy_from_slice(&sum.to_le_bytes());
        }
        65536 if name == "btrfs" => {
            let sum = crc32c::crc32c(&block[32..]);
            block[..4].copy_from_slice(&sum.to_le_bytes());
        }
        _ => {}
    }
}

/// The blocks that hold anything, of those that are looked at first, and some of those behind.
fn blocks(disk: &dyn ReadAt) -> Vec<u64> {
    let mut bytes = vec![0; 4096];
    let mut is_used = |at: &u64| {
        disk.read_exact_at(&mut bytes, *at).unwrap();
        bytes.iter().any(|b| *b != 0)
    };
    let near = (0..320).map(|n| n * 4096);
    let far = (1..300).map(|n| n << 20).chain([disk.len() / 4096 * 4096 - 4096]);
    near.chain(far).filter(|at| at + 4096 <= disk.len()).filter(|at| is_used(at)).collect()
}

#[test]
fn mutated_images_do_no_harm() {
    let mut rng = Rng(7);
    for case in CASES {
        let image = case.make();
        let disk = open(&image);
        let blocks = blocks(&*disk);
        let (mut recognised, mut slowest) = (0, Duration::ZERO);
        for round in 0..ROUNDS {
            // The first superblock as often as all else.
            let first = match case.name {
                name if name.starts_with("btrfs") => 65536,
                name if name.starts_with("iso") => 32768,
                _ => 0,
            };
            let at = if round % 2 == 0 { first } else { blocks[rng.below(blocks.len() as u64) as usize] };
            let mut block = vec![0; 4096];
            disk.read_exact_at(&mut block, at).unwrap();
            // Where something is, more often than where nothing is.
            let used: Vec<usize> = (0..4096).filter(|n| block[*n] != 0).collect();
            for _ in 0..=rng.below(3) {
                let somewhere = rng.below(4096) as usize;
                let byte = if used.is_empty() || rng.below(3) == 0 {
                    somewhere
                } else {
                    used[rng.below(used.len() as u64) as usize]
                };
                block[byte] = match rng.below(3) {
                    0 => rng.below(256) as u8,
                    1 => block[byte] ^ 1 << rng.below(8),
                    _ => [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
                };
            }
            if rng.below(4) > 0 {
                seal(case.name, &mut block, at);
            }
            let mut patched = Patched::new(&disk).with(at, &block);
            if rng.below(8) == 0 {
                patched = patched.cut(rng.below(disk.len()).max(1));
            }
            let read = Arc::new(AtomicU64::new(0));
            let start = Instant::now();
            let contents = Contents::probe(Arc::new(Counted(patched, Arc::clone(&read))));
            slowest = slowest.max(start.elapsed());
            assert!(read.load(Ordering::Relaxed) <= INSIDE_READ_MAX, "{} {round}", case.name);
            let contents = contents.unwrap();
            let _ = (contents.to_string(), contents.fits(disk.len()));
            recognised += usize::from(contents.kind == case.kind);
        }
        assert!(recognised > ROUNDS / 10, "{}: {recognised}", case.name);
        assert!(slowest < Duration::from_secs(5), "{}: {slowest:?}", case.name);
    }
}

/// Makes the checksum of a btrfs node right, where one is.
pub(crate) fn seal_node(disk: &dyn ReadAt, at: u64, block: &[u8]) -> Option<(u64, Vec<u8>)> {
    let start = at / 16384 * 16384;
    let (mut node, mut uuid) = (vec![0; 16384], vec![0; 16]);
    disk.read_exact_at(&mut node, start).ok()?;
    disk.read_exact_at(&mut uuid, 65536 + 0x20).ok()?;
    if node[0x20..0x30] != uuid {
        return None;
    }
    node[(at - start) as usize..][..block.len()].copy_from_slice(block);
    let sum = crc32c::crc32c(&node[32..]);
    node[..4].copy_from_slice(&sum.to_le_bytes());
    Some((start, node))
}

#[test]
fn mutated_images_do_no_harm_at_the_full_level() {
    let mut rng = Rng(11);
    let wanted =
        FILLED.iter().filter(|(name, ..)| !matches!(*name, "btrfs-sha256" | "btrfs-blake2") && is_wanted(name));
    for (name, ..) in wanted {
        let (rounds, since) = (rounds_or(FULL_ROUNDS), Instant::now());
        let image = fill(name, &plant);
        let disk = &image.disk;
        let blocks = blocks(&**disk);
        let (mut damaged, mut slowest) = (0, Duration::ZERO);
        for round in 0..rounds {
            let at = blocks[rng.below(blocks.len() as u64) as usize];
            let mut block = vec![0; 4096];
            disk.read_exact_at(&mut block, at).unwrap();
            let used: Vec<usize> = (0..4096).filter(|n| block[*n] != 0).collect();
            for _ in 0..=rng.below(3) {
                let byte = used[rng.below(used.len() as u64) as usize];
                block[byte] = match rng.below(3) {
                    0 => rng.below(256) as u8,
                    1 => block[byte] ^ 1 << rng.below(8),
                    _ => [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
                };
            }
            seal(name, &mut block, at);
            let (at, block) = seal_node(&**disk, at, &block).unwrap_or((at, block));
            let mut patched = Patched::new(disk).with(at, &block);
            if rng.below(8) == 0 {
                patched = patched.cut(rng.below(disk.len()).max(1));
            }
            let read = Arc::new(AtomicU64::new(0));
            let len = patched.len();
            let start = Instant::now();
            let contents = check(Arc::new(Counted(patched, Arc::clone(&read))));
            slowest = slowest.max(start.elapsed());
            let most = len * INSIDE_FULL_READS + INSIDE_READ_MAX;
            assert!(read.load(Ordering::Relaxed) <= most, "{name} {round}");
            let covered = contents.coverage();
            assert!(covered.is_none_or(|c| c.verified + c.used_without_checksum + c.free == len), "{name} {round}");
            damaged += usize::from(!contents.all_findings().is_empty());
        }
        eprintln!("{name}: {rounds} in {:?}, the slowest {slowest:?}; {damaged} found", since.elapsed());
        memory_is_bounded(name);
        assert!(damaged > rounds / 10, "{name}: {damaged}");
        assert!(slowest < Duration::from_secs(20), "{name}: {slowest:?}");
    }
}
