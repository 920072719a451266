//! MurmurHash3 x86_32 (Austin Appleby, public domain): what flagd buckets by.
//!
//! Called per `fractional` operation. Invariant: the reference values below; a change
//! moves every subject to another bucket.

/// The hash of `bytes` with seed 0.
pub(super) fn hash(bytes: &[u8]) -> u32 {
    let (blocks, tail) = bytes.as_chunks::<4>();
    let mut hash = 0_u32;
    for block in blocks {
        hash ^= mix(u32::from_le_bytes(*block));
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = tail.iter().rev().fold(0_u32, |rest, byte| rest << 8 | u32::from(*byte));
    hash ^= mix(rest);
    // The algorithm takes the length modulo 2^32.
    finish(hash ^ bytes.len() as u32)
}

const fn mix(block: u32) -> u32 {
    block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593)
}

const fn finish(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn the_reference_values_come_out() {
        for (text, want) in [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("aaa", 0xb4d0_5fb7),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ] {
            assert_eq!(hash(text.as_bytes()), want, "{text}");
        }
    }
}
