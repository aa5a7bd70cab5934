//! Whether a core still computes right: work with known answers, and what follows from a wrong one.
//!
//! Owns the work ([`Test`]) and the machine that says what is to be computed on which core next, and when an answer is
//! enough to judge a core by ([`Judge`]). Promises that one wrong answer is never the last word on a core: it is asked again,
//! and so is another. Never knows how a thread comes to a core, nor what becomes of a machine with a core that is wrong.
//!
//! Cores that answer wrong now and then, without a word of the machine's own checks, are rare and expensive: P. Hochschild et
//! al., *Cores that don't count* (HotOS 2021); H. D. Dixit et al., *Silent data corruptions at scale* (2021). What those found
//! were mostly cores wrong at one kind of work, at some temperatures: hence several kinds, a little at a time, for ever.

mod aes;
mod judge;
mod work;

pub use judge::{Fault, Judge, Outcome, Task, Wrong};
pub use work::{MEMORY_WORDS, Test};
