//! Randomness from the kernel: ids, tokens, jitter.

use crate::simulated;
use std::sync::atomic::{AtomicU64, Ordering};

/// Letters and digits without those a person confuses (Crockford's base 32, lower case).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Fills `out` with random bytes.
///
/// # Panics
/// When the kernel has no randomness: nothing may go on without it, since ids and tokens would repeat.
pub fn fill(out: &mut [u8]) {
    if let Some(host) = simulated::current() {
        for bytes in out.chunks_mut(8) {
            bytes.copy_from_slice(&host.dice().roll().to_le_bytes()[..bytes.len()]);
        }
        return;
    }
    getrandom::fill(out).expect("the kernel hands out random bytes");
}

/// A uniformly distributed number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Even numbers without a system call (splitmix64), for ids and choices that need not be secret.
#[derive(Debug)]
pub struct Dice(AtomicU64);

impl Dice {
    /// Seeded by the kernel.
    pub fn new() -> Dice {
        Dice(AtomicU64::new(number()))
    }

    /// The same numbers for the same `seed`.
    pub fn seeded(seed: u64) -> Dice {
        Dice(AtomicU64::new(seed))
    }

    /// Others, which give other numbers.
    pub fn others(&self) -> Dice {
        Dice(AtomicU64::new(self.roll()))
    }

    pub fn roll(&self) -> u64 {
        let mut mixed = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Default for Dice {
    fn default() -> Dice {
        Dice::new()
    }
}

/// A random word of `length` characters, five bits each.
pub fn word(length: usize) -> String {
    let mut bytes = vec![0; length];
    fill(&mut bytes);
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}
