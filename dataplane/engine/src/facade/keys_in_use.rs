//! Key directories that shards may still be using, so that none of them is ever the last to let go of one: a million
//! keys are 135 MB, and giving them back to the system takes milliseconds in which a shard would answer nobody.
//!
//! Nothing is freed by a clock here: a directory goes when, on some later call, nobody else is found to hold it.

use dataplane_core::access::KeyDirectory;
use std::sync::Arc;

/// The present directory, and those before it that somebody may hold.
pub(super) struct KeysInUse {
    present: Arc<KeyDirectory>,
    /// No longer than the shards' command channels: whoever sends waits for room there.
    before: Vec<Arc<KeyDirectory>>,
}

impl KeysInUse {
    /// The first directory.
    pub(super) fn new(present: Arc<KeyDirectory>) -> Self {
        Self { present, before: Vec::new() }
    }

    /// Keeps the present directory until everybody has changed over to `next`. Call it before the shards are told.
    pub(super) fn replace(&mut self, next: Arc<KeyDirectory>) {
        if !Arc::ptr_eq(&self.present, &next) {
            self.before.push(std::mem::replace(&mut self.present, next));
        }
    }

    /// Takes out those that nobody else holds; dropping them is the caller's, best without any lock held.
    pub(super) fn take_unused(&mut self) -> Vec<Arc<KeyDirectory>> {
        // Nobody can come to hold one again: all that is left is ours.
        self.before.extract_if(.., |keys| Arc::strong_count(keys) == 1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stays_until_nobody_else_holds_it() {
        let [first, second, third] = [(); 3].map(|()| Arc::new(KeyDirectory::default()));
        let held_by_a_shard = Arc::clone(&first);
        let mut keys = KeysInUse::new(first);
        keys.replace(Arc::clone(&second));
        keys.replace(second);
        assert_eq!(keys.take_unused().len(), 0, "a shard holds the first, and the second is the present one");
        keys.replace(third);
        assert_eq!(keys.take_unused().len(), 1, "nobody has the second any more");
        assert_eq!(Arc::strong_count(&held_by_a_shard), 2, "so a shard that drops it now frees nothing");
        drop(held_by_a_shard);
        assert_eq!(keys.take_unused().len(), 1);
        assert_eq!(keys.take_unused().len(), 0);
    }
}
