//! A hash table of ids that grows in small steps.

use hashbrown::HashTable;

const SHARD_BITS: u32 = 6;

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    id: u32,
}

/// Ids by hash. Sixty-four tables, so that growing one at a million entries moves sixteen thousand,
/// and the hash is kept beside the id, so that growing touches nothing else. What an id means, and
/// with that equality, is the caller's.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<HashTable<Entry>>,
}

/// The tables look at the low bits and at the highest seven; 32 bits must serve both.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn kept(hash: u64) -> u32 {
    (hash >> 32) as u32
}

fn shard_of(hash: u32) -> usize {
    (hash >> (32 - SHARD_BITS)) as usize
}

impl Index {
    pub(crate) fn new() -> Self {
        Self { shards: (0..1 << SHARD_BITS).map(|_| HashTable::new()).collect() }
    }

    /// The id with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = kept(hash);
        self.shards[shard_of(hash)]
            .find(spread(hash), |entry| entry.hash == hash && is_it(entry.id))
            .map(|entry| entry.id)
    }

    /// Adds an id that is not there.
    pub(crate) fn insert(&mut self, hash: u64, id: u32) {
        let hash = kept(hash);
        self.shards[shard_of(hash)]
            .insert_unique(spread(hash), Entry { hash, id }, |entry| spread(entry.hash));
    }

    /// Removes an id.
    ///
    /// # Panics
    /// It is not there: the caller's tables disagree.
    pub(crate) fn remove(&mut self, hash: u64, id: u32) {
        let hash = kept(hash);
        self.shards[shard_of(hash)]
            .find_entry(spread(hash), |entry| entry.id == id)
            .expect("what is removed from an index was put there with the same hash")
            .remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_u64;

    #[test]
    fn what_was_put_is_found_until_it_is_removed() {
        let mut index = Index::new();
        for id in 0..10_000 {
            index.insert(hash_u64(3, u64::from(id)), id);
        }
        for id in (0..10_000).step_by(2) {
            index.remove(hash_u64(3, u64::from(id)), id);
        }
        for id in 0..10_000 {
            let found = index.find(hash_u64(3, u64::from(id)), |it| it == id);
            assert_eq!(found, (id % 2 == 1).then_some(id));
        }
    }
}
