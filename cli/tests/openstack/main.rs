//! `unluks fetch` against real Keystone, Glance and Barbican: every image that `tests/openstack/bed/seed` stores, every
//! way to log in, and what happens when the network, the services or the disk fail.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]
#![cfg(all(feature = "openstack", feature = "peer-tests"))]

mod api;
mod backups;
mod faults;
mod images;
mod logins;
mod properties;
mod restore;
mod roundtrip;
mod support;
mod volumes;
