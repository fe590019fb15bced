//! Files that were named as parts of an image, and in which nothing says so.
//!
//! To a command that shows or decrypts that is a mistake of whoever named them. To a verification it is what is wrong: the
//! part is damaged, or is none. Where something is missing that others make up for it is a warning, of the layer in which it
//! is missing; else an error, since a chain or an array has been named that is not whole.

use super::Member;
use crate::error::{Condition, Error, ErrorKind, Result};
use crate::format::Named;
use crate::io::ReadAt;
use crate::storage::lvm::Label;
use crate::storage::md::Superblock;

/// What is done with a file that was named, and fits nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfit {
    /// It is refused, as a mistake of whoever named it.
    #[default]
    Refuse,
    /// It is taken for a damaged part of the image: a note says so, or the error of what is missing without it.
    Damaged,
}

/// Refuses a file that was named and fits nothing, or tells of it; `broken` has the errors of those that did not open.
pub(super) fn tell(
    unfit: Unfit,
    with: &[Named],
    members: &[Member],
    broken: &[(String, Error)],
    notes: &mut Vec<String>,
) -> Result<()> {
    for unused in with.iter().filter(|named| !named.is_used()) {
        if unfit == Unfit::Refuse {
            let message = format!("{} {NOTHING}", unused.name);
            return Err(Error::invalid(message).with_rule("with"));
        }
        let is_degraded = |layer: &str, what: &str| notes.iter().any(|n| n.starts_with(layer) && n.contains(what));
        let layer = if is_degraded("md: ", "is degraded") {
            "md"
        } else if is_degraded("lvm: physical volume", "is missing") {
            "lvm"
        } else {
            "with"
        };
        notes.push(format!("{layer}: {} {}", unused.name, why(unused, members, broken)));
    }
    Ok(())
}

const NOTHING: &str =
    "fits nothing: it is no member of an array, no physical volume and no parent that the image has a use for";

/// What is wrong with a file, as far as it can be told from itself.
fn why(named: &Named, members: &[Member], broken: &[(String, Error)]) -> String {
    if let Some((_, e)) = broken.iter().find(|(name, _)| *name == named.name) {
        return format!("was named as a part of the image, and cannot be opened: {e}");
    }
    let disk = members.iter().find(|member| member.named.name == named.name).map(|member| &member.disk);
    let own = |disk: &dyn ReadAt| Superblock::probe(disk).err().or_else(|| Label::probe(disk).err());
    match disk.and_then(|disk| own(disk)) {
        Some(e) => format!("was named as a part of the image, and what should say so in it is damaged: {e}"),
        None => format!("was named as a part of the image, and {NOTHING}; it is damaged, or another file"),
    }
}

/// The error of an image that does not open, with the named parts that it is of, or that are missing in it. A verification
/// knows by it that the image is what is wrong.
pub(super) fn blame(e: Error, with: &[Named]) -> Error {
    let wants_parent = ["vhd.parent", "vhdx.parent", "vmdk.parent", "rbd.from_snap"].contains(&e.rule());
    if with.iter().any(|named| e.names(&named.name)) {
        // Its place is one in that file.
        return e.told();
    }
    let is_damage = e.kind() == ErrorKind::Corrupt || e.is(Condition::MissingMember) || wants_parent;
    let unused: Vec<String> = with.iter().filter(|named| !named.is_used()).map(|named| named.name.clone()).collect();
    if !is_damage || unused.is_empty() {
        return e;
    }
    let condition = if wants_parent { Some(Condition::MissingMember) } else { None };
    let names = unused.join(", ");
    let e = e.within(format!("without {names}, in which nothing says that it is a part of the image")).told();
    match condition {
        Some(condition) => e.with_condition(condition),
        None => e,
    }
}
