//! The balancer as its callers use it.

mod breaker;
mod choice;
mod pool;
mod simulation;

use balancer::{Endpoint, Outcome, Pool};

const OK: Outcome = Outcome::Ok { latency_us: 5_000 };

fn endpoint(id: &str) -> Endpoint {
    Endpoint { id: id.to_owned(), weight: 1, ..Endpoint::default() }
}

fn pool(ids: &[&str]) -> Pool {
    let mut pool = Pool::new();
    pool.update(0, ids.iter().map(|id| endpoint(id)).collect());
    pool
}

/// A stream of random numbers that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An even number in `0..below`.
    fn below(&mut self, below: u64) -> u64 {
        self.roll() % below
    }
}
