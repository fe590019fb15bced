//! What files in an image are held against: a manifest from its file, and a reader that runs in a process of its own.

use std::path::Path;
use std::sync::Arc;

use unluks::limits::VERIFY_MANIFEST_MAX;
use unluks::reader::FileSystem;
use unluks::verify::{FileProof, Manifest};
use unluks::{Error, Result};

use crate::args::verify::ProofArgs;
use crate::reader::Reader;
use crate::source::{WithinFile, shown};

/// Reads what was named; `None` where nothing was asked of files.
pub fn load(args: &ProofArgs) -> Result<Option<FileProof>> {
    let manifest = args.manifest().map(read).transpose()?.map(Arc::new);
    if manifest.is_none() && !args.is_by_packages() {
        return Ok(None);
    }
    let open = |disk, kind| -> Result<Box<dyn FileSystem>> { Ok(Box::new(Reader::open(disk, kind)?)) };
    Ok(Some(FileProof { open: Arc::new(open), manifest, packages: args.is_by_packages() }))
}

fn read(path: &Path) -> Result<Manifest> {
    let failed = |e| Error::io(format!("reading the manifest {}", shown(path)), e);
    let len = std::fs::metadata(path).map_err(failed)?.len();
    if len > VERIFY_MANIFEST_MAX {
        let message = format!("it has {len} bytes; a manifest has at most {VERIFY_MANIFEST_MAX}");
        return Err(Error::invalid(message).within_file(path));
    }
    let text = std::fs::read(path).map_err(failed)?;
    Manifest::parse(&text).map_err(|e| e.within_file(path))
}
