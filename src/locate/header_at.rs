//! Where a container has its header: what is looked for in a disk follows from it.

/// Where a container has its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderAt {
    /// In front of its data, where it is looked for.
    #[default]
    Own,
    /// Elsewhere: the file holds data alone.
    Elsewhere,
    /// There is none, for nothing is encrypted: a disk is taken as it is, with its partitions and volumes, unless one of
    /// them is named. An array is put together.
    Nowhere,
}

/// A header that was named lies elsewhere; else it is looked for.
impl<T> From<&Option<T>> for HeaderAt {
    fn from(named: &Option<T>) -> Self {
        if named.is_some() { Self::Elsewhere } else { Self::Own }
    }
}
