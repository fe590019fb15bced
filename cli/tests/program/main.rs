//! The program `unluks` as its users run it.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]

mod backup;
mod cinder;
mod common;
mod contents;
mod decrypt;
mod docs;
#[cfg(feature = "files")]
mod files;
mod fleet;
#[cfg(feature = "nbd")]
mod fuzz_corpus;
mod golden;
mod header;
mod inspect;
mod integrity;
mod keyslot_area;
#[cfg(feature = "nbd")]
mod limits;
mod luks1_validation;
mod luks2_validation;
mod malformed;
#[cfg(feature = "nbd")]
mod manual;
mod messages;
#[cfg(all(feature = "mount", feature = "peer-tests"))]
mod mount;
mod mutations;
#[cfg(all(feature = "nbd", feature = "peer-tests"))]
#[path = "../../../tests/nbd/support.rs"]
#[allow(clippy::as_conversions, dead_code)]
mod nbd_support;
mod no_threads;
mod opening;
#[cfg(all(feature = "files", feature = "peer-tests"))]
mod pages;
mod plain;
#[cfg(feature = "files")]
mod proof;
mod readme;
mod recipes;
mod record;
mod recover;
mod reencryption;
mod scan;
#[cfg(target_os = "linux")]
mod secrets;
#[cfg(all(feature = "nbd", feature = "peer-tests"))]
#[allow(clippy::as_conversions)]
mod serve;
mod sets;
mod stack;
#[cfg(feature = "nbd")]
#[path = "../../../fuzz/src/lib.rs"]
#[allow(dead_code)]
mod targets;
mod test_key;
mod unencrypted;
mod verify;
mod whole_disk;
