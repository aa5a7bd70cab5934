//! Memory that nobody uses any more is given back to the machine.
//!
//! Owns the judgement when that is worth its price: glibc's allocator keeps what lies below anything that is still in
//! use, so that one connection of ten thousand holds the memory of the others for good. Walking through it takes
//! milliseconds, and what is given back costs a fault each page when it is wanted again: so only much of it, and only
//! what stayed free for a while, goes. Does not know what the memory was for.

use std::time::Duration;
use world::memory;

/// Between two looks. What is given back was free at two of them.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Less is not looked for: some thousand connections' worth.
const WORTH_BYTES: u64 = 8 << 20;

/// What was seen before.
#[derive(Debug, Default)]
struct Slack {
    /// The least that was ever held: what is near that is not looked through.
    held_min: Option<u64>,
    /// The least of it that was free since something was given back last: what lies between pieces in use cannot be given
    /// back, and is not tried for again until there is more of it.
    free_min: Option<u64>,
    /// It was worth it at the last look.
    is_worth: bool,
}

impl Slack {
    /// Whether to give back now. Asks for what is allocated only when more is held than once was enough.
    fn look(&mut self, held: u64, allocated: impl FnOnce() -> Option<u64>) -> bool {
        let least = *self.held_min.insert(self.held_min.map_or(held, |least| least.min(held)));
        let was_worth = std::mem::take(&mut self.is_worth);
        if held < least + WORTH_BYTES {
            return false;
        }
        let Some(allocated) = allocated() else { return false };
        let free = held.saturating_sub(allocated);
        let least = *self.free_min.insert(self.free_min.map_or(free.min(WORTH_BYTES), |least| least.min(free)));
        self.is_worth = free >= least + WORTH_BYTES;
        self.is_worth && was_worth
    }

    /// So much is held after giving back, and what is free of it cannot be given.
    fn given(&mut self, held: u64, allocated: Option<u64>) {
        self.free_min = allocated.map(|allocated| held.saturating_sub(allocated));
        self.is_worth = false;
    }
}

/// Looks for ever. Ends with the gateway; whatever is being given back then is.
pub(crate) async fn keep() {
    let mut slack = Slack::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(held) = memory::held_bytes() else { return };
        if !slack.look(held, memory::allocated_bytes) {
            continue;
        }
        if tokio::task::spawn_blocking(memory::give_back).await.is_err() {
            return;
        }
        let Some(left) = memory::held_bytes() else { return };
        slack.given(left, memory::allocated_bytes());
        tracing::debug!(given_bytes = held.saturating_sub(left), left_bytes = left, "memory given back");
    }
}

#[cfg(test)]
mod tests {
    use super::Slack;

    const MB: u64 = 1 << 20;

    /// What is held and allocated at each look, in MB; at which of them it is given back, leaving `left`.
    fn given(looks: &[(u64, u64)], left: (u64, u64)) -> Vec<usize> {
        let mut slack = Slack::default();
        let mut given = Vec::new();
        for (number, (held, allocated)) in looks.iter().enumerate() {
            if slack.look(held * MB, || Some(allocated * MB)) {
                slack.given(left.0 * MB, Some(left.1 * MB));
                given.push(number);
            }
        }
        given
    }

    #[test]
    fn what_stays_free_is_given_back_once() {
        for (looks, left, expected) in [
            (vec![(10, 8); 5], (0, 0), vec![]),
            // An attack, its end, and quiet.
            (vec![(10, 8), (100, 95), (110, 105), (110, 9), (110, 9), (14, 9), (14, 9)], (14, 9), vec![4]),
            // Free for a moment only.
            (vec![(10, 8), (110, 9), (110, 100), (110, 9), (110, 100)], (14, 9), vec![]),
            // In use, all of it.
            (vec![(10, 8), (110, 105), (110, 105), (110, 105)], (14, 9), vec![]),
            // What cannot be given back is not tried for again.
            (vec![(10, 8), (110, 9), (110, 9), (110, 9), (110, 9)], (110, 9), vec![2]),
            // A second time.
            (vec![(10, 8), (110, 9), (110, 9), (90, 85), (90, 9), (90, 9)], (14, 9), vec![2, 5]),
            // While most is in use, and once more when it no longer is.
            (vec![(10, 8), (110, 60), (110, 60), (80, 70), (80, 9), (80, 9)], (75, 60), vec![2, 5]),
        ] {
            assert_eq!(given(&looks, left), expected, "{looks:?}");
        }
        let mut slack = Slack::default();
        assert!(!slack.look(MB, || panic!("nothing to ask for")));
        assert!(!slack.look(100 * MB, || None) && !slack.look(100 * MB, || None));
    }
}
