//! btrfs: keys, items and roots, as all that goes through its trees names them.

/// What was synced after the last commit hangs on it.
pub(super) const LOG_TREE: u64 = u64::MAX.wrapping_sub(5);

/// A key: objectid, type, offset.
pub(super) type Key = (u64, u8, u64);

/// An item, and the leaf that it is in.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    pub key: Key,
    pub bytes: &'a [u8],
    /// The leaf's logical byte, and the tree that it was made for.
    pub leaf: u64,
    pub owner: u64,
}

/// A root of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    pub id: u64,
    pub logical: u64,
    pub level: u8,
    pub generation: u64,
}
