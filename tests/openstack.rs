//! `unluks fetch` against real Keystone, Glance and Barbican: every image that `tests/openstack/bed/seed` stores, every
//! way to log in, and what happens when the network, the services or the disk fail.

#[path = "openstack/faults.rs"]
mod faults;
#[path = "openstack/images.rs"]
mod images;
#[path = "openstack/logins.rs"]
mod logins;
mod openstack_support;
