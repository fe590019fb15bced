//! `unluks fetch` against real Keystone, Glance and Barbican: every image that `tests/openstack/bed/seed` stores, every
//! way to log in, and what happens when the network, the services or the disk fail.

// A test ends where something is not as it should be; clippy.toml excuses only functions marked #[test].
#![allow(clippy::unwrap_used)]

#[path = "openstack/faults.rs"]
mod faults;
#[path = "openstack/images.rs"]
mod images;
#[path = "openstack/logins.rs"]
mod logins;
mod openstack_support;
#[path = "openstack/restore.rs"]
mod restore;
#[path = "openstack/volumes.rs"]
mod volumes;
