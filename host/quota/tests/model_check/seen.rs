//! The states that a search has seen: each once, in the order in which they were found.
//!
//! An open-addressed table of indexes into one vector: 8·W + 4 to 12 bytes per state.

/// Slots of an empty table; a power of two.
const SLOTS_MIN: usize = 1 << 12;
/// Marks a free slot.
const FREE: u32 = u32::MAX;

pub(crate) struct Seen<const W: usize> {
    states: Vec<[u64; W]>,
    slots: Vec<u32>,
}

impl<const W: usize> Default for Seen<W> {
    fn default() -> Self {
        Self { states: Vec::new(), slots: vec![FREE; SLOTS_MIN] }
    }
}

impl<const W: usize> Seen<W> {
    pub(crate) fn len(&self) -> usize {
        self.states.len()
    }

    pub(crate) fn words(&self, index: usize) -> [u64; W] {
        self.states[index]
    }

    /// Whether the state is new.
    pub(crate) fn insert(&mut self, words: [u64; W]) -> bool {
        if self.states.len() * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let mut slot = slot_of(&words) & (self.slots.len() - 1);
        while self.slots[slot] != FREE {
            if self.states[self.slots[slot] as usize] == words {
                return false;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.slots[slot] = self.states.len() as u32;
        self.states.push(words);
        true
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        self.slots = vec![FREE; mask + 1];
        for (index, words) in self.states.iter().enumerate() {
            let mut slot = slot_of(words) & mask;
            while self.slots[slot] != FREE {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = index as u32;
        }
    }
}

/// Spreads the words over the table; only speed depends on it.
fn slot_of(words: &[u64]) -> usize {
    let mut hash = 0_u64;
    for word in words {
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
    }
    (hash ^ hash >> 29) as usize
}
