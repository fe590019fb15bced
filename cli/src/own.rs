//! The program that runs: where its file is, what that is, and what was built into it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// The file that runs, also where its name is another file's by now.
const RUNNING: &str = "/proc/self/exe";

/// Where the file of this program is. Without /proc, as in an empty chroot, it is what it was called by.
pub fn path() -> io::Result<PathBuf> {
    if Path::new(RUNNING).exists() {
        return Ok(RUNNING.into());
    }
    std::env::current_exe().or_else(|e| called().ok_or(e))
}

fn called() -> Option<PathBuf> {
    let name = PathBuf::from(std::env::args_os().next()?);
    if name.components().count() > 1 {
        return name.is_file().then(|| std::path::absolute(name).ok())?;
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|file| file.is_absolute() && file.is_file())
}

/// SHA-256 of its file, in hex: it says which build it is, whatever its version says.
pub fn hash() -> io::Result<String> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash.clone());
    }
    let mut file = File::open(path()?)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    Ok(HASH.get_or_init(|| hex::encode(hash.finalize())).clone())
}

/// The features that were built into it.
pub fn features() -> impl Iterator<Item = &'static str> {
    let all = [
        ("files", cfg!(feature = "files")),
        ("mount", cfg!(feature = "mount")),
        ("nbd", cfg!(feature = "nbd")),
        ("openstack", cfg!(feature = "openstack")),
    ];
    all.into_iter().filter(|(_, is_there)| *is_there).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn without_proc_it_is_what_it_was_called_by() {
        let inode = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).unwrap();
        assert_eq!(inode(&called().unwrap()), inode(&path().unwrap()));
    }
}
