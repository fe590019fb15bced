//! The images of lists and folders.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use unluks::backup::DESCRIPTION;
use unluks::limits::VERIFY_LIST_MAX;
use unluks::{Error, Result};

use crate::source::{WithinFile, shown};

/// Endings of names in a folder that are of no image.
const NO_IMAGES: [&str; 12] =
    ["csv", "html", "json", "key", "log", "md", "minisig", "toml", "tsq", "tsr", "txt", "xml"];

/// All images, each once. A list has a path each line; it may be in UTF-8 or not. Of a folder, backups in it and all files
/// are images, but for hidden ones and those whose names end as no image's does.
pub fn expand(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut all = BTreeSet::new();
    for path in named {
        if path.join(DESCRIPTION).is_file() {
            all.insert(path.clone());
        } else if path.is_dir() {
            all.extend(in_folder(path)?);
        } else {
            all.extend(in_list(path)?);
        }
    }
    Ok(all.into_iter().collect())
}

fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("listing {}", shown(folder)), e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let ends_otherwise = path.extension().is_some_and(|ending| NO_IMAGES.iter().any(|no| ending == *no));
        let is_image = if path.is_dir() { path.join(DESCRIPTION).is_file() } else { !ends_otherwise };
        if is_image && !is_hidden {
            found.push(path);
        }
    }
    Ok(found)
}

fn in_list(list: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(format!("reading the list {}", shown(list)), e);
    let len = std::fs::metadata(list).map_err(failed)?.len();
    if len > VERIFY_LIST_MAX {
        let message =
            format!("it has {len} bytes; a list has at most {VERIFY_LIST_MAX}: --batch wants lists of images");
        return Err(Error::invalid(message).within_file(list));
    }
    let bytes = std::fs::read(list).map_err(failed)?;
    if bytes.contains(&0) {
        return Err(Error::invalid("it is no list: --batch wants lists of images, and folders").within_file(list));
    }
    let lines = bytes.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(lines.filter(|line| !line.is_empty()).map(|line| OsString::from_vec(line.to_vec()).into()).collect())
}
