//! States as a few words: tens of millions of them have to fit into memory.
//!
//! Each state lists its fields once, with the bits that they need; the same list writes
//! and reads. Invariant: exact, never a hash of the state: two states are the same only if
//! every field is.

/// Writes the fields of a state into words, or reads them back.
pub(crate) struct Codec<const W: usize> {
    words: [u64; W],
    at: u32,
    reading: bool,
}

/// A state of a model.
pub(crate) trait Fields: Copy {
    /// Hands every field to the codec, always in the same order.
    fn fields<const W: usize>(&mut self, codec: &mut Codec<W>);
}

impl<const W: usize> Codec<W> {
    pub(crate) fn encode<S: Fields>(mut state: S) -> [u64; W] {
        let mut codec = Self { words: [0; W], at: 0, reading: false };
        state.fields(&mut codec);
        codec.words
    }

    /// `state` is any state; all of its fields are overwritten.
    pub(crate) fn decode<S: Fields>(words: [u64; W], mut state: S) -> S {
        let mut codec = Self { words, at: 0, reading: true };
        state.fields(&mut codec);
        state
    }

    /// One field of so many bits. Fields never straddle words.
    pub(crate) fn field(&mut self, value: &mut u8, bits: u32) {
        let mask = (1_u64 << bits) - 1;
        let used = self.at & 63;
        if used + bits > 64 {
            self.at += 64 - used;
        }
        let (word, shift) = ((self.at >> 6) as usize, self.at & 63);
        self.at += bits;
        if self.reading {
            *value = (self.words[word] >> shift & mask) as u8;
        } else {
            assert!(u64::from(*value) <= mask, "a field of {bits} bits holds {value}");
            self.words[word] |= u64::from(*value) << shift;
        }
    }

    pub(crate) fn flag(&mut self, value: &mut bool) {
        let mut bit = u8::from(*value);
        self.field(&mut bit, 1);
        *value = bit == 1;
    }

    pub(crate) fn each(&mut self, values: &mut [u8], bits: u32) {
        for value in values {
            self.field(value, bits);
        }
    }
}
