//! The client of OpenStack: logs in as the `openstack` program would, finds an image and its key, and downloads both.
//!
//! ```text
//!  clouds.yaml, OS_* ─► Cloud ─► image::find ─► secret::fetch ─► Download ─► image.raw, hashes
//!                         │                                          └─► a pipe ─► decrypt
//!                         ├─► volume::find ─► an image of it; restore: secret, image and volume ─► steps, taken back
//!                         └─► send: any request to a service, with a token that is renewed when it expires
//! ```
//!
//! Of the SDK for Rust, its federated logins alone are taken: config.rs, keystone.rs and catalog.rs say why. The requests go
//! through `reqwest`, which gives the status of an answer that is streamed (200, 204, 206 and 401), bounds what is read, and
//! follows no redirect with a token. The API here is blocking; the asynchronous runtime does not leave this module.

#[cfg(feature = "client")]
mod answer;
#[cfg(feature = "client")]
pub mod backup;
#[cfg(feature = "client")]
mod catalog;
#[cfg(feature = "client")]
mod cloud;
#[cfg(feature = "client")]
pub mod config;
#[cfg(feature = "client")]
mod download;
#[cfg(feature = "client")]
mod failure;
#[cfg(test)]
#[cfg(feature = "client")]
mod fake;
#[cfg(feature = "client")]
mod hashes;
#[cfg(feature = "client")]
pub mod image;
#[cfg(feature = "client")]
mod keystone;
#[cfg(feature = "client")]
mod partial;
#[cfg(feature = "client")]
pub mod restore;
#[cfg(feature = "client")]
pub mod secret;
pub mod shapes;
#[cfg(feature = "client")]
pub mod steps;
#[cfg(feature = "client")]
pub mod volume;

#[cfg(feature = "client")]
pub use answer::{Answer, Body, Request, Service};
#[cfg(feature = "client")]
pub use cloud::{Cloud, Options};
#[cfg(feature = "client")]
pub use download::{Download, Downloaded, Feed, FeedReader};
#[cfg(feature = "client")]
pub use reqwest::Method;
