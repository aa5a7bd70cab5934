//! When an authority may be asked again.
//!
//! Owns the bounds: attempts per name and hour, and pauses that double. Promises never to hammer, across restarts too,
//! since it is kept. Pure: it is told the time and given the dice.

use crate::error::Fault;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const HOUR_S: u64 = 3_600;
/// Let's Encrypt allows five failed validations per name and hour; what was begun counts, however it ended.
const ATTEMPTS_PER_HOUR: usize = 5;
/// An authority that is away is most often back within moments, and asking costs it nothing.
const ABSENT_S: u64 = 5;
/// A name that does not lead here yet will not within seconds.
const REFUSED_S: u64 = 60;
/// Limits are counted by the hour at least.
const CROWDED_S: u64 = HOUR_S;
/// Whatever is wrong, somebody repairs it and expects it to be noticed the same day.
const PAUSE_S_MAX: u64 = 6 * HOUR_S;
/// An authority may ask for more than that; not for more than a person would wait before looking.
const TOLD_S_MAX: u64 = 7 * 24 * HOUR_S;

/// What happened to every name, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// Of this form; there was none before 1.
    pub version: u32,
    pub names: BTreeMap<String, Record>,
}

/// What happened to one name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When orders were begun, within the last hour.
    attempts_s: Vec<u64>,
    /// In a row, and of one kind.
    failures: u32,
    fault: Option<Fault>,
    /// Not before this.
    pub retry_at_s: u64,
    /// Why the last attempt failed; empty when it did not.
    pub problem: String,
}

impl Ledger {
    pub const VERSION: u32 = 1;

    pub fn record(&mut self, name: &str) -> &mut Record {
        self.names.entry(name.to_owned()).or_default()
    }

    /// When the next attempt for `name` may begin.
    pub fn due_s(&self, name: &str, now_s: u64) -> u64 {
        self.names.get(name).map_or(now_s, |record| record.due_s(now_s))
    }
}

impl Record {
    /// When the next attempt may begin. A clock that was set back puts nothing off for ever.
    pub fn due_s(&self, now_s: u64) -> u64 {
        let recent: Vec<u64> = self.recent(now_s).collect();
        let room_at = recent.len().checked_sub(ATTEMPTS_PER_HOUR).and_then(|at| recent.get(at));
        let room_at_s = room_at.map_or(now_s, |oldest| oldest + HOUR_S);
        self.retry_at_s.min(now_s + TOLD_S_MAX).max(room_at_s).max(now_s)
    }

    /// An attempt begins.
    pub fn begins(&mut self, now_s: u64) {
        self.attempts_s = self.recent(now_s).collect();
        self.attempts_s.push(now_s);
    }

    /// It failed. `told_s`: how long the authority asked to be left alone.
    pub fn failed(&mut self, now_s: u64, fault: Fault, told_s: Option<u64>, problem: String, dice: u64) {
        // An authority that is back and refuses is another matter than one that was away all night.
        self.failures = if self.fault == Some(fault) { self.failures.saturating_add(1) } else { 1 };
        self.fault = Some(fault);
        if fault == Fault::Absent {
            // It has not noticed, so it does not count.
            self.attempts_s.pop();
        }
        let first_s = match fault {
            Fault::Absent => ABSENT_S,
            Fault::Refused => REFUSED_S,
            Fault::Crowded => CROWDED_S,
        };
        let doubled = first_s.checked_shl((self.failures - 1).min(20)).unwrap_or(PAUSE_S_MAX).min(PAUSE_S_MAX);
        // Between three and five quarters, so that many machines do not come back together.
        let pause_s = doubled * 3 / 4 + dice % (doubled / 2 + 1);
        self.retry_at_s = now_s + pause_s.max(told_s.unwrap_or(0).min(TOLD_S_MAX));
        self.problem = problem;
    }

    /// It succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.fault = None;
        self.retry_at_s = 0;
        self.problem = String::new();
    }

    fn recent(&self, now_s: u64) -> impl Iterator<Item = u64> {
        self.attempts_s.iter().copied().filter(move |at_s| *at_s <= now_s && now_s - at_s < HOUR_S)
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTEMPTS_PER_HOUR, Ledger, PAUSE_S_MAX, Record};
    use crate::error::Fault;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_700_000_000;

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut record = Record::default();
        assert_eq!(record.due_s(NOW_S), NOW_S, "nothing happened yet");
        let mut pauses = Vec::new();
        for _ in 0..14 {
            record.failed(NOW_S, Fault::Absent, None, "away".to_owned(), 0);
            pauses.push(record.retry_at_s - NOW_S);
        }
        assert_eq!(pauses[..4], [3, 7, 15, 30]);
        assert_eq!(pauses[13], PAUSE_S_MAX * 3 / 4);
        record.failed(NOW_S, Fault::Refused, None, "no".to_owned(), 0);
        assert_eq!(record.retry_at_s - NOW_S, 45, "it is back, and refuses for the first time");
        record.succeeded();
        assert_eq!((record.due_s(NOW_S), record.problem.as_str()), (NOW_S, ""));
        record.failed(NOW_S, Fault::Refused, None, "no".to_owned(), u64::MAX);
        assert!((45..=75).contains(&(record.retry_at_s - NOW_S)), "{record:?}");
    }

    #[test]
    fn what_the_authority_says_is_heeded_within_reason() {
        let mut record = Record::default();
        record.failed(NOW_S, Fault::Crowded, Some(10_000), String::new(), 0);
        assert_eq!(record.retry_at_s, NOW_S + 10_000);
        record.failed(NOW_S, Fault::Absent, Some(u64::MAX), String::new(), 0);
        assert_eq!(record.due_s(NOW_S), NOW_S + 7 * 86_400);
        assert_eq!(record.due_s(NOW_S - 400_000_000), NOW_S - 400_000_000 + 7 * 86_400, "the clock was set back");
    }

    #[test]
    fn a_crash_loop_does_not_hammer() {
        let mut ledger = Ledger { version: Ledger::VERSION, ..Ledger::default() };
        let mut begun = 0;
        for second in 0..3_600 {
            // Each of these is a start that got as far as an order, and died.
            let kept = serde_json::to_string(&ledger).unwrap();
            ledger = serde_json::from_str(&kept).unwrap();
            if ledger.due_s("a.test", NOW_S + second) <= NOW_S + second {
                ledger.record("a.test").begins(NOW_S + second);
                begun += 1;
            }
        }
        assert_eq!(begun, ATTEMPTS_PER_HOUR);
        assert_eq!(ledger.due_s("a.test", NOW_S + 3_600), NOW_S + 3_600, "an hour later there is room");
        assert_eq!(ledger.due_s("b.test", NOW_S), NOW_S);
    }

    proptest! {
        #[test]
        fn no_history_puts_a_name_off_for_ever(
            faults in prop::collection::vec((0..3_u8, any::<u64>(), any::<Option<u64>>(), 0..100_000_u64), 0..40),
        ) {
            let mut record = Record::default();
            let mut now_s = NOW_S;
            for (fault, dice, told_s, passes_s) in faults {
                let fault = [Fault::Absent, Fault::Refused, Fault::Crowded][usize::from(fault)];
                record.begins(now_s);
                record.failed(now_s, fault, told_s, String::new(), dice);
                let due_s = record.due_s(now_s);
                prop_assert!(due_s > now_s && due_s <= now_s + 7 * 86_400 + 3_600);
                now_s += passes_s;
            }
        }
    }
}
