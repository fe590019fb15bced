//! ISO 9660: the primary volume descriptor, whose numbers stand there in both orders of bytes.
//!
//! | bytes | field | bytes | field |
//! |---|---|---|---|
//! | 0, 1, 6 | type 1, `CD001`, version 1 | 128 | logical block size |
//! | 40..72 | volume identifier | 132 | path table size |
//! | 80 | volume space size, in blocks | 140, 148 | path tables: little-endian, big-endian |
//! | 120, 124 | volume set size, sequence number | 813, 830 | created, modified: 17 bytes |
//!
//! The descriptors begin at byte 32768, 2048 bytes each, and end with type 255. One of type 2 with an escape sequence is
//! Joliet's, and has a label in UTF-16. The source is ECMA-119; the UUID is `blkid`'s, made of the time of modification.

use super::look::{Look, be16, be32, field, le16, le32, text, text16};
use super::{Contents, Kind, Severity, State};
use crate::num::to_u64;

const FIRST: u64 = 32768;
const SECTOR: usize = 2048;
/// No disc has more descriptors than some.
const DESCRIPTORS_MAX: u64 = 16;
const JOLIET: [&[u8]; 3] = [b"%/@", b"%/C", b"%/E"];

fn descriptor(look: &Look<'_>, n: u64) -> Option<Vec<u8>> {
    let at = n.checked_mul(to_u64(SECTOR))?.checked_add(FIRST)?;
    look.bytes(at, SECTOR).filter(|bytes| bytes.get(1..6) == Some(b"CD001"))
}

fn primary(look: &Look<'_>) -> Option<Vec<u8>> {
    let bytes = descriptor(look, 0)?;
    let block = [u64::from(le16(&bytes, 128)), u64::from(be16(&bytes, 130))];
    let sane = bytes.starts_with(&[1]) && block.iter().any(|block| matches!(block, 512 | 1024 | 2048));
    sane.then_some(bytes)
}

fn block_size(bytes: &[u8]) -> u64 {
    u64::from(match le16(bytes, 128) {
        block @ (512 | 1024 | 2048) => block,
        _ => be16(bytes, 130),
    })
}

pub(super) fn probe(look: &Look<'_>) -> Option<Contents> {
    let bytes = primary(look)?;
    let mut contents = Contents::new(Kind::Iso9660, look);
    let own = bytes.get(40..72).and_then(text);
    contents.label = match joliet(look) {
        // Joliet's has half the room.
        Some(joliet) if own.as_ref().is_none_or(|own| !own.starts_with(&joliet)) => Some(joliet),
        _ => own,
    };
    contents.uuid = [830, 813].into_iter().find_map(|at| date(&bytes, at));
    contents.block_size = Some(block_size(&bytes));
    let blocks = [le32(&bytes, 80), be32(&bytes, 84)];
    // Where the two differ, neither is a witness.
    contents.size = (blocks[0] == blocks[1]).then(|| u64::from(blocks[0]).saturating_mul(block_size(&bytes)));
    contents.state = State::Clean;
    Some(contents)
}

fn joliet(look: &Look<'_>) -> Option<String> {
    let all = (1..DESCRIPTORS_MAX).map_while(|n| descriptor(look, n).filter(|bytes| !bytes.starts_with(&[255])));
    let is_joliet =
        |bytes: &Vec<u8>| bytes.starts_with(&[2]) && bytes.get(88..91).is_some_and(|escape| JOLIET.contains(&escape));
    let bytes = all.into_iter().find(is_joliet)?;
    text16(bytes.get(40..72)?, u16::from_be_bytes)
}

/// A date of 16 digits, as a UUID.
fn date(bytes: &[u8], at: usize) -> Option<String> {
    let digits: [u8; 16] = field(bytes, at);
    if digits.iter().all(|d| *d == b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = |from: usize, to: usize| String::from_utf8_lossy(digits.get(from..to).unwrap_or_default()).into_owned();
    let parts = [text(0, 4), text(4, 6), text(6, 8), text(8, 10), text(10, 12), text(12, 14), text(14, 16)];
    Some(parts.join("-"))
}

pub(super) fn check(look: &Look<'_>, contents: &mut Contents) {
    let Some(bytes) = primary(look) else { return };
    let number16 = |at: usize| [u32::from(le16(&bytes, at)), u32::from(be16(&bytes, at.saturating_add(2)))];
    let number32 = |at: usize| [le32(&bytes, at), be32(&bytes, at.saturating_add(4))];
    let fields = [
        ("volume space size", 80, number32(80)),
        ("volume set size", 120, number16(120)),
        ("volume sequence number", 124, number16(124)),
        ("logical block size", 128, number16(128)),
        ("path table size", 132, number32(132)),
    ];
    for (name, at, [little, big]) in fields {
        if little != big {
            let structure = (name.to_owned(), FIRST.saturating_add(at));
            let found = format!("{little} in little-endian and {big} in big-endian");
            contents.find(Severity::Error, "contents.iso9660.both-endian", structure, found, "the same is wanted");
        }
    }
    for (name, block) in
        [("the little-endian path table", le32(&bytes, 140)), ("the big-endian path table", be32(&bytes, 148))]
    {
        let at = u64::from(block).saturating_mul(block_size(&bytes));
        let end = at.saturating_add(u64::from(le32(&bytes, 132)));
        if let Some(size) = contents.size.filter(|size| end > *size || block == 0) {
            let expected = format!("the volume has {size} bytes");
            let found = format!("bytes {at} to {end}");
            contents.find(Severity::Error, "contents.iso9660.path-table", (name, FIRST), found, expected);
        }
    }
}
