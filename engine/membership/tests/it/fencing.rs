//! No instance has two machines: whatever is late, lost, led by others, or counted by clocks that run apart.

use membership::fencing::{Count, held_until_ms, margin_ms};
use proptest::prelude::*;

const STOP_AFTER_MS: u64 = 10_000;
const ONE: &str = "shop.db.1.abcdef";

/// A clock that shows something else than others do, and runs at its own rate.
#[derive(Debug, Clone, Copy)]
struct Clock {
    shows_ms: u64,
    ppm: i64,
}

impl Clock {
    /// What it shows at a true time.
    fn at(self, true_ms: u64) -> u64 {
        let true_ms = i64::try_from(true_ms).expect("days at the most");
        self.shows_ms + u64::try_from(true_ms + true_ms * self.ppm / 1_000_000).expect("after its start")
    }

    /// The first true time at which it shows that much.
    fn when(self, shown_ms: u64) -> u64 {
        let (mut early, mut late) = (0, 1 << 40);
        while early < late {
            let middle = (early + late) / 2;
            if self.at(middle) < shown_ms { early = middle + 1 } else { late = middle }
        }
        early
    }
}

fn clock() -> impl Strategy<Value = Clock> {
    // The kernel slews by 500 ppm at the most.
    let ppm = prop_oneof![Just(-500), Just(500), -500..=500_i64];
    (0..1_000_000_000_u64, ppm).prop_map(|(shows_ms, ppm)| Clock { shows_ms, ppm })
}

/// What happens next, so many milliseconds later.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// The machine asks: a majority has answered after the first, and the answer arrives after the second, if at all.
    Ask { confirmed_ms: u64, back_ms: Option<u64> },
    /// Another machine leads, or the same one anew.
    Lead(Clock),
    /// That the instance is kept from running is demanded, and is so by those who lead later too.
    Demand,
}

fn event() -> impl Strategy<Value = (u64, Event)> {
    let late = prop_oneof![Just(0), 0..4_000_u64];
    let ask = (late, proptest::option::weighted(0.8, 0..9_000_u64))
        .prop_map(|(confirmed_ms, back_ms)| Event::Ask { confirmed_ms, back_ms });
    let event = prop_oneof![8 => ask, 2 => clock().prop_map(Event::Lead), 1 => Just(Event::Demand)];
    (0..3_000_u64, event)
}

proptest! {
    #[test]
    fn never_do_two_machines_have_an_instance(
        holder in clock(),
        leader in clock(),
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let (mut now, mut leader) = (0, leader);
        let mut count = Count::new(leader.at(0));
        // By true time: until when the first machine has it, at most, and from when another may.
        let (mut has_until, mut may_from): (u64, Option<u64>) = (0, None);
        let mut demanded = false;
        for (later, event) in events {
            now += later;
            match event {
                Event::Ask { confirmed_ms, back_ms } => {
                    // One that led until the next began gives no answer after that: so asked, then confirmed, then answered.
                    let asked = now;
                    now += confirmed_ms;
                    if count.give(leader.at(now), ONE, STOP_AFTER_MS) && let Some(back_ms) = back_ms {
                        let until = holder.when(held_until_ms(holder.at(asked), STOP_AFTER_MS));
                        // What arrives after its end is refused by the shim.
                        if now + back_ms < until {
                            has_until = has_until.max(until);
                        }
                    }
                }
                Event::Lead(next) => {
                    leader = next;
                    count = Count::new(leader.at(now));
                }
                Event::Demand => demanded = true,
            }
            if demanded {
                let over = leader.when(count.close(ONE, STOP_AFTER_MS));
                may_from = Some(may_from.map_or(over, |earlier: u64| earlier.min(over)).max(now));
            }
        }
        if let Some(may_from) = may_from {
            // With what killing takes.
            prop_assert!(has_until + 999 < may_from, "until {has_until}, from {may_from}");
        }
    }
}

#[test]
fn what_gets_no_lease_any_more_is_over_a_while_after_the_last_one() {
    let mut count = Count::new(1_000);
    assert!(count.give(50_000, ONE, STOP_AFTER_MS));
    assert_eq!(count.close(ONE, STOP_AFTER_MS), 60_000 + margin_ms(STOP_AFTER_MS));
    assert!(!count.give(51_000, ONE, STOP_AFTER_MS), "closed");
    assert!(count.give(51_000, "shop.web.1.abcdef", STOP_AFTER_MS), "others go on");
    assert_eq!(count.close(ONE, STOP_AFTER_MS), 60_000 + margin_ms(STOP_AFTER_MS), "asked again it says the same");
    count.keep_closed(|_| false);
    assert!(count.give(52_000, ONE, STOP_AFTER_MS), "its machine was back in time");
}

#[test]
fn who_leads_newly_counts_for_those_before() {
    let mut count = Count::new(100_000);
    assert_eq!(count.close(ONE, STOP_AFTER_MS), 110_000 + margin_ms(STOP_AFTER_MS));
}

#[test]
fn what_is_over_is_not_kept() {
    let mut count = Count::new(0);
    for number in 0..1_000_u64 {
        assert!(count.give(number * 30_000, &number.to_string(), STOP_AFTER_MS));
    }
    assert!(format!("{count:?}").len() < 200, "{count:?}");
}
