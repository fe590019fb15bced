//! What the real mkfs programs make, against what util-linux's blkid says of it: sound, damaged in one field, and cut.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used, clippy::as_conversions)]
#![cfg(all(feature = "unlock", feature = "peer-tests"))]

mod btrfs;
mod damage;
mod filled;
mod full;
mod make;
mod mutations;
mod ntfs;
mod reader;
mod table;
mod xfs;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;

use make::{CASES, Image};
use unluks::inside::{Contents, Kind, Severity, State};
use unluks::{ErrorKind, FileSource, ReadAt, Result};

/// An image with some of its bytes changed, or cut off.
pub struct Patched {
    base: Arc<dyn ReadAt>,
    patches: Vec<(u64, Vec<u8>)>,
    len: u64,
}

impl Patched {
    pub(crate) fn new(base: &Arc<dyn ReadAt>) -> Self {
        Self { base: Arc::clone(base), patches: Vec::new(), len: base.len() }
    }

    pub(crate) fn with(mut self, at: u64, bytes: &[u8]) -> Self {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    /// With the bits of one byte turned over.
    pub(crate) fn flipped(self, at: u64) -> Self {
        let mut byte = [0];
        self.base.read_exact_at(&mut byte, at).unwrap();
        self.with(at, &[!byte[0]])
    }

    pub(crate) fn cut(mut self, len: u64) -> Self {
        self.len = len;
        self
    }

    pub(crate) fn contents(self) -> Contents {
        Contents::probe(Arc::new(self)).unwrap()
    }
}

impl ReadAt for Patched {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let end = offset + buf.len() as u64;
        assert!(end <= self.len, "a read of {} bytes at {offset} of {}", buf.len(), self.len);
        self.base.read_exact_at(buf, offset)?;
        for (at, bytes) in &self.patches {
            for (n, byte) in (*at..).zip(bytes) {
                if (offset..end).contains(&n) {
                    buf[(n - offset) as usize] = *byte;
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn open(image: &Image) -> Arc<dyn ReadAt> {
    Arc::new(FileSource::open(&image.path).unwrap())
}

/// What blkid says of a file.
fn blkid(image: &Image) -> BTreeMap<String, String> {
    let output = Command::new("blkid").args(["-p", "-o", "export"]).arg(&image.path).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // Blanks are escaped.
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.replace("\\ ", " ")));
    text.lines().filter_map(pair).collect()
}

fn blkid_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Ext2 => "ext2",
        Kind::Ext3 => "ext3",
        Kind::Ext4 => "ext4",
        Kind::ExtJournal => "jbd",
        Kind::Xfs => "xfs",
        Kind::Btrfs => "btrfs",
        Kind::Fat12 | Kind::Fat16 | Kind::Fat32 => "vfat",
        Kind::Exfat => "exfat",
        Kind::Ntfs => "ntfs",
        Kind::Iso9660 => "iso9660",
        Kind::Squashfs => "squashfs",
        Kind::Swap => "swap",
        Kind::F2fs => "f2fs",
        Kind::Luks1 | Kind::Luks2 => "crypto_LUKS",
        Kind::Gpt => "gpt",
        Kind::Mbr => "dos",
        other => panic!("{other}"),
    }
}

#[test]
fn sound_images_are_what_blkid_says_and_nothing_is_found_in_them() {
    let mut faults = Vec::new();
    for case in CASES {
        let image = case.make();
        let disk = open(&image);
        let contents = Contents::probe(Arc::clone(&disk)).unwrap();
        let blkid = blkid(&image);
        let of = |key: &str| blkid.get(key).cloned();
        let is_table = matches!(contents.kind, Kind::Gpt | Kind::Mbr);
        let (kind, uuid) = if is_table { ("PTTYPE", "PTUUID") } else { ("TYPE", "UUID") };
        let mut same = |what: &str, found: String, wanted: String| {
            if found != wanted {
                faults.push(format!("{}: {what}: found {found}, wanted {wanted}", case.name));
            }
        };
        same("kind", contents.kind.to_string(), case.kind.to_string());
        if contents.kind == case.kind {
            same("blkid's type", blkid_type(contents.kind).to_owned(), of(kind).unwrap_or_default());
        }
        same("UUID", format!("{:?}", contents.uuid), format!("{:?}", of(uuid)));
        same("label", format!("{:?}", contents.label), format!("{:?}", of("LABEL")));
        same("findings", format!("{:?}", contents.all_findings()), "[]".into());
        same("others", format!("{:?}", contents.others), "[]".into());
        let is_left = matches!(contents.state, State::Unclean | State::JournalToReplay);
        same("to replay", is_left.to_string(), "false".into());
        let size = contents.size().unwrap_or(0);
        same("size", (size <= disk.len() && size > disk.len() / 100 * case.least).to_string(), "true".into());
        same("fits", contents.fits(disk.len()).is_ok().to_string(), "true".into());
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_is_cut_off_says_both_numbers() {
    let mut faults = Vec::new();
    for case in CASES {
        let image = case.make();
        let disk = open(&image);
        let whole = Contents::probe(Arc::clone(&disk)).unwrap();
        let size = whole.size().unwrap();
        for len in [size / 2 / 4096 * 4096, size - 512] {
            // What is at the start is enough to recognise it.
            if len < 80 << 10 {
                continue;
            }
            let contents = Patched::new(&disk).cut(len).contents();
            let errors = contents.all_findings().into_iter().filter(|f| f.severity == Severity::Error);
            let codes: Vec<_> = errors.map(|f| f.code).collect();
            let known = (contents.kind, contents.size()) == (case.kind, Some(size));
            if !known || codes != ["contents.size"] {
                faults.push(format!("{} at {len} of {size}: {contents}: {:?}", case.name, contents.all_findings()));
                continue;
            }
            let e = contents.fits(len).unwrap_err();
            assert_eq!((e.kind(), e.rule()), (ErrorKind::Corrupt, "contents.size"));
            let text = e.to_string();
            assert!(text.contains(&len.to_string()) && text.contains(&size.to_string()), "{text}");
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_pipe_shows_the_start_and_no_finding_comes_of_the_rest() {
    let mut faults = Vec::new();
    for case in CASES {
        let image = case.make();
        let disk = open(&image);
        let whole = Contents::probe(Arc::clone(&disk)).unwrap();
        let contents = Contents::probe_start(disk, 256 << 10).unwrap();
        let same = (contents.kind, contents.size()) == (whole.kind, whole.size());
        if !same || !contents.all_findings().is_empty() {
            faults.push(format!("{}: {contents}: {:?}", case.name, contents.all_findings()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
