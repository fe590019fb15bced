//! Reading a header takes little stack: a thread of a program that links the library may have 64 KiB and no more.

#![cfg(feature = "unlock")]
#![allow(clippy::unwrap_used)] // What does not go as it should fails the test.

mod common;

use std::sync::Arc;

use common::{golden_names, read_stored, sidecar};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use unluks::luks::data::DataFile;
use unluks::luks::{area, findings::findings};
use unluks::volume::integrity_findings;

/// All that `inspect` asks the library, on a stack of 64 KiB: one that overflows ends the test with a signal.
fn inspect(header: Arc<Vec<u8>>, data: Arc<Vec<u8>>) -> bool {
    let work = move || {
        let Ok(metadata) = unluks::open(&*header) else { return false };
        let len = u64::try_from(data.len()).ok();
        let _ = findings(&metadata, Some(DataFile { len, detached: !Arc::ptr_eq(&header, &data) }));
        let _ = area::findings(&*header, &metadata);
        let _ = integrity_findings(&metadata, &*data);
        true
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join().unwrap()
}

#[test]
fn a_small_stack_is_enough_for_the_golden_headers() {
    let mut opened = 0;
    for name in golden_names() {
        let sidecar = sidecar(&name);
        let file = |key: &str| sidecar[key].as_str().map(|file| Arc::new(read_stored(file)));
        let image = file("image").unwrap();
        opened += usize::from(inspect(file("header").unwrap_or_else(|| Arc::clone(&image)), image));
    }
    assert!(opened > 100, "{opened}");
}

/// The deepest JSON that is read, in a token, where nothing looks into it; and one that is as deep in its errors.
#[test]
fn a_small_stack_is_enough_for_deep_json() {
    const COPY: usize = 0x4000;
    let base = include_bytes!("../fuzz/images/luks2-pbkdf2.img");
    let text = base[4096..COPY].split(|b| *b == 0).next().unwrap();
    for depth in [25, 40] {
        let mut metadata: Value = serde_json::from_slice(text).unwrap();
        let deep = (0..depth).fold(json!({}), |inner, _| json!({ "a": [inner] })["a"].take());
        metadata["tokens"] = json!({"0": {"type": "t", "keyslots": [], "deep": deep}});
        let mut image = base.to_vec();
        image.resize(2 << 20, 0);
        let json = metadata.to_string();
        for (n, copy) in image[..2 * COPY].chunks_exact_mut(COPY).enumerate() {
            copy[4096..].fill(0);
            copy[4096..][..json.len()].copy_from_slice(json.as_bytes());
            // The copies differ, so that they are compared.
            copy[4096 + json.len() - 1..][..2].copy_from_slice(if n == 0 { b"} " } else { b"}\n" });
            copy[448..512].fill(0);
            let sum = Sha256::digest(&*copy);
            copy[448..480].copy_from_slice(&sum);
        }
        let image = Arc::new(image);
        assert_eq!(inspect(Arc::clone(&image), image), depth < 30, "{depth}");
    }
}
