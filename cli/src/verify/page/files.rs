//! What hashes of files came to, as rows of the page's table.

use unluks::error::{counted, visible};
use unluks::verify::Report;

/// A source of hashes, and how many files are as it says.
pub struct Row {
    pub source: String,
    pub matched: String,
    pub differing: String,
    pub missing: String,
    pub unread: String,
    pub beside: String,
}

/// A row for the manifest, and one for each package database.
pub fn rows(report: &Report) -> Vec<Row> {
    let beside = |files: Option<u64>, bytes: Option<u64>| match (files, bytes) {
        (Some(files), Some(bytes)) => format!("{}, {}", counted(files, "file"), counted(bytes, "byte")),
        _ => "unknown: not all directories could be gone through".into(),
    };
    let matched = |files: u64, bytes: u64| format!("{}, {}", counted(files, "file"), counted(bytes, "byte"));
    let mut rows = Vec::new();
    if let Some(used) = &report.files {
        rows.push(Row {
            source: visible(&format!("manifest, SHA-256 {}", used.sha256)),
            matched: matched(used.matched, used.matched_bytes),
            differing: used.differing.to_string(),
            missing: used.missing.to_string(),
            unread: used.unread.to_string(),
            beside: beside(used.not_listed, used.not_listed_bytes),
        });
    }
    let Some(used) = &report.packages else { return rows };
    for database in &used.databases {
        let state = if database.is_read { "" } else { ", not read" };
        let elsewhere = match database.elsewhere {
            0 => String::new(),
            files => format!("; {files} on other file systems"),
        };
        rows.push(Row {
            source: visible(&format!("{} in {}{state}", database.kind, database.path)),
            matched: matched(database.matched, database.matched_bytes),
            differing: format!("{}, and {} of configuration", database.differing, database.changed_config),
            missing: format!("{}{elsewhere}", database.missing),
            unread: database.unread.to_string(),
            beside: beside(used.not_proven, used.not_proven_bytes),
        });
    }
    rows
}
