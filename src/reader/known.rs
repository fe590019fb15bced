//! What paths lead to, for readers that go by numbers: of the directories that were listed last, so that a walk does not
//! begin at the root for every file.

use std::collections::HashMap;

use crate::limits::READER_KNOWN_MAX;

/// Paths and what they lead to.
pub(super) struct Known<T> {
    paths: HashMap<Vec<u8>, T>,
}

impl<T: Clone> Known<T> {
    pub(super) fn new() -> Self {
        Self { paths: HashMap::new() }
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<T> {
        self.paths.get(path).cloned()
    }

    pub(super) fn add(&mut self, path: Vec<u8>, node: T) {
        if self.paths.len() >= READER_KNOWN_MAX {
            self.paths.clear();
        }
        self.paths.insert(path, node);
    }
}
