//! AES as FIPS 197 writes it, without tables and without the processor's own instruction for it. Slow, and not for keeping
//! secrets: it is here to be computed, for its answer is known.

const ROUNDS_MAX: usize = 14;
const BLOCK: usize = 16;

/// Multiplication by x in GF(2^8) (section 4.2.1).
fn times_x(byte: u8) -> u8 {
    (byte << 1) ^ ((byte >> 7) * 0x1b)
}

fn product(mut one: u8, mut other: u8) -> u8 {
    let mut sum = 0;
    while other != 0 {
        if other & 1 == 1 {
            sum ^= one;
        }
        one = times_x(one);
        other >>= 1;
    }
    sum
}

/// The inverse, which is the power 254, and the affine map after it (section 5.1.1).
fn substitute(byte: u8) -> u8 {
    let square = product(byte, byte);
    let mut inverse = 1;
    let mut power = square;
    for _ in 0..7 {
        inverse = product(inverse, power);
        power = product(power, power);
    }
    (0..5).fold(0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
}

/// The whole box, computed once for each use of it.
fn substitution() -> [u8; 256] {
    let mut table = [0; 256];
    for (byte, out) in (0..=u8::MAX).zip(&mut table) {
        *out = substitute(byte);
    }
    table
}

/// Encrypts one block under a key of 16 or 32 bytes.
pub(crate) fn encrypt<const KEY: usize>(key: &[u8; KEY], block: &[u8; BLOCK]) -> [u8; BLOCK] {
    let table = substitution();
    let boxed = |byte: u8| table[usize::from(byte)];
    let (words, rounds) = (KEY / 4, KEY / 4 + 6);
    let mut schedule = [[0_u8; 4]; 4 * (ROUNDS_MAX + 1)];
    for (word, bytes) in schedule.iter_mut().zip(key.chunks_exact(4)) {
        word.copy_from_slice(bytes);
    }
    let mut constant = 1;
    for at in words..4 * (rounds + 1) {
        let mut word = schedule[at - 1];
        if at % words == 0 {
            word.rotate_left(1);
            word = word.map(boxed);
            word[0] ^= constant;
            constant = times_x(constant);
        } else if words > 6 && at % words == 4 {
            word = word.map(boxed);
        }
        for (byte, before) in word.iter_mut().zip(schedule[at - words]) {
            *byte ^= before;
        }
        schedule[at] = word;
    }
    let mut state = *block;
    let add_key = |state: &mut [u8; BLOCK], round: usize| {
        let key = schedule[4 * round..4 * round + 4].as_flattened();
        state.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
    };
    add_key(&mut state, 0);
    for round in 1..=rounds {
        let before = state.map(boxed);
        for (at, byte) in state.iter_mut().enumerate() {
            *byte = before[(at + 4 * (at % 4)) % BLOCK];
        }
        if round < rounds {
            state.as_chunks_mut::<4>().0.iter_mut().for_each(mix);
        }
        add_key(&mut state, round);
    }
    state
}

/// Section 5.1.3.
fn mix(column: &mut [u8; 4]) {
    let [a, b, c, d] = *column;
    let row = |a: u8, b: u8, c: u8, d: u8| times_x(a) ^ times_x(b) ^ b ^ c ^ d;
    *column = [row(a, b, c, d), row(b, c, d, a), row(c, d, a, b), row(d, a, b, c)];
}
