//! Values at small dense indexes, with a generation that tells one tenant of an index from the next.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// Indexes are given out again, last freed first, so that memory stays dense and order is reproducible. Once
/// it is empty, it gives out indexes as a new one does: the past leaves no trace in what comes.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// That of the next tenant, whatever its index.
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), generation: 0 }
    }

    /// Index and generation of the new value.
    pub(crate) fn insert(&mut self, value: T) -> (u32, u32) {
        let generation = self.generation;
        self.generation = generation.wrapping_add(1);
        let slot = Slot { generation, value: Some(value) };
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            return (index, generation);
        }
        self.slots.push(slot);
        let index = u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 values fit into memory");
        (index, generation)
    }

    pub(crate) fn remove(&mut self, index: u32) -> Option<T> {
        let value = self.slots.get_mut(index as usize)?.value.take()?;
        self.free.push(index);
        if self.len() == 0 {
            self.slots.clear();
            self.free.clear();
        }
        Some(value)
    }

    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// Whether this tenant still lives at this index.
    pub(crate) fn lives(&self, index: u32, generation: u32) -> bool {
        let slot = self.slots.get(index as usize);
        slot.is_some_and(|slot| slot.generation == generation && slot.value.is_some())
    }

    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.slots.get(index as usize).map_or(0, |slot| slot.generation)
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every index in use, lowest first.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.slots).filter(|(_, slot)| slot.value.is_some()).map(|(index, _)| index)
    }
}

/// For indexes that are known to be in use; a wrong one is a bug of this crate.
impl<T> Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, index: u32) -> &T {
        self.get(index).expect("the index is in use")
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        self.get_mut(index).expect("the index is in use")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_index_has_another_generation() {
        let mut slab = Slab::new();
        let (index, first) = slab.insert('a');
        assert_eq!(slab.remove(index), Some('a'));
        assert_eq!(slab.remove(index), None);
        let (again, second) = slab.insert('b');
        assert_eq!(index, again);
        assert!(!slab.lives(index, first));
        assert!(slab.lives(index, second));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn an_empty_one_begins_anew() {
        let mut slab = Slab::new();
        for value in ['a', 'b', 'c'] {
            slab.insert(value);
        }
        for index in [0, 2, 1] {
            assert!(slab.remove(index).is_some());
        }
        assert_eq!(slab.insert('d').0, 0);
        assert_eq!(slab.insert('e').0, 1);
        assert!(!slab.lives(0, 0) && !slab.lives(2, 2));
    }
}
