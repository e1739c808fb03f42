//! What is done to a seed: flips, cuts, splices, insertions and numbers at the ends of their ranges.

use rand::Rng;

/// Numbers that arithmetic stumbles over.
const EDGES: [u64; 8] = [0, 1, 0x7f, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 0xffff, 1 << 32];

/// An input made from one or two others.
pub fn mutate(rng: &mut impl Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..=4) {
        once(rng, &mut bytes, other);
    }
    bytes
}

fn once(rng: &mut impl Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend((0..rng.random_range(0..64)).map(|_| rng.random::<u8>()));
        return;
    }
    let at = rng.random_range(0..bytes.len());
    match rng.random_range(0..8) {
        0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => bytes.truncate(at),
        4 => {
            let end = rng.random_range(at..bytes.len().min(at + 64));
            bytes.drain(at..=end);
        }
        5 => {
            let few: Vec<u8> = (0..rng.random_range(1..=16)).map(|_| rng.random()).collect();
            bytes.splice(at..at, few);
        }
        6 if !other.is_empty() => {
            let from = rng.random_range(0..other.len());
            let piece = other[from..other.len().min(from + rng.random_range(1..=256))].to_vec();
            let end = if rng.random() { bytes.len().min(at + piece.len()) } else { at };
            bytes.splice(at..end, piece);
        }
        _ => {
            let edge = EDGES[rng.random_range(0..EDGES.len())].to_le_bytes();
            let width = [1, 2, 4, 8][rng.random_range(0..4)];
            for (to, from) in bytes[at..].iter_mut().zip(&edge[..width]) {
                *to = *from;
            }
        }
    }
}

/// Bytes without any form.
pub fn noise(rng: &mut impl Rng) -> Vec<u8> {
    let most = if rng.random_range(0..8) == 0 { 4096 } else { 200 };
    let length = rng.random_range(0..most);
    (0..length).map(|_| rng.random()).collect()
}
