//! What is known by name and not read: other file formats, packed files, other encryption, and plaintext. Each with what
//! reads it, so that nobody has to guess why there is no LUKS header.

use crate::error::{Condition, Error, Hint};
use crate::io::{Peek, ReadAt};
use crate::num::{at_most, to_u64};

/// What a file or a disk is, where it is nothing that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its name, with an article where it has one.
    pub name: &'static str,
    /// What reads it, or what to do.
    pub hint: &'static str,
    /// The byte that its mark was found at.
    pub at: u64,
}

impl Foreign {
    /// Whether it looks as all encrypted data does, and nothing else is known of it.
    pub fn is_noise(&self) -> bool {
        self.name == NOISE
    }

    /// The refusal of a file of this format.
    pub(super) fn refuse(&self) -> Error {
        let message = format!("the file looks like {}, which is not read", self.name);
        Error::unsupported("container.format", message)
            .at(self.at)
            .with_condition(Condition::OtherFormat)
            .with_hint([self.hint.into(), Hint::RawFormat])
    }
}

/// Where a mark lies, its bytes, the name, and what to do.
type Mark = (u64, &'static [u8], &'static str, &'static str);

const NOISE: &str = "noise from its first byte on, as all encrypted data is";
const CONVERT: &str = "qemu-img convert -O raw IMAGE DISK.raw makes an image that can be read";
const EXPORT: &str = "libewf's ewfexport -f raw, or the tool that made it, exports an image that can be read";
const UNPACK: &str = "unpack the file first";
const CLONE: &str = "what was never written to the clone is its parent's, under the parent's key: rbd flatten the clone, or \
                     map it with librbd and copy that out";

/// Files that hold no disk byte for byte: they are refused whatever else is in them.
const UNREAD: &[Mark] = &[
    (0, b"RBDL\xba\xbe", "the layer of an encrypted clone of Ceph's rbd (LUKS in librbd)", CLONE),
    (0, b"LDBR\xba\xbe", "the layer of an encrypted clone of Ceph's rbd (LUKS in librbd, the second header)", CLONE),
    (0, b"COWD", "a VMware ESX COW disk", CONVERT),
    (0, b"\xbe\xba\xfe\xca\0\0\0\0", "a VMware seSparse disk", CONVERT),
    (0, b"Bochs Virtual HD Image", "a Bochs image", CONVERT),
    (0, b"LVF\x09\r\n\xff\0", "an EWF archive of files (L01), which holds no disk", EXPORT),
    (0, b"LEF2\r\n\x81\0", "an EWF archive of files (Lx01), which holds no disk", EXPORT),
    (0, b"AFF10\r\n\0", "an AFF image", "AFFLIB's affconvert -r exports an image that can be read"),
    (0, b"encrcdsa", "an encrypted Apple disk image", "it is no LUKS container: hdiutil opens it"),
    (
        0,
        b"partclone-image\0",
        "a partclone image",
        "partclone.restore -C -s IMAGE -O DISK.raw makes an image that can be read",
    ),
    (
        0,
        b"bluestore block device",
        "a device of Ceph's BlueStore",
        "its objects are read by a running Ceph alone: rbd export gives the image",
    ),
    (0, b"\xfd7zXZ\0", "an xz file", UNPACK),
    (0, b"\x1f\x8b\x08", "a gzip file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACK),
    (0, b"\x04\x22\x4d\x18", "an lz4 file", UNPACK),
    (0, b"LZIP", "an lzip file", UNPACK),
    (0, b"PK\x03\x04", "a ZIP archive, and no AFF4 image", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive (an OVA is one, too)", UNPACK),
    (0, b"<!DOCTYPE", "an HTML page", "a download that failed can leave one: fetch the image again"),
    (0, b"<!doctype", "an HTML page", "a download that failed can leave one: fetch the image again"),
    (0, b"<html", "an HTML page", "a download that failed can leave one: fetch the image again"),
    (0, b"<?xml", "an XML document", "a download that failed can leave one: fetch the image again"),
    (0, b"-----BEGIN ", "a PEM file: a key or a certificate", "give the image here, and a key as a key"),
    (
        0,
        b"#!/bin/sh\n#V2.0 Format\n",
        "a compressed loop image (cloop)",
        "cloop-utils' extract_compressed_fs IMAGE DISK.raw makes an image that can be read",
    ),
    (0, b"age-encryption.org/v1", "a file that age encrypted", "age -d decrypts it"),
    (0, b"Salted__", "a file that openssl enc encrypted", "openssl enc -d decrypts it"),
];

/// The two copies of Stratis' signature block have it, in sectors 1 and 9 behind their checksum.
const STRATIS: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";
const STRATIS_HINT: &str = "stratisd reads it: start the pool, and copy the file system out of it; a pool that is \
                            encrypted has LUKS2 in front of this block, on a device of its own";

const PLAINTEXT: &str = "it is plaintext already, and nothing has to be decrypted";

/// Disks and partitions: named where there is no LUKS header.
const DISKS: &[Mark] = &[
    (3, b"-FVE-FS-", "a BitLocker volume", "it is no LUKS container: cryptsetup bitlkOpen, or dislocker, opens it"),
    (
        4120,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "a bcache device",
        "a backing device's data starts 8192 bytes in, unless it was made otherwise; a cache's data is its own",
    ),
    (32, b"NXSB", "an APFS container", "FileVault's encryption is no LUKS: macOS, or libfsapfs, opens it"),
    (
        88,
        b"CS",
        "a CoreStorage volume (FileVault 2)",
        "it is no LUKS container: libfvde, or cryptsetup fvault2Open, opens it",
    ),
    (1024, b"H+\0\x04", "an HFS+ file system", PLAINTEXT),
    (1024, b"HX\0\x05", "an HFSX file system", PLAINTEXT),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system", PLAINTEXT),
    (0, b"XFSB", "an XFS file system", PLAINTEXT),
    (65600, b"_BHRfS_M", "a btrfs file system", PLAINTEXT),
    (3, b"NTFS    ", "an NTFS file system", PLAINTEXT),
    (3, b"EXFAT   ", "an exFAT file system", PLAINTEXT),
    (82, b"FAT32   ", "a FAT file system", PLAINTEXT),
    (54, b"FAT16   ", "a FAT file system", PLAINTEXT),
    (54, b"FAT12   ", "a FAT file system", PLAINTEXT),
    (32769, b"CD001", "an ISO 9660 image", PLAINTEXT),
    (0, b"hsqs", "a SquashFS image", PLAINTEXT),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system", PLAINTEXT),
    (
        4086,
        b"SWAPSPACE2",
        "a swap area",
        "it is no LUKS container; if mkswap was run over one, what it did not overwrite may be left",
    ),
    (
        65526,
        b"SWAPSPACE2",
        "a swap area",
        "it is no LUKS container; if mkswap was run over one, what it did not overwrite may be left",
    ),
    (135_168, b"\x0c\xb1\xba\0\0\0\0\0", "a ZFS pool", "its own encryption is no LUKS: zpool import opens it"),
    (
        0,
        b"dmvdo001",
        "a VDO volume (deduplicated and compressed)",
        "the kernel's vdo reads it: map it with LVM, or vdo start, and copy the volume out of it",
    ),
    (516, STRATIS, "a block device of a Stratis pool", STRATIS_HINT),
    (4612, STRATIS, "a block device of a Stratis pool", STRATIS_HINT),
    (512, b"LABELONE", "an LVM physical volume", "LUKS may be inside one of its volumes"),
];

/// A packed file, or one of a format that is known and not read.
pub(super) fn unread(look: &Peek<'_>) -> Option<Foreign> {
    first(look, UNREAD)
}

/// What `disk` is, by its marks: another encryption, or plaintext; of a disk that none of them knows, what its bytes look
/// like. What cannot be read has no mark.
pub fn name(disk: &dyn ReadAt) -> Option<Foreign> {
    first(&Peek::new(disk), DISKS).or_else(|| look(disk).map(|(_, foreign)| foreign))
}

/// What the start of a disk is like.
pub(super) enum Kind {
    /// It has a mark that does not come by chance.
    Marked,
    Zeroes,
    Noise,
    Unknown,
}

/// What the start of `disk` is like, where two bytes of a mark do not tell.
pub(super) fn kind(disk: &dyn ReadAt) -> Kind {
    let look_at = Peek::new(disk);
    if DISKS.iter().any(|(at, mark, ..)| mark.len() >= 4 && look_at.has(mark, *at)) {
        return Kind::Marked;
    }
    look(disk).map_or(Kind::Unknown, |(kind, _)| kind)
}

fn first(look: &Peek<'_>, marks: &'static [Mark]) -> Option<Foreign> {
    let found = marks.iter().find(|(at, mark, ..)| look.has(mark, *at));
    found.map(|(at, _, name, hint)| Foreign { name, hint, at: *at })
}

/// How much of a disk's start is looked at.
const LOOK: usize = 64 << 10;
/// The share of set bits, in thousandths, of bytes that are random; so many of them differ by less.
const EVEN: std::ops::RangeInclusive<usize> = 490..=510;

/// Whether the bytes are a text of JSON, from the first on.
fn is_json(start: &[u8]) -> bool {
    let end = start.iter().position(|b| *b == 0).unwrap_or(start.len());
    let (text, rest) = start.split_at_checked(end).unwrap_or_default();
    // A page is shorter than what is looked at, and alone in its file.
    rest.is_empty()
        && start.len() < LOOK
        && text.trim_ascii_start().first().is_some_and(|b| matches!(b, b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Tells zeroes, noise and a page that stands in for the image.
fn look(disk: &dyn ReadAt) -> Option<(Kind, Foreign)> {
    let mut start = vec![0; at_most(disk.len(), LOOK)];
    disk.read_exact_at(&mut start, 0).ok().filter(|()| !start.is_empty())?;
    if start.iter().all(|b| *b == 0) {
        let hint = "the image may be of a disk that was never written, or a copy that failed; a scan shows whether it is so all over";
        return Some((Kind::Zeroes, Foreign { name: "nothing but zeroes at its start", hint, at: 0 }));
    }
    if is_json(&start) {
        let hint = "a download that failed can leave an answer of the service: it may say why; fetch the image again";
        return Some((Kind::Marked, Foreign { name: "a text of JSON", hint, at: 0 }));
    }
    let is_noise = to_u64(start.len()) >= 4096 && is_even(&start);
    let hint =
        "it may be the data of a container whose header is elsewhere, or plain dm-crypt, or VeraCrypt, which have none";
    let noise = Foreign { name: NOISE, hint, at: 0 };
    is_noise.then_some((Kind::Noise, noise))
}

/// Whether the bytes are as even as random ones: as many bits set as not, in every bit, and all values as often.
fn is_even(bytes: &[u8]) -> bool {
    let mut counts = [0usize; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let thousandths = |count: usize| count.saturating_mul(1000).checked_div(bytes.len()).unwrap_or(0);
    let bits = (0..8).map(|bit| {
        let set = counts.iter().enumerate().filter(|(value, _)| value >> bit & 1 == 1);
        thousandths(set.map(|(_, count)| *count).fold(0, usize::saturating_add))
    });
    // Of text, code and tables, whole ranges of values are missing; of random bytes, hardly one.
    let missing = counts.iter().filter(|count| **count == 0).count();
    bits.into_iter().all(|share| EVEN.contains(&share) || bytes.len() < LOOK && (470..=530).contains(&share))
        && missing < 8
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ErrorKind;
    use crate::format::{Format, Options, open};

    fn with(mark: &Mark) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(mark.0).unwrap()];
        bytes.extend_from_slice(mark.1);
        bytes.resize(bytes.len().max(512) + 512, 0);
        bytes
    }

    #[test]
    fn what_is_not_read_is_refused_by_name() {
        for mark in UNREAD {
            let file: Arc<dyn ReadAt> = Arc::new(with(mark));
            let e = open(Arc::clone(&file), Options::default()).err().unwrap();
            assert_eq!((e.kind(), e.rule(), e.offset()), (ErrorKind::Unsupported, "container.format", Some(mark.0)));
            assert!(e.to_string().contains(mark.2), "{e}");
            let raw = open(file, Options { format: Some(Format::Raw), ..Options::default() }).unwrap();
            assert_eq!(raw.format, Format::Raw);
        }
    }

    #[test]
    fn a_disk_without_luks_is_named() {
        for mark in DISKS {
            let found = name(&with(mark)).unwrap();
            assert_eq!((found.name, found.at), (mark.2, mark.0));
        }
        let zeroes = name(&vec![0; 512]).unwrap();
        assert!(zeroes.name.contains("zeroes"));
        // xorshift: the same at each run.
        let mut state = 1u64;
        let mut noise = Vec::new();
        while noise.len() < LOOK {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
        }
        for len in [4096, LOOK] {
            assert!(name(&noise[..len].to_vec()).unwrap().name.contains("noise"), "{len}");
        }
        for page in [r#"{"itemNotFound": {"message": "Image not found.", "code": 404}}"#, "\n[{\"a\": [1]}]\n"] {
            assert!(name(&page.as_bytes().to_vec()).unwrap().name.contains("JSON"), "{page}");
        }
        assert_eq!(name(&b"{\"a\": ".to_vec()), None);
        let text = b"nothing that is known here; ".repeat(3000);
        assert_eq!(name(&text), None);
        assert_eq!(name(&Vec::<u8>::new()), None);
    }
}
