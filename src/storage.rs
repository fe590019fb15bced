//! Partition tables of whole-disk images: GPT, from either copy, and MBR with logical partitions.
//!
//! Numbers are those that Linux gives the partitions: of a GPT, the place in the table; of an MBR, 1 to 4 for the table's
//! own and from 5 on for the logical ones. A table says nothing that is not on the disk: [`Entry::open`] checks that the
//! partition lies within it.

// Numbers of an image reach all of this: sums that cannot be are an error or a bound, never another number.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

mod gpt;
pub mod lvm;
mod mbr;
pub mod md;

use std::fmt;

pub use gpt::{GptCopies, GptCopy};
use uuid::{Uuid, uuid};

use crate::error::{Error, Hint, Result, counted, escape};
use crate::io::{Peek, ReadAt, Window};

/// Which kind of table a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// A GUID partition table (UEFI specification, chapter 5).
    Gpt,
    /// A DOS partition table in the master boot record.
    Mbr,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        })
    }
}

/// What a partition is for, as its table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// GPT's partition type GUID.
    Gpt(Uuid),
    /// MBR's partition type byte.
    Mbr(u8),
}

const GPT_LINUX_LUKS: Uuid = uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc");

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GPT: &[(Uuid, &str)] = &[
            (GPT_LINUX_LUKS, "Linux LUKS"),
            (uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4"), "Linux filesystem"),
            (uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928"), "Linux LVM"),
            (uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e"), "Linux RAID"),
            (uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f"), "Linux swap"),
            (uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), "EFI system"),
            (uuid!("21686148-6449-6e6f-744e-656564454649"), "BIOS boot"),
            (uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172"), "Linux extended boot"),
            (uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"), "Linux root (x86-64)"),
            (uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"), "Microsoft basic data"),
        ];
        const MBR: &[(u8, &str)] = &[
            (0x07, "NTFS or exFAT"),
            (0x0b, "FAT32"),
            (0x0c, "FAT32"),
            (0x82, "Linux swap"),
            (0x83, "Linux"),
            (0x8e, "Linux LVM"),
            (0xe8, "Linux LUKS"),
            (0xef, "EFI system"),
            (0xfd, "Linux RAID"),
        ];
        match self {
            Self::Gpt(guid) => match GPT.iter().find(|(known, _)| known == guid) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "{guid}"),
            },
            Self::Mbr(byte) => match MBR.iter().find(|(known, _)| known == byte) {
                Some((_, name)) => f.write_str(name),
                None => write!(f, "type {byte:#04x}"),
            },
        }
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its number, as Linux numbers it.
    pub number: u32,
    /// Its first byte's offset on the disk.
    pub start: u64,
    /// Its length in bytes. Never 0.
    pub len: u64,
    /// What it is for.
    pub kind: Kind,
    /// GPT's partition name, as it stands there; MBR has none.
    pub label: Option<String>,
    /// What Linux calls PARTUUID: GPT's partition GUID, or MBR's disk signature and the number, `1234abcd-05`.
    pub uuid: String,
}

impl Entry {
    /// The partition's bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where it does not lie within `disk`.
    pub fn open<S: ReadAt>(&self, disk: S) -> Result<Window<S>> {
        let total = disk.len();
        Window::new(disk, self.start, Some(self.len)).map_err(|_| {
            let (number, start, len) = (self.number, self.start, self.len);
            Error::corrupt(
                "partition.truncated",
                format!("partition {number} is {len} bytes from byte {start} on, but the disk ends at byte {total}"),
            )
            .with_hint(Hint::AllowTruncated)
        })
    }
}

impl Entry {
    /// That only `there` of its bytes are there, where that is so.
    pub(crate) fn cut_off(&self, there: u64) -> Option<String> {
        let (number, len) = (self.number, self.len);
        (there < len).then(|| format!("partition {number} is cut off: {there} of its {len} bytes are there"))
    }

    /// Whether the partition begins as a LUKS container does.
    pub(crate) fn starts_as_luks(&self, disk: &Peek<'_>) -> bool {
        self.len >= 512 && starts_as_luks(disk, self.start)
    }

    /// The partition's bytes as far as the disk has them.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where it starts behind the end of `disk`.
    pub fn open_as_far_as_it_is_there<S: ReadAt>(&self, disk: S) -> Result<Window<S>> {
        let there = disk.len().saturating_sub(self.start);
        if there < self.len && there > 0 { Self { len: there, ..self.clone() }.open(disk) } else { self.open(disk) }
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes at byte {}, {}", self.number, self.len, self.start, self.kind)?;
        if let Some(label) = self.label.as_deref().filter(|label| !label.is_empty()) {
            write!(f, ", \"{}\"", escape(label))?;
        }
        Ok(())
    }
}

/// A disk's partition table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Table {
    /// Which kind it is.
    pub scheme: Scheme,
    /// The size in bytes of the sectors that the table counts in.
    pub sector_size: u32,
    /// The partitions, in the order of their numbers.
    pub entries: Vec<Entry>,
    /// What the user should know, one line each: damage that was passed over.
    pub notes: Vec<String>,
}

impl Table {
    /// The partition that `wanted` names: by its number, its UUID, or its label.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) where none or several have that name; the message lists
    /// them.
    pub fn find(&self, wanted: &str) -> Result<&Entry> {
        let by_number = |entry: &&Entry| wanted.parse() == Ok(entry.number);
        let by_uuid = |entry: &&Entry| entry.uuid.eq_ignore_ascii_case(wanted);
        let by_label =
            |entry: &&Entry| entry.label.as_deref().is_some_and(|label| !wanted.is_empty() && label == wanted);
        let all: Vec<&Entry> = self.entries.iter().collect();
        let ways: [&dyn Fn(&&Entry) -> bool; 3] = [&by_number, &by_uuid, &by_label];
        for same in ways {
            let found: Vec<&Entry> = self.entries.iter().filter(|entry| same(entry)).collect();
            match found.as_slice() {
                [] => (),
                [one] => return Ok(one),
                several => {
                    let what = format!("several partitions are called {}: {}", escape(wanted), list_of(several));
                    return Err(Error::invalid(what).with_rule("partition.name").with_hint("name one by its number"));
                }
            }
        }
        let noted: String = self.notes.iter().take(1).map(|note| format!("; {note}")).collect();
        let there =
            if let [one] = all[..] { format!("the only one is {one}") } else { format!("there are {}", list_of(&all)) };
        let what = format!("no partition is called {}; {there}{noted}", escape(wanted));
        Err(Error::invalid(what).with_rule("partition.name"))
    }

    /// The partition that a path names, and what of the path is for the tables of disks within it: `2/1` is the first
    /// partition of the disk in the second. A name that has a slash itself is that of one partition.
    ///
    /// # Errors
    /// As [`Table::find`].
    pub fn find_path<'w>(&self, wanted: &'w str) -> Result<(&Entry, Option<&'w str>)> {
        match (self.find(wanted), wanted.split_once('/')) {
            (Ok(entry), _) => Ok((entry, None)),
            (Err(_), Some((own, within))) => self.find(own).map(|entry| (entry, Some(within))),
            (Err(e), None) => Err(e),
        }
    }

    /// The partitions that begin as a LUKS container does.
    ///
    /// # Errors
    /// That of the first start that cannot be read, where no other one is LUKS.
    pub fn luks<'a>(&'a self, disk: &dyn ReadAt) -> Result<Vec<&'a Entry>> {
        let look = Peek::new(disk);
        let found: Vec<_> = self.entries.iter().filter(|entry| entry.starts_as_luks(&look)).collect();
        match look.take_failure() {
            Some(e) if found.is_empty() => Err(e),
            _ => Ok(found),
        }
    }
}

/// The most partitions that a message or a table's notes name; of those beyond it says how many there are. A GPT has room
/// for 32,768, and each may have something wrong with it.
pub(crate) const NAMED_MAX: usize = 16;

/// The entries in one line, for a message.
pub(crate) fn list_of(entries: &[&Entry]) -> String {
    let mut lines: Vec<String> = entries.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    match entries.len() {
        0 => return "none".into(),
        n if n > NAMED_MAX => lines.push(format!("and {} more", n.saturating_sub(NAMED_MAX))),
        _ => (),
    }
    lines.join("; ")
}

/// Keeps the first of the notes that a table's partitions gave, and the number of the others.
fn shorten(notes: &mut Vec<String>, scheme: &str) {
    if let more @ 1.. = notes.len().saturating_sub(NAMED_MAX) {
        notes.truncate(NAMED_MAX);
        notes.push(format!("{scheme}: left out: {} more on its partitions", counted(more, "note")));
    }
}

/// The partition table of `disk`, or `None` where it has none, or is a LUKS container itself.
///
/// `sector_size` is the size in bytes of the disk's logical sectors, where its container tells it; otherwise it is taken
/// for 512. An MBR is read with it, or with the other of 512 and 4096 bytes where only that agrees with the disk. A GPT is looked for with it and then with the other of 512 and 4096 bytes: a disk may
/// have been copied into a container whose sectors are not its own.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) where a GPT is there but neither of its copies is whole;
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a sector size other than 512 and 4096;
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where the disk cannot be read at a place of a table, and has none elsewhere.
pub fn list(disk: &dyn ReadAt, sector_size: Option<u32>) -> Result<Option<Table>> {
    let sector_sizes: &[u32] = match sector_size {
        None | Some(512) => &[512, 4096],
        Some(4096) => &[4096, 512],
        Some(other) => {
            return Err(Error::invalid(format!("disks have sectors of 512 or 4096 bytes, not of {other}")));
        }
    };
    if disk.len() < 512 || starts_as_luks(&Peek::new(disk), 0) {
        return Ok(None);
    }
    // Behind a master boot record that cannot be read there may be a GPT all the same.
    let (mbr, unreadable) = match mbr::Sector::read(disk, 0) {
        Ok(mbr) => (mbr, None),
        Err(e) => (None, Some(e)),
    };
    // A table that Linux would use comes before a GPT that an earlier use of the disk left at its end.
    let of_its_own = mbr.as_ref().filter(|mbr| !mbr.is_protective()).filter(|mbr| mbr.has_partitions());
    if let Some(mbr) = of_its_own {
        return Ok(Some(mbr::list_by_contents(disk, mbr, sector_sizes)));
    }
    let protected = mbr.is_some_and(|mbr| mbr.is_protective());
    let mut table = gpt::list(disk, sector_sizes, protected)?;
    if let (Some(table), Some(told)) = (&mut table, sector_size)
        && table.sector_size != told
    {
        let note = format!("gpt: the table counts sectors of {} bytes, its container of {told}", table.sector_size);
        table.notes.push(note);
    }
    match (table, unreadable) {
        (Some(mut table), Some(e)) => {
            table.notes.insert(0, format!("the disk's master boot record cannot be read: {e}"));
            Ok(Some(table))
        }
        (None, Some(e)) => Err(e.within("the disk's master boot record")),
        (table, None) => Ok(table),
    }
}

/// Both copies of a GPT, looked at side by side: [`list`] is content with one of them.
pub fn gpt_copies(disk: &dyn ReadAt, sector_size: u32) -> GptCopies {
    gpt::copies(disk, sector_size)
}

/// Whether a LUKS container, or what is left of one, begins at `offset`.
pub(crate) fn starts_as_luks(disk: &Peek<'_>, offset: u64) -> bool {
    // The last is that of LUKS1 while cryptsetup-reencrypt works on it.
    let known = [*b"LUKS\xba\xbe", *b"SKUL\xba\xbe", *b"LUKS\xde\xad"];
    disk.bytes(offset).is_some_and(|magic: [u8; 6]| known.contains(&magic))
}

/// Whether `source` is a physical volume of LVM2: one of its first four sectors has the label (LVM2's
/// `lib/label/label.h`).
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) where one of them cannot be read, and no other one has the label.
pub fn is_lvm(source: &dyn ReadAt) -> Result<bool> {
    let look = Peek::new(source);
    let is_label = |bytes: [u8; 32]| bytes.starts_with(b"LABELONE") && bytes.ends_with(b"LVM2 001");
    if [0, 512, 1024, 1536].into_iter().any(|at| look.bytes(at).is_some_and(is_label)) {
        return Ok(true);
    }
    look.take_failure().map_or(Ok(false), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn entry(number: u32, label: &str, uuid: &str) -> Entry {
        let kind = Kind::Gpt(GPT_LINUX_LUKS);
        Entry { number, start: 512, len: 512, kind, label: Some(label.into()), uuid: uuid.into() }
    }

    #[test]
    fn partitions_are_found_by_number_uuid_and_label() {
        let entries = vec![entry(1, "root", "aa-bb"), entry(2, "root", "cc"), entry(3, "2", "dd"), entry(4, "", "ee")];
        let table = Table { scheme: Scheme::Gpt, sector_size: 512, entries, notes: Vec::new() };
        let number = |wanted| table.find(wanted).unwrap().number;
        assert_eq!((number("1"), number("AA-bb"), number("2"), number("dd")), (1, 1, 2, 3));
        let several = table.find("root").unwrap_err();
        assert_eq!((several.kind(), several.rule()), (ErrorKind::InvalidInput, "partition.name"));
        assert!(several.to_string().contains("1: 512 bytes at byte 512, Linux LUKS, \"root\"; 2:"), "{several}");
        for none in ["5", "", "boot"] {
            assert!(table.find(none).unwrap_err().to_string().contains("no partition is called"));
        }
        let path = |wanted| table.find_path(wanted).map(|(entry, within)| (entry.number, within)).ok();
        assert_eq!(["1/2/x", "dd/", "5/1"].map(path), [Some((1, Some("2/x"))), Some((3, Some(""))), None]);
        let slashed = vec![entry(7, "a/b", "ff")];
        let table = Table { entries: slashed, ..table };
        assert_eq!(table.find_path("a/b").map(|(entry, within)| (entry.number, within)).unwrap(), (7, None));
        let e = table.entries[0].open(vec![0u8; 1000]).err().unwrap();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "partition.truncated"));
    }

    #[test]
    fn lvm_is_told_by_its_label_in_the_first_four_sectors() {
        for sector in 0..5 {
            let mut disk = vec![0; 4096];
            disk[sector * 512..][..8].copy_from_slice(b"LABELONE");
            assert!(!is_lvm(&disk).unwrap());
            disk[sector * 512 + 24..][..8].copy_from_slice(b"LVM2 001");
            assert_eq!(is_lvm(&disk).unwrap(), sector < 4);
        }
        assert!(!is_lvm(&vec![0u8; 10]).unwrap());
    }

    #[test]
    fn a_luks_container_has_no_table() {
        let mut disk = vec![0; 4096];
        disk[..6].copy_from_slice(b"LUKS\xba\xbe");
        disk[446 + 4] = 0x83;
        disk[446 + 8] = 1;
        disk[446 + 12] = 1;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert!(list(&disk, None).unwrap().is_none());
        disk[0] = 0;
        assert_eq!(list(&disk, None).unwrap().unwrap().entries.len(), 1);
        assert_eq!(list(&disk, Some(1024)).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
