//! A backup of Cinder in a directory: whatever its description and its objects say.

use std::fs;
use std::path::Path;

use unluks::ReadAt;
use unluks::cinder::Tree;
use unluks::limits::CONTAINER_SIZE_MAX;
use unluks::progress::Progress;

const PREFIX: &str = "az_f_backup_aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee";

/// The next part: two bytes say how long it is, and the last may be cut off.
fn part<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = data.split_first_chunk::<2>()?;
    let (part, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*len).into()));
    *data = rest;
    Some(part)
}

/// A description, a list of hashes, and objects from `-00001` on, each with its length before it.
pub fn cinder(data: &[u8]) -> bool {
    static RUN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let run = RUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("unluks-fuzz-cinder-{}-{run}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    let accepted = in_dir(&dir, data);
    fs::remove_dir_all(&dir).unwrap();
    accepted
}

fn in_dir(dir: &Path, mut data: &[u8]) -> bool {
    let mut names =
        ["_metadata".to_owned(), "_sha256file".to_owned()].into_iter().chain((1..=8).map(|n| format!("-{n:05}")));
    while let Some((bytes, name)) = part(&mut data).and_then(|bytes| Some((bytes, names.next()?))) {
        fs::write(dir.join(format!("{PREFIX}{name}")), bytes).unwrap();
    }
    let Ok(tree) = Tree::open(dir) else { return false };
    assert!(tree.backups().iter().all(|backup| backup.problem.as_ref().is_none_or(|text| !text.contains('\n'))));
    let chosen = tree.choose(None).and_then(|backup| tree.chain(backup));
    let Ok(chain) = chosen.map_err(|e| super::check_error(&e)) else { return false };
    let len = chain.len();
    assert!(len > 0 && len <= CONTAINER_SIZE_MAX && chain.read_exact_at(&mut [0], len).is_err());
    let mut good = true;
    for at in [0, len / 2, len - 1, 0] {
        let mut once = vec![0; usize::try_from((len - at).min(5000)).unwrap()];
        let mut twice = once.clone();
        let read = chain.read_exact_at(&mut once, at);
        assert_eq!(read.is_ok(), chain.read_exact_at(&mut twice, at).is_ok());
        assert!(read.is_err() || once == twice);
        good &= read.is_ok();
    }
    // What its own hashes take is read in any case.
    let checked = len <= 1 << 20 && chain.check(&Progress::default()).is_ok();
    assert!(!checked || good);
    checked
}
