//! The work and its answers. Answers are constants, from the standards where they give some, otherwise computed by other
//! programs (Python's integers, floats and hashlib, OpenSSL) on other machines.

use crate::aes;
use crate::judge::Wrong;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest;
use sha2::{Digest, Sha256};
use std::hint::black_box;

/// Words of memory that one run looks at: 2 MiB, more than most cores keep close to them, and written and read in a
/// millisecond.
pub const MEMORY_WORDS: usize = 256 * 1024;
/// Times SHA-256 is taken of what it gave, from 32 zero bytes on.
const HASHES: usize = 64;
const INTEGER_STEPS: u64 = 4_096;
const FLOAT_STEPS: u32 = 2_048;
const LANES: usize = 4;
const STREAM_BYTES: usize = 4_096;
/// Of an answer, so that it can be shown.
const SHOWN_BYTES: usize = 16;

const SHA256_OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const SHA256_CHAIN: &str = "f029840bcab646b26538775d92712fe37f7a3cbecbcd62ca19920e838d744440";
const AES_128: &str = "69c4e0d86a7b0430d8cdb78070b4c55a";
const AES_256: &str = "8ea2b7ca516745bfeafc49904b496089";
/// McGrew and Viega, *The Galois/Counter Mode of Operation*, test case 14: the block and its tag.
const GCM_256: &str = "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919";
/// SHA-256 of what AES-256-CTR makes of 4,096 zero bytes from the same counter on.
const GCM_STREAM: &str = "7cdd76d7d033a644e7a0a03c22266313d16d9fcb71bfe6c96659f56320c160ae";
const INTEGER: u64 = 0x8312_8a7a_4578_e08e;
/// Of each lane: where it ended, and its sum.
const FLOAT: [(u64, u64); LANES] = [
    (0x3fdf_62de_e40e_edb3, 0x404d_28e7_ac19_977f),
    (0x3fe5_e11a_96ba_df23, 0x404c_fcdd_ec7f_7f05),
    (0x3fea_a489_91fc_563c, 0x404d_0fd3_663c_1349),
    (0x3fd5_0488_edf1_60cc, 0x404d_5542_5a34_4138),
];

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Test {
    /// FIPS 180-4, by two programs: one of them uses the processor's own instructions where it has them.
    Sha256,
    /// FIPS 197 step by step.
    AesSoftware,
    /// The same by the processor's own instructions where it has them, with their multiplication for GCM.
    AesHardware,
    /// Multiplication to 128 bits, division, rotation, counting.
    Integer,
    /// IEEE 754: addition, multiplication, division, root; in lanes, so that vectors are used. The series is chaotic: a wrong
    /// last bit is everywhere a hundred steps later.
    Float,
    /// Each word's own address, its inverse, and one bit that walks.
    Memory,
}

impl Test {
    pub const ALL: [Test; 6] =
        [Test::Sha256, Test::AesSoftware, Test::AesHardware, Test::Integer, Test::Float, Test::Memory];

    /// Lower case, as a metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Test::Sha256 => "sha256",
            Test::AesSoftware => "aes_software",
            Test::AesHardware => "aes_hardware",
            Test::Integer => "integer",
            Test::Float => "float",
            Test::Memory => "memory",
        }
    }

    /// Computes it where it is called. `seed` moves the patterns in memory; the other answers do not depend on it.
    ///
    /// # Errors
    /// The first answer that is not the known one.
    pub fn run(self, seed: u64) -> Result<(), Wrong> {
        match self {
            Test::Sha256 => sha256(),
            Test::AesSoftware => aes_software(),
            Test::AesHardware => aes_hardware(),
            Test::Integer => same_number(INTEGER, integer()),
            Test::Float => float(),
            Test::Memory => {
                // New pages each time: in the long run, much of the memory is looked at.
                let mut words = vec![0; MEMORY_WORDS];
                memory(&mut words, seed)
            }
        }
    }
}

fn same(expected: &str, got: &[u8]) -> Result<(), Wrong> {
    let got = hex::encode(got);
    if black_box(got.as_str()) == expected {
        return Ok(());
    }
    // What differs is what is shown.
    let at = got.bytes().zip(expected.bytes()).position(|(one, other)| one != other).unwrap_or(0);
    let from = at / 2 * 2;
    let shown = |text: &str| text.get(from..(from + 2 * SHOWN_BYTES).min(text.len())).unwrap_or(text).to_owned();
    Err(Wrong { expected: shown(expected), got: shown(&got) })
}

fn same_number(expected: u64, got: u64) -> Result<(), Wrong> {
    if black_box(got) == expected {
        return Ok(());
    }
    Err(Wrong { expected: format!("{expected:016x}"), got: format!("{got:016x}") })
}

fn sha256() -> Result<(), Wrong> {
    same(SHA256_OF_ABC, &Sha256::digest(black_box(b"abc")))?;
    same(SHA256_OF_ABC, digest::digest(&digest::SHA256, black_box(b"abc")).as_ref())?;
    let (mut one, mut other) = ([0; 32], [0; 32]);
    for _ in 0..HASHES {
        one = Sha256::digest(black_box(one)).into();
        let next = digest::digest(&digest::SHA256, &black_box(other));
        other.copy_from_slice(next.as_ref());
    }
    same(SHA256_CHAIN, &one)?;
    same(SHA256_CHAIN, &other)
}

fn aes_software() -> Result<(), Wrong> {
    let key: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).expect("a key has 32 bytes"));
    let block: [u8; 16] = std::array::from_fn(|at| u8::try_from(at * 0x11).expect("16 times 0x11 is a byte"));
    let short: [u8; 16] = std::array::from_fn(|at| key[at]);
    same(AES_128, &aes::encrypt(&black_box(short), &black_box(block)))?;
    same(AES_256, &aes::encrypt(&black_box(key), &black_box(block)))
}

fn aes_hardware() -> Result<(), Wrong> {
    let sealed = |bytes: usize| {
        let key = UnboundKey::new(&AES_256_GCM, &black_box([0; 32])).map(LessSafeKey::new);
        let key = key.expect("32 bytes are a key of AES-256");
        let mut text = vec![0; bytes];
        let nonce = Nonce::assume_unique_for_key(black_box([0; 12]));
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), black_box(&mut text));
        let tag = tag.expect("some kilobytes are never too many").as_ref().to_vec();
        (text, tag)
    };
    let (text, tag) = sealed(16);
    same(GCM_256, &[text, tag].concat())?;
    same(GCM_STREAM, &Sha256::digest(sealed(STREAM_BYTES).0))
}

fn integer() -> u64 {
    let (mut a, mut sum) = (black_box(0x9e37_79b9_7f4a_7c15_u64), 0_u64);
    for step in 1..=black_box(INTEGER_STEPS) {
        a = a.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(step);
        let wide = u128::from(a) * u128::from(a.rotate_left(17));
        let [low, high] = [wide, wide >> 64].map(|half| half as u64);
        let divisor = (a >> 33) | 1;
        sum = sum.rotate_left(5) ^ high ^ (low / divisor);
        sum = sum.wrapping_add(a % divisor + u64::from(a.count_ones()));
        sum ^= (a.cast_signed() / step.cast_signed()).cast_unsigned();
    }
    sum
}

fn float() -> Result<(), Wrong> {
    let mut at = black_box([0.125_f64, 0.3, 0.5, 0.71]);
    let mut sums = [0.0_f64; LANES];
    for step in 1..=black_box(FLOAT_STEPS) {
        let step = f64::from(step);
        for (x, sum) in at.iter_mut().zip(&mut sums) {
            *x = 3.9 * *x * (1.0 - *x);
            *sum = *sum + (*x / step).sqrt() * 1.000_000_1 - 1.0 / (step + *x);
        }
    }
    for ((x, sum), expected) in at.iter().zip(sums).zip(FLOAT) {
        same_number(expected.0, x.to_bits())?;
        same_number(expected.1, sum.to_bits())?;
    }
    Ok(())
}

fn memory(words: &mut [u64], seed: u64) -> Result<(), Wrong> {
    let address = |at: usize| (at as u64 ^ seed).wrapping_mul(0x0001_0000_0001_0001);
    pattern(words, address)?;
    pattern(words, |at| !address(at))?;
    pattern(words, |at| 1 << ((at as u64).wrapping_add(seed) % 64))
}

fn pattern(words: &mut [u64], expected: impl Fn(usize) -> u64) -> Result<(), Wrong> {
    for (at, word) in words.iter_mut().enumerate() {
        *word = expected(at);
    }
    let written = black_box(words);
    match written.iter().enumerate().find(|(at, word)| **word != expected(*at)) {
        None => Ok(()),
        Some((at, word)) => {
            Err(Wrong { expected: format!("{:016x}", expected(at)), got: format!("{word:016x} in word {at}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_the_known_one() {
        for test in Test::ALL {
            for seed in [0, 1, u64::MAX] {
                assert_eq!(test.run(seed), Ok(()), "{}", test.name());
            }
        }
    }

    #[test]
    fn a_word_that_changes_is_found_whichever_bit_it_is() {
        for bit in 0..64 {
            let mut words = vec![0; 1_000];
            for (at, word) in words.iter_mut().enumerate() {
                *word = at as u64 ^ if at == 700 { 1 << bit } else { 0 };
            }
            // As if it had been written so: the pattern is compared without being written.
            let found = words.iter().enumerate().find(|(at, word)| **word != *at as u64);
            assert_eq!(found.map(|(at, _)| at), Some(700));
        }
        let mut words = vec![0; 1_000];
        assert_eq!(memory(&mut words, 5), Ok(()));
    }

    #[test]
    fn what_differs_is_shown() {
        let wrong = same(SHA256_OF_ABC, &[0xba; 32]).expect_err("it is another");
        assert_eq!(&wrong.expected[..4], "7816");
        assert_eq!(&wrong.got[..4], "baba");
        let wrong = same_number(1, 2).expect_err("it is another");
        assert_eq!((wrong.expected.as_str(), wrong.got.as_str()), ("0000000000000001", "0000000000000002"));
    }
}
