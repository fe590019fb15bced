//! Which block devices are made of which, and of which files: a partition of its disk, a mapped device of others, a loop
//! device of a file. sysfs says it, for the kernel's own numbers.
//!
//! ```text
//!  /sys/dev/block/259:1 → …/block/nvme0n1/nvme0n1p1/   partition          a partition; ../dev is its disk's number
//!  /sys/dev/block/253:0 → …/block/dm-0/                slaves/*/dev       what dm, md and bcache lie on
//!  /sys/dev/block/7:0   → …/block/loop0/               loop/backing_file  the name of a loop device's file
//! ```

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Which file or device it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// A regular file: the device of its file system, and its inode there.
    File { dev: u64, ino: u64 },
    /// A block device, by its own number: there may be several nodes of it.
    Block(u64),
}

impl Id {
    /// `None` for what cannot be overwritten: a pipe, a terminal, a directory.
    pub fn of(meta: &Metadata) -> Option<Self> {
        if meta.file_type().is_block_device() {
            return Some(Self::Block(meta.rdev()));
        }
        meta.is_file().then(|| Self::File { dev: meta.dev(), ino: meta.ino() })
    }
}

/// What the kernel says of block devices; nothing where it is not mounted.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self { root: "/sys".into() }
    }
}

impl Sysfs {
    /// A tree like sysfs at another place.
    #[cfg(test)]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Whether writing the one may change what is read of the other: they are the same, or one lies in the other.
    pub fn overlap(&self, a: Id, b: Id) -> bool {
        let (a, b) = (self.seen_through(a), self.seen_through(b));
        a == b || self.below(a).contains(&b) || self.below(b).contains(&a)
    }

    /// A loop device is its file.
    fn seen_through(&self, id: Id) -> Id {
        let mut id = id;
        // A loop device may stand on the node of another one; not on itself, but sysfs is not ours to trust.
        for _ in 0..8 {
            match self.folder(id).and_then(|folder| loop_file(&folder)) {
                Some(file) => id = file,
                None => break,
            }
        }
        id
    }

    /// All that a device is made of, at any depth.
    fn below(&self, id: Id) -> BTreeSet<Id> {
        let (mut found, mut left) = (BTreeSet::new(), vec![id]);
        while let Some(id) = left.pop() {
            let Some(folder) = self.folder(id) else { continue };
            let mut direct = Vec::new();
            if folder.join("partition").exists() {
                direct.extend(folder.parent().and_then(number));
            }
            let slaves = std::fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
            direct.extend(slaves.filter_map(|entry| number(&entry.path())));
            for id in direct {
                let id = self.seen_through(id);
                if found.insert(id) {
                    left.push(id);
                }
            }
        }
        found
    }

    /// The folder of a device.
    fn folder(&self, id: Id) -> Option<PathBuf> {
        let Id::Block(device) = id else { return None };
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        self.root.join(format!("dev/block/{major}:{minor}")).canonicalize().ok()
    }
}

/// The device of a folder, by its `dev`.
fn number(folder: &Path) -> Option<Id> {
    let text = std::fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim_end().split_once(':')?;
    Some(Id::Block(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?)))
}

/// The file of a loop device.
fn loop_file(folder: &Path) -> Option<Id> {
    let name = std::fs::read_to_string(folder.join("loop/backing_file")).ok()?;
    Id::of(&std::fs::metadata(name.trim_end_matches('\n')).ok()?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("dev/block")).unwrap();
            Self(dir)
        }

        /// Makes a device at `place` below devices/, such as `sda/sda1`.
        fn device(&self, place: &str, major: u32, minor: u32) -> Id {
            let folder = self.0.path().join("devices").join(place);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("dev"), format!("{major}:{minor}\n")).unwrap();
            if place.contains('/') {
                fs::write(folder.join("partition"), "1\n").unwrap();
            }
            symlink(&folder, self.0.path().join(format!("dev/block/{major}:{minor}"))).unwrap();
            Id::Block(rustix::fs::makedev(major, minor))
        }

        fn slave(&self, of: &str, place: &str) {
            let slaves = self.0.path().join("devices").join(of).join("slaves");
            fs::create_dir_all(&slaves).unwrap();
            let name = Path::new(place).file_name().unwrap();
            symlink(self.0.path().join("devices").join(place), slaves.join(name)).unwrap();
        }

        fn backing(&self, of: &str, file: &Path) {
            let folder = self.0.path().join("devices").join(of).join("loop");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("backing_file"), format!("{}\n", file.display())).unwrap();
        }

        fn overlap(&self, a: Id, b: Id) -> bool {
            let sysfs = Sysfs::at(self.0.path());
            assert_eq!(sysfs.overlap(a, b), sysfs.overlap(b, a));
            sysfs.overlap(a, b)
        }
    }

    #[test]
    fn a_disk_overlaps_its_partitions_and_what_is_mapped_onto_them() {
        let fake = Fake::new();
        let sda = fake.device("sda", 8, 0);
        let (sda1, sda2) = (fake.device("sda/sda1", 8, 1), fake.device("sda/sda2", 8, 2));
        let (sdb, crypt) = (fake.device("sdb", 8, 16), fake.device("dm-0", 253, 0));
        let (lv1, lv2) = (fake.device("dm-1", 253, 1), fake.device("dm-2", 253, 2));
        fake.slave("dm-0", "sda/sda2");
        fake.slave("dm-1", "dm-0");
        fake.slave("dm-2", "dm-0");
        for (a, b) in [(sda, sda), (sda, sda1), (sda2, crypt), (sda, crypt), (sda, lv1), (sda2, lv2), (crypt, lv1)] {
            assert!(fake.overlap(a, b), "{a:?} {b:?}");
        }
        for (a, b) in [(sda, sdb), (sda1, sda2), (sda1, crypt), (lv1, lv2), (sdb, lv1)] {
            assert!(!fake.overlap(a, b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_loop_device_is_its_file() {
        let fake = Fake::new();
        let image = fake.0.path().join("image");
        fs::write(&image, "x").unwrap();
        let file = Id::of(&fs::metadata(&image).unwrap()).unwrap();
        let (first, second) = (fake.device("loop0", 7, 0), fake.device("loop1", 7, 1));
        let (one, two) = (fake.device("loop0/loop0p1", 259, 0), fake.device("loop0/loop0p2", 259, 1));
        let mapped = fake.device("dm-0", 253, 0);
        fake.backing("loop0", &image);
        fake.backing("loop1", &image);
        fake.slave("dm-0", "loop1");
        for (a, b) in [(first, file), (first, second), (one, file), (one, second), (mapped, file), (mapped, first)] {
            assert!(fake.overlap(a, b), "{a:?} {b:?}");
        }
        assert!(!fake.overlap(one, two));
        let other = Id::File { dev: 1, ino: 1 };
        assert!(!fake.overlap(first, other) && !fake.overlap(file, other));
    }

    #[test]
    fn a_circle_comes_to_an_end() {
        let fake = Fake::new();
        let (a, b) = (fake.device("dm-0", 253, 0), fake.device("dm-1", 253, 1));
        fake.slave("dm-0", "dm-1");
        fake.slave("dm-1", "dm-0");
        assert!(fake.overlap(a, b));
        assert!(!Sysfs::at(Path::new("/nonexistent")).overlap(a, b));
    }
}
