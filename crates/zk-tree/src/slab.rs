//! Storage with small stable numbers instead of pointers.

const CHUNK_BITS: u32 = 9;
const CHUNK_LEN: usize = 1 << CHUNK_BITS;

/// Values under `u32` ids, in chunks, so that growth never moves what is there. A removed value
/// leaves its default behind and its id is used again.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    chunks: Vec<Vec<T>>,
    free: Vec<u32>,
    len: usize,
}

impl<T: Default> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// An id for a value to come; what its place holds is whatever was left there.
    pub(crate) fn reserve(&mut self) -> u32 {
        self.len += 1;
        if let Some(id) = self.free.pop() {
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK_LEN) {
            self.chunks.push(Vec::with_capacity(CHUNK_LEN));
        }
        let chunk = self.chunks.len() - 1;
        let values = &mut self.chunks[chunk];
        values.push(T::default());
        let id = (chunk << CHUNK_BITS) + values.len() - 1;
        u32::try_from(id).expect("four thousand million values do not fit into memory")
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let id = self.reserve();
        self[id] = value;
        id
    }

    /// All places, the empty ones too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// Takes the value out; its default stays.
    pub(crate) fn remove(&mut self, id: u32) -> T {
        self.len -= 1;
        self.free.push(id);
        std::mem::take(&mut self[id])
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        &self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK_LEN - 1)]
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        &mut self.chunks[(id >> CHUNK_BITS) as usize][id as usize & (CHUNK_LEN - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_and_are_used_again() {
        let mut slab = Slab::new();
        let ids: Vec<u32> = (0..3000_u64).map(|value| slab.insert(value)).collect();
        assert!(ids.iter().zip(0..).all(|(&id, value)| slab[id] == value));
        assert_eq!(slab.remove(ids[1500]), 1500);
        assert_eq!((slab.len(), slab[ids[1500]]), (2999, 0));
        assert_eq!(slab.insert(7), ids[1500]);
        assert_eq!(slab.len(), 3000);
    }
}
