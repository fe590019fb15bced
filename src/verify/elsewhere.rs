//! Headers in a file of their own: a detached one, as the container was made, or a backup in place of one that is gone.

use super::report::{Finding, Severity};
use crate::error::counted;
use crate::image::Image;
use crate::io::ReadAt;
use crate::luks::recover;

/// How much of both is compared: all fields of LUKS1, and the first copy of LUKS2 up to its JSON.
const COMPARED: usize = 512;
/// What an offline reencryption leaves where the header was, which it keeps in its log.
const REENCRYPTED: &[u8] = b"LUKS\xde\xad";

/// What is to be said of it. With what is in the image alone, it does not open.
pub(super) fn finding(image: &Image) -> Option<Finding> {
    if !image.has_given_header() || image.is_unencrypted() || image.metadata().copies.is_empty() {
        return None;
    }
    let data_at = image.metadata().data_offset();
    let mut own = [0; COMPARED];
    let is_there = image.data().read_exact_at(&mut own, 0).is_ok();
    if own.starts_with(REENCRYPTED) {
        return None;
    }
    let (severity, code, message) = if data_at == 0 {
        let message = "the header is in a file of its own: without that file, nothing of the image can be read";
        (Severity::Note, "header.detached", message.to_owned())
    } else if !is_there || recover::open(&**image.data()).is_err() {
        let message = format!(
            "the image has no header of its own in the {} in front of its data: it opens only with the header that was given",
            counted(data_at, "byte")
        );
        (Severity::Warning, "header.missing", message)
    } else {
        let mut given = [0; COMPARED];
        let is_same = image.header().read_exact_at(&mut given, 0).is_ok() && given == own;
        if is_same {
            (Severity::Note, "header.given", "the header that was given begins as the image's own".to_owned())
        } else {
            let message = "the image has another header than the one that was given, which was not looked at";
            (Severity::Warning, "header.differs", message.to_owned())
        }
    };
    Some(Finding::new(severity, code, "header", message))
}
