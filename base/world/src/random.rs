//! Randomness from the kernel: ids, tokens, jitter.

/// Letters and digits without those a person confuses (Crockford's base 32, lower case).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Fills `out` with random bytes.
///
/// # Panics
/// When the kernel has no randomness: nothing may go on without it, since ids and tokens would repeat.
pub fn fill(out: &mut [u8]) {
    getrandom::fill(out).expect("the kernel hands out random bytes");
}

/// A uniformly distributed number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// A random word of `length` characters, five bits each.
pub fn word(length: usize) -> String {
    let mut bytes = vec![0; length];
    fill(&mut bytes);
    bytes.into_iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}
