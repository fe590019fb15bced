//! What a plaintext is: whatever is recognised can be said in one line each, with the same result twice.
//!
//! The input is a file in pieces (see `containers.rs`). The checksums of the superblocks of ext4, XFS and btrfs are made
//! right, so that a mutation gets past them.

use std::sync::Arc;

use unluks::inside::{Contents, Coverage, Severity};
use unluks::progress::Progress;
use unluks::{ReadAt, Result};

use super::containers::Pieces;
use super::{check_error, check_line};

/// Makes the checksums of superblocks right.
fn seal(disk: &mut Pieces) {
    if disk.get(1024 + 0x38, 2).is_some_and(|magic| magic == [0x53, 0xef]) {
        disk.fix(1024, 1024, 0x3fc, |bytes| (!crc32c::crc32c(&bytes[..0x3fc])).to_le_bytes());
    }
    if disk.get(0, 4).is_some_and(|magic| magic == b"XFSB") {
        disk.fix(0, 512, 224, |bytes| crc32c::crc32c(bytes).to_le_bytes());
    }
    if disk.get(65536 + 0x40, 8).is_some_and(|magic| magic == b"_BHRfS_M") {
        disk.fix(65536, 4096, 0, |bytes| crc32c::crc32c(&bytes[32..]).to_le_bytes());
    }
}

pub(super) fn inside(data: &[u8]) -> bool {
    let mut disk = Pieces::parse(data);
    seal(&mut disk);
    let disk: Arc<dyn ReadAt> = Arc::new(disk);
    let probe = || -> Result<Contents> { Contents::probe(Arc::clone(&disk)) };
    let Ok(contents) = probe().inspect_err(check_error) else { return false };
    assert_eq!(contents, probe().unwrap());
    if let Ok(full) = Contents::check(Arc::clone(&disk), &Progress::default()).inspect_err(check_error) {
        let sum = |c: Coverage| c.verified.checked_add(c.used_without_checksum).and_then(|sum| sum.checked_add(c.free));
        let parts = full.parts.is_empty();
        assert!(full.coverage().is_none_or(|c| !parts || sum(c) == Some(disk.len())));
        full.all_findings().iter().for_each(|finding| check_line(&finding.to_string()));
    }
    let _ = Contents::probe_start(Arc::clone(&disk), 64 << 10).inspect_err(check_error);
    check_line(&contents.to_string());
    contents.all_findings().iter().for_each(|finding| check_line(&finding.to_string()));
    let fits = contents.fits(disk.len()).inspect_err(check_error).is_ok();
    contents.is_known() && fits && contents.all_findings().iter().all(|f| f.severity < Severity::Error)
}
