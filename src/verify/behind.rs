//! The bytes behind a file system, in the volume that it lies in: none of its own, and no free room of it either. A volume is
//! often a little longer; what is not zero there is worth a look.

use std::ops::Range;
use std::sync::atomic::AtomicU64;

use super::report::{Finding, Severity};
use crate::inside::{Contents, Kind};

/// Such bytes, and what they are behind.
pub struct Behind {
    pub range: Range<u64>,
    /// What is in front of them.
    kind: Kind,
    /// Bytes of them in blocks that are not zero.
    pub data: AtomicU64,
}

impl Behind {
    fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }
}

/// Those of a disk of `len` bytes, and of its parts.
pub fn of(contents: &Contents, len: u64) -> Vec<Behind> {
    let mut all = Vec::new();
    add(contents, 0..len, &mut all);
    all
}

/// As deep as contents were looked at, which is bounded.
fn add(contents: &Contents, place: Range<u64>, all: &mut Vec<Behind>) {
    for part in &contents.parts {
        if let (Some(inner), Some(start)) = (&part.contents, part.start.and_then(|at| place.start.checked_add(at))) {
            add(inner, start..start.saturating_add(part.len).min(place.end), all);
        }
    }
    let end = contents.size().and_then(|size| place.start.checked_add(size)).filter(|end| *end < place.end);
    if let Some(end) = end.filter(|_| contents.parts.is_empty() && is_file_system(contents.kind)) {
        all.push(Behind { range: end..place.end, kind: contents.kind, data: AtomicU64::new(0) });
    }
}

/// Whether its own size is its end, rather than the least that it needs.
fn is_file_system(kind: Kind) -> bool {
    use Kind::{Btrfs, Exfat, Ext2, Ext3, Ext4, Fat12, Fat16, Fat32, Ntfs, Xfs};
    matches!(kind, Ext2 | Ext3 | Ext4 | Xfs | Btrfs | Fat12 | Fat16 | Fat32 | Exfat | Ntfs)
}

/// How many bytes there are in all.
pub fn bytes(all: &[Behind]) -> u64 {
    all.iter().map(Behind::len).fold(0, u64::saturating_add)
}

/// Those in which something is, as findings; and how many bytes are in blocks that are not zero.
pub fn findings(all: Vec<Behind>) -> (Vec<Finding>, u64) {
    let mut sum = 0u64;
    let mut findings = Vec::new();
    for behind in all {
        let (len, start) = (behind.len(), behind.range.start);
        let data = behind.data.into_inner();
        sum = sum.saturating_add(data);
        if data > 0 {
            let message = format!(
                "{len} bytes lie behind the end of the {}, from byte {start} of the plaintext on; {data} of them are in \
                 blocks that are not zero",
                behind.kind
            );
            let finding = Finding::new(Severity::Note, "contents.behind", "contents", message);
            findings.push(finding.at_plaintext(Some(start)));
        }
    }
    (findings, sum)
}
