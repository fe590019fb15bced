//! What the tests of containers and partitions share: test disks, and the peers that make images of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;
use unluks::ReadAt;
use unluks::format::{Contents, Format, Opened, Options, open};
use unluks::io::FileSource;

/// Runs `program`, from the Debian package `package`, with words as its arguments; gives what it prints.
pub fn run(program: &str, package: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).env("LC_ALL", "C").output();
    let output = output.unwrap_or_else(|e| panic!("{program} is needed (Debian package {package}): {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("a peer prints text")
}

pub fn qemu_img(args: &[&str]) -> String {
    run("qemu-img", "qemu-utils", args)
}

pub fn qemu_io(args: &[&str]) -> String {
    run("qemu-io", "qemu-utils", args)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// xorshift64*: test disks and mutations have to be the same at each run.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n.try_into().unwrap())).unwrap()
    }
}

/// A disk with stretches of zeroes, of noise, and of text that compresses.
pub fn test_disk(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = Rng(seed);
    let mut disk = Vec::with_capacity(len + 8);
    while disk.len() < len {
        let stretch = disk.len() + 512 + rng.index(300 << 10);
        match rng.below(3) {
            0 => disk.resize(stretch, 0),
            1 => {
                while disk.len() < stretch {
                    disk.extend(rng.next().to_le_bytes());
                }
            }
            _ => {
                while disk.len() < stretch {
                    disk.extend(format!("line at byte {} of this disk\n", disk.len()).bytes());
                }
            }
        }
    }
    disk.truncate(len);
    disk
}

pub fn open_path(path: &Path, format: Option<Format>) -> unluks::Result<Opened> {
    open(Arc::new(FileSource::open(path)?), Options { format, ..Options::default() })
}

pub fn open_bytes(bytes: Vec<u8>, format: Option<Format>) -> unluks::Result<Opened> {
    open(Arc::new(bytes), Options { format, ..Options::default() })
}

pub fn disk_of(opened: Opened) -> Arc<dyn ReadAt> {
    match opened.contents {
        Contents::Disk(disk) => disk,
        Contents::Qcow2Luks(_) => panic!("the image is encrypted"),
    }
}

/// All bytes of `source`, read in pieces of different lengths.
pub fn read_all(source: &dyn ReadAt) -> unluks::Result<Vec<u8>> {
    let mut rng = Rng(7);
    let mut all = vec![0; usize::try_from(source.len()).unwrap()];
    let mut at = 0;
    while at < all.len() {
        let len = (1 + rng.index(700 << 10)).min(all.len() - at);
        source.read_exact_at(&mut all[at..at + len], at.try_into().unwrap())?;
        at += len;
    }
    Ok(all)
}

/// Says where `found` is not what it should be, without printing either.
pub fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: length");
    if found != wanted
        && let Some(at) = (0..found.len()).find(|at| found[*at] != wanted[*at])
    {
        panic!("{what}: byte {at} is {:#04x}, not {:#04x}", found[at], wanted[at]);
    }
}

/// Walks over the extents of `source`, checks that they cover it and that zeroes are zeroes; how many bytes are zeroes.
pub fn check_extents(source: &dyn ReadAt, bytes: &[u8], what: &str) -> u64 {
    let (mut at, mut zeroes) = (0, 0);
    while at < source.len() {
        let extent = source.extent_at(at).unwrap();
        assert!(extent.len > 0 && at + extent.len <= source.len(), "{what}: {extent:?} at byte {at}");
        let (start, end) = (usize::try_from(at).unwrap(), usize::try_from(at + extent.len).unwrap());
        if extent.zero {
            assert!(bytes[start..end].iter().all(|b| *b == 0), "{what}: {extent:?} at byte {at}");
            zeroes += extent.len;
        }
        at += extent.len;
    }
    zeroes
}

/// A directory with a raw disk in it.
pub struct Bench {
    pub dir: TempDir,
    pub disk: Vec<u8>,
}

impl Bench {
    pub fn new(disk: Vec<u8>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("disk.raw"), &disk).unwrap();
        Self { dir, disk }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The disk, converted by QEMU.
    pub fn convert(&self, format: &str, options: &str, more: &[&str]) -> PathBuf {
        let to = self.path("image");
        let raw = self.path("disk.raw");
        let mut args = vec!["convert", "-f", "raw", "-O", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        args.extend(more);
        args.extend([text(&raw), text(&to)]);
        qemu_img(&args);
        to
    }
}

/// What QEMU itself reads from `image`.
pub fn by_qemu(image: &Path, format: &str) -> Vec<u8> {
    let raw = image.with_extension("by-qemu");
    qemu_img(&["convert", "-f", format, "-O", "raw", text(image), text(&raw)]);
    std::fs::read(raw).unwrap()
}

/// Opens `image`, compares all its bytes with QEMU's view, and gives it.
pub fn compare(
    image: &Path,
    format: &str,
    named: Option<Format>,
    what: &str,
) -> (Arc<dyn ReadAt>, Vec<u8>, Vec<String>) {
    let opened = open_path(image, named).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(opened.format, format.parse::<Format>().unwrap(), "{what}");
    let notes = opened.notes.clone();
    let disk = disk_of(opened);
    let found = read_all(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let wanted = by_qemu(image, format);
    assert_same(&found, &wanted, what);
    check_extents(&disk, &wanted, what);
    (disk, found, notes)
}
