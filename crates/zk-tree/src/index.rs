//! A hash table of ids that grows in small steps.

const SHARD_BITS: u32 = 6;

/// The id that marks an empty slot.
const EMPTY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: u32,
    id: u32,
}

/// Ids by hash. Sixty-four tables, so that growing one at a million entries moves sixteen thousand,
/// and the hash is kept beside the id, so that growing touches nothing else. What an id means, and
/// with that equality, is the caller's.
///
/// Linear probing over hash and id together: a look-up among millions waits for memory once here,
/// where a table with separate control bytes waits twice.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Vec<Shard>,
}

#[derive(Debug)]
struct Shard {
    /// A power of two of them, at least a quarter empty; none at first.
    slots: Box<[Slot]>,
    len: usize,
}

fn kept(hash: u64) -> u32 {
    u32::try_from(hash >> 32).expect("the upper half")
}

fn shard_of(hash: u32) -> usize {
    (hash >> (32 - SHARD_BITS)) as usize
}

impl Index {
    pub(crate) fn new() -> Self {
        let shard = |_| Shard { slots: Box::default(), len: 0 };
        Self { shards: (0..1 << SHARD_BITS).map(shard).collect() }
    }

    /// The id with this hash for which `is_it` holds.
    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = kept(hash);
        let shard = &self.shards[shard_of(hash)];
        shard.find(hash, is_it).map(|at| shard.slots[at].id)
    }

    /// Adds an id that is not there.
    pub(crate) fn insert(&mut self, hash: u64, id: u32) {
        assert_ne!(id, EMPTY, "the last id is not used");
        let hash = kept(hash);
        self.shards[shard_of(hash)].insert(Slot { hash, id });
    }

    /// Removes an id.
    ///
    /// # Panics
    /// It is not there: the caller's tables disagree.
    pub(crate) fn remove(&mut self, hash: u64, id: u32) {
        let hash = kept(hash);
        let shard = &mut self.shards[shard_of(hash)];
        let at = shard.find(hash, |it| it == id);
        shard.remove(at.expect("what is removed from an index was put there with the same hash"));
    }
}

impl Shard {
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = hash as usize & self.mask();
        loop {
            let slot = self.slots[at];
            if slot.id == EMPTY {
                return None;
            }
            if slot.hash == hash && is_it(slot.id) {
                return Some(at);
            }
            at = (at + 1) & self.mask();
        }
    }

    fn insert(&mut self, slot: Slot) {
        if self.len >= self.slots.len() / 4 * 3 {
            self.grow();
        }
        self.len += 1;
        self.put(slot);
    }

    fn put(&mut self, slot: Slot) {
        let mut at = slot.hash as usize & self.mask();
        while self.slots[at].id != EMPTY {
            at = (at + 1) & self.mask();
        }
        self.slots[at] = slot;
    }

    fn grow(&mut self) {
        let len = (self.slots.len() * 2).max(8);
        let empty = vec![Slot { hash: 0, id: EMPTY }; len].into_boxed_slice();
        for slot in std::mem::replace(&mut self.slots, empty) {
            if slot.id != EMPTY {
                self.put(slot);
            }
        }
    }

    /// Closes the gap: every entry stays reachable from where its hash points.
    fn remove(&mut self, mut gap: usize) {
        self.len -= 1;
        let mask = self.mask();
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot.id == EMPTY {
                break;
            }
            let home = slot.hash as usize & mask;
            // Whether its home is not between the gap and where it is.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = slot;
                gap = at;
            }
        }
        self.slots[gap].id = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash_u64;

    #[test]
    fn what_was_put_is_found_until_it_is_removed() {
        let mut index = Index::new();
        let hash = |id: u32| hash_u64(3, u64::from(id));
        for id in 0..10_000 {
            index.insert(hash(id), id);
        }
        for id in (0..10_000).step_by(2) {
            index.remove(hash(id), id);
        }
        for id in 0..10_000 {
            let found = index.find(hash(id), |it| it == id);
            assert_eq!(found, (id % 2 == 1).then_some(id));
        }
    }

    /// Hashes that crowd a few homes, at the table's end too, in any order of adding and removing.
    #[test]
    fn crowded_entries_stay_reachable() {
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        let mut index = Index::new();
        let mut entries: Vec<(u64, u32)> = Vec::new();
        for id in 0..20_000 {
            if entries.len() > 40 || (random(3) == 0 && !entries.is_empty()) {
                let at = usize::try_from(random(entries.len() as u64)).expect("small");
                let (hash, id) = entries.swap_remove(at);
                index.remove(hash, id);
                assert_eq!(index.find(hash, |it| it == id), None);
            } else {
                let hash = (random(6) + 60) << 32;
                index.insert(hash, id);
                entries.push((hash, id));
            }
            for &(hash, id) in &entries {
                assert_eq!(index.find(hash, |it| it == id), Some(id));
            }
        }
    }
}
