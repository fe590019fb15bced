//! Whether an output can be made where it shall be, as far as that shows before it is made.

use std::path::Path;

use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Condition, Error, Hint, Result, shown};
use crate::files::folder;

/// The free bytes of the file system that a folder is on, where it says.
pub fn free(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    // Root may use what is held back for it.
    let blocks = if rustix::process::geteuid().is_root() { stat.f_bfree } else { stat.f_bavail };
    // A file system without blocks does not know.
    blocks.checked_mul(stat.f_frsize).filter(|_| stat.f_blocks > 0)
}

/// Refuses an output whose folder is not there, or in which no file can be made.
pub fn check_folder(output: &Path) -> Result<()> {
    let folder = folder(output);
    let refuse = |what: &str, e: std::io::Error| {
        Error::io(format!("the folder {} of the output {what}", shown(folder)), e).with_condition(Condition::Output)
    };
    let meta = std::fs::metadata(folder).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => refuse("does not exist", e),
        std::io::ErrorKind::NotADirectory => refuse("is in a file, which is no folder", e),
        _ => refuse("cannot be looked at", e),
    })?;
    if !meta.is_dir() {
        return Err(refuse("is no folder", Errno::NOTDIR.into()));
    }
    let how = Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::accessat(rustix::fs::CWD, folder, how, rustix::fs::AtFlags::EACCESS) {
        Err(Errno::ACCESS) => Err(refuse("does not let you make a file in it", Errno::ACCESS.into())),
        Err(Errno::ROFS) => Err(refuse("is on a file system that is read-only", Errno::ROFS.into())),
        // What else there may be to say, making the file says.
        _ => Ok(()),
    }
}

/// Refuses an output of `len` bytes above the limit on a file's size.
pub fn check_size(output: &Path, len: u64) -> Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < len => {
            let message = format!("{} needs {len} bytes, and a file may have {limit} (ulimit -f)", shown(output));
            Err(Error::io(message, Errno::FBIG.into()).with_condition(Condition::Output))
        }
        _ => Ok(()),
    }
}

/// Refuses an output of `len` bytes that has no room. One that may be sparse may need less: then that is a note.
pub fn check_free(output: &Path, len: u64, may_be_sparse: bool) -> Result<Option<String>> {
    let Some(free) = free(folder(output)).filter(|free| *free < len) else { return Ok(None) };
    let message = format!("{} has {len} bytes, and its file system has {free} left", shown(output));
    if may_be_sparse {
        return Ok(Some(format!("{message}: it fits only as far as its plaintext is zeroes")));
    }
    Err(Error::io(message, Errno::NOSPC.into()).with_hint(Hint::Sparse).with_condition(Condition::Output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_said_before_it_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        check_folder(&dir.path().join("out")).unwrap();
        let said = check_folder(&dir.path().join("nowhere/out")).unwrap_err().to_string();
        assert!(said.contains("nowhere of the output does not exist"), "{said}");
        std::fs::write(dir.path().join("file"), "").unwrap();
        let said = check_folder(&dir.path().join("file/out")).unwrap_err().to_string();
        assert!(said.contains("is no folder"), "{said}");
        let out = dir.path().join("out");
        assert!(check_free(&out, 1, false).unwrap().is_none());
        let said = check_free(&out, u64::MAX, false).unwrap_err().to_string();
        assert!(said.contains("left") && said.contains("out"), "{said}");
        assert!(check_free(&out, u64::MAX, true).unwrap().unwrap().contains("zeroes"));
    }
}
