//! What a report says in words.

use super::report::{Coverage, KeyUsed};
use crate::error::escape;
use crate::image::Image;
use crate::luks::metadata::{Metadata, Role};

/// What lies on what.
pub fn layers(image: &Image) -> String {
    let names: Vec<String> =
        image.layers().iter().skip(1).map(|l| format!("{} {}", l.kind.name(), escape(&l.name))).collect();
    if names.is_empty() { "the file is the container".into() } else { names.join(", ") }
}

/// Which copies of the header are good.
pub fn header(metadata: &Metadata) -> String {
    let good: Vec<&str> = metadata
        .copies
        .iter()
        .filter(|copy| copy.error.is_none())
        .map(|copy| if copy.role == Role::Primary { "primary" } else { "secondary" })
        .collect();
    format!("LUKS{}, {} good", metadata.version.number(), good.join(" and "))
}

/// What opened it.
pub fn keyslots(key: &KeyUsed) -> String {
    let numbers: Vec<String> = key.keyslots.iter().map(ToString::to_string).collect();
    if numbers.is_empty() {
        return "the volume key was given".into();
    }
    let form = key.forms.first().map_or(String::new(), |form| format!(" ({form})"));
    format!("opens keyslot {}{form}", numbers.join(", "))
}

/// What was proven, and what was not.
pub fn statements(coverage: &Coverage) -> Vec<String> {
    let mut all = Vec::new();
    let read = coverage.read_bytes;
    match coverage.authenticated_bytes {
        0 => all.push("No byte of the plaintext is under a tag of dm-integrity.".to_owned()),
        bytes => {
            all.push(format!("{bytes} of {read} bytes of plaintext are under a tag of dm-integrity that is right."))
        }
    }
    if coverage.hashed_bytes > 0 {
        all.push(format!("{} bytes of the image are the same as when their hash was recorded.", coverage.hashed_bytes));
    } else {
        all.push("The image was not compared with a recorded hash.".into());
    }
    if coverage.compared_bytes > 0 {
        all.push(format!(
            "{} of {read} bytes of plaintext are the same as in an earlier one.",
            coverage.compared_bytes
        ));
    }
    if coverage.contents == "quick" {
        all.push("Of the contents, the structures at their roots were checked, and no others.".into());
    }
    if let (Some(proven), Some(unchecked), Some(free)) =
        (coverage.checksummed_bytes, coverage.unchecked_bytes, coverage.free_bytes)
    {
        let used = proven.saturating_add(unchecked);
        let percent = |part: u64| {
            let tenths = u128::from(part).saturating_mul(1000).checked_div(used.into()).unwrap_or(0);
            format!("{}.{} %", tenths / 10, tenths % 10)
        };
        all.push(format!(
            "Of the {used} bytes that the contents use, {proven} ({}) are under a checksum of theirs that is right, and \
             {unchecked} ({}) under none; {free} are free.",
            percent(proven),
            percent(unchecked)
        ));
    } else if coverage.contents == "full" {
        all.push("Of the contents, not all structures were checked: what kind they are has no full check.".into());
    }
    if !coverage.file_data_proven {
        all.push(
            "The data of files is under no checksum that was verified: a changed bit in a file would not show.".into(),
        );
    }
    all
}
