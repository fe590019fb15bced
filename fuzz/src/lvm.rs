//! LVM2: whatever assembles can be listed, opened and walked, within its bounds.
//!
//! The input is a file in pieces (see `containers.rs`), cut into devices of 8 MiB each; those that begin behind the file's
//! end are not there. Checksums are made right, so that a mutation gets past them.

use std::sync::Arc;

use unluks::ReadAt;
use unluks::io::Window;
use unluks::storage::lvm::{Label, VolumeGroup};

use super::containers::{Pieces, walk};
use super::{check_error, check_line};

const DEVICE: u64 = 8 << 20;
const SECTOR: u64 = 512;
/// How much text is looked at, to make its checksum right.
const TEXT_MAX: u64 = 64 << 10;
/// How many volumes are opened.
const VOLUMES: usize = 16;

/// LVM's checksum: CRC-32 that starts with a number of its own, and is not inverted at the end.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    (!hasher.finalize()).to_le_bytes()
}

/// Makes the checksums right of the label in sector 1, and of the metadata area behind it and its text.
fn fix_device(file: &mut Pieces, start: u64) {
    let area = start + 4096;
    let (size, offset, len) = (file.get_u64(area + 32), file.get_u64(area + 40), file.get_u64(area + 48));
    if let (Some(size), Some(offset), Some(len)) = (size, offset, len)
        && (SECTOR..size.min(DEVICE)).contains(&offset)
        && len <= TEXT_MAX
    {
        let first = len.min(size - offset);
        let text = file.get(area + offset, first as usize).zip(file.get(area + SECTOR, (len - first) as usize));
        if let Some((head, tail)) = text {
            file.put(area + 56, &checksum(&[head, tail].concat()));
        }
    }
    for (at, from) in [(area, 4), (start + SECTOR, 20)] {
        if let Some(bytes) = file.get(at, SECTOR as usize) {
            file.put(at + from - 4, &checksum(&bytes[from as usize..]));
        }
    }
}

/// Makes the checksums right of what looks like dm-thin's blocks.
fn fix_thin(file: &mut Pieces, start: u64) {
    for at in (start + 65_536..(start + DEVICE).min(file.len())).step_by(4096) {
        let Some(block) = file.get(at, 4096).filter(|block| block[..40].iter().any(|b| *b != 0)) else { continue };
        let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        let salt = match (word(32), word(4), word(24)) {
            (27_022_010, ..) => 160_774,
            (_, 1 | 2, 8 | 24) => 121_107,
            _ => continue,
        };
        file.put(at, &(!crc32c::crc32c(&block[4..]) ^ salt).to_le_bytes());
    }
}

pub(super) fn lvm(data: &[u8]) -> bool {
    let mut file = Pieces::parse(data);
    let count = file.len().div_ceil(DEVICE).min(4);
    for n in 0..count {
        fix_device(&mut file, n * DEVICE);
        fix_thin(&mut file, n * DEVICE);
    }
    let file = Arc::new(file);
    let mut devices: Vec<Arc<dyn ReadAt>> = Vec::new();
    for n in 0..count {
        let len = DEVICE.min(file.len() - n * DEVICE);
        let device = Window::new(Arc::clone(&file), n * DEVICE, Some(len)).unwrap();
        if let Ok(Some(label)) = Label::probe(&device).inspect_err(check_error) {
            label.notes.iter().for_each(|note| check_line(note));
        }
        devices.push(Arc::new(device));
    }
    let Ok(group) = VolumeGroup::assemble(devices).inspect_err(check_error) else { return false };
    group.notes.iter().for_each(|note| check_line(note));
    group.physical.iter().for_each(|pv| check_line(&pv.to_string()));
    let _ = group.old_versions().inspect_err(check_error);
    let _ = group.find("no such volume").inspect_err(check_error);
    let mut found = false;
    for volume in group.volumes.iter().take(VOLUMES) {
        check_line(&volume.to_string());
        let Ok(opened) = group.open(volume).inspect_err(check_error) else { continue };
        opened.notes().iter().for_each(|note| check_line(note));
        assert_eq!(opened.len(), volume.size);
        found |= volume.is_visible && walk(&opened).inspect_err(check_error).is_ok();
    }
    found
}
