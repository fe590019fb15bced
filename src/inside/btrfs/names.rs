//! btrfs: the paths of inodes, as the kernel shows them from the top subvolume.

use super::keys::{Key, Root};
use super::tree::{Fs, text};
use crate::inside::look::{le16, le64};
use crate::limits::INSIDE_PATH_DEPTH_MAX;

const TOP: u64 = 5;
const FIRST: u64 = 256;
const INODE_REF: u8 = 12;
const INODE_EXTREF: u8 = 13;
const ROOT_BACKREF: u8 = 144;

fn all_of(objectid: u64, kind: u8) -> (Key, Key) {
    ((objectid, kind, 0), (objectid, kind, u64::MAX))
}

/// The path of an inode of a subvolume.
pub(super) fn path(fs: &Fs<'_>, root_tree: Root, roots: &[Root], (mut id, mut inode): (u64, u64)) -> Option<String> {
    let mut path = String::new();
    for _ in 0..INSIDE_PATH_DEPTH_MAX {
        if inode == FIRST && id == TOP {
            return Some(if path.is_empty() { "/".into() } else { path });
        }
        let name = if inode == FIRST {
            let found = fs.find(root_tree, all_of(id, ROOT_BACKREF), &mut |key, item| {
                Some((key.2, le64(item, 0), text(item, 18, le16(item, 16))))
            });
            let (parent, dir, name) = found?;
            (id, inode) = (parent, dir);
            name
        } else {
            let root = *roots.iter().find(|root| root.id == id)?;
            let by_parent =
                fs.find(root, all_of(inode, INODE_REF), &mut |key, item| Some((key.2, text(item, 10, le16(item, 8)))));
            let many = || {
                fs.find(root, all_of(inode, INODE_EXTREF), &mut |_, item| {
                    Some((le64(item, 0), text(item, 18, le16(item, 16))))
                })
            };
            let (parent, name) = by_parent.or_else(many)?;
            inode = parent;
            name
        };
        path = format!("/{name}{path}");
    }
    None
}
