//! Disks made of disks, byte for byte as a real kernel reads them.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used, clippy::as_conversions)]
#![cfg(feature = "unlock")]

mod inside;
mod lvm;
mod lvm_mutations;
mod md;

/// The tables of docs/storage.md are those of the lists beside the images: `table` makes them.
#[test]
fn the_documents_tables_are_those_of_the_lists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/storage.md")).unwrap();
    let list = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(root.join("testdata").join(name)).unwrap()).unwrap()
    };
    let has = |name: &str, words: &[&str]| {
        let row =
            |line: &&str| line.starts_with(&format!("| {name} |")) && words.iter().all(|word| line.contains(word));
        assert!(document.lines().any(|line| row(&line)), "{name}: no row with {words:?}");
    };
    let mut rows = 0;
    for (name, case) in list("md/md.json").as_object().unwrap() {
        let size = format!("| {} |", case["size"]);
        let read = case["refused"].as_str().unwrap_or_else(|| &case["sha256"].as_str().unwrap()[..16]);
        has(name, &[&size, read]);
        rows += 1;
    }
    for (name, case) in list("lvm/manifest.json").as_object().unwrap() {
        for (volume, is) in case["volumes"].as_object().unwrap() {
            let size = is["size"].as_u64().map_or_else(String::new, |size| size.to_string());
            has(name, &[&format!("| {volume} |"), &format!("| {size} |")]);
            rows += 1;
        }
    }
    let printed = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| array ")).count();
    assert_eq!(printed, rows + 1, "rows of cases that are no more");
}
