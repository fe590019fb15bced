//! Arrays of md: whatever can be put together reads the same in any way, and within its bounds.
//!
//! An input is a byte of options, and then the members: a length, 32 bits and big-endian, and so many bytes of a file in
//! pieces, as containers have them. Checksums of superblocks are made right afterwards.

use std::sync::Arc;

use unluks::ReadAt;
use unluks::storage::md::{Array, AssembleOptions, Raid0Layout, Source, Superblock};

use super::containers::Pieces;
use super::{check_error, check_line, same_twice};

/// How much of an array is read, and how many extents are looked at: a mutated one may be as large as its members.
const READ_MAX: u64 = 1 << 18;
const EXTENTS: usize = 16;
const MEMBERS_MAX: usize = 8;

fn sum(bytes: &[u8]) -> [u8; 4] {
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, b| word << 8 | u64::from(*b));
    let sum: u64 = bytes.chunks(4).map(word).sum();
    ((sum as u32).wrapping_add((sum >> 32) as u32)).to_le_bytes()
}

fn fix(file: &mut Pieces) {
    let len = file.len();
    let places = [0, 4096, (len / 512).saturating_sub(16) / 8 * 4096];
    for at in places {
        let Some(max_dev) = file.get(at + 220, 4) else { continue };
        let roles = u32::from_le_bytes(max_dev.try_into().unwrap()).min(1920) as usize;
        file.fix(at, 256 + roles * 2, 216, sum);
    }
    if let Some(at) = (len / 65536).checked_sub(1) {
        // Of the other byte order too: a carry too many is no harm there.
        file.fix(at * 65536, 4096, 152, sum);
    }
}

fn members(mut input: &[u8]) -> Vec<Pieces> {
    let mut members = Vec::new();
    while let Some((len, rest)) = input.split_first_chunk::<4>() {
        let (bytes, rest) = rest.split_at((u32::from_be_bytes(*len) as usize).min(rest.len()));
        let mut file = Pieces::parse(bytes);
        fix(&mut file);
        members.push(file);
        input = rest;
        if members.len() == MEMBERS_MAX {
            break;
        }
    }
    members
}

pub(super) fn md(data: &[u8]) -> bool {
    let Some((flags, rest)) = data.split_first() else { return false };
    let members = members(rest);
    for member in &members {
        if let Some(Some(superblock)) = same_twice(|| Superblock::probe(member)) {
            superblock.notes.iter().for_each(|note| check_line(note));
        }
    }
    let options = AssembleOptions {
        raid0_layout: match flags & 3 {
            1 => Some(Raid0Layout::Original),
            2 => Some(Raid0Layout::Alternate),
            _ => None,
        },
        stale_parity: flags & 4 != 0,
    };
    let total: u64 = members.iter().map(ReadAt::len).sum();
    let sources =
        members.into_iter().enumerate().map(|(n, file)| Source { name: format!("m{n}"), disk: Arc::new(file) });
    let array = match Array::assemble(sources.collect(), &options) {
        Ok(array) => array,
        Err(e) => {
            check_error(&e);
            return false;
        }
    };
    check_line(&array.info().to_string());
    array.info().notes.iter().for_each(|note| check_line(note));
    let len = array.len();
    // No more than one other member can be made up for each that is there.
    assert!(len > 0 && len <= total.saturating_mul(MEMBERS_MAX as u64));
    for start in [0, len / 2, len.saturating_sub(READ_MAX)] {
        let mut buf = vec![0; READ_MAX.min(len - start) as usize];
        match array.read_exact_at(&mut buf, start) {
            Ok(()) => check_parts(&array, &buf, start),
            Err(e) => check_error(&e),
        }
    }
    check_error(&array.read_exact_at(&mut [0], len).unwrap_err());
    array.will_need(0, u64::MAX);
    array.wont_need(len / 2, len);
    true
}

/// Bytes read in other sizes are those of one long read, and what is said to be zero is.
fn check_parts(array: &Array, bytes: &[u8], start: u64) {
    let (mut at, mut size) = (0, 1);
    while at < bytes.len() {
        let mut part = vec![0; size.min(bytes.len() - at)];
        array.read_exact_at(&mut part, start + at as u64).unwrap();
        assert!(part == bytes[at..at + part.len()], "{} bytes from {at} on differ", part.len());
        at += part.len();
        size = size * 5 % 40_009 + 700;
    }
    let mut at = 0;
    for _ in 0..EXTENTS {
        if at >= bytes.len() {
            break;
        }
        let extent = array.extent_at(start + at as u64).unwrap();
        let end = bytes.len().min(at + extent.len as usize);
        assert!(extent.len > 0 && (!extent.zero || bytes[at..end].iter().all(|b| *b == 0)), "{extent:?} at {at}");
        at = end;
    }
}
