//! Changed volume groups: whatever bytes a device has, there is no panic, no hang, and no memory without measure.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use unluks::ReadAt;
use unluks::storage::lvm::VolumeGroup;

use crate::lvm::case;

const SECTOR: usize = 512;
const AREA: usize = 4096;
const CASES: [&str; 9] = ["linear", "across", "ring-0", "striped", "mirror", "raid1", "raid10", "snapshot", "thin"];
const ROUNDS: usize = 160;
const MEMORY_MAX: u64 = 64 << 20;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// LVM's checksum.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    (!hasher.finalize()).to_le_bytes()
}

fn number(disk: &[u8], at: usize) -> usize {
    u64::from_le_bytes(*disk[at..].first_chunk().unwrap()) as usize
}

/// Makes all checksums right: of the label, of the metadata area and its text, of dm-thin's blocks.
fn seal(disk: &mut [u8], structures: &[usize]) {
    let (offset, size, area) = (number(disk, AREA + 40), number(disk, AREA + 48), number(disk, AREA + 32));
    if (SECTOR..area).contains(&offset) && size < area - SECTOR && AREA + area <= disk.len() {
        let first = size.min(area - offset);
        let mut text = disk[AREA + offset..][..first].to_vec();
        text.extend_from_slice(&disk[AREA + SECTOR..][..size - first]);
        disk[AREA + 56..][..4].copy_from_slice(&checksum(&text));
    }
    let crc = checksum(&disk[AREA + 4..AREA + SECTOR]);
    disk[AREA..][..4].copy_from_slice(&crc);
    let crc = checksum(&disk[SECTOR + 20..2 * SECTOR]);
    disk[SECTOR + 16..][..4].copy_from_slice(&crc);
    let len = disk.len();
    for block in structures.iter().map(|at| at / 4096 * 4096).filter(|at| *at >= 65536 && at + 4096 <= len) {
        let salt = if number(disk, block + 32) == 27_022_010 { 160_774 } else { 121_107 };
        let crc = !crc32c::crc32c(&disk[block + 4..block + 4096]) ^ salt;
        disk[block..][..4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The sectors that hold LVM's or the kernel's structures: not those of the volumes' data, which hold a number alone.
fn structures(disk: &[u8]) -> Vec<usize> {
    let holds = |at: &usize| disk[at + 12..at + SECTOR].iter().any(|b| *b != 0);
    let small =
        |at: &usize| *at >= 65536 && disk[*at..at + 8].starts_with(b"DmRd") | disk[*at..at + 8].starts_with(b"SnAp");
    (0..disk.len()).step_by(SECTOR).filter(|at| holds(at) || small(at)).collect()
}

fn mutate(disk: &mut [u8], at: usize, rng: &mut Rng) {
    let is_text = disk[at..at + SECTOR].iter().filter(|b| b.is_ascii_graphic()).count() > SECTOR / 2;
    for _ in 0..=rng.below(3) {
        let byte = at + rng.below(SECTOR);
        let new = if is_text {
            b"0123456789\"{}[]=,\n#\0 pv9"[rng.below(23)]
        } else {
            [0, 1, 2, 0x7f, 0x80, 0xff][rng.below(6)]
        };
        match rng.below(4) {
            0 => disk[byte] = rng.below(256) as u8,
            // A digit more, or one less, of a number.
            1 if is_text => disk[byte..(byte + 40).min(at + SECTOR)].rotate_right(1),
            2 => disk[byte] ^= 1 << rng.below(8),
            _ => disk[byte] = new,
        }
    }
}

/// Assembles what `disks` are and reads of all volumes; how many opened.
fn exercise(disks: Vec<Vec<u8>>) -> usize {
    let devices = disks.into_iter().map(|disk| Arc::new(disk) as Arc<dyn ReadAt>).collect();
    let Ok(group) = VolumeGroup::assemble(devices) else { return 0 };
    let _ = group.old_versions();
    let mut count = 0;
    for volume in &group.volumes {
        let Ok(opened) = group.open(volume) else { continue };
        count += 1;
        let len = opened.len().min(1 << 20) as usize;
        let mut buf = vec![0; len];
        let _ = opened.read_exact_at(&mut buf, 0);
        let _ = opened.read_exact_at(&mut buf, opened.len() - len as u64);
        let mut at = 0;
        for _ in 0..64 {
            let Ok(extent) = opened.extent_at(at) else { break };
            assert!(extent.len > 0 && extent.len <= opened.len() - at, "{extent:?} at {at} of {}", opened.len());
            at += extent.len;
        }
    }
    count
}

/// A value of the process's status, in bytes.
fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn mutated_groups_do_no_harm() {
    let mut rng = Rng(42);
    let (mut opened, mut refused) = (0, 0);
    for name in CASES {
        let (devices, _) = case(name);
        let disks: Vec<Vec<u8>> = devices
            .iter()
            .map(|device| {
                let mut bytes = vec![0; device.len() as usize];
                device.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            })
            .collect();
        let places: Vec<Vec<usize>> = disks.iter().map(|disk| structures(disk)).collect();
        for round in 0..ROUNDS {
            let mut changed = disks.clone();
            let n = rng.below(disks.len());
            // The label, the area's header and the committed text as often as all that the kernel keeps.
            let text = AREA + number(&disks[n], AREA + 40);
            let at = match rng.below(8) {
                0 => SECTOR,
                1 => AREA,
                2..5 => text + rng.below(4) * SECTOR,
                _ => places[n][rng.below(places[n].len())],
            };
            mutate(&mut changed[n], at, &mut rng);
            if round % 8 != 0 {
                seal(&mut changed[n], &places[n]);
            }
            let (before, start) = (status("VmRSS"), Instant::now());
            // From now on the most memory is counted anew.
            fs::write("/proc/self/clear_refs", "5").unwrap();
            let result = exercise(changed);
            let (took, grown) = (start.elapsed(), status("VmHWM").saturating_sub(before));
            assert!(took < Duration::from_secs(20), "{name}, round {round}: {took:?}");
            assert!(grown < MEMORY_MAX, "{name}, round {round}: {grown} bytes");
            if result > 0 { opened += 1 } else { refused += 1 }
        }
    }
    // Checksums made right let mutations through to what lies behind them.
    assert!(opened > 300 && refused > 300, "{opened} opened, {refused} refused");
}

/// The largest texts that are taken: memory has a measure.
#[test]
fn the_largest_texts_keep_to_the_memory() {
    let (devices, _) = case("linear");
    let mut disk = vec![0; devices[0].len() as usize];
    devices[0].read_exact_at(&mut disk, 0).unwrap();
    let text_len = 15 << 20;
    let area = 34 << 20;
    for filling in ["a=1\n", "a{}\n", "[0,"] {
        let mut large = disk.clone();
        large.resize(AREA + area, 0);
        large[AREA + 32..][..8].copy_from_slice(&(area as u64).to_le_bytes());
        large[SECTOR + 32 + 80..][..8].copy_from_slice(&(area as u64).to_le_bytes());
        large[AREA + 40..][..8].copy_from_slice(&(SECTOR as u64).to_le_bytes());
        large[AREA + 48..][..8].copy_from_slice(&(text_len as u64).to_le_bytes());
        let text: String = if filling == "[0," {
            "a = [".to_owned() + &"0,".repeat(text_len)
        } else {
            (0..).map(|n| format!("n{n}{}", &filling[1..])).take(text_len / 4).collect()
        };
        large[AREA + SECTOR..][..text_len].copy_from_slice(&text.as_bytes()[..text_len]);
        drop(text);
        seal(&mut large, &[]);
        let before = status("VmRSS");
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let e = VolumeGroup::assemble(vec![Arc::new(large) as Arc<dyn ReadAt>]).unwrap_err();
        assert_eq!(e.rule(), "lvm.text.values", "{e}");
        let grown = status("VmHWM").saturating_sub(before);
        assert!(grown < MEMORY_MAX + (32 << 20), "{filling:?}: {grown} bytes");
    }
}
