//! What the two copies of a LUKS2 header say differently. After a clean write they differ in magic, salt, `hdr_offset`
//! and checksum alone, which say nothing; all else that differs is shown.

use std::collections::BTreeSet;

use serde_json::Value;

use super::metadata::{Difference, HeaderCopy};
use crate::error::escape;

/// So many differences are listed; copies that differ in more have nothing in common.
const MOST: usize = 64;

/// The differences between the binary headers, as far as both could be read, and between two good JSON areas.
pub fn differences(primary: &HeaderCopy, secondary: &HeaderCopy, json: Option<(&Value, &Value)>) -> Vec<Difference> {
    let mut all = Vec::new();
    let mut field = |name: &str, p: String, s: String| {
        if p != s {
            all.push(Difference { field: name.into(), primary: Some(p), secondary: Some(s) });
        }
    };
    if let (Some(p), Some(s)) = (primary.seqid, secondary.seqid) {
        field("seqid", p.to_string(), s.to_string());
        field("uuid", escape(&primary.uuid), escape(&secondary.uuid));
        field("label", escape(&primary.label), escape(&secondary.label));
        field("subsystem", escape(&primary.subsystem), escape(&secondary.subsystem));
        field("checksum_alg", escape(&primary.csum_alg), escape(&secondary.csum_alg));
    }
    if let (Some(p), Some(s)) = (primary.hdr_size, secondary.hdr_size) {
        field("hdr_size", p.to_string(), s.to_string());
    }
    if let Some((p, s)) = json {
        values("", Some(p), Some(s), &mut all);
    }
    all.truncate(MOST);
    all
}

/// Compares two values at `path`. The depth is that of the JSON area, which is capped.
fn values(path: &str, primary: Option<&Value>, secondary: Option<&Value>, all: &mut Vec<Difference>) {
    if primary == secondary || all.len() >= MOST {
        return;
    }
    if let (Some(Value::Object(p)), Some(Value::Object(s))) = (primary, secondary) {
        let keys: BTreeSet<_> = p.keys().chain(s.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { escape(key) } else { format!("{path}.{}", escape(key)) };
            values(&path, p.get(key), s.get(key), all);
        }
        return;
    }
    let shown = |v: Option<&Value>| v.map(|v| escape(&v.to_string()));
    all.push(Difference { field: path.to_owned(), primary: shown(primary), secondary: shown(secondary) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::luks::metadata::Role;

    fn copy(role: Role, seqid: u64) -> HeaderCopy {
        HeaderCopy {
            role,
            offset: 0,
            seqid: Some(seqid),
            hdr_size: Some(16384),
            uuid: "u".into(),
            label: String::new(),
            subsystem: String::new(),
            csum_alg: "sha256".into(),
            salt: Vec::new(),
            error: None,
            used: false,
            repaired: false,
        }
    }

    #[test]
    fn each_difference_has_its_path_and_both_values() {
        let p = serde_json::json!({"keyslots": {"0": {"kdf": {"time": 4}}, "1": {}}, "tokens": {}});
        let s = serde_json::json!({"keyslots": {"0": {"kdf": {"time": 5}}}, "tokens": {}});
        let mut secondary = copy(Role::Secondary, 8);
        secondary.label = "\u{1b}[2J".into();
        let found = differences(&copy(Role::Primary, 7), &secondary, Some((&p, &s)));
        let shown: Vec<_> =
            found.iter().map(|d| (d.field.as_str(), d.primary.as_deref(), d.secondary.as_deref())).collect();
        let expected = [
            ("seqid", Some("7"), Some("8")),
            ("label", Some(""), Some("\\u{1b}[2J")),
            ("keyslots.0.kdf.time", Some("4"), Some("5")),
            ("keyslots.1", Some("{}"), None),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn equal_copies_differ_in_nothing_and_unlike_ones_are_capped() {
        assert_eq!(differences(&copy(Role::Primary, 7), &copy(Role::Secondary, 7), None), []);
        let many: serde_json::Map<_, _> = (0..1000).map(|n| (n.to_string(), Value::Null)).collect();
        let empty = Value::Object(serde_json::Map::new());
        let found =
            differences(&copy(Role::Primary, 7), &copy(Role::Secondary, 7), Some((&Value::Object(many), &empty)));
        assert_eq!(found.len(), MOST);
    }

    #[test]
    fn a_copy_that_could_not_be_read_is_not_compared() {
        let mut gone = copy(Role::Secondary, 0);
        (gone.seqid, gone.hdr_size, gone.uuid) = (None, None, String::new());
        assert_eq!(differences(&copy(Role::Primary, 7), &gone, None), []);
    }
}
