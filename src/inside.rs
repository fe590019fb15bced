//! What a plaintext is: recognised by its own structures, measured against the bytes that there are, and checked at its
//! roots.
//!
//! ```text
//! disk: ReadAt ─► Metered ─► probes, in their order ─► the one that fits ─► its check ─► Contents, findings
//!                 a budget   magic and sane fields                          checksums, spare copies
//!                                                  └─► partitions, volumes: the same again, three deep
//! ```
//!
//! There are two levels. The quick one ([`Contents::probe`]) looks at metadata roots alone, some milliseconds; what it reads
//! is bounded ([`INSIDE_READ_MAX`](crate::limits::INSIDE_READ_MAX)) whatever the disk says. The full one
//! ([`Contents::check`]) goes through every structure, says how much of the disk is under a checksum ([`Coverage`]), and
//! judges what a journal would replay as it will be then. Nothing is mounted or written.
//!
//! | recognised | checked beyond its magic and its fields' bounds |
//! |---|---|
//! | GPT, MBR | both copies of a GPT; where partitions end; what is in them |
//! | LVM2 | what [`storage::lvm`](crate::storage::lvm) reads; what is in the volumes |
//! | md | what [`storage::md`](crate::storage::md) reads; what is in a mirror |
//! | LUKS | its header |
//! | ext2, ext3, ext4 | superblock and group descriptors, their checksums; backups. In full: `ext::full` |
//! | XFS | superblock, and the headers of each allocation group. In full: `xfs::full` |
//! | btrfs | all superblocks, the roots of the chunk tree and the root tree. In full: `btrfs::full` |
//! | FAT, exFAT, NTFS | boot sectors and their backups; first FAT entries; first MFT records. In full: a `full` each |
//! | ISO 9660, SquashFS, swap, F2FS, APFS, HFS+, ZFS | what each has at its start and end |
//! | BitLocker, archives, databases | their name |
//!
//! The checks are our own: a reader of files is no check, since it tells nothing of what it does not happen to read. No
//! crate has them for more than one file system.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod apple;
mod btrfs;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod full;
mod iso9660;
mod layers;
mod look;
mod names;
mod ntfs;
mod squashfs;
mod swap;
mod tables;
#[cfg(test)]
mod tests;
mod xfs;
mod zfs;

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::{Condition, Error, Hint, Result, escape};
use crate::io::ReadAt;
use crate::limits::{INSIDE_DEPTH_MAX, INSIDE_FINDINGS_MAX};
pub use full::Coverage;
pub use look::Level;
use look::{Look, Metered};

/// What contents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A GUID partition table.
    Gpt,
    /// A DOS partition table.
    Mbr,
    /// A physical volume of LVM2.
    Lvm2,
    /// A member of an md array.
    Md,
    /// A LUKS container of version 1.
    Luks1,
    /// A LUKS container of version 2.
    Luks2,
    /// ext2.
    Ext2,
    /// ext3.
    Ext3,
    /// ext4.
    Ext4,
    /// The external journal of an ext3 or ext4.
    ExtJournal,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT with entries of 12 bits.
    Fat12,
    /// FAT with entries of 16 bits.
    Fat16,
    /// FAT with entries of 32 bits.
    Fat32,
    /// exFAT.
    Exfat,
    /// NTFS.
    Ntfs,
    /// ISO 9660.
    Iso9660,
    /// SquashFS.
    Squashfs,
    /// A swap area.
    Swap,
    /// A swap area that holds a machine's memory: it was suspended to disk.
    Hibernation,
    /// A device of a ZFS pool.
    Zfs,
    /// F2FS.
    F2fs,
    /// A container of APFS.
    Apfs,
    /// HFS+ or HFSX.
    HfsPlus,
    /// A BitLocker volume.
    BitLocker,
    /// Known by a name alone, with its article.
    Other(&'static str),
    /// Nothing that is known.
    Unknown,
}

impl Kind {
    /// Its name, as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
            Self::Lvm2 => "LVM2",
            Self::Md => "md",
            Self::Luks1 => "LUKS1",
            Self::Luks2 => "LUKS2",
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::ExtJournal => "ext journal",
            Self::Xfs => "XFS",
            Self::Btrfs => "btrfs",
            Self::Fat12 => "FAT12",
            Self::Fat16 => "FAT16",
            Self::Fat32 => "FAT32",
            Self::Exfat => "exFAT",
            Self::Ntfs => "NTFS",
            Self::Iso9660 => "ISO 9660",
            Self::Squashfs => "SquashFS",
            Self::Swap => "swap",
            Self::Hibernation => "swap with a suspended system",
            Self::Zfs => "ZFS",
            Self::F2fs => "F2FS",
            Self::Apfs => "APFS",
            Self::HfsPlus => "HFS+",
            Self::BitLocker => "BitLocker",
            Self::Other(name) => name,
            Self::Unknown => "nothing that is known",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a file system was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// It was unmounted.
    Clean,
    /// Its journal has to be replayed, as is usual for the snapshot of a machine that runs.
    JournalToReplay,
    /// It was not unmounted, and has no journal that would say what is missing.
    Unclean,
    /// It does not say, or that is not looked at.
    Unknown,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing: something was not looked at.
    Note,
    /// A spare copy is damaged: nothing is lost, and one safety less is there.
    Warning,
    /// A structure is damaged that data depends on, or bytes are missing.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that is not as its format wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its stable code, such as `contents.ext.group-descriptor-checksum`.
    pub code: &'static str,
    /// The structure that it is in: `group descriptor 5`. For one of a partition or a volume, with that in front.
    pub structure: String,
    /// The structure's first byte, in the disk that was looked at; `None` where it lies on a volume or an array, whose
    /// bytes may be anywhere.
    pub offset: Option<u64>,
    /// What was found. Text of the image in it is escaped.
    pub found: String,
    /// What is allowed, or would be right.
    pub expected: String,
    /// The path of the file or directory that it hits, where that is known. This is the image's text: escape it before it
    /// is printed.
    pub path: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: found {}; {}", self.code, self.structure, self.found, self.expected)?;
        self.offset.map_or(Ok(()), |offset| write!(f, " (at byte {offset})"))?;
        self.path.as_ref().map_or(Ok(()), |path| write!(f, ", in {}", escape(path)))
    }
}

/// A partition of a table, or a volume of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Part {
    /// What it is called: a partition's number, a logical volume's name. This may be the image's text: escape it before it
    /// is printed.
    pub name: String,
    /// Where it starts, in bytes, where it is one piece of the disk.
    pub start: Option<u64>,
    /// Its length in bytes.
    pub len: u64,
    /// What is in it; `None` where it cannot be read or was not looked at.
    pub contents: Option<Contents>,
}

/// What a plaintext is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Contents {
    /// What it is.
    pub kind: Kind,
    /// Its label, or the name of its group or pool. This is the image's text: escape it before it is printed.
    pub label: Option<String>,
    /// Its UUID or serial number, in the form of util-linux's `blkid`.
    pub uuid: Option<String>,
    /// The bytes that there are.
    pub volume_size: u64,
    /// The size of its blocks in bytes.
    pub block_size: Option<u64>,
    /// How it was left.
    pub state: State,
    /// Its partitions or volumes.
    pub parts: Vec<Part>,
    /// What else the disk could be taken for, by older marks on it.
    pub others: Vec<Kind>,
    /// What is wrong with it. Those of its parts are in the parts.
    pub findings: Vec<Finding>,
    /// How many findings there were that are left out of the list.
    pub more_findings: u64,
    /// What was not looked at, and what was passed over, one line each.
    pub notes: Vec<String>,
    size: Option<u64>,
    coverage: Option<Coverage>,
}

impl Contents {
    /// Looks at a disk.
    ///
    /// # Errors
    /// None for what is on the disk: what cannot be read is a finding, or a note.
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) where the start of the disk cannot be read and nothing else of it tells
    /// what it is.
    pub fn probe(disk: Arc<dyn ReadAt>) -> Result<Self> {
        Self::probe_start(disk, u64::MAX)
    }

    /// Looks at a disk of which the bytes behind `reach` cannot be read, or not without losing others: one that comes
    /// through a pipe. What lies there is passed over.
    ///
    /// # Errors
    /// As [`Contents::probe`].
    pub fn probe_start(disk: Arc<dyn ReadAt>, reach: u64) -> Result<Self> {
        probe(Metered::outermost(disk, reach), 0)
    }

    /// The least number of bytes that the disk must have by what is in it: its own size as its superblock says, the end of
    /// the last partition or of the table's spare copy, the extents of a physical volume. `None` where nothing tells,
    /// also where the superblock that should is damaged.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes are missing of `volume_size` to hold what is in it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with both numbers, where some are.
    pub fn fits(&self, volume_size: u64) -> Result<()> {
        let Some(size) = self.size.filter(|size| *size > volume_size) else { return Ok(()) };
        let what = self.short();
        let message =
            format!("the plaintext has {volume_size} bytes, but the {what} in it takes {size}: it is cut off");
        Err(Error::corrupt("contents.size", message)
            .with_condition(Condition::Truncated)
            .with_hint(Hint::AllowTruncated))
    }

    /// Whether anything was recognised that has more than a name.
    pub fn is_known(&self) -> bool {
        !matches!(self.kind, Kind::Unknown | Kind::Other(_))
    }

    /// All findings, also those of the parts.
    pub fn all_findings(&self) -> Vec<&Finding> {
        let parts = self.parts.iter().filter_map(|part| part.contents.as_ref());
        self.findings.iter().chain(parts.flat_map(Self::all_findings)).collect()
    }

    /// The kind and the label.
    fn short(&self) -> String {
        match &self.label {
            Some(label) => format!("{} \"{}\"", self.kind, escape(label)),
            None => self.kind.to_string(),
        }
    }

    fn new(kind: Kind, look: &Look<'_>) -> Self {
        Self {
            kind,
            label: None,
            uuid: None,
            volume_size: look.len(),
            block_size: None,
            state: State::Unknown,
            parts: Vec::new(),
            others: Vec::new(),
            findings: Vec::new(),
            more_findings: 0,
            notes: Vec::new(),
            size: None,
            coverage: None,
        }
    }

    /// Takes note of a finding.
    fn find(
        &mut self,
        severity: Severity,
        code: &'static str,
        place: (impl Into<String>, u64),
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) {
        self.find_nth(severity, code, place, found, expected);
    }

    /// Takes note of a finding, and says which in the list it is. Where the list is full, an error takes the place of one
    /// that is none: what weighs most must not be among those that are left out.
    fn find_nth(
        &mut self,
        severity: Severity,
        code: &'static str,
        (structure, offset): (impl Into<String>, u64),
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Option<usize> {
        let finding = Finding {
            severity,
            code,
            structure: structure.into(),
            offset: Some(offset),
            found: found.to_string(),
            expected: expected.to_string(),
            path: None,
        };
        if self.findings.len() < INSIDE_FINDINGS_MAX {
            self.findings.push(finding);
            return self.findings.len().checked_sub(1);
        }
        self.more_findings = self.more_findings.saturating_add(1);
        let n = self.findings.iter().rposition(|other| other.severity < severity)?;
        self.findings.get_mut(n).into_iter().for_each(|other| *other = finding.clone());
        Some(n)
    }

    /// Takes a note, once.
    fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Says of a structure that it could not be read. One behind the end is not there: the size has been found already.
    fn unread(&mut self, look: &Look<'_>, (structure, offset): (impl Into<String>, u64), len: u64, e: &Error) {
        if offset.checked_add(len).is_none_or(|end| end > look.len()) {
            return;
        }
        match e.kind() {
            crate::ErrorKind::LimitExceeded => {
                let level = look.level().name();
                return self
                    .note(format!("not all of it was looked at: it takes more bytes than a {level} look reads"));
            }
            crate::ErrorKind::Cancelled => return,
            _ => {}
        }
        let expected = "readable bytes are wanted";
        self.find(Severity::Error, "contents.unreadable", (structure, offset), escape(&e.to_string()), expected);
    }
}

/// What a part says in a list.
fn brief(part: &Part) -> String {
    match &part.contents {
        Some(contents) if contents.is_known() => format!("{} {}", escape(&part.name), contents.short()),
        _ => escape(&part.name),
    }
}

/// How many parts one line names.
const NAMED_MAX: usize = 8;

impl fmt::Display for Contents {
    /// One line: `ext4 "cloudimg-rootfs", 64 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())?;
        if !self.parts.is_empty() {
            let mut names: Vec<String> = self.parts.iter().take(NAMED_MAX).map(brief).collect();
            if let more @ 1.. = self.parts.len().saturating_sub(NAMED_MAX) {
                names.push(format!("{more} more"));
            }
            write!(f, " ({})", names.join(", "))?;
        }
        if let Some(size) = self.size {
            write!(f, ", {}", Size(size))?;
        }
        match self.state {
            State::JournalToReplay => f.write_str(", with a journal to replay"),
            State::Unclean => f.write_str(", not unmounted cleanly"),
            State::Clean | State::Unknown => Ok(()),
        }
    }
}

/// A number of bytes for people: `64 MiB`, `1.5 GiB`, `1000 bytes`.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 5] = [(50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let Some((shift, unit)) = UNITS.iter().find(|(shift, _)| self.0 >> shift > 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let (whole, rest) = (self.0 >> shift, self.0 & (1u64 << shift).wrapping_sub(1));
        match rest.saturating_mul(10) >> shift {
            0 if rest == 0 => write!(f, "{whole} {unit}"),
            tenth => write!(f, "{whole}.{tenth} {unit}"),
        }
    }
}

/// What recognises a kind, and what checks it.
struct Format {
    probe: fn(&Look<'_>) -> Option<Contents>,
    check: fn(&Look<'_>, &mut Contents),
}

/// In the order in which they are believed: what takes up a whole disk before what may be left of an earlier use of it.
const FORMATS: &[Format] = &[
    Format { probe: layers::probe_md, check: |_, _| () },
    Format { probe: layers::probe_luks, check: |_, _| () },
    Format { probe: layers::probe_lvm, check: |_, _| () },
    Format { probe: layers::probe_bitlocker, check: |_, _| () },
    Format { probe: swap::probe, check: swap::check },
    Format { probe: xfs::probe, check: xfs::check },
    Format { probe: ext::probe, check: ext::check },
    Format { probe: btrfs::probe, check: btrfs::check },
    Format { probe: ntfs::probe, check: ntfs::check },
    Format { probe: exfat::probe, check: exfat::check },
    Format { probe: fat::probe, check: fat::check },
    Format { probe: squashfs::probe, check: squashfs::check },
    Format { probe: f2fs::probe, check: f2fs::check },
    Format { probe: apple::probe_apfs, check: |_, _| () },
    Format { probe: apple::probe_hfs_plus, check: apple::check_hfs_plus },
    Format { probe: iso9660::probe, check: iso9660::check },
    Format { probe: tables::probe, check: tables::check },
    Format { probe: zfs::probe, check: |_, _| () },
    // What is left where the first superblock is lost.
    Format { probe: ext::probe_backup, check: ext::check },
    Format { probe: btrfs::probe_mirror, check: btrfs::check },
    Format { probe: fat::probe_backup, check: |_, _| () },
    Format { probe: exfat::probe_backup, check: |_, _| () },
    Format { probe: ntfs::probe_backup, check: |_, _| () },
];

/// The formats that are believed only where none of the others is there: the backups.
const BACKUPS: usize = 5;

/// The checksums of a btrfs; see there.
#[cfg(feature = "read-btrfs")]
pub(crate) use btrfs::OtherSums as BtrfsSums;
/// The files of an ext; see there.
#[cfg(feature = "read-ext")]
pub(crate) use ext::{Data as ExtData, Files as ExtFiles, Node as ExtNode};

fn probe(disk: Arc<Metered>, depth: usize) -> Result<Contents> {
    let look = Look::new(&disk);
    let (first, backups) = FORMATS.split_at(FORMATS.len().saturating_sub(BACKUPS));
    let all = |formats: &'static [Format]| -> Vec<(&Format, Contents)> {
        formats.iter().filter_map(|format| Some((format, (format.probe)(&look)?))).collect()
    };
    let mut found = all(first);
    if found.is_empty() {
        found = all(backups);
        found.truncate(1);
    }
    // An older mark says less than one that fits.
    let fits = |contents: &Contents| contents.size.is_none_or(|size| size <= contents.volume_size);
    let chosen = found.iter().position(|(_, contents)| fits(contents)).unwrap_or(0);
    if chosen >= found.len() {
        return names::name(&look);
    }
    let (format, mut contents) = found.swap_remove(chosen);
    contents.others = found.iter().map(|(_, other)| other.kind).collect();
    if let Some(size) = contents.size.filter(|size| *size > contents.volume_size) {
        let (volume, structure) = (contents.volume_size, contents.short());
        let expected = format!("it takes {size} bytes");
        contents.find(Severity::Error, "contents.size", (structure, 0), format!("{volume} bytes"), expected);
    }
    (format.check)(&look, &mut contents);
    if depth < INSIDE_DEPTH_MAX {
        match contents.kind {
            Kind::Gpt | Kind::Mbr => tables::open(&disk, &mut contents, depth),
            Kind::Lvm2 => layers::open_lvm(&disk, &mut contents, depth),
            Kind::Md => layers::open_md(&disk, &mut contents, depth),
            _ => {}
        }
    }
    Ok(contents)
}

/// What is in a part, its findings named after it; `start` is where it lies, where it is one piece of the disk.
fn probe_part(
    part: Arc<dyn ReadAt>,
    name: &str,
    start: Option<u64>,
    (disk, depth): (&Metered, usize),
) -> Result<Contents> {
    let mut contents = probe(disk.nested(part), depth.saturating_add(1))?;
    shift(&mut contents, name, start);
    Ok(contents)
}

fn shift(contents: &mut Contents, name: &str, start: Option<u64>) {
    for finding in &mut contents.findings {
        finding.structure = format!("{name}: {}", finding.structure);
        finding.offset = finding.offset.zip(start).map(|(offset, start)| offset.saturating_add(start));
    }
    for part in contents.parts.iter_mut().filter_map(|part| part.contents.as_mut()) {
        shift(part, name, start);
    }
}
