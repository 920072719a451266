//! Mutants: well-formed requests with one to four wounds, the same for the same seed.

use super::seed;

/// The generator of Steele, Lea and Flood (`SplitMix64`, OOPSLA 2014).
#[derive(Clone, Copy, Debug)]
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `n`, which is above 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Marks a target as this mutant's own; nobody hits another's by chance.
pub fn mark(seed: u64, index: usize) -> String {
    format!("{index}-{:08x}", check(seed, index))
}

fn check(seed: u64, index: usize) -> u32 {
    let mixed = Random::new(seed ^ ((index as u64) << 20)).next();
    u32::try_from(mixed >> 32).expect("32 bits")
}

/// The mutant whose mark a target carries whole, if any.
pub fn owner(seed: u64, target: &str) -> Option<usize> {
    target.split(['/', '?', ';', ' ']).find_map(|part| {
        let (index, sum) = part.split_once('-')?;
        let index: usize = index.parse().ok()?;
        (sum == format!("{:08x}", check(seed, index))).then_some(index)
    })
}

/// What a client sends: the mutant of `index`.
pub fn mutant(seed: u64, index: usize) -> Vec<u8> {
    let mut random = Random::new(seed.wrapping_add(index as u64));
    random.next();
    let mark = mark(seed, index);
    let requests = seed::requests(&mark);
    let mut wire = random.of(&requests).clone().into_bytes();
    // One in sixteen stays whole: the run sees that what is good passes.
    let wounds = [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4][random.below(16)];
    for _ in 0..wounds {
        wound(&mut random, &mut wire, &mark);
    }
    wire
}

fn wound(random: &mut Random, wire: &mut Vec<u8>, mark: &str) {
    match random.below(14) {
        0 | 1 => insert_field(random, wire),
        2 => replace_line(random, wire),
        3 => repeat_line(random, wire),
        4 => drop_line(random, wire),
        5 => replace_end(random, wire),
        6 => replace_target(random, wire, mark),
        7 => replace_method(random, wire),
        8 => replace_size(random, wire),
        9 => flip(random, wire),
        10 => insert_bytes(random, wire),
        11 => cut(random, wire),
        12 => change_case(random, wire),
        _ => grow(random, wire),
    }
}

/// Where each line starts.
fn lines(wire: &[u8]) -> Vec<usize> {
    let after = wire.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after).filter(|at| *at < wire.len()).collect()
}

/// Bounds of one line, its end included.
fn line(random: &mut Random, wire: &[u8]) -> std::ops::Range<usize> {
    let starts = lines(wire);
    if starts.is_empty() {
        return 0..wire.len();
    }
    let n = random.below(starts.len());
    starts[n]..starts.get(n + 1).copied().unwrap_or(wire.len())
}

fn insert_field(random: &mut Random, wire: &mut Vec<u8>) {
    let starts = lines(wire);
    let at = starts.get(1 + random.below(4)).copied().unwrap_or(wire.len());
    let field = format!("{}\r\n", random.of(seed::FIELDS));
    wire.splice(at..at, field.into_bytes());
}

fn replace_line(random: &mut Random, wire: &mut Vec<u8>) {
    let at = line(random, wire);
    let field = format!("{}\r\n", random.of(seed::FIELDS));
    wire.splice(at, field.into_bytes());
}

fn repeat_line(random: &mut Random, wire: &mut Vec<u8>) {
    let at = line(random, wire);
    let again = wire[at.clone()].to_vec();
    wire.splice(at.start..at.start, again);
}

fn drop_line(random: &mut Random, wire: &mut Vec<u8>) {
    let at = line(random, wire);
    wire.drain(at);
}

fn replace_end(random: &mut Random, wire: &mut Vec<u8>) {
    let at = line(random, wire);
    let end = wire[at.clone()].iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
    let from = end.map_or(at.start, |end| at.start + end + 1);
    let other = *random.of(seed::ENDS);
    wire.splice(from..at.end, other.bytes());
}

fn replace_target(random: &mut Random, wire: &mut Vec<u8>, mark: &str) {
    let spaces: Vec<usize> =
        wire.iter().enumerate().filter(|(_, byte)| **byte == b' ').map(|(at, _)| at).collect();
    if let [first, second, ..] = spaces[..] {
        let target = random.of(seed::TARGETS).replace("{}", mark);
        wire.splice(first + 1..second, target.into_bytes());
    }
}

fn replace_method(random: &mut Random, wire: &mut Vec<u8>) {
    if let Some(end) = wire.iter().position(|byte| *byte == b' ') {
        let method = *random.of(seed::METHODS);
        wire.splice(..end, method.bytes());
    }
}

/// Another size for a chunk, or for whatever else is a line of few bytes.
fn replace_size(random: &mut Random, wire: &mut Vec<u8>) {
    let starts = lines(wire);
    let short = starts.iter().enumerate().filter_map(|(n, &from)| {
        let to = starts.get(n + 1).copied().unwrap_or(wire.len());
        (to - from <= 8).then_some(from..to)
    });
    let short: Vec<_> = short.collect();
    if !short.is_empty() {
        let at = random.of(&short).clone();
        let size = format!("{}\r\n", random.of(seed::SIZES));
        wire.splice(at, size.into_bytes());
    }
}

fn flip(random: &mut Random, wire: &mut [u8]) {
    if !wire.is_empty() {
        let at = random.below(wire.len());
        wire[at] ^= 1 << random.below(8);
    }
}

fn insert_bytes(random: &mut Random, wire: &mut Vec<u8>) {
    const ODD: &[u8] = b"\0\t\n\r \x0b\x0c\x7f\x80\x85\xa0\xff:;,\"%/\\";
    let at = random.below(wire.len() + 1);
    let byte = *random.of(ODD);
    wire.insert(at, byte);
}

fn cut(random: &mut Random, wire: &mut Vec<u8>) {
    if !wire.is_empty() {
        let at = random.below(wire.len());
        let to = (at + 1 + random.below(6)).min(wire.len());
        wire.drain(at..to);
    }
}

fn change_case(random: &mut Random, wire: &mut [u8]) {
    let at = line(random, wire);
    for byte in &mut wire[at] {
        if byte.is_ascii_alphabetic() && random.below(2) == 0 {
            *byte ^= 0x20;
        }
    }
}

/// Many fields, or a long one.
fn grow(random: &mut Random, wire: &mut Vec<u8>) {
    let starts = lines(wire);
    let at = starts.get(1).copied().unwrap_or(wire.len());
    let fields = if random.below(2) == 0 {
        format!("X-Long: {}\r\n", "a".repeat(64 << random.below(8)))
    } else {
        (0..1 + random.below(60)).map(|n| format!("X-{n}: {n}\r\n")).collect()
    };
    wire.splice(at..at, fields.into_bytes());
}

#[test]
fn a_mutant_is_the_same_for_the_same_seed_and_its_mark_is_its_own() {
    for index in 0..500 {
        assert_eq!(mutant(7, index), mutant(7, index));
        assert_eq!(owner(7, &format!("/a/{};x", mark(7, index))), Some(index));
        assert_eq!(owner(8, &format!("/{}", mark(7, index))), None);
    }
    let distinct: std::collections::BTreeSet<_> = (0..500).map(|index| mutant(7, index)).collect();
    assert_eq!(distinct.len(), 500);
}
