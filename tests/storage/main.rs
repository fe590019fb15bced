//! Disks made of disks, against what the kernel reads of them.

// A panic is how a test reports what it found.
#![allow(clippy::unwrap_used, clippy::as_conversions)]
#![cfg(feature = "unlock")]

mod lvm;
mod lvm_mutations;
