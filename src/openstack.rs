//! The client of OpenStack: logs in as the `openstack` program would, finds an image and its key, and downloads both.
//!
//! ```text
//!  clouds.yaml, OS_* ─► Cloud ─► image::find ─► secret::fetch ─► Download ─► image.raw, hashes
//!                         │                                          └─► a pipe ─► decrypt
//!                         ├─► volume::find ─► an image of it; restore: secret, image and volume ─► steps, taken back
//!                         └─► send: any request to a service, with a token that is renewed when it expires
//! ```
//!
//! Authentication, clouds.yaml and the catalogue are `openstack_sdk`'s. The requests to Glance, Barbican and Cinder go
//! through `reqwest`, which the SDK uses too: the SDK gives no status of an answer that is streamed (200, 204, 206 and
//! 401 look alike), buffers every other answer whatever its size, and follows redirects with the token. The API here is
//! blocking; the asynchronous runtime does not leave this module.

mod answer;
mod cloud;
mod config;
mod download;
#[cfg(test)]
mod fake;
mod hashes;
pub mod image;
mod partial;
pub mod restore;
pub mod secret;
pub mod steps;
pub mod volume;

pub use answer::{Answer, Body, Request, Service};
pub use cloud::{Cloud, Options};
pub use download::{Download, Downloaded, Feed, FeedReader};
pub use reqwest::Method;
