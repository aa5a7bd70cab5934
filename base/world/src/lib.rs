//! The one door to what makes one run differ from the next: clock, randomness, disk, network, tasks, memory.
//!
//! Owns the traits and the real implementations; tests pass simulated ones. Knows nothing of what is
//! stored, sent or run through it. The lists in `clippy.toml` keep everybody else from going around.

pub mod bell;
pub mod clock;
pub mod disk;
pub mod memory;
pub mod net;
pub mod random;
pub mod simulated;
pub mod task;
pub mod tunnel;
pub mod worker;
