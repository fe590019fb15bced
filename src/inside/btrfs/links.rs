//! btrfs: which subvolume lies where in another, which the root tree says twice.
//!
//! | item | type | key's objectid, offset | bytes |
//! |---|---|---|---|
//! | above | 144 | the subvolume, the one that it is in | 0: directory, 8: index, 16: length, 18: name |
//! | below | 156 | the one that it is in, the subvolume | the same |

use std::collections::BTreeMap;

use super::keys::Item;
use super::tree::Fs;
use super::{Contents, Severity};
use crate::inside::look::{le16, le64};
use crate::limits::INSIDE_EXTENTS_MAX;

const ABOVE: u8 = 144;
const BELOW: u8 = 156;

/// The name of a subvolume in a directory of another.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub directory: u64,
    pub index: u64,
    pub name: Vec<u8>,
}

impl Link {
    fn parse(bytes: &[u8]) -> Self {
        let end = usize::from(le16(bytes, 16)).saturating_add(18);
        let name = bytes.get(18..end).unwrap_or_default().to_vec();
        Self { directory: le64(bytes, 0), index: le64(bytes, 8), name }
    }
}

/// As it is said from above and from below, with the leaf of one of both.
type Said = (Option<Link>, Option<Link>, u64);

/// By the subvolume that they are in and the one that they name.
#[derive(Default)]
pub(super) struct Links {
    all: BTreeMap<(u64, u64), Said>,
}

impl Links {
    /// Takes an item of the root tree.
    pub(super) fn item(&mut self, item: &Item<'_>) {
        let (objectid, kind, offset) = item.key;
        if self.all.len() >= INSIDE_EXTENTS_MAX / 16 {
            return;
        }
        match kind {
            BELOW => {
                self.all.entry((objectid, offset)).or_insert((None, None, item.leaf)).0 = Some(Link::parse(item.bytes))
            }
            ABOVE => {
                self.all.entry((offset, objectid)).or_insert((None, None, item.leaf)).1 = Some(Link::parse(item.bytes))
            }
            _ => {}
        }
    }

    /// The subvolumes in one, and their names.
    pub(super) fn of(&self, parent: u64) -> impl Iterator<Item = (u64, &Link)> {
        self.all
            .range((parent, 0)..=(parent, u64::MAX))
            .filter_map(|((_, child), link)| Some((*child, link.0.as_ref()?)))
    }

    /// Compares what is said from above and from below.
    pub(super) fn check(&self, fs: &Fs<'_>, contents: &mut Contents) {
        if self.all.len() >= INSIDE_EXTENTS_MAX / 16 {
            return contents.note("btrfs: not all links of subvolumes were looked at: more than are kept in memory");
        }
        for ((parent, child), (below, above, leaf)) in &self.all {
            if below != above {
                let place = super::groups::place(fs, *leaf);
                let structure = (format!("the link of subvolume {child} in subvolume {parent}"), place);
                let says = |link: &Option<Link>| match link {
                    Some(link) => format!(
                        "\"{}\", index {} of directory {}",
                        link.name.escape_ascii(),
                        link.index,
                        link.directory
                    ),
                    None => "nothing".into(),
                };
                let (found, expected) = (says(below), format!("the other way it is {}", says(above)));
                contents.find(Severity::Error, "contents.btrfs.subvolume", structure, found, expected);
            }
        }
    }
}
