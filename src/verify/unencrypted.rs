//! Images that are not encrypted: what is in them is verified as they are.
//!
//! Nothing is asked for here, so nothing is proven by a key. Whether it was meant to be encrypted, a policy says; and what
//! looks as all encrypted data does is named, for nobody knows what is in it.

use std::sync::Arc;

use super::judge::UNRECOGNISED;
use super::report::{Finding, Report, Severity};
use crate::error::escape;
use crate::format;
use crate::inside::{Contents, Part};
use crate::io::{ReadAt, Window};
use crate::limits::LAYERS_DEPTH_MAX;
use crate::volume::Volume;

/// The code that says it.
const CODE: &str = "header.none";
/// What coverage says of it.
pub const STATEMENT: &str = "The image is not encrypted: it was verified as it is, and no key was needed.";

/// That there is no header.
pub fn finding() -> Finding {
    let message = "there is no LUKS header: the image is not encrypted, and was verified as it is".to_owned();
    Finding::new(Severity::Note, CODE, "header", message)
}

/// The partitions that are noise from their first byte on, of which nobody knows what they hold.
pub fn noise(contents: &Contents, volume: &Arc<Volume>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let disk: Arc<dyn ReadAt> = Arc::<Volume>::clone(volume);
    parts(contents, &disk, 0, &mut findings);
    findings
}

fn parts(contents: &Contents, disk: &Arc<dyn ReadAt>, depth: usize, findings: &mut Vec<Finding>) {
    for Part { name, start, len, contents, .. } in &contents.parts {
        let (Some(start), Some(inner)) = (start, contents) else { continue };
        let Ok(part) = Window::new(Arc::clone(disk), *start, Some(*len)) else { continue };
        if !inner.is_known() {
            let noise = format::name(&part).filter(|foreign| foreign.is_noise());
            findings.extend(noise.map(|_| {
                let message = format!(
                    "part {} is noise from its first byte on, as all encrypted data is: what is in it is not known",
                    escape(name)
                );
                Finding::new(Severity::Warning, UNRECOGNISED, name.as_str(), message).at_plaintext(Some(*start))
            }));
        } else if depth < LAYERS_DEPTH_MAX {
            let part: Arc<dyn ReadAt> = Arc::new(part);
            parts(inner, &part, depth.saturating_add(1), findings);
        }
    }
}

impl Report {
    /// Whether the image was found not to be encrypted, and was verified as it is.
    pub fn is_unencrypted(&self) -> bool {
        self.container.is_none() && self.findings.iter().any(|finding| finding.code == CODE)
    }
}
