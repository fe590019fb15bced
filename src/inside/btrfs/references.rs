//! btrfs: what points to nodes and to data, as it is met.

use super::items::{EXTENT_DATA, INLINE};
use super::keys::{Item, LOG_TREE, Root};
use crate::inside::look::{field, le64};
use crate::limits::INSIDE_EXTENTS_MAX;

/// A pointer to a node.
pub(super) struct Pointer {
    pub node: u64,
    /// The node that it is in; none for a root.
    pub parent: u64,
    pub owner: u64,
    pub level: u8,
}

/// A file's use of an extent.
#[derive(Clone, Copy)]
pub(super) struct Use {
    pub start: u64,
    pub len: u64,
    pub leaf: u64,
    pub owner: u64,
    pub inode: u64,
    /// Where the whole extent would begin in the file, which may be below its start.
    pub offset: u64,
}

/// All that was seen to point to something.
#[derive(Default)]
pub(super) struct References {
    pub pointers: Vec<Pointer>,
    pub uses: Vec<Use>,
    pub is_full: bool,
}

impl References {
    fn has_room(&mut self) -> bool {
        self.is_full |= self.pointers.len().saturating_add(self.uses.len()) >= INSIDE_EXTENTS_MAX;
        !self.is_full
    }

    /// The tree of logs is not in the extent tree, nor is anything that hangs on it.
    pub(super) fn root(&mut self, root: Root) {
        self.pointer(root.id, (0, root.id), (root.logical, root.level));
    }

    /// Takes a pointer in a node of tree `id`.
    pub(super) fn pointer(&mut self, id: u64, (parent, owner): (u64, u64), (node, level): (u64, u8)) {
        if id != LOG_TREE && self.has_room() {
            self.pointers.push(Pointer { node, parent, owner, level });
        }
    }

    /// Takes an item of tree `id`.
    pub(super) fn item(&mut self, id: u64, item: &Item<'_>) {
        let ([kind], start, len) = (field(item.bytes, 20), le64(item.bytes, 21), le64(item.bytes, 29));
        if item.key.1 == EXTENT_DATA && kind != INLINE && start > 0 && id != LOG_TREE && self.has_room() {
            let offset = item.key.2.wrapping_sub(le64(item.bytes, 37));
            self.uses.push(Use { start, len, leaf: item.leaf, owner: item.owner, inode: item.key.0, offset });
        }
    }
}
