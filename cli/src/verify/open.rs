//! The image that is to be verified: with its header, or as it is, where it is not encrypted.

use std::path::Path;
use std::sync::Arc;

use unluks::error::{Condition, Hint};
use unluks::inside::Contents;
use unluks::volume::VolumeOptions;
use unluks::{ReadAt, Result};

use crate::args::verify::VerifyArgs;
use crate::contents::is_key_given;
use crate::open::Opened;

/// Opens an image. Without a LUKS header it is taken as it is only where something is recognised in it, and nothing says
/// that it was encrypted: a key, a header, or the backup that it is in.
pub fn open(args: &VerifyArgs, path: &Path) -> Result<Opened> {
    let no_header = match Opened::open(&mut args.source(path)) {
        Err(e) if e.is(Condition::NoHeader) => e,
        other => return other,
    };
    let Some(opened) = as_it_is(args, path) else { return Err(no_header) };
    if is_key_given(&args.key) || args.header.is_some() {
        let also = "without a key and a header it is verified as it is, not encrypted";
        let hints: Vec<Hint> = no_header.hint().cloned().into_iter().chain([also.into()]).collect();
        return Err(no_header.with_hint(Hint::All(hints)));
    }
    Ok(opened)
}

/// What is not encrypted, where it is something that is known.
fn as_it_is(args: &VerifyArgs, path: &Path) -> Option<Opened> {
    let mut source = args.source(path);
    source.header = None;
    let opened = Opened::open_unencrypted(&mut source).ok()?;
    if opened.backup.as_ref().is_some_and(|backup| backup.is_encrypted()) {
        return None;
    }
    let volume = opened.image.unlock_unencrypted()?.volume(VolumeOptions::default()).ok()?;
    let disk: Arc<dyn ReadAt> = Arc::new(volume);
    Contents::probe(disk).ok()?.is_known().then_some(opened)
}
