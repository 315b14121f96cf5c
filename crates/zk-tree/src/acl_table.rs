//! ACLs, each kept once: a million znodes have a handful of different ones.

use std::sync::Arc;

use zk_proto::acl::Acl;

use crate::hash::{hash_bytes, hash_u64};
use crate::index::Index;
use crate::slab::Slab;

#[derive(Debug, Default)]
struct Entry {
    acl: Option<Arc<[Acl]>>,
    uses: u64,
}

#[derive(Debug)]
pub(crate) struct AclTable {
    entries: Slab<Entry>,
    index: Index,
    seed: u64,
    /// What was interned last, likely to come again.
    last: Option<u32>,
}

impl AclTable {
    pub(crate) fn new(seed: u64) -> Self {
        Self { entries: Slab::new(), index: Index::new(), seed, last: None }
    }

    /// The id of `acl`, used once more.
    pub(crate) fn intern(&mut self, acl: &[Acl]) -> u32 {
        if let Some(id) = self.last.filter(|&id| self.entries[id].acl.as_deref() == Some(acl)) {
            self.entries[id].uses += 1;
            return id;
        }
        let id = self.intern_unlike_last(acl);
        self.last = Some(id);
        id
    }

    fn intern_unlike_last(&mut self, acl: &[Acl]) -> u32 {
        let hash = self.hash(acl);
        let found = self.index.find(hash, |id| self.entries[id].acl.as_deref() == Some(acl));
        if let Some(id) = found {
            self.entries[id].uses += 1;
            return id;
        }
        let id = self.entries.insert(Entry { acl: Some(acl.into()), uses: 1 });
        self.index.insert(hash, id);
        id
    }

    /// Ends one use. What nobody uses goes.
    pub(crate) fn release(&mut self, id: u32) {
        let entry = &mut self.entries[id];
        entry.uses -= 1;
        if entry.uses == 0 {
            let acl = self.entries.remove(id).acl.expect("a used entry has an ACL");
            let hash = self.hash(&acl);
            self.index.remove(hash, id);
        }
    }

    pub(crate) fn get(&self, id: u32) -> &Arc<[Acl]> {
        self.entries[id].acl.as_ref().expect("a used entry has an ACL")
    }

    /// How many different ACLs are in use.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn hash(&self, acl: &[Acl]) -> u64 {
        acl.iter().fold(self.seed, |state, Acl { perms, id }| {
            let state = hash_u64(state, u64::from(perms.0.cast_unsigned()));
            hash_bytes(hash_bytes(state, id.scheme.as_bytes()), id.id.as_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acl_is_kept_once_and_goes_with_its_last_use() {
        let mut table = AclTable::new(1);
        let first = table.intern(&Acl::read_only());
        assert_eq!(table.intern(&Acl::read_only()), first);
        assert_ne!(table.intern(&Acl::open()), first);
        assert_eq!(table.len(), 2);
        assert_eq!(table.get(first)[..], Acl::read_only()[..]);
        table.release(first);
        table.release(first);
        assert_eq!(table.len(), 1);
        let none = table.intern(&[]);
        assert_eq!((table.get(none).len(), table.len()), (0, 2));
    }
}
