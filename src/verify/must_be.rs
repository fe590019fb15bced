//! What has to be recognised in a plaintext.

use std::str::FromStr;

use crate::backup::Backup;
use crate::error::{Error, Result, escape};
use crate::inside::{Contents, Kind};

/// The words, and the names of the kinds that each stands for.
const WORDS: &[(&str, &[Kind])] = &[
    ("ext", &[Kind::Ext2, Kind::Ext3, Kind::Ext4]),
    ("ext2", &[Kind::Ext2]),
    ("ext3", &[Kind::Ext3]),
    ("ext4", &[Kind::Ext4]),
    ("xfs", &[Kind::Xfs]),
    ("btrfs", &[Kind::Btrfs]),
    ("fat", &[Kind::Fat12, Kind::Fat16, Kind::Fat32]),
    ("exfat", &[Kind::Exfat]),
    ("ntfs", &[Kind::Ntfs]),
    ("iso9660", &[Kind::Iso9660]),
    ("squashfs", &[Kind::Squashfs]),
    ("swap", &[Kind::Swap, Kind::Hibernation]),
    ("zfs", &[Kind::Zfs]),
    ("f2fs", &[Kind::F2fs]),
    ("apfs", &[Kind::Apfs]),
    ("hfs+", &[Kind::HfsPlus]),
    ("bitlocker", &[Kind::BitLocker]),
    ("gpt", &[Kind::Gpt]),
    ("mbr", &[Kind::Mbr]),
    ("lvm", &[Kind::Lvm2]),
    ("md", &[Kind::Md]),
    ("luks", &[Kind::Luks1, Kind::Luks2]),
];

/// What has to be recognised, on the plaintext itself or on one of its partitions or volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MustBe {
    word: &'static str,
    /// Empty is anything that has more than a name.
    kinds: &'static [Kind],
}

impl MustBe {
    /// Anything.
    pub const ANY: Self = Self { word: "any", kinds: &[] };

    /// What a backup's description promises: an image that names its operating system has something on it.
    pub fn of_backup(backup: &Backup) -> Option<Self> {
        let properties = &backup.image.as_ref()?.properties;
        let says = ["os_distro", "os_type", "os_version"].iter().any(|name| properties.contains_key(*name));
        says.then_some(Self::ANY)
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        self.word
    }

    pub(super) fn is_met(self, contents: &Contents) -> bool {
        let own = if self.kinds.is_empty() { contents.is_known() } else { self.kinds.contains(&contents.kind) };
        own || contents.parts.iter().filter_map(|part| part.contents.as_ref()).any(|inner| self.is_met(inner))
    }
}

impl FromStr for MustBe {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == Self::ANY.word {
            return Ok(Self::ANY);
        }
        let found = WORDS.iter().find(|(word, _)| *word == text).map(|(word, kinds)| Self { word, kinds });
        found.ok_or_else(|| {
            let all: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
            Error::invalid(format!("found \"{}\"; any, {} are known", escape(text), all.join(", ")))
        })
    }
}
