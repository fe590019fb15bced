//! NTFS: the attributes of a record, and the clusters that they have.
//!
//! | bytes of an attribute | field | where its value is in runs | field |
//! |---|---|---|---|
//! | 0, 4 | type, length | 16, 24 | first and last cluster of it |
//! | 8 | 1 where its value is in runs | 32, 48 | place of the runs; bytes of its value |
//! | 9, 10 | units of its name, place of it | 16, 20 otherwise | length and place of its value |
//!
//! A run is a byte with two lengths, then the number of clusters and the distance from the run before it, which is left out
//! where there is a hole. The source is the Linux-NTFS project's documentation and Linux's `fs/ntfs3/run.c`.

use crate::inside::look::{field, le16, le32};
use crate::num::from_u32;

/// Clusters that follow each other; where `start` is `None`, a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub start: Option<u64>,
    pub len: u64,
}

/// The attributes of a record, up to one that cannot be one: its type and its bytes.
pub(super) fn attributes(record: &[u8]) -> (Vec<(u32, &[u8])>, bool) {
    let mut at = usize::from(le16(record, 20));
    let used = from_u32(le32(record, 24)).min(record.len());
    let mut found = Vec::new();
    // Each takes at least 16 of 4096 bytes.
    while let Some(rest) = record.get(at..used).filter(|rest| rest.len() >= 4) {
        let kind = le32(rest, 0);
        if kind == u32::MAX {
            return (found, true);
        }
        let len = from_u32(le32(rest, 4));
        let Some(attribute) = rest.get(..len).filter(|_| len >= 24 && len.is_multiple_of(8)) else { break };
        found.push((kind, attribute));
        at = at.saturating_add(len);
    }
    (found, false)
}

/// The runs of an attribute that has some; `None` where they cannot be.
pub(super) fn runs(attribute: &[u8]) -> Option<Vec<Run>> {
    let mut rest = attribute.get(usize::from(le16(attribute, 32))..)?;
    let (mut runs, mut last) = (Vec::new(), 0i64);
    while let Some((head, behind)) = rest.split_first().filter(|(head, _)| **head != 0) {
        let (len_len, start_len) = (usize::from(head & 0xf), usize::from(head >> 4));
        let (len, behind) = behind.split_at_checked(len_len)?;
        let (start, behind) = behind.split_at_checked(start_len)?;
        let len = u64::try_from(number(len)?).ok().filter(|len| *len > 0)?;
        let start = if start.is_empty() {
            None
        } else {
            last = last.checked_add(number(start)?)?;
            Some(u64::try_from(last).ok()?)
        };
        runs.push(Run { start, len });
        rest = behind;
    }
    Some(runs)
}

/// A signed number of up to eight bytes.
fn number(bytes: &[u8]) -> Option<i64> {
    let sign = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if sign { 0xff } else { 0 }; 8];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(all))
}

/// Whether the value of an attribute is in runs.
pub(super) fn is_in_runs(attribute: &[u8]) -> bool {
    field(attribute, 8) == [1]
}

/// The value of an attribute that is in its record.
pub(super) fn value(attribute: &[u8]) -> Option<&[u8]> {
    let (len, start) = (from_u32(le32(attribute, 16)), usize::from(le16(attribute, 20)));
    attribute.get(start..start.checked_add(len)?).filter(|_| !is_in_runs(attribute))
}

/// Whether an attribute is of the index of names, which is called `$I30`.
pub(super) fn is_of_names(attribute: &[u8]) -> bool {
    let [len] = field::<1>(attribute, 9);
    let start = usize::from(le16(attribute, 10));
    len == 4 && attribute.get(start..start.saturating_add(8)) == Some(b"$\0I\x003\x000\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_read_with_their_signs_and_holes() {
        let mut attribute = vec![0; 64];
        attribute[32] = 40;
        attribute[40..53]
            .copy_from_slice(&[0x21, 0x18, 0x34, 0x56, 0x11, 0x05, 0xf0, 0x01, 0x07, 0x12, 0x00, 0x01, 0x10]);
        let found = runs(&attribute).unwrap();
        let run = |start, len| Run { start, len };
        assert_eq!(found[..3], [run(Some(0x5634), 0x18), run(Some(0x5624), 5), run(None, 7)]);
        assert_eq!(found[3], run(Some(0x5634), 256));
        assert_eq!(number(&[0x80]), Some(-128));
    }
}
