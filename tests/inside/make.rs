//! Images as the real programs make them, in files that are mostly holes.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use unluks::inside::Kind;

pub struct Image {
    pub path: PathBuf,
    _dir: TempDir,
}

/// A kind of image.
pub struct Case {
    pub name: &'static str,
    pub kind: Kind,
    /// In MiB; 0 where the program makes the file.
    size: u64,
    /// The program and its arguments; `IMAGE` is the file, `TREE` a folder with some files.
    command: &'static str,
    /// The percentage of the file that its contents take at least.
    pub least: u64,
}

const fn case(name: &'static str, kind: Kind, size: u64, command: &'static str) -> Case {
    Case { name, kind, size, command, least: 90 }
}

pub const CASES: &[Case] = &[
    case("ext2", Kind::Ext2, 24, "mkfs.ext2 -q -b 1024 -L two IMAGE"),
    case("ext3", Kind::Ext3, 40, "mkfs.ext3 -q -b 2048 -L three IMAGE"),
    case("ext4", Kind::Ext4, 300, "mkfs.ext4 -q -b 4096 -L cloudimg-rootfs IMAGE"),
    case("ext4-1k", Kind::Ext4, 40, "mkfs.ext4 -q -b 1024 IMAGE"),
    case("ext4-crc16", Kind::Ext4, 40, "mkfs.ext4 -q -b 1024 -O ^metadata_csum,uninit_bg IMAGE"),
    case("ext4-seed", Kind::Ext4, 40, "mkfs.ext4 -q -b 1024 -O metadata_csum_seed IMAGE"),
    case("ext4-meta-bg", Kind::Ext4, 300, "mkfs.ext4 -q -b 1024 -O meta_bg,^resize_inode IMAGE"),
    case("ext4-bigalloc", Kind::Ext4, 300, "mkfs.ext4 -q -O bigalloc IMAGE"),
    case("ext4-sparse2", Kind::Ext4, 300, "mkfs.ext4 -q -b 1024 -O sparse_super2 IMAGE"),
    case("xfs", Kind::Xfs, 300, "mkfs.xfs -q -L ix IMAGE"),
    case("xfs-4k", Kind::Xfs, 300, "mkfs.xfs -q -s size=4096 -m rmapbt=1 IMAGE"),
    case("xfs-v4", Kind::Xfs, 300, "mkfs.xfs -q -m crc=0 -L four IMAGE"),
    case("btrfs", Kind::Btrfs, 120, "mkfs.btrfs -q -L tree IMAGE"),
    case("btrfs-xxhash", Kind::Btrfs, 120, "mkfs.btrfs -q --csum xxhash IMAGE"),
    case("btrfs-sha256", Kind::Btrfs, 120, "mkfs.btrfs -q --csum sha256 -m single IMAGE"),
    case("btrfs-blake2", Kind::Btrfs, 120, "mkfs.btrfs -q --csum blake2 IMAGE"),
    case("fat12", Kind::Fat12, 4, "mkfs.vfat -F 12 -n SMALL IMAGE"),
    case("fat16", Kind::Fat16, 40, "mkfs.vfat -F 16 -n MIDDLE IMAGE"),
    case("fat32", Kind::Fat32, 80, "mkfs.vfat -F 32 -n LARGE IMAGE"),
    case("exfat", Kind::Exfat, 40, "mkfs.exfat -L wide IMAGE"),
    case("ntfs", Kind::Ntfs, 40, "mkfs.ntfs -q -F -Q -L windows IMAGE"),
    case("f2fs", Kind::F2fs, 100, "mkfs.f2fs -q -l flash IMAGE"),
    case("swap", Kind::Swap, 4, "mkswap -L memory IMAGE"),
    case("swap-64k", Kind::Swap, 4, "mkswap -p 65536 IMAGE"),
    // It is padded to 4 KiB.
    Case { least: 0, ..case("squashfs", Kind::Squashfs, 0, "mksquashfs TREE IMAGE -quiet -no-progress") },
    case("iso9660", Kind::Iso9660, 0, "genisoimage -quiet -V DISC -o IMAGE TREE"),
    case("iso9660-joliet", Kind::Iso9660, 0, "xorriso -as mkisofs -quiet -J -V disc_two -o IMAGE TREE"),
    Case {
        least: 0,
        ..case(
            "luks1",
            Kind::Luks1,
            8,
            "cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 IMAGE TREE/key",
        )
    },
    Case {
        least: 0,
        ..case(
            "luks2",
            Kind::Luks2,
            20,
            "cryptsetup -q luksFormat --type luks2 --label outer --pbkdf pbkdf2 --pbkdf-force-iterations 1000 IMAGE TREE/key",
        )
    },
    case("gpt", Kind::Gpt, 20, "sgdisk -n 1:2048:+4M -n 2:0:0 IMAGE"),
];

impl Case {
    pub fn make(&self) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("key"), b"words").unwrap();
        fs::write(tree.join("large"), vec![7; 300_000]).unwrap();
        let path = dir.path().join("image");
        if self.size > 0 {
            fs::File::create(&path).unwrap().set_len(self.size << 20).unwrap();
        }
        let mut words = self.command.split(' ').map(|word| match word {
            "IMAGE" => path.to_str().unwrap().to_owned(),
            word => word.replace("TREE", tree.to_str().unwrap()),
        });
        let program = words.next().unwrap();
        let mut command = Command::new(&program);
        command.args(words).env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()));
        let output = command.output().unwrap_or_else(|e| panic!("{program} is wanted for {}: {e}", self.name));
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        Image { path, _dir: dir }
    }
}

/// The image of a name.
pub fn make(name: &str) -> Image {
    CASES.iter().find(|case| case.name == name).unwrap().make()
}
