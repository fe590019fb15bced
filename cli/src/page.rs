//! What all pages have in common: how they begin, their style, and the hash of that, which is all that a page lets in.

use base64::Engine;
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("../templates/report.css");

/// What stands around a page, in `templates/page.html`.
pub struct Frame {
    pub begins: &'static str,
    pub style: &'static str,
    pub style_hash: String,
}

impl Frame {
    /// The frame of a page that begins with these lines.
    pub fn of(begins: &'static str) -> Self {
        let style_hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
        Self { begins, style: STYLE, style_hash }
    }
}
