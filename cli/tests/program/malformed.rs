//! The malformed images of testdata/malformed, and what their table says of them.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::common::{read_stored, testdata, text, unluks};

#[test]
fn each_is_not_restorable_for_what_is_wrong_with_it() {
    let folder = testdata().join("malformed");
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (image, key) = (text(&dir.path().join("image")), text(&dir.path().join("key")));
    fs::write(&key, "any").unwrap();
    let mut named = BTreeSet::from(["README.md".to_owned()]);
    for row in table.lines().filter(|line| line.contains(".img.gz |")) {
        let [_, name, _, code, _] = row.split('|').map(str::trim).collect::<Vec<_>>()[..] else { panic!("{row}") };
        fs::write(&image, read_stored(&format!("malformed/{name}"))).unwrap();
        let run = unluks(&["verify", &image, "--key-file", &key, "--json"]);
        assert_eq!(run.code, Some(4), "{name}: {}", run.stderr);
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let error = report["findings"].as_array().unwrap().iter().find(|f| f["severity"] == "error").unwrap();
        assert_eq!(format!("`{}`", error["code"].as_str().unwrap()), code, "{name}");
        named.insert(name.to_owned());
    }
    let there = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(named, there);
}
