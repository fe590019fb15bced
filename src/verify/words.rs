//! What a report says in words.

use super::report::{Coverage, FilesUsed, KeyUsed, Output, PackagesUsed};
use crate::error::{counted, escape};
use crate::image::Image;
use crate::luks::metadata::Role;

/// What lies on what.
pub fn layers(image: &Image) -> String {
    let names: Vec<String> =
        image.layers().iter().skip(1).map(|l| format!("{} {}", l.kind.name(), escape(&l.name))).collect();
    let own = if image.is_unencrypted() { "the file is the disk" } else { "the file is the container" };
    if names.is_empty() { own.into() } else { names.join(", ") }
}

/// Which copies of the header are good.
pub fn header(image: &Image) -> String {
    let metadata = image.metadata();
    if metadata.copies.is_empty() {
        return "none: whoever opened it says how it is encrypted".into();
    }
    let good: Vec<&str> = metadata
        .copies
        .iter()
        .filter(|copy| copy.error.is_none())
        .map(|copy| if copy.role == Role::Primary { "primary" } else { "secondary" })
        .collect();
    let place = if image.has_given_header() { ", in a file of its own" } else { "" };
    format!("LUKS{}, {} good{place}", metadata.version.number(), good.join(" and "))
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
pub fn statements(coverage: &Coverage, files: Option<&FilesUsed>, packages: Option<&PackagesUsed>) -> Vec<String> {
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
    if coverage.recorded_bytes > 0 {
        let bytes = coverage.recorded_bytes;
        all.push(format!(
            "{bytes} bytes in the container are the same as when it was made, by the hash that it keeps."
        ));
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
    if let Some(behind) = coverage.behind_bytes.filter(|bytes| *bytes > 0) {
        let data = match coverage.behind_data_bytes {
            Some(data) => format!("{data} of them are in blocks that are not zero"),
            None => "not all of them were read".to_owned(),
        };
        all.push(format!("Behind the end of file systems, in their volumes, are {behind} bytes more; {data}."));
    }
    all.extend(files.map(of_files));
    all.extend(packages.map(of_packages));
    let proven = [coverage.listed_bytes, coverage.package_bytes].into_iter().flatten().any(|bytes| bytes > 0);
    if !coverage.file_data_proven && proven {
        all.push(
            "The data of other files is not all under a checksum that was verified: a changed bit there may not show."
                .into(),
        );
    } else if !coverage.file_data_proven {
        all.push(
            "The data of files is not all under a checksum that was verified: a changed bit in a file may not show."
                .into(),
        );
    }
    all
}

/// What became of an output.
pub fn of_output(output: &Output) -> String {
    let path = escape(&output.path);
    if !output.read_back {
        return format!("The output {path} was read back, and is not what was decrypted.");
    }
    let made = match &output.stand_in {
        Some(what) => format!(", with {} bytes as {what} for what was not read", output.stand_in_bytes),
        None => String::new(),
    };
    format!("The output {path} was read back, and is what was decrypted{made}: that says nothing of the image.")
}

/// What a manifest came to.
fn of_files(used: &FilesUsed) -> String {
    let beside = match (used.not_listed, used.not_listed_bytes) {
        (Some(files), Some(bytes)) => {
            format!("it says nothing of {}, of {bytes} bytes", counted(files, "regular file"))
        }
        _ => "how many files it says nothing of is not known".to_owned(),
    };
    format!(
        "Of the {} of the manifest (SHA-256 {}), as it says: {}, of {} bytes; that differ: {}, are missing: {}, could not be \
         read: {}; {beside}.",
        counted(used.lines, "line"),
        used.sha256,
        used.matched,
        used.matched_bytes,
        used.differing,
        used.missing,
        used.unread
    )
}

/// What package databases came to.
fn of_packages(used: &PackagesUsed) -> String {
    let all = |of: fn(&super::report::Database) -> u64| used.databases.iter().map(of).fold(0, u64::saturating_add);
    let kinds: Vec<&str> = used.databases.iter().filter(|d| d.is_read).map(|d| d.kind.as_str()).collect();
    let beside = match (used.not_proven, used.not_proven_bytes) {
        (Some(files), Some(bytes)) => {
            format!("they prove nothing of {}, of {bytes} bytes", counted(files, "regular file"))
        }
        _ => "of how many files they prove nothing is not known".to_owned(),
    };
    if kinds.is_empty() {
        return "No package database in the contents was read.".into();
    }
    format!(
        "By the package databases in the contents ({}), as they were installed: {}, of {} bytes; changed configuration: {}; \
         others that differ: {}, are missing: {}, could not be read: {}; {beside}.",
        kinds.join(", "),
        counted(all(|d| d.matched), "file"),
        all(|d| d.matched_bytes),
        all(|d| d.changed_config),
        all(|d| d.differing),
        all(|d| d.missing),
        all(|d| d.unread)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::image::PlainOptions;

    #[test]
    fn what_has_no_header_has_no_copies_of_it() {
        let cipher = "aes-xts-plain64".to_owned();
        let options = PlainOptions { cipher, sector_size: 512, iv_offset: 0, offset: 0, size: None };
        let image = Image::plain(Arc::new(vec![0; 4096]), options);
        assert!(header(&image).starts_with("none: "));
    }
}
